//! A PUBLISH as its bytes came, and those right behind it that differ from it in nothing but the
//! payload.
//!
//! A receiver of the same version gets the very bytes that the publisher sent, but for flags and
//! packet identifier; so they are copied, not encoded again. And a busy publisher sends to one topic
//! many times in a row: such packets are routed once, and those of QoS 0 copied together, which takes
//! a tenth of the work of taking them one by one.
//!
//! Invariants: `bytes` are whole packets of one version; all have, behind their fixed header, the
//! same variable header but for the packet identifier, which is none or not 0 in all of them, so what
//! was checked of the first holds for all; with more than one of them, all have the same QoS and no
//! other flag.

use super::framing::{Framing, frame};
use super::{PacketId, PacketType, Publish, QoS, Version};
use crate::limits::RUN_BYTES;

/// What is known of a run apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunShape {
    version: Version,
    qos: QoS,
    /// Bytes of the first fixed header.
    fixed_header: u8,
    topic_length: u16,
    /// Bytes of the variable header.
    variable_header: u32,
    count: u32,
    largest: u32,
    payload_bytes: u32,
}

/// Packets in a row, borrowed from where they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    shape: RunShape,
    bytes: &'a [u8],
}

/// The first byte of a PUBLISH of QoS 0 without flags.
const PLAIN: u8 = PacketType::Publish.first_byte();

/// Bytes of a packet identifier where packets of this QoS have one.
const fn identifier_bytes(qos: QoS) -> usize {
    match qos {
        QoS::AtMostOnce => 0,
        QoS::AtLeastOnce | QoS::ExactlyOnce => 2,
    }
}

impl<'a> Run<'a> {
    /// The packet that `publish` was decoded from, the first `size` of `bytes`, and what continues it,
    /// `most` packets in all. Those of QoS 2 ascend by packet identifier, so none comes twice. `None` if the packet cannot be passed on as it is, because something in it is the
    /// connection's own or changes with time.
    #[must_use]
    pub fn of(
        version: Version,
        publish: &Publish<'_>,
        bytes: &'a [u8],
        size: usize,
        maximum_packet_size: u32,
        most: u32,
    ) -> Option<Self> {
        let properties = &publish.properties;
        if properties.topic_alias.is_some()
            || properties.message_expiry_interval.is_some()
            || !properties.subscription_identifiers.is_empty()
        {
            return None;
        }
        let first = &bytes[..size];
        let fixed_header = if size < 130 { 2 } else { fixed_header(first) };
        let variable_header = size - publish.payload.len() - fixed_header;
        let mut run = Self {
            shape: RunShape {
                version,
                qos: publish.qos,
                fixed_header: u8::try_from(fixed_header).ok()?,
                topic_length: u16::try_from(publish.topic.len()).ok()?,
                variable_header: u32::try_from(variable_header).ok()?,
                count: 1,
                largest: u32::try_from(size).ok()?,
                payload_bytes: u32::try_from(publish.payload.len()).ok()?,
            },
            bytes: first,
        };
        if first[0] == PLAIN | publish.qos.bits() << 1 {
            run.extend(bytes, fixed_header, maximum_packet_size, most);
        }
        Some(run)
    }

