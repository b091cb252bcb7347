//! What the shard tells the log, each kind at a bounded rate: a fleet that reconnects must not
//! drown the line that says why.

use std::fmt::Display;
use std::net::SocketAddr;

use crate::limits::{LOG_LINES, LOG_PERIOD_MS};
use crate::shard::{Cause, Event};
use crate::time::Time;
use crate::wire::ReasonCode;

/// Lets [`LOG_LINES`] lines through in each [`LOG_PERIOD_MS`], and counts the others.
#[derive(Debug, Default)]
struct Limiter {
    period_ends: Time,
    lines: u32,
    suppressed: u64,
    suppressed_in_all: u64,
}

impl Limiter {
    /// Whether one more line may be written. If some were not, they are told first.
    fn admit(&mut self, now: Time, what: &'static str) -> bool {
        if now >= self.period_ends {
            self.period_ends = now.plus_millis(LOG_PERIOD_MS);
            self.lines = 0;
            let suppressed = std::mem::take(&mut self.suppressed);
            if suppressed > 0 {
                tracing::warn!(suppressed, "more {what} than are logged");
            }
        }
        self.lines += 1;
        if self.lines > LOG_LINES {
            self.suppressed += 1;
            self.suppressed_in_all += 1;
        }
        self.lines <= LOG_LINES
    }
}

/// The log of one shard.
#[derive(Debug, Default)]
pub(super) struct Log {
    connects: Limiter,
    disconnects: Limiter,
    refusals: Limiter,
    violations: Limiter,
    sessions: Limiter,
    next_no_room: Time,
    no_room: u64,
    full: Limiter,
    links: Limiter,
}

impl Log {
    /// Tells one event of the core.
    pub(super) fn event(&mut self, event: &Event, now: Time) {
        match event {
            Event::Connected {
                client_id,
                address,
                version,
                session_present,
                keep_alive,
            } => {
                if self.connects.admit(now, "connects") {
                    tracing::info!(
                        client_id = %client_id.escape_debug(),
                        %address,
                        ?version,
                        session_present,
                        keep_alive,
                        "client connected"
                    );
                }
            }
            Event::Refused {
                client_id,
                address,
                reason,
            } => {
                if self.refusals.admit(now, "refused clients") {
                    tracing::warn!(
                        client_id = %client_id.escape_debug(),
                        %address,
                        ?reason,
                        "client refused"
                    );
                }
            }
            Event::Disconnected { client_id, cause } => {
                if !self.disconnects.admit(now, "disconnects") {
                    return;
                }
                let client_id = client_id.escape_debug();
                if matches!(cause, Cause::Client(ReasonCode::Success)) {
                    tracing::debug!(%client_id, %cause, "client disconnected");
                } else {
                    tracing::info!(%client_id, %cause, "client disconnected");
                }
            }
            Event::Violation {
                client_id,
                address,
                fault,
                offset,
            } => {
                if self.violations.admit(now, "broken rules") {
                    tracing::warn!(
                        client_id = %client_id.escape_debug(),
                        %address,
                        rule = ?fault,
                        offset,
                        "client broke the protocol and was cut off"
                    );
                }
            }
            Event::HistoryDamaged {
                stream,
                bucket,
                offset,
                what,
            } => {
                // No more than `KNOWN_FAULTS` in all.
                tracing::error!(%stream, %bucket, offset, "history: {what}");
            }
            Event::SessionEnded {
                client_id,
                discarded,
            } => {
                if self.sessions.admit(now, "ended sessions") {
                    tracing::debug!(client_id = %client_id.escape_debug(), discarded, "session ended");
                }
            }
        }
    }

    /// Events that were not told.
    pub(super) fn suppressed(&self) -> u64 {
        let Self {
            connects,
            disconnects,
            refusals,
            violations,
            sessions,
            next_no_room: _,
            no_room: _,
            full,
            links,
        } = self;
        [
            connects,
            disconnects,
            refusals,
            violations,
            sessions,
            full,
            links,
        ]
        .map(|limiter| limiter.suppressed_in_all)
        .iter()
        .sum()
    }

    /// A connection could not be taken for want of something.
    pub(super) fn no_room(&mut self, errno: i32, refused: usize, now: Time) {
        self.no_room += refused as u64;
        if now < self.next_no_room {
            return;
        }
        self.next_no_room = now.plus_millis(10 * LOG_PERIOD_MS);
        let error = std::io::Error::from_raw_os_error(errno);
        let fix = match errno {
            libc::EMFILE => "raise the open files limit of the process (ulimit -n, LimitNOFILE=)",
            libc::ENFILE => "raise the open files limit of the machine (sysctl fs.file-max)",
            _ => "the machine has no memory left for sockets",
        };
        tracing::error!(%error, clients_refused = self.no_room, fix, "cannot accept connections");
        self.no_room = 0;
    }

    /// A connection failed before MQTT, or below it.
    pub(super) fn link_failed(&mut self, address: SocketAddr, error: &dyn Display, now: Time) {
        if self.links.admit(now, "connections that failed below MQTT") {
            tracing::warn!(%address, %error, "connection failed below MQTT");
        }
    }

    /// A connection was closed because the listener has its `max_connections` already.
    pub(super) fn full_listener(&mut self, listener: &str, now: Time) {
        if self.full.admit(now, "connections above max_connections") {
            tracing::warn!(
                listener,
                "connection refused: max_connections of the listener reached"
            );
        }
    }

    /// A connection was closed because there are `max_connections` already.
    pub(super) fn full(&mut self, max_connections: usize, now: Time) {
        if self.full.admit(now, "connections above max_connections") {
            tracing::warn!(
                max_connections,
                "connection refused: max_connections reached"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_period_speaks_again() {
        let mut limiter = Limiter::default();
        let admitted = (0..10_000)
            .filter(|_| limiter.admit(Time::ZERO, "tests"))
            .count();
        assert_eq!(admitted, LOG_LINES as usize);
        assert_eq!(limiter.suppressed, 10_000 - u64::from(LOG_LINES));
        assert!(limiter.admit(Time::from_millis(LOG_PERIOD_MS), "tests"));
        assert_eq!(limiter.suppressed, 0);
        assert_eq!(limiter.suppressed_in_all, 10_000 - u64::from(LOG_LINES));
    }
}
