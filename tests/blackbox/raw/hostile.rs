//! A table of malformed and abusive inputs: what is sent, and how the broker has to react. After each one
//! the broker is alive and a neighbour has lost nothing; after all of them its memory is back.
//!
//! The classes are those in which brokers were found vulnerable: lengths that lie, fields and properties
//! that are cut off, identifiers that are never released, topics without end, storms of what is cheap to
//! send, sessions that are pulled to and fro, names with wildcards.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::malformed::{Case, framing, publish, subscriptions, version_5_properties};
use super::packets::{
    Connect, PINGREQ, PINGRESP, PUBACK, Publish, ack, field, packet, properties, subscribe,
    text_property, unsubscribe, user_property,
};
use super::peer::Peer;
use crate::Version;
use crate::broker::{Broker, Setup};

/// How the broker has to react.
#[derive(Clone, Copy, Debug)]
enum Reaction {
    /// It ends the connection, and version 5 is told one of these in DISCONNECT.
    Told(&'static [u8]),
    /// It ends the connection.
    Ends,
    /// It goes on with the connection.
    Lives,
    /// Either.
    Either,
}

use Reaction::{Either, Ends, Lives, Told};

/// One line of the table.
struct Input {
    what: String,
    /// Whether a CONNECT that was accepted comes before.
    connected: bool,
    bytes: Vec<u8>,
    reaction: Reaction,
}

/// The table.
struct Table {
    version: Version,
    inputs: Vec<Input>,
}

impl Table {
    fn first(&mut self, what: impl Into<String>, bytes: impl Into<Vec<u8>>, reaction: Reaction) {
        self.inputs.push(Input {
            what: what.into(),
            connected: false,
            bytes: bytes.into(),
            reaction,
        });
    }

    fn then(&mut self, what: impl Into<String>, bytes: impl Into<Vec<u8>>, reaction: Reaction) {
        self.inputs.push(Input {
            what: what.into(),
            connected: true,
            bytes: bytes.into(),
            reaction,
        });
    }

    fn cases(&mut self, cases: Vec<Case>) {
        for case in cases {
            self.then(case.what, case.bytes, Told(case.codes));
        }
    }

    /// Bytes that are no MQTT, and packets that may not come first.
    fn before_connect(&mut self) {
        // Some of these look like the begin of a long packet.
        for (what, bytes, reaction) in [
            (
                "an HTTP request",
                &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
                Either,
            ),
            (
                "a TLS handshake",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                Ends,
            ),
            ("a banner of SSH", b"SSH-2.0-OpenSSH_9.6\r\n", Either),
            (
                "a header of the PROXY protocol",
                b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
                Either,
            ),
            ("AMQP", b"AMQP\x00\x00\x09\x01", Either),
            ("zeroes", &[0; 64], Ends),
            ("ones", &[0xFF; 64], Ends),
            ("line feeds", b"\n\n\n\n\n\n", Either),
        ] {
            self.first(what, bytes, reaction);
        }
        for kind in [0_u8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
            let flags = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
            let bytes = packet(kind << 4 | flags, &[0, 1, b'a', 0]);
            self.first(format!("type {kind} before CONNECT"), bytes, Ends);
        }
        for flags in 1..16_u8 {
            let mut bytes = Connect::new(self.version, "flags").bytes();
            bytes[0] |= flags;
            self.first(format!("CONNECT with header flags {flags:x}"), bytes, Ends);
        }
    }

    /// A CONNECT with this instead of its protocol name, level and flags, and behind them.
    fn odd_connect(&self, name: &[u8], level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = field(name);
        body.extend([level, flags, 0, 10]);
        body.extend(properties(self.version, &[]));
        body.extend(payload);
        packet(0x10, &body)
    }

