//! epoll and plain system calls, behind requests and completions.
//!
//! A socket is registered once, when something is first asked for it, edge-triggered: so a message
//! costs no `epoll_ctl`, and a socket that we choose not to read wakes nobody. What an edge told is kept
//! ([`Source::readable`]) until a read comes back short, which says that the socket is empty. Reads
//! happen in [`Poll::drain`], as late as there is a caller to take the bytes, and only while the
//! [`Arena`] has room. Sends happen at once. Only a socket that once refused bytes is also watched for
//! becoming writable, because an edge of that kind comes with others that nobody needs.
//!
//! Gathering: where a wait is to gather, the thread naps before it asks, and so takes in one
//! `epoll_wait` what otherwise takes many. How long a nap should be, the events it brings tell: it
//! grows up to the window while they are fewer than were expected and shrinks while they are more,
//! so that clients who all wait for us do not wait for a window to end.

mod arena;
mod bells;
mod calls;
mod source;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::completion::{Completion, Received, Wait};
use super::token::{Operation, Token};
use arena::Arena;
use bells::Bell;
use calls::{Epoll, Event, READABLE, READABLE_AND_WRITABLE};
use source::{Source, Sources};

/// Bytes that one receive brings at most.
const MOST_BYTES: usize = 64 * 1024;

/// The same for a connection whose handshake is not complete, as with the ring.
const MOST_HANDSHAKE_BYTES: usize = 512;

/// Connections taken from a listener before other work has its turn.
const MOST_ACCEPTS: usize = 64;

/// Naps shorter than this are not worth the system call (microseconds).
const SHORTEST_NAP_US: u32 = 10;

/// epoll with what was asked of it.
pub(super) struct Poll {
    epoll: Epoll,
    bell: Bell,
    sockets: Sources,
    listeners: Sources,
    /// What may be read: a socket or a listener, by the token of the read.
    readable: VecDeque<Token>,
    /// Ends that are known already.
    posted: Vec<Completion>,
    alarms: BinaryHeap<Reverse<Instant>>,
    arena: Arena,
    nap_us: u32,
}

/// How it stands with the rest of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// A completion says it.
    Answered,
    /// So many bytes left, and a completion will tell when more can.
    Blocked(u32),
}

