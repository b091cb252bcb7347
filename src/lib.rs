//! ShardMQ, an MQTT 3.1.1 and 5.0 broker: one core, one shard, no locks.
//!
//! The modules, lowest first; each names only modules above it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`limits`] | every bound, with unit, reason and compile-time relations |
//! | [`time`] | a point on the monotonic clock, as the core is given it |
//! | `chunks` | a table of slots that grows without moving them |
//! | [`topic`] | topic names, topic filters and `$share`, checked once into a type |
//! | [`wire`] | bytes to borrowed packets and back, versions 3.1, 3.1.1 and 5.0 |
//! | [`link`] | what lies between the bytes of a socket and those of MQTT: TLS, WebSocket, PROXY |
//! | [`policy`] | who may come in and who may do what |
//! | [`message`] | an application message, borrowed while it passes and owned once it stays |
//! | [`route`] | subscriptions, interest of other shards, shared groups, retained messages |
//! | [`session`] | what is remembered of one client, and of one connection |
//! | [`journal`] | what must outlive the process: records, the log, recovery |
//! | [`history`] | what was published on chosen topics, for a while: buckets of blocks, readers |
//! | [`stats`] | the counters of one shard |
//! | [`shard`] | the whole broker of one core, and what it leaves to be done |
//! | [`config`] | every key once: name, documentation, unit, default, bounds |
//! | [`runtime`] | everything that touches the operating system |

mod chunks;
pub mod config;
pub mod history;
pub mod journal;
pub mod limits;
pub mod link;
pub mod message;
pub mod policy;
pub mod route;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod session;
pub mod shard;
pub mod stats;
pub mod time;
pub mod topic;
pub mod wire;
