//! The files of history streams, and the thread of a shard that works on them.
//!
//! ```text
//! DIR/history/NAME/RUN-LANE-NUMBER.bucket
//! ```
//!
//! Writes and removals go before scans: who reads much does not delay what is to be kept.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError, unbounded};

use crate::history::block::NoHeader;
use crate::history::bucket::{Fault, FaultKind, MAX_HEADER_BYTES, Source};
use crate::history::{
    BucketHeader, BucketId, Failure, Found, Names, Place, Removal, Scan, Scanned, Stream, Write,
};
use crate::limits::MAX_SHARDS;
use crate::shard::{Epoch, HistoryDone, HistoryJob};

use super::worker::Worker;
use super::{StoreError, make_directory, sync_directory};

/// The directory of all streams.
pub(super) const DIRECTORY: &str = "history";

/// Bytes that most headers fit into.
const HEADER_GUESS: usize = 512;

/// What one shard is to keep of history.
#[derive(Clone, Debug)]
pub(in crate::runtime) struct HistoryOptions {
    pub(in crate::runtime) directory: PathBuf,
    pub(in crate::runtime) place: Place,
    pub(in crate::runtime) streams: Arc<[Stream]>,
    /// What earlier runs left, stream by stream.
    pub(in crate::runtime) found: Arc<[Vec<Found>]>,
    /// Files that are not what they should be, told by the first shard.
    pub(in crate::runtime) damaged: u64,
    pub(in crate::runtime) epoch: Epoch,
}

/// Looks through what there is of `streams` in a data directory, and makes what is not there.
pub(in crate::runtime) fn open(
    data: &Path,
    streams: &[Stream],
    shards: usize,
    epoch: Epoch,
) -> Result<Vec<HistoryOptions>, StoreError> {
    let directory = data.join(DIRECTORY);
    let make =
        |path: &Path| make_directory(path).map_err(|error| StoreError::io("make", path, error));
    make(&directory)?;
    let mut found = Vec::new();
    let mut damaged = 0;
    for stream in streams {
        let path = directory.join(&stream.name);
        make(&path)?;
        let (buckets, wrong) = buckets(&path)?;
        for (path, what) in &wrong {
            tracing::error!(path = %path.display(), "history: {what}");
        }
        damaged += wrong.len() as u64;
        found.push(buckets);
    }
    sync_directory(&directory)?;
    tell_of_others(&directory, streams)?;
    let ids = || found.iter().flatten().map(|found: &Found| found.header.id);
    let run = ids().map(|id| id.run).max().unwrap_or(0) + 1;
    let shards = u16::try_from(shards).unwrap_or(u16::MAX);
    let lanes = ids().map(|id| id.lane + 1).max().unwrap_or(0).max(shards);
    let (streams, found): (Arc<[Stream]>, Arc<[Vec<Found>]>) = (streams.into(), found.into());
    let options = |shard| HistoryOptions {
        directory: directory.clone(),
        place: Place {
            shard,
            shards,
            run,
            lanes,
        },
        streams: Arc::clone(&streams),
        found: Arc::clone(&found),
        damaged: if shard == 0 { damaged } else { 0 },
        epoch,
    };
    Ok((0..shards).map(options).collect())
}

/// What lies there for streams that are not configured is not touched.
fn tell_of_others(directory: &Path, streams: &[Stream]) -> Result<(), StoreError> {
    for (name, path) in folders(directory)? {
        if streams.iter().all(|stream| stream.name != name) {
            tracing::warn!(
                path = %path.display(),
                "history of a stream that is not configured: it is neither read nor removed"
            );
        }
    }
    Ok(())
}

/// The directories of streams, by their names.
pub(super) fn folders(directory: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let entries =
        fs::read_dir(directory).map_err(|error| StoreError::io("read", directory, error))?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let folder = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    let mut folders: Vec<_> = folders.filter_map(folder).collect();
    folders.sort_unstable();
    Ok(folders)
}

/// The buckets of a stream, and files that cannot be read, each with what is wrong.
pub(super) type Buckets = (Vec<Found>, Vec<(PathBuf, FaultKind)>);

pub(super) fn buckets(directory: &Path) -> Result<Buckets, StoreError> {
    let entries =
        fs::read_dir(directory).map_err(|error| StoreError::io("read", directory, error))?;
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = BucketId::of_file(&name.to_string_lossy()) else {
            continue;
        };
        let path = entry.path();
        match bucket(&path, id) {
            Ok(bucket) => found.push(bucket),
            Err(FaultKind::Version(version)) => {
                let version = version.into();
                return Err(StoreError::Newer { path, version });
            }
            Err(what) => wrong.push((path, what)),
        }
    }
    Ok((found, wrong))
}

