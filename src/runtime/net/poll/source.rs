//! What is known of each descriptor: whether it was registered, whether it is worth a read, and what
//! was asked for it.

use std::os::fd::RawFd;

use crate::chunks::Chunks;

use super::super::token::{Operation, Token};

/// One descriptor, in the slot that its tokens name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) fd: RawFd,
    generation: u32,
    /// The kernel tells of it.
    pub(super) registered: bool,
    /// The kernel also tells when it is writable.
    pub(super) tells_writable: bool,
    /// A read would bring something, as far as is known.
    pub(super) readable: bool,
    /// What it brings at last is the end, of which nothing more will be told.
    pub(super) ended: bool,
    /// It is in the list of those to be read.
    pub(super) queued: bool,
    /// What reads are for: one of the receives or accepts, or `Ignored`.
    pub(super) reads: Operation,
    /// A completion is to say that it is writable.
    pub(super) blocked: bool,
}

impl Default for Source {
    fn default() -> Self {
        Self::NONE
    }
}

impl Source {
    const NONE: Self = Self {
        fd: -1,
        generation: 0,
        registered: false,
        tells_writable: false,
        readable: false,
        ended: false,
        queued: false,
        reads: Operation::Ignored,
        blocked: false,
    };

    /// The token of what reads are for.
    pub(super) fn read_token(&self, index: u32) -> Token {
        Token::new(self.reads, index, self.generation)
    }
}

/// Descriptors of one kind, by slot.
#[derive(Debug, Default)]
pub(super) struct Sources(Chunks<Source>);

impl Sources {
    /// The source that `token` names, if it is still that one.
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut Source> {
        self.0
            .get_mut(token.index() as usize)
            .filter(|source| source.generation == token.generation() && source.fd >= 0)
    }

    /// The same, which is a new one if the slot was another's.
    pub(super) fn claim(&mut self, token: Token, fd: RawFd) -> &mut Source {
        let source = self.0.get_or_grow(token.index() as usize);
        if source.generation != token.generation() || source.fd != fd {
            // It stays in the list if it is there: it is looked at once more and found not to be
            // readable, or to be.
            *source = Source {
                fd,
                generation: token.generation(),
                ..Source::NONE
            };
        }
        source
    }

    /// Forgets the source that `token` names.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(source) = self.get_mut(token) {
            *source = Source::NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_used_again_knows_nothing_of_before() {
        let mut sources = Sources::default();
        let first = Token::new(Operation::ReceiveMany, 3, 0);
        sources.claim(first, 9).readable = true;
        assert!(sources.claim(first, 9).readable);
        let second = Token::new(Operation::ReceiveMany, 3, 1);
        assert!(sources.get_mut(second).is_none());
        assert!(!sources.claim(second, 9).readable);
        assert!(sources.get_mut(first).is_none());
        sources.forget(second);
        assert!(sources.get_mut(second).is_none());
    }
}
