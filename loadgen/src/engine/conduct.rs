//! Conducts a run: starts the threads, tells them when its phases begin, gathers what they count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use shardmq::runtime::net::{Chosen, Net, choose};

use crate::measure::{Interval, Outcome, Progress, Watch};
use crate::plan::{DRAIN, Plan};
use crate::process::{Meter, Sample, Scope};

use super::collect::{Collector, seconds_after};
use super::control::{Control, Live, NEVER};
use super::error::Error;
use super::link::Layers;
use super::outcome::Measured;
use super::payload::{HandOvers, TIMED};
use super::sys::{self, now_ns};
use super::tally::Tally;
use super::worker::{Assignment, Cut, Findings, Worker};

/// How far ahead the beginning of a phase is told: twice the longest time that a worker does not
/// look.
const AHEAD: u64 = 20_000_000;

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(5);

/// After this long without a new message nothing more is waited for.
const STALLED: u64 = 500_000_000;

/// How long an interrupted run waits for the last messages: whoever has pressed Ctrl-C waits too.
const HURRIED: u64 = 200_000_000;

/// How long nobody at all may be able to connect before the run is given up.
const HOPELESS: u64 = 300_000_000;

/// A run that goes on.
pub(super) struct Run {
    plan: Arc<Plan>,
    broker: SocketAddr,
    driver: &'static str,
    started: SystemTime,
    begin: u64,
    control: Arc<Control>,
    lives: Vec<Arc<Live>>,
    threads: Vec<JoinHandle<Findings>>,
    cuts: Receiver<Cut>,
    spares: Vec<Sender<Tally>>,
    collector: Collector,
    intervals: Vec<(u64, Interval)>,
    ours: Meter,
    theirs: Option<Meter>,
    /// When both were read last, and what they said.
    sampled: (u64, Sample, Sample),
    rss_before: u64,
    measured_from: Option<Sample>,
    measured_to: Option<Sample>,
    all_connected: Option<u64>,
}

/// Sums over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    ready: u64,
    failed: u64,
    expected: u64,
    received: u64,
    unacknowledged: u64,
    unfinished: u64,
}

impl Run {
    /// Starts the threads; they begin to connect at once.
    pub(super) fn start(plan: &Plan, broker: SocketAddr) -> Result<Self, Error> {
        let chosen =
            choose(plan.driver, plan.shards).map_err(|error| Error::Driver(error.to_string()))?;
        let plan = Arc::new(plan.clone());
        let mut ours = Meter::new(std::process::id(), Scope::Alone);
        let mut theirs = plan
            .broker_pid
            .map(|pid| Meter::new(pid, Scope::WithChildren));
        let broker_usage = theirs
            .as_mut()
            .map(Meter::sample)
            .transpose()
            .map_err(|error| {
                let pid = plan.broker_pid.unwrap_or_default();
                Error::Plan(format!(
                    "process {pid} cannot be read (--broker-pid): {error}"
                ))
            })?;
        let broker_usage = broker_usage.unwrap_or_default();
        let begin = now_ns();
        let control = Arc::new(Control::new(begin));
        if plan.measures_connecting {
            control.set_start(begin, begin, NEVER);
        }
        let (cut_sender, cuts) = channel();
        let mut run = Self {
            broker,
            driver: chosen.name(),
            started: SystemTime::now(),
            begin,
            lives: Vec::new(),
            threads: Vec::new(),
            cuts,
            spares: Vec::new(),
            collector: Collector::new(plan.shards),
            intervals: Vec::new(),
            sampled: (begin, ours.sample().unwrap_or_default(), broker_usage),
            rss_before: broker_usage.rss,
            ours,
            theirs,
            measured_from: None,
            measured_to: None,
            all_connected: None,
            control,
            plan,
        };
        run.start_threads(&cut_sender, &chosen)?;
        Ok(run)
    }

