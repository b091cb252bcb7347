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

/// A message that is kept: topic, properties and payload in one allocation.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Box<[u8]>,
    topic_length: u16,
    properties_length: u32,
    expires_at: Time,
    qos: QoS,
    retain: bool,
}

impl<'a> MessageView<'a> {
    /// This message, which `run` begins with, and the others of the run.
    pub fn and_those_of(self, run: Option<Run<'a>>) -> impl Iterator<Item = Self> + use<'a> {
        let others = run.into_iter().flat_map(|run| run.payloads()).skip(1);
        std::iter::once(self).chain(others.map(move |payload| Self { payload, ..self }))
    }

    /// Copies the message out of the buffer it lies in.
    #[must_use]
    pub fn to_message(self) -> Rc<Message> {
        let topic = self.topic.as_str().as_bytes();
        let mut bytes =
            Vec::with_capacity(topic.len() + self.properties.len() + self.payload.len());
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(self.properties);
        bytes.extend_from_slice(self.payload);
        Rc::new(Message {
            bytes: bytes.into_boxed_slice(),
            topic_length: u16::try_from(topic.len()).unwrap_or(u16::MAX),
            properties_length: u32::try_from(self.properties.len()).unwrap_or(u32::MAX),
            expires_at: self.expires_at,
            qos: self.qos,
            retain: self.retain,
        })
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
        let (topic, rest) = self.bytes.split_at(usize::from(self.topic_length));
        let (properties, payload) = rest.split_at(self.properties_length as usize);
        MessageView {
            topic: Name::trusted(std::str::from_utf8(topic).unwrap_or_default()),
            properties,
            payload,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
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
        self.bytes.len()
    }

    /// When it is too old to be sent.
    #[must_use]
    pub fn expires_at(&self) -> Time {
        self.expires_at
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
