//! What a key may hold: kinds of values with their units and bounds, read from TOML or from the
//! environment and written back as TOML.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::{DeArray, DeValue};

use super::error::Problem;
use crate::limits;
use crate::link::Network;
use crate::wire::QoS;

/// One key, as declared.
#[derive(Debug)]
pub struct Key {
    /// Its name within its section.
    pub name: &'static str,
    /// What it is for: the lines of the doc comment of its field.
    pub doc: &'static [&'static str],
    /// What it may hold.
    pub kind: Kind,
    /// Whether a running broker must be started anew to take a new value.
    pub needs_restart: bool,
}

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Number(Unit, Bounds),
    /// `true` or `false`.
    Switch,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Letters, digits, `-` and `_`.
    Word,
    /// Any text that the protocol can carry.
    Text,
    /// A directory; empty for none.
    Directory,
    /// An IP address and a port.
    Address,
    /// The same, or `off`.
    AddressOrOff,
    /// The same, one or several.
    Addresses,
    /// A file; empty for none.
    File,
    /// Files, one or several.
    Files,
    /// Texts, one or several.
    Texts,
    /// Networks, one or several.
    Networks,
    /// Permissions of a file, in octal digits.
    FileMode,
}

/// What a number counts, and so which units may be written behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes; KiB, MiB, GiB are powers of 1024, kB, MB, GB of 1000.
    Bytes,
    /// Seconds; `s`, `min`, `h`, `d`.
    Seconds,
    /// Seconds, where the largest number means for ever and is written `never`.
    SecondsOrNever,
    /// Microseconds; `us`, `ms`.
    Microseconds,
}

/// The least and the greatest value allowed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The least.
    pub least: u64,
    /// The greatest.
    pub greatest: u64,
}

/// A value as somebody wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// A TOML string.
    Text(&'a str),
    /// A TOML integer, `None` if it does not even fit.
    Integer(Option<i128>),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML list.
    List(&'a DeArray<'a>),
    /// Any other TOML value: what it is called.
    Other(&'static str),
    /// From the environment or the command line, where everything is text.
    Bare(&'a str),
}

/// A type that a key's field can have.
pub(super) trait Value: Sized {
    /// Reads what was written, within the bounds of `kind`.
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem>;
    /// Writes it as TOML.
    fn write(&self, kind: Kind) -> String;
}

impl Raw<'_> {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Bare(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Bare(text) => (*text).to_owned(),
            Self::Integer(Some(number)) => number.to_string(),
            Self::Integer(None) => "that number".to_owned(),
            Self::Boolean(value) => value.to_string(),
            Self::List(_) => "that list".to_owned(),
            Self::Other(name) => (*name).to_owned(),
        }
    }

    /// What is wrong with a value of this type where `kind` is wanted.
    fn wrong_type(&self, kind: Kind) -> Problem {
        Problem::WrongType {
            expected: kind.expected(),
            found: self.type_name(),
            example: kind.example(),
        }
    }
}

