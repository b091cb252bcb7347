//! The bytes of one connection that the kernel is sending.
//!
//! A first try goes out with `MSG_DONTWAIT` and without a completion on success. Such a send is
//! carried out inside the `io_uring_enter` that submits it, since it may neither wait nor move to a
//! worker; if it does not send everything, its completion is in the queue when that call returns.
//! So once the call has returned and the queue (its overflow list included) was emptied, a send
//! without a completion is done. [`Ring::settled`] counts exactly that. A send that did not take
//! everything is sent on as a plain one that waits in the kernel until the socket takes the rest.
//!
//! The bytes cannot be reached from outside while the kernel may read them, and if an [`Output`] is
//! dropped at such a time, they are leaked.
#![expect(
    unsafe_code,
    reason = "the kernel reads the bytes after the call that names them"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{opcode, squeue, types};

use super::{Completion, Operation, Ring, Token};

/// What a connection is sending.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The kernel does not know of the bytes.
    #[default]
    Idle,
    /// A try without waiting, queued while [`Ring::epoch`] was this.
    Quiet(u64),
    /// A send that waits in the kernel.
    Waiting,
}

/// What the end of a send means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Everything left.
    All,
    /// Some of it is left: call [`Output::send_rest`].
    Part,
    /// The socket is broken.
    Failed(i32),
}

impl Output {
    /// Whether there is nothing to send and nothing in flight.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle && self.bytes.is_empty()
    }

    /// Whether the kernel may be reading the bytes.
    pub fn is_in_flight(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether a send waits in the kernel for the socket.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Bytes that have not left.
    pub fn unsent(&self) -> usize {
        self.bytes.len() - self.sent as usize
    }

    /// Sends `bytes`, which replace what was there: nothing.
    pub fn send(&mut self, bytes: Vec<u8>, ring: &mut Ring, socket: BorrowedFd<'_>, token: Token) {
        assert!(self.is_idle(), "one send at a time");
        self.bytes = bytes;
        self.sent = 0;
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = self
            .entry(socket, flags, token)
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.state = State::Quiet(ring.epoch());
        // SAFETY: the pointer in `entry` is to the heap block of `self.bytes`, which is neither
        // changed nor freed before `state` is Idle again: every method that touches it asserts
        // that, and `drop` leaks it otherwise. The epoch was read before the push, so a submission
        // that the push itself makes room with is counted as an earlier one.
        unsafe { ring.push(&entry) };
    }

    /// Sends what is left, waiting in the kernel until the socket takes it.
    pub fn send_rest(&mut self, ring: &mut Ring, socket: BorrowedFd<'_>, token: Token) {
        assert!(self.state == State::Idle && self.unsent() > 0);
        let entry = self.entry(socket, libc::MSG_WAITALL | libc::MSG_NOSIGNAL, token);
        self.state = State::Waiting;
        // SAFETY: as in `send`; `state` leaves Waiting only with this request's completion, the
        // only one it has.
        unsafe { ring.push(&entry) };
    }

    fn entry(&self, socket: BorrowedFd<'_>, flags: i32, token: Token) -> squeue::Entry {
        debug_assert_eq!(token.operation(), Operation::Send);
        let rest = self.bytes.get(self.sent as usize..).unwrap_or_default();
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        opcode::Send::new(types::Fd(socket.as_raw_fd()), rest.as_ptr(), length)
            .flags(flags)
            .build()
            .user_data(token.user_data())
    }

    /// Takes in the completion of the send that is in flight: the one whose token was given to it.
    pub fn complete(&mut self, completion: &Completion) -> Sent {
        assert!(self.is_in_flight());
        debug_assert_eq!(completion.token.operation(), Operation::Send);
        self.state = State::Idle;
        match u32::try_from(completion.result) {
            Ok(count) => {
                self.sent = self.sent.saturating_add(count);
                if self.unsent() == 0 {
                    Sent::All
                } else {
                    Sent::Part
                }
            }
            Err(_) => match -completion.result {
                libc::EAGAIN | libc::EINTR => Sent::Part,
                errno => Sent::Failed(errno),
            },
        }
    }

    /// Whether a first try was carried out whole, as the silence of the kernel tells.
    pub fn settle(&mut self, ring: &Ring) -> bool {
        let done = matches!(self.state, State::Quiet(epoch) if ring.settled() > epoch);
        if done {
            self.state = State::Idle;
            self.sent = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        }
        done
    }

    /// Takes the buffer out, emptied, to be used again.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        assert!(!self.is_in_flight(), "the kernel reads it");
        self.sent = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_in_flight() {
            std::mem::take(&mut self.bytes).leak();
        }
    }
}
