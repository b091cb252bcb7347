//! Reading a lane: first buckets, then what is still in memory, by one cursor.

use crate::limits::HISTORY_SCAN_BYTES;

use super::block::Records;
use super::bucket::{Page, Picker, Query, Scan, Scanned};
use super::kept::{Bucket, Lane, Tail};

/// How far a lane was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The run of the next record,
    pub run: u32,
    /// and its number there.
    pub seq: u64,
    /// Where it is looked for first: in this bucket from this offset on,
    bucket: Option<u32>,
    offset: u64,
    /// or in the block in memory that begins with this record, from this byte on,
    block: u64,
    byte: u32,
    /// where this record begins.
    marked: u64,
}

/// Before everything.
pub const START: Cursor = Cursor::at(0, 0);

impl Cursor {
    /// Before the record of this number.
    #[must_use]
    pub const fn at(run: u32, seq: u64) -> Self {
        Self {
            run,
            seq,
            bucket: None,
            offset: 0,
            block: 0,
            byte: 0,
            marked: 0,
        }
    }

    /// Behind what a scan has found.
    pub(super) fn behind(&mut self, scan: &Scan, found: &Scanned) {
        self.run = scan.bucket.run;
        self.seq = found.seq;
        self.bucket = Some(scan.bucket.number);
        self.offset = match found.end {
            true => found.offset.max(scan.limit),
            false => found.offset,
        };
    }

    const fn key(&self) -> (u32, u64) {
        (self.run, self.seq)
    }
}

/// What a reader has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take these; there may be more.
    Page(Page),
    /// Have this done, and take what it has found.
    Scan(Box<Scan>),
    /// Nothing: there are no more records now.
    End,
}

/// Reads one lane.
pub(super) struct Reader<'a> {
    pub(super) lane: &'a Lane,
    /// If this shard writes the lane.
    pub(super) tail: Option<&'a Tail>,
    /// The run that it is written in.
    pub(super) run: u32,
    pub(super) stream: usize,
    pub(super) query: &'a Query,
    /// Where it stops.
    pub(super) before: (u32, u64),
    pub(super) page_bytes: usize,
}

impl Reader<'_> {
    /// Brings `cursor` on.
    pub(super) fn step(&self, cursor: &mut Cursor, missed: &mut u64) -> Step {
        if cursor.key() >= self.before {
            return Step::End;
        }
        if !self.is_in_memory(cursor)
            && let Some(step) = self.look_into_buckets(cursor, missed)
        {
            return step;
        }
        let Some(tail) = self.tail else {
            return Step::End;
        };
        self.look_into_memory(tail, cursor, missed)
    }

    fn is_in_memory(&self, cursor: &Cursor) -> bool {
        let tail = self.tail.filter(|_| cursor.run == self.run);
        tail.is_some_and(|tail| cursor.seq >= tail.first())
    }

    /// `None` if no bucket has more.
    fn look_into_buckets(&self, cursor: &mut Cursor, missed: &mut u64) -> Option<Step> {
        let mut index = self.locate(cursor);
        loop {
            let bucket = self.lane.buckets.get(index)?;
            self.enter(bucket, cursor, missed);
            if cursor.key() >= self.before {
                return Some(Step::End);
            }
            let unwanted = bucket.end <= self.query.from || bucket.start >= self.query.to;
            if !unwanted && cursor.offset < bucket.bytes {
                return Some(Step::Scan(Box::new(Scan {
                    stream: self.stream,
                    bucket: bucket.id,
                    offset: cursor.offset,
                    limit: bucket.bytes,
                    seq: cursor.seq,
                    before: match self.before {
                        (run, seq) if run == bucket.id.run => seq,
                        _ => u64::MAX,
                    },
                    query: self.query.clone(),
                    page_bytes: self.page_bytes,
                })));
            }
            index += 1;
            if unwanted {
                // Nothing is missed that is not wanted.
                let next = self.lane.buckets.get(index);
                let next = next.filter(|next| next.id.run == bucket.id.run);
                let tail = self.tail.filter(|_| bucket.id.run == self.run);
                let next = next
                    .map(|next| next.first)
                    .or_else(|| tail.map(Tail::first));
                cursor.seq = cursor.seq.max(next.unwrap_or(0));
            }
        }
    }

    /// The bucket to look into first.
    fn locate(&self, cursor: &Cursor) -> usize {
        let buckets = &self.lane.buckets;
        let later = buckets.partition_point(|bucket| (bucket.id.run, bucket.first) <= cursor.key());
        match later.checked_sub(1) {
            Some(before) if buckets[before].id.run == cursor.run => {
                // It was written again, into the next one.
                let known = cursor.bucket.map(|number| (cursor.run, number));
                let known = known.and_then(|known| {
                    let key = |bucket: &Bucket| (bucket.id.run, bucket.id.number);
                    buckets.binary_search_by_key(&known, key).ok()
                });
                known.unwrap_or(before)
            }
            _ => later,
        }
    }

    fn enter(&self, bucket: &Bucket, cursor: &mut Cursor, missed: &mut u64) {
        if cursor.run == bucket.id.run && cursor.bucket == Some(bucket.id.number) {
            return;
        }
        if cursor.run == bucket.id.run {
            *missed += bucket.first.saturating_sub(cursor.seq);
            cursor.seq = cursor.seq.max(bucket.first);
        } else {
            cursor.run = bucket.id.run;
            cursor.seq = bucket.first;
        }
        cursor.bucket = Some(bucket.id.number);
        cursor.offset = 0;
    }

    fn look_into_memory(&self, tail: &Tail, cursor: &mut Cursor, missed: &mut u64) -> Step {
        if cursor.run == self.run {
            *missed += tail.first().saturating_sub(cursor.seq);
            cursor.seq = cursor.seq.max(tail.first());
        } else {
            // Buckets of this run are there only once their first records are no more in memory.
            cursor.run = self.run;
            cursor.seq = tail.first();
        }
        cursor.bucket = None;
        let mut page = Page {
            run: self.run,
            ..Page::default()
        };
        let mut picker = Picker::new(self.query);
        let mut looked_through = 0;
        for (header, bytes) in tail.blocks() {
            if header.next() <= cursor.seq {
                continue;
            }
            *missed += header.first.saturating_sub(cursor.seq);
            cursor.seq = cursor.seq.max(header.first);
            let known = cursor.block == header.first && cursor.marked == cursor.seq;
            let (mut seq, begin) = match known {
                true => (cursor.seq, cursor.byte as usize),
                false => (header.first, 0),
            };
            let mut records = Records::new(header.begin, bytes.get(begin..).unwrap_or_default());
            let before = match self.before {
                (run, before) if run == self.run => before,
                _ => u64::MAX,
            };
            while seq < before
                && looked_through < HISTORY_SCAN_BYTES
                && page.records.len() < self.page_bytes
                && let Some(Ok(record)) = records.next()
            {
                if seq >= cursor.seq {
                    picker.pick(&record, &mut page);
                }
                seq += 1;
                looked_through += record.payload.len() as u64;
            }
            cursor.seq = cursor.seq.max(seq);
            cursor.block = header.first;
            cursor.byte = u32::try_from(begin + records.offset()).unwrap_or(u32::MAX);
            cursor.marked = seq;
            if seq < header.next() {
                break;
            }
        }
        let end = cursor.key() >= self.before || cursor.seq >= tail.next();
        if page.count == 0 && end {
            return Step::End;
        }
        Step::Page(page)
    }
}
