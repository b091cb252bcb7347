//! One thread of the generator: its sockets, and the loop that moves bytes between them and the
//! [`Core`].
//!
//! A turn: what has completed is taken in, connections that are due are begun, messages that are due
//! are put together, everything is handed to the kernel in one call, which also waits for the next
//! event or the next message that is due, whichever comes first.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use shardmq::runtime::net::{Completion, Net, Operation, Sent, Token, Wait};

use crate::plan::Plan;
use crate::plan::schedule::SECOND;

use super::client::{Phase, Receive};
use super::control::{Control, Live, NEVER};
use super::core::Core;
use super::fleet::{FleetFindings, VEHICLES};
use super::link::{Layers, Link};
use super::payload::HandOvers;
use super::socket::explain;
use super::sys::now_ns;
use super::tally::Tally;
use super::verify::Tracker;

/// The longest wait: a change of phase is heard of within it.
const LONGEST_WAIT: u64 = 10_000_000;

/// How long the last packets may take to leave.
const FAREWELL: u64 = SECOND;

/// What a worker is started with.
pub(super) struct Assignment {
    pub(super) shard: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) broker: SocketAddr,
    pub(super) layers: Option<Layers>,
    pub(super) control: Arc<Control>,
    pub(super) live: Arc<Live>,
    pub(super) hand_overs: Option<Arc<HandOvers>>,
    pub(super) cuts: Sender<Cut>,
    pub(super) spare: Receiver<Tally>,
}

/// What one worker counted from one time to another.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) worker: usize,
    pub(super) from: u64,
    /// `NEVER` for the last one.
    pub(super) to: u64,
    pub(super) tally: Tally,
}

/// What a worker knows in the end.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Messages that each of its publishers sent.
    pub(super) sent: Vec<(u32, u32)>,
    /// What each of its clients got.
    pub(super) received: Vec<Heard>,
    /// Messages that are not what was sent.
    pub(super) corrupt: u64,
    /// What became of a fleet.
    pub(super) fleet: Option<FleetFindings>,
}

/// What one client got.
#[derive(Debug)]
pub(super) struct Heard {
    /// Its group.
    pub(super) group: usize,
    /// Its number in it.
    pub(super) number: u32,
    /// By publisher.
    pub(super) trackers: Vec<(u32, Tracker)>,
}

/// See the module.
pub(super) struct Worker {
    // First, so that it is dropped first: then the kernel lets go of everything below.
    pub(super) net: Net,
    pub(super) core: Core,
    pub(super) shard: usize,
    pub(super) broker: SocketAddr,
    pub(super) sources: Vec<IpAddr>,
    pub(super) layers: Option<Layers>,
    /// Where MQTT lies that came through a link.
    pub(super) plain: Vec<u8>,
    pub(super) control: Arc<Control>,
    pub(super) live: Arc<Live>,
    pub(super) cuts: Sender<Cut>,
    pub(super) spare: Receiver<Tally>,
    pub(super) completions: Vec<Completion>,
    /// Sends of which silence will say that they are done.
    pub(super) quiet: Vec<u32>,
    /// Connections whose receive ended and is to be armed again.
    pub(super) unarmed: Vec<u32>,
    /// The next client that has never been connected.
    pub(super) newcomer: usize,
    /// Clients that connect by the plan's rate: all but vehicles.
    pub(super) newcomers: usize,
    /// Clients that are to be connected again, and when.
    pub(super) returning: VecDeque<(u64, u32)>,
    /// When connections must be complete, in the order of time.
    pub(super) deadlines: VecDeque<(u64, u32, u32)>,
    pub(super) last_cut: u64,
    /// Where the look for idle clients goes on, and when.
    pub(super) idle_at: usize,
    pub(super) idle_next: u64,
    /// A send without a completion keeps something from being sent.
    pub(super) eager: bool,
    pub(super) stopped_reading: bool,
}

