//! History in an export.
//!
//! What the lanes of a stream hold is merged by time, run by run, as a reader of history gets it; it is read back
//! into one lane. Runs keep their numbers: their order is that of the records, whatever clocks showed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::History;
use crate::history::block::{Records, time_of};
use crate::history::bucket::FaultKind;
use crate::history::range::Micros;
use crate::history::{Found, Log, Place, Scan, Stream};
use crate::message::MessageView;
use crate::time::Time;

use super::export::Amount;
use super::history::{self, Hand};
use super::json::{self, OwnedRecord};
use super::{StoreError, make_directory, sync_directory};

/// Whether there is any.
pub(super) fn is_any(data: &Path) -> Result<bool, StoreError> {
    let directory = data.join(history::DIRECTORY);
    if !directory.is_dir() {
        return Ok(false);
    }
    for (_, path) in history::folders(&directory)? {
        let (buckets, wrong) = history::buckets(&path)?;
        if !buckets.is_empty() || !wrong.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the streams of a data directory, each record to `line`.
pub(super) fn write(
    data: &Path,
    amount: &mut Amount,
    line: &mut impl FnMut(Value) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let directory = data.join(history::DIRECTORY);
    if !directory.is_dir() {
        return Ok(());
    }
    for (name, path) in history::folders(&directory)? {
        let (mut buckets, wrong) = history::buckets(&path)?;
        amount.damaged += wrong.len() as u64;
        buckets.sort_unstable_by_key(|found| found.header.id);
        let Some(last) = buckets.last() else { continue };
        line(json!({"type": "stream", "name": name, "filter": last.header.filter}))?;
        let mut runs: BTreeMap<u32, BTreeMap<u16, Lane<'_>>> = BTreeMap::new();
        for found in buckets {
            let id = found.header.id;
            let lanes = runs.entry(id.run).or_default();
            let lane = lanes.entry(id.lane).or_insert_with(|| Lane::new(&path));
            lane.buckets.push(found);
        }
        for (run, lanes) in runs {
            let mut lanes: Vec<Lane<'_>> = lanes.into_values().collect();
            lanes.iter_mut().for_each(|lane| lane.buckets.reverse());
            merge(run, &mut lanes, amount, line)?;
        }
    }
    Ok(())
}

/// Writes what the lanes of a run hold, the oldest first.
fn merge(
    run: u32,
    lanes: &mut [Lane<'_>],
    amount: &mut Amount,
    line: &mut impl FnMut(Value) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for lane in &mut *lanes {
        lane.fill()?;
    }
    let time = |lane: &Lane<'_>| lane.time().unwrap_or(Micros::MAX);
    while let Some(oldest) = lanes
        .iter_mut()
        .filter(|lane| lane.time().is_some())
        .min_by_key(|lane| time(lane))
    {
        let mut records = Records::new(0, oldest.page.get(oldest.at..).unwrap_or_default());
        if let Some(Ok(record)) = records.next() {
            line(json::record(run, &record))?;
            amount.records += 1;
        }
        oldest.at += records.offset();
        oldest.fill()?;
    }
    amount.damaged += lanes.iter().map(|lane| lane.damaged).sum::<u64>();
    Ok(())
}

/// A lane of one run that is read from its begin.
struct Lane<'a> {
    directory: &'a Path,
    /// Those that were not opened, the oldest last.
    buckets: Vec<Found>,
    open: Option<(File, Scan)>,
    /// What was read, and how far it was taken.
    page: Vec<u8>,
    at: usize,
    /// The number of the next record.
    seq: u64,
    damaged: u64,
}

impl<'a> Lane<'a> {
    fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            buckets: Vec::new(),
            open: None,
            page: Vec::new(),
            at: 0,
            seq: 0,
            damaged: 0,
        }
    }

    /// When the next record was received.
    fn time(&self) -> Option<Micros> {
        time_of(self.page.get(self.at..)?)
    }

    /// Reads on if everything was taken.
    fn fill(&mut self) -> Result<(), StoreError> {
        while self.at >= self.page.len() {
            let Some((file, mut scan)) = self
                .open
                .take()
                .map_or_else(|| self.next(), |open| Ok(Some(open)))?
            else {
                return Ok(());
            };
            // A block that was written twice is read once.
            scan.seq = scan.seq.max(self.seq);
            let read = history::run(&scan, &file);
            let faults = read.faults.iter();
            let faults = faults.filter(|fault| fault.what != FaultKind::CutOff);
            self.damaged += faults.count() as u64;
            self.seq = read.seq;
            (self.page, self.at) = (read.page.records, 0);
            if !read.end {
                (scan.offset, scan.seq) = (read.offset, read.seq);
                self.open = Some((file, scan));
            }
        }
        Ok(())
    }

    /// Opens the next bucket.
    fn next(&mut self) -> Result<Option<(File, Scan)>, StoreError> {
        let Some(found) = self.buckets.pop() else {
            return Ok(None);
        };
        let path = self.directory.join(found.header.id.file_name());
        let file = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        Ok(Some((file, history::whole(&found))))
    }
}

