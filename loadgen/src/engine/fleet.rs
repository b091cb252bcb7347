//! The vehicles and the back end of a fleet, as one thread has them.
//!
//! Unlike the publishers of other scenarios these keep what the broker has not acknowledged as it was
//! sent, because after a resumed session exactly that is sent again. Rates are low here: what is
//! measured is what becomes of sessions, wills and commands.

use std::collections::{BTreeMap, HashMap, VecDeque};

use hdrhistogram::Histogram;
use shardmq::wire::{AckKind, PacketId, PublishHead, QoS};

use crate::measure::{Figure, Latency, histogram};
use crate::plan::fleet::{Action, Step};

use super::client::Phase;
use super::core::Core;
use super::payload::Stamp;

/// What a vehicle's state says while it is connected.
const ONLINE: &[u8] = b"online";

/// What its will makes of it.
pub(super) const OFFLINE: &[u8] = b"offline";

/// Group of the vehicles; the back end is group 0.
pub(super) const VEHICLES: u16 = 1;

/// Packets that one client has sent and that are not acknowledged.
#[derive(Debug, Default)]
struct Unacknowledged {
    next_id: u16,
    /// By identifier: the packet, or none once PUBREC has come.
    packets: BTreeMap<u16, Option<Vec<u8>>>,
}

/// What was found about the fleet.
#[derive(Debug)]
pub(super) struct FleetFindings {
    commands_sent: u64,
    commands_answered: u64,
    vanished: u64,
    returned: u64,
    resumed: u64,
    wills_seen: u64,
    telemetry_sent: [u64; 2],
    telemetry_received: [u64; 2],
    reconnect: Histogram<u64>,
    answer: Histogram<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FleetState {
    /// What is to happen to the clients of this thread.
    pub(super) steps: VecDeque<Step>,
    /// Index of each vehicle of this thread.
    pub(super) vehicles: HashMap<u32, u32>,
    back_end: Option<u32>,
    sessions: HashMap<u32, Unacknowledged>,
    /// When vehicles that return were to do so.
    returning: HashMap<u32, u64>,
    /// Commands without an answer.
    commands: HashMap<u32, u64>,
    next_command: u32,
    sequences: HashMap<(u32, u8), u32>,
    pub(super) found: FleetFindings,
}

impl FleetFindings {
    fn new() -> Self {
        Self {
            commands_sent: 0,
            commands_answered: 0,
            vanished: 0,
            returned: 0,
            resumed: 0,
            wills_seen: 0,
            telemetry_sent: [0; 2],
            telemetry_received: [0; 2],
            reconnect: histogram(),
            answer: histogram(),
        }
    }

    /// Adds what another thread found.
    pub(super) fn add(&mut self, other: &Self) {
        self.commands_sent += other.commands_sent;
        self.commands_answered += other.commands_answered;
        self.vanished += other.vanished;
        self.returned += other.returned;
        self.resumed += other.resumed;
        self.wills_seen += other.wills_seen;
        for qos in 0..2 {
            self.telemetry_sent[qos] += other.telemetry_sent[qos];
            self.telemetry_received[qos] += other.telemetry_received[qos];
        }
        let _ = self.reconnect.add(&other.reconnect);
        let _ = self.answer.add(&other.answer);
    }

    /// The sum over all threads as it is reported.
    pub(super) fn figures(all: &[&Self]) -> Vec<Figure> {
        let mut sum = Self::new();
        for one in all {
            sum.add(one);
        }
        let figure = |name: &str, value: f64, unit: &str| Figure {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
        };
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let reconnect = Latency::of(&sum.reconnect);
        let answer = Latency::of(&sum.answer);
        let lost =
            |qos: usize| sum.telemetry_sent[qos].saturating_sub(sum.telemetry_received[qos]) as f64;
        vec![
            figure("vehicles that vanished", sum.vanished as f64, ""),
            figure("wills seen by the back end", sum.wills_seen as f64, ""),
            figure("vehicles that returned", sum.returned as f64, ""),
            figure("sessions resumed", sum.resumed as f64, ""),
            figure("reconnect p50", ms(reconnect.p50), "ms"),
            figure("reconnect p99", ms(reconnect.p99), "ms"),
            figure("reconnect max", ms(reconnect.max), "ms"),
            figure("commands sent", sum.commands_sent as f64, ""),
            figure("commands answered", sum.commands_answered as f64, ""),
            figure("answer p50", ms(answer.p50), "ms"),
            figure("answer max", ms(answer.max), "ms"),
            figure("telemetry QoS 0 lost", lost(0), ""),
            figure("telemetry QoS 1 lost", lost(1), ""),
        ]
    }
}

impl FleetState {
    /// The part of the plan's fleet that falls to the clients of `core`.
    pub(super) fn of(core: &Core) -> Option<Box<Self>> {
        let fleet = core.plan.fleet?;
        let mut vehicles = HashMap::new();
        let mut back_end = None;
        for (client, index) in core.clients.iter().zip(0..) {
            if client.group == VEHICLES {
                vehicles.insert(client.number, index);
            } else {
                back_end = Some(index);
            }
        }
        let mut steps = fleet.steps(core.plan.seed);
        steps.retain(|step| match step.action {
            Action::Command(_) => back_end.is_some(),
            _ => vehicles.contains_key(&step.vehicle),
        });
        Some(Box::new(Self {
            steps: steps.into(),
            vehicles,
            back_end,
            sessions: HashMap::new(),
            returning: HashMap::new(),
            commands: HashMap::new(),
            next_command: 0,
            sequences: HashMap::new(),
            found: FleetFindings::new(),
        }))
    }
}

impl Core {
    /// Publishes telemetry, or a command; `intended` is when that was due.
    pub(super) fn fleet_publish(&mut self, step: Step, intended: u64, now: u64) {
        let Some(mut fleet) = self.fleet.take() else {
            return;
        };
        let stamp = Stamp {
            intended_ns: intended,
            sequence: 0,
            publisher: step.vehicle,
            sent_ns: now,
        };
        if let Some((index, message)) = fleet.message(self, step, stamp) {
            fleet.publish(self, index, &message);
        }
        self.fleet = Some(fleet);
    }

