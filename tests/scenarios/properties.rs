//! What a broker passes on unaltered, section 3.3.2.3.

use crate::client::{on_shards, v3, v5};
use crate::packets::{Message, message, sub};

fn everything() -> Message {
    message("door", b"\x00\xFFbinary")
        .format(0)
        .content_type("application/octet-stream")
        .response_topic("answers/of/door")
        .correlation(&[0, 1, 254, 255])
        .user("z", "first")
        .user("a", "second")
        .user("z", "first")
        .user("", "")
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]: live, queued and
/// retained, to one and to many.
#[test]
fn properties_are_forwarded_unaltered() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut many: Vec<_> = (0..6)
            .map(|number| {
                let mut client = broker.connect(v5(&format!("client{number}")));
                client.subscribe(sub("door").qos((number % 3) as u8));
                client
            })
            .collect();
        let mut away = broker.connect(v5("away").kept());
        away.subscribe(sub("door").qos(2));
        away.cut();
        for qos in 0..=2 {
            let sent = everything().qos(qos).retain();
            publisher.publish(&sent);
            for (number, client) in many.iter_mut().enumerate() {
                client.expect(&everything().qos(qos.min((number % 3) as u8)));
            }
            let mut late = broker.connect(v5("late"));
            late.subscribe(sub("door").qos(2));
            late.expect(&sent);
        }
        let mut away = broker.connect(v5("away").kept());
        away.expect(&everything().qos(1));
        away.expect(&everything().qos(2));
    });
}

/// An empty payload, an empty string and a payload of many bytes stay what they are.
#[test]
fn sizes_of_all_kinds_are_forwarded() {
    on_shards(|broker| {
        let mut client = broker.connect(v5(&broker.on(1, "client")));
        client.subscribe(sub("#").qos(1));
        let mut publisher = broker.connect(v5(&broker.on(0, "publisher")));
        for size in [
            0, 1, 126, 127, 128, 16_000, 16_383, 16_384, 200_000, 1_000_000,
        ] {
            let sent = message("size", "x".repeat(size))
                .qos(1)
                .content_type("")
                .user("", "v");
            publisher.publish(&sent);
            client.expect(&sent);
        }
        let longest = "t".repeat(65_535);
        publisher.publish(&message(&longest, "x"));
        client.expect(&message(&longest, "x"));
    });
}

/// 3.1.1 knows no properties: what it gets has none, and what it sends has none.
#[test]
fn versions_mix() {
    on_shards(|broker| {
        let mut old = broker.connect(v3("old"));
        let mut new = broker.connect(v5("new"));
        old.subscribe(sub("door").qos(2));
        new.subscribe(sub("door").qos(2));
        new.publish(&everything().qos(2).expiry(5));
        old.expect(&message("door", b"\x00\xFFbinary").qos(2));
        new.expect(&everything().qos(2).expiry(5));
        old.publish(&message("door", "plain").qos(1));
        new.expect(&message("door", "plain").qos(1));
        old.expect(&message("door", "plain").qos(1));
    });
}
