//! WebSocket, RFC 6455: the request that becomes one, and frames. The server's side is for the broker, the
//! client's for the load generator and the command line.
//!
//! Our own, because of what it leaves out: a message is never gathered. MQTT takes bytes in whatever
//! pieces [MQTT-6.0.0-2], so the payload of a frame goes on as it arrives, and a client that announces a
//! frame of a gigabyte holds no more memory than one that sends it byte by byte. Nothing is compressed.

mod client;
mod frame;
mod upgrade;

use std::sync::Arc;

use super::{LinkError, Received};
use frame::{Decoder, Opcode, Side};

pub use client::Client;
pub use frame::{Violation, frame};
pub use upgrade::{Refusal, Rules};

/// WebSocket of one connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    closed: bool,
}

#[derive(Debug)]
enum State {
    /// The head of the request, as far as it has come, and what it is judged by.
    Upgrade(Vec<u8>, Arc<Rules>),
    /// Frames come.
    Frames(Decoder),
}

impl Session {
    /// A connection on which a request is to come.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            state: State::Upgrade(Vec::new(), rules),
            closed: false,
        }
    }

    /// Whether it is a WebSocket.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Frames(_))
    }

    /// Takes bytes; puts the payload of frames behind `plain` and what is to be answered behind `reply`.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>, reply: &mut Vec<u8>) -> Received {
        let mut rest = bytes;
        if let State::Upgrade(head, rules) = &mut self.state {
            let before = head.len();
            let room = (upgrade::MOST + 1).saturating_sub(before);
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            match upgrade::answer(head, rules, reply) {
                Ok(None) => return Received::GoesOn,
                Ok(Some(used)) => {
                    rest = bytes.get(used - before..).unwrap_or_default();
                    self.state = State::Frames(Decoder::default());
                }
                Err(refusal) => {
                    self.closed = true;
                    return Received::Failed(LinkError::Upgrade(refusal));
                }
            }
        }
        match &mut self.state {
            State::Frames(decoder) if !self.closed => match decoder.decode(rest, plain, reply) {
                Ok(false) => Received::GoesOn,
                Ok(true) => {
                    self.closed = true;
                    Received::Farewell
                }
                Err(violation) => {
                    frame::control(
                        Side::Server,
                        Opcode::Close,
                        &violation.code().to_be_bytes(),
                        reply,
                    );
                    self.closed = true;
                    Received::Failed(LinkError::Frame(violation))
                }
            },
            _ => Received::GoesOn,
        }
    }

    /// Puts our farewell behind `out`, unless there was one.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.is_open() && !self.closed {
            frame::control(
                Side::Server,
                Opcode::Close,
                &frame::NORMAL.to_be_bytes(),
                out,
            );
        }
        self.closed = true;
    }
}

#[cfg(test)]
mod tests;
