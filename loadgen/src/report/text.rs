//! The summary of a run as text for a terminal.

use std::fmt::Write as _;

use super::document::{Broker, Document};
use super::host::as_f64;
use super::units::{bytes, count, nanoseconds, si, three_digits};
use crate::measure::{Latency, Verification};

/// The summary of `document`.
pub(crate) fn text(document: &Document) -> String {
    let mut out = String::new();
    head(&mut out, document);
    throughput(&mut out, document);
    latency(&mut out, document);
    connections(&mut out, document);
    if let Some(broker) = &document.broker {
        process(&mut out, broker);
    }
    if let Some(found) = &document.verification {
        verification(&mut out, found);
    }
    for figure in &document.figures {
        row(
            &mut out,
            &figure.name,
            format!("{} {}", three_digits(figure.value), figure.unit).trim_end(),
        );
    }
    errors(&mut out, document);
    if let Some(why) = &document.saturated {
        saturated(&mut out, why);
    }
    out
}

fn row(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name:<13} {value}");
}

fn head(out: &mut String, document: &Document) {
    let _ = writeln!(
        out,
        "{} · {} loop · {} s measured · {} · {}",
        document.name,
        if document.closed_loop {
            "CLOSED"
        } else {
            "open"
        },
        three_digits(document.measured_s),
        document.generator.driver,
        document.started,
    );
    if document.closed_loop {
        let _ = writeln!(
            out,
            "A closed loop waits for the broker: latency hides the messages that were not sent \
             meanwhile."
        );
    }
    let _ = writeln!(
        out,
        "{}\n",
        document
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    );
}

fn throughput(out: &mut String, document: &Document) {
    let (counts, rates) = (&document.counts, &document.per_second);
    let _ = writeln!(
        out,
        "{:<14}{:>14}{:>14}{:>14}",
        "Throughput", "messages", "per second", "bytes/s"
    );
    for (name, messages, rate, octets) in [
        (
            "published",
            counts.published,
            rates.published,
            Some(rates.bytes_sent),
        ),
        (
            "acknowledged",
            counts.acknowledged,
            rates.acknowledged,
            None,
        ),
        (
            "received",
            counts.received,
            rates.received,
            Some(rates.bytes_received),
        ),
    ] {
        if messages > 0 {
            let line = format!(
                "  {name:<12}{:>14}{:>14}{:>14}",
                count(messages),
                si(rate),
                octets.map(bytes).unwrap_or_default()
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    for (name, value) in [("sent late", counts.delayed), ("refused", counts.refused)] {
        if value > 0 {
            let _ = writeln!(out, "  {name:<12}{:>14}", count(value));
        }
    }
    out.push('\n');
}

fn latency(out: &mut String, document: &Document) {
    let kinds = &document.latency_ns;
    let _ = writeln!(
        out,
        "{:<14}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "Latency", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"
    );
    for (name, latency) in [
        ("corrected", &kinds.corrected),
        ("raw", &kinds.raw),
        ("acknowledged", &kinds.acknowledgement),
        ("connect", &kinds.connect),
        ("lag", &kinds.lag),
    ] {
        if latency.count > 0 {
            let _ = writeln!(out, "  {name:<12}{}", percentiles(latency));
        }
    }
    out.push('\n');
}

fn percentiles(latency: &Latency) -> String {
    let mut text = String::new();
    for value in [
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.p9999,
        latency.max,
    ] {
        let _ = write!(text, "{:>11}", nanoseconds(as_f64(value)));
    }
    let _ = write!(text, "{:>11}", nanoseconds(latency.mean));
    text
}

fn connections(out: &mut String, document: &Document) {
    let counts = &document.counts;
    row(
        out,
        "Connections",
        &format!(
            "{} open, {} made ({}/s), {} failed, {} lost, {} subscriptions",
            count(counts.open),
            count(counts.connected),
            si(document.per_second.connected),
            count(counts.connect_failed),
            count(counts.lost),
            count(counts.subscribed)
        ),
    );
}

fn process(out: &mut String, broker: &Broker) {
    let Broker { process, .. } = broker;
    let mut parts = Vec::new();
    if let Some(cost) = broker.cpu_ns_per_message {
        parts.push(format!("{} CPU per message", nanoseconds(cost)));
    }
    let all = as_f64(process.user_ns + process.system_ns).max(1.0);
    parts.push(format!(
        "{} cores ({:.0} % system)",
        three_digits(broker.cores),
        as_f64(process.system_ns) / all * 100.0
    ));
    if let Some(switches) = broker.context_switches_per_message {
        parts.push(format!("{} switches per message", three_digits(switches)));
    }
    if let Some(calls) = broker.syscalls_per_message {
        parts.push(format!("{} system calls per message", three_digits(calls)));
    }
    row(out, "Broker CPU", &parts.join(", "));
    let mut memory = format!(
        "{} before, {} after",
        bytes(as_f64(process.rss_before)),
        bytes(as_f64(process.rss_after))
    );
    if let Some(each) = broker.bytes_per_connection {
        let _ = write!(memory, ", {} per connection", bytes(each));
    }
    row(out, "Broker memory", &memory);
}

fn verification(out: &mut String, found: &Verification) {
    let broken = found.lost + found.duplicates + found.reordered + found.corrupt > 0;
    row(
        out,
        "Verification",
        &format!(
            "{}{} of {} delivered, {} lost, {} duplicates, {} reordered, {} corrupt",
            if broken { "FAILED: " } else { "" },
            count(found.delivered),
            count(found.expected),
            count(found.lost),
            count(found.duplicates),
            count(found.reordered),
            count(found.corrupt)
        ),
    );
}

fn errors(out: &mut String, document: &Document) {
    for (at, failure) in document.errors.iter().enumerate() {
        row(
            out,
            if at == 0 { "Errors" } else { "" },
            &format!("{} × {}", count(failure.count), failure.text),
        );
    }
}

/// What nobody may overlook: these latencies are not the broker's.
fn saturated(out: &mut String, why: &str) {
    let rule = "#".repeat(78);
    let _ = writeln!(
        out,
        "\n{rule}\n##  GENERATOR SATURATED: {why}\n##  The latencies above are the generator's \
         own, not the broker's. Lower the rate, or\n##  give the generator more shards or \
         another machine.\n{rule}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::host::Host;
    use crate::report::samples;

    #[test]
    fn a_good_run() {
        let text = text(&Document::new(&samples::outcome(), Host::default()));
        samples::assert_golden("good.txt", &text);
    }

    #[test]
    fn a_run_that_says_nothing_about_the_broker_says_so_loudly() {
        let text = text(&Document::new(&samples::failed(), Host::default()));
        samples::assert_golden("failed.txt", &text);
    }
}
