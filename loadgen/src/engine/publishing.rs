//! What is published and when: schedules, windows, and the bytes of a PUBLISH.

use crate::plan::Pace;
use crate::plan::schedule::phase;

use super::client::Phase;
use super::control::NEVER;
use super::core::{Core, Members};
use super::payload::Stamp;
use super::sys::now_ns;

/// Bytes of one client that may wait for its socket before it counts as full.
pub(super) const MAX_BACKLOG: usize = 64 * 1024;

/// Bytes that a publisher without a rate puts together for one send.
const BATCH: usize = 16 * 1024;

/// Scheduled messages of one group after which a turn looks at what arrived.
const MESSAGES_PER_TURN: usize = 1024;

impl Core {
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

    /// Lets those publish who have room again.
    pub(super) fn feed_hungry(&mut self) {
        let mut hungry = std::mem::take(&mut self.hungry);
        for index in hungry.drain(..) {
            let client = &mut self.clients[index as usize];
            client.hungry = false;
            if self.members[usize::from(client.group)].pace == Some(Pace::Saturated) {
                self.publish_now(index);
            } else {
                self.send_owed(index);
            }
        }
        self.hungry = hungry;
    }

    /// Publishes what there is room for in the window and in the socket, all of it due now: what a
    /// publisher without a schedule does. One look at everything serves the whole batch.
    fn publish_now(&mut self, index: u32) {
        let now = now_ns();
        let client = &self.clients[index as usize];
        let backlog = client.backlog();
        if now >= self.phases.end || client.phase != Phase::Ready || backlog >= MAX_BACKLOG {
            return;
        }
        let frame = client.head.len() + self.plan.payload_size;
        let window = client.window.as_ref();
        let count = window
            .map_or_else(|| (BATCH / frame).max(1), |window| window.room())
            .min((MAX_BACKLOG - backlog).div_ceil(frame))
            .min((client.limit - client.sequence) as usize);
        if count == 0 {
            return;
        }
        let mut pending = std::mem::take(self.pending(index));
        let start = pending.len();
        pending.resize(start + count * frame, 0);
        let client = &mut self.clients[index as usize];
        let mut stamp = Stamp {
            intended_ns: now,
            sequence: client.sequence,
            publisher: client.publisher,
            sent_ns: now,
        };
        for packet in pending[start..].chunks_exact_mut(frame) {
            let (head, payload) = packet.split_at_mut(client.head.len());
            head.copy_from_slice(&client.head);
            if let Some(window) = &mut client.window {
                let packet_id = window.insert(now, stamp.sequence);
                let at = usize::from(client.packet_id_at);
                head[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
            }
            self.filler.write(&stamp, payload);
            stamp.sequence += 1;
        }
        client.sequence = stamp.sequence;
        client.pending = pending;
        self.published(index, count as u64);
    }

    /// Counts messages that were put together.
    #[inline]
    fn published(&mut self, index: u32, count: u64) {
        let client = &self.clients[index as usize];
        self.unfinished -= u64::from(client.sequence == client.limit);
        self.expected += self.members[usize::from(client.group)].receivers * count;
        self.tally.counts.published += count;
        if client.window.is_some() {
            self.unacknowledged += count;
        } else {
            self.tally.counts.acknowledged += count;
        }
    }

    /// PUBLISH the next message of `index`, which was due at `intended`. There must be room.
    #[inline]
    pub(super) fn publish(&mut self, index: u32, intended: u64, now: u64) {
        let client = &mut self.clients[index as usize];
        let sequence = client.sequence;
        client.sequence += 1;
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
        self.write_publish(index, &stamp, packet_id, false);
        self.published(index, 1);
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
        pending.reserve(client.head.len() + size);
        pending.extend_from_slice(&client.head);
        if let Some(packet_id) = packet_id {
            let at = start + usize::from(client.packet_id_at);
            pending[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
            pending[start] |= u8::from(dup) << 3;
        }
        let payload = pending.len();
        pending.resize(payload + size, 0);
        self.filler.write(stamp, &mut pending[payload..]);
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
}

impl Members {
    /// When the next message of the group is due.
    #[inline]
    fn due(&self, start: u64) -> Option<u64> {
        let scheduled = matches!(self.pace, Some(Pace::Rate(_)));
        let &(phase, _) = self.order.get(self.cursor)?;
        scheduled.then(|| start + self.interval.due(phase, self.round))
    }
}
