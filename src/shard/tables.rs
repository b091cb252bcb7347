//! The tables of a shard: connections by the driver's key, sessions by key and by client id, and
//! what is due when.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::chunks::Chunks;
use crate::route::{SessionKey, prefetch};
use crate::session::{ConnKey, Connection, Session, SessionNumber};
use crate::time::Time;

/// Connections, in the slots that the driver gave them.
#[derive(Debug, Default)]
pub(super) struct Connections(Chunks<Option<Box<Connection>>>);

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) {
        let index = connection.key.index as usize;
        *self.0.get_or_grow(index) = Some(Box::new(connection));
    }

    pub(super) fn get(&self, key: ConnKey) -> Option<&Connection> {
        self.0
            .get(key.index as usize)?
            .as_deref()
            .filter(|connection| connection.key == key)
    }

    pub(super) fn get_mut(&mut self, key: ConnKey) -> Option<&mut Connection> {
        self.0
            .get_mut(key.index as usize)?
            .as_deref_mut()
            .filter(|connection| connection.key == key)
    }

    pub(super) fn remove(&mut self, key: ConnKey) -> Option<Box<Connection>> {
        self.get(key)?;
        self.0.get_mut(key.index as usize)?.take()
    }

    pub(super) fn keys(&self) -> Vec<ConnKey> {
        self.0
            .iter()
            .flatten()
            .map(|connection| connection.key)
            .collect()
    }
}

/// Sessions. The client id is stored once, in the session; the index by client id holds keys.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Chunks<Slot>,
    free: Vec<u32>,
    by_client: HashTable<SessionKey>,
    hasher: foldhash::fast::FixedState,
}

/// A place for a session.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// What [`Session::keeps`] said when it was noted, counted from 1; 0 for nothing. A message for many asks all of
    /// them, and finds the answers in a row here.
    kept: u32,
    session: Option<Box<Session>>,
}

const _: () = assert!(size_of::<Slot>() == 16);

impl Slot {
    fn note_kept(&mut self) {
        let kept = self.session.as_deref().and_then(Session::keeps);
        self.kept = kept.map_or(0, |number| number.0 + 1);
    }
}

impl Sessions {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Chunks::default(),
            free: Vec::new(),
            by_client: HashTable::new(),
            hasher: foldhash::fast::FixedState::with_seed(seed),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Session> {
        lookup(&self.slots, key)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let slot = self.slots.get_mut(key.index as usize)?;
        let session = slot.session.as_deref_mut();
        session.filter(|_| slot.generation == key.generation)
    }

    /// What the journal calls a session that it keeps messages for, as [`Session::keeps`] has it.
    #[inline]
    pub(super) fn kept(&self, key: SessionKey) -> Option<SessionNumber> {
        let slot = self.slots.get(key.index as usize)?;
        let kept = (slot.generation == key.generation).then_some(slot.kept)?;
        let kept = kept.checked_sub(1).map(SessionNumber);
        debug_assert_eq!(kept, self.get(key)?.keeps());
        kept
    }

    /// What the journal calls a session, or its Session Expiry Interval, may have changed.
    pub(super) fn note_kept(&mut self, key: SessionKey) {
        if let Some(slot) = self.slots.get_mut(key.index as usize)
            && slot.generation == key.generation
        {
            slot.note_kept();
        }
    }

    /// Asks for the part of a session that a message for many looks at, which will soon be needed.
    #[inline]
    pub(super) fn prefetch(&self, key: SessionKey) {
        if let Some(session) = lookup(&self.slots, key) {
            prefetch(session);
        }
    }

    pub(super) fn find(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.hasher.hash_one(client_id);
        self.by_client
            .find(hash, |&key| {
                lookup(&self.slots, key).is_some_and(|session| &*session.client_id == client_id)
            })
            .copied()
    }

