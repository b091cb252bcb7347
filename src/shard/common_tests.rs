//! Messages for many, against lists: whatever is in memory for all, on disk or with its session, comes to each
//! client once and in order, and everything is counted where it is.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::journal::{BLOCK, FileId, Identity as LogIdentity, Recovery, Settings as LogSettings};
use crate::policy::Open;
use crate::route::ShardId;
use crate::session::Peer;
use crate::shard::{
    Bodies, CloseCause, ConnKey, Durable, Epoch, Identity, Outbox, QueueOverflow, Settings,
};
use crate::time::Time;

const CLIENTS: usize = 5;
const PUBLISHER: usize = CLIENTS;
const NOW: Time = Time::from_secs(1);

/// A message of the model: its number and the QoS that it comes with.
type Awaited = (u32, u8);

#[derive(Default)]
struct Client {
    conn: Option<ConnKey>,
    inbox: Vec<u8>,
    /// Not sent yet, and sent but not acknowledged: packet identifier and message.
    waiting: VecDeque<Awaited>,
    sent: VecDeque<(u16, Awaited)>,
}

struct Broker {
    shard: Shard,
    out: Outbox,
    files: BTreeMap<FileId, Vec<u8>>,
    clients: Vec<Client>,
    connections: u32,
    published: u32,
    most: usize,
}

/// What a client's subscription says: some alike, some not.
fn subscription(client: usize) -> (u8, u8) {
    [(1, 0), (1, 0), (1, 7), (2, 0), (2, 0)][client]
}

impl Broker {
    fn new(memory: u64, most: usize) -> Self {
        let log = LogIdentity { log: 1, shard: 0 };
        let settings = LogSettings {
            segment_bytes: 256 * BLOCK as u32,
            ..LogSettings::default()
        };
        let recovered = Recovery::new(log, settings).finish().expect("nothing yet");
        let identity = Identity {
            shard: ShardId::new(0),
            shards: 1,
            seed: 1,
        };
        let settings = Settings {
            sys_interval: 0,
            max_queue_memory: memory,
            max_queued_messages: most as u32,
            queue_overflow: QueueOverflow::DropOldest,
            ..Settings::default()
        };
        let mut out = Outbox::new(1);
        let mut shard = Shard::new(identity, settings, Box::new(Open), NOW);
        let bodies = Bodies::new(Epoch(0), &recovered.1);
        shard.restore(recovered, bodies, Durable::default(), NOW, &mut out);
        let mut broker = Self {
            shard,
            out,
            files: BTreeMap::new(),
            clients: (0..=CLIENTS).map(|_| Client::default()).collect(),
            connections: 0,
            published: 0,
            most,
        };
        for client in 0..CLIENTS {
            broker.connect(client, true);
            broker.close(client);
        }
        broker.connect(PUBLISHER, true);
        broker
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        if let Some(conn) = self.clients[client].conn {
            self.shard.ingest(conn, bytes, NOW, &mut self.out);
        }
        self.run();
    }

    /// What a driver does until there is nothing left to do.
    fn run(&mut self) {
        self.shard.end_turn(NOW, &mut self.out);
        loop {
            let journal = self.shard.journal().expect("there is one");
            while let Some(file) = journal.next_allocation() {
                self.files.insert(file, vec![0; 256 * BLOCK]);
                journal.allocated(file, true);
            }
            if let Some(write) = journal.next_write() {
                let file = self.files.get_mut(&write.file).expect("it was made");
                let bytes = write.bytes();
                file[write.offset as usize..][..bytes.len()].copy_from_slice(bytes);
                self.shard.committed(write, Ok(()), &mut self.out);
            } else if let Some(fetching) = self.shard.next_fetch() {
                let read = |read: crate::journal::Read| {
                    let from = read.offset as usize;
                    self.files[&read.file][from..from + read.length as usize].to_vec()
                };
                let buffers: Vec<_> = fetching.fetch.reads().map(read).collect();
                let fetched = self.shard.fetched(fetching, &buffers, NOW, &mut self.out);
                fetched.expect("it is as it was written");
            } else {
                break;
            }
            self.shard.end_turn(NOW, &mut self.out);
        }
        while let Some(conn) = self.out.touched() {
            let mut output = Vec::new();
            self.out.swap_output(conn, &mut output);
            let mut clients = self.clients.iter_mut();
            if let Some(client) = clients.find(|client| client.conn == Some(conn)) {
                client.inbox.extend_from_slice(&output);
            }
            self.out.return_output(output);
        }
        self.out.closes.clear();
        self.out.events.clear();
        self.out.established.clear();
    }

    fn connect(&mut self, client: usize, clean: bool) {
        self.close(client);
        let conn = ConnKey {
            index: self.connections,
            generation: 0,
        };
        self.connections += 1;
        self.shard.open(
            conn,
            Peer::new(0, ([127, 0, 0, 1], 1).into()),
            NOW,
            &mut self.out,
        );
        self.clients[client].conn = Some(conn);
        let name = b'a' + client as u8;
        let mut bytes = vec![
            0x10,
            22,
            0,
            4,
            b'M',
            b'Q',
            b'T',
            b'T',
            5,
            u8::from(clean) << 1,
            0,
            0,
        ];
        bytes.extend([8, 0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x21, 0, 3, 0, 1, name]);
        if clean && client != PUBLISHER {
            let (qos, identifier) = subscription(client);
            match identifier {
                0 => bytes.extend([0x82, 7, 0, 1, 0, 0, 1, b't', qos]),
                _ => bytes.extend([0x82, 9, 0, 1, 2, 0x0B, identifier, 0, 1, b't', qos]),
            }
        }
        let known = &mut self.clients[client];
        if clean {
            known.waiting.clear();
            known.sent.clear();
        }
        // What was sent and not acknowledged comes again, first.
        for (_, awaited) in known.sent.drain(..).rev() {
            known.waiting.push_front(awaited);
        }
        self.send(client, &bytes);
        self.read(client);
    }

