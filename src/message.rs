//! An application message on its way through a shard: borrowed while it passes, owned once it stays.
//!
//! A publish that only passes through is never copied into a value of its own: [`MessageView`]
//! borrows the read buffer or the batch it came in. The first receiver that must keep it (a queue,
//! an in-flight window, the retained store) makes the one [`Message`], and everybody else who keeps
//! it on this shard shares that one.

use std::rc::Rc;

use crate::time::Time;
use crate::topic::Name;
use crate::wire::{QoS, Run};

/// Something that was appended to the journal and has not ended: a message, a subscription, a will.
/// Numbers rise by one with everything that is appended and are never used again, so they are also
/// the order in which things came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub(crate) u64);

impl ItemId {
    /// The number before this one. Items are counted from 1.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

/// How far the journal is: the number of a frame. What was appended at a position is on disk once
/// the journal's durable position is no less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

/// A message that is being routed, borrowed from where its bytes are.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    /// The topic, never an alias.
    pub topic: Name<'a>,
    /// The properties that are forwarded unaltered, encoded as version 5 does it and in the order
    /// they came: Payload Format Indicator, Content Type, Response Topic, Correlation Data, User
    /// Property. No length prefix.
    pub properties: &'a [u8],
    /// The application message.
    pub payload: &'a [u8],
    /// The QoS it was published with.
    pub qos: QoS,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// When it is too old to be sent, [`Time::NEVER`] without a Message Expiry Interval.
    pub expires_at: Time,
}

/// A message that is kept: topic, properties, payload and what else is known of it in one allocation
/// that everybody shares who keeps it on this shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Rc<[u8]>);

/// Where what stands before the topic begins: expiry (8 bytes), item of the journal (8), length of the
/// properties (4), length of the topic (2), QoS and RETAIN (1).
const STORED: usize = 8;
const PROPERTIES_LENGTH: usize = 16;
const TOPIC_LENGTH: usize = 20;
const FLAGS: usize = 22;
const HEAD: usize = 23;

impl<'a> MessageView<'a> {
    /// This message, which `run` begins with, and the others of the run.
    pub fn and_those_of(self, run: Option<Run<'a>>) -> impl Iterator<Item = Self> + use<'a> {
        let others = run.into_iter().flat_map(|run| run.payloads()).skip(1);
        std::iter::once(self).chain(others.map(move |payload| Self { payload, ..self }))
    }

    /// Copies the message out of the buffer it lies in.
    #[must_use]
    pub fn to_message(self) -> Message {
        self.to_message_by(None, &mut Vec::new())
    }

    /// The same for what the journal calls `stored`, put together in `scratch`, which is memory that is
    /// used again.
    #[must_use]
    pub fn to_message_by(self, stored: Option<ItemId>, scratch: &mut Vec<u8>) -> Message {
        let topic = self.topic.as_str().as_bytes();
        let topic_length = u16::try_from(topic.len()).unwrap_or(u16::MAX);
        let properties_length = u32::try_from(self.properties.len()).unwrap_or(u32::MAX);
        let mut head = [0; HEAD];
        head[..STORED].copy_from_slice(&self.expires_at.as_micros().to_le_bytes());
        let stored = stored.map_or(0, |item| item.0);
        head[STORED..PROPERTIES_LENGTH].copy_from_slice(&stored.to_le_bytes());
        head[PROPERTIES_LENGTH..TOPIC_LENGTH].copy_from_slice(&properties_length.to_le_bytes());
        head[TOPIC_LENGTH..FLAGS].copy_from_slice(&topic_length.to_le_bytes());
        head[FLAGS] = self.qos.bits() << 1 | u8::from(self.retain);
        scratch.clear();
        scratch.reserve(HEAD + self.size());
        scratch.extend_from_slice(&head);
        scratch.extend_from_slice(topic);
        if !self.properties.is_empty() {
            scratch.extend_from_slice(self.properties);
        }
        scratch.extend_from_slice(self.payload);
        Message(Rc::from(scratch.as_slice()))
    }

    /// Bytes that count against the limits of queues and of the retained store.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.as_str().len() + self.properties.len() + self.payload.len()
    }
}

impl Message {
    /// Borrows it back, to be routed or encoded.
    #[must_use]
    pub fn view(&self) -> MessageView<'_> {
        let (head, rest) = self.0.split_at(HEAD);
        let topic_length = u16::from_le_bytes([head[TOPIC_LENGTH], head[TOPIC_LENGTH + 1]]);
        let (topic, rest) = rest.split_at(usize::from(topic_length));
        let properties_length = head[PROPERTIES_LENGTH..TOPIC_LENGTH]
            .iter()
            .rev()
            .fold(0, |length, &byte| length << 8 | usize::from(byte));
        let (properties, payload) = rest.split_at(properties_length);
        MessageView {
            topic: Name::trusted(std::str::from_utf8(topic).unwrap_or_default()),
            properties,
            payload,
            qos: QoS::from_bits(head[FLAGS] >> 1).unwrap_or(QoS::AtMostOnce),
            retain: head[FLAGS] & 1 == 1,
            expires_at: self.expires_at(),
        }
    }

    /// The topic it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.view().topic.as_str()
    }

    /// Bytes that count against the limits of queues and of the retained store.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len() - HEAD
    }

    /// When it is too old to be sent.
    #[must_use]
    pub fn expires_at(&self) -> Time {
        Time::from_micros(self.number(0))
    }

    /// What the journal calls it, if it was put there.
    #[must_use]
    pub fn stored(&self) -> Option<ItemId> {
        let item = self.number(STORED); // items are counted from 1
        (item != 0).then_some(ItemId(item))
    }

    fn number(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_message_reads_as_it_was_published() {
        let view = MessageView {
            topic: Name::parse("vehicle/7/état").unwrap(),
            properties: &[1, 1],
            payload: b"on",
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at: Time::from_secs(9),
        };
        let kept = view.to_message();
        assert_eq!(kept.topic(), "vehicle/7/état");
        assert_eq!(kept.view().properties, [1, 1]);
        assert_eq!(kept.view().payload, b"on");
        assert_eq!(kept.view().qos, QoS::AtLeastOnce);
        assert!(kept.view().retain);
        assert_eq!(kept.expires_at(), Time::from_secs(9));
        assert_eq!(kept.size(), view.size());
    }
}
