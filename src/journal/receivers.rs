//! The set of sessions that a message goes to, as a record has it.
//!
//! Sessions that get the message alike stand together: one byte and, where there are any,
//! subscription identifiers and the group, then the sessions' numbers in whatever of four forms is
//! the shortest: a single number, steps, runs, or a bitmap. Numbers are small and used again, so a
//! message to a hundred thousand offline sessions takes 12 KiB as a bitmap, a few bytes as a run.

use smallvec::SmallVec;

use crate::wire::QoS;

use super::codec::{Malformed, Reader, number_size, put_bytes, put_number};
use super::types::{Copied, MAX_SESSIONS, Recipient, SessionNumber};

/// Subscription identifiers of one copy; more match nobody.
const MAX_IDENTIFIERS: usize = 1 << 16;

const QOS: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const IDENTIFIERS: u8 = 0b0000_1000;
const GROUP: u8 = 0b0001_0000;
const FORM: u8 = 0b0110_0000;
const ONE: u8 = 0b0000_0000;
const STEPS: u8 = 0b0010_0000;
const RUNS: u8 = 0b0100_0000;
const BITMAP: u8 = 0b0110_0000;

/// Appends `recipients`, which it sorts.
pub(super) fn put_recipients(recipients: &mut [Recipient<'_>], out: &mut Vec<u8>) {
    if !recipients.is_sorted_by_key(|recipient| (recipient.copy, recipient.session)) {
        recipients.sort_unstable_by_key(|recipient| (recipient.copy, recipient.session));
    }
    for alike in recipients.chunk_by(|one, other| one.copy == other.copy) {
        let sessions = alike.iter().map(|recipient| recipient.session);
        let sessions: SmallVec<[SessionNumber; 8]> = sessions.collect();
        if let Some(first) = alike.first() {
            put_alike(&first.copy, &sessions, out);
        }
    }
}

/// Appends sessions that get a message alike, ascending.
pub(super) fn put_alike(copy: &Copied<'_>, sessions: &[SessionNumber], out: &mut Vec<u8>) {
    let (Some(first), Some(last)) = (sessions.first(), sessions.last()) else {
        return;
    };
    let numbers = || sessions.iter().map(|session| session.0);
    let (mut steps, mut runs, mut run_count) = (0, 0, 0_u64);
    let each_run = |f: &mut dyn FnMut(u32, u32)| {
        let mut next = 0;
        let mut start = first.0;
        let mut length = 0;
        for number in numbers() {
            if number != start + length {
                f(start - next, length);
                next = start + length;
                (start, length) = (number, 0);
            }
            length += 1;
        }
        f(start - next, length);
    };
    if sessions.len() > 1 {
        let mut before = 0;
        for number in numbers() {
            let step = number - before;
            steps += if step < 0x80 {
                1
            } else {
                number_size(step.into())
            };
            before = number;
        }
        each_run(&mut |gap, length| {
            runs += number_size(gap.into()) + number_size(length.into());
            run_count += 1;
        });
    }
    let bitmap = (last.0 - first.0) as usize / 8 + 1;
    let form = match sessions.len() {
        1 => ONE,
        _ if steps <= runs.min(bitmap) => STEPS,
        _ if runs <= bitmap => RUNS,
        _ => BITMAP,
    };
    out.push(
        copy.qos.bits()
            | (u8::from(copy.retain) * RETAIN)
            | (u8::from(!copy.identifiers.is_empty()) * IDENTIFIERS)
            | (u8::from(!copy.group.is_empty()) * GROUP)
            | form,
    );
    if !copy.identifiers.is_empty() {
        put_number(copy.identifiers.len() as u64, out);
        for &identifier in copy.identifiers {
            put_number(identifier.into(), out);
        }
    }
    if !copy.group.is_empty() {
        put_bytes(copy.group.as_bytes(), out);
    }
    match form {
        ONE => put_number(first.0.into(), out),
        STEPS => {
            put_number(sessions.len() as u64, out);
            let mut before = 0;
            for number in numbers() {
                put_number(u64::from(number - before), out);
                before = number;
            }
        }
        RUNS => {
            put_number(run_count, out);
            each_run(&mut |gap, length| {
                put_number(gap.into(), out);
                put_number(length.into(), out);
            });
        }
        _ => {
            put_number(first.0.into(), out);
            put_number(bitmap as u64, out);
            let start = out.len();
            out.resize(start + bitmap, 0);
            for number in numbers() {
                let bit = (number - first.0) as usize;
                out[start + bit / 8] |= 1 << (bit % 8);
            }
        }
    }
}

/// The receivers of a message, checked and still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receivers<'a>(&'a [u8]);

impl<'a> Receivers<'a> {
    /// What [`put_recipients`] wrote.
    pub(super) fn trusted(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Checks `bytes`: numbers rise within a class, and there are no more than sessions can be.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut total = 0;
        let mut identifiers = Vec::new();
        while !reader.is_empty() {
            let (_, numbers) = read_class(&mut reader, &mut identifiers)?;
            let mut numbers = numbers;
            total += numbers.check()?;
            if total > u64::from(MAX_SESSIONS) {
                return Err(Malformed);
            }
        }
        Ok(Self(bytes))
    }

    /// Calls `each` for every receiver.
    pub fn for_each(self, mut each: impl FnMut(Recipient<'_>)) {
        let mut reader = Reader::new(self.0);
        let mut identifiers = Vec::new();
        while let Ok((class, mut numbers)) = read_class(&mut reader, &mut identifiers) {
            let copy = Copied {
                qos: class.qos,
                retain: class.retain,
                identifiers: &identifiers,
                group: class.group,
            };
            let given = numbers.each(|number| {
                each(Recipient {
                    session: SessionNumber(number),
                    copy,
                });
            });
            if given.is_err() {
                return; // it was checked
            }
        }
    }
}

struct Class<'a> {
    qos: QoS,
    retain: bool,
    group: &'a str,
}

fn read_class<'a>(
    reader: &mut Reader<'a>,
    identifiers: &mut Vec<u32>,
) -> Result<(Class<'a>, Numbers<'a>), Malformed> {
    let flags = reader.byte()?;
    if flags & !(QOS | RETAIN | IDENTIFIERS | GROUP | FORM) != 0 {
        return Err(Malformed);
    }
    identifiers.clear();
    if flags & IDENTIFIERS != 0 {
        let count: usize = reader.narrow()?;
        if count == 0 || count > MAX_IDENTIFIERS.min(reader.rest().len()) {
            return Err(Malformed);
        }
        for _ in 0..count {
            identifiers.push(reader.narrow()?);
        }
    }
    let group = match flags & GROUP {
        0 => "",
        _ => reader.text()?,
    };
    let class = Class {
        qos: QoS::from_bits(flags & QOS).ok_or(Malformed)?,
        retain: flags & RETAIN != 0,
        group,
    };
    let first = reader.narrow()?;
    let numbers = match flags & FORM {
        ONE => Numbers::One(first),
        STEPS | RUNS => {
            let each = 1 + usize::from(flags & FORM == RUNS);
            let before = reader.rest();
            for _ in 0..(first as usize).checked_mul(each).ok_or(Malformed)? {
                reader.number()?;
            }
            let steps = &before[..before.len() - reader.rest().len()];
            match each {
                1 => Numbers::Steps(steps),
                _ => Numbers::Runs(steps),
            }
        }
        _ => Numbers::Bitmap(first, reader.bytes()?),
    };
    Ok((class, numbers))
}

