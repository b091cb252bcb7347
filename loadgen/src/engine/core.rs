//! The clients of one thread, without their sockets: what they publish and when, and what they
//! answer. Everything here is given the time; bytes come in through [`Core::ingest`] and wait in
//! the clients' `pending` to go out.
//!
//! Invariants:
//! - A client with something in `pending` is in `touched`, or its output is busy and its end will
//!   put it there.
//! - A publisher's `sequence` never passes `due` where there is a schedule, and never its limit.

use std::sync::Arc;

use shardmq::wire::{PacketId, PublishHead, QoS};

use crate::plan::schedule::{Interval, phase};
use crate::plan::{Pace, Plan, Publishing, Verify};

use super::client::{Client, Phase};
use super::control::Phases;
use super::fleet::FleetState;
use super::payload::{Filler, HandOvers, IDENTIFIED, TIMED};
use super::publishing::MAX_BACKLOG;
use super::tally::Tally;
use super::verify::Tracker;
use super::window::Window;

/// Identifies every SUBSCRIBE; windows stay below it.
pub(super) const SUBSCRIBE_ID: u16 = u16::MAX;

/// A group as this thread has it.
#[derive(Debug)]
pub(super) struct Members {
    /// When they publish, if they do.
    pub(super) pace: Option<Pace>,
    /// Whom each message has to reach.
    pub(super) receivers: u64,
    pub(super) interval: Interval,
    /// Publishers by their phases.
    pub(super) order: Vec<(f64, u32)>,
    pub(super) cursor: usize,
    pub(super) round: u32,
    pub(super) subscribes: bool,
    pub(super) counts_as_receiver: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) plan: Arc<Plan>,
    pub(super) clients: Vec<Client>,
    pub(super) members: Vec<Members>,
    pub(super) tally: Tally,
    pub(super) filler: Filler,
    pub(super) hand_overs: Option<Arc<HandOvers>>,
    /// Per client, per publisher.
    pub(super) trackers: Vec<Vec<(u32, Tracker)>>,
    pub(super) corrupt: u64,
    /// Clients that have something to send.
    pub(super) touched: Vec<u32>,
    /// Publishers that have something to send and room for it again; each is here once.
    pub(super) hungry: Vec<u32>,
    /// Clients whose connection is to end.
    pub(super) doomed: Vec<u32>,
    /// Buffers that are not used.
    pool: Vec<Vec<u8>>,
    pub(super) phases: Phases,
    /// Messages that were due before are not measured.
    pub(super) record_from: u64,
    /// Connections that are open.
    pub(super) open: u64,
    pub(super) ready: u64,
    pub(super) failed: u64,
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) unacknowledged: u64,
    pub(super) unfinished: u64,
    /// Whether messages that arrive need neither their topics nor an answer by the client.
    pub(super) is_plain: bool,
    /// Whether some publisher of QoS 0 goes as fast as its socket.
    pub(super) is_saturating: bool,
    pub(super) fleet: Option<Box<FleetState>>,
    pub(super) started: bool,
}

impl Core {
    /// The clients of thread `shard`: every so many-th of the plan.
    pub(super) fn new(
        plan: Arc<Plan>,
        shard: usize,
        hand_overs: Option<Arc<HandOvers>>,
        phases: Phases,
    ) -> Self {
        let is_saturating = plan.publishings().any(|publishing| {
            publishing.pace == Pace::Saturated && publishing.qos == QoS::AtMostOnce
        });
        let mut core = Self {
            clients: Vec::new(),
            members: Vec::new(),
            tally: Tally::default(),
            filler: Filler::new(plan.seed, plan.payload_size),
            hand_overs,
            trackers: Vec::new(),
            corrupt: 0,
            touched: Vec::new(),
            hungry: Vec::new(),
            doomed: Vec::new(),
            pool: Vec::new(),
            phases,
            record_from: phases.begin,
            open: 0,
            ready: 0,
            failed: 0,
            expected: 0,
            received: 0,
            unacknowledged: 0,
            unfinished: 0,
            is_plain: plan.verify == Verify::None
                && plan.payload_size >= TIMED
                && plan.fleet.is_none()
                && plan
                    .publishings()
                    .all(|publishing| publishing.pace != Pace::PingPong),
            is_saturating,
            fleet: None,
            started: false,
            plan,
        };
        core.populate(shard);
        core.fleet = FleetState::of(&core);
        core
    }

    fn populate(&mut self, shard: usize) {
        let plan = Arc::clone(&self.plan);
        let publishers = plan.publishers().max(1);
        let (mut global, mut publisher) = (0_usize, 0_u32);
        for (group, at) in plan.groups.iter().zip(0_u16..) {
            let mut order = Vec::new();
            for number in 0..group.count {
                let mine = global % plan.shards == shard;
                if mine {
                    let index = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
                    let mut client = Client::new(at, number, publisher);
                    if let Some(publishing) = &group.publishing {
                        order.push((phase(plan.seed, publisher), index));
                        self.equip(&mut client, publishing);
                        client.limit = share(plan.message_limit, publisher, publishers);
                        self.unfinished += u64::from(client.limit > 0);
                    }
                    self.clients.push(client);
                }
                global += 1;
                publisher += u32::from(group.publishing.is_some());
            }
            order.sort_by(|one, other| one.0.total_cmp(&other.0));
            let publishing = group.publishing.as_ref();
            let pace = publishing.map(|publishing| publishing.pace);
            let rate = match pace {
                Some(Pace::Rate(rate)) => rate,
                _ => 1.0,
            };
            self.members.push(Members {
                pace,
                receivers: publishing.map_or(0, |publishing| u64::from(publishing.receivers)),
                interval: Interval::of(rate, group.count),
                order,
                cursor: 0,
                round: 0,
                subscribes: group.subscribing.is_some(),
                counts_as_receiver: !group.stops_reading,
            });
        }
        self.trackers.resize_with(self.clients.len(), Vec::new);
    }

