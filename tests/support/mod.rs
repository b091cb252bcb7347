//! A broker of several shards in memory, on a virtual clock: no socket, no thread, no sleep.
//!
//! [`World`] does with [`Shard`] and [`Outbox`] what the runtime does, in the same order. What is
//! left to chance in reality (which shard takes a turn, how bytes are split, which channel is full)
//! is in the hands of the test.

#![expect(dead_code, reason = "each test binary uses another part of it")]

mod kept;

use std::collections::{HashMap, VecDeque};

use shardmq::history::bucket::FaultKind;
use shardmq::history::{BucketHeader, BucketId, Failure, Found, Log, Place, Scanned, Stream};
use shardmq::policy::{Open, Policy};
use shardmq::route::ShardId;
use shardmq::shard::{
    Batch, CloseCause, ConnKey, Control, Epoch, HistoryDone, HistoryJob, Identity, Outbox, Peer,
    Settings, Shard,
};
use shardmq::time::Time;
use shardmq::wire::{Framing, Packet, Version, frame};

/// A client's connection, as the test names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub usize);

/// The client's end of a connection.
#[derive(Default)]
pub struct Wire {
    /// Where the broker has it, `None` once it closed it.
    pub at: Option<(usize, ConnKey)>,
    /// Bytes from the broker that the client has not read.
    pub inbox: Vec<u8>,
    /// Whether the broker has closed the connection.
    pub closed: bool,
    /// Whether the broker's bytes are left unread, so that they count as unsent.
    pub stuck: bool,
    /// What the client sent while its connection was between two shards: it lies in the socket.
    in_transit: Vec<u8>,
    /// Whether the client closed its end meanwhile.
    cut: bool,
}

struct Node {
    shard: Shard,
    out: Outbox,
    links: HashMap<ConnKey, Link>,
    generations: Vec<u32>,
    free: Vec<u32>,
    unsent: HashMap<ConnKey, Vec<u8>>,
    /// What the disk was told to do for history and has not done.
    history: VecDeque<HistoryJob>,
    broken: Option<BucketId>,
    /// The files of the journal.
    kept: kept::Files,
}

impl Node {
    fn new(shard: Shard, shards: usize) -> Self {
        Self {
            shard,
            out: Outbox::new(shards),
            links: HashMap::new(),
            generations: Vec::new(),
            free: Vec::new(),
            unsent: HashMap::new(),
            history: VecDeque::new(),
            broken: None,
            kept: kept::Files::new(),
        }
    }
}

/// Milliseconds since 1970 at the zero of a scenario's clock: 2026-11-21T00:00:00Z.
pub const EPOCH: Epoch = Epoch(1_795_219_200_000);

/// The files of history, which outlive a world.
pub type HistoryFiles = std::collections::BTreeMap<(usize, BucketId), Vec<u8>>;

/// What is on its way from one shard to another.
#[derive(Default)]
struct Lane {
    live: VecDeque<Box<Batch>>,
    control: VecDeque<Vec<Control>>,
    sockets: VecDeque<(Link, Vec<u8>, Peer)>,
}

/// Shards, the lanes between them, and the clients' ends of all connections.
pub struct World {
    pub now: Time,
    settings: Settings,
    /// Whether there are journals.
    keeps: bool,
    nodes: Vec<Node>,
    lanes: HashMap<(usize, usize), Lane>,
    pub wires: Vec<Wire>,
    /// Batches a live lane holds before it is full.
    pub lane_depth: usize,
    next_accept: usize,
    /// The listener that the next connection comes by.
    pub listener: u16,
    pub events: Vec<shardmq::shard::Event>,
    pub questions: Vec<(usize, shardmq::shard::Question)>,
    /// The disk of history: its files, and whether it works and takes what is written.
    pub files: HistoryFiles,
    pub disk_works: bool,
    pub disk_is_full: bool,
}

