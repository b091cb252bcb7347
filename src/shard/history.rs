//! History on the shard that a message was published on: appended here, and read for whoever asks.
//!
//! A question names a lane of a stream and how far it was read; the answer is a page of records and how far it
//! is read now. Pages come out of memory or, by a scan that the driver has done, out of buckets; no file is
//! touched here. A question that follows waits at the end of its lane until something is appended: so who goes
//! on with what is published reads the same lane by the same cursor as who reads what was kept, and there is
//! no place between the two where a message could be lost or come twice.
//!
//! How much a stream may hold counts for all shards together. Each tells shard 0 once a second what it has, and
//! is told which buckets to remove.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::history::range::Micros;
use crate::history::{
    BucketId, Closed, Cursor, Failure, Log, Page, Query, Removal, Scan, Scanned, Step, Write,
};
use crate::limits::HISTORY_PAGES_PER_TURN;
use crate::message::MessageView;
use crate::route::{ShardId, StreamSet};
use crate::session::ReplayKey;
use crate::time::Time;
use crate::wire::Run;

use super::batch::Control;
use super::event::Event;
use super::restore::Epoch;
use super::tables::TimerKey;
use super::{Outbox, Shard};

/// Places of damage that are remembered, so that each is told once.
const KNOWN_FAULTS: usize = 4_096;

/// The shard that sees to it that streams do not hold too much.
const KEEPER: ShardId = ShardId::new(0);

/// A question for the next records of a lane.
#[derive(Debug)]
pub struct HistoryQuestion {
    pub(super) replay: ReplayKey,
    pub(super) stream: usize,
    pub(super) lane: u16,
    pub(super) cursor: Cursor,
    pub(super) query: Query,
    /// The first record that is not wanted; `None` if that is the next one to be appended.
    pub(super) until: Option<(u32, u64)>,
    /// Whether it waits for what is to come.
    pub(super) follows: bool,
    pub(super) page_bytes: usize,
}

/// The answer.
#[derive(Debug)]
pub struct HistoryAnswer {
    pub(super) lane: u16,
    pub(super) page: Page,
    pub(super) cursor: Cursor,
    pub(super) until: (u32, u64),
    /// Whether there is no more.
    pub(super) end: bool,
    /// Records that are gone.
    pub(super) missed: u64,
}

/// What the driver is to do for history.
#[derive(Debug)]
pub enum HistoryJob {
    /// Write a block. Of one stream they are done in their order, and once one has failed all others
    /// to its bucket fail too.
    Write(Write),
    /// Remove a bucket.
    Remove(Removal),
    /// Read a part of a bucket.
    Scan(u64, Box<Scan>),
}

/// What it has done.
#[derive(Debug)]
pub enum HistoryDone {
    /// The oldest write of this stream.
    Written(usize, Result<(), Failure>),
    /// The scan of this number.
    Scanned(u64, Box<Scanned>),
}

/// What a shard has of history.
pub(super) struct Histories {
    pub(super) log: Log,
    epoch: Epoch,
    /// Questions to be worked on.
    asked: VecDeque<Asked>,
    /// Those at the end of their lane.
    waiting: Vec<Asked>,
    /// Those whose scan is done elsewhere.
    scanned: BTreeMap<u64, (Asked, Box<Scan>)>,
    scans: VecDeque<u64>,
    next_scan: u64,
    /// Streams that were appended to since those who wait for that were looked at.
    fresh: BTreeSet<usize>,
    timer: Time,
    faults: BTreeSet<(usize, BucketId, u64)>,
    /// What shard 0 was told of each stream.
    told: Vec<(u64, Vec<Closed>)>,
    /// On shard 0: what each shard has of each stream.
    stored: Vec<BTreeMap<ShardId, (u64, Vec<Closed>)>>,
}

struct Asked {
    from: ShardId,
    question: HistoryQuestion,
    until: (u32, u64),
    missed: u64,
}

impl Histories {
    /// Microseconds since 1970.
    pub(super) fn micros(&self, time: Time) -> Micros {
        self.epoch.0 * 1_000 + time.as_micros()
    }

