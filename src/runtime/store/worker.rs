//! A thread that does what it is given until whoever started it is gone.
//!
//! It shares its core with a shard that is busy, and a client waits for what it does: a sync has to begin when
//! it can, not when the shard has used up its time. Two things see to that, measured with 50,000 messages a
//! second, each of which waits for its sync, on a core of which the shard used three quarters:
//!
//! - Its time slice is short, so that it is let in before a thread with a longer one.
//! - It parks at once where there is nothing to do. A channel's own way to wait yields the core first, and
//!   whoever yields is not given it again for 1.3 ms.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};

use super::super::sys;

/// The end of the one who gives. Dropping it cuts the thread off and waits until it has ended.
#[derive(Debug)]
pub(super) struct Worker<J> {
    jobs: Option<Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

/// The end of the thread: what it is to do, in order.
pub(super) struct Jobs<J>(Receiver<J>);

impl<J> Jobs<J> {
    /// A job if there is one.
    pub(super) fn try_next(&self) -> Result<J, TryRecvError> {
        self.0.try_recv()
    }
}

/// Waits for each job, and ends when nobody can give one any more.
impl<J> Iterator for Jobs<J> {
    type Item = J;

    fn next(&mut self) -> Option<J> {
        loop {
            match self.0.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => std::thread::park(),
            }
        }
    }
}

impl<J: Send + 'static> Worker<J> {
    /// Starts the thread, which ends when `work` does: at the latest when there are no more jobs. What waits
    /// is not bounded here but by what the callers ask for at a time.
    pub(super) fn start(
        name: String,
        work: impl FnOnce(Jobs<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, todo) = unbounded();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            sys::shorten_time_slice();
            work(Jobs(todo));
        })?;
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
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
