//! `series.csv`: one row for each interval, and the one-row summary of `--format csv`. Columns are
//! only ever added, at the end. An empty cell is a value that was not measured.

use super::document::{Document, Latencies, Row};
use crate::measure::Latency;

/// Columns of `series.csv`.
///
/// `at_s` is the beginning of the interval in seconds since the measured phase began, negative in
/// ramp and warm-up. Rates are of the interval. `open` is the number of open connections at its end.
/// Latencies are in nanoseconds. CPU is in cores.
pub const SERIES_COLUMNS: &[&str] = &[
    "at_s",
    "length_s",
    "published_per_s",
    "acknowledged_per_s",
    "received_per_s",
    "bytes_sent_per_s",
    "bytes_received_per_s",
    "open",
    "connected",
    "connect_failed",
    "lost_connections",
    "refused",
    "delayed",
    "corrected_p50_ns",
    "corrected_p90_ns",
    "corrected_p99_ns",
    "corrected_p999_ns",
    "corrected_max_ns",
    "raw_p50_ns",
    "raw_p90_ns",
    "raw_p99_ns",
    "raw_p999_ns",
    "raw_max_ns",
    "ack_p50_ns",
    "ack_p90_ns",
    "ack_p99_ns",
    "ack_p999_ns",
    "ack_max_ns",
    "connect_p50_ns",
    "connect_p90_ns",
    "connect_p99_ns",
    "connect_p999_ns",
    "connect_max_ns",
    "lag_p50_ns",
    "lag_p90_ns",
    "lag_p99_ns",
    "lag_p999_ns",
    "lag_max_ns",
    "generator_cpu",
    "broker_cpu",
    "broker_rss_bytes",
];

/// Columns of `--format csv`.
pub const SUMMARY_COLUMNS: &[&str] = &[
    "name",
    "started",
    "measured_s",
    "driver",
    "closed_loop",
    "saturated",
    "published",
    "acknowledged",
    "received",
    "published_per_s",
    "acknowledged_per_s",
    "received_per_s",
    "connected",
    "connect_failed",
    "lost_connections",
    "open",
    "corrected_p50_ns",
    "corrected_p90_ns",
    "corrected_p99_ns",
    "corrected_p999_ns",
    "corrected_max_ns",
    "raw_p50_ns",
    "raw_p90_ns",
    "raw_p99_ns",
    "raw_p999_ns",
    "raw_max_ns",
    "ack_p50_ns",
    "ack_p90_ns",
    "ack_p99_ns",
    "ack_p999_ns",
    "ack_max_ns",
    "connect_p50_ns",
    "connect_p90_ns",
    "connect_p99_ns",
    "connect_p999_ns",
    "connect_max_ns",
    "lag_p50_ns",
    "lag_p90_ns",
    "lag_p99_ns",
    "lag_p999_ns",
    "lag_max_ns",
    "verified_lost",
    "verified_duplicates",
    "verified_reordered",
    "verified_corrupt",
    "broker_cpu_ns_per_message",
    "broker_rss_bytes",
];

