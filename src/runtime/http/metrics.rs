//! `/metrics`: the counters of all shards in the text format of Prometheus.

use crate::shard::{Memory, system_topics};
use crate::stats::{Exposition, Family, Kind, Label, Stats, Value};

use std::sync::atomic::Ordering;

use super::super::admin::Answer;
use super::super::control::Backups;
use super::super::meters::Meters;
use super::super::sys;
use super::{Facts, process};

/// What the exporter that public dashboards were made for shows as counters; the rest are gauges.
const MOSQUITTO_COUNTERS: [&str; 7] = [
    "$SYS/broker/bytes/received",
    "$SYS/broker/bytes/sent",
    "$SYS/broker/messages/received",
    "$SYS/broker/messages/sent",
    "$SYS/broker/publish/messages/received",
    "$SYS/broker/publish/messages/sent",
    "$SYS/broker/publish/messages/dropped",
];

/// What that exporter leaves out.
const MOSQUITTO_LEFT_OUT: [&str; 3] = [
    "$SYS/broker/version",
    "$SYS/broker/clients/active",
    "$SYS/broker/clients/inactive",
];

const BUILD: Family = Family {
    name: "shardmq_build_info",
    kind: Kind::Gauge,
    label: Some(Label {
        name: "version, driver, driver_detail, kernel",
        values: &[],
    }),
    help: &["Which program this is, how it drives the network, and on which kernel; always 1."],
};
const UPTIME: Family = Family {
    name: "shardmq_uptime_seconds",
    kind: Kind::Gauge,
    label: None,
    help: &["Time since the start."],
};
const MAX_CONNECTIONS: Family = Family {
    name: "shardmq_max_connections",
    kind: Kind::Gauge,
    label: None,
    help: &["Connections that there may be at a time, of all shards together."],
};
const UP: Family = Family {
    name: "shardmq_shard_up",
    kind: Kind::Gauge,
    label: None,
    help: &[
        "Whether the shard answered in time; 0 means that its other series are missing because it",
        "is overloaded or stands still.",
    ],
};
const ANSWERED: Family = Family {
    name: "shardmq_shard_answer_seconds",
    kind: Kind::Gauge,
    label: None,
    help: &["How long the shard took to answer this very question, between two of its turns."],
};

const CERTIFICATE_END: Family = Family {
    name: "shardmq_tls_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    label: Some(Label {
        name: "listener, file",
        values: &[],
    }),
    help: &[
        "When the first certificate or list of revocations in a file expires, in seconds since 1970.",
    ],
};
const RELOADS: Family = Family {
    name: "shardmq_tls_reloads_total",
    kind: Kind::Counter,
    label: Some(Label {
        name: "result",
        values: &["ok", "failed"],
    }),
    help: &[
        "Times that the certificates of a listener were read again: taken, or found of no use and",
        "those from before kept.",
    ],
};

const BACKUPS: Family = Family {
    name: "shardmq_backups_total",
    kind: Kind::Counter,
    label: Some(Label {
        name: "result",
        values: &["ok", "failed"],
    }),
    help: &["Backups that were taken and verified while the broker ran, and those that were not."],
};
const BACKUP_TIME: Family = Family {
    name: "shardmq_backup_timestamp_seconds",
    kind: Kind::Gauge,
    label: None,
    help: &[
        "When the last backup was verified, in seconds since 1970; 0 for none since the start.",
    ],
};
const BACKUP_BYTES: Family = Family {
    name: "shardmq_backup_bytes",
    kind: Kind::Gauge,
    label: None,
    help: &["Bytes of journals and history in the last backup."],
};
const BACKUP_HELD: Family = Family {
    name: "shardmq_backup_held_seconds",
    kind: Kind::Gauge,
    label: None,
    help: &["How long no shard committed anything for the last backup."],
};

/// What is told of the whole process, and what of each shard besides its counters.
const OF_PROCESS: [Family; 9] = [
    BUILD,
    UPTIME,
    MAX_CONNECTIONS,
    CERTIFICATE_END,
    RELOADS,
    BACKUPS,
    BACKUP_TIME,
    BACKUP_BYTES,
    BACKUP_HELD,
];
const OF_SHARDS: [Family; 2] = [UP, ANSWERED];

/// Everything that `/metrics` can show.
#[must_use]
pub fn families() -> Vec<Family> {
    let lists: [&[Family]; 5] = [
        &OF_PROCESS,
        &process::FAMILIES,
        &OF_SHARDS,
        Stats::FAMILIES,
        Meters::FAMILIES,
    ];
    lists.concat()
}

/// Whether a family is told of the process, not of each shard.
#[must_use]
pub fn is_of_process(family: &Family) -> bool {
    OF_PROCESS.contains(family) || process::FAMILIES.contains(family)
}

