//! What a shard keeps on disk: calls its [`Journal`] where something happens that must outlive the
//! process, and says what has to wait for it. `journal`'s table has what is called when; the packets
//! that wait do so in the outbox ([`Outbox::promise`]).
//!
//! Sessions are there that outlive their connections, and those that have a will: so that it is
//! published, although the broker and not the client has died. Messages are kept for the former alone.
//!
//! Without a journal every call does nothing, and nothing waits.

use std::collections::BTreeMap;

use crate::journal::{
    Copied, Deadline, Errands, Failure, ForwardDetails, Journal, Position, Recipient, Refused,
    Retention, SessionDetails, StoredMessage, SubscriptionDetails, WillDetails, Write,
};
use crate::message::{ItemId, MessageView};
use crate::route::{Matches, SessionKey};
use crate::session::{Session, SessionNumber, SubscriptionEntry, Will};
use crate::time::Time;
use crate::wire::{PacketId, QoS};

use super::fanout::{Fanout, Matched, Way};
use super::publish::{merged, receivers_of};
use super::restore::Epoch;
use super::{Outbox, Shard};

/// When something is on disk, seen from the packet that promises it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before the packet leaves.
    #[default]
    Always,
    /// Soon after: a power cut costs what was acknowledged within the interval, a crash of the process
    /// nothing that was written.
    Interval,
    /// Never.
    Off,
}

/// What is kept, how surely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Sessions with their subscriptions, messages, exchanges and wills.
    pub sessions: Durability,
    /// Retained messages.
    pub retained: Durability,
}

/// Bytes that are left to acknowledgements, and to the moves that make room, when the disk is full.
const RESERVED_BYTES: u64 = 8 << 20;

/// Numbers of sessions for which memory is kept from one message to the next.
const KEPT_NUMBERS: usize = 256 * 1024;

/// The journal of a shard, if it has one.
#[derive(Default)]
pub(super) struct Store(Option<Box<Inner>>);

/// A point in the life of a journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark(u64);

impl Mark {
    /// Before everything.
    pub(super) const START: Self = Self(0);
}

struct Inner {
    journal: Journal,
    durable: Durable,
    epoch: Epoch,
    /// Appends that somebody has to wait for, and where the last of them is.
    promises: u64,
    promised: Position,
    /// By the lanes of other shards: the record that says so, and the last message that came.
    origins: BTreeMap<u32, (ItemId, ItemId)>,
}

impl Store {
    pub(super) fn new(
        journal: Journal,
        origins: &[(ItemId, u32, ItemId)],
        durable: Durable,
        epoch: Epoch,
    ) -> Self {
        let origins = origins.iter();
        Self(Some(Box::new(Inner {
            origins: origins
                .map(|&(record, lane, forward)| (lane, (record, forward)))
                .collect(),
            promises: 0,
            promised: journal.durable(),
            journal,
            durable,
            epoch,
        })))
    }

    /// Whether there is a journal.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The journal, for its driver.
    pub(super) fn journal(&mut self) -> Option<&mut Journal> {
        self.0.as_deref_mut().map(|inner| &mut inner.journal)
    }

    pub(super) fn get(&self) -> Option<&Journal> {
        self.0.as_deref().map(|inner| &inner.journal)
    }

    /// Whether sessions are kept.
    pub(super) fn keeps_sessions(&self) -> bool {
        let durable = self.0.as_deref().map(|inner| inner.durable);
        durable.is_some_and(|durable| durable.sessions != Durability::Off)
    }

    /// Whether retained messages are kept.
    pub(super) fn keeps_retained(&self) -> bool {
        let durable = self.0.as_deref().map(|inner| inner.durable);
        durable.is_some_and(|durable| durable.retained != Durability::Off)
    }

    /// Whether there is so little space left that what can be refused is.
    pub(super) fn is_short(&self) -> bool {
        let journal = self.get();
        journal.is_some_and(|journal| journal.is_full() && journal.room() < RESERVED_BYTES)
    }

