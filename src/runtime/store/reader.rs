//! The thread that reads back messages whose bodies are on disk alone. Not the one that writes: a client
//! that catches up does not delay what others are promised, nor wait for their syncs.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use crate::shard::Fetching;

use super::disk::Done;
use super::files::Files;

/// The shard's end.
#[derive(Debug)]
pub(super) struct Reader {
    asked: Option<Sender<Fetching>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread; `answer` gets what was read.
    pub(super) fn start(files: Files, answer: impl Fn(Done) + Send + 'static) -> io::Result<Self> {
        let (asked, todo) = unbounded::<Fetching>(); // bounded by the sessions: one for each
        let name = format!("read{}", files.identity().shard);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            for fetching in todo {
                let buffers = read(&files, &fetching);
                answer(Done::Fetched(fetching, buffers));
            }
        })?;
        Ok(Self {
            asked: Some(asked),
            thread: Some(thread),
        })
    }

    /// Has something read.
    pub(super) fn fetch(&self, fetching: Fetching) {
        if let Some(asked) = &self.asked {
            let _ = asked.send(fetching);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.asked = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A buffer for each read, empty where it could not be done. A file stays open for one request only: it
/// may be removed, and its space is to be free then.
fn read(files: &Files, fetching: &Fetching) -> Vec<Vec<u8>> {
    let mut last = None;
    let read = fetching.fetch.reads().map(|read| {
        let open = match last.take() {
            Some((id, file)) if id == read.file => Some(file),
            _ => files.open(read.file).ok(),
        };
        let bytes = open
            .as_ref()
            .and_then(|file| Files::read(file, read).ok())
            .unwrap_or_default();
        last = open.map(|file| (read.file, file));
        bytes
    });
    read.collect()
}
