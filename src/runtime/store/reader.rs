//! The thread that reads back messages whose bodies are on disk alone. Not the one that writes: a client
//! that catches up does not delay what others are promised, nor wait for their syncs.

use std::io;

use crate::shard::Fetching;

use super::disk::Done;
use super::files::Files;
use super::worker::Worker;

/// Starts the thread; `answer` gets what was read.
pub(super) fn start(
    files: Files,
    answer: impl Fn(Done) + Send + 'static,
) -> io::Result<Worker<Fetching>> {
    let name = format!("read{}", files.identity().shard);
    Worker::start(name, move |todo| {
        for fetching in todo {
            let buffers = read(&files, &fetching);
            answer(Done::Fetched(fetching, buffers));
        }
    })
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
