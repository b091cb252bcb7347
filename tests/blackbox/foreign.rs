//! Clients that nobody here wrote, each with versions 3.1.1 and 5 on one and on two shards with
//! io_uring, and on two with epoll.
//!
//! paho-mqtt and MQTT.js have their scenarios in their own languages under `tests/clients`; they
//! print `ok NAME` or `FAILED NAME: why` for each.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Version;
use crate::broker::{Broker, Setup};
use crate::install;

/// How long all scenarios of one client may take; they take a fifth of it.
const SUITE: Duration = Duration::from_secs(240);

/// One test per client, version and setup of the broker.
macro_rules! matrix {
    ($client:ident, $suite:path) => {
        mod $client {
            use crate::Version;
            use crate::broker::Setup;

            #[test]
            fn version_3_1_1_on_1_shard() {
                $suite(Version::V3_1_1, Setup::ONE);
            }

            #[test]
            fn version_3_1_1_on_2_shards() {
                $suite(Version::V3_1_1, Setup::TWO);
            }

            #[test]
            fn version_3_1_1_on_2_shards_with_epoll() {
                $suite(Version::V3_1_1, Setup::EPOLL);
            }

            #[test]
            fn version_5_on_1_shard() {
                $suite(Version::V5, Setup::ONE);
            }

            #[test]
            fn version_5_on_2_shards() {
                $suite(Version::V5, Setup::TWO);
            }

            #[test]
            fn version_5_on_2_shards_with_epoll() {
                $suite(Version::V5, Setup::EPOLL);
            }
        }
    };
}

pub(crate) use matrix;

matrix!(paho, crate::foreign::run_paho);
matrix!(mqttjs, crate::foreign::run_mqttjs);

fn run_paho(version: Version, setup: Setup) {
    match install::paho() {
        Ok(python) => {
            let mut command = Command::new(python);
            command.arg("-u").arg("tests/clients/paho/run.py");
            run_suite("paho", command, version, setup);
        }
        Err(reason) => skipped("paho", version, setup, &reason),
    }
}

fn run_mqttjs(version: Version, setup: Setup) {
    match install::mqttjs() {
        Ok(modules) => {
            let mut command = Command::new("node");
            command
                .arg("tests/clients/mqttjs/run.cjs")
                .env("NODE_PATH", modules);
            run_suite("mqttjs", command, version, setup);
        }
        Err(reason) => skipped("mqttjs", version, setup, &reason),
    }
}

/// Says that a test did not run; `.ci/run` looks for it. Standard error of a passing test is
/// swallowed by the test runner, so the line goes to the terminal's descriptor by a process.
pub(crate) fn skipped(client: &str, version: Version, setup: Setup, reason: &str) {
    let line = format!("SKIPPED: {client} {version:?} on {setup}: {reason}");
    println!("{line}");
    let _ = Command::new("sh")
        .args(["-c", "printf '%s\\n' \"$0\" >&2", &line])
        .status();
}

fn run_suite(client: &str, mut command: Command, version: Version, setup: Setup) {
    let broker = Broker::start_with(setup, |command| {
        command.env("SHARDMQ__HISTORY__KEPT__FILTER", "+/kept/#");
    });
    if std::env::var_os("BLACKBOX_BROKER").is_none() {
        command.env("SHARDMQ_TEST_HISTORY", "1");
    }
    let output = std::env::temp_dir().join(format!(
        "shardmq-{client}-{}-{}",
        std::process::id(),
        broker.port()
    ));
    let file = File::create(&output).expect("the folder for temporary files can be written");
    let mut child = command
        .arg(broker.port().to_string())
        .arg(version.level().to_string())
        .arg(broker.shards().to_string())
        .args(std::env::var("BLACKBOX_ONLY").ok())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file handle can be doubled"))
        .stderr(file)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + SUITE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = take(&output);
    println!("{said}");
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    let failed: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("FAILED "))
        .collect();
    assert!(failed.is_empty(), "{client}: {failed:#?}");
    let status = status.unwrap_or_else(|| panic!("{client} took longer than {SUITE:?}"));
    assert!(
        status.success() && passed > 0,
        "{client} ended with {status}"
    );
    broker.stop();
}

fn take(path: &Path) -> String {
    let said = std::fs::read(path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    String::from_utf8_lossy(&said).into_owned()
}
