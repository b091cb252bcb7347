//! The routing against the naive reading of the standard: a list of filters, and
//! [`Filter::matches`] for each.

mod groups;
mod hostile;
mod matching;
mod retained;

use super::{Member, Receiver, SessionKey, ShardId};
use crate::topic::{Filter, Name};
use crate::wire::QoS;
use proptest::prelude::*;

fn filter(text: &str) -> Filter<'_> {
    Filter::parse(text).unwrap()
}

fn name(text: &str) -> Name<'_> {
    Name::parse(text).unwrap()
}

fn session(index: u32) -> SessionKey {
    SessionKey {
        index,
        generation: index % 3,
    }
}

fn receiver(index: u32) -> Receiver {
    Receiver {
        session: session(index),
        identifier: 0,
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
    }
}

fn member(shard: usize, index: u32) -> Member {
    Member {
        shard: ShardId::new(shard),
        receiver: receiver(index),
        available: true,
    }
}

/// Levels that are easily taken for each other: empty, sorted around the slash, in another script.
const LEVELS: [&str; 9] = ["", "a", "b", "a-", "a0", "ab", "é", "$SYS", "$"];

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just("a"),
        4 => Just("b"),
        4 => prop::sample::select(&LEVELS[..]),
    ]
}

/// A topic name of a few levels.
fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..7)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a name has a character", |topic| !topic.is_empty())
}

/// A topic filter of a few levels.
fn any_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (
        prop::collection::vec(level, 0..6),
        prop::option::weighted(0.3, Just("#")),
    )
        .prop_map(|(mut levels, multi)| {
            levels.extend(multi);
            levels.join("/")
        })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}