/// What a bucket says of itself.
pub(super) fn bucket(path: &Path, id: BucketId) -> Result<Found, FaultKind> {
    let io = |error: io::Error| FaultKind::Io(error.to_string());
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let mut begin = vec![0; HEADER_GUESS];
    let mut there = read_at(&file, 0, &mut begin).map_err(io)?;
    if BucketHeader::read(&begin[..there]) == Err(NoHeader::Damaged) && there == HEADER_GUESS {
        begin.resize(MAX_HEADER_BYTES, 0);
        there = read_at(&file, 0, &mut begin).map_err(io)?;
    }
    match BucketHeader::read(&begin[..there]) {
        Ok(header) if header.id == id && usize::from(id.lane) < MAX_SHARDS => {
            Ok(Found { header, bytes })
        }
        Ok(_) | Err(NoHeader::Damaged) => Err(FaultKind::Bucket),
        Err(NoHeader::Version(version)) => Err(FaultKind::Version(version)),
    }
}

/// What there is of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryExamined {
    /// Its name.
    pub name: String,
    /// Its buckets.
    pub buckets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The messages in them that can be read.
    pub messages: u64,
    /// What is wrong, and in which file.
    pub faults: Vec<(PathBuf, Fault)>,
}

impl HistoryExamined {
    /// What is wrong, besides a last write that a crash has cut off.
    pub fn damage(&self) -> impl Iterator<Item = &(PathBuf, Fault)> {
        let faults = self.faults.iter();
        faults.filter(|(_, fault)| fault.what != FaultKind::CutOff)
    }
}

/// Reads all history of a data directory, which nobody may work on meanwhile.
///
/// # Errors
/// It cannot be read, or a newer version wrote it.
pub fn examine(data: &Path) -> Result<Vec<HistoryExamined>, StoreError> {
    let directory = data.join(DIRECTORY);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut examined = Vec::new();
    for (name, path) in folders(&directory)? {
        let (buckets, wrong) = buckets(&path)?;
        let wrong = wrong.into_iter();
        let mut stream = HistoryExamined {
            name,
            faults: wrong
                .map(|(path, what)| (path, Fault { offset: 0, what }))
                .collect(),
            ..HistoryExamined::default()
        };
        for found in buckets {
            let path = path.join(found.header.id.file_name());
            let file = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
            stream.buckets += 1;
            stream.bytes += found.bytes;
            examine_bucket(&found, &file, &path, &mut stream);
        }
        examined.push(stream);
    }
    Ok(examined)
}

/// Reads a bucket.
pub(super) fn examine_bucket(
    found: &Found,
    file: &File,
    path: &Path,
    stream: &mut HistoryExamined,
) {
    let mut scan = whole(found);
    loop {
        let read = run(&scan, file);
        stream.messages += u64::from(read.page.count);
        let faults = read.faults.into_iter();
        let faults = faults.map(|fault| (path.to_owned(), fault));
        stream.faults.extend(faults);
        if read.end {
            return;
        }
        (scan.offset, scan.seq) = (read.offset, read.seq);
    }
}

/// Reads everything in a bucket.
pub(super) fn whole(found: &Found) -> Scan {
    // What begins with `$` is not matched by `#`.
    let first = found.header.filter.split('/').next().unwrap_or_default();
    let filter = match first.starts_with('$') {
        true => format!("{first}/#"),
        false => String::from("#"),
    };
    Scan {
        stream: 0,
        bucket: found.header.id,
        offset: 0,
        limit: found.bytes,
        seq: found.header.first,
        before: u64::MAX,
        query: crate::history::Query {
            filter: Arc::from(filter),
            from: 0,
            to: u64::MAX,
        },
        page_bytes: 1 << 20,
    }
}

pub(super) fn run(scan: &Scan, file: &File) -> Scanned {
    scan.run(&mut OpenFile(file))
}

struct OpenFile<'a>(&'a File);

impl Source for OpenFile<'_> {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        read_at(self.0, offset, into)
    }
}

/// Reads until `into` is full or the file ends.
pub(super) fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Something was done; of a write that failed, why.
#[derive(Debug)]
pub(in crate::runtime) struct HistoryWork {
    pub(in crate::runtime) done: HistoryDone,
    pub(in crate::runtime) error: Option<String>,
}

/// The shard's end of the thread.
#[derive(Debug)]
pub(in crate::runtime) struct HistoryDisk {
    /// Bounded: some writes a stream, a scan a replay.
    jobs: Worker<HistoryJob>,
    done: Receiver<HistoryWork>,
}

