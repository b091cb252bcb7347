//! Message Expiry Interval, section 3.3.2.3.3.

use shardmq::stats::DropReason;
use shardmq::wire::ReasonCode;

use crate::client::{on_shards, v3, v5};
use crate::packets::{Received, message, sub};

/// [MQTT-3.3.2-6]: what is forwarded says the seconds that are left; passing through takes none.
#[test]
fn the_interval_is_counted_down() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").kept());
        client.subscribe(sub("door").qos(1));
        publisher.publish(&message("door", "live").qos(1).expiry(100));
        client.expect(&message("door", "live").qos(1).expiry(100));
        client.cut();
        publisher.publish(&message("door", "1").qos(1).expiry(100));
        publisher.publish(&message("door", "2").qos(1));
        publisher.publish(&message("door", "3").qos(1).expiry(u32::MAX));
        broker.advance(30.0);
        let mut client = broker.connect(v5("client").kept());
        client.expect(&message("door", "1").qos(1).expiry(70));
        client.expect(&message("door", "2").qos(1));
        client.expect(&message("door", "3").qos(1).expiry(u32::MAX - 30));
    });
}

/// [MQTT-3.3.2-5]: what was not begun in time is deleted and counted: in the queue of a client that is
/// away, and of one that is slow.
#[test]
fn a_message_that_is_too_old_is_dropped() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut away = broker.connect(v3("away").kept());
        away.subscribe(sub("door").qos(1));
        away.cut();
        let mut slow = broker.connect(v5("slow").receive_maximum(1).manual());
        slow.subscribe(sub("door").qos(2));
        publisher.publish(&message("door", "1").qos(2));
        publisher.publish(&message("door", "2").qos(1).expiry(10));
        publisher.publish(&message("door", "3").qos(1).expiry(30));
        broker.advance(10.5);
        let mut away = broker.connect(v3("away").kept());
        assert_eq!(away.payloads(), ["1", "3"]);
        slow.expect(&message("door", "1").qos(2).id(1));
        slow.pubrec(1);
        slow.expect_packet(Received::PubRel(1, ReasonCode::Success));
        slow.pubcomp(1);
        slow.expect(&message("door", "3").qos(1).expiry(20).id(2));
        assert_eq!(
            (broker.dropped(DropReason::Expired), broker.dropped_in_all()),
            (2, 2)
        );
        assert_eq!(broker.stats().queued, 0);
    });
}

/// [MQTT-4.3.3-7] [MQTT-4.3.3-13]: once PUBLISH was sent, the exchange goes on, expired or not.
#[test]
fn an_exchange_that_has_begun_does_not_expire() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let options = v5("client").kept().manual();
        let mut client = broker.connect(options.clone());
        client.subscribe(sub("door").qos(2));
        publisher.publish(&message("door", "1").qos(2).expiry(5));
        publisher.publish(&message("door", "2").qos(2).expiry(5));
        client.expect(&message("door", "1").qos(2).expiry(5).id(1));
        client.expect(&message("door", "2").qos(2).expiry(5).id(2));
        client.pubrec(1);
        client.expect_packet(Received::PubRel(1, ReasonCode::Success));
        client.cut();
        broker.advance(60.0);
        let mut client = broker.connect(options);
        client.expect_packet(Received::PubRel(1, ReasonCode::Success));
        client.expect(&message("door", "2").qos(2).expiry(0).dup().id(2));
        client.pubcomp(1);
        client.pubrec(2);
        client.expect_packet(Received::PubRel(2, ReasonCode::Success));
        client.pubcomp(2);
        client.expect_nothing();
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

/// A retained message expires too, and makes room; one that is republished lives anew.
#[test]
fn a_retained_message_expires() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        for topic in ["a", "b", "c", "d"] {
            publisher.publish(&message(topic, "old").retain().expiry(10));
        }
        broker.advance(6.0);
        publisher.publish(&message("a", "new").retain().expiry(10));
        publisher.publish(&message("b", "new").retain());
        let mut early = broker.connect(v5("early"));
        early.subscribe(sub("c"));
        early.expect(&message("c", "old").retain().expiry(4));
        broker.advance(4.5);
        let mut late = broker.connect(v5("late"));
        late.subscribe(sub("#"));
        let mut received = late.messages();
        received.sort_by(|left, right| left.topic.cmp(&right.topic));
        let expected = [
            message("a", "new").retain().expiry(6),
            message("b", "new").retain(),
        ];
        assert_eq!(received, expected);
        broker.advance(7.0);
        assert_eq!(broker.stats().retained, 1);
    });
}

/// An interval of 0 passes at once, unless somebody is there right now.
#[test]
fn an_interval_of_0_does_not_wait() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").kept());
        client.subscribe(sub("door").qos(1));
        publisher.publish(&message("door", "now").qos(1).expiry(0));
        client.expect(&message("door", "now").qos(1).expiry(0));
        client.cut();
        publisher.publish(&message("door", "later").qos(1).expiry(0));
        broker.advance(0.5);
        let mut client = broker.connect(v5("client").kept());
        client.expect_nothing();
    });
}
