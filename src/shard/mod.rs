//! The whole broker of one core: a state machine that is given bytes, time and entropy, and leaves
//! what is to be done in an [`Outbox`].
//!
//! Methods of [`Shard`], in the order in which a turn calls them:
//!
//! 1. what other shards sent: [`Shard::receive_live`] for every live batch, then
//!    [`Shard::receive_control`] for the control messages that were taken from their lanes *before*
//!    the live batches (see [`batch`] for why);
//! 2. what sockets did: [`Shard::open`], [`Shard::adopt`], [`Shard::ingest`], [`Shard::writable`], [`Shard::close`], in
//!    any order, and [`Shard::complete`] for answers of slow authenticators;
//! 3. [`Shard::tick`] if [`Shard::next_deadline`] has come;
//! 4. [`Shard::end_turn`], once; then the outbox is drained. If it says `again`, the next turn
//!    follows without waiting.
//!
//! [`Shard::shutdown`] ends it. Invariants:
//!
//! - A session lives on the shard that [`home`] names for its client id. A connection whose CONNECT
//!   names another one is handed over before anything is kept of it. So a client has one session and
//!   one owner, whatever races, and No Local, takeover and packet identifiers never cross shards.
//! - Acknowledgements leave a connection in the order of its PUBLISHes [MQTT-4.6.0-2]
//!   [MQTT-4.6.0-3], although some wait for other shards.
//! - Messages of one publisher, topic and QoS reach a subscriber in their order [MQTT-4.6.0-5]
//!   [MQTT-4.6.0-6]: a connection, a lane and an output buffer are first in, first out, and nothing on
//!   the way sorts or spreads them.
//! - A message that a client does not get is counted under its [`crate::stats::DropReason`].

pub mod batch;

mod access;
mod acknowledge;
mod authenticate;
mod away;
mod close;
mod common;
mod connect;
mod deliver;
mod durable;
mod event;
mod explain;
mod fanout;
mod fault;
mod forward;
mod history;
mod limit;
mod mesh;
mod outbox;
mod publish;
mod random;
mod recall;
mod replay;
mod restore;
mod settings;
mod share;
mod subscribe;
mod sys;
mod tables;
mod tick;

use std::collections::BTreeMap;

use crate::journal::Journal;
use crate::limits::MAX_CONNECT_PACKET_SIZE;
use crate::policy::Policy;
use crate::route::{Retained, Routes, SessionKey, ShardId};
use crate::session::{Connection, Phase, ReplayKey, SessionNumber};
use crate::stats::Stats;
use crate::time::Time;
use crate::wire::{
    Ack, AckKind, AckRun, Framing, Packet, PacketType, Publish, Run, frame, missing,
};

pub use crate::session::{ConnKey, Peer, Ticket};
pub use away::Fetching;
pub use batch::{Batch, Control, Frame, Target, home};
pub use close::CloseCause;
pub use durable::{Durability, Durable};
pub use event::{Cause, Event};
pub use fault::Fault;
pub use history::{HistoryAnswer, HistoryDone, HistoryJob, HistoryQuestion};
pub use limit::{Limits, Shortage};
pub use outbox::{Close, Handoff, Outbox, Question};
pub use restore::{Bodies, Epoch};
pub use settings::{ListenerSettings, QueueOverflow, Settings};
pub use sys::{Loads, Memory, system_topics};

use authenticate::Enhanced;
use away::Fetches;
use common::Commons;
use connect::{Answered, Asked};
use durable::Store;
use fanout::Encoder;
use forward::Forwards;
use history::Histories;
use limit::{Bans, is_paused};
use mesh::Mesh;
use publish::Incoming;
use random::Random;
use recall::Recalls;
use replay::{Replay, RetainedQuery};
use subscribe::PendingSubscribe;
use sys::Sys;
use tables::{Connections, Sessions, TimerKey, Timers};

/// Which shard of how many this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This shard.
    pub shard: ShardId,
    /// All shards, 1 to [`crate::limits::MAX_SHARDS`].
    pub shards: usize,
    /// Entropy, another for each shard and each start.
    pub seed: u64,
}

