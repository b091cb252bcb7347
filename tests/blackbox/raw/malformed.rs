//! What breaks the rules: one line per rule, the reason that version 5 is told, and nothing else
//! changes for anybody.

use super::packets::{
    Connect, PUBACK, Publish, field, packet, properties, subscribe_with, text_property,
    user_property,
};
use super::peer::Peer;
use super::{on_both, on_v5};
use crate::Version;

/// A rule that is broken by a packet behind CONNECT. Where the standard leaves the choice between
/// Malformed Packet and Protocol Error open, both codes stand.
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) codes: &'static [u8],
}

fn case(what: &'static str, bytes: Vec<u8>, codes: &'static [u8]) -> Case {
    Case { what, bytes, codes }
}

const MALFORMED: &[u8] = &[0x81];
const PROTOCOL: &[u8] = &[0x82];
const EITHER: &[u8] = &[0x81, 0x82];

/// PUBLISH with these bytes as its topic.
fn publish_to(version: Version, topic: &[u8]) -> Vec<u8> {
    packet(
        0x30,
        &[field(topic), properties(version, &[]), b"x".to_vec()].concat(),
    )
}

/// SUBSCRIBE or UNSUBSCRIBE with this behind the packet identifier and the properties.
fn filters(version: Version, first: u8, payload: &[u8]) -> Vec<u8> {
    packet(
        first,
        &[&[0, 7], properties(version, &[]).as_slice(), payload].concat(),
    )
}

pub(super) fn framing(version: Version) -> Vec<Case> {
    vec![
        // [MQTT-2.1.3-1] [MQTT-2.2.2-1 3.1.1] [MQTT-2.2.2-2 3.1.1]
        case("PINGREQ with flags", vec![0xC1, 0], MALFORMED),
        case("PUBACK with flags", vec![0x42, 2, 0, 1], MALFORMED),
        case("PUBREC with flags", vec![0x51, 2, 0, 1], MALFORMED),
        case("PUBCOMP with flags", vec![0x74, 2, 0, 1], MALFORMED),
        // [MQTT-3.6.1-1] [MQTT-3.6.1-1 3.1.1]
        case("PUBREL without its flags", vec![0x60, 2, 0, 1], MALFORMED),
        // [MQTT-3.8.1-1] [MQTT-3.8.1-1 3.1.1]
        case(
            "SUBSCRIBE without its flags",
            filters(version, 0x80, b"\0\x01a\0"),
            MALFORMED,
        ),
        // [MQTT-3.10.1-1] [MQTT-3.10.1-1 3.1.1]
        case(
            "UNSUBSCRIBE without its flags",
            filters(version, 0xA0, b"\0\x01a"),
            MALFORMED,
        ),
        // [MQTT-3.14.1-1] [MQTT-3.14.1-1 3.1.1]
        case("DISCONNECT with flags", vec![0xE1, 0], MALFORMED),
        case("type 0", vec![0x00, 0], MALFORMED),
        case(
            "Remaining Length of five bytes",
            vec![0x30, 0x80, 0x80, 0x80, 0x80, 1],
            MALFORMED,
        ),
        case("PINGREQ with a body", vec![0xC0, 1, 0], MALFORMED),
        case("PUBACK of one byte", vec![PUBACK, 1, 0], MALFORMED),
        case("PUBLISH of nothing", vec![0x30, 0], MALFORMED),
        case(
            "a topic beyond the packet",
            vec![0x30, 4, 0, 9, b'a', b'b'],
            MALFORMED,
        ),
        case("SUBSCRIBE cut off", vec![0x82, 1, 0], MALFORMED),
        case(
            "larger than anybody takes",
            vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F],
            &[0x95],
        ),
        case("CONNACK from a client", vec![0x20, 2, 0, 0], EITHER),
        case("SUBACK from a client", vec![0x90, 3, 0, 1, 0], EITHER),
        case("UNSUBACK from a client", vec![0xB0, 2, 0, 1], EITHER),
        case("PINGRESP from a client", vec![0xD0, 0], EITHER),
        // [MQTT-3.1.0-2] [MQTT-3.1.0-2 3.1.1]
        case(
            "a second CONNECT",
            Connect::new(version, "second").bytes(),
            PROTOCOL,
        ),
    ]
}

