//! What the journal remembers of what it wrote: who still wants what, and where it stands.

use std::collections::VecDeque;

use crate::wire::PacketId;

use super::codec::{Malformed, Reader};
use super::frame::Header;
use super::index::{Index, Place};
use super::log::{Log, Write};
use super::receivers::{Receivers, put_recipients};
use super::record::{MESSAGE_OVERHEAD, Record};
use super::types::{
    BLOCK, Damage, Defect, Exchange, Failure, FileId, ItemId, MAX_SESSIONS, Position, Recipient,
    Refused, SessionDetails, SessionNumber, StoredMessage, SubscriptionDetails, WillDetails,
};

/// Bytes that one step of moving the oldest segment reads, at least.
const MOVE_BYTES: usize = 256 * 1024;

/// The journal of one shard. See [`super`] for which call comes before which packet.
///
/// - Mutators append: [`Journal::open_session`] and all that follow it. What they append is at
///   [`Journal::position`].
/// - For the driver, in any order, whenever something was appended or completed:
///   [`Journal::next_allocation`], answered by [`Journal::allocated`]; [`Journal::next_write`], answered by
///   [`Journal::completed`]; [`Journal::next_move`], answered by [`Journal::moved`];
///   [`Journal::next_removal`], which needs no answer; [`Journal::seal`] when idle.
/// - Getters: [`Journal::durable`] above all.
pub struct Journal {
    log: Log,
    index: Index,
    sessions: Vec<Option<Box<Session>>>,
    free_numbers: Vec<u32>,
    session_count: usize,
    moving: Option<Moving>,
    /// Segments that are too many.
    excess: usize,
    /// The segments that there were when they were counted: the first, and how many.
    counted: (u64, usize),
    damage: Option<Damage>,
    scratch: Vec<u8>,
}

/// What the journal knows of one session.
#[derive(Debug)]
pub(super) struct Session {
    /// Its first record, and its present one.
    pub(super) begun: ItemId,
    pub(super) id: ItemId,
    /// Messages that wait for it, oldest first.
    pub(super) messages: VecDeque<ItemId>,
    /// Ascending.
    pub(super) subscriptions: Vec<ItemId>,
    /// Sorted by packet identifier.
    pub(super) held: Vec<(PacketId, ItemId)>,
    /// Sorted by packet identifier; the item is the record that says so.
    pub(super) exchanges: Vec<(PacketId, Exchange, ItemId)>,
    pub(super) will: Option<ItemId>,
}

/// How far the oldest segment was moved.
#[derive(Clone, Copy, Debug)]
struct Moving {
    segment: u64,
    offset: u32,
    /// Bytes to read at a time: no less than a frame.
    length: u32,
    asked: bool,
}

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

/// What retains a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nothing: it is only for sessions.
    None,
    /// It is the retained message of its topic, and takes the place of this one.
    Retained(Option<ItemId>),
}

impl Session {
    pub(super) fn new(begun: ItemId, id: ItemId) -> Self {
        Self {
            begun,
            id,
            messages: VecDeque::new(),
            subscriptions: Vec::new(),
            held: Vec::new(),
            exchanges: Vec::new(),
            will: None,
        }
    }

    /// A quarter more at a time: a queue is long where memory counts.
    fn push_message(&mut self, id: ItemId) {
        let len = self.messages.len();
        if len == self.messages.capacity() {
            self.messages.reserve_exact((len / 4).max(4));
        }
        self.messages.push_back(id);
    }

    /// Takes a message out; `false` if it does not wait for the session.
    fn take_message(&mut self, id: ItemId) -> bool {
        if self.messages.front() == Some(&id) {
            self.messages.pop_front();
        } else if let Ok(at) = self.messages.binary_search(&id) {
            self.messages.remove(at);
        } else {
            return false;
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
        true
    }

    fn waits_for(&self, id: ItemId) -> bool {
        self.messages.binary_search(&id).is_ok()
    }
}

impl Journal {
    pub(super) fn restored(log: Log, index: Index, sessions: Vec<Option<Box<Session>>>) -> Self {
        let free_numbers: Vec<u32> = (0..sessions.len() as u32)
            .rev()
            .filter(|&number| sessions[number as usize].is_none())
            .collect();
        Self {
            log,
            index,
            session_count: sessions.len() - free_numbers.len(),
            free_numbers,
            sessions,
            moving: None,
            excess: 0,
            counted: (0, 0),
            damage: None,
            scratch: Vec::new(),
        }
    }

