//! Scenarios: the pure core, a virtual clock, several clients and shards in memory. Each one reads
//! like an example of the standard and cites the statements that it proves: `MQTT-x.y.z-n` is
//! version 5, `MQTT-x.y.z-n 3.1.1` is 3.1.1.

#![expect(
    unreachable_pub,
    reason = "a test binary has no public surface; `pub` marks a facade"
)]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod options;
mod packets;

mod access;
mod aliases;
#[cfg(feature = "credentials")]
mod auth;
mod backpressure;
mod bounds;
mod connect;
mod errors;
mod expiry;
mod history;
mod keepalive;
mod limits;
mod mesh;
mod mount;
mod order;
mod overflow;
mod owed;
mod policy;
mod properties;
mod qos;
mod replay;
mod resume;
mod retained;
mod runs;
mod session;
mod shared;
mod subscribe;
mod sys;
mod takeover;
mod topics;
mod will;
