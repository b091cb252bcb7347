//! Brokers for the tests, and the generator.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a broker may take until it accepts connections.
pub(crate) const START: Duration = Duration::from_secs(20);

pub(crate) struct Broker {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only this child; one that has ended by itself is past killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a broker and waits until it accepts connections.
pub(crate) fn start(mut command: Command, port: u16) -> Broker {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut broker = Broker { child, port };
    let deadline = Instant::now() + START;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = broker.child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "{command:?} ended with {ended:?}");
        assert!(
            Instant::now() < deadline,
            "{command:?} does not accept connections"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    broker
}

pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..10_000 {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + std::process::id() * 53;
        let port = u16::try_from(11_000 + offset % 20_000).expect("below 31,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

pub(crate) fn shardmq(test: &str) -> Option<Broker> {
    shardmq_on(free_port(), test)
}

pub(crate) fn shardmq_on(port: u16, test: &str) -> Option<Broker> {
    let mut command = shardmq_with(test)?;
    command
        .args(["run", "--shards", "1", "--ephemeral", "--listen"])
        .arg(format!("127.0.0.1:{port}"));
    Some(start(command, port))
}

/// The program, with nothing said to it yet.
pub(crate) fn shardmq_with(test: &str) -> Option<Command> {
    let beside = Path::new(env!("CARGO_BIN_EXE_shardmq-loadgen")).with_file_name("shardmq");
    let binary = std::env::var_os("SHARDMQ_BIN").map_or(beside, PathBuf::from);
    if !binary.is_file() {
        println!("SKIPPED: {test}: {} is not built", binary.display());
        return None;
    }
    let mut command = Command::new(binary);
    command.current_dir(std::env::temp_dir());
    Some(command)
}

pub(crate) fn mosquitto(test: &str) -> Option<Broker> {
    let found = Command::new("sh")
        .args(["-c", "PATH=$PATH:/usr/sbin command -v mosquitto"])
        .output()
        .expect("a shell");
    let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    if path.is_empty() {
        println!("SKIPPED: {test}: mosquitto is not installed");
        return None;
    }
    let port = free_port();
    let mut command = Command::new(path);
    command.args(["-p", &port.to_string()]);
    Some(start(command, port))
}

pub(crate) fn loadgen(port: u16, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shardmq-loadgen"))
        .args(arguments)
        .args(["-p", &port.to_string()])
        .output()
        .expect("the generator was built")
}

pub(crate) fn result(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text:?}, {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// A directory that is removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shardmq-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until a child has ended; ends it if it does not.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + START;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it goes on");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    let status = Command::new("sh").args(["-c", &kill]).status();
    assert!(status.expect("a shell").success());
}

/// What a broker that lets everybody in does with a connection after that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It reads.
    Reads,
    /// It closes the first ones, so many, and reads from the others.
    Closes(u32),
}

/// A broker of MQTT 5 that lets everybody in, answers nothing else, and tells the addresses that it
/// was connected to from. It lives as long as the process of the tests.
pub(crate) fn lenient(then: Then) -> (u16, Receiver<IpAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, peers) = channel();
    std::thread::spawn(move || {
        for (stream, at) in listener.incoming().zip(0..) {
            let Ok(mut stream) = stream else { continue };
            let peer = stream.peer_addr().map(|peer| peer.ip());
            if peer.is_ok_and(|peer| sender.send(peer).is_err()) {
                return;
            }
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                let connect = stream.read(&mut bytes).unwrap_or(0);
                let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
                let reads = !matches!(then, Then::Closes(first) if at < first);
                while reads && connect > 0 && stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                }
            });
        }
    });
    (port, peers)
}

/// Five publishers to five subscribers, every message looked at.
pub(crate) const VERIFIED: [&str; 10] = [
    "run",
    "p2p",
    "--publishers",
    "5",
    "--subscribers",
    "5",
    "--verify",
    "full",
    "--format",
    "json",
];
