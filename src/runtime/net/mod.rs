//! The net driver: what a shard asks of the network, and the completions that it gets back.
//!
//! Used by the broker and by the load generator alike, so it knows nothing of either: it accepts,
//! receives, sends and waits, and names what it did it for by a [`Token`].

mod gather;
mod probe;
mod ring;

pub use gather::{Gather, Plan};
pub use probe::probe;
pub use ring::{Capabilities, Completion, Operation, Output, Received, Sent, Token, Wait};

/// One thread's net driver.
pub type Net = ring::Ring;
