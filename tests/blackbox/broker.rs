//! Starts a broker on a port of its own, waits until it answers, stops it and looks at how it went.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a broker may take until it accepts connections (a loaded machine with two cores).
const START: Duration = Duration::from_secs(20);

/// How long a broker may take from SIGTERM to its end.
const STOP: Duration = Duration::from_secs(10);

/// How a broker is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setup {
    pub(crate) driver: &'static str,
    pub(crate) shards: u8,
}

impl Setup {
    pub(crate) const ONE: Self = Self::new("io_uring", 1);
    pub(crate) const TWO: Self = Self::new("io_uring", 2);
    pub(crate) const EPOLL: Self = Self::new("epoll", 2);
    pub(crate) const ALL: [Self; 4] = [Self::ONE, Self::TWO, Self::new("epoll", 1), Self::EPOLL];

    const fn new(driver: &'static str, shards: u8) -> Self {
        Self { driver, shards }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} shard(s) with {}", self.shards, self.driver)
    }
}

/// A running broker. Dropped, it is stopped; its log is printed if the test failed.
pub(crate) struct Broker {
    child: Child,
    port: u16,
    shards: u8,
    dir: PathBuf,
    /// What takes space on its disk.
    ballast: Option<PathBuf>,
    stopped: bool,
}

impl Broker {
    pub(crate) fn start(setup: Setup) -> Self {
        Self::start_with(setup, |_| ())
    }

    /// Starts a broker with a change to its command.
    pub(crate) fn start_with(setup: Setup, change: impl FnOnce(&mut Command)) -> Self {
        let port = free_port();
        let dir = fresh_folder(port);
        let data = dir.join("data");
        Self::launch(setup, port, dir, &data, change)
    }

    /// Starts a broker on a port and a data directory that another one had before.
    pub(crate) fn start_at(
        setup: Setup,
        port: u16,
        data: &Path,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut broker = Self::launch(setup, port, fresh_folder(port), data, |command| {
            command.envs(environment.iter().copied());
            // Whoever was away for long still gets everything.
            command.env("SHARDMQ__MQTT__MAX_QUEUED_MESSAGES", "10000000");
            command.env("SHARDMQ__MQTT__MAX_QUEUED_BYTES", "4 GiB");
        });
        broker.wait_until_it_serves();
        broker
    }

    /// The same where not everybody comes in.
    pub(crate) fn start_guarded(
        setup: Setup,
        port: u16,
        data: &Path,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut broker = Self::launch(setup, port, fresh_folder(port), data, |command| {
            command.envs(environment.iter().copied());
        });
        broker.wait_until_it_serves();
        broker
    }

    /// Starts a broker on a disk of 100 MiB that it has for itself, a fifth of it taken.
    pub(crate) fn start_on_small_disk(setup: Setup, port: u16, data: &Path) -> Self {
        std::fs::create_dir_all(data).expect("the folder is fresh");
        let mut broker = Self::launch(setup, port, fresh_folder(port), data, |command| {
            let path = data.display();
            let script = format!(
                "mount -t tmpfs -o size=100m tmpfs {path} && \
                 dd if=/dev/zero of={path}/ballast bs=1M count=20 status=none && exec \"$@\""
            );
            let mut inside = Command::new("unshare");
            inside
                .args(["-rm", "sh", "-c", &script, "sh"])
                .arg(command.get_program())
                .args(command.get_args())
                .env("SHARDMQ__MQTT__MAX_QUEUED_MESSAGES", "10000000")
                .env("SHARDMQ__MQTT__MAX_QUEUED_BYTES", "4 GiB");
            inside.current_dir(command.get_current_dir().expect("it is set"));
            *command = inside;
        });
        broker.ballast = Some(data.join("ballast"));
        broker.wait_until_it_serves();
        broker
    }

    /// Gives a broker on a small disk more space.
    pub(crate) fn free_disk(&self) {
        let ballast = self.ballast.as_ref().expect("its disk is small");
        let inside = ballast.strip_prefix("/").expect("an absolute path");
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        std::fs::remove_file(root.join(inside)).expect("it was there");
    }

    fn launch(
        setup: Setup,
        port: u16,
        dir: PathBuf,
        data: &Path,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command(port, setup, &dir, data);
        change(&mut command);
        let log = File::create(dir.join("log")).expect("the folder is fresh");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut broker = Self {
            child,
            port,
            shards: setup.shards,
            dir,
            ballast: None,
            stopped: false,
        };
        broker.wait_until_it_accepts();
        broker
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kilobytes of memory that it has.
    pub(crate) fn memory_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the broker runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .expect("a number of kilobytes")
    }

    pub(crate) const fn shards(&self) -> u8 {
        self.shards
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id();
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {pid}")])
            .status()
            .expect("a shell");
        assert!(status.success(), "no SIG{signal} could be sent to {pid}");
    }

    /// Ends it as a crash does: at whatever point it is.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child can be waited for");
        self.stopped = true;
    }

    /// Waits for the end, bounded.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.stopped = true;
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the broker did not end within {STOP:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it as an init system does, and asks for a clean exit.
    pub(crate) fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "the broker ended with {status}");
    }

    /// It listens before it has read its data directory, and says when it is done.
    fn wait_until_it_serves(&mut self) {
        let deadline = Instant::now() + START;
        while !self.log().contains("durability") {
            let status = self.child.try_wait().expect("a child can be waited for");
            assert!(
                status.is_none() && Instant::now() < deadline,
                "it does not serve:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_until_it_accepts(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            let Err(refused) = TcpStream::connect_timeout(&self.address(), START) else {
                return;
            };
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.stopped = true;
                panic!("the broker ended at once with {status}");
            }
            assert!(
                Instant::now() < deadline,
                "nobody listens on {}: {refused}",
                self.port
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let from = log.char_indices().rev().nth(16_000).map_or(0, |(at, _)| at);
            eprintln!(
                "--- log of the broker on port {} ---\n{}",
                self.port,
                &log[from..]
            );
        }
        if !self.stopped {
            // Only this child is ended, and a failure to end it has been reported by the test.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn command(port: u16, setup: Setup, dir: &Path, data: &Path) -> Command {
    if let Ok(template) = std::env::var("BLACKBOX_BROKER") {
        let line = template
            .replace("{port}", &port.to_string())
            .replace("{shards}", &setup.shards.to_string())
            .replace("{dir}", &dir.display().to_string());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec {line}")])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        return command;
    }
    let mut command = Command::new(binary());
    command
        .arg("run")
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--shards", &setup.shards.to_string()])
        .args(["--driver", setup.driver])
        .arg("--data-dir")
        .arg(data)
        .current_dir(dir);
    command
}

/// The program under test.
pub(crate) fn binary() -> OsString {
    std::env::var_os("SHARDMQ_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_shardmq").into())
}

/// A port that nobody listens on, and that no other broker of these tests was given: listeners with
/// SO_REUSEPORT of two brokers would share it without an error. It lies below the range from which
/// the kernel takes the ports of outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..20_000 {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + std::process::id() * 97;
        let port = u16::try_from(11_000 + offset % 20_000).expect("below 31,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}

/// A folder of this broker's own.
pub(crate) fn fresh_folder(port: u16) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("shardmq-blackbox-{}-{port}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).expect("the folder for temporary files can be written");
    dir
}
