//! A steady QoS 0 publish allocates nothing, and what a connection at rest costs.
//!
//! One test binary of its own, because the allocator that counts is global.

#[path = "support/counting.rs"]
mod counting;

use counting::{Counting, allocations, bytes_in_use};
use shardmq::session::Peer;
use shardmq::shard::{ConnKey, Identity, Outbox, Settings, Shard};
use shardmq::time::Time;
use shardmq::{policy::Open, route::ShardId};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Broker {
    shard: Shard,
    out: Outbox,
    spare: Vec<u8>,
}

impl Broker {
    fn new() -> Self {
        let identity = Identity {
            shard: ShardId::new(0),
            shards: 1,
            seed: 7,
        };
        let settings = Settings {
            sys_interval: 0,
            ..Settings::default()
        };
        let shard = Shard::new(identity, settings, Box::new(Open), Time::ZERO);
        Self {
            shard,
            out: Outbox::new(1),
            spare: Vec::new(),
        }
    }

    fn turn(&mut self, conn: ConnKey, bytes: &[u8]) -> usize {
        let now = Time::from_secs(1);
        self.shard.ingest(conn, bytes, now, &mut self.out);
        self.shard.end_turn(now, &mut self.out);
        let mut sent = 0;
        while let Some(touched) = self.out.touched() {
            let mut output = std::mem::take(&mut self.spare);
            self.out.swap_output(touched, &mut output);
            sent += output.len();
            output.clear();
            self.out.return_output(output);
        }
        sent
    }

    fn connect(&mut self, index: u32, filter: &str) -> ConnKey {
        let conn = ConnKey {
            index,
            generation: 0,
        };
        let peer = Peer::new(0, ([127, 0, 0, 1], 1).into());
        self.shard.open(conn, peer, Time::ZERO, &mut self.out);
        let client_id = format!("vehicle-{index:06}");
        let mut bytes = vec![0x10, 12 + client_id.len() as u8, 0, 4];
        bytes.extend_from_slice(b"MQTT\x04\x02\x00\x3c\x00");
        bytes.push(client_id.len() as u8);
        bytes.extend_from_slice(client_id.as_bytes());
        if !filter.is_empty() {
            bytes.extend_from_slice(&[0x82, 5 + filter.len() as u8, 0, 1, 0]);
            bytes.push(filter.len() as u8);
            bytes.extend_from_slice(filter.as_bytes());
            bytes.push(0);
        }
        let answered = self.turn(conn, &bytes);
        assert!(answered > 0);
        self.out.established.clear();
        self.out.events.clear();
        conn
    }
}

#[test]
fn a_steady_qos_0_publish_allocates_nothing() {
    let mut broker = Broker::new();
    let publisher = broker.connect(0, "");
    for receiver in 1..=10 {
        broker.connect(receiver, "vehicle/+/telemetry");
    }
    let topic = b"vehicle/4711/telemetry";
    let mut publish = vec![0x30, 2 + topic.len() as u8 + 16, 0, topic.len() as u8];
    publish.extend_from_slice(topic);
    publish.extend_from_slice(&[7; 16]);
    for _ in 0..100 {
        assert_eq!(broker.turn(publisher, &publish), 10 * publish.len());
    }
    let before = allocations();
    for _ in 0..1_000 {
        broker.turn(publisher, &publish);
    }
    assert_eq!(allocations() - before, 0);
}

#[test]
fn a_connection_at_rest_is_small() {
    const CONNECTIONS: u32 = 10_000;
    let mut broker = Broker::new();
    broker.connect(0, "vehicle/0/command");
    let before = bytes_in_use();
    for index in 1..=CONNECTIONS {
        broker.connect(index, &format!("vehicle/{index}/command"));
    }
    let each = (bytes_in_use() - before) / u64::from(CONNECTIONS);
    println!(
        "a session {} bytes, a connection {}, in each of which nothing is kept at rest",
        size_of::<shardmq::session::Session>(),
        size_of::<shardmq::session::Connection>(),
    );
    println!("core: {each} bytes per connection with its session and one subscription");
    // 1.2 KiB is the goal for core and driver together.
    assert!(each <= 1_000, "{each} bytes per connection at rest");
}
