//! A disk that is full, and one that slows down or loses what was not synced.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Version;
use crate::broker::{Broker, Setup, free_port, fresh_folder};
use crate::raw::packets::{Connect, PUBACK, Publish, ack};
use crate::raw::peer::Peer;

/// How long space may take to be noticed.
const WAIT: Duration = Duration::from_secs(20);

/// Bytes of a message, many of which fill a disk.
const PAYLOAD: usize = 16 * 1024;

/// Whether a small disk of one's own can be had: a mount that nobody else sees.
fn can_mount() -> bool {
    let mount = "mount -t tmpfs -o size=1m tmpfs /mnt";
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", mount])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// What needs space is refused while there is none, everything else goes on, and what was acknowledged
/// is there.
#[test]
fn a_full_disk_refuses_and_recovers() {
    if !can_mount() {
        println!("SKIPPED: disk::a_full_disk_refuses_and_recovers: no mount namespace");
        return;
    }
    let (port, dir) = (free_port(), fresh_folder(1));
    let broker = Broker::start_on_small_disk(Setup::ONE, port, &dir.join("data"));
    let lasting = Connect::lasting(Version::V5, "away");
    let mut away = Peer::connect(&broker, &lasting);
    assert_eq!(away.subscribe("kept", 1), 1);
    drop(away);
    let mut live = Peer::connect(&broker, &Connect::new(Version::V5, "live"));
    assert_eq!(live.subscribe("live", 1), 1);

    let mut writer = Peer::connect(&broker, &Connect::new(Version::V5, "writer"));
    let mut publish = |number: u32| {
        let mut payload = vec![b'x'; PAYLOAD];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        writer.publish(&Publish::new("kept", payload).qos(1, 1));
        let (id, reason) = writer.any_ack(PUBACK);
        assert_eq!(id, 1);
        reason
    };
    let mut accepted = 0;
    let refused = (0..20_000).find_map(|number| {
        let reason = publish(number);
        accepted += u32::from(reason < 0x80);
        (reason >= 0x80).then_some(reason)
    });
    assert_eq!(refused, Some(0x97), "after {accepted} messages");
    assert!(accepted > 100, "{accepted} messages");
    let numbers = accepted;

    // Who cannot be told is cut off.
    let mut old = Peer::connect(&broker, &Connect::new(Version::V3_1_1, "old"));
    old.publish(&Publish::new("kept", "x").qos(1, 5));
    assert_eq!(old.until_closed(), []);

    // What needs no disk goes on.
    let mut other = Peer::connect(&broker, &Connect::new(Version::V5, "other"));
    other.publish(&Publish::new("live", "here").qos(1, 1));
    other.expect_ack(PUBACK, 1);
    assert_eq!(live.receive().payload, b"here");

    broker.free_disk();
    let deadline = Instant::now() + WAIT;
    while publish(numbers) >= 0x80 {
        assert!(Instant::now() < deadline, "space was not noticed");
    }
    let (mut away, connack) = Peer::connect_and_see(&broker, &lasting);
    assert!(connack.session_present);
    for expected in 0..=numbers {
        let publish = away.receive();
        assert_eq!(publish.payload[..4], expected.to_be_bytes());
        away.send(&ack(PUBACK, publish.id));
    }
    broker.stop();
    let _ = std::fs::remove_dir_all(dir);
}

/// `disk.c`, built: what was not synced is lost with the process.
pub(crate) struct FlakyDisk {
    directory: PathBuf,
    library: String,
}

impl FlakyDisk {
    /// `None`, and told, if there is no C compiler.
    pub(crate) fn build(test: &str) -> Option<Self> {
        let directory = fresh_folder(2);
        let library = directory.join("disk.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/blackbox/disk.c"
            ))
            .args(["-ldl", "-lpthread"])
            .output();
        let disk = Self {
            directory,
            library: library.display().to_string(),
        };
        match built {
            Ok(output) if output.status.success() => Some(disk),
            other => {
                println!("SKIPPED: {test}: no C compiler: {other:?}");
                None
            }
        }
    }

    /// What puts it between a process and the kernel.
    pub(crate) fn preload(&self) -> (&str, &str) {
        ("LD_PRELOAD", &self.library)
    }
}

impl Drop for FlakyDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// After a sync has failed nothing is acknowledged that has to be durable; the rest goes on, the log says
/// so, and what was acknowledged is there after the next start.
#[test]
fn a_failed_sync_is_not_tried_again() {
    let Some(disk) = FlakyDisk::build("disk::a_failed_sync_is_not_tried_again") else {
        return;
    };
    let (port, dir) = (free_port(), fresh_folder(3));
    let data = dir.join("data");
    let environment = [disk.preload(), ("DISK_FAIL_AFTER", "12")];
    let mut broker = Broker::start_at(Setup::ONE, port, &data, &environment);
    let lasting = Connect::lasting(Version::V5, "away");
    let mut away = Peer::connect(&broker, &lasting);
    assert_eq!(away.subscribe("kept", 1), 1);
    drop(away);
    let mut live = Peer::connect(&broker, &Connect::new(Version::V5, "live"));
    assert_eq!(live.subscribe("live", 0), 0);
    let mut other = Peer::connect(&broker, &Connect::new(Version::V5, "other"));
    let mut writer = Peer::connect(&broker, &Connect::new(Version::V5, "writer"));
    let mut acknowledged = 0_u32;
    let deadline = Instant::now() + WAIT;
    while !broker.log().contains("the disk failed") {
        assert!(Instant::now() < deadline, "the disk did not fail");
        writer.publish(&Publish::new("kept", acknowledged.to_be_bytes()).qos(1, 1));
        // Behind an answer that never comes there is a message that does.
        other.publish(&Publish::new("live", "here"));
        assert_eq!(live.receive().payload, b"here");
        if writer.has_packet_within(Duration::from_millis(300)) {
            writer.expect_ack(PUBACK, 1);
            acknowledged += 1;
        }
    }
    assert!(acknowledged > 0);
    other.publish(&Publish::new("live", "still").qos(1, 1));
    other.expect_ack(PUBACK, 1);
    broker.kill();

    let broker = Broker::start_at(Setup::ONE, port, &data, &[]);
    let (mut away, connack) = Peer::connect_and_see(&broker, &lasting);
    assert!(connack.session_present);
    for expected in 0..acknowledged {
        assert_eq!(away.receive().payload, expected.to_be_bytes());
    }
    broker.stop();
    let _ = std::fs::remove_dir_all(dir);
}
