//! Instructions that the hot paths take, counted by callgrind.
//!
//! Times on a shared machine vary by tens of percent; instructions do not. Each work is run twice by
//! valgrind in a process of its own, with another number of rounds, and the difference divided by
//! what was done in it: start and set-up cancel out.
//!
//! ```sh
//! cargo bench --bench instructions [-- NAME]
//! ```
//!
//! Allocations are counted as the program makes them, by mimalloc, unless `--no-default-features`
//! leaves it out. Without valgrind, and in `cargo test`, every work is run for a few rounds and nothing is counted.

#![expect(clippy::print_stdout, reason = "it prints what it counted")]

#[path = "support/journal.rs"]
#[expect(
    dead_code,
    reason = "shared with the bench of the journal, which uses all of it"
)]
mod journal;
#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::process::{Command, Stdio};

use shardmq::wire::{
    Ack, AckKind, Framing, Packet, PacketId, Publish, QoS, ReasonCode, Version, frame,
};

use support::{Broker, Client, publishes};

#[cfg(feature = "runtime")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something that is done in rounds. `round` returns how many messages were delivered by it.
struct Work {
    name: &'static str,
    about: &'static str,
    make: fn() -> Box<dyn FnMut() -> usize>,
}

const WORKS: &[Work] = &[
    Work {
        name: "decode",
        about: "frame and decode a PUBLISH, version 5, QoS 0, 64 B",
        make: || {
            let bytes = publishes(Version::V5, TOPIC, QoS::AtMostOnce, 64, 512);
            Box::new(move || decode(&bytes))
        },
    },
    Work {
        name: "qos0-1-1",
        about: "publish to one receiver, version 5, QoS 0, 64 B, 512 in a read",
        make: || qos0(1, 1, 64),
    },
    Work {
        name: "qos0-8-8",
        about: "the same from 8 publishers on 8 topics to 8 receivers",
        make: || qos0(8, 1, 64),
    },
    Work {
        name: "qos0-pairs-1000",
        about: "one message a read, 1,000 pairs, QoS 0, 16 B",
        make: pairs,
    },
    Work {
        name: "fanout-1000",
        about: "each delivery of one publish to 1,000 receivers, QoS 0, 64 B",
        make: || qos0(1, 1_000, 64),
    },
    Work {
        name: "qos1-1-1",
        about: "QoS 1 on both legs, 20 in a read, acknowledged by the receiver",
        make: || acknowledged(QoS::AtLeastOnce),
    },
    Work {
        name: "qos2-1-1",
        about: "QoS 2 on both legs, 10 in a read, to the last PUBCOMP",
        make: || acknowledged(QoS::ExactlyOnce),
    },
    Work {
        name: "cross-shard",
        about: "publish on one shard to a receiver of another, QoS 0, 64 B",
        make: cross_shard,
    },
    Work {
        name: "journal",
        about: "append and acknowledge a message of 200 B, 256 in a commit, 1,000 sessions",
        make: journal_rounds,
    },
];

const TOPIC: &str = "vehicle/4711/telemetry";

fn decode(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Ok(Framing::Packet {
        first_byte,
        body,
        size,
    }) = frame(&bytes[at..], 1 << 20)
    {
        black_box(Publish::decode(Version::V5, first_byte, body).is_ok());
        at += size;
        count += 1;
    }
    count
}

/// The journal alone.
fn journal_rounds() -> Box<dyn FnMut() -> usize> {
    let mut keeper = journal::Keeper::new(1_000, 200, false);
    Box::new(move || {
        keeper.round();
        journal::BATCH
    })
}

/// `topics` publishers with a topic each, and `receivers` of each topic.
fn qos0(topics: usize, receivers: usize, payload: usize) -> Box<dyn FnMut() -> usize> {
    let mut broker = Broker::new(1, Version::V5);
    let batch = if receivers > 100 { 8 } else { 512 };
    let publishers: Vec<(Client, Vec<u8>)> = (0..topics)
        .map(|topic| {
            let topic = format!("vehicle/{topic}/telemetry");
            for _ in 0..receivers {
                broker.connect(Some((&topic, QoS::AtMostOnce)));
            }
            let bytes = publishes(Version::V5, &topic, QoS::AtMostOnce, payload, batch);
            (broker.connect(None), bytes)
        })
        .collect();
    Box::new(move || {
        for (client, bytes) in &publishers {
            let sent = broker.turn(*client, bytes, |_, _| {});
            assert_eq!(sent, bytes.len() * receivers);
        }
        publishers.len() * usize::from(batch) * receivers
    })
}

/// A thousand publishers that are read one message at a time, with one receiver each.
fn pairs() -> Box<dyn FnMut() -> usize> {
    let mut broker = Broker::new(1, Version::V5);
    let publishers: Vec<(Client, Vec<u8>)> = (0..1_000)
        .map(|pair| {
            let topic = format!("vehicle/{pair}/telemetry");
            broker.connect(Some((&topic, QoS::AtMostOnce)));
            let bytes = publishes(Version::V5, &topic, QoS::AtMostOnce, 16, 1);
            (broker.connect(None), bytes)
        })
        .collect();
    Box::new(move || {
        for (client, bytes) in &publishers {
            assert_eq!(broker.turn(*client, bytes, |_, _| {}), bytes.len());
        }
        publishers.len()
    })
}

