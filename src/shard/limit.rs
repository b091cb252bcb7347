//! What a client may do at most: shapes of topics, properties, rates, attempts, and what happens when memory
//! runs short.
//!
//! A rate is kept by not reading: the packets of a client that is too fast wait in its socket, so that
//! nothing of it is lost, whatever its QoS. Who is banned is told so with 0x8A, for as long as the ban
//! lasts.

use std::hash::Hash;
use std::net::IpAddr;

use hashbrown::HashMap;

use crate::limits::{
    DEFAULT_MAX_FILTERS, DEFAULT_MAX_RETAINED_BYTES, DEFAULT_MAX_RETAINED_MESSAGES,
    DEFAULT_MAX_USER_PROPERTIES, MAX_STRIKES, MAX_STRING, MAX_TOPIC_LEVELS, SHED_PAUSE_MS,
};
use crate::message::MessageView;
use crate::session::Connection;
use crate::stats::Limited;
use crate::time::Time;
use crate::topic::Name;
use crate::wire::{Publish, ReasonCode, Will};

use super::tables::TimerKey;
use super::{ConnKey, ListenerSettings, Outbox, Settings, Shard};

/// Bounds on what clients may do. 0 stands for no bound where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a topic name or filter; 0x90 or 0x8F beyond.
    pub max_topic_bytes: usize,
    /// Levels of one; 0x90 or 0x8F beyond.
    pub max_topic_levels: usize,
    /// User Properties of a PUBLISH or a will; 0x97 beyond.
    pub max_user_properties: usize,
    /// Topic filters of a SUBSCRIBE; 0x97 for each one beyond.
    pub max_filters: usize,
    /// Retained messages of all shards together; a new one beyond is not kept.
    pub max_retained_messages: u64,
    /// Bytes of those.
    pub max_retained_bytes: u64,
    /// Messages a second from one client; 0 for no bound.
    pub message_rate: u32,
    /// Bytes of payload a second from one client; 0 for no bound.
    pub byte_rate: u64,
    /// CONNECTs of one client id that are accepted in [`Limits::window_s`]; 0 for no bound.
    pub client_connects: u32,
    /// Refused logins from one address in that time; 0 for no bound.
    pub failed_logins: u32,
    /// Seconds in which those are counted.
    pub window_s: u32,
    /// Seconds that who does it too often is banned for.
    pub ban_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_topic_bytes: MAX_STRING,
            max_topic_levels: MAX_TOPIC_LEVELS,
            max_user_properties: DEFAULT_MAX_USER_PROPERTIES,
            max_filters: DEFAULT_MAX_FILTERS,
            max_retained_messages: DEFAULT_MAX_RETAINED_MESSAGES,
            max_retained_bytes: DEFAULT_MAX_RETAINED_BYTES,
            message_rate: 0,
            byte_rate: 0,
            client_connects: 0,
            failed_logins: 0,
            window_s: 60,
            ban_s: 300,
        }
    }
}

/// How short memory is. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shortage {
    /// There is enough.
    #[default]
    None,
    /// New clients are told that the server is busy.
    NoConnects,
    /// QoS 0 messages are dropped.
    NoAtMostOnce,
    /// Who publishes is read from once in a while.
    SlowReads,
}

impl Shortage {
    /// The one that is this number.
    #[must_use]
    pub const fn from_level(level: u8) -> Self {
        match level {
            0 => Self::None,
            1 => Self::NoConnects,
            2 => Self::NoAtMostOnce,
            _ => Self::SlowReads,
        }
    }

    /// What `used` of `allowed` bytes come to; 0 stands for no bound.
    #[must_use]
    pub fn of(used: u64, allowed: u64) -> Self {
        let percent = match allowed {
            0 => 0,
            allowed => used.saturating_mul(100) / allowed,
        };
        match percent {
            0..85 => Self::None,
            85..95 => Self::NoConnects,
            95..100 => Self::NoAtMostOnce,
            _ => Self::SlowReads,
        }
    }
}

/// How often somebody did something, and until when he is banned for it.
#[derive(Debug)]
pub(super) struct Strikes<K>(HashMap<K, Strike, foldhash::fast::RandomState>);

#[derive(Debug)]
struct Strike {
    count: u32,
    /// When the count begins anew, or the ban ends.
    until: Time,
    banned: bool,
}

