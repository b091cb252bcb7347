//! A message that came, with all that a format can show of it.

use std::num::NonZeroU16;

use shardmq::wire::{Publish, QoS};

/// A message.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) packet_id: u16,
    pub(super) topic_alias: Option<u16>,
    pub(super) payload_format_indicator: Option<u8>,
    pub(super) message_expiry_interval: Option<u32>,
    pub(super) content_type: Option<String>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation_data: Option<Vec<u8>>,
    pub(super) subscription_identifiers: Vec<u32>,
    pub(super) user_properties: Vec<(String, String)>,
}

impl Message {
    /// Copies it out of a packet. `topic` is its topic also where the packet has an alias only.
    pub(super) fn new(topic: String, publish: &Publish<'_>) -> Self {
        let properties = &publish.properties;
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id.map_or(0, NonZeroU16::get),
            topic_alias: properties.topic_alias,
            payload_format_indicator: properties.payload_format_indicator,
            message_expiry_interval: properties.message_expiry_interval,
            content_type: properties.content_type().map(str::to_owned),
            response_topic: properties.response_topic().map(str::to_owned),
            correlation_data: properties.correlation_data().map(<[u8]>::to_vec),
            subscription_identifiers: properties.subscription_identifiers.iter().collect(),
            user_properties: properties.user_properties().iter().map(owned).collect(),
        }
    }
}
