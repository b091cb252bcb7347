//! What arrives most, taken in many at a time: messages that nobody verifies, and acknowledgements
//! that say success. Each counts and records what it would if it went the way of all packets
//! ([`Core::ingest`]); what is looked up for it is looked up once for all of them. Whatever is
//! unusual ends a run and goes that way.

use shardmq::wire::{AckKind, PacketId, Version};

use super::core::Core;
use super::payload::TIMED;

impl Core {
    /// Takes in the messages of one QoS that `bytes` begin with: most of what arrives in a run that
    /// verifies nothing. Returns how many bytes they are. What they count and record is what
    /// [`Core::packet`] does for each; they share one look at the client.
    pub(super) fn messages(&mut self, index: u32, bytes: &[u8], now: u64) -> usize {
        let first_byte = match bytes.first() {
            Some(&byte) if byte >> 4 == 3 => byte,
            _ => return 0,
        };
        let answer = match first_byte & 0b1110 {
            0b0000 | 0b1000 => None,
            0b0010 | 0b1010 => Some(AckKind::PubAck),
            0b0100 => Some(AckKind::PubRec),
            // Whether it came before is to be looked up.
            _ => return 0,
        };
        let version = self.plan.version;
        let client = &self.clients[index as usize];
        let counts = self.members[usize::from(client.group)].counts_as_receiver;
        let mut replies = match answer {
            Some(_) => std::mem::take(self.pending(index)),
            None => Vec::new(),
        };
        let (mut taken, mut count) = (0, 0_u64);
        // Messages that were published together have equal times.
        let (mut times, mut equal) = ((0, 0), 0);
        while let Some(message) = Plain::read(version, first_byte, &bytes[taken..]) {
            taken += message.size;
            count += 1;
            if (message.intended_ns, message.sent_ns) != times {
                self.record_run(times, equal, now);
                times = (message.intended_ns, message.sent_ns);
                equal = 0;
            }
            equal += 1;
            if let Some(kind) = answer {
                replies.extend_from_slice(&short(kind, message.packet_id));
                if kind == AckKind::PubRec {
                    let unreleased = &mut self.clients[index as usize].unreleased;
                    unreleased.push(message.packet_id);
                }
            }
        }
        self.record_run(times, equal, now);
        self.tally.counts.received += count;
        self.received += count * u64::from(counts);
        if answer.is_some() {
            self.clients[index as usize].pending = replies;
        }
        taken
    }

    /// Takes in the acknowledgements of one kind, four bytes each, that `bytes` begin with. Returns how
    /// many bytes they are. One that does not belong to a message of the window ends them: it is a
    /// fleet's or a mistake.
    pub(super) fn short_acknowledgements(&mut self, index: u32, bytes: &[u8], now: u64) -> usize {
        let first_byte = bytes.first().copied().unwrap_or(0);
        let Some(kind) = AckKind::from_first_byte(first_byte) else {
            return 0;
        };
        let answer = match kind {
            AckKind::PubAck | AckKind::PubComp => None,
            AckKind::PubRec => Some(AckKind::PubRel),
            AckKind::PubRel => Some(AckKind::PubComp),
        };
        let client = &mut self.clients[index as usize];
        if client.window.is_none() && kind != AckKind::PubRel {
            return 0;
        }
        let mut replies = match answer {
            Some(_) => std::mem::take(self.pending(index)),
            None => Vec::new(),
        };
        let client = &mut self.clients[index as usize];
        let (mut taken, mut completed) = (0, 0);
        while let Some(&[first, 2, high, low]) = bytes[taken..].first_chunk()
            && first == first_byte
        {
            let id = u16::from_be_bytes([high, low]);
            if id == 0 {
                break;
            }
            match (kind, &mut client.window) {
                (AckKind::PubRel, _) => {
                    // Mostly they are released in the order in which they came.
                    let unreleased = &mut client.unreleased;
                    if let Some(at) = unreleased.iter().position(|&unreleased| unreleased == id) {
                        unreleased.remove(at);
                    }
                }
                (AckKind::PubRec, Some(window)) => match window.get_mut(id) {
                    Some(message) => message.received = true,
                    None => break,
                },
                (_, Some(window)) => {
                    let Some(message) = window.remove(id) else {
                        break;
                    };
                    completed += 1;
                    if message.intended_ns >= self.record_from {
                        let latency = now.saturating_sub(message.intended_ns);
                        self.tally.acknowledgement.record(latency);
                    }
                }
                (_, None) => break,
            }
            if let Some(answer) = answer {
                replies.extend_from_slice(&short(answer, id));
            }
            taken += 4;
        }
        if answer.is_some() {
            client.pending = replies;
        }
        if completed > 0 {
            self.unacknowledged -= completed;
            self.tally.counts.acknowledged += completed;
            self.room(index);
        }
        taken
    }

