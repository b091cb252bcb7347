//! A broker of several shards without a machine: shards, the lanes between them, a disk for each.

use std::collections::{BTreeMap, VecDeque};

use shardmq::journal::{
    BLOCK, FileId, Identity as LogIdentity, Journal, Read, Recovered, Recovery, Settings as Log,
    Sync, Write,
};
use shardmq::policy::Open;
use shardmq::route::ShardId;
use shardmq::shard::{
    Batch, Bodies, ConnKey, Control, Durable, Epoch, Fetching, Identity, Outbox, Peer, Settings,
    Shard,
};
use shardmq::time::Time;

use crate::disk::Disk;
use crate::mutation::{Bug, Mutator};
use crate::random::Random;

/// Milliseconds since 1970 when the virtual clock was 0.
const EPOCH: Epoch = Epoch(1_800_000_000_000);

/// The power went.
#[derive(Debug)]
pub struct Cut;

/// How far a write is.
#[derive(Default)]
enum Progress {
    #[default]
    None,
    Asked(Write),
    Written(Write),
    Synced(Write),
}

/// What one shard has for another.
#[derive(Default)]
struct Lane {
    live: VecDeque<Box<Batch>>,
    control: VecDeque<Vec<Control>>,
}

/// One shard.
struct Node {
    shard: Shard,
    out: Outbox,
    progress: Progress,
    reading: Option<Read>,
    /// Asked for to be sent, and not read yet.
    fetching: Vec<Fetching>,
    /// Connections that come from other shards, with what was read of them.
    handed: Vec<(usize, Peer, Vec<u8>)>,
}

/// A connection of a client.
#[derive(Default)]
pub struct Socket {
    /// The shard that has it, while there is one.
    shard: Option<usize>,
    /// Tells it from the client's connections before.
    generation: u32,
    /// Bytes on their way.
    pub to_broker: Vec<u8>,
    pub to_client: Vec<u8>,
}

/// What outlives a crash, and what does not.
pub struct Broker {
    pub random: Random,
    pub now: Time,
    nodes: Vec<Node>,
    disks: Vec<Disk>,
    mutators: Vec<Mutator>,
    lanes: BTreeMap<(usize, usize), Lane>,
    pub sockets: Vec<Socket>,
    log: Log,
    bug: Option<Bug>,
    queue_memory: u64,
    /// Operations of disks until the power goes.
    pub fuse: usize,
    pub moves: u64,
    pub forwarded: u64,
    /// What a backup copies of each shard's disk, once that is known.
    copies: Vec<Option<Disk>>,
    pub fetched: u64,
}

fn identity(shard: usize) -> LogIdentity {
    LogIdentity {
        log: 0xD15C_0000 + shard as u64,
        shard: shard as u16,
    }
}

impl Broker {
    pub fn new(seed: u64, clients: usize, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(3);
        let log = Log {
            segment_bytes: ((6 + random.below(8)) * BLOCK) as u32,
            frame_bytes: (BLOCK / 2 + random.below(3 * BLOCK)) as u32,
            sync: Sync::Always,
            slack_segments: 1 + random.below(3) as u32,
            spare_files: 1 + random.below(2) as u32,
        };
        let queue_memory = [0, 200, 1 << 20][random.below(3)];
        let disk = || {
            let mut disk = Disk::new(10_000);
            disk.ignores_sync = bug == Some(Bug::NoSync);
            disk
        };
        Self {
            disks: (0..shards).map(|_| disk()).collect(),
            mutators: (0..shards)
                .map(|shard| Mutator::new(bug, identity(shard)))
                .collect(),
            sockets: (0..clients).map(|_| Socket::default()).collect(),
            nodes: Vec::new(),
            lanes: BTreeMap::new(),
            now: Time::from_millis(1),
            fuse: usize::MAX,
            moves: 0,
            forwarded: 0,
            copies: Vec::new(),
            random,
            log,
            bug,
            queue_memory,
            fetched: 0,
        }
    }

