//! `result.json`: everything that a run measured and all that is needed to show it again.
//!
//! Every other output is made from a [`Document`], so that `report DIR` shows a saved result exactly
//! as it was shown when it was measured. The histograms of the whole run are in it in HdrHistogram's
//! own compressed form (V2, base64), those of each interval only as their percentiles; the `.hlog`
//! beside it has them in full.
//!
//! Latencies are integers of nanoseconds, CPU times too; rates are per second of the measured phase.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{
    Deserializer as HistogramReader, Serializer as _, V2DeflateSerializer,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::host::{Host, as_f64};
use crate::measure::{
    Counts, Figure, Interval, Latency, Outcome, Process, RESULT_FORMAT, Verification,
};

/// What `result.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`RESULT_FORMAT`].
    pub format: u32,
    /// Name of the scenario or the command.
    pub name: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// Seconds of the measured phase.
    pub measured_s: f64,
    /// Whether there was no schedule to be late for.
    pub closed_loop: bool,
    /// Why the generator was the bottleneck, if it was.
    pub saturated: Option<String>,
    /// The program that measured.
    pub generator: Generator,
    /// The machine that it ran on.
    pub host: Host,
    /// What was asked for, in the order in which it is shown.
    #[serde(with = "pairs")]
    pub parameters: Vec<(String, String)>,
    /// Counters of the measured phase.
    pub counts: Counts,
    /// The same for a second.
    pub per_second: PerSecond,
    /// Latencies of the measured phase.
    pub latency_ns: Latencies,
    /// What `--verify` found.
    pub verification: Option<Verification>,
    /// What only this scenario measures.
    pub figures: Vec<Figure>,
    /// Failures, the most frequent first.
    pub errors: Vec<Failure>,
    /// The broker's process.
    pub broker: Option<Broker>,
    /// The intervals, warm-up included.
    pub intervals: Vec<Row>,
    /// The histograms of the measured phase.
    pub histograms: Histograms,
}

/// The program that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// Its version.
    pub version: String,
    /// How it drove the network.
    pub driver: String,
}

/// Rates of the measured phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PerSecond {
    /// PUBLISH packets sent.
    pub published: f64,
    /// Acknowledgements received.
    pub acknowledged: f64,
    /// PUBLISH packets received.
    pub received: f64,
    /// Connections made.
    pub connected: f64,
    /// Bytes sent.
    pub bytes_sent: f64,
    /// Bytes received.
    pub bytes_received: f64,
}

/// The kinds of latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// End to end, from the intended time.
    pub corrected: Latency,
    /// End to end, from the actual send.
    pub raw: Latency,
    /// From PUBLISH to its acknowledgement.
    pub acknowledgement: Latency,
    /// From the SYN to the CONNACK.
    pub connect: Latency,
    /// How late messages were sent.
    pub lag: Latency,
}

/// A failure and how often it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was.
    pub text: String,
    /// How often.
    pub count: u64,
}

/// What the broker's process used in the measured phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// What was counted.
    #[serde(flatten)]
    pub process: Process,
    /// Messages that the figures below are for: those received, or those published where nobody
    /// received any.
    pub messages: u64,
    /// CPU time in nanoseconds per message, user and system.
    pub cpu_ns_per_message: Option<f64>,
    /// System calls per message.
    pub syscalls_per_message: Option<f64>,
    /// Context switches per message.
    pub context_switches_per_message: Option<f64>,
    /// Cores in use on average.
    pub cores: f64,
    /// Growth of the resident memory for each open connection.
    pub bytes_per_connection: Option<f64>,
}

impl Broker {
    fn of(process: &Process, counts: &Counts, measured_s: f64) -> Self {
        let messages = match counts.received {
            0 => counts.published,
            received => received,
        };
        let per_message = |value: u64| (messages > 0).then(|| as_f64(value) / as_f64(messages));
        let cpu_ns = process.user_ns + process.system_ns;
        Self {
            process: process.clone(),
            messages,
            cpu_ns_per_message: per_message(cpu_ns),
            syscalls_per_message: process.syscalls.and_then(per_message),
            context_switches_per_message: per_message(process.context_switches),
            cores: as_f64(cpu_ns) / 1e9 / measured_s.max(1e-9),
            bytes_per_connection: (counts.open > 0 && process.rss_before > 0).then(|| {
                (as_f64(process.rss_after) - as_f64(process.rss_before)) / as_f64(counts.open)
            }),
        }
    }
}

/// An interval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Seconds since the measured phase began; negative before it.
    pub at_s: f64,
    /// Length in seconds.
    pub length_s: f64,
    /// What was counted in it.
    pub counts: Counts,
    /// Latencies.
    pub latency_ns: Latencies,
    /// Cores that the generator used.
    pub generator_cpu: f64,
    /// Cores that the broker used.
    pub broker_cpu: Option<f64>,
    /// Resident bytes of the broker.
    pub broker_rss: Option<u64>,
}

