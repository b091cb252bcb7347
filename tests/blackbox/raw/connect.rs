//! CONNECT and what may come before, with and behind it.

use super::packets::{
    Connect, PINGREQ, PUBACK, Publish, SUBACK, field, packet, properties, property, subscribe,
    text_property,
};
use super::peer::Peer;
use super::{on_both, on_v5};
use crate::Version;
use crate::broker::Broker;

/// CONNECT with this protocol name, level, flags and all the rest as it is.
fn connect_of(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(
        0x10,
        &[field(name).as_slice(), &[level, flags, 0, 0], rest].concat(),
    )
}

/// The first packet is CONNECT. [MQTT-3.1.0-1] [MQTT-3.1.0-1 3.1.1] [MQTT-3.14.0-1]
#[test]
fn anything_before_connect_is_closed_without_a_word() {
    on_both(|broker, version| {
        let firsts = [
            PINGREQ.to_vec(),
            Publish::new("a", "x").bytes(version),
            subscribe(version, 1, &[("a", 0)]),
            vec![0xE0, 0],
            vec![0xF0, 0],
            vec![0x20, 2, 0, 0],
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
        ];
        for first in firsts {
            let mut peer = Peer::open(broker, version);
            peer.send(&first);
            peer.send_regardless(&Connect::new(version, "late").bytes());
            peer.finish();
            assert_eq!(peer.until_closed(), [], "{first:02x?}");
        }
    });
}

/// A CONNECT that is not well-formed: 3.1.1 gets no CONNACK [MQTT-3.1.4-1 3.1.1]
/// [MQTT-3.2.2-6 3.1.1], version 5 may get one with an error, and both are closed [MQTT-3.1.4-1].
#[test]
fn malformed_connects_are_closed() {
    on_both(|broker, version| {
        let level = version.level();
        let none = properties(version, &[]);
        let id = [none.clone(), field("id")].concat();
        let will = |topic: &[u8]| [id.clone(), none.clone(), field(topic), field("x")].concat();
        let mut cases = vec![
            // [MQTT-3.1.2-3] [MQTT-3.1.2-3 3.1.1]
            ("the reserved flag", connect_of("MQTT", level, 0x03, &id)),
            // [MQTT-3.1.2-11] [MQTT-3.1.2-11 3.1.1] [MQTT-3.1.2-13 3.1.1]
            (
                "Will QoS without a will",
                connect_of("MQTT", level, 0x0A, &id),
            ),
            // [MQTT-3.1.2-13] [MQTT-3.1.2-15 3.1.1]
            (
                "Will Retain without a will",
                connect_of("MQTT", level, 0x22, &id),
            ),
            // [MQTT-3.1.2-12] [MQTT-3.1.2-14 3.1.1]
            ("Will QoS 3", connect_of("MQTT", level, 0x1E, &will(b"w"))),
            // [MQTT-3.1.2-9] [MQTT-3.1.2-9 3.1.1]
            (
                "a will that is missing",
                connect_of("MQTT", level, 0x06, &id),
            ),
            // [MQTT-3.1.3-11] [MQTT-3.1.3-10 3.1.1]
            (
                "a will topic that is no text",
                connect_of("MQTT", level, 0x06, &will(b"\xFF")),
            ),
            (
                "a will topic with a wildcard",
                connect_of("MQTT", level, 0x06, &will(b"a/#")),
            ),
            // [MQTT-3.1.2-17] [MQTT-3.1.2-19 3.1.1]
            (
                "a user name that is missing",
                connect_of("MQTT", level, 0x82, &id),
            ),
            // [MQTT-3.1.2-19] [MQTT-3.1.2-21 3.1.1]
            (
                "a password that is missing",
                connect_of("MQTT", level, 0xC2, &[id.clone(), field("user")].concat()),
            ),
            // [MQTT-3.1.3-12] [MQTT-3.1.3-11 3.1.1]
            (
                "a user name that is no text",
                connect_of("MQTT", level, 0x82, &[id.clone(), field(b"\xFF")].concat()),
            ),
            // [MQTT-3.1.2-16] [MQTT-3.1.2-18] [MQTT-3.1.2-18 3.1.1] [MQTT-3.1.2-20 3.1.1]
            (
                "a user name without its flag",
                connect_of("MQTT", level, 0x02, &[id.clone(), field("user")].concat()),
            ),
            // [MQTT-3.1.3-4] [MQTT-3.1.3-4 3.1.1]
            (
                "a client identifier that is no text",
                connect_of(
                    "MQTT",
                    level,
                    0x02,
                    &[none.clone(), field(b"\xC3")].concat(),
                ),
            ),
            // [MQTT-3.1.3-3] [MQTT-3.1.3-3 3.1.1] [MQTT-3.1.3-1] [MQTT-3.1.3-1 3.1.1]
            (
                "no client identifier",
                connect_of("MQTT", level, 0x02, &none),
            ),
            ("nothing at all", packet(0x10, &[])),
            (
                "flags of the fixed header",
                [&[0x11], &Connect::new(version, "x").bytes()[1..]].concat(),
            ),
        ];
        if version == Version::V3_1_1 {
            // [MQTT-3.1.2-22 3.1.1]
            let rest = [id.clone(), field("password")].concat();
            cases.push((
                "a password without a user name",
                connect_of("MQTT", level, 0x42, &rest),
            ));
        }
        for (what, bytes) in cases {
            refused(broker, version, what, &bytes);
        }
    });
}

