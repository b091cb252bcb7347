//! What the runtime of a shard counts about itself: plain numbers that only their shard writes.
//!
//! No clock is read for it. A turn begins and ends with a look at the clock anyway, and what is measured
//! is measured by those: so a message arrives when the turn begins that takes it from the kernel,
//! and leaves when that turn hands its requests over. What a message waited in the kernel before,
//! gathering included, is not in it; the gathering is counted by itself.

use crate::stats::{Histogram, measured};
use crate::time::Time;

use super::net::Plan;

/// How a turn came about.
const WAITS: [&str; 3] = ["none", "first_event", "gathering"];
const NONE: usize = 0;
const FIRST_EVENT: usize = 1;
const GATHERING: usize = 2;

measured! {
    /// What the runtime of one shard has counted, and what it holds now.
    pub(super) struct Meters {
        /// Turns of the loop, and how long each worked, from the end of a wait to the next.
        turn_time: Histogram = Histogram "turn_seconds";
        /// How long a PUBLISH was inside the broker: from the begin of the turn of this shard that took
        /// it, from a client or from another shard, to the end of the one that sent it; one for
        /// each copy sent. The gathering before the turn is not in it; time in which the thread was off its
        /// CPU is, so that one long turn counts for every copy it sent.
        publish_latency: Histogram = Histogram "publish_latency_seconds";
        /// How long a batch of messages was between two shards: from its push to the begin of the turn
        /// that took it.
        hop_time: Histogram = Histogram "hop_seconds";
        /// Events from the kernel: bytes, connections, ends of sends, wakes.
        completions: u64 = Counter "completions_total";
        /// Waits before a turn: none because there was work, for the first event, or gathering, which
        /// waits a little for more than one.
        waits: [u64; 3] = Counter "waits_total" by "kind" in WAITS;
        /// Events that gathering waits brought.
        gathered: u64 = Counter "gathered_completions_total";
        /// Time in gathering waits.
        gathering_us: u64 = Seconds "gathering_seconds_total";
        /// CPU time of the shard's thread.
        cpu_us: u64 = Seconds "shard_cpu_seconds_total";
        /// Times that this shard woke another one.
        wakes_sent: u64 = Counter "wakes_sent_total";
        /// Times that another shard woke this one.
        wakes_received: u64 = Counter "wakes_received_total";
        /// Receives that ended for want of a free buffer; they go on in the next turn.
        receive_buffers_starved: u64 = Counter "receive_buffers_starved_total";
        /// Received buffers that wait until other shards have taken what is held back for them.
        receives_held: u64 = Gauge "receives_held";
        /// Batches from other shards that wait to be taken.
        mesh_batches_waiting: u64 = Gauge "mesh_batches_waiting";
        /// Bytes that are held back because the channel to another shard is full.
        mesh_held_bytes: u64 = Gauge "mesh_held_bytes";
        /// Turns that could not pass everything on to the other shards.
        mesh_behind: u64 = Counter "mesh_behind_turns_total";
        /// Connections that were accepted by this shard, those included that were closed at once.
        accepted: u64 = Counter "sockets_accepted_total";
        /// Accepts that failed for want of descriptors or memory.
        accept_errors: u64 = Counter "accept_errors_total";
        /// Connections that were closed at once: because of max_connections, for want of descriptors,
        /// because of the max_connections of their listener, because they came past the proxy, or faster
        /// than connection_rate or connection_rate_per_address.
        refused: [u64; 5] = Counter "sockets_refused_total" by "reason" in REFUSALS;
        /// Questions to slow authenticators.
        auth_asked: u64 = Counter "auth_questions_total";
        /// Those that were not put because too many waited; their clients got Server busy.
        auth_refused_busy: u64 = Counter "auth_questions_refused_total";
        /// How long answers of slow authenticators took, the wait for their turn included.
        auth_time: Histogram = Histogram "auth_seconds";
        /// Handshakes of TLS that went well: by how much of one was needed.
        tls_handshakes: [u64; 2] =
            Counter "tls_handshakes_total" by "kind" in ["full", "resumed"];
        /// Connections that failed in what lies below MQTT: a PROXY header, TLS, WebSocket, or a handshake
        /// that was not over in time.
        link_failures: [u64; 4] = Counter "link_failures_total" by "reason" in FAILURES;
        /// Connections whose TLS handshake waits for the shard: each turn spends a bounded time on them.
        handshakes_waiting: u64 = Gauge "tls_handshakes_waiting";
        /// Events that the log left out because there were too many of their kind.
        log_suppressed: u64 = Counter "log_events_suppressed_total";
    }
}

