//! Start and stop of the whole broker.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::history::Stream;
use crate::limits::MAX_SHARDS;
use crate::policy::{Open, Policy};
use crate::route::ShardId;
use crate::shard::{Durability, Durable, Epoch, Identity, Settings};
use crate::time::Time;

use super::admin::Asker;
use super::admission::{authenticators, entrances};
use super::auth::{Auth, AuthOptions};
use super::barrier::{Barrier, Participant};
use super::clock::Clock;
use super::control::{Backups, Control};
use super::driver::{Common, DriverOptions};
use super::error::{BootError, ListenError};
use super::gate::Gate;
use super::historian::HistorianOptions;
use super::http::{self, Facts, HttpAddress};
use super::keeper::KeeperOptions;
use super::listener::{ListenOptions, Listener, Listening, Place, SocketFile, listen};
use super::mesh::{self, Door};
use super::net::{self, Chosen};
use super::signals::{self, Catcher};
use super::store::{Store, open_history};
use super::stores::StoresOptions;
use super::sys::{self, Resource};
use super::threads::{Note, Starter, Thread};
use super::tls::Watcher;

/// Descriptors that a shard needs besides its connections: rings, eventfds, listeners.
const DESCRIPTORS_PER_SHARD: u64 = 16;

/// The same for the process: standard streams, signals, the log, somebody who asks for metrics.
const DESCRIPTORS_OF_PROCESS: u64 = 16;

/// Signals so close to the first one are the same one: `timeout` and some supervisors send it to the
/// process and to its group.
const ONE_SIGNAL: Time = Time::from_millis(100);

/// What the runtime is started with.
pub struct RuntimeOptions {
    /// Where to listen.
    pub listeners: Vec<ListenOptions>,
    /// By which interface of the kernel the network is driven.
    pub driver: net::Driver,
    /// Shards; 0 for one on each CPU that this process may use. More than CPUs share them.
    pub shards: usize,
    /// Settings of the protocol.
    pub settings: Settings,
    /// Makes the policy of each shard, on its own thread, if `auth` does not.
    pub policy: Arc<dyn Fn(ShardId) -> Box<dyn Policy> + Send + Sync>,
    /// Who may come in and what he may do; `None` leaves it to `policy`.
    pub auth: Option<AuthOptions>,
    /// Microseconds that a shard under load waits at most to gather messages; 0 for the lowest latency.
    pub gather_us: u32,
    /// Microseconds that a shard which does not gather looks for the next event before it sleeps.
    pub spin_us: u32,
    /// Connections at a time, if the open files limit leaves room for so many, and fewer otherwise.
    pub max_connections: usize,
    /// Connections a second that a listener accepts, and those from one address; 0 for no bound.
    pub connection_rates: (u32, u32),
    /// Bytes of memory of the process, near which load is shed; 0 for no bound.
    pub max_memory: u64,
    /// Whether somebody counts on that many, and is to be warned if there is no room for them.
    pub counts_on_max_connections: bool,
    /// Connections that may wait to be accepted, per shard and listener.
    pub backlog: u32,
    /// Where to serve metrics and status by HTTP.
    pub http: Option<HttpAddress>,
    /// Time for what comes before CONNECT: TLS, WebSocket, the PROXY protocol.
    pub handshake_timeout: Duration,
    /// How long clients have to take their last bytes when the broker stops.
    pub shutdown_grace: Duration,
    /// Where durable state is kept; nothing is kept without.
    pub store: Option<StoreOptions>,
    /// Whether SIGTERM and SIGINT stop the broker.
    pub catch_signals: bool,
    /// Called once, when all listeners listen and every shard is about to serve them.
    pub ready: Box<dyn FnOnce(Started) + Send>,
}

/// Durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// What is kept, how surely.
    pub durable: Durable,
    /// How often what is kept with [`crate::shard::Durability::Interval`] is synced.
    pub interval: Duration,
    /// History streams.
    pub history: Vec<Stream>,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            driver: net::Driver::Auto,
            shards: 0,
            settings: Settings::default(),
            policy: Arc::new(|_| Box::new(Open)),
            auth: None,
            gather_us: 200,
            spin_us: 0,
            max_connections: 1_000_000,
            connection_rates: (0, 0),
            max_memory: 0,
            counts_on_max_connections: false,
            backlog: 4096,
            http: None,
            handshake_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(5),
            store: None,
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
            .field("driver", &self.driver)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// A broker that runs.
