//! A naive broker that knows everything, and says what the real one may do.
//!
//! It is told, in the order they happen, which packets each shard works off, which messages pass
//! from shard to shard, and every packet that leaves. From the packets alone it keeps its own
//! sessions, subscriptions and queues, as plain lists; matching is the reading of the standard,
//! level by level. What leaves must be what it expects: this message to this session, in this order,
//! with this QoS, these flags and identifiers. Where the broker has a choice (which member of a
//! group, when to read retained messages, which QoS 0 message to drop for a slow reader), it checks
//! the bounds of that choice, and that what was dropped was counted.

mod ending;
mod groups;
mod inbound;
mod outbound;
mod publishing;
pub mod rest;
mod retained;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shardmq::shard::{Settings, home};
use shardmq::time::Time;
use shardmq::topic::{Filter, Name};
use shardmq::wire::{AckKind, QoS, ReasonCode, SubscriptionOptions, Version};

use crate::world::{Link, Observation};

/// What is wrong, if something is.
pub type Verdict = Result<(), String>;

/// Ends with a verdict if a condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($argument:tt)*) => {
        if !$condition {
            return Err(format!($($argument)*));
        }
    };
}
pub(crate) use ensure;

/// An application message.
#[derive(Debug)]
pub(crate) struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

/// One way of a message through the broker: a QoS 1 message that is sent twice has two.
#[derive(Debug)]
struct Route {
    serial: u64,
    shard: usize,
    message: usize,
    expires_at: Time,
    /// Other shards that took it.
    visited: BTreeSet<usize>,
    /// Sessions on other shards whose subscription was acknowledged before.
    needs: Vec<(usize, String, u64)>,
    kept: bool,
    /// A will, whose publisher waits for nobody.
    optional: bool,
}

/// A message that a session is to get.
#[derive(Clone, Debug)]
struct Expected {
    message: usize,
    serial: u64,
    /// When it reached the session's shard.
    stamp: u64,
    qos: QoS,
    retain: bool,
    identifiers: Vec<u32>,
    expires_at: Time,
    /// What it came from was due at the same time as something else: either order is right.
    optional: bool,
    /// It came through a group.
    group: Option<String>,
}

/// A message that was sent and is not acknowledged.
#[derive(Clone, Debug)]
struct Sent {
    packet_id: u16,
    expected: Expected,
    released: bool,
    /// The connection it was sent on last.
    on: Link,
}

#[derive(Clone, Debug)]
struct Subscription {
    options: SubscriptionOptions,
    identifier: u32,
    /// SUBACK has left, or the broker has come to rest since.
    settled: bool,
    stamp: u64,
}

#[derive(Clone, Debug)]
struct Will {
    message: usize,
    delay: u32,
}

/// Retained messages for a subscription.
#[derive(Debug)]
struct Replay {
    filter: String,
    qos: QoS,
    identifier: u32,
    start: u64,
    cancelled: Option<u64>,
    /// Topics that came live meanwhile.
    seen: BTreeSet<String>,
}

/// A session, as long as anything of it is of interest.
#[derive(Debug, Default)]
struct Session {
    client: String,
    shard: usize,
    conn: Option<Link>,
    ended: bool,
    expiry: u32,
    expires_at: Time,
    will: Option<Will>,
    will_at: Time,
    maximum_packet_size: usize,
    subscriptions: BTreeMap<String, Subscription>,
    sent: Vec<Sent>,
    /// QoS 0, and QoS 1 and 2.
    waiting: [VecDeque<Expected>; 2],
    /// QoS 2 messages of the client that PUBREL has not released.
    received: BTreeSet<u16>,
    replays: Vec<Replay>,
    /// Retained messages that it got for its subscriptions since it last had read everything.
    replayed: Vec<retained::Replayed>,
    /// Live messages that may have come when a retained one that looks the same did.
    either: Vec<Expected>,
    /// The last live retained message by topic and class: its serial, and when it came.
    latest: BTreeMap<(String, usize), (u64, u64)>,
    /// Shared subscriptions that it ever had, with the QoS it had them with.
    shares: BTreeSet<(String, QoS)>,
}