    /// A vehicle is gone. The will that the broker publishes then is expected.
    pub(super) fn fleet_vanished(&mut self) {
        self.open -= 1;
        if let Some(fleet) = &mut self.fleet {
            fleet.found.vanished += 1;
        }
    }

    /// A vehicle comes back.
    pub(super) fn fleet_returns(&mut self, index: u32, intended: u64) {
        if let Some(fleet) = &mut self.fleet {
            fleet.returning.insert(index, intended);
        }
    }

    /// A client has its CONNACK, and its subscriptions.
    pub(super) fn fleet_ready(&mut self, index: u32, now: u64) {
        let Some(mut fleet) = self.fleet.take() else {
            return;
        };
        let unacknowledged = fleet.sessions.entry(index).or_default();
        for (&id, packet) in &unacknowledged.packets {
            match packet {
                Some(packet) => {
                    let pending = self.pending(index);
                    let start = pending.len();
                    pending.extend_from_slice(packet);
                    // [MQTT-3.3.1-1]: it may have been sent before.
                    pending[start] |= 0b1000;
                }
                None => self.acknowledge(index, AckKind::PubRel, id),
            }
        }
        if let Some(intended) = fleet.returning.remove(&index) {
            fleet.found.returned += 1;
            let _ = fleet.found.reconnect.record(now.saturating_sub(intended));
        }
        if self.clients[index as usize].group == VEHICLES {
            let vehicle = self.clients[index as usize].number;
            let state = Message {
                retain: true,
                ..Message::about(vehicle, "state", 1, ONLINE)
            };
            fleet.publish(self, index, &state);
        }
        self.fleet = Some(fleet);
    }

    /// CONNACK said whether there was a session.
    pub(super) fn fleet_session(&mut self, index: u32, present: bool) {
        if let Some(fleet) = &mut self.fleet {
            if !present {
                if let Some(session) = fleet.sessions.get_mut(&index) {
                    self.unacknowledged -= session.packets.len() as u64;
                    session.packets.clear();
                }
            } else if fleet.returning.contains_key(&index) {
                fleet.found.resumed += 1;
            }
        }
    }

    /// An acknowledgement has come. Returns whether it belongs to a packet.
    pub(super) fn fleet_acknowledged(&mut self, index: u32, id: u16) -> bool {
        let session = self
            .fleet
            .as_mut()
            .and_then(|fleet| fleet.sessions.get_mut(&index));
        let known = session.is_some_and(|session| session.packets.remove(&id).is_some());
        if known {
            self.unacknowledged -= 1;
            self.tally.counts.acknowledged += 1;
        }
        known
    }

    /// PUBREC has come. Returns whether it belongs to a packet.
    pub(super) fn fleet_pubrec(&mut self, index: u32, id: u16) -> bool {
        let session = self
            .fleet
            .as_mut()
            .and_then(|fleet| fleet.sessions.get_mut(&index));
        match session.and_then(|session| session.packets.get_mut(&id)) {
            Some(packet) => {
                *packet = None;
                true
            }
            None => false,
        }
    }

