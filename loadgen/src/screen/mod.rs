//! What is seen while a run goes: a page that is drawn anew each second on a terminal, a line each
//! second elsewhere. Both on standard error, so that standard output holds the result alone.

mod full;
mod terminal;

use std::io::{IsTerminal, Write};

use crate::measure::{Interval, Latency, Progress, Watch};
use crate::report::host::as_f64;
use crate::report::units::{nanoseconds, si};

/// What is shown of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    Silent,
    /// A line for each interval.
    Lines,
    /// A page on a terminal; lines where standard error is none.
    Page,
}

/// The one who looks on.
#[must_use]
pub fn watch(choice: Choice) -> Box<dyn Watch> {
    match choice {
        Choice::Silent => Box::new(Silent),
        Choice::Page if std::io::stderr().is_terminal() => match full::Page::on_terminal() {
            Ok(page) => Box::new(page),
            Err(_) => Box::new(Lines::new(std::io::stderr())),
        },
        Choice::Page | Choice::Lines => Box::new(Lines::new(std::io::stderr())),
    }
}

struct Silent;

impl Watch for Silent {
    fn interval(&mut self, _: &Interval, _: &Progress) {}

    fn finished(&mut self) {}
}

/// The header comes again after so many lines.
const PAGE: u32 = 30;

/// A line for each interval, in columns that do not move.
struct Lines<W> {
    out: W,
    shown: u32,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Self {
        Self { out, shown: 0 }
    }
}

impl<W: Write> Watch for Lines<W> {
    fn interval(&mut self, interval: &Interval, _: &Progress) {
        let mut text = String::new();
        if self.shown.is_multiple_of(PAGE) {
            text += &header();
            text.push('\n');
        }
        self.shown += 1;
        text += &line(interval);
        text.push('\n');
        // Whoever closed standard error does not want to see it.
        let _ = self.out.write_all(text.as_bytes());
    }

    fn finished(&mut self) {
        let _ = self.out.flush();
    }
}

fn header() -> String {
    row([
        "time s", "open", "sent/s", "recv/s", "p50", "p99", "p99.9", "max", "lag p99", "lost",
        "gen CPU", "broker",
    ]
    .map(str::to_owned))
}

/// The latency that an interval has: end to end, or to the acknowledgement, or to the CONNACK.
fn latency(interval: &Interval) -> Latency {
    [
        &interval.corrected,
        &interval.acknowledgement,
        &interval.connect,
    ]
    .into_iter()
    .find(|histogram| !histogram.is_empty())
    .map(Latency::of)
    .unwrap_or_default()
}

fn line(interval: &Interval) -> String {
    let counts = &interval.counts;
    let rate = |count: u64| si(as_f64(count) / interval.length_s.max(1e-9));
    let latency = latency(interval);
    let lag = Latency::of(&interval.lag);
    row([
        format!("{:.0}", interval.at_s + interval.length_s),
        counts.open.to_string(),
        rate(counts.published),
        rate(counts.received),
        time(&latency, latency.p50),
        time(&latency, latency.p99),
        time(&latency, latency.p999),
        time(&latency, latency.max),
        time(&lag, lag.p99),
        counts.lost.to_string(),
        format!("{:.2}", interval.generator_cpu),
        interval
            .broker_cpu
            .map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}")),
    ])
}

fn time(latency: &Latency, value: u64) -> String {
    if latency.count == 0 {
        "-".to_owned()
    } else {
        nanoseconds(as_f64(value))
    }
}

fn row(cells: [String; 12]) -> String {
    const WIDTHS: [usize; 12] = [7, 7, 9, 9, 9, 9, 9, 9, 9, 6, 8, 7];
    cells
        .iter()
        .zip(WIDTHS)
        .map(|(cell, width)| format!("{cell:>width$}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn columns_do_not_move() {
        let outcome = samples::outcome();
        let mut lines = Lines::new(Vec::new());
        for interval in &outcome.intervals {
            lines.interval(interval, &Progress::default());
        }
        lines.finished();
        let text = String::from_utf8(lines.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 13);
        assert_eq!(
            lines[0],
            " time s   open   sent/s   recv/s      p50      p99    p99.9      max  lag p99  lost gen CPU broker"
        );
        assert_eq!(
            lines[10],
            "      8   2000   14.0 k   14.0 k  20.4 ms  40.2 ms  42.4 ms  44.7 ms  39.6 ms     0    0.35   0.02"
        );
        let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
