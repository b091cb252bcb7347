//! TLS of the clients: rustls between two threads, one of which reads and one of which writes.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use shardmq::runtime::ClientTls;

use super::failure::Failure;

/// One end of a connection; both ends share what they know.
#[derive(Clone)]
pub(super) struct Tls {
    stream: Arc<TcpStream>,
    connection: Arc<Mutex<ClientConnection>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Shakes hands on a stream that is connected to `host`, and offers `protocol`.
    pub(super) fn open(
        stream: TcpStream,
        host: &str,
        options: &ClientTls,
        protocol: &[u8],
    ) -> Result<Self, Failure> {
        let wrong = |text: String| Failure::Connect(format!("TLS: {text}"));
        let config = options.config(protocol).map_err(wrong)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| wrong(format!("`{host}` is neither a name nor an address")))?;
        let mut connection =
            ClientConnection::new(config, name).map_err(|error| wrong(error.to_string()))?;
        let mut socket = &stream;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut socket)
                .map_err(|error| wrong(explain(&error)))?;
        }
        Ok(Self {
            stream: Arc::new(stream),
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, ClientConnection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_into(&self, connection: &mut ClientConnection) -> io::Result<()> {
        let mut socket = &*self.stream;
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    pub(super) fn close(&self) {
        let mut connection = self.lock();
        connection.send_close_notify();
        let _ = self.flush_into(&mut connection);
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut records = vec![0; 16 * 1024];
        loop {
            match self.lock().reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The connection may end without a farewell: MQTT has its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            // Without the lock, so that the other end may write meanwhile.
            let length = (&*self.stream).read(&mut records)?;
            let mut unread = records.get(..length).unwrap_or_default();
            let mut connection = self.lock();
            if length == 0 {
                connection.read_tls(&mut unread)?;
            }
            while !unread.is_empty() {
                connection.read_tls(&mut unread)?;
                let result = connection.process_new_packets();
                let _ = self.flush_into(&mut connection);
                result.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
        }
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut connection = self.lock();
        let written = connection.writer().write(bytes)?;
        self.flush_into(&mut connection)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_into(&mut self.lock())
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the broker ended the connection; is this a port for TLS?".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "the broker does not answer; is this a port for TLS?".to_owned()
        }
        _ => error.to_string(),
    }
}
