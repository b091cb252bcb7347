//! What the journal remembers of what it wrote: who still wants what, and where it stands.

use crate::chunks::Chunks;
use crate::wire::PacketId;

use super::index::{Index, Place};
use super::log::Log;
use super::moving::Moving;
use super::numbers::Numbers;
use super::receivers::{Receivers, put_alike, put_recipients};
use super::record::{MESSAGE_OVERHEAD, Record};
use super::types::{
    Copied, Damage, Exchange, Failure, FileId, ForwardDetails, ItemId, MAX_SESSIONS, Position,
    Recipient, Refused, SessionDetails, SessionNumber, StoredMessage, SubscriptionDetails,
    WillDetails,
};

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
    pub(super) log: Log,
    pub(super) index: Index,
    pub(super) sessions: Chunks<Known>,
    free_numbers: Vec<u32>,
    session_count: usize,
    pub(super) moving: Option<Moving>,
    /// Segments that are too many.
    pub(super) excess: usize,
    /// The segments that there were when they were counted: the first, and how many.
    pub(super) counted: (u64, usize),
    pub(super) damage: Option<Damage>,
    scratch: Vec<u8>,
}

/// What stands under the number of a session. A message for many sessions needs nothing of them but this, and
/// finds it in a row.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Messages that wait for it.
    pub(super) messages: Numbers,
    pub(super) session: Option<Box<Session>>,
}

/// What the journal knows of one session besides.
#[derive(Debug)]
pub(super) struct Session {
    /// Its first record, and its present one.
    pub(super) begun: ItemId,
    pub(super) id: ItemId,
    /// Ascending.
    pub(super) subscriptions: Vec<ItemId>,
    /// Sorted by packet identifier.
    pub(super) held: Vec<(PacketId, ItemId)>,
    /// Sorted by packet identifier; the item is the record that says so.
    pub(super) exchanges: Vec<(PacketId, Exchange, ItemId)>,
    pub(super) will: Option<ItemId>,
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
            subscriptions: Vec::new(),
            held: Vec::new(),
            exchanges: Vec::new(),
            will: None,
        }
    }
}

impl Journal {
    pub(super) fn restored(log: Log, index: Index, sessions: Chunks<Known>) -> Self {
        let is_free = |(_, known): &(u32, &Known)| known.session.is_none();
        let free_numbers = (0..).zip(sessions.iter()).filter(is_free);
        let mut free_numbers: Vec<u32> = free_numbers.map(|(number, _)| number).collect();
        free_numbers.reverse();
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
        self.free_numbers.pop();
        let known = self.sessions.get_or_grow(session.0 as usize);
        known.session = Some(Box::new(Session::new(id, id)));
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
        let slot = slot.ok_or(Refused::Unknown)?;
        let known = slot.session.take().ok_or(Refused::Unknown)?;
        let messages = std::mem::take(&mut slot.messages);
        self.append(&Record::SessionRemoved {
            session,
            begun: known.begun,
        })?;
        self.free_numbers.push(session.0);
        self.session_count -= 1;
        self.end_item(known.id);
        let held = known.held.iter().map(|&(_, item)| item);
        let exchanges = known.exchanges.iter().map(|&(_, _, item)| item);
        let own = known.subscriptions.iter().copied().chain(messages.iter());
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
        self.add_message_alike(message, (Copied::PLAIN, &mut []), recipients, retention)
    }

