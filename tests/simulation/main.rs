//! The whole broker under a seeded simulation: shards, lanes, sockets and clients, and an oracle
//! that is a naive broker.
//!
//! A seed decides everything. A failure prints its seed; with
//! `SHARDMQ_SEED=7 cargo test --test simulation` that run is made again and its operations are
//! printed. `SHARDMQ_SEEDS` and `SHARDMQ_OPERATIONS` say how many seeds of how many operations.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod client;
mod mutation;
mod operation;
mod oracle;
mod random;
mod simulation;
mod world;

use mutation::Bug;
use proptest::prelude::*;
use simulation::{Failure, Summary, run, run_bytes};

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 200;
/// Operations of each seed.
const OPERATIONS: usize = 500;
/// Seeds within which every planted bug must be found.
const SEEDS_FOR_A_BUG: u64 = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The last lines of a trace.
fn tail(trace: &str, lines: usize) -> String {
    let all: Vec<&str> = trace.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[test]
fn the_broker_does_what_the_oracle_expects() {
    let operations = number("SHARDMQ_OPERATIONS").map_or(OPERATIONS, |count| count as usize);
    let replayed = number("SHARDMQ_SEED");
    let first = replayed.unwrap_or(1);
    let seeds = if replayed.is_some() {
        1
    } else {
        number("SHARDMQ_SEEDS").unwrap_or(SEEDS)
    };
    let mut total = Summary::default();
    for seed in first..first + seeds {
        match run(seed, operations, None) {
            Ok(summary) => {
                total.operations += summary.operations;
                total.packets_received += summary.packets_received;
                total.packets_sent += summary.packets_sent;
            }
            Err(Failure { verdict, trace }) => {
                let lines = if replayed.is_some() { usize::MAX } else { 40 };
                panic!(
                    "seed {seed}: {verdict}\n{}\n\
                     SHARDMQ_SEED={seed} SHARDMQ_OPERATIONS={operations} cargo test --test simulation",
                    tail(&trace, lines)
                );
            }
        }
    }
    println!("{seeds} seeds: {total:?}");
}

/// The suite can fail: each bug is found, and without it the same seeds pass (see above).
#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (1..=SEEDS_FOR_A_BUG).find_map(|seed| {
            run(seed, 300, Some(bug))
                .err()
                .map(|failure| (seed, failure.verdict))
        });
        let Some((seed, verdict)) = found else {
            panic!("{bug:?} is not found within {SEEDS_FOR_A_BUG} seeds");
        };
        println!("{bug:?} is found by seed {seed}: {verdict}");
    }
}

/// The same seed gives the same run.
#[test]
fn a_seed_decides_everything() {
    let [first, second] = [(); 2].map(|()| run(3, 200, None).ok());
    let text = format!("{first:?}");
    assert_eq!(text, format!("{second:?}"));
    assert!(first.is_some_and(|summary| summary.packets_sent > 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Typed operations from arbitrary bytes; what a fuzzer feeds, too.
    #[test]
    fn any_operations_keep_the_promises(bytes in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        if let Err(failure) = run_bytes(&bytes) {
            prop_assert!(false, "{}\n{}", failure.verdict, failure.trace);
        }
    }
}
