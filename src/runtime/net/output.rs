//! The bytes of one connection that are being sent.
//!
//! io_uring: a first try goes out with `MSG_DONTWAIT` and without a completion on success. Such a
//! send is carried out inside the `io_uring_enter` that submits it, since it may neither wait nor move
//! to a worker; if it does not send everything, its completion is in the queue when that call returns.
//! So once the call has returned and the queue (its overflow list included) was emptied, a send
//! without a completion is done. [`Ring::settled`](super::ring::Ring::settled) counts exactly that. A
//! send that did not take everything is sent on as a plain one that waits in the kernel until the
//! socket takes the rest. The bytes cannot be reached from outside while the kernel may read them, and
//! if an [`Output`] is dropped at such a time, they are leaked.
//!
//! epoll: a try is a system call that is over when it returns; what it did not take waits here until
//! the socket is writable, which a completion tells. Nobody but us ever has a pointer to the bytes.
#![expect(
    unsafe_code,
    reason = "the kernel reads the bytes after the call that names them"
)]

use std::os::fd::BorrowedFd;

use super::completion::Completion;
use super::poll::Rest;
use super::token::{Operation, Token};
use super::{Backend, Net};

/// What a connection is sending.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody knows of the bytes.
    #[default]
    Idle,
    /// io_uring: a try without waiting, queued while the ring's epoch was this.
    Quiet(u64),
    /// io_uring: a send that waits in the kernel.
    Waiting,
    /// epoll: everything left, and [`Output::settle`] has not said so.
    Left,
    /// epoll: a completion that says how it went is on its way.
    Answered,
    /// epoll: a completion is to say that the socket is writable.
    Blocked,
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

    /// Whether an end is to come.
    pub fn is_in_flight(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether the send waits for the socket.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting | State::Blocked)
    }

    /// Bytes that have not left.
    pub fn unsent(&self) -> usize {
        self.bytes.len() - self.sent as usize
    }

    /// Sends `bytes`, which replace what was there: nothing.
    pub fn send(&mut self, bytes: Vec<u8>, net: &mut Net, socket: BorrowedFd<'_>, token: Token) {
        assert!(self.is_idle(), "one send at a time");
        debug_assert_eq!(token.operation(), Operation::Send);
        self.bytes = bytes;
        self.sent = 0;
        match &mut net.0 {
            Backend::Ring(ring) => {
                self.state = State::Quiet(ring.epoch());
                // SAFETY: the heap block of `self.bytes` is neither changed nor freed before `state`
                // is Idle again: every method that touches it asserts that, and `drop` leaks it
                // otherwise. The epoch was read before the request was queued, so a submission that
                // makes room for it is counted as an earlier one.
                unsafe { ring.try_send(socket, &self.bytes, token) };
            }
            Backend::Poll(poll) => {
                self.state = if poll.try_send(socket, &self.bytes, token) {
                    State::Left
                } else {
                    State::Answered
                };
            }
        }
    }

    /// Sends what is left, as soon as the socket takes it.
    pub fn send_rest(&mut self, net: &mut Net, socket: BorrowedFd<'_>, token: Token) {
        assert!(self.state == State::Idle && self.unsent() > 0);
        debug_assert_eq!(token.operation(), Operation::Send);
        let rest = self.bytes.get(self.sent as usize..).unwrap_or_default();
        match &mut net.0 {
            Backend::Ring(ring) => {
                // SAFETY: as in `send`; `state` leaves Waiting only with this request's completion,
                // the only one it has.
                unsafe { ring.send(socket, rest, token) };
                self.state = State::Waiting;
            }
            Backend::Poll(poll) => match poll.send_rest(socket, rest, token) {
                Rest::Answered => self.state = State::Answered,
                Rest::Blocked(count) => {
                    self.sent += count;
                    self.state = State::Blocked;
                }
            },
        }
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

    /// Whether a first try was carried out whole, which no completion tells.
    pub fn settle(&mut self, net: &Net) -> bool {
        let done = match (self.state, &net.0) {
            (State::Quiet(epoch), Backend::Ring(ring)) => ring.settled() > epoch,
            (State::Left, _) => true,
            _ => false,
        };
        if done {
            self.state = State::Idle;
            self.sent = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        }
        done
    }

    /// Takes the buffer out, emptied, to be used again.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        assert!(!self.is_in_flight(), "it is being sent");
        self.sent = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if matches!(self.state, State::Quiet(_) | State::Waiting) {
            std::mem::take(&mut self.bytes).leak();
        }
    }
}
