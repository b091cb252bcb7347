//! Retained messages for a new subscription, chunk by chunk at the pace of the reader.
//!
//! Each shard keeps the retained messages of its topics, so a filter with a wildcard asks them all,
//! each with a cursor of its own, and one without asks one. A shard is asked for the next chunk only
//! when the client has room, so a subscriber to `#` with a million retained topics holds a chunk per
//! shard in memory, not a million messages, and gets every one of them.
//!
//! A retained message is never older than a live one that the client already has: while a replay
//! goes on, the topics of live retained messages are noted and left out of it; and because control
//! messages do not overtake live ones, whatever a chunk holds was live on its way before.
//!
//! Nor is one missed that was published just before its shard knew of the subscription. That shard
//! sent it to the keeper before it acknowledged the subscription, and the question followed that; but
//! the keeper may have looked into the one lane before and into the other after. So a question waits
//! until all lanes were looked into again.
//!
//! A replay outlives its connection, and goes on with the next one. In a session that outlives the process
//! its subscription is kept with a mark that retained messages are owed to it, on disk before SUBACK leaves; the
//! mark goes when the last chunk was handed out, behind the messages of that chunk, so it is never gone without
//! them. Where it stands at a start, the replay begins again from its start: nobody knows how far it had come.
//! Messages of QoS 1 and 2 may come twice then, each a delivery of its own; none is missing. One of QoS 0 may be
//! lost with its connection, as always.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::limits::{RETAINED_CHUNK, RETAINED_CHUNK_BYTES, RETAINED_SCAN};
use crate::message::Message;
use crate::route::{Scan, ScanBudget, SessionKey, ShardId, stable_hash};
use crate::session::{Delivery, Identifiers, ReplayKey, Session, SubscriptionEntry};
use crate::stats::DropReason;
use crate::time::Time;
use crate::topic::Filter;
use crate::wire::QoS;

use super::batch::{Batch, Control, home};
use super::fanout::{Encoder, Fanout, Matched};
use super::{Outbox, Shard};

/// Messages that may wait for a client when the next chunk is asked for.
const ROOM: usize = 32;

/// Retained messages on their way to one subscription.
pub(super) struct Replay {
    session: SessionKey,
    entry: SubscriptionEntry,
    sources: Vec<Source>,
    /// Hashes of the topics that the client got live meanwhile.
    seen: HashSet<u64, foldhash::fast::FixedState>,
}

/// A question of another shard for retained messages.
pub(super) struct RetainedQuery {
    pub(super) from: ShardId,
    pub(super) replay: ReplayKey,
    pub(super) filter: Arc<str>,
    pub(super) after: Option<Box<str>>,
}

/// How far the retained messages of one shard are read.
struct Source {
    shard: ShardId,
    after: Option<Box<str>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not every shard knows of the subscription.
    Unready,
    /// The next chunk may be asked for.
    Idle,
    /// A chunk is on its way.
    Asked,
    /// There is no more.
    Done,
}

impl Shard {
    /// Makes the replay of a subscription that has none, which begins with [`Shard::start_replays`]. Live
    /// messages are noted from here on.
    pub(super) fn prepare_replay(
        &mut self,
        session: SessionKey,
        entry: SubscriptionEntry,
    ) -> ReplayKey {
        let shards = self.identity.shards;
        let shards = if Filter::trusted(&entry.filter).has_wildcard() {
            (0..shards).map(ShardId::new).collect()
        } else {
            vec![home(&entry.filter, shards)]
        };
        let sources = shards
            .into_iter()
            .map(|shard| Source {
                shard,
                after: None,
                state: State::Unready,
            })
            .collect();
        let key = ReplayKey(self.next_serial());
        let seen = HashSet::default();
        self.replays.insert(
            key,
            Replay {
                session,
                entry,
                sources,
                seen,
            },
        );
        if let Some(session) = self.sessions.get_mut(session) {
            session.replays.push(key);
        }
        key
    }

    /// Whether retained messages are on their way to a subscription.
    pub(super) fn is_replaying(&self, session: SessionKey, filter: &str) -> bool {
        let session = self.sessions.get(session);
        let mut keys = session.into_iter().flat_map(|session| &session.replays);
        keys.any(|key| {
            let replay = self.replays.get(key);
            replay.is_some_and(|replay| &*replay.entry.filter == filter)
        })
    }

