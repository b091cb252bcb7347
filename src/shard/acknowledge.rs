//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client.

use crate::route::SessionKey;
use crate::session::Acknowledged;
use crate::time::Time;
use crate::wire::{Ack, AckKind, AckRun, PacketId, QoS, ReasonCode};

use super::deliver::send_ack;
use super::durable::Mark;
use super::{ConnKey, Outbox, Shard};

impl Shard {
    /// One acknowledgement, whatever it says.
    pub(super) fn on_ack(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        kind: AckKind,
        ack: &Ack<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        if kind == AckKind::PubRec && ack.reason.is_error() {
            // The client refuses the message, which ends the exchange
            // [MQTT-4.3.3-4] [MQTT-4.4.0-2] [MQTT-4.8.2-6].
            if let Some(session) = self.sessions.get_mut(key) {
                let done = session.window.finish(ack.packet_id, QoS::ExactlyOnce);
                self.store.acknowledge(session.stored, done.stored());
            }
            return self.pump(key, now, out);
        }
        let one = std::iter::once(ack.packet_id);
        self.on_packet_ids(conn, key, kind, one, now, out);
    }

    /// A row of acknowledgements that say success.
    pub(super) fn on_acks(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        acks: &AckRun<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        self.on_packet_ids(conn, key, acks.kind(), acks.packet_ids(), now, out);
    }

    fn on_packet_ids(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        kind: AckKind,
        packet_ids: impl Iterator<Item = PacketId>,
        now: Time,
        out: &mut Outbox,
    ) {
        let (Some(session), Some(connection)) =
            (self.sessions.get_mut(key), self.connections.get(conn))
        else {
            return;
        };
        let (stats, store) = (&mut self.stats, &mut self.store);
        let stored = session.stored;
        match kind {
            // A QoS 1 message has arrived [MQTT-4.3.2-3], or was refused, which is the same to us
            // [MQTT-4.4.0-2]: it goes to nobody else [MQTT-4.8.2-6].
            AckKind::PubAck => packet_ids.for_each(|packet_id| {
                let done = session.window.finish(packet_id, QoS::AtLeastOnce);
                store.acknowledge(stored, done.stored());
            }),
            // The client owns a QoS 2 message [MQTT-4.3.3-4]. PUBRELs leave in the order of the PUBRECs
            // [MQTT-4.6.0-4], with their identifiers [MQTT-2.2.1-5].
            AckKind::PubRec => {
                for packet_id in packet_ids {
                    let reason = match session.window.receive(packet_id) {
                        Acknowledged::Release => {
                            store.receive(stored, packet_id);
                            ReasonCode::Success
                        }
                        Acknowledged::Unknown | Acknowledged::Completed(_) => {
                            ReasonCode::PacketIdentifierNotFound
                        }
                    };
                    let release = Ack::new(packet_id, reason);
                    send_ack(connection, AckKind::PubRel, &release, stats, out);
                }
                if stored.is_some() {
                    // It might have come before, without being on disk yet.
                    out.promise(conn, store.promised(Mark::START));
                }
                return; // nothing is free yet
            }
            // The identifier of a QoS 2 message is free again [MQTT-4.3.3-11] [MQTT-4.3.3-12], whether
            // the message has expired meanwhile or not [MQTT-4.3.3-13].
            AckKind::PubRel => {
                for packet_id in packet_ids {
                    let reason = if session.received.remove(packet_id) {
                        store.release(stored, packet_id);
                        ReasonCode::Success
                    } else {
                        ReasonCode::PacketIdentifierNotFound
                    };
                    let complete = Ack::new(packet_id, reason);
                    send_ack(connection, AckKind::PubComp, &complete, stats, out);
                }
                if stored.is_some() {
                    out.promise(conn, store.promised(Mark::START));
                }
                return;
            }
            // A QoS 2 message has arrived, and both sides know.
            AckKind::PubComp => packet_ids.for_each(|packet_id| {
                if let Acknowledged::Completed(_) = session.window.complete(packet_id) {
                    store.complete(stored, packet_id);
                }
            }),
        }
        self.pump(key, now, out);
    }
}
