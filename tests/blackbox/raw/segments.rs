//! How bytes are cut into segments means nothing.

use std::io::Write;

use super::on_both;
use super::packets::{
    Connect, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBREC, Publish, SUBACK, ack,
    subscribe,
};
use super::peer::Peer;

/// [MQTT-4.2-1] [MQTT-7.1.1-1 3.1.1]
#[test]
fn one_byte_per_segment() {
    on_both(|broker, version| {
        let mut peer = Peer::open(broker, version);
        let session = [
            Connect::new(version, "slow")
                .will(1, false, "w", b"gone")
                .bytes(),
            subscribe(version, 1, &[("slow/#", 0)]),
            Publish::new("slow/температура", "x".repeat(300))
                .qos(2, 2)
                .bytes(version),
            ack(0x62, 2),
            PINGREQ.to_vec(),
        ]
        .concat();
        for byte in session {
            peer.send(&[byte]);
        }
        peer.connack();
        peer.answer(SUBACK);
        let mut rest: Vec<u8> = (0..4).map(|_| peer.read().first).collect();
        rest.sort_unstable();
        assert_eq!(rest, [0x30, PUBREC, PUBCOMP, PINGRESP]);
    });
}

/// Ten thousand packets in one write. A version 5 client may not have more than Receive Maximum
/// unacknowledged, so there they are of QoS 0.
#[test]
fn ten_thousand_packets_at_once() {
    on_both(|broker, version| {
        const COUNT: usize = 10_000;
        let qos = u8::from(!version.is_v5());
        let mut reader = Peer::connect(broker, &Connect::new(version, "reader"));
        reader.subscribe("burst", 0);
        let mut peer = Peer::connect(broker, &Connect::new(version, "burst"));
        let mut burst = Vec::new();
        for n in 1..=COUNT {
            let id = u16::try_from(n).expect("below 65,536");
            burst.extend(
                Publish::new("burst", n.to_string())
                    .qos(qos, id * u16::from(qos))
                    .bytes(version),
            );
        }
        burst.extend(PINGREQ);
        let mut writer = peer.writer();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&burst).expect("the broker reads"));
            for n in 1..=COUNT {
                assert_eq!(reader.receive().payload, n.to_string().into_bytes());
            }
            // Acknowledgements wait for the other shards, PINGRESP does not: it may come among them.
            peer.answer(PINGRESP);
            if qos == 1 {
                for n in 1..=COUNT {
                    // [MQTT-4.6.0-2 3.1.1]
                    peer.expect_ack(PUBACK, u16::try_from(n).expect("below 65,536"));
                }
            }
        });
    });
}

/// A client may close right after its last PUBLISH: it still counts.
#[test]
fn closing_behind_the_last_publish() {
    on_both(|broker, version| {
        let mut reader = Peer::connect(broker, &Connect::new(version, "reader"));
        reader.subscribe("last/#", 0);
        for round in 0..20 {
            let mut bytes = Connect::new(version, &format!("leaving{round}")).bytes();
            for n in 0..50 {
                bytes.extend(Publish::new(&format!("last/{round}"), n.to_string()).bytes(version));
            }
            if round % 2 == 0 {
                bytes.extend(DISCONNECT);
            }
            let mut peer = Peer::open(broker, version);
            peer.send(&bytes);
            peer.finish();
            for n in 0..50 {
                assert_eq!(
                    reader.receive().payload,
                    n.to_string().into_bytes(),
                    "round {round}"
                );
            }
            peer.until_closed();
        }
    });
}

/// The end of what a client sends is not the end of what it reads.
#[test]
fn a_half_closed_connection_is_still_answered() {
    on_both(|broker, version| {
        let mut peer = Peer::open(broker, version);
        let session = [
            Connect::new(version, "half").bytes(),
            subscribe(version, 1, &[("half/#", 0)]),
            Publish::new("half/closed", "x").qos(1, 2).bytes(version),
            PINGREQ.to_vec(),
        ]
        .concat();
        peer.send(&session);
        peer.finish();
        peer.connack();
        let mut rest: Vec<u8> = peer
            .until_closed()
            .iter()
            .map(|packet| packet.first)
            // It waits for the other shards, and the connection ends before they have answered.
            .filter(|&first| first != SUBACK)
            .collect();
        rest.sort_unstable();
        assert_eq!(rest, [0x30, PUBACK, PINGRESP]);
    });
}

/// One subscriber does not read. Nobody else waits for it.
#[test]
fn a_reader_that_stalls_holds_up_nobody() {
    on_both(|broker, version| {
        let mut stalled = Peer::connect(broker, &Connect::new(version, "stalled"));
        stalled.subscribe("flood", 0);
        let mut reader = Peer::connect(broker, &Connect::new(version, "reader"));
        reader.subscribe("flood", 0);
        let mut publisher = Peer::connect(broker, &Connect::new(version, "publisher"));
        let mut other = Peer::connect(broker, &Connect::new(version, "other"));
        let payload = vec![b'x'; 60_000];
        for n in 0..400 {
            publisher.publish(&Publish::new("flood", &payload));
            assert_eq!(reader.receive().payload.len(), payload.len(), "message {n}");
            if n % 50 == 0 {
                assert_eq!(other.ping(), []);
            }
        }
        // What it did get is whole packets.
        assert!(stalled.receive().payload == payload);
    });
}
