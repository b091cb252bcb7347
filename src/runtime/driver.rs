//! The loop of a shard: takes what arrived to the core, and what the core leaves behind to the
//! kernel and to the other shards.
//!
//! A turn: control parcels are taken, all batches worked on, then the parcels (see
//! [`super::mesh`]); ends of sends; bytes, unless the core holds back more for other shards than it
//! should; the timers of the core; then the outbox is emptied and the ring entered once.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use socket2::SockRef;

use crate::limits::{HANDSHAKE_BUDGET_US, MESH_BACKLOG_BYTES, TURN_OUTPUT_BYTES};
use crate::link::{self, Link, Scratch};
use crate::policy::{Decision, Guard, Policy};
use crate::route::ShardId;
use crate::shard::{
    CloseCause, ConnKey, Handoff, Identity, Outbox, Peer, Settings, Shard, Shortage,
};
use crate::time::Time;
use crate::wire::ReasonCode;

use super::acceptor::{Accepted, Acceptor};
use super::admin::{Question, Snapshot};
use super::auth::{Desk, News};
use super::clock::Clock;
use super::entrance::{self, Entrance};
use super::gate::Gate;
use super::idle::{Idleness, LONGEST_BLOCK, LONGEST_SLEEP, Notifier};
use super::log::Log;
use super::mesh::{HandedOver, Mesh, Parcel};
use super::meters::{self, Watch};
use super::net::{Chosen, Completion, Gather, Net, Operation, Received, Token, Wait};
use super::sockets::{Given, ReceiveEnd, SendEnd, Sockets, Standing, key};
use super::store::StoreError;
use super::stores::{Stores, StoresOptions};
use super::sys;

/// Microseconds after which to look again whether another shard has made room in its channel: about
/// the time it takes to work off some batches.
const RETRY_US: u64 = 200;

/// Milliseconds between two looks at the memory of the process.
const MEMORY_PERIOD_MS: u64 = 5_000;

/// The same where the memory has a bound: a gigabyte fills in a second.
const GUARDED_MEMORY_PERIOD_MS: u64 = 1_000;

/// Makes the policy of a shard, on its thread.
pub(super) type MakePolicy = dyn Fn(ShardId) -> Box<dyn Policy> + Send + Sync;

/// What a shard is started with.
pub(super) struct DriverOptions {
    pub(super) identity: Identity,
    pub(super) settings: Settings,
    pub(super) policy: Arc<MakePolicy>,
    pub(super) net: Chosen,
    pub(super) gather_us: u32,
    pub(super) spin_us: u32,
    pub(super) max_connections: usize,
    /// Bytes of memory of the process; 0 for no bound.
    pub(super) max_memory: u64,
    pub(super) shutdown_grace: Duration,
    pub(super) handshake_timeout: Duration,
    pub(super) entrances: Arc<[Entrance]>,
    /// Each with the number of its entrance.
    pub(super) listeners: Vec<(u16, OwnedFd)>,
    pub(super) mesh: Mesh,
    pub(super) questions: Receiver<Question>,
    pub(super) desk: Desk,
    pub(super) stores: StoresOptions,
    pub(super) clock: Clock,
    pub(super) common: Common,
}

/// What all shards look at, seldom.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    /// Set once: the broker stops.
    pub(super) stop: Arc<AtomicBool>,
    /// Connections of all shards; written when one opens or closes.
    pub(super) connections: Arc<AtomicUsize>,
    /// How fast they come in.
    pub(super) gate: Arc<Gate>,
    /// How short memory is, as [`Shortage`] counts it.
    pub(super) shortage: Arc<AtomicU8>,
}

/// Why a shard does not start.
#[derive(Debug)]
pub(super) enum DriverError {
    Net(std::io::Error),
    Store(StoreError),
}

