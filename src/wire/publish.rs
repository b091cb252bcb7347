//! PUBLISH, section 3.3: the one packet whose cost is the broker's cost.

use super::properties::{Property, Section, identifier, write_optional};
use super::reader::{self, Reader};
use super::selection::Span;
use super::sink::{Body, Sink, Write, variable_byte_integer_size};
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
        if packet.take_zero() {
            return Ok(Self::default());
        }
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
        Self::decode_after(version, first_byte, body, "")
    }

    /// The same, where `known`, a topic name that was checked before, is likely to be the topic again.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    #[inline]
    pub fn decode_after(
        version: Version,
        first_byte: u8,
        body: &'a [u8],
        known: &'a str,
    ) -> Result<Self, Violation> {
        // [MQTT-3.3.1-4] [MQTT-3.3.1-4 3.1.1]
        let qos = QoS::from_bits((first_byte >> 1) & 3).ok_or(Violation::QosThree)?;
        let dup = first_byte & 0b1000 != 0;
        // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1]
        if dup && qos == QoS::AtMostOnce {
            return Err(Violation::DupOnQosZero);
        }
        let mut reader = Reader::new(body);
        // [MQTT-3.3.2-1] [MQTT-3.3.2-1 3.1.1]
        let topic = reader.binary()?;
        let topic = if topic == known.as_bytes() {
            known
        } else if topic.is_empty() {
            ""
        } else {
            topic_name(reader::utf8(topic)?)?.as_str()
        };
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
        Body(version, self).write_packet(self.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
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

impl Write for Body<'_, Publish<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        out.string(packet.topic);
        if let Some(packet_id) = packet.packet_id {
            out.two_byte_integer(packet_id.get());
        }
        if version.is_v5() {
            packet.properties.write_with_length(out);
        }
        out.bytes(packet.payload);
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
        out.byte(first_byte(self.dup, self.qos, self.retain));
        out.variable_byte_integer(body_size);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn v3(first_byte: u8, body: &[u8]) -> Result<Publish<'_>, Violation> {
        Publish::decode(Version::V3_1_1, first_byte, body)
    }

    fn v5(body: &[u8]) -> Result<Publish<'_>, Violation> {
        Publish::decode(Version::V5, 0x30, body)
    }

    #[test]
    fn fields_are_where_the_standard_puts_them() {
        // [MQTT-3.3.2-1] [MQTT-3.3.2-1 3.1.1]
        let publish = v3(0x3B, b"\x00\x03a/b\x00\x07on").unwrap();
        assert_eq!(
            (publish.dup, publish.qos, publish.retain),
            (true, QoS::AtLeastOnce, true)
        );
        assert_eq!((publish.topic, publish.payload), ("a/b", &b"on"[..]));
        assert_eq!(publish.packet_id, PacketId::new(7));
    }

    #[test]
    fn only_qos_1_and_2_have_a_packet_identifier() {
        // [MQTT-2.2.1-2] [MQTT-2.3.1-5 3.1.1]
        let publish = v3(0x30, b"\x00\x01a\x00\x07").unwrap();
        assert_eq!(
            (publish.packet_id, publish.payload),
            (None, &b"\x00\x07"[..])
        );
        // [MQTT-2.2.1-3] [MQTT-2.3.1-1 3.1.1]
        assert_eq!(v3(0x34, b"\x00\x01a\x00\x00"), Err(Violation::PacketIdZero));
        assert_eq!(v3(0x32, b"\x00\x01a\x00"), Err(Violation::Truncated));
    }

    #[test]
    fn impossible_flags() {
        // [MQTT-3.3.1-4] [MQTT-3.3.1-4 3.1.1]
        assert_eq!(v3(0x36, b"\x00\x01a\x00\x07"), Err(Violation::QosThree));
        // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1]
        assert_eq!(v3(0x38, b"\x00\x01a"), Err(Violation::DupOnQosZero));
    }

    #[test]
    fn a_topic_name_has_no_wildcards_and_is_not_empty() {
        // [MQTT-3.3.2-2] [MQTT-3.3.2-2 3.1.1]
        for body in [
            &b"\x00\x03a/+"[..],
            b"\x00\x01#",
            b"\x00\x03a#b",
            b"\x00\x0Dlong/enough/+/",
        ] {
            let violation = v3(0x30, body).unwrap_err();
            assert_eq!(violation, Violation::TopicNameWildcard);
            assert_eq!(
                violation.reason_code(),
                super::super::ReasonCode::TopicNameInvalid
            );
        }
        // [MQTT-4.7.3-1] [MQTT-4.7.3-1 3.1.1]
        assert_eq!(v3(0x30, b"\x00\x00"), Err(Violation::TopicNameEmpty));
        // [MQTT-4.7.3-2] [MQTT-4.7.3-2 3.1.1]
        assert_eq!(v3(0x30, b"\x00\x02a\x00"), Err(Violation::StringWithNul));
        // [MQTT-1.5.4-1] [MQTT-1.5.3-1 3.1.1]
        assert_eq!(
            v3(0x30, b"\x00\x03\xED\xA0\x80"),
            Err(Violation::StringNotUtf8)
        );
    }

    #[test]
    fn an_alias_may_stand_for_the_topic() {
        // [MQTT-3.3.2-8]
        assert_eq!(
            v5(b"\x00\x00\x03\x23\x00\x00"),
            Err(Violation::TopicAliasZero)
        );
        assert_eq!(v5(b"\x00\x00\x00"), Err(Violation::TopicNameMissing));
        let publish = v5(b"\x00\x00\x03\x23\x00\x05x").unwrap();
        assert_eq!(
            (publish.topic, publish.properties.topic_alias),
            ("", Some(5))
        );
    }

    #[test]
    fn properties_that_are_passed_on_come_out_as_they_went_in() {
        // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
        // [MQTT-3.3.2-20]: with the broker's own in front, between and behind.
        let properties =
            b"\x02\0\0\0\x09\x26\0\x01b\0\x01c\x01\x01\x23\0\x02\x26\0\x01a\0\x01z\x0B\x07\
            \x03\0\x01t\x08\0\x01r\x09\0\x01d\x0B\x08";
        let mut body = vec![0, 1, b'a', u8::try_from(properties.len()).unwrap()];
        body.extend_from_slice(properties);
        let publish = v5(&body).unwrap();
        let properties = publish.properties;
        assert_eq!(properties.message_expiry_interval, Some(9));
        assert_eq!(properties.topic_alias, Some(2));
        assert_eq!(properties.payload_format_indicator, Some(1));
        assert_eq!(
            properties
                .subscription_identifiers
                .iter()
                .collect::<Vec<_>>(),
            [7, 8]
        );
        assert_eq!(properties.content_type(), Some("t"));
        assert_eq!(properties.response_topic(), Some("r"));
        assert_eq!(properties.correlation_data(), Some(&b"d"[..]));
        let user: Vec<_> = properties.user_properties().iter().collect();
        assert_eq!(user, [("b", "c"), ("a", "z")]);
        let expected =
            b"\x26\0\x01b\0\x01c\x01\x01\x26\0\x01a\0\x01z\x03\0\x01t\x08\0\x01r\x09\0\x01d";
        let mut forwarded = Vec::new();
        properties.forwarded.write_to(&mut forwarded);
        assert_eq!(forwarded, expected);
        assert_eq!(properties.forwarded.as_contiguous(), None);
        assert_eq!(properties.forwarded, Forwarded::from_bytes(expected));
    }

    #[test]
    fn properties_in_one_run_are_not_copied() {
        let publish = v5(b"\x00\x01a\x0A\x02\0\0\0\x09\x01\x01\x23\0\x02x").unwrap();
        assert_eq!(
            publish.properties.forwarded.as_contiguous(),
            Some(&b"\x01\x01"[..])
        );
        let bare = v5(b"\x00\x01a\x00x").unwrap();
        assert!(bare.properties.forwarded.is_empty());
        assert_eq!(bare.properties.forwarded.as_contiguous(), Some(&b""[..]));
    }

    #[test]
    fn values_that_a_property_does_not_allow() {
        // [MQTT-3.3.2-14]
        assert_eq!(
            v5(b"\0\x01a\x04\x08\0\x01#"),
            Err(Violation::ResponseTopicInvalid)
        );
        // [MQTT-3.3.2-13]
        assert_eq!(
            v5(b"\0\x01a\x04\x08\0\x01\xFF"),
            Err(Violation::StringNotUtf8)
        );
        // [MQTT-3.3.2-19]
        assert_eq!(
            v5(b"\0\x01a\x04\x03\0\x01\xFF"),
            Err(Violation::StringNotUtf8)
        );
        // [MQTT-1.5.7-1]
        assert_eq!(
            v5(b"\0\x01a\x07\x26\0\x01\xFF\0\x01a"),
            Err(Violation::StringNotUtf8)
        );
        assert_eq!(
            v5(b"\0\x01a\x07\x26\0\x01a\0\x01\0"),
            Err(Violation::StringWithNul)
        );
        assert_eq!(v5(b"\0\x01a\x02\x01\x02"), Err(Violation::PropertyValue));
        assert_eq!(v5(b"\0\x01a\x02\x0B\0"), Err(Violation::PropertyValue));
    }

    #[test]
    fn properties_of_other_packets_and_of_none() {
        assert_eq!(
            v5(b"\0\x01a\x03\x21\0\x05"),
            Err(Violation::PropertyNotAllowed)
        );
        for unknown in [0x00, 0x04, 0x2B, 0x3F, 0x40, 0x7F, 0x80, 0xFF] {
            assert_eq!(
                v5(&[0, 1, b'a', 1, unknown]),
                Err(Violation::PropertyUnknown)
            );
        }
        assert_eq!(
            v5(b"\0\x01a\x04\x01\x01\x01\x01"),
            Err(Violation::PropertyTwice)
        );
        assert_eq!(v5(b"\0\x01a\x06\x01\x01"), Err(Violation::Truncated));
        assert_eq!(v5(b"\0\x01a"), Err(Violation::Truncated));
    }

    #[test]
    fn qos_0_is_sent_without_dup_and_identifier() {
        // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1] [MQTT-2.2.1-2] [MQTT-2.3.1-5 3.1.1]
        let mut publish = v3(0x3B, b"\x00\x01a\x00\x07on").unwrap();
        publish.qos = QoS::AtMostOnce;
        publish.packet_id = None;
        let mut out = Vec::new();
        publish.encode(Version::V3_1_1, &mut out);
        assert_eq!(out, b"\x31\x05\x00\x01aon");
    }

    #[test]
    fn the_packet_identifier_of_a_copy_can_be_patched() {
        let head = PublishHead {
            version: Version::V5,
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "a",
            topic_alias: Some(3),
            packet_id: PacketId::new(1),
            message_expiry_interval: Some(9),
            subscription_identifiers: &[200],
            forwarded: b"\x01\x01",
            payload: b"on",
        };
        let mut out = b"before".to_vec();
        let offset = head.encode(&mut out).unwrap();
        assert_eq!(out.len(), 6 + head.size());
        out[offset..offset + 2].copy_from_slice(&[0x12, 0x34]);
        let expected =
            b"before\x32\x15\0\x01a\x12\x34\x0D\x02\0\0\0\x09\x23\0\x03\x0B\xC8\x01\x01\x01on";
        assert_eq!(out, expected);
    }
}
