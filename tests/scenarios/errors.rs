//! Broken rules and their ends: sections 2, 3.14, 4.8 (3.1.1) and 4.13.

use shardmq::wire::ReasonCode;

use crate::client::{both, on_shards, v3, v5};
use crate::packets::{Received, message, sub};

/// Packets that version 5 cannot parse or forbids, and what is said of them.
const BROKEN: &[(&str, &[u8], ReasonCode)] = {
    use ReasonCode::{
        MalformedPacket as Malformed, ProtocolError as Protocol, TopicAliasInvalid,
        TopicNameInvalid,
    };
    &[
        ("packet type 0", &[0x00, 0x00], Malformed),
        (
            "five bytes of length",
            &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            Malformed,
        ),
        // [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
        ("PUBREL flags", &[0x60, 2, 0, 1], Malformed),
        (
            "SUBSCRIBE flags",
            &[0x80, 7, 0, 1, 0, 0, 1, b'a', 0],
            Malformed,
        ),
        (
            "UNSUBSCRIBE flags",
            &[0xA0, 6, 0, 1, 0, 0, 1, b'a'],
            Malformed,
        ),
        ("PINGREQ flags", &[0xC1, 0], Malformed),
        ("DISCONNECT flags", &[0xE1, 0], Malformed),
        ("AUTH flags", &[0xF1, 0], Malformed),
        // [MQTT-3.3.1-4] [MQTT-3.3.1-2]
        ("QoS 3", &[0x36, 6, 0, 1, b'a', 0, 1, 0], Malformed),
        ("DUP with QoS 0", &[0x38, 4, 0, 1, b'a', 0], Malformed),
        // [MQTT-2.2.1-3]
        (
            "PUBLISH identifier 0",
            &[0x32, 6, 0, 1, b'a', 0, 0, 0],
            Malformed,
        ),
        (
            "SUBSCRIBE identifier 0",
            &[0x82, 7, 0, 0, 0, 0, 1, b'a', 0],
            Malformed,
        ),
        (
            "UNSUBSCRIBE identifier 0",
            &[0xA2, 6, 0, 0, 0, 0, 1, b'a'],
            Malformed,
        ),
        ("PUBACK identifier 0", &[0x40, 2, 0, 0], Malformed),
        // [MQTT-1.5.4-1] [MQTT-1.5.4-2]
        ("no UTF-8", &[0x30, 5, 0, 2, 0xC3, 0x28, 0], Malformed),
        (
            "a surrogate",
            &[0x30, 6, 0, 3, 0xED, 0xA0, 0x80, 0],
            Malformed,
        ),
        ("U+0000", &[0x30, 4, 0, 1, 0, 0], Malformed),
        ("a truncated topic", &[0x30, 4, 0, 9, b'a', 0], Malformed),
        (
            "a property length beyond the end",
            &[0x30, 4, 0, 1, b'a', 9],
            Malformed,
        ),
        (
            "an unknown property",
            &[0x30, 6, 0, 1, b'a', 2, 0x7F, 0],
            Malformed,
        ),
        (
            "a property twice",
            &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0],
            Protocol,
        ),
        (
            "a property of another packet",
            &[0x30, 7, 0, 1, b'a', 3, 0x21, 0, 1],
            Malformed,
        ),
        (
            "alias 0",
            &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0],
            TopicAliasInvalid,
        ),
        ("no topic and no alias", &[0x30, 3, 0, 0, 0], Protocol),
        ("a wildcard", &[0x30, 4, 0, 1, b'#', 0], TopicNameInvalid),
        // [MQTT-3.8.3-2] [MQTT-3.8.3-5] [MQTT-3.10.3-2]
        ("SUBSCRIBE without filters", &[0x82, 3, 0, 1, 0], Protocol),
        (
            "reserved option bits",
            &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x40],
            Malformed,
        ),
        (
            "retain handling 3",
            &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30],
            Protocol,
        ),
        (
            "subscribe to QoS 3",
            &[0x82, 7, 0, 1, 0, 0, 1, b'a', 3],
            Protocol,
        ),
        (
            "identifier 0",
            &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0],
            Protocol,
        ),
        ("UNSUBSCRIBE without filters", &[0xA2, 3, 0, 1, 0], Protocol),
        ("PINGREQ with a body", &[0xC0, 1, 0], Malformed),
        ("a truncated DISCONNECT", &[0xE0, 3, 0, 5, 0x11], Malformed),
        ("CONNACK from a client", &[0x20, 3, 0, 0, 0], Protocol),
        ("SUBACK from a client", &[0x90, 4, 0, 1, 0, 0], Protocol),
        ("UNSUBACK from a client", &[0xB0, 4, 0, 1, 0, 0], Protocol),
        ("PINGRESP from a client", &[0xD0, 0], Protocol),
        ("0x8B from a client", &[0xE0, 1, 0x8B], Protocol),
    ]
};

