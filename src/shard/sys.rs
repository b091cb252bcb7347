//! `$SYS/broker/...`: what the broker tells about itself by MQTT, under mosquitto's names.
//!
//! Each shard reports its counters to shard 0, which adds them up and publishes what changed as
//! retained messages. What the other shards counted is as old as their last report, one interval at
//! most. The runtime's HTTP thread asks for the same topics, of newer counters ([`system_topics`]).

use std::collections::BTreeMap;

use crate::message::MessageView;
use crate::route::ShardId;
use crate::stats::Stats;
use crate::time::Time;
use crate::topic::Name;
use crate::wire::{PacketType, QoS};

use super::batch::Control;
use super::publish::Publisher;
use super::{Outbox, Shard};

/// The shard that publishes.
const PUBLISHER: usize = 0;

/// Minutes that the load averages go over.
const WINDOWS: [f64; 3] = [1.0, 5.0, 15.0];

/// What [`Loads`] are averages of.
const LOADS: usize = 9;

/// The least change of an average that is published, as it is shown with two decimals.
const LEAST_CHANGE: f64 = 0.01;

macro_rules! load {
    ($name:literal) => {
        [
            concat!("$SYS/broker/load/", $name, "/1min"),
            concat!("$SYS/broker/load/", $name, "/5min"),
            concat!("$SYS/broker/load/", $name, "/15min"),
        ]
    };
}

/// The topics of [`Loads`], in their order.
const LOAD_TOPICS: [[&str; WINDOWS.len()]; LOADS] = [
    load!("messages/received"),
    load!("messages/sent"),
    load!("publish/dropped"),
    load!("publish/received"),
    load!("publish/sent"),
    load!("bytes/received"),
    load!("bytes/sent"),
    load!("sockets"),
    load!("connections"),
];

/// How often things happen in a minute: averages over the last 1, 5 and 15 minutes, in which what is
/// further back weighs exponentially less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loads {
    counted_at: Option<Time>,
    counted: [u64; LOADS],
    averages: [[f64; WINDOWS.len()]; LOADS],
}

impl Loads {
    /// Takes in what was counted until `now`.
    fn update(&mut self, sum: &Stats, now: Time) {
        let counted = [
            sum.packets_received.iter().sum(),
            sum.packets_sent.iter().sum(),
            sum.dropped.iter().sum(),
            sum.publishes_received.iter().sum(),
            sum.publishes_sent.iter().sum(),
            sum.bytes_received,
            sum.bytes_sent,
            sum.connections_opened,
            sum.packets_received[PacketType::Connect as usize],
        ];
        let since = self.counted_at.replace(now);
        let before = std::mem::replace(&mut self.counted, counted);
        let Some(since) = since.filter(|since| *since < now) else {
            return;
        };
        let minutes = now.micros_since(since) as f64 / 60e6;
        for (averages, (now, before)) in self.averages.iter_mut().zip(counted.iter().zip(before)) {
            // A shard may have reported before its last packets were taken back from it.
            let per_minute = now.saturating_sub(before) as f64 / minutes;
            for (average, window) in averages.iter_mut().zip(WINDOWS) {
                let kept = (-minutes / window).exp();
                *average = per_minute + kept * (*average - per_minute);
            }
        }
    }
}

/// Memory of the process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub current: u64,
    /// The most so far.
    pub maximum: u64,
}

/// What was reported and published.
pub(super) struct Sys {
    reports: Vec<Stats>,
    published: BTreeMap<&'static str, String>,
    loads: Loads,
    memory: Option<Memory>,
    started: Time,
    due: Time,
}

impl Sys {
    pub(super) fn new(shards: usize, now: Time) -> Self {
        Self {
            reports: vec![Stats::default(); shards],
            published: BTreeMap::new(),
            loads: Loads::default(),
            memory: None,
            started: now,
            due: now,
        }
    }

    /// Whether the interval has passed; begins the next one if so.
    pub(super) fn is_due(&mut self, now: Time, interval: u64) -> bool {
        let due = now >= self.due;
        if due {
            self.due = now.plus_secs(interval);
        }
        due
    }

    /// The counters of another shard.
    pub(super) fn report(&mut self, from: ShardId, stats: Stats) {
        if let Some(report) = self.reports.get_mut(from.index()) {
            *report = stats;
        }
    }

