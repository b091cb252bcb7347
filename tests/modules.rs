//! Holds the table of modules in `src/lib.rs`: a module names only modules above it, and only the
//! runtime and the program name what the operating system has.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules, lowest first, as `src/lib.rs` and `ARCHITECTURE.md` have them.
const ORDER: [&str; 17] = [
    "limits", "time", "chunks", "topic", "wire", "link", "policy", "message", "route", "session",
    "journal", "history", "stats", "shard", "config", "runtime", "cli",
];

/// Modules that may reach outside.
const SHELL: [&str; 2] = ["runtime", "cli"];

/// What the core must not name.
const OUTSIDE: [&str; 12] = [
    "glommio",
    "io_uring::",
    "libc::",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::env",
    "tracing::",
    "async fn",
];

fn sources(module: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let file = root.join(module).with_extension("rs");
    files.extend(file.exists().then_some(file));
    assert!(!files.is_empty(), "the module {module} has no source");
    files
}

/// The lines that are neither comment nor part of the unit tests at the end of a file.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a source file can be read");
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_module_names_only_modules_above_it() {
    for (position, module) in ORDER.iter().enumerate() {
        for path in sources(module) {
            for line in code(&path) {
                for below in &ORDER[position + 1..] {
                    let named = format!("crate::{below}");
                    let names = line.match_indices(&named).any(|(at, _)| {
                        let rest = &line[at + named.len()..];
                        !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
                    });
                    assert!(!names, "{}: {line}", path.display());
                }
            }
        }
    }
}

#[test]
fn the_core_names_nothing_outside() {
    for module in ORDER.iter().filter(|module| !SHELL.contains(module)) {
        for path in sources(module) {
            for line in code(&path) {
                let found = OUTSIDE.iter().find(|outside| line.contains(**outside));
                assert!(found.is_none(), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_table_is_the_one_that_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The library ends with the runtime; `cli` belongs to the program.
    let library = &ORDER[..ORDER.len() - 1];
    for (document, expected) in [("src/lib.rs", library), ("ARCHITECTURE.md", &ORDER[..])] {
        let text = fs::read_to_string(root.join(document)).expect("a document can be read");
        let listed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim_start_matches("//! ").strip_prefix("| "))
            .filter_map(|row| row.trim_start_matches('[').strip_prefix('`'))
            .filter_map(|row| row.split('`').next())
            .filter(|module| ORDER.contains(module))
            .collect();
        assert_eq!(listed, expected, "{document}");
    }
}