    /// The point on this process's clock.
    pub(super) fn time(&self, micros: Micros) -> Time {
        Time::from_micros(micros.saturating_sub(self.epoch.0 * 1_000))
    }
}

impl Shard {
    /// Keeps history from here on. Comes before everything else.
    /// `damaged` files are there besides.
    pub fn keep_history(&mut self, log: Log, epoch: Epoch, damaged: u64) {
        self.stats.history_damaged += damaged;
        let streams = log.streams().count();
        self.routes
            .set_streams(log.streams().map(|stream| stream.filter.as_str()));
        self.history = Some(Box::new(Histories {
            log,
            epoch,
            asked: VecDeque::new(),
            waiting: Vec::new(),
            scanned: BTreeMap::new(),
            scans: VecDeque::new(),
            next_scan: 0,
            fresh: BTreeSet::new(),
            timer: Time::NEVER,
            faults: BTreeSet::new(),
            told: vec![(0, Vec::new()); streams],
            stored: vec![BTreeMap::new(); streams],
        }));
    }

    /// A message, or a run, is appended to the streams that keep it.
    pub(super) fn record(
        &mut self,
        streams: StreamSet,
        message: &MessageView<'_>,
        run: Option<Run<'_>>,
        now: Time,
    ) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        let time = history.micros(now);
        let expires_at = match message.expires_at {
            Time::NEVER => None,
            at => Some(history.micros(at)),
        };
        for stream in streams.iter() {
            let messages = message.and_those_of(run);
            let messages = messages.map(|message| (message, expires_at));
            history.log.append(stream, time, messages);
            history.fresh.insert(stream);
        }
        self.arm_history();
    }

    fn arm_history(&mut self) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        if history.timer == Time::NEVER
            && let Some(due) = history.log.due()
        {
            let due = history.time(due);
            history.timer = self.timers.move_to(TimerKey::History, Time::NEVER, due);
        }
    }

    /// The interval of a stream is over.
    pub(super) fn history_due(&mut self, now: Time) {
        if let Some(history) = self.history.as_deref_mut() {
            history.timer = Time::NEVER;
            let now = history.micros(now);
            history.log.tick(now);
        }
        self.arm_history();
    }

    // The driver.

    /// The next thing to do for history; comes again until there is nothing.
    pub fn next_history_job(&mut self, now: Time) -> Option<HistoryJob> {
        let history = self.history.as_deref_mut()?;
        let now = history.micros(now);
        if let Some(write) = history.log.next_write(now) {
            return Some(HistoryJob::Write(write));
        }
        if let Some(removal) = history.log.next_removal() {
            return Some(HistoryJob::Remove(removal));
        }
        while let Some(number) = history.scans.pop_front() {
            if let Some((_, scan)) = history.scanned.get(&number) {
                return Some(HistoryJob::Scan(number, scan.clone()));
            }
        }
        None
    }

    /// Something was done. Returns whether a failure to write begins or ends with it.
    pub fn history_done(&mut self, done: HistoryDone, now: Time, out: &mut Outbox) -> bool {
        let Some(history) = self.history.as_deref_mut() else {
            return false;
        };
        match done {
            HistoryDone::Written(stream, result) => {
                let now = history.micros(now);
                history.log.written(stream, result, now)
            }
            HistoryDone::Scanned(number, found) => {
                self.history_scanned(number, *found, out);
                false
            }
        }
    }

    /// Messages of history that were dropped before they were written.
    #[must_use]
    pub fn history_dropped(&self) -> u64 {
        let history = self.history.as_deref();
        history.map_or(0, |history| history.log.dropped())
    }

    /// Whether nothing of history waits to be written.
    #[must_use]
    pub fn history_is_idle(&self) -> bool {
        let history = self.history.as_deref();
        history.is_none_or(|history| history.log.is_idle())
    }

    /// All of history is to be written: the broker stops.
    pub fn seal_history(&mut self) {
        if let Some(history) = self.history.as_deref_mut() {
            history.log.seal();
        }
    }

    // Copies.

    /// All of history that is there is to be written, and nothing of it removed until
    /// [`Shard::unpin_history`]: somebody copies it. Returns how far each stream has come, for
    /// [`Shard::unwritten_history`].
    pub fn pin_history(&mut self) -> Vec<u64> {
        let history = self.history.as_deref_mut();
        history.map_or_else(Vec::new, |history| history.log.pin())
    }

    /// Nobody copies it any longer.
    pub fn unpin_history(&mut self) {
        if let Some(history) = self.history.as_deref_mut() {
            history.log.unpin();
        }
    }

    /// Messages that came before history was pinned and are not written yet.
    #[must_use]
    pub fn unwritten_history(&self, before: &[u64]) -> u64 {
        let history = self.history.as_deref();
        history.map_or(0, |history| history.log.unwritten(before))
    }

    /// The buckets that are here: of which stream, and how many of their bytes count.
    #[must_use]
    pub fn history_buckets(&self) -> Vec<(Box<str>, BucketId, u64)> {
        let mut buckets = Vec::new();
        if let Some(history) = self.history.as_deref() {
            for (index, stream) in history.log.streams().enumerate() {
                let of = history.log.buckets(index);
                buckets.extend(of.map(|(id, bytes)| (stream.name.as_str().into(), id, bytes)));
            }
        }
        buckets
    }

    // Questions.

    /// Somebody asks for records of a lane that this shard reads.
    pub(super) fn on_history_question(&mut self, from: ShardId, question: HistoryQuestion) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        let place = history.log.place();
        let until = match question.until {
            Some(until) => until,
            None if question.lane == place.shard => history.log.end(question.stream),
            None => (place.run, 0), // nobody writes it any more
        };
        history.asked.push_back(Asked {
            from,
            question,
            until,
            missed: 0,
        });
    }

    /// Nobody waits for these answers any longer.
    pub(super) fn on_history_cancel(&mut self, from: ShardId, replay: ReplayKey) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        let is_other = |asked: &Asked| (asked.from, asked.question.replay) != (from, replay);
        history.asked.retain(is_other);
        history.waiting.retain(is_other);
        history.scanned.retain(|_, (asked, _)| is_other(asked));
    }

    fn history_scanned(&mut self, number: u64, found: Scanned, out: &mut Outbox) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        let Some((mut asked, scan)) = history.scanned.remove(&number) else {
            return;
        };
        for fault in &found.faults {
            use crate::history::bucket::FaultKind;
            if fault.what == FaultKind::Gone {
                continue; // old enough; what was in it is missed
            }
            let place = (scan.stream, scan.bucket, fault.offset);
            if history.faults.len() < KNOWN_FAULTS && history.faults.insert(place) {
                self.stats.history_damaged += 1;
                let stream = history.log.streams().nth(scan.stream);
                out.event(Event::HistoryDamaged {
                    stream: stream.map_or("", |stream| &stream.name).into(),
                    bucket: scan.bucket.file_name().into(),
                    offset: fault.offset,
                    what: fault.what.to_string().into(),
                });
            }
        }
        let cursor = &mut asked.question.cursor;
        history
            .log
            .scanned(cursor, &scan, &found, &mut asked.missed);
        if found.page.count > 0 {
            self.answer_history(asked, found.page, false, out);
        } else {
            history.asked.push_back(asked);
            out.again = true;
        }
    }

    /// Works on some of the questions. Comes at the end of a turn.
    pub(super) fn answer_history_questions(&mut self, out: &mut Outbox) {
        for pages in 0.. {
            let Some(history) = self.history.as_deref_mut() else {
                return;
            };
            if !history.fresh.is_empty() {
                let fresh = std::mem::take(&mut history.fresh);
                let waiting = &mut history.waiting;
                let woken = waiting.extract_if(.., |asked| fresh.contains(&asked.question.stream));
                history.asked.extend(woken);
            }
            if history.asked.is_empty() {
                return;
            }
            if pages == HISTORY_PAGES_PER_TURN {
                out.again = true;
                return;
            }
            let Some(mut asked) = history.asked.pop_front() else {
                return;
            };
            let question = &mut asked.question;
            let place = (question.stream, question.lane);
            let limits = (asked.until, question.page_bytes);
            let cursor = &mut question.cursor;
            let step = history
                .log
                .step(place, cursor, &question.query, limits, &mut asked.missed);
            match step {
                Step::Page(page) if page.count > 0 => {
                    self.answer_history(asked, page, false, out);
                }
                Step::Page(_) => history.asked.push_back(asked),
                Step::Scan(scan) => {
                    history.next_scan += 1;
                    history.scans.push_back(history.next_scan);
                    history.scanned.insert(history.next_scan, (asked, scan));
                }
                Step::End if question.follows && asked.missed == 0 => history.waiting.push(asked),
                Step::End => {
                    let end = !question.follows;
                    self.answer_history(asked, Page::default(), end, out);
                }
            }
        }
    }

    fn answer_history(&mut self, asked: Asked, page: Page, end: bool, out: &mut Outbox) {
        let Asked {
            from,
            question,
            until,
            missed,
        } = asked;
        let answer = HistoryAnswer {
            lane: question.lane,
            page,
            cursor: question.cursor,
            until,
            end,
            missed,
        };
        let replay = question.replay;
        if from == self.identity.shard {
            return self.on_history_answer(replay, answer, out);
        }
        let answer = Control::HistoryAnswer {
            replay,
            answer: Box::new(answer),
        };
        self.mesh.control(from, answer, None, out);
    }

    // What is removed.

    /// Once a second.
    pub(super) fn tend_history(&mut self, now: Time, out: &mut Outbox) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        let now = history.micros(now);
        history.log.expire(now);
        for stream in 0..history.told.len() {
            let stored = history.log.stored(stream);
            if self.identity.shard == KEEPER {
                history.stored[stream].insert(KEEPER, stored);
            } else if history.told[stream] != stored {
                history.told[stream].clone_from(&stored);
                let (bytes, closed) = stored;
                let told = Control::HistoryStored {
                    stream,
                    bytes,
                    closed,
                };
                self.mesh.control(KEEPER, told, None, out);
            }
        }
        if self.identity.shard == KEEPER {
            self.make_room_for_history(out);
        }
    }

    /// Another shard says what it has of a stream.
    pub(super) fn on_history_stored(
        &mut self,
        from: ShardId,
        stream: usize,
        stored: (u64, Vec<Closed>),
    ) {
        let history = self.history.as_deref_mut();
        if let Some(known) = history.and_then(|history| history.stored.get_mut(stream)) {
            known.insert(from, stored);
        }
    }

    /// Buckets are to be removed.
    pub(super) fn on_history_remove(&mut self, stream: usize, buckets: &[BucketId]) {
        if let Some(history) = self.history.as_deref_mut() {
            history.log.remove(stream, buckets);
        }
    }

    /// Has the oldest buckets removed of each stream that holds too much.
    fn make_room_for_history(&mut self, out: &mut Outbox) {
        let Some(history) = self.history.as_deref_mut() else {
            return;
        };
        let limits: Vec<u64> = history
            .log
            .streams()
            .map(|stream| stream.keep_bytes)
            .collect();
        for (stream, (stored, limit)) in history.stored.iter_mut().zip(limits).enumerate() {
            let mut bytes: u64 = stored.values().map(|(bytes, _)| bytes).sum();
            if bytes <= limit {
                continue;
            }
            let mut oldest: Vec<(Micros, BucketId, u64, ShardId)> = Vec::new();
            for (&shard, (_, closed)) in stored.iter() {
                let closed = closed.iter();
                oldest.extend(closed.map(|known| (known.start, known.bucket, known.bytes, shard)));
            }
            oldest.sort_unstable_by_key(|&(start, bucket, ..)| (bucket.run, start, bucket));
            let mut removals: BTreeMap<ShardId, Vec<BucketId>> = BTreeMap::new();
            for (_, bucket, size, shard) in oldest {
                if bytes <= limit {
                    break;
                }
                bytes -= size;
                removals.entry(shard).or_default().push(bucket);
                if let Some((bytes, closed)) = stored.get_mut(&shard) {
                    *bytes -= size;
                    closed.retain(|known| known.bucket != bucket);
                }
            }
            for (shard, buckets) in removals {
                if shard == KEEPER {
                    history.log.remove(stream, &buckets);
                } else {
                    let remove = Control::HistoryRemove { stream, buckets };
                    self.mesh.control(shard, remove, None, out);
                }
            }
        }
    }
}
