//! The net driver: what a shard asks of the network, and the completions that it gets back.
//!
//! Used by the broker and by the load generator alike, so it knows nothing of either: it accepts,
//! receives, sends and waits, and names what it did it for by a [`Token`].
//!
//! Two backends with one surface. `ring` is a ring of io_uring; `poll` is epoll with plain system
//! calls, for where io_uring is not to be had. The surface has the shape of the ring, requests and
//! completions, because that shape can be made from readiness and not the other way round. What is the
//! same for the caller: a request ends in exactly one completion without `more`; a descriptor may be
//! closed once nothing that was asked for it is left; bytes lie in buffers of which there is a bounded
//! number, so that a caller who gives none back is sent no more, and neither are its peers heard.
//!
//! A slot of a [`Token`] stands for one socket. If it gets another one it must get another generation.

mod choice;
mod completion;
mod gather;
mod output;
mod poll;
mod probe;
mod ring;
mod token;

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

pub use crate::config::Driver;
pub use choice::{Chosen, choose};
pub use completion::{Completion, Received, Wait};
pub use gather::{Gather, Plan};
pub use output::{Output, Sent};
pub use probe::probe;
pub use ring::Capabilities;
pub use token::{Operation, Token};

use poll::Poll;
use ring::Ring;

/// One thread's net driver: the thread that made it uses it, no other.
#[derive(Debug)]
pub struct Net(Backend);

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each thread, and each message goes through it"
)]
enum Backend {
    Ring(Ring),
    Poll(Poll),
}

/// Calls the method of whichever backend it is.
macro_rules! dispatch {
    ($net:ident.$method:ident($($argument:expr),*)) => {
        match &mut $net.0 {
            Backend::Ring(ring) => ring.$method($($argument),*),
            Backend::Poll(poll) => poll.$method($($argument),*),
        }
    };
}

impl Net {
    /// A net driver for the calling thread, of the kind that was chosen for the process.
    pub fn open(chosen: &Chosen) -> io::Result<Self> {
        match chosen.capabilities() {
            Some(capabilities) => Self::new(capabilities),
            None => Poll::new().map(|poll| Self(Backend::Poll(poll))),
        }
    }

    /// The same on io_uring, with what a kernel was found to be capable of.
    pub fn new(capabilities: Capabilities) -> io::Result<Self> {
        Ring::new(capabilities).map(|ring| Self(Backend::Ring(ring)))
    }

    /// `io_uring` or `epoll`.
    #[must_use]
    pub fn driver_name(&self) -> &'static str {
        match self.0 {
            Backend::Ring(_) => choice::IO_URING,
            Backend::Poll(_) => choice::EPOLL,
        }
    }

    /// What other threads give to [`Net::wake`].
    pub fn raw_fd(&self) -> RawFd {
        match &self.0 {
            Backend::Ring(ring) => ring.raw_fd(),
            Backend::Poll(poll) => poll.raw_fd(),
        }
    }

    // Requests.

    /// Accepts connections until told otherwise.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        dispatch!(self.accept(listener, token));
    }

    /// Receives once, a little: the handshake of a connection that may yet move to another thread.
    pub fn receive_once(&mut self, socket: BorrowedFd<'_>, token: Token) {
        dispatch!(self.receive_once(socket, token));
    }

    /// Receives until told otherwise.
    pub fn receive_many(&mut self, socket: BorrowedFd<'_>, token: Token) {
        dispatch!(self.receive_many(socket, token));
    }

    /// Ends the request that has `token`, which says so in a last completion.
    pub fn cancel(&mut self, token: Token) {
        dispatch!(self.cancel(token));
    }

    /// A socket of which nothing is in flight leaves this thread without being closed.
    pub fn release(&mut self, socket: BorrowedFd<'_>, token: Token) {
        match &mut self.0 {
            Backend::Ring(_) => {}
            Backend::Poll(poll) => poll.release(socket, token),
        }
    }

    /// Tells whenever `bell`, an eventfd, is rung.
    pub fn watch(&mut self, bell: BorrowedFd<'_>, token: Token) {
        dispatch!(self.watch(bell, token));
    }

    /// Posts a completion to the net driver of another thread, known by its [`Net::raw_fd`]. If that
    /// is gone, nothing happens.
    pub fn wake(&mut self, other: RawFd) {
        dispatch!(self.wake(other));
    }

    /// Posts a completion after `delay`.
    pub fn set_alarm(&mut self, delay: Duration) {
        dispatch!(self.set_alarm(delay));
    }

    // Entering the kernel.

    /// Hands over all requests, without waiting.
    pub fn submit(&mut self) {
        dispatch!(self.submit());
    }

    /// Hands over all requests and waits.
    pub fn submit_and_wait(&mut self, wait: Wait) {
        dispatch!(self.submit_and_wait(wait));
    }

    /// Looks for completions, without waiting and as cheaply as can be.
    pub fn look(&mut self) -> bool {
        dispatch!(self.look())
    }

    /// Whether completions wait, or would if the kernel were entered.
    pub fn has_completions(&mut self) -> bool {
        dispatch!(self.has_completions())
    }

    /// Moves all completions there are to `into`.
    pub fn drain(&mut self, into: &mut Vec<Completion>) {
        dispatch!(self.drain(into));
    }

    // Bytes.

    /// What arrived.
    pub fn bytes(&self, received: &Received) -> &[u8] {
        match &self.0 {
            Backend::Ring(ring) => ring.bytes(received),
            Backend::Poll(poll) => poll.bytes(received),
        }
    }

    /// What arrived was used.
    pub fn give_back(&mut self, received: Received) {
        dispatch!(self.give_back(received));
    }

    // The eventfd that tells of completions while the thread waits elsewhere.

    /// Registers `eventfd`, switched off.
    ///
    /// # Errors
    ///
    /// With epoll, which needs no such thing: its thread waits nowhere else.
    pub fn register_notifier(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.0 {
            Backend::Ring(ring) => ring.register_notifier(eventfd),
            Backend::Poll(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Switches the notifier on or off.
    pub fn notify(&mut self, on: bool) {
        match &mut self.0 {
            Backend::Ring(ring) => ring.notify(on),
            Backend::Poll(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
