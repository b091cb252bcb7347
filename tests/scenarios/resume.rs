//! What is sent again after a reconnect, and what is not: section 4.4.

use shardmq::wire::{AckKind, ReasonCode};

use crate::client::{Broker, Client, Options, both, on_shards, settings, v5};
use crate::packets::{Received, message, sub};

/// A subscriber that acknowledges by hand, and four messages in flight to it: 1 (QoS 1), 2 (QoS 2),
/// 3 (QoS 1) and 4 (QoS 2).
fn four_in_flight(broker: &Broker, options: Options) -> (Client, Client) {
    let mut publisher = broker.connect(v5("publisher"));
    let mut client = broker.connect(options);
    client.subscribe(sub("door").qos(2));
    for (id, qos) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        publisher.publish(&message("door", id.to_string()).qos(qos));
        client.expect(&message("door", id.to_string()).qos(qos).id(id));
    }
    (publisher, client)
}

/// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-2.2.1-5]: unacknowledged PUBLISH and PUBREL packets come
/// again, in their order, under their identifiers, PUBLISH with DUP, and before anything new.
/// [MQTT-4.4.0-1 3.1.1] [MQTT-4.6.0-1 3.1.1] [MQTT-3.3.1-1 3.1.1] [MQTT-2.3.1-4 3.1.1] [MQTT-2.3.1-6 3.1.1]
#[test]
fn what_is_not_acknowledged_comes_again() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let (mut publisher, mut client) =
                four_in_flight(broker, options.clone().kept().manual());
            client.pubrec(2);
            client.expect_packet(Received::PubRel(2, ReasonCode::Success));
            client.puback(3);
            client.cut();
            publisher.publish(&message("door", "new").qos(1));

            let mut client = broker.connect(options.clone().kept().manual());
            client.expect(&message("door", "1").qos(1).dup().id(1));
            client.expect_packet(Received::PubRel(2, ReasonCode::Success));
            client.expect(&message("door", "4").qos(2).dup().id(4));
            client.expect(&message("door", "new").qos(1).id(5));
            client.expect_nothing();
            client.disconnect();
            broker.connect(options).disconnect();
        }
    });
}

/// [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6]: a QoS 2 exchange that is cut in every state goes on
/// where it was. [MQTT-4.3.3-1 3.1.1]
#[test]
fn an_exchange_of_qos_2_goes_on_after_each_cut() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let options = options.kept().manual();
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options.clone());
            client.subscribe(sub("door").qos(2));
            publisher.publish(&message("door", "open").qos(2));
            client.expect(&message("door", "open").qos(2).id(1));
            // Before PUBREC: PUBLISH again, as often as it takes.
            for _ in 0..3 {
                client.cut();
                client = broker.connect(options.clone());
                client.expect(&message("door", "open").qos(2).dup().id(1));
                client.expect_nothing();
            }
            // After PUBREC: PUBREL, never PUBLISH.
            client.pubrec(1);
            client.expect_packet(Received::PubRel(1, ReasonCode::Success));
            for _ in 0..3 {
                client.cut();
                client = broker.connect(options.clone());
                client.expect_packet(Received::PubRel(1, ReasonCode::Success));
                client.expect_nothing();
            }
            // A client whose PUBREC was not sure to arrive says it again.
            client.pubrec(1);
            client.expect_packet(Received::PubRel(1, ReasonCode::Success));
            client.pubcomp(1);
            // After PUBCOMP: nothing.
            client.cut();
            client = broker.connect(options.clone());
            client.expect_nothing();
            client.disconnect();
            broker.connect(v5("vehicle")).disconnect();
        }
    });
}

/// [MQTT-4.4.0-1]: nothing is sent again while the connection lives, however long it takes.
#[test]
fn nothing_is_sent_again_while_the_connection_lives() {
    on_shards(|broker| {
        let (_publisher, mut client) = four_in_flight(broker, v5("vehicle").kept().manual());
        client.pubrec(2);
        client.expect_packet(Received::PubRel(2, ReasonCode::Success));
        broker.advance(3_600.0);
        client.expect_nothing();
    });
}

