//! What a completion says about where it belongs.

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Nobody waits for the answer: a cancellation, a wake that failed.
    Ignored = 0,
    /// Connections on the listener `index`, until told otherwise.
    Accept,
    /// One receive, of a connection whose CONNECT is not complete.
    ReceiveOnce,
    /// Receives of a connection that stays, until told otherwise.
    ReceiveMany,
    /// A send.
    Send,
    /// Another shard woke this one.
    Wake,
    /// The eventfd by which other threads wake this shard is readable.
    Bell,
    /// An alarm went off.
    Alarm,
}

/// Names one request: the operation, a slot, and which use of that slot. 24 bits of slot bound the
/// connections of a shard to [`Token::MAX_INDEX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(u64);

impl Token {
    /// The largest slot.
    pub const MAX_INDEX: u32 = (1 << 24) - 1;

    /// Names the use `generation` of the slot `index`.
    #[must_use]
    pub fn new(operation: Operation, index: u32, generation: u32) -> Self {
        debug_assert!(index <= Self::MAX_INDEX);
        let slot = u64::from(index & Self::MAX_INDEX);
        Self((operation as u64) << 56 | slot << 32 | u64::from(generation))
    }

    /// A request that belongs to no slot.
    pub fn plain(operation: Operation) -> Self {
        Self::new(operation, 0, 0)
    }

    pub(super) const fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }

    pub(super) const fn user_data(self) -> u64 {
        self.0
    }

    /// What was asked.
    #[must_use]
    pub fn operation(self) -> Operation {
        match self.0 >> 56 {
            1 => Operation::Accept,
            2 => Operation::ReceiveOnce,
            3 => Operation::ReceiveMany,
            4 => Operation::Send,
            5 => Operation::Wake,
            6 => Operation::Bell,
            7 => Operation::Alarm,
            _ => Operation::Ignored,
        }
    }

    /// The slot.
    #[must_use]
    pub fn index(self) -> u32 {
        u32::try_from(self.0 >> 32 & u64::from(Self::MAX_INDEX)).unwrap_or(0)
    }

    /// Which use of the slot.
    #[must_use]
    pub fn generation(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_token_come_back() {
        for operation in [
            Operation::Ignored,
            Operation::Accept,
            Operation::ReceiveOnce,
            Operation::ReceiveMany,
            Operation::Send,
            Operation::Wake,
            Operation::Bell,
            Operation::Alarm,
        ] {
            for (index, generation) in [(0, 0), (Token::MAX_INDEX, u32::MAX), (7, 1), (0, 9)] {
                let token =
                    Token::from_user_data(Token::new(operation, index, generation).user_data());
                assert_eq!(
                    (token.operation(), token.index(), token.generation()),
                    (operation, index, generation)
                );
            }
        }
    }
}
