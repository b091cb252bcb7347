//! Records: what a frame is made of.
//!
//! A record begins with a byte that says what it is. Numbers take 7 bits a byte; the number of an item
//! is written as its distance from the number that the frame's header names, so a fresh one takes a byte
//! or two, and an acknowledgement about six bytes in all.
//!
//! A message says how long it is and has a checksum of its own, over its number and all that comes behind:
//! so it can be read by itself, without the frame around it.

use crate::wire::{PacketId, QoS, RetainHandling, SubscriptionOptions, Version};

use super::codec::{Malformed, Reader, put_bytes, put_number, put_signed};
use super::receivers::Receivers;
use super::types::{
    Deadline, ForwardDetails, ItemId, MAX_SEGMENT_BYTES, MAX_SESSIONS, SessionDetails,
    SessionNumber, StoredMessage, SubscriptionDetails, WillDetails,
};

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A session was made, or what is known of it has changed.
    Session {
        /// This record; the first one of a session is `begun`.
        id: ItemId,
        /// Whose it is.
        session: SessionNumber,
        /// Tells the session from those that had its number before.
        begun: ItemId,
        /// The record that it takes the place of.
        replaces: Option<ItemId>,
        /// What is known now.
        details: SessionDetails<'a>,
    },
    /// A session has ended, with all that is its own.
    SessionRemoved {
        /// Which session.
        session: SessionNumber,
        /// Its first record.
        begun: ItemId,
    },
    /// A subscription was made.
    Subscription {
        /// This record.
        id: ItemId,
        /// Whose it is.
        session: SessionNumber,
        /// The subscription that it takes the place of.
        replaces: Option<ItemId>,
        /// What was subscribed to.
        details: SubscriptionDetails<'a>,
    },
    /// A message that somebody keeps.
    Message {
        /// This record.
        id: ItemId,
        /// Whether it is the retained message of its topic.
        retained: bool,
        /// The retained message that it takes the place of.
        replaces: Option<ItemId>,
        /// The message.
        message: StoredMessage<'a>,
        /// The sessions it waits for.
        receivers: Receivers<'a>,
    },
    /// A message is no concern of a session any longer; nor is the record that it was sent.
    Acknowledged {
        /// Which session.
        session: SessionNumber,
        /// Which message.
        message: ItemId,
    },
    /// PUBREC is sent for a QoS 2 message from the client.
    Held {
        /// This record.
        id: ItemId,
        /// Whose it is.
        session: SessionNumber,
        /// The packet identifier that the client chose.
        packet_id: PacketId,
    },
    /// A QoS 2 message is sent to the client.
    Sent {
        /// This record.
        id: ItemId,
        /// To whom.
        session: SessionNumber,
        /// Which message.
        message: ItemId,
        /// The packet identifier that the broker chose.
        packet_id: PacketId,
    },
    /// PUBREC came: the message is acknowledged, the exchange goes on.
    Received {
        /// This record.
        id: ItemId,
        /// From whom.
        session: SessionNumber,
        /// Which message it was.
        message: ItemId,
        /// The packet identifier that the broker chose.
        packet_id: PacketId,
        /// The record that the message was sent; `None` once that can be in no segment.
        replaces: Option<ItemId>,
    },
    /// A will was left, or its deadline is known.
    Will {
        /// This record.
        id: ItemId,
        /// Whose it is.
        session: SessionNumber,
        /// The will that it takes the place of.
        replaces: Option<ItemId>,
        /// The will.
        details: WillDetails<'a>,
    },
    /// A QoS 2 message is on its way to other shards.
    Forward {
        /// This record.
        id: ItemId,
        /// Where to, and the message.
        details: ForwardDetails<'a>,
    },
    /// A forwarded message came from another shard, and all before it.
    Origin {
        /// This record.
        id: ItemId,
        /// The one of the message before.
        replaces: Option<ItemId>,
        /// By which lane of which shard.
        lane: u32,
        /// What the other shard's journal calls the message.
        forward: ItemId,
    },
    /// A subscription, an exchange, a held identifier, a will or a forwarded message has ended; of a
    /// message, that it is retained.
    Removed {
        /// Which record.
        id: ItemId,
    },
}

const SESSION: u8 = 1;
const SESSION_REMOVED: u8 = 2;
const SUBSCRIPTION: u8 = 3;
const MESSAGE: u8 = 4;
const ACKNOWLEDGED: u8 = 5;
const HELD: u8 = 6;
const SENT: u8 = 7;
const RECEIVED: u8 = 8;
const WILL: u8 = 9;
const REMOVED: u8 = 10;
const FORWARD: u8 = 11;
const ORIGIN: u8 = 12;

