//! Frames: what one commit writes, under one checksum.
//!
//! Every header says all that a reader has to know: the version of the format, whose journal it is, the
//! segment, the file and the offset where the frame belongs, its number in the sequence of frames, the
//! oldest segment that still counts, and up to which frame everything was on disk when it was written.
//! So there is no header of a segment that would have to be on disk before its frames; what a file held
//! in an earlier use, a write that went astray and what another journal left are told apart from what
//! belongs there; and damage is told from the tail of a write that never ended.

use super::types::{BLOCK, FileId, Identity, ItemId, Position};

/// The version of the format that this program writes. Those before it are read too: 2 gave a subscription's
/// options the bit that retained messages are owed to it, which is 0 in what 1 wrote.
pub const VERSION: u16 = 2;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 80;

const MAGIC: [u8; 4] = *b"SMQJ";

/// What stands in front of the records of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub identity: Identity,
    /// Bytes of the records.
    pub length: u32,
    /// The segment that it is part of. Segments are numbered from 1 and never again.
    pub segment: u64,
    /// The file that holds the segment.
    pub file: FileId,
    /// Where in the file it begins.
    pub offset: u32,
    /// How often the journal had been opened; what an earlier run left behind the end is not read on.
    pub run: u32,
    /// Its place in the sequence of frames, from 1, without a gap.
    pub position: Position,
    /// The oldest segment that still counts.
    pub head: u64,
    /// Everything up to here was on disk when this frame was handed to it.
    pub durable: Position,
    /// What item numbers in the records are relative to: the first that the frame gives away.
    pub base: ItemId,
}

/// Why no frame stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFrame {
    /// Nothing of this journal, or not all of it.
    None,
    /// A newer version of the format.
    Newer(u16),
}

impl Header {
    /// Writes the header and the checksum into the first [`HEADER_BYTES`] of `frame`, which has the
    /// records behind them and then padding.
    pub fn seal(&self, frame: &mut [u8]) {
        let end = HEADER_BYTES + self.length as usize;
        let mut out = Cursor(&mut frame[8..HEADER_BYTES], 0);
        out.put(&VERSION.to_le_bytes());
        out.put(&self.identity.shard.to_le_bytes());
        out.put(&self.length.to_le_bytes());
        out.put(&self.identity.log.to_le_bytes());
        out.put(&self.segment.to_le_bytes());
        out.put(&self.file.0.to_le_bytes());
        out.put(&self.offset.to_le_bytes());
        out.put(&self.run.to_le_bytes());
        out.put(&[0; 4]);
        out.put(&self.position.0.to_le_bytes());
        out.put(&self.head.to_le_bytes());
        out.put(&self.durable.0.to_le_bytes());
        out.put(&self.base.0.to_le_bytes());
        let sum = crc32fast::hash(&frame[8..end]);
        frame[..4].copy_from_slice(&MAGIC);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads the frame of `identity` that `bytes` begin with: its header and its records.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open(identity: Identity, bytes: &[u8]) -> Result<(Self, &[u8]), NoFrame> {
        let (version, found) = Self::read(identity, bytes).ok_or(NoFrame::None)?;
        let end = HEADER_BYTES.checked_add(found.length as usize);
        let frame = end.and_then(|end| bytes.get(..end)).ok_or(NoFrame::None)?;
        if frame[4..8] != crc32fast::hash(&frame[8..]).to_le_bytes() {
            return Err(NoFrame::None);
        }
        if !(1..=VERSION).contains(&version) {
            return Err(NoFrame::Newer(version));
        }
        Ok((found, &frame[HEADER_BYTES..]))
    }

    /// Whose frame `bytes` begin with, if there is a whole one.
    #[must_use]
    pub fn whose(bytes: &[u8]) -> Option<Identity> {
        let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let identity = Identity {
            shard: u16::from_le_bytes(array(header, 10)),
            log: u64::from_le_bytes(array(header, 16)),
        };
        Self::open(identity, bytes).ok().map(|_| identity)
    }

    /// Reads a header of `identity`, whatever the frame behind it may be.
    pub(super) fn peek(identity: Identity, bytes: &[u8]) -> Option<Self> {
        Self::read(identity, bytes).map(|(_, header)| header)
    }

    fn read(identity: Identity, bytes: &[u8]) -> Option<(u16, Self)> {
        let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let found = Self {
            identity: Identity {
                shard: u16::from_le_bytes(array(header, 10)),
                log: u64::from_le_bytes(array(header, 16)),
            },
            length: u32::from_le_bytes(array(header, 12)),
            segment: u64::from_le_bytes(array(header, 24)),
            file: FileId(u32::from_le_bytes(array(header, 32))),
            offset: u32::from_le_bytes(array(header, 36)),
            run: u32::from_le_bytes(array(header, 40)),
            position: Position(u64::from_le_bytes(array(header, 48))),
            head: u64::from_le_bytes(array(header, 56)),
            durable: Position(u64::from_le_bytes(array(header, 64))),
            base: ItemId(u64::from_le_bytes(array(header, 72))),
        };
        let ours = header[..4] == MAGIC && found.identity == identity;
        ours.then(|| (u16::from_le_bytes(array(header, 8)), found))
    }

    /// Bytes that the frame takes with its padding.
    #[must_use]
    pub fn size(&self) -> usize {
        padded(HEADER_BYTES + self.length as usize)
    }
}

/// `bytes` rounded up to whole blocks.
pub(super) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

struct Cursor<'a>(&'a mut [u8], usize);

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
    }
}

