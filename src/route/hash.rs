//! How topics and filters become numbers.
//!
//! A whole text has one hash. A path, level by level, has another: a polynomial over the hashes of
//! its levels, modulo the prime 2^61 - 1, at a secret base. It has a property that no chain of
//! mixing has: from the hash of any path, the hash of that path *extended by a run of a topic's
//! levels* is one multiplication away, however long the run ([`Prefixes::extend`]). So matching
//! jumps from wildcard to wildcard and never looks at a level between them.
//!
//! A hash decides where to look, never what is equal: texts are compared in the end.

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use smallvec::SmallVec;
use std::hash::Hasher;

use crate::limits::MAX_TOPIC_LEVELS;

/// The modulus of path hashes, a Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;

/// The hash of a path, below [`PRIME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path(u64);

impl Path {
    /// As a hash for a table.
    pub(super) fn hash(self) -> u64 {
        let mixed = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 32)
    }
}

/// Levels that a wildcard stands for in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wildcard {
    Single,
    Multi,
}

/// The secrets of one shard.
pub(super) struct Hashing {
    shared: SharedSeed,
    own: u64,
    empty: u64,
    single: u64,
    multi: u64,
    powers: Box<[u64]>,
}

/// The path hashes of every prefix of one topic: `[i]` has the first `i` levels.
pub(super) struct Prefixes<'h> {
    hashing: &'h Hashing,
    paths: SmallVec<[u64; 17]>,
}

impl Hashing {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            finish(state)
        };
        let (shared, own) = (SharedSeed::from_u64(draw()), draw());
        // A base near zero would keep short paths small; there are enough others.
        let base = draw() % (PRIME >> 1) + (PRIME >> 2);
        let (empty, single, multi) = (draw() % PRIME, draw() % PRIME, draw() % PRIME);
        let mut powers = vec![1; MAX_TOPIC_LEVELS + 2].into_boxed_slice();
        let mut power = 1;
        for slot in &mut powers {
            *slot = power;
            power = multiply(power, base);
        }
        Self {
            shared,
            own,
            empty,
            single,
            multi,
            powers,
        }
    }

    /// The hash of a whole text.
    pub(super) fn text(&self, text: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(with_length(self.own, text), &self.shared);
        hasher.write(text);
        hasher.finish()
    }

    /// The path without levels.
    pub(super) fn empty(&self) -> Path {
        Path(self.empty)
    }

    /// `path` and one more literal level.
    pub(super) fn literal(&self, path: Path, level: &[u8]) -> Path {
        self.push(path, self.text(level) >> 3)
    }

    /// `path` and a wildcard.
    pub(super) fn wildcard(&self, path: Path, wildcard: Wildcard) -> Path {
        self.push(
            path,
            match wildcard {
                Wildcard::Single => self.single,
                Wildcard::Multi => self.multi,
            },
        )
    }

    fn push(&self, path: Path, symbol: u64) -> Path {
        Path(reduce(
            u128::from(path.0) * u128::from(self.power(1)) + u128::from(symbol),
        ))
    }

    fn power(&self, exponent: usize) -> u64 {
        self.powers.get(exponent).copied().unwrap_or(0)
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
    /// Levels of the topic.
    pub(super) fn levels(&self) -> usize {
        self.paths.len() - 1
    }

    /// `path`, which stands for the topic's first `from` levels, extended by the topic's levels up
    /// to `to`: (path - prefix of `from`) × base^(to - from) + prefix of `to`.
    pub(super) fn extend(&self, path: Path, from: usize, to: usize) -> Path {
        let at = |index: usize| self.paths.get(index).copied().unwrap_or(0);
        let lead = reduce(u128::from(path.0 + PRIME - at(from)));
        if lead == 0 {
            return Path(at(to));
        }
        let lifted = u128::from(lead) * u128::from(self.hashing.power(to - from));
        Path(reduce(lifted + u128::from(at(to))))
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

fn multiply(left: u64, right: u64) -> u64 {
    reduce(u128::from(left) * u128::from(right))
}

/// `wide` modulo [`PRIME`]; exact for anything below 2^122.
#[expect(
    clippy::cast_possible_truncation,
    reason = "both halves have at most 62 bits"
)]
fn reduce(wide: u128) -> u64 {
    let folded = (wide as u64 & PRIME) + (wide >> 61) as u64;
    let again = (folded & PRIME) + (folded >> 61);
    if again >= PRIME { again - PRIME } else { again }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_of_levels_is_one_step() {
        let hashing = Hashing::new(7);
        let topic = "fleet//vehicle/7/cmd/état";
        let prefixes = hashing.prefixes(topic);
        let levels: Vec<_> = topic.split('/').collect();
        assert_eq!(prefixes.levels(), levels.len());
        let start = hashing.wildcard(hashing.empty(), Wildcard::Single);
        let mut path = start;
        for to in 1..levels.len() {
            assert_eq!(prefixes.extend(start, 1, to), path);
            assert_eq!(
                prefixes.extend(hashing.empty(), 0, to).0,
                prefixes.paths[to]
            );
            path = hashing.literal(path, levels[to].as_bytes());
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

    proptest! {
        #[test]
        fn reduction_is_the_remainder(wide in 0..(1u128 << 122)) {
            prop_assert_eq!(u128::from(reduce(wide)), wide % u128::from(PRIME));
        }
    }
}
