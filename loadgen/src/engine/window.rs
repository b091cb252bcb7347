//! The messages of one publisher that wait for their acknowledgement.

/// What is known of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unacknowledged {
    /// When it was due.
    pub(super) intended_ns: u64,
    /// Which message it is.
    pub(super) sequence: u32,
    /// QoS 2: PUBREC has come.
    pub(super) received: bool,
    used: bool,
}

/// A window of unacknowledged messages: slot `n` has the packet identifier `n + 1`.
#[derive(Debug)]
pub(super) struct Window {
    slots: Vec<Unacknowledged>,
    free: Vec<u16>,
    size: u16,
}

impl Window {
    /// For `size` messages.
    pub(super) fn new(size: u16) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            size: size.max(1),
        }
    }

    /// The broker takes no more than this at a time.
    pub(super) fn limit(&mut self, receive_maximum: u16) {
        self.size = self.size.min(receive_maximum.max(1));
    }

    /// Whether another message may be sent.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many messages may be sent.
    #[inline]
    pub(super) fn room(&self) -> usize {
        usize::from(self.size).saturating_sub(self.len())
    }

    /// Messages in it.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a message in and returns its packet identifier. There must be room.
    #[inline]
    pub(super) fn insert(&mut self, intended_ns: u64, sequence: u32) -> u16 {
        let message = Unacknowledged {
            intended_ns,
            sequence,
            received: false,
            used: true,
        };
        if let Some(slot) = self.free.pop() {
            self.slots[usize::from(slot)] = message;
            return slot + 1;
        }
        self.slots.push(message);
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// The message of a packet identifier.
    #[inline]
    pub(super) fn get_mut(&mut self, packet_id: u16) -> Option<&mut Unacknowledged> {
        self.slots
            .get_mut(usize::from(packet_id.checked_sub(1)?))
            .filter(|message| message.used)
    }

    /// Lets a message go.
    #[inline]
    pub(super) fn remove(&mut self, packet_id: u16) -> Option<Unacknowledged> {
        let message = self.get_mut(packet_id)?;
        message.used = false;
        let message = *message;
        self.free.push(packet_id - 1);
        Some(message)
    }

    /// The messages in the order in which they were published, with their packet identifiers.
    pub(super) fn in_order(&self) -> Vec<(u16, Unacknowledged)> {
        let mut messages: Vec<(u16, Unacknowledged)> = (1..=u16::MAX)
            .zip(&self.slots)
            .filter(|(_, message)| message.used)
            .map(|(packet_id, message)| (packet_id, *message))
            .collect();
        messages.sort_by_key(|(_, message)| message.sequence);
        messages
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_used_again_only_after_their_acknowledgement() {
        let mut window = Window::new(3);
        let ids: Vec<u16> = (0..3).map(|n| window.insert(u64::from(n), n)).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert!(!window.has_room());
        assert_eq!(window.remove(2).map(|message| message.sequence), Some(1));
        assert_eq!(window.remove(2), None, "twice");
        assert_eq!(window.remove(9), None);
        assert_eq!(window.remove(0), None);
        assert_eq!(window.insert(9, 9), 2);
        let order: Vec<u32> = window
            .in_order()
            .iter()
            .map(|(_, message)| message.sequence)
            .collect();
        assert_eq!(order, [0, 2, 9]);
        window.limit(1);
        assert!(!window.has_room());
        window.clear();
        assert!(window.has_room() && window.len() == 0);
    }
}
