//! What a journal ought to hold: a naive list of everything that was done.

use std::collections::{BTreeMap, BTreeSet};

use shardmq::journal::{
    Copied, Deadline, Exchange, FileId, ItemId, Journal, Recipient, Recovered, SessionDetails,
    SessionNumber, StoredMessage, SubscriptionDetails, WillDetails,
};
use shardmq::wire::{PacketId, QoS, SubscriptionOptions, Version};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub sessions: BTreeMap<SessionNumber, Session>,
    pub bodies: BTreeMap<ItemId, Body>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    pub details: Details,
    pub subscriptions: BTreeMap<ItemId, Subscription>,
    /// In order.
    pub messages: Vec<ItemId>,
    pub held: BTreeSet<PacketId>,
    pub exchanges: BTreeMap<ItemId, Exchange>,
    pub will: Option<Will>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    pub client_id: String,
    pub version: Version,
    pub expiry_interval: u32,
    pub expires_at: Deadline,
}

impl Default for Details {
    fn default() -> Self {
        Self {
            client_id: String::new(),
            version: Version::V5,
            expiry_interval: 0,
            expires_at: Deadline::NEVER,
        }
    }
}

impl Details {
    pub fn borrowed(&self) -> SessionDetails<'_> {
        SessionDetails {
            client_id: &self.client_id,
            user: "",
            version: self.version,
            expiry_interval: self.expiry_interval,
            expires_at: self.expires_at,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub filter: String,
    pub options: SubscriptionOptions,
    pub identifier: u32,
    pub owed: bool,
}

impl Subscription {
    pub fn borrowed(&self) -> SubscriptionDetails<'_> {
        SubscriptionDetails {
            filter: &self.filter,
            options: self.options,
            identifier: self.identifier,
            owed: self.owed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub message: Message,
    pub retained: bool,
    pub receivers: BTreeMap<SessionNumber, Copy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub expires_at: Deadline,
}

impl Message {
    pub fn borrowed(&self) -> StoredMessage<'_> {
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

impl From<StoredMessage<'_>> for Message {
    fn from(message: StoredMessage<'_>) -> Self {
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

/// How a session gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub qos: QoS,
    pub retain: bool,
    pub identifiers: Vec<u32>,
    pub group: String,
}

impl Copy {
    pub fn borrowed(&self, session: SessionNumber) -> Recipient<'_> {
        Recipient {
            session,
            copy: Copied {
                qos: self.qos,
                retain: self.retain,
                identifiers: &self.identifiers,
                group: &self.group,
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub due: Deadline,
    pub delay_interval: u32,
    pub message_expiry_interval: Option<u32>,
    pub message: Message,
}

impl Will {
    pub fn borrowed(&self) -> WillDetails<'_> {
        WillDetails {
            due: self.due,
            delay_interval: self.delay_interval,
            message_expiry_interval: self.message_expiry_interval,
            message: self.message.borrowed(),
        }
    }
}

impl From<WillDetails<'_>> for Will {
    fn from(details: WillDetails<'_>) -> Self {
        Self {
            due: details.due,
            delay_interval: details.delay_interval,
            message_expiry_interval: details.message_expiry_interval,
            message: details.message.into(),
        }
    }
}

/// Something that was done.
#[derive(Clone, Debug)]
pub enum Done {
    Opened(SessionNumber, Details),
    Changed(SessionNumber, Details),
    Ended(SessionNumber),
    Subscribed(SessionNumber, ItemId, Option<ItemId>, Subscription),
    Unsubscribed(SessionNumber, ItemId),
    /// With the retained message that it replaces, and the packet identifier that is held.
    Added(
        ItemId,
        Body,
        Option<ItemId>,
        Option<(SessionNumber, PacketId)>,
    ),
    RetainedCleared(ItemId),
    Acknowledged(SessionNumber, ItemId),
    Released(SessionNumber, PacketId),
    Sent(SessionNumber, ItemId, PacketId),
    Received(SessionNumber, ItemId),
    Completed(SessionNumber, ItemId),
    WillSet(SessionNumber, Will),
    WillCleared(SessionNumber),
}

impl Model {
    fn session(&mut self, session: SessionNumber) -> &mut Session {
        self.sessions.get_mut(&session).expect("the model knows it")
    }

