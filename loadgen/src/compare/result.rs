//! `compare.json`: who was compared, every single run, and what follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::statistics::Spread;
use super::works::Metric;
use crate::report::document::{Document, Generator};
use crate::report::host::Host;

/// Version of `compare.json`. Raised by every change that an old reader would misread.
pub const COMPARE_FORMAT: u32 = 1;

/// What `compare.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// [`COMPARE_FORMAT`].
    pub format: u32,
    /// When it began, in seconds since 1970.
    pub started_unix_s: u64,
    /// The program that measured.
    pub generator: Generator,
    /// The machine.
    pub host: Host,
    /// How it was done.
    pub method: Method,
    /// The brokers, those that could not be had included.
    pub brokers: Vec<Contender>,
    /// The works.
    pub works: Vec<WorkFacts>,
    /// Every run, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// How it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Rounds.
    pub rounds: u32,
    /// Seconds of a measured phase.
    pub duration_s: u64,
    /// CPUs of the brokers.
    pub broker_cpus: String,
    /// CPUs of the generator.
    pub generator_cpus: String,
    /// Broker that the others are put in relation to.
    pub base: String,
    /// How system calls were counted; empty where they were not.
    pub syscalls: String,
    /// Why this is a part of what was to be measured; only what all brokers have done in a round is in
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
}

/// A broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// What it says about its version.
    pub version: String,
    /// Its arguments.
    pub arguments: String,
    /// Its configuration, with ports and directories of the first run.
    pub configuration: String,
    /// Why it was left out.
    pub missing: Option<String>,
}

/// A work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkFacts {
    /// Its key.
    pub key: String,
    /// What is done.
    pub title: String,
    /// Arguments of the generator.
    pub arguments: String,
    /// Keys of the metrics that it is judged by, the most important first.
    pub metrics: Vec<String>,
}

/// One run of one work against one broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// From 1; 0 for the pass that counts system calls.
    pub round: u32,
    /// Key of the work.
    pub work: String,
    /// Name of the broker.
    pub broker: String,
    /// What was measured, by the keys of the metrics.
    pub values: BTreeMap<String, f64>,
    /// The generator was the bottleneck.
    pub saturated: Option<String>,
    /// Why there are no values.
    pub failed: Option<String>,
    /// What went wrong in a run that has values: lost connections, errors.
    pub remarks: Vec<String>,
    /// Percentile spectrum: pairs of `1 / (1 - p)` and nanoseconds.
    pub spectrum: Vec<(f64, f64)>,
}

impl Run {
    /// Fills in what `document` says.
    pub(crate) fn measured(&mut self, document: &Document) {
        let kinds = &document.latency_ns;
        let (latency, histogram) = if kinds.corrected.count > 0 {
            (&kinds.corrected, &document.histograms.corrected)
        } else {
            (&kinds.connect, &document.histograms.connect)
        };
        let as_f64 = crate::report::host::as_f64;
        let counts = &document.counts;
        let mut set = |metric: Metric, value: Option<f64>| {
            if let Some(value) = value {
                self.values.insert(metric.key().to_owned(), value);
            }
        };
        let delivered = (counts.received > 0).then_some(());
        set(
            Metric::Rate,
            delivered.map(|()| document.per_second.received),
        );
        if let Some(broker) = &document.broker {
            set(Metric::Cpu, delivered.and(broker.cpu_ns_per_message));
            set(
                Metric::Switches,
                delivered.and(broker.context_switches_per_message),
            );
            set(Metric::Memory, broker.bytes_per_connection);
        }
        let timed = (latency.count > 0).then_some(latency);
        set(Metric::P50, timed.map(|latency| as_f64(latency.p50)));
        set(Metric::P99, timed.map(|latency| as_f64(latency.p99)));
        set(Metric::P999, timed.map(|latency| as_f64(latency.p999)));
        set(Metric::Max, timed.map(|latency| as_f64(latency.max)));
        set(Metric::Mean, timed.map(|latency| latency.mean));
        set(Metric::Connects, connects_per_s(document));
        set(Metric::Failed, Some(as_f64(counts.connect_failed)));
        self.saturated.clone_from(&document.saturated);
        if timed.is_some() {
            self.spectrum = crate::report::html::spectrum_points(histogram);
        }
        if counts.lost > 0 {
            self.remarks
                .push(format!("{} connections lost", counts.lost));
        }
        self.remarks.extend(
            document
                .errors
                .iter()
                .map(|failure| format!("{} × {}", failure.count, failure.text)),
        );
        if delivered.is_none() && counts.published > 0 {
            self.failed = Some("nothing was delivered".to_owned());
        } else if delivered.is_none() && counts.open == 0 && counts.connected == 0 {
            self.failed = Some("nobody could connect".to_owned());
        }
    }
}

