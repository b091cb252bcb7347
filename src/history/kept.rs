//! What a shard has of one stream: buckets of the lanes that it reads, and the end of its own lane, which is
//! still in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::{
    HISTORY_BACKLOG_BYTES, HISTORY_BLOCK_BYTES, HISTORY_BUCKET_BYTES, HISTORY_FLYING,
    HISTORY_RETRY_US,
};
use crate::message::MessageView;

use super::block::{HEADER_BYTES, Header, Record};
use super::bucket::{BucketHeader, BucketId};
use super::log::{Closed, Failure, Found, Place, Stream, Write};
use super::range::Micros;

/// What a shard has of one stream.
#[derive(Debug)]
pub(super) struct Kept {
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

impl Kept {
    /// Goes on with the buckets that earlier runs left.
    pub(super) fn new(place: Place, stream: Stream, found: &[Found]) -> Self {
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

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The lane of this number, if this shard reads it, and its end, if it is its own.
    pub(super) fn lane(&self, number: u16) -> Option<(&Lane, Option<&Tail>)> {
        let lane = self.lanes.iter().find(|lane| lane.number == number)?;
        let own = number == self.tail.header.lane;
        Some((lane, own.then_some(&self.tail)))
    }

    /// Appends a message; the bytes that it takes.
    pub(super) fn append(
        &mut self,
        place: Place,
        now: Micros,
        message: &MessageView<'_>,
        expires_at: Option<Micros>,
    ) -> usize {
        let time = self.prepare(place, now);
        let tail = &mut self.tail;
        let before = tail.open.len();
        let record = Record {
            time,
            qos: message.qos,
            topic: message.topic.as_str(),
            properties: message.properties,
            expires_at,
            payload: message.payload,
        };
        record.put(tail.header.begin, &mut tail.open);
        tail.header.count += 1;
        tail.header.end = time;
        let after = tail.open.len();
        if after >= HISTORY_BLOCK_BYTES {
            self.seal(false);
        }
        after - before
    }

    /// When what was appended is to be written and synced.
    pub(super) fn due(&self) -> Option<Micros> {
        self.tail.due
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.tail.header.count == 0 && self.tail.sealed.is_empty()
    }

    /// Takes out the buckets that are too old.
    pub(super) fn expire(&mut self, now: Micros) -> Vec<BucketId> {
        let limit = now.saturating_sub(self.stream.keep);
        let mut expired = Vec::new();
        for lane in 0..self.lanes.len() {
            let old = self.closed(lane).take_while(|bucket| bucket.end <= limit);
            let old: Vec<BucketId> = old.map(|bucket| bucket.id).collect();
            self.lanes[lane].buckets.drain(..old.len());
            expired.extend(old);
        }
        // Nothing has come for so long: the bucket that is written to ends too.
        if self.tail.writes
            && self.tail.flying == 0
            && self.last_bucket().is_some_and(|last| last.end <= limit)
        {
            self.tail.writes = false;
        }
        expired
    }

    /// Takes out a bucket, if it is there and not written to.
    pub(super) fn remove(&mut self, bucket: BucketId) -> bool {
        let mut lanes = self.lanes.iter();
        let Some(lane) = lanes.position(|lane| lane.number == bucket.lane) else {
            return false;
        };
        let removed = self.closed(lane).any(|closed| closed.id == bucket);
        if removed {
            self.lanes[lane].buckets.retain(|other| other.id != bucket);
        }
        removed
    }

    /// Bytes that are here, and the buckets that can be removed.
    pub(super) fn stored(&self) -> (u64, Vec<Closed>) {
        let closed = (0..self.lanes.len()).flat_map(|lane| self.closed(lane));
        let closed = closed.map(|bucket| Closed {
            bucket: bucket.id,
            start: bucket.start,
            bytes: bucket.bytes,
        });
        (self.bytes(), closed.collect())
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.lanes.iter().flat_map(|lane| &lane.buckets)
    }

    /// Bytes of all buckets.
    pub(super) fn bytes(&self) -> u64 {
        self.buckets().map(|bucket| bucket.bytes).sum()
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
    pub(super) fn seal(&mut self, sync: bool) {
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
    pub(super) fn drop_oldest(&mut self) -> u64 {
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

    /// The next block to be written.
    pub(super) fn next_write(&mut self, place: Place, index: usize, now: Micros) -> Option<Write> {
        // Those behind one that failed fail as well, and none is added to them: they must come to an end.
        let draining = self.tail.failed && self.tail.flying > 0;
        if draining || self.tail.flying >= HISTORY_FLYING || now < self.tail.pause_until {
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

    /// The oldest write has ended. Returns whether a failure begins or ends with it.
    pub(super) fn written(
        &mut self,
        place: Place,
        result: Result<(), Failure>,
        now: Micros,
    ) -> bool {
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

    pub(super) fn waiting_bytes(&self) -> usize {
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
