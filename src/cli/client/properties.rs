//! `-D publish content-type text/plain`: properties of version 5 from the command line.

use shardmq::wire::{Property, UserPropertiesBuf};

/// The packet that a property goes with, as mosquitto's clients name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Will,
}

/// What a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Flag,
    U16,
    U32,
    VariableByteInteger,
    Text,
    Binary,
    Pair,
}

struct Declaration {
    name: &'static str,
    id: u8,
    kind: Type,
    packets: &'static [Command],
}

const COMMANDS: &[(&str, Command)] = &[
    ("connect", Command::Connect),
    ("publish", Command::Publish),
    ("subscribe", Command::Subscribe),
    ("unsubscribe", Command::Unsubscribe),
    ("disconnect", Command::Disconnect),
    ("will", Command::Will),
];

const fn property(
    name: &'static str,
    id: u8,
    kind: Type,
    packets: &'static [Command],
) -> Declaration {
    Declaration {
        name,
        id,
        kind,
        packets,
    }
}

/// Table 2-4 of the standard, for the packets of a client.
const DECLARATIONS: &[Declaration] = &[
    property(
        "payload-format-indicator",
        0x01,
        Type::Flag,
        &[Command::Publish, Command::Will],
    ),
    property(
        "message-expiry-interval",
        0x02,
        Type::U32,
        &[Command::Publish, Command::Will],
    ),
    property(
        "content-type",
        0x03,
        Type::Text,
        &[Command::Publish, Command::Will],
    ),
    property(
        "response-topic",
        0x08,
        Type::Text,
        &[Command::Publish, Command::Will],
    ),
    property(
        "correlation-data",
        0x09,
        Type::Binary,
        &[Command::Publish, Command::Will],
    ),
    property(
        "subscription-identifier",
        0x0B,
        Type::VariableByteInteger,
        &[Command::Subscribe],
    ),
    property(
        "session-expiry-interval",
        0x11,
        Type::U32,
        &[Command::Connect, Command::Disconnect],
    ),
    property(
        "authentication-method",
        0x15,
        Type::Text,
        &[Command::Connect],
    ),
    property(
        "authentication-data",
        0x16,
        Type::Binary,
        &[Command::Connect],
    ),
    property(
        "request-problem-information",
        0x17,
        Type::Flag,
        &[Command::Connect],
    ),
    property("will-delay-interval", 0x18, Type::U32, &[Command::Will]),
    property(
        "request-response-information",
        0x19,
        Type::Flag,
        &[Command::Connect],
    ),
    property("reason-string", 0x1F, Type::Text, &[Command::Disconnect]),
    property("receive-maximum", 0x21, Type::U16, &[Command::Connect]),
    property("topic-alias-maximum", 0x22, Type::U16, &[Command::Connect]),
    property("topic-alias", 0x23, Type::U16, &[Command::Publish]),
    property(
        "user-property",
        USER_PROPERTY,
        Type::Pair,
        &[
            Command::Connect,
            Command::Publish,
            Command::Subscribe,
            Command::Unsubscribe,
            Command::Disconnect,
            Command::Will,
        ],
    ),
    property("maximum-packet-size", 0x27, Type::U32, &[Command::Connect]),
];

const USER_PROPERTY: u8 = 0x26;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u32),
    Text(String),
    Pair(String, String),
}

/// One property that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    command: Command,
    id: u8,
    name: &'static str,
    value: Value,
}

/// All properties that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties(Vec<Given>);

impl Given {
    /// Reads the words behind a -D.
    fn parse(words: &[&str]) -> Result<Self, String> {
        let [command, name, values @ ..] = words else {
            return Err("-D takes a packet, a name and a value".to_owned());
        };
        let command = COMMANDS
            .iter()
            .find(|(known, _)| known == command)
            .ok_or_else(|| {
                let known: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
                format!("-D {command}: not a packet; known are {}", known.join(", "))
            })?;
        let declared = DECLARATIONS
            .iter()
            .find(|declared| declared.name == *name)
            .ok_or_else(|| format!("-D {} {name}: no such property", command.0))?;
        if !declared.packets.contains(&command.1) {
            return Err(format!(
                "-D {} {name}: this packet has no such property",
                command.0
            ));
        }
        let value = declared
            .value(values)
            .map_err(|why| format!("-D {} {name}: {why}", command.0))?;
        Ok(Self {
            command: command.1,
            id: declared.id,
            name: declared.name,
            value,
        })
    }
}

impl Declaration {
    fn value(&self, words: &[&str]) -> Result<Value, String> {
        let greatest = match self.kind {
            Type::Pair => {
                let [name, value] = words else {
                    return Err("takes a name and a value".to_owned());
                };
                return Ok(Value::Pair((*name).to_owned(), (*value).to_owned()));
            }
            Type::Text | Type::Binary => {
                let [text] = words else {
                    return Err("takes one value".to_owned());
                };
                return Ok(Value::Text((*text).to_owned()));
            }
            Type::Flag => 1,
            Type::U16 => u32::from(u16::MAX),
            Type::U32 => u32::MAX,
            Type::VariableByteInteger => shardmq::limits::MAX_REMAINING_LENGTH,
        };
        let [text] = words else {
            return Err("takes one value".to_owned());
        };
        let number: Option<u32> = text.parse().ok();
        number
            .filter(|number| *number <= greatest)
            .map(Value::Number)
            .ok_or_else(|| format!("`{text}` is not a number from 0 to {greatest}"))
    }
}

