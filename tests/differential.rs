//! The codec against two that strangers wrote: what one accepts and another refuses, or reads
//! otherwise, is either in the list below with the reason why, or a defect of ours.
//!
//! `mqttbytes` (3.1.1) and `mqtt-protocol-core` (3.1.1 and 5.0) are given the bodies of valid
//! packets and of packets damaged at random. Content is compared by having the other codec encode
//! what it decoded, and decoding that with ours. The samples are the same in every run, and a
//! difference that no longer shows fails the test, so the list cannot rot.

#[expect(dead_code, reason = "the other test binary needs the rest of it")]
mod packets;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use packets::{any_packet, damaged, damages};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use shardmq::limits::MAX_PACKET_SIZE;
use shardmq::wire::{Connect, Framing, Packet, PacketType, Version, Violation, frame};

/// Another codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Oracle {
    MqttBytes,
    ProtocolCore,
}

/// How two codecs differ about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// We refuse, for the rule of this name, what it accepts.
    WeRefuse(&'static str),
    /// It refuses what we accept.
    ItRefuses(Peculiarity),
    /// Both accept and read something else.
    Content(Peculiarity),
}

/// What is special about a packet that another codec may not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peculiarity {
    None,
    PasswordWithoutUserName,
    PasswordNotUtf8,
    EmptyUserNameOrPassword,
}

impl Peculiarity {
    fn of(packet: &Packet<'_>) -> Self {
        let Packet::Connect(connect) = packet else {
            return Self::None;
        };
        match (connect.username, connect.password) {
            (None, Some(_)) => Self::PasswordWithoutUserName,
            (_, Some(password)) if std::str::from_utf8(password).is_err() => Self::PasswordNotUtf8,
            (Some(""), _) | (_, Some([])) => Self::EmptyUserNameOrPassword,
            _ => Self::None,
        }
    }
}

use Difference::{Content, ItRefuses, WeRefuse};
use Oracle::{MqttBytes, ProtocolCore};

/// A difference, in which packets it shows (all where none is named), and why we stay with ours.
type Known = (Oracle, Difference, &'static [PacketType], &'static str);

