//! Listening sockets: one for each shard on each address, so that the kernel spreads connections
//! (`SO_REUSEPORT`). TCP is the ordered, lossless stream that MQTT asks for [MQTT-4.2-1]
//! [MQTT-7.1.1-1 3.1.1].
//!
//! `SO_REUSEPORT` alone would let a second broker of the same user take a share of our clients, and
//! us of its. So the first socket is bound without it, which fails if anybody listens there; only then
//! is the option set, and the others join.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::error::ListenError;

/// Seconds without a packet after which the kernel asks whether the other machine is still there. For
/// clients without Keep Alive; the others are found out by it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);

/// Between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Questions without an answer that end a connection.
const KEEPALIVE_RETRIES: u32 = 4;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Its name in the configuration and in messages.
    pub name: String,
    /// Port 0 takes any free one. An IPv6 address means IPv6 only, also `[::]`.
    pub address: SocketAddr,
}

/// An address that is listened on.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    /// With the actual port.
    pub(super) address: SocketAddr,
    /// One for each shard.
    pub(super) sockets: Vec<OwnedFd>,
}

/// Listens on `wanted` with a socket for each of `shards` shards.
pub(super) fn listen(
    wanted: &ListenAddress,
    shards: usize,
    backlog: u32,
) -> Result<Listener, ListenError> {
    let fail = |error| ListenError {
        name: wanted.name.clone(),
        address: wanted.address,
        error,
    };
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let first = open(wanted.address).map_err(fail)?;
    first.bind(&wanted.address.into()).map_err(fail)?;
    let address = first
        .local_addr()
        .map_err(fail)?
        .as_socket()
        .ok_or_else(|| fail(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)))?;
    if shards > 1 {
        // Before listen: that is when a socket becomes a member of its port's group.
        first.set_reuse_port(true).map_err(fail)?;
    }
    first.listen(backlog).map_err(fail)?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..shards {
        sockets.push(OwnedFd::from(join(address, backlog).map_err(fail)?));
    }
    Ok(Listener {
        name: wanted.name.clone(),
        address,
        sockets,
    })
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Only sockets in TIME_WAIT are passed over by this; a listening one is not.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit all of these, so that an accept is one system call less for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES),
    )?;
    Ok(socket)
}

/// One more socket on an address that is ours.
fn join(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn wanted(address: &str) -> ListenAddress {
        ListenAddress {
            name: String::from("test"),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn all_shards_share_one_port_and_connections_spread() {
        let listener = listen(&wanted("127.0.0.1:0"), 2, 64).unwrap();
        assert_ne!(listener.address.port(), 0);
        let clients: Vec<_> = (0..32)
            .map(|_| TcpStream::connect(listener.address).unwrap())
            .collect();
        for socket in &listener.sockets {
            let socket = Socket::from(socket.try_clone().unwrap());
            socket.set_nonblocking(true).unwrap();
            let (accepted, _) = socket
                .accept()
                .expect("32 connections reach both of two sockets");
            assert!(
                accepted.tcp_nodelay().unwrap(),
                "inherited from the listening socket"
            );
            assert!(accepted.keepalive().unwrap());
        }
        drop(clients);
    }

    #[test]
    fn a_port_that_someone_listens_on_is_not_shared() {
        for shards in [1, 2] {
            let other = listen(&wanted("127.0.0.1:0"), shards, 1).unwrap();
            let error = listen(&wanted(&other.address.to_string()), 2, 1).unwrap_err();
            assert_eq!(error.error.raw_os_error(), Some(libc::EADDRINUSE));
            assert!(
                error
                    .to_string()
                    .contains("another socket listens there already"),
                "{error}"
            );
        }
    }

    #[test]
    fn ipv4_and_ipv6_may_have_the_same_port() {
        let Ok(six) = listen(&wanted("[::1]:0"), 2, 1) else {
            // A machine without IPv6: what the error says is tested by its text.
            return;
        };
        let port = six.address.port();
        let four = listen(&wanted(&format!("127.0.0.1:{port}")), 2, 1).unwrap();
        assert_eq!(four.address.port(), port);
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let error = listen(&wanted("192.0.2.1:0"), 1, 1).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("this machine has no such address"),
            "{error}"
        );
    }
}
