//! Where one packet ends and the next begins.
//!
//! Owns the fixed header, section 2.1. It trusts no length: a packet is refused for its size as soon
//! as its fixed header is there, before anybody holds a byte of the rest, and for its first byte as
//! soon as that byte is there.

use super::Violation;

/// A type of MQTT Control Packet, table 2-1.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// CONNECT: a client asks to connect.
    Connect = 1,
    /// CONNACK: the answer to it.
    ConnAck = 2,
    /// PUBLISH: an application message.
    Publish = 3,
    /// PUBACK: the answer to a PUBLISH of QoS 1.
    PubAck = 4,
    /// PUBREC: the answer to a PUBLISH of QoS 2.
    PubRec = 5,
    /// PUBREL: the answer to a PUBREC.
    PubRel = 6,
    /// PUBCOMP: the answer to a PUBREL.
    PubComp = 7,
    /// SUBSCRIBE: a client asks for subscriptions.
    Subscribe = 8,
    /// SUBACK: the answer to it.
    SubAck = 9,
    /// UNSUBSCRIBE: a client ends subscriptions.
    Unsubscribe = 10,
    /// UNSUBACK: the answer to it.
    UnsubAck = 11,
    /// PINGREQ: a client shows that it is there.
    PingReq = 12,
    /// PINGRESP: the answer to it.
    PingResp = 13,
    /// DISCONNECT: the connection ends, and why.
    Disconnect = 14,
    /// AUTH: a step of enhanced authentication, version 5 only.
    Auth = 15,
}

impl PacketType {
    /// Every packet type there is.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type in the upper four bits of the first byte; its flags are checked too.
    ///
    /// # Errors
    /// Type 0, flags that the type does not have, a PUBLISH of QoS 3 or a duplicate of QoS 0.
    #[inline]
    pub const fn from_first_byte(first_byte: u8) -> Result<Self, Violation> {
        let flags = first_byte & 0x0F;
        let packet = match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => {
                // [MQTT-3.3.1-4] [MQTT-3.3.1-4 3.1.1]
                if flags & 0b0110 == 0b0110 {
                    return Err(Violation::QosThree);
                }
                // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1]
                if flags & 0b1110 == 0b1000 {
                    return Err(Violation::DupOnQosZero);
                }
                return Ok(Self::Publish);
            }
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return Err(Violation::PacketTypeReserved),
        };
        // [MQTT-2.1.3-1] [MQTT-2.2.2-1 3.1.1] [MQTT-2.2.2-2 3.1.1]
        // [MQTT-3.6.1-1] [MQTT-3.6.1-1 3.1.1] [MQTT-3.8.1-1] [MQTT-3.8.1-1 3.1.1]
        // [MQTT-3.10.1-1] [MQTT-3.10.1-1 3.1.1] [MQTT-3.14.1-1] [MQTT-3.14.1-1 3.1.1]
        // [MQTT-3.15.1-1]
        if flags != packet.first_byte() & 0x0F {
            return Err(Violation::FixedHeaderFlags);
        }
        Ok(packet)
    }

    /// The first byte of such a packet, with no flag set that is not fixed.
    #[must_use]
    #[inline]
    pub const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        ((self as u8) << 4) | flags
    }
}

/// What the bytes of a stream begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing<'a> {
    /// A packet whose end has not come yet.
    Incomplete,
    /// A whole packet.
    Packet {
        /// Type and flags.
        first_byte: u8,
        /// What the Remaining Length counts.
        body: &'a [u8],
        /// Bytes of the packet, fixed header included: where the next one starts.
        size: usize,
    },
}

/// Finds the packet that `bytes` begin with, if all of it has come.
///
/// `maximum_packet_size` counts the fixed header, as the Maximum Packet Size of version 5 does.
///
/// # Errors
/// What is wrong with the fixed header; nothing behind it is looked at.
#[inline]
pub fn frame(bytes: &[u8], maximum_packet_size: u32) -> Result<Framing<'_>, Violation> {
    let Some((&first_byte, rest)) = bytes.split_first() else {
        return Ok(Framing::Incomplete);
    };
    PacketType::from_first_byte(first_byte)?;
    // One byte of Remaining Length is by far the most frequent case: telemetry is small.
    let (length, header) = match rest.first() {
        None => return Ok(Framing::Incomplete),
        Some(&byte) if byte < 0x80 => (u32::from(byte), 2),
        Some(_) => match remaining_length(rest)? {
            None => return Ok(Framing::Incomplete),
            Some((length, width)) => (length, 1 + width),
        },
    };
    // [MQTT-3.2.2-15]: before any of the body is waited for.
    if u64::from(length) + header as u64 > u64::from(maximum_packet_size) {
        return Err(Violation::PacketTooLarge);
    }
    let size = header + length as usize;
    match bytes.get(header..size) {
        Some(body) => Ok(Framing::Packet {
            first_byte,
            body,
            size,
        }),
        None => Ok(Framing::Incomplete),
    }
}

/// How many bytes are missing at least to the packet that `bytes` begin with: 0 if it is whole, or is
/// refused.
#[must_use]
pub fn missing(bytes: &[u8]) -> usize {
    match bytes {
        [] => 2,
        [_] => 1,
        [_, rest @ ..] => match remaining_length(rest) {
            Ok(Some((length, width))) => (1 + width + length as usize).saturating_sub(bytes.len()),
            Ok(None) => 1,
            Err(_) => 0,
        },
    }
}

