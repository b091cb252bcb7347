//! History streams: what was published on topics that match a configured filter, kept for a while in the
//! order in which it came, and read again by time.
//!
//! A stream has a *lane* for each shard: what that shard's clients published is appended there, without a
//! hop. A lane is a row of *buckets*, files of blocks of records ([`bucket`], [`block`]); each holds a span of
//! time of one run of the broker and goes as a whole. [`Log`] is what one shard has of all streams: a state
//! machine that hands out writes, removals and scans, and is told what became of them. It does no IO.
//!
//! Records of a run and lane are numbered from 1 without a gap, and that number is the place of a reader
//! ([`Cursor`]): so whatever file or buffer he is read from, he gets each record once and in order, and what
//! was lost before he came to it can be counted. Points in time only find the begin and order lanes among
//! each other.
//!
//! Invariants:
//! - A record is in memory until the block that it stands in is part of a bucket, so a reader finds it in one
//!   of the two at any time.
//! - Buckets are written at their end, by one write at a time and block; a bucket that a write failed in gets no
//!   further one. Its blocks are written again into the next one, and the numbers tell a reader who finds
//!   them twice.
//! - What is dropped because the disk does not keep up is the oldest that was not written, so a reader who is up to
//!   date misses nothing by it.

pub mod block;
pub mod bucket;
mod kept;
mod log;
pub mod range;
mod reader;

pub use bucket::{BucketHeader, BucketId, Page, Query, Scan, Scanned};
pub use log::{Closed, Counts, Failure, Found, Lanes, Log, Names, Place, Removal, Stream, Write};
pub use reader::{Cursor, START, Step};

#[cfg(test)]
mod tests;
