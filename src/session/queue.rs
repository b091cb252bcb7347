//! The messages that wait for a client: half a cache line, which is all there is while none waits, and all
//! that a message for many touches; a fleet has hundreds of thousands of sessions.
//!
//! In the middle may stand a row of messages of which only is known how many they are: the journal's list of
//! the session says which. First those that are common to many sessions, and are in memory once for all of them;
//! then, where memory is used up, those that are away, on disk alone. In front of them stands what was
//! taken from there or came before; behind them what came later and is in no journal, or must not wait for a
//! disk when its session ends.

use std::collections::VecDeque;

use crate::message::ItemId;
use crate::wire::QoS;

use super::Delivery;

/// Messages that were not sent yet, oldest first.
#[derive(Debug, Default)]
pub struct Queue {
    row: Row,
    /// There if anything is in it, and not only an empty list.
    rest: Option<Box<Rest>>,
}

const _: () = assert!(size_of::<Queue>() == 32);

/// Messages that the journal's list names.
#[derive(Debug, Default)]
struct Row {
    /// They came after this item.
    after: ItemId,
    /// Bytes of them all; where they are away, those that were taken counted as the average of those that
    /// there were.
    bytes: u64,
    count: u32,
    /// Whether they are on disk alone.
    away: bool,
    /// Whether the next ones were asked for.
    asked: bool,
}

#[derive(Debug, Default)]
struct Rest {
    front: VecDeque<Delivery>,
    /// Those that are away, while the row of the queue is of common ones.
    away: Row,
    behind: VecDeque<Delivery>,
    /// Bytes of the messages in front and behind.
    bytes: u64,
    /// How many of them are QoS 0.
    at_most_once: usize,
}

impl Queue {
    /// `count` messages with so many bytes are in the journal alone, after one item. What is here came before
    /// them.
    pub fn leave_away(&mut self, after: ItemId, count: usize, bytes: u64) {
        self.row = Row {
            after,
            bytes,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            away: true,
            asked: false,
        };
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        let rest = self.rest.as_deref();
        self.row.count as usize + rest.map_or(0, Rest::len)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row.count == 0 && self.rest.is_none()
    }

