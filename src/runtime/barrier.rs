//! One moment for the journals of all shards, while they go on.
//!
//! Two journals that are copied one after the other may contradict each other: a message that one has
//! handed over and forgotten, and the other has not got. So each shard is asked to write what was appended
//! and then nothing more; when the last one has come to that, what is written is what a cut of the power
//! would have left at that moment on every disk, and all of them go on. Nothing leaves that promises what
//! is not written, so a cut of the power is what the whole broker is made to bear
//! (`tests/powercut`). Shards go on working meanwhile; what waits is what waits for the disk, for as long
//! as one commit of the slowest shard takes. What is copied afterwards is not written to again; files that the
//! journals do not need any longer wait for their copy before they are used again.
//!
//! History needs no such moment: nothing contradicts it. Before the journals are asked, each shard is asked to write
//! what it has of it, and to remove nothing until the copy is complete; afterwards, which buckets there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::history::BucketId;
use crate::journal::{Cut, FileId, Journal};
use crate::shard::Shard;
use crate::time::Time;

use super::clock::Clock;
use super::mesh::Door;

/// How long a shard waits for the others before it goes on without them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The disk of this shard has failed: what it holds is not what was promised.
    Failed(usize),
    /// This shard could not write what it had in time.
    Late(usize),
    /// The broker stops.
    Stopping,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(shard) => write!(f, "the disk of shard {shard} has failed"),
            Self::Late(shard) => write!(
                f,
                "shard {shard} could not write what it had within {} s: the disk is full or too slow",
                PATIENCE.as_secs()
            ),
            Self::Stopping => f.write_str("the broker stops"),
        }
    }
}

/// What a shard is asked to do.
#[derive(Debug)]
enum Order {
    /// Writes what was appended, then nothing before [`Order::Thaw`]; but not for longer than that.
    Freeze(Time, Sender<Option<Cut>>),
    /// Goes on, and says whether it had waited until now.
    Thaw(Sender<bool>),
    /// A file was copied.
    Copied(FileId),
    /// Nothing is copied any longer. Says whether all files had waited for it.
    Release(Sender<bool>),
}

/// The shard's end.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    orders: Receiver<Order>,
    /// Until when nothing is written, and who waits for that.
    freezing: Option<(Time, Option<Sender<Option<Cut>>>)>,
    broken: bool,
}

impl Participant {
    /// Does what was asked. Comes in each turn, before the disk is given anything.
    pub(super) fn step(&mut self, journal: &mut Journal, now: Time) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Freeze(until, reply) => {
                    journal.freeze();
                    self.freezing = Some((until, Some(reply)));
                }
                Order::Thaw(reply) => {
                    self.freezing = None;
                    // Whoever asked may have gone.
                    let _ = reply.send(journal.thaw());
                }
                Order::Copied(file) => self.broken |= !journal.unpin(file),
                Order::Release(reply) => {
                    journal.unpin_all();
                    let _ = reply.send(!self.broken);
                }
            }
        }
        let Some((until, reply)) = &mut self.freezing else {
            return;
        };
        if now >= *until {
            journal.thaw();
            self.freezing = None;
            return;
        }
        let cut = journal.cut();
        if (cut.is_some() || journal.failure().is_some())
            && let Some(reply) = reply.take()
        {
            if let Some(cut) = &cut {
                self.broken = false;
                journal.pin(cut);
            }
            let _ = reply.send(cut);
        }
    }

    /// When to look again although nothing happens.
    pub(super) fn deadline(&self) -> Time {
        self.freezing
            .as_ref()
            .map_or(Time::NEVER, |(until, _)| *until)
    }
}

/// What a shard is asked to do for a copy of its history.
#[derive(Debug)]
enum HistoryOrder {
    /// Writes what it has, and removes nothing before [`HistoryOrder::Release`].
    Pin(Sender<()>),
    /// Says what there is once that is written, or then.
    Tell(Time, Sender<HistoryCut>),
    /// Nothing is copied any longer.
    Release(Sender<()>),
}

/// What a copy of history is made of.
#[derive(Debug, Default)]
pub(super) struct HistoryCut {
    /// Of which stream, which bucket, and how many bytes at its begin.
    pub(super) buckets: Vec<(Box<str>, BucketId, u64)>,
    /// Messages that could not be written in time.
    pub(super) missing: u64,
}

/// The shard's end of that.
#[derive(Clone, Debug)]
pub(super) struct HistoryParticipant {
    orders: Receiver<HistoryOrder>,
    /// How far the streams had come when they were pinned.
    pinned: Vec<u64>,
    /// Who waits for what there is, and until when.
    asked: Option<(Time, Sender<HistoryCut>)>,
}

