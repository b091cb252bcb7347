//! Flow control, sizes, aliases and reason strings of version 5, where clients hide them.

use super::on_v5;
use super::packets::{
    Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, SUBACK, ack, ack_with, each_property,
    packet, property, subscribe_with, text_property, unsubscribe, user_property,
};
use super::peer::Peer;
use crate::Version;

const V5: Version = Version::V5;

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// Towards a client: Receive Maximum holds back PUBLISH of QoS 1 and 2 and nothing else; each kind
/// of final acknowledgement gives its place back, once. mosquitto 2.0.11 counts acknowledgements of
/// nothing. [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1]
/// [MQTT-4.9.0-2] [MQTT-4.9.0-3]
#[test]
fn receive_maximum_towards_a_client() {
    on_v5(|broker| {
        let mut reader = Peer::connect(broker, &Connect::new(V5, "reader").with(&[0x21, 0, 2]));
        reader.subscribe("q", 2);
        let mut writer = Peer::connect(broker, &Connect::new(V5, "writer"));
        for id in 1..=6 {
            let qos = 1 + u8::try_from(id % 2).expect("0 or 1");
            writer.publish(&Publish::new("q", id.to_string()).qos(qos, id));
            writer.ping();
            if qos == 2 {
                writer.send(&ack(PUBREL, id));
                writer.ping();
            }
        }
        writer.publish(&Publish::new("q", "free"));
        let first = [reader.receive(), reader.receive()];
        assert_eq!(reader.receive().payload, b"free", "QoS 0 needs no place");
        assert_eq!(reader.ping(), []);
        assert_eq!(first.each_ref().map(|publish| publish.qos), [2, 1]);
        // PUBREC gives no place back, PUBCOMP does, as PUBREC with an error and PUBACK.
        reader.send(&ack(PUBREC, first[0].id));
        reader.expect_ack(PUBREL, first[0].id);
        assert_eq!(reader.ping(), []);
        reader.send(&ack(PUBCOMP, first[0].id));
        let third = reader.receive();
        assert_eq!((third.payload.as_slice(), third.qos), (b"3".as_slice(), 2));
        reader.send(&ack_with(PUBREC, third.id, 0x80));
        let fourth = reader.receive();
        assert_eq!(fourth.payload, b"4");
        reader.send(&ack(PUBACK, first[1].id));
        let fifth = reader.receive();
        assert_eq!(fifth.payload, b"5");
        // Acknowledgements of nothing give nothing back. [MQTT-4.9.0-1]
        reader.send(&ack(PUBACK, 60_000));
        reader.send(&ack(PUBCOMP, 60_001));
        assert_eq!(reader.ping(), []);
        reader.send(&ack(PUBACK, fourth.id));
        assert_eq!(reader.receive().payload, b"6");
    });
}

/// From a client: 0x93 for one more than we told. [MQTT-3.3.4-7]
#[test]
fn receive_maximum_from_a_client() {
    on_v5(|broker| {
        let (mut peer, answer) = Peer::connect_and_see(broker, &Connect::new(V5, "greedy"));
        let maximum = property(&answer.properties, 0x21).map_or(65_535, |bytes| number(&bytes));
        let mut all = Vec::new();
        for id in 1..=maximum {
            let id = u16::try_from(id).expect("Receive Maximum is a number of two bytes");
            all.extend(Publish::new("g", "x").qos(2, id).bytes(V5));
        }
        peer.send(&all);
        for id in 1..=maximum {
            peer.expect_ack(PUBREC, u16::try_from(id).expect("as above"));
        }
        // A repeated one takes no new place; a finished one gives its place back.
        peer.publish(&Publish::new("g", "x").qos(2, 1).dup());
        peer.expect_ack(PUBREC, 1);
        peer.send(&ack(PUBREL, 1));
        peer.expect_ack(PUBCOMP, 1);
        peer.publish(&Publish::new("g", "x").qos(2, 1));
        peer.expect_ack(PUBREC, 1);
        let beyond = u16::try_from(maximum + 1).unwrap_or(0);
        if beyond > 0 {
            peer.publish(&Publish::new("g", "x").qos(2, beyond));
            peer.expect_closed_with("one too many", &[0x93]);
        }
    });
}