    /// What is appended until the next write stands in one frame, if that is `message` so many times, for
    /// so many receivers, and two records more.
    pub(super) fn together(&mut self, message: &MessageView<'_>, bodies: usize, receivers: usize) {
        /// Bytes of a record besides the message, by far.
        const RECORD: usize = 64;
        let bytes = bodies * (message.size() + 2 * RECORD) + (receivers + 2) * RECORD;
        if let Some(inner) = self.0.as_deref_mut() {
            // Refused if it fits no segment, and then the message itself is.
            let _ = inner.journal.together(bytes);
        }
    }

    /// A point from which on [`Store::promised`] may look.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.as_deref().map_or(0, |inner| inner.promises))
    }

    /// Where the last append since `mark` is that somebody has to wait for, at the start if there is none.
    pub(super) fn promised(&self, mark: Mark) -> Position {
        match self.0.as_deref() {
            Some(inner) if inner.promises > mark.0 => inner.promised,
            _ => Position::default(),
        }
    }

    // Sessions.

    /// A CONNECT was accepted: the session is there from here on, if it or its will is to outlive the
    /// process.
    pub(super) fn connected(&mut self, session: &mut Session) {
        let Some(inner) = self.sessions() else { return };
        if session.stored.is_none() {
            if session.expiry_interval == 0 && session.will.is_none() {
                return;
            }
            let owner = session.standing.owner();
            let details = details(session, &owner, Deadline::NEVER);
            let opened = inner.journal.open_session(details);
            session.stored = opened.ok();
        } else {
            inner.change(session, Deadline::NEVER);
        }
        inner.will(session, Deadline::NEVER);
        inner.promise_of_sessions();
    }

    /// The connection of a session that stays has ended.
    pub(super) fn disconnected(&mut self, session: &Session) {
        let Some(inner) = self.sessions() else { return };
        if session.stored.is_none() {
            return;
        }
        inner.change(session, inner.deadline(session.expires_at));
        inner.will(session, inner.deadline(session.will_at));
        inner.promise_of_sessions();
    }

    /// The will of a session was published.
    pub(super) fn will_published(&mut self, session: Option<SessionNumber>) {
        self.append(session, |journal, number| journal.clear_will(number));
    }

    pub(super) fn remove_session(&mut self, session: Option<SessionNumber>) {
        self.append(session, |journal, number| journal.remove_session(number));
    }

    /// A subscription was made or replaced, with retained messages `owed` to it or not; what the journal calls it
    /// now.
    pub(super) fn subscribed(
        &mut self,
        session: Option<SessionNumber>,
        entry: &SubscriptionEntry,
        owed: bool,
    ) -> Option<ItemId> {
        let details = subscription_details(entry, owed);
        self.append(session, |journal, number| {
            journal.add_subscription(number, details, entry.stored)
        })
    }

    /// All retained messages were handed to a subscription; what the journal calls it now. Nobody waits for that: at
    /// worst they come again.
    pub(super) fn replayed(
        &mut self,
        session: Option<SessionNumber>,
        entry: &SubscriptionEntry,
    ) -> Option<ItemId> {
        let (number, inner) = (session?, self.sessions()?);
        let details = subscription_details(entry, false);
        let added = inner
            .journal
            .add_subscription(number, details, Some(entry.stored?));
        added.ok()
    }

    pub(super) fn unsubscribed(
        &mut self,
        session: Option<SessionNumber>,
        subscription: Option<ItemId>,
    ) {
        if let Some(item) = subscription {
            self.append(session, |journal, number| {
                journal.remove_subscription(number, item)
            });
        }
    }

    // Messages.

    /// Keeps `message` for those who get it alike and `others`, and, with `retained`, as the retained message of its topic in
    /// the place of that one.
    fn add(
        &mut self,
        message: &MessageView<'_>,
        alike: (Copied<'_>, &mut [SessionNumber]),
        others: &mut [Recipient<'_>],
        retained: Option<Option<ItemId>>,
    ) -> Result<Option<ItemId>, Refused> {
        let Some(inner) = self.0.as_deref_mut() else {
            return Ok(None);
        };
        let retention = match retained {
            Some(replaces) if inner.durable.retained != Durability::Off => {
                Retention::Retained(replaces)
            }
            _ => Retention::None,
        };
        let sessions = alike.1.len() + others.len();
        if sessions == 0 && retention == Retention::None {
            return Ok(None);
        }
        let waits = (sessions > 0 && inner.durable.sessions == Durability::Always)
            || (retention != Retention::None && inner.durable.retained == Durability::Always);
        let stored = inner.stored(message);
        let item = inner
            .journal
            .add_message_alike(stored, alike, others, retention)?;
        if waits {
            inner.promise();
        }
        Ok(Some(item))
    }

    /// A retained message was removed.
    pub(super) fn clear_retained(&mut self, message: Option<ItemId>) {
        if let (Some(item), Some(inner)) = (message, self.0.as_deref_mut()) {
            let cleared = inner.journal.clear_retained(item);
            if cleared.is_ok() && inner.durable.retained == Durability::Always {
                inner.promise();
            }
        }
    }

    /// A message is no concern of a session any longer.
    pub(super) fn acknowledge(&mut self, session: Option<SessionNumber>, message: Option<ItemId>) {
        if let (Some(number), Some(item), Some(inner)) = (session, message, self.0.as_deref_mut()) {
            // Unknown if it was kept for others alone. Nobody waits for it: at worst it comes again.
            let _ = inner.journal.acknowledge(number, item);
        }
    }

    /// QoS 2 from a client.
    pub(super) fn hold(&mut self, session: Option<SessionNumber>, packet_id: PacketId) {
        self.append(session, |journal, number| journal.hold(number, packet_id));
    }

    /// PUBREL from a client, or the end of the exchange by an error.
    pub(super) fn release(&mut self, session: Option<SessionNumber>, packet_id: PacketId) {
        self.append(session, |journal, number| {
            journal.release(number, packet_id)
        });
    }

    /// QoS 2 to a client.
    pub(super) fn send(
        &mut self,
        session: Option<SessionNumber>,
        message: Option<ItemId>,
        packet_id: PacketId,
    ) {
        if let Some(item) = message {
            self.append(session, |journal, number| {
                journal.send(number, item, packet_id)
            });
        }
    }

    /// PUBREC from a client.
    pub(super) fn receive(&mut self, session: Option<SessionNumber>, packet_id: PacketId) {
        self.append(session, |journal, number| {
            journal.receive(number, packet_id)
        });
    }

    /// PUBCOMP from a client. Nobody waits for it: at worst PUBREL is sent again.
    pub(super) fn complete(&mut self, session: Option<SessionNumber>, packet_id: PacketId) {
        if let (Some(number), Some(inner)) = (session, self.0.as_deref_mut()) {
            let _ = inner.journal.complete(number, packet_id);
        }
    }

    // Messages that go to other shards.

    pub(super) fn forward(
        &mut self,
        message: &MessageView<'_>,
        shards: u64,
        errands: &Errands,
    ) -> Option<ItemId> {
        let inner = self.sessions()?;
        let details = ForwardDetails {
            shards,
            errands: &errands.0,
            message: inner.stored(message),
        };
        let item = inner.journal.forward(details).ok()?;
        inner.promise_of_sessions();
        Some(item)
    }

    /// All have it. Nobody waits for that: at worst it is sent again, and is known.
    pub(super) fn forwarded(&mut self, item: ItemId) {
        if let Some(inner) = self.sessions() {
            let _ = inner.journal.forwarded(item);
        }
    }

    /// A message came by a lane of another shard.
    pub(super) fn note_origin(&mut self, lane: u32, forward: ItemId) {
        let Some(inner) = self.sessions() else { return };
        let known = inner.origins.get(&lane).copied();
        let replaces = known.map(|(record, _)| record);
        if let Ok(record) = inner.journal.note_origin(lane, forward, replaces) {
            inner.origins.insert(lane, (record, forward));
            inner.promise_of_sessions();
        }
    }

    /// The last message that came by that lane.
    pub(super) fn origin(&self, lane: u32) -> Option<ItemId> {
        let known = self.0.as_deref()?.origins.get(&lane)?;
        Some(known.1)
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.0
            .as_deref()
            .map_or_else(Epoch::default, |inner| inner.epoch)
    }

    // Inside.

    fn sessions(&mut self) -> Option<&mut Inner> {
        let inner = self.0.as_deref_mut();
        inner.filter(|inner| inner.durable.sessions != Durability::Off)
    }

    /// Appends something of a session, for which somebody waits. `None` if the journal has no such
    /// session, or nothing of that kind in it.
    fn append<T>(
        &mut self,
        session: Option<SessionNumber>,
        append: impl FnOnce(&mut Journal, SessionNumber) -> Result<T, Refused>,
    ) -> Option<T> {
        let number = session?;
        let inner = self.sessions()?;
        let appended = append(&mut inner.journal, number).ok()?;
        inner.promise_of_sessions();
        Some(appended)
    }
}

impl Inner {
    fn promise_of_sessions(&mut self) {
        if self.durable.sessions == Durability::Always {
            self.promise();
        }
    }

    fn promise(&mut self) {
        self.promises += 1;
        self.promised = self.journal.position();
    }

    fn change(&mut self, session: &Session, expires_at: Deadline) {
        if let Some(number) = session.stored {
            let owner = session.standing.owner();
            let details = details(session, &owner, expires_at);
            let _ = self.journal.change_session(number, details);
        }
    }

    /// The will of a session, due then.
    fn will(&mut self, session: &Session, due: Deadline) {
        let Some(number) = session.stored else { return };
        match &session.will {
            Some(will) => {
                let details = will_details(will, due);
                let _ = self.journal.set_will(number, details);
            }
            // Unknown if there was none.
            None => _ = self.journal.clear_will(number),
        }
    }

    fn stored<'a>(&self, message: &MessageView<'a>) -> StoredMessage<'a> {
        StoredMessage {
            topic: message.topic.as_str(),
            properties: message.properties,
            payload: message.payload,
            qos: message.qos,
            retain: message.retain,
            expires_at: self.deadline(message.expires_at),
        }
    }

    fn deadline(&self, time: Time) -> Deadline {
        match time {
            Time::NEVER => Deadline::NEVER,
            time => Deadline(self.epoch.0 + time.as_micros() / 1_000),
        }
    }
}

