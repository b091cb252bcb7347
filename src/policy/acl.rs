//! An ACL file in mosquitto's format, and what all of it says of one client.
//!
//! ```text
//! topic read news/#              for who came in as nobody
//! user anna
//! topic readwrite car/7/#
//! topic deny car/7/secret
//! pattern write car/%c/speed     for everybody: %c the client id, %u the user name
//! ```
//!
//! What no rule allows is denied, and what one denies stays denied. Unlike in mosquitto a pattern that
//! denies wins over a user's rule that allows, too.

use std::fmt;

use hashbrown::HashMap;

use super::rules::{Access, Extent, Placeholders, Rule, Rules, Verdict};
use super::{Client, Reach, is_user_name};
use crate::topic::{Filter, Name, TopicError};

/// The rules of an ACL file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    nobody: Rules,
    users: HashMap<Box<str>, Rules, foldhash::fast::RandomState>,
    patterns: Rules,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    /// The line, counted from one.
    pub line: usize,
    /// What is wrong.
    pub problem: AclProblem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclProblem {
    /// It begins with another word than `user`, `topic` and `pattern`.
    UnknownWord(String),
    /// Nothing stands behind the word.
    Nothing,
    /// A user name that no client can have.
    BadName,
    /// No topic filter.
    BadFilter(String, TopicError),
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.problem {
            AclProblem::UnknownWord(word) => {
                write!(f, "`{word}` is none of user, topic and pattern")
            }
            AclProblem::Nothing => f.write_str("nothing stands behind the word"),
            AclProblem::BadName => f.write_str("a user name that no client can send"),
            AclProblem::BadFilter(filter, TopicError::MultiLevelWildcard) => {
                write!(f, "`{filter}`: # stands only alone in the last level")
            }
            AclProblem::BadFilter(filter, TopicError::SingleLevelWildcard) => {
                write!(f, "`{filter}`: + stands only alone in a level")
            }
            AclProblem::BadFilter(filter, _) => write!(f, "`{filter}` is no topic filter"),
        }
    }
}

impl std::error::Error for AclError {}

impl Acl {
    /// Reads an ACL file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        let mut acl = Self::default();
        let mut user: Option<&str> = None;
        for (index, line) in text.lines().enumerate() {
            let wrong = |problem| AclError {
                line: index + 1,
                problem,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let rest = rest.trim_start();
            if !matches!(word, "user" | "topic" | "pattern") {
                return Err(wrong(AclProblem::UnknownWord(word.to_owned())));
            }
            if rest.is_empty() {
                return Err(wrong(AclProblem::Nothing));
            }
            if word == "user" {
                if !is_user_name(rest) {
                    return Err(wrong(AclProblem::BadName));
                }
                user = Some(rest);
                acl.users.entry(rest.into()).or_default();
                continue;
            }
            let (rule, filter) = rule(rest);
            let (rules, placeholders) = match (word, user) {
                ("pattern", _) => (&mut acl.patterns, Placeholders::Replaced),
                (_, Some(user)) => (
                    acl.users.entry(user.into()).or_default(),
                    Placeholders::Literal,
                ),
                (_, None) => (&mut acl.nobody, Placeholders::Literal),
            };
            rules
                .add(filter, rule, placeholders)
                .map_err(|error| wrong(AclProblem::BadFilter(filter.to_owned(), error)))?;
        }
        Ok(acl)
    }

    /// How many rules it has.
    #[must_use]
    pub fn len(&self) -> usize {
        let users: usize = self.users.values().map(Rules::len).sum();
        self.nobody.len() + self.patterns.len() + users
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `client` may do that.
    #[must_use]
    pub fn allows(&self, client: &Client<'_>, topic: Name<'_>, access: Access) -> bool {
        let of = |rules: &Rules| rules.verdict(client, topic);
        let file = self
            .rules(client)
            .map_or_else(Verdict::default, of)
            .with(of(&self.patterns));
        let verdict = match own(client) {
            // A token says what its bearer may do; the file can only take from that.
            Some(own) => of(own).with(file.denials()),
            None => file,
        };
        verdict.allows(access)
    }

    /// How much of what `filter` matches `client` may receive.
    #[must_use]
    pub fn reach(&self, client: &Client<'_>, filter: Filter<'_>) -> Reach {
        let of = |rules: &Rules| rules.extent(client, filter);
        let file = self
            .rules(client)
            .map_or_else(Extent::default, of)
            .with(of(&self.patterns));
        let extent = match own(client) {
            Some(own) => of(own).with(file.denials()),
            None => file,
        };
        extent.reach()
    }

    fn rules(&self, client: &Client<'_>) -> Option<&Rules> {
        match client.username() {
            Some(name) => self.users.get(name),
            None => Some(&self.nobody),
        }
    }
}

/// The rules that a client brought along.
pub(super) fn own<'a>(client: &Client<'a>) -> Option<&'a Rules> {
    client.grant?.rules.as_deref()
}

