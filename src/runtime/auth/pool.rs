//! The threads that hash: as many as there is spare time for, at the lowest priority, so that a storm of
//! logins takes what the shards leave over.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

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

/// A question on its way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) shard: usize,
    pub(super) question: Question,
    pub(super) asked_at: Time,
    /// The place in the chain to go on from.
    pub(super) from: usize,
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
    questions: Sender<Asked>,
    chain: Current,
}

/// How the pool works.
pub(super) struct Work {
    pub(super) threads: usize,
    pub(super) patience: Duration,
    pub(super) asker: Option<(HttpAsker, Option<Secure>)>,
}

/// What a thread works with.
struct Worker {
    questions: Receiver<Asked>,
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
        let (questions, asked) = bounded(AUTH_QUEUE);
        let http = match asker {
            Some(asker) => Some(http::start(asker, answers.clone(), questions.clone())?),
            None => None,
        };
        let chain = Arc::new(Mutex::new(chain));
        for thread in 0..threads {
            let worker = Worker {
                questions: asked.clone(),
                answers: answers.clone(),
                chain: Arc::clone(&chain),
                http: http.clone(),
                clock,
                patience,
            };
            thread::Builder::new()
                .name(format!("auth{thread}"))
                .spawn(move || worker.work())?;
        }
        Ok(Self { questions, chain })
    }

    /// Where to ask.
    pub(super) fn questions(&self) -> Sender<Asked> {
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
        for asked in &self.questions {
            let waited = self.clock.now().micros_since(asked.asked_at);
            if u128::from(waited) > self.patience.as_micros() {
                continue; // its connection is gone by now
            }
            let chain = Arc::clone(&self.chain.lock().unwrap_or_else(PoisonError::into_inner));
            match chain.ask(&asked.credentials(), asked.from, unix_now()) {
                Next::Decided(decision) => self.answers.give(&asked, decision),
                Next::Http { then } => self.ask_by_http(asked, then),
            }
        }
    }
}

impl Worker {
    fn ask_by_http(&self, asked: Asked, then: usize) {
        let unheard = match &self.http {
            Some(http) => match http.try_send((asked, then)) {
                Ok(()) => return,
                Err(TrySendError::Full((asked, _)) | TrySendError::Closed((asked, _))) => asked,
            },
            None => asked,
        };
        let busy = Decision::Deny(ReasonCode::ServerBusy);
        self.answers.give(&unheard, busy);
    }
}

/// Seconds of Unix.
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
