//! The QoS 1 and 2 messages that were sent to one client and are not acknowledged.
//!
//! Packet identifiers are handed out in a row, so the identifier is the position: slot `i` has the
//! identifier `first + i` on the circle 1..=65,535, and finding the slot of an acknowledgement takes
//! no search, however hostile the order of the acknowledgements. A slot that is done stays until all
//! slots before it are done. When the row has come round to a message that is still not
//! acknowledged, that one steps aside as a straggler, and its identifier is passed over.
//!
//! Invariants: the first slot is not done; stragglers are older than all slots, and in the order they
//! were sent; slots before `cursor` and stragglers before `straggler_cursor` were sent on the present
//! connection, those from there on wait to be sent again; `cursor` never stands on a slot that is done;
//! no identifier is in use twice.

use std::collections::VecDeque;

use crate::message::ItemId;
use crate::wire::{PacketId, QoS};

use super::Delivery;

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

impl Acknowledged {
    /// What the journal calls the message that the exchange was about.
    #[must_use]
    pub fn stored(&self) -> Option<ItemId> {
        match self {
            Self::Completed(delivery) => delivery.as_ref()?.message.stored(),
            Self::Release | Self::Unknown => None,
        }
    }
}

/// The window. The circle of identifiers is a parameter so that tests can come round it.
#[derive(Debug)]
pub struct Window<const CIRCLE: u16 = { u16::MAX }> {
    slots: VecDeque<Slot>,
    stragglers: Vec<(PacketId, Slot)>,
    first: u16,
    cursor: u16,
    straggler_cursor: u16,
    unacknowledged: u16,
    /// What was sent on the present connection and is not acknowledged.
    in_flight: u16,
}

impl<const CIRCLE: u16> Default for Window<CIRCLE> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            stragglers: Vec::new(),
            first: 1,
            cursor: 0,
            straggler_cursor: 0,
            unacknowledged: 0,
            in_flight: 0,
        }
    }
}

/// Where a message is that has not been acknowledged.
#[derive(Clone, Copy)]
enum Place {
    Slot(usize),
    Straggler(usize),
}

