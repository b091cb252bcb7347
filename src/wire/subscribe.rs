//! SUBSCRIBE and SUBACK, sections 3.8 and 3.9.

use super::acknowledge::{ReasonProperties, reason_properties};
use super::properties::{Property, Section, write_optional};
use super::reader::Reader;
use super::selection::Span;
use super::sink::{Body, Sink, Write};
use super::{PacketId, PacketType, QoS, ReasonCode, UserProperties, Version, Violation};
use crate::topic::SHARE_PREFIX;

/// Which retained messages a subscription brings.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// All that match.
    #[default]
    Send = 0,
    /// All that match if the subscription is new.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

/// Subscription Options, section 3.8.3.1. Before version 5 there is only the QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS that messages are to be sent with.
    pub qos: QoS,
    /// Leave out what the subscriber published itself.
    pub no_local: bool,
    /// Forward RETAIN as it was published.
    pub retain_as_published: bool,
    /// Which retained messages to send now.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// Reads the byte behind a topic filter.
    ///
    /// # Errors
    /// Reserved bits, or a value of 3 where none is defined.
    pub const fn from_byte(version: Version, byte: u8) -> Result<Self, Violation> {
        // [MQTT-3.8.3-5]; section 3.8.3 of 3.1.1 says it with a broken number.
        let reserved = if version.is_v5() {
            0b1100_0000
        } else {
            0b1111_1100
        };
        if byte & reserved != 0 {
            return Err(Violation::SubscriptionOptionsReserved);
        }
        let Some(qos) = QoS::from_bits(byte & 3) else {
            return Err(Violation::SubscriptionQosThree);
        };
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Violation::RetainHandlingThree),
        };
        Ok(Self {
            qos,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }

    /// The byte behind a topic filter.
    #[must_use]
    pub const fn to_byte(self, version: Version) -> u8 {
        if !version.is_v5() {
            return self.qos.bits();
        }
        self.qos.bits()
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// A SUBSCRIBE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be repeated in the SUBACK.
    pub packet_id: PacketId,
    /// Never zero.
    pub subscription_identifier: Option<u32>,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
    /// What is subscribed to. At least one.
    pub filters: SubscribeFilters<'a>,
}

/// The filters of a SUBSCRIBE: strings, not yet topic filters, because each is answered by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    version: Version,
    bytes: &'a [u8],
}

impl<'a> SubscribeFilters<'a> {
    /// Filters that were put together with [`SubscribeFilters::push`].
    #[must_use]
    pub const fn from_bytes(version: Version, bytes: &'a [u8]) -> Self {
        Self { version, bytes }
    }

    /// Adds a filter to a SUBSCRIBE that is being put together.
    pub fn push(version: Version, filter: &str, options: SubscriptionOptions, out: &mut Vec<u8>) {
        out.string(filter);
        out.byte(options.to_byte(version));
    }

    /// Filters and options, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> + use<'a> {
        let version = self.version;
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || read_filter(version, &mut reader).ok())
    }
}

impl std::fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

fn read_filter<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<(&'a str, SubscriptionOptions), Violation> {
    // [MQTT-3.8.3-1] [MQTT-3.8.3-1 3.1.1]
    let filter = reader.string()?;
    let options = SubscriptionOptions::from_byte(version, reader.byte()?)?;
    // [MQTT-3.8.3-4]
    if options.no_local && filter.starts_with(SHARE_PREFIX) {
        return Err(Violation::NoLocalOnSharedSubscription);
    }
    Ok((filter, options))
}

impl<'a> Subscribe<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut subscription_identifier = None;
        let mut user_properties = UserProperties::default();
        if version.is_v5() {
            let mut section = Section::read(&mut reader)?;
            let mut span = Span::default();
            while let Some(property) = section.next()? {
                match property {
                    Property::SubscriptionIdentifier(identifier) => {
                        if subscription_identifier.replace(identifier).is_some() {
                            return Err(Violation::PropertyTwice);
                        }
                    }
                    Property::UserProperty(..) => section.select(&mut span),
                    _ => return Err(Violation::PropertyNotAllowed),
                }
            }
            user_properties = UserProperties::new(section.selection(span));
        }
        // [MQTT-3.8.3-2] [MQTT-3.8.3-3 3.1.1]
        if reader.is_empty() {
            return Err(Violation::NoTopicFilter);
        }
        let filters = SubscribeFilters {
            version,
            bytes: reader.rest(),
        };
        while !reader.is_empty() {
            read_filter(version, &mut reader)?;
        }
        Ok(Self {
            packet_id,
            subscription_identifier,
            user_properties,
            filters,
        })
    }

    /// Appends the packet to `out`; the filters must have been put together for this version.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        Body(version, self).write_packet(PacketType::Subscribe.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
    }
}

