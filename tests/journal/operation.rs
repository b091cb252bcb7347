//! What users of a journal do, at random.

use shardmq::journal::{BLOCK, Deadline, ItemId, Refused, Retention, SessionNumber};
use shardmq::wire::{PacketId, QoS, RetainHandling, SubscriptionOptions, Version};

use crate::machine::Machine;
use crate::model::{Body, Copy, Details, Done, Message, Subscription, Will};

impl Machine {
    /// One thing, whatever can be done now.
    pub fn operate(&mut self) {
        let Some(session) = self.any_session() else {
            return self.open_session();
        };
        match self.random.below(100) {
            0..4 => self.open_session(),
            4..7 => self.change_session(session),
            7..9 => self.end_session(session),
            9..13 => self.subscribe(session),
            13..15 => self.unsubscribe(session),
            15..47 => self.add_message(),
            47..74 => self.acknowledge(session),
            74..78 => self.release(session),
            78..84 => self.send(session),
            84..89 => self.receive(session),
            89..93 => self.complete_exchange(session),
            93..95 => self.set_will(session),
            95..96 => self.clear_will(session),
            96..98 => self.clear_retained(),
            98 => self.add_too_large(),
            _ => {
                self.disk.capacity += 1;
                self.journal.space_returned();
            }
        }
    }

    fn any_session(&mut self) -> Option<SessionNumber> {
        let count = self.current.sessions.len();
        let at = self.random.below(count.max(1));
        self.current.sessions.keys().nth(at).copied()
    }

    fn details(&mut self) -> Details {
        Details {
            client_id: format!("client-{}", self.random.below(1000)),
            version: *self
                .random
                .pick(&[Version::V3_1, Version::V3_1_1, Version::V5]),
            expiry_interval: self.random.below(100_000) as u32,
            expires_at: self.deadline(),
        }
    }

    fn deadline(&mut self) -> Deadline {
        match self.random.below(3) {
            0 => Deadline(1_700_000_000_000 + self.random.below(1_000_000) as u64),
            _ => Deadline::NEVER,
        }
    }

    fn open_session(&mut self) {
        if self.current.sessions.len() >= 8 {
            return;
        }
        let details = self.details();
        match self.journal.open_session(details.borrowed()) {
            Ok(session) => self.note(Done::Opened(session, details)),
            Err(refused) => self.refused(refused),
        }
    }

    fn change_session(&mut self, session: SessionNumber) {
        let details = self.details();
        match self.journal.change_session(session, details.borrowed()) {
            Ok(()) => self.note(Done::Changed(session, details)),
            Err(refused) => self.refused(refused),
        }
    }

    fn end_session(&mut self, session: SessionNumber) {
        match self.journal.remove_session(session) {
            Ok(()) => self.note(Done::Ended(session)),
            Err(refused) => self.refused(refused),
        }
    }

    fn subscribe(&mut self, session: SessionNumber) {
        let known = &self.current.sessions[&session].subscriptions;
        let replaces = known.keys().next_back().copied();
        let replaces = replaces.filter(|_| self.random.chance(40));
        if replaces.is_none() && known.len() >= 6 {
            return;
        }
        let subscription = Subscription {
            filter: format!("vehicle/{}/#", self.random.below(50)),
            options: SubscriptionOptions {
                qos: self.qos(),
                no_local: self.random.chance(50),
                retain_as_published: self.random.chance(50),
                retain_handling: RetainHandling::SendIfNew,
            },
            identifier: self.random.below(3) as u32,
            owed: self.random.chance(50),
        };
        match self
            .journal
            .add_subscription(session, subscription.borrowed(), replaces)
        {
            Ok(id) => self.note(Done::Subscribed(session, id, replaces, subscription)),
            Err(refused) => self.refused(refused),
        }
    }

    fn unsubscribe(&mut self, session: SessionNumber) {
        let first = self.current.sessions[&session]
            .subscriptions
            .keys()
            .next()
            .copied();
        let Some(id) = first else { return };
        match self.journal.remove_subscription(session, id) {
            Ok(()) => self.note(Done::Unsubscribed(session, id)),
            Err(refused) => self.refused(refused),
        }
    }

