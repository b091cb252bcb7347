//! What a check says.

use super::machine::Machine;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing to do.
    Ok,
    /// It serves, and could do better.
    Advice,
    /// It does not start, or does not carry what is planned.
    Problem,
}

impl Level {
    /// Its name, stable.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Problem => "problem",
        }
    }

    /// `self` if something is wrong.
    pub(super) fn unless(self, fine: bool) -> Self {
        if fine { Self::Ok } else { self }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Its name, stable.
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) wanted: String,
    pub(super) why: &'static str,
    /// The command that changes it, if one does.
    pub(super) fix: Option<String>,
    /// The command that changes it back.
    pub(super) undo: Option<String>,
}

/// What the machine is to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) connections: u64,
    pub(super) shards: usize,
    pub(super) backlog: u64,
    /// Ports that the broker listens on; 0 for any.
    pub(super) ports: Vec<u16>,
}

impl Check {
    /// Something that needs no change, or that no command changes.
    pub(super) fn told(name: &'static str, found: String, why: &'static str) -> Self {
        Self {
            name,
            level: Level::Ok,
            wanted: found.clone(),
            found,
            why,
            fix: None,
            undo: None,
        }
    }

    /// What cannot be read here is not judged.
    pub(super) fn unknown(name: &'static str, why: &'static str) -> Self {
        Self::told(name, String::from("cannot be read here"), why)
    }

    /// A setting of the kernel, `net.core.somaxconn`, whose first number is to be at least `least`.
    pub(super) fn sysctl(
        machine: &Machine,
        name: &'static str,
        key: &str,
        least: u64,
        why: &'static str,
    ) -> Self {
        let Some(found) = machine.sysctl(key) else {
            return Self::unknown(name, why);
        };
        let number = found.split_whitespace().next().and_then(|n| n.parse().ok());
        let fine = number.is_some_and(|number: u64| number >= least);
        Self {
            name,
            level: Level::Advice.unless(fine),
            found: format!("{key} = {found}"),
            wanted: format!("at least {least}"),
            why,
            fix: (!fine).then(|| format!("sysctl -w {key}={least}")),
            undo: (!fine).then(|| format!("sysctl -w {key}='{found}'")),
        }
    }
}
