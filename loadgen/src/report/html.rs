//! `report.html`: one file without anything from elsewhere, no script.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::document::{Document, Row};
use super::host::as_f64;
use super::plot::{Axis, Line, Plot, Scale, Unit, escape};
use super::units::{bytes, count, nanoseconds, si, three_digits};
use crate::measure::Latency;

/// The style of every page.
pub(crate) const STYLE: &str = include_str!("style.css");

const TIME: Axis = Axis {
    scale: Scale::Linear,
    unit: Unit::Seconds,
    name: "seconds of the measured phase",
};

/// The page of `document`.
pub(crate) fn html(document: &Document) -> String {
    let mut out = page_head(&format!("{} · ShardMQ load generator", document.name));
    header(&mut out, document);
    banners(&mut out, document);
    tiles(&mut out, document);
    out += "<h2>Over time</h2><div class=\"plots\">\n";
    for plot in plots_over_time(document) {
        out += &plot.html();
    }
    out += "</div>\n";
    let spectrum = spectrum(document);
    if !spectrum.lines.is_empty() {
        out += "<h2>Latency</h2><div class=\"plots\">";
        out += &spectrum.html();
        out += "</div>\n";
    }
    latency_table(&mut out, document);
    tables(&mut out, document);
    let _ = write!(
        out,
        "<footer>Made by shardmq-loadgen {} from result.json, format {}. Beside it: series.csv \
         (every interval), .hgrm (percentile distributions), intervals.hlog (every interval's \
         histograms).</footer>",
        escape(&document.generator.version),
        document.format
    );
    out += PAGE_TAIL;
    out
}

/// From the doctype to the opened `main`.
pub(crate) fn page_head(title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>\n{STYLE}</style></head><body><main>\n",
        escape(title)
    )
}

/// What ends the page.
pub(crate) const PAGE_TAIL: &str = "</main></body></html>\n";

fn header(out: &mut String, document: &Document) {
    let _ = writeln!(
        out,
        "<header><h1>{}</h1><div class=\"sub\"><span>{} loop</span><span>{} s measured</span>\
         <span>{}</span><span>driver {}</span><span>{}</span></div></header>",
        escape(&document.name),
        if document.closed_loop {
            "closed"
        } else {
            "open"
        },
        three_digits(document.measured_s),
        escape(&document.started),
        escape(&document.generator.driver),
        escape(&document.host.cpu),
    );
}

fn banners(out: &mut String, document: &Document) {
    if let Some(why) = &document.saturated {
        let _ = write!(
            out,
            "<div class=\"banner\" id=\"saturated\"><strong>GENERATOR SATURATED</strong> {}<p>\
             The latencies below are the generator's own, not the broker's. Lower the rate, or give \
             the generator more shards or another machine.</p></div>",
            escape(why)
        );
    }
    if let Some(found) = document.broken_promises() {
        let _ = write!(
            out,
            "<div class=\"banner\" id=\"verification-failed\"><strong>VERIFICATION FAILED</strong> \
             {} of {} expected deliveries lost, {} duplicates, {} reordered, {} corrupt</div>",
            count(found.lost),
            count(found.expected),
            count(found.duplicates),
            count(found.reordered),
            count(found.corrupt)
        );
    }
    if document.closed_loop {
        *out += "<p class=\"muted\">A closed loop waits for the broker: its latencies hide the \
                 messages that were not sent meanwhile.</p>";
    }
}

/// A figure that is read first. `value` is HTML.
fn tile(out: &mut String, name: &str, value: &str) {
    let _ = write!(
        out,
        "<dl class=\"card tile\"><dt>{}</dt><dd>{value}</dd></dl>",
        escape(name)
    );
}