/// [MQTT-4.4.0-2]: a PUBACK or PUBREC with an error ends the exchange; nothing of it comes again.
#[test]
fn a_refused_message_does_not_come_again() {
    on_shards(|broker| {
        let (_publisher, mut client) = four_in_flight(broker, v5("vehicle").kept().manual());
        client.acknowledge(AckKind::PubAck, 1, ReasonCode::UnspecifiedError);
        client.acknowledge(AckKind::PubRec, 2, ReasonCode::QuotaExceeded);
        client.expect_nothing(); // no PUBREL after a PUBREC with an error
        client.cut();
        let mut client = broker.connect(v5("vehicle").kept().manual());
        client.expect(&message("door", "3").qos(1).dup().id(3));
        client.expect(&message("door", "4").qos(2).dup().id(4));
        client.expect_nothing();
    });
}

/// [MQTT-3.3.4-9]: Receive Maximum of the new connection holds for what is sent again too.
#[test]
fn sending_again_obeys_the_receive_maximum() {
    on_shards(|broker| {
        let (_publisher, mut client) = four_in_flight(broker, v5("vehicle").kept().manual());
        client.cut();
        let mut client = broker.connect(v5("vehicle").kept().manual().receive_maximum(2));
        client.expect(&message("door", "1").qos(1).dup().id(1));
        client.expect(&message("door", "2").qos(2).dup().id(2));
        client.expect_nothing();
        client.puback(1);
        client.expect(&message("door", "3").qos(1).dup().id(3));
        client.expect_nothing();
        client.pubrec(2);
        client.expect_packet(Received::PubRel(2, ReasonCode::Success));
        client.expect_nothing(); // PUBREC gives no quota back, PUBCOMP does
        client.pubcomp(2);
        client.expect(&message("door", "4").qos(2).dup().id(4));
        client.expect_nothing();
    });
}

/// An acknowledgement from before the cut that arrives late counts, also for what was not sent again
/// yet.
#[test]
fn an_acknowledgement_counts_before_the_message_is_sent_again() {
    on_shards(|broker| {
        let (mut publisher, mut client) = four_in_flight(broker, v5("vehicle").kept().manual());
        client.cut();
        let mut client = broker.connect(v5("vehicle").kept().manual().receive_maximum(1));
        client.expect(&message("door", "1").qos(1).dup().id(1));
        client.puback(3);
        client.expect_nothing();
        client.puback(1);
        client.expect(&message("door", "2").qos(2).dup().id(2));
        client.pubrec(2);
        client.expect_packet(Received::PubRel(2, ReasonCode::Success));
        client.pubcomp(2);
        client.expect(&message("door", "4").qos(2).dup().id(4));
        client.acknowledge(AckKind::PubRec, 4, ReasonCode::UnspecifiedError);
        publisher.publish(&message("door", "5").qos(1));
        client.expect(&message("door", "5").qos(1).id(5));
        client.expect_nothing();
    });
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]: identifiers go round, and never to one that is in use, also
/// if that one is from before a reconnect.
#[test]
fn identifiers_wrap_past_those_in_use() {
    let broker = Broker::new(1, &settings());
    let mut publisher = broker.connect(v5("publisher"));
    let options = v5("vehicle").kept().manual();
    let mut client = broker.connect(options.clone());
    client.subscribe(sub("door").qos(1));
    publisher.publish(&message("door", "0").qos(1));
    client.expect(&message("door", "0").qos(1).id(1));
    client.cut();
    let mut client = broker.connect(options);
    client.expect(&message("door", "0").qos(1).dup().id(1));
    for id in 2..=u16::MAX {
        publisher.push_publish(&message("door", "x").qos(1).id(1));
        client.expect(&message("door", "x").qos(1).id(id));
        let mut puback = Vec::new();
        shardmq::wire::Ack::new(crate::packets::packet_id(id), ReasonCode::Success).encode(
            AckKind::PubAck,
            client.version(),
            &mut puback,
        );
        client.push(&puback);
    }
    publisher.send_publish(&message("door", "last").qos(1).id(1));
    client.expect(&message("door", "last").qos(1).id(2)); // 1 is in use and passed over
    client.puback(1);
    client.puback(2);
    publisher.publish(&message("door", "on").qos(1));
    client.expect(&message("door", "on").qos(1).id(3));
}