/// The broker of one core.
pub struct Shard {
    identity: Identity,
    settings: Settings,
    policy: Box<dyn Policy>,
    /// Counts the policies that there were.
    policy_epoch: u32,
    /// Whether messages are looked at on their way to a client: by the policy, or because of a mount.
    filters: bool,
    /// Whether there is, or was, a client with a mount.
    mounts: bool,
    /// Where whole topics are put together.
    whole: String,
    /// For each listener, when what has come by it would have come at its rate; empty if none has one.
    listeners_paid_until: Vec<Time>,
    shortage: Shortage,
    bans: Bans,
    stats: Stats,
    connections: Connections,
    sessions: Sessions,
    routes: Routes,
    retained: Retained,
    timers: Timers,
    housekeeping: Time,
    mesh: Mesh,
    questions: BTreeMap<Ticket, Asked>,
    answers: BTreeMap<ConnKey, Answered>,
    enhanced: BTreeMap<ConnKey, Enhanced>,
    subscribes: BTreeMap<u64, PendingSubscribe>,
    replays: BTreeMap<ReplayKey, Replay>,
    /// Replays with retained messages of this very shard still to be read.
    ready_replays: Vec<ReplayKey>,
    /// Questions of other shards for retained messages: of this turn, and of the one before.
    queries: Vec<RetainedQuery>,
    due_queries: Vec<RetainedQuery>,
    /// Taken out while a message is routed, so it is a box.
    encoder: Option<Box<Encoder>>,
    store: Store,
    /// Where the sessions are gathered that a message is kept for.
    gathered: Vec<SessionNumber>,
    fetches: Fetches,
    commons: Commons,
    forwards: Forwards,
    history: Option<Box<Histories>>,
    recalls: Recalls,
    sys: Sys,
    random: Random,
    serial: u64,
}

/// Whether a packet was worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// On to the next one.
    Next,
    /// It stays where it is until something else happens.
    Hold,
}

impl Shard {
    /// A shard without connections, sessions and retained messages.
    #[must_use]
    pub fn new(identity: Identity, settings: Settings, policy: Box<dyn Policy>, now: Time) -> Self {
        let mut random = Random::new(identity.seed);
        let mut timers = Timers::default();
        let housekeeping = timers.move_to(TimerKey::Housekeeping, Time::NEVER, now.plus_secs(1));
        Self {
            sessions: Sessions::new(random.next()),
            routes: Routes::new(random.next()),
            retained: Retained::new(random.next()),
            connections: Connections::default(),
            stats: Stats::default(),
            mesh: Mesh::new(identity.shards),
            questions: BTreeMap::new(),
            answers: BTreeMap::new(),
            enhanced: BTreeMap::new(),
            subscribes: BTreeMap::new(),
            replays: BTreeMap::new(),
            ready_replays: Vec::new(),
            queries: Vec::new(),
            due_queries: Vec::new(),
            encoder: None,
            store: Store::default(),
            gathered: Vec::new(),
            fetches: Fetches::default(),
            commons: Commons::default(),
            forwards: Forwards::default(),
            history: None,
            recalls: Recalls::default(),
            sys: Sys::new(identity.shards, now),
            serial: 0,
            housekeeping,
            timers,
            random,
            identity,
            policy_epoch: 1,
            filters: policy.filters_messages(),
            mounts: false,
            whole: String::new(),
            listeners_paid_until: limit::unpaid(&settings),
            shortage: Shortage::None,
            bans: Bans::default(),
            policy,
            settings,
        }
    }

    /// A socket was accepted.
    pub fn open(&mut self, conn: ConnKey, peer: Peer, now: Time, _out: &mut Outbox) {
        self.begin(conn, peer, now);
        self.stats.connections_opened += 1;
    }

    /// A socket came from another shard, with what was read from it there and counted.
    pub fn adopt(&mut self, conn: ConnKey, peer: Peer, unread: &[u8], now: Time, out: &mut Outbox) {
        self.begin(conn, peer, now);
        self.take(conn, unread, u64::MAX, now, out);
    }