impl Properties {
    /// Reads the words behind all -D, one after another, of a client that sends `packets` only.
    pub(super) fn parse(words: &[String], packets: &[Command]) -> Result<Self, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut given: Vec<Given> = Vec::new();
        let mut rest = words.as_slice();
        while !rest.is_empty() {
            let length = if rest.get(1) == Some(&"user-property") {
                4
            } else {
                3
            };
            let (words, others) = rest.split_at(length.min(rest.len()));
            let property = Given::parse(words)?;
            if !packets.contains(&property.command) {
                return Err(format!(
                    "-D {}: this client sends no such packet",
                    words.join(" ")
                ));
            }
            let same = |other: &Given| (other.command, other.id) == (property.command, property.id);
            if property.id != USER_PROPERTY && given.iter().any(same) {
                return Err(format!("-D {}: may be given once only", words.join(" ")));
            }
            given.push(property);
            rest = others;
        }
        Ok(Self(given))
    }

    fn find(&self, command: Command, name: &str) -> Option<&Value> {
        let found = self
            .0
            .iter()
            .find(|given| given.command == command && given.name == name);
        found.map(|given| &given.value)
    }

    /// The value of a number.
    pub(super) fn number(&self, command: Command, name: &str) -> Option<u32> {
        match self.find(command, name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The value of a number whose type has 16 bits.
    pub(super) fn short(&self, command: Command, name: &str) -> Option<u16> {
        self.number(command, name)
            .and_then(|number| u16::try_from(number).ok())
    }

    /// The value of a text or of bytes.
    pub(super) fn text(&self, command: Command, name: &str) -> Option<&str> {
        match self.find(command, name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The user properties of a packet, encoded.
    pub(super) fn user_properties(&self, command: Command) -> UserPropertiesBuf {
        let mut buffer = UserPropertiesBuf::new();
        for given in self.0.iter().filter(|given| given.command == command) {
            if let Value::Pair(name, value) = &given.value {
                buffer.push(name, value);
            }
        }
        buffer
    }

    /// The properties that are forwarded with a message, encoded.
    pub(super) fn forwarded(&self, command: Command) -> Vec<u8> {
        let mut out = Vec::new();
        for given in self.0.iter().filter(|given| given.command == command) {
            let property = match (given.name, &given.value) {
                ("payload-format-indicator", Value::Number(number)) => {
                    Property::PayloadFormatIndicator(u8::from(*number != 0))
                }
                ("content-type", Value::Text(text)) => Property::ContentType(text),
                ("response-topic", Value::Text(text)) => Property::ResponseTopic(text),
                ("correlation-data", Value::Text(text)) => {
                    Property::CorrelationData(text.as_bytes())
                }
                ("user-property", Value::Pair(name, value)) => Property::UserProperty(name, value),
                _ => continue,
            };
            property.encode(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Result<Properties, String> {
        let all = COMMANDS
            .iter()
            .map(|(_, command)| *command)
            .collect::<Vec<_>>();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Properties::parse(&words, &all)
    }

    #[test]
    fn values_are_read_by_type() {
        let p = given(&["publish", "message-expiry-interval", "60"]).unwrap();
        assert_eq!(
            p.number(Command::Publish, "message-expiry-interval"),
            Some(60)
        );
        assert_eq!(p.number(Command::Will, "message-expiry-interval"), None);
        let p = given(&["connect", "receive-maximum", "7"]).unwrap();
        assert_eq!(p.short(Command::Connect, "receive-maximum"), Some(7));
        let p = given(&["will", "user-property", "a", "b"]).unwrap();
        let user = p.user_properties(Command::Will);
        assert_eq!(
            user.as_user_properties().iter().collect::<Vec<_>>(),
            [("a", "b")]
        );
    }

    #[test]
    fn what_is_forwarded_is_encoded_in_order() {
        let p = given(&[
            "publish",
            "user-property",
            "k",
            "v",
            "publish",
            "payload-format-indicator",
            "1",
            "publish",
            "topic-alias",
            "3",
        ]);
        let p = p.unwrap();
        assert_eq!(
            p.forwarded(Command::Publish),
            [0x26, 0, 1, b'k', 0, 1, b'v', 0x01, 1]
        );
        assert_eq!(p.short(Command::Publish, "topic-alias"), Some(3));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |words: &[&str]| given(words).unwrap_err();
        assert!(error(&["publsh", "topic-alias", "1"]).contains("known are connect, publish"));
        assert!(error(&["publish", "topic-alis", "1"]).contains("no such property"));
        assert!(error(&["subscribe", "topic-alias", "1"]).contains("this packet has no such"));
        assert!(error(&["publish", "topic-alias", "70000"]).contains("0 to 65535"));
        assert!(error(&["publish", "user-property", "a"]).contains("a name and a value"));
        let twice = ["publish", "topic-alias", "1", "publish", "topic-alias", "1"];
        assert!(error(&twice).contains("once only"));
        let elsewhere = twice.map(str::to_owned);
        let elsewhere = Properties::parse(&elsewhere[..3], &[Command::Connect]);
        assert!(elsewhere.unwrap_err().contains("sends no such packet"));
    }
}
