//! Keep Alive, section 3.1.2.10.

use shardmq::shard::Settings;
use shardmq::wire::ReasonCode;

use crate::client::{both, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{message, sub};

/// [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.1.2-24 3.1.1]: one and a half times the interval without a packet
/// ends the connection, as a failure of the network: with its will. Never before.
#[test]
fn a_silent_client_is_cut_off() {
    on_shards(|broker| {
        for options in both("silent") {
            let mut watcher = broker.connect(v5("watcher"));
            watcher.subscribe(sub("will"));
            let mut client = broker.connect(options.keep_alive(10).will(message("will", "silent")));
            assert_eq!(client.welcome.keep_alive, None);
            broker.advance(14.999);
            client.expect_nothing();
            watcher.expect_nothing();
            broker.advance(0.02);
            client.expect_end(ReasonCode::KeepAliveTimeout);
            watcher.expect(&message("will", "silent"));
        }
    });
}

/// Any packet counts, each time anew; what the broker sends does not count, nor half a packet.
#[test]
fn any_packet_keeps_a_client_alive() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut client = broker.connect(v5("client").keep_alive(10).manual());
        client.subscribe(sub("door").qos(1));
        broker.advance(14.0);
        client.ping();
        broker.advance(14.0);
        client.publish(&message("elsewhere", "x"));
        broker.advance(14.0);
        publisher.publish(&message("door", "open").qos(1));
        let id = client.expect(&message("door", "open").qos(1));
        client.puback(id);
        broker.advance(14.0);
        publisher.publish(&message("door", "closed").qos(1));
        client.expect(&message("door", "closed").qos(1));
        client.send_bytes(&[0xC0]);
        broker.advance(1.02);
        client.expect_end(ReasonCode::KeepAliveTimeout);
    });
}

/// 0 is never, from every version, unless a highest interval is set.
#[test]
fn a_keep_alive_of_0_never_ends_a_connection() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            broker.advance(20_000.0);
            client.ping();
        }
    });
}

/// [MQTT-3.2.2-21]: a highest interval replaces a longer one and none at all; CONNACK says so and that is
/// what holds. A 3.1.1 client cannot be told and is refused.
#[test]
fn the_server_keep_alive_holds() {
    let settings = Settings {
        max_keep_alive: 20,
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        for (asked, told) in [(0, Some(20)), (60, Some(20)), (20, None), (8, None)] {
            let mut client = broker.connect(v5("client").keep_alive(asked));
            assert_eq!(client.welcome.keep_alive, told);
            let holds = f64::from(told.unwrap_or(asked)) * 1.5;
            broker.advance(holds - 0.001);
            client.expect_nothing();
            broker.advance(0.02);
            client.expect_end(ReasonCode::KeepAliveTimeout);
        }
        broker.connect(v3("old").keep_alive(20)).disconnect();
        for asked in [0, 21] {
            let refused = v3("old").keep_alive(asked);
            broker.expect_refused(refused, ReasonCode::ClientIdentifierNotValid);
        }
    });
}