    /// Starts all shards from what their disks have.
    pub fn start(&mut self) -> Result<(), String> {
        let shards = self.disks.len();
        for index in 0..shards {
            let (journal, recovered, bodies) = self.recover(index)?;
            let seed = self.random.next();
            let settings = Settings {
                sys_interval: 0,
                max_queued_messages: u32::MAX,
                max_queue_memory: self.queue_memory,
                ..Settings::default()
            };
            let who = Identity {
                shard: ShardId::new(index),
                shards,
                seed,
            };
            let mut shard = Shard::new(who, settings, Box::new(Open), self.now);
            let mut out = Outbox::new(shards);
            let durable = Durable::default();
            shard.restore((journal, recovered), bodies, durable, self.now, &mut out);
            shard.end_turn(self.now, &mut out);
            self.nodes.push(Node {
                shard,
                out,
                progress: Progress::None,
                reading: None,
                fetching: Vec::new(),
                handed: Vec::new(),
            });
        }
        // Before anybody works: what each has to tell the others is on its way.
        (0..shards).for_each(|index| self.empty(index));
        Ok(())
    }

    fn recover(&mut self, index: usize) -> Result<(Journal, Recovered, Bodies), String> {
        let disk = &mut self.disks[index];
        for file in disk.files() {
            if disk.read(file).len() != self.log.segment_bytes as usize {
                disk.remove(file);
            } else if self.bug != Some(Bug::NoSyncAtStart) {
                disk.sync(file);
            }
        }
        let mut recovery = Recovery::new(identity(index), self.log);
        for file in disk.files() {
            recovery.look(FileId(file), &disk.read(file)[..BLOCK]);
        }
        while let Some(file) = recovery.next_file() {
            recovery
                .read(file, disk.read(file.0))
                .map_err(|damage| damage.to_string())?;
        }
        let (journal, mut recovered) = recovery.finish().map_err(|damage| damage.to_string())?;
        self.mutators[index].recovered(&mut recovered, &journal, disk);
        let mut bodies = Bodies::new(EPOCH, &recovered);
        for file in journal.files().collect::<Vec<_>>() {
            journal
                .each_message(file, disk.read(file.0), |item, message, retained, to| {
                    bodies.take(item, message, retained, to);
                })
                .map_err(|damage| damage.to_string())?;
        }
        Ok((journal, recovered, bodies))
    }

    /// The power goes, or only the process ends.
    pub fn cut(&mut self) {
        self.end();
        let power = self.random.chance(70);
        for disk in &mut self.disks {
            if power {
                disk.cut(&mut self.random);
            }
        }
    }

    fn end(&mut self) {
        self.nodes.clear();
        self.lanes.clear();
        for socket in &mut self.sockets {
            socket.shard = None;
            socket.to_broker.clear();
        }
    }

    /// A backup begins: as `runtime/barrier.rs` does it.
    pub fn begin_backup(&mut self) {
        self.copies = self.disks.iter().map(|_| None).collect();
        for node in &mut self.nodes {
            node.shard.journal().expect("there is one").freeze();
        }
    }

    /// Whether every shard waits for the others. With `scattered` none does: each goes on at once.
    pub fn has_backup(&mut self, scattered: bool) -> bool {
        let shards = self.nodes.iter_mut().zip(&mut self.copies);
        for (index, (node, copy)) in shards.enumerate() {
            let journal = node.shard.journal().expect("there is one");
            let Some(cut) = journal.cut().filter(|_| copy.is_none()) else {
                continue;
            };
            let mut disk = Disk::new(10_000);
            for (file, bytes) in cut.files {
                let made = disk.create(file.0, self.log.segment_bytes as usize);
                assert!(made.is_ok());
                let bytes = &self.disks[index].read(file.0)[..bytes as usize];
                disk.write(file.0, 0, bytes);
                disk.sync(file.0);
            }
            *copy = Some(disk);
            if scattered {
                journal.thaw();
            }
        }
        self.copies.iter().all(Option::is_some)
    }

    /// The broker is gone, and its disks with it: what is left is the backup.
    pub fn become_backup(&mut self) {
        self.end();
        let copies = std::mem::take(&mut self.copies);
        self.disks = copies.into_iter().flatten().collect();
        for (shard, mutator) in self.mutators.iter_mut().enumerate() {
            *mutator = Mutator::new(self.bug, identity(shard));
        }
    }

    pub fn is_connected(&self, client: usize) -> bool {
        self.sockets[client].shard.is_some()
    }

