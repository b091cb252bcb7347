//! The buckets of history in a backup.
//!
//! A bucket is only written to at its end, so the bytes that the broker told of stay what they are, and it removes
//! none while they are copied. Each copy is read as a reader of history does, and if anything in it is wrong,
//! compared with what it was made from: damage that was there before is no reason to have no backup.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::history::BucketId;

use super::history::{self, HistoryExamined, read_at};
use super::{StoreError, make_directory, sync_directory};

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// A bucket to be copied.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) stream: String,
    pub(super) bucket: BucketId,
    /// How much of it.
    pub(super) bytes: u64,
}

/// All buckets that can be read, but for those of the streams `but`. Nobody works on them.
pub(super) fn all(data: &Path, but: &[String]) -> Result<Vec<Extent>, StoreError> {
    let directory = data.join(history::DIRECTORY);
    let mut extents = Vec::new();
    if !directory.is_dir() {
        return Ok(extents);
    }
    for (stream, path) in history::folders(&directory)? {
        if but.contains(&stream) {
            continue;
        }
        let (mut buckets, _) = history::buckets(&path)?;
        buckets.sort_unstable_by_key(|found| found.header.id);
        extents.extend(buckets.into_iter().map(|found| Extent {
            stream: stream.clone(),
            bucket: found.header.id,
            bytes: found.bytes,
        }));
    }
    Ok(extents)
}

/// Copies buckets from one data directory to another, and reads the copies; `each` hears of every one. What is
/// there now, by streams.
pub(super) fn copy(
    data: &Path,
    to: &Path,
    extents: &[Extent],
    mut each: impl FnMut(&Extent) -> Result<(), StoreError>,
) -> Result<Vec<HistoryExamined>, StoreError> {
    let mut streams: Vec<HistoryExamined> = Vec::new();
    let (from, into) = (data.join(history::DIRECTORY), to.join(history::DIRECTORY));
    for extent in extents {
        let stream = match streams.iter().position(|known| known.name == extent.stream) {
            Some(at) => &mut streams[at],
            None => {
                let path = into.join(&extent.stream);
                make_directory(&path).map_err(|error| StoreError::io("make", &path, error))?;
                streams.push(HistoryExamined {
                    name: extent.stream.clone(),
                    ..HistoryExamined::default()
                });
                let last = streams.len() - 1;
                &mut streams[last]
            }
        };
        let name = Path::new(&extent.stream).join(extent.bucket.file_name());
        copy_bucket(&from.join(&name), &into.join(&name), extent, stream)?;
        each(extent)?;
    }
    for stream in &streams {
        sync_directory(&into.join(&stream.name))?;
    }
    if !streams.is_empty() {
        sync_directory(&into)?;
    }
    streams.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(streams)
}

fn copy_bucket(
    from: &Path,
    into: &Path,
    extent: &Extent,
    stream: &mut HistoryExamined,
) -> Result<(), StoreError> {
    let source = File::open(from).map_err(|error| StoreError::io("read", from, error))?;
    let write = |error| StoreError::io("write", into, error);
    let mut made = OpenOptions::new();
    let made = made.read(true).write(true).create_new(true).mode(0o600);
    let made = made.open(into).map_err(write)?;
    each_piece(from, &source, extent.bytes, |at, piece| {
        made.write_all_at(piece, at).map_err(write)
    })?;
    made.sync_all().map_err(write)?;
    let before = stream.faults.len();
    match history::bucket(into, extent.bucket) {
        Ok(found) => {
            stream.buckets += 1;
            stream.bytes += found.bytes;
            history::examine_bucket(&found, &made, into, stream);
        }
        Err(_) => return Err(StoreError::Copy(into.to_owned())),
    }
    if stream.faults.len() > before {
        let mut copied = Vec::new();
        each_piece(from, &source, extent.bytes, |at, piece| {
            copied.resize(piece.len(), 0);
            match read_at(&made, at, &mut copied) {
                Ok(_) if copied == piece => Ok(()),
                Ok(_) => Err(StoreError::Copy(into.to_owned())),
                Err(error) => Err(StoreError::io("read", into, error)),
            }
        })?;
    }
    Ok(())
}

/// Reads so many bytes at the begin of a file, piece by piece.
fn each_piece(
    path: &Path,
    file: &File,
    bytes: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(PIECE as u64) as usize;
        let read = read_at(file, at, &mut piece[..length]);
        let read = read.map_err(|error| StoreError::io("read", path, error))?;
        if read < length {
            let error = std::io::ErrorKind::UnexpectedEof.into();
            return Err(StoreError::io("read", path, error));
        }
        each(at, &piece[..length])?;
        at += length as u64;
    }
    Ok(())
}