/// `series.csv`.
pub(crate) fn series(document: &Document) -> String {
    let mut text = line(SERIES_COLUMNS.iter().map(|column| (*column).to_owned()));
    for row in &document.intervals {
        text += &line(cells(row).into_iter());
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let counts = &row.counts;
    let mut cells = vec![format!("{:.3}", row.at_s), format!("{:.3}", row.length_s)];
    cells.extend(
        [
            counts.published,
            counts.acknowledged,
            counts.received,
            counts.bytes_sent,
            counts.bytes_received,
        ]
        .map(|count| format!("{:.1}", row.per_second(count))),
    );
    cells.extend(
        [
            counts.open,
            counts.connected,
            counts.connect_failed,
            counts.lost,
            counts.refused,
            counts.delayed,
        ]
        .map(|count| count.to_string()),
    );
    cells.extend(latencies(&row.latency_ns));
    cells.push(format!("{:.4}", row.generator_cpu));
    cells.push(optional(row.broker_cpu.map(|cores| format!("{cores:.4}"))));
    cells.push(optional(row.broker_rss.map(|bytes| bytes.to_string())));
    cells
}

fn latencies(latencies: &Latencies) -> impl Iterator<Item = String> {
    [
        latencies.corrected,
        latencies.raw,
        latencies.acknowledgement,
        latencies.connect,
        latencies.lag,
    ]
    .into_iter()
    .flat_map(percentiles)
}

fn percentiles(latency: Latency) -> [String; 5] {
    [
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.max,
    ]
    .map(|value| {
        if latency.count == 0 {
            String::new()
        } else {
            value.to_string()
        }
    })
}

/// The summary of a run: a header and a row.
pub(crate) fn summary(document: &Document) -> String {
    let counts = &document.counts;
    let mut cells = vec![
        quoted(&document.name),
        quoted(&document.started),
        format!("{:.3}", document.measured_s),
        quoted(&document.generator.driver),
        document.closed_loop.to_string(),
        document.saturated.is_some().to_string(),
    ];
    cells.extend([counts.published, counts.acknowledged, counts.received].map(|c| c.to_string()));
    let rates = &document.per_second;
    cells.extend(
        [rates.published, rates.acknowledged, rates.received].map(|rate| format!("{rate:.1}")),
    );
    cells.extend(
        [
            counts.connected,
            counts.connect_failed,
            counts.lost,
            counts.open,
        ]
        .map(|count| count.to_string()),
    );
    cells.extend(latencies(&document.latency_ns));
    cells.extend(match document.verification {
        Some(v) => [v.lost, v.duplicates, v.reordered, v.corrupt].map(|count| count.to_string()),
        None => Default::default(),
    });
    let broker = document.broker.as_ref();
    cells.push(optional(
        broker
            .and_then(|broker| broker.cpu_ns_per_message)
            .map(|cost| format!("{cost:.1}")),
    ));
    cells.push(optional(
        broker.map(|broker| broker.process.rss_after.to_string()),
    ));
    let mut text = line(SUMMARY_COLUMNS.iter().map(|column| (*column).to_owned()));
    text += &line(cells.into_iter());
    text
}

fn optional(cell: Option<String>) -> String {
    cell.unwrap_or_default()
}

/// RFC 4180: a cell with a separator, a quote or a line's end in it stands in quotes.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let mut text = cells.collect::<Vec<_>>().join(",");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::host::Host;
    use crate::report::samples;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let document = Document::new(&samples::outcome(), Host::default());
        let text = series(&document);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + document.intervals.len());
        for line in &lines {
            assert_eq!(line.split(',').count(), SERIES_COLUMNS.len(), "{line}");
        }
        assert_eq!(
            lines[10],
            "7.000,1.000,14000.0,14000.0,14000.0,1120000.0,1176000.0,2000,0,0,0,0,6000,\
             20381695,36208639,40173567,42401791,44662783,138239,256511,928767,3180543,4681727,\
             69119,128511,464383,1590271,2340863,,,,,,20004863,36012031,39616511,39976959,\
             40009727,0.3550,0.0200,9000000"
        );
    }

    #[test]
    fn the_summary_is_one_row() {
        let mut outcome = samples::failed();
        outcome.name = "a,\"b\"".to_owned();
        let text = summary(&Document::new(&outcome, Host::default()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        let row = lines[1].strip_prefix("\"a,\"\"b\"\"\",").unwrap();
        assert_eq!(row.split(',').count() + 1, SUMMARY_COLUMNS.len());
        assert!(row.starts_with("2026-11-22T00:00:00Z,10.000,io_uring,false,true,194000,"));
        assert!(row.ends_with(",5,2,1,0,3092.8,9000000"), "{row}");
    }
}
