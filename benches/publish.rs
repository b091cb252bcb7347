//! A publish through one shard: from the bytes of the publisher to the output buffer of the
//! receivers.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardmq::policy::Open;
use shardmq::route::ShardId;
use shardmq::session::Peer;
use shardmq::shard::{ConnKey, Identity, Outbox, Settings, Shard};
use shardmq::time::Time;
use shardmq::topic::Name;
use shardmq::wire::{Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, Version};

/// Publishes in one read of a socket: a busy publisher.
const BATCH: usize = 64;

struct Broker {
    shard: Shard,
    out: Outbox,
    now: Time,
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
        let now = Time::from_secs(1);
        let shard = Shard::new(identity, settings, Box::new(Open), now);
        Self {
            shard,
            out: Outbox::new(1),
            now,
        }
    }

    fn turn(&mut self, conn: ConnKey, bytes: &[u8]) -> usize {
        self.shard.ingest(conn, bytes, self.now, &mut self.out);
        self.shard.end_turn(self.now, &mut self.out);
        let mut sent = 0;
        while let Some(touched) = self.out.touched() {
            let mut output = Vec::new();
            self.out.swap_output(touched, &mut output);
            sent += output.len();
            self.out.return_output(output);
        }
        sent
    }

    fn connect(&mut self, index: u32, filter: Option<&str>) -> ConnKey {
        let conn = ConnKey {
            index,
            generation: 0,
        };
        let peer = Peer {
            listener: 0,
            address: ([127, 0, 0, 1], 1).into(),
        };
        self.shard.open(conn, peer, self.now, &mut self.out);
        let client_id = format!("client-{index}");
        let connect = Connect {
            version: Version::V3_1_1,
            clean_start: true,
            keep_alive: 0,
            client_id: &client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(Version::V3_1_1, &mut bytes);
        if let Some(filter) = filter {
            let length = u8::try_from(filter.len()).unwrap_or(0);
            bytes.extend_from_slice(&[0x82, 5 + length, 0, 1, 0, length]);
            bytes.extend_from_slice(filter.as_bytes());
            bytes.push(0);
        }
        self.turn(conn, &bytes);
        self.out.established.clear();
        self.out.events.clear();
        conn
    }
}

fn publishes(version: Version, topic: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..BATCH {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: Name::parse(topic).map_or("", Name::as_str),
            packet_id: None,
            properties: PublishProperties::default(),
            payload: &[7; 16],
        };
        Packet::Publish(publish).encode(version, &mut bytes);
    }
    bytes
}

fn local(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for receivers in [0_u32, 1, 10, 100, 1_000] {
        let mut broker = Broker::new();
        let publisher = broker.connect(0, None);
        for receiver in 1..=receivers {
            broker.connect(receiver, Some("vehicle/+/telemetry"));
        }
        let bytes = publishes(Version::V3_1_1, "vehicle/4711/telemetry");
        let expected = bytes.len() * receivers as usize;
        assert_eq!(broker.turn(publisher, &bytes), expected);
        group.throughput(Throughput::Elements(
            (BATCH * receivers.max(1) as usize) as u64,
        ));
        group.bench_function(format!("qos0/16B/{receivers}-receivers"), |bencher| {
            bencher.iter(|| black_box(broker.turn(publisher, black_box(&bytes))));
        });
    }
    group.finish();
}

criterion_group!(benches, local);
criterion_main!(benches);
