//! Buckets: files of blocks, each for a span of time of one lane; and how they are read.
//!
//! ```text
//! DIR/history/NAME/RUN-LANE-NUMBER.bucket     header, block, block, …
//! ```
//!
//! A bucket is written by one run of the broker alone, only at its end, and removed as a whole. Its blocks are
//! in the order of their records. What is damaged is left out and told: nothing behind it is lost by it.

use std::io;
use std::sync::Arc;

use crate::limits::HISTORY_SCAN_BYTES;
use crate::topic::{Filter, Name};

use super::block::{HEADER_BYTES, Header, NoHeader, Record, Records, VERSION, part};
use super::range::Micros;

const MAGIC: [u8; 8] = *b"SMQHIST\n";

/// Bytes of a bucket's header besides the filter.
const FIXED: usize = 54;

/// Bytes of the longest header.
pub const MAX_HEADER_BYTES: usize = FIXED + u16::MAX as usize;

/// What the name of its file ends with.
const EXTENSION: &str = ".bucket";

/// Bytes that are looked through at a time for the header of a block.
const SEARCH_BYTES: usize = 1 << 20;

/// A bucket of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId {
    /// The start of the broker that wrote it, counted.
    pub run: u32,
    /// The lane that it belongs to: the shard that wrote it.
    pub lane: u16,
    /// Its number in its run and lane.
    pub number: u32,
}

impl BucketId {
    /// The name of its file.
    #[must_use]
    pub fn file_name(self) -> String {
        let Self { run, lane, number } = self;
        format!("{run:08x}-{lane:04x}-{number:08x}{EXTENSION}")
    }

    /// The bucket whose file has this name.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(EXTENSION)?.split('-');
        let mut next = || u32::from_str_radix(parts.next()?, 16).ok();
        let id = Self {
            run: next()?,
            lane: u16::try_from(next()?).ok()?,
            number: next()?,
        };
        (id.file_name() == name).then_some(id)
    }
}

/// What stands at the begin of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketHeader {
    /// Which bucket it is.
    pub id: BucketId,
    /// When its first record was received.
    pub start: Micros,
    /// The end of its span: nothing in it was received then or later.
    pub end: Micros,
    /// The number of its first record in its run and lane.
    pub first: u64,
    /// What its stream was to keep.
    pub filter: String,
}

impl BucketHeader {
    /// The bytes that a bucket begins with.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.filter.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.id.lane.to_le_bytes());
        out.extend_from_slice(&self.id.run.to_le_bytes());
        out.extend_from_slice(&self.id.number.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let length = u16::try_from(self.filter.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(self.filter.as_bytes());
        let sum = crc32fast::hash(&out[12..]);
        out[8..12].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the header that `bytes` begin with.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(bytes: &[u8]) -> Result<Self, NoHeader> {
        if bytes.len() < FIXED || bytes[..8] != MAGIC {
            return Err(NoHeader::Damaged);
        }
        let length = usize::from(u16::from_le_bytes(part(bytes, 52)));
        let whole = bytes.get(..FIXED + length).ok_or(NoHeader::Damaged)?;
        if whole[8..12] != crc32fast::hash(&whole[12..]).to_le_bytes() {
            return Err(NoHeader::Damaged);
        }
        let version = u16::from_le_bytes(part(bytes, 12));
        if version != VERSION {
            return Err(NoHeader::Version(version));
        }
        let filter = std::str::from_utf8(&whole[FIXED..]).map_err(|_| NoHeader::Damaged)?;
        Ok(Self {
            id: BucketId {
                lane: u16::from_le_bytes(part(bytes, 14)),
                run: u32::from_le_bytes(part(bytes, 16)),
                number: u32::from_le_bytes(part(bytes, 20)),
            },
            start: u64::from_le_bytes(part(bytes, 24)),
            end: u64::from_le_bytes(part(bytes, 32)),
            first: u64::from_le_bytes(part(bytes, 40)),
            filter: filter.to_owned(),
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        (FIXED + self.filter.len()) as u64
    }
}

/// Which records are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What their topics match.
    pub filter: Arc<str>,
    /// They were received then or later,
    pub from: Micros,
    /// and before this.
    pub to: Micros,
}

/// A part of a bucket to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The stream, by its place in the configuration.
    pub stream: usize,
    /// The bucket.
    pub bucket: BucketId,
    /// Where the next block begins; 0 for the first one.
    pub offset: u64,
    /// Bytes of the bucket that count.
    pub limit: u64,
    /// The number of the first record that is wanted,
    pub seq: u64,
    /// and that of the first which is not.
    pub before: u64,
    /// Which of those.
    pub query: Query,
    /// Bytes of records after which no further block is read.
    pub page_bytes: usize,
}

/// Records that were found, in their order. Points in time are whole ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The run that they are of.
    pub run: u32,
    /// How many they are.
    pub count: u32,
    /// They, as [`Records::new`] reads them with 0 for the base.
    pub records: Vec<u8>,
}

/// What a scan has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The records.
    pub page: Page,
    /// Where to go on.
    pub offset: u64,
    /// The number of the next record.
    pub seq: u64,
    /// Whether there is nothing more in what was to be read.
    pub end: bool,
    /// Records that should have been there.
    pub missed: u64,
    /// What is wrong with the bucket.
    pub faults: Vec<Fault>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the bucket.
    pub offset: u64,
    /// What.
    pub what: FaultKind,
}

