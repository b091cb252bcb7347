//! Rules of who may read and write which topics, compiled into a tree by level.
//!
//! A topic walks down all rules at once: a name of ten levels among 10,000 rules looks into some ten
//! nodes, not at 10,000 filters. Every node knows what lies below it, so that a subscription to `#` is
//! judged by looking at one.
//!
//! Invariants: names that begin with `$` have a tree of their own, which no leading wildcard gets into;
//! a client id or user name stands for exactly one level and never for a wildcard; walking over a filter
//! looks at no more than [`MAX_ACL_STEPS`] nodes and then claims no more than it knows.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{Client, Reach};
use crate::limits::MAX_ACL_STEPS;
use crate::topic::{Filter, Name, TopicError};

/// What somebody wants to do with the messages of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Receive them.
    Read,
    /// Publish them.
    Write,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Messages may be received.
    Read,
    /// Messages may be published.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever another rule says.
    Deny,
}

/// Whether `%c` and `%u` in a rule stand for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholders {
    /// They are two characters like others.
    Literal,
    /// They stand for the client id and the user name.
    Replaced,
}

/// What all rules together say, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict(u8);

/// What rules say of a topic filter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    /// Of rules that hold for every topic that it matches.
    covering: Verdict,
    /// Of rules that hold for some topic that it may match.
    touching: Verdict,
}

/// A set of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    plain: Node,
    dollar: Node,
    count: usize,
    /// Whether some rule that denies depends on these.
    denies_by_client_id: bool,
    denies_by_username: bool,
}

/// A level of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    children: HashMap<Box<str>, Node, foldhash::fast::FixedState>,
    plus: Option<Box<Node>>,
    templates: Vec<(Template, Node)>,
    /// Of rules that end here.
    here: Verdict,
    /// Of rules that go on with `#`, which holds for this level too.
    rest: Verdict,
    /// Of all rules from here on.
    below: Verdict,
}

/// A level with `%c` or `%u` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(SmallVec<[Part; 3]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    ClientId,
    Username,
}

impl Verdict {
    const READ: u8 = 1;
    const WRITE: u8 = 2;
    const DENY: u8 = 4;

    pub(super) const DENIED: Self = Self(Self::DENY);

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Together with `other`.
    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Only what it denies.
    pub(super) const fn denials(self) -> Self {
        Self(self.0 & Self::DENY)
    }

    const fn denies(self) -> bool {
        self.0 & Self::DENY != 0
    }

    pub(super) const fn allows(self, access: Access) -> bool {
        let wanted = match access {
            Access::Read => Self::READ,
            Access::Write => Self::WRITE,
        };
        self.0 & wanted != 0 && !self.denies()
    }
}

impl From<Rule> for Verdict {
    fn from(rule: Rule) -> Self {
        Self(match rule {
            Rule::Read => Self::READ,
            Rule::Write => Self::WRITE,
            Rule::ReadWrite => Self::READ | Self::WRITE,
            Rule::Deny => Self::DENY,
        })
    }
}

impl Extent {
    /// Together with what other rules say.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            covering: self.covering.with(other.covering),
            touching: self.touching.with(other.touching),
        }
    }

    /// Only what it denies.
    pub(super) fn denials(self) -> Self {
        Self {
            covering: self.covering.denials(),
            touching: self.touching.denials(),
        }
    }

    /// How much may be received.
    pub(super) fn reach(self) -> Reach {
        let touched = self.touching.0 & Verdict::READ != 0;
        if !touched || self.covering.denies() {
            Reach::Nothing
        } else if self.covering.allows(Access::Read) && !self.touching.denies() {
            Reach::All
        } else {
            Reach::Part
        }
    }
}

impl Rules {
    /// Those that allow everything but `$`-topics: what stands for rules that are not known any more, where
    /// others can still take from it.
    #[must_use]
    pub fn everything() -> Self {
        let mut rules = Self::default();
        let added = rules.add("#", Rule::ReadWrite, Placeholders::Literal);
        debug_assert_eq!(added, Ok(()));
        rules
    }