impl HistoryParticipant {
    /// Does what was asked. Comes in each turn, before the disk is given anything.
    pub(super) fn step(&mut self, shard: &mut Shard, now: Time) {
        while let Ok(order) = self.orders.try_recv() {
            // Whoever asked may have gone.
            match order {
                HistoryOrder::Pin(reply) => {
                    self.pinned = shard.pin_history();
                    let _ = reply.send(());
                }
                HistoryOrder::Tell(until, reply) => self.asked = Some((until, reply)),
                HistoryOrder::Release(reply) => {
                    self.asked = None;
                    shard.unpin_history();
                    let _ = reply.send(());
                }
            }
        }
        let Some((until, _)) = self.asked else { return };
        let missing = shard.unwritten_history(&self.pinned);
        if (missing == 0 || now >= until)
            && let Some((_, reply)) = self.asked.take()
        {
            let buckets = shard.history_buckets();
            let _ = reply.send(HistoryCut { buckets, missing });
        }
    }

    /// When to look again although nothing happens.
    pub(super) fn deadline(&self) -> Time {
        self.asked.as_ref().map_or(Time::NEVER, |(until, _)| *until)
    }
}

/// The other end: of whoever wants a copy. One at a time.
#[derive(Debug)]
pub(super) struct Barrier {
    shards: Vec<Sender<Order>>,
    /// None where there is no history.
    historians: Vec<Sender<HistoryOrder>>,
    doors: Arc<[Door]>,
    clock: Clock,
}

impl Barrier {
    /// For the shards behind these doors, and what each of them needs.
    pub(super) fn new(doors: Arc<[Door]>, clock: Clock) -> (Self, Vec<Participant>) {
        let ends = doors.iter().map(|_| unbounded()); // bounded by the files of one copy
        let (shards, orders): (Vec<_>, Vec<_>) = ends.unzip();
        let participants = orders.into_iter().map(|orders| Participant {
            orders,
            freezing: None,
            broken: false,
        });
        let participants = participants.collect();
        let barrier = Self {
            shards,
            historians: Vec::new(),
            doors,
            clock,
        };
        (barrier, participants)
    }

    /// There is history too: what each shard needs for that.
    pub(super) fn with_history(&mut self) -> Vec<HistoryParticipant> {
        let ends = self.shards.iter().map(|_| unbounded()); // three orders for one copy
        let (historians, orders): (Vec<_>, Vec<_>) = ends.unzip();
        self.historians = historians;
        let participants = orders.into_iter().map(|orders| HistoryParticipant {
            orders,
            pinned: Vec::new(),
            asked: None,
        });
        participants.collect()
    }

    /// What each shard has written at one moment, and how long the first of them waited for the last.
    /// [`Barrier::release`] must follow.
    pub(super) fn cut(&self) -> Result<(Vec<Cut>, Duration), Refusal> {
        self.ask(&self.historians, HistoryOrder::Pin)?;
        let begun = Instant::now();
        let until = self.until();
        let cuts = self.ask(&self.shards, |reply| Order::Freeze(until, reply));
        let cuts = cuts.and_then(|cuts| {
            let cuts = cuts.into_iter().enumerate();
            let cuts = cuts.map(|(shard, cut)| cut.ok_or(Refusal::Failed(shard)));
            cuts.collect::<Result<Vec<Cut>, _>>()
        });
        let thawed = self.ask(&self.shards, Order::Thaw);
        let took = begun.elapsed();
        let cuts = cuts?;
        // Each said that it waits before any was told to go on: so there was a moment when all did.
        match thawed?.iter().position(|frozen| !frozen) {
            Some(shard) => Err(Refusal::Late(shard)),
            None => Ok((cuts, took)),
        }
    }

    /// What there is of history: all that was published before [`Barrier::cut`], as far as the disk takes it.
    pub(super) fn history(&self) -> Result<HistoryCut, Refusal> {
        let until = self.until();
        let told = self.ask(&self.historians, |reply| HistoryOrder::Tell(until, reply))?;
        let mut all = HistoryCut::default();
        for mut cut in told {
            all.buckets.append(&mut cut.buckets);
            all.missing += cut.missing;
        }
        Ok(all)
    }

    fn until(&self) -> Time {
        let patience = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
        self.clock.now().plus_micros(patience)
    }

    /// A file of a shard was copied.
    pub(super) fn copied(&self, shard: usize, file: FileId) {
        if let Some(orders) = self.shards.get(shard) {
            let _ = orders.send(Order::Copied(file));
            self.doors[shard].ring_bell();
        }
    }

