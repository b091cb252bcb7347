//! The way of a message to everybody who wants it.

use std::collections::{BTreeMap, BTreeSet};

use shardmq::time::Time;
use shardmq::wire::QoS;

use super::{
    Expected, Message, Oracle, Route, Subscription, Verdict, class, ensure, matches, shared_filter,
};
use crate::world::Passing;

impl Oracle {
    /// A message enters the broker on `shard`. Returns its serial, and whether somebody who is sure
    /// to want it is there.
    pub(super) fn publish(
        &mut self,
        shard: usize,
        publisher: Option<usize>,
        message: usize,
        expires_at: Time,
        optional: bool,
    ) -> (u64, bool) {
        self.serial += 1;
        let serial = self.serial;
        *self.ways.entry(message).or_default() += 1;
        let mut needs = Vec::new();
        for &session in self.by_client.values() {
            let state = &self.sessions[session];
            if state.shard == shard {
                continue;
            }
            for (filter, subscription) in &state.subscriptions {
                if subscription.settled && matches(filter, &self.messages[message].topic) {
                    needs.push((session, filter.clone(), subscription.stamp));
                }
            }
        }
        let mut matched = !needs.is_empty();
        self.routes.push(Route {
            serial,
            shard,
            message,
            expires_at,
            visited: BTreeSet::new(),
            needs,
            kept: false,
            optional,
        });
        matched |= self.deliver(shard, publisher, self.routes.len() - 1);
        matched |= self.publish_shared(message);
        if self.messages[message].retain && self.home(&self.messages[message].topic) == shard {
            let route = self.routes.len() - 1;
            self.keep(route);
        }
        (serial, matched)
    }

    /// A message reaches every session of one shard that wants it now.
    fn deliver(&mut self, shard: usize, publisher: Option<usize>, route: usize) -> bool {
        let Route {
            message,
            expires_at,
            optional,
            ..
        } = self.routes[route];
        let mut matched = false;
        for key in self.by_client.values().copied().collect::<Vec<_>>() {
            let session = &self.sessions[key];
            if session.shard != shard {
                continue;
            }
            let publishes = publisher == Some(key);
            let found = self.wanted(&session.subscriptions, route, publishes);
            matched |= found.is_some();
            let Some(Some(expected)) = found else {
                continue;
            };
            let Self {
                messages,
                sessions,
                now,
                settings,
                counts,
                ..
            } = self;
            let session = &mut sessions[key];
            if messages[message].retain {
                let open = session
                    .replays
                    .iter_mut()
                    .filter(|replay| replay.cancelled.is_none());
                open.for_each(|replay| {
                    replay.seen.insert(messages[message].topic.clone());
                });
            }
            let offline =
                expected.qos == QoS::AtMostOnce && session.conn.is_none() && !settings.queue_qos0;
            if expires_at < *now {
                counts.dropped += 1;
            } else if offline {
                counts.offline += 1;
            } else {
                session.waiting[class(expected.qos)].push_back(expected);
            }
        }
        // Who goes at the same moment may have got it before.
        for (key, subscriptions) in &self.tie {
            let Some(Some(expected)) = self.wanted(subscriptions, route, false) else {
                continue;
            };
            let session = &mut self.sessions[*key];
            let missed = session.ended || expected.qos == QoS::AtMostOnce;
            if optional && session.conn.is_none() && missed {
                session.waiting[class(expected.qos)].push_back(expected);
            }
        }
        matched
    }

    /// What a session with these subscriptions gets: nothing, nothing because it published it
    /// itself, or one copy with the highest QoS and all identifiers.
    fn wanted(
        &self,
        subscriptions: &BTreeMap<String, Subscription>,
        route: usize,
        publishes: bool,
    ) -> Option<Option<Expected>> {
        let Route {
            serial,
            message,
            expires_at,
            optional,
            ..
        } = self.routes[route];
        let Message {
            topic,
            qos: published,
            retain,
            ..
        } = &self.messages[message];
        let mut matched = None;
        for (filter, subscription) in subscriptions {
            if shared_filter(filter).is_some() || !matches(filter, topic) {
                continue;
            }
            let copy = matched.get_or_insert(None::<Expected>);
            if subscription.options.no_local && publishes {
                continue; // [MQTT-3.8.3-3]
            }
            let copy = copy.get_or_insert_with(|| Expected {
                message,
                serial,
                stamp: self.stamp,
                qos: QoS::AtMostOnce,
                retain: false,
                identifiers: Vec::new(),
                expires_at,
                optional,
                group: None,
            });
            copy.qos = copy.qos.max(subscription.options.qos);
            copy.retain |= subscription.options.retain_as_published && *retain;
            copy.identifiers
                .extend(Some(subscription.identifier).filter(|&number| number != 0));
        }
        if let Some(Some(copy)) = &mut matched {
            copy.qos = copy.qos.min(*published);
            copy.identifiers.sort_unstable();
        }
        matched
    }

