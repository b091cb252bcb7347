//! SUBSCRIBE and UNSUBSCRIBE, answered filter by filter.

use super::packets::{Connect, Publish, SUBACK, UNSUBACK, properties, subscribe, unsubscribe};
use super::peer::Peer;
use super::{on_both, on_v5};
use crate::Version;

/// The codes of SUBACK or UNSUBACK.
fn codes(version: Version, body: &[u8], id: u16) -> Vec<u8> {
    assert_eq!(body[..2], id.to_be_bytes());
    let (length, rest) = if version.is_v5() {
        super::packets::take_varint(&body[2..])
    } else {
        (0, &body[2..])
    };
    rest[length..].to_vec()
}

/// Each filter has its answer, in order; a bad one spoils no other. [MQTT-3.8.4-1] [MQTT-3.8.4-2]
/// [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-2.2.1-6]
/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.4-1 3.1.1]
/// [MQTT-3.8.4-2 3.1.1] [MQTT-3.8.4-4 3.1.1] [MQTT-3.8.4-5 3.1.1] [MQTT-3.9.3-1 3.1.1]
/// [MQTT-3.9.3-2 3.1.1] [MQTT-2.3.1-7 3.1.1] [MQTT-4.7.1-2 3.1.1] [MQTT-4.7.1-3 3.1.1]
///
/// mosquitto 2.0.11 closes the connection instead.
#[test]
fn every_filter_has_its_answer() {
    let bad = [
        "a/#/b",
        "a#",
        "#a",
        "a/b#",
        "a+",
        "+a",
        "a/+b/c",
        "$share/g",
        "$share//x",
        "$share/a+b/x",
        "$share/a#/x",
        "$share/g/",
        "$share",
    ];
    let good = [
        "#",
        "+",
        "+/+/#",
        "/",
        "//",
        "a b",
        "$share/g/#",
        "$share/g/a/+",
        "$SYS/#",
        "é/+",
    ];
    on_both(|broker, version| {
        let mut peer = Peer::connect(broker, &Connect::new(version, "asks"));
        let mut filters = Vec::new();
        for n in 0..bad.len().max(good.len()) {
            filters.extend(good.get(n).map(|filter| (*filter, 1, true)));
            filters.extend(bad.get(n).map(|filter| (*filter, 2, false)));
        }
        let asked: Vec<(&str, u8)> = filters
            .iter()
            .map(|(filter, qos, _)| (*filter, *qos))
            .collect();
        peer.send(&subscribe(version, 4_711, &asked));
        let answered = codes(version, &peer.expect(SUBACK), 4_711);
        assert_eq!(answered.len(), filters.len());
        for ((filter, qos, is_good), code) in filters.iter().zip(answered) {
            let expected = match (is_good, version) {
                (true, _) => *qos,
                (false, Version::V5) => 0x8F,
                (false, Version::V3_1_1) => 0x80,
            };
            assert_eq!(code, expected, "{filter}");
        }
        peer.send(&super::packets::DISCONNECT);
    });
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
/// [MQTT-3.11.3-2] [MQTT-3.10.4-1 3.1.1] [MQTT-3.10.4-4 3.1.1] [MQTT-3.10.4-5 3.1.1]
/// [MQTT-3.10.4-6 3.1.1] [MQTT-3.10.4-2 3.1.1]
#[test]
fn unsubscribe_compares_character_by_character() {
    on_both(|broker, version| {
        let mut peer = Peer::connect(broker, &Connect::new(version, "leaves"));
        let held = ["u/+", "u/#", "u/a", "$share/g/u/a"];
        peer.send(&subscribe(version, 1, &held.map(|filter| (filter, 0))));
        peer.expect(SUBACK);
        // None of them is held, though some match the same topics.
        let others = ["u/A", "u/+/", "U/+", "$share/h/u/a", "$share/g/u/b", "u"];
        peer.send(&unsubscribe(version, 2, &others));
        let answer = codes(version, &peer.expect(UNSUBACK), 2);
        assert_eq!(
            answer,
            if version.is_v5() {
                vec![0x11; 6]
            } else {
                vec![]
            }
        );
        peer.send(&unsubscribe(
            version,
            3,
            &["u/#", "nothing", "u/+", "$share/g/u/a"],
        ));
        let answer = codes(version, &peer.expect(UNSUBACK), 3);
        assert_eq!(
            answer,
            if version.is_v5() {
                vec![0, 0x11, 0, 0]
            } else {
                vec![]
            }
        );
        peer.publish(&Publish::new("u/b", "gone"));
        peer.publish(&Publish::new("u/a", "still"));
        assert_eq!(peer.receive(), Publish::new("u/a", "still"));
        assert_eq!(peer.ping(), []);
    });
}

/// What was begun is finished after UNSUBSCRIBE. [MQTT-3.10.4-3] [MQTT-3.10.4-3 3.1.1]
#[test]
fn an_exchange_that_was_begun_is_finished() {
    use super::packets::{PUBCOMP, PUBREC, PUBREL, ack};
    on_both(|broker, version| {
        let mut peer = Peer::connect(broker, &Connect::new(version, "finishes"));
        peer.subscribe("begun", 2);
        peer.publish(&Publish::new("begun", "x").qos(2, 1));
        let mut got = None;
        let mut received = false;
        while got.is_none() || !received {
            let packet = peer.read();
            if packet.first == PUBREC {
                received = true;
                peer.send(&ack(PUBREL, 1));
            } else if packet.first != PUBCOMP {
                got = Some(Publish::read(version, packet.first, &packet.body));
            }
        }
        let id = got.expect("the loop ends with it").id;
        peer.send(&unsubscribe(version, 2, &["begun"]));
        while peer.read().first != UNSUBACK {}
        peer.send(&ack(PUBREC, id));
        peer.expect_ack(PUBREL, id);
        peer.send(&ack(PUBCOMP, id));
        assert_eq!(peer.ping(), []);
    });
}

/// A message that a subscription of a lower QoS brings. [MQTT-3.8.4-8] [MQTT-3.8.4-6 3.1.1]
/// [MQTT-3.3.5-1 3.1.1] [MQTT-4.5.0-1] [MQTT-4.5.0-1 3.1.1]
#[test]
fn qos_is_the_lower_of_the_two() {
    on_both(|broker, version| {
        let mut writer = Peer::connect(broker, &Connect::new(version, "writer"));
        for granted in 0..=2 {
            for published in 0..=2 {
                let id = format!("reader {granted} {published}");
                let mut reader = Peer::connect(broker, &Connect::new(version, &id));
                reader.subscribe("min/#", granted);
                writer.publish(&Publish::new("min/x", "x").qos(published, 1));
                writer.ping();
                if published == 2 {
                    writer.send(&super::packets::ack(0x62, 1));
                    writer.ping();
                }
                assert_eq!(reader.receive().qos, granted.min(published));
            }
        }
    });
}

/// A leading wildcard matches no topic that begins with `$`, shared or not. [MQTT-4.7.2-1]
/// [MQTT-4.7.2-1 3.1.1] [MQTT-4.7.3-4] [MQTT-4.7.3-4 3.1.1]
#[test]
fn wildcards_and_dollar() {
    on_both(|broker, version| {
        let mut peer = Peer::connect(broker, &Connect::new(version, "dollar"));
        for filter in ["#", "+/x", "$share/g/#", "$share/g/+/x"] {
            peer.subscribe(filter, 0);
        }
        let mut other = Peer::connect(broker, &Connect::new(version, "other"));
        other.subscribe("$own/+", 0);
        peer.publish(&Publish::new("$own/x", "x"));
        assert_eq!(other.receive().topic, "$own/x");
        assert_eq!(peer.ping(), []);
        // No normalisation: two ways to write é are two topics.
        other.subscribe("caf\u{e9}", 0);
        peer.publish(&Publish::new("cafe\u{301}", "decomposed"));
        peer.publish(&Publish::new("caf\u{e9}", "composed"));
        assert_eq!(other.receive().payload, b"composed");
    });
}

/// One SUBSCRIBE with as many filters as fit, and the same again.
#[test]
fn a_thousand_filters_in_one_packet() {
    on_both(|broker, version| {
        let mut peer = Peer::connect(broker, &Connect::new(version, "many"));
        let filters: Vec<String> = (0..1_000).map(|n| format!("many/{n}/+")).collect();
        let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
        for id in [1, 2] {
            peer.send(&subscribe(version, id, &asked));
            assert_eq!(codes(version, &peer.expect(SUBACK), id), vec![1; 1_000]);
        }
        peer.publish(&Publish::new("many/999/x", "x"));
        assert_eq!(peer.receive().payload, b"x");
    });
}

/// A filter of no characters is refused, alone or with the connection. [MQTT-4.7.3-1]
#[test]
fn an_empty_filter() {
    on_v5(|broker| {
        let mut peer = Peer::connect(broker, &Connect::new(Version::V5, "empty"));
        let body = [&[0, 1], properties(Version::V5, &[]).as_slice(), &[0, 0, 0]].concat();
        peer.send(&super::packets::packet(0x82, &body));
        let answer = peer.read();
        let code = *answer.body.last().expect("a code");
        assert!(
            matches!(answer.first, SUBACK | 0xE0) && code >= 0x80,
            "{answer:02x?}"
        );
    });
}