/// Every difference there is.
const KNOWN: &[Known] = &[
    (
        MqttBytes,
        WeRefuse("TrailingBytes"),
        &[],
        "it ignores what follows the last field",
    ),
    (
        MqttBytes,
        WeRefuse("StringWithNul"),
        &[],
        "it does not look for U+0000, [MQTT-1.5.3-2 3.1.1]",
    ),
    (
        MqttBytes,
        WeRefuse("PacketIdZero"),
        ACKNOWLEDGEMENTS,
        "it takes an identifier of 0 there",
    ),
    (
        MqttBytes,
        WeRefuse("ConnackFlagsReserved"),
        &[PacketType::ConnAck],
        "it reads one bit and ignores the reserved ones, section 3.2.2.1 of 3.1.1",
    ),
    (
        MqttBytes,
        WeRefuse("SessionPresentOnRefusal"),
        &[PacketType::ConnAck],
        "it does not compare the two fields, [MQTT-3.2.2-4 3.1.1]",
    ),
    (
        MqttBytes,
        WeRefuse("TopicNameEmpty"),
        &[PacketType::Publish],
        "it leaves topic names to its user, [MQTT-4.7.3-1 3.1.1]",
    ),
    (
        MqttBytes,
        WeRefuse("TopicNameWildcard"),
        &[PacketType::Publish],
        "it leaves topic names to its user, [MQTT-3.3.2-2 3.1.1]",
    ),
    (
        MqttBytes,
        WeRefuse("SubscriptionOptionsReserved"),
        &[PacketType::Subscribe],
        "it masks the reserved bits away, section 3.8.3 of 3.1.1",
    ),
    (
        MqttBytes,
        WeRefuse("NoTopicFilter"),
        &[PacketType::Unsubscribe],
        "it takes an empty list, [MQTT-3.10.3-2 3.1.1]",
    ),
    (
        MqttBytes,
        ItRefuses(Peculiarity::PasswordNotUtf8),
        &[PacketType::Connect],
        "it takes a password for a string; section 3.1.3.5 says binary",
    ),
    (
        MqttBytes,
        Content(Peculiarity::EmptyUserNameOrPassword),
        &[PacketType::Connect],
        "it takes a field that is empty for one that is not there",
    ),
    (
        ProtocolCore,
        WeRefuse("StringWithNul"),
        &[],
        "it does not look for U+0000, [MQTT-1.5.4-2]",
    ),
    (
        ProtocolCore,
        WeRefuse("PacketIdZero"),
        ACKNOWLEDGEMENTS,
        "it takes an identifier of 0 there",
    ),
    (
        ProtocolCore,
        WeRefuse("TrailingBytes"),
        ACKNOWLEDGEMENTS,
        "it takes a reason code before version 5, when there was none",
    ),
    (
        ProtocolCore,
        WeRefuse("VariableByteIntegerNotMinimal"),
        &[],
        "it takes a longer form than needed, [MQTT-1.5.5-1]",
    ),
    (
        ProtocolCore,
        WeRefuse("ConnectFlagsReserved"),
        &[PacketType::Connect],
        "it does not look at the reserved flag of version 5, [MQTT-3.1.2-3]",
    ),
    (
        ProtocolCore,
        WeRefuse("WillQosWithoutWill"),
        &[PacketType::Connect],
        "it does not look at will flags without a will, [MQTT-3.1.2-11]",
    ),
    (
        ProtocolCore,
        WeRefuse("ConnackFlagsReserved"),
        &[PacketType::ConnAck],
        "it reads one bit and ignores the reserved ones, [MQTT-3.2.2-1]",
    ),
    (
        ProtocolCore,
        WeRefuse("SessionPresentOnRefusal"),
        &[PacketType::ConnAck],
        "it does not compare the two fields, [MQTT-3.2.2-6]",
    ),
    (
        ProtocolCore,
        WeRefuse("TopicNameEmpty"),
        &[PacketType::Publish],
        "its parser leaves topic names to a later stage, [MQTT-4.7.3-1 3.1.1]",
    ),
    (
        ProtocolCore,
        WeRefuse("TopicNameMissing"),
        &[PacketType::Publish],
        "its parser leaves aliases to a later stage, section 3.3.2.1",
    ),
    (
        ProtocolCore,
        WeRefuse("TopicNameWildcard"),
        &[PacketType::Publish],
        "its parser leaves topic names to a later stage, [MQTT-3.3.2-2]",
    ),
    (
        ProtocolCore,
        WeRefuse("SubscriptionOptionsReserved"),
        &[PacketType::Subscribe],
        "it reads the options of version 5 before version 5, section 3.8.3 of 3.1.1",
    ),
    (
        ProtocolCore,
        WeRefuse("AuthenticationMethodMissing"),
        &[PacketType::Auth],
        "its parser does not ask for the method, section 3.15.2.2.2",
    ),
    (
        ProtocolCore,
        WeRefuse("Truncated"),
        &[PacketType::Auth],
        "it lets the Property Length go alone; section 3.15.2.1 lets it go with the reason only",
    ),
    (
        ProtocolCore,
        ItRefuses(Peculiarity::PasswordWithoutUserName),
        &[PacketType::Connect],
        "section 3.1.2.9 of version 5 allows a password alone",
    ),
];

const ACKNOWLEDGEMENTS: &[PacketType] = &[
    PacketType::PubAck,
    PacketType::PubRec,
    PacketType::PubRel,
    PacketType::PubComp,
    PacketType::UnsubAck,
];

/// What the oracle makes of it: refused, or accepted and encoded again.
fn ask(oracle: Oracle, version: Version, bytes: &[u8]) -> Option<Vec<u8>> {
    // A panic of the other codec is a refusal.
    catch_unwind(AssertUnwindSafe(|| match oracle {
        MqttBytes => ask_mqttbytes(bytes),
        ProtocolCore => ask_protocol_core(version, bytes),
    }))
    .unwrap_or_default()
}

fn ask_mqttbytes(bytes: &[u8]) -> Option<Vec<u8>> {
    use mqttbytes::v4::{Disconnect, Packet, PingReq, PingResp, read};
    let mut stream = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    match read(&mut stream, bytes.len()).ok()? {
        Packet::Connect(packet) => packet.write(&mut out),
        Packet::ConnAck(packet) => packet.write(&mut out),
        Packet::Publish(packet) => packet.write(&mut out),
        Packet::PubAck(packet) => packet.write(&mut out),
        Packet::PubRec(packet) => packet.write(&mut out),
        Packet::PubRel(packet) => packet.write(&mut out),
        Packet::PubComp(packet) => packet.write(&mut out),
        Packet::Subscribe(packet) => packet.write(&mut out),
        Packet::SubAck(packet) => packet.write(&mut out),
        Packet::Unsubscribe(packet) => packet.write(&mut out),
        Packet::UnsubAck(packet) => packet.write(&mut out),
        Packet::PingReq => PingReq.write(&mut out),
        Packet::PingResp => PingResp.write(&mut out),
        Packet::Disconnect => Disconnect.write(&mut out),
    }
    .ok()?;
    Some(out.to_vec())
}

