//! What a data directory holds, as JSON and back. One line is one object.
//!
//! Deadlines are milliseconds since 1970, `null` for never. Payloads and correlation data are base64.
//! Properties are a list of `[name, value]`, by the names that `shardmq pub -D` takes, because their order
//! counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::journal::{
    Deadline, ItemId, OwnedMessage, RestoredSession, RestoredSubscription, RestoredWill,
    SessionDetails, SessionNumber, StoredMessage, SubscriptionDetails, WillDetails,
};
use crate::topic::{Name, Subscription};
use crate::wire::{
    Forwarded, PacketId, Property, QoS, RetainHandling, SubscriptionOptions, Version,
};

use crate::history::block::Record;
use crate::history::range::Micros;

use super::content::{Begun, Receiver};

/// The names of properties.
const PAYLOAD_FORMAT_INDICATOR: &str = "payload-format-indicator";
const CONTENT_TYPE: &str = "content-type";
const RESPONSE_TOPIC: &str = "response-topic";
const CORRELATION_DATA: &str = "correlation-data";
const USER_PROPERTY: &str = "user-property";

/// What is wrong with a line.
pub(super) type Wrong = String;

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn deadline(deadline: Deadline) -> Value {
    match deadline {
        Deadline::NEVER => Value::Null,
        Deadline(millis) => millis.into(),
    }
}

pub(super) fn details(session: &SessionDetails<'_>) -> Value {
    json!({
        "client_id": session.client_id,
        "user": session.user,
        "version": match session.version {
            Version::V3_1 => "3.1",
            Version::V3_1_1 => "3.1.1",
            Version::V5 => "5",
        },
        "expiry_interval": session.expiry_interval,
        "expires_at": deadline(session.expires_at),
    })
}

pub(super) fn subscription(subscription: &SubscriptionDetails<'_>) -> Value {
    json!({
        "filter": subscription.filter,
        "qos": subscription.options.qos.bits(),
        "no_local": subscription.options.no_local,
        "retain_as_published": subscription.options.retain_as_published,
        "retain_handling": subscription.options.retain_handling as u8,
        "identifier": subscription.identifier,
        "owed": subscription.owed,
    })
}

pub(super) fn message(message: &StoredMessage<'_>) -> Value {
    json!({
        "topic": message.topic,
        "payload": base64(message.payload),
        "properties": properties(message.properties),
        "qos": message.qos.bits(),
        "retain": message.retain,
        "expires_at": deadline(message.expires_at),
    })
}

pub(super) fn will(will: &WillDetails<'_>) -> Value {
    let mut value = json!({
        "due": deadline(will.due),
        "delay_interval": will.delay_interval,
        "message_expiry_interval": will.message_expiry_interval,
    });
    append(&mut value, message(&will.message));
    value
}

/// A session with all that is its own but messages.
pub(super) fn session(session: &RestoredSession) -> Value {
    let mut value = json!({"type": "session"});
    append(&mut value, details(&session.details()));
    let subscriptions = session.subscriptions.iter();
    let subscriptions = subscriptions.map(|known| subscription(&known.details()));
    let held = session.held.iter().map(|packet_id| packet_id.get());
    value["subscriptions"] = subscriptions.collect();
    value["held"] = held.collect();
    value["will"] = session
        .will
        .as_ref()
        .map_or(Value::Null, |known| will(&known.details()));
    value
}

/// Those who get a message alike. One that has begun an exchange is alone.
pub(super) fn receivers<'a>(receivers: &'a [Receiver], client: impl Fn(usize) -> &'a str) -> Value {
    let alike = |one: &Receiver, other: &Receiver| {
        one.exchange.is_none()
            && other.exchange.is_none()
            && (one.qos, one.retain) == (other.qos, other.retain)
            && one.identifiers == other.identifiers
            && one.group == other.group
    };
    let group = |alike: &'a [Receiver]| {
        let clients = alike.iter().map(|receiver| client(receiver.session));
        let mut value = json!({
            "qos": alike[0].qos.bits(),
            "retain": alike[0].retain,
            "identifiers": alike[0].identifiers,
            "group": alike[0].group,
            "clients": clients.collect::<Vec<_>>(),
        });
        if let Some(begun) = alike[0].exchange {
            value["packet_id"] = begun.packet_id.get().into();
            value["received"] = begun.received.into();
        }
        value
    };
    receivers.chunk_by(alike).map(group).collect()
}

/// Appends the members of `more`.
pub(super) fn append(value: &mut Value, more: Value) {
    if let (Value::Object(members), Value::Object(mut more)) = (value, more) {
        members.append(&mut more);
    }
}

fn properties(bytes: &[u8]) -> Value {
    let pair = |property: Property<'_>| match property {
        Property::PayloadFormatIndicator(value) => json!([PAYLOAD_FORMAT_INDICATOR, value]),
        Property::ContentType(text) => json!([CONTENT_TYPE, text]),
        Property::ResponseTopic(text) => json!([RESPONSE_TOPIC, text]),
        Property::CorrelationData(data) => json!([CORRELATION_DATA, base64(data)]),
        Property::UserProperty(name, value) => json!([USER_PROPERTY, name, value]),
        other => json!([format!("{other:?}")]),
    };
    Forwarded::from_bytes(bytes).iter().map(pair).collect()
}