/// A publisher and a subscriber that acknowledge everything.
fn acknowledged(qos: QoS) -> Box<dyn FnMut() -> usize> {
    let mut broker = Broker::new(1, Version::V5);
    let publisher = broker.connect(None);
    let subscriber = broker.connect(Some((TOPIC, qos)));
    let count = if qos == QoS::AtLeastOnce { 20 } else { 10 };
    let bytes = publishes(Version::V5, TOPIC, qos, 64, count);
    let mut to_publisher = Vec::new();
    let mut to_subscriber = Vec::new();
    let mut answers = Vec::new();
    Box::new(move || {
        let mut next = Some((publisher, bytes.clone()));
        let mut delivered = 0;
        while let Some((client, bytes)) = next.take() {
            broker.turn(client, &bytes, |conn, bytes| {
                if conn == publisher.1 {
                    to_publisher.extend_from_slice(bytes);
                } else {
                    to_subscriber.extend_from_slice(bytes);
                }
            });
            for (client, inbox) in [
                (publisher, &mut to_publisher),
                (subscriber, &mut to_subscriber),
            ] {
                if next.is_none() && !inbox.is_empty() {
                    delivered += answer(inbox, &mut answers);
                    inbox.clear();
                    next = (!answers.is_empty()).then(|| (client, std::mem::take(&mut answers)));
                }
            }
        }
        assert_eq!(delivered, usize::from(count));
        delivered
    })
}

/// What a client answers to `inbox`; returns how many messages were in it.
fn answer(inbox: &[u8], answers: &mut Vec<u8>) -> usize {
    let (mut at, mut delivered) = (0, 0);
    while let Ok(Framing::Packet {
        first_byte,
        body,
        size,
    }) = frame(&inbox[at..], 1 << 20)
    {
        at += size;
        let answer = match Packet::decode(Version::V5, first_byte, body) {
            Ok(Packet::Publish(publish)) => {
                delivered += 1;
                publish.packet_id.map(|packet_id| match publish.qos {
                    QoS::ExactlyOnce => (AckKind::PubRec, packet_id),
                    _ => (AckKind::PubAck, packet_id),
                })
            }
            Ok(Packet::PubRec(ack)) => Some((AckKind::PubRel, ack.packet_id)),
            Ok(Packet::PubRel(ack)) => Some((AckKind::PubComp, ack.packet_id)),
            _ => None,
        };
        if let Some((kind, packet_id)) = answer {
            acknowledge(kind, packet_id, answers);
        }
    }
    delivered
}

fn acknowledge(kind: AckKind, packet_id: PacketId, answers: &mut Vec<u8>) {
    Ack::new(packet_id, ReasonCode::Success).encode(kind, Version::V5, answers);
}

fn cross_shard() -> Box<dyn FnMut() -> usize> {
    let mut broker = Broker::new(2, Version::V5);
    broker.connect_on(1, Some((TOPIC, QoS::AtMostOnce)));
    let publisher = broker.connect_on(0, None);
    let bytes = publishes(Version::V5, TOPIC, QoS::AtMostOnce, 64, 512);
    Box::new(move || {
        assert_eq!(broker.turn(publisher, &bytes, |_, _| {}), bytes.len());
        512
    })
}

/// Runs a work; returns what it delivered.
fn run(work: &Work, rounds: usize) -> usize {
    let mut round = (work.make)();
    (0..rounds).map(|_| round()).sum()
}

/// Instructions of this program with `rounds` rounds of a work, and what it delivered.
fn count(work: &Work, rounds: usize) -> Option<(u64, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["--rounds", &rounds.to_string(), work.name])
        .stderr(Stdio::piped())
        .output()
        .ok()?;
    let report = String::from_utf8(output.stderr).ok()?;
    let collected = report
        .lines()
        .find_map(|line| line.split("Collected :").nth(1))?;
    let delivered = String::from_utf8(output.stdout).ok()?;
    Some((
        collected.trim().parse().ok()?,
        delivered.trim().parse().ok()?,
    ))
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut wanted = arguments.next();
    if wanted.as_deref() == Some("--rounds") {
        let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
        let name = arguments.next();
        let work = WORKS.iter().find(|work| Some(work.name) == name.as_deref());
        if let (Some(rounds), Some(work)) = (rounds, work) {
            println!("{}", run(work, rounds));
        }
        return;
    }
    let testing = wanted.as_deref() == Some("--test") || cfg!(debug_assertions);
    if testing {
        wanted = None;
    }
    for work in WORKS {
        if wanted.as_deref().is_some_and(|name| name != work.name) {
            continue;
        }
        assert!(run(work, 2) > 0);
        if testing {
            continue;
        }
        match count(work, 20).zip(count(work, 60)) {
            Some(((few, done_few), (many, done_many))) => println!(
                "{:16} {:8.1} instructions   {}",
                work.name,
                (many - few) as f64 / (done_many - done_few) as f64,
                work.about
            ),
            None => println!("{:16} not counted: valgrind did not run", work.name),
        }
    }
}
