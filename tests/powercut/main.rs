//! The power goes, and goes again: the whole broker of several shards on simulated disks, under clients
//! with a ledger of what was acknowledged.
//!
//! Everything is decided by a seed: which shard works when, which packets arrive together, what each disk
//! has written and synced when the power goes, and what becomes of sectors that were written and not
//! synced (lost, kept, torn, garbage). Clients go on after each crash as the standard asks them to. In the
//! end nothing acknowledged is lost, no message of QoS 2 came twice, retained messages are no older than
//! the last acknowledged one, and what was deleted has not come back; each retained message that was there when a
//! SUBACK was sent, and stayed, has come to the subscriber. Instead of a crash there may be a backup
//! that is restored. Bugs are planted to show that this would be seen.
//!
//! `POWERCUT_SEEDS=from..to cargo test --test powercut` runs other seeds.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod asker;
mod broker;
mod clients;
#[path = "../support/disk.rs"]
#[expect(dead_code, reason = "bits are flipped elsewhere")]
mod disk;
#[path = "../journal/mutation.rs"]
#[expect(dead_code, reason = "the order of messages is not looked at here")]
mod mutation;
#[path = "../simulation/random.rs"]
#[expect(dead_code, reason = "choices come from a seed here, not from bytes")]
mod random;
mod run;

use std::ops::Range;

use mutation::Bug;
use run::{Plan, Summary, run};

/// Crashes of the suite, and restorations of a backup, at least.
const CRASHES: u64 = 100_000;

/// Seeds that give so many.
const SEEDS: Range<u64> = 0..5_200;

impl disk::Chance for random::Random {
    fn below(&mut self, bound: usize) -> usize {
        Self::below(self, bound)
    }
}

/// Runs seeds on all processors; the first that fails is told.
fn explore(seeds: Range<u64>, bug: Option<Bug>, scattered: bool) -> Result<Summary, String> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let summaries = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mut summary = Summary::default();
                    for seed in seeds.filter(|seed| seed % threads == part) {
                        let plan = Plan {
                            seed,
                            bug,
                            scattered,
                        };
                        summary.add(&run(plan).map_err(|wrong| format!("seed {seed}: {wrong}"))?);
                    }
                    Ok::<_, String>(summary)
                })
            })
            .collect();
        let joined = parts.into_iter().map(|part| part.join());
        joined.collect::<Vec<_>>()
    });
    let mut all = Summary::default();
    for summary in summaries {
        all.add(&summary.map_err(|_| String::from("a run panicked"))??);
    }
    Ok(all)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let range = std::env::var("POWERCUT_SEEDS").ok();
    let range = range.map(|range| {
        let (from, to) = range.split_once("..").expect("from..to");
        from.parse().expect("a number")..to.parse().expect("a number")
    });
    let chosen = range.is_some();
    let summary = match explore(range.unwrap_or(SEEDS), None, false) {
        Ok(summary) => summary,
        Err(wrong) => panic!("{wrong}"),
    };
    assert!(chosen || summary.crashes >= CRASHES, "{summary:?}");
    assert!(summary.acknowledged > summary.crashes, "{summary:?}");
    assert!(
        summary.forwarded > 0 && summary.moves > 0 && summary.fetched > 0,
        "{summary:?}"
    );
    assert!(summary.backups > 0, "{summary:?}");
    assert!(summary.replays > summary.crashes / 10, "{summary:?}");
}

#[test]
fn every_planted_bug_is_found() {
    let bugs = [
        Bug::NoSync,
        Bug::AcknowledgedBeforeCommit,
        Bug::RecycledTooEarly,
        Bug::NoHead,
        Bug::NoSyncAtStart,
        Bug::ForgottenReplay,
    ];
    for bug in bugs {
        let found = (0..60)
            .map(|part| part * 20..(part + 1) * 20)
            .find_map(|seeds| {
                std::panic::catch_unwind(|| explore(seeds, Some(bug), false).err())
                    .unwrap_or(Some(String::new()))
            });
        assert!(found.is_some(), "{bug:?} was not seen in 1,200 seeds");
    }
}

/// Journals that are copied one after the other contradict each other, or what clients know.
#[test]
fn a_backup_that_is_not_of_one_moment_is_found() {
    let found = (0..60).map(|part| part * 20..(part + 1) * 20);
    let found = found.into_iter().find_map(|seeds| {
        std::panic::catch_unwind(|| explore(seeds, None, true).err()).unwrap_or(Some(String::new()))
    });
    assert!(found.is_some(), "it was not seen in 1,200 seeds");
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..3 {
        let plan = Plan {
            seed,
            bug: None,
            scattered: false,
        };
        let one = run(plan).expect("it is right");
        let other = run(plan).expect("it is right");
        assert_eq!(one, other);
    }
}