/// Numbers of sessions, encoded.
enum Numbers<'a> {
    One(u32),
    Steps(&'a [u8]),
    Runs(&'a [u8]),
    Bitmap(u32, &'a [u8]),
}

impl Numbers<'_> {
    /// How many there are, if they rise and are in bounds.
    fn check(&mut self) -> Result<u64, Malformed> {
        let mut count = 0;
        let mut next = 0_u64;
        self.ranges(|start, length| {
            let ends = u64::from(start) + u64::from(length);
            if u64::from(start) < next || length == 0 || ends > u64::from(MAX_SESSIONS) {
                return Err(Malformed);
            }
            next = ends;
            count += u64::from(length);
            Ok(())
        })?;
        Ok(count)
    }

    fn each(&mut self, mut each: impl FnMut(u32)) -> Result<(), Malformed> {
        self.ranges(|start, length| {
            (start..start + length).for_each(&mut each);
            Ok(())
        })
    }

    fn ranges(
        &mut self,
        mut each: impl FnMut(u32, u32) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        match *self {
            Self::One(number) => each(number, 1),
            Self::Steps(bytes) => {
                let mut reader = Reader::new(bytes);
                let mut number = 0_u32;
                while !reader.is_empty() {
                    number = number.checked_add(reader.narrow()?).ok_or(Malformed)?;
                    each(number, 1)?;
                }
                Ok(())
            }
            Self::Runs(bytes) => {
                let mut reader = Reader::new(bytes);
                let mut next = 0_u32;
                while !reader.is_empty() {
                    let start = next.checked_add(reader.narrow()?).ok_or(Malformed)?;
                    let length: u32 = reader.narrow()?;
                    next = start.checked_add(length).ok_or(Malformed)?;
                    each(start, length)?;
                }
                Ok(())
            }
            Self::Bitmap(first, bytes) => {
                for (index, &byte) in bytes.iter().enumerate() {
                    let base = u32::try_from(index * 8).map_err(|_| Malformed)?;
                    let base = first.checked_add(base).ok_or(Malformed)?;
                    let mut bits = byte;
                    while bits != 0 {
                        let number = base.checked_add(bits.trailing_zeros()).ok_or(Malformed)?;
                        each(number, 1)?;
                        bits &= bits - 1;
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn copy(class: u8) -> Copied<'static> {
        Copied {
            qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(class % 3)],
            retain: class & 4 != 0,
            identifiers: [&[][..], &[7], &[1, 268_435_455]][usize::from(class / 8 % 3)],
            group: ["", "workers/f"][usize::from(class / 32 % 2)],
        }
    }

    fn encode(numbers: &BTreeMap<u32, u8>) -> Vec<u8> {
        let mut recipients: Vec<_> = numbers
            .iter()
            .map(|(&number, &class)| Recipient {
                session: SessionNumber(number),
                copy: copy(class),
            })
            .collect();
        let mut bytes = Vec::new();
        put_recipients(&mut recipients, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_set_reads_as_it_was_written(
            sparse in prop::collection::btree_map(0..MAX_SESSIONS, any::<u8>(), 0..50),
            dense in prop::collection::btree_map(1000..1400_u32, 0..3_u8, 0..400),
            runs in prop::collection::vec((0..90_000_u32, 1..300_u32), 0..6),
        ) {
            let mut numbers = sparse;
            numbers.extend(dense);
            for (start, length) in runs {
                numbers.extend((start..start + length).map(|number| (number, 1)));
            }
            let bytes = encode(&numbers);
            let receivers = Receivers::parse(&bytes).expect("what was written can be read");
            let mut seen = BTreeMap::new();
            receivers.for_each(|recipient| {
                assert_eq!(recipient.copy, copy(numbers[&recipient.session.0]));
                seen.insert(recipient.session.0, numbers[&recipient.session.0]);
            });
            prop_assert_eq!(seen, numbers);
        }

        #[test]
        fn any_bytes_are_refused_or_few(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(receivers) = Receivers::parse(&bytes) {
                let mut count = 0;
                receivers.for_each(|recipient| {
                    assert!(recipient.session.0 < MAX_SESSIONS);
                    count += 1;
                });
                prop_assert!(count <= MAX_SESSIONS);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_sessions_take_little() {
        let all = (0..100_000).map(|number| (number, 1)).collect();
        assert!(encode(&all).len() < 16);
        let half = (0..100_000).filter(|number| number % 7 < 4);
        let half = half.map(|number| (number, 1)).collect();
        assert!(encode(&half).len() < 13_000);
    }
}
