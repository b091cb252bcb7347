//! Whether io_uring works here as the driver uses it, found out before the first executor starts:
//! glommio panics with a misleading text where it does not.
//!
//! What the driver needs is not looked up, it is done once: a ring is set up, bytes go through a
//! pair of sockets, the ring wakes itself. So the answer does not depend on what a kernel calls itself,
//! and a distribution that backports a feature has it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::super::error::UringError;
use super::super::sys::{self, Resource};
use super::ring::{Capabilities, build};
use super::{Completion, Net, Operation, Output, Token, Wait};

/// Bytes of RLIMIT_MEMLOCK below which glommio refuses to start, whoever starts it.
const GLOMMIO_LOCKED_MEMORY: u64 = 512 * 1024;

/// Bytes that one shard is charged without CAP_IPC_LOCK: 140 KiB for the driver's ring, 36 KiB for
/// glommio's three and 192 KiB for the 64 KiB of buffers that it registers with each of them.
const LOCKED_MEMORY_PER_SHARD: u64 = 400 * 1024;

/// Bytes that the probe itself is charged; the kernel takes its time to give them back.
const LOCKED_MEMORY_PROBE: u64 = 200 * 1024;

/// The release from which on two receives complete in the order in which they took bytes from a
/// buffer that they share. No feature bit tells; older kernels get buffers of their own each.
const ORDERED_SINCE: (u32, u32) = (6, 15);

/// How long the kernel may take for what happens at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Finds out what the kernel can do, or why io_uring does not work.
pub fn probe(shards: usize) -> Result<Capabilities, UringError> {
    let kernel = sys::kernel_release();
    check_locked_memory(shards)?;
    let mut capabilities = set_up(&kernel, shards)?;
    let mut ring = match Net::new(capabilities) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && capabilities.incremental => {
            capabilities.incremental = false;
            Net::new(capabilities)
        }
        result => result,
    }
    .map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => UringError::TooOld {
            kernel: kernel.clone(),
            lacks: "provided buffer rings (5.19)",
        },
        _ => refusal(&error, &kernel, shards),
    })?;
    exercise(&mut ring, &kernel)?;
    Ok(capabilities)
}

/// Raises the limit of locked memory as far as it goes and says whether that is enough.
fn check_locked_memory(shards: usize) -> Result<(), UringError> {
    let needed = if has_ipc_lock() {
        GLOMMIO_LOCKED_MEMORY
    } else {
        locked_memory(shards)
    };
    let limit = Resource::LockedMemory
        .raise(needed)
        .map_err(|error| other("RLIMIT_MEMLOCK", &error))?;
    if limit < needed {
        return Err(UringError::LockedMemory {
            limit,
            needed,
            shards,
        });
    }
    Ok(())
}

/// Bytes that a process without CAP_IPC_LOCK needs.
fn locked_memory(shards: usize) -> u64 {
    let charged = LOCKED_MEMORY_PROBE + LOCKED_MEMORY_PER_SHARD * shards as u64;
    charged.max(GLOMMIO_LOCKED_MEMORY)
}

/// Whether the process has CAP_IPC_LOCK, and so is not charged for locked memory.
fn has_ipc_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// Sets up a small ring, with the newest flags that the kernel takes.
fn set_up(kernel: &str, shards: usize) -> Result<Capabilities, UringError> {
    let ordered = sys::kernel_version(kernel).is_some_and(|version| version >= ORDERED_SINCE);
    for deferred in [true, false] {
        let capabilities = Capabilities {
            deferred,
            incremental: ordered,
            min_wait: false,
        };
        match build(capabilities, 8, 16) {
            Ok(ring) => {
                let min_wait = ring.params().is_feature_min_timeout();
                return Ok(Capabilities {
                    min_wait,
                    ..capabilities
                });
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(refusal(&error, kernel, shards)),
        }
    }
    Err(UringError::TooOld {
        kernel: kernel.to_owned(),
        lacks: "cooperative task running (5.19)",
    })
}

/// Why the kernel refuses to set a ring up.
fn refusal(error: &io::Error, kernel: &str, shards: usize) -> UringError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled() {
            0 => UringError::Forbidden,
            value => UringError::Disabled(value),
        },
        Some(libc::ENOSYS) => UringError::Missing {
            kernel: kernel.to_owned(),
        },
        Some(libc::EMFILE | libc::ENFILE) => UringError::OpenFiles,
        Some(libc::ENOMEM) => UringError::LockedMemory {
            limit: Resource::LockedMemory.limit().map_or(0, |limit| limit.soft),
            // What this user has locked in other processes counts too.
            needed: 2 * locked_memory(shards),
            shards,
        },
        _ => other("io_uring_setup", error),
    }
}

