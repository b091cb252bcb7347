//! Where bytes lie between the socket and the caller.
//!
//! One block that is filled from its start, and from its start again once everything in it was given
//! back: a turn that reads little touches the same few cache lines each time, and a caller that
//! gives nothing back, because it has more work than it can hand on, is read no more than this for.

use super::super::completion::Received;

/// Bytes in all: they stay in the second-level cache, as the buffers of the ring do.
const ARENA: usize = 512 * 1024;

/// Bytes below which it is full: a read of less would cost more than it brings.
const LEAST: usize = 4 * 1024;

/// The block.
pub(super) struct Arena {
    memory: Box<[u8]>,
    filled: usize,
    /// How many pieces have not been given back.
    out: usize,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            memory: vec![0; ARENA].into_boxed_slice(),
            filled: 0,
            out: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        ARENA - self.filled >= LEAST
    }

    /// Where the next bytes go, at most `most` of them.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        let end = self.memory.len().min(self.filled + most);
        &mut self.memory[self.filled..end]
    }

    /// So many bytes are there now.
    pub(super) fn take(&mut self, length: usize) -> Received {
        let start = self.filled;
        self.filled += length;
        self.out += 1;
        assert!(self.filled <= ARENA, "more than there was room for");
        Received {
            group: 0,
            buffer: 0,
            start: u32::try_from(start).unwrap_or(0),
            length: u32::try_from(length).unwrap_or(0),
            last: true,
        }
    }

    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        let start = received.start as usize;
        &self.memory[start..start + received.length as usize]
    }

    pub(super) fn give_back(&mut self, received: Received) {
        let Received { .. } = received;
        self.out -= 1;
        if self.out == 0 {
            self.filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(arena: &mut Arena, bytes: &[u8]) -> Received {
        arena.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        arena.take(bytes.len())
    }

    #[test]
    fn pieces_lie_side_by_side_and_the_last_one_back_empties_it() {
        let mut arena = Arena::new();
        let first = put(&mut arena, b"first");
        let second = put(&mut arena, b"second");
        assert_eq!(arena.bytes(&first), b"first");
        assert_eq!(arena.bytes(&second), b"second");
        arena.give_back(first);
        assert_eq!(arena.bytes(&second), b"second");
        arena.give_back(second);
        assert_eq!(put(&mut arena, b"third").start, 0);
    }

    #[test]
    fn what_is_not_given_back_bounds_what_is_read() {
        let mut arena = Arena::new();
        let mut pieces = Vec::new();
        while arena.has_room() {
            let length = arena.room(64 * 1024).len();
            pieces.push(arena.take(length));
        }
        assert_eq!(pieces.len(), 8);
        for piece in pieces {
            arena.give_back(piece);
        }
        assert!(arena.has_room());
    }
}
