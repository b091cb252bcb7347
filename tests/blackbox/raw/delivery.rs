//! QoS 1 and 2 packet by packet, retained messages, wills.

use super::packets::{
    Connect, DISCONNECT, PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, ack, ack_with,
};
use super::peer::Peer;
use super::{on_both, on_v5};
use crate::Version;
use crate::broker::Broker;

/// A subscriber and a publisher.
fn pair(broker: &Broker, version: Version, topic: &str, qos: u8) -> (Peer, Peer) {
    let mut reader = Peer::connect(
        broker,
        &Connect::new(version, &format!("reader of {topic}")),
    );
    assert_eq!(reader.subscribe(topic, qos), qos);
    let writer = Peer::connect(
        broker,
        &Connect::new(version, &format!("writer of {topic}")),
    );
    (reader, writer)
}

/// [MQTT-4.3.1-1] [MQTT-3.3.1-2] [MQTT-2.2.1-2] [MQTT-4.3.1-1 3.1.1] [MQTT-3.3.1-2 3.1.1]
/// [MQTT-2.3.1-5 3.1.1] [MQTT-3.3.2-3] [MQTT-3.3.2-3 3.1.1]
#[test]
fn qos_0() {
    on_both(|broker, version| {
        let (mut reader, mut writer) = pair(broker, version, "zero/+", 2);
        writer.publish(&Publish::new("zero/a", "x"));
        assert_eq!(reader.receive(), Publish::new("zero/a", "x"));
        assert_eq!(writer.ping(), [], "no acknowledgement");
    });
}

/// [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-2 3.1.1]
/// [MQTT-3.3.4-1 3.1.1] [MQTT-2.3.1-6 3.1.1]
#[test]
fn qos_1_in() {
    on_both(|broker, version| {
        let (mut reader, mut writer) = pair(broker, version, "one", 0);
        for payload in ["first", "the same identifier is a new message"] {
            for publish in [
                Publish::new("one", payload),
                Publish::new("one", payload).dup(),
            ] {
                writer.publish(&publish.qos(1, 65_535));
                writer.expect_ack(PUBACK, 65_535);
                let got = reader.receive();
                // DUP is not passed on. [MQTT-3.3.1-3] [MQTT-3.3.1-3 3.1.1]
                assert_eq!(got, Publish::new("one", payload));
            }
        }
    });
}

/// [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT-2.2.1-4] [MQTT-4.3.2-1 3.1.1]
/// [MQTT-2.3.1-4 3.1.1]
#[test]
fn qos_1_out_identifiers_are_unused_ones() {
    on_both(|broker, version| {
        let (mut reader, mut writer) = pair(broker, version, "ids", 1);
        writer.publish(&Publish::new("ids", "kept back").qos(1, 1));
        writer.expect_ack(PUBACK, 1);
        let held = reader.receive();
        assert_eq!((held.qos, held.dup), (1, false));
        // As many messages as there are identifiers, and a bit: the one in use is left out.
        for batch in 0..132_u32 {
            let numbers = batch * 500..(batch + 1) * 500;
            let publishes: Vec<u8> = (1..=500)
                .zip(numbers.clone())
                .flat_map(|(id, n)| Publish::new("ids", n.to_string()).qos(1, id).bytes(version))
                .collect();
            writer.send(&publishes);
            let mut acknowledgements = Vec::new();
            for n in numbers {
                let got = reader.receive();
                assert_eq!(got.payload, n.to_string().into_bytes());
                assert_ne!(got.id, held.id, "an identifier in use, at message {n}");
                acknowledgements.extend(ack(PUBACK, got.id));
            }
            reader.send(&acknowledgements);
            for id in 1..=500 {
                writer.expect_ack(PUBACK, id);
            }
        }
    });
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-4.3.3-2 3.1.1]
///
/// mosquitto 2.0.11 answers PUBREL of nothing with success.
#[test]
fn qos_2_in() {
    on_both(|broker, version| {
        let (mut reader, mut writer) = pair(broker, version, "two", 0);
        for round in ["first", "second"] {
            let publish = Publish::new("two", round).qos(2, 9);
            writer.publish(&publish);
            writer.expect_ack(PUBREC, 9);
            writer.publish(&publish.clone().dup());
            writer.expect_ack(PUBREC, 9);
            writer.send(&ack(PUBREL, 9));
            writer.expect_ack(PUBCOMP, 9);
            // After PUBCOMP the identifier is free: the next round is a new message.
            assert_eq!(reader.receive().payload, round.as_bytes());
        }
        writer.send(&ack(PUBREL, 77));
        let (id, reason) = writer.any_ack(PUBCOMP);
        assert_eq!((id, reason), (77, if version.is_v5() { 0x92 } else { 0 }));
        assert_eq!(reader.ping(), [], "each was delivered once");
    });
}

