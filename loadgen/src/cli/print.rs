//! The result in a few lines.

use crate::measure::{Interval, Latency, Outcome, Progress, Watch};

use super::args::FormatName;

/// A line each second on standard error.
pub(super) struct Lines {
    shown: bool,
}

impl Lines {
    pub(super) fn new(format: FormatName) -> Self {
        Self {
            shown: format == FormatName::Text,
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

pub(super) fn print(outcome: &Outcome, format: FormatName) {
    let latency = |histogram| {
        let latency = Latency::of(histogram);
        serde_json::to_value(latency).unwrap_or_default()
    };
    let value = serde_json::json!({
        "format": crate::measure::RESULT_FORMAT,
        "name": outcome.name,
        "measured_s": outcome.measured_s,
        "sent_per_s": outcome.counts.published as f64 / outcome.measured_s.max(1e-9),
        "received_per_s": outcome.counts.received as f64 / outcome.measured_s.max(1e-9),
        "counts": outcome.counts,
        "corrected": latency(&outcome.corrected),
        "raw": latency(&outcome.raw),
        "acknowledgement": latency(&outcome.acknowledgement),
        "connect": latency(&outcome.connect),
        "lag": latency(&outcome.lag),
        "verification": outcome.verification,
        "saturated": outcome.saturated,
        "closed_loop": outcome.closed_loop,
        "errors": outcome.errors,
        "process": outcome.process,
        "figures": outcome.figures,
        "parameters": outcome.parameters,
    });
    if format == FormatName::Json {
        println!("{value}");
    } else {
        println!("{value:#}");
    }
}