/// What a line says behind its word: without a kind of access it is both.
fn rule(text: &str) -> (Rule, &str) {
    if let Some((word, rest)) = text.split_once([' ', '\t']) {
        let rule = match word {
            "read" => Some(Rule::Read),
            "write" => Some(Rule::Write),
            "readwrite" => Some(Rule::ReadWrite),
            "deny" => Some(Rule::Deny),
            _ => None,
        };
        if let Some(rule) = rule {
            return (rule, rest.trim_start());
        }
    }
    (Rule::ReadWrite, text)
}

#[cfg(test)]
mod tests {
    use super::super::Grant;
    use super::*;

    const FILE: &str = "\
# nobody
topic read news/#

user anna
topic car/7/#
topic deny car/7/secret
topic read with space/x
pattern write car/%c/speed
pattern read inbox/%u
pattern deny car/+/closed
user bob
topic readwrite #
";

    fn as_user(name: &str) -> Grant {
        Grant {
            username: Some(name.into()),
            ..Grant::default()
        }
    }

    fn client<'a>(client_id: &'a str, grant: Option<&'a Grant>) -> Client<'a> {
        Client {
            number: 0,
            client_id,
            grant,
        }
    }

    #[test]
    fn a_file_says_who_may_do_what() {
        use Access::{Read, Write};
        let acl = Acl::parse(FILE).unwrap();
        assert_eq!(acl.len(), 8);
        let (anna, bob) = (as_user("anna"), as_user("bob"));
        for (grant, topic, access, expected) in [
            (None, "news/today", Read, true),
            (None, "news/today", Write, false),
            (None, "car/7/x", Read, false),
            (None, "car/me/speed", Write, true),
            (None, "car/you/speed", Write, false),
            (None, "inbox/anna", Read, false),
            (Some(&anna), "news/today", Read, false),
            (Some(&anna), "car/7/x", Write, true),
            (Some(&anna), "car/7/secret", Read, false),
            (Some(&anna), "car/7/closed", Read, false),
            (Some(&anna), "with space/x", Read, true),
            (Some(&anna), "inbox/anna", Read, true),
            (Some(&anna), "inbox/bob", Read, false),
            (Some(&bob), "anything", Write, true),
            (Some(&bob), "car/7/closed", Write, false),
            (Some(&bob), "$SYS/x", Read, false),
        ] {
            let name = Name::parse(topic).unwrap();
            let found = acl.allows(&client("me", grant), name, access);
            assert_eq!(found, expected, "{grant:?} {topic} {access:?}");
        }
        let reach = |grant, filter| acl.reach(&client("me", grant), Filter::parse(filter).unwrap());
        assert_eq!(reach(None, "news/#"), Reach::All);
        assert_eq!(reach(None, "#"), Reach::Part);
        assert_eq!(reach(None, "car/#"), Reach::Nothing);
        assert_eq!(reach(Some(&bob), "x/#"), Reach::All);
        assert_eq!(reach(Some(&bob), "car/#"), Reach::Part);
    }

    #[test]
    fn a_token_has_its_own_rules_and_the_file_takes_from_them() {
        let acl = Acl::parse(FILE).unwrap();
        let mut rules = Rules::default();
        rules
            .add("car/#", Rule::ReadWrite, Placeholders::Replaced)
            .unwrap();
        let grant = Grant {
            rules: Some(rules.into()),
            ..as_user("anna")
        };
        let client = client("me", Some(&grant));
        let reads = |topic| acl.allows(&client, Name::parse(topic).unwrap(), Access::Read);
        assert!(reads("car/9") && !reads("car/7/secret") && !reads("car/1/closed"));
        assert!(!reads("inbox/anna"), "what the file allows is not added");
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line, said) in [
            ("topics a", 1, "`topics` is none of"),
            ("\n user", 2, "nothing stands"),
            ("topic a/#/b", 1, "# stands only alone"),
            ("pattern read a/+b", 1, "+ stands only alone"),
            ("user a:b", 1, "a user name"),
        ] {
            let error = Acl::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_word_alone_is_a_topic() {
        let acl = Acl::parse("topic read\n").unwrap();
        let topic = Name::parse("read").unwrap();
        assert!(acl.allows(&client("me", None), topic, Access::Write));
    }
}
