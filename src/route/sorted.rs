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

    /// Joins a chunk that ran low with a neighbour where both fit comfortably, so that removals
    /// leave no trail of tiny chunks.
    fn merge(&mut self, chunk: usize) {
        for low in [Some(chunk), chunk.checked_sub(1)].into_iter().flatten() {
            let Some([left, right]) = self.chunks.get(low..low + 2) else {
                continue;
            };
            if left.len() + right.len() > Self::CHUNK / 2 {
                continue;
            }
            let right = self.chunks.remove(low + 1);
            if let Some(left) = self.chunks.get_mut(low) {
                left.extend_from_slice(&right);
            }
            return;
        }
        if let Some(items) = self.chunks.get_mut(chunk) {
            items.shrink_to(items.len() * 2);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Keyed for [u32; 64] {
        type Key = u32;

        fn key(&self) -> u32 {
            self[0]
        }
    }

    fn item(key: u32, value: u32) -> [u32; 64] {
        let mut item = [value; 64];
        item[0] = key;
        item
    }

    fn check(list: &Sorted<[u32; 64]>) {
        assert!(list.chunks.iter().all(|chunk| !chunk.is_empty()));
        assert!(
            list.chunks
                .iter()
                .all(|chunk| chunk.len() <= Sorted::<[u32; 64]>::CHUNK)
        );
        assert_eq!(list.iter().count(), list.len());
        assert!(list.iter().is_sorted_by_key(Keyed::key));
    }

    proptest! {
        /// Against a map; a chunk has eight items, so they split and merge all the time.
        #[test]
        fn a_sorted_list_is_a_map(
            changes in prop::collection::vec((0..3u8, 0..80u32, any::<u32>()), 1..300),
        ) {
            let mut list = Sorted::default();
            let mut model = BTreeMap::new();
            for (kind, key, value) in changes {
                if kind == 0 {
                    let taken = list.take(key).map(|item: [u32; 64]| item[1]);
                    prop_assert_eq!(taken, model.remove(&key));
                } else {
                    let old = list.put(item(key, value)).map(|item| item[1]);
                    prop_assert_eq!(old, model.insert(key, value));
                }
                check(&list);
                prop_assert_eq!(list.contains(key), model.contains_key(&key));
                let after = model.range(key + 1..).next().or_else(|| model.iter().next());
                prop_assert_eq!(list.after(key).map(Keyed::key), after.map(|(&key, _)| key));
                let nth = value as usize % 90;
                let expected = model.keys().nth(nth).copied();
                prop_assert_eq!(list.nth(nth).map(Keyed::key), expected);
            }
            prop_assert_eq!(
                list.iter().map(|item| (item[0], item[1])).collect::<Vec<_>>(),
                model.into_iter().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn removing_at_random_leaves_no_trail_of_small_chunks() {
        let mut list = Sorted::default();
        for key in 0..1000 {
            list.put(item(key, 0));
        }
        for key in (0..1000).filter(|key| key % 10 != 0) {
            list.take(key);
        }
        check(&list);
        assert!(
            list.chunks.len() <= 60,
            "{} chunks for 100 items",
            list.chunks.len()
        );
    }
}
