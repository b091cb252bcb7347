//! What must hold when the broker is at rest: everything read, everything answered.

use shardmq::stats::{DropReason, Stats};

use super::{Oracle, Verdict, ensure};
use crate::world::Link;

impl Oracle {
    /// The broker is at rest. `everybody_read`: every session is connected and has read all of it.
    pub fn check_rest(&mut self, stats: &Stats, everybody_read: bool) -> Verdict {
        self.check_connections(stats)?;
        for route in 0..self.routes.len() {
            self.check_route(self.routes[route].serial)?;
        }
        self.routes.clear();
        self.check_queues()?;
        self.check_replays()?;
        self.check_groups(everybody_read)?;
        self.check_gauges(stats)?;
        self.check_counters(stats)?;
        // Everybody knows everything now.
        let mut settled = Vec::new();
        for &key in self.by_client.values() {
            for (filter, subscription) in &mut self.sessions[key].subscriptions {
                subscription.settled = true;
                settled.push(filter.clone());
            }
        }
        settled.iter().for_each(|filter| self.settle_group(filter));
        for values in self.retained.values_mut() {
            if everybody_read && values.len() > 1 {
                values.drain(..values.len() - 1);
            }
        }
        Ok(())
    }

    fn check_connections(&self, stats: &Stats) -> Verdict {
        for (link, conn) in &self.conns {
            ensure!(conn.end.is_none(), "{link:?} should be closed");
            ensure!(conn.connack.is_none(), "{link:?} waits for CONNACK");
            ensure!(conn.owed.is_empty(), "{link:?} waits for {:?}", conn.owed);
            ensure!(
                conn.pubrels.is_empty(),
                "{link:?} waits for PUBREL {:?}",
                conn.pubrels
            );
            ensure!(
                conn.pubcomps.is_empty(),
                "{link:?} waits for PUBCOMP {:?}",
                conn.pubcomps
            );
            ensure!(
                conn.subacks.is_empty(),
                "{link:?} waits for SUBACK {:?}",
                conn.subacks
            );
            ensure!(conn.unsubacks.is_empty(), "{link:?} waits for UNSUBACK");
            ensure!(conn.pings == 0, "{link:?} waits for PINGRESP");
            let (silent_at, _) = self.silent_at(conn);
            ensure!(
                silent_at > self.now,
                "{link:?} is silent for too long and lives"
            );
        }
        for (client, &key) in &self.by_client {
            let session = &self.sessions[key];
            let deadline = session.will_at.min(session.expires_at);
            ensure!(
                session.conn.is_some() || deadline > self.now,
                "the session of {client}, or its will, is overdue"
            );
        }
        let open = self.conns.len() as u64;
        ensure!(
            stats.connections == open,
            "{open} connections, {} counted",
            stats.connections
        );
        Ok(())
    }

    /// Sessions that read have got everything.
    fn check_queues(&mut self) -> Verdict {
        for key in self.by_client.values().copied().collect::<Vec<_>>() {
            let session = &mut self.sessions[key];
            if session.conn.is_none() {
                continue;
            }
            let sent: Vec<u16> = session
                .sent
                .iter()
                .filter(|sent| Some(sent.on) == session.conn)
                .map(|sent| sent.packet_id)
                .collect();
            ensure!(
                sent.is_empty(),
                "{} has not answered {sent:?}",
                session.client
            );
            let unsent = std::mem::take(&mut session.sent);
            let waiting = std::mem::take(&mut session.waiting);
            for sent in unsent {
                self.drop_expected(key, &sent.expected)?;
            }
            for expected in waiting.into_iter().flatten() {
                self.drop_expected(key, &expected)?;
            }
        }
        Ok(())
    }

