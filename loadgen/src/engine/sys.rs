//! The system calls that no crate of ours wraps.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Nanoseconds of `CLOCK_MONOTONIC`, which all processes of a host share.
pub(super) fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec` and keeps no pointer. It cannot fail: the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Pins the calling thread to a CPU.
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an array of integers, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` is within the set, as was just checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the call reads one set of the given size and keeps no pointer.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

/// Lets timers of the calling thread end when they are due, in place of up to 50 us later.
pub(super) fn precise_timers() {
    // SAFETY: takes no pointer. Where it is refused timers are less precise, which the lag shows.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
}

/// Raises the soft limit of open files to `wanted`, or as far as the hard limit lets it, and returns
/// what holds then.
pub(super) fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes one `rlimit` and keeps no pointer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: the call reads one `rlimit` and keeps no pointer.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Leaves the choice of the source port to `connect`, which knows the destination: so one port
/// serves as many connections as there are destinations.
pub(super) fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the call reads one `int` of that length and keeps no pointer.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let first = now_ns();
        assert!(first > 0);
        assert!(now_ns() >= first);
    }

    #[test]
    fn a_cpu_that_cannot_exist_is_refused() {
        assert!(pin(1 << 20).is_err());
    }
}
