//! Topic aliases, section 3.3.2.3.4: in each direction, for one connection.

use shardmq::shard::Settings;
use shardmq::wire::ReasonCode;

use crate::client::{on_shards, on_shards_with, settings, v5};
use crate::packets::{message, sub};

/// [MQTT-3.3.2-12]: every alias up to our maximum is taken, can be used, and can be set anew. It is not
/// forwarded.
#[test]
fn aliases_of_a_client_are_accepted() {
    on_shards(|broker| {
        let mut subscriber = broker.connect(v5("subscriber"));
        subscriber.subscribe(sub("#").qos(2));
        let mut client = broker.connect(v5("client"));
        let maximum = client
            .welcome
            .topic_alias_maximum
            .expect("aliases are offered");
        for alias in 1..=maximum {
            client.publish(&message(&format!("t/{alias}"), "1").alias(alias));
            subscriber.expect(&message(&format!("t/{alias}"), "1"));
        }
        for alias in (1..=maximum).rev() {
            client.publish(&message("", "2").alias(alias).qos(2).retain());
            subscriber.expect(&message(&format!("t/{alias}"), "2").qos(2));
        }
        client.publish(&message("anew", "3").alias(1));
        subscriber.expect(&message("anew", "3"));
        client.publish(&message("", "4").alias(1));
        subscriber.expect(&message("anew", "4"));
    });
}

/// [MQTT-3.3.2-7]: the aliases of one connection mean nothing on the next one, nor to another client.
#[test]
fn aliases_end_with_their_connection() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client").kept());
        client.publish(&message("door", "1").alias(1));
        let mut other = broker.connect(v5("other"));
        other.send_publish(&message("", "2").alias(1));
        other.expect_end(ReasonCode::ProtocolError);
        client.cut();
        let mut client = broker.connect(v5("client").kept());
        client.send_publish(&message("", "2").alias(1));
        client.expect_end(ReasonCode::ProtocolError);
    });
}

/// [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.3.2-8]: 0 and what is above our maximum: 0x94.
#[test]
fn aliases_outside_the_range_are_refused() {
    let settings = Settings {
        topic_alias_maximum: 5,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        for alias in [0, 6, u16::MAX] {
            let mut client = broker.connect(v5("client"));
            assert_eq!(client.welcome.topic_alias_maximum, Some(5));
            client.send_publish(&message("door", "x").alias(alias));
            client.expect_end(ReasonCode::TopicAliasInvalid);
        }
    });
}

/// [MQTT-3.2.2-18]: without a maximum there are no aliases.
#[test]
fn aliases_can_be_switched_off() {
    let settings = Settings {
        topic_alias_maximum: 0,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.welcome.topic_alias_maximum, None);
        client.send_publish(&message("door", "x").alias(1));
        client.expect_end(ReasonCode::TopicAliasInvalid);
    });
}

/// [MQTT-3.1.2-26] [MQTT-3.3.2-11]: the broker sets an alias with the first PUBLISH of a topic while numbers
/// are free, and uses it from the second on.
#[test]
fn the_broker_sets_aliases_up_to_the_maximum() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").aliases(2));
        client.subscribe(sub("#").qos(1));
        for (topic, first, again) in [
            ("a", message("a", "x").alias(1), message("", "x").alias(1)),
            ("b", message("b", "x").alias(2), message("", "x").alias(2)),
            ("c", message("c", "x"), message("c", "x")),
        ] {
            publisher.publish(&message(topic, "x"));
            client.expect(&first);
            publisher.publish(&message(topic, "x").qos(1));
            client.expect(&again.clone().qos(1));
        }
        publisher.publish(&message("a", "y").user("k", "v"));
        client.expect(&message("", "y").alias(1).user("k", "v"));
    });
}

/// [MQTT-3.1.2-27]: a client that offers none gets none.
#[test]
fn a_client_without_aliases_gets_none() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("#"));
        for _ in 0..3 {
            publisher.publish(&message("a", "x"));
            client.expect(&message("a", "x"));
        }
    });
}

/// [MQTT-3.3.2-7]: after a reconnect the broker tells its aliases anew, also with what it sends again.
#[test]
fn aliases_are_told_anew_after_a_reconnect() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let options = v5("client").kept().aliases(5).manual();
        let mut client = broker.connect(options.clone());
        client.subscribe(sub("#").qos(1));
        publisher.publish(&message("a", "0"));
        client.expect(&message("a", "0").alias(1));
        publisher.publish(&message("b", "1").qos(1));
        client.expect(&message("b", "1").alias(2).qos(1));
        publisher.publish(&message("b", "2").qos(1));
        client.expect(&message("", "2").alias(2).qos(1));
        client.cut();
        let mut client = broker.connect(options);
        client.expect(&message("b", "1").alias(1).qos(1).dup());
        client.expect(&message("", "2").alias(1).qos(1).dup());
        publisher.publish(&message("a", "3"));
        client.expect(&message("a", "3").alias(2));
    });
}

/// An alias whose PUBLISH was too large for the client was never told, so it is not used.
#[test]
fn an_alias_that_was_not_sent_is_not_used() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").aliases(5).maximum_packet_size(50));
        client.subscribe(sub("a"));
        publisher.publish(&message("a", "x".repeat(60)));
        publisher.publish(&message("a", "small"));
        client.expect(&message("a", "small").alias(1));
        publisher.publish(&message("a", "small"));
        client.expect(&message("", "small").alias(1));
    });
}