fn tiles(out: &mut String, document: &Document) {
    *out += "<div class=\"tiles\">";
    let rates = &document.per_second;
    if document.counts.published > 0 {
        tile(out, "Published", &per_second(rates.published));
    }
    if document.counts.received > 0 {
        tile(out, "Received", &per_second(rates.received));
    }
    let (name, latency) = main_latency(document);
    if latency.count > 0 {
        for (percentile, value) in [
            ("p50", latency.p50),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ] {
            tile(
                out,
                &format!("{name} {percentile}"),
                &nanoseconds(as_f64(value)),
            );
        }
    }
    if let Some(broker) = &document.broker {
        if let Some(cost) = broker.cpu_ns_per_message {
            tile(out, "Broker CPU per message", &nanoseconds(cost));
        }
        if let Some(each) = broker.bytes_per_connection {
            tile(out, "Broker memory per connection", &bytes(each));
        }
    }
    if let Some(found) = &document.verification {
        let class = if found.lost > 0 { "bad" } else { "good" };
        let value = format!("<span class=\"{class}\">{}</span>", count(found.lost));
        tile(out, "Messages lost", &value);
    }
    *out += "</div>\n";
}

fn per_second(rate: f64) -> String {
    format!("{}<small> /s</small>", si(rate))
}

/// The latency that the run is about, and its name.
fn main_latency(document: &Document) -> (&'static str, &Latency) {
    let kinds = &document.latency_ns;
    if kinds.corrected.count > 0 {
        ("Latency", &kinds.corrected)
    } else if kinds.acknowledgement.count > 0 {
        ("Acknowledgement", &kinds.acknowledgement)
    } else {
        ("Connect", &kinds.connect)
    }
}

fn plots_over_time(document: &Document) -> Vec<Plot> {
    let rows = &document.intervals;
    let rate = |pick: fn(&Row) -> u64| move |row: &Row| Some(row.per_second(pick(row)));
    let mut plots = vec![
        Plot {
            id: "throughput",
            title: "Throughput",
            wide: false,
            x: TIME,
            y: linear(Unit::Plain("/s")),
            lines: lines([
                line("published", 0, rows, rate(|row| row.counts.published)),
                line("received", 1, rows, rate(|row| row.counts.received)),
            ]),
        },
        percentiles("latency", "Latency, corrected", rows, |row| {
            &row.latency_ns.corrected
        }),
        percentiles(
            "acknowledgement",
            "From PUBLISH to its acknowledgement",
            rows,
            |row| &row.latency_ns.acknowledgement,
        ),
        percentiles("connect", "From the SYN to the CONNACK", rows, |row| {
            &row.latency_ns.connect
        }),
        percentiles(
            "lag",
            "Schedule lag: how late the generator sent",
            rows,
            |row| &row.latency_ns.lag,
        ),
        Plot {
            id: "cpu",
            title: "CPU",
            wide: false,
            x: TIME,
            y: linear(Unit::Plain("")),
            lines: lines([
                line("generator, cores", 0, rows, |row| Some(row.generator_cpu)),
                line("broker, cores", 2, rows, |row| row.broker_cpu),
            ]),
        },
        Plot {
            id: "connections",
            title: "Connections",
            wide: false,
            x: TIME,
            y: linear(Unit::Plain("")),
            lines: lines([
                line("open", 4, rows, |row| Some(as_f64(row.counts.open))),
                line("made in the interval", 1, rows, |row| {
                    Some(as_f64(row.counts.connected))
                }),
                line("lost in the interval", 3, rows, |row| {
                    Some(as_f64(row.counts.lost))
                }),
            ]),
        },
        Plot {
            id: "memory",
            title: "Broker memory, resident",
            wide: false,
            x: TIME,
            y: linear(Unit::Bytes),
            lines: lines([line("resident", 6, rows, |row| row.broker_rss.map(as_f64))]),
        },
    ];
    plots.retain(|plot| !plot.lines.is_empty());
    plots
}

fn linear(unit: Unit) -> Axis {
    Axis {
        scale: Scale::Linear,
        unit,
        name: "",
    }
}

const NANOSECONDS: Axis = Axis {
    scale: Scale::Log,
    unit: Unit::Nanoseconds,
    name: "",
};

