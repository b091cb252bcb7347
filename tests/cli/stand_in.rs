//! A broker that does what a test says, on a port of its own, for one connection after another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use shardmq::limits::MAX_PACKET_SIZE;
use shardmq::wire::{
    ConnAck, ConnAckProperties, Framing, Packet, PacketId, Publish, PublishProperties, QoS,
    ReasonCode, SubAck, UserProperties, Version, frame,
};

/// A stand-in that runs.
pub(crate) struct StandIn {
    port: u16,
    thread: Option<JoinHandle<()>>,
}

/// One connection of a client.
pub(crate) struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    pub(crate) version: Version,
}

impl StandIn {
    /// Accepts `connections` clients, one after another, and has each served by `serve`.
    pub(crate) fn start(
        connections: usize,
        mut serve: impl FnMut(&mut Peer, usize) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::Builder::new()
            .spawn(move || {
                for turn in 0..connections {
                    let (stream, _) = listener.accept().unwrap();
                    let mut peer = Peer {
                        stream,
                        input: Vec::new(),
                        version: Version::V3_1_1,
                    };
                    serve(&mut peer, turn);
                }
            })
            .unwrap();
        Self {
            port,
            thread: Some(thread),
        }
    }

    /// The port, as an argument.
    pub(crate) fn port(&self) -> String {
        self.port.to_string()
    }

    /// Waits until all connections are served, and fails if one of them was not as expected.
    pub(crate) fn finish(mut self) {
        let thread = self.thread.take().unwrap();
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Peer {
    /// Hands the next packet to `look`; `None` if the client closed.
    pub(crate) fn next<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> Option<T> {
        loop {
            if let Framing::Packet {
                first_byte,
                body,
                size,
            } = frame(&self.input, MAX_PACKET_SIZE).unwrap()
            {
                let packet = Packet::decode(self.version, first_byte, body).unwrap();
                if let Packet::Connect(connect) = &packet {
                    self.version = connect.version;
                }
                let result = look(&packet);
                self.input.drain(..size);
                return Some(result);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        let mut out = Vec::new();
        packet.encode(self.version, &mut out);
        self.send_bytes(&out);
    }

    /// Sends bytes.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Takes a CONNECT and answers it.
    pub(crate) fn answer_connect(&mut self, reason: ReasonCode, properties: ConnAckProperties<'_>) {
        let is_connect = self.next(|packet| matches!(packet, Packet::Connect(_)));
        assert_eq!(is_connect, Some(true));
        self.send(&Packet::ConnAck(ConnAck {
            session_present: false,
            reason,
            properties,
        }));
    }

    /// Takes a CONNECT and accepts it.
    pub(crate) fn accept(&mut self) {
        self.answer_connect(ReasonCode::Success, ConnAckProperties::default());
    }

    /// Waits until the client closes; what it still sends is of no interest.
    pub(crate) fn drain(&mut self) {
        while self.next(|_| ()).is_some() {}
    }
}

/// A message.
pub(crate) fn publish(
    topic: &'static str,
    qos: QoS,
    packet_id: Option<PacketId>,
) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id,
        properties: PublishProperties::default(),
        payload: b"payload",
    })
}

/// Takes a SUBSCRIBE and grants what it asks for.
pub(crate) fn grant(peer: &mut Peer) {
    let (id, codes) = peer
        .next(|packet| {
            let Packet::Subscribe(subscribe) = packet else {
                panic!("{packet:?}")
            };
            let codes: Vec<u8> = subscribe
                .filters
                .iter()
                .map(|(_, options)| options.qos.bits())
                .collect();
            (subscribe.packet_id, codes)
        })
        .unwrap();
    suback(peer, id, &codes);
}

/// Sends a SUBACK.
pub(crate) fn suback(peer: &mut Peer, packet_id: PacketId, codes: &[u8]) {
    peer.send(&Packet::SubAck(SubAck {
        packet_id,
        reason_string: None,
        user_properties: UserProperties::default(),
        codes,
    }));
}

/// Takes a packet: whether it is a DISCONNECT with this reason.
pub(crate) fn is_disconnect(peer: &mut Peer, reason: ReasonCode) -> bool {
    peer.next(|packet| matches!(packet, Packet::Disconnect(d) if d.reason == reason)) == Some(true)
}