impl Worker {
    pub(super) fn new(assignment: Assignment, net: Net) -> Self {
        let phases = assignment.control.phases();
        let plan = assignment.plan;
        let sources = plan.sources.clone();
        let has_fleet = plan.fleet.is_some();
        let core = Core::new(plan, assignment.shard, assignment.hand_overs, phases);
        let clients = core.clients.iter();
        let newcomers = clients
            .filter(|client| !has_fleet || client.group != VEHICLES)
            .count();
        Self {
            net,
            shard: assignment.shard,
            broker: assignment.broker,
            sources,
            layers: assignment.layers,
            plain: Vec::new(),
            control: assignment.control,
            live: assignment.live,
            cuts: assignment.cuts,
            spare: assignment.spare,
            core,
            newcomers,
            completions: Vec::new(),
            quiet: Vec::new(),
            unarmed: Vec::new(),
            newcomer: 0,
            returning: VecDeque::new(),
            deadlines: VecDeque::new(),
            last_cut: phases.begin,
            idle_at: 0,
            idle_next: phases.begin + SECOND,
            eager: false,
            stopped_reading: false,
        }
    }

    /// Generates load until the run is over.
    pub(super) fn run(mut self) -> Findings {
        loop {
            let now = now_ns();
            let phases = self.control.phases();
            self.core.set_phases(phases, now);
            if phases.finish {
                break;
            }
            self.turn(now);
            self.wait();
        }
        self.say_goodbye();
        self.cut(NEVER);
        self.findings()
    }

    fn turn(&mut self, now: u64) {
        self.work_on_completions(now);
        self.settle();
        self.connect_due(now);
        self.act(now);
        self.expire(now);
        self.look_for_idle(now);
        self.core.feed_hungry();
        self.core.run_schedules();
        self.bury_doomed();
        self.flush(now);
        self.stop_reading(now);
        self.arm_receives();
        while now >= self.core.phases.cut_after(self.last_cut) {
            let to = self.core.phases.cut_after(self.last_cut);
            self.cut(to);
            self.last_cut = to;
        }
        self.show();
    }

    // What has completed.

    /// `now` was read when they had been fetched: whatever arrived was there by then.
    fn work_on_completions(&mut self, now: u64) {
        let mut completions = std::mem::take(&mut self.completions);
        for mut completion in completions.drain(..) {
            let index = completion.token.index();
            match completion.token.operation() {
                Operation::ReceiveMany => {
                    let received = completion.received.take();
                    if let Some(received) = received {
                        let bytes = self.net.bytes(&received);
                        match self.core.clients[index as usize].link.take() {
                            None => self.core.ingest(index, bytes, now),
                            Some(link) => {
                                let plain = &mut self.plain;
                                ingest_through(&mut self.core, index, link, (bytes, plain), now);
                            }
                        }
                        self.net.give_back(received);
                    }
                    self.receive_ended(index, &completion);
                }
                Operation::Send => self.send_ended(index, &completion),
                _ => {}
            }
        }
        self.completions = completions;
    }

    fn receive_ended(&mut self, index: u32, completion: &Completion) {
        let client = &mut self.core.clients[index as usize];
        if !completion.more {
            if client.receive == Receive::Armed {
                client.receive = Receive::Idle;
                self.unarmed.push(index);
            }
            if client.phase == Phase::Dying {
                self.bury(index);
                return;
            }
        }
        if completion.result > 0 {
            return;
        }
        match -completion.result {
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            0 => self
                .core
                .fail(index, "the broker closed the connection".to_owned()),
            errno => self.core.fail(index, explain(errno)),
        }
    }

