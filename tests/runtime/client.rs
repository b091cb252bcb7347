//! A client that knows bytes only.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).unwrap();
        self
    }

    /// Reads one packet: its first byte and its body.
    pub(crate) fn packet(&mut self) -> (u8, Vec<u8>) {
        self.try_packet()
            .expect("a packet comes")
            .expect("not the end")
    }

    /// Reads one packet, `None` at the end of the stream.
    pub(crate) fn try_packet(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut byte = [0];
        if self.stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let first = byte[0];
        let mut length = 0;
        for shift in (0..28).step_by(7) {
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7F) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Some((first, body)))
    }

    /// Connects and reads CONNACK.
    pub(crate) fn connect(mut self, client_id: &str) -> Self {
        self.send(&connect(client_id));
        let (first, body) = self.packet();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK with success");
        self
    }

    pub(crate) fn subscribe(mut self, filter: &str) -> Self {
        self.send(&subscribe(filter));
        let (first, body) = self.packet();
        assert_eq!((first, body[3]), (0x90, 0), "SUBACK with QoS 0 granted");
        self
    }

    pub(crate) fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.packet(), (0xD0, Vec::new()), "PINGRESP");
    }

    /// Waits for a PUBLISH of QoS 0 and returns its payload.
    pub(crate) fn payload(&mut self) -> Vec<u8> {
        let (first, body) = self.packet();
        assert_eq!(first & 0xF0, 0x30, "a PUBLISH");
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        // Behind the topic: the length of the properties, which is 0.
        body[2 + topic + 1..].to_vec()
    }
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 0x7F { 0x80 } else { 0 };
        bytes.push(u8::try_from(length & 0x7F).unwrap() | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// CONNECT of version 5, Clean Start, no Keep Alive.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    packet(
        0x10,
        &[&text("MQTT")[..], &[5, 2, 0, 0, 0], &text(client_id)].concat(),
    )
}

pub(crate) fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[&[0, 1, 0][..], &text(filter), &[0]].concat())
}

pub(crate) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text(topic)[..], &[0], payload].concat())
}
