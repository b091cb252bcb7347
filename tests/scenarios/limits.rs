//! What one side announces and the other one obeys: sections 3.1.2.11, 3.2.2.3 and 4.9.

use shardmq::shard::Settings;
use shardmq::stats::DropReason;
use shardmq::wire::{AckKind, QoS, ReasonCode};

use crate::client::{Client, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{Received, Welcome, message, sub};

/// [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]: no more unacknowledged messages of QoS 1 and 2 together than
/// the client's Receive Maximum. PUBACK, PUBCOMP and PUBREC with an error make room, PUBREC does not.
#[test]
fn a_client_gets_no_more_than_its_receive_maximum() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").receive_maximum(2).manual());
        client.subscribe(sub("door").qos(2));
        for (number, qos) in [1, 2, 2, 2, 1, 1, 1].into_iter().enumerate() {
            publisher.publish(&message("door", number.to_string()).qos(qos));
        }
        client.expect(&message("door", "0").qos(1).id(1));
        client.expect(&message("door", "1").qos(2).id(2));
        client.expect_nothing();
        client.puback(1);
        client.expect(&message("door", "2").qos(2).id(3));
        client.pubrec(2);
        client.expect_packet(Received::PubRel(2, ReasonCode::Success));
        client.expect_nothing();
        client.pubcomp(2);
        client.expect(&message("door", "3").qos(2).id(4));
        client.expect_nothing();
        client.acknowledge(AckKind::PubRec, 3, ReasonCode::NotAuthorized);
        client.expect(&message("door", "4").qos(1).id(5));
        client.expect_nothing();
        // Acknowledgements of nothing raise no quota.
        for id in [1, 1, 2, 3, 900] {
            client.puback(id);
        }
        client.pubcomp(3);
        client.expect_nothing();
        client.puback(5);
        client.expect(&message("door", "5").qos(1).id(6));
        client.expect_nothing();
    });
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3]: everything else still flows.
#[test]
fn a_spent_quota_stops_nothing_else() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").receive_maximum(1).manual());
        client.subscribe(sub("door").qos(1));
        publisher.publish(&message("door", "1").qos(1));
        publisher.publish(&message("door", "2").qos(1));
        client.expect(&message("door", "1").qos(1));
        publisher.publish(&message("door", "3"));
        client.expect(&message("door", "3"));
        client.ping();
        client.subscribe(sub("window").qos(1));
        client.unsubscribe(&["window"]);
        client.send_publish(&message("elsewhere", "x").qos(2).id(3));
        client.expect_packet(Received::PubRec(3, ReasonCode::NoMatchingSubscribers));
        client.pubrel(3);
        client.expect_packet(Received::PubComp(3, ReasonCode::Success));
        client.expect_nothing();
    });
}

/// The broker has a bound of its own, whatever a client allows; it holds for 3.1.1 too.
#[test]
fn the_broker_bounds_what_is_in_flight() {
    let settings = Settings {
        max_inflight: 3,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        for options in [v5("client").receive_maximum(1_000), v3("client")] {
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options.manual());
            client.subscribe(sub("door").qos(1));
            for number in 0..5 {
                publisher.publish(&message("door", number.to_string()).qos(1));
            }
            assert_eq!(client.payloads(), ["0", "1", "2"]);
            client.puback(1);
            client.puback(2);
            assert_eq!(client.payloads(), ["3", "4"]);
            client.disconnect();
        }
    });
}

/// [MQTT-3.3.4-7]: a client that exceeds ours is cut off with 0x93. What is acknowledged does not
/// count, nor does a QoS 2 message that comes again.
#[test]
fn a_client_obeys_our_receive_maximum() {
    let settings = Settings {
        receive_maximum: 2,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.welcome.receive_maximum, Some(2));
        for id in 1..=20 {
            client.publish(&message("a", "b").qos(1).id(id));
        }
        for id in [1, 2, 1, 2] {
            client.send_publish(&message("a", "b").qos(2).id(id));
            assert!(matches!(client.next(), Some(Received::PubRec(..))));
        }
        client.send_publish(&message("a", "b").qos(0));
        client.pubrel(1);
        client.expect_packet(Received::PubComp(1, ReasonCode::Success));
        client.send_publish(&message("a", "b").qos(2).id(3));
        assert!(matches!(client.next(), Some(Received::PubRec(..))));
        client.send_publish(&message("a", "b").qos(1).id(4));
        client.expect_end(ReasonCode::ReceiveMaximumExceeded);
    });
}