    /// Bytes of the messages that wait.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let rest = self.rest.as_deref();
        self.row.bytes + rest.map_or(0, |rest| rest.bytes + rest.away.bytes)
    }

    /// Bytes of those in memory.
    #[must_use]
    pub fn bytes_here(&self) -> u64 {
        let common = if self.row.away { 0 } else { self.row.bytes };
        common + self.rest.as_deref().map_or(0, |rest| rest.bytes)
    }

    /// How many messages can be taken before one of those that the journal names.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.rest.as_deref().map_or(0, |rest| rest.front.len())
    }

    /// How many are in the journal alone.
    #[must_use]
    pub fn count_away(&self) -> usize {
        match (&self.rest, self.row.away) {
            (_, true) => self.row.count as usize,
            (Some(rest), false) => rest.away.count as usize,
            (None, false) => 0,
        }
    }

    /// How many are common to many sessions.
    #[must_use]
    pub fn count_common(&self) -> usize {
        if self.row.away {
            0
        } else {
            self.row.count as usize
        }
    }

    /// How many messages of QoS 0 wait.
    #[must_use]
    pub fn at_most_once(&self) -> usize {
        self.rest.as_deref().map_or(0, |rest| rest.at_most_once)
    }

    /// Appends a message.
    pub fn push(&mut self, delivery: Delivery) {
        let rest = self.rest.get_or_insert_default();
        rest.add(&delivery);
        match self.row.count {
            0 => rest.front.push_back(delivery),
            _ => rest.behind.push_back(delivery),
        }
    }

    /// Appends a message that is in the journal as `item` and in memory for many. `false` if what came before
    /// it is away, or here behind others: it must be, too.
    pub fn put_common(&mut self, item: ItemId, bytes: u64) -> bool {
        if let Some(rest) = &self.rest
            && !(rest.behind.is_empty() && rest.away.count == 0)
        {
            return false;
        }
        if self.row.count == 0 {
            self.row = Row::behind(item, false);
        } else if self.row.away {
            return false;
        }
        self.row.add(bytes);
        true
    }

    /// Appends a message that is in the journal as `item`, without keeping it here. `false` if what came
    /// before it is here behind others that are away: it must be, too.
    pub fn put_away(&mut self, item: ItemId, bytes: u64) -> bool {
        let rest = self.rest.as_deref();
        if rest.is_some_and(|rest| !rest.behind.is_empty()) {
            return false;
        }
        let row = match self.row.count {
            0 => &mut self.row,
            _ if self.row.away => &mut self.row,
            _ => &mut self.rest.get_or_insert_default().away,
        };
        if row.count == 0 {
            *row = Row::behind(item, true);
        }
        row.add(bytes);
        true
    }

    /// Where the next ones that are away are to be asked for: after one item, and how many there are. Only
    /// once, until [`Queue::answered`].
    pub fn ask(&mut self) -> Option<(ItemId, usize)> {
        let row = &mut self.row;
        let asks = row.away && row.count > 0 && !std::mem::replace(&mut row.asked, true);
        asks.then_some((row.after, row.count as usize))
    }

    /// What was asked for has come, or never will.
    pub fn answered(&mut self) {
        self.row.asked = false;
    }

    /// The next one that the journal names is here. Nothing if it was dropped meanwhile.
    pub fn come(&mut self, item: ItemId, delivery: Delivery) {
        if self.row.pass(item, delivery.message.size()) {
            let rest = self.rest.get_or_insert_default();
            rest.add(&delivery);
            rest.front.push_back(delivery);
            self.settle();
        }
    }

    /// The next one that the journal names is dropped, of so many bytes if they are known: common ones have to
    /// be.
    pub fn lose(&mut self, item: ItemId, bytes: usize) {
        self.row.pass(item, bytes);
        self.settle();
    }

    /// The next one in the journal is none of the row: it is here, behind it.
    pub fn skip(&mut self, item: ItemId) {
        self.row.after = self.row.after.max(item);
    }

    /// Whether that message of a group is here, behind those that the journal names.
    #[must_use]
    pub fn is_behind(&self, item: ItemId) -> bool {
        let behind = self.rest.iter().flat_map(|rest| &rest.behind);
        let mut groups = behind.filter(|delivery| delivery.group.is_some());
        groups.any(|delivery| delivery.message.stored() == Some(item))
    }

    /// After which item the next one is that the journal names, if one is.
    #[must_use]
    pub fn row_after(&self) -> Option<ItemId> {
        (self.row.count > 0).then_some(self.row.after)
    }

    /// Takes the oldest message, if it is here.
    pub fn pop(&mut self) -> Option<Delivery> {
        let rest = self.rest.as_mut()?;
        let delivery = rest.front.pop_front()?;
        rest.bytes -= delivery.message.size() as u64;
        rest.at_most_once -= usize::from(delivery.qos == QoS::AtMostOnce);
        if rest.len() == 0 {
            self.rest = None;
        }
        Some(delivery)
    }

    /// Takes them all that are here, the oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = Delivery> + use<> {
        let rest = std::mem::take(self).rest;
        rest.into_iter()
            .flat_map(|rest| rest.front.into_iter().chain(rest.behind))
    }

    /// Where a row has ended, what stood behind it moves up.
    fn settle(&mut self) {
        let Some(rest) = self.rest.as_mut() else {
            return;
        };
        if self.row.count == 0 {
            self.row = std::mem::take(&mut rest.away);
        }
        if self.row.count == 0 {
            rest.front.append(&mut rest.behind);
        }
        if rest.len() == 0 {
            self.rest = None;
        }
    }
}

impl Row {
    /// Empty, for `item` to come.
    fn behind(item: ItemId, away: bool) -> Self {
        Self {
            after: item.before(),
            away,
            ..Self::default()
        }
    }

    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    /// One of them is not there any more, if it still was.
    fn pass(&mut self, item: ItemId, bytes: usize) -> bool {
        if self.count == 0 || item <= self.after {
            return false;
        }
        self.after = item;
        self.bytes -= match self.away {
            true => self.bytes / u64::from(self.count),
            false => bytes as u64,
        };
        self.count -= 1;
        true
    }
}

