//! The streams of one shard: what is appended, written, read and removed.

use std::sync::Arc;

use crate::message::MessageView;
use crate::topic::Filter;

use super::bucket::{BucketHeader, BucketId, Query, Scan, Scanned};
use super::kept::Kept;
use super::range::Micros;
use super::reader::{Cursor, Reader, Step};

/// A stream as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its name, which its directory has too.
    pub name: String,
    /// What is kept.
    pub filter: String,
    /// For how long.
    pub keep: Micros,
    /// How much of it, on all shards.
    pub keep_bytes: u64,
    /// The span of a bucket.
    pub bucket: Micros,
    /// After how long it is written and synced.
    pub interval: Micros,
}

/// The lanes of all streams: those of the shards, and those that an earlier run with more shards left.
pub type Lanes = u16;

/// Names of streams, for whoever works on their files.
pub type Names = Arc<[String]>;

/// Which part of it this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// This shard; its lane has the same number.
    pub shard: u16,
    /// All shards.
    pub shards: u16,
    /// This start of the broker, counted.
    pub run: u32,
    /// All lanes; those from `shards` on are shared out among the shards.
    pub lanes: Lanes,
}

impl Place {
    /// The shard that reads a lane.
    #[must_use]
    pub const fn owner(&self, lane: u16) -> u16 {
        lane % self.shards
    }
}

/// A bucket that an earlier run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says of itself.
    pub header: BucketHeader,
    /// Its bytes.
    pub bytes: u64,
}

/// A block to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The stream, by its place in the configuration.
    pub stream: usize,
    /// Where to.
    pub bucket: BucketId,
    /// What the bucket begins with, if it is to be made.
    pub header: Option<Vec<u8>>,
    /// Where in it.
    pub offset: u64,
    /// What.
    pub bytes: Arc<Vec<u8>>,
    /// Whether it is synced then.
    pub sync: bool,
}

/// A block was not written, or not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure;

/// A bucket to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Of which stream.
    pub stream: usize,
    /// Which one.
    pub bucket: BucketId,
}

/// A bucket that nothing is appended to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which one.
    pub bucket: BucketId,
    /// When its first record was received.
    pub start: Micros,
    /// Its bytes.
    pub bytes: u64,
}

/// What there is of all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were appended.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were dropped because the disk did not keep up.
    pub dropped: u64,
    /// Bytes that wait to be written.
    pub waiting_bytes: u64,
    /// Buckets.
    pub buckets: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// The streams of one shard.
#[derive(Debug)]
pub struct Log {
    place: Place,
    streams: Vec<Kept>,
    removals: Vec<Removal>,
    /// Whether buckets stay that are to be removed: somebody copies them.
    pinned: bool,
    messages: u64,
    bytes: u64,
    dropped: u64,
}

impl Log {
    /// Goes on with what earlier runs left: for each stream the buckets of the lanes that this shard reads.
    #[must_use]
    pub fn new(place: Place, streams: Vec<Stream>, found: &[Vec<Found>]) -> Self {
        let streams = streams.into_iter().enumerate();
        let streams = streams.map(|(index, stream)| {
            let found = found.get(index).map_or(&[][..], Vec::as_slice);
            Kept::new(place, stream, found)
        });
        Self {
            place,
            streams: streams.collect(),
            removals: Vec::new(),
            pinned: false,
            messages: 0,
            bytes: 0,
            dropped: 0,
        }
    }

