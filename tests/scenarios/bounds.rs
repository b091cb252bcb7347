//! What an operator limits besides what the protocol tells clients: each limit with its reason code, its
//! counter, and what becomes of the messages.

use std::sync::Arc;

use shardmq::policy::{Entrance, Guard, GuardOptions};
use shardmq::shard::{Limits, ListenerSettings, Settings, Shortage};
use shardmq::stats::{DropReason, Limited};
use shardmq::wire::ReasonCode;

use crate::client::{Broker, Client, on_shards_under, on_shards_with, settings, v3, v5};
use crate::packets::{Received, message, sub};

fn limited(broker: &Broker, limit: Limited) -> u64 {
    broker.stats().limited[limit as usize]
}

fn under(limits: Limits, scenario: impl Fn(&Broker)) {
    let settings = Settings {
        limits,
        ..settings()
    };
    on_shards_with(&settings, scenario);
}

#[test]
fn topics_have_a_length_and_a_depth() {
    let limits = Limits {
        max_topic_bytes: 10,
        max_topic_levels: 3,
        ..Limits::default()
    };
    under(limits, |broker| {
        let mut reader = broker.connect(v5("reader"));
        assert_eq!(
            reader.subscribe_all(&[sub("#"), sub("a/b/c"), sub("a/b/c/d"), sub("01234567890")]),
            [0, 0, 0x8F, 0x8F]
        );
        let mut client = broker.connect(v5("client"));
        for (topic, reason) in [
            ("0123456789", ReasonCode::Success),
            ("a/b/c", ReasonCode::Success),
            ("a/b/c/d", ReasonCode::TopicNameInvalid),
            ("01234567890", ReasonCode::TopicNameInvalid),
        ] {
            assert_eq!(
                client.publish(&message(topic, "x").qos(1)),
                reason,
                "{topic}"
            );
            assert_eq!(
                client.publish(&message(topic, "x").qos(2)),
                reason,
                "{topic}"
            );
            client.publish(&message(topic, "x"));
            let expected = if reason == ReasonCode::Success { 3 } else { 0 };
            assert_eq!(reader.payloads().len(), expected, "{topic}");
        }
        let will = v5("other").will(message("a/b/c/d", "x"));
        broker.expect_refused(will, ReasonCode::TopicNameInvalid);
        assert_eq!(limited(broker, Limited::Topic), 9);
    });
}

#[test]
fn messages_have_so_many_user_properties() {
    let limits = Limits {
        max_user_properties: 1,
        ..Limits::default()
    };
    under(limits, |broker| {
        let one = || message("t", "x").qos(1).user("a", "1");
        let two = || one().user("b", "2");
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("t"));
        assert_eq!(client.publish(&one()), ReasonCode::Success);
        assert_eq!(client.publish(&two()), ReasonCode::QuotaExceeded);
        assert_eq!(client.payloads().len(), 1);
        broker.expect_refused(v5("other").will(two()), ReasonCode::QuotaExceeded);
        assert_eq!(limited(broker, Limited::UserProperties), 2);
    });
}

#[test]
fn a_subscribe_has_so_many_filters() {
    let limits = Limits {
        max_filters: 2,
        ..Limits::default()
    };
    under(limits, |broker| {
        let subs = [sub("a"), sub("b"), sub("c"), sub("d")];
        let mut new = broker.connect(v5("new"));
        assert_eq!(new.subscribe_all(&subs), [0, 0, 0x97, 0x97]);
        let mut old = broker.connect(v3("old"));
        assert_eq!(old.subscribe_all(&subs), [0, 0, 0x80, 0x80]);
        assert_eq!(broker.stats().subscriptions, 4);
        assert_eq!(limited(broker, Limited::Filters), 4);
    });
}

/// What cannot be retained is delivered all the same; what was retained before stays.
#[test]
fn there_are_so_many_retained_messages() {
    let limits = Limits {
        max_retained_messages: 3,
        ..Limits::default()
    };
    under(limits, |broker| {
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("#"));
        // All on one shard, which has its share of the three.
        let topics: Vec<String> = (0..4)
            .map(|number| broker.on(0, &format!("t{number}-")))
            .collect();
        for topic in &topics {
            client.publish(&message(topic, "first").qos(1).retain());
        }
        client.publish(&message(&topics[0], "second").qos(1).retain());
        assert_eq!(client.payloads().len(), 5);
        let room = 3_u64.div_ceil(broker.shards() as u64);
        assert_eq!(broker.stats().retained, room);
        assert_eq!(limited(broker, Limited::RetainedMessages), 4 - room);
        let mut late = broker.connect(v5("late"));
        late.subscribe(sub(&topics[0]));
        assert_eq!(late.payloads(), ["second"], "what is there can be replaced");
        client.publish(&message(&topics[0], "").qos(1).retain());
        client.publish(&message(&topics[3], "now").qos(1).retain());
        assert_eq!(broker.stats().retained, room);
    });
    let limits = Limits {
        max_retained_bytes: 30,
        ..Limits::default()
    };
    under(limits, |broker| {
        let mut client = broker.connect(v5("client"));
        client.publish(&message("t", [b'x'; 40]).qos(1).retain());
        assert_eq!(broker.stats().retained, 0);
        assert_eq!(limited(broker, Limited::RetainedBytes), 1);
    });
}

