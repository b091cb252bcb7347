//! TLS by rustls, in its form without buffers: a connection keeps only the start of a record that is not
//! complete. What rustls keeps itself is its state and two keys.

use std::fmt;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

use super::{LinkError, Received};

/// Reads the name of the client from its certificate.
pub type ReadName = fn(&CertificateDer<'_>) -> Option<String>;

/// TLS of one connection, our side the server's.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// The start of a record.
    partial: Vec<u8>,
    read_name: ReadName,
    open: bool,
    ended: bool,
    /// rustls must not be asked for anything any more.
    broken: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Session");
        f.field("open", &self.open).finish_non_exhaustive()
    }
}

impl Session {
    /// Bytes that a record adds at most: header, type, tag, nonce, and some for a change of keys before
    /// the first one.
    const RECORD_EXTRA: usize = 64;

    /// Bytes in a record.
    const RECORD: usize = 16 * 1024;

    /// A session that begins.
    ///
    /// # Errors
    /// If the configuration is of no use.
    pub fn new(config: Arc<ServerConfig>, read_name: ReadName) -> Result<Self, LinkError> {
        let connection = UnbufferedServerConnection::new(config)
            .map_err(|error| LinkError::Tls(error.to_string()))?;
        Ok(Self {
            connection,
            partial: Vec::new(),
            read_name,
            open: false,
            ended: false,
            broken: false,
        })
    }

    /// Whether the handshake is over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether an earlier session goes on.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The name in the client's certificate.
    #[must_use]
    pub fn certificate_name(&self) -> Option<Arc<str>> {
        let certificate = self.connection.peer_certificates()?.first()?;
        (self.read_name)(certificate).map(Into::into)
    }

    /// Takes bytes from the socket; puts what they say behind `plain` and what is to be answered
    /// behind `out`. `records` is where they lie meanwhile.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        records: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Received {
        if self.ended {
            return Received::GoesOn;
        }
        records.clear();
        records.append(&mut self.partial);
        records.extend_from_slice(bytes);
        let (received, used) = self.work(records, plain, out);
        self.ended = received != Received::GoesOn;
        let rest = records.get_mut(used..).unwrap_or_default();
        if let Received::Failed(_) = received {
            self.broken = true;
            self.tell(rest, out);
        } else {
            // Exactly as much as there is: an idle connection has nothing.
            self.partial = rest.to_vec();
        }
        received
    }

    fn work(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (Received, usize) {
        let mut used = 0;
        loop {
            let unread = records.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(unread);
            let over = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut over = None;
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                plain.extend_from_slice(record.payload);
                            }
                            Err(error) => over = Some(failed(&error)),
                        }
                    }
                    over
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    fill(out, |room| data.encode(room).map_err(size_of_encode));
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    Some(Received::Farewell)
                }
                // Early data is not offered; the others wait for bytes.
                Ok(_) => Some(Received::GoesOn),
                Err(error) => Some(failed(&error)),
            };
            used += discard;
            if let Some(received) = over {
                self.open = !self.connection.is_handshaking();
                return (received, used);
            }
        }
    }

    /// Puts the alert behind `out` by which the other side learns what is wrong. rustls has to be shown
    /// what is left of the records, since of messages that it knows already it keeps the places, but must
    /// not be brought to read them.
    fn tell(&mut self, mut rest: &mut [u8], out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    fill(out, |room| data.encode(room).map_err(size_of_encode));
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                _ => return,
            }
            rest = rest.get_mut(discard..).unwrap_or_default();
        }
    }

    /// Puts the records with `bytes` behind `out`.
    pub(super) fn send(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let records = bytes.len() / Self::RECORD + 1;
        let most = bytes.len() + records * Self::RECORD_EXTRA;
        self.write(most, out, |traffic, room| {
            traffic.encrypt(bytes, room).map_err(size_of_encrypt)
        });
    }

    /// Says farewell.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.open {
            self.write(Self::RECORD_EXTRA, out, |traffic, room| {
                traffic.queue_close_notify(room).map_err(size_of_encrypt)
            });
        }
    }

    /// Has something written behind `out`, of `most` bytes probably.
    fn write(
        &mut self,
        most: usize,
        out: &mut Vec<u8>,
        mut make: impl FnMut(&mut Writer<'_>, &mut [u8]) -> Result<usize, usize>,
    ) {
        if self.broken {
            return;
        }
        // The start of a record, which stays where it is.
        let mut partial = std::mem::take(&mut self.partial);
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut partial);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    fill_from(most, out, |room| make(&mut traffic, room));
                    break;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    fill(out, |room| data.encode(room).map_err(size_of_encode));
                }
                Ok(ConnectionState::TransmitTlsData(mut data)) => {
                    // A side that has heard a farewell may still speak.
                    if let Some(mut traffic) = data.may_encrypt_app_data() {
                        fill_from(most, out, |room| make(&mut traffic, room));
                        data.done();
                        break;
                    }
                    data.done();
                }
                // Once, and then it may be written.
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.partial = partial;
    }
}

type Writer<'c> = rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>;

fn failed(error: &rustls::Error) -> Received {
    Received::Failed(LinkError::Tls(error.to_string()))
}

/// How many bytes are wanted; 0 if no number of them helps.
fn size_of_encode(error: EncodeError) -> usize {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => required_size,
        EncodeError::AlreadyEncoded => 0,
    }
}

fn size_of_encrypt(error: EncryptError) -> usize {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => required_size,
        EncryptError::EncryptExhausted => 0,
    }
}

fn fill(out: &mut Vec<u8>, make: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    fill_from(0, out, make);
}

/// Lets `make` write behind `out`: into `room` bytes, or as many as it then asks for.
fn fill_from(
    mut room: usize,
    out: &mut Vec<u8>,
    mut make: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match make(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => return out.truncate(start + written),
            Err(wanted) if wanted > room => room = wanted,
            Err(_) => return out.truncate(start),
        }
    }
}
