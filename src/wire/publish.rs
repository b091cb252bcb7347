//! PUBLISH, section 3.3: the one packet whose cost is the broker's cost.

use super::framing::write_fixed_header;
use super::properties::{Property, Section, Span, identifier, write_optional};
use super::reader::Reader;
use super::sink::{Sink, Write, variable_byte_integer_size};
use super::{
    Forwarded, PacketId, PacketType, QoS, SubscriptionIdentifiers, UserProperties, Version,
    Violation,
};
use crate::topic::{Name, TopicError};

/// A PUBLISH packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// It may have been sent before.
    pub dup: bool,
    /// Quality of Service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// The topic, checked as [`Name`] does it. Empty only in version 5 with a Topic Alias.
    pub topic: &'a str,
    /// There if and only if the QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// What version 5 adds.
    pub properties: PublishProperties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// Seconds.
    pub message_expiry_interval: Option<u32>,
    /// Never zero.
    pub topic_alias: Option<u16>,
    /// What is passed on unaltered.
    pub forwarded: Forwarded<'a>,
    /// Only a server sends them. That a client did is for the shard to refuse, as
    /// [`Violation::SubscriptionIdentifierFromClient`].
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// A copy of what stands in `forwarded`, for whoever checks payloads; not encoded from here.
    pub payload_format_indicator: Option<u8>,
}

impl<'a> PublishProperties<'a> {
    /// The Content Type.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        self.forwarded.iter().find_map(|property| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    /// The Response Topic, a valid topic name.
    #[must_use]
    pub fn response_topic(&self) -> Option<&'a str> {
        self.forwarded.iter().find_map(|property| match property {
            Property::ResponseTopic(text) => Some(text),
            _ => None,
        })
    }

    /// The Correlation Data.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.forwarded.iter().find_map(|property| match property {
            Property::CorrelationData(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// The User Properties.
    #[must_use]
    pub fn user_properties(&self) -> UserProperties<'a> {
        self.forwarded.user_properties()
    }

    /// Properties that are passed on are only checked here, not read: whoever wants one of them
    /// asks for it.
    #[inline]
    fn read(packet: &mut Reader<'a>) -> Result<Self, Violation> {
        let mut section = Section::read(packet)?;
        let mut properties = Self::default();
        let mut forwarded = Span::default();
        let mut subscription_identifiers = Span::default();
        while let Some(identifier) = section.next_identifier()? {
            let value = section.value();
            match identifier {
                identifier::USER_PROPERTY => {
                    // [MQTT-1.5.7-1]
                    value.skip_string()?;
                    value.skip_string()?;
                    section.select(&mut forwarded);
                }
                identifier::MESSAGE_EXPIRY_INTERVAL => {
                    properties.message_expiry_interval = Some(value.four_byte_integer()?);
                }
                identifier::CONTENT_TYPE => {
                    // [MQTT-3.3.2-19]
                    value.skip_string()?;
                    section.select(&mut forwarded);
                }
                identifier::CORRELATION_DATA => {
                    value.binary()?;
                    section.select(&mut forwarded);
                }
                _ => match Property::read_value(identifier, value)? {
                    Property::TopicAlias(alias) => properties.topic_alias = Some(alias),
                    Property::SubscriptionIdentifier(_) => {
                        section.select(&mut subscription_identifiers);
                    }
                    Property::PayloadFormatIndicator(indicator) => {
                        properties.payload_format_indicator = Some(indicator);
                        section.select(&mut forwarded);
                    }
                    Property::ResponseTopic(_) => section.select(&mut forwarded),
                    _ => return Err(Violation::PropertyNotAllowed),
                },
            }
        }
        properties.forwarded = Forwarded::new(section.selection(forwarded));
        properties.subscription_identifiers =
            SubscriptionIdentifiers::new(section.selection(subscription_identifiers));
        Ok(properties)
    }
}

impl Write for PublishProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        write_optional(
            out,
            self.message_expiry_interval,
            Property::MessageExpiryInterval,
        );
        write_optional(out, self.topic_alias, Property::TopicAlias);
        self.subscription_identifiers.write(out);
        self.forwarded.write(out);
    }
}

/// A topic name where a packet has one that must not be empty.
#[inline]
pub(super) fn topic_name(text: &str) -> Result<Name<'_>, Violation> {
    // [MQTT-3.3.2-2] [MQTT-3.3.2-2 3.1.1] [MQTT-4.7.3-1] [MQTT-4.7.3-1 3.1.1]
    Name::parse(text).map_err(topic_violation)
}

#[cold]
fn topic_violation(error: TopicError) -> Violation {
    match error {
        TopicError::Empty => Violation::TopicNameEmpty,
        TopicError::Nul => Violation::StringWithNul,
        TopicError::TooManyLevels => Violation::TopicNameTooManyLevels,
        _ => Violation::TopicNameWildcard,
    }
}

