//! Shapes that somebody makes on purpose. Each of these takes hours if something is quadratic.

use super::*;
use crate::limits::{MAX_TOPIC_LEVELS, ROUTE_CACHE_BYTES, ROUTE_CACHE_TOPICS};
use crate::route::{Choice, Routes};

const MANY: u32 = 100_000;

/// A permutation of `0..MANY`.
fn shuffled() -> impl Iterator<Item = u32> {
    (0..u64::from(MANY)).map(|n| u32::try_from(n * 48_271 % u64::from(MANY)).unwrap())
}

#[test]
fn as_many_single_level_wildcards_as_there_are_levels() {
    let mut routes = Routes::new(1);
    let deep = vec!["+"; MAX_TOPIC_LEVELS].join("/");
    let topic = vec!["a"; MAX_TOPIC_LEVELS].join("/");
    routes.subscribe(filter(&deep), receiver(1));
    for levels in 1..MAX_TOPIC_LEVELS {
        let open = format!("{}/#", vec!["+"; levels].join("/"));
        routes.subscribe(filter(&open), receiver(2));
    }
    assert_eq!(routes.matches(name(&topic)).local.len(), MAX_TOPIC_LEVELS);
    let shallow = vec!["a"; MAX_TOPIC_LEVELS - 1].join("/");
    assert_eq!(
        routes.matches(name(&shallow)).local.len(),
        MAX_TOPIC_LEVELS - 1
    );
    routes.unsubscribe(filter(&deep), session(1));
    assert_eq!(
        routes.matches(name(&topic)).local.len(),
        MAX_TOPIC_LEVELS - 1
    );
}

/// Runs of literal levels of every length between wildcards, also longer than a node tells apart.
#[test]
fn wildcards_far_apart() {
    let level = |at: &[usize], n: usize| if at.contains(&n) { "+" } else { "a" };
    for levels in [2, 9, 10, 30, MAX_TOPIC_LEVELS] {
        let mut routes = Routes::new(1);
        let topic = vec!["a"; levels].join("/");
        let mut count = 0;
        for first in (0..levels).step_by(3) {
            for second in (first..levels).step_by(5) {
                let at = [first, second];
                let text: Vec<_> = (0..levels).map(|n| level(&at, n)).collect();
                routes.subscribe(filter(&text.join("/")), receiver(count));
                let open = format!("{}/#", text[..second + 1].join("/"));
                if second + 1 < levels {
                    routes.subscribe(filter(&open), receiver(count + 1));
                }
                count += 1 + u32::from(second + 1 < levels);
            }
        }
        assert_eq!(routes.matches(name(&topic)).local.len(), count as usize);
        let other = format!("{}/b", vec!["a"; levels - 1].join("/"));
        // With a wildcard at the last level or before an open end, one of each pair.
        let pairs = (0..levels)
            .step_by(3)
            .map(|first| (first..levels).step_by(5).count());
        assert_eq!(
            routes.matches(name(&other)).local.len(),
            pairs.sum::<usize>()
        );
    }
}

/// Every choice of literal or wildcard in the first levels, none of which matches in the end.
#[test]
fn branches_that_all_lead_nowhere() {
    let mut routes = Routes::new(1);
    for bits in 0..1024u32 {
        let levels = (0..10).map(|bit| if bits & 1 << bit == 0 { "a" } else { "+" });
        let text = format!(
            "{}/{}/x",
            levels.collect::<Vec<_>>().join("/"),
            vec!["a"; 117].join("/")
        );
        routes.subscribe(filter(&text), receiver(bits));
    }
    let topic = vec!["a"; MAX_TOPIC_LEVELS].join("/");
    for _ in 0..20 {
        assert!(routes.matches_uncached(name(&topic)).local.is_empty());
    }
}

