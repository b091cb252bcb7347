//! The broker is killed under load, again and again, and nothing that it acknowledged is gone.
//!
//! Publishers keep a ledger: what they sent, what was acknowledged. They, and subscribers with sessions
//! that last, go on after each crash as the standard asks them to: everything unacknowledged is sent
//! again, under its old packet identifier. At the end every subscriber has every acknowledged message, those
//! of QoS 2 once; retained messages are no older than the last one that was acknowledged; and what was
//! deleted has not come back. The number of shards changes between starts, and so does the driver.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::Version;
use crate::broker::{Broker, Setup, free_port, fresh_folder};
use crate::disk::FlakyDisk;
use crate::raw::packets::{
    Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, SUBACK, ack, subscribe, take_varint,
};

/// Messages that a publisher has unacknowledged at a time.
const WINDOW: usize = 30;

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(30);

/// Every so many rounds the number of shards changes.
const SPREAD_EVERY: u32 = 7;

#[test]
fn nothing_acknowledged_is_lost_from_one_shard() {
    crash(100, [Setup::ONE, Setup::TWO], &[], 0x51);
}

#[test]
fn nothing_acknowledged_is_lost_from_two_shards() {
    crash(100, [Setup::EPOLL, Setup::ONE], &[], 0x52);
}

/// What was written and not synced goes with the process, as with the power.
#[test]
fn nothing_acknowledged_was_only_written() {
    let Some(disk) = FlakyDisk::build("crash::nothing_acknowledged_was_only_written") else {
        return;
    };
    crash(40, [Setup::TWO, Setup::ONE], &[disk.preload()], 0x53);
}