    /// All was copied, or nothing will be any more. Whether each file had waited for its copy.
    pub(super) fn release(&self) -> Result<bool, Refusal> {
        let kept = self.ask(&self.shards, Order::Release);
        self.ask(&self.historians, HistoryOrder::Release)?;
        Ok(kept?.iter().all(|kept| *kept))
    }

    /// Asks all shards at once, and waits for their answers.
    fn ask<O, T>(
        &self,
        shards: &[Sender<O>],
        order: impl Fn(Sender<T>) -> O,
    ) -> Result<Vec<T>, Refusal> {
        let mut pending = Vec::new();
        for (orders, door) in shards.iter().zip(self.doors.iter()) {
            let (reply, answer) = bounded(1);
            orders.send(order(reply)).map_err(|_| Refusal::Stopping)?;
            door.ring_bell();
            pending.push(answer);
        }
        let end = Instant::now() + 2 * PATIENCE; // the shard has given up by then
        let answers = pending.into_iter().enumerate().map(|(shard, answer)| {
            answer.recv_deadline(end).map_err(|error| match error {
                RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => Refusal::Late(shard),
            })
        });
        answers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Identity, Position, Recovery, SessionDetails, Settings, Write};
    use crate::runtime::mesh;
    use crate::wire::Version;

    fn journal() -> Journal {
        let identity = Identity { log: 1, shard: 0 };
        let recovery = Recovery::new(identity, Settings::default());
        let (mut journal, _) = recovery.finish().unwrap();
        let file = journal.next_allocation().unwrap();
        journal.allocated(file, true);
        journal
    }

    fn append(journal: &mut Journal) {
        let details = SessionDetails {
            client_id: "c",
            user: "",
            version: Version::V5,
            expiry_interval: 1,
            expires_at: crate::journal::Deadline::NEVER,
        };
        journal.open_session(details).unwrap();
    }

    fn write(journal: &mut Journal) -> Write {
        journal.next_write().unwrap()
    }

    #[test]
    fn a_shard_finishes_what_it_has_and_waits_for_the_others() {
        let bells = vec![mesh::Bell::new().unwrap()];
        let (_meshes, doors) = mesh::build(bells);
        let (barrier, mut participants) = Barrier::new(doors, Clock::start());
        let mut participant = participants.remove(0);
        let mut journal = journal();
        append(&mut journal);
        let first = write(&mut journal);
        append(&mut journal);
        let shard = std::thread::Builder::new().spawn(move || {
            let mut first = Some(first);
            let (mut froze, mut thawed) = (false, false);
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end {
                participant.step(&mut journal, Time::ZERO);
                let freezing = participant.freezing.is_some();
                if freezing && !froze || froze && !freezing && !thawed {
                    append(&mut journal); // it goes on working, then and afterwards
                }
                thawed |= froze && !freezing;
                froze |= freezing;
                if freezing && let Some(write) = first.take() {
                    journal.completed(write, Ok(()));
                }
                if first.is_none()
                    && let Some(write) = journal.next_write()
                {
                    journal.completed(write, Ok(()));
                }
                if thawed && journal.durable() >= journal.position() {
                    break;
                }
                std::thread::yield_now();
            }
            (participant, journal)
        });
        let (cuts, _) = barrier.cut().unwrap();
        assert!(cuts[0].position >= Position(2), "{cuts:?}");
        assert_eq!(cuts[0].files.len(), 1);
        let (mut participant, mut journal) = shard.unwrap().join().unwrap();
        assert!(journal.durable() > cuts[0].position, "it went on");
        barrier.copied(0, cuts[0].files[0].0);
        participant.step(&mut journal, Time::ZERO);
        assert!(!participant.broken);
        barrier.copied(0, cuts[0].files[0].0);
        participant.step(&mut journal, Time::ZERO);
        assert!(participant.broken, "nobody kept it for that");
    }

    #[test]
    fn a_shard_does_not_wait_for_ever() {
        let bells = vec![mesh::Bell::new().unwrap()];
        let (_meshes, doors) = mesh::build(bells);
        let (barrier, mut participants) = Barrier::new(doors, Clock::start());
        let mut journal = journal();
        append(&mut journal);
        let (reply, answer) = bounded(1);
        let until = Time::from_micros(10);
        barrier.shards[0].send(Order::Freeze(until, reply)).unwrap();
        let first = write(&mut journal);
        participants[0].step(&mut journal, Time::ZERO);
        assert_eq!(participants[0].deadline(), until);
        participants[0].step(&mut journal, until);
        assert!(answer.try_recv().is_err());
        assert_eq!(participants[0].deadline(), Time::NEVER);
        journal.completed(first, Ok(()));
        append(&mut journal);
        assert!(journal.next_write().is_some());
        drop(participants);
        assert_eq!(barrier.release(), Err(Refusal::Stopping));
    }
}
