//! What was matched before: topic → matches, until a subscription changes what it would be.
//!
//! Invariant: a line that is handed out is what a walk would give now. A change of a filter without
//! wildcards drops the one line it can concern. A change of a filter with wildcards raises an
//! epoch: the one of its literal prefix, of at most [`DEPTHS`] levels, hashed into [`EPOCHS`]
//! counters. A line is good while the counters of all prefixes of its topic are as they were, which
//! their sum tells, because counters only rise. So a device that subscribes to `vehicle/4711/cmd/+`
//! costs the lines below `vehicle/4711` and a few strangers, not the whole cache.
//!
//! The cache is bounded in topics and in bytes; what was not used since the hand came by last goes.

use std::rc::Rc;

use super::Matches;
use super::hash::{Hashing, Path};
use super::index::Index;
use crate::limits::{ROUTE_CACHE_BYTES, ROUTE_CACHE_TOPICS};
use crate::topic::Filter;

/// Counters of changes below a prefix, besides the one for filters that start with a wildcard.
const EPOCHS: usize = 2048;

/// Levels of the longest prefix that is told from others.
const DEPTHS: usize = 4;

/// Where the changes of filters without any literal prefix are counted.
const EVERYTHING: u16 = EPOCHS as u16;

/// A counter that never moves, for the prefixes that a short topic does not have.
const NOTHING: u16 = EPOCHS as u16 + 1;

/// Bytes of the longest topic that is compared with the one before it.
const LAST_TOPIC_BYTES: usize = 1024;

/// The bytes a line costs besides its topic and its matches.
const LINE_BYTES: usize = size_of::<Line>() + size_of::<Matches>() + 2 * size_of::<usize>() + 16;

struct Line {
    topic: Box<str>,
    /// `None` if the line is vacant.
    matches: Option<Rc<Matches>>,
    /// The sum of the epochs when it was matched.
    sum: u64,
    prefixes: [u16; DEPTHS],
    used: bool,
}

