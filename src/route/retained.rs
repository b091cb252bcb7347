//! The retained messages of this shard: found by topic at once, and walked in the order of their
//! topics, so that a walk can stop anywhere and go on there later, whatever changed meanwhile.
//!
//! Invariants: one message per topic, its payload not empty; `index`, `order` and `slots` hold the
//! same topics, `order` sorted by the topic's bytes; `expiring` has exactly those messages that
//! expire.
//!
//! The order has a reason besides: all topics below a prefix stand together, so a filter's literal
//! prefix is sought, and where a literal level after a `+` does not fit, the rest of that range is
//! skipped.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::hash::Hashing;
use super::index::Index;
use super::sorted::{Position, Sorted};
use crate::chunks::Chunks;
use crate::message::Message;
use crate::time::Time;
use crate::topic::{Filter, Name};

/// Topics that a scan looks at one by one before it seeks over those that cannot match: a search
/// costs about as much.
const STEPS_BEFORE_SEEK: usize = 8;

/// The retained messages of one shard.
pub struct Retained {
    hashing: Hashing,
    index: Index,
    slots: Chunks<Option<Message>>,
    vacant: Vec<u32>,
    order: Sorted<u32>,
    expiring: BTreeSet<(Time, u32)>,
    bytes: usize,
}

/// How much one step of a scan may do. At least one topic is looked at, so it always comes further.
#[derive(Clone, Copy, Debug)]
pub struct ScanBudget {
    /// Topics looked at, whether they match or not.
    pub topics: usize,
    /// Messages found.
    pub messages: usize,
    /// Bytes of the messages found, counted before the one that crosses it.
    pub bytes: usize,
}

/// How a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// There is no more.
    Complete,
    /// The budget is spent; there may be more after that topic.
    More {
        /// The last topic looked at.
        after: Box<str>,
    },
}

/// What a topic is to a filter that does not match it.
enum Miss {
    /// The next topic may match.
    Step,
    /// None before the text in the buffer can.
    Seek,
    /// None after it can.
    End,
}

impl Retained {
    /// Nothing is retained yet. `seed` is secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            hashing: Hashing::new(seed),
            index: Index::new(),
            slots: Chunks::default(),
            vacant: Vec::new(),
            order: Sorted::default(),
            expiring: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Retains `message` in the place of what its topic had, whatever QoS that was
    /// [MQTT-3.3.1-5] [MQTT-3.3.1-5 3.1.1] [MQTT-3.3.1-7 3.1.1]; whether it had nothing. An empty
    /// payload is not retained, it removes [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-10 3.1.1]
    /// [MQTT-3.3.1-11 3.1.1].
    pub fn set(&mut self, message: Message) -> bool {
        if message.view().payload.is_empty() {
            self.remove(message.topic());
            return false;
        }
        let hash = self.hashing.text(message.topic().as_bytes());
        self.bytes += message.size();
        let expires_at = message.expires_at();
        let found = self.find(message.topic(), hash);
        let id = match found {
            Some(id) => {
                let slot = self.slots.get_mut(id as usize);
                if let Some(old) = slot.and_then(|slot| slot.replace(message)) {
                    self.bytes -= old.size();
                    self.expiring.remove(&(old.expires_at(), id));
                }
                id
            }
            None => self.add(message, hash),
        };
        if expires_at != Time::NEVER {
            self.expiring.insert((expires_at, id));
        }
        found.is_none()
    }

    fn add(&mut self, message: Message, hash: u64) -> u32 {
        let (Ok(at) | Err(at)) = self.search(message.topic());
        let id = match self.vacant.pop() {
            Some(id) => {
                if let Some(slot) = self.slots.get_mut(id as usize) {
                    *slot = Some(message);
                }
                id
            }
            None => u32::try_from(self.slots.push(Some(message))).unwrap_or(u32::MAX),
        };
        self.order.insert(at, id);
        self.index.insert(hash, id);
        id
    }

    /// Removes what `topic` has.
    pub fn remove(&mut self, topic: &str) -> Option<Message> {
        let hash = self.hashing.text(topic.as_bytes());
        let id = self.find(topic, hash)?;
        if let Ok(at) = self.search(topic) {
            self.order.remove(at);
        }
        self.index.remove(hash, id);
        let old = self.slots.get_mut(id as usize).and_then(Option::take);
        if let Some(old) = &old {
            self.bytes -= old.size();
            self.expiring.remove(&(old.expires_at(), id));
        }
        self.vacant.push(id);
        old
    }