    fn send_ended(&mut self, index: u32, completion: &Completion) {
        let client = &mut self.core.clients[index as usize];
        let end = client.output.complete(completion);
        if client.phase == Phase::Dying {
            self.bury(index);
            return;
        }
        match (end, &client.socket) {
            (Sent::All, _) => self.core.sent(index),
            (Sent::Part, Some(socket)) => {
                let token = Token::new(Operation::Send, index, client.generation);
                client
                    .output
                    .send_rest(&mut self.net, socket.as_fd(), token);
            }
            (Sent::Part, None) => {}
            (Sent::Failed(errno), _) => self.core.fail(index, explain(errno)),
        }
    }

    /// Looks which of the first tries are done.
    fn settle(&mut self) {
        let mut quiet = std::mem::take(&mut self.quiet);
        quiet.retain(|&index| {
            let client = &mut self.core.clients[index as usize];
            if !client.output.settle(&self.net) {
                return client.output.is_in_flight() && !client.output.is_waiting();
            }
            if client.phase == Phase::Dying {
                self.core.doomed.push(index);
            } else {
                self.core.sent(index);
            }
            false
        });
        self.quiet = quiet;
    }

    // Sending and receiving.

    fn flush(&mut self, now: u64) {
        let seconds = u32::try_from(now / SECOND).unwrap_or(u32::MAX);
        self.eager = false;
        let mut touched = std::mem::take(&mut self.core.touched);
        for index in touched.drain(..) {
            let client = &mut self.core.clients[index as usize];
            client.touched = false;
            let Some(socket) = &client.socket else {
                continue;
            };
            let has_output = client.link.as_ref().is_some_and(|link| link.has_output());
            if client.phase == Phase::Dying || (client.pending.is_empty() && !has_output) {
                continue;
            }
            if !client.output.is_idle() {
                self.eager |= !client.output.is_waiting();
                continue;
            }
            client.last_sent_s = seconds;
            let mut bytes = std::mem::take(&mut client.pending);
            if let Some(link) = &mut client.link {
                match link.send(bytes) {
                    Ok(sent) => bytes = sent,
                    Err(text) => {
                        self.core.fail(index, text);
                        continue;
                    }
                }
                if bytes.is_empty() {
                    continue;
                }
            }
            self.core.tally.counts.bytes_sent += bytes.len() as u64;
            let token = Token::new(Operation::Send, index, client.generation);
            client
                .output
                .send(bytes, &mut self.net, socket.as_fd(), token);
            self.quiet.push(index);
        }
        self.core.touched = touched;
        self.eager |= self.core.is_saturating && !self.quiet.is_empty();
    }

    fn arm_receives(&mut self) {
        while let Some(index) = self.unarmed.pop() {
            let client = &mut self.core.clients[index as usize];
            let (Some(socket), true) = (&client.socket, client.is_open()) else {
                continue;
            };
            if client.receive == Receive::Idle {
                client.receive = Receive::Armed;
                let token = Token::new(Operation::ReceiveMany, index, client.generation);
                self.net.receive_many(socket.as_fd(), token);
            }
        }
    }

    /// Leaves alone what arrives for those who are to stop reading.
    fn stop_reading(&mut self, now: u64) {
        if self.stopped_reading || now < self.core.phases.measure {
            return;
        }
        self.stopped_reading = true;
        for (client, index) in self.core.clients.iter_mut().zip(0..) {
            if !self.core.plan.groups[usize::from(client.group)].stops_reading {
                continue;
            }
            if client.receive == Receive::Armed {
                self.net
                    .cancel(Token::new(Operation::ReceiveMany, index, client.generation));
            }
            client.receive = Receive::Refused;
        }
    }

