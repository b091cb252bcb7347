//! The broker as a process, driven over TCP by clients that were not written here (paho-mqtt,
//! MQTT.js, Debian's `mosquitto_pub` and `mosquitto_sub`, rumqttc) and, for what no client sends,
//! by bytes over a plain socket.
//!
//! | environment | what it does |
//! | --- | --- |
//! | `SHARDMQ_BIN` | the binary under test; without it the one that cargo built for the tests. `.ci/run` points it at the release build, so that what is released is what is tested, and a developer's `cargo test` need not wait for link-time optimisation |
//! | `BLACKBOX_BROKER` | a shell command that starts another broker, with `{port}`, `{shards}` and `{dir}` filled in; `tests/blackbox/mosquitto.sh {port} {dir}` is one. It shows whether a scenario or the broker is wrong |
//!
//! The foreign clients are installed once, with pinned versions, into the git-ignored folder
//! `.clients`. Where one cannot be had its tests print `SKIPPED: name: reason` and pass; `.ci/run`
//! fails on any such line.
//!
//! Nothing here sleeps for luck: each wait is for an event and is bounded. That something does
//! *not* arrive is shown by a fence: a later message that does.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a client or the broker printed is shown when a test fails"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the process under test and its clients live on the real clock"
)]

#[path = "blackbox/access.rs"]
mod access;
#[path = "blackbox/backup.rs"]
mod backup;
#[path = "blackbox/blocked.rs"]
mod blocked;
#[path = "blackbox/broker.rs"]
mod broker;
#[path = "blackbox/crash.rs"]
mod crash;
#[path = "blackbox/disk.rs"]
mod disk;
#[path = "blackbox/foreign.rs"]
mod foreign;
#[path = "blackbox/history.rs"]
mod history;
#[path = "blackbox/install.rs"]
mod install;
#[path = "blackbox/mosquitto.rs"]
mod mosquitto;
#[path = "blackbox/raw.rs"]
mod raw;
#[path = "blackbox/restart.rs"]
mod restart;
#[path = "blackbox/rights.rs"]
mod rights;
#[path = "blackbox/rumqttc.rs"]
mod rumqttc;
#[path = "blackbox/soak.rs"]
mod soak;

/// The protocol versions of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    V3_1_1,
    V5,
}

impl Version {
    pub(crate) const BOTH: [Self; 2] = [Self::V3_1_1, Self::V5];

    /// The Protocol Level of CONNECT.
    pub(crate) const fn level(self) -> u8 {
        match self {
            Self::V3_1_1 => 4,
            Self::V5 => 5,
        }
    }

    pub(crate) const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }
}
