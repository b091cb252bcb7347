//! Which driver a process uses, and why.

use std::fmt;

use super::super::error::UringError;
use super::probe::probe;
use super::{Capabilities, Driver};

/// The names that a configuration, a log and a metric use.
pub(super) const IO_URING: &str = "io_uring";
pub(super) const EPOLL: &str = "epoll";

/// What was chosen. Displayed, it says what and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen(What);

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    IoUring(Capabilities),
    Epoll(Reason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Configured,
    Unavailable(UringError),
}

/// Chooses for a process with so many threads that drive the network.
///
/// `Auto` falls back to epoll only where io_uring is not to be had. Where it is and something else
/// lacks, such as lockable memory, that is said: a broker that is slower than it could be, and does not
/// tell, helps nobody.
///
/// # Errors
///
/// If io_uring is wanted and does not work.
pub fn choose(driver: Driver, threads: usize) -> Result<Chosen, UringError> {
    decide(driver, || probe(threads)).map(Chosen)
}

fn decide(
    driver: Driver,
    probe: impl FnOnce() -> Result<Capabilities, UringError>,
) -> Result<What, UringError> {
    match driver {
        Driver::Epoll => Ok(What::Epoll(Reason::Configured)),
        Driver::IoUring => probe().map(What::IoUring),
        Driver::Auto => match probe() {
            Ok(capabilities) => Ok(What::IoUring(capabilities)),
            Err(error) if error.is_unavailable() => Ok(What::Epoll(Reason::Unavailable(error))),
            Err(error) => Err(error),
        },
    }
}

impl Chosen {
    /// `io_uring` or `epoll`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            What::IoUring(_) => IO_URING,
            What::Epoll(_) => EPOLL,
        }
    }

    /// What io_uring can do here, if it is io_uring.
    pub(in crate::runtime) fn capabilities(&self) -> Option<Capabilities> {
        match self.0 {
            What::IoUring(capabilities) => Some(capabilities),
            What::Epoll(_) => None,
        }
    }

    /// Why io_uring is not used although nobody said that it should not be.
    #[must_use]
    pub fn fallback(&self) -> Option<&UringError> {
        match &self.0 {
            What::Epoll(Reason::Unavailable(error)) => Some(error),
            What::Epoll(Reason::Configured) | What::IoUring(_) => None,
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            What::IoUring(capabilities) => {
                formatter.write_str(IO_URING)?;
                for (has, name) in [
                    (capabilities.deferred, "deferred task running"),
                    (capabilities.incremental, "incremental buffers"),
                    (capabilities.min_wait, "gathering waits"),
                ] {
                    write!(formatter, ", {}{name}", if has { "" } else { "no " })?;
                }
                Ok(())
            }
            What::Epoll(Reason::Configured) => write!(formatter, "{EPOLL}, as configured"),
            What::Epoll(Reason::Unavailable(error)) => {
                write!(formatter, "{EPOLL}: {}", error.in_short())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Capabilities = Capabilities {
        deferred: true,
        incremental: false,
        min_wait: true,
    };

    fn unavailable() -> [UringError; 4] {
        let kernel = String::from("5.10");
        [
            UringError::Forbidden,
            UringError::Disabled(2),
            UringError::Missing {
                kernel: kernel.clone(),
            },
            UringError::TooOld {
                kernel,
                lacks: "something",
            },
        ]
    }

    fn lacking() -> [UringError; 3] {
        [
            UringError::LockedMemory {
                limit: 1,
                needed: 2,
                shards: 3,
            },
            UringError::OpenFiles,
            UringError::Other("io_uring_setup", libc::EIO),
        ]
    }

    #[test]
    fn auto_falls_back_only_where_io_uring_is_not_to_be_had() {
        for error in unavailable() {
            let chosen = Chosen(decide(Driver::Auto, || Err(error.clone())).unwrap());
            assert_eq!(chosen.name(), "epoll");
            assert_eq!(chosen.fallback(), Some(&error));
            assert!(
                chosen.to_string().starts_with("epoll: "),
                "the reason is told: {chosen}"
            );
        }
        for error in lacking() {
            let result = decide(Driver::Auto, || Err(error.clone()));
            assert_eq!(result, Err(error));
        }
    }

    #[test]
    fn a_driver_that_is_asked_for_is_used_or_nothing() {
        for error in unavailable().into_iter().chain(lacking()) {
            let result = decide(Driver::IoUring, || Err(error.clone()));
            assert_eq!(result, Err(error));
        }
        let chosen = decide(Driver::Epoll, || panic!("nobody asks about io_uring")).unwrap();
        assert_eq!(Chosen(chosen).fallback(), None);
    }

    #[test]
    fn io_uring_says_what_this_kernel_has_of_it() {
        for driver in [Driver::Auto, Driver::IoUring] {
            let chosen = Chosen(decide(driver, || Ok(ALL)).unwrap());
            assert_eq!(
                chosen.to_string(),
                "io_uring, deferred task running, no incremental buffers, gathering waits"
            );
        }
    }
}
