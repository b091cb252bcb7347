//! The threads that hash: as many as there is spare time for, at the lowest priority, so that a storm of
//! logins takes what the shards leave over.
//!
//! Where nothing is left over they would stand still, and nobody could log in to a machine that is busy. So one
//! more thread, of usual priority, looks after them: where nothing was answered for [`STANDSTILL`] it answers in
//! their place, with a tenth of a core at most. (A priority between the two was measured, nice 10 with a time
//! slice of 0.1 ms: it raised the p99 of connected clients by half, the lowest one by a tenth.)

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;

use crate::limits::AUTH_QUEUE;
use crate::policy::{Chain, Credentials, Decision, Next};
use crate::shard::Question;
use crate::time::Time;
use crate::wire::ReasonCode;

use super::super::clock::Clock;
use super::super::mesh::Door;
use super::super::sys;
use super::News;
use super::http::{self, HttpAsker, Put};
use super::https::Secure;

/// How long the threads that hash may answer nothing, before they are helped.
const STANDSTILL: Duration = Duration::from_millis(500);

/// For one part of its time the thread that helps rests so many.
const REST: u32 = 9;

/// A question on its way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) shard: usize,
    pub(super) question: Question,
    pub(super) asked_at: Time,
}

/// A question that stands at a place of the chain.
#[derive(Debug)]
struct Step {
    asked: Arc<Asked>,
    /// The place in the chain to go on from.
    from: usize,
    /// Somebody has gone on from there.
    done: AtomicBool,
}

impl Step {
    /// Whether the caller is the one to go on.
    fn finish(&self) -> bool {
        !self.done.swap(true, Ordering::Relaxed)
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    pool: Sender<Arc<Step>>,
    /// To the thread that looks after the others.
    helper: Sender<Arc<Step>>,
}

/// Too many wait.
#[derive(Debug)]
pub(super) struct Busy;

impl Questions {
    /// Asks, from a place of the chain on.
    pub(super) fn put(&self, asked: Arc<Asked>, from: usize) -> Result<(), Busy> {
        let step = Arc::new(Step {
            asked,
            from,
            done: AtomicBool::new(false),
        });
        self.pool.try_send(Arc::clone(&step)).map_err(|_| Busy)?;
        // Without room there, so many others are looked after that the pool is helped by that.
        let _ = self.helper.try_send(step);
        Ok(())
    }
}

impl Asked {
    fn credentials(&self) -> Credentials<'_> {
        let Question {
            client_id,
            username,
            password,
            peer,
            ..
        } = &self.question;
        peer.credentials(client_id, username.as_deref(), password.as_deref())
    }
}

/// The way back.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) shards: Arc<[Sender<News>]>,
    pub(super) doors: Arc<[Door]>,
}

impl Answers {
    pub(super) fn give(&self, asked: &Asked, decision: Decision) {
        let Asked {
            shard,
            question,
            asked_at,
            ..
        } = asked;
        if let (Some(news), Some(door)) = (self.shards.get(*shard), self.doors.get(*shard)) {
            let _ = news.send(News::Answer(question.ticket, decision, *asked_at));
            door.ring_bell();
        }
    }
}

/// The chain that holds now.
type Current = Arc<Mutex<Arc<Chain>>>;

/// The threads; they end when nobody can ask any more.
#[derive(Debug)]
pub(super) struct Pool {
    questions: Questions,
    chain: Current,
}

/// How the pool works.
pub(super) struct Work {
    pub(super) threads: usize,
    pub(super) patience: Duration,
    pub(super) asker: Option<(HttpAsker, Option<Secure>)>,
}

/// What a thread works with.
#[derive(Clone)]
struct Worker {
    questions: Receiver<Arc<Step>>,
    /// Questions that were answered, or thrown away, by any thread.
    progress: Arc<AtomicU64>,
    answers: Answers,
    chain: Current,
    http: Option<mpsc::Sender<Put>>,
    clock: Clock,
    patience: Duration,
}

impl Pool {
    pub(super) fn start(
        chain: Arc<Chain>,
        answers: Answers,
        work: Work,
        clock: Clock,
    ) -> io::Result<Self> {
        let Work {
            threads,
            patience,
            asker,
        } = work;
        let (pool, steps) = bounded(AUTH_QUEUE);
        let (helper, watched) = bounded(AUTH_QUEUE);
        let questions = Questions { pool, helper };
        let http = match asker {
            Some(asker) => Some(http::start(asker, answers.clone(), questions.clone())?),
            None => None,
        };
        let chain = Arc::new(Mutex::new(chain));
        let worker = Worker {
            questions: steps,
            progress: Arc::default(),
            answers,
            chain: Arc::clone(&chain),
            http,
            clock,
            patience,
        };
        for thread in 0..threads {
            let worker = worker.clone();
            thread::Builder::new()
                .name(format!("auth{thread}"))
                .spawn(move || worker.work())?;
        }
        thread::Builder::new()
            .name(String::from("auth-helper"))
            .spawn(move || worker.help(&watched))?;
        Ok(Self { questions, chain })
    }

