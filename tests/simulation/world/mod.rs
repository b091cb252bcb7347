//! Shards, the lanes between them, and sockets between them and the clients: everything that the
//! runtime does, with every liberty that it has, at random.
//!
//! A turn keeps the order that [`Shard`] asks for. Where the turn of a real shard can meet those of
//! others (between two lanes, between live and control), another shard takes a turn in between.
//! Whatever can be seen from outside is noted as an [`Observation`], in the order it happened.

mod sockets;

use std::collections::{BTreeMap, VecDeque};

use shardmq::policy::Open;
use shardmq::route::ShardId;
use shardmq::shard::{Batch, ConnKey, Control, Event, Identity, Outbox, Settings, Shard, Target};
use shardmq::stats::Stats;
use shardmq::time::Time;
use shardmq::wire::{Framing, QoS, frame};

use crate::mutation::{Bug, Mutator};
use crate::random::Random;

/// A connection, counted from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub usize);

/// A message between two shards.
#[derive(Clone, Debug)]
pub struct Passing {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub expires_at: Time,
    /// `$share/name/filter` if it goes to one member.
    pub group: Option<String>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A shard has a connection now, as fresh as from the listener.
    Opened { link: Link, shard: usize },
    /// A shard worked off a packet from a client.
    Packet {
        link: Link,
        shard: usize,
        bytes: Vec<u8>,
    },
    /// A shard was told that the client is gone.
    Closed { link: Link },
    /// A shard took a publish from another one.
    Arrived {
        from: usize,
        to: usize,
        message: Passing,
    },
    /// The keeper of a topic took a message to retain from another shard.
    Kept {
        from: usize,
        to: usize,
        message: Passing,
    },
    /// A shard did what was due.
    Ticked { shard: usize },
    /// The broker sends a packet.
    Output { link: Link, bytes: Vec<u8> },
    /// A shard hands a connection to the one where its session lives.
    Moved { link: Link },
    /// The broker closed a connection.
    Dropped { link: Link },
    /// The broker says that somebody broke a rule, or refused somebody.
    Complaint { event: Event },
    /// A turn is over, and its outbox empty.
    TurnEnded { shard: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the backlog of a shard's listener, or on the way from one shard to another.
    Waiting,
    On(usize, ConnKey),
    Gone,
}

/// One connection.
pub struct Socket {
    place: Place,
    /// Bytes from the client that the broker has not read.
    to_broker: VecDeque<u8>,
    /// Where its packets end, counted from the start of the connection.
    packets: VecDeque<(u64, Vec<u8>)>,
    read: u64,
    /// Bytes that travel with it from one shard to another.
    moving: u64,
    /// The client has closed it: the broker sees that behind the last byte.
    cut: bool,
    /// The client does not read.
    pub stuck: bool,
    /// Bytes that the broker's driver could not send yet.
    unsent: Vec<u8>,
    /// Bytes on their way to the client.
    pub to_client: VecDeque<u8>,
    /// The broker has closed it.
    pub closed: bool,
    established: bool,
}

struct Node {
    shard: Shard,
    out: Outbox,
    links: BTreeMap<ConnKey, Link>,
    generations: Vec<u32>,
    free: Vec<u32>,
    accepts: VecDeque<(Link, Vec<u8>)>,
    /// Connections that the client closed in this turn.
    gone: Vec<ConnKey>,
}

struct Lane {
    live_depth: usize,
    control_depth: usize,
    live: VecDeque<Box<Batch>>,
    control: VecDeque<Vec<Control>>,
}

/// How a turn goes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Some of what could be done is.
    Random,
    /// Everything is.
    Everything,
}

/// The whole broker and its sockets.
pub struct World {
    pub now: Time,
    nodes: Vec<Node>,
    lanes: Vec<Lane>,
    pub sockets: Vec<Socket>,
    pub observations: Vec<Observation>,
    mutator: Mutator,
    /// Whether a turn reads from one socket only.
    pub one_read_a_turn: bool,
    /// Packets and bytes that left, before any planted bug.
    pub packets_sent: u64,
    pub bytes_sent: u64,
}

const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);