    /// Writes what all messages of a publisher begin with.
    fn equip(&self, client: &mut Client, publishing: &Publishing) {
        let plan = &self.plan;
        let id = plan.client_id(usize::from(client.group), client.number);
        let user = plan.username.as_deref().unwrap_or_default();
        let topic = publishing
            .topic
            .fill(client.number % publishing.topics + 1, &id, user);
        let payload = vec![0; plan.payload_size];
        let mut head = Vec::new();
        let packet_id_at = PublishHead {
            version: plan.version,
            dup: false,
            qos: publishing.qos,
            retain: publishing.retain,
            topic: &topic,
            topic_alias: None,
            packet_id: (publishing.qos != QoS::AtMostOnce).then_some(PacketId::MIN),
            message_expiry_interval: None,
            subscription_identifiers: &[],
            forwarded: &[],
            payload: &payload,
        }
        .encode(&mut head);
        head.truncate(head.len() - plan.payload_size);
        client.packet_id_at = packet_id_at
            .and_then(|at| u16::try_from(at).ok())
            .unwrap_or(0);
        client.head = head.into_boxed_slice();
        if publishing.qos != QoS::AtMostOnce {
            client.window = Some(Box::new(Window::new(
                publishing.window.min(SUBSCRIBE_ID - 1),
            )));
        }
    }

    // What goes out.

    /// The buffer in which `index` gathers what is to be sent.
    #[inline]
    pub(super) fn pending(&mut self, index: u32) -> &mut Vec<u8> {
        let client = &mut self.clients[index as usize];
        if client.pending.capacity() == 0
            && let Some(buffer) = self.pool.pop()
        {
            client.pending = buffer;
        }
        if !client.touched {
            client.touched = true;
            self.touched.push(index);
        }
        &mut client.pending
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.pool.len() < 1024 && buffer.capacity() > 0 && buffer.capacity() <= 4 * MAX_BACKLOG {
            self.pool.push(buffer);
        }
    }

    /// Everything of `index` was sent.
    pub(super) fn sent(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        let buffer = client.output.take_buffer();
        if !client.pending.is_empty() && !client.touched {
            client.touched = true;
            self.touched.push(index);
        }
        self.recycle(buffer);
        self.room(index);
    }

    /// `index` may publish from now on.
    pub(super) fn went_on(&mut self, index: u32, now: u64) {
        if self.started
            && self.members[usize::from(self.clients[index as usize].group)].plays_ping_pong()
        {
            self.answer(index, now);
        } else {
            self.room(index);
        }
    }

    /// There is room again in the socket or in the window of `index`.
    #[inline]
    pub(super) fn room(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if !self.started || client.hungry || client.phase != Phase::Ready {
            return;
        }
        let wants = match self.members[usize::from(client.group)].pace {
            Some(Pace::Rate(_)) => client.sequence < client.due,
            Some(Pace::Saturated) => true,
            Some(Pace::PingPong) | None => false,
        };
        if wants {
            client.hungry = true;
            self.hungry.push(index);
        }
    }

    /// Takes in how far the run is.
    pub(super) fn set_phases(&mut self, phases: Phases, now: u64) {
        self.phases = phases;
        if now >= phases.measure {
            self.record_from = phases.measure;
        }
        if !self.started && now >= phases.start {
            self.started = true;
            for group in 0..self.members.len() {
                self.begin(group, now);
            }
        }
    }

    /// The first messages of those who do not wait for a schedule.
    fn begin(&mut self, group: usize, now: u64) {
        let Some(pace) = self.members[group].pace else {
            return;
        };
        for at in 0..self.members[group].order.len() {
            let index = self.members[group].order[at].1;
            match pace {
                Pace::Rate(_) => return,
                Pace::Saturated => self.room(index),
                Pace::PingPong => self.answer(index, now),
            }
        }
    }

    /// Whether anything is verified.
    #[inline]
    pub(super) fn verifies(&self) -> bool {
        self.plan.verify != Verify::None && self.plan.payload_size >= IDENTIFIED
    }
}

impl Members {
    /// Whether its clients answer each message with the next one.
    #[inline]
    pub(super) fn plays_ping_pong(&self) -> bool {
        self.pace == Some(Pace::PingPong)
    }
}

/// What falls to one of `publishers` of `limit` messages.
fn share(limit: Option<u64>, publisher: u32, publishers: u32) -> u32 {
    let Some(limit) = limit else {
        return u32::MAX;
    };
    let (each, rest) = (limit / u64::from(publishers), limit % u64::from(publishers));
    u32::try_from(each + u64::from(u64::from(publisher) < rest)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shared_without_a_remainder() {
        for limit in [0, 1, 7, 100, 101] {
            let sum: u64 = (0..7)
                .map(|publisher| u64::from(share(Some(limit), publisher, 7)))
                .sum();
            assert_eq!(sum, limit);
        }
        assert_eq!(share(None, 3, 7), u32::MAX);
    }
}
