//! What this shard and the others owe each other: who waits for whose answer.
//!
//! Live frames with QoS > 0 and counted control messages are numbered by counting them, on both
//! sides of an ordered pair; an answer says how far the other side has come. So an acknowledgement
//! across shards costs a few bytes per turn and pair, not per message.

use std::collections::VecDeque;

use crate::message::{ItemId, Position};
use crate::route::{SessionKey, ShardId};
use crate::time::Time;
use crate::wire::PacketId;

use super::batch::{Batch, Control, Target};
use super::fanout::Fanout;
use super::forward::Lane;
use super::replay::RetainedQuery;
use super::{ConnKey, Outbox, Shard};

/// Who is told when another shard has answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// The acknowledgement `number` of a connection; for QoS 2 of version 5 with the exchange that it
    /// belongs to, which outlives the connection.
    Publish {
        conn: ConnKey,
        number: u64,
        exchange: Option<(SessionKey, PacketId)>,
    },
    /// A SUBACK.
    Subscribe(u64),
    /// The message that this shard's journal keeps until all have it.
    Forward(ItemId),
}

/// The accounts with all other shards.
pub(super) struct Mesh {
    peers: Vec<Peer>,
}

#[derive(Default)]
struct Peer {
    /// Live frames with QoS > 0 sent to it.
    live_sent: u64,
    /// Counted control messages sent to it, and the last of them that changed the routes.
    control_sent: u64,
    routes_sent: u64,
    control_answered: u64,
    live_waiters: VecDeque<(u64, Waiter)>,
    control_waiters: VecDeque<(u64, Waiter)>,
    /// What came from it, and how much of that it was told.
    live_done: u64,
    control_done: u64,
    refused: Vec<u64>,
    /// How far the journal must have come before it is told of the last of that.
    gate: Position,
    /// What it was told, or will be when the journal has come so far.
    noted: (u64, u64),
    untold: VecDeque<(Position, (u64, u64))>,
}

impl Mesh {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            peers: (0..shards).map(|_| Peer::default()).collect(),
        }
    }

    /// Counts a live frame with QoS > 0.
    pub(super) fn sent_live(&mut self, to: ShardId, waiter: Option<Waiter>) {
        let Some(peer) = self.peers.get_mut(to.index()) else {
            return;
        };
        peer.live_sent += 1;
        if let Some(waiter) = waiter {
            peer.live_waiters.push_back((peer.live_sent, waiter));
        }
    }

    /// Sends a control message.
    pub(super) fn control(
        &mut self,
        to: ShardId,
        message: Control,
        waiter: Option<Waiter>,
        out: &mut Outbox,
    ) {
        let Some(peer) = self.peers.get_mut(to.index()) else {
            return;
        };
        if message.is_counted() {
            peer.control_sent += 1;
            if !matches!(message, Control::Retain(_)) {
                peer.routes_sent = peer.control_sent;
            }
            if let Some(waiter) = waiter {
                peer.control_waiters.push_back((peer.control_sent, waiter));
            }
        }
        out.control(to, message);
    }

    /// Sends a control message to every other shard.
    pub(super) fn broadcast(
        &mut self,
        me: ShardId,
        message: impl Fn() -> Control,
        out: &mut Outbox,
    ) {
        for to in (0..self.peers.len())
            .map(ShardId::new)
            .filter(|&to| to != me)
        {
            self.control(to, message(), None, out);
        }
    }

    /// Lets a SUBACK wait for every shard that has not answered for all changes of the routes that
    /// it was told, whoever made them; returns how many those are.
    pub(super) fn await_interest(&mut self, me: ShardId, serial: u64) -> usize {
        let mut waiting = 0;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if index != me.index() && peer.routes_sent > peer.control_answered {
                peer.control_waiters
                    .push_back((peer.control_sent, Waiter::Subscribe(serial)));
                waiting += 1;
            }
        }
        waiting
    }

    /// What came from `from` is done when the journal has come so far.
    fn wait_for(&mut self, from: ShardId, position: Position) {
        if let Some(peer) = self.peers.get_mut(from.index()) {
            peer.gate = peer.gate.max(position);
        }
    }

    /// Tells every shard how far this one has come since the last time, on disk where that is promised.
    pub(super) fn answer(&mut self, out: &mut Outbox) {
        let durable = out.durable();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let done = (peer.live_done, peer.control_done);
            if done != peer.noted {
                peer.noted = done;
                peer.untold.push_back((peer.gate, done));
            }
            if peer.untold.is_empty() {
                continue;
            }
            let told = std::iter::from_fn(|| {
                let told = peer.untold.pop_front_if(|(gate, _)| *gate <= durable);
                told.map(|(_, done)| done)
            });
            if let Some((live, control)) = told.last() {
                let later = peer.refused.partition_point(|&number| number <= live);
                let later = peer.refused.split_off(later);
                let refused = std::mem::replace(&mut peer.refused, later);
                let answer = Control::Answer {
                    live,
                    control,
                    refused,
                };
                out.control(ShardId::new(index), answer);
            }
        }
    }

    /// Takes out who waited for what `from` has answered now, and whether it was refused.
    fn settle(
        &mut self,
        from: ShardId,
        live: u64,
        control: u64,
        refused: &[u64],
    ) -> Vec<(Waiter, bool)> {
        let Some(peer) = self.peers.get_mut(from.index()) else {
            return Vec::new();
        };
        peer.control_answered = control;
        let mut settled = Vec::new();
        while let Some((number, waiter)) = peer
            .live_waiters
            .pop_front_if(|(number, _)| *number <= live)
        {
            settled.push((waiter, refused.binary_search(&number).is_ok()));
        }
        while let Some((_, waiter)) = peer
            .control_waiters
            .pop_front_if(|(number, _)| *number <= control)
        {
            settled.push((waiter, false));
        }
        settled
    }
}