    fn check_gauges(&self, stats: &Stats) -> Verdict {
        let sessions = self.by_client.len() as u64;
        ensure!(
            stats.sessions == sessions,
            "{sessions} sessions, {} counted",
            stats.sessions
        );
        let live = || self.by_client.values().map(|&key| &self.sessions[key]);
        let connected = live().filter(|session| session.conn.is_some()).count() as u64;
        ensure!(
            stats.clients_connected == connected,
            "{connected} clients connected, {} counted",
            stats.clients_connected
        );
        let filters = || live().flat_map(|session| session.subscriptions.keys());
        let all = filters().count() as u64;
        let shared = filters()
            .filter(|filter| filter.starts_with("$share/"))
            .count() as u64;
        ensure!(
            (stats.subscriptions, stats.shared_subscriptions) == (all, shared),
            "{all} subscriptions, {shared} shared; {} and {} counted",
            stats.subscriptions,
            stats.shared_subscriptions
        );
        let retained: Vec<usize> = self
            .retained_now()
            .filter_map(|(_, value)| value.message)
            .collect();
        let bytes = |message: &usize| {
            let message = &self.messages[*message];
            (message.topic.len() + message.payload.len()) as u64
        };
        let (number, bytes) = (
            retained.len() as u64,
            retained.iter().map(bytes).sum::<u64>(),
        );
        ensure!(
            (stats.retained, stats.retained_bytes) == (number, bytes),
            "{number} retained messages of {bytes} bytes, {} of {} counted",
            stats.retained,
            stats.retained_bytes
        );
        let offline = live().filter(|session| session.conn.is_none()).count();
        if offline == 0 {
            ensure!(
                (stats.queued, stats.queued_bytes) == (0, 0),
                "nothing waits, {} of {} bytes counted",
                stats.queued,
                stats.queued_bytes
            );
        }
        Ok(())
    }

    /// Every message that did not come was counted, and no other.
    fn check_counters(&self, stats: &Stats) -> Verdict {
        let counts = &self.counts;
        for (what, ours, theirs) in [
            (
                "packets received",
                counts.packets_received,
                stats.packets_received.iter().sum(),
            ),
            (
                "publishes received",
                counts.publishes_received,
                stats.publishes_received.iter().sum(),
            ),
            ("takeovers", counts.takeovers, stats.takeovers),
            ("wills", counts.wills, stats.wills_published),
            (
                "sessions expired",
                counts.sessions_expired,
                stats.sessions_expired,
            ),
            ("violations", 0, stats.violations.iter().sum()),
            ("refused", 0, stats.connects_refused.iter().sum()),
        ] {
            ensure!(ours == theirs, "{ours} {what}, {theirs} counted");
        }
        let offline_sessions = self
            .by_client
            .values()
            .any(|&key| self.sessions[key].conn.is_none());
        if counts.inexact || offline_sessions {
            return Ok(());
        }
        let offline = stats.dropped_for(DropReason::Offline);
        let all: u64 = stats.dropped.iter().sum();
        let dropped = all - offline;
        if counts.shared == 0 {
            ensure!(
                offline == counts.offline,
                "{} offline, {offline} counted",
                counts.offline
            );
            let most = counts.dropped + counts.retained_left;
            ensure!(
                (counts.dropped..=most).contains(&dropped),
                "{} to {most} dropped, {:?}",
                counts.dropped,
                stats.dropped
            );
        } else {
            // Who of a group was picked, only the broker knows.
            let least = counts.dropped + counts.offline;
            let most = least + counts.retained_left + counts.shared + counts.shared_left;
            ensure!(
                (least..=most).contains(&all),
                "{least} to {most} dropped, {:?}",
                stats.dropped
            );
        }
        Ok(())
    }

    /// The topics that have something retained, and what.
    pub fn retained_topics(&self) -> Vec<(String, Vec<u8>)> {
        self.retained_now()
            .filter_map(|(topic, value)| {
                Some((
                    topic.to_owned(),
                    self.messages[value.message?].payload.clone(),
                ))
            })
            .collect()
    }

    /// The connection that owns the session of a client.
    pub fn connection_of(&self, client: &str) -> Option<Link> {
        self.by_client
            .get(client)
            .and_then(|&key| self.sessions[key].conn)
    }

    /// Whether every session has a connection.
    pub fn is_everybody_connected(&self) -> bool {
        self.by_client
            .values()
            .all(|&key| self.sessions[key].conn.is_some())
    }
}
