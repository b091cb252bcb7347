//! Everything that a journal says was appended and was ended, read in any order, and what is left.

use std::collections::{HashMap, HashSet};

use crate::chunks::Chunks;
use crate::wire::PacketId;

use super::codec::Malformed;
use super::frame::Header;
use super::index::{Index, Place};
use super::log::Found;
use super::reading::for_each_record;
use super::record::{MAX_ITEM, Record};
use super::restored::{
    Recovered, RestoredForward, RestoredSession, RestoredSubscription, RestoredWill,
};
use super::state::{Known, Session};
use super::types::{Exchange, ItemId, SessionNumber};

type Numbers = HashSet<u64, foldhash::fast::FixedState>;
type BySession<V> = HashMap<SessionNumber, V, foldhash::fast::FixedState>;
type Counts = HashMap<u64, u32, foldhash::fast::FixedState>;

/// What was appended and what was ended, in no order.
#[derive(Default)]
pub(super) struct Items {
    /// The next item.
    pub(super) next: u64,
    /// Items, where they stand, and whether they are messages that are retained if nothing ended that.
    appended: Vec<(ItemId, u64, u32, bool)>,
    removed: Numbers,
    ended_sessions: Numbers,
    /// By their first and their present record.
    sessions: Vec<(ItemId, ItemId, RestoredSession)>,
    subscriptions: Vec<(SessionNumber, RestoredSubscription)>,
    held: Vec<(SessionNumber, ItemId, PacketId)>,
    exchanges: Vec<(SessionNumber, ItemId, Exchange)>,
    wills: Vec<(SessionNumber, ItemId, RestoredWill)>,
    forwards: Vec<RestoredForward>,
    origins: Vec<(ItemId, u32, ItemId)>,
    /// For each session number, messages that were appended and that were acknowledged.
    waiting: BySession<(Vec<ItemId>, Vec<ItemId>)>,
}

impl Items {
    /// Takes in the records of a frame; how many items they begin.
    pub(super) fn read(
        &mut self,
        header: &Header,
        records: &[u8],
        segment: u64,
        offset: usize,
    ) -> Result<u32, Malformed> {
        if header.base.0 >= MAX_ITEM {
            return Err(Malformed);
        }
        let before = self.appended.len();
        self.next = self.next.max(header.base.0);
        for_each_record(header, records, |at, record| {
            self.record(record, segment, (offset + at) as u32);
            Ok(())
        })?;
        Ok((self.appended.len() - before) as u32)
    }

    /// Takes in a record that stands there.
    pub(super) fn record(&mut self, record: Record<'_>, segment: u64, offset: u32) {
        if let Some((id, replaces)) = record.begins() {
            let retained = matches!(record, Record::Message { retained: true, .. });
            self.next = self.next.max(id.0 + 1);
            self.appended.push((id, segment, offset, retained));
            self.removed.extend(replaces.map(|old| old.0));
        }
        match record {
            Record::Session {
                id,
                session,
                begun,
                details,
                ..
            } => {
                let details = RestoredSession::new(session, &details);
                self.sessions.push((begun, id, details));
            }
            Record::SessionRemoved { begun, .. } => {
                self.ended_sessions.insert(begun.0);
            }
            Record::Subscription {
                id,
                session,
                details,
                ..
            } => {
                let subscription = RestoredSubscription::new(id, &details);
                self.subscriptions.push((session, subscription));
            }
            Record::Message { id, receivers, .. } => {
                receivers.for_each(|recipient| self.waiting(recipient.session).0.push(id));
            }
            Record::Acknowledged { session, message } => self.waiting(session).1.push(message),
            Record::Held {
                id,
                session,
                packet_id,
            } => self.held.push((session, id, packet_id)),
            Record::Sent {
                id,
                session,
                message,
                packet_id,
            } => {
                let exchange = exchange(message, packet_id, false);
                self.exchanges.push((session, id, exchange));
            }
            Record::Received {
                id,
                session,
                message,
                packet_id,
                ..
            } => {
                self.waiting(session).1.push(message);
                let exchange = exchange(message, packet_id, true);
                self.exchanges.push((session, id, exchange));
            }
            Record::Will {
                id,
                session,
                details,
                ..
            } => self.wills.push((session, id, RestoredWill::from(&details))),
            Record::Forward { id, details } => {
                self.forwards.push(RestoredForward::new(id, &details));
            }
            Record::Origin {
                id, lane, forward, ..
            } => self.origins.push((id, lane, forward)),
            Record::Removed { id } => {
                self.removed.insert(id.0);
            }
        }
    }

