//! Runs whose every message is looked at, and how runs end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::brokers::{Broker, START, VERIFIED, ended, loadgen, mosquitto, result, shardmq, signal};

/// A short run whose every message is looked at.
fn verified(port: u16, arguments: &[&str]) {
    let checks = [
        "--assert",
        "loss=0,duplicates=0,reordered=0,corrupt=0,errors=0",
    ];
    let output = loadgen(port, &[&VERIFIED[..], &checks, arguments].concat());
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
    signal(&child, "INT");
    ended(&mut child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(result(&output)["measured_s"].as_f64().unwrap() < 600.0);
}

/// Whether a process has a handler for SIGINT, signal 2.
pub(crate) fn catches_interrupts(status: &str) -> bool {
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
