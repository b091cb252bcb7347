//! Retained messages that are owed to a subscription: whatever happens to connections and to the process, each
//! comes at least once [MQTT-3.3.1-9] [MQTT-3.3.1-10].

use std::collections::{BTreeMap, BTreeSet};

use shardmq::wire::{QoS, RetainHandling, SubscriptionOptions};

use crate::client::{Broker, Client, Options, on_kept_shards, v3, v5};
use crate::packets::{Message, Received, Sub, message, sub};

/// More than some chunks.
const TOPICS: usize = 4_000;

fn fill(broker: &Broker, qos: u8) {
    let mut publisher = broker.connect(v5("publisher"));
    for number in 0..TOPICS {
        let state = message(&format!("fleet/{number}/state"), "x".repeat(100));
        publisher.publish(&state.qos(qos).retain());
    }
    publisher.disconnect();
}

/// A client that subscribes and leaves what comes unread.
fn subscriber(broker: &Broker, options: &Options, sub: Sub) -> Client {
    let mut client = broker.connect(options.clone());
    assert!(!client.welcome.session_present);
    client.stop_reading();
    client.push_subscribe(sub);
    broker.settle();
    client
}

/// What came, by topic, and how often.
#[derive(Default)]
struct Came(BTreeMap<String, usize>);

impl Came {
    /// Takes what has come; how many messages these were.
    fn take(&mut self, client: &mut Client) -> usize {
        let mut count = 0;
        while let Some(packet) = client.next() {
            if let Received::Publish(Message { topic, retain, .. }) = packet {
                assert!(retain, "{topic}");
                *self.0.entry(topic).or_default() += 1;
                count += 1;
            }
        }
        count
    }

    fn topics(&self) -> usize {
        self.0.len()
    }

    fn most(&self) -> usize {
        self.0.values().copied().max().unwrap_or(0)
    }
}

fn handling(retain_handling: RetainHandling) -> Sub {
    let sub = sub("fleet/#").qos(1);
    Sub {
        options: SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            retain_handling,
            ..sub.options
        },
        ..sub
    }
}

fn of_all_qos(scenario: impl Fn(&Broker, u8)) {
    for (published, granted) in [(0, 1), (1, 0), (1, 1), (2, 2)] {
        on_kept_shards(|broker| {
            fill(broker, published);
            scenario(broker, granted);
        });
    }
}

/// The connection is cut, more than once: the replay goes on where it was, and nothing comes twice but what was
/// not acknowledged. What was sent with QoS 0 and not read is gone with the connection.
#[test]
fn a_cut_connection_leaves_the_rest_owed() {
    for (published, granted) in [(1, 1), (2, 2)] {
        on_kept_shards(|broker| {
            fill(broker, published);
            let options = v5("client").kept().receive_maximum(10);
            let mut came = Came::default();
            let mut client = subscriber(broker, &options, sub("fleet/#").qos(granted));
            for _ in 0..10 {
                client.read_once();
                came.take(&mut client);
                client.cut();
                client = broker.dial_unread(options.clone());
            }
            assert!(came.topics() < TOPICS, "it was over before the first cut");
            client.go_on_reading();
            came.take(&mut client);
            assert_eq!(came.topics(), TOPICS);
        });
    }
    for (published, granted) in [(0, 0), (0, 1), (1, 0)] {
        on_kept_shards(|broker| {
            fill(broker, published);
            let options = v5("client").kept();
            let mut came = Came::default();
            let mut client = subscriber(broker, &options, sub("fleet/#").qos(granted));
            client.read_once();
            assert!(came.take(&mut client) > 0);
            client.cut();
            let mut client = broker.connect(options);
            assert!(client.welcome.session_present);
            assert!(came.take(&mut client) > 0, "the rest came");
            assert_eq!(came.most(), 1);
        });
    }
}

/// The process ends while retained messages are sent, and again while they are sent again.
#[test]
fn a_crash_leaves_them_owed() {
    of_all_qos(|broker, granted| {
        let options = v5("client").kept().receive_maximum(10);
        let mut came = Came::default();
        let mut client = subscriber(broker, &options, sub("fleet/#").qos(granted));
        client.read_once();
        came.take(&mut client);
        for _ in 0..2 {
            broker.crash();
            client = broker.dial_unread(options.clone());
            client.read_once();
            came.take(&mut client);
        }
        assert!(came.topics() < TOPICS, "it was over before the last crash");
        broker.crash();
        let mut client = broker.connect(options.clone());
        assert!(client.welcome.session_present);
        came.take(&mut client);
        assert_eq!(came.topics(), TOPICS);
        // It is over now.
        broker.crash();
        let mut client = broker.connect(options.clone());
        assert_eq!(Came::default().take(&mut client), 0);
    });
}

