//! Start and stop of the whole broker.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use crate::limits::MAX_SHARDS;
use crate::policy::{Open, Policy};
use crate::route::ShardId;
use crate::shard::{Identity, Settings};
use crate::time::Time;

use super::clock::Clock;
use super::driver::{Common, Driver, DriverOptions};
use super::error::BootError;
use super::listener::{ListenAddress, Listener, listen};
use super::mesh::{self, Door};
use super::net::probe;
use super::signals::Catcher;
use super::sys::{self, Resource};

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

/// Descriptors that the process needs besides its connections: rings, eventfds and listeners of a
/// shard, and the same again for whatever else is open.
const DESCRIPTORS_PER_SHARD: u64 = 32;

/// Signals so close to the first one are the same one: `timeout` and some supervisors send it to the
/// process and to its group.
const ONE_SIGNAL: Time = Time::from_millis(100);

/// What the runtime is started with.
pub struct RuntimeOptions {
    /// Where to listen.
    pub listeners: Vec<ListenAddress>,
    /// Shards; 0 for one on each CPU that this process may use. More than CPUs share them.
    pub shards: usize,
    /// Settings of the protocol.
    pub settings: Settings,
    /// Makes the policy of each shard, on its own thread.
    pub policy: Arc<dyn Fn(ShardId) -> Box<dyn Policy> + Send + Sync>,
    /// Microseconds that a shard under load waits at most to gather messages; 0 for the lowest latency.
    pub gather_us: u32,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections that may wait to be accepted, per shard and listener.
    pub backlog: u32,
    /// How long clients have to take their last bytes when the broker stops.
    pub shutdown_grace: Duration,
    /// Whether SIGTERM and SIGINT stop the broker.
    pub catch_signals: bool,
    /// Called once, when every shard serves every listener.
    pub ready: Box<dyn FnOnce(Started) + Send>,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            shards: 0,
            settings: Settings::default(),
            policy: Arc::new(|_| Box::new(Open)),
            gather_us: 200,
            max_connections: 1_000_000,
            backlog: 4096,
            shutdown_grace: Duration::from_secs(5),
            catch_signals: true,
            ready: Box::new(|_| ()),
        }
    }
}

impl fmt::Debug for RuntimeOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RuntimeOptions")
            .field("listeners", &self.listeners)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// A broker that runs.
#[derive(Clone, Debug)]
pub struct Started {
    /// Names and actual addresses.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Shards, and the CPU of each.
    pub cpus: Vec<usize>,
    /// How the network is driven, for people: what of io_uring this kernel offers.
    pub driver: String,
    /// Connections that the open files limit leaves room for, at most as many as configured.
    pub max_connections: usize,
    /// Stops the broker.
    pub stop: StopHandle,
}

/// Stops a broker from another thread.
#[derive(Clone, Debug)]
pub struct StopHandle {
    events: Sender<Note>,
}

impl StopHandle {
    /// As the first SIGTERM does.
    pub fn stop(&self) {
        // Without a receiver it has stopped already.
        let _ = self.events.send(Note::Stop);
    }
}

/// What the thread that started the shards hears.
#[derive(Debug)]
enum Note {
    /// A shard is ready to serve.
    Ready,
    /// A shard has ended: in order, with an error, or by a panic.
    Ended { shard: usize, panicked: bool },
    /// A signal, or a [`StopHandle`].
    Stop,
}

/// Runs the broker until it is stopped.
///
/// # Errors
///
/// When it cannot start, or when a shard fails.
pub fn run(options: RuntimeOptions) -> Result<(), BootError> {
    let cpus = place(options.shards)?;
    let shards = cpus.len();
    let capabilities = probe(shards)?;
    let max_connections = room_for_connections(options.max_connections, shards)?;
    let listeners = options
        .listeners
        .iter()
        .map(|wanted| listen(wanted, shards, options.backlog))
        .collect::<Result<Vec<Listener>, _>>()?;
    let addresses = listeners
        .iter()
        .map(|listener| (listener.name.clone(), listener.address))
        .collect();
    let bells = (0..shards)
        .map(|_| sys::eventfd())
        .collect::<Result<_, _>>()
        .map_err(|error| BootError::System("open an eventfd", error))?;
    let (meshes, doors) = mesh::build(bells);
    let (events, notes) = unbounded();
    let (go, wait_for_go) = bounded::<()>(shards);
    let common = Common::default();
    let clock = Clock::start();
    let seed = std::hash::RandomState::new().build_hasher().finish();
    let mut broker = Broker {
        shards: Vec::new(),
        doors,
        common,
        notes,
    };
    for ((index, mesh), sockets) in meshes.into_iter().enumerate().zip(split(listeners, shards)) {
        let driver = DriverOptions {
            identity: Identity {
                shard: ShardId::new(index),
                shards,
                seed: seed.wrapping_add(index as u64),
            },
            settings: options.settings.clone(),
            policy: Arc::clone(&options.policy),
            capabilities,
            gather_us: options.gather_us,
            max_connections,
            shutdown_grace: options.shutdown_grace,
            listeners: sockets,
            mesh,
            clock,
            common: broker.common.clone(),
        };
        broker.start(cpus[index], driver, events.clone(), wait_for_go.clone())?;
    }
    broker.await_ready()?;
    let _catcher = match options.catch_signals {
        true => Some(
            Catcher::start(events.clone(), || Note::Stop)
                .map_err(|error| BootError::System("catch signals", error))?,
        ),
        false => None,
    };
    for _ in 0..shards {
        let _ = go.send(());
    }
    (options.ready)(Started {
        listeners: addresses,
        cpus,
        driver: describe(capabilities),
        max_connections,
        stop: StopHandle { events },
    });
    broker.serve(options.shutdown_grace)
}

