//! The pages, and clients of them that do not behave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::program::{Broker, shardmq};

#[test]
fn the_pages_are_there_and_others_are_not() {
    let broker = Broker::start(&["--shards", "2"]);
    let index = broker.get("/");
    assert!(index.body.contains("/metrics") && index.body.contains("/status"));
    let metrics = broker.get("/metrics");
    assert!(
        metrics
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        metrics.head
    );
    for (method, path, code) in [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/status", 405),
        ("GET", "/metrics?compat=rabbit", 400),
        ("HEAD", "/metrics", 200),
        ("HEAD", "/status", 200),
    ] {
        let answer = broker.request(method, path);
        assert_eq!(answer.code, code, "{method} {path}");
        assert_eq!(
            answer.head.contains("allow: get, head"),
            code == 405,
            "{}",
            answer.head
        );
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {path}");
    }
    broker.stop();
}

#[test]
fn the_status_says_how_each_shard_stands() {
    for driver in ["auto", "epoll"] {
        let broker = Broker::start(&["--shards", "2", "--driver", driver]);
        let mut client = broker.client("somebody");
        client.subscribe("a/#", 0);
        // More than once: a shard is woken for each.
        for _ in 0..20 {
            let answer = broker.get("/status");
            assert!(answer.head.contains("content-type: application/json"));
            let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(
                (&status["format"], &status["healthy"]),
                (&1.into(), &true.into())
            );
            assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(status["listeners"][0]["address"], broker.mqtt.to_string());
            assert_eq!(status["all"]["subscriptions"], 1);
            let shards = status["shards"].as_array().unwrap();
            assert_eq!(shards.len(), 2);
            assert!(shards.iter().all(|shard| shard["up"] == true));
        }
        client.ping();
        broker.stop();
    }
}

/// Slow heads, endless heads, silence, and readers that do not read: many more than may be at a time.
#[test]
fn hostile_readers_disturb_no_client_and_do_not_stay() {
    let broker = Broker::start(&["--shards", "1"]);
    let mut client = broker.client("somebody");
    client.subscribe("a", 0);
    let mut hostile: Vec<TcpStream> = (0..60).map(|_| broker.connect_http()).collect();
    for (number, stream) in hostile.iter_mut().enumerate() {
        let _ = match number % 4 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /metrics HT"),
            2 => stream.write_all(&[b'x'; 60_000]),
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
        };
    }
    for _ in 0..200 {
        client.publish("a", b"b", None);
        let received = client.receive_publishes(1);
        assert_eq!(received, [("a".to_owned(), b"b".to_vec())]);
    }
    // Those that say nothing lose their places, so that whoever waits gets one.
    let begun = Instant::now();
    let answered = loop {
        let mut stream = broker.connect_http();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut text = String::new();
        let asked = stream.write_all(b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n");
        let read = asked.and_then(|()| stream.read_to_string(&mut text));
        if read.is_ok() && text.starts_with("HTTP/1.1 200") {
            break true;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            break false;
        }
    };
    assert!(answered, "no place was given up");
    drop(hostile);
    client.ping();
    broker.stop();
}

#[test]
fn a_taken_port_ends_only_who_asked_for_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = shardmq(&["run", "--listen", "127.0.0.1:0", "--http", &address])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(
        error.contains("HTTP: cannot listen on") && error.contains("--http off"),
        "{error}"
    );
    // Whoever has it, it is taken now.
    let _default = TcpListener::bind("127.0.0.1:9883");
    let broker = Broker::start_as_is(&["--shards", "1"]);
    assert_eq!(broker.http, None, "{}", broker.log);
    assert!(
        broker.log.contains("going on without metrics"),
        "{}",
        broker.log
    );
    broker.client("somebody").ping();
    broker.stop();
    let broker = Broker::start_as_is(&["--shards", "1", "--http", "off"]);
    assert_eq!(broker.http, None);
    assert!(!broker.log.contains("going on without"), "{}", broker.log);
    broker.stop();
}
