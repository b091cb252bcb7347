//! Gathering: under load a shard waits a little for more than one event, so that one turn, one
//! `io_uring_enter` and one send per receiver serve several messages.
//!
//! The wait is worth its latency only if something arrives in it. So the rate of events is measured
//! over short windows, and a wait is tried only where the rate promises at least [`WORTHWHILE`]
//! events. A client that sends and then waits for the answer promises a high rate and keeps none of
//! it: a wait that brought no second event is followed by turns without one, twice as many each
//! time. At 20,000 messages a second a window brings four on average and often one less than that,
//! so neither a single measurement nor a single poor wait may decide: the rate is smoothed, and the
//! first backing off is short (0.3 turns for each event in place of 0.75, see the test).

use crate::limits::MAX_GATHERED_EVENTS;
use crate::time::Time;

/// Events that a window must promise, begun ones counted. With two, what is saved about equals what the longer wait costs.
const WORTHWHILE: u64 = 3;

/// Events that a wait must bring so as not to be in vain: more than the one it would have had anyway.
const GAIN: u64 = 2;

/// Microseconds over which the rate is measured at least: short enough to follow a burst, long
/// enough for [`WORTHWHILE`] events to mean something.
const SHORTEST_MEASUREMENT_US: u64 = 400;

/// Turns without a wait after the first one that was in vain.
const FIRST_BACKOFF: u32 = 2;

/// Turns without a wait after many that were in vain: one of 1,024 is too few to be felt.
const LONGEST_BACKOFF: u32 = 1024;

/// Parts of an event that the smoothed rate is kept in.
const SCALE: u64 = 64;

/// Decides how long each turn waits for more than one event.
#[derive(Debug)]
pub struct Gather {
    window_us: u32,
    measured_since: Time,
    measured_events: u64,
    /// Events that a window brings, smoothed, in units of 1 / [`SCALE`].
    expected: u64,
    turns_to_skip: u32,
    next_backoff: u32,
    waiting: bool,
}

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Return once so many events are there ...
    pub events: u32,
    /// ... or after this time if there is at least one; 0 to return at the first.
    pub gather_us: u32,
}

impl Plan {
    const FIRST_EVENT: Self = Self {
        events: 1,
        gather_us: 0,
    };
}

impl Gather {
    /// Gathers for at most `window_us` microseconds, 0 for never.
    pub fn new(window_us: u32, now: Time) -> Self {
        Self {
            window_us,
            measured_since: now,
            measured_events: 0,
            expected: 0,
            turns_to_skip: 0,
            next_backoff: FIRST_BACKOFF,
            waiting: false,
        }
    }

    /// How the wait that begins now is to be.
    pub fn plan(&mut self, now: Time) -> Plan {
        self.waiting = false;
        if self.window_us == 0 {
            return Plan::FIRST_EVENT;
        }
        self.measure(now);
        if self.turns_to_skip > 0 {
            self.turns_to_skip -= 1;
            return Plan::FIRST_EVENT;
        }
        let expected = self.expected.div_ceil(SCALE);
        if expected < WORTHWHILE {
            return Plan::FIRST_EVENT;
        }
        self.waiting = true;
        let events = u32::try_from(expected).unwrap_or(u32::MAX);
        Plan {
            events: events.min(MAX_GATHERED_EVENTS),
            gather_us: self.window_us,
        }
    }

    /// Ends a measurement that is long enough. A long one counts more than a short one, and one of
    /// four times the shortest alone.
    fn measure(&mut self, now: Time) {
        let elapsed = now.micros_since(self.measured_since);
        let shortest = SHORTEST_MEASUREMENT_US.max(2 * u64::from(self.window_us));
        if elapsed < shortest {
            return;
        }
        let measured = SCALE * self.measured_events * u64::from(self.window_us) / elapsed;
        let weight = (elapsed / shortest).min(4);
        self.expected = (self.expected * (4 - weight) + measured * weight) / 4;
        self.measured_events = 0;
        self.measured_since = now;
    }

