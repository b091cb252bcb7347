//! The system calls that no crate of ours wraps.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::shard::Memory;

/// The kernel gives this process no memory in huge pages from here on. Where it refuses that, they are
/// as the machine is set.
pub fn refuse_huge_pages() {
    // SAFETY: takes integers only.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// A soft and a hard resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// What holds.
    pub(super) soft: u64,
    /// What the soft limit may be raised to.
    pub(super) hard: u64,
}

/// The limits that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// Open files and sockets.
    OpenFiles,
    /// Bytes locked into memory, which io_uring charges its rings to.
    LockedMemory,
}

impl Resource {
    const fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::OpenFiles => libc::RLIMIT_NOFILE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }

    /// Asks for the limit.
    pub(super) fn limit(self) -> io::Result<Limit> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the call writes one `rlimit` and keeps no pointer.
        let result = unsafe { libc::getrlimit(self.number(), &raw mut limit) };
        check(result)?;
        Ok(Limit {
            soft: limit.rlim_cur,
            hard: limit.rlim_max,
        })
    }

    /// Raises the soft limit to `wanted`, or as far as the hard limit lets it, and returns what
    /// holds then.
    pub(super) fn raise(self, wanted: u64) -> io::Result<u64> {
        let limit = self.limit()?;
        if limit.soft >= wanted || limit.soft >= limit.hard {
            return Ok(limit.soft);
        }
        let soft = wanted.min(limit.hard);
        let raised = libc::rlimit {
            rlim_cur: soft,
            rlim_max: limit.hard,
        };
        // SAFETY: the call reads one `rlimit` and keeps no pointer.
        let result = unsafe { libc::setrlimit(self.number(), &raw const raised) };
        check(result)?;
        Ok(soft)
    }
}

/// The CPUs that this process may run on, in order.
pub(super) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: an array of integers, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes at most the given size and keeps no pointer.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    check(result)?;
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: reads bit `cpu` of the set, which has `bits` of them.
    Ok((0..bits)
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// Lets the calling thread run on `cpu` alone.
pub(super) fn bind_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: an array of integers, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the set has a bit `cpu`, as was checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the call reads the given size and keeps no pointer.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    check(result)
}

/// Gives the calling thread the lowest priority: it runs when nobody else wants its CPU, and next to never
/// when somebody does.
pub(super) fn yield_to_others() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the call reads one `sched_param` and keeps no pointer.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    check(result)
}

/// A new eventfd that blocks, as io_uring wants it.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    check(fd)?;
    // SAFETY: just opened, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// CPU time that the calling thread has used, in microseconds.
pub(super) fn thread_cpu_us() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec` and keeps no pointer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    match check(result) {
        Ok(()) => time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000,
        Err(_) => 0,
    }
}

/// CPU time that the process has used, in microseconds.
pub(super) fn process_cpu_us() -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec` and keeps no pointer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    check(result).ok()?;
    Some(time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000)
}

/// Resident memory of the process now and at most, as the kernel accounts for it: the allocator's own
/// figures leave out what it holds back, and buffers that the kernel shares.
pub(super) fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        current: bytes("VmRSS:")?,
        maximum: bytes("VmHWM:")?,
    })
}

/// Release of the running kernel, as `6.12`.
pub(super) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| String::from("unknown"),
        |release| release.trim().to_owned(),
    )
}

/// Major and minor number of a kernel release.
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Gives a file its space on disk, so that a write to it does not run out of that.
pub(super) fn reserve(file: &std::fs::File, bytes: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the call touches no memory.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes.into()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The numbers of "user", "user:group" or ":group".
pub(super) fn owner(text: &str) -> io::Result<(Option<u32>, Option<u32>)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, ""),
    };
    let user = match user {
        "" => None,
        name => Some(number_in("/etc/passwd", name)?),
    };
    let group = match group {
        "" => None,
        name => Some(number_in("/etc/group", name)?),
    };
    Ok((user, group))
}

/// The number of a user or group, by name or as it stands there.
fn number_in(file: &str, name: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(file)?;
    let mut lines = text.lines().map(|line| line.split(':'));
    let line = lines.find_map(|mut fields| (fields.next()? == name).then_some(fields));
    let number = line.and_then(|mut fields| fields.nth(1)?.parse().ok());
    number.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_whatever_follows_them() {
        assert_eq!(kernel_version("6.12.0-55.el10.x86_64"), Some((6, 12)));
        assert_eq!(kernel_version("6.6-rc3"), Some((6, 6)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn a_thread_runs_where_it_is_bound_to() {
        for cpu in allowed_cpus().unwrap() {
            std::thread::scope(|scope| {
                let bound = scope.spawn(move || bind_to_cpu(cpu).map(|()| allowed_cpus().unwrap()));
                assert_eq!(bound.join().unwrap().unwrap(), [cpu]);
            });
        }
        assert!(bind_to_cpu(1 << 20).is_err());
    }

    #[test]
    fn the_limits_and_cpus_of_this_process_can_be_read() {
        let limit = Resource::OpenFiles.limit().unwrap();
        assert!(limit.soft > 0 && limit.soft <= limit.hard);
        assert_eq!(Resource::OpenFiles.raise(1).unwrap(), limit.soft);
        assert!(!allowed_cpus().unwrap().is_empty());
    }

    #[test]
    fn the_use_of_this_process_can_be_read() {
        let memory = memory().unwrap();
        assert!(memory.current > 0 && memory.current <= memory.maximum);
        let before = thread_cpu_us();
        while thread_cpu_us() == before {}
    }
}