    /// Begins to send retained messages: every shard knows of the subscription. Replays that were
    /// cancelled meanwhile do not begin.
    pub(super) fn start_replays(
        &mut self,
        session: SessionKey,
        keys: &[ReplayKey],
        out: &mut Outbox,
    ) {
        for key in keys {
            if let Some(replay) = self.replays.get_mut(key) {
                let sources = replay.sources.iter_mut();
                sources.for_each(|source| source.state = State::Idle);
            }
        }
        self.continue_replays(session, out);
    }

    /// Ends the replays of a session, all or those of one filter.
    pub(super) fn cancel_replays(&mut self, session: SessionKey, filter: Option<&str>) {
        let Some(session) = self.sessions.get_mut(session) else {
            return;
        };
        let replays = &mut self.replays;
        session.replays.retain(|key| {
            let keeps = filter.is_some_and(|filter| {
                replays
                    .get(key)
                    .is_some_and(|replay| &*replay.entry.filter != filter)
            });
            if !keeps {
                replays.remove(key);
            }
            keeps
        });
    }

    /// The client gets a live retained message on `topic`.
    pub(super) fn note_live(&mut self, session: SessionKey, topic: &str) {
        let Some(session) = self.sessions.get(session) else {
            return;
        };
        for key in &session.replays {
            if let Some(replay) = self.replays.get_mut(key) {
                replay.seen.insert(stable_hash(topic));
            }
        }
    }

