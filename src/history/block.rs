//! Records and blocks: what a bucket is made of.
//!
//! A record stands by itself once its block's first point in time is known. A block has two checksums, one
//! of its header and one of its records, so that a reader who knows that he wants nothing of it need not read
//! the records, and one who finds them damaged still knows where the next block begins.

use crate::journal::codec::{Malformed, Reader, put_bytes, put_number};
use crate::wire::QoS;

use super::range::Micros;

/// The version of the format that this program writes.
pub const VERSION: u16 = 1;

/// Bytes of a block's header.
pub const HEADER_BYTES: usize = 52;

const MAGIC: [u8; 4] = *b"SMQB";

/// Flags of a record besides its QoS.
const PROPERTIES: u8 = 0b0100;
const EXPIRES: u8 = 0b1000;
const KNOWN: u8 = 0b1111;

/// One message as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When.
    pub time: Micros,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Where to.
    pub topic: &'a str,
    /// The properties that are forwarded, as a publish has them.
    pub properties: &'a [u8],
    /// When it is too old to be sent.
    pub expires_at: Option<Micros>,
    /// The application message.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends it to a block that begins at `base`.
    #[inline]
    pub fn put(&self, base: Micros, out: &mut Vec<u8>) {
        let flags = self.qos.bits()
            | if self.properties.is_empty() {
                0
            } else {
                PROPERTIES
            }
            | if self.expires_at.is_some() {
                EXPIRES
            } else {
                0
            };
        out.push(flags);
        put_number(self.time.saturating_sub(base), out);
        put_bytes(self.topic.as_bytes(), out);
        if !self.properties.is_empty() {
            put_bytes(self.properties, out);
        }
        if let Some(at) = self.expires_at {
            put_number(at.saturating_sub(self.time), out);
        }
        put_bytes(self.payload, out);
    }

    fn read(base: Micros, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let flags = reader.byte()?;
        if flags & !KNOWN != 0 {
            return Err(Malformed);
        }
        let qos = QoS::from_bits(flags & 0b11).ok_or(Malformed)?;
        let time = base.checked_add(reader.number()?).ok_or(Malformed)?;
        let topic = reader.text()?;
        if crate::topic::Name::parse(topic).is_err() {
            return Err(Malformed);
        }
        let properties = match flags & PROPERTIES {
            0 => &[],
            _ => reader.bytes()?,
        };
        let expires_at = match flags & EXPIRES {
            0 => None,
            _ => Some(time.checked_add(reader.number()?).ok_or(Malformed)?),
        };
        let payload = reader.bytes()?;
        Ok(Self {
            time,
            qos,
            topic,
            properties,
            expires_at,
            payload,
        })
    }
}

/// Records, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    base: Micros,
    all: usize,
    reader: Reader<'a>,
}

impl<'a> Records<'a> {
    /// Those that `bytes` begin with, of a block that begins at `base`.
    #[must_use]
    pub fn new(base: Micros, bytes: &'a [u8]) -> Self {
        Self {
            base,
            all: bytes.len(),
            reader: Reader::new(bytes),
        }
    }

    /// Bytes of those that were read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.all - self.reader.rest().len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let record = Record::read(self.base, &mut self.reader);
        if record.is_err() {
            self.reader = Reader::new(&[]); // behind it nothing can be found
        }
        Some(record)
    }
}

/// What stands in front of the records of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the records.
    pub length: u32,
    /// How many they are.
    pub count: u32,
    /// The start of the broker that wrote it, counted.
    pub run: u32,
    /// The lane that it belongs to.
    pub lane: u16,
    /// The number of its first record in its run and lane, from 1.
    pub first: u64,
    /// When its first record was received.
    pub begin: Micros,
    /// When its last one was.
    pub end: Micros,
    /// The checksum of the records.
    sum: u32,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// It is none, or not as it was written.
    Damaged,
    /// It has another version.
    Version(u16),
}

impl Header {
    /// The number of the record behind its last one.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }

    /// Bytes of the whole block.
    #[must_use]
    pub const fn size(&self) -> u64 {
        HEADER_BYTES as u64 + self.length as u64
    }

    /// Writes it into the first [`HEADER_BYTES`] of `block`, behind which the records stand.
    pub fn seal(mut self, block: &mut [u8]) -> Self {
        let (head, records) = block.split_at_mut(HEADER_BYTES);
        self.sum = crc32fast::hash(records);
        let mut at = 8;
        let mut put = |bytes: &[u8]| {
            head[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.sum.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.count.to_le_bytes());
        put(&self.run.to_le_bytes());
        put(&self.first.to_le_bytes());
        put(&self.begin.to_le_bytes());
        put(&self.end.to_le_bytes());
        put(&self.lane.to_le_bytes());
        put(&VERSION.to_le_bytes());
        let sum = crc32fast::hash(&head[8..]);
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&sum.to_le_bytes());
        self
    }