impl Write for Body<'_, Subscribe<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        out.two_byte_integer(packet.packet_id.get());
        if version.is_v5() {
            SubscribeProperties(packet).write_with_length(out);
        }
        for (filter, options) in packet.filters.iter() {
            out.string(filter);
            out.byte(options.to_byte(version));
        }
    }
}

struct SubscribeProperties<'a>(&'a Subscribe<'a>);

impl Write for SubscribeProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        write_optional(
            out,
            self.0.subscription_identifier,
            Property::SubscriptionIdentifier,
        );
        self.0.user_properties.write(out);
    }
}

/// A SUBACK packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
    /// One [`ReasonCode`] byte of version 5 per filter, in the order of the SUBSCRIBE
    /// ([MQTT-3.9.3-1] [MQTT-3.9.3-1 3.1.1]). Every error is 0x80 before version 5.
    pub codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (reason_string, user_properties) = if version.is_v5() {
            reason_properties(&mut reader)?
        } else {
            Default::default()
        };
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(Violation::NoReasonCode);
        }
        // [MQTT-3.9.3-2] [MQTT-3.9.3-2 3.1.1]
        let allowed = |&code: &u8| {
            if version.is_v5() {
                ReasonCode::from_u8(code).is_some_and(|code| code.is_allowed_in(PacketType::SubAck))
            } else {
                matches!(code, 0..=2 | 0x80)
            }
        };
        if !codes.iter().all(allowed) {
            return Err(Violation::ReasonCodeNotAllowed);
        }
        Ok(Self {
            packet_id,
            reason_string,
            user_properties,
            codes,
        })
    }

    /// The answers, one per filter.
    pub fn reasons(&self) -> impl Iterator<Item = ReasonCode> + use<'a> {
        self.codes
            .iter()
            .filter_map(|&code| ReasonCode::from_u8(code))
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        Body(version, self).write_packet(PacketType::SubAck.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
    }
}

