//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client.

use crate::route::SessionKey;
use crate::session::Acknowledged;
use crate::time::Time;
use crate::wire::{Ack, AckKind, QoS, ReasonCode};

use super::deliver::send_ack;
use super::{ConnKey, Outbox, Shard};

impl Shard {
    /// PUBACK: a QoS 1 message has arrived [MQTT-4.3.2-3], or was refused, which is the same to us
    /// [MQTT-4.4.0-2]: it goes to nobody else [MQTT-4.8.2-6].
    pub(super) fn on_puback(
        &mut self,
        key: SessionKey,
        ack: &Ack<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.window.finish(ack.packet_id, QoS::AtLeastOnce);
        self.pump(key, now, out);
    }

    /// PUBREC: the client owns a QoS 2 message, or refuses it, which ends the exchange
    /// [MQTT-4.3.3-4] [MQTT-4.4.0-2] [MQTT-4.8.2-6]. PUBRELs leave in the order of the PUBRECs
    /// [MQTT-4.6.0-4], with their identifiers [MQTT-2.2.1-5].
    pub(super) fn on_pubrec(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        ack: &Ack<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if ack.reason.is_error() {
            session.window.finish(ack.packet_id, QoS::ExactlyOnce);
            return self.pump(key, now, out);
        }
        let reason = match session.window.receive(ack.packet_id) {
            Acknowledged::Release => ReasonCode::Success,
            Acknowledged::Unknown | Acknowledged::Completed(_) => {
                ReasonCode::PacketIdentifierNotFound
            }
        };
        self.send_ack(conn, AckKind::PubRel, Ack::new(ack.packet_id, reason), out);
    }

    /// PUBREL: the identifier of a QoS 2 message is free again [MQTT-4.3.3-11] [MQTT-4.3.3-12],
    /// whether the message has expired meanwhile or not [MQTT-4.3.3-13].
    pub(super) fn on_pubrel(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        ack: &Ack<'_>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let reason = if session.received.remove(ack.packet_id) {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.send_ack(conn, AckKind::PubComp, Ack::new(ack.packet_id, reason), out);
    }

    /// PUBCOMP: a QoS 2 message has arrived, and both sides know.
    pub(super) fn on_pubcomp(
        &mut self,
        key: SessionKey,
        ack: &Ack<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.window.complete(ack.packet_id);
        self.pump(key, now, out);
    }

    pub(super) fn send_ack(
        &mut self,
        conn: ConnKey,
        kind: AckKind,
        ack: Ack<'_>,
        out: &mut Outbox,
    ) {
        if let Some(connection) = self.connections.get(conn) {
            send_ack(connection, kind, &ack, &mut self.stats, out);
        }
    }
}
