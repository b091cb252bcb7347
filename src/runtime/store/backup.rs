//! A copy of a data directory that a broker can be started from, taken while the broker runs or not.
//!
//! The broker is asked by the socket in its data directory (`control.rs`) for one moment of all its journals:
//! which files they are made of, and how much of each. That much of a file is never written again, and the
//! broker does not use the file for anything else before it is told that it was copied. Then the copy is read
//! as a broker would; only a copy that is whole, and ends where it must, gets its `store.json`, without which
//! it is no data directory.
//!
//! ```text
//! DIR/store.json      as that of the original
//! DIR/backup.json     when, from where, and where each journal ends: until a broker goes on from it
//! DIR/LAYOUT/SHARD/…  the files that count, each as large as a segment
//! DIR/history/NAME/…  the buckets of history (`history_copy`)
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::history::BucketId;
use crate::journal::{Cut, FileId, Position, Sync};

use super::super::sys;
use super::examine::ShardExamined;
use super::files::Files;
use super::history::{self, HistoryExamined};
use super::history_copy::{self, Extent};
use super::manifest::Manifest;
use super::{Store, StoreError, make_directory, make_layout, sync_directory};

/// The name of the socket in a data directory.
pub(in crate::runtime) const DOOR: &str = "control";

/// The name of the file that says what a backup holds.
pub(super) const NAME: &str = "backup.json";

/// The version of that file.
const VERSION: u32 = 1;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The path of the socket of a data directory. The kernel takes 107 bytes, so where it is longer it
/// leads over the open directory.
#[derive(Debug)]
pub(in crate::runtime) struct Door {
    path: PathBuf,
    _directory: Option<File>,
}

impl Door {
    pub(in crate::runtime) fn of(directory: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let path = directory.join(DOOR);
        if path.as_os_str().len() < 100 {
            return Ok(Self {
                path,
                _directory: None,
            });
        }
        let directory = File::open(directory)?;
        let path = format!("/proc/self/fd/{}/{DOOR}", directory.as_raw_fd()).into();
        Ok(Self {
            path,
            _directory: Some(directory),
        })
    }

    pub(in crate::runtime) fn path(&self) -> &Path {
        &self.path
    }
}

/// A backup that was taken.
#[derive(Debug)]
pub struct Backup {
    /// What it holds, by shards.
    pub shards: Vec<ShardExamined>,
    /// What it holds of history, by streams.
    pub history: Vec<HistoryExamined>,
    /// Messages of history that the broker could not write in time, so that they are not in it.
    pub history_missing: u64,
    /// Bytes that were copied.
    pub bytes: u64,
    /// How long the shards did not commit anything, if a broker runs.
    pub held: Option<Duration>,
}

impl Store {
    /// Copies the data directory `directory` to `to`, which is empty or not there. `tell` hears of bytes that
    /// were copied, and of how many there are.
    ///
    /// # Errors
    /// There is no whole copy, and nothing in `to`.
    pub fn backup(
        directory: &Path,
        to: &Path,
        now: SystemTime,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Backup, StoreError> {
        if !directory.join(super::manifest::NAME).exists() {
            return Err(StoreError::Missing(directory.to_owned()));
        }
        prepare(directory, to)?;
        let mut source = match Self::open_existing(directory) {
            Ok(store) => Source::at_rest(store)?,
            Err(StoreError::Locked(_)) => Source::running(directory)?,
            Err(error) => return Err(error),
        };
        let done = source.copy_to(to, now, tell);
        if done.is_err() {
            // What was made here, and nothing else: it was empty.
            let _ = fs::remove_dir_all(super::layout(to, source.manifest.layout));
            let _ = fs::remove_dir_all(to.join(history::DIRECTORY));
            let _ = fs::remove_file(to.join(NAME));
        }
        done
    }
}

/// The place must be empty, and must not be within what is copied: a broker removes there what it does
/// not know.
fn prepare(directory: &Path, to: &Path) -> Result<(), StoreError> {
    make_directory(to).map_err(|error| StoreError::io("make", to, error))?;
    let mut entries = fs::read_dir(to).map_err(|error| StoreError::io("read", to, error))?;
    if entries.next().is_some() {
        return Err(StoreError::NotEmpty(to.to_owned()));
    }
    let whole = |path: &Path| {
        path.canonicalize()
            .map_err(|error| StoreError::io("find", path, error))
    };
    if whole(to)?.starts_with(whole(directory)?) {
        let _ = fs::remove_dir(to);
        return Err(StoreError::Within(to.to_owned()));
    }
    Ok(())
}

/// What is copied.
struct Source {
    directory: PathBuf,
    manifest: Manifest,
    cuts: Vec<Cut>,
    history: Vec<Extent>,
    history_missing: u64,
    /// Nobody else works on it.
    _store: Option<Store>,
    /// The broker that does.
    broker: Option<Broker>,
    held: Option<Duration>,
}

impl Source {
    /// No broker runs.
    fn at_rest(store: Store) -> Result<Self, StoreError> {
        let mut cuts = Vec::new();
        for shard in 0..store.shards() {
            let files = store.files(shard);
            let (mut journal, _) = files.load_with(Sync::Always, |_, _, _, _| {})?;
            journal.freeze();
            let cut = journal.cut();
            cuts.push(cut.ok_or_else(|| StoreError::Refused(files.directory().to_owned()))?);
        }
        Ok(Self {
            directory: store.directory.clone(),
            manifest: store.manifest.clone(),
            cuts,
            history: history_copy::all(&store.directory, &[])?,
            history_missing: 0,
            _store: Some(store),
            broker: None,
            held: None,
        })
    }

