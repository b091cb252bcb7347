//! `/status`: whether every shard answers, and how each stands, as JSON.

use serde_json::{Value, json};

use crate::stats::{Histogram, Stats};

use super::super::admin::Answer;
use super::super::meters::Meters;
use super::Facts;

/// Version of the format. A reader may rely on what is there; new keys may come without a new number.
const FORMAT: u32 = 1;

/// The text.
pub(super) fn render(answers: &[Option<Answer>], facts: &Facts) -> String {
    let listeners: Vec<Value> = facts
        .listeners
        .iter()
        .map(|listening| {
            json!({
                "name": listening.name,
                "scheme": listening.scheme,
                "address": listening.place.to_string(),
            })
        })
        .collect();
    let shards: Vec<Value> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| shard(index, facts.cpus.get(index), answer.as_ref()))
        .collect();
    let status = json!({
        "format": FORMAT,
        "healthy": answers.iter().all(is_healthy),
        "version": env!("CARGO_PKG_VERSION"),
        "driver": facts.driver,
        "driver_detail": facts.driver_detail,
        "kernel": facts.kernel,
        "uptime_seconds": facts.clock.now().as_micros() as f64 / 1e6,
        "max_connections": facts.max_connections,
        "listeners": listeners,
        "all": all(answers),
        "shards": shards,
    });
    format!("{status:#}\n")
}

/// A shard that answers, and whose disk has not failed.
fn is_healthy(answer: &Option<Answer>) -> bool {
    let answer = answer.as_ref();
    answer.is_some_and(|answer| answer.snapshot.stats.durable_failed == 0)
}

fn shard(index: usize, cpu: Option<&usize>, answer: Option<&Answer>) -> Value {
    let Some(Answer { snapshot, took }) = answer else {
        return json!({ "shard": index, "cpu": cpu, "up": false });
    };
    let mut status = counters(&snapshot.stats, &snapshot.meters);
    status["shard"] = json!(index);
    status["cpu"] = json!(cpu);
    status["up"] = json!(true);
    status["answer_seconds"] = json!(took.as_secs_f64());
    status
}

/// All shards that answered, together.
fn all(answers: &[Option<Answer>]) -> Value {
    let mut stats = Stats::default();
    let mut meters = Meters::default();
    for answer in answers.iter().flatten() {
        stats.add(&answer.snapshot.stats);
        meters.add(&answer.snapshot.meters);
    }
    counters(&stats, &meters)
}

fn counters(stats: &Stats, meters: &Meters) -> Value {
    json!({
        "connections": stats.connections,
        "clients_connected": stats.clients_connected,
        "sessions": stats.sessions,
        "subscriptions": stats.subscriptions,
        "retained_messages": stats.retained,
        "queued_messages": stats.queued,
        "queued_bytes": stats.queued_bytes,
        "durable_waiting_bytes": stats.durable_waiting_bytes,
        "durable_full": stats.durable_full > 0,
        "durable_failed": stats.durable_failed > 0,
        "held_bytes": meters.mesh_held_bytes,
        "turn_seconds": quantiles(&meters.turn_time),
        "publish_latency_seconds": quantiles(&meters.publish_latency),
        "hop_seconds": quantiles(&meters.hop_time),
    })
}

/// Some quantiles since the start; null without any, and where it is above the range.
fn quantiles(histogram: &Histogram) -> Value {
    let quantile = |share| histogram.quantile_us(share).map(|us| us as f64 / 1e6);
    json!({
        "count": histogram.count(),
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::super::admin::Snapshot;
    use super::super::super::clock::Clock;
    use super::super::super::listener::{Listening, Place};
    use super::super::super::tls::Told;
    use super::super::metrics;
    use super::*;
    use crate::shard::Loads;

    fn facts() -> Facts {
        Facts {
            driver: "epoll",
            driver_detail: String::from("epoll, \"as configured\""),
            kernel: String::from("6.12"),
            cpus: vec![0, 3],
            listeners: vec![Listening {
                name: String::from("local"),
                scheme: "mqtt",
                place: Place::Tcp("127.0.0.1:1883".parse().unwrap()),
            }],
            certificates: Told::default(),
            max_connections: 7,
            clock: Clock::start(),
            backups: Arc::default(),
        }
    }

    #[test]
    fn a_shard_that_does_not_answer_is_told_as_down_and_the_others_as_they_are() {
        let mut stats = Stats {
            connections: 5,
            ..Stats::default()
        };
        stats.publishes_received[1] = 9;
        let mut meters = Meters::default();
        meters.turn_time.record(100, 1_000);
        let snapshot = Box::new(Snapshot {
            stats,
            meters,
            loads: Loads::default(),
        });
        let answered = Answer {
            snapshot,
            took: Duration::from_micros(20),
        };
        let answers = [None, Some(answered)];
        let status: Value = serde_json::from_str(&render(&answers, &facts())).unwrap();
        assert_eq!(status["healthy"], false);
        assert_eq!(
            status["shards"][0],
            json!({ "shard": 0, "cpu": 0, "up": false })
        );
        assert_eq!(status["shards"][1]["connections"], 5);
        assert_eq!(status["all"]["turn_seconds"]["count"], 1_000);
        let p99 = status["shards"][1]["turn_seconds"]["p99"].as_f64();
        assert!(
            p99.is_some_and(|p99| (1.0e-4..=1.25e-4).contains(&p99)),
            "{p99:?}"
        );

        let text = metrics::render(&answers, &facts(), true);
        for line in [
            "shardmq_shard_up{shard=\"0\"} 0",
            "shardmq_shard_up{shard=\"1\"} 1",
            "shardmq_publishes_received_total{shard=\"1\",qos=\"1\"} 9",
            "broker_publish_messages_received 9",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}");
        }
        assert!(
            !text.contains("connections{shard=\"0\""),
            "what it did not say is not made up"
        );
        assert!(
            text.contains("driver_detail=\"epoll, \\\"as configured\\\"\""),
            "{text}"
        );
    }
}
