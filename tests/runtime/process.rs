//! A broker in a process of its own: signals, and what it costs to do nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use shardmq::runtime::net::Driver;
use shardmq::runtime::run;

use crate::broker::{Run, options};
use crate::client::Client;
use crate::restrict;

pub(crate) const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];

/// Not a test of its own: what the child processes of the other tests do.
#[test]
fn child() {
    let Ok(driver) = std::env::var("SHARDMQ_TEST_DRIVER") else {
        return;
    };
    let number = |name| {
        let text = std::env::var(name).ok()?;
        text.parse::<u64>().ok()
    };
    if let Some(errno) = number("SHARDMQ_TEST_BLOCK") {
        restrict::block_io_uring(errno);
    }
    if let Some(bytes) = number("SHARDMQ_TEST_MEMLOCK") {
        restrict::become_nobody_with_locked_memory(bytes);
    }
    let spare = number("SHARDMQ_TEST_SPARE_DESCRIPTORS");
    let how = Run {
        driver: driver.parse().ok().unwrap(),
        shards: 1,
    };
    let options = options(how, move |broker| {
        if let Some(spare) = spare {
            restrict::leave_descriptors(spare);
        }
        println!("driver={}", broker.driver);
        println!("address={}", broker.listeners[0].address().unwrap());
    });
    match run(options) {
        Ok(()) => println!("stopped"),
        Err(error) => println!("error={error}"),
    }
}

/// A process that is to run [`child`].
pub(crate) struct Process {
    command: Command,
}

impl Process {
    pub(crate) fn serving(driver: Driver) -> Self {
        let word = match driver {
            Driver::Auto => "auto",
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "process::child", "--nocapture"])
            .env("SHARDMQ_TEST_DRIVER", word)
            .stdout(Stdio::piped());
        Self { command }
    }

    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.command.env(name, value.to_string());
        self
    }

    pub(crate) fn spawn(mut self) -> (Child, BufReader<ChildStdout>) {
        let mut child = self.command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        (child, output)
    }
}

/// The rest of the first line of `output` that has `key`.
pub(crate) fn find(output: &mut impl BufRead, key: &str) -> String {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        assert!(
            output.read_line(&mut seen).unwrap() > 0,
            "no `{key}` in: {seen}"
        );
        if let Some(at) = seen[start..].find(key) {
            return seen[start + at + key.len()..].trim().to_owned();
        }
    }
}

pub(crate) fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Clock ticks of CPU time that a process has used.
pub(crate) fn cpu_ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn sigterm_tells_the_clients_and_ends_with_success() {
    for driver in DRIVERS {
        let (mut child, mut output) = Process::serving(driver).spawn();
        let address = find(&mut output, "address=").parse().unwrap();
        let mut client = Client::open(address).connect("client");
        signal(&child, "-TERM");
        let (first, body) = client.packet();
        assert_eq!(
            (first, body[0]),
            (0xE0, 0x8B),
            "DISCONNECT, Server shutting down"
        );
        drop(client);
        find(&mut output, "stopped");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_second_signal_does_not_wait_for_a_client_that_does_not_close() {
    for driver in DRIVERS {
        let (mut child, mut output) = Process::serving(driver).spawn();
        let address = find(&mut output, "address=").parse().unwrap();
        let _stubborn = Client::open(address).connect("stubborn");
        let began = Instant::now();
        signal(&child, "-INT");
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, "-INT");
        let error = find(&mut output, "error=");
        assert!(error.contains("second signal"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2));
        child.wait().unwrap();
    }
}

#[test]
fn an_idle_broker_uses_no_cpu() {
    for driver in DRIVERS {
        let (mut child, mut output) = Process::serving(driver).spawn();
        let address = find(&mut output, "address=").parse().unwrap();
        let mut clients: Vec<_> = (0..100)
            .map(|index| Client::open(address).connect(&index.to_string()))
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        let before = cpu_ticks(&child);
        std::thread::sleep(Duration::from_secs(3));
        let used = cpu_ticks(&child) - before;
        assert!(used <= 6, "{used} of 300 ticks");
        clients.iter_mut().for_each(Client::ping);
        signal(&child, "-TERM");
        drop(clients);
        assert!(child.wait().unwrap().success());
    }
}
