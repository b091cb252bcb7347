//! The threads of the shards: executors of glommio for io_uring, plain threads for epoll.
//!
//! glommio needs io_uring itself, and panics with a misleading text where that is not to be had. So with
//! epoll nothing of it is touched. A shard does not notice the difference: it is the same driver
//! on a thread that is bound to the same CPU.

use std::any::Any;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::driver::{Driver, DriverOptions};
use super::sys;

/// Bytes that glommio may use for registered buffers of its own file operations. We make none, so
/// this is its smallest; the default of 10 MiB counts against RLIMIT_MEMLOCK.
const GLOMMIO_IO_MEMORY: usize = 64 * 1024;

/// Entries of each of glommio's three rings.
const GLOMMIO_RING_DEPTH: usize = 32;

/// glommio's preemption timer: so long that it never fires. The driver is the only task of its
/// executor, so nothing waits for a turn; and a timer that fires between the arming and the run of the
/// task queues, because the kernel took the thread off its core for that long, makes glommio 0.9.0 take
/// a runnable task for none and sleep for ever (`run_task_queues` says that it ran nothing; a QoS 1
/// ping-pong on a loaded machine stalled within 20,000 round trips at 5 ms).
const PREEMPT: Duration = Duration::from_secs(24 * 3600);

/// What the thread that started the shards hears.
#[derive(Debug)]
pub(super) enum Note {
    /// A shard is ready to serve.
    Ready,
    /// A shard has ended: in order, with an error, or by a panic.
    Ended { shard: usize, panicked: bool },
    /// A signal, or a [`super::StopHandle`].
    Stop,
    /// SIGHUP: files are to be read again.
    Reload,
}

/// How a shard tells its starter, and when it may begin.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) events: Sender<Note>,
    pub(super) go: Receiver<()>,
}

impl Starter {
    pub(super) fn new(events: &Sender<Note>, go: Receiver<()>) -> Self {
        Self {
            events: events.clone(),
            go,
        }
    }
}

/// A thread that runs a shard.
pub(super) enum Thread {
    Executor(ExecutorJoinHandle<Result<(), String>>),
    Plain(std::thread::JoinHandle<Result<(), String>>),
}

impl Thread {
    /// Starts shard number `shard` on `cpu`.
    pub(super) fn start(
        shard: usize,
        cpu: usize,
        driver: DriverOptions,
        starter: Starter,
    ) -> Result<Self, String> {
        let name = format!("shard{shard}");
        let word = LastWord { shard, starter };
        if driver.net.capabilities().is_none() {
            return std::thread::Builder::new()
                .name(name)
                .spawn(move || live_alone(driver, &word, cpu))
                .map(Self::Plain)
                .map_err(|error| error.to_string());
        }
        LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(&name)
            .io_memory(GLOMMIO_IO_MEMORY)
            .ring_depth(GLOMMIO_RING_DEPTH)
            .preempt_timer(PREEMPT)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .spawn(move || live(driver, word))
            .map(Self::Executor)
            .map_err(|error| error.to_string())
    }

    /// Waits for its end, and says how it was.
    pub(super) fn join(self) -> Result<(), String> {
        match self {
            Self::Executor(handle) => handle.join().map_err(|error| error.to_string())?,
            Self::Plain(handle) => handle.join().map_err(|panic| text(&*panic))?,
        }
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

/// Tells of the end of a shard, however it comes: also if the executor never gets to our code.
struct LastWord {
    shard: usize,
    starter: Starter,
}

impl LastWord {
    /// Says that the shard is ready, and waits until all are. `false` if another one could not start.
    fn ready(&self) -> bool {
        let _ = self.starter.events.send(Note::Ready);
        self.starter.go.recv().is_ok()
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let _ = self.starter.events.send(Note::Ended {
            shard: self.shard,
            panicked,
        });
    }
}

/// The life of a shard in an executor.
async fn live(options: DriverOptions, word: LastWord) -> Result<(), String> {
    let mut driver = Driver::new(options).map_err(|error| error.to_string())?;
    let notifier = driver.notifier().map_err(|error| error.to_string())?;
    if word.ready() {
        driver.run(notifier).await;
    }
    Ok(())
}

/// The life of a shard that has its thread for itself.
fn live_alone(options: DriverOptions, word: &LastWord, cpu: usize) -> Result<(), String> {
    if let Err(error) = sys::bind_to_cpu(cpu) {
        // It serves anyway, only less evenly.
        tracing::warn!(shard = word.shard, cpu, %error, "a shard cannot be bound to its CPU");
    }
    let driver = Driver::new(options).map_err(|error| error.to_string())?;
    if word.ready() {
        driver.serve();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_panic_is_found() {
        let fixed = std::panic::catch_unwind(|| panic!("fixed")).unwrap_err();
        assert_eq!(text(&*fixed), "fixed");
        let made = std::panic::catch_unwind(|| panic!("made {}", 1)).unwrap_err();
        assert_eq!(text(&*made), "made 1");
        let other = std::panic::catch_unwind(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(text(&*other), "it panicked");
    }
}
