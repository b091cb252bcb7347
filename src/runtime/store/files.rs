//! The files of one journal: made, read, and read back as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::journal::{
    BLOCK, FileId, Identity, ItemId, Journal, Read, Recipient, Recovered, Recovery, Salvage,
    Settings, StoredMessage, Survey, Sync,
};
use crate::shard::{Bodies, Epoch};

use super::super::sys;
use super::{StoreError, sync_directory};

/// From how long on a shard tells how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// The directory of one journal.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    identity: Identity,
    segment_bytes: u32,
}

/// A journal and all that it held.
pub struct Loaded {
    /// It goes on from here.
    pub journal: Journal,
    /// What it held, bodies aside.
    pub recovered: Recovered,
    /// The bodies.
    pub bodies: Bodies,
}

/// Tells how far reading is, once it takes long.
#[derive(Debug)]
pub struct Progress {
    shard: u16,
    begun: Instant,
    told: Instant,
    total: u64,
    done: u64,
}

impl Progress {
    fn new(shard: u16, total: u64) -> Self {
        let now = Instant::now();
        Self {
            shard,
            begun: now,
            told: now,
            total,
            done: 0,
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.told.elapsed() >= PATIENCE {
            self.told = Instant::now();
            let percent = self.done * 100 / self.total.max(1);
            tracing::info!(
                shard = self.shard,
                seconds = self.begun.elapsed().as_secs(),
                "reading durable state: {percent} % of {} MiB",
                self.total >> 20
            );
        }
    }
}

impl Files {
    pub(super) fn new(directory: PathBuf, identity: Identity, segment_bytes: u32) -> Self {
        Self {
            directory,
            identity,
            segment_bytes,
        }
    }

    /// Where they lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How a journal in them is set.
    pub(super) fn settings(&self, sync: Sync) -> Settings {
        Settings {
            segment_bytes: self.segment_bytes,
            sync,
            ..Settings::default()
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// A file cannot be read, or something that was on disk is not there any more.
    pub fn load(&self, sync: Sync, epoch: Epoch) -> Result<Loaded, StoreError> {
        let (journal, recovered, mut progress) = self.recover(sync)?;
        let mut bodies = Bodies::new(epoch, &recovered);
        self.each_message(&journal, &mut progress, |item, message, retained, to| {
            bodies.take(item, message, retained, to);
        })?;
        Ok(Loaded {
            journal,
            recovered,
            bodies,
        })
    }

    /// The same, with each message as it is read, in the order in which they stand.
    pub(super) fn load_with(
        &self,
        sync: Sync,
        each: impl FnMut(ItemId, StoredMessage<'_>, bool, &[Recipient<'_>]),
    ) -> Result<(Journal, Recovered), StoreError> {
        let (journal, recovered, mut progress) = self.recover(sync)?;
        self.each_message(&journal, &mut progress, each)?;
        Ok((journal, recovered))
    }

    fn recover(&self, sync: Sync) -> Result<(Journal, Recovered, Progress), StoreError> {
        let mut recovery = Recovery::new(self.identity, self.settings(sync));
        let files = self.list()?;
        let total = files.len() as u64 * u64::from(self.segment_bytes);
        let mut progress = Progress::new(self.identity.shard, 2 * total);
        let mut block = [0; BLOCK];
        for &file in &files {
            let opened = self.open(file)?;
            opened
                .read_exact_at(&mut block, 0)
                .map_err(|error| self.error("read", file, error))?;
            // After a crash of the process alone, what is read may be in the kernel's memory only.
            opened
                .sync_all()
                .map_err(|error| self.error("sync", file, error))?;
            recovery.look(file, &block);
        }
        let mut bytes = Vec::new();
        while let Some(file) = recovery.next_file() {
            self.read_whole(file, &mut bytes)?;
            recovery
                .read(file, &bytes)
                .map_err(|damage| self.damaged(damage))?;
            progress.advance(u64::from(self.segment_bytes));
        }
        let (journal, recovered) = recovery.finish().map_err(|damage| self.damaged(damage))?;
        Ok((journal, recovered, progress))
    }

    fn each_message(
        &self,
        journal: &Journal,
        progress: &mut Progress,
        mut each: impl FnMut(ItemId, StoredMessage<'_>, bool, &[Recipient<'_>]),
    ) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for file in journal.files().collect::<Vec<_>>() {
            self.read_whole(file, &mut bytes)?;
            journal
                .each_message(file, &bytes, &mut each)
                .map_err(|damage| self.damaged(damage))?;
            progress.advance(u64::from(self.segment_bytes));
        }
        Ok(())
    }