    /// Says how many events the wait brought.
    pub fn gained(&mut self, events: usize) {
        let events = events as u64;
        self.measured_events += events;
        if !std::mem::take(&mut self.waiting) {
            return;
        }
        if events >= GAIN {
            self.next_backoff = FIRST_BACKOFF;
        } else {
            self.turns_to_skip = self.next_backoff;
            self.next_backoff = (self.next_backoff * 2).min(LONGEST_BACKOFF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `turns` turns in which `events_per_turn` events come every `turn_us`, and counts the
    /// waits that were planned.
    fn waits(gather: &mut Gather, clock: &mut u64, turns: u32, turn_us: u64, events: usize) -> u32 {
        let mut waits = 0;
        for _ in 0..turns {
            let plan = gather.plan(Time::from_micros(*clock));
            if plan.gather_us > 0 {
                waits += 1;
                *clock += u64::from(plan.gather_us);
                gather
                    .gained(events * usize::try_from(u64::from(plan.gather_us) / turn_us).unwrap());
            } else {
                *clock += turn_us;
                gather.gained(events);
            }
        }
        waits
    }

    #[test]
    fn a_window_of_zero_never_gathers() {
        let mut gather = Gather::new(0, Time::ZERO);
        assert_eq!(waits(&mut gather, &mut 0, 10_000, 5, 1), 0);
    }

    #[test]
    fn a_quiet_shard_returns_at_the_first_event() {
        let mut gather = Gather::new(200, Time::ZERO);
        // 10,000 events a second are two in 200 microseconds.
        assert_eq!(waits(&mut gather, &mut 0, 10_000, 100, 1), 0);
    }

    #[test]
    fn a_fleet_is_gathered_in_almost_every_turn() {
        let mut gather = Gather::new(200, Time::ZERO);
        let mut clock = 0;
        let _ = waits(&mut gather, &mut clock, 100, 20, 1);
        assert_eq!(waits(&mut gather, &mut clock, 1_000, 20, 1), 1_000);
    }

    #[test]
    fn the_number_waited_for_follows_the_rate_up_to_a_bound() {
        let mut gather = Gather::new(200, Time::ZERO);
        gather.plan(Time::ZERO);
        gather.gained(80);
        let plan = gather.plan(Time::from_micros(1_600));
        assert_eq!(
            plan,
            Plan {
                events: 10,
                gather_us: 200
            }
        );
        gather.gained(100_000);
        let plan = gather.plan(Time::from_micros(3_200));
        assert_eq!(plan.events, MAX_GATHERED_EVENTS);
    }

    #[test]
    fn events_at_random_times_are_gathered_too() {
        // 20,000 a second: four in a window on average, and fewer than three in every fourth.
        let mut gather = Gather::new(200, Time::ZERO);
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = 0.0;
        let mut arrivals = std::iter::from_fn(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            next -= ((random >> 11) as f64 / (1_u64 << 53) as f64)
                .max(1e-9)
                .ln()
                * 50.0;
            Some(next)
        })
        .peekable();
        let (mut now, mut turns, mut events) = (0.0, 0, 0);
        while events < 100_000 {
            let plan = gather.plan(Time::from_micros(now as u64));
            let end = now + f64::from(plan.gather_us);
            let mut gained = 0;
            while gained == 0
                || (gained < plan.events && arrivals.peek().is_some_and(|&at| at <= end))
                || arrivals.peek().is_some_and(|&at| at <= now)
            {
                now = arrivals.next().map_or(now, |at| at.max(now));
                gained += 1;
            }
            if gained < plan.events {
                now = now.max(end);
            }
            // The turn itself.
            now += 3.0;
            gather.gained(gained as usize);
            events += gained;
            turns += 1;
        }
        assert!(turns * 5 < events * 2, "{turns} turns for {events} events");
    }

    #[test]
    fn a_client_that_waits_for_its_answer_hardly_pays() {
        let mut gather = Gather::new(200, Time::ZERO);
        let mut clock = 0_u64;
        let mut waits = 0;
        for _ in 0..20_000 {
            let plan = gather.plan(Time::from_micros(clock));
            waits += u32::from(plan.gather_us > 0);
            clock += 20 + u64::from(plan.gather_us);
            gather.gained(1);
        }
        assert!(waits > 0, "the rate looks high, so it is tried");
        assert!(waits < 30, "{waits} of 20,000 turns waited in vain");
    }

    #[test]
    fn one_wait_that_gains_ends_the_backing_off() {
        let mut gather = Gather::new(200, Time::ZERO);
        let mut clock = 0_u64;
        for _ in 0..10_000 {
            let plan = gather.plan(Time::from_micros(clock));
            clock += 20 + u64::from(plan.gather_us);
            gather.gained(1);
        }
        let turns = (0..=LONGEST_BACKOFF)
            .take_while(|_| waits(&mut gather, &mut clock, 1, 20, 1) == 0)
            .count();
        assert!(turns <= LONGEST_BACKOFF as usize);
        assert_eq!(waits(&mut gather, &mut clock, 100, 20, 1), 100);
    }
}
