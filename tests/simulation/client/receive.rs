//! What a client makes of the broker's packets.

use std::collections::btree_map::Entry;

use shardmq::wire::{AckKind, Framing, Packet, QoS, frame};

use super::{Client, Progress};
use crate::random::Random;
use crate::world::{Pace, World};

impl Client {
    /// Reads from its socket, in pieces of any size, and answers what must be answered.
    pub fn act(&mut self, world: &mut World, random: &mut Random, pace: Pace) -> bool {
        let Some(link) = self.link else { return false };
        let socket = &mut world.sockets[link.0];
        if socket.stuck {
            return false;
        }
        let available = socket.to_client.len();
        let length = match pace {
            Pace::Random if available > 0 && random.chance(50) => 1 + random.below(available),
            _ => available,
        };
        self.inbox.extend(socket.to_client.drain(..length));
        let closed = socket.closed && socket.to_client.is_empty();
        let mut busy = length > 0;
        while let Some(packet) = self.take_packet() {
            self.receive(world, &packet);
        }
        if closed {
            self.lose();
            return true;
        }
        if self.prompt || pace == Pace::Everything {
            let owed = self.pubacks.len() + self.pubrecs.len();
            busy |= owed > 0;
            self.acknowledge(world, random, owed);
        }
        busy
    }

    fn take_packet(&mut self) -> Option<Vec<u8>> {
        match frame(&self.inbox, u32::MAX) {
            Ok(Framing::Packet { size, .. }) => Some(self.inbox.drain(..size).collect()),
            _ => None,
        }
    }

    fn receive(&mut self, world: &mut World, bytes: &[u8]) {
        let version = self.profile.version;
        let Ok(Framing::Packet {
            first_byte, body, ..
        }) = frame(bytes, u32::MAX)
        else {
            return;
        };
        // The oracle has looked at it already: what is malformed is its affair.
        let Ok(packet) = Packet::decode(version, first_byte, body) else {
            return;
        };
        match packet {
            Packet::ConnAck(connack) => {
                self.up = true;
                self.greeted = true;
                self.receive_maximum = connack.properties.receive_maximum.unwrap_or(65_535).into();
                self.topic_alias_maximum = connack.properties.topic_alias_maximum.unwrap_or(0);
                if connack.session_present {
                    self.resend(world);
                } else if !self.clean {
                    self.outgoing.clear();
                    self.incoming.clear();
                    self.received.clear();
                }
                self.flush(world);
            }
            Packet::Publish(publish) => {
                let Some(id) = publish.packet_id else { return };
                if publish.qos == QoS::AtLeastOnce {
                    return self.pubacks.push_back(id.get());
                }
                // The identifier tells a message that came before [MQTT-4.3.3-10].
                if let Entry::Vacant(vacant) = self.incoming.entry(id.get()) {
                    let payload = if publish.retain {
                        &[][..]
                    } else {
                        publish.payload
                    };
                    vacant.insert(payload.to_vec());
                    *self.received.entry(payload.to_vec()).or_default() += 1;
                }
                if !self.pubrecs.contains(&id.get()) {
                    self.pubrecs.push_back(id.get());
                }
            }
            Packet::PubAck(ack) => self.finish(world, ack.packet_id.get()),
            Packet::PubRec(ack) => {
                let id = ack.packet_id.get();
                if ack.reason.is_error() {
                    return self.finish(world, id);
                }
                let known = self
                    .outgoing
                    .iter_mut()
                    .find(|outgoing| outgoing.packet_id == id);
                if let Some(outgoing) = known {
                    outgoing.progress = Progress::Released;
                    self.acknowledge_one(world, AckKind::PubRel, id, false);
                }
            }
            Packet::PubComp(ack) => self.finish(world, ack.packet_id.get()),
            Packet::PubRel(ack) => {
                self.incoming.remove(&ack.packet_id.get());
                self.acknowledge_one(world, AckKind::PubComp, ack.packet_id.get(), false);
            }
            Packet::SubAck(suback) => {
                self.requests.remove(&suback.packet_id.get());
            }
            Packet::UnsubAck(unsuback) => {
                self.requests.remove(&unsuback.packet_id.get());
            }
            _ => {}
        }
    }

    fn finish(&mut self, world: &mut World, packet_id: u16) {
        self.outgoing
            .retain(|outgoing| outgoing.packet_id != packet_id);
        self.flush(world);
    }
}