/// The text.
pub(super) fn render(answers: &[Option<Answer>], facts: &Facts, compat: bool) -> String {
    let mut exposition = Exposition::default();
    header(&mut exposition, &BUILD);
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("driver", facts.driver),
        ("driver_detail", &facts.driver_detail),
        ("kernel", &facts.kernel),
    ];
    exposition.sample(BUILD.name, &labels, 1);
    header(&mut exposition, &UPTIME);
    let uptime_us = facts.clock.now().as_micros();
    exposition.sample(UPTIME.name, &[], uptime_us as f64 / 1e6);
    header(&mut exposition, &MAX_CONNECTIONS);
    exposition.sample(MAX_CONNECTIONS.name, &[], facts.max_connections);
    certificates(&mut exposition, facts);
    backups(&mut exposition, &facts.backups);
    process::render(&mut exposition);
    header(&mut exposition, &UP);
    for (shard, answer) in answers.iter().enumerate() {
        let up = u8::from(answer.is_some());
        exposition.sample(UP.name, &[("shard", &shard.to_string())], up);
    }
    header(&mut exposition, &ANSWERED);
    for (shard, answer) in answers.iter().enumerate() {
        if let Some(answer) = answer {
            let took = answer.took.as_secs_f64();
            exposition.sample(ANSWERED.name, &[("shard", &shard.to_string())], took);
        }
    }
    exposition.families(
        Stats::FAMILIES,
        &of_each(answers, |a| a.snapshot.stats.values()),
    );
    exposition.families(
        Meters::FAMILIES,
        &of_each(answers, |a| a.snapshot.meters.values()),
    );
    if compat {
        mosquitto(&mut exposition, answers, uptime_us / 1_000_000);
    }
    exposition.finish()
}

fn backups(exposition: &mut Exposition, backups: &Backups) {
    header(exposition, &BACKUPS);
    for (result, count) in [("ok", &backups.succeeded), ("failed", &backups.failed)] {
        let count = count.load(Ordering::Relaxed);
        exposition.sample(BACKUPS.name, &[("result", result)], count);
    }
    header(exposition, &BACKUP_TIME);
    exposition.sample(BACKUP_TIME.name, &[], backups.last.load(Ordering::Relaxed));
    header(exposition, &BACKUP_BYTES);
    let bytes = backups.last_bytes.load(Ordering::Relaxed);
    exposition.sample(BACKUP_BYTES.name, &[], bytes);
    header(exposition, &BACKUP_HELD);
    let held_us = backups.last_held_us.load(Ordering::Relaxed);
    exposition.sample(BACKUP_HELD.name, &[], held_us as f64 / 1e6);
}

fn certificates(exposition: &mut Exposition, facts: &Facts) {
    let telling = facts.certificates.now();
    header(exposition, &CERTIFICATE_END);
    for (listener, file, end) in &telling.ends {
        let file = file.display().to_string();
        let labels = [("listener", listener.as_str()), ("file", &file)];
        exposition.sample(CERTIFICATE_END.name, &labels, end);
    }
    header(exposition, &RELOADS);
    for (result, count) in [("ok", telling.reloads), ("failed", telling.failures)] {
        exposition.sample(RELOADS.name, &[("result", result)], count);
    }
}

fn header(exposition: &mut Exposition, family: &Family) {
    exposition.header(family.name, family.kind.type_name(), &family.help_line());
}

/// The values of each shard that answered.
fn of_each<'a>(
    answers: &'a [Option<Answer>],
    values: impl Fn(&'a Answer) -> Vec<Value<'a>>,
) -> Vec<(String, Vec<Value<'a>>)> {
    let answered = answers.iter().enumerate();
    let answered = answered.filter_map(|(shard, answer)| Some((shard, answer.as_ref()?)));
    answered
        .map(|(shard, answer)| (shard.to_string(), values(answer)))
        .collect()
}

/// The topics of `$SYS` as series, named as the exporter for mosquitto names them.
fn mosquitto(exposition: &mut Exposition, answers: &[Option<Answer>], uptime_seconds: u64) {
    let mut sum = Stats::default();
    for answer in answers.iter().flatten() {
        sum.add(&answer.snapshot.stats);
    }
    // Shard 0 keeps the averages.
    let first = answers.first().and_then(Option::as_ref);
    let loads = first
        .map(|answer| answer.snapshot.loads)
        .unwrap_or_default();
    let memory: Option<Memory> = sys::memory();
    for (topic, value) in system_topics(&sum, &loads, memory, uptime_seconds) {
        if MOSQUITTO_LEFT_OUT.contains(&topic) {
            continue;
        }
        let name = topic.trim_start_matches("$SYS/").replace(['/', ' '], "_");
        let type_name = match MOSQUITTO_COUNTERS.contains(&topic) {
            true => "counter",
            false => "gauge",
        };
        exposition.header(&name, type_name, topic);
        let number = value.split(' ').next().unwrap_or_default();
        exposition.sample(&name, &[], number);
    }
}
