//! The Will Message: sections 3.1.2.5, 3.1.3.2 and 3.14.4.

use shardmq::shard::Settings;
use shardmq::wire::ReasonCode;

use crate::client::{both, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{message, sub};

/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT-3.1.2-8 3.1.1] [MQTT-3.1.2-16 3.1.1]: a connection that
/// just ends leaves its will, with the QoS it was given, not retained.
#[test]
fn a_connection_that_just_ends_leaves_its_will() {
    on_shards(|broker| {
        for options in both("vehicle") {
            for qos in 0..=2 {
                let mut watcher = broker.connect(v5("watcher"));
                watcher.subscribe(sub("will/#").qos(2).retain_as_published());
                let will = message("will/vehicle", "lost").qos(qos);
                let mut client = broker.connect(options.clone().will(will.clone()));
                client.cut();
                watcher.expect(&will);
                watcher.expect_nothing();
                let mut late = broker.connect(v5("late"));
                late.subscribe(sub("will/#"));
                late.expect_nothing();
            }
        }
        assert_eq!(broker.stats().wills_published, 6);
    });
}

/// [MQTT-3.1.2-10] [MQTT-3.14.4-3] [MQTT-3.1.2-10 3.1.1] [MQTT-3.14.4-3 3.1.1]: DISCONNECT 0x00 takes it back.
/// [MQTT-3.1.2-12 3.1.1]: who has no will leaves none.
#[test]
fn a_farewell_takes_the_will_back() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("#"));
        for options in both("vehicle") {
            let mut client = broker.connect(options.clone().will(message("will", "lost")));
            client.disconnect();
            let will = message("will", "lost");
            let mut client = broker.connect(options.clone().kept().delayed_will(will, 5));
            client.disconnect();
            broker.advance(100.0);
            let mut client = broker.connect(options.clone());
            client.cut();
        }
        watcher.expect_nothing();
        assert_eq!(broker.stats().wills_published, 0);
    });
}

/// Every other end leaves it: DISCONNECT 0x04 and other reasons, broken rules, silence, takeover.
#[test]
fn every_other_end_leaves_the_will() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("will"));
        let options = v5("vehicle").will(message("will", "lost")).keep_alive(10);
        for reason in [
            ReasonCode::DisconnectWithWillMessage,
            ReasonCode::UnspecifiedError,
        ] {
            broker
                .connect(options.clone())
                .disconnect_with(reason, None);
            watcher.expect(&message("will", "lost"));
        }
        for broken in [
            &[0x00, 0x00][..],
            &[0x36, 0x00],
            &[0x30, 0x05, 0, 3, b'a', b'/', b'#'],
        ] {
            broker.connect(options.clone()).send_bytes(broken);
            watcher.expect(&message("will", "lost"));
        }
        let silent = broker.connect(options.clone());
        broker.advance(15.1);
        assert!(!silent.is_open());
        watcher.expect(&message("will", "lost"));
        let old = v3("vehicle").will(message("will", "lost"));
        broker.connect(old.clone()).send_bytes(&[0xE0, 0x01, 0x00]);
        watcher.expect(&message("will", "lost"));
        let first = broker.connect(options.clone().at(0));
        let _second = broker.connect(options.clone().at(1));
        assert!(!first.is_open());
        watcher.expect(&message("will", "lost"));
        watcher.expect_nothing();
    });
}

/// [MQTT-3.1.2-15] [MQTT-3.1.2-17 3.1.1]: Will Retain.
#[test]
fn a_will_may_be_retained() {
    on_shards(|broker| {
        for options in both("vehicle") {
            let mut watcher = broker.connect(v5("watcher"));
            watcher.subscribe(sub("will").without_retained());
            let will = message("will", "lost").qos(1).retain();
            broker.connect(options.will(will.clone())).cut();
            watcher.expect(&message("will", "lost"));
            let mut late = broker.connect(v5("late"));
            late.subscribe(sub("will").qos(1));
            late.expect(&will);
        }
    });
}

