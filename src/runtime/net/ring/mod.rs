//! A ring of a shard's own: the requests that the driver makes, each with what keeps its memory
//! and file descriptor valid, and the completions.
//!
//! Only the thread that made a ring uses it (`SINGLE_ISSUER`), so the kernel touches our memory only
//! inside a system call of that thread: completions that became due meanwhile are posted by the next
//! `io_uring_enter` (`DEFER_TASKRUN`), or, before Linux 6.1, when some system call ends.
#![expect(
    unsafe_code,
    reason = "requests name memory and descriptors that must outlive them"
)]

mod buffers;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::completion::{Completion, Received, Wait};
use super::token::{Operation, Token};
use buffers::{BufferShape, Buffers};

/// Requests that are queued before the kernel must be entered.
const SUBMISSION_ENTRIES: u32 = 1024;

/// Completions that fit; more wait in the kernel's overflow list. Four for each request, since
/// multishot requests complete often.
const COMPLETION_ENTRIES: u32 = 4096;

/// Buffers for connections whose CONNECT is not complete, each about the size of one. They are apart
/// from the others so that no flood of established clients keeps a new one out, and not shared
/// between completions, because a single receive and a multishot one may complete in another order
/// than they took bytes from a shared buffer (Linux before 6.15).
const HANDSHAKE_BUFFERS: BufferShape = BufferShape {
    count: 256,
    size: 512,
    incremental: false,
};

/// Buffers for all others. 512 KiB stay in the second-level cache; more cycle cold memory (measured:
/// 1.13 to 1.43 times the time with 16 MiB).
const STREAM_BUFFERS: BufferShape = BufferShape {
    count: 8,
    size: 64 * 1024,
    incremental: true,
};

/// The same where a buffer serves one completion only: as many bytes, in more pieces.
const STREAM_BUFFERS_WHOLE: BufferShape = BufferShape {
    count: 128,
    size: 4096,
    incremental: false,
};

const HANDSHAKE_GROUP: u16 = 0;
const STREAM_GROUP: u16 = 1;

/// What the kernel can do beyond what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Completions are posted only when we ask for them (Linux 6.1).
    pub deferred: bool,
    /// Several completions share a provided buffer (Linux 6.12, in a safe order from 6.15).
    pub incremental: bool,
    /// A wait may gather events for a while (Linux 6.12).
    pub min_wait: bool,
}

/// An io_uring with the provided buffers of a shard.
pub(super) struct Ring {
    uring: IoUring,
    handshake: Buffers,
    stream: Buffers,
    capabilities: Capabilities,
    epoch: u64,
    settled: u64,
    alarm: Box<types::Timespec>,
}

impl Ring {
    /// A ring for the calling thread.
    pub(super) fn new(capabilities: Capabilities) -> io::Result<Self> {
        let uring = build(capabilities, SUBMISSION_ENTRIES, COMPLETION_ENTRIES)?;
        let handshake = Buffers::register(&uring, HANDSHAKE_GROUP, HANDSHAKE_BUFFERS)?;
        let shape = if capabilities.incremental {
            STREAM_BUFFERS
        } else {
            STREAM_BUFFERS_WHOLE
        };
        let stream = Buffers::register(&uring, STREAM_GROUP, shape)?;
        // Saves the look-up of the descriptor at each enter; without it everything works.
        let _ = uring.submitter().register_ring_fd();
        Ok(Self {
            uring,
            handshake,
            stream,
            capabilities,
            epoch: 0,
            settled: 0,
            alarm: Box::new(types::Timespec::new()),
        })
    }

    /// The descriptor by which other shards wake this one.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    // Requests.