impl World {
    /// `shards` shards with default settings.
    pub fn new(shards: usize) -> Self {
        Self::with(
            shards,
            Settings {
                sys_interval: 0,
                ..Settings::default()
            },
        )
    }

    /// `shards` shards with these settings.
    pub fn with(shards: usize, settings: Settings) -> Self {
        Self::with_policy(shards, settings, 1, || Box::new(Open))
    }

    /// `shards` shards with these settings, policies and entropy.
    pub fn with_policy(
        shards: usize,
        settings: Settings,
        seed: u64,
        policy: impl Fn() -> Box<dyn Policy>,
    ) -> Self {
        let now = Time::from_secs(1_000);
        let nodes = (0..shards)
            .map(|index| {
                let shard = ShardId::new(index);
                let identity = Identity {
                    shard,
                    shards,
                    seed: seed + index as u64,
                };
                let shard = Shard::new(identity, settings.clone(), policy(), now);
                Node::new(shard, shards)
            })
            .collect();
        Self {
            now,
            settings,
            keeps: false,
            nodes,
            lanes: HashMap::new(),
            wires: Vec::new(),
            lane_depth: usize::MAX,
            next_accept: 0,
            listener: 0,
            events: Vec::new(),
            questions: Vec::new(),
            files: HistoryFiles::new(),
            disk_works: true,
            disk_is_full: false,
        }
    }

    /// Keeps history, with what other worlds left in `files`; the `run`th time.
    pub fn keep_history(&mut self, streams: &[Stream], files: HistoryFiles, run: u32) {
        let shards = self.nodes.len() as u16;
        let lanes = files.keys().map(|(_, id)| id.lane + 1).max();
        let mut found = vec![Vec::new(); streams.len()];
        for ((stream, _), bytes) in &files {
            let header = BucketHeader::read(bytes).expect("it was written whole");
            let bytes = bytes.len() as u64;
            found[*stream].push(Found { header, bytes });
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let place = Place {
                shard: index as u16,
                shards,
                run,
                lanes: lanes.unwrap_or(0).max(shards),
            };
            let log = Log::new(place, streams.to_vec(), &found);
            node.shard.keep_history(log, EPOCH, 0);
        }
        self.files = files;
    }

    /// Takes what the disk is to do for the history of `shard`, and does the oldest of it; whether
    /// there was anything.
    pub fn work_on_history(&mut self, shard: usize) -> bool {
        let node = &mut self.nodes[shard];
        while let Some(job) = node.shard.next_history_job(self.now) {
            node.history.push_back(job);
        }
        let Some(job) = node.history.pop_front() else {
            return false;
        };
        let done = match job {
            HistoryJob::Remove(removal) => {
                self.files.remove(&(removal.stream, removal.bucket));
                return true;
            }
            HistoryJob::Write(write) => {
                if write.header.is_some() {
                    node.broken = None;
                }
                let key = (write.stream, write.bucket);
                let result = if self.disk_is_full || node.broken == Some(write.bucket) {
                    node.broken = Some(write.bucket);
                    Err(Failure)
                } else {
                    let file = self.files.entry(key).or_default();
                    file.extend_from_slice(&write.header.unwrap_or_default());
                    assert_eq!(file.len() as u64, write.offset, "written at the end");
                    file.extend_from_slice(&write.bytes);
                    Ok(())
                };
                HistoryDone::Written(write.stream, result)
            }
            HistoryJob::Scan(number, scan) => {
                let found = match self.files.get(&(scan.stream, scan.bucket)) {
                    Some(bytes) => scan.run(&mut bytes.as_slice()),
                    None => Scanned {
                        offset: scan.limit,
                        seq: scan.seq,
                        end: true,
                        faults: vec![shardmq::history::bucket::Fault {
                            offset: 0,
                            what: FaultKind::Gone,
                        }],
                        ..Scanned::default()
                    },
                };
                HistoryDone::Scanned(number, Box::new(found))
            }
        };
        node.shard.history_done(done, self.now, &mut node.out);
        true
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.nodes.len()
    }

