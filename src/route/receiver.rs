//! Who gets a message, as the routing knows it: a key into the session slab and the options of one
//! subscription.

use super::sorted::Keyed;
use crate::wire::QoS;

/// One session of this shard: its place in the session slab, and the generation that tells it from
/// whoever had the place before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The place.
    pub index: u32,
    /// How many had it before.
    pub generation: u32,
}

/// One subscription of one session: what a matching publish needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receiver {
    /// Whose subscription it is.
    pub session: SessionKey,
    /// Its Subscription Identifier, 0 where there is none (the standard forbids 0 as a value).
    pub identifier: u32,
    /// The QoS that was granted.
    pub qos: QoS,
    /// No Local: not to the connection it came from.
    pub no_local: bool,
    /// Retain As Published: the RETAIN flag is forwarded as it came.
    pub retain_as_published: bool,
}

const _: () = assert!(size_of::<Receiver>() == 16);

impl Keyed for Receiver {
    type Key = SessionKey;

    fn key(&self) -> SessionKey {
        self.session
    }
}
