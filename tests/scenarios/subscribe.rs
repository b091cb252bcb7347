//! SUBSCRIBE and UNSUBSCRIBE, sections 3.8 to 3.11, and what overlaps: 3.3.4.

use shardmq::wire::ReasonCode;

use crate::client::{both, on_shards, v3, v5};
use crate::packets::{Received, message, sub};

/// [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]: one SUBACK with one code per filter, in their
/// order. [MQTT-3.8.4-4 3.1.1] [MQTT-3.8.4-5 3.1.1] [MQTT-3.9.3-1 3.1.1] [MQTT-3.9.3-2 3.1.1]
#[test]
fn suback_answers_filter_by_filter() {
    on_shards(|broker| {
        let subs = [
            sub("a").qos(2),
            sub("b#").qos(1),
            sub("c").qos(0),
            sub("$share/g/d").qos(1),
            sub("a").qos(1),
        ];
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.subscribe_all(&subs), [2, 0x8F, 0, 1, 1]);
        let mut client = broker.connect(v3("client"));
        assert_eq!(client.subscribe_all(&subs), [2, 0x80, 0, 1, 1]);
        // The last one for a filter counts.
        client.publish(&message("a", "x").qos(2));
        client.expect(&message("a", "x").qos(1));
        client.expect_nothing();
    });
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.2.1-6] [MQTT-3.8.4-1 3.1.1] [MQTT-3.8.4-2 3.1.1] [MQTT-2.3.1-7 3.1.1]:
/// SUBACK and UNSUBACK carry the identifier of what they answer.
#[test]
fn answers_carry_the_identifier_of_the_question() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            let v5 = client.version().is_v5();
            let (subscribe, unsubscribe) = if v5 {
                (
                    vec![0x82, 7, 0xAB, 0xCD, 0, 0, 1, b'a', 1],
                    vec![0xA2, 6, 0xFF, 0xFF, 0, 0, 1, b'a'],
                )
            } else {
                (
                    vec![0x82, 6, 0xAB, 0xCD, 0, 1, b'a', 1],
                    vec![0xA2, 5, 0xFF, 0xFF, 0, 1, b'a'],
                )
            };
            client.send_bytes(&subscribe);
            client.expect_packet(Received::SubAck(0xABCD, vec![1]));
            client.send_bytes(&unsubscribe);
            let codes = if v5 { vec![0] } else { vec![] };
            client.expect_packet(Received::UnsubAck(0xFFFF, codes));
        }
    });
}

/// [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.8.4-3 3.1.1]: the same filter again replaces the options; nothing
/// that is published meanwhile is lost.
#[test]
fn subscribing_again_replaces_the_options() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door").qos(0).identifier(1));
        for number in 0..60_u8 {
            let again = sub("door")
                .qos(1 + number % 2)
                .identifier(u32::from(number) + 2);
            client.push_subscribe(again);
            let id = u16::from(number) + 1;
            publisher.push_publish(&message("door", number.to_string()).qos(2).id(id));
            if number % 7 == 0 {
                broker.settle();
            }
        }
        broker.settle();
        let mut numbers = Vec::new();
        while let Some(packet) = client.next() {
            if let Received::Publish(message) = packet {
                assert_eq!(message.identifiers.len(), 1);
                numbers.push(String::from_utf8(message.payload.0).unwrap());
            }
        }
        assert_eq!(
            numbers,
            (0..60).map(|number| number.to_string()).collect::<Vec<_>>()
        );
        assert_eq!(broker.stats().subscriptions, 1);
        client.unsubscribe(&["door"]);
        let mut old = broker.connect(v3("client"));
        old.subscribe(sub("door").qos(2));
        old.subscribe(sub("door").qos(0));
        publisher.publish(&message("door", "x").qos(2).id(100));
        old.expect(&message("door", "x"));
        old.expect_nothing();
    });
}

/// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.10.4-1]: UNSUBACK answers filter by filter,
/// 0x11 for what was not subscribed. [MQTT-3.10.4-1 3.1.1] [MQTT-3.10.4-4 3.1.1] [MQTT-3.10.4-5 3.1.1]
/// [MQTT-3.10.4-6 3.1.1]
#[test]
fn unsuback_answers_filter_by_filter() {
    on_shards(|broker| {
        let filters = ["a/+", "a/b", "never", "$share/g/a", "$share/h/a", "a/+"];
        let kept = ["A/+", "a/#"];
        for options in both("client") {
            let v5 = options.encode()[8] == 5;
            let mut client = broker.connect(options);
            client.subscribe_all(&[sub("a/+"), sub("$share/g/a"), sub("a/#"), sub("A/+")]);
            let codes = client.unsubscribe(&filters);
            let expected: &[u8] = if v5 {
                &[0, 0x11, 0x11, 0, 0x11, 0x11]
            } else {
                &[]
            };
            assert_eq!(codes, expected);
            assert_eq!(broker.stats().subscriptions, kept.len() as u64);
            client.publish(&message("a", "x"));
            client.expect(&message("a", "x")); // `a/#` alone is left of those that match
            client.expect_nothing();
            client.disconnect();
        }
    });
}

