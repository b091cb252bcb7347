//! What a receiver knows of one publisher's messages: which came, which are missing.

use crate::measure::Verification;

/// Gaps that are remembered for one publisher; older ones are given up for lost.
const MAX_GAPS: usize = 4096;

/// The messages of one publisher, as one subscriber got them.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    /// The number after the highest that came.
    next: u32,
    /// Numbers below `next` that have not come, as ranges without their end, ascending.
    gaps: Vec<(u32, u32)>,
    delivered: u32,
    duplicates: u32,
    reordered: u32,
}

impl Tracker {
    /// A message came.
    #[inline]
    pub fn received(&mut self, sequence: u32) {
        if sequence == self.next {
            self.next += 1;
            self.delivered += 1;
        } else {
            self.out_of_line(sequence);
        }
    }

    #[cold]
    fn out_of_line(&mut self, sequence: u32) {
        if sequence > self.next {
            if self.gaps.len() == MAX_GAPS {
                self.gaps.remove(0);
            }
            self.gaps.push((self.next, sequence));
            self.next = sequence.saturating_add(1);
            self.delivered += 1;
            return;
        }
        let holds = |&(from, to): &(u32, u32)| (from..to).contains(&sequence);
        let Some(at) = self.gaps.iter().rposition(holds) else {
            self.duplicates += 1;
            return;
        };
        self.reordered += 1;
        self.delivered += 1;
        let (from, to) = self.gaps.remove(at);
        if sequence + 1 < to {
            self.gaps.insert(at, (sequence + 1, to));
        }
        if from < sequence {
            self.gaps.insert(at, (from, sequence));
        }
    }

    /// Messages that came at least once.
    #[must_use]
    pub const fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Messages that must exist, by the numbers that came.
    #[must_use]
    pub const fn seen(&self) -> u32 {
        self.next
    }

    /// Adds what was found to `verification`, except for what needs the number of messages sent.
    pub fn add_to(&self, verification: &mut Verification) {
        verification.delivered += u64::from(self.delivered);
        verification.duplicates += u64::from(self.duplicates);
        verification.reordered += u64::from(self.reordered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(numbers: &[u32]) -> (u32, u32, u32, u32) {
        let mut tracker = Tracker::default();
        for &number in numbers {
            tracker.received(number);
        }
        let Tracker {
            next,
            delivered,
            duplicates,
            reordered,
            ..
        } = tracker;
        (next, delivered, duplicates, reordered)
    }

    #[test]
    fn in_order() {
        assert_eq!(track(&[0, 1, 2, 3]), (4, 4, 0, 0));
    }

    #[test]
    fn a_loss_is_a_gap_that_stays() {
        assert_eq!(track(&[0, 1, 5, 6]), (7, 4, 0, 0));
    }

    #[test]
    fn duplicates_are_told_from_late_ones() {
        assert_eq!(track(&[0, 1, 1, 0]), (2, 2, 2, 0));
        assert_eq!(track(&[0, 3, 2, 1]), (4, 4, 0, 2));
        assert_eq!(track(&[0, 3, 2, 2, 1]), (4, 4, 1, 2));
        assert_eq!(track(&[5, 2, 0, 4, 5, 1, 3, 3]), (6, 6, 2, 5));
    }

    #[test]
    fn any_order_of_all_numbers_is_no_loss_and_no_duplicate() {
        let mut random = 7_u64;
        for _ in 0..100 {
            let mut numbers: Vec<u32> = (0..200).collect();
            for at in (1..numbers.len()).rev() {
                random = crate::plan::schedule::mix(random);
                numbers.swap(at, usize::try_from(random % (at as u64 + 1)).unwrap());
            }
            let (next, delivered, duplicates, _) = track(&numbers);
            assert_eq!((next, delivered, duplicates), (200, 200, 0));
        }
    }

    #[test]
    fn gaps_are_bounded() {
        let mut tracker = Tracker::default();
        for number in (1..20_000).step_by(2) {
            tracker.received(number);
        }
        assert_eq!(tracker.gaps.len(), MAX_GAPS);
    }
}
