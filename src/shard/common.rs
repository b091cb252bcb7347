//! Messages that wait for many sessions whose clients are away: in memory once, while each of the queues only
//! counts them.
//!
//! What a queue is to know of such a message, the journal's list of its session says: which it is, and when. So
//! one that comes for a hundred thousand sessions costs each of them one cache line of the session and half a
//! one in the journal. It becomes a delivery of its own when the client is there to take it ([`Shard::bring`]).

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::message::ItemId;
use crate::route::{Matches, Receiver, SessionKey};
use crate::session::Delivery;
use crate::wire::QoS;

use super::Shard;
use super::fanout::{Fanout, Way};

/// Receivers from which on a message is one for many.
const MANY: usize = 2;
/// Messages that a client gets to take at a time.
const BROUGHT: usize = 16;

/// Messages that are common to queues.
#[derive(Debug, Default)]
pub(super) struct Commons(HashMap<ItemId, Common, foldhash::fast::FixedState>);

#[derive(Debug)]
struct Common {
    delivery: Delivery,
    /// Queues that it is in.
    count: u32,
}

/// A message that is being left with many.
#[derive(Debug)]
pub(super) struct Many {
    item: ItemId,
    size: u64,
    /// Bytes that all queues may have in memory.
    budget: u64,
    /// How those get it who have it in common: as the first one does.
    way: Way,
    /// Whether it is there to be had in common, once somebody is to have it; kept until [`Commons::count`].
    held: Option<bool>,
    /// How many have it.
    count: u32,
}

impl Commons {
    /// One more queue is to have `delivery`; `false` if what others have as `item` is another one.
    fn hold(&mut self, item: ItemId, delivery: &Delivery) -> bool {
        let fresh = || Common {
            delivery: delivery.clone(),
            count: 0,
        };
        let common = self.0.entry(item).or_insert_with(fresh);
        let known = &common.delivery;
        let same = (known.qos, known.retain) == (delivery.qos, delivery.retain)
            && known.identifiers == delivery.identifiers;
        common.count += u32::from(same);
        same
    }

    /// One queue less has it; what it had.
    pub(super) fn release(&mut self, item: ItemId) -> Option<Delivery> {
        let common = self.0.get_mut(&item)?;
        common.count -= 1;
        match common.count {
            0 => self.0.remove(&item).map(|common| common.delivery),
            _ => Some(common.delivery.clone()),
        }
    }

    /// Counts those that a message was left with.
    pub(super) fn count(&mut self, many: Many) {
        if many.held == Some(true) {
            if let Some(common) = self.0.get_mut(&many.item) {
                common.count += many.count;
            }
            self.release(many.item); // what kept it until here
        }
    }
}

impl Many {
    /// `false` if somebody else has it already, in another way.
    #[inline]
    fn hold(&mut self, fanout: &mut Fanout<'_>, commons: &mut Commons) -> bool {
        let way = &self.way;
        *self.held.get_or_insert_with(|| {
            let delivery = Delivery {
                message: fanout.keep(),
                qos: way.qos,
                retain: way.retain,
                identifiers: way.identifiers().into(),
                group: None,
            };
            commons.hold(self.item, &delivery)
        })
    }
}

impl Shard {
    /// A message that is to be left with many, if it is one: the journal has it, and nobody need be asked who may
    /// have it.
    pub(super) fn many(&self, matches: &Matches, fanout: &Fanout<'_>) -> Option<Many> {
        let item = fanout.stored?;
        let usual = matches.local.len() >= MANY
            && fanout.message.qos > QoS::AtMostOnce
            && fanout.count() == 1
            && self.store.keeps_sessions()
            && !self.filters;
        if !usual {
            return None;
        }
        let mut receivers = matches.local.iter();
        let first = receivers.find(|receiver| receiver.qos > QoS::AtMostOnce)?;
        Some(Many {
            item,
            size: fanout.message.size() as u64,
            budget: self.queue_budget(),
            way: Way::of(first, &fanout.message),
            held: None,
            count: 0,
        })
    }

    /// Leaves a message in the queue of a session, if its client is away, and nothing else is to be thought of.
    pub(super) fn leave_with_many(
        &mut self,
        receiver: &Receiver,
        many: &mut Many,
        fanout: &mut Fanout<'_>,
    ) -> bool {
        let crowded = self.stats.queued_memory_bytes + many.size > many.budget;
        let Some(session) = self.sessions.get_mut(receiver.session) else {
            return false;
        };
        let queue = &mut session.queue;
        let fits = queue.len() < self.settings.max_queued_messages as usize
            && queue.bytes() + many.size <= self.settings.max_queued_bytes;
        let away = crowded || queue.count_away() > 0;
        if !fits
            || session.connection.is_some()
            || session.stored.is_none()
            || session.expiry_interval == 0
            || receiver.qos == QoS::AtMostOnce
            || receiver.no_local // its own are none of its messages, nor in its list
            || (fanout.message.retain && !session.replays.is_empty())
        {
            return false;
        }
        if away {
            if !queue.put_away(many.item, many.size) {
                return false;
            }
            self.stats.queued_on_disk += 1;
        } else {
            let way = Way::of(receiver, &fanout.message);
            if way != many.way || !many.hold(fanout, &mut self.commons) {
                return false;
            }
            if !queue.put_common(many.item, many.size) {
                return false;
            }
            many.count += 1;
            self.stats.queued_memory_bytes += many.size;
        }
        self.stats.queued += 1;
        self.stats.queued_bytes += many.size;
        true
    }

    /// Appends a message that waits for one session to those in the row that are common to many. `false` if it
    /// cannot stand there.
    pub(super) fn put_common(
        &mut self,
        key: SessionKey,
        item: ItemId,
        delivery: &Delivery,
    ) -> bool {
        if !self.commons.hold(item, delivery) {
            return false;
        }
        let size = delivery.message.size() as u64;
        let put = self.with_queue(key, |queue| queue.put_common(item, size));
        if put != Some(true) {
            self.commons.release(item);
        }
        put == Some(true)
    }

    /// Gives a client the next of those that its queue has in common with others; `false` if there is none.
    pub(super) fn bring(&mut self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        let count = session.map_or(0, |session| session.queue.count_common());
        if count == 0 {
            return false; // the usual case
        }
        let next = self.in_row(key).take(count.min(BROUGHT));
        let next: SmallVec<[ItemId; BROUGHT]> = next.collect();
        let mut brought = false;
        for item in next {
            let delivery = self.commons.release(item);
            debug_assert!(delivery.is_some(), "what a queue counts is there");
            if let Some(delivery) = delivery {
                self.with_queue(key, |queue| queue.come(item, delivery));
                brought = true;
            }
        }
        brought
    }

    /// A session ends, and with it its share of what it has in common with others.
    pub(super) fn forsake_commons(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        let count = session.map_or(0, |session| session.queue.count_common());
        if count > 0 {
            let named: Vec<ItemId> = self.in_row(key).take(count).collect();
            for item in named {
                self.commons.release(item);
            }
        }
    }
}

#[cfg(test)]
#[path = "common_tests.rs"]
mod tests;
