//! What must hold for any bytes at all. Used by the fuzz target as it is and by the tests.

use shardmq::limits::MAX_PACKET_SIZE;
use shardmq::topic::Name;
use shardmq::wire::{Framing, Packet, Version, frame};

/// Reads `bytes` as a stream in every version; panics where an invariant of the codec is broken.
pub(crate) fn exercise(bytes: &[u8]) {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        stream(version, bytes);
    }
}

fn stream(version: Version, bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Framing::Packet {
        first_byte,
        body,
        size,
    }) = frame(rest, MAX_PACKET_SIZE)
    {
        assert!(
            (2..=rest.len()).contains(&size),
            "a packet lies within its bytes"
        );
        assert_eq!(
            frame(&rest[..size - 1], MAX_PACKET_SIZE),
            Ok(Framing::Incomplete)
        );
        assert!(frame(rest, size as u32 - 1).is_err(), "one byte too large");
        if let Ok(packet) = Packet::decode(version, first_byte, body) {
            round_trip(version, &packet);
            walk(&packet);
        }
        rest = &rest[size..];
    }
}

/// What was decoded can be encoded, has the size it says, and decodes to the same.
fn round_trip(version: Version, packet: &Packet<'_>) {
    let mut bytes = b"before".to_vec();
    packet.encode(version, &mut bytes);
    assert!(bytes.starts_with(b"before"), "encoding appends");
    let bytes = &bytes[6..];
    assert_eq!(bytes.len(), packet.size(version), "{packet:?}");
    let Ok(Framing::Packet {
        first_byte,
        body,
        size,
    }) = frame(bytes, MAX_PACKET_SIZE)
    else {
        panic!("encoding framed {packet:?} wrongly as {bytes:02X?}");
    };
    assert_eq!(size, bytes.len(), "{packet:?}");
    assert_eq!(
        Packet::decode(version, first_byte, body).as_ref(),
        Ok(packet),
        "{bytes:02X?}"
    );
}

/// What is read lazily is there and keeps its promises.
fn walk(packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) => {
            let properties = &publish.properties;
            assert!(publish.topic.is_empty() || Name::parse(publish.topic).is_ok());
            assert!(!publish.topic.is_empty() || properties.topic_alias.is_some());
            assert!(
                properties
                    .response_topic()
                    .is_none_or(|topic| Name::parse(topic).is_ok())
            );
            assert!(
                properties
                    .subscription_identifiers
                    .iter()
                    .all(|identifier| identifier > 0)
            );
            let mut copy = Vec::new();
            properties.forwarded.write_to(&mut copy);
            assert_eq!(copy.len(), properties.forwarded.len());
            assert!(
                properties
                    .forwarded
                    .as_contiguous()
                    .is_none_or(|bytes| bytes == copy)
            );
            let mut again = Vec::new();
            for property in properties.forwarded.iter() {
                property.encode(&mut again);
            }
            assert_eq!(
                copy, again,
                "what is passed on is what came, in the order it came"
            );
            let user = properties.user_properties();
            let size: usize = user
                .iter()
                .map(|(name, value)| 5 + name.len() + value.len())
                .sum();
            assert_eq!(size, user.len());
        }
        Packet::Subscribe(subscribe) => assert!(subscribe.filters.iter().count() > 0),
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters.iter().count() > 0),
        Packet::SubAck(suback) => assert_eq!(suback.reasons().count(), suback.codes.len()),
        Packet::UnsubAck(unsuback) => assert_eq!(unsuback.reasons().count(), unsuback.codes.len()),
        _ => {}
    }
}