/// [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2]: the broker says what was broken,
/// says nothing more, and closes. What came behind it is not processed.
#[test]
fn broken_packets_end_a_connection_with_their_reason() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("behind"));
        for (name, bytes, reason) in BROKEN {
            let mut client = broker.connect(v5("client"));
            client.subscribe(sub("behind"));
            client.push(bytes);
            client.push_publish(&message("behind", *name));
            broker.settle();
            let Some(Received::Disconnect(said)) = client.next() else {
                panic!("{name}")
            };
            assert_eq!(said, *reason, "{name}");
            client.expect_closed();
        }
        watcher.expect_nothing();
        assert_eq!(
            broker.stats().violations.iter().sum::<u64>(),
            BROKEN.len() as u64
        );
        assert_eq!(broker.stats().sessions, 1);
    });
}

/// [MQTT-4.8.0-1 3.1.1] [MQTT-2.2.2-2 3.1.1] [MQTT-3.6.1-1 3.1.1] [MQTT-3.8.1-1 3.1.1] [MQTT-3.10.1-1 3.1.1]
/// [MQTT-3.14.1-1 3.1.1] [MQTT-2.3.1-1 3.1.1] [MQTT-3.8.3-3 3.1.1] [MQTT-3.10.3-2 3.1.1] [MQTT-1.5.3-1 3.1.1]
/// [MQTT-1.5.3-2 3.1.1] [MQTT-3.3.1-4 3.1.1] [MQTT-3.3.1-2 3.1.1]: 3.1.1 just closes.
#[test]
fn broken_packets_end_a_3_1_1_connection() {
    let broken: &[(&str, &[u8])] = &[
        ("packet type 0", &[0x00, 0x00]),
        ("packet type 15", &[0xF0, 0x00]),
        ("PUBREL flags", &[0x60, 2, 0, 1]),
        ("SUBSCRIBE flags", &[0x80, 6, 0, 1, 0, 1, b'a', 0]),
        ("UNSUBSCRIBE flags", &[0xA0, 5, 0, 1, 0, 1, b'a']),
        ("DISCONNECT flags", &[0xE1, 0]),
        ("PUBLISH identifier 0", &[0x32, 5, 0, 1, b'a', 0, 0]),
        ("SUBSCRIBE identifier 0", &[0x82, 6, 0, 0, 0, 1, b'a', 0]),
        ("SUBSCRIBE without filters", &[0x82, 2, 0, 1]),
        ("UNSUBSCRIBE without filters", &[0xA2, 2, 0, 1]),
        ("options of version 5", &[0x82, 6, 0, 1, 0, 1, b'a', 4]),
        ("no UTF-8", &[0x30, 4, 0, 2, 0xC3, 0x28]),
        ("U+0000", &[0x30, 3, 0, 1, 0]),
        ("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1]),
        ("DUP with QoS 0", &[0x38, 3, 0, 1, b'a']),
        ("an empty topic", &[0x30, 2, 0, 0]),
        ("PINGRESP from a client", &[0xD0, 0]),
    ];
    on_shards(|broker| {
        for (name, bytes) in broken {
            let mut client = broker.connect(v3("client"));
            client.send_bytes(bytes);
            assert_eq!(client.next(), None, "{name}");
            client.expect_closed();
        }
        assert_eq!(
            broker.stats().violations.iter().sum::<u64>(),
            broken.len() as u64
        );
    });
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.4-1 3.1.1] [MQTT-3.14.4-2 3.1.1]: after DISCONNECT the connection is
/// over; what comes behind it does not count.
#[test]
fn nothing_follows_a_disconnect() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("#"));
        for options in both("client") {
            let mut client = broker.connect(options.clone());
            client.push(&[0xE0, 0]);
            client.push_publish(&message("late", "x"));
            client.expect_closed();
            let mut bytes = message("before", "x").encode(client.version());
            bytes.extend_from_slice(&[0xE0, 0]);
            bytes.extend(message("after", "x").encode(client.version()));
            let mut client = broker.connect(options);
            client.send_bytes(&bytes);
            client.expect_closed();
            watcher.expect(&message("before", "x"));
            watcher.expect_nothing();
        }
    });
}

/// [MQTT-3.14.2-3]: the reason string of a DISCONNECT names the rule, and is left out where it would
/// make the packet too large.
#[test]
fn a_disconnect_says_which_rule_was_broken() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.send_bytes(&[0xD0, 0]);
        let frame = client.next_frame().expect("DISCONNECT comes");
        assert!(String::from_utf8_lossy(&frame).contains("only a server sends this packet"));
        let mut client = broker.connect(v5("client").maximum_packet_size(30));
        client.send_bytes(&[0xD0, 0]);
        let frame = client.next_frame().expect("DISCONNECT comes");
        assert_eq!(frame[2], ReasonCode::ProtocolError.as_u8());
        assert!(frame.len() <= 4, "{frame:?}");
    });
}
