//! Where a message goes: the subscriptions of this shard's sessions, the interest of the other
//! shards, shared groups, and the retained messages that live here.
//!
//! [`Routes`] is one index for all three kinds of interest, because a publish asks for all of them:
//! one walk, or one look into the cache, answers which sessions of this shard get it, which shards
//! it must be handed to, and which groups want one member picked. It knows nothing of sessions but
//! their keys; what a publish still decides by itself (No Local, which of several overlapping
//! subscriptions, the QoS) is left to the caller.
//!
//! How it is built, lowest first: `hash` makes numbers of topics and filters, `index` and
//! `table` find things by them without ever stopping the shard to grow, `sorted` keeps lists that may be long,
//! `wildcards` finds the filters with wildcards that may match, `filters` has one entry for each
//! filter, `groups` the shared ones, and `cache` what was asked before. No function recurses, and
//! none takes time in proportion to the subscriptions there are, only to those that match.

mod cache;
mod filters;
mod groups;
mod hash;
mod index;
mod prefetch;
mod receiver;
mod retained;
mod shards;
mod sorted;
mod table;
#[cfg(test)]
mod tests;
mod wildcards;

use std::rc::Rc;

use smallvec::SmallVec;

pub(crate) use prefetch::prefetch;

pub use groups::{Choice, GroupKey, Member, Strategy};
pub use hash::stable_hash;
pub use receiver::{Receiver, SessionKey};
pub use retained::{Retained, Scan, ScanBudget};
pub use shards::{ShardId, ShardSet};

use crate::limits::{HISTORY_STREAMS, MAX_SHARDS};
use crate::topic::{Filter, Name};
use cache::Cache;
use filters::Filters;
use groups::Groups;
use hash::Hashing;

/// Everybody who wants what is published on one topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// The sessions of this shard, sorted by key. Overlapping subscriptions of one session stand
    /// next to each other, unmerged: No Local and identifiers are decided per publish.
    pub local: SmallVec<[Receiver; 2]>,
    /// The other shards that have somebody who wants it.
    pub remote: ShardSet,
    /// The groups that want it, ascending.
    pub groups: Box<[GroupKey]>,
    /// The history streams that keep it.
    pub streams: StreamSet,
}

/// History streams, by their place in the configuration: one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSet(u64);

impl StreamSet {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in it, the first ones first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..HISTORY_STREAMS).filter(move |stream| self.0 & (1 << stream) != 0)
    }
}

/// What [`Routes::subscribe`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The session had this very filter; its options are replaced.
    pub replaced: bool,
    /// No session of this shard had it: the other shards have to be told.
    pub first: bool,
}

/// What [`Routes::unsubscribe`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The session had the filter.
    pub existed: bool,
    /// No session of this shard has it any more: the other shards have to be told.
    pub last: bool,
}

/// Every subscription that this shard knows of.
///
/// - Mutators, when a session or another shard changes its mind: [`Routes::subscribe`],
///   [`Routes::unsubscribe`], [`Routes::set_interest`]; for groups [`Routes::join`],
///   [`Routes::leave`], [`Routes::set_available`].
/// - On the way of a publish: [`Routes::matches`], then [`Routes::pick`] for each group in it.
/// - Getters: the rest.
pub struct Routes {
    hashing: Hashing,
    filters: Filters,
    groups: Groups,
    cache: Cache,
    nobody: Rc<Matches>,
    found: Vec<u32>,
    subscriptions: usize,
    memberships: [usize; MAX_SHARDS],
    /// The filters of the history streams.
    streams: Vec<Box<str>>,
}