#[test]
fn a_hundred_thousand_subscribers_of_one_filter() {
    for text in ["all", "#"] {
        let mut routes = Routes::new(1);
        for index in shuffled() {
            let done = routes.subscribe(filter(text), receiver(index));
            assert!(!done.replaced);
        }
        let all = routes.matches(name("all"));
        assert_eq!(all.local.len(), MANY as usize);
        assert!(all.local.is_sorted_by_key(|receiver| receiver.session));
        for index in shuffled().take(1000) {
            assert!(routes.subscribe(filter(text), receiver(index)).replaced);
        }
        for (gone, index) in (1..).zip(shuffled().map(|index| MANY - 1 - index)) {
            let done = routes.unsubscribe(filter(text), session(index));
            assert!(done.existed);
            assert_eq!(done.last, gone == MANY);
        }
        assert!(routes.matches(name("all")).local.is_empty());
        assert_eq!(routes.filters(), 0);
    }
}

#[test]
fn a_hundred_thousand_wildcards_of_one_client() {
    let mut routes = Routes::new(1);
    let text = |n: u32| match n % 4 {
        0 => format!("fleet/{n}/+"),
        1 => format!("+/{n}/#"),
        2 => format!("+/+/{n}/+/x"),
        _ => format!("fleet/+/{n}"),
    };
    for n in shuffled() {
        routes.subscribe(filter(&text(n)), receiver(1));
    }
    assert_eq!(routes.subscriptions(), MANY as usize);
    assert_eq!(routes.matches(name("fleet/400/a")).local.len(), 1);
    assert_eq!(routes.matches(name("fleet/401/a")).local.len(), 1);
    assert_eq!(routes.matches(name("fleet/9/402/9/x")).local.len(), 2);
    for n in shuffled() {
        assert!(routes.unsubscribe(filter(&text(n)), session(1)).last);
    }
    assert_eq!(routes.filters(), 0);
    assert_eq!(routes.filters.nodes(), 0);
}

#[test]
fn a_hundred_thousand_members_and_groups() {
    let mut routes = Routes::new(1);
    for index in shuffled() {
        routes.join("g", filter("t"), member(0, index));
    }
    let group = routes.group("g", filter("t")).unwrap();
    for index in shuffled().take(MANY as usize - 1) {
        routes.set_available("g", filter("t"), ShardId::new(0), session(index), false);
    }
    let only = routes.pick(group, Choice::default(), None).unwrap();
    assert!(only.available);
    for index in shuffled() {
        assert!(routes.leave("g", filter("t"), ShardId::new(0), session(index)));
    }
    for index in 0..MANY {
        routes.join(&format!("g{index}"), filter("t"), member(0, 1));
    }
    assert_eq!(routes.matches(name("t")).groups.len(), MANY as usize);
    for index in shuffled() {
        assert!(routes.leave(
            &format!("g{index}"),
            filter("t"),
            ShardId::new(0),
            session(1)
        ));
    }
    assert_eq!(routes.filters(), 0);
}

#[test]
fn the_cache_is_bounded_in_topics_and_in_bytes() {
    let mut routes = Routes::new(1);
    routes.subscribe(filter("#"), receiver(1));
    for n in 0..ROUTE_CACHE_TOPICS * 2 {
        assert_eq!(routes.matches(name(&format!("t/{n}"))).local.len(), 1);
        // One that is asked for all the time stays.
        routes.matches(name("hot"));
    }
    assert!(routes.cache.len() <= ROUTE_CACHE_TOPICS);
    assert!(routes.cache.len() > ROUTE_CACHE_TOPICS / 2);
    assert!(routes.cache.bytes() <= ROUTE_CACHE_BYTES);
    let hash = routes.hashing.text(b"hot");
    assert!(routes.cache.get("hot", hash).is_some());
    for index in 0..10_000 {
        routes.subscribe(filter("#"), receiver(index));
    }
    for n in 0..500 {
        assert_eq!(routes.matches(name(&format!("u/{n}"))).local.len(), 10_000);
        assert!(routes.cache.bytes() <= ROUTE_CACHE_BYTES);
    }
}
