//! Hash tables of values that never stop the shard: 64 parts by the upper bits of the hash, each of which
//! grows by itself. One table of a million entries moves all of them at once when it grows; a part
//! moves a sixty-fourth of that.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Parts of one table; a power of two.
const PARTS: usize = 64;

/// An entry that knows where it belongs, without looking elsewhere.
pub(super) trait Hashed {
    /// A number that spreads entries of one part over it: upper and lower bits both.
    fn spread(&self) -> u64;
}

/// From 32 bits of a hash to 64 that are fit for a table.
pub(super) fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The lower half of a hash; the upper bits name the part.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
pub(super) fn tag(hash: u64) -> u32 {
    hash as u32
}

/// A hash table in parts.
pub(super) struct Table<T> {
    parts: Box<[HashTable<T>]>,
}

impl<T: Hashed> Table<T> {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "six bits are left")]
    fn part(hash: u64) -> usize {
        (hash >> (u64::BITS - PARTS.trailing_zeros())) as usize
    }

    /// Entries there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    pub(super) fn find(&self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts
            .get(Self::part(hash))?
            .find(spread(tag(hash)), eq)
    }

    pub(super) fn entry(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<Entry<'_, T>> {
        let part = self.parts.get_mut(Self::part(hash))?;
        Some(part.entry(spread(tag(hash)), eq, Hashed::spread))
    }

    pub(super) fn remove(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<T> {
        let part = self.parts.get_mut(Self::part(hash))?;
        let (removed, _) = part.find_entry(spread(tag(hash)), eq).ok()?.remove();
        if part.capacity() > 64 && part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2, Hashed::spread);
        }
        Some(removed)
    }
}
