//! What a shard has to tell the log, as data: the core writes no log itself.

use std::net::SocketAddr;

use crate::stats::End;
use crate::wire::{ReasonCode, Version};

use super::fault::Fault;

/// Something that an operator may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A CONNECT was accepted.
    Connected {
        /// The client.
        client_id: Box<str>,
        /// From where.
        address: SocketAddr,
        /// What it speaks.
        version: Version,
        /// Whether it came back to a session that was kept.
        session_present: bool,
        /// Seconds between two packets at most, times 1.5; 0 for no bound.
        keep_alive: u16,
    },
    /// A CONNECT was refused.
    Refused {
        /// The client, where it said.
        client_id: Box<str>,
        /// From where.
        address: SocketAddr,
        /// What it was told.
        reason: ReasonCode,
    },
    /// A connection of a client ended.
    Disconnected {
        /// The client.
        client_id: Box<str>,
        /// Why.
        cause: Cause,
    },
    /// A peer broke a rule of the protocol and was cut off.
    Violation {
        /// The client, empty before its CONNECT.
        client_id: Box<str>,
        /// From where.
        address: SocketAddr,
        /// Which rule.
        fault: Fault,
        /// Bytes of this connection before the packet that broke it.
        offset: u64,
    },
    /// Something of history is not as it was written. Each place is told once.
    HistoryDamaged {
        /// The stream.
        stream: Box<str>,
        /// The file in its directory.
        bucket: Box<str>,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: Box<str>,
    },
    /// A session came to its end.
    SessionEnded {
        /// The client.
        client_id: Box<str>,
        /// Messages that waited for it and are gone.
        discarded: u64,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent DISCONNECT with this reason.
    Client(ReasonCode),
    /// The broker sent, or for 3.1.1 would have sent, DISCONNECT with this reason.
    Server(ReasonCode),
    /// The socket ended without a DISCONNECT.
    Eof,
    /// The socket failed, with this error number of the operating system.
    Io(i32),
}

impl Cause {
    /// What it is counted as.
    pub(super) fn end(self) -> End {
        match self {
            Self::Client(ReasonCode::Success) => End::Client,
            Self::Client(_) => End::ClientError,
            Self::Server(_) => End::Broker,
            Self::Eof => End::Eof,
            Self::Io(_) => End::SocketError,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(reason) => write!(formatter, "DISCONNECT by the client: {reason:?}"),
            Self::Server(reason) => write!(formatter, "closed by the broker: {reason:?}"),
            Self::Eof => formatter.write_str("the connection ended without DISCONNECT"),
            Self::Io(errno) => write!(formatter, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}