    fn begin(&mut self, conn: ConnKey, peer: Peer, now: Time) {
        let mut connection = Connection::new(conn, peer, now);
        let deadline = now.plus_millis(self.settings.connect_timeout_ms);
        connection.timer = self
            .timers
            .move_to(TimerKey::Connection(conn), Time::NEVER, deadline);
        self.connections.insert(connection);
        self.stats.connections += 1;
    }

    /// Bytes came from the socket of `conn`. Packets may be split and joined at will.
    pub fn ingest(&mut self, conn: ConnKey, bytes: &[u8], now: Time, out: &mut Outbox) {
        self.ingest_within(conn, bytes, usize::MAX, now, out);
    }

    /// The same, until about `budget` bytes were appended to the outputs of clients. Returns how many
    /// of `bytes` were taken; the rest is given again once those outputs have left.
    pub fn ingest_within(
        &mut self,
        conn: ConnKey,
        bytes: &[u8],
        budget: usize,
        now: Time,
        out: &mut Outbox,
    ) -> usize {
        let enough = self.stats.bytes_sent.saturating_add(budget as u64);
        match self.take(conn, bytes, enough, now, out) {
            Some(taken) => {
                self.stats.bytes_received += taken as u64;
                taken
            }
            None => bytes.len(),
        }
    }