    /// The shard `index`.
    pub fn shard(&self, index: usize) -> &Shard {
        &self.nodes[index].shard
    }

    /// The counters of all shards together.
    pub fn stats(&self) -> shardmq::stats::Stats {
        let mut sum = shardmq::stats::Stats::default();
        self.nodes
            .iter()
            .for_each(|node| sum.add(&node.shard.stats()));
        sum
    }

    /// Opens a connection; the shards accept in turn.
    pub fn open(&mut self) -> Link {
        let shard = self.next_accept % self.nodes.len();
        self.next_accept += 1;
        self.open_on(shard)
    }

    /// Opens a connection that `shard` accepts.
    pub fn open_on(&mut self, shard: usize) -> Link {
        let link = Link(self.wires.len());
        self.wires.push(Wire::default());
        let peer = Peer::new(self.listener, ([127, 0, 0, 1], 40_000).into());
        let conn = self.accept(shard, link);
        let node = &mut self.nodes[shard];
        node.shard.open(conn, peer, self.now, &mut node.out);
        link
    }

    fn accept(&mut self, shard: usize, link: Link) -> ConnKey {
        let node = &mut self.nodes[shard];
        let index = node.free.pop().unwrap_or_else(|| {
            node.generations.push(0);
            node.generations.len() as u32 - 1
        });
        let conn = ConnKey {
            index,
            generation: node.generations[index as usize],
        };
        node.links.insert(conn, link);
        self.wires[link.0].at = Some((shard, conn));
        conn
    }

    /// Bytes from a client arrive at the broker.
    pub fn push(&mut self, link: Link, bytes: &[u8]) {
        if let Some((shard, conn)) = self.wires[link.0].at {
            // A budget so small that outputs are taken between packets of one read.
            let mut at = 0;
            while at < bytes.len() {
                let node = &mut self.nodes[shard];
                let rest = &bytes[at..];
                at += node
                    .shard
                    .ingest_within(conn, rest, 100, self.now, &mut node.out);
                self.drain(shard);
            }
        } else if !self.wires[link.0].closed {
            self.wires[link.0].in_transit.extend_from_slice(bytes);
        }
    }

    /// The client's socket ends without a word.
    pub fn cut(&mut self, link: Link) {
        if let Some((shard, conn)) = self.wires[link.0].at.take() {
            let node = &mut self.nodes[shard];
            node.shard
                .close(conn, CloseCause::Eof, self.now, &mut node.out);
            self.forget(shard, conn);
            self.drain(shard);
        } else {
            self.wires[link.0].cut = true;
        }
    }

    /// One turn of `shard`: everything that lies in its lanes, what is due, the end of the turn.
    /// Returns whether anything happened.
    pub fn turn(&mut self, shard: usize) -> bool {
        self.turn_blind_to(shard, None)
    }

