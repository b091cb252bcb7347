//! Listening sockets. TCP: one for each shard on each address, so that the kernel spreads connections
//! (`SO_REUSEPORT`). TCP is the ordered, lossless stream that MQTT asks for [MQTT-4.2-1]
//! [MQTT-7.1.1-1 3.1.1].
//!
//! `SO_REUSEPORT` alone would let a second broker of the same user take a share of our clients, and
//! us of its. So the first socket is bound without it, which fails if anybody listens there; only then
//! is the option set, and the others join.
//!
//! A Unix socket knows no such groups: all shards accept from one socket.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::link::{Network, ws};

use super::error::ListenError;
use super::sys;
use super::tls::TlsOptions;

/// Between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Questions without an answer that end a connection.
const KEEPALIVE_RETRIES: u32 = 4;

/// A listener as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Its name in the configuration and in messages.
    pub name: String,
    /// Where.
    pub places: Vec<Place>,
    /// Connections at a time.
    pub max_connections: usize,
    /// Silence after which the kernel asks whether the other machine is still there: for clients
    /// without Keep Alive, the others are found out by it.
    pub keep_alive: Option<Duration>,
    /// Certificates, if TLS is spoken.
    pub tls: Option<TlsOptions>,
    /// What requests are judged by, if WebSocket is spoken.
    pub websocket: Option<ws::Rules>,
    /// The proxies in front of it.
    pub proxy_from: Vec<Network>,
}

impl ListenOptions {
    /// MQTT by TCP in the clear.
    #[must_use]
    pub fn tcp(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            places: vec![Place::Tcp(address)],
            max_connections: usize::MAX,
            keep_alive: Some(Duration::from_secs(300)),
            tls: None,
            websocket: None,
            proxy_from: Vec::new(),
        }
    }

    fn scheme(&self, place: &Place) -> &'static str {
        match (place, self.websocket.is_some(), self.tls.is_some()) {
            (Place::Unix(_), ..) => "unix",
            (_, false, false) => "mqtt",
            (_, false, true) => "mqtts",
            (_, true, false) => "ws",
            (_, true, true) => "wss",
        }
    }
}

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Port 0 takes any free one. An IPv6 address means IPv6 only, also `[::]`.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixPlace),
}

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPlace {
    /// Its path.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// "user", "user:group" or ":group"; empty for nobody else.
    pub owner: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(place) => place.path.display().fmt(f),
        }
    }
}

/// A place that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The name of the listener in the configuration.
    pub name: String,
    /// What is spoken: `mqtt`, `mqtts`, `ws`, `wss` or `unix`.
    pub scheme: &'static str,
    /// Where, with the actual port.
    pub place: Place,
}

impl Listening {
    /// The address, unless it is a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        }
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.place)
    }
}

/// Sockets that listen at one place.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) listening: Listening,
    /// One for each shard.
    pub(super) sockets: Vec<OwnedFd>,
    /// Takes the file of a Unix socket away in the end.
    pub(super) file: Option<SocketFile>,
}

/// Listens at `place` of `wanted` with a socket for each of `shards` shards.
pub(super) fn listen(
    wanted: &ListenOptions,
    place: &Place,
    shards: usize,
    backlog: u32,
) -> Result<Listener, ListenError> {
    let fail = |error| ListenError {
        name: wanted.name.clone(),
        place: place.clone(),
        error,
    };
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let (actual, sockets, file) = match place {
        Place::Tcp(address) => {
            let keep_alive = wanted.keep_alive;
            let (address, sockets) =
                listen_tcp(*address, keep_alive, shards, backlog).map_err(fail)?;
            (Place::Tcp(address), sockets, None)
        }
        Place::Unix(unix) => {
            let (sockets, file) = listen_unix(unix, shards, backlog).map_err(fail)?;
            (place.clone(), sockets, Some(file))
        }
    };
    Ok(Listener {
        listening: Listening {
            name: wanted.name.clone(),
            scheme: wanted.scheme(place),
            place: actual,
        },
        sockets,
        file,
    })
}