fn line(name: &str, colour: usize, rows: &[Row], pick: impl Fn(&Row) -> Option<f64>) -> Line {
    Line {
        name: name.to_owned(),
        colour,
        dashed: false,
        points: rows
            .iter()
            .filter_map(|row| Some((row.at_s + row.length_s, pick(row)?)))
            .collect(),
    }
}

/// Those that show something.
fn lines<const N: usize>(lines: [Line; N]) -> Vec<Line> {
    lines
        .into_iter()
        .filter(|line| line.points.iter().any(|point| point.1 > 0.0))
        .collect()
}

fn percentiles(
    id: &'static str,
    title: &'static str,
    rows: &[Row],
    pick: fn(&Row) -> &Latency,
) -> Plot {
    let one = |name, colour, value: fn(&Latency) -> u64| {
        line(name, colour, rows, move |row| {
            let latency = pick(row);
            (latency.count > 0).then(|| as_f64(value(latency)))
        })
    };
    Plot {
        id,
        title,
        wide: false,
        x: TIME,
        y: NANOSECONDS,
        lines: lines([
            one("p50", 0, |latency| latency.p50),
            one("p90", 1, |latency| latency.p90),
            one("p99", 2, |latency| latency.p99),
            one("p99.9", 4, |latency| latency.p999),
            one("max", 3, |latency| latency.max),
        ]),
    }
}

fn spectrum(document: &Document) -> Plot {
    let colours = [0, 5, 1, 2, 3];
    let lines = document
        .histograms
        .filled()
        .zip(colours)
        .map(|((name, histogram), colour)| Line {
            name: name.to_owned(),
            colour,
            dashed: name == "raw",
            points: spectrum_points(histogram),
        })
        .collect();
    spectrum_plot("spectrum", lines)
}

/// A percentile spectrum of `lines`.
pub(crate) fn spectrum_plot(id: &'static str, lines: Vec<Line>) -> Plot {
    Plot {
        id,
        title: "Percentile spectrum",
        wide: true,
        x: Axis {
            scale: Scale::Percentile,
            unit: Unit::Plain(""),
            name: "percentile, by 1 / (1 − p)",
        },
        y: NANOSECONDS,
        lines,
    }
}

/// `(1 / (1 - p), value)` for the whole of `histogram`; the largest value stands where one message
/// of all would.
pub(crate) fn spectrum_points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = as_f64(histogram.len()).max(1.0);
    let mut points: Vec<(f64, f64)> = Vec::new();
    for step in histogram.iter_quantiles(8) {
        let left = 1.0 - step.quantile_iterated_to();
        let x = if left > 0.0 {
            (1.0 / left).min(end)
        } else {
            end
        };
        points.push((x, as_f64(step.value_iterated_to().max(1))));
    }
    points
}

fn latency_table(out: &mut String, document: &Document) {
    let kinds = &document.latency_ns;
    *out += "<div class=\"card scroll\" style=\"margin-top:14px\"><table id=\"latencies\"><thead>\
             <tr><th></th>";
    for name in [
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "mean",
        "std. dev.",
        "count",
    ] {
        let _ = write!(out, "<th class=\"n\">{name}</th>");
    }
    *out += "</tr></thead><tbody>";
    for (name, latency) in [
        ("End to end, corrected", &kinds.corrected),
        ("End to end, raw", &kinds.raw),
        ("Acknowledgement", &kinds.acknowledgement),
        ("Connect", &kinds.connect),
        ("Schedule lag", &kinds.lag),
    ] {
        if latency.count == 0 {
            continue;
        }
        let _ = write!(out, "<tr><th>{name}</th>");
        for value in [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.p9999,
            latency.max,
        ] {
            let _ = write!(out, "<td class=\"n\">{}</td>", nanoseconds(as_f64(value)));
        }
        let _ = write!(
            out,
            "<td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            nanoseconds(latency.mean),
            nanoseconds(latency.stdev),
            count(latency.count)
        );
    }
    *out += "</tbody></table></div>\n";
    *out += "<p class=\"muted\">Corrected: from the time at which the schedule wanted the message \
             to be sent. Raw: from the time at which it was handed to the kernel.</p>\n";
}

