//! The messages that wait for a client: one pointer while there are none, which is nearly always, and
//! a fleet has hundreds of thousands of sessions.
//!
//! Where memory for them is used up, those in the middle are away: in the journal alone, found by the
//! numbers of their items. In front of them stands what was read back or came before; behind them what
//! came later and is in no journal, or must not wait for a disk when its session ends.

use std::collections::VecDeque;

use crate::message::ItemId;
use crate::wire::QoS;

use super::Delivery;

/// Messages that were not sent yet, oldest first.
#[derive(Debug, Default)]
pub struct Queue(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    front: VecDeque<Delivery>,
    away: Option<Away>,
    behind: VecDeque<Delivery>,
    /// Bytes of the messages in memory.
    bytes: u64,
    /// How many of them are QoS 0.
    at_most_once: usize,
}

/// Messages that are in the journal alone.
#[derive(Debug)]
struct Away {
    /// They came after this item, up to `last`.
    after: ItemId,
    last: ItemId,
    count: usize,
    /// Bytes of them all, those that were taken counted as the average of those that there were.
    bytes: u64,
    /// Whether the next ones were asked for.
    asked: bool,
}

impl Queue {
    /// `count` messages with so many bytes are in the journal alone, after one item up to another. What is
    /// here came before them.
    pub fn leave_away(&mut self, after: ItemId, last: ItemId, count: usize, bytes: u64) {
        if count > 0 {
            self.0.get_or_insert_default().away = Some(Away {
                after,
                last,
                count,
                bytes,
                asked: false,
            });
        }
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| {
            waiting.front.len() + waiting.behind.len() + waiting.count_away()
        })
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of the messages that wait.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let away = self.0.as_ref().and_then(|waiting| waiting.away.as_ref());
        self.bytes_here() + away.map_or(0, |away| away.bytes)
    }

    /// Bytes of those in memory.
    #[must_use]
    pub fn bytes_here(&self) -> u64 {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// How many messages can be taken before one that is away.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.front.len())
    }

    /// How many are in the journal alone.
    #[must_use]
    pub fn count_away(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.count_away())
    }

    /// How many messages of QoS 0 wait.
    #[must_use]
    pub fn at_most_once(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.at_most_once)
    }

    /// Appends a message.
    pub fn push(&mut self, delivery: Delivery) {
        let waiting = self.0.get_or_insert_default();
        waiting.add(&delivery);
        match waiting.away {
            None => waiting.front.push_back(delivery),
            Some(_) => waiting.behind.push_back(delivery),
        }
    }

    /// Appends a message that is in the journal as `item`, without keeping it here. `false` if what came
    /// before it is here behind others that are away: it must be, too.
    pub fn put_away(&mut self, item: ItemId, bytes: u64) -> bool {
        let waiting = self.0.get_or_insert_default();
        if !waiting.behind.is_empty() {
            return false;
        }
        let away = waiting.away.get_or_insert_with(|| Away {
            after: item.before(),
            last: item,
            count: 0,
            bytes: 0,
            asked: false,
        });
        away.last = item;
        away.count += 1;
        away.bytes += bytes;
        true
    }

    /// Where the next ones that are away are to be asked for: after one item, up to another. Only once,
    /// until [`Queue::answered`].
    pub fn ask(&mut self) -> Option<(ItemId, ItemId)> {
        let away = self.0.as_mut()?.away.as_mut()?;
        (!std::mem::replace(&mut away.asked, true)).then_some((away.after, away.last))
    }

    /// What was asked for has come, or never will.
    pub fn answered(&mut self) {
        let away = self.0.as_mut().and_then(|waiting| waiting.away.as_mut());
        if let Some(away) = away {
            away.asked = false;
        }
    }

    /// The next one that was away is here. Nothing if it was dropped meanwhile.
    pub fn come(&mut self, item: ItemId, delivery: Delivery) {
        if let Some(waiting) = &mut self.0
            && waiting.pass(item)
        {
            waiting.add(&delivery);
            waiting.front.push_back(delivery);
            waiting.settle();
        }
    }

    /// The next one that is away is dropped.
    pub fn lose(&mut self, item: ItemId) {
        if let Some(waiting) = &mut self.0 {
            waiting.pass(item);
            waiting.settle();
            self.free();
        }
    }

    /// The next one in the journal is none of those that are away: it is here, behind them.
    pub fn skip(&mut self, item: ItemId) {
        let away = self.0.as_mut().and_then(|waiting| waiting.away.as_mut());
        if let Some(away) = away {
            away.after = away.after.max(item);
        }
    }

    /// Whether that message of a group is here, behind those that are away.
    #[must_use]
    pub fn is_behind(&self, item: ItemId) -> bool {
        let behind = self.0.as_ref().map(|waiting| waiting.behind.iter());
        behind.is_some_and(|mut behind| {
            behind
                .any(|delivery| delivery.group.is_some() && delivery.message.stored() == Some(item))
        })
    }

    /// After which item the next one is that is away.
    #[must_use]
    pub fn away_after(&self) -> Option<ItemId> {
        Some(self.0.as_ref()?.away.as_ref()?.after)
    }

    /// Takes the oldest message, if it is here.
    pub fn pop(&mut self) -> Option<Delivery> {
        let waiting = self.0.as_mut()?;
        let delivery = waiting.front.pop_front()?;
        waiting.bytes -= delivery.message.size() as u64;
        waiting.at_most_once -= usize::from(delivery.qos == QoS::AtMostOnce);
        self.free();
        Some(delivery)
    }

    /// Takes them all that are here, the oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = Delivery> + use<> {
        self.0
            .take()
            .into_iter()
            .flat_map(|waiting| waiting.front.into_iter().chain(waiting.behind))
    }

    fn free(&mut self) {
        if self
            .0
            .as_ref()
            .is_some_and(|waiting| waiting.front.is_empty() && waiting.away.is_none())
        {
            self.0 = None; // and nothing is behind: see `settle`
        }
    }
}