/// Closed, with nothing in 3.1.1 and at most a CONNACK with an error in version 5.
fn refused(broker: &Broker, version: Version, what: &str, bytes: &[u8]) {
    let mut peer = Peer::open(broker, version);
    peer.send(bytes);
    peer.finish();
    let said = peer.until_closed();
    if said.is_empty() {
        return;
    }
    assert!(version.is_v5() && said.len() == 1, "{what}: {said:02x?}");
    // No DISCONNECT before a CONNACK with success. [MQTT-3.14.0-1]
    assert_eq!(said[0].first, 0x20, "{what}: {said:02x?}");
    // Session Present 0 with an error. [MQTT-3.2.2-6] [MQTT-3.2.2-7]
    assert_eq!(said[0].body[0], 0, "{what}");
    assert!(said[0].body[1] >= 0x80, "{what}: {said:02x?}");
}

/// What the properties of CONNECT must not say.
#[test]
fn properties_of_connect_are_checked() {
    on_v5(|broker| {
        let method = text_property(0x15, "SCRAM");
        let cases: [(&str, Vec<u8>); 10] = [
            ("Receive Maximum 0", vec![0x21, 0, 0]),
            ("Maximum Packet Size 0", vec![0x27, 0, 0, 0, 0]),
            ("Request Problem Information 2", vec![0x17, 2]),
            ("Request Response Information 2", vec![0x19, 2]),
            (
                "Session Expiry Interval twice",
                vec![0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1],
            ),
            ("Receive Maximum twice", vec![0x21, 0, 9, 0x21, 0, 9]),
            (
                "Authentication Data without a method",
                text_property(0x16, "x"),
            ),
            ("a property of PUBLISH", text_property(0x03, "x")),
            // [MQTT-4.12.0-1]
            ("an unknown authentication method", method.clone()),
            (
                "Authentication Method twice",
                [method.clone(), method].concat(),
            ),
        ];
        for (what, bytes) in cases {
            refused(
                broker,
                Version::V5,
                what,
                &Connect::new(Version::V5, "p").with(&bytes).bytes(),
            );
        }
    });
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.2-1 3.1.1] [MQTT-3.1.2-2 3.1.1]
#[test]
fn other_protocols_and_levels() {
    on_both(|broker, version| {
        let rest = [properties(version, &[]), field("id")].concat();
        for level in [0, 1, 2, 6, 0x7F] {
            let mut peer = Peer::open(broker, version);
            peer.send(&connect_of("MQTT", level, 2, &rest));
            peer.send_regardless(&Publish::new("a", "x").bytes(version));
            peer.finish();
            let said = peer.until_closed();
            assert_eq!(said.len(), 1, "level {level}: {said:02x?}");
            assert_eq!(said[0].first, 0x20);
            let code = said[0].body[1];
            assert!([0x01, 0x84].contains(&code), "level {level}: {code:02x}");
        }
        for name in ["mqtt", "MQTTT", "MQ", "", "MQIsdp"] {
            let mut peer = Peer::open(broker, version);
            peer.send(&connect_of(name, version.level(), 2, &rest));
            peer.finish();
            let said = peer.until_closed();
            assert!(
                said.iter()
                    .all(|packet| packet.first == 0x20 && packet.body[1] != 0)
            );
        }
        // MQTT 3.1, which is the other specification that a CONNECT may follow.
        let mut old = Peer::open(broker, Version::V3_1_1);
        old.send(&connect_of("MQIsdp", 3, 2, &field("old")));
        assert_eq!(old.connack().code, 0);
        assert_eq!(old.ping(), []);
    });
}

