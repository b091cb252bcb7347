//! From a routed message to the output of a client: at once where that is possible, through the
//! queue of its session where it is not.

use crate::limits::MAX_PACKET_SIZE;
use crate::message::{ItemId, MessageView};
use crate::route::{GroupKey, SessionKey};
use crate::session::{
    Connection, Delivery, Identifiers, Named, Queue, Session, SessionNumber, Slot,
};
use crate::stats::{DropReason, Stats};
use crate::time::Time;
use crate::wire::{Ack, AckKind, PacketId, QoS, ReasonCode};

use super::durable::{Mark, Store};
use super::explain::{encode_explained, explanation};
use super::fanout::{Copy, Fanout, Matched, head};
use super::{ConnKey, Outbox, QueueOverflow, Shard};

/// What became of a message for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was sent, or waits.
    Taken,
    /// It was dropped and counted.
    Dropped,
    /// The session's queue is full, and the publisher is to know.
    Refused,
}

impl Shard {
    /// Brings a message to one session. `false` if its queue is full and its publisher is to know.
    pub(super) fn deliver(
        &mut self,
        key: SessionKey,
        matched: &Matched,
        fanout: &mut Fanout<'_>,
        out: &mut Outbox,
    ) -> bool {
        if !self.may_receive(key, fanout.message.topic, fanout.count()) {
            if fanout.stored.is_some() {
                let stored = self.sessions.get(key).and_then(|session| session.stored);
                self.store.acknowledge(stored, fanout.stored);
            }
            return true; // as if it were not subscribed
        }
        if matched.group.is_some() {
            self.store_for(key, matched, fanout);
        }
        let outcome = self.hand_out(key, matched, fanout, out);
        if outcome != Outcome::Taken && fanout.stored.is_some() {
            let stored = self.sessions.get(key).and_then(|session| session.stored);
            self.store.acknowledge(stored, fanout.stored);
        }
        // What a client was not given must not hide the retained message from its replay.
        if outcome == Outcome::Taken && fanout.message.retain {
            self.note_live(key, fanout.message.topic.as_str());
        }
        outcome != Outcome::Refused
    }

    fn hand_out(
        &mut self,
        key: SessionKey,
        matched: &Matched,
        fanout: &mut Fanout<'_>,
        out: &mut Outbox,
    ) -> Outcome {
        let message = fanout.message;
        if message.expires_at < fanout.now {
            self.stats.drop_messages(DropReason::Expired, 1); // [MQTT-3.3.2-5]
            return Outcome::Dropped;
        }
        let copy = Copy {
            // [MQTT-3.8.4-8] [MQTT-3.8.4-6 3.1.1] [MQTT-4.8.2-3]
            qos: matched.qos.min(message.qos),
            retain: message.retain && matched.retain_as_published, // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            // Of this transmission alone [MQTT-3.3.1-3] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2].
            dup: false,
            packet_id: None,
            identifiers: &matched.identifiers,
        };
        if copy.qos == QoS::AtMostOnce {
            return self.deliver_at_most_once(key, &copy, matched.group, fanout, out);
        }
        if fanout.count() > 1 {
            let sent = self.send_run(key, &copy, fanout, out);
            if sent < fanout.count() as usize {
                fanout.one_by_one(sent, |fanout| {
                    self.hand_out(key, matched, fanout, out);
                });
            }
            return Outcome::Taken; // nobody asks what became of each
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return Outcome::Dropped;
        };
        let conn = session.connection;
        let full = conn.is_some_and(|conn| out.backlog(conn) >= self.settings.max_output_bytes);
        let connection = conn.and_then(|conn| self.connections.get_mut(conn));
        let delivery = Delivery {
            message: fanout.keep(),
            qos: copy.qos,
            retain: copy.retain,
            identifiers: matched.identifiers.clone(),
            group: matched.group,
        };
        match connection {
            Some(connection)
                if session.queue.is_empty()
                    && session.window.takes_new()
                    && session.window.in_flight() < connection.receive_maximum // [MQTT-3.3.4-9]
                    && !full =>
            {
                // [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.9.0-2]
                let packet_id = session.window.send(delivery);
                let copy = Copy {
                    packet_id: Some(packet_id),
                    ..copy
                };
                let stored = session.stored.zip(fanout.stored);
                if !send_fanout(connection, &copy, fanout, &mut self.stats, out) {
                    session.window.finish(packet_id, copy.qos); // as if sent [MQTT-3.1.2-25]
                    return Outcome::Dropped;
                }
                let conn = connection.key;
                note_sent(stored, copy.qos, packet_id, conn, &mut self.store, out);
                Outcome::Taken
            }
            connection => {
                if let (Some(connection), true) = (connection, full) {
                    // Nothing may be in flight whose acknowledgement would bring us back.
                    out.want_writable(connection.key);
                }
                self.enqueue(key, delivery, out)
            }
        }
    }

