//! QoS 2 messages that go to other shards from a session that outlives its connection.
//!
//! Two journals cannot come to disk at once. If the publisher's had its packet identifier and the other one
//! not the message, it would be lost: the client sends it again, and is told that it came. The other way
//! round it would come twice. So the publisher's shard puts the message itself on disk with the packet
//! identifier, hands it over only then, and keeps it until every shard has answered that it is on disk
//! there. Those note which they have, in the order in which they are sent. At the start every shard tells
//! the others what the last one was that it has, and what is behind that is handed over again.
//!
//! It costs a second commit, one after the other, for such a message alone.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::{Errands, RestoredForward};
use crate::message::{ItemId, MessageView, Position};
use crate::route::{SessionKey, ShardId};
use crate::topic::Subscription;

use super::batch::{Batch, Control};
use super::mesh::Waiter;
use super::{Outbox, Shard};

/// Messages on their way, by what the journal calls them.
#[derive(Default)]
pub(super) struct Forwards {
    /// Those that wait until they are on disk here.
    late: VecDeque<(Position, ItemId, Parcel)>,
    /// Those that wait for answers.
    under_way: BTreeMap<ItemId, UnderWay>,
    /// Those that were under way before the start, until every shard has said what it has.
    restored: Vec<RestoredForward>,
}

/// A message and where it goes.
#[derive(Default)]
pub(super) struct Parcel {
    /// Shards whose subscribers get it, one bit each.
    shards: u64,
    errands: Vec<Errand>,
    message: Batch,
}

/// What a message is for besides subscribers.
enum Errand {
    /// The shard keeps the retained message of its topic.
    Retain(ShardId),
    /// One member of a group gets it; the session that was picked, if that is known.
    Member(ShardId, Option<SessionKey>, Box<str>),
}

struct UnderWay {
    /// Shards that have not answered.
    waiting: u32,
    refused: bool,
    /// Who is told in the end.
    waiter: Option<Waiter>,
}

impl Parcel {
    pub(super) fn add_shard(&mut self, shard: ShardId) {
        self.shards |= 1 << shard.index();
    }

    pub(super) fn add_retained(&mut self, keeper: ShardId) {
        self.errands.push(Errand::Retain(keeper));
    }

    pub(super) fn add_member(
        &mut self,
        shard: ShardId,
        session: SessionKey,
        subscription: Subscription<'_>,
    ) {
        let text = subscription.to_text().into();
        self.errands
            .push(Errand::Member(shard, Some(session), text));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shards == 0 && self.errands.is_empty()
    }

    fn len(&self) -> u32 {
        self.shards.count_ones() + self.errands.len() as u32
    }

    fn errands(&self) -> Errands {
        let mut errands = Errands::default();
        for errand in &self.errands {
            match errand {
                Errand::Retain(shard) => errands.push(shard.index(), ""),
                Errand::Member(shard, _, group) => errands.push(shard.index(), group),
            }
        }
        errands
    }
}

impl Shard {
    /// Hands a message over as soon as it is on disk here. `false` if it cannot be put there.
    pub(super) fn forward(
        &mut self,
        message: &MessageView<'_>,
        mut parcel: Parcel,
        waiter: Option<Waiter>,
    ) -> bool {
        let mark = self.store.mark();
        let errands = parcel.errands();
        let Some(item) = self.store.forward(message, parcel.shards, &errands) else {
            return false;
        };
        let position = self.store.promised(mark);
        parcel.message.push(message);
        let under_way = UnderWay {
            waiting: parcel.len(),
            refused: false,
            waiter,
        };
        self.forwards.under_way.insert(item, under_way);
        self.forwards.late.push_back((position, item, parcel));
        true
    }

    /// Hands over what is on disk by now.
    pub(super) fn send_late(&mut self, out: &mut Outbox) {
        while let Some((_, item, parcel)) = self
            .forwards
            .late
            .pop_front_if(|(position, ..)| *position <= out.durable())
        {
            for frame in parcel.message.frames() {
                for shard in
                    (0..self.identity.shards).filter(|shard| parcel.shards >> shard & 1 == 1)
                {
                    self.send_forward(ShardId::new(shard), &frame.message, item, out);
                }
                for errand in &parcel.errands {
                    self.run_errand(errand, &frame.message, item, out);
                }
            }
        }
    }

    fn send_forward(
        &mut self,
        shard: ShardId,
        message: &MessageView<'_>,
        item: ItemId,
        out: &mut Outbox,
    ) {
        out.live(shard, |batch| {
            batch.push(message);
            batch.set_origin(item);
        });
        self.mesh.sent_live(shard, Some(Waiter::Forward(item)));
    }

