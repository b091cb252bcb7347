//! A sorted list in chunks: small enough for one subscriber, fast enough for a million.
//!
//! Invariants: no chunk is empty; items ascend strictly by key within and across chunks; a chunk
//! holds at most [`Sorted::CHUNK`] items. So a search is two binary searches, a change moves
//! [`CHUNK_BYTES`] at most, and a filter with one receiver pays for one small vector. A `BTreeMap`
//! was the alternative: its smallest node holds eleven items, and it cannot be ordered by something
//! that lies outside of it, which the retained topics need.

use std::cmp::Ordering;

/// Bytes of one chunk: what an insertion or a removal moves at most.
const CHUNK_BYTES: usize = 2048;

/// Items that know their key.
pub(super) trait Keyed: Copy {
    /// What they are ordered by.
    type Key: Ord + Copy;

    /// The key.
    fn key(&self) -> Self::Key;
}

/// The list.
#[derive(Debug, Clone)]
pub(super) struct Sorted<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

/// Where an item is, or would be. Good until the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    chunk: usize,
    item: usize,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Copy> Sorted<T> {
    const CHUNK: usize = CHUNK_BYTES / size_of::<T>();

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Finds the item for which `compare` says `Equal`, or where it belongs. `compare` tells how
    /// an item stands to what is looked for.
    pub(super) fn search(
        &self,
        mut compare: impl FnMut(&T) -> Ordering,
    ) -> Result<Position, Position> {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|item| compare(item).is_le()));
        let chunk = after.saturating_sub(1);
        let Some(items) = self.chunks.get(chunk) else {
            return Err(Position { chunk: 0, item: 0 });
        };
        match items.binary_search_by(compare) {
            Ok(item) => Ok(Position { chunk, item }),
            Err(item) => Err(Position { chunk, item }),
        }
    }

    pub(super) fn get(&self, at: Position) -> Option<&T> {
        self.chunks.get(at.chunk)?.get(at.item)
    }

    pub(super) fn get_mut(&mut self, at: Position) -> Option<&mut T> {
        self.chunks.get_mut(at.chunk)?.get_mut(at.item)
    }

    /// Puts `item` where [`Sorted::search`] said that it belongs.
    pub(super) fn insert(&mut self, at: Position, item: T) {
        self.len += 1;
        let Some(items) = self.chunks.get_mut(at.chunk) else {
            self.chunks.push(vec![item]);
            return;
        };
        items.insert(at.item, item);
        if items.len() >= Self::CHUNK {
            // Ascending insertions, the common case of new sessions and of restored state, leave
            // full chunks behind: split near the end there, in the middle elsewhere.
            let ascending = at.item + 1 == items.len() && at.chunk + 1 == self.chunks.len();
            self.split(
                at.chunk,
                if ascending {
                    Self::CHUNK - 1
                } else {
                    Self::CHUNK / 2
                },
            );
        }
    }

    fn split(&mut self, chunk: usize, at: usize) {
        let Some(items) = self.chunks.get_mut(chunk) else {
            return;
        };
        let upper = items.split_off(at);
        items.shrink_to_fit();
        self.chunks.insert(chunk + 1, upper);
    }

    /// Takes the item out that [`Sorted::search`] found.
    pub(super) fn remove(&mut self, at: Position) -> Option<T> {
        let items = self.chunks.get_mut(at.chunk)?;
        if at.item >= items.len() {
            return None;
        }
        let item = items.remove(at.item);
        self.len -= 1;
        let left = items.len();
        if left == 0 {
            self.chunks.remove(at.chunk);
        } else if left < Self::CHUNK / 4 {
            self.merge(at.chunk);
        }
        Some(item)
    }

    /// Joins a chunk that ran low with its successor where both fit comfortably, so that random
    /// removals leave no trail of tiny chunks.
    fn merge(&mut self, chunk: usize) {
        let Some([low, high]) = self.chunks.get(chunk..chunk + 2) else {
            if let Some(items) = self.chunks.get_mut(chunk) {
                items.shrink_to(items.len() * 2);
            }
            return;
        };
        if low.len() + high.len() > Self::CHUNK / 2 {
            return;
        }
        let high = self.chunks.remove(chunk + 1);
        if let Some(low) = self.chunks.get_mut(chunk) {
            low.extend_from_slice(&high);
        }
    }

    /// Everything, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The chunks, in order: for copying slice by slice.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[T]> {
        self.chunks.iter().map(Vec::as_slice)
    }

    /// Everything from `at` on, in order.
    pub(super) fn iter_from(&self, at: Position) -> impl Iterator<Item = &T> {
        let (first, rest) = match self.chunks.get(at.chunk..) {
            Some([first, rest @ ..]) => (first.get(at.item..).unwrap_or_default(), rest),
            _ => (&[][..], &[][..]),
        };
        first.iter().chain(rest.iter().flatten())
    }

    /// The item with `index` others before it.
    pub(super) fn nth(&self, mut index: usize) -> Option<&T> {
        for items in &self.chunks {
            if let Some(item) = items.get(index) {
                return Some(item);
            }
            index -= items.len();
        }
        None
    }
}

impl<T: Keyed> Sorted<T> {
    pub(super) fn find(&self, key: T::Key) -> Result<Position, Position> {
        self.search(|item| item.key().cmp(&key))
    }

    pub(super) fn contains(&self, key: T::Key) -> bool {
        self.find(key).is_ok()
    }

    /// Puts `item` in, and gives back what had its key.
    pub(super) fn put(&mut self, item: T) -> Option<T> {
        match self.find(item.key()) {
            Ok(at) => self.get_mut(at).map(|old| std::mem::replace(old, item)),
            Err(at) => {
                self.insert(at, item);
                None
            }
        }
    }

    /// Takes out what has `key`.
    pub(super) fn take(&mut self, key: T::Key) -> Option<T> {
        let at = self.find(key).ok()?;
        self.remove(at)
    }

    /// The first item whose key is above `key`, or the very first: the next one of a rotation.
    pub(super) fn after(&self, key: T::Key) -> Option<&T> {
        let next = match self.find(key) {
            Ok(at) => self.iter_from(at).nth(1),
            Err(at) => self.iter_from(at).next(),
        };
        next.or_else(|| self.iter().next())
    }
}