impl Poll {
    /// For the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        let mut epoll = Epoll::new()?;
        let bell = Bell::new()?;
        let wake = Token::plain(Operation::Wake).user_data();
        epoll.register(bell.as_fd().as_raw_fd(), READABLE, wake)?;
        // Whoever had the bell before was rung for.
        epoll.wait(Duration::ZERO);
        epoll.clear();
        calls::keep_exact_time();
        Ok(Self {
            epoll,
            bell,
            sockets: Sources::default(),
            listeners: Sources::default(),
            readable: VecDeque::new(),
            posted: Vec::new(),
            alarms: BinaryHeap::new(),
            arena: Arena::new(),
            nap_us: u32::MAX,
        })
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.bell.raw_fd()
    }

    // Requests.

    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        // A client may go between the event and the accept, which would then wait for another one.
        if let Err(error) = SockRef::from(&listener).set_nonblocking(true) {
            return self.post(token, -error.raw_os_error().unwrap_or(libc::EIO));
        }
        self.read(listener, token);
    }

    pub(super) fn receive_once(&mut self, socket: BorrowedFd<'_>, token: Token) {
        self.read(socket, token);
    }

    pub(super) fn receive_many(&mut self, socket: BorrowedFd<'_>, token: Token) {
        self.read(socket, token);
    }

    fn read(&mut self, fd: BorrowedFd<'_>, token: Token) {
        if let Err(errno) = self.register(fd, token, READABLE) {
            return self.post(token, -errno);
        }
        let sources = sources(&mut self.sockets, &mut self.listeners, token);
        if let Some(source) = sources.get_mut(token) {
            source.reads = token.operation();
            queue(source, token, &mut self.readable);
        }
    }

    /// Makes the kernel tell of `fd`, unless it does.
    fn register(&mut self, fd: BorrowedFd<'_>, token: Token, interest: u32) -> Result<(), i32> {
        let fd = fd.as_raw_fd();
        let source = sources(&mut self.sockets, &mut self.listeners, token).claim(token, fd);
        let writable = interest == READABLE_AND_WRITABLE;
        if source.registered && (source.tells_writable || !writable) {
            return Ok(());
        }
        let data = event_token(token).user_data();
        let result = if source.registered {
            self.epoll.change(fd, interest, data)
        } else {
            self.epoll.register(fd, interest, data)
        };
        result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        source.registered = true;
        source.tells_writable = writable;
        Ok(())
    }

    pub(super) fn cancel(&mut self, token: Token) {
        let sources = sources(&mut self.sockets, &mut self.listeners, token);
        let Some(source) = sources.get_mut(token) else {
            return;
        };
        let found = if token.operation() == Operation::Send {
            std::mem::take(&mut source.blocked)
        } else {
            let found = source.reads == token.operation();
            if found {
                source.reads = Operation::Ignored;
            }
            found
        };
        if found {
            self.post(token, -libc::ECANCELED);
        }
    }

    pub(super) fn release(&mut self, socket: BorrowedFd<'_>, token: Token) {
        // Refused if nothing was ever asked for it.
        let _ = self.epoll.remove(socket.as_raw_fd());
        self.sockets.forget(token);
    }

    pub(super) fn watch(&mut self, bell: BorrowedFd<'_>, token: Token) {
        let registered = self
            .epoll
            .register(bell.as_raw_fd(), READABLE, token.user_data());
        if let Err(error) = registered {
            self.post(token, -error.raw_os_error().unwrap_or(libc::EIO));
        }
    }

    pub(super) fn wake(&mut self, other: RawFd) {
        bells::ring(other);
    }

    pub(super) fn set_alarm(&mut self, delay: Duration) {
        if let Some(due) = Instant::now().checked_add(delay) {
            self.alarms.push(Reverse(due));
        }
    }

    /// Sends `bytes` if the socket takes all of them now, and says whether. Otherwise a completion
    /// says how many it took, or why none.
    pub(super) fn try_send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8], token: Token) -> bool {
        let result = calls::send(socket.as_raw_fd(), bytes);
        if result == Ok(bytes.len()) {
            return true;
        }
        self.post(token, as_result(result));
        false
    }

    pub(super) fn send_rest(&mut self, socket: BorrowedFd<'_>, rest: &[u8], token: Token) -> Rest {
        let result = calls::send(socket.as_raw_fd(), rest);
        let count = match result {
            Ok(count) if count < rest.len() => count,
            Err(libc::EAGAIN | libc::EINTR) => 0,
            _ => {
                self.post(token, as_result(result));
                return Rest::Answered;
            }
        };
        // From here on: an edge between the send and the registration is told by the registration.
        if let Err(errno) = self.register(socket, token, READABLE_AND_WRITABLE) {
            self.post(token, -errno);
            return Rest::Answered;
        }
        if let Some(source) = self.sockets.get_mut(token) {
            source.blocked = true;
        }
        Rest::Blocked(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn post(&mut self, token: Token, result: i32) {
        self.posted.push(completion(token, result));
    }

    // Waiting.

    pub(super) fn submit(&mut self) {
        if self.epoll.len() == 0 {
            self.epoll.wait(Duration::ZERO);
        }
    }

    pub(super) fn submit_and_wait(&mut self, wait: Wait) {
        if self.has_completions() {
            return self.submit();
        }
        let timeout = match self.alarms.peek() {
            Some(Reverse(due)) => due
                .saturating_duration_since(Instant::now())
                .min(wait.timeout),
            None => wait.timeout,
        };
        if wait.gather_us == 0 || wait.events < 2 {
            return self.epoll.wait(timeout);
        }
        let nap_us = self.nap_us.min(wait.gather_us);
        let nap = Duration::from_micros(u64::from(nap_us)).min(timeout);
        if nap_us >= SHORTEST_NAP_US {
            std::thread::sleep(nap);
        }
        self.epoll.wait(timeout.saturating_sub(nap));
        self.nap_us = next_nap(nap_us, self.epoll.len(), wait);
    }

    /// Asks epoll, if nothing is known yet.
    pub(super) fn look(&mut self) -> bool {
        if !self.has_completions() {
            self.epoll.wait(Duration::ZERO);
        }
        self.has_completions()
    }

    pub(super) fn has_completions(&mut self) -> bool {
        !self.posted.is_empty()
            || self.epoll.len() > 0
            || (!self.readable.is_empty() && self.arena.has_room())
            || self
                .alarms
                .peek()
                .is_some_and(|Reverse(due)| *due <= Instant::now())
    }

    pub(super) fn drain(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.posted);
        for index in 0..self.epoll.len() {
            self.take_event(self.epoll.event(index), into);
        }
        self.epoll.clear();
        self.take_alarms(into);
        // Each once: a socket with more than one read's worth waits for the others' turn.
        for _ in 0..self.readable.len() {
            if !self.arena.has_room() {
                break;
            }
            let Some(token) = self.readable.pop_front() else {
                break;
            };
            if token.operation() == Operation::Accept {
                self.accept_from(token, into);
            } else {
                self.read_from(token, into);
            }
        }
    }

    fn take_event(&mut self, event: Event, into: &mut Vec<Completion>) {
        let token = Token::from_user_data(event.data);
        match token.operation() {
            Operation::Wake => into.push(completion(token, 0)),
            Operation::Bell => into.push(Completion {
                more: true,
                ..completion(token, libc::POLLIN.into())
            }),
            _ => {
                let sources = sources(&mut self.sockets, &mut self.listeners, token);
                // Otherwise its socket was closed since.
                let Some(source) = sources.get_mut(token) else {
                    return;
                };
                if event.is_writable() && std::mem::take(&mut source.blocked) {
                    let send = Token::new(Operation::Send, token.index(), token.generation());
                    into.push(completion(send, -libc::EAGAIN));
                }
                source.readable |= event.is_readable();
                source.ended |= event.is_ended();
                queue(source, token, &mut self.readable);
            }
        }
    }

    fn take_alarms(&mut self, into: &mut Vec<Completion>) {
        if self.alarms.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.alarms.peek().is_some_and(|Reverse(due)| *due <= now) {
            self.alarms.pop();
            into.push(completion(Token::plain(Operation::Alarm), -libc::ETIME));
        }
    }

    /// One read of a socket.
    fn read_from(&mut self, token: Token, into: &mut Vec<Completion>) {
        let Some(source) = self.sockets.get_mut(token) else {
            return;
        };
        source.queued = false;
        let once = match source.reads {
            Operation::ReceiveOnce => true,
            Operation::ReceiveMany => false,
            // Nobody wants to hear of it now: it stays readable.
            _ => return,
        };
        let most = if once {
            MOST_HANDSHAKE_BYTES
        } else {
            MOST_BYTES
        };
        let room = self.arena.room(most);
        let wanted = room.len();
        let result = calls::receive(source.fd, room);
        let token = source.read_token(token.index());
        let received = match result {
            // The end of the stream, or bytes.
            Ok(length) => {
                source.readable = length == wanted || source.ended;
                (length > 0).then(|| self.arena.take(length))
            }
            Err(libc::EAGAIN) => {
                source.readable = false;
                return;
            }
            Err(_) => None,
        };
        let more = !once && received.is_some();
        if !more {
            source.reads = Operation::Ignored;
        }
        queue(source, token, &mut self.readable);
        into.push(Completion {
            token,
            result: as_result(result),
            more,
            received,
        });
    }

    /// Some connections of a listener.
    fn accept_from(&mut self, token: Token, into: &mut Vec<Completion>) {
        let Some(source) = self.listeners.get_mut(token) else {
            return;
        };
        source.queued = false;
        if source.reads != Operation::Accept {
            return;
        }
        for _ in 0..MOST_ACCEPTS {
            match calls::accept(source.fd) {
                Ok(socket) => into.push(Completion {
                    more: true,
                    ..completion(token, socket)
                }),
                Err(libc::EAGAIN) => {
                    source.readable = false;
                    return;
                }
                Err(errno) => {
                    // As with the ring it is to be asked for again, and is readable still.
                    source.reads = Operation::Ignored;
                    into.push(completion(token, -errno));
                    return;
                }
            }
        }
        queue(source, token, &mut self.readable);
    }

    // Bytes.

    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        self.arena.bytes(received)
    }

    pub(super) fn give_back(&mut self, received: Received) {
        self.arena.give_back(received);
    }
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Poll")
            .field("bell", &self.bell)
            .finish_non_exhaustive()
    }
}

