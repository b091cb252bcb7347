//! The way of a message to everybody who wants it.

use std::collections::BTreeSet;

use shardmq::time::Time;
use shardmq::wire::QoS;

use super::{Expected, Oracle, Route, Verdict, class, ensure, matches, shared_filter};
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
        let Route { serial, message, expires_at, optional, .. } = self.routes[route];
        let Self { messages, sessions, by_client, now, settings, counts, .. } = self;
        let message_of = &messages[message];
        let mut matched = false;
        for &key in by_client.values() {
            let session = &mut sessions[key];
            if session.shard != shard {
                continue;
            }
            let mut wanted = None::<(QoS, bool, Vec<u32>)>;
            for (filter, subscription) in &session.subscriptions {
                if shared_filter(filter).is_some() || !matches(filter, &message_of.topic) {
                    continue;
                }
                matched = true;
                if subscription.options.no_local && publisher == Some(key) {
                    continue; // [MQTT-3.8.3-3]
                }
                let (qos, retain, identifiers) = wanted.get_or_insert_default();
                *qos = subscription.options.qos.max(*qos);
                *retain |= subscription.options.retain_as_published;
                if subscription.identifier != 0 {
                    identifiers.push(subscription.identifier);
                }
            }
            let Some((qos, retain, mut identifiers)) = wanted else { continue };
            identifiers.sort_unstable();
            if message_of.retain {
                session.replays.iter_mut().filter(|replay| replay.cancelled.is_none()).for_each(
                    |replay| {
                        replay.seen.insert(message_of.topic.clone());
                    },
                );
            }
            let qos = qos.min(message_of.qos);
            if expires_at < *now {
                counts.dropped += 1;
                continue;
            }
            if qos == QoS::AtMostOnce && session.conn.is_none() && !settings.queue_qos0 {
                counts.offline += 1;
                continue;
            }
            session.waiting[class(qos)].push_back(Expected {
                message,
                serial,
                qos,
                retain: message_of.retain && retain,
                identifiers,
                expires_at,
                optional,
                group: None,
            });
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
                && route.serial > last
                && !route.visited.contains(&to)
                && route.expires_at == passing.expires_at
                && self.is(route.message, &passing.topic, &passing.payload)
        });
        let Some(route) = found else {
            return Err(format!("shard {from} made up, repeated or reordered {passing:?} for {to}"));
        };
        self.arrived.insert((from, to), self.routes[route].serial);
        self.routes[route].visited.insert(to);
        self.deliver(to, None, route);
        Ok(())
    }

    /// The message of this serial was acknowledged, or the broker is at rest: everybody whose
    /// SUBACK had left before has it.
    pub(super) fn check_route(&self, serial: u64) -> Verdict {
        let Some(route) = self.routes.iter().rev().find(|route| route.serial == serial) else {
            return Ok(());
        };
        let message = &self.messages[route.message];
        for (session, filter, stamp) in &route.needs {
            let state = &self.sessions[*session];
            let same = state.subscriptions.get(filter).is_some_and(|now| now.stamp == *stamp);
            if state.ended || !same || shared_filter(filter).is_some() {
                continue;
            }
            // A message that was published twice looks the same both times: enough of them came.
            let same = |other: &&Route| {
                other.serial <= serial && self.is(other.message, &message.topic, &message.payload)
            };
            let shard = state.shard;
            let needed = |other: &&Route| {
                other.needs.iter().any(|(session, ..)| self.sessions[*session].shard == shard)
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

    pub(super) fn is_too_large(&self, session: usize, expected: &Expected) -> bool {
        let size = self.messages[expected.message].payload.len();
        size + 40 > self.sessions[session].maximum_packet_size
    }

    /// Whether there is a reason not to deliver a message.
    pub(super) fn may_drop(&self, session: usize, expected: &Expected) -> bool {
        let queued = expected.qos > QoS::AtMostOnce || self.settings.queue_qos0;
        let slow = expected.qos == QoS::AtMostOnce && self.settings.max_output_bytes < 10_000;
        expected.optional
            || expected.expires_at < self.now
            || self.is_too_large(session, expected)
            || (queued && self.queues_overflow())
            || slow
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
