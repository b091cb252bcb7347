//! What goes over the wire in a scenario, as values: to be sent, and to be compared.

use std::fmt;

use shardmq::wire::{
    Ack, ConnAck, Forwarded, Packet, PacketId, Property, Publish, PublishProperties, QoS,
    ReasonCode, RetainHandling, SubscriptionOptions,
};

/// A payload, printed as text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(60)];
        write!(
            formatter,
            "\"{}\" ({} bytes)",
            shown.escape_ascii(),
            self.0.len()
        )
    }
}

/// A PUBLISH with everything that it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Payload,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// `None` in an expectation stands for any.
    pub id: Option<u16>,
    pub expiry: Option<u32>,
    pub alias: Option<u16>,
    pub identifiers: Vec<u32>,
    pub format: Option<u8>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation: Option<Vec<u8>>,
    pub user: Vec<(String, String)>,
}

/// A message of QoS 0 without anything else.
pub fn message(topic: &str, payload: impl AsRef<[u8]>) -> Message {
    Message {
        topic: topic.into(),
        payload: Payload(payload.as_ref().to_vec()),
        ..Message::default()
    }
}

impl Message {
    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn id(mut self, id: u16) -> Self {
        self.id = Some(id);
        self
    }

    pub fn expiry(mut self, seconds: u32) -> Self {
        self.expiry = Some(seconds);
        self
    }

    pub fn alias(mut self, alias: u16) -> Self {
        self.alias = Some(alias);
        self
    }

    pub fn identifier(mut self, identifier: u32) -> Self {
        self.identifiers.push(identifier);
        self
    }

    pub fn format(mut self, indicator: u8) -> Self {
        self.format = Some(indicator);
        self
    }

    pub fn content_type(mut self, text: &str) -> Self {
        self.content_type = Some(text.into());
        self
    }

    pub fn response_topic(mut self, topic: &str) -> Self {
        self.response_topic = Some(topic.into());
        self
    }

    pub fn correlation(mut self, data: &[u8]) -> Self {
        self.correlation = Some(data.into());
        self
    }

    pub fn user(mut self, name: &str, value: &str) -> Self {
        self.user.push((name.into(), value.into()));
        self
    }

    /// The properties that a broker passes on.
    pub fn forwarded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut write = |property: Property<'_>| property.encode(&mut bytes);
        self.format
            .map(Property::PayloadFormatIndicator)
            .map(&mut write);
        self.content_type
            .as_deref()
            .map(Property::ContentType)
            .map(&mut write);
        self.response_topic
            .as_deref()
            .map(Property::ResponseTopic)
            .map(&mut write);
        self.correlation
            .as_deref()
            .map(Property::CorrelationData)
            .map(&mut write);
        for (name, value) in &self.user {
            write(Property::UserProperty(name, value));
        }
        bytes
    }

    /// The packet, written in `version`.
    pub fn encode(&self, version: shardmq::wire::Version) -> Vec<u8> {
        let forwarded = self.forwarded();
        let publish = Publish {
            dup: self.dup,
            qos: qos(self.qos),
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.id.filter(|_| self.qos > 0).map(packet_id),
            properties: PublishProperties {
                message_expiry_interval: self.expiry,
                topic_alias: self.alias,
                forwarded: Forwarded::from_bytes(&forwarded),
                ..PublishProperties::default()
            },
            payload: &self.payload.0,
        };
        let mut bytes = Vec::new();
        publish.encode(version, &mut bytes);
        bytes
    }

    fn read(publish: &Publish<'_>) -> Self {
        let properties = &publish.properties;
        Self {
            topic: publish.topic.into(),
            payload: Payload(publish.payload.into()),
            qos: publish.qos.bits(),
            retain: publish.retain,
            dup: publish.dup,
            id: publish.packet_id.map(PacketId::get),
            expiry: properties.message_expiry_interval,
            alias: properties.topic_alias,
            identifiers: properties.subscription_identifiers.iter().collect(),
            format: properties.payload_format_indicator,
            content_type: properties.content_type().map(Into::into),
            response_topic: properties.response_topic().map(Into::into),
            correlation: properties.correlation_data().map(Into::into),
            user: properties
                .user_properties()
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}

/// What a CONNACK says, as far as scenarios ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    pub reason: ReasonCode,
    pub session_present: bool,
    pub assigned: Option<String>,
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_qos: Option<u8>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<u32>,
    pub topic_alias_maximum: Option<u16>,
    pub wildcards: Option<bool>,
    pub identifiers: Option<bool>,
    pub shared: Option<bool>,
    pub keep_alive: Option<u16>,
    pub response_information: Option<String>,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Vec<u8>>,
}