fn ask_protocol_core(version: Version, bytes: &[u8]) -> Option<Vec<u8>> {
    let Ok(Framing::Packet {
        first_byte, body, ..
    }) = frame(bytes, MAX_PACKET_SIZE)
    else {
        panic!("only whole packets are compared")
    };
    macro_rules! parse {
        ($($module:ident)::+) => {
            $($module)::+::parse(body)
                .ok()
                .filter(|(_, read)| *read == body.len())
                .map(|(packet, _)| packet.to_continuous_buffer())
        };
    }
    macro_rules! publish {
        ($module:ident) => {
            $module::Publish::parse(first_byte & 0x0F, Arc::from(body))
                .ok()
                .map(|(packet, _)| packet.to_continuous_buffer())
        };
    }
    macro_rules! either {
        ($packet:ident) => {
            if version.is_v5() {
                parse!(v5_0::$packet)
            } else {
                parse!(v3_1_1::$packet)
            }
        };
    }
    match PacketType::from_first_byte(first_byte).ok()? {
        PacketType::Connect => either!(Connect),
        PacketType::ConnAck => either!(Connack),
        PacketType::Publish if version.is_v5() => publish!(v5_0),
        PacketType::Publish => publish!(v3_1_1),
        PacketType::PubAck => either!(Puback),
        PacketType::PubRec => either!(Pubrec),
        PacketType::PubRel => either!(Pubrel),
        PacketType::PubComp => either!(Pubcomp),
        PacketType::Subscribe => either!(Subscribe),
        PacketType::SubAck => either!(Suback),
        PacketType::Unsubscribe => either!(Unsubscribe),
        PacketType::UnsubAck => either!(Unsuback),
        PacketType::PingReq => either!(Pingreq),
        PacketType::PingResp => either!(Pingresp),
        PacketType::Disconnect => either!(Disconnect),
        PacketType::Auth => parse!(v5_0::Auth),
    }
}

fn decode(version: Version, bytes: &[u8]) -> Result<Packet<'_>, Violation> {
    match frame(bytes, MAX_PACKET_SIZE)? {
        Framing::Packet {
            first_byte, body, ..
        } => Packet::decode(version, first_byte, body),
        Framing::Incomplete => Err(Violation::Truncated),
    }
}

/// Whether the two differ about this packet.
fn compare(oracle: Oracle, version: Version, bytes: &[u8]) -> Option<Difference> {
    let ours = decode(version, bytes);
    let theirs = ask(oracle, version, bytes);
    match (ours, theirs) {
        (Ok(ours), None) => Some(ItRefuses(Peculiarity::of(&ours))),
        (Err(violation), Some(_)) => Some(WeRefuse(violation.name())),
        (Ok(ours), Some(theirs)) if decode(version, &theirs) != Ok(ours) => {
            Some(Content(Peculiarity::of(&ours)))
        }
        _ => None,
    }
}

/// Whether this packet is a question for this oracle.
fn is_asked(oracle: Oracle, version: Version, bytes: &[u8]) -> bool {
    let spoken = match oracle {
        MqttBytes => version == Version::V3_1_1,
        ProtocolCore => version != Version::V3_1,
    };
    // A CONNECT that damage turned into one of another version is another question.
    let turned = |connect: &Connect<'_>| connect.version != version;
    spoken && !matches!(decode(version, bytes), Ok(Packet::Connect(connect)) if turned(&connect))
}

#[test]
fn every_difference_from_other_codecs_is_known() {
    let mut runner = TestRunner::deterministic();
    let samples = (any_packet(), damages());
    let mut shown = vec![false; KNOWN.len()];
    let mut unknown = BTreeMap::new();
    for _ in 0..30_000 {
        let (model, damages) = samples.new_tree(&mut runner).expect("a sample").current();
        let version = model.version;
        let valid = model.bytes();
        let broken = damaged(&valid, &damages);
        let questions = [
            (&valid, MqttBytes),
            (&broken, MqttBytes),
            (&valid, ProtocolCore),
            (&broken, ProtocolCore),
        ];
        for (bytes, oracle) in questions {
            if !is_asked(oracle, version, bytes) {
                continue;
            }
            let Some(difference) = compare(oracle, version, bytes) else {
                continue;
            };
            let packet = PacketType::from_first_byte(bytes[0]).expect("damage spares it");
            let known = KNOWN.iter().position(|(of, what, packets, _)| {
                (*of, *what) == (oracle, difference)
                    && (packets.is_empty() || packets.contains(&packet))
            });
            match known {
                Some(index) => shown[index] = true,
                None => {
                    unknown
                        .entry((oracle, difference, packet))
                        .or_insert_with(|| format!("{version:?} {bytes:02X?}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    for ((oracle, difference, _, why), shown) in KNOWN.iter().zip(shown) {
        assert!(shown, "{oracle:?} no longer {difference:?} ({why})");
    }
}