    /// Adds a rule for the topics that `filter` matches.
    ///
    /// # Errors
    /// If `filter` is none.
    pub fn add(
        &mut self,
        filter: &str,
        rule: Rule,
        placeholders: Placeholders,
    ) -> Result<(), TopicError> {
        Filter::parse(filter)?;
        let verdict = Verdict::from(rule);
        let dollar = filter.starts_with('$');
        let mut node = if dollar {
            &mut self.dollar
        } else {
            &mut self.plain
        };
        node.below.add(verdict);
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            if level == "#" {
                node.rest.add(verdict);
                self.count += 1;
                return Ok(());
            }
            node = match Template::parse(level, placeholders) {
                Some(template) => {
                    if rule == Rule::Deny {
                        self.denies_by_client_id |= template.0.contains(&Part::ClientId);
                        self.denies_by_username |= template.0.contains(&Part::Username);
                    }
                    node.under(template)
                }
                None if level == "+" => node.plus.get_or_insert_default(),
                None => node.children.entry(level.into()).or_default(),
            };
            node.below.add(verdict);
            if levels.peek().is_none() {
                node.here.add(verdict);
            }
        }
        self.count += 1;
        Ok(())
    }

    /// How many rules were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `client` may do that, if these are all the rules there are.
    #[must_use]
    pub fn allow(&self, client: &Client<'_>, topic: Name<'_>, access: Access) -> bool {
        self.verdict(client, topic).allows(access)
    }

    /// How much of what `filter` matches `client` may receive, if these are all the rules there are.
    #[must_use]
    pub fn reach(&self, client: &Client<'_>, filter: Filter<'_>) -> Reach {
        self.extent(client, filter).reach()
    }

    /// What they say of `topic`.
    pub(super) fn verdict(&self, client: &Client<'_>, topic: Name<'_>) -> Verdict {
        if self.cannot_be_judged(client) {
            return Verdict::DENIED;
        }
        let mut verdict = Verdict::default();
        let mut nodes: SmallVec<[&Node; 8]> = SmallVec::new();
        let mut next: SmallVec<[&Node; 8]> = SmallVec::new();
        nodes.push(self.root(topic.as_str()));
        for level in topic.as_str().split('/') {
            for node in &nodes {
                verdict.add(node.rest);
                next.extend(node.children.get(level));
                next.extend(node.plus.as_deref());
                next.extend(node.templates_for(level, client));
            }
            std::mem::swap(&mut nodes, &mut next);
            next.clear();
        }
        for node in &nodes {
            verdict.add(node.here.with(node.rest));
        }
        verdict
    }

    /// What they say of the topics that `filter` matches.
    pub(super) fn extent(&self, client: &Client<'_>, filter: Filter<'_>) -> Extent {
        let mut extent = Extent::default();
        if self.cannot_be_judged(client) {
            extent.covering = Verdict::DENIED;
            return extent;
        }
        // Whether a node was reached by what holds for every topic of the filter.
        let mut nodes: SmallVec<[(&Node, bool); 8]> = SmallVec::new();
        let mut next: SmallVec<[(&Node, bool); 8]> = SmallVec::new();
        nodes.push((self.root(filter.as_str()), true));
        let mut steps = 0;
        for level in filter.as_str().split('/') {
            for &(node, covers) in &nodes {
                extent.add(node.rest, covers);
                match level {
                    "#" => extent.touching.add(node.below),
                    "+" => {
                        steps += node.children.len() + node.templates.len();
                        if steps > MAX_ACL_STEPS {
                            extent.touching.add(node.below);
                            continue;
                        }
                        next.extend(node.children.values().map(|child| (child, false)));
                        next.extend(node.templates.iter().map(|(_, child)| (child, false)));
                        next.extend(node.plus.as_deref().map(|child| (child, covers)));
                    }
                    _ => {
                        next.extend(node.children.get(level).map(|child| (child, covers)));
                        next.extend(node.plus.as_deref().map(|child| (child, covers)));
                        let templates = node.templates_for(level, client);
                        next.extend(templates.map(|child| (child, covers)));
                    }
                }
            }
            if level == "#" {
                return extent;
            }
            std::mem::swap(&mut nodes, &mut next);
            next.clear();
            steps += nodes.len();
        }
        for (node, covers) in nodes {
            extent.add(node.here.with(node.rest), covers);
        }
        extent
    }

    fn root(&self, topic: &str) -> &Node {
        if topic.starts_with('$') {
            &self.dollar
        } else {
            &self.plain
        }
    }

    /// Whether something must be denied by a name that is no level of a topic, so that nobody can say
    /// what.
    fn cannot_be_judged(&self, client: &Client<'_>) -> bool {
        self.denies_by_client_id && !is_level(client.client_id)
            || self.denies_by_username && client.username().is_some_and(|name| !is_level(name))
    }
}

impl Extent {
    fn add(&mut self, verdict: Verdict, covers: bool) {
        self.touching.add(verdict);
        if covers {
            self.covering.add(verdict);
        }
    }
}

impl Node {
    fn under(&mut self, template: Template) -> &mut Self {
        let found = self
            .templates
            .iter()
            .position(|(known, _)| *known == template);
        let index = found.unwrap_or_else(|| {
            self.templates.push((template, Self::default()));
            self.templates.len() - 1
        });
        &mut self.templates[index].1
    }

