//! Several runs: one for each of some rates, or as many as it takes to find the highest rate.

use crate::engine;
use crate::measure::Outcome;
use crate::plan::Plan;

use super::args::Load;
use super::conditions::Conditions;
use super::{Failure, once};

/// Rates differ by less than this part of them when the search ends.
const PRECISION: f64 = 0.05;

/// The rate to begin with where the plan has none.
const FIRST_RATE: f64 = 1_000.0;

/// How often a run is made again in which the generator was late: that says nothing about the broker,
/// and a busy machine may be the cause.
const TRIES: u32 = 2;

/// Part of the wanted rate that must be sent.
const ENOUGH: f64 = 0.99;

/// What `--sweep` and `--find-max` cannot be used with.
pub(super) fn check(plan: &Plan, load: &Load) -> Result<(), String> {
    let option = if load.find_max.is_some() {
        "--find-max"
    } else if load.sweep.is_empty() {
        return Ok(());
    } else {
        "--sweep"
    };
    if plan.publishers() == 0 {
        let name = &plan.name;
        return Err(format!(
            "{option} changes the rate of publishers, and {name} has none"
        ));
    }
    if plan.duration.is_none() {
        return Err(format!(
            "{option} needs runs of a certain length (--duration, not -L)"
        ));
    }
    Ok(())
}

/// Runs once for each rate.
pub(super) fn sweep(plan: &Plan, load: &Load) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::new();
    for &rate in &load.sweep {
        if engine::interrupted() {
            break;
        }
        outcomes.push(once(&at(plan, rate), load, Some(&format!("{rate:.0}")))?);
    }
    Ok(outcomes)
}

/// Finds the highest rate at which the conditions hold: doubles it until they do not, then halves
/// what is between. Prints each run, and the rate that was found.
pub(super) fn find_max(
    plan: &Plan,
    conditions: &Conditions,
    load: &Load,
) -> Result<Vec<Outcome>, Failure> {
    let mut best: Option<(f64, Outcome)> = None;
    let mut too_high: Option<f64> = None;
    let mut rate = plan.rate().unwrap_or(FIRST_RATE);
    let mut late = 0;
    while !engine::interrupted() {
        let outcome = once(&at(plan, rate), load, Some(&format!("{rate:.0}")))?;
        if engine::interrupted() {
            // It was cut short, and says nothing about its rate.
            break;
        }
        if let Some(why) = &outcome.saturated
            && late < TRIES
        {
            eprintln!("{rate:.0} per second: {why}; once more");
            late += 1;
            continue;
        }
        late = 0;
        let sent = outcome.counts.published as f64 / outcome.measured_s.max(1e-9);
        let broken = conditions.broken(&outcome);
        let why = outcome
            .saturated
            .clone()
            .or_else(|| broken.first().cloned())
            .or_else(|| {
                (sent < rate * ENOUGH).then(|| format!("only {sent:.0} per second were sent"))
            });
        match why {
            None => {
                eprintln!("{rate:.0} per second: holds");
                best = Some((rate, outcome));
            }
            Some(why) => {
                eprintln!("{rate:.0} per second: {why}");
                too_high = Some(rate);
            }
        }
        let low = best.as_ref().map(|(rate, _)| *rate);
        rate = match (low, too_high) {
            (Some(low), Some(high)) if high - low <= PRECISION * high => break,
            (Some(low), Some(high)) => low.midpoint(high),
            (Some(low), None) => low * 2.0,
            (None, Some(high)) if high <= 1.0 => break,
            (None, _) => rate / 2.0,
        };
    }
    if let Some((rate, _)) = &best {
        eprintln!("highest rate: {rate:.0} per second");
    } else {
        eprintln!("no rate was found at which it holds");
    }
    Ok(best.into_iter().map(|(_, outcome)| outcome).collect())
}

fn at(plan: &Plan, rate: f64) -> Plan {
    let mut plan = plan.clone();
    plan.set_rate(rate);
    plan
}