    /// The first two looks of a lenient reading; nothing is changed.
    pub(super) fn salvage(&self) -> Result<Salvage, StoreError> {
        let mut survey = Survey::new(self.identity, self.settings(Sync::Always));
        for file in self.names()?.0 {
            survey.look(file, &self.bytes(file)?);
        }
        let mut salvage = survey.finish();
        for file in salvage.files() {
            salvage.read(file, &self.bytes(file)?);
        }
        Ok(salvage)
    }

    /// A whole file.
    pub(super) fn bytes(&self, file: FileId) -> Result<Vec<u8>, StoreError> {
        fs::read(self.path(file)).map_err(|error| self.error("read", file, error))
    }

    /// The files that there are, and those that were being made when the process ended.
    pub(super) fn names(&self) -> Result<(Vec<FileId>, Vec<PathBuf>), StoreError> {
        let entries = fs::read_dir(&self.directory)
            .map_err(|error| StoreError::io("read", &self.directory, error))?;
        let (mut files, mut unfinished) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(|error| StoreError::io("read", &self.directory, error))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".new") {
                unfinished.push(entry.path());
            } else if let Some(number) = name.strip_suffix(".log")
                && let Ok(number) = u32::from_str_radix(number, 16)
            {
                files.push(FileId(number));
            }
        }
        files.sort_unstable();
        Ok((files, unfinished))
    }

    /// The files that there are. One that was being made when the process ended is removed.
    pub fn list(&self) -> Result<Vec<FileId>, StoreError> {
        let (files, unfinished) = self.names()?;
        for path in unfinished {
            fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        }
        Ok(files)
    }

    /// Makes a file, with its space.
    pub(super) fn allocate(&self, file: FileId) -> io::Result<File> {
        let path = self.path(file);
        let new = path.with_extension("new");
        let made = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&new)?;
        let result = sys::reserve(&made, self.segment_bytes)
            .and_then(|()| made.sync_all())
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if result.is_err() {
            let _ = fs::remove_file(&new);
            let _ = fs::remove_file(&path);
        }
        result.map(|()| made)
    }

    pub(super) fn remove(&self, file: FileId) {
        // What cannot be removed is found at the next start, and used again.
        let _ = fs::remove_file(self.path(file));
    }

    /// Opens a file to be written and read.
    pub(super) fn open(&self, file: FileId) -> Result<File, StoreError> {
        let path = self.path(file);
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| StoreError::io("open", &path, error))
    }

    /// Reads a part of a file; less, if the file ends.
    pub(super) fn read(from: &File, read: Read) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; read.length as usize];
        from.read_exact_at(&mut bytes, u64::from(read.offset))?;
        Ok(bytes)
    }

    fn read_whole(&self, file: FileId, into: &mut Vec<u8>) -> Result<(), StoreError> {
        into.clear();
        let mut opened = self.open(file)?;
        opened
            .read_to_end(into)
            .map_err(|error| self.error("read", file, error))?;
        Ok(())
    }

    /// New names are on disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sync_directory(&self.directory)
    }

    pub(super) fn path(&self, file: FileId) -> PathBuf {
        self.directory.join(format!("{:08x}.log", file.0))
    }

    fn error(&self, what: &'static str, file: FileId, error: io::Error) -> StoreError {
        StoreError::io(what, &self.path(file), error)
    }

    pub(super) fn damaged(&self, damage: crate::journal::Damage) -> StoreError {
        StoreError::Damaged {
            directory: self.directory.clone(),
            damage,
        }
    }

    pub(super) fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}
