//! Topic names and topic filters: checked once, then carried as types that are not checked again.
//!
//! Invariants: a [`Name`] is not empty and has no wildcard and no U+0000; a [`Filter`] is not empty,
//! has `#` only alone in its last level and `+` only alone in a level; both have at most
//! [`MAX_TOPIC_LEVELS`] levels. UTF-8 is checked where bytes become a `str`, in [`crate::wire`].

use crate::limits::MAX_TOPIC_LEVELS;

/// The prefix of a Shared Subscription's topic filter, section 4.8.2 of version 5.
pub const SHARE_PREFIX: &str = "$share/";

/// The prefix of a subscription to history: a range of time and a topic filter follow.
pub const HISTORY_PREFIX: &str = "$history/";

/// Why a string is no topic name or topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// A name or filter has at least one character [MQTT-4.7.3-1].
    Empty,
    /// U+0000 [MQTT-4.7.3-2].
    Nul,
    /// `+` or `#` in a topic name [MQTT-3.3.2-2] [MQTT-4.7.0-1].
    WildcardInName,
    /// `#` that is not alone in the last level [MQTT-4.7.1-1].
    MultiLevelWildcard,
    /// `+` that shares its level [MQTT-4.7.1-2].
    SingleLevelWildcard,
    /// More than [`MAX_TOPIC_LEVELS`] levels.
    TooManyLevels,
    /// `$share` without a ShareName, or with a wildcard in it [MQTT-4.8.2-1].
    ShareName,
    /// `$share/name` without a `/` and a topic filter behind it [MQTT-4.8.2-2].
    ShareFilter,
}

/// A topic name: what a PUBLISH carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Checks `text`, word by word: it is asked for every PUBLISH (26 bytes: 14 ns byte by byte).
    ///
    /// # Errors
    /// The rule that `text` breaks: [MQTT-4.7.3-1] [MQTT-4.7.3-1 3.1.1], [MQTT-4.7.3-2]
    /// [MQTT-4.7.3-2 3.1.1], [MQTT-3.3.2-2] [MQTT-3.3.2-2 3.1.1], [MQTT-4.7.1-1 3.1.1].
    #[inline]
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if any_word(text.as_bytes(), reserved_in_names) {
            return Err(if text.contains('\0') {
                TopicError::Nul
            } else {
                TopicError::WildcardInName
            });
        }
        // A name of so many bytes cannot have more levels.
        if text.len() >= MAX_TOPIC_LEVELS && level_count(text) > MAX_TOPIC_LEVELS {
            return Err(TopicError::TooManyLevels);
        }
        Ok(Self(text))
    }

    /// For text that came out of a [`Name`] and was stored as a string since.
    #[must_use]
    pub(crate) fn trusted(text: &'a str) -> Self {
        debug_assert!(Self::parse(text).is_ok());
        Self(text)
    }

    /// The name as it came.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether a leading wildcard must not match it [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1].
    #[must_use]
    pub fn starts_with_dollar(self) -> bool {
        self.0.as_bytes().first() == Some(&b'$')
    }
}

/// Whether `test` finds something in any byte of `bytes`, eight at a time. `test` gets words in any
/// order, bytes more than once, and may see bytes of value 1 that are not there.
#[inline]
pub(crate) fn any_word(bytes: &[u8], test: impl Fn(u64) -> u64) -> bool {
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        // The last word overlaps the one before it instead of leaving a rest.
        let found = words
            .iter()
            .fold(0, |found, word| found | test(u64::from_ne_bytes(*word)));
        found | test(u64::from_ne_bytes(*last)) != 0
    } else {
        let word = bytes
            .iter()
            .fold(EACH_BYTE, |word, &byte| word << 8 | u64::from(byte));
        test(word) != 0
    }
}

/// The same byte eight times.
const EACH_BYTE: u64 = u64::MAX / 0xFF;

/// Not zero if a byte of `word` is zero.
#[inline]
pub(crate) const fn zero_byte(word: u64) -> u64 {
    word.wrapping_sub(EACH_BYTE) & !word & (EACH_BYTE << 7)
}

/// Not zero if a byte of `word` is not ASCII.
#[inline]
pub(crate) const fn high_bit(word: u64) -> u64 {
    word & (EACH_BYTE << 7)
}