/// A client that is too fast waits; nothing of it is lost, whatever its QoS, nor its connection, and
/// nobody else waits.
#[test]
fn a_client_has_a_rate() {
    let limits = Limits {
        message_rate: 10,
        ..Limits::default()
    };
    under(limits, |broker| {
        let mut reader = broker.connect(v5("reader"));
        reader.subscribe(sub("#").qos(1));
        for (version, options) in [("new", v5("new")), ("old", v3("old"))] {
            let mut client = broker.connect(options.keep_alive(2));
            for number in 0..50 {
                let qos = number % 2;
                let message = message("t", format!("{number}")).qos(qos as u8);
                client.push_publish(&if qos == 1 {
                    message.id(number + 1)
                } else {
                    message
                });
            }
            broker.settle();
            let mut payloads = reader.payloads();
            assert!((10..=12).contains(&payloads.len()), "{payloads:?}");
            let mut other = broker.connect(v5("other"));
            other.publish(&message("other", "now").qos(1));
            assert_eq!(reader.payloads(), ["now"]);
            other.disconnect();
            broker.advance(1.0);
            payloads.extend(reader.payloads());
            assert!((19..=23).contains(&payloads.len()), "{payloads:?}");
            for _ in 0..4 {
                broker.advance(1.0);
                payloads.extend(reader.payloads());
            }
            let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
            assert_eq!(payloads, expected, "{version}");
            client.ping();
            client.disconnect();
        }
        assert!(limited(broker, Limited::Rate) > 0);
    });
}

/// The clients of a listener together are held to its rate; nothing is lost, and who came by another one
/// does not wait.
#[test]
fn a_listener_has_a_rate() {
    for bytes in [false, true] {
        let slow = ListenerSettings {
            message_rate: if bytes { 0 } else { 30 },
            byte_rate: if bytes { 3_000 } else { 0 },
            ..ListenerSettings::default()
        };
        let settings = Settings {
            listeners: vec![ListenerSettings::default(), slow],
            ..settings()
        };
        on_shards_with(&settings, |broker| {
            let mut reader = broker.connect(v5("reader"));
            reader.subscribe(sub("#").qos(1));
            // On one shard: each has its share of the rate.
            let clients = ["a", "b"].map(|stem| broker.on(0, stem));
            let mut clients = clients.map(|client_id| broker.connect(v5(&client_id).by(1)));
            for number in 0..40_u16 {
                let client = &mut clients[usize::from(number % 2)];
                // Topics of their own, or they would be taken together.
                let topic = format!("t{number}");
                client.push_publish(&message(&topic, [0; 100]).qos(1).id(number + 1));
            }
            broker.settle();
            let share = 30 / broker.shards();
            let mut came = reader.payloads().len();
            assert!((share..=share + 3).contains(&came), "{came} of {share}");
            let mut other = broker.connect(v5(&broker.on(0, "other")));
            for _ in 0..40 {
                other.publish(&message("other", "now").qos(1));
            }
            assert_eq!(reader.payloads().len(), 40);
            for _ in 0..6 {
                broker.advance(1.0);
                let more = reader.payloads().len();
                assert!(more <= share + 3, "{more} of {share} in a second");
                came += more;
            }
            assert_eq!(came, 40);
            clients.iter_mut().for_each(Client::ping);
            assert!(limited(broker, Limited::ListenerRate) > 0);
            assert_eq!(limited(broker, Limited::Rate), 0);
        });
    }
}

#[test]
fn a_client_has_a_rate_of_bytes() {
    let limits = Limits {
        byte_rate: 1_000,
        ..Limits::default()
    };
    under(limits, |broker| {
        let mut client = broker.connect(v5("client").keep_alive(1));
        for id in 1..=3 {
            // Of one topic they would be taken together.
            client.push_publish(&message(&format!("t{id}"), [0; 3_000]).qos(1).id(id));
        }
        broker.settle();
        let acknowledged = |client: &mut Client| {
            let mut count = 0;
            while let Some(Received::PubAck(..)) = client.next() {
                count += 1;
            }
            count
        };
        assert_eq!(acknowledged(&mut client), 1);
        // It waits longer than its Keep Alive: its silence is ours.
        broker.advance(2.1);
        assert_eq!(acknowledged(&mut client), 1);
        broker.advance(3.1);
        assert_eq!(acknowledged(&mut client), 1);
        broker.advance(3.1);
        client.ping();
    });
}

