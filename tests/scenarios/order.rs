//! Order, section 4.6: of messages, and of acknowledgements that wait for other shards.

use shardmq::wire::ReasonCode;

use crate::client::{Broker, on_shards, settings, v3, v5};
use crate::packets::{Received, message, sub};

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-5 3.1.1] [MQTT-4.6.0-6 3.1.1]: messages of one publisher, topic
/// and QoS stay in order: for fast readers and slow ones, connected and away.
#[test]
fn messages_of_one_publisher_stay_in_order() {
    on_shards(|broker| {
        let mut publishers: Vec<_> = (0..3)
            .map(|shard| broker.connect(v5(&broker.on(shard, &format!("publisher{shard}-")))))
            .collect();
        let slow = v5(&broker.on(0, "slow")).kept().receive_maximum(3);
        let away = v3(&broker.on(1, "away")).kept();
        let mut fast = broker.connect(v5(&broker.on(2, "fast")));
        fast.subscribe(sub("line/+").qos(2));
        let mut slow = broker.connect(slow);
        slow.subscribe(sub("line/#").qos(2));
        let mut client = broker.connect(away.clone());
        client.subscribe(sub("+/1").qos(1));
        client.cut();
        for number in 0..200_usize {
            for (index, publisher) in publishers.iter_mut().enumerate() {
                let qos = 1 + (number % 2) as u8;
                let message = message("line/1", format!("{index} {number:03}"));
                publisher.push_publish(&message.qos(qos).id(number as u16 + 1));
            }
            if number % 5 == 0 {
                broker.settle();
            }
        }
        let mut away = broker.connect(away);
        for client in [&mut fast, &mut slow, &mut away] {
            let payloads = client.payloads();
            assert_eq!(payloads.len(), 600);
            for (index, parity) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
                let numbers: Vec<usize> = payloads
                    .iter()
                    .filter_map(|payload| payload.strip_prefix(&format!("{index} ")))
                    .filter_map(|number| number.parse().ok())
                    .filter(|number| number % 2 == parity)
                    .collect();
                assert_eq!(numbers.len(), 100);
                assert!(numbers.is_sorted(), "{numbers:?}");
            }
        }
    });
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.3.2-4] [MQTT-4.3.3-8]: PUBACK and PUBREC wait until the other shards
/// have the message, and leave in the order of the PUBLISHes although some need not wait.
/// [MQTT-4.6.0-2 3.1.1] [MQTT-4.6.0-3 3.1.1]
#[test]
fn acknowledgements_leave_in_order_although_some_wait() {
    let broker = Broker::new(3, &settings());
    for connect in [v5, v3] {
        let mut here = broker.connect(v5(&broker.on(0, "here")));
        here.subscribe(sub("here").qos(1));
        let mut there = broker.connect(v5(&broker.on(1, "there")));
        there.subscribe(sub("there").qos(2));
        let mut publisher = broker.connect(connect(&broker.on(0, "publisher")));

        broker.world().lane_depth = 0; // no batch leaves its shard
        publisher.send_publish(&message("there", "1").qos(1).id(1));
        publisher.send_publish(&message("here", "2").qos(1).id(2));
        publisher.send_publish(&message("there", "3").qos(2).id(3));
        publisher.send_publish(&message("here", "4").qos(2).id(4));
        publisher.expect_nothing();
        assert_eq!(here.payloads(), ["2", "4"]);
        assert_eq!(there.payloads(), [""; 0]);
        publisher.ping(); // other packets do not wait

        broker.world().lane_depth = usize::MAX;
        broker.settle();
        publisher.expect_packet(Received::PubAck(1, ReasonCode::Success));
        publisher.expect_packet(Received::PubAck(2, ReasonCode::Success));
        publisher.expect_packet(Received::PubRec(3, ReasonCode::Success));
        publisher.expect_packet(Received::PubRec(4, ReasonCode::Success));
        assert_eq!(there.payloads(), ["1", "3"]);
        for mut client in [here, there, publisher] {
            client.disconnect();
        }
    }
}

/// [MQTT-4.6.0-4] [MQTT-4.6.0-4 3.1.1]: PUBRELs leave in the order of the PUBRECs.
#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    on_shards(|broker| {
        for options in [v5("client"), v3("client")] {
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options.manual());
            client.subscribe(sub("door").qos(2));
            for id in 1..=3 {
                publisher.publish(&message("door", "x").qos(2));
                client.expect(&message("door", "x").qos(2).id(id));
            }
            for id in [3, 1, 2] {
                client.pubrec(id);
            }
            for id in [3, 1, 2] {
                client.expect_packet(Received::PubRel(id, ReasonCode::Success));
            }
            client.disconnect();
        }
    });
}

/// A publisher that is gone before the other shards have answered is not answered, and its
/// successor with the same slot gets nothing of it.
#[test]
fn an_answer_for_a_connection_that_is_gone_is_nobodys() {
    let broker = Broker::new(3, &settings());
    let mut there = broker.connect(v5(&broker.on(1, "there")));
    there.subscribe(sub("there").qos(2));
    let id = broker.on(0, "publisher");
    let mut publisher = broker.connect(v5(&id).at(0));
    broker.world().lane_depth = 0;
    publisher.send_publish(&message("there", "1").qos(1).id(1));
    publisher.cut();
    let mut successor = broker.connect(v5(&broker.on(0, "successor")).at(0));
    successor.send_publish(&message("there", "2").qos(1).id(9));
    successor.expect_nothing();
    broker.world().lane_depth = usize::MAX;
    broker.settle();
    successor.expect_packet(Received::PubAck(9, ReasonCode::Success));
    successor.expect_nothing();
    assert_eq!(there.payloads(), ["1", "2"]);
}

/// A QoS 2 message that comes again while its first PUBREC waits for another shard is delivered once,
/// and each is answered.
#[test]
fn a_repeated_publish_waits_behind_the_first() {
    let broker = Broker::new(3, &settings());
    let mut there = broker.connect(v5(&broker.on(1, "there")));
    there.subscribe(sub("there").qos(2));
    let id = broker.on(0, "publisher");
    let mut publisher = broker.connect(v5(&id).kept());
    broker.world().lane_depth = 0;
    publisher.send_publish(&message("there", "once").qos(2).id(5));
    publisher.send_publish(&message("there", "once").qos(2).id(5).dup());
    publisher.expect_nothing();
    let mut again = broker.connect(v5(&id).kept());
    publisher.expect_end(ReasonCode::SessionTakenOver);
    again.send_publish(&message("there", "once").qos(2).id(5).dup());
    again.expect_packet(Received::PubRec(5, ReasonCode::Success));
    broker.world().lane_depth = usize::MAX;
    again.pubrel(5);
    again.expect_packet(Received::PubComp(5, ReasonCode::Success));
    assert_eq!(there.payloads(), ["once"]);
}
