//! Which filters with wildcards may match a topic: a trie that has nodes only where it branches on
//! a wildcard.
//!
//! A node stands for a path that ends in an inner `+`; the runs of literal levels between wildcards
//! have no nodes, because [`Steps::to`] steps over a run in one multiplication. So
//! `vehicle/4711/cmd/+` costs no node at all, and a walk costs one probe per place where some filter
//! really goes on, independent of the depth of the topic.
//!
//! Invariants:
//! - `through` of a node is the number of filters whose path leads through it; at 0 it is gone.
//! - `next` of a node has at least what those filters have next: a wildcard, or their end. A place
//!   stays in it after the last such filter went, until the node goes: one probe too many, never
//!   one too few.
//! - Two paths with one hash share a node. That makes a walk visit too much, never too little, and
//!   whoever takes the paths it yields compares texts ([`covers`]).

use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::hash::{Hashing, Path, Prefixes, Steps};
use super::table::{Hashed, Table, spread, tag};
use crate::limits::MAX_TOPIC_LEVELS;

/// A set of levels. A filter's levels are numbered from 0, so the last possible is 127.
type Levels = u128;

const _: () = assert!(MAX_TOPIC_LEVELS <= Levels::BITS as usize);

/// What a filter has next behind some point of its path.
#[derive(Clone, Copy)]
enum Kind {
    /// `#`, which ends it.
    Multi,
    /// `+` with more levels behind it: a node.
    Inner,
    /// `+` as its last level.
    Last,
    /// No wildcard any more; its last level is literal.
    Tail,
}

/// Which, and at which level.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    level: usize,
}

/// The places behind a node: eight bits for each kind, the first seven for the seven levels behind
/// the node's, the eighth for any level further on.
#[derive(Clone, Copy)]
struct Next(u32);

/// A path that ends in an inner `+`.
struct Node {
    path: Path,
    through: u32,
    next: Next,
}

const _: () = assert!(size_of::<Node>() == 16);

impl Hashed for Node {
    fn spread(&self) -> u64 {
        spread(tag(self.path.hash()))
    }
}

/// How many filters have their first wildcard at a level, and the levels where any has.
struct Census {
    counts: [u32; MAX_TOPIC_LEVELS],
    levels: Levels,
}

/// The trie, without the filters themselves.
pub(super) struct Wildcards {
    nodes: Table<Node>,
    len: usize,
    /// First wildcards, by [`Kind::Multi`], [`Kind::Inner`] and [`Kind::Last`].
    first: [Census; 3],
}

/// What a filter with wildcards consists of.
struct Shape {
    /// The path up to and with every inner `+`, its level, and what comes next.
    nodes: SmallVec<[(Path, usize, Place); 4]>,
    first: Place,
    whole: Path,
}

impl Shape {
    fn of(filter: &str, hashing: &Hashing) -> Self {
        let mut path = hashing.empty();
        let mut places: SmallVec<[(Path, Place); 8]> = SmallVec::new();
        let mut levels = filter.split('/').enumerate().peekable();
        while let Some((level, text)) = levels.next() {
            let is_last = levels.peek().is_none();
            path = match text {
                "#" => hashing.multi(path),
                "+" => hashing.single(path),
                _ => hashing.literal(path, text.as_bytes()),
            };
            let kind = match text {
                "#" => Kind::Multi,
                "+" if is_last => Kind::Last,
                "+" => Kind::Inner,
                _ if is_last => Kind::Tail,
                _ => continue,
            };
            places.push((path, Place { kind, level }));
        }
        let next = places.iter().skip(1).map(|&(_, place)| place);
        let nodes = places
            .iter()
            .zip(next)
            .map(|(&(path, at), next)| (path, at.level, next));
        Self {
            nodes: nodes.collect(),
            first: places.first().map_or(
                Place {
                    kind: Kind::Tail,
                    level: 0,
                },
                |first| first.1,
            ),
            whole: path,
        }
    }
}

