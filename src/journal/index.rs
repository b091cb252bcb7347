//! Where each living item is, found by its number, and how many want it.
//!
//! Numbers rise, and what is young lives together: it stands in chunks of 512, eight bytes an item. An
//! old chunk of which little is left gives that to a hash map and its memory back, so that retained messages
//! and subscriptions of years among millions of short-lived messages cost some 25 bytes each.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::types::{ItemId, MAX_SEGMENT_BYTES, MAX_SESSIONS};

const CHUNK: usize = 512;
/// Living items of an old chunk from which on it is dissolved: a hash map is no larger then.
const FEW: u16 = (CHUNK / 8) as u16;
/// Chunks between the oldest and the newest, so that one long-lived message does not hold a list of
/// billions open.
const MAX_CHUNKS: usize = 1 << 16;

const COUNT_BITS: u32 = 22;
const OFFSET_BITS: u32 = 28;
/// Segments of which a place tells apart: numbers modulo this.
pub(super) const SEGMENTS: u64 = 1 << (64 - COUNT_BITS - OFFSET_BITS);

const _: () = {
    assert!(MAX_SESSIONS + 1 < 1 << COUNT_BITS);
    assert!(MAX_SEGMENT_BYTES == 1 << OFFSET_BITS);
};

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The number of the segment, modulo [`SEGMENTS`].
    pub(super) segment: u64,
    /// The byte where it begins.
    pub(super) offset: u32,
}

impl Place {
    pub(super) fn new(segment: u64, offset: usize) -> Self {
        debug_assert!(offset < MAX_SEGMENT_BYTES as usize);
        Self {
            segment: segment % SEGMENTS,
            offset: offset as u32,
        }
    }
}

/// Place and count in eight bytes; 0 is nothing, because a count is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    fn new(place: Place, count: u32) -> Self {
        Self(
            (place.segment << (COUNT_BITS + OFFSET_BITS))
                | (u64::from(place.offset) << COUNT_BITS)
                | u64::from(count),
        )
    }

    fn count(self) -> u32 {
        self.0 as u32 & ((1 << COUNT_BITS) - 1)
    }

    fn place(self) -> Place {
        Place {
            segment: self.0 >> (COUNT_BITS + OFFSET_BITS),
            offset: (self.0 >> COUNT_BITS) as u32 & (MAX_SEGMENT_BYTES - 1),
        }
    }
}

/// A chunk and how many of its items live. The count stands outside: an allocation a little larger than a
/// power of two takes a quarter more memory than one that is not.
struct Chunk {
    live: u16,
    items: Box<[Packed; CHUNK]>,
}

/// The index.
#[derive(Default)]
pub(super) struct Index {
    first: u64,
    chunks: VecDeque<Option<Chunk>>,
    old: HashMap<u64, Packed, foldhash::fast::FixedState>,
    spare: Option<Box<[Packed; CHUNK]>>,
    len: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory, without what the allocator adds.
    pub(super) fn memory(&self) -> usize {
        let chunks = self.chunks.iter().flatten().count();
        chunks * size_of::<[Packed; CHUNK]>()
            + self.chunks.capacity() * size_of::<Option<Chunk>>()
            + self.old.allocation_size()
    }

    /// Adds an item that is not there; `count` is at least 1. Recovery adds older ones, too.
    pub(super) fn insert(&mut self, id: ItemId, place: Place, count: u32) {
        debug_assert!(count > 0);
        self.len += 1;
        let packed = Packed::new(place, count);
        let number = id.0 / CHUNK as u64;
        self.advance(number);
        let newest = self.first + self.chunks.len() as u64 - 1;
        if number < newest && self.chunk(id).is_none_or(|at| self.chunks[at].is_none()) {
            self.old.insert(id.0, packed); // its chunk was dissolved
            return;
        }
        let spare = &mut self.spare;
        let Some(slot) = self.chunks.get_mut((number - self.first) as usize) else {
            return;
        };
        let chunk = slot.get_or_insert_with(|| Chunk {
            live: 0,
            items: spare.take().unwrap_or_else(|| Box::new([Packed(0); CHUNK])),
        });
        chunk.items[id.0 as usize % CHUNK] = packed;
        chunk.live += 1;
    }

    /// There is a chunk with that number, if it is no older than the oldest.
    fn advance(&mut self, number: u64) {
        if number.saturating_sub(self.first) >= 2 * MAX_CHUNKS as u64 {
            // Far away from everything there is.
            for position in 0..self.chunks.len() {
                self.dissolve(position);
            }
            self.chunks.clear();
        }
        while self.first + (self.chunks.len() as u64) <= number {
            // The newest one grows old.
            if let Some(Some(chunk)) = self.chunks.back()
                && chunk.live <= FEW
            {
                self.dissolve(self.chunks.len() - 1);
            }
            self.settle();
            if matches!(self.chunks.back(), None | Some(None)) && self.chunks.len() <= 1 {
                self.chunks.clear();
                self.first = number;
            }
            self.chunks.push_back(None);
            if self.chunks.len() > MAX_CHUNKS {
                self.dissolve(0);
                self.settle();
            }
        }
    }

