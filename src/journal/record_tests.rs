use proptest::prelude::*;

use super::*;
use crate::journal::receivers::put_recipients;
use crate::journal::types::{Copied, Recipient};

fn item() -> impl Strategy<Value = ItemId> {
    prop_oneof![(1..2_000_u64), (1..MAX_ITEM)].prop_map(ItemId)
}

fn session() -> impl Strategy<Value = SessionNumber> {
    (0..MAX_SESSIONS).prop_map(SessionNumber)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn deadline() -> impl Strategy<Value = Deadline> {
    prop_oneof![Just(Deadline::NEVER), any::<u64>().prop_map(Deadline)]
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

/// What a record borrows.
#[derive(Clone, Debug)]
struct Owned {
    text: String,
    more: String,
    properties: Vec<u8>,
    payload: Vec<u8>,
    receivers: Vec<u8>,
    numbers: (u32, Option<u32>, Deadline, Deadline),
    qos: QoS,
    flags: (bool, bool),
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let receivers = prop::collection::btree_map(0..5_000_u32, qos(), 0..40);
    (
        (".{0,40}", ".{0,20}", bytes(), bytes(), receivers),
        (any::<u32>(), any::<Option<u32>>(), deadline(), deadline()),
        qos(),
        any::<(bool, bool)>(),
    )
        .prop_map(
            |((text, more, properties, payload, to), numbers, qos, flags)| {
                let mut recipients: Vec<_> = to
                    .into_iter()
                    .map(|(session, qos)| Recipient {
                        session: SessionNumber(session),
                        copy: Copied {
                            qos,
                            retain: false,
                            identifiers: &[],
                            group: "",
                        },
                    })
                    .collect();
                let mut receivers = Vec::new();
                put_recipients(&mut recipients, &mut receivers);
                Owned {
                    text,
                    more,
                    properties,
                    payload,
                    receivers,
                    numbers,
                    qos,
                    flags,
                }
            },
        )
}

impl Owned {
    fn message(&self) -> StoredMessage<'_> {
        StoredMessage {
            topic: &self.text,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.flags.0,
            expires_at: self.numbers.2,
        }
    }

    fn record(
        &self,
        kind: u8,
        id: ItemId,
        other: ItemId,
        session: SessionNumber,
        packet_id: PacketId,
    ) -> Record<'_> {
        let replaces = (other < id).then_some(other);
        match kind {
            1 => Record::Session {
                id,
                session,
                begun: other,
                replaces,
                details: SessionDetails {
                    client_id: &self.text,
                    user: &self.more,
                    version: [Version::V3_1, Version::V3_1_1, Version::V5]
                        [usize::from(self.qos.bits())],
                    expiry_interval: self.numbers.0,
                    expires_at: self.numbers.2,
                },
            },
            2 => Record::SessionRemoved { session, begun: id },
            3 => Record::Subscription {
                id,
                session,
                replaces,
                details: SubscriptionDetails {
                    filter: &self.text,
                    options: SubscriptionOptions {
                        qos: self.qos,
                        no_local: self.flags.0,
                        retain_as_published: self.flags.1,
                        retain_handling: RetainHandling::SendIfNew,
                    },
                    identifier: self.numbers.0,
                    owed: self.flags.0 != self.flags.1,
                },
            },
            4 => Record::Message {
                id,
                retained: self.flags.1,
                replaces,
                message: self.message(),
                receivers: Receivers::trusted(&self.receivers),
            },
            5 => Record::Acknowledged {
                session,
                message: id,
            },
            6 => Record::Held {
                id,
                session,
                packet_id,
            },
            7 => Record::Sent {
                id,
                session,
                message: other,
                packet_id,
            },
            8 => Record::Received {
                id,
                session,
                message: other,
                packet_id,
                replaces,
            },
            9 => Record::Will {
                id,
                session,
                replaces,
                details: WillDetails {
                    due: self.numbers.3,
                    delay_interval: self.numbers.0,
                    message_expiry_interval: self.numbers.1,
                    message: self.message(),
                },
            },
            10 => Record::Forward {
                id,
                details: ForwardDetails {
                    shards: other.0,
                    errands: &self.more,
                    message: self.message(),
                },
            },
            11 => Record::Origin {
                id,
                replaces,
                lane: self.numbers.0,
                forward: other,
            },
            _ => Record::Removed { id },
        }
    }
}

proptest! {
    #[test]
    fn records_read_as_they_were_written(
        base in item(),
        parts in prop::collection::vec(
            (1..=12_u8, owned(), item(), item(), session(), packet_id()), 1..6),
    ) {
        let written: Vec<_> = parts
            .iter()
            .map(|(kind, owned, id, other, session, packet_id)| {
                owned.record(*kind, *id, *other, *session, *packet_id)
            })
            .collect();
        let mut bytes = Vec::new();
        for record in &written {
            let start = bytes.len();
            record.encode(base, &mut bytes);
            if let Record::Message { id, message, receivers, .. } = record {
                // A message can be read by itself, but not under another number.
                let alone = Record::decode_alone(*id, &bytes[start..]);
                prop_assert_eq!(alone, Ok(Ok((*message, *receivers))));
                let size = bytes.len() - start;
                let cut = &bytes[start..bytes.len() - 1];
                prop_assert_eq!(Record::decode_alone(*id, cut), Ok(Err(size)));
                let wrong = ItemId(id.0 ^ 2);
                prop_assert_eq!(Record::decode_alone(wrong, &bytes[start..]), Err(Malformed));
            }
        }
        let mut reader = Reader::new(&bytes);
        for record in &written {
            prop_assert_eq!(Record::decode(base, &mut reader), Ok(*record));
        }
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(
        kind in 0..12_u8, base in item(), rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&rest);
        let mut reader = Reader::new(&bytes);
        while !reader.is_empty() {
            let Ok(record) = Record::decode(base, &mut reader) else { break };
            let mut again = Vec::new();
            record.encode(base, &mut again);
            prop_assert_eq!(Record::decode(base, &mut Reader::new(&again)), Ok(record));
        }
        let alone = Record::decode_alone(base, &bytes);
        prop_assert!(!matches!(alone, Ok(Err(wanted)) if wanted <= bytes.len()));
    }
}

#[test]
fn an_acknowledgement_takes_few_bytes() {
    let record = Record::Acknowledged {
        session: SessionNumber(10_000),
        message: ItemId(5_000_000 - 1_000),
    };
    let mut bytes = Vec::new();
    record.encode(ItemId(5_000_000), &mut bytes);
    assert!(bytes.len() <= 6);
}
