//! A packet of any type, for whoever does not know which one comes.

use super::{
    Ack, AckKind, Auth, ConnAck, Connect, Disconnect, PacketType, Publish, SubAck, Subscribe,
    UnsubAck, Unsubscribe, Version, Violation,
};

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each variant is named after the packet it holds"
)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes what [`frame`](super::frame) found. A CONNECT names its version itself; for it
    /// `version` is not looked at.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, first_byte: u8, body: &'a [u8]) -> Result<Self, Violation> {
        Ok(match PacketType::from_first_byte(first_byte)? {
            PacketType::Connect => Self::Connect(Connect::decode(body)?),
            PacketType::ConnAck => Self::ConnAck(ConnAck::decode(version, body)?),
            PacketType::Publish => Self::Publish(Publish::decode(version, first_byte, body)?),
            PacketType::PubAck => Self::PubAck(Ack::decode(AckKind::PubAck, version, body)?),
            PacketType::PubRec => Self::PubRec(Ack::decode(AckKind::PubRec, version, body)?),
            PacketType::PubRel => Self::PubRel(Ack::decode(AckKind::PubRel, version, body)?),
            PacketType::PubComp => Self::PubComp(Ack::decode(AckKind::PubComp, version, body)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(version, body)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(version, body)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(version, body)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(version, body)?),
            PacketType::PingReq if body.is_empty() => Self::PingReq,
            PacketType::PingResp if body.is_empty() => Self::PingResp,
            PacketType::PingReq | PacketType::PingResp => return Err(Violation::TrailingBytes),
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(version, body)?),
            PacketType::Auth if version.is_v5() => Self::Auth(Auth::decode(body)?),
            PacketType::Auth => return Err(Violation::PacketTypeReserved),
        })
    }

    /// Appends the packet to `out`. A CONNECT is written in the version that it names. What a
    /// version does not have is not written: an AUTH before version 5.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) => packet.encode(AckKind::PubAck, version, out),
            Self::PubRec(packet) => packet.encode(AckKind::PubRec, version, out),
            Self::PubRel(packet) => packet.encode(AckKind::PubRel, version, out),
            Self::PubComp(packet) => packet.encode(AckKind::PubComp, version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => encode_pingreq(out),
            Self::PingResp => encode_pingresp(out),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) if version.is_v5() => packet.encode(out),
            Self::Auth(_) => {}
        }
    }

    /// Bytes that [`Packet::encode`] writes.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        match self {
            Self::Connect(packet) => packet.size(),
            Self::ConnAck(packet) => packet.size(version),
            Self::Publish(packet) => packet.size(version),
            Self::PubAck(packet)
            | Self::PubRec(packet)
            | Self::PubRel(packet)
            | Self::PubComp(packet) => packet.size(version),
            Self::Subscribe(packet) => packet.size(version),
            Self::SubAck(packet) => packet.size(version),
            Self::Unsubscribe(packet) => packet.size(version),
            Self::UnsubAck(packet) => packet.size(version),
            Self::PingReq | Self::PingResp => 2,
            Self::Disconnect(packet) => packet.size(version),
            Self::Auth(packet) if version.is_v5() => packet.size(),
            Self::Auth(_) => 0,
        }
    }

    /// Its type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// Appends a PINGREQ, section 3.12.
#[inline]
pub fn encode_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
}

/// Appends a PINGRESP, section 3.13.
#[inline]
pub fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_empty() {
        assert_eq!(Packet::decode(Version::V5, 0xC0, &[]), Ok(Packet::PingReq));
        assert_eq!(Packet::decode(Version::V5, 0xD0, &[]), Ok(Packet::PingResp));
        assert_eq!(
            Packet::decode(Version::V5, 0xC0, &[0]),
            Err(Violation::TrailingBytes)
        );
        let mut out = Vec::new();
        encode_pingreq(&mut out);
        encode_pingresp(&mut out);
        assert_eq!(out, [0xC0, 0, 0xD0, 0]);
    }

    #[test]
    fn there_is_no_auth_before_version_5() {
        let reserved = Packet::decode(Version::V3_1_1, 0xF0, &[]);
        assert_eq!(reserved, Err(Violation::PacketTypeReserved));
        assert_eq!(
            Packet::decode(Version::V5, 0xF0, &[]),
            Ok(Packet::Auth(Auth::default()))
        );
        let mut out = Vec::new();
        Packet::Auth(Auth::default()).encode(Version::V3_1_1, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn flags_are_checked_without_framing_too() {
        // [MQTT-2.1.3-1] [MQTT-2.2.2-1 3.1.1]
        let decoded = Packet::decode(Version::V5, 0x41, &[0, 1]);
        assert_eq!(decoded, Err(Violation::FixedHeaderFlags));
    }
}
