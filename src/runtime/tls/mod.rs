//! Certificates: what a listener shows and asks for, read from files, checked as a whole, and exchanged
//! while clients stay.

mod certificate;
mod client;
mod load;
mod watcher;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use crate::config::{CertificateName, ClientCertificate, TlsVersion};
use crate::link::LinkError;
use crate::link::tls::Session;

pub use client::{ClientTls, Trust};
pub(super) use watcher::{Told, Watcher};

/// What a listener has of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Files with a certificate and those up to its authority, each.
    pub certificates: Vec<PathBuf>,
    /// Files with their keys.
    pub keys: Vec<PathBuf>,
    /// Whether clients show a certificate.
    pub client_certificate: ClientCertificate,
    /// Files with the authorities of clients.
    pub client_authorities: Vec<PathBuf>,
    /// Files with what those have revoked.
    pub client_revocations: Vec<PathBuf>,
    /// Which name of a client certificate counts.
    pub certificate_name: CertificateName,
    /// The oldest version that is spoken.
    pub minimum: TlsVersion,
}

impl TlsOptions {
    /// All files, in the order of their keys in the configuration.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.certificates
            .iter()
            .chain(&self.keys)
            .chain(&self.client_authorities)
            .chain(&self.client_revocations)
    }
}

/// What is wrong with certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// In which file.
    pub file: PathBuf,
    /// What.
    pub text: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.text)
    }
}

impl std::error::Error for TlsError {}

/// What a listener shows now. New connections take what stands here; those that are there keep what
/// they had.
#[derive(Debug)]
pub(super) struct Slot {
    current: RwLock<Arc<ServerConfig>>,
    name: CertificateName,
}

impl Slot {
    fn new(config: Arc<ServerConfig>, name: CertificateName) -> Self {
        let current = RwLock::new(config);
        Self { current, name }
    }

    fn exchange(&self, config: Arc<ServerConfig>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// TLS for a connection.
    pub(super) fn session(&self) -> Result<Session, LinkError> {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let read_name = match self.name {
            CertificateName::CommonName => certificate::common_name,
            CertificateName::AlternativeName => certificate::alternative_name,
            CertificateName::Subject => certificate::subject,
        };
        Session::new(config, read_name)
    }
}

/// Checks the files of a listener without using them.
///
/// # Errors
/// What is wrong with them.
pub fn check_tls(options: &TlsOptions) -> Result<(), TlsError> {
    load::load(options, false, None).map(drop)
}
