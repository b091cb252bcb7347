//! Shared subscriptions, section 4.8.2 of version 5.

use std::collections::{HashMap, HashSet};

use shardmq::route::Strategy;
use shardmq::shard::Settings;
use shardmq::stats::DropReason;
use shardmq::wire::{AckKind, ReasonCode};

use crate::client::{Broker, Client, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{Received, message, sub};

/// `count` members of `$share/g/job`, on all shards, acknowledging by hand, with sessions that stay.
fn members(broker: &Broker, count: usize, qos: u8) -> Vec<Client> {
    (0..count)
        .map(|number| {
            let id = broker.on(number % 3, &format!("member{number}-"));
            let mut client = broker.connect(v5(&id).kept().manual());
            client.subscribe(sub("$share/g/job").qos(qos));
            client
        })
        .collect()
}

fn with(strategy: Strategy) -> Settings {
    Settings {
        shared_subscription_strategy: strategy,
        ..settings()
    }
}

/// Each message goes to one member, whatever shards and versions the members are of; in turn, each
/// gets its share.
#[test]
fn each_message_goes_to_one_member() {
    on_shards(|broker| {
        let mut members = members(broker, 5, 1);
        let mut old = broker.connect(v3("old").manual());
        old.subscribe(sub("$share/g/job").qos(1));
        members.push(old);
        let mut publisher = broker.connect(v5("publisher"));
        for number in 0..60 {
            publisher.publish(&message("job", number.to_string()).qos(1));
        }
        let mut seen = HashSet::new();
        for member in &mut members {
            let payloads = member.payloads();
            assert_eq!(payloads.len(), 10);
            seen.extend(payloads);
        }
        assert_eq!(seen.len(), 60);
    });
}

/// The same name on another filter is another group, and so is another name on the same filter; each
/// gets every message, besides whoever subscribed alone.
#[test]
fn groups_are_told_apart_by_name_and_filter() {
    on_shards(|broker| {
        let mut clients: Vec<_> = [
            "$share/g/job",
            "$share/h/job",
            "$share/g/+",
            "$share/g/#",
            "job",
        ]
        .into_iter()
        .enumerate()
        .map(|(number, filter)| {
            let mut client = broker.connect(v5(&format!("client{number}")));
            client.subscribe(sub(filter));
            client
        })
        .collect();
        let mut publisher = broker.connect(v5("publisher"));
        publisher.publish(&message("job", "x"));
        for client in &mut clients {
            client.expect(&message("job", "x"));
            client.expect_nothing();
        }
        // A member who is also a subscriber gets both.
        clients[0].subscribe(sub("job"));
        publisher.publish(&message("job", "y"));
        assert_eq!(clients[0].payloads(), ["y", "y"]);
        clients[0].unsubscribe(&["$share/g/job"]);
        publisher.publish(&message("job", "z"));
        assert_eq!(clients[0].payloads(), ["z"]);
    });
}

/// [MQTT-4.8.2-3]: with the QoS that was granted, and the identifier of the subscription.
#[test]
fn the_granted_qos_holds() {
    on_shards(|broker| {
        for granted in 0..=2 {
            let mut member = broker.connect(v5(&broker.on(1, "member")));
            member.subscribe(
                sub("$share/g/job")
                    .qos(granted)
                    .identifier(4)
                    .retain_as_published(),
            );
            let mut publisher = broker.connect(v5(&broker.on(2, "publisher")));
            for qos in 0..=2 {
                publisher.publish(&message("job", "x").qos(qos).retain());
                let expected = message("job", "x").qos(qos.min(granted)).retain();
                member.expect(&expected.identifier(4));
            }
            member.disconnect();
        }
    });
}

/// How many messages each of three members got of thirty on each of `topics`, from two publishers.
fn spread(broker: &Broker, topics: &[&str]) -> Vec<HashMap<String, usize>> {
    let mut members: Vec<_> = (0..3)
        .map(|number| {
            let mut client = broker.connect(v5(&broker.on(number, &format!("m{number}-"))));
            client.subscribe(sub("$share/g/#"));
            client
        })
        .collect();
    for publisher in ["one", "two"] {
        let mut client = broker.connect(v5(publisher));
        for topic in topics {
            for _ in 0..30 {
                client.publish(&message(topic, publisher));
            }
        }
    }
    let count = |client: &mut Client| {
        let mut counts = HashMap::new();
        for message in client.messages() {
            let publisher = String::from_utf8_lossy(&message.payload.0).into_owned();
            *counts
                .entry(format!("{publisher} {}", message.topic))
                .or_default() += 1;
        }
        counts
    };
    members.iter_mut().map(count).collect()
}

/// The strategies: in turn, at random, one for all, one per publisher, one per topic.
#[test]
fn strategies_pick_as_they_say() {
    let topics = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let sum = |counts: &HashMap<String, usize>| counts.values().sum::<usize>();
    on_shards_with(&with(Strategy::RoundRobin), |broker| {
        let sums: Vec<_> = spread(broker, &topics).iter().map(sum).collect();
        assert_eq!(sums, [160, 160, 160]);
    });
    on_shards_with(&with(Strategy::Random), |broker| {
        let sums: Vec<_> = spread(broker, &topics).iter().map(sum).collect();
        assert_eq!(sums.iter().sum::<usize>(), 480);
        assert!(sums.iter().all(|sum| (110..210).contains(sum)), "{sums:?}");
    });
    on_shards_with(&with(Strategy::HashTopic), |broker| {
        let counts = spread(broker, &topics);
        for topic in topics {
            let of = |counts: &HashMap<String, usize>| {
                ["one", "two"].map(|name| *counts.get(&format!("{name} {topic}")).unwrap_or(&0))
            };
            let mut each: Vec<_> = counts.iter().map(of).collect();
            each.sort_unstable();
            assert_eq!(each, [[0, 0], [0, 0], [30, 30]]);
        }
        assert!(counts.iter().filter(|counts| !counts.is_empty()).count() > 1);
    });
    on_shards_with(&with(Strategy::HashClientId), |broker| {
        for counts in spread(broker, &topics) {
            for publisher in ["one", "two"] {
                let own = |(key, count): (&String, &usize)| {
                    if key.starts_with(publisher) {
                        *count
                    } else {
                        0
                    }
                };
                let sum: usize = counts.iter().map(own).sum();
                assert!(sum == 0 || sum == 240, "{sum} of {publisher}");
            }
        }
    });
    on_shards_with(&with(Strategy::Sticky), |broker| {
        let mut sums: Vec<_> = spread(broker, &topics).iter().map(sum).collect();
        sums.sort_unstable();
        assert_eq!(sums, [0, 0, 480]);
    });
}

/// Who is not connected is passed over while somebody is; if nobody is, the message waits for one.
#[test]
fn members_who_are_away_are_passed_over() {
    on_shards(|broker| {
        let mut members = members(broker, 3, 1);
        let mut publisher = broker.connect(v5("publisher"));
        members[0].cut();
        members[1].disconnect();
        for number in 0..6 {
            publisher.publish(&message("job", number.to_string()).qos(1));
        }
        assert_eq!(members[2].payloads().len(), 6);
        members[2].cut();
        publisher.publish(&message("job", "waits").qos(1));
        publisher.publish(&message("job", "is lost"));
        assert_eq!(broker.stats().queued, 1);
        assert_eq!(broker.dropped(DropReason::Offline), 1);
        let waits: usize = (0..3)
            .map(|number| {
                let id = broker.on(number, &format!("member{number}-"));
                let mut client = broker.connect(v5(&id).kept());
                client
                    .payloads()
                    .into_iter()
                    .filter(|payload| payload == "waits")
                    .count()
            })
            .sum();
        assert_eq!(waits, 1);
    });
}

/// A slow member does not stop the group: when many wait for it, others are picked.
#[test]
fn a_slow_member_does_not_stop_the_group() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let slow = v5(&broker.on(1, "slow")).receive_maximum(1).manual();
        let mut slow = broker.connect(slow);
        slow.subscribe(sub("$share/g/job").qos(1));
        let mut fast = broker.connect(v5(&broker.on(2, "fast")));
        fast.subscribe(sub("$share/g/job").qos(1));
        let mut got = 0;
        for number in 0..1_000 {
            publisher.publish(&message("job", number.to_string()).qos(1));
            got += fast.payloads().len();
        }
        assert!(got > 800, "{got} of 1000 went to the fast member");
        // The slow one gets what is left, and takes part again.
        let mut worked_off = 0;
        while let Some(Received::Publish(message)) = slow.next() {
            worked_off += 1;
            slow.puback(message.id.unwrap());
        }
        assert_eq!(worked_off, 1_000 - got);
        publisher.publish(&message("job", "a").qos(1));
        publisher.publish(&message("job", "b").qos(1));
        assert_eq!((slow.payloads().len(), fast.payloads().len()), (1, 1));
    });
}

