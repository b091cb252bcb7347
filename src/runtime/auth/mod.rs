//! Who may come in, as far as it takes files, threads and time.
//!
//! A shard that cannot answer at once puts its question to the [`Desk`]; threads of the lowest priority take
//! them one by one, hash, and put the answer into the shard's channel, whose bell they ring. Both ways are
//! bounded: when [`crate::limits::AUTH_QUEUE`] questions wait, the next client is told that the server is
//! busy, and a question whose client cannot be waiting any longer is thrown away unanswered.
//!
//! The files are read by the thread that waits for signals, at the start and at SIGHUP; each time as a
//! whole, so that a mistake in one of them changes nothing.

mod files;
mod http;
mod https;
mod pool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::limits::{AUTH_ANSWERS, MAX_AUTH_THREADS};
use crate::policy::{Decision, Entrance, GuardOptions, Method, TokenOptions};
use crate::shard::{Question, Ticket};
use crate::time::Time;

use super::clock::Clock;
use super::mesh::Door;

pub use files::FileError;
use files::Files;
pub use http::{BadUrl, HttpAsker, HttpUrl};
use https::Secure;
use pool::{Asked, Busy, Pool, Questions};

/// Who may come in and what he may do, as an operator wants it.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    /// The ways to show who one is, in their order.
    pub methods: Vec<Method>,
    /// What each listener wants, in their order.
    pub entrances: Vec<Entrance>,
    /// User names and hashed passwords.
    pub password_file: Option<PathBuf>,
    /// Keys that sign tokens: a JSON Web Key Set.
    pub jwks_file: Option<PathBuf>,
    /// What a token has to say.
    pub tokens: TokenOptions,
    /// Who is asked by HTTP.
    pub http: Option<HttpAsker>,
    /// Who may do what.
    pub acl_file: Option<PathBuf>,
    /// Whether a 3.1.1 client that may not publish is cut off.
    pub disconnects_denied: bool,
    /// Threads that hash; 0 for half as many as there are CPUs.
    pub threads: usize,
    /// How long a client waits for an answer at most.
    pub patience: Duration,
}

/// What comes to a shard from here.
#[derive(Debug)]
pub(super) enum News {
    /// An answer, and when the question was put.
    Answer(Ticket, Decision, Time),
    /// The files were read anew.
    Changed(Arc<GuardOptions>),
}

/// A shard's end.
#[derive(Debug)]
pub(super) struct Desk {
    shard: usize,
    questions: Option<Questions>,
    news: Receiver<News>,
}

impl Desk {
    /// Whose it is.
    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    /// Puts a question; gives its ticket back if too many wait.
    pub(super) fn ask(&self, question: Question, now: Time) -> Result<(), Ticket> {
        let ticket = question.ticket;
        let Some(questions) = &self.questions else {
            return Ok(()); // whoever gave the shard its own policy answers by himself
        };
        let asked = Asked {
            shard: self.shard,
            question,
            asked_at: now,
        };
        questions.put(Arc::new(asked), 0).map_err(|Busy| ticket)
    }

    /// What has come, so much as one turn takes.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter().take(AUTH_ANSWERS)
    }

    /// Whether more has come.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }
}

/// The side that is no shard.
#[derive(Debug)]
pub(super) struct Auth {
    files: Files,
    pool: Pool,
    shards: Arc<[Sender<News>]>,
    doors: Arc<[Door]>,
    guard: Arc<GuardOptions>,
}

/// Desks that nobody sits behind, for shards that were given a policy of their own.
pub(super) fn closed_desks(shards: usize) -> Vec<Desk> {
    (0..shards)
        .map(|shard| Desk {
            shard,
            questions: None,
            news: crossbeam_channel::never(),
        })
        .collect()
}

impl Auth {
    /// Reads the files and starts the threads. Returns the desks of the shards too.
    pub(super) fn start(
        options: AuthOptions,
        doors: Arc<[Door]>,
        cpus: usize,
        clock: Clock,
    ) -> Result<(Self, Vec<Desk>), StartError> {
        let threads = match options.threads {
            0 => (cpus / 2).clamp(1, MAX_AUTH_THREADS),
            threads => threads,
        };
        let patience = options.patience;
        let asker = options.http.clone();
        let asker = asker.map(|asker| Secure::load(&asker).map(|tls| (asker, tls)));
        let asker = asker.transpose().map_err(StartError::Https)?;
        let files = Files::new(options);
        let loaded = files.load().map_err(StartError::File)?;
        let (shards, receivers): (Vec<_>, Vec<_>) = doors.iter().map(|_| unbounded()).unzip();
        let shards: Arc<[Sender<News>]> = shards.into();
        let answers = pool::Answers {
            shards: Arc::clone(&shards),
            doors: Arc::clone(&doors),
        };
        let work = pool::Work {
            threads,
            patience,
            asker,
        };
        let pool = Pool::start(loaded.chain, answers, work, clock).map_err(StartError::Thread)?;
        let desks = receivers
            .into_iter()
            .enumerate()
            .map(|(shard, news)| Desk {
                shard,
                questions: Some(pool.questions()),
                news,
            })
            .collect();
        let auth = Self {
            files,
            pool,
            shards,
            doors,
            guard: loaded.guard,
        };
        Ok((auth, desks))
    }

    /// What the shards begin with.
    pub(super) fn guard(&self) -> Arc<GuardOptions> {
        Arc::clone(&self.guard)
    }

    /// Reads the files again, and puts what they say in the place of what holds, if all of it is right.
    pub(super) fn reload(&self) {
        match self.files.load() {
            Ok(loaded) => {
                tracing::info!("{loaded}: read again, in force");
                self.pool.replace(loaded.chain);
                for (shard, door) in self.shards.iter().zip(self.doors.iter()) {
                    let _ = shard.send(News::Changed(Arc::clone(&loaded.guard)));
                    door.ring_bell();
                }
            }
            Err(error) => tracing::error!("nothing was changed: {error}"),
        }
    }
}

/// Why nobody can be let in.
#[derive(Debug)]
pub(super) enum StartError {
    /// A file is not as it should be.
    File(FileError),
    /// The HTTP authenticator cannot be trusted.
    Https(String),
    /// A thread could not be started.
    Thread(std::io::Error),
}