/// [MQTT-3.1.3-8 3.1.1] [MQTT-3.1.3-9 3.1.1] [MQTT-3.2.2-4 3.1.1] [MQTT-3.2.2-5 3.1.1]
/// [MQTT-3.1.4-5 3.1.1]
#[test]
fn an_empty_client_identifier_needs_a_clean_session_in_3_1_1() {
    on_both(|broker, version| {
        if version.is_v5() {
            return;
        }
        let mut peer = Peer::open(broker, version);
        peer.send(&Connect::new(version, "").clean(false).bytes());
        peer.send_regardless(&Publish::new("refused", "x").retain().bytes(version));
        let answer = peer.connack();
        assert_eq!((answer.session_present, answer.code), (false, 2));
        assert_eq!(peer.until_closed(), []);
        let mut other = Peer::connect(broker, &Connect::new(version, "other"));
        other.subscribe("refused", 0);
        assert_eq!(
            other.ping(),
            [],
            "what came behind a refused CONNECT was not processed"
        );
    });
}

/// Nothing behind a refused CONNECT is processed. [MQTT-3.1.4-6] [MQTT-3.1.4-2] [MQTT-4.12.0-1]
/// [MQTT-3.2.2-8]
#[test]
fn nothing_behind_a_refused_connect_counts() {
    on_v5(|broker| {
        let method = text_property(0x15, "UNKNOWN");
        let mut peer = Peer::open(broker, Version::V5);
        let refused = Connect::new(Version::V5, "refused")
            .with(&method)
            .will(0, true, "w", b"x");
        let behind = Publish::new("refused", "x").retain().bytes(Version::V5);
        peer.send(&[refused.bytes(), behind].concat());
        let answer = peer.connack();
        assert!([0x8C, 0x87].contains(&answer.code), "{answer:02x?}");
        assert!(!answer.session_present);
        assert_eq!(peer.until_closed(), []);
        let mut other = Peer::connect(broker, &Connect::new(Version::V5, "other"));
        for topic in ["refused", "w"] {
            other.subscribe(topic, 0);
            assert_eq!(other.ping(), [], "{topic}");
        }
    });
}

