//! What comes back: the end of a request, the bytes it brought, and how long to wait for one.
#![expect(unsafe_code, reason = "an accepted descriptor comes as a number")]

use std::os::fd::{FromRawFd, OwnedFd};

use super::token::{Operation, Token};

/// The end of a request, or one of the ends of one that goes on. Not `Clone`: it owns what it brings.
#[derive(Debug)]
pub struct Completion {
    /// Which request.
    pub token: Token,
    /// As the system call would have returned it, errors as negative numbers.
    pub result: i32,
    /// Whether the request goes on.
    pub more: bool,
    /// Bytes that arrived.
    pub received: Option<Received>,
}

impl Completion {
    /// The connection that was accepted.
    pub fn accepted(self) -> Result<OwnedFd, i32> {
        if self.token.operation() != Operation::Accept || self.result < 0 {
            return Err(-self.result);
        }
        // SAFETY: an accept that succeeded has opened this descriptor for whoever has the
        // completion; that is us alone, and `self` is consumed.
        Ok(unsafe { OwnedFd::from_raw_fd(self.result) })
    }
}

/// Bytes that arrived, lying in a buffer. Not `Clone`: whoever has it gives it back once.
#[derive(Debug)]
#[must_use = "the buffer cannot be used again unless it is given back"]
pub struct Received {
    pub(super) group: u16,
    pub(super) buffer: u16,
    pub(super) start: u32,
    pub(super) length: u32,
    /// Whether no other completion shares the buffer from here on.
    pub(super) last: bool,
}

impl Received {
    pub(super) fn group(&self) -> u16 {
        self.group
    }
}

/// How a wait may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Completions to wait for.
    pub events: u32,
    /// Microseconds to wait for more than one of them.
    pub gather_us: u32,
    /// When to give up on all of them.
    pub timeout: std::time::Duration,
}
