//! Messages, read back from where they stand.

use smallvec::SmallVec;

use super::codec::{Malformed, Reader};
use super::frame::{HEADER_BYTES, Header};
use super::index::Place;
use super::receivers::Receivers;
use super::record::Record;
use super::state::Journal;
use super::types::{Copied, Damage, Defect, FileId, ItemId, Recipient, StoredMessage};

/// A part of a file to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Which file.
    pub file: FileId,
    /// From which byte on, a multiple of [`BLOCK`].
    pub offset: u32,
    /// How many bytes, a multiple of [`BLOCK`].
    pub length: u32,
}

impl Journal {
    /// Calls `each` for the messages that live in the frames that `bytes`, all of `file`, begin with: the
    /// message, whether it is retained, and the sessions that it waits for. Once for each of
    /// [`Journal::files`], this brings back the bodies after a start.
    ///
    /// # Errors
    /// It is not what was written there.
    pub fn each_message(
        &self,
        file: FileId,
        bytes: &[u8],
        mut each: impl FnMut(ItemId, StoredMessage<'_>, bool, &[Recipient<'_>]),
    ) -> Result<(), Damage> {
        let position = self
            .log
            .segments
            .iter()
            .position(|segment| segment.file == Some(file));
        let Some(index) = position else { return Ok(()) };
        let used = self.log.segments[index].used as usize;
        let segment = self.log.first + index as u64;
        let mut offset = 0;
        while offset < used {
            let rest = bytes.get(offset..used).unwrap_or_default();
            let damage = |what| Damage {
                file,
                offset: offset as u32,
                what,
            };
            let (header, records) = self.expect(segment, offset, file, rest).map_err(damage)?;
            for_each_record(&header, records, |at, record| {
                self.give(Place::new(segment, offset + at), &record, &mut each);
                Ok(())
            })
            .map_err(|Malformed| damage(Defect::Record))?;
            offset += header.size();
        }
        Ok(())
    }

    /// Calls `each` if `record`, which stands at `place`, is a message that lives there.
    pub(super) fn give(
        &self,
        place: Place,
        record: &Record<'_>,
        each: &mut impl FnMut(ItemId, StoredMessage<'_>, bool, &[Recipient<'_>]),
    ) {
        if let Record::Message {
            id,
            message,
            receivers,
            ..
        } = *record
            && let Some((stands, count)) = self.index.get(id)
            && stands == place
        {
            self.with_living(id, receivers, |living| {
                each(id, message, count as usize > living.len(), living);
            });
        }
    }

    /// The receivers among `receivers` that the message still waits for.
    pub(super) fn with_living<R>(
        &self,
        id: ItemId,
        receivers: Receivers<'_>,
        then: impl FnOnce(&[Recipient<'_>]) -> R,
    ) -> R {
        // Identifiers live as long as one call of the closure, so they are copied.
        let mut living: SmallVec<[_; 4]> = SmallVec::new();
        let mut identifiers: SmallVec<[u32; 4]> = SmallVec::new();
        receivers.for_each(|recipient| {
            if self.waits(recipient.session, id) {
                let Recipient { session, copy } = recipient;
                let start = identifiers.len();
                identifiers.extend_from_slice(copy.identifiers);
                let group: Box<str> = copy.group.into();
                let range = start..identifiers.len();
                living.push((session, copy.qos, copy.retain, group, range));
            }
        });
        let living: SmallVec<[_; 4]> = living
            .iter()
            .map(|(session, qos, retain, group, range)| Recipient {
                session: *session,
                copy: Copied {
                    qos: *qos,
                    retain: *retain,
                    identifiers: &identifiers[range.clone()],
                    group,
                },
            })
            .collect();
        then(&living)
    }

    /// The frame that stands at a place where one was written.
    pub(super) fn expect<'a>(
        &self,
        segment: u64,
        offset: usize,
        file: FileId,
        bytes: &'a [u8],
    ) -> Result<(Header, &'a [u8]), Defect> {
        match Header::open(self.log.identity(), bytes) {
            Ok((header, records)) => {
                let here = header.segment == segment
                    && header.file == file
                    && header.offset as usize == offset;
                if here {
                    Ok((header, records))
                } else {
                    Err(Defect::FrameMisplaced)
                }
            }
            Err(_) => Err(Defect::FrameLost),
        }
    }
}

/// Calls `each` with every record of a frame and where in the frame it begins.
pub(super) fn for_each_record<'a>(
    header: &Header,
    records: &'a [u8],
    mut each: impl FnMut(usize, Record<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(records);
    while !reader.is_empty() {
        let at = HEADER_BYTES + records.len() - reader.rest().len();
        each(at, Record::decode(header.base, &mut reader)?)?;
    }
    Ok(())
}
