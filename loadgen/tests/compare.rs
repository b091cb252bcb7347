//! `compare` as somebody runs it, on tiny runs: brokers are started, measured, ended, and written down.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use shardmq_loadgen::compare::result::Comparison;

const PROGRAM: &str = env!("CARGO_BIN_EXE_shardmq-loadgen");

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("shardmq-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

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
