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
pub(crate) mod packets;
#[path = "raw/peer.rs"]
pub(crate) mod peer;
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
use crate::broker::{Broker, Setup};
use packets::{Connect, Publish};
use peer::Peer;

/// Runs a test under both versions on brokers of one and of two shards with either driver.
fn on_both(test: impl Fn(&Broker, Version)) {
    for setup in Setup::ALL {
        let broker = Broker::start(setup);
        for version in Version::BOTH {
            test(&broker, version);
        }
        broker.stop();
    }
}

/// Runs a test of version 5 alone.
fn on_v5(test: impl Fn(&Broker)) {
    for setup in Setup::ALL {
        let broker = Broker::start(setup);
        test(&broker);
        broker.stop();
    }
}

/// A message goes through the broker.
pub(crate) fn serves(broker: &Broker, version: Version) {
    let mut receiver = Peer::connect(broker, &Connect::new(version, "receiver"));
    let mut sender = Peer::connect(broker, &Connect::new(version, "sender"));
    assert_eq!(receiver.subscribe("serves/#", 0), 0);
    sender.publish(&Publish::new("serves/it", "through"));
    assert_eq!(receiver.receive().payload, b"through");
}
