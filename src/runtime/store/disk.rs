//! The thread that does to the disk what a shard's journal asks for.
//!
//! A thread of its own, not the ring of the shard: `fdatasync` blocks a thread of the kernel anyway, the
//! same code serves both net drivers, and a group commit costs one wake on either side whatever it
//! holds. (Measured, see ARCHITECTURE.md.)

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crossbeam_channel::{Receiver, unbounded};

use crate::journal::{Failure, FileId, Journal, Read, Write};
use crate::shard::Fetching;

use super::files::Files;
use super::reader;
use super::worker::Worker;

/// What is to be done.
#[derive(Debug)]
enum Job {
    Allocate(FileId),
    Write(Write),
    Read(Read),
    Remove(FileId),
}

/// What was done.
#[derive(Debug)]
pub(in crate::runtime) enum Done {
    /// A file is there, or not.
    Allocated(FileId, io::Result<()>),
    /// A frame was written, and synced if it asked for that.
    Written(Write, Result<(), Failure>),
    /// A part of a file was read; nothing, if it could not be.
    Read(Read, Vec<u8>),
    /// Messages were read back; nothing where they could not be.
    Fetched(Fetching, Vec<Vec<u8>>),
}

/// The shard's end.
#[derive(Debug)]
pub(in crate::runtime) struct Disk {
    /// Bounded by the journal: a write, a read, a file at a time.
    jobs: Worker<Job>,
    /// Bounded by the sessions: one for each.
    reader: Worker<Fetching>,
    done: Receiver<Done>,
}

impl Disk {
    /// Starts the thread; `wake` is called whenever something was done.
    pub(in crate::runtime) fn start(
        files: Files,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (tell, done) = unbounded();
        let reader = {
            let (tell, wake) = (tell.clone(), wake.clone());
            reader::start(files.clone(), move |done| {
                let _ = tell.send(done);
                wake();
            })?
        };
        let name = format!("disk{}", files.identity().shard);
        let jobs = Worker::start(name, move |todo| {
            let mut hand = Hand {
                files,
                open: HashMap::new(),
            };
            for job in todo {
                if let Some(done) = hand.work(job) {
                    // Nobody listens any more only when the shard has ended.
                    let _ = tell.send(done);
                    wake();
                }
            }
        })?;
        Ok(Self { jobs, reader, done })
    }

    /// Gives the thread everything that the journal asks for.
    pub(in crate::runtime) fn feed(&self, journal: &mut Journal) {
        while let Some(file) = journal.next_removal() {
            self.jobs.give(Job::Remove(file));
        }
        while let Some(file) = journal.next_allocation() {
            self.jobs.give(Job::Allocate(file));
        }
        while let Some(read) = journal.next_move() {
            self.jobs.give(Job::Read(read));
        }
        while let Some(write) = journal.next_write() {
            self.jobs.give(Job::Write(write));
        }
    }

    /// Has messages read back.
    pub(in crate::runtime) fn fetch(&self, fetching: Fetching) {
        self.reader.give(fetching);
    }

    /// The next thing that was done.
    pub(in crate::runtime) fn done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

struct Hand {
    files: Files,
    open: HashMap<FileId, File>,
}

impl Hand {
    fn work(&mut self, job: Job) -> Option<Done> {
        match job {
            Job::Allocate(file) => {
                let allocated = self.files.allocate(file);
                let result = allocated.map(|opened| _ = self.open.insert(file, opened));
                Some(Done::Allocated(file, result))
            }
            Job::Write(write) => {
                let result = self.write(&write);
                Some(Done::Written(write, result))
            }
            Job::Read(read) => {
                let file = self.file(read.file);
                let bytes = file.and_then(|file| Files::read(file, read));
                Some(Done::Read(read, bytes.unwrap_or_default()))
            }
            Job::Remove(file) => {
                self.open.remove(&file);
                self.files.remove(file);
                None
            }
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), Failure> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WriteZero => Failure::ShortWrite,
            _ => Failure::Io(error.raw_os_error()),
        };
        let file = self.file(write.file).map_err(failed)?;
        file.write_all_at(write.bytes(), u64::from(write.offset))
            .map_err(failed)?;
        if write.sync {
            file.sync_data().map_err(failed)?;
        }
        Ok(())
    }

    fn file(&mut self, file: FileId) -> io::Result<&File> {
        use std::collections::hash_map::Entry;
        match self.open.entry(file) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let opened = self.files.open(file).map_err(io::Error::other)?;
                Ok(entry.insert(opened))
            }
        }
    }
}
