//! The numbers of the messages that wait for one session, in as few bytes and cache lines as possible.
//!
//! They ascend, and messages of one session are near each other, so what is kept is the steps from one to the
//! next, seven bits a byte: one byte where every message of the shard goes to the session, two where one in a
//! thousand does. The youngest stand in the 32 bytes of the list itself: a message to a hundred thousand sessions
//! touches one of these for each and allocates for one in ten. What is older is moved in one
//! piece behind the last of the chunks, of 128 bytes, so that no list is ever copied to grow.

use std::collections::VecDeque;

use super::codec::number_size;
use super::types::ItemId;

/// Bytes of steps in the list itself.
const TAIL: usize = 15;
/// So many lists are moved behind their chunks one after the other.
const SPREAD: usize = 8;
/// Bytes of steps in a chunk.
const CHUNK: usize = 110;

/// Numbers of items, ascending.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The greatest, which ends the tail; 0 if that is empty.
    last: u64,
    older: Option<Box<Older>>,
    used: u8,
    /// The steps between those of the tail; its first number is what they leave of `last`.
    tail: [u8; TAIL],
}

/// What is older than the tail, never nothing.
#[derive(Debug, Default)]
struct Older {
    /// None of them is empty.
    full: VecDeque<Box<Chunk>>,
    newest: Chunk,
}

/// Numbers from `first` on to `last`; 0 if there is none.
#[derive(Debug)]
struct Chunk {
    first: u64,
    last: u64,
    /// Where in `steps` those stand that lead from one to the other.
    start: u8,
    end: u8,
    steps: [u8; CHUNK],
}

const _: () = {
    assert!(size_of::<Numbers>() == 32);
    assert!(size_of::<Chunk>() == 128);
};

/// A row of numbers by its ends, with the steps in between elsewhere.
struct Row {
    first: u64,
    last: u64,
    /// Bytes that the steps have.
    used: usize,
}

impl Numbers {
    /// Appends a number, greater than all there are.
    #[inline]
    pub(super) fn push(&mut self, id: ItemId) {
        if self.last != 0 {
            debug_assert!(id.0 > self.last);
            let step = id.0 - self.last;
            let used = usize::from(self.used);
            let room = self.room();
            if let Some(free) = self.tail[..room].get_mut(used..used + number_size(step)) {
                put_step(step, free);
                self.used = (used + free.len()) as u8;
                self.last = id.0;
                return;
            }
            self.flush();
        }
        self.used = 0;
        self.last = id.0;
    }

    /// Takes a number out; `false` if it is not there.
    pub(super) fn remove(&mut self, id: ItemId) -> bool {
        let row = self.tail_row();
        if self.last != 0 && id.0 >= row.first {
            let used = row.used;
            let Some(row) = without(row, &mut self.tail[..used], id.0) else {
                return false;
            };
            match row {
                Some(row) => (self.last, self.used) = (row.last, row.used as u8),
                None => (self.last, self.used) = (0, 0),
            }
            return true;
        }
        let Some(older) = self.older.as_deref_mut() else {
            return false;
        };
        let removed = older.remove(id.0);
        if older.full.is_empty() && older.newest.is_empty() {
            self.older = None;
        }
        removed
    }

    /// Whether a number is there.
    pub(super) fn contains(&self, id: ItemId) -> bool {
        let row = self.tail_row();
        if self.last != 0 && id.0 >= row.first {
            return id.0 <= self.last && is_in(row.first, &self.tail[..row.used], id.0);
        }
        let older = self.older.as_deref();
        let chunk = older.and_then(|older| older.behind(id.0.saturating_sub(1)).next());
        chunk.is_some_and(|chunk| is_in(chunk.first, chunk.steps(), id.0))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = ItemId> {
        self.behind(ItemId(0))
    }

    /// Those that are greater than `after`.
    pub(super) fn behind(&self, after: ItemId) -> impl Iterator<Item = ItemId> {
        let older = self.older.as_deref().into_iter();
        let chunks = older.flat_map(move |older| older.behind(after.0));
        let chunks = chunks.flat_map(|chunk| numbers(chunk.first, chunk.steps()));
        let Row { first, used, .. } = self.tail_row();
        let tail = (self.last > after.0).then(|| numbers(first, &self.tail[..used]));
        let all = chunks.chain(tail.into_iter().flatten());
        all.skip_while(move |&number| number <= after.0).map(ItemId)
    }

    /// Bytes of memory beside the list itself, without what the allocator adds.
    pub(super) fn memory(&self) -> usize {
        self.older.as_deref().map_or(0, |older| {
            let chunks = older.full.len() * size_of::<Chunk>();
            size_of::<Older>() + older.full.capacity() * size_of::<Box<Chunk>>() + chunks
        })
    }

    /// How much of the tail is used. Sessions that get the same messages would move theirs at the same one, and
    /// that would cost ten times what the others do; so it depends on where the list stands.
    #[inline]
    fn room(&self) -> usize {
        TAIL - (std::ptr::from_ref(self).addr() / align_of::<Self>()) % SPREAD
    }

    /// The tail as it stands.
    fn tail_row(&self) -> Row {
        let used = usize::from(self.used);
        let mut first = self.last;
        let mut at = 0;
        while at < used {
            first -= take_step(&self.tail, &mut at);
        }
        let last = self.last;
        Row { first, last, used }
    }

    /// Moves the tail behind the chunks.
    #[cold]
    fn flush(&mut self) {
        let Row { first, last, used } = self.tail_row();
        let older = self.older.get_or_insert_default();
        older.append(first, &self.tail[..used], last);
    }
}

impl FromIterator<ItemId> for Numbers {
    fn from_iter<T: IntoIterator<Item = ItemId>>(ids: T) -> Self {
        let mut numbers = Self::default();
        ids.into_iter().for_each(|id| numbers.push(id));
        numbers
    }
}

impl Older {
    /// The chunks that have a number greater than `after`.
    fn behind(&self, after: u64) -> impl Iterator<Item = &Chunk> {
        let first = self.full.partition_point(|chunk| chunk.last <= after);
        let newest = Some(&self.newest).filter(|chunk| chunk.last > after);
        self.full.range(first..).map(|chunk| &**chunk).chain(newest)
    }