impl Kind {
    /// What the value must be, in words.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Number(Unit::Count, _) => "a whole number",
            Self::Number(Unit::Bytes, _) => "a number of bytes",
            Self::Number(Unit::Seconds, _) => "a number of seconds",
            Self::Number(Unit::SecondsOrNever, _) => "a number of seconds, or \"never\"",
            Self::Number(Unit::Microseconds, _) => "a number of microseconds",
            Self::Switch => "true or false",
            Self::Choice(_) => "one of a few words",
            Self::Word => "a name of letters, digits, - and _",
            Self::Text => "a text",
            Self::Directory => "the path of a directory, or \"\" for none",
            Self::Address => "an IP address and a port",
            Self::AddressOrOff => "an IP address and a port, or \"off\"",
            Self::Addresses => "an IP address and a port, or a list of them",
            Self::File => "the path of a file, or \"\" for none",
            Self::Files => "the path of a file, or a list of them",
            Self::Texts => "a text, or a list of them",
            Self::Networks => "an IP address or network, or a list of them",
            Self::FileMode => "permissions in octal digits",
        }
    }

    /// A value that would be accepted, as TOML.
    #[must_use]
    pub fn example(self) -> String {
        match self {
            Self::Number(unit, bounds) => write_number(bounds.example(), unit),
            Self::Switch => "true".to_owned(),
            Self::Choice(words) => format!("\"{}\"", words.first().copied().unwrap_or_default()),
            Self::Word => "\"local\"".to_owned(),
            Self::Text => "\"\"".to_owned(),
            Self::Directory => "\"shardmq-data\"".to_owned(),
            Self::Address => "\"127.0.0.1:1883\"".to_owned(),
            Self::AddressOrOff => "\"127.0.0.1:9883\"".to_owned(),
            Self::Addresses => "\"127.0.0.1:1883\"".to_owned(),
            Self::File => "\"/run/shardmq/mqtt.sock\"".to_owned(),
            Self::Files => "\"server.pem\"".to_owned(),
            Self::Texts => "[\"/mqtt\"]".to_owned(),
            Self::Networks => "[\"10.0.0.0/8\"]".to_owned(),
            Self::FileMode => "\"0660\"".to_owned(),
        }
    }

    /// What is allowed, for people: bounds with their unit, or the words.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Number(unit, bounds) => format!(
                "{} to {}",
                shown_number(bounds.least, unit),
                shown_number(bounds.greatest, unit)
            ),
            Self::Choice(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(", "),
            Self::Switch
            | Self::Word
            | Self::Text
            | Self::Directory
            | Self::Address
            | Self::AddressOrOff
            | Self::Addresses
            | Self::File
            | Self::Files
            | Self::Texts
            | Self::Networks
            | Self::FileMode => self.expected().to_owned(),
        }
    }
}

impl Bounds {
    fn example(self) -> u64 {
        // Something ordinary: neither end, if there is room between them.
        64.clamp(self.least, self.greatest)
    }
}

impl Unit {
    /// The factors of the unit, greatest first, with the one that is written for it.
    fn factors(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Count => &[],
            Self::Bytes => &[
                ("GiB", 1 << 30),
                ("MiB", 1 << 20),
                ("KiB", 1 << 10),
                ("GB", 1_000_000_000),
                ("MB", 1_000_000),
                ("kB", 1_000),
                ("B", 1),
            ],
            Self::Seconds | Self::SecondsOrNever => {
                &[("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)]
            }
            Self::Microseconds => &[("s", 1_000_000), ("ms", 1_000), ("us", 1)],
        }
    }

    fn factor(self, written: &str) -> Option<u64> {
        let plain = match (self, written) {
            (Self::Microseconds, "µs" | "μs") => "us",
            (Self::Seconds | Self::SecondsOrNever, "sec" | "second" | "seconds") => "s",
            (Self::Seconds | Self::SecondsOrNever, "m" | "minute" | "minutes") => "min",
            (Self::Seconds | Self::SecondsOrNever, "hour" | "hours") => "h",
            (Self::Seconds | Self::SecondsOrNever, "day" | "days") => "d",
            _ => written,
        };
        let found = self.factors().iter().find(|(name, _)| {
            if self == Self::Bytes {
                name.eq_ignore_ascii_case(plain)
            } else {
                *name == plain
            }
        });
        found.map(|(_, factor)| *factor)
    }

    /// The units that may stand behind a number, for an error message.
    fn names(self) -> String {
        self.factors()
            .iter()
            .rev()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Reads a number with an optional unit behind it.
fn parse_number(text: &str, unit: Unit) -> Result<u64, Problem> {
    let text = text.trim();
    if unit == Unit::SecondsOrNever && text.eq_ignore_ascii_case("never") {
        return Ok(u64::from(u32::MAX));
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let number: Option<u64> = digits.replace('_', "").parse().ok();
    let suffix = suffix.trim();
    let Some(number) = number else {
        return Err(Problem::NotANumber {
            text: text.to_owned(),
            unit: unit.names(),
        });
    };
    if suffix.is_empty() {
        return Ok(number);
    }
    let factor = unit.factor(suffix).ok_or_else(|| Problem::UnknownUnit {
        text: suffix.to_owned(),
        known: unit.names(),
    })?;
    Ok(number.saturating_mul(factor))
}

/// The number with the greatest unit that divides it, unquoted.
fn shown_number(number: u64, unit: Unit) -> String {
    if unit == Unit::SecondsOrNever && number == u64::from(u32::MAX) {
        return "never".to_owned();
    }
    let factor = unit
        .factors()
        .iter()
        .find(|(name, factor)| {
            number != 0 && number.is_multiple_of(*factor) && !matches!(*name, "GB" | "MB" | "kB")
        })
        .filter(|(name, _)| *name != "B");
    match factor {
        Some((name, factor)) => format!("{} {name}", number / factor),
        None => number.to_string(),
    }
}

/// The same as TOML: a string if it has a unit.
fn write_number(number: u64, unit: Unit) -> String {
    let shown = shown_number(number, unit);
    if shown.bytes().all(|byte| byte.is_ascii_digit()) {
        shown
    } else {
        format!("\"{shown}\"")
    }
}

fn read_number(raw: Raw<'_>, kind: Kind) -> Result<u64, Problem> {
    let Kind::Number(unit, bounds) = kind else {
        return Err(raw.wrong_type(kind));
    };
    let out_of_range = || Problem::OutOfRange {
        found: raw.shown(),
        allowed: kind.allowed(),
    };
    let number = match raw {
        Raw::Integer(number) => number
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(out_of_range)?,
        Raw::Text(text) | Raw::Bare(text) => parse_number(text, unit)?,
        Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => return Err(raw.wrong_type(kind)),
    };
    if (bounds.least..=bounds.greatest).contains(&number) {
        Ok(number)
    } else {
        Err(out_of_range())
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
                let number = read_number(raw, kind)?;
                // The bounds of a key lie within its type; a test holds every declaration to it.
                Self::try_from(number).map_err(|_| Problem::OutOfRange {
                    found: raw.shown(),
                    allowed: kind.allowed(),
                })
            }

            fn write(&self, kind: Kind) -> String {
                let Kind::Number(unit, _) = kind else { return self.to_string() };
                write_number(u64::try_from(*self).unwrap_or(u64::MAX), unit)
            }
        }
    )*};
}
numbers! { u8 u16 u32 u64 usize }

impl Value for bool {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        match raw {
            Raw::Boolean(value) => Ok(value),
            Raw::Bare("true") => Ok(true),
            Raw::Bare("false") => Ok(false),
            Raw::Text(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) | Raw::Bare(_) => {
                Err(raw.wrong_type(kind))
            }
        }
    }

