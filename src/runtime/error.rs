//! Why the broker does not start, or stops: each with its cause and what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::auth::FileError;
use super::listener::Place;
use super::store::StoreError;
use super::tls::TlsError;

/// Why [`super::run`] ended without having been asked to.
#[derive(Debug)]
pub enum BootError {
    /// io_uring cannot be used.
    Uring(UringError),
    /// An address cannot be listened on.
    Listen(ListenError),
    /// The certificates of the listener of this name are of no use.
    Tls(String, TlsError),
    /// The address of the HTTP listener cannot be listened on.
    Http(HttpError),
    /// A file that says who may come in, or what he may do, is not as it should be.
    Auth(FileError),
    /// Nobody can be asked by https, for this reason.
    AuthHttps(String),
    /// More shards are asked for than there can be.
    TooManyShards {
        /// As configured.
        asked: usize,
        /// What is possible.
        most: usize,
    },
    /// The operating system does not tell which CPUs we may use.
    Cpus(io::Error),
    /// The open files limit leaves no room for a single connection.
    OpenFiles {
        /// The limit.
        limit: u64,
        /// What is needed for one.
        needed: u64,
    },
    /// Something else that the operating system refused: what, and how.
    System(&'static str, io::Error),
    /// The data directory cannot be used.
    Store(StoreError),
    /// The executor of a shard did not start or did not end well.
    Executor {
        /// Which one.
        shard: usize,
        /// What it said.
        text: String,
    },
    /// A shard failed on a bug of ours; the panic message was printed where it happened.
    Panicked {
        /// Which one.
        shard: usize,
    },
    /// A second signal came while the broker was stopping.
    Interrupted,
}

/// What is wrong with io_uring here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UringError {
    /// A security policy, usually the seccomp profile of a container, refuses the system call.
    Forbidden,
    /// `kernel.io_uring_disabled` has this value.
    Disabled(u8),
    /// The kernel has no io_uring: built without it, or hidden by a security policy.
    Missing {
        /// Its release.
        kernel: String,
    },
    /// The kernel is too old.
    TooOld {
        /// Its release.
        kernel: String,
        /// What it lacks.
        lacks: &'static str,
    },
    /// `RLIMIT_MEMLOCK` does not suffice for the rings.
    LockedMemory {
        /// The limit, in bytes.
        limit: u64,
        /// What is needed, in bytes.
        needed: u64,
        /// For how many shards.
        shards: usize,
    },
    /// Too few file descriptors.
    OpenFiles,
    /// Anything else: what was tried, and the error number.
    Other(&'static str, i32),
}

impl UringError {
    /// Whether io_uring is not to be had here, whatever limits are raised.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Forbidden | Self::Disabled(_) | Self::Missing { .. } | Self::TooOld { .. } => {
                true
            }
            Self::LockedMemory { .. } | Self::OpenFiles | Self::Other(..) => false,
        }
    }

    /// The cause alone, for a line that says what is done instead.
    pub(super) fn in_short(&self) -> String {
        match self {
            Self::Forbidden => {
                String::from("io_uring is forbidden here by a security policy (seccomp)")
            }
            Self::Disabled(value) => format!("kernel.io_uring_disabled is {value}"),
            Self::Missing { kernel } => {
                format!("this kernel ({kernel}) has no io_uring, or a security policy hides it")
            }
            Self::TooOld { kernel, lacks } => {
                format!("io_uring of this kernel ({kernel}) lacks {lacks}")
            }
            Self::LockedMemory { .. } => String::from("RLIMIT_MEMLOCK is too small for io_uring"),
            Self::OpenFiles => String::from("too few file descriptors for io_uring"),
            Self::Other(what, _) => format!("io_uring: {what} failed"),
        }
    }
}

/// What is wrong with the HTTP listener.
#[derive(Debug)]
pub struct HttpError {
    /// Its address.
    pub address: SocketAddr,
    /// What the operating system said.
    pub error: io::Error,
}

/// What is wrong with a listener.
#[derive(Debug)]
pub struct ListenError {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    pub place: Place,
    /// What the operating system said.
    pub error: io::Error,
}

impl fmt::Display for BootError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uring(error) => write!(
                formatter,
                "{error} Or do without io_uring: `driver = \"epoll\"` in [net], or --driver epoll."
            ),
            Self::Listen(error) => error.fmt(formatter),
            Self::Tls(name, error) => write!(formatter, "listener `{name}`: {error}"),
            Self::Http(error) => error.fmt(formatter),
            Self::Auth(error) => error.fmt(formatter),
            Self::AuthHttps(text) => write!(formatter, "`auth.http_url`: {text}"),
            Self::TooManyShards { asked, most } => write!(
                formatter,
                "{asked} shards are configured, but at most {most} can run here: each needs a CPU of its \
                 own that this process may use. Lower `shards`, or set it to 0 for one per CPU."
            ),
            Self::Cpus(error) => write!(
                formatter,
                "cannot tell which CPUs this process may use: {error}. Check the cpuset of its cgroup."
            ),
            Self::OpenFiles { limit, needed } => write!(
                formatter,
                "the open files limit is {limit}, which leaves no room for a connection; {needed} are \
                 needed for one. Fix: ulimit -n 65536 before the start (systemd: LimitNOFILE=)."
            ),
            Self::Store(error) => error.fmt(formatter),
            Self::System(what, error) => write!(formatter, "cannot {what}: {error}"),
            Self::Executor { shard, text } => write!(formatter, "shard {shard} failed: {text}"),
            Self::Panicked { shard } => write!(
                formatter,
                "shard {shard} failed on a bug of the broker; the message above says where. The process \
                 stops, because a shard's clients cannot be served without it. Please report it."
            ),
            Self::Interrupted => {
                formatter.write_str("stopped at once by a second signal; clients were not told")
            }
        }
    }
}

