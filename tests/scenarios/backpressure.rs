//! Clients that do not read, and what becomes of messages that nobody can be given.

use shardmq::shard::Settings;
use shardmq::stats::{DropReason, Stats};
use shardmq::wire::{PacketType, ReasonCode, Version};

use crate::client::{Broker, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{message, sub};

fn narrow() -> Settings {
    Settings {
        max_output_bytes: 100_000,
        ..settings()
    }
}

/// A client that does not read has a bounded number of bytes waiting: QoS 0 beyond it is dropped and
/// counted, QoS 1 waits in its queue and comes when it reads again.
#[test]
fn a_client_that_does_not_read_costs_a_bounded_memory() {
    on_shards_with(&narrow(), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door").qos(1));
        client.stop_reading();
        for number in 0..300 {
            publisher.publish(&message("door", format!("{number:0>1000}")));
        }
        for number in 300..305 {
            let reason = publisher.publish(&message("door", format!("{number:0>1000}")).qos(1));
            assert_eq!(reason, ReasonCode::Success);
        }
        let dropped = broker.dropped(DropReason::SlowConsumer);
        assert_eq!(broker.stats().queued, 5);
        client.go_on_reading();
        let messages = client.messages();
        let bytes: usize = messages[..messages.len() - 5]
            .iter()
            .map(|message| message.payload.0.len())
            .sum();
        assert!((98_000..=101_000).contains(&bytes), "{bytes} bytes waited");
        assert_eq!(messages.len() as u64 + dropped, 305);
        let numbers: Vec<u32> = messages
            .iter()
            .map(|message| String::from_utf8_lossy(&message.payload.0).parse().unwrap())
            .collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers[numbers.len() - 5..], [300, 301, 302, 303, 304]);
        assert_eq!(
            (broker.dropped_in_all(), broker.stats().queued),
            (dropped, 0)
        );
        publisher.publish(&message("door", "again"));
        client.expect(&message("door", "again"));
    });
}

/// Nobody else waits for it: neither the publisher nor other subscribers.
#[test]
fn a_client_that_does_not_read_stops_nobody() {
    on_shards_with(&narrow(), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut stuck = broker.connect(v5("stuck").manual());
        stuck.subscribe(sub("#").qos(2));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door").qos(2));
        stuck.stop_reading();
        for number in 0..400_u32 {
            let sent = message("door", format!("{number:0>1000}")).qos((number % 3) as u8);
            assert_eq!(publisher.publish(&sent), ReasonCode::Success);
            client.expect(&sent);
        }
        stuck.go_on_reading();
        let got = stuck.messages().len() as u64;
        assert!(got >= 266, "{got}");
        assert_eq!(got + broker.dropped(DropReason::SlowConsumer), 400);
    });
}

/// A client that stops reading while it is sent what it missed gets the rest when it goes on.
#[test]
fn what_waits_is_paced_by_the_reader() {
    on_shards_with(&narrow(), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").kept());
        client.subscribe(sub("door").qos(1));
        client.cut();
        for number in 0..1_000 {
            publisher.publish(&message("door", format!("{number:0>1000}")).qos(1));
        }
        let mut client = broker.dial_unread(v5("client").kept());
        let waiting = broker.stats().queued;
        assert!(
            (890..=910).contains(&waiting),
            "{waiting} wait in the queue"
        );
        client.go_on_reading();
        client.next().expect("CONNACK comes");
        let numbers: Vec<u32> = client
            .payloads()
            .iter()
            .map(|payload| payload.parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    });
}

