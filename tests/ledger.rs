//! The ledger of normative statements: each of the 391 statements of MQTT 5.0 and 3.1.1 is cited
//! at its check in `src/` and in a test that proves it, or stands in `tests/standard/exempt.tsv`
//! with the reason why not.
//!
//! A citation is `[MQTT-x.y.z-n]` for version 5 and `[MQTT-x.y.z-n 3.1.1]` for version 3.1.1, one
//! statement per bracket. A statement of 3.1.1 that is served by the very check of a version 5
//! statement (`tests/standard/twins.tsv`) needs no citation of its own in the code; it does need
//! one in a test, because a check that is shared is still to be shown under both versions.
//!
//! What is uncovered, with counts:
//!
//! ```text
//! cargo test --test ledger uncovered -- --nocapture
//! ```

#[path = "ledger/scan.rs"]
mod scan;
#[path = "ledger/statements.rs"]
mod statements;

use std::collections::BTreeSet;
use std::path::Path;

use scan::{Place, Scan};
use statements::{Standard, Statement};

/// What the two halves of a coverage are called in the report.
const IN_CODE: &str = "no check in src/ cites it";
const IN_TEST: &str = "no test cites it";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is wrong with one statement, in the order of the standard.
fn gaps(standard: &Standard, scan: &Scan) -> Vec<(Statement, Vec<&'static str>)> {
    let mut gaps = Vec::new();
    for statement in standard.statements() {
        if standard.is_exempt(statement) {
            continue;
        }
        let twins = standard.twins(statement);
        let by_twins = !twins.is_empty() && twins.iter().all(|twin| scan.cites(Place::Code, twin));
        let mut missing = Vec::new();
        if !by_twins && !scan.cites(Place::Code, statement) {
            missing.push(IN_CODE);
        }
        if !scan.cites(Place::Test, statement) {
            missing.push(IN_TEST);
        }
        if !missing.is_empty() {
            gaps.push((statement.clone(), missing));
        }
    }
    gaps
}

/// The report that both the failing test and the command print.
fn report(standard: &Standard, gaps: &[(Statement, Vec<&'static str>)]) -> String {
    let total = standard.statements().len();
    let exempt = standard
        .statements()
        .iter()
        .filter(|s| standard.is_exempt(s))
        .count();
    let mut text = String::new();
    for (statement, missing) in gaps {
        text.push_str(&format!("{statement}: {}\n", missing.join("; ")));
    }
    let lacking = |what| {
        gaps.iter()
            .filter(|(_, missing)| missing.contains(&what))
            .count()
    };
    text.push_str(&format!(
        "{total} statements: {} covered, {exempt} exempt, {} uncovered \
         ({} without a check, {} without a test)\n",
        total - exempt - gaps.len(),
        gaps.len(),
        lacking(IN_CODE),
        lacking(IN_TEST),
    ));
    text
}

#[test]
fn every_statement_is_covered_or_exempt() {
    let standard = Standard::load(root());
    let gaps = gaps(&standard, &Scan::of(root()));
    assert!(gaps.is_empty(), "\n{}", report(&standard, &gaps));
}

/// Never fails: it is the command that shows what is left.
#[test]
fn uncovered() {
    let standard = Standard::load(root());
    print!("{}", report(&standard, &gaps(&standard, &Scan::of(root()))));
}

#[test]
fn no_citation_names_an_unknown_statement() {
    let standard = Standard::load(root());
    let known: BTreeSet<_> = standard.statements().iter().collect();
    let scan = Scan::of(root());
    let mut wrong: Vec<String> = scan.malformed().to_vec();
    for (statement, place) in scan.citations() {
        if !known.contains(statement) {
            wrong.push(format!(
                "{place}: {statement} is no statement of the standard"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_exemption_is_stale() {
    let standard = Standard::load(root());
    let scan = Scan::of(root());
    let stale: Vec<String> = standard
        .statements()
        .iter()
        .filter(|s| standard.is_exempt(s))
        .filter(|s| scan.cites(Place::Code, s) && scan.cites(Place::Test, s))
        .map(|s| format!("{s} is exempt, yet both a check and a test cite it"))
        .collect();
    assert!(stale.is_empty(), "\n{}", stale.join("\n"));
}

#[test]
fn the_standard_is_whole() {
    let standard = Standard::load(root());
    assert_eq!(standard.count("5.0"), 251);
    assert_eq!(standard.count("3.1.1"), 140);
    assert_eq!(standard.problems(), Vec::<String>::new());
}