/// What is wrong with a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Its header is damaged: it cannot be read.
    Bucket,
    /// The header of a block is damaged; it goes on with the next one that is whole.
    Header,
    /// The records of a block are damaged.
    Records,
    /// The last block ends before its records do, as a crash leaves it.
    CutOff,
    /// Another version wrote it.
    Version(u16),
    /// It cannot be read.
    Io(String),
    /// It has been removed meanwhile.
    Gone,
}

impl std::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bucket => f.write_str("its header is damaged: nothing of it is read"),
            Self::Header => f.write_str("the header of a block is damaged: the block is left out"),
            Self::Records => f.write_str("the records of a block are damaged and left out"),
            Self::CutOff => f.write_str("the last block is not complete"),
            Self::Version(version) => write!(f, "version {version} of the format is not known"),
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Gone => f.write_str("it has been removed"),
        }
    }
}

/// Where a bucket is read from.
pub trait Source {
    /// Fills `into` from `offset` on, with less only at the end; returns how much.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl Source for &[u8] {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..));
        let from = from.unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }
}

impl Scan {
    /// Reads.
    pub fn run(&self, source: &mut dyn Source) -> Scanned {
        let mut reading = Reading {
            scan: self,
            source,
            picker: Picker::new(&self.query),
            found: Scanned {
                page: Page {
                    run: self.bucket.run,
                    ..Page::default()
                },
                offset: self.offset,
                seq: self.seq,
                ..Scanned::default()
            },
            looked_through: 0,
            block: Vec::new(),
        };
        if let Err(what) = reading.all() {
            let offset = reading.found.offset;
            reading.found.faults.push(Fault { offset, what });
            reading.found.end = true;
        }
        reading.found
    }
}

struct Reading<'a> {
    scan: &'a Scan,
    source: &'a mut dyn Source,
    picker: Picker<'a>,
    found: Scanned,
    looked_through: u64,
    block: Vec<u8>,
}