impl std::fmt::Display for DriverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Net(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// One shard with everything around it.
pub(super) struct Driver {
    sockets: Sockets,
    acceptor: Acceptor,
    shard: Shard,
    outbox: Outbox,
    stores: Stores,
    mesh: Mesh,
    gather: Gather,
    spin_us: u64,
    idleness: Idleness,
    log: Log,
    watch: Watch,
    /// Of the thread that tells the world; the bell rings when there is one.
    questions: Receiver<Question>,
    /// Where slow authenticators are asked.
    desk: Desk,
    reports_memory: bool,
    memory_due: Time,
    clock: Clock,
    common: Common,
    max_connections: usize,
    max_memory: u64,
    shutdown_grace: Duration,
    completions: Vec<Completion>,
    /// Ends of receives that the core has not seen, the oldest first.
    arrivals: VecDeque<Completion>,
    parcels: Vec<(ShardId, Parcel)>,
    entrances: Arc<[Entrance]>,
    handshake_timeout_ms: u64,
    scratch: Scratch,
    /// Connections that leave for another shard as soon as their last bytes have left.
    leaving: Vec<Handoff>,
    /// What the shard had sent when its outputs were last handed over.
    relieved: u64,
    /// Whether the last turn could not send everything to the other shards.
    behind: bool,
    /// When the broker stops, patience or not.
    stops_at: Option<Time>,
}

impl Driver {
    /// Must be called on the thread that will run it. What was kept on disk is there then, and the
    /// other shards are told of its subscriptions.
    pub(super) fn new(options: DriverOptions) -> Result<Self, DriverError> {
        let mut ring = Net::open(&options.net).map_err(DriverError::Net)?;
        let now = options.clock.now();
        options.mesh.door().set_ring(ring.raw_fd());
        let policy = (options.policy)(options.identity.shard);
        let bell = Token::plain(Operation::Bell);
        ring.watch(options.mesh.door().bell(), bell);
        let index = options.identity.shard.index();
        let mut outbox = Outbox::new(options.identity.shards);
        let mut shard = Shard::new(options.identity, options.settings, policy, now);
        let ringer = || options.mesh.ringer();
        let stores = Stores::open(options.stores, &mut shard, ringer, now, &mut outbox);
        let stores = stores.map_err(DriverError::Store)?;
        let mut driver = Self {
            sockets: Sockets::new(
                ring,
                Arc::clone(&options.entrances),
                Arc::clone(&options.common.connections),
            ),
            acceptor: Acceptor::new(options.listeners),
            outbox,
            shard,
            stores,
            mesh: options.mesh,
            gather: Gather::new(options.gather_us, now),
            spin_us: options.spin_us.into(),
            idleness: Idleness::default(),
            log: Log::default(),
            watch: Watch::new(now),
            questions: options.questions,
            desk: options.desk,
            reports_memory: index == 0,
            memory_due: now,
            clock: options.clock,
            common: options.common,
            max_connections: options.max_connections,
            max_memory: options.max_memory,
            shutdown_grace: options.shutdown_grace,
            completions: Vec::new(),
            arrivals: VecDeque::new(),
            parcels: Vec::new(),
            entrances: options.entrances,
            handshake_timeout_ms: u64::try_from(options.handshake_timeout.as_millis())
                .unwrap_or(u64::MAX),
            scratch: Scratch::default(),
            leaving: Vec::new(),
            relieved: 0,
            behind: false,
            stops_at: None,
        };
        driver.shard.end_turn(now, &mut driver.outbox);
        driver.empty_outbox(now);
        Ok(driver)
    }

    /// The way to wait of a driver that shares its thread with an executor of glommio, which must be
    /// running.
    pub(super) fn notifier(&mut self) -> std::io::Result<Notifier> {
        Notifier::new(&mut self.sockets.ring)
    }

    /// Serves until the broker stops, in the only task of an executor of glommio.
    pub(super) async fn run(mut self, mut notifier: Notifier) {
        while self.work() {
            let Some((now, deadline)) = self.fall_asleep() else {
                continue;
            };
            if self.idleness.should_block() {
                self.block(now, deadline, LONGEST_BLOCK);
            } else {
                self.watch.waits(None);
                notifier.wait(&mut self.sockets.ring, now, deadline).await;
            }
            self.wake_up();
        }
        notifier.close().await;
    }

    /// Serves until the broker stops, on a thread that has nothing else to do.
    pub(super) fn serve(mut self) {
        while self.work() {
            if let Some((now, deadline)) = self.fall_asleep() {
                self.block(now, deadline, LONGEST_SLEEP);
                self.wake_up();
            }
        }
    }

    /// Does a turn. Returns whether there will be another one.
    fn work(&mut self) -> bool {
        let now = self.clock.now();
        self.watch.turn_begins(now, self.completions.len());
        self.turn(now);
        if self.is_finished(now) {
            self.sockets.kill_all(&mut self.outbox);
            return false;
        }
        true
    }

    // One turn.

    fn turn(&mut self, now: Time) {
        if self.common.stop.load(Ordering::Relaxed) && self.stops_at.is_none() {
            self.begin_stop(now);
        }
        if self.max_memory > 0 {
            let shortage = self.common.shortage.load(Ordering::Relaxed);
            self.shard.set_shortage(Shortage::from_level(shortage));
        }
        // The disk is not idle while this turn works.
        self.stores.take(&mut self.shard, now, &mut self.outbox);
        self.stores.feed(&mut self.shard, now);
        self.work_on_mesh(now);
        self.work_on_completions(now);
        self.work_on_arrivals(now);
        self.work_on_handshakes(now);
        self.acceptor.resume(now, &mut self.sockets.ring);
        self.sockets.expire(now, &mut self.outbox);
        for address in self.sockets.expire_links(now, &mut self.outbox) {
            self.watch.meters.link_failures[meters::LATE] += 1;
            self.log
                .link_failed(address, &"its handshake took too long", now);
        }
        if self.shard.next_deadline() <= now {
            self.observe_memory(now);
            self.shard.tick(now, &mut self.outbox);
        }
        // Again, behind every place where the bell is heard: it rings once.
        self.stores.take(&mut self.shard, now, &mut self.outbox);
        self.shard.end_turn(now, &mut self.outbox);
        self.stores.feed(&mut self.shard, now);
        self.empty_outbox(now);
    }

    fn work_on_mesh(&mut self, now: Time) {
        let Self {
            mesh,
            shard,
            outbox,
            parcels,
            watch,
            ..
        } = self;
        mesh.take_parcels(parcels);
        let hops = &mut watch.meters.hop_time;
        mesh.take_batches(|from, batch, pushed_at| {
            hops.record(now.micros_since(pushed_at), 1);
            shard.receive_live(from, batch, now, outbox);
        });
        let mut parcels = std::mem::take(&mut self.parcels);
        for (from, parcel) in parcels.drain(..) {
            for control in parcel.control {
                self.shard
                    .receive_control(from, control, now, &mut self.outbox);
            }
            for handed in parcel.sockets {
                let listener = handed.peer.listener;
                if let Some(conn) = self.admit(handed.socket, listener, handed.link, now) {
                    self.shard
                        .adopt(conn, handed.peer, &handed.unread, now, &mut self.outbox);
                }
            }
        }
        self.parcels = parcels;
    }

    fn work_on_completions(&mut self, now: Time) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            match completion.token.operation() {
                Operation::ReceiveOnce | Operation::ReceiveMany => {
                    self.arrivals.push_back(completion)
                }
                Operation::Send => match self.sockets.sent(&completion, &mut self.outbox) {
                    SendEnd::Nothing => {}
                    SendEnd::Room(conn) => self.shard.writable(conn, now, &mut self.outbox),
                    SendEnd::Broken(conn, errno) => self.lose(conn, Some(errno), now),
                },
                Operation::Accept => self.accept(completion, now),
                Operation::Bell => {
                    if !completion.more {
                        let bell = Token::plain(Operation::Bell);
                        self.sockets.ring.watch(self.mesh.door().bell(), bell);
                    }
                    self.mesh.door().heard();
                    self.answer_questions();
                    self.work_on_answers(now);
                }
                Operation::Wake => self.watch.meters.wakes_received += 1,
                Operation::Alarm | Operation::Ignored => {}
            }
        }
        self.completions = completions;
        let Self {
            sockets,
            shard,
            outbox,
            ..
        } = self;
        sockets.settle(outbox, |conn, outbox| shard.writable(conn, now, outbox));
    }

    /// Takes bytes to the core. Those that wait hold their buffers, so that soon none is left and
    /// the kernel reads no more from any client: that is how a full mesh reaches the publishers.
    fn work_on_arrivals(&mut self, now: Time) {
        while self.outbox.live_held() <= MESH_BACKLOG_BYTES
            && Stores::has_room(&self.shard)
            && let Some(mut completion) = self.arrivals.pop_front()
        {
            let conn = key(completion.token);
            let standing = self.sockets.standing(conn);
            let known = standing == Standing::Known;
            self.watch.meters.receive_buffers_starved +=
                u64::from(completion.result == -libc::ENOBUFS);
            let end = self.sockets.received(conn, &completion);
            if let Some(received) = completion.received.take() {
                let mut at = 0;
                if standing == Standing::Linked {
                    self.work_on_link(conn, Some(&received), now);
                }
                while known
                    && let Some(bytes) = self.sockets.ring.bytes(&received).get(at..)
                    && !bytes.is_empty()
                {
                    let out = &mut self.outbox;
                    at += self
                        .shard
                        .ingest_within(conn, bytes, TURN_OUTPUT_BYTES, now, out);
                    self.relieve(now);
                }
                self.sockets.ring.give_back(received);
            }
            match end {
                ReceiveEnd::GoesOn => self.sockets.bury(conn, &mut self.outbox),
                ReceiveEnd::Over(errno) if standing != Standing::Unknown => {
                    self.lose(conn, errno, now);
                }
                ReceiveEnd::Over(errno) => {
                    self.sockets
                        .ended_while_closing(conn, errno.is_some(), &mut self.outbox);
                }
            }
        }
    }

    /// Takes what arrived for a link, or was kept for it, through it to the core.
    fn work_on_link(&mut self, conn: ConnKey, received: Option<&Received>, now: Time) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(step) = self.sockets.unwrap(conn, received, &mut scratch) {
            let mut known = step.known;
            if let Some((peer, resumed)) = step.opened {
                known = true;
                if let Some(resumed) = resumed {
                    self.watch.meters.tls_handshakes[usize::from(resumed)] += 1;
                }
                self.shard.open(conn, peer, now, &mut self.outbox);
            }
            let mut at = 0;
            while let Some(bytes) = scratch.plain.get(at..)
                && !bytes.is_empty()
            {
                let out = &mut self.outbox;
                at += self
                    .shard
                    .ingest_within(conn, bytes, TURN_OUTPUT_BYTES, now, out);
                self.relieve(now);
            }
            let cause = match step.received {
                link::Received::GoesOn => None,
                link::Received::Farewell => Some(CloseCause::Eof),
                link::Received::Failed(error) => {
                    self.watch.meters.link_failures[error.layer() as usize] += 1;
                    self.log.link_failed(step.address, &error, now);
                    Some(CloseCause::Io(libc::EPROTO))
                }
            };
            if let Some(cause) = cause {
                if known {
                    self.shard.close(conn, cause, now, &mut self.outbox);
                }
                self.sockets.part(conn, now, &mut self.outbox);
            }
            scratch.shrink();
        }
        self.scratch = scratch;
    }

    /// Does handshakes for a bounded time, so that a fleet that reconnects does not delay the clients
    /// that are there. What is left goes on in the next turn.
    fn work_on_handshakes(&mut self, now: Time) {
        if self.sockets.handshakes_waiting() == 0 {
            return;
        }
        let end = self.clock.now().plus_micros(HANDSHAKE_BUDGET_US);
        while let Some(conn) = self.sockets.next_handshake() {
            self.work_on_link(conn, None, now);
            if self.clock.now() >= end {
                break;
            }
        }
    }

    /// Queues a send for every connection with fresh output.
    fn flush_touched(&mut self) {
        self.relieved = self.shard.bytes_sent();
        while let Some(conn) = self.outbox.touched() {
            self.sockets.flush(conn, &mut self.outbox);
        }
    }

    /// Hands what has gathered in output buffers to the kernel, if it is much.
    fn relieve(&mut self, now: Time) {
        if self.shard.bytes_sent() - self.relieved < TURN_OUTPUT_BYTES as u64 {
            return;
        }
        self.flush_touched();
        self.sockets.ring.submit();
        self.sockets.ring.drain(&mut self.completions);
        self.work_on_completions(now);
    }

    /// The other side ended a connection that the core knows.
    fn lose(&mut self, conn: ConnKey, errno: Option<i32>, now: Time) {
        let cause = errno.map_or(CloseCause::Eof, CloseCause::Io);
        self.shard.close(conn, cause, now, &mut self.outbox);
        self.sockets.kill(conn, &mut self.outbox);
    }

    fn accept(&mut self, completion: Completion, now: Time) {
        match self.acceptor.complete(completion, now) {
            Accepted::Nothing => {}
            Accepted::NoRoom(errno, refused) => {
                self.watch.meters.accept_errors += 1;
                self.watch.meters.refused[meters::DESCRIPTORS] += refused as u64;
                self.log.no_room(errno, refused, now);
            }
            Accepted::Socket(listener, socket) => self.receive(listener, socket, now),
        }
    }

    /// A client has connected to this listener.
    fn receive(&mut self, listener: u16, socket: OwnedFd, now: Time) {
        self.watch.meters.accepted += 1;
        let Some(entrance) = self.entrances.get(usize::from(listener)) else {
            return;
        };
        if !entrance.enter() {
            self.watch.meters.refused[meters::MAX_OF_LISTENER] += 1;
            self.log.full_listener(&entrance.name, now);
            return;
        }
        if self.common.connections.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            self.sockets.uncount(listener);
            self.watch.meters.refused[meters::MAX_CONNECTIONS] += 1;
            self.log.full(self.max_connections, now);
            return;
        }
        let Some(address) = entrance::address(&SockRef::from(&socket)) else {
            // Gone already.
            self.sockets.uncount(listener);
            return;
        };
        if !self.common.gate.admits(listener, address.ip(), now) {
            self.sockets.uncount(listener);
            self.watch.meters.refused[meters::CONNECTION_RATE] += 1;
            return;
        }
        match entrance.link(address) {
            Ok(link) => {
                let opens = link.is_none();
                if let Some(conn) = self.admit(socket, listener, link, now)
                    && opens
                {
                    let peer = Peer::new(listener, address);
                    self.shard.open(conn, peer, now, &mut self.outbox);
                }
            }
            Err(refusal) => {
                self.sockets.uncount(listener);
                self.watch.meters.refused[meters::UNTRUSTED] += 1;
                self.log.link_failed(address, &refusal, now);
            }
        }
    }

    /// Takes a socket in, unless the broker stops.
    fn admit(
        &mut self,
        socket: OwnedFd,
        listener: u16,
        link: Option<Box<Link>>,
        now: Time,
    ) -> Option<ConnKey> {
        if self.stops_at.is_some() {
            self.sockets.uncount(listener);
            return None;
        }
        let deadline = now.plus_millis(self.handshake_timeout_ms);
        self.sockets.adopt(socket, listener, link, deadline)
    }

    // What a turn leaves behind.

    fn empty_outbox(&mut self, now: Time) {
        self.ask_authenticators(now);
        self.flush_touched();
        self.sockets.flush_ready(now, &mut self.outbox);
        let mut established = std::mem::take(&mut self.outbox.established);
        for conn in established.drain(..) {
            self.sockets.establish(conn);
        }
        self.outbox.established = established;
        let mut reading = std::mem::take(&mut self.outbox.reading);
        for (conn, reads) in reading.drain(..) {
            self.sockets.set_reading(conn, reads);
        }
        self.outbox.reading = reading;
        // Before the links are flushed: what they have to say moves along.
        let mut handoffs = std::mem::take(&mut self.outbox.handoffs);
        handoffs.append(&mut self.leaving);
        for handoff in handoffs.drain(..) {
            self.hand_over(handoff);
        }
        self.outbox.handoffs = handoffs;
        self.sockets.flush_links(&mut self.outbox);
        let mut closes = std::mem::take(&mut self.outbox.closes);
        for close in closes.drain(..) {
            self.sockets.close(close.conn, now, &mut self.outbox);
        }
        self.outbox.closes = closes;
        self.sockets.arm_receives();
        // The only turns that look at the clock once more.
        let pushed_at = match self.outbox.live_held() {
            0 => now,
            _ => self.clock.now(),
        };
        let Self {
            mesh,
            outbox,
            sockets,
            watch,
            ..
        } = self;
        self.behind = mesh.send(outbox, pushed_at, |ring| {
            watch.meters.wakes_sent += 1;
            sockets.ring.wake(ring);
        });
        self.watch.meters.mesh_behind += u64::from(self.behind);
        for event in self.outbox.events.drain(..) {
            self.log.event(&event, now);
        }
    }

    /// Passes on questions that take longer than a shard has.
    fn ask_authenticators(&mut self, now: Time) {
        let mut questions = std::mem::take(&mut self.outbox.questions);
        for question in questions.drain(..) {
            self.watch.meters.auth_asked += 1;
            if let Err(ticket) = self.desk.ask(question, now) {
                self.watch.meters.auth_refused_busy += 1;
                let busy = Decision::Deny(ReasonCode::ServerBusy);
                self.shard.complete(ticket, busy, now, &mut self.outbox);
            }
        }
        self.outbox.questions = questions;
    }

    /// Takes in what slow authenticators have said.
    fn work_on_answers(&mut self, now: Time) {
        let Self {
            desk,
            shard,
            outbox,
            watch,
            ..
        } = self;
        for news in desk.news() {
            match news {
                News::Answer(ticket, decision, asked_at) => {
                    let waited = now.micros_since(asked_at);
                    watch.meters.auth_time.record(waited, 1);
                    shard.complete(ticket, decision, now, outbox);
                }
                News::Changed(options) => {
                    let guard = Guard::new(options, desk.shard() as u64);
                    shard.replace_policy(Box::new(guard));
                }
            }
        }
        if desk.has_news() {
            self.mesh.door().ring_bell(); // the others get their turn in between
        }
    }

    fn hand_over(&mut self, handoff: Handoff) {
        match self.sockets.give_away(handoff.conn, &mut self.outbox) {
            Given::Away(socket, link) => {
                let Handoff {
                    to, unread, peer, ..
                } = handoff;
                let handed = HandedOver {
                    socket,
                    unread,
                    peer,
                    link,
                };
                self.mesh.hand_over(to, handed);
            }
            Given::NotYet => self.leaving.push(handoff),
            Given::Gone => {}
        }
    }

    // What the broker tells about itself.

    /// Answers whoever asks how it stands.
    fn answer_questions(&mut self) {
        while let Ok(question) = self.questions.try_recv() {
            let mut meters = self.watch.meters;
            meters.cpu_us = sys::thread_cpu_us();
            meters.receives_held = self.arrivals.len() as u64;
            meters.handshakes_waiting = self.sockets.handshakes_waiting() as u64;
            meters.mesh_batches_waiting = self.mesh.batches_waiting() as u64;
            meters.mesh_held_bytes = self.outbox.live_held() as u64;
            meters.log_suppressed = self.log.suppressed() + self.outbox.events_dropped;
            question.answer(Snapshot {
                stats: self.shard.stats(),
                loads: self.shard.loads(),
                meters,
            });
        }
    }

    /// Tells the shard that publishes `$SYS` how much memory there is, not too often.
    fn observe_memory(&mut self, now: Time) {
        if self.reports_memory && now >= self.memory_due {
            self.memory_due = now.plus_millis(match self.max_memory {
                0 => MEMORY_PERIOD_MS,
                _ => GUARDED_MEMORY_PERIOD_MS,
            });
            if let Some(memory) = sys::memory() {
                let shortage = Shortage::of(memory.current, self.max_memory);
                self.common
                    .shortage
                    .store(shortage as u8, Ordering::Relaxed);
                self.shard.observe_memory(memory);
            }
        }
    }

    // Waiting.

    /// Announces that this shard is about to wait, and returns the time and until when; `None` if
    /// there is something to do.
    fn fall_asleep(&mut self) -> Option<(Time, Time)> {
        let now = self.clock.now();
        let bytes_wait = !self.arrivals.is_empty();
        self.watch
            .turn_ends(now, self.shard.publishes_sent(), bytes_wait);
        // Bytes that were held back and may be worked on now do not wait for others.
        let more = std::mem::take(&mut self.outbox.again)
            || (bytes_wait && !self.behind)
            || self.sockets.handshakes_waiting() > 0
            || !self.leaving.is_empty();
        if more || !self.mesh.fall_asleep() {
            self.sockets.ring.submit();
            self.sockets.ring.drain(&mut self.completions);
            return None;
        }
        Some((now, self.deadline(now)))
    }

    /// Waits in the kernel.
    fn block(&mut self, now: Time, deadline: Time, longest: Duration) {
        let plan = self.gather.plan(now);
        self.watch.waits(Some(plan));
        if self.spin_us > 0 && plan.gather_us == 0 {
            self.spin(deadline.min(now.plus_micros(self.spin_us)));
        }
        let timeout = Duration::from_micros(deadline.micros_since(now));
        self.sockets.ring.submit_and_wait(Wait {
            events: plan.events,
            gather_us: plan.gather_us,
            timeout: timeout.min(longest),
        });
    }

    /// Looks until `end` whether something completes, which costs the CPU that a sleep would leave to
    /// others, and saves the sleep.
    fn spin(&mut self, end: Time) {
        /// Looks between two readings of the clock, each with a pause of some 40 cycles.
        const LOOKS_PER_TIME: u32 = 16;
        self.sockets.ring.submit();
        while !self.sockets.ring.look() && self.clock.now() < end {
            for _ in 0..LOOKS_PER_TIME {
                std::hint::spin_loop();
            }
        }
    }

    /// The wait is over.
    fn wake_up(&mut self) {
        self.mesh.wake_up();
        // `turn` has emptied the list, so what is there now came by this wait.
        self.sockets.ring.drain(&mut self.completions);
        let news = self
            .completions
            .iter()
            .filter(|completion| is_news(completion))
            .count();
        self.gather.gained(news);
        self.idleness.waited(news);
    }

    /// When to go on although nothing happens.
    fn deadline(&self, now: Time) -> Time {
        if self.behind {
            return now.plus_micros(RETRY_US);
        }
        self.shard
            .next_deadline()
            .min(self.sockets.deadline())
            .min(self.acceptor.deadline())
            .min(self.stores.deadline())
            .min(self.stops_at.unwrap_or(Time::NEVER))
    }

    // The end.

    fn begin_stop(&mut self, now: Time) {
        let grace = u64::try_from(self.shutdown_grace.as_micros()).unwrap_or(u64::MAX);
        self.stops_at = Some(now.plus_micros(grace));
        self.acceptor.stop(&mut self.sockets.ring);
        self.sockets.kill_linking(&mut self.outbox);
        self.shard.shutdown(now, &mut self.outbox);
        Stores::seal(&mut self.shard);
    }

    fn is_finished(&self, now: Time) -> bool {
        self.stops_at.is_some_and(|stops_at| {
            let kept = Stores::are_done(&self.shard);
            let done = self.sockets.len() == 0 && self.acceptor.is_closed() && !self.behind && kept;
            done || now >= stops_at
        })
    }
}

/// Whether something happened, other than the end of a wait.
fn is_news(completion: &Completion) -> bool {
    !matches!(
        completion.token.operation(),
        Operation::Alarm | Operation::Ignored
    )
}