    /// Topics whose values are others than the ones that were published last.
    fn changes(&mut self, now: Time) -> Vec<(&'static str, String)> {
        let mut sum = Stats::default();
        for report in &self.reports {
            sum.add(report);
        }
        self.loads.update(&sum, now);
        let uptime = now.micros_since(self.started) / 1_000_000;
        let mut values = system_topics(&sum, &self.loads, self.memory, uptime);
        values.retain(|(topic, value)| match self.published.get(topic) {
            Some(published) if topic.starts_with("$SYS/broker/load/") => {
                let distance =
                    |a: &str, b: &str| Some(a.parse::<f64>().ok()? - b.parse::<f64>().ok()?);
                // Half of it, because neither decimal fraction is exact.
                distance(value, published).is_none_or(|d| d.abs() > LEAST_CHANGE / 2.0)
            }
            published => published != Some(value),
        });
        self.published.extend(values.iter().cloned());
        values
    }
}

/// All topics and their values, as mosquitto 2 names and formats them.
#[must_use]
pub fn system_topics(
    sum: &Stats,
    loads: &Loads,
    memory: Option<Memory>,
    uptime_seconds: u64,
) -> Vec<(&'static str, String)> {
    let disconnected = sum.sessions.saturating_sub(sum.clients_connected);
    let stored = sum.retained + sum.queued;
    let numbers = [
        ("$SYS/broker/clients/total", sum.sessions),
        ("$SYS/broker/clients/connected", sum.clients_connected),
        ("$SYS/broker/clients/active", sum.clients_connected),
        ("$SYS/broker/clients/disconnected", disconnected),
        ("$SYS/broker/clients/inactive", disconnected),
        ("$SYS/broker/clients/maximum", sum.clients_maximum),
        ("$SYS/broker/clients/expired", sum.sessions_expired),
        (
            "$SYS/broker/messages/received",
            sum.packets_received.iter().sum(),
        ),
        ("$SYS/broker/messages/sent", sum.packets_sent.iter().sum()),
        (
            "$SYS/broker/publish/messages/received",
            sum.publishes_received.iter().sum(),
        ),
        (
            "$SYS/broker/publish/messages/sent",
            sum.publishes_sent.iter().sum(),
        ),
        (
            "$SYS/broker/publish/messages/dropped",
            sum.dropped.iter().sum(),
        ),
        (
            "$SYS/broker/publish/bytes/received",
            sum.publish_bytes_received.iter().sum(),
        ),
        (
            "$SYS/broker/publish/bytes/sent",
            sum.publish_bytes_sent.iter().sum(),
        ),
        ("$SYS/broker/bytes/received", sum.bytes_received),
        ("$SYS/broker/bytes/sent", sum.bytes_sent),
        ("$SYS/broker/subscriptions/count", sum.subscriptions),
        (
            "$SYS/broker/shared_subscriptions/count",
            sum.shared_subscriptions,
        ),
        ("$SYS/broker/retained messages/count", sum.retained),
        ("$SYS/broker/messages/stored", stored),
        ("$SYS/broker/store/messages/count", stored),
        (
            "$SYS/broker/store/messages/bytes",
            sum.retained_bytes + sum.queued_bytes,
        ),
    ];
    let memory = memory.into_iter().flat_map(|memory| {
        [
            ("$SYS/broker/heap/current", memory.current),
            ("$SYS/broker/heap/maximum", memory.maximum),
        ]
    });
    let mut topics: Vec<(&'static str, String)> = numbers
        .into_iter()
        .chain(memory)
        .map(|(topic, value)| (topic, value.to_string()))
        .collect();
    for (names, averages) in LOAD_TOPICS.iter().zip(&loads.averages) {
        for (name, average) in names.iter().zip(averages) {
            topics.push((name, format!("{average:.2}")));
        }
    }
    topics.push((
        "$SYS/broker/version",
        format!("shardmq version {}", env!("CARGO_PKG_VERSION")),
    ));
    topics.push(("$SYS/broker/uptime", format!("{uptime_seconds} seconds")));
    topics
}

impl Shard {
    /// Says how much memory the process takes: the core cannot know.
    pub fn observe_memory(&mut self, memory: Memory) {
        self.sys.memory = Some(memory);
    }

    /// The load averages, kept by shard 0 while `sys_interval` is not 0.
    #[must_use]
    pub fn loads(&self) -> Loads {
        self.sys.loads
    }

    /// Hands this shard's counters on, and on the publishing shard publishes the sums.
    pub(super) fn report(&mut self, now: Time, out: &mut Outbox) {
        let stats = self.stats();
        if self.identity.shard.index() != PUBLISHER {
            let report = Control::Report(Box::new(stats));
            return self
                .mesh
                .control(ShardId::new(PUBLISHER), report, None, out);
        }
        self.sys.report(self.identity.shard, stats);
        for (topic, value) in self.sys.changes(now) {
            let message = MessageView {
                topic: Name::trusted(topic),
                properties: &[],
                payload: value.as_bytes(),
                qos: QoS::AtMostOnce,
                retain: true,
                expires_at: Time::NEVER,
            };
            self.publish(&message, None, Publisher::BROKER, now, out);
        }
    }
}
