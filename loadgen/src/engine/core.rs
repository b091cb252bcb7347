//! The clients of one thread, without their sockets: what they publish and when, and what they
//! answer. Everything here is given the time; bytes come in through [`Core::ingest`] and wait in
//! the clients' `pending` to go out.
//!
//! Invariants:
//! - A client with something in `pending` is in `touched`, or its output is busy and its end will
//!   put it there.
//! - A publisher's `sequence` never passes `due` where there is a schedule, and never its limit.

use std::sync::Arc;

use shardmq::topic::Name;
use shardmq::wire::{
    Connect, ConnectProperties, Disconnect, Forwarded, PacketId, PublishHead, QoS, Subscribe,
    SubscribeFilters, SubscriptionOptions, UserProperties, Will, encode_pingreq,
};

use crate::plan::schedule::{Interval, phase};
use crate::plan::{Pace, Plan, Publishing, Topics, Verify};

use super::client::{Client, Phase};
use super::control::{NEVER, Phases};
use super::fleet::{FleetState, OFFLINE, VEHICLES};
use super::payload::{Filler, HandOvers, IDENTIFIED, Stamp, TIMED};
use super::sys::now_ns;
use super::tally::Tally;
use super::verify::Tracker;
use super::window::Window;

/// Bytes of one client that may wait for its socket before it counts as full.
const MAX_BACKLOG: usize = 64 * 1024;

/// Bytes that a publisher without a rate puts together for one send.
const BATCH: usize = 16 * 1024;

/// Scheduled messages of one group after which a turn looks at what arrived.
const MESSAGES_PER_TURN: usize = 1024;

/// Identifies every SUBSCRIBE; windows stay below it.
pub(super) const SUBSCRIBE_ID: u16 = u16::MAX;

/// A group as this thread has it.
#[derive(Debug)]
pub(super) struct Members {
    publishing: Option<Publishing>,
    interval: Interval,
    /// Publishers by their phases.
    order: Vec<(f64, u32)>,
    cursor: usize,
    round: u32,
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
    /// Publishers of QoS 0 without a rate whose socket has taken everything.
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
    /// Whether some publisher of QoS 0 goes as fast as its socket.
    pub(super) is_saturating: bool,
    pub(super) fleet: Option<Box<FleetState>>,
    started: bool,
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
            let rate = match group.publishing.as_ref().map(|publishing| publishing.pace) {
                Some(Pace::Rate(rate)) => rate,
                _ => 1.0,
            };
            self.members.push(Members {
                publishing: group.publishing.clone(),
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
    pub(super) fn went_on(&mut self, index: u32) {
        if self.started
            && self.members[usize::from(self.clients[index as usize].group)].plays_ping_pong()
        {
            self.answer(index, now_ns());
        } else {
            self.room(index);
        }
    }

    /// There is room again in the socket or in the window of `index`.
    fn room(&mut self, index: u32) {
        let client = &self.clients[index as usize];
        if !self.started || client.phase != Phase::Ready {
            return;
        }
        let Some(publishing) = &self.members[usize::from(client.group)].publishing else {
            return;
        };
        match (publishing.pace, publishing.qos) {
            (Pace::Rate(_), _) => {
                if client.sequence < client.due {
                    self.send_owed(index);
                }
            }
            (Pace::Saturated, QoS::AtMostOnce) => self.hungry.push(index),
            (Pace::Saturated, _) => self.fill_window(index),
            (Pace::PingPong, _) => {}
        }
    }

    /// CONNECT.
    pub(super) fn connect(&mut self, index: u32, now: u64) {
        let plan = Arc::clone(&self.plan);
        let client = &mut self.clients[index as usize];
        client.phase = Phase::Connecting;
        client.began_ns = now;
        let id = plan.client_id(usize::from(client.group), client.number);
        self.tally.counts.connects_started += 1;
        self.open += 1;
        let state = format!("vehicle/{}/state", client.number + 1);
        let is_vehicle = plan.fleet.is_some() && client.group == VEHICLES;
        let will = Name::parse(&state)
            .ok()
            .filter(|_| is_vehicle)
            .map(|topic| Will {
                topic,
                payload: OFFLINE,
                qos: QoS::AtLeastOnce,
                retain: true,
                delay_interval: 0,
                message_expiry_interval: None,
                forwarded: Forwarded::default(),
            });
        let connect = Connect {
            version: plan.version,
            clean_start: plan.clean_start,
            keep_alive: plan.keep_alive,
            client_id: &id,
            will,
            username: plan.username.as_deref(),
            password: plan.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_interval: plan.session_expiry,
                ..ConnectProperties::default()
            },
        };
        connect.encode(self.pending(index));
    }

    /// There was no socket for `index`.
    pub(super) fn could_not_connect(&mut self, index: u32, text: String) {
        self.tally.counts.connects_started += 1;
        self.tally.counts.connect_failed += 1;
        self.tally.error(text);
        let client = &mut self.clients[index as usize];
        if !client.counted {
            client.counted = true;
            self.failed += 1;
        }
    }

    /// SUBSCRIBE to everything that `index` is to hear.
    pub(super) fn subscribe(&mut self, index: u32) {
        let plan = Arc::clone(&self.plan);
        let client = &mut self.clients[index as usize];
        client.phase = Phase::Subscribing;
        let group = usize::from(client.group);
        let number = client.number;
        let Some(subscribing) = &plan.groups[group].subscribing else {
            return;
        };
        let id = plan.client_id(group, number);
        let user = plan.username.as_deref().unwrap_or_default();
        let topics = match subscribing.topics {
            Topics::Own(topics) => number % topics + 1..number % topics + 2,
            Topics::All(topics) => 1..topics + 1,
        };
        let options = SubscriptionOptions {
            qos: subscribing.qos,
            ..SubscriptionOptions::default()
        };
        let mut filters = Vec::new();
        for topic in topics {
            let filter = subscribing.filter.fill(topic, &id, user);
            SubscribeFilters::push(plan.version, &filter, options, &mut filters);
        }
        let subscribe = Subscribe {
            packet_id: PacketId::MAX,
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_bytes(plan.version, &filters),
        };
        subscribe.encode(plan.version, self.pending(index));
    }

    /// PINGREQ.
    pub(super) fn ping(&mut self, index: u32) {
        encode_pingreq(self.pending(index));
    }

    /// DISCONNECT of every client that is there.
    pub(super) fn disconnect_all(&mut self) {
        let version = self.plan.version;
        let disconnect = Disconnect {
            // The sessions of a fleet outlive its tunnel, not its run.
            session_expiry_interval: (self.fleet.is_some() && version.is_v5()).then_some(0),
            ..Disconnect::default()
        };
        for index in 0..u32::try_from(self.clients.len()).unwrap_or(u32::MAX) {
            if matches!(
                self.clients[index as usize].phase,
                Phase::Subscribing | Phase::Ready
            ) {
                disconnect.encode(version, self.pending(index));
            }
        }
    }

    // Publishing.

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
        let Some(publishing) = self.members[group].publishing.clone() else {
            return;
        };
        for at in 0..self.members[group].order.len() {
            let index = self.members[group].order[at].1;
            match publishing.pace {
                Pace::Rate(_) => return,
                Pace::Saturated => self.room(index),
                Pace::PingPong => self.answer(index, now),
            }
        }
    }