    /// Where an item is and how many want it.
    pub(super) fn get(&self, id: ItemId) -> Option<(Place, u32)> {
        let packed = match self.chunk(id) {
            Some(position) => match &self.chunks[position] {
                Some(chunk) => chunk.items[id.0 as usize % CHUNK],
                None => *self.old.get(&id.0)?,
            },
            None => *self.old.get(&id.0)?,
        };
        (packed.0 != 0).then(|| (packed.place(), packed.count()))
    }

    /// An item was moved.
    pub(super) fn set_place(&mut self, id: ItemId, place: Place) {
        if let Some(packed) = self.get_mut(id) {
            *packed = Packed::new(place, packed.count());
        }
    }

    /// One less wants an item; where it was, if that was the last.
    pub(super) fn release(&mut self, id: ItemId) -> Option<Place> {
        let packed = self.get_mut(id)?;
        if packed.count() > 1 {
            packed.0 -= 1;
            return None;
        }
        let place = packed.place();
        self.len -= 1;
        let Some(position) = self.chunk(id) else {
            self.old.remove(&id.0);
            return Some(place);
        };
        let newest = position + 1 == self.chunks.len();
        match &mut self.chunks[position] {
            None => {
                self.old.remove(&id.0);
            }
            Some(chunk) => {
                chunk.items[id.0 as usize % CHUNK] = Packed(0);
                chunk.live -= 1;
                if chunk.live <= FEW && !newest {
                    self.dissolve(position);
                    self.settle();
                }
            }
        }
        Some(place)
    }

    fn get_mut(&mut self, id: ItemId) -> Option<&mut Packed> {
        let packed = match self.chunk(id) {
            Some(position) if self.chunks[position].is_some() => {
                &mut self.chunks[position].as_mut()?.items[id.0 as usize % CHUNK]
            }
            _ => self.old.get_mut(&id.0)?,
        };
        (packed.0 != 0).then_some(packed)
    }

    fn chunk(&self, id: ItemId) -> Option<usize> {
        let position = (id.0 / CHUNK as u64).checked_sub(self.first)?;
        (position < self.chunks.len() as u64).then_some(position as usize)
    }

    /// What is left of a chunk goes to the hash map.
    fn dissolve(&mut self, position: usize) {
        let Some(mut chunk) = self.chunks.get_mut(position).and_then(Option::take) else {
            return;
        };
        let first = (self.first + position as u64) * CHUNK as u64;
        if chunk.live > 0 {
            for (number, packed) in (first..).zip(chunk.items.iter_mut()) {
                if packed.0 != 0 {
                    self.old.insert(number, std::mem::take(packed));
                }
            }
        }
        self.spare.get_or_insert(chunk.items);
    }

    /// The first chunk is there.
    fn settle(&mut self) {
        while self.chunks.len() > 1 && matches!(self.chunks.front(), Some(None)) {
            self.chunks.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(
            operations in prop::collection::vec((0..10_u8, any::<u64>(), 1..5_u32), 0..3_000),
            gap in 1..40_u64,
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            let mut next = 1;
            for (kind, pick, count) in operations {
                let place = Place::new(pick, pick as usize % 1_000_000);
                match kind {
                    0..5 => {
                        next += pick % gap;
                        index.insert(ItemId(next), place, count);
                        model.insert(next, (place, count));
                        next += 1;
                    }
                    _ => {
                        let some = model.range(pick % (next + 1)..).next();
                        let Some((&id, &(old, left))) = some else { continue };
                        if kind == 5 {
                            index.set_place(ItemId(id), place);
                            model.insert(id, (place, left));
                        } else if left > 1 {
                            prop_assert_eq!(index.release(ItemId(id)), None);
                            model.insert(id, (old, left - 1));
                        } else {
                            prop_assert_eq!(index.release(ItemId(id)), Some(old));
                            prop_assert_eq!(index.get(ItemId(id)), None);
                            model.remove(&id);
                        }
                    }
                }
            }
            prop_assert_eq!(index.len(), model.len());
            for (id, expected) in model {
                prop_assert_eq!(index.get(ItemId(id)), Some(expected));
            }
        }
    }

    #[test]
    fn what_stays_of_much_takes_little() {
        let mut index = Index::default();
        let place = Place::new(1, 0);
        for id in 1..=1_000_000 {
            index.insert(ItemId(id), place, 1);
            if id % 100 != 0 {
                assert_eq!(index.release(ItemId(id)), Some(place));
            }
        }
        assert_eq!(index.len(), 10_000);
        assert!(index.memory() < 10_000 * 64, "{}", index.memory());
    }
}
