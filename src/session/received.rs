//! The packet identifiers of QoS 2 messages from a client that PUBREL has not released: what makes
//! a repeated PUBLISH arrive once [MQTT-4.3.3-10].
//!
//! Bounded by Receive Maximum, which the shard checks; kept across reconnects.

use crate::wire::PacketId;

/// A sorted set: a handful of identifiers at a time, so a vector beats a tree.
#[derive(Debug, Default)]
pub struct Received(Vec<PacketId>);

impl Received {
    /// Identifiers that ascend.
    #[must_use]
    pub fn restored(identifiers: Vec<PacketId>) -> Self {
        debug_assert!(identifiers.is_sorted_by(|a, b| a < b));
        Self(identifiers)
    }

    /// Notes `identifier`; `false` if it was noted before.
    pub fn insert(&mut self, identifier: PacketId) -> bool {
        match self.0.binary_search(&identifier) {
            Ok(_) => false,
            Err(position) => {
                self.0.insert(position, identifier);
                true
            }
        }
    }

    /// Notes identifiers that ascend and lie behind [`Received::last`].
    pub fn extend(&mut self, identifiers: impl Iterator<Item = PacketId>) {
        self.0.extend(identifiers);
        debug_assert!(self.0.is_sorted_by(|a, b| a < b));
    }

    /// The greatest one that was noted.
    #[must_use]
    pub fn last(&self) -> Option<PacketId> {
        self.0.last().copied()
    }

    /// Forgets `identifier`; `false` if it was not noted.
    pub fn remove(&mut self, identifier: PacketId) -> bool {
        match self.0.binary_search(&identifier) {
            Ok(position) => {
                self.0.remove(position);
                if self.0.is_empty() {
                    self.0 = Vec::new();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Whether `identifier` was noted and not released.
    #[must_use]
    pub fn contains(&self, identifier: PacketId) -> bool {
        self.0.binary_search(&identifier).is_ok()
    }

    /// How many wait for PUBREL.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_new_once_until_it_is_released() {
        let mut received = Received::default();
        let identifier = PacketId::new(7).unwrap();
        assert!(received.insert(identifier));
        assert!(!received.insert(identifier)); // [MQTT-4.3.3-10]
        assert!(received.contains(identifier));
        assert!(received.remove(identifier));
        assert!(!received.remove(identifier));
        assert!(received.insert(identifier)); // [MQTT-4.3.3-12] free after PUBCOMP
        assert_eq!(received.len(), 1);
    }
}