    /// Where to ask.
    pub(super) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Puts another chain in the place of the one that holds.
    pub(super) fn replace(&self, chain: Arc<Chain>) {
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
    }
}

impl Worker {
    fn work(self) {
        if let Err(error) = sys::yield_to_others() {
            tracing::warn!(%error, "a thread that hashes passwords keeps its priority");
        }
        for step in &self.questions {
            self.go_on(&step);
        }
    }

    /// Looks after the others: waits for each question to be answered, and answers where nobody does.
    fn help(&self, watched: &Receiver<Arc<Step>>) {
        let mut seen = (self.progress.load(Ordering::Relaxed), Instant::now());
        for step in watched {
            let begin = Instant::now();
            while !step.is_done() {
                let progress = self.progress.load(Ordering::Relaxed);
                if progress != seen.0 {
                    seen = (progress, Instant::now());
                }
                // Before it was asked, nothing was to be done.
                let still = STANDSTILL.saturating_sub(seen.1.max(begin).elapsed());
                if !still.is_zero() {
                    thread::sleep(still);
                    continue;
                }
                let begin = Instant::now();
                self.go_on(&step);
                // Its own answers are no sign that the others move.
                seen.0 = self.progress.load(Ordering::Relaxed);
                thread::sleep(begin.elapsed() * REST);
            }
        }
    }

    /// Asks the chain from this step on.
    fn go_on(&self, step: &Step) {
        if step.is_done() {
            return;
        }
        let asked = &step.asked;
        let waited = self.clock.now().micros_since(asked.asked_at);
        let next = (u128::from(waited) <= self.patience.as_micros()).then(|| {
            let chain = Arc::clone(&self.chain.lock().unwrap_or_else(PoisonError::into_inner));
            chain.ask(&asked.credentials(), step.from, unix_now())
        });
        if !step.finish() {
            return;
        }
        self.progress.fetch_add(1, Ordering::Relaxed);
        match next {
            Some(Next::Decided(decision)) => self.answers.give(asked, decision),
            Some(Next::Http { then }) => self.ask_by_http(asked, then),
            None => {} // its connection is gone by now
        }
    }

    fn ask_by_http(&self, asked: &Arc<Asked>, then: usize) {
        let put = |http: &mpsc::Sender<Put>| http.try_send((Arc::clone(asked), then)).is_ok();
        if !self.http.as_ref().is_some_and(put) {
            let busy = Decision::Deny(ReasonCode::ServerBusy);
            self.answers.give(asked, busy);
        }
    }
}

/// Seconds of Unix.
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::super::mesh::{self, Bell};
    use super::*;
    use crate::session::Peer;
    use crate::shard::Ticket;

    const WAIT: Duration = Duration::from_secs(30);

    fn asked(ticket: u64) -> Arc<Asked> {
        Arc::new(Asked {
            shard: 0,
            question: Question {
                ticket: Ticket(ticket),
                client_id: "c".into(),
                username: None,
                password: None,
                peer: Peer::new(0, SocketAddr::from(([127, 0, 0, 1], 1))),
            },
            asked_at: Time::from_micros(0),
        })
    }

    /// A pool of so many threads that denies everybody, and what it answers.
    fn pool(threads: usize) -> (Pool, Receiver<News>) {
        let (_meshes, doors) = mesh::build(vec![Bell::new().unwrap()]);
        let (shard, news) = crossbeam_channel::unbounded();
        let answers = Answers {
            shards: Arc::from([shard]),
            doors,
        };
        let work = Work {
            threads,
            patience: WAIT,
            asker: None,
        };
        let pool = Pool::start(Arc::default(), answers, work, Clock::start()).unwrap();
        (pool, news)
    }

    fn answered(news: &Receiver<News>) -> Ticket {
        match news.recv_timeout(WAIT).expect("an answer") {
            News::Answer(ticket, Decision::Deny(_), _) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_are_answered_where_the_pool_stands_still() {
        let (pool, news) = pool(0);
        for ticket in 0..3 {
            pool.questions().put(asked(ticket), 0).unwrap();
        }
        for ticket in 0..3 {
            assert_eq!(answered(&news), Ticket(ticket));
        }
    }

    #[test]
    fn each_question_is_answered_once() {
        let (pool, news) = pool(3);
        for ticket in 0..2_000 {
            pool.questions().put(asked(ticket), 0).unwrap();
        }
        let mut tickets: Vec<Ticket> = (0..2_000).map(|_| answered(&news)).collect();
        tickets.sort();
        assert!(tickets.iter().map(|ticket| ticket.0).eq(0..2_000));
        let nobody = news.recv_timeout(STANDSTILL * 2);
        assert!(nobody.is_err(), "{nobody:?} is one more");
    }

    #[test]
    fn one_of_two_that_go_on_from_a_step_does_so() {
        let step = Step {
            asked: asked(1),
            from: 0,
            done: AtomicBool::new(false),
        };
        assert!(!step.is_done());
        assert!(step.finish());
        assert!(!step.finish());
        assert!(step.is_done());
    }
}