/// Not zero if a byte of `word` is `+`, `#` or U+0000. The two wildcards differ in one bit.
#[inline]
const fn reserved_in_names(word: u64) -> u64 {
    const DIFFERENCE: u8 = b'+' ^ b'#';
    let wildcard = (word | (EACH_BYTE * DIFFERENCE as u64)) ^ (EACH_BYTE * b'+' as u64);
    zero_byte(word) | zero_byte(wildcard)
}

fn level_count(text: &str) -> usize {
    1 + text.bytes().filter(|&byte| byte == b'/').count()
}

/// A topic filter, without any `$share` prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter<'a>(&'a str);

impl<'a> Filter<'a> {
    /// Checks `text` [MQTT-4.7.1-1] [MQTT-4.7.1-2 3.1.1], [MQTT-4.7.1-2] [MQTT-4.7.1-3 3.1.1],
    /// [MQTT-4.7.3-1] [MQTT-4.7.3-1 3.1.1], [MQTT-4.7.3-2] [MQTT-4.7.3-2 3.1.1].
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        let mut levels = 0;
        let mut ended = false;
        for level in text.split('/') {
            levels += 1;
            if ended {
                return Err(TopicError::MultiLevelWildcard);
            }
            match level {
                "#" => ended = true,
                "+" => {}
                _ if level.contains('#') => return Err(TopicError::MultiLevelWildcard),
                _ if level.contains('+') => return Err(TopicError::SingleLevelWildcard),
                _ if level.contains('\0') => return Err(TopicError::Nul),
                _ => {}
            }
        }
        if levels > MAX_TOPIC_LEVELS {
            return Err(TopicError::TooManyLevels);
        }
        Ok(Self(text))
    }

    /// For text that came out of a [`Filter`] and was stored as a string since.
    #[must_use]
    pub(crate) fn trusted(text: &'a str) -> Self {
        debug_assert!(Self::parse(text).is_ok());
        Self(text)
    }

    /// The filter as it came.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it holds `+` or `#`.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether `name` matches, by section 4.7 of both standards: the naive reading, level by level,
    /// that everything faster is tested against.
    #[must_use]
    pub fn matches(self, name: Name<'_>) -> bool {
        if name.starts_with_dollar() && matches!(self.0.as_bytes().first(), Some(b'+' | b'#')) {
            return false; // [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1]
        }
        let mut levels = name.0.split('/');
        for wanted in self.0.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true, // also "sport/#" for "sport"
                (_, None) => return false,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether every name that `other` matches is matched by this one.
    #[must_use]
    pub fn covers(self, other: Filter<'_>) -> bool {
        let leads = |filter: Filter<'_>, with: &[u8]| {
            filter
                .0
                .as_bytes()
                .first()
                .is_some_and(|first| with.contains(first))
        };
        if leads(other, b"$") && leads(self, b"+#") {
            return false; // [MQTT-4.7.2-1]
        }
        let mut others = other.0.split('/');
        for mine in self.0.split('/') {
            match (mine, others.next()) {
                ("#", _) => return true,
                (_, None) | (_, Some("#")) => return false,
                ("+", Some(_)) => {}
                (mine, Some(level)) if mine == level => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

/// What a SUBSCRIBE or UNSUBSCRIBE names: a filter, and the group where it is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscription<'a> {
    /// The ShareName of `$share/name/filter`.
    pub share: Option<&'a str>,
    /// What topic names are matched against.
    pub filter: Filter<'a>,
}

impl<'a> Subscription<'a> {
    /// Takes `text` apart [MQTT-4.8.2-1] [MQTT-4.8.2-2].
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        if text == "$share" {
            return Err(TopicError::ShareName);
        }
        let Some(rest) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(Self {
                share: None,
                filter: Filter::parse(text)?,
            });
        };
        let (name, filter) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() || name.contains(['+', '#', '\0']) {
            return Err(TopicError::ShareName);
        }
        if filter.is_empty() {
            return Err(TopicError::ShareFilter);
        }
        Ok(Self {
            share: Some(name),
            filter: Filter::parse(filter)?,
        })
    }

    /// The text that it was parsed from.
    #[must_use]
    pub fn to_text(self) -> String {
        let filter = self.filter.as_str();
        self.share.map_or_else(
            || filter.to_owned(),
            |name| format!("{SHARE_PREFIX}{name}/{filter}"),
        )
    }

    /// For text that was parsed before and stored as a string since.
    #[must_use]
    pub(crate) fn trusted(text: &'a str) -> Self {
        match text
            .strip_prefix(SHARE_PREFIX)
            .and_then(|rest| rest.split_once('/'))
        {
            Some((name, filter)) => Self {
                share: Some(name),
                filter: Filter::trusted(filter),
            },
            None => Self {
                share: None,
                filter: Filter::trusted(text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(filter: &str, name: &str) -> bool {
        Filter::parse(filter)
            .unwrap()
            .matches(Name::parse(name).unwrap())
    }

    #[test]
    fn names() {
        for name in [
            "a",
            "/",
            "//",
            "sport/tennis",
            "$SYS/x",
            " ",
            "état/車/\u{feff}",
            "a/",
        ] {
            assert_eq!(Name::parse(name).map(Name::as_str), Ok(name));
        }
        // [MQTT-4.7.3-1] [MQTT-4.7.3-1 3.1.1]
        assert_eq!(Name::parse(""), Err(TopicError::Empty));
        // [MQTT-4.7.3-2] [MQTT-4.7.3-2 3.1.1]
        assert_eq!(Name::parse("a\0"), Err(TopicError::Nul));
        // [MQTT-3.3.2-2] [MQTT-3.3.2-2 3.1.1] [MQTT-4.7.1-1 3.1.1]
        for name in [
            "+",
            "#",
            "a/+",
            "a+",
            "a#b/c",
            "0123456789/+",
            "+/0123456789abcdef",
        ] {
            assert_eq!(Name::parse(name), Err(TopicError::WildcardInName), "{name}");
        }
        let deepest = "/".repeat(MAX_TOPIC_LEVELS - 1);
        assert!(Name::parse(&deepest).is_ok());
        assert_eq!(
            Name::parse(&(deepest + "/")),
            Err(TopicError::TooManyLevels)
        );
        assert!(Name::parse(&"x".repeat(10 * MAX_TOPIC_LEVELS)).is_ok());
    }

    #[test]
    fn filters() {
        for filter in [
            "#", "+", "a/#", "+/+", "/+", "a/+/b", "/#", "$SYS/#", "+/a/#",
        ] {
            assert_eq!(Filter::parse(filter).map(Filter::as_str), Ok(filter));
        }
        assert_eq!(Filter::parse(""), Err(TopicError::Empty));
        assert_eq!(Filter::parse("a/\0"), Err(TopicError::Nul));
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2 3.1.1]
        for filter in ["a#", "a/#/b", "#/", "##", "a/b#", "#+"] {
            assert_eq!(
                Filter::parse(filter),
                Err(TopicError::MultiLevelWildcard),
                "{filter}"
            );
        }
        // [MQTT-4.7.1-2] [MQTT-4.7.1-3 3.1.1]
        for filter in ["a+", "+a", "a/+b/c", "++"] {
            assert_eq!(
                Filter::parse(filter),
                Err(TopicError::SingleLevelWildcard),
                "{filter}"
            );
        }
        let deep = "+/".repeat(MAX_TOPIC_LEVELS);
        assert_eq!(Filter::parse(&deep), Err(TopicError::TooManyLevels));
        assert!(Filter::parse(&deep[..deep.len() - 1]).is_ok());
        assert!(Filter::parse("a/+").unwrap().has_wildcard());
        assert!(!Filter::parse("a/b").unwrap().has_wildcard());
    }

    #[test]
    fn matching_by_the_examples_of_the_standard() {
        for name in ["sport/tennis/player1", "sport/tennis/player1/ranking"] {
            assert!(matches("sport/tennis/player1/#", name));
        }
        assert!(matches("sport/#", "sport") && matches("#", "a/b"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport") && matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance") && matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(!matches("ACCOUNTS", "Accounts") && !matches("a", "/a") && !matches("/a", "a"));
        // [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1]
        for filter in ["#", "+/monitor/Clients", "+/#"] {
            assert!(!matches(filter, "$SYS/monitor/Clients"), "{filter}");
        }
        assert!(matches("$SYS/#", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
    }

    #[test]
    fn a_filter_covers_what_matches_no_more() {
        let covers = |one: &str, other: &str| {
            Filter::parse(one)
                .unwrap()
                .covers(Filter::parse(other).unwrap())
        };
        for (one, other) in [
            ("#", "a/#"),
            ("#", "#"),
            ("#", "+/+"),
            ("a/#", "a"),
            ("a/#", "a/+/b"),
            ("a/#", "a/#"),
            ("+", "a"),
            ("a/+", "a/+"),
            ("$SYS/#", "$SYS/+"),
            ("a/+/c", "a/b/c"),
            ("+/", "a/"),
        ] {
            assert!(covers(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("a", "+"),
            ("a/+", "a/#"),
            ("+", "#"),
            ("+/#", "#"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+", "a"),
            ("a/+/c", "a/+/+"),
            ("#", "$SYS/#"),
        ] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    #[test]
    fn shared_subscriptions() {
        let shared = Subscription::parse("$share/group/a/+").unwrap();
        assert_eq!(
            (shared.share, shared.filter.as_str()),
            (Some("group"), "a/+")
        );
        let plain = Subscription::parse("$shared/x").unwrap();
        assert_eq!((plain.share, plain.filter.as_str()), (None, "$shared/x"));
        let rooted = Subscription::parse("$share/g//x").unwrap();
        assert_eq!((rooted.share, rooted.filter.as_str()), (Some("g"), "/x"));
        // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        for text in [
            "$share",
            "$share/",
            "$share//x",
            "$share/a+b/x",
            "$share/#/x",
            "$share/g\0/x",
        ] {
            assert_eq!(
                Subscription::parse(text),
                Err(TopicError::ShareName),
                "{text}"
            );
        }
        for text in ["$share/g", "$share/g/"] {
            assert_eq!(
                Subscription::parse(text),
                Err(TopicError::ShareFilter),
                "{text}"
            );
        }
        assert_eq!(
            Subscription::parse("$share/g/a#"),
            Err(TopicError::MultiLevelWildcard)
        );
        assert_eq!(Subscription::trusted("$share/group/a/+"), shared);
        assert_eq!(Subscription::trusted("$shared/x"), plain);
    }

    /// Section 4.7 by recursion over levels, where [`Filter::matches`] iterates.
    fn model(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, name @ ..]) => model(filter, name),
            ([wanted, filter @ ..], [level, name @ ..]) => wanted == level && model(filter, name),
            _ => false,
        }
    }

    fn text() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            4 => prop::sample::select(vec!['a', 'b', '/', '/', '+', '#', '$', '\0', 'é']),
            1 => any::<char>(),
        ];
        prop::collection::vec(character, 0..24)
            .prop_map(|characters| characters.into_iter().collect())
    }

    fn levels() -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+", "$x"]), 1..6)
    }

    proptest! {
        #[test]
        fn a_name_is_text_without_four_things(text in text()) {
            let expected = !text.is_empty() && !text.contains(['+', '#', '\0']);
            prop_assert_eq!(Name::parse(&text).is_ok(), expected);
        }

        #[test]
        fn a_filter_has_wildcards_alone_in_their_levels(text in text()) {
            let levels: Vec<_> = text.split('/').collect();
            let (last, front) = levels.split_last().unwrap();
            let is_plain = |level: &str| level == "+" || !level.contains(['+', '#']);
            let expected = !text.is_empty()
                && !text.contains('\0')
                && front.iter().all(|level| is_plain(level))
                && (*last == "#" || is_plain(last));
            prop_assert_eq!(Filter::parse(&text).is_ok(), expected);
        }

        #[test]
        fn matching_is_what_the_recursive_reading_says(
            mut filter in levels(),
            open in any::<bool>(),
            name in levels().prop_map(|levels| levels.join("/").replace('+', "c")),
        ) {
            if open {
                filter.push("#");
            }
            let text = filter.join("/");
            prop_assume!(!name.is_empty() && !text.is_empty());
            let hidden = name.starts_with('$') && text.starts_with(['+', '#']);
            let expected = !hidden && model(&filter, &name.split('/').collect::<Vec<_>>());
            prop_assert_eq!(matches(&text, &name), expected);
        }

        #[test]
        fn words_are_looked_at_whole(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(any_word(&bytes, zero_byte), bytes.contains(&0));
            prop_assert_eq!(any_word(&bytes, high_bit), !bytes.is_ascii());
            let reserved = bytes.iter().any(|byte| matches!(byte, b'+' | b'#' | 0));
            prop_assert_eq!(any_word(&bytes, reserved_in_names), reserved);
        }
    }
}