fn tables(out: &mut String, document: &Document) {
    *out += "<h2>Details</h2><div class=\"tables\">\n";
    let parameters = document
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()));
    table(out, "parameters", "Parameters", parameters);
    table(out, "counts", "Counts", counts(document).into_iter());
    if document.broker.is_some() {
        table(
            out,
            "broker",
            "Broker process",
            broker(document).into_iter(),
        );
    }
    if let Some(v) = &document.verification {
        let rows = [
            ("Expected deliveries", v.expected),
            ("Delivered", v.delivered),
            ("Lost", v.lost),
            ("Duplicates", v.duplicates),
            ("Reordered", v.reordered),
            ("Corrupt", v.corrupt),
        ];
        table(
            out,
            "verification",
            "Verification",
            rows.into_iter().map(|(name, value)| (name, count(value))),
        );
    }
    if !document.figures.is_empty() {
        let rows = document.figures.iter().map(|figure| {
            let value = format!("{} {}", three_digits(figure.value), figure.unit);
            (figure.name.as_str(), value)
        });
        table(out, "figures", "Figures of the scenario", rows);
    }
    if !document.errors.is_empty() {
        let rows = document
            .errors
            .iter()
            .map(|failure| (failure.text.as_str(), count(failure.count)));
        table(out, "errors", "Errors", rows);
    }
    table(out, "host", "Machine", document.host.rows().into_iter());
    *out += "</div>\n";
}

/// A table of names and values.
pub(crate) fn table<'a>(
    out: &mut String,
    id: &str,
    caption: &str,
    rows: impl Iterator<Item = (&'a str, String)>,
) {
    let _ = write!(
        out,
        "<div class=\"card scroll\"><table id=\"{id}\"><caption>{caption}</caption><tbody>"
    );
    for (name, value) in rows {
        let _ = write!(
            out,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(&value)
        );
    }
    *out += "</tbody></table></div>\n";
}

fn counts(document: &Document) -> Vec<(&'static str, String)> {
    let counts = &document.counts;
    [
        ("Published", counts.published),
        ("Acknowledged", counts.acknowledged),
        ("Received", counts.received),
        ("Refused by reason code", counts.refused),
        ("Sent late, window full", counts.delayed),
        ("Bytes sent", counts.bytes_sent),
        ("Bytes received", counts.bytes_received),
        ("Connections begun", counts.connects_started),
        ("Connections made", counts.connected),
        ("Connections failed", counts.connect_failed),
        ("Connections lost", counts.lost),
        ("Connections open at the end", counts.open),
        ("Subscriptions", counts.subscribed),
    ]
    .map(|(name, value)| (name, count(value)))
    .to_vec()
}

fn broker(document: &Document) -> Vec<(&'static str, String)> {
    let Some(broker) = &document.broker else {
        return Vec::new();
    };
    let process = &broker.process;
    let optional =
        |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "–".to_owned(), show);
    vec![
        ("Pid", process.pid.to_string()),
        ("CPU, user", nanoseconds(as_f64(process.user_ns))),
        ("CPU, system", nanoseconds(as_f64(process.system_ns))),
        ("CPU, cores", three_digits(broker.cores)),
        ("Messages", count(broker.messages)),
        (
            "CPU per message",
            optional(broker.cpu_ns_per_message, nanoseconds),
        ),
        (
            "System calls per message",
            optional(broker.syscalls_per_message, three_digits),
        ),
        (
            "Context switches per message",
            optional(broker.context_switches_per_message, three_digits),
        ),
        ("Memory before", bytes(as_f64(process.rss_before))),
        ("Memory after", bytes(as_f64(process.rss_after))),
        (
            "Memory per connection",
            optional(broker.bytes_per_connection, bytes),
        ),
    ]
}
