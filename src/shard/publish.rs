//! A PUBLISH from a client, and the way of any message to everybody who wants it.

use crate::journal::Position;
use crate::message::{ItemId, Message, MessageView};
use crate::route::{Matches, Receiver, SessionKey, ShardId};
use crate::session::{Acknowledgement, Connection, Identifiers, Session};
use crate::stats::{Denied, Stats};
use crate::time::Time;
use crate::topic::Name;
use crate::wire::{Ack, AckKind, PacketId, Publish, QoS, ReasonCode, Run, Version, Violation};

use super::batch::{Control, home};
use super::deliver::{send_ack, send_successes};
use super::durable::{Mark, Store};
use super::fanout::{Fanout, Matched};
use super::forward::Parcel;
use super::mesh::Waiter;
use super::{ConnKey, Fault, Outbox, QueueOverflow, Shard};

/// Bytes that are kept for the next topic of a client with a mount.
const KEPT_TOPIC: usize = 1024;

/// Who publishes, as far as routing has to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publisher {
    /// The session, `None` for the broker itself and for wills: it makes No Local work.
    pub(super) session: Option<SessionKey>,
    /// Who is told when other shards have answered.
    pub(super) waiter: Option<Waiter>,
    /// Whether it must come to other shards once, whatever dies meanwhile.
    pub(super) exactly_once: bool,
}

impl Publisher {
    /// Nobody waits, nobody is left out.
    pub(super) const BROKER: Self = Self {
        session: None,
        waiter: None,
        exactly_once: false,
    };
}

/// A PUBLISH as it came, and as what it can be passed on without being encoded again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) publish: Publish<'a>,
    /// The packet itself and those that continue it; all of them are meant.
    pub(super) run: Option<Run<'a>>,
}

/// What became of a publish, as far as it is known at once.
#[derive(Default)]
pub(super) struct Published {
    /// Whether anybody wants it.
    pub(super) matched: bool,
    /// Whether a session's full queue refused it (`queue_overflow = "reject"`).
    pub(super) refused: bool,
    /// Shards that have to answer.
    pub(super) waiting: u32,
    /// What is to be on disk here before other shards get it, if there is such a thing.
    pub(super) parcel: Option<Parcel>,
}

/// What the publisher of a message is told, and when.
#[derive(Clone, Copy, Debug)]
struct Told {
    reason: ReasonCode,
    /// Shards that have to answer before.
    waiting: u32,
    /// How far the journal must have come before.
    durable: Position,
}

impl Told {
    const fn now(reason: ReasonCode, durable: Position) -> Self {
        Self {
            reason,
            waiting: 0,
            durable,
        }
    }
}

impl Published {
    /// What its publisher is told.
    const fn reason(&self) -> ReasonCode {
        match self {
            Self { refused: true, .. } => ReasonCode::QuotaExceeded,
            Self { matched: false, .. } => ReasonCode::NoMatchingSubscribers,
            _ => ReasonCode::Success,
        }
    }
}

impl<'a> Incoming<'a> {
    /// The packet identifiers of all messages; none with QoS 0.
    fn packet_ids(&self) -> impl Iterator<Item = PacketId> + use<'a> {
        let several = self.run.filter(|run| run.count() > 1);
        let single = self.publish.packet_id.filter(|_| several.is_none());
        let packets = several.into_iter().flat_map(|run| run.packets());
        packets.filter_map(|packet| packet.packet_id).chain(single)
    }
}

