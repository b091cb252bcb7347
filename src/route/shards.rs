//! Shards by number, and sets of them in one word.

use crate::limits::MAX_SHARDS;

/// A shard of this process, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u8);

impl ShardId {
    /// The shard with that number.
    ///
    /// # Panics
    /// If `index` is not below [`MAX_SHARDS`]: nobody but the configuration names shards, and it
    /// is checked there.
    #[must_use]
    #[track_caller]
    pub const fn new(index: usize) -> Self {
        assert!(index < MAX_SHARDS, "a shard's number is below MAX_SHARDS");
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below MAX_SHARDS, which is 64"
        )]
        Self(index as u8)
    }

    /// Its number, for tables with one row per shard.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of shards: one bit each, because every filter carries one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardSet(u64);

impl ShardSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    /// Adds `shard`; whether it was not there before.
    pub const fn insert(&mut self, shard: ShardId) -> bool {
        let before = self.0;
        self.0 |= 1 << shard.0;
        self.0 != before
    }

    /// Takes `shard` out; whether it was there.
    pub const fn remove(&mut self, shard: ShardId) -> bool {
        let before = self.0;
        self.0 &= !(1 << shard.0);
        self.0 != before
    }

    /// Whether `shard` is in it.
    #[must_use]
    pub const fn contains(self, shard: ShardId) -> bool {
        self.0 & (1 << shard.0) != 0
    }

    /// Whether nobody is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Everybody who is in one of the two.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The shards in it, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let index = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (index < MAX_SHARDS).then(|| ShardId::new(index))
        })
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_is_a_set() {
        let mut set = ShardSet::EMPTY;
        assert!(set.is_empty());
        assert!(set.insert(ShardId::new(63)));
        assert!(set.insert(ShardId::new(0)));
        assert!(!set.insert(ShardId::new(0)));
        assert!(set.contains(ShardId::new(63)));
        assert!(!set.contains(ShardId::new(7)));
        assert_eq!(set.len(), 2);
        assert_eq!(set.iter().map(ShardId::index).collect::<Vec<_>>(), [0, 63]);
        assert_eq!(set.iter().collect::<ShardSet>(), set);
        assert!(set.remove(ShardId::new(0)));
        assert!(!set.remove(ShardId::new(0)));
        assert_eq!(set.union(ShardSet(6)).len(), 3);
    }
}