/// The unacknowledged include QoS 1 messages whose PUBACK waits for another shard.
#[test]
fn messages_that_wait_for_other_shards_count_as_unacknowledged() {
    let broker = crate::client::Broker::new(
        3,
        &Settings {
            receive_maximum: 2,
            ..settings()
        },
    );
    let mut there = broker.connect(v5(&broker.on(1, "there")));
    there.subscribe(sub("there").qos(1));
    let mut client = broker.connect(v5(&broker.on(0, "client")));
    broker.world().lane_depth = 0;
    client.send_publish(&message("there", "1").qos(1).id(1));
    client.send_publish(&message("there", "2").qos(1).id(2));
    client.expect_nothing();
    client.send_publish(&message("there", "3").qos(1).id(3));
    client.expect_end(ReasonCode::ReceiveMaximumExceeded);
    broker.world().lane_depth = usize::MAX;
    assert_eq!(there.payloads(), ["1", "2"]);
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]: a PUBLISH that is too large for one client is dropped for it alone,
/// counted, and treated as if it had been sent: its quota is free.
#[test]
fn a_too_large_message_is_dropped_for_that_client_alone() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut wide = broker.connect(v5("wide"));
        wide.subscribe(sub("door").qos(2));
        // Size of the largest that fits: header 2, topic 6, identifier 2, properties 1, payload 89.
        let mut narrow = broker.connect(
            v5("narrow")
                .maximum_packet_size(100)
                .receive_maximum(1)
                .manual()
                .kept(),
        );
        narrow.subscribe(sub("door").qos(2));
        let large = "x".repeat(92);
        for qos in 0..=2 {
            publisher.publish(&message("door", &large).qos(qos));
            wide.expect(&message("door", &large).qos(qos));
        }
        narrow.expect_nothing();
        assert_eq!(broker.dropped(DropReason::TooLarge), 3);
        let fits = message("door", "x".repeat(89)).qos(1);
        publisher.publish(&fits);
        let id = narrow.expect(&fits);
        // Behind an unacknowledged one in the queue, the same.
        publisher.publish(&message("door", &large).qos(1));
        publisher.publish(&message("door", "small").qos(1));
        narrow.puback(id);
        narrow.expect(&message("door", "small").qos(1));
        narrow.expect_nothing();
        assert_eq!(
            (
                broker.dropped(DropReason::TooLarge),
                broker.dropped_in_all()
            ),
            (4, 4)
        );
        assert_eq!(broker.stats().queued, 0);
    });
}

/// [MQTT-3.1.2-25]: also a message that is too large only on the new connection.
#[test]
fn a_message_may_be_too_large_to_be_sent_again() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").kept().manual());
        client.subscribe(sub("door").qos(1));
        publisher.publish(&message("door", "x".repeat(100)).qos(1));
        publisher.publish(&message("door", "small").qos(1));
        client.expect(&message("door", "x".repeat(100)).qos(1).id(1));
        client.expect(&message("door", "small").qos(1).id(2));
        client.cut();
        let mut client = broker.connect(v5("client").kept().manual().maximum_packet_size(60));
        client.expect(&message("door", "small").qos(1).dup().id(2));
        client.puback(2);
        client.cut();
        let mut client = broker.connect(v5("client").kept().manual());
        client.expect_nothing();
    });
}

