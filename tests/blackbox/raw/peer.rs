//! A connection to the broker, without a client.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::packets::{
    Connect, PINGREQ, PINGRESP, Publish, SUBACK, each_property, subscribe, take_varint,
};
use crate::Version;
use crate::broker::Broker;

/// How long the broker may take for anything.
const WAIT: Duration = Duration::from_secs(30);

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

/// What CONNACK said.
#[derive(Debug)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Vec<u8>,
}

pub(crate) struct Peer {
    stream: TcpStream,
    version: Version,
    unread: Vec<u8>,
    /// Packets that came before an answer that was waited for.
    early: VecDeque<Packet>,
}

impl Peer {
    /// A connection on which nothing was said.
    pub(crate) fn open(broker: &Broker, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&broker.address(), WAIT).expect("it listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream
            .set_read_timeout(Some(WAIT))
            .expect("a time above zero");
        stream
            .set_write_timeout(Some(WAIT))
            .expect("a time above zero");
        Self {
            stream,
            version,
            unread: Vec::new(),
            early: VecDeque::new(),
        }
    }

    /// Sends CONNECT and asks for success.
    pub(crate) fn connect(broker: &Broker, connect: &Connect) -> Self {
        Self::connect_and_see(broker, connect).0
    }

    pub(crate) fn connect_and_see(broker: &Broker, connect: &Connect) -> (Self, ConnAck) {
        let mut peer = Self::open(broker, connect.version);
        peer.send(&connect.bytes());
        let connack = peer.connack();
        assert_eq!(connack.code, 0, "CONNACK");
        (peer, connack)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends what the broker may not read any more because it has closed already.
    pub(crate) fn send_regardless(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn publish(&mut self, publish: &Publish) {
        self.send(&publish.bytes(self.version));
    }

    /// The end of what is sent; the broker can still answer.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Another handle on the same connection, to write from another thread.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream
            .try_clone()
            .expect("a file handle can be doubled")
    }

    /// The next packet, or nothing when the broker has closed.
    pub(crate) fn next(&mut self) -> Option<Packet> {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(packet) = self.early.pop_front().or_else(|| self.take_packet()) {
                return Some(packet);
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.unread.is_empty(), "cut off within {:?}", self.unread);
                    return None;
                }
                Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing came: {error}"),
            }
            assert!(Instant::now() < deadline, "no whole packet within {WAIT:?}");
        }
    }

    /// Whether a packet comes so soon; it is left for later.
    pub(crate) fn has_packet_within(&mut self, time: Duration) -> bool {
        self.stream
            .set_read_timeout(Some(time))
            .expect("a time above zero");
        let mut byte = [0];
        let came = matches!(self.stream.peek(&mut byte), Ok(1));
        self.stream
            .set_read_timeout(Some(WAIT))
            .expect("a time above zero");
        came
    }

    /// The next packet, which must come.
    pub(crate) fn read(&mut self) -> Packet {
        self.next().expect("the broker closed instead of answering")
    }

    /// The next packet, which must be of this type (and these flags).
    pub(crate) fn expect(&mut self, first: u8) -> Vec<u8> {
        let packet = self.read();
        assert_eq!(packet.first, first, "got {packet:02x?}");
        packet.body
    }

    /// The next packet, which must be an acknowledgement of this id with success.
    pub(crate) fn expect_ack(&mut self, first: u8, id: u16) {
        let (found, reason) = self.any_ack(first);
        assert_eq!(found, id, "packet identifier of {first:02x}");
        assert!(
            reason < 0x80,
            "{first:02x} {id} has the reason {reason:02x}"
        );
    }

    /// Id and reason of the next acknowledgement.
    pub(crate) fn any_ack(&mut self, first: u8) -> (u16, u8) {
        let body = self.expect(first);
        assert!(self.version.is_v5() || body.len() == 2, "{body:?}");
        (
            u16::from_be_bytes([body[0], body[1]]),
            body.get(2).copied().unwrap_or(0),
        )
    }

    pub(crate) fn connack(&mut self) -> ConnAck {
        let body = self.expect(0x20);
        // Bits 7 to 1 of the flags are reserved. [MQTT-3.2.2-1]
        assert!(body[0] <= 1, "CONNACK flags {:02x}", body[0]);
        let mut properties = Vec::new();
        if self.version.is_v5() {
            let (length, rest) = take_varint(&body[2..]);
            assert_eq!(length, rest.len(), "properties of CONNACK");
            properties = rest.to_owned();
            each_property(&properties);
        } else {
            assert_eq!(body.len(), 2);
        }
        ConnAck {
            session_present: body[0] == 1,
            code: body[1],
            properties,
        }
    }

    /// The next PUBLISH, left unacknowledged.
    pub(crate) fn receive(&mut self) -> Publish {
        let packet = self.read();
        assert_eq!(packet.first >> 4, 3, "no PUBLISH: {packet:02x?}");
        Publish::read(self.version, packet.first, &packet.body)
    }

    /// The next packet of this type; what comes before it is kept for later. A broker may begin to
    /// send what matches before SUBACK.
    pub(crate) fn answer(&mut self, first: u8) -> Vec<u8> {
        let mut before = VecDeque::new();
        loop {
            let packet = self.read();
            if packet.first == first {
                before.append(&mut self.early);
                self.early = before;
                return packet.body;
            }
            before.push_back(packet);
        }
    }

    /// SUBSCRIBE to one filter, and wait for the code that it is granted with.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.send(&subscribe(self.version, 0x5B5B, &[(filter, options)]));
        let body = self.answer(SUBACK);
        *body.last().expect("SUBACK has a code")
    }

    /// PINGREQ and its answer, with everything that came before the answer.
    pub(crate) fn ping(&mut self) -> Vec<Packet> {
        self.send(&PINGREQ);
        let mut before = Vec::new();
        loop {
            let packet = self.read();
            if packet.first == PINGRESP {
                return before;
            }
            before.push(packet);
        }
    }

    /// Everything until the broker closes, which it must.
    pub(crate) fn until_closed(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Reads until the broker closes, whatever the bytes are.
    pub(crate) fn drain(mut self) {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the broker did not close: {error}"),
            }
        }
    }

    /// The broker closes; version 5 is told why.
    pub(crate) fn expect_closed_with(&mut self, what: &str, codes: &[u8]) {
        if let Err(wrong) = self.closed_with(codes) {
            panic!("{what}: {wrong}");
        }
    }

    /// What was wrong with the way in which the broker closed.
    pub(crate) fn closed_with(&mut self, codes: &[u8]) -> Result<(), String> {
        let last = self.until_closed();
        if !self.version.is_v5() {
            return if last.is_empty() {
                Ok(())
            } else {
                Err(format!("3.1.1 is told {last:02x?}"))
            };
        }
        let [Packet { first: 0xE0, body }] = last.as_slice() else {
            return Err(format!("no DISCONNECT but {last:02x?}"));
        };
        let code = body.first().copied().unwrap_or(0);
        if !codes.contains(&code) {
            return Err(format!("{code:02x} instead of {codes:02x?}"));
        }
        if let Some(rest) = body.get(1..).filter(|rest| !rest.is_empty()) {
            let (length, properties) = take_varint(rest);
            // A server sends no Session Expiry Interval. [MQTT-3.14.2-2]
            let wrong = |(id, _): &(u8, Vec<u8>)| *id == 0x11;
            if length != properties.len() || each_property(properties).iter().any(wrong) {
                return Err(format!("properties of DISCONNECT: {rest:02x?}"));
            }
        }
        Ok(())
    }

    /// Takes a whole packet off what was read.
    fn take_packet(&mut self) -> Option<Packet> {
        let first = *self.unread.first()?;
        let length_bytes = self
            .unread
            .iter()
            .skip(1)
            .take_while(|byte| **byte & 0x80 != 0)
            .count();
        let head = 2 + length_bytes;
        assert!(length_bytes < 4, "a Remaining Length of five bytes");
        let body = take_varint(self.unread.get(1..head)?).0;
        let body = self.unread.get(head..head + body)?.to_owned();
        self.unread.drain(..head + body.len());
        Some(Packet { first, body })
    }
}
