//! Which filters with wildcards may match a topic: a trie that has nodes only where it branches on
//! a wildcard.
//!
//! A node stands for a path that ends in an inner `+`; the runs of literal levels between wildcards
//! have no nodes, because [`Prefixes::extend`] steps over a run in one multiplication. So
//! `vehicle/4711/cmd/+` costs no node at all, and a walk costs one probe per place where some filter
//! really goes on, independent of the depth of the topic.
//!
//! Invariants:
//! - `through` of a node is the number of filters whose path leads through it; at 0 it is gone.
//! - `next` of a node has at least the levels at which those filters have their next wildcard, or
//!   end. A level stays in it after the last such filter went, until the node goes: one probe too
//!   many, never one too few.
//! - Two paths with one hash share a node. That makes a walk visit too much, never too little, and
//!   whoever takes the paths it yields compares texts ([`covers`]).

use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::hash::{Hashing, Path, Prefixes, Wildcard};
use super::table::{Hashed, Table, spread, tag};
use crate::limits::MAX_TOPIC_LEVELS;

/// A set of levels. A filter's levels are numbered from 0, so the last possible is 127.
type Levels = u128;

const _: () = assert!(MAX_TOPIC_LEVELS <= Levels::BITS as usize);

/// A path that ends in an inner `+`.
struct Node {
    path: Path,
    through: u32,
    /// In four parts, which need less alignment than the whole.
    next: [u32; 4],
}

const _: () = assert!(size_of::<Node>() == 32);

impl Hashed for Node {
    fn spread(&self) -> u64 {
        spread(tag(self.path.hash()))
    }
}

/// How many filters have something at a level, and the levels where any has.
struct Census {
    counts: [u32; MAX_TOPIC_LEVELS],
    levels: Levels,
}

/// The trie, without the filters themselves.
pub(super) struct Wildcards {
    nodes: Table<Node>,
    len: usize,
    /// `#`, by its level.
    multi: Census,
    /// `+` that is not the last level, by its level.
    inner: Census,
    /// `+` that is the last level, by its level.
    last: Census,
    /// Filters with wildcards whose last level is literal, by that level.
    tail: Census,
}

/// What a filter consists of, for filters with wildcards.
struct Shape {
    /// The path up to and with every inner `+`, and the level of what comes next.
    nodes: SmallVec<[(Path, usize, usize); 4]>,
    whole: Path,
    end: End,
}

/// How a filter ends, and at which level.
enum End {
    Multi(usize),
    Single(usize),
    Literal(usize),
}

impl Shape {
    fn of(filter: &str, hashing: &Hashing) -> Self {
        let mut whole = hashing.empty();
        let mut nodes: SmallVec<[(Path, usize, usize); 4]> = SmallVec::new();
        let mut end = End::Literal(0);
        let mut levels = filter.split('/').enumerate().peekable();
        while let Some((at, level)) = levels.next() {
            let is_last = levels.peek().is_none();
            if (is_last || level == "+")
                && let Some((_, node, next)) = nodes.last_mut()
                && *next == *node
            {
                *next = at;
            }
            match level {
                "#" => {
                    whole = hashing.wildcard(whole, Wildcard::Multi);
                    end = End::Multi(at);
                }
                "+" => {
                    whole = hashing.wildcard(whole, Wildcard::Single);
                    end = End::Single(at);
                    if !is_last {
                        nodes.push((whole, at, at));
                    }
                }
                _ => {
                    whole = hashing.literal(whole, level.as_bytes());
                    end = End::Literal(at);
                }
            }
        }
        Self { nodes, whole, end }
    }
}