    fn run_errand(
        &mut self,
        errand: &Errand,
        message: &MessageView<'_>,
        item: ItemId,
        out: &mut Outbox,
    ) {
        match errand {
            Errand::Retain(keeper) => {
                let mut batch = out.spare_batch();
                batch.push(message);
                batch.set_origin(item);
                let waiter = Some(Waiter::Forward(item));
                self.mesh
                    .control(*keeper, Control::Retain(batch), waiter, out);
            }
            Errand::Member(shard, session, group) => {
                // Nobody has the key of nobody: the other shard picks another member.
                let nobody = SessionKey {
                    index: u32::MAX,
                    generation: u32::MAX,
                };
                let subscription = Subscription::trusted(group);
                out.live(*shard, |batch| {
                    batch.push_shared(message, session.unwrap_or(nobody), subscription);
                    batch.set_origin(item);
                });
                self.mesh.sent_live(*shard, Some(Waiter::Forward(item)));
            }
        }
    }

    /// A shard has answered for a forwarded message.
    pub(super) fn forward_answered(&mut self, item: ItemId, refused: bool, out: &mut Outbox) {
        let Some(under_way) = self.forwards.under_way.get_mut(&item) else {
            return;
        };
        under_way.waiting -= 1;
        under_way.refused |= refused;
        if under_way.waiting == 0
            && let Some(done) = self.forwards.under_way.remove(&item)
        {
            self.store.forwarded(item);
            if let Some(waiter) = done.waiter {
                self.settled(waiter, done.refused, out);
            }
        }
    }

    /// What was under way when the process ended.
    pub(super) fn restore_forwards(&mut self, forwards: Vec<RestoredForward>) {
        for forward in &forwards {
            let errands = Errands::each(&forward.errands).count() as u32;
            let under_way = UnderWay {
                waiting: forward.shards.count_ones() + errands,
                refused: false,
                waiter: None,
            };
            self.forwards.under_way.insert(forward.id, under_way);
        }
        self.forwards.restored = forwards;
    }

    /// Another shard says what it has of what was under way to it; it gets the rest.
    pub(super) fn arrived(
        &mut self,
        from: ShardId,
        live: Option<ItemId>,
        control: Option<ItemId>,
        out: &mut Outbox,
    ) {
        let epoch = self.store.epoch();
        let restored = std::mem::take(&mut self.forwards.restored);
        for forward in &restored {
            let has_live = live >= Some(forward.id);
            let has_control = control >= Some(forward.id);
            let stored = forward.message();
            let view = epoch.view(&stored);
            if forward.shards >> from.index() & 1 == 1 {
                match has_live {
                    true => self.forward_answered(forward.id, false, out),
                    false => self.send_forward(from, &view, forward.id, out),
                }
            }
            for (shard, group) in Errands::each(&forward.errands) {
                if shard != from.index() {
                    continue;
                }
                let (errand, has) = match group {
                    "" => (Errand::Retain(from), has_control),
                    group => (Errand::Member(from, None, group.into()), has_live),
                };
                match has {
                    true => self.forward_answered(forward.id, false, out),
                    false => self.run_errand(&errand, &view, forward.id, out),
                }
            }
        }
        self.forwards.restored = restored;
    }

    /// What `from` forwarded is here, with all that came of it since `before`.
    pub(super) fn note_origin(&mut self, lane: Lane, from: ShardId, origin: Option<ItemId>) {
        if let Some(item) = origin {
            self.store.note_origin(lane.number(from), item);
        }
    }

    /// Tells every shard what is here of what it forwarded. Comes at the start, before everything else.
    pub(super) fn tell_arrived(&mut self, out: &mut Outbox) {
        for shard in (0..self.identity.shards).map(ShardId::new) {
            if shard != self.identity.shard {
                let arrived = Control::Arrived {
                    live: self.store.origin(Lane::Live.number(shard)),
                    control: self.store.origin(Lane::Control.number(shard)),
                };
                self.mesh.control(shard, arrived, None, out);
            }
        }
    }
}

/// By which lane a forwarded message comes: each keeps its order, the two together do not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    Live,
    Control,
}

impl Lane {
    fn number(self, from: ShardId) -> u32 {
        let from = 2 * from.index() as u32;
        match self {
            Self::Live => from,
            Self::Control => from + 1,
        }
    }
}
