//! Why a client ended, and the exit code that says so: the ones of mosquitto's clients.

use std::fmt;
use std::io;
use std::process::ExitCode;

use shardmq::wire::{ReasonCode, Version, Violation};

/// Why a client ended without having done what it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line asks for what makes no sense.
    Usage(String),
    /// There is no connection to be had.
    Connect(String),
    /// The broker answered CONNECT with a refusal.
    Refused {
        version: Version,
        reason: ReasonCode,
        reason_string: Option<String>,
    },
    /// The broker refused a request: which, and how.
    Denied {
        what: &'static str,
        reason: ReasonCode,
        reason_string: Option<String>,
    },
    /// The broker ended the connection with a reason.
    Disconnected {
        reason: ReasonCode,
        reason_string: Option<String>,
    },
    /// The connection was lost.
    Lost(String),
    /// The broker sent what it must not.
    Protocol(String),
    /// The time given with -W is over.
    Timeout,
    /// A file or a stream of this process failed.
    Io(String, io::Error),
}

impl Failure {
    /// What the process exits with.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) | Self::Connect(_) | Self::Io(..) => 1,
            Self::Protocol(_) => 2,
            Self::Lost(_) => 7,
            Self::Timeout => 27,
            Self::Refused {
                version, reason, ..
            } if !version.is_v5() => reason.connect_return_code().unwrap_or(1),
            Self::Refused { reason, .. }
            | Self::Denied { reason, .. }
            | Self::Disconnected { reason, .. } => reason.as_u8().max(1),
        })
    }

    /// Whether another try may do better: the broker was there and is gone.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Connect(_) => true,
            Self::Disconnected { reason, .. } => *reason == ReasonCode::ServerShuttingDown,
            Self::Usage(_)
            | Self::Refused { .. }
            | Self::Denied { .. }
            | Self::Protocol(_)
            | Self::Timeout
            | Self::Io(..) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Connect(text) | Self::Lost(text) => f.write_str(text),
            Self::Protocol(text) => write!(f, "the broker broke the protocol: {text}"),
            Self::Timeout => f.write_str("timed out"),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Refused {
                reason,
                reason_string,
                ..
            } => {
                write!(f, "the broker refused the connection: {reason}")?;
                because(f, reason_string.as_deref())?;
                match reason {
                    ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized => {
                        f.write_str("; a user name and a password are given with -u and -P")
                    }
                    ReasonCode::UnsupportedProtocolVersion => {
                        f.write_str("; another version is chosen with -V")
                    }
                    _ => Ok(()),
                }
            }
            Self::Denied {
                what,
                reason,
                reason_string,
            } => {
                write!(f, "the broker refused the {what}: {reason}")?;
                because(f, reason_string.as_deref())
            }
            Self::Disconnected {
                reason,
                reason_string,
            } => {
                write!(f, "the broker ended the connection: {reason}")?;
                because(f, reason_string.as_deref())
            }
        }
    }
}

fn because(f: &mut fmt::Formatter<'_>, reason_string: Option<&str>) -> fmt::Result {
    match reason_string {
        Some(text) => write!(f, " ({text})"),
        None => Ok(()),
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation.to_string())
    }
}

/// Why a TCP connection was not made, with what to do about it.
pub(super) fn connect_failure(host: &str, port: u16, error: &io::Error) -> Failure {
    Failure::Connect(match error.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "connection refused: is a broker running on {host}:{port}? Start one with `shardmq run`"
        ),
        io::ErrorKind::TimedOut => {
            format!("no answer from {host}:{port}: is the address right, and no firewall between?")
        }
        _ => format!("cannot connect to {host}:{port}: {error}"),
    })
}
