//! The filters that anybody of this process is interested in, each with everybody who is: local
//! sessions, other shards, shared groups. One structure, so that a publish is matched once.
//!
//! Invariants: a filter has one entry, and has it as long as somebody is in it; filters without
//! wildcards are in `exact` under the hash of their text, the others in `wild` under the hash of
//! their path and in the [`Wildcards`]. An entry is one cache line, text included where it is
//! short: a match costs one miss per filter that matches.

use smallvec::SmallVec;

use super::groups::GroupKey;
use super::hash::Hashing;
use super::index::Index;
use super::prefetch::prefetch;
use super::receiver::{Receiver, SessionKey};
use super::shards::ShardSet;
use super::sorted::Sorted;
use super::wildcards::{Wildcards, covers};
use crate::chunks::Chunks;
use crate::topic::{Filter, Name};

/// Bytes of a filter that fit into its entry.
const INLINE: usize = 32;

/// One filter, and who wants what matches it.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Entry {
    text: SmallVec<[u8; INLINE]>,
    /// The other shards.
    pub(super) remote: ShardSet,
    local: Local,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// The local side of an entry. Nearly all filters of a fleet have one subscriber.
#[derive(Default)]
enum Local {
    #[default]
    Nobody,
    One(Receiver),
    Many(Box<Crowd>),
}

#[derive(Default)]
struct Crowd {
    receivers: Sorted<Receiver>,
    /// Ascending.
    groups: Vec<GroupKey>,
}

/// All filters.
pub(super) struct Filters {
    entries: Chunks<Entry>,
    vacant: Vec<u32>,
    exact: Index,
    wild: Index,
    wildcards: Wildcards,
    len: usize,
}

impl Filters {
    pub(super) fn new() -> Self {
        Self {
            entries: Chunks::default(),
            vacant: Vec::new(),
            exact: Index::new(),
            wild: Index::new(),
            wildcards: Wildcards::new(),
            len: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Nodes that filters with wildcards made.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.wildcards.nodes()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)
    }

    fn is(&self, id: u32, text: &str) -> bool {
        self.get(id)
            .is_some_and(|entry| entry.text.as_slice() == text.as_bytes())
    }

    fn hash(filter: Filter<'_>, hashing: &Hashing) -> (u64, bool) {
        if filter.has_wildcard() {
            (Wildcards::hash(filter.as_str(), hashing), true)
        } else {
            (hashing.text(filter.as_str().as_bytes()), false)
        }
    }

    fn find_hashed(&self, filter: Filter<'_>, hash: u64, wild: bool) -> Option<u32> {
        let index = if wild { &self.wild } else { &self.exact };
        // Filters are compared character by character
        // [MQTT-3.10.4-1] [MQTT-3.10.4-1 3.1.1] [MQTT-3.8.4-3] [MQTT-3.8.4-3 3.1.1].
        index.find(hash, |id| self.is(id, filter.as_str()))
    }

    /// The entry of `filter`.
    pub(super) fn find(&self, filter: Filter<'_>, hashing: &Hashing) -> Option<u32> {
        let (hash, wild) = Self::hash(filter, hashing);
        self.find_hashed(filter, hash, wild)
    }

    /// The entry of `filter`, made if there is none. Whoever calls puts somebody in.
    pub(super) fn find_or_add(&mut self, filter: Filter<'_>, hashing: &Hashing) -> u32 {
        let (hash, wild) = Self::hash(filter, hashing);
        if let Some(id) = self.find_hashed(filter, hash, wild) {
            return id;
        }
        let id = self.place(filter);
        self.len += 1;
        if wild {
            self.wild.insert(hash, id);
            self.wildcards.add(filter.as_str(), hashing);
        } else {
            self.exact.insert(hash, id);
        }
        id
    }

    fn place(&mut self, filter: Filter<'_>) -> u32 {
        let entry = Entry {
            text: SmallVec::from_slice(filter.as_str().as_bytes()),
            ..Entry::default()
        };
        if let Some(id) = self.vacant.pop() {
            if let Some(vacant) = self.get_mut(id) {
                *vacant = entry;
            }
            return id;
        }
        u32::try_from(self.entries.push(entry)).unwrap_or(u32::MAX)
    }

    /// Drops the entry if nobody is in it any more.
    pub(super) fn drop_if_unused(&mut self, id: u32, hashing: &Hashing) {
        let Some(entry) = self.get_mut(id) else {
            return;
        };
        if !entry.is_unused() {
            return;
        }
        let gone = std::mem::take(entry);
        let filter = Filter::trusted(gone.filter());
        let (hash, wild) = Self::hash(filter, hashing);
        if wild {
            self.wildcards.remove(filter.as_str(), hashing);
            self.wild.remove(hash, id);
        } else {
            self.exact.remove(hash, id);
        }
        self.len -= 1;
        self.vacant.push(id);
    }