    /// What `topic` has.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.slot(self.find(topic, self.hashing.text(topic.as_bytes()))?)
    }

    /// Appends to `found` the messages whose topics match `filter`, in the order of their topics,
    /// starting behind `after`, and stops when `budget` is spent. What is set or removed between
    /// two steps is found, or not, as it is when its topic's turn comes. Expired messages that are
    /// not removed yet are found too.
    pub fn scan(
        &self,
        filter: Filter<'_>,
        after: Option<&str>,
        budget: ScanBudget,
        found: &mut Vec<Message>,
    ) -> Scan {
        if !filter.has_wildcard() {
            if after.is_none() {
                found.extend(self.get(filter.as_str()).cloned());
            }
            return Scan::Complete;
        }
        let mut target = String::new();
        literal_run(filter.as_str(), &mut target);
        let from = match after {
            Some(after) if after >= target.as_str() => self.position_after(after),
            _ => self.position_of(&target),
        };
        let mut walk = self.order.iter_from(from);
        let (mut topics, mut messages, mut bytes, mut misses) = (0, 0, 0, 0);
        // While it is not empty, topics before it cannot match.
        target.clear();
        while let Some(message) = walk.next().and_then(|&id| self.slot(id)) {
            let topic = message.topic();
            topics += 1;
            if *topic < *target {
                misses += 1;
                if misses >= STEPS_BEFORE_SEEK {
                    walk = self.order.iter_from(self.position_of(&target));
                    misses = 0;
                }
            } else if filter.matches(Name::trusted(topic)) {
                found.push(message.clone());
                messages += 1;
                bytes += message.size();
                target.clear();
            } else {
                match miss(filter.as_str(), topic, &mut target) {
                    Miss::Step => target.clear(),
                    Miss::Seek => misses = 0,
                    Miss::End => return Scan::Complete,
                }
            }
            if topics >= budget.topics || messages >= budget.messages || bytes >= budget.bytes {
                return Scan::More {
                    after: topic.into(),
                };
            }
        }
        Scan::Complete
    }

    /// Removes the message that expired first, if that was by `now`.
    pub fn expire(&mut self, now: Time) -> Option<Message> {
        let &(at, id) = self.expiring.first()?;
        let message = self.slot(id).filter(|_| at <= now)?.clone();
        self.remove(message.topic())
    }

    /// Topics that have a message.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Bytes of topics, properties and payloads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn slot(&self, id: u32) -> Option<&Message> {
        self.slots.get(id as usize)?.as_ref()
    }

    fn find(&self, topic: &str, hash: u64) -> Option<u32> {
        self.index.find(hash, |id| {
            self.slot(id)
                .is_some_and(|message| message.topic() == topic)
        })
    }

    fn search(&self, topic: &str) -> Result<Position, Position> {
        self.order.search(|&id| self.compare(id, topic))
    }

    fn compare(&self, id: u32, topic: &str) -> Ordering {
        self.slot(id)
            .map_or(Ordering::Less, |message| message.topic().cmp(topic))
    }

    /// The first topic that is not before `text`.
    fn position_of(&self, text: &str) -> Position {
        match self.search(text) {
            Ok(at) | Err(at) => at,
        }
    }

    /// The first topic behind `topic`.
    fn position_after(&self, topic: &str) -> Position {
        let above = |id: &u32| self.compare(*id, topic).then(Ordering::Less);
        match self.order.search(above) {
            Ok(at) | Err(at) => at,
        }
    }
}

/// The levels of `filter` before its first wildcard, without a slash at the end.
fn literal_run(filter: &str, into: &mut String) {
    for (index, level) in filter
        .split('/')
        .take_while(|level| !is_wildcard(level))
        .enumerate()
    {
        if index > 0 {
            into.push('/');
        }
        into.push_str(level);
    }
}

fn is_wildcard(level: &str) -> bool {
    level == "+" || level == "#"
}

/// What comes after `topic`, which `filter` does not match, in the order of topics. With
/// [`Miss::Seek`], `target` is the least text above `topic` that a match can have.
///
/// All topics that start with some levels and a slash stand together. So once a literal level of
/// the filter does not fit, either the fitting one is still to come below the levels before it, or
/// nothing more comes below them, and the last `+` among them takes its next value.
fn miss(filter: &str, topic: &str, target: &mut String) -> Miss {
    target.clear();
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        target.push('%'); // the character behind `$`
        return Miss::Seek;
    }
    let mut start = 0;
    let mut filter_start = 0;
    let mut last_single = None;
    for wanted in filter.split('/') {
        let Some(rest) = topic.get(start..) else {
            return Miss::Step;
        };
        let end = start + rest.find('/').unwrap_or(rest.len());
        if wanted == "+" {
            last_single = Some(end);
        } else if topic.get(start..end) != Some(wanted) {
            target.push_str(topic.get(..start).unwrap_or_default());
            let before = target.len();
            literal_run(filter.get(filter_start..).unwrap_or_default(), target);
            let run = target.len() - before;
            if rest < target.get(before..).unwrap_or_default() {
                return Miss::Seek;
            }
            let goes_on = filter_start + run < filter.len();
            target.push('/');
            if goes_on && rest < target.get(before..).unwrap_or_default() {
                return Miss::Seek;
            }
            break;
        }
        start = end + 1;
        filter_start += wanted.len() + 1;
    }
    let Some(end) = last_single else {
        return Miss::End;
    };
    debug_assert!(end < topic.len(), "a level behind the + did not fit");
    target.clear();
    target.push_str(topic.get(..end).unwrap_or_default());
    target.push('0'); // the character behind `/`
    Miss::Seek
}
