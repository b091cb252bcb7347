//! `shardmq pub` and `shardmq sub`: small MQTT clients with the options of mosquitto's, so that a
//! first try needs nothing but this program.
//!
//! They use blocking sockets and threads and share nothing with the broker but [`shardmq::wire`],
//! so they also show that the broker speaks to somebody who is not itself.

mod args;
mod connection;
mod failure;
mod format;
mod json;
mod message;
mod properties;
mod publish;
mod session;
mod subscribe;
mod tls;
mod url;
mod ws;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use shardmq::topic::{Name, TopicError};
use shardmq::wire::{Connect, ConnectProperties, Disconnect, Forwarded, ReasonCode, Version, Will};

use self::args::CommonArgs;
use self::connection::Connection;
use self::failure::Failure;
use self::properties::{Command, Properties};
use self::session::Session;

pub(crate) use self::args::{PubArgs, SubArgs, refused};

/// Runs `shardmq pub`.
pub(crate) fn run_pub(args: &PubArgs) -> ExitCode {
    outcome(publish::run(args), args.common.quiet)
}

/// Runs `shardmq sub`.
pub(crate) fn run_sub(args: &SubArgs) -> ExitCode {
    outcome(subscribe::run(args), args.common.quiet)
}

/// Writes a line to standard error; if that is gone, there is nobody to tell.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn outcome(result: Result<(), Failure>, quiet: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !quiet {
                complain(&format!("Error: {failure}"));
            }
            failure.exit_code()
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client is not the core; it has a clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client is not the core; it has a clock"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A flag that SIGINT and SIGTERM set.
fn interruption() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(|error| Failure::Io("cannot listen for signals".to_owned(), error))?;
    }
    Ok(flag)
}

/// All that both clients know before they connect.
struct Plan<'a> {
    common: &'a CommonArgs,
    version: Version,
    client_id: String,
    properties: Properties,
    interrupted: Arc<AtomicBool>,
    until: Option<Instant>,
}

impl<'a> Plan<'a> {
    fn new(
        common: &'a CommonArgs,
        packets: &[Command],
        needs_v5: Option<&'static str>,
    ) -> Result<Self, Failure> {
        let version = common.version(needs_v5).map_err(Failure::Usage)?;
        if let Some(topic) = &common.will_topic {
            Name::parse(topic).map_err(|error| bad_topic("--will-topic", topic, error))?;
        }
        Ok(Self {
            common,
            version,
            client_id: common.client_id(version).map_err(Failure::Usage)?,
            properties: common.properties(packets).map_err(Failure::Usage)?,
            interrupted: interruption()?,
            until: None,
        })
    }

    /// Connects, and shakes hands.
    fn open(&self) -> Result<Session, Failure> {
        let (host, port) = self.common.target();
        let layers = self.common.layers().map_err(Failure::Usage)?;
        let connection = Connection::open(&host, port, &layers, self.until, &self.interrupted)?;
        let p = &self.properties;
        let user_properties = p.user_properties(Command::Connect);
        let will_forwarded = p.forwarded(Command::Will);
        let url = self.common.url.as_ref();
        let password = self
            .common
            .password
            .as_deref()
            .or_else(|| url.and_then(|url| url.password.as_deref()));
        let flag = |name| p.number(Command::Connect, name).map(|number| number != 0);
        let connect = Connect {
            version: self.version,
            clean_start: !self.common.keep_session,
            keep_alive: self.common.keepalive,
            client_id: &self.client_id,
            will: self.will(&will_forwarded)?,
            username: self
                .common
                .username
                .as_deref()
                .or_else(|| url.and_then(|url| url.username.as_deref())),
            password: password.map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_interval: p
                    .number(Command::Connect, "session-expiry-interval")
                    .or_else(|| self.common.session_expiry()),
                receive_maximum: p.short(Command::Connect, "receive-maximum"),
                maximum_packet_size: p.number(Command::Connect, "maximum-packet-size"),
                topic_alias_maximum: p
                    .short(Command::Connect, "topic-alias-maximum")
                    .unwrap_or_default(),
                request_response_information: flag("request-response-information")
                    .unwrap_or_default(),
                request_problem_information: flag("request-problem-information").unwrap_or(true),
                user_properties: user_properties.as_user_properties(),
                authentication_method: p.text(Command::Connect, "authentication-method"),
                authentication_data: p
                    .text(Command::Connect, "authentication-data")
                    .map(str::as_bytes),
            },
        };
        Session::open(
            connection,
            &connect,
            self.common.max_inflight,
            self.common.debug,
            self.until,
        )
    }

    /// Whether a signal asks us to end.
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn will<'b>(&'b self, forwarded: &'b [u8]) -> Result<Option<Will<'b>>, Failure> {
        let Some(topic) = &self.common.will_topic else {
            return Ok(None);
        };
        let p = &self.properties;
        Ok(Some(Will {
            topic: Name::parse(topic).map_err(|error| bad_topic("--will-topic", topic, error))?,
            payload: self
                .common
                .will_payload
                .as_deref()
                .unwrap_or_default()
                .as_bytes(),
            qos: self.common.will_qos.unwrap_or_default(),
            retain: self.common.will_retain,
            delay_interval: p
                .number(Command::Will, "will-delay-interval")
                .unwrap_or_default(),
            message_expiry_interval: p.number(Command::Will, "message-expiry-interval"),
            forwarded: Forwarded::from_bytes(forwarded),
        }))
    }

    /// Says goodbye: with `reason` if the version has reasons.
    fn close(&self, session: Session, reason: ReasonCode) -> Result<(), Failure> {
        let user_properties = self.properties.user_properties(Command::Disconnect);
        session.close(&Disconnect {
            reason,
            session_expiry_interval: self
                .properties
                .number(Command::Disconnect, "session-expiry-interval"),
            reason_string: self.properties.text(Command::Disconnect, "reason-string"),
            user_properties: user_properties.as_user_properties(),
            server_reference: None,
        })
    }
}

fn bad_topic(option: &str, topic: &str, error: TopicError) -> Failure {
    let why = match error {
        TopicError::Empty => "it is empty",
        TopicError::Nul => "it holds the character U+0000",
        TopicError::WildcardInName => "messages go to one topic; + and # are for subscriptions",
        TopicError::MultiLevelWildcard => "# stands alone, and only at the end: a/#",
        TopicError::SingleLevelWildcard => "+ stands alone between two slashes: a/+/b",
        TopicError::TooManyLevels => "it has more levels than the broker takes",
        TopicError::ShareName => "behind $share/ stands the name of a group: $share/group/a/#",
        TopicError::ShareFilter => "behind the group stands a topic filter: $share/group/a/#",
    };
    Failure::Usage(format!("{option} {topic}: {why}"))
}
