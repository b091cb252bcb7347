//! Several shards are one broker, and bytes come as they like.

use shardmq::wire::ReasonCode;

use crate::client::{Broker, on_shards, settings, v3, v5};
use crate::packets::{Received, message, sub};

/// From every shard to every shard, with every QoS, once.
#[test]
fn messages_cross_between_all_shards() {
    let broker = Broker::new(4, &settings());
    let mut subscribers: Vec<_> = (0..4)
        .map(|shard| {
            let mut client = broker.connect(v5(&broker.on(shard, "subscriber")));
            client.subscribe(sub("news/+").qos(2));
            client
        })
        .collect();
    for from in 0..4 {
        let mut publisher = broker.connect(v3(&broker.on(from, "publisher")));
        for qos in 0..=2 {
            publisher.publish(&message("news/x", from.to_string()).qos(qos));
            for subscriber in &mut subscribers {
                subscriber.expect(&message("news/x", from.to_string()).qos(qos));
                subscriber.expect_nothing();
            }
        }
    }
}

/// SUBACK waits until every shard knows: from then on, nothing published anywhere is missed.
#[test]
fn suback_waits_for_all_shards() {
    let broker = Broker::new(3, &settings());
    let mut there = broker.connect(v5(&broker.on(1, "there")));
    there.subscribe(sub("there"));
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    let mut far = broker.connect(v5(&broker.on(2, "far")));
    let mut client = broker.connect(v5(&broker.on(0, "client")));
    // A batch that cannot leave holds everything back that must not overtake it.
    broker.world().lane_depth = 0;
    publisher.send_publish(&message("there", "x"));
    let id = client.push_subscribe(sub("door"));
    broker.settle();
    client.expect_nothing();
    far.send_publish(&message("door", "too early").qos(1).id(1));
    far.expect_packet(Received::PubAck(1, ReasonCode::NoMatchingSubscribers));
    client.ping();

    broker.world().lane_depth = usize::MAX;
    broker.settle();
    client.expect_packet(Received::SubAck(id, vec![0]));
    far.send_publish(&message("door", "open").qos(1).id(2));
    far.expect_packet(Received::PubAck(2, ReasonCode::Success));
    client.expect(&message("door", "open"));
}

/// A second subscriber of the same filter waits for the same news.
#[test]
fn a_second_suback_waits_as_well() {
    let broker = Broker::new(3, &settings());
    let mut there = broker.connect(v5(&broker.on(1, "there")));
    there.subscribe(sub("there"));
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    let mut clients: Vec<_> = ["a", "b"]
        .iter()
        .map(|stem| broker.connect(v5(&broker.on(0, stem))))
        .collect();
    broker.world().lane_depth = 0;
    publisher.send_publish(&message("there", "x"));
    for client in &mut clients {
        client.push_subscribe(sub("door"));
        broker.settle();
        client.expect_nothing();
    }
    broker.world().lane_depth = usize::MAX;
    broker.settle();
    for client in &mut clients {
        client.expect_packet(Received::SubAck(1, vec![0]));
    }
}

/// The last subscriber of a filter leaves: the other shards send nothing any more; the first comes
/// back: they send again.
#[test]
fn interest_comes_and_goes() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
        let mut one = broker.connect(v5(&broker.on(1, "one")));
        let mut two = broker.connect(v5(&broker.on(1, "two")));
        for _ in 0..3 {
            one.subscribe(sub("door"));
            two.subscribe(sub("door"));
            one.unsubscribe(&["door"]);
            assert_eq!(
                publisher.publish(&message("door", "x").qos(1)),
                ReasonCode::Success
            );
            two.expect(&message("door", "x"));
            two.unsubscribe(&["door"]);
            let nobody = ReasonCode::NoMatchingSubscribers;
            assert_eq!(publisher.publish(&message("door", "x").qos(1)), nobody);
        }
        one.expect_nothing();
    });
}