    /// How many of these numbers items have that were read.
    pub(super) fn begun_between(&self, from: u64, to: u64) -> u64 {
        let numbers = self.appended.iter().map(|(id, ..)| id.0);
        let there: Numbers = numbers.filter(|id| (from..to).contains(id)).collect();
        there.len() as u64
    }

    /// What is younger comes later, and so goes over what is older. In a journal that lacks nothing no two
    /// of these live that contradict each other.
    pub(super) fn order(&mut self) {
        self.sessions
            .sort_unstable_by_key(|(begun, id, _)| (*begun, *id));
        self.held.sort_unstable_by_key(|(_, id, _)| *id);
        self.exchanges.sort_unstable_by_key(|(_, id, _)| *id);
        self.wills.sort_unstable_by_key(|(_, id, _)| *id);
    }

    fn waiting(&mut self, session: SessionNumber) -> &mut (Vec<ItemId>, Vec<ItemId>) {
        self.waiting.entry(session).or_default()
    }

    /// Appended minus ended: fills `index` and counts what lives in `found`.
    pub(super) fn settle(
        mut self,
        index: &mut Index,
        found: &mut Found,
    ) -> (Chunks<Known>, Recovered) {
        let mut settled = Settled {
            removed: std::mem::take(&mut self.removed),
            ..Settled::default()
        };
        for (begun, id, restored) in std::mem::take(&mut self.sessions) {
            if !settled.removed.contains(&id.0) && !self.ended_sessions.contains(&begun.0) {
                settled.add_session(begun, id, restored);
            }
        }
        self.settle_owned(&mut settled);
        for (number, (appended, acknowledged)) in std::mem::take(&mut self.waiting) {
            let Some((session, restored)) = settled.sessions.get_mut(&number) else {
                continue;
            };
            restored.messages = subtract(appended, acknowledged, session.begun);
            for message in &restored.messages {
                *settled.counts.entry(message.0).or_insert(0) += 1;
            }
        }
        settled.end_exchanges();
        self.forwards.retain(|forward| settled.lives(forward.id));
        self.forwards.sort_unstable_by_key(|forward| forward.id);
        self.origins.retain(|&(id, ..)| settled.lives(id));
        let retained = self.place(&settled, index, found);
        let mut sorted: Vec<_> = settled.sessions.into_iter().collect();
        sorted.sort_unstable_by_key(|(number, _)| *number);
        let mut sessions = Chunks::<Known>::default();
        let mut recovered = Recovered {
            retained,
            forwards: self.forwards,
            origins: self.origins,
            ..Recovered::default()
        };
        for (number, (session, restored)) in sorted {
            let messages = restored.messages.iter().copied().collect();
            let session = Some(session);
            *sessions.get_or_grow(number.0 as usize) = Known { messages, session };
            recovered.sessions.push(restored);
        }
        (sessions, recovered)
    }

    /// Puts what lives into the index. Returns the messages that are retained.
    fn place(&mut self, settled: &Settled, index: &mut Index, found: &mut Found) -> Vec<ItemId> {
        // Of two places of an item the later one: the other is where it was moved from.
        self.appended.sort_unstable();
        let mut retained = Vec::new();
        let mut appended = self.appended.iter().peekable();
        let mut is_retained = false;
        while let Some(&(id, segment, offset, keeps)) = appended.next() {
            is_retained |= keeps && !settled.removed.contains(&id.0);
            if appended.peek().is_some_and(|next| next.0 == id) {
                continue;
            }
            let count = settled.counts.get(&id.0).copied().unwrap_or(0) + u32::from(is_retained);
            if count > 0 {
                index.insert(id, Place::new(segment, offset as usize), count);
                found.segments[(segment - found.first) as usize].live += 1;
            }
            if std::mem::take(&mut is_retained) {
                retained.push(id);
            }
        }
        retained
    }

