//! The client's side of the protocol: handshake, acknowledgements in both directions, keep alive.
//!
//! A session is driven by calling [`Session::step`], which handles packets as they come and returns
//! with what its caller must know. It sends acknowledgements by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use shardmq::limits;
use shardmq::wire::{
    self, Ack, AckKind, ConnAck, Connect, Disconnect, Framing, Packet, PacketId, Publish,
    PublishHead, QoS, ReasonCode, Version, frame,
};

use super::connection::{Connection, Event};
use super::failure::Failure;
use super::message::Message;
use super::now;

/// Time that the broker has for its answer to CONNECT.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Further away than any deadline.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Bytes of consumed input that are worth moving the rest for.
const COMPACT_BYTES: usize = 256 * 1024;

/// A session on a connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    version: Version,
    client_id: String,
    debug: bool,
    /// Bytes of the broker; those before `consumed` are handled.
    input: Vec<u8>,
    consumed: usize,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    ping_sent: Option<Instant>,
    next_id: PacketId,
    /// Messages of ours that are not acknowledged: whether PUBREC came.
    in_flight: BTreeMap<PacketId, bool>,
    window: usize,
    /// QoS 2 messages of the broker that are not released.
    received: BTreeSet<PacketId>,
    aliases: BTreeMap<u16, String>,
    server: Server,
}

/// What the broker said of itself.
#[derive(Clone, Copy, Debug)]
struct Server {
    maximum_qos: QoS,
    retain_available: bool,
    maximum_packet_size: u32,
}

/// What a step ended with.
#[derive(Debug)]
pub(super) enum Step {
    /// A message came.
    Message(Box<Message>),
    /// A message of ours is acknowledged, or refused.
    Acknowledged {
        reason: ReasonCode,
        reason_string: Option<String>,
    },
    /// SUBACK, with a code per filter.
    Subscribed(Vec<ReasonCode>),
    /// UNSUBACK.
    Unsubscribed,
    /// A line of standard input.
    Line(Vec<u8>),
    /// Standard input ended.
    InputEnd,
    /// The time is over.
    Timeout,
    /// A signal asks us to end.
    Interrupted,
}

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) topic_alias: Option<u16>,
    pub(super) message_expiry_interval: Option<u32>,
    pub(super) forwarded: &'a [u8],
}

impl Session {
    /// Sends CONNECT and waits for the answer.
    pub(super) fn open(
        connection: Connection,
        connect: &Connect<'_>,
        max_inflight: u16,
        debug: bool,
        until: Option<Instant>,
    ) -> Result<Self, Failure> {
        let mut session = Self {
            connection,
            version: connect.version,
            client_id: connect.client_id.to_owned(),
            debug,
            input: Vec::new(),
            consumed: 0,
            keep_alive: seconds(connect.keep_alive),
            last_sent: now(),
            ping_sent: None,
            next_id: NonZeroU16::MIN,
            in_flight: BTreeMap::new(),
            window: usize::from(max_inflight),
            received: BTreeSet::new(),
            aliases: BTreeMap::new(),
            server: Server {
                maximum_qos: QoS::ExactlyOnce,
                retain_available: true,
                maximum_packet_size: limits::MAX_PACKET_SIZE,
            },
        };
        session.tell(|| "sending CONNECT".to_owned());
        session.send(&Packet::Connect(*connect))?;
        session.await_connack(until)?;
        Ok(session)
    }

    /// Starts to read standard input by lines.
    pub(super) fn read_lines(&mut self) -> Result<(), Failure> {
        self.connection.read_lines()
    }

