//! What stands in a payload, and how long messages took.
//!
//! | bytes | what, big endian |
//! | --- | --- |
//! | 0..8 | the time at which the message was due, nanoseconds of `CLOCK_MONOTONIC` |
//! | 8..12 | its number among those of its publisher, from 0 |
//! | 12..16 | the number of its publisher |
//! | 16..24 | the time at which it was handed to the kernel |
//! | rest | bytes that follow from the seed, the publisher and the number |
//!
//! A shorter payload carries the fields that fit: below 16 bytes nothing can be verified, below 8
//! there is no latency. Where the time of sending does not fit, [`HandOvers`] keeps it in this
//! process; messages of other processes then have no raw latency.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::schedule::mix;

/// Bytes from which on a payload says who sent it and which one it is.
pub const IDENTIFIED: usize = 16;

/// Bytes from which on it says when it was sent.
pub const TIMED: usize = 24;

/// Different bodies there are: a body starts at one of so many places of the filler.
const BODIES: usize = 64;

/// The head of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When it was due.
    pub intended_ns: u64,
    /// Which message of its publisher.
    pub sequence: u32,
    /// Whose.
    pub publisher: u32,
    /// When it was handed to the kernel; 0 if it does not say.
    pub sent_ns: u64,
}

impl Stamp {
    /// The bytes.
    #[must_use]
    #[inline]
    pub fn to_bytes(self) -> [u8; TIMED] {
        let mut bytes = [0; TIMED];
        bytes[..8].copy_from_slice(&self.intended_ns.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.publisher.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes
    }

    /// Reads it, if the payload is long enough to say who sent it.
    #[must_use]
    #[inline]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<IDENTIFIED>()?;
        let (intended, rest_of_head) = head.split_first_chunk::<8>()?;
        let (sequence, publisher) = rest_of_head.split_first_chunk::<4>()?;
        Some(Self {
            intended_ns: u64::from_be_bytes(*intended),
            sequence: u32::from_be_bytes(*sequence),
            publisher: u32::from_be_bytes(*publisher.first_chunk::<4>()?),
            sent_ns: rest
                .first_chunk::<8>()
                .map_or(0, |sent| u64::from_be_bytes(*sent)),
        })
    }

