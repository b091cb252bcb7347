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
        .map(|(name, address)| json!({ "name": name, "address": address.to_string() }))
        .collect();
    let shards: Vec<Value> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| shard(index, facts.cpus.get(index), answer.as_ref()))
        .collect();
    let status = json!({
        "format": FORMAT,
        "healthy": answers.iter().all(Option::is_some),
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