impl fmt::Display for UringError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden => formatter.write_str(
                "io_uring is blocked: the kernel allows it (kernel.io_uring_disabled is 0), so a security \
                 policy refuses the system call, most likely the seccomp profile of a container. Fix: run \
                 the container with a profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register (podman/docker: --security-opt seccomp=PROFILE.json; systemd: add \
                 @io-event io_uring_setup io_uring_enter io_uring_register to SystemCallFilter=).",
            ),
            Self::Disabled(1) => formatter.write_str(
                "io_uring is blocked: kernel.io_uring_disabled is 1, which leaves it to root and to the \
                 group in kernel.io_uring_group. Fix: sysctl -w kernel.io_uring_disabled=0, or put this \
                 user's group id into kernel.io_uring_group.",
            ),
            Self::Disabled(value) => write!(
                formatter,
                "io_uring is blocked: kernel.io_uring_disabled is {value}. Fix: sysctl -w \
                 kernel.io_uring_disabled=0, and a line in /etc/sysctl.d/ to keep it."
            ),
            Self::Missing { kernel } => write!(
                formatter,
                "this kernel ({kernel}) has no io_uring: it is older than 5.1, was built without \
                 CONFIG_IO_URING, or a security policy (gVisor, a seccomp profile that answers ENOSYS) \
                 hides it. Fix: run on Linux 6.0 or newer with io_uring allowed."
            ),
            Self::TooOld { kernel, lacks } => write!(
                formatter,
                "this kernel ({kernel}) is too old: it lacks {lacks}. Fix: run on Linux 6.0 or newer; 6.12 \
                 or newer saves CPU under load."
            ),
            Self::LockedMemory { limit, needed, shards } => write!(
                formatter,
                "RLIMIT_MEMLOCK is {limit} bytes, and {shards} shard(s) need {needed}. Fix: ulimit -l {} \
                 before the start (systemd: LimitMEMLOCK={}M; docker: --ulimit memlock={needed}), or fewer \
                 shards.",
                needed.div_ceil(1024),
                needed.div_ceil(1024 * 1024),
            ),
            Self::OpenFiles => formatter.write_str(
                "too few file descriptors for the rings. Fix: ulimit -n 1024 or more before the start \
                 (systemd: LimitNOFILE=).",
            ),
            Self::Other(what, errno) => {
                write!(formatter, "io_uring: {what}: {}.", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, place, error } = self;
        write!(formatter, "listener `{name}`: cannot listen on {place}: ")?;
        match place {
            Place::Tcp(address) => explain(formatter, *address, error),
            Place::Unix(_) => match error.raw_os_error() {
                Some(libc::EADDRINUSE) => formatter.write_str(
                    "there is a file of that name, or another broker listens on it. Fix: stop the \
                     other program, or remove the file if it is no socket.",
                ),
                Some(libc::ENOENT) => formatter.write_str(
                    "there is no such directory, or no such user or group. Fix: make the directory, \
                     or see socket_owner.",
                ),
                _ => write!(formatter, "{error}"),
            },
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        write!(formatter, "HTTP: cannot listen on {address}: ")?;
        explain(formatter, address, &self.error)?;
        formatter.write_str(" The address is http.bind or --http; `--http off` does without.")
    }
}

/// Why an address cannot be listened on, and what to do about it.
fn explain(
    formatter: &mut fmt::Formatter<'_>,
    address: SocketAddr,
    error: &io::Error,
) -> fmt::Result {
    let port = address.port();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => write!(
            formatter,
            "another socket listens there already. Fix: stop the other program (`ss -ltnp 'sport = \
                 :{port}'` names it), or choose another port."
        ),
        Some(libc::EACCES) => write!(
            formatter,
            "a port below 1024 needs a privilege. Fix: setcap cap_net_bind_service=+ep on the program \
                 (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or choose a port from 1024 up."
        ),
        Some(libc::EADDRNOTAVAIL) => write!(
            formatter,
            "this machine has no such address. Fix: use one that `ip address` shows, or {} for all.",
            if address.is_ipv4() { "0.0.0.0" } else { "[::]" }
        ),
        Some(libc::EAFNOSUPPORT) => formatter
            .write_str("this machine has no IPv6. Fix: use an IPv4 address, 0.0.0.0 for all."),
        _ => write!(formatter, "{error}"),
    }
}

impl std::error::Error for BootError {}

impl From<UringError> for BootError {
    fn from(error: UringError) -> Self {
        Self::Uring(error)
    }
}

impl From<ListenError> for BootError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}