/// Flags of a message.
const RETAIN: u8 = 0b0000_0100;
const EXPIRES: u8 = 0b0000_1000;
const PROPERTIES: u8 = 0b0001_0000;
const RETAINED: u8 = 0b0010_0000;
const REPLACES: u8 = 0b0100_0000;

/// Of a subscription: retained messages are still to be sent because of it.
const OWED: u8 = 0b0100_0000;

/// Bytes that a message may take besides its topic, properties, payload and receivers.
pub(super) const MESSAGE_OVERHEAD: usize = 64;

impl<'a> Record<'a> {
    /// Appends the record to a frame whose header names `base`.
    pub(super) fn encode(&self, base: ItemId, out: &mut Vec<u8>) {
        let put_id = |id: ItemId, out: &mut Vec<u8>| put_signed(distance(base, id), out);
        match *self {
            Self::Session {
                id,
                session,
                begun,
                replaces,
                ref details,
            } => {
                out.push(SESSION);
                put_id(id, out);
                put_number(session.0.into(), out);
                put_id(begun, out);
                put_replaced(id, replaces, out);
                put_session(details, out);
            }
            Self::SessionRemoved { session, begun } => {
                out.push(SESSION_REMOVED);
                put_number(session.0.into(), out);
                put_id(begun, out);
            }
            Self::Subscription {
                id,
                session,
                replaces,
                ref details,
            } => {
                out.push(SUBSCRIPTION);
                put_id(id, out);
                put_number(session.0.into(), out);
                put_replaced(id, replaces, out);
                out.push(option_bits(details));
                put_number(details.identifier.into(), out);
                put_bytes(details.filter.as_bytes(), out);
            }
            Self::Message {
                id,
                retained,
                replaces,
                ref message,
                receivers,
            } => {
                out.push(MESSAGE);
                put_id(id, out);
                put_kept(id, retained, replaces, message, receivers, out);
            }
            Self::Will {
                id,
                session,
                replaces,
                ref details,
            } => {
                out.push(WILL);
                put_id(id, out);
                put_number(session.0.into(), out);
                put_replaced(id, replaces, out);
                put_will(details, out);
            }
            _ => self.encode_exchange(base, out),
        }
    }

    /// The rest of [`Record::encode`]: what exchanges are made of.
    fn encode_exchange(&self, base: ItemId, out: &mut Vec<u8>) {
        let put_id = |id: ItemId, out: &mut Vec<u8>| put_signed(distance(base, id), out);
        match *self {
            Self::Acknowledged { session, message } => {
                out.push(ACKNOWLEDGED);
                put_number(session.0.into(), out);
                put_id(message, out);
            }
            Self::Held {
                id,
                session,
                packet_id,
            } => {
                out.push(HELD);
                put_id(id, out);
                put_number(session.0.into(), out);
                put_number(packet_id.get().into(), out);
            }
            Self::Sent {
                id,
                session,
                message,
                packet_id,
            } => {
                out.push(SENT);
                put_id(id, out);
                put_number(session.0.into(), out);
                put_id(message, out);
                put_number(packet_id.get().into(), out);
            }
            Self::Received {
                id,
                session,
                message,
                packet_id,
                replaces,
            } => {
                out.push(RECEIVED);
                put_id(id, out);
                put_number(session.0.into(), out);
                put_id(message, out);
                put_number(packet_id.get().into(), out);
                put_replaced(id, replaces, out);
            }
            Self::Forward { id, ref details } => {
                out.push(FORWARD);
                put_id(id, out);
                put_forward(details, out);
            }
            Self::Origin {
                id,
                replaces,
                lane,
                forward,
            } => {
                out.push(ORIGIN);
                put_id(id, out);
                put_replaced(id, replaces, out);
                put_number(lane.into(), out);
                put_number(forward.0, out);
            }
            Self::Removed { id } => {
                out.push(REMOVED);
                put_id(id, out);
            }
            _ => {}
        }
    }

    /// The item that begins with the record, and the one that it takes the place of.
    pub(super) fn begins(&self) -> Option<(ItemId, Option<ItemId>)> {
        match *self {
            Self::Session { id, replaces, .. }
            | Self::Subscription { id, replaces, .. }
            | Self::Message { id, replaces, .. }
            | Self::Received { id, replaces, .. }
            | Self::Will { id, replaces, .. }
            | Self::Origin { id, replaces, .. } => Some((id, replaces)),
            Self::Held { id, .. } | Self::Sent { id, .. } | Self::Forward { id, .. } => {
                Some((id, None))
            }
            Self::SessionRemoved { .. } | Self::Acknowledged { .. } | Self::Removed { .. } => None,
        }
    }

