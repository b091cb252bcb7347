//! `$SYS/broker/...`: what the broker tells about itself.

use std::collections::HashMap;

use shardmq::shard::Settings;

use crate::client::{on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{message, sub};

/// The names are mosquitto's; the values are those of all shards together.
#[test]
fn the_broker_tells_about_itself() {
    let settings = Settings {
        sys_interval: 10,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut clients: Vec<_> = (0..6)
            .map(|number| broker.connect(v5(&format!("client{number}")).kept()))
            .collect();
        for client in &mut clients {
            client.subscribe(sub("door").qos(1));
            client.publish(&message("door", "12345"));
        }
        clients[0].subscribe(sub("$share/g/door"));
        clients[5].publish(&message("kept", "1234567").retain());
        clients[0].cut();
        clients[1].publish(&message("door", "waits").qos(1));
        broker.advance(25.0);
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("$SYS/#"));
        let values: HashMap<_, _> = watcher
            .messages()
            .into_iter()
            .map(|message| {
                assert!(message.retain);
                let value = String::from_utf8(message.payload.0).unwrap();
                (message.topic, value)
            })
            .collect();
        let of = |name: &str| {
            values
                .get(&format!("$SYS/broker/{name}"))
                .map(String::as_str)
        };
        for (name, value) in [
            ("clients/total", "6"),
            ("clients/connected", "5"),
            ("clients/active", "5"),
            ("clients/disconnected", "1"),
            ("clients/inactive", "1"),
            ("clients/maximum", "6"),
            ("clients/expired", "0"),
            ("subscriptions/count", "7"),
            ("shared_subscriptions/count", "1"),
            ("publish/messages/received", "8"),
            ("publish/messages/dropped", "1"),
            (
                "version",
                concat!("shardmq version ", env!("CARGO_PKG_VERSION")),
            ),
        ] {
            assert_eq!(of(name), Some(value), "{name}");
        }
        for name in [
            "messages/received",
            "messages/sent",
            "publish/messages/sent",
            "publish/bytes/received",
            "publish/bytes/sent",
            "bytes/received",
            "bytes/sent",
            "retained messages/count",
            "messages/stored",
            "store/messages/count",
            "store/messages/bytes",
        ] {
            let value: Option<u64> = of(name).and_then(|value| value.parse().ok());
            assert!(value.is_some_and(|value| value > 0), "{name}: {value:?}");
        }
        assert!(of("uptime").is_some_and(|uptime| uptime.ends_with(" seconds")));
        for load in [
            "messages/received",
            "messages/sent",
            "publish/dropped",
            "publish/received",
            "publish/sent",
            "bytes/received",
            "bytes/sent",
            "sockets",
            "connections",
        ] {
            for minutes in [1, 5, 15] {
                let value = of(&format!("load/{load}/{minutes}min"));
                assert!(
                    value.is_some_and(|value| value.parse::<f64>().is_ok()),
                    "{load}: {value:?}"
                );
            }
        }
        assert_eq!(values.len(), 24 + 27, "{values:?}");
    });
}

/// Load averages are per minute, over the last 1, 5 and 15 minutes; each interval moves them by the
/// share of its length.
#[test]
fn load_averages_follow_the_traffic() {
    let settings = Settings {
        sys_interval: 10,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let average = |minutes: f64, reports: i32, before: f64, rate: f64| {
            rate + (-f64::from(reports) / (6.0 * minutes)).exp() * (before - rate)
        };
        let mut expected = [0.0; 3];
        // What happened before the second report came all at once: not looked at here.
        broker.advance(20.0);
        let load = |name: &str| {
            let mut watcher = broker.connect(v5("watcher"));
            watcher.subscribe(sub(&format!("$SYS/broker/load/{name}/#")));
            let values = watcher.messages();
            watcher.cut();
            ["/1min", "/5min", "/15min"].map(|window| {
                let message = values
                    .iter()
                    .find(|message| message.topic.ends_with(window));
                let message = message.unwrap_or_else(|| panic!("{name}{window}"));
                let value: f64 = String::from_utf8_lossy(&message.payload.0).parse().unwrap();
                value
            })
        };
        assert_eq!(load("publish/received"), expected);
        for (per_interval, intervals) in [(50, 30), (0, 12)] {
            for _ in 0..intervals {
                for _ in 0..per_interval {
                    publisher.publish(&message("a", "b"));
                }
                broker.advance(10.0);
            }
            for (value, minutes) in expected.iter_mut().zip([1.0, 5.0, 15.0]) {
                *value = average(minutes, intervals, *value, f64::from(per_interval) * 6.0);
            }
            // A shard's report may be one interval late.
            broker.advance(10.0);
            for (value, minutes) in expected.iter_mut().zip([1.0, 5.0, 15.0]) {
                *value = average(minutes, 1, *value, 0.0);
            }
            let found = load("publish/received");
            for (found, expected) in found.into_iter().zip(expected) {
                let late = 300.0 * (1.0 - (-1.0_f64 / 6.0).exp());
                assert!((found - expected).abs() < late, "{found} for {expected}");
            }
            // While traffic goes on the shortest window has the most of it; afterwards it forgets first.
            let shortest_leads = found[0] > found[1] && found[1] > found[2];
            assert_eq!(shortest_leads, per_interval > 0, "{found:?}");
        }
    });
}

/// `$SYS` is published live, to whoever asks for it by name, and to nobody else.
#[test]
fn what_changes_is_published() {
    let settings = Settings {
        sys_interval: 10,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut everything = broker.connect(v3("everything"));
        everything.subscribe(sub("#"));
        let mut watcher = broker.connect(v3("watcher"));
        broker.advance(21.0);
        watcher.subscribe(sub("$SYS/broker/clients/connected"));
        watcher.expect(&message("$SYS/broker/clients/connected", "2").retain());
        let _third = broker.connect(v5("third"));
        broker.advance(20.0);
        watcher.expect(&message("$SYS/broker/clients/connected", "3"));
        broker.advance(50.0);
        watcher.expect_nothing(); // it did not change
        everything.expect_nothing();
    });
}

/// An interval of 0 is never.
#[test]
fn it_can_be_switched_off() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("$SYS/#"));
        broker.advance(100.0);
        watcher.expect_nothing();
        assert_eq!(broker.stats().retained, 0);
    });
}