    fn running(directory: &Path) -> Result<Self, StoreError> {
        let mut broker = Broker::connect(directory)?;
        // Its layout changes only at a start.
        let manifest =
            Manifest::read(directory)?.ok_or_else(|| StoreError::Missing(directory.to_owned()))?;
        let told = broker.ask(&json!({ "shardmq": 1, "do": "backup" }))?;
        let cuts = cuts(&told).filter(|cuts| cuts.len() == manifest.logs.len());
        let cuts = cuts.ok_or_else(|| broker.strange())?;
        let told_history = told_history(&told).ok_or_else(|| broker.strange())?;
        let (streams, mut history, history_missing) = told_history;
        // Those that the broker does not know any more: nobody works on them.
        history.extend(history_copy::all(directory, &streams)?);
        Ok(Self {
            directory: directory.to_owned(),
            manifest,
            cuts,
            history,
            history_missing,
            _store: None,
            broker: Some(broker),
            held: told["held_us"].as_u64().map(Duration::from_micros),
        })
    }

    fn copy_to(
        &mut self,
        to: &Path,
        now: SystemTime,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Backup, StoreError> {
        make_layout(to, &self.manifest)?;
        let all = self.cuts.iter().flat_map(|cut| &cut.files);
        let total: u64 = all.map(|(_, bytes)| u64::from(*bytes)).sum();
        let total = total + self.history.iter().map(|extent| extent.bytes).sum::<u64>();
        let mut copied = 0;
        tell(copied, total);
        for (shard, cut) in self.cuts.iter().enumerate() {
            let from = self.manifest.shard(&self.directory, shard);
            let into = self.manifest.shard(to, shard);
            for &(file, bytes) in &cut.files {
                copy(&from, &into, file, bytes)?;
                copied += u64::from(bytes);
                tell(copied, total);
                if let Some(broker) = &mut self.broker {
                    broker.tell(&json!({ "copied": [shard, file.0] }))?;
                }
            }
            into.sync()?;
        }
        // Behind the journals, which the broker needs again sooner.
        let history = history_copy::copy(&self.directory, to, &self.history, |extent| {
            copied += extent.bytes;
            tell(copied, total);
            let Some(broker) = &mut self.broker else {
                return Ok(());
            };
            broker.tell(&json!({ "copied": [extent.stream, extent.bucket.file_name()] }))
        })?;
        if let Some(broker) = &mut self.broker {
            broker.ask(&json!({ "do": "finish" }))?;
        }
        let shards = self.verify(to)?;
        self.describe(to, now, (&shards, &history), total)?;
        self.manifest.write(to)?;
        if let Some(broker) = &mut self.broker {
            broker.ask(&json!({ "do": "verified", "bytes": total }))?;
        }
        Ok(Backup {
            shards,
            history,
            history_missing: self.history_missing,
            bytes: total,
            held: self.held,
        })
    }

    /// Reads the copy as `shardmq store verify` does, and as a broker.
    fn verify(&self, to: &Path) -> Result<Vec<ShardExamined>, StoreError> {
        let mut examined = Vec::new();
        for (shard, cut) in self.cuts.iter().enumerate() {
            let files = self.manifest.shard(to, shard);
            let (_, found) = super::examine::examine(&files)?;
            if let Some(fault) = found.faults.first() {
                return Err(files.damaged(fault.loss.damage));
            }
            if found.position != cut.position {
                return Err(StoreError::Short {
                    directory: files.directory().to_owned(),
                    found: found.position.0,
                    wanted: cut.position.0,
                });
            }
            examined.push(found);
        }
        Ok(examined)
    }

    fn describe(
        &self,
        to: &Path,
        now: SystemTime,
        (shards, history): (&[ShardExamined], &[HistoryExamined]),
        bytes: u64,
    ) -> Result<(), StoreError> {
        let taken = now.duration_since(SystemTime::UNIX_EPOCH);
        let shards = self.cuts.iter().zip(shards).map(|(cut, shard)| {
            let name = |file: FileId| format!("{:08x}.log", file.0);
            let files = cut.files.iter();
            let files = files.map(|&(file, bytes)| json!({ "file": name(file), "bytes": bytes }));
            json!({
                "position": cut.position.0,
                "sessions": shard.sessions,
                "messages": shard.messages,
                "retained": shard.retained,
                "files": files.collect::<Vec<_>>(),
            })
        });
        let history = history.iter().map(|stream| {
            json!({
                "stream": stream.name,
                "buckets": stream.buckets,
                "bytes": stream.bytes,
                "messages": stream.messages,
            })
        });
        let text = json!({
            "version": VERSION,
            "program": env!("CARGO_PKG_VERSION"),
            "from": self.directory.to_string_lossy(),
            "taken": taken.map_or(0, |taken| taken.as_secs()),
            "bytes": bytes,
            "shards": shards.collect::<Vec<_>>(),
            "history": history.collect::<Vec<_>>(),
        });
        let path = to.join(NAME);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(format!("{text:#}\n").as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| StoreError::io("write", &path, error))
    }
}

/// Copies the begin of a file of a journal; the rest of the new one is zeros, with their space.
fn copy(from: &Files, into: &Files, file: FileId, bytes: u32) -> Result<(), StoreError> {
    let (source, target) = (from.path(file), into.path(file));
    let read = File::open(&source).map_err(|error| StoreError::io("read", &source, error))?;
    let write = |error| StoreError::io("write", &target, error);
    let made = File::create_new(&target).map_err(write)?;
    sys::reserve(&made, into.segment_bytes()).map_err(write)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < u64::from(bytes) {
        let length = (u64::from(bytes) - at).min(PIECE as u64) as usize;
        let piece = &mut piece[..length];
        read.read_exact_at(piece, at)
            .map_err(|error| StoreError::io("read", &source, error))?;
        made.write_all_at(piece, at).map_err(write)?;
        at += length as u64;
    }
    made.sync_all().map_err(write)
}

/// The broker that works on a data directory.
struct Broker {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Broker {
    fn connect(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(DOOR);
        let stream = Door::of(directory)
            .and_then(|door| UnixStream::connect(door.path()))
            .and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(stream)
            });
        let stream = stream.map_err(|error| StoreError::Door(path.clone(), error))?;
        Ok(Self {
            path,
            stream: BufReader::new(stream),
        })
    }