/// [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
/// [MQTT-4.3.3-1 3.1.1]
#[test]
fn qos_2_out() {
    on_both(|broker, version| {
        let (mut reader, mut writer) = pair(broker, version, "two out", 2);
        for id in 1..=3 {
            writer.publish(&Publish::new("two out", id.to_string()).qos(2, id));
            writer.expect_ack(PUBREC, id);
            writer.send(&ack(PUBREL, id));
            writer.expect_ack(PUBCOMP, id);
        }
        let got: Vec<Publish> = (0..3).map(|_| reader.receive()).collect();
        for (n, publish) in got.iter().enumerate() {
            assert_eq!((publish.qos, publish.dup), (2, false), "message {n}");
            reader.send(&ack(PUBREC, publish.id));
        }
        // PUBREL in the order of PUBREC. [MQTT-4.6.0-4] [MQTT-4.6.0-4 3.1.1]
        for publish in &got {
            reader.expect_ack(PUBREL, publish.id);
            // [MQTT-3.6.1-1]: `expect` has compared the flags too.
        }
        for publish in got.iter().rev() {
            reader.send(&ack(PUBCOMP, publish.id));
        }
        assert_eq!(
            reader.ping(),
            [],
            "nothing is sent again while the connection lives"
        );
    });
}

/// PUBREC with an error ends the exchange; PUBREC, PUBREL, PUBCOMP of nothing are answered.
/// [MQTT-4.4.0-2] [MQTT-4.3.3-9] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
#[test]
fn qos_2_with_reason_codes() {
    on_v5(|broker| {
        let (mut reader, mut writer) = pair(broker, Version::V5, "reasons", 2);
        writer.publish(&Publish::new("reasons", "refused").qos(1, 1));
        writer.expect_ack(PUBACK, 1);
        let got = reader.receive();
        reader.send(&ack_with(PUBACK, got.id, 0x83));
        writer.publish(&Publish::new("reasons", "refused").qos(2, 2));
        writer.expect_ack(PUBREC, 2);
        writer.send(&ack(PUBREL, 2));
        writer.expect_ack(PUBCOMP, 2);
        let got = reader.receive();
        assert_eq!(got.qos, 2);
        reader.send(&ack_with(PUBREC, got.id, 0x83));
        assert_eq!(reader.ping(), [], "no PUBREL");
        reader.send(&ack(PUBREC, 4_242));
        assert_eq!(reader.any_ack(PUBREL), (4_242, 0x92));
        reader.send(&ack(PUBCOMP, 4_242));
        reader.send(&ack(PUBACK, 4_242));
        assert_eq!(reader.ping(), [], "acknowledgements of nothing are ignored");
    });
}

/// Acknowledgements leave in the order of the PUBLISHes, whatever shards have to answer.
/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-2 3.1.1] [MQTT-4.6.0-3 3.1.1]
#[test]
fn acknowledgements_in_order() {
    on_both(|broker, version| {
        let mut readers: Vec<Peer> = (0..8)
            .map(|n| {
                let mut reader =
                    Peer::connect(broker, &Connect::new(version, &format!("ack reader {n}")));
                reader.subscribe(&format!("acks/{n}"), 0);
                reader
            })
            .collect();
        let mut writer = Peer::connect(broker, &Connect::new(version, "ack writer"));
        let mut all = Vec::new();
        for id in 1..=400 {
            let qos = 1 + u8::from(id % 3 == 0);
            let publish = Publish::new(&format!("acks/{}", id % 10), id.to_string()).qos(qos, id);
            all.extend(publish.bytes(version));
        }
        writer.send(&all);
        for id in 1..=400 {
            writer.expect_ack(if id % 3 == 0 { PUBREC } else { PUBACK }, id);
        }
        for id in (3..=400).step_by(3) {
            writer.send(&ack(PUBREL, id));
        }
        for id in (3..=400).step_by(3) {
            writer.expect_ack(PUBCOMP, id);
        }
        for (n, reader) in readers.iter_mut().enumerate() {
            // Order holds for what was published with the same QoS.
            let number = |publish: Publish| {
                String::from_utf8_lossy(&publish.payload)
                    .parse::<usize>()
                    .expect("a number")
            };
            let got: Vec<usize> = (0..40).map(|_| number(reader.receive())).collect();
            for exactly_once in [true, false] {
                let of_this_qos = |id: &usize| id.is_multiple_of(3) == exactly_once;
                let expected = (1..=400).filter(|id| id % 10 == n).filter(of_this_qos);
                let got = got.iter().copied().filter(of_this_qos);
                assert_eq!(
                    got.collect::<Vec<_>>(),
                    expected.collect::<Vec<_>>(),
                    "reader {n}"
                );
            }
        }
    });
}

