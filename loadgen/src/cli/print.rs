//! A line each second on standard error.

use crate::measure::{Interval, Latency, Progress, Watch};

use crate::report::Format;

/// A line each second on standard error.
pub(super) struct Lines {
    shown: bool,
}

impl Lines {
    pub(super) fn new(format: Format) -> Self {
        Self {
            shown: format == Format::Text,
        }
    }
}

impl Watch for Lines {
    fn interval(&mut self, interval: &Interval, _: &Progress) {
        if self.shown {
            let counts = &interval.counts;
            let latency = Latency::of(&interval.corrected);
            eprintln!(
                "{:7.1}s open {} sent {} received {} p50 {:.1}us p99 {:.1}us lag p99 {:.1}us gen {:.2} broker {:.2}",
                interval.at_s,
                counts.open,
                counts.published,
                counts.received,
                latency.p50 as f64 / 1e3,
                latency.p99 as f64 / 1e3,
                Latency::of(&interval.lag).p99 as f64 / 1e3,
                interval.generator_cpu,
                interval.broker_cpu.unwrap_or(0.0),
            );
        }
    }

    fn finished(&mut self) {}
}
