//! A client of version 3.1.1 that speaks bytes, over any stream.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::broker::PATIENCE;
use crate::pki::{Authority, Identity};

pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A configuration of TLS that trusts an authority, with a certificate of its own or without.
pub(crate) fn config(authority: &Authority, identity: Option<&Identity>) -> Arc<ClientConfig> {
    config_of(
        authority,
        identity,
        &[&rustls::version::TLS13, &rustls::version::TLS12],
    )
}

pub(crate) fn config_of(
    authority: &Authority,
    identity: Option<&Identity>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    })
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    tls_to(address, config, "localhost")
}

pub(crate) fn tls_to(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Tls {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, tcp(address))
}

/// The MQTT on top of a stream.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
}

pub(crate) fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut packet = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    packet.extend(u16::try_from(client_id.len()).unwrap().to_be_bytes());
    packet.extend(client_id.as_bytes());
    framed(0x10, &packet)
}

/// With a user name and a password.
pub(crate) fn login_packet(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut packet = b"\0\x04MQTT\x04\xc2\0\0".to_vec();
    for text in [client_id, user, password] {
        packet.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        packet.extend(text.as_bytes());
    }
    framed(0x10, &packet)
}

pub(crate) fn publish_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    packet.extend(topic.as_bytes());
    packet.extend(payload);
    framed(0x30, &packet)
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).unwrap();
        left /= 128;
        packet.push(digit | if left > 0 { 0x80 } else { 0 });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn try_connect(stream: S, client_id: &str) -> io::Result<Self> {
        let mut client = Self { stream };
        client.stream.write_all(&connect_packet(client_id))?;
        client.stream.flush()?;
        let (first, body) = client.packet()?;
        assert_eq!(
            (first, body.as_slice()),
            (0x20, [0, 0].as_slice()),
            "CONNACK"
        );
        Ok(client)
    }

    pub(crate) fn connect(stream: S, client_id: &str) -> Self {
        Self::try_connect(stream, client_id).unwrap()
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        let mut packet = vec![0, 1];
        packet.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        packet.extend(filter.as_bytes());
        packet.push(0);
        self.send(&framed(0x82, &packet));
        assert_eq!(self.packet().unwrap(), (0x90, vec![0, 1, 0]), "SUBACK");
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&publish_packet(topic, payload));
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The payload of the next PUBLISH.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let (first, body) = self.packet().unwrap();
        assert_eq!(first >> 4, 3, "PUBLISH");
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        body[2 + topic..].to_vec()
    }

    /// That it is alive and has no message.
    pub(crate) fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        assert_eq!(self.packet().unwrap(), (0xd0, Vec::new()), "PINGRESP");
    }

    pub(crate) fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = || {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map(|()| byte[0])
        };
        let first = byte()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let digit = byte()?;
            length |= usize::from(digit & 0x7f) << shift;
            shift += 7;
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((first, body))
    }
}
