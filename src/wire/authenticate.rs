//! AUTH, section 3.15. Version 5 only.

use super::acknowledge::reason_code;
use super::properties::{Property, Section, write_optional};
use super::reader::Reader;
use super::selection::Span;
use super::sink::{Sink, Write};
use super::{PacketType, ReasonCode, UserProperties, Violation};

/// An AUTH packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step.
    pub reason: ReasonCode,
    /// Absent only where reason and properties were left out together (section 3.15.2.1).
    pub authentication_method: Option<&'a str>,
    /// What the method makes of it.
    pub authentication_data: Option<&'a [u8]>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let mut packet = Self::default();
        if reader.is_empty() {
            return Ok(packet);
        }
        // [MQTT-3.15.2-1]
        packet.reason = reason_code(&mut reader, PacketType::Auth)?;
        let mut section = Section::read(&mut reader)?;
        let mut user_properties = Span::default();
        while let Some(property) = section.next()? {
            match property {
                Property::AuthenticationMethod(text) => packet.authentication_method = Some(text),
                Property::AuthenticationData(data) => packet.authentication_data = Some(data),
                Property::ReasonString(text) => packet.reason_string = Some(text),
                Property::UserProperty(..) => section.select(&mut user_properties),
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        packet.user_properties = UserProperties::new(section.selection(user_properties));
        reader.finish()?;
        // Section 3.15.2.2.2: leaving out the method is a Protocol Error.
        if packet.authentication_method.is_none() {
            return Err(Violation::AuthenticationMethodMissing);
        }
        Ok(packet)
    }

    /// Appends the packet to `out`. Without a method only the short form of Success exists.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.authentication_method.is_some() || *self == Self::default());
        self.write_packet(PacketType::Auth.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.packet_size()
    }
}

impl Write for Auth<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if self.authentication_method.is_some() {
            out.byte(self.reason.as_u8());
            Properties(self).write_with_length(out);
        }
    }
}

struct Properties<'a>(&'a Auth<'a>);

impl Write for Properties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        write_optional(
            out,
            self.0.authentication_method,
            Property::AuthenticationMethod,
        );
        write_optional(
            out,
            self.0.authentication_data,
            Property::AuthenticationData,
        );
        write_optional(out, self.0.reason_string, Property::ReasonString);
        self.0.user_properties.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_an_auth() {
        assert_eq!(Auth::decode(&[]), Ok(Auth::default()));
        let auth = Auth::decode(b"\x18\x08\x15\0\x01m\x16\0\x01d").unwrap();
        assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
        assert_eq!(auth.authentication_method, Some("m"));
        assert_eq!(auth.authentication_data, Some(&b"d"[..]));
        assert_eq!(
            Auth::decode(&[0x18, 0]),
            Err(Violation::AuthenticationMethodMissing)
        );
        assert_eq!(Auth::decode(&[0x18]), Err(Violation::Truncated));
        assert_eq!(
            Auth::decode(b"\x18\x05\x11\0\0\0\x01"),
            Err(Violation::PropertyNotAllowed)
        );
        assert_eq!(
            Auth::decode(b"\x18\x04\x15\0\x01m\0"),
            Err(Violation::TrailingBytes)
        );
    }

    #[test]
    fn reasons() {
        // [MQTT-3.15.2-1]
        for code in 0..=u8::MAX {
            let body = [code, 4, 0x15, 0, 1, b'm'];
            assert_eq!(Auth::decode(&body).is_ok(), matches!(code, 0 | 0x18 | 0x19));
        }
    }
}
