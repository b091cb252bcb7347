//! `.hgrm`: the percentile distribution in the text form that HdrHistogram's tools print and plot.
//! The crate has no writer for it. Values are in milliseconds, the unit that its plotter starts with.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %: what HdrHistogram's own tools take.
const TICKS: u32 = 5;

/// Nanoseconds of a millisecond.
const SCALE: f64 = 1e6;

/// The percentile distribution of `histogram`, which is of nanoseconds.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0_u64;
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let value = super::host::as_f64(step.value_iterated_to()) / SCALE;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:12.6} {quantile:.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]",
        histogram.mean() / SCALE,
        histogram.stdev() / SCALE
    );
    let _ = writeln!(
        text,
        "#[Max     = {:12.6}, Total count    = {:12}]",
        super::host::as_f64(histogram.max()) / SCALE,
        histogram.len()
    );
    let _ = writeln!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        sub_buckets(histogram.sigfig())
    );
    text
}

/// Linear steps of a bucket: the power of two that tells values of this many digits apart.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(u32::from(digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram;

    #[test]
    fn as_the_public_plotter_reads_it() {
        let mut values = histogram();
        for microseconds in 1..=4_u64 {
            values.record(microseconds * 1_000).unwrap();
        }
        let text = hgrm(&values);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines.first(),
            Some(&"       Value     Percentile TotalCount 1/(1-Percentile)")
        );
        assert_eq!(lines.get(1), Some(&""));
        assert_eq!(
            lines.get(2),
            Some(&"    0.001023 0.000000000000          1           1.00")
        );
        let last = lines.iter().rev().find(|line| !line.starts_with('#'));
        assert_eq!(last, Some(&"    0.004095 1.000000000000          4"));
        assert!(text.contains("#[Mean    =     0.002"), "{text}");
        assert!(text.contains("Total count    =            4]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
        // Every line's count grows, every percentile too.
        let mut before = (-1.0, 0);
        for line in lines.iter().skip(2).filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let now: (f64, u64) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
            assert!(now.0 > before.0 && now.1 >= before.1, "{line}");
            before = now;
        }
    }

    #[test]
    fn an_empty_histogram_has_no_lines() {
        let text = hgrm(&histogram());
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}
