//! Packets for tests: a model that generates every valid packet, written by an encoder that shares
//! no line with the one under test.
//!
//! A property section is a list of encoded properties in the order that our encoder uses, without
//! any that says only what its absence says. So a decoded packet, encoded again, must be the same
//! bytes; and where a test moves properties about, it must be the same packet.

pub(crate) mod exercise;

use proptest::collection::vec;
use proptest::option::{self, of};
use proptest::prelude::*;
use shardmq::wire::{PacketType, ReasonCode, Version};

/// Every version.
pub(crate) const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// A property, encoded.
pub(crate) type Encoded = Vec<u8>;

/// A packet before it is bytes.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// What it is written in.
    pub(crate) version: Version,
    /// The first byte.
    pub(crate) first_byte: u8,
    /// The fields, in order.
    pub(crate) fields: Vec<Field>,
}

/// A part of a packet.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// Bytes behind a length of two bytes.
    Prefixed(Vec<u8>),
    /// A property section; version 5 only.
    Properties(Vec<Encoded>),
}

impl Model {
    /// The packet.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for field in &self.fields {
            match field {
                Field::Raw(bytes) => body.extend_from_slice(bytes),
                Field::Prefixed(bytes) => body.extend(prefixed(bytes)),
                Field::Properties(properties) => {
                    let section = properties.concat();
                    body.extend(variable_byte_integer(section.len()));
                    body.extend(section);
                }
            }
        }
        let mut packet = vec![self.first_byte];
        packet.extend(variable_byte_integer(body.len()));
        packet.extend(body);
        packet
    }

    /// The same packet with the properties that a broker does not pass on moved to `places`.
    pub(crate) fn rearranged(&self, places: &[usize]) -> Self {
        let mut model = self.clone();
        for field in &mut model.fields {
            let Field::Properties(properties) = field else {
                continue;
            };
            let is_passed_on = |property: &Encoded| {
                matches!(property.first(), Some(0x01 | 0x03 | 0x08 | 0x09 | 0x26))
            };
            let (mut order, moved): (Vec<_>, Vec<_>) = properties.drain(..).partition(is_passed_on);
            // Subscription Identifiers keep their order among themselves: put in from the back.
            let mut limit = order.len();
            for (index, property) in moved.into_iter().enumerate().rev() {
                let place = places
                    .get(index % places.len().max(1))
                    .copied()
                    .unwrap_or(0);
                limit = place % (limit + 1);
                order.insert(limit, property);
            }
            *properties = order;
        }
        model
    }
}

/// Behind a length of two bytes.
pub(crate) fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut field = u16::try_from(bytes.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    field.extend_from_slice(bytes);
    field
}

/// Section 1.5.5, by division as the standard writes it down.
pub(crate) fn variable_byte_integer(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = u8::try_from(value % 128).expect("a remainder of 128");
        value /= 128;
        if value == 0 {
            bytes.push(digit);
            return bytes;
        }
        bytes.push(digit | 128);
    }
}

/// Strings of all widths of UTF-8, a BOM among them.
fn text() -> BoxedStrategy<Vec<u8>> {
    let character = prop_oneof![
        8 => proptest::char::range('a', 'z'),
        1 => proptest::sample::select(vec!['/', '$', ' ', 'ß', '語', '😀', '\u{feff}', '\u{1}']),
        1 => any::<char>().prop_filter("U+0000", |&character| character != '\0'),
    ];
    vec(character, 0..24)
        .prop_map(|characters| characters.into_iter().collect::<String>().into_bytes())
        .boxed()
}

fn topic() -> BoxedStrategy<Vec<u8>> {
    text()
        .prop_map(|text| {
            let mut topic: Vec<u8> = text
                .into_iter()
                .filter(|byte| !matches!(byte, b'+' | b'#'))
                .collect();
            if topic.is_empty() {
                topic.push(b'/');
            }
            topic
        })
        .boxed()
}

fn filter() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        text(),
        Just(b"#".to_vec()),
        Just(b"a/+/b".to_vec()),
        Just(b"$share/group/a/#".to_vec())
    ]
    .boxed()
}

fn binary() -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), 0..40).boxed()
}

fn payload() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..64),
        1 => (0_usize..3, any::<u8>())
            .prop_map(|(width, byte)| vec![byte; [120, 16_370, 70_000][width]]),
    ]
    .boxed()
}

fn packet_id() -> BoxedStrategy<Vec<u8>> {
    (1..=u16::MAX)
        .prop_map(|id| id.to_be_bytes().to_vec())
        .boxed()
}

