//! The request that becomes a WebSocket: RFC 6455, section 4.2.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of the head of a request, cookies included.
pub(super) const MOST: usize = 8 * 1024;

/// Fields in it.
const FIELDS: usize = 64;

/// What the key of a request is completed with, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The sub-protocols that are spoken, the one that the standard names first [MQTT-6.0.0-4]; the other is
/// what clients of version 3.1 ask for.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a request is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Paths that may be asked for; without one all may.
    pub paths: Vec<String>,
    /// Origins of pages that may connect; without one all may. A client that names none is no browser.
    pub origins: Vec<String>,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request, or too much of one.
    NotHttp,
    /// The head is too long.
    TooLong,
    /// Not a GET of HTTP 1.1.
    Method,
    /// A path that is not served.
    Path,
    /// It does not ask for a WebSocket.
    NoUpgrade,
    /// Not version 13.
    Version,
    /// No key, or none of 16 bytes.
    Key,
    /// A page that may not connect.
    Origin,
    /// It does not offer `mqtt` [MQTT-6.0.0-3].
    Protocol,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::NotHttp | Self::Key | Self::Protocol => "400 Bad Request",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Method => "405 Method Not Allowed\r\nAllow: GET",
            Self::Path => "404 Not Found",
            Self::NoUpgrade => "426 Upgrade Required\r\nUpgrade: websocket",
            Self::Version => "426 Upgrade Required\r\nSec-WebSocket-Version: 13",
            Self::Origin => "403 Forbidden",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "this is no HTTP request",
            Self::TooLong => "the head of the request is too long",
            Self::Method => "only GET of HTTP/1.1 becomes a WebSocket",
            Self::Path => "this path is not served; see ws_path",
            Self::NoUpgrade => "this is the place for MQTT by WebSocket, and nothing else",
            Self::Version => "only version 13 of WebSocket is spoken",
            Self::Key => "Sec-WebSocket-Key is missing or wrong",
            Self::Origin => "pages of this origin may not connect; see ws_origin",
            Self::Protocol => "the sub-protocol `mqtt` must be offered",
        })
    }
}

/// Answers the request at the start of `head`, behind `reply`. Returns how long it is, or `None` if it
/// is not complete.
///
/// # Errors
/// If it does not become a WebSocket; the answer says so.
pub(super) fn answer(
    head: &[u8],
    rules: &Rules,
    reply: &mut Vec<u8>,
) -> Result<Option<usize>, Refusal> {
    match accept(head, rules) {
        Ok(None) if head.len() > MOST => {
            refuse(Refusal::TooLong, reply);
            Err(Refusal::TooLong)
        }
        Ok(None) => Ok(None),
        Ok(Some((size, key, protocol))) => {
            let text = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
            );
            reply.extend_from_slice(text.as_bytes());
            Ok(Some(size))
        }
        Err(refusal) => {
            refuse(refusal, reply);
            Err(refusal)
        }
    }
}

fn refuse(refusal: Refusal, reply: &mut Vec<u8>) {
    let body = format!("{refusal}\n");
    let text = format!(
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{body}",
        refusal.status(),
        body.len()
    );
    reply.extend_from_slice(text.as_bytes());
}

/// How long the request is, what its key becomes, and the sub-protocol.
type Accepted = (usize, String, &'static str);

fn accept(head: &[u8], rules: &Rules) -> Result<Option<Accepted>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let size = match request.parse(head) {
        Ok(httparse::Status::Complete(size)) if size <= MOST => size,
        Ok(httparse::Status::Complete(_)) => return Err(Refusal::TooLong),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(_) => return Err(Refusal::NotHttp),
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(Refusal::Method);
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if !rules.paths.is_empty() && !rules.paths.iter().any(|known| known == path) {
        return Err(Refusal::Path);
    }
    // All fields of a name are one list, section 4.2.1 and RFC 9110 5.3.
    let values = |name: &'static str| {
        let fields = request.headers.iter();
        let named = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| std::str::from_utf8(field.value).unwrap_or_default())
    };
    let words = |name| {
        values(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
    };
    let has = |name, word: &str| words(name).any(|found| found.eq_ignore_ascii_case(word));
    if !has("Upgrade", "websocket") || !has("Connection", "Upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if !has("Sec-WebSocket-Version", "13") {
        return Err(Refusal::Version);
    }
    let key = values("Sec-WebSocket-Key")
        .next()
        .unwrap_or_default()
        .trim();
    let decoded = STANDARD.decode(key).map_err(|_| Refusal::Key)?;
    if decoded.len() != 16 {
        return Err(Refusal::Key);
    }
    if !rules.origins.is_empty() {
        let known = |origin: &str| {
            rules
                .origins
                .iter()
                .any(|known| known.eq_ignore_ascii_case(origin))
        };
        if !values("Origin").all(|origin| known(origin.trim())) {
            return Err(Refusal::Origin);
        }
    }
    let offered = |protocol: &&&str| words("Sec-WebSocket-Protocol").any(|word| word == **protocol);
    let protocol = PROTOCOLS.iter().find(offered).ok_or(Refusal::Protocol)?;
    Ok(Some((size, answer_to(key), protocol)))
}

/// What a server makes of a key, to show that it has understood.
pub(super) fn answer_to(key: &str) -> String {
    let digest = sha1_smol::Sha1::from(format!("{key}{GUID}")).digest();
    STANDARD.encode(digest.bytes())
}

/// Reads the answer to a request with `key`. Returns how long it is, or `None` if it is not complete.
///
/// # Errors
/// If the server does not speak MQTT by WebSocket; what it says instead.
pub(super) fn accepted(head: &[u8], key: &str) -> Result<Option<usize>, String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let size = match response.parse(head) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if head.len() <= MOST => return Ok(None),
        _ => return Err("the answer is no HTTP".to_owned()),
    };
    if response.code != Some(101) {
        let reason = response.reason.unwrap_or_default();
        return Err(format!("{} {reason}", response.code.unwrap_or_default()));
    }
    let value = |name: &str| {
        let mut fields = response.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    if value("Sec-WebSocket-Accept") != Some(&answer_to(key)) {
        return Err("the answer is to another request".to_owned());
    }
    match value("Sec-WebSocket-Protocol") {
        Some(protocol) if PROTOCOLS.contains(&protocol) => Ok(Some(size)),
        _ => Err("it does not speak MQTT".to_owned()),
    }
}