    /// Handles what comes until there is something that the caller must know.
    pub(super) fn step(&mut self, until: Option<Instant>) -> Result<Step, Failure> {
        loop {
            if let Some(handled) = self.next_packet()? {
                match handled {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            let alarm = self.keep_alive()?;
            let until = until.unwrap_or_else(|| now() + FOREVER);
            match self
                .connection
                .wait(alarm.map_or(until, |alarm| alarm.min(until)))
            {
                Event::Bytes(bytes) => self.take(&bytes),
                Event::Closed(result) => return Err(lost(result)),
                Event::Line(line) => return Ok(Step::Line(line)),
                Event::InputEnd(Ok(())) => return Ok(Step::InputEnd),
                Event::InputEnd(Err(error)) => {
                    return Err(Failure::Io("cannot read standard input".to_owned(), error));
                }
                Event::Interrupted => return Ok(Step::Interrupted),
                Event::Timeout if now() >= until => return Ok(Step::Timeout),
                Event::Timeout => {}
            }
        }
    }

    /// Whether one more QoS 1 or 2 message may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < self.window
    }

    /// Whether all messages are acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Publishes a message.
    pub(super) fn publish(&mut self, message: Outgoing<'_>) -> Result<(), Failure> {
        self.check(message)?;
        let packet_id = (message.qos != QoS::AtMostOnce).then(|| self.new_id());
        let head = PublishHead {
            version: self.version,
            dup: false,
            qos: message.qos,
            retain: message.retain,
            topic: message.topic,
            topic_alias: message.topic_alias,
            packet_id,
            message_expiry_interval: message.message_expiry_interval,
            subscription_identifiers: &[],
            forwarded: message.forwarded,
            payload: message.payload,
        };
        if head.size() > self.server.maximum_packet_size as usize {
            return Err(Failure::Usage(format!(
                "the message makes a packet of {} bytes, and the broker takes {} at most",
                head.size(),
                self.server.maximum_packet_size
            )));
        }
        self.tell(|| {
            format!(
                "sending PUBLISH (d0, q{}, r{}, m{}, '{}', ... ({} bytes))",
                message.qos.bits(),
                u8::from(message.retain),
                packet_id.map_or(0, NonZeroU16::get),
                message.topic,
                message.payload.len()
            )
        });
        let mut out = Vec::with_capacity(head.size());
        head.encode(&mut out);
        if let Some(id) = packet_id {
            self.in_flight.insert(id, false);
        }
        self.send_bytes(&out)
    }

    /// Subscribes to, or unsubscribes from: sends a packet that has a packet id.
    pub(super) fn request(
        &mut self,
        name: &str,
        packet: impl FnOnce(PacketId) -> Vec<u8>,
    ) -> Result<(), Failure> {
        let id = self.new_id();
        self.tell(|| format!("sending {name} (Mid: {id})"));
        let out = packet(id);
        self.send_bytes(&out)
    }

    /// Sends DISCONNECT and closes.
    pub(super) fn close(mut self, disconnect: &Disconnect<'_>) -> Result<(), Failure> {
        self.tell(|| "sending DISCONNECT".to_owned());
        self.send(&Packet::Disconnect(*disconnect))?;
        self.connection.close();
        Ok(())
    }

    fn await_connack(&mut self, until: Option<Instant>) -> Result<(), Failure> {
        let patience = now() + CONNACK_TIMEOUT;
        let until_or_patience = until.map_or(patience, |until| until.min(patience));
        loop {
            let input = mem::take(&mut self.input);
            let result = self.take_connack(&input);
            self.input = input;
            if result? {
                return Ok(());
            }
            match self.connection.wait(until_or_patience) {
                Event::Bytes(bytes) => self.take(&bytes),
                Event::Closed(Ok(())) => {
                    return Err(Failure::Connect(
                        "the broker closed the connection without an answer to CONNECT".to_owned(),
                    ));
                }
                Event::Closed(Err(error)) => {
                    return Err(Failure::Connect(format!(
                        "the connection broke before the broker answered CONNECT: {error}"
                    )));
                }
                Event::Interrupted => {
                    return Err(Failure::Connect("interrupted while connecting".to_owned()));
                }
                Event::Timeout if until.is_some_and(|until| now() >= until) => {
                    return Err(Failure::Timeout);
                }
                Event::Timeout => {
                    return Err(Failure::Connect(
                        "no answer to CONNECT: is this an MQTT broker?".to_owned(),
                    ));
                }
                // Nobody reads standard input yet.
                Event::Line(_) | Event::InputEnd(_) => {}
            }
        }
    }

    /// Whether CONNACK is there.
    fn take_connack(&mut self, input: &[u8]) -> Result<bool, Failure> {
        let framing = frame(input, limits::MAX_PACKET_SIZE).map_err(|_| {
            Failure::Connect("the answer is not MQTT: is this a broker?".to_owned())
        })?;
        let Framing::Packet {
            first_byte,
            body,
            size,
        } = framing
        else {
            return Ok(false);
        };
        let packet = Packet::decode(self.version, first_byte, body)?;
        let Packet::ConnAck(connack) = packet else {
            return Err(Failure::Protocol(
                "its first packet is not a CONNACK".to_owned(),
            ));
        };
        self.consumed = size;
        self.established(&connack)?;
        Ok(true)
    }

    fn established(&mut self, connack: &ConnAck<'_>) -> Result<(), Failure> {
        let properties = &connack.properties;
        if connack.reason.is_error() {
            return Err(Failure::Refused {
                version: self.version,
                reason: connack.reason,
                reason_string: properties.reason_string.map(str::to_owned),
            });
        }
        if let Some(id) = properties.assigned_client_identifier {
            id.clone_into(&mut self.client_id);
        }
        self.tell(|| "received CONNACK (0)".to_owned());
        if let Some(keep_alive) = properties.server_keep_alive {
            self.keep_alive = seconds(keep_alive);
        }
        if let Some(receive_maximum) = properties.receive_maximum {
            self.window = self.window.min(usize::from(receive_maximum));
        }
        self.server = Server {
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: properties.retain_available.unwrap_or(true),
            maximum_packet_size: properties
                .maximum_packet_size
                .unwrap_or(limits::MAX_PACKET_SIZE),
        };
        Ok(())
    }

    /// Handles the next packet: `None` if none is complete, else what the caller must know of it.
    fn next_packet(&mut self) -> Result<Option<Option<Step>>, Failure> {
        let input = mem::take(&mut self.input);
        let result = self.next_packet_in(&input);
        self.input = input;
        result
    }

    fn next_packet_in(&mut self, input: &[u8]) -> Result<Option<Option<Step>>, Failure> {
        let rest = input.get(self.consumed..).unwrap_or_default();
        let Framing::Packet {
            first_byte,
            body,
            size,
        } = frame(rest, limits::MAX_PACKET_SIZE)?
        else {
            return Ok(None);
        };
        self.consumed += size;
        let packet = Packet::decode(self.version, first_byte, body)?;
        self.handle(packet).map(Some)
    }

    fn handle(&mut self, packet: Packet<'_>) -> Result<Option<Step>, Failure> {
        match packet {
            Packet::Publish(publish) => return self.received(&publish),
            Packet::PubAck(ack) => return Ok(self.acknowledged("PUBACK", &ack)),
            Packet::PubRec(ack) => return self.pubrec(&ack),
            Packet::PubRel(ack) => self.pubrel(&ack)?,
            Packet::PubComp(ack) => return Ok(self.acknowledged("PUBCOMP", &ack)),
            Packet::SubAck(suback) => {
                self.tell(|| format!("received SUBACK (Mid: {})", suback.packet_id));
                return Ok(Some(Step::Subscribed(suback.reasons().collect())));
            }
            Packet::UnsubAck(unsuback) => {
                self.tell(|| format!("received UNSUBACK (Mid: {})", unsuback.packet_id));
                return Ok(Some(Step::Unsubscribed));
            }
            Packet::PingResp => {
                self.tell(|| "received PINGRESP".to_owned());
                self.ping_sent = None;
            }
            Packet::Disconnect(disconnect) => {
                return Err(Failure::Disconnected {
                    reason: disconnect.reason,
                    reason_string: disconnect.reason_string.map(str::to_owned),
                });
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => {
                let name = packet.packet_type();
                return Err(Failure::Protocol(format!(
                    "{name:?} is not for a client, or not now"
                )));
            }
        }
        Ok(None)
    }

    fn received(&mut self, publish: &Publish<'_>) -> Result<Option<Step>, Failure> {
        let topic = self.topic(publish)?;
        self.tell(|| {
            format!(
                "received PUBLISH (d{}, q{}, r{}, m{}, '{topic}', ... ({} bytes))",
                u8::from(publish.dup),
                publish.qos.bits(),
                u8::from(publish.retain),
                publish.packet_id.map_or(0, NonZeroU16::get),
                publish.payload.len()
            )
        });
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                self.acknowledge(AckKind::PubAck, id, ReasonCode::Success)?
            }
            (QoS::ExactlyOnce, Some(id)) => {
                let again = !self.received.insert(id);
                self.acknowledge(AckKind::PubRec, id, ReasonCode::Success)?;
                if again {
                    return Ok(None);
                }
            }
            (_, _) => {}
        }
        Ok(Some(Step::Message(Box::new(Message::new(topic, publish)))))
    }

