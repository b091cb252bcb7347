//! What a comparison says about runs that are given.

use super::result::{COMPARE_FORMAT, Comparison, Contender, Method, Run};
use super::session::facts;
use super::works::Metric;
use super::*;
use crate::report::document::{Document, Generator};
use crate::report::host::Host;
use crate::report::samples;

fn run(round: u32, broker: &str, cpu: f64, rate: f64) -> Run {
    let values = [
        (Metric::Cpu.key().to_owned(), cpu),
        (Metric::Rate.key().to_owned(), rate),
    ];
    Run {
        round,
        work: "A".to_owned(),
        broker: broker.to_owned(),
        values: values.into(),
        spectrum: vec![(1.0, 50_000.0), (100.0, 400_000.0)],
        ..Run::default()
    }
}

fn comparison() -> Comparison {
    let contender = |name: &str, missing: Option<&str>| Contender {
        name: name.to_owned(),
        version: format!("{name} 1.0"),
        missing: missing.map(str::to_owned),
        ..Contender::default()
    };
    let mut saturated = run(2, "shardmq", 200.0, 5_000_000.0);
    saturated.saturated = Some("CPU 1.00".to_owned());
    let failed = Run {
        failed: Some("nobody could connect".to_owned()),
        ..run(1, "nats", 1.0, 1.0)
    };
    Comparison {
        format: COMPARE_FORMAT,
        started_unix_s: 0,
        generator: Generator {
            version: "0.1.0".to_owned(),
            driver: "epoll".to_owned(),
        },
        host: Host::default(),
        method: Method {
            rounds: 2,
            duration_s: 5,
            broker_cpus: "0".to_owned(),
            generator_cpus: "1".to_owned(),
            base: "mosquitto".to_owned(),
            syscalls: String::new(),
            partial: None,
        },
        brokers: vec![
            contender("shardmq", None),
            contender("mosquitto", None),
            contender("nats", None),
            contender("rmqttd", Some("not installed: cargo install rmqttd")),
        ],
        works: vec![facts(works::select(&["A".to_owned()]).unwrap()[0])],
        runs: vec![
            run(1, "shardmq", 100.0, 4_000_000.0),
            run(1, "mosquitto", 1_000.0, 400_000.0),
            saturated,
            run(2, "mosquitto", 4_000.0, 200_000.0),
            failed,
        ],
    }
}

#[test]
fn ratios_are_those_of_the_same_round() {
    let comparison = comparison();
    let cell = comparison.cell("A", "shardmq", Metric::Cpu.key()).unwrap();
    assert_eq!(cell.value.median, 150.0);
    let ratio = cell.ratio.unwrap();
    assert_eq!((ratio.min, ratio.max), (0.05, 0.1));
    assert!(comparison.cell("A", "nats", Metric::Cpu.key()).is_none());
}

#[test]
fn the_tables_tell_who_failed_who_is_missing_and_who_was_not_measured() {
    let comparison = comparison();
    let text = table::text(&comparison);
    for part in [
        "rmqttd            not installed: cargo install rmqttd",
        "! failed: nobody could connect",
        "! generator saturated: CPU 1.00",
        "150 ns  0.075× (0.050–0.100)",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let markdown = table::markdown(&comparison);
    let rows: Vec<&str> = markdown.lines().collect();
    assert_eq!(rows[0], "| work | | shardmq | mosquitto | nats |");
    assert_eq!(rows[1], "| --- | --- | ---: | ---: | ---: |");
    assert_eq!(
        rows[2],
        "| A. 8 → 8, QoS 0, saturated | CPU/message | 150 ns 0.075× (0.050–0.100) \\* | 2.50 µs | failed |"
    );
    assert!(markdown.contains("mosquitto: mosquitto 1.0"));
    assert!(markdown.contains("\\* The generator was the bottleneck"));
}

#[test]
fn the_page_shows_bars_and_spectra() {
    let page = page::html(&comparison());
    for part in [
        "class=\"bar c0\"",
        "class=\"whisker\"",
        "id=\"spectrum\"",
        "nobody could connect",
        "not installed: cargo install rmqttd",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("NaN") && !page.contains("http"));
}

#[test]
fn a_comparison_is_read_back() {
    let comparison = comparison();
    let json = serde_json::to_string(&comparison).unwrap();
    let read = Comparison::parse(&json).unwrap();
    assert_eq!(read.runs, comparison.runs);
    assert_eq!(read.brokers, comparison.brokers);
    let newer = json.replacen("\"format\":1", "\"format\":9", 1);
    assert!(Comparison::parse(&newer).unwrap_err().contains("newer"));
}

#[test]
fn saved_runs_are_put_beside_each_other() {
    let good = Document::new(&samples::outcome(), Host::default());
    let mut slow = good.clone();
    slow.latency_ns.corrected.p99 *= 2;
    let comparison =
        saved::beside_each_other(&[("before".to_owned(), good), ("after".to_owned(), slow)]);
    assert_eq!(comparison.method.base, "before");
    let cell = comparison
        .cell("paced-2000", "after", Metric::P99.key())
        .unwrap();
    assert_eq!(cell.ratio.unwrap().median, 2.0);
}

#[test]
fn what_a_run_measured_is_taken_from_its_document() {
    let mut run = run(1, "x", 0.0, 0.0);
    run.measured(&Document::new(&samples::failed(), Host::default()));
    assert_eq!(run.values[Metric::Rate.key()], 19_400.0);
    assert_eq!(run.values[Metric::Memory.key()], 1_500.0);
    assert_eq!(run.values[Metric::Connects.key()], 2_000.0);
    assert!(run.saturated.is_some());
    assert_eq!(run.remarks[0], "3 connections lost");
    assert!(run.spectrum.len() > 10);

    let mut nothing = samples::outcome();
    nothing.counts.received = 0;
    run.measured(&Document::new(&nothing, Host::default()));
    assert_eq!(run.failed.as_deref(), Some("nothing was delivered"));
}

#[test]
fn a_broker_that_runs_already() {
    let extra = Extra::parse("a=127.0.0.1:1883,pid=7").unwrap();
    assert_eq!((extra.name.as_str(), extra.pid), ("a", Some(7)));
    assert_eq!(extra.address.port(), 1_883);
    assert_eq!(Extra::parse("a=[::1]:1").unwrap().pid, None);
    for wrong in ["a", "a=b", "a=127.0.0.1:1,pid=x"] {
        assert!(Extra::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(seconds("7s").unwrap(), Duration::from_secs(7));
    assert!(seconds("0s").is_err() && seconds("x").is_err());
}
