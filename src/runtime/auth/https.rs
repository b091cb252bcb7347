//! TLS towards the HTTP authenticator. His certificate is checked, always: whoever could stand in for him
//! could let in whom he likes.

use std::io;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http::HttpAsker;
use crate::runtime::tls::ClientTls;

/// How to speak TLS with him.
pub(super) struct Secure {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Secure {
    /// Reads whom to trust; `None` if TLS is not to be spoken.
    ///
    /// # Errors
    /// What is wrong with the file, or with the name.
    pub(super) fn load(asker: &HttpAsker) -> Result<Option<Self>, String> {
        if !asker.url.has_tls() {
            return Ok(None);
        }
        let name = asker.url.name();
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("`{name}` is neither a name nor an address"))?;
        let options = ClientTls {
            authorities: asker.authorities.clone(),
            ..ClientTls::default()
        };
        let config = options.config(b"http/1.1")?;
        Ok(Some(Self {
            connector: TlsConnector::from(config),
            name,
        }))
    }

    /// Shakes hands.
    pub(super) async fn open(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), socket).await
    }
}