/// An acknowledgement that the broker owes.
#[derive(Debug)]
struct Owed {
    kind: AckKind,
    packet_id: u16,
    /// The serial of the message's way, for one that was new.
    route: Option<u64>,
    /// Whether a session of the publisher's own shard matched.
    matched: bool,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed it.
    Gone,
    /// The broker has to close it.
    Silent,
    /// The broker has to close it, and to say why to a version 5 client.
    Told(ReasonCode),
}

#[derive(Debug)]
struct Conn {
    shard: usize,
    opened_at: Time,
    last_packet: Time,
    keep_alive_us: u64,
    version: Version,
    session: Option<usize>,
    anonymous: bool,
    receive_maximum: usize,
    alias_maximum: u16,
    aliases_in: BTreeMap<u16, String>,
    aliases_out: BTreeMap<u16, String>,
    /// CONNACK has to leave first, with this Session Present.
    connack: Option<bool>,
    owed: VecDeque<Owed>,
    pubrels: VecDeque<(u16, bool)>,
    pubcomps: VecDeque<(u16, bool)>,
    subacks: BTreeMap<u16, Vec<(String, u64, QoS)>>,
    unsubacks: BTreeMap<u16, Vec<bool>>,
    pings: usize,
    end: Option<End>,
    told: Option<ReasonCode>,
}

/// What the broker should have counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub packets_received: u64,
    pub publishes_received: u64,
    pub publishes_sent: u64,
    pub takeovers: u64,
    pub wills: u64,
    pub sessions_expired: u64,
    /// Messages that were expected and never came, for a reason that must be counted.
    pub dropped: u64,
    /// QoS 0 messages for sessions without a connection.
    pub offline: u64,
    /// Messages of groups that sessions left behind: given to others, or dropped.
    pub shared_left: u64,
    /// Messages to groups.
    pub shared: u64,
    /// Retained messages that may have waited for a session that ended: only the broker knows how
    /// many it had read.
    pub retained_left: u64,
    /// Chance decided what only the broker knows: sums need not be equal.
    pub inexact: bool,
}

/// The naive broker.
pub struct Oracle {
    settings: Settings,
    shards: usize,
    now: Time,
    /// Counts observations.
    stamp: u64,
    serial: u64,
    pub(crate) messages: Vec<Message>,
    known: BTreeMap<Vec<u8>, usize>,
    sessions: Vec<Session>,
    by_client: BTreeMap<String, usize>,
    conns: BTreeMap<Link, Conn>,
    routes: Vec<Route>,
    /// How many ways each message has had.
    ways: BTreeMap<usize, u32>,
    /// The last message that came from one shard to another.
    arrived: BTreeMap<(usize, usize), u64>,
    retained: BTreeMap<String, Vec<retained::Value>>,
    groups: BTreeMap<String, groups::Group>,
    ended: Vec<usize>,
    /// Who was connected when several things were due at once, with what it subscribed to.
    tie: Vec<(usize, BTreeMap<String, Subscription>)>,
    pub counts: Counts,
}