impl<K> Default for Strikes<K> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Eq + Hash> Strikes<K> {
    fn is_banned<Q: Eq + Hash + hashbrown::Equivalent<K> + ?Sized>(
        &self,
        who: &Q,
        now: Time,
    ) -> bool {
        let strike = self.0.get(who);
        strike.is_some_and(|strike| strike.banned && strike.until > now)
    }

    /// Counts once more. Whoever does it more than `most` times in the window is banned.
    fn strike(&mut self, who: K, most: u32, limits: &Limits, now: Time) {
        if self.0.len() >= MAX_STRIKES && !self.0.contains_key(&who) {
            self.0.retain(|_, strike| strike.until > now);
            if self.0.len() >= MAX_STRIKES {
                return;
            }
        }
        let window = now.plus_secs(limits.window_s.into());
        let strike = self.0.entry(who).or_insert(Strike {
            count: 0,
            until: window,
            banned: false,
        });
        if strike.until <= now {
            *strike = Strike {
                count: 0,
                until: window,
                banned: false,
            };
        }
        strike.count += 1;
        if strike.count > most && !strike.banned {
            strike.banned = true;
            strike.until = now.plus_secs(limits.ban_s.into());
        }
    }
}

/// Who did what too often.
#[derive(Debug, Default)]
pub(super) struct Bans {
    clients: Strikes<Box<str>>,
    addresses: Strikes<IpAddr>,
}

impl Shard {
    /// Says how short memory is.
    pub fn set_shortage(&mut self, shortage: Shortage) {
        self.shortage = shortage;
    }

    /// Why a CONNECT is not even looked at.
    pub(super) fn turned_away(
        &mut self,
        conn: ConnKey,
        client_id: &str,
        now: Time,
    ) -> Option<ReasonCode> {
        let limits = &self.settings.limits;
        if self.shortage >= Shortage::NoConnects {
            self.stats.limited[Limited::MemoryConnects as usize] += 1;
            return Some(ReasonCode::ServerBusy);
        }
        if limits.client_connects > 0 && self.bans.clients.is_banned(client_id, now) {
            self.stats.limited[Limited::ClientConnects as usize] += 1;
            return Some(ReasonCode::Banned);
        }
        let address = self.connections.get(conn)?.peer.address.ip();
        if limits.failed_logins > 0 && self.bans.addresses.is_banned(&address, now) {
            self.stats.limited[Limited::FailedLogins as usize] += 1;
            return Some(ReasonCode::Banned);
        }
        None
    }

    /// A CONNECT was accepted: a client that comes and goes too often is banned from the next one on.
    pub(super) fn came_in(&mut self, client_id: &str, now: Time) {
        let limits = &self.settings.limits;
        if limits.client_connects > 0 {
            let most = limits.client_connects;
            let client_id = client_id.into();
            self.bans.clients.strike(client_id, most, limits, now);
        }
    }

    /// A CONNECT was refused for `reason`: an address from which that happens too often is banned.
    pub(super) fn was_refused(&mut self, conn: ConnKey, reason: ReasonCode, now: Time) {
        let limits = &self.settings.limits;
        let failed = matches!(
            reason,
            ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized
        );
        if limits.failed_logins > 0
            && failed
            && let Some(connection) = self.connections.get(conn)
        {
            // One more may fail than the number says, so that the number is what is allowed.
            let (most, address) = (limits.failed_logins, connection.peer.address.ip());
            self.bans.addresses.strike(address, most, limits, now);
        }
    }

    /// Why a PUBLISH goes no further, for its shape.
    pub(super) fn misshapen(&mut self, topic: &str, publish: &Publish<'_>) -> Option<ReasonCode> {
        let limits = &self.settings.limits;
        let limited = if is_too_long(topic, limits) {
            Limited::Topic
        } else if publish
            .properties
            .user_properties()
            .iter()
            .nth(limits.max_user_properties)
            .is_some()
        {
            Limited::UserProperties
        } else {
            return None;
        };
        self.stats.limited[limited as usize] += 1;
        Some(limited.reason())
    }

