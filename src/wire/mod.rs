//! Bytes to borrowed packets and back, for versions 3.1, 3.1.1 and 5.0.
//!
//! Owns everything that knows how MQTT looks on the wire: framing ([`frame`]), the data types of
//! section 1.5, properties, reason codes, and one file per packet family.
//!
//! Invariants:
//! - Decoding borrows from the bytes it is given and allocates nothing, so that a packet that only
//!   passes through costs no memory; it never panics, whatever the bytes are.
//! - No length from the wire is believed before it was compared with the bytes that are there.
//! - What a peer broke comes back as a [`Violation`], and which reason code that is stands in one
//!   table; no decoder decides it.
//! - A decoded packet needs no second look: strings are UTF-8 without U+0000, topic names obey
//!   [`crate::topic::Name`], properties are the ones this packet may carry and not repeated. The
//!   exceptions are rules that need more than the packet: topic filters are answered one by one by
//!   the shard, and who may send a packet depends on which end we are.
//! - Encoding is the inverse: decoding what was encoded yields the same packet.
//!
//! Version 5 and 3.1.1 share one decoder per packet, told apart by [`Version`], because they differ
//! by the properties and little else. Statements are cited as `MQTT-x.y.z-n` in brackets for version 5 and
//! `MQTT-x.y.z-n 3.1.1` in brackets for version 3.1.1, at the check and at the test.

mod acknowledge;
mod authenticate;
mod connack;
mod connect;
mod disconnect;
mod framing;
mod packet;
mod properties;
mod publish;
mod reader;
mod reason;
mod run;
mod selection;
mod sink;
mod subscribe;
mod types;
mod unsubscribe;
mod violation;

pub use acknowledge::{Ack, AckKind, AckRun};
pub use authenticate::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will};
pub use disconnect::Disconnect;
pub use framing::{Framing, PacketType, frame, missing};
pub use packet::{Packet, encode_pingreq, encode_pingresp};
pub use properties::Property;
pub use publish::{Publish, PublishHead, PublishProperties};
pub use reason::ReasonCode;
pub use run::{Run, RunPacket, RunShape};
pub use selection::{Forwarded, SubscriptionIdentifiers, UserProperties, UserPropertiesBuf};
pub use subscribe::{RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscriptionOptions};
pub use types::{PacketId, QoS, Version};
pub use unsubscribe::{UnsubAck, Unsubscribe, UnsubscribeFilters};
pub use violation::Violation;
