//! What the threads of a run share: when its phases begin, written by the one that conducts, and
//! how far each worker is, written by that worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// When the phases begin; `NEVER` while it is not known. Times are told a little ahead, so that every
/// worker hears of them before.
#[derive(Debug)]
pub(super) struct Control {
    begin_ns: u64,
    start: AtomicU64,
    measure: AtomicU64,
    end: AtomicU64,
    finish: AtomicBool,
}

/// A time that is not known yet.
pub(super) const NEVER: u64 = u64::MAX;

/// The phases as they are known now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    /// The run began.
    pub(super) begin: u64,
    /// The load begins.
    pub(super) start: u64,
    /// It is measured.
    pub(super) measure: u64,
    /// It ends.
    pub(super) end: u64,
    /// The clients are to go.
    pub(super) finish: bool,
}

impl Control {
    pub(super) fn new(begin_ns: u64) -> Self {
        Self {
            begin_ns,
            start: AtomicU64::new(NEVER),
            measure: AtomicU64::new(NEVER),
            end: AtomicU64::new(NEVER),
            finish: AtomicBool::new(false),
        }
    }

    pub(super) fn set_start(&self, start: u64, measure: u64, end: u64) {
        self.measure.store(measure, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.start.store(start, Ordering::Release);
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn finish(&self) {
        self.finish.store(true, Ordering::Release);
    }

    pub(super) fn phases(&self) -> Phases {
        let start = self.start.load(Ordering::Acquire);
        Phases {
            begin: self.begin_ns,
            start,
            measure: self.measure.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Acquire),
            finish: self.finish.load(Ordering::Acquire),
        }
    }
}

impl Phases {
    /// The first time after `time` at which counters are cut: each second of each phase and the
    /// beginnings of phases.
    pub(super) fn cut_after(&self, time: u64) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let starts = [self.begin, self.start, self.measure, self.end];
        let origin = starts.into_iter().filter(|&start| start <= time).max();
        let origin = origin.unwrap_or(self.begin);
        let next = starts.into_iter().filter(|&start| start > time).min();
        let second = origin + ((time.saturating_sub(origin)) / SECOND + 1) * SECOND;
        second.min(next.unwrap_or(NEVER))
    }
}

/// How far a worker is: counters since the beginning.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Live {
    /// Clients that are connected and have their subscriptions.
    pub(super) ready: AtomicU64,
    /// Clients that will not be.
    pub(super) failed: AtomicU64,
    /// Deliveries that its messages are to bring about, to any worker.
    pub(super) expected: AtomicU64,
    /// Deliveries that it got of those.
    pub(super) received: AtomicU64,
    /// Messages without an acknowledgement.
    pub(super) unacknowledged: AtomicU64,
    /// Publishers that have not reached their limit of messages.
    pub(super) unfinished: AtomicU64,
}

impl Live {
    pub(super) fn put(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_fall_on_seconds_of_a_phase_and_on_its_ends() {
        let second = 1_000_000_000;
        let phases = Phases {
            begin: 100,
            start: 100 + 2 * second + 500,
            measure: 100 + 3 * second + 700,
            end: NEVER,
            finish: false,
        };
        assert_eq!(phases.cut_after(100), 100 + second);
        assert_eq!(phases.cut_after(100 + 2 * second), phases.start);
        assert_eq!(phases.cut_after(phases.start), phases.start + second);
        assert_eq!(phases.cut_after(phases.start + second), phases.measure);
        assert_eq!(phases.cut_after(phases.measure), phases.measure + second);
        let unknown = Phases {
            start: NEVER,
            measure: NEVER,
            ..phases
        };
        assert_eq!(unknown.cut_after(100 + second / 2), 100 + second);
    }
}
