//! From a hash to the number of something that is kept, and compared, elsewhere.
//!
//! An open table of our own, because of the cache lines it touches: a number and 32 bits of its hash
//! lie in eight bytes, so one line answers most questions, where a table with control bytes needs
//! two. And it is in 64 parts by the upper bits of the hash, each of which grows by itself: a table
//! of a million that grows at once would stop the shard for tens of milliseconds.
//!
//! Invariants of a part: slots in use ascend by tag; a slot's home is `tag × homes / 2^32`, which
//! ascends with the tag too; each lies at its home or behind it, with no vacant slot in between. So
//! a search ends at the first vacant or greater tag, and growing is one pass.

use super::prefetch::prefetch;

/// Parts of one table; a power of two.
const PARTS: usize = 64;

/// Slots behind the last home, for what is pushed there; more where that is not enough.
const OVERFLOW: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    id: u32,
}

/// No number: a vacant slot.
const VACANT: Slot = Slot {
    tag: 0,
    id: u32::MAX,
};

#[derive(Default)]
struct Part {
    slots: Box<[Slot]>,
    homes: usize,
    used: usize,
}

/// The table.
pub(super) struct Index {
    parts: Box<[Part]>,
}

/// The lower half of a hash; the upper bits name the part.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
fn tag(hash: u64) -> u32 {
    hash as u32
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
        }
    }

    #[inline]
    fn part(hash: u64) -> usize {
        usize::try_from(hash >> (u64::BITS - PARTS.trailing_zeros())).unwrap_or(0)
    }

    /// Somebody will ask for `hash` soon.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        let part = self.parts.get(Self::part(hash));
        if let Some(slot) = part.and_then(|part| part.slots.get(part.home(tag(hash)))) {
            prefetch(slot);
        }
    }

    /// The numbers that are likely under `hash`: with the same 38 bits of it.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> impl Iterator<Item = u32> {
        let slots = match self.parts.get(Self::part(hash)) {
            Some(part) => part.slots.get(part.home(tag(hash))..).unwrap_or_default(),
            None => &[],
        };
        slots
            .iter()
            .take_while(move |slot| !slot.is_vacant() && slot.tag <= tag(hash))
            .filter(move |slot| slot.tag == tag(hash))
            .map(|slot| slot.id)
    }

    /// The number under `hash` for which `eq` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<u32> {
        self.likely(hash).find(|&id| eq(id))
    }

    /// Adds a number that is not in it yet.
    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        if let Some(part) = self.parts.get_mut(Self::part(hash)) {
            part.insert(Slot { tag: tag(hash), id });
        }
    }

    /// Takes `id` out again.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        if let Some(part) = self.parts.get_mut(Self::part(hash)) {
            part.remove(tag(hash), id);
        }
    }
}

impl Slot {
    fn is_vacant(self) -> bool {
        self.id == u32::MAX
    }
}

impl Part {
    #[inline]
    fn home(&self, tag: u32) -> usize {
        home(tag, self.homes)
    }

    fn insert(&mut self, slot: Slot) {
        if self.used >= self.homes / 16 * 13 {
            self.resize(self.used + self.used / 2);
        }
        while !self.place(slot) {
            let longer = self.slots.len() + OVERFLOW.max(self.slots.len() / 2);
            self.slots = lengthened(&self.slots, longer);
        }
        self.used += 1;
    }

    /// Puts `slot` in order, and what stands there one further; whether there was room.
    fn place(&mut self, slot: Slot) -> bool {
        let home = self.home(slot.tag);
        let run = self.slots.get(home..).unwrap_or_default();
        let Some(end) = run.iter().position(|slot| slot.is_vacant()) else {
            return false;
        };
        let at = run
            .iter()
            .position(|other| other.is_vacant() || other.tag > slot.tag);
        let Some(at) = at else { return false };
        self.slots.copy_within(home + at..home + end, home + at + 1);
        if let Some(here) = self.slots.get_mut(home + at) {
            *here = slot;
        }
        true
    }

