//! Asks somebody by HTTP who may come in: a POST of JSON for each question, so many at a time, each with
//! a time limit, answers remembered for a while.
//!
//! Whatever is no answer refuses the client: a server that is away, slow, or says something else. Only
//! a digest of what was asked is remembered, made with a key of this process, so that no password stays.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use crate::limits::{AUTH_HTTP_BYTES, AUTH_HTTP_CACHE, AUTH_QUEUE};
use crate::policy::{Decision, Grant, json_mount_point, json_rules};
use crate::wire::ReasonCode;

use super::https::Secure;
use super::pool::{Answers, Asked, Busy, Questions};

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAsker {
    /// Where he is.
    pub url: HttpUrl,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions at a time.
    pub concurrency: usize,
    /// How long an answer holds.
    pub cache: Duration,
    /// The authorities that his certificate may come from, by https; without a file those that the system
    /// trusts.
    pub authorities: Option<PathBuf>,
}

/// An address of the form `http://host:port/path` or `https://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    tls: bool,
    authority: String,
    host: String,
    path: String,
}

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUrl;

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not of the form http://host:port/path or https://host:port/path")
    }
}

impl HttpUrl {
    /// Reads one.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let (tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").ok_or(BadUrl)?),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let bad = |c: char| c.is_ascii_control() || !c.is_ascii() || matches!(c, ' ' | '@' | '#');
        if host.is_empty() || host.contains(bad) || path.contains(bad) {
            return Err(BadUrl);
        }
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok());
        let authority = match has_port {
            true => host.to_owned(),
            false if host.ends_with(']') || !host.contains(':') => {
                format!("{host}:{}", if tls { 443 } else { 80 })
            }
            false => return Err(BadUrl),
        };
        Ok(Self {
            tls,
            authority,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether TLS is to be spoken.
    pub(super) fn has_tls(&self) -> bool {
        self.tls
    }

    /// The name or address that a certificate must have.
    pub(super) fn name(&self) -> &str {
        let name = self.authority.rsplit_once(':');
        let name = name.map_or(&*self.authority, |(name, _)| name);
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

/// A question and the place in the chain behind this authenticator.
pub(super) type Put = (Arc<Asked>, usize);

/// What the answers say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Decided(Decision),
    /// This client is not his business.
    Ignored,
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Http(hyper::Error),
    Slow,
    TooLong,
    Status(StatusCode),
    NoAnswer,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Slow => f.write_str("no answer in time"),
            Self::TooLong => f.write_str("the answer is too long"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NoAnswer => f.write_str(
                "the answer has no `result` of allow, deny or ignore, or something else in it is wrong",
            ),
        }
    }
}

struct Shared {
    asker: HttpAsker,
    answers: Answers,
    back: Questions,
    key: hmac::Key,
    cache: Mutex<HashMap<[u8; 32], (Verdict, Instant)>>,
    tls: Option<Secure>,
}

/// Starts the thread that asks. What it is sent comes back by `answers`, or by `back` where the chain goes
/// on.
pub(super) fn start(
    (asker, tls): (HttpAsker, Option<Secure>),
    answers: Answers,
    back: Questions,
) -> io::Result<mpsc::Sender<Put>> {
    let (questions, mut put) = mpsc::channel::<Put>(AUTH_QUEUE);
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
    let shared = Arc::new(Shared {
        key: key.map_err(|_| io::Error::other("no random numbers"))?,
        asker,
        answers,
        back,
        cache: Mutex::default(),
        tls,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("auth-http".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let permits = Arc::new(Semaphore::new(shared.asker.concurrency));
                while let Some((asked, then)) = put.recv().await {
                    let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                        return;
                    };
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        shared.ask(asked, then).await;
                        drop(permit);
                    });
                }
            });
        })?;
    Ok(questions)
}

