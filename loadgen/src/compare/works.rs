//! The works of a comparison: rows of the table, each a scenario of the generator.

use std::time::Duration;

use super::brokers;

/// What a work is judged by, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Messages delivered per second.
    Rate,
    /// CPU time of the broker for each of them.
    Cpu,
    /// System calls of the broker for each of them.
    Syscalls,
    /// Context switches of the broker for each of them.
    Switches,
    /// Median latency.
    P50,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Largest latency; of connections that all begin at once, the time until the last one is made.
    Max,
    /// Mean latency.
    Mean,
    /// Memory for each connection.
    Memory,
    /// Connections per second.
    Connects,
    /// Connections that failed.
    Failed,
}

impl Metric {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Rate,
        Self::Cpu,
        Self::Syscalls,
        Self::Switches,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::Max,
        Self::Mean,
        Self::Memory,
        Self::Connects,
        Self::Failed,
    ];

    /// Its name in `compare.json`, with the unit.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Rate => "received_per_s",
            Self::Cpu => "cpu_ns_per_message",
            Self::Syscalls => "syscalls_per_message",
            Self::Switches => "context_switches_per_message",
            Self::P50 => "p50_ns",
            Self::P99 => "p99_ns",
            Self::P999 => "p999_ns",
            Self::Max => "max_ns",
            Self::Mean => "mean_ns",
            Self::Memory => "bytes_per_connection",
            Self::Connects => "connects_per_s",
            Self::Failed => "connects_failed",
        }
    }

    /// Its name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "delivered/s",
            Self::Cpu => "CPU/message",
            Self::Syscalls => "syscalls/msg",
            Self::Switches => "switches/msg",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Memory => "memory/conn",
            Self::Connects => "connects/s",
            Self::Failed => "failed",
        }
    }

    /// A value for people.
    pub(crate) fn show(self, value: f64) -> String {
        use crate::report::units;
        match self {
            Self::Rate | Self::Connects => units::si(value),
            Self::Cpu | Self::P50 | Self::P99 | Self::P999 | Self::Max | Self::Mean => {
                units::nanoseconds(value)
            }
            Self::Syscalls | Self::Switches | Self::Failed => units::three_digits(value),
            Self::Memory => units::bytes(value),
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Its letter in the table, and what sets it apart from others of that letter.
    pub(crate) key: &'static str,
    /// What is done.
    pub(crate) title: &'static str,
    /// Name of the scenario.
    pub(crate) scenario: &'static str,
    /// Messages per second, where the scenario's own rate is not meant.
    pub(crate) rate: Option<u32>,
    /// The metrics by which it is judged; the first one stands for it in plots.
    pub(crate) metrics: &'static [Metric],
    /// Brokers that it is for; empty for all.
    pub(crate) only: &'static [&'static str],
    /// What it may take beyond its duration.
    pub(crate) patience: Duration,
}

use Metric::{Connects, Cpu, Failed, Max, Mean, Memory, P50, P99, P999, Rate};

const SATURATED: &[Metric] = &[Cpu, Rate];
const PACED: &[Metric] = &[Cpu, P50, P99, P999];

