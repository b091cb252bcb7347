//! What rules of access cost: an answer from the cache, one that has to be found, a filter to be judged.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use shardmq::policy::{Acl, Client, Guard, GuardOptions, Policy};
use shardmq::topic::{Name, Subscription};

const RULES: usize = 10_000;

fn guard() -> Guard {
    let mut text = String::new();
    for number in 0..RULES / 2 {
        writeln!(text, "topic write fleet/{number}/telemetry/+").expect("a string takes it");
        writeln!(text, "topic read fleet/{number}/command/#").expect("a string takes it");
    }
    let acl = Acl::parse(&text).expect("the rules are right");
    assert_eq!(acl.len(), RULES);
    let options = GuardOptions {
        acl: Some(Arc::new(acl)),
        ..GuardOptions::default()
    };
    Guard::new(Arc::new(options), 0)
}

fn client(number: u64) -> Client<'static> {
    Client {
        number,
        client_id: "car",
        grant: None,
    }
}

fn publish(criterion: &mut Criterion) {
    let mut guard = guard();
    let topics: Vec<String> = (0..RULES / 2)
        .map(|number| format!("fleet/{number}/telemetry/speed"))
        .collect();
    let name = |index: usize| Name::parse(&topics[index]).expect("a topic name");
    criterion.bench_function("publish_one_topic_from_the_cache", |bencher| {
        bencher.iter(|| assert!(guard.publish(&client(1), black_box(name(7)))));
    });
    criterion.bench_function("publish_5000_topics_from_the_cache", |bencher| {
        let mut index = 0;
        bencher.iter(|| {
            index = (index + 1) % topics.len();
            assert!(guard.publish(&client(1), black_box(name(index))));
        });
    });
    criterion.bench_function("publish_that_has_to_be_found", |bencher| {
        let mut number = 1_000;
        bencher.iter(|| {
            number += 1;
            assert!(guard.publish(&client(number), black_box(name(7))));
        });
    });
}

fn subscribe(criterion: &mut Criterion) {
    let mut guard = guard();
    for filter in ["fleet/7/command/#", "fleet/#", "fleet/+/command/x"] {
        let subscription = Subscription::parse(filter).expect("a topic filter");
        criterion.bench_function(&format!("subscribe {filter}"), |bencher| {
            bencher.iter(|| guard.subscribe(&client(1), black_box(subscription)));
        });
    }
}

criterion_group!(benches, publish, subscribe);
criterion_main!(benches);
