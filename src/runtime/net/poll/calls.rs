//! The system calls, each as a function that cannot be used wrongly.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Events taken from the kernel at a time; more stay there for the next time.
const MAX_EVENTS: usize = 512;

/// What is told of a descriptor: when it becomes readable, or its other side ends; once each time.
pub(super) const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;

/// The same and when it becomes writable again.
pub(super) const READABLE_AND_WRITABLE: u32 = READABLE | libc::EPOLLOUT as u32;

/// Nothing more will come behind what is there to be read.
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// What the kernel told of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// As it was given.
    pub(super) data: u64,
    flags: u32,
}

impl Event {
    /// Whether a read has something to tell.
    pub(super) fn is_readable(self) -> bool {
        self.flags & (libc::EPOLLIN as u32 | ENDED) != 0
    }

    /// Whether a write has something to tell.
    pub(super) fn is_writable(self) -> bool {
        self.flags & (libc::EPOLLOUT as u32 | ENDED) != 0
    }

    /// Whether the stream is over, so that no further event will tell of its end.
    pub(super) fn is_ended(self) -> bool {
        self.flags & ENDED != 0
    }
}

/// An epoll with room for the events it tells.
pub(super) struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event]>,
    filled: usize,
    /// Whether the kernel has `epoll_pwait2` (5.11), whose timeouts are exact.
    exact: bool,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just opened, and nobody else knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS].into_boxed_slice(),
            filled: 0,
            exact: true,
        })
    }

    /// Begins to tell of `fd`, or changes what is told.
    pub(super) fn register(&self, fd: RawFd, interest: u32, data: u64) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd, interest, data) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.control(libc::EPOLL_CTL_MOD, fd, interest, data)
            }
            result => result,
        }
    }

    /// Changes what is told of `fd`. If that holds already, it is told again.
    pub(super) fn change(&self, fd: RawFd, interest: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest, data)
    }

    /// Tells nothing more of `fd`. A descriptor that is closed need not be taken out.
    pub(super) fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: i32, fd: RawFd, interest: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: data,
        };
        // SAFETY: the call reads one `epoll_event` and keeps no pointer; it refuses a descriptor that
        // is not open.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &raw mut event) };
        check(result).map(|_| ())
    }

    /// Adds what there is to the events that are kept, waiting for it if there is nothing.
    pub(super) fn wait(&mut self, timeout: Duration) {
        if self.filled == self.events.len() {
            return;
        }
        match self.try_wait(timeout) {
            Ok(count) => self.filled += count,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // EPERM: what an old seccomp profile answers to a system call that it does not know.
                Some(libc::ENOSYS | libc::EPERM) if self.exact => {
                    self.exact = false;
                    self.wait(timeout);
                }
                _ => panic!("epoll_wait failed in a way that no use of ours can cause: {error}"),
            },
        }
    }

    fn try_wait(&mut self, timeout: Duration) -> io::Result<usize> {
        let room = &mut self.events[self.filled..];
        let count = i32::try_from(room.len()).unwrap_or(i32::MAX);
        let fd = self.fd.as_raw_fd();
        if self.exact && !timeout.is_zero() {
            let timeout = libc::timespec {
                tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
            };
            let mask = std::ptr::null::<libc::sigset_t>();
            // SAFETY: the call writes at most `count` events into `room`, which has that many, reads
            // one `timespec`, and keeps no pointer. Without a mask its size is not looked at.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    fd,
                    room.as_mut_ptr(),
                    count,
                    &raw const timeout,
                    mask,
                    0_usize,
                )
            };
            return usize::try_from(result).map_err(|_| io::Error::last_os_error());
        }
        // Rounded up, since a wait that ends too early is repeated until it is due.
        let millis = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // SAFETY: as above.
        let result = unsafe { libc::epoll_wait(fd, room.as_mut_ptr(), count, millis) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// One of them.
    pub(super) fn event(&self, index: usize) -> Event {
        // Copied out field by field: the kernel's layout is packed.
        let libc::epoll_event { events, u64: data } = self.events[index];
        Event {
            data,
            flags: events,
        }
    }

    /// They were worked on.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }
}

/// Reads what is there, without waiting for it.
pub(super) fn receive(socket: RawFd, into: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the call writes at most the length of `into`, and keeps no pointer.
    let result = unsafe {
        libc::recv(
            socket,
            into.as_mut_ptr().cast(),
            into.len(),
            libc::MSG_DONTWAIT,
        )
    };
    count(result)
}

/// Sends as much as the socket takes without waiting.
pub(super) fn send(socket: RawFd, bytes: &[u8]) -> Result<usize, i32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the call reads at most the length of `bytes`, and keeps no pointer.
    let result = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    count(result)
}

/// Takes a connection, which belongs to the caller.
pub(super) fn accept(listener: RawFd) -> Result<RawFd, i32> {
    let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: without room for an address the call writes nothing.
    let result = unsafe { libc::accept4(listener, address, length, libc::SOCK_CLOEXEC) };
    check(result).map_err(|error| errno(&error))
}

/// Lets the timers of this thread fire when they are due: by default the kernel may be late by 50
/// microseconds, a quarter of what is gathered for.
pub(super) fn keep_exact_time() {
    // SAFETY: takes integers only. If it is refused, naps are a little longer.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

fn count(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| errno(&io::Error::last_os_error()))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
