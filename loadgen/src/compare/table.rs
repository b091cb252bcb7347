//! A comparison as text for a terminal and as Markdown for a README.

use std::fmt::Write as _;

use super::result::{Cell, Comparison, WorkFacts};
use super::works::Metric;

/// The metric of a key.
pub(crate) fn metric(key: &str) -> Option<Metric> {
    Metric::ALL.into_iter().find(|metric| metric.key() == key)
}

/// Metrics of a work that some broker has a value for: those that it is judged by, then the others.
pub(crate) fn shown(comparison: &Comparison, work: &WorkFacts) -> Vec<Metric> {
    let judged = work.metrics.iter().filter_map(|key| metric(key));
    let others = Metric::ALL
        .into_iter()
        .filter(|metric| !work.metrics.iter().any(|key| key == metric.key()))
        .filter(|metric| !matches!(metric, Metric::Connects | Metric::Failed | Metric::Memory));
    judged
        .chain(others)
        .filter(|metric| {
            comparison.brokers.iter().any(|broker| {
                comparison
                    .cell(&work.key, &broker.name, metric.key())
                    .is_some()
            })
        })
        .collect()
}

/// `0.33×`; three decimals below a tenth, so that two digits of it mean something.
pub(crate) fn times(ratio: f64) -> String {
    format!("{ratio:.*}×", places(ratio))
}

fn places(ratio: f64) -> usize {
    if ratio < 0.0995 { 3 } else { 2 }
}

/// `0.33×`, and the range of it where there were several rounds.
pub(crate) fn ratio(cell: &Cell) -> String {
    let Some(ratio) = cell.ratio else {
        return String::new();
    };
    let mut text = times(ratio.median);
    if ratio.max > ratio.min {
        let places = places(ratio.median);
        let _ = write!(text, " ({:.places$}–{:.places$})", ratio.min, ratio.max);
    }
    text
}

/// The tables of `comparison`, one for each work.
pub(crate) fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let method = &comparison.method;
    let _ = writeln!(
        out,
        "{} rounds of {} s, medians; ratio to {} of the same round (smallest–largest)\n\
         {}, {}; brokers on CPU {}, generator on CPU {}",
        method.rounds,
        method.duration_s,
        method.base,
        comparison.host.cpu,
        comparison.host.kernel,
        method.broker_cpus,
        method.generator_cpus
    );
    if let Some(why) = &method.partial {
        let _ = writeln!(out, "PARTIAL: {why}");
    }
    for broker in &comparison.brokers {
        let facts = broker.missing.as_ref().unwrap_or(&broker.version);
        let _ = writeln!(out, "  {:<18}{facts}", broker.name);
    }
    for work in &comparison.works {
        table(&mut out, comparison, work);
    }
    out
}

fn table(out: &mut String, comparison: &Comparison, work: &WorkFacts) {
    let metrics = shown(comparison, work);
    let _ = writeln!(out, "\n{}. {} ({})", work.key, work.title, work.arguments);
    let mut head = format!("  {:<18}", "");
    for (at, metric) in metrics.iter().enumerate() {
        let _ = write!(head, "{:>13}", metric.title());
        if at < work.metrics.len() {
            let _ = write!(head, "  {:<20}", "ratio");
        }
    }
    let _ = writeln!(out, "{}", head.trim_end());
    for broker in &comparison.brokers {
        if comparison.runs(&work.key, &broker.name).next().is_none() {
            continue;
        }
        let mut line = format!("  {:<18}", broker.name);
        for (at, metric) in metrics.iter().enumerate() {
            let cell = comparison.cell(&work.key, &broker.name, metric.key());
            let value = cell.map_or_else(|| "–".to_owned(), |cell| metric.show(cell.value.median));
            let _ = write!(line, "{value:>13}");
            if at < work.metrics.len() {
                let ratio = cell.as_ref().map(ratio).unwrap_or_default();
                let _ = write!(line, "  {ratio:<20}");
            }
        }
        let _ = writeln!(out, "{}", line.trim_end());
        for note in comparison.notes(&work.key, &broker.name) {
            let _ = writeln!(out, "  {:<18}! {note}", "");
        }
    }
}

/// One Markdown table: a row for each work, a column for each broker.
pub(crate) fn markdown(comparison: &Comparison) -> String {
    let brokers: Vec<_> = comparison
        .brokers
        .iter()
        .filter(|broker| broker.missing.is_none())
        .collect();
    let mut out = String::from("| work | |");
    for broker in &brokers {
        let _ = write!(out, " {} |", broker.name);
    }
    out += "\n| --- | --- |";
    out += &" ---: |".repeat(brokers.len());
    out.push('\n');
    let mut saturated = false;
    for work in &comparison.works {
        for (at, metric) in work
            .metrics
            .iter()
            .filter_map(|key| metric(key))
            .enumerate()
        {
            let title = if at == 0 {
                format!("{}. {}", work.key, work.title)
            } else {
                String::new()
            };
            let _ = write!(out, "| {title} | {} |", metric.title());
            for broker in &brokers {
                let cell = comparison.cell(&work.key, &broker.name, metric.key());
                let text = match cell {
                    Some(cell) if broker.name == comparison.method.base => {
                        metric.show(cell.value.median)
                    }
                    Some(cell) => format!("{} {}", metric.show(cell.value.median), ratio(&cell)),
                    None if comparison.notes(&work.key, &broker.name).is_empty() => "–".to_owned(),
                    None => "failed".to_owned(),
                };
                let mark = comparison.saturated(&work.key, &broker.name);
                saturated |= mark;
                let _ = write!(
                    out,
                    " {}{} |",
                    text.trim_end(),
                    if mark { " \\*" } else { "" }
                );
            }
            out.push('\n');
        }
    }
    let _ = write!(
        out,
        "\nMedians of {} rounds of {} s; × is the ratio to {} of the same round (smallest–largest). {} · {}",
        comparison.method.rounds,
        comparison.method.duration_s,
        comparison.method.base,
        comparison.host.cpu,
        comparison.host.kernel
    );
    for broker in &brokers {
        let _ = write!(out, " · {}: {}", broker.name, broker.version);
    }
    out.push('\n');
    if let Some(why) = &comparison.method.partial {
        let _ = writeln!(
            out,
            "\n**Partial**: {why}; some works have fewer rounds or are missing."
        );
    }
    if saturated {
        out += "\n\\* The generator was the bottleneck: latency is its own, and the broker could do more.\n";
    }
    out
}