/// One byte per segment is as good as one packet per segment, from the first byte on and across the
/// way to another shard.
#[test]
fn bytes_may_come_one_by_one() {
    on_shards(|broker| {
        for shard in 0..broker.shards() {
            let options = v5("client")
                .will(message("will", "w"))
                .credentials("me", "secret");
            let mut bytes = options.encode();
            let sent = message("door", "x".repeat(300)).qos(1).id(5).user("k", "v");
            let mut client = broker.open_on(shard, shardmq::wire::Version::V5);
            bytes.extend_from_slice(&[0x82, 10, 0, 9, 0, 0, 4]);
            bytes.extend_from_slice(b"door");
            bytes.push(2);
            bytes.extend_from_slice(&sent.encode(client.version()));
            bytes.extend_from_slice(&[0xC0, 0]);
            for byte in bytes {
                client.send_bytes(&[byte]);
            }
            assert!(matches!(client.next(), Some(Received::ConnAck(_))));
            client.expect_packet(Received::SubAck(9, vec![2]));
            let mut expected = sent;
            expected.id = None;
            client.expect(&expected);
            client.expect_packet(Received::PubAck(5, ReasonCode::Success));
            client.expect_packet(Received::PingResp);
            client.disconnect();
        }
    });
}

/// What a client sends while its connection is on its way to another shard comes behind its CONNECT.
#[test]
fn bytes_follow_a_connection_to_its_shard() {
    let broker = Broker::new(3, &settings());
    let id = broker.on(2, "client");
    let options = v5(&id);
    let mut client = broker.open_on(0, shardmq::wire::Version::V5);
    let connect = options.encode();
    let (first, second) = connect.split_at(connect.len() - 1);
    client.send_bytes(first);
    client.push(second);
    client.push_subscribe(sub("door"));
    broker.world().turn(0);
    client.push_publish(&message("door", "1").qos(1).id(1));
    broker.settle();
    client.push_publish(&message("door", "2").qos(1).id(2));
    broker.settle();
    let mut packets: Vec<_> = std::iter::from_fn(|| client.next()).collect();
    assert!(matches!(packets.remove(0), Received::ConnAck(_)));
    packets.retain(|packet| *packet != Received::SubAck(1, vec![0]));
    let expected = [
        Received::Publish(message("door", "1")),
        Received::PubAck(1, ReasonCode::Success),
        Received::Publish(message("door", "2")),
        Received::PubAck(2, ReasonCode::Success),
    ];
    assert_eq!(packets, expected);
    let stats = broker.stats();
    let received: u64 = stats.packets_received.iter().sum();
    assert_eq!((stats.connections, received), (1, 4));
}

/// Ten thousand packets may come in one segment.
#[test]
fn ten_thousand_packets_may_come_at_once() {
    on_shards(|broker| {
        let mut subscriber = broker.connect(v5(&broker.on(1, "subscriber")));
        subscriber.subscribe(sub("n").qos(2));
        let mut publisher = broker.connect(v3(&broker.on(0, "publisher")));
        let mut bytes = Vec::new();
        for number in 0..10_000_u16 {
            let one = message("n", number.to_string())
                .qos((number % 2) as u8)
                .id(number + 1);
            bytes.extend(one.encode(publisher.version()));
        }
        publisher.send_bytes(&bytes);
        let received: Vec<u16> = subscriber
            .payloads()
            .iter()
            .map(|payload| payload.parse().unwrap())
            .collect();
        let of = |parity| received.iter().filter(move |number| *number % 2 == parity);
        assert_eq!(received.len(), 10_000);
        assert!(of(0).is_sorted() && of(1).is_sorted());
        for number in (1..10_000).step_by(2) {
            publisher.expect_packet(Received::PubAck(number + 1, ReasonCode::Success));
        }
    });
}