    /// Sends so many messages of a run of QoS 1 or 2 as the client and its output take at once, and
    /// returns how many.
    fn send_run(
        &mut self,
        key: SessionKey,
        copy: &Copy<'_>,
        fanout: &mut Fanout<'_>,
        out: &mut Outbox,
    ) -> usize {
        let (Some(run), Some(session)) = (fanout.run, self.sessions.get_mut(key)) else {
            return 0;
        };
        let conn = session.connection;
        let Some(connection) = conn.and_then(|conn| self.connections.get_mut(conn)) else {
            return 0;
        };
        let maximum = self.settings.max_output_bytes;
        let room = maximum.saturating_sub(out.backlog(connection.key));
        if room == 0
            || !session.queue.is_empty()
            || !copy.identifiers.is_empty()
            || connection.outgoing_aliases.is_some()
            || connection.mounted > 0
            || !run.fits(connection.version, copy.qos)
            || !fanout.is_within(connection.maximum_packet_size)
        {
            return 0;
        }
        let output = out.write(connection.key);
        let before = output.len();
        let (mut sent, mut payload_bytes) = (0, 0);
        for packet in run.packets() {
            if !session.window.takes_new()
                || session.window.in_flight() >= connection.receive_maximum // [MQTT-3.3.4-9]
                || output.len() - before >= room
            {
                break;
            }
            let message = MessageView {
                payload: packet.payload,
                ..fanout.message
            };
            // [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.9.0-2]
            let packet_id = session.window.send(Delivery {
                message: message.to_message_by(None, &mut fanout.encoder.scratch),
                qos: copy.qos,
                retain: copy.retain,
                identifiers: Identifiers::new(),
                group: None,
            });
            let packet_id = Some(packet_id);
            packet.run.append(copy.qos, copy.retain, packet_id, output);
            sent += 1;
            payload_bytes += packet.payload.len();
        }
        self.stats.publishes_sent[copy.qos as usize] += sent as u64;
        self.stats.publish_bytes_sent[copy.qos as usize] += payload_bytes as u64;
        self.stats.bytes_sent += (output.len() - before) as u64;
        sent
    }