    /// A shard takes a message from another one.
    pub(super) fn on_arrival(&mut self, from: usize, to: usize, passing: &Passing) -> Verdict {
        if passing.group.is_some() {
            let known = self.known.contains_key(&passing.payload) || passing.payload.is_empty();
            ensure!(known, "nobody published {passing:?}");
            return Ok(());
        }
        let last = self.arrived.get(&(from, to)).copied().unwrap_or(0);
        let found = self.routes.iter().position(|route| {
            route.shard == from
                && (route.serial > last || route.optional)
                && !route.visited.contains(&to)
                && route.expires_at == passing.expires_at
                && self.is_passing(route.message, passing)
        });
        let Some(route) = found else {
            return Err(format!(
                "shard {from} made up, repeated or reordered {passing:?} for {to}"
            ));
        };
        self.arrived
            .insert((from, to), self.routes[route].serial.max(last));
        self.routes[route].visited.insert(to);
        self.deliver(to, None, route);
        Ok(())
    }

    /// The message of this serial was acknowledged, or the broker is at rest: everybody whose
    /// SUBACK had left before has it.
    pub(super) fn check_route(&self, serial: u64) -> Verdict {
        let Some(route) = self
            .routes
            .iter()
            .rev()
            .find(|route| route.serial == serial)
        else {
            return Ok(());
        };
        let message = &self.messages[route.message];
        for (session, filter, stamp) in &route.needs {
            let state = &self.sessions[*session];
            let same = state
                .subscriptions
                .get(filter)
                .is_some_and(|now| now.stamp == *stamp);
            if state.ended || !same || shared_filter(filter).is_some() {
                continue;
            }
            // A message that was published twice looks the same both times: enough of them came.
            let same = |other: &&Route| {
                other.serial <= serial
                    && other.shard == route.shard
                    && self.is(other.message, &message.topic, &message.payload)
            };
            let shard = state.shard;
            let needed = |other: &&Route| {
                other
                    .needs
                    .iter()
                    .any(|(session, ..)| self.sessions[*session].shard == shard)
            };
            let due = self.routes.iter().filter(same).filter(needed).count();
            let came = self.routes.iter().filter(same);
            let came = came.filter(|other| other.visited.contains(&shard)).count();
            ensure!(
                came >= due,
                "{} subscribed to {filter} before, and {:?} never came to its shard",
                state.client,
                message.topic
            );
        }
        let home = self.home(&message.topic);
        ensure!(
            !message.retain || route.kept || home == route.shard,
            "{:?} is acknowledged and not retained",
            message.topic
        );
        Ok(())
    }

    /// Whether this is the message that passes from one shard to another.
    pub(super) fn is_passing(&self, message: usize, passing: &Passing) -> bool {
        let Message { qos, retain, .. } = self.messages[message];
        self.is(message, &passing.topic, &passing.payload)
            && (qos, retain) == (passing.qos, passing.retain)
    }

    pub(super) fn is_too_large(&self, session: usize, expected: &Expected) -> bool {
        let size = self.messages[expected.message].payload.len();
        size + 40 > self.sessions[session].maximum_packet_size
    }

    /// Whether there is a reason not to deliver a message.
    pub(super) fn may_drop(&self, session: usize, expected: &Expected) -> bool {
        expected.optional
            || expected.expires_at < self.now
            || self.is_too_large(session, expected)
            || self.drops_at_will(class(expected.qos))
    }

    /// Whether full queues or slow readers can cost messages of this class.
    pub(super) fn drops_at_will(&self, class: usize) -> bool {
        let slow = class == 0 && self.settings.max_output_bytes < 10_000;
        self.queues_overflow() || slow
    }

    /// A message that was expected has not come, and must be counted as dropped.
    pub(super) fn drop_expected(&mut self, session: usize, expected: &Expected) -> Verdict {
        let fair = self.may_drop(session, expected);
        let message = &self.messages[expected.message];
        ensure!(
            fair,
            "{} did not get {:?} {} ({:?}), or got it out of order",
            self.sessions[session].client,
            message.topic,
            String::from_utf8_lossy(&message.payload),
            expected
        );
        if expected.optional {
            self.counts.inexact = true;
        } else {
            self.counts.dropped += 1;
        }
        Ok(())
    }
}