/// [MQTT-4.8.2-4]: a member that is gone for a while gets what it had begun when it is back.
#[test]
fn a_member_completes_what_it_has_begun() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut members = members(broker, 2, 2);
        publisher.publish(&message("job", "1").qos(2));
        publisher.publish(&message("job", "2").qos(2));
        for member in &mut members {
            assert_eq!(member.messages().len(), 1);
        }
        members[0].cut();
        members[1].expect_nothing();
        let id = broker.on(0, "member0-");
        let mut back = broker.connect(v5(&id).kept().manual());
        let received = back.messages();
        assert_eq!(
            (received.len(), received[0].dup, received[0].id),
            (1, true, Some(1))
        );
    });
}

/// [MQTT-4.8.2-5]: the session of a member ends: a QoS 2 message that was sent goes to nobody else; a
/// QoS 1 message does, and so does what was not sent yet. On every shard.
#[test]
fn what_a_session_leaves_passes_to_another_member() {
    on_shards(|broker| {
        for shard in 0..3 {
            let mut publisher = broker.connect(v5("publisher"));
            let leaver = v5(&broker.on(shard, "leaver")).receive_maximum(2).manual();
            let mut leaver = broker.connect(leaver);
            leaver.subscribe(sub("$share/g/job").qos(2));
            for (number, qos) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
                publisher.publish(&message("job", number.to_string()).qos(qos));
            }
            assert_eq!(leaver.payloads(), ["1", "2"]);
            let mut heir = broker.connect(v5(&broker.on(1, "heir")));
            heir.subscribe(sub("$share/g/job").qos(2));
            let before = broker.dropped(DropReason::SessionEnded);
            leaver.cut();
            let mut got = heir.messages();
            got.iter_mut().for_each(|message| message.id = None);
            let job = |number: u8, qos| message("job", number.to_string()).qos(qos);
            assert_eq!(got, [job(1, 1), job(3, 1), job(4, 2)]);
            assert_eq!(broker.dropped(DropReason::SessionEnded) - before, 1);
            heir.disconnect();
        }
    });
}

