//! How a shard waits when it has nothing to do.
//!
//! With epoll it waits in the kernel, and that is all. With io_uring there are two ways: in the shard's own ring, which is the shorter way but leaves glommio's executor
//! standing, or in glommio, told of completions by an eventfd. Under load the first, for at most
//! [`LONGEST_BLOCK`]; once such a wait was in vain, the second, so that an idle shard costs nothing
//! and whatever else runs on the executor gets its turn.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd};
use std::time::Duration;

use glommio::io::BufferedFile;

use crate::time::Time;

use super::net::Net;
use super::sys;

/// The longest wait in the own ring, and so the longest that other work of the executor waits.
pub(super) const LONGEST_BLOCK: Duration = Duration::from_millis(2);

/// The longest wait of a shard that has its thread for itself: whatever has to happen sooner wakes it.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Which of the two ways to take.
#[derive(Debug, Default)]
pub(super) struct Idleness {
    in_vain: bool,
}

impl Idleness {
    /// Whether to wait in the own ring.
    pub(super) fn should_block(&self) -> bool {
        !self.in_vain
    }

    /// Says whether the wait brought anything.
    pub(super) fn waited(&mut self, completions: usize) {
        self.in_vain = completions == 0;
    }
}

/// The eventfd by which glommio hears of completions in our ring.
pub(super) struct Notifier {
    file: BufferedFile,
    /// When the earliest alarm of the ring goes off, if that is not past.
    alarm: Time,
}

impl Notifier {
    /// Registers an eventfd with `ring`. Must be called on an executor of glommio.
    #[expect(unsafe_code, reason = "glommio takes raw descriptors only")]
    pub(super) fn new(ring: &mut Net) -> io::Result<Self> {
        let eventfd = sys::eventfd()?;
        ring.register_notifier(eventfd.as_fd())?;
        // SAFETY: `into_raw_fd` gives up the descriptor, and the file closes it.
        let file = unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) };
        debug_assert!(file.as_raw_fd() >= 0);
        Ok(Self {
            file,
            alarm: Time::ZERO,
        })
    }

    /// Waits in glommio until `ring` has completions, at most until `deadline`.
    pub(super) async fn wait(&mut self, ring: &mut Net, now: Time, deadline: Time) {
        // An alarm is never taken back: its end would be one more completion to wake up for.
        let rings_in_time = self.alarm > now && self.alarm <= deadline;
        if deadline < Time::NEVER && !rings_in_time {
            ring.set_alarm(Duration::from_micros(deadline.micros_since(now)));
            self.alarm = deadline;
        }
        ring.notify(true);
        // Anything that completes from here on is told by the eventfd. What did before is seen
        // after this entry, which also submits the alarm.
        ring.submit();
        if !ring.has_completions() {
            // The number read is of no interest, and an error would only end the wait early.
            let _ = self.file.read_at(0, 8).await;
        }
        ring.notify(false);
    }

    /// Closes the eventfd.
    pub(super) async fn close(self) {
        let _ = self.file.close().await;
    }
}