/// The memory of a frame: it begins at a multiple of [`BLOCK`], as `O_DIRECT` wants it, and is used
/// again.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// An empty frame with room for its header, in memory for about `capacity` bytes.
    pub(super) fn begin(mut self, capacity: usize) -> Self {
        self.bytes.clear();
        self.bytes.reserve(capacity + 2 * BLOCK);
        self.start = self.bytes.as_ptr().align_offset(BLOCK);
        self.bytes.resize(self.start + HEADER_BYTES, 0);
        self
    }

    /// Bytes of the frame so far, its header included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Where records are appended to.
    pub(super) fn records(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes back what was appended after the frame had `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    /// Pads the frame and writes its header.
    pub(super) fn seal(&mut self, header: &Header) {
        let size = padded(self.len());
        if self.bytes.capacity() < self.start + size
            || !self.bytes[self.start..]
                .as_ptr()
                .addr()
                .is_multiple_of(BLOCK)
        {
            // It has outgrown its memory.
            let mut grown = Self::default().begin(2 * size);
            grown.truncate(0);
            grown.bytes.extend_from_slice(&self.bytes[self.start..]);
            *self = grown;
        }
        self.bytes.resize(self.start + size, 0);
        header.seal(&mut self.bytes[self.start..]);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Bytes of memory that it holds.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Identity = Identity { log: 77, shard: 3 };

    fn header(length: usize) -> Header {
        Header {
            identity: IDENTITY,
            length: u32::try_from(length).unwrap(),
            segment: 5,
            file: FileId(2),
            offset: 4096,
            run: 9,
            position: Position(1 << 40),
            head: 4,
            durable: Position(8),
            base: ItemId(11),
        }
    }

    fn frame(records: &[u8], capacity: usize) -> FrameBuffer {
        let mut frame = FrameBuffer::default().begin(capacity);
        for chunk in records.chunks(100) {
            frame.records().extend_from_slice(chunk);
        }
        frame.seal(&header(records.len()));
        frame
    }

    proptest! {
        #[test]
        fn a_frame_reads_as_it_was_sealed(
            records in prop::collection::vec(any::<u8>(), 0..20_000), capacity in 0..9_000_usize,
        ) {
            let frame = frame(&records, capacity);
            let bytes = frame.as_bytes();
            prop_assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK));
            prop_assert!(bytes.len().is_multiple_of(BLOCK));
            let (found, read) = Header::open(IDENTITY, bytes).unwrap();
            prop_assert_eq!(found, header(records.len()));
            prop_assert_eq!(found.size(), bytes.len());
            prop_assert_eq!(read, &records[..]);
        }

        #[test]
        fn one_wrong_bit_is_seen(
            records in prop::collection::vec(any::<u8>(), 0..300), at: usize, bit in 0..8_u32,
        ) {
            let mut bytes = frame(&records, 0).as_bytes().to_vec();
            let at = at % (HEADER_BYTES + records.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Header::open(IDENTITY, &bytes), Err(NoFrame::None));
        }

        #[test]
        fn any_bytes_are_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Header::open(IDENTITY, &bytes).is_err());
            let mut magic = MAGIC.to_vec();
            magic.extend_from_slice(&bytes);
            prop_assert!(Header::open(IDENTITY, &magic).is_err());
        }
    }

    #[test]
    fn an_older_format_is_read_and_a_newer_one_says_so() {
        let mut bytes = frame(b"abc", 0).as_bytes().to_vec();
        for version in 1..=VERSION + 1 {
            bytes[8..10].copy_from_slice(&version.to_le_bytes());
            let sum = crc32fast::hash(&bytes[8..HEADER_BYTES + 3]);
            bytes[4..8].copy_from_slice(&sum.to_le_bytes());
            let opened = Header::open(IDENTITY, &bytes).map(|(_, records)| records);
            let expected = match version {
                ..=VERSION => Ok(&b"abc"[..]),
                newer => Err(NoFrame::Newer(newer)),
            };
            assert_eq!(opened, expected);
        }
        let other = Identity {
            log: 78,
            ..IDENTITY
        };
        assert_eq!(Header::open(other, &bytes), Err(NoFrame::None));
    }
}
