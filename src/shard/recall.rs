//! A subscription to history, on the shard of the subscriber: `$history/-24h../vehicle/+/telemetry`.
//!
//! Each lane of the stream is read by a cursor of its own, a page at a time, and only while the client has
//! room. First comes what every lane held when it was asked the first time, and so all that was published before
//! the SUBSCRIBE came: the lanes are merged in the order of time. If the subscription goes on, it then follows
//! the lanes from exactly there, each by itself, as live messages of several publishers come.
//!
//! It is no subscription of the session but of the connection: it ends with it, and what was not handed over by
//! then is asked for again by whoever wants it. Messages that it sends are in no journal; they are on disk
//! already.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::history::block::{Records, time_of};
use crate::history::range::{PREFIX, RECEIVED_AT, Request, Until, format};
use crate::history::{Cursor, Page, Query, START};
use crate::limits::{
    HISTORY_PAGE_BYTES, HISTORY_PAGES_PER_TURN, HISTORY_REPLAYS, HISTORY_REPLAYS_PER_SESSION,
    HISTORY_ROOM,
};
use crate::message::MessageView;
use crate::route::{SessionKey, ShardId};
use crate::session::{ConnKey, Delivery, Identifiers, ReplayKey};
use crate::stats::DropReason;
use crate::time::Time;
use crate::topic::{Filter, Name, Subscription};
use crate::wire::{Property, QoS, ReasonCode, SubscriptionOptions, Version};

use super::batch::Control;
use super::history::{HistoryAnswer, HistoryQuestion};
use super::{Outbox, Shard};

/// Why a subscription to history is refused: what the client is told.
pub(super) type Refusal = (ReasonCode, Option<&'static str>);

const NO_RANGE: &str = "$history/RANGE/FILTER: a range is FROM, FROM.. or FROM..TO, each of them like -24h, \
                        2026-11-21T00:00:00Z, or seconds since 1970";
const NO_STREAM: &str = "no history stream keeps all that this filter matches";
const SHARED: &str = "history is not shared among clients";
const NO_LOCAL: &str = "history does not know who published: No Local cannot be had";
const TOO_MANY: &str = "too many replays of history at a time";

/// Bytes of output from which on a client gets no more until it has read most of them.
const OUTPUT_BYTES: usize = 256 * 1024;

/// The subscriptions to history of a shard's clients.
#[derive(Default)]
pub(super) struct Recalls {
    by_key: BTreeMap<ReplayKey, Recall>,
    by_session: BTreeMap<SessionKey, Vec<ReplayKey>>,
    /// Sessions that may get something.
    ready: VecDeque<SessionKey>,
}

/// One of them.
struct Recall {
    session: SessionKey,
    /// The topic filter, as the client wrote it.
    text: Box<str>,
    stream: usize,
    query: Query,
    qos: QoS,
    identifier: u32,
    /// Whether it goes on with what is published,
    follows: bool,
    /// and does so now.
    is_live: bool,
    /// Whether SUBACK was sent.
    begun: bool,
    page_bytes: usize,
    lanes: Vec<Lane>,
}

struct Lane {
    number: u16,
    cursor: Cursor,
    /// The first record that is no more of what was there at the begin.
    until: Option<(u32, u64)>,
    page: Page,
    /// Bytes of the page that were handed over, and when the next record was received.
    read: usize,
    next: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be asked.
    Idle,
    /// A page is on its way.
    Asked,
    /// There is no more.
    Done,
}

/// What a subscription does next.
enum Next {
    /// It takes a record of this lane.
    Take(usize),
    /// It asks this lane.
    Ask(usize),
    /// It waits for an answer.
    Wait,
    /// It is over.
    Over,
}

impl Lane {
    fn new(number: u16, cursor: Cursor) -> Self {
        Self {
            number,
            cursor,
            until: None,
            page: Page::default(),
            read: 0,
            next: None,
            state: State::Idle,
        }
    }

    fn look(&mut self) {
        let rest = self.page.records.get(self.read..);
        self.next = rest.and_then(time_of);
    }
}

impl Recall {
    fn next(&self) -> Next {
        let lanes = || self.lanes.iter().enumerate();
        let empty = |lane: &Lane| lane.next.is_none();
        if let Some((index, _)) = lanes().find(|(_, lane)| empty(lane) && lane.state == State::Idle)
        {
            return Next::Ask(index);
        }
        // What was there is merged, so each lane must show its next record.
        if !self.is_live && lanes().any(|(_, lane)| empty(lane) && lane.state == State::Asked) {
            return Next::Wait;
        }
        let next = lanes().filter_map(|(index, lane)| Some((lane.page.run, lane.next?, index)));
        match next.min() {
            Some((_, _, index)) => Next::Take(index),
            None if self.is_live => Next::Wait,
            None => Next::Over,
        }
    }

    /// Follows the lanes that are written to, from where it is.
    fn go_live(&mut self, shards: usize) {
        self.is_live = true;
        self.lanes.retain(|lane| usize::from(lane.number) < shards);
        for lane in &mut self.lanes {
            let (run, seq) = lane.until.unwrap_or_default();
            *lane = Lane {
                until: Some((u32::MAX, u64::MAX)),
                ..Lane::new(lane.number, Cursor::at(run, seq))
            };
        }
    }
}

impl Recalls {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether a session has one.
    #[inline]
    pub(super) fn are_of(&self, session: SessionKey) -> bool {
        !self.by_session.is_empty() && self.by_session.contains_key(&session)
    }

    /// What those of a session match.
    pub(super) fn filters(&self, session: SessionKey) -> impl Iterator<Item = &str> {
        let keys = self.by_session.get(&session).into_iter().flatten();
        keys.filter_map(|key| Some(&*self.by_key.get(key)?.query.filter))
    }

    fn make_ready(&mut self, session: SessionKey) {
        if !self.ready.contains(&session) {
            self.ready.push_back(session);
        }
    }

    fn take_out(&mut self, key: ReplayKey) -> Option<Recall> {
        let recall = self.by_key.remove(&key)?;
        if let Some(keys) = self.by_session.get_mut(&recall.session) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_session.remove(&recall.session);
            }
        }
        Some(recall)
    }
}

