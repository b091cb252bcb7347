//! A fleet of vehicles: what each of them does, and when, as a pure function of the seed.
//!
//! Vehicles connect in waves, publish telemetry each at its own pace, vanish in a tunnel without a
//! word (every other one with a reset in place of an orderly end of the stream) and come back in a
//! storm with their sessions. A back end sends commands to vehicles, in the tunnel or not, and each
//! command is to be answered.

use std::time::Duration;

use super::schedule::mix;

/// Connections begin in so many waves.
const WAVES: u32 = 5;

/// A fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fleet {
    /// Vehicles.
    pub vehicles: u32,
    /// From the first connection to the end.
    pub duration: Duration,
    /// Mean time between two messages of telemetry of a vehicle.
    pub telemetry: Duration,
    /// Part of the fleet that is in the tunnel.
    pub in_tunnel: f64,
    /// Commands per second to the whole fleet.
    pub commands: f64,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The vehicle connects for the first time.
    Connect,
    /// It publishes telemetry of this QoS.
    Telemetry(u8),
    /// It vanishes; with a reset or without.
    Vanish(bool),
    /// It comes back.
    Return,
    /// The back end sends it a command of this QoS.
    Command(u8),
}

/// When something happens to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Nanoseconds from the beginning.
    pub at_ns: u64,
    /// Which vehicle, from 0.
    pub vehicle: u32,
    /// What.
    pub action: Action,
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    /// 0 to 1.
    fn part(&mut self) -> f64 {
        self.0 = mix(self.0);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Fleet {
    /// Everything that happens, in the order in which it does.
    #[must_use]
    pub fn steps(&self, seed: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        for vehicle in 0..self.vehicles {
            self.vehicle(seed, vehicle, &mut steps);
        }
        self.back_end(seed, &mut steps);
        steps.sort_unstable();
        steps
    }

    /// A time at a part of the run.
    fn at(&self, part: f64) -> u64 {
        (self.duration.as_nanos() as f64 * part) as u64
    }

    fn vehicle(&self, seed: u64, vehicle: u32, steps: &mut Vec<Step>) {
        let mut random = Random(mix(seed ^ mix(u64::from(vehicle))));
        let mut step = |at_ns, action| {
            steps.push(Step {
                at_ns,
                vehicle,
                action,
            });
        };
        // Waves in the first fifth, each as a quarter of the time to the next.
        let wave = f64::from(vehicle % WAVES) + random.part() / 4.0;
        let connected = self.at(0.2 * wave / f64::from(WAVES));
        step(connected, Action::Connect);
        let period = self.telemetry.as_nanos() as f64 * (0.5 + random.part());
        let mut at = connected as f64 + period * random.part();
        let mut count = 0;
        while (at as u64) < self.at(0.9) {
            step(at as u64, Action::Telemetry(u8::from(count % 2 == 1)));
            at += period;
            count += 1;
        }
        if random.part() < self.in_tunnel {
            // In within a tenth of the run, out within a fiftieth: the storm.
            step(
                self.at(0.4 + 0.1 * random.part()),
                Action::Vanish(random.part() < 0.5),
            );
            step(self.at(0.6 + 0.02 * random.part()), Action::Return);
        }
    }

    fn back_end(&self, seed: u64, steps: &mut Vec<Step>) {
        let mut random = Random(mix(seed ^ 0xBACC));
        let interval = 1e9 / self.commands.max(1e-9);
        let mut at = self.at(0.25) as f64;
        let mut count = 0_u64;
        while (at as u64) < self.at(0.85) && self.vehicles > 0 {
            let vehicle = (random.part() * f64::from(self.vehicles)) as u32;
            steps.push(Step {
                at_ns: at as u64,
                vehicle: vehicle.min(self.vehicles - 1),
                action: Action::Command(if count.is_multiple_of(2) { 1 } else { 2 }),
            });
            count += 1;
            at += interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: Fleet = Fleet {
        vehicles: 200,
        duration: Duration::from_secs(20),
        telemetry: Duration::from_secs(1),
        in_tunnel: 0.5,
        commands: 50.0,
    };

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(FLEET.steps(7), FLEET.steps(7));
        assert_ne!(FLEET.steps(7), FLEET.steps(8));
    }

    #[test]
    fn steps_are_in_order_and_each_life_makes_sense() {
        let steps = FLEET.steps(1);
        assert!(steps.is_sorted());
        let of = |vehicle, wanted: fn(&Action) -> bool| {
            let mine = steps.iter().filter(move |step| step.vehicle == vehicle);
            mine.filter(move |step| wanted(&step.action))
                .map(|step| step.at_ns)
                .collect::<Vec<_>>()
        };
        let mut tunnels = 0;
        for vehicle in 0..FLEET.vehicles {
            let connects = of(vehicle, |action| *action == Action::Connect);
            let vanishes = of(vehicle, |action| matches!(action, Action::Vanish(_)));
            let returns = of(vehicle, |action| *action == Action::Return);
            assert_eq!(connects.len(), 1);
            assert_eq!(vanishes.len(), returns.len());
            tunnels += vanishes.len();
            assert!(
                vanishes
                    .iter()
                    .zip(&returns)
                    .all(|(from, to)| connects[0] < *from && from < to)
            );
            let telemetry = of(vehicle, |action| matches!(action, Action::Telemetry(_)));
            assert!(telemetry.iter().all(|at| *at >= connects[0]));
            assert!((8..40).contains(&telemetry.len()), "{}", telemetry.len());
        }
        assert!((70..130).contains(&tunnels), "{tunnels}");
        let commands = steps
            .iter()
            .filter(|step| matches!(step.action, Action::Command(_)))
            .count();
        assert_eq!(commands, 600, "50 per second for three fifths of 20 s");
    }

    #[test]
    fn everybody_comes_back_within_a_fiftieth_of_the_run() {
        let steps = FLEET.steps(1);
        let returns: Vec<u64> = steps
            .iter()
            .filter(|step| step.action == Action::Return)
            .map(|step| step.at_ns)
            .collect();
        let spread = returns[returns.len() - 1] - returns[0];
        assert!(spread <= 400_000_000, "{spread}");
    }
}
