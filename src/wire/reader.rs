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

    /// A UTF-8 Encoded String in which U+0000 has not been looked for: a topic name, whose own
    /// check finds it in the same pass.
    #[inline]
    pub(super) fn unchecked_topic(&mut self) -> Result<&'a str, Violation> {
        utf8(self.binary()?)
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
fn utf8(bytes: &[u8]) -> Result<&str, Violation> {
    // Below 64 bytes the vectorised check hands on to the standard library's, 2 ns later.
    let text = if bytes.len() < 64 {
        std::str::from_utf8(bytes).ok()
    } else {
        simdutf8::basic::from_utf8(bytes).ok()
    };
    // [MQTT-1.5.4-1] [MQTT-1.5.3-1 3.1.1]; both refuse the surrogates U+D800 to U+DFFF too.
    text.ok_or(Violation::StringNotUtf8)
}
