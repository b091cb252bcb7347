//! The data types of section 1.5, written.
//!
//! Packets carry the length of what follows, so every encoder runs twice over the same code: once
//! into a [`Counter`], once into the buffer. Length and bytes cannot disagree that way. PUBLISH, the
//! one packet where the second pass would be felt, computes its size in closed form.

use super::types::Version;
use crate::limits::{MAX_REMAINING_LENGTH, MAX_STRING};

/// Something that bytes are written to.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);
    fn byte(&mut self, byte: u8);

    #[inline]
    fn two_byte_integer(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn four_byte_integer(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A Variable Byte Integer, in as few bytes as possible [MQTT-1.5.5-1].
    #[inline]
    fn variable_byte_integer(&mut self, value: usize) {
        debug_assert!(
            value <= MAX_REMAINING_LENGTH as usize,
            "{value} is no length of a packet"
        );
        let mut rest = value;
        while rest >= 0x80 {
            self.byte((rest as u8) | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    /// Binary Data. What is longer than its length field can say is a bug of the caller; it is cut
    /// rather than sent as something else.
    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= MAX_STRING);
        let bytes = &bytes[..bytes.len().min(MAX_STRING)];
        self.two_byte_integer(bytes.len() as u16);
        self.bytes(bytes);
    }

    /// A UTF-8 Encoded String, cut like [`Sink::binary`] but never within a character.
    #[inline]
    fn string(&mut self, text: &str) {
        self.binary(&text.as_bytes()[..text.floor_char_boundary(MAX_STRING)]);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.push(byte);
    }
}

/// Counts what would be written.
#[derive(Default)]
pub(super) struct Counter(usize);

impl Sink for Counter {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    #[inline]
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }
}

/// Something that knows how it is written.
pub(super) trait Write {
    fn write<S: Sink>(&self, out: &mut S);

    /// How many bytes it writes.
    #[inline]
    fn written_size(&self) -> usize {
        let mut counter = Counter::default();
        self.write(&mut counter);
        counter.0
    }

    /// Writes it behind its length as a Variable Byte Integer: a property section
    /// ([MQTT-2.2.2-1]: a single zero where it is empty), or what follows a fixed header.
    #[inline]
    fn write_with_length<S: Sink>(&self, out: &mut S) {
        out.variable_byte_integer(self.written_size());
        self.write(out);
    }

    /// Appends the packet of which this is what follows the fixed header.
    #[inline]
    fn write_packet(&self, first_byte: u8, out: &mut Vec<u8>) {
        out.byte(first_byte);
        self.write_with_length(out);
    }

    /// Bytes of that packet, fixed header included.
    #[inline]
    fn packet_size(&self) -> usize {
        let body = self.written_size();
        1 + variable_byte_integer_size(body) + body
    }
}

/// A packet as it is written in one version: each kind of packet says how.
pub(super) struct Body<'a, P>(pub(super) Version, pub(super) &'a P);

/// Bytes that `value` takes as a Variable Byte Integer.
#[inline]
pub(super) const fn variable_byte_integer_size(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