impl Shard {
    /// A batch of publishes from another shard.
    pub fn receive_live(&mut self, from: ShardId, batch: &Batch, now: Time, out: &mut Outbox) {
        let mark = self.store.mark();
        for frame in batch.frames() {
            let mut encoder = self.encoder.take().unwrap_or_default();
            let accepted = match frame.target {
                Target::Subscribers => {
                    let matches = self.routes.matches(frame.message.topic);
                    let receivers = matches.local.len();
                    let mut fanout = Fanout::new(frame.message, &mut encoder, receivers, now);
                    fanout.run = frame.run;
                    if frame.origin.is_some() {
                        self.store.together(&frame.message, 1, receivers);
                    }
                    self.store(&matches, None, None, &mut fanout);
                    !self.publish_local(&matches, None, &mut fanout, out)
                }
                Target::Member {
                    session,
                    subscription,
                } => {
                    let mut fanout = Fanout::new(frame.message, &mut encoder, 1, now);
                    self.deliver_to_member(session, subscription, &mut fanout, out)
                }
            };
            self.encoder = Some(encoder);
            self.note_origin(Lane::Live, from, frame.origin);
            let Some(peer) = self.mesh.peers.get_mut(from.index()) else {
                continue;
            };
            if frame.message.qos > crate::wire::QoS::AtMostOnce {
                peer.live_done += 1;
                if !accepted {
                    peer.refused.push(peer.live_done);
                }
            }
        }
        self.mesh.wait_for(from, self.store.promised(mark));
    }

    /// A control message from another shard.
    pub fn receive_control(
        &mut self,
        from: ShardId,
        message: Control,
        now: Time,
        out: &mut Outbox,
    ) {
        if message.is_counted()
            && let Some(peer) = self.mesh.peers.get_mut(from.index())
        {
            peer.control_done += 1;
        }
        match message {
            Control::Interest { filter, wanted } => {
                let filter = crate::topic::Filter::trusted(&filter);
                self.routes.set_interest(filter, from, wanted);
            }
            Control::Join {
                subscription,
                member,
            } => {
                self.member_changed(&subscription, Ok(member));
            }
            Control::Leave {
                subscription,
                session,
            } => {
                self.member_changed(&subscription, Err((from, session)));
            }
            Control::Retain(batch) => {
                let mark = self.store.mark();
                for frame in batch.frames() {
                    if frame.origin.is_some() {
                        self.store.together(&frame.message, 1, 1);
                    }
                    self.keep_for_another(&frame.message, now);
                    self.note_origin(Lane::Control, from, frame.origin);
                }
                self.mesh.wait_for(from, self.store.promised(mark));
                out.recycle(batch);
            }
            Control::RetainedQuery {
                replay,
                filter,
                after,
            } => {
                self.on_retained_query(RetainedQuery {
                    from,
                    replay,
                    filter,
                    after,
                });
            }
            Control::RetainedChunk {
                replay,
                messages,
                after,
            } => {
                self.on_retained_chunk(from, replay, messages, after, now, out);
            }
            Control::HistoryQuestion(question) => self.on_history_question(from, *question),
            Control::HistoryAnswer { replay, answer } => {
                self.on_history_answer(replay, *answer, out);
            }
            Control::HistoryCancel { replay } => self.on_history_cancel(from, replay),
            Control::HistoryStored {
                stream,
                bytes,
                closed,
            } => self.on_history_stored(from, stream, (bytes, closed)),
            Control::HistoryRemove { stream, buckets } => self.on_history_remove(stream, &buckets),
            Control::Answer {
                live,
                control,
                refused,
            } => {
                for (waiter, refused) in self.mesh.settle(from, live, control, &refused) {
                    self.settled(waiter, refused, out);
                }
            }
            Control::Arrived { live, control } => self.arrived(from, live, control, out),
            Control::Report(stats) => self.sys.report(from, *stats),
        }
    }

    /// What was waited for has come.
    pub(super) fn settled(&mut self, waiter: Waiter, refused: bool, out: &mut Outbox) {
        match waiter {
            Waiter::Publish {
                conn,
                number,
                exchange,
            } => {
                if refused && self.connections.get(conn).is_none() {
                    self.refused_unheard(exchange);
                }
                self.answered(conn, number, refused, out);
            }
            Waiter::Subscribe(serial) => self.interest_known(serial, out),
            Waiter::Forward(item) => self.forward_answered(item, refused, out),
        }
    }
}