/// Where the descriptor that `token` names is kept: listeners and sockets count their slots apart.
fn sources<'a>(
    sockets: &'a mut Sources,
    listeners: &'a mut Sources,
    token: Token,
) -> &'a mut Sources {
    if token.operation() == Operation::Accept {
        listeners
    } else {
        sockets
    }
}

/// What the kernel is to say of the descriptor that `token` names, whatever is asked for it.
fn event_token(token: Token) -> Token {
    match token.operation() {
        Operation::Accept => token,
        _ => Token::new(Operation::ReceiveMany, token.index(), token.generation()),
    }
}

/// Puts a source in the list of those to be read, if it is to be and is not there.
fn queue(source: &mut Source, token: Token, readable: &mut VecDeque<Token>) {
    if source.readable && source.reads != Operation::Ignored && !source.queued {
        source.queued = true;
        readable.push_back(token);
    }
}

fn completion(token: Token, result: i32) -> Completion {
    Completion {
        token,
        result,
        more: false,
        received: None,
    }
}

/// As a completion tells it.
fn as_result(result: Result<usize, i32>) -> i32 {
    match result {
        Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
        Err(errno) => -errno,
    }
}

/// How long the next nap should be, after one of `nap_us` that brought so many events. One that was in
/// vain was too short by far: it is followed by turns without any (see [`super::Gather`]), and there must
/// not be many of those.
fn next_nap(nap_us: u32, events: usize, wait: Wait) -> u32 {
    if events < 2 {
        wait.gather_us
    } else if events < wait.events as usize {
        (nap_us + (nap_us / 8).max(SHORTEST_NAP_US)).min(wait.gather_us)
    } else {
        nap_us - nap_us.div_ceil(8)
    }
}