    /// Subscriptions, held identifiers, exchanges and wills of the sessions that live.
    fn settle_owned(&mut self, settled: &mut Settled) {
        self.subscriptions
            .sort_unstable_by_key(|(_, subscription)| subscription.id);
        for (number, subscription) in std::mem::take(&mut self.subscriptions) {
            if let Some((session, restored)) = settled.owner(number, subscription.id) {
                session.subscriptions.push(subscription.id);
                restored.subscriptions.push(subscription);
            }
        }
        for (number, id, packet_id) in std::mem::take(&mut self.held) {
            if let Some((session, restored)) = settled.owner(number, id) {
                session.held.push((packet_id, id));
                restored.held.push(packet_id);
            }
        }
        for (number, id, exchange) in std::mem::take(&mut self.exchanges) {
            if let Some((session, restored)) = settled.owner(number, id) {
                session.exchanges.push((exchange.packet_id, exchange, id));
                restored.exchanges.push(exchange);
            }
        }
        for (number, id, will) in std::mem::take(&mut self.wills) {
            if let Some((session, restored)) = settled.owner(number, id) {
                session.will = Some(id);
                restored.will = Some(will);
            }
        }
        for (session, restored) in settled.sessions.values_mut() {
            session.held.sort_unstable();
            session
                .exchanges
                .sort_unstable_by_key(|&(packet_id, ..)| packet_id);
            restored.held.sort_unstable();
            restored.exchanges.sort_unstable();
        }
    }
}

fn exchange(message: ItemId, packet_id: PacketId, received: bool) -> Exchange {
    Exchange {
        message,
        packet_id,
        received,
    }
}

/// What lives.
#[derive(Default)]
struct Settled {
    removed: Numbers,
    sessions: BySession<(Box<Session>, RestoredSession)>,
    /// How many want an item, retention apart.
    counts: Counts,
}

impl Settled {
    fn add_session(&mut self, begun: ItemId, id: ItemId, restored: RestoredSession) {
        let session = Box::new(Session::new(begun, id));
        self.sessions.insert(restored.session, (session, restored));
        self.counts.insert(id.0, 1);
    }

    /// An exchange that PUBREC has not come for ends with its message.
    fn end_exchanges(&mut self) {
        let counts = &mut self.counts;
        for (session, restored) in self.sessions.values_mut() {
            let messages = &restored.messages;
            let goes_on = |exchange: &Exchange| {
                exchange.received || messages.binary_search(&exchange.message).is_ok()
            };
            session.exchanges.retain(|(_, exchange, item)| {
                let stays = goes_on(exchange);
                if !stays {
                    counts.remove(&item.0);
                }
                stays
            });
            restored.exchanges.retain(goes_on);
        }
    }

    /// Whether an item lives that belongs to nobody. Asked for again, `false`, as below.
    fn lives(&mut self, id: ItemId) -> bool {
        !self.removed.contains(&id.0) && self.counts.insert(id.0, 1).is_none()
    }

    /// The session that has `id`, if both live. Asked for again, `None`: what was being moved was read
    /// twice.
    fn owner(
        &mut self,
        number: SessionNumber,
        id: ItemId,
    ) -> Option<(&mut Session, &mut RestoredSession)> {
        let (session, restored) = self.sessions.get_mut(&number)?;
        let lives = id > session.begun && !self.removed.contains(&id.0);
        (lives && self.counts.insert(id.0, 1).is_none()).then_some((&mut **session, restored))
    }
}

/// What was appended for a session since it began and not acknowledged, in order and each once.
fn subtract(
    mut appended: Vec<ItemId>,
    mut acknowledged: Vec<ItemId>,
    begun: ItemId,
) -> Vec<ItemId> {
    appended.sort_unstable();
    appended.dedup();
    acknowledged.sort_unstable();
    let mut acknowledged = acknowledged.into_iter().peekable();
    appended.retain(|&message| {
        while acknowledged.next_if(|&done| done < message).is_some() {}
        message > begun && acknowledged.peek() != Some(&message)
    });
    appended
}