    /// Takes in the packets behind the first one that begin as it does.
    fn extend(
        &mut self,
        bytes: &'a [u8],
        fixed_header: usize,
        maximum_packet_size: u32,
        most: u32,
    ) {
        let head = &bytes[fixed_header..][..self.shape.variable_header as usize];
        let (topic, rest) = head.split_at(self.topic_field());
        let (identifier, properties) = rest.split_at(identifier_bytes(self.shape.qos));
        let identifier_of = |body: &'a [u8]| {
            let (topic_too, rest) = body.split_at_checked(topic.len())?;
            let (identifier, rest) = rest.split_at_checked(identifier.len())?;
            (topic_too == topic && rest.starts_with(properties)).then_some(identifier)
        };
        match self.shape.qos {
            QoS::AtMostOnce => {
                self.extend_while(bytes, maximum_packet_size, most, |body| {
                    body.starts_with(head)
                });
            }
            QoS::AtLeastOnce => self.extend_while(bytes, maximum_packet_size, most, |body| {
                identifier_of(body).is_some_and(|identifier| identifier != [0, 0])
            }),
            QoS::ExactlyOnce => {
                let mut last = identifier;
                self.extend_while(bytes, maximum_packet_size, most, |body| {
                    let next = identifier_of(body).filter(|&next| next > last);
                    last = next.unwrap_or(last);
                    next.is_some()
                });
            }
        }
    }

    /// Takes in packets as long as they are `alike` behind their fixed header.
    #[inline]
    fn extend_while(
        &mut self,
        bytes: &'a [u8],
        maximum_packet_size: u32,
        most: u32,
        mut alike: impl FnMut(&'a [u8]) -> bool,
    ) {
        let first_byte = bytes[0];
        let (mut end, mut shape) = (self.bytes.len(), self.shape);
        while shape.count < most
            && end < RUN_BYTES
            && let Some(rest) = bytes.get(end..)
            && rest.first() == Some(&first_byte)
            && let Ok(Framing::Packet { body, size, .. }) = frame(rest, maximum_packet_size)
            && alike(body)
        {
            end += size;
            shape.count += 1;
            // A packet is smaller than 2^28 bytes, and so is what is read at a time.
            shape.largest = shape.largest.max(size as u32);
            shape.payload_bytes += body.len() as u32 - shape.variable_header;
        }
        self.shape = shape;
        self.bytes = &bytes[..end];
    }

    /// Bytes of the topic with its length, where the packet identifier begins if there is one.
    const fn topic_field(&self) -> usize {
        2 + self.shape.topic_length as usize
    }

    /// A run that was taken apart by [`Run::shape`] and [`Run::bytes`].
    #[must_use]
    pub const fn from_parts(shape: RunShape, bytes: &'a [u8]) -> Self {
        Self { shape, bytes }
    }

    /// What is to be known of it apart from its bytes.
    #[must_use]
    pub const fn shape(&self) -> RunShape {
        self.shape
    }

    /// Its packets.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The QoS of its packets.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.shape.qos
    }

    /// How many packets it is, at least 1.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.shape.count
    }

    /// Bytes of its largest packet.
    #[must_use]
    pub const fn largest(&self) -> usize {
        self.shape.largest as usize
    }

    /// Bytes of all payloads.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.shape.payload_bytes as usize
    }

    /// The payloads, in the order of the packets.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.packets().map(|packet| packet.payload)
    }

    /// The packets, each a run by itself.
    pub fn packets(&self) -> impl Iterator<Item = RunPacket<'a>> + Clone + use<'a> {
        let shape = self.shape;
        let identifier = self.topic_field();
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let Ok(Framing::Packet { body, size, .. }) = frame(rest, u32::MAX) else {
                return None;
            };
            let (bytes, others) = rest.split_at(size);
            rest = others;
            let payload = body.get(shape.variable_header as usize..)?;
            let packet_id = match shape.qos {
                QoS::AtMostOnce => None,
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    let bytes = body.get(identifier..identifier + 2)?;
                    PacketId::new(u16::from_be_bytes([bytes[0], bytes[1]]))
                }
            };
            let run = Self {
                shape: RunShape {
                    fixed_header: (size - body.len()) as u8, // 2 to 5
                    count: 1,
                    largest: size as u32,
                    payload_bytes: payload.len() as u32,
                    ..shape
                },
                bytes,
            };
            Some(RunPacket {
                packet_id,
                payload,
                run,
            })
        })
    }

    /// Whether a receiver who speaks `version` and is sent `qos` gets these very bytes.
    #[must_use]
    #[inline]
    pub fn fits(&self, version: Version, qos: QoS) -> bool {
        self.shape.version == version
            && (qos == QoS::AtMostOnce) == (self.shape.qos == QoS::AtMostOnce)
    }

    /// Appends the packets as this receiver gets them; asked only where [`Run::fits`], and of a run
    /// of several only where they have no packet identifiers.
    #[inline]
    pub fn append(
        &self,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        output: &mut Vec<u8>,
    ) {
        let start = output.len();
        output.extend_from_slice(self.bytes);
        // A run of several is plain, and so is what everybody gets of it.
        output[start] = PLAIN | qos.bits() << 1 | u8::from(retain);
        if let Some(packet_id) = packet_id {
            let offset = start + usize::from(self.shape.fixed_header) + self.topic_field();
            output[offset..offset + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }
}

/// One packet of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunPacket<'a> {
    /// There if and only if the QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// The application message.
    pub payload: &'a [u8],
    /// The packet as a run of one.
    pub run: Run<'a>,
}

