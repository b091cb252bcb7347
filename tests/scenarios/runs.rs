//! Packets that came in one read may be taken together; nobody must be able to tell.

#![expect(clippy::unwrap_used, reason = "a test that cannot do its work fails")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use shardmq::policy::Open;
use shardmq::route::ShardId;
use shardmq::session::{ConnKey, Peer};
use shardmq::shard::{CloseCause, Identity, Outbox, QueueOverflow, Settings, Shard};
use shardmq::stats::DropReason;
use shardmq::time::Time;
use shardmq::wire::{
    Ack, AckKind, Framing, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, Version,
    frame,
};

const TOPICS: [&str; 3] = ["a/b", "a/c", "b"];
const FILTERS: [&str; 6] = ["a/b", "a/+", "a/c", "#", "b", "$share/g/a/b"];

/// What came to a connection, by packet type: the order between types is the broker's own affair.
type Inbox = BTreeMap<u8, Vec<Vec<u8>>>;

/// One client of the test.
#[derive(Clone, Debug)]
struct Member {
    version: Version,
    receive_maximum: u16,
    subscriptions: Vec<(usize, QoS)>,
    /// Gone when the messages come, its session kept.
    away: bool,
}

/// One packet of the publisher.
#[derive(Clone, Debug)]
enum Sent {
    Publish {
        topic: usize,
        qos: QoS,
        identifier: u16,
        retain: bool,
        dup: bool,
        payload: Vec<u8>,
    },
    Release(u16),
}

struct Broker {
    shard: Shard,
    out: Outbox,
    /// Whether each packet is given to the shard by itself.
    apart: bool,
}

fn conn(index: usize) -> ConnKey {
    ConnKey {
        index: u32::try_from(index).unwrap(),
        generation: 0,
    }
}

impl Broker {
    fn new(settings: &Settings, apart: bool) -> Self {
        let identity = Identity {
            shard: ShardId::new(0),
            shards: 1,
            seed: 7,
        };
        Self {
            shard: Shard::new(identity, settings.clone(), Box::new(Open), Time::ZERO),
            out: Outbox::new(1),
            apart,
        }
    }

    fn give(&mut self, index: usize, bytes: &[u8]) {
        let now = Time::from_secs(1);
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = match frame(rest, u32::MAX) {
                Ok(Framing::Packet { size, .. }) if self.apart => size,
                _ => rest.len(),
            };
            self.shard
                .ingest(conn(index), &rest[..size], now, &mut self.out);
            rest = &rest[size..];
        }
        self.shard.end_turn(now, &mut self.out);
    }

    fn take(&mut self) -> BTreeMap<u32, Inbox> {
        let mut inboxes = BTreeMap::<u32, Inbox>::new();
        while let Some(touched) = self.out.touched() {
            let mut bytes = Vec::new();
            self.out.swap_output(touched, &mut bytes);
            let inbox = inboxes.entry(touched.index).or_default();
            let mut rest = &bytes[..];
            while let Ok(Framing::Packet { size, .. }) = frame(rest, u32::MAX) {
                let packets = inbox.entry(rest[0] >> 4).or_default();
                packets.push(rest[..size].to_vec());
                rest = &rest[size..];
            }
            assert!(rest.is_empty());
        }
        inboxes
    }

    fn connect(&mut self, index: usize, member: &Member) {
        let peer = Peer::new(0, ([127, 0, 0, 1], 1).into());
        self.shard
            .open(conn(index), peer, Time::ZERO, &mut self.out);
        let id = u8::try_from(index).unwrap() + b'a';
        let [high, low] = member.receive_maximum.to_be_bytes();
        let bytes = match member.version {
            Version::V5 => [
                &[0x10, 22, 0, 4][..],
                b"MQTT\x05\0\0\0\x08",
                &[0x11, 0, 0, 1, 0, 0x21, high, low, 0, 1, id],
            ]
            .concat(),
            Version::V3_1 | Version::V3_1_1 => {
                [&[0x10, 13, 0, 4][..], b"MQTT\x04\0\0\0\0\x01", &[id]].concat()
            }
        };
        self.give(index, &bytes);
        for &(filter, qos) in &member.subscriptions {
            let filter = FILTERS[filter];
            let v5 = usize::from(member.version.is_v5());
            let mut bytes = vec![0x82, u8::try_from(5 + v5 + filter.len()).unwrap(), 0, 1];
            bytes.extend(vec![0; v5]);
            bytes.extend([0, u8::try_from(filter.len()).unwrap()]);
            bytes.extend(filter.as_bytes());
            bytes.push(qos as u8);
            self.give(index, &bytes);
        }
    }
}

/// What a member answers to what came to it.
fn answers(inbox: &Inbox, version: Version) -> Vec<u8> {
    let mut answers = Vec::new();
    for packet in inbox.values().flatten() {
        let Ok(Framing::Packet {
            first_byte, body, ..
        }) = frame(packet, u32::MAX)
        else {
            panic!("a whole packet");
        };
        let answer = match Packet::decode(version, first_byte, body).unwrap() {
            Packet::Publish(publish) => publish.packet_id.map(|packet_id| match publish.qos {
                QoS::ExactlyOnce => (AckKind::PubRec, packet_id),
                _ => (AckKind::PubAck, packet_id),
            }),
            Packet::PubRel(ack) => Some((AckKind::PubComp, ack.packet_id)),
            Packet::PubRec(ack) if !ack.reason.is_error() => Some((AckKind::PubRel, ack.packet_id)),
            _ => None,
        };
        if let Some((kind, packet_id)) = answer {
            Ack::new(packet_id, ReasonCode::Success).encode(kind, version, &mut answers);
        }
    }
    answers
}

