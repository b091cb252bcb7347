//! The journal without a disk: what appending and acknowledging costs, how many bytes a message takes
//! there and in memory, and how long it takes to read everything back.

#![expect(clippy::print_stdout, reason = "it prints what it counted")]

#[path = "support/journal.rs"]
mod journal;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use journal::{BATCH, Keeper, recover};

fn append_and_acknowledge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH as u64));
    for sessions in [1_000, 10_000] {
        let mut keeper = Keeper::new(sessions, 200, false);
        let mut rounds = 0_u64;
        group.bench_function(
            format!("append+acknowledge/200B/{sessions}-sessions"),
            |bencher| {
                bencher.iter(|| {
                    keeper.round();
                    rounds += 1;
                });
            },
        );
        println!(
            "{} device bytes a message",
            keeper.written / (rounds * BATCH as u64).max(1)
        );
    }
    group.finish();
}

fn one_to_all(criterion: &mut Criterion) {
    let mut keeper = Keeper::new(100_000, 200, false);
    keeper.append_to_all();
    keeper.commit();
    println!(
        "{} device bytes for one message to 100,000 sessions",
        keeper.written
    );
    criterion.bench_function("journal/one-to-100,000-sessions", |bencher| {
        bencher.iter_batched(
            || Keeper::new(100_000, 200, false),
            |mut keeper| {
                keeper.append_to_all();
                keeper.commit();
                keeper
            },
            BatchSize::PerIteration,
        );
    });
}

fn recovery(criterion: &mut Criterion) {
    let test = std::env::args().any(|argument| argument == "--test");
    let count = if test { 10_000 } else { 1_000_000 };
    let mut keeper = Keeper::new(10_000, 200, true);
    for _ in 0..count / BATCH {
        keeper.append(BATCH);
        keeper.commit();
    }
    println!(
        "{} device bytes and {} of memory a queued message",
        keeper.written as usize / count,
        keeper.journal.memory() / count
    );
    let files = keeper.files.take().unwrap_or_default();
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(10);
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function(format!("recovery/{count}-messages"), |bencher| {
        bencher.iter(|| black_box(recover(&files).1.sessions.len()));
    });
    let (journal, _) = recover(&files);
    group.bench_function(format!("bodies/{count}-messages"), |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            for file in journal.files() {
                let each = journal.each_message(file, &files[&file], |_, message, _, _| {
                    bytes += black_box(Box::<[u8]>::from(message.payload)).len();
                });
                assert!(each.is_ok());
            }
            bytes
        });
    });
    group.finish();
}

criterion_group!(benches, append_and_acknowledge, one_to_all, recovery);
criterion_main!(benches);
