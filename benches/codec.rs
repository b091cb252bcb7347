//! What the codec costs per packet: the packets of a fleet, decoded and encoded.
//!
//! `cargo bench --no-default-features --bench codec`. With `--test` each runs once.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use shardmq::limits::MAX_PACKET_SIZE;
use shardmq::wire::{
    Ack, AckKind, Framing, PacketId, Property, Publish, PublishHead, QoS, ReasonCode, Version,
    frame,
};

/// A topic as a vehicle fleet has them.
const TOPIC: &str = "fleet/7/vehicle/4711/speed";

/// The three layouts that are compared between codecs.
fn layouts(forwarded: &[u8]) -> [(&'static str, PublishHead<'_>); 3] {
    const PAYLOAD: &[u8] = &[0x5A; 128];
    let base = PublishHead {
        version: Version::V3_1_1,
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TOPIC,
        topic_alias: None,
        packet_id: None,
        message_expiry_interval: None,
        subscription_identifiers: &[],
        forwarded: &[],
        payload: &PAYLOAD[..16],
    };
    let acknowledged = PublishHead {
        qos: QoS::AtLeastOnce,
        packet_id: PacketId::new(7),
        payload: PAYLOAD,
        ..base
    };
    let version_5 = PublishHead {
        version: Version::V5,
        message_expiry_interval: Some(60),
        forwarded,
        ..acknowledged
    };
    [
        ("publish 3.1.1 QoS 0 16 B", base),
        ("publish 3.1.1 QoS 1 128 B", acknowledged),
        ("publish 5.0 QoS 1 128 B 2 properties", version_5),
    ]
}

fn forwarded() -> Vec<u8> {
    let mut bytes = Vec::new();
    Property::UserProperty("trace", "a81b").encode(&mut bytes);
    bytes
}

/// Framing and decoding, as the read path does it.
fn decode(criterion: &mut Criterion) {
    let forwarded = forwarded();
    let mut group = criterion.benchmark_group("decode");
    for (name, head) in layouts(&forwarded) {
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let Ok(Framing::Packet {
                    first_byte, body, ..
                }) = frame(black_box(&bytes), MAX_PACKET_SIZE)
                else {
                    panic!("one whole packet was encoded");
                };
                black_box(Publish::decode(head.version, first_byte, body).is_ok())
            });
        });
    }
    group.finish();
}

/// Appending to a buffer that has room, as the fan-out does it.
fn encode(criterion: &mut Criterion) {
    let forwarded = forwarded();
    let mut group = criterion.benchmark_group("encode");
    for (name, head) in layouts(&forwarded) {
        let mut out = Vec::with_capacity(4096);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(black_box(&head).encode(&mut out))
            });
        });
    }
    let mut out = Vec::with_capacity(4096);
    let packet_id = PacketId::new(7).expect("seven is not zero");
    group.bench_function("puback", |bencher| {
        bencher.iter(|| {
            out.clear();
            let ack = black_box(Ack::new(packet_id, ReasonCode::Success));
            ack.encode(AckKind::PubAck, Version::V5, &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

/// A read buffer of one thousand packets, which shows what prediction and caches do to the figure.
fn stream(criterion: &mut Criterion) {
    let mut bytes = Vec::new();
    for number in 0..1_000 {
        let topic = format!("fleet/{}/vehicle/{number}/speed", number % 7);
        let payload = vec![0x5A; 8 + number % 57];
        PublishHead {
            topic: &topic,
            payload: &payload,
            ..layouts(&[])[0].1
        }
        .encode(&mut bytes);
    }
    criterion.bench_function("decode 1,000 different publishes 3.1.1 QoS 0", |bencher| {
        bencher.iter_batched_ref(
            || (),
            |()| {
                let mut rest = bytes.as_slice();
                let mut payload = 0;
                while let Ok(Framing::Packet {
                    first_byte,
                    body,
                    size,
                }) = frame(rest, MAX_PACKET_SIZE)
                {
                    if let Ok(publish) = Publish::decode(Version::V3_1_1, first_byte, body) {
                        payload += publish.payload.len();
                    }
                    rest = &rest[size..];
                }
                black_box(payload)
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, decode, encode, stream);
criterion_main!(benches);