fn listen_tcp(
    wanted: SocketAddr,
    keep_alive: Option<Duration>,
    shards: usize,
    backlog: i32,
) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let first = open(wanted, keep_alive)?;
    first.bind(&wanted.into())?;
    let address = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    if shards > 1 {
        // Before listen: that is when a socket becomes a member of its port's group.
        first.set_reuse_port(true)?;
    }
    first.listen(backlog)?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..shards {
        sockets.push(OwnedFd::from(join(address, keep_alive, backlog)?));
    }
    Ok((address, sockets))
}

/// The file of a Unix socket, which goes when its broker does, unless it is another one by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let facts = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: facts.dev(),
            inode: facts.ino(),
        })
    }

    /// It is to be found there.
    pub(super) fn relocate(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |facts: &fs::Metadata| (facts.dev(), facts.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|facts| ours(&facts)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) fn listen_unix(
    place: &UnixPlace,
    shards: usize,
    backlog: i32,
) -> io::Result<(Vec<OwnedFd>, SocketFile)> {
    let path = &place.path;
    // What another broker left behind; one that runs answers.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    if is_socket {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            _ => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        }
    }
    let first = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    first.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Before it listens nobody gets in, whatever the file is like until then.
    if !place.owner.is_empty() {
        let (user, group) = sys::owner(&place.owner)?;
        std::os::unix::fs::chown(path, user, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(place.mode))?;
    first.listen(backlog)?;
    let mut sockets = Vec::new();
    for _ in 1..shards {
        sockets.push(OwnedFd::from(first.try_clone()?));
    }
    sockets.push(OwnedFd::from(first));
    Ok((sockets, file))
}

fn open(address: SocketAddr, keep_alive: Option<Duration>) -> io::Result<Socket> {
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
    if let Some(silence) = keep_alive {
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(silence)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_RETRIES),
        )?;
    }
    Ok(socket)
}

/// One more socket on an address that is ours.
fn join(address: SocketAddr, keep_alive: Option<Duration>, backlog: i32) -> io::Result<Socket> {
    let socket = open(address, keep_alive)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn listen(address: &str, shards: usize, backlog: u32) -> Result<Listener, ListenError> {
        let options = ListenOptions::tcp("test", address.parse().unwrap());
        super::listen(&options, &options.places[0], shards, backlog)
    }

    fn address(listener: &Listener) -> SocketAddr {
        listener.listening.address().unwrap()
    }

    #[test]
    fn all_shards_share_one_port_and_connections_spread() {
        let listener = listen("127.0.0.1:0", 2, 64).unwrap();
        assert_ne!(address(&listener).port(), 0);
        let clients: Vec<_> = (0..32)
            .map(|_| TcpStream::connect(address(&listener)).unwrap())
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
            let other = listen("127.0.0.1:0", shards, 1).unwrap();
            let error = listen(&address(&other).to_string(), 2, 1).unwrap_err();
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
        let Ok(six) = listen("[::1]:0", 2, 1) else {
            // A machine without IPv6: what the error says is tested by its text.
            return;
        };
        let port = address(&six).port();
        let four = listen(&format!("127.0.0.1:{port}"), 2, 1).unwrap();
        assert_eq!(address(&four).port(), port);
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let error = listen("192.0.2.1:0", 1, 1).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("this machine has no such address"),
            "{error}"
        );
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_goes_in_the_end() {
        let folder = std::env::temp_dir().join(format!("shardmq-unix-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("mqtt.sock");
        let mut options = ListenOptions::tcp("test", "127.0.0.1:0".parse().unwrap());
        options.places = vec![Place::Unix(UnixPlace {
            path: path.clone(),
            mode: 0o600,
            owner: String::new(),
        })];
        let listen = || super::listen(&options, &options.places[0], 2, 8);
        let listener = listen().unwrap();
        assert_eq!(
            listener.listening.to_string(),
            format!("unix://{}", path.display())
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(UnixStream::connect(&path).unwrap());
        assert_eq!(
            listen().unwrap_err().error.raw_os_error(),
            Some(libc::EADDRINUSE)
        );
        // One that a broker has left behind is replaced.
        let Listener { sockets, file, .. } = listener;
        drop(sockets);
        let _left_behind = std::mem::ManuallyDrop::new(file);
        let again = listen().unwrap();
        drop(UnixStream::connect(&path).unwrap());
        drop(again);
        assert!(!path.exists());
        fs::remove_dir(&folder).unwrap();
    }
}
