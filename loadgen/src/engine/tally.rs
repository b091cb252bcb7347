//! What one thread counts between two cuts.

use std::collections::HashMap;

use hdrhistogram::Histogram;

use crate::measure::{Counts, HIGHEST_NS, histogram};

/// A histogram and the value that came last, with how often it came: where many messages leave and
/// arrive together their latencies are equal, and a comparison is all that most of them cost.
#[derive(Debug)]
pub(super) struct Recorder {
    histogram: Histogram<u64>,
    value: u64,
    times: u64,
}

impl Recorder {
    fn new() -> Self {
        Self {
            histogram: histogram(),
            value: 0,
            times: 0,
        }
    }

    /// Counts a time.
    #[inline]
    pub(super) fn record(&mut self, nanoseconds: u64) {
        self.record_n(nanoseconds, 1);
    }

    /// Counts a time that came so often.
    #[inline]
    pub(super) fn record_n(&mut self, nanoseconds: u64, times: u64) {
        if nanoseconds == self.value {
            self.times += times;
            return;
        }
        self.write();
        self.value = nanoseconds;
        self.times = times;
    }

    #[inline]
    fn write(&mut self) {
        if self.times > 0 {
            self.histogram
                .saturating_record_n(self.value.min(HIGHEST_NS), self.times);
            self.times = 0;
        }
    }

    /// Everything that was counted.
    pub(super) fn histogram(&mut self) -> &Histogram<u64> {
        self.write();
        &self.histogram
    }

    fn clear(&mut self) {
        self.times = 0;
        self.histogram.reset();
    }
}

/// What one thread counted.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) corrected: Recorder,
    pub(super) raw: Recorder,
    pub(super) acknowledgement: Recorder,
    pub(super) connect: Recorder,
    pub(super) lag: Recorder,
    pub(super) errors: HashMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            corrected: Recorder::new(),
            raw: Recorder::new(),
            acknowledgement: Recorder::new(),
            connect: Recorder::new(),
            lag: Recorder::new(),
            errors: HashMap::new(),
        }
    }
}

impl Tally {
    /// Counts a failure.
    pub(super) fn error(&mut self, text: String) {
        *self.errors.entry(text).or_default() += 1;
    }

    /// Empties it, to be used again: its memory is warm.
    pub(super) fn clear(&mut self) {
        self.counts = Counts::default();
        self.errors.clear();
        for recorder in [
            &mut self.corrected,
            &mut self.raw,
            &mut self.acknowledgement,
            &mut self.connect,
            &mut self.lag,
        ] {
            recorder.clear();
        }
    }
}

/// Adds counters; `open` is a level and is added too, since each thread has its own.
pub(super) fn add(sum: &mut Counts, other: &Counts) {
    sum.connects_started += other.connects_started;
    sum.connected += other.connected;
    sum.connect_failed += other.connect_failed;
    sum.lost += other.lost;
    sum.open += other.open;
    sum.subscribed += other.subscribed;
    sum.published += other.published;
    sum.acknowledged += other.acknowledged;
    sum.refused += other.refused;
    sum.delayed += other.delayed;
    sum.received += other.received;
    sum.bytes_sent += other.bytes_sent;
    sum.bytes_received += other.bytes_received;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_in_a_row_are_all_counted() {
        let mut recorder = Recorder::new();
        for value in [5_000, 5_000, 5_000, 7_000, 5_000] {
            recorder.record(value);
        }
        let histogram = recorder.histogram();
        assert_eq!(histogram.len(), 5);
        assert_eq!(histogram.count_at(5_000), 4);
        recorder.clear();
        assert_eq!(recorder.histogram().len(), 0);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut recorder = Recorder::new();
        recorder.record(u64::MAX);
        recorder.record(0);
        assert_eq!(recorder.histogram().len(), 2);
    }
}