pub(super) fn publish(version: Version) -> Vec<Case> {
    vec![
        // [MQTT-3.3.1-4] [MQTT-3.3.1-4 3.1.1]
        case(
            "QoS 3",
            Publish::new("a", "x").qos(3, 1).bytes(version),
            MALFORMED,
        ),
        // [MQTT-2.2.1-3] [MQTT-2.3.1-1 3.1.1]
        case(
            "identifier 0",
            Publish::new("a", "x").qos(1, 0).bytes(version),
            EITHER,
        ),
        // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-3.3.2-2 3.1.1] [MQTT-4.7.1-1 3.1.1]
        case("# in a topic", publish_to(version, b"a/#"), &[0x90]),
        case("+ in a topic", publish_to(version, b"a/+/b"), &[0x90]),
        // [MQTT-4.7.3-1] [MQTT-4.7.3-1 3.1.1]
        case("an empty topic", publish_to(version, b""), &[0x82, 0x90]),
        // [MQTT-1.5.4-2] [MQTT-4.7.3-2] [MQTT-1.5.3-2 3.1.1] [MQTT-4.7.3-2 3.1.1]
        case(
            "U+0000 in a topic",
            publish_to(version, b"a\0b"),
            &[0x81, 0x90],
        ),
        // [MQTT-1.5.4-1] [MQTT-3.3.2-1] [MQTT-1.5.3-1 3.1.1] [MQTT-3.3.2-1 3.1.1]
        case(
            "a surrogate in a topic",
            publish_to(version, b"a\xED\xA0\x80"),
            &[0x81, 0x90],
        ),
        case(
            "an overlong / in a topic",
            publish_to(version, b"a\xC0\xAF"),
            &[0x81, 0x90],
        ),
        case(
            "a cut character",
            publish_to(version, b"a\xE2\x82"),
            &[0x81, 0x90],
        ),
        case(
            "DUP with QoS 0",
            Publish::new("a", "x").dup().bytes(version),
            EITHER,
        ),
    ]
}

