//! Why a run could not be made.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why a run could not be made, with what to do about it.
#[derive(Debug)]
pub enum Error {
    /// The broker's name has no address.
    Name(String, io::Error),
    /// Nobody could connect; the text says why.
    Unreachable(SocketAddr, String),
    /// io_uring does not work here.
    Driver(String),
    /// A thread could not be set up.
    Thread(io::Error),
    /// A CPU cannot be used.
    Cpu(usize, io::Error),
    /// The plan asks for what cannot be.
    Plan(String),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, error) => write!(formatter, "no address for {name:?}: {error}"),
            Self::Unreachable(broker, text) => write!(
                formatter,
                "no connection to {broker}: {text}\n\
                 Is a broker running there? `shardmq run --listen {broker}` starts one; \
                 -h and -p name another."
            ),
            Self::Driver(text) => write!(formatter, "{text}"),
            Self::Thread(error) => write!(
                formatter,
                "a thread of the generator cannot be set up: {error}"
            ),
            Self::Cpu(cpu, error) => write!(formatter, "CPU {cpu} cannot be used: {error}"),
            Self::Plan(text) => write!(formatter, "{text}"),
        }
    }
}

impl std::error::Error for Error {}