    /// Appends every entry whose filter matches `topic`; `hash` is that of its text.
    pub(super) fn matching(
        &self,
        topic: Name<'_>,
        hash: u64,
        hashing: &Hashing,
        out: &mut Vec<u32>,
    ) {
        let text = topic.as_str();
        self.exact.prefetch(hash);
        if !self.wildcards.is_empty() {
            self.matching_wildcards(topic, hashing, out);
        }
        out.extend(self.exact.find(hash, |id| self.is(id, text)));
    }

    /// All slots are asked for before the first is read, and then all entries.
    fn matching_wildcards(&self, topic: Name<'_>, hashing: &Hashing, out: &mut Vec<u32>) {
        let dollar = topic.starts_with_dollar();
        let mut hashes: SmallVec<[u64; 16]> = SmallVec::new();
        let prefixes = hashing.prefixes(topic.as_str());
        self.wildcards.walk(&prefixes, dollar, hashing, |hash| {
            self.wild.prefetch(hash);
            hashes.push(hash);
        });
        let mut likely: SmallVec<[u32; 8]> = SmallVec::new();
        for id in hashes.into_iter().flat_map(|hash| self.wild.likely(hash)) {
            if let Some(entry) = self.get(id) {
                prefetch(entry);
            }
            likely.push(id);
        }
        // Where two hashes of this topic fall together, each brings what is under the other too.
        likely.sort_unstable();
        likely.dedup();
        let text = topic.as_str().as_bytes();
        out.extend(likely.into_iter().filter(|&id| {
            self.get(id)
                .is_some_and(|entry| covers(&entry.text, text, dollar))
        }));
    }
}

impl Entry {
    /// The filter.
    pub(super) fn filter(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    fn is_unused(&self) -> bool {
        self.remote.is_empty() && matches!(self.local, Local::Nobody)
    }

    /// How many local sessions subscribed, groups aside.
    pub(super) fn receivers(&self) -> usize {
        match &self.local {
            Local::Nobody => 0,
            Local::One(_) => 1,
            Local::Many(crowd) => crowd.receivers.len(),
        }
    }

    /// Puts `receiver` in; gives back the one of the same session that it replaces.
    pub(super) fn put(&mut self, receiver: Receiver) -> Option<Receiver> {
        match &mut self.local {
            Local::Nobody => {
                self.local = Local::One(receiver);
                None
            }
            Local::One(old) if old.session == receiver.session => {
                Some(std::mem::replace(old, receiver))
            }
            Local::One(_) | Local::Many(_) => self.crowd().receivers.put(receiver),
        }
    }

    /// Takes out what `session` has here.
    pub(super) fn take(&mut self, session: SessionKey) -> Option<Receiver> {
        match &mut self.local {
            Local::One(old) if old.session == session => {
                let old = *old;
                self.local = Local::Nobody;
                Some(old)
            }
            Local::Nobody | Local::One(_) => None,
            Local::Many(crowd) => {
                let taken = crowd.receivers.take(session);
                self.settle();
                taken
            }
        }
    }

    /// Adds a group.
    pub(super) fn add_group(&mut self, group: GroupKey) {
        let groups = &mut self.crowd().groups;
        let at = groups.partition_point(|other| *other < group);
        groups.insert(at, group);
    }

    /// Takes a group out.
    pub(super) fn remove_group(&mut self, group: GroupKey) {
        if let Local::Many(crowd) = &mut self.local {
            if let Ok(at) = crowd.groups.binary_search(&group) {
                crowd.groups.remove(at);
            }
            self.settle();
        }
    }

    fn crowd(&mut self) -> &mut Crowd {
        if !matches!(self.local, Local::Many(_)) {
            let mut crowd = Box::<Crowd>::default();
            if let Local::One(only) = self.local {
                crowd.receivers.put(only);
            }
            self.local = Local::Many(crowd);
        }
        match &mut self.local {
            Local::Many(crowd) => crowd,
            Local::Nobody | Local::One(_) => unreachable!("made above"),
        }
    }

    /// Goes back to the small form where it is enough.
    fn settle(&mut self) {
        if let Local::Many(crowd) = &self.local
            && crowd.groups.is_empty()
            && crowd.receivers.len() < 2
        {
            let only = crowd.receivers.iter().next().copied();
            self.local = only.map_or(Local::Nobody, Local::One);
        }
    }

    /// The local sessions, sorted, slice by slice.
    pub(super) fn for_each_slice(&self, mut take: impl FnMut(&[Receiver])) {
        match &self.local {
            Local::Nobody => {}
            Local::One(only) => take(std::slice::from_ref(only)),
            Local::Many(crowd) => crowd.receivers.slices().for_each(take),
        }
    }

    /// The groups.
    pub(super) fn groups(&self) -> &[GroupKey] {
        match &self.local {
            Local::Many(crowd) => &crowd.groups,
            Local::Nobody | Local::One(_) => &[],
        }
    }
}
