//! What people are told about a data directory.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use shardmq::runtime::store::{Amount, Backup, Examined, HistoryExamined, Repaired, ShardExamined};

/// How much there is, and what is wrong; so many `others` were told.
pub(super) fn examined(examined: &Examined, others: usize) -> String {
    let mut text = String::new();
    for shard in &examined.shards {
        summary(shard, &mut text);
        for fault in &shard.faults {
            line(&mut text, format_args!("  damage: {fault}"));
        }
        if let Some(tail) = &shard.tail {
            line(
                &mut text,
                format_args!(
                    "  note: {}, offset {}: the log ends in a frame that is not whole. A write was cut off \
                     before anybody was told of it, or the last commit is damaged",
                    tail.path.display(),
                    tail.loss.damage.offset
                ),
            );
        }
    }
    for problem in &examined.problems {
        line(&mut text, format_args!("damage: {problem}"));
    }
    let faults: usize = examined.shards.iter().map(|shard| shard.faults.len()).sum();
    match faults + examined.problems.len() + others {
        0 => line(&mut text, "nothing is wrong"),
        1 => line(&mut text, "damaged in one place"),
        count => line(&mut text, format_args!("damaged in {count} places")),
    }
    text
}

/// How much history there is, and what is wrong with it.
pub(super) fn history(streams: &[HistoryExamined]) -> String {
    let mut text = String::new();
    for stream in streams {
        line(
            &mut text,
            format_args!(
                "history {}: {} messages in {} buckets of {} bytes",
                stream.name, stream.messages, stream.buckets, stream.bytes
            ),
        );
        let damage: Vec<_> = stream.damage().collect();
        for (path, fault) in &stream.faults {
            let what = match damage.iter().any(|(_, damage)| damage == fault) {
                true => "damage",
                false => "note",
            };
            let path = path.display();
            let (offset, told) = (fault.offset, &fault.what);
            line(
                &mut text,
                format_args!("  {what}: {path}, offset {offset}: {told}"),
            );
        }
    }
    text
}

fn summary(shard: &ShardExamined, text: &mut String) {
    let extent = &shard.extent;
    line(
        text,
        format_args!(
            "{}: {} files, {} segments, {} frames; {} sessions, {} subscriptions, {} messages for {} \
             deliveries, {} retained; {} bytes live of {} used of {}",
            shard.directory.display(),
            extent.files,
            extent.segments,
            extent.frames,
            shard.sessions,
            shard.subscriptions,
            shard.messages,
            shard.deliveries,
            shard.retained,
            shard.live_bytes,
            extent.used,
            extent.bytes
        ),
    );
}

/// What a repair kept, and what it could not.
pub(super) fn repaired(repaired: &Repaired) -> String {
    let mut text = examined(&repaired.examined, 0);
    if !repaired.done {
        line(&mut text, "nothing was changed");
        return text;
    }
    for shard in &repaired.examined.shards {
        let superseded = &shard.superseded;
        for (count, what) in [
            (
                superseded.sessions,
                "sessions that a younger one of their client took the place of",
            ),
            (
                superseded.retained,
                "retained messages that a younger one of their topic took the place of",
            ),
            (
                superseded.rest,
                "subscriptions, packet identifiers and exchanges of which a younger one is there",
            ),
        ] {
            if count > 0 {
                line(&mut text, format_args!("left out: {count} {what}"));
            }
        }
    }
    let sum = |of: fn(&ShardExamined) -> usize| -> usize {
        repaired.examined.shards.iter().map(of).sum()
    };
    line(
        &mut text,
        format_args!(
            "kept: {} sessions, {} subscriptions, {} messages for {} deliveries, {} retained",
            sum(|shard| shard.sessions),
            sum(|shard| shard.subscriptions),
            sum(|shard| shard.messages),
            sum(|shard| shard.deliveries),
            sum(|shard| shard.retained)
        ),
    );
    match &repaired.kept {
        Some(path) => line(
            &mut text,
            format_args!("the damaged files are in {}", path.display()),
        ),
        None => line(&mut text, "the damaged files were removed"),
    }
    text
}

/// How far a backup is.
pub(super) fn progress(copied: u64, all: u64) -> String {
    let percent = copied * 100 / all.max(1);
    format!("{percent} % of {} MiB are copied", all >> 20)
}

/// A backup.
pub(super) fn taken(backup: &Backup, to: &Path, took: Duration) -> String {
    let mut text = String::new();
    for shard in &backup.shards {
        summary(shard, &mut text);
    }
    text += &history(&backup.history);
    let damaged: usize = backup
        .history
        .iter()
        .map(|stream| stream.damage().count())
        .sum();
    if damaged > 0 {
        line(
            &mut text,
            format_args!(
                "the history was damaged in so many places before it was copied: {damaged}"
            ),
        );
    }
    if backup.history_missing > 0 {
        line(
            &mut text,
            format_args!(
                "the broker could not write its history in time: {} messages are not in the copy",
                backup.history_missing
            ),
        );
    }
    line(
        &mut text,
        format_args!(
            "{} bytes in {}, verified, in {:.1} s",
            backup.bytes,
            to.display(),
            took.as_secs_f64()
        ),
    );
    if let Some(held) = backup.held {
        line(
            &mut text,
            format_args!(
                "the broker held its commits for {:.1} ms",
                held.as_secs_f64() * 1e3
            ),
        );
    }
    text
}

pub(super) fn exported(amount: &Amount, path: &Path) -> String {
    format!("{} in {}\n", contents(amount), path.display())
}

/// What an export holds. Most brokers keep no history, and need not be told so.
fn contents(amount: &Amount) -> String {
    let Amount {
        sessions,
        messages,
        records,
        ..
    } = amount;
    match records {
        0 => format!("{sessions} sessions and {messages} messages"),
        _ => format!("{sessions} sessions, {messages} messages and {records} of history"),
    }
}

pub(super) fn imported(amount: &Amount) -> String {
    let mut text = format!("{}\n", contents(amount));
    if amount.left_out > 0 {
        line(
            &mut text,
            format_args!(
                "left out: {} things that have no place here",
                amount.left_out
            ),
        );
    }
    text
}

fn line(text: &mut String, what: impl std::fmt::Display) {
    let _ = writeln!(text, "{what}");
}