    /// The record as it is written again: what it took the place of is gone.
    pub(super) fn without_replaced(mut self) -> Self {
        if let Self::Session { replaces, .. }
        | Self::Subscription { replaces, .. }
        | Self::Message { replaces, .. }
        | Self::Received { replaces, .. }
        | Self::Will { replaces, .. }
        | Self::Origin { replaces, .. } = &mut self
        {
            *replaces = None;
        }
        self
    }

    /// Reads the next record of a frame whose header names `base`.
    pub(super) fn decode(base: ItemId, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let base = item(base.0)?;
        let kind = reader.byte()?;
        Ok(match kind {
            SESSION => {
                let id = take_id(base, reader)?;
                Self::Session {
                    id,
                    session: take_session(reader)?,
                    begun: take_id(base, reader)?,
                    replaces: take_replaced(id, reader)?,
                    details: take_session_details(reader)?,
                }
            }
            SESSION_REMOVED => Self::SessionRemoved {
                session: take_session(reader)?,
                begun: take_id(base, reader)?,
            },
            SUBSCRIPTION => {
                let id = take_id(base, reader)?;
                Self::Subscription {
                    id,
                    session: take_session(reader)?,
                    replaces: take_replaced(id, reader)?,
                    details: take_subscription(reader)?,
                }
            }
            MESSAGE => {
                let id = take_id(base, reader)?;
                Self::decode_message(id, reader)?
            }
            ACKNOWLEDGED => Self::Acknowledged {
                session: take_session(reader)?,
                message: take_id(base, reader)?,
            },
            HELD => Self::Held {
                id: take_id(base, reader)?,
                session: take_session(reader)?,
                packet_id: take_packet_id(reader)?,
            },
            SENT => Self::Sent {
                id: take_id(base, reader)?,
                session: take_session(reader)?,
                message: take_id(base, reader)?,
                packet_id: take_packet_id(reader)?,
            },
            RECEIVED => {
                let id = take_id(base, reader)?;
                Self::Received {
                    id,
                    session: take_session(reader)?,
                    message: take_id(base, reader)?,
                    packet_id: take_packet_id(reader)?,
                    replaces: take_replaced(id, reader)?,
                }
            }
            WILL => {
                let id = take_id(base, reader)?;
                Self::Will {
                    id,
                    session: take_session(reader)?,
                    replaces: take_replaced(id, reader)?,
                    details: take_will(reader)?,
                }
            }
            REMOVED => Self::Removed {
                id: take_id(base, reader)?,
            },
            FORWARD => Self::Forward {
                id: take_id(base, reader)?,
                details: take_forward(reader)?,
            },
            ORIGIN => {
                let id = take_id(base, reader)?;
                Self::Origin {
                    id,
                    replaces: take_replaced(id, reader)?,
                    lane: reader.narrow()?,
                    forward: item(reader.number()?)?,
                }
            }
            _ => return Err(Malformed),
        })
    }

    /// Reads the message `id` by itself, and who gets it. `bytes` begin where it stands; `Ok(Err(n))` says that it takes
    /// `n` bytes, more than there are.
    pub(super) fn decode_alone(
        id: ItemId,
        bytes: &'a [u8],
    ) -> Result<Result<(StoredMessage<'a>, Receivers<'a>), usize>, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != MESSAGE {
            return Err(Malformed);
        }
        reader.signed()?;
        let mut ahead = reader;
        let length: usize = ahead.narrow()?;
        let wanted = (bytes.len() - ahead.rest().len()).checked_add(length);
        let wanted = wanted.filter(|&wanted| wanted <= MAX_SEGMENT_BYTES as usize);
        let wanted = wanted.ok_or(Malformed)?;
        if wanted > bytes.len() {
            return Ok(Err(wanted));
        }
        match Self::decode_message(id, &mut reader)? {
            Self::Message {
                message, receivers, ..
            } => Ok(Ok((message, receivers))),
            _ => Err(Malformed),
        }
    }

    fn decode_message(id: ItemId, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut inner = Reader::new(reader.bytes()?);
        let sum = inner.take(4)?;
        if sum != checksum(id, inner.rest()) {
            return Err(Malformed);
        }
        let flags = inner.byte()?;
        let replaces = match flags & REPLACES {
            0 => None,
            _ => take_replaced(id, &mut inner)?,
        };
        let receivers = Receivers::parse(inner.bytes()?)?;
        let message = take_message(flags & !(RETAINED | REPLACES), inner)?;
        Ok(Self::Message {
            id,
            retained: flags & RETAINED != 0,
            replaces,
            message,
            receivers,
        })
    }
}