    /// The next message of a ping-pong.
    pub(super) fn answer(&mut self, index: u32, now: u64) {
        if now < self.phases.end && self.may_send(index) {
            self.publish(index, now, now);
        }
    }

    fn may_send(&self, index: u32) -> bool {
        let client = &self.clients[index as usize];
        client.phase == Phase::Ready
            && client.sequence < client.limit
            && client.backlog() < MAX_BACKLOG
            && client
                .window
                .as_ref()
                .is_none_or(|window| window.has_room())
    }

    /// When the next scheduled message is due.
    pub(super) fn next_due(&self) -> u64 {
        if !self.started {
            return NEVER;
        }
        let dues = self
            .members
            .iter()
            .filter_map(|members| members.due(self.phases.start));
        dues.min()
            .filter(|&due| due < self.phases.end)
            .unwrap_or(NEVER)
    }

    /// Publishes everything that is due.
    pub(super) fn run_schedules(&mut self) {
        if !self.started {
            return;
        }
        for group in 0..self.members.len() {
            self.run_schedule(group);
        }
    }

    fn run_schedule(&mut self, group: usize) {
        let mut now = now_ns();
        for _ in 0..MESSAGES_PER_TURN {
            let members = &mut self.members[group];
            let Some(intended) = members.due(self.phases.start) else {
                return;
            };
            if intended > now {
                now = now_ns();
            }
            if intended > now || intended >= self.phases.end {
                return;
            }
            let index = members.order[members.cursor].1;
            let due = members.round + 1;
            members.cursor += 1;
            if members.cursor == members.order.len() {
                members.cursor = 0;
                members.round += 1;
            }
            let client = &mut self.clients[index as usize];
            let owes = client.sequence < client.due;
            client.due = due.min(client.limit);
            if client.due < due {
                continue;
            }
            if !owes && self.may_send(index) {
                self.tally.lag.record(now - intended);
                self.publish(index, intended, now);
            } else {
                self.tally.counts.delayed += 1;
            }
        }
    }

    /// Sends what was due while the window or the socket was full.
    fn send_owed(&mut self, index: u32) {
        let now = now_ns();
        let client = &self.clients[index as usize];
        let interval = self.members[usize::from(client.group)].interval;
        let phase = phase(self.plan.seed, client.publisher);
        while self.clients[index as usize].sequence < self.clients[index as usize].due
            && self.may_send(index)
        {
            let sequence = self.clients[index as usize].sequence;
            let intended = self.phases.start + interval.due(phase, sequence);
            self.publish(index, intended.min(now), now);
        }
    }