/// Connections for each second in which some were made, over the intervals: a storm is over long
/// before its run is.
fn connects_per_s(document: &Document) -> Option<f64> {
    let as_f64 = crate::report::host::as_f64;
    let busy: Vec<_> = document
        .intervals
        .iter()
        .filter(|row| row.counts.connected > 0)
        .collect();
    let seconds: f64 = busy.iter().map(|row| row.length_s).sum();
    let made: u64 = busy.iter().map(|row| row.counts.connected).sum();
    (seconds > 0.0).then(|| as_f64(made) / seconds)
}

/// A value over the rounds, and in relation to the base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) value: Spread,
    pub(crate) ratio: Option<Spread>,
}

impl Comparison {
    /// The runs of a work against a broker.
    pub(crate) fn runs<'a>(
        &'a self,
        work: &'a str,
        broker: &'a str,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs
            .iter()
            .filter(move |run| run.work == work && run.broker == broker)
    }

    /// What the runs of a work against a broker say about `metric`.
    pub(crate) fn cell(&self, work: &str, broker: &str, metric: &str) -> Option<Cell> {
        let mut values = Vec::new();
        let mut pairs = Vec::new();
        for run in self.runs(work, broker) {
            let Some(&value) = run.values.get(metric).filter(|_| run.failed.is_none()) else {
                continue;
            };
            values.push(value);
            let base = self
                .runs(work, &self.method.base)
                .find(|base| base.round == run.round && base.failed.is_none())
                .and_then(|base| base.values.get(metric));
            if let Some(&base) = base {
                pairs.push((value, base));
            }
        }
        Some(Cell {
            value: Spread::of(&values)?,
            ratio: Spread::of_ratios(&pairs),
        })
    }

    /// What must be said beside the figures of a work against a broker.
    pub(crate) fn notes(&self, work: &str, broker: &str) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for run in self.runs(work, broker) {
            let saturated = run
                .saturated
                .as_ref()
                .map(|why| format!("generator saturated: {why}"));
            let failed = run.failed.as_ref().map(|why| format!("failed: {why}"));
            for note in failed
                .into_iter()
                .chain(saturated)
                .chain(run.remarks.iter().cloned())
            {
                // Figures in a note differ from round to round; what it says does not.
                let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
                if !notes.iter().any(|other| words(other) == words(&note)) {
                    notes.push(note);
                }
            }
        }
        notes
    }

    /// Whether the generator was the bottleneck in some run.
    pub(crate) fn saturated(&self, work: &str, broker: &str) -> bool {
        self.runs(work, broker).any(|run| run.saturated.is_some())
    }

    /// Reads `compare.json`.
    ///
    /// # Errors
    ///
    /// It is none, or of a newer format.
    pub fn parse(json: &str) -> Result<Self, String> {
        let comparison: Self = serde_json::from_str(json)
            .map_err(|error| format!("not a result of a comparison: {error}"))?;
        if comparison.format > COMPARE_FORMAT {
            return Err(format!(
                "format {} is newer than this program, which knows formats up to {COMPARE_FORMAT}",
                comparison.format
            ));
        }
        Ok(comparison)
    }
}
