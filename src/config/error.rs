//! What can be wrong with a configuration, where it stands, and what was probably meant.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written.
    pub origin: Origin,
    /// The key in full, `mqtt.max_inflight`; empty if no key is at fault.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file, at a line and a column that count from one.
    File {
        /// The name of the file as it was given.
        name: String,
        /// The line.
        line: usize,
        /// The character in the line.
        column: usize,
    },
    /// In a variable of the environment.
    Environment(String),
    /// Nowhere: it is a default.
    Default,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is not TOML.
    Syntax(String),
    /// No key has that name.
    UnknownKey {
        /// What was written.
        found: String,
        /// Where it stands, "in [mqtt]"; empty for nowhere.
        place: String,
        /// What was probably meant.
        likely: Option<String>,
    },
    /// No section has that name.
    UnknownSection {
        /// What was written.
        found: String,
        /// What was probably meant.
        likely: Option<String>,
    },
    /// A section was written as a value, or as the wrong kind of table.
    NotASection {
        /// How it is written.
        header: &'static str,
    },
    /// The key must be given and was not.
    Missing {
        /// The value it could have, as TOML.
        example: String,
    },
    /// The value has the wrong type.
    WrongType {
        /// What is wanted.
        expected: &'static str,
        /// What was written.
        found: &'static str,
        /// A value that would do, as TOML.
        example: String,
    },
    /// A number that cannot be read.
    NotANumber {
        /// What was written.
        text: String,
        /// Units that are known.
        unit: String,
    },
    /// A unit that is not one of the key's.
    UnknownUnit {
        /// What was written.
        text: String,
        /// Units that are known.
        known: String,
    },
    /// A number outside its bounds.
    OutOfRange {
        /// What was written.
        found: String,
        /// The bounds.
        allowed: String,
    },
    /// A word that is none of the choices.
    UnknownWord {
        /// What was written.
        found: String,
        /// The choices.
        words: &'static [&'static str],
        /// What was probably meant.
        likely: Option<String>,
    },
    /// A name with characters that a name must not have.
    BadWord {
        /// What was written.
        text: String,
    },
    /// Text that no packet can carry.
    BadText,
    /// Not an IP address and a port.
    BadAddress {
        /// What was written.
        text: String,
        /// What was probably meant.
        likely: Option<String>,
    },
    /// Not an IP address with or without the length of a prefix.
    BadNetwork {
        /// What was written.
        text: String,
    },
    /// Not the permissions of a file.
    BadMode {
        /// What was written.
        text: String,
    },
    /// Two listeners share what must be theirs alone.
    Duplicate {
        /// `name` or `bind`.
        what: &'static str,
        /// The value they share.
        value: String,
    },
    /// The file was written for a later version of the program.
    NewerFormat {
        /// The version that the file names.
        found: u64,
    },
    /// Two keys contradict each other.
    Conflict {
        /// In which way.
        text: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { name, line, column } => write!(f, "{name}:{line}:{column}: ")?,
            Origin::Environment(variable) => write!(f, "environment variable {variable}: ")?,
            Origin::Default => {}
        }
        // An unknown key is named by the problem itself.
        let named = matches!(
            self.problem,
            Problem::UnknownKey { .. } | Problem::UnknownSection { .. } | Problem::Syntax(_)
        );
        if !named && !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => write!(f, "not TOML: {text}"),
            Self::UnknownKey {
                found,
                place,
                likely,
            } => {
                write!(f, "unknown key `{found}`")?;
                if !place.is_empty() {
                    write!(f, " {place}")?;
                }
                did_you_mean(f, likely.as_deref())
            }
            Self::UnknownSection { found, likely } => {
                write!(f, "unknown section `{found}`")?;
                did_you_mean(f, likely.as_deref())
            }
            Self::NotASection { header } => write!(f, "is a section: write {header}"),
            Self::Missing { example } => write!(f, "must be given, for example {example}"),
            Self::WrongType {
                expected,
                found,
                example,
            } => {
                write!(f, "must be {expected}, not {found}, for example {example}")
            }
            Self::NotANumber { text, unit } if unit.is_empty() => {
                write!(f, "`{text}` is not a number")
            }
            Self::NotANumber { text, unit } => {
                write!(
                    f,
                    "`{text}` is not a number, with or without a unit of {unit}"
                )
            }
            Self::UnknownUnit { text, known } if known.is_empty() => {
                write!(f, "`{text}` stands behind the number, which takes no unit")
            }
            Self::UnknownUnit { text, known } => {
                write!(f, "unknown unit `{text}`; known are {known}")
            }
            Self::OutOfRange { found, allowed } => {
                write!(f, "{found} is out of range; allowed is {allowed}")
            }
            Self::UnknownWord {
                found,
                words,
                likely,
            } => {
                write!(f, "`{found}` is none of {}", words.join(", "))?;
                did_you_mean(f, likely.as_deref())
            }
            Self::BadWord { text } => {
                write!(
                    f,
                    "`{text}` is not a name; use letters, digits, `-` and `_`"
                )
            }
            Self::BadText => {
                f.write_str("is at most 65535 bytes of text without the character U+0000")
            }
            Self::BadAddress { text, likely } => {
                write!(f, "`{text}` is not an IP address and a port")?;
                did_you_mean(f, likely.as_deref())
            }
            Self::BadNetwork { text } => write!(
                f,
                "`{text}` is not an IP address or network; write `10.0.0.0/8` or `192.0.2.1`"
            ),
            Self::BadMode { text } => {
                write!(
                    f,
                    "`{text}` is no file mode; write three or four octal digits, `0660`"
                )
            }
            Self::Duplicate { what, value } => {
                write!(f, "two listeners have the same {what}, {value}")
            }
            Self::NewerFormat { found } => write!(
                f,
                "the file has format {found} and this program reads up to {}; use the program that \
                 it was written for",
                super::FORMAT_VERSION
            ),
            Self::Conflict { text } => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

fn did_you_mean(f: &mut fmt::Formatter<'_>, likely: Option<&str>) -> fmt::Result {
    match likely {
        Some(likely) => write!(f, "; {likely}"),
        None => Ok(()),
    }
}
