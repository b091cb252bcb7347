//! Retained messages, sections 3.3.1.3 and 3.8.3.1.

use crate::client::{both, on_shards, v5};
use crate::packets::{message, sub};

/// [MQTT-3.3.1-5] [MQTT-3.3.1-9] [MQTT-3.3.1-5 3.1.1] [MQTT-3.3.1-6 3.1.1] [MQTT-3.3.1-8 3.1.1]: the last retained
/// message of each topic comes with a new subscription, RETAIN 1, with the lower of both QoS.
#[test]
fn a_new_subscription_brings_the_last_retained_message() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            for shard in 0..3 {
                let topic = format!("state/{}", broker.on(shard, "t"));
                client.publish(&message(&topic, "old").qos(2).retain());
                client.publish(&message(&topic, "new").qos(1).retain());
                for granted in 0..=2 {
                    client.subscribe(sub(&topic).qos(granted));
                    client.expect(&message(&topic, "new").qos(granted.min(1)).retain());
                    client.expect_nothing();
                    client.unsubscribe(&[&topic]);
                }
            }
        }
        assert_eq!(broker.stats().retained, broker.shards() as u64);
    });
}

/// [MQTT-3.3.1-8] [MQTT-3.3.1-12 3.1.1]: what is not retained changes nothing that is.
#[test]
fn a_message_without_retain_is_not_kept() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            client.publish(&message("door", "kept").retain());
            client.publish(&message("door", "passing").qos(1));
            client.publish(&message("door", ""));
            client.publish(&message("window", "passing"));
            client.subscribe(sub("#"));
            client.expect(&message("door", "kept").retain());
            client.expect_nothing();
        }
    });
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-10 3.1.1] [MQTT-3.3.1-11 3.1.1]: an empty payload removes, and is
/// forwarded all the same.
#[test]
fn an_empty_retained_message_removes() {
    on_shards(|broker| {
        for options in both("client") {
            let mut watcher = broker.connect(v5("watcher"));
            watcher.subscribe(sub("door").retain_as_published());
            let mut client = broker.connect(options);
            client.publish(&message("door", "open").retain());
            watcher.expect(&message("door", "open").retain());
            client.publish(&message("door", "").retain());
            watcher.expect(&message("door", "").retain());
            client.subscribe(sub("door"));
            client.expect_nothing();
            let stats = broker.stats();
            assert_eq!((stats.retained, stats.retained_bytes), (0, 0));
        }
    });
}

/// [MQTT-3.3.1-7 3.1.1]: a QoS 0 message replaces one of QoS 1, and comes with QoS 0.
#[test]
fn qos_0_replaces_qos_1() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            client.publish(&message("door", "1").qos(1).retain());
            client.publish(&message("door", "0").retain());
            client.subscribe(sub("door").qos(2));
            client.expect(&message("door", "0").retain());
            client.expect_nothing();
        }
    });
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]: Retain Handling 0 sends with every SUBSCRIBE, 1
/// if the subscription is new, 2 never.
#[test]
fn retain_handling_decides_when_they_come() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        publisher.publish(&message("door", "open").retain());
        publisher.publish(&message("door/left", "open").retain());
        let mut client = broker.connect(v5("client").kept());
        for filter in ["door", "door/#", "+/left"] {
            let expected = if filter == "door/#" { 2 } else { 1 };
            client.subscribe(sub(filter).without_retained());
            client.expect_nothing();
            client.subscribe(sub(filter).retained_if_new());
            client.expect_nothing(); // it was there
            client.subscribe(sub(filter));
            assert_eq!(client.messages().len(), expected);
            client.subscribe(sub(filter));
            assert_eq!(client.messages().len(), expected);
            client.unsubscribe(&[filter]);
            client.subscribe(sub(filter).retained_if_new());
            assert_eq!(client.messages().len(), expected);
            client.subscribe(sub(filter).retained_if_new().qos(1));
            client.expect_nothing();
        }
        // A subscription that a session brings back is not new.
        client.cut();
        let mut client = broker.connect(v5("client").kept());
        client.expect_nothing();
        client.subscribe(sub("door").retained_if_new());
        client.expect_nothing();
    });
}

/// [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.3.1-9 3.1.1]: RETAIN is cleared on what is forwarded, unless the
/// subscription wants it as published.
#[test]
fn retain_is_forwarded_only_as_published() {
    on_shards(|broker| {
        for options in both("plain") {
            let mut publisher = broker.connect(v5("publisher"));
            let mut plain = broker.connect(options);
            plain.subscribe(sub("door").qos(1).without_retained());
            let mut faithful = broker.connect(v5("faithful"));
            faithful.subscribe(sub("door").qos(1).retain_as_published().without_retained());
            for qos in 0..=1 {
                publisher.publish(&message("door", "x").qos(qos).retain());
                plain.expect(&message("door", "x").qos(qos));
                faithful.expect(&message("door", "x").qos(qos).retain());
                publisher.publish(&message("door", "y").qos(qos));
                plain.expect(&message("door", "y").qos(qos));
                faithful.expect(&message("door", "y").qos(qos));
            }
            publisher.publish(&message("door", "").retain());
        }
    });
}

/// [MQTT-3.3.4-3]: retained messages carry the Subscription Identifier and their properties.
#[test]
fn a_retained_message_comes_whole() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let sent = message("door", "open")
            .qos(1)
            .retain()
            .expiry(100)
            .content_type("text/plain")
            .user("a", "b")
            .correlation(b"\x00");
        publisher.publish(&sent);
        broker.advance(40.0);
        let mut client = broker.connect(v5("client").aliases(3));
        client.subscribe(sub("+").qos(2).identifier(9));
        client.expect(&sent.expiry(60).identifier(9).alias(1));
    });
}

/// Retained messages do not come with a shared subscription.
#[test]
fn shared_subscriptions_bring_no_retained_messages() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.publish(&message("door", "open").retain());
        client.subscribe(sub("$share/g/door"));
        client.expect_nothing();
        client.subscribe(sub("$share/g/#"));
        client.expect_nothing();
    });
}

/// Overlapping subscriptions of one SUBSCRIBE bring their retained messages each.
#[test]
fn each_subscription_brings_its_own() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.publish(&message("door", "open").retain());
        assert_eq!(
            client.subscribe_all(&[sub("door"), sub("+"), sub("window")]),
            [0, 0, 0]
        );
        client.expect(&message("door", "open").retain());
        client.expect(&message("door", "open").retain());
        client.expect_nothing();
    });
}
