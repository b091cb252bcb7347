//! Topic aliases: numbers that stand for topics, on one connection and in one direction
//! [MQTT-3.3.2-10] [MQTT-3.3.2-11]. Both tables are made when the first alias is.

use hashbrown::HashMap;

use crate::limits::MAX_OUTGOING_ALIASES;

/// What a client set for the broker.
#[derive(Debug, Default)]
pub struct IncomingAliases(Vec<Option<Box<str>>>);

impl IncomingAliases {
    /// Sets `alias`, which the caller has checked against its maximum.
    pub fn set(&mut self, alias: u16, topic: &str) {
        let index = usize::from(alias);
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        if self.0[index].as_deref() != Some(topic) {
            self.0[index] = Some(topic.into());
        }
    }

    /// The topic that `alias` stands for.
    #[must_use]
    pub fn get(&self, alias: u16) -> Option<&str> {
        self.0.get(usize::from(alias))?.as_deref()
    }
}

/// What the broker sets for a client: an alias for each topic, first come, first served, until the
/// client's maximum is reached. Reassigning numbers would save more bytes on a connection with many
/// topics, and cost a table in order of use; fleets have few topics per vehicle.
#[derive(Debug)]
pub struct OutgoingAliases {
    maximum: u16,
    topics: HashMap<Box<str>, u16, foldhash::fast::RandomState>,
}

/// How a PUBLISH names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its name, without an alias.
    ByName,
    /// By its name, and this alias stands for it from now on.
    Introduce(u16),
    /// By this alias alone.
    ByAlias(u16),
}

impl OutgoingAliases {
    /// Aliases up to the client's Topic Alias Maximum [MQTT-3.1.2-26]; `None` if it is 0
    /// [MQTT-3.1.2-27].
    #[must_use]
    pub fn new(topic_alias_maximum: u16) -> Option<Self> {
        let maximum = topic_alias_maximum.min(MAX_OUTGOING_ALIASES);
        (maximum > 0).then(|| Self {
            maximum,
            topics: HashMap::default(),
        })
    }

    /// How to name `topic`. Changes nothing: see [`OutgoingAliases::introduce`].
    #[must_use]
    pub fn look_up(&self, topic: &str) -> Named {
        if let Some(&alias) = self.topics.get(topic) {
            return Named::ByAlias(alias);
        }
        match u16::try_from(self.topics.len()) {
            Ok(used) if used < self.maximum => Named::Introduce(used + 1),
            _ => Named::ByName,
        }
    }

    /// The PUBLISH that introduces `alias` is in the output.
    pub fn introduce(&mut self, topic: &str, alias: u16) {
        self.topics.insert(topic.into(), alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_can_be_set_anew() {
        let mut aliases = IncomingAliases::default();
        assert_eq!(aliases.get(1), None);
        aliases.set(1, "a");
        aliases.set(1, "b");
        aliases.set(3, "c");
        assert_eq!(
            (aliases.get(1), aliases.get(2), aliases.get(3)),
            (Some("b"), None, Some("c"))
        );
    }

    #[test]
    fn outgoing_aliases_stop_at_the_maximum() {
        assert!(OutgoingAliases::new(0).is_none()); // [MQTT-3.1.2-27]
        let mut aliases = OutgoingAliases::new(2).unwrap();
        for (topic, alias) in [("a", 1), ("b", 2)] {
            assert_eq!(aliases.look_up(topic), Named::Introduce(alias));
            aliases.introduce(topic, alias);
        }
        assert_eq!(aliases.look_up("c"), Named::ByName); // [MQTT-3.1.2-26]
        assert_eq!(aliases.look_up("a"), Named::ByAlias(1));
    }
}