/// The CPU of each shard.
fn place(shards: usize) -> Result<Vec<usize>, BootError> {
    let allowed = sys::allowed_cpus().map_err(BootError::Cpus)?;
    let wanted = if shards == 0 {
        allowed.len().min(MAX_SHARDS)
    } else {
        shards
    };
    if wanted > MAX_SHARDS {
        return Err(BootError::TooManyShards {
            asked: wanted,
            most: MAX_SHARDS,
        });
    }
    if wanted > allowed.len() {
        tracing::warn!(shards = wanted, cpus = allowed.len(), "shards share CPUs");
    }
    Ok(allowed.iter().copied().cycle().take(wanted).collect())
}

/// Raises the open files limit, and says how many connections it leaves room for.
fn room_for_connections(wanted: usize, shards: usize) -> Result<usize, BootError> {
    let others = DESCRIPTORS_PER_SHARD * (shards as u64 + 1);
    let limit = Resource::OpenFiles
        .raise((wanted as u64).saturating_add(others))
        .map_err(|error| BootError::System("raise the open files limit", error))?;
    let room = usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            max_connections = wanted,
            room,
            "the open files limit leaves room for fewer connections; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    Ok(wanted)
}

fn describe(capabilities: super::net::Capabilities) -> String {
    let mut text = String::from("io_uring");
    for (has, name) in [
        (capabilities.deferred, "deferred task running"),
        (capabilities.incremental, "incremental buffers"),
        (capabilities.min_wait, "gathering waits"),
    ] {
        text.push_str(if has { ", " } else { ", no " });
        text.push_str(name);
    }
    text
}

/// The sockets of each shard, in the order of the listeners.
fn split(listeners: Vec<Listener>, shards: usize) -> Vec<Vec<OwnedFd>> {
    let mut by_shard: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    for listener in listeners {
        for (sockets, socket) in by_shard.iter_mut().zip(listener.sockets) {
            sockets.push(socket);
        }
    }
    by_shard
}

/// The shards as the thread that started them sees them.
struct Broker {
    shards: Vec<Option<ExecutorJoinHandle<Result<(), String>>>>,
    doors: Arc<[Door]>,
    common: Common,
    notes: Receiver<Note>,
}

impl Broker {
    fn start(
        &mut self,
        cpu: usize,
        driver: DriverOptions,
        events: Sender<Note>,
        go: Receiver<()>,
    ) -> Result<(), BootError> {
        let shard = self.shards.len();
        let word = LastWord { shard, events };
        let handle = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(&format!("shard{shard}"))
            .io_memory(GLOMMIO_IO_MEMORY)
            .ring_depth(GLOMMIO_RING_DEPTH)
            .preempt_timer(PREEMPT)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .spawn(move || live(driver, word, go))
            .map_err(|error| BootError::Executor {
                shard,
                text: error.to_string(),
            })?;
        self.shards.push(Some(handle));
        Ok(())
    }

    /// Waits until every shard could serve.
    fn await_ready(&mut self) -> Result<(), BootError> {
        let mut ready = 0;
        while ready < self.shards.len() {
            match self.notes.recv() {
                Ok(Note::Ready) => ready += 1,
                Ok(note) => self.check(&note)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Waits for the stop, and for the shards after it.
    fn serve(mut self, grace: Duration) -> Result<(), BootError> {
        loop {
            match self.notes.recv() {
                Ok(Note::Stop) | Err(_) => break,
                Ok(note) => self.check(&note)?,
            }
        }
        tracing::info!(
            "stopping: clients are told, for at most {} s",
            grace.as_secs_f32()
        );
        self.common.stop.store(true, Ordering::SeqCst);
        for door in self.doors.iter() {
            door.ring_bell();
        }
        let mut running = self.shards.len();
        let stopping = Clock::start();
        while running > 0 {
            match self.notes.recv() {
                Ok(Note::Ended {
                    panicked: false, ..
                }) => running -= 1,
                Ok(Note::Stop) if stopping.now() < ONE_SIGNAL => {}
                Ok(Note::Stop) => return Err(BootError::Interrupted),
                Ok(note) => self.check(&note)?,
                Err(_) => break,
            }
        }
        (0..self.shards.len()).try_for_each(|shard| self.join(shard))
    }

    /// Whether a note says that something is wrong.
    fn check(&mut self, note: &Note) -> Result<(), BootError> {
        match *note {
            Note::Ready => Ok(()),
            Note::Stop => Err(BootError::Interrupted),
            Note::Ended {
                shard,
                panicked: true,
            } => Err(BootError::Panicked { shard }),
            Note::Ended {
                shard,
                panicked: false,
            } => {
                self.join(shard)?;
                Err(BootError::Executor {
                    shard,
                    text: String::from("it ended unasked"),
                })
            }
        }
    }

    /// Waits for the thread of a shard that has ended, and asks how.
    fn join(&mut self, shard: usize) -> Result<(), BootError> {
        let Some(handle) = self.shards.get_mut(shard).and_then(Option::take) else {
            return Ok(());
        };
        let text = match handle.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(text)) => text,
            Err(error) => error.to_string(),
        };
        Err(BootError::Executor { shard, text })
    }
}

/// Tells of the end of a shard, however it comes: also if the executor never gets to our code.
struct LastWord {
    shard: usize,
    events: Sender<Note>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let _ = self.events.send(Note::Ended {
            shard: self.shard,
            panicked,
        });
    }
}

/// The life of one shard.
async fn live(options: DriverOptions, word: LastWord, go: Receiver<()>) -> Result<(), String> {
    let driver = Driver::new(options).map_err(|error| error.to_string())?;
    let _ = word.events.send(Note::Ready);
    // An error means that another shard could not start.
    if go.recv().is_ok() {
        driver.run().await;
    }
    Ok(())
}