    /// PINGREQ of clients that have sent nothing for half their keep-alive. Looks at a
    /// quarter of them in every sixteenth of it, so that none is idle for more than three quarters.
    fn look_for_idle(&mut self, now: u64) {
        let keep_alive = u64::from(self.core.plan.keep_alive);
        if now < self.idle_next || keep_alive == 0 {
            return;
        }
        self.idle_next = now + (keep_alive * SECOND / 16).max(SECOND / 16);
        let seconds = u32::try_from(now / SECOND).unwrap_or(u32::MAX);
        let count = self.core.clients.len();
        for _ in 0..count.div_ceil(4) {
            self.idle_at = (self.idle_at + 1) % count;
            let client = &mut self.core.clients[self.idle_at];
            let idle_s = seconds.saturating_sub(client.last_sent_s);
            if client.phase == Phase::Ready && u64::from(idle_s) * 2 >= keep_alive {
                client.last_sent_s = seconds;
                let index = u32::try_from(self.idle_at).unwrap_or(0);
                self.core.ping(index);
            }
        }
    }

    fn wait(&mut self) {
        let due = self
            .core
            .next_due()
            .min(self.next_connect().map_or(NEVER, |(due, _)| due));
        let script = self
            .core
            .fleet
            .as_ref()
            .and_then(|fleet| fleet.steps.front());
        let due = due.min(script.map_or(NEVER, |step| self.core.phases.begin + step.at_ns));
        let cut = self.core.phases.cut_after(self.last_cut);
        let now = now_ns();
        let until = due.min(cut).min(now + LONGEST_WAIT);
        if self.eager || until <= now {
            self.net.submit();
        } else {
            self.net.submit_and_wait(Wait {
                events: 1,
                gather_us: 0,
                timeout: Duration::from_nanos(until - now),
            });
        }
        self.net.drain(&mut self.completions);
    }

    // Telling.

    fn cut(&mut self, to: u64) {
        let mut tally = self.spare.try_recv().unwrap_or_default();
        std::mem::swap(&mut tally, &mut self.core.tally);
        tally.counts.open = self.core.open;
        let cut = Cut {
            worker: self.shard,
            from: self.last_cut,
            to,
            tally,
        };
        // Nobody listens only if the run was given up.
        let _ = self.cuts.send(cut);
    }

    fn show(&self) {
        Live::put(&self.live.ready, self.core.ready);
        Live::put(&self.live.failed, self.core.failed);
        Live::put(&self.live.expected, self.core.expected);
        Live::put(&self.live.received, self.core.received);
        Live::put(&self.live.unacknowledged, self.core.unacknowledged);
        Live::put(&self.live.unfinished, self.core.unfinished);
    }

    fn say_goodbye(&mut self) {
        self.core.disconnect_all();
        let deadline = now_ns() + FAREWELL;
        loop {
            self.settle();
            self.flush(now_ns());
            if (self.quiet.is_empty() && self.core.touched.is_empty()) || now_ns() > deadline {
                break;
            }
            self.net.submit();
            self.net.drain(&mut self.completions);
            self.work_on_completions(now_ns());
        }
    }

    fn findings(self) -> Findings {
        let publishing = |client: &&super::client::Client| {
            self.core.plan.groups[usize::from(client.group)]
                .publishing
                .is_some()
        };
        let clients = &self.core.clients;
        Findings {
            sent: clients
                .iter()
                .filter(publishing)
                .map(|client| (client.publisher, client.sequence))
                .collect(),
            received: clients
                .iter()
                .zip(&self.core.trackers)
                .map(|(client, trackers)| Heard {
                    group: usize::from(client.group),
                    number: client.number,
                    trackers: trackers.clone(),
                })
                .collect(),
            corrupt: self.core.corrupt,
            fleet: self.core.fleet.map(|fleet| fleet.found),
        }
    }
}

/// What came for `index` goes through its link first; what the link has to answer is sent.
fn ingest_through(
    core: &mut Core,
    index: u32,
    mut link: Box<Link>,
    (bytes, plain): (&[u8], &mut Vec<u8>),
    now: u64,
) {
    plain.clear();
    let received = link.receive(bytes, plain);
    if link.has_output() {
        core.pending(index);
    }
    core.clients[index as usize].link = Some(link);
    core.ingest(index, plain, now);
    if let Err(text) = received {
        core.fail(index, text);
    }
}
