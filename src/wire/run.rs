//! A PUBLISH as its bytes came, and those right behind it that differ from it in nothing but the
//! payload.
//!
//! A receiver of the same version gets the very bytes that the publisher sent, but for flags and
//! packet identifier; so they are copied, not encoded again. And a busy publisher sends to one topic
//! many times in a row: such packets of QoS 0 are routed once and copied together, which takes a
//! tenth of the work of taking them one by one.
//!
//! Invariants: `bytes` are whole packets of one version; all begin, behind their fixed header, with
//! the same variable header, so what was checked of the first holds for all; with more than one of
//! them, each has QoS 0 and no other flag.

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

/// The first byte of a packet that others may follow in a run: QoS 0, no flags.
const PLAIN: u8 = PacketType::Publish.first_byte();

impl<'a> Run<'a> {
    /// The packet that `publish` was decoded from, the first `size` of `bytes`, and what continues it.
    /// `None` if the packet cannot be passed on as it is, because something in it is the
    /// connection's own or changes with time.
    #[must_use]
    pub fn of(
        version: Version,
        publish: &Publish<'_>,
        bytes: &'a [u8],
        size: usize,
        maximum_packet_size: u32,
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
        if first[0] == PLAIN {
            run.extend(bytes, fixed_header, maximum_packet_size);
        }
        Some(run)
    }

    /// Takes in the packets behind the first one that begin as it does.
    fn extend(&mut self, bytes: &'a [u8], fixed_header: usize, maximum_packet_size: u32) {
        let mut end = self.bytes.len();
        let head = &bytes[fixed_header..][..self.shape.variable_header as usize];
        while end < RUN_BYTES
            && let Some(rest) = bytes.get(end..)
            && rest.first() == Some(&PLAIN)
            && let Ok(Framing::Packet { body, size, .. }) = frame(rest, maximum_packet_size)
            && body.starts_with(head)
        {
            end += size;
            self.shape.count += 1;
            // A packet is smaller than 2^28 bytes, and so is what is read at a time.
            self.shape.largest = self.shape.largest.max(size as u32);
            self.shape.payload_bytes += (body.len() - head.len()) as u32;
        }
        self.bytes = &bytes[..end];
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
        let skip = self.shape.variable_header as usize;
        let mut rest = self.bytes;
        std::iter::from_fn(move || match frame(rest, u32::MAX) {
            Ok(Framing::Packet { body, size, .. }) => {
                rest = &rest[size..];
                body.get(skip..)
            }
            _ => None,
        })
    }

    /// Whether a receiver who speaks `version` and is sent `qos` gets these very bytes.
    #[must_use]
    #[inline]
    pub fn fits(&self, version: Version, qos: QoS) -> bool {
        self.shape.version == version
            && (qos == QoS::AtMostOnce) == (self.shape.qos == QoS::AtMostOnce)
    }

    /// Appends the packets as this receiver gets them; asked only where [`Run::fits`].
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
            let topic = 2 + usize::from(self.shape.topic_length);
            let offset = start + usize::from(self.shape.fixed_header) + topic;
            output[offset..offset + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }
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
        Run::of(version, &publish, bytes, size, 1 << 20).unwrap()
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
        for other in [
            &retained,
            &described,
            &longer,
            &acknowledged,
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
    fn what_needs_an_acknowledgement_is_alone_and_gets_its_own_identifier() {
        let one = encode(Version::V5, "a/b", QoS::AtLeastOnce, b"x");
        let bytes = [&one[..], &one].concat();
        let run = run(Version::V5, &bytes);
        assert_eq!(run.count(), 1);
        assert!(run.fits(Version::V5, QoS::ExactlyOnce));
        assert!(
            !run.fits(Version::V5, QoS::AtMostOnce) && !run.fits(Version::V3_1_1, QoS::AtLeastOnce)
        );
        let mut copy = Vec::new();
        run.append(QoS::AtLeastOnce, true, PacketId::new(0x1234), &mut copy);
        assert_eq!(copy[0], 0x33);
        assert_eq!(copy[7..9], [0x12, 0x34]);
        assert_eq!(copy[9..], one[9..]);
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
            assert!(Run::of(Version::V5, &publish, &bytes, size, 1 << 20).is_none());
        }
    }
}