    fn templates_for(&self, level: &str, client: &Client<'_>) -> impl Iterator<Item = &Self> {
        let fitting = self
            .templates
            .iter()
            .filter(move |(template, _)| template.is(level, client));
        fitting.map(|(_, node)| node)
    }
}

impl Template {
    fn parse(level: &str, placeholders: Placeholders) -> Option<Self> {
        if placeholders == Placeholders::Literal {
            return None;
        }
        let mut parts = SmallVec::new();
        let mut rest = level;
        while let Some(at) = rest.find("%c").into_iter().chain(rest.find("%u")).min() {
            if at > 0 {
                parts.push(Part::Text(rest[..at].into()));
            }
            parts.push(if rest[at..].starts_with("%c") {
                Part::ClientId
            } else {
                Part::Username
            });
            rest = &rest[at + 2..];
        }
        if parts.is_empty() {
            return None;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Some(Self(parts))
    }

    /// Whether it stands for `level`, for this client.
    fn is(&self, level: &str, client: &Client<'_>) -> bool {
        let mut rest = level;
        for part in &self.0 {
            let text = match part {
                Part::Text(text) => Some(&**text),
                Part::ClientId => Some(client.client_id).filter(|id| is_level(id)),
                Part::Username => client.username().filter(|name| is_level(name)),
            };
            match text.and_then(|text| rest.strip_prefix(text)) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

/// Whether a name can stand for one level of a topic, and for nothing else.
pub(super) fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '/'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Grant;
    use super::*;

    const NOBODY: Client<'static> = Client {
        number: 1,
        client_id: "car",
        grant: None,
    };

    fn rules(list: &[(&str, Rule)]) -> Rules {
        let mut rules = Rules::default();
        for (filter, rule) in list {
            rules.add(filter, *rule, Placeholders::Replaced).unwrap();
        }
        rules
    }

    fn reads(rules: &Rules, client: &Client<'_>, topic: &str) -> bool {
        rules.allow(client, Name::parse(topic).unwrap(), Access::Read)
    }

    fn reach(rules: &Rules, filter: &str) -> Reach {
        rules
            .extent(&NOBODY, Filter::parse(filter).unwrap())
            .reach()
    }

    #[test]
    fn what_no_rule_allows_is_denied_and_what_one_denies_stays_denied() {
        let rules = rules(&[
            ("a/#", Rule::ReadWrite),
            ("a/secret/+", Rule::Deny),
            ("b", Rule::Write),
        ]);
        for (topic, expected) in [
            ("a", true),
            ("a/b/c", true),
            ("a/secret", true),
            ("a/secret/x", false),
            ("a/secret/x/y", true),
            ("b", false),
            ("c", false),
        ] {
            assert_eq!(reads(&rules, &NOBODY, topic), expected, "{topic}");
        }
        assert!(rules.allow(&NOBODY, Name::parse("b").unwrap(), Access::Write));
    }

    #[test]
    fn a_leading_wildcard_does_not_reach_what_begins_with_a_dollar() {
        let all = rules(&[("#", Rule::Read), ("+/x", Rule::Read)]);
        assert!(!reads(&all, &NOBODY, "$SYS/x"));
        assert_eq!(reach(&all, "$SYS/#"), Reach::Nothing);
        let system = rules(&[("$SYS/#", Rule::Read)]);
        assert!(reads(&system, &NOBODY, "$SYS/x"));
        assert_eq!(reach(&system, "#"), Reach::Nothing);
        let named = Client {
            client_id: "$SYS",
            ..NOBODY
        };
        assert!(!reads(&rules(&[("%c/#", Rule::Read)]), &named, "$SYS/x"));
    }

    #[test]
    fn a_name_stands_for_one_level_and_for_no_wildcard() {
        let own = rules(&[("car/%c/#", Rule::Read), ("u-%u/x", Rule::Read)]);
        let grant = |name: &str| Grant {
            username: Some(name.into()),
            ..Grant::default()
        };
        let anna = grant("anna");
        fn client<'a>(client_id: &'a str, grant: Option<&'a Grant>) -> Client<'a> {
            Client {
                number: 1,
                client_id,
                grant,
            }
        }
        assert!(reads(&own, &client("7", Some(&anna)), "car/7/speed"));
        assert!(reads(&own, &client("7", Some(&anna)), "u-anna/x"));
        assert!(!reads(&own, &client("7", Some(&anna)), "car/8/speed"));
        assert!(!reads(&own, &client("7", None), "u-/x"));
        for hostile in ["+", "#", "7/8", "", "%c", "%u"] {
            let name = grant(hostile);
            let client = client(hostile, Some(&name));
            assert!(!reads(&own, &client, "car/7/8"), "{hostile}");
            assert!(!reads(&own, &client, "car/7/speed"), "{hostile}");
            let filter = Filter::parse("car/+/#").unwrap();
            assert_ne!(own.extent(&client, filter).reach(), Reach::All, "{hostile}");
        }
    }

    #[test]
    fn who_cannot_be_judged_by_a_rule_that_denies_gets_nothing() {
        let rules = rules(&[("#", Rule::Read), ("secret/%c/#", Rule::Deny)]);
        let client = |client_id| Client {
            client_id,
            ..NOBODY
        };
        assert!(reads(&rules, &client("7"), "a") && !reads(&rules, &client("7"), "secret/7/a"));
        assert!(!reads(&rules, &client("7/8"), "a"));
        let filter = Filter::parse("a").unwrap();
        assert_eq!(rules.extent(&client("+"), filter).reach(), Reach::Nothing);
    }

    #[test]
    fn a_subscription_reaches_all_some_or_nothing() {
        let rules = rules(&[
            ("a/#", Rule::Read),
            ("b/+/c", Rule::Read),
            ("a/x/secret", Rule::Deny),
            ("w/#", Rule::Write),
        ]);
        for (filter, expected) in [
            ("a/b", Reach::All),
            ("a/b/#", Reach::All),
            ("a/x/#", Reach::Part),
            ("a/+/secret", Reach::Part),
            ("a/x/secret", Reach::Nothing),
            ("#", Reach::Part),
            ("+", Reach::Part), // `a` itself
            ("b/1/c", Reach::All),
            ("b/+/c", Reach::All),
            ("b/+/+", Reach::Part),
            ("b/#", Reach::Part),
            ("c", Reach::Nothing),
            ("w/#", Reach::Nothing),
        ] {
            assert_eq!(reach(&rules, filter), expected, "{filter}");
        }
    }

    #[test]
    fn a_wide_tree_is_not_walked_for_ever() {
        let mut rules = Rules::default();
        for number in 0..20_000 {
            let filter = format!("{number}/x");
            rules
                .add(&filter, Rule::Read, Placeholders::Literal)
                .unwrap();
        }
        assert_eq!(reach(&rules, "+/x"), Reach::Part);
        assert_eq!(reach(&rules, "7/x"), Reach::All);
    }

    const LEVELS: &[&str] = &["a", "b", "", "%c", "x%c"];

    fn filters() -> impl Strategy<Value = String> {
        let level = prop_oneof![
            4 => proptest::sample::select(LEVELS).prop_map(str::to_owned),
            2 => Just("+".to_owned()),
        ];
        let first = proptest::sample::select(&["a", "b", "+", "$d", "%c"][..]);
        (first, proptest::collection::vec(level, 0..3), any::<bool>()).prop_map(
            |(first, mut levels, all)| {
                levels.insert(0, first.to_owned());
                if all {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            },
        )
    }

    fn names() -> impl Strategy<Value = String> {
        let level = proptest::sample::select(&["a", "b", "", "car", "xcar", "$d"][..]);
        proptest::collection::vec(level, 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a name is not empty", |name| !name.is_empty())
    }

    fn rule() -> impl Strategy<Value = Rule> {
        proptest::sample::select(&[Rule::Read, Rule::Write, Rule::ReadWrite, Rule::Deny][..])
    }

    proptest! {
        /// Against each filter by itself, with the placeholder written out.
        #[test]
        fn the_tree_says_what_the_list_says(
            list in proptest::collection::vec((filters(), rule()), 0..8),
            name in names(),
            filter in filters(),
        ) {
            let list: Vec<_> = list.iter().map(|(filter, rule)| (&**filter, *rule)).collect();
            let rules = rules(&list);
            let topic = Name::parse(&name).unwrap();
            let hits = |(pattern, _): &&(&str, Rule)| {
                let text = pattern.replace("%c", "car");
                Filter::parse(&text).unwrap().matches(topic)
            };
            let hit: Vec<Rule> = list.iter().filter(hits).map(|(_, rule)| *rule).collect();
            let denied = hit.contains(&Rule::Deny);
            let read = hit.iter().any(|rule| matches!(rule, Rule::Read | Rule::ReadWrite));
            let write = hit.iter().any(|rule| matches!(rule, Rule::Write | Rule::ReadWrite));
            prop_assert_eq!(rules.allow(&NOBODY, topic, Access::Read), read && !denied);
            prop_assert_eq!(rules.allow(&NOBODY, topic, Access::Write), write && !denied);
            // What a filter is said to reach holds for every topic that it matches.
            let filter = filter.replace("%c", "car");
            let filter = Filter::parse(&filter).unwrap();
            if filter.matches(topic) {
                match rules.extent(&NOBODY, filter).reach() {
                    Reach::All => prop_assert!(read && !denied),
                    Reach::Nothing => prop_assert!(!read || denied),
                    Reach::Part => {}
                }
            }
        }
    }
}
