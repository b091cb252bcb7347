//! What happens because time passes.

use crate::session::Phase;
use crate::time::Time;

use super::close::Ending;
use super::tables::TimerKey;
use super::{ConnKey, Fault, Outbox, Shard};

/// Deadlines that one call works off, so that a storm of them does not hold the shard.
const BATCH: usize = 1024;

/// Retained messages that one call lets expire.
const EXPIRED_BATCH: usize = 4096;

impl Shard {
    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Time, out: &mut Outbox) {
        for _ in 0..BATCH {
            let Some(key) = self.timers.pop(now) else {
                return;
            };
            match key {
                TimerKey::Connection(conn) => self.connection_due(conn, now, out),
                TimerKey::Session(session) => {
                    let Some(state) = self.sessions.get_mut(session) else {
                        continue;
                    };
                    state.timer = Time::NEVER;
                    if state.expires_at <= now {
                        self.stats.sessions_expired += 1;
                        self.end_session(session, now, out); // [MQTT-4.1.0-2]
                    } else if state.will_at <= now {
                        self.publish_will(session, now, out); // [MQTT-3.1.2-8]
                        self.arm_session(session);
                    } else {
                        self.arm_session(session);
                    }
                }
                TimerKey::Housekeeping => self.housekeep(now, out),
                TimerKey::History => self.history_due(now),
            }
        }
        out.again = true;
    }

    /// The deadline of a connection has come: looked at again, because packets do not move it.
    fn connection_due(&mut self, conn: ConnKey, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        connection.timer = Time::NEVER;
        if connection.ends_at > now && self.go_on(conn, now, out) {
            return;
        }
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        let fault = match connection.phase {
            Phase::Handshake | Phase::Authenticating(_) => Fault::ConnectTimeout,
            Phase::Connected(_) => Fault::KeepAliveTimeout, // [MQTT-3.1.2-22]
        };
        let due_at = connection.due_at();
        if fault == Fault::KeepAliveTimeout && due_at > now {
            connection.timer = self
                .timers
                .move_to(TimerKey::Connection(conn), Time::NEVER, due_at);
            return;
        }
        let over = fault == Fault::KeepAliveTimeout && connection.ends_at <= now;
        let fault = if over { Fault::GrantExpired } else { fault };
        self.stats.keep_alive_timeouts += u64::from(fault == Fault::KeepAliveTimeout);
        self.disconnect(conn, Ending::fault(fault), now, out);
    }

    /// Once a second: retained messages that are too old, and `$SYS`.
    fn housekeep(&mut self, now: Time, out: &mut Outbox) {
        for _ in 0..EXPIRED_BATCH {
            let Some(expired) = self.retained.expire(now) else {
                break;
            };
            self.store.clear_retained(expired.stored()); // [MQTT-3.3.2-5]
        }
        self.tend_history(now, out);
        let interval = u64::from(self.settings.sys_interval);
        if interval > 0 && self.sys.is_due(now, interval) {
            self.report(now, out);
        }
        self.housekeeping =
            self.timers
                .move_to(TimerKey::Housekeeping, Time::NEVER, now.plus_secs(1));
    }
}
