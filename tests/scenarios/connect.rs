//! CONNECT and CONNACK, sections 3.1 and 3.2.

use std::collections::HashSet;

use shardmq::shard::Settings;
use shardmq::wire::{Auth, Packet, ReasonCode, UserProperties, Version};

use crate::client::{both, on_shards, on_shards_with, settings, v3, v5};
use crate::packets::{Received, Welcome, message, sub};

/// [MQTT-3.1.0-1] [MQTT-3.1.0-1 3.1.1] [MQTT-3.14.0-1]: who begins with something else gets no answer.
#[test]
fn the_first_packet_is_connect() {
    on_shards(|broker| {
        for version in [Version::V5, Version::V3_1_1] {
            let mut client = broker.open(version);
            client.send(&Packet::PingReq);
            client.expect_closed();
            let mut client = broker.open(version);
            client.send_publish(&message("a", "b"));
            client.expect_closed();
        }
    });
}

/// [MQTT-3.1.0-2] [MQTT-3.1.0-2 3.1.1] [MQTT-3.2.0-2]: a second CONNECT is a Protocol Error and gets
/// no second CONNACK.
#[test]
fn connect_comes_only_once() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options.clone());
            client.send_bytes(&options.encode());
            client.expect_end(ReasonCode::ProtocolError);
        }
    });
}

/// [MQTT-3.1.3-5] [MQTT-3.1.3-5 3.1.1] [MQTT-3.1.4-5] [MQTT-3.1.4-4 3.1.1]: 1 to 23 letters and digits.
#[test]
fn plain_client_ids_are_accepted() {
    on_shards(|broker| {
        for id in [
            "a",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
        ] {
            for options in both(id) {
                let mut client = broker.connect(options);
                client.ping(); // [MQTT-3.12.4-1] [MQTT-3.12.4-1 3.1.1]
                client.disconnect();
            }
        }
    });
}

/// [MQTT-3.1.3-6] [MQTT-3.2.2-16]: an empty client id becomes one that nobody else has, on no shard.
#[test]
fn an_empty_client_id_is_assigned_one() {
    on_shards(|broker| {
        let clients: Vec<_> = (0..50).map(|_| broker.connect(v5("").expiry(60))).collect();
        let ids: HashSet<_> = clients
            .iter()
            .map(|client| client.welcome.assigned.clone())
            .collect();
        assert_eq!(ids.len(), 50);
        assert!(
            ids.iter()
                .all(|id| id.as_deref().is_some_and(|id| !id.is_empty()))
        );
    });
}

/// [MQTT-3.1.3-7]: the CONNECT is processed as if the client had sent the assigned id, so the session
/// can be found under it.
#[test]
fn an_assigned_client_id_names_the_session() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("").expiry(60));
        client.subscribe(sub("news"));
        let id = client.welcome.assigned.clone().expect("an id was assigned");
        client.cut();
        for shard in 0..broker.shards() {
            let mut client = broker.connect(v5(&id).resume().expiry(60).at(shard));
            assert!(client.welcome.session_present);
            assert_eq!(client.welcome.assigned, None);
            client.publish(&message("news", "on"));
            client.expect(&message("news", "on"));
        }
    });
}

/// [MQTT-3.1.3-6 3.1.1] [MQTT-3.1.3-8 3.1.1] [MQTT-3.1.3-9 3.1.1] [MQTT-3.2.2-4 3.1.1]
/// [MQTT-3.2.2-5 3.1.1]: in 3.1.1 an empty client id needs CleanSession 1, else it is answered 0x02.
#[test]
fn an_empty_client_id_of_a_3_1_1_client_needs_a_clean_session() {
    on_shards(|broker| {
        let mut first = broker.connect(v3(""));
        let mut second = broker.connect(v3(""));
        first.ping();
        second.ping();
        broker.expect_refused(v3("").resume(), ReasonCode::ClientIdentifierNotValid);
        assert_eq!(broker.stats().connects_refused.iter().sum::<u64>(), 1);
    });
}

/// [MQTT-3.2.0-1] [MQTT-3.2.0-1 3.1.1]: packets may follow CONNECT at once; they are worked off in their
/// order, and CONNACK is the first answer.
#[test]
fn packets_may_follow_connect_without_waiting() {
    on_shards(|broker| {
        for options in both("eager") {
            let mut other = broker.connect(v5("other"));
            let mut client = broker.dial(options.clone().at(0));
            let Some(Received::ConnAck(welcome)) = client.next() else {
                panic!("no CONNACK")
            };
            assert_eq!(welcome.reason, ReasonCode::Success);
            client.cut();

            let mut client = broker.push_connect(options.at(1));
            client.push_publish(&message("greeting", "1").qos(1).id(7));
            client.push_subscribe(sub("greeting"));
            client.push_publish(&message("greeting", "2").qos(1).id(8));
            broker.settle();
            assert!(matches!(client.next(), Some(Received::ConnAck(_))));
            client.expect_packet(Received::PubAck(7, no_one_listens(&client.version())));
            let mut rest: Vec<_> = std::iter::from_fn(|| client.next()).collect();
            let granted = rest
                .iter()
                .position(|packet| *packet == Received::SubAck(1, vec![0]));
            rest.remove(granted.expect("SUBACK came"));
            let expected = Received::Publish(message("greeting", "2"));
            assert_eq!(rest, [expected, Received::PubAck(8, ReasonCode::Success)]);
            client.disconnect();
            other.expect_nothing();
            other.disconnect();
        }
    });
}

fn no_one_listens(version: &Version) -> ReasonCode {
    if version.is_v5() {
        ReasonCode::NoMatchingSubscribers
    } else {
        ReasonCode::Success
    }
}