/// What is pipelined behind a good CONNECT is processed in order. [MQTT-3.2.0-1]
/// [MQTT-3.2.0-1 3.1.1] [MQTT-3.2.0-2] [MQTT-3.1.4-5] [MQTT-3.1.4-4 3.1.1]
#[test]
fn packets_pipelined_behind_connect() {
    on_both(|broker, version| {
        for n in 0..20 {
            let topic = format!("pipelined/{n}");
            let mut peer = Peer::open(broker, version);
            let all = [
                Connect::new(version, &format!("eager{n}")).bytes(),
                subscribe(version, 1, &[(&topic, 1)]),
                Publish::new(&topic, "first").qos(1, 2).bytes(version),
                Publish::new(&topic, "second").bytes(version),
                PINGREQ.to_vec(),
            ];
            peer.send(&all.concat());
            peer.connack();
            peer.answer(SUBACK);
            let mut payloads = Vec::new();
            let mut seen = Vec::new();
            while seen.len() < 2 || payloads.len() < 2 {
                let packet = peer.read();
                match packet.first {
                    PUBACK | 0xD0 => seen.push(packet.first),
                    first => {
                        payloads.push(Publish::read(version, first, &packet.body).payload);
                    }
                }
            }
            assert_eq!(payloads, [b"first".to_vec(), b"second".to_vec()]);
            assert_eq!(seen.len(), 2, "one PUBACK, one PINGRESP, no second CONNACK");
        }
    });
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT-3.1.2-28] [MQTT-4.12.0-6]
#[test]
fn what_connack_tells_version_5() {
    on_v5(|broker| {
        let mut ids = Vec::new();
        for _ in 0..20 {
            let (mut peer, answer) = Peer::connect_and_see(broker, &Connect::new(Version::V5, ""));
            let id = property(&answer.properties, 0x12).expect("Assigned Client Identifier");
            assert!(!id.is_empty() && !ids.contains(&id));
            assert_eq!(peer.ping(), []);
            // Its session can be found again under that identifier.
            let id_text = String::from_utf8(id.clone()).expect("an identifier is text");
            let taker = Connect::new(Version::V5, &id_text).clean(false);
            let (_, again) = Peer::connect_and_see(broker, &taker);
            assert_eq!(property(&again.properties, 0x12), None, "nothing to assign");
            peer.expect_closed_with("taken over", &[0x8E]);
            ids.push(id);
        }
        let plain = Connect::new(Version::V5, "plain").with(&[0x19, 0]);
        let (_, answer) = Peer::connect_and_see(broker, &plain);
        for absent in [0x1A, 0x12, 0x15, 0x16] {
            assert_eq!(
                property(&answer.properties, absent),
                None,
                "property {absent:02x}"
            );
        }
    });
}

/// [MQTT-3.1.4-3] [MQTT-3.1.4-2 3.1.1] [MQTT-3.1.4-4] [MQTT-3.1.4-3 3.1.1] [MQTT-3.1.3-2]
/// [MQTT-3.1.3-2 3.1.1]
#[test]
fn the_older_connection_is_told_and_closed() {
    on_both(|broker, version| {
        for round in 0..20 {
            let id = format!("same{round}");
            let lasting = Connect::lasting(version, &id);
            let (mut old, first) = Peer::connect_and_see(broker, &lasting);
            assert!(!first.session_present);
            old.subscribe("kept", 1);
            let (mut new, second) = Peer::connect_and_see(broker, &lasting);
            // [MQTT-3.2.2-3] [MQTT-3.2.2-2 3.1.1]
            assert!(second.session_present);
            old.expect_closed_with("taken over", &[0x8E]);
            let (_, third) = Peer::connect_and_see(broker, &Connect::new(version, &id));
            // [MQTT-3.2.2-2] [MQTT-3.2.2-1 3.1.1]
            assert!(!third.session_present);
            new.expect_closed_with("taken over", &[0x8E]);
        }
    });
}

/// [MQTT-3.1.2-22] [MQTT-3.1.2-24 3.1.1] [MQTT-3.2.2-22]
#[test]
fn silence_of_one_and_a_half_intervals_ends_it() {
    on_both(|broker, version| {
        let connect = Connect::new(version, "silent").keep_alive(1);
        let mut never = Peer::connect(broker, &Connect::new(version, "patient").keep_alive(0));
        let before = std::time::Instant::now();
        let mut peer = Peer::connect(broker, &connect);
        peer.expect_closed_with("keep-alive", &[0x8D]);
        let silent = before.elapsed();
        assert!(
            (1_450..10_000).contains(&silent.as_millis()),
            "closed after {silent:?}"
        );
        assert_eq!(never.ping(), [], "Keep Alive 0 means never");
    });
}