    /// Records messages that were due and sent at the same times.
    #[inline]
    fn record_run(&mut self, (intended, sent): (u64, u64), count: u64, now: u64) {
        if count > 0 && intended >= self.record_from && intended <= now {
            self.tally.corrected.record_n(now - intended, count);
            self.tally.raw.record_n(now.saturating_sub(sent), count);
        }
    }
}

/// An acknowledgement that says nothing but success: the same in all versions.
#[inline]
pub(super) fn short(kind: AckKind, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [kind.packet_type().first_byte(), 2, high, low]
}

/// What is needed of a message that nobody verifies.
struct Plain {
    /// 0 for none.
    packet_id: u16,
    intended_ns: u64,
    sent_ns: u64,
    /// Bytes of the whole packet.
    size: usize,
}

impl Plain {
    /// The message that `bytes` begin with, if it is whole, begins with `first_byte` as the others of
    /// its run, and says when it was sent. Any other is for the way that all packets can go.
    #[inline]
    fn read(version: Version, first_byte: u8, bytes: &[u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk::<2>()?;
        if start[0] != first_byte {
            return None;
        }
        let (length, header) = match (start[1], rest.first()) {
            (length @ ..0x80, _) => (usize::from(length), 2),
            (low, Some(&high @ 1..0x80)) => (usize::from(low & 0x7F) | usize::from(high) << 7, 3),
            _ => return None,
        };
        let size = header + length;
        let (id, payload) = skim(version, first_byte, bytes.get(header..size)?)?;
        let stamp = payload.first_chunk::<TIMED>()?;
        let intended_ns = u64::from_be_bytes(*stamp.first_chunk::<8>()?);
        let sent_ns = u64::from_be_bytes(*stamp.last_chunk::<8>()?);
        (sent_ns != 0).then_some(Self {
            packet_id: id,
            intended_ns,
            sent_ns,
            size,
        })
    }
}

/// Packet identifier and payload of a PUBLISH, without a look at what stands before: a tenth of the
/// generator's time went into checking topics that only `--verify full` compares. `None` is for the
/// decoder to say what is wrong.
#[inline]
pub(super) fn skim(version: Version, first_byte: u8, body: &[u8]) -> Option<(u16, &[u8])> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    let mut id = 0;
    if first_byte & 0b0110 != 0 {
        let (bytes, behind) = rest.split_first_chunk::<2>()?;
        id = u16::from_be_bytes(*bytes);
        PacketId::new(id)?;
        rest = behind;
    }
    if version.is_v5() {
        // Longer properties than one byte can tell of are left to the decoder.
        let (&length, behind) = rest.split_first()?;
        rest = behind
            .get(usize::from(length)..)
            .filter(|_| length < 0x80)?;
    }
    Some((id, rest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardmq::limits::MAX_PACKET_SIZE;
    use shardmq::wire::{Ack, Framing, Publish, PublishHead, QoS, ReasonCode, frame};

    use super::super::client::Phase;
    use super::super::control::{NEVER, Phases};
    use super::super::payload::Stamp;
    use super::*;
    use crate::measure::Latency;
    use crate::plan::{Plan, Verify, scenarios};

    #[test]
    fn skimming_finds_what_decoding_finds() {
        use shardmq::wire::{PublishHead, QoS};
        for version in [Version::V3_1_1, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let mut bytes = Vec::new();
                let head = PublishHead {
                    version,
                    dup: false,
                    qos,
                    retain: false,
                    topic: "a/topic",
                    topic_alias: None,
                    packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MAX),
                    message_expiry_interval: Some(9),
                    subscription_identifiers: &[7],
                    forwarded: &[],
                    payload: b"payload",
                };
                head.encode(&mut bytes);
                let Ok(Framing::Packet {
                    first_byte, body, ..
                }) = frame(&bytes, MAX_PACKET_SIZE)
                else {
                    panic!("not a packet");
                };
                let decoded = Publish::decode(version, first_byte, body).unwrap();
                let skimmed = skim(version, first_byte, body);
                let id = decoded.packet_id.map_or(0, PacketId::get);
                assert_eq!(skimmed, Some((id, decoded.payload)));
                for end in 0..7 {
                    assert_eq!(skim(version, first_byte, &body[..end]), None, "{end}");
                }
            }
        }
    }

