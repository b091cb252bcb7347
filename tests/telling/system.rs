//! `$SYS` against a real mosquitto, and against what `/metrics?compat=mosquitto` calls it.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Metrics;
use crate::program::{Broker, Client};

/// What mosquitto 2.0.11 was seen to publish.
const RECORDED: &str = include_str!("mosquitto-2.0.11.topics");

/// The topics that are retained below `$SYS`, once all of these are there.
fn topics(address: SocketAddr, wanted: &BTreeSet<String>) -> BTreeSet<String> {
    let begun = Instant::now();
    let mut found = BTreeSet::new();
    let mut watcher = Client::connect(address, "watcher");
    watcher.subscribe("$SYS/#", 0);
    while !wanted.is_subset(&found) && begun.elapsed() < Duration::from_secs(20) {
        found.extend(
            watcher
                .receive_publishes(1)
                .into_iter()
                .map(|(topic, _)| topic),
        );
    }
    found
}

fn recorded() -> BTreeSet<String> {
    RECORDED.lines().map(str::to_owned).collect()
}

#[test]
fn every_topic_of_mosquitto_is_there() {
    let config = std::env::temp_dir().join(format!("shardmq-sys-{}.toml", std::process::id()));
    std::fs::write(&config, "[mqtt]\nsys_interval = 1\n").unwrap();
    let broker = Broker::start(&["-c", &config.display().to_string(), "--shards", "2"]);
    std::fs::remove_file(&config).unwrap();
    let wanted = recorded();
    let found = topics(broker.mqtt, &wanted);
    let missing: Vec<_> = wanted.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    // The exporter leaves these out.
    let left_out = ["version", "clients/active", "clients/inactive"];
    let metrics = Metrics::parse(&broker.get("/metrics?compat=mosquitto").body);
    for topic in wanted {
        let name = topic.trim_start_matches("$SYS/").replace(['/', ' '], "_");
        let is_left_out = left_out.iter().any(|left_out| topic.ends_with(left_out));
        assert_eq!(metrics.types.contains_key(&name), !is_left_out, "{name}");
    }
    broker.stop();
}

/// A mosquitto that is gone when the test ends.
struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a mosquitto is installed, it is asked itself: what was recorded is no more than it says, and
/// what it says we say, too.
#[test]
fn what_was_recorded_is_what_mosquitto_says() {
    let paths = [
        "/usr/sbin/mosquitto",
        "/usr/local/sbin/mosquitto",
        "/usr/bin/mosquitto",
    ];
    let Some(program) = paths
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        println!("no mosquitto here; the recorded topics of 2.0.11 stand for it");
        return;
    };
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let config = std::env::temp_dir().join(format!("shardmq-mosquitto-{port}.conf"));
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n");
    std::fs::write(&config, text).unwrap();
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _mosquitto = Mosquitto(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "mosquitto does not start"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::remove_file(&config).unwrap();
    let recorded = recorded();
    let found = topics(address, &recorded);
    let gone: Vec<_> = recorded.difference(&found).collect();
    let new: Vec<_> = found.difference(&recorded).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "not there: {gone:?}, not recorded: {new:?}"
    );
}