#[derive(Clone, Debug)]
pub struct Started {
    /// Every place that is listened on.
    pub listeners: Vec<Listening>,
    /// Shards, and the CPU of each.
    pub cpus: Vec<usize>,
    /// How the network is driven and why so, for people.
    pub driver: String,
    /// The same for machines: `io_uring` or `epoll`.
    pub driver_name: &'static str,
    /// Where metrics and status are served by HTTP.
    pub http: Option<SocketAddr>,
    /// Connections at a time: as many as configured, or as the open files limit leaves room for.
    pub max_connections: usize,
    /// Stops the broker.
    pub stop: StopHandle,
}

impl Started {
    fn new(
        net: &Chosen,
        (listeners, http, cpus, max_connections): (
            Vec<Listening>,
            Option<SocketAddr>,
            Vec<usize>,
            usize,
        ),
        stop: StopHandle,
    ) -> Self {
        Self {
            listeners,
            http,
            cpus,
            driver: net.to_string(),
            driver_name: net.name(),
            max_connections,
            stop,
        }
    }
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

/// Runs the broker until it is stopped.
///
/// # Errors
///
/// When it cannot start, or when a shard fails.
pub fn run(mut options: RuntimeOptions) -> Result<(), BootError> {
    let cpus = place(options.shards)?;
    let shards = cpus.len();
    let net = choose(options.driver, shards)?;
    let max_connections = room_for_connections(&options, shards)?;
    let mut watcher = Watcher::default();
    let entrances = entrances(&options, &mut watcher)?;
    let listeners = listen_everywhere(&options, shards)?;
    let (sockets, _files, places) = split(listeners, shards);
    let http = options.http.map(http::bind).transpose()?.flatten();
    let (meshes, doors) = mesh::build(bells(shards)?);
    let (asker, questions) = Asker::new(Arc::clone(&doors));
    let (events, notes) = unbounded();
    let (go, wait_for_go) = bounded::<()>(shards);
    let starter = Starter::new(&events, wait_for_go);
    let clock = Clock::start();
    let store = open_store(&options, shards)?;
    let (mut barrier, participants) = Barrier::new(Arc::clone(&doors), clock);
    let keepers = keepers(store.as_ref(), &options, clock, participants);
    let histories = histories(&options, shards, clock, &mut barrier)?;
    let backups = Arc::default();
    let seed = std::hash::RandomState::new().build_hasher().finish();
    let (auth, desks) = authenticators(&mut options, &doors, cpus.len(), clock)?;
    let mut broker = Broker {
        shards: Vec::new(),
        doors,
        common: Common {
            gate: Arc::new(Gate::new(options.connection_rates)),
            ..Common::default()
        },
        notes,
        auth,
    };
    let parts = meshes
        .into_iter()
        .zip(sockets)
        .zip(questions.into_iter().zip(desks));
    for (index, ((mesh, sockets), (questions, desk))) in parts.enumerate() {
        let driver = DriverOptions {
            identity: Identity {
                shard: ShardId::new(index),
                shards,
                seed: seed.wrapping_add(index as u64),
            },
            settings: options.settings.clone(),
            policy: Arc::clone(&options.policy),
            net: net.clone(),
            gather_us: options.gather_us,
            spin_us: options.spin_us,
            max_connections,
            max_memory: options.max_memory,
            shutdown_grace: options.shutdown_grace,
            handshake_timeout: options.handshake_timeout,
            entrances: Arc::clone(&entrances),
            listeners: sockets,
            mesh,
            questions,
            desk,
            stores: StoresOptions {
                keeper: keepers.as_ref().map(|keepers| keepers[index].clone()),
                historian: histories.get(index).cloned(),
            },
            clock,
            common: broker.common.clone(),
        };
        broker.start(cpus[index], driver, starter.clone())?;
    }
    broker.await_ready()?;
    let _catchers = catch_signals(options.catch_signals, &events)?;
    start_watcher(&mut watcher)?;
    let http_address = http.as_ref().map(|bound| bound.address);
    let facts = Facts {
        driver: net.name(),
        driver_detail: net.to_string(),
        kernel: sys::kernel_release(),
        cpus: cpus.clone(),
        listeners: places.clone(),
        certificates: watcher.told(),
        max_connections,
        clock,
        backups: Arc::clone(&backups),
    };
    // Where there are no journals nobody would come to the barrier.
    let store = store.as_ref().filter(|_| keepers.is_some());
    let _control = control(&options, store, barrier, &backups);
    let server = http.map(|bound| http::start(bound, asker, facts));
    let _server = server.transpose().map_err(no_http_thread)?;
    let started = (places, http_address, cpus, max_connections);
    (options.ready)(Started::new(&net, started, StopHandle { events }));
    // Not before: an accept that a ring has taken keeps the limits that held then, and whoever is told may
    // change them.
    (0..shards).for_each(|_| _ = go.send(()));
    broker.serve(options.shutdown_grace, &watcher)
}

fn start_watcher(watcher: &mut Watcher) -> Result<(), BootError> {
    let started = watcher.start();
    started.map_err(|error| BootError::System("start the thread of the certificates", error))
}

fn no_http_thread(error: std::io::Error) -> BootError {
    BootError::System("start the HTTP thread", error)
}

fn catch_signals(wanted: bool, events: &Sender<Note>) -> Result<Vec<Catcher>, BootError> {
    if !wanted {
        return Ok(Vec::new());
    }
    let stop = Catcher::start(signals::STOP, events.clone(), || Note::Stop);
    let reload = Catcher::start(signals::RELOAD, events.clone(), || Note::Reload);
    let fail = |error| BootError::System("catch signals", error);
    Ok(vec![stop.map_err(fail)?, reload.map_err(fail)?])
}

/// A bell for each shard.
fn bells(shards: usize) -> Result<Vec<mesh::Bell>, BootError> {
    let bells = (0..shards).map(|_| mesh::Bell::new());
    bells
        .collect::<Result<_, _>>()
        .map_err(|error| BootError::System("open a pair of sockets", error))
}

/// The data directory, if anything is to be kept in it.
fn open_store(options: &RuntimeOptions, shards: usize) -> Result<Option<Store>, BootError> {
    let Some(wanted) = &options.store else {
        return Ok(None);
    };
    if !keeps_journals(wanted) && wanted.history.is_empty() {
        return Ok(None);
    }
    let store = Store::open(&wanted.directory, shards);
    store.map(Some).map_err(BootError::Store)
}

fn keeps_journals(wanted: &StoreOptions) -> bool {
    wanted.durable.sessions != Durability::Off || wanted.durable.retained != Durability::Off
}

/// What the clock on the wall showed when `clock` started.
fn epoch(clock: Clock) -> Epoch {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
    Epoch(now.saturating_sub(clock.now().as_micros() / 1_000))
}

/// What each shard keeps of history; nothing without a stream.
fn histories(
    options: &RuntimeOptions,
    shards: usize,
    clock: Clock,
    barrier: &mut Barrier,
) -> Result<Vec<HistorianOptions>, BootError> {
    let wanted = options.store.as_ref();
    let Some(wanted) = wanted.filter(|wanted| !wanted.history.is_empty()) else {
        return Ok(Vec::new());
    };
    let opened = open_history(&wanted.directory, &wanted.history, shards, epoch(clock));
    let histories = opened.map_err(BootError::Store)?.into_iter();
    let historians = histories.zip(barrier.with_history());
    let historians = historians.map(|(history, participant)| HistorianOptions {
        history,
        participant,
    });
    Ok(historians.collect())
}

/// What each shard keeps, and where.
fn keepers(
    store: Option<&Store>,
    options: &RuntimeOptions,
    clock: Clock,
    participants: Vec<Participant>,
) -> Option<Vec<KeeperOptions>> {
    let wanted = options
        .store
        .as_ref()
        .filter(|wanted| keeps_journals(wanted));
    let (store, wanted) = (store?, wanted?);
    let epoch = epoch(clock);
    let keeper = |(shard, participant)| KeeperOptions {
        shard,
        files: store.files(shard),
        durable: wanted.durable,
        interval: wanted.interval,
        epoch,
        participant,
    };
    Some(participants.into_iter().enumerate().map(keeper).collect())
}

/// Where a backup is asked for, if there is something to back up.
fn control(
    options: &RuntimeOptions,
    store: Option<&Store>,
    barrier: Barrier,
    backups: &Arc<Backups>,
) -> Option<Control> {
    let (_, wanted) = (store?, options.store.as_ref()?);
    let streams = wanted.history.iter().map(|stream| stream.name.clone());
    let control = Control::start(
        &wanted.directory,
        barrier,
        streams.collect(),
        Arc::clone(backups),
    );
    // A file system without sockets is no reason not to serve.
    control
        .inspect_err(|error| {
            tracing::warn!(%error, "no socket in the data directory: `shardmq store backup` will not \
                work while this broker runs");
        })
        .ok()
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

/// All places of all listeners, with the numbers of these.
fn listen_everywhere(
    options: &RuntimeOptions,
    shards: usize,
) -> Result<Vec<(u16, Listener)>, BootError> {
    let mut all = Vec::new();
    for (number, wanted) in (0..).zip(&options.listeners) {
        for place in &wanted.places {
            all.push((
                number,
                listen_patiently(wanted, place, shards, options.backlog)?,
            ));
        }
    }
    Ok(all)
}

/// The kernel takes the rings of a process that was killed apart after the process is gone, and the
/// listening sockets with them: whoever is started anew at once finds its port in use for a moment.
fn listen_patiently(
    wanted: &ListenOptions,
    place: &Place,
    shards: usize,
    backlog: u32,
) -> Result<Listener, ListenError> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(10);
    let begun = Instant::now();
    loop {
        match listen(wanted, place, shards, backlog) {
            Err(error)
                if error.error.kind() == ErrorKind::AddrInUse && begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// The net driver of this process. What was chosen is told here, since the banner may be off.
fn choose(driver: net::Driver, shards: usize) -> Result<Chosen, BootError> {
    let chosen = net::choose(driver, shards)?;
    match chosen.fallback() {
        // Somebody may have meant to have the faster one: what to do about it is part of the reason.
        Some(reason) => tracing::warn!(driver = chosen.name(), %reason, "io_uring is not used"),
        None => tracing::info!(driver = chosen.name(), "{chosen}"),
    }
    Ok(chosen)
}

/// Raises the open files limit, and says how many connections there may be.
fn room_for_connections(options: &RuntimeOptions, shards: usize) -> Result<usize, BootError> {
    let wanted = options.max_connections;
    let others = DESCRIPTORS_OF_PROCESS + DESCRIPTORS_PER_SHARD * shards as u64;
    let limit = Resource::OpenFiles
        .raise((wanted as u64).saturating_add(others))
        .map_err(|error| BootError::System("raise the open files limit", error))?;
    let room = usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX);
    if room == 0 {
        return Err(BootError::OpenFiles {
            limit,
            needed: others + 1,
        });
    }
    if room < wanted {
        const TEXT: &str = "the open files limit leaves room for fewer connections than \
                            max_connections; to raise it: ulimit -n, LimitNOFILE=";
        if options.counts_on_max_connections {
            tracing::warn!(max_connections = wanted, room, "{TEXT}");
        } else {
            tracing::info!(max_connections = wanted, room, "{TEXT}");
        }
    }
    Ok(room.min(wanted))
}

/// The sockets of each shard, with the numbers of their listeners; the files of Unix sockets; and where
/// it all listens.
fn split(
    listeners: Vec<(u16, Listener)>,
    shards: usize,
) -> (Vec<Sockets>, Vec<SocketFile>, Vec<Listening>) {
    let mut by_shard: Vec<Sockets> = (0..shards).map(|_| Vec::new()).collect();
    let (mut files, mut places) = (Vec::new(), Vec::new());
    for (number, listener) in listeners {
        for (sockets, socket) in by_shard.iter_mut().zip(listener.sockets) {
            sockets.push((number, socket));
        }
        files.extend(listener.file);
        places.push(listener.listening);
    }
    (by_shard, files, places)
}

/// The listening sockets of a shard.
type Sockets = Vec<(u16, OwnedFd)>;

/// The shards as the thread that started them sees them.
struct Broker {
    shards: Vec<Option<Thread>>,
    doors: Arc<[Door]>,
    common: Common,
    notes: Receiver<Note>,
    auth: Option<Auth>,
}

impl Broker {
    fn start(
        &mut self,
        cpu: usize,
        driver: DriverOptions,
        starter: Starter,
    ) -> Result<(), BootError> {
        let shard = self.shards.len();
        let thread = Thread::start(shard, cpu, driver, starter)
            .map_err(|text| BootError::Executor { shard, text })?;
        self.shards.push(Some(thread));
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
    fn serve(mut self, grace: Duration, watcher: &Watcher) -> Result<(), BootError> {
        loop {
            match self.notes.recv() {
                Ok(Note::Stop) | Err(_) => break,
                Ok(Note::Reload) => {
                    tracing::info!("SIGHUP: certificates, users and rules are read again");
                    watcher.reload();
                    self.reload();
                }
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

    /// Reads files again.
    fn reload(&self) {
        match &self.auth {
            Some(auth) => auth.reload(),
            None => tracing::info!("there is nothing to read again"),
        }
    }

    /// Whether a note says that something is wrong.
    fn check(&mut self, note: &Note) -> Result<(), BootError> {
        match *note {
            Note::Ready | Note::Reload => Ok(()),
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
        let thread = self.shards.get_mut(shard).and_then(Option::take);
        thread
            .map_or(Ok(()), Thread::join)
            .map_err(|text| BootError::Executor { shard, text })
    }
}
