//! The cuts of all threads, put together to intervals and to the outcome.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;

use crate::measure::{Counts, Interval, histogram, small_histogram};

use super::control::{NEVER, Phases};
use super::tally::{Tally, add};
use super::worker::Cut;

/// What the threads measured in one interval, as far as they have told.
#[derive(Debug)]
struct Partial {
    from: u64,
    cuts: usize,
    interval: Interval,
}

/// The sums of a run.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) counts: Counts,
    pub(super) corrected: Histogram<u64>,
    pub(super) raw: Histogram<u64>,
    pub(super) acknowledgement: Histogram<u64>,
    pub(super) connect: Histogram<u64>,
    pub(super) lag: Histogram<u64>,
    pub(super) errors: HashMap<String, u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Collector {
    workers: usize,
    partial: BTreeMap<(u64, u64), Partial>,
    pub(super) sums: Sums,
}

impl Collector {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            partial: BTreeMap::new(),
            sums: Sums {
                counts: Counts::default(),
                corrected: histogram(),
                raw: histogram(),
                acknowledgement: histogram(),
                connect: histogram(),
                lag: histogram(),
                errors: HashMap::new(),
            },
        }
    }

    /// Takes a cut in. Returns the tally, emptied, and the interval with its beginning if
    /// this was its last part.
    ///
    /// Messages are counted while the load is measured; how long they took also afterwards, since the
    /// last of them arrive then. Connections are counted from the beginning.
    pub(super) fn take(&mut self, cut: Cut, phases: &Phases) -> (Tally, Option<(u64, Interval)>) {
        let Cut {
            from,
            to,
            mut tally,
            ..
        } = cut;
        let sums = &mut self.sums;
        for (text, count) in &tally.errors {
            *sums.errors.entry(text.clone()).or_default() += count;
        }
        let all = &tally.counts;
        sums.counts.connects_started += all.connects_started;
        sums.counts.connected += all.connected;
        sums.counts.connect_failed += all.connect_failed;
        sums.counts.subscribed += all.subscribed;
        let _ = sums.connect.add(tally.connect.histogram());
        if from >= phases.measure && from < phases.end {
            add(&mut sums.counts, &messages(all));
        } else {
            sums.counts.lost += all.lost;
        }
        if from >= phases.measure {
            let _ = sums.corrected.add(tally.corrected.histogram());
            let _ = sums.raw.add(tally.raw.histogram());
            let _ = sums.acknowledgement.add(tally.acknowledgement.histogram());
            let _ = sums.lag.add(tally.lag.histogram());
        }
        let interval = (to != NEVER)
            .then(|| self.take_interval(from, to, &mut tally, phases))
            .flatten();
        tally.clear();
        (tally, interval)
    }

    fn take_interval(
        &mut self,
        from: u64,
        to: u64,
        tally: &mut Tally,
        phases: &Phases,
    ) -> Option<(u64, Interval)> {
        let partial = self.partial.entry((to, from)).or_insert_with(|| Partial {
            from,
            cuts: 0,
            interval: empty(from, to, phases),
        });
        partial.cuts += 1;
        let interval = &mut partial.interval;
        add(&mut interval.counts, &tally.counts);
        let _ = interval.corrected.add(tally.corrected.histogram());
        let _ = interval.raw.add(tally.raw.histogram());
        let _ = interval
            .acknowledgement
            .add(tally.acknowledgement.histogram());
        let _ = interval.connect.add(tally.connect.histogram());
        let _ = interval.lag.add(tally.lag.histogram());
        if partial.cuts < self.workers {
            return None;
        }
        self.partial
            .remove(&(to, from))
            .map(|partial| (partial.from, partial.interval))
    }
}

fn empty(from: u64, to: u64, phases: &Phases) -> Interval {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let at_s = seconds_after(from, phases.measure);
    Interval {
        at_s,
        length_s: seconds(to - from),
        counts: Counts::default(),
        corrected: small_histogram(),
        raw: small_histogram(),
        acknowledgement: small_histogram(),
        connect: small_histogram(),
        lag: small_histogram(),
        generator_cpu: 0.0,
        broker_cpu: None,
        broker_rss: None,
    }
}

/// Seconds from `origin` to `time`, negative if it is before.
pub(super) fn seconds_after(time: u64, origin: u64) -> f64 {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    if time >= origin {
        seconds(time - origin)
    } else {
        -seconds(origin - time)
    }
}

/// The counters that count while the load is measured.
fn messages(counts: &Counts) -> Counts {
    Counts {
        connects_started: 0,
        connected: 0,
        connect_failed: 0,
        subscribed: 0,
        open: 0,
        ..*counts
    }
}