    fn connect_headers(&mut self) {
        let level = self.version.level();
        let id = field("odd");
        for name in [
            "mqtt",
            "MQTT\0",
            "MQTTX",
            "",
            "MQT",
            "MQIsdq",
            "M\u{51}TT ",
            "ＭＱＴＴ",
        ] {
            let bytes = self.odd_connect(name.as_bytes(), level, 2, &id);
            self.first(format!("protocol name {name:?}"), bytes, Ends);
        }
        for level in [0, 1, 2, 6, 7, 15, 64, 127, 128, 132, 255] {
            let bytes = self.odd_connect(b"MQTT", level, 2, &id);
            self.first(format!("protocol level {level}"), bytes, Ends);
        }
        for (what, flags) in [
            ("the reserved flag", 0x03),
            ("a will QoS without a will", 0x0A),
            ("the other will QoS without a will", 0x12),
            ("a will retain without a will", 0x22),
            ("will QoS 3", 0x1E),
            ("all flags", 0xFF),
            ("a will that is not there", 0x06),
            ("a user name that is not there", 0x82),
            ("a password that is not there", 0xC2),
            (
                "a will, a user name and a password that are not there",
                0xC6,
            ),
        ] {
            let bytes = self.odd_connect(b"MQTT", level, flags, &id);
            self.first(format!("CONNECT with {what}"), bytes, Ends);
        }
        for (what, payload) in [
            ("a client id beyond the packet", &b"\xFF\xFFabc"[..]),
            ("a client id of half a length", b"\0"),
            ("no client id at all", b""),
            ("a client id with U+0000", b"\0\x03a\0b"),
            ("a client id with a surrogate", b"\0\x03\xED\xA0\x80"),
            ("a client id that is no text", b"\0\x02\xC3\x28"),
            ("something behind the payload", b"\0\x01abc"),
        ] {
            let bytes = self.odd_connect(b"MQTT", level, 2, payload);
            self.first(format!("CONNECT with {what}"), bytes, Ends);
        }
        let mut user = id.clone();
        user.extend(field(b"\xFF"));
        let bytes = self.odd_connect(b"MQTT", level, 0x82, &user);
        self.first("a user name that is no text", bytes, Ends);
        for topic in ["", "#", "a/+", "a\0"] {
            let mut will = id.clone();
            will.extend(properties(self.version, &[]));
            will.extend(field(topic));
            will.extend(field("x"));
            let bytes = self.odd_connect(b"MQTT", level, 0x06, &will);
            self.first(format!("a will to {topic:?}"), bytes, Ends);
        }
    }

    /// Every packet that ends early although its length says that it is complete, and with lengths that
    /// say more or less than there is.
    fn lengths_that_lie(&mut self) {
        let version = self.version;
        let whole = |bytes: &[u8]| bytes[2..].to_vec();
        let will = Connect::new(version, "cut").with(&[0x11, 0, 0, 0, 9]).will(
            1,
            true,
            "will/topic",
            b"gone",
        );
        let connect = whole(&will.bytes());
        for length in 0..connect.len() {
            let bytes = packet(0x10, &connect[..length]);
            self.first(
                format!("CONNECT that ends after {length} bytes"),
                bytes,
                Ends,
            );
        }
        let user = user_property("name", "value");
        let publish = Publish::new("a/b", "payload")
            .qos(1, 7)
            .with(&user)
            .bytes(version);
        let others = [
            ("PUBLISH", publish),
            (
                "SUBSCRIBE",
                subscribe(version, 7, &[("cut/a", 1), ("cut/b", 2)]),
            ),
            ("UNSUBSCRIBE", unsubscribe(version, 7, &["cut/a", "cut/b"])),
        ];
        for (name, bytes) in others {
            let body = whole(&bytes);
            for length in 0..body.len() {
                let cut = packet(bytes[0], &body[..length]);
                // What is left of a payload is a payload, and one filter of two is a filter.
                self.then(
                    format!("{name} that ends after {length} bytes"),
                    cut,
                    Either,
                );
            }
        }
        for (what, head) in [
            ("PUBLISH", 0x30),
            ("PUBACK", 0x40),
            ("PUBREC", 0x50),
            ("PUBREL", 0x62),
            ("PUBCOMP", 0x70),
            ("SUBSCRIBE", 0x82),
            ("UNSUBSCRIBE", 0xA2),
            ("PINGREQ", 0xC0),
            ("DISCONNECT", 0xE0),
            ("AUTH", 0xF0),
        ] {
            let bytes = [head, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
            self.then(format!("{what} with a length of five bytes"), bytes, Ends);
            let bytes = [head, 0xFF, 0xFF, 0xFF, 0x7F];
            self.then(format!("{what} of 256 MiB"), bytes, Ends);
            self.then(
                format!("{what} with a length of half a byte"),
                [head, 0x80],
                Either,
            );
        }
    }

    /// Properties: every identifier, cut off behind it; those of other packets; those that come twice.
    fn version_5(&mut self) {
        if !self.version.is_v5() {
            return;
        }
        let publish = |bytes: &[u8]| packet(0x30, &[b"\0\x01a", bytes, b"x"].concat());
        for id in 0..=0x2F_u8 {
            let cut = publish(&[1, id]);
            self.then(
                format!("property {id:02x} and nothing behind it"),
                cut,
                Ends,
            );
            let beyond = publish(&[0x20, id, 0xFF, 0xFF]);
            self.then(
                format!("property {id:02x} that goes beyond the packet"),
                beyond,
                Ends,
            );
        }
        for (what, head, front) in [
            ("PUBACK", 0x40, &[0, 1, 0][..]),
            ("PUBREL", 0x62, &[0, 1, 0]),
            ("DISCONNECT", 0xE0, &[0]),
            ("AUTH", 0xF0, &[0x19]),
            ("SUBSCRIBE", 0x82, &[0, 1]),
            ("UNSUBSCRIBE", 0xA2, &[0, 1]),
        ] {
            for (how, block) in [
                ("a property length beyond the packet", &[0x7F][..]),
                (
                    "a property length without end",
                    &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
                ),
                ("half a User Property", &[5, 0x26, 0, 9, b'a', b'b']),
                ("half a Reason String", &[3, 0x1F, 0, 9]),
                ("an unknown property", &[2, 0x7E, 0]),
            ] {
                let bytes = packet(head, &[front, block].concat());
                self.then(format!("{what} with {how}"), bytes, Ends);
            }
        }
        for (what, block) in [
            (
                "Session Expiry Interval twice",
                &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1][..],
            ),
            ("Receive Maximum 0", &[0x21, 0, 0]),
            ("Receive Maximum twice", &[0x21, 0, 1, 0x21, 0, 1]),
            ("Maximum Packet Size 0", &[0x27, 0, 0, 0, 0]),
            ("Maximum Packet Size 1", &[0x27, 0, 0, 0, 1]),
            ("Request Problem Information 2", &[0x17, 2]),
            ("Request Response Information 2", &[0x19, 2]),
            ("Authentication Data without a method", &[0x16, 0, 1, b'x']),
            ("a Topic Alias", &[0x23, 0, 1]),
            ("a Subscription Identifier", &[0x0B, 1]),
            ("an unknown property", &[0x7F]),
        ] {
            let bytes = Connect::new(self.version, "odd").with(block).bytes();
            self.first(format!("CONNECT with {what}"), bytes, Ends);
        }
        let method = text_property(0x15, "SCRAM-SHA-256");
        let bytes = Connect::new(self.version, "odd").with(&method).bytes();
        self.first("CONNECT with a method that is not offered", bytes, Ends);
    }