    fn write(&self, _kind: Kind) -> String {
        self.to_string()
    }
}

impl Value for SocketAddr {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        let (Raw::Text(text) | Raw::Bare(text)) = raw else {
            return Err(raw.wrong_type(kind));
        };
        text.trim().parse().map_err(|_| Problem::BadAddress {
            text: text.to_owned(),
            likely: super::suggest::address(text.trim()),
        })
    }

    fn write(&self, _kind: Kind) -> String {
        quoted(&self.to_string())
    }
}

impl Value for Option<SocketAddr> {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        match raw {
            Raw::Text(text) | Raw::Bare(text) if matches!(text.trim(), "" | "off") => Ok(None),
            raw => SocketAddr::read(raw, kind).map(Some),
        }
    }

    fn write(&self, kind: Kind) -> String {
        match self {
            Some(address) => address.write(kind),
            None => quoted("off"),
        }
    }
}

impl Value for Option<PathBuf> {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        match raw {
            Raw::Text("") | Raw::Bare("") => Ok(None),
            Raw::Text(text) | Raw::Bare(text) => Ok(Some(PathBuf::from(text))),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => {
                Err(raw.wrong_type(kind))
            }
        }
    }

    fn write(&self, _kind: Kind) -> String {
        quoted(
            &self
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
        )
    }
}

impl Value for String {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        let (Raw::Text(text) | Raw::Bare(text)) = raw else {
            return Err(raw.wrong_type(kind));
        };
        match kind {
            Kind::Word if !is_word(text) => Err(Problem::BadWord {
                text: text.to_owned(),
            }),
            Kind::Text if text.len() > limits::MAX_STRING || text.contains('\0') => {
                Err(Problem::BadText)
            }
            _ => Ok(text.to_owned()),
        }
    }

    fn write(&self, _kind: Kind) -> String {
        quoted(self)
    }
}

