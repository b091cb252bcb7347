//! A broker in memory, driven turn by turn, with nothing around it: what the benchmarks measure.

use shardmq::policy::Open;
use shardmq::route::ShardId;
use shardmq::session::Peer;
use shardmq::shard::{ConnKey, Identity, Outbox, Settings, Shard};
use shardmq::time::Time;
use shardmq::wire::{
    Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, Version,
};

/// A connection: the shard that its session lives on, and its key there.
pub(crate) type Client = (usize, ConnKey);

struct Node {
    shard: Shard,
    out: Outbox,
    connections: u32,
}

/// Shards that work on one thread in turn.
pub(crate) struct Broker {
    nodes: Vec<Node>,
    version: Version,
    now: Time,
}

impl Broker {
    /// Whose clients speak `version`.
    pub(crate) fn new(shards: usize, version: Version) -> Self {
        let now = Time::from_secs(1);
        let nodes = (0..shards)
            .map(|index| {
                let identity = Identity {
                    shard: ShardId::new(index),
                    shards,
                    seed: 7 + index as u64,
                };
                let settings = Settings {
                    sys_interval: 0,
                    ..Settings::default()
                };
                Node {
                    shard: Shard::new(identity, settings, Box::new(Open), now),
                    out: Outbox::new(shards),
                    connections: 0,
                }
            })
            .collect();
        Self {
            nodes,
            version,
            now,
        }
    }

    /// Gives `bytes` to the shard of `client` and works until nothing is left to do. Returns how many
    /// bytes all clients would have been sent; what those are goes to `sent`.
    pub(crate) fn turn(
        &mut self,
        client: Client,
        bytes: &[u8],
        mut sent: impl FnMut(ConnKey, &[u8]),
    ) -> usize {
        let node = &mut self.nodes[client.0];
        node.shard.ingest(client.1, bytes, self.now, &mut node.out);
        node.shard.end_turn(self.now, &mut node.out);
        let mut count = 0;
        loop {
            for node in &mut self.nodes {
                while let Some(touched) = node.out.touched() {
                    let mut output = Vec::new();
                    node.out.swap_output(touched, &mut output);
                    count += output.len();
                    sent(touched, &output);
                    node.out.return_output(output);
                }
            }
            if !self.cross() {
                return count;
            }
        }
    }

    /// Takes what shards have for each other to where it goes.
    fn cross(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if from == to {
                    continue;
                }
                let (sender, receiver) = (ShardId::new(from), ShardId::new(to));
                while let Some(batch) = self.nodes[from].out.next_live(receiver) {
                    let node = &mut self.nodes[to];
                    node.shard
                        .receive_live(sender, &batch, self.now, &mut node.out);
                    self.nodes[from].out.recycle(batch);
                    any = true;
                }
                let control = self.nodes[from].out.take_control(receiver);
                for message in control {
                    let node = &mut self.nodes[to];
                    node.shard
                        .receive_control(sender, message, self.now, &mut node.out);
                    any = true;
                }
            }
        }
        for node in &mut self.nodes {
            node.shard.end_turn(self.now, &mut node.out);
        }
        any
    }

    /// Connects a client whose session lives on the shard `on`, and subscribes it.
    pub(crate) fn connect_on(&mut self, on: usize, subscription: Option<(&str, QoS)>) -> Client {
        let shards = self.nodes.len();
        let node = &mut self.nodes[on];
        let conn = ConnKey {
            index: node.connections,
            generation: 0,
        };
        node.connections += 1;
        let client_id = (0..)
            .map(|salt: u32| format!("client-{on}-{}-{salt}", conn.index))
            .find(|id| shardmq::shard::home(id, shards).index() == on)
            .unwrap_or_default();
        let peer = Peer::new(0, ([127, 0, 0, 1], 1).into());
        node.shard.open(conn, peer, self.now, &mut node.out);
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive: 0,
            client_id: &client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(self.version, &mut bytes);
        if let Some((filter, qos)) = subscription {
            let length = u8::try_from(filter.len()).unwrap_or(0);
            let properties = u8::from(self.version.is_v5());
            bytes.extend_from_slice(&[0x82, 5 + properties + length, 0, 1]);
            if properties == 1 {
                bytes.push(0);
            }
            bytes.extend_from_slice(&[0, length]);
            bytes.extend_from_slice(filter.as_bytes());
            bytes.push(qos.bits());
        }
        let client = (on, conn);
        let answered = self.turn(client, &bytes, |_, _| {});
        assert!(answered > 0, "no CONNACK");
        for node in &mut self.nodes {
            node.out.established.clear();
            node.out.events.clear();
            assert!(node.out.handoffs.is_empty());
        }
        client
    }

    /// The same on the first shard.
    pub(crate) fn connect(&mut self, subscription: Option<(&str, QoS)>) -> Client {
        self.connect_on(0, subscription)
    }
}

/// So many PUBLISH packets in a row, with packet identifiers from 1 on.
pub(crate) fn publishes(
    version: Version,
    topic: &str,
    qos: QoS,
    payload: usize,
    count: u16,
) -> Vec<u8> {
    let payload = vec![7; payload];
    let mut bytes = Vec::new();
    for number in 1..=count {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: PacketId::new(number).filter(|_| qos > QoS::AtMostOnce),
            properties: PublishProperties::default(),
            payload: &payload,
        };
        Packet::Publish(publish).encode(version, &mut bytes);
    }
    bytes
}