impl Waiting {
    fn count_away(&self) -> usize {
        self.away.as_ref().map_or(0, |away| away.count)
    }

    fn add(&mut self, delivery: &Delivery) {
        self.bytes += delivery.message.size() as u64;
        self.at_most_once += usize::from(delivery.qos == QoS::AtMostOnce);
    }

    /// One of those that are away is not any more, if it still was.
    fn pass(&mut self, item: ItemId) -> bool {
        let Some(away) = self.away.as_mut().filter(|away| item > away.after) else {
            return false;
        };
        away.after = item;
        away.bytes -= away.bytes / away.count as u64;
        away.count -= 1;
        true
    }

    /// Where none is away, nothing is behind.
    fn settle(&mut self) {
        if self.count_away() == 0 {
            self.away = None;
            self.front.append(&mut self.behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::delivery;

    #[test]
    fn a_queue_knows_its_bytes_and_holds_no_memory_when_it_is_empty() {
        let mut queue = Queue::default();
        queue.push(delivery(QoS::AtLeastOnce));
        queue.push(delivery(QoS::AtMostOnce));
        assert_eq!(
            (queue.len(), queue.bytes(), queue.at_most_once()),
            (2, 4, 1)
        );
        assert_eq!(queue.pop().unwrap().qos, QoS::AtLeastOnce);
        assert_eq!(
            (queue.len(), queue.bytes(), queue.at_most_once()),
            (1, 2, 1)
        );
        assert_eq!(queue.pop().unwrap().qos, QoS::AtMostOnce);
        assert!(queue.0.is_none());
        assert!(queue.pop().is_none());
        queue.push(delivery(QoS::ExactlyOnce));
        assert_eq!(queue.take().count(), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_away_stands_between_what_came_before_and_what_came_later() {
        let mut queue = Queue::default();
        queue.push(delivery(QoS::ExactlyOnce));
        assert!(queue.put_away(ItemId(7), 10));
        assert!(queue.put_away(ItemId(9), 30));
        queue.push(delivery(QoS::AtMostOnce));
        assert!(!queue.put_away(ItemId(11), 10), "it would overtake");
        assert_eq!((queue.len(), queue.bytes(), queue.bytes_here()), (4, 44, 4));
        assert_eq!(queue.pop().unwrap().qos, QoS::ExactlyOnce);
        assert!(queue.pop().is_none(), "the next one is away");
        assert_eq!(queue.ask(), Some((ItemId(6), ItemId(9))));
        assert_eq!(queue.ask(), None, "only once");
        queue.lose(ItemId(7));
        queue.come(ItemId(7), delivery(QoS::AtLeastOnce)); // dropped meanwhile
        assert_eq!((queue.ready(), queue.count_away()), (0, 1));
        queue.answered();
        assert_eq!(queue.ask(), Some((ItemId(7), ItemId(9))));
        queue.come(ItemId(9), delivery(QoS::AtLeastOnce));
        assert_eq!((queue.len(), queue.bytes()), (2, 4));
        assert_eq!(queue.pop().unwrap().qos, QoS::AtLeastOnce);
        assert_eq!(queue.pop().unwrap().qos, QoS::AtMostOnce);
        assert!(queue.0.is_none());
    }

    #[test]
    fn losing_all_that_is_away_leaves_what_is_behind() {
        let mut queue = Queue::default();
        queue.leave_away(ItemId(3), ItemId(8), 2, 20);
        queue.push(delivery(QoS::AtMostOnce));
        queue.lose(ItemId(4));
        queue.skip(ItemId(5));
        assert_eq!(queue.away_after(), Some(ItemId(5)));
        queue.lose(ItemId(8));
        assert_eq!((queue.len(), queue.bytes(), queue.ready()), (1, 2, 1));
        let mut queue = Queue::default();
        queue.leave_away(ItemId(3), ItemId(8), 1, 20);
        queue.lose(ItemId(8));
        assert!(queue.is_empty() && queue.bytes() == 0);
        queue.leave_away(ItemId(3), ItemId(8), 0, 0);
        assert!(queue.is_empty());
    }
}
