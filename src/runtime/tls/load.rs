//! From files to what rustls serves with. Everything is checked before anything is used.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::{TlsError, TlsOptions, certificate};
use crate::config::{ClientCertificate, TlsVersion};

/// What was made of the files of a listener.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// Until when what stands in a file holds, in seconds since 1970.
    pub(super) ends: Vec<(PathBuf, u64)>,
}

/// Reads and checks. `tickets` are those of the configuration before, if sessions may go on.
pub(super) fn load(
    options: &TlsOptions,
    is_websocket: bool,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<Loaded, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut ends = Vec::new();
    let resolver = Certificates::load(options, &provider, &mut ends)?;
    let verifier = verifier(options, &provider, &mut ends)?;
    let first = options.certificates.first().cloned().unwrap_or_default();
    let fail = |error: &dyn fmt::Display| TlsError {
        file: first.clone(),
        text: error.to_string(),
    };
    let versions = [&TLS13, &TLS12];
    let versions = match options.minimum {
        TlsVersion::V1_2 => &versions[..],
        TlsVersion::V1_3 => &versions[..1],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| fail(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = match is_websocket {
        true => vec![b"http/1.1".to_vec()],
        false => vec![b"mqtt".to_vec()],
    };
    // A session lies with the client, in a ticket: a fleet that comes back needs no memory here, and
    // finds its session on whatever shard.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.ticketer = match tickets {
        Some(tickets) => tickets,
        None => aws_lc_rs::Ticketer::new().map_err(|error| fail(&error))?,
    };
    Ok(Loaded {
        config: Arc::new(config),
        ends,
    })
}

/// Items of a PEM file, of which there must be one.
fn items<T: PemObject>(file: &Path, what: &str) -> Result<Vec<T>, TlsError> {
    let fail = |text: String| TlsError {
        file: file.to_owned(),
        text,
    };
    let read = T::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    let found = read.map_err(|error| fail(explain(&error)))?;
    match found.is_empty() {
        true => Err(fail(format!("there is no {what} in it"))),
        false => Ok(found),
    }
}

fn explain(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "the user that runs the broker may not read it".to_owned()
            }
            _ => error.to_string(),
        },
        pem::Error::NoItemsFound => "it holds nothing of the kind in PEM".to_owned(),
        error => format!("no proper PEM: {error}"),
    }
}

/// The certificates of a listener.
#[derive(Debug)]
struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    /// By the names in them, the `*.` of a wildcard cut off.
    exact: HashMap<String, Vec<usize>>,
    wildcard: HashMap<String, Vec<usize>>,
}

impl Certificates {
    fn load(
        options: &TlsOptions,
        provider: &CryptoProvider,
        ends: &mut Vec<(PathBuf, u64)>,
    ) -> Result<Self, TlsError> {
        let mut all = Self {
            keys: Vec::new(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        for (file, key_file) in options.certificates.iter().zip(&options.keys) {
            let chain = items::<CertificateDer<'_>>(file, "certificate")?;
            let at_key = |text: String| TlsError {
                file: key_file.clone(),
                text,
            };
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| {
                at_key(match error {
                    pem::Error::NoItemsFound => {
                        "there is no private key in it, or one that has a password".to_owned()
                    }
                    error => explain(&error),
                })
            })?;
            let key = provider
                .key_provider
                .load_private_key(key)
                .map_err(|error| at_key(format!("the key cannot be used: {error}")))?;
            let names = chain.first().map(certificate::server_names);
            ends.extend(
                chain
                    .iter()
                    .filter_map(|item| Some((file.clone(), certificate::not_after(item)?))),
            );
            let key = CertifiedKey::new(chain, key);
            key.keys_match().map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => at_key(format!(
                    "this key does not belong to the certificate in {}",
                    file.display()
                )),
                error => TlsError {
                    file: file.clone(),
                    text: error.to_string(),
                },
            })?;
            let index = all.keys.len();
            all.keys.push(Arc::new(key));
            for name in names.unwrap_or_default() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut all.wildcard, rest),
                    None => (&mut all.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(index);
            }
        }
        Ok(all)
    }

    /// Those that have a name, the ones that have it without a wildcard first.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let exact = self.exact.get(&name);
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent));
        let indices = exact.into_iter().chain(wildcard).flatten();
        indices.filter_map(|index| self.keys.get(*index))
    }
}

impl ResolvesServerCert for Certificates {
    /// The one with the name that is asked for and a key that the client understands; otherwise the
    /// first that it understands: a device that asks by address asks for no name.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = hello
            .server_name()
            .and_then(|name| self.named(name).find(fits));
        let any = || self.keys.iter().find(fits).or_else(|| self.keys.first());
        named.or_else(any).cloned()
    }
}

/// Who checks the certificates of clients.
fn verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
    ends: &mut Vec<(PathBuf, u64)>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if options.client_certificate == ClientCertificate::Off {
        return Ok(Arc::new(NoClientAuth));
    }
    let mut roots = RootCertStore::empty();
    for file in &options.client_authorities {
        for authority in items::<CertificateDer<'_>>(file, "certificate")? {
            ends.extend(certificate::not_after(&authority).map(|end| (file.clone(), end)));
            roots.add(authority).map_err(|error| TlsError {
                file: file.clone(),
                text: format!("it has a certificate that cannot be an authority: {error}"),
            })?;
        }
    }
    let mut lists = Vec::new();
    for file in &options.client_revocations {
        let found = items::<CertificateRevocationListDer<'_>>(file, "list of revocations")?;
        ends.extend(
            found
                .iter()
                .filter_map(|list| Some((file.clone(), certificate::next_update(list)?))),
        );
        lists.extend(found);
    }
    let files = match options.client_revocations.first() {
        Some(file) => file,
        None => options
            .client_authorities
            .first()
            .unwrap_or(&options.certificates[0]),
    };
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !lists.is_empty() {
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if options.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| TlsError {
        file: files.clone(),
        text: error.to_string(),
    })
}