    #[test]
    fn short_acknowledgements_are_what_is_encoded() {
        for version in [Version::V3_1_1, Version::V5] {
            for kind in [
                AckKind::PubAck,
                AckKind::PubRec,
                AckKind::PubRel,
                AckKind::PubComp,
            ] {
                let mut bytes = Vec::new();
                Ack::new(PacketId::MAX, ReasonCode::Success).encode(kind, version, &mut bytes);
                assert_eq!(bytes, short(kind, PacketId::MAX.get()));
            }
        }
    }

    /// A subscriber and a publisher that has six messages of QoS 2 in flight.
    fn core(plan: &Plan) -> Core {
        let phases = Phases {
            begin: 0,
            start: 0,
            measure: 0,
            end: NEVER,
            finish: false,
        };
        let mut core = Core::new(Arc::new(plan.clone()), 0, None, phases);
        for client in &mut core.clients {
            client.phase = Phase::Ready;
        }
        core.set_phases(phases, 1);
        core.feed_hungry();
        for client in &mut core.clients {
            client.pending.clear();
        }
        core
    }

    fn publish(version: Version, qos: QoS, dup: bool, number: u16) -> Vec<u8> {
        let stamp = Stamp {
            intended_ns: 1_000 + u64::from(number / 2) * 100_000,
            sequence: u32::from(number),
            publisher: 0,
            sent_ns: 3_000 + u64::from(number / 2) * 100_000,
        };
        let mut payload = stamp.to_bytes().to_vec();
        payload.resize(64, 7);
        let mut bytes = Vec::new();
        PublishHead {
            version,
            dup,
            qos,
            retain: false,
            topic: "test/1",
            topic_alias: None,
            packet_id: PacketId::new(number + 1).filter(|_| qos != QoS::AtMostOnce),
            message_expiry_interval: None,
            subscription_identifiers: &[],
            forwarded: &[],
            payload: &payload,
        }
        .encode(&mut bytes);
        bytes
    }

    /// What the broker sends to the subscriber, and to the publisher.
    fn stream(version: Version) -> (Vec<u8>, Vec<u8>) {
        let (mut messages, mut acknowledgements) = (Vec::new(), Vec::new());
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for number in 0..5 {
                messages.extend(publish(version, qos, false, number));
            }
            // Of QoS 2 this is a message that is there already.
            messages.extend(publish(version, qos, qos != QoS::AtMostOnce, 4));
        }
        for id in [2, 1, 3] {
            messages.extend(short(AckKind::PubRel, id));
        }
        for id in [1, 2, 4] {
            acknowledgements.extend(short(AckKind::PubRec, id));
        }
        for id in [2, 1] {
            acknowledgements.extend(short(AckKind::PubComp, id));
        }
        (messages, acknowledgements)
    }

    #[test]
    fn many_at_a_time_or_one_by_one_is_the_same() {
        let mut plan = scenarios::find("qos2-1-1").unwrap();
        plan.groups[1].publishing.as_mut().unwrap().window = 6;
        for version in [Version::V3_1_1, Version::V5] {
            plan.version = version;
            plan.verify = Verify::None;
            let (messages, acknowledgements) = stream(version);
            let found = |plan: &Plan, step: usize| {
                let mut core = core(plan);
                assert_eq!(core.is_plain, plan.verify == Verify::None);
                for (index, bytes) in [(0, &messages), (1, &acknowledgements)] {
                    for part in bytes.chunks(step) {
                        core.ingest(index, part, 1_000_000);
                    }
                }
                let tally = &mut core.tally;
                let recorders = [
                    &mut tally.corrected,
                    &mut tally.raw,
                    &mut tally.acknowledgement,
                ];
                (
                    recorders.map(|recorder| Latency::of(recorder.histogram())),
                    tally.counts,
                    core.clients[0].pending.clone(),
                    core.clients[1].pending.clone(),
                    core.clients[0].unreleased.clone(),
                    core.unacknowledged,
                    core.received,
                    core.hungry.clone(),
                )
            };
            let all_at_once = found(&plan, usize::MAX);
            assert_eq!(all_at_once.1.received, 17);
            assert_eq!(all_at_once.0[0].count, 17);
            assert_eq!((all_at_once.1.acknowledged, all_at_once.5), (2, 4));
            assert_eq!(all_at_once.4, [4, 5], "what was not released");
            assert_eq!(all_at_once.7, [1]);
            // Step 1 puts every packet together before it is looked at.
            for step in [1, 3, 70, 100, 333] {
                assert_eq!(found(&plan, step), all_at_once, "{step}");
            }
            plan.verify = Verify::Sequence;
            assert_eq!(found(&plan, usize::MAX), all_at_once);
        }
    }
}
