//! Whose turn it is.

use super::*;
use crate::route::{Choice, GroupKey, Routes, Strategy, stable_hash};
use std::collections::BTreeMap;

type Key = (ShardId, SessionKey);

fn key(shard: usize, index: u32) -> Key {
    (ShardId::new(shard), session(index))
}

/// A group of `size` members on shards 0 and 1.
fn group(size: u32) -> (Routes, GroupKey) {
    let mut routes = Routes::new(1);
    for index in 0..size {
        assert!(routes.join("g", filter("t/#"), member(index as usize % 2, index)));
    }
    let key = routes.group("g", filter("t/#")).unwrap();
    assert_eq!(routes.matches(name("t/1")).groups[..], [key]);
    (routes, key)
}

fn choice(strategy: Strategy) -> Choice {
    Choice {
        strategy,
        ..Choice::default()
    }
}

fn picked(
    routes: &mut Routes,
    group: GroupKey,
    choice: Choice,
    exclude: Option<Key>,
) -> Option<Key> {
    let member = routes.pick(group, choice, exclude)?;
    Some((member.shard, member.receiver.session))
}

fn set(routes: &mut Routes, (shard, session): Key, available: bool) {
    routes.set_available("g", filter("t/#"), shard, session, available);
}

#[test]
fn each_in_turn_gets_exactly_its_share() {
    for size in [1, 2, 7, 300] {
        let (mut routes, group) = group(size);
        let mut shares: BTreeMap<Key, usize> = BTreeMap::new();
        for _ in 0..size * 3 {
            let key = picked(&mut routes, group, choice(Strategy::RoundRobin), None).unwrap();
            *shares.entry(key).or_default() += 1;
        }
        assert_eq!(shares.len(), size as usize);
        assert!(shares.values().all(|&share| share == 3), "{shares:?}");
    }
}

#[test]
fn a_turn_goes_on_when_members_come_and_go() {
    let (mut routes, group) = group(4);
    let turn =
        |routes: &mut Routes| picked(routes, group, choice(Strategy::RoundRobin), None).unwrap();
    assert_eq!(turn(&mut routes), key(0, 0));
    assert_eq!(turn(&mut routes), key(0, 2));
    // Whose turn it was leaves: the next one is next.
    routes.leave("g", filter("t/#"), ShardId::new(0), session(2));
    assert_eq!(turn(&mut routes), key(1, 1));
    routes.join("g", filter("t/#"), member(0, 9));
    assert_eq!(turn(&mut routes), key(1, 3));
    assert_eq!(turn(&mut routes), key(0, 0));
    assert_eq!(turn(&mut routes), key(0, 9));
}

#[test]
fn who_cannot_take_messages_is_passed_over() {
    let strategies = [
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Sticky,
        Strategy::HashClientId,
        Strategy::HashTopic,
    ];
    for strategy in strategies {
        let (mut routes, group) = group(4);
        set(&mut routes, key(0, 0), false);
        set(&mut routes, key(1, 3), false);
        for random in 0..50 {
            let choice = Choice {
                strategy,
                random,
                topic_hash: random,
                publisher_hash: random,
            };
            let got = picked(&mut routes, group, choice, None).unwrap();
            assert!(
                [key(1, 1), key(0, 2)].contains(&got),
                "{strategy:?} {got:?}"
            );
            let got = picked(&mut routes, group, choice, Some(key(1, 1))).unwrap();
            assert_eq!(got, key(0, 2), "{strategy:?}");
        }
        // Nobody can: anybody is better than nobody.
        set(&mut routes, key(1, 1), false);
        set(&mut routes, key(0, 2), false);
        assert!(picked(&mut routes, group, choice(strategy), None).is_some());
        set(&mut routes, key(0, 2), true);
        assert_eq!(
            picked(&mut routes, group, choice(strategy), None),
            Some(key(0, 2))
        );
        // The only one who can is excluded: one who cannot, but not the excluded one.
        let got = picked(&mut routes, group, choice(strategy), Some(key(0, 2)));
        assert!(got.is_some_and(|got| got != key(0, 2)), "{strategy:?}");
    }
}

#[test]
fn the_only_member_excluded_leaves_nobody() {
    let (mut routes, group) = group(1);
    for strategy in [
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Sticky,
        Strategy::HashTopic,
    ] {
        assert_eq!(
            picked(&mut routes, group, choice(strategy), Some(key(0, 0))),
            None
        );
        assert_eq!(
            picked(&mut routes, group, choice(strategy), None),
            Some(key(0, 0))
        );
    }
}