    /// Appends a row.
    fn append(&mut self, first: u64, steps: &[u8], last: u64) {
        if !self.newest.append(first, steps, last) {
            let mut chunk = Chunk::default();
            chunk.append(first, steps, last);
            let full = std::mem::replace(&mut self.newest, chunk);
            self.full.push_back(Box::new(full));
        }
    }

    /// Takes a number out; `false` if it is not there.
    fn remove(&mut self, id: u64) -> bool {
        let at = self.full.partition_point(|chunk| chunk.last < id);
        let Some(chunk) = self.full.get_mut(at) else {
            return self.newest.remove(id);
        };
        let removed = chunk.remove(id);
        if chunk.is_empty() {
            self.full.remove(at);
        }
        removed
    }
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.last == 0
    }

    fn steps(&self) -> &[u8] {
        &self.steps[self.start.into()..self.end.into()]
    }

    /// Appends a row; `false` if there is no room.
    fn append(&mut self, first: u64, steps: &[u8], last: u64) -> bool {
        let size = match self.is_empty() {
            true => 0,
            false => number_size(first - self.last),
        };
        let mut end = usize::from(self.end);
        if end + size + steps.len() > CHUNK {
            // What was in front of them is free.
            let start = usize::from(std::mem::take(&mut self.start));
            self.steps.copy_within(start..end, 0);
            end -= start;
            self.end = end as u8;
        }
        let Some(room) = self.steps.get_mut(end..end + size + steps.len()) else {
            return false;
        };
        let (step, rest) = room.split_at_mut(size);
        if step.is_empty() {
            self.first = first;
        } else {
            put_step(first - self.last, step);
        }
        rest.copy_from_slice(steps);
        self.end = (end + size + steps.len()) as u8;
        self.last = last;
        true
    }

    /// Takes a number out; `false` if it is not there.
    fn remove(&mut self, id: u64) -> bool {
        let (start, end) = (usize::from(self.start), usize::from(self.end));
        if id == self.first && id != self.last {
            let mut at = start;
            self.first += take_step(&self.steps, &mut at);
            self.start = at as u8;
            return true;
        }
        let row = Row {
            first: self.first,
            last: self.last,
            used: end - start,
        };
        let Some(row) = without(row, &mut self.steps[start..end], id) else {
            return false;
        };
        let Row { first, last, used } = row.unwrap_or(Row {
            first: 0,
            last: 0,
            used: 0,
        });
        (self.first, self.last) = (first, last);
        self.end = (start + used) as u8;
        if last == 0 {
            (self.start, self.end) = (0, 0);
        }
        true
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            first: 0,
            last: 0,
            start: 0,
            end: 0,
            steps: [0; CHUNK],
        }
    }
}

/// Takes a number out of a row: `None` if it is not there, otherwise what is left.
#[expect(clippy::option_option, reason = "two questions, each with its answer")]
fn without(row: Row, steps: &mut [u8], id: u64) -> Option<Option<Row>> {
    let Row { first, last, used } = row;
    let (mut number, mut at, mut before) = (first, 0, 0);
    let mut begin = 0; // of the step that leads to it
    while number < id && at < used {
        before = number;
        begin = at;
        number += take_step(steps, &mut at);
    }
    if number != id {
        return None;
    }
    if at == used {
        // The last one, and maybe the only one.
        let shorter = Row {
            first,
            last: before,
            used: begin,
        };
        return Some((first != last).then_some(shorter));
    }
    let mut end = at;
    let next = id + take_step(steps, &mut end);
    let mut row = Row { first, last, used };
    if id == first {
        row.first = next;
    } else {
        // One step in the place of two, in no more bytes than they had.
        let size = number_size(next - before);
        put_step(next - before, &mut steps[begin..begin + size]);
        begin += size;
    }
    steps.copy_within(end..used, begin);
    row.used = used - (end - begin);
    Some(Some(row))
}