/// A valid property with this identifier that says more than its absence.
pub(crate) fn property(identifier: u8) -> BoxedStrategy<Encoded> {
    let value = match identifier {
        0x17 => Just(vec![0]).boxed(),
        0x19 => Just(vec![1]).boxed(),
        0x01 | 0x24 | 0x25 | 0x28..=0x2A => (0_u8..2).prop_map(|value| vec![value]).boxed(),
        0x13 => any::<u16>()
            .prop_map(|value| value.to_be_bytes().to_vec())
            .boxed(),
        0x21..=0x23 => packet_id(),
        0x02 | 0x11 => any::<u32>()
            .prop_map(|value| value.to_be_bytes().to_vec())
            .boxed(),
        0x18 | 0x27 => (1..=u32::MAX)
            .prop_map(|value| value.to_be_bytes().to_vec())
            .boxed(),
        0x0B => prop_oneof![1_usize..200, 1_usize..=268_435_455]
            .prop_map(variable_byte_integer)
            .boxed(),
        0x08 => topic().prop_map(|text| prefixed(&text)).boxed(),
        0x09 | 0x16 => binary().prop_map(|bytes| prefixed(&bytes)).boxed(),
        0x26 => (text(), text())
            .prop_map(|(name, value)| [prefixed(&name), prefixed(&value)].concat())
            .boxed(),
        _ => text().prop_map(|text| prefixed(&text)).boxed(),
    };
    value
        .prop_map(move |value| {
            let mut property = vec![identifier];
            property.extend(value);
            property
        })
        .boxed()
}

/// Some of these, in this order, and User Properties behind them.
fn properties(identifiers: &[u8]) -> BoxedStrategy<Vec<Encoded>> {
    let single: Vec<_> = identifiers
        .iter()
        .map(|&id| option::weighted(0.4, property(id)))
        .collect();
    (single, vec(property(0x26), 0..3))
        .prop_map(|(single, user)| single.into_iter().flatten().chain(user).collect())
        .boxed()
}

/// What a message's properties are: those for the broker, then those that it passes on, shuffled.
fn message_properties(for_the_broker: &[u8]) -> BoxedStrategy<Vec<Encoded>> {
    let for_the_broker: Vec<_> = for_the_broker
        .iter()
        .map(|&id| option::weighted(0.4, property(id)))
        .collect();
    (
        for_the_broker,
        properties(&[0x01, 0x03, 0x08, 0x09]).prop_shuffle(),
    )
        .prop_map(|(first, passed_on)| first.into_iter().flatten().chain(passed_on).collect())
        .boxed()
}

fn reason(packet: PacketType) -> BoxedStrategy<u8> {
    let allowed: Vec<u8> = ReasonCode::ALL
        .iter()
        .filter(|code| code.is_allowed_in(packet))
        .map(|code| code.as_u8())
        .collect();
    proptest::sample::select(allowed).boxed()
}

fn model(version: Version, packet: PacketType, fields: Vec<Field>) -> Model {
    Model {
        version,
        first_byte: packet.first_byte(),
        fields,
    }
}

/// A property section where the version has one.
fn section(version: Version, properties: Vec<Encoded>) -> Option<Field> {
    version.is_v5().then_some(Field::Properties(properties))
}

fn will(version: Version) -> BoxedStrategy<(u8, Vec<Field>)> {
    (
        0_u8..3,
        any::<bool>(),
        message_properties(&[0x18, 0x02]),
        topic(),
        binary(),
    )
        .prop_map(move |(qos, retain, properties, topic, payload)| {
            let fields = section(version, properties)
                .into_iter()
                .chain([Field::Prefixed(topic), Field::Prefixed(payload)])
                .collect();
            (0x04 | qos << 3 | u8::from(retain) << 5, fields)
        })
        .boxed()
}

fn connect(version: Version) -> BoxedStrategy<Model> {
    let name: &[u8] = if version == Version::V3_1 {
        b"MQIsdp"
    } else {
        b"MQTT"
    };
    let level = version.level();
    (
        any::<bool>(),
        any::<u16>(),
        properties(&[0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x15, 0x16]),
        topic(),
        of(will(version)),
        of(text()),
        of(binary()),
    )
        .prop_map(
            move |(clean, keep_alive, mut properties, id, will, name_of_user, password)| {
                if !properties
                    .iter()
                    .any(|property| property.first() == Some(&0x15))
                {
                    properties.retain(|property| property.first() != Some(&0x16));
                }
                let password = password.filter(|_| version.is_v5() || name_of_user.is_some());
                let (will_flags, will) = will.unwrap_or_default();
                let flags = will_flags
                    | u8::from(clean) << 1
                    | u8::from(password.is_some()) << 6
                    | u8::from(name_of_user.is_some()) << 7;
                let [high, low] = keep_alive.to_be_bytes();
                let fields = [
                    Field::Prefixed(name.to_vec()),
                    Field::Raw(vec![level, flags, high, low]),
                ]
                .into_iter()
                .chain(section(version, properties))
                .chain([Field::Prefixed(id)])
                .chain(will)
                .chain(name_of_user.map(Field::Prefixed))
                .chain(password.map(Field::Prefixed))
                .collect();
                model(version, PacketType::Connect, fields)
            },
        )
        .boxed()
}

