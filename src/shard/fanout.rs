//! One publish, or a run of them, on its way to the receivers of this shard: encoded once for each
//! layout, kept once by all who keep it.

use crate::limits::MAX_PACKET_SIZE;
use crate::message::{ItemId, Message, MessageView};
use crate::route::{GroupKey, Receiver};
use crate::session::Identifiers;
use crate::time::Time;
use crate::wire::{PacketId, PublishHead, QoS, Run, Version};

/// One publish, or a run of them, on its way to the receivers of this shard.
pub(super) struct Fanout<'a> {
    /// The message, the first one of a run.
    pub(super) message: MessageView<'a>,
    /// Its packet as it came, and those that continue it.
    pub(super) run: Option<Run<'a>>,
    pub(super) now: Time,
    /// What the journal calls the message, and whether it could not take it.
    pub(super) stored: Option<ItemId>,
    pub(super) refused: bool,
    /// Made by the first receiver that keeps the message, shared by all.
    kept: Option<Message>,
    pub(super) encoder: &'a mut Encoder,
    /// Whether encoding once and copying pays: not for a single receiver.
    shared: bool,
}

/// What the subscriptions of one session say of a message.
#[derive(Clone)]
pub(super) struct Matched {
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) identifiers: Identifiers,
    pub(super) group: Option<GroupKey>,
}

/// What a single subscription makes of a message. Most of many make the same of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    identifier: u32,
}

impl Way {
    #[inline]
    pub(super) fn of(receiver: &Receiver, message: &MessageView<'_>) -> Self {
        Self {
            qos: receiver.qos.min(message.qos), // [MQTT-3.8.4-8]
            retain: message.retain && receiver.retain_as_published, // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            identifier: receiver.identifier,
        }
    }

    pub(super) fn identifiers(&self) -> &[u32] {
        let some = usize::from(self.identifier != 0);
        &std::slice::from_ref(&self.identifier)[..some]
    }
}

/// A message encoded once for each wire layout, to be copied to receiver after receiver with only
/// the packet identifier patched in.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    frames: [Encoded; 8],
    /// Which of `frames` are of the present message, one bit each.
    made: u8,
    /// Where a message is put together that is to be kept.
    pub(super) scratch: Vec<u8>,
}

/// Where one layout stands in the encoder.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded {
    start: usize,
    end: usize,
    packet_id: Option<usize>,
}

/// How one copy of a message is sent.
pub(super) struct Copy<'a> {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet_id: Option<PacketId>,
    pub(super) identifiers: &'a [u32],
}

impl Encoder {
    /// Bytes of memory it keeps for the next message.
    const KEPT_BYTES: usize = 256 * 1024;
}

impl<'a> Fanout<'a> {
    pub(super) fn new(
        message: MessageView<'a>,
        encoder: &'a mut Encoder,
        receivers: usize,
        now: Time,
    ) -> Self {
        encoder.bytes.clear();
        encoder.bytes.shrink_to(Encoder::KEPT_BYTES);
        encoder.scratch.shrink_to(Encoder::KEPT_BYTES);
        encoder.made = 0;
        Self {
            message,
            run: None,
            now,
            stored: None,
            refused: false,
            kept: None,
            encoder,
            shared: receivers > 1,
        }
    }

    pub(super) fn keep(&mut self) -> Message {
        debug_assert_eq!(self.count(), 1, "a run is kept message by message");
        self.kept
            .get_or_insert_with(|| {
                self.message
                    .to_message_by(self.stored, &mut self.encoder.scratch)
            })
            .clone()
    }

    /// The journal calls the message this from here on.
    pub(super) fn set_stored(&mut self, stored: Option<ItemId>) {
        self.stored = stored;
        self.kept = None;
    }

    /// How many messages it stands for.
    pub(super) fn count(&self) -> u32 {
        self.run.map_or(1, |run| run.count())
    }