/// Writes streams that were exported into a data directory that has none.
pub(super) struct Writer {
    directory: PathBuf,
    names: Vec<String>,
    stream: Option<Written>,
}

/// The stream that is written.
struct Written {
    stream: Stream,
    log: Log,
    hand: Hand,
    run: u32,
    last: Micros,
}

impl Writer {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            directory: data.join(history::DIRECTORY),
            names: Vec::new(),
            stream: None,
        }
    }

    /// What follows is of this stream; `false` if there was one of that name.
    pub(super) fn begin(&mut self, name: &str, filter: &str) -> Result<bool, StoreError> {
        self.finish()?;
        // Two names that differ in case alone may be one directory.
        let mut names = self.names.iter();
        if names.any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(false);
        }
        self.names.push(name.to_owned());
        let path = self.directory.join(name);
        make_directory(&path).map_err(|error| StoreError::io("make", &path, error))?;
        sync_directory(&self.directory)?;
        let stream = Stream {
            name: name.to_owned(),
            filter: filter.to_owned(),
            keep: Micros::MAX,
            keep_bytes: u64::MAX,
            bucket: u64::from(History::default().bucket) * 1_000_000,
            interval: Micros::MAX,
        };
        let hand = Hand::new(self.directory.clone(), Arc::from([name.to_owned()]));
        self.stream = Some(Written {
            log: log(&stream, 0),
            stream,
            hand,
            run: 0,
            last: 0,
        });
        Ok(true)
    }

    /// Appends a record to it; what is wrong with it, if it does not fit there.
    pub(super) fn append(
        &mut self,
        record: &OwnedRecord<'_>,
    ) -> Result<Result<(), &'static str>, StoreError> {
        let Some(written) = &mut self.stream else {
            return Ok(Err("a record, and no stream before it"));
        };
        if record.run == 0 || record.run < written.run {
            return Ok(Err("its run is over, or 0"));
        }
        if record.run > written.run {
            written.finish(&self.directory)?;
            written.log = log(&written.stream, record.run);
            (written.run, written.last) = (record.run, 0);
        }
        if record.time < written.last {
            return Ok(Err("it was received before the record in front of it"));
        }
        written.last = record.time;
        let message = MessageView {
            topic: record.topic,
            properties: &record.properties,
            payload: &record.payload,
            qos: record.qos,
            retain: false,
            expires_at: Time::NEVER,
        };
        let messages = std::iter::once((message, record.expires_at));
        written.log.append(0, record.time, messages);
        written.write(&self.directory)?;
        Ok(Ok(()))
    }

    /// All of it is on disk.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        match &mut self.stream {
            Some(written) => written.finish(&self.directory),
            None => Ok(()),
        }
    }

    /// As if it had never begun.
    pub(super) fn remove(&mut self) {
        self.stream = None;
        for name in self.names.drain(..) {
            // It was empty before.
            let _ = fs::remove_dir_all(self.directory.join(name));
        }
    }
}

impl Written {
    fn finish(&mut self, directory: &Path) -> Result<(), StoreError> {
        self.log.seal();
        self.write(directory)
    }

    /// Writes the blocks that are complete.
    fn write(&mut self, directory: &Path) -> Result<(), StoreError> {
        while let Some(write) = self.log.next_write(self.last) {
            let written = self.hand.try_write(&write);
            written.map_err(|error| StoreError::io("write history to", directory, error))?;
            self.log.written(0, Ok(()), self.last);
        }
        Ok(())
    }
}

/// What a broker of one shard writes.
fn log(stream: &Stream, run: u32) -> Log {
    let place = Place {
        shard: 0,
        shards: 1,
        run,
        lanes: 1,
    };
    Log::new(place, vec![stream.clone()], &[])
}
