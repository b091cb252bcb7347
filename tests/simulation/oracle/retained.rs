//! Retained messages: what is kept, and who is told.

use shardmq::time::Time;
use shardmq::wire::QoS;

use super::{Expected, Oracle, Replay, Route, Verdict, class, ensure, matches};
use crate::world::Passing;

/// What a topic had from a moment on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    /// When it was kept.
    pub(super) stamp: u64,
    /// The serial of its way.
    pub(super) serial: u64,
    /// `None` where it was removed.
    pub(super) message: Option<usize>,
    /// The shard of its publisher.
    from: usize,
}

/// A retained message as a session got it. Before version 5 there are no identifiers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    topic: String,
    message: usize,
    qos: QoS,
    identifiers: Option<Vec<u32>>,
}

impl Oracle {
    /// The keeper of its topic keeps the message.
    pub(super) fn keep(&mut self, route: usize) {
        let stamp = self.stamp;
        let route = &mut self.routes[route];
        route.kept = true;
        let message = &self.messages[route.message];
        self.retained
            .entry(message.topic.clone())
            .or_default()
            .push(Value {
                stamp,
                serial: route.serial,
                message: (!message.payload.is_empty()).then_some(route.message),
                from: route.shard,
            });
    }

    pub(super) fn on_kept(&mut self, from: usize, to: usize, passing: &Passing) -> Verdict {
        ensure!(
            self.home(&passing.topic) == to,
            "{to} keeps what is not its own: {passing:?}"
        );
        let found = self.routes.iter().position(|route| {
            route.shard == from
                && !route.kept
                && self.messages[route.message].retain
                && self.is_passing(route.message, passing)
        });
        let Some(route) = found else {
            return Err(format!("nobody on shard {from} retained {passing:?}"));
        };
        let Route {
            serial, optional, ..
        } = self.routes[route];
        let older = self.retained.get(&passing.topic).into_iter().flatten();
        let overtaken = older
            .filter(|value| value.from == from)
            .any(|value| value.serial > serial);
        ensure!(
            !overtaken || optional,
            "retained messages of {} changed places",
            passing.topic
        );
        self.keep(route);
        Ok(())
    }

    /// What every topic has now.
    pub(super) fn retained_now(&self) -> impl Iterator<Item = (&str, Value)> {
        self.retained.iter().filter_map(|(topic, values)| {
            let last = values.last().filter(|value| value.message.is_some())?;
            Some((topic.as_str(), *last))
        })
    }

    /// A PUBLISH with RETAIN 1 that was not expected live: is it a retained message that a
    /// subscription brings?
    pub(super) fn take_replayed(
        &mut self,
        session: usize,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        identifiers: Option<&[u32]>,
    ) -> Result<Option<Expected>, String> {
        let stamp = self.stamp;
        let values = self.retained.get(topic).cloned().unwrap_or_default();
        let state = &self.sessions[session];
        let mut found = None;
        let mut most = 0;
        for replay in state
            .replays
            .iter()
            .filter(|replay| matches(&replay.filter, topic))
        {
            let end = replay.cancelled.unwrap_or(stamp);
            // A value that the topic had at some time since.
            let value = values.iter().enumerate().rev().find_map(|(at, value)| {
                let until = values.get(at + 1).map_or(u64::MAX, |next| next.stamp);
                let message = value.message?;
                (value.stamp <= end && until >= replay.start && self.is(message, topic, payload))
                    .then_some((*value, message))
            });
            let Some((value, message)) = value else {
                continue;
            };
            let due = replay.qos.min(self.messages[message].qos);
            let fits = identifiers.is_none_or(|identifiers| identifiers == replay.identifiers());
            if qos != due || !fits {
                continue;
            }
            most += 1;
            // Not older than what came live meanwhile.
            let latest = state.latest.get(&(topic.to_owned(), class(qos)));
            let newer = latest.filter(|(_, came)| *came > replay.start);
            let newer = newer.and_then(|(serial, _)| {
                values
                    .iter()
                    .find(|live| live.serial == *serial && live.from == value.from)
            });
            ensure!(
                newer.is_none_or(|newer| {
                    newer.serial <= value.serial || newer.message == value.message
                }),
                "{} got a newer message on {topic} before",
                state.client
            );
            found = Some((value, message));
        }
        let Some((value, message)) = found else {
            return Ok(None);
        };
        let identifiers = identifiers.map(<[u32]>::to_vec);
        let replayed = Replayed {
            topic: topic.to_owned(),
            message,
            qos,
            identifiers: identifiers.clone(),
        };
        // One for each subscription that it fits.
        if state
            .replayed
            .iter()
            .filter(|before| **before == replayed)
            .count()
            >= most
        {
            return Ok(None);
        }
        self.sessions[session].replayed.push(replayed);
        Ok(Some(Expected {
            message,
            serial: value.serial,
            stamp,
            qos,
            retain: true,
            identifiers: identifiers.unwrap_or_default(),
            expires_at: Time::NEVER,
            optional: false,
            group: None,
        }))
    }

    /// At rest: every session that reads has got everything that its subscriptions bring.
    pub(super) fn check_replays(&mut self) -> Verdict {
        let overflow = self.queues_overflow();
        let retained: Vec<(String, Value)> = self
            .retained_now()
            .map(|(topic, value)| (topic.to_owned(), value))
            .collect();
        for key in self.by_client.values().copied().collect::<Vec<_>>() {
            let session = &mut self.sessions[key];
            let Some(conn) = session.conn.and_then(|link| self.conns.get(&link)) else {
                continue;
            };
            let v5 = conn.version.is_v5();
            session.either.clear();
            let mut replayed = std::mem::take(&mut session.replayed);
            for replay in std::mem::take(&mut session.replays) {
                if overflow {
                    // Any of them may have made room for another.
                    let topics = self.retained.keys();
                    let topics = topics.filter(|topic| matches(&replay.filter, topic));
                    self.counts.retained_left += topics.count() as u64;
                }
                if overflow || replay.cancelled.is_some() {
                    continue;
                }
                for (topic, value) in &retained {
                    let due = value.stamp <= replay.start
                        && !replay.seen.contains(topic)
                        && matches(&replay.filter, topic);
                    let Some(message) = value.message.filter(|_| due) else {
                        continue;
                    };
                    let wanted = Replayed {
                        topic: topic.clone(),
                        message,
                        qos: replay.qos.min(self.messages[message].qos),
                        identifiers: v5.then(|| replay.identifiers()),
                    };
                    match replayed.iter().position(|came| *came == wanted) {
                        Some(position) => drop(replayed.swap_remove(position)),
                        None => {
                            let (client, filter) = (&session.client, &replay.filter);
                            return Err(format!(
                                "{client} did not get what is retained on {topic} for {filter}"
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Replay {
    fn identifiers(&self) -> Vec<u32> {
        Some(self.identifier)
            .filter(|&identifier| identifier != 0)
            .into_iter()
            .collect()
    }
}
