//! A thread that does what it is given until whoever started it is gone.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// The end of the one who gives. Dropping it cuts the thread off and waits until it has ended.
#[derive(Debug)]
pub(super) struct Worker<J> {
    jobs: Option<Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts the thread, which ends when `work` does: at the latest when its receiver is cut off. What waits
    /// is not bounded here but by what the callers ask for at a time.
    pub(super) fn start(
        name: String,
        work: impl FnOnce(Receiver<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, todo) = unbounded();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || work(todo))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Gives it something to do.
    pub(super) fn give(&self, job: J) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
