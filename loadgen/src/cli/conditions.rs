//! What a run must reach: `p99<5ms,loss=0`.

use std::str::FromStr;

use hdrhistogram::Histogram;

use crate::measure::Outcome;

use super::units;

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions(Vec<Condition>);

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    text: String,
    figure: String,
    comparison: Comparison,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
}

/// Counts and rates that can be asked for; times are `p50`, `p99.9`, `mean`, `max`, and the same
/// behind `raw-`, `ack-`, `connect-` and `lag-`.
pub const FIGURES: &str = "loss, duplicates, reordered, corrupt, errors, refused, lost, failed, \
     connected, sent (per second), received (per second), and of latencies mean, max, p50, p90, \
     p99, p99.9, .. with raw-, ack-, connect- or lag- before it for another than the corrected one";

impl FromStr for Conditions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(condition)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let at = text
        .find(['<', '>', '='])
        .ok_or_else(|| format!("{text:?} compares nothing: write for example p99<5ms"))?;
    let (figure, rest) = text.split_at(at);
    let figure = figure.trim().to_owned();
    let (comparison, width) = match rest.as_bytes() {
        [b'<', b'=', ..] => (Comparison::LessOrEqual, 2),
        [b'>', b'=', ..] => (Comparison::MoreOrEqual, 2),
        [b'=', b'=', ..] => (Comparison::Equal, 2),
        [b'<', ..] => (Comparison::Less, 1),
        [b'>', ..] => (Comparison::More, 1),
        _ => (Comparison::Equal, 1),
    };
    let value = &rest[width..];
    let bound = if time_of(&figure).is_some() {
        units::duration(value)?.as_nanos() as f64
    } else if is_count(&figure) {
        units::number(value.strip_suffix("/s").unwrap_or(value))?
    } else {
        return Err(format!("{figure:?} is not known. There are {FIGURES}"));
    };
    Ok(Condition {
        text: text.trim().to_owned(),
        figure,
        comparison,
        bound,
    })
}

fn is_count(figure: &str) -> bool {
    matches!(
        figure,
        "loss"
            | "duplicates"
            | "reordered"
            | "corrupt"
            | "errors"
            | "refused"
            | "lost"
            | "failed"
            | "connected"
            | "sent"
            | "received"
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Mean,
    Max,
    Quantile(f64),
}

/// Which histogram, and what of it.
fn time_of(figure: &str) -> Option<(&str, Statistic)> {
    let (histogram, statistic) = figure.split_once('-').unwrap_or(("", figure));
    if !matches!(histogram, "" | "raw" | "ack" | "connect" | "lag") {
        return None;
    }
    let statistic = match statistic {
        "mean" => Statistic::Mean,
        "max" => Statistic::Max,
        _ => Statistic::Quantile(quantile(statistic.strip_prefix('p')?)?),
    };
    Some((histogram, statistic))
}

/// `99.9` and `999` are the same percentile, as are `50` and `50.0`.
fn quantile(text: &str) -> Option<f64> {
    let percent = if text.contains('.') || text.len() <= 2 {
        text.parse::<f64>().ok()?
    } else {
        format!("{}.{}", text.get(..2)?, text.get(2..)?)
            .parse()
            .ok()?
    };
    // Rounded, so that 99.99 is the number 0.9999 and not the one beside it.
    (0.0..=100.0)
        .contains(&percent)
        .then(|| (percent * 1e6).round() / 1e8)
}

impl Conditions {
    /// Whether some condition needs `--verify`.
    #[must_use]
    pub fn need_verification(&self) -> bool {
        let of_verification = |condition: &Condition| {
            matches!(
                condition.figure.as_str(),
                "loss" | "duplicates" | "reordered" | "corrupt"
            )
        };
        self.0.iter().any(of_verification)
    }

    /// The conditions that do not hold, each with what was found in its place.
    #[must_use]
    pub fn broken(&self, outcome: &Outcome) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|condition| condition.broken(outcome))
            .collect()
    }
}