/// Bytes of the fixed header of a packet that is whole.
fn fixed_header(packet: &[u8]) -> usize {
    let length = packet.iter().skip(1).take_while(|&&byte| byte >= 0x80);
    2 + length.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Packet, PublishProperties};

    fn encode(version: Version, topic: &str, qos: QoS, payload: &[u8]) -> Vec<u8> {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: PacketId::new(7).filter(|_| qos > QoS::AtMostOnce),
            properties: PublishProperties::default(),
            payload,
        };
        let mut bytes = Vec::new();
        Packet::Publish(publish).encode(version, &mut bytes);
        bytes
    }

    fn run(version: Version, bytes: &[u8]) -> Run<'_> {
        let Ok(Framing::Packet {
            first_byte,
            body,
            size,
        }) = frame(bytes, 1 << 20)
        else {
            panic!("a whole packet");
        };
        let publish = Publish::decode(version, first_byte, body).unwrap();
        Run::of(version, &publish, bytes, size, 1 << 20, u32::MAX).unwrap()
    }

    #[test]
    fn packets_to_one_topic_are_one_run() {
        for version in [Version::V3_1_1, Version::V5] {
            let payloads = [&b"one"[..], b"", &[7; 200], b"four", &[9; 20_000]];
            let mut bytes = Vec::new();
            for payload in payloads {
                bytes.extend(encode(version, "a/b", QoS::AtMostOnce, payload));
            }
            let whole = bytes.len();
            bytes.extend(encode(version, "a/c", QoS::AtMostOnce, b"other"));
            let run = run(version, &bytes);
            assert_eq!((run.count(), run.bytes().len()), (5, whole));
            assert_eq!(run.payloads().collect::<Vec<_>>(), payloads);
            assert_eq!(run.payload_bytes(), 3 + 200 + 20_000 + 4);
            assert!(run.largest() > 20_000 && run.largest() < 20_020);
            let mut copy = Vec::new();
            run.append(QoS::AtMostOnce, false, None, &mut copy);
            assert_eq!(copy, bytes[..whole]);
        }
    }

    #[test]
    fn a_run_ends_where_anything_but_the_payload_differs() {
        let first = encode(Version::V5, "a/b", QoS::AtMostOnce, b"x");
        let mut retained = first.clone();
        retained[0] |= 1;
        let mut described = first.clone();
        described[1] += 2;
        described[7] = 2;
        described.splice(8..8, [1, 1]); // Payload Format Indicator
        let longer = encode(Version::V5, "a/bc", QoS::AtMostOnce, b"x");
        let acknowledged = encode(Version::V5, "a/b", QoS::AtLeastOnce, b"x");
        let mut cut = first.clone();
        cut.truncate(7);
        cut[1] = 5;
        for other in [
            &retained,
            &described,
            &longer,
            &acknowledged,
            &cut,
            &first[..4].to_vec(),
            &vec![0xC0, 0],
        ] {
            let bytes = [&first[..], &first, other].concat();
            let run = run(Version::V5, &bytes);
            assert_eq!(run.count(), 2, "{other:x?}");
            assert_eq!(run.bytes().len(), 2 * first.len());
        }
    }

    #[test]
    fn what_needs_acknowledgements_keeps_and_gets_its_own_identifiers() {
        for version in [Version::V3_1_1, Version::V5] {
            let mut bytes = Vec::new();
            for (identifier, payload) in [(9, &b"one"[..]), (7, &[7; 200]), (0x1234, b"")] {
                let start = bytes.len();
                bytes.extend(encode(version, "a/b", QoS::AtLeastOnce, payload));
                let fixed = fixed_header(&bytes[start..]);
                bytes[start + fixed + 5..][..2].copy_from_slice(&u16::to_be_bytes(identifier));
            }
            let whole = bytes.len();
            // An identifier of 0 is a fault, which only the packet itself may be told of.
            bytes.extend(encode(version, "a/b", QoS::AtLeastOnce, b""));
            bytes[whole + 7..][..2].fill(0);
            let run = run(version, &bytes);
            assert_eq!((run.count(), run.bytes().len()), (3, whole));
            assert!(run.fits(version, QoS::ExactlyOnce) && !run.fits(version, QoS::AtMostOnce));
            let identifiers = run.packets().map(|packet| packet.packet_id.unwrap().get());
            assert_eq!(identifiers.collect::<Vec<_>>(), [9, 7, 0x1234]);
            let mut copies = Vec::new();
            for (packet, identifier) in run.packets().zip(1..) {
                let start = copies.len();
                let identifier = PacketId::new(identifier);
                packet
                    .run
                    .append(QoS::AtLeastOnce, true, identifier, &mut copies);
                let Ok(Framing::Packet { body, .. }) = frame(&copies[start..], 1 << 20) else {
                    panic!("a whole packet");
                };
                let copy = Publish::decode(version, copies[start], body).unwrap();
                assert_eq!(copies[start], 0x33);
                assert_eq!((copy.packet_id, copy.payload), (identifier, packet.payload));
            }
        }
    }

    #[test]
    fn of_qos_2_no_identifier_comes_twice_in_a_run() {
        let mut bytes = Vec::new();
        for identifier in [7, 8, 300, 300] {
            let start = bytes.len();
            bytes.extend(encode(Version::V5, "a/b", QoS::ExactlyOnce, b"x"));
            bytes[start + 7..][..2].copy_from_slice(&u16::to_be_bytes(identifier));
        }
        assert_eq!(run(Version::V5, &bytes).count(), 3);
    }

    #[test]
    fn what_is_the_connections_own_is_not_passed_on_as_it_is() {
        let publish = |properties| Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "a",
            packet_id: None,
            properties,
            payload: b"x",
        };
        let alias = PublishProperties {
            topic_alias: Some(1),
            ..PublishProperties::default()
        };
        let expiry = PublishProperties {
            message_expiry_interval: Some(1),
            ..PublishProperties::default()
        };
        for properties in [alias, expiry] {
            let publish = publish(properties);
            let mut bytes = Vec::new();
            Packet::Publish(publish).encode(Version::V5, &mut bytes);
            let size = bytes.len();
            let run = Run::of(Version::V5, &publish, &bytes, size, 1 << 20, u32::MAX);
            assert!(run.is_none());
        }
    }
}
