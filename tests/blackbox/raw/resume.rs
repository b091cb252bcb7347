//! What a connection that was lost left unfinished, packet by packet.

use super::packets::{Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, ack};
use super::peer::Peer;
use super::{on_both, on_v5};
use crate::Version;
use crate::broker::Broker;

/// Publishes each payload with QoS 2, whole exchange.
fn publish_all(broker: &Broker, version: Version, topic: &str, qos: u8, payloads: &[&str]) {
    let mut writer = Peer::connect(
        broker,
        &Connect::new(version, &format!("writer of {topic}")),
    );
    for payload in payloads {
        writer.publish(&Publish::new(topic, payload).qos(qos, 5));
        if qos == 1 {
            writer.expect_ack(PUBACK, 5);
        } else {
            writer.expect_ack(PUBREC, 5);
            writer.send(&ack(PUBREL, 5));
            writer.expect_ack(PUBCOMP, 5);
        }
    }
}

/// PUBLISH again with DUP and its old identifier, PUBREL again, each in the old order and before
/// anything new. [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-4.3.3-6] [MQTT-4.4.0-1 3.1.1]
/// [MQTT-4.6.0-1 3.1.1] [MQTT-3.3.1-1 3.1.1] [MQTT-4.1.0-1] [MQTT-4.1.0-1 3.1.1]
#[test]
fn what_was_in_flight_comes_again() {
    on_both(|broker, version| {
        let lasting = Connect::lasting(version, &format!("resumes {version:?}"));
        let mut first = Peer::connect(broker, &lasting);
        first.subscribe("r/2", 2);
        first.subscribe("r/1", 1);
        publish_all(broker, version, "r/2", 2, &["released", "received", "sent"]);
        publish_all(broker, version, "r/1", 1, &["one", "done"]);
        let sent: Vec<Publish> = (0..5).map(|_| first.receive()).collect();
        assert!(sent.iter().all(|publish| !publish.dup), "{sent:?}");
        for publish in &sent[..2] {
            first.send(&ack(PUBREC, publish.id));
            first.expect_ack(PUBREL, publish.id);
        }
        first.send(&ack(PUBACK, sent[4].id));
        first.send(&ack(PUBCOMP, sent[0].id));
        assert_eq!(first.ping(), []);
        drop(first);
        publish_all(broker, version, "r/1", 1, &["new"]);

        for attempt in 0..3 {
            let (mut again, answer) = Peer::connect_and_see(broker, &lasting);
            assert!(answer.session_present);
            // sent[1] is at PUBREL, sent[2] and sent[3] at PUBLISH; the others are finished.
            let came: Vec<_> = (0..4).map(|_| again.read()).collect();
            assert!(
                came.iter()
                    .any(|packet| (packet.first, packet.body.get(..2))
                        == (PUBREL, Some(&sent[1].id.to_be_bytes()[..]))),
                "attempt {attempt}: PUBREL {} is missing from {came:02x?}",
                sent[1].id
            );
            let publishes: Vec<Publish> = came
                .iter()
                .filter(|packet| packet.first >> 4 == 3)
                .map(|packet| Publish::read(version, packet.first, &packet.body))
                .collect();
            assert_eq!(
                publishes[..2],
                [sent[2].clone().dup(), sent[3].clone().dup()]
            );
            assert_eq!(publishes[2].payload, b"new");
            assert_eq!(publishes[2].dup, attempt > 0);
            assert!(
                sent.iter()
                    .all(|old| old.id != publishes[2].id || old == &sent[4] || old == &sent[0])
            );
            assert_eq!(again.ping(), [], "nothing comes twice on one connection");
        }
    });
}

