//! The one hint that safe code cannot give: that memory will be read soon.
//!
//! A walk among a million filters reads some ten places that are not in any cache. One after the
//! other they cost most of its time; asked for together they cost little more than one of them.

#![expect(unsafe_code, reason = "the instruction is not offered in a safe form")]

/// Asks for the cache line where `place` starts, and waits for nothing.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing that a program can see and never faults,
        // whatever the address, and this one comes from a reference. Every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
