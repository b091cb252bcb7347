//! The counters of one shard: plain numbers that only their shard writes, added up for `$SYS` and shown
//! to Prometheus.
//!
//! Each is declared once, in [`Stats`]: its field, its name for the world, its kind, its documentation.
//! On the way of a publish a counter is one addition to a plain number; what can be derived is not
//! counted.

mod exposition;
mod family;
mod histogram;

use crate::session::Queue;
use crate::wire::ReasonCode;

pub use exposition::{CONTENT_TYPE, Exposition};
pub use family::{Family, Kind, Label, Measured, Value};
pub(crate) use family::{label, measured};
pub use histogram::Histogram;

/// Why a message did not reach someone. Every drop has a reason and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The queue of the session was full.
    QueueFull,
    /// QoS 0, and the client's socket does not take more.
    SlowConsumer,
    /// QoS 0, and the client is not connected.
    Offline,
    /// The Message Expiry Interval passed before it was sent.
    Expired,
    /// Larger than the client's Maximum Packet Size.
    TooLarge,
    /// Its session ended before it was delivered.
    SessionEnded,
    /// The group had no member left.
    NoMember,
    /// It waited, and its receiver may not have it any longer.
    NotAuthorized,
    /// QoS 0, and memory is short.
    MemoryShort,
    /// It waited on disk and could not be read back; it is still there.
    Unreadable,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::QueueFull,
        Self::SlowConsumer,
        Self::Offline,
        Self::Expired,
        Self::TooLarge,
        Self::SessionEnded,
        Self::NoMember,
        Self::NotAuthorized,
        Self::MemoryShort,
        Self::Unreadable,
    ];

    /// The names of all, in their order.
    pub const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Self::ALL[index].name();
            index += 1;
        }
        names
    };

    /// Its name in metrics, stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SlowConsumer => "slow_consumer",
            Self::Offline => "offline",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::SessionEnded => "session_ended",
            Self::NoMember => "no_member",
            Self::NotAuthorized => "not_authorized",
            Self::MemoryShort => "memory_short",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What the rules deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Denied {
    /// A message from a client.
    Publish,
    /// A topic filter of a SUBSCRIBE.
    Subscribe,
    /// A Will Message.
    Will,
    /// A message to a client that may have only some of what it subscribed to.
    Deliver,
}

/// The names of what is [`Denied`].
const DENIED: [&str; 4] = ["publish", "subscribe", "will", "deliver"];

/// What an operator limits, besides what the protocol tells clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Limited {
    /// Bytes or levels of a topic.
    Topic,
    /// User Properties of a message.
    UserProperties,
    /// Topic filters of a SUBSCRIBE.
    Filters,
    /// Retained messages.
    RetainedMessages,
    /// Their bytes.
    RetainedBytes,
    /// The rate of a client, which had to wait.
    Rate,
    /// The rate of a listener: a client of it had to wait.
    ListenerRate,
    /// How often a client comes in.
    ClientConnects,
    /// How often an address fails to.
    FailedLogins,
    /// Memory: a CONNECT was refused.
    MemoryConnects,
    /// Memory: a client that publishes had to wait.
    MemoryReads,
}

/// The names of what is [`Limited`].
const LIMITED: [&str; 11] = [
    "topic",
    "user_properties",
    "filters",
    "retained_messages",
    "retained_bytes",
    "rate",
    "listener_rate",
    "client_connects",
    "failed_logins",
    "memory_connects",
    "memory_reads",
];

impl Limited {
    /// What a PUBLISH or a CONNECT beyond it is answered with.
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Topic => ReasonCode::TopicNameInvalid,
            Self::ClientConnects | Self::FailedLogins => ReasonCode::Banned,
            Self::MemoryConnects => ReasonCode::ServerBusy,
            Self::UserProperties
            | Self::Filters
            | Self::RetainedMessages
            | Self::RetainedBytes
            | Self::Rate
            | Self::ListenerRate
            | Self::MemoryReads => ReasonCode::QuotaExceeded,
        }
    }
}

/// The types of control packets, by the upper half of their first byte.
pub const PACKET_TYPES: [&str; 16] = [
    "reserved",
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];