impl Shard {
    /// PUBLISH: resolves the alias, checks what the client may do, routes, and owes the answer that its
    /// QoS asks for [MQTT-3.3.4-1].
    pub(super) fn on_publish(
        &mut self,
        conn: ConnKey,
        session: SessionKey,
        incoming: &Incoming<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let publish = &incoming.publish;
        let (count, bytes) = match &incoming.run {
            Some(run) => (run.count(), run.payload_bytes()),
            None => (1, publish.payload.len()),
        };
        let qos = publish.qos as usize;
        self.stats.publishes_received[qos] += u64::from(count);
        self.stats.publish_bytes_received[qos] += bytes as u64;
        self.keep_pace(conn, (count, bytes), now, out);
        let Some(connection) = self.connections.get_mut(conn) else {
            return Ok(());
        };
        if !publish.properties.subscription_identifiers.is_empty() {
            return Err(Fault::SubscriptionIdentifierFromClient); // [MQTT-3.3.4-6]
        }
        if publish.qos > self.settings.maximum_qos {
            return Err(Fault::QoSNotSupported); // [MQTT-3.2.2-11]
        }
        if publish.retain && !self.settings.retain_available {
            return Err(Fault::RetainNotSupported); // [MQTT-3.2.2-14]
        }
        let Some(alias) = publish.properties.topic_alias else {
            return self.publish_from(
                conn,
                session,
                Name::trusted(publish.topic),
                incoming,
                now,
                out,
            );
        };
        if alias > self.settings.topic_alias_maximum {
            // [MQTT-3.3.2-9] [MQTT-3.2.2-17], and [MQTT-3.2.2-18] where none is announced
            return Err(Fault::TopicAliasTooLarge);
        }
        let mut aliases = connection.incoming_aliases.take().unwrap_or_default();
        let topic = if publish.topic.is_empty() {
            aliases.get(alias)
        } else {
            aliases.set(alias, publish.topic); // [MQTT-3.3.2-12]
            Some(publish.topic)
        };
        let result = match topic {
            Some(topic) => {
                self.publish_from(conn, session, Name::trusted(topic), incoming, now, out)
            }
            None => Err(Fault::TopicAliasUnknown), // section 3.3.2.3.4
        };
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.incoming_aliases = Some(aliases);
        }
        result
    }

    /// A PUBLISH, or a run, whose topic is known.
    fn publish_from(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        topic: Name<'_>,
        incoming: &Incoming<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(mount) = self.mount_of(key).cloned() else {
            return self.publish_whole(conn, key, topic, incoming, now, out);
        };
        let mut whole = std::mem::take(&mut self.whole);
        // What names the topic otherwise cannot be passed on as it came.
        let incoming = Incoming {
            run: None,
            ..*incoming
        };
        let result = match mount.name(topic, &mut whole) {
            Ok(topic) => self.publish_whole(conn, key, topic, &incoming, now, out),
            Err(_) => Err(Violation::TopicNameTooManyLevels.into()),
        };
        whole.shrink_to(KEPT_TOPIC);
        self.whole = whole;
        result
    }

    /// A PUBLISH, or a run, with the whole name of its topic.
    fn publish_whole(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        topic: Name<'_>,
        incoming: &Incoming<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if !self.take_packet_ids(conn, key, incoming)? {
            // A QoS 2 message that came before: answered, not delivered again [MQTT-4.3.3-10].
            let told = Told::now(ReasonCode::Success, self.store.promised(Mark::START));
            self.owe(conn, key, incoming, told, out);
            return Ok(());
        }
        let publish = &incoming.publish;
        if let Some(refused) = self.barred(conn, key, topic, incoming, out) {
            return refused;
        }
        let mut stitched = Vec::new();
        let properties = publish
            .properties
            .forwarded
            .as_contiguous()
            .unwrap_or_else(|| {
                publish.properties.forwarded.write_to(&mut stitched);
                &stitched
            });
        let message = MessageView {
            topic,
            properties,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at: publish
                .properties
                .message_expiry_interval
                .map_or(Time::NEVER, |seconds| now.plus_secs(seconds.into())),
        };
        if self.store.is_short() && self.needs_disk(&message) {
            return self.refuse_for_space(conn, key, incoming, out);
        }
        let waiter = publish.packet_id.and_then(|packet_id| {
            let connection = self.connections.get(conn)?;
            let waiting = connection.acknowledgements.len() as u64;
            let exchange = connection.version.is_v5() && publish.qos == QoS::ExactlyOnce;
            Some(Waiter::Publish {
                conn,
                number: connection.first_acknowledgement + waiting,
                exchange: exchange.then_some((key, packet_id)),
            })
        });
        let exchange = publish
            .packet_id
            .filter(|_| publish.qos == QoS::ExactlyOnce);
        let stored = exchange.and_then(|_| self.sessions.get(key)?.keeps());
        let exactly_once = stored.is_some();
        if exactly_once {
            self.hold_together(&message);
        }
        let publisher = Publisher {
            session: Some(key),
            waiter,
            exactly_once,
        };
        let mark = self.store.mark();
        let published = self.publish(&message, incoming.run, publisher, now, out);
        if let Some(packet_id) = exchange {
            self.store.hold(stored, packet_id);
        }
        let told = Told {
            reason: published.reason(),
            waiting: published.waiting,
            durable: self.store.promised(mark),
        };
        self.owe(conn, key, incoming, told, out);
        Ok(())
    }

    /// What becomes of a PUBLISH that goes no further, for its shape or because its client may not; `None` if
    /// it does.
    fn barred(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        topic: Name<'_>,
        incoming: &Incoming<'_>,
        out: &mut Outbox,
    ) -> Option<Result<(), Fault>> {
        let count = incoming.run.map_or(1, |run| run.count());
        let reason = match self.misshapen(topic.as_str(), &incoming.publish) {
            Some(reason) => reason,
            None if self.may_publish(key, topic, (Denied::Publish, count)) => return None,
            None => {
                let connection = self.connections.get(conn);
                let old = connection.is_some_and(|connection| !connection.version.is_v5());
                if old && self.policy.disconnects_denied() {
                    return Some(Err(Fault::NotAuthorized));
                }
                // 3.1.1 cannot be told: a positive acknowledgement [MQTT-3.3.5-2 3.1.1].
                ReasonCode::NotAuthorized
            }
        };
        let refused = Told::now(reason, Position::default());
        self.owe(conn, key, incoming, refused, out);
        Some(Ok(()))
    }

    /// Whether somebody is promised that the message is on disk.
    fn needs_disk(&mut self, message: &MessageView<'_>) -> bool {
        if message.qos == QoS::AtMostOnce {
            return false;
        }
        let matches = self.routes.matches(message.topic);
        let keeps = |receiver: &Receiver| {
            let session = self.sessions.get(receiver.session);
            session.is_some_and(|session| session.keeps().is_some())
        };
        // Other shards have the same disk, most likely.
        (message.retain && !message.payload.is_empty())
            || !matches.remote.is_empty()
            || !matches.groups.is_empty()
            || matches.local.iter().any(keeps)
    }

    /// There is no space: version 5 is told, others are cut off before they take it for kept. Both may
    /// send it again.
    fn refuse_for_space(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        incoming: &Incoming<'_>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let count = incoming.run.map_or(1, |run| run.count());
        self.stats.refused_for_space += u64::from(count);
        let version = self
            .connections
            .get(conn)
            .map(|connection| connection.version);
        if version.is_some_and(Version::is_v5) {
            let refused = Told::now(ReasonCode::QuotaExceeded, Position::default());
            self.owe(conn, key, incoming, refused, out);
            return Ok(());
        }
        if let Some(session) = self.sessions.get_mut(key) {
            incoming.packet_ids().for_each(|packet_id| {
                session.received.remove(packet_id);
            });
        }
        Err(Fault::NoSpace)
    }

    /// How many messages that begin with `publish` may be taken together. Of QoS 0: all that nobody
    /// gets by a group, since who is in it gets them in turns. Of QoS 1 and 2: more than one only if all
    /// are sure to be new, to go to one session of this shard at most, and to be acknowledged alike and
    /// at once.
    pub(super) fn most_together(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        publish: &Publish<'_>,
    ) -> u32 {
        if publish.properties.topic_alias.is_some() || self.mount_of(key).is_some() {
            return 1; // nor could they be passed on as they came
        }
        let matches = self.routes.matches(Name::trusted(publish.topic));
        if !matches.groups.is_empty() {
            return 1;
        }
        if publish.qos == QoS::AtMostOnce {
            return u32::MAX;
        }
        let receiver = matches.local.first();
        let receiver = receiver.and_then(|receiver| self.sessions.get(receiver.session));
        if matches.local.len() > 1
            || !matches.remote.is_empty()
            || self.settings.queue_overflow == QueueOverflow::Reject
            || receiver.is_some_and(|session| session.keeps().is_some())
        {
            return 1; // what is kept on disk is so one by one
        }
        let (Some(connection), Some(session)) =
            (self.connections.get(conn), self.sessions.get(key))
        else {
            return 1;
        };
        let room = usize::from(self.settings.receive_maximum);
        let room = room.saturating_sub(session.received.len());
        if room == 0 || !connection.acknowledgements.is_empty() {
            1
        } else if publish.qos == QoS::AtLeastOnce {
            u32::MAX
        } else if session.received.last() < publish.packet_id && session.keeps().is_none() {
            u32::try_from(room).unwrap_or(u32::MAX)
        } else {
            1
        }
    }

    /// Takes the packet identifiers of QoS 1 and 2 messages: `false` if the message came before. With
    /// QoS 1 every PUBLISH is a new message, DUP or not [MQTT-4.3.2-5].
    fn take_packet_ids(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        incoming: &Incoming<'_>,
    ) -> Result<bool, Fault> {
        let Some(packet_id) = incoming.publish.packet_id else {
            return Ok(true); // QoS 0
        };
        let (Some(connection), Some(session)) =
            (self.connections.get(conn), self.sessions.get_mut(key))
        else {
            return Ok(false);
        };
        let exactly_once = incoming.publish.qos == QoS::ExactlyOnce;
        if exactly_once && session.received.contains(packet_id) {
            return Ok(false);
        }
        // What is unacknowledged: QoS 1 that waits for its PUBACK, QoS 2 until PUBREL. 3.1.1 knows no
        // Receive Maximum; identifiers bound it. A run was made to keep within it.
        if connection.version.is_v5() {
            let unacknowledged = connection.owed_pubacks as usize + session.received.len();
            if unacknowledged >= self.settings.receive_maximum.into() {
                return Err(Fault::ReceiveMaximumExceeded); // [MQTT-3.3.4-7]
            }
        }
        match incoming.run.filter(|run| run.count() > 1) {
            _ if !exactly_once => {}
            Some(_) => session.received.extend(incoming.packet_ids()),
            None => _ = session.received.insert(packet_id),
        }
        Ok(true)
    }

    /// Queues the acknowledgements of `incoming`, and sends what is ready: in the order of the
    /// PUBLISHes [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    fn owe(
        &mut self,
        conn: ConnKey,
        session: SessionKey,
        incoming: &Incoming<'_>,
        told: Told,
        out: &mut Outbox,
    ) {
        let Told {
            reason,
            waiting,
            durable,
        } = told;
        let kind = match incoming.publish.qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => AckKind::PubAck, // [MQTT-4.3.2-4]
            QoS::ExactlyOnce => AckKind::PubRec, // [MQTT-4.3.3-8]
        };
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if waiting == 0
            && reason == ReasonCode::Success
            && connection.acknowledgements.is_empty()
            && connection.takes_acknowledgements()
        {
            let count = incoming.run.map_or(1, |run| run.count());
            connection.first_acknowledgement += u64::from(count);
            let packet_ids = incoming.packet_ids();
            send_successes(connection, kind, packet_ids, &mut self.stats, out);
            return out.promise(conn, durable);
        }
        for packet_id in incoming.packet_ids() {
            let owed = Acknowledgement {
                kind,
                packet_id,
                reason,
                waiting,
                durable,
            };
            if connection.acknowledgements.is_empty() && waiting == 0 {
                connection.first_acknowledgement += 1;
                let session = self.sessions.get_mut(session);
                let stats = &mut self.stats;
                send_acknowledgement(connection, session, owed, &mut self.store, stats, out);
            } else {
                connection.owed_pubacks += u32::from(kind == AckKind::PubAck);
                connection.acknowledgements.push_back(owed);
            }
        }
    }

    /// A QoS 2 message was refused after its publisher was cut off: when the client repeats it, it is
    /// a new message [MQTT-4.3.3-9].
    pub(super) fn refused_unheard(&mut self, exchange: Option<(SessionKey, PacketId)>) {
        if let Some((key, packet_id)) = exchange
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.received.remove(packet_id);
            self.store.release(session.stored, packet_id);
        }
    }

    /// A shard has answered for the acknowledgement `number` of `conn`.
    pub(super) fn answered(&mut self, conn: ConnKey, number: u64, refused: bool, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        let Some(session) = connection.session() else {
            return;
        };
        let position = number.checked_sub(connection.first_acknowledgement);
        let position = position.and_then(|position| usize::try_from(position).ok());
        let owed = position.and_then(|position| connection.acknowledgements.get_mut(position));
        let Some(owed) = owed else { return };
        owed.waiting -= 1;
        if refused {
            owed.reason = ReasonCode::QuotaExceeded;
        }
        while let Some(connection) = self.connections.get_mut(conn)
            && connection
                .acknowledgements
                .front()
                .is_some_and(|owed| owed.waiting == 0)
            && let Some(owed) = connection.acknowledgements.pop_front()
        {
            connection.first_acknowledgement += 1;
            connection.owed_pubacks -= u32::from(owed.kind == AckKind::PubAck);
            let session = self.sessions.get_mut(session);
            let stats = &mut self.stats;
            send_acknowledgement(connection, session, owed, &mut self.store, stats, out);
        }
    }

    /// What comes of `message` and the packet identifier it came under is on disk wholly or not at all:
    /// otherwise it would come twice, or never.
    fn hold_together(&mut self, message: &MessageView<'_>) {
        let matches = self.routes.matches(message.topic);
        let bodies = matches.groups.len() + 2;
        let receivers = matches.local.len();
        self.store.together(message, bodies, receivers);
    }

    /// Brings `message`, or all of the run that it begins, to everybody on every shard who wants it.
    pub(super) fn publish(
        &mut self,
        message: &MessageView<'_>,
        run: Option<Run<'_>>,
        publisher: Publisher,
        now: Time,
        out: &mut Outbox,
    ) -> Published {
        // Only what matches [MQTT-3.3.2-3].
        let matches = self.routes.matches(message.topic);
        let mut published = Published {
            matched: !matches.local.is_empty()
                || !matches.remote.is_empty()
                || !matches.groups.is_empty(),
            parcel: publisher.exactly_once.then(Parcel::default),
            ..Published::default()
        };
        if !matches.streams.is_empty() {
            self.record(matches.streams, message, run, now);
        }
        let mut encoder = self.encoder.take().unwrap_or_default();
        let mut fanout = Fanout::new(*message, &mut encoder, matches.local.len(), now);
        fanout.run = run;
        // The message that is retained here is the one that is delivered here: one body on disk.
        let keeper = message
            .retain
            .then(|| home(message.topic.as_str(), self.identity.shards));
        let keeps = keeper == Some(self.identity.shard);
        if self.store.is_on() {
            let retained = keeps.then(|| self.replaced(message)).flatten();
            self.store(&matches, publisher.session, retained, &mut fanout);
        }
        published.refused = self.publish_local(&matches, publisher.session, &mut fanout, out);
        let stored = fanout.stored;
        for shard in matches.remote.iter() {
            match &mut published.parcel {
                Some(parcel) => parcel.add_shard(shard),
                None => {
                    out.live(shard, |batch| batch.push_run(message, run.as_ref()));
                    self.expect_answer(shard, message.qos, publisher.waiter, &mut published);
                }
            }
        }
        if !matches.groups.is_empty() {
            self.publish_shared(&matches, publisher, &mut fanout, &mut published, out);
        }
        self.encoder = Some(encoder);
        // Only with RETAIN [MQTT-3.3.1-8].
        if keeps {
            self.keep(message, stored);
        } else if let Some(keeper) = keeper {
            self.retain(keeper, message, publisher.waiter, &mut published, out);
        }
        if let Some(parcel) = published.parcel.take().filter(|parcel| !parcel.is_empty()) {
            match self.forward(message, parcel, publisher.waiter) {
                true => published.waiting += u32::from(publisher.waiter.is_some()),
                false => published.refused = true,
            }
        }
        published
    }

    /// Counts a live frame to `shard` that it will answer.
    pub(super) fn expect_answer(
        &mut self,
        shard: ShardId,
        qos: QoS,
        waiter: Option<Waiter>,
        published: &mut Published,
    ) {
        if qos > QoS::AtMostOnce {
            self.mesh.sent_live(shard, waiter);
            published.waiting += u32::from(waiter.is_some());
        }
    }

    /// Delivers to this shard's subscribers; `true` if a full queue refused it.
    pub(super) fn publish_local(
        &mut self,
        matches: &Matches,
        publisher: Option<SessionKey>,
        fanout: &mut Fanout<'_>,
        out: &mut Outbox,
    ) -> bool {
        let mut refused = fanout.refused;
        let mut many = self.many(matches, fanout);
        for (same, ahead) in receivers_of(matches) {
            if let Some(ahead) = ahead {
                self.sessions.prefetch(ahead);
            }
            if let (Some(many), [receiver]) = (&mut many, same)
                && self.leave_with_many(receiver, many, fanout)
            {
                continue;
            }
            if let Some((session, matched)) = merged(same, publisher) {
                refused |= !self.deliver(session, &matched, fanout, out);
            }
        }
        if let Some(many) = many {
            self.commons.count(many);
        }
        refused
    }

    /// Gives the message to one member of each matching group [MQTT-4.8.2-4].
    fn publish_shared(
        &mut self,
        matches: &Matches,
        publisher: Publisher,
        fanout: &mut Fanout<'_>,
        published: &mut Published,
        out: &mut Outbox,
    ) {
        let choice = self.choice(publisher.session, fanout.message.topic);
        for &group in &matches.groups {
            self.deliver_to_group(group, choice, publisher, fanout, published, out);
        }
    }

    /// Another shard keeps the message, or forgets the one that was kept [MQTT-3.3.1-5] [MQTT-3.3.1-6].
    fn retain(
        &mut self,
        keeper: ShardId,
        message: &MessageView<'_>,
        waiter: Option<Waiter>,
        published: &mut Published,
        out: &mut Outbox,
    ) {
        if let Some(parcel) = &mut published.parcel {
            return parcel.add_retained(keeper);
        }
        let mut batch = out.spare_batch();
        batch.push(message);
        let waiter = waiter.filter(|_| message.qos > QoS::AtMostOnce);
        published.waiting += u32::from(waiter.is_some());
        self.mesh
            .control(keeper, Control::Retain(batch), waiter, out);
    }

    /// Another shard has a message for this one to keep.
    pub(super) fn keep_for_another(&mut self, message: &MessageView<'_>, now: Time) {
        let mut encoder = self.encoder.take().unwrap_or_default();
        let mut fanout = Fanout::new(*message, &mut encoder, 0, now);
        let retained = self.replaced(message);
        self.store(&Matches::default(), None, retained, &mut fanout);
        let stored = fanout.stored;
        self.encoder = Some(encoder);
        self.keep(message, stored);
    }

    /// If `message` is to be kept as a retained one, what its topic has in the journal.
    fn replaced(&self, message: &MessageView<'_>) -> Option<Option<ItemId>> {
        let topic = message.topic.as_str();
        // What the broker tells about itself is told anew.
        let own = topic.starts_with("$SYS/");
        let kept = !own && !message.payload.is_empty() && self.store.keeps_retained();
        kept.then(|| self.retained.get(topic).and_then(Message::stored))
    }

    /// This shard keeps the retained messages of this topic; `stored` is what the journal calls it.
    fn keep(&mut self, message: &MessageView<'_>, stored: Option<ItemId>) {
        if !message.payload.is_empty() && self.retained_is_full(message) {
            return self.store.clear_retained(stored); // the one before it stays
        }
        let stored = stored.filter(|_| self.replaced(message).is_some());
        if !message.payload.is_empty() {
            if stored.is_none() {
                self.forget(message.topic.as_str()); // what was on disk is not what is retained
            }
            self.retained
                .set(message.to_message_by(stored, &mut Vec::new()));
        } else {
            self.forget(message.topic.as_str()); // [MQTT-3.3.1-6] [MQTT-3.3.1-7]
        }
    }

    fn forget(&mut self, topic: &str) {
        let old = self.retained.remove(topic);
        self.store.clear_retained(old.and_then(|old| old.stored()));
    }
}