impl Oracle {
    pub fn new(settings: &Settings, shards: usize, now: Time) -> Self {
        Self {
            settings: settings.clone(),
            shards,
            now,
            stamp: 0,
            serial: 0,
            messages: Vec::new(),
            known: BTreeMap::new(),
            sessions: Vec::new(),
            by_client: BTreeMap::new(),
            conns: BTreeMap::new(),
            routes: Vec::new(),
            ways: BTreeMap::new(),
            arrived: BTreeMap::new(),
            retained: BTreeMap::new(),
            groups: BTreeMap::new(),
            ended: Vec::new(),
            tie: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Judges what happened.
    pub fn observe(&mut self, now: Time, observation: &Observation) -> Verdict {
        self.now = now;
        self.stamp += 1;
        match observation {
            Observation::Opened { link, shard } => {
                self.conns.insert(*link, Conn::new(*shard, now));
                Ok(())
            }
            Observation::Packet { link, shard, bytes } => self.on_packet(*link, *shard, bytes),
            Observation::Closed { link } => {
                self.close(*link, End::Gone, false);
                Ok(())
            }
            Observation::Arrived { from, to, message } => self.on_arrival(*from, *to, message),
            Observation::Kept { from, to, message } => self.on_kept(*from, *to, message),
            Observation::Ticked { shard } => self.on_tick(*shard),
            Observation::Output { link, bytes } => self.on_output(*link, bytes),
            Observation::Moved { link } => {
                self.conns.remove(link);
                Ok(())
            }
            Observation::Dropped { link } => self.on_dropped(*link),
            Observation::Complaint { event } => Err(format!("the broker complains: {event:?}")),
            Observation::TurnEnded { shard } => self.on_turn_end(*shard),
        }
    }

    fn on_dropped(&mut self, link: Link) -> Verdict {
        let conn = self.conns.remove(&link);
        let Some(conn) = conn else {
            return Err(format!("{link:?} was closed twice"));
        };
        match conn.end {
            Some(End::Silent) => Ok(()),
            Some(End::Told(reason)) => {
                // [MQTT-3.1.4-3]: the old connection gets 0x8E; 3.1.1 just the close.
                let due = (conn.version.is_v5() && conn.session.is_some()).then_some(reason);
                ensure!(
                    conn.told == due,
                    "{link:?} got {:?} instead of {due:?}",
                    conn.told
                );
                Ok(())
            }
            Some(End::Gone) => Ok(()),
            None => Err(format!("the broker closed {link:?} without a reason")),
        }
    }

    fn on_turn_end(&mut self, shard: usize) -> Verdict {
        self.finish_ended(shard);
        let mut open = Vec::new();
        self.conns.retain(|link, conn| {
            let over = conn.shard == shard && conn.end.is_some();
            if over && conn.end != Some(End::Gone) {
                open.push(*link);
            }
            !over
        });
        // One owner, always: the old connection of a takeover ends in the very turn.
        ensure!(open.is_empty(), "the broker has not closed {open:?}");
        Ok(())
    }

    /// How often the message with this payload went through the broker.
    pub fn ways_of(&self, payload: &[u8]) -> u32 {
        self.known
            .get(payload)
            .and_then(|message| self.ways.get(message))
            .copied()
            .unwrap_or(0)
    }

    fn home(&self, client: &str) -> usize {
        home(client, self.shards).index()
    }

    /// The number of a message: the one it has, or a new one for an empty payload, which tells
    /// nothing.
    fn intern(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> usize {
        if let Some(&known) = self.known.get(payload) {
            return known;
        }
        let number = self.messages.len();
        if !payload.is_empty() {
            self.known.insert(payload.to_vec(), number);
        }
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.messages.push(Message {
            topic,
            payload,
            qos,
            retain,
        });
        number
    }

    fn is(&self, message: usize, topic: &str, payload: &[u8]) -> bool {
        let message = &self.messages[message];
        message.topic == topic && message.payload == payload
    }

    /// Whether queues are so small that they may overflow.
    fn queues_overflow(&self) -> bool {
        self.settings.max_queued_messages < 1_000
    }
}

impl Conn {
    fn new(shard: usize, now: Time) -> Self {
        Self {
            shard,
            opened_at: now,
            last_packet: now,
            keep_alive_us: 0,
            version: Version::V3_1_1,
            session: None,
            anonymous: false,
            receive_maximum: 0,
            alias_maximum: 0,
            aliases_in: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            connack: None,
            owed: VecDeque::new(),
            pubrels: VecDeque::new(),
            pubcomps: VecDeque::new(),
            subacks: BTreeMap::new(),
            unsubacks: BTreeMap::new(),
            pings: 0,
            end: None,
            told: None,
        }
    }
}

/// The reading of the standard.
fn matches(filter: &str, topic: &str) -> bool {
    match (Filter::parse(filter), Name::parse(topic)) {
        (Ok(filter), Ok(name)) => filter.matches(name),
        _ => false,
    }
}

/// QoS 0 messages may overtake the others, and the others them.
fn class(qos: QoS) -> usize {
    usize::from(qos > QoS::AtMostOnce)
}

/// The filter behind `$share/name/`.
fn shared_filter(text: &str) -> Option<&str> {
    text.strip_prefix("$share/")?
        .split_once('/')
        .map(|(_, filter)| filter)
}