    fn deliver_at_most_once(
        &mut self,
        key: SessionKey,
        copy: &Copy<'_>,
        group: Option<GroupKey>,
        fanout: &mut Fanout<'_>,
        out: &mut Outbox,
    ) -> Outcome {
        if self.sheds_at_most_once() {
            let count = u64::from(fanout.count());
            self.stats.drop_messages(DropReason::MemoryShort, count);
            return Outcome::Dropped;
        }
        let Some(session) = self.sessions.get(key) else {
            return Outcome::Dropped;
        };
        let connection = session
            .connection
            .and_then(|conn| self.connections.get_mut(conn));
        let waits = !session.queue.is_empty() || session.window.has_unsent();
        // Behind a retained message of a higher QoS that waits, a newer one of its topic waits too; and
        // behind that one, what is published after it with the same QoS [MQTT-4.6.0-6].
        let queues = match &connection {
            Some(_) => {
                session.queue.at_most_once() > 0
                    || waits && (self.settings.queue_qos0 || fanout.message.retain)
            }
            None => self.settings.queue_qos0,
        };
        if queues {
            let mut outcome = Outcome::Taken;
            fanout.one_by_one(0, |fanout| {
                let delivery = Delivery {
                    message: fanout.keep(),
                    qos: copy.qos,
                    retain: copy.retain,
                    identifiers: copy.identifiers.into(),
                    group,
                };
                outcome = self.enqueue(key, delivery, out);
            });
            return outcome;
        }
        let Some(connection) = connection else {
            self.stats
                .drop_messages(DropReason::Offline, u64::from(fanout.count()));
            return Outcome::Dropped;
        };
        let maximum = self.settings.max_output_bytes;
        let run = fanout.run.filter(|run| run.count() > 1);
        let more = run.map_or(0, |run| run.bytes().len());
        let fits = out.backlog(connection.key) + more < maximum || more == 0;
        let mut outcome = Outcome::Dropped;
        let stats = &mut self.stats;
        let mut send = |fanout: &mut Fanout<'_>| {
            if out.backlog(connection.key) >= maximum {
                stats.drop_messages(DropReason::SlowConsumer, 1);
            } else {
                send_fanout(connection, copy, fanout, stats, out);
                outcome = Outcome::Taken;
            }
        };
        // So much of a run as fits, as if the messages had come by themselves.
        if fits {
            send(fanout);
        } else {
            fanout.one_by_one(0, send);
        }
        outcome
    }

    /// Lets a message wait in the queue of its session [MQTT-4.5.0-1], within the limits.
    fn enqueue(&mut self, key: SessionKey, delivery: Delivery, out: &mut Outbox) -> Outcome {
        let size = delivery.message.size() as u64;
        while let Some(session) = self.sessions.get(key)
            && (session.queue.len() >= self.settings.max_queued_messages as usize
                || session.queue.bytes() + size > self.settings.max_queued_bytes)
        {
            self.stats.drop_messages(DropReason::QueueFull, 1);
            match self.settings.queue_overflow {
                QueueOverflow::Reject => return Outcome::Refused,
                QueueOverflow::DropNew => return Outcome::Dropped,
                QueueOverflow::DropOldest => {
                    if !self.drop_oldest(key) {
                        return Outcome::Dropped; // larger than the whole queue may be
                    }
                }
            }
        }
        self.append_to_queue(key, delivery);
        self.update_availability(key, out);
        Outcome::Taken
    }

    /// Sends what the client can take now: first everything that was not acknowledged on an earlier
    /// connection, in its order [MQTT-4.4.0-1] [MQTT-4.6.0-1], then what waits.
    pub(super) fn pump(&mut self, key: SessionKey, now: Time, out: &mut Outbox) {
        while let Some(session) = self.sessions.get_mut(key)
            && let Some(conn) = session.connection
            && let Some(connection) = self.connections.get_mut(conn)
        {
            let idle = !session.window.has_unsent() && session.queue.is_empty();
            if idle
                && session.shared == 0
                && session.replays.is_empty()
                && !self.recalls.are_of(key)
            {
                return; // the usual case of an acknowledgement
            }
            if idle || session.window.in_flight() >= connection.receive_maximum {
                break; // an acknowledgement brings us back [MQTT-3.3.4-9]
            }
            if out.backlog(conn) >= self.settings.max_output_bytes {
                out.want_writable(conn);
                break;
            }
            if session.window.has_unsent() {
                if self.filters {
                    self.resend_what_may(key, conn, now, out);
                    continue;
                }
                resend(
                    session,
                    connection,
                    now,
                    &mut self.store,
                    &mut self.stats,
                    out,
                );
            } else if session.window.takes_new() && (session.queue.ready() > 0 || self.bring(key)) {
                self.send_queued(key, conn, now, out);
            } else {
                break;
            }
        }
        self.fetch(key);
        self.update_availability(key, out);
        self.continue_replays(key, out);
        self.continue_recalls(key, out);
    }

    /// The same where messages are looked at.
    fn resend_what_may(&mut self, key: SessionKey, conn: ConnKey, now: Time, out: &mut Outbox) {
        if self.may_resend(key)
            && let (Some(session), Some(connection)) =
                (self.sessions.get_mut(key), self.connections.get_mut(conn))
        {
            let (store, stats) = (&mut self.store, &mut self.stats);
            resend(session, connection, now, store, stats, out);
        }
    }

    /// Whether what is to be sent again may be: the rules may be others than when it was sent. What may not is
    /// over, as if it had been acknowledged.
    fn may_resend(&mut self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        let Some(Slot::Published(delivery)) = session.and_then(|session| session.window.unsent())
        else {
            return true;
        };
        let (message, qos) = (delivery.message.clone(), delivery.qos);
        if self.may_receive(key, message.view().topic, 1) {
            return true;
        }
        if let Some(session) = self.sessions.get_mut(key)
            && let Some((packet_id, _)) = session.window.resend()
        {
            session.window.finish(packet_id, qos);
            self.store.acknowledge(session.stored, message.stored());
            self.stats.drop_messages(DropReason::NotAuthorized, 1);
        }
        false
    }

    /// Sends a QoS 0 message that has its place in the output already reserved.
    pub(super) fn send_at_once(
        &mut self,
        key: SessionKey,
        delivery: &Delivery,
        now: Time,
        out: &mut Outbox,
    ) {
        let conn = self
            .sessions
            .get(key)
            .and_then(|session| session.connection);
        let Some(connection) = conn.and_then(|conn| self.connections.get_mut(conn)) else {
            return;
        };
        let copy = Copy {
            qos: QoS::AtMostOnce,
            retain: delivery.retain,
            dup: false,
            packet_id: None,
            identifiers: &delivery.identifiers,
        };
        let message = delivery.message.view();
        send_publish(connection, &message, &copy, now, &mut self.stats, out);
    }

    /// Sends the oldest message of the queue, unless it is too old.
    fn send_queued(&mut self, key: SessionKey, conn: ConnKey, now: Time, out: &mut Outbox) {
        let Some(delivery) = self.with_queue(key, Queue::pop).flatten() else {
            return;
        };
        // The rules may be others than when it was queued.
        if !self.may_receive(key, delivery.message.view().topic, 1) {
            self.stats.drop_messages(DropReason::NotAuthorized, 1);
            let stored = self.sessions.get(key).and_then(|session| session.stored);
            self.store.acknowledge(stored, delivery.message.stored());
            return;
        }
        let (Some(session), Some(connection)) =
            (self.sessions.get_mut(key), self.connections.get_mut(conn))
        else {
            return;
        };
        let stored = session.stored.zip(delivery.message.stored());
        if delivery.message.expires_at() < now {
            self.stats.drop_messages(DropReason::Expired, 1); // [MQTT-3.3.2-5]
            self.store
                .acknowledge(session.stored, delivery.message.stored());
            return;
        }
        let message = delivery.message.clone();
        let identifiers = delivery.identifiers.clone();
        let (qos, retain) = (delivery.qos, delivery.retain);
        let packet_id = (qos > QoS::AtMostOnce).then(|| session.window.send(delivery));
        let copy = Copy {
            qos,
            retain,
            dup: false,
            packet_id,
            identifiers: &identifiers,
        };
        let sent = send_publish(
            connection,
            &message.view(),
            &copy,
            now,
            &mut self.stats,
            out,
        );
        match packet_id {
            Some(packet_id) if sent => {
                note_sent(stored, qos, packet_id, conn, &mut self.store, out);
            }
            Some(packet_id) => {
                session.window.finish(packet_id, qos); // as if sent [MQTT-3.1.2-25]
                self.store.acknowledge(session.stored, message.stored());
            }
            None => {}
        }
    }
}

