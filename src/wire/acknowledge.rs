//! PUBACK, PUBREC, PUBREL and PUBCOMP, sections 3.4 to 3.7: one layout, four types.

use super::properties::{Property, Section, write_optional};
use super::reader::Reader;
use super::selection::Span;
use super::sink::{Body, Sink, Write};
use super::{PacketId, PacketType, ReasonCode, UserProperties, Version, Violation};

/// Which of the four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// The answer to a PUBLISH of QoS 1.
    PubAck,
    /// The answer to a PUBLISH of QoS 2.
    PubRec,
    /// The answer to a PUBREC.
    PubRel,
    /// The answer to a PUBREL.
    PubComp,
}

impl AckKind {
    /// The one whose packets begin with `first_byte`.
    #[must_use]
    #[inline]
    pub const fn from_first_byte(first_byte: u8) -> Option<Self> {
        match first_byte {
            0x40 => Some(Self::PubAck),
            0x50 => Some(Self::PubRec),
            0x62 => Some(Self::PubRel),
            0x70 => Some(Self::PubComp),
            _ => None,
        }
    }

    /// Its packet type.
    #[must_use]
    #[inline]
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::PubAck => PacketType::PubAck,
            Self::PubRec => PacketType::PubRec,
            Self::PubRel => PacketType::PubRel,
            Self::PubComp => PacketType::PubComp,
        }
    }
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Of the PUBLISH it belongs to.
    pub packet_id: PacketId,
    /// Always [`ReasonCode::Success`] before version 5.
    pub reason: ReasonCode,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// Bytes of the shortest form, which says success.
    pub const SHORTEST: usize = 4;

    /// An acknowledgement with nothing but its reason.
    #[must_use]
    #[inline]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            reason_string: None,
            user_properties: UserProperties::default(),
        }
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    #[inline]
    pub fn decode(kind: AckKind, version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::Success);
        if reader.is_empty() {
            return Ok(ack);
        }
        if !version.is_v5() {
            return Err(Violation::TrailingBytes);
        }
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        ack.reason = reason_code(&mut reader, kind.packet_type())?;
        if !reader.is_empty() {
            (ack.reason_string, ack.user_properties) = reason_properties(&mut reader)?;
        }
        reader.finish()?;
        Ok(ack)
    }

    /// Appends the packet to `out`, in the shortest form there is.
    #[inline]
    pub fn encode(&self, kind: AckKind, version: Version, out: &mut Vec<u8>) {
        let first_byte = kind.packet_type().first_byte();
        let [high, low] = self.packet_id.get().to_be_bytes();
        let bare = self.reason_string.is_none() && self.user_properties.is_empty();
        if !version.is_v5() || (bare && self.reason == ReasonCode::Success) {
            return out.extend_from_slice(&[first_byte, 2, high, low]);
        }
        Body(version, self).write_packet(first_byte, out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
    }
}

/// Acknowledgements of one kind in a row, each in its shortest form, which says success: what a busy
/// client answers to most of what it gets, and worth taking together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRun<'a> {
    kind: AckKind,
    packets: &'a [[u8; Ack::SHORTEST]],
}

impl<'a> AckRun<'a> {
    /// Those at the start of `bytes`, `None` if there is none.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let &first_byte = bytes.first()?;
        let kind = AckKind::from_first_byte(first_byte)?;
        let (packets, _) = bytes.as_chunks();
        let end = packets.iter().position(|&[first, length, high, low]| {
            first != first_byte || length != 2 || (high, low) == (0, 0)
        });
        let packets = &packets[..end.unwrap_or(packets.len())];
        (!packets.is_empty()).then_some(Self { kind, packets })
    }

    /// Which of the four they are.
    #[must_use]
    pub const fn kind(&self) -> AckKind {
        self.kind
    }

    /// How many they are, at least 1.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.packets.len()
    }

    /// How many bytes they are.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.packets.as_flattened().len()
    }

    /// What they acknowledge.
    pub fn packet_ids(&self) -> impl Iterator<Item = PacketId> + use<'a> {
        let identifiers = self.packets.iter();
        identifiers.filter_map(|&[_, _, high, low]| PacketId::new(u16::from_be_bytes([high, low])))
    }
}

/// Reads a reason code that a packet of this type may carry.
#[inline]
pub(super) fn reason_code(
    reader: &mut Reader<'_>,
    packet: PacketType,
) -> Result<ReasonCode, Violation> {
    ReasonCode::from_u8(reader.byte()?)
        .filter(|code| code.is_allowed_in(packet))
        .ok_or(Violation::ReasonCodeNotAllowed)
}

/// Reads a property section that holds a Reason String and User Properties at most.
pub(super) fn reason_properties<'a>(
    reader: &mut Reader<'a>,
) -> Result<(Option<&'a str>, UserProperties<'a>), Violation> {
    let mut section = Section::read(reader)?;
    let mut reason_string = None;
    let mut user_properties = Span::default();
    while let Some(property) = section.next()? {
        match property {
            Property::ReasonString(text) => reason_string = Some(text),
            Property::UserProperty(..) => section.select(&mut user_properties),
            _ => return Err(Violation::PropertyNotAllowed),
        }
    }
    Ok((
        reason_string,
        UserProperties::new(section.selection(user_properties)),
    ))
}