fn details<'a>(session: &'a Session, owner: &'a str, expires_at: Deadline) -> SessionDetails<'a> {
    SessionDetails {
        client_id: &session.client_id,
        user: owner,
        version: session.version,
        expiry_interval: session.expiry_interval,
        expires_at,
    }
}

fn subscription_details(entry: &SubscriptionEntry, owed: bool) -> SubscriptionDetails<'_> {
    SubscriptionDetails {
        filter: &entry.filter,
        options: entry.options,
        identifier: entry.identifier,
        owed,
    }
}

fn will_details(will: &Will, due: Deadline) -> WillDetails<'_> {
    let message = will.message.view();
    WillDetails {
        due,
        delay_interval: will.delay_interval,
        message_expiry_interval: will.message_expiry_interval,
        message: StoredMessage {
            topic: message.topic.as_str(),
            properties: message.properties,
            payload: message.payload,
            qos: message.qos,
            retain: message.retain,
            expires_at: Deadline::NEVER, // its expiry begins when it is published
        },
    }
}

impl Shard {
    /// Keeps the message of `fanout`, if it is to outlive the process, for those who match and do:
    /// before it is delivered, so that what is delivered knows what the journal calls it. `retained` as in
    /// [`Store::add`].
    pub(super) fn store(
        &mut self,
        matches: &Matches,
        publisher: Option<SessionKey>,
        retained: Option<Option<ItemId>>,
        fanout: &mut Fanout<'_>,
    ) {
        let message = &fanout.message;
        let (mut way, mut others) = (None, Vec::new());
        let mut alike = std::mem::take(&mut self.gathered);
        if message.qos > QoS::AtMostOnce && self.store.keeps_sessions() {
            for (same, _) in receivers_of(matches) {
                let [first, ..] = same else { continue };
                let Some(number) = self.sessions.kept(first.session) else {
                    continue;
                };
                // Nearly always the same for all.
                let own = Some(Way::of(first, message));
                if same.len() == 1 && publisher != Some(first.session) && way.or(own) == own {
                    if first.qos > QoS::AtMostOnce {
                        way = own;
                        alike.push(number);
                    }
                } else if let Some((_, matched)) = merged(same, publisher)
                    && matched.qos > QoS::AtMostOnce
                {
                    others.push((number, matched));
                }
            }
        }
        self.store_gathered((way, &mut alike), &others, retained, fanout);
        alike.clear();
        alike.shrink_to(KEPT_NUMBERS);
        self.gathered = alike;
    }

