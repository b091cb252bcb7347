//! The queue of a session is full: three policies.

use shardmq::shard::{QueueOverflow, Settings};
use shardmq::stats::DropReason;
use shardmq::wire::ReasonCode;

use crate::client::{Broker, Client, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{message, sub};

fn three(queue_overflow: QueueOverflow) -> Settings {
    Settings {
        max_queued_messages: 3,
        queue_overflow,
        ..settings()
    }
}

/// A client that is away, of another shard than the publisher where there is one.
fn away(broker: &Broker) -> (Client, impl Fn() -> Client + use<'_>) {
    let id = broker.on(1, "away");
    let mut client = broker.connect(v5(&id).kept());
    client.subscribe(sub("door").qos(2));
    client.cut();
    let publisher = broker.connect(v5(&broker.on(0, "publisher")));
    (publisher, move || broker.connect(v5(&id).kept()))
}

fn publish(publisher: &mut Client, numbers: std::ops::RangeInclusive<u8>) -> Vec<ReasonCode> {
    numbers
        .map(|number| publisher.publish(&message("door", number.to_string()).qos(1 + number % 2)))
        .collect()
}

#[test]
fn the_oldest_makes_room() {
    on_shards_with(&three(QueueOverflow::DropOldest), |broker| {
        let (mut publisher, back) = away(broker);
        assert_eq!(publish(&mut publisher, 1..=5), [ReasonCode::Success; 5]);
        assert_eq!(
            (broker.stats().queued, broker.dropped(DropReason::QueueFull)),
            (3, 2)
        );
        assert_eq!(back().payloads(), ["3", "4", "5"]);
        assert_eq!((broker.stats().queued, broker.stats().queued_bytes), (0, 0));
    });
}

#[test]
fn the_newest_is_left_out() {
    on_shards_with(&three(QueueOverflow::DropNew), |broker| {
        let (mut publisher, back) = away(broker);
        assert_eq!(publish(&mut publisher, 1..=5), [ReasonCode::Success; 5]);
        assert_eq!(broker.dropped(DropReason::QueueFull), 2);
        assert_eq!(back().payloads(), ["1", "2", "3"]);
    });
}

/// [MQTT-4.3.3-9]: the publisher is told with 0x97, across shards too, and may publish again under the same
/// identifier. In 3.1.1 it cannot be told.
#[test]
fn the_publisher_is_told() {
    on_shards_with(&three(QueueOverflow::Reject), |broker| {
        let (mut publisher, back) = away(broker);
        let quota = ReasonCode::QuotaExceeded;
        let ok = ReasonCode::Success;
        assert_eq!(publish(&mut publisher, 1..=5), [ok, ok, ok, quota, quota]);
        let again = message("door", "6").qos(2).id(60);
        assert_eq!(publisher.publish(&again), quota);
        let mut old = broker.connect(v3("old"));
        assert_eq!(old.publish(&message("door", "7").qos(1)), ok);
        assert_eq!(old.publish(&message("door", "7").qos(2)), ok);
        assert_eq!(broker.dropped(DropReason::QueueFull), 5);
        let mut client = back();
        assert_eq!(client.payloads(), ["1", "2", "3"]);
        assert_eq!(publisher.publish(&again), ok);
        assert_eq!(client.payloads(), ["6"]);
    });
}

/// Only the one that was refused is told, although the answers of a turn come together.
#[test]
fn the_right_publish_is_told() {
    let broker = Broker::new(3, &three(QueueOverflow::Reject));
    let (mut publisher, _back) = away(&broker);
    let mut other = broker.connect(v5(&broker.on(1, "other")));
    other.subscribe(sub("window").qos(1));
    for id in 1..=8 {
        let topic = if id % 2 == 0 { "door" } else { "window" };
        publisher.push_publish(&message(topic, "x").qos(1).id(id));
    }
    broker.settle();
    for id in 1..=8 {
        let reason = if id == 8 {
            ReasonCode::QuotaExceeded
        } else {
            ReasonCode::Success
        };
        publisher.expect_packet(crate::packets::Received::PubAck(id, reason));
    }
}

/// The bytes of a queue are bounded as well.
#[test]
fn bytes_are_bounded() {
    // Topic of 4 bytes and payload of 96.
    let settings = Settings {
        max_queued_bytes: 300,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let (mut publisher, back) = away(broker);
        for number in 1..=4 {
            publisher.publish(&message("door", format!("{number:0>96}")).qos(1));
        }
        assert_eq!(
            (broker.stats().queued, broker.stats().queued_bytes),
            (3, 300)
        );
        // Larger than the whole queue may be: everything gave way, and it is dropped too.
        publisher.publish(&message("door", "x".repeat(297)).qos(1));
        assert_eq!(broker.stats().queued_bytes, 0);
        assert_eq!(broker.dropped(DropReason::QueueFull), 5);
        publisher.publish(&message("door", "fits").qos(1));
        assert_eq!(back().payloads(), ["fits"]);
    });
}

/// A slow client that is connected has the same queue.
#[test]
fn a_slow_client_has_the_same_queue() {
    on_shards_with(&three(QueueOverflow::DropOldest), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").receive_maximum(1).manual());
        client.subscribe(sub("door").qos(1));
        for number in 1..=6 {
            publisher.publish(&message("door", number.to_string()).qos(1));
        }
        for (id, payload) in [(1, "1"), (2, "4"), (3, "5"), (4, "6")] {
            client.expect(&message("door", payload).qos(1).id(id));
            client.expect_nothing();
            client.puback(id);
        }
        assert_eq!(broker.dropped(DropReason::QueueFull), 2);
    });
}

/// Retained messages for a new subscription are not cut off by the bound of the queue.
#[test]
fn a_replay_is_not_cut_off_by_the_queue() {
    on_shards_with(&three(QueueOverflow::DropOldest), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        for number in 0..1_000 {
            publisher.publish(&message(&format!("t/{number}"), "x").qos(1).retain());
        }
        let mut client = broker.connect(v5("client").receive_maximum(1));
        client.subscribe(sub("#").qos(1));
        assert_eq!(client.messages().len(), 1_000);
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

/// What a session leaves behind is counted, and frees its bytes.
#[test]
fn a_session_that_ends_frees_its_queue() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("away").expiry(10));
        client.subscribe(sub("door").qos(1));
        client.cut();
        for number in 0..50 {
            publisher.publish(&message("door", number.to_string()).qos(1));
        }
        assert_eq!(broker.stats().queued, 50);
        broker.advance(11.0);
        let stats = broker.stats();
        assert_eq!(
            (stats.queued, stats.queued_bytes, stats.sessions),
            (0, 0, 1)
        );
        assert_eq!(broker.dropped(DropReason::SessionEnded), 50);
    });
}