impl Rest {
    fn len(&self) -> usize {
        self.front.len() + self.behind.len() + self.away.count as usize
    }

    fn add(&mut self, delivery: &Delivery) {
        self.bytes += delivery.message.size() as u64;
        self.at_most_once += usize::from(delivery.qos == QoS::AtMostOnce);
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
        assert!(queue.is_empty() && queue.rest.is_none());
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
        assert_eq!(queue.ask(), Some((ItemId(6), 2)));
        assert_eq!(queue.ask(), None, "only once");
        queue.lose(ItemId(7), 0);
        queue.come(ItemId(7), delivery(QoS::AtLeastOnce)); // dropped meanwhile
        assert_eq!((queue.ready(), queue.count_away()), (0, 1));
        queue.answered();
        assert_eq!(queue.ask(), Some((ItemId(7), 1)));
        queue.come(ItemId(9), delivery(QoS::AtLeastOnce));
        assert_eq!((queue.len(), queue.bytes()), (2, 4));
        assert_eq!(queue.pop().unwrap().qos, QoS::AtLeastOnce);
        assert_eq!(queue.pop().unwrap().qos, QoS::AtMostOnce);
        assert!(queue.is_empty() && queue.rest.is_none());
    }

    #[test]
    fn losing_all_that_is_away_leaves_what_is_behind() {
        let mut queue = Queue::default();
        queue.leave_away(ItemId(3), 2, 20);
        queue.push(delivery(QoS::AtMostOnce));
        queue.lose(ItemId(4), 0);
        queue.skip(ItemId(5));
        assert_eq!(queue.row_after(), Some(ItemId(5)));
        queue.lose(ItemId(8), 0);
        assert_eq!((queue.len(), queue.bytes(), queue.ready()), (1, 2, 1));
        let mut queue = Queue::default();
        queue.leave_away(ItemId(3), 1, 20);
        queue.lose(ItemId(8), 0);
        assert!(queue.is_empty() && queue.bytes() == 0);
        queue.leave_away(ItemId(3), 0, 0);
        assert!(queue.is_empty());
    }

    #[test]
    fn common_ones_stand_before_those_that_are_away() {
        let mut queue = Queue::default();
        queue.push(delivery(QoS::AtLeastOnce));
        assert!(queue.put_common(ItemId(5), 2));
        assert!(queue.put_common(ItemId(6), 2));
        assert_eq!((queue.count_common(), queue.bytes_here()), (2, 6));
        assert!(queue.put_away(ItemId(8), 10));
        assert!(!queue.put_common(ItemId(9), 2), "it would overtake");
        queue.push(delivery(QoS::AtMostOnce));
        assert!(!queue.put_common(ItemId(9), 2) && !queue.put_away(ItemId(9), 2));
        assert_eq!((queue.len(), queue.bytes()), (5, 18));
        assert_eq!((queue.bytes_here(), queue.count_away()), (8, 1));
        assert_eq!(queue.ask(), None, "they are here");
        assert_eq!((queue.ready(), queue.row_after()), (1, Some(ItemId(4))));
        queue.come(ItemId(5), delivery(QoS::AtLeastOnce));
        queue.lose(ItemId(6), 2);
        assert_eq!((queue.ready(), queue.count_common()), (2, 0));
        assert_eq!(queue.ask(), Some((ItemId(7), 1)));
        queue.come(ItemId(8), delivery(QoS::ExactlyOnce));
        assert_eq!((queue.len(), queue.bytes(), queue.bytes_here()), (4, 8, 8));
        for qos in [1, 1, 2, 0] {
            assert_eq!(queue.pop().map(|delivery| delivery.qos as u8), Some(qos));
        }
        assert!(queue.is_empty());
        assert!(queue.put_common(ItemId(10), 2));
        queue.lose(ItemId(10), 2);
        assert!(queue.is_empty() && queue.bytes() == 0 && queue.rest.is_none());
    }
}