    /// The same for sessions that get it alike, and `others`: a session costs no more than its number then.
    ///
    /// # Errors
    /// It is too large, there is no such session, or nobody wants it.
    pub fn add_message_alike(
        &mut self,
        message: StoredMessage<'_>,
        (copy, alike): (Copied<'_>, &mut [SessionNumber]),
        others: &mut [Recipient<'_>],
        retention: Retention,
    ) -> Result<ItemId, Refused> {
        let (retained, replaces) = match retention {
            Retention::None => (false, None),
            Retention::Retained(replaces) => (true, replaces),
        };
        let count = (alike.len() + others.len()) as u32 + u32::from(retained);
        if count == 0 {
            return Err(Refused::Unknown);
        }
        if !alike.is_sorted() {
            alike.sort_unstable();
        }
        let id = self.log.take_item();
        let all = alike.len() + others.len();
        let sessions = sessions_of(alike, others);
        let listed = sessions
            .take_while(|&session| self.list(session, id))
            .count();
        let placed = if listed < all {
            Err(Refused::Unknown)
        } else {
            self.append_message(id, message, (retained, replaces), (copy, alike, others))
        };
        let place = match placed {
            Ok(place) => place,
            Err(refused) => {
                for session in sessions_of(alike, others).take(listed) {
                    if let Some(known) = self.known_mut(session) {
                        known.messages.remove(id);
                    }
                }
                return Err(refused);
            }
        };
        self.index.insert(id, place, count);
        self.log.born(place);
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
        let known = self.known_mut(session).ok_or(Refused::Unknown)?;
        if !known.messages.remove(message) {
            return Err(Refused::Unknown);
        }
        let exchange = known.session.as_mut().and_then(|known| {
            let mut exchanges = known.exchanges.iter();
            let at = exchanges.position(|(_, sent, _)| sent.message == message);
            at.map(|at| known.exchanges.remove(at).2)
        });
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
        let (Err(at), true) = (at, self.waits(session, message)) else {
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
        }
        if let Some(known) = self.known_mut(session) {
            known.messages.remove(message);
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

    /// A QoS 2 message is about to be handed to other shards.
    ///
    /// # Errors
    /// It is too large.
    pub fn forward(&mut self, details: ForwardDetails<'_>) -> Result<ItemId, Refused> {
        let id = self.log.take_item();
        self.begin_item(id, &Record::Forward { id, details })?;
        Ok(id)
    }

    /// All of them have it on disk.
    ///
    /// # Errors
    /// There is no such message.
    pub fn forwarded(&mut self, forward: ItemId) -> Result<(), Refused> {
        self.index.get(forward).ok_or(Refused::Unknown)?;
        self.append(&Record::Removed { id: forward })?;
        self.end_item(forward);
        Ok(())
    }

    /// What another shard forwarded is here, and all before it. `replaces` is what this returned for the
    /// one before.
    ///
    /// # Errors
    /// There is nothing of that name to replace.
    pub fn note_origin(
        &mut self,
        lane: u32,
        forward: ItemId,
        replaces: Option<ItemId>,
    ) -> Result<ItemId, Refused> {
        if replaces.is_some_and(|old| self.index.get(old).is_none()) {
            return Err(Refused::Unknown);
        }
        let id = self.log.take_item();
        self.begin_item(
            id,
            &Record::Origin {
                id,
                replaces,
                lane,
                forward,
            },
        )?;
        if let Some(old) = replaces {
            self.end_item(old);
        }
        Ok(id)
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
        let lists = self.sessions.iter();
        let lists = lists.map(|known| size_of::<Numbers>() + known.messages.memory());
        self.index.memory() + lists.sum::<usize>()
    }

    // Inside.

    pub(super) fn session(&self, session: SessionNumber) -> Option<&Session> {
        let known = self.sessions.get(session.0 as usize)?;
        known.session.as_deref()
    }

    pub(super) fn session_mut(&mut self, session: SessionNumber) -> Option<&mut Session> {
        self.known_mut(session)?.session.as_deref_mut()
    }

    /// The messages that wait for a session.
    pub(super) fn messages_of(&self, session: SessionNumber) -> Option<&Numbers> {
        let known = self.sessions.get(session.0 as usize)?;
        Some(&known.messages)
    }

    /// Whether a message waits for a session.
    pub(super) fn waits(&self, session: SessionNumber, message: ItemId) -> bool {
        let messages = self.messages_of(session);
        messages.is_some_and(|messages| messages.contains(message))
    }

    /// A message waits for a session from here on; `false` if there is no such session.
    #[inline]
    fn list(&mut self, session: SessionNumber, message: ItemId) -> bool {
        let known = self.known_mut(session);
        let known = known.filter(|known| known.session.is_some());
        known.is_some_and(|known| {
            known.messages.push(message);
            true
        })
    }

    fn append_message(
        &mut self,
        id: ItemId,
        message: StoredMessage<'_>,
        (retained, replaces): (bool, Option<ItemId>),
        (copy, alike, others): (Copied<'_>, &[SessionNumber], &mut [Recipient<'_>]),
    ) -> Result<Place, Refused> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        put_alike(&copy, alike, &mut scratch);
        put_recipients(others, &mut scratch);
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
        placed
    }

    fn known_mut(&mut self, session: SessionNumber) -> Option<&mut Known> {
        self.sessions.get_mut(session.0 as usize)
    }

    pub(super) fn append(&mut self, record: &Record<'_>) -> Result<Place, Refused> {
        self.log.append(|base, out| record.encode(base, out))
    }

    pub(super) fn begin_item(&mut self, id: ItemId, record: &Record<'_>) -> Result<(), Refused> {
        let place = self.append(record)?;
        self.index.insert(id, place, 1);
        self.log.born(place);
        Ok(())
    }

    /// One less wants the item.
    pub(super) fn end_item(&mut self, id: ItemId) {
        if let Some(place) = self.index.release(id) {
            self.log.died(place);
        }
    }
}

fn sessions_of(
    alike: &[SessionNumber],
    others: &[Recipient<'_>],
) -> impl Iterator<Item = SessionNumber> {
    let others = others.iter().map(|recipient| recipient.session);
    alike.iter().copied().chain(others)
}