    // Mutators.

    /// What is appended from here on stands in one frame, so it is on disk wholly or not at all, if it
    /// is no more than `bytes` and [`Journal::next_write`] is not called meanwhile. Each call by itself is
    /// whole in any case. `bytes` counts payloads, topics, filters and the like; 64 each for all else
    /// of a call is plenty.
    ///
    /// # Errors
    /// So much does not fit a segment.
    pub fn together(&mut self, bytes: usize) -> Result<(), Refused> {
        self.log.reserve(bytes)
    }

    /// A session begins.
    ///
    /// # Errors
    /// There are too many, or the details are too large.
    pub fn open_session(&mut self, details: SessionDetails<'_>) -> Result<SessionNumber, Refused> {
        if self.session_count >= MAX_SESSIONS as usize {
            return Err(Refused::TooManySessions);
        }
        let next = self.sessions.len() as u32;
        let session = SessionNumber(self.free_numbers.last().copied().unwrap_or(next));
        let id = self.log.take_item();
        let record = Record::Session {
            id,
            session,
            begun: id,
            replaces: None,
            details,
        };
        self.begin_item(id, &record)?;
        let entry = Some(Box::new(Session::new(id, id)));
        match self.free_numbers.pop() {
            Some(number) => self.sessions[number as usize] = entry,
            None => self.sessions.push(entry),
        }
        self.session_count += 1;
        Ok(session)
    }

    /// What is known of a session has changed.
    ///
    /// # Errors
    /// There is no such session, or the details are too large.
    pub fn change_session(
        &mut self,
        session: SessionNumber,
        details: SessionDetails<'_>,
    ) -> Result<(), Refused> {
        let known = self.session(session).ok_or(Refused::Unknown)?;
        let (begun, old) = (known.begun, known.id);
        let id = self.log.take_item();
        let record = Record::Session {
            id,
            session,
            begun,
            replaces: Some(old),
            details,
        };
        self.begin_item(id, &record)?;
        if let Some(known) = self.session_mut(session) {
            known.id = id;
        }
        self.end_item(old);
        Ok(())
    }

    /// A session ends, and with it all that is its own: subscriptions, messages, exchanges, will.
    ///
    /// # Errors
    /// There is no such session.
    pub fn remove_session(&mut self, session: SessionNumber) -> Result<(), Refused> {
        let slot = self.sessions.get_mut(session.0 as usize);
        let known = slot.and_then(Option::take).ok_or(Refused::Unknown)?;
        self.append(&Record::SessionRemoved {
            session,
            begun: known.begun,
        })?;
        self.free_numbers.push(session.0);
        self.session_count -= 1;
        self.end_item(known.id);
        let held = known.held.iter().map(|&(_, item)| item);
        let exchanges = known.exchanges.iter().map(|&(_, _, item)| item);
        let own = known
            .subscriptions
            .iter()
            .copied()
            .chain(known.messages.iter().copied());
        for item in own.chain(held).chain(exchanges).chain(known.will) {
            self.end_item(item);
        }
        Ok(())
    }

    /// A subscription was made, or its options were replaced.
    ///
    /// # Errors
    /// There is no such session or no such subscription to replace, or the filter is too long.
    pub fn add_subscription(
        &mut self,
        session: SessionNumber,
        details: SubscriptionDetails<'_>,
        replaces: Option<ItemId>,
    ) -> Result<ItemId, Refused> {
        let known = self.session(session).ok_or(Refused::Unknown)?;
        let replaced = replaces.map(|old| known.subscriptions.binary_search(&old));
        let replaced = replaced.transpose().map_err(|_| Refused::Unknown)?;
        let id = self.log.take_item();
        self.begin_item(
            id,
            &Record::Subscription {
                id,
                session,
                replaces,
                details,
            },
        )?;
        if let Some(known) = self.session_mut(session) {
            replaced.map(|at| known.subscriptions.remove(at));
            known.subscriptions.push(id);
        }
        if let Some(old) = replaces {
            self.end_item(old);
        }
        Ok(id)
    }

