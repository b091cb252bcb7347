//! The journal alone, on a disk that fails: whatever was told to be on disk is there after a crash, and
//! what comes back is exactly what was done up to some moment, never more, never less, in order.
//!
//! A seed decides everything. A failure prints its seed; with
//! `SHARDMQ_SEED=7 cargo test --test journal` that run is made again. `SHARDMQ_SEEDS` says how many.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

#[path = "../support/disk.rs"]
mod disk;
#[path = "../records/exercise.rs"]
mod exercise;
mod machine;
mod model;
mod mutation;
mod operation;
#[path = "../simulation/random.rs"]
#[expect(dead_code, reason = "choices come from a seed here, not from bytes")]
mod random;

use proptest::prelude::*;
use shardmq::journal::{BLOCK, FileId, HEADER_BYTES, Header, Recovery};

use disk::Chance;
use machine::{Fault, Machine, Summary};
use mutation::Bug;
use random::Random;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 2_500;
/// Crashes of each seed.
const CRASHES: usize = 10;
/// Seeds within which every planted bug must be found.
const SEEDS_FOR_A_BUG: u64 = 300;

impl Chance for Random {
    fn below(&mut self, bound: usize) -> usize {
        Self::below(self, bound)
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Lives and crashes.
fn run(seed: u64, bug: Option<Bug>) -> Result<Summary, String> {
    let mut machine = Machine::new(seed, bug);
    for _ in 0..CRASHES {
        machine.live_and_crash()?;
    }
    Ok(machine.summary)
}

/// The seeds to run: the one that is replayed, or all.
fn seeds(all: u64) -> std::ops::Range<u64> {
    match number("SHARDMQ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SHARDMQ_SEEDS").unwrap_or(all),
    }
}

#[test]
fn nothing_that_was_told_is_lost_and_nothing_comes_back() {
    let mut total = Summary::default();
    for seed in seeds(SEEDS) {
        match run(seed, None) {
            Ok(summary) => total.add(&summary),
            Err(verdict) => {
                panic!("seed {seed}, {verdict}\nSHARDMQ_SEED={seed} cargo test --test journal")
            }
        }
    }
    println!("{total:?}");
    if number("SHARDMQ_SEED").is_none() {
        // What the test is about did happen.
        assert!(total.files_used_again > 0 && total.moves > 0);
        assert!(total.errors > 0 && total.full > 0);
        assert!(total.copies > SEEDS / 10, "{} copies", total.copies);
    }
}

/// The test can fail: each bug is found, and without it the same seeds pass (see above).
#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (1..=SEEDS_FOR_A_BUG)
            .find_map(|seed| run(seed, Some(bug)).err().map(|verdict| (seed, verdict)));
        let Some((seed, verdict)) = found else {
            panic!("{bug:?} is not found within {SEEDS_FOR_A_BUG} seeds");
        };
        let verdict = verdict.lines().next().unwrap_or_default();
        println!("{bug:?} is found by seed {seed}: {verdict}");
    }
}

/// The same seed gives the same run.
#[test]
fn a_seed_decides_everything() {
    let [first, second] = [(); 2].map(|()| format!("{:?}", run(3, None).ok()));
    assert_eq!(first, second);
}

/// A bit that flips in what was on disk is told, or changes nothing.
#[test]
fn damage_is_never_silent() {
    let mut told = 0;
    for seed in seeds(400) {
        let mut machine = Machine::new(seed, None);
        for _ in 0..60 {
            assert!(machine.work().is_ok());
        }
        machine.settle();
        for _ in 0..8 {
            let files = machine.disk.files();
            let file = *machine.random.pick(&files);
            let bytes = machine.disk.read(file).len();
            let (offset, bit) = (machine.random.below(bytes), machine.random.below(8));
            machine.disk.flip(file, offset, bit);
            match machine.recover() {
                Ok(()) => machine.settle(), // the last frame has another behind it again
                Err(verdict) if verdict.contains("journal file") => {
                    told += 1;
                    assert!(machine.salvage().is_err(), "seed {seed}: {verdict}");
                    break; // what was read before the damage was found is not used
                }
                Err(verdict) => panic!("seed {seed}: file {file}, offset {offset}: {verdict}"),
            }
        }
    }
    println!("{told} told");
    assert!(number("SHARDMQ_SEED").is_some() || told > 100);
}

/// A write that went astray is told once anything else was written, or changes nothing.
#[test]
fn a_write_that_goes_astray_is_never_silent() {
    let mut told = 0;
    for seed in seeds(400) {
        let mut machine = Machine::new(seed, None);
        let after = machine.random.below(60);
        machine.fault = Some((1 + after, Fault::Astray));
        for _ in 0..40 {
            assert!(machine.work().is_ok());
        }
        machine.settle();
        match machine.recover() {
            Ok(()) => {}
            Err(verdict) if verdict.contains("journal file") => told += 1,
            Err(verdict) => panic!("seed {seed}: {verdict}"),
        }
    }
    println!("{told} told");
    assert!(number("SHARDMQ_SEED").is_some() || told > 100);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a frame with the right checksum holds, it is read or refused.
    #[test]
    fn any_records_are_read_or_refused(
        parts in prop::collection::vec((1..11_u8, prop::collection::vec(any::<u8>(), 0..12)), 0..20),
        cut: prop::sample::Index,
    ) {
        let mut machine = Machine::new(1, None);
        machine.operate();
        let file = machine.journal.next_allocation().expect("the first file");
        machine.journal.allocated(file, true);
        let write = machine.journal.next_write().expect("a session was opened");
        let (mut header, real) =
            Header::open(machine::IDENTITY, write.bytes()).expect("it was sealed");
        let mut records = real.to_vec();
        records.truncate(cut.index(real.len() + 1));
        parts.iter().for_each(|(kind, rest)| {
            records.push(*kind);
            records.extend_from_slice(rest);
        });
        header.length = records.len() as u32;
        let mut bytes = vec![0; machine.settings.segment_bytes as usize];
        bytes[HEADER_BYTES..][..records.len()].copy_from_slice(&records);
        header.seal(&mut bytes);
        let mut recovery = Recovery::new(machine::IDENTITY, machine.settings);
        recovery.look(FileId(0), &bytes[..BLOCK]);
        prop_assert_eq!(recovery.next_file(), Some(FileId(0)));
        if recovery.read(FileId(0), &bytes).is_ok() {
            let (journal, recovered) = recovery.finish().expect("nothing is missing");
            let mut messages = 0;
            let each = journal.each_message(FileId(0), &bytes, |_, _, _, _| messages += 1);
            prop_assert!(each.is_ok());
            prop_assert!(messages + recovered.sessions.len() <= journal.items());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_records_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise::exercise(&bytes);
    }
}

/// What a fuzzer found worth keeping, and what it begins with.
#[test]
fn the_corpus_of_records_is_read_or_refused() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/record");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        exercise::exercise(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 10, "{files} files");
}
