//! What lies below MQTT, against the program: TLS, WebSocket, Unix sockets, the PROXY protocol; driven by
//! paho-mqtt, MQTT.js, Chromium, `openssl s_client`, Python's `ssl`, Debian's `mosquitto_pub` and rustls.
//!
//! Foreign clients are found or installed as in `tests/blackbox`; what cannot be had is skipped by name.
//! Every certificate is made here, for this run.

#![expect(clippy::unwrap_used, reason = "a test that cannot do its work fails")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a client or the broker printed is shown when a test fails"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the process under test and its clients live on the real clock"
)]

mod broker;
mod browser;
mod certificates;
mod client;
mod foreign;
mod identity;
#[path = "../blackbox/install.rs"]
mod install;
mod links;
mod measure;
mod pki;
mod tls;

/// The drivers of the network, each with a number of shards.
pub(crate) const RUNS: [(&str, usize); 2] = [("io_uring", 2), ("epoll", 2)];

/// Says that a test did not run; `.ci/run` looks for it. The test runner swallows the output of a test
/// that passes, so the line goes to the terminal's descriptor by a process.
pub(crate) fn skipped(what: &str, reason: &str) {
    let line = format!("SKIPPED: {what}: {reason}");
    println!("{line}");
    let _ = std::process::Command::new("sh")
        .args(["-c", "printf '%s\\n' \"$0\" >&2", &line])
        .status();
}
