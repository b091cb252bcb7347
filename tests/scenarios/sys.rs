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
        assert_eq!(values.len(), 24, "{values:?}");
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