/// Writes what [`reason_properties`] reads, the Property Length included.
pub(super) struct ReasonProperties<'a> {
    pub(super) reason_string: Option<&'a str>,
    pub(super) user_properties: UserProperties<'a>,
}

impl ReasonProperties<'_> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

impl Write for ReasonProperties<'_> {
    #[inline]
    fn write<S: Sink>(&self, out: &mut S) {
        write_optional(out, self.reason_string, Property::ReasonString);
        self.user_properties.write(out);
    }
}

impl Write for Body<'_, Ack<'_>> {
    #[inline]
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, ack) = self;
        out.two_byte_integer(ack.packet_id.get());
        let properties = ReasonProperties {
            reason_string: ack.reason_string,
            user_properties: ack.user_properties,
        };
        let bare = properties.is_empty();
        if !version.is_v5() || (bare && ack.reason == ReasonCode::Success) {
            return;
        }
        out.byte(ack.reason.as_u8());
        if !bare {
            properties.write_with_length(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [AckKind; 4] = [
        AckKind::PubAck,
        AckKind::PubRec,
        AckKind::PubRel,
        AckKind::PubComp,
    ];

    #[test]
    fn reason_and_properties_may_be_left_out() {
        for kind in KINDS {
            let bare = Ack::new(PacketId::MIN, ReasonCode::Success);
            assert_eq!(Ack::decode(kind, Version::V5, &[0, 1]), Ok(bare));
            assert_eq!(Ack::decode(kind, Version::V5, &[0, 1, 0]), Ok(bare));
            assert_eq!(Ack::decode(kind, Version::V5, &[0, 1, 0, 0]), Ok(bare));
            assert_eq!(Ack::decode(kind, Version::V3_1_1, &[0, 1]), Ok(bare));
            let trailing = Ack::decode(kind, Version::V3_1_1, &[0, 1, 0]);
            assert_eq!(trailing, Err(Violation::TrailingBytes));
            assert_eq!(
                Ack::decode(kind, Version::V5, &[0, 0]),
                Err(Violation::PacketIdZero)
            );
            let trailing = Ack::decode(kind, Version::V5, &[0, 1, 0, 0, 0]);
            assert_eq!(trailing, Err(Violation::TrailingBytes));
        }
    }

    #[test]
    fn each_kind_has_its_reason_codes() {
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        let publish = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        for kind in KINDS {
            let allowed: &[u8] = match kind {
                AckKind::PubAck | AckKind::PubRec => &publish,
                AckKind::PubRel | AckKind::PubComp => &[0x00, 0x92],
            };
            for code in 0..=u8::MAX {
                let body = [0, 1, code];
                let decoded = Ack::decode(kind, Version::V5, &body);
                if allowed.contains(&code) {
                    assert_eq!(decoded.map(|ack| ack.reason.as_u8()), Ok(code));
                } else {
                    assert_eq!(
                        decoded,
                        Err(Violation::ReasonCodeNotAllowed),
                        "{kind:?} {code}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_shortest_form_is_sent() {
        let mut out = Vec::new();
        let refused = Ack::new(PacketId::MIN, ReasonCode::QuotaExceeded);
        refused.encode(AckKind::PubRec, Version::V5, &mut out);
        refused.encode(AckKind::PubRec, Version::V3_1_1, &mut out);
        let released = Ack::new(PacketId::MIN, ReasonCode::Success);
        released.encode(AckKind::PubRel, Version::V5, &mut out);
        Ack {
            reason_string: Some("x"),
            ..released
        }
        .encode(AckKind::PubComp, Version::V5, &mut out);
        let expected =
            b"\x50\x03\0\x01\x97\x50\x02\0\x01\x62\x02\0\x01\x70\x08\0\x01\0\x04\x1F\0\x01x";
        assert_eq!(out, expected);
    }

    #[test]
    fn properties_of_an_acknowledgement() {
        let body = b"\0\x01\x00\x12\x26\0\x01a\0\x01b\x1F\0\x01r\x26\0\x01c\0\x01d";
        let ack = Ack::decode(AckKind::PubAck, Version::V5, body).unwrap();
        assert_eq!(ack.reason_string, Some("r"));
        assert_eq!(
            ack.user_properties.iter().collect::<Vec<_>>(),
            [("a", "b"), ("c", "d")]
        );
        assert_eq!(ack.user_properties.len(), 14);
        let body = b"\0\x01\x00\x03\x23\0\x01";
        let foreign = Ack::decode(AckKind::PubAck, Version::V5, body);
        assert_eq!(foreign, Err(Violation::PropertyNotAllowed));
    }
}
