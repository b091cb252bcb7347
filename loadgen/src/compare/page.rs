//! `compare.html`: the comparison as one page, bars for what a work is judged by and the spectrum of
//! its latency.

use std::fmt::Write as _;

use super::result::{Comparison, WorkFacts};
use super::table::{metric, ratio, shown, times};
use super::works::Metric;
use crate::report::html::{PAGE_TAIL, page_head, spectrum_plot, table};
use crate::report::plot::{Line, escape};

/// The page of `comparison`.
pub(crate) fn html(comparison: &Comparison) -> String {
    let mut out = page_head("MQTT brokers compared · ShardMQ load generator");
    let method = &comparison.method;
    let _ = writeln!(
        out,
        "<header><h1>MQTT brokers compared</h1><div class=\"sub\"><span>{} rounds of {} s, \
         interleaved</span><span>medians; ratio to {} of the same round</span><span>brokers on CPU \
         {}, generator on CPU {}</span><span>{}</span></div></header>",
        method.rounds,
        method.duration_s,
        escape(&method.base),
        escape(&method.broker_cpus),
        escape(&method.generator_cpus),
        escape(&comparison.host.cpu)
    );
    contenders(&mut out, comparison);
    for work in &comparison.works {
        section(&mut out, comparison, work);
    }
    out += "<h2>How it was done</h2><div class=\"tables\">";
    table(
        &mut out,
        "host",
        "Machine",
        comparison.host.rows().into_iter(),
    );
    let syscalls = if method.syscalls.is_empty() {
        "not counted"
    } else {
        &method.syscalls
    };
    let rows = [
        ("Generator", comparison.generator.version.clone()),
        (
            "Rounds",
            method.partial.as_ref().map_or_else(
                || method.rounds.to_string(),
                |why| format!("{}; PARTIAL: {why}", method.rounds),
            ),
        ),
        ("Measured phase", format!("{} s", method.duration_s)),
        ("System calls", syscalls.to_owned()),
    ];
    table(&mut out, "method", "Method", rows.into_iter());
    out += "</div>\n<h2>Configurations</h2>";
    for broker in &comparison.brokers {
        if broker.missing.is_none() {
            let _ = write!(
                out,
                "<details class=\"card\" style=\"margin-bottom:8px\"><summary>{} <span \
                 class=\"muted\">{}</span></summary><pre>{}\n\n{}</pre></details>",
                escape(&broker.name),
                escape(&broker.version),
                escape(&broker.arguments),
                escape(&broker.configuration)
            );
        }
    }
    out += "<footer>Raw results of every run are in compare.json.</footer>";
    out += PAGE_TAIL;
    out
}

fn contenders(out: &mut String, comparison: &Comparison) {
    let rows = comparison.brokers.iter().map(|broker| {
        let facts = broker.missing.as_ref().unwrap_or(&broker.version);
        (broker.name.as_str(), facts.clone())
    });
    table(out, "brokers", "Brokers", rows);
}

fn section(out: &mut String, comparison: &Comparison, work: &WorkFacts) {
    let _ = writeln!(
        out,
        "<h2 id=\"work-{}\">{}. {} <span class=\"muted\" style=\"font-weight:400\">{}</span></h2>",
        escape(&work.key),
        escape(&work.key),
        escape(&work.title),
        escape(&work.arguments)
    );
    *out += "<div class=\"plots\">";
    for key in work.metrics.iter().take(2) {
        if let Some(metric) = metric(key) {
            bars(out, comparison, work, metric);
        }
    }
    let lines = spectra(comparison, work);
    if !lines.is_empty() {
        *out += &spectrum_plot("spectrum", lines).html();
    }
    *out += "</div>\n";
    work_table(out, comparison, work);
}

const BAR: f64 = 20.0;
const GAP: f64 = 10.0;
const NAME: f64 = 130.0;
const WIDTH: f64 = 640.0;
const VALUE: f64 = 190.0;

