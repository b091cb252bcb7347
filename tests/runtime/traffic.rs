//! Packets in and out, whole and in pieces, within a shard and between two.

use std::time::Duration;

use crate::broker::{Broker, Run};
use crate::client::{Client, PATIENCE, connect, publish};

#[test]
fn a_connect_may_come_byte_by_byte() {
    for run in Run::ALL {
        let broker = Broker::start(run);
        // Some of these names live on the other shard than the one that accepts.
        for client in 0..6 {
            let mut client = {
                let mut slow = broker.client();
                for byte in connect(&format!("slow-{client}")) {
                    slow.send(&[byte]);
                    std::thread::sleep(Duration::from_millis(1));
                }
                slow
            };
            assert_eq!(client.packet().0, 0x20);
            client.ping();
        }
    }
}

/// Looking for the next event instead of sleeping finds what clients and other shards send.
#[test]
fn a_shard_that_spins_misses_nothing() {
    for run in Run::ALL {
        for gather_us in [0, 200] {
            let broker = Broker::start_with(run, |options| {
                options.spin_us = 100;
                options.gather_us = gather_us;
            });
            // These names live on both shards where there are two.
            let mut clients: Vec<Client> = (0..4)
                .map(|index| {
                    let client = broker.client().connect(&format!("spins-{index}"));
                    client.subscribe(&format!("to/{index}"))
                })
                .collect();
            for round in 0..80_usize {
                let text = round.to_string();
                let (from, to) = (round % 4, (round / 4) % 4);
                clients[from].send(&publish(&format!("to/{to}"), text.as_bytes()));
                assert_eq!(clients[to].payload(), text.as_bytes());
            }
        }
    }
}

#[test]
fn what_comes_behind_connect_in_the_same_segment_counts() {
    for run in Run::ALL {
        let broker = Broker::start(run);
        let mut subscriber = broker.client().connect("subscriber").subscribe("t/#");
        for client in 0..20 {
            let payload = format!("from {client}");
            let bytes = [
                connect(&format!("eager-{client}")),
                publish("t/eager", payload.as_bytes()),
            ]
            .concat();
            let mut eager = broker.client();
            eager.send(&bytes);
            assert_eq!(subscriber.payload(), payload.as_bytes());
            assert_eq!(eager.packet().0, 0x20);
        }
    }
}

#[test]
fn a_publish_counts_although_its_client_closes_right_behind_it() {
    for run in Run::ALL {
        let broker = Broker::start(run);
        let mut subscriber = broker.client().connect("subscriber").subscribe("last/+");
        for client in 0..50 {
            let topic = format!("last/{client}");
            let mut hasty = broker.client().connect(&format!("hasty-{client}"));
            hasty.send(&publish(&topic, topic.as_bytes()));
            drop(hasty);
            assert_eq!(subscriber.payload(), topic.as_bytes());
        }
    }
}

#[test]
fn large_packets_go_through_in_pieces_both_ways() {
    for run in Run::ALL {
        let broker = Broker::start(run);
        let mut subscriber = broker.client().connect("subscriber").subscribe("big");
        let mut publisher = broker.client().connect("publisher");
        let payload: Vec<u8> = (0..900_000_u32).map(|byte| (byte % 251) as u8).collect();
        for _ in 0..5 {
            publisher.send(&publish("big", &payload));
            assert!(
                subscriber.payload() == payload,
                "the bytes came back in order"
            );
        }
    }
}

#[test]
fn a_reader_that_does_not_read_harms_nobody() {
    for run in Run::ALL {
        let broker = Broker::start(run);
        let mut lazy = broker.client().connect("lazy").subscribe("flood");
        let mut publisher = broker.client().connect("publisher");
        let mut other = broker.client().connect("other").subscribe("other");
        let payload = vec![b'x'; 100_000];
        // 40 MB, far more than its socket and its share of memory hold.
        for _ in 0..400 {
            publisher.send(&publish("flood", &payload));
        }
        publisher.send(&publish("other", b"through"));
        assert_eq!(other.payload(), b"through");
        publisher.ping();
        // When it reads at last, it gets whole packets: some of the flood, and what comes after.
        let mut flood = 0;
        loop {
            let packet = {
                lazy.stream
                    .set_read_timeout(Some(Duration::from_millis(500)))
                    .unwrap();
                lazy.try_packet()
            };
            match packet {
                Ok(Some((_, body))) => {
                    assert!(body.ends_with(&payload), "whole packets only");
                    flood += 1;
                }
                Ok(None) => panic!("a slow reader is not closed"),
                Err(_) => break,
            }
        }
        assert!(flood > 0 && flood < 400, "{flood} of 400 messages");
        lazy.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        publisher.send(&publish("flood", b"again"));
        assert_eq!(lazy.payload(), b"again");
    }
}

#[test]
fn two_thousand_connections_are_served() {
    const CLIENTS: usize = 2_000;
    for run in Run::ALL {
        let broker = Broker::start(run);
        let mut subscriber = broker.client().connect("subscriber").subscribe("fleet/+");
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| broker.client()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&connect(&format!("vehicle-{index}")));
        }
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.packet().0, 0x20, "CONNACK for {index}");
        }
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&publish(&format!("fleet/{index}"), b"here"));
        }
        for _ in 0..CLIENTS {
            assert_eq!(subscriber.payload(), b"here");
        }
        for client in clients.iter_mut().skip(1).step_by(2) {
            client.send(&[0xE0, 0]);
        }
        clients.iter_mut().step_by(2).for_each(Client::ping);
    }
}

#[test]
fn messages_cross_shards_in_order() {
    for run in Run::TWO_SHARDS {
        cross_shards_in_order(&Broker::start(run));
    }
}

fn cross_shards_in_order(broker: &Broker) {
    const MESSAGES: u32 = 30_000;
    // Four of each, so that both shards have both.
    let subscribers: Vec<_> = (0..4)
        .map(|client| {
            broker
                .client()
                .connect(&format!("sub-{client}"))
                .subscribe("order/+")
        })
        .collect();
    let publishers: Vec<_> = (0..4_u8)
        .map(|client| {
            let mut publisher = broker.client().connect(&format!("pub-{client}"));
            std::thread::Builder::new()
                .spawn(move || {
                    for chunk in 0..MESSAGES / 100 {
                        let bytes: Vec<u8> = (chunk * 100..(chunk + 1) * 100)
                            .flat_map(|number| {
                                let payload = [&[client][..], &number.to_be_bytes()].concat();
                                publish(&format!("order/{client}"), &payload)
                            })
                            .collect();
                        publisher.send(&bytes);
                    }
                    publisher
                })
                .unwrap()
        })
        .collect();
    let readers: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            std::thread::Builder::new()
                .spawn(move || {
                    let mut last = [None; 4];
                    while last != [Some(MESSAGES - 1); 4] {
                        let payload = subscriber.payload();
                        let number = u32::from_be_bytes(payload[1..].try_into().unwrap());
                        let last = &mut last[usize::from(payload[0])];
                        assert!(last.is_none_or(|last| last < number), "in order");
                        *last = Some(number);
                    }
                })
                .unwrap()
        })
        .collect();
    for publisher in publishers {
        drop(publisher.join().unwrap());
    }
    for reader in readers {
        reader.join().unwrap();
    }
}
