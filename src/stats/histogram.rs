//! A distribution of durations in a fixed array: recording is two additions and never allocates.
//!
//! Four buckets for each power of two, so a quantile is at most a quarter above the truth. From one
//! microsecond to 16.8 seconds; what is longer counts in the last bucket and with its full length in
//! the sum. Its own rather than `hdrhistogram`, whose counts lie on the heap and are copied with it
//! into every snapshot.

/// Bits of a value that tell the buckets of one power of two apart.
const SUB_BITS: u32 = 2;

/// The power of two in microseconds from which on nothing is told apart: 16.8 seconds.
const TOP: u32 = 24;

/// Buckets, the one above [`TOP`] included.
const BUCKETS: usize = ((TOP - SUB_BITS + 1) << SUB_BITS) as usize + 1;

/// A distribution of microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_us: 0,
        }
    }
}

/// The bucket of a value.
const fn index(us: u64) -> usize {
    if us < 1 << SUB_BITS {
        return us as usize;
    }
    let power = us.ilog2();
    if power >= TOP {
        return BUCKETS - 1;
    }
    let sub = (us >> (power - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((power - SUB_BITS + 1) << SUB_BITS) as u64 + sub) as usize
}

/// The least value above those of a bucket.
const fn end(index: usize) -> u64 {
    if index < 1 << SUB_BITS {
        return index as u64 + 1;
    }
    let power = (index >> SUB_BITS) as u32 - 1;
    let sub = (index as u64 & ((1 << SUB_BITS) - 1)) + 1;
    ((1 << SUB_BITS) + sub) << power
}

impl Histogram {
    /// The bounds of [`Histogram::cumulative`]: powers of two, in microseconds.
    pub const BOUNDS_US: [u64; TOP as usize + 1] = {
        let mut bounds = [1; TOP as usize + 1];
        let mut power = 0;
        while power < bounds.len() {
            bounds[power] = 1 << power;
            power += 1;
        }
        bounds
    };

    /// Counts `times` durations of `us` microseconds.
    pub fn record(&mut self, us: u64, times: u64) {
        if let Some(bucket) = self.buckets.get_mut(index(us)) {
            *bucket += times;
        }
        self.sum_us = self.sum_us.wrapping_add(us.wrapping_mul(times));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together, in microseconds.
    #[must_use]
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        for (sum, part) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += part;
        }
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
    }

    /// How many are below each of [`Histogram::BOUNDS_US`].
    #[must_use]
    pub fn cumulative(&self) -> [u64; Self::BOUNDS_US.len()] {
        Self::BOUNDS_US.map(|bound| self.buckets[..index(bound)].iter().sum())
    }

    /// Microseconds that a share of them (0 to 1) does not exceed, rounded up to the end of a bucket.
    /// `None` without any, or where it is longer than what is told apart.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let rank = (share * count as f64).ceil().max(1.0);
        let mut below = 0;
        self.buckets[..BUCKETS - 1]
            .iter()
            .position(|&bucket| {
                below += bucket;
                count > 0 && below as f64 >= rank
            })
            .map(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_bucket_that_says_so() {
        let mut values: Vec<u64> = (0..5_000).collect();
        values.extend((0..TOP).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
        for us in values {
            let index = index(us);
            let start = if index == 0 { 0 } else { end(index - 1) };
            assert!((start..end(index)).contains(&us), "{us} in bucket {index}");
            assert!(
                end(index) - start <= (start / 4).max(1),
                "bucket {index} is wide"
            );
        }
        assert_eq!(end(BUCKETS - 2), 1 << TOP);
        assert_eq!(index(1 << TOP), BUCKETS - 1);
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_a_quarter_off_at_most() {
        let mut histogram = Histogram::default();
        for us in 1..=10_000 {
            histogram.record(us, 1);
        }
        for (share, truth) in [(0.5, 5_000), (0.99, 9_900), (1.0, 10_000)] {
            let found = histogram.quantile_us(share).unwrap();
            assert!(
                (truth..=truth * 5 / 4 + 1).contains(&found),
                "{share}: {found}"
            );
        }
        assert_eq!(
            (histogram.count(), histogram.sum_us()),
            (10_000, 50_005_000)
        );
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }

    #[test]
    fn what_is_below_a_bound_is_counted_there_and_in_all_above() {
        let mut histogram = Histogram::default();
        histogram.record(0, 2);
        histogram.record(1, 1);
        histogram.record(1_000, 4);
        histogram.record(u64::MAX / 2, 1);
        let cumulative = histogram.cumulative();
        assert_eq!(cumulative[..3], [2, 3, 3]);
        assert_eq!((cumulative[9], cumulative[10]), (3, 7), "512 and 1,024 us");
        assert_eq!(cumulative.last(), Some(&7));
        assert_eq!(histogram.count(), 8);
        let mut both = histogram;
        both.merge(&histogram);
        assert_eq!(both.count(), 16);
    }
}