/// What may stand several times: a list, or the only one without the brackets. In the environment
/// commas stand between them.
trait Item: Sized {
    fn read_item(text: &str) -> Result<Self, Problem>;
    fn write_item(&self) -> String;
}

impl<T: Item> Value for Vec<T> {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        let item = |value: &DeValue<'_>| match value {
            DeValue::String(text) => T::read_item(text),
            _ => Err(raw.wrong_type(kind)),
        };
        match raw {
            Raw::List(list) => list.iter().map(|value| item(value.get_ref())).collect(),
            Raw::Text("") | Raw::Bare("" | "[]") => Ok(Self::new()),
            Raw::Text(text) => Ok(vec![T::read_item(text)?]),
            Raw::Bare(text) => text
                .split(',')
                .map(|text| T::read_item(text.trim()))
                .collect(),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::Other(_) => Err(raw.wrong_type(kind)),
        }
    }

    fn write(&self, _kind: Kind) -> String {
        let items: Vec<String> = self.iter().map(|item| quoted(&item.write_item())).collect();
        match items.as_slice() {
            [only] => only.clone(),
            _ => format!("[{}]", items.join(", ")),
        }
    }
}

impl Item for SocketAddr {
    fn read_item(text: &str) -> Result<Self, Problem> {
        Value::read(Raw::Bare(text), Kind::Address)
    }

    fn write_item(&self) -> String {
        self.to_string()
    }
}

impl Item for PathBuf {
    fn read_item(text: &str) -> Result<Self, Problem> {
        Ok(Self::from(text))
    }

    fn write_item(&self) -> String {
        self.display().to_string()
    }
}

impl Item for String {
    fn read_item(text: &str) -> Result<Self, Problem> {
        Value::read(Raw::Bare(text), Kind::Text)
    }

    fn write_item(&self) -> String {
        self.clone()
    }
}

impl Item for Network {
    fn read_item(text: &str) -> Result<Self, Problem> {
        text.parse().map_err(|()| Problem::BadNetwork {
            text: text.to_owned(),
        })
    }

    fn write_item(&self) -> String {
        self.to_string()
    }
}

/// Permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        let (Raw::Text(text) | Raw::Bare(text)) = raw else {
            return Err(raw.wrong_type(kind));
        };
        let mode = u32::from_str_radix(text, 8).ok();
        let mode = mode.filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or_else(|| Problem::BadMode {
            text: text.to_owned(),
        })
    }

    fn write(&self, _kind: Kind) -> String {
        quoted(&format!("{:04o}", self.0))
    }
}

/// Whether it is a name of letters, digits, `-` and `_`, as a section may have.
pub(crate) fn is_word(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && text.chars().all(fine)
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A type whose values are a few words.
pub(super) trait Words: Copy + 'static {
    /// The values and the words for them, as they stand in the file.
    const ALL: &'static [(Self, &'static str)];
    /// The words.
    const WORDS: &'static [&'static str];
}

/// Names the words of an enum, which stands here or elsewhere.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal,)+ }) => {
        impl $crate::config::value::Words for $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];
            const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl $crate::config::value::Value for $name {
            fn read(
                raw: $crate::config::value::Raw<'_>,
                kind: $crate::config::Kind,
            ) -> Result<Self, $crate::config::Problem> {
                $crate::config::value::read_word(raw, kind)
            }

            fn write(&self, _kind: $crate::config::Kind) -> String {
                // Without a wildcard, so that a new variant cannot be forgotten here.
                match self { $(Self::$variant => concat!("\"", $word, "\"").to_owned(),)+ }
            }
        }
    };
}
pub(super) use words;