    /// A client connects to some shard.
    pub fn connect(&mut self, client: usize, bytes: Vec<u8>) {
        let shard = self.random.below(self.nodes.len());
        let socket = &mut self.sockets[client];
        socket.generation += 1;
        socket.shard = Some(shard);
        socket.to_broker = bytes;
        socket.to_client.clear();
        let key = key(client, socket);
        let peer = Peer::new(0, ([127, 0, 0, 1], 1).into());
        let node = &mut self.nodes[shard];
        node.shard.open(key, peer, self.now, &mut node.out);
    }

    /// A shard takes a turn: as the driver does it.
    pub fn turn(&mut self, index: usize) {
        let now = self.now;
        let others: Vec<usize> = (0..self.nodes.len())
            .filter(|&other| other != index)
            .collect();
        let node = &mut self.nodes[index];
        let mut parcels = Vec::new();
        for &other in &others {
            if let Some(lane) = self.lanes.get_mut(&(other, index)) {
                parcels.extend(
                    lane.control
                        .drain(..)
                        .flatten()
                        .map(|control| (other, control)),
                );
            }
        }
        for &other in &others {
            if let Some(lane) = self.lanes.get_mut(&(other, index)) {
                for batch in lane.live.drain(..) {
                    let forwarded = batch.frames().filter(|frame| frame.origin.is_some());
                    self.forwarded += forwarded.count() as u64;
                    node.shard
                        .receive_live(ShardId::new(other), &batch, now, &mut node.out);
                }
            }
        }
        for (other, control) in parcels {
            node.shard
                .receive_control(ShardId::new(other), control, now, &mut node.out);
        }
        for (client, peer, unread) in std::mem::take(&mut node.handed) {
            let key = key(client, &self.sockets[client]);
            node.shard.adopt(key, peer, &unread, now, &mut node.out);
        }
        for (client, socket) in self.sockets.iter_mut().enumerate() {
            if socket.shard != Some(index) || socket.to_broker.is_empty() {
                continue;
            }
            let some = 1 + self.random.below(socket.to_broker.len());
            let bytes: Vec<u8> = socket.to_broker.drain(..some).collect();
            let key = key(client, socket);
            node.shard.ingest(key, &bytes, now, &mut node.out);
        }
        node.shard.tick(now, &mut node.out);
        node.shard.end_turn(now, &mut node.out);
        self.empty(index);
    }

    /// What a turn left behind.
    fn empty(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        while let Some(conn) = node.out.touched() {
            let client = conn.index as usize;
            let mut bytes = Vec::new();
            node.out.swap_output(conn, &mut bytes);
            let socket = &mut self.sockets[client];
            if socket.shard == Some(index) && key(client, socket) == conn {
                socket.to_client.extend(bytes);
            }
        }
        assert!(node.out.closes.is_empty(), "nobody breaks a rule");
        let handoffs = std::mem::take(&mut node.out.handoffs);
        node.out.established.clear();
        node.out.reading.clear();
        node.out.events.clear();
        for to in 0..self.disks.len() {
            let shard = ShardId::new(to);
            let lane = self.lanes.entry((index, to)).or_default();
            while let Some(batch) = self.nodes[index].out.next_live(shard) {
                lane.live.push_back(batch);
            }
            let control = self.nodes[index].out.take_control(shard);
            if !control.is_empty() {
                lane.control.push_back(control);
            }
        }
        for handoff in handoffs {
            let client = handoff.conn.index as usize;
            self.nodes[index].out.release(handoff.conn);
            self.sockets[client].shard = Some(handoff.to.index());
            let handed = (client, handoff.peer, handoff.unread);
            self.nodes[handoff.to.index()].handed.push(handed);
        }
    }

    /// One operation of a disk.
    pub fn work_on_disk(&mut self, index: usize) -> Result<(), Cut> {
        match std::mem::take(&mut self.nodes[index].progress) {
            Progress::None => self.next_operation(index),
            Progress::Asked(write) => {
                if self.bug == Some(Bug::AcknowledgedBeforeCommit) {
                    self.complete(index, write);
                    return Ok(());
                }
                self.write(index, write)
            }
            Progress::Written(write) => {
                let (disk, random) = (&mut self.disks[index], &mut self.random);
                self.fuse -= 1;
                if self.fuse == 0 {
                    disk.sync_some(write.file.0, random);
                    return Err(Cut);
                }
                disk.sync(write.file.0);
                self.nodes[index].progress = Progress::Synced(write);
                Ok(())
            }
            Progress::Synced(write) => {
                self.complete(index, write);
                self.burn()
            }
        }
    }