impl Write for Body<'_, SubAck<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        // [MQTT-3.8.4-2] [MQTT-3.8.4-2 3.1.1]
        out.two_byte_integer(packet.packet_id.get());
        if version.is_v5() {
            ReasonProperties {
                reason_string: packet.reason_string,
                user_properties: packet.user_properties,
            }
            .write_with_length(out);
            out.bytes(packet.codes);
        } else {
            // [MQTT-3.9.3-2 3.1.1]
            for &code in packet.codes {
                out.byte(if code < 0x80 { code } else { 0x80 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v3(body: &[u8]) -> Result<Subscribe<'_>, Violation> {
        Subscribe::decode(Version::V3_1_1, body)
    }

    fn v5(body: &[u8]) -> Result<Subscribe<'_>, Violation> {
        Subscribe::decode(Version::V5, body)
    }

    #[test]
    fn filters_and_options() {
        let body = b"\0\x01\x03\x0B\xC8\x01\0\x01a\x2D\0\x01#\x12";
        let subscribe = v5(body).unwrap();
        assert_eq!(subscribe.subscription_identifier, Some(200));
        let all = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        let second = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            retain_handling: RetainHandling::SendIfNew,
            ..SubscriptionOptions::default()
        };
        assert_eq!(
            subscribe.filters.iter().collect::<Vec<_>>(),
            [("a", all), ("#", second)]
        );
    }

    #[test]
    fn a_subscribe_that_breaks_a_rule() {
        // [MQTT-3.8.3-2] [MQTT-3.8.3-3 3.1.1]
        assert_eq!(v3(b"\0\x01"), Err(Violation::NoTopicFilter));
        assert_eq!(v5(b"\0\x01\0"), Err(Violation::NoTopicFilter));
        // [MQTT-2.2.1-3] [MQTT-2.3.1-1 3.1.1]
        assert_eq!(v3(b"\0\0\0\x01a\0"), Err(Violation::PacketIdZero));
        // [MQTT-3.8.3-1] [MQTT-3.8.3-1 3.1.1]
        assert_eq!(v3(b"\0\x01\0\x01\xFF\0"), Err(Violation::StringNotUtf8));
        assert_eq!(v5(b"\0\x01\0\0\x01\0\0"), Err(Violation::StringWithNul));
        // [MQTT-3.8.3-4]
        let shared = v5(b"\0\x01\0\0\x0A$share/g/a\x04");
        assert_eq!(shared, Err(Violation::NoLocalOnSharedSubscription));
        // The second filter is looked at as the first is.
        assert_eq!(v3(b"\0\x01\0\x01a\0\0\x01b"), Err(Violation::Truncated));
        assert_eq!(
            v3(b"\0\x01\0\x01a\0\0\x01b\x03"),
            Err(Violation::SubscriptionQosThree)
        );
    }

    #[test]
    fn every_byte_of_options() {
        // [MQTT-3.8.3-5]; section 3.8.3 of 3.1.1 says it with a broken number.
        for byte in 0..=u8::MAX {
            let v3 = SubscriptionOptions::from_byte(Version::V3_1_1, byte);
            match byte {
                0..=2 => assert_eq!(v3.unwrap().to_byte(Version::V3_1_1), byte),
                3 => assert_eq!(v3, Err(Violation::SubscriptionQosThree)),
                _ => assert_eq!(v3, Err(Violation::SubscriptionOptionsReserved)),
            }
            let v5 = SubscriptionOptions::from_byte(Version::V5, byte);
            match (byte >> 6, byte >> 4 & 3, byte & 3) {
                (1.., ..) => assert_eq!(v5, Err(Violation::SubscriptionOptionsReserved)),
                (_, _, 3) => assert_eq!(v5, Err(Violation::SubscriptionQosThree)),
                (_, 3, _) => assert_eq!(v5, Err(Violation::RetainHandlingThree)),
                _ => assert_eq!(v5.unwrap().to_byte(Version::V5), byte),
            }
        }
    }

    #[test]
    fn properties_of_a_subscribe() {
        let twice = v5(b"\0\x01\x04\x0B\x01\x0B\x01\0\x01a\0");
        assert_eq!(twice, Err(Violation::PropertyTwice));
        let zero = v5(b"\0\x01\x02\x0B\0\0\x01a\0");
        assert_eq!(zero, Err(Violation::PropertyValue));
        let foreign = v5(b"\0\x01\x02\x01\x01\0\x01a\0");
        assert_eq!(foreign, Err(Violation::PropertyNotAllowed));
    }

    #[test]
    fn suback_codes() {
        // [MQTT-3.9.3-2] [MQTT-3.9.3-2 3.1.1]
        let allowed = [
            0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ];
        for code in 0..=u8::MAX {
            let v5 = SubAck::decode(Version::V5, &[0, 1, 0, code]).map(|_| ());
            let v3 = SubAck::decode(Version::V3_1_1, &[0, 1, code]).map(|_| ());
            assert_eq!(v5.is_ok(), allowed.contains(&code), "{code:02X}");
            assert_eq!(v3.is_ok(), matches!(code, 0..=2 | 0x80), "{code:02X}");
        }
        assert_eq!(
            SubAck::decode(Version::V5, &[0, 1, 0]),
            Err(Violation::NoReasonCode)
        );
    }

    #[test]
    fn suback_keeps_the_order_and_3_1_1_knows_one_failure() {
        // [MQTT-3.8.4-2] [MQTT-3.8.4-2 3.1.1] [MQTT-3.9.3-1] [MQTT-3.9.3-1 3.1.1]
        // [MQTT-3.9.3-2 3.1.1]
        let suback = SubAck {
            packet_id: PacketId::MIN,
            reason_string: None,
            user_properties: UserProperties::default(),
            codes: &[1, 0x87, 0, 0x8F, 2],
        };
        let mut out = Vec::new();
        suback.encode(Version::V5, &mut out);
        suback.encode(Version::V3_1_1, &mut out);
        let expected = [
            0x90, 8, 0, 1, 0, 1, 0x87, 0, 0x8F, 2, 0x90, 7, 0, 1, 1, 0x80, 0, 0x80, 2,
        ];
        assert_eq!(out, expected);
    }
}
