//! Retained messages: what is kept, and who is told.

use shardmq::wire::QoS;

use super::{Expected, Oracle, Route, Verdict, class, ensure, matches};
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

impl Oracle {
    /// The keeper of its topic keeps the message.
    pub(super) fn keep(&mut self, route: usize) {
        let stamp = self.stamp;
        let route = &mut self.routes[route];
        route.kept = true;
        let message = &self.messages[route.message];
        self.retained.entry(message.topic.clone()).or_default().push(Value {
            stamp,
            serial: route.serial,
            message: (!message.payload.is_empty()).then_some(route.message),
            from: route.shard,
        });
    }

    pub(super) fn on_kept(&mut self, from: usize, to: usize, passing: &Passing) -> Verdict {
        ensure!(self.home(&passing.topic) == to, "{to} keeps what is not its own: {passing:?}");
        let found = self.routes.iter().position(|route| {
            route.shard == from
                && !route.kept
                && self.messages[route.message].retain
                && self.is_passing(route.message, passing)
        });
        let Some(route) = found else {
            return Err(format!("nobody on shard {from} retained {passing:?}"));
        };
        let Route { serial, optional, .. } = self.routes[route];
        let older = self.retained.get(&passing.topic).into_iter().flatten();
        let overtaken = older.filter(|value| value.from == from).any(|value| value.serial > serial);
        ensure!(!overtaken || optional, "retained messages of {} changed places", passing.topic);
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
        let mut best = None::<((bool, bool), usize, Value, usize, Vec<u32>)>;
        for (index, replay) in self.sessions[session].replays.iter().enumerate() {
            let end = replay.cancelled.unwrap_or(stamp);
            if !matches(&replay.filter, topic) || replay.delivered.contains(topic) {
                continue;
            }
            // A value that the topic had at some time since.
            let value = values.iter().enumerate().find_map(|(at, value)| {
                let until = values.get(at + 1).map_or(u64::MAX, |next| next.stamp);
                let message = value.message?;
                (value.stamp <= end && until >= replay.start && self.is(message, topic, payload))
                    .then_some((*value, message))
            });
            let Some((value, message)) = value else { continue };
            let due = replay.qos.min(self.messages[message].qos);
            let wanted = if replay.identifier == 0 { vec![] } else { vec![replay.identifier] };
            if qos != due || identifiers.is_some_and(|identifiers| identifiers != wanted) {
                continue;
            }
            // Where it fits several, it is for the one that must get it; what an order that was
            // cancelled has left in the queue may still come, too.
            let must = value.stamp <= replay.start && !replay.seen.contains(topic);
            let rank = (replay.cancelled.is_some(), !must);
            if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
                best = Some((rank, index, value, message, wanted));
            }
        }
        if let Some((_, index, value, message, wanted)) = best {
            // Not older than what came live.
            let latest = self.sessions[session].latest.get(&(topic.to_owned(), class(qos)));
            let newer = latest.and_then(|serial| {
                values.iter().find(|live| live.serial == *serial && live.from == value.from)
            });
            ensure!(
                newer.is_none_or(|newer| {
                    newer.serial <= value.serial || newer.message == value.message
                }),
                "{} got a newer message on {topic} before",
                self.sessions[session].client
            );
            self.sessions[session].replays[index].delivered.insert(topic.to_owned());
            return Ok(Some(Expected {
                message,
                serial: value.serial,
                qos,
                retain: true,
                identifiers: wanted,
                expires_at: shardmq::time::Time::NEVER,
                optional: false,
                group: None,
            }));
        }
        Ok(None)
    }

    /// At rest: every replay of a session that reads is complete.
    pub(super) fn check_replays(&mut self) -> Verdict {
        let overflow = self.queues_overflow();
        let retained: Vec<(String, Value)> =
            self.retained_now().map(|(topic, value)| (topic.to_owned(), value)).collect();
        for key in self.by_client.values().copied().collect::<Vec<_>>() {
            let session = &mut self.sessions[key];
            if session.conn.is_none() {
                continue;
            }
            for replay in std::mem::take(&mut session.replays) {
                if replay.cancelled.is_some() {
                    continue;
                }
                for (topic, value) in &retained {
                    let had = replay.delivered.contains(topic) || replay.seen.contains(topic);
                    if overflow && !had {
                        self.counts.retained_left += 1; // it may have made room
                        continue;
                    }
                    ensure!(
                        had || value.stamp > replay.start || !matches(&replay.filter, topic),
                        "{} did not get what is retained on {topic} for {}",
                        session.client,
                        replay.filter
                    );
                }
            }
        }
        Ok(())
    }
}