/// The levels of QoS.
pub const QOS: [&str; 3] = ["0", "1", "2"];

/// Reason codes that a client is refused or cut off with, those that are told apart; the last stands
/// for all others.
const REASONS: [(ReasonCode, &str); 16] = [
    (ReasonCode::MalformedPacket, "malformed_packet"),
    (ReasonCode::ProtocolError, "protocol_error"),
    (
        ReasonCode::UnsupportedProtocolVersion,
        "unsupported_protocol_version",
    ),
    (
        ReasonCode::ClientIdentifierNotValid,
        "client_identifier_not_valid",
    ),
    (
        ReasonCode::BadUserNameOrPassword,
        "bad_user_name_or_password",
    ),
    (ReasonCode::NotAuthorized, "not_authorized"),
    (ReasonCode::ServerUnavailable, "server_unavailable"),
    (ReasonCode::Banned, "banned"),
    (
        ReasonCode::BadAuthenticationMethod,
        "bad_authentication_method",
    ),
    (ReasonCode::TopicNameInvalid, "topic_name_invalid"),
    (
        ReasonCode::ReceiveMaximumExceeded,
        "receive_maximum_exceeded",
    ),
    (ReasonCode::TopicAliasInvalid, "topic_alias_invalid"),
    (ReasonCode::PacketTooLarge, "packet_too_large"),
    (ReasonCode::RetainNotSupported, "retain_not_supported"),
    (ReasonCode::QoSNotSupported, "qos_not_supported"),
    (ReasonCode::UnspecifiedError, "other"),
];

/// The names of [`REASONS`].
const REASON_NAMES: [&str; REASONS.len()] = {
    let mut names = [""; REASONS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = REASONS[index].1;
        index += 1;
    }
    names
};

/// How connections of clients end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// DISCONNECT by the client, without an error.
    Client,
    /// DISCONNECT by the client, with an error or for its will.
    ClientError,
    /// By the broker.
    Broker,
    /// The socket ended without DISCONNECT.
    Eof,
    /// The socket failed.
    SocketError,
}

/// The names of [`End`]s.
const ENDS: [&str; 5] = ["client", "client_error", "broker", "eof", "socket_error"];