/// [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2] [MQTT-3.9.2-1] [MQTT-3.11.2-1] [MQTT-3.14.2-3]
/// [MQTT-3.2.2-19]: no answer is larger than the client takes; reasons are left out first.
#[test]
fn no_answer_is_larger_than_the_client_takes() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.dial(v5("client").maximum_packet_size(24).manual());
        let mut sizes = vec![next_size(&mut client)];
        client.subscribe_all(&[sub("a+").qos(1), sub("door").qos(2)]);
        client.unsubscribe(&["never"]);
        for (qos, id) in [(1, 11), (2, 12)] {
            client.send_publish(&message("nobody", "x").qos(qos).id(id));
            sizes.push(next_size(&mut client));
        }
        publisher.publish(&message("door", "x").qos(2));
        sizes.push(next_size(&mut client));
        client.pubrec(1);
        sizes.push(next_size(&mut client));
        client.pubrec(99);
        sizes.push(next_size(&mut client));
        client.pubrel(98);
        sizes.push(next_size(&mut client));
        client.send_publish(&message("$share/a", "x").alias(60_000));
        sizes.push(next_size(&mut client));
        client.expect_closed();
        assert!(
            sizes.iter().all(|&size| (1..=24).contains(&size)),
            "{sizes:?}"
        );
    });
}

fn next_size(client: &mut Client) -> usize {
    client.next_frame().map_or(0, |frame| frame.len())
}

/// [MQTT-3.1.2-24]: a client that takes not even CONNACK is not served.
#[test]
fn a_client_that_takes_no_connack_is_not_served() {
    on_shards(|broker| {
        let mut client = broker.dial(v5("client").maximum_packet_size(4));
        client.expect_closed();
        let told = v5("client").maximum_packet_size(10);
        broker.expect_refused(told, ReasonCode::PacketTooLarge);
        assert_eq!(broker.stats().sessions, 0);
    });
}

/// [MQTT-3.1.2-29]: a client that wants no problem information gets no reason string in any answer; the
/// others do, where there is something to explain.
#[test]
fn problem_information_can_be_declined() {
    on_shards(|broker| {
        let mut silent = broker.connect(v5("silent").without_problem_information());
        let mut curious = broker.connect(v5("curious"));
        let subscribe = [0x82, 8, 0, 9, 0, 0, 2, b'a', b'+', 0];
        let questions = |client: &mut Client| {
            client.send_publish(&message("$SYS/x", "x").qos(1).id(1));
            client.send_publish(&message("$SYS/x", "x").qos(2).id(2));
            client.pubrel(98);
            client.pubrec(97);
            client.send_bytes(&subscribe);
        };
        questions(&mut silent);
        questions(&mut curious);
        let answers = [
            &[0x40, 3, 0, 1, 0x87][..],
            &[0x50, 3, 0, 2, 0x87],
            &[0x70, 3, 0, 98, 0x92],
            &[0x62, 3, 0, 97, 0x92],
            &[0x90, 4, 0, 9, 0, 0x8F],
        ];
        for answer in answers {
            let explained = curious.next_frame().expect("an answer comes");
            assert_eq!(explained[0], answer[0]);
            assert!(explained.contains(&0x1F) && explained.len() > answer.len());
            let frame = silent.next_frame().expect("an answer comes");
            // With or without a Property Length of 0: both say nothing more.
            assert!(
                frame == answer || frame == with_empty_properties(answer),
                "{frame:?}"
            );
        }
    });
}

fn with_empty_properties(answer: &[u8]) -> Vec<u8> {
    let mut frame = answer.to_vec();
    frame[1] += 1;
    frame.push(0);
    frame
}

/// [MQTT-3.2.2-15]: a packet above our Maximum Packet Size is refused with 0x95 as soon as its length is
/// known, before its payload is read.
#[test]
fn a_too_large_packet_is_refused_by_its_length() {
    let settings = Settings {
        maximum_packet_size: 1_000,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.welcome.maximum_packet_size, Some(1_000));
        client.subscribe(sub("a").qos(0));
        // 3 bytes of header, 3 of topic, 1 of properties.
        let largest = message("a", "x".repeat(993));
        client.publish(&largest);
        client.expect(&largest);
        client.send_bytes(&[0x30, 0xE6, 0x07]); // 998 bytes follow
        client.expect_end(ReasonCode::PacketTooLarge);
        let mut client = broker.connect(v3("client"));
        client.send_bytes(&[0x30, 0xE6, 0x07]);
        client.expect_closed();
    });
}

