//! Messages of one session, read back from where they stand.

use super::codec::Malformed;
use super::index::Place;
use super::numbers::Numbers;
use super::reading::Read;
use super::record::Record;
use super::state::Journal;
use super::types::{BLOCK, Copied, Damage, Defect, ItemId, SessionNumber, StoredMessage};

/// Bytes that one read of several messages takes at most.
const READ_BYTES: u32 = 64 * 1024;
/// Bytes that all reads of one request take, about.
const FETCH_BYTES: u32 = 256 * 1024;

/// What is to be read, so that a session's next messages are there.
#[derive(Debug)]
pub struct Fetch {
    session: SessionNumber,
    parts: Vec<Part>,
}

/// One read, and the messages that begin in it.
#[derive(Debug)]
struct Part {
    read: Read,
    messages: Vec<(ItemId, Place)>,
}

/// A message that was on disk and is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The message.
    pub message: ItemId,
    /// What is wrong with it.
    pub damage: Damage,
}

impl Fetch {
    /// What is to be read. The buffers go to [`Journal::fetched`] in this order, empty where they could
    /// not be filled.
    pub fn reads(&self) -> impl Iterator<Item = Read> {
        self.parts.iter().map(|part| part.read)
    }

    /// Whose messages they are.
    #[must_use]
    pub fn session(&self) -> SessionNumber {
        self.session
    }
}

impl Journal {
    /// The messages that wait for a session, oldest first.
    pub fn messages(&self, session: SessionNumber) -> impl Iterator<Item = ItemId> {
        let messages = self.messages_of(session);
        messages.into_iter().flat_map(Numbers::iter)
    }

    /// The messages that wait for a session and came behind `after`, oldest first.
    pub fn messages_behind(
        &self,
        session: SessionNumber,
        after: ItemId,
    ) -> impl Iterator<Item = ItemId> {
        let messages = self.messages_of(session);
        messages
            .into_iter()
            .flat_map(move |messages| messages.behind(after))
    }

    /// Asks for the messages that wait for a session behind `after`, `most` of them at most.
    /// `None` if the first of them was not written yet: [`Journal::completed`] may change that.
    #[must_use]
    pub fn fetch(&self, session: SessionNumber, after: ItemId, most: usize) -> Option<Fetch> {
        let mut parts: Vec<Part> = Vec::new();
        let mut bytes = 0;
        let messages = self.messages_behind(session, after);
        for message in messages.take(most) {
            let Some((place, read)) = self.locate(message, 1) else {
                break;
            };
            if let Some(part) = parts.last_mut()
                && let Some(length) = extended(part.read, read)
            {
                bytes += length - part.read.length;
                part.read.length = length;
                part.messages.push((message, place));
            } else {
                bytes += read.length;
                let messages = vec![(message, place)];
                parts.push(Part { read, messages });
            }
            if bytes >= FETCH_BYTES {
                break;
            }
        }
        (!parts.is_empty()).then_some(Fetch { session, parts })
    }

    /// What [`Journal::fetch`] asked for was read. Calls `each` for every message of it that still waits
    /// for the session, oldest first. What is returned asks for what is left: a message that is longer, or
    /// was moved meanwhile.
    ///
    /// # Errors
    /// A message is not what was written there. `each` was called for those before it.
    pub fn fetched(
        &self,
        fetch: &Fetch,
        buffers: &[Vec<u8>],
        mut each: impl FnMut(ItemId, StoredMessage<'_>, Copied<'_>),
    ) -> Result<Option<Fetch>, Unreadable> {
        let session = fetch.session;
        for (part, bytes) in fetch.parts.iter().zip(buffers) {
            for &(message, place) in &part.messages {
                if !self.waits(session, message) {
                    continue;
                }
                let again = |wanted| {
                    self.locate(message, wanted).map(|(place, read)| Fetch {
                        session,
                        parts: vec![Part {
                            read,
                            messages: vec![(message, place)],
                        }],
                    })
                };
                if self.index.get(message).is_none_or(|(now, _)| now != place) {
                    return Ok(again(1));
                }
                let within = (place.offset - part.read.offset) as usize;
                let bytes = bytes.get(within..).unwrap_or_default();
                match Record::decode_alone(message, bytes) {
                    Ok(Ok((stored, receivers))) => receivers.for_each(|recipient| {
                        if recipient.session == session {
                            each(message, stored, recipient.copy);
                        }
                    }),
                    Ok(Err(wanted)) => return Ok(again(wanted)),
                    Err(Malformed) => {
                        let damage = Damage {
                            file: part.read.file,
                            offset: place.offset,
                            what: Defect::Record,
                        };
                        return Err(Unreadable { message, damage });
                    }
                }
            }
        }
        Ok(None)
    }

    /// Where a message stands, once it was written, and the whole blocks that hold `wanted` bytes from
    /// there on and a little more.
    fn locate(&self, message: ItemId, wanted: usize) -> Option<(Place, Read)> {
        let (place, _) = self.index.get(message)?;
        let position = self.log.segment_index(place.segment);
        let segment = self.log.segments.get(position)?;
        self.log.is_written(place).then_some(())?;
        let within = place.offset % BLOCK as u32;
        let offset = place.offset - within;
        let wanted = (within as usize + wanted).next_multiple_of(BLOCK) + BLOCK;
        let read = Read {
            file: segment.file?,
            offset,
            length: (segment.used - offset).min(wanted as u32),
        };
        Some((place, read))
    }
}

/// The length of a read that takes in the next one, if that is no detour.
fn extended(read: Read, next: Read) -> Option<u32> {
    let end = next.offset + next.length;
    let near = next.file == read.file
        && next.offset >= read.offset
        && next.offset <= read.offset + read.length
        && end - read.offset <= READ_BYTES;
    near.then(|| read.length.max(end - read.offset))
}