    pub fn apply(&mut self, done: &Done) {
        match done {
            Done::Opened(session, details) => {
                let fresh = Session {
                    details: details.clone(),
                    ..Session::default()
                };
                assert!(self.sessions.insert(*session, fresh).is_none());
            }
            Done::Changed(session, details) => self.session(*session).details = details.clone(),
            Done::Ended(session) => {
                let gone = self.sessions.remove(session).expect("it was there");
                for message in gone.messages {
                    self.unwanted(message, Some(*session));
                }
            }
            Done::Subscribed(session, id, replaces, subscription) => {
                let subscriptions = &mut self.session(*session).subscriptions;
                if let Some(old) = replaces {
                    subscriptions.remove(old);
                }
                subscriptions.insert(*id, subscription.clone());
            }
            Done::Unsubscribed(session, id) => {
                self.session(*session).subscriptions.remove(id);
            }
            Done::Added(id, body, replaces, held) => {
                for session in body.receivers.keys() {
                    self.session(*session).messages.push(*id);
                }
                self.bodies.insert(*id, body.clone());
                if let Some(old) = replaces {
                    self.unwanted(*old, None);
                }
                if let Some((session, packet_id)) = held {
                    self.session(*session).held.insert(*packet_id);
                }
            }
            Done::RetainedCleared(id) => self.unwanted(*id, None),
            Done::Acknowledged(session, message) => {
                self.session(*session).exchanges.remove(message);
                self.acknowledge(*session, *message);
            }
            Done::Released(session, packet_id) => {
                self.session(*session).held.remove(packet_id);
            }
            Done::Sent(session, message, packet_id) => {
                let exchange = Exchange {
                    message: *message,
                    packet_id: *packet_id,
                    received: false,
                };
                self.session(*session).exchanges.insert(*message, exchange);
            }
            Done::Received(session, message) => {
                let exchanges = &mut self.session(*session).exchanges;
                exchanges.get_mut(message).expect("it was sent").received = true;
                self.acknowledge(*session, *message);
            }
            Done::Completed(session, message) => {
                self.session(*session).exchanges.remove(message);
            }
            Done::WillSet(session, will) => self.session(*session).will = Some(will.clone()),
            Done::WillCleared(session) => self.session(*session).will = None,
        }
    }

    fn acknowledge(&mut self, session: SessionNumber, message: ItemId) {
        self.session(session).messages.retain(|&id| id != message);
        self.unwanted(message, Some(session));
    }

    /// A session, or the retained store, does not want a message any longer.
    fn unwanted(&mut self, id: ItemId, by: Option<SessionNumber>) {
        let body = self.bodies.get_mut(&id).expect("somebody wanted it");
        match by {
            Some(session) => {
                body.receivers.remove(&session);
            }
            None => body.retained = false,
        }
        if !body.retained && body.receivers.is_empty() {
            self.bodies.remove(&id);
        }
    }

    /// What a journal gave back, bodies from `read` included.
    pub fn from_recovered<'a>(
        journal: &Journal,
        recovered: &Recovered,
        read: impl Fn(FileId) -> &'a [u8],
    ) -> Result<Self, String> {
        let mut model = Self::default();
        for session in &recovered.sessions {
            let details = session.details();
            let subscriptions = session.subscriptions.iter().map(|subscription| {
                let details = subscription.details();
                let restored = Subscription {
                    filter: details.filter.into(),
                    options: details.options,
                    identifier: details.identifier,
                    owed: details.owed,
                };
                (subscription.id, restored)
            });
            let exchanges = session
                .exchanges
                .iter()
                .map(|exchange| (exchange.message, *exchange));
            let restored = Session {
                details: Details {
                    client_id: details.client_id.into(),
                    version: details.version,
                    expiry_interval: details.expiry_interval,
                    expires_at: details.expires_at,
                },
                subscriptions: subscriptions.collect(),
                messages: session.messages.clone(),
                held: session.held.iter().copied().collect(),
                exchanges: exchanges.collect(),
                will: session.will.as_ref().map(|will| will.details().into()),
            };
            model.sessions.insert(session.session, restored);
        }
        let mut twice = false;
        for file in journal.files() {
            journal
                .each_message(file, read(file), |id, message, retained, recipients| {
                    let receivers = recipients.iter().map(|recipient| {
                        let copy = Copy {
                            qos: recipient.copy.qos,
                            retain: recipient.copy.retain,
                            identifiers: recipient.copy.identifiers.to_vec(),
                            group: recipient.copy.group.into(),
                        };
                        (recipient.session, copy)
                    });
                    let body = Body {
                        message: message.into(),
                        retained,
                        receivers: receivers.collect(),
                    };
                    twice |= model.bodies.insert(id, body).is_some();
                })
                .map_err(|damage| damage.to_string())?;
        }
        let retained = model.bodies.iter().filter(|(_, body)| body.retained);
        if twice
            || !retained
                .map(|(id, _)| *id)
                .eq(recovered.retained.iter().copied())
        {
            return Err("bodies came twice, or not those that are retained".into());
        }
        Ok(model)
    }
}