impl<const CIRCLE: u16> Window<CIRCLE> {
    /// The window of a session that was kept on disk: exchanges that have begun, in the order of their
    /// messages, all to be sent again.
    #[must_use]
    pub fn restored(exchanges: Vec<(PacketId, Slot)>) -> Self {
        Self {
            unacknowledged: exchanges.len() as u16, // each has an identifier of its own
            stragglers: exchanges,
            ..Self::default()
        }
    }

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
        !self.has_unsent() && self.unacknowledged < CIRCLE
    }

    /// Notes that `delivery` is sent now and gives it its identifier, one that is not in use
    /// [MQTT-2.2.1-4]. The caller has asked [`Window::takes_new`].
    pub fn send(&mut self, delivery: Delivery) -> PacketId {
        assert!(
            self.takes_new(),
            "a window takes nothing new before the old was sent again"
        );
        let identifier = loop {
            self.make_room();
            let identifier = self.identifier(self.slots.len());
            if !self
                .stragglers
                .iter()
                .any(|(straggler, _)| *straggler == identifier)
            {
                break identifier;
            }
            self.push(Slot::Done);
        };
        self.push(Slot::Published(delivery));
        self.unacknowledged += 1;
        self.in_flight += 1;
        identifier
    }

    /// A connection came or went: everything that is not done is to be sent again.
    pub fn rewind(&mut self) {
        self.cursor = 0; // the first slot is never done
        self.straggler_cursor = 0;
        self.in_flight = 0;
        self.drop_done();
    }

    /// The next slot that is to be sent again, with its identifier. It counts as sent from here on.
    pub fn resend(&mut self) -> Option<(PacketId, &mut Slot)> {
        let straggler = usize::from(self.straggler_cursor);
        if straggler < self.stragglers.len() {
            self.straggler_cursor += 1;
            self.in_flight += 1;
            let (identifier, slot) = &mut self.stragglers[straggler];
            return Some((*identifier, slot));
        }
        let position = usize::from(self.cursor);
        if position >= self.slots.len() {
            return None;
        }
        self.cursor += 1;
        self.in_flight += 1;
        self.skip_done();
        Some((self.identifier(position), &mut self.slots[position]))
    }

    /// What [`Window::resend`] would return, without its identifier.
    #[must_use]
    pub fn unsent(&self) -> Option<&Slot> {
        let straggler = self.stragglers.get(usize::from(self.straggler_cursor));
        let straggler = straggler.map(|(_, slot)| slot);
        straggler.or_else(|| self.slots.get(usize::from(self.cursor)))
    }

    /// Whether something is left to be sent again.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        usize::from(self.cursor) < self.slots.len()
            || usize::from(self.straggler_cursor) < self.stragglers.len()
    }

    /// PUBACK, or PUBREC with an error: the exchange of a message of QoS `qos` is over.
    pub fn finish(&mut self, identifier: PacketId, qos: QoS) -> Acknowledged {
        match self.find(identifier) {
            Some((place, Slot::Published(delivery))) if delivery.qos == qos => {
                Acknowledged::Completed(self.done(place))
            }
            _ => Acknowledged::Unknown,
        }
    }

    /// PUBREC: the client owns the message now [MQTT-4.3.3-4].
    pub fn receive(&mut self, identifier: PacketId) -> Acknowledged {
        match self.find(identifier) {
            Some((_, slot @ Slot::Published(_))) if slot.qos() == QoS::ExactlyOnce => {
                *slot = Slot::Released;
                Acknowledged::Release
            }
            Some((_, Slot::Released)) => Acknowledged::Release,
            _ => Acknowledged::Unknown,
        }
    }

    /// PUBCOMP: the exchange is over.
    pub fn complete(&mut self, identifier: PacketId) -> Acknowledged {
        match self.find(identifier) {
            Some((place, Slot::Released)) => Acknowledged::Completed(self.done(place)),
            _ => Acknowledged::Unknown,
        }
    }

    /// The session ends: the messages that were not acknowledged, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = Delivery> {
        let Self {
            slots, stragglers, ..
        } = std::mem::take(self);
        let stragglers = stragglers.into_iter().map(|(_, slot)| slot);
        stragglers.chain(slots).filter_map(|slot| match slot {
            Slot::Published(delivery) => Some(delivery),
            Slot::Released | Slot::Done => None,
        })
    }

    /// If the row has come round, its oldest message steps aside.
    fn make_room(&mut self) {
        if self.slots.len() < usize::from(CIRCLE) {
            return;
        }
        let identifier = self.identifier(0);
        if let Some(slot) = self.slots.pop_front() {
            self.stragglers.push((identifier, slot));
            self.straggler_cursor += 1; // whatever is old was sent
            self.cursor -= 1;
            self.advance();
            self.drop_done();
        }
    }

    fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
        self.cursor += 1;
    }

    fn done(&mut self, place: Place) -> Option<Delivery> {
        self.unacknowledged -= 1;
        let slot = match place {
            Place::Straggler(position) => {
                if position < usize::from(self.straggler_cursor) {
                    self.straggler_cursor -= 1;
                    self.in_flight -= 1;
                }
                self.stragglers.remove(position).1
            }
            Place::Slot(position) => {
                self.in_flight -= u16::from(position < usize::from(self.cursor));
                std::mem::replace(&mut self.slots[position], Slot::Done)
            }
        };
        self.drop_done();
        self.skip_done();
        match slot {
            Slot::Published(delivery) => Some(delivery),
            Slot::Released | Slot::Done => None,
        }
    }

    /// The first slot is not done.
    fn drop_done(&mut self) {
        while let Some(Slot::Done) = self.slots.front() {
            self.slots.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
            self.advance();
        }
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            self.slots = VecDeque::new();
        }
    }

    /// The cursor stands on something to be sent, or at the end.
    fn skip_done(&mut self) {
        while let Some(Slot::Done) = self.slots.get(usize::from(self.cursor)) {
            self.cursor += 1;
        }
    }

    fn advance(&mut self) {
        self.first = if self.first == CIRCLE {
            1
        } else {
            self.first + 1
        };
    }

    fn identifier(&self, position: usize) -> PacketId {
        let circle = (usize::from(self.first) - 1 + position) % usize::from(CIRCLE);
        u16::try_from(circle + 1)
            .ok()
            .and_then(PacketId::new)
            .unwrap_or(PacketId::MIN)
    }

    fn find(&mut self, identifier: PacketId) -> Option<(Place, &mut Slot)> {
        if identifier.get() > CIRCLE {
            return None;
        }
        let ahead = usize::from(CIRCLE) + usize::from(identifier.get()) - usize::from(self.first);
        let position = ahead % usize::from(CIRCLE);
        if !matches!(self.slots.get(position), None | Some(Slot::Done)) {
            return Some((Place::Slot(position), &mut self.slots[position]));
        }
        let position = self
            .stragglers
            .iter()
            .position(|(straggler, _)| *straggler == identifier)?;
        Some((Place::Straggler(position), &mut self.stragglers[position].1))
    }
}

impl Slot {
    /// The QoS of a message that was not acknowledged; of the others, one that matches nothing.
    fn qos(&self) -> QoS {
        match self {
            Self::Published(delivery) => delivery.qos,
            Self::Released | Self::Done => QoS::AtMostOnce,
        }
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

        fn acknowledge(&mut self, window: &mut Window<13>, operation: Operation) {
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
        fn behaves_like_a_list(operations in operations(), start in 1..=13_u16) {
            let mut window = Window::<13> { first: start, ..Window::default() };
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
                    Operation::Send(_) => {
                        let full = model.0.len() == 13;
                        prop_assert!(full || model.0.iter().any(|slot| !slot.3));
                    }
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
        let mut window = Window::<13>::default();
        let held = window.send(delivery(QoS::AtLeastOnce));
        for round in 1..=100 {
            let identifier = window.send(delivery(QoS::AtLeastOnce));
            assert_ne!(identifier, held, "round {round}");
            let finished = window.finish(identifier, QoS::AtLeastOnce);
            assert!(matches!(finished, Acknowledged::Completed(Some(_))));
        }
        assert_eq!((window.len(), window.in_flight()), (1, 1));
        window.rewind();
        assert_eq!(
            window.resend().map(|(identifier, _)| identifier),
            Some(held)
        );
        assert!(matches!(
            window.finish(held, QoS::AtLeastOnce),
            Acknowledged::Completed(Some(_))
        ));
        assert!(window.is_empty() && window.takes_new());
    }

    #[test]
    fn as_many_messages_as_identifiers_fit() {
        let mut window = Window::<13>::default();
        for _ in 0..13 {
            assert!(window.takes_new());
            window.send(delivery(QoS::ExactlyOnce));
        }
        assert!(!window.takes_new());
    }
}