fn crash(rounds: u32, [usual, other]: [Setup; 2], environment: &[(&str, &str)], seed: u64) {
    let mut random = Random(seed);
    let (port, dir) = (free_port(), fresh_folder(0));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut publishers: Vec<Publisher> = (0..3).map(Publisher::new).collect();
    let mut subscribers: Vec<Subscriber> = (0..3).map(Subscriber::new).collect();
    for round in 0..rounds {
        let setup = if (round / SPREAD_EVERY).is_multiple_of(2) {
            usual
        } else {
            other
        };
        let mut broker = Broker::start_at(setup, port, &dir.join("data"), environment);
        if round == 0 {
            for subscriber in &mut subscribers {
                subscriber.subscribe(address);
            }
        }
        let life = Duration::from_millis(10 + random.below(150));
        let listening = random.below(8);
        std::thread::scope(|scope| {
            for publisher in &mut publishers {
                scope.spawn(move || publisher.work(address));
            }
            for (index, subscriber) in subscribers.iter_mut().enumerate() {
                if listening & (1 << index) != 0 {
                    scope.spawn(move || subscriber.work(address, None));
                }
            }
            std::thread::park_timeout(life);
            broker.kill();
        });
    }
    let broker = Broker::start_at(usual, port, &dir.join("data"), environment);
    for publisher in &mut publishers {
        publisher.finish(address);
    }
    let lasts: Vec<(u32, u32)> = publishers
        .iter()
        .map(|publisher| (publisher.name, publisher.next - 1))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.work(address, Some(&lasts));
    }
    let retained = retained(address);
    broker.stop();
    let acknowledged: usize = publishers.iter().map(|one| one.ledger.get().len()).sum();
    assert!(
        acknowledged > rounds as usize * 50,
        "only {acknowledged} messages were acknowledged"
    );
    for publisher in &publishers {
        publisher.compare(&subscribers, &retained);
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// What a publisher sent and has not finished.
#[derive(Clone, Copy)]
enum Sent {
    Published(u32),
    Released,
}

/// What was acknowledged, for whoever wants to know while it goes on.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<BTreeSet<u32>>>);

impl Ledger {
    pub(crate) fn get(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().expect("nobody panics with it")
    }
}

pub(crate) struct Publisher {
    pub(crate) name: u32,
    /// The number of the next message. Odd ones are QoS 1, even ones QoS 2.
    pub(crate) next: u32,
    /// By packet identifier.
    unfinished: BTreeMap<u16, Sent>,
    pub(crate) ledger: Ledger,
    last_retained: u32,
    known: bool,
}

impl Publisher {
    pub(crate) fn new(name: u32) -> Self {
        Self {
            name,
            next: 1,
            unfinished: BTreeMap::new(),
            ledger: Ledger::default(),
            last_retained: 0,
            known: false,
        }
    }

    /// Every tenth message is retained; of those that follow, one deletes the retained message of another topic.
    pub(crate) fn publish(&self, number: u32) -> Publish {
        let name = self.name;
        let text = format!("{name} {number}");
        let publish = match number % 10 {
            0 => Publish::new(&format!("load/kept/{name}"), text).retain(),
            1 => Publish::new(&format!("load/gone/{name}/{}", number / 10), text).retain(),
            3 => Publish::new(&format!("load/gone/{name}/{}", number / 10), "").retain(),
            _ => Publish::new(&format!("load/{name}"), text),
        };
        publish.qos(if number % 2 == 1 { 1 } else { 2 }, identifier(number))
    }

    /// Publishes until the broker is gone.
    pub(crate) fn work(&mut self, address: SocketAddr) {
        let _ = self.converse(address, u32::MAX);
    }

    /// Publishes to the end, waits until everything is acknowledged, and then publishes a last message of
    /// QoS 2: when that has come, so has everything else.
    pub(crate) fn finish(&mut self, address: SocketAddr) {
        let last = self.next / 10 * 10 + 15; // neither retained nor empty
        for last in [last, last + 1] {
            self.converse(address, last).expect("the broker stays");
        }
        assert!(self.unfinished.is_empty() && self.next > last);
    }

    fn converse(&mut self, address: SocketAddr, last: u32) -> Option<()> {
        let connect = Connect::lasting(Version::V5, &format!("publisher-{}", self.name));
        let mut line = Line::connect(address, &connect, self.known)?;
        self.known = true;
        for (&id, sent) in &self.unfinished {
            line.send(&match *sent {
                Sent::Published(number) => self.publish(number).dup().bytes(Version::V5),
                Sent::Released => ack(PUBREL, id),
            })?;
        }
        loop {
            while self.unfinished.len() < WINDOW && self.next <= last {
                let number = self.next;
                if self.unfinished.contains_key(&identifier(number)) {
                    break;
                }
                self.next += 1;
                self.unfinished
                    .insert(identifier(number), Sent::Published(number));
                line.send(&self.publish(number).bytes(Version::V5))?;
            }
            if self.unfinished.is_empty() {
                return Some(());
            }
            let (first, body) = line.read()?;
            let id = u16::from_be_bytes([body[0], body[1]]);
            let reason = body.get(2).copied().unwrap_or(0);
            match (first, self.unfinished.get(&id).copied()) {
                (PUBACK, Some(Sent::Published(number))) => {
                    assert!(reason < 0x80, "PUBACK {reason:02x}");
                    self.acknowledge(number);
                    self.unfinished.remove(&id);
                }
                (PUBREC, Some(sent)) => {
                    assert!(reason < 0x80, "PUBREC {reason:02x}");
                    if let Sent::Published(number) = sent {
                        self.acknowledge(number);
                    }
                    self.unfinished.insert(id, Sent::Released);
                    line.send(&ack(PUBREL, id))?;
                }
                (PUBCOMP, Some(Sent::Released)) => _ = self.unfinished.remove(&id),
                (PUBREC | PUBCOMP, None) => panic!("{first:02x} for nothing: {body:02x?}"),
                _ => panic!("{first:02x} {body:02x?}"),
            }
        }
    }

    fn acknowledge(&mut self, number: u32) {
        self.ledger.get().insert(number);
        if number.is_multiple_of(10) {
            self.last_retained = self.last_retained.max(number);
        }
    }

    fn compare(&self, subscribers: &[Subscriber], retained: &[(String, Vec<u8>)]) {
        for subscriber in subscribers {
            for number in 1..self.next {
                if self.publish(number).payload.is_empty() {
                    continue;
                }
                let times = subscriber
                    .received
                    .get(&(self.name, number))
                    .copied()
                    .unwrap_or(0);
                let who = format!("message {number} of {}, for {}", self.name, subscriber.name);
                let acknowledged = self.ledger.get().contains(&number);
                assert!(times > 0 || !acknowledged, "{who}: acknowledged and lost");
                assert!(times <= 1 || number % 2 == 1, "{who}: QoS 2, {times} times");
            }
        }
        let kept = format!("load/kept/{}", self.name);
        let kept = retained.iter().find(|(topic, _)| *topic == kept);
        let (_, number) = numbers(&kept.expect("it was retained").1).expect("not empty");
        assert!(
            number >= self.last_retained,
            "{number} is retained, {} was acknowledged",
            self.last_retained
        );
        for number in (3..self.next).step_by(10) {
            let topic = self.publish(number).topic;
            let back = retained.iter().any(|(found, _)| *found == topic);
            let deleted = self.ledger.get().contains(&number);
            assert!(!(back && deleted), "{topic} was deleted and came back");
        }
    }
}

/// Publisher and number of a message; nothing of an empty one.
pub(crate) fn numbers(payload: &[u8]) -> Option<(u32, u32)> {
    let (publisher, number) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((publisher.parse().ok()?, number.parse().ok()?))
}

/// Identifiers go round, far beyond what is unacknowledged.
fn identifier(number: u32) -> u16 {
    (number % 60_000) as u16 + 1
}

pub(crate) struct Subscriber {
    pub(crate) name: u32,
    /// How often each message came, by publisher and number.
    pub(crate) received: BTreeMap<(u32, u32), u32>,
    /// QoS 2 messages that were not released.
    held: BTreeSet<u16>,
}

impl Subscriber {
    pub(crate) fn new(name: u32) -> Self {
        Self {
            name,
            received: BTreeMap::new(),
            held: BTreeSet::new(),
        }
    }

    fn connect(&self, address: SocketAddr, known: bool) -> Option<Line> {
        let connect = Connect::lasting(Version::V5, &format!("subscriber-{}", self.name));
        Line::connect(address, &connect, known)
    }

    pub(crate) fn subscribe(&mut self, address: SocketAddr) {
        let mut line = self.connect(address, false).expect("it listens");
        line.send(&subscribe(Version::V5, 9, &[("load/#", 2)]))
            .expect("the broker reads");
        let (first, _) = line.read().expect("SUBACK");
        assert_eq!(first, SUBACK);
    }

    /// Takes messages until the broker is gone, or until those of these publishers and numbers are there.
    pub(crate) fn work(&mut self, address: SocketAddr, lasts: Option<&[(u32, u32)]>) {
        let Some(mut line) = self.connect(address, true) else {
            return;
        };
        while !self.has(lasts)
            && let Some((first, body)) = line.read()
        {
            let answer = match first >> 4 {
                3 => self.take(Publish::read(Version::V5, first, &body)),
                6 => {
                    let id = u16::from_be_bytes([body[0], body[1]]);
                    self.held.remove(&id);
                    Some(ack(PUBCOMP, id))
                }
                _ => panic!("{first:02x} {body:02x?}"),
            };
            if let Some(answer) = answer
                && line.send(&answer).is_none()
            {
                break;
            }
        }
        assert!(self.has(lasts) || lasts.is_none(), "the broker is gone");
    }

    fn has(&self, lasts: Option<&[(u32, u32)]>) -> bool {
        lasts.is_some_and(|lasts| lasts.iter().all(|last| self.received.contains_key(last)))
    }

    fn take(&mut self, publish: Publish) -> Option<Vec<u8>> {
        if (publish.qos < 2 || self.held.insert(publish.id))
            && let Some(message) = numbers(&publish.payload)
        {
            *self.received.entry(message).or_default() += 1;
        }
        match publish.qos {
            0 => None,
            1 => Some(ack(PUBACK, publish.id)),
            _ => Some(ack(PUBREC, publish.id)),
        }
    }
}

/// Everything that is retained below `load/`. A shard sends what it keeps in the order of the topics, so
/// what comes last from each of them says that the rest has come.
pub(crate) fn retained(address: SocketAddr) -> Vec<(String, Vec<u8>)> {
    const LAST: &str = "load/~";
    let connect = Connect::new(Version::V5, "looks");
    let mut line = Line::connect(address, &connect, false).expect("it listens");
    let mut missing: BTreeSet<String> = (0..16).map(|n| format!("{LAST}/{n}")).collect();
    for topic in &missing {
        let last = Publish::new(topic, "last").retain().qos(1, 1);
        line.send(&last.bytes(Version::V5))
            .expect("the broker reads");
        assert_eq!(line.read().expect("PUBACK").0, PUBACK);
    }
    line.send(&subscribe(Version::V5, 1, &[("load/#", 0)]))
        .expect("the broker reads");
    let mut found = Vec::new();
    while !missing.is_empty() {
        let (first, body) = line.read().expect("the broker stays");
        if first != SUBACK {
            let publish = Publish::read(Version::V5, first, &body);
            missing.remove(&publish.topic);
            found.push((publish.topic, publish.payload));
        }
    }
    found
}

/// A connection that may end at any byte.
struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    /// `None` if the broker is gone. `known` is whether it must know the session.
    fn connect(address: SocketAddr, connect: &Connect, known: bool) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(WAIT)).expect("not zero");
        stream.set_nodelay(true).ok()?;
        let mut line = Self {
            stream,
            unread: Vec::new(),
        };
        line.send(&connect.bytes())?;
        let (first, body) = line.read()?;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK {body:02x?}");
        assert!(body[0] == 1 || !known, "the session is lost");
        Some(line)
    }

    fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(packet) = self.take() {
                return Some(packet);
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing came within {WAIT:?}")
                }
                Err(_) => return None,
            }
            assert!(Instant::now() < deadline, "no whole packet within {WAIT:?}");
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = *self.unread.first()?;
        let more = self.unread.iter().skip(1);
        let head = 2 + more.take_while(|byte| **byte & 0x80 != 0).count();
        let length = take_varint(self.unread.get(1..head)?).0;
        let body = self.unread.get(head..head + length)?.to_owned();
        self.unread.drain(..head + length);
        Some((first, body))
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
