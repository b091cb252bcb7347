//! A backup that is taken while the broker is under load, and brokers that are started from it.
//!
//! Publishers keep a ledger of what was acknowledged (`crash.rs`). All that was in it before the backup began
//! must be in the backup, those messages of QoS 2 that are in it at most once, and nothing that was deleted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Setup, binary, free_port, fresh_folder};
use crate::crash::{Ledger, Publisher, Subscriber, numbers, retained};

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(60);

/// Messages that each publisher has acknowledged before the backup begins.
const BEFORE: usize = 300;

#[test]
fn a_backup_of_one_shard_has_all_that_was_acknowledged() {
    back_up(Setup::ONE, [Setup::ONE, Setup::TWO], 5);
}

#[test]
fn a_backup_of_two_shards_has_all_that_was_acknowledged() {
    back_up(Setup::EPOLL, [Setup::EPOLL, Setup::ONE], 6);
}

fn store(arguments: &[&Path]) -> Output {
    let mut command = Command::new(binary());
    let done = command.arg("store").args(arguments).output();
    done.expect("it can be run")
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes))
        .concat()
}

fn back_up(setup: Setup, later: [Setup; 2], name: u16) {
    let (port, dir) = (free_port(), fresh_folder(name));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (data, copy) = (dir.join("data"), dir.join("copy"));
    let mut publishers: Vec<Publisher> = (0..3).map(Publisher::new).collect();
    let ledgers: Vec<Ledger> = publishers.iter().map(|one| one.ledger.clone()).collect();
    let mut broker = Broker::start_at(setup, port, &data, &[]);
    for name in 0..3 {
        Subscriber::new(name).subscribe(address);
    }
    let before = std::thread::scope(|scope| {
        for publisher in &mut publishers {
            scope.spawn(move || publisher.work(address));
        }
        until_grown(&ledgers, &[BEFORE; 3]);
        let before: Vec<BTreeSet<u32>> = ledgers.iter().map(|one| one.get().clone()).collect();
        let taken = store(&[Path::new("backup"), &data, Path::new("--to"), &copy]);
        let told = said(&taken);
        assert!(taken.status.success(), "{told}");
        assert!(
            told.contains("verified") && told.contains("held its commits"),
            "{told}"
        );
        // The broker goes on.
        let after: Vec<usize> = ledgers.iter().map(|one| one.get().len() + BEFORE).collect();
        until_grown(&ledgers, &after);
        broker.kill();
        before
    });
    let verified = store(&[Path::new("verify"), &copy]);
    assert!(verified.status.success(), "{}", said(&verified));
    let again = store(&[Path::new("backup"), &data, Path::new("--to"), &copy]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("empty"), "{}", said(&again));
    // A copy of the copy, from a directory that nobody works on, is a backup as well.
    let second = dir.join("second");
    let at_rest = store(&[Path::new("backup"), &copy, Path::new("--to"), &second]);
    assert!(at_rest.status.success(), "{}", said(&at_rest));
    for (setup, data) in later.into_iter().zip([&copy, &second]) {
        check(setup, port, data, &before);
    }
    let _ = std::fs::remove_dir_all(dir);
}

fn until_grown(ledgers: &[Ledger], wanted: &[usize]) {
    let deadline = Instant::now() + WAIT;
    while !ledgers
        .iter()
        .zip(wanted)
        .all(|(one, wanted)| one.get().len() >= *wanted)
    {
        assert!(Instant::now() < deadline, "the publishers stand still");
        std::thread::yield_now();
    }
}

/// A broker that is started from a backup has all of `before`.
fn check(setup: Setup, port: u16, data: &Path, before: &[BTreeSet<u32>]) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let broker = Broker::start_at(setup, port, data, &[]);
    assert!(
        !data.join("backup.json").exists(),
        "it is no backup any longer"
    );
    let mut last = Publisher::new(3);
    last.finish(address);
    let end = [(last.name, last.next - 1)];
    for name in 0..3 {
        let mut subscriber = Subscriber::new(name);
        subscriber.work(address, Some(&end));
        for (publisher, before) in (0..).map(Publisher::new).zip(before) {
            for &number in before {
                let is_empty = publisher.publish(number).payload.is_empty();
                let came = subscriber.received.contains_key(&(publisher.name, number));
                assert!(
                    came || is_empty,
                    "message {number} of {}: acknowledged before the backup, and not for {name}",
                    publisher.name
                );
            }
        }
        for ((publisher, number), times) in subscriber.received {
            let once = number % 2 == 1 || times == 1;
            assert!(
                once,
                "message {number} of {publisher}: QoS 2, {times} times"
            );
        }
    }
    let retained = retained(address);
    for (publisher, before) in (0..).map(Publisher::new).zip(before) {
        let wanted = before.iter().rev().find(|number| number.is_multiple_of(10));
        let topic = format!("load/kept/{}", publisher.name);
        let kept = retained.iter().find(|(kept, _)| *kept == topic);
        let number = kept.and_then(|(_, payload)| numbers(payload));
        assert!(number.map(|(_, number)| number) >= wanted.copied());
        for &number in before.iter().filter(|number| *number % 10 == 3) {
            let topic = publisher.publish(number).topic;
            let back = retained.iter().any(|(found, _)| *found == topic);
            assert!(!back, "{topic} was deleted before the backup");
        }
    }
    broker.stop();
}