#[test]
fn a_sticky_group_stays_until_its_member_leaves_or_cannot() {
    let (mut routes, group) = group(6);
    let sticky = choice(Strategy::Sticky);
    let first = picked(&mut routes, group, sticky, None).unwrap();
    for random in 0..20 {
        let choice = Choice {
            random,
            topic_hash: random,
            ..sticky
        };
        assert_eq!(picked(&mut routes, group, choice, None), Some(first));
    }
    // Passed over once, it stays the one.
    assert_ne!(picked(&mut routes, group, sticky, Some(first)), Some(first));
    assert_eq!(picked(&mut routes, group, sticky, None), Some(first));
    // Who comes does not matter.
    for index in 10..40 {
        routes.join("g", filter("t/#"), member(1, index));
    }
    assert_eq!(picked(&mut routes, group, sticky, None), Some(first));
    routes.leave("g", filter("t/#"), first.0, first.1);
    let second = picked(&mut routes, group, sticky, None).unwrap();
    assert_ne!(second, first);
    set(&mut routes, second, false);
    let third = picked(&mut routes, group, sticky, None).unwrap();
    assert_ne!(third, second);
    set(&mut routes, second, true);
    assert_eq!(picked(&mut routes, group, sticky, None), Some(third));
}

#[test]
fn a_hash_keeps_its_member_and_moves_only_who_must() {
    for strategy in [Strategy::HashTopic, Strategy::HashClientId] {
        let (mut routes, group) = group(10);
        let of = |routes: &mut Routes, topic: u32| {
            let hash = stable_hash(&format!("vehicle/{topic}"));
            let choice = Choice {
                strategy,
                topic_hash: hash,
                publisher_hash: hash,
                random: 0,
            };
            picked(routes, group, choice, None).unwrap()
        };
        let before: Vec<_> = (0..1000).map(|topic| of(&mut routes, topic)).collect();
        let again: Vec<_> = (0..1000).map(|topic| of(&mut routes, topic)).collect();
        assert_eq!(before, again);
        for index in 0..10 {
            let share = before
                .iter()
                .filter(|&&k| k == key(index as usize % 2, index))
                .count();
            assert!((50..200).contains(&share), "{share} of 1000 among ten");
        }
        // One leaves: only its topics move.
        routes.leave("g", filter("t/#"), ShardId::new(0), session(4));
        for (topic, &was) in (0..).zip(&before) {
            let is = of(&mut routes, topic);
            assert_eq!(is == was, was != key(0, 4));
        }
    }
}

#[test]
fn every_shard_picks_the_same_member_by_hash_whatever_it_heard_first() {
    let (mut left, mut right) = (Routes::new(1), Routes::new(2));
    for index in 0..300 {
        left.join("g", filter("t/#"), member(index as usize % 4, index));
    }
    for index in (0..300).rev() {
        right.join("h", filter("t/#"), member(0, index));
        right.join("g", filter("t/#"), member(index as usize % 4, index));
    }
    let (a, b) = (
        left.group("g", filter("t/#")),
        right.group("g", filter("t/#")),
    );
    for topic in 0..200 {
        let topic_hash = stable_hash(&topic.to_string());
        let choice = Choice {
            strategy: Strategy::HashTopic,
            topic_hash,
            ..Choice::default()
        };
        assert_eq!(
            left.pick(a.unwrap(), choice, None),
            right.pick(b.unwrap(), choice, None)
        );
    }
    let sticky = choice(Strategy::Sticky);
    assert_eq!(
        left.pick(a.unwrap(), sticky, None),
        right.pick(b.unwrap(), sticky, None)
    );
}

#[test]
fn a_random_pick_reaches_everybody_evenly() {
    let (mut routes, group) = group(8);
    let mut shares: BTreeMap<Key, usize> = BTreeMap::new();
    for random in 0..7000 {
        let choice = Choice {
            random,
            ..choice(Strategy::Random)
        };
        let got = picked(&mut routes, group, choice, Some(key(0, 2))).unwrap();
        *shares.entry(got).or_default() += 1;
    }
    assert_eq!(shares.len(), 7);
    assert!(
        shares.values().all(|share| (800..1200).contains(share)),
        "{shares:?}"
    );
}

/// The same name on another filter is another group, and a key does not outlive its group.
#[test]
fn groups_come_and_go() {
    let (mut routes, group) = group(2);
    assert!(routes.join("g", filter("t/+"), member(0, 7)));
    assert!(routes.join("h", filter("t/#"), member(0, 7)));
    let matches = routes.matches(name("t/1"));
    assert_eq!(matches.groups.len(), 3);
    assert_eq!(routes.members(group).count(), 2);
    // Again: the options are replaced, nothing is new.
    let again = Member {
        receiver: Receiver {
            qos: QoS::AtMostOnce,
            ..receiver(0)
        },
        ..member(0, 0)
    };
    assert!(!routes.join("g", filter("t/#"), again));
    assert!(routes.members(group).any(|member| *member == again));
    assert!(!routes.join(
        "g",
        filter("t/#"),
        Member {
            available: false,
            ..again
        }
    ));
    assert_eq!(routes.members(group).count(), 2);
    for (shard, index) in [(0, 0), (1, 1)] {
        assert!(routes.leave("g", filter("t/#"), ShardId::new(shard), session(index)));
        assert!(!routes.leave("g", filter("t/#"), ShardId::new(shard), session(index)));
    }
    assert_eq!(routes.matches(name("t/1")).groups.len(), 2);
    assert_eq!(routes.group_name(group), None);
    assert!(routes.join("k", filter("t/#"), member(0, 7)));
    assert_eq!(routes.pick(group, Choice::default(), None), None);
    assert_eq!(routes.group_name(group), None);
}