impl Sent {
    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Publish {
                topic,
                qos,
                identifier,
                retain,
                dup,
                payload,
            } => Publish {
                dup: *dup && *qos > QoS::AtMostOnce,
                qos: *qos,
                retain: *retain,
                topic: TOPICS[*topic],
                packet_id: PacketId::new(*identifier).filter(|_| *qos > QoS::AtMostOnce),
                properties: PublishProperties::default(),
                payload,
            }
            .encode(version, out),
            Self::Release(identifier) => {
                let ack = Ack::new(PacketId::new(*identifier).unwrap(), ReasonCode::Success);
                ack.encode(AckKind::PubRel, version, out);
            }
        }
    }
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3_1_1), Just(Version::V5)]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        1 => Just(QoS::AtMostOnce),
        3 => Just(QoS::AtLeastOnce),
        2 => Just(QoS::ExactlyOnce)
    ]
}

fn member() -> impl Strategy<Value = Member> {
    let subscriptions = prop::collection::vec((0..FILTERS.len(), qos()), 0..3);
    let away = prop::bool::weighted(0.2);
    (version(), 1..12_u16, subscriptions, away).prop_map(
        |(version, receive_maximum, subscriptions, away)| Member {
            version,
            receive_maximum,
            subscriptions,
            away,
        },
    )
}

/// Messages as a busy client sends them, many alike in a row, and now and then something odd.
fn burst() -> impl Strategy<Value = Vec<Sent>> {
    let row = (0..TOPICS.len(), qos(), 1..200_u16, 1..12_u16, 0..40_usize).prop_map(
        |(topic, qos, first, count, size)| {
            (first..first + count)
                .map(|identifier| Sent::Publish {
                    topic,
                    qos,
                    identifier,
                    retain: false,
                    dup: false,
                    payload: vec![identifier.to_be_bytes()[1]; size],
                })
                .collect::<Vec<_>>()
        },
    );
    let odd = (
        0..TOPICS.len(),
        qos(),
        1..200_u16,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(topic, qos, identifier, retain, dup)| {
            vec![Sent::Publish {
                topic,
                qos,
                identifier,
                retain,
                dup,
                payload: b"odd".to_vec(),
            }]
        });
    let release = (1..200_u16, 1..12_u16)
        .prop_map(|(first, count)| (first..first + count).map(Sent::Release).collect());
    prop::collection::vec(prop_oneof![4 => row, 1 => odd, 1 => release], 1..6)
        .prop_map(|rows| rows.concat())
}

fn settings() -> impl Strategy<Value = Settings> {
    let overflow = prop_oneof![
        Just(QueueOverflow::DropOldest),
        Just(QueueOverflow::DropNew),
        Just(QueueOverflow::Reject)
    ];
    let receive_maximum = prop_oneof![4..20_u16, Just(1_000_u16)];
    let output = prop_oneof![Just(200_usize), Just(1 << 20)];
    (overflow, receive_maximum, 1..30_u32, output, any::<bool>()).prop_map(
        |(queue_overflow, receive_maximum, max_queued_messages, max_output_bytes, queue_qos0)| {
            Settings {
                sys_interval: 0,
                queue_overflow,
                receive_maximum,
                max_queued_messages,
                max_output_bytes,
                queue_qos0,
                ..Settings::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The same packets in one read and in as many reads as there are packets bring everybody the
    /// same: order, packet identifiers, reason codes, what is dropped and what waits.
    #[test]
    fn a_run_is_as_if_the_packets_had_come_by_themselves(
        settings in settings(),
        mut members in prop::collection::vec(member(), 1..5),
        bursts in prop::collection::vec(burst(), 1..4),
    ) {
        if settings.max_output_bytes < 1000 {
            // Whether its PUBACKs stand before or behind what it is sent itself decides what fits.
            members[0].subscriptions.clear();
        }
        let mut brokers = [false, true].map(|apart| Broker::new(&settings, apart));
        for broker in &mut brokers {
            for (index, member) in members.iter().enumerate() {
                broker.connect(index, member);
            }
            for (index, member) in members.iter().enumerate().skip(1) {
                if member.away {
                    let now = Time::from_secs(1);
                    broker.shard.close(conn(index), CloseCause::Eof, now, &mut broker.out);
                }
            }
            broker.take();
        }
        let publisher = &members[0];
        for burst in bursts {
            let mut bytes = Vec::new();
            for sent in &burst {
                sent.encode(publisher.version, &mut bytes);
            }
            let mut inputs = BTreeMap::from([(0, bytes)]);
            while !inputs.is_empty() {
                let [together, apart] = brokers.each_mut().map(|broker| {
                    for (&index, bytes) in &inputs {
                        broker.give(index, bytes);
                    }
                    broker.take()
                });
                prop_assert_eq!(&together, &apart);
                inputs = together
                    .iter()
                    .map(|(&index, inbox)| (index as usize, answers(inbox, members[index as usize].version)))
                    .filter(|(_, answers)| !answers.is_empty())
                    .collect();
            }
            let [together, apart] = brokers.each_ref().map(|broker| broker.shard.stats());
            prop_assert_eq!(together.publishes_received, apart.publishes_received);
            prop_assert_eq!(together.packets_received, apart.packets_received);
            prop_assert_eq!(together.packets_sent, apart.packets_sent);
            prop_assert_eq!(together.publish_bytes_sent, apart.publish_bytes_sent);
            for reason in DropReason::ALL {
                prop_assert_eq!(together.dropped_for(reason), apart.dropped_for(reason));
            }
            prop_assert_eq!(together.queued_bytes, apart.queued_bytes);
        }
    }
}