/// QoS 2 towards the broker goes on where it was: PUBLISH is not delivered again until PUBREL.
/// [MQTT-4.3.3-10] [MQTT-4.3.3-2 3.1.1] [MQTT-3.1.2-5] [MQTT-3.1.2-4 3.1.1]
#[test]
fn an_inbound_exchange_survives_the_connection() {
    on_both(|broker, version| {
        let mut reader = Peer::connect(broker, &Connect::new(version, "reader"));
        reader.subscribe("inbound", 0);
        let lasting = Connect::lasting(version, &format!("sender {version:?}"));
        let publish = Publish::new("inbound", "once").qos(2, 3);
        for attempt in 0..3 {
            let (mut sender, _) = Peer::connect_and_see(broker, &lasting);
            sender.publish(&if attempt == 0 {
                publish.clone()
            } else {
                publish.clone().dup()
            });
            sender.expect_ack(PUBREC, 3);
        }
        let mut sender = Peer::connect(broker, &lasting);
        sender.send(&ack(PUBREL, 3));
        sender.expect_ack(PUBCOMP, 3);
        assert_eq!(reader.receive().payload, b"once");
        assert_eq!(reader.ping(), [], "and only once");
        // A clean start forgets the exchange. [MQTT-3.1.2-4] [MQTT-3.1.2-6 3.1.1]
        sender.publish(&Publish::new("inbound", "abandoned").qos(2, 3));
        sender.expect_ack(PUBREC, 3);
        let mut clean = Peer::connect(broker, &lasting.clone().clean(true));
        clean.publish(&Publish::new("inbound", "new").qos(2, 3));
        clean.expect_ack(PUBREC, 3);
        clean.send(&ack(PUBREL, 3));
        clean.expect_ack(PUBCOMP, 3);
        // A broker may deliver at PUBLISH or at PUBREL, which the abandoned one never got.
        let mut last = reader.receive();
        if last.payload == b"abandoned" {
            last = reader.receive();
        }
        assert_eq!(last.payload, b"new");
        assert_eq!(reader.ping(), []);
    });
}

/// Session Present tells the truth, also on the shard that did not have the session before.
/// [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-6] [MQTT-3.2.2-1 3.1.1] [MQTT-3.2.2-2 3.1.1]
/// [MQTT-3.2.2-3 3.1.1] [MQTT-4.1.0-2 3.1.1]
#[test]
fn session_present() {
    on_both(|broker, version| {
        for n in 0..8 {
            let id = format!("present {n} {version:?}");
            let lasting = Connect::lasting(version, &id);
            let expected = [
                (lasting.clone(), false),
                (lasting.clone(), true),
                (lasting.clone().clean(true), false),
                (lasting.clone(), version.is_v5()),
                (Connect::new(version, &id), false),
                (lasting.clone(), false),
            ];
            for (step, (connect, present)) in expected.into_iter().enumerate() {
                let (mut peer, answer) = Peer::connect_and_see(broker, &connect);
                assert_eq!(answer.session_present, present, "client {n}, step {step}");
                peer.send(&super::packets::DISCONNECT);
                assert_eq!(peer.until_closed(), []);
            }
        }
    });
}

/// Messages wait in order behind Receive Maximum across a resume. [MQTT-4.9.0-1] [MQTT-4.9.0-2]
///
/// mosquitto 2.0.11 sends everything again whatever the new connection takes.
#[test]
fn receive_maximum_is_the_connections() {
    on_v5(|broker| {
        let lasting = Connect::lasting(Version::V5, "window");
        let mut first = Peer::connect(broker, &lasting.clone().with(&[0x21, 0, 4]));
        first.subscribe("w", 1);
        let payloads = ["0", "1", "2", "3", "4", "5", "6", "7"];
        publish_all(broker, Version::V5, "w", 1, &payloads);
        let sent: Vec<Publish> = (0..4).map(|_| first.receive()).collect();
        assert_eq!(first.ping(), [], "four are unacknowledged");
        drop(first);
        let mut second = Peer::connect(broker, &lasting.with(&[0x21, 0, 2]));
        for (n, old) in sent.iter().enumerate() {
            let got = second.receive();
            assert_eq!(got, old.clone().dup(), "message {n}");
            if n == 1 {
                assert_eq!(second.ping(), [], "two are unacknowledged now");
            }
            if n >= 1 {
                second.send(&ack(PUBACK, sent[n - 1].id));
            }
        }
        second.send(&ack(PUBACK, sent[3].id));
        for payload in &payloads[4..] {
            let got = second.receive();
            assert_eq!(
                (got.payload.as_slice(), got.dup),
                (payload.as_bytes(), false)
            );
            second.send(&ack(PUBACK, got.id));
        }
        assert_eq!(second.ping(), []);
    });
}
