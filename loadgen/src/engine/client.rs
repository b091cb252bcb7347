//! One client: a socket, what is on its way in and out, and how far it is.
//!
//! A client is at most one connection at a time. Its socket is closed only when the kernel has
//! nothing of it any more, and every connection has a generation of its own, so a completion always
//! finds the connection that it belongs to.

use std::os::fd::OwnedFd;

use shardmq::runtime::net::Output;

use super::link::Link;
use super::window::Window;

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its turn to connect has not come, or it is gone.
    Away,
    /// CONNECT is on its way.
    Connecting,
    /// SUBSCRIBE is on its way.
    Subscribing,
    /// It does what it is there for.
    Ready,
    /// DISCONNECT is on its way: that the broker closes now is no news, and neither is what it sends.
    Leaving,
    /// It is over; the socket waits for the kernel to let go of it.
    Dying,
}

/// The multishot receive of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// There is none.
    Idle,
    /// It is with the kernel.
    Armed,
    /// There is none, and there shall be none.
    Refused,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Option<OwnedFd>,
    /// What lies between it and MQTT, if anything does.
    pub(super) link: Option<Box<Link>>,
    /// What the kernel is sending.
    pub(super) output: Output,
    /// What is to be sent after it.
    pub(super) pending: Vec<u8>,
    /// The beginning of a packet whose end has not come.
    pub(super) input: Vec<u8>,
    /// PUBLISH up to its payload, with room for the packet identifier.
    pub(super) head: Box<[u8]>,
    /// Where in `head` the packet identifier is; 0 for none.
    pub(super) packet_id_at: u16,
    /// Unacknowledged messages, for QoS 1 and 2.
    pub(super) window: Option<Box<Window>>,
    /// Packet identifiers of QoS 2 messages that came and were not released.
    pub(super) unreleased: Vec<u16>,
    pub(super) group: u16,
    pub(super) phase: Phase,
    pub(super) receive: Receive,
    /// It is in the list of those that have something to send.
    pub(super) touched: bool,
    /// It is in the list of those that may publish again.
    pub(super) hungry: bool,
    /// Its connection ends with a reset.
    pub(super) resets: bool,
    /// It counted as ready.
    pub(super) counted: bool,
    /// Number within its group.
    pub(super) number: u32,
    /// Number among all clients that publish.
    pub(super) publisher: u32,
    /// Which of its connections this is.
    pub(super) generation: u32,
    /// Messages published.
    pub(super) sequence: u32,
    /// Messages that were due so far.
    pub(super) due: u32,
    /// Messages to publish in all.
    pub(super) limit: u32,
    /// Seconds of the clock at which it sent last.
    pub(super) last_sent_s: u32,
    /// When its connection was begun.
    pub(super) began_ns: u64,
}

impl Client {
    pub(super) fn new(group: u16, number: u32, publisher: u32) -> Self {
        Self {
            socket: None,
            link: None,
            output: Output::default(),
            pending: Vec::new(),
            input: Vec::new(),
            head: Box::default(),
            packet_id_at: 0,
            window: None,
            unreleased: Vec::new(),
            group,
            phase: Phase::Away,
            receive: Receive::Idle,
            touched: false,
            hungry: false,
            resets: false,
            counted: false,
            number,
            publisher,
            generation: 0,
            sequence: 0,
            due: 0,
            limit: u32::MAX,
            last_sent_s: 0,
            began_ns: 0,
        }
    }

    /// Whether packets may be exchanged.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.phase,
            Phase::Connecting | Phase::Subscribing | Phase::Ready
        )
    }

    /// Bytes that have not left.
    pub(super) fn backlog(&self) -> usize {
        self.pending.len() + self.output.unsent()
    }
}
