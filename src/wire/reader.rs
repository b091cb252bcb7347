//! The data types of section 1.5, read from the front of a byte slice.
//!
//! Invariant: what has been read and [`Reader::rest`] together are the slice it was made from, in
//! order; a read that fails says why, and the packet it was part of is refused whole.

use super::{PacketId, Violation};
use crate::topic::{any_word, high_bit, zero_byte};

/// Reads fields one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[inline]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next byte if it is 0: an empty property section, for one.
    #[inline]
    pub(super) fn take_zero(&mut self) -> bool {
        let zero = self.rest.strip_prefix(&[0]);
        if let Some(rest) = zero {
            self.rest = rest;
        }
        zero.is_some()
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses bytes behind the last field.
    #[inline]
    pub(super) const fn finish(self) -> Result<(), Violation> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Violation::TrailingBytes)
        }
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Violation> {
        let (&byte, rest) = self.rest.split_first().ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    /// A Two Byte Integer, section 1.5.2.
    #[inline]
    pub(super) fn two_byte_integer(&mut self) -> Result<u16, Violation> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A Four Byte Integer, section 1.5.3.
    #[inline]
    pub(super) fn four_byte_integer(&mut self) -> Result<u32, Violation> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A Variable Byte Integer, section 1.5.5.
    #[inline]
    pub(super) fn variable_byte_integer(&mut self) -> Result<u32, Violation> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        self.long_variable_byte_integer(first)
    }

    fn long_variable_byte_integer(&mut self, first: u8) -> Result<u32, Violation> {
        let mut value = u32::from(first & 0x7F);
        for shift in [7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                // [MQTT-1.5.5-1]
                return if byte == 0 {
                    Err(Violation::VariableByteIntegerNotMinimal)
                } else {
                    Ok(value)
                };
            }
        }
        Err(Violation::VariableByteIntegerTooLong)
    }

    /// Binary Data, section 1.5.6.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.two_byte_integer()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 Encoded String, section 1.5.4.
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, Violation> {
        text(self.binary()?)
    }

    /// A UTF-8 Encoded String that is checked and passed over. Most are ASCII without U+0000, which
    /// one look at each word tells.
    #[inline]
    pub(super) fn skip_string(&mut self) -> Result<(), Violation> {
        let bytes = self.binary()?;
        if any_word(bytes, |word| zero_byte(word) | high_bit(word)) {
            text(bytes)?;
        }
        Ok(())
    }
    /// A Packet Identifier.
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, Violation> {
        // [MQTT-2.2.1-3] [MQTT-2.2.1-4] [MQTT-2.3.1-1 3.1.1]
        PacketId::new(self.two_byte_integer()?).ok_or(Violation::PacketIdZero)
    }
}

/// Checks that bytes are a string as MQTT wants it. A BOM is kept: [MQTT-1.5.4-3] and
/// [MQTT-1.5.3-3 3.1.1].
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<&str, Violation> {
    let text = utf8(bytes)?;
    // [MQTT-1.5.4-2] [MQTT-1.5.3-2 3.1.1]
    if any_word(bytes, zero_byte) {
        Err(Violation::StringWithNul)
    } else {
        Ok(text)
    }
}

/// Checks that bytes are UTF-8, for whoever looks for U+0000 itself.
#[inline]
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Violation> {
    // Below 64 bytes the vectorised check hands on to the standard library's, 2 ns later.
    let text = if bytes.len() < 64 {
        std::str::from_utf8(bytes).ok()
    } else {
        simdutf8::basic::from_utf8(bytes).ok()
    };
    // [MQTT-1.5.4-1] [MQTT-1.5.3-1 3.1.1]; both refuse the surrogates U+D800 to U+DFFF too.
    text.ok_or(Violation::StringNotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_utf8_without_nul() {
        // [MQTT-1.5.4-1] [MQTT-1.5.3-1 3.1.1]: surrogates, overlong forms, beyond U+10FFFF.
        for bytes in [
            &b"\xED\xA0\x80"[..],
            b"\xED\xBF\xBF",
            b"\xC0\xAF",
            b"\xF4\x90\x80\x80",
            b"a\xFF",
        ] {
            assert_eq!(text(bytes), Err(Violation::StringNotUtf8), "{bytes:02X?}");
            let long = [&[b'x'; 80], bytes].concat();
            assert_eq!(text(&long), Err(Violation::StringNotUtf8), "{bytes:02X?}");
        }
        // [MQTT-1.5.4-2] [MQTT-1.5.3-2 3.1.1]
        for length in 1..40 {
            for place in 0..length {
                let mut bytes = vec![b'x'; length];
                bytes[place] = 0;
                assert_eq!(
                    text(&bytes),
                    Err(Violation::StringWithNul),
                    "{place} of {length}"
                );
            }
        }
        // [MQTT-1.5.4-3] [MQTT-1.5.3-3 3.1.1]
        assert_eq!(text(b"\xEF\xBB\xBFa"), Ok("\u{feff}a"));
        assert_eq!(text(b""), Ok(""));
    }

    #[test]
    fn variable_byte_integers_are_minimal_and_have_four_bytes() {
        let read = |bytes: &[u8]| Reader::new(bytes).variable_byte_integer();
        assert_eq!(read(&[0x7F]), Ok(127));
        assert_eq!(read(&[0x80, 0x01]), Ok(128));
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0x7F]), Ok(268_435_455));
        // [MQTT-1.5.5-1]
        for bytes in [
            &[0x80, 0x00][..],
            &[0xFF, 0x80, 0x00],
            &[0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(read(bytes), Err(Violation::VariableByteIntegerNotMinimal));
        }
        assert_eq!(read(&[0x80; 4]), Err(Violation::VariableByteIntegerTooLong));
        assert_eq!(read(&[0x80; 3]), Err(Violation::Truncated));
        assert_eq!(read(&[]), Err(Violation::Truncated));
    }

    #[test]
    fn a_packet_identifier_is_not_zero() {
        // [MQTT-2.2.1-3] [MQTT-2.2.1-4] [MQTT-2.3.1-1 3.1.1]
        assert_eq!(
            Reader::new(&[0, 0]).packet_id(),
            Err(Violation::PacketIdZero)
        );
        assert_eq!(Reader::new(&[0, 1]).packet_id(), Ok(PacketId::MIN));
        assert_eq!(Reader::new(&[1]).packet_id(), Err(Violation::Truncated));
    }

    proptest! {
        #[test]
        fn a_string_is_what_the_standard_library_takes_without_nul(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..90),
                prop::collection::vec(0_u8..4, 0..20),
                any::<String>().prop_map(String::into_bytes),
            ]
        ) {
            let expected = std::str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0'));
            prop_assert_eq!(text(&bytes).ok(), expected);
            let mut field = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            field.extend(&bytes);
            prop_assert_eq!(Reader::new(&field).skip_string().is_ok(), expected.is_some());
        }
    }
}
