//! One network connection: what ends with it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::message::Position;
use crate::policy::Credentials;
use crate::route::SessionKey;
use crate::time::Time;
use crate::wire::{Ack, AckKind, PacketId, ReasonCode, Version};

use super::{IncomingAliases, OutgoingAliases};

/// A connection of this shard: the driver's slot, and how often that slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey {
    /// The slot.
    pub index: u32,
    /// Tells this connection from those that had the slot before it.
    pub generation: u32,
}

/// Where a connection came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which `[[listener]]` took it, counted from 0.
    pub listener: u16,
    /// The client's address; `0.0.0.0:0` for a Unix socket.
    pub address: SocketAddr,
    /// The name in the certificate that the client has shown, and that was verified.
    pub certificate_name: Option<Arc<str>>,
}

impl Peer {
    /// A client without a certificate.
    #[must_use]
    pub fn new(listener: u16, address: SocketAddr) -> Self {
        Self {
            listener,
            address,
            certificate_name: None,
        }
    }
}

/// Names a question that was put to a slow authenticator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// CONNECT is not complete.
    Handshake,
    /// CONNECT is complete and waits for an authenticator; it stays in `partial` until then.
    Authenticating(Ticket),
    /// CONNECT was accepted.
    Connected(SessionKey),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Its key.
    pub key: ConnKey,
    /// How far it is.
    pub phase: Phase,
    /// What it speaks, known from CONNECT on.
    pub version: Version,
    /// Whether version 5 answers may carry reason strings [MQTT-3.1.2-29].
    pub request_problem_information: bool,
    /// The client's Receive Maximum, bounded by our own `max_inflight`, and never 0 [MQTT-4.9.0-1].
    pub receive_maximum: u16,
    /// The largest packet the client takes, in bytes.
    pub maximum_packet_size: u32,
    /// Microseconds without a packet that end the connection, 0 for no bound.
    pub keep_alive_us: u64,
    /// When the last packet came.
    pub last_packet: Time,
    /// Until when it is not read from, because it was too fast.
    pub paused_until: Option<Time>,
    /// When what it has sent so far would have come at its rate.
    pub paid_until: Time,
    /// When it ends whatever comes: its token is valid no longer.
    pub ends_at: Time,
    /// The deadline that stands in the shard's timers for it.
    pub timer: Time,
    /// Whether the CONNECT's Session Expiry Interval was 0, section 3.14.2.2.2.
    pub expiry_was_zero: bool,
    /// Bytes of a packet that is not complete.
    pub partial: Vec<u8>,
    /// Bytes that were worked off.
    pub consumed: u64,
    /// PUBACKs and PUBRECs that wait for other shards, and those behind them [MQTT-4.6.0-2].
    pub acknowledgements: VecDeque<Acknowledgement>,
    /// PUBACKs among them.
    pub owed_pubacks: u32,
    /// The number of the first of them, counted from the start of the connection.
    pub first_acknowledgement: u64,
    /// Aliases that the client set; they end with the connection [MQTT-3.3.2-7].
    pub incoming_aliases: Option<Box<IncomingAliases>>,
    /// Aliases that the broker sets.
    pub outgoing_aliases: Option<Box<OutgoingAliases>>,
    /// Bytes of the mount that come off the topics that are sent to it.
    pub mounted: u16,
    /// Where it came from.
    pub peer: Peer,
}

/// A PUBACK or PUBREC that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// PUBACK or PUBREC.
    pub kind: AckKind,
    /// Of which PUBLISH.
    pub packet_id: PacketId,
    /// What it will say.
    pub reason: ReasonCode,
    /// Shards that have not answered.
    pub waiting: u32,
    /// How far the journal must have come before it leaves.
    pub durable: Position,
}

impl Peer {
    /// What somebody says of himself, with what is known of where he comes from.
    #[must_use]
    pub fn credentials<'a>(
        &'a self,
        client_id: &'a str,
        username: Option<&'a str>,
        password: Option<&'a [u8]>,
    ) -> Credentials<'a> {
        Credentials {
            client_id,
            username,
            password,
            certificate: self.certificate_name.as_deref(),
            listener: self.listener,
            address: self.address,
        }
    }
}

impl Connection {
    /// A connection that was accepted just now.
    #[must_use]
    pub fn new(key: ConnKey, peer: Peer, now: Time) -> Self {
        Self {
            key,
            phase: Phase::Handshake,
            version: Version::V3_1_1,
            request_problem_information: true,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
            keep_alive_us: 0,
            last_packet: now,
            paused_until: None,
            paid_until: Time::ZERO,
            ends_at: Time::NEVER,
            timer: Time::NEVER,
            expiry_was_zero: false,
            partial: Vec::new(),
            consumed: 0,
            acknowledgements: VecDeque::new(),
            owed_pubacks: 0,
            first_acknowledgement: 0,
            incoming_aliases: None,
            outgoing_aliases: None,
            mounted: 0,
            peer,
        }
    }

    /// Whether an acknowledgement without reasons is within the client's Maximum Packet Size.
    #[must_use]
    pub fn takes_acknowledgements(&self) -> bool {
        self.maximum_packet_size as usize >= Ack::SHORTEST
    }

    /// The session, once CONNECT was accepted.
    #[must_use]
    pub fn session(&self) -> Option<SessionKey> {
        match self.phase {
            Phase::Connected(session) => Some(session),
            Phase::Handshake | Phase::Authenticating(_) => None,
        }
    }

    /// When the client has been silent for too long.
    #[must_use]
    pub fn silent_at(&self) -> Time {
        match self.keep_alive_us {
            0 => Time::NEVER,
            limit => self.last_packet.plus_micros(limit),
        }
    }

    /// When to look at it: it has been silent for too long, may go on, or must end. While it is not read
    /// from, its silence is ours.
    #[must_use]
    pub fn due_at(&self) -> Time {
        let next = self.paused_until.unwrap_or_else(|| self.silent_at());
        next.min(self.ends_at)
    }
}