/// RETAIN is set on what a new subscription brings and cleared on what is forwarded.
/// [MQTT-3.3.1-8 3.1.1] [MQTT-3.3.1-9 3.1.1] [MQTT-3.3.1-5 3.1.1] [MQTT-3.3.1-7 3.1.1]
/// [MQTT-3.3.1-12 3.1.1] [MQTT-3.1.2-7 3.1.1]
#[test]
fn retained_messages() {
    on_both(|broker, version| {
        let topic = format!("retained/{version:?}");
        let (mut live, mut writer) = pair(broker, version, &topic, 1);
        writer.publish(&Publish::new(&topic, "one").qos(1, 1).retain());
        writer.expect_ack(PUBACK, 1);
        let got = live.receive();
        assert_eq!((got.retain, got.qos), (false, 1));
        live.send(&ack(PUBACK, got.id));
        // QoS 0 replaces QoS 1; without RETAIN nothing is stored.
        writer.publish(&Publish::new(&topic, "two").retain());
        writer.publish(&Publish::new(&topic, "three"));
        assert_eq!(live.receive(), Publish::new(&topic, "two"));
        assert_eq!(live.receive(), Publish::new(&topic, "three"));
        // The end of the publisher's session takes nothing with it.
        writer.send(&DISCONNECT);
        assert_eq!(writer.until_closed(), []);
        let mut late = Peer::connect(broker, &Connect::new(version, "late"));
        late.subscribe(&topic, 1);
        assert_eq!(late.receive(), Publish::new(&topic, "two").retain());
        late.publish(&Publish::new(&topic, "").retain());
        assert_eq!(late.receive(), Publish::new(&topic, ""));
        assert_eq!(live.receive(), Publish::new(&topic, ""));
        let mut later = Peer::connect(broker, &Connect::new(version, "later"));
        later.subscribe(&topic, 1);
        later.publish(&Publish::new(&topic, "fence"));
        assert_eq!(later.receive(), Publish::new(&topic, "fence"));
    });
}

/// A client may not publish to the broker's own topics: version 5 is told, 3.1.1 gets a positive
/// acknowledgement or is closed. [MQTT-3.3.5-2 3.1.1] [MQTT-3.4.2-1]
///
/// mosquitto 2.0.11 takes it.
#[test]
fn the_brokers_own_topics() {
    on_both(|broker, version| {
        let (mut reader, mut writer) = pair(broker, version, "$SYS/forged", 0);
        writer.publish(&Publish::new("$SYS/forged", "x").qos(1, 1));
        let answer = writer.next();
        if version.is_v5() {
            let answer = answer.expect("version 5 is told");
            let reason = answer.body.get(if answer.first == PUBACK { 2 } else { 0 });
            assert_eq!(reason, Some(&0x87), "{answer:02x?}");
        }
        assert_eq!(reader.ping(), [], "nobody got it");
    });
}

/// A protocol error, and a plain end of the connection, publish the will; DISCONNECT does not.
/// [MQTT-3.1.2-8 3.1.1] [MQTT-3.1.2-10 3.1.1] [MQTT-3.14.4-3 3.1.1] [MQTT-3.1.2-12 3.1.1]
#[test]
fn wills() {
    on_both(|broker, version| {
        let mut watcher = Peer::connect(broker, &Connect::new(version, "watcher"));
        watcher.subscribe("will/#", 0);
        let with_will = |n: u8| {
            let topic = format!("will/{n}");
            Connect::new(version, &format!("mortal {n}")).will(0, false, &topic, b"gone")
        };
        Peer::connect(broker, &with_will(0)).send(&DISCONNECT);
        let mut peer = Peer::connect(broker, &with_will(1));
        peer.send(&[0x36, 4, 0, 1, b'a', 1]);
        assert_eq!(watcher.receive().topic, "will/1", "protocol error");
        peer.until_closed();
        drop(Peer::connect(broker, &with_will(2)));
        assert_eq!(watcher.receive().topic, "will/2", "end of the connection");
        let without = Peer::connect(broker, &Connect::new(version, "no will"));
        drop(without);
        // A will is gone once it was published: the same client id leaves in peace.
        Peer::connect(broker, &Connect::new(version, "mortal 2")).send(&PINGREQ);
        drop(Peer::connect(broker, &with_will(3)));
        assert_eq!(watcher.receive().topic, "will/3");
        assert_eq!(watcher.ping(), []);
    });
}
