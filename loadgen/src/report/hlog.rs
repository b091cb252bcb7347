//! `.hlog`: the histograms of every interval, in the log that HdrHistogram's tools read. One line for
//! each kind of latency that has values, told apart by its tag; nanoseconds inside, the column of the
//! maximum in milliseconds.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::measure::Outcome;

/// Writes the log of `outcome`. Time 0 of the log is the first interval's beginning.
pub(crate) fn write(outcome: &Outcome, out: &mut Vec<u8>) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let began = SystemTime::UNIX_EPOCH + since_epoch(&outcome.started).unwrap_or_default();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!(
            "[{} by shardmq-loadgen {}; nanoseconds]",
            outcome.name,
            env!("CARGO_PKG_VERSION")
        ))
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    let origin = outcome
        .intervals
        .first()
        .map_or(0.0, |interval| interval.at_s);
    for interval in &outcome.intervals {
        let start = seconds(interval.at_s - origin);
        let length = seconds(interval.length_s);
        for (name, histogram) in [
            ("corrected", &interval.corrected),
            ("raw", &interval.raw),
            ("acknowledgement", &interval.acknowledgement),
            ("connect", &interval.connect),
            ("lag", &interval.lag),
        ] {
            if !histogram.is_empty() {
                log.write_histogram(histogram, start, length, Tag::new(name))
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
        }
    }
    Ok(())
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or_default()
}

/// Time since 1970 of an RFC 3339 time in UTC, to the second.
fn since_epoch(text: &str) -> Option<Duration> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.split(['.', ':']).map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // The year begins in March here, so that the leap day is its last one and the lengths of the
    // months before it follow a line.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days_before_1970 = 719_468;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day
        - 1
        - days_before_1970;
    u64::try_from(((days * 24 + hour) * 60 + minute) * 60 + second)
        .ok()
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use base64::Engine as _;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_crates_own_reader_reads_it_back() {
        let outcome = samples::outcome();
        let mut bytes = Vec::new();
        write(&outcome, &mut bytes).unwrap();

        let mut corrected = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            let LogEntry::Interval(entry) = entry.unwrap() else {
                continue;
            };
            if entry.tag().is_some_and(|tag| tag.as_str() == "corrected") {
                let encoded = base64::engine::general_purpose::STANDARD
                    .decode(entry.encoded_histogram())
                    .unwrap();
                let histogram: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut encoded.as_slice())
                    .unwrap();
                corrected.push((entry.start_timestamp(), histogram));
            }
        }
        let filled: Vec<_> = outcome
            .intervals
            .iter()
            .filter(|interval| !interval.corrected.is_empty())
            .collect();
        assert!(!filled.is_empty());
        assert_eq!(corrected.len(), filled.len());
        let origin = outcome.intervals[0].at_s;
        for ((start, read), interval) in corrected.iter().zip(filled) {
            assert_eq!(read, &interval.corrected);
            assert_eq!(start.as_secs_f64(), interval.at_s - origin);
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("#[StartTime: 1795305600"), "{text:.300}");
    }

    #[test]
    fn times_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:15Z", 951_827_415),
            ("2026-11-22T00:00:00.250Z", 1_795_305_600),
        ] {
            assert_eq!(since_epoch(text), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(since_epoch("yesterday"), None);
        assert_eq!(since_epoch("2026-13-01T00:00:00Z"), None);
    }
}
