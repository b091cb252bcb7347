//! `shardmq print-metrics`: what `/metrics` shows, from the declarations of the counters.

use std::fmt::Write;

use shardmq::runtime;

/// A Markdown table of all metrics.
pub(super) fn table() -> String {
    let mut text = String::from(
        "# Metrics\n\n`GET /metrics` of the HTTP listener (`[http] bind`, 127.0.0.1:9883 by default) in the text \
         format of\nPrometheus 0.0.4. Written by `shardmq print-metrics`; names are stable. Units are \
         seconds and bytes.\nWhat a shard counts has the label `shard`; what only grows begins at 0 with \
         the process. Histograms\nhave buckets at powers of two from 1 \u{b5}s to 16.8 s.\n\n\
         | name | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for family in runtime::families() {
        let mut labels = Vec::new();
        if family.name.starts_with("shardmq_") && !runtime::is_of_process(&family) {
            labels.push("shard".to_owned());
        }
        labels.extend(family.label.map(|label| match label.values {
            [] => label.name.to_owned(),
            values => format!("{}: {}", label.name, values.join(" ")),
        }));
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind.type_name(),
            labels.join("; "),
            family.help_line()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_what_is_printed() {
        assert!(
            include_str!("../../METRICS.md") == super::table(),
            "METRICS.md is stale; write it again: shardmq print-metrics > METRICS.md"
        );
    }
}
