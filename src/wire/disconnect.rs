//! DISCONNECT, section 3.14.

use super::acknowledge::reason_code;
use super::properties::{Property, Section, write_optional};
use super::reader::Reader;
use super::selection::Span;
use super::sink::{Body, Sink, Write};
use super::{PacketType, ReasonCode, UserProperties, Version, Violation};

/// A DISCONNECT packet. Before version 5 only a client sends it, and it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// Seconds. Only a client may send it [MQTT-3.14.2-2].
    pub session_expiry_interval: Option<u32>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
    /// Where to go instead.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let mut packet = Self::default();
        if reader.is_empty() {
            return Ok(packet);
        }
        if !version.is_v5() {
            return Err(Violation::TrailingBytes);
        }
        // [MQTT-3.14.2-1]
        packet.reason = reason_code(&mut reader, PacketType::Disconnect)?;
        if !reader.is_empty() {
            packet.read_properties(&mut reader)?;
        }
        reader.finish()?;
        Ok(packet)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), Violation> {
        let mut section = Section::read(reader)?;
        let mut user_properties = Span::default();
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiryInterval(seconds) => {
                    self.session_expiry_interval = Some(seconds);
                }
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(..) => section.select(&mut user_properties),
                Property::ServerReference(text) => self.server_reference = Some(text),
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = UserProperties::new(section.selection(user_properties));
        Ok(())
    }

    /// Appends the packet to `out`, in the shortest form there is.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        Body(version, self).write_packet(PacketType::Disconnect.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        Body(version, self).packet_size()
    }
}

impl Write for Body<'_, Disconnect<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        let bare = Properties(packet).written_size() == 0;
        if !version.is_v5() || (bare && packet.reason == ReasonCode::Success) {
            return;
        }
        out.byte(packet.reason.as_u8());
        if !bare {
            Properties(packet).write_with_length(out);
        }
    }
}

struct Properties<'a>(&'a Disconnect<'a>);

impl Write for Properties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        write_optional(
            out,
            self.0.session_expiry_interval,
            Property::SessionExpiryInterval,
        );
        write_optional(out, self.0.reason_string, Property::ReasonString);
        write_optional(out, self.0.server_reference, Property::ServerReference);
        self.0.user_properties.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_disconnect() {
        let normal = Disconnect::default();
        assert_eq!(Disconnect::decode(Version::V3_1_1, &[]), Ok(normal));
        assert_eq!(Disconnect::decode(Version::V5, &[]), Ok(normal));
        assert_eq!(Disconnect::decode(Version::V5, &[0]), Ok(normal));
        assert_eq!(Disconnect::decode(Version::V5, &[0, 0]), Ok(normal));
        let trailing = Disconnect::decode(Version::V3_1_1, &[0]);
        assert_eq!(trailing, Err(Violation::TrailingBytes));
        let trailing = Disconnect::decode(Version::V5, &[0, 0, 0]);
        assert_eq!(trailing, Err(Violation::TrailingBytes));
        let truncated = Disconnect::decode(Version::V5, &[0, 5, 0x11, 0]);
        assert_eq!(truncated, Err(Violation::Truncated));
    }

    #[test]
    fn reasons() {
        // [MQTT-3.14.2-1]
        let allowed = [
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
            0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1,
            0xA2,
        ];
        for code in 0..=u8::MAX {
            let body = [code];
            let decoded = Disconnect::decode(Version::V5, &body);
            if allowed.contains(&code) {
                assert_eq!(decoded.map(|packet| packet.reason.as_u8()), Ok(code));
            } else {
                assert_eq!(decoded, Err(Violation::ReasonCodeNotAllowed), "{code:02X}");
            }
        }
    }

    #[test]
    fn properties() {
        let body = b"\x04\x14\x11\0\0\0\x05\x1F\0\x01r\x1C\0\x01s\x26\0\x01a\0\x01b";
        let packet = Disconnect::decode(Version::V5, body).unwrap();
        assert_eq!(packet.reason, ReasonCode::DisconnectWithWillMessage);
        assert_eq!(packet.session_expiry_interval, Some(5));
        assert_eq!(
            (packet.reason_string, packet.server_reference),
            (Some("r"), Some("s"))
        );
        assert_eq!(
            packet.user_properties.iter().collect::<Vec<_>>(),
            [("a", "b")]
        );
        let mut out = Vec::new();
        packet.encode(Version::V5, &mut out);
        assert_eq!(out[2..], body[..]);
        let foreign = Disconnect::decode(Version::V5, &[0, 2, 0x01, 1]);
        assert_eq!(foreign, Err(Violation::PropertyNotAllowed));
    }
}