/// A bar for each broker, with a whisker from the smallest to the largest value.
fn bars(out: &mut String, comparison: &Comparison, work: &WorkFacts, metric: Metric) {
    let cells: Vec<_> = comparison
        .brokers
        .iter()
        .enumerate()
        .filter_map(|(at, broker)| {
            let cell = comparison.cell(&work.key, &broker.name, metric.key())?;
            Some((at, broker, cell))
        })
        .collect();
    let largest = cells
        .iter()
        .map(|(_, _, cell)| cell.value.max)
        .fold(0.0, f64::max);
    if largest <= 0.0 {
        return;
    }
    let count = u32::try_from(cells.len()).unwrap_or(0);
    let height = f64::from(count) * (BAR + GAP) + GAP;
    let _ = write!(
        out,
        "<figure class=\"card plot\"><figcaption><h3>{}</h3></figcaption><svg viewBox=\"0 0 {WIDTH} \
         {height}\" role=\"img\" aria-label=\"{} of each broker\">",
        metric.title(),
        metric.title()
    );
    let scale = (WIDTH - NAME - VALUE) / largest;
    let mut top = GAP;
    for (at, broker, cell) in cells {
        let (middle, value) = (top + BAR / 2.0, cell.value);
        let _ = write!(
            out,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <rect class=\"bar c{}\" x=\"{NAME}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" \
             rx=\"3\"/>",
            NAME - 8.0,
            middle + 4.0,
            escape(&broker.name),
            at % 8,
            (value.median * scale).max(1.0)
        );
        if value.max > value.min {
            let (from, to) = (NAME + value.min * scale, NAME + value.max * scale);
            let _ = write!(
                out,
                "<path class=\"whisker\" d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} \
                 {:.1}v8\"/>",
                middle - 4.0,
                middle - 4.0
            );
        }
        let relation = cell
            .ratio
            .filter(|_| broker.name != comparison.method.base)
            .map_or_else(String::new, |ratio| format!(" · {}", times(ratio.median)));
        let _ = write!(
            out,
            "<text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}{relation}</text>",
            NAME + value.max * scale + 8.0,
            middle + 4.0,
            metric.show(value.median)
        );
        top += BAR + GAP;
    }
    *out += "</svg></figure>\n";
}

/// The spectrum of the first good run of each broker.
fn spectra(comparison: &Comparison, work: &WorkFacts) -> Vec<Line> {
    comparison
        .brokers
        .iter()
        .enumerate()
        .filter_map(|(at, broker)| {
            let run = comparison
                .runs(&work.key, &broker.name)
                .find(|run| run.round > 0 && !run.spectrum.is_empty())?;
            Some(Line {
                name: broker.name.clone(),
                colour: at % 8,
                dashed: at >= 8 || run.saturated.is_some(),
                points: run.spectrum.clone(),
            })
        })
        .collect()
}

fn work_table(out: &mut String, comparison: &Comparison, work: &WorkFacts) {
    let metrics = shown(comparison, work);
    *out += "<div class=\"card scroll\" style=\"margin-top:14px\"><table><thead><tr><th></th>";
    for metric in &metrics {
        let _ = write!(out, "<th class=\"n\">{}</th>", metric.title());
    }
    *out += "<th>remarks</th></tr></thead><tbody>";
    for broker in &comparison.brokers {
        if comparison.runs(&work.key, &broker.name).next().is_none() {
            continue;
        }
        let class = if broker.name == comparison.method.base {
            " class=\"base\""
        } else {
            ""
        };
        let _ = write!(out, "<tr{class}><th>{}</th>", escape(&broker.name));
        for metric in &metrics {
            let cell = comparison.cell(&work.key, &broker.name, metric.key());
            let text = cell.map_or_else(
                || "–".to_owned(),
                |cell| {
                    let relation = if class.is_empty() {
                        ratio(&cell)
                    } else {
                        String::new()
                    };
                    format!(
                        "{}<br><small>{relation}</small>",
                        metric.show(cell.value.median)
                    )
                },
            );
            let _ = write!(out, "<td class=\"n\">{text}</td>");
        }
        let notes = comparison.notes(&work.key, &broker.name);
        let bad = if notes.is_empty() {
            ""
        } else {
            " class=\"bad\""
        };
        let _ = write!(out, "<td{bad}>{}</td></tr>", escape(&notes.join("; ")));
    }
    *out += "</tbody></table></div>\n";
}