impl<'a> Publish<'a> {
    /// Decodes what follows the fixed header of a PUBLISH.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    #[inline]
    pub fn decode(version: Version, first_byte: u8, body: &'a [u8]) -> Result<Self, Violation> {
        // [MQTT-3.3.1-4] [MQTT-3.3.1-4 3.1.1]
        let qos = QoS::from_bits((first_byte >> 1) & 3).ok_or(Violation::QosThree)?;
        let dup = first_byte & 0b1000 != 0;
        // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1]
        if dup && qos == QoS::AtMostOnce {
            return Err(Violation::DupOnQosZero);
        }
        let mut reader = Reader::new(body);
        // [MQTT-3.3.2-1] [MQTT-3.3.2-1 3.1.1]
        let topic = reader.unchecked_topic()?;
        if !topic.is_empty() {
            topic_name(topic)?;
        }
        // [MQTT-2.2.1-2] [MQTT-2.3.1-5 3.1.1]
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
        };
        let properties = if version.is_v5() {
            PublishProperties::read(&mut reader)?
        } else {
            PublishProperties::default()
        };
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(if version.is_v5() {
                Violation::TopicNameMissing
            } else {
                Violation::TopicNameEmpty
            });
        }
        Ok(Self {
            dup,
            qos,
            retain: first_byte & 1 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        write_fixed_header(
            out,
            self.first_byte(),
            Body {
                version,
                packet: self,
            }
            .written_size(),
        );
        Body {
            version,
            packet: self,
        }
        .write(out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        let body = Body {
            version,
            packet: self,
        }
        .written_size();
        1 + variable_byte_integer_size(body) + body
    }

    fn first_byte(&self) -> u8 {
        first_byte(self.dup, self.qos, self.retain)
    }
}

#[inline]
fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1]: QoS 0 is never sent with DUP.
    let dup = dup && qos != QoS::AtMostOnce;
    PacketType::Publish.first_byte() | u8::from(dup) << 3 | qos.bits() << 1 | u8::from(retain)
}

struct Body<'a> {
    version: Version,
    packet: &'a Publish<'a>,
}

impl Write for Body<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        out.string(self.packet.topic);
        if let Some(packet_id) = self.packet.packet_id {
            out.two_byte_integer(packet_id.get());
        }
        if self.version.is_v5() {
            self.packet.properties.write_with_length(out);
        }
        out.bytes(self.packet.payload);
    }
}

/// A PUBLISH as the broker sends it: one wire layout, written once and copied for every receiver
/// that shares it, with the packet identifier patched in.
///
/// Its size is computed in closed form, because a fan-out asks for it per receiver (Maximum Packet
/// Size) and writes after that.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    /// Whose layout.
    pub version: Version,
    /// A retransmission.
    pub dup: bool,
    /// Quality of Service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// May be empty with a Topic Alias.
    pub topic: &'a str,
    /// Version 5 only.
    pub topic_alias: Option<u16>,
    /// Must be there if the QoS is not 0; is left out if it is.
    pub packet_id: Option<PacketId>,
    /// Seconds. Version 5 only.
    pub message_expiry_interval: Option<u32>,
    /// Of all matching subscriptions that have one. Version 5 only.
    pub subscription_identifiers: &'a [u32],
    /// The bytes of a [`Forwarded`]. Version 5 only.
    pub forwarded: &'a [u8],
    /// The application message.
    pub payload: &'a [u8],
}

impl PublishHead<'_> {
    /// Bytes of the packet, fixed header included. What is larger than
    /// [`MAX_PACKET_SIZE`](crate::limits::MAX_PACKET_SIZE) must not be encoded.
    #[must_use]
    #[inline]
    pub fn size(&self) -> usize {
        let body = self.body_size(self.properties_size());
        1 + variable_byte_integer_size(body) + body
    }

    /// Appends the packet to `out`. Returns where in `out` its packet identifier is, so that a copy
    /// of it can be given another one.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) -> Option<usize> {
        debug_assert_eq!(self.packet_id.is_some(), self.qos != QoS::AtMostOnce);
        let properties_size = self.properties_size();
        let body_size = self.body_size(properties_size);
        out.reserve(body_size + crate::limits::MAX_FIXED_HEADER as usize);
        write_fixed_header(out, first_byte(self.dup, self.qos, self.retain), body_size);
        out.string(self.topic);
        // [MQTT-2.2.1-2] [MQTT-2.3.1-5 3.1.1]
        let packet_id = match (self.qos, self.packet_id) {
            (QoS::AtMostOnce, _) | (_, None) => None,
            (_, Some(packet_id)) => {
                let offset = out.len();
                out.two_byte_integer(packet_id.get());
                Some(offset)
            }
        };
        if self.version.is_v5() {
            out.variable_byte_integer(properties_size);
            self.write_properties(out);
        }
        out.bytes(self.payload);
        packet_id
    }

    #[inline]
    fn body_size(&self, properties_size: usize) -> usize {
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = if self.version.is_v5() {
            variable_byte_integer_size(properties_size) + properties_size
        } else {
            0
        };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    /// Bytes of the properties, without the Property Length.
    #[inline]
    fn properties_size(&self) -> usize {
        if !self.version.is_v5() {
            return 0;
        }
        let expiry = if self.message_expiry_interval.is_some() {
            5
        } else {
            0
        };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let identifiers: usize = self
            .subscription_identifiers
            .iter()
            .map(|&value| 1 + variable_byte_integer_size(value as usize))
            .sum();
        expiry + alias + identifiers + self.forwarded.len()
    }

    #[inline]
    fn write_properties(&self, out: &mut Vec<u8>) {
        if let Some(seconds) = self.message_expiry_interval {
            out.byte(identifier::MESSAGE_EXPIRY_INTERVAL);
            out.four_byte_integer(seconds);
        }
        if let Some(alias) = self.topic_alias {
            out.byte(identifier::TOPIC_ALIAS);
            out.two_byte_integer(alias);
        }
        for &value in self.subscription_identifiers {
            out.byte(identifier::SUBSCRIPTION_IDENTIFIER);
            out.variable_byte_integer(value as usize);
        }
        out.bytes(self.forwarded);
    }
}
