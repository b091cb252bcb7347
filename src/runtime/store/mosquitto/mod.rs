//! What mosquitto kept in its `mosquitto.db`, for journals of our own.
//!
//! - A message that was sent as QoS 1, or queued, is queued; one whose PUBREC or PUBCOMP is awaited goes on
//!   there, under its packet identifier.
//! - A QoS 2 message from a client reaches mosquitto's subscribers with its PUBREL, ours with its PUBLISH:
//!   so it is delivered by the import, and its packet identifier is held.
//! - Which version a client spoke does not stand there; it is corrected by its next CONNECT. mosquitto
//!   2.0 does not write shared subscriptions, nor wills.
//! - QoS 0 messages in queues are left out: no queue here keeps them over a restart.

mod chunks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::journal::{
    Deadline, ItemId, OwnedMessage, RestoredSession, RestoredSubscription, SessionNumber,
};
use crate::topic::{Name, Subscription};
use crate::wire::{PacketId, QoS, RetainHandling, SubscriptionOptions, Version};

use self::chunks::{Client, ClientMessage, Database, Subscribed};
use super::content::{Begun, Content, Kept, Receiver};
use super::export::Amount;
use super::target::Targets;
use super::{StoreError, forwards};

pub(super) use self::chunks::is_one;

/// A session that never expires.
const FOREVER: u32 = u32::MAX;

/// Reads `input` whole and appends what it says.
pub(super) fn import(
    input: &mut dyn BufRead,
    now: SystemTime,
    targets: &mut Targets,
) -> Result<Amount, StoreError> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(StoreError::Input)?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    let (content, left_out) = convert(Database::read(&bytes)?, now);
    targets.take(&content)?;
    Ok(Amount {
        sessions: content.sessions.len() as u64,
        messages: content.messages.len() as u64,
        left_out,
        ..Amount::default()
    })
}

/// What a database says, in our terms, and how much of it has none.
fn convert(database: Database<'_>, now: u64) -> (Content, u64) {
    let mut conversion = Conversion {
        content: Content::default(),
        clients: HashMap::new(),
        kept: BTreeMap::new(),
        incoming: Vec::new(),
        left_out: database.unknown,
    };
    for client in &database.clients {
        conversion.client(client, now);
    }
    for subscribed in &database.subscriptions {
        conversion.subscription(subscribed);
    }
    conversion.queues(&database);
    for id in &database.retained {
        conversion.retain(&database, *id);
    }
    for message in &database.queued {
        conversion.incoming(&database, message);
    }
    let Conversion {
        mut content,
        kept,
        incoming,
        left_out,
        ..
    } = conversion;
    content.messages = kept.into_values().collect();
    for (kept, retained) in incoming {
        content.arrive(kept, retained);
    }
    (content, left_out)
}

/// The number that mosquitto gave a message, and the place behind it of what came out of its order.
type Order = (u64, u32);

struct Conversion<'a> {
    content: Content,
    clients: HashMap<&'a str, usize>,
    kept: BTreeMap<Order, Kept>,
    /// QoS 2 from clients, and whether it is retained.
    incoming: Vec<(Kept, bool)>,
    left_out: u64,
}

impl<'a> Conversion<'a> {
    fn client(&mut self, client: &Client<'a>, now: u64) {
        let (expiry_interval, expires_at) = match client.expiry_interval {
            0 | FOREVER => (FOREVER, Deadline::NEVER),
            seconds if client.expires_at > 0 => (seconds, deadline(client.expires_at)),
            seconds => (seconds, Deadline(now + u64::from(seconds) * 1_000)),
        };
        let index = self.content.sessions.len();
        if self.clients.insert(client.id, index).is_some() {
            self.left_out += 1;
            return;
        }
        self.content.sessions.push(RestoredSession {
            session: SessionNumber(0),
            client_id: client.id.into(),
            user: client.user.into(),
            version: match expiry_interval {
                FOREVER => Version::V3_1_1,
                _ => Version::V5,
            },
            expiry_interval,
            expires_at,
            subscriptions: Vec::new(),
            messages: Vec::new(),
            held: Vec::new(),
            exchanges: Vec::new(),
            will: None,
        });
    }

    fn subscription(&mut self, subscribed: &Subscribed<'a>) {
        let options = options(subscribed.qos, subscribed.options);
        let session = self.clients.get(subscribed.client);
        let session = session.map(|&index| &mut self.content.sessions[index]);
        let (Some(session), Some(options), Ok(_)) =
            (session, options, Subscription::parse(subscribed.filter))
        else {
            self.left_out += 1;
            return;
        };
        if subscribed.identifier != 0 || subscribed.options != 0 {
            session.version = Version::V5;
        }
        session.subscriptions.push(RestoredSubscription {
            id: ItemId(0),
            filter: subscribed.filter.into(),
            options,
            identifier: subscribed.identifier,
            owed: false,
        });
    }

