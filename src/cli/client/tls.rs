//! TLS of the clients: rustls between two threads, one of which reads and one of which writes.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::failure::Failure;

/// Where Linux distributions keep the authorities that they trust.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// What TLS is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// A file with authorities; without one those that the system trusts.
    pub(super) authorities: Option<PathBuf>,
    /// Our own certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// Whether the certificate need not have the name of the host.
    pub(super) any_name: bool,
}

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
    /// Shakes hands on a stream that is connected to `host`.
    pub(super) fn open(stream: TcpStream, host: &str, options: &Options) -> Result<Self, Failure> {
        let wrong = |text: String| Failure::Connect(format!("TLS: {text}"));
        let config = config(options).map_err(wrong)?;
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

fn config(options: &Options) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let system = SYSTEM.iter().map(Path::new).find(|file| file.exists());
    let file = options.authorities.as_deref().or(system).ok_or_else(|| {
        "this system has no list of authorities; name one with --cafile".to_owned()
    })?;
    for authority in certificates(file)? {
        // A system's list may hold some that rustls does not understand.
        let _ = roots.add(authority);
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("{}: {error}", file.display()))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier {
            inner: verifier,
            any_name: options.any_name,
        }));
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((file, key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| format!("{}: {error}", key_file.display()))?;
            builder
                .with_client_auth_cert(certificates(file)?, key)
                .map_err(|error| format!("{}: {error}", file.display()))?
        }
    };
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", file.display()))
}

/// Checks a broker as usual, its name perhaps excepted.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .inner
            .verify_server_cert(certificate, between, name, status, now);
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
