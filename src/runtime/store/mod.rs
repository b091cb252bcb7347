//! The data directory: where the journals of the shards lie, and who may touch them.
//!
//! ```text
//! DIR/lock                        held while a broker, or `shardmq store`, works on it
//! DIR/store.json                  version, layout, and the identity of each journal
//! DIR/LAYOUT/SHARD/0000002a.log   files of one journal, each as large as a segment
//! DIR/history/NAME/….bucket       what a history stream keeps
//! DIR/control                     where the broker that works on it is asked for a backup
//! DIR/backup.json                 in a backup: where it ends (`backup`)
//! DIR/damaged-LAYOUT/…            what a repair did not take over, and what it did, as it was
//! ```
//!
//! `store.json` is replaced as a whole: by a rename, synced before and after. A new layout is made for
//! another number of shards; until `store.json` names it, it is nothing, and what it does not name is
//! removed.

mod backup;
mod content;
mod disk;
mod dump;
mod error;
mod examine;
mod export;
mod files;
mod forwards;
mod history;
mod history_copy;
mod history_lines;
mod json;
mod manifest;
mod mosquitto;
mod reader;
mod remains;
mod repair;
mod target;
mod worker;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

pub use backup::{Backup, lacks as lacks_history};
pub(super) use backup::{DOOR, Door};
pub use content::Superseded;
pub(super) use disk::{Disk, Done};
pub use dump::Format;
pub use error::StoreError;
pub use examine::{Examined, Fault, ShardExamined};
pub use export::Amount;
pub use files::{Files, Loaded, Progress};
pub(super) use history::{HistoryDisk, HistoryOptions, open as open_history};
pub use history::{HistoryExamined, examine as examine_history};
pub use remains::Remains;
pub use repair::Repaired;

use content::Content;
use manifest::Manifest;
use target::Targets;

/// A data directory that nobody else works on.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    manifest: Manifest,
    /// Locked until it is dropped.
    _lock: File,
}

impl Store {
    /// Opens `directory` for `shards` shards; makes it, or spreads what it holds anew, if need be.
    ///
    /// # Errors
    /// It cannot be used; nothing has changed then.
    pub fn open(directory: &Path, shards: usize) -> Result<Self, StoreError> {
        make_directory(directory).map_err(|error| StoreError::io("make", directory, error))?;
        let lock = lock(directory)?;
        let manifest = match Manifest::read(directory)? {
            Some(manifest) => manifest,
            // Something is there, and what would say what it is has gone.
            None if remains::has_journals(directory) => {
                return Err(StoreError::Manifest(directory.join(manifest::NAME)));
            }
            None => {
                let fresh = Manifest::new(1, shards, random);
                make_layout(directory, &fresh)?;
                fresh.write(directory)?;
                fresh
            }
        };
        let mut store = Self {
            directory: directory.to_owned(),
            manifest,
            _lock: lock,
        };
        store.check_layout()?;
        store.remove_other_layouts()?;
        backup::forget(directory)?;
        if store.shards() != shards {
            store.spread(shards)?;
        }
        Ok(store)
    }

    /// Opens what is there, to look at it.
    ///
    /// # Errors
    /// There is nothing, or it cannot be used.
    pub fn open_existing(directory: &Path) -> Result<Self, StoreError> {
        if !directory.join(manifest::NAME).exists() {
            return Err(StoreError::Missing(directory.to_owned()));
        }
        let lock = lock(directory)?;
        let manifest =
            Manifest::read(directory)?.ok_or_else(|| StoreError::Missing(directory.to_owned()))?;
        Ok(Self {
            directory: directory.to_owned(),
            manifest,
            _lock: lock,
        })
    }

    /// How many shards it is spread over.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.manifest.logs.len()
    }

    /// The files of a shard's journal.
    #[must_use]
    pub fn files(&self, shard: usize) -> Files {
        self.manifest.shard(&self.directory, shard)
    }

    /// Spreads everything over another number of shards.
    fn spread(&mut self, shards: usize) -> Result<(), StoreError> {
        tracing::info!(
            from = self.shards(),
            to = shards,
            "the number of shards has changed: durable state is spread anew"
        );
        let old = self.manifest.files(&self.directory);
        self.replace(shards, |targets| {
            let contents = Content::read_all(&old)?;
            contents
                .iter()
                .try_for_each(|content| targets.take(content))
        })
    }

    /// Puts what `fill` makes into the place of what there is, wholly or not at all.
    fn replace(
        &mut self,
        shards: usize,
        fill: impl FnOnce(&mut Targets) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let next = Manifest::new(self.manifest.layout + 1, shards, random);
        if let Err(error) = make_and_fill(&self.directory, &next, fill) {
            self.remove_other_layouts()?;
            return Err(error);
        }
        next.write(&self.directory)?;
        self.manifest = next;
        self.remove_other_layouts()
    }

    /// Before anything is removed: what the manifest names must be there.
    fn check_layout(&self) -> Result<(), StoreError> {
        for shard in 0..self.shards() {
            let path = self.files(shard).directory().to_owned();
            fs::read_dir(&path).map_err(|error| StoreError::io("read", &path, error))?;
        }
        Ok(())
    }

    /// Removes layouts that the manifest does not name: of a spreading that did not end, or that did.
    fn remove_other_layouts(&self) -> Result<(), StoreError> {
        for (number, path) in layouts(&self.directory)? {
            if number != self.manifest.layout {
                fs::remove_dir_all(&path)
                    .map_err(|error| StoreError::io("remove", &path, error))?;
            }
        }
        Ok(())
    }
}

/// The layouts that there are, oldest first.
fn layouts(directory: &Path) -> Result<Vec<(u32, PathBuf)>, StoreError> {
    let entries =
        fs::read_dir(directory).map_err(|error| StoreError::io("read", directory, error))?;
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Makes the layout that `manifest` names, and puts something into it. It counts once the manifest is
/// written.
fn make_and_fill(
    directory: &Path,
    manifest: &Manifest,
    fill: impl FnOnce(&mut Targets) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    make_layout(directory, manifest)?;
    let mut targets = Targets::new(manifest.files(directory))?;
    fill(&mut targets)?;
    targets.finish()
}

fn layout(directory: &Path, number: u32) -> PathBuf {
    directory.join(number.to_string())
}

fn make_layout(directory: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let layout = layout(directory, manifest.layout);
    for shard in 0..manifest.logs.len() {
        let path = layout.join(shard.to_string());
        fs::create_dir_all(&path).map_err(|error| StoreError::io("make", &path, error))?;
    }
    sync_directory(&layout)?;
    sync_directory(directory)
}

/// Names in a directory are on disk.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| StoreError::io("sync", path, error))
}

/// What clients send is nobody else's business.
fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| StoreError::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path, error)),
    }
}

/// A number that nobody can guess: the standard library's hasher is seeded by the operating system.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
