//! What a run is to do, as data: who connects, who publishes what and how fast, in which phases.
//!
//! A plan is made from flags or from the name of a scenario and never changes while it runs; the
//! engine turns it into sockets. Everything random in it comes from its seed, so the same plan asks
//! for the same load.

mod describe;
pub mod fleet;
pub mod pattern;
pub mod scenarios;
pub mod schedule;
mod suite;

use std::net::IpAddr;
use std::time::Duration;

use shardmq::runtime::ClientTls;
pub use shardmq::runtime::net::Driver;
use shardmq::wire::{QoS, Version};

pub use pattern::Pattern;

/// How long a connection may take from its SYN to its CONNACK, and to its SUBACK.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the last messages of a run are waited for.
pub const DRAIN: Duration = Duration::from_secs(10);

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the scenario, or the command.
    pub name: String,
    /// Host name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What lies below MQTT.
    pub transport: Transport,
    /// What the clients speak.
    pub version: Version,
    /// User Name of every client.
    pub username: Option<String>,
    /// Password of every client.
    pub password: Option<String>,
    /// Seconds.
    pub keep_alive: u16,
    /// Clean Start, or Clean Session.
    pub clean_start: bool,
    /// Session Expiry Interval in seconds.
    pub session_expiry: Option<u32>,
    /// Beginning of all client identifiers.
    pub prefix: String,
    /// Who takes part; they connect in this order.
    pub groups: Vec<Group>,
    /// Connections per second that are begun; `None` is all at once.
    pub connect_rate: Option<f64>,
    /// Whether a connection that was lost is made again.
    pub reconnect: bool,
    /// Whether connecting is what is measured, so that the measured phase begins with it.
    pub measures_connecting: bool,
    /// Load without measuring, after everybody has connected.
    pub warmup: Duration,
    /// Length of the measured phase; `None` is until Ctrl-C or until [`Plan::message_limit`].
    pub duration: Option<Duration>,
    /// Messages to publish in all.
    pub message_limit: Option<u64>,
    /// Bytes of each payload.
    pub payload_size: usize,
    /// What receivers check.
    pub verify: Verify,
    /// What everything random comes from.
    pub seed: u64,
    /// Addresses to connect from, in turn.
    pub sources: Vec<IpAddr>,
    /// Threads.
    pub shards: usize,
    /// CPUs to pin them to, in turn.
    pub cpus: Vec<usize>,
    /// How to drive the network.
    pub driver: Driver,
    /// What its clients do if it is a fleet: then no group publishes or has a schedule.
    pub fleet: Option<fleet::Fleet>,
    /// The broker's process, to read its use of CPU and memory.
    pub broker_pid: Option<u32>,
}

/// What lies below MQTT; nothing is TCP alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// TLS.
    pub tls: Option<ClientTls>,
    /// WebSocket, and the path that is asked for.
    pub ws: Option<String>,
}

/// Clients that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they are called; part of the client identifier.
    pub role: &'static str,
    /// How many.
    pub count: u32,
    /// What they publish.
    pub publishing: Option<Publishing>,
    /// What they subscribe to.
    pub subscribing: Option<Subscribing>,
    /// Whether they stop reading their sockets once the warm-up is over.
    pub stops_reading: bool,
}

/// What each client of a group publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct Publishing {
    /// Where; `%i` is the number of the topic.
    pub topic: Pattern,
    /// Topics; client `i` has the topic `i` modulo this.
    pub topics: u32,
    /// Quality of Service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// When.
    pub pace: Pace,
    /// Messages of QoS 1 and 2 that one client has unacknowledged at most.
    pub window: u16,
    /// Subscribers that each message has to reach.
    pub receivers: u32,
}

/// When messages are published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// On a schedule, so many per second by the whole group, whatever the broker does.
    Rate(f64),
    /// As soon as the window (QoS 1 and 2) or the socket (QoS 0) has room.
    Saturated,
    /// As soon as the client has received its own last message.
    PingPong,
}

/// What each client of a group subscribes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribing {
    /// Where; `%i` is the number of the topic.
    pub filter: Pattern,
    /// Which numbers of topics a client asks for.
    pub topics: Topics,
    /// The highest QoS.
    pub qos: QoS,
    /// The group of this plan whose messages come; `None` if they come from elsewhere.
    pub source: Option<usize>,
    /// Whether the group shares the messages (`$share`).
    pub shared: bool,
}

/// Which topics one subscriber asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics {
    /// Client `i` asks for number `i` modulo this.
    Own(u32),
    /// Each asks for all of them.
    All(u32),
}

/// What receivers check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verify {
    /// Nothing.
    #[default]
    None,
    /// Loss, duplicates, order.
    Sequence,
    /// The topic and every byte of the payload as well.
    Full,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            name: String::new(),
            host: "127.0.0.1".to_owned(),
            port: 1883,
            transport: Transport::default(),
            version: Version::V5,
            username: None,
            password: None,
            keep_alive: 300,
            clean_start: true,
            session_expiry: None,
            prefix: "lg".to_owned(),
            groups: Vec::new(),
            connect_rate: None,
            reconnect: false,
            measures_connecting: false,
            warmup: Duration::from_secs(1),
            duration: Some(Duration::from_secs(10)),
            message_limit: None,
            payload_size: 64,
            verify: Verify::None,
            seed: 1,
            sources: Vec::new(),
            shards: 1,
            cpus: Vec::new(),
            driver: Driver::Auto,
            fleet: None,
            broker_pid: None,
        }
    }
}

impl Plan {
    /// Clients of all groups.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// Clients that publish.
    #[must_use]
    pub fn publishers(&self) -> u32 {
        let publishing = |group: &&Group| group.publishing.is_some();
        self.groups
            .iter()
            .filter(publishing)
            .map(|group| group.count)
            .sum()
    }

    /// Messages per second that are to be published, if there is a schedule.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        let rates = self.publishings().map(|publishing| match publishing.pace {
            Pace::Rate(rate) => Some(rate),
            Pace::Saturated | Pace::PingPong => None,
        });
        let all: Option<Vec<f64>> = rates.collect();
        all.filter(|rates| !rates.is_empty())
            .map(|rates| rates.iter().sum())
    }

    /// Sets the rate of all publishers together; each group keeps its share.
    pub fn set_rate(&mut self, total: f64) {
        let publishers = f64::from(self.publishers().max(1));
        for group in &mut self.groups {
            let share = total * f64::from(group.count) / publishers;
            if let Some(publishing) = &mut group.publishing {
                publishing.pace = Pace::Rate(share);
            }
        }
    }

    /// Whether messages are sent only when earlier ones are through: then there is no schedule.
    #[must_use]
    pub fn is_closed_loop(&self) -> bool {
        self.publishings()
            .any(|publishing| !matches!(publishing.pace, Pace::Rate(_)))
    }

    /// What the groups publish.
    pub fn publishings(&self) -> impl Iterator<Item = &Publishing> {
        self.groups
            .iter()
            .filter_map(|group| group.publishing.as_ref())
    }

    /// Client identifier of a client of a group.
    #[must_use]
    pub fn client_id(&self, group: usize, number: u32) -> String {
        format!("{}-{}-{number}", self.prefix, self.groups[group].role)
    }
}