/// Every message that somebody does not get is counted under its reason, and under no other.
#[test]
fn drops_are_counted_by_reason() {
    let settings = Settings {
        max_queued_messages: 2,
        ..narrow()
    };
    for shards in [1, 3] {
        let broker = Broker::new(shards, &settings);
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").kept().maximum_packet_size(5_000));
        client.subscribe(sub("door").qos(1));
        let reasons = |expected: [u64; 10]| {
            let counted = DropReason::ALL.map(|reason| broker.dropped(reason));
            assert_eq!(
                counted,
                expected,
                "{:?}",
                DropReason::ALL.map(DropReason::name)
            );
        };
        publisher.publish(&message("door", "x".repeat(6_000)));
        reasons([0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        client.cut();
        publisher.publish(&message("door", "x"));
        reasons([0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
        for _ in 0..3 {
            publisher.publish(&message("door", "x").qos(1).expiry(10));
        }
        reasons([1, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
        broker.advance(20.0);
        let mut client = broker.connect(v5("client").kept());
        client.expect_nothing();
        reasons([1, 0, 1, 2, 1, 0, 0, 0, 0, 0]);
        client.cut();
        publisher.publish(&message("door", "x").qos(1));
        broker.connect(v5("client")).cut();
        reasons([1, 0, 1, 2, 1, 1, 0, 0, 0, 0]);
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door"));
        client.stop_reading();
        for _ in 0..101 {
            publisher.publish(&message("door", "x".repeat(1_000)));
        }
        let slow = broker.dropped(DropReason::SlowConsumer);
        assert!((1..=3).contains(&slow), "{slow}");
        reasons([1, slow, 1, 2, 1, 1, 0, 0, 0, 0]);
    }
}

/// Acknowledgements and PINGRESPs are never dropped.
#[test]
fn answers_are_not_dropped() {
    on_shards_with(&narrow(), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door"));
        client.stop_reading();
        for _ in 0..200 {
            publisher.publish(&message("door", "x".repeat(1_000)));
        }
        client.send_publish(&message("elsewhere", "x").qos(1).id(1));
        client.send_bytes(&[0xC0, 0]);
        client.go_on_reading();
        let mut answers = 0;
        while let Some(packet) = client.next() {
            answers += u32::from(!matches!(packet, crate::packets::Received::Publish(_)));
        }
        assert_eq!(answers, 2);
    });
}

/// A live retained message that a slow client could not be given does not hide the retained one from
/// its replay.
#[test]
fn a_dropped_update_does_not_hide_the_retained_message() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        for number in 0..3_000 {
            publisher.push_publish(&message(&format!("t/{number}"), "x".repeat(1_000)).retain());
        }
        broker.settle();
        let mut client = broker.connect(v5("client"));
        client.stop_reading();
        client.push_subscribe(sub("t/#"));
        broker.settle();
        // Its output is full of something else when the updates come.
        client.push_subscribe(sub("noise").without_retained());
        broker.settle();
        for _ in 0..1_200 {
            publisher.push_publish(&message("noise", "x".repeat(1_000)));
        }
        broker.settle();
        for number in 0..3_000 {
            publisher.push_publish(&message(&format!("t/{number}"), "y").retain());
        }
        broker.settle();
        assert!(broker.dropped(DropReason::SlowConsumer) > 2_500);
        client.go_on_reading();
        let topics: std::collections::HashSet<_> = std::iter::from_fn(|| client.next())
            .filter_map(|packet| match packet {
                crate::packets::Received::Publish(message) => Some(message.topic),
                _ => None,
            })
            .collect();
        assert_eq!(topics.len(), 3_001);
    });
}

/// What comes again after a reconnect is paced by the reader too, and stays in order.
#[test]
fn what_comes_again_is_paced_by_the_reader() {
    on_shards_with(&narrow(), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let options = v5("client").kept().manual();
        let mut client = broker.connect(options.clone());
        client.subscribe(sub("door").qos(2));
        for number in 0..600_u32 {
            let qos = 1 + (number % 2) as u8;
            publisher.publish(&message("door", format!("{number:0>1000}")).qos(qos));
        }
        assert_eq!(client.messages().len(), 600);
        client.cut();
        publisher.publish(&message("door", "new").qos(1));
        let mut client = broker.dial_unread(options);
        let mut rounds = 0;
        let mut messages = Vec::new();
        while messages.len() < 601 {
            client.read_once();
            while let Some(packet) = client.next() {
                if let crate::packets::Received::Publish(message) = packet {
                    messages.push(message);
                }
            }
            rounds += 1;
        }
        assert!((4..20).contains(&rounds), "{rounds} rounds");
        for (number, message) in messages[..600].iter().enumerate() {
            assert_eq!((message.id, message.dup), (Some(number as u16 + 1), true));
        }
        assert_eq!((messages[600].id, messages[600].dup), (Some(601), false));
    });
}

/// Publishes to one topic that come in one piece are taken together; everybody still gets each of
/// them, in order and in the way that is right for that client.
#[test]
fn publishes_in_a_row_reach_everybody_as_if_they_had_come_one_by_one() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut alike = broker.connect(v5("alike"));
        alike.subscribe(sub("door").qos(2));
        let mut older = broker.connect(v3("older"));
        older.subscribe(sub("+"));
        let mut marked = broker.connect(v5("marked"));
        marked.subscribe(sub("door").identifier(9));
        let mut narrow = broker.connect(v5("narrow").maximum_packet_size(60));
        narrow.subscribe(sub("door"));
        let mut member = broker.connect(v5("member"));
        member.subscribe(sub("$share/all/door"));
        let mut other = broker.connect(v5("other"));
        other.subscribe(sub("$share/all/door"));

        let sizes = [1_usize, 40, 0, 100, 7];
        let row: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| message("door", format!("{number}{}", "-".repeat(*size))))
            .collect();
        let apart = message("window", "in between").qos(1).id(3);
        let mut bytes: Vec<u8> = row.iter().flat_map(|one| one.encode(Version::V5)).collect();
        bytes.extend(apart.encode(Version::V5));
        bytes.extend(row[0].encode(Version::V5));
        let before = broker.stats();
        publisher.send_bytes(&bytes);

        let mut all = row.clone();
        all.push(row[0].clone());
        assert_eq!(alike.messages(), all);
        let marks: Vec<_> = all.iter().map(|one| one.clone().identifier(9)).collect();
        assert_eq!(marked.messages(), marks);
        let fitting: Vec<_> = all
            .iter()
            .filter(|one| one.payload.0.len() < 50)
            .cloned()
            .collect();
        assert_eq!(narrow.messages(), fitting);
        let mut old = row.clone();
        old.extend([message("window", "in between"), row[0].clone()]);
        assert_eq!(older.messages(), old);
        let mut shared = member.messages();
        shared.extend(other.messages());
        assert_eq!(shared.len(), all.len());
        let after = broker.stats();
        assert_eq!(after.dropped_for(DropReason::TooLarge), 1);
        let publishes = |stats: &Stats| stats.packets_received[PacketType::Publish as usize];
        assert_eq!(publishes(&after) - publishes(&before), 7);
        assert_eq!(
            after.publishes_received[0] - before.publishes_received[0],
            6
        );
        let payload: usize = all.iter().map(|one| one.payload.0.len()).sum();
        assert_eq!(
            after.publish_bytes_received[0] - before.publish_bytes_received[0],
            payload as u64
        );
    });
}

/// The bounds of a slow client hold within a row of publishes too: what fits goes out, the rest is
/// counted, message by message.
#[test]
fn publishes_in_a_row_do_not_overrun_a_client_that_does_not_read() {
    on_shards_with(&narrow(), |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door"));
        client.stop_reading();
        let row: Vec<u8> = (0..300)
            .flat_map(|number| message("door", format!("{number:0>1000}")).encode(Version::V5))
            .collect();
        publisher.send_bytes(&row);
        let dropped = broker.dropped(DropReason::SlowConsumer);
        client.go_on_reading();
        let got = client.messages();
        assert_eq!(got.len() as u64 + dropped, 300);
        assert!((98..=101).contains(&got.len()), "{} waited", got.len());
        for (number, one) in got.iter().enumerate() {
            assert_eq!(one.payload.0, format!("{number:0>1000}").into_bytes());
        }
    });
}
