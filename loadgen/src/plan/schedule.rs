//! When each message of a publisher is due.
//!
//! All publishers of a group have the same interval and each a phase of its own within it, drawn
//! from the seed, so that they do not fire together. In the order of their phases they are due one
//! after the other, round by round: the next one is found without any search.

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// The interval of every publisher of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    nanoseconds: f64,
}

impl Interval {
    /// Of `publishers` that publish `rate` messages per second together.
    #[must_use]
    pub fn of(rate: f64, publishers: u32) -> Self {
        let nanoseconds = f64::from(publishers.max(1)) * SECOND as f64 / rate.max(1e-9);
        Self { nanoseconds }
    }

    /// Nanoseconds from the start of the schedule to message `sequence` of a publisher. Computed
    /// from the number, not by adding, so that no rounding adds up.
    #[must_use]
    pub fn due(self, phase: f64, sequence: u32) -> u64 {
        ((f64::from(sequence) + phase) * self.nanoseconds) as u64
    }
}

/// The phase of a publisher, 0 to 1, a pure function of the seed.
#[must_use]
pub fn phase(seed: u64, publisher: u32) -> f64 {
    let bits = mix(seed ^ mix(u64::from(publisher)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Spreads the bits of a number: the same number gives the same result everywhere.
#[must_use]
pub const fn mix(number: u64) -> u64 {
    // The finaliser of SplitMix64, an algorithm in the public domain.
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_the_rate_it_was_made_for_and_does_not_drift() {
        let interval = Interval::of(3.0, 1);
        assert_eq!(interval.due(0.0, 3 * 3_600), 3_600 * SECOND);
        let many = Interval::of(50_000.0, 1_000);
        assert_eq!(many.due(0.0, 50), SECOND);
        assert_eq!(many.due(0.5, 0), 10_000_000);
    }

    #[test]
    fn phases_are_repeatable_and_spread_evenly() {
        let mut tenths = [0; 10];
        for publisher in 0..10_000 {
            let phase = phase(42, publisher);
            assert!((0.0..1.0).contains(&phase));
            assert_eq!(phase.to_bits(), super::phase(42, publisher).to_bits());
            tenths[(phase * 10.0) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|&count| (900..1_100).contains(&count)),
            "{tenths:?}"
        );
        assert!((phase(1, 0) - phase(2, 0)).abs() > 1e-9, "the seed matters");
    }

    #[test]
    fn the_order_of_phases_is_the_order_of_due_times_in_every_round() {
        let interval = Interval::of(1_000.0, 100);
        let mut phases: Vec<f64> = (0..100).map(|publisher| phase(7, publisher)).collect();
        phases.sort_by(f64::total_cmp);
        let mut last = 0;
        for round in 0..50 {
            for &phase in &phases {
                let due = interval.due(phase, round);
                assert!(due >= last);
                last = due;
            }
        }
    }
}