/// Finds which word was written.
pub(super) fn read_word<T: Words>(raw: Raw<'_>, kind: Kind) -> Result<T, Problem> {
    let text = match raw {
        Raw::Text(text) | Raw::Bare(text) => text,
        // Where yes and no are among the words.
        Raw::Boolean(true) if T::WORDS.contains(&"true") => "true",
        Raw::Boolean(false) if T::WORDS.contains(&"false") => "false",
        Raw::Boolean(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => {
            return Err(raw.wrong_type(kind));
        }
    };
    let found = T::ALL.iter().find(|(_, word)| *word == text);
    found
        .map(|(value, _)| *value)
        .ok_or_else(|| Problem::UnknownWord {
            found: text.to_owned(),
            words: T::WORDS,
            likely: super::suggest::closest(text, T::WORDS.iter().copied()),
        })
}

impl Value for QoS {
    fn read(raw: Raw<'_>, kind: Kind) -> Result<Self, Problem> {
        let bits = u8::read(raw, kind)?;
        Self::from_bits(bits).ok_or_else(|| Problem::OutOfRange {
            found: raw.shown(),
            allowed: kind.allowed(),
        })
    }

    fn write(&self, _kind: Kind) -> String {
        self.bits().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(unit: Unit, text: &str) -> Result<u64, Problem> {
        parse_number(text, unit)
    }

    #[test]
    fn numbers_with_units_are_read() {
        assert_eq!(number(Unit::Bytes, "64 MiB").unwrap(), 64 << 20);
        assert_eq!(number(Unit::Bytes, "64mib").unwrap(), 64 << 20);
        assert_eq!(number(Unit::Bytes, "2 kB").unwrap(), 2_000);
        assert_eq!(number(Unit::Bytes, "1_000").unwrap(), 1_000);
        assert_eq!(number(Unit::Seconds, "30 s").unwrap(), 30);
        assert_eq!(number(Unit::Seconds, "2 minutes").unwrap(), 120);
        assert_eq!(number(Unit::Seconds, "1d").unwrap(), 86_400);
        assert_eq!(
            number(Unit::SecondsOrNever, "never").unwrap(),
            u64::from(u32::MAX)
        );
        assert_eq!(number(Unit::Microseconds, "1 ms").unwrap(), 1_000);
        assert_eq!(number(Unit::Microseconds, "200 µs").unwrap(), 200);
    }

    #[test]
    fn a_wrong_unit_is_named_with_the_right_ones() {
        let problem = number(Unit::Bytes, "30 s").unwrap_err().to_string();
        assert_eq!(
            problem,
            "unknown unit `s`; known are B, kB, MB, GB, KiB, MiB, GiB"
        );
        let problem = number(Unit::Count, "3 s").unwrap_err().to_string();
        assert_eq!(problem, "`s` stands behind the number, which takes no unit");
        assert!(
            number(Unit::Seconds, "1.5 h")
                .unwrap_err()
                .to_string()
                .contains("unknown unit")
        );
        assert!(
            number(Unit::Seconds, "soon")
                .unwrap_err()
                .to_string()
                .contains("not a number")
        );
        assert!(
            number(Unit::Seconds, "-3")
                .unwrap_err()
                .to_string()
                .contains("not a number")
        );
    }

    #[test]
    fn a_number_too_large_to_compute_is_out_of_range_not_small() {
        let kind = Kind::Number(
            Unit::Bytes,
            Bounds {
                least: 0,
                greatest: 1 << 40,
            },
        );
        let problem = u64::read(Raw::Text("99999999999999999 GiB"), kind).unwrap_err();
        assert!(matches!(problem, Problem::OutOfRange { .. }), "{problem}");
        let problem = u64::read(Raw::Integer(None), kind).unwrap_err();
        assert!(matches!(problem, Problem::OutOfRange { .. }), "{problem}");
    }

    #[test]
    fn what_is_written_reads_back() {
        let seconds = Kind::Number(
            Unit::SecondsOrNever,
            Bounds {
                least: 0,
                greatest: u64::MAX,
            },
        );
        for value in [0_u32, 1, 59, 60, 3_600, 86_400, 90_061, u32::MAX] {
            let text = value.write(seconds);
            assert_eq!(
                u32::read(Raw::Bare(text.trim_matches('"')), seconds).unwrap(),
                value
            );
        }
        let bytes = Kind::Number(
            Unit::Bytes,
            Bounds {
                least: 0,
                greatest: u64::MAX,
            },
        );
        for value in [0_u64, 1_000, 1_024, 1_025, 1 << 20, 1 << 30, 3_000_000_000] {
            let text = value.write(bytes);
            assert_eq!(
                u64::read(Raw::Bare(text.trim_matches('"')), bytes).unwrap(),
                value
            );
        }
    }

    #[test]
    fn strings_are_quoted_as_toml_wants_it() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }
}
