//! Bytes over a plain socket: what no client library sends, and what none shows.
//!
//! Packets are put together and taken apart here by hand, not with the broker's own `wire`, which
//! would agree with itself.

#[path = "raw/connect.rs"]
mod connect;
#[path = "raw/delivery.rs"]
mod delivery;
#[path = "raw/malformed.rs"]
mod malformed;
#[path = "raw/packets.rs"]
mod packets;
#[path = "raw/peer.rs"]
mod peer;
#[path = "raw/resume.rs"]
mod resume;
#[path = "raw/segments.rs"]
mod segments;
#[path = "raw/stop.rs"]
mod stop;
#[path = "raw/subscribe.rs"]
mod subscribe;
#[path = "raw/version5.rs"]
mod version5;

use crate::Version;
use crate::broker::Broker;

/// Runs a test under both versions on one broker of one shard and one broker of two.
fn on_both(test: impl Fn(&Broker, Version)) {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        for version in Version::BOTH {
            test(&broker, version);
        }
        broker.stop();
    }
}

/// Runs a test of version 5 alone.
fn on_v5(test: impl Fn(&Broker)) {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        test(&broker);
        broker.stop();
    }
}