/// All works, in the order of the table.
pub(crate) const WORKS: &[Work] = &[
    work("A", "8 → 8, QoS 0, saturated", "saturate", SATURATED),
    paced("B20k", "2,000 connections, 20k/s", "paced-2000", 20_000),
    paced("B50k", "2,000 connections, 50k/s", "paced-2000", 50_000),
    paced("B100k", "2,000 connections, 100k/s", "paced-2000", 100_000),
    paced(
        "B20k-8000",
        "8,000 connections, 20k/s",
        "paced-8000",
        20_000,
    ),
    paced(
        "B50k-8000",
        "8,000 connections, 50k/s",
        "paced-8000",
        50_000,
    ),
    paced(
        "B100k-8000",
        "8,000 connections, 100k/s",
        "paced-8000",
        100_000,
    ),
    work(
        "C",
        "QoS 1, 1,000 pairs, one in flight each",
        "qos1-pairs-1000",
        &[Cpu, Mean, P99, Rate],
    ),
    work("C1", "QoS 1, 1 → 1, 100 in flight", "qos1-1-1", SATURATED),
    work(
        "C100",
        "QoS 1, 100 → 100, 20 in flight each",
        "qos1-100-100",
        SATURATED,
    ),
    work("D", "fan-out 1 → 1,000, 100/s", "fanout-1000", PACED),
    work(
        "Dsat",
        "fan-out 1 → 1,000, saturated",
        "fanout-1000-saturated",
        SATURATED,
    ),
    work("E", "ping-pong, 1 connection", "pingpong", &[P50, P99, Cpu]),
    work("F1", "QoS 2, 1 → 1, 50 in flight", "qos2-1-1", SATURATED),
    work(
        "F100",
        "QoS 2, 100 → 100, 10 in flight each",
        "qos2-100-100",
        SATURATED,
    ),
    work(
        "G",
        "15,000 idle connections, one subscription each",
        "idle-15000",
        &[Memory, Connects, Failed],
    ),
    work(
        "H",
        "connect storm, 10,000 clients",
        "storm-10000",
        &[Max, P99, P50, Failed],
    ),
    Work {
        only: &["shardmq", "shardmq-2-shards"],
        ..work(
            "I",
            "8 → 8, QoS 0, saturated: 1 shard, and 2 with half of it between them",
            "saturate",
            SATURATED,
        )
    },
    work(
        "J",
        "10,000/s and a subscriber that stops reading",
        "slow-reader",
        &[P50, P99, Rate],
    ),
    work(
        "J0",
        "the same without that subscriber",
        "slow-reader-none",
        &[P50, P99, Rate],
    ),
];

const fn work(
    key: &'static str,
    title: &'static str,
    scenario: &'static str,
    metrics: &'static [Metric],
) -> Work {
    Work {
        key,
        title,
        scenario,
        rate: None,
        metrics,
        only: &[],
        patience: Duration::from_secs(60),
    }
}

const fn paced(key: &'static str, title: &'static str, scenario: &'static str, rate: u32) -> Work {
    Work {
        rate: Some(rate),
        ..work(key, title, scenario, PACED)
    }
}

impl Work {
    /// Arguments of the generator, without those about the broker and the run's length.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["run".to_owned(), self.scenario.to_owned()];
        if let Some(rate) = self.rate {
            arguments.extend(["--rate".to_owned(), rate.to_string()]);
        }
        arguments
    }

    /// Whether it is for the broker of this name.
    pub(crate) fn is_for(&self, broker: &str) -> bool {
        (self.only.is_empty() || self.only.contains(&broker)) && brokers::is_for(broker, self.key)
    }
}

/// The works that a list of keys means; a letter stands for all that begin with it.
pub(crate) fn select(list: &[String]) -> Result<Vec<&'static Work>, String> {
    if list.is_empty() || list.iter().any(|key| key == "all") {
        return Ok(WORKS.iter().collect());
    }
    for key in list {
        if !WORKS.iter().any(|work| means(key, work)) {
            let known: Vec<&str> = WORKS.iter().map(|work| work.key).collect();
            return Err(format!("no work {key:?}; there are {}", known.join(", ")));
        }
    }
    Ok(WORKS
        .iter()
        .filter(|work| list.iter().any(|key| means(key, work)))
        .collect())
}

fn means(key: &str, work: &Work) -> bool {
    key == work.key || key.len() == 1 && work.key.starts_with(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_selected_in_the_order_of_the_table() {
        let keys = |list: &[&str]| -> Vec<&str> {
            let list: Vec<String> = list.iter().map(|&key| key.to_owned()).collect();
            select(&list)
                .unwrap()
                .into_iter()
                .map(|work| work.key)
                .collect()
        };
        assert_eq!(keys(&["C", "A"]), ["A", "C", "C1", "C100"]);
        assert_eq!(keys(&["B50k"]), ["B50k"]);
        assert_eq!(keys(&["all"]).len(), WORKS.len());
        assert!(select(&["Z".to_owned()]).unwrap_err().contains("B20k"));
    }

    #[test]
    fn keys_are_unique() {
        for (at, work) in WORKS.iter().enumerate() {
            assert!(
                WORKS.iter().skip(at + 1).all(|other| other.key != work.key),
                "{}",
                work.key
            );
        }
    }

    #[test]
    fn the_rate_is_an_argument() {
        let work = select(&["B50k".to_owned()]).unwrap()[0];
        assert_eq!(work.arguments(), ["run", "paced-2000", "--rate", "50000"]);
        assert!(work.is_for("nats"));
        let cross = select(&["I".to_owned()]).unwrap()[0];
        assert!(!cross.is_for("nats") && cross.is_for("shardmq"));
    }
}
