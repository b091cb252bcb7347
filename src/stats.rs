//! The counters of one shard: plain numbers that only their shard writes, added up for `$SYS`.

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
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::SlowConsumer,
        Self::Offline,
        Self::Expired,
        Self::TooLarge,
        Self::SessionEnded,
        Self::NoMember,
    ];

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
        }
    }
}

/// What one shard has counted since it started, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets of any kind from clients.
    pub packets_received: u64,
    /// Packets of any kind to clients.
    pub packets_sent: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// PUBLISH packets from clients.
    pub publishes_received: u64,
    /// PUBLISH packets to clients.
    pub publishes_sent: u64,
    /// Payload bytes in PUBLISH packets from clients.
    pub publish_bytes_received: u64,
    /// Payload bytes in PUBLISH packets to clients.
    pub publish_bytes_sent: u64,
    /// Messages that did not reach someone, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Connections that broke a rule.
    pub violations: u64,
    /// CONNECT packets that were refused.
    pub connects_refused: u64,
    /// Connections whose client id was taken by another connection.
    pub takeovers: u64,
    /// Sessions whose expiry interval passed.
    pub sessions_expired: u64,
    /// Will Messages that were published.
    pub wills_published: u64,
    /// Connections now, those before their CONNECT included.
    pub connections: u64,
    /// Clients that are connected now.
    pub clients_connected: u64,
    /// Sessions now, connected or not.
    pub sessions: u64,
    /// Most sessions that were connected at a time.
    pub clients_maximum: u64,
    /// Subscriptions now, shared ones included.
    pub subscriptions: u64,
    /// Shared subscriptions now.
    pub shared_subscriptions: u64,
    /// Retained messages now.
    pub retained: u64,
    /// Bytes of retained messages now.
    pub retained_bytes: u64,
    /// Messages that wait for a client or for its acknowledgement now.
    pub queued: u64,
    /// Bytes of those, a message counted once for each session that it waits for.
    pub queued_bytes: u64,
}

impl Stats {
    /// Counts `count` drops for `reason`.
    pub fn drop_messages(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// How often something was dropped for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Adds the counters of another shard.
    pub fn add(&mut self, other: &Self) {
        let Self {
            packets_received,
            packets_sent,
            bytes_received,
            bytes_sent,
            publishes_received,
            publishes_sent,
            publish_bytes_received,
            publish_bytes_sent,
            dropped,
            violations,
            connects_refused,
            takeovers,
            sessions_expired,
            wills_published,
            connections,
            clients_connected,
            sessions,
            clients_maximum,
            subscriptions,
            shared_subscriptions,
            retained,
            retained_bytes,
            queued,
            queued_bytes,
        } = other;
        self.packets_received += packets_received;
        self.packets_sent += packets_sent;
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
        self.publishes_received += publishes_received;
        self.publishes_sent += publishes_sent;
        self.publish_bytes_received += publish_bytes_received;
        self.publish_bytes_sent += publish_bytes_sent;
        for (sum, part) in self.dropped.iter_mut().zip(dropped) {
            *sum += part;
        }
        self.violations += violations;
        self.connects_refused += connects_refused;
        self.takeovers += takeovers;
        self.sessions_expired += sessions_expired;
        self.wills_published += wills_published;
        self.connections += connections;
        self.clients_connected += clients_connected;
        self.sessions += sessions;
        self.clients_maximum += clients_maximum;
        self.subscriptions += subscriptions;
        self.shared_subscriptions += shared_subscriptions;
        self.retained += retained;
        self.retained_bytes += retained_bytes;
        self.queued += queued;
        self.queued_bytes += queued_bytes;
    }
}
