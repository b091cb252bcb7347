//! What a client sends.

use std::num::NonZeroU16;

use shardmq::topic::Name;
use shardmq::wire::{
    Ack, AckKind, Connect, ConnectProperties, Disconnect, Forwarded, Packet, Publish,
    PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilters, SubscriptionIdentifiers,
    SubscriptionOptions, Unsubscribe, UnsubscribeFilters, UserProperties, Will,
};

use super::{Client, Message, Outgoing, Progress};
use crate::random::Random;
use crate::world::World;

/// What a SUBSCRIBE asks for.
#[derive(Clone, Debug)]
pub struct Request {
    pub filters: Vec<(String, SubscriptionOptions)>,
    pub identifier: Option<u32>,
}

impl Client {
    pub(super) fn send(&self, world: &mut World, packet: &Packet<'_>) {
        if let Some(link) = self.link {
            let mut bytes = Vec::new();
            packet.encode(self.profile.version, &mut bytes);
            world.send(link, bytes);
        }
    }

    /// Connects, while an older connection of it may still live.
    pub fn connect(
        &mut self,
        world: &mut World,
        shard: usize,
        clean: bool,
        will: Option<(&Message, u32)>,
    ) {
        if let (Some(link), true) = (self.link, self.profile.anonymous) {
            world.cut(link, 0); // nobody could take it over
        }
        // It has thrown its state away: until the broker has done so, too, it has to insist.
        let clean = clean || (self.clean && !self.greeted);
        self.lose();
        self.clean = clean;
        self.greeted = false;
        if clean {
            self.outgoing.clear();
            self.incoming.clear();
            self.received.clear();
        }
        self.link = Some(world.open(shard));
        let v5 = self.profile.version.is_v5();
        let will = will.and_then(|(message, delay)| {
            Some(Will {
                topic: Name::parse(&message.topic).ok()?,
                payload: &message.payload,
                qos: message.qos,
                retain: message.retain,
                delay_interval: if v5 { delay } else { 0 },
                message_expiry_interval: None,
                forwarded: Forwarded::default(),
            })
        });
        let properties = ConnectProperties {
            session_expiry_interval: (self.profile.expiry > 0).then_some(self.profile.expiry),
            receive_maximum: self.profile.receive_maximum,
            maximum_packet_size: self.profile.maximum_packet_size,
            topic_alias_maximum: self.profile.topic_alias_maximum,
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: self.profile.version,
            clean_start: clean,
            keep_alive: self.profile.keep_alive,
            client_id: if self.profile.anonymous {
                ""
            } else {
                &self.profile.name
            },
            will,
            username: None,
            password: None,
            properties: if v5 {
                properties
            } else {
                ConnectProperties::default()
            },
        };
        self.send(world, &Packet::Connect(connect));
    }

    /// Publishes, as soon as that may be.
    pub fn publish(&mut self, world: &mut World, message: Message) {
        if self.link.is_some() {
            self.backlog.push_back(message);
            self.flush(world);
        }
    }

    /// Sends what waits, within the quota. Before CONNACK only behind a clean start, and little.
    pub(super) fn flush(&mut self, world: &mut World) {
        let quota = match (self.up, self.clean) {
            (true, _) => self.receive_maximum.min(20),
            (false, true) => 1,
            (false, false) => return,
        };
        while let Some(message) = self.backlog.front() {
            if message.qos > QoS::AtMostOnce && self.outgoing.len() >= quota {
                return;
            }
            // Should an older CONNECT come later and win, nobody would release this one.
            if message.qos == QoS::ExactlyOnce && !self.up {
                return;
            }
            let Some(message) = self.backlog.pop_front() else {
                return;
            };
            if message.qos == QoS::AtMostOnce {
                self.send_publish(world, &message, None, false);
                continue;
            }
            let packet_id = self.packet_id();
            self.send_publish(world, &message, Some(packet_id), false);
            self.outgoing.push(Outgoing {
                packet_id,
                message,
                progress: Progress::Published,
            });
        }
    }

    fn send_publish(&mut self, world: &mut World, message: &Message, id: Option<u16>, dup: bool) {
        let known = self.aliases.get(&message.topic).copied();
        let free = (self.aliases.len() < usize::from(self.topic_alias_maximum)
            && message.payload.len().is_multiple_of(2))
        .then(|| self.aliases.len() as u16 + 1);
        let alias = known.or(free);
        if let Some(alias) = alias {
            self.aliases.insert(message.topic.clone(), alias);
        }
        let publish = Publish {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic: if known.is_some() { "" } else { &message.topic },
            packet_id: id.and_then(NonZeroU16::new),
            properties: PublishProperties {
                message_expiry_interval: message.expiry,
                topic_alias: alias,
                forwarded: Forwarded::default(),
                subscription_identifiers: SubscriptionIdentifiers::default(),
                payload_format_indicator: None,
            },
            payload: &message.payload,
        };
        self.send(world, &Packet::Publish(publish));
    }