impl HistoryDisk {
    /// Starts the thread; `wake` is called whenever something was done.
    pub(in crate::runtime) fn start(
        options: &HistoryOptions,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (tell, done) = unbounded();
        let names: Names = options
            .streams
            .iter()
            .map(|stream| stream.name.clone())
            .collect();
        let mut hand = Hand::new(options.directory.clone(), names);
        let name = format!("history{}", options.place.shard);
        let jobs = Worker::start(name, move |mut todo| {
            let mut scans = VecDeque::new();
            loop {
                let job = match scans.is_empty() {
                    true => todo.next().ok_or(TryRecvError::Disconnected),
                    false => todo.try_next(),
                };
                let work = match job {
                    Ok(HistoryJob::Scan(number, scan)) => {
                        scans.push_back((number, scan));
                        continue;
                    }
                    Ok(HistoryJob::Write(write)) => hand.write(&write),
                    Ok(HistoryJob::Remove(removal)) => {
                        hand.remove(removal);
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => {
                        let Some((number, scan)) = scans.pop_front() else {
                            continue;
                        };
                        hand.scan(number, &scan)
                    }
                };
                // Nobody listens any more only when the shard has ended.
                let _ = tell.send(work);
                wake();
            }
        })?;
        Ok(Self { jobs, done })
    }

    /// Gives the thread something to do.
    pub(in crate::runtime) fn give(&self, job: HistoryJob) {
        self.jobs.give(job);
    }

    /// The next thing that was done.
    pub(in crate::runtime) fn done(&self) -> Option<HistoryWork> {
        self.done.try_recv().ok()
    }
}

/// Works on the files of some streams.
pub(super) struct Hand {
    directory: PathBuf,
    names: Names,
    /// The bucket of each stream that is written to.
    written: HashMap<usize, (BucketId, File)>,
    /// The bucket that was read last.
    read: Option<(usize, BucketId, File)>,
}

impl Hand {
    pub(super) fn new(directory: PathBuf, names: Names) -> Self {
        Self {
            directory,
            names,
            written: HashMap::new(),
            read: None,
        }
    }

    fn path(&self, stream: usize, bucket: BucketId) -> PathBuf {
        let name = self.names.get(stream).map_or("", String::as_str);
        self.directory.join(name).join(bucket.file_name())
    }

    fn write(&mut self, write: &Write) -> HistoryWork {
        let result = self.try_write(write);
        if result.is_err()
            && self
                .written
                .get(&write.stream)
                .is_some_and(|(id, _)| *id == write.bucket)
        {
            self.give_up(write);
        }
        HistoryWork {
            done: HistoryDone::Written(
                write.stream,
                result.as_ref().map(|_| ()).map_err(|_| Failure),
            ),
            error: result.err().map(|error| error.to_string()),
        }
    }

    pub(super) fn try_write(&mut self, write: &Write) -> io::Result<()> {
        if let Some(header) = &write.header {
            // The sync that is due comes to the bucket after this one.
            if let Some((_, before)) = self.written.get(&write.stream) {
                before.sync_data()?;
            }
            let path = self.path(write.stream, write.bucket);
            let mut made = OpenOptions::new();
            let made = made.read(true).write(true).create_new(true).mode(0o600);
            let file = made.open(&path)?;
            let (_, file) = self
                .written
                .entry(write.stream)
                .insert_entry((write.bucket, file))
                .into_mut();
            file.write_all_at(header, 0)?;
        }
        let opened = self.written.get(&write.stream);
        let opened = opened.filter(|(bucket, _)| *bucket == write.bucket);
        let (_, file) = opened.ok_or_else(|| io::Error::other("a write before it failed"))?;
        file.write_all_at(&write.bytes, write.offset)?;
        if write.sync {
            file.sync_data()?;
        }
        if write.header.is_some() {
            let path = self.path(write.stream, write.bucket);
            let directory = path.parent().unwrap_or(&self.directory);
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// Nothing more goes to a bucket that a write failed in; half of what it was to write is taken away.
    fn give_up(&mut self, write: &Write) {
        let Some((bucket, file)) = self.written.remove(&write.stream) else {
            return;
        };
        // If that fails too, readers pass over what they have, by its numbers.
        let _ = match write.header {
            Some(_) => fs::remove_file(self.path(write.stream, bucket)),
            None => file.set_len(write.offset),
        };
    }

    fn remove(&mut self, removal: Removal) {
        let Removal { stream, bucket } = removal;
        self.read = self
            .read
            .take()
            .filter(|(of, id, _)| (*of, *id) != (stream, bucket));
        self.written
            .retain(|of, (id, _)| (*of, *id) != (stream, bucket));
        let path = self.path(stream, bucket);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(path = %path.display(), %error, "history that is too old cannot be removed");
            }
            _ => {}
        }
    }

    fn scan(&mut self, number: u64, scan: &Scan) -> HistoryWork {
        let found = match self.open(scan) {
            Ok(file) => scan.run(&mut OpenFile(file)),
            Err(error) => Scanned {
                offset: scan.limit,
                seq: scan.seq,
                end: true,
                faults: vec![Fault {
                    offset: scan.offset,
                    what: match error.kind() {
                        io::ErrorKind::NotFound => FaultKind::Gone,
                        _ => FaultKind::Io(error.to_string()),
                    },
                }],
                ..Scanned::default()
            },
        };
        HistoryWork {
            done: HistoryDone::Scanned(number, Box::new(found)),
            error: None,
        }
    }

    fn open(&mut self, scan: &Scan) -> io::Result<&File> {
        let wanted = (scan.stream, scan.bucket);
        let known = self.read.take().filter(|(of, id, _)| (*of, *id) == wanted);
        let file = match known {
            Some((_, _, file)) => file,
            None => File::open(self.path(scan.stream, scan.bucket))?,
        };
        let (_, _, file) = self.read.insert((scan.stream, scan.bucket, file));
        Ok(file)
    }
}