    /// Bytes of all payloads.
    pub(super) fn payload_bytes(&self) -> usize {
        self.run
            .map_or(self.message.payload.len(), |run| run.payload_bytes())
    }

    /// Whether each message, in whatever layout without identifiers, is sure to be no larger than
    /// `maximum` bytes.
    pub(super) fn is_within(&self, maximum: u32) -> bool {
        /// Bytes by which layouts of a packet may differ: fixed header, packet identifier, length of
        /// the properties, Message Expiry Interval.
        const SLACK: usize = 5 + 2 + 4 + 5;
        let size = match &self.run {
            Some(run) => run.largest(),
            None => self.message.size(),
        };
        size + SLACK + 2 <= maximum.min(MAX_PACKET_SIZE) as usize
    }

    /// The messages.
    pub(super) fn messages(&self) -> impl Iterator<Item = MessageView<'a>> + use<'a> {
        self.message.and_those_of(self.run)
    }

    /// Calls `each` for every message of a run by itself, from the one of number `first` on.
    pub(super) fn one_by_one(&mut self, first: usize, mut each: impl FnMut(&mut Fanout<'_>)) {
        if self.count() == 1 && first == 0 {
            return each(self);
        }
        for message in self.messages().skip(first) {
            each(&mut Fanout::new(message, self.encoder, 1, self.now));
        }
    }

    /// Appends the frame of this layout, or all frames of the run, to `output`.
    pub(super) fn encode(&mut self, version: Version, copy: &Copy<'_>, output: &mut Vec<u8>) {
        if let Some(run) = &self.run
            && run.fits(version, copy.qos)
        {
            return run.append(copy.qos, copy.retain, copy.packet_id, output);
        }
        if !self.shared {
            for message in self.messages() {
                head(version, &message, copy, None, self.now).encode(output);
            }
            return;
        }
        // QoS 1 and 2 differ in the first byte alone, which is patched like the identifier.
        let layout = usize::from(version.is_v5())
            | usize::from(copy.retain) << 1
            | usize::from(copy.packet_id.is_some()) << 2;
        if self.encoder.made & (1 << layout) == 0 {
            let start = self.encoder.bytes.len();
            let mut packet_id = None;
            for message in self.messages() {
                packet_id =
                    head(version, &message, copy, None, self.now).encode(&mut self.encoder.bytes);
            }
            let end = self.encoder.bytes.len();
            self.encoder.frames[layout] = Encoded {
                start,
                end,
                packet_id,
            };
            self.encoder.made |= 1 << layout;
        }
        let encoded = self.encoder.frames[layout];
        let at = output.len();
        output.extend_from_slice(&self.encoder.bytes[encoded.start..encoded.end]);
        if let (Some(offset), Some(packet_id)) = (encoded.packet_id, copy.packet_id) {
            let offset = at + offset - encoded.start;
            output[offset..offset + 2].copy_from_slice(&packet_id.get().to_be_bytes());
            output[at] = output[at] & !0b0110 | copy.qos.bits() << 1;
        }
    }
}

/// The PUBLISH that brings `message` to a client.
pub(super) fn head<'a>(
    version: Version,
    message: &MessageView<'a>,
    copy: &Copy<'a>,
    topic_alias: Option<u16>,
    now: Time,
) -> PublishHead<'a> {
    PublishHead {
        version,
        dup: copy.dup,
        qos: copy.qos,
        retain: copy.retain,
        topic: message.topic.as_str(),
        topic_alias,
        packet_id: copy.packet_id,
        // What is left of the interval [MQTT-3.3.2-6].
        message_expiry_interval: (message.expires_at != Time::NEVER).then(|| {
            let left = message.expires_at.micros_since(now).div_ceil(1_000_000);
            u32::try_from(left).unwrap_or(u32::MAX)
        }),
        subscription_identifiers: copy.identifiers,
        forwarded: message.properties,
        payload: message.payload,
    }
}