/// A message was sent the first time: of QoS 2, its packet identifier must be on disk before it leaves,
/// or it might be sent under another one after a crash, and arrive twice.
fn note_sent(
    stored: Option<(SessionNumber, ItemId)>,
    qos: QoS,
    packet_id: PacketId,
    conn: ConnKey,
    store: &mut Store,
    out: &mut Outbox,
) {
    if let (Some((session, message)), QoS::ExactlyOnce) = (stored, qos) {
        let mark = store.mark();
        store.send(Some(session), Some(message), packet_id);
        out.promise(conn, store.promised(mark));
    }
}

/// Sends again the next message that an earlier connection left unacknowledged.
fn resend(
    session: &mut Session,
    connection: &mut Connection,
    now: Time,
    store: &mut Store,
    stats: &mut Stats,
    out: &mut Outbox,
) {
    let stored = session.stored;
    let Some((packet_id, slot)) = session.window.resend() else {
        return;
    };
    // Too old or not: what was sent once is sent to its end [MQTT-4.3.3-7].
    let Slot::Published(delivery) = slot else {
        // After PUBREC only PUBREL [MQTT-4.3.3-6].
        let release = Ack::new(packet_id, ReasonCode::Success);
        send_ack(connection, AckKind::PubRel, &release, stats, out);
        // That PUBREC came may not be on disk yet.
        return out.promise(connection.key, store.promised(Mark::START));
    };
    let copy = Copy {
        qos: delivery.qos,
        retain: delivery.retain,
        dup: true, // [MQTT-3.3.1-1]
        packet_id: Some(packet_id),
        identifiers: &delivery.identifiers,
    };
    let qos = copy.qos;
    let message = delivery.message.stored();
    let view = delivery.message.view();
    if send_publish(connection, &view, &copy, now, stats, out) {
        if qos == QoS::ExactlyOnce && message.is_some() {
            // That it was sent before may not be on disk yet.
            out.promise(connection.key, store.promised(Mark::START));
        }
    } else {
        session.window.finish(packet_id, qos); // as if sent [MQTT-3.1.2-25]
        store.acknowledge(stored, message);
    }
}