    /// A subscription has ended.
    ///
    /// # Errors
    /// There is no such session or subscription.
    pub fn remove_subscription(
        &mut self,
        session: SessionNumber,
        subscription: ItemId,
    ) -> Result<(), Refused> {
        let known = self.session_mut(session).ok_or(Refused::Unknown)?;
        let at = known.subscriptions.binary_search(&subscription);
        known
            .subscriptions
            .remove(at.map_err(|_| Refused::Unknown)?);
        self.append(&Record::Removed { id: subscription })?;
        self.end_item(subscription);
        Ok(())
    }

    /// Keeps a message for `recipients`, which get sorted, and as a retained message. Each session is
    /// named once.
    ///
    /// # Errors
    /// It is too large, there is no such session, or nobody wants it.
    pub fn add_message(
        &mut self,
        message: StoredMessage<'_>,
        recipients: &mut [Recipient<'_>],
        retention: Retention,
    ) -> Result<ItemId, Refused> {
        let (retained, replaces) = match retention {
            Retention::None => (false, None),
            Retention::Retained(replaces) => (true, replaces),
        };
        let count = recipients.len() as u32 + u32::from(retained);
        if count == 0
            || recipients
                .iter()
                .any(|known| self.session(known.session).is_none())
        {
            return Err(Refused::Unknown);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        put_recipients(recipients, &mut scratch);
        let id = self.log.take_item();
        let record = Record::Message {
            id,
            retained,
            replaces,
            message,
            receivers: Receivers::trusted(&scratch),
        };
        let size = message.topic.len() + message.properties.len() + message.payload.len();
        let placed = if size + scratch.len() + MESSAGE_OVERHEAD > self.log.largest_record() {
            Err(Refused::TooLarge)
        } else {
            self.log.append(|base, out| record.encode(base, out))
        };
        self.scratch = scratch;
        let place = placed?;
        self.index.insert(id, place, count);
        self.log.born(place);
        for recipient in recipients {
            if let Some(known) = self.session_mut(recipient.session) {
                known.push_message(id);
            }
        }
        if let Some(old) = replaces {
            self.end_item(old);
        }
        Ok(id)
    }

    /// A retained message was removed without another in its place.
    ///
    /// # Errors
    /// There is no such message.
    pub fn clear_retained(&mut self, message: ItemId) -> Result<(), Refused> {
        self.index.get(message).ok_or(Refused::Unknown)?;
        self.append(&Record::Removed { id: message })?;
        self.end_item(message);
        Ok(())
    }

    /// A message is no concern of a session any longer: PUBACK, PUBREC with an error, expired or dropped.
    ///
    /// # Errors
    /// It does not wait for that session.
    pub fn acknowledge(&mut self, session: SessionNumber, message: ItemId) -> Result<(), Refused> {
        let known = self.session_mut(session).ok_or(Refused::Unknown)?;
        if !known.take_message(message) {
            return Err(Refused::Unknown);
        }
        let exchange = known
            .exchanges
            .iter()
            .position(|(_, sent, _)| sent.message == message);
        let exchange = exchange.map(|at| known.exchanges.remove(at).2);
        self.append(&Record::Acknowledged { session, message })?;
        self.end_item(message);
        if let Some(item) = exchange {
            self.end_item(item); // a message that was sent ends with it
        }
        Ok(())
    }

    /// A QoS 2 message came from the client under this packet identifier.
    ///
    /// # Errors
    /// There is no such session, or it holds the identifier.
    pub fn hold(&mut self, session: SessionNumber, packet_id: PacketId) -> Result<(), Refused> {
        let known = self.session(session).ok_or(Refused::Unknown)?;
        let Err(at) = known
            .held
            .binary_search_by_key(&packet_id, |&(held, _)| held)
        else {
            return Err(Refused::Unknown);
        };
        let id = self.log.take_item();
        self.begin_item(
            id,
            &Record::Held {
                id,
                session,
                packet_id,
            },
        )?;
        if let Some(known) = self.session_mut(session) {
            known.held.insert(at, (packet_id, id));
        }
        Ok(())
    }

    /// PUBREL came: the client may use the packet identifier again.
    ///
    /// # Errors
    /// The session does not hold it.
    pub fn release(&mut self, session: SessionNumber, packet_id: PacketId) -> Result<(), Refused> {
        let known = self.session_mut(session).ok_or(Refused::Unknown)?;
        let at = known
            .held
            .binary_search_by_key(&packet_id, |&(held, _)| held);
        let (_, item) = known.held.remove(at.map_err(|_| Refused::Unknown)?);
        self.append(&Record::Removed { id: item })?;
        self.end_item(item);
        Ok(())
    }

    /// A QoS 2 message is about to be sent under this packet identifier.
    ///
    /// # Errors
    /// It does not wait for that session, or the identifier is in use.
    pub fn send(
        &mut self,
        session: SessionNumber,
        message: ItemId,
        packet_id: PacketId,
    ) -> Result<(), Refused> {
        let known = self.session(session).ok_or(Refused::Unknown)?;
        let at = known
            .exchanges
            .binary_search_by_key(&packet_id, |&(used, ..)| used);
        let (Err(at), true) = (at, known.waits_for(message)) else {
            return Err(Refused::Unknown);
        };
        let id = self.log.take_item();
        self.begin_item(
            id,
            &Record::Sent {
                id,
                session,
                message,
                packet_id,
            },
        )?;
        let exchange = Exchange {
            message,
            packet_id,
            received: false,
        };
        if let Some(known) = self.session_mut(session) {
            known.exchanges.insert(at, (packet_id, exchange, id));
        }
        Ok(())
    }

    /// PUBREC came: the client has the message; its identifier stays in use until PUBCOMP.
    ///
    /// # Errors
    /// No message was sent under it, or PUBREC came before.
    pub fn receive(&mut self, session: SessionNumber, packet_id: PacketId) -> Result<(), Refused> {
        let known = self.session(session).ok_or(Refused::Unknown)?;
        let at = known
            .exchanges
            .binary_search_by_key(&packet_id, |&(used, ..)| used);
        let at = at.map_err(|_| Refused::Unknown)?;
        let (_, exchange, old) = known.exchanges[at];
        if exchange.received {
            return Err(Refused::Unknown);
        }
        let message = exchange.message;
        let id = self.log.take_item();
        let replaces = Some(old);
        self.begin_item(
            id,
            &Record::Received {
                id,
                session,
                message,
                packet_id,
                replaces,
            },
        )?;
        if let Some(known) = self.session_mut(session) {
            let received = Exchange {
                received: true,
                ..exchange
            };
            known.exchanges[at] = (packet_id, received, id);
            known.take_message(message);
        }
        self.end_item(old);
        self.end_item(message);
        Ok(())
    }

    /// PUBCOMP came: the exchange is over.
    ///
    /// # Errors
    /// PUBREC did not come under it.
    pub fn complete(&mut self, session: SessionNumber, packet_id: PacketId) -> Result<(), Refused> {
        let known = self.session_mut(session).ok_or(Refused::Unknown)?;
        let at = known
            .exchanges
            .binary_search_by_key(&packet_id, |&(used, ..)| used);
        let at = at.map_err(|_| Refused::Unknown)?;
        if !known.exchanges[at].1.received {
            return Err(Refused::Unknown);
        }
        let (_, _, item) = known.exchanges.remove(at);
        self.append(&Record::Removed { id: item })?;
        self.end_item(item);
        Ok(())
    }

    /// A will was left, or its deadline has become known.
    ///
    /// # Errors
    /// There is no such session, or the will is too large.
    pub fn set_will(
        &mut self,
        session: SessionNumber,
        details: WillDetails<'_>,
    ) -> Result<(), Refused> {
        let replaces = self.session(session).ok_or(Refused::Unknown)?.will;
        let id = self.log.take_item();
        self.begin_item(
            id,
            &Record::Will {
                id,
                session,
                replaces,
                details,
            },
        )?;
        if let Some(known) = self.session_mut(session) {
            known.will = Some(id);
        }
        if let Some(old) = replaces {
            self.end_item(old);
        }
        Ok(())
    }

    /// A will was published or taken back.
    ///
    /// # Errors
    /// There is none.
    pub fn clear_will(&mut self, session: SessionNumber) -> Result<(), Refused> {
        let known = self.session_mut(session).ok_or(Refused::Unknown)?;
        let id = known.will.take().ok_or(Refused::Unknown)?;
        self.append(&Record::Removed { id })?;
        self.end_item(id);
        Ok(())
    }

    // For the driver.

    /// A file that has to be made, with the size of a segment allocated.
    pub fn next_allocation(&mut self) -> Option<FileId> {
        self.log.next_allocation()
    }

    /// The file that [`Journal::next_allocation`] gave is there, or there is no space for it. It is not
    /// asked for again before [`Journal::space_returned`].
    pub fn allocated(&mut self, file: FileId, succeeded: bool) {
        self.log.allocated(file, succeeded);
    }

    /// There may be space again.
    pub fn space_returned(&mut self) {
        self.log.retry_allocation();
    }

    /// What is to be written next: all that was appended since the last one. `None` while one is on
    /// its way, while there is no file for it, or after a failure.
    pub fn next_write(&mut self) -> Option<Write> {
        self.log.next_write()
    }

    /// A write has ended, with its sync where it asked for one. After a failure nothing becomes durable
    /// any more.
    ///
    /// # Panics
    /// If it is not the write that was given last.
    pub fn completed(&mut self, write: Write, result: Result<(), Failure>) {
        self.log.completed(write, result);
    }

    /// Nothing was appended for a while: what follows tells the last frame from the tail of a write that
    /// never ended. With [`super::Sync::OnDemand`] it is the sync.
    pub fn seal(&mut self) {
        self.log.want_seal();
    }

    /// A file that is not needed any longer.
    pub fn next_removal(&mut self) -> Option<FileId> {
        self.log.next_removal()
    }

    /// A part of the oldest segment that is to be read, so that what lives in it is written again and its
    /// file becomes free. Asked for when there are too many segments for what lives in them.
    pub fn next_move(&mut self) -> Option<Read> {
        self.count_excess();
        let log = &self.log;
        let oldest = log.segments.front()?;
        let mostly_dead = u64::from(oldest.live) * 2 < u64::from(oldest.items);
        let wanted = self.excess > 0 || (log.is_full() && mostly_dead);
        let blocked = self.damage.is_some() || log.failure().is_some();
        let step = (MOVE_BYTES as u32).min(log.settings.segment_bytes / 4);
        if !wanted
            || blocked
            || log.segments.len() < 3
            || oldest.live == 0
            || oldest.last > log.durable()
            || log.backlog() > step as usize
            || log.room() < 2 * u64::from(step)
        {
            return None;
        }
        let (segment, file, used) = (log.first, oldest.file?, oldest.used);
        let begin = Moving {
            segment,
            offset: 0,
            length: step,
            asked: false,
        };
        let moving = self.moving.get_or_insert(begin);
        if moving.asked {
            return None;
        }
        if moving.segment != segment {
            *moving = begin; // the other one has died
        }
        if moving.offset >= used {
            return None;
        }
        moving.asked = true;
        let length = moving.length.min(used - moving.offset);
        Some(Read {
            file,
            offset: moving.offset,
            length,
        })
    }

    /// What [`Journal::next_move`] asked for was read.
    ///
    /// # Errors
    /// It is not what was written there. The segment stays, and nothing is moved any more.
    pub fn moved(&mut self, read: Read, bytes: &[u8]) -> Result<(), Damage> {
        let Some(mut moving) = self.moving.take() else {
            return Ok(());
        };
        moving.asked = false;
        if moving.segment != self.log.first || moving.offset != read.offset {
            self.moving = Some(moving);
            return Ok(()); // it died meanwhile
        }
        match self.move_frames(&mut moving, read, bytes) {
            Ok(()) => {
                self.moving = Some(moving);
                Ok(())
            }
            Err((offset, what)) => {
                let damage = Damage {
                    file: read.file,
                    offset,
                    what,
                };
                self.damage = Some(damage);
                Err(damage)
            }
        }
    }

    // Getters.

    /// Everything up to here is on disk.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.log.durable()
    }

    /// Where what was appended last will be.
    #[must_use]
    pub fn position(&self) -> Position {
        self.log.position()
    }

    /// Why nothing becomes durable any more.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.log.failure()
    }