    /// A turn of `shard` that looked at the control lane from `blind` just before something came.
    pub fn turn_blind_to(&mut self, shard: usize, blind: Option<usize>) -> bool {
        let mut busy = false;
        let mut controls = Vec::new();
        for from in (0..self.nodes.len()).filter(|&from| Some(from) != blind) {
            let Some(lane) = self.lanes.get_mut(&(from, shard)) else {
                continue;
            };
            controls.extend(lane.control.drain(..).map(|messages| (from, messages)));
        }
        for from in 0..self.nodes.len() {
            let Some(lane) = self.lanes.get_mut(&(from, shard)) else {
                continue;
            };
            for batch in std::mem::take(&mut lane.live) {
                busy = true;
                let node = &mut self.nodes[shard];
                node.shard
                    .receive_live(ShardId::new(from), &batch, self.now, &mut node.out);
                node.out.recycle(batch);
            }
        }
        for (from, messages) in controls {
            busy = true;
            let node = &mut self.nodes[shard];
            for message in messages {
                node.shard
                    .receive_control(ShardId::new(from), message, self.now, &mut node.out);
            }
        }
        for from in 0..self.nodes.len() {
            let Some(lane) = self.lanes.get_mut(&(from, shard)) else {
                continue;
            };
            for (link, unread, peer) in std::mem::take(&mut lane.sockets) {
                busy = true;
                let conn = self.accept(shard, link);
                let node = &mut self.nodes[shard];
                node.shard
                    .adopt(conn, peer, &unread, self.now, &mut node.out);
                self.drain(shard);
                let late = std::mem::take(&mut self.wires[link.0].in_transit);
                if !late.is_empty() {
                    self.push(link, &late);
                }
                if self.wires[link.0].cut {
                    self.cut(link);
                }
            }
        }
        let node = &mut self.nodes[shard];
        if node.shard.next_deadline() <= self.now {
            busy = true;
            node.shard.tick(self.now, &mut node.out);
        }
        node.shard.end_turn(self.now, &mut node.out);
        busy |= std::mem::take(&mut node.out.again);
        if self.disk_works {
            busy |= self.work_on_history(shard);
        }
        busy |= self.work_on_journal(shard);
        busy | self.drain(shard)
    }

    /// Does what the outbox of `shard` says. Returns whether it said anything.
    fn drain(&mut self, shard: usize) -> bool {
        let mut busy = self.send(shard);
        for close in std::mem::take(&mut self.nodes[shard].out.closes) {
            busy = true;
            if let Some(link) = self.nodes[shard].links.get(&close.conn).copied() {
                self.wires[link.0].at = None;
                self.wires[link.0].closed = true;
            }
            self.forget(shard, close.conn);
        }
        for handoff in std::mem::take(&mut self.nodes[shard].out.handoffs) {
            busy = true;
            if let Some(link) = self.nodes[shard].links.get(&handoff.conn).copied() {
                self.wires[link.0].at = None;
                self.forget(shard, handoff.conn);
                let lane = self.lanes.entry((shard, handoff.to.index())).or_default();
                lane.sockets.push_back((link, handoff.unread, handoff.peer));
            }
        }
        let node = &mut self.nodes[shard];
        node.out.established.clear();
        self.events.append(&mut node.out.events);
        self.questions.extend(
            node.out
                .questions
                .drain(..)
                .map(|question| (shard, question)),
        );
        busy | self.flush_lanes(shard)
    }

    fn send(&mut self, shard: usize) -> bool {
        let mut busy = false;
        loop {
            let node = &mut self.nodes[shard];
            let Some(conn) = node.out.touched() else {
                break;
            };
            busy = true;
            let Some(link) = node.links.get(&conn).copied() else {
                continue;
            };
            let mut bytes = Vec::new();
            node.out.swap_output(conn, &mut bytes);
            let wire = &mut self.wires[link.0];
            if wire.stuck {
                let unsent = node.unsent.entry(conn).or_default();
                unsent.append(&mut bytes);
                node.out.set_unsent(conn, unsent.len());
                continue;
            }
            wire.inbox.append(&mut bytes);
            if node.out.take_wants_writable(conn) {
                node.shard.writable(conn, self.now, &mut node.out);
            }
        }
        busy
    }

    /// A client that left its socket unread reads it from now on.
    pub fn unstick(&mut self, link: Link) {
        self.wires[link.0].stuck = false;
        self.read(link);
    }

    /// A client that leaves its socket unread reads what lies there now.
    pub fn read(&mut self, link: Link) {
        let Some((shard, conn)) = self.wires[link.0].at else {
            return;
        };
        let node = &mut self.nodes[shard];
        let mut unsent = node.unsent.remove(&conn).unwrap_or_default();
        self.wires[link.0].inbox.append(&mut unsent);
        node.out.set_unsent(conn, 0);
        if node.out.take_wants_writable(conn) {
            node.shard.writable(conn, self.now, &mut node.out);
        }
        self.drain(shard);
    }

