//! A long run with churn, after which memory and disk must have levelled off.
//!
//! Everything that a broker keeps comes and goes here: sessions that are resumed, that expire and that are
//! deleted; messages queued for those who are away, beyond the memory for them; wills; retained messages set
//! and cleared; identifiers that never come again; history that gets too old. It takes its time, so it
//! is asked for by name:
//!
//!     SHARDMQ_SOAK_SECONDS=3600 cargo test --test blackbox soak -- --ignored --nocapture

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Version;
use crate::broker::{Broker, Setup, free_port, fresh_folder};
use crate::crash::Random;
use crate::raw::packets::{Connect, DISCONNECT, PUBACK, PUBCOMP, PUBREC, Publish, ack};
use crate::raw::peer::{Packet, Peer};

const VEHICLES: u64 = 400;
/// Threads that are one vehicle after the other.
const ROADS: u64 = 4;
const RETAINED_TOPICS: u64 = 5_000;
/// Between two vehicles on one road.
const PAUSE: Duration = Duration::from_millis(25);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// What the later third may use more than the middle one: a segment that is not yet given back, a
/// page of the allocator that is not either.
const SLACK: u64 = 8 << 20;

#[derive(Default)]
struct Done {
    stop: AtomicBool,
    connections: AtomicU64,
    published: AtomicU64,
    received: AtomicU64,
}