    /// The time at which it was due, of a payload too short for more.
    #[must_use]
    pub fn read_time(payload: &[u8]) -> Option<u64> {
        payload
            .first_chunk::<8>()
            .map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// The bytes that payloads are made of behind their heads.
#[derive(Debug)]
pub struct Filler {
    bytes: Vec<u8>,
    length: usize,
}

impl Filler {
    /// For payloads of `size` bytes.
    #[must_use]
    pub fn new(seed: u64, size: usize) -> Self {
        let length = size.saturating_sub(TIMED);
        let words = (length + BODIES).div_ceil(8) as u64;
        let bytes = (0..words).flat_map(|word| mix(seed ^ mix(word)).to_be_bytes());
        Self {
            bytes: bytes.collect(),
            length,
        }
    }

    /// Writes the payload of a message: as much of the stamp as there is room for, and the body.
    #[inline]
    pub fn write(&self, stamp: &Stamp, payload: &mut [u8]) {
        let head = stamp.to_bytes();
        if let Some((first, rest)) = payload.split_first_chunk_mut::<TIMED>() {
            *first = head;
            rest.copy_from_slice(self.body(stamp));
            return;
        }
        let whole = payload.len().min(IDENTIFIED);
        payload[..whole].copy_from_slice(&head[..whole]);
        // Between the two there is room for no whole field.
        payload[whole..].fill(0);
    }

    /// The body of a message.
    #[must_use]
    #[inline]
    pub fn body(&self, stamp: &Stamp) -> &[u8] {
        let from = (stamp.publisher as usize)
            .wrapping_mul(31)
            .wrapping_add(stamp.sequence as usize)
            % BODIES;
        &self.bytes[from..from + self.length]
    }
}

/// When messages were handed to the kernel, as far as their payloads cannot say it: per publisher
/// the last few, each as its number and its lag. One that was overwritten is not known any more.
#[derive(Debug)]
pub struct HandOvers {
    entries: Vec<AtomicU64>,
    each: u32,
}

/// Entries of all publishers together: 8 MiB.
const ENTRIES: usize = 1 << 20;

/// Nanoseconds that one unit of lag is: 32 bits of it reach over a minute.
const LAG_UNIT: u64 = 16;

impl HandOvers {
    /// For so many publishers.
    #[must_use]
    pub fn new(publishers: u32) -> Self {
        let room = ENTRIES / (publishers.max(1) as usize);
        let each = room.clamp(4, 4096).next_power_of_two();
        let entries = (0..each * publishers as usize).map(|_| AtomicU64::new(u64::MAX));
        Self {
            entries: entries.collect(),
            each: u32::try_from(each).unwrap_or(4),
        }
    }

    /// A message was handed over, so long after it was due.
    #[inline]
    pub fn put(&self, publisher: u32, sequence: u32, lag_ns: u64) {
        if let Some(entry) = self.entry(publisher, sequence) {
            let lag = (lag_ns / LAG_UNIT).min(u64::from(u32::MAX));
            entry.store(u64::from(sequence) << 32 | lag, Ordering::Relaxed);
        }
    }

    /// How long after it was due a message was handed over.
    #[must_use]
    #[inline]
    pub fn lag(&self, publisher: u32, sequence: u32) -> Option<u64> {
        let entry = self.entry(publisher, sequence)?.load(Ordering::Relaxed);
        (entry != u64::MAX && entry >> 32 == u64::from(sequence))
            .then_some((entry & u64::from(u32::MAX)) * LAG_UNIT)
    }

    #[inline]
    fn entry(&self, publisher: u32, sequence: u32) -> Option<&AtomicU64> {
        let at = publisher as usize * self.each as usize + (sequence & (self.each - 1)) as usize;
        self.entries.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_far_as_it_fits() {
        let stamp = Stamp {
            intended_ns: 0x0102_0304_0506_0708,
            sequence: 0x0A0B_0C0D,
            publisher: 77,
            sent_ns: u64::MAX - 1,
        };
        let bytes = stamp.to_bytes();
        assert_eq!(
            bytes[..14],
            [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0, 0],
            "big endian, in this order"
        );
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        assert_eq!(
            Stamp::read(&bytes[..16]),
            Some(Stamp {
                sent_ns: 0,
                ..stamp
            })
        );
        assert_eq!(Stamp::read(&bytes[..15]), None);
        assert_eq!(Stamp::read_time(&bytes[..8]), Some(stamp.intended_ns));
        assert_eq!(Stamp::read_time(&bytes[..7]), None);
    }

    #[test]
    fn payloads_of_every_length_hold_what_fits() {
        let stamp = Stamp {
            intended_ns: 5,
            sequence: 6,
            publisher: 7,
            sent_ns: 8,
        };
        for size in 0..40 {
            let filler = Filler::new(1, size);
            let mut payload = vec![0xEE; size];
            filler.write(&stamp, &mut payload);
            assert_eq!(Stamp::read(&payload).is_some(), size >= IDENTIFIED);
            assert_eq!(Stamp::read(&payload) == Some(stamp), size >= TIMED);
            if size >= TIMED {
                assert_eq!(&payload[TIMED..], filler.body(&stamp));
            } else {
                assert!(payload.iter().skip(IDENTIFIED).all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn bodies_follow_from_seed_publisher_and_number() {
        let filler = Filler::new(1, 100);
        let stamp = |publisher, sequence| Stamp {
            publisher,
            sequence,
            ..Stamp::default()
        };
        assert_eq!(filler.body(&stamp(3, 9)).len(), 76);
        assert_eq!(
            filler.body(&stamp(3, 9)),
            Filler::new(1, 100).body(&stamp(3, 9))
        );
        assert_ne!(filler.body(&stamp(3, 9)), filler.body(&stamp(3, 10)));
        assert_ne!(
            filler.body(&stamp(3, 9)),
            Filler::new(2, 100).body(&stamp(3, 9))
        );
        assert!(
            Filler::new(1, 16)
                .body(&stamp(u32::MAX, u32::MAX))
                .is_empty()
        );
    }

    #[test]
    fn hand_overs_are_known_until_overwritten() {
        let hand_overs = HandOvers::new(1_000_000);
        hand_overs.put(5, 1, 1_600);
        assert_eq!(hand_overs.lag(5, 1), Some(1_600));
        assert_eq!(hand_overs.lag(5, 0), None);
        assert_eq!(hand_overs.lag(6, 1), None);
        hand_overs.put(5, 5, 32);
        assert_eq!(hand_overs.lag(5, 1), None);
        assert_eq!(hand_overs.lag(2_000_000, 1), None, "of another process");
    }
}
