//! Shared Subscriptions, section 4.8.2 of version 5: who belongs to a group, and whose turn it is.
//!
//! Every shard knows every member of every group, so the shard that a publish arrived at picks the
//! member and hands the message to that member's shard only. Where the choice must not depend on
//! who asks (the two hash strategies, the first pick of a sticky group), it is a function of the
//! group's name and members alone, so all shards come to the same one.
//!
//! Invariants: a member is in exactly one of `available` and `away`; a group has a member; a
//! [`GroupKey`] of a group that is gone finds nothing, also after its place was taken again.

use super::hash::{Hashing, finish, stable_hash};
use super::index::Index;
use super::receiver::{Receiver, SessionKey};
use super::shards::ShardId;
use super::sorted::{Keyed, Sorted};
use crate::limits::GROUP_RENDEZVOUS;

/// A group: one ShareName on one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    index: u32,
    generation: u32,
}

/// A session of any shard that takes its share of a group's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where the session lives.
    pub shard: ShardId,
    /// The session there, and the options of its subscription.
    pub receiver: Receiver,
    /// Whether it can take messages now; the others are picked only when nobody can.
    pub available: bool,
}

impl Keyed for Member {
    type Key = (ShardId, SessionKey);

    fn key(&self) -> (ShardId, SessionKey) {
        (self.shard, self.receiver.session)
    }
}

/// How a group shares its messages out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// In turn. Each shard that publishes has a turn of its own.
    #[default]
    RoundRobin,
    /// Anyone.
    Random,
    /// Always the same one, until it leaves or is not available.
    Sticky,
    /// The same one for each publishing client.
    HashClientId,
    /// The same one for each topic.
    HashTopic,
}

/// What a pick depends on besides the members. The hashes must be the same on every shard
/// ([`stable_hash`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// How to pick.
    pub strategy: Strategy,
    /// Of the topic name.
    pub topic_hash: u64,
    /// Of the publisher's client id.
    pub publisher_hash: u64,
    /// Drawn for this message.
    pub random: u64,
}

struct Group {
    share: Box<str>,
    filter: u32,
    /// The same on every shard.
    salt: u64,
    available: Sorted<Member>,
    away: Sorted<Member>,
    /// Whose turn it was last.
    last: Option<(ShardId, SessionKey)>,
    sticky: Option<(ShardId, SessionKey)>,
}

#[derive(Default)]
struct Place {
    generation: u32,
    group: Option<Box<Group>>,
}

/// All groups.
pub(super) struct Groups {
    places: Vec<Place>,
    vacant: Vec<u32>,
    names: Index,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            vacant: Vec::new(),
            names: Index::new(),
        }
    }

    fn hash(share: &str, filter: u32, hashing: &Hashing) -> u64 {
        finish(hashing.text(share.as_bytes()) ^ u64::from(filter))
    }

    fn get(&self, key: GroupKey) -> Option<&Group> {
        let place = self.places.get(key.index as usize)?;
        place
            .group
            .as_deref()
            .filter(|_| place.generation == key.generation)
    }

    fn get_mut(&mut self, key: GroupKey) -> Option<&mut Group> {
        let place = self.places.get_mut(key.index as usize)?;
        place
            .group
            .as_deref_mut()
            .filter(|_| place.generation == key.generation)
    }

    /// The group of that name on that filter.
    pub(super) fn find(&self, share: &str, filter: u32, hashing: &Hashing) -> Option<GroupKey> {
        let group = |index: u32| self.places.get(index as usize)?.group.as_deref();
        let index = self
            .names
            .find(Self::hash(share, filter, hashing), |index| {
                group(index).is_some_and(|group| group.filter == filter && *group.share == *share)
            })?;
        let generation = self.places.get(index as usize)?.generation;
        Some(GroupKey { index, generation })
    }

    /// A group without members; whoever calls adds the first one.
    pub(super) fn add(
        &mut self,
        share: &str,
        filter: u32,
        text: &str,
        hashing: &Hashing,
    ) -> GroupKey {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(place) = self.places.get_mut(index as usize) {
            generation = place.generation;
            place.group = Some(Box::new(Group {
                share: share.into(),
                filter,
                salt: finish(stable_hash(share)).wrapping_add(stable_hash(text)),
                available: Sorted::default(),
                away: Sorted::default(),
                last: None,
                sticky: None,
            }));
        }
        self.names.insert(Self::hash(share, filter, hashing), index);
        GroupKey { index, generation }
    }

    /// Puts `member` in; whether it is new to the group.
    pub(super) fn put(&mut self, key: GroupKey, member: Member) -> bool {
        let Some(group) = self.get_mut(key) else {
            return false;
        };
        let (into, other) = group.sides(member.available);
        let elsewhere = other.take(member.key());
        into.put(member).or(elsewhere).is_none()
    }

    /// Takes a member out.
    pub(super) fn take(&mut self, key: GroupKey, member: (ShardId, SessionKey)) -> Option<Member> {
        let group = self.get_mut(key)?;
        group
            .available
            .take(member)
            .or_else(|| group.away.take(member))
    }

    /// Says whether a member can take messages.
    pub(super) fn set_available(
        &mut self,
        key: GroupKey,
        member: (ShardId, SessionKey),
        available: bool,
    ) {
        let Some(group) = self.get_mut(key) else {
            return;
        };
        let (into, from) = group.sides(available);
        if let Some(member) = from.take(member) {
            into.put(Member {
                available,
                ..member
            });
        }
    }

    /// Drops the group if it has no members; whether it did.
    pub(super) fn drop_if_empty(&mut self, key: GroupKey, hashing: &Hashing) -> bool {
        let Some(group) = self.get(key) else {
            return false;
        };
        if !group.available.is_empty() || !group.away.is_empty() {
            return false;
        }
        self.names
            .remove(Self::hash(&group.share, group.filter, hashing), key.index);
        if let Some(place) = self.places.get_mut(key.index as usize) {
            place.group = None;
            place.generation = place.generation.wrapping_add(1);
            self.vacant.push(key.index);
        }
        true
    }

    /// The group's ShareName and the number of its filter.
    pub(super) fn name(&self, key: GroupKey) -> Option<(&str, u32)> {
        self.get(key).map(|group| (&*group.share, group.filter))
    }

    /// The members, those who are available first.
    pub(super) fn members(&self, key: GroupKey) -> impl Iterator<Item = &Member> {
        self.get(key)
            .into_iter()
            .flat_map(|group| group.available.iter().chain(group.away.iter()))
    }

    /// Whose message it is.
    pub(super) fn pick(
        &mut self,
        key: GroupKey,
        choice: Choice,
        exclude: Option<(ShardId, SessionKey)>,
    ) -> Option<Member> {
        self.get_mut(key)?.pick(choice, exclude)
    }
}