/// Sends acknowledgements that say success, to a client that takes packets of 4 bytes.
pub(super) fn send_successes(
    connection: &Connection,
    kind: AckKind,
    packet_ids: impl Iterator<Item = PacketId>,
    stats: &mut Stats,
    out: &mut Outbox,
) {
    let output = out.write(connection.key);
    let before = output.len();
    for packet_id in packet_ids {
        Ack::new(packet_id, ReasonCode::Success).encode(kind, connection.version, output);
    }
    let bytes = (output.len() - before) as u64;
    stats.packets_sent[kind.packet_type() as usize] += bytes / Ack::SHORTEST as u64;
    stats.bytes_sent += bytes;
}

/// Sends an acknowledgement.
pub(super) fn send_ack(
    connection: &Connection,
    kind: AckKind,
    ack: &Ack<'_>,
    stats: &mut Stats,
    out: &mut Outbox,
) {
    let output = out.write(connection.key);
    let before = output.len();
    if ack.reason == ReasonCode::Success && connection.takes_acknowledgements() {
        ack.encode(kind, connection.version, output);
        return stats.sent(&output[before..]);
    }
    let encode = |reason_string, output: &mut Vec<u8>| {
        Ack {
            reason_string,
            ..*ack
        }
        .encode(kind, connection.version, output);
    };
    encode_explained(
        connection,
        explanation(connection, ack.reason),
        encode,
        output,
    );
    stats.sent(&output[before..]);
}

/// Sends one copy of a fan-out, from the encoder where its layout is a common one.
fn send_fanout(
    connection: &mut Connection,
    copy: &Copy<'_>,
    fanout: &mut Fanout<'_>,
    stats: &mut Stats,
    out: &mut Outbox,
) -> bool {
    if !copy.identifiers.is_empty()
        || connection.outgoing_aliases.is_some()
        || connection.mounted > 0
        || !fanout.is_within(connection.maximum_packet_size)
    {
        let mut sent = true;
        for message in fanout.messages() {
            sent &= send_publish(connection, &message, copy, fanout.now, stats, out);
        }
        return sent;
    }
    let output = out.write(connection.key);
    let before = output.len();
    fanout.encode(connection.version, copy, output);
    stats.publishes_sent[copy.qos as usize] += u64::from(fanout.count());
    stats.publish_bytes_sent[copy.qos as usize] += fanout.payload_bytes() as u64;
    stats.bytes_sent += (output.len() - before) as u64;
    true
}

/// Sends one PUBLISH, encoded for this client. `false` if it is larger than the client takes.
fn send_publish(
    connection: &mut Connection,
    message: &MessageView<'_>,
    copy: &Copy<'_>,
    now: Time,
    stats: &mut Stats,
    out: &mut Outbox,
) -> bool {
    // Nothing else comes to a client with a mount: `may_receive`.
    let topic = message.topic.as_str();
    let topic = topic.get(connection.mounted.into()..).unwrap_or(topic);
    let named = match &connection.outgoing_aliases {
        Some(aliases) => aliases.look_up(topic),
        None => Named::ByName,
    };
    let alias = match named {
        Named::ByName => None,
        Named::Introduce(alias) | Named::ByAlias(alias) => Some(alias),
    };
    let mut head = head(connection.version, message, copy, alias, now);
    head.topic = match named {
        Named::ByAlias(_) => "",
        Named::ByName | Named::Introduce(_) => topic,
    };
    if !connection.version.is_v5() {
        head.subscription_identifiers = &[];
    }
    let output = out.write(connection.key);
    let before = output.len();
    head.encode(output);
    let counted = (copy.qos, message.payload.len());
    let sent = count_publish(connection, output, before, counted, stats);
    if let (true, Named::Introduce(alias)) = (sent, named)
        && let Some(aliases) = &mut connection.outgoing_aliases
    {
        aliases.introduce(topic, alias);
    }
    sent
}

/// Counts the PUBLISH that stands in `output` from `start` on, or takes it back if it is larger than
/// the client's Maximum Packet Size [MQTT-3.1.2-24].
fn count_publish(
    connection: &Connection,
    output: &mut Vec<u8>,
    start: usize,
    (qos, payload): (QoS, usize),
    stats: &mut Stats,
) -> bool {
    let size = output.len() - start;
    if size > connection.maximum_packet_size.min(MAX_PACKET_SIZE) as usize {
        output.truncate(start);
        stats.drop_messages(DropReason::TooLarge, 1);
        return false;
    }
    // `Shard::stats` adds them to the packets.
    stats.publishes_sent[qos as usize] += 1;
    stats.publish_bytes_sent[qos as usize] += payload as u64;
    stats.bytes_sent += size as u64;
    true
}
