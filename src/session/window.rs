//! The QoS 1 and 2 messages that were sent to one client and are not acknowledged.
//!
//! Packet identifiers are handed out in a row, so the identifier is the position: slot `i` has the
//! identifier `first + i` on the circle 1..=65,535, and finding the slot of an acknowledgement takes
//! no search, however hostile the order of the acknowledgements. A slot that is done stays until all
//! slots before it are done. So a new identifier never meets one that is in use, and a client that
//! leaves one message unacknowledged for 65,535 further ones gets no more of them.
//!
//! Invariants: the first slot is not done; slots before `cursor` were sent on the present connection,
//! those from it on wait to be sent again, and the cursor never stands on a slot that is done; `unacknowledged` counts the slots that are not done.

use std::collections::VecDeque;

use crate::wire::{PacketId, QoS};

use super::Delivery;

/// Identifiers on the circle.
const IDENTIFIERS: usize = 65_535;

/// One message on its way.
#[derive(Debug)]
pub enum Slot {
    /// Sent, and neither PUBACK nor PUBREC came [MQTT-4.3.3-3].
    Published(Delivery),
    /// PUBREC came [MQTT-4.3.3-4]: only PUBREL may be sent from here on, until PUBCOMP comes
    /// [MQTT-4.3.3-5].
    Released,
    /// Acknowledged; waits for the slots before it.
    Done,
}

/// What an acknowledgement did.
#[derive(Debug)]
pub enum Acknowledged {
    /// The exchange is over; the message, where it was still kept.
    Completed(Option<Delivery>),
    /// QoS 2: PUBREL is to be sent.
    Release,
    /// No message has this identifier in that state.
    Unknown,
}

/// The window.
#[derive(Debug)]
pub struct Window {
    slots: VecDeque<Slot>,
    first: u16,
    unacknowledged: u16,
    cursor: u16,
    /// Slots before the cursor that are not done.
    in_flight: u16,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 1,
            unacknowledged: 0,
            cursor: 0,
            in_flight: 0,
        }
    }
}