fn connack(version: Version) -> BoxedStrategy<Model> {
    const ALL: [u8; 16] = [
        0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1F, 0x28, 0x29, 0x2A, 0x13, 0x1A, 0x1C, 0x15,
        0x16,
    ];
    let reason = if version.is_v5() {
        reason(PacketType::ConnAck)
    } else {
        (0_u8..6).boxed()
    };
    (any::<bool>(), reason, properties(&ALL))
        .prop_map(move |(present, reason, properties)| {
            let flags = u8::from(present && reason == 0);
            let fields = std::iter::once(Field::Raw(vec![flags, reason]))
                .chain(section(version, properties))
                .collect();
            model(version, PacketType::ConnAck, fields)
        })
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<Model> {
    let identifiers = vec(property(0x0B), 0..3);
    (
        (0_u8..3, any::<bool>(), any::<bool>()),
        topic(),
        any::<bool>(),
        packet_id(),
        message_properties(&[0x02, 0x23]),
        identifiers,
        payload(),
    )
        .prop_map(
            move |((qos, dup, retain), topic, named, id, properties, identifiers, payload)| {
                let alias = properties
                    .iter()
                    .any(|property| property.first() == Some(&0x23));
                let topic = if named || !alias || !version.is_v5() {
                    topic
                } else {
                    Vec::new()
                };
                let at = properties
                    .iter()
                    .position(|property| !matches!(property.first(), Some(0x02 | 0x23)))
                    .unwrap_or(properties.len());
                let mut properties = properties;
                properties.splice(at..at, identifiers);
                let dup = dup && qos > 0;
                let fields = std::iter::once(Field::Prefixed(topic))
                    .chain((qos > 0).then_some(Field::Raw(id)))
                    .chain(section(version, properties))
                    .chain([Field::Raw(payload)])
                    .collect();
                let flags = u8::from(dup) << 3 | qos << 1 | u8::from(retain);
                Model {
                    version,
                    first_byte: 0x30 | flags,
                    fields,
                }
            },
        )
        .boxed()
}

fn acknowledgement(version: Version, packet: PacketType) -> BoxedStrategy<Model> {
    (packet_id(), reason(packet), properties(&[0x1F]))
        .prop_map(move |(id, reason, properties)| {
            let mut fields = vec![Field::Raw(id)];
            if version.is_v5() && (reason != 0 || !properties.is_empty()) {
                fields.push(Field::Raw(vec![reason]));
                fields.extend((!properties.is_empty()).then_some(Field::Properties(properties)));
            }
            model(version, packet, fields)
        })
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<Model> {
    let options = (0_u8..3, any::<bool>(), any::<bool>(), 0_u8..3);
    (
        packet_id(),
        properties(&[0x0B]),
        vec((filter(), options), 1..4),
    )
        .prop_map(move |(id, properties, filters)| {
            let filters = filters.into_iter().flat_map(|(filter, options)| {
                let (qos, no_local, as_published, handling) = options;
                let no_local = no_local && !filter.starts_with(b"$share/");
                let options = if version.is_v5() {
                    qos | u8::from(no_local) << 2 | u8::from(as_published) << 3 | handling << 4
                } else {
                    qos
                };
                [Field::Prefixed(filter), Field::Raw(vec![options])]
            });
            let fields = std::iter::once(Field::Raw(id))
                .chain(section(version, properties))
                .chain(filters)
                .collect();
            model(version, PacketType::Subscribe, fields)
        })
        .boxed()
}

fn unsubscribe(version: Version) -> BoxedStrategy<Model> {
    (packet_id(), properties(&[]), vec(filter(), 1..4))
        .prop_map(move |(id, properties, filters)| {
            let fields = std::iter::once(Field::Raw(id))
                .chain(section(version, properties))
                .chain(filters.into_iter().map(Field::Prefixed))
                .collect();
            model(version, PacketType::Unsubscribe, fields)
        })
        .boxed()
}

fn answer(version: Version, packet: PacketType) -> BoxedStrategy<Model> {
    let code = match (version.is_v5(), packet) {
        (false, PacketType::SubAck) => proptest::sample::select(vec![0, 1, 2, 0x80]).boxed(),
        _ => reason(packet),
    };
    let coded = version.is_v5() || packet == PacketType::SubAck;
    (packet_id(), properties(&[0x1F]), vec(code, 1..5))
        .prop_map(move |(id, properties, codes)| {
            let fields = std::iter::once(Field::Raw(id))
                .chain(section(version, properties))
                .chain(coded.then_some(Field::Raw(codes)))
                .collect();
            model(version, packet, fields)
        })
        .boxed()
}

fn disconnect(version: Version) -> BoxedStrategy<Model> {
    (
        reason(PacketType::Disconnect),
        properties(&[0x11, 0x1F, 0x1C]),
    )
        .prop_map(move |(reason, properties)| {
            let mut fields = Vec::new();
            if version.is_v5() && (reason != 0 || !properties.is_empty()) {
                fields.push(Field::Raw(vec![reason]));
                fields.extend((!properties.is_empty()).then_some(Field::Properties(properties)));
            }
            model(version, PacketType::Disconnect, fields)
        })
        .boxed()
}

fn auth() -> BoxedStrategy<Model> {
    let method = property(0x15);
    (
        reason(PacketType::Auth),
        method,
        properties(&[0x16, 0x1F]),
        any::<bool>(),
    )
        .prop_map(|(reason, method, mut properties, short)| {
            properties.insert(0, method);
            let fields = if short {
                Vec::new()
            } else {
                vec![Field::Raw(vec![reason]), Field::Properties(properties)]
            };
            model(Version::V5, PacketType::Auth, fields)
        })
        .boxed()
}

/// Every valid packet of one version.
pub(crate) fn packet(version: Version) -> BoxedStrategy<Model> {
    let ping = proptest::sample::select(vec![PacketType::PingReq, PacketType::PingResp])
        .prop_map(move |packet| model(version, packet, Vec::new()));
    let mut kinds = vec![
        connect(version),
        connack(version),
        publish(version),
        publish(version),
        acknowledgement(version, PacketType::PubAck),
        acknowledgement(version, PacketType::PubRec),
        acknowledgement(version, PacketType::PubRel),
        acknowledgement(version, PacketType::PubComp),
        subscribe(version),
        answer(version, PacketType::SubAck),
        unsubscribe(version),
        answer(version, PacketType::UnsubAck),
        ping.boxed(),
        disconnect(version),
    ];
    if version.is_v5() {
        kinds.push(auth());
    }
    proptest::strategy::Union::new(kinds).boxed()
}

/// Every valid packet of every version, version 5 as often as the others together.
pub(crate) fn any_packet() -> BoxedStrategy<Model> {
    prop_oneof![
        1 => packet(Version::V3_1),
        3 => packet(Version::V3_1_1),
        4 => packet(Version::V5),
    ]
    .boxed()
}

/// A small damage to the bytes of a packet.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// Another value.
    Set(u8),
    /// One bit.
    Flip(u8),
    /// One more byte.
    Insert(u8),
    /// One less.
    Remove,
    /// These bytes again.
    Repeat(usize),
}

/// Damages at random places.
pub(crate) fn damages() -> BoxedStrategy<Vec<(usize, Damage)>> {
    let damage = prop_oneof![
        any::<u8>().prop_map(Damage::Set),
        (0_u8..8).prop_map(Damage::Flip),
        any::<u8>().prop_map(Damage::Insert),
        Just(Damage::Remove),
        (1_usize..12).prop_map(Damage::Repeat),
    ];
    vec((any::<usize>(), damage), 1..4).boxed()
}

/// Damages a packet behind its fixed header, whose Remaining Length is then made right again, so
/// that the damage gets past the framing.
pub(crate) fn damaged(packet: &[u8], damages: &[(usize, Damage)]) -> Vec<u8> {
    let header = 1 + packet[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1;
    let mut body = packet[header..].to_vec();
    for (place, damage) in damages {
        if body.is_empty() {
            body.push(0);
        }
        // Most packets end in bytes that may be anything: damage the front more often.
        let place = if place % 3 == 0 {
            place % body.len()
        } else {
            place % body.len().min(40)
        };
        match *damage {
            Damage::Set(value) => body[place] = value,
            Damage::Flip(bit) => body[place] ^= 1 << bit,
            Damage::Insert(value) => body.insert(place, value),
            Damage::Remove => drop(body.remove(place)),
            Damage::Repeat(count) => {
                let end = (place + count).min(body.len());
                let again = body[place..end].to_vec();
                body.splice(place..place, again);
            }
        }
    }
    let mut bytes = vec![packet[0]];
    bytes.extend(variable_byte_integer(body.len()));
    bytes.extend(body);
    bytes
}