    fn close(&mut self, client: usize) {
        if let Some(conn) = self.clients[client].conn.take() {
            self.shard.close(conn, CloseCause::Eof, NOW, &mut self.out);
            self.clients[client].inbox.clear();
            self.run();
        }
    }

    fn publish(&mut self, qos: u8, padding: usize) {
        self.published += 1;
        let mut bytes = vec![0x30 | qos << 1, (10 + padding) as u8, 0, 1, b't'];
        bytes.extend((self.published as u16).to_be_bytes());
        bytes.push(0);
        bytes.extend(self.published.to_be_bytes());
        bytes.resize(bytes.len() + padding, 0);
        for client in 0..CLIENTS {
            let waiting = &mut self.clients[client].waiting;
            waiting.push_back((self.published, qos.min(subscription(client).0)));
            if waiting.len() > self.most {
                waiting.pop_front(); // nobody has come for any of them
            }
        }
        self.send(PUBLISHER, &bytes);
        if qos == 2 {
            let [high, low] = (self.published as u16).to_be_bytes();
            self.send(PUBLISHER, &[0x62, 2, high, low]);
        }
        (0..CLIENTS).for_each(|client| self.read(client));
    }

    /// Takes what came: it must be what is awaited.
    fn read(&mut self, client: usize) {
        let known = &mut self.clients[client];
        let mut inbox = &std::mem::take(&mut known.inbox)[..];
        while let [first, length, rest @ ..] = inbox {
            let (packet, rest) = rest.split_at(usize::from(*length));
            inbox = rest;
            if first >> 4 != 3 {
                continue;
            }
            let properties = usize::from(packet[5]);
            let payload = &packet[6 + properties..][..4];
            let number = u32::from_be_bytes(payload.try_into().expect("4 bytes"));
            let awaited = (number, first >> 1 & 3);
            assert_eq!(known.waiting.pop_front(), Some(awaited), "client {client}");
            assert_eq!(properties > 0, subscription(client).1 > 0);
            let packet_id = u16::from_be_bytes([packet[3], packet[4]]);
            known.sent.push_back((packet_id, awaited));
        }
    }

    /// Acknowledges the oldest message that a client has.
    fn acknowledge(&mut self, client: usize) {
        let known = &mut self.clients[client];
        if known.conn.is_none() {
            return;
        }
        let Some((packet_id, (_, qos))) = known.sent.pop_front() else {
            return;
        };
        let [high, low] = packet_id.to_be_bytes();
        if qos == 1 {
            self.send(client, &[0x40, 2, high, low]);
        } else {
            self.send(client, &[0x50, 2, high, low]);
            self.read(client);
            self.send(client, &[0x70, 2, high, low]);
        }
        self.read(client);
    }

    fn check(&self) {
        let stats = self.shard.stats();
        let (mut queued, mut bytes, mut here, mut away, mut common) = (0, 0, 0, 0, 0);
        for client in 0..CLIENTS {
            let name = char::from(b'a' + client as u8).to_string();
            let key = self.shard.sessions.find(&name).expect("it never ends");
            let session = self.shard.sessions.get(key).expect("it is there");
            let queue = &session.queue;
            let known = &self.clients[client];
            assert_eq!(
                queue.len() + session.window.len(),
                known.waiting.len() + known.sent.len()
            );
            queued += queue.len() as u64;
            bytes += queue.bytes();
            here += queue.bytes_here();
            away += queue.count_away() as u64;
            common += queue.count_common();
        }
        assert_eq!((stats.queued, stats.queued_bytes), (queued, bytes));
        assert_eq!(
            (stats.queued_memory_bytes, stats.queued_on_disk),
            (here, away)
        );
        let counted = self.shard.commons.0.values();
        let counted: u32 = counted.map(|common| common.count).sum();
        assert_eq!(common, counted as usize);
    }

    /// Everybody comes, and takes all that waits for him.
    fn deliver_everything(&mut self) {
        for client in 0..CLIENTS {
            self.connect(client, false);
            while !self.clients[client].sent.is_empty() {
                self.acknowledge(client);
            }
            assert!(self.clients[client].waiting.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_common_comes_to_everybody(
        memory in prop::sample::select(vec![0, 60, 300, 1_000_000]),
        operations in prop::collection::vec((0..12_u8, 0..CLIENTS, 0..40_usize), 1..120),
    ) {
        let mut broker = Broker::new(memory, usize::MAX / 2);
        for (kind, client, padding) in operations {
            match kind {
                0..5 => broker.publish(1 + kind % 2, padding),
                5 => broker.connect(client, false),
                6 => broker.connect(client, padding == 0),
                7 => broker.close(client),
                _ => broker.acknowledge(client),
            }
            broker.check();
        }
        // Everything comes in the end, and then nothing is left.
        broker.deliver_everything();
        broker.check();
        prop_assert!(broker.shard.commons.0.is_empty());
        prop_assert_eq!(broker.shard.stats().queued, 0);
    }

    #[test]
    fn the_oldest_goes_where_a_queue_is_full(
        memory in prop::sample::select(vec![0, 60, 1_000_000]),
        paddings in prop::collection::vec(0..40_usize, 1..20),
    ) {
        let mut broker = Broker::new(memory, 4);
        for padding in paddings {
            broker.publish(1, padding);
            broker.check();
        }
        broker.deliver_everything();
        prop_assert!(broker.shard.commons.0.is_empty());
    }
}