    /// Sends again what the last connection left open, in its order.
    pub(super) fn resend(&mut self, world: &mut World) {
        for outgoing in self.outgoing.clone() {
            match outgoing.progress {
                Progress::Published => {
                    self.send_publish(world, &outgoing.message, Some(outgoing.packet_id), true);
                }
                Progress::Released => {
                    self.acknowledge_one(world, AckKind::PubRel, outgoing.packet_id, false);
                }
            }
        }
    }

    pub fn subscribe(&mut self, world: &mut World, request: &Request) {
        if self.link.is_none() || !(self.up || self.clean) {
            return;
        }
        let id = self.packet_id();
        self.requests.insert(id);
        let version = self.profile.version;
        let mut filters = Vec::new();
        for (filter, options) in &request.filters {
            self.filters.insert(filter.clone());
            SubscribeFilters::push(version, filter, *options, &mut filters);
        }
        let Some(packet_id) = NonZeroU16::new(id) else {
            return;
        };
        let subscribe = Subscribe {
            packet_id,
            subscription_identifier: request.identifier.filter(|_| version.is_v5()),
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_bytes(version, &filters),
        };
        self.send(world, &Packet::Subscribe(subscribe));
    }

    pub fn unsubscribe(&mut self, world: &mut World, names: &[String]) {
        if !self.is_up() {
            return;
        }
        let id = self.packet_id();
        self.requests.insert(id);
        let mut filters = Vec::new();
        names
            .iter()
            .for_each(|name| UnsubscribeFilters::push(name, &mut filters));
        let Some(packet_id) = NonZeroU16::new(id) else {
            return;
        };
        let unsubscribe = Unsubscribe {
            packet_id,
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::from_bytes(&filters),
        };
        self.send(world, &Packet::Unsubscribe(unsubscribe));
    }

    /// Sends up to `count` of the acknowledgements it owes: those of one kind in their order, the
    /// two kinds in any [MQTT-4.6.0-2] [MQTT-4.6.0-3]. Some refuse the message (version 5).
    pub fn acknowledge(&mut self, world: &mut World, random: &mut Random, count: usize) {
        for _ in 0..count {
            let first = !self.pubacks.is_empty() && (self.pubrecs.is_empty() || random.chance(50));
            let refuses = self.profile.version.is_v5() && random.chance(3);
            if first {
                if let Some(id) = self.pubacks.pop_front() {
                    self.acknowledge_one(world, AckKind::PubAck, id, refuses);
                }
            } else if let Some(id) = self.pubrecs.pop_front() {
                if refuses
                    && let Some(payload) = self.incoming.remove(&id)
                    && let Some(count) = self.received.get_mut(&payload)
                {
                    *count -= 1; // so the application never had it
                }
                self.acknowledge_one(world, AckKind::PubRec, id, refuses);
            }
        }
    }

    pub(super) fn acknowledge_one(&self, world: &mut World, kind: AckKind, id: u16, bad: bool) {
        let Some(id) = NonZeroU16::new(id) else {
            return;
        };
        let reason = if bad {
            ReasonCode::ImplementationSpecificError
        } else {
            ReasonCode::Success
        };
        let ack = Ack::new(id, reason);
        let packet = match kind {
            AckKind::PubAck => Packet::PubAck(ack),
            AckKind::PubRec => Packet::PubRec(ack),
            AckKind::PubRel => Packet::PubRel(ack),
            AckKind::PubComp => Packet::PubComp(ack),
        };
        self.send(world, &packet);
    }

    pub fn ping(&self, world: &mut World) {
        if self.up {
            self.send(world, &Packet::PingReq);
        }
    }

    /// DISCONNECT, and the end of the connection.
    pub fn disconnect(&mut self, world: &mut World, with_will: bool, expiry: Option<u32>) {
        let Some(link) = self.link else { return };
        let v5 = self.profile.version.is_v5();
        let reason = if with_will && v5 {
            ReasonCode::DisconnectWithWillMessage
        } else {
            ReasonCode::Success
        };
        let disconnect = Disconnect {
            reason,
            session_expiry_interval: expiry.filter(|_| v5 && self.profile.expiry > 0),
            ..Disconnect::default()
        };
        self.send(world, &Packet::Disconnect(disconnect));
        let unread = world.unread(link);
        world.cut(link, unread);
        self.lose();
    }
}