    fn burn(&mut self) -> Result<(), Cut> {
        self.fuse -= 1;
        if self.fuse == 0 { Err(Cut) } else { Ok(()) }
    }

    fn complete(&mut self, index: usize, write: Write) {
        let node = &mut self.nodes[index];
        node.shard.committed(write, Ok(()), &mut node.out);
    }

    fn next_operation(&mut self, index: usize) -> Result<(), Cut> {
        let disk = &mut self.disks[index];
        let node = &mut self.nodes[index];
        while let Some(fetching) = node.shard.next_fetch() {
            node.fetching.push(fetching);
        }
        if !node.fetching.is_empty() && self.random.chance(60) {
            let some = self.random.below(node.fetching.len());
            let fetching = node.fetching.swap_remove(some);
            let read = |read: Read| {
                let (from, length) = (read.offset as usize, read.length as usize);
                let bytes = disk.read(read.file.0).get(from..from + length);
                bytes.unwrap_or_default().to_vec()
            };
            let buffers: Vec<Vec<u8>> = fetching.fetch.reads().map(read).collect();
            self.fetched += 1;
            let fetched = node
                .shard
                .fetched(fetching, &buffers, self.now, &mut node.out);
            assert!(fetched.is_ok(), "{fetched:?}");
            return Ok(());
        }
        let Some(journal) = node.shard.journal() else {
            return Ok(());
        };
        if let Some(read) = node.reading.take_if(|_| self.random.chance(60)) {
            let (from, length) = (read.offset as usize, read.length as usize);
            let bytes = disk.read(read.file.0).get(from..from + length);
            self.moves += 1;
            let moved = journal.moved(read, bytes.unwrap_or_default());
            assert!(moved.is_ok(), "{moved:?}");
            return Ok(());
        }
        if let Some(file) = journal.next_allocation() {
            let made = disk.create(file.0, self.log.segment_bytes as usize);
            journal.allocated(file, made.is_ok());
            return self.burn();
        }
        if let Some(file) = journal.next_removal() {
            disk.remove(file.0);
            return self.burn();
        }
        if node.reading.is_none() {
            node.reading = journal.next_move();
        }
        if self.random.chance(5) {
            journal.seal();
        }
        if let Some(write) = journal.next_write() {
            node.progress = Progress::Asked(write);
        }
        Ok(())
    }

    fn write(&mut self, index: usize, write: Write) -> Result<(), Cut> {
        let disk = &mut self.disks[index];
        let bytes = self.mutators[index].frame(write.bytes(), disk);
        let (file, offset) = (write.file.0, write.offset as usize);
        self.fuse -= 1;
        if self.fuse == 0 {
            let end = self.random.below(bytes.len() / 512 + 1);
            let manner = self.random.below(3);
            let random = &mut self.random;
            disk.write_some(file, offset, &bytes, |sector| match manner {
                0 => sector < end,
                1 => true,
                _ => random.chance(50),
            });
            return Err(Cut);
        }
        disk.write(file, offset, &bytes);
        self.nodes[index].progress = Progress::Written(write);
        Ok(())
    }

    pub fn shards(&self) -> usize {
        self.disks.len()
    }

    /// Whether nothing is on its way, neither between shards nor to a disk.
    pub fn is_quiet(&self) -> bool {
        let lanes = self.lanes.values();
        let empty = lanes
            .clone()
            .all(|lane| lane.live.is_empty() && lane.control.is_empty());
        let done = self.nodes.iter().all(|node| {
            let kept = node.shard.kept();
            kept.is_none_or(|journal| journal.durable() >= journal.position())
                && node.handed.is_empty()
                && node.shard.stats().queued_on_disk == 0
        });
        empty
            && done
            && self
                .sockets
                .iter()
                .all(|socket| socket.to_broker.is_empty())
    }
}

fn key(client: usize, socket: &Socket) -> ConnKey {
    ConnKey {
        index: client as u32,
        generation: socket.generation,
    }
}
