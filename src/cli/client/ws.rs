//! WebSocket of the clients: frames between two threads, one of which reads and one of which writes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shardmq::link::ws::Client;

use super::failure::Failure;

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// One end of a WebSocket; both ends share what they know.
#[derive(Clone, Debug)]
pub(super) struct Ws {
    client: Arc<Mutex<Client>>,
    /// What came and was not read.
    unread: Vec<u8>,
}

impl Ws {
    /// Asks for one on a stream that is connected to `host`.
    pub(super) fn open(
        stream: &mut (impl Read + Write),
        host: &str,
        path: &str,
    ) -> Result<Self, Failure> {
        let wrong = |text: String| Failure::Connect(format!("WebSocket: {text}"));
        let random = RandomState::new().build_hasher().finish();
        let mut request = Vec::new();
        let client = Client::new(host, path, random, &mut request);
        let mut ws = Self {
            client: Arc::new(Mutex::new(client)),
            unread: Vec::new(),
        };
        let sent = stream.write_all(&request);
        sent.map_err(|error| wrong(error.to_string()))?;
        while !ws.lock().is_open() {
            let more = ws.take_in(stream).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    wrong("the broker does not answer; is this a port for it?".to_owned())
                }
                _ => wrong(error.to_string()),
            })?;
            if !more {
                let text = "the broker ended the connection; is this a port for it?";
                return Err(wrong(text.to_owned()));
            }
        }
        Ok(ws)
    }

    fn lock(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what one read brings; `false` at the end.
    fn take_in(&mut self, stream: &mut (impl Read + Write)) -> io::Result<bool> {
        let mut bytes = vec![0; READ_BYTES];
        let length = stream.read(&mut bytes)?;
        let mut reply = Vec::new();
        // With the lock, or an answer would get into the middle of a frame.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.get(..length).unwrap_or_default();
        let over = client
            .receive(bytes, &mut self.unread, &mut reply)
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
        if !reply.is_empty() {
            stream.write_all(&reply)?;
        }
        Ok(length > 0 && !over)
    }

    pub(super) fn read(
        &mut self,
        stream: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        while self.unread.is_empty() {
            if !self.take_in(stream)? {
                break;
            }
        }
        let length = self.unread.len().min(buffer.len());
        let read: Vec<u8> = self.unread.drain(..length).collect();
        if let Some(room) = buffer.get_mut(..length) {
            room.copy_from_slice(&read);
        }
        Ok(length)
    }

    /// Sends one frame.
    pub(super) fn write(&self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        let mut client = self.lock();
        let mut frame = bytes.to_vec();
        client.frame(&mut frame);
        stream.write_all(&frame)?;
        Ok(bytes.len())
    }

    /// Says farewell.
    pub(super) fn close(&self, stream: &mut impl Write) {
        let mut farewell = Vec::new();
        self.lock().close(&mut farewell);
        let _ = stream.write_all(&farewell);
    }
}