    /// What is well formed and too much.
    #[expect(clippy::too_many_lines, reason = "it is a table")]
    fn too_much(&mut self) {
        let version = self.version;
        let levels = |count: usize| vec!["a"; count].join("/");
        let publish = |topic: &str| Publish::new(topic, "x").bytes(version);
        self.then("a topic of 10,000 levels", publish(&levels(10_000)), Ends);
        self.then(
            "a topic of 65,535 slashes",
            publish(&"/".repeat(65_535)),
            Ends,
        );
        self.then(
            "a topic of 65,535 bytes",
            publish(&"a".repeat(65_535)),
            Lives,
        );
        self.then("a topic of 128 levels", publish(&levels(128)), Lives);
        self.then(
            "a topic in another script",
            publish("車/🚗/é/\u{feff}"),
            Lives,
        );
        self.then("PUBLISH to $SYS", publish("$SYS/broker/uptime"), Lives);
        self.then(
            "a payload of nothing",
            Publish::new("a", "").bytes(version),
            Lives,
        );
        let big = Publish::new("big", vec![7; 1_000_000]).bytes(version);
        self.then("a payload of a million bytes", big, Lives);
        let bigger = Publish::new("big", vec![7; 1_100_000]).bytes(version);
        self.then("a packet beyond the maximum", bigger, Told(&[0x95]));
        for filter in [
            levels(10_000),
            "+/".repeat(5_000),
            "/".repeat(65_535),
            "$share//a".into(),
            "$share/g".into(),
            "$share/g/".into(),
            "$share/+/a".into(),
            "$share/#/a".into(),
            "a/#/b".into(),
            "a#".into(),
            "a+/b".into(),
            "##".into(),
            "++".into(),
            "#/".into(),
        ] {
            let shown: String = filter.chars().take(20).collect();
            let bytes = subscribe(version, 1, &[(&filter, 0)]);
            self.then(format!("a subscription to {shown}"), bytes, Either);
        }
        for filter in [
            "+/".repeat(127) + "+",
            "#".into(),
            "+".into(),
            "/".into(),
            "//".into(),
            "$SYS/#".into(),
            "$share/g/#".into(),
            "$share/g/$SYS/#".into(),
            "$".into(),
            "$share".into(),
            "a".repeat(65_535),
        ] {
            let shown: String = filter.chars().take(20).collect();
            let bytes = subscribe(version, 1, &[(&filter, 2)]);
            self.then(
                format!("a subscription to {shown} that is fine"),
                bytes,
                Lives,
            );
        }
        let repeated = |packet: Vec<u8>, times: usize| packet.repeat(times);
        let many: Vec<String> = (0..10_000).map(|number| format!("+/{number}/#")).collect();
        let many: Vec<(&str, u8)> = many.iter().map(|filter| (filter.as_str(), 1)).collect();
        self.then(
            "10,000 wildcards in one SUBSCRIBE",
            subscribe(version, 1, &many),
            Lives,
        );
        let same = repeated(subscribe(version, 1, &[("same/#", 1)]), 5_000);
        self.then("the same SUBSCRIBE 5,000 times", same, Lives);
        let nothing = repeated(unsubscribe(version, 1, &["never/made"]), 5_000);
        self.then("5,000 UNSUBSCRIBE of nothing", nothing, Lives);
        self.then("10,000 PINGREQ", repeated(PINGREQ.to_vec(), 10_000), Lives);
        for (what, first) in [
            ("PUBACK", PUBACK),
            ("PUBREC", 0x50),
            ("PUBREL", 0x62),
            ("PUBCOMP", 0x70),
        ] {
            let acks: Vec<u8> = (1..=5_000).flat_map(|id| ack(first, id)).collect();
            self.then(format!("5,000 {what} for nothing"), acks, Lives);
        }
        let unreleased: Vec<u8> = (1..=5_000)
            .flat_map(|id| Publish::new("held", "x").qos(2, id).bytes(version))
            .collect();
        // Version 5 knows a Receive Maximum; identifiers bound 3.1.1.
        let reaction = if version.is_v5() { Ends } else { Lives };
        self.then(
            "5,000 QoS 2 messages that are never released",
            unreleased,
            reaction,
        );
        let again = repeated(
            Publish::new("again", "x").qos(2, 1).dup().bytes(version),
            5_000,
        );
        self.then("one QoS 2 message 5,000 times", again, Lives);
        let retained: Vec<u8> = (0..1_000)
            .flat_map(|number| {
                Publish::new(&format!("kept/{number}"), "x")
                    .retain()
                    .bytes(version)
            })
            .collect();
        let removed: Vec<u8> = (0..1_000)
            .flat_map(|number| {
                Publish::new(&format!("kept/{number}"), "")
                    .retain()
                    .bytes(version)
            })
            .collect();
        self.then(
            "1,000 retained topics, made and removed",
            [retained, removed].concat(),
            Lives,
        );
        if version.is_v5() {
            let user = user_property("n", "v").repeat(10_000);
            let bytes = Publish::new("a", "x").with(&user).bytes(version);
            self.then("10,000 User Properties", bytes, Lives);
            let aliases: Vec<u8> = (0..5_000_u16)
                .flat_map(|number| {
                    let alias = [0x23, 0, u8::try_from(1 + number % 32).expect("small")];
                    Publish::new(&format!("alias/{number}"), "x")
                        .with(&alias)
                        .bytes(version)
                })
                .collect();
            self.then("5,000 changes of an alias", aliases, Lives);
        }
    }