    /// Bytes that were appended to the outputs of clients since the start.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.stats.bytes_sent
    }

    /// Works on new bytes until `enough` bytes were sent since the start; returns how many it took.
    /// `None` if nobody knows the connection.
    fn take(
        &mut self,
        conn: ConnKey,
        bytes: &[u8],
        enough: u64,
        now: Time,
        out: &mut Outbox,
    ) -> Option<usize> {
        let mut at = 0;
        // The packet that has begun is completed first; what comes behind it is worked on where it is.
        while let Some(connection) = self.connections.get_mut(conn)
            && !connection.partial.is_empty()
            && matches!(connection.phase, Phase::Connected(_))
            && !is_paused(connection)
        {
            let maximum = maximum_packet_size(connection, &self.settings);
            if let Ok(Framing::Incomplete) = frame(&connection.partial, maximum) {
                let rest = &bytes[at..];
                let wanted = missing(&connection.partial).min(rest.len());
                if wanted == 0 {
                    return Some(at);
                }
                connection.partial.extend_from_slice(&rest[..wanted]);
                at += wanted;
            } else {
                self.resume(conn, now, out);
            }
        }
        let connection = self.connections.get_mut(conn);
        let Some(connection) = connection else {
            return (at > 0).then_some(bytes.len());
        };
        if !connection.partial.is_empty() || is_held(connection) {
            // A CONNECT that moves to another shard takes along all that is behind it.
            connection.partial.extend_from_slice(&bytes[at..]);
            self.resume(conn, now, out);
            return Some(bytes.len());
        }
        at += self.work_off(conn, &bytes[at..], enough, now, out);
        if self.stats.bytes_sent < enough {
            if let Some(connection) = self.connections.get_mut(conn) {
                connection.partial.extend_from_slice(&bytes[at..]);
            }
            at = bytes.len();
        }
        Some(at)
    }

    /// The bytes that were kept back for `conn` are worked off, if nothing holds them any longer.
    fn resume(&mut self, conn: ConnKey, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if is_held(connection) || connection.partial.is_empty() {
            return;
        }
        let mut partial = std::mem::take(&mut connection.partial);
        let used = self.work_off(conn, &partial, u64::MAX, now, out);
        if used < partial.len()
            && let Some(connection) = self.connections.get_mut(conn)
        {
            partial.drain(..used);
            connection.partial = partial;
        }
    }

    /// Works off the complete packets at the start of `bytes`, until `enough` bytes were sent since the
    /// start; returns how many bytes they were.
    fn work_off(
        &mut self,
        conn: ConnKey,
        bytes: &[u8],
        enough: u64,
        now: Time,
        out: &mut Outbox,
    ) -> usize {
        let mut at = 0;
        let mut topic = "";
        while at < bytes.len() {
            // Gone, handed over, or told to wait: what is left is not ours to read now.
            let Some(connection) = self.connections.get_mut(conn) else {
                break;
            };
            if is_held(connection) {
                break;
            }
            let maximum = maximum_packet_size(connection, &self.settings);
            let offset = connection.consumed;
            let outcome = match frame(&bytes[at..], maximum) {
                Ok(Framing::Incomplete) => break,
                Ok(Framing::Packet {
                    first_byte,
                    body,
                    size,
                }) => {
                    connection.last_packet = now;
                    connection.consumed += size as u64;
                    let packet = &bytes[at..];
                    at += size;
                    self.stats.packets_received[usize::from(first_byte >> 4)] += 1;
                    match connection.phase {
                        Phase::Connected(session)
                            if first_byte >> 4 == PacketType::Publish as u8 =>
                        {
                            let version = connection.version;
                            Publish::decode_after(version, first_byte, body, topic)
                                .map_err(Fault::from)
                                .and_then(|publish| {
                                    topic = publish.topic;
                                    let most = match packet.get(size) {
                                        Some(&next) if next == first_byte => {
                                            self.most_together(conn, session, &publish)
                                        }
                                        _ => 1,
                                    };
                                    let run =
                                        Run::of(version, &publish, packet, size, maximum, most);
                                    let (packets, bytes) = run.map_or((0, 0), |run| {
                                        (run.count() - 1, run.bytes().len() - size)
                                    });
                                    at += self.count_more(
                                        conn,
                                        PacketType::Publish,
                                        packets.into(),
                                        bytes,
                                    );
                                    let incoming = Incoming { publish, run };
                                    self.on_publish(conn, session, &incoming, now, out)
                                })
                                .map(|()| Flow::Next)
                        }
                        Phase::Connected(session) if let Some(acks) = AckRun::of(packet) => {
                            at += self.count_more(
                                conn,
                                acks.kind().packet_type(),
                                acks.count() as u64 - 1,
                                acks.size() - size,
                            );
                            self.on_acks(conn, session, &acks, now, out);
                            Ok(Flow::Next)
                        }
                        Phase::Connected(session) => self
                            .packet(conn, session, first_byte, body, now, out)
                            .map(|()| Flow::Next),
                        Phase::Handshake | Phase::Authenticating(_) => {
                            self.first_packet(conn, first_byte, body, packet, now, out)
                        }
                    }
                    .inspect(|&flow| {
                        if flow == Flow::Hold {
                            at -= size;
                        }
                    })
                }
                Err(violation) => Err(violation.into()),
            };
            match outcome {
                Ok(Flow::Next) if self.stats.bytes_sent >= enough => break,
                Ok(Flow::Next) => {}
                Ok(Flow::Hold) => break,
                Err(fault) => {
                    self.fail(conn, fault, offset, now, out);
                    break;
                }
            }
        }
        at
    }

    /// A packet of a client whose CONNECT was accepted. Each is answered as it is read, whatever the
    /// send quota is [MQTT-3.3.4-10] [MQTT-4.9.0-3].
    fn packet(
        &mut self,
        conn: ConnKey,
        session: SessionKey,
        first_byte: u8,
        body: &[u8],
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(connection) = self.connections.get(conn) else {
            return Ok(());
        };
        if let Some(kind) = AckKind::from_first_byte(first_byte) {
            let ack = Ack::decode(kind, connection.version, body)?;
            self.on_ack(conn, session, kind, &ack, now, out);
            return Ok(());
        }
        match Packet::decode(connection.version, first_byte, body)? {
            Packet::Connect(_) => Err(Fault::SecondConnect), // [MQTT-3.1.0-2]
            Packet::Subscribe(subscribe) => self.on_subscribe(conn, session, &subscribe, now, out),
            Packet::Unsubscribe(unsubscribe) => {
                self.on_unsubscribe(conn, session, &unsubscribe, out);
                Ok(())
            }
            Packet::PingReq => {
                self.send(conn, &Packet::PingResp, out); // [MQTT-3.12.4-1]
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(conn, &disconnect, now, out),
            Packet::Auth(auth) => self.on_auth(conn, session, &auth, now, out),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Fault::ServerPacket)
            }
            // Taken before this is asked.
            Packet::Publish(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_) => Ok(()),
        }
    }

    /// Counts packets that were taken together with the one before them: so many, with so many bytes in
    /// all, which it returns.
    fn count_more(&mut self, conn: ConnKey, kind: PacketType, packets: u64, bytes: usize) -> usize {
        if packets > 0 {
            self.stats.packets_received[kind as usize] += packets;
            if let Some(connection) = self.connections.get_mut(conn) {
                connection.consumed += bytes as u64;
            }
        }
        bytes
    }

    /// Once after all calls of a turn, before the outbox is drained.
    pub fn end_turn(&mut self, now: Time, out: &mut Outbox) {
        self.read_own_retained(now, out);
        self.answer_queries(out);
        if self.history.is_some() {
            self.answer_history_questions(out);
            self.hand_over_history(now, out);
        }
        self.send_late(out);
        self.mesh.answer(out);
    }

    /// When [`Shard::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.timers.next()
    }

    /// What it has counted, and what it holds now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.routes.shared_subscriptions(self.identity.shard);
        let kept = self.kept();
        let history = self.history.as_deref();
        let history = history.map_or_else(Default::default, |history| history.log.counts());
        // Counted by QoS alone while they are sent.
        let mut packets_sent = self.stats.packets_sent;
        packets_sent[PacketType::Publish as usize] += self.stats.publishes_sent.iter().sum::<u64>();
        Stats {
            sessions: self.sessions.len() as u64,
            subscriptions: (self.routes.subscriptions() + shared) as u64,
            shared_subscriptions: shared as u64,
            retained: self.retained.len() as u64,
            retained_bytes: self.retained.bytes() as u64,
            packets_sent,
            history_messages: history.messages,
            history_bytes: history.bytes,
            history_dropped: history.dropped,
            history_waiting_bytes: history.waiting_bytes,
            history_buckets: history.buckets,
            history_stored_bytes: history.stored_bytes,
            history_replays: self.recalls.len() as u64,
            durable_waiting_bytes: kept.map_or(0, |journal| journal.backlog() as u64),
            durable_room_bytes: kept.map_or(0, Journal::room),
            durable_segments: kept.map_or(0, |journal| journal.segments() as u64),
            durable_items: kept.map_or(0, |journal| journal.items() as u64),
            durable_full: kept.map_or(0, |journal| journal.is_full().into()),
            durable_failed: kept.map_or(0, |journal| journal.failure().is_some().into()),
            ..self.stats
        }
    }

    /// PUBLISH packets that were sent so far.
    #[must_use]
    pub fn publishes_sent(&self) -> u64 {
        self.stats.publishes_sent.iter().sum()
    }

    /// The driver has sent most of what waited for `conn`: it takes more.
    pub fn writable(&mut self, conn: ConnKey, now: Time, out: &mut Outbox) {
        if let Some(session) = self.connections.get(conn).and_then(Connection::session) {
            self.pump(session, now, out);
        }
    }

    /// Appends a packet to the output of `conn`, in its version.
    fn send(&mut self, conn: ConnKey, packet: &Packet<'_>, out: &mut Outbox) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let output = out.write(conn);
        let before = output.len();
        packet.encode(connection.version, output);
        if output.len() - before > connection.maximum_packet_size as usize {
            output.truncate(before); // [MQTT-3.1.2-24]
            return;
        }
        self.stats.sent(&output[before..]);
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// Bytes of the largest packet that may come now.
fn maximum_packet_size(connection: &Connection, settings: &Settings) -> u32 {
    match connection.phase {
        Phase::Connected(_) => settings.maximum_packet_size,
        Phase::Handshake | Phase::Authenticating(_) => {
            MAX_CONNECT_PACKET_SIZE.min(settings.maximum_packet_size)
        }
    }
}

/// Whether complete packets of `connection` must wait.
fn is_held(connection: &Connection) -> bool {
    matches!(connection.phase, Phase::Authenticating(_)) || is_paused(connection)
}
