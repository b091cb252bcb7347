//! `$SYS/broker/...`: what the broker tells about itself by MQTT, under mosquitto's names.
//!
//! Each shard reports its counters to shard 0, which adds them up and publishes what changed as
//! retained messages.

use std::collections::BTreeMap;

use crate::message::MessageView;
use crate::route::ShardId;
use crate::stats::Stats;
use crate::time::Time;
use crate::topic::Name;
use crate::wire::QoS;

use super::batch::Control;
use super::publish::Publisher;
use super::{Outbox, Shard};

/// The shard that publishes.
const PUBLISHER: usize = 0;

/// What was reported and published.
pub(super) struct Sys {
    reports: Vec<Stats>,
    published: BTreeMap<&'static str, String>,
    started: Time,
    due: Time,
}

impl Sys {
    pub(super) fn new(shards: usize, now: Time) -> Self {
        Self {
            reports: vec![Stats::default(); shards],
            published: BTreeMap::new(),
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
        let uptime = now.micros_since(self.started) / 1_000_000;
        let mut values = topics(&sum);
        values.push((
            "$SYS/broker/version",
            format!("shardmq version {}", env!("CARGO_PKG_VERSION")),
        ));
        values.push(("$SYS/broker/uptime", format!("{uptime} seconds")));
        values.retain(|(topic, value)| self.published.get(topic) != Some(value));
        self.published.extend(values.iter().cloned());
        values
    }
}

/// Topics and values, as mosquitto 2 names and formats them.
fn topics(sum: &Stats) -> Vec<(&'static str, String)> {
    let disconnected = sum.sessions.saturating_sub(sum.clients_connected);
    let dropped: u64 = sum.dropped.iter().sum();
    [
        ("$SYS/broker/clients/total", sum.sessions),
        ("$SYS/broker/clients/connected", sum.clients_connected),
        ("$SYS/broker/clients/active", sum.clients_connected),
        ("$SYS/broker/clients/disconnected", disconnected),
        ("$SYS/broker/clients/inactive", disconnected),
        ("$SYS/broker/clients/maximum", sum.clients_maximum),
        ("$SYS/broker/clients/expired", sum.sessions_expired),
        ("$SYS/broker/messages/received", sum.packets_received),
        ("$SYS/broker/messages/sent", sum.packets_sent),
        (
            "$SYS/broker/publish/messages/received",
            sum.publishes_received,
        ),
        ("$SYS/broker/publish/messages/sent", sum.publishes_sent),
        ("$SYS/broker/publish/messages/dropped", dropped),
        (
            "$SYS/broker/publish/bytes/received",
            sum.publish_bytes_received,
        ),
        ("$SYS/broker/publish/bytes/sent", sum.publish_bytes_sent),
        ("$SYS/broker/bytes/received", sum.bytes_received),
        ("$SYS/broker/bytes/sent", sum.bytes_sent),
        ("$SYS/broker/subscriptions/count", sum.subscriptions),
        (
            "$SYS/broker/shared_subscriptions/count",
            sum.shared_subscriptions,
        ),
        ("$SYS/broker/retained messages/count", sum.retained),
        ("$SYS/broker/messages/stored", sum.retained + sum.queued),
        (
            "$SYS/broker/store/messages/count",
            sum.retained + sum.queued,
        ),
        (
            "$SYS/broker/store/messages/bytes",
            sum.retained_bytes + sum.queued_bytes,
        ),
    ]
    .map(|(topic, value)| (topic, value.to_string()))
    .into()
}

impl Shard {
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