    /// The same for a will.
    pub(super) fn misshapen_will(
        &mut self,
        topic: Name<'_>,
        will: &Will<'_>,
    ) -> Option<ReasonCode> {
        let limits = &self.settings.limits;
        let properties = will.forwarded.user_properties();
        let limited = if is_too_long(topic.as_str(), limits) {
            Limited::Topic
        } else if properties.iter().nth(limits.max_user_properties).is_some() {
            Limited::UserProperties
        } else {
            return None;
        };
        self.stats.limited[limited as usize] += 1;
        Some(limited.reason())
    }

    /// Why a filter of a SUBSCRIBE, the one of number `index`, goes no further.
    pub(super) fn misshapen_filter(&mut self, filter: &str, index: usize) -> Option<ReasonCode> {
        let limits = &self.settings.limits;
        let (limited, reason) = if index >= limits.max_filters {
            (Limited::Filters, ReasonCode::QuotaExceeded)
        } else if is_too_long(filter, limits) {
            (Limited::Topic, ReasonCode::TopicFilterInvalid)
        } else {
            return None;
        };
        self.stats.limited[limited as usize] += 1;
        Some(reason)
    }

    /// Whether there is no room for one more retained message; what is replaced makes room.
    pub(super) fn retained_is_full(&mut self, message: &MessageView<'_>) -> bool {
        let limits = &self.settings.limits;
        let share = |all: u64| all.div_ceil(self.identity.shards as u64);
        let old = self.retained.get(message.topic.as_str());
        let messages = self.retained.len() as u64 + u64::from(old.is_none());
        let bytes = self.retained.bytes() - old.map_or(0, |old| old.size()) + message.size();
        let limited = if messages > share(limits.max_retained_messages) {
            Limited::RetainedMessages
        } else if bytes as u64 > share(limits.max_retained_bytes) {
            Limited::RetainedBytes
        } else {
            return false;
        };
        self.stats.limited[limited as usize] += 1;
        true
    }

    /// Messages of a client came: if they came too fast, the next ones wait.
    #[inline]
    pub(super) fn keep_pace(
        &mut self,
        conn: ConnKey,
        (messages, bytes): (u32, usize),
        now: Time,
        out: &mut Outbox,
    ) {
        let limits = &self.settings.limits;
        if limits.message_rate > 0
            || limits.byte_rate > 0
            || !self.listeners_paid_until.is_empty()
            || self.shortage == Shortage::SlowReads
        {
            self.slow_down(conn, messages, bytes as u64, now, out);
        }
    }

    fn slow_down(&mut self, conn: ConnKey, messages: u32, bytes: u64, now: Time, out: &mut Outbox) {
        let limits = &self.settings.limits;
        let shortage = self.shortage;
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        let amount = Amount {
            messages: messages.into(),
            bytes,
        };
        let cost = amount.cost(limits.message_rate, limits.byte_rate);
        let mut wait = pay(&mut connection.paid_until, cost, now);
        let mut limited = Limited::Rate;
        let listener = usize::from(connection.peer.listener);
        if let (Some(paid_until), Some(listener)) = (
            self.listeners_paid_until.get_mut(listener),
            self.settings.listeners.get(listener),
        ) {
            // Each shard has its share of the rate.
            let amount = amount.times(self.identity.shards as u64);
            let cost = amount.cost(listener.message_rate, listener.byte_rate);
            let together = pay(paid_until, cost, now);
            if together > wait {
                (limited, wait) = (Limited::ListenerRate, together);
            }
        }
        if shortage == Shortage::SlowReads {
            limited = Limited::MemoryReads;
            wait = wait.max(SHED_PAUSE_MS * 1_000);
        }
        if wait == 0 {
            return;
        }
        connection.paused_until = Some(now.plus_micros(wait));
        connection.timer = self.timers.move_to(
            TimerKey::Connection(conn),
            connection.timer,
            connection.due_at(),
        );
        self.stats.limited[limited as usize] += 1;
        out.reading.push((conn, false));
    }

    /// A client that was too fast may go on, if its time has come. What came meanwhile is worked off.
    pub(super) fn go_on(&mut self, conn: ConnKey, now: Time, out: &mut Outbox) -> bool {
        let Some(connection) = self.connections.get_mut(conn) else {
            return false;
        };
        if connection.paused_until.is_none_or(|until| until > now) {
            return false;
        }
        connection.paused_until = None;
        connection.last_packet = now; // its silence was ours
        connection.timer = self.timers.move_to(
            TimerKey::Connection(conn),
            connection.timer,
            connection.due_at(),
        );
        out.reading.push((conn, true));
        self.resume(conn, now, out);
        true
    }

