//! The session: start, resume, end. Sections 3.1.2.4, 3.1.2.11.2, 3.2.2.1.1 and 4.1.

use shardmq::shard::Settings;
use shardmq::wire::ReasonCode;

use crate::client::{both, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{message, sub};

/// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT-3.1.3-2]: a session is found again under its
/// client id. [MQTT-3.1.2-4 3.1.1] [MQTT-3.2.2-2 3.1.1] [MQTT-3.2.2-3 3.1.1] [MQTT-3.1.3-2 3.1.1]
#[test]
fn a_session_is_resumed() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options.clone().kept());
            assert!(!client.welcome.session_present);
            client.subscribe(sub("door").qos(1));
            client.cut();
            publisher.publish(&message("door", "open").qos(1));

            let mut client = broker.connect(options.clone().kept());
            assert!(client.welcome.session_present);
            client.expect(&message("door", "open").qos(1));
            publisher.publish(&message("door", "closed").qos(1));
            client.expect(&message("door", "closed").qos(1));
            client.disconnect();
            broker.connect(options).disconnect();
        }
    });
}

/// [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2]: Clean Start discards subscriptions, what waits and what is
/// in flight. [MQTT-3.1.2-6 3.1.1] [MQTT-3.1.4-3 3.1.1] [MQTT-3.2.2-1 3.1.1]
#[test]
fn a_clean_start_discards_the_session() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options.clone().kept().manual());
            client.subscribe(sub("door").qos(2));
            client.send_publish(&message("other", "unreleased").qos(2).id(9));
            publisher.publish(&message("door", "in flight").qos(1));
            client.cut();
            publisher.publish(&message("door", "queued").qos(2));

            let mut client = broker.connect(options.clone());
            assert!(!client.welcome.session_present);
            client.expect_nothing();
            publisher.publish(&message("door", "gone").qos(1));
            client.expect_nothing();
            // The identifier that was not released is free again.
            client.subscribe(sub("other").qos(0));
            client.publish(&message("other", "new").qos(2).id(9));
            client.expect(&message("other", "new"));
            client.disconnect();
            let stats = broker.stats();
            assert_eq!(
                (stats.sessions, stats.subscriptions, stats.queued),
                (1, 0, 0)
            );
        }
    });
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-2]: a session outlives its connection by its interval, not longer.
#[test]
fn a_session_ends_when_its_interval_has_passed() {
    on_shards(|broker| {
        let options = v5("vehicle").expiry(10).resume();
        let mut client = broker.connect(options.clone());
        client.subscribe(sub("door"));
        client.cut();
        broker.advance(9.9);
        let mut client = broker.connect(options.clone());
        assert!(client.welcome.session_present);
        client.cut();
        broker.advance(10.1);
        assert_eq!(
            (broker.stats().sessions, broker.stats().sessions_expired),
            (0, 1)
        );
        assert_eq!(broker.stats().subscriptions, 0);
        assert!(!broker.connect(options).welcome.session_present);
    });
}

/// [MQTT-4.1.0-1] [MQTT-4.1.0-1 3.1.1] [MQTT-4.1.0-2 3.1.1]: the interval counts from the close; while the
/// client is connected, its session stays however long that takes.
#[test]
fn a_session_stays_while_its_client_is_connected() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let mut client = broker.connect(options.expiry(5));
            client.subscribe(sub("door"));
            broker.advance(1_000.0);
            client.publish(&message("door", "open"));
            client.expect(&message("door", "open"));
            client.disconnect();
        }
    });
}

/// An interval of 0 ends the session with its connection, 0xFFFFFFFF keeps it for ever.
#[test]
fn two_intervals_are_special() {
    on_shards(|broker| {
        let mut brief = broker.connect(v5("brief"));
        brief.cut();
        assert!(!broker.connect(v5("brief").resume()).welcome.session_present);
        let mut endless = broker.connect(v5("endless").expiry(u32::MAX));
        endless.cut();
        broker.advance(50_000.0);
        assert!(broker.connect(v5("endless").kept()).welcome.session_present);
    });
}

/// CleanSession 0 keeps the session of a 3.1.1 client; CleanSession 1 ends it with the connection.
/// [MQTT-3.1.2-6 3.1.1]
#[test]
fn clean_session_decides_about_both_ends() {
    on_shards(|broker| {
        let mut client = broker.connect(v3("old"));
        client.cut();
        assert!(!broker.connect(v3("old").resume()).welcome.session_present);
        broker.advance(10_000.0);
        let mut client = broker.connect(v3("old").resume());
        assert!(client.welcome.session_present);
        client.disconnect();
        assert_eq!(broker.stats().sessions, 1);
        broker.connect(v3("old")).disconnect();
        assert_eq!(broker.stats().sessions, 0);
    });
}