impl Window {
    /// Whether nothing waits for an acknowledgement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unacknowledged == 0
    }

    /// Messages that are not acknowledged.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.unacknowledged)
    }

    /// Messages sent on the present connection and not acknowledged: what a Receive Maximum bounds.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether a new message may be sent: everything old was sent again, and an identifier is free.
    #[must_use]
    pub fn takes_new(&self) -> bool {
        usize::from(self.cursor) == self.slots.len() && self.slots.len() < IDENTIFIERS
    }

    /// Notes that `delivery` is sent now and gives it its identifier. The caller has asked
    /// [`Window::takes_new`].
    pub fn send(&mut self, delivery: Delivery) -> PacketId {
        assert!(
            self.takes_new(),
            "a window takes nothing new before the old was sent again"
        );
        let identifier = self.identifier(self.slots.len());
        self.slots.push_back(Slot::Published(delivery));
        self.unacknowledged += 1;
        self.cursor += 1;
        self.in_flight += 1;
        identifier
    }

    /// A connection came or went: everything that is not done is to be sent again.
    pub fn rewind(&mut self) {
        self.cursor = 0; // the first slot is never done
        self.in_flight = 0;
    }

    /// The next slot that is to be sent again, with its identifier. It counts as sent from here on.
    pub fn resend(&mut self) -> Option<(PacketId, &mut Slot)> {
        let position = usize::from(self.cursor);
        if position >= self.slots.len() {
            return None;
        }
        self.cursor += 1;
        self.in_flight += 1;
        self.skip_done();
        Some((self.identifier(position), &mut self.slots[position]))
    }

    /// The cursor stands on something to be sent, or at the end.
    fn skip_done(&mut self) {
        while let Some(Slot::Done) = self.slots.get(usize::from(self.cursor)) {
            self.cursor += 1;
        }
    }

    /// Whether something is left to be sent again.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        usize::from(self.cursor) < self.slots.len()
    }

    /// PUBACK, or PUBREC with an error: the exchange of a message of QoS `qos` is over.
    pub fn finish(&mut self, identifier: PacketId, qos: QoS) -> Acknowledged {
        let Some(position) = self.position(identifier) else {
            return Acknowledged::Unknown;
        };
        match &self.slots[position] {
            Slot::Published(delivery) if delivery.qos == qos => {}
            _ => return Acknowledged::Unknown,
        }
        Acknowledged::Completed(self.done(position))
    }

    /// PUBREC: the client owns the message now [MQTT-4.3.3-4].
    pub fn receive(&mut self, identifier: PacketId) -> Acknowledged {
        let Some(position) = self.position(identifier) else {
            return Acknowledged::Unknown;
        };
        match &self.slots[position] {
            Slot::Published(delivery) if delivery.qos == QoS::ExactlyOnce => {
                self.slots[position] = Slot::Released;
                Acknowledged::Release
            }
            Slot::Released => Acknowledged::Release,
            Slot::Published(_) | Slot::Done => Acknowledged::Unknown,
        }
    }

    /// PUBCOMP: the exchange is over.
    pub fn complete(&mut self, identifier: PacketId) -> Acknowledged {
        let Some(position) = self.position(identifier) else {
            return Acknowledged::Unknown;
        };
        match &self.slots[position] {
            Slot::Released => Acknowledged::Completed(self.done(position)),
            Slot::Published(_) | Slot::Done => Acknowledged::Unknown,
        }
    }

    /// The session ends: the messages that were not acknowledged, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = Delivery> {
        let slots = std::mem::take(self).slots;
        slots.into_iter().filter_map(|slot| match slot {
            Slot::Published(delivery) => Some(delivery),
            Slot::Released | Slot::Done => None,
        })
    }

    fn done(&mut self, position: usize) -> Option<Delivery> {
        self.unacknowledged -= 1;
        if position < usize::from(self.cursor) {
            self.in_flight -= 1;
        }
        let slot = std::mem::replace(&mut self.slots[position], Slot::Done);
        while matches!(self.slots.front(), Some(Slot::Done)) {
            self.slots.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
            self.first = if self.first == u16::MAX {
                1
            } else {
                self.first + 1
            };
        }
        self.skip_done();
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            self.slots = VecDeque::new();
        }
        match slot {
            Slot::Published(delivery) => Some(delivery),
            Slot::Released | Slot::Done => None,
        }
    }

    fn identifier(&self, position: usize) -> PacketId {
        let circle = (usize::from(self.first) - 1 + position) % IDENTIFIERS;
        u16::try_from(circle + 1)
            .ok()
            .and_then(PacketId::new)
            .unwrap_or(PacketId::MIN)
    }

    fn position(&self, identifier: PacketId) -> Option<usize> {
        let circle = IDENTIFIERS + usize::from(identifier.get()) - usize::from(self.first);
        Some(circle % IDENTIFIERS).filter(|&position| position < self.slots.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::tests::delivery;

    #[derive(Clone, Copy, Debug)]
    enum Operation {
        Send(QoS),
        PubAck(usize),
        PubRec(usize),
        PubRecError(usize),
        PubComp(usize),
        Reconnect,
        Resend,
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let operation = prop_oneof![
            5 => Just(Operation::Send(QoS::AtLeastOnce)),
            5 => Just(Operation::Send(QoS::ExactlyOnce)),
            4 => (0..64_usize).prop_map(Operation::PubAck),
            4 => (0..64_usize).prop_map(Operation::PubRec),
            1 => (0..64_usize).prop_map(Operation::PubRecError),
            4 => (0..64_usize).prop_map(Operation::PubComp),
            1 => Just(Operation::Reconnect),
            6 => Just(Operation::Resend),
        ];
        prop::collection::vec(operation, 0..400)
    }

    /// The window as a list of (identifier, QoS, released, sent on this connection).
    #[derive(Default)]
    struct Model(Vec<(PacketId, QoS, bool, bool)>);

    impl Model {
        fn pick(&self, number: usize) -> Option<usize> {
            (!self.0.is_empty()).then(|| number % self.0.len())
        }

        fn acknowledge(&mut self, window: &mut Window, operation: Operation) {
            let (Operation::PubAck(number)
            | Operation::PubRec(number)
            | Operation::PubRecError(number)
            | Operation::PubComp(number)) = operation
            else {
                return;
            };
            let Some(at) = self.pick(number) else { return };
            let (identifier, qos, released, _) = self.0[at];
            let two = qos == QoS::ExactlyOnce;
            let (answer, ends, releases) = match operation {
                Operation::PubAck(_) => (window.finish(identifier, QoS::AtLeastOnce), !two, false),
                Operation::PubRecError(_) => (
                    window.finish(identifier, QoS::ExactlyOnce),
                    two && !released,
                    false,
                ),
                Operation::PubRec(_) => (window.receive(identifier), false, two),
                _ => (window.complete(identifier), two && released, false),
            };
            match answer {
                Acknowledged::Completed(_) => assert!(ends),
                Acknowledged::Release => assert!(releases),
                Acknowledged::Unknown => assert!(!ends && !releases),
            }
            if ends {
                self.0.remove(at);
            } else if releases {
                self.0[at].2 = true;
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_list(operations in operations(), start in 1..=u16::MAX) {
            let mut window = Window { first: start, ..Window::default() };
            let mut model = Model::default();
            for operation in operations {
                match operation {
                    Operation::Send(qos) if window.takes_new() => {
                        prop_assert!(model.0.iter().all(|slot| slot.3));
                        let identifier = window.send(delivery(qos));
                        // [MQTT-2.2.1-4] a new identifier is not in use
                        prop_assert!(model.0.iter().all(|slot| slot.0 != identifier));
                        model.0.push((identifier, qos, false, true));
                    }
                    Operation::Send(_) => prop_assert!(model.0.iter().any(|slot| !slot.3)),
                    Operation::Reconnect => {
                        window.rewind();
                        model.0.iter_mut().for_each(|slot| slot.3 = false);
                    }
                    Operation::Resend => {
                        let expected = model.0.iter_mut().find(|slot| !slot.3);
                        match (window.resend(), expected) {
                            (Some((identifier, slot)), Some(expected)) => {
                                // [MQTT-4.4.0-1] in the order they were sent, with the same identifier
                                prop_assert_eq!(identifier, expected.0);
                                prop_assert_eq!(matches!(slot, Slot::Released), expected.2);
                                expected.3 = true;
                            }
                            (None, None) => {}
                            (window, model) => prop_assert!(false, "{window:?} {model:?}"),
                        }
                    }
                    acknowledgement => model.acknowledge(&mut window, acknowledgement),
                }
                prop_assert_eq!(window.len(), model.0.len());
                let in_flight = model.0.iter().filter(|slot| slot.3).count();
                prop_assert_eq!(usize::from(window.in_flight()), in_flight);
            }
        }
    }

    #[test]
    fn identifiers_wrap_past_the_ones_in_use() {
        let mut window = Window::default();
        for _ in 0..IDENTIFIERS {
            assert!(window.takes_new());
            window.send(delivery(QoS::AtLeastOnce));
        }
        assert!(!window.takes_new());
        let first = PacketId::MIN;
        assert!(matches!(
            window.finish(first, QoS::AtLeastOnce),
            Acknowledged::Completed(_)
        ));
        assert_eq!(window.send(delivery(QoS::AtLeastOnce)), first);
    }
}