/// What is too large for a client is dropped for it alone. [MQTT-3.1.2-24] [MQTT-3.1.2-25]
///
/// mosquitto 2.0.11 sends one byte too many.
#[test]
fn maximum_packet_size_of_a_client() {
    on_v5(|broker| {
        const LIMIT: usize = 64;
        let limit = [0x27, 0, 0, 0, 64];
        let mut small = Peer::connect(broker, &Connect::new(V5, "small").with(&limit));
        small.subscribe("s/#", 1);
        let mut large = Peer::connect(broker, &Connect::new(V5, "large"));
        large.subscribe("s/#", 0);
        let mut writer = Peer::connect(broker, &Connect::new(V5, "writer"));
        for length in 0..100 {
            writer.publish(&Publish::new("s/x", vec![b'x'; length]).qos(1, 1));
            writer.expect_ack(PUBACK, 1);
            assert_eq!(large.receive().payload.len(), length);
        }
        // One byte of type, one of length, topic, identifier, no properties: 10 bytes of head.
        let fits = LIMIT - 10;
        for length in 0..=fits {
            let got = small.receive();
            assert_eq!(got.payload.len(), length);
            small.send(&ack(PUBACK, got.id));
        }
        assert_eq!(small.ping(), [], "and what came was not too large");
        // Retained ones too.
        let long = Publish::new("s/long", vec![b'x'; 100]).retain();
        writer.publish(&long);
        writer.publish(&Publish::new("s/short", "x").retain());
        writer.ping();
        let mut again = Peer::connect(broker, &Connect::new(V5, "again").with(&limit));
        again.subscribe("s/#", 0);
        assert_eq!(again.receive(), Publish::new("s/short", "x").retain());
        for topic in ["s/long", "s/short"] {
            writer.publish(&Publish::new(topic, "").retain());
        }
        writer.ping();
    });
}

/// Answers leave their reason string out rather than grow beyond the client's limit. The smallest
/// limit that CONNACK itself fits. [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.7.2-2] [MQTT-3.9.2-1]
/// [MQTT-3.11.2-1] [MQTT-3.14.2-3] [MQTT-3.2.2-19] [MQTT-3.6.2-2]
#[test]
fn answers_fit_the_clients_limit() {
    on_v5(|broker| {
        let (_, free) = Peer::connect_and_see(broker, &Connect::new(V5, "measures"));
        let connack = 2 + 2 + 1 + free.properties.len();
        let limit = u32::try_from(connack)
            .expect("a small packet")
            .to_be_bytes();
        let with = [&[0x27], limit.as_slice()].concat();
        let mut peer = Peer::connect(broker, &Connect::new(V5, "narrow").with(&with));
        let all = [
            Publish::new("$SYS/x", "x").qos(1, 1).bytes(V5),
            Publish::new("$SYS/x", "x").qos(2, 2).bytes(V5),
            ack(PUBREL, 77),
            ack(PUBREC, 78),
            subscribe_with(V5, 3, &[], &[("a/#/b", 0)]),
            unsubscribe(V5, 4, &["never"]),
        ];
        for bytes in all {
            peer.send(&bytes);
            let answer = peer.read();
            assert!(answer.body.len() + 2 <= connack, "{answer:02x?}");
        }
        peer.send(&[0xC1, 0]);
        for last in peer.until_closed() {
            assert!(last.body.len() + 2 <= connack, "{last:02x?}");
        }
    });
}

/// [MQTT-3.1.2-29]
#[test]
fn no_reason_strings_where_nobody_wants_them() {
    on_v5(|broker| {
        let mut peer = Peer::connect(broker, &Connect::new(V5, "terse").with(&[0x17, 0]));
        peer.send(&ack(PUBREL, 77));
        let pubcomp = peer.expect(PUBCOMP);
        assert!(pubcomp.len() == 3 || pubcomp[3..] == [0], "{pubcomp:02x?}");
        peer.send(&subscribe_with(V5, 3, &[], &[("a/#/b", 0)]));
        assert_eq!(peer.expect(SUBACK), [0, 3, 0, 0x8F]);
    });
}

/// Aliases are the connection's, in both directions. [MQTT-3.3.2-7] [MQTT-3.3.2-12]
#[test]
fn aliases_do_not_outlive_the_connection() {
    on_v5(|broker| {
        let lasting = Connect::lasting(V5, "alias");
        let mut reader = Peer::connect(broker, &Connect::new(V5, "reader"));
        reader.subscribe("al/#", 0);
        let mut first = Peer::connect(broker, &lasting);
        let by_alias = |payload: &str| Publish::new("", payload).with(&[0x23, 0, 1]);
        first.publish(&Publish::new("al/1", "told").with(&[0x23, 0, 1]));
        first.publish(&by_alias("used"));
        first.publish(&Publish::new("al/2", "told anew").with(&[0x23, 0, 1]));
        first.publish(&by_alias("used anew"));
        let got: Vec<Publish> = (0..4).map(|_| reader.receive()).collect();
        let topics: Vec<&str> = got.iter().map(|publish| publish.topic.as_str()).collect();
        assert_eq!(topics, ["al/1", "al/1", "al/2", "al/2"]);
        assert!(
            got.iter().all(|publish| publish.properties.is_empty()),
            "not passed on"
        );
        drop(first);
        let mut second = Peer::connect(broker, &lasting);
        second.publish(&by_alias("forgotten"));
        second.expect_closed_with("an alias of another connection", &[0x82]);
        assert_eq!(reader.ping(), []);
    });
}