/// The value of the sysctl that switches io_uring off; kernels before 6.6 have none.
fn disabled() -> u8 {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn other(what: &'static str, error: &io::Error) -> UringError {
    UringError::Other(what, error.raw_os_error().unwrap_or(0))
}

/// Does once what the driver does all the time.
pub(super) fn exercise(ring: &mut Net, kernel: &str) -> Result<(), UringError> {
    let too_old = |lacks| UringError::TooOld {
        kernel: kernel.to_owned(),
        lacks,
    };
    let (ours, theirs) = UnixStream::pair().map_err(|error| other("socketpair", &error))?;
    ring.receive_once(ours.as_fd(), Token::plain(Operation::ReceiveOnce));
    let mut output = Output::default();
    output.send(
        b"once".to_vec(),
        ring,
        theirs.as_fd(),
        Token::plain(Operation::Send),
    );
    let first = next(ring)?;
    if !output.settle(ring) || !carries(ring, first, b"once", Operation::ReceiveOnce) {
        return Err(too_old("sends without completion (5.17)"));
    }
    let _ = output.take_buffer();
    let many = Token::plain(Operation::ReceiveMany);
    ring.receive_many(ours.as_fd(), many);
    for text in [&b"first"[..], b"second"] {
        output.send(
            text.to_vec(),
            ring,
            theirs.as_fd(),
            Token::plain(Operation::Send),
        );
        let completion = next(ring)?;
        let goes_on = completion.more;
        if !carries(ring, completion, text, Operation::ReceiveMany) || !goes_on {
            return Err(too_old("multishot receive (6.0)"));
        }
        if !output.settle(ring) {
            return Err(too_old("sends without completion (5.17)"));
        }
        let _ = output.take_buffer();
    }
    ring.wake(ring.raw_fd());
    if next(ring)?.token.operation() != Operation::Wake {
        return Err(too_old("messages between rings (5.18)"));
    }
    ring.cancel(many);
    let last = next(ring)?;
    if last.result != -libc::ECANCELED || last.more {
        return Err(too_old("cancellation of a multishot receive (6.0)"));
    }
    Ok(())
}

/// The next completion.
fn next(ring: &mut Net) -> Result<Completion, UringError> {
    ring.submit_and_wait(Wait {
        events: 1,
        gather_us: 0,
        timeout: PATIENCE,
    });
    let mut completions = Vec::new();
    ring.drain(&mut completions);
    completions
        .pop()
        .ok_or(UringError::Other("no completion came", libc::ETIME))
}

fn carries(ring: &mut Net, completion: Completion, bytes: &[u8], operation: Operation) -> bool {
    let fits = completion.token.operation() == operation;
    completion.received.is_some_and(|received| {
        let same = ring.bytes(&received) == bytes;
        ring.give_back(received);
        fits && same
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_works_where_the_tests_run() {
        let capabilities = probe(1).unwrap_or_else(|error| panic!("{error}"));
        assert!(Net::new(capabilities).is_ok());
    }

    #[test]
    fn every_way_to_use_the_kernel_works() {
        let newest = probe(1).unwrap();
        for deferred in [false, newest.deferred] {
            for incremental in [false, newest.incremental] {
                let capabilities = Capabilities {
                    deferred,
                    incremental,
                    min_wait: false,
                };
                let mut ring = Net::new(capabilities).unwrap();
                exercise(&mut ring, "test")
                    .unwrap_or_else(|error| panic!("{capabilities:?}: {error}"));
            }
        }
    }

    #[test]
    fn refusals_name_their_cause() {
        let refusal = |errno| refusal(&io::Error::from_raw_os_error(errno), "6.1", 4);
        if disabled() == 0 {
            assert_eq!(refusal(libc::EPERM), UringError::Forbidden);
        }
        assert_eq!(
            refusal(libc::ENOSYS),
            UringError::Missing {
                kernel: String::from("6.1")
            }
        );
        assert_eq!(refusal(libc::EMFILE), UringError::OpenFiles);
        assert!(matches!(
            refusal(libc::ENOMEM),
            UringError::LockedMemory { shards: 4, .. }
        ));
    }
}