impl Routes {
    /// Nobody subscribed yet. `seed` is secret: who knows it can make filters that collide.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            hashing: Hashing::new(seed),
            filters: Filters::new(),
            groups: Groups::new(),
            cache: Cache::new(),
            nobody: Rc::new(Matches::default()),
            found: Vec::new(),
            subscriptions: 0,
            memberships: [0; MAX_SHARDS],
            streams: Vec::new(),
        }
    }

    /// Says what the history streams keep, before anything is matched.
    pub fn set_streams<'a>(&mut self, filters: impl Iterator<Item = &'a str>) {
        self.streams = filters.take(HISTORY_STREAMS).map(Box::from).collect();
    }

    fn streams_of(&self, topic: Name<'_>) -> StreamSet {
        let streams = self.streams.iter().enumerate();
        let kept = streams.filter(|(_, filter)| Filter::trusted(filter).matches(topic));
        StreamSet(kept.fold(0, |set, (index, _)| set | 1 << index))
    }

    /// A session of this shard subscribes. The same filter again replaces the options, and at no
    /// time is the session without them [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.8.4-3 3.1.1].
    pub fn subscribe(&mut self, filter: Filter<'_>, receiver: Receiver) -> Subscribed {
        let id = self.filters.find_or_add(filter, &self.hashing);
        let Some(entry) = self.filters.get_mut(id) else {
            return Subscribed {
                replaced: false,
                first: false,
            };
        };
        let first = entry.receivers() == 0;
        let old = entry.put(receiver);
        if old != Some(receiver) {
            self.cache.changed(filter, &self.hashing);
        }
        self.subscriptions += usize::from(old.is_none());
        Subscribed {
            replaced: old.is_some(),
            first,
        }
    }

    /// A session of this shard gives a filter up: from now on nothing matches for it by that filter
    /// [MQTT-3.10.4-2] [MQTT-3.10.4-2 3.1.1].
    pub fn unsubscribe(&mut self, filter: Filter<'_>, session: SessionKey) -> Unsubscribed {
        let nothing = Unsubscribed {
            existed: false,
            last: false,
        };
        let Some(id) = self.filters.find(filter, &self.hashing) else {
            return nothing;
        };
        let Some(entry) = self.filters.get_mut(id) else {
            return nothing;
        };
        if entry.take(session).is_none() {
            return nothing;
        }
        let last = entry.receivers() == 0;
        self.subscriptions -= 1;
        self.forget(filter, id);
        Unsubscribed {
            existed: true,
            last,
        }
    }

    /// Another shard has somebody, or nobody any more, who subscribed to `filter`.
    pub fn set_interest(&mut self, filter: Filter<'_>, shard: ShardId, interested: bool) {
        if interested {
            let id = self.filters.find_or_add(filter, &self.hashing);
            if self
                .filters
                .get_mut(id)
                .is_some_and(|entry| entry.remote.insert(shard))
            {
                self.cache.changed(filter, &self.hashing);
            }
        } else if let Some(id) = self.filters.find(filter, &self.hashing)
            && self
                .filters
                .get_mut(id)
                .is_some_and(|entry| entry.remote.remove(shard))
        {
            self.forget(filter, id);
        }
    }

    /// A session of any shard, this one included, takes its share of a group; whether it did not
    /// before. If it did, its options and its availability are replaced.
    pub fn join(&mut self, share: &str, filter: Filter<'_>, member: Member) -> bool {
        let id = self.filters.find_or_add(filter, &self.hashing);
        let key = match self.groups.find(share, id, &self.hashing) {
            Some(key) => key,
            None => {
                let key = self.groups.add(share, id, filter.as_str(), &self.hashing);
                if let Some(entry) = self.filters.get_mut(id) {
                    entry.add_group(key);
                }
                self.cache.changed(filter, &self.hashing);
                key
            }
        };
        let is_new = self.groups.put(key, member);
        if let Some(count) = self.memberships.get_mut(member.shard.index()) {
            *count += usize::from(is_new);
        }
        is_new
    }

    /// A session gives up its share of a group; whether it had one.
    pub fn leave(
        &mut self,
        share: &str,
        filter: Filter<'_>,
        shard: ShardId,
        session: SessionKey,
    ) -> bool {
        let Some(id) = self.filters.find(filter, &self.hashing) else {
            return false;
        };
        let Some(key) = self.groups.find(share, id, &self.hashing) else {
            return false;
        };
        if self.groups.take(key, (shard, session)).is_none() {
            return false;
        }
        if let Some(count) = self.memberships.get_mut(shard.index()) {
            *count -= 1;
        }
        if self.groups.drop_if_empty(key, &self.hashing) {
            if let Some(entry) = self.filters.get_mut(id) {
                entry.remove_group(key);
            }
            self.forget(filter, id);
        }
        true
    }

    /// A member of a group can take messages now, or cannot.
    pub fn set_available(
        &mut self,
        share: &str,
        filter: Filter<'_>,
        shard: ShardId,
        session: SessionKey,
        available: bool,
    ) {
        if let Some(key) = self.group(share, filter) {
            self.groups.set_available(key, (shard, session), available);
        }
    }

    fn forget(&mut self, filter: Filter<'_>, id: u32) {
        self.cache.changed(filter, &self.hashing);
        self.filters.drop_if_unused(id, &self.hashing);
    }

    /// Everybody who wants what is published on `topic`.
    pub fn matches(&mut self, topic: Name<'_>) -> Rc<Matches> {
        if let Some(matches) = self.cache.again(topic.as_str()) {
            return matches;
        }
        let hash = self.hashing.text(topic.as_str().as_bytes());
        let matches = match self.cache.get(topic.as_str(), hash) {
            Some(matches) => matches,
            None => {
                let matches = self.walk(topic, hash);
                self.cache
                    .put(topic.as_str(), hash, &matches, &self.hashing);
                matches
            }
        };
        self.cache.asked(topic.as_str(), &matches);
        matches
    }

    /// The same without the cache: what a topic that is seen once costs.
    pub fn matches_uncached(&mut self, topic: Name<'_>) -> Rc<Matches> {
        let hash = self.hashing.text(topic.as_str().as_bytes());
        self.walk(topic, hash)
    }

    fn walk(&mut self, topic: Name<'_>, hash: u64) -> Rc<Matches> {
        self.found.clear();
        self.filters
            .matching(topic, hash, &self.hashing, &mut self.found);
        let streams = self.streams_of(topic);
        if self.found.is_empty() && streams.is_empty() {
            return Rc::clone(&self.nobody);
        }
        let mut local = SmallVec::new();
        let mut remote = ShardSet::EMPTY;
        let mut groups = Vec::new();
        let mut contributors = 0;
        for entry in self.found.iter().filter_map(|&id| self.filters.get(id)) {
            let before = local.len();
            entry.for_each_slice(|receivers| local.extend_from_slice(receivers));
            contributors += usize::from(local.len() > before);
            remote = remote.union(entry.remote);
            groups.extend_from_slice(entry.groups());
        }
        if contributors > 1 {
            // Runs, which the stable sort merges.
            local.sort_by_key(|receiver: &Receiver| receiver.session);
        }
        groups.sort_unstable();
        Rc::new(Matches {
            local,
            remote,
            groups: groups.into(),
            streams,
        })
    }

    /// The member of `group` that gets the message: one who is available, or if nobody is, anybody;
    /// never `exclude`. `None` if there is nobody else, or no such group any more.
    pub fn pick(
        &mut self,
        group: GroupKey,
        choice: Choice,
        exclude: Option<(ShardId, SessionKey)>,
    ) -> Option<Member> {
        self.groups.pick(group, choice, exclude)
    }

    /// The group of that name on that filter.
    #[must_use]
    pub fn group(&self, share: &str, filter: Filter<'_>) -> Option<GroupKey> {
        let id = self.filters.find(filter, &self.hashing)?;
        self.groups.find(share, id, &self.hashing)
    }

    /// The ShareName and the filter of a group.
    #[must_use]
    pub fn group_name(&self, group: GroupKey) -> Option<(&str, &str)> {
        let (share, id) = self.groups.name(group)?;
        Some((share, self.filters.get(id)?.filter()))
    }

    /// The members of a group, those who are available first.
    pub fn members(&self, group: GroupKey) -> impl Iterator<Item = &Member> {
        self.groups.members(group)
    }

    /// Subscriptions of this shard's sessions that are not shared.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Shared subscriptions of the sessions of `shard`.
    #[must_use]
    pub fn shared_subscriptions(&self, shard: ShardId) -> usize {
        self.memberships.get(shard.index()).copied().unwrap_or(0)
    }

    /// Filters that anybody of this process subscribed to, each counted once.
    #[must_use]
    pub fn filters(&self) -> usize {
        self.filters.len()
    }
}