measured! {
    /// What one shard has counted since it started, and what it holds now.
    pub struct Stats {
        /// Packets from clients.
        packets_received: [u64; PACKET_TYPES.len()] =
            Counter "packets_received_total" by "type" in PACKET_TYPES;
        /// Packets to clients.
        packets_sent: [u64; PACKET_TYPES.len()] =
            Counter "packets_sent_total" by "type" in PACKET_TYPES;
        /// Bytes from clients.
        bytes_received: u64 = Counter "received_bytes_total";
        /// Bytes to clients.
        bytes_sent: u64 = Counter "sent_bytes_total";
        /// PUBLISH packets from clients.
        publishes_received: [u64; QOS.len()] =
            Counter "publishes_received_total" by "qos" in QOS;
        /// PUBLISH packets to clients.
        publishes_sent: [u64; QOS.len()] = Counter "publishes_sent_total" by "qos" in QOS;
        /// Payload bytes in PUBLISH packets from clients.
        publish_bytes_received: [u64; QOS.len()] =
            Counter "publish_received_payload_bytes_total" by "qos" in QOS;
        /// Payload bytes in PUBLISH packets to clients.
        publish_bytes_sent: [u64; QOS.len()] =
            Counter "publish_sent_payload_bytes_total" by "qos" in QOS;
        /// Messages that did not reach someone: one for each receiver that was to get it.
        dropped: [u64; DropReason::ALL.len()] =
            Counter "messages_dropped_total" by "reason" in DropReason::NAMES;
        /// What the rules of access denied: messages from clients, topic filters, Will Messages, and
        /// messages to clients that may have only some of what they subscribed to.
        denied: [u64; DENIED.len()] = Counter "denied_total" by "action" in DENIED;
        /// Times that a limit of [limits] held: what was refused, not kept, or made to wait.
        limited: [u64; LIMITED.len()] = Counter "limited_total" by "limit" in LIMITED;
        /// Connections that broke a rule and were cut off, by the reason code they earned.
        violations: [u64; REASONS.len()] = Counter "violations_total" by "reason" in REASON_NAMES;
        /// Connections that were opened on this shard.
        connections_opened: u64 = Counter "connections_opened_total";
        /// Connections that were handed to the shard of their session.
        handed_over: u64 = Counter "connections_handed_over_total";
        /// CONNECT packets that were accepted.
        connects_accepted: u64 = Counter "connects_accepted_total";
        /// CONNECT packets that were refused, by the reason code of the CONNACK.
        connects_refused: [u64; REASONS.len()] =
            Counter "connects_refused_total" by "reason" in REASON_NAMES;
        /// Connections of accepted clients that ended, by who ended them.
        ended: [u64; ENDS.len()] = Counter "connections_ended_total" by "cause" in ENDS;
        /// Clients that were cut off because nothing came for 1.5 times their Keep Alive.
        keep_alive_timeouts: u64 = Counter "keep_alive_timeouts_total";
        /// Connections whose client id was taken by another connection.
        takeovers: u64 = Counter "takeovers_total";
        /// Sessions whose expiry interval passed.
        sessions_expired: u64 = Counter "sessions_expired_total";
        /// Will Messages that were published.
        wills_published: u64 = Counter "wills_published_total";
        /// Connections now, those before their CONNECT included.
        connections: u64 = Gauge "connections";
        /// Clients that are connected now.
        clients_connected: u64 = Gauge "clients_connected";
        /// Most clients that were connected to this shard at a time; the sum over shards is an upper
        /// bound.
        clients_maximum: u64 = Gauge "clients_connected_maximum";
        /// Sessions now, connected or not.
        sessions: u64 = Gauge "sessions";
        /// Subscriptions now, shared ones included.
        subscriptions: u64 = Gauge "subscriptions";
        /// Shared subscriptions now.
        shared_subscriptions: u64 = Gauge "shared_subscriptions";
        /// Retained messages now, those of $SYS included.
        retained: u64 = Gauge "retained_messages";
        /// Bytes of retained messages now.
        retained_bytes: u64 = Gauge "retained_bytes";
        /// Messages that wait in the queue of a session now.
        queued: u64 = Gauge "queued_messages";
        /// Bytes of those, a message counted once for each session that it waits for.
        queued_bytes: u64 = Gauge "queued_bytes";
        /// Messages that history streams have taken, one for each stream.
        history_messages: u64 = Counter "history_messages_total";
        /// Bytes of those, as they are written.
        history_bytes: u64 = Counter "history_bytes_total";
        /// Messages that history streams have taken and that were dropped before they were written: the
        /// disk did not keep up, had no space, or failed.
        history_dropped: u64 = Counter "history_dropped_total";
        /// Bytes of history that wait to be written.
        history_waiting_bytes: u64 = Gauge "history_waiting_bytes";
        /// Buckets of history now.
        history_buckets: u64 = Gauge "history_buckets";
        /// Bytes in those.
        history_stored_bytes: u64 = Gauge "history_stored_bytes";
        /// Places of history that were found damaged when they were read, each counted once.
        history_damaged: u64 = Counter "history_damaged_total";
        /// Subscriptions to history now, those that go on with what is published included.
        history_replays: u64 = Gauge "history_replays";
        /// Messages that subscriptions to history were given.
        history_replayed: u64 = Counter "history_replayed_messages_total";
        /// Messages that a subscription to history was to read and that were gone before it came to
        /// them: too old, too many, dropped or damaged.
        history_missed: u64 = Counter "history_replay_missed_messages_total";
        /// Bytes of those that are in memory, a message counted once for each session that it waits for.
        queued_memory_bytes: u64 = Gauge "queued_memory_bytes";
        /// Messages of the queues whose bodies are on disk alone.
        queued_on_disk: u64 = Gauge "queued_on_disk_messages";
        /// PUBLISH packets that were refused because there is no space for durable state: 0x97 for
        /// version 5, the end of the connection for others.
        refused_for_space: u64 = Counter "publishes_refused_no_space_total";
        /// Bytes of durable state that wait to be written.
        durable_waiting_bytes: u64 = Gauge "durable_waiting_bytes";
        /// Bytes of durable state that fit into files that there are.
        durable_room_bytes: u64 = Gauge "durable_room_bytes";
        /// Files of durable state that count.
        durable_segments: u64 = Gauge "durable_segments";
        /// Things that are kept: messages, subscriptions, sessions, wills, exchanges.
        durable_items: u64 = Gauge "durable_items";
        /// Shards that cannot get more space for durable state.
        durable_full: u64 = Gauge "durable_full";
        /// Shards whose disk has failed: they acknowledge nothing any more that has to be durable.
        durable_failed: u64 = Gauge "durable_failed";
    }
}