/// The client has its SUBACK and nothing else when the process ends. Version 3.1.1 is no different.
#[test]
fn they_are_owed_with_suback() {
    on_kept_shards(|broker| {
        fill(broker, 1);
        let options = v3("client").kept();
        let mut client = broker.connect(options.clone());
        client.push_subscribe(sub("fleet/#").qos(1));
        while client.next_frame().is_none() {
            for shard in 0..broker.shards() {
                broker.world().turn(shard);
            }
        }
        broker.crash();
        let mut client = broker.connect(options);
        let mut came = Came::default();
        came.take(&mut client);
        assert_eq!(came.topics(), TOPICS);
    });
}

/// Retain Handling says what is owed; a SUBSCRIBE that brings none leaves what an earlier one brought
/// [MQTT-3.3.1-10] [MQTT-3.3.1-11].
#[test]
fn retain_handling_says_what_is_owed() {
    on_kept_shards(|broker| {
        fill(broker, 1);
        let options = v5("client").kept();
        let again = |options: &Options| {
            broker.crash();
            let mut client = broker.connect(options.clone());
            let mut came = Came::default();
            came.take(&mut client);
            came.topics()
        };
        subscriber(broker, &options, handling(RetainHandling::DoNotSend));
        assert_eq!(again(&options), 0);
        let mut client = broker.connect(options.clone());
        client.stop_reading();
        client.push_subscribe(handling(RetainHandling::SendIfNew));
        broker.settle();
        assert_eq!(again(&options), 0, "it was there");
        let options = v5("another").kept();
        let mut client = subscriber(broker, &options, handling(RetainHandling::SendIfNew));
        client.push_subscribe(handling(RetainHandling::SendIfNew));
        client.push_subscribe(handling(RetainHandling::DoNotSend));
        broker.settle();
        assert_eq!(again(&options), TOPICS);
    });
}

/// UNSUBSCRIBE ends what is owed, and so does the end of the session. Nothing is owed to a group.
#[test]
fn what_is_owed_ends_with_the_subscription() {
    on_kept_shards(|broker| {
        fill(broker, 1);
        let options = v5("client").kept();
        let mut client = subscriber(broker, &options, sub("fleet/#").qos(0));
        client.send_bytes(b"\xA2\x0C\0\x09\0\0\x07fleet/#");
        client.push_subscribe(sub("$share/group/fleet/#"));
        broker.settle();
        let fresh = v5("another").kept();
        subscriber(broker, &fresh, sub("fleet/#").qos(1)).cut();
        broker.connect(v5("another").expiry(3_600)).cut();
        broker.crash();
        for options in [options, fresh] {
            let mut client = broker.connect(options);
            assert!(client.welcome.session_present);
            client.expect_nothing();
        }
    });
}

/// After a crash a message of QoS 2 comes under another packet identifier than one that is in use.
#[test]
fn qos_2_keeps_its_packet_identifiers_apart() {
    on_kept_shards(|broker| {
        fill(broker, 2);
        let options = v5("client").kept().receive_maximum(5).manual();
        let mut client = broker.connect(options.clone());
        client.push_subscribe(sub("fleet/#").qos(2));
        broker.settle();
        let mut held = BTreeSet::new();
        let mut exchanges = 0;
        let mut topics = BTreeSet::new();
        let mut crashes = vec![600, 300];
        while let Some(packet) = client.next() {
            match packet {
                Received::Publish(message) => {
                    let id = message.id.expect("QoS 2 has one");
                    assert!(
                        held.insert(id) || message.dup,
                        "{id} is in use [MQTT-4.3.3-1]"
                    );
                    topics.insert(message.topic);
                    client.pubrec(id);
                }
                Received::PubRel(id, _) => {
                    assert!(held.remove(&id), "PUBREL for {id}");
                    client.pubcomp(id);
                    exchanges += 1;
                }
                _ => {}
            }
            if crashes.pop_if(|at| *at == exchanges).is_some() {
                broker.crash();
                client = broker.connect(options.clone());
            }
        }
        assert_eq!(topics.len(), TOPICS);
        assert!(held.is_empty());
    });
}
