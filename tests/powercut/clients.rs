//! Clients that keep a ledger, and do what the standard asks of a client whose connection was lost.

use std::collections::{BTreeMap, BTreeSet};

use shardmq::wire::{Ack, Packet, Publish, QoS, Version};

/// Messages that a publisher has unacknowledged at a time.
const WINDOW: usize = 6;

/// Where a publish of a publisher stands.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Published(u32),
    Released,
}

/// Publishes messages with numbers: odd ones with QoS 1, even ones with QoS 2.
#[derive(Debug)]
pub struct Publisher {
    pub name: u32,
    pub next: u32,
    unfinished: BTreeMap<u16, Sent>,
    pub acknowledged: BTreeSet<u32>,
    pub last_retained: u32,
}

/// A message as it is published.
pub struct Message {
    pub topic: String,
    pub payload: String,
    pub retain: bool,
    pub qos: u8,
}

impl Publisher {
    pub fn new(name: u32) -> Self {
        Self {
            name,
            next: 1,
            unfinished: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            last_retained: 0,
        }
    }

    /// Every tenth message is retained; of those that follow, one is retained elsewhere, and one deletes that.
    pub fn message(&self, number: u32) -> Message {
        let name = self.name;
        let text = format!("{name} {number}");
        let (topic, payload, retain) = match number % 10 {
            0 => (format!("load/kept/{name}"), text, true),
            1 => (format!("load/gone/{name}/{}", number / 10), text, true),
            3 => (
                format!("load/gone/{name}/{}", number / 10),
                String::new(),
                true,
            ),
            _ => (format!("load/{name}/{}", number % 3), text, false),
        };
        Message {
            topic,
            payload,
            retain,
            qos: if number % 2 == 1 { 1 } else { 2 },
        }
    }

    fn publish(&self, number: u32, dup: bool, out: &mut Vec<u8>) {
        let message = self.message(number);
        let flags = 0x30 | u8::from(dup) << 3 | message.qos << 1 | u8::from(message.retain);
        let topic = message.topic.as_bytes();
        let length = 2 + topic.len() + 2 + 1 + message.payload.len();
        assert!(length < 128, "short messages");
        out.extend([flags, length as u8, 0, topic.len() as u8]);
        out.extend(topic);
        out.extend(identifier(number).to_be_bytes());
        out.push(0);
        out.extend(message.payload.as_bytes());
    }

    /// Connected: what was not finished is sent again, in its order.
    pub fn resume(&mut self, out: &mut Vec<u8>) {
        let mut published: Vec<(u32, bool)> = Vec::new();
        for (&id, sent) in &self.unfinished {
            match *sent {
                Sent::Published(number) => published.push((number, true)),
                Sent::Released => out.extend(ack(0x62, id)),
            }
        }
        published.sort_unstable();
        for (number, dup) in published {
            self.publish(number, dup, out);
        }
    }

    /// Publishes as much as may be unacknowledged, up to the message `last`.
    pub fn work(&mut self, last: u32, out: &mut Vec<u8>) {
        while self.unfinished.len() < WINDOW && self.next <= last {
            let number = self.next;
            self.next += 1;
            self.unfinished
                .insert(identifier(number), Sent::Published(number));
            self.publish(number, false, out);
        }
    }

    pub fn is_done(&self, last: u32) -> bool {
        self.next > last && self.unfinished.is_empty()
    }

    pub fn take(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::PubAck(ack) => {
                self.acknowledge(ack);
                self.unfinished.remove(&ack.packet_id.get());
            }
            Packet::PubRec(received) => {
                self.acknowledge(received);
                let id = received.packet_id.get();
                if self.unfinished.insert(id, Sent::Released).is_some() {
                    out.extend(ack(0x62, id));
                } else {
                    panic!("PUBREC for nothing");
                }
            }
            Packet::PubComp(complete) => {
                self.unfinished.remove(&complete.packet_id.get());
            }
            other => panic!("{other:?} for a publisher"),
        }
    }

    fn acknowledge(&mut self, ack: &Ack<'_>) {
        assert!(!ack.reason.is_error(), "{:?}", ack.reason);
        if let Some(Sent::Published(number)) = self.unfinished.get(&ack.packet_id.get()) {
            self.acknowledged.insert(*number);
            if number.is_multiple_of(10) {
                self.last_retained = self.last_retained.max(*number);
            }
        }
    }
}

/// Identifiers go round, far beyond what is unacknowledged.
fn identifier(number: u32) -> u16 {
    (number % 50) as u16 + 1
}

pub fn ack(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

/// Receives, with a session that lasts.
#[derive(Debug)]
pub struct Subscriber {
    pub name: u32,
    /// How often each message came live, by publisher and number. What is retained may come once more.
    pub received: BTreeMap<(u32, u32), u32>,
    /// The newest that came of those that are retained and replaced, by publisher.
    newest: BTreeMap<u32, u32>,
    held: BTreeSet<u16>,
}

impl Subscriber {
    pub fn new(name: u32) -> Self {
        Self {
            name,
            received: BTreeMap::new(),
            newest: BTreeMap::new(),
            held: BTreeSet::new(),
        }
    }

    pub fn take(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::Publish(publish) => self.receive(publish, out),
            Packet::PubRel(release) => {
                let id = release.packet_id.get();
                self.held.remove(&id);
                out.extend(ack(0x70, id));
            }
            other => panic!("{other:?} for a subscriber"),
        }
    }

    fn receive(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>) {
        let id = publish.packet_id.map_or(0, |id| id.get());
        if (publish.qos < QoS::ExactlyOnce || self.held.insert(id))
            && let Some((publisher, number)) = numbers(publish.payload)
        {
            if number.is_multiple_of(10) {
                let newest = self.newest.entry(publisher).or_default();
                assert!(*newest <= number, "{number} came behind {newest}");
                *newest = number;
            }
            if !publish.retain {
                *self.received.entry((publisher, number)).or_default() += 1;
            }
        }
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => out.extend(ack(0x40, id)),
            QoS::ExactlyOnce => out.extend(ack(0x50, id)),
        }
    }
}

/// Publisher and number of a message; nothing of an empty one.
pub fn numbers(payload: &[u8]) -> Option<(u32, u32)> {
    let (publisher, number) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((publisher.parse().ok()?, number.parse().ok()?))
}

/// CONNECT of version 5 with a session that lasts.
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\0\0\0\x05\x11\0\x01\0\0".to_vec();
    body.extend((client_id.len() as u16).to_be_bytes());
    body.extend(client_id.as_bytes());
    [&[0x10, body.len() as u8], body.as_slice()].concat()
}

/// SUBSCRIBE to everything below `load/`.
pub fn subscribe(filter: &str, options: u8) -> Vec<u8> {
    let mut body = vec![0, 7, 0];
    body.extend((filter.len() as u16).to_be_bytes());
    body.extend(filter.as_bytes());
    body.push(options);
    [&[0x82, body.len() as u8], body.as_slice()].concat()
}

/// The version that all of them speak.
pub const VERSION: Version = Version::V5;
