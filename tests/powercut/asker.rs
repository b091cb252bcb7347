//! A client that subscribes again and again to what has been retained all the time, and expects to get it.

use std::collections::{BTreeMap, BTreeSet};

use shardmq::wire::{Packet, Publish, QoS};

use crate::clients::{ack, subscribe};

/// Messages that are retained from the beginning on.
pub const STILL: usize = 12;

/// Groups of them, each with a filter of its own.
const GROUPS: usize = 4;

/// Topic of a message that is retained all the time.
fn topic(number: usize) -> String {
    format!("still/{}/{number}", number % GROUPS)
}

/// A PUBLISH of QoS 1 or 2 that makes such a message.
pub fn still(number: usize, out: &mut Vec<u8>) {
    let topic = topic(number);
    let payload = format!("still {number}");
    let length = 2 + topic.len() + 2 + 1 + payload.len();
    let qos = 1 + (number / GROUPS % 2) as u8;
    out.extend([0x31 | qos << 1, length as u8, 0, topic.len() as u8]);
    out.extend(topic.as_bytes());
    out.extend([0, number as u8 + 1, 0]);
    out.extend(payload.as_bytes());
}

/// Where a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// UNSUBSCRIBE is not answered.
    Leaving,
    /// SUBSCRIBE is not answered.
    Asking,
    /// SUBACK came: what is missing is owed.
    Owed,
}

/// A round: it subscribes and gets what is retained.
#[derive(Debug)]
pub struct Asker {
    name: usize,
    round: usize,
    phase: Phase,
    /// What has not come since SUBSCRIBE was sent first.
    missing: BTreeSet<String>,
    /// Topics of QoS 2 messages whose exchange has begun, by packet identifier.
    held: BTreeMap<u16, String>,
    /// Whether there is another round behind this one.
    pub goes_on: bool,
    /// Rounds that came to their end.
    pub replays: u64,
}

impl Asker {
    pub fn new(name: usize) -> Self {
        let mut asker = Self {
            name,
            round: name,
            phase: Phase::Asking,
            missing: BTreeSet::new(),
            held: BTreeMap::new(),
            goes_on: true,
            replays: 0,
        };
        asker.begin();
        asker
    }

    fn begin(&mut self) {
        let numbers = (0..STILL).filter(|number| number % GROUPS == self.round % GROUPS);
        self.missing = numbers.map(topic).collect();
    }

    fn filter(&self) -> String {
        format!("still/{}/#", self.round % GROUPS)
    }

    /// Rounds in which the subscription is made anew: it asks for what is retained if it is new.
    fn is_fresh(&self) -> bool {
        self.round / GROUPS % 2 == 1
    }

    /// What is not answered is sent again.
    pub fn resume(&self, out: &mut Vec<u8>) {
        match self.phase {
            Phase::Leaving => {
                let filter = self.filter();
                out.extend([0xA2, filter.len() as u8 + 5, 0, 8, 0, 0, filter.len() as u8]);
                out.extend(filter.as_bytes());
            }
            Phase::Asking => {
                let if_new = u8::from(self.is_fresh()) << 4;
                let qos = 1 + (self.round % 3 % 2) as u8;
                out.extend(subscribe(&self.filter(), if_new | qos));
            }
            Phase::Owed => {}
        }
    }

    pub fn take(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::SubAck(_) => self.phase = Phase::Owed,
            Packet::UnsubAck(_) => {
                self.phase = Phase::Asking;
                self.resume(out);
            }
            Packet::Publish(publish) => self.receive(publish, out),
            Packet::PubRel(release) => {
                let id = release.packet_id.get();
                self.held.remove(&id);
                out.extend(ack(0x70, id));
            }
            other => panic!("{other:?} for an asker"),
        }
        if self.phase == Phase::Owed && self.missing.is_empty() && self.goes_on {
            self.replays += 1;
            self.round += 1;
            self.begin();
            self.phase = match self.is_fresh() {
                true => Phase::Leaving,
                false => Phase::Asking,
            };
            self.resume(out);
        }
    }

    fn receive(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>) {
        assert!(publish.retain, "nobody publishes here");
        let id = publish.packet_id.map_or(0, |id| id.get());
        if publish.qos == QoS::ExactlyOnce {
            let before = self.held.insert(id, publish.topic.to_owned());
            let same = before.is_none_or(|before| publish.dup && before == publish.topic);
            assert!(same, "{id} is in use [MQTT-4.3.3-1]");
        }
        self.missing.remove(publish.topic);
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => out.extend(ack(0x40, id)),
            QoS::ExactlyOnce => out.extend(ack(0x50, id)),
        }
    }

    /// Whether all that was owed has come.
    pub fn compare(&self) -> Result<(), String> {
        match self.missing.first() {
            Some(topic) if self.phase == Phase::Owed => Err(format!(
                "{topic} is retained, was subscribed to by asker {}, and did not come",
                self.name
            )),
            _ => Ok(()),
        }
    }
}
