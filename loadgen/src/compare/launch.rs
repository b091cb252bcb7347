//! Starting brokers and generators on their CPUs, and making sure that they end.
//!
//! Whatever is started here is a [`Child`] of this process that is killed when its handle is dropped;
//! nothing else is ever ended.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::brokers::{Broker, Place};
use crate::engine::interrupted;

/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(10);

/// A broker that does not listen after so long is given up.
const START: Duration = Duration::from_secs(20);

/// A directory that is removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// In memory where there is such a place, so that no broker is slowed down by a disk.
    pub(crate) fn new() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() {
            shared.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("shardmq-compare-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|error| crate::report::named(&path, &error))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that is left over harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that ends with its handle.
#[derive(Debug)]
pub(crate) struct Owned(Child);

impl Owned {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it ends; `None` if it has not after `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.wait_unless(patience, || false)
    }

    /// The same, but no longer than until `stop` says so.
    pub(crate) fn wait_unless(
        &mut self,
        patience: Duration,
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<ExitStatus>> {
        let deadline = now() + patience;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if now() >= deadline || stop() {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }

    /// Asks it to end, as somebody with Ctrl-C would, and waits.
    pub(crate) fn interrupt(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::INT);
        self.wait(patience)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It was not waited for, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            if !matches!(self.wait(Duration::from_secs(3)), Ok(Some(_))) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waiting for processes is what this module is for"
)]
fn now() -> Instant {
    Instant::now()
}

/// Starts `command` on `cpus`; an empty list leaves it where this process may run.
pub(crate) fn spawn(command: &mut Command, cpus: &[usize]) -> io::Result<Owned> {
    if cpus.is_empty() {
        return command.spawn().map(Owned);
    }
    // A child begins where its parent's thread is, so this thread goes there for a moment.
    let before = sched_getaffinity(None)?;
    let mut there = CpuSet::new();
    for &cpu in cpus {
        there.set(cpu);
    }
    sched_setaffinity(None, &there)
        .map_err(|error| io::Error::other(format!("CPU {cpus:?} cannot be used: {error}")))?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    child.map(Owned)
}

/// A broker that listens.
#[derive(Debug)]
pub(crate) struct Started {
    /// Name of the broker.
    pub(crate) name: &'static str,
    // Dropped first: the broker ends before its directory is removed.
    pub(crate) process: Owned,
    pub(crate) address: SocketAddr,
    pub(crate) arguments: Vec<String>,
    pub(crate) configuration: String,
    _scratch: Scratch,
}

/// Starts `broker` on a free port and waits until it takes connections.
pub(crate) fn start(broker: &Broker, program: &Path, cpus: &[usize]) -> io::Result<Started> {
    let scratch = Scratch::new()?;
    let (port, other_port) = free_ports()?;
    let (name, configuration) = broker.configuration(Place {
        port,
        other_port,
        directory: scratch.path(),
    });
    let file = scratch.path().join(name);
    fs::write(&file, &configuration)?;
    let log = scratch.path().join("log");
    let arguments = broker.arguments(&file);
    let mut command = Command::new(program);
    command
        .args(&arguments)
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?);
    let mut process = spawn(&mut command, cpus)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = now() + START;
    loop {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            break;
        }
        let ended = process.wait(Duration::ZERO)?;
        if ended.is_some() || now() >= deadline || interrupted() {
            let what = ended.map_or_else(
                || format!("did not listen within {} s", START.as_secs()),
                |status| format!("ended with {status}"),
            );
            let said = last_words(&log);
            return Err(io::Error::other(format!("{what}: {said}")));
        }
        thread::sleep(LOOK);
    }
    Ok(Started {
        name: broker.name,
        process,
        address,
        arguments,
        configuration,
        _scratch: scratch,
    })
}

/// Two ports that were free a moment ago.
fn free_ports() -> io::Result<(u16, u16)> {
    let first = TcpListener::bind("127.0.0.1:0")?;
    let second = TcpListener::bind("127.0.0.1:0")?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

/// The last lines of a file that say something, in one.
pub(crate) fn last_words(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text
        .lines()
        .rev()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(3)
        .collect();
    lines.reverse();
    if lines.is_empty() {
        return "it said nothing".to_owned();
    }
    lines.join(" | ").chars().take(300).collect()
}

/// Lets this process and its children have as many open files as it may: each connection is one.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where this is refused, the generator says what it could not open.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_runs_on_its_cpu_and_ends_with_its_handle() {
        let own = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| own.is_set(cpu)).unwrap();
        let child = spawn(Command::new("sleep").arg("60"), &[cpu]).unwrap();
        let pid = child.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .unwrap();
        assert_eq!(allowed.trim(), cpu.to_string());
        assert!(sched_getaffinity(None).unwrap() == own);
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_child_that_takes_too_long_is_told_from_one_that_ends() {
        let mut long = spawn(Command::new("sleep").arg("60"), &[]).unwrap();
        assert_eq!(long.wait(Duration::from_millis(30)).unwrap(), None);
        assert!(long.interrupt(Duration::from_secs(10)).unwrap().is_some());
        let mut short = spawn(&mut Command::new("true"), &[]).unwrap();
        let status = short.wait(Duration::from_secs(10)).unwrap().unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_broker_that_cannot_start_says_why() {
        let broker = super::super::brokers::find("mosquitto").unwrap();
        let error = start(broker, Path::new("/bin/false"), &[]).unwrap_err();
        assert!(error.to_string().contains("ended with"), "{error}");
    }
}