    fn flush_lanes(&mut self, shard: usize) -> bool {
        let mut busy = false;
        for to in 0..self.nodes.len() {
            let lane = self.lanes.entry((shard, to)).or_default();
            let out = &mut self.nodes[shard].out;
            while lane.live.len() < self.lane_depth
                && let Some(batch) = out.next_live(ShardId::new(to))
            {
                busy = true;
                lane.live.push_back(batch);
            }
        }
        let out = &mut self.nodes[shard].out;
        if out.live_is_empty() {
            for to in 0..self.nodes.len() {
                let out = &mut self.nodes[shard].out;
                if out.has_control(ShardId::new(to)) {
                    busy = true;
                    let messages = out.take_control(ShardId::new(to));
                    self.lanes
                        .entry((shard, to))
                        .or_default()
                        .control
                        .push_back(messages);
                }
            }
        }
        busy
    }

    fn forget(&mut self, shard: usize, conn: ConnKey) {
        let node = &mut self.nodes[shard];
        node.links.remove(&conn);
        node.unsent.remove(&conn);
        node.out.release(conn);
        node.generations[conn.index as usize] += 1;
        node.free.push(conn.index);
    }

    /// Turns until nothing happens any more.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for shard in 0..self.nodes.len() {
                busy |= self.turn(shard);
            }
            if !busy {
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    /// Lets `seconds` pass, deadline by deadline.
    pub fn advance(&mut self, seconds: f64) {
        let end = self.now.plus_micros((seconds * 1e6) as u64);
        loop {
            self.settle();
            let next = self
                .nodes
                .iter()
                .map(|node| node.shard.next_deadline())
                .min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    /// An authenticator answers the question that `shard` put.
    pub fn answer(
        &mut self,
        shard: usize,
        ticket: shardmq::shard::Ticket,
        answer: shardmq::policy::Decision,
    ) {
        let node = &mut self.nodes[shard];
        node.shard.complete(ticket, answer, self.now, &mut node.out);
        self.drain(shard);
    }

    /// Every shard gets another policy.
    pub fn replace_policy(&mut self, policy: impl Fn() -> Box<dyn Policy>) {
        for node in &mut self.nodes {
            node.shard.replace_policy(policy());
        }
    }

    /// Memory is so short for every shard.
    pub fn set_shortage(&mut self, shortage: shardmq::shard::Shortage) {
        for node in &mut self.nodes {
            node.shard.set_shortage(shortage);
        }
    }

    /// The whole broker stops.
    pub fn shutdown(&mut self) {
        for shard in 0..self.nodes.len() {
            let node = &mut self.nodes[shard];
            node.shard.shutdown(self.now, &mut node.out);
            self.drain(shard);
        }
        self.settle();
    }

    /// Takes the next complete packet out of a client's inbox, as bytes.
    pub fn next_frame(&mut self, link: Link) -> Option<Vec<u8>> {
        let inbox = &mut self.wires[link.0].inbox;
        let size = match frame(inbox, u32::MAX) {
            Ok(Framing::Packet { size, .. }) => size,
            Ok(Framing::Incomplete) => return None,
            Err(violation) => panic!("the broker sent something malformed: {violation:?}"),
        };
        Some(inbox.drain(..size).collect())
    }
}

/// Reads one packet from `bytes`, which hold exactly one.
pub fn decode(version: Version, bytes: &[u8]) -> Packet<'_> {
    let Ok(Framing::Packet {
        first_byte, body, ..
    }) = frame(bytes, u32::MAX)
    else {
        panic!("not a packet: {bytes:?}");
    };
    match Packet::decode(version, first_byte, body) {
        Ok(packet) => packet,
        Err(violation) => panic!("the broker sent something malformed: {violation:?} {bytes:?}"),
    }
}

/// The bytes of one packet.
pub fn encode(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}
