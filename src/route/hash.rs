//! How topics and filters become numbers.
//!
//! A whole text has one hash. A path, level by level, has another: a polynomial over the hashes of
//! its levels, modulo 2^64, at a secret odd base. It has a property that no chain of mixing has:
//! from the hash of any path, the hash of that path *extended by a run of a topic's levels* is one
//! multiplication away, however long the run ([`Steps::to`]). So matching jumps from wildcard to
//! wildcard and never looks at a level between them.
//!
//! A hash decides where to look, never what is equal: texts are compared in the end. That is why
//! the modulus may be the cheap one. A prime would rule out that levels which alternate in a certain
//! way give hashes with up to 28 equal lower bits (Thue and Morse, 128 levels); those bits are mixed
//! with the others before a table sees them, and a prime costs six times the instructions.

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use smallvec::SmallVec;
use std::hash::Hasher;

use crate::limits::MAX_TOPIC_LEVELS;

/// The hash of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path(u64);

impl Path {
    /// As a hash for a table. Different paths stay different.
    pub(super) fn hash(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 29)
    }
}

/// The secrets of one shard.
pub(super) struct Hashing {
    shared: SharedSeed,
    own: u64,
    empty: u64,
    single: u64,
    multi: u64,
    powers: Box<[u64]>,
    /// The bits of hashes that count; all but in the tests of collisions.
    #[cfg(test)]
    mask: u64,
}

/// The path hashes of every prefix of one topic: `[i]` has the first `i` levels.
pub(super) struct Prefixes<'h> {
    hashing: &'h Hashing,
    paths: SmallVec<[u64; 17]>,
}

/// How to go on from one path along a topic.
#[derive(Clone, Copy)]
pub(super) struct Steps<'p> {
    hashing: &'p Hashing,
    paths: &'p [u64],
    /// The path, less the topic's own prefix of that many levels.
    lead: u64,
    from: usize,
}

impl Hashing {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            finish(state)
        };
        let (shared, own, base) = (SharedSeed::from_u64(draw()), draw(), draw() | 1);
        let (empty, single, multi) = (draw(), draw(), draw());
        let mut power: u64 = 1;
        let powers = (0..MAX_TOPIC_LEVELS + 2).map(|_| {
            let this = power;
            power = power.wrapping_mul(base);
            this
        });
        Self {
            shared,
            own,
            empty,
            single,
            multi,
            powers: powers.collect(),
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// Of all hashes only the bits in `mask` count; it keeps the lowest bits, as a polynomial must.
    #[cfg(test)]
    pub(super) fn weak(seed: u64, mask: u64) -> Self {
        let mut hashing = Self::new(seed);
        hashing.mask = mask;
        hashing.empty &= mask;
        hashing
    }

    #[inline]
    fn counting(&self, bits: u64) -> u64 {
        #[cfg(test)]
        return bits & self.mask;
        #[cfg(not(test))]
        bits
    }

    /// The hash of a whole text.
    #[inline]
    pub(super) fn text(&self, text: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(with_length(self.own, text), &self.shared);
        hasher.write(text);
        self.counting(hasher.finish())
    }

    /// The path without levels.
    pub(super) fn empty(&self) -> Path {
        Path(self.empty)
    }

    /// `path` and one more literal level.
    #[inline]
    pub(super) fn literal(&self, path: Path, level: &[u8]) -> Path {
        self.push(path, self.text(level))
    }

    /// `path` and `+`.
    #[inline]
    pub(super) fn single(&self, path: Path) -> Path {
        self.push(path, self.single)
    }

    /// `path` and `#`.
    #[inline]
    pub(super) fn multi(&self, path: Path) -> Path {
        self.push(path, self.multi)
    }

    #[inline]
    fn push(&self, path: Path, symbol: u64) -> Path {
        let base = self.powers.get(1).copied().unwrap_or(1);
        Path(self.counting(path.0.wrapping_mul(base).wrapping_add(symbol)))
    }

    /// The path hashes of every prefix of `topic`.
    pub(super) fn prefixes(&self, topic: &str) -> Prefixes<'_> {
        let mut paths = SmallVec::new();
        let mut path = self.empty();
        paths.push(path.0);
        for level in topic.as_bytes().split(|&byte| byte == b'/') {
            path = self.literal(path, level);
            paths.push(path.0);
        }
        Prefixes {
            hashing: self,
            paths,
        }
    }
}