    fn start_threads(&mut self, cuts: &Sender<Cut>, chosen: &Chosen) -> Result<(), Error> {
        let plan = &self.plan;
        // A payload that is long enough says itself when it was sent; without a schedule it was
        // sent when it was due.
        let hand_overs = (plan.payload_size < TIMED && !plan.is_closed_loop())
            .then(|| Arc::new(HandOvers::new(plan.publishers())));
        let layers = Layers::new(plan).map_err(Error::Plan)?;
        for shard in 0..plan.shards {
            let live = Arc::new(Live::default());
            let (spare_sender, spare) = channel();
            let assignment = Assignment {
                shard,
                plan: Arc::clone(plan),
                broker: self.broker,
                layers: layers.clone(),
                control: Arc::clone(&self.control),
                live: Arc::clone(&live),
                hand_overs: hand_overs.clone(),
                cuts: cuts.clone(),
                spare,
            };
            let cpu = (!plan.cpus.is_empty()).then(|| plan.cpus[shard % plan.cpus.len()]);
            let chosen = chosen.clone();
            let (ready_sender, ready) = channel();
            let thread = std::thread::Builder::new()
                .name(format!("loadgen-{shard}"))
                .spawn(move || work(assignment, cpu, &chosen, &ready_sender))
                .map_err(Error::Thread)?;
            self.threads.push(thread);
            self.lives.push(live);
            self.spares.push(spare_sender);
            let result = ready
                .recv()
                .unwrap_or_else(|_| Err(Error::Thread(std::io::Error::other("it ended at once"))));
            if let Err(error) = result {
                self.control.finish();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sees the run through.
    pub(super) fn conduct(mut self, watch: &mut dyn Watch) -> Result<Outcome, Error> {
        let result = self.phases(watch);
        self.control.finish();
        let mut findings = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(found) => findings.push(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        self.take_cuts(Duration::ZERO, watch);
        watch.finished();
        result?;
        Ok(self.outcome(&findings))
    }

    fn phases(&mut self, watch: &mut dyn Watch) -> Result<(), Error> {
        self.ramp(watch)?;
        let plan = Arc::clone(&self.plan);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(NEVER);
        let now = now_ns();
        if let Some(fleet) = &plan.fleet {
            let end = self.begin.saturating_add(nanoseconds(fleet.duration));
            self.control.set_end(end.max(now + AHEAD));
        } else if plan.measures_connecting {
            let hold = plan.duration.map_or(NEVER, nanoseconds);
            self.control
                .set_end(now.saturating_add(hold).max(now + AHEAD));
        } else {
            let start = now + AHEAD;
            let measure = start + nanoseconds(plan.warmup);
            let end = plan
                .duration
                .map_or(NEVER, |time| measure.saturating_add(nanoseconds(time)));
            self.control.set_start(start, measure, end);
        }
        let mut ending = false;
        loop {
            self.take_cuts(LOOK, watch);
            let now = now_ns();
            let phases = self.control.phases();
            self.sample(now);
            if now >= phases.end {
                break;
            }
            let finished = plan.message_limit.is_some()
                && now > phases.measure
                && self.total().unfinished == 0;
            if self.is_broken() {
                return Ok(());
            }
            if !ending && (super::interrupted() || finished) {
                ending = true;
                if super::interrupted() {
                    watch.finished();
                } else {
                    // What was published is waited for within the measured phase: it is the run.
                    self.drain(watch);
                }
                self.control.set_end(now_ns() + AHEAD);
            }
        }
        self.drain(watch);
        Ok(())
    }

    /// Waits until everybody is connected and subscribed.
    fn ramp(&mut self, watch: &mut dyn Watch) -> Result<(), Error> {
        let clients = u64::from(self.plan.clients());
        loop {
            self.take_cuts(LOOK, watch);
            let now = now_ns();
            self.sample(now);
            let total = self.total();
            let all_failed = total.failed >= clients && !self.plan.reconnect;
            let patient = now < self.begin + HOPELESS;
            if total.ready == 0 && total.failed > 0 && (all_failed || !patient) {
                return Err(self.hopeless(watch));
            }
            let again = self.plan.reconnect && total.failed > 0;
            if self.is_broken()
                || super::interrupted()
                || (total.ready + total.failed >= clients && !again)
            {
                self.all_connected = Some(now);
                return Ok(());
            }
            if again && total.ready >= clients {
                return Ok(());
            }
        }
    }

    fn hopeless(&mut self, watch: &mut dyn Watch) -> Error {
        self.control.finish();
        // The workers tell what happened in their last cut.
        let deadline = now_ns() + STALLED;
        while self.collector.sums.errors.is_empty() && now_ns() < deadline {
            self.take_cuts(LOOK, watch);
        }
        let errors = &self.collector.sums.errors;
        let text = errors
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(text, _)| text.clone());
        Error::Unreachable(
            self.broker,
            text.unwrap_or_else(|| "no reason was given".to_owned()),
        )
    }

    /// Waits for the last messages and acknowledgements.
    fn drain(&mut self, watch: &mut dyn Watch) {
        let begun = now_ns();
        let deadline = begun + u64::try_from(DRAIN.as_nanos()).unwrap_or(0);
        let mut last = (self.total(), begun);
        loop {
            self.take_cuts(LOOK, watch);
            let total = self.total();
            let now = now_ns();
            if total != last.0 {
                last = (total, now);
            }
            let complete = total.received >= total.expected && total.unacknowledged == 0;
            // Complete must hold for a moment: the counters of the threads are read one by one.
            let patience = if complete { STALLED / 10 } else { STALLED };
            let hurried = super::interrupted() && (complete || now > begun + HURRIED);
            if now > last.1 + patience || now > deadline || hurried || self.is_broken() {
                return;
            }
        }
    }

    /// Whether a thread ended before it was told to: it panicked, and joining it says so.
    fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    fn total(&self) -> Total {
        let sum = |counter: fn(&Live) -> &AtomicU64| {
            self.lives
                .iter()
                .map(|live| counter(live).load(Ordering::Relaxed))
                .sum()
        };
        Total {
            ready: sum(|live| &live.ready),
            failed: sum(|live| &live.failed),
            expected: sum(|live| &live.expected),
            received: sum(|live| &live.received),
            unacknowledged: sum(|live| &live.unacknowledged),
            unfinished: sum(|live| &live.unfinished),
        }
    }

    /// Reads what the broker has used when the measured phase begins and when it ends.
    fn sample(&mut self, now: u64) {
        let phases = self.control.phases();
        if self.measured_from.is_none() && now >= phases.measure {
            self.measured_from = self.read_broker();
        }
        if self.measured_to.is_none() && now >= phases.end {
            self.measured_to = self.read_broker();
        }
    }

    fn read_broker(&mut self) -> Option<Sample> {
        self.theirs.as_mut().and_then(|meter| meter.sample().ok())
    }

    /// Takes in what the threads have counted, waiting for it at most `patience`.
    fn take_cuts(&mut self, patience: Duration, watch: &mut dyn Watch) {
        let Ok(first) = self.cuts.recv_timeout(patience) else {
            return;
        };
        let mut next = Some(first);
        while let Some(cut) = next {
            let worker = cut.worker;
            let mut phases = self.control.phases();
            if phases.measure == NEVER {
                phases.measure = self.measures_not_before();
            }
            let (tally, interval) = self.collector.take(cut, &phases);
            // A thread that has ended needs no more.
            let _ = self.spares[worker].send(tally);
            if let Some((from, interval)) = interval {
                self.tell(from, interval, watch);
            }
            next = self.cuts.try_recv().ok();
        }
    }

    /// A guess for the time while it is not known.
    fn measures_not_before(&self) -> u64 {
        let plan = &self.plan;
        let ramp = plan
            .connect_rate
            .map_or(0.0, |rate| f64::from(plan.clients()) / rate);
        let connected = (self.begin + (ramp * 1e9) as u64).max(now_ns());
        connected + u64::try_from(plan.warmup.as_nanos()).unwrap_or(0)
    }

    fn tell(&mut self, from: u64, mut interval: Interval, watch: &mut dyn Watch) {
        let now = now_ns();
        let (then, ours, theirs) = self.sampled;
        let seconds = seconds_after(now, then);
        let generator = self.ours.sample().unwrap_or(ours);
        interval.generator_cpu = generator.cores_since(&ours, seconds);
        self.sampled = (now, generator, theirs);
        if let Some(broker) = self.read_broker() {
            interval.broker_cpu = Some(broker.cores_since(&theirs, seconds));
            interval.broker_rss = Some(broker.rss);
            self.sampled.2 = broker;
        }
        let progress = Progress {
            name: self.plan.name.clone(),
            elapsed_s: seconds_after(now, self.begin),
            planned_s: self.plan.duration.map(|time| time.as_secs_f64()),
        };
        watch.interval(&interval, &progress);
        self.intervals.push((from, interval));
    }

    fn outcome(mut self, findings: &[Findings]) -> Outcome {
        let phases = self.control.phases();
        for (from, interval) in &mut self.intervals {
            interval.at_s = seconds_after(*from, phases.measure);
        }
        let intervals = self
            .intervals
            .into_iter()
            .map(|(_, interval)| interval)
            .collect();
        Measured {
            plan: &self.plan,
            started: self.started,
            phases,
            sums: self.collector.sums,
            intervals,
            findings,
            rss_before: self.rss_before,
            used: self.measured_from.zip(self.measured_to),
            all_connected: self.all_connected,
            driver: self.driver,
        }
        .outcome()
    }
}

/// The life of a worker's thread.
fn work(
    assignment: Assignment,
    cpu: Option<usize>,
    chosen: &Chosen,
    ready: &Sender<Result<(), Error>>,
) -> Findings {
    let set_up = || {
        if let Some(cpu) = cpu {
            sys::pin(cpu).map_err(|error| Error::Cpu(cpu, error))?;
        }
        sys::precise_timers();
        Net::open(chosen).map_err(Error::Thread)
    };
    let result = set_up();
    let (net, told) = match result {
        Ok(net) => (Some(net), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _ = ready.send(told);
    net.map_or_else(Findings::default, |net| Worker::new(assignment, net).run())
}