/// [MQTT-3.1.4-6] [MQTT-3.1.4-5 3.1.1]: what follows a CONNECT that is refused is not processed.
#[test]
fn what_follows_a_refused_connect_is_lost() {
    let without_retain = Settings {
        retain_available: false,
        ..settings()
    };
    on_shards_with(&without_retain, |broker| {
        let mut listener = broker.connect(v5("listener"));
        listener.subscribe(sub("#"));
        for shard in 0..broker.shards() {
            let refused = v5("refused").will(message("will", "w").retain()).at(shard);
            let mut client = broker.push_connect(refused);
            client.push_publish(&message("a", "b"));
            broker.settle();
            let refusal = Welcome {
                reason: ReasonCode::RetainNotSupported,
                ..Welcome::default()
            };
            client.expect_packet(Received::ConnAck(refusal)); // [MQTT-3.2.2-6]
            client.expect_closed(); // [MQTT-3.2.2-7]

            let mut client = broker.push_connect(v3("").resume().at(shard));
            client.push_publish(&message("a", "b"));
            broker.settle();
            assert!(matches!(client.next(), Some(Received::ConnAck(_))));
            client.expect_closed();
        }
        listener.expect_nothing();
    });
}

/// [MQTT-3.1.2-2] [MQTT-3.1.2-2 3.1.1]: a protocol level that nobody knows.
#[test]
fn an_unknown_protocol_level_is_refused() {
    on_shards(|broker| {
        let connect = |level| [16, 12, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 0];
        let mut client = broker.open(Version::V5);
        client.send_bytes(&connect(6));
        let reason = ReasonCode::UnsupportedProtocolVersion;
        client.expect_packet(Received::ConnAck(Welcome {
            reason,
            ..Welcome::default()
        }));
        client.expect_closed();

        let mut client = broker.open(Version::V3_1_1);
        client.send_bytes(&connect(2));
        client.expect_packet(Received::ConnAck(Welcome {
            reason,
            ..Welcome::default()
        }));
        client.expect_closed();
    });
}

/// [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.4-1]: flags that no CONNECT may have.
/// [MQTT-3.1.4-1 3.1.1] [MQTT-3.2.2-6 3.1.1] [MQTT-3.1.2-3 3.1.1]: 3.1.1 closes without CONNACK.
#[test]
fn a_malformed_connect_is_refused() {
    on_shards(|broker| {
        for flags in [0b0000_0011, 0b0000_1010, 0b0010_0010, 0b0001_1110] {
            let mut client = broker.open(Version::V5);
            let connect = [
                16, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 0, 0, 0, 0,
            ];
            client.send_bytes(&connect);
            let reason = ReasonCode::MalformedPacket;
            client.expect_packet(Received::ConnAck(Welcome {
                reason,
                ..Welcome::default()
            }));
            client.expect_closed();

            let mut client = broker.open(Version::V3_1_1);
            client.send_bytes(&[16, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0, 0, 0]);
            client.expect_closed();
        }
    });
}

/// [MQTT-3.1.2-28]: Response Information comes when it is asked for.
#[test]
fn response_information_is_told_who_asks_for_it() {
    let settings = Settings {
        response_information: "responses/%c".into(),
        ..settings()
    };
    on_shards_with(&settings, |broker| {
        let asked = broker.connect(v5("asks").response_information());
        assert_eq!(
            asked.welcome.response_information.as_deref(),
            Some("responses/asks")
        );
        let silent = broker.connect(v5("silent"));
        assert_eq!(silent.welcome.response_information, None);
    });
}

/// [MQTT-4.12.0-1] [MQTT-3.1.4-2]: an authentication method that the broker does not know.
/// [MQTT-4.12.0-6]: without one, nothing of it stands in CONNACK.
#[test]
fn an_unknown_authentication_method_is_refused() {
    on_shards(|broker| {
        let options = v5("kerberos").authentication_method("GS2-KRB5");
        broker.expect_refused(options, ReasonCode::BadAuthenticationMethod);
        assert_eq!(
            broker.connect(v5("plain")).welcome.authentication_method,
            None
        );
    });
}

/// [MQTT-4.12.0-7]: a client that named no method sends no AUTH.
#[test]
fn auth_without_a_method_is_a_protocol_error() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        client.send(&Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            authentication_method: Some("plain"),
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::default(),
        }));
        client.expect_end(ReasonCode::ProtocolError);
    });
}

/// A socket that says nothing is closed in the end, also if a CONNECT has begun.
#[test]
fn a_connection_without_connect_is_closed_in_time() {
    on_shards(|broker| {
        let mut silent = broker.open(Version::V5);
        let mut slow = broker.open(Version::V5);
        slow.send_bytes(&v5("slow").encode()[..5]);
        broker.advance(9.0);
        silent.expect_nothing();
        slow.expect_nothing();
        broker.advance(1.1);
        silent.expect_closed();
        slow.expect_closed();
        assert_eq!(broker.stats().connections, 0);
    });
}

/// Nobody makes the broker hold a megabyte before it knows who he is.
#[test]
fn a_huge_connect_is_not_waited_for() {
    on_shards(|broker| {
        let mut client = broker.open(Version::V5);
        client.send_bytes(&[16, 0xFF, 0xFF, 0x3F]);
        client.expect_closed();
    });
}

/// Clients of 3.1, which say `MQIsdp`, are served like those of 3.1.1.
#[test]
fn a_client_of_version_3_1_is_served() {
    on_shards(|broker| {
        let mut client = broker.open(Version::V3_1);
        client.send_bytes(&[
            16, 15, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 0, 0, 1, b'o',
        ]);
        assert!(matches!(client.next(), Some(Received::ConnAck(_))));
        client.subscribe(sub("a").qos(1));
        client.publish(&message("a", "b").qos(1));
        client.expect(&message("a", "b").qos(1));
    });
}
