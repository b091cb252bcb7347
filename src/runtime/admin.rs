//! Questions to the shards from a thread that is none: each has a bounded channel of them and a bell
//! that wakes the shard, which answers in its own turn with a copy. So nobody who asks stops a shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use crate::limits::ADMIN_QUESTIONS;
use crate::shard::Loads;
use crate::stats::Stats;

use super::mesh::Door;
use super::meters::Meters;

/// How a shard stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) stats: Stats,
    pub(super) meters: Meters,
    pub(super) loads: Loads,
}

/// Somebody asks a shard how it stands.
#[derive(Debug)]
pub(super) struct Question(oneshot::Sender<Box<Snapshot>>);

impl Question {
    /// Never waits; whoever asked may have gone.
    pub(super) fn answer(self, snapshot: Snapshot) {
        let _ = self.0.send(Box::new(snapshot));
    }
}

/// What a shard said, and how long it took to.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) snapshot: Box<Snapshot>,
    pub(super) took: Duration,
}

/// Asks the shards.
#[derive(Debug)]
pub(super) struct Asker {
    shards: Vec<Sender<Question>>,
    doors: Arc<[Door]>,
}

impl Asker {
    /// For the shards behind these doors, and what each of them gets its questions from.
    pub(super) fn new(doors: Arc<[Door]>) -> (Self, Vec<Receiver<Question>>) {
        let (shards, receivers) = doors.iter().map(|_| bounded(ADMIN_QUESTIONS)).unzip();
        (Self { shards, doors }, receivers)
    }

    /// Asks all shards at once, and waits for each until `patience` is over. `None` for a shard that
    /// does not answer, because it is busy for so long or stands still.
    pub(super) async fn ask(&self, patience: Duration) -> Vec<Option<Answer>> {
        let asked = Instant::now();
        let pending: Vec<_> = self
            .shards
            .iter()
            .zip(self.doors.iter())
            .map(|(shard, door)| {
                let (reply, answer) = oneshot::channel();
                shard.try_send(Question(reply)).ok()?;
                door.ring_bell();
                Some(answer)
            })
            .collect();
        let mut answers = Vec::with_capacity(pending.len());
        for answer in pending {
            let left = patience.saturating_sub(asked.elapsed());
            let answer = match answer {
                Some(answer) => tokio::time::timeout(left, answer).await.ok(),
                None => None,
            };
            answers.push(answer.and_then(Result::ok).map(|snapshot| Answer {
                snapshot,
                took: asked.elapsed(),
            }));
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::mesh;

    #[test]
    fn a_shard_that_does_not_answer_holds_up_nobody() {
        let bells = (0..2).map(|_| mesh::Bell::new().unwrap()).collect();
        let (_meshes, doors) = mesh::build(bells);
        let (asker, mut receivers) = Asker::new(doors);
        let silent = receivers.pop().unwrap();
        let questions = receivers.pop().unwrap();
        let shard = std::thread::Builder::new().spawn(move || {
            for question in questions {
                question.answer(Snapshot {
                    stats: Stats::default(),
                    meters: Meters::default(),
                    loads: Loads::default(),
                });
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        for _ in 0..ADMIN_QUESTIONS + 2 {
            let answers = runtime.block_on(asker.ask(Duration::from_millis(20)));
            assert!(answers[1].is_none());
            // Sooner or later: the thread may just not run.
            assert_eq!(answers.len(), 2);
        }
        assert_eq!(silent.len(), ADMIN_QUESTIONS, "its questions are bounded");
        let answered = (0..1_000).any(|_| {
            let answers = runtime.block_on(asker.ask(Duration::from_millis(20)));
            answers[0].is_some()
        });
        assert!(answered);
        drop(asker);
        shard.unwrap().join().unwrap();
    }
}
