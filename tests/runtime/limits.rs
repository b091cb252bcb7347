//! What the operating system refuses, and what the broker makes of it.

use std::io::Write;
use std::time::Duration;

use shardmq::runtime::net::Driver;

use crate::broker::{Broker, Run};
use crate::client::{Client, connect};
use crate::process::{DRIVERS, Process, cpu_ticks, find, signal};

#[test]
fn out_of_descriptors_clients_are_told_and_nothing_spins() {
    for driver in DRIVERS {
        let (mut child, mut output) = Process::serving(driver)
            .set("SHARDMQ_TEST_SPARE_DESCRIPTORS", 20)
            .spawn();
        let address = find(&mut output, "address=").parse().unwrap();
        let mut served = Vec::new();
        let mut refused = 0;
        for index in 0..80 {
            let mut client = Client::open(address);
            client
                .stream
                .write_all(&connect(&format!("client-{index}")))
                .ok();
            match client.try_packet() {
                Ok(Some((0x20, _))) => served.push(client),
                _ => refused += 1,
            }
        }
        assert!(served.len() >= 10, "{} served", served.len());
        assert!(refused >= 20, "{refused} refused, and each of them knows");
        served.iter_mut().for_each(Client::ping);
        let before = cpu_ticks(&child);
        std::thread::sleep(Duration::from_secs(1));
        let used = cpu_ticks(&child) - before;
        assert!(
            used < 20,
            "{used} of 100 ticks while there is nothing to do"
        );
        served.truncate(5);
        let accepted = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let mut client = Client::open(address);
            client.stream.write_all(&connect("late")).is_ok()
                && matches!(client.try_packet(), Ok(Some((0x20, _))))
        });
        assert!(accepted, "accepting goes on");
        served.iter_mut().for_each(Client::ping);
        signal(&child, "-TERM");
        drop(served);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn no_more_connections_are_promised_than_there_is_room_for() {
    for how in Run::ONE_SHARD {
        let broker = Broker::start_with(how, |options| options.max_connections = usize::MAX);
        let hard = std::fs::read_to_string("/proc/self/limits").unwrap();
        let limit: usize = hard
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|limit| limit.parse().ok())
            .unwrap();
        let room = broker.started.max_connections;
        assert!(room < limit && room + 100 > limit, "{room} of {limit}");
        drop(broker);
        let broker = Broker::start_with(how, |options| options.max_connections = 7);
        assert_eq!(broker.started.max_connections, 7);
    }
}

/// Whether the machine itself switches io_uring off: then it names that, whatever a filter adds.
fn is_disabled() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .is_ok_and(|value| value.trim() != "0")
}

/// Starts a broker with `driver` where io_uring fails with `errno`.
fn blocked(driver: Driver, errno: i32) -> Process {
    Process::serving(driver).set("SHARDMQ_TEST_BLOCK", errno)
}

fn serves_with(process: Process, driver: &str) {
    let (mut child, mut output) = process.spawn();
    let used = find(&mut output, "driver=");
    assert!(used.starts_with(driver), "{used}");
    let address = find(&mut output, "address=").parse().unwrap();
    let mut client = Client::open(address).connect("client").subscribe("t");
    client.send(&crate::client::publish("t", b"through"));
    assert_eq!(client.payload(), b"through");
    signal(&child, "-TERM");
    drop(client);
    find(&mut output, "stopped");
    assert!(child.wait().unwrap().success());
}

fn fails_with(process: Process, texts: &[&str]) {
    let (mut child, mut output) = process.spawn();
    let error = find(&mut output, "error=");
    for text in texts {
        assert!(error.contains(text), "no `{text}` in: {error}");
    }
    child.wait().unwrap();
}

#[test]
fn a_blocked_io_uring_is_named_with_its_cause_or_done_without() {
    if is_disabled() {
        return;
    }
    let forbidden = ["io_uring is blocked", "seccomp", "--driver epoll"];
    fails_with(blocked(Driver::IoUring, libc::EPERM), &forbidden);
    let missing = ["has no io_uring", "seccomp", "--driver epoll"];
    fails_with(blocked(Driver::IoUring, libc::ENOSYS), &missing);
    for errno in [libc::EPERM, libc::ENOSYS] {
        serves_with(blocked(Driver::Auto, errno), "epoll: ");
        serves_with(blocked(Driver::Epoll, errno), "epoll, as configured");
    }
}

/// As a user without privileges, for whom RLIMIT_MEMLOCK counts.
fn unprivileged(driver: Driver, locked_memory: u64) -> Process {
    Process::serving(driver).set("SHARDMQ_TEST_MEMLOCK", locked_memory)
}

#[test]
fn too_little_locked_memory_is_an_error_and_no_reason_to_fall_back() {
    if is_disabled() {
        return;
    }
    let texts = [
        "RLIMIT_MEMLOCK is 65536 bytes",
        "ulimit -l ",
        "LimitMEMLOCK=",
        "`driver = \"epoll\"`",
    ];
    for driver in [Driver::Auto, Driver::IoUring] {
        fails_with(unprivileged(driver, 64 * 1024), &texts);
    }
    serves_with(
        unprivileged(Driver::Epoll, 64 * 1024),
        "epoll, as configured",
    );
}

#[test]
fn a_user_without_privileges_is_served_by_either_driver() {
    const USUAL: u64 = 8 * 1024 * 1024;
    if !is_disabled() {
        serves_with(unprivileged(Driver::Auto, USUAL), "io_uring, ");
        serves_with(unprivileged(Driver::IoUring, USUAL), "io_uring, ");
    }
    serves_with(unprivileged(Driver::Epoll, USUAL), "epoll, as configured");
}
