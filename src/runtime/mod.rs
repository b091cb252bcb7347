//! Everything that touches the operating system: threads, sockets, io_uring, signals, the clock.
//!
//! Each shard is one thread on a CPU of its own that owns everything of that shard: an executor of
//! glommio with one task, or, where io_uring is not to be had, a plain thread with epoll. Shards share the mesh of channels, a counter of connections and a stop flag; nothing
//! else, and none of it per message except one channel hop for each batch.
//!
//! | module | owns |
//! | --- | --- |
//! | `sys` | system calls that no crate wraps |
//! | `clock` | the clock |
//! | `net` | what goes to the kernel and comes back: requests, completions, buffers, waiting, probing |
//! | `listener`, `entrance` | listening sockets, and what their connections begin with |
//! | `tls` | certificates, and their exchange while the broker runs |
//! | `mesh` | channels between shards, wakes |
//! | `connections`, `sockets` | the life of a connection |
//! | `gate` | how fast connections come in |
//! | `acceptor` | taking connections in |
//! | `threads` | what a shard runs on |
//! | `idle` | waiting when there is nothing to do |
//! | `log` | events of the core, at a bounded rate |
//! | `meters` | what the runtime of a shard counts about itself |
//! | `store` | the data directory: its lock, its files, the thread that writes them |
//! | `barrier` | one moment for the journals of all shards |
//! | `stores` | what a shard's loop does for its disks: `keeper` for the journal, `historian` for history |
//! | `driver` | the loop of a shard |
//! | `auth` | slow authenticators: files, threads, answers |
//! | `admin` | questions to the shards from other threads |
//! | `http` | metrics and status, on a thread of their own |
//! | `admission` | listeners and authenticators, made of the configuration |
//! | `control` | a socket in the data directory, where the broker is asked for a backup |
//! | `signals`, `boot` | start and stop |
#![expect(
    clippy::disallowed_methods,
    reason = "the runtime is where clocks are read and threads start"
)]

mod acceptor;
mod admin;
mod admission;
mod auth;
mod barrier;
mod boot;
mod clock;
mod connections;
mod control;
mod driver;
mod entrance;
mod error;
mod gate;
mod historian;
mod http;
mod idle;
mod keeper;
mod listener;
mod log;
mod mesh;
mod meters;
pub mod net;
mod signals;
mod sockets;
pub mod store;
mod stores;
mod sys;
mod threads;
mod tls;

pub use auth::{AuthOptions, BadUrl, FileError, HttpAsker, HttpUrl};
pub use boot::{RuntimeOptions, Started, StopHandle, StoreOptions, run};
pub use error::{BootError, HttpError, ListenError, UringError};
pub use http::{HttpAddress, families, is_of_process};
pub use listener::{ListenOptions, Listening, Place, UnixPlace};
pub use sys::refuse_huge_pages;
pub use tls::{ClientTls, TlsError, TlsOptions, Trust, check_tls};
