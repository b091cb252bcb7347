//! The streams of one shard: what is appended, written, read and removed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::{
    HISTORY_BACKLOG_BYTES, HISTORY_BLOCK_BYTES, HISTORY_BUCKET_BYTES, HISTORY_FLYING,
    HISTORY_RETRY_US,
};
use crate::message::MessageView;
use crate::topic::Filter;

use super::block::{HEADER_BYTES, Header, Record};
use super::bucket::{BucketHeader, BucketId, Query, Scan, Scanned};
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
    messages: u64,
    bytes: u64,
    dropped: u64,
}

/// What a shard has of one stream.
#[derive(Debug)]
struct Kept {
    stream: Stream,
    /// From where on a bucket is full.
    bucket_bytes: u64,
    lanes: Vec<Lane>,
    tail: Tail,
}

#[derive(Debug)]
pub(super) struct Lane {
    number: u16,
    /// By run and number.
    pub(super) buckets: VecDeque<Bucket>,
}

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) id: BucketId,
    pub(super) start: Micros,
    pub(super) end: Micros,
    pub(super) first: u64,
    /// Those that count.
    pub(super) bytes: u64,
}

/// The end of this shard's own lane: what is not in a bucket yet.
#[derive(Debug)]
pub(super) struct Tail {
    /// Space for a header, then records.
    open: Vec<u8>,
    header: Header,
    sealed: VecDeque<Sealed>,
    waiting: usize,
    /// How many of `sealed`, from the oldest on, are being written.
    flying: usize,
    /// Whether the last bucket of the lane is written to.
    writes: bool,
    /// Bytes of it, those that are being written included.
    assigned: u64,
    number: u32,
    last_time: Micros,
    /// When the span of the bucket ends that the open block falls into.
    span_end: Micros,
    /// When everything is written and synced, if something is not.
    due: Option<Micros>,
    /// No write before: one has failed.
    pause_until: Micros,
    /// Whether one has failed that is not over.
    failed: bool,
}

