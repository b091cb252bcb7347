//! Clients that obey the protocol, each with its own QoS state across connections. They may be
//! slow, impatient and unlucky, never wrong.

mod receive;
mod send;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shardmq::wire::{QoS, Version};

use crate::world::Link;

pub use send::Request;

/// What a client is like, all its life.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    pub version: Version,
    /// Session Expiry Interval that it asks for (seconds).
    pub expiry: u32,
    pub receive_maximum: Option<u16>,
    pub maximum_packet_size: Option<u32>,
    pub topic_alias_maximum: u16,
    pub keep_alive: u16,
    /// It takes part in shared subscriptions, and in nothing else.
    pub worker: bool,
    /// It lets the broker choose its client id.
    pub anonymous: bool,
}

/// A message that a client publishes.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub expiry: Option<u32>,
}

/// How far a message of its own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Published,
    /// PUBREC came.
    Released,
}

#[derive(Clone, Debug)]
struct Outgoing {
    packet_id: u16,
    message: Message,
    progress: Progress,
}

/// One client.
pub struct Client {
    pub profile: Profile,
    pub link: Option<Link>,
    /// CONNACK came.
    up: bool,
    clean: bool,
    /// CONNACK of its last CONNECT came.
    greeted: bool,
    inbox: Vec<u8>,
    next_packet_id: u16,
    outgoing: Vec<Outgoing>,
    backlog: VecDeque<Message>,
    requests: BTreeSet<u16>,
    /// QoS 2 messages that PUBREL has not released.
    incoming: BTreeMap<u16, Vec<u8>>,
    pubacks: VecDeque<u16>,
    pubrecs: VecDeque<u16>,
    /// Acknowledges at once.
    pub prompt: bool,
    receive_maximum: usize,
    topic_alias_maximum: u16,
    aliases: BTreeMap<String, u16>,
    /// What it asked for, subscribed or not.
    pub filters: BTreeSet<String>,
    /// QoS 2 messages that reached the application with RETAIN 0, by payload.
    pub received: BTreeMap<Vec<u8>, u32>,
}

impl Client {
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            link: None,
            up: false,
            clean: false,
            greeted: false,
            inbox: Vec::new(),
            next_packet_id: 65_500,
            outgoing: Vec::new(),
            backlog: VecDeque::new(),
            requests: BTreeSet::new(),
            incoming: BTreeMap::new(),
            pubacks: VecDeque::new(),
            pubrecs: VecDeque::new(),
            prompt: true,
            receive_maximum: 1,
            topic_alias_maximum: 0,
            aliases: BTreeMap::new(),
            filters: BTreeSet::new(),
            received: BTreeMap::new(),
        }
    }

    /// Whether CONNACK came and the connection stands, as far as the client knows.
    pub fn is_up(&self) -> bool {
        self.link.is_some() && self.up
    }

    /// Whether it waits for nothing and owes nothing.
    pub fn is_idle(&self) -> bool {
        self.link.is_none()
            || (self.up
                && self.outgoing.is_empty()
                && self.backlog.is_empty()
                && self.requests.is_empty()
                && self.pubacks.is_empty()
                && self.pubrecs.is_empty())
    }

    pub fn describe(&self) -> String {
        format!(
            "{} up {} outgoing {:?} backlog {} requests {:?} incoming {:?} acks {:?} {:?}",
            self.profile.name,
            self.up,
            self.outgoing,
            self.backlog.len(),
            self.requests,
            self.incoming,
            self.pubacks,
            self.pubrecs
        )
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            let id = self.next_packet_id;
            let taken = self
                .outgoing
                .iter()
                .any(|outgoing| outgoing.packet_id == id);
            if !taken && !self.requests.contains(&id) {
                return id;
            }
        }
    }

    /// The broker closed the connection, or the client did.
    pub fn lose(&mut self) {
        self.link = None;
        self.up = false;
        self.inbox.clear();
        self.pubacks.clear();
        self.pubrecs.clear();
        self.requests.clear();
        self.aliases.clear();
        self.topic_alias_maximum = 0;
        self.receive_maximum = 1;
    }
}