/// Whether a number is in the row that begins with `first`.
fn is_in(first: u64, steps: &[u8], id: u64) -> bool {
    let (mut number, mut at) = (first, 0);
    while number < id && at < steps.len() {
        number += take_step(steps, &mut at);
    }
    number == id
}

/// The numbers from `first` on.
fn numbers(first: u64, steps: &[u8]) -> impl Iterator<Item = u64> {
    let mut at = 0;
    let more = std::iter::from_fn(move || (at < steps.len()).then(|| take_step(steps, &mut at)));
    let sums = more.scan(first, |number, step| {
        *number += step;
        Some(*number)
    });
    std::iter::once(first).chain(sums)
}

/// Fills `bytes`, which are as many as it takes.
#[inline]
fn put_step(step: u64, bytes: &mut [u8]) {
    let mut rest = step;
    let last = bytes.len() - 1;
    for byte in &mut bytes[..last] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    bytes[last] = rest as u8;
}

#[inline]
fn take_step(steps: &[u8], at: &mut usize) -> u64 {
    let (mut step, mut shift) = (0, 0);
    loop {
        let byte = steps[*at];
        *at += 1;
        step |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return step;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn same(numbers: &Numbers, model: &BTreeSet<u64>) {
        assert!(numbers.iter().map(|id| id.0).eq(model.iter().copied()));
        let is_empty = numbers.last == 0 && numbers.older.is_none();
        assert_eq!(is_empty, model.is_empty());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            operations in prop::collection::vec((0..12_u8, any::<u64>()), 0..1_500),
            width in 0..20_u32,
        ) {
            let mut numbers = Numbers::default();
            let mut model = BTreeSet::new();
            let mut next = 1;
            for (kind, pick) in operations {
                match kind {
                    0..7 => {
                        // Mostly small steps, now and then one of any size.
                        let bits = if kind == 0 { 2 * width } else { width / 4 };
                        next += pick % (1 << bits);
                        numbers.push(ItemId(next));
                        model.insert(next);
                        next += 1;
                    }
                    7 | 8 => {
                        let first = model.pop_first();
                        if let Some(first) = first {
                            prop_assert!(numbers.remove(ItemId(first)));
                        }
                    }
                    9 => {
                        let some = model.range(pick % (next + 1)..).next().copied();
                        if let Some(some) = some {
                            prop_assert!(numbers.remove(ItemId(some)));
                            model.remove(&some);
                        }
                    }
                    10 => {
                        let any = 1 + pick % (next + 2);
                        prop_assert_eq!(numbers.contains(ItemId(any)), model.contains(&any));
                        prop_assert_eq!(numbers.remove(ItemId(any)), model.remove(&any));
                    }
                    _ => {
                        let after = pick % (next + 2);
                        let behind = numbers.behind(ItemId(after)).map(|id| id.0);
                        prop_assert!(behind.eq(model.range(after + 1..).copied()));
                    }
                }
            }
            same(&numbers, &model);
            for number in model.clone() {
                prop_assert!(numbers.remove(ItemId(number)));
                model.remove(&number);
            }
            same(&numbers, &model);
        }
    }

    #[test]
    fn what_waits_takes_little() {
        for (step, most) in [(1, 2), (1_000, 3)] {
            let ids = (1..=10_000).map(|number| ItemId(number * step));
            let numbers: Numbers = ids.collect();
            let memory = numbers.memory();
            assert!(memory < 10_000 * most, "{memory} for steps of {step}");
        }
        let few: Numbers = (1..=8).map(ItemId).collect();
        assert_eq!(few.memory(), 0);
    }

    #[test]
    fn all_that_can_be_removed_from_a_row_is() {
        // Every pair of removals from every row of a few numbers with steps of one and of two bytes.
        for row in 1..=0b1111_u64 {
            let ids: Vec<u64> = (0..6)
                .map(|at| 1 + at * (if row >> at & 1 == 1 { 300 } else { 1 }))
                .collect();
            let ids: BTreeSet<u64> = ids.into_iter().collect();
            for &one in &ids {
                for &other in &ids {
                    let mut model = ids.clone();
                    let mut numbers: Numbers = ids.iter().copied().map(ItemId).collect();
                    assert!(numbers.remove(ItemId(one)));
                    model.remove(&one);
                    assert_eq!(numbers.remove(ItemId(other)), model.remove(&other));
                    same(&numbers, &model);
                    numbers.push(ItemId(5_000));
                    model.insert(5_000);
                    same(&numbers, &model);
                }
            }
        }
    }
}
