//! From what an operator configures to what a shard obeys.

use super::schema::Mqtt;
use crate::shard::Settings;

impl Mqtt {
    /// The settings of every shard. Every field comes from a key, and every key ends in a field;
    /// the first is held by this function's form, the second by a test.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            maximum_packet_size: self.maximum_packet_size,
            receive_maximum: self.receive_maximum,
            max_inflight: self.max_inflight,
            topic_alias_maximum: self.topic_alias_maximum,
            maximum_qos: self.maximum_qos,
            retain_available: self.retain_available,
            wildcard_subscription_available: self.wildcard_subscription_available,
            shared_subscription_available: self.shared_subscription_available,
            subscription_identifiers_available: self.subscription_identifiers_available,
            max_keep_alive: self.max_keep_alive,
            max_session_expiry_interval: self.max_session_expiry_interval,
            max_queued_messages: self.max_queued_messages,
            max_queued_bytes: self.max_queued_bytes,
            queue_overflow: self.queue_overflow,
            queue_qos0: self.queue_qos0,
            max_output_bytes: self.max_output_bytes,
            max_subscriptions: self.max_subscriptions,
            shared_subscription_strategy: self.shared_subscription_strategy,
            connect_timeout_ms: u64::from(self.connect_timeout) * 1_000,
            sys_interval: self.sys_interval,
            response_information: self.response_information.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Section;
    use super::super::value::{Kind, Raw};
    use super::*;

    #[test]
    fn the_defaults_of_the_keys_are_those_of_the_settings() {
        assert_eq!(Mqtt::default().settings(), Settings::default());
    }

    #[test]
    fn every_key_of_mqtt_changes_a_setting() {
        let default = Settings::default();
        for key in Mqtt::KEYS {
            let before = Mqtt::default();
            let raw = match key.kind {
                // The greatest or the least, whichever is not the default.
                Kind::Number(_, bounds) => [bounds.greatest, bounds.least]
                    .map(|number| Raw::Integer(Some(i128::from(number))))
                    .to_vec(),
                Kind::Switch => vec![Raw::Boolean(true), Raw::Boolean(false)],
                Kind::Choice(words) => words.iter().map(|word| Raw::Text(word)).collect(),
                Kind::Word
                | Kind::Text
                | Kind::Directory
                | Kind::File
                | Kind::Address
                | Kind::AddressOrOff => {
                    vec![Raw::Text("x")]
                }
            };
            let changed = raw.into_iter().any(|raw| {
                let mut mqtt = before.clone();
                mqtt.set(key.name, raw).unwrap();
                mqtt.settings() != default
            });
            assert!(changed, "mqtt.{} is read and then forgotten", key.name);
        }
    }
}