pub(super) fn subscriptions(version: Version) -> Vec<Case> {
    let bad_text = [field(b"a\xFF"), vec![0]].concat();
    let mut cases = vec![
        case("SUBSCRIBE 0", packet(0x82, &[0, 0, 0, 1, b'a', 0]), EITHER),
        // [MQTT-3.8.3-2] [MQTT-3.8.3-3 3.1.1]
        case("SUBSCRIBE to nothing", filters(version, 0x82, b""), EITHER),
        // [MQTT-3.10.3-2] [MQTT-3.10.3-2 3.1.1]
        case(
            "UNSUBSCRIBE from nothing",
            filters(version, 0xA2, b""),
            EITHER,
        ),
        // [MQTT-3.8.3-1] [MQTT-3.8.3-1 3.1.1]
        case(
            "a filter that is no text",
            filters(version, 0x82, &bad_text),
            MALFORMED,
        ),
        // [MQTT-3.10.3-1] [MQTT-3.10.3-1 3.1.1]
        case(
            "no text in UNSUBSCRIBE",
            filters(version, 0xA2, &field(b"\xFF")),
            MALFORMED,
        ),
        // [MQTT-3.8.3-5]
        case(
            "reserved options",
            filters(version, 0x82, b"\0\x01a\xC0"),
            MALFORMED,
        ),
        case(
            "QoS 3 asked for",
            filters(version, 0x82, b"\0\x01a\x03"),
            EITHER,
        ),
        case(
            "options missing",
            filters(version, 0x82, b"\0\x01a"),
            MALFORMED,
        ),
    ];
    if version.is_v5() {
        cases.extend([
            case(
                "Retain Handling 3",
                filters(version, 0x82, b"\0\x01a\x30"),
                EITHER,
            ),
            // [MQTT-3.8.3-4]
            case(
                "No Local, shared",
                filters(version, 0x82, b"\0\x0a$share/g/a\x04"),
                PROTOCOL,
            ),
            case(
                "identifier 0",
                subscribe_with(version, 1, &[0x0B, 0], &[("a", 0)]),
                PROTOCOL,
            ),
            case(
                "two identifiers",
                subscribe_with(version, 1, &[0x0B, 1, 0x0B, 2], &[("a", 0)]),
                PROTOCOL,
            ),
        ]);
    }
    cases
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn version_5_properties() -> Vec<Case> {
    let publish = |properties: &[u8]| Publish::new("a", "x").with(properties).bytes(Version::V5);
    let raw = |properties: &[u8]| packet(0x30, &[&[0, 1, b'a'], properties].concat());
    let text = text_property(0x03, "x");
    vec![
        case("properties beyond the packet", raw(&[0x7F, 1]), MALFORMED),
        // [MQTT-1.5.5-1]
        case(
            "a length with needless bytes",
            raw(&[0x80, 0x00]),
            MALFORMED,
        ),
        case("an unknown property", publish(&[0x7F, 0]), MALFORMED),
        case(
            "a property of CONNECT",
            publish(&[0x11, 0, 0, 0, 1]),
            EITHER,
        ),
        case(
            "Content Type twice",
            publish(&[text.clone(), text].concat()),
            PROTOCOL,
        ),
        case(
            "Payload Format Indicator twice",
            publish(&[1, 0, 1, 0]),
            PROTOCOL,
        ),
        case("Payload Format Indicator 2", publish(&[1, 2]), EITHER),
        // [MQTT-3.3.4-6]
        case(
            "Subscription Identifier from a client",
            publish(&[0x0B, 1]),
            PROTOCOL,
        ),
        // [MQTT-3.3.2-8]
        case("Topic Alias 0", publish(&[0x23, 0, 0]), &[0x94]),
        // [MQTT-3.2.2-17] [MQTT-3.3.2-9]
        case(
            "Topic Alias beyond the maximum",
            publish(&[0x23, 0xFF, 0xFF]),
            &[0x94],
        ),
        case(
            "Topic Alias twice",
            publish(&[0x23, 0, 1, 0x23, 0, 2]),
            PROTOCOL,
        ),
        case(
            "an alias never told",
            packet(0x30, &[0, 0, 3, 0x23, 0, 1]),
            PROTOCOL,
        ),
        // [MQTT-3.3.2-14]
        case(
            "a wildcard in Response Topic",
            publish(&text_property(8, "a/+")),
            &[0x82, 0x90],
        ),
        // [MQTT-3.3.2-13] [MQTT-3.3.2-19]
        case(
            "Response Topic is no text",
            publish(&text_property(8, b"\xFF")),
            MALFORMED,
        ),
        case(
            "Content Type is no text",
            publish(&text_property(3, b"\xFF")),
            MALFORMED,
        ),
        // [MQTT-1.5.7-1]
        case(
            "a user property with U+0000",
            publish(&user_property("a\0", "b")),
            MALFORMED,
        ),
        case(
            "a user property cut off",
            publish(&[0x26, 0, 1, b'a', 0, 9]),
            MALFORMED,
        ),
        // [MQTT-3.15.1-1]
        case("AUTH with flags", vec![0xF1, 0], MALFORMED),
        // [MQTT-4.12.0-7]
        case("AUTH without a method", vec![0xF0, 0], PROTOCOL),
        case(
            "PUBACK with an unknown reason",
            vec![PUBACK, 3, 0, 1, 0x01],
            EITHER,
        ),
        case(
            "PUBREL with an unknown reason",
            vec![0x62, 3, 0, 1, 0x10],
            EITHER,
        ),
        case(
            "DISCONNECT with an unknown reason",
            vec![0xE0, 1, 0x01],
            EITHER,
        ),
        case(
            "Session Expiry raised from 0",
            vec![0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9],
            PROTOCOL,
        ),
        case(
            "DISCONNECT with half a property",
            vec![0xE0, 4, 0, 5, 0x11, 0],
            MALFORMED,
        ),
    ]
}

/// [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.8.0-1 3.1.1]
#[test]
fn broken_rules_are_named_and_hurt_nobody_else() {
    on_both(|broker, version| {
        let mut bystander = Peer::connect(broker, &Connect::new(version, "bystander"));
        bystander.subscribe("#", 0);
        let mut cases = framing(version);
        cases.extend(publish(version));
        cases.extend(subscriptions(version));
        if version.is_v5() {
            cases.extend(version_5_properties());
        }
        let mut wrong = Vec::new();
        for (n, case) in cases.iter().enumerate() {
            let mut peer = Peer::connect(broker, &Connect::new(version, &format!("bad{n}")));
            peer.send(&case.bytes);
            // Nothing behind the broken packet counts. [MQTT-3.14.4-1]
            peer.send_regardless(&Publish::new("behind", case.what).bytes(version));
            if let Err(how) = peer.closed_with(case.codes) {
                wrong.push(format!("{}: {how}", case.what));
            }
        }
        assert!(wrong.is_empty(), "{version:?}:\n{}", wrong.join("\n"));
        assert_eq!(bystander.ping(), [], "nothing was published");
    });
}

/// Each prefix of each kind of packet, and then silence for ever: the broker sees the end, frees
/// what it held, and goes on.
#[test]
fn packets_that_end_within() {
    on_both(|broker, version| {
        let will = Connect::new(version, "cut").will(1, false, "will", b"x");
        let packets = [
            will.bytes(),
            Publish::new("a/b", "payload").qos(2, 7).bytes(version),
            filters(version, 0x82, b"\0\x01a\x01\0\x01b\x02"),
            filters(version, 0xA2, b"\0\x01a"),
        ];
        let mut watcher = Peer::connect(broker, &Connect::new(version, "watcher"));
        watcher.subscribe("a/b", 0);
        for (n, bytes) in packets.iter().enumerate() {
            for length in 0..bytes.len() {
                let mut peer = Peer::open(broker, version);
                if n > 0 {
                    peer.send(&Connect::new(version, "cut").bytes());
                    peer.connack();
                }
                peer.send(&bytes[..length]);
                peer.finish();
                assert_eq!(peer.until_closed(), [], "{length} bytes of {bytes:02x?}");
            }
        }
        assert_eq!(watcher.ping(), [], "half a PUBLISH is none");
    });
}

/// Bytes that were valid before a few of them were changed. No answer is asked for but that the
/// broker serves everybody else afterwards.
#[test]
fn changed_bytes_end_nothing_but_their_own_connection() {
    on_v5(|broker| {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let below = u64::try_from(below).expect("a small bound");
            usize::try_from(random % below).expect("below it")
        };
        let mut bystander = Peer::connect(broker, &Connect::new(Version::V5, "bystander"));
        let user = user_property("key", "value");
        let session = [
            Connect::new(Version::V5, "fuzz")
                .with(&user)
                .will(1, true, "w", b"gone")
                .bytes(),
            subscribe_with(Version::V5, 1, &[0x0B, 9], &[("a/#", 2), ("$share/g/+", 1)]),
            Publish::new("a/b", "x")
                .qos(2, 2)
                .with(&user)
                .with(&[1, 1])
                .bytes(Version::V5),
            vec![0x62, 2, 0, 2],
            vec![0xC0, 0, 0xE0, 0],
        ]
        .concat();
        for _ in 0..600 {
            let mut bytes = session.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                bytes[at] = u8::try_from(next(256)).expect("a byte");
            }
            let mut peer = Peer::open(broker, Version::V5);
            peer.send_regardless(&bytes);
            peer.finish();
            peer.drain();
        }
        assert_eq!(bystander.ping(), []);
    });
}