    /// The same for a single session.
    pub(super) fn store_for(
        &mut self,
        key: SessionKey,
        matched: &Matched,
        fanout: &mut Fanout<'_>,
    ) {
        let kept = fanout.message.qos.min(matched.qos) > QoS::AtMostOnce;
        let kept = kept && self.store.keeps_sessions();
        let session = self.sessions.kept(key).filter(|_| kept);
        let only = session.map(|session| (session, matched.clone()));
        self.store_gathered((None, &mut []), only.as_slice(), None, fanout);
    }

    fn store_gathered(
        &mut self,
        (way, alike): (Option<Way>, &mut [SessionNumber]),
        others: &[(SessionNumber, Matched)],
        retained: Option<Option<ItemId>>,
        fanout: &mut Fanout<'_>,
    ) {
        if !self.store.is_on() || fanout.message.expires_at < fanout.now {
            return;
        }
        fanout.set_stored(None);
        let message = &fanout.message;
        let groups = others.iter();
        let groups: Vec<String> = groups
            .map(|(_, matched)| self.group_text(matched.group))
            .collect();
        let mut others: Vec<Recipient<'_>> = others
            .iter()
            .zip(&groups)
            .map(|((session, matched), group)| Recipient {
                session: *session,
                copy: Copied {
                    qos: matched.qos.min(message.qos),
                    retain: message.retain && matched.retain_as_published,
                    identifiers: &matched.identifiers,
                    group,
                },
            })
            .collect();
        let copy = way.as_ref().map_or(Copied::PLAIN, |way| Copied {
            qos: way.qos,
            retain: way.retain,
            identifiers: way.identifiers(),
            group: "",
        });
        let added = self
            .store
            .add(message, (copy, alike), &mut others, retained);
        match added {
            Ok(item) => fanout.set_stored(item),
            Err(_) => fanout.refused = true,
        }
    }

    /// `$share/name/filter` of a group, nothing for none.
    fn group_text(&self, group: Option<crate::route::GroupKey>) -> String {
        let named = group.and_then(|group| self.routes.group_name(group));
        named.map_or_else(String::new, |(share, filter)| {
            [crate::topic::SHARE_PREFIX, share, "/", filter].concat()
        })
    }

    /// What the disk has done for the journal: see [`Journal`] for what it asks for, and when.
    pub fn journal(&mut self) -> Option<&mut Journal> {
        self.store.journal()
    }

    /// The journal, to look at.
    #[must_use]
    pub fn kept(&self) -> Option<&Journal> {
        self.store.get()
    }

    /// A write of the journal has ended; packets that waited for it may leave.
    pub fn committed(&mut self, write: Write, result: Result<(), Failure>, out: &mut Outbox) {
        if let Some(journal) = self.store.journal() {
            journal.completed(write, result);
            out.set_durable(journal.durable());
            if journal.failure().is_some() {
                out.set_stuck();
            }
            self.fetch_written();
        }
    }
}