/// Receivers after which the session comes that is asked for while the present one is worked on.
const AHEAD: usize = 12;

/// Who of this shard may get a message: for each session its subscriptions that match, and a session that comes
/// later. Groups aside.
pub(super) fn receivers_of(
    matches: &Matches,
) -> impl Iterator<Item = (&[Receiver], Option<SessionKey>)> {
    let local = &matches.local[..];
    let mut at = AHEAD;
    let overlaps = local.chunk_by(|one, next| one.session == next.session);
    overlaps.map(move |same| {
        at += same.len();
        (same, local.get(at).map(|receiver| receiver.session))
    })
}

/// What the subscriptions of one session say of a message: one copy for those that overlap, with the highest QoS
/// and every identifier [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.5-1 3.1.1]. `None` if it gets
/// none.
pub(super) fn merged(
    same: &[Receiver],
    publisher: Option<SessionKey>,
) -> Option<(SessionKey, Matched)> {
    let session = same.first()?.session;
    let own = publisher == Some(session);
    let mut wanted = None::<Matched>;
    for receiver in same {
        if own && receiver.no_local {
            continue; // [MQTT-3.8.3-3]
        }
        let matched = wanted.get_or_insert_with(|| Matched {
            qos: QoS::AtMostOnce,
            retain_as_published: false,
            identifiers: Identifiers::new(),
            group: None,
        });
        matched.qos = matched.qos.max(receiver.qos);
        matched.retain_as_published |= receiver.retain_as_published;
        if receiver.identifier != 0 {
            matched.identifiers.push(receiver.identifier);
        }
    }
    wanted.map(|matched| (session, matched))
}

fn send_acknowledgement(
    connection: &Connection,
    session: Option<&mut Session>,
    owed: Acknowledgement,
    store: &mut Store,
    stats: &mut Stats,
    out: &mut Outbox,
) {
    // A 3.1.1 client cannot be told: to it the exchange goes on until PUBREL.
    if owed.kind == AckKind::PubRec
        && owed.reason.is_error()
        && connection.version.is_v5()
        && let Some(session) = session
    {
        session.received.remove(owed.packet_id); // the identifier is free [MQTT-4.3.3-9]
        store.release(session.stored, owed.packet_id);
    }
    let ack = Ack::new(owed.packet_id, owed.reason);
    send_ack(connection, owed.kind, &ack, stats, out);
    out.promise(connection.key, owed.durable);
}