impl Wildcards {
    pub(super) fn new() -> Self {
        Self {
            nodes: Table::new(),
            len: 0,
            multi: Census::new(),
            inner: Census::new(),
            last: Census::new(),
            tail: Census::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hash of a filter with wildcards, as [`Wildcards::walk`] yields it.
    pub(super) fn hash(filter: &str, hashing: &Hashing) -> u64 {
        Shape::of(filter, hashing).whole.hash()
    }

    /// A filter with wildcards was added.
    pub(super) fn add(&mut self, filter: &str, hashing: &Hashing) {
        let shape = Shape::of(filter, hashing);
        self.len += 1;
        let (census, level) = self.end_census(&shape.end);
        census.add(level);
        for (path, level, next) in shape.nodes {
            self.inner.add(level);
            let found = self.nodes.entry(path.hash(), |node| node.path == path);
            let mut entry = match found {
                Some(Entry::Occupied(entry)) => entry,
                Some(Entry::Vacant(entry)) => entry.insert(Node {
                    path,
                    through: 0,
                    next: [0; 4],
                }),
                None => continue,
            };
            let node = entry.get_mut();
            node.through += 1;
            if let Some(part) = node.next.get_mut(next / 32) {
                *part |= 1 << (next % 32);
            }
        }
    }

    /// A filter with wildcards that was added is gone.
    pub(super) fn remove(&mut self, filter: &str, hashing: &Hashing) {
        let shape = Shape::of(filter, hashing);
        self.len -= 1;
        let (census, level) = self.end_census(&shape.end);
        census.remove(level);
        for (path, level, _) in shape.nodes {
            self.inner.remove(level);
            let found = self.nodes.entry(path.hash(), |node| node.path == path);
            let Some(Entry::Occupied(mut entry)) = found else {
                debug_assert!(false, "every inner + of a filter has a node");
                continue;
            };
            entry.get_mut().through -= 1;
            if entry.get().through == 0 {
                self.nodes.remove(path.hash(), |node| node.path == path);
            }
        }
    }

    fn end_census(&mut self, end: &End) -> (&mut Census, usize) {
        match *end {
            End::Multi(level) => (&mut self.multi, level),
            End::Single(level) => (&mut self.last, level),
            End::Literal(level) => (&mut self.tail, level),
        }
    }

    /// Calls `found` with the hash of every filter that may match the topic. No filter that starts
    /// with a wildcard is among them if `dollar` says that the topic starts with `$`
    /// [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1].
    pub(super) fn walk(
        &self,
        topic: &Prefixes<'_>,
        dollar: bool,
        hashing: &Hashing,
        mut found: impl FnMut(u64),
    ) {
        let levels = topic.levels();
        let last = levels - 1;
        let wildcards = self.multi.levels | self.inner.levels | self.last.levels;
        let next = if dollar { wildcards & !1 } else { wildcards };
        let mut open: SmallVec<[(Path, usize, Levels); 8]> = SmallVec::new();
        open.push((hashing.empty(), 0, next));
        while let Some((path, from, next)) = open.pop() {
            // `sport/#` matches `sport` too: a `#` may stand one level past the topic's last.
            for at in ones(next & self.multi.levels & up_to(levels)) {
                let path = topic.extend(path, from, at);
                found(hashing.wildcard(path, Wildcard::Multi).hash());
            }
            for at in ones(next & self.inner.levels & up_to(last)) {
                let path = hashing.wildcard(topic.extend(path, from, at), Wildcard::Single);
                if let Some(node) = self.nodes.find(path.hash(), |node| node.path == path) {
                    open.push((path, at + 1, node.next_after(at)));
                }
            }
            if next & (1 << last) == 0 {
                continue;
            }
            if self.last.levels & (1 << last) != 0 {
                let path = topic.extend(path, from, last);
                found(hashing.wildcard(path, Wildcard::Single).hash());
            }
            if from > 0 && self.tail.levels & (1 << last) != 0 {
                found(topic.extend(path, from, levels).hash());
            }
        }
    }
}

impl Node {
    /// The levels behind `level`, at which the node stands, where filters go on.
    fn next_after(&self, level: usize) -> Levels {
        let [a, b, c, d] = self.next.map(Levels::from);
        (a | b << 32 | c << 64 | d << 96) & !up_to(level)
    }
}

impl Census {
    fn new() -> Self {
        Self {
            counts: [0; MAX_TOPIC_LEVELS],
            levels: 0,
        }
    }

    fn add(&mut self, level: usize) {
        if let Some(count) = self.counts.get_mut(level) {
            *count += 1;
            self.levels |= 1 << level;
        }
    }

    fn remove(&mut self, level: usize) {
        if let Some(count) = self.counts.get_mut(level) {
            *count -= 1;
            if *count == 0 {
                self.levels &= !(1 << level);
            }
        }
    }
}

/// The levels up to and with `level`.
fn up_to(level: usize) -> Levels {
    Levels::MAX >> (Levels::BITS as usize - 1).saturating_sub(level)
}

/// The members of `levels`, lowest first.
fn ones(mut levels: Levels) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let level = levels.trailing_zeros() as usize;
        levels &= levels.wrapping_sub(1);
        (level < Levels::BITS as usize).then_some(level)
    })
}

/// Whether `filter`, which is a valid filter, matches `topic`, which is a valid name, leaving the
/// rule about `$` aside. In a valid filter a wildcard is alone in its level and a name has none, so
/// bytes can be compared as they come; nothing is normalised
/// [MQTT-4.7.3-4] [MQTT-4.7.3-4 3.1.1].
pub(super) fn covers(filter: &[u8], topic: &[u8]) -> bool {
    let (mut filter, mut topic) = (filter, topic);
    loop {
        match (filter, topic) {
            ([b'#', ..], _) => return true,
            ([b'+', wanted @ ..], _) => {
                let end = topic
                    .iter()
                    .position(|&byte| byte == b'/')
                    .unwrap_or(topic.len());
                (filter, topic) = (wanted, topic.get(end..).unwrap_or_default());
            }
            ([wanted, filter_rest @ ..], [byte, topic_rest @ ..]) if wanted == byte => {
                (filter, topic) = (filter_rest, topic_rest);
            }
            ([], []) => return true,
            (rest, []) => return rest == b"/#",
            _ => return false,
        }
    }
}
