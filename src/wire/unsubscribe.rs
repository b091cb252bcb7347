//! UNSUBSCRIBE and UNSUBACK, sections 3.10 and 3.11.

use super::acknowledge::{ReasonProperties, reason_properties};
use super::properties::{Property, Section};
use super::reader::Reader;
use super::selection::Span;
use super::sink::{Body, Sink, Write};
use super::{PacketId, PacketType, ReasonCode, UserProperties, Version, Violation};

/// An UNSUBSCRIBE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be repeated in the UNSUBACK.
    pub packet_id: PacketId,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
    /// What is unsubscribed from. At least one.
    pub filters: UnsubscribeFilters<'a>,
}

/// The filters of an UNSUBSCRIBE: strings, not yet topic filters, because each is answered by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a>(&'a [u8]);

impl<'a> UnsubscribeFilters<'a> {
    /// Filters that were put together with [`UnsubscribeFilters::push`].
    #[must_use]
    pub const fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Adds a filter to an UNSUBSCRIBE that is being put together.
    pub fn push(filter: &str, out: &mut Vec<u8>) {
        out.string(filter);
    }

    /// The filters, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || reader.string().ok())
    }
}

impl std::fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut user_properties = UserProperties::default();
        if version.is_v5() {
            let mut section = Section::read(&mut reader)?;
            let mut span = Span::default();
            while let Some(property) = section.next()? {
                match property {
                    Property::UserProperty(..) => section.select(&mut span),
                    _ => return Err(Violation::PropertyNotAllowed),
                }
            }
            user_properties = UserProperties::new(section.selection(span));
        }
        // [MQTT-3.10.3-2] [MQTT-3.10.3-2 3.1.1]
        if reader.is_empty() {
            return Err(Violation::NoTopicFilter);
        }
        let filters = UnsubscribeFilters(reader.rest());
        while !reader.is_empty() {
            // [MQTT-3.10.3-1] [MQTT-3.10.3-1 3.1.1]
            reader.string()?;
        }
        Ok(Self {
            packet_id,
            user_properties,
            filters,
        })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        Body(version, self).write_packet(PacketType::Unsubscribe.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
    }
}

impl Write for Body<'_, Unsubscribe<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        out.two_byte_integer(packet.packet_id.get());
        if version.is_v5() {
            packet.user_properties.write_with_length(out);
        }
        for filter in packet.filters.iter() {
            out.string(filter);
        }
    }
}

/// An UNSUBACK packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
    /// One [`ReasonCode`] byte per filter, in the order of the UNSUBSCRIBE [MQTT-3.11.3-1]. Before
    /// version 5 there are none: they are not sent, and empty when decoded.
    pub codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if !version.is_v5() {
            reader.finish()?;
            let user_properties = UserProperties::default();
            return Ok(Self {
                packet_id,
                reason_string: None,
                user_properties,
                codes: &[],
            });
        }
        let (reason_string, user_properties) = reason_properties(&mut reader)?;
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(Violation::NoReasonCode);
        }
        // [MQTT-3.11.3-2]
        let allowed = |&code: &u8| {
            ReasonCode::from_u8(code).is_some_and(|code| code.is_allowed_in(PacketType::UnsubAck))
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
        Body(version, self).write_packet(PacketType::UnsubAck.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
    }
}

impl Write for Body<'_, UnsubAck<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        // [MQTT-3.10.4-5] [MQTT-3.10.4-4 3.1.1]
        out.two_byte_integer(packet.packet_id.get());
        if version.is_v5() {
            ReasonProperties {
                reason_string: packet.reason_string,
                user_properties: packet.user_properties,
            }
            .write_with_length(out);
            out.bytes(packet.codes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let unsubscribe = Unsubscribe::decode(Version::V5, b"\0\x01\0\0\x01a\0\x01#").unwrap();
        assert_eq!(unsubscribe.filters.iter().collect::<Vec<_>>(), ["a", "#"]);
        // [MQTT-3.10.3-2] [MQTT-3.10.3-2 3.1.1]
        let empty = Unsubscribe::decode(Version::V3_1_1, b"\0\x01");
        assert_eq!(empty, Err(Violation::NoTopicFilter));
        let empty = Unsubscribe::decode(Version::V5, b"\0\x01\0");
        assert_eq!(empty, Err(Violation::NoTopicFilter));
        // [MQTT-3.10.3-1] [MQTT-3.10.3-1 3.1.1]
        let broken = Unsubscribe::decode(Version::V3_1_1, b"\0\x01\0\x01a\0\x01\xFF");
        assert_eq!(broken, Err(Violation::StringNotUtf8));
        // [MQTT-2.2.1-3] [MQTT-2.3.1-1 3.1.1]
        let zero = Unsubscribe::decode(Version::V3_1_1, b"\0\0\0\x01a");
        assert_eq!(zero, Err(Violation::PacketIdZero));
        let foreign = Unsubscribe::decode(Version::V5, b"\0\x01\x02\x0B\x01\0\x01a");
        assert_eq!(foreign, Err(Violation::PropertyNotAllowed));
    }

    #[test]
    fn unsuback_codes() {
        // [MQTT-3.11.3-2]
        let allowed = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
        for code in 0..=u8::MAX {
            let decoded = UnsubAck::decode(Version::V5, &[0, 1, 0, code]).map(|_| ());
            assert_eq!(decoded.is_ok(), allowed.contains(&code), "{code:02X}");
        }
        assert_eq!(
            UnsubAck::decode(Version::V5, &[0, 1, 0]),
            Err(Violation::NoReasonCode)
        );
        let trailing = UnsubAck::decode(Version::V3_1_1, &[0, 1, 0]);
        assert_eq!(trailing, Err(Violation::TrailingBytes));
    }

    #[test]
    fn unsuback_keeps_the_order_and_3_1_1_has_no_codes() {
        // [MQTT-3.10.4-5] [MQTT-3.10.4-4 3.1.1] [MQTT-3.11.3-1]
        let unsuback = UnsubAck {
            packet_id: PacketId::MIN,
            reason_string: None,
            user_properties: UserProperties::default(),
            codes: &[0x11, 0, 0x87],
        };
        let mut out = Vec::new();
        unsuback.encode(Version::V5, &mut out);
        unsuback.encode(Version::V3_1_1, &mut out);
        assert_eq!(out, [0xB0, 6, 0, 1, 0, 0x11, 0, 0x87, 0xB0, 2, 0, 1]);
    }
}