    /// The topic of a message, by its alias if it has no name.
    fn topic(&mut self, publish: &Publish<'_>) -> Result<String, Failure> {
        let Some(alias) = publish.properties.topic_alias else {
            return Ok(publish.topic.to_owned());
        };
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias).cloned();
            return known
                .ok_or_else(|| Failure::Protocol(format!("topic alias {alias} is unknown")));
        }
        self.aliases.insert(alias, publish.topic.to_owned());
        Ok(publish.topic.to_owned())
    }

    fn pubrec(&mut self, ack: &Ack<'_>) -> Result<Option<Step>, Failure> {
        if ack.reason.is_error() {
            return Ok(self.acknowledged("PUBREC", ack));
        }
        self.tell(|| format!("received PUBREC (Mid: {})", ack.packet_id));
        let reason = match self.in_flight.get_mut(&ack.packet_id) {
            Some(released) => {
                *released = true;
                ReasonCode::Success
            }
            None => ReasonCode::PacketIdentifierNotFound,
        };
        self.acknowledge(AckKind::PubRel, ack.packet_id, reason)?;
        Ok(None)
    }

    fn pubrel(&mut self, ack: &Ack<'_>) -> Result<(), Failure> {
        self.tell(|| format!("received PUBREL (Mid: {})", ack.packet_id));
        let reason = if self.received.remove(&ack.packet_id) {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.acknowledge(AckKind::PubComp, ack.packet_id, reason)
    }

    /// An exchange of ours ended.
    fn acknowledged(&mut self, name: &str, ack: &Ack<'_>) -> Option<Step> {
        self.tell(|| {
            format!(
                "received {name} (Mid: {}, RC:{})",
                ack.packet_id,
                ack.reason.as_u8()
            )
        });
        self.in_flight.remove(&ack.packet_id)?;
        Some(Step::Acknowledged {
            reason: ack.reason,
            reason_string: ack.reason_string.map(str::to_owned),
        })
    }

    fn acknowledge(
        &mut self,
        kind: AckKind,
        id: PacketId,
        reason: ReasonCode,
    ) -> Result<(), Failure> {
        self.tell(|| format!("sending {} (m{id}, rc{})", ack_name(kind), reason.as_u8()));
        let mut out = Vec::new();
        Ack::new(id, reason).encode(kind, self.version, &mut out);
        self.send_bytes(&out)
    }

    /// Refuses what the broker said it does not take.
    fn check(&self, message: Outgoing<'_>) -> Result<(), Failure> {
        if message.qos > self.server.maximum_qos {
            let most = self.server.maximum_qos.bits();
            return Err(Failure::Usage(format!(
                "the broker takes QoS {most} at most: -q {most}"
            )));
        }
        if message.retain && !self.server.retain_available {
            return Err(Failure::Usage("the broker retains no messages".to_owned()));
        }
        Ok(())
    }

    /// Sends PINGREQ when it is time; returns when to look again.
    fn keep_alive(&mut self) -> Result<Option<Instant>, Failure> {
        let Some(interval) = self.keep_alive else {
            return Ok(None);
        };
        let now = now();
        if let Some(sent) = self.ping_sent {
            if now >= sent + interval {
                return Err(Failure::Lost(
                    "the broker does not answer any more".to_owned(),
                ));
            }
            return Ok(Some(sent + interval));
        }
        if now >= self.last_sent + interval {
            self.tell(|| "sending PINGREQ".to_owned());
            self.ping_sent = Some(now);
            let mut out = Vec::new();
            wire::encode_pingreq(&mut out);
            self.send_bytes(&out)?;
            return Ok(Some(now + interval));
        }
        Ok(Some(self.last_sent + interval))
    }

    /// The next packet id that is not in use.
    fn new_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(NonZeroU16::MIN);
            // The window is smaller than the number of ids, so there is a free one.
            if !self.in_flight.contains_key(&id) {
                return id;
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.consumed == self.input.len() || self.consumed > COMPACT_BYTES {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(packet.size(self.version));
        packet.encode(self.version, &mut out);
        self.send_bytes(&out)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.connection.send(bytes)?;
        self.last_sent = now();
        Ok(())
    }

    /// Says what happens, with -d.
    fn tell(&self, text: impl FnOnce() -> String) {
        if self.debug {
            let id = if self.client_id.is_empty() {
                "(none)"
            } else {
                &self.client_id
            };
            super::complain(&format!("Client {id} {}", text()));
        }
    }
}

fn seconds(interval: u16) -> Option<Duration> {
    (interval != 0).then(|| Duration::from_secs(u64::from(interval)))
}

fn lost(result: std::io::Result<()>) -> Failure {
    Failure::Lost(match result {
        Ok(()) => "the broker closed the connection".to_owned(),
        Err(error) => format!("the connection to the broker broke: {error}"),
    })
}

const fn ack_name(kind: AckKind) -> &'static str {
    match kind {
        AckKind::PubAck => "PUBACK",
        AckKind::PubRec => "PUBREC",
        AckKind::PubRel => "PUBREL",
        AckKind::PubComp => "PUBCOMP",
    }
}
