//! Finds the citations in the sources and tells checks from tests.
//!
//! A test is everything under `tests/` and what `#[cfg(test)]` covers in `src/`. The end of such an
//! item is found by indentation, which `cargo fmt` guarantees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::statements::Statement;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    Code,
    Test,
}

/// Every citation of the project.
#[derive(Default)]
pub(crate) struct Scan {
    cited: BTreeSet<(Place, Statement)>,
    first: BTreeMap<Statement, String>,
    malformed: Vec<String>,
}

impl Scan {
    pub(crate) fn of(root: &Path) -> Self {
        let mut scan = Self::default();
        for path in files(&root.join("src")) {
            scan.read(root, &path, Place::Code);
        }
        for path in files(&root.join("tests")) {
            let own = path
                .strip_prefix(root.join("tests"))
                .expect("it was found there");
            if !own.starts_with("ledger") && own != Path::new("ledger.rs") {
                scan.read(root, &path, Place::Test);
            }
        }
        scan
    }

    pub(crate) fn cites(&self, place: Place, statement: &Statement) -> bool {
        self.cited.contains(&(place, statement.clone()))
    }

    /// Each cited statement and one place that cites it.
    pub(crate) fn citations(&self) -> impl Iterator<Item = (&Statement, &str)> {
        self.first
            .iter()
            .map(|(statement, place)| (statement, place.as_str()))
    }

    /// Brackets that were meant as citations and are none.
    pub(crate) fn malformed(&self) -> &[String] {
        &self.malformed
    }

    fn read(&mut self, root: &Path, path: &Path, place: Place) {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
        let shown = path
            .strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string();
        let place = if is_test_file(path) {
            Place::Test
        } else {
            place
        };
        self.read_text(&shown, &text, place);
    }

    fn read_text(&mut self, shown: &str, text: &str, place: Place) {
        let mut test_item: Option<usize> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if test_item.is_none() && line.trim_start().starts_with("#[cfg(test)]") {
                test_item = Some(indent);
            }
            let here = if test_item.is_some() {
                Place::Test
            } else {
                place
            };
            for bracket in brackets(line) {
                let at = format!("{shown}:{}", number + 1);
                match parse(bracket) {
                    Some(statement) => {
                        self.first.entry(statement.clone()).or_insert(at);
                        self.cited.insert((here, statement));
                    }
                    None => self.malformed.push(format!(
                        "{at}: [{bracket}] is no citation: [MQTT-x.y.z-n] or [MQTT-x.y.z-n 3.1.1]"
                    )),
                }
            }
            if test_item == Some(indent) && ends_item(line) {
                test_item = None;
            }
        }
    }
}

/// The line that closes an item which began at the same indentation.
fn ends_item(line: &str) -> bool {
    let code = line.trim();
    !code.starts_with('#') && (code.starts_with('}') || code.ends_with(';') || code.ends_with('}'))
}

/// `src/**/tests.rs` and `src/**/tests/**` are declared behind `#[cfg(test)]` in another file.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| {
            stem == "tests" || stem.to_str().is_some_and(|stem| stem.ends_with("_tests"))
        })
}

/// The inside of every bracket that begins like a citation.
fn brackets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("[MQTT-").map(|(at, _)| {
        let inside = &line[at + 1..];
        inside.split(']').next().unwrap_or(inside)
    })
}

fn parse(bracket: &str) -> Option<Statement> {
    let (id, version) = match bracket.split_once(' ') {
        None => (bracket, "5.0"),
        Some((id, "3.1.1")) => (id, "3.1.1"),
        Some(_) => return None,
    };
    let (section, number) = id.strip_prefix("MQTT-")?.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let well_formed = digits(number) && section.split('.').all(digits);
    well_formed.then(|| Statement {
        version,
        id: id.to_owned(),
    })
}

/// The source files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
        for entry in entries {
            let path = entry
                .expect("an entry of a folder that could be opened")
                .path();
            if path.is_dir() {
                open.push(path);
            } else if path
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| ["rs", "py", "js", "mjs", "cjs"].contains(&extension))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn citations_are_told_by_version_and_place() {
    let mut scan = Scan::default();
    let text = "\
        // [MQTT-3.1.2-8] and [MQTT-4.2-1]\n\
        #[cfg(test)]\n\
        use a::b;\n\
        // [MQTT-3.1.2-9 3.1.1]\n\
        #[cfg(test)]\n\
        mod tests {\n    \
            // [MQTT-3.1.2-10]\n    \
            fn f() {}\n\
        }\n\
        // [MQTT-3.1.2-11]\n\
        // [MQTT-3.1.2-8, 3.1.1] [MQTT-3.1.2]\n";
    scan.read_text("x.rs", text, Place::Code);
    let cited: Vec<String> = scan
        .cited
        .iter()
        .map(|(place, statement)| format!("{place:?} {statement}"))
        .collect();
    assert_eq!(
        cited,
        [
            "Code [MQTT-3.1.2-9 3.1.1]",
            "Code [MQTT-3.1.2-11]",
            "Code [MQTT-3.1.2-8]",
            "Code [MQTT-4.2-1]",
            "Test [MQTT-3.1.2-10]",
        ]
    );
    assert_eq!(scan.malformed.len(), 2);
}