/// Why a connection was closed at once, as an index of [`Meters::refused`].
pub(super) const MAX_CONNECTIONS: usize = 0;
pub(super) const DESCRIPTORS: usize = 1;
pub(super) const MAX_OF_LISTENER: usize = 2;
pub(super) const UNTRUSTED: usize = 3;
pub(super) const CONNECTION_RATE: usize = 4;
const REFUSALS: [&str; 5] = [
    "max_connections",
    "descriptors",
    "listener_max_connections",
    "not_from_proxy",
    "connection_rate",
];

/// Why a connection failed below MQTT, as an index of [`Meters::link_failures`]: the layers as
/// [`crate::link::Layer`] counts them, and time.
pub(super) const LATE: usize = 3;
const FAILURES: [&str; 4] = ["proxy", "tls", "websocket", "late"];

/// The meters, and what is needed to read them off.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) meters: Meters,
    turn_began: Time,
    turn_ended: Time,
    /// Since when bytes wait that could not be worked on in their turn.
    oldest_arrival: Option<Time>,
    publishes_sent: u64,
    wait: usize,
}

impl Watch {
    pub(super) fn new(now: Time) -> Self {
        Self {
            meters: Meters::default(),
            turn_began: now,
            turn_ended: now,
            oldest_arrival: None,
            publishes_sent: 0,
            wait: NONE,
        }
    }

    /// A turn begins, with so many completions to work on.
    pub(super) fn turn_begins(&mut self, now: Time, completions: usize) {
        let completions = completions as u64;
        self.turn_began = now;
        self.meters.completions += completions;
        self.meters.waits[self.wait] += 1;
        if self.wait == GATHERING {
            self.meters.gathering_us += now.micros_since(self.turn_ended);
            self.meters.gathered += completions;
        }
        self.wait = NONE;
    }

    /// It has ended: so many PUBLISHes were sent since the start, and maybe bytes of clients wait.
    pub(super) fn turn_ends(&mut self, now: Time, publishes_sent: u64, bytes_wait: bool) {
        self.meters
            .turn_time
            .record(now.micros_since(self.turn_began), 1);
        let sent = publishes_sent - self.publishes_sent;
        let arrived = self.oldest_arrival.unwrap_or(self.turn_began);
        if sent > 0 {
            self.meters
                .publish_latency
                .record(now.micros_since(arrived), sent);
            self.publishes_sent = publishes_sent;
        }
        self.oldest_arrival = bytes_wait.then_some(arrived);
        self.turn_ended = now;
    }

    /// The shard waits, not for other work but in the kernel.
    pub(super) fn waits(&mut self, plan: Option<Plan>) {
        self.wait = match plan {
            Some(plan) if plan.gather_us > 0 => GATHERING,
            _ => FIRST_EVENT,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_wait_arrived_when_they_came() {
        let mut watch = Watch::new(Time::ZERO);
        watch.turn_begins(Time::from_micros(100), 3);
        watch.turn_ends(Time::from_micros(110), 5, true);
        watch.turn_begins(Time::from_micros(300), 0);
        watch.turn_ends(Time::from_micros(310), 6, false);
        watch.turn_begins(Time::from_micros(400), 1);
        watch.turn_ends(Time::from_micros(401), 7, false);
        let latency = watch.meters.publish_latency;
        assert_eq!((latency.count(), latency.sum_us()), (7, 5 * 10 + 210 + 1));
        assert_eq!(watch.meters.turn_time.sum_us(), 21);
    }

    #[test]
    fn gathering_is_told_from_other_waits() {
        let mut watch = Watch::new(Time::ZERO);
        let gathering = Plan {
            events: 4,
            gather_us: 200,
        };
        let first = Plan {
            events: 1,
            gather_us: 0,
        };
        for (at, plan, events) in [
            (50, Some(gathering), 4),
            (80, Some(first), 1),
            (90, None, 2),
        ] {
            watch.turn_ends(Time::from_micros(at - 20), 0, false);
            watch.waits(plan);
            watch.turn_begins(Time::from_micros(at), events);
        }
        watch.turn_begins(Time::from_micros(91), 0);
        let Meters {
            waits,
            gathered,
            gathering_us,
            completions,
            ..
        } = watch.meters;
        assert_eq!((waits, gathered), ([1, 2, 1], 4));
        assert_eq!((gathering_us, completions), (20, 7));
    }
}
