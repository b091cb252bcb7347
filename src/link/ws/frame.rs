//! Frames: RFC 6455, section 5.

use std::fmt;

use crate::limits::MAX_PACKET_SIZE;

/// A frame that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Text: MQTT is bytes [MQTT-6.0.0-1].
    Text,
    /// The client did not mask it, section 5.1.
    Unmasked,
    /// The server masked it, section 5.1.
    Masked,
    /// A reserved bit without an extension that gives it a meaning, section 5.2.
    ReservedBit,
    /// An opcode that does not exist.
    Opcode,
    /// A length that is written in more bytes than it needs, or in more than 63 bits.
    Length,
    /// Longer than any packet.
    TooLong,
    /// A control frame of more than 125 bytes, or in fragments, section 5.5.
    Control,
    /// A continuation of nothing, or a new message within one, section 5.4.
    Fragment,
    /// A farewell whose code does not exist, or with half a code, section 7.4.
    CloseCode,
    /// A farewell whose reason is no text.
    CloseReason,
}

impl Violation {
    /// What the client is told, section 7.4.1.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLong => 1009,
            Self::CloseReason => 1007,
            _ => 1002,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a frame of text; MQTT comes in binary frames",
            Self::Unmasked => "a frame without a mask",
            Self::Masked => "a frame of a server with a mask",
            Self::ReservedBit => "a reserved bit is set",
            Self::Opcode => "an unknown opcode",
            Self::Length => "a length that is not written as it must be",
            Self::TooLong => "a frame that is longer than any packet",
            Self::Control => "a control frame that is too long or in fragments",
            Self::Fragment => "fragments out of order",
            Self::CloseCode => "a farewell with a code that must not be sent",
            Self::CloseReason => "a farewell with a reason that is not UTF-8",
        })
    }
}

/// Code of an ordinary end.
pub(super) const NORMAL: u16 = 1000;

/// The kinds of frames that we send or take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opcode {
    Continuation = 0,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// Bytes of payload in a frame that is taken.
const MOST: u64 = MAX_PACKET_SIZE as u64;

/// Bytes of payload in a control frame.
const MOST_CONTROL: usize = 125;

/// Bytes of the longest header: two, a length in eight, the mask.
const HEADER: usize = 14;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Side {
    #[default]
    Server,
    Client,
}

/// Takes the frames of the other side apart, wherever they are cut.
///
/// Invariant: either the header is incomplete, or `left` bytes of the payload are to come.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    header: [u8; HEADER],
    header_length: u8,
    /// The frame whose payload comes.
    current: Option<Opcode>,
    left: u64,
    /// The mask, turned so that its first byte is for the next one of the payload.
    mask: [u8; 4],
    /// Whether a message has begun and not ended.
    fragmented: bool,
    /// Payload of a control frame.
    control: Vec<u8>,
    side: Side,
}

/// A complete header.
struct Header {
    opcode: Opcode,
    last: bool,
    length: u64,
    mask: [u8; 4],
    size: usize,
}

impl Decoder {
    /// Of a client.
    pub(super) fn of_client() -> Self {
        Self {
            side: Side::Client,
            ..Self::default()
        }
    }

