//! The runtime over real sockets with either net driver: shards on their own threads, clients that
//! speak raw bytes.
//!
//! What needs a process of its own (limits, signals, another user, a blocked io_uring) runs this very
//! test binary again as a child, see `process`.
#![cfg(feature = "runtime")]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "some of the tests are about time"
)]

mod broker;
mod client;
mod life;
mod limits;
mod process;
mod restrict;
mod traffic;
