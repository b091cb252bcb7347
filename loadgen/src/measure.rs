//! What a run measures: the types that the engine fills and that every output reads.
//!
//! Latency is counted twice. *Corrected*: from the time at which the schedule wanted the message to
//! be sent, so that a generator or a broker that stalls cannot hide the messages that had to wait
//! behind the stall. *Raw*: from the time at which it was handed to the kernel. Both in nanoseconds,
//! both in a [`Histogram`] of three significant digits up to [`HIGHEST_NS`].

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Version of `result.json`. Raised by every change that an old reader would misread.
pub const RESULT_FORMAT: u32 = 1;

/// The longest latency that a histogram tells from longer ones: a minute.
pub const HIGHEST_NS: u64 = 60_000_000_000;

/// A histogram of latencies in nanoseconds, 1 us to [`HIGHEST_NS`], three significant digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, HIGHEST_NS, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are valid"))
}

/// The same for what is kept in numbers, one for each second: takes the memory that its values need
/// in place of 150 KB.
#[must_use]
pub fn small_histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1_000, 2_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are valid"));
    histogram.auto(true);
    histogram
}

/// Plain counters of the engine, since the beginning of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that were begun.
    pub connects_started: u64,
    /// CONNACK with success.
    pub connected: u64,
    /// Connections that were refused, timed out, or failed before their CONNACK.
    pub connect_failed: u64,
    /// Connections that were lost after their CONNACK without our doing.
    pub lost: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Subscriptions that were granted.
    pub subscribed: u64,
    /// PUBLISH packets sent.
    pub published: u64,
    /// PUBACK (QoS 1) or PUBCOMP (QoS 2) received, or QoS 0 PUBLISH handed to the kernel.
    pub acknowledged: u64,
    /// Acknowledgements with a reason code of 0x80 or more.
    pub refused: u64,
    /// Schedule slots that passed while the window of unacknowledged messages was full: sent late.
    pub delayed: u64,
    /// PUBLISH packets received.
    pub received: u64,
    /// Bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// What `--verify` found. All zero where it was not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Messages that a receiver had to get.
    pub expected: u64,
    /// Those that it got at least once.
    pub delivered: u64,
    /// Those that it never got: `expected - delivered`.
    pub lost: u64,
    /// Deliveries of a message that had come before.
    pub duplicates: u64,
    /// Deliveries whose sequence number is below one that came before from the same publisher.
    pub reordered: u64,
    /// Deliveries whose topic or payload is not what the publisher sent.
    pub corrupt: u64,
}

/// One interval (a second, unless said otherwise) of a run, from all threads of the generator.
/// Counters are of the interval, not sums.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Seconds since the measured phase began; negative during ramp and warm-up.
    pub at_s: f64,
    /// Length in seconds.
    pub length_s: f64,
    /// What was counted in it. `open` is the value at its end.
    pub counts: Counts,
    /// End-to-end latency, corrected.
    pub corrected: Histogram<u64>,
    /// End-to-end latency, raw.
    pub raw: Histogram<u64>,
    /// From PUBLISH to PUBACK or PUBCOMP, corrected.
    pub acknowledgement: Histogram<u64>,
    /// From the SYN to the CONNACK.
    pub connect: Histogram<u64>,
    /// How late after its intended time a message was handed to the kernel.
    pub lag: Histogram<u64>,
    /// CPU use of the generator in this interval, in cores.
    pub generator_cpu: f64,
    /// CPU use of the broker process in this interval, in cores, where its pid is known.
    pub broker_cpu: Option<f64>,
    /// Resident memory of the broker process in bytes at the end of the interval.
    pub broker_rss: Option<u64>,
}

/// The summary of a histogram, in nanoseconds. All zero if it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Values.
    pub count: u64,
    /// Smallest.
    pub min: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation.
    pub stdev: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// 99.99th percentile.
    pub p9999: u64,
    /// Largest.
    pub max: u64,
}

impl Latency {
    /// Sums `histogram` up.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            stdev: histogram.stdev(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }
}

/// What the broker's process used during the measured phase, read from `/proc/PID`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// User CPU time in nanoseconds.
    pub user_ns: u64,
    /// System CPU time in nanoseconds.
    pub system_ns: u64,
    /// Resident bytes before the first connection.
    pub rss_before: u64,
    /// Resident bytes at the end of the measured phase, connections open.
    pub rss_after: u64,
    /// System calls, where they were counted (see `compare --syscalls`).
    pub syscalls: Option<u64>,
    /// Voluntary and involuntary context switches.
    pub context_switches: u64,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was asked for, as the command line and the scenario say; in a stable order.
    pub parameters: Vec<(String, String)>,
    /// Name of the scenario, or the command (`pub`, `sub`, `conn`).
    pub name: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// Seconds of the measured phase.
    pub measured_s: f64,
    /// The intervals, warm-up included.
    pub intervals: Vec<Interval>,
    /// Counters of the measured phase.
    pub counts: Counts,
    /// End-to-end latency of the measured phase, corrected.
    pub corrected: Histogram<u64>,
    /// The same, raw.
    pub raw: Histogram<u64>,
    /// From PUBLISH to its acknowledgement, corrected.
    pub acknowledgement: Histogram<u64>,
    /// From the SYN to the CONNACK.
    pub connect: Histogram<u64>,
    /// How late messages were handed to the kernel.
    pub lag: Histogram<u64>,
    /// What `--verify` found.
    pub verification: Option<Verification>,
    /// Whether the generator could not keep its own schedule: the latencies are then its own, not
    /// the broker's. Says why.
    pub saturated: Option<String>,
    /// Whether messages were sent only when earlier ones were acknowledged or the kernel had room
    /// (`--closed-loop`, or no rate): then there is no schedule and corrected equals raw.
    pub closed_loop: bool,
    /// Failures by their text, the most frequent first.
    pub errors: Vec<(String, u64)>,
    /// How the generator drives the network: `io_uring` or `epoll`.
    pub driver: String,
    /// The broker's process, where its pid is known.
    pub process: Option<Process>,
    /// What the scenario measures beyond all this: reconnect times of a fleet, answered commands.
    pub figures: Vec<Figure>,
}

/// One figure that only some scenarios have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, in words of the scenario.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for a plain number.
    pub unit: String,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Name of the scenario or the command.
    pub name: String,
    /// Seconds since the run began, ramp and warm-up included.
    pub elapsed_s: f64,
    /// Seconds that the measured phase is to last; `None` where it has no end but Ctrl-C.
    pub planned_s: Option<f64>,
}

/// Somebody who looks on while a run goes. Called on a thread that generates no load.
pub trait Watch {
    /// An interval has ended.
    fn interval(&mut self, interval: &Interval, so_far: &Progress);

    /// There is nothing more to look at: the run is over, or was interrupted and is about to be. May
    /// be told more than once.
    fn finished(&mut self);
}
