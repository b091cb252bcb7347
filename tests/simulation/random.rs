//! Where all choices of a run come from: a seed, or the bytes of a fuzzer.

/// A source of choices. Deterministic: the same seed or bytes give the same choices.
pub struct Random {
    state: u64,
    bytes: Option<(Vec<u8>, usize)>,
}

impl Random {
    /// Choices from a seed (SplitMix64).
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            bytes: None,
        }
    }

    /// Choices from bytes, one byte a choice; see [`Random::is_spent`].
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            state: 0,
            bytes: Some((bytes.to_vec(), 0)),
        }
    }

    /// Whether the bytes are used up.
    pub fn is_spent(&self) -> bool {
        self.bytes
            .as_ref()
            .is_some_and(|(bytes, at)| *at >= bytes.len())
    }

    pub fn next(&mut self) -> u64 {
        if let Some((bytes, at)) = &mut self.bytes {
            let byte = bytes.get(*at).copied().unwrap_or(0);
            *at += 1;
            return u64::from(byte);
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