/// A record of history. Its points in time are microseconds.
pub(super) fn record(run: u32, record: &Record<'_>) -> Value {
    json!({
        "type": "record",
        "run": run,
        "received_at_us": record.time,
        "topic": record.topic,
        "payload": base64(record.payload),
        "properties": properties(record.properties),
        "qos": record.qos.bits(),
        "expires_at_us": record.expires_at,
    })
}

/// The same, read back.
pub(super) struct OwnedRecord<'a> {
    pub(super) run: u32,
    pub(super) time: Micros,
    pub(super) topic: Name<'a>,
    pub(super) payload: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) qos: QoS,
    pub(super) expires_at: Option<Micros>,
}

/// An object that is taken apart.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, Wrong> {
        value
            .as_object()
            .map(Self)
            .ok_or_else(|| "this is no object".into())
    }

    fn get(self, key: &str) -> Result<&'a Value, Wrong> {
        self.0.get(key).ok_or_else(|| format!("`{key}` is missing"))
    }

    pub(super) fn text(self, key: &str) -> Result<&'a str, Wrong> {
        let text = self.get(key)?.as_str();
        let fits = |text: &&str| text.len() <= usize::from(u16::MAX) && !text.contains('\0');
        text.filter(fits)
            .ok_or_else(|| format!("`{key}` is no text of at most 65535 bytes without U+0000"))
    }

    pub(super) fn number<T: TryFrom<u64>>(self, key: &str) -> Result<T, Wrong> {
        let number = self.get(key)?.as_u64();
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("`{key}` is no number in its range"))
    }

    pub(super) fn flag(self, key: &str) -> Result<bool, Wrong> {
        let flag = self.get(key)?.as_bool();
        flag.ok_or_else(|| format!("`{key}` is neither true nor false"))
    }

    pub(super) fn list(self, key: &str) -> Result<&'a Vec<Value>, Wrong> {
        let list = self.get(key)?.as_array();
        list.ok_or_else(|| format!("`{key}` is no list"))
    }

    fn qos(self) -> Result<QoS, Wrong> {
        QoS::from_bits(self.number("qos")?).ok_or_else(|| "`qos` is not 0, 1 or 2".into())
    }

    fn deadline(self, key: &str) -> Result<Deadline, Wrong> {
        match self.get(key)? {
            Value::Null => Ok(Deadline::NEVER),
            _ => self.number(key).map(Deadline),
        }
    }

    fn packet_id(value: &Value) -> Result<PacketId, Wrong> {
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
        number
            .and_then(PacketId::new)
            .ok_or_else(|| format!("{value} is no packet identifier"))
    }

    /// What [`session`] made.
    pub(super) fn session(self) -> Result<RestoredSession, Wrong> {
        let subscriptions = self.list("subscriptions")?.iter();
        let subscriptions: Vec<_> = subscriptions
            .map(|value| Fields::of(value)?.subscription())
            .collect::<Result<_, _>>()?;
        let mut filters = std::collections::HashSet::new();
        for subscription in &subscriptions {
            if !filters.insert(&subscription.filter) {
                return Err(format!("`{}` is subscribed to twice", subscription.filter));
            }
        }
        let will = match self.get("will")? {
            Value::Null => None,
            value => Some(Fields::of(value)?.will()?),
        };
        let held = self.list("held")?.iter().map(Self::packet_id);
        Ok(RestoredSession {
            session: SessionNumber(0),
            client_id: self.text("client_id")?.into(),
            user: self.text("user")?.into(),
            version: match self.text("version")? {
                "3.1" => Version::V3_1,
                "3.1.1" => Version::V3_1_1,
                "5" => Version::V5,
                other => return Err(format!("`{other}` is no version of MQTT")),
            },
            expiry_interval: self.number("expiry_interval")?,
            expires_at: self.deadline("expires_at")?,
            subscriptions,
            messages: Vec::new(),
            held: held.collect::<Result<_, _>>()?,
            exchanges: Vec::new(),
            will,
        })
    }

    fn subscription(self) -> Result<RestoredSubscription, Wrong> {
        let filter = self.text("filter")?;
        if Subscription::parse(filter).is_err() {
            return Err(format!("`{filter}` is no topic filter"));
        }
        Ok(RestoredSubscription {
            id: ItemId(0),
            filter: filter.into(),
            options: SubscriptionOptions {
                qos: self.qos()?,
                no_local: self.flag("no_local")?,
                retain_as_published: self.flag("retain_as_published")?,
                retain_handling: match self.number("retain_handling")? {
                    0_u8 => RetainHandling::Send,
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    other => return Err(format!("there is no retain handling {other}")),
                },
            },
            identifier: self.number("identifier")?,
            owed: match self.get("owed") {
                Ok(_) => self.flag("owed")?,
                Err(_) => false, // version 1 did not know of it
            },
        })
    }

    fn will(self) -> Result<RestoredWill, Wrong> {
        let body = self.body()?;
        Ok(RestoredWill::from(&WillDetails {
            due: self.deadline("due")?,
            delay_interval: self.number("delay_interval")?,
            message_expiry_interval: match self.get("message_expiry_interval")? {
                Value::Null => None,
                _ => Some(self.number("message_expiry_interval")?),
            },
            message: body.stored(),
        }))
    }

    /// What [`message`] made.
    pub(super) fn body(self) -> Result<OwnedMessage, Wrong> {
        let topic = self.text("topic")?;
        if Name::parse(topic).is_err() {
            return Err(format!("`{topic}` is no topic name"));
        }
        Ok(OwnedMessage {
            topic: topic.into(),
            properties: self.properties()?.into(),
            payload: self.payload()?.into(),
            qos: self.qos()?,
            retain: self.flag("retain")?,
            expires_at: self.deadline("expires_at")?,
        })
    }

    /// What [`record`] made.
    pub(super) fn record(self) -> Result<OwnedRecord<'a>, Wrong> {
        let topic = self.text("topic")?;
        Ok(OwnedRecord {
            run: self.number("run")?,
            time: self.number("received_at_us")?,
            topic: Name::parse(topic).map_err(|_| format!("`{topic}` is no topic name"))?,
            payload: self.payload()?,
            properties: self.properties()?,
            qos: self.qos()?,
            expires_at: match self.get("expires_at_us")? {
                Value::Null => None,
                _ => Some(self.number("expires_at_us")?),
            },
        })
    }

    fn payload(self) -> Result<Vec<u8>, Wrong> {
        let payload = self.get("payload")?.as_str();
        let payload = payload.and_then(|text| STANDARD.decode(text).ok());
        payload.ok_or_else(|| "`payload` is no base64".into())
    }

    fn properties(self) -> Result<Vec<u8>, Wrong> {
        let mut bytes = Vec::new();
        let list = self.list("properties")?;
        for pair in list {
            let wrong = || format!("{pair} is no property that is forwarded");
            let text = |at: usize| {
                let text = pair.get(at).and_then(Value::as_str);
                text.filter(|text| text.len() <= usize::from(u16::MAX))
            };
            let data = || STANDARD.decode(text(1)?).ok();
            let (name, value) = (text(0).ok_or_else(wrong)?, text(1));
            let data = (name == CORRELATION_DATA).then(data).flatten();
            let property = match name {
                PAYLOAD_FORMAT_INDICATOR => pair
                    .get(1)
                    .and_then(Value::as_u64)
                    .filter(|&value| value <= 1)
                    .map(|value| Property::PayloadFormatIndicator(value as u8)),
                CONTENT_TYPE => value.map(Property::ContentType),
                RESPONSE_TOPIC => value.map(Property::ResponseTopic),
                CORRELATION_DATA => data.as_deref().map(Property::CorrelationData),
                USER_PROPERTY => value
                    .zip(text(2))
                    .map(|(name, value)| Property::UserProperty(name, value)),
                _ => None,
            };
            property.ok_or_else(wrong)?.encode(&mut bytes);
        }
        // The rules of each property are checked where it is read.
        if Forwarded::from_bytes(&bytes).iter().count() == list.len() {
            Ok(bytes)
        } else {
            Err("`properties` breaks a rule of theirs".into())
        }
    }

    /// What [`receivers`] made.
    pub(super) fn receivers(
        self,
        session: impl Fn(&str) -> Option<usize>,
    ) -> Result<Vec<Receiver>, Wrong> {
        let mut all = Vec::new();
        for group in self.list("receivers")? {
            let group = Fields::of(group)?;
            let identifiers = group.list("identifiers")?.iter();
            let identifiers = identifiers.map(|value| {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                number.ok_or_else(|| format!("{value} is no subscription identifier"))
            });
            let identifiers: Vec<u32> = identifiers.collect::<Result<_, _>>()?;
            let exchange = match group.0.get("packet_id") {
                None => None,
                Some(packet_id) => Some(Begun {
                    packet_id: Self::packet_id(packet_id)?,
                    received: group.flag("received")?,
                }),
            };
            for client in group.list("clients")? {
                let index = client.as_str().and_then(&session);
                all.push(Receiver {
                    session: index.ok_or_else(|| format!("there is no session of {client}"))?,
                    qos: group.qos()?,
                    retain: group.flag("retain")?,
                    identifiers: identifiers.clone(),
                    group: group.text("group")?.into(),
                    exchange,
                });
            }
        }
        let mut named: Vec<usize> = all.iter().map(|receiver| receiver.session).collect();
        named.sort_unstable();
        if named.windows(2).any(|two| two[0] == two[1]) {
            return Err("a client is named twice".into());
        }
        Ok(all)
    }
}