    /// Which part of it this is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The streams.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().map(Kept::stream)
    }

    /// The first stream that keeps everything that `filter` matches.
    #[must_use]
    pub fn stream_for(&self, filter: Filter<'_>) -> Option<usize> {
        self.streams()
            .position(|stream| Filter::trusted(&stream.filter).covers(filter))
    }

    // What is appended.

    /// Appends messages to a stream.
    pub fn append<'a>(
        &mut self,
        stream: usize,
        now: Micros,
        messages: impl Iterator<Item = (MessageView<'a>, Option<Micros>)>,
    ) {
        let Some(kept) = self.streams.get_mut(stream) else {
            return;
        };
        for (message, expires_at) in messages {
            self.messages += 1;
            self.bytes += kept.append(self.place, now, &message, expires_at) as u64;
        }
        self.dropped += kept.drop_oldest();
    }

    /// When [`Log::tick`] has something to write.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        self.streams.iter().filter_map(Kept::due).min()
    }

    /// What is due is to be written, and synced.
    pub fn tick(&mut self, now: Micros) {
        for kept in &mut self.streams {
            if kept.due().is_some_and(|due| due <= now) {
                kept.seal(true);
            }
        }
    }

    /// Everything is to be written, and synced.
    pub fn seal(&mut self) {
        self.streams.iter_mut().for_each(|kept| kept.seal(true));
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.iter().all(Kept::is_idle)
    }

    // The disk.

    /// The next block to be written; comes again until there is none.
    pub fn next_write(&mut self, now: Micros) -> Option<Write> {
        let place = self.place;
        let streams = self.streams.iter_mut().enumerate();
        let mut writes = streams.filter_map(|(index, kept)| kept.next_write(place, index, now));
        writes.next()
    }

    /// The next bucket to be removed.
    pub fn next_removal(&mut self) -> Option<Removal> {
        match self.pinned {
            true => None,
            false => self.removals.pop(),
        }
    }

    /// The oldest write of a stream that was handed out has ended. Returns whether that changes what there is
    /// to say about the stream: a failure is the first one, or is over.
    pub fn written(&mut self, stream: usize, result: Result<(), Failure>, now: Micros) -> bool {
        let Some(kept) = self.streams.get_mut(stream) else {
            return false;
        };
        kept.written(self.place, result, now)
    }

    // What is read.

    /// Brings `cursor` on by as much as can be done at once. `before` is the record where it is to stop; what
    /// was lost before it was read is added to `missed`.
    pub fn step(
        &self,
        (stream, lane): (usize, u16),
        cursor: &mut Cursor,
        query: &Query,
        (before, page_bytes): ((u32, u64), usize),
        missed: &mut u64,
    ) -> Step {
        let Some(kept) = self.streams.get(stream) else {
            return Step::End;
        };
        let Some((lane, tail)) = kept.lane(lane) else {
            return Step::End;
        };
        let reader = Reader {
            lane,
            tail,
            run: self.place.run,
            stream,
            query,
            before,
            page_bytes,
        };
        reader.step(cursor, missed)
    }

    /// Brings `cursor` on behind what a scan has found.
    pub fn scanned(&self, cursor: &mut Cursor, scan: &Scan, found: &Scanned, missed: &mut u64) {
        *missed += found.missed;
        cursor.behind(scan, found);
    }

    /// The record that the next message of this shard becomes.
    #[must_use]
    pub fn end(&self, stream: usize) -> (u32, u64) {
        let kept = self.streams.get(stream);
        (self.place.run, kept.map_or(0, |kept| kept.tail().next()))
    }

    // What is removed.

    /// Removes the buckets that are too old.
    pub fn expire(&mut self, now: Micros) {
        for (stream, kept) in self.streams.iter_mut().enumerate() {
            let old = kept.expire(now).into_iter();
            self.removals
                .extend(old.map(|bucket| Removal { stream, bucket }));
        }
    }

    /// Removes these buckets, if they are there.
    pub fn remove(&mut self, stream: usize, buckets: &[BucketId]) {
        let Some(kept) = self.streams.get_mut(stream) else {
            return;
        };
        let removed = buckets.iter().filter(|bucket| kept.remove(**bucket));
        self.removals
            .extend(removed.map(|&bucket| Removal { stream, bucket }));
    }

    /// Bytes of a stream that are here, and the buckets that can be removed.
    #[must_use]
    pub fn stored(&self, stream: usize) -> (u64, Vec<Closed>) {
        let kept = self.streams.get(stream);
        kept.map_or((0, Vec::new()), Kept::stored)
    }

    // What is copied.

    /// Everything is to be written, and no bucket is removed before [`Log::unpin`]. Returns for each stream
    /// the number of the record that comes next.
    pub fn pin(&mut self) -> Vec<u64> {
        self.pinned = true;
        self.seal();
        let streams = self.streams.iter();
        streams.map(|kept| kept.tail().next()).collect()
    }

    /// Buckets are removed again.
    pub fn unpin(&mut self) {
        self.pinned = false;
    }

    /// How many records, of those that came before what [`Log::pin`] returned, are in no bucket yet.
    #[must_use]
    pub fn unwritten(&self, before: &[u64]) -> u64 {
        let streams = self.streams.iter().zip(before);
        let unwritten = streams.map(|(kept, before)| before.saturating_sub(kept.tail().first()));
        unwritten.sum()
    }

    /// The buckets of a stream that are here, and how many of their bytes count: these are not written again.
    pub fn buckets(&self, stream: usize) -> impl Iterator<Item = (BucketId, u64)> {
        let kept = self.streams.get(stream).into_iter();
        let buckets = kept.flat_map(Kept::buckets);
        // One that was begun and has nothing yet is no file to be read.
        let buckets = buckets.filter(|bucket| bucket.bytes > 0);
        buckets.map(|bucket| (bucket.id, bucket.bytes))
    }

    // What there is.

    /// Records that were dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let streams = || self.streams.iter();
        let waiting = streams().map(|kept| kept.tail().waiting_bytes());
        Counts {
            messages: self.messages,
            bytes: self.bytes,
            dropped: self.dropped,
            waiting_bytes: waiting.sum::<usize>() as u64,
            buckets: streams().flat_map(Kept::buckets).count() as u64,
            stored_bytes: streams().map(Kept::bytes).sum(),
        }
    }
}