    fn tell(&mut self, value: &Value) -> Result<(), StoreError> {
        let line = format!("{value}\n");
        let told = self.stream.get_mut().write_all(line.as_bytes());
        match told {
            Ok(()) => Ok(()),
            // It has said why before it ended the connection.
            Err(error) => match self.answer() {
                Err(refused @ StoreError::NoBackup(_)) => Err(refused),
                _ => Err(StoreError::Door(self.path.clone(), error)),
            },
        }
    }

    fn ask(&mut self, value: &Value) -> Result<Value, StoreError> {
        self.tell(value)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value, StoreError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        let bytes = read.map_err(|error| StoreError::Door(self.path.clone(), error))?;
        if bytes == 0 {
            let error = io::ErrorKind::UnexpectedEof.into();
            return Err(StoreError::Door(self.path.clone(), error));
        }
        let value: Value = serde_json::from_str(&line).map_err(|_| self.strange())?;
        match value.get("error").and_then(Value::as_str) {
            Some(why) => Err(StoreError::NoBackup(why.to_owned())),
            None => Ok(value),
        }
    }

    fn strange(&self) -> StoreError {
        StoreError::Door(self.path.clone(), io::ErrorKind::InvalidData.into())
    }
}

fn cuts(told: &Value) -> Option<Vec<Cut>> {
    let shards = told.get("shards")?.as_array()?.iter().map(|shard| {
        let files = shard.get("files")?.as_array()?.iter().map(|file| {
            let number = |index: usize| u32::try_from(file.get(index)?.as_u64()?).ok();
            Some((FileId(number(0)?), number(1)?))
        });
        Some(Cut {
            position: Position(shard.get("position")?.as_u64()?),
            files: files.collect::<Option<_>>()?,
        })
    });
    shards.collect()
}

/// What a broker tells of history: its streams, their buckets, and how many messages are in none.
fn told_history(told: &Value) -> Option<(Vec<String>, Vec<Extent>, u64)> {
    let history = told.get("history")?;
    let mut extents = Vec::new();
    let streams = history.get("streams")?.as_object()?;
    for (stream, buckets) in streams {
        for bucket in buckets.as_array()? {
            extents.push(Extent {
                stream: stream.clone(),
                bucket: BucketId::of_file(bucket.get(0)?.as_str()?)?,
                bytes: bucket.get(1)?.as_u64()?,
            });
        }
    }
    let streams = streams.keys().cloned().collect();
    Some((streams, extents, history.get("missing")?.as_u64()?))
}

/// What is wrong with a backup that no broker has gone on from yet, besides its journals: the last frame
/// of all has nobody to speak for it but this. Nothing, if it is no backup.
pub(super) fn problems(directory: &Path, shards: &[ShardExamined]) -> Vec<String> {
    let path = directory.join(NAME);
    let Ok(text) = fs::read_to_string(&path) else {
        return Vec::new();
    };
    let value = serde_json::from_str::<Value>(&text).unwrap_or_default();
    let positions = value["shards"].as_array().into_iter().flatten();
    let positions: Vec<_> = positions.map(|shard| shard["position"].as_u64()).collect();
    if value["version"] != VERSION || positions.len() != shards.len() {
        return vec![format!("{} is damaged", path.display())];
    }
    let ends = positions.into_iter().zip(shards);
    let wrong = ends.filter(|(wanted, shard)| *wanted != Some(shard.position.0));
    let wrong = wrong.map(|(wanted, shard)| {
        format!(
            "{} ends at frame {}, and the backup ended at {}",
            shard.directory.display(),
            shard.position.0,
            wanted.unwrap_or(0)
        )
    });
    wrong.collect()
}

/// What a backup that no broker has gone on from yet lacks of the history that it had.
#[must_use]
pub fn lacks(directory: &Path, history: &[HistoryExamined]) -> Vec<String> {
    let text = fs::read_to_string(directory.join(NAME)).unwrap_or_default();
    let value = serde_json::from_str::<Value>(&text).unwrap_or_default();
    let streams = value["history"].as_array().into_iter().flatten();
    let lacks = streams.filter_map(|stream| {
        let name = stream["stream"].as_str().unwrap_or_default();
        let found = history.iter().find(|found| found.name == name);
        let had = |key: &str| stream[key].as_u64().unwrap_or(0);
        let has = found.map_or((0, 0), |found| (found.bytes, found.messages));
        (has != (had("bytes"), had("messages"))).then(|| {
            format!(
                "history {name} has {} messages in {} bytes, and the backup had {} in {}",
                has.1,
                has.0,
                had("messages"),
                had("bytes")
            )
        })
    });
    lacks.collect()
}

/// A broker goes on from it: it is no backup any longer.
pub(super) fn forget(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(NAME);
    match fs::remove_file(&path) {
        Ok(()) => sync_directory(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("remove", &path, error)),
    }
}