/// A message record behind its number: length, checksum, flags, receivers, message.
fn put_kept(
    id: ItemId,
    retained: bool,
    replaces: Option<ItemId>,
    message: &StoredMessage<'_>,
    receivers: Receivers<'_>,
    out: &mut Vec<u8>,
) {
    // The length is not known before; most often it takes the two bytes that are left for it.
    let length_at = out.len();
    out.extend_from_slice(&[0; 2 + 4]);
    let start = out.len();
    out.push(
        message_flags(message)
            | (u8::from(retained) * RETAINED)
            | (u8::from(replaces.is_some()) * REPLACES),
    );
    if replaces.is_some() {
        put_replaced(id, replaces, out);
    }
    put_bytes(receivers.as_bytes(), out);
    put_message(message, out);
    let sum = checksum(id, &out[start..]);
    out[start - 4..start].copy_from_slice(&sum);
    let length = out.len() - start + 4;
    if (0x80..0x4000).contains(&length) {
        out[length_at] = length as u8 | 0x80;
        out[length_at + 1] = (length >> 7) as u8;
        return;
    }
    let mut encoded = Vec::new();
    put_number(length as u64, &mut encoded);
    out.splice(length_at..length_at + 2, encoded);
}

fn checksum(id: ItemId, bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial((id.0 ^ (id.0 >> 32)) as u32);
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

fn distance(base: ItemId, id: ItemId) -> i64 {
    id.0.wrapping_sub(base.0).cast_signed()
}

/// Numbers beyond are none that were given away; so there is always a next one.
pub(super) const MAX_ITEM: u64 = 1 << 62;

fn item(number: u64) -> Result<ItemId, Malformed> {
    if (1..MAX_ITEM).contains(&number) {
        Ok(ItemId(number))
    } else {
        Err(Malformed)
    }
}

fn take_id(base: ItemId, reader: &mut Reader<'_>) -> Result<ItemId, Malformed> {
    let number = base.0.checked_add_signed(reader.signed()?);
    item(number.ok_or(Malformed)?)
}

fn take_session(reader: &mut Reader<'_>) -> Result<SessionNumber, Malformed> {
    let number: u32 = reader.narrow()?;
    if number < MAX_SESSIONS {
        Ok(SessionNumber(number))
    } else {
        Err(Malformed)
    }
}

fn take_packet_id(reader: &mut Reader<'_>) -> Result<PacketId, Malformed> {
    PacketId::new(reader.narrow()?).ok_or(Malformed)
}

/// What is replaced is older, so its distance is not 0, which stands for nothing.
fn put_replaced(id: ItemId, replaces: Option<ItemId>, out: &mut Vec<u8>) {
    put_number(replaces.map_or(0, |old| id.0 - old.0), out);
}

fn take_replaced(id: ItemId, reader: &mut Reader<'_>) -> Result<Option<ItemId>, Malformed> {
    match reader.number()? {
        0 => Ok(None),
        distance => item(id.0.checked_sub(distance).ok_or(Malformed)?).map(Some),
    }
}

/// Never is 0, because nobody has a deadline in 1970; a deadline is one more than its milliseconds.
fn put_deadline(deadline: Deadline, out: &mut Vec<u8>) {
    put_number(deadline.0.wrapping_add(1), out);
}

fn take_deadline(reader: &mut Reader<'_>) -> Result<Deadline, Malformed> {
    Ok(Deadline(reader.number()?.wrapping_sub(1)))
}

fn put_session(details: &SessionDetails<'_>, out: &mut Vec<u8>) {
    out.push(details.version.level());
    put_number(details.expiry_interval.into(), out);
    put_deadline(details.expires_at, out);
    put_bytes(details.client_id.as_bytes(), out);
    put_bytes(details.user.as_bytes(), out);
}

fn take_session_details<'a>(reader: &mut Reader<'a>) -> Result<SessionDetails<'a>, Malformed> {
    let version = match reader.byte()? {
        3 => Version::V3_1,
        4 => Version::V3_1_1,
        5 => Version::V5,
        _ => return Err(Malformed),
    };
    Ok(SessionDetails {
        version,
        expiry_interval: reader.narrow()?,
        expires_at: take_deadline(reader)?,
        client_id: reader.text()?,
        user: reader.text()?,
    })
}