/// [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-2 3.1.1] [MQTT-3.10.4-3 3.1.1]: after UNSUBSCRIBE nothing new
/// comes; what has begun is completed.
#[test]
fn unsubscribing_completes_what_has_begun() {
    on_shards(|broker| {
        for options in both("client") {
            let options = options.kept().manual();
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options.clone());
            client.subscribe(sub("door").qos(2));
            publisher.publish(&message("door", "1").qos(1));
            publisher.publish(&message("door", "2").qos(2));
            client.expect(&message("door", "1").qos(1).id(1));
            client.expect(&message("door", "2").qos(2).id(2));
            client.unsubscribe(&["door"]);
            publisher.publish(&message("door", "3").qos(1));
            client.expect_nothing();
            client.cut();
            let mut client = broker.connect(options);
            client.expect(&message("door", "1").qos(1).dup().id(1));
            client.expect(&message("door", "2").qos(2).dup().id(2));
            client.pubrec(2);
            client.expect_packet(Received::PubRel(2, ReasonCode::Success));
            client.pubcomp(2);
            client.expect_nothing();
            client.disconnect();
            broker.connect(v5("client")).disconnect();
        }
    });
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.5-1 3.1.1]: one copy for overlapping subscriptions, with
/// the highest QoS and every identifier.
#[test]
fn overlapping_subscriptions_bring_one_copy() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("a/b").qos(0).identifier(5));
        client.subscribe(sub("a/+").qos(2).identifier(268_435_455));
        client.subscribe(sub("a/#").qos(1).retain_as_published());
        client.subscribe(sub("#").qos(0).identifier(1));
        client.subscribe(sub("other/#").qos(2).identifier(99));
        for qos in 0..=2 {
            publisher.publish(&message("a/b", "x").qos(qos).retain());
            let received = client.messages();
            assert_eq!(received.len(), 1);
            let mut identifiers = received[0].identifiers.clone();
            identifiers.sort_unstable();
            assert_eq!(identifiers, [1, 5, 268_435_455]);
            assert_eq!((received[0].qos, received[0].retain), (qos, true));
        }
        publisher.publish(&message("a/c", "x").qos(2));
        let received = client.messages();
        assert_eq!((received.len(), received[0].qos), (1, 2));
        publisher.publish(&message("a/b", "").retain());
        let mut old = broker.connect(v3("old"));
        old.subscribe(sub("a/b").qos(0));
        old.subscribe(sub("a/+").qos(1));
        publisher.publish(&message("a/b", "x").qos(2));
        old.expect(&message("a/b", "x").qos(1));
        old.expect_nothing();
    });
}

/// [MQTT-3.3.4-6]: only the broker says Subscription Identifiers.
#[test]
fn a_client_sends_no_subscription_identifier() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.send_bytes(&[0x30, 6, 0, 1, b'a', 2, 0x0B, 1]);
        client.expect_end(ReasonCode::ProtocolError);
    });
}

/// [MQTT-3.8.3-3]: No Local keeps back what the client itself published, over a takeover too; others
/// of the same user are others.
#[test]
fn no_local_keeps_own_messages_back() {
    on_shards(|broker| {
        let mut other = broker.connect(v5("other"));
        let mut client = broker.connect(v5("client").kept().at(0));
        client.subscribe(sub("a/+").qos(1).no_local().identifier(1));
        client.subscribe(sub("b/+").qos(1));
        client.publish(&message("a/x", "own").qos(1).retain());
        client.expect_nothing();
        client.publish(&message("b/x", "own").qos(1));
        client.expect(&message("b/x", "own").qos(1));
        other.publish(&message("a/x", "other").qos(1));
        client.expect(&message("a/x", "other").qos(1).identifier(1));

        let mut taken = broker.connect(v5("client").kept().at(1));
        client.expect_end(ReasonCode::SessionTakenOver);
        taken.publish(&message("a/x", "own").qos(1));
        taken.expect_nothing();
        // Of two overlapping subscriptions only the one without No Local takes it.
        taken.subscribe(sub("a/#").qos(0).identifier(2).without_retained());
        taken.publish(&message("a/x", "own").qos(1));
        taken.expect(&message("a/x", "own").identifier(2));
    });
}

/// [MQTT-3.8.3-4]: No Local on a shared subscription is a Protocol Error.
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.push_subscribe(sub("$share/g/a").no_local());
        client.expect_end(ReasonCode::ProtocolError);
        assert_eq!(broker.stats().subscriptions, 0);
    });
}

/// One client publishes to a thousand subscribers of all shards, and each gets one copy.
#[test]
fn everybody_gets_one_copy() {
    on_shards(|broker| {
        let mut clients: Vec<_> = (0..300)
            .map(|number| {
                let options = if number % 3 == 0 {
                    v3(&format!("c{number}"))
                } else {
                    v5(&format!("c{number}"))
                };
                let mut client = broker.connect(options);
                client.subscribe(sub("news/#").qos((number % 3) as u8));
                client
            })
            .collect();
        let mut publisher = broker.connect(v5("publisher"));
        for qos in 0..=2 {
            publisher.publish(&message("news/today", "x").qos(qos));
            for (number, client) in clients.iter_mut().enumerate() {
                client.expect(&message("news/today", "x").qos(qos.min((number % 3) as u8)));
                client.expect_nothing();
            }
        }
        assert_eq!(broker.stats().publishes_sent.iter().sum::<u64>(), 900);
    });
}
