//! From what was counted to what is reported.

use std::time::SystemTime;

use crate::measure::{Counts, Figure, Interval, Latency, Outcome, Verification};
use crate::plan::{Plan, Topics, Verify};
use crate::process::Sample;

use super::collect::{Sums, seconds_after};
use super::control::Phases;
use super::fleet::FleetFindings;
use super::worker::Findings;

/// Lag that is never called too large: what a busy machine's scheduler may take.
const HARMLESS_LAG_NS: u64 = 1_000_000;

/// The part of the latency that may be the generator's own.
const HARMLESS_SHARE: f64 = 0.1;

/// The part of the wanted rate that must have been sent.
const ENOUGH: f64 = 0.99;

/// Everything that a finished run has left.
pub(super) struct Measured<'a> {
    pub(super) plan: &'a Plan,
    pub(super) started: SystemTime,
    pub(super) phases: Phases,
    pub(super) sums: Sums,
    pub(super) intervals: Vec<Interval>,
    pub(super) findings: &'a [Findings],
    pub(super) rss_before: u64,
    pub(super) used: Option<(Sample, Sample)>,
    pub(super) all_connected: Option<u64>,
    pub(super) driver: &'static str,
}

impl Measured<'_> {
    pub(super) fn outcome(self) -> Outcome {
        let plan = self.plan;
        let measured_s = if self.phases.measure == u64::MAX || self.phases.end == u64::MAX {
            0.0
        } else {
            seconds_after(self.phases.end, self.phases.measure).max(0.0)
        };
        let verification = (plan.verify != Verify::None).then(|| verification(plan, self.findings));
        let saturated = self.saturated(measured_s);
        let mut errors: Vec<(String, u64)> = self.sums.errors.into_iter().collect();
        errors.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let mut figures = Vec::new();
        if let (true, Some(at)) = (plan.measures_connecting, self.all_connected) {
            let seconds = seconds_after(at, self.phases.begin);
            let figure = |name: &str, value, unit: &str| Figure {
                name: name.to_owned(),
                value,
                unit: unit.to_owned(),
            };
            figures.push(figure("all connected after", seconds, "s"));
            let rate = self.sums.counts.connected as f64 / seconds.max(1e-9);
            figures.push(figure("connections", rate, "1/s"));
        }
        let fleets: Vec<&FleetFindings> = self
            .findings
            .iter()
            .filter_map(|finding| finding.fleet.as_ref())
            .collect();
        if !fleets.is_empty() {
            figures.extend(FleetFindings::figures(&fleets));
        }
        let mut counts = self.sums.counts;
        counts.open = self
            .intervals
            .last()
            .map_or(counts.open, |last| last.counts.open);
        Outcome {
            parameters: plan.parameters(),
            name: plan.name.clone(),
            started: rfc3339(self.started),
            measured_s,
            intervals: self.intervals,
            counts,
            corrected: self.sums.corrected,
            raw: self.sums.raw,
            acknowledgement: self.sums.acknowledgement,
            connect: self.sums.connect,
            lag: self.sums.lag,
            verification,
            saturated,
            closed_loop: plan.is_closed_loop(),
            errors,
            driver: self.driver.to_owned(),
            process: plan
                .broker_pid
                .zip(self.used)
                .map(|(pid, (first, last))| last.difference(&first, pid, self.rss_before)),
            figures,
        }
    }

    /// Whether the generator could not keep its schedule. The lag is its own: messages that waited
    /// for the broker are not in it. So it is too large where it makes up more of the latency than
    /// a tenth, but never below a millisecond, which a scheduler may take on any machine without
    /// that the distribution says anything else about the broker.
    fn saturated(&self, measured_s: f64) -> Option<String> {
        if self.plan.is_closed_loop() {
            return None;
        }
        let lag = Latency::of(&self.sums.lag).p99;
        let latency = Latency::of(&self.sums.corrected).p99;
        let bound = HARMLESS_LAG_NS.max((latency as f64 * HARMLESS_SHARE) as u64);
        if lag > bound {
            return Some(format!(
                "messages left late: lag p99 {:.3} ms, above {:.3} ms",
                lag as f64 / 1e6,
                bound as f64 / 1e6
            ));
        }
        let wanted = self.plan.rate()? * measured_s;
        let sent = self.sums.counts.published as f64;
        let Counts {
            delayed,
            lost,
            connect_failed,
            ..
        } = self.sums.counts;
        let broker = delayed + lost + connect_failed > 0;
        let limited = self.plan.message_limit.is_some();
        (sent < wanted * ENOUGH && wanted >= 100.0 && !broker && !limited).then(|| {
            format!(
                "only {:.1} % of the wanted rate was sent",
                100.0 * sent / wanted
            )
        })
    }
}

/// Compares what was sent with what came.
fn verification(plan: &Plan, findings: &[Findings]) -> Verification {
    let mut sent = vec![0_u32; plan.publishers() as usize];
    let mut verification = Verification::default();
    for finding in findings {
        verification.corrupt += finding.corrupt;
        for &(publisher, count) in &finding.sent {
            if let Some(sent) = sent.get_mut(publisher as usize) {
                *sent = count;
            }
        }
    }
    let mut shared = vec![0_u64; sent.len()];
    for heard in findings.iter().flat_map(|finding| &finding.received) {
        let group = &plan.groups[heard.group];
        let Some(subscribing) = &group.subscribing else {
            continue;
        };
        if group.stops_reading {
            continue;
        }
        for (publisher, tracker) in &heard.trackers {
            tracker.add_to(&mut verification);
            match shared.get_mut(*publisher as usize) {
                Some(count) => *count += u64::from(tracker.delivered()),
                // Of another process: there are at least as many as the highest number says.
                None => verification.expected += u64::from(tracker.seen()),
            }
        }
        let Some(source) = subscribing.source.filter(|_| !subscribing.shared) else {
            continue;
        };
        let (first, publishers) = publishers_of(plan, source);
        for (sent, publisher) in sent[first..first + publishers].iter().zip(0_u32..) {
            let topics = plan.groups[source]
                .publishing
                .as_ref()
                .map_or(1, |publishing| publishing.topics);
            let hears = match subscribing.topics {
                Topics::All(_) => true,
                Topics::Own(own) => publisher % topics == heard.number % own,
            };
            verification.expected += u64::from(*sent) * u64::from(hears);
        }
    }
    if plan.groups.iter().any(|group| {
        group
            .subscribing
            .as_ref()
            .is_some_and(|subscribing| subscribing.shared)
    }) {
        // Each message reaches one member of the group; what several got is there too often.
        for (sent, count) in sent.iter().zip(&shared) {
            let sent = u64::from(*sent);
            verification.expected += sent;
            let twice = count.saturating_sub(sent);
            verification.delivered -= twice;
            verification.duplicates += twice;
        }
    }
    verification.lost = verification.expected.saturating_sub(verification.delivered);
    verification
}

/// The first publisher of a group and how many there are.
fn publishers_of(plan: &Plan, source: usize) -> (usize, usize) {
    let publishing = |group: &&crate::plan::Group| group.publishing.is_some();
    let first = plan.groups[..source]
        .iter()
        .filter(publishing)
        .map(|group| group.count as usize)
        .sum();
    (first, plan.groups[source].count as usize)
}

/// A time in UTC.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let mut day = days;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        day + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
