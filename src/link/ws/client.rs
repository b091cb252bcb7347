//! The client's side, for tools that are no browsers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::frame::{self, Decoder, Opcode, Side};
use super::upgrade;

/// WebSocket of one connection to a server.
#[derive(Debug)]
pub struct Client {
    state: State,
    /// What masks are made of.
    random: u64,
}

#[derive(Debug)]
enum State {
    /// The head of the answer, as far as it has come, and the key that it has to answer.
    Upgrade(Vec<u8>, String),
    Frames(Decoder),
    Closed,
}

impl Client {
    /// Asks `host` for `path`, behind `out`. `random` is another number for each connection.
    #[must_use]
    pub fn new(host: &str, path: &str, random: u64, out: &mut Vec<u8>) -> Self {
        let mut random = random | 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&next(&mut random).to_be_bytes());
        key[8..].copy_from_slice(&next(&mut random).to_be_bytes());
        let key = STANDARD.encode(key);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        Self {
            state: State::Upgrade(Vec::new(), key),
            random,
        }
    }

    /// Whether it is a WebSocket.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Frames(_))
    }

    /// Takes bytes; puts the payload of frames behind `plain` and what is to be answered behind `reply`.
    /// Returns whether the server has said farewell.
    ///
    /// # Errors
    /// What is wrong with what the server says.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let mut rest = bytes;
        if let State::Upgrade(head, key) = &mut self.state {
            let before = head.len();
            head.extend_from_slice(bytes);
            let Some(used) = upgrade::accepted(head, key)? else {
                return Ok(false);
            };
            rest = bytes.get(used - before..).unwrap_or_default();
            self.state = State::Frames(Decoder::of_client());
        }
        let State::Frames(decoder) = &mut self.state else {
            return Ok(true);
        };
        let over = decoder.decode(rest, plain, reply);
        if !matches!(over, Ok(false)) {
            self.state = State::Closed;
        }
        over.map_err(|violation| violation.to_string())
    }

    /// Makes `bytes` the payload of one frame.
    pub fn frame(&mut self, bytes: &mut Vec<u8>) {
        let [a, b, c, d, ..] = next(&mut self.random).to_be_bytes();
        frame::masked_frame(bytes, [a, b, c, d]);
    }

    /// Puts a farewell behind `out`, unless the server has said one.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.is_open() {
            let code = frame::NORMAL.to_be_bytes();
            frame::control(Side::Client, Opcode::Close, &code, out);
        }
        self.state = State::Closed;
    }
}

/// Xorshift: a mask keeps a cache on the way from taking payload for a request, and needs no more.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::Received;
    use super::super::{Rules, Session};
    use super::*;

    /// Both sides, byte by byte.
    #[test]
    fn client_and_server_understand_each_other() {
        let mut to_server = Vec::new();
        let mut client = Client::new("broker:1", "/mqtt", 7, &mut to_server);
        let mut server = Session::new(Arc::new(Rules::default()));
        let (mut at_server, mut to_client) = (Vec::new(), Vec::new());
        for byte in to_server.drain(..) {
            let received = server.receive(&[byte], &mut at_server, &mut to_client);
            assert_eq!(received, Received::GoesOn);
        }
        assert!(server.is_open() && !client.is_open());
        let mut at_client = Vec::new();
        for length in [1, 125, 126, 65_535, 65_536, 70_000] {
            let sent: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut bytes = sent.clone();
            super::super::frame(&mut bytes);
            to_client.append(&mut bytes);
            for part in to_client.chunks(7) {
                let over = client.receive(part, &mut at_client, &mut to_server);
                assert_eq!(over, Ok(false));
            }
            to_client.clear();
            assert!(at_client == sent && client.is_open());
            at_client.clear();
            let mut bytes = sent.clone();
            client.frame(&mut bytes);
            assert_eq!(bytes[1] & 0x80, 0x80, "it has a mask");
            for part in bytes.chunks(7) {
                server.receive(part, &mut at_server, &mut to_client);
            }
            assert!(at_server == sent);
            at_server.clear();
        }
        client.close(&mut to_server);
        let received = server.receive(&to_server, &mut at_server, &mut to_client);
        assert_eq!(received, Received::Farewell);
        assert!(!client.is_open());
    }

    #[test]
    fn another_answer_is_told() {
        for (answer, told) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
            (
                "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x\r\n\r\n",
                "another request",
            ),
            ("\x20\x02\0\0", "no HTTP"),
        ] {
            let mut client = Client::new("broker", "/", 3, &mut Vec::new());
            let error = client.receive(answer.as_bytes(), &mut Vec::new(), &mut Vec::new());
            assert!(
                error.clone().is_err_and(|text| text.contains(told)),
                "{error:?}"
            );
        }
    }
}
