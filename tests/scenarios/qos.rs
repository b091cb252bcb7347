//! The three delivery protocols, section 4.3.

use shardmq::wire::{AckKind, ReasonCode};

use crate::client::{both, on_shards, v3, v5};
use crate::packets::{Received, message, sub};

/// [MQTT-3.8.4-8] [MQTT-3.3.4-1] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]: a message comes with the lower of
/// its QoS and the granted one, DUP 0. [MQTT-3.8.4-6 3.1.1] [MQTT-3.3.4-1 3.1.1] [MQTT-4.3.1-1 3.1.1]
/// [MQTT-4.3.2-1 3.1.1]
#[test]
fn a_message_comes_with_the_lower_of_both_qos() {
    on_shards(|broker| {
        for (from, to) in [(v5("p"), v5("s")), (v3("p"), v5("s")), (v5("p"), v3("s"))] {
            for granted in 0..=2 {
                let mut publisher = broker.connect(from.clone());
                let mut subscriber = broker.connect(to.clone());
                subscriber.subscribe(sub("door").qos(granted));
                for sent in 0..=2 {
                    let reason = publisher.publish(&message("door", "open").qos(sent));
                    assert_eq!(reason, ReasonCode::Success);
                    subscriber.expect(&message("door", "open").qos(sent.min(granted)));
                    subscriber.expect_nothing();
                }
            }
        }
    });
}

/// [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-3.3.1-3]: after PUBACK the identifier is free, so the same PUBLISH is
/// a new message, DUP or not, and DUP is not passed on. [MQTT-4.3.2-2 3.1.1] [MQTT-3.3.1-3 3.1.1]
#[test]
fn a_repeated_publish_of_qos_1_is_a_new_message() {
    on_shards(|broker| {
        for options in both("publisher") {
            let mut subscriber = broker.connect(v5("subscriber"));
            subscriber.subscribe(sub("door").qos(1));
            let mut publisher = broker.connect(options);
            for repeated in [message("door", "open"), message("door", "open").dup()] {
                publisher.send_publish(&repeated.qos(1).id(5));
                publisher.expect_packet(Received::PubAck(5, ReasonCode::Success));
                subscriber.expect(&message("door", "open").qos(1));
            }
            subscriber.expect_nothing();
        }
    });
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]: a QoS 2 message is delivered once until
/// PUBREL, however often it is sent and across connections; then its identifier is free.
/// [MQTT-4.3.3-2 3.1.1]
#[test]
fn a_repeated_publish_of_qos_2_is_delivered_once() {
    on_shards(|broker| {
        for options in both("publisher") {
            let options = options.kept();
            let mut subscriber = broker.connect(v5("subscriber"));
            subscriber.subscribe(sub("door").qos(2));
            let mut publisher = broker.connect(options.clone());
            publisher.send_publish(&message("door", "once").qos(2).id(5));
            publisher.expect_packet(Received::PubRec(5, ReasonCode::Success));
            for _ in 0..2 {
                publisher.send_publish(&message("door", "once").qos(2).id(5).dup());
                publisher.expect_packet(Received::PubRec(5, ReasonCode::Success));
            }
            publisher.cut();
            let mut publisher = broker.connect(options);
            publisher.send_publish(&message("door", "once").qos(2).id(5).dup());
            publisher.expect_packet(Received::PubRec(5, ReasonCode::Success));
            subscriber.expect(&message("door", "once").qos(2));
            subscriber.expect_nothing();

            publisher.pubrel(5);
            publisher.expect_packet(Received::PubComp(5, ReasonCode::Success));
            publisher.send_publish(&message("door", "twice").qos(2).id(5));
            publisher.expect_packet(Received::PubRec(5, ReasonCode::Success));
            subscriber.expect(&message("door", "twice").qos(2));
            subscriber.expect_nothing();
            publisher.pubrel(5);
            publisher.expect_packet(Received::PubComp(5, ReasonCode::Success));
        }
    });
}

