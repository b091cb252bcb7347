//! How connections and brokers begin and end.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardmq::policy::Open;
use shardmq::runtime::{BootError, ListenOptions, run};

use crate::broker::{Broker, Run, options};
use crate::client::{Client, connect, publish};

#[test]
fn more_connections_than_allowed_are_closed_at_once() {
    for run in Run::ONE_SHARD {
        let broker = Broker::start_with(run, |options| options.max_connections = 3);
        let mut clients: Vec<_> = (0..3)
            .map(|index| broker.client().connect(&index.to_string()))
            .collect();
        let mut fourth = broker.client();
        assert!(matches!(fourth.try_packet(), Ok(None) | Err(_)), "closed");
        clients.iter_mut().for_each(Client::ping);
        clients.pop().unwrap().send(&[0xE0, 0]);
        let accepted = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let mut client = broker.client();
            client.stream.write_all(&connect("late")).is_ok()
                && matches!(client.try_packet(), Ok(Some((0x20, _))))
        });
        assert!(
            accepted,
            "a place that is free again is given to the next one"
        );
    }
}

#[test]
fn a_client_that_is_closed_can_read_why() {
    for run in Run::TWO_SHARDS {
        let broker = Broker::start(run);
        for client in 0..8 {
            let mut client = broker.client().connect(&format!("wrong-{client}"));
            // A second CONNECT [MQTT-3.1.0-2], and bytes behind it that nobody will read.
            client.send(&[connect("again"), publish("t", &[0; 30_000])].concat());
            let (first, body) = client.packet();
            assert_eq!((first, body[0]), (0xE0, 0x82), "DISCONNECT, Protocol Error");
            assert!(
                matches!(client.try_packet(), Ok(None)),
                "closed in order, not reset"
            );
        }
    }
}

#[test]
fn a_stop_tells_the_clients() {
    for run in Run::ALL {
        let broker = Broker::start(run);
        let mut clients: Vec<_> = (0..20)
            .map(|client| broker.client().connect(&format!("client-{client}")))
            .collect();
        let address = broker.address;
        let began = Instant::now();
        let readers = std::thread::Builder::new()
            .spawn(move || {
                for client in &mut clients {
                    let (first, body) = client.packet();
                    assert_eq!(
                        (first, body[0]),
                        (0xE0, 0x8B),
                        "DISCONNECT, Server shutting down"
                    );
                    assert!(matches!(client.try_packet(), Ok(None)));
                }
            })
            .unwrap();
        broker.stop().unwrap();
        readers.join().unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "nobody had to be waited for"
        );
        assert!(
            TcpStream::connect(address).is_err(),
            "nobody listens any more"
        );
    }
}

#[test]
fn a_port_in_use_is_refused_with_its_cause() {
    for how in Run::TWO_SHARDS {
        let broker = Broker::start(how);
        let mut again = options(how, |_| panic!("two brokers share a port"));
        again.catch_signals = false;
        again.listeners = vec![ListenOptions::tcp("test", broker.address)];
        let error = run(again).unwrap_err().to_string();
        assert!(
            error.contains("another socket listens there already"),
            "{error}"
        );
    }
}

#[test]
fn a_policy_that_panics_ends_the_broker_and_says_which_shard() {
    for how in Run::TWO_SHARDS {
        let mut options = options(how, |_| panic!("it is not ready"));
        options.catch_signals = false;
        options.policy = Arc::new(|shard| {
            assert_eq!(shard.index(), 0, "a bug on purpose");
            Box::new(Open)
        });
        let error = run(options).unwrap_err();
        assert!(
            matches!(error, BootError::Panicked { shard: 1 }),
            "{how:?}: {error}"
        );
    }
}

#[test]
fn a_broker_knows_by_what_it_is_driven() {
    for (how, name) in Run::TWO_SHARDS.into_iter().zip(["io_uring", "epoll"]) {
        let broker = Broker::start(how);
        assert_eq!(broker.started.driver_name, name);
        assert!(broker.started.driver.starts_with(name));
        assert_eq!(broker.started.cpus.len(), 2);
    }
}