impl Stats {
    /// A queue is there.
    pub fn count_queue(&mut self, queue: &Queue) {
        self.queued += queue.len() as u64;
        self.queued_bytes += queue.bytes();
        self.queued_memory_bytes += queue.bytes_here();
        self.queued_on_disk += queue.count_away() as u64;
    }

    /// A queue is not there, or not as it was counted.
    pub fn forget_queue(&mut self, queue: &Queue) {
        self.queued -= queue.len() as u64;
        self.queued_bytes -= queue.bytes();
        self.queued_memory_bytes -= queue.bytes_here();
        self.queued_on_disk -= queue.count_away() as u64;
    }

    /// Counts `count` drops for `reason`.
    pub fn drop_messages(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// How often something was dropped for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Counts a packet that stands encoded in `bytes`, which is empty if it did not fit.
    pub fn sent(&mut self, bytes: &[u8]) {
        if let Some(first_byte) = bytes.first() {
            self.packets_sent[usize::from(first_byte >> 4)] += 1;
            self.bytes_sent += bytes.len() as u64;
        }
    }

    /// Counts a broken rule.
    pub fn violated(&mut self, reason: ReasonCode) {
        self.violations[reason_index(reason)] += 1;
    }

    /// Counts a refused CONNECT.
    pub fn refused(&mut self, reason: ReasonCode) {
        self.connects_refused[reason_index(reason)] += 1;
    }
}

/// The place of a reason in [`REASONS`].
fn reason_index(reason: ReasonCode) -> usize {
    let known = REASONS.iter().position(|(code, _)| *code == reason);
    known.unwrap_or(REASONS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_wants() {
        let mut seen = std::collections::HashSet::new();
        for family in Stats::FAMILIES {
            assert!(seen.insert(family.name), "{} is there twice", family.name);
            let grows = matches!(family.kind, Kind::Counter | Kind::Seconds);
            assert_eq!(family.name.ends_with("_total"), grows, "{}", family.name);
            let help = family.help_line();
            assert!(
                help.ends_with('.') && help.len() > 10,
                "{}: {help}",
                family.name
            );
        }
    }

    #[test]
    fn every_number_has_its_label_and_is_added_up() {
        let mut stats = Stats::default();
        stats.publishes_received[2] = 7;
        stats.violated(ReasonCode::PacketTooLarge);
        stats.refused(ReasonCode::ServerMoved);
        let one = stats;
        stats.add(&one);
        assert_eq!(stats.publishes_received, [0, 0, 14]);
        let mut found = 0;
        for (family, value) in Stats::FAMILIES.iter().zip(stats.values()) {
            let Value::Numbers(numbers) = value else {
                panic!("{} is a distribution", family.name);
            };
            let labels = family.label.map_or(1, |label| label.values.len());
            assert_eq!(numbers.len(), labels, "{}", family.name);
            found += numbers.iter().sum::<u64>();
            if family.name == "shardmq_violations_total" {
                let place = REASON_NAMES
                    .iter()
                    .position(|name| *name == "packet_too_large");
                assert_eq!(numbers[place.unwrap()], 2);
            }
        }
        assert_eq!(found, 18);
        assert_eq!(
            stats.connects_refused.last(),
            Some(&2),
            "what has no name is `other`"
        );
    }
}