impl Group {
    /// The side where members are who have that availability, and the other one.
    fn sides(&mut self, available: bool) -> (&mut Sorted<Member>, &mut Sorted<Member>) {
        if available {
            (&mut self.available, &mut self.away)
        } else {
            (&mut self.away, &mut self.available)
        }
    }

    fn pick(&mut self, choice: Choice, exclude: Option<(ShardId, SessionKey)>) -> Option<Member> {
        let exclude_from = |pool: &Sorted<Member>| exclude.filter(|&key| pool.contains(key));
        let mut pool = &self.available;
        let mut without = exclude_from(pool);
        if pool.len() == usize::from(without.is_some()) {
            pool = &self.away;
            without = exclude_from(pool);
        }
        if pool.len() == usize::from(without.is_some()) {
            return None;
        }
        let picked = match choice.strategy {
            Strategy::RoundRobin => self.turn(pool, without),
            Strategy::Random => drawn(pool, choice.random, without),
            Strategy::HashClientId => rendezvous(pool, choice.publisher_hash ^ self.salt, without),
            Strategy::HashTopic => rendezvous(pool, choice.topic_hash ^ self.salt, without),
            Strategy::Sticky => self
                .sticky
                .filter(|&key| without != Some(key))
                .and_then(|key| pool.get(pool.find(key).ok()?).copied())
                .or_else(|| rendezvous(pool, self.salt, without)),
        }?;
        match choice.strategy {
            Strategy::RoundRobin => self.last = Some(picked.key()),
            // Passing somebody over once is no reason to leave it.
            Strategy::Sticky if without.is_none() || without != self.sticky => {
                self.sticky = Some(picked.key());
            }
            _ => {}
        }
        Some(picked)
    }

    fn turn(
        &self,
        pool: &Sorted<Member>,
        without: Option<(ShardId, SessionKey)>,
    ) -> Option<Member> {
        let next = match self.last {
            Some(last) => pool.after(last)?,
            None => pool.iter().next()?,
        };
        if without == Some(next.key()) {
            pool.after(next.key()).copied()
        } else {
            Some(*next)
        }
    }
}

fn drawn(
    pool: &Sorted<Member>,
    random: u64,
    without: Option<(ShardId, SessionKey)>,
) -> Option<Member> {
    let among = pool.len() - usize::from(without.is_some());
    let drawn = pool.nth(index_below(among, random))?;
    // The last one stands in for the one that is left out, which is uniform again.
    if without == Some(drawn.key()) {
        pool.nth(among).copied()
    } else {
        Some(*drawn)
    }
}

/// The member that scores highest with `hash`: when one leaves, only its own keys move. Of a huge
/// group it looks at a window, whose start moves with the size of the group.
fn rendezvous(
    pool: &Sorted<Member>,
    hash: u64,
    without: Option<(ShardId, SessionKey)>,
) -> Option<Member> {
    let start = if pool.len() <= GROUP_RENDEZVOUS {
        0
    } else {
        index_below(pool.len(), hash)
    };
    let from = pool.nth(start)?;
    let at = pool.find(from.key()).ok()?;
    pool.iter_from(at)
        .chain(pool.iter())
        .take(pool.len().min(GROUP_RENDEZVOUS))
        .filter(|member| without != Some(member.key()))
        .max_by_key(|member| {
            let (shard, session) = member.key();
            let place = u64::from(session.index) << 32 | u64::from(session.generation);
            (
                finish(finish(place ^ (shard.index() as u64) << 58) ^ hash),
                member.key(),
            )
        })
        .copied()
}

fn index_below(len: usize, bits: u64) -> usize {
    usize::try_from((u128::from(finish(bits)) * len as u128) >> 64).unwrap_or(0)
}
