//! The presets that are not about messages alone, on numbers of clients that any machine has.

use crate::brokers::{Broker, loadgen, mosquitto, result, shardmq};

fn both(test: &str) -> impl Iterator<Item = Broker> {
    [shardmq(test), mosquitto(test)].into_iter().flatten()
}

#[test]
fn a_storm_is_over_when_everybody_is_connected() {
    for broker in both("a_storm_is_over_when_everybody_is_connected") {
        let result = result(&loadgen(
            broker.port,
            &["run", "storm-500", "--format", "json"],
        ));
        assert_eq!(result["counts"]["connected"], 500, "{result}");
        assert_eq!(result["counts"]["connect_failed"], 0, "{result}");
        assert_eq!(result["counts"]["lost"], 0, "{result}");
        assert_eq!(result["latency_ns"]["connect"]["count"], 500, "{result}");
        assert_eq!(
            result["errors"].as_array().map(Vec::len),
            Some(0),
            "{result}"
        );
    }
}

#[test]
fn idle_connections_are_held_and_their_memory_is_told() {
    for broker in both("idle_connections_are_held_and_their_memory_is_told") {
        let pid = broker.child.id().to_string();
        let arguments = [
            "run",
            "idle-1000",
            "--duration",
            "1s",
            "--warmup",
            "0s",
            "--broker-pid",
            &pid,
            "--format",
            "json",
        ];
        let result = result(&loadgen(broker.port, &arguments));
        assert_eq!(result["counts"]["open"], 1_000, "{result}");
        assert_eq!(result["counts"]["subscribed"], 1_000, "{result}");
        let each = result["broker"]["bytes_per_connection"].as_f64().unwrap();
        assert!((1.0..1e6).contains(&each), "{each}");
    }
}

#[test]
fn a_fan_reaches_everybody() {
    for broker in both("a_fan_reaches_everybody") {
        let arguments = [
            "run",
            "fanout-1-100-1-1K",
            "--duration",
            "1s",
            "--warmup",
            "0s",
            "--verify",
            "full",
            "--assert",
            "loss=0,duplicates=0,errors=0",
            "--format",
            "json",
        ];
        let output = loadgen(broker.port, &arguments);
        let result = result(&output);
        assert_eq!(output.status.code(), Some(0), "{result}");
        let sent = result["counts"]["published"].as_u64().unwrap();
        assert!((9..=11).contains(&sent), "{sent}");
        let delivered = result["verification"]["delivered"].as_u64().unwrap();
        assert!(delivered >= sent * 100, "{result}");
    }
}

#[test]
fn a_subscriber_that_stops_reading_is_no_loss_to_the_others() {
    for broker in both("a_subscriber_that_stops_reading_is_no_loss_to_the_others") {
        let arguments = [
            "run",
            "slow-reader",
            "--rate",
            "2k",
            "-s",
            "1KiB",
            "--duration",
            "2s",
            "--warmup",
            "0s",
            "--verify",
            "seq",
            "--assert",
            "loss=0,duplicates=0",
            "--format",
            "json",
        ];
        let output = loadgen(broker.port, &arguments);
        let result = result(&output);
        assert_eq!(output.status.code(), Some(0), "{result}");
        assert_eq!(result["counts"]["subscribed"], 200, "{result}");
        // What the slow one had got before it stopped is no more than a moment's.
        let received = result["counts"]["received"].as_u64().unwrap();
        let published = result["counts"]["published"].as_u64().unwrap();
        assert!(received < published + published / 2, "{result}");
    }
}

#[test]
fn nobody_loses_a_connection_by_saying_goodbye() {
    for broker in both("nobody_loses_a_connection_by_saying_goodbye") {
        let arguments = [
            "run",
            "idle-1000",
            "--duration",
            "1s",
            "--warmup",
            "0s",
            "--shards",
            "2",
            "--format",
            "json",
        ];
        let result = result(&loadgen(broker.port, &arguments));
        assert_eq!(result["counts"]["lost"], 0, "{result}");
        assert_eq!(
            result["errors"].as_array().map(Vec::len),
            Some(0),
            "{result}"
        );
    }
}
