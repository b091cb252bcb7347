//! Queues that memory is too small for: the bodies of messages that the journal has stay on disk and are
//! read back as their client takes them.
//!
//! Who has to be quick keeps what it needs next: the first [`READY`] messages of a client that is
//! connected. Messages of groups are never away, because another member gets them at once when their session
//! ends; nor is what the journal does not have. See [`Queue`] for the order of all these.

use crate::journal::{Damage, Fetch};
use crate::message::ItemId;
use crate::route::SessionKey;
use crate::session::{Delivery, Queue};
use crate::stats::DropReason;
use crate::time::Time;
use crate::wire::QoS;

use super::{Outbox, Shard};

/// Messages that a connected client has in memory, whatever the budget.
const READY: usize = 16;
/// Messages that are read back at a time.
const FETCHED: usize = 64;

/// What is to be read for one session; [`Shard::fetched`] takes the answer.
#[derive(Debug)]
pub struct Fetching {
    session: SessionKey,
    /// What to read.
    pub fetch: Fetch,
}

/// What waits to be read back.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// To be read.
    asked: Vec<Fetching>,
    /// Sessions whose next message was not written yet.
    unwritten: Vec<SessionKey>,
    scratch: Vec<u8>,
}

impl Shard {
    /// Changes the queue of a session and counts what that changes.
    pub(super) fn with_queue<T>(
        &mut self,
        key: SessionKey,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<T> {
        let queue = &mut self.sessions.get_mut(key)?.queue;
        self.stats.forget_queue(queue);
        let changed = change(queue);
        self.stats.count_queue(queue);
        Some(changed)
    }

    /// Appends a message to the queue of a session, in memory or not.
    pub(super) fn append_to_queue(&mut self, key: SessionKey, delivery: Delivery) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let size = delivery.message.size() as u64;
        let queue = &session.queue;
        let ready = session.connection.is_some() && queue.ready() < READY;
        let crowded = self.stats.queued_memory_bytes + size > self.queue_budget();
        let away = queue.count_away() > 0 || (crowded && !ready);
        let common = queue.count_common() > 0;
        let item = delivery.message.stored().filter(|_| {
            session.keeps().is_some()
                && self.store.keeps_sessions()
                && delivery.qos > QoS::AtMostOnce
                && delivery.group.is_none()
        });
        let put = match item {
            Some(item) if away => self.with_queue(key, |queue| queue.put_away(item, size)),
            Some(item) if common => Some(self.put_common(key, item, &delivery)),
            _ => None,
        };
        if put != Some(true) {
            self.with_queue(key, |queue| queue.push(delivery));
        }
    }

    /// Bytes of memory for the messages that wait on this shard.
    pub(super) fn queue_budget(&self) -> u64 {
        self.settings.max_queue_memory / self.identity.shards as u64
    }

    /// Drops the oldest message of a queue; `false` if there is none.
    pub(super) fn drop_oldest(&mut self, key: SessionKey) -> bool {
        let oldest = self.with_queue(key, Queue::pop).flatten();
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let number = session.stored;
        let item = match oldest {
            Some(oldest) => oldest.message.stored(),
            None => {
                let common = session.queue.count_common() > 0;
                let Some(item) = self.in_row(key).next() else {
                    return false;
                };
                let common = common.then(|| self.commons.release(item)).flatten();
                let size = common.map_or(0, |delivery| delivery.message.size());
                self.with_queue(key, |queue| queue.lose(item, size));
                Some(item)
            }
        };
        self.store.acknowledge(number, item);
        true
    }

    /// The messages of a queue that only the journal's list of the session names, oldest first, and what
    /// came behind them.
    pub(super) fn in_row(&self, key: SessionKey) -> impl Iterator<Item = ItemId> {
        let named = self.sessions.get(key).and_then(|session| {
            let after = session.queue.row_after()?;
            let named = self.store.get()?.messages_behind(session.stored?, after);
            Some(named.filter(|&item| !session.queue.is_behind(item)))
        });
        named.into_iter().flatten()
    }

    /// Asks for what a client needs next, if it is away.
    pub(super) fn fetch(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let queue = &mut session.queue;
        if queue.count_away() == 0 || session.connection.is_none() || queue.ready() >= READY {
            return;
        }
        let (Some(number), Some(journal)) = (session.stored, self.store.get()) else {
            return;
        };
        let Some((after, count)) = queue.ask() else {
            return; // they are on their way, or others come first
        };
        if let Some(fetch) = journal.fetch(number, after, count.min(FETCHED)) {
            let session = key;
            return self.fetches.asked.push(Fetching { session, fetch });
        }
        self.fetches.unwritten.push(key); // and not asked for again until then
    }

    /// The next thing to be read.
    pub fn next_fetch(&mut self) -> Option<Fetching> {
        self.fetches.asked.pop()
    }

    /// More was written: what was not yet, may be now.
    pub(super) fn fetch_written(&mut self) {
        for key in std::mem::take(&mut self.fetches.unwritten) {
            if let Some(session) = self.sessions.get_mut(key) {
                session.queue.answered();
            }
            self.fetch(key);
        }
    }

    /// What [`Shard::next_fetch`] asked for was read; a buffer is empty where it could not be.
    ///
    /// # Errors
    /// A message is not what was written. It is counted as dropped, stays in the journal, and those behind
    /// it go on.
    pub fn fetched(
        &mut self,
        fetching: Fetching,
        buffers: &[Vec<u8>],
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Damage> {
        let Fetching {
            session: key,
            fetch,
        } = fetching;
        let known = self.sessions.get(key).and_then(|session| session.stored);
        let Some(journal) = self.store.get().filter(|_| known == Some(fetch.session())) else {
            return Ok(()); // it ended meanwhile
        };
        let epoch = self.store.epoch();
        let scratch = &mut self.fetches.scratch;
        let mut come = Vec::with_capacity(FETCHED);
        let read = journal.fetched(&fetch, buffers, |item, message, copy| {
            let delivery = copy.group.is_empty().then(|| Delivery {
                message: epoch.view(&message).to_message_by(Some(item), scratch),
                qos: copy.qos,
                retain: copy.retain,
                identifiers: copy.identifiers.into(),
                group: None,
            });
            come.push((item, delivery));
        });
        self.with_queue(key, |queue| {
            queue.answered();
            for (item, delivery) in come {
                match delivery {
                    Some(delivery) => queue.come(item, delivery),
                    None => queue.skip(item), // it is here
                }
            }
            if let Err(unreadable) = &read {
                queue.lose(unreadable.message, 0);
            }
        });
        if let Ok(Some(more)) = read {
            if let Some(session) = self.sessions.get_mut(key) {
                session.queue.ask();
            }
            self.fetches.asked.push(Fetching {
                session: key,
                fetch: more,
            });
            return Ok(());
        }
        self.pump(key, now, out);
        read.map(|_| ()).map_err(|unreadable| {
            self.stats.drop_messages(DropReason::Unreadable, 1);
            unreadable.damage
        })
    }
}