/// A Remaining Length of two to four bytes, and how many they are; `None` if more must come.
fn remaining_length(bytes: &[u8]) -> Result<Option<(u32, usize)>, Violation> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]; 3.1.1 has no number for it, its section 2.2.3 says the same.
            if byte == 0 && index > 0 {
                return Err(Violation::VariableByteIntegerNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
        if index == 3 {
            return Err(Violation::RemainingLengthTooLong);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_PACKET_SIZE, MAX_REMAINING_LENGTH};

    fn violation(bytes: &[u8]) -> Option<Violation> {
        frame(bytes, MAX_PACKET_SIZE).err()
    }

    #[test]
    fn a_packet_is_incomplete_until_its_last_byte() {
        let packet = [0x30, 0x05, 0, 1, b'a', b'h', b'i'];
        for end in 0..packet.len() {
            assert_eq!(
                frame(&packet[..end], MAX_PACKET_SIZE),
                Ok(Framing::Incomplete),
                "{end}"
            );
        }
        let whole = Framing::Packet {
            first_byte: 0x30,
            body: &packet[2..],
            size: 7,
        };
        assert_eq!(frame(&packet, MAX_PACKET_SIZE), Ok(whole));
        let mut two = packet.to_vec();
        two.extend_from_slice(&packet);
        assert_eq!(frame(&two, MAX_PACKET_SIZE), Ok(whole));
    }

    #[test]
    fn flags_are_refused_with_the_first_byte_alone() {
        // [MQTT-2.1.3-1] [MQTT-2.2.2-1 3.1.1] [MQTT-2.2.2-2 3.1.1] and the statements per packet:
        // [MQTT-3.6.1-1] [MQTT-3.6.1-1 3.1.1] [MQTT-3.8.1-1] [MQTT-3.8.1-1 3.1.1]
        // [MQTT-3.10.1-1] [MQTT-3.10.1-1 3.1.1] [MQTT-3.14.1-1] [MQTT-3.14.1-1 3.1.1]
        // [MQTT-3.15.1-1]
        for packet in PacketType::ALL {
            if packet == PacketType::Publish {
                continue;
            }
            let right = packet.first_byte();
            for flags in 0..16 {
                let first_byte = (right & 0xF0) | flags;
                if first_byte == right {
                    assert_eq!(PacketType::from_first_byte(first_byte), Ok(packet));
                    assert_eq!(violation(&[first_byte]), None);
                } else {
                    assert_eq!(violation(&[first_byte]), Some(Violation::FixedHeaderFlags));
                }
            }
        }
        assert_eq!(violation(&[0x00]), Some(Violation::PacketTypeReserved));
    }

    #[test]
    fn publish_flags() {
        for flags in 0..16_u8 {
            let expected = match (flags >> 1 & 3, flags >> 3) {
                (3, _) => Some(Violation::QosThree), // [MQTT-3.3.1-4] [MQTT-3.3.1-4 3.1.1]
                (0, 1) => Some(Violation::DupOnQosZero), // [MQTT-3.3.1-2] [MQTT-3.3.1-2 3.1.1]
                _ => None,
            };
            assert_eq!(violation(&[0x30 | flags]), expected, "{flags:04b}");
        }
    }

    #[test]
    fn a_fifth_byte_of_remaining_length_is_refused_before_it_comes() {
        assert_eq!(violation(&[0x30, 0x80, 0x80, 0x80]), None);
        let bytes = [0x30, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(violation(&bytes), Some(Violation::RemainingLengthTooLong));
    }

    #[test]
    fn the_remaining_length_is_minimal() {
        // [MQTT-1.5.5-1]
        for bytes in [
            &[0x30, 0x80, 0x00][..],
            &[0x30, 0xFF, 0x00],
            &[0x30, 0x80, 0x80, 0x80, 0],
        ] {
            assert_eq!(
                violation(bytes),
                Some(Violation::VariableByteIntegerNotMinimal)
            );
        }
        assert_eq!(violation(&[0x30, 0x80, 0x01]), None);
    }

    #[test]
    fn too_large_is_said_as_soon_as_the_fixed_header_is_there() {
        // [MQTT-3.2.2-15]
        assert_eq!(frame(&[0x30, 0x7E], 128), Ok(Framing::Incomplete));
        assert_eq!(frame(&[0x30, 0x7F], 128), Err(Violation::PacketTooLarge));
        assert_eq!(frame(&[0x30, 0x80, 0x01], 131), Ok(Framing::Incomplete));
        assert_eq!(
            frame(&[0x30, 0x80, 0x01], 130),
            Err(Violation::PacketTooLarge)
        );
        let largest = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
        assert_eq!(frame(&largest, MAX_PACKET_SIZE), Ok(Framing::Incomplete));
        assert_eq!(
            frame(&largest, MAX_PACKET_SIZE - 1),
            Err(Violation::PacketTooLarge)
        );
        assert_eq!(
            remaining_length(&largest[1..]),
            Ok(Some((MAX_REMAINING_LENGTH, 4)))
        );
    }
}
