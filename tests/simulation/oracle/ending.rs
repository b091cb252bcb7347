//! The end of connections and sessions, wills, and what time does.

use shardmq::session::NEVER_EXPIRES;
use shardmq::time::Time;
use shardmq::wire::ReasonCode;

use super::{End, Oracle, Verdict, matches};
use crate::world::Link;

/// What is due on a shard.
enum Due {
    Silent(Link, ReasonCode),
    Session(usize),
}

impl Oracle {
    /// A connection is over.
    pub(super) fn close(&mut self, link: Link, end: End, without_will: bool) {
        let Some(conn) = self.conns.get_mut(&link) else {
            return;
        };
        if conn.end.is_some() {
            return;
        }
        conn.end = Some(end);
        if let Some(session) = conn.session {
            self.leave_session(session, without_will, false);
        }
    }

    fn leave_session(&mut self, key: usize, without_will: bool, optional: bool) {
        let now = self.now;
        let session = &mut self.sessions[key];
        session.conn = None;
        if without_will {
            session.will = None;
        }
        session.expires_at = match session.expiry {
            NEVER_EXPIRES => Time::NEVER,
            seconds => now.plus_secs(seconds.into()),
        };
        let delay = session.will.as_ref().map(|will| will.delay);
        session.will_at = delay.map_or(Time::NEVER, |delay| now.plus_secs(delay.into()));
        if session.expiry == 0 {
            self.publish_will(key, optional);
            self.end_session(key);
        } else if delay == Some(0) {
            self.publish_will(key, optional); // [MQTT-3.1.2-8]
        }
    }

    fn publish_will(&mut self, key: usize, optional: bool) {
        let session = &mut self.sessions[key];
        session.will_at = Time::NEVER;
        let shard = session.shard;
        if let Some(will) = session.will.take() {
            self.counts.wills += 1;
            self.publish(shard, None, will.message, Time::NEVER, optional);
        }
    }

    /// A session is over: its will first, then its subscriptions and messages.
    pub(super) fn end_session(&mut self, key: usize) {
        self.publish_will(key, false);
        let session = &mut self.sessions[key];
        session.ended = true;
        let subscriptions = std::mem::take(&mut session.subscriptions);
        let client = session.client.clone();
        self.by_client.remove(&client);
        for filter in subscriptions.keys() {
            self.leave_group(filter);
        }
        self.ended.push(key);
    }

    /// The packets of the turn have left: what a session that ended in it has not got, it never
    /// will.
    pub(super) fn finish_ended(&mut self, shard: usize) {
        for key in std::mem::take(&mut self.ended) {
            if self.sessions[key].shard != shard {
                self.ended.push(key);
                continue;
            }
            let session = &mut self.sessions[key];
            let sent = std::mem::take(&mut session.sent);
            let waiting = std::mem::take(&mut session.waiting);
            let replays = std::mem::take(&mut session.replays);
            session.latest.clear();
            session.replayed.clear();
            for replay in replays {
                let topics = self.retained.keys();
                let topics = topics.filter(|topic| matches(&replay.filter, topic));
                self.counts.retained_left += topics.count() as u64;
            }
            for sent in sent.iter().filter(|sent| !sent.released) {
                if sent.expected.group.is_some() {
                    self.left_by_member(sent);
                } else {
                    self.counts.dropped += 1;
                }
            }
            for expected in waiting.iter().flatten() {
                if expected.optional {
                    self.counts.inexact = true;
                } else {
                    self.counts.dropped += 1;
                }
            }
        }
    }

    /// A shard did what was due. Where that is more than one thing, the order is the broker's choice.
    pub(super) fn on_tick(&mut self, shard: usize) -> Verdict {
        let mut due = Vec::new();
        for (&link, conn) in &self.conns {
            if conn.shard != shard || conn.end.is_some() {
                continue;
            }
            let (at, reason) = self.silent_at(conn);
            if at <= self.now {
                due.push((at, Due::Silent(link, reason)));
            }
        }
        for &key in self.by_client.values() {
            let session = &self.sessions[key];
            let at = session.will_at.min(session.expires_at);
            if session.shard == shard && session.conn.is_none() && at <= self.now {
                due.push((at, Due::Session(key)));
            }
        }
        due.sort_by_key(|(at, _)| *at);
        let tie = due.len() > 1;
        if tie {
            self.counts.inexact = true;
            let live = self
                .by_client
                .values()
                .map(|&key| (key, &self.sessions[key]));
            let live = live.filter(|(_, state)| state.shard == shard && state.conn.is_some());
            self.tie = live
                .map(|(key, state)| (key, state.subscriptions.clone()))
                .collect();
        }
        for (_, due) in due {
            match due {
                Due::Silent(link, reason) => self.end_silent(link, reason, tie),
                Due::Session(key) => {
                    let expired = self.sessions[key].expires_at <= self.now;
                    self.publish_will(key, tie);
                    if expired {
                        self.counts.sessions_expired += 1;
                        self.end_session(key); // [MQTT-4.1.0-2]
                    }
                }
            }
        }
        self.tie.clear();
        Ok(())
    }

    fn end_silent(&mut self, link: Link, reason: ReasonCode, tie: bool) {
        let Some(conn) = self.conns.get_mut(&link) else {
            return;
        };
        conn.end = Some(End::Told(reason));
        if let Some(session) = conn.session {
            self.leave_session(session, false, tie);
        }
    }

    /// When a connection has been silent for too long, and what it is told then.
    pub(super) fn silent_at(&self, conn: &super::Conn) -> (Time, ReasonCode) {
        if conn.session.is_none() {
            let at = conn.opened_at.plus_millis(self.settings.connect_timeout_ms);
            return (at, ReasonCode::MaximumConnectTime);
        }
        let at = match conn.keep_alive_us {
            0 => Time::NEVER,
            limit => conn.last_packet.plus_micros(limit), // [MQTT-3.1.2-22]
        };
        (at, ReasonCode::KeepAliveTimeout)
    }
}
