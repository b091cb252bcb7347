//! A ring of provided buffers: the kernel picks one when bytes arrive, so a connection that says
//! nothing holds none.
//!
//! Each buffer is in one of two places: with the kernel, between [`Buffers::provide`] and the
//! completion that carries its number without `BUF_MORE`, or with us, until it is provided again.
//! With incremental consumption a buffer is filled by several completions one behind the other; the
//! bytes of each belong to us at once, and the buffer is provided again behind the last of them.
//! The kernel tells no offsets, so they are counted in the order of the completion queue.
#![expect(unsafe_code, reason = "the memory is shared with the kernel")]

use std::alloc::Layout;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

use super::super::completion::Received;

/// The kernel's flag for incremental consumption, since Linux 6.12.
const INCREMENTAL: u16 = 2;

/// How many buffers of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferShape {
    /// How many, a power of two.
    pub count: u16,
    /// Bytes of each.
    pub size: u32,
    /// Whether several completions may share one.
    pub incremental: bool,
}

/// Provided buffers of one group, registered with one ring.
#[derive(Debug)]
pub(super) struct Buffers {
    group: u16,
    shape: BufferShape,
    /// The descriptors (16 bytes each, page aligned), and behind them the buffers.
    memory: NonNull<u8>,
    layout: Layout,
    /// Bytes from the start of `memory` to the first buffer.
    first: usize,
    tail: u16,
    /// Where in each buffer the next bytes will be.
    consumed: Box<[u32]>,
}

impl Buffers {
    /// Makes the buffers, registers them as `group` and provides all of them.
    pub(super) fn register(uring: &IoUring, group: u16, shape: BufferShape) -> io::Result<Self> {
        assert!(shape.count.is_power_of_two());
        const PAGE: usize = 4096;
        let descriptors = usize::from(shape.count) * size_of::<BufRingEntry>();
        let first = descriptors.next_multiple_of(PAGE);
        let layout =
            Layout::from_size_align(first + usize::from(shape.count) * shape.size as usize, PAGE)
                .map_err(io::Error::other)?;
        // SAFETY: the layout is not empty, `count` is at least 1.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        };
        let consumed = vec![0; usize::from(shape.count)].into_boxed_slice();
        let mut buffers = Self {
            group,
            shape,
            memory,
            layout,
            first,
            tail: 0,
            consumed,
        };
        let flags = if shape.incremental { INCREMENTAL } else { 0 };
        let address = memory.as_ptr() as u64;
        // SAFETY: `address` is page aligned and has room for `count` descriptors; the memory stays
        // until `unregister` has returned Ok (`Buffers` frees it nowhere else).
        let registered = unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(address, shape.count, group, flags)
        };
        if let Err(error) = registered {
            buffers.free();
            return Err(error);
        }
        for buffer in 0..shape.count {
            buffers.provide(buffer);
        }
        Ok(buffers)
    }

    /// Ends the registration and frees the memory. If the kernel refuses, the memory is left to it.
    pub(super) fn unregister(&mut self, uring: &IoUring) {
        if uring.submitter().unregister_buf_ring(self.group).is_ok() {
            self.free();
        }
    }

    fn free(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `register` with this layout, which is emptied below so that
            // this happens once. The kernel does not have it: it never had, or gave it back.
            unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
            self.layout = Layout::new::<()>();
        }
    }

    /// What the flags and the length of a completion say. Must be called in the order of the
    /// completion queue, once for each completion.
    pub(super) fn take(&mut self, flags: u32, result: i32) -> Option<Received> {
        let buffer = cqueue::buffer_select(flags)?;
        let length = u32::try_from(result).unwrap_or(0);
        let consumed = &mut self.consumed[usize::from(buffer)];
        let start = *consumed;
        assert!(
            length <= self.shape.size - start,
            "the kernel filled more than a buffer"
        );
        let last = !(self.shape.incremental && cqueue::buffer_more(flags));
        *consumed = if last { 0 } else { start + length };
        Some(Received {
            group: self.group,
            buffer,
            start,
            length,
            last,
        })
    }

    /// The bytes.
    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        let offset = self.offset(received.buffer) + received.start as usize;
        // SAFETY: `take` checked that the buffer is one of ours, and start and length inside it, so
        // `offset` is inside the allocation.
        let start = unsafe { self.memory.as_ptr().add(offset) };
        // SAFETY: `length` bytes from `start` on are inside the allocation, as above, and
        // initialised: zeroed or written by the kernel. The kernel writes there no more: it fills
        // a buffer only forward, and gets this one back in `give_back`, which consumes `received`.
        unsafe { std::slice::from_raw_parts(start, received.length as usize) }
    }

    /// The bytes were used.
    pub(super) fn give_back(&mut self, received: Received) {
        if received.last {
            self.provide(received.buffer);
        }
    }

    fn offset(&self, buffer: u16) -> usize {
        self.first + usize::from(buffer) * self.shape.size as usize
    }

    /// Hands a buffer that the kernel does not have to it.
    fn provide(&mut self, buffer: u16) {
        let offset = self.offset(buffer);
        let position = usize::from(self.tail & (self.shape.count - 1));
        let descriptors = self.memory.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `position` is below `count`, so the descriptor is inside the allocation, and it
        // is aligned because the allocation is.
        let descriptor = unsafe { descriptors.add(position) };
        // SAFETY: the kernel reads descriptors from its head up to the tail only; there are never
        // more than `count` buffers out, so the one at the tail is not among them. No other
        // reference to it exists. The fields written leave the tail, which shares the first
        // descriptor's reserved field, alone.
        let descriptor = unsafe { &mut *descriptor };
        // SAFETY: inside the allocation, see `offset`.
        descriptor.set_addr(unsafe { self.memory.as_ptr().add(offset) } as u64);
        descriptor.set_len(self.shape.size);
        descriptor.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `descriptors` is the start of the ring that `register` laid out.
        let tail = unsafe { BufRingEntry::tail(descriptors) }.cast::<AtomicU16>();
        // SAFETY: the field is two bytes, aligned to two, lives as long as `self`, and the kernel,
        // the only other party, reads it atomically.
        let tail = unsafe { &*tail };
        tail.store(self.tail, Ordering::Release);
    }
}