/// Towards the client: at most as many as it takes, told before they are used, told anew on the
/// next connection. [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11] [MQTT-3.3.2-8]
#[test]
fn aliases_towards_a_client() {
    on_v5(|broker| {
        let mut writer = Peer::connect(broker, &Connect::new(V5, "writer"));
        for (maximum, topics) in [(0_u8, 4_u16), (1, 4), (3, 4), (200, 100)] {
            let connect = Connect::lasting(V5, "aliased").with(&[0x22, 0, maximum]);
            let mut reader = Peer::connect(broker, &connect);
            reader.subscribe("out/#", 0);
            let mut told: Vec<(usize, String)> = Vec::new();
            for n in 0..3 * topics {
                let topic = format!("out/{}", n % topics);
                writer.publish(&Publish::new(&topic, n.to_string()));
                let got = reader.receive();
                assert_eq!(got.payload, n.to_string().into_bytes());
                let Some(alias) = property(&got.properties, 0x23).map(|bytes| number(&bytes))
                else {
                    assert_eq!(got.topic, topic);
                    continue;
                };
                assert!((1..=usize::from(maximum)).contains(&alias), "alias {alias}");
                if got.topic.is_empty() {
                    assert!(told.contains(&(alias, topic)), "alias {alias} was not told");
                } else {
                    assert_eq!(got.topic, topic);
                    told.retain(|(known, _)| *known != alias);
                    told.push((alias, topic));
                }
            }
            assert_eq!(
                told.is_empty(),
                maximum == 0,
                "aliases are used where they are taken"
            );
        }
    });
}

/// What is forwarded is forwarded whole and in order, past what is not. [MQTT-3.3.2-17]
/// [MQTT-3.3.2-18] [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-20]
#[test]
fn properties_between_others_are_forwarded() {
    on_v5(|broker| {
        let mut reader = Peer::connect(broker, &Connect::new(V5, "reader"));
        reader.send(&subscribe_with(V5, 1, &[0x0B, 0xFF, 0x7F], &[("p", 0)]));
        reader.expect(SUBACK);
        let mut writer = Peer::connect(broker, &Connect::new(V5, "writer"));
        let sent = [
            user_property("z", "first"),
            vec![0x23, 0, 1],
            text_property(0x09, [0, 255]),
            vec![0x02, 0, 0, 0, 100],
            user_property("a", "second"),
            text_property(0x03, "type"),
            vec![0x01, 1],
            text_property(0x08, "answer/here"),
            user_property("z", "first"),
        ]
        .concat();
        writer.publish(&Publish::new("p", "x").with(&sent));
        let got = each_property(&reader.receive().properties);
        let users: Vec<_> = got.iter().filter(|(id, _)| *id == 0x26).collect();
        let expected: Vec<_> = each_property(&sent)
            .into_iter()
            .filter(|(id, _)| *id == 0x26)
            .collect();
        assert_eq!(users, expected.iter().collect::<Vec<_>>());
        for (id, value) in each_property(&sent) {
            match id {
                0x23 => assert!(got.iter().all(|(found, _)| *found != id), "alias forwarded"),
                0x02 => {
                    let left = got
                        .iter()
                        .find(|(found, _)| *found == id)
                        .expect("an expiry");
                    assert!((95..=100).contains(&number(&left.1)), "{left:?}");
                }
                _ => assert!(got.contains(&(id, value)), "property {id:02x}"),
            }
        }
        assert!(
            got.contains(&(0x0B, vec![0xFF, 0x7F])),
            "the subscription's identifier"
        );
    });
}

/// A packet over our limit is refused at its fixed header. [MQTT-3.2.2-15]
#[test]
fn our_maximum_packet_size() {
    on_v5(|broker| {
        let (mut peer, answer) = Peer::connect_and_see(broker, &Connect::new(V5, "large"));
        let limit = property(&answer.properties, 0x27).map(|bytes| number(&bytes));
        let limit = limit.expect("Maximum Packet Size is told");
        peer.subscribe("l", 0);
        // One byte of type, three of length, topic and no properties.
        let payload = vec![b'x'; limit - 8];
        let exact = packet(0x30, &[&[0, 1, b'l', 0], payload.as_slice()].concat());
        assert_eq!(exact.len(), limit);
        peer.send(&exact);
        assert_eq!(peer.receive().payload.len(), limit - 8);
        let header = packet(0x30, &vec![0; limit]);
        peer.send(&header[..5]);
        peer.expect_closed_with("over the limit", &[0x95]);
    });
}

/// DISCONNECT may change the session's expiry; 0x04 leaves the will. [MQTT-3.1.2-23]
/// [MQTT-4.1.0-2] [MQTT-3.1.2-8]
#[test]
fn disconnect_changes_the_expiry() {
    on_v5(|broker| {
        let lasting = Connect::lasting(V5, "changes");
        let to = |seconds: u8| packet(0xE0, &[0, 5, 0x11, 0, 0, 0, seconds]);
        for (bytes, present) in [(to(100), true), (to(0), false)] {
            let mut peer = Peer::connect(broker, &lasting.clone().clean(true));
            peer.send(&bytes);
            assert_eq!(peer.until_closed(), []);
            let (mut again, answer) = Peer::connect_and_see(broker, &lasting);
            assert_eq!(answer.session_present, present);
            assert_eq!(again.ping(), []);
        }
    });
}
