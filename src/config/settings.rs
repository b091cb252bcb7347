//! From what an operator configures to what a shard obeys.

use super::schema::{Config, Limits, Listener, Mqtt};
use crate::policy::MountPoint;
use crate::shard::{self, ListenerSettings, Settings};

impl Mqtt {
    /// The settings of every shard. Every field comes from a key, and every key ends in a field;
    /// the first is held by this function's form, the second by a test.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            listeners: Vec::new(),
            limits: shard::Limits::default(),
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
            max_queue_memory: self.max_queue_memory,
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

impl Limits {
    /// The limits of every shard.
    #[must_use]
    pub fn settings(&self) -> shard::Limits {
        shard::Limits {
            max_topic_bytes: self.max_topic_bytes,
            max_topic_levels: self.max_topic_levels,
            max_user_properties: self.max_user_properties,
            max_filters: self.max_filters_per_subscribe,
            max_retained_messages: self.max_retained_messages,
            max_retained_bytes: self.max_retained_bytes,
            message_rate: self.message_rate,
            byte_rate: self.byte_rate,
            client_connects: self.client_connects,
            failed_logins: self.failed_logins,
            window_s: self.window,
            ban_s: self.ban,
        }
    }
}

impl Listener {
    /// What holds for all who come by it.
    #[must_use]
    pub fn settings(&self) -> ListenerSettings {
        ListenerSettings {
            mount_point: MountPoint::parse(&self.mount_point).ok(), // checked before, or none
            message_rate: self.message_rate,
            byte_rate: self.byte_rate,
        }
    }
}

impl Config {
    /// Everything that a shard obeys.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            listeners: self.listeners.iter().map(Listener::settings).collect(),
            limits: self.limits.settings(),
            ..self.mqtt.settings()
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
        let settings = Settings {
            listeners: vec![ListenerSettings::default()],
            ..Settings::default()
        };
        assert_eq!(Config::default().settings(), settings);
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
                _ => vec![Raw::Text("x")],
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