impl Row {
    fn of(interval: &Interval) -> Self {
        Self {
            at_s: interval.at_s,
            length_s: interval.length_s,
            counts: interval.counts,
            latency_ns: Latencies {
                corrected: Latency::of(&interval.corrected),
                raw: Latency::of(&interval.raw),
                acknowledgement: Latency::of(&interval.acknowledgement),
                connect: Latency::of(&interval.connect),
                lag: Latency::of(&interval.lag),
            },
            generator_cpu: interval.generator_cpu,
            broker_cpu: interval.broker_cpu,
            broker_rss: interval.broker_rss,
        }
    }

    /// A counter of the interval as a rate.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        as_f64(count) / self.length_s.max(1e-9)
    }
}

/// The histograms of the measured phase, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the same names as in `Latencies`")]
pub struct Histograms {
    #[serde(with = "encoded")]
    pub corrected: Histogram<u64>,
    #[serde(with = "encoded")]
    pub raw: Histogram<u64>,
    #[serde(with = "encoded")]
    pub acknowledgement: Histogram<u64>,
    #[serde(with = "encoded")]
    pub connect: Histogram<u64>,
    #[serde(with = "encoded")]
    pub lag: Histogram<u64>,
}

impl Histograms {
    /// Name and histogram of each kind that has values.
    pub fn filled(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        [
            ("corrected", &self.corrected),
            ("raw", &self.raw),
            ("acknowledgement", &self.acknowledgement),
            ("connect", &self.connect),
            ("lag", &self.lag),
        ]
        .into_iter()
        .filter(|(_, histogram)| !histogram.is_empty())
    }
}

impl Document {
    /// The document of `outcome`, measured on `host`.
    #[must_use]
    pub fn new(outcome: &Outcome, host: Host) -> Self {
        let seconds = outcome.measured_s.max(1e-9);
        let counts = outcome.counts;
        let rate = |count: u64| as_f64(count) / seconds;
        Self {
            format: RESULT_FORMAT,
            name: outcome.name.clone(),
            started: outcome.started.clone(),
            measured_s: outcome.measured_s,
            closed_loop: outcome.closed_loop,
            saturated: outcome.saturated.clone(),
            generator: Generator {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                driver: outcome.driver.clone(),
            },
            host,
            parameters: outcome.parameters.clone(),
            counts,
            per_second: PerSecond {
                published: rate(counts.published),
                acknowledged: rate(counts.acknowledged),
                received: rate(counts.received),
                connected: rate(counts.connected),
                bytes_sent: rate(counts.bytes_sent),
                bytes_received: rate(counts.bytes_received),
            },
            latency_ns: Latencies {
                corrected: Latency::of(&outcome.corrected),
                raw: Latency::of(&outcome.raw),
                acknowledgement: Latency::of(&outcome.acknowledgement),
                connect: Latency::of(&outcome.connect),
                lag: Latency::of(&outcome.lag),
            },
            verification: outcome.verification,
            figures: outcome.figures.clone(),
            errors: outcome
                .errors
                .iter()
                .map(|(text, count)| Failure {
                    text: text.clone(),
                    count: *count,
                })
                .collect(),
            broker: outcome
                .process
                .as_ref()
                .map(|process| Broker::of(process, &counts, outcome.measured_s)),
            intervals: outcome.intervals.iter().map(Row::of).collect(),
            histograms: Histograms {
                corrected: outcome.corrected.clone(),
                raw: outcome.raw.clone(),
                acknowledgement: outcome.acknowledgement.clone(),
                connect: outcome.connect.clone(),
                lag: outcome.lag.clone(),
            },
        }
    }

    /// Reads `result.json`.
    ///
    /// # Errors
    ///
    /// It is no document, or of a newer format.
    pub fn parse(json: &str) -> Result<Self, String> {
        /// The format alone, so that a newer document is called newer and not broken.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version =
            serde_json::from_str(json).map_err(|error| format!("no result of a run: {error}"))?;
        if version.format > RESULT_FORMAT {
            return Err(format!(
                "format {} is newer than this program, which knows formats up to {RESULT_FORMAT}",
                version.format
            ));
        }
        serde_json::from_str(json).map_err(|error| format!("not a result of a run: {error}"))
    }

    /// As `result.json`.
    ///
    /// # Errors
    ///
    /// A number in it is not finite.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }

    /// Whether messages were lost, doubled, reordered or changed on the way.
    #[must_use]
    pub fn broken_promises(&self) -> Option<Verification> {
        self.verification
            .filter(|v| v.lost + v.duplicates + v.reordered + v.corrupt > 0)
    }
}

/// A histogram as base64 of its compressed V2 form.
mod encoded {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        histogram: &Histogram<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Histogram<u64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        HistogramReader::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(serde::de::Error::custom)
    }
}

/// Pairs as an object that keeps their order.
mod pairs {
    use std::fmt;

    use serde::de::{MapAccess, Visitor};

    use super::*;

    pub(super) fn serialize<S: Serializer>(
        pairs: &[(String, String)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, String)>, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, String)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}
