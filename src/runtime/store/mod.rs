//! The data directory: where the journals of the shards lie, and who may touch them.
//!
//! ```text
//! DIR/lock                        held while a broker, or `shardmq store`, works on it
//! DIR/store.json                  version, layout, and the identity of each journal
//! DIR/LAYOUT/SHARD/0000002a.log   files of one journal, each as large as a segment
//! ```
//!
//! `store.json` is replaced as a whole: by a rename, synced before and after. A new layout is made for
//! another number of shards; until `store.json` names it, it is nothing, and what it does not name is
//! removed.

mod disk;
mod error;
mod files;
mod manifest;
mod spread;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

pub(super) use disk::{Disk, Done};
pub use error::StoreError;
pub use files::{Files, Loaded, Progress};
use manifest::Manifest;

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
        store.remove_other_layouts()?;
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
        Files::new(
            layout(&self.directory, self.manifest.layout).join(shard.to_string()),
            self.manifest.identity(shard),
            self.manifest.segment_bytes,
        )
    }

    /// Spreads everything over another number of shards.
    fn spread(&mut self, shards: usize) -> Result<(), StoreError> {
        let next = Manifest::new(self.manifest.layout + 1, shards, random);
        tracing::info!(
            from = self.shards(),
            to = shards,
            "the number of shards has changed: durable state is spread anew"
        );
        make_layout(&self.directory, &next)?;
        let old: Vec<Files> = (0..self.shards()).map(|shard| self.files(shard)).collect();
        let before = std::mem::replace(&mut self.manifest, next);
        let new: Vec<Files> = (0..shards).map(|shard| self.files(shard)).collect();
        if let Err(error) = spread::spread(&old, &new) {
            self.manifest = before;
            self.remove_other_layouts()?;
            return Err(error);
        }
        self.manifest.write(&self.directory)?;
        self.remove_other_layouts()
    }

    /// Removes layouts that the manifest does not name: of a spreading that did not end, or that did.
    fn remove_other_layouts(&self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.directory)
            .map_err(|error| StoreError::io("read", &self.directory, error))?;
        for entry in entries.flatten() {
            let number = entry.file_name().to_str().map(str::parse::<u32>);
            if let Some(Ok(number)) = number
                && number != self.manifest.layout
            {
                fs::remove_dir_all(entry.path())
                    .map_err(|error| StoreError::io("remove", &entry.path(), error))?;
            }
        }
        Ok(())
    }
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