impl Welcome {
    fn read(connack: &ConnAck<'_>) -> Self {
        let properties = &connack.properties;
        Self {
            reason: connack.reason,
            session_present: connack.session_present,
            assigned: properties.assigned_client_identifier.map(Into::into),
            session_expiry: properties.session_expiry_interval,
            receive_maximum: properties.receive_maximum,
            maximum_qos: properties.maximum_qos.map(QoS::bits),
            retain_available: properties.retain_available,
            maximum_packet_size: properties.maximum_packet_size,
            topic_alias_maximum: properties.topic_alias_maximum,
            wildcards: properties.wildcard_subscription_available,
            identifiers: properties.subscription_identifiers_available,
            shared: properties.shared_subscription_available,
            keep_alive: properties.server_keep_alive,
            response_information: properties.response_information.map(Into::into),
            authentication_method: properties.authentication_method.map(Into::into),
            authentication_data: properties.authentication_data.map(Into::into),
        }
    }
}

/// A packet from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    ConnAck(Welcome),
    Publish(Message),
    PubAck(u16, ReasonCode),
    PubRec(u16, ReasonCode),
    PubRel(u16, ReasonCode),
    PubComp(u16, ReasonCode),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    PingResp,
    Disconnect(ReasonCode),
    Auth(ReasonCode, String, Vec<u8>),
}

impl Received {
    /// Takes over what `packet` says.
    pub fn read(packet: &Packet<'_>) -> Self {
        let ack = |ack: &Ack<'_>| (ack.packet_id.get(), ack.reason);
        match packet {
            Packet::ConnAck(packet) => Self::ConnAck(Welcome::read(packet)),
            Packet::Publish(packet) => Self::Publish(Message::read(packet)),
            Packet::PubAck(packet) => Self::PubAck(ack(packet).0, packet.reason),
            Packet::PubRec(packet) => Self::PubRec(ack(packet).0, packet.reason),
            Packet::PubRel(packet) => Self::PubRel(ack(packet).0, packet.reason),
            Packet::PubComp(packet) => Self::PubComp(ack(packet).0, packet.reason),
            Packet::SubAck(packet) => Self::SubAck(packet.packet_id.get(), packet.codes.into()),
            Packet::UnsubAck(packet) => Self::UnsubAck(packet.packet_id.get(), packet.codes.into()),
            Packet::PingResp => Self::PingResp,
            Packet::Auth(packet) => Self::Auth(
                packet.reason,
                packet.authentication_method.unwrap_or_default().into(),
                packet.authentication_data.unwrap_or_default().into(),
            ),
            Packet::Disconnect(packet) => {
                // [MQTT-3.14.2-2] a server never sends a Session Expiry Interval
                assert_eq!(packet.session_expiry_interval, None);
                Self::Disconnect(packet.reason)
            }
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq => panic!("a server does not send this: {packet:?}"),
        }
    }
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Sub {
    pub filter: String,
    pub options: SubscriptionOptions,
    pub identifier: Option<u32>,
}

/// A subscription with QoS 0.
pub fn sub(filter: &str) -> Sub {
    Sub {
        filter: filter.into(),
        options: SubscriptionOptions::default(),
        identifier: None,
    }
}

impl Sub {
    pub fn qos(mut self, level: u8) -> Self {
        self.options.qos = qos(level);
        self
    }

    pub fn no_local(mut self) -> Self {
        self.options.no_local = true;
        self
    }

    /// Retain As Published.
    pub fn retain_as_published(mut self) -> Self {
        self.options.retain_as_published = true;
        self
    }

    /// Retain Handling 1.
    pub fn retained_if_new(mut self) -> Self {
        self.options.retain_handling = RetainHandling::SendIfNew;
        self
    }

    /// Retain Handling 2.
    pub fn without_retained(mut self) -> Self {
        self.options.retain_handling = RetainHandling::DoNotSend;
        self
    }

    /// The Subscription Identifier of the SUBSCRIBE that it stands in.
    pub fn identifier(mut self, identifier: u32) -> Self {
        self.identifier = Some(identifier);
        self
    }
}

pub fn qos(level: u8) -> QoS {
    QoS::from_bits(level).expect("a QoS is 0, 1 or 2")
}

pub fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("a packet identifier is not 0")
}