#[derive(Debug)]
struct Sealed {
    header: Header,
    /// Without any where only what was written before is to be synced.
    bytes: Arc<Vec<u8>>,
    sync: bool,
    /// Where it ends in the bucket that it is written to.
    end: u64,
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
        self.streams.iter().map(|kept| &kept.stream)
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
            let time = kept.prepare(self.place, now);
            let before = kept.tail.open.len();
            let record = Record {
                time,
                qos: message.qos,
                topic: message.topic.as_str(),
                properties: message.properties,
                expires_at,
                payload: message.payload,
            };
            record.put(kept.tail.header.begin, &mut kept.tail.open);
            kept.tail.header.count += 1;
            kept.tail.header.end = time;
            self.messages += 1;
            self.bytes += (kept.tail.open.len() - before) as u64;
            if kept.tail.open.len() >= HISTORY_BLOCK_BYTES {
                kept.seal(false);
            }
        }
        self.dropped += kept.drop_oldest();
    }

    /// When [`Log::tick`] has something to write.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        self.streams.iter().filter_map(|kept| kept.tail.due).min()
    }

    /// What is due is to be written, and synced.
    pub fn tick(&mut self, now: Micros) {
        for kept in &mut self.streams {
            if kept.tail.due.is_some_and(|due| due <= now) {
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
        let mut tails = self.streams.iter().map(|kept| &kept.tail);
        tails.all(|tail| tail.header.count == 0 && tail.sealed.is_empty())
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
        self.removals.pop()
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
        let Some(found) = kept.lanes.iter().find(|found| found.number == lane) else {
            return Step::End;
        };
        let tail = (lane == self.place.shard).then_some(&kept.tail);
        let reader = Reader {
            lane: found,
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
        (
            self.place.run,
            kept.map_or(0, |kept| kept.tail.header.next()),
        )
    }

    // What is removed.

    /// Removes the buckets that are too old.
    pub fn expire(&mut self, now: Micros) {
        for (stream, kept) in self.streams.iter_mut().enumerate() {
            let limit = now.saturating_sub(kept.stream.keep);
            for lane in 0..kept.lanes.len() {
                let old = kept.closed(lane).take_while(|bucket| bucket.end <= limit);
                let old: Vec<BucketId> = old.map(|bucket| bucket.id).collect();
                kept.lanes[lane].buckets.drain(..old.len());
                let removals = old.into_iter();
                self.removals
                    .extend(removals.map(|bucket| Removal { stream, bucket }));
            }
            // Nothing has come for so long: the bucket that is written to ends too.
            if kept.tail.writes
                && kept.tail.flying == 0
                && kept.last_bucket().is_some_and(|last| last.end <= limit)
            {
                kept.tail.writes = false;
            }
        }
    }

    /// Removes these buckets, if they are there.
    pub fn remove(&mut self, stream: usize, buckets: &[BucketId]) {
        let Some(kept) = self.streams.get_mut(stream) else {
            return;
        };
        for &bucket in buckets {
            let lane = kept
                .lanes
                .iter()
                .position(|lane| lane.number == bucket.lane);
            let Some(lane) = lane else { continue };
            if kept.closed(lane).any(|closed| closed.id == bucket) {
                kept.lanes[lane].buckets.retain(|other| other.id != bucket);
                self.removals.push(Removal { stream, bucket });
            }
        }
    }

    /// Bytes of a stream that are here, and the buckets that can be removed.
    #[must_use]
    pub fn stored(&self, stream: usize) -> (u64, Vec<Closed>) {
        let Some(kept) = self.streams.get(stream) else {
            return (0, Vec::new());
        };
        let closed = (0..kept.lanes.len()).flat_map(|lane| kept.closed(lane));
        let closed = closed.map(|bucket| Closed {
            bucket: bucket.id,
            start: bucket.start,
            bytes: bucket.bytes,
        });
        (kept.bytes(), closed.collect())
    }

    /// Records that were dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let lanes = || self.streams.iter().flat_map(|kept| &kept.lanes);
        let waiting = self.streams.iter().map(|kept| kept.tail.waiting_bytes());
        Counts {
            messages: self.messages,
            bytes: self.bytes,
            dropped: self.dropped,
            waiting_bytes: waiting.sum::<usize>() as u64,
            buckets: lanes().map(|lane| lane.buckets.len() as u64).sum(),
            stored_bytes: self.streams.iter().map(Kept::bytes).sum(),
        }
    }
}

impl Kept {
    fn new(place: Place, stream: Stream, found: &[Found]) -> Self {
        let lanes = (0..place.lanes).filter(|&lane| place.owner(lane) == place.shard);
        let mut lanes: Vec<Lane> = lanes
            .map(|number| Lane {
                number,
                buckets: VecDeque::new(),
            })
            .collect();
        for lane in &mut lanes {
            let mut buckets: Vec<Bucket> = found
                .iter()
                .filter(|found| found.header.id.lane == lane.number)
                .map(|found| Bucket {
                    id: found.header.id,
                    start: found.header.start,
                    end: found.header.end,
                    first: found.header.first,
                    bytes: found.bytes,
                })
                .collect();
            buckets.sort_unstable_by_key(|bucket| bucket.id);
            lane.buckets = buckets.into();
        }
        let share = stream.keep_bytes / (8 * u64::from(place.shards));
        Self {
            bucket_bytes: share.clamp(HISTORY_BUCKET_BYTES.0, HISTORY_BUCKET_BYTES.1),
            stream,
            lanes,
            tail: Tail::new(place),
        }
    }

    /// Sees to it that a record that comes now can be put into the open block; returns its time.
    fn prepare(&mut self, place: Place, now: Micros) -> Micros {
        let time = now.max(self.tail.last_time);
        self.tail.last_time = time;
        if self.tail.header.count > 0 && time >= self.tail.span_end {
            self.seal(false);
        }
        if self.tail.header.count == 0 {
            let span_end = self.span_end(time);
            let tail = &mut self.tail;
            tail.header = Header::open(place.run, place.shard, tail.header.next(), time);
            tail.open.resize(HEADER_BYTES, 0);
            tail.span_end = span_end;
            let due = time.saturating_add(self.stream.interval);
            tail.due.get_or_insert(due);
        }
        time
    }

    /// The end of the span that `time` falls into.
    fn span_end(&self, time: Micros) -> Micros {
        let span = self.stream.bucket.max(1);
        (time - time % span).saturating_add(span)
    }

    /// What was appended is to be written, and synced.
    fn seal(&mut self, sync: bool) {
        let tail = &mut self.tail;
        if sync && tail.due.take().is_none() {
            return;
        }
        let mut bytes = Vec::new();
        let mut header = tail.header;
        if header.count > 0 {
            bytes = std::mem::take(&mut tail.open);
            let length = bytes.len() - HEADER_BYTES;
            header.length = u32::try_from(length).unwrap_or(u32::MAX);
            header = header.seal(&mut bytes);
            // The next one is of about that size.
            tail.open
                .reserve(HEADER_BYTES + length.min(HISTORY_BLOCK_BYTES));
        }
        tail.waiting += bytes.len();
        tail.sealed.push_back(Sealed {
            header,
            bytes: Arc::new(bytes),
            sync,
            end: 0,
        });
        tail.header = Header::open(header.run, header.lane, header.next(), header.end);
    }

    /// Lets the oldest blocks go that nobody writes, if too much waits; returns how many records they held.
    fn drop_oldest(&mut self) -> u64 {
        let tail = &mut self.tail;
        let mut dropped = 0;
        while tail.waiting > HISTORY_BACKLOG_BYTES
            && let Some(oldest) = tail.sealed.remove(tail.flying)
        {
            tail.waiting -= oldest.bytes.len();
            dropped += u64::from(oldest.header.count);
        }
        dropped
    }

    fn own(&mut self, place: Place) -> Option<&mut Lane> {
        self.lanes
            .iter_mut()
            .find(|lane| lane.number == place.shard)
    }

    fn last_bucket(&self) -> Option<&Bucket> {
        let lane = self.tail.header.lane;
        let lane = self.lanes.iter().find(|found| found.number == lane)?;
        lane.buckets.back()
    }

    /// The buckets of a lane that are not written to.
    fn closed(&self, lane: usize) -> impl Iterator<Item = &Bucket> {
        let lane = self.lanes.get(lane);
        let open =
            lane.is_some_and(|lane| lane.number == self.tail.header.lane) && self.tail.writes;
        let buckets = lane.map(|lane| {
            lane.buckets
                .iter()
                .take(lane.buckets.len() - usize::from(open))
        });
        buckets.into_iter().flatten()
    }

    fn bytes(&self) -> u64 {
        let buckets = self.lanes.iter().flat_map(|lane| &lane.buckets);
        buckets.map(|bucket| bucket.bytes).sum()
    }

    fn next_write(&mut self, place: Place, index: usize, now: Micros) -> Option<Write> {
        if self.tail.flying >= HISTORY_FLYING || now < self.tail.pause_until {
            return None;
        }
        let next = self.tail.sealed.get(self.tail.flying)?.header;
        let full = self.tail.assigned >= self.bucket_bytes;
        let over = self.last_bucket().is_none_or(|last| next.begin >= last.end);
        let mut header = None;
        if next.count == 0 && !self.tail.writes {
            // What was to be synced is in a bucket that was given up.
            self.tail.sealed.remove(self.tail.flying);
            return self.next_write(place, index, now);
        }
        if next.count > 0 && self.tail.writes && (full || over) {
            if self.tail.flying > 0 {
                return None; // the next bucket begins when this one is complete
            }
            self.tail.writes = false;
        }
        if !self.tail.writes {
            header = Some(self.begin_bucket(place, next)?);
        }
        let bucket = self.last_bucket()?.id;
        let tail = &mut self.tail;
        let sealed = tail.sealed.get_mut(tail.flying)?;
        let offset = tail.assigned;
        tail.assigned += sealed.bytes.len() as u64;
        tail.flying += 1;
        sealed.end = tail.assigned;
        Some(Write {
            stream: index,
            bucket,
            header,
            offset,
            bytes: Arc::clone(&sealed.bytes),
            sync: sealed.sync,
        })
    }

    fn begin_bucket(&mut self, place: Place, block: Header) -> Option<Vec<u8>> {
        self.tail.number += 1;
        let (start, end) = (block.begin, self.span_end(block.begin));
        let header = BucketHeader {
            id: BucketId {
                run: place.run,
                lane: place.shard,
                number: self.tail.number,
            },
            start,
            end,
            first: block.first,
            filter: self.stream.filter.clone(),
        };
        self.tail.assigned = header.size();
        self.tail.writes = true;
        let bucket = Bucket {
            id: header.id,
            start,
            end,
            first: block.first,
            bytes: 0,
        };
        self.own(place)?.buckets.push_back(bucket);
        Some(header.encode())
    }

    fn written(&mut self, place: Place, result: Result<(), Failure>, now: Micros) -> bool {
        self.tail.flying = self.tail.flying.saturating_sub(1);
        if result.is_ok() {
            let Some(done) = self.tail.sealed.pop_front() else {
                return false;
            };
            self.tail.waiting -= done.bytes.len();
            if let Some(last) = self.own(place).and_then(|lane| lane.buckets.back_mut()) {
                last.bytes = done.end;
            }
            return std::mem::take(&mut self.tail.failed);
        }
        // Those behind it fail as well; then all are written into a bucket of their own.
        self.tail.pause_until = now.saturating_add(HISTORY_RETRY_US);
        if self.tail.flying == 0 {
            self.tail.writes = false;
            if let Some(lane) = self.own(place) {
                lane.buckets.pop_back_if(|last| last.bytes == 0);
            }
        }
        !std::mem::replace(&mut self.tail.failed, true)
    }
}

impl Tail {
    fn new(place: Place) -> Self {
        Self {
            open: Vec::new(),
            header: Header::open(place.run, place.shard, 1, 0),
            sealed: VecDeque::new(),
            waiting: 0,
            flying: 0,
            writes: false,
            assigned: 0,
            number: 0,
            last_time: 0,
            span_end: 0,
            due: None,
            pause_until: 0,
            failed: false,
        }
    }

    /// The number of the first record that is not in a bucket.
    pub(super) fn first(&self) -> u64 {
        self.sealed
            .front()
            .map_or(self.header.first, |sealed| sealed.header.first)
    }

    /// The number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.header.next()
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting + self.open.len()
    }

    /// What is in memory, oldest first: each with its header, and its records.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (Header, &[u8])> {
        let sealed = self.sealed.iter();
        let sealed = sealed.map(|sealed| (sealed.header, sealed.bytes.as_slice()));
        let open = (self.header.count > 0).then_some((self.header, self.open.as_slice()));
        let blocks = sealed.chain(open);
        blocks.map(|(header, bytes)| (header, bytes.get(HEADER_BYTES..).unwrap_or_default()))
    }
}