    fn remove(&mut self, tag: u32, id: u32) {
        let home = self.home(tag);
        let run = self.slots.get(home..).unwrap_or_default();
        let in_use = run.iter().take_while(|slot| !slot.is_vacant());
        let Some(at) = in_use.clone().position(|slot| slot.id == id) else {
            debug_assert!(false, "only what was inserted is removed");
            return;
        };
        let at = home + at;
        // What was pushed here moves back, up to the first that is at home.
        let behind = self.slots.get(at + 1..).unwrap_or_default();
        let pushed = |(index, slot): (usize, &Slot)| {
            !slot.is_vacant() && self.home(slot.tag) < at + 1 + index
        };
        let count = behind
            .iter()
            .enumerate()
            .take_while(|&item| pushed(item))
            .count();
        self.slots.copy_within(at + 1..at + 1 + count, at);
        if let Some(last) = self.slots.get_mut(at + count) {
            *last = VACANT;
        }
        self.used -= 1;
        if self.homes > 64 && self.used < self.homes / 8 {
            self.resize(self.used * 2);
        }
    }

    /// Gives the part that many homes, or some more.
    fn resize(&mut self, homes: usize) {
        self.homes = homes.max(1).next_multiple_of(16);
        let mut slots = vec![VACANT; self.homes + OVERFLOW].into_boxed_slice();
        let mut next = 0;
        for slot in self.slots.iter().filter(|slot| !slot.is_vacant()) {
            let at = self.home(slot.tag).max(next);
            next = at + 1;
            if at >= slots.len() {
                slots = lengthened(&slots, at + OVERFLOW);
            }
            if let Some(here) = slots.get_mut(at) {
                *here = *slot;
            }
        }
        self.slots = slots;
    }
}

fn lengthened(slots: &[Slot], len: usize) -> Box<[Slot]> {
    let mut longer = vec![VACANT; len];
    for (here, slot) in longer.iter_mut().zip(slots) {
        *here = *slot;
    }
    longer.into_boxed_slice()
}

#[inline]
fn home(tag: u32, homes: usize) -> usize {
    usize::try_from((u64::from(tag) * homes as u64) >> u32::BITS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::hash::finish;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(index: &Index) {
        for part in &index.parts {
            let used: Vec<_> = (0..)
                .zip(&part.slots)
                .filter(|(_, slot)| !slot.is_vacant())
                .collect();
            assert_eq!(used.len(), part.used);
            assert!(used.is_sorted_by_key(|(_, slot)| slot.tag));
            for (at, slot) in used {
                let home = part.home(slot.tag);
                assert!(home <= at);
                assert!(part.slots[home..at].iter().all(|slot| !slot.is_vacant()));
            }
        }
    }

    proptest! {
        /// Against a set, with hashes that fall together and at both ends of a part.
        #[test]
        fn an_index_is_a_multimap(
            changes in prop::collection::vec((0..6u64, any::<u8>(), 0..200u32), 1..400),
        ) {
            let mut index = Index::new();
            let mut model = BTreeSet::new();
            for (spread, low, id) in changes {
                let hash = match spread {
                    0 => u64::from(low),
                    1 => u64::from(u32::MAX - u32::from(low)),
                    2 => u64::from(low % 4) << 20,
                    _ => u64::from(low).wrapping_mul(0x0101_0101_0101_0101) & 0x07ff_ffff_ffff_ffff,
                };
                if model.remove(&(hash, id)) {
                    index.remove(hash, id);
                } else if !model.iter().any(|&(_, other)| other == id) {
                    model.insert((hash, id));
                    index.insert(hash, id);
                }
                check(&index);
            }
            for &(hash, id) in &model {
                prop_assert_eq!(index.find(hash, |other| other == id), Some(id));
                prop_assert_eq!(index.find(hash + 1, |other| other == id), None);
            }
            for (hash, id) in model {
                index.remove(hash, id);
            }
            check(&index);
            prop_assert!(index.parts.iter().all(|part| part.used == 0));
        }
    }

    #[test]
    fn a_part_shrinks_when_it_is_left() {
        let mut index = Index::new();
        let hash = |id: u32| finish(u64::from(id));
        for id in 0..100_000 {
            index.insert(hash(id), id);
        }
        let slots = |index: &Index| {
            index
                .parts
                .iter()
                .map(|part| part.slots.len())
                .sum::<usize>()
        };
        let full = slots(&index);
        assert!(full < 200_000, "{full} slots for 100000 numbers");
        for id in 100..100_000 {
            index.remove(hash(id), id);
        }
        check(&index);
        assert!(
            slots(&index) < full / 10,
            "{} of {full} slots left",
            slots(&index)
        );
        assert!((0..100).all(|id| index.find(hash(id), |found| found == id) == Some(id)));
    }
}