#[test]
#[ignore = "an hour, or SHARDMQ_SOAK_SECONDS"]
fn memory_and_disk_level_off() {
    let seconds = std::env::var("SHARDMQ_SOAK_SECONDS").unwrap_or_else(|_| String::from("3600"));
    let time = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let (port, dir) = (free_port(), fresh_folder(8));
    let environment = [
        ("SHARDMQ__HISTORY__FLEET__FILTER", "vehicle/+/telemetry"),
        ("SHARDMQ__HISTORY__FLEET__KEEP", "30 s"),
        ("SHARDMQ__HISTORY__FLEET__BUCKET", "5 s"),
        ("SHARDMQ__MQTT__MAX_QUEUE_MEMORY", "256 KiB"),
    ];
    let data = dir.join("data");
    let broker = Broker::start_guarded(Setup::TWO, port, &data, &environment);
    let done = Done::default();
    let samples = std::thread::scope(|scope| {
        // Whoever ends, by a panic too, ends all.
        let (broker, done) = (&broker, &done);
        let start = |work: Box<dyn FnOnce() + Send>| {
            scope.spawn(move || {
                let _stop = StopAtEnd(&done.stop);
                work();
            });
        };
        for road in 0..ROADS {
            start(Box::new(move || drive(broker, done, road)));
        }
        start(Box::new(|| command(broker, done)));
        start(Box::new(|| newcomers(broker, done)));
        start(Box::new(|| look_back(broker, done)));
        let _stop = StopAtEnd(&done.stop);
        sample(broker, &data, done, time)
    });
    broker.stop();
    let _ = std::fs::remove_dir_all(dir);
    let highest = |third: usize, what: fn(&Sample) -> u64| {
        let length = samples.len() / 3;
        let of = samples[third * length..].iter().take(length).map(what);
        of.max().expect("some samples")
    };
    assert!(samples.len() >= 9, "{} samples say nothing", samples.len());
    for (name, what) in [
        ("memory", (|s| s.memory) as fn(&Sample) -> u64),
        ("disk", |s| s.disk),
    ] {
        let (middle, last) = (highest(1, what), highest(2, what));
        assert!(
            last <= middle + middle / 10 + SLACK,
            "{name} grows: {middle} bytes at most in the second third of {time:?}, {last} in the last"
        );
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the broker uses, in bytes.
struct Sample {
    memory: u64,
    disk: u64,
}

fn sample(broker: &Broker, data: &Path, done: &Done, time: Duration) -> Vec<Sample> {
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while begin.elapsed() < time && !done.stop.load(Ordering::Relaxed) {
        std::thread::sleep(SAMPLE_EVERY);
        let sample = Sample {
            memory: broker.memory_kb() << 10,
            disk: folder_bytes(data),
        };
        if samples.len() % 12 == 0 {
            println!(
                "{:>5} s  memory {:>7.1} MiB  disk {:>7.1} MiB  connections {:>8}  published {:>9}  received {:>9}",
                begin.elapsed().as_secs(),
                mebibytes(sample.memory),
                mebibytes(sample.disk),
                done.connections.load(Ordering::Relaxed),
                done.published.load(Ordering::Relaxed),
                done.received.load(Ordering::Relaxed),
            );
        }
        samples.push(sample);
    }
    samples
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Files come and go while this looks.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// One vehicle after the other comes, tells where it is, takes its commands and goes, in all ways.
fn drive(broker: &Broker, done: &Done, road: u64) {
    let mut random = Random(road);
    while !done.stop.load(Ordering::Relaxed) {
        // A road's own, so that no vehicle is on two.
        let vehicle = random.below(VEHICLES / ROADS) * ROADS + road;
        let expiry = u8::try_from(10 + random.below(20)).expect("below 30");
        let name = format!("v{vehicle}");
        let presence = format!("vehicle/{vehicle}/presence");
        let connect = Connect::new(Version::V5, &name)
            .with(&[0x11, 0, 0, 0, expiry])
            .clean(random.below(20) == 0)
            .will(1, true, &presence, b"gone");
        let mut peer = Peer::connect(broker, &connect);
        done.connections.fetch_add(1, Ordering::Relaxed);
        peer.subscribe(&format!("command/{vehicle}/#"), 2);
        peer.publish(&Publish::new(&presence, b"here").qos(1, 1).retain());
        let count = u16::try_from(5 + random.below(30)).expect("below 35");
        for number in 2..count {
            let (topic, payload) = match random.below(3) {
                0 => (
                    format!("state/{}", random.below(RETAINED_TOPICS)),
                    random.below(300),
                ),
                _ => (format!("vehicle/{vehicle}/telemetry"), 200),
            };
            let payload = vec![b'x'; usize::try_from(payload).expect("small")];
            let publish = Publish::new(&topic, payload).qos(1, number);
            peer.publish(&if topic.starts_with("state") {
                publish.retain()
            } else {
                publish
            });
        }
        let published = u64::from(count.max(2)) - 1;
        done.published.fetch_add(published, Ordering::Relaxed);
        // Up to the last PUBACK; half of them see to their commands, the others leave in the middle.
        let mut missing = published;
        while missing > 0 {
            missing -= u64::from(take(&mut peer, done).first == PUBACK);
        }
        if random.below(2) == 0 {
            while peer.has_packet_within(Duration::from_millis(5)) {
                take(&mut peer, done);
            }
        }
        match random.below(3) {
            // Without a word: the will is published.
            0 => drop(peer),
            // The session ends with the connection: Session Expiry Interval 0.
            1 if random.below(10) == 0 => {
                peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
                peer.drain();
            }
            _ => {
                peer.send(&DISCONNECT);
                peer.drain();
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads a packet and answers it.
fn take(peer: &mut Peer, done: &Done) -> Packet {
    let packet = peer.read();
    let id = |at: usize| u16::from_be_bytes([packet.body[at], packet.body[at + 1]]);
    match packet.first >> 4 {
        3 => {
            done.received.fetch_add(1, Ordering::Relaxed);
            let topic = usize::from(id(0));
            match packet.first >> 1 & 3 {
                1 => peer.send(&ack(PUBACK, id(2 + topic))),
                2 => peer.send(&ack(PUBREC, id(2 + topic))),
                _ => {}
            }
        }
        6 => peer.send(&ack(PUBCOMP, id(0))),
        _ => {}
    }
    packet
}

/// Commands for vehicles that are mostly away; some are never fetched.
fn command(broker: &Broker, done: &Done) {
    let mut random = Random(77);
    let mut peer = Peer::connect(broker, &Connect::new(Version::V5, "commander"));
    while !done.stop.load(Ordering::Relaxed) {
        for id in 1..=40 {
            let topic = format!("command/{}/do", random.below(VEHICLES));
            let payload = vec![b'c'; usize::try_from(random.below(1_000)).expect("small")];
            peer.publish(&Publish::new(&topic, payload).qos(1, id));
        }
        for _ in 1..=40 {
            peer.any_ack(PUBACK);
        }
        let topic = format!("state/{}", random.below(RETAINED_TOPICS));
        peer.publish(&Publish::new(&topic, b"").qos(1, 41).retain());
        peer.any_ack(PUBACK);
        done.published.fetch_add(41, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
}

/// Identifiers that come once, leave a session, a subscription and a delayed will, and never come again.
fn newcomers(broker: &Broker, done: &Done) {
    let mut number = 0_u64;
    while !done.stop.load(Ordering::Relaxed) {
        number += 1;
        let mut connect = Connect::new(Version::V5, &format!("new-{number}"))
            .with(&[0x11, 0, 0, 0, 20])
            .clean(false)
            .will(
                1,
                false,
                &format!("command/{}/seen", number % VEHICLES),
                b"once",
            );
        if let Some((_, properties, ..)) = &mut connect.will {
            properties.extend([0x18, 0, 0, 0, 5]);
        }
        let mut peer = Peer::connect(broker, &connect);
        peer.subscribe(&format!("command/{}/+", number % VEHICLES), 1);
        peer.subscribe(&format!("only/{number}/#"), 1);
        done.connections.fetch_add(1, Ordering::Relaxed);
        drop(peer);
        std::thread::sleep(PAUSE);
    }
}

/// Somebody who reads the last seconds again and again.
fn look_back(broker: &Broker, done: &Done) {
    while !done.stop.load(Ordering::Relaxed) {
        let mut peer = Peer::connect(broker, &Connect::new(Version::V5, "historian"));
        peer.subscribe("$history/-5s/vehicle/+/telemetry", 0);
        while peer.has_packet_within(Duration::from_millis(300)) {
            take(&mut peer, done);
        }
        peer.send(&DISCONNECT);
        peer.drain();
    }
}
