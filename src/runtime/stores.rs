//! What a shard keeps on disk, seen from its loop: the journal by its [`Keeper`], history by its [`Historian`].
//! Where nothing is kept every call does nothing.

use crate::shard::{Outbox, Shard};
use crate::time::Time;

use super::historian::{Historian, HistorianOptions};
use super::keeper::{Keeper, KeeperOptions};
use super::mesh::Ringer;
use super::store::StoreError;

/// What a shard is to keep.
#[derive(Debug)]
pub(super) struct StoresOptions {
    pub(super) keeper: Option<KeeperOptions>,
    pub(super) historian: Option<HistorianOptions>,
}

/// What one shard keeps.
#[derive(Debug)]
pub(super) struct Stores {
    keeper: Option<Keeper>,
    historian: Option<Historian>,
}

impl Stores {
    /// Gives `shard` what there is on disk, and starts the threads that write. What the other shards are to know
    /// of it is in the outbox.
    pub(super) fn open(
        options: StoresOptions,
        shard: &mut Shard,
        ringer: impl Fn() -> Ringer,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Self, StoreError> {
        let keeper = options.keeper;
        let keeper = keeper.map(|keeper| Keeper::open(keeper, shard, ringer(), now, out));
        let keeper = keeper.transpose()?;
        let historian = options.historian;
        let historian = historian.map(|historian| Historian::open(historian, shard, ringer()));
        Ok(Self {
            keeper,
            historian: historian.transpose()?,
        })
    }

    /// Takes in what the disks have done.
    pub(super) fn take(&mut self, shard: &mut Shard, now: Time, out: &mut Outbox) {
        if let Some(keeper) = &mut self.keeper {
            keeper.take(shard, now, out);
        }
        if let Some(historian) = &mut self.historian {
            historian.take(shard, now, out);
        }
    }

    /// Gives the disks what there is to do.
    pub(super) fn feed(&mut self, shard: &mut Shard, now: Time) {
        if let Some(keeper) = &mut self.keeper {
            keeper.feed(shard, now);
        }
        if let Some(historian) = &mut self.historian {
            historian.feed(shard, now);
        }
    }

    /// When to look again although nothing happens.
    pub(super) fn deadline(&self) -> Time {
        let keeper = self.keeper.as_ref().map(Keeper::deadline);
        let historian = self.historian.as_ref().map(Historian::deadline);
        let deadlines = keeper.into_iter().chain(historian);
        deadlines.min().unwrap_or(Time::NEVER)
    }

    /// Whether the disks keep up, so that clients may be read.
    pub(super) fn has_room(shard: &Shard) -> bool {
        shard.kept().is_none_or(Keeper::has_room)
    }

    /// The broker stops: everything is to be written.
    pub(super) fn seal(shard: &mut Shard) {
        if let Some(journal) = shard.journal() {
            journal.seal();
        }
        shard.seal_history();
    }

    /// Whether everything is on disk, or never will be.
    pub(super) fn are_done(shard: &Shard) -> bool {
        shard.kept().is_none_or(Keeper::is_done) && shard.history_is_idle()
    }
}