impl Prefixes<'_> {
    /// From the start of the topic.
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps {
            hashing: self.hashing,
            paths: &self.paths,
            lead: 0,
            from: 0,
        }
    }
}

impl<'p> Steps<'p> {
    /// Levels of the topic.
    #[inline]
    pub(super) fn levels(self) -> usize {
        self.paths.len() - 1
    }

    /// From `path`, which stands for the topic's first `from` levels.
    #[inline]
    pub(super) fn after(self, path: Path, from: usize) -> Self {
        let own = self.paths.get(from).copied().unwrap_or(0);
        Self {
            lead: path.0.wrapping_sub(own),
            from,
            ..self
        }
    }

    /// The path extended by the topic's levels up to `to`: what the path has more than the topic's
    /// own prefix, lifted by as many levels, and the topic's prefix of `to` levels.
    #[inline]
    pub(super) fn to(self, to: usize) -> Path {
        let own = self.paths.get(to).copied().unwrap_or(0);
        let power = self
            .hashing
            .powers
            .get(to - self.from)
            .copied()
            .unwrap_or(0);
        Path(
            self.hashing
                .counting(self.lead.wrapping_mul(power).wrapping_add(own)),
        )
    }
}

/// A hash that is the same on every shard and in every process: for decisions that all shards must
/// take alike, such as which member of a group a topic goes to. Nobody's table may lie under it.
#[must_use]
pub fn stable_hash(text: &str) -> u64 {
    let seed = with_length(0, text.as_bytes());
    let mut hasher = FoldHasher::with_seed(seed, SharedSeed::global_fixed());
    hasher.write(text.as_bytes());
    finish(hasher.finish())
}

/// `seed` for the hash of this text. The hasher reads the first and the last eight bytes of a short
/// text and not how many there are, so `t/11/state` and `t/111/state` would be one to it.
fn with_length(seed: u64, text: &[u8]) -> u64 {
    seed ^ (text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Spreads every bit over all of them: the finisher of SplitMix64.
pub(super) fn finish(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_run_of_levels_is_one_step() {
        let hashing = Hashing::new(7);
        let topic = "fleet//vehicle/7/cmd/état";
        let prefixes = hashing.prefixes(topic);
        let levels: Vec<_> = topic.split('/').collect();
        let root = prefixes.steps();
        assert_eq!(root.levels(), levels.len());
        let mut path = hashing.single(hashing.empty());
        let mut own = hashing.literal(hashing.empty(), levels[0].as_bytes());
        let after = root.after(path, 1);
        for (to, level) in levels.iter().enumerate().skip(1) {
            assert_eq!(after.to(to), path);
            assert_eq!(root.to(to), own);
            path = hashing.literal(path, level.as_bytes());
            own = hashing.literal(own, level.as_bytes());
            assert_ne!(path, own);
        }
    }

    #[test]
    fn a_stable_hash_does_not_change_with_the_seed() {
        assert_eq!(stable_hash("vehicle/7"), stable_hash("vehicle/7"));
        assert_ne!(stable_hash("vehicle/7"), stable_hash("vehicle/8"));
    }

    #[test]
    fn texts_that_overlap_differ() {
        let hashing = Hashing::new(7);
        let texts: Vec<_> = (0..6_000)
            .map(|number| format!("fleet/{number}/state"))
            .collect();
        let stable: HashSet<_> = texts.iter().map(|text| stable_hash(text)).collect();
        let secret: HashSet<_> = texts
            .iter()
            .map(|text| hashing.text(text.as_bytes()))
            .collect();
        assert_eq!((stable.len(), secret.len()), (6_000, 6_000));
    }
}