    /// Names that mean something to somebody else, and sessions that are pulled to and fro.
    fn names(&mut self) {
        let version = self.version;
        for id in [
            "+",
            "#",
            "/",
            "$SYS",
            "$share/g/a",
            "a/+/b",
            "../../x",
            "a b",
            "\u{feff}",
            "%c",
            "%u",
        ] {
            let connect = Connect::new(version, id).will(0, false, "names/will", b"x");
            self.first(format!("the client id {id:?}"), connect.bytes(), Lives);
        }
        let long = Connect::new(version, &"x".repeat(65_535));
        self.first("a client id of 65,535 bytes", long.bytes(), Lives);
        let lasting = Connect::lasting(version, "pulled").will(1, false, "names/will", b"x");
        for number in 0..20 {
            self.first(
                format!("a session that is resumed, number {number}"),
                lasting.bytes(),
                Lives,
            );
        }
        let twice = [lasting.bytes(), lasting.bytes()].concat();
        self.first("CONNECT twice in one segment", twice, Ends);
        let behind = [
            Connect::new(version, "pulled").bytes(),
            vec![0xE0, 0],
            Publish::new("behind", "x").bytes(version),
        ];
        self.first("PUBLISH behind DISCONNECT", behind.concat(), Ends);
    }
}

fn table(version: Version) -> Vec<Input> {
    let mut table = Table {
        version,
        inputs: Vec::new(),
    };
    table.before_connect();
    table.connect_headers();
    table.lengths_that_lie();
    table.version_5();
    table.too_much();
    table.names();
    table.cases(framing(version));
    table.cases(publish(version));
    table.cases(subscriptions(version));
    if version.is_v5() {
        table.cases(version_5_properties());
    }
    table.inputs
}

/// Two clients that exchange a message after each input.
struct Neighbours {
    sender: Peer,
    receiver: Peer,
    number: u32,
}

impl Neighbours {
    fn new(broker: &Broker) -> Self {
        let mut receiver = Peer::connect(broker, &Connect::new(Version::V5, "neighbour"));
        assert_eq!(receiver.subscribe("neighbours", 1), 1);
        Self {
            sender: Peer::connect(broker, &Connect::new(Version::V3_1_1, "other neighbour")),
            receiver,
            number: 0,
        }
    }