impl Wildcards {
    pub(super) fn new() -> Self {
        Self {
            nodes: Table::new(),
            len: 0,
            first: [const { Census::new() }; 3],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes there are.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The hash of a filter with wildcards, as [`Wildcards::walk`] yields it.
    pub(super) fn hash(filter: &str, hashing: &Hashing) -> u64 {
        Shape::of(filter, hashing).whole.hash()
    }

    /// A filter with wildcards was added.
    pub(super) fn add(&mut self, filter: &str, hashing: &Hashing) {
        let shape = Shape::of(filter, hashing);
        self.len += 1;
        if let Some(census) = self.first.get_mut(shape.first.kind as usize) {
            census.add(shape.first.level);
        }
        for (path, level, next) in shape.nodes {
            let found = self.nodes.entry(path.hash(), |node| node.path == path);
            let mut entry = match found {
                Some(Entry::Occupied(entry)) => entry,
                Some(Entry::Vacant(entry)) => entry.insert(Node {
                    path,
                    through: 0,
                    next: Next(0),
                }),
                None => continue,
            };
            let node = entry.get_mut();
            node.through += 1;
            node.next.add(next, level);
        }
    }

    /// A filter with wildcards that was added is gone.
    pub(super) fn remove(&mut self, filter: &str, hashing: &Hashing) {
        let shape = Shape::of(filter, hashing);
        self.len -= 1;
        if let Some(census) = self.first.get_mut(shape.first.kind as usize) {
            census.remove(shape.first.level);
        }
        for (path, ..) in shape.nodes {
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

    /// Calls `found` with the hash of every filter that may match the topic; `dollar` says that it
    /// starts with `$`, so that no filter matches that starts with a wildcard.
    pub(super) fn walk<'w>(
        &'w self,
        topic: &'w Prefixes<'_>,
        dollar: bool,
        hashing: &'w Hashing,
        mut found: impl FnMut(u64),
    ) {
        let root = topic.steps();
        let end = root.levels();
        let mut walk = Walk {
            nodes: &self.nodes,
            hashing,
            end,
            open: SmallVec::new(),
        };
        let first = self
            .first
            .each_ref()
            .map(|census| census.levels & !Levels::from(dollar));
        for (kind, levels) in [Kind::Multi, Kind::Inner, Kind::Last]
            .into_iter()
            .zip(first)
        {
            for level in ones(levels & up_to(end)) {
                walk.follow(root, Place { kind, level }, &mut found);
            }
        }
        while let Some((steps, level, next)) = walk.open.pop() {
            next.places(level, end, |place| walk.follow(steps, place, &mut found));
        }
    }
}

/// A walk along one topic, of `end` levels.
struct Walk<'w> {
    nodes: &'w Table<Node>,
    hashing: &'w Hashing,
    end: usize,
    /// Nodes that were reached and not looked behind yet, with their levels.
    open: SmallVec<[(Steps<'w>, usize, Next); 4]>,
}

impl<'w> Walk<'w> {
    /// Goes to `place`, which some filter may have behind the start of `steps`.
    #[inline]
    fn follow(&mut self, steps: Steps<'w>, place: Place, found: &mut impl FnMut(u64)) {
        let Place { kind, level } = place;
        let is_last = level + 1 == self.end;
        match kind {
            // `sport/#` matches `sport` too: a `#` may stand one level past the topic's last.
            Kind::Multi if level <= self.end => {
                found(self.hashing.multi(steps.to(level)).hash());
            }
            Kind::Inner if level < self.end => {
                let path = self.hashing.single(steps.to(level));
                if let Some(node) = self.nodes.find(path.hash(), |node| node.path == path) {
                    self.open
                        .push((steps.after(path, level + 1), level, node.next));
                }
            }
            Kind::Last if is_last => found(self.hashing.single(steps.to(level)).hash()),
            Kind::Tail if is_last => found(steps.to(self.end).hash()),
            Kind::Multi | Kind::Inner | Kind::Last | Kind::Tail => {}
        }
    }
}

impl Next {
    /// The node at `level` is followed by `place`.
    fn add(&mut self, place: Place, level: usize) {
        let distance = (place.level - level - 1).min(7);
        self.0 |= 1 << (place.kind as usize * 8 + distance);
    }

    /// The places behind `level`, where the node stands, up to `end`.
    fn places(self, level: usize, end: usize, mut take: impl FnMut(Place)) {
        const KINDS: [Kind; 4] = [Kind::Multi, Kind::Inner, Kind::Last, Kind::Tail];
        let mut rest = self.0;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let kind = KINDS[bit / 8 % 4];
            let near = level + 1 + bit % 8;
            take(Place { kind, level: near });
            if bit % 8 == 7 {
                (near + 1..=end).for_each(|level| take(Place { kind, level }));
            }
        }
    }
}

impl Census {
    const fn new() -> Self {
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

/// Whether `filter`, which is a valid filter, matches `topic`, which is a valid name and starts with
/// `$` if `dollar` says so [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1]. In a valid filter a wildcard is
/// alone in its level and a name has none, so bytes can be compared as they come; nothing is
/// normalised [MQTT-4.7.3-4] [MQTT-4.7.3-4 3.1.1].
pub(super) fn covers(mut filter: &[u8], mut topic: &[u8], dollar: bool) -> bool {
    if dollar && matches!(filter.first(), Some(b'+' | b'#')) {
        return false;
    }
    loop {
        let same = common(filter, topic);
        filter = filter.get(same..).unwrap_or_default();
        topic = topic.get(same..).unwrap_or_default();
        match (filter, topic) {
            ([b'#', ..], _) | ([], []) => return true,
            ([b'+', wanted @ ..], _) => {
                let end = topic
                    .iter()
                    .position(|&byte| byte == b'/')
                    .unwrap_or(topic.len());
                (filter, topic) = (wanted, topic.get(end..).unwrap_or_default());
            }
            (wanted, []) => return wanted == b"/#",
            _ => return false,
        }
    }
}

/// How many bytes the two have in common at their start.
fn common(left: &[u8], right: &[u8]) -> usize {
    let (words_left, _) = left.as_chunks::<8>();
    let (words_right, _) = right.as_chunks::<8>();
    let mut same = 0;
    for (left, right) in words_left.iter().zip(words_right) {
        let differ = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let rest = left.iter().skip(same).zip(right.iter().skip(same));
    same + rest.take_while(|(left, right)| left == right).count()
}