impl Reading<'_> {
    fn all(&mut self) -> Result<(), FaultKind> {
        if self.found.offset == 0 {
            let mut begin = vec![0; MAX_HEADER_BYTES];
            let there = self.read(0, &mut begin)?;
            let header = BucketHeader::read(&begin[..there]).map_err(|error| match error {
                NoHeader::Damaged => FaultKind::Bucket,
                NoHeader::Version(version) => FaultKind::Version(version),
            })?;
            self.found.offset = header.size();
        }
        while self.found.page.records.len() < self.scan.page_bytes
            && self.looked_through < HISTORY_SCAN_BYTES
            && !self.found.end
        {
            self.next_block()?;
        }
        Ok(())
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, FaultKind> {
        let rest = self.scan.limit.saturating_sub(offset);
        let most = usize::try_from(rest).unwrap_or(usize::MAX).min(into.len());
        let read = self.source.read_at(offset, &mut into[..most]);
        read.map_err(|error| FaultKind::Io(error.to_string()))
    }

    fn next_block(&mut self) -> Result<(), FaultKind> {
        let offset = self.found.offset;
        let mut head = [0; HEADER_BYTES];
        let there = self.read(offset, &mut head)?;
        self.looked_through += HEADER_BYTES as u64;
        if there == 0 {
            self.found.end = true;
            return Ok(());
        }
        let header = match Header::read(&head[..there]) {
            Ok(header) => header,
            Err(NoHeader::Version(version)) => return Err(FaultKind::Version(version)),
            Err(NoHeader::Damaged) if there < HEADER_BYTES => return Err(FaultKind::CutOff),
            Err(NoHeader::Damaged) => return self.search(offset),
        };
        if header.first >= self.scan.before {
            self.found.end = true;
            return Ok(());
        }
        let query = &self.scan.query;
        let unwanted =
            header.next() <= self.found.seq || header.end < query.from || header.begin >= query.to;
        if !unwanted {
            let mut block = std::mem::take(&mut self.block);
            block.resize(header.length as usize, 0);
            let there = self.read(offset + HEADER_BYTES as u64, &mut block)?;
            self.looked_through += there as u64;
            if there < block.len() {
                return Err(FaultKind::CutOff);
            }
            self.take(&header, &block);
            self.block = block;
        }
        self.missed_until(header.first);
        self.found.seq = self.found.seq.max(header.next()).min(self.scan.before);
        self.found.offset = offset + header.size();
        Ok(())
    }

    fn missed_until(&mut self, seq: u64) {
        self.found.missed += seq.saturating_sub(self.found.seq);
    }

    fn take(&mut self, header: &Header, records: &[u8]) {
        let wanted = self.found.seq.max(header.first)..self.scan.before.min(header.next());
        let mut whole = header.fits(records);
        if whole {
            for (seq, record) in (header.first..).zip(Records::new(header.begin, records)) {
                let Ok(record) = record else {
                    whole = false;
                    break;
                };
                if wanted.contains(&seq) {
                    self.picker.pick(&record, &mut self.found.page);
                }
            }
        }
        if !whole {
            self.found.missed += wanted.end.saturating_sub(wanted.start);
            self.found.faults.push(Fault {
                offset: self.found.offset,
                what: FaultKind::Records,
            });
        }
    }

    /// Finds the next block that is whole.
    fn search(&mut self, from: u64) -> Result<(), FaultKind> {
        self.found.faults.push(Fault {
            offset: from,
            what: FaultKind::Header,
        });
        let mut at = from;
        let mut bytes = vec![0; SEARCH_BYTES];
        loop {
            let there = self.read(at, &mut bytes)?;
            self.looked_through += there as u64;
            if let Some(found) = Header::find(&bytes[..there]) {
                self.found.offset = at + found as u64;
                return Ok(());
            }
            if there < bytes.len() {
                self.found.offset = at + there as u64;
                self.found.end = true;
                return Ok(());
            }
            at += (there - HEADER_BYTES) as u64; // one may begin in what was read and end behind it
        }
    }
}

/// Picks what is wanted. What was just asked for is mostly asked for again.
#[derive(Debug)]
pub(super) struct Picker<'a> {
    query: &'a Query,
    topic: String,
    matches: bool,
}

impl<'a> Picker<'a> {
    pub(super) fn new(query: &'a Query) -> Self {
        Self {
            query,
            topic: String::new(),
            matches: false,
        }
    }

    pub(super) fn pick(&mut self, record: &Record<'_>, page: &mut Page) {
        if record.time < self.query.from || record.time >= self.query.to {
            return;
        }
        if self.topic != record.topic {
            self.topic.clear();
            self.topic.push_str(record.topic);
            let filter = Filter::trusted(&self.query.filter);
            self.matches = filter.matches(Name::trusted(record.topic));
        }
        if self.matches {
            record.put(0, &mut page.records);
            page.count += 1;
        }
    }
}
