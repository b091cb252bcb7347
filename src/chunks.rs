//! A table of slots that grows without moving what is in it.
//!
//! A vector that doubles copies all its elements at once: with a million connections that stops a
//! shard for tens of milliseconds, and the memory it leaves behind is in the way of nobody but the
//! operator who counts it. Here growing adds a chunk. The first one grows as it is used, so that a
//! small broker stays small.

/// Slots of a chunk; a power of two.
const CHUNK: usize = 1024;

/// Slots, found by number.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.len(),
            None => 0,
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    /// Appends a slot and returns its number.
    pub(crate) fn push(&mut self, slot: T) -> usize {
        let index = self.len();
        if index.is_multiple_of(CHUNK) {
            let capacity = if index == 0 { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(slot);
        }
        index
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }
}

impl<T: Default> Chunks<T> {
    /// The slot of this number, made with all before it if it is not there.
    #[inline]
    pub(crate) fn get_or_grow(&mut self, index: usize) -> &mut T {
        if self.get(index).is_none() {
            self.grow(index);
        }
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    #[cold]
    fn grow(&mut self, index: usize) {
        while self.len() <= index {
            self.push(T::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stay_where_they_are() {
        let mut slots = Chunks::default();
        assert_eq!((slots.len(), slots.get(0)), (0, None));
        for number in 0..CHUNK {
            assert_eq!(slots.push(number), number);
        }
        let first: *const usize = slots.get(0).unwrap();
        *slots.get_or_grow(3 * CHUNK) = 7;
        assert_eq!(slots.len(), 3 * CHUNK + 1);
        assert!(std::ptr::eq(first, slots.get(0).unwrap()));
        *slots.get_mut(CHUNK).unwrap() = 5;
        assert_eq!(slots.get(CHUNK), Some(&5));
        assert_eq!(slots.get(3 * CHUNK + 1), None);
        let sum: usize = slots.iter().sum();
        assert_eq!(sum, CHUNK * (CHUNK - 1) / 2 + 5 + 7);
    }
}
