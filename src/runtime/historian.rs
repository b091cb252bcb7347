//! Between a shard's history and its disk: what the loop of a shard does for both.

use crate::history::Log;
use crate::shard::{HistoryDone, Outbox, Shard};
use crate::time::Time;

use super::barrier::HistoryParticipant;
use super::mesh::Ringer;
use super::store::{HistoryDisk, HistoryOptions, StoreError};

/// How long nothing more is said of messages that are dropped.
const TELL_PERIOD_MS: u64 = 10_000;

/// What a shard is to keep of history, and who copies it.
#[derive(Clone, Debug)]
pub(super) struct HistorianOptions {
    pub(super) history: HistoryOptions,
    pub(super) participant: HistoryParticipant,
}

/// The historian of one shard.
#[derive(Debug)]
pub(super) struct Historian {
    shard: u16,
    names: Vec<String>,
    disk: HistoryDisk,
    participant: HistoryParticipant,
    dropped: u64,
    tell_due: Time,
}

impl Historian {
    /// Gives `shard` what earlier runs left, and starts the thread of the disk.
    pub(super) fn open(
        options: HistorianOptions,
        shard: &mut Shard,
        ringer: Ringer,
    ) -> Result<Self, StoreError> {
        let HistorianOptions {
            history: options,
            participant,
        } = options;
        let streams = options.streams.to_vec();
        let names = streams.iter().map(|stream| stream.name.clone()).collect();
        let log = Log::new(options.place, streams, &options.found);
        shard.keep_history(log, options.epoch, options.damaged);
        let disk = HistoryDisk::start(&options, move || ringer.ring());
        let disk = disk.map_err(|error| {
            StoreError::Io("start the thread of", options.directory.clone(), error)
        })?;
        Ok(Self {
            shard: options.place.shard,
            names,
            disk,
            participant,
            dropped: 0,
            tell_due: Time::ZERO,
        })
    }

    /// Takes in what the disk has done.
    pub(super) fn take(&mut self, shard: &mut Shard, now: Time, out: &mut Outbox) {
        while let Some(work) = self.disk.done() {
            let stream = match &work.done {
                HistoryDone::Written(stream, _) => self.names.get(*stream),
                HistoryDone::Scanned(..) => None,
            };
            let stream = stream.map_or("", String::as_str);
            if !shard.history_done(work.done, now, out) {
                continue;
            }
            match work.error {
                Some(error) => tracing::error!(
                    shard = self.shard,
                    stream,
                    error,
                    "history cannot be written: it waits in memory, and what is too much is dropped"
                ),
                None => tracing::warn!(shard = self.shard, stream, "history is written again"),
            }
        }
    }

    /// Gives the disk what there is to do. Comes at the end of a turn.
    pub(super) fn feed(&mut self, shard: &mut Shard, now: Time) {
        self.participant.step(shard, now);
        while let Some(job) = shard.next_history_job(now) {
            self.disk.give(job);
        }
        let dropped = shard.history_dropped();
        if dropped > self.dropped && now >= self.tell_due {
            tracing::error!(
                shard = self.shard,
                messages = dropped - self.dropped,
                "history was dropped: the disk does not take it as fast as it comes"
            );
            self.dropped = dropped;
            self.tell_due = now.plus_millis(TELL_PERIOD_MS);
        }
    }

    /// When to look again although nothing happens.
    pub(super) fn deadline(&self) -> Time {
        self.participant.deadline()
    }
}