/// [MQTT-4.8.2-6]: a message that a member refuses goes to nobody else.
#[test]
fn a_refused_message_goes_to_nobody_else() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut members = members(broker, 3, 2);
        for qos in [1, 2, 1, 2] {
            publisher.publish(&message("job", "x").qos(qos));
        }
        let kinds = [AckKind::PubAck, AckKind::PubAck, AckKind::PubRec];
        let mut refused = 0;
        for member in &mut members {
            for message in member.messages() {
                let kind = kinds[usize::from(message.qos)];
                member.acknowledge(kind, message.id.unwrap(), ReasonCode::QuotaExceeded);
                refused += 1;
            }
        }
        assert_eq!(refused, 4);
        for mut member in members {
            member.expect_nothing();
            member.disconnect_with(ReasonCode::NormalDisconnection, Some(0));
        }
        assert_eq!(broker.stats().queued, 0);
    });
}

/// A member that left while a message was on its way to it is replaced by another one.
#[test]
fn a_message_for_a_member_that_left_finds_another_one() {
    let broker = Broker::new(3, &with(Strategy::Sticky));
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    let mut first = broker.connect(v5(&broker.on(1, "first")));
    first.subscribe(sub("$share/g/job").qos(1));
    publisher.publish(&message("job", "1").qos(1));
    first.expect(&message("job", "1").qos(1));
    let mut second = broker.connect(v5(&broker.on(2, "second")));
    second.subscribe(sub("$share/g/job").qos(1));

    broker.world().lane_depth = 0;
    publisher.send_publish(&message("job", "2").qos(1).id(7));
    broker.world().push(first.link, &[0xA2, 17, 0, 1, 0, 0, 12]);
    broker.world().push(first.link, b"$share/g/job");
    broker.world().lane_depth = usize::MAX;
    broker.settle();
    first.expect_packet(Received::UnsubAck(1, vec![0]));
    let sent = first.messages().len() + second.messages().len();
    assert_eq!(sent, 1);
    publisher.expect_packet(Received::PubAck(7, ReasonCode::Success));
    assert_eq!(broker.dropped_in_all(), 0);
}

/// The last member leaves: the group is gone, and nobody is said to listen.
#[test]
fn a_group_without_members_is_gone() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut members = members(broker, 2, 1);
        assert_eq!(broker.stats().shared_subscriptions, 2);
        members[0].unsubscribe(&["$share/g/job"]);
        members[1].disconnect_with(ReasonCode::NormalDisconnection, Some(0));
        assert_eq!(broker.stats().shared_subscriptions, 0);
        let reason = publisher.publish(&message("job", "x").qos(1));
        assert_eq!(reason, ReasonCode::NoMatchingSubscribers);
    });
}

/// A message that is on its way to the last member when it leaves is dropped, and counted.
#[test]
fn a_message_for_nobody_is_counted() {
    let broker = Broker::new(3, &settings());
    let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
    let mut member = broker.connect(v5(&broker.on(1, "member")));
    member.subscribe(sub("$share/g/job").qos(1));
    broker.world().lane_depth = 0;
    publisher.send_publish(&message("job", "x").qos(1).id(7));
    member.cut();
    broker.world().lane_depth = usize::MAX;
    broker.settle();
    publisher.expect_packet(Received::PubAck(7, ReasonCode::Success));
    assert_eq!(
        (
            broker.dropped(DropReason::NoMember),
            broker.dropped_in_all()
        ),
        (1, 1)
    );
}
