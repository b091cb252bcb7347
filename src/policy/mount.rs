//! Mount points: a client's topics are those of the broker that begin with its mount, which is put before
//! every name and filter that it sends and taken off what it gets. So tenants share a broker and see
//! nothing of each other.
//!
//! Invariants:
//! - A mount ends with `/` and begins with neither `/` nor `$`, so two mounts are equal, or one lies within the other by
//!   whole levels, or their topics have nothing in common.
//! - What stands for a placeholder is one level and never a wildcard; who has no such name does not come in.
//! - A client with a mount neither names nor sees what would be a `$`-topic to it, nor the topic that
//!   would be empty.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use super::rules::is_level;
use crate::limits::{MAX_MOUNT_POINT, MAX_STRING};
use crate::topic::{HISTORY_PREFIX, Name, SHARE_PREFIX, TopicError};

/// A mount point as it is configured: `%c` and `%u` in it stand for the client id and the user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint(Box<str>);

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMountPoint {
    /// It does not end with `/`, or has nothing before that.
    NoLevel,
    /// It begins with `/` or `$`.
    Beginning,
    /// There is a wildcard or U+0000 in it.
    Character,
    /// It has more than [`MAX_MOUNT_POINT`] bytes.
    TooLong,
}

impl fmt::Display for BadMountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLevel => f.write_str("it must be levels of a topic and a / behind them"),
            Self::Beginning => f.write_str("it must not begin with / or $"),
            Self::Character => f.write_str("it must not hold + or #"),
            Self::TooLong => write!(f, "it must not have more than {MAX_MOUNT_POINT} bytes"),
        }
    }
}

impl std::error::Error for BadMountPoint {}

impl MountPoint {
    /// Checks `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadMountPoint> {
        if text.len() > MAX_MOUNT_POINT {
            return Err(BadMountPoint::TooLong);
        }
        if text.starts_with(['/', '$']) {
            return Err(BadMountPoint::Beginning);
        }
        if !text.ends_with('/') {
            return Err(BadMountPoint::NoLevel);
        }
        if text.contains(['+', '#', '\0']) {
            return Err(BadMountPoint::Character);
        }
        Ok(Self(text.into()))
    }

    /// As it was configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The mount of this client; `None` if a name that it needs is missing or no level of a topic.
    #[must_use]
    pub fn of(&self, client_id: &str, username: Option<&str>) -> Option<Mount> {
        let mut mount = String::with_capacity(self.0.len());
        let mut rest = &*self.0;
        while let Some(at) = rest.find("%c").into_iter().chain(rest.find("%u")).min() {
            let (before, after) = rest.split_at(at);
            let name = if after.starts_with("%c") {
                client_id
            } else {
                username?
            };
            if !is_level(name) {
                return None;
            }
            mount += before;
            mount += name;
            rest = &after[2..];
        }
        mount += rest;
        let fits = mount.len() <= MAX_MOUNT_POINT && !mount.starts_with('$');
        fits.then(|| Mount(mount.into()))
    }
}

/// The mount of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount(Rc<str>);

impl Mount {
    /// One that was stored as a string since; `None` if it is none.
    #[must_use]
    pub fn restored(text: &str) -> Option<Self> {
        MountPoint::parse(text).ok()?;
        Some(Self(text.into()))
    }

    /// It, with the `/` at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> u16 {
        const { assert!(MAX_MOUNT_POINT <= u16::MAX as usize) };
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }

    /// The whole name of what the client calls `topic`, put together in `whole`.
    ///
    /// # Errors
    /// If that is too long or has too many levels.
    pub fn name<'a>(&self, topic: Name<'_>, whole: &'a mut String) -> Result<Name<'a>, TopicError> {
        whole.clear();
        whole.push_str(&self.0);
        whole.push_str(topic.as_str());
        if whole.len() > MAX_STRING {
            return Err(TopicError::TooManyLevels);
        }
        Name::parse(whole)
    }

    /// The whole of a filter that the client names, `$share` or `$history` in front. What is no filter stays
    /// none.
    #[must_use]
    pub fn filter(&self, text: &str) -> String {
        let history = text.strip_prefix(HISTORY_PREFIX);
        if let Some((range, filter)) = history.and_then(|rest| rest.split_once('/'))
            && !filter.is_empty()
        {
            return format!("{HISTORY_PREFIX}{range}/{}{filter}", self.0);
        }
        let shared = text.strip_prefix(SHARE_PREFIX);
        match shared.and_then(|rest| rest.split_once('/')) {
            // The empty filter is none, with a mount before it too.
            Some((_, "")) => text.to_owned(),
            Some((group, filter)) => format!("{SHARE_PREFIX}{group}/{}{filter}", self.0),
            None if shared.is_some() || text.is_empty() || text == "$share" => text.to_owned(),
            None => format!("{}{text}", self.0),
        }
    }

    /// Whether a client with this mount may name, or get, what has this whole name or filter.
    #[must_use]
    pub fn shows(&self, whole: &str) -> bool {
        let seen = whole.strip_prefix(&*self.0);
        seen.is_some_and(|seen| !seen.is_empty() && !seen.starts_with('$'))
    }
}

