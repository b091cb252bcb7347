//! Options that are more than a number in a plan: several runs, files, addresses, reconnecting.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Lines as Text};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;

use crate::brokers::{
    Scratch, Then, ended, lenient, loadgen, mosquitto, result, shardmq, shardmq_on, signal,
};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_sweep_is_a_run_for_each_rate() {
    let Some(broker) = shardmq("a_sweep_is_a_run_for_each_rate") else {
        return;
    };
    let scratch = Scratch::new("sweep");
    let arguments = [
        "run",
        "p2p",
        "--sweep",
        "500,1k",
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--no-tui",
        "--assert",
        "errors=0",
        "--out",
    ];
    let out = scratch.0.to_str().unwrap();
    let output = loadgen(broker.port, &[&arguments[..], &[out]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for (rate, folder) in [(500.0, "500"), (1_000.0, "1000")] {
        let text = fs::read_to_string(scratch.0.join(folder).join("result.json")).unwrap();
        let result: Value = serde_json::from_str(&text).unwrap();
        let published = result["counts"]["published"].as_f64().unwrap();
        assert!(
            (published - rate).abs() <= rate * 0.1,
            "{published} at {rate}"
        );
        assert!(scratch.0.join(folder).join("report.html").is_file());
    }
}

#[test]
fn the_highest_rate_is_found_between_one_that_holds_and_one_that_does_not() {
    let Some(broker) = mosquitto("the_highest_rate_is_found") else {
        return;
    };
    // A bound that no broker moves; a machine that is busy may be found to carry less.
    let arguments = [
        "run",
        "p2p",
        "--rate",
        "1k",
        "--find-max",
        "sent<1500",
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--no-tui",
    ];
    let output = loadgen(broker.port, &arguments);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let rate_of = |line: &str| line.split(' ').next()?.parse::<f64>().ok();
    let held = said.lines().filter(|line| line.ends_with(": holds"));
    let highest = held.filter_map(rate_of).fold(0.0, f64::max);
    assert!(highest < 1_600.0, "{said}");
    let last = said.lines().last().unwrap_or_default();
    if highest > 0.0 {
        assert_eq!(
            last,
            format!("highest rate: {highest:.0} per second"),
            "{said}"
        );
        // It ended because what is a little above does not hold.
        let broken = said.lines().filter(|line| !line.ends_with(": holds"));
        let lowest = broken.filter_map(rate_of).filter(|&rate| rate > highest);
        assert!(
            lowest.fold(f64::MAX, f64::min) <= highest * 1.06 + 1.0,
            "{said}"
        );
    } else {
        assert_eq!(last, "no rate was found at which it holds", "{said}");
    }
}

#[test]
fn lost_connections_are_made_again() {
    let (port, peers) = lenient(Then::Closes(4));
    let arguments = [
        "conn",
        "-c",
        "4",
        "-R",
        "0",
        "--reconnect",
        "--duration",
        "2s",
        "--format",
        "json",
    ];
    let result = result(&loadgen(port, &arguments));
    assert_eq!(result["counts"]["lost"], 4, "{result}");
    assert_eq!(result["counts"]["connected"], 8, "{result}");
    assert_eq!(result["counts"]["open"], 4, "{result}");
    assert_eq!(peers.try_iter().count(), 8);
}

#[test]
fn a_broker_that_comes_back_is_found_again() {
    let name = "a_broker_that_comes_back_is_found_again";
    let Some(broker) = shardmq(name) else {
        return;
    };
    let port = broker.port;
    let generator = Command::new(env!("CARGO_BIN_EXE_shardmq-loadgen"))
        .args(["run", "p2p", "--publishers", "5", "--subscribers", "5"])
        .args(["--reconnect", "--duration", "10m", "--warmup", "0s"])
        .args(["--rate", "100", "--no-tui", "-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut generator = Lines::of(generator);
    generator.wait_for("10 connections and messages", |open, received| {
        open == 10 && received > 0.0
    });
    drop(broker);
    generator.wait_for("no connection", |open, _| open == 0);
    let _broker = shardmq_on(port, name);
    generator.wait_for("everybody back", |open, received| {
        open == 10 && received > 0.0
    });
    signal(&generator.child, "INT");
    assert!(ended(&mut generator.child).success());
}

/// The lines that a generator writes each second.
struct Lines {
    child: Child,
    lines: Text<BufReader<ChildStderr>>,
}

impl Lines {
    fn of(mut child: Child) -> Self {
        let stderr = child.stderr.take().expect("it is piped");
        Self {
            child,
            lines: BufReader::new(stderr).lines(),
        }
    }

    /// Reads lines until one says so: connections that are open, and messages that arrived.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(u64, f64) -> bool) {
        for _ in 0..30 {
            let line = self.lines.next().expect("it goes on").expect("text");
            let columns: Vec<&str> = line.split_whitespace().collect();
            if let [_, open, _, received, ..] = columns[..]
                && let (Ok(open), Ok(received)) = (open.parse(), received.parse())
                && wanted(open, received)
            {
                return;
            }
        }
        panic!("not seen: {what}");
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connections_come_from_all_source_addresses() {
    let (port, peers) = lenient(Then::Reads);
    let arguments = [
        "conn",
        "-c",
        "12",
        "-R",
        "0",
        "--duration",
        "1s",
        "--ifaddr",
        "127.0.0.2,127.0.0.3,127.1.2.0/30",
        "--format",
        "json",
    ];
    let result = result(&loadgen(port, &arguments));
    assert_eq!(result["counts"]["connected"], 12, "{result}");
    let peers: Vec<String> = peers.try_iter().map(|peer| peer.to_string()).collect();
    assert_eq!(peers.len(), 12);
    let different: HashSet<&str> = peers.iter().map(String::as_str).collect();
    let expected = ["127.0.0.2", "127.0.0.3", "127.1.2.1", "127.1.2.2"];
    assert_eq!(different, expected.into());
    for address in expected {
        let count = peers.iter().filter(|peer| *peer == address).count();
        assert_eq!(count, 3, "{peers:?}");
    }
}

#[test]
fn a_scenario_in_a_file_is_overridden_by_the_command_line() {
    let Some(broker) = shardmq("a_scenario_in_a_file_is_overridden_by_the_command_line") else {
        return;
    };
    let scratch = Scratch::new("file");
    let file = scratch.0.join("five.conf");
    let text = "# five pairs\nscenario = p2p\npublishers = 5\nsubscribers = 5\nqos = 1\n\
                rate = 500\nlimit = 300\nverify = full\nclean = false # ends with its connection\n\
                closed-loop = false\nformat = json\n";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let output = loadgen(broker.port, &["run", file, "-L", "200"]);
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    assert_eq!(result["verification"]["delivered"], 200);
    assert_eq!(result["counts"]["connected"], 10);

    fs::write(file, "scenario = p2p\nrats = 5\n").unwrap();
    let output = loadgen(broker.port, &["run", file]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(
        said.contains("five.conf:2: there is no flag --rats"),
        "{said}"
    );
    fs::write(file, "scenario = p2p\nqos = 7\n").unwrap();
    let said = self::said(&loadgen(broker.port, &["run", file]));
    assert!(
        said.contains("five.conf: ") && said.contains("--qos"),
        "{said}"
    );
    fs::write(file, "qos = 1\n").unwrap();
    let said = self::said(&loadgen(broker.port, &["run", file]));
    assert!(said.contains("scenario = NAME is missing"), "{said}");
}