/// DISCONNECT may change the interval, shorter and longer.
#[test]
fn disconnect_may_change_the_interval() {
    on_shards(|broker| {
        let options = v5("vehicle").resume();
        let mut client = broker.connect(options.clone().expiry(100));
        client.disconnect_with(ReasonCode::NormalDisconnection, Some(0));
        assert_eq!(broker.stats().sessions, 0);
        let mut client = broker.connect(options.clone().expiry(1));
        client.disconnect_with(ReasonCode::NormalDisconnection, Some(100));
        broker.advance(99.0);
        assert!(broker.connect(options).welcome.session_present);
    });
}

/// But not from 0 upwards: that is a Protocol Error (3.14.2.2.2), and the session is over.
#[test]
fn disconnect_may_not_revive_a_session() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("vehicle"));
        client.disconnect_with(ReasonCode::NormalDisconnection, Some(100));
        client.expect_end(ReasonCode::ProtocolError);
        assert_eq!(broker.stats().sessions, 0);
    });
}

/// The broker may keep sessions for a shorter time, and says so in CONNACK (3.2.2.3.2).
#[test]
fn the_broker_may_shorten_the_interval() {
    let settings = Settings {
        max_session_expiry_interval: 60,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        assert_eq!(
            broker
                .connect(v5("modest").expiry(60))
                .welcome
                .session_expiry,
            None
        );
        let mut client = broker.connect(v5("vehicle").expiry(u32::MAX));
        assert_eq!(client.welcome.session_expiry, Some(60));
        client.cut();
        let mut old = broker.connect(v3("old").resume());
        old.cut();
        broker.advance(60.1);
        assert!(!broker.connect(v5("vehicle").kept()).welcome.session_present);
        assert!(!broker.connect(v3("old").resume()).welcome.session_present);
    });
}

/// [MQTT-4.5.0-1] [MQTT-4.5.0-1 3.1.1] [MQTT-3.1.2-5 3.1.1]: what is published while a client is away
/// waits for it, in order. QoS 0 does not, and that is counted.
#[test]
fn messages_wait_for_a_client_that_is_away() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let mut publisher = broker.connect(v5("publisher"));
            let before = broker
                .stats()
                .dropped_for(shardmq::stats::DropReason::Offline);
            let mut client = broker.connect(options.clone().kept());
            client.subscribe(sub("door/#").qos(2));
            client.disconnect();
            for (number, qos) in [1, 2, 0, 1, 2].into_iter().enumerate() {
                publisher.publish(&message("door/left", number.to_string()).qos(qos));
            }
            let dropped = broker
                .stats()
                .dropped_for(shardmq::stats::DropReason::Offline);
            assert_eq!(dropped - before, 1);
            assert_eq!(broker.stats().queued, 4);
            let mut client = broker.connect(options.clone().kept());
            for (payload, qos) in [("0", 1), ("1", 2), ("3", 1), ("4", 2)] {
                client.expect(&message("door/left", payload).qos(qos));
            }
            client.expect_nothing();
            assert_eq!(broker.stats().queued, 0);
            client.disconnect();
            broker.connect(options).disconnect();
        }
    });
}

/// A setting lets QoS 0 wait as well.
#[test]
fn qos_0_may_wait_too() {
    let settings = Settings {
        queue_qos0: true,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("vehicle").kept());
        client.subscribe(sub("door").qos(1));
        client.disconnect();
        publisher.publish(&message("door", "1"));
        publisher.publish(&message("door", "2").qos(1));
        publisher.publish(&message("door", "3"));
        let mut client = broker.connect(v5("vehicle").kept());
        client.expect(&message("door", "1"));
        client.expect(&message("door", "2").qos(1));
        client.expect(&message("door", "3"));
    });
}

/// A message that waits keeps what it came with: QoS, Retain As Published, Subscription Identifiers,
/// expiry and properties.
#[test]
fn a_message_that_waits_keeps_what_it_came_with() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("vehicle").kept());
        client.subscribe(sub("door").qos(2).retain_as_published().identifier(7));
        client.subscribe(sub("#").qos(1).without_retained().identifier(300_000));
        client.disconnect();
        let sent = message("door", "open")
            .qos(2)
            .retain()
            .expiry(60)
            .format(1)
            .content_type("text/plain")
            .response_topic("answers")
            .correlation(b"\x00\xFF")
            .user("k", "2")
            .user("k", "1");
        publisher.publish(&sent);
        broker.advance(10.0);
        let mut client = broker.connect(v5("vehicle").kept());
        let received = client.messages();
        assert_eq!(received.len(), 1);
        let mut identifiers = received[0].identifiers.clone();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [7, 300_000]);
        let mut received = received[0].clone();
        received.identifiers.clear();
        received.id = None;
        assert_eq!(received, sent.expiry(50));
    });
}

/// [MQTT-3.1.2-7 3.1.1]: retained messages are no part of a session.
#[test]
fn retained_messages_outlive_the_session() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let mut client = broker.connect(options.clone());
            client.publish(&message("door", "open").retain());
            client.disconnect();
            let mut client = broker.connect(options);
            client.subscribe(sub("door"));
            client.expect(&message("door", "open").retain());
        }
    });
}
