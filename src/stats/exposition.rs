//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

use super::{Family, Histogram, Kind, Value};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// Microseconds as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0 as f64 / 1e6)
    }
}

impl Exposition {
    /// What was written.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    /// What comes before the samples of a family.
    pub fn header(&mut self, name: &str, type_name: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(
            self.text,
            "# HELP {name} {help}\n# TYPE {name} {type_name}\n"
        );
    }

    /// One number. Labels are written in the order given.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, content)) in labels.iter().enumerate() {
            let content = content
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{content}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// All families of some shards: of each the number of the shard and its values in the order of
    /// `families`.
    pub fn families(&mut self, families: &[Family], shards: &[(String, Vec<Value<'_>>)]) {
        for (index, family) in families.iter().enumerate() {
            self.header(family.name, family.kind.type_name(), &family.help_line());
            for (shard, values) in shards {
                match values.get(index) {
                    Some(Value::Numbers(numbers)) => self.numbers(family, shard, numbers),
                    Some(Value::Histogram(histogram)) => {
                        self.histogram(family.name, shard, histogram);
                    }
                    None => {}
                }
            }
        }
    }

    fn numbers(&mut self, family: &Family, shard: &str, numbers: &[u64]) {
        for (index, &number) in numbers.iter().enumerate() {
            let mut labels = vec![("shard", shard)];
            if let Some(label) = family.label
                && let Some(value) = label.values.get(index)
            {
                labels.push((label.name, value));
            }
            match family.kind {
                Kind::Seconds => self.sample(family.name, &labels, Seconds(number)),
                Kind::Counter | Kind::Gauge | Kind::Histogram => {
                    self.sample(family.name, &labels, number);
                }
            }
        }
    }

    fn histogram(&mut self, name: &str, shard: &str, histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (bound, below) in Histogram::BOUNDS_US.iter().zip(histogram.cumulative()) {
            let bound = Seconds(*bound).to_string();
            self.sample(&bucket, &[("shard", shard), ("le", &bound)], below);
        }
        let count = histogram.count();
        self.sample(&bucket, &[("shard", shard), ("le", "+Inf")], count);
        let labels = [("shard", shard)];
        self.sample(&format!("{name}_sum"), &labels, Seconds(histogram.sum_us()));
        self.sample(&format!("{name}_count"), &labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::measured;

    measured! {
        /// What a test counts.
        struct Tested {
            /// Things with a " and a \ in
            /// two lines.
            things: [u64; 2] = Counter "things_total" by "size" in ["small", "large"];
            /// How long it took.
            time: u64 = Seconds "time_seconds_total";
            /// How long each took.
            spread: Histogram = Histogram "spread_seconds";
        }
    }

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let mut tested = Tested {
            things: [1, 2],
            time: 1_500_000,
            ..Tested::default()
        };
        tested.spread.record(3, 1);
        let twice = tested;
        tested.add(&twice);
        let mut exposition = Exposition::default();
        exposition.families(Tested::FAMILIES, &[("0".to_owned(), tested.values())]);
        exposition.sample("x", &[("label", "a\"b\\c")], 1);
        let text = exposition.finish();
        let expected = "# HELP shardmq_things_total Things with a \" and a \\\\ in two lines.\n\
                        # TYPE shardmq_things_total counter\n\
                        shardmq_things_total{shard=\"0\",size=\"small\"} 2\n\
                        shardmq_things_total{shard=\"0\",size=\"large\"} 4\n\
                        # HELP shardmq_time_seconds_total How long it took.\n\
                        # TYPE shardmq_time_seconds_total counter\n\
                        shardmq_time_seconds_total{shard=\"0\"} 3\n";
        assert!(text.starts_with(expected), "{text}");
        for line in [
            "shardmq_spread_seconds_bucket{shard=\"0\",le=\"0.000001\"} 0",
            "shardmq_spread_seconds_bucket{shard=\"0\",le=\"0.000004\"} 2",
            "shardmq_spread_seconds_bucket{shard=\"0\",le=\"+Inf\"} 2",
            "shardmq_spread_seconds_sum{shard=\"0\"} 0.000006",
            "shardmq_spread_seconds_count{shard=\"0\"} 2",
            "x{label=\"a\\\"b\\\\c\"} 1",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line} in\n{text}"
            );
        }
    }
}
