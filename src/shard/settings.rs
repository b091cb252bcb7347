//! The settings of the protocol, as every shard holds its own copy of them. [`crate::config`]
//! declares their names, bounds and documentation for an operator; here is what each one does.

use crate::limits;
use crate::policy::MountPoint;
use crate::route::Strategy;
use crate::wire::QoS;

use super::limit::Limits;

/// What happens when the queue of a session is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOverflow {
    /// The oldest waiting message makes room. Right for telemetry: the newest value counts.
    #[default]
    DropOldest,
    /// The new message is not queued; its publisher is not told.
    DropNew,
    /// The new message is not queued, and its publisher is told with 0x97 Quota exceeded (version 5).
    Reject,
}

/// What holds for all who come by one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where their topics are, if they are not where they say.
    pub mount_point: Option<MountPoint>,
    /// Messages a second from all of them together; 0 for no bound.
    pub message_rate: u32,
    /// Bytes of payload a second from all of them together; 0 for no bound.
    pub byte_rate: u64,
}

/// Settings that the core obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What holds for those who come by a listener, in the order of the listeners.
    pub listeners: Vec<ListenerSettings>,
    /// What clients may do at most, besides what the protocol tells them.
    pub limits: Limits,
    /// Bytes of the largest packet a client may send; a larger one gets 0x95 before its payload is read.
    pub maximum_packet_size: u32,
    /// QoS 1 and 2 messages a client may have unacknowledged; one more gets 0x93.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages that may be unacknowledged towards a client, at most its own Receive Maximum.
    pub max_inflight: u16,
    /// Topic aliases a client may set on one connection; 0 for none.
    pub topic_alias_maximum: u16,
    /// The highest QoS a client may publish with; a higher one gets 0x9B.
    pub maximum_qos: QoS,
    /// Whether messages may be retained; if not, RETAIN 1 gets 0x9A.
    pub retain_available: bool,
    /// Whether filters may hold wildcards; if not, they get 0xA2.
    pub wildcard_subscription_available: bool,
    /// Whether `$share` is offered; if not, it gets 0x9E.
    pub shared_subscription_available: bool,
    /// Whether Subscription Identifiers are taken; if not, they get 0xA1.
    pub subscription_identifiers_available: bool,
    /// The highest Keep Alive (seconds); a higher one, or none at all, is replaced by it (version 5)
    /// or refused. 0 accepts every interval.
    pub max_keep_alive: u16,
    /// The longest a session outlives its connection (seconds); `u32::MAX` for ever. Sessions of 3.1.1
    /// clients with CleanSession 0 get exactly this.
    pub max_session_expiry_interval: u32,
    /// QoS 1 and 2 messages that may wait for one client.
    pub max_queued_messages: u32,
    /// Bytes of the messages that may wait for one client.
    pub max_queued_bytes: u64,
    /// Bytes of memory for the messages that wait for clients, of all shards together. Of what is more, the
    /// bodies that the journal has are not kept.
    pub max_queue_memory: u64,
    /// What gives way when a queue is full.
    pub queue_overflow: QueueOverflow,
    /// Whether QoS 0 messages are queued for a session without a connection.
    pub queue_qos0: bool,
    /// Bytes that may wait in memory for one client's socket; above it QoS 0 messages for it are dropped.
    pub max_output_bytes: usize,
    /// Subscriptions of one session; one more gets 0x97.
    pub max_subscriptions: u32,
    /// Who of a group gets a shared subscription's next message.
    pub shared_subscription_strategy: Strategy,
    /// Milliseconds a new connection has until its CONNECT is complete.
    pub connect_timeout_ms: u64,
    /// Seconds between two publications of `$SYS`; 0 for never.
    pub sys_interval: u32,
    /// What a client that asks for Response Information gets, `%c` replaced by its client id; empty
    /// for nothing.
    pub response_information: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            limits: Limits::default(),
            maximum_packet_size: limits::DEFAULT_MAXIMUM_PACKET_SIZE,
            receive_maximum: limits::DEFAULT_RECEIVE_MAXIMUM,
            max_inflight: limits::DEFAULT_MAX_INFLIGHT,
            topic_alias_maximum: limits::DEFAULT_TOPIC_ALIAS_MAXIMUM,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            shared_subscription_available: true,
            subscription_identifiers_available: true,
            max_keep_alive: 0,
            max_session_expiry_interval: u32::MAX,
            max_queued_messages: limits::DEFAULT_MAX_QUEUED_MESSAGES,
            max_queued_bytes: limits::DEFAULT_MAX_QUEUED_BYTES,
            max_queue_memory: limits::DEFAULT_MAX_QUEUE_MEMORY,
            queue_overflow: QueueOverflow::DropOldest,
            queue_qos0: false,
            max_output_bytes: limits::DEFAULT_MAX_OUTPUT_BYTES,
            max_subscriptions: limits::DEFAULT_MAX_SUBSCRIPTIONS,
            shared_subscription_strategy: Strategy::RoundRobin,
            connect_timeout_ms: 10_000,
            sys_interval: 10,
            response_information: String::new(),
        }
    }
}
