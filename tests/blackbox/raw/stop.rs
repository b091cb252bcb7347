//! SIGTERM.

use super::packets::{Connect, Publish};
use super::peer::Peer;
use crate::Version;
use crate::broker::{Broker, Setup};

/// Version 5 is told 0x8B, everybody is closed, the exit is clean.
#[test]
fn clients_are_told_and_the_exit_is_clean() {
    for setup in Setup::ALL {
        for version in Version::BOTH {
            let mut broker = Broker::start(setup);
            let mut peers: Vec<Peer> = (0..10)
                .map(|n| Peer::connect(&broker, &Connect::new(version, &format!("told{n}"))))
                .collect();
            // One connection that never said who it is.
            let mut silent = Peer::open(&broker, version);
            for peer in &mut peers {
                peer.publish(&Publish::new("before", "x"));
                assert_eq!(peer.ping(), []);
            }
            broker.terminate();
            for peer in &mut peers {
                peer.expect_closed_with("shutting down", &[0x8B]);
            }
            assert_eq!(silent.until_closed(), [], "no DISCONNECT before CONNACK");
            let status = broker.wait();
            assert!(status.success(), "the broker ended with {status}");
        }
    }
}
