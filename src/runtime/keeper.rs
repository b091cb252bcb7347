//! Between a shard's journal and its disk: what the loop of a shard does for both.

use std::time::Duration;

use crate::journal::{Failure, Journal, Sync};
use crate::shard::{Durability, Durable, Epoch, Outbox, Shard};
use crate::time::Time;

use super::barrier::Participant;
use super::mesh::Ringer;
use super::store::{Disk, Done, Files, StoreError};

/// How long a refused file is not asked for again.
const SPACE_PERIOD_MS: u64 = 1_000;

/// How long nothing is appended until the journal is sealed.
const SEAL_AFTER_MS: u64 = 1_000;

/// Bytes that may wait for the disk until clients are not read any longer.
const BACKLOG_BYTES: usize = 8 << 20;

/// What a shard is to keep, and where.
#[derive(Clone, Debug)]
pub(super) struct KeeperOptions {
    pub(super) shard: usize,
    pub(super) files: Files,
    pub(super) durable: Durable,
    /// How often what is not promised is synced.
    pub(super) interval: Duration,
    pub(super) epoch: Epoch,
    pub(super) participant: Participant,
}

/// The keeper of one shard.
#[derive(Debug)]
pub(super) struct Keeper {
    shard: usize,
    disk: Disk,
    participant: Participant,
    /// Microseconds between what is appended and its sync, where nobody waits for that.
    seal_after: u64,
    seal_due: Time,
    space_due: Time,
    told: bool,
}

impl Keeper {
    /// Reads what there is into `shard`, and starts the thread of the disk. Subscriptions are in the
    /// outbox for the other shards.
    pub(super) fn open(
        options: KeeperOptions,
        shard: &mut Shard,
        ringer: Ringer,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Self, StoreError> {
        let KeeperOptions {
            shard: index,
            files,
            durable,
            interval,
            epoch,
            participant,
        } = options;
        let always =
            durable.sessions == Durability::Always || durable.retained == Durability::Always;
        let sync = if always { Sync::Always } else { Sync::OnDemand };
        let loaded = files.load(sync, epoch)?;
        let (sessions, retained) = (
            loaded.recovered.sessions.len(),
            loaded.recovered.retained.len(),
        );
        if sessions + retained > 0 {
            tracing::info!(shard = index, sessions, retained, "durable state was read");
        }
        shard.restore(
            (loaded.journal, loaded.recovered),
            loaded.bodies,
            durable,
            now,
            out,
        );
        let directory = files.directory().to_owned();
        let disk = Disk::start(files, move || ringer.ring())
            .map_err(|error| StoreError::Io("start the thread of", directory, error))?;
        let seal_after = match always {
            true => SEAL_AFTER_MS * 1_000,
            false => u64::try_from(interval.as_micros()).unwrap_or(u64::MAX),
        };
        Ok(Self {
            shard: index,
            disk,
            participant,
            seal_after,
            seal_due: Time::NEVER,
            space_due: Time::NEVER,
            told: false,
        })
    }

    /// Takes in what the disk has done.
    pub(super) fn take(&mut self, shard: &mut Shard, now: Time, out: &mut Outbox) {
        while let Some(done) = self.disk.done() {
            match done {
                Done::Allocated(file, result) => {
                    let Some(journal) = shard.journal() else {
                        continue;
                    };
                    journal.allocated(file, result.is_ok());
                    if let Err(error) = result {
                        self.space_due = now.plus_millis(SPACE_PERIOD_MS);
                        self.tell_full(&error);
                    } else if self.told && !journal.is_full() {
                        self.told = false;
                        tracing::warn!(
                            shard = self.shard,
                            "there is space for durable state again"
                        );
                    }
                }
                Done::Written(write, result) => {
                    if let Err(failure) = result {
                        self.tell_failure(failure);
                    }
                    shard.committed(write, result, out);
                }
                Done::Fetched(fetching, buffers) => {
                    if let Err(damage) = shard.fetched(fetching, &buffers, now, out) {
                        tracing::error!(shard = self.shard, %damage, "a message that waits for a client \
                             cannot be read. Stop the broker, and see `shardmq store verify`");
                    }
                }
                Done::Read(read, bytes) => {
                    let moved = shard
                        .journal()
                        .map_or(Ok(()), |journal| journal.moved(read, &bytes));
                    if let Err(damage) = moved {
                        tracing::error!(shard = self.shard, %damage, "the journal is damaged: it \
                             grows from here on. Stop the broker, and see `shardmq store verify`");
                    }
                }
            }
        }
    }

    /// Gives the disk what there is to do. Comes at the end of a turn.
    pub(super) fn feed(&mut self, shard: &mut Shard, now: Time) {
        while let Some(fetching) = shard.next_fetch() {
            self.disk.fetch(fetching);
        }
        let Some(journal) = shard.journal() else {
            return;
        };
        if self.space_due <= now {
            self.space_due = Time::NEVER;
            journal.space_returned();
        }
        if self.seal_due <= now {
            self.seal_due = Time::NEVER;
            journal.seal();
        } else if journal.backlog() > 0 && self.seal_due == Time::NEVER {
            self.seal_due = now.plus_micros(self.seal_after);
        }
        self.participant.step(journal, now);
        self.disk.feed(journal);
    }

    /// When to look again although nothing happens.
    pub(super) fn deadline(&self) -> Time {
        self.seal_due
            .min(self.space_due)
            .min(self.participant.deadline())
    }

    /// Whether clients may be read.
    pub(super) fn has_room(journal: &Journal) -> bool {
        journal.backlog() <= BACKLOG_BYTES
    }

    /// Whether all that was appended is on disk, or never will be.
    pub(super) fn is_done(journal: &Journal) -> bool {
        journal.durable() >= journal.position() || journal.failure().is_some() || journal.is_full()
    }

    fn tell_full(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(
                shard = self.shard,
                %error,
                "no space for durable state: what needs it is refused until there is"
            );
        }
    }

    fn tell_failure(&self, failure: Failure) {
        let error = match failure {
            Failure::Io(Some(errno)) => std::io::Error::from_raw_os_error(errno).to_string(),
            Failure::Io(None) => String::from("an error without a number"),
            Failure::ShortWrite => String::from("less was written than was given"),
        };
        tracing::error!(
            shard = self.shard,
            error,
            "the disk failed: from here on nothing is acknowledged that has to be durable. What was \
             acknowledged is kept. Stop the broker, look after the disk, and start it again"
        );
    }
}