/// A client that comes and goes all the time is banned for a while.
#[test]
fn a_client_may_not_come_too_often() {
    let limits = Limits {
        client_connects: 3,
        ban_s: 100,
        ..Limits::default()
    };
    under(limits, |broker| {
        for _ in 0..3 {
            broker.connect(v5("flapping")).disconnect();
        }
        broker.advance(61.0);
        for _ in 0..4 {
            broker.connect(v5("flapping")).disconnect();
        }
        broker.expect_refused(v5("flapping"), ReasonCode::Banned);
        broker.expect_refused(v3("flapping"), ReasonCode::NotAuthorized);
        broker.connect(v5("other")).disconnect();
        broker.advance(99.0);
        broker.expect_refused(v5("flapping"), ReasonCode::Banned);
        broker.advance(1.1);
        broker.connect(v5("flapping")).disconnect();
        assert_eq!(limited(broker, Limited::ClientConnects), 3);
    });
}

/// An address from which logins fail all the time is banned for a while.
#[test]
fn an_address_may_not_fail_too_often() {
    let options = Arc::new(GuardOptions {
        entrances: vec![Entrance {
            anonymous: false,
            ..Entrance::default()
        }],
        ..GuardOptions::default()
    });
    let limits = Limits {
        failed_logins: 3,
        ..Limits::default()
    };
    for shards in [1, 3] {
        let settings = Settings {
            limits: limits.clone(),
            ..settings()
        };
        let options = Arc::clone(&options);
        let broker = Broker::guarded(shards, &settings, move || {
            Guard::new(Arc::clone(&options), 0)
        });
        // Each shard counts what it refuses.
        let client_id = broker.on(0, "guess");
        for _ in 0..4 {
            broker.expect_refused(v5(&client_id), ReasonCode::NotAuthorized);
        }
        broker.expect_refused(v5(&client_id), ReasonCode::Banned);
        broker.advance(301.0);
        broker.expect_refused(v5(&client_id), ReasonCode::NotAuthorized);
        assert_eq!(limited(&broker, Limited::FailedLogins), 1);
    }
}

/// Memory that runs short is shed in its order: new clients, QoS 0, reads.
#[test]
fn memory_that_runs_short_is_shed_in_its_order() {
    under(Limits::default(), |broker| {
        let mut reader = broker.connect(v5("reader"));
        reader.subscribe(sub("#").qos(1));
        let mut client = broker.connect(v5("client"));
        broker.world().set_shortage(Shortage::NoConnects);
        broker.expect_refused(v5("late"), ReasonCode::ServerBusy);
        broker.expect_refused(v3("late"), ReasonCode::ServerUnavailable);
        client.publish(&message("t", "zero"));
        assert_eq!(reader.payloads(), ["zero"]);
        broker.world().set_shortage(Shortage::NoAtMostOnce);
        client.publish(&message("t", "zero"));
        client.publish(&message("t", "one").qos(1));
        assert_eq!(reader.payloads(), ["one"]);
        assert_eq!(broker.dropped(DropReason::MemoryShort), 1);
        broker.world().set_shortage(Shortage::SlowReads);
        for id in 1..=5 {
            let topic = format!("t{id}");
            client.push_publish(&message(&topic, id.to_string()).qos(1).id(id));
        }
        broker.settle();
        assert_eq!(reader.payloads(), ["1"]);
        broker.advance(1.1);
        assert_eq!(reader.payloads(), ["2"]);
        broker.world().set_shortage(Shortage::None);
        broker.advance(1.1);
        assert_eq!(reader.payloads(), ["3", "4", "5"]);
        broker.connect(v5("late"));
        assert_eq!(limited(broker, Limited::MemoryConnects), 2);
        assert_eq!(limited(broker, Limited::MemoryReads), 2);
    });
}

/// Without a limit nothing of it is noticed.
#[test]
fn nobody_is_limited_unasked() {
    on_shards_under(
        || shardmq::policy::Open,
        |broker| {
            let mut client = broker.connect(v5("client"));
            client.subscribe(sub("#"));
            for number in 0..2_000 {
                client.push_publish(&message("t", number.to_string()));
            }
            broker.settle();
            assert_eq!(client.payloads().len(), 2_000);
            assert_eq!(broker.stats().limited.iter().sum::<u64>(), 0);
        },
    );
}