    /// Whether a QoS 0 message is dropped because memory is short.
    #[inline]
    pub(super) fn sheds_at_most_once(&self) -> bool {
        self.shortage >= Shortage::NoAtMostOnce
    }
}

/// What came at a time.
#[derive(Clone, Copy)]
struct Amount {
    messages: u64,
    bytes: u64,
}

impl Amount {
    const fn times(self, factor: u64) -> Self {
        Self {
            messages: self.messages.saturating_mul(factor),
            bytes: self.bytes.saturating_mul(factor),
        }
    }

    /// The microseconds that it takes at these rates a second; 0 for no bound.
    fn cost(self, message_rate: u32, byte_rate: u64) -> u64 {
        let cost = |amount: u64, rate: u64| match rate {
            0 => 0,
            rate => amount.saturating_mul(1_000_000) / rate,
        };
        cost(self.messages, message_rate.into()).max(cost(self.bytes, byte_rate))
    }
}

/// Puts `cost` on what is paid until then; returns the microseconds by which that is too far ahead.
fn pay(paid_until: &mut Time, cost: u64, now: Time) -> u64 {
    /// Microseconds that somebody may be ahead of his rate.
    const BURST_US: u64 = 1_000_000;
    *paid_until = (*paid_until).max(now).plus_micros(cost);
    paid_until.micros_since(now).saturating_sub(BURST_US)
}

/// What the listeners begin with, if one of them has a rate.
pub(super) fn unpaid(settings: &Settings) -> Vec<Time> {
    let has_rate =
        |listener: &ListenerSettings| listener.message_rate > 0 || listener.byte_rate > 0;
    match settings.listeners.iter().any(has_rate) {
        true => vec![Time::ZERO; settings.listeners.len()],
        false => Vec::new(),
    }
}

/// Whether complete packets of `connection` must wait for its rate.
pub(super) fn is_paused(connection: &Connection) -> bool {
    connection.paused_until.is_some()
}

fn is_too_long(topic: &str, limits: &Limits) -> bool {
    topic.len() > limits.max_topic_bytes
        || limits.max_topic_levels < MAX_TOPIC_LEVELS
            && topic.bytes().filter(|&byte| byte == b'/').count() >= limits.max_topic_levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_it_too_often_is_banned_for_a_time() {
        let limits = Limits::default();
        let mut strikes = Strikes::default();
        let at = Time::from_secs;
        for second in 0..3 {
            strikes.strike("a", 3, &limits, at(second));
        }
        assert!(!strikes.is_banned("a", at(3)));
        strikes.strike("a", 3, &limits, at(3));
        assert!(strikes.is_banned("a", at(3)) && !strikes.is_banned("b", at(3)));
        assert!(strikes.is_banned("a", at(302)) && !strikes.is_banned("a", at(303)));
        // The window begins anew.
        for minute in 0..10 {
            strikes.strike("slow", 1, &limits, at(60 * minute));
        }
        assert!(!strikes.is_banned("slow", at(541)));
    }

    #[test]
    fn made_up_names_do_not_fill_the_memory() {
        let limits = Limits::default();
        let mut strikes = Strikes::default();
        for number in 0..MAX_STRIKES + 10 {
            strikes.strike(number, 3, &limits, Time::ZERO);
        }
        assert_eq!(strikes.0.len(), MAX_STRIKES);
        strikes.strike(usize::MAX, 3, &limits, Time::from_secs(61));
        assert_eq!(strikes.0.len(), 1, "those whose window is over make room");
    }

    #[test]
    fn what_is_short_is_shed_in_its_order() {
        let levels: Vec<_> = [0, 84, 85, 94, 95, 99, 100, 500]
            .map(|used| Shortage::of(used, 100))
            .to_vec();
        use Shortage::{NoAtMostOnce, NoConnects, None, SlowReads};
        let expected = [
            None,
            None,
            NoConnects,
            NoConnects,
            NoAtMostOnce,
            NoAtMostOnce,
            SlowReads,
            SlowReads,
        ];
        assert_eq!(levels, expected);
        assert_eq!(Shortage::of(u64::MAX, 0), None);
    }
}