    /// Asks for the next chunks, if the client has room for them.
    pub(super) fn continue_replays(&mut self, key: SessionKey, out: &mut Outbox) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        if session.replays.is_empty() || session.queue.len() >= ROOM {
            return;
        }
        let Some(conn) = session.connection else {
            return;
        }; // goes on when the client is back
        if out.backlog(conn) > Outbox::LOW_WATERMARK {
            out.want_writable(conn);
            return;
        }
        for &replay_key in &session.replays {
            let Some(replay) = self.replays.get_mut(&replay_key) else {
                continue;
            };
            for source in &mut replay.sources {
                if source.state != State::Idle {
                    continue;
                }
                source.state = State::Asked;
                if source.shard == self.identity.shard {
                    self.ready_replays.push(replay_key);
                    out.again = true;
                } else {
                    let query = Control::RetainedQuery {
                        replay: replay_key,
                        filter: Arc::clone(&replay.entry.filter),
                        after: source.after.clone(),
                    };
                    self.mesh.control(source.shard, query, None, out);
                }
            }
        }
    }

    /// Reads a chunk of this shard's own retained messages for every replay that asked.
    pub(super) fn read_own_retained(&mut self, now: Time, out: &mut Outbox) {
        for key in std::mem::take(&mut self.ready_replays) {
            let Some(replay) = self.replays.get(&key) else {
                continue;
            };
            let me = self.identity.shard;
            let after = replay
                .sources
                .iter()
                .find(|source| source.shard == me)
                .and_then(|source| source.after.clone());
            let filter = Arc::clone(&replay.entry.filter);
            let (found, after) = self.scan(&filter, after.as_deref());
            self.replayed(key, me, found, after, now, out);
        }
    }

    /// Another shard asks for a chunk. It is answered at the end of the next turn: by then the lanes
    /// of all shards were looked into once more, and every message that was retained before the
    /// question was put is kept.
    pub(super) fn on_retained_query(&mut self, query: RetainedQuery) {
        self.queries.push(query);
    }

    /// Answers the questions of the turn before.
    pub(super) fn answer_queries(&mut self, out: &mut Outbox) {
        let next = std::mem::take(&mut self.queries);
        out.again |= !next.is_empty();
        for query in std::mem::replace(&mut self.due_queries, next) {
            let (found, after) = self.scan(&query.filter, query.after.as_deref());
            let mut messages = out.spare_batch();
            for message in &found {
                messages.push(&message.view());
            }
            let chunk = Control::RetainedChunk {
                replay: query.replay,
                messages,
                after,
            };
            self.mesh.control(query.from, chunk, None, out);
        }
    }

    fn scan(&self, filter: &str, after: Option<&str>) -> (Vec<Message>, Option<Box<str>>) {
        let mut found = Vec::new();
        let budget = ScanBudget {
            topics: RETAINED_SCAN,
            messages: RETAINED_CHUNK,
            bytes: RETAINED_CHUNK_BYTES,
        };
        match self
            .retained
            .scan(Filter::trusted(filter), after, budget, &mut found)
        {
            Scan::Complete => (found, None),
            Scan::More { after } => (found, Some(after)),
        }
    }

    /// Another shard sends a chunk.
    pub(super) fn on_retained_chunk(
        &mut self,
        from: ShardId,
        replay: ReplayKey,
        messages: Box<Batch>,
        after: Option<Box<str>>,
        now: Time,
        out: &mut Outbox,
    ) {
        let found = messages
            .frames()
            .map(|frame| frame.message.to_message())
            .collect();
        self.replayed(replay, from, found, after, now, out);
        out.recycle(messages);
    }

    /// A chunk is there: it goes to the client, whose room was made sure of before.
    fn replayed(
        &mut self,
        key: ReplayKey,
        from: ShardId,
        found: Vec<Message>,
        after: Option<Box<str>>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(replay) = self.replays.get_mut(&key) else {
            return;
        };
        let session_key = replay.session;
        let connected = self
            .sessions
            .get(session_key)
            .is_some_and(|session| session.connection.is_some());
        let Some(source) = replay
            .sources
            .iter_mut()
            .find(|source| source.shard == from)
        else {
            return;
        };
        if !connected {
            source.state = State::Idle; // asked for again when the client is back
            return;
        }
        source.state = if after.is_some() {
            State::Idle
        } else {
            State::Done
        };
        source.after = after;
        let mut deliveries = Vec::with_capacity(found.len());
        for message in found {
            if replay.seen.contains(&stable_hash(message.topic())) {
                continue;
            }
            deliveries.push(retained_delivery(message, &replay.entry));
        }
        let mut sources = replay.sources.iter();
        let is_over = sources.all(|source| source.state == State::Done);
        for delivery in deliveries {
            self.deliver_retained(session_key, delivery, now, out);
        }
        if is_over {
            self.end_replay(key);
        }
        self.pump(session_key, now, out);
    }

    /// Everything was handed out: nothing is owed any more.
    fn end_replay(&mut self, key: ReplayKey) {
        let Some(replay) = self.replays.remove(&key) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(replay.session) else {
            return;
        };
        session.replays.retain(|other| *other != key);
        // As it is now: it may have been replaced without another replay.
        if let Ok(at) = session.subscription(&replay.entry.filter) {
            let stored = session.stored;
            let entry = &mut session.subscriptions[at];
            entry.stored = self.store.replayed(stored, entry).or(entry.stored);
        }
    }

    /// Keeps a retained message for a session that outlives its connection, as any other.
    fn store_retained(&mut self, key: SessionKey, delivery: Delivery, now: Time) -> Delivery {
        if self.sessions.get(key).and_then(Session::keeps).is_none() {
            return delivery;
        }
        let mut encoder = Encoder::default();
        let mut fanout = Fanout::new(delivery.message.view(), &mut encoder, 1, now);
        let matched = Matched {
            qos: delivery.qos,
            retain_as_published: true,
            identifiers: delivery.identifiers.clone(),
            group: None,
        };
        self.store_for(key, &matched, &mut fanout);
        Delivery {
            message: fanout.keep(),
            ..delivery
        }
    }

    /// Queues a retained message past the limits of the queue: how many there are is bounded by the
    /// chunks that were asked for, and none may be cut off.
    fn deliver_retained(
        &mut self,
        key: SessionKey,
        delivery: Delivery,
        now: Time,
        out: &mut Outbox,
    ) {
        if delivery.message.expires_at() < now {
            self.stats.drop_messages(DropReason::Expired, 1);
            return;
        }
        if !self.may_receive(key, delivery.message.view().topic, 1) {
            return;
        }
        if delivery.qos == QoS::AtMostOnce {
            return self.send_at_once(key, &delivery, now, out);
        }
        let delivery = self.store_retained(key, delivery, now);
        self.append_to_queue(key, delivery);
    }
}

fn retained_delivery(message: Message, entry: &SubscriptionEntry) -> Delivery {
    let mut identifiers = Identifiers::new();
    if entry.identifier != 0 {
        identifiers.push(entry.identifier); // [MQTT-3.3.4-3]
    }
    Delivery {
        qos: entry.options.qos.min(message.view().qos),
        retain: true, // [MQTT-3.3.1-8 3.1.1]
        message,
        identifiers,
        group: None,
    }
}
