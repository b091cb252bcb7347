//! What the broker remembers of one client, whether it is connected or not.
//!
//! The client id names it [MQTT-3.1.3-2], and nothing of it is discarded while its client is connected
//! [MQTT-4.1.0-1] [MQTT-4.1.0-1 3.1.1]. A session lives on the shard that the hash of its client id names, from its first CONNECT to its
//! end; connections come to it. What belongs to one connection only is in [`connection`].

mod aliases;
mod connection;
mod queue;
mod received;
mod window;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::message::{ItemId, Message};
use crate::policy::Grant;
use crate::route::GroupKey;
use crate::time::Time;
use crate::wire::{QoS, SubscriptionOptions, Version};

pub use aliases::{IncomingAliases, Named, OutgoingAliases};
pub use connection::{Acknowledgement, ConnKey, Connection, Peer, Phase, Ticket};
pub use queue::Queue;
pub use received::Received;
pub use window::{Acknowledged, Slot, Window};

/// A Session Expiry Interval that never passes, in seconds.
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// A session in the journal, by a number as small as possible: it is used again after the session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub(crate) u32);

/// The session of one client.
#[derive(Debug)]
pub struct Session {
    /// The client.
    pub client_id: Box<str>,
    /// Its connection, if it has one.
    pub connection: Option<ConnKey>,
    /// What the client spoke last.
    pub version: Version,
    /// What the journal calls it, where it has it.
    pub stored: Option<SessionNumber>,
    /// Seconds that it outlives its connection.
    pub expiry_interval: u32,
    /// When it ends, [`Time::NEVER`] while connected.
    pub expires_at: Time,
    /// The deadline that stands in the shard's timers for it.
    pub timer: Time,
    /// Sent and not acknowledged.
    pub window: Window,
    /// Not sent yet.
    pub queue: Queue,
    /// QoS 2 messages from the client that PUBREL has not released.
    pub received: Received,
    /// What the client subscribed to, sorted by filter: a SUBSCRIBE may name 100,000 of them.
    pub subscriptions: Vec<SubscriptionEntry>,
    /// Deliveries of retained messages that go on.
    pub replays: SmallVec<[ReplayKey; 1]>,
    /// The Will Message of the last CONNECT [MQTT-3.1.2-7], until it is published or taken back.
    pub will: Option<Box<Will>>,
    /// When the will is published, [`Time::NEVER`] while the client is connected.
    pub will_at: Time,
    /// How many of its subscriptions are shared.
    pub shared: u32,
    /// What the groups of those were told.
    pub available: bool,
    /// What the client may do.
    pub standing: Standing,
}

/// What a client may do, as far as it was found out.
#[derive(Debug, Default)]
pub struct Standing {
    /// What was found out about it was found under this number; 0 for nothing.
    pub number: u64,
    /// Who it was shown to be.
    pub grant: Option<Box<Grant>>,
    /// The policy that the next one was found with, counted.
    pub epoch: u32,
    /// Whether its subscriptions reach everything that they match.
    pub unfiltered: bool,
}

/// One subscription, as the client made it.
#[derive(Clone, Debug)]
pub struct SubscriptionEntry {
    /// The topic filter, with `$share/name/` where it is shared.
    pub filter: Arc<str>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier, 0 for none.
    pub identifier: u32,
    /// What the journal calls it, where it has it.
    pub stored: Option<ItemId>,
}

/// A message on its way to one client.
#[derive(Debug)]
pub struct Delivery {
    /// What is sent; shared with everybody else on this shard who keeps it.
    pub message: Message,
    /// The QoS it is sent with.
    pub qos: QoS,
    /// The RETAIN flag it is sent with.
    pub retain: bool,
    /// The identifiers of the subscriptions that it matched.
    pub identifiers: Identifiers,
    /// The group it was picked from, if its subscription is shared.
    pub group: Option<GroupKey>,
}

/// Subscription Identifiers: nearly always none or one.
pub type Identifiers = SmallVec<[u32; 2]>;

/// A delivery of retained messages to one new subscription, on the shard of the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplayKey(pub u64);

/// A Will Message and when it is due.
#[derive(Debug)]
pub struct Will {
    /// The message; its expiry begins when it is published.
    pub message: Message,
    /// Seconds between the end of the connection and the publication.
    pub delay_interval: u32,
    /// Seconds from the publication until it is too old.
    pub message_expiry_interval: Option<u32>,
}

impl Session {
    /// A new session without a connection.
    #[must_use]
    pub fn new(client_id: &str) -> Self {
        Self {
            client_id: client_id.into(),
            connection: None,
            version: Version::V3_1_1,
            stored: None,
            expiry_interval: 0,
            expires_at: Time::NEVER,
            timer: Time::NEVER,
            window: Window::default(),
            queue: Queue::default(),
            received: Received::default(),
            subscriptions: Vec::new(),
            replays: SmallVec::new(),
            will: None,
            will_at: Time::NEVER,
            shared: 0,
            available: false,
            standing: Standing::default(),
        }
    }

    /// Where the subscription to `filter`, as the client wrote it, is or would be.
    ///
    /// # Errors
    /// The place to insert it.
    pub fn subscription(&self, filter: &str) -> Result<usize, usize> {
        self.subscriptions
            .binary_search_by(|entry| (*entry.filter).cmp(filter))
    }

    /// What the journal calls it, if it keeps messages for it: it outlives its connection.
    #[must_use]
    pub fn keeps(&self) -> Option<SessionNumber> {
        self.stored.filter(|_| self.expiry_interval > 0)
    }

    /// When something is due while no client is connected: the will, or the end of the session.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.will_at.min(self.expires_at)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::MessageView;
    use crate::topic::Name;

    pub(crate) fn delivery(qos: QoS) -> Delivery {
        let view = MessageView {
            topic: Name::parse("t").unwrap(),
            properties: &[],
            payload: b"p",
            qos,
            retain: false,
            expires_at: Time::NEVER,
        };
        Delivery {
            message: view.to_message(),
            qos,
            retain: false,
            identifiers: Identifiers::new(),
            group: None,
        }
    }
}