    /// Adds a session whose client id is not there yet.
    pub(super) fn insert(&mut self, session: Session) -> SessionKey {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.push(Slot::default());
            u32::try_from(index).unwrap_or(u32::MAX)
        });
        let hash = self.hasher.hash_one(&*session.client_id);
        let slot = self.slots.get_or_grow(index as usize);
        let key = SessionKey {
            index,
            generation: slot.generation,
        };
        slot.session = Some(Box::new(session));
        slot.note_kept();
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_client.insert_unique(hash, key, |&key| {
            hasher.hash_one(lookup(slots, key).map_or("", |session| &session.client_id))
        });
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let hash = self.hasher.hash_one(&*self.get(key)?.client_id);
        if let Ok(entry) = self.by_client.find_entry(hash, |&other| other == key) {
            entry.remove();
        }
        let slot = self.slots.get_mut(key.index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.kept = 0;
        self.free.push(key.index);
        slot.session.take()
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.by_client.iter().copied().collect()
    }
}

#[inline]
fn lookup(slots: &Chunks<Slot>, key: SessionKey) -> Option<&Session> {
    let slot = slots.get(key.index as usize)?;
    let session = slot.session.as_deref();
    session.filter(|_| slot.generation == key.generation)
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// Keep-alive, or the time a CONNECT may take.
    Connection(ConnKey),
    /// A will that is due, or the end of the session.
    Session(SessionKey),
    /// Retained messages that expire; `$SYS`.
    Housekeeping,
    /// History that is to be written.
    History,
}

/// Deadlines in order. A tree and not a wheel: every owner has at most one entry, which it takes out
/// when it goes, so that a client that comes and goes with an expiry of years leaves nothing behind;
/// and a packet does not touch it, because keep-alive is looked at when its deadline comes.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Time, TimerKey)>);

impl Timers {
    /// Microseconds to which deadlines are rounded up, so that those of a storm come in one wake.
    const GRAIN: u64 = 10_000;

    /// Moves the entry of `key` from `from` to `to`; [`Time::NEVER`] stands for no entry. Returns
    /// the deadline as it stands now, which is never earlier than `to`.
    #[must_use]
    pub(super) fn move_to(&mut self, key: TimerKey, from: Time, to: Time) -> Time {
        if from != Time::NEVER {
            self.0.remove(&(from, key));
        }
        if to == Time::NEVER {
            return to;
        }
        let rounded = Time::from_micros(to.as_micros().div_ceil(Self::GRAIN) * Self::GRAIN);
        self.0.insert((rounded, key));
        rounded
    }

    pub(super) fn next(&self) -> Time {
        self.0.first().map_or(Time::NEVER, |&(at, _)| at)
    }

    /// Takes out the first entry, if it is due.
    pub(super) fn pop(&mut self, now: Time) -> Option<TimerKey> {
        let &(at, key) = self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_session_that_ended_finds_nothing() {
        let mut sessions = Sessions::new(1);
        let first = sessions.insert(Session::new("a"));
        assert_eq!(sessions.find("a"), Some(first));
        assert!(sessions.remove(first).is_some());
        let second = sessions.insert(Session::new("b"));
        assert_eq!(first.index, second.index);
        assert!(sessions.get(first).is_none());
        assert_eq!(
            (sessions.find("a"), sessions.find("b")),
            (None, Some(second))
        );
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn a_timer_never_fires_early() {
        let mut timers = Timers::default();
        let deadline = Time::from_micros(1_234_567);
        let key = TimerKey::Housekeeping;
        let stands = timers.move_to(key, Time::NEVER, deadline);
        assert!(stands >= deadline);
        assert_eq!(timers.pop(deadline), None);
        assert_eq!(timers.pop(stands), Some(key));
        let stands = timers.move_to(key, Time::NEVER, deadline);
        assert_eq!(timers.move_to(key, stands, Time::NEVER), Time::NEVER);
        assert_eq!(timers.next(), Time::NEVER);
    }
}