/// As SUBSCRIBE has them, section 3.8.3.1 of version 5, and since format 2 one of the two bits that it leaves.
fn option_bits(details: &SubscriptionDetails<'_>) -> u8 {
    let options = details.options;
    options.qos.bits()
        | (u8::from(options.no_local) << 2)
        | (u8::from(options.retain_as_published) << 3)
        | ((options.retain_handling as u8) << 4)
        | (u8::from(details.owed) * OWED)
}

fn take_subscription<'a>(reader: &mut Reader<'a>) -> Result<SubscriptionDetails<'a>, Malformed> {
    let bits = reader.byte()?;
    let options = SubscriptionOptions {
        qos: QoS::from_bits(bits & 3).ok_or(Malformed)?,
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling: match (bits & !OWED) >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Malformed),
        },
    };
    Ok(SubscriptionDetails {
        options,
        identifier: reader.narrow()?,
        filter: reader.text()?,
        owed: bits & OWED != 0,
    })
}

fn message_flags(message: &StoredMessage<'_>) -> u8 {
    message.qos.bits()
        | (u8::from(message.retain) * RETAIN)
        | (u8::from(message.expires_at != Deadline::NEVER) * EXPIRES)
        | (u8::from(!message.properties.is_empty()) * PROPERTIES)
}

/// A message behind its flags; the payload takes what is left.
fn put_message(message: &StoredMessage<'_>, out: &mut Vec<u8>) {
    if message.expires_at != Deadline::NEVER {
        put_deadline(message.expires_at, out);
    }
    put_bytes(message.topic.as_bytes(), out);
    if !message.properties.is_empty() {
        put_bytes(message.properties, out);
    }
    out.extend_from_slice(message.payload);
}

fn take_message<'a>(flags: u8, mut reader: Reader<'a>) -> Result<StoredMessage<'a>, Malformed> {
    if flags & !(0b11 | RETAIN | EXPIRES | PROPERTIES) != 0 {
        return Err(Malformed);
    }
    let expires_at = match flags & EXPIRES {
        0 => Deadline::NEVER,
        _ => take_deadline(&mut reader)?,
    };
    let topic = reader.text()?;
    let properties = match flags & PROPERTIES {
        0 => &[],
        _ => reader.bytes()?,
    };
    Ok(StoredMessage {
        topic,
        properties,
        payload: reader.rest(),
        qos: QoS::from_bits(flags & 3).ok_or(Malformed)?,
        retain: flags & RETAIN != 0,
        expires_at,
    })
}

fn put_will(details: &WillDetails<'_>, out: &mut Vec<u8>) {
    put_deadline(details.due, out);
    put_number(details.delay_interval.into(), out);
    put_number(
        details
            .message_expiry_interval
            .map_or(0, |seconds| u64::from(seconds) + 1),
        out,
    );
    put_whole_message(&details.message, out);
}

/// A message with its flags and its length.
fn put_whole_message(message: &StoredMessage<'_>, out: &mut Vec<u8>) {
    let mut encoded = Vec::new();
    encoded.push(message_flags(message));
    put_message(message, &mut encoded);
    put_bytes(&encoded, out);
}

fn take_whole_message<'a>(reader: &mut Reader<'a>) -> Result<StoredMessage<'a>, Malformed> {
    let mut message = Reader::new(reader.bytes()?);
    let flags = message.byte()?;
    take_message(flags, message)
}

fn put_forward(details: &ForwardDetails<'_>, out: &mut Vec<u8>) {
    put_number(details.shards, out);
    put_bytes(details.errands.as_bytes(), out);
    put_whole_message(&details.message, out);
}

fn take_forward<'a>(reader: &mut Reader<'a>) -> Result<ForwardDetails<'a>, Malformed> {
    Ok(ForwardDetails {
        shards: reader.number()?,
        errands: reader.text()?,
        message: take_whole_message(reader)?,
    })
}

fn take_will<'a>(reader: &mut Reader<'a>) -> Result<WillDetails<'a>, Malformed> {
    let due = take_deadline(reader)?;
    let delay_interval = reader.narrow()?;
    let message_expiry_interval = match reader.number()? {
        0 => None,
        seconds => Some(u32::try_from(seconds - 1).map_err(|_| Malformed)?),
    };
    Ok(WillDetails {
        due,
        delay_interval,
        message_expiry_interval,
        message: take_whole_message(reader)?,
    })
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
