//! An allocator that counts, for tests of what is allocated. Counts per thread, so that tests that
//! run side by side do not disturb each other.

#![expect(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Calls of this thread that took memory.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// Bytes that this thread took and did not give back.
pub(crate) fn bytes_in_use() -> u64 {
    u64::try_from(IN_USE.get()).unwrap_or(0)
}

fn took(bytes: usize) {
    // During the end of a thread its counters may be gone already.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    let _ = IN_USE.try_with(|sum| sum.set(sum.get() + bytes as i64));
}

fn gave(bytes: usize) {
    let _ = IN_USE.try_with(|sum| sum.set(sum.get() - bytes as i64));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only plain cells of
// this thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises for `alloc` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: `memory` came from `System`, because `alloc` and `realloc` hand out nothing else.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        gave(layout.size());
        // SAFETY: as for `dealloc`; the caller vouches for `size`.
        unsafe { System.realloc(memory, layout, size) }
    }
}
