//! A publish through one shard: from the bytes of the publisher to the output buffer of the
//! receivers.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardmq::wire::{QoS, Version};

use support::{Broker, publishes};

/// Publishes in one read of a socket: a busy publisher.
const BATCH: u16 = 64;

fn local(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for receivers in [0_u32, 1, 10, 100, 1_000] {
        let mut broker = Broker::new(1, Version::V3_1_1);
        let publisher = broker.connect(None);
        for _ in 0..receivers {
            broker.connect(Some(("vehicle/+/telemetry", QoS::AtMostOnce)));
        }
        let topic = "vehicle/4711/telemetry";
        let bytes = publishes(Version::V3_1_1, topic, QoS::AtMostOnce, 16, BATCH);
        let expected = bytes.len() * receivers as usize;
        assert_eq!(broker.turn(publisher, &bytes, |_, _| {}), expected);
        group.throughput(Throughput::Elements(
            u64::from(BATCH) * u64::from(receivers.max(1)),
        ));
        group.bench_function(format!("qos0/16B/{receivers}-receivers"), |bencher| {
            bencher.iter(|| black_box(broker.turn(publisher, black_box(&bytes), |_, _| {})));
        });
    }
    group.finish();
}

criterion_group!(benches, local);
criterion_main!(benches);
