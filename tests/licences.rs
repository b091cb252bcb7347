//! Every crate that the broker, its tools and their tests are built of may be passed on with software under
//! Apache-2.0 OR MIT. In the place of `cargo deny check licenses`, which takes longer to build than all of
//! this: the data is what cargo knows of the locked crates, without a network.

use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named, as SPDX calls them.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// An exception takes nothing away from who passes the code on.
const EXCEPTIONS: [&str; 1] = ["LLVM-exception"];

/// Crates that are taken with another one. The MPL is about the files of the crate itself: whoever passes
/// them on unchanged, as part of whatever else, has to say where they are from. glommio needs it.
const TAKEN: [(&str, &str); 1] = [("bitmaps", "MPL-2.0+")];

/// Reads an expression of SPDX; an older form has a slash for OR.
struct Expression<'a>(std::iter::Peekable<std::vec::IntoIter<&'a str>>);

impl<'a> Expression<'a> {
    fn allows(text: &'a str) -> bool {
        let spaced = text.split_inclusive(['(', ')', '/']);
        let words = spaced.flat_map(|part| {
            let at = part.len() - usize::from(part.ends_with(['(', ')', '/']));
            let (words, mark) = part.split_at(at);
            words
                .split_whitespace()
                .chain((!mark.is_empty()).then_some(mark))
        });
        let words: Vec<&str> = words.collect();
        let mut expression = Self(words.into_iter().peekable());
        let allowed = expression.either();
        assert_eq!(expression.0.next(), None, "{text}");
        allowed
    }

    fn either(&mut self) -> bool {
        let mut allowed = self.both();
        while self.0.next_if(|word| matches!(*word, "OR" | "/")).is_some() {
            allowed |= self.both();
        }
        allowed
    }

    fn both(&mut self) -> bool {
        let mut allowed = self.one();
        while self.0.next_if_eq(&"AND").is_some() {
            allowed &= self.one();
        }
        allowed
    }

    fn one(&mut self) -> bool {
        if self.0.next_if_eq(&"(").is_some() {
            let allowed = self.either();
            assert_eq!(self.0.next(), Some(")"));
            return allowed;
        }
        let mut allowed = self.0.next().is_some_and(|name| ALLOWED.contains(&name));
        if self.0.next_if_eq(&"WITH").is_some() {
            allowed &= self.0.next().is_some_and(|name| EXCEPTIONS.contains(&name));
        }
        allowed
    }
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "Apache-2.0 WITH LLVM-exception",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "MIT OR GPL-2.0 AND MPL-2.0",
    ] {
        assert!(Expression::allows(allowed), "{allowed}");
    }
    for denied in [
        "GPL-3.0",
        "",
        "MIT AND GPL-2.0",
        "(MIT OR Apache-2.0) AND MPL-2.0",
        "Apache-2.0 WITH Something-else",
        "MIT-or-so",
    ] {
        assert!(!Expression::allows(denied), "{denied}");
    }
}

#[test]
fn every_crate_may_be_passed_on() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    assert!(packages.len() > 100, "{} crates", packages.len());
    let text = |package: &Value, name: &str| package[name].as_str().unwrap_or_default().to_owned();
    let is_taken = |package: &Value| {
        let mut taken = TAKEN.iter();
        taken.any(|(name, licence)| package["name"] == *name && package["license"] == *licence)
    };
    for (name, _) in TAKEN {
        let is_there = packages.iter().any(|package| package["name"] == name);
        assert!(is_there, "nothing needs {name} any more");
    }
    let denied: Vec<String> = packages
        .iter()
        .filter(|package| !is_taken(package) && !Expression::allows(&text(package, "license")))
        .map(|package| {
            format!(
                "{} {}: {}",
                package["name"], package["version"], package["license"]
            )
        })
        .collect();
    assert!(denied.is_empty(), "{denied:#?}");
}