    /// The next message comes, and none is missing or there twice.
    fn lose_nothing(&mut self) {
        self.number += 1;
        let payload = self.number.to_string();
        let id = u16::try_from(self.number % 60_000 + 1).expect("below 65,536");
        self.sender
            .publish(&Publish::new("neighbours", &payload).qos(1, id));
        let received = self.receiver.receive();
        assert_eq!(
            received.payload,
            payload.as_bytes(),
            "a neighbour lost a message"
        );
        self.receiver.send(&ack(PUBACK, received.id));
        self.sender.expect_ack(PUBACK, id);
    }
}

/// What was wrong with the reaction to an input.
fn react(broker: &Broker, version: Version, input: &Input, number: usize) -> Result<(), String> {
    let mut peer = Peer::open(broker, version);
    if input.connected {
        peer.send(&Connect::new(version, &format!("hostile{number}")).bytes());
        peer.connack();
    }
    let mut writer = peer.writer();
    let bytes = input.bytes.clone();
    // What is much is written while answers are read, or both sides would wait.
    let writing = std::thread::spawn(move || {
        use std::io::Write as _;
        let _ = writer
            .write_all(&bytes)
            .and_then(|()| writer.write_all(&PINGREQ));
        bytes.len()
    });
    let outcome = match input.reaction {
        Told(codes) => peer.closed_with(codes),
        Ends => {
            let _ = peer.until_closed();
            Ok(())
        }
        Lives => loop {
            match peer.next() {
                Some(packet) if packet.first == PINGRESP => break Ok(()),
                Some(_) => {}
                None => break Err("the connection ended".to_owned()),
            }
        },
        Either => {
            // An incomplete packet is waited for: only the end of the input shows that it is over.
            peer.finish();
            let _ = peer.until_closed();
            Ok(())
        }
    };
    drop(peer);
    writing.join().map_err(|_| "nobody read".to_owned())?;
    outcome
}

/// Megabytes by which the memory may have grown after one round of all inputs that the first round, which
/// fills pools and caches, has not taken already.
const GROWTH_KB: u64 = 32 * 1024;

/// [MQTT-4.13.1-1] [MQTT-4.8.0-1 3.1.1]
#[test]
fn hostile_inputs_end_nothing_but_their_own_connection() {
    for setup in [Setup::TWO, Setup::EPOLL] {
        let broker = Broker::start(setup);
        let mut neighbours = Neighbours::new(&broker);
        let mut wrong = String::new();
        let mut sent = 0;
        let mut after_first = 0;
        for round in 0..2 {
            for version in Version::BOTH {
                for (number, input) in table(version).iter().enumerate() {
                    let reaction =
                        catch_unwind(AssertUnwindSafe(|| react(&broker, version, input, number)));
                    let reaction = reaction.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                    if let Err(how) = reaction {
                        let what = &input.what;
                        writeln!(wrong, "{version:?}: {what}: {how}").expect("a string takes it");
                    }
                    neighbours.lose_nothing();
                    sent += 1;
                }
            }
            if round == 0 {
                after_first = broker.memory_kb();
            }
        }
        assert!(wrong.is_empty(), "{setup}:\n{wrong}");
        assert!(sent >= 2 * 600, "{sent} inputs");
        let grown = broker.memory_kb().saturating_sub(after_first);
        assert!(
            grown < GROWTH_KB,
            "{grown} KB more than after the first round"
        );
        println!("{setup}: {sent} inputs, {after_first} KB, then {grown} KB more");
        broker.stop();
    }
}
