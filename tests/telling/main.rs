//! What the broker tells about itself, read from outside while clients are at work.

#![cfg(feature = "runtime")]
#![expect(clippy::unwrap_used, reason = "a test that cannot do its work fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for what another process does"
)]

mod http;
mod program;
mod system;

use std::collections::{BTreeMap, BTreeSet};

use program::{Broker, Client};

/// The text of Prometheus, read strictly.
struct Metrics {
    /// Types of families.
    types: BTreeMap<String, String>,
    /// Values by name and labels.
    series: BTreeMap<String, f64>,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let mut helped = BTreeSet::new();
        let mut types = BTreeMap::new();
        let mut series = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(helped.contains(name), "no HELP before {line}");
                types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (key, value) = line.rsplit_once(' ').unwrap();
                let name = key.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|suffix| name.strip_suffix(suffix))
                    .find(|family| types.get(*family).is_some_and(|kind| kind == "histogram"))
                    .unwrap_or(name);
                assert!(types.contains_key(family), "no TYPE before {line}");
                let value = value.parse().unwrap();
                assert!(
                    series.insert(key.to_owned(), value).is_none(),
                    "twice: {line}"
                );
            }
        }
        Self { types, series }
    }

    /// The sum of a family over its shards, of those with these labels.
    fn sum(&self, name: &str, labels: &str) -> u64 {
        let of_family = self
            .series
            .iter()
            .filter(|(key, _)| key.split('{').next() == Some(name) && key.contains(labels));
        of_family.map(|(_, value)| *value as u64).sum()
    }
}

#[test]
fn counters_agree_with_what_clients_did_and_never_run_backwards() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut subscribers: Vec<Client> = (0..8)
        .map(|number| broker.client(&format!("subscriber{number}")))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("load/#", 1);
    }
    let mut publisher = broker.client("publisher");
    let mut before: Option<Metrics> = None;
    for round in 0..20_u16 {
        for _ in 0..50 {
            publisher.publish("load/a", b"0123456789", None);
        }
        publisher.publish("load/b", b"01234", Some(round + 1));
        publisher.expect_puback();
        let metrics = Metrics::parse(&broker.get("/metrics").body);
        if let Some(before) = &before {
            for (key, old) in &before.series {
                let name = key.split('{').next().unwrap();
                let kind = before.types.get(name).map_or("histogram", String::as_str);
                if kind != "gauge" {
                    assert!(
                        metrics.series.get(key).is_some_and(|new| new >= old),
                        "{key}"
                    );
                }
            }
        }
        before = Some(metrics);
    }
    for subscriber in &mut subscribers {
        subscriber.receive_publishes(20 * 51);
    }
    let metrics = Metrics::parse(&broker.get("/metrics").body);
    for (name, labels, expected) in [
        ("shardmq_publishes_received_total", "qos=\"0\"", 1_000),
        ("shardmq_publishes_received_total", "qos=\"1\"", 20),
        ("shardmq_publishes_sent_total", "qos=\"0\"", 8_000),
        ("shardmq_publishes_sent_total", "qos=\"1\"", 160),
        ("shardmq_publish_received_payload_bytes_total", "", 10_100),
        ("shardmq_publish_sent_payload_bytes_total", "", 80_800),
        ("shardmq_packets_received_total", "type=\"connect\"", 9),
        ("shardmq_packets_received_total", "type=\"subscribe\"", 8),
        ("shardmq_packets_received_total", "type=\"publish\"", 1_020),
        ("shardmq_packets_sent_total", "type=\"puback\"", 20),
        ("shardmq_packets_sent_total", "type=\"publish\"", 8_160),
        ("shardmq_connects_accepted_total", "", 9),
        ("shardmq_connections_opened_total", "", 9),
        ("shardmq_sockets_accepted_total", "", 9),
        ("shardmq_clients_connected", "", 9),
        ("shardmq_subscriptions", "", 8),
        ("shardmq_publish_latency_seconds_count", "", 8_160),
        ("shardmq_messages_dropped_total", "", 0),
        ("shardmq_shard_up", "", 2),
    ] {
        assert_eq!(metrics.sum(name, labels), expected, "{name} {labels}");
    }
    let clients = subscribers.iter().chain([&publisher]);
    let bytes: u64 = clients.map(|client| client.bytes_sent).sum();
    assert_eq!(metrics.sum("shardmq_received_bytes_total", ""), bytes);
    assert!(
        metrics.sum("shardmq_hop_seconds_count", "") > 0,
        "somebody was on the other shard"
    );
    broker.stop();
}

/// Alerts and the guide name no metric that does not exist.
#[test]
fn what_is_recommended_exists() {
    let documented = include_str!("../../METRICS.md");
    for text in [
        include_str!("../../deploy/prometheus/alerts.yml"),
        include_str!("../../tuning.md"),
        include_str!("../../README.md"),
    ] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("shardmq_")) {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(documented.contains(&format!("`{name}`")), "{word}");
        }
    }
}

#[test]
fn what_is_documented_is_what_is_told() {
    let broker = Broker::start(&[]);
    let metrics = Metrics::parse(&broker.get("/metrics").body);
    let documented: BTreeMap<String, String> = include_str!("../../METRICS.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            (name.to_owned(), rest.split(' ').next().unwrap().to_owned())
        })
        .collect();
    let mut told = metrics.types.clone();
    // Where the kernel does not count them.
    told.entry("process_open_fds".to_owned())
        .or_insert_with(|| "gauge".to_owned());
    assert_eq!(told, documented);
    let with_compat = Metrics::parse(&broker.get("/metrics?compat=mosquitto").body);
    assert!(with_compat.types.len() > metrics.types.len() + 40);
    assert_eq!(with_compat.types["broker_bytes_received"], "counter");
    assert_eq!(with_compat.types["broker_clients_connected"], "gauge");
    broker.stop();
}
