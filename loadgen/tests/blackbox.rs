//! The generator as a process, against brokers as processes.
//!
//! `SHARDMQ_BIN` names the broker; without it the one beside the generator in cargo's folder is taken,
//! and without that (`cargo test -p shardmq-loadgen` does not build it) the tests print
//! `SKIPPED: name: why` and pass, as they do for mosquitto where it is not installed. `.ci/run` fails
//! on any such line.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "processes live on the real clock, and what is skipped is said"
)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a broker may take until it accepts connections.
const START: Duration = Duration::from_secs(20);

struct Broker {
    child: Child,
    port: u16,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only this child; one that has ended by itself is past killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a broker and waits until it accepts connections.
fn start(mut command: Command, port: u16) -> Broker {
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

fn free_port() -> u16 {
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

fn shardmq(test: &str) -> Option<Broker> {
    let beside = Path::new(env!("CARGO_BIN_EXE_shardmq-loadgen")).with_file_name("shardmq");
    let binary = std::env::var_os("SHARDMQ_BIN").map_or(beside, PathBuf::from);
    if !binary.is_file() {
        println!("SKIPPED: {test}: {} is not built", binary.display());
        return None;
    }
    let port = free_port();
    let mut command = Command::new(binary);
    command
        .args(["run", "--shards", "1", "--ephemeral", "--listen"])
        .arg(format!("127.0.0.1:{port}"))
        .current_dir(std::env::temp_dir());
    Some(start(command, port))
}

fn mosquitto(test: &str) -> Option<Broker> {
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

fn loadgen(port: u16, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shardmq-loadgen"))
        .args(arguments)
        .args(["-p", &port.to_string()])
        .output()
        .expect("the generator was built")
}

fn result(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text:?}, {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// A short run whose every message is looked at.
fn verified(port: u16, arguments: &[&str]) {
    let run = [
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
    let checks = [
        "--assert",
        "loss=0,duplicates=0,reordered=0,corrupt=0,errors=0",
    ];
    let output = loadgen(port, &[&run[..], &checks, arguments].concat());
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    let expected = &result["verification"]["expected"];
    assert_eq!(expected, &result["verification"]["delivered"]);
    assert_eq!(expected.as_u64(), Some(2_000), "{arguments:?}");
}

fn every_message_arrives_once(broker: &Broker, window: &str) {
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            verified(
                broker.port,
                &[
                    "-V", version, "-q", qos, "-F", window, "--rate", "4k", "-L", "2000",
                ],
            );
        }
    }
}

#[test]
fn every_message_arrives_once_in_order_and_whole() {
    if let Some(broker) = shardmq("every_message_arrives_once_in_order_and_whole") {
        every_message_arrives_once(&broker, "100");
    }
}

#[test]
fn mosquitto_delivers_every_message_once_too() {
    if let Some(broker) = mosquitto("mosquitto_delivers_every_message_once_too") {
        // Its own bound is 20 in flight; of what is above it, version 2.0.11 loses QoS 2 messages of
        // 3.1.1 clients when it is slow.
        every_message_arrives_once(&broker, "10");
    }
}

#[test]
fn both_drivers_and_several_threads() {
    let Some(broker) = shardmq("both_drivers_and_several_threads") else {
        return;
    };
    for driver in ["io_uring", "epoll"] {
        let arguments = [
            "--driver", driver, "--shards", "2", "-q", "1", "--rate", "4k", "-L", "2000",
        ];
        verified(broker.port, &arguments);
    }
}

#[test]
fn payloads_of_every_length() {
    let Some(broker) = shardmq("payloads_of_every_length") else {
        return;
    };
    for size in ["16", "20", "24", "100KiB"] {
        verified(
            broker.port,
            &[
                "-q",
                "1",
                "-s",
                size,
                "--closed-loop",
                "-F",
                "4",
                "-L",
                "2000",
            ],
        );
    }
    let output = loadgen(
        broker.port,
        &["run", "p2p", "-s", "0", "-L", "10", "--format", "json"],
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn shared_subscriptions_share() {
    let Some(broker) = shardmq("shared_subscriptions_share") else {
        return;
    };
    let arguments = "run sharedsub --publishers 10 --subscribers 3 -q 1 --rate 4k -L 2000 --verify seq \
                     --assert loss=0,duplicates=0 --format json";
    let output = loadgen(
        broker.port,
        &arguments.split_whitespace().collect::<Vec<_>>(),
    );
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    assert_eq!(result["verification"]["delivered"].as_u64(), Some(2_000));
}

#[test]
fn a_condition_that_does_not_hold_is_exit_code_3() {
    let Some(broker) = shardmq("a_condition_that_does_not_hold_is_exit_code_3") else {
        return;
    };
    let arguments = [
        "run", "p2p", "--rate", "1k", "-L", "100", "--assert", "p99<1ns",
    ];
    let output = loadgen(broker.port, &arguments);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("does not hold: p99<1ns: "), "{text}");
}

#[test]
fn an_interrupted_run_ends_with_its_result() {
    let Some(broker) = shardmq("an_interrupted_run_ends_with_its_result") else {
        return;
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_shardmq-loadgen"))
        .args([
            "run",
            "p2p",
            "--rate",
            "1k",
            "--duration",
            "10m",
            "--warmup",
            "0s",
        ])
        .args(["--format", "json", "-p", &broker.port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It has begun once it has asked to be told of the signal rather than to be ended by it.
    let status = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + START;
    while !catches_interrupts(&status) {
        assert!(Instant::now() < deadline, "it does not catch SIGINT");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = format!("kill -INT {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let deadline = Instant::now() + START;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it goes on");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(result(&output)["measured_s"].as_f64().unwrap() < 600.0);
}

/// Whether a process has a handler for SIGINT, signal 2.
fn catches_interrupts(status: &str) -> bool {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 2 != 0)
}

#[test]
fn a_fleet_comes_back_with_its_sessions() {
    let Some(broker) = shardmq("a_fleet_comes_back_with_its_sessions") else {
        return;
    };
    let arguments = [
        "run",
        "fleet",
        "-c",
        "40",
        "--duration",
        "4s",
        "--format",
        "json",
    ];
    let output = loadgen(broker.port, &arguments);
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    let figure = |name: &str| {
        let figures = result["figures"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["name"] == name);
        found
            .and_then(|figure| figure["value"].as_f64())
            .unwrap_or_else(|| panic!("{name}: {figures:?}"))
    };
    let vanished = figure("vehicles that vanished");
    assert!(vanished > 5.0);
    for name in [
        "wills seen by the back end",
        "vehicles that returned",
        "sessions resumed",
    ] {
        assert!(
            (figure(name) - vanished).abs() < 0.5,
            "{name}: {}",
            figure(name)
        );
    }
    assert!(figure("commands sent") > 0.0);
    assert!((figure("commands answered") - figure("commands sent")).abs() < 0.5);
    assert!(figure("telemetry QoS 1 lost") < 0.5);
}

#[test]
fn without_a_broker_the_error_says_where_and_how_to_start_one() {
    let port = free_port();
    let output = loadgen(port, &["-h", "127.0.0.1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!(
            "no connection to 127.0.0.1:{port}: connection refused"
        )),
        "{text}"
    );
    assert!(text.contains("shardmq run --listen"), "{text}");
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    for arguments in [
        &["run", "no-such-scenario"][..],
        &["-S"],
        &["--ws"],
        &["pub", "--rate", "0"],
        &["run", "saturate", "--publishers", "3"],
    ] {
        let output = loadgen(1, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}
