//! What arrives: bytes to packets, packets to answers and measurements.

use shardmq::limits::MAX_PACKET_SIZE;
use shardmq::wire::{
    Ack, AckKind, ConnAck, Framing, Packet, PacketId, Publish, ReasonCode, SubAck, Violation, frame,
};

use crate::plan::Verify;

use super::client::Phase;
use super::core::Core;
use super::payload::{Stamp, TIMED};
use super::runs::{short, skim};

/// Why a connection cannot go on.
#[derive(Debug)]
enum Fault {
    /// The broker broke a rule of the protocol.
    Violation(Violation),
    /// The broker said no, or something that it must not say now.
    Refused(String),
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Core {
    /// Bytes that arrived for `index`.
    pub(super) fn ingest(&mut self, index: u32, mut bytes: &[u8], now: u64) {
        if !self.clients[index as usize].is_open() {
            return;
        }
        self.tally.counts.bytes_received += bytes.len() as u64;
        let mut input = std::mem::take(&mut self.clients[index as usize].input);
        let result = self.take_in(index, &mut input, &mut bytes, now);
        self.clients[index as usize].input = input;
        if let Err(fault) = result {
            let text = match fault {
                Fault::Violation(violation) => format!("broker broke the protocol: {violation}"),
                Fault::Refused(text) => text,
            };
            self.fail(index, text);
        }
    }

    fn take_in(
        &mut self,
        index: u32,
        input: &mut Vec<u8>,
        bytes: &mut &[u8],
        now: u64,
    ) -> Result<(), Fault> {
        // Only the packet that has begun is put together; what follows it is read where it is.
        while !input.is_empty() && !bytes.is_empty() {
            let wanted = wanted(input);
            let (part, rest) = bytes.split_at(bytes.len().min(wanted - input.len()));
            input.extend_from_slice(part);
            *bytes = rest;
            if let Framing::Packet {
                first_byte, body, ..
            } = frame(input, MAX_PACKET_SIZE)?
            {
                self.packet(index, first_byte, body, now)?;
                input.clear();
            }
        }
        loop {
            if self.is_plain {
                let taken = self.messages(index, bytes, now);
                *bytes = &bytes[taken..];
            }
            let taken = self.short_acknowledgements(index, bytes, now);
            *bytes = &bytes[taken..];
            let Framing::Packet {
                first_byte,
                body,
                size,
            } = frame(bytes, MAX_PACKET_SIZE)?
            else {
                break;
            };
            self.packet(index, first_byte, body, now)?;
            *bytes = &bytes[size..];
        }
        input.extend_from_slice(bytes);
        Ok(())
    }

    /// The connection of `index` is over, and not as it should be.
    pub(super) fn fail(&mut self, index: u32, text: String) {
        let client = &mut self.clients[index as usize];
        if !client.is_open() {
            return;
        }
        if client.phase == Phase::Connecting {
            self.tally.counts.connect_failed += 1;
        } else {
            self.tally.counts.lost += 1;
        }
        if !client.counted {
            client.counted = true;
            self.failed += 1;
        }
        client.phase = Phase::Dying;
        self.open -= 1;
        self.tally.error(text);
        self.doomed.push(index);
    }

    #[inline]
    fn packet(&mut self, index: u32, first_byte: u8, body: &[u8], now: u64) -> Result<(), Fault> {
        let version = self.plan.version;
        match first_byte >> 4 {
            3 if self.plan.verify != Verify::Full
                && self.fleet.is_none()
                && let Some((id, payload)) = skim(version, first_byte, body) =>
            {
                self.publish_received(index, first_byte, id, "", payload, now);
                Ok(())
            }
            3 => {
                let publish = Publish::decode(version, first_byte, body)?;
                let id = publish.packet_id.map_or(0, PacketId::get);
                self.publish_received(index, first_byte, id, publish.topic, publish.payload, now);
                Ok(())
            }
            4 => {
                let ack = Ack::decode(AckKind::PubAck, version, body)?;
                self.publish_acknowledged(index, &ack, now)
            }
            5 => {
                let ack = Ack::decode(AckKind::PubRec, version, body)?;
                self.pubrec_received(index, &ack, now)
            }
            6 => {
                let id = Ack::decode(AckKind::PubRel, version, body)?.packet_id.get();
                let unreleased = &mut self.clients[index as usize].unreleased;
                if let Some(at) = unreleased.iter().position(|&unreleased| unreleased == id) {
                    unreleased.remove(at);
                }
                self.acknowledge(index, AckKind::PubComp, id);
                Ok(())
            }
            7 => {
                let ack = Ack::decode(AckKind::PubComp, version, body)?;
                self.publish_acknowledged(index, &ack, now)
            }
            _ => self.rare_packet(index, Packet::decode(version, first_byte, body)?, now),
        }
    }

    fn rare_packet(&mut self, index: u32, packet: Packet<'_>, now: u64) -> Result<(), Fault> {
        match packet {
            Packet::ConnAck(packet) => self.connack(index, &packet, now),
            Packet::SubAck(packet) => self.suback(index, &packet, now),
            Packet::PingResp => Ok(()),
            Packet::Disconnect(packet) => Err(Fault::Refused(format!(
                "DISCONNECT from the broker: {}",
                packet.reason
            ))),
            other => Err(Fault::Refused(format!(
                "{:?} from the broker, which no broker sends now",
                other.packet_type()
            ))),
        }
    }

    fn connack(&mut self, index: u32, packet: &ConnAck<'_>, now: u64) -> Result<(), Fault> {
        let client = &mut self.clients[index as usize];
        if client.phase != Phase::Connecting {
            return Err(Fault::Refused("a second CONNACK".to_owned()));
        }
        if packet.reason != ReasonCode::Success {
            return Err(Fault::Refused(format!("CONNACK: {}", packet.reason)));
        }
        self.tally.counts.connected += 1;
        self.tally
            .connect
            .record(now.saturating_sub(client.began_ns));
        if let Some(window) = &mut client.window {
            window.limit(packet.properties.receive_maximum.unwrap_or(u16::MAX));
            if !packet.session_present {
                self.unacknowledged -= window.len() as u64;
                window.clear();
            }
        }
        if !packet.session_present {
            client.unreleased.clear();
        }
        self.fleet_session(index, packet.session_present);
        let group = usize::from(self.clients[index as usize].group);
        if self.members[group].subscribes && !packet.session_present {
            self.subscribe(index);
        } else {
            self.becomes_ready(index, now);
        }
        Ok(())
    }

    fn suback(&mut self, index: u32, packet: &SubAck<'_>, now: u64) -> Result<(), Fault> {
        for &code in packet.codes {
            if code >= 0x80 {
                let reason = ReasonCode::from_u8(code)
                    .map_or_else(|| format!("0x{code:02X}"), |reason| reason.to_string());
                return Err(Fault::Refused(format!("SUBACK: {reason}")));
            }
            self.tally.counts.subscribed += 1;
        }
        if self.clients[index as usize].phase == Phase::Subscribing {
            self.becomes_ready(index, now);
        }
        Ok(())
    }

    fn becomes_ready(&mut self, index: u32, now: u64) {
        let client = &mut self.clients[index as usize];
        client.phase = Phase::Ready;
        if !client.counted {
            client.counted = true;
            self.ready += 1;
        }
        self.resend(index);
        self.fleet_ready(index, now);
        self.went_on(index, now);
    }

    fn publish_acknowledged(&mut self, index: u32, ack: &Ack<'_>, now: u64) -> Result<(), Fault> {
        if ack.reason.is_error() {
            self.tally.counts.refused += 1;
            self.tally
                .error(format!("acknowledgement of a PUBLISH: {}", ack.reason));
        }
        let id = ack.packet_id.get();
        if self.completed(index, id, now) || self.fleet_acknowledged(index, id) {
            Ok(())
        } else {
            Err(unknown(ack.packet_id))
        }
    }

    fn pubrec_received(&mut self, index: u32, ack: &Ack<'_>, now: u64) -> Result<(), Fault> {
        if ack.reason.is_error() {
            // The message is over: there will be no PUBCOMP.
            return self.publish_acknowledged(index, ack, now);
        }
        let id = ack.packet_id.get();
        let window = self.clients[index as usize].window.as_mut();
        if let Some(message) = window.and_then(|window| window.get_mut(id)) {
            message.received = true;
        } else if !self.fleet_pubrec(index, id) {
            return Err(unknown(ack.packet_id));
        }
        self.acknowledge(index, AckKind::PubRel, id);
        Ok(())
    }

    /// Sends an acknowledgement.
    #[inline]
    pub(super) fn acknowledge(&mut self, index: u32, kind: AckKind, packet_id: u16) {
        let bytes = short(kind, packet_id);
        self.pending(index).extend_from_slice(&bytes);
    }

    #[inline]
    fn publish_received(
        &mut self,
        index: u32,
        first_byte: u8,
        id: u16,
        topic: &str,
        payload: &[u8],
        now: u64,
    ) {
        match (first_byte >> 1) & 3 {
            0 => {}
            1 => self.acknowledge(index, AckKind::PubAck, id),
            _ => {
                let unreleased = &mut self.clients[index as usize].unreleased;
                let known = first_byte & 0b1000 != 0 && unreleased.contains(&id);
                if !known {
                    unreleased.push(id);
                }
                self.acknowledge(index, AckKind::PubRec, id);
                if known {
                    return;
                }
            }
        }
        if self.fleet.is_some() {
            // A retained message is of an earlier time: it is no news of a will.
            let topic = if first_byte & 1 == 0 { topic } else { "" };
            self.fleet_received(index, topic, payload, now);
            return;
        }
        self.delivered(index, topic, payload, now);
        let group = usize::from(self.clients[index as usize].group);
        if self.members[group].plays_ping_pong() {
            self.answer(index, now);
        }
    }

    /// A message has arrived.
    #[inline]
    fn delivered(&mut self, index: u32, topic: &str, payload: &[u8], now: u64) {
        self.tally.counts.received += 1;
        let Some(stamp) = Stamp::read(payload) else {
            if let Some(intended) = Stamp::read_time(payload) {
                self.record(intended, None, now);
            }
            self.received += 1;
            return;
        };
        let sent = if stamp.sent_ns != 0 {
            Some(stamp.sent_ns)
        } else {
            let lag = self
                .hand_overs
                .as_ref()
                .and_then(|hand_overs| hand_overs.lag(stamp.publisher, stamp.sequence));
            lag.map(|lag| stamp.intended_ns.saturating_add(lag))
        };
        self.record(stamp.intended_ns, sent, now);
        let group = usize::from(self.clients[index as usize].group);
        if self.members[group].counts_as_receiver {
            self.received += 1;
        }
        if self.verifies() {
            self.verify(index, &stamp, topic, payload);
        }
    }

    #[inline]
    fn record(&mut self, intended: u64, sent: Option<u64>, now: u64) {
        if intended < self.record_from || intended > now {
            return;
        }
        let corrected = now - intended;
        self.tally.corrected.record(corrected);
        if self.hand_overs.is_none() && sent.is_none() {
            self.tally.raw.record(corrected);
        } else if let Some(sent) = sent {
            self.tally.raw.record(now.saturating_sub(sent));
        }
    }

    fn verify(&mut self, index: u32, stamp: &Stamp, topic: &str, payload: &[u8]) {
        let trackers = &mut self.trackers[index as usize];
        let at = match trackers.first() {
            Some(first) if first.0 == stamp.publisher => 0,
            _ => trackers
                .binary_search_by_key(&stamp.publisher, |tracker| tracker.0)
                .unwrap_or_else(|at| {
                    trackers.insert(at, (stamp.publisher, super::verify::Tracker::default()));
                    at
                }),
        };
        trackers[at].1.received(stamp.sequence);
        if self.plan.verify == Verify::Full && !self.is_genuine(stamp, topic, payload) {
            self.corrupt += 1;
        }
    }

    fn is_genuine(&self, stamp: &Stamp, topic: &str, payload: &[u8]) -> bool {
        if payload.len() != self.plan.payload_size {
            return false;
        }
        let mut publisher = stamp.publisher;
        for (group, at) in self.plan.groups.iter().zip(0..) {
            let Some(publishing) = &group.publishing else {
                continue;
            };
            if publisher < group.count {
                let id = self.plan.client_id(at, publisher);
                let user = self.plan.username.as_deref().unwrap_or_default();
                let expected = publishing
                    .topic
                    .fill(publisher % publishing.topics + 1, &id, user);
                return topic == expected
                    && payload.get(TIMED..).unwrap_or_default() == self.filler.body(stamp);
            }
            publisher -= group.count;
        }
        // Of another process: its topics are not known here.
        payload.get(TIMED..).unwrap_or_default() == self.filler.body(stamp)
    }
}

fn unknown(packet_id: PacketId) -> Fault {
    Fault::Refused(format!(
        "acknowledgement of packet {packet_id}, which is not in flight"
    ))
}

/// Bytes that the packet which `input` begins with needs before it can be looked at again.
fn wanted(input: &[u8]) -> usize {
    let mut length = 0;
    for (at, &byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return at + 2 + length;
        }
    }
    input.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_are_wanted_as_the_header_says() {
        assert_eq!(wanted(&[0x30]), 2);
        assert_eq!(wanted(&[0x30, 0]), 2);
        assert_eq!(wanted(&[0x30, 0x7F]), 129);
        assert_eq!(wanted(&[0x30, 0x80]), 3);
        assert_eq!(wanted(&[0x30, 0x80, 0x01]), 131);
        assert_eq!(wanted(&[0x30, 0x80, 0x01, 9, 9]), 131);
    }
}
