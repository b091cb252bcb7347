//! The statements as data: ids, exemptions with their reasons, twins. Only ids are kept; the text
//! is the standard's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// One normative statement.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Statement {
    /// `"5.0"` or `"3.1.1"`.
    pub(crate) version: &'static str,
    /// As in `MQTT-3.1.2-8`.
    pub(crate) id: String,
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            "5.0" => write!(f, "[{}]", self.id),
            other => write!(f, "[{} {other}]", self.id),
        }
    }
}

/// What is exempt and why: `client` binds only a client, `later` waits for a part that is not
/// there yet, `never` cannot come up in this broker.
const KINDS: [&str; 3] = ["client", "later", "never"];

/// Everything under `tests/standard`.
pub(crate) struct Standard {
    statements: Vec<Statement>,
    exempt: BTreeSet<Statement>,
    twins: BTreeMap<Statement, Vec<Statement>>,
    problems: Vec<String>,
}

impl Standard {
    pub(crate) fn load(root: &Path) -> Self {
        let folder = root.join("tests/standard");
        let mut standard = Self {
            statements: Vec::new(),
            exempt: BTreeSet::new(),
            twins: BTreeMap::new(),
            problems: Vec::new(),
        };
        for version in ["5.0", "3.1.1"] {
            for [id] in rows(&folder.join(format!("statements-{version}.tsv"))) {
                standard.statements.push(Statement { version, id });
            }
        }
        for [version, id, kind, reason] in rows(&folder.join("exempt.tsv")) {
            standard.add_exemption(&version, id, &kind, &reason);
        }
        for [old, new] in rows(&folder.join("twins.tsv")) {
            standard.add_twin(old, new);
        }
        standard
    }

    pub(crate) fn statements(&self) -> &[Statement] {
        &self.statements
    }

    pub(crate) fn count(&self, version: &str) -> usize {
        self.statements
            .iter()
            .filter(|s| s.version == version)
            .count()
    }

    pub(crate) fn is_exempt(&self, statement: &Statement) -> bool {
        self.exempt.contains(statement)
    }

    /// The version 5 statements whose checks serve this one too.
    pub(crate) fn twins(&self, statement: &Statement) -> &[Statement] {
        self.twins.get(statement).map_or(&[], Vec::as_slice)
    }

    /// What is wrong in the lists themselves.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.clone()
    }

    fn add_exemption(&mut self, version: &str, id: String, kind: &str, reason: &str) {
        let Some(statement) = self.find(version, &id) else {
            self.problems
                .push(format!("exempt.tsv: {id} of {version} is unknown"));
            return;
        };
        if !KINDS.contains(&kind) || reason.trim().len() < 10 {
            self.problems
                .push(format!("exempt.tsv: {statement} has no kind or no reason"));
        }
        if !self.exempt.insert(statement) {
            self.problems
                .push(format!("exempt.tsv: {id} of {version} stands there twice"));
        }
    }

    fn add_twin(&mut self, old: String, new: String) {
        let (Some(old), Some(new)) = (self.find("3.1.1", &old), self.find("5.0", &new)) else {
            self.problems
                .push(format!("twins.tsv: {old} or {new} is unknown"));
            return;
        };
        if self.exempt.contains(&old) || self.exempt.contains(&new) {
            self.problems
                .push(format!("twins.tsv: {old} or {new} is exempt"));
        }
        self.twins.entry(old).or_default().push(new);
    }

    fn find(&self, version: &str, id: &str) -> Option<Statement> {
        self.statements
            .iter()
            .find(|s| s.version == version && s.id == id)
            .cloned()
    }
}

/// The rows below the heading of a table with `N` columns parted by tabs.
fn rows<const N: usize>(path: &Path) -> Vec<[String; N]> {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    text.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            cells
                .try_into()
                .unwrap_or_else(|cells| panic!("{}: {cells:?} has not {N} columns", path.display()))
        })
        .collect()
}