    /// Accepts connections until told otherwise.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(token.user_data());
        // SAFETY: names no memory. The driver keeps the listener open until this has ended.
        unsafe { self.push(&entry) };
    }

    /// Receives once, into a buffer of the handshake.
    pub(super) fn receive_once(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let entry = opcode::Recv::new(
            types::Fd(socket.as_raw_fd()),
            std::ptr::null_mut(),
            HANDSHAKE_BUFFERS.size,
        )
        .buf_group(HANDSHAKE_GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
        .user_data(token.user_data());
        // SAFETY: the kernel picks the memory from a group that is registered until `drop`.
        unsafe { self.push(&entry) };
    }

    /// Receives until told otherwise.
    pub(super) fn receive_many(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let entry = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), STREAM_GROUP)
            .build()
            .user_data(token.user_data());
        // SAFETY: the kernel picks the memory from a group that is registered until `drop`.
        unsafe { self.push(&entry) };
    }

    /// Ends the request that has `token`, which says so in a last completion.
    pub(super) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.user_data())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::plain(Operation::Ignored).user_data());
        // SAFETY: names no memory and no descriptor.
        unsafe { self.push(&entry) };
    }

    /// Tells whenever `bell`, an eventfd, is rung.
    pub(super) fn watch(&mut self, bell: BorrowedFd<'_>, token: Token) {
        let events = u32::try_from(libc::POLLIN).unwrap_or(1);
        let entry = opcode::PollAdd::new(types::Fd(bell.as_raw_fd()), events)
            .multi(true)
            .build()
            .user_data(token.user_data());
        // SAFETY: names no memory. The driver keeps the eventfd open as long as the ring.
        unsafe { self.push(&entry) };
    }

    /// Posts a completion to the ring of another shard. If that ring is gone, nothing happens: the
    /// kernel refuses a descriptor that is no ring.
    pub(super) fn wake(&mut self, ring: RawFd) {
        let wake = Token::plain(Operation::Wake).user_data();
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, wake, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::plain(Operation::Ignored).user_data());
        // SAFETY: names no memory.
        unsafe { self.push(&entry) };
    }

    /// Posts a completion after `delay`.
    pub(super) fn set_alarm(&mut self, delay: Duration) {
        *self.alarm = types::Timespec::from(delay);
        let entry = opcode::Timeout::new(&raw const *self.alarm)
            .build()
            .user_data(Token::plain(Operation::Alarm).user_data());
        // SAFETY: the kernel reads the time when it takes the request in (`SUBMIT_STABLE`, Linux
        // 5.5); the box lives as long as the ring.
        unsafe { self.push(&entry) };
    }

    /// Sends `bytes` if the socket takes all of them without waiting, in silence. Anything else
    /// posts a completion.
    ///
    /// # Safety
    ///
    /// `bytes` must stay as they are until that completion, or until [`Ring::settled`] is above the
    /// [`Ring::epoch`] of now.
    pub(super) unsafe fn try_send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8], token: Token) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = send(socket, bytes, flags, token).flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the caller's promise.
        unsafe { self.push(&entry) };
    }

    /// Sends `bytes`, waiting in the kernel until the socket takes them, and posts a completion.
    ///
    /// # Safety
    ///
    /// `bytes` must stay as they are until that completion.
    pub(super) unsafe fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8], token: Token) {
        let entry = send(socket, bytes, libc::MSG_WAITALL | libc::MSG_NOSIGNAL, token);
        // SAFETY: the caller's promise.
        unsafe { self.push(&entry) };
    }

    /// # Safety
    ///
    /// What `entry` names must stay valid until its completion, or for one that completes in
    /// silence until [`Ring::settled`] is above the epoch of the push.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    // Entering the kernel.

    /// Hands over all requests, without waiting.
    pub(super) fn submit(&mut self) {
        let result = self.uring.submit();
        self.entered(result);
    }

    /// Hands over all requests and waits.
    pub(super) fn submit_and_wait(&mut self, wait: Wait) {
        let timeout = types::Timespec::from(wait.timeout);
        let mut arguments = types::SubmitArgs::new().timespec(&timeout);
        let mut events = wait.events;
        if wait.gather_us > 0 && self.capabilities.min_wait {
            arguments = arguments.min_wait_usec(wait.gather_us);
        } else {
            events = events.min(1);
        }
        let result = self
            .uring
            .submitter()
            .submit_with_args(events as usize, &arguments);
        self.entered(result);
    }

    fn entered(&mut self, result: io::Result<usize>) {
        if let Err(error) = result {
            match error.raw_os_error() {
                // Interrupted, timed out, or short of memory for now: what was not taken stays queued.
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => {}
                _ => panic!(
                    "io_uring_enter failed in a way that no request of ours can cause: {error}"
                ),
            }
        }
        if self.uring.submission().is_empty() {
            self.epoch += 1;
        }
    }

    /// Which submission a request that is pushed now will be part of.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Submissions below this number have been made, and all their completions were seen.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// The kernel says in memory that there are some.
    pub(super) fn look(&mut self) -> bool {
        self.has_completions()
    }

    /// Whether completions wait, or would if the kernel were entered.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    /// Moves all completions there are to `into`.
    pub(super) fn drain(&mut self, into: &mut Vec<Completion>) {
        let epoch = self.epoch;
        loop {
            let mut queue = self.uring.completion();
            queue.sync();
            for entry in &mut queue {
                into.push(completion(&entry, &mut self.handshake, &mut self.stream));
            }
            drop(queue);
            if !self.uring.submission().cq_overflow() {
                break;
            }
            // The queue was full: this moves the rest into it.
            let result = self.uring.submit();
            if result.is_ok() && self.uring.submission().is_empty() {
                self.epoch += 1;
            }
        }
        self.settled = epoch;
    }

    // Bytes.

    /// What arrived.
    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        if received.group() == HANDSHAKE_GROUP {
            self.handshake.bytes(received)
        } else {
            self.stream.bytes(received)
        }
    }

    /// What arrived was used.
    pub(super) fn give_back(&mut self, received: Received) {
        if received.group() == HANDSHAKE_GROUP {
            self.handshake.give_back(received);
        } else {
            self.stream.give_back(received);
        }
    }

    // The eventfd that tells of completions while the thread waits elsewhere.

    /// Registers `eventfd`, switched off.
    pub(super) fn register_notifier(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.uring.completion().disable_eventfd();
        self.uring.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    /// Switches the notifier on or off.
    pub(super) fn notify(&mut self, on: bool) {
        let queue = self.uring.completion();
        if on {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }
}

impl Drop for Ring {
    /// Ends every request, so that the kernel has no use for the buffers any more, and frees them.
    fn drop(&mut self) {
        let submitter = self.uring.submitter();
        let _ = submitter.register_sync_cancel(
            Some(types::Timespec::new().sec(1)),
            types::CancelBuilder::any(),
        );
        self.handshake.unregister(&self.uring);
        self.stream.unregister(&self.uring);
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ring")
            .field("fd", &self.raw_fd())
            .finish_non_exhaustive()
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], flags: i32, token: Token) -> squeue::Entry {
    debug_assert_eq!(token.operation(), Operation::Send);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length)
        .flags(flags)
        .build()
        .user_data(token.user_data())
}

fn completion(entry: &cqueue::Entry, handshake: &mut Buffers, stream: &mut Buffers) -> Completion {
    let token = Token::from_user_data(entry.user_data());
    let received = match token.operation() {
        Operation::ReceiveOnce => handshake.take(entry.flags(), entry.result()),
        Operation::ReceiveMany => stream.take(entry.flags(), entry.result()),
        _ => None,
    };
    Completion {
        token,
        result: entry.result(),
        more: cqueue::more(entry.flags()),
        received,
    }
}

/// Sets a ring up as the driver uses it.
pub(in crate::runtime::net) fn build(
    capabilities: Capabilities,
    submissions: u32,
    completions: u32,
) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_taskrun_flag();
    if capabilities.deferred {
        builder.setup_single_issuer().setup_defer_taskrun();
    } else {
        builder.setup_coop_taskrun();
    }
    builder.build(submissions)
}