/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-11] [MQTT-3.2.2-12]: Maximum QoS.
#[test]
fn a_maximum_qos_is_announced_and_enforced() {
    let settings = Settings {
        maximum_qos: QoS::AtLeastOnce,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let refused = v5("client").will(message("will", "w").qos(2));
        broker.expect_refused(refused, ReasonCode::QoSNotSupported);
        let mut client = broker.connect(v5("client").will(message("will", "w").qos(1)));
        assert_eq!(client.welcome.maximum_qos, Some(1));
        assert_eq!(
            client.subscribe_all(&[sub("a").qos(2), sub("b").qos(0)]),
            [1, 0]
        );
        client.publish(&message("a", "x").qos(1));
        client.expect(&message("a", "x").qos(1));
        client.send_publish(&message("a", "x").qos(2).id(5));
        client.expect_end(ReasonCode::QoSNotSupported);
        let mut client = broker.connect(v3("client"));
        client.send_publish(&message("a", "x").qos(2).id(5));
        client.expect_closed();
    });
}

/// [MQTT-3.2.2-13] [MQTT-3.2.2-14]: Retain Available 0.
#[test]
fn without_retain_it_is_refused() {
    let settings = Settings {
        retain_available: false,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let refused = v5("client").will(message("will", "w").retain());
        broker.expect_refused(refused, ReasonCode::RetainNotSupported);
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.welcome.retain_available, Some(false));
        client.send_publish(&message("a", "x").retain());
        client.expect_end(ReasonCode::RetainNotSupported);
        assert_eq!(broker.stats().retained, 0);
    });
}

/// Wildcards (0xA2), shared subscriptions (0x9E) and identifiers (0xA1) can be switched off; a 3.1.1
/// client is told 0x80. [MQTT-3.8.3-2 3.1.1] [MQTT-3.9.3-2 3.1.1]
#[test]
fn kinds_of_subscriptions_can_be_switched_off() {
    let settings = Settings {
        wildcard_subscription_available: false,
        shared_subscription_available: false,
        subscription_identifiers_available: false,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut client = broker.connect(v5("client"));
        let Welcome {
            wildcards,
            shared,
            identifiers,
            ..
        } = client.welcome.clone();
        assert_eq!(
            (wildcards, shared, identifiers),
            (Some(false), Some(false), Some(false))
        );
        let subs = ["a/+", "#", "$share/g/a", "a/b"].map(sub);
        assert_eq!(client.subscribe_all(&subs), [0xA2, 0xA2, 0x9E, 0]);
        assert_eq!(client.subscribe_all(&[sub("a").identifier(1)]), [0xA1]);
        client.publish(&message("a/b", "x"));
        client.expect(&message("a/b", "x"));
        client.publish(&message("a/c", "x"));
        client.publish(&message("a", "x"));
        client.expect_nothing();
        let mut client = broker.connect(v3("client"));
        assert_eq!(client.subscribe_all(&subs), [0x80, 0x80, 0x80, 0]);
    });
}

/// What is not limited is not announced.
#[test]
fn nothing_is_announced_that_the_standard_assumes() {
    let settings = Settings {
        receive_maximum: u16::MAX,
        topic_alias_maximum: 0,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let welcome = broker.connect(v5("client")).welcome;
        let maximum_packet_size = welcome.maximum_packet_size;
        assert_eq!(
            welcome,
            Welcome {
                maximum_packet_size,
                ..Welcome::default()
            }
        );
    });
}

/// A session has a bounded number of subscriptions; the next one is 0x97, an old one can be changed.
#[test]
fn subscriptions_are_bounded() {
    let settings = Settings {
        max_subscriptions: 2,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut client = broker.connect(v5("client"));
        assert_eq!(
            client.subscribe_all(&["a", "b", "c"].map(sub)),
            [0, 0, 0x97]
        );
        assert_eq!(
            client.subscribe_all(&[sub("a").qos(1), sub("c")]),
            [1, 0x97]
        );
        assert_eq!(client.unsubscribe(&["b"]), [0]);
        assert_eq!(client.subscribe_all(&[sub("c")]), [0]);
        let mut client = broker.connect(v3("old"));
        assert_eq!(
            client.subscribe_all(&["a", "b", "c"].map(sub)),
            [0, 0, 0x80]
        );
    });
}
