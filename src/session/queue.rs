//! The messages that wait for a client: one pointer while there are none, which is nearly always, and
//! a fleet has hundreds of thousands of sessions.

use std::collections::VecDeque;

use crate::wire::QoS;

use super::Delivery;

/// Messages that were not sent yet, oldest first.
#[derive(Debug, Default)]
pub struct Queue(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    /// Bytes of their messages.
    bytes: u64,
    /// How many of them are QoS 0.
    at_most_once: usize,
}

impl Queue {
    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |waiting| waiting.deliveries.len())
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of the messages that wait.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// How many messages of QoS 0 wait.
    #[must_use]
    pub fn at_most_once(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.at_most_once)
    }

    /// Appends a message.
    pub fn push(&mut self, delivery: Delivery) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += delivery.message.size() as u64;
        waiting.at_most_once += usize::from(delivery.qos == QoS::AtMostOnce);
        waiting.deliveries.push_back(delivery);
    }

    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<Delivery> {
        let waiting = self.0.as_mut()?;
        let delivery = waiting.deliveries.pop_front()?;
        waiting.bytes -= delivery.message.size() as u64;
        waiting.at_most_once -= usize::from(delivery.qos == QoS::AtMostOnce);
        if waiting.deliveries.is_empty() {
            self.0 = None;
        }
        Some(delivery)
    }

    /// Takes them all, the oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = Delivery> + use<> {
        self.0
            .take()
            .into_iter()
            .flat_map(|waiting| waiting.deliveries)
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
}
