//! Subscriptions, interest and the cache.

use super::*;
use crate::route::hash::Hashing;
use crate::route::{Matches, Routes, ShardSet, Subscribed, Unsubscribed};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Clone, Debug)]
enum Change {
    Subscribe(String, Receiver),
    Unsubscribe(String, SessionKey),
    Interest(String, usize, bool),
    Join(&'static str, String, usize, u32),
    Leave(&'static str, String, usize, u32),
}

/// A broker that knows no other way than to ask every filter.
#[derive(Default)]
struct Naive {
    local: BTreeMap<(String, SessionKey), Receiver>,
    remote: BTreeMap<(String, usize), ()>,
    members: BTreeMap<(String, &'static str, usize, u32), ()>,
}

/// What both must agree on.
#[derive(Debug, PartialEq)]
struct Answer {
    local: Vec<Receiver>,
    remote: ShardSet,
    groups: Vec<(String, String)>,
}

fn by_everything(receiver: &Receiver) -> (SessionKey, u32, u8, bool, bool) {
    let Receiver {
        session,
        identifier,
        qos,
        no_local,
        retain_as_published,
    } = *receiver;
    (
        session,
        identifier,
        qos as u8,
        no_local,
        retain_as_published,
    )
}

impl Naive {
    fn subscribers(&self, text: &str) -> usize {
        self.local
            .keys()
            .filter(|(filter, _)| filter == text)
            .count()
    }

    fn filters(&self) -> usize {
        let all = self.local.keys().map(|key| &key.0);
        let all = all.chain(self.remote.keys().map(|key| &key.0));
        all.chain(self.members.keys().map(|key| &key.0))
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    }

    fn answer(&self, topic: &str) -> Answer {
        let matches = |text: &str| filter(text).matches(name(topic));
        let mut local: Vec<_> = self
            .local
            .iter()
            .filter(|(key, _)| matches(&key.0))
            .map(|(_, &r)| r)
            .collect();
        local.sort_by_key(by_everything);
        let mut groups: Vec<_> = self
            .members
            .keys()
            .filter(|key| matches(&key.0))
            .map(|key| (key.1.to_owned(), key.0.clone()))
            .collect();
        groups.dedup();
        groups.sort();
        groups.dedup();
        Answer {
            local,
            remote: self
                .remote
                .keys()
                .filter(|key| matches(&key.0))
                .map(|key| ShardId::new(key.1))
                .collect(),
            groups,
        }
    }

    /// Everybody goes.
    fn clear(&mut self, routes: &mut Routes) {
        for (text, session) in self.local.clone().into_keys() {
            self.apply(routes, Change::Unsubscribe(text, session));
        }
        for (text, shard) in self.remote.clone().into_keys() {
            self.apply(routes, Change::Interest(text, shard, false));
        }
        for (text, share, shard, index) in self.members.clone().into_keys() {
            self.apply(routes, Change::Leave(share, text, shard, index));
        }
    }

    /// Does the same to both; the answers must agree.
    fn apply(&mut self, routes: &mut Routes, change: Change) {
        match change {
            Change::Subscribe(text, receiver) => {
                let first = self.subscribers(&text) == 0;
                let done = routes.subscribe(filter(&text), receiver);
                let replaced = self
                    .local
                    .insert((text, receiver.session), receiver)
                    .is_some();
                assert_eq!(done, Subscribed { replaced, first });
            }
            Change::Unsubscribe(text, session) => {
                let done = routes.unsubscribe(filter(&text), session);
                let existed = self.local.remove(&(text.clone(), session)).is_some();
                let last = existed && self.subscribers(&text) == 0;
                assert_eq!(done, Unsubscribed { existed, last });
            }
            Change::Interest(text, shard, interested) => {
                routes.set_interest(filter(&text), ShardId::new(shard), interested);
                if interested {
                    self.remote.insert((text, shard), ());
                } else {
                    self.remote.remove(&(text, shard));
                }
            }
            Change::Join(share, text, shard, index) => {
                let is_new = routes.join(share, filter(&text), member(shard, index));
                let key = (text, share, shard, index);
                assert_eq!(is_new, self.members.insert(key, ()).is_none());
            }
            Change::Leave(share, text, shard, index) => {
                let shard_id = ShardId::new(shard);
                let left = routes.leave(share, filter(&text), shard_id, session(index));
                let key = (text, share, shard, index);
                assert_eq!(left, self.members.remove(&key).is_some());
            }
        }
        assert_eq!(routes.subscriptions(), self.local.len());
        assert_eq!(routes.filters(), self.filters());
        for shard in 0..3 {
            let members = self.members.keys().filter(|key| key.2 == shard).count();
            assert_eq!(routes.shared_subscriptions(ShardId::new(shard)), members);
        }
    }
}

fn answer(routes: &Routes, matches: &Matches) -> Answer {
    assert!(matches.local.is_sorted_by_key(|receiver| receiver.session));
    assert!(matches.groups.is_sorted());
    let mut local = matches.local.to_vec();
    local.sort_by_key(by_everything);
    let mut groups: Vec<_> = matches
        .groups
        .iter()
        .map(|&key| {
            let (share, filter) = routes.group_name(key).unwrap();
            (share.to_owned(), filter.to_owned())
        })
        .collect();
    groups.sort();
    Answer {
        local,
        remote: matches.remote,
        groups,
    }
}

fn change() -> impl Strategy<Value = Change> {
    let share = prop_oneof![Just("g"), Just("h")];
    // Few filters, so that the same ones come again.
    let filter = prop_oneof![2 => any_filter(), 1 => topic()];
    (
        filter,
        0..5u8,
        any::<[bool; 3]>(),
        0..4u32,
        share,
        0..3usize,
    )
        .prop_map(|(text, kind, [a, b, c], index, share, shard)| match kind {
            0 => Change::Subscribe(
                text,
                Receiver {
                    session: session(index),
                    identifier: u32::from(c) * 7,
                    qos: if a { QoS::ExactlyOnce } else { QoS::AtMostOnce },
                    no_local: b,
                    retain_as_published: c,
                },
            ),
            1 => Change::Unsubscribe(text, session(index)),
            2 => Change::Interest(text, shard, a || b),
            3 => Change::Join(share, text, shard, index),
            _ => Change::Leave(share, text, shard, index),
        })
}

/// The reverse of a change, so that things also go away.
fn undo(change: &Change) -> Change {
    match change.clone() {
        Change::Subscribe(text, receiver) => Change::Unsubscribe(text, receiver.session),
        Change::Unsubscribe(text, session) => Change::Subscribe(
            text,
            Receiver {
                session,
                ..receiver(0)
            },
        ),
        Change::Interest(text, shard, interested) => Change::Interest(text, shard, !interested),
        Change::Join(share, text, shard, index) => Change::Leave(share, text, shard, index),
        Change::Leave(share, text, shard, index) => Change::Join(share, text, shard, index),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever changes, in whatever order, and however hashes collide: every topic asked for before and after each change,
    /// so from the cache where it may be, matches what the naive reading says.
    #[test]
    fn routes_agree_with_the_naive_broker(
        seed: u64,
        weak in any::<Option<bool>>(),
        changes in prop::collection::vec((change(), any::<Option<prop::sample::Index>>()), 1..40),
        topics in prop::collection::vec(topic(), 1..8),
    ) {
        let mut routes = Routes::new(seed);
        if let Some(constant) = weak {
            // All filters under one hash, or under four: slower, and right.
            routes.hashing = Hashing::weak(seed, if constant { 0 } else { 3 });
        }
        let mut naive = Naive::default();
        let mut done: Vec<Change> = Vec::new();
        for (change, back) in changes {
            let change = match back {
                Some(back) if !done.is_empty() => undo(back.get(&done)),
                _ => change,
            };
            naive.apply(&mut routes, change.clone());
            done.push(change);
            for topic in &topics {
                let expected = naive.answer(topic);
                let cached = routes.matches(name(topic));
                prop_assert_eq!(&answer(&routes, &cached), &expected, "{}", topic);
                let again = routes.matches(name(topic));
                prop_assert_eq!(&answer(&routes, &again), &expected, "{} again", topic);
                let walked = routes.matches_uncached(name(topic));
                prop_assert_eq!(&answer(&routes, &walked), &expected, "{} walked", topic);
            }
        }
        naive.clear(&mut routes);
        prop_assert_eq!(routes.filters(), 0);
        prop_assert_eq!(routes.filters.nodes(), 0, "a node outlived its filters");
        for topic in &topics {
            prop_assert_eq!(&*routes.matches(name(topic)), &Matches::default());
        }
    }

    /// One filter, one topic, many of both.
    #[test]
    fn a_filter_matches_what_it_says(texts in prop::collection::vec((any_filter(), topic()), 64)) {
        for (text, topic) in &texts {
            let mut routes = Routes::new(3);
            routes.subscribe(filter(text), receiver(1));
            let found = routes.matches(name(topic)).local.len();
            let expected = usize::from(filter(text).matches(name(topic)));
            prop_assert_eq!(found, expected, "{} {}", text, topic);
        }
    }
}

fn matched(filters: &[&str], topic: &str) -> Vec<u32> {
    let mut routes = Routes::new(1);
    for (index, text) in (0..).zip(filters) {
        routes.subscribe(filter(text), receiver(index));
    }
    routes
        .matches(name(topic))
        .local
        .iter()
        .map(|receiver| receiver.session.index)
        .collect()
}

/// [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1]
#[test]
fn a_leading_wildcard_does_not_match_a_dollar_topic() {
    let filters = [
        "#",
        "+/broker",
        "+",
        "$SYS/#",
        "$SYS/+",
        "+/#",
        "$SYS/broker",
    ];
    assert_eq!(matched(&filters, "$SYS/broker"), [3, 4, 6]);
    assert_eq!(matched(&filters, "$SYS"), [3]);
    assert_eq!(matched(&filters, "a/$SYS"), [0, 5]);
    assert_eq!(matched(&["#", "+/b", "a/#", "a/+"], "a/b"), [0, 1, 2, 3]);
}

#[test]
fn a_shared_filter_follows_the_dollar_rule_by_its_inner_filter() {
    let mut routes = Routes::new(1);
    routes.join("g", filter("#"), member(0, 1));
    routes.join("g", filter("$SYS/#"), member(0, 2));
    let matches = routes.matches(name("$SYS/broker"));
    assert_eq!(matches.groups.len(), 1);
    assert_eq!(routes.group_name(matches.groups[0]), Some(("g", "$SYS/#")));
}

/// The examples of section 4.7.1 of both standards.
#[test]
fn the_examples_of_the_standard() {
    let filters = [
        "sport/tennis/player1/#",
        "sport/#",
        "sport/tennis/+",
        "sport/+",
        "+/+",
        "/+",
        "+",
    ];
    assert_eq!(matched(&filters, "sport/tennis/player1"), [0, 1, 2]);
    assert_eq!(matched(&filters, "sport/tennis/player1/ranking"), [0, 1]);
    assert_eq!(
        matched(&filters, "sport/tennis/player1/score/wimbledon"),
        [0, 1]
    );
    assert_eq!(matched(&filters, "sport"), [1, 6]);
    assert_eq!(matched(&filters, "sport/"), [1, 3, 4]);
    assert_eq!(matched(&filters, "/finance"), [4, 5]);
}

/// Levels may be empty, and `/a` and `a` differ.
#[test]
fn an_empty_level_is_a_level() {
    let filters = ["/a", "a", "+/a", "/", "+/+", "//", "+", "#", "/+/", "a/"];
    assert_eq!(matched(&filters, "/a"), [0, 2, 4, 7]);
    assert_eq!(matched(&filters, "a"), [1, 6, 7]);
    assert_eq!(matched(&filters, "/"), [3, 4, 7]);
    assert_eq!(matched(&filters, "//"), [5, 7, 8]);
    assert_eq!(matched(&filters, "a/"), [4, 7, 9]);
}

/// Nothing is normalised: neither case nor accents [MQTT-4.7.3-4] [MQTT-4.7.3-4 3.1.1].
#[test]
fn topics_are_compared_as_they_are() {
    let filters = [
        "ACCOUNTS",
        "accounts",
        "\u{e9}",
        "e\u{301}",
        "\u{feff}a",
        "a",
    ];
    assert_eq!(matched(&filters, "ACCOUNTS"), [0]);
    assert_eq!(matched(&filters, "\u{e9}"), [2]);
    assert_eq!(matched(&filters, "e\u{301}"), [3]);
    assert_eq!(matched(&filters, "a"), [5]);
}

/// [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.8.4-3 3.1.1]
#[test]
fn the_same_filter_again_replaces_the_options() {
    for text in ["a/b", "a/+"] {
        let mut routes = Routes::new(1);
        let replacement = Receiver {
            qos: QoS::ExactlyOnce,
            identifier: 9,
            ..receiver(1)
        };
        routes.subscribe(filter(text), receiver(1));
        assert_eq!(routes.matches(name("a/b")).local[..], [receiver(1)]);
        let done = routes.subscribe(filter(text), replacement);
        assert_eq!(
            done,
            Subscribed {
                replaced: true,
                first: false
            }
        );
        assert_eq!(routes.matches(name("a/b")).local[..], [replacement]);
        assert_eq!(routes.subscriptions(), 1);
    }
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-1 3.1.1] [MQTT-3.10.4-2 3.1.1]
#[test]
fn unsubscribing_takes_the_very_filter_and_at_once() {
    let mut routes = Routes::new(1);
    routes.subscribe(filter("a/+"), receiver(1));
    routes.subscribe(filter("a/b"), receiver(1));
    assert_eq!(routes.matches(name("a/b")).local.len(), 2);
    let nothing = Unsubscribed {
        existed: false,
        last: false,
    };
    assert_eq!(routes.unsubscribe(filter("a/#"), session(1)), nothing);
    assert_eq!(routes.unsubscribe(filter("a/+"), session(2)), nothing);
    let done = routes.unsubscribe(filter("a/+"), session(1));
    assert_eq!(
        done,
        Unsubscribed {
            existed: true,
            last: true
        }
    );
    assert_eq!(routes.matches(name("a/b")).local.len(), 1);
    routes.unsubscribe(filter("a/b"), session(1));
    assert!(routes.matches(name("a/b")).local.is_empty());
}

/// Literal prefixes of every length, longer ones too than the cache tells apart.
#[test]
fn a_wildcard_below_any_prefix_reaches_what_is_cached() {
    let topic = "a/b/c/d/e/f/g/h";
    let levels: Vec<_> = topic.split('/').collect();
    let mut routes = Routes::new(1);
    let mut expected = 0;
    for prefix in 0..levels.len() {
        let single: Vec<_> = (0..levels.len())
            .map(|n| if n == prefix { "+" } else { levels[n] })
            .collect();
        let multi = [&levels[..prefix], &["#"]].concat();
        for text in [single.join("/"), multi.join("/")] {
            assert_eq!(routes.matches(name(topic)).local.len(), expected);
            routes.subscribe(filter(&text), receiver(1));
            expected += 1;
            assert_eq!(routes.matches(name(topic)).local.len(), expected, "{text}");
        }
    }
}

/// A change below one prefix leaves what is cached elsewhere.
#[test]
fn a_wildcard_drops_only_what_it_may_concern() {
    let mut routes = Routes::new(1);
    routes.subscribe(filter("vehicle/+/state"), receiver(1));
    let before: Vec<_> = (0..100)
        .map(|n| routes.matches(name(&format!("vehicle/{n}/state"))))
        .collect();
    routes.subscribe(filter("vehicle/7/+"), receiver(2));
    let kept = (0..100)
        .filter(|n| {
            Rc::ptr_eq(
                &routes.matches(name(&format!("vehicle/{n}/state"))),
                &before[*n],
            )
        })
        .count();
    assert!(kept > 90, "{kept} of 100 lines kept");
    assert_eq!(routes.matches(name("vehicle/7/state")).local.len(), 2);
}