/// The cache.
pub(super) struct Cache {
    lines: Vec<Line>,
    vacant: Vec<u32>,
    index: Index,
    epochs: Box<[u64]>,
    hand: usize,
    bytes: usize,
    /// The topic that was asked for last, in memory that is used again.
    last_topic: String,
    /// What it matches, unless a filter has changed since.
    last: Option<Rc<Matches>>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            lines: Vec::new(),
            vacant: Vec::new(),
            index: Index::new(),
            epochs: vec![0; EPOCHS + 2].into(),
            hand: 0,
            bytes: 0,
            last_topic: String::new(),
            last: None,
        }
    }

    /// What `topic` matches, if it was the last one that was asked for: a client that publishes to
    /// one topic time and again costs a comparison, not a hash.
    #[inline]
    pub(super) fn again(&self, topic: &str) -> Option<Rc<Matches>> {
        self.last
            .as_ref()
            .filter(|_| self.last_topic == topic)
            .map(Rc::clone)
    }

    /// Notes what was asked for last.
    #[inline]
    pub(super) fn asked(&mut self, topic: &str, matches: &Rc<Matches>) {
        self.last_topic.clear();
        if topic.len() <= LAST_TOPIC_BYTES {
            self.last_topic.push_str(topic);
            self.last = Some(Rc::clone(matches));
        } else {
            self.last = None;
        }
    }

    fn sum(&self, prefixes: [u16; DEPTHS]) -> u64 {
        let epoch = |at: u16| self.epochs.get(usize::from(at)).copied().unwrap_or(0);
        prefixes
            .iter()
            .fold(epoch(EVERYTHING), |sum, &at| sum.wrapping_add(epoch(at)))
    }

    /// What `topic`, whose text has that hash, matches.
    pub(super) fn get(&mut self, topic: &str, hash: u64) -> Option<Rc<Matches>> {
        let lines = &self.lines;
        let id = self.index.find(hash, |id| {
            lines
                .get(id as usize)
                .is_some_and(|line| *line.topic == *topic)
        })?;
        let line = self.lines.get(id as usize)?;
        if line.sum != self.sum(line.prefixes) {
            return None;
        }
        let line = self.lines.get_mut(id as usize)?;
        line.used = true;
        line.matches.clone()
    }

    /// Remembers what `topic` matches now.
    pub(super) fn put(&mut self, topic: &str, hash: u64, matches: &Rc<Matches>, hashing: &Hashing) {
        let cost = cost(topic, matches);
        if cost > ROUTE_CACHE_BYTES / 4 {
            return;
        }
        self.remove(topic, hash);
        self.make_room(cost, hashing);
        let prefixes = prefixes(topic, hashing);
        let line = Line {
            topic: topic.into(),
            matches: Some(Rc::clone(matches)),
            sum: self.sum(prefixes),
            prefixes,
            used: false,
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                if let Some(vacant) = self.lines.get_mut(id as usize) {
                    *vacant = line;
                }
                id
            }
            None => {
                self.lines.push(line);
                u32::try_from(self.lines.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.index.insert(hash, id);
        self.bytes += cost;
    }

    /// Somebody changed `filter`.
    pub(super) fn changed(&mut self, filter: Filter<'_>, hashing: &Hashing) {
        self.last = None;
        let text = filter.as_str();
        if !filter.has_wildcard() {
            self.remove(text, hashing.text(text.as_bytes()));
            return;
        }
        let mut path = hashing.empty();
        let mut at = EVERYTHING;
        for level in text.split('/').take(DEPTHS) {
            if level == "+" || level == "#" {
                break;
            }
            path = hashing.literal(path, level.as_bytes());
            at = counter(path);
        }
        if let Some(epoch) = self.epochs.get_mut(usize::from(at)) {
            *epoch += 1;
        }
    }

    fn remove(&mut self, topic: &str, hash: u64) {
        let lines = &self.lines;
        let found = self.index.find(hash, |id| {
            lines
                .get(id as usize)
                .is_some_and(|line| *line.topic == *topic)
        });
        if let Some(id) = found {
            self.drop_line(id, hash);
        }
    }

    fn drop_line(&mut self, id: u32, hash: u64) {
        self.index.remove(hash, id);
        let Some(line) = self.lines.get_mut(id as usize) else {
            return;
        };
        if let Some(matches) = line.matches.take() {
            self.bytes -= cost(&line.topic, &matches);
            line.topic = Box::default();
            self.vacant.push(id);
        }
    }

    fn make_room(&mut self, cost: usize, hashing: &Hashing) {
        while self.bytes + cost > ROUTE_CACHE_BYTES
            || self.lines.len() - self.vacant.len() >= ROUTE_CACHE_TOPICS
        {
            self.hand = if self.hand < self.lines.len() {
                self.hand
            } else {
                0
            };
            let Some(line) = self.lines.get_mut(self.hand) else {
                return;
            };
            if line.matches.is_some() && !std::mem::take(&mut line.used) {
                let hash = hashing.text(line.topic.as_bytes());
                self.drop_line(u32::try_from(self.hand).unwrap_or(u32::MAX), hash);
            }
            self.hand += 1;
        }
    }

    /// Topics in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len() - self.vacant.len()
    }

    /// Bytes that count against the bound.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(topic: &str, matches: &Matches) -> usize {
    LINE_BYTES + topic.len() + size_of_val(&*matches.local) + size_of_val(&*matches.groups)
}

fn counter(path: Path) -> u16 {
    u16::try_from(path.hash() >> 40 & (EPOCHS as u64 - 1)).unwrap_or(NOTHING)
}

fn prefixes(topic: &str, hashing: &Hashing) -> [u16; DEPTHS] {
    let mut prefixes = [NOTHING; DEPTHS];
    let mut path = hashing.empty();
    for (slot, level) in prefixes.iter_mut().zip(topic.split('/')) {
        path = hashing.literal(path, level.as_bytes());
        *slot = counter(path);
    }
    prefixes
}
