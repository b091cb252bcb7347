//! The generator as a process, against brokers as processes.
//!
//! `SHARDMQ_BIN` names the broker; without it the one beside the generator in cargo's folder is taken,
//! and without that (`cargo test -p shardmq-loadgen` does not build it) the tests print
//! `SKIPPED: name: why` and pass, as they do for mosquitto where it is not installed. `.ci/run` fails
//! on any such line.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "processes live on the real clock, and what is skipped is said"
)]

mod brokers;
mod compare;
mod errors;
mod options;
mod runs;
mod scenarios;
mod terminal;
mod transports;
