//! A listener as the shards share it: what its connections begin with, and how many there are.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::SockRef;

use crate::link::{Link, Network, ws};

use super::tls::Slot;

/// A listener.
#[derive(Debug)]
pub(super) struct Entrance {
    /// Its name in the configuration.
    pub(super) name: String,
    /// Connections at a time.
    pub(super) max_connections: usize,
    /// The proxies in front of it; without one there is none.
    pub(super) proxy_from: Vec<Network>,
    /// Its certificates.
    pub(super) tls: Option<Arc<Slot>>,
    /// What requests for a WebSocket are judged by.
    pub(super) websocket: Option<Arc<ws::Rules>>,
    /// Connections of all shards.
    pub(super) connections: AtomicUsize,
}

/// Why a connection was closed before a byte was read.
#[derive(Debug)]
pub(super) enum Turned {
    /// It does not come from a proxy that is trusted.
    NotFromProxy,
    /// TLS is of no use.
    Tls(crate::link::LinkError),
}

impl fmt::Display for Turned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFromProxy => f.write_str("it does not come from a proxy; see proxy_from"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl Entrance {
    /// Counts a connection, if there is room for it.
    pub(super) fn enter(&self) -> bool {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            self.leave();
            return false;
        }
        true
    }

    /// A connection is gone.
    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// What a connection from `address` begins with; nothing for MQTT in the clear.
    pub(super) fn link(&self, address: SocketAddr) -> Result<Option<Box<Link>>, Turned> {
        let proxied = !self.proxy_from.is_empty();
        if !proxied && self.tls.is_none() && self.websocket.is_none() {
            return Ok(None);
        }
        let mut link = Link::new(address);
        if proxied {
            let trusted = self.proxy_from.iter().any(|net| net.contains(address.ip()));
            if !trusted && address != NOWHERE {
                return Err(Turned::NotFromProxy);
            }
            link = link.with_proxy();
        }
        if let Some(tls) = &self.tls {
            link = link.with_tls(tls.session().map_err(Turned::Tls)?);
        }
        if let Some(rules) = &self.websocket {
            link = link.with_websocket(Arc::clone(rules));
        }
        Ok(Some(Box::new(link)))
    }
}

/// Stands for the address of a client on a Unix socket, which has none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Where a client is; `None` if it is gone already.
pub(super) fn address(socket: &SockRef<'_>) -> Option<SocketAddr> {
    let address = socket.peer_addr().ok()?;
    match address.as_socket() {
        Some(address) => Some(address),
        None => address.is_unix().then_some(NOWHERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrance(proxy_from: &[&str]) -> Entrance {
        Entrance {
            name: String::from("test"),
            max_connections: 2,
            proxy_from: proxy_from.iter().map(|net| net.parse().unwrap()).collect(),
            tls: None,
            websocket: None,
            connections: AtomicUsize::new(0),
        }
    }

    #[test]
    fn a_listener_has_room_for_as_many_as_it_says() {
        let entrance = entrance(&[]);
        assert!(entrance.enter() && entrance.enter());
        assert!(!entrance.enter() && !entrance.enter());
        entrance.leave();
        assert!(entrance.enter());
    }

    #[test]
    fn mqtt_in_the_clear_has_no_link() {
        let client = "192.0.2.1:1".parse().unwrap();
        assert!(entrance(&[]).link(client).unwrap().is_none());
    }

    #[test]
    fn who_comes_past_the_proxy_is_turned_away() {
        let entrance = entrance(&["10.0.0.0/8"]);
        assert!(
            entrance
                .link("10.1.2.3:4".parse().unwrap())
                .unwrap()
                .is_some()
        );
        assert!(entrance.link("192.0.2.1:4".parse().unwrap()).is_err());
        assert!(
            entrance.link(NOWHERE).unwrap().is_some(),
            "a Unix socket has its mode"
        );
    }
}