    /// What is known of a block that is still filled.
    #[must_use]
    pub const fn open(run: u32, lane: u16, first: u64, begin: Micros) -> Self {
        Self {
            length: 0,
            count: 0,
            run,
            lane,
            first,
            begin,
            end: begin,
            sum: 0,
        }
    }

    /// Reads the header that `bytes` begin with.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(bytes: &[u8]) -> Result<Self, NoHeader> {
        let head = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or(NoHeader::Damaged)?;
        if head[..4] != MAGIC || head[4..8] != crc32fast::hash(&head[8..]).to_le_bytes() {
            return Err(NoHeader::Damaged);
        }
        let version = u16::from_le_bytes(part(head, 50));
        if version != VERSION {
            return Err(NoHeader::Version(version));
        }
        Ok(Self {
            sum: u32::from_le_bytes(part(head, 8)),
            length: u32::from_le_bytes(part(head, 12)),
            count: u32::from_le_bytes(part(head, 16)),
            run: u32::from_le_bytes(part(head, 20)),
            first: u64::from_le_bytes(part(head, 24)),
            begin: u64::from_le_bytes(part(head, 32)),
            end: u64::from_le_bytes(part(head, 40)),
            lane: u16::from_le_bytes(part(head, 48)),
        })
    }

    /// Whether these are its records, as they were written.
    #[must_use]
    pub fn fits(&self, records: &[u8]) -> bool {
        records.len() == self.length as usize && crc32fast::hash(records) == self.sum
    }

    /// Where in `bytes`, not at their begin, the next header stands.
    #[must_use]
    pub fn find(bytes: &[u8]) -> Option<usize> {
        let mut at = 1;
        while let Some(found) = bytes.get(at..).and_then(|rest| position(rest, MAGIC)) {
            if Self::read(&bytes[at + found..]).is_ok() {
                return Some(at + found);
            }
            at += found + 1;
        }
        None
    }
}

fn position(bytes: &[u8], wanted: [u8; 4]) -> Option<usize> {
    bytes.windows(4).position(|window| window == wanted)
}

/// When the record was received that `records` begin with, which have 0 for their base.
#[must_use]
pub fn time_of(records: &[u8]) -> Option<Micros> {
    let mut reader = Reader::new(records);
    reader.byte().ok()?;
    reader.number().ok()
}

/// The bytes from `at` on; the caller knows that they are there.
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written(
            time in 0..u64::MAX / 2, later in 0..1_u64 << 40, qos in 0..3_u8,
            properties: Vec<u8>, payload: Vec<u8>, expires in proptest::option::of(0..1_u64 << 50),
        ) {
            let record = Record {
                time: time + later,
                qos: QoS::from_bits(qos).unwrap(),
                topic: "vehicle/7/état",
                properties: &properties,
                expires_at: expires.map(|after| time + later + after),
                payload: &payload,
            };
            let mut bytes = Vec::new();
            record.put(time, &mut bytes);
            record.put(time, &mut bytes);
            let mut records = Records::new(time, &bytes);
            prop_assert_eq!(time_of(&bytes), Some(later));
            prop_assert_eq!(records.next(), Some(Ok(record)));
            prop_assert_eq!(records.offset() * 2, bytes.len());
            prop_assert_eq!(records.next(), Some(Ok(record)));
            prop_assert_eq!(records.next(), None);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_read(bytes: Vec<u8>) {
            prop_assert!(Records::new(5, &bytes).count() <= bytes.len());
            prop_assert!(Header::read(&bytes).is_err());
            prop_assert_eq!(Header::find(&bytes), None);
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..(HEADER_BYTES + 20) * 8) {
            let mut block = vec![7; HEADER_BYTES + 20];
            let header = Header { length: 20, count: 1, end: 9, ..Header::open(1, 2, 3, 4) };
            let header = header.seal(&mut block);
            prop_assert_eq!(Header::read(&block), Ok(header));
            prop_assert!(header.fits(&block[HEADER_BYTES..]));
            block[bit / 8] ^= 1 << (bit % 8);
            let fine = Header::read(&block).is_ok_and(|read| read.fits(&block[HEADER_BYTES..]));
            prop_assert!(!fine);
        }
    }

    #[test]
    fn a_header_is_found_behind_rubbish() {
        let mut block = vec![1; HEADER_BYTES + 3];
        let header = Header {
            length: 3,
            ..Header::open(1, 0, 1, 1)
        };
        header.seal(&mut block);
        let mut bytes = b"SMQBSMQ".to_vec();
        bytes.extend_from_slice(&block);
        assert_eq!(Header::find(&bytes), Some(7));
    }
}