/// The whole of a filter that a client names, with the mount that it may have.
pub(crate) fn whole_filter<'a>(mount: Option<&Mount>, filter: &'a str) -> Cow<'a, str> {
    mount.map_or(Cow::Borrowed(filter), |mount| {
        Cow::Owned(mount.filter(filter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Mount {
        Mount::restored(text).unwrap()
    }

    #[test]
    fn a_mount_point_is_whole_levels() {
        for good in ["a/", "a/b/", "tenants/%u/", "%c/", "a//"] {
            assert_eq!(MountPoint::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", BadMountPoint::NoLevel),
            ("a", BadMountPoint::NoLevel),
            ("/", BadMountPoint::Beginning),
            ("/a/", BadMountPoint::Beginning),
            ("$SYS/", BadMountPoint::Beginning),
            ("a/+/", BadMountPoint::Character),
            ("#/", BadMountPoint::Character),
            ("a\0/", BadMountPoint::Character),
        ] {
            assert_eq!(MountPoint::parse(bad), Err(why), "{bad:?}");
        }
        let long = "x".repeat(MAX_MOUNT_POINT) + "/";
        assert_eq!(MountPoint::parse(&long), Err(BadMountPoint::TooLong));
    }

    #[test]
    fn a_name_in_a_mount_is_one_level() {
        let point = MountPoint::parse("t/%u/x%c/").unwrap();
        let of = |client, user| point.of(client, user).map(|mount| mount.0.to_string());
        assert_eq!(of("c", Some("anna")).as_deref(), Some("t/anna/xc/"));
        assert_eq!(of("%u", Some("%c")).as_deref(), Some("t/%c/x%u/"));
        assert_eq!(of("c", None), None);
        for name in ["", "a/b", "+", "a#"] {
            assert_eq!(of("c", Some(name)), None, "{name}");
            assert_eq!(of(name, Some("anna")), None, "{name}");
        }
        let first = MountPoint::parse("%u/").unwrap();
        assert!(first.of("c", Some("$SYS")).is_none());
        assert!(first.of("c", Some(&"x".repeat(MAX_MOUNT_POINT))).is_none());
    }

    #[test]
    fn what_a_client_names_is_put_behind_its_mount() {
        let mount = mount("a/");
        let mut whole = String::new();
        let name = mount.name(Name::parse("x/y").unwrap(), &mut whole);
        assert_eq!(name.unwrap().as_str(), "a/x/y");
        let deep = vec!["x"; crate::limits::MAX_TOPIC_LEVELS].join("/");
        assert!(mount.name(Name::parse(&deep).unwrap(), &mut whole).is_err());
        let long = "x".repeat(MAX_STRING);
        assert!(mount.name(Name::parse(&long).unwrap(), &mut whole).is_err());
        for (filter, whole) in [
            ("#", "a/#"),
            ("/x", "a//x"),
            ("$share/g/+/x", "$share/g/a/+/x"),
            ("$SYS/#", "a/$SYS/#"),
            ("$shared/x", "a/$shared/x"),
            ("$share/g/", "$share/g/"),
            ("$share/g", "$share/g"),
            ("$share", "$share"),
            ("", ""),
        ] {
            assert_eq!(mount.filter(filter), whole);
        }
    }

    #[test]
    fn nothing_else_is_seen() {
        let mount = mount("a/b/");
        assert!(mount.shows("a/b/x") && mount.shows("a/b//"));
        for other in ["a/b", "a/b/", "a/bc", "a/c/x", "b", "a/b/$SYS/x", "$SYS/x"] {
            assert!(!mount.shows(other), "{other}");
        }
    }
}