    /// Bytes that were appended and not yet given to the disk. A caller who lets them grow without
    /// bound has not read this.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.log.backlog()
    }

    /// Bytes that can be appended without a new file.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.log.room()
    }

    /// Whether a new file was refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Segments from the oldest that still counts to the one that is written to.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.log.segments.len()
    }

    /// The files of these segments, oldest first.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.log.segments.iter().filter_map(|segment| segment.file)
    }

    /// Items that live: messages, subscriptions, sessions, wills, exchanges.
    #[must_use]
    pub fn items(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory for messages, without what the allocator adds: the index and the lists of sessions.
    #[must_use]
    pub fn memory(&self) -> usize {
        let lists = self.sessions.iter().flatten();
        let lists = lists.map(|session| session.messages.capacity() * size_of::<ItemId>());
        self.index.memory() + lists.sum::<usize>()
    }

    /// The messages that wait for a session, oldest first.
    pub fn messages(&self, session: SessionNumber) -> impl Iterator<Item = ItemId> {
        let known = self.session(session);
        known
            .into_iter()
            .flat_map(|known| known.messages.iter().copied())
    }

    /// Where a message can be read that is on disk: blocks that hold at least its beginning. What is
    /// read goes to [`Journal::message`].
    #[must_use]
    pub fn locate(&self, message: ItemId) -> Option<Read> {
        let (place, _) = self.index.get(message)?;
        let segment = self
            .log
            .segments
            .get(self.log.segment_index(place.segment))?;
        let offset = place.offset - place.offset % BLOCK as u32;
        (place.offset < segment.used).then_some(())?;
        Some(Read {
            file: segment.file?,
            offset,
            length: (segment.used - offset).min(2 * BLOCK as u32),
        })
    }

    /// Reads a message from what [`Journal::locate`] named. `Ok(Err(read))` asks for more of the same.
    ///
    /// # Errors
    /// It is not what was written there.
    pub fn message<'a>(
        &self,
        message: ItemId,
        read: Read,
        bytes: &'a [u8],
    ) -> Result<Result<StoredMessage<'a>, Read>, Damage> {
        let damage = Damage {
            file: read.file,
            offset: read.offset,
            what: Defect::Record,
        };
        let place = self
            .index
            .get(message)
            .map_or(u32::MAX, |(place, _)| place.offset);
        let skip = place.checked_sub(read.offset).ok_or(damage)? as usize;
        let bytes = bytes.get(skip..).ok_or(damage)?;
        match Record::decode_alone(message, bytes) {
            Ok(Ok(message)) => Ok(Ok(message)),
            Ok(Err(wanted)) => {
                let length = (skip + wanted).next_multiple_of(BLOCK);
                let length = u32::try_from(length).map_err(|_| damage)?;
                Ok(Err(Read { length, ..read }))
            }
            Err(Malformed) => Err(damage),
        }
    }

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
                if let Record::Message {
                    id,
                    message,
                    receivers,
                    ..
                } = record
                    && let Some((place, count)) = self.index.get(id)
                    && place == Place::new(segment, offset + at)
                {
                    self.with_living(id, receivers, |living| {
                        each(id, message, count as usize > living.len(), living);
                    });
                }
                Ok(())
            })
            .map_err(|Malformed| damage(Defect::Record))?;
            offset += header.size();
        }
        Ok(())
    }

    // Inside.

    fn session(&self, session: SessionNumber) -> Option<&Session> {
        self.sessions.get(session.0 as usize)?.as_deref()
    }

    fn session_mut(&mut self, session: SessionNumber) -> Option<&mut Session> {
        self.sessions.get_mut(session.0 as usize)?.as_deref_mut()
    }

    fn append(&mut self, record: &Record<'_>) -> Result<Place, Refused> {
        self.log.append(|base, out| record.encode(base, out))
    }

    fn begin_item(&mut self, id: ItemId, record: &Record<'_>) -> Result<(), Refused> {
        let place = self.append(record)?;
        self.index.insert(id, place, 1);
        self.log.born(place);
        Ok(())
    }

    /// One less wants the item.
    fn end_item(&mut self, id: ItemId) {
        if let Some(place) = self.index.release(id) {
            self.log.died(place);
        }
    }

    /// The receivers among `receivers` that the message still waits for.
    fn with_living<R>(
        &self,
        id: ItemId,
        receivers: Receivers<'_>,
        then: impl FnOnce(&[Recipient<'_>]) -> R,
    ) -> R {
        // Identifiers live as long as one call of the closure, so they are copied.
        let mut living = Vec::new();
        let mut identifiers: Vec<u32> = Vec::new();
        receivers.for_each(|recipient| {
            if self
                .session(recipient.session)
                .is_some_and(|known| known.waits_for(id))
            {
                let start = identifiers.len();
                identifiers.extend_from_slice(recipient.copy.identifiers);
                let group: Box<str> = recipient.copy.group.into();
                living.push((
                    recipient.session,
                    recipient.copy.qos,
                    recipient.copy.retain,
                    group,
                    start..identifiers.len(),
                ));
            }
        });
        let living: Vec<_> = living
            .iter()
            .map(|(session, qos, retain, group, range)| Recipient {
                session: *session,
                copy: super::types::Copied {
                    qos: *qos,
                    retain: *retain,
                    identifiers: &identifiers[range.clone()],
                    group,
                },
            })
            .collect();
        then(&living)
    }

    /// Counts the segments that are too many, once for each that comes or goes.
    fn count_excess(&mut self) {
        let log = &self.log;
        let now = (log.first, log.segments.len());
        if self.counted == now {
            return;
        }
        self.counted = now;
        let living = log.segments.iter().filter(|segment| segment.items > 0);
        let living: u64 = living
            .map(|segment| {
                u64::from(segment.used) * u64::from(segment.live) / u64::from(segment.items)
            })
            .sum();
        let needed = living.div_ceil(u64::from(log.settings.segment_bytes)) as usize;
        let allowed = 2 * needed + log.settings.slack_segments as usize;
        self.excess = log.segments.len().saturating_sub(allowed);
    }

    /// The frame that stands at a place where one was written.
    fn expect<'a>(
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

    fn move_frames(
        &mut self,
        moving: &mut Moving,
        read: Read,
        bytes: &[u8],
    ) -> Result<(), (u32, Defect)> {
        let used = self.log.segments.front().map_or(0, |segment| segment.used);
        let mut at = 0;
        while at < bytes.len() {
            let offset = read.offset as usize + at;
            let opened = self.expect(moving.segment, offset, read.file, &bytes[at..]);
            let (header, records) = match opened {
                Ok(opened) => opened,
                // It may be cut off by what was asked for; the next step reads it.
                Err(_) if read.offset as usize + bytes.len() < used as usize => {
                    if at == 0 {
                        moving.length = moving.length.saturating_mul(2);
                    }
                    break;
                }
                Err(defect) => return Err((offset as u32, defect)),
            };
            let segment = moving.segment;
            for_each_record(&header, records, |within, record| {
                self.move_record(Place::new(segment, offset + within), record)
            })
            .map_err(|Malformed| (offset as u32, Defect::Record))?;
            at += header.size();
        }
        moving.offset = read.offset + at as u32;
        Ok(())
    }

    /// Writes a record of the oldest segment again, if it is the one that the index names.
    fn move_record(&mut self, from: Place, record: Record<'_>) -> Result<(), Malformed> {
        let (Record::Session { id, .. }
        | Record::Subscription { id, .. }
        | Record::Message { id, .. }
        | Record::Held { id, .. }
        | Record::Sent { id, .. }
        | Record::Received { id, .. }
        | Record::Will { id, .. }) = record
        else {
            return Ok(());
        };
        let Some((place, count)) = self.index.get(id) else {
            return Ok(());
        };
        if place != from {
            return Ok(());
        }
        // What it took the place of is in no younger segment.
        let moved = match record {
            Record::Message {
                message, receivers, ..
            } => {
                let mut encoded = Vec::new();
                let retained = self.with_living(id, receivers, |living| {
                    let mut living = living.to_vec();
                    put_recipients(&mut living, &mut encoded);
                    count as usize > living.len()
                });
                let receivers = Receivers::trusted(&encoded);
                let copy = Record::Message {
                    id,
                    retained,
                    replaces: None,
                    message,
                    receivers,
                };
                self.log.append(|base, out| copy.encode(base, out))
            }
            record => self.append(&record.without_replaced()),
        };
        // It fitted a segment before.
        let place = moved.map_err(|_| Malformed)?;
        self.index.set_place(id, place);
        self.log.died(from);
        self.log.born(place);
        Ok(())
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
        let at = super::frame::HEADER_BYTES + records.len() - reader.rest().len();
        each(at, Record::decode(header.base, &mut reader)?)?;
    }
    Ok(())
}
