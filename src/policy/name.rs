//! User names, as the files have them.

use crate::limits::MAX_STRING;

/// Whether a line of a password file can have this name.
#[must_use]
pub fn is_user_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || c == ':';
    !name.is_empty() && name.len() <= MAX_STRING && !name.starts_with('#') && !name.contains(bad)
}
