//! Retained messages in large numbers: complete, at the pace of the reader, never older than what the
//! client already has.

use std::collections::HashMap;

use crate::client::{Broker, Client, Options, on_shards, settings, v5};
use crate::packets::{message, sub};

const TOPICS: usize = 20_000;

/// Many retained messages, named and numbered.
fn fill(broker: &Broker, count: usize, qos: u8) -> Client {
    let mut publisher = broker.connect(v5("publisher"));
    for number in 0..count {
        let text = format!("first {number}");
        let state = message(&format!("fleet/{number}/state"), text)
            .qos(qos)
            .retain();
        publisher.push_publish(&state.id(1));
        if number % 500 == 0 {
            broker.settle();
        }
    }
    broker.settle();
    assert_eq!(broker.stats().retained, count as u64);
    publisher
}

/// A subscriber to `#` gets each of twenty thousand topics exactly once.
#[test]
fn a_replay_is_complete() {
    on_shards(|broker| {
        for granted in [0, 1] {
            fill(broker, TOPICS, 1).disconnect();
            let mut client = broker.connect(v5("client"));
            client.subscribe(sub("#").qos(granted));
            let messages = client.messages();
            assert_eq!(messages.len(), TOPICS);
            assert!(
                messages
                    .iter()
                    .all(|message| message.retain && message.qos == granted)
            );
            let topics: HashMap<_, _> = messages
                .into_iter()
                .map(|message| (message.topic, message.payload))
                .collect();
            assert_eq!(topics.len(), TOPICS);
        }
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

/// A reader that takes a little at a time makes the broker hold a little at a time, and gets all.
#[test]
fn a_replay_waits_for_a_slow_reader() {
    on_shards(|broker| {
        fill(broker, TOPICS, 1);
        for granted in [0, 1] {
            let mut client = broker.connect(v5("client"));
            client.stop_reading();
            client.push_subscribe(sub("fleet/#").qos(granted));
            broker.settle();
            let mut received = 0;
            let mut rounds = 0;
            loop {
                let stats = broker.stats();
                assert!(
                    stats.queued <= 3 * 1_024,
                    "{} wait in the queue",
                    stats.queued
                );
                client.read_once();
                let arrived = replayed(&mut client);
                if arrived == 0 {
                    break;
                }
                received += arrived;
                rounds += 1;
            }
            assert_eq!(received, TOPICS);
            assert!(rounds > 5, "{rounds} rounds: nothing was held back");
            client.go_on_reading();
            client.disconnect();
        }
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

/// Retained messages that have come, acknowledged; answers of another kind are skipped.
fn replayed(client: &mut Client) -> usize {
    let mut count = 0;
    while let Some(packet) = client.next() {
        count += usize::from(matches!(packet, crate::packets::Received::Publish(_)));
    }
    count
}

/// While a replay goes on, live messages come in between; of no topic an older value comes after a
/// newer one, and each topic's last value is the last one published.
fn live_messages_interleave(options: Options, granted: u8, live_qos: u8) {
    on_shards(|broker| {
        let count = 6_000;
        let mut publisher = fill(broker, count, 1);
        let mut client = broker.connect(options.clone());
        client.stop_reading();
        client.push_subscribe(sub("fleet/#").qos(granted));
        let mut last: HashMap<String, String> = HashMap::new();
        let mut live = 0;
        for round in 0..400_usize {
            // A few turns, so that lanes, chunks and live messages mix.
            for shard in 0..broker.shards() {
                broker.world().turn(shard);
            }
            let number = (round * 7_919) % count;
            let update = message(&format!("fleet/{number}/state"), format!("second {number}"));
            publisher.push_publish(&update.qos(live_qos).retain().id(1));
            live += 1;
            if round % 3 == 0 {
                client.read_once();
                note(&mut client, &mut last);
            }
        }
        client.go_on_reading();
        note(&mut client, &mut last);
        assert_eq!(last.len(), count);
        let second = last
            .values()
            .filter(|value| value.starts_with("second"))
            .count();
        assert_eq!(second, live);
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

fn note(client: &mut Client, last: &mut HashMap<String, String>) {
    while let Some(packet) = client.next() {
        let crate::packets::Received::Publish(message) = packet else {
            continue;
        };
        let value = String::from_utf8(message.payload.0).expect("payloads are text");
        let before = last.insert(message.topic.clone(), value.clone());
        let older = before.is_some_and(|before| before.starts_with("second"));
        assert!(
            !(older && value.starts_with("first")),
            "{} went back",
            message.topic
        );
    }
}

#[test]
fn live_messages_interleave_with_qos_0() {
    live_messages_interleave(v5("client"), 0, 0);
}

#[test]
fn live_messages_interleave_with_qos_1() {
    live_messages_interleave(v5("client"), 1, 1);
}

#[test]
fn live_messages_interleave_with_few_in_flight() {
    live_messages_interleave(v5("client").receive_maximum(2), 1, 1);
}

#[test]
fn live_messages_of_qos_0_do_not_overtake_retained_ones_of_qos_1() {
    live_messages_interleave(v5("client").receive_maximum(2), 1, 0);
}

/// A replay that a client does not wait for goes on when it is back: what it had in flight comes
/// again, and no topic is missing.
#[test]
fn a_replay_goes_on_after_a_reconnect() {
    on_shards(|broker| {
        let count = 3_000;
        fill(broker, count, 1);
        let options = v5("client").kept().receive_maximum(10);
        let mut last = HashMap::new();
        let mut client = broker.connect(options.clone());
        client.stop_reading();
        client.push_subscribe(sub("fleet/#").qos(1));
        broker.settle();
        for _ in 0..20 {
            client.read_once();
            note(&mut client, &mut last);
            client.cut();
            client = broker.dial_unread(options.clone());
        }
        assert!(last.len() < count, "it was over before the first cut");
        client.go_on_reading();
        note(&mut client, &mut last);
        assert_eq!(last.len(), count);
    });
}

/// UNSUBSCRIBE and the end of a session end a replay.
#[test]
fn a_replay_ends_with_its_subscription() {
    on_shards(|broker| {
        fill(broker, 6_000, 0);
        let mut client = broker.connect(v5("client"));
        client.stop_reading();
        client.push_subscribe(sub("fleet/#"));
        broker.settle();
        client.read_once();
        let first = replayed(&mut client);
        let mut unsubscribe = vec![0xA2, 12, 0, 9, 0, 0, 7];
        unsubscribe.extend_from_slice(b"fleet/#");
        client.send_bytes(&unsubscribe);
        client.go_on_reading();
        let rest = replayed(&mut client);
        assert!(first > 0 && first + rest < 6_000, "{first} + {rest}");
        client.push_subscribe(sub("fleet/#"));
        client.cut();
        assert_eq!(broker.stats().sessions, 1);
    });
}

/// Retained messages that expire while a replay goes on are left out of it.
#[test]
fn a_retained_message_may_expire_before_its_turn() {
    let broker = Broker::new(3, &settings());
    let mut publisher = broker.connect(v5("publisher"));
    for number in 0..2_000 {
        let state = message(&format!("t/{number}"), "x".repeat(200))
            .retain()
            .expiry(5);
        publisher.push_publish(&state);
    }
    broker.settle();
    let mut client = broker.connect(v5("client"));
    client.stop_reading();
    client.push_subscribe(sub("#"));
    broker.settle();
    client.read_once();
    let first = replayed(&mut client);
    broker.advance(10.0);
    client.go_on_reading();
    let rest = replayed(&mut client);
    assert!(first > 0 && first + rest < 2_000, "{first} + {rest}");
    assert_eq!(broker.stats().retained, 0);
}