impl World {
    pub fn new(shards: usize, settings: &Settings, random: &mut Random, bug: Option<Bug>) -> Self {
        let now = Time::from_secs(1_000);
        let nodes = (0..shards)
            .map(|index| {
                let identity = Identity {
                    shard: ShardId::new(index),
                    shards,
                    seed: random.next(),
                };
                Node {
                    shard: Shard::new(identity, settings.clone(), Box::new(Open), now),
                    out: Outbox::new(shards),
                    links: BTreeMap::new(),
                    generations: Vec::new(),
                    free: Vec::new(),
                    accepts: VecDeque::new(),
                    gone: Vec::new(),
                }
            })
            .collect();
        let lanes = (0..shards * shards)
            .map(|_| Lane {
                live_depth: *random.pick(&[1, 1, 2, 64]),
                control_depth: *random.pick(&[1, 2, 64]),
                live: VecDeque::new(),
                control: VecDeque::new(),
            })
            .collect();
        Self {
            now,
            nodes,
            lanes,
            sockets: Vec::new(),
            observations: Vec::new(),
            mutator: Mutator::new(bug),
            one_read_a_turn: false,
            packets_sent: 0,
            bytes_sent: 0,
        }
    }

    pub fn shards(&self) -> usize {
        self.nodes.len()
    }