    /// Publishes until the window is full.
    fn fill_window(&mut self, index: u32) {
        let now = now_ns();
        while now < self.phases.end && self.may_send(index) {
            self.publish(index, now, now);
        }
    }

    /// A batch for each publisher of QoS 0 whose socket takes more.
    pub(super) fn feed_hungry(&mut self) {
        let mut hungry = std::mem::take(&mut self.hungry);
        for index in hungry.drain(..) {
            let now = now_ns();
            let frame = self.clients[index as usize].head.len() + self.plan.payload_size;
            for _ in 0..(BATCH / frame.max(1)).max(1) {
                if now >= self.phases.end || !self.may_send(index) {
                    break;
                }
                self.publish(index, now, now);
            }
        }
        self.hungry = hungry;
    }

    /// PUBLISH the next message of `index`, which was due at `intended`. There must be room.
    #[inline]
    pub(super) fn publish(&mut self, index: u32, intended: u64, now: u64) {
        let client = &mut self.clients[index as usize];
        let sequence = client.sequence;
        client.sequence += 1;
        self.unfinished -= u64::from(client.sequence == client.limit);
        let stamp = Stamp {
            intended_ns: intended,
            sequence,
            publisher: client.publisher,
            sent_ns: now,
        };
        let packet_id = client
            .window
            .as_mut()
            .map(|window| window.insert(intended, sequence));
        let group = usize::from(client.group);
        self.write_publish(index, &stamp, packet_id, false);
        let members = &self.members[group];
        let receivers = members
            .publishing
            .as_ref()
            .map_or(0, |publishing| publishing.receivers);
        self.expected += u64::from(receivers);
        self.tally.counts.published += 1;
        if packet_id.is_some() {
            self.unacknowledged += 1;
        } else {
            self.tally.counts.acknowledged += 1;
        }
        if let Some(hand_overs) = &self.hand_overs {
            hand_overs.put(stamp.publisher, sequence, now.saturating_sub(intended));
        }
    }

    #[inline]
    fn write_publish(&mut self, index: u32, stamp: &Stamp, packet_id: Option<u16>, dup: bool) {
        self.pending(index);
        let size = self.plan.payload_size;
        let client = &mut self.clients[index as usize];
        let pending = &mut client.pending;
        let start = pending.len();
        pending.reserve(client.head.len() + size.max(TIMED));
        pending.extend_from_slice(&client.head);
        if let Some(packet_id) = packet_id {
            let at = start + usize::from(client.packet_id_at);
            pending[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
            pending[start] |= u8::from(dup) << 3;
        }
        let head = stamp.to_bytes();
        if size >= TIMED {
            pending.extend_from_slice(&head);
            pending.extend_from_slice(self.filler.body(stamp));
        } else {
            pending.extend_from_slice(&head[..size]);
            if size > IDENTIFIED {
                // Between the two there is room for no whole field.
                let end = pending.len();
                pending[end + IDENTIFIED - size..].fill(0);
            }
        }
    }

    /// Sends again what the broker has not acknowledged, after a session was resumed.
    pub(super) fn resend(&mut self, index: u32) {
        let client = &self.clients[index as usize];
        let publisher = client.publisher;
        let Some(window) = &client.window else {
            return;
        };
        for (packet_id, message) in window.in_order() {
            if message.received {
                self.acknowledge(index, shardmq::wire::AckKind::PubRel, packet_id);
            } else {
                let stamp = Stamp {
                    intended_ns: message.intended_ns,
                    sequence: message.sequence,
                    publisher,
                    sent_ns: message.intended_ns,
                };
                self.write_publish(index, &stamp, Some(packet_id), true);
            }
        }
    }

    /// A message of `index` was acknowledged: there is room for another.
    #[inline]
    pub(super) fn completed(&mut self, index: u32, packet_id: u16, now: u64) -> bool {
        let window = self.clients[index as usize].window.as_mut();
        let Some(message) = window.and_then(|window| window.remove(packet_id)) else {
            return false;
        };
        self.unacknowledged -= 1;
        self.tally.counts.acknowledged += 1;
        if message.intended_ns >= self.record_from {
            self.tally
                .acknowledgement
                .record(now.saturating_sub(message.intended_ns));
        }
        self.room(index);
        true
    }

    /// Whether anything is verified.
    #[inline]
    pub(super) fn verifies(&self) -> bool {
        self.plan.verify != Verify::None && self.plan.payload_size >= IDENTIFIED
    }
}

impl Members {
    /// When the next message of the group is due.
    #[inline]
    fn due(&self, start: u64) -> Option<u64> {
        let scheduled = matches!(
            self.publishing,
            Some(Publishing {
                pace: Pace::Rate(_),
                ..
            })
        );
        let &(phase, _) = self.order.get(self.cursor)?;
        scheduled.then(|| start + self.interval.due(phase, self.round))
    }

    /// Whether its clients answer each message with the next one.
    #[inline]
    pub(super) fn plays_ping_pong(&self) -> bool {
        matches!(
            self.publishing,
            Some(Publishing {
                pace: Pace::PingPong,
                ..
            })
        )
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