impl Shared {
    async fn ask(&self, asked: Arc<Asked>, then: usize) {
        let body = question(&asked);
        let digest = self.digest(&body);
        let verdict = match self.remembered(&digest) {
            Some(verdict) => verdict,
            None => {
                let timeout = self.asker.timeout;
                let answer = tokio::time::timeout(timeout, self.post(body)).await;
                match answer.unwrap_or(Err(Failure::Slow)) {
                    Ok(verdict) => {
                        self.remember(digest, verdict.clone());
                        verdict
                    }
                    Err(failure) => {
                        tracing::warn!(%failure, "the HTTP authenticator gives no answer; the client is refused");
                        Verdict::Decided(Decision::Deny(ReasonCode::ServerUnavailable))
                    }
                }
            }
        };
        match verdict {
            Verdict::Decided(decision) => self.answers.give(&asked, decision),
            Verdict::Ignored => {
                if let Err(Busy) = self.back.put(Arc::clone(&asked), then) {
                    let busy = Decision::Deny(ReasonCode::ServerBusy);
                    self.answers.give(&asked, busy);
                }
            }
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<Verdict, Failure> {
        let url = &self.asker.url;
        let socket = TcpStream::connect(&url.authority)
            .await
            .map_err(Failure::Io)?;
        match &self.tls {
            None => self.exchange(socket, body).await,
            Some(tls) => {
                let stream = tls.open(socket).await.map_err(Failure::Io)?;
                self.exchange(stream, body).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Vec<u8>,
    ) -> Result<Verdict, Failure> {
        let url = &self.asker.url;
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(Failure::Http)?;
        let connection = tokio::spawn(connection);
        let request = Request::post(&url.path)
            .header(header::HOST, &url.host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Failure::NoAnswer)?;
        let response = sender.send_request(request).await.map_err(Failure::Http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), AUTH_HTTP_BYTES)
            .collect()
            .await
            .map_err(|_| Failure::TooLong)?
            .to_bytes();
        connection.abort();
        answer(status, &body)
    }

    fn digest(&self, body: &[u8]) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(&self.key, body).as_ref());
        digest
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Verdict> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (verdict, until) = cache.get(digest)?;
        (*until > Instant::now()).then(|| verdict.clone())
    }

    fn remember(&self, digest: [u8; 32], verdict: Verdict) {
        if self.asker.cache.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= AUTH_HTTP_CACHE {
            cache.retain(|_, (_, until)| *until > now);
        }
        if cache.len() < AUTH_HTTP_CACHE {
            cache.insert(digest, (verdict, now + self.asker.cache));
        }
    }
}

/// What is asked.
fn question(asked: &Asked) -> Vec<u8> {
    let question = &asked.question;
    let mut body = json!({
        "client_id": question.client_id,
        "username": question.username,
        "address": question.peer.address.to_string(),
        "listener": question.peer.listener,
    });
    match question.password.as_deref().map(std::str::from_utf8) {
        None => body["password"] = Value::Null,
        Some(Ok(text)) => body["password"] = text.into(),
        // Not every password is text.
        Some(Err(_)) => {
            let password = question.password.as_deref().unwrap_or_default();
            body["password_base64"] = STANDARD.encode(password).into();
        }
    }
    body.to_string().into_bytes()
}

/// What is answered.
fn answer(status: StatusCode, body: &[u8]) -> Result<Verdict, Failure> {
    let denied = Verdict::Decided(Decision::Deny(ReasonCode::NotAuthorized));
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(denied),
        _ => return Err(Failure::Status(status)),
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| Failure::NoAnswer)?;
    match body.get("result").and_then(Value::as_str) {
        Some("allow") => {}
        Some("deny") => return Ok(denied),
        Some("ignore") => return Ok(Verdict::Ignored),
        _ => return Err(Failure::NoAnswer),
    }
    // What is there has to be understood: rules that are not would be no rules.
    let username = match body.get("username") {
        None | Some(Value::Null) => None,
        Some(name) => Some(name.as_str().ok_or(Failure::NoAnswer)?.into()),
    };
    let lifetime = match body.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(seconds) => Some(seconds.as_u64().ok_or(Failure::NoAnswer)?),
    };
    let rules = match body.get("acl") {
        None | Some(Value::Null) => None,
        Some(acl) => Some(Arc::new(json_rules(acl).ok_or(Failure::NoAnswer)?)),
    };
    let mount_point = match body.get("mount_point") {
        None | Some(Value::Null) => None,
        Some(text) => Some(json_mount_point(text).ok_or(Failure::NoAnswer)?),
    };
    Ok(Verdict::Decided(Decision::AllowAs(Box::new(Grant {
        username,
        rules,
        lifetime,
        mount_point,
    }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url = |text| HttpUrl::parse(text).map(|url| (url.authority, url.path));
        let expect = |authority: &str, path: &str| Ok((authority.to_owned(), path.to_owned()));
        assert_eq!(url("http://a/b?c"), expect("a:80", "/b?c"));
        assert_eq!(url("http://a:81"), expect("a:81", "/"));
        assert_eq!(url("http://[::1]/"), expect("[::1]:80", "/"));
        assert_eq!(url("http://[::1]:7/"), expect("[::1]:7", "/"));
        assert_eq!(url("https://a/b"), expect("a:443", "/b"));
        assert_eq!(url("https://a:81/b"), expect("a:81", "/b"));
        let name = |text| HttpUrl::parse(text).unwrap().name().to_owned();
        assert_eq!(name("https://a.example:1/"), "a.example");
        assert_eq!(name("https://[::1]/"), "::1");
        for bad in [
            "",
            "a",
            "https://",
            "ftp://a/",
            "http://",
            "http:///x",
            "http://a b/",
            "http://u@a/",
            "http://:1/",
            "http://a:99999/",
            "http://a:x/",
            "http://a/\n",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_answer_lets_somebody_in() {
        let allowed = |body: &str| match answer(StatusCode::OK, body.as_bytes()) {
            Ok(Verdict::Decided(Decision::AllowAs(grant))) => Some(*grant),
            _ => None,
        };
        let grant =
            allowed(r#"{"result":"allow","username":"anna","expires_in":60,"acl":{"pub":["a"]}}"#);
        let grant = grant.unwrap();
        assert_eq!(
            (grant.username.as_deref(), grant.lifetime),
            (Some("anna"), Some(60))
        );
        assert_eq!(grant.rules.unwrap().len(), 1);
        for body in [
            "",
            "allow",
            "{}",
            "[]",
            r#"{"result":true}"#,
            r#"{"result":"Allow"}"#,
            r#"{"result":"allow","acl":"all"}"#,
            r#"{"result":"allow","acl":{"pub":["a/#/b"]}}"#,
            r#"{"result":"allow","username":7}"#,
            r#"{"result":"allow","mount_point":"/x/"}"#,
            r#"{"result":"allow","expires_in":-1}"#,
            r#"{"result":"deny"}"#,
            r#"{"result":"ignore"}"#,
        ] {
            assert!(allowed(body).is_none(), "{body}");
        }
        let body = br#"{"result":"allow"}"#;
        for status in [
            StatusCode::NOT_FOUND,
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::FOUND,
        ] {
            assert!(matches!(answer(status, body), Err(Failure::Status(_))));
        }
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let verdict = answer(status, body).unwrap();
            assert!(matches!(verdict, Verdict::Decided(Decision::Deny(_))));
        }
    }
}