    fn qos(&mut self) -> QoS {
        *self.random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    fn message(&mut self) -> Message {
        let largest = self.settings.segment_bytes as usize - 2 * BLOCK;
        let size = match self.random.below(200) {
            0 => self.random.below(largest),
            1..10 => self.random.below(3 * BLOCK).min(largest),
            _ => self.random.below(300),
        };
        let stamp = self.random.next().to_le_bytes();
        Message {
            topic: format!("vehicle/{}/telemetry", self.random.below(20)),
            properties: vec![1; self.random.below(4)],
            payload: stamp.iter().copied().cycle().take(size).collect(),
            qos: self.qos(),
            retain: self.random.chance(20),
            expires_at: self.deadline(),
        }
    }

    fn add_message(&mut self) {
        let segment = self.settings.segment_bytes as usize;
        if self.journal.backlog() > 2 * segment || self.current.bodies.len() > 150 {
            return;
        }
        let mut body = Body {
            message: self.message(),
            retained: self.random.chance(15),
            receivers: Default::default(),
        };
        for &session in self.current.sessions.keys() {
            if self.random.chance(35) {
                let copy = Copy {
                    qos: *self.random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]),
                    retain: self.random.chance(10),
                    identifiers: vec![7; self.random.below(3)],
                    group: String::from(if self.random.chance(10) {
                        "$share/g/a"
                    } else {
                        ""
                    }),
                };
                body.receivers.insert(session, copy);
            }
        }
        if !body.retained && body.receivers.is_empty() {
            return;
        }
        let old = self.current.bodies.iter().find(|(_, old)| {
            old.retained && body.retained && old.message.topic == body.message.topic
        });
        let old = old.map(|(id, _)| *id);
        let retention = match body.retained {
            true => Retention::Retained(old),
            false => Retention::None,
        };
        let held = self
            .random
            .chance(25)
            .then(|| self.free_packet_id())
            .flatten();
        let size = body.message.payload.len() + 512;
        if held.is_some() && self.journal.together(size).is_err() {
            return;
        }
        let receivers = body.receivers.iter();
        let mut receivers: Vec<_> = receivers
            .map(|(session, copy)| copy.borrowed(*session))
            .collect();
        let added = self
            .journal
            .add_message(body.message.borrowed(), &mut receivers, retention);
        match added {
            Ok(id) => {
                if let Some((session, packet_id)) = held {
                    let held = self.journal.hold(session, packet_id);
                    held.unwrap_or_else(|refused| self.refused(refused));
                }
                self.note(Done::Added(id, body, old, held));
            }
            Err(refused) => self.refused(refused),
        }
    }

    fn free_packet_id(&mut self) -> Option<(SessionNumber, PacketId)> {
        let session = self.any_session()?;
        let packet_id = PacketId::new(1 + self.random.below(20) as u16)?;
        let held = &self.current.sessions[&session].held;
        (!held.contains(&packet_id)).then_some((session, packet_id))
    }

    fn add_too_large(&mut self) {
        let message = Message {
            payload: vec![0; self.settings.segment_bytes as usize],
            ..self.message()
        };
        let added =
            self.journal
                .add_message(message.borrowed(), &mut [], Retention::Retained(None));
        assert_eq!(added, Err(Refused::TooLarge));
    }

    fn acknowledge(&mut self, session: SessionNumber) {
        let messages = &self.current.sessions[&session].messages;
        if messages.is_empty() {
            return;
        }
        let message = match self.random.below(3) {
            0 => *self.random.pick(messages),
            _ => messages[0],
        };
        match self.journal.acknowledge(session, message) {
            Ok(()) => self.note(Done::Acknowledged(session, message)),
            Err(refused) => self.refused(refused),
        }
        assert_eq!(
            self.journal.acknowledge(session, message),
            Err(Refused::Unknown)
        );
    }

    fn release(&mut self, session: SessionNumber) {
        let first = self.current.sessions[&session].held.first().copied();
        let Some(packet_id) = first else { return };
        assert_eq!(self.journal.hold(session, packet_id), Err(Refused::Unknown));
        match self.journal.release(session, packet_id) {
            Ok(()) => self.note(Done::Released(session, packet_id)),
            Err(refused) => self.refused(refused),
        }
    }

    fn send(&mut self, session: SessionNumber) {
        let known = &self.current.sessions[&session];
        let unsent = known
            .messages
            .iter()
            .find(|id| !known.exchanges.contains_key(id));
        let Some(&message) = unsent else { return };
        let used = |packet_id| {
            known
                .exchanges
                .values()
                .any(|exchange| exchange.packet_id == packet_id)
        };
        let free = (1..)
            .filter_map(PacketId::new)
            .find(|&packet_id| !used(packet_id));
        let Some(packet_id) = free else { return };
        match self.journal.send(session, message, packet_id) {
            Ok(()) => self.note(Done::Sent(session, message, packet_id)),
            Err(refused) => self.refused(refused),
        }
    }

    fn exchange(&self, session: SessionNumber, received: bool) -> Option<(ItemId, PacketId)> {
        let exchanges = self.current.sessions[&session].exchanges.values();
        let mut fitting = exchanges.filter(|exchange| exchange.received == received);
        fitting
            .next()
            .map(|exchange| (exchange.message, exchange.packet_id))
    }

    fn receive(&mut self, session: SessionNumber) {
        let Some((message, packet_id)) = self.exchange(session, false) else {
            return;
        };
        match self.journal.receive(session, packet_id) {
            Ok(()) => self.note(Done::Received(session, message)),
            Err(refused) => self.refused(refused),
        }
    }

    fn complete_exchange(&mut self, session: SessionNumber) {
        let Some((message, packet_id)) = self.exchange(session, true) else {
            return;
        };
        match self.journal.complete(session, packet_id) {
            Ok(()) => self.note(Done::Completed(session, message)),
            Err(refused) => self.refused(refused),
        }
    }

    fn set_will(&mut self, session: SessionNumber) {
        let will = Will {
            due: self.deadline(),
            delay_interval: self.random.below(100) as u32,
            message_expiry_interval: self.random.chance(50).then_some(5),
            message: self.message(),
        };
        match self.journal.set_will(session, will.borrowed()) {
            Ok(()) => self.note(Done::WillSet(session, will)),
            Err(refused) => self.refused(refused),
        }
    }

    fn clear_will(&mut self, session: SessionNumber) {
        if self.current.sessions[&session].will.is_none() {
            return;
        }
        match self.journal.clear_will(session) {
            Ok(()) => self.note(Done::WillCleared(session)),
            Err(refused) => self.refused(refused),
        }
    }

    fn clear_retained(&mut self) {
        let retained = self.current.bodies.iter().find(|(_, body)| body.retained);
        let Some((&id, _)) = retained else { return };
        match self.journal.clear_retained(id) {
            Ok(()) => self.note(Done::RetainedCleared(id)),
            Err(refused) => self.refused(refused),
        }
    }
}