/// Whether a subscription is one to history.
pub(super) fn is_recall(subscription: Subscription<'_>) -> bool {
    subscription.filter.as_str().starts_with(PREFIX)
}

impl Shard {
    /// A SUBSCRIBE asks for history: returns the QoS that is granted, and what begins with SUBACK.
    pub(super) fn recall(
        &mut self,
        key: SessionKey,
        subscription: Subscription<'_>,
        options: SubscriptionOptions,
        identifier: u32,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(QoS, ReplayKey), Refusal> {
        const INVALID: ReasonCode = ReasonCode::TopicFilterInvalid;
        if subscription.share.is_some() {
            return Err((INVALID, Some(SHARED)));
        }
        if options.no_local {
            return Err((ReasonCode::ImplementationSpecificError, Some(NO_LOCAL)));
        }
        let text = subscription.filter.as_str();
        let Some(history) = self.history.as_deref() else {
            return Err((INVALID, Some(NO_STREAM)));
        };
        let request = Request::parse(text, history.micros(now));
        let request = request.map_err(|_| (INVALID, Some(NO_RANGE)))?;
        let filter = Filter::parse(request.filter).map_err(|_| (INVALID, None))?;
        let wanted = Subscription {
            share: None,
            filter,
        };
        let place = history.log.place();
        let stream = history.log.stream_for(filter);
        if let Some(reason) = self.unavailable(wanted, identifier) {
            return Err((reason, None));
        }
        let stream = stream.ok_or((INVALID, Some(NO_STREAM)))?;
        if !self.may_subscribe(key, wanted) {
            return Err((ReasonCode::NotAuthorized, None));
        }
        self.cancel_recalls(key, Some(text), out); // the same again begins anew [MQTT-3.8.4-3]
        let of_session = self.recalls.by_session.get(&key).map_or(0, Vec::len);
        if of_session >= HISTORY_REPLAYS_PER_SESSION || self.recalls.len() >= HISTORY_REPLAYS {
            return Err((ReasonCode::QuotaExceeded, Some(TOO_MANY)));
        }
        let qos = options.qos.min(self.settings.maximum_qos); // [MQTT-3.2.2-10]
        let replay = ReplayKey(self.next_serial());
        let recall = Recall {
            session: key,
            text: text.into(),
            stream,
            query: Query {
                filter: Arc::from(request.filter),
                from: request.from,
                to: match request.until {
                    Until::Before(to) => to,
                    Until::Subscribed | Until::Never => u64::MAX,
                },
            },
            qos,
            identifier,
            follows: request.until == Until::Never,
            is_live: false,
            begun: false,
            page_bytes: HISTORY_PAGE_BYTES / usize::from(place.lanes.max(1)),
            lanes: (0..place.lanes)
                .map(|lane| Lane::new(lane, START))
                .collect(),
        };
        self.recalls.by_key.insert(replay, recall);
        self.recalls.by_session.entry(key).or_default().push(replay);
        Ok((qos, replay))
    }

    /// SUBACK was sent: those of `keys` that are subscriptions to history begin.
    pub(super) fn start_recalls(
        &mut self,
        session: SessionKey,
        keys: &[ReplayKey],
        out: &mut Outbox,
    ) {
        for key in keys {
            if let Some(recall) = self.recalls.by_key.get_mut(key) {
                recall.begun = true;
                self.recalls.make_ready(session);
                out.again = true;
            }
        }
    }

    /// Ends the subscriptions to history of a session, all or the one of this text; whether there was one.
    pub(super) fn cancel_recalls(
        &mut self,
        session: SessionKey,
        text: Option<&str>,
        out: &mut Outbox,
    ) -> bool {
        if !self.recalls.are_of(session) {
            return false;
        }
        let keys = self.recalls.by_session.get(&session).cloned();
        let mut cancelled = false;
        for key in keys.into_iter().flatten() {
            let same = |recall: &Recall| text.is_none_or(|text| *recall.text == *text);
            if self.recalls.by_key.get(&key).is_some_and(same)
                && let Some(recall) = self.recalls.take_out(key)
            {
                cancelled = true;
                self.withdraw_questions(key, &recall, out);
            }
        }
        cancelled
    }

    /// Who was asked need not answer.
    fn withdraw_questions(&mut self, key: ReplayKey, recall: &Recall, out: &mut Outbox) {
        let me = self.identity.shard;
        let asked = recall
            .lanes
            .iter()
            .filter(|lane| lane.state == State::Asked);
        let mut owners: Vec<ShardId> = asked.map(|lane| self.owner(lane.number)).collect();
        owners.dedup();
        for owner in owners {
            if owner == me {
                self.on_history_cancel(me, key);
            } else {
                let cancel = Control::HistoryCancel { replay: key };
                self.mesh.control(owner, cancel, None, out);
            }
        }
    }

    /// The shard that reads a lane.
    fn owner(&self, lane: u16) -> ShardId {
        ShardId::new(usize::from(lane) % self.identity.shards)
    }

    /// The client may have room: what waits for it goes on at the end of the turn.
    #[inline]
    pub(super) fn continue_recalls(&mut self, session: SessionKey, out: &mut Outbox) {
        if self.recalls.are_of(session) {
            let keys = self.recalls.by_session.get(&session).into_iter().flatten();
            let mut recalls = keys.filter_map(|key| self.recalls.by_key.get(key));
            if recalls.any(|recall| recall.begun && !matches!(recall.next(), Next::Wait))
                && self.has_room_for_history(session, out).is_some()
            {
                self.recalls.make_ready(session);
                out.again = true;
            }
        }
    }

    /// The connection of a session that takes more, and its version.
    fn has_room_for_history(
        &self,
        key: SessionKey,
        out: &mut Outbox,
    ) -> Option<(ConnKey, Version)> {
        let session = self.sessions.get(key)?;
        let conn = session.connection?;
        let version = self.connections.get(conn)?.version;
        if session.queue.len() >= HISTORY_ROOM {
            return None; // an acknowledgement brings us back
        }
        if out.backlog(conn) >= OUTPUT_BYTES.min(self.settings.max_output_bytes) {
            out.want_writable(conn);
            return None;
        }
        Some((conn, version))
    }

    /// Hands over what has come, and asks for more. Comes at the end of a turn.
    pub(super) fn hand_over_history(&mut self, now: Time, out: &mut Outbox) {
        for _ in 0..HISTORY_PAGES_PER_TURN {
            let Some(session) = self.recalls.ready.pop_front() else {
                return;
            };
            let keys = self.recalls.by_session.get(&session).cloned();
            for key in keys.into_iter().flatten() {
                self.bring_on(session, key, now, out);
            }
            self.pump(session, now, out);
        }
        out.again |= !self.recalls.ready.is_empty();
    }

    /// Brings one subscription on as far as its client and the pages that are there allow.
    fn bring_on(&mut self, session: SessionKey, key: ReplayKey, now: Time, out: &mut Outbox) {
        while let Some((_, version)) = self.has_room_for_history(session, out) {
            let recall = self.recalls.by_key.get_mut(&key);
            let Some(recall) = recall.filter(|recall| recall.begun) else {
                return;
            };
            match recall.next() {
                Next::Wait => return,
                Next::Over if recall.follows => recall.go_live(self.identity.shards),
                Next::Over => {
                    self.recalls.take_out(key);
                    return;
                }
                Next::Ask(lane) => self.ask_for_history(key, lane, out),
                Next::Take(lane) => {
                    if let Some((delivery, at)) = self.take_record(key, lane, version) {
                        self.deliver_history(session, delivery, at, now, out);
                    }
                }
            }
        }
    }

    fn ask_for_history(&mut self, key: ReplayKey, lane: usize, out: &mut Outbox) {
        let Some(recall) = self.recalls.by_key.get_mut(&key) else {
            return;
        };
        let Some(asked) = recall.lanes.get_mut(lane) else {
            return;
        };
        asked.state = State::Asked;
        let number = asked.number;
        let question = HistoryQuestion {
            replay: key,
            stream: recall.stream,
            lane: number,
            cursor: asked.cursor,
            query: recall.query.clone(),
            until: asked.until,
            follows: recall.is_live,
            page_bytes: recall.page_bytes,
        };
        let owner = self.owner(number);
        if owner == self.identity.shard {
            self.on_history_question(owner, question);
            out.again = true;
        } else {
            let question = Control::HistoryQuestion(Box::new(question));
            self.mesh.control(owner, question, None, out);
        }
    }

    /// A page is there.
    pub(super) fn on_history_answer(
        &mut self,
        key: ReplayKey,
        answer: HistoryAnswer,
        out: &mut Outbox,
    ) {
        let Some(recall) = self.recalls.by_key.get_mut(&key) else {
            return;
        };
        let lanes = &mut recall.lanes;
        let Some(lane) = lanes.iter_mut().find(|lane| lane.number == answer.lane) else {
            return;
        };
        self.stats.history_missed += answer.missed;
        lane.cursor = answer.cursor;
        lane.until = Some(answer.until);
        lane.page = answer.page;
        lane.read = 0;
        lane.state = match answer.end {
            true => State::Done,
            false => State::Idle,
        };
        lane.look();
        let session = recall.session;
        self.recalls.make_ready(session);
        out.again = true;
    }

    /// Takes the next record of a lane, as it is sent, and when it is too old for that.
    fn take_record(
        &mut self,
        key: ReplayKey,
        lane: usize,
        version: Version,
    ) -> Option<(Delivery, Time)> {
        let recall = self.recalls.by_key.get_mut(&key)?;
        let (qos, identifier) = (recall.qos, recall.identifier);
        let lane = recall.lanes.get_mut(lane)?;
        let mut records = Records::new(0, lane.page.records.get(lane.read..)?);
        let record = records.next().and_then(Result::ok);
        let taken = record.and_then(|record| {
            let history = self.history.as_deref()?;
            let expires_at = record.expires_at;
            let expires_at = expires_at.map_or(Time::NEVER, |at| history.time(at));
            let mut properties = record.properties.to_vec();
            if version.is_v5() {
                let at = format(record.time);
                Property::UserProperty(RECEIVED_AT, &at).encode(&mut properties);
            }
            let message = MessageView {
                topic: Name::trusted(record.topic),
                properties: &properties,
                payload: record.payload,
                qos: record.qos,
                retain: false,
                expires_at,
            };
            let mut identifiers = Identifiers::new();
            if identifier != 0 {
                identifiers.push(identifier); // [MQTT-3.3.4-3]
            }
            let delivery = Delivery {
                message: message.to_message(),
                qos: qos.min(record.qos),
                retain: false,
                identifiers,
                group: None,
            };
            Some((delivery, expires_at))
        });
        lane.read += records.offset();
        lane.look();
        if lane.next.is_none() {
            lane.page = Page::default(); // its memory goes
            lane.read = 0;
        }
        taken
    }

    /// Sends a message, or lets it wait behind those that wait.
    fn deliver_history(
        &mut self,
        key: SessionKey,
        delivery: Delivery,
        expires_at: Time,
        now: Time,
        out: &mut Outbox,
    ) {
        if expires_at < now {
            return self.stats.drop_messages(DropReason::Expired, 1); // [MQTT-3.3.2-5]
        }
        if !self.may_receive(key, delivery.message.view().topic, 1) {
            return;
        }
        self.stats.history_replayed += 1;
        let waits = self.sessions.get(key);
        let waits = waits.is_some_and(|session| !session.queue.is_empty());
        if delivery.qos == QoS::AtMostOnce && !waits {
            return self.send_at_once(key, &delivery, now, out);
        }
        self.append_to_queue(key, delivery);
    }
}
