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
use crate::policy::{Grant, Mount};
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

/// The session of one client. What a message for many looks at comes first, in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Session {
    /// Not sent yet.
    pub queue: Queue,
    /// Its connection, if it has one.
    pub connection: Option<ConnKey>,
    /// What the journal calls it, where it has it.
    pub stored: Option<SessionNumber>,
    /// Seconds that it outlives its connection.
    pub expiry_interval: u32,
    /// How many of its subscriptions are shared.
    pub shared: u32,
    /// What the groups of those were told.
    pub available: bool,
    /// What the client spoke last.
    pub version: Version,
    /// The client.
    pub client_id: Box<str>,
    /// When it ends, [`Time::NEVER`] while connected.
    pub expires_at: Time,
    /// The deadline that stands in the shard's timers for it.
    pub timer: Time,
    /// Sent and not acknowledged.
    pub window: Window,
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
    /// What the client may do.
    pub standing: Standing,
}

const _: () = {
    assert!(std::mem::offset_of!(Session, client_id) <= 64);
    assert!(size_of::<Session>() <= 320);
};

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
    /// Where its topics are, if they are not where they say. Holds from the session's beginning to its end.
    pub mount: Option<Mount>,
}

impl Standing {
    /// What the journal is to remember of it.
    #[must_use]
    pub fn owner(&self) -> Box<str> {
        let grant = self.grant.as_ref();
        let user = grant.and_then(|grant| grant.username.as_deref());
        let owner = Owner {
            user: user.unwrap_or_default(),
            mount: self.mount.as_ref().map_or("", Mount::as_str),
            own_rules: grant.is_some_and(|grant| grant.rules.is_some()),
        };
        owner.to_text()
    }
}

/// Whose a session is, as far as it outlives the process: a text, because records borrow. The user name; if
/// there is more to tell NUL and the mount; if the user had rules of its own NUL and an `r`. No mount holds
/// NUL; a user name from a certificate might, and becomes one that is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The user name, empty for nobody.
    pub user: &'a str,
    /// The mount, empty for none.
    pub mount: &'a str,
    /// Whether the user had rules of its own, which nobody knows any more after a restart.
    pub own_rules: bool,
}

impl<'a> Owner<'a> {
    /// Reads what [`Owner::to_text`] wrote.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.split('\0');
        let mut next = || parts.next().unwrap_or_default();
        Self {
            user: next(),
            mount: next(),
            own_rules: next() == "r",
        }
    }

    /// The text.
    #[must_use]
    pub fn to_text(self) -> Box<str> {
        let Self {
            user,
            mount,
            own_rules,
        } = self;
        let user = user.replace('\0', "\u{1}");
        match (mount, own_rules) {
            ("", false) => user.into(),
            (mount, false) => format!("{user}\0{mount}").into(),
            (mount, true) => format!("{user}\0{mount}\0r").into(),
        }
    }
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
#[derive(Clone, Debug)]
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

    #[test]
    fn an_owner_reads_as_it_was_written() {
        for user in ["", "anna"] {
            for mount in ["", "a/b/"] {
                for own_rules in [false, true] {
                    let owner = Owner {
                        user,
                        mount,
                        own_rules,
                    };
                    assert_eq!(Owner::parse(&owner.to_text()), owner);
                }
            }
        }
        assert_eq!(&*Owner::parse("anna").to_text(), "anna");
        let text = Owner {
            user: "anna\0b/",
            ..Owner::default()
        }
        .to_text();
        assert_ne!(Owner::parse(&text).user, "anna");
        assert_eq!(Owner::parse(&text).mount, "");
    }

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
