//! What comes back from a journal, as values of its own.

use crate::wire::{PacketId, QoS, SubscriptionOptions, Version};

use super::types::{
    Deadline, Exchange, ForwardDetails, ItemId, Position, SessionDetails, SessionNumber,
    StoredMessage, SubscriptionDetails, WillDetails,
};

/// What a journal held, but for the bodies of messages; [`Journal::each_message`] brings those.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The sessions, by their numbers.
    pub sessions: Vec<RestoredSession>,
    /// The retained messages, in the order they came.
    pub retained: Vec<ItemId>,
    /// Messages that were on their way to other shards, in the order they came.
    pub forwards: Vec<RestoredForward>,
    /// Of each lane the last message that was forwarded by it to this journal: its record, the lane, and
    /// what the other journal calls it.
    pub origins: Vec<(ItemId, u32, ItemId)>,
    /// The last frame that was read.
    pub position: Position,
}

/// A message that was on its way to other shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredForward {
    /// What the journal calls it.
    pub id: ItemId,
    /// Shards whose subscribers get it, one bit each.
    pub shards: u64,
    /// What it is for besides.
    pub errands: Box<str>,
    message: OwnedMessage,
}

impl RestoredForward {
    pub(super) fn new(id: ItemId, details: &ForwardDetails<'_>) -> Self {
        Self {
            id,
            shards: details.shards,
            errands: details.errands.into(),
            message: OwnedMessage::from(&details.message),
        }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> StoredMessage<'_> {
        self.message.stored()
    }
}

/// A [`StoredMessage`] that borrows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedMessage {
    /// The topic.
    pub topic: Box<str>,
    /// The properties that are forwarded.
    pub properties: Box<[u8]>,
    /// The payload.
    pub payload: Box<[u8]>,
    /// The QoS it was published with.
    pub qos: QoS,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// When it is too old to be sent.
    pub expires_at: Deadline,
}

impl OwnedMessage {
    /// Borrows it, as the journal takes it.
    #[must_use]
    pub fn stored(&self) -> StoredMessage<'_> {
        StoredMessage {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
        }
    }
}

impl From<&StoredMessage<'_>> for OwnedMessage {
    fn from(message: &StoredMessage<'_>) -> Self {
        Self {
            topic: message.topic.into(),
            properties: message.properties.into(),
            payload: message.payload.into(),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
        }
    }
}

/// A session as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct RestoredSession {
    /// Its number.
    pub session: SessionNumber,
    /// Its client.
    pub client_id: Box<str>,
    /// Who the client proved to be.
    pub user: Box<str>,
    /// What the client spoke last.
    pub version: Version,
    /// Seconds that it outlives its connection.
    pub expiry_interval: u32,
    /// When it ends, [`Deadline::NEVER`] if it was connected.
    pub expires_at: Deadline,
    /// Its subscriptions, in the order they were made.
    pub subscriptions: Vec<RestoredSubscription>,
    /// The messages that wait for it, in the order they came. Those of `exchanges` that PUBREC has not
    /// come for are among them.
    pub messages: Vec<ItemId>,
    /// Packet identifiers of QoS 2 messages from the client, ascending.
    pub held: Vec<PacketId>,
    /// Exchanges of outgoing QoS 2 messages, in the order of the messages.
    pub exchanges: Vec<Exchange>,
    /// Its will.
    pub will: Option<RestoredWill>,
}

impl RestoredSession {
    pub(super) fn new(session: SessionNumber, details: &SessionDetails<'_>) -> Self {
        Self {
            session,
            client_id: details.client_id.into(),
            user: details.user.into(),
            version: details.version,
            expiry_interval: details.expiry_interval,
            expires_at: details.expires_at,
            subscriptions: Vec::new(),
            messages: Vec::new(),
            held: Vec::new(),
            exchanges: Vec::new(),
            will: None,
        }
    }

    /// The details, as [`Journal::open_session`] takes them.
    #[must_use]
    pub fn details(&self) -> SessionDetails<'_> {
        SessionDetails {
            client_id: &self.client_id,
            user: &self.user,
            version: self.version,
            expiry_interval: self.expiry_interval,
            expires_at: self.expires_at,
        }
    }
}

/// A subscription as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSubscription {
    /// Its item.
    pub id: ItemId,
    /// The topic filter, with `$share/name/` where it is shared.
    pub filter: Box<str>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier, 0 for none.
    pub identifier: u32,
    /// Whether retained messages are still to be sent because of it.
    pub owed: bool,
}

impl RestoredSubscription {
    pub(super) fn new(id: ItemId, details: &SubscriptionDetails<'_>) -> Self {
        Self {
            id,
            filter: details.filter.into(),
            options: details.options,
            identifier: details.identifier,
            owed: details.owed,
        }
    }

    /// The details, as [`Journal::add_subscription`] takes them.
    #[must_use]
    pub fn details(&self) -> SubscriptionDetails<'_> {
        SubscriptionDetails {
            filter: &self.filter,
            options: self.options,
            identifier: self.identifier,
            owed: self.owed,
        }
    }
}

/// A will as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredWill {
    /// When it is to be published.
    pub due: Deadline,
    /// Seconds between the end of the connection and the publication.
    pub delay_interval: u32,
    /// Seconds from the publication until it is too old.
    pub message_expiry_interval: Option<u32>,
    message: OwnedMessage,
}

impl RestoredWill {
    /// The details, as [`Journal::set_will`] takes them.
    #[must_use]
    pub fn details(&self) -> WillDetails<'_> {
        WillDetails {
            due: self.due,
            delay_interval: self.delay_interval,
            message_expiry_interval: self.message_expiry_interval,
            message: self.message.stored(),
        }
    }
}

impl From<&WillDetails<'_>> for RestoredWill {
    fn from(details: &WillDetails<'_>) -> Self {
        Self {
            due: details.due,
            delay_interval: details.delay_interval,
            message_expiry_interval: details.message_expiry_interval,
            message: OwnedMessage::from(&details.message),
        }
    }
}