    /// A message has come for a vehicle or for the back end.
    pub(super) fn fleet_received(&mut self, index: u32, topic: &str, payload: &[u8], now: u64) {
        let Some(mut fleet) = self.fleet.take() else {
            return;
        };
        self.tally.counts.received += 1;
        let stamp = Stamp::read(payload);
        match (topic.rsplit('/').next(), stamp) {
            (Some("command"), Some(_)) => {
                let vehicle = self.clients[index as usize].number;
                fleet.publish(self, index, &Message::about(vehicle, "answer", 1, payload));
            }
            (Some("answer"), Some(stamp)) => {
                if let Some(intended) = fleet.commands.remove(&stamp.sequence) {
                    fleet.found.commands_answered += 1;
                    self.received += 1;
                    let _ = fleet.found.answer.record(now.saturating_sub(intended));
                }
            }
            (Some("telemetry"), Some(stamp)) => {
                if stamp.intended_ns <= now {
                    self.tally.corrected.record(now - stamp.intended_ns);
                    self.tally.raw.record(now.saturating_sub(stamp.sent_ns));
                }
                let qos = payload.last().map_or(0, |&qos| u32::from(qos.min(1)));
                let key = stamp.publisher * 2 + qos;
                let trackers = &mut self.trackers[index as usize];
                let at = trackers
                    .binary_search_by_key(&key, |tracker| tracker.0)
                    .unwrap_or_else(|at| {
                        trackers.insert(at, (key, super::verify::Tracker::default()));
                        at
                    });
                let before = trackers[at].1.delivered();
                trackers[at].1.received(stamp.sequence);
                let new = u64::from(trackers[at].1.delivered() - before);
                fleet.found.telemetry_received[qos as usize] += new;
            }
            (Some("state"), _) if payload == OFFLINE => fleet.found.wills_seen += 1,
            _ => {}
        }
        self.fleet = Some(fleet);
    }
}

/// An application message.
struct Message {
    topic: String,
    qos: u8,
    retain: bool,
    payload: Vec<u8>,
}

impl Message {
    /// To or from a vehicle.
    fn about(vehicle: u32, what: &str, qos: u8, payload: &[u8]) -> Self {
        Self {
            topic: format!("vehicle/{}/{what}", vehicle + 1),
            qos,
            retain: false,
            payload: payload.to_vec(),
        }
    }
}

impl FleetState {
    /// What a step of the script publishes, and who: nothing while that client is away.
    fn message(&mut self, core: &mut Core, step: Step, stamp: Stamp) -> Option<(u32, Message)> {
        let is_ready = |index: &u32| core.clients[*index as usize].phase == Phase::Ready;
        match step.action {
            Action::Telemetry(qos) => {
                let index = self.vehicles.get(&step.vehicle).copied().filter(is_ready)?;
                let next = self.sequences.entry((step.vehicle, qos)).or_default();
                let sequence = *next;
                *next += 1;
                self.found.telemetry_sent[usize::from(qos.min(1))] += 1;
                core.tally
                    .lag
                    .record(stamp.sent_ns.saturating_sub(stamp.intended_ns));
                let stamp = Stamp { sequence, ..stamp }.to_bytes();
                let mut message = Message::about(step.vehicle, "telemetry", qos, &stamp);
                message.payload.push(qos);
                Some((index, message))
            }
            Action::Command(qos) => {
                let index = self.back_end.filter(is_ready)?;
                let sequence = self.next_command;
                self.next_command += 1;
                self.found.commands_sent += 1;
                self.commands.insert(sequence, stamp.intended_ns);
                core.expected += 1;
                let stamp = Stamp { sequence, ..stamp }.to_bytes();
                Some((index, Message::about(step.vehicle, "command", qos, &stamp)))
            }
            Action::Connect | Action::Vanish(_) | Action::Return => None,
        }
    }

    fn publish(&mut self, core: &mut Core, index: u32, message: &Message) {
        let session = self.sessions.entry(index).or_default();
        let qos = QoS::from_bits(message.qos).unwrap_or_default();
        let id = (qos != QoS::AtMostOnce)
            .then(|| session.free_id())
            .flatten();
        let head = PublishHead {
            version: core.plan.version,
            dup: false,
            qos: if id.is_some() { qos } else { QoS::AtMostOnce },
            retain: message.retain,
            topic: &message.topic,
            topic_alias: None,
            packet_id: id,
            message_expiry_interval: None,
            subscription_identifiers: &[],
            forwarded: &[],
            payload: &message.payload,
        };
        let pending = core.pending(index);
        let start = pending.len();
        head.encode(pending);
        core.tally.counts.published += 1;
        if let Some(id) = id {
            let packet = core.pending(index)[start..].to_vec();
            session.packets.insert(id.get(), Some(packet));
            core.unacknowledged += 1;
        } else {
            core.tally.counts.acknowledged += 1;
        }
    }
}

impl Unacknowledged {
    fn free_id(&mut self) -> Option<PacketId> {
        // The last identifier is that of SUBSCRIBE.
        for _ in 1..u16::MAX {
            self.next_id = if self.next_id >= u16::MAX - 1 {
                1
            } else {
                self.next_id + 1
            };
            if !self.packets.contains_key(&self.next_id) {
                return PacketId::new(self.next_id);
            }
        }
        None
    }
}