    /// Takes bytes; puts payload behind `plain` and answers behind `reply`. Returns whether the client
    /// said farewell.
    pub(super) fn decode(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<bool, Violation> {
        loop {
            let opcode = match self.current {
                Some(opcode) => opcode,
                None => match self.begin(&mut bytes)? {
                    Some(opcode) => opcode,
                    None => return Ok(false),
                },
            };
            let length =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (payload, rest) = bytes.split_at(length);
            bytes = rest;
            self.left -= length as u64;
            let into = match opcode.is_control() {
                true => &mut self.control,
                false => &mut *plain,
            };
            unmask(payload, &mut self.mask, into);
            if self.left > 0 {
                return Ok(false);
            }
            self.current = None;
            if opcode.is_control() {
                let payload = std::mem::take(&mut self.control);
                match opcode {
                    Opcode::Ping => control(self.side, Opcode::Pong, &payload, reply),
                    Opcode::Close => {
                        control(self.side, Opcode::Close, close_code(&payload)?, reply);
                        return Ok(true);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Reads a header from the start of `bytes`; `None` if it is not complete.
    fn begin(&mut self, bytes: &mut &[u8]) -> Result<Option<Opcode>, Violation> {
        let header = if self.header_length == 0
            && let Some(header) = parse(bytes, self.side)?
        {
            *bytes = &bytes[header.size..];
            header
        } else {
            // Byte by byte: it is cut once in a read at most, and has 14 at most.
            loop {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return Ok(None);
                };
                self.header[usize::from(self.header_length)] = byte;
                self.header_length += 1;
                *bytes = rest;
                let begun = &self.header[..usize::from(self.header_length)];
                if let Some(header) = parse(begun, self.side)? {
                    self.header_length = 0;
                    break header;
                }
            }
        };
        if !header.opcode.is_control() {
            // A continuation goes on with a message, anything else begins one.
            if (header.opcode == Opcode::Continuation) != self.fragmented {
                return Err(Violation::Fragment);
            }
            self.fragmented = !header.last;
        }
        self.current = Some(header.opcode);
        self.left = header.length;
        self.mask = header.mask;
        Ok(self.current)
    }
}

/// Reads a header at the start of `bytes`; `None` if it is not complete. Rules are checked as soon as
/// what breaks them is there.
fn parse(bytes: &[u8], side: Side) -> Result<Option<Header>, Violation> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBit);
    }
    let last = first & 0x80 != 0;
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => return Err(Violation::Text), // [MQTT-6.0.0-1]
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Violation::Opcode),
    };
    if opcode.is_control() && !last {
        return Err(Violation::Control);
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    match (side, second & 0x80 != 0) {
        (Side::Server, false) => return Err(Violation::Unmasked),
        (Side::Client, true) => return Err(Violation::Masked),
        _ => {}
    }
    let (length, size) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|long| long.first_chunk::<8>()) {
            Some(long) => (u64::from_be_bytes(*long), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let least = match size {
        4 => 126,
        10 => 1 << 16,
        _ => 0,
    };
    if length < least || length >> 63 != 0 {
        return Err(Violation::Length);
    }
    if opcode.is_control() && length > MOST_CONTROL as u64 {
        return Err(Violation::Control);
    }
    if length > MOST {
        return Err(Violation::TooLong);
    }
    let (mask, size) = match side {
        Side::Server => {
            let mask = bytes.get(size..).and_then(|rest| rest.first_chunk::<4>());
            (mask.copied(), size + 4)
        }
        Side::Client => (Some([0; 4]), size),
    };
    Ok(mask.map(|mask| Header {
        opcode,
        last,
        length,
        mask,
        size,
    }))
}

/// Puts `payload` without its mask behind `into`, and turns the mask for what follows.
fn unmask(payload: &[u8], mask: &mut [u8; 4], into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(payload);
    let word = u32::from_ne_bytes(*mask);
    let wide = u64::from(word) << 32 | u64::from(word);
    let (words, rest) = into[start..].as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    mask.rotate_left(payload.len() % 4);
}

/// The code of a farewell, as it came; nothing if it has none.
fn close_code(payload: &[u8]) -> Result<&[u8], Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(&[]),
            _ => Err(Violation::CloseCode),
        };
    };
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(Violation::CloseCode),
    }
    match simdutf8::basic::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err(Violation::CloseReason),
    }
}

/// Puts a control frame behind `out`. That of a client has a mask that changes nothing: what is in it came from
/// the server, and no page can choose it.
pub(super) fn control(side: Side, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(opcode.is_control() && payload.len() <= MOST_CONTROL);
    let length = u8::try_from(payload.len()).unwrap_or(0);
    match side {
        Side::Server => out.extend_from_slice(&[0x80 | opcode as u8, length]),
        Side::Client => {
            out.extend_from_slice(&[0x80 | opcode as u8, 0x80 | length, 0, 0, 0, 0]);
        }
    }
    out.extend_from_slice(&payload[..usize::from(length)]);
}

/// Makes `bytes` the payload of one binary frame [MQTT-6.0.0-1], by putting the header in front.
pub fn frame(bytes: &mut Vec<u8>) {
    let (header, size) = binary(bytes.len());
    bytes.splice(0..0, header[..size].iter().copied());
}

/// The same as a client does it, with a mask.
pub(super) fn masked_frame(bytes: &mut Vec<u8>, mask: [u8; 4]) {
    let (mut header, size) = binary(bytes.len());
    header[1] |= 0x80;
    header[size..size + 4].copy_from_slice(&mask);
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    bytes.splice(0..0, header[..size + 4].iter().copied());
}

/// The header of a binary frame without a mask, with room for one, and how long it is.
fn binary(length: usize) -> ([u8; HEADER], usize) {
    const BINARY: u8 = 0x80 | Opcode::Binary as u8;
    let mut header = [0; HEADER];
    header[0] = BINARY;
    let size = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => {
            header[1] = length;
            2
        }
        (_, Ok(length)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (header, size)
}
