//! `compare` as somebody runs it, on tiny runs: brokers are started, measured, ended, and written down.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use shardmq_loadgen::compare::result::Comparison;

use crate::brokers::{
    Scratch, Then, ended, free_port, lenient, mosquitto as start_mosquitto, signal,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shardmq-loadgen");

/// Whether there is a broker: the one that `tests/blackbox` is pointed at, or what cargo has put
/// beside our program.
fn shardmq() -> bool {
    let path = env::var_os("SHARDMQ_BIN").map_or_else(
        || Path::new(PROGRAM).with_file_name("shardmq"),
        PathBuf::from,
    );
    path.is_file()
}

fn mosquitto() -> bool {
    Path::new("/usr/sbin/mosquitto").is_file()
        || Command::new("mosquitto").arg("-h").output().is_ok()
}

fn compare(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("compare")
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn two_brokers_side_by_side() {
    if !shardmq() {
        println!("SKIPPED: the broker is not built; SHARDMQ_BIN or cargo build");
        return;
    }
    if !mosquitto() {
        println!("SKIPPED: mosquitto is not installed");
        return;
    }
    let scratch = Scratch::new("compare");
    let out = scratch.0.to_str().unwrap();
    let output = compare(&[
        "--brokers",
        "shardmq-epoll,mosquitto",
        "--works",
        "E",
        "--rounds",
        "2",
        "--duration",
        "1s",
        "--broker-cpu",
        "0",
        "--generator-cpu",
        "0",
        "--out",
        out,
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");

    let json = fs::read_to_string(scratch.0.join("compare.json")).unwrap();
    let comparison = Comparison::parse(&json).unwrap();
    assert_eq!(comparison.runs.len(), 4, "{said}");
    for run in &comparison.runs {
        assert_eq!(run.failed, None, "{said}");
        assert!(run.values["received_per_s"] > 0.0, "{run:?}");
        assert!(run.values["cpu_ns_per_message"] > 0.0, "{run:?}");
        assert!(run.values["p50_ns"] > 0.0, "{run:?}");
    }
    // The second round begins with the other one.
    let order: Vec<&str> = comparison
        .runs
        .iter()
        .map(|run| run.broker.as_str())
        .collect();
    assert_eq!(
        order,
        ["shardmq-epoll", "mosquitto", "mosquitto", "shardmq-epoll"]
    );
    for broker in &comparison.brokers {
        assert!(!broker.version.is_empty(), "{broker:?}");
        assert!(broker.configuration.contains("127.0.0.1"), "{broker:?}");
    }
    let page = fs::read_to_string(scratch.0.join("compare.html")).unwrap();
    assert!(page.contains("class=\"bar") && page.contains("id=\"spectrum\""));
    let markdown = fs::read_to_string(scratch.0.join("compare.md")).unwrap();
    assert!(markdown.starts_with("| work | | shardmq-epoll | mosquitto |"));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("E. ping-pong, 1 connection"), "{table}");

    let again = compare(&["--results", out, "--markdown"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), markdown);
}

#[test]
fn what_is_not_there_is_named() {
    let scratch = Scratch::new("compare-none");
    let output = Command::new(PROGRAM)
        .args(["compare", "--brokers", "rumqttd", "--brokers-dir"])
        .arg(&scratch.0)
        .env("PATH", &scratch.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("none of the brokers is installed"), "{said}");
    assert!(said.contains("cargo install --root"), "{said}");

    for (argument, value, part) in [
        ("--brokers", "emqx", "no broker \"emqx\"; there are shardmq"),
        ("--works", "Z", "no work \"Z\"; there are A, B20k"),
    ] {
        let output = compare(&[argument, value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn what_was_complete_is_written_when_it_is_interrupted() {
    let name = "what_was_complete_is_written_when_it_is_interrupted";
    let (Some(one), Some(other)) = (start_mosquitto(name), start_mosquitto(name)) else {
        return;
    };
    let scratch = Scratch::new("compare-interrupted");
    let out = scratch.0.join("out");
    let errors = scratch.0.join("errors");
    let mut child = Command::new(PROGRAM)
        .args(["compare", "--brokers", "", "--works", "E", "--rounds", "50"])
        .args([
            "--extra",
            &format!("one=127.0.0.1:{},pid={}", one.port, one.child.id()),
        ])
        .args(["--extra", &format!("other=127.0.0.1:{}", other.port)])
        .args([
            "--duration",
            "1s",
            "--generator-cpu",
            "0",
            "--base",
            "one",
            "--out",
        ])
        .arg(&out)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + crate::brokers::START;
    // One run of the second round is done.
    while fs::read_to_string(&errors).unwrap().matches("2/50").count() < 1 {
        assert!(std::time::Instant::now() < deadline, "no second round");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    signal(&child, "TERM");
    let status = ended(&mut child);
    let said = fs::read_to_string(&errors).unwrap();
    assert!(status.success(), "{said}");
    let output = child.wait_with_output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        table.contains("PARTIAL: interrupted in round 2 of 50"),
        "{table}"
    );
    assert!(table.contains("E. ping-pong"), "{table}");
    let json = fs::read_to_string(out.join("compare.json")).unwrap();
    let comparison = Comparison::parse(&json).unwrap();
    assert_eq!(comparison.runs.len(), 2, "the whole first round: {said}");
    assert!(comparison.runs.iter().all(|run| run.round == 1));
    for file in ["compare.html", "compare.md"] {
        let text = fs::read_to_string(out.join(file)).unwrap();
        assert!(text.contains("interrupted in round 2 of 50"), "{file}");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_a_failure_of_its_own() {
    let (port, _peers) = lenient(Then::Reads);
    let nobody = free_port();
    let output = compare(&[
        "--brokers",
        "",
        "--works",
        "E",
        "--rounds",
        "1",
        "--duration",
        "1s",
        "--generator-cpu",
        "0",
        "--extra",
        &format!("nobody=127.0.0.1:{nobody}"),
        "--extra",
        &format!("mute=127.0.0.1:{port}"),
    ]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    assert!(table.contains("failed: "), "{table}");
    assert!(
        table.contains(&format!("no connection to 127.0.0.1:{nobody}")),
        "{table}"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("mosquitto (--base) is not among those measured: ratios are to nobody"),
        "{said}"
    );
}

/// A directory with a program of this name that does what the script says.
fn fake(scratch: &Scratch, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = scratch.0.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn installing_runs_the_commands_and_says_which_failed() {
    let scratch = Scratch::new("compare-install");
    let install = |names: &str| {
        let output = Command::new(PROGRAM)
            .args(["compare", "--install", "--brokers", names, "--brokers-dir"])
            .arg(scratch.0.join("root"))
            .env("PATH", &scratch.0)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = install("rumqttd");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("could not install rumqttd (cargo cannot be run: "),
        "{said}"
    );
    fake(&scratch, "cargo", "exit 9");
    fake(&scratch, "apt-get", "exit 0");
    let (code, said) = install("rumqttd,rmqttd");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("rumqttd (cargo ended with exit status: 9), rmqttd (cargo"),
        "{said}"
    );
    assert!(
        said.contains("rmqttd: apt-get install -y cmake protobuf-compiler && cargo install"),
        "{said}"
    );
    fake(
        &scratch,
        "cargo",
        "[ $1 = install ] && [ $4 = rumqttd ] && exit 0; exit 1",
    );
    let (code, said) = install("rumqttd");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_broker_that_is_not_installed_is_left_out_and_says_how_to_have_it() {
    let scratch = Scratch::new("compare-absent");
    let (port, _peers) = lenient(Then::Reads);
    let output = Command::new(PROGRAM)
        .args([
            "compare",
            "--brokers",
            "rmqttd",
            "--works",
            "E",
            "--rounds",
            "1",
        ])
        .args(["--duration", "1s", "--generator-cpu", "0", "--syscalls"])
        .args([
            "--extra",
            &format!("mute=127.0.0.1:{port}"),
            "--brokers-dir",
        ])
        .arg(&scratch.0)
        // Neither rmqttd nor perf is there.
        .env("PATH", &scratch.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("rmqttd is left out: not installed: apt-get install -y cmake protobuf-compiler && cargo install --root"), "{said}");
    assert!(
        said.contains("system calls are not counted: perf cannot be run"),
        "{said}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("rmqttd"),
        "{said}"
    );
}