/// [MQTT-3.1.2-8]: the delay counts from the close and is never cut short while the session lasts.
#[test]
fn a_delayed_will_is_never_early() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("will"));
        for fraction in [0.0, 0.000_001, 0.004_9, 0.5, 0.999_999] {
            broker.advance(fraction);
            let will = message("will", "late");
            let options = v5("vehicle").kept().delayed_will(will, 7);
            broker.connect(options.clone()).cut();
            broker.advance(6.999_999);
            watcher.expect_nothing();
            broker.advance(0.02);
            watcher.expect(&message("will", "late"));
            broker.advance(100.0);
            watcher.expect_nothing(); // once
        }
    });
}

/// [MQTT-3.1.2-8]: the end of the session cuts the delay short: when it expires, when it is discarded,
/// and when it does not outlive the connection.
#[test]
fn the_end_of_the_session_ends_the_delay() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("will"));
        let options = v5("vehicle").delayed_will(message("will", "w"), 60);
        broker.connect(options.clone().expiry(10)).cut();
        broker.advance(9.9);
        watcher.expect_nothing();
        broker.advance(0.2);
        watcher.expect(&message("will", "w"));

        broker.connect(options.clone().expiry(100)).cut();
        broker.connect(v5("vehicle")).disconnect();
        watcher.expect(&message("will", "w"));

        broker.connect(options.clone()).cut();
        watcher.expect(&message("will", "w"));

        let mut client = broker.connect(options.clone().expiry(100));
        client.disconnect_with(ReasonCode::DisconnectWithWillMessage, Some(0));
        watcher.expect(&message("will", "w"));
        broker.advance(200.0);
        watcher.expect_nothing();
    });
}

/// [MQTT-3.1.3-9]: a client that is back in time leaves no will; neither does one that takes its own
/// session over. The will of the new connection counts from then on.
#[test]
fn a_client_that_is_back_in_time_leaves_no_will() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("will"));
        let options = |text: &str| v5("vehicle").kept().delayed_will(message("will", text), 10);
        broker.connect(options("first")).cut();
        broker.advance(9.9);
        let mut second = broker.connect(options("second"));
        broker.advance(20.0);
        watcher.expect_nothing();
        let _third = broker.connect(options("third"));
        second.expect_end(ReasonCode::SessionTakenOver);
        broker.advance(20.0);
        watcher.expect_nothing();
        let mut fourth = broker.connect(v5("vehicle").kept());
        fourth.cut();
        broker.advance(20.0);
        watcher.expect_nothing(); // the fourth connection had none
    });
}

/// [MQTT-3.1.3-10]: properties of the will are forwarded; its expiry counts from its publication.
#[test]
fn a_will_has_properties() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("will").qos(1));
        let mut away = broker.connect(v5("away").kept());
        away.subscribe(sub("will").qos(1));
        away.cut();
        let will = message("will", "lost")
            .qos(1)
            .expiry(30)
            .format(1)
            .content_type("text/plain")
            .response_topic("answers")
            .correlation(b"7")
            .user("b", "1")
            .user("a", "2")
            .user("b", "0");
        broker
            .connect(v5("vehicle").kept().delayed_will(will.clone(), 20))
            .cut();
        broker.advance(20.02);
        watcher.expect(&will);
        broker.advance(10.0);
        let mut away = broker.connect(v5("away").kept());
        away.expect(&will.expiry(20));
    });
}

/// A will is taken from the CONNECT that is accepted, not from one that is refused.
#[test]
fn a_refused_connect_leaves_no_will() {
    let settings = Settings {
        max_keep_alive: 10,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("will"));
        let refused = v3("vehicle").keep_alive(60).will(message("will", "w"));
        broker.expect_refused(refused, ReasonCode::ClientIdentifierNotValid);
        watcher.expect_nothing();
    });
}

/// When the broker stops, delayed wills are published too: their sessions end with it.
#[test]
fn a_stop_publishes_wills() {
    on_shards(|broker| {
        let keeper = broker.on(0, "will");
        let options = v5("vehicle").kept();
        let will = message(&keeper, "w").retain();
        let mut client = broker.connect(options.delayed_will(will, 60));
        broker.shutdown();
        client.expect_end(ReasonCode::ServerShuttingDown);
        assert_eq!(
            (broker.stats().wills_published, broker.stats().retained),
            (1, 1)
        );
    });
}
