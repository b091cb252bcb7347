//! A run that nobody measured, for the tests of the outputs: small, complete, always the same.

use hdrhistogram::Histogram;

use crate::measure::{Counts, Figure, Interval, Outcome, Process, Verification, histogram};

/// Twelve seconds of 20,000 messages per second, two of them warm-up, with a stall in the eighth.
pub(crate) fn outcome() -> Outcome {
    let intervals: Vec<Interval> = (0..12_u32).map(interval).collect();
    let measured = || intervals.iter().filter(|interval| interval.at_s >= 0.0);
    let merged = |pick: fn(&Interval) -> &Histogram<u64>| {
        let mut all = histogram();
        for interval in measured() {
            all.add(pick(interval)).unwrap();
        }
        all
    };
    let mut counts = Counts {
        connects_started: 2_000,
        connected: 2_000,
        open: 2_000,
        subscribed: 1_000,
        ..Counts::default()
    };
    for interval in measured() {
        counts.published += interval.counts.published;
        counts.acknowledged += interval.counts.acknowledged;
        counts.received += interval.counts.received;
        counts.bytes_sent += interval.counts.bytes_sent;
        counts.bytes_received += interval.counts.bytes_received;
    }
    Outcome {
        parameters: vec![
            ("host".to_owned(), "127.0.0.1".to_owned()),
            ("port".to_owned(), "1883".to_owned()),
            ("connections".to_owned(), "2000".to_owned()),
            ("rate".to_owned(), "20000".to_owned()),
            ("qos".to_owned(), "1".to_owned()),
            ("payload".to_owned(), "64".to_owned()),
        ],
        name: "paced-2000".to_owned(),
        started: "2026-11-22T00:00:00Z".to_owned(),
        measured_s: 10.0,
        corrected: merged(|interval| &interval.corrected),
        raw: merged(|interval| &interval.raw),
        acknowledgement: merged(|interval| &interval.acknowledgement),
        connect: {
            let mut all = histogram();
            for client in 0..2_000_u64 {
                all.record(400_000 + client * 700).unwrap();
            }
            all
        },
        lag: merged(|interval| &interval.lag),
        intervals,
        counts,
        verification: Some(Verification {
            expected: counts.published,
            delivered: counts.published,
            ..Verification::default()
        }),
        saturated: None,
        closed_loop: false,
        errors: Vec::new(),
        driver: "io_uring".to_owned(),
        process: Some(Process {
            pid: 4_321,
            user_ns: 180_000_000,
            system_ns: 420_000_000,
            rss_before: 6_000_000,
            rss_after: 9_000_000,
            syscalls: None,
            context_switches: 61_000,
        }),
        figures: vec![Figure {
            name: "reconnect p99".to_owned(),
            value: 12.5,
            unit: "ms".to_owned(),
        }],
    }
}

/// The same run gone wrong: saturated, with losses and errors.
pub(crate) fn failed() -> Outcome {
    let mut outcome = outcome();
    outcome.saturated = Some("lag p99 was 12.4 ms, more than the 1 ms allowed".to_owned());
    outcome.counts.lost = 3;
    outcome.verification = Some(Verification {
        expected: 200_000,
        delivered: 199_995,
        lost: 5,
        duplicates: 2,
        reordered: 1,
        corrupt: 0,
    });
    outcome.errors = vec![("connection reset by <peer> & gone".to_owned(), 3)];
    outcome
}

fn interval(second: u32) -> Interval {
    let stall = second == 9;
    let (mut corrected, mut raw) = (histogram(), histogram());
    let (mut acknowledgement, mut lag) = (histogram(), histogram());
    for message in 0..2_000_u64 {
        // A long tail: the last of a thousand are about a hundred times the first.
        let rank = message % 1_000;
        let nanoseconds = 60_000 + 120 * rank + 9_000_000 / (1_001 - rank);
        raw.record_n(nanoseconds, 10).unwrap();
        let waited = if stall { message * 20_000 } else { 0 };
        corrected.record_n(nanoseconds + waited, 10).unwrap();
        acknowledgement.record_n(nanoseconds / 2, 10).unwrap();
        lag.record_n(1_000 + rank * 20 + waited, 10).unwrap();
    }
    let sent = if stall { 14_000 } else { 20_000 };
    Interval {
        at_s: f64::from(second) - 2.0,
        length_s: 1.0,
        counts: Counts {
            connects_started: if second == 0 { 2_000 } else { 0 },
            connected: if second == 0 { 2_000 } else { 0 },
            open: 2_000,
            published: sent,
            acknowledged: sent,
            received: sent,
            delayed: if stall { 6_000 } else { 0 },
            bytes_sent: sent * 80,
            bytes_received: sent * 84,
            ..Counts::default()
        },
        corrected,
        raw,
        acknowledgement,
        connect: histogram(),
        lag,
        generator_cpu: 0.31 + f64::from(second) / 200.0,
        broker_cpu: Some(if stall { 0.02 } else { 0.06 }),
        broker_rss: Some(9_000_000),
    }
}

/// Compares `text` with the file of this name in `golden/`, or writes it there if `BLESS` is set.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/report/golden")
        .join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}