/// A PUBREL that nobody waits for is answered with PUBCOMP 0x92; 3.1.1 has no code to say it with.
#[test]
fn an_unknown_pubrel_is_answered() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.pubrel(9);
        client.expect_packet(Received::PubComp(9, ReasonCode::PacketIdentifierNotFound));
        let mut client = broker.connect(v3("client"));
        client.pubrel(9);
        client.expect_packet(Received::PubComp(9, ReasonCode::Success));
    });
}

/// [MQTT-4.3.3-4] [MQTT-4.3.3-6]: PUBREC is answered with PUBREL, and PUBLISH is never sent again. A PUBREC
/// for nothing gets PUBREL 0x92.
#[test]
fn pubrec_is_answered_with_pubrel() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").manual());
        client.subscribe(sub("door").qos(2));
        publisher.publish(&message("door", "open").qos(2));
        let id = client.expect(&message("door", "open").qos(2));
        for _ in 0..2 {
            client.pubrec(id);
            client.expect_packet(Received::PubRel(id, ReasonCode::Success));
        }
        client.pubcomp(id);
        client.expect_nothing();
        client.pubrec(id);
        client.expect_packet(Received::PubRel(id, ReasonCode::PacketIdentifierNotFound));
        client.pubrec(77);
        client.expect_packet(Received::PubRel(77, ReasonCode::PacketIdentifierNotFound));
    });
}

/// [MQTT-4.3.2-3] [MQTT-4.3.3-3]: only the right answer ends an exchange: a PUBACK for a QoS 2 message and a
/// PUBREC for a QoS 1 message do not.
#[test]
fn the_wrong_acknowledgement_ends_nothing() {
    on_shards(|broker| {
        let options = v5("client").kept().manual();
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(options.clone());
        client.subscribe(sub("door").qos(2));
        publisher.publish(&message("door", "1").qos(1));
        publisher.publish(&message("door", "2").qos(2));
        client.expect(&message("door", "1").qos(1).id(1));
        client.expect(&message("door", "2").qos(2).id(2));
        client.puback(2);
        client.pubcomp(2);
        client.acknowledge(AckKind::PubRec, 1, ReasonCode::UnspecifiedError);
        client.cut();
        let mut client = broker.connect(options);
        client.expect(&message("door", "1").qos(1).dup().id(1));
        client.expect(&message("door", "2").qos(2).dup().id(2));
    });
}

/// Who publishes where nobody listens is told so in version 5.
#[test]
fn a_publisher_learns_that_nobody_listens() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let nobody = ReasonCode::NoMatchingSubscribers;
        assert_eq!(publisher.publish(&message("door", "open").qos(1)), nobody);
        assert_eq!(publisher.publish(&message("door", "open").qos(2)), nobody);
        let mut subscriber = broker.connect(v5("subscriber"));
        subscriber.subscribe(sub("door"));
        assert_eq!(
            publisher.publish(&message("door", "open").qos(1)),
            ReasonCode::Success
        );
        subscriber.disconnect();
        assert_eq!(publisher.publish(&message("door", "open").qos(2)), nobody);
    });
}

/// A PUBLISH counts although its client closes right behind it.
#[test]
fn the_last_words_of_a_client_count() {
    on_shards(|broker| {
        let mut subscriber = broker.connect(v5("subscriber"));
        subscriber.subscribe(sub("door").qos(2));
        for (number, options) in both("publisher").into_iter().enumerate() {
            for qos in 0..=2 {
                for shard in 0..broker.shards() {
                    let mut publisher = broker.push_connect(options.clone().at(shard));
                    let text = format!("{number} {qos} {shard}");
                    publisher.push_publish(&message("door", &text).qos(qos).id(1));
                    broker.world().cut(publisher.link);
                    broker.settle();
                    subscriber.expect(&message("door", &text).qos(qos));
                }
            }
        }
        subscriber.expect_nothing();
    });
}