/// A full lane holds messages back and loses none; QoS 0 too.
#[test]
fn a_full_lane_loses_nothing() {
    let broker = Broker::new(3, &settings());
    let mut subscriber = broker.connect(v5(&broker.on(1, "subscriber")));
    subscriber.subscribe(sub("n").qos(1));
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    broker.world().lane_depth = 1;
    for number in 0..3_000_u16 {
        let one = message("n", number.to_string())
            .qos((number % 2) as u8)
            .id(1);
        publisher.push_publish(&one);
        if number % 800 == 799 {
            broker.settle();
        }
    }
    broker.settle();
    assert_eq!(subscriber.payloads().len(), 3_000);
    assert_eq!(broker.dropped_in_all(), 0);
}

/// A stop is told to version 5 clients with 0x8B, on every shard; sessions are left alone.
#[test]
fn a_stop_is_told() {
    on_shards(|broker| {
        let mut clients: Vec<_> = (0..6)
            .map(|number| {
                let options = if number % 2 == 0 { v5 } else { v3 };
                broker.connect(options(&format!("client{number}")).kept())
            })
            .collect();
        broker.shutdown();
        for client in &mut clients {
            client.expect_end(ReasonCode::ServerShuttingDown);
        }
        let stats = broker.stats();
        assert_eq!(
            (stats.connections, stats.clients_connected, stats.sessions),
            (0, 0, 6)
        );
    });
}

/// A retained message that was published before its publisher's shard knew of a subscription comes
/// with that subscription, however close the two were.
#[test]
fn a_retained_message_is_not_missed_between_two_shards() {
    let broker = Broker::new(3, &settings());
    let topic = broker.on(1, "state");
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    let mut client = broker.connect(v5(&broker.on(2, "client")));
    publisher.publish(&message(&topic, "old").retain());
    client.push_subscribe(sub(&topic));
    broker.world().turn(1);
    // Its shard does not know of the subscription.
    publisher.push_publish(&message(&topic, "new").retain());
    broker.world().turn(0);
    broker.world().turn(2);
    // The keeper looked into the lane of the publisher just before the message came, and into the
    // lane of the subscriber just after the question came.
    broker.world().turn_blind_to(1, Some(0));
    broker.settle();
    client.expect_packet(Received::SubAck(1, vec![0]));
    client.expect(&message(&topic, "new").retain());
    client.expect_nothing();
}

/// Whoever unsubscribes, goes or is taken over before SUBACK: the answer is nobody else's, and nothing
/// stays behind.
#[test]
fn a_suback_that_nobody_waits_for_is_lost() {
    let broker = Broker::new(3, &settings());
    let mut there = broker.connect(v5(&broker.on(1, "there")));
    there.subscribe(sub("there"));
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    publisher.publish(&message("door", "kept").retain());
    let options = v5(&broker.on(0, "client"));
    for ending in ["unsubscribe", "cut", "takeover"] {
        let mut client = broker.connect(options.clone().kept());
        broker.world().lane_depth = 0;
        publisher.send_publish(&message("there", "x"));
        let id = client.push_subscribe(sub("door"));
        broker.settle();
        let mut successor = None;
        match ending {
            "unsubscribe" => assert_eq!(client.unsubscribe(&["door"]), [0]),
            "cut" => client.cut(),
            _ => successor = Some(broker.connect(options.clone().kept())),
        }
        broker.world().lane_depth = usize::MAX;
        broker.settle();
        match &mut successor {
            Some(successor) => {
                client.expect_end(ReasonCode::SessionTakenOver);
                successor.expect(&message("door", "kept").retain());
                successor.expect_nothing();
            }
            None if ending == "unsubscribe" => {
                client.expect_packet(Received::SubAck(id, vec![0]));
                client.expect_nothing();
            }
            None => {
                let mut back = broker.connect(options.clone().kept());
                back.expect(&message("door", "kept").retain());
            }
        }
        broker.connect(options.clone()).disconnect();
        assert_eq!(broker.stats().subscriptions, 1);
    }
}
