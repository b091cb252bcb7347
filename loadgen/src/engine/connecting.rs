//! What a client says to be let in and to go: CONNECT, SUBSCRIBE, PINGREQ, DISCONNECT.

use std::sync::Arc;

use shardmq::topic::Name;
use shardmq::wire::{
    Connect, ConnectProperties, Disconnect, Forwarded, PacketId, QoS, Subscribe, SubscribeFilters,
    SubscriptionOptions, UserProperties, Will, encode_pingreq,
};

use crate::plan::Topics;

use super::client::Phase;
use super::core::Core;
use super::fleet::{OFFLINE, VEHICLES};

impl Core {
    /// CONNECT.
    pub(super) fn connect(&mut self, index: u32, now: u64) {
        let plan = Arc::clone(&self.plan);
        let client = &mut self.clients[index as usize];
        client.phase = Phase::Connecting;
        client.began_ns = now;
        let id = plan.client_id(usize::from(client.group), client.number);
        self.tally.counts.connects_started += 1;
        self.open += 1;
        let state = format!("vehicle/{}/state", client.number + 1);
        let is_vehicle = plan.fleet.is_some() && client.group == VEHICLES;
        let will = Name::parse(&state)
            .ok()
            .filter(|_| is_vehicle)
            .map(|topic| Will {
                topic,
                payload: OFFLINE,
                qos: QoS::AtLeastOnce,
                retain: true,
                delay_interval: 0,
                message_expiry_interval: None,
                forwarded: Forwarded::default(),
            });
        let connect = Connect {
            version: plan.version,
            clean_start: plan.clean_start,
            keep_alive: plan.keep_alive,
            client_id: &id,
            will,
            username: plan.username.as_deref(),
            password: plan.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_interval: plan.session_expiry,
                ..ConnectProperties::default()
            },
        };
        connect.encode(self.pending(index));
    }

    /// There was no socket for `index`.
    pub(super) fn could_not_connect(&mut self, index: u32, text: String) {
        self.tally.counts.connects_started += 1;
        self.tally.counts.connect_failed += 1;
        self.tally.error(text);
        let client = &mut self.clients[index as usize];
        if !client.counted {
            client.counted = true;
            self.failed += 1;
        }
    }

    /// SUBSCRIBE to everything that `index` is to hear.
    pub(super) fn subscribe(&mut self, index: u32) {
        let plan = Arc::clone(&self.plan);
        let client = &mut self.clients[index as usize];
        client.phase = Phase::Subscribing;
        let group = usize::from(client.group);
        let number = client.number;
        let Some(subscribing) = &plan.groups[group].subscribing else {
            return;
        };
        let id = plan.client_id(group, number);
        let user = plan.username.as_deref().unwrap_or_default();
        let topics = match subscribing.topics {
            Topics::Own(topics) => number % topics + 1..number % topics + 2,
            Topics::All(topics) => 1..topics + 1,
        };
        let options = SubscriptionOptions {
            qos: subscribing.qos,
            ..SubscriptionOptions::default()
        };
        let mut filters = Vec::new();
        for topic in topics {
            let filter = subscribing.filter.fill(topic, &id, user);
            SubscribeFilters::push(plan.version, &filter, options, &mut filters);
        }
        let subscribe = Subscribe {
            packet_id: PacketId::MAX,
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_bytes(plan.version, &filters),
        };
        subscribe.encode(plan.version, self.pending(index));
    }

    /// PINGREQ.
    pub(super) fn ping(&mut self, index: u32) {
        encode_pingreq(self.pending(index));
    }

    /// DISCONNECT of every client that is there.
    pub(super) fn disconnect_all(&mut self) {
        let version = self.plan.version;
        let disconnect = Disconnect {
            // The sessions of a fleet outlive its tunnel, not its run.
            session_expiry_interval: (self.fleet.is_some() && version.is_v5()).then_some(0),
            ..Disconnect::default()
        };
        for index in 0..u32::try_from(self.clients.len()).unwrap_or(u32::MAX) {
            if matches!(
                self.clients[index as usize].phase,
                Phase::Subscribing | Phase::Ready
            ) {
                disconnect.encode(version, self.pending(index));
                self.clients[index as usize].phase = Phase::Leaving;
            }
        }
    }
}