impl Condition {
    fn broken(&self, outcome: &Outcome) -> Option<String> {
        let Some(value) = self.value(outcome) else {
            return Some(format!("{}: nothing was measured", self.text));
        };
        let holds = match self.comparison {
            Comparison::Less => value < self.bound,
            Comparison::LessOrEqual => value <= self.bound,
            Comparison::More => value > self.bound,
            Comparison::MoreOrEqual => value >= self.bound,
            Comparison::Equal => (value - self.bound).abs() < 0.5,
        };
        let shown = if time_of(&self.figure).is_some() {
            format!("{:.3} ms", value / 1e6)
        } else {
            format!("{value}")
        };
        (!holds).then(|| format!("{}: {shown}", self.text))
    }

    fn value(&self, outcome: &Outcome) -> Option<f64> {
        if let Some((histogram, statistic)) = time_of(&self.figure) {
            let histogram = match histogram {
                "raw" => &outcome.raw,
                "ack" => &outcome.acknowledgement,
                "connect" => &outcome.connect,
                "lag" => &outcome.lag,
                _ => &outcome.corrected,
            };
            return time(histogram, statistic);
        }
        let verified = |count: fn(&crate::measure::Verification) -> u64| {
            outcome
                .verification
                .as_ref()
                .map(|verification| count(verification) as f64)
        };
        let per_second = |count: u64| count as f64 / outcome.measured_s.max(1e-9);
        match self.figure.as_str() {
            "loss" => verified(|verification| verification.lost),
            "duplicates" => verified(|verification| verification.duplicates),
            "reordered" => verified(|verification| verification.reordered),
            "corrupt" => verified(|verification| verification.corrupt),
            "errors" => Some(outcome.errors.iter().map(|(_, count)| *count as f64).sum()),
            "refused" => Some(outcome.counts.refused as f64),
            "lost" => Some(outcome.counts.lost as f64),
            "failed" => Some(outcome.counts.connect_failed as f64),
            "connected" => Some(outcome.counts.connected as f64),
            "sent" => Some(per_second(outcome.counts.published)),
            "received" => Some(per_second(outcome.counts.received)),
            _ => None,
        }
    }
}

fn time(histogram: &Histogram<u64>, statistic: Statistic) -> Option<f64> {
    if histogram.is_empty() {
        return None;
    }
    Some(match statistic {
        Statistic::Mean => histogram.mean(),
        Statistic::Max => histogram.max() as f64,
        Statistic::Quantile(quantile) => histogram.value_at_quantile(quantile) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_may_be_written_with_and_without_their_point() {
        let of = |figure| time_of(figure).map(|time| time.1);
        assert_eq!(of("p99"), Some(Statistic::Quantile(0.99)));
        assert_eq!(of("p50"), Some(Statistic::Quantile(0.5)));
        assert_eq!(of("p99.9"), of("p999"));
        assert_eq!(
            time_of("raw-p99.99"),
            Some(("raw", Statistic::Quantile(0.9999)))
        );
        assert_eq!(of("p"), None);
        assert_eq!(of("lost"), None);
        assert_eq!(time_of("other-p99"), None);
    }

    #[test]
    fn conditions_are_read_whole_or_refused() {
        let conditions: Conditions = "p99<5ms,loss=0,received>=10k/s".parse().unwrap();
        assert_eq!(conditions.0.len(), 3);
        assert!(conditions.need_verification());
        assert!((conditions.0[0].bound - 5e6).abs() < 1e-9);
        assert!(!"p99<5ms".parse::<Conditions>().unwrap().need_verification());
        for wrong in [
            "",
            "p99",
            "p99<",
            "p99<5kg",
            "speed>3",
            "loss=none",
            "p99<5ms,",
        ] {
            assert!(wrong.parse::<Conditions>().is_err(), "{wrong}");
        }
    }
}
