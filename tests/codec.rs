//! The codec against its own model: what is valid is accepted and comes back unchanged, and nothing
//! makes it panic.

mod packets;

use packets::exercise::exercise;
use packets::{Field, VERSIONS, any_packet, damaged, damages, packet};
use proptest::collection::vec;
use proptest::prelude::*;
use shardmq::limits::MAX_PACKET_SIZE;
use shardmq::wire::{
    Framing, Packet, Property, Publish, PublishHead, PublishProperties, QoS, Version, Violation,
    frame,
};

/// Frames and decodes the one packet that `bytes` are.
fn decode(version: Version, bytes: &[u8]) -> Result<Packet<'_>, Violation> {
    match frame(bytes, MAX_PACKET_SIZE)? {
        Framing::Packet {
            first_byte,
            body,
            size,
        } if size == bytes.len() => Packet::decode(version, first_byte, body),
        other => panic!("{bytes:02X?} is not one packet: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_valid_packet_is_accepted_and_encoded_as_the_same_bytes(model in any_packet()) {
        let bytes = model.bytes();
        let packet = decode(model.version, &bytes);
        prop_assert!(packet.is_ok(), "{:?}: {:02X?}", packet, bytes);
        let mut again = Vec::new();
        packet.unwrap().encode(model.version, &mut again);
        prop_assert_eq!(bytes, again);
    }

    /// [MQTT-3.3.2-18] [MQTT-3.1.3-10]: and whatever stands between properties that are passed on.
    #[test]
    fn the_order_of_properties_does_not_matter(
        model in packet(Version::V5),
        places in vec(any::<usize>(), 1..6),
    ) {
        let canonical = model.bytes();
        let rearranged = model.rearranged(&places).bytes();
        prop_assert_eq!(decode(Version::V5, &canonical), decode(Version::V5, &rearranged));
        exercise(&rearranged);
    }

    #[test]
    fn a_packet_that_ends_early_is_refused_or_says_less(model in any_packet(), cut in any::<usize>()) {
        // The framing waits for the rest of a packet.
        let bytes = model.bytes();
        let end = cut % bytes.len();
        prop_assert_eq!(frame(&bytes[..end], MAX_PACKET_SIZE), Ok(Framing::Incomplete));
        // A packet that was cut and framed anew is refused, or its last field is shorter: a payload,
        // reason codes, a reason.
        let Ok(Framing::Packet { first_byte, body, .. }) = frame(&bytes, MAX_PACKET_SIZE) else {
            unreachable!("a model is a whole packet")
        };
        let whole = Packet::decode(model.version, first_byte, body);
        for end in 0..body.len().min(300) {
            prop_assert_ne!(&whole, &Packet::decode(model.version, first_byte, &body[..end]));
        }
    }

    #[test]
    fn bytes_behind_the_last_field_are_not_ignored(model in any_packet(), byte in 1..=u8::MAX) {
        // Zero is left out: it may say what was left out, a reason of Success or no properties.
        let mut longer = model.clone();
        longer.fields.push(Field::Raw(vec![byte]));
        let (bytes, longer) = (model.bytes(), longer.bytes());
        exercise(&longer);
        prop_assert_ne!(decode(model.version, &bytes), decode(model.version, &longer));
    }

    #[test]
    fn a_property_that_came_may_not_come_again(model in packet(Version::V5), which in any::<usize>()) {
        let mut model = model;
        for field in &mut model.fields {
            let Field::Properties(properties) = field else { continue };
            if properties.is_empty() {
                continue;
            }
            let again = properties[which % properties.len()].clone();
            let repeatable = match again.first() {
                Some(0x26) => true,
                Some(0x0B) => model.first_byte >> 4 == 3,
                _ => false,
            };
            properties.push(again);
            let bytes = model.bytes();
            match decode(Version::V5, &bytes) {
                Ok(_) => prop_assert!(repeatable),
                Err(violation) => {
                    prop_assert!(!repeatable);
                    prop_assert_eq!(violation, Violation::PropertyTwice);
                }
            }
            break;
        }
    }

    #[test]
    fn too_large_packets_are_refused_by_their_header(model in any_packet()) {
        let bytes = model.bytes();
        let size = u32::try_from(bytes.len()).unwrap();
        let whole = frame(&bytes, size);
        let is_whole = matches!(whole, Ok(Framing::Packet { .. }));
        prop_assert!(is_whole);
        let header = 1 + bytes[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1;
        prop_assert_eq!(frame(&bytes[..header], size - 1), Err(Violation::PacketTooLarge));
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut(
        models in vec(packet(Version::V5), 1..6),
        cuts in vec(1_usize..200, 1..40),
    ) {
        let stream: Vec<u8> = models.iter().flat_map(packets::Model::bytes).collect();
        let mut buffer = Vec::new();
        let mut arrived = 0;
        let mut found = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while arrived < stream.len() {
            let end = (arrived + cuts.next().unwrap()).min(stream.len());
            buffer.extend_from_slice(&stream[arrived..end]);
            arrived = end;
            while let Framing::Packet { size, .. } = frame(&buffer, MAX_PACKET_SIZE).unwrap() {
                found.push(buffer.drain(..size).collect::<Vec<u8>>());
            }
        }
        let sent: Vec<_> = models.iter().map(packets::Model::bytes).collect();
        prop_assert_eq!(sent, found);
    }

    #[test]
    fn damaged_packets_never_panic(model in any_packet(), damages in damages()) {
        exercise(&damaged(&model.bytes(), &damages));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
        for version in VERSIONS {
            for kind in 1..16_u8 {
                // Past the framing, into every decoder.
                let _ = Packet::decode(version, kind << 4, &bytes);
                let _ = Packet::decode(version, kind << 4 | 2, &bytes);
            }
        }
    }

    /// The encoder of the fan-out writes what the packet's own encoder writes.
    #[test]
    fn a_publish_head_is_a_publish(model in any_packet()) {
        let bytes = model.bytes();
        let Ok(Packet::Publish(publish)) = decode(model.version, &bytes) else { return Ok(()) };
        let identifiers: Vec<u32> = publish.properties.subscription_identifiers.iter().collect();
        let mut forwarded = Vec::new();
        publish.properties.forwarded.write_to(&mut forwarded);
        let head = PublishHead {
            version: model.version,
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic,
            topic_alias: publish.properties.topic_alias,
            packet_id: publish.packet_id,
            message_expiry_interval: publish.properties.message_expiry_interval,
            subscription_identifiers: &identifiers,
            forwarded: &forwarded,
            payload: publish.payload,
        };
        let mut out = vec![0xEE; 3];
        let offset = head.encode(&mut out);
        prop_assert_eq!(&out[3..], &bytes[..]);
        prop_assert_eq!(head.size(), bytes.len());
        prop_assert_eq!(offset.is_some(), publish.packet_id.is_some());
        if let (Some(offset), Some(packet_id)) = (offset, publish.packet_id) {
            prop_assert_eq!(&out[offset..offset + 2], &packet_id.get().to_be_bytes());
        }
    }

    /// What a client of ours puts together is what it takes apart again.
    #[test]
    fn every_property_is_written_as_it_is_read(
        property in (0x01_u8..0x2B).prop_filter("an identifier", |identifier| {
            !matches!(identifier, 0x04..=0x07 | 0x0A | 0x0C..=0x10 | 0x14 | 0x1B | 0x1D | 0x1E | 0x20)
        }).prop_flat_map(packets::property),
    ) {
        // Only those of a message have a way in; the others go through their packets.
        let forwarded = shardmq::wire::Forwarded::from_bytes(&property);
        for read in forwarded.iter() {
            let mut bytes = Vec::new();
            read.encode(&mut bytes);
            prop_assert_eq!(&bytes, &property);
            prop_assert_eq!(read.identifier(), property[0]);
            let is_payload_format = matches!(read, Property::PayloadFormatIndicator(_));
            prop_assert_eq!(is_payload_format, property[0] == 1);
        }
    }
}

/// Whatever the fuzzer ever found worth keeping, and one packet of each kind.
#[test]
fn the_fuzz_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/packet");
    let mut files = 0;
    for file in std::fs::read_dir(folder).expect("the corpus is part of the repository") {
        exercise(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 15, "{files} files");
}

/// [MQTT-2.2.2-1]
#[test]
fn no_properties_are_a_property_length_of_zero() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"p",
    };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(Version::V5, &mut bytes);
    assert_eq!(bytes, [0x30, 5, 0, 1, b't', 0, b'p']);
}
