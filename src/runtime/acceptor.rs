//! Taking connections in, and what happens when the operating system has no room for one more.
//!
//! Out of descriptors, an accept fails at once and the connection stays in the backlog: to ask again
//! would spin, not to ask would leave the client waiting for its own timeout. So one descriptor is kept
//! in reserve; it is given up to take the waiting clients out of the backlog and close them, so that
//! they know, and then accepting pauses for a moment.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use crate::limits::{ACCEPT_PAUSE_MS, ACCEPT_REFUSALS};
use crate::time::Time;

use super::net::{Completion, Net, Operation, Token};

/// What an accept brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection on this `[[listener]]`.
    Socket(u16, OwnedFd),
    /// This client is gone already, or we are stopping: nothing to tell.
    Nothing,
    /// No room, with the error number; so many clients were sent away.
    NoRoom(i32, usize),
}

#[derive(Debug)]
struct Listening {
    /// Which `[[listener]]` it belongs to, which may have several.
    listener: u16,
    /// `None` once the broker stops.
    socket: Option<OwnedFd>,
    armed: bool,
}

/// The listening sockets of a shard.
#[derive(Debug)]
pub(super) struct Acceptor {
    listening: Vec<Listening>,
    reserve: Option<File>,
    paused_until: Option<Time>,
    stopping: bool,
}

impl Acceptor {
    /// Over these sockets, each with the number of its `[[listener]]`.
    pub(super) fn new(sockets: Vec<(u16, OwnedFd)>) -> Self {
        let listening = sockets
            .into_iter()
            .map(|(listener, socket)| Listening {
                listener,
                socket: Some(socket),
                armed: false,
            })
            .collect();
        Self {
            listening,
            reserve: reserve(),
            paused_until: None,
            stopping: false,
        }
    }

    /// Asks for connections wherever that is not done already.
    fn arm(&mut self, ring: &mut Net) {
        for (index, listening) in (0..).zip(&mut self.listening) {
            if let Some(socket) = &listening.socket
                && !listening.armed
            {
                ring.accept(socket.as_fd(), Token::new(Operation::Accept, index, 0));
                listening.armed = true;
            }
        }
    }

    /// Takes in what came of an accept.
    pub(super) fn complete(&mut self, completion: Completion, now: Time) -> Accepted {
        let index = completion.token.index();
        let Some(listening) = self.listening.get_mut(index as usize) else {
            return Accepted::Nothing;
        };
        let listener = listening.listener;
        listening.armed = completion.more;
        if self.stopping && !listening.armed {
            listening.socket = None;
        }
        match completion.accepted() {
            Ok(_) if self.stopping => Accepted::Nothing,
            Ok(socket) => Accepted::Socket(listener, socket),
            Err(_) if self.stopping => Accepted::Nothing,
            // The client is gone, its network failed, or a firewall refused it: see accept(2).
            Err(
                libc::ECONNABORTED
                | libc::ECANCELED
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP,
            ) => Accepted::Nothing,
            Err(errno) => {
                self.paused_until = Some(now.plus_millis(ACCEPT_PAUSE_MS));
                let lacks_descriptors = matches!(errno, libc::EMFILE | libc::ENFILE);
                let refused = if lacks_descriptors {
                    self.refuse(index as usize)
                } else {
                    0
                };
                Accepted::NoRoom(errno, refused)
            }
        }
    }

    /// Takes clients out of the backlog and closes them.
    fn refuse(&mut self, index: usize) -> usize {
        let Some(socket) = self
            .listening
            .get(index)
            .and_then(|listening| listening.socket.as_ref())
        else {
            return 0;
        };
        self.reserve = None;
        let listener = SockRef::from(socket);
        let mut refused = 0;
        // io_uring must see a listener that blocks, or it would not wait for clients; epoll one that
        // does not.
        let blocks = !listener.nonblocking().unwrap_or(false);
        if listener.set_nonblocking(true).is_ok() {
            while refused < ACCEPT_REFUSALS && listener.accept().is_ok() {
                refused += 1;
            }
        }
        let _ = listener.set_nonblocking(!blocks);
        self.reserve = reserve();
        refused
    }

    /// When accepting goes on.
    pub(super) fn deadline(&self) -> Time {
        self.paused_until.unwrap_or(Time::NEVER)
    }

    /// Goes on accepting if a pause is over. Returns when to come back.
    pub(super) fn resume(&mut self, now: Time, ring: &mut Net) {
        match self.paused_until {
            Some(until) if now < until => {}
            _ => {
                self.paused_until = None;
                if self.reserve.is_none() {
                    self.reserve = reserve();
                }
                self.arm(ring);
            }
        }
    }

    /// Takes no more connections; the sockets close when the kernel has let go of them.
    pub(super) fn stop(&mut self, ring: &mut Net) {
        self.stopping = true;
        self.paused_until = None;
        for (index, listening) in (0..).zip(&mut self.listening) {
            if listening.armed {
                ring.cancel(Token::new(Operation::Accept, index, 0));
            } else {
                listening.socket = None;
            }
        }
    }

    /// Whether all listening sockets are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.listening
            .iter()
            .all(|listening| listening.socket.is_none())
    }
}

/// A descriptor that can be given up.
fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
