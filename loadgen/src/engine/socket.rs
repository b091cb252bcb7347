//! Sockets that connect without waiting.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::sys;

/// Begins to connect to `broker`, from `source` if it is given.
pub(super) fn connect(broker: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(broker),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        sys::bind_address_no_port(socket.as_fd())?;
        let address = SockAddr::from(SocketAddr::new(source, 0));
        socket.bind(&address).map_err(|error| {
            let text = format!("{source} cannot be connected from (--ifaddr): {error}");
            io::Error::new(error.kind(), text)
        })?;
    }
    match socket.connect(&SockAddr::from(broker)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(OwnedFd::from(socket))
}

/// What an error number means, with what to do about those that a generator runs into.
pub(super) fn explain(errno: i32) -> String {
    let error = io::Error::from_raw_os_error(errno);
    match errno {
        libc::EADDRNOTAVAIL => format!(
            "{error}: no source port is left; give several source addresses (--ifaddr 127.0.0.0/24)"
        ),
        libc::EMFILE | libc::ENFILE => {
            format!("{error}: raise the hard limit of open files (ulimit -Hn)")
        }
        libc::ECONNREFUSED => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