    /// The counters of all shards together.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.nodes
            .iter()
            .for_each(|node| sum.add(&node.shard.stats()));
        sum
    }

    /// The shard that has something due first, and when.
    pub fn next_deadline(&self) -> (Time, usize) {
        let deadlines = self.nodes.iter().enumerate();
        let first = deadlines
            .map(|(index, node)| (node.shard.next_deadline(), index))
            .min();
        first.unwrap_or((Time::NEVER, 0))
    }

    /// A client connects; the listener of `shard` has it.
    pub fn open(&mut self, shard: usize) -> Link {
        let link = Link(self.sockets.len());
        self.sockets.push(Socket {
            place: Place::Waiting,
            to_broker: VecDeque::new(),
            packets: VecDeque::new(),
            read: 0,
            moving: 0,
            cut: false,
            stuck: false,
            unsent: Vec::new(),
            to_client: VecDeque::new(),
            closed: false,
            established: false,
        });
        self.nodes[shard].accepts.push_back((link, Vec::new()));
        link
    }

    /// A client sends one packet.
    pub fn send(&mut self, link: Link, packet: Vec<u8>) {
        let socket = &mut self.sockets[link.0];
        if socket.cut {
            return;
        }
        socket.to_broker.extend(&packet);
        let end = socket.read + socket.moving + socket.to_broker.len() as u64;
        socket.packets.push_back((end, packet));
    }

    /// Bytes of a client that the broker has not read.
    pub fn unread(&self, link: Link) -> usize {
        self.sockets[link.0].to_broker.len()
    }

    /// A client closes its socket; only the first `keep` of its unread bytes get through.
    pub fn cut(&mut self, link: Link, keep: usize) {
        let socket = &mut self.sockets[link.0];
        socket.to_broker.truncate(keep);
        let end = socket.read + socket.moving + socket.to_broker.len() as u64;
        socket.packets.retain(|(at, _)| *at <= end);
        socket.cut = true;
    }

    /// One turn of `index`. Returns whether anything happened.
    pub fn turn(&mut self, index: usize, random: &mut Random, pace: Pace) -> bool {
        self.turn_within(index, random, pace, false)
    }

    /// Somebody else's turn, at a point where it could meet that of `index`.
    fn interrupt(&mut self, index: usize, random: &mut Random, pace: Pace, nested: bool) {
        if !nested && pace == Pace::Random && self.nodes.len() > 1 && random.chance(5) {
            let other = (index + 1 + random.below(self.nodes.len() - 1)) % self.nodes.len();
            self.turn_within(other, random, pace, true);
        }
    }

    fn turn_within(&mut self, index: usize, random: &mut Random, pace: Pace, nested: bool) -> bool {
        let mut controls = Vec::new();
        for from in 0..self.nodes.len() {
            let lane = self.lane(from, index);
            controls.extend(
                std::mem::take(&mut lane.control)
                    .into_iter()
                    .map(|list| (from, list)),
            );
            self.interrupt(index, random, pace, nested);
        }
        let mut busy = !controls.is_empty();
        for from in 0..self.nodes.len() {
            while let Some(batch) = self.lane(from, index).live.pop_front() {
                busy = true;
                self.take_live(from, index, batch);
            }
            self.interrupt(index, random, pace, nested);
        }
        for (from, messages) in controls {
            for message in messages {
                self.take_control(from, index, message);
            }
        }
        busy |= self.accept(index);
        busy |= self.read_sockets(index, random, pace);
        let now = self.now;
        let node = &mut self.nodes[index];
        if node.shard.next_deadline() <= now {
            busy = true;
            node.shard.tick(now, &mut node.out);
            self.observations.push(Observation::Ticked { shard: index });
        }
        let node = &mut self.nodes[index];
        node.shard.end_turn(now, &mut node.out);
        busy |= std::mem::take(&mut node.out.again);
        busy |= self.drain(index, random, pace);
        self.observations
            .push(Observation::TurnEnded { shard: index });
        busy |= self.flush_live(index);
        self.interrupt(index, random, pace, nested);
        busy | self.flush_control(index)
    }

    fn lane(&mut self, from: usize, to: usize) -> &mut Lane {
        let shards = self.nodes.len();
        &mut self.lanes[from * shards + to]
    }

    fn take_live(&mut self, from: usize, to: usize, batch: Box<Batch>) {
        let batch = self.mutator.batch(batch);
        for frame in batch.frames() {
            let group = match frame.target {
                Target::Subscribers => None,
                Target::Member { subscription, .. } => Some(subscription.to_text()),
            };
            for message in frame.messages() {
                let message = passing(&message, group.clone());
                self.observations
                    .push(Observation::Arrived { from, to, message });
            }
        }
        let node = &mut self.nodes[to];
        node.shard
            .receive_live(ShardId::new(from), &batch, self.now, &mut node.out);
        node.out.recycle(batch);
    }

    fn take_control(&mut self, from: usize, to: usize, message: Control) {
        if let Control::Retain(batch) = &message {
            for frame in batch.frames() {
                let message = passing(&frame.message, None);
                self.observations
                    .push(Observation::Kept { from, to, message });
            }
        }
        let node = &mut self.nodes[to];
        node.shard
            .receive_control(ShardId::new(from), message, self.now, &mut node.out);
    }

    fn flush_live(&mut self, index: usize) -> bool {
        let mut busy = false;
        for to in 0..self.nodes.len() {
            while let Some(batch) = self.nodes[index].out.next_live(ShardId::new(to)) {
                let lane = self.lane(index, to);
                if lane.live.len() >= lane.live_depth {
                    self.nodes[index]
                        .out
                        .give_back_live(ShardId::new(to), batch);
                    break;
                }
                lane.live.push_back(batch);
                busy = true;
            }
        }
        busy
    }

    fn flush_control(&mut self, index: usize) -> bool {
        let mut busy = false;
        if !self.nodes[index].out.live_is_empty() {
            return true;
        }
        for to in 0..self.nodes.len() {
            let id = ShardId::new(to);
            if !self.nodes[index].out.has_control(id) {
                continue;
            }
            busy = true;
            let messages = self.nodes[index].out.take_control(id);
            let lane = self.lane(index, to);
            if lane.control.len() >= lane.control_depth {
                self.nodes[index].out.give_back_control(id, messages);
            } else {
                lane.control.push_back(messages);
            }
        }
        busy
    }

    fn forget(&mut self, shard: usize, conn: ConnKey) {
        let node = &mut self.nodes[shard];
        if node.links.remove(&conn).is_some() {
            node.out.release(conn);
            node.generations[conn.index as usize] += 1;
            node.free.push(conn.index);
        }
    }
}

fn passing(message: &shardmq::message::MessageView<'_>, group: Option<String>) -> Passing {
    Passing {
        topic: message.topic.as_str().to_owned(),
        payload: message.payload.to_vec(),
        qos: message.qos,
        retain: message.retain,
        expires_at: message.expires_at,
        group,
    }
}

/// Takes bytes apart into packets; the broker only ever sends whole ones.
pub fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Ok(Framing::Packet { size, .. }) = frame(bytes, u32::MAX) {
        frames.push(bytes[..size].to_vec());
        bytes = &bytes[size..];
    }
    assert!(
        bytes.is_empty(),
        "the broker sent a part of a packet: {bytes:?}"
    );
    frames
}