    /// Messages to clients. Their numbers are the order in which they came; where a client got one out of
    /// that order, a retained one for example, it gets a copy of its own in the right place.
    fn queues(&mut self, database: &Database<'_>) {
        let mut last: HashMap<usize, Order> = HashMap::new();
        for message in database.queued.iter().filter(|message| message.to_client) {
            let session = self.clients.get(message.client).copied();
            let body = body(database, message.message);
            let qos = QoS::from_bits(message.qos).filter(|&qos| qos != QoS::AtMostOnce);
            let (Some(session), Some(body), Some(qos)) = (session, body, qos) else {
                self.left_out += 1;
                continue;
            };
            let receiver = Receiver {
                session,
                qos,
                retain: message.retain,
                identifiers: message.identifiers.clone(),
                group: "".into(),
                exchange: exchange(message),
            };
            let before = last.entry(session).or_insert((0, 0));
            let mut order = (message.message, 0);
            if order <= *before {
                order = (before.0, before.1 + 1);
                while self.kept.contains_key(&order) {
                    order.1 += 1; // another client's copy
                }
            }
            *before = order;
            let made = || Kept::made(Some(body), false, Vec::new());
            let kept = self.kept.entry(order).or_insert_with(made);
            kept.receivers.push(receiver);
        }
    }

    fn retain(&mut self, database: &Database<'_>, id: u64) {
        let body = body(database, id).filter(|body| !body.topic.starts_with("$SYS/"));
        let Some(body) = body else {
            self.left_out += 1;
            return;
        };
        let made = || Kept::made(Some(body), false, Vec::new());
        self.kept.entry((id, 0)).or_insert_with(made).retained = true;
    }

    /// A QoS 2 message from a client, which nobody has got yet.
    fn incoming(&mut self, database: &Database<'_>, message: &ClientMessage<'_>) {
        if message.to_client {
            return;
        }
        let session = self.clients.get(message.client).copied();
        let packet_id = PacketId::new(message.packet_id);
        let body = body(database, message.message);
        let (Some(session), Some(packet_id), Some(body), 2) =
            (session, packet_id, body, message.qos)
        else {
            self.left_out += 1;
            return;
        };
        let held = &mut self.content.sessions[session].held;
        match held.binary_search(&packet_id) {
            Ok(_) => return,
            Err(at) => held.insert(at, packet_id),
        }
        let receivers = forwards::subscribers(
            &self.content.sessions,
            &body.stored(),
            |subscriber, subscription| !subscription.options.no_local || subscriber != session,
        );
        let retained = body.retain;
        self.incoming
            .push((Kept::made(Some(body), false, receivers), retained));
    }
}

fn body(database: &Database<'_>, id: u64) -> Option<OwnedMessage> {
    let stored = database.messages.get(&id)?;
    Name::parse(stored.topic).ok()?;
    Some(OwnedMessage {
        topic: stored.topic.into(),
        properties: stored.properties.as_slice().into(),
        payload: stored.payload.into(),
        qos: QoS::from_bits(stored.qos)?,
        retain: stored.retain,
        expires_at: match stored.expires_at {
            0 => Deadline::NEVER,
            seconds => deadline(seconds),
        },
    })
}

/// A point in time, from seconds since 1970.
fn deadline(seconds: u64) -> Deadline {
    Deadline(seconds.saturating_mul(1_000))
}

/// How far QoS 2 to a client is. QoS 1 that was sent is sent again under an identifier of ours.
fn exchange(message: &ClientMessage<'_>) -> Option<Begun> {
    const WAITS_FOR_PUBREC: u8 = 5;
    const RESENDS_PUBREL: u8 = 6;
    const WAITS_FOR_PUBCOMP: u8 = 9;
    let received = match message.state {
        WAITS_FOR_PUBREC => false,
        RESENDS_PUBREL | WAITS_FOR_PUBCOMP => true,
        _ => return None,
    };
    let packet_id = PacketId::new(message.packet_id).filter(|_| message.qos == 2)?;
    Some(Begun {
        packet_id,
        received,
    })
}

/// The bits of SUBSCRIBE, section 3.8.3.1 of version 5.
fn options(qos: u8, bits: u8) -> Option<SubscriptionOptions> {
    Some(SubscriptionOptions {
        qos: QoS::from_bits(qos)?,
        no_local: bits & 0x04 != 0,
        retain_as_published: bits & 0x08 != 0,
        retain_handling: match bits & 0x30 {
            0x00 => RetainHandling::Send,
            0x10 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        },
    })
}
