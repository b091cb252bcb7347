//! The configuration: one declaration per key, and everything else derived from it.
//!
//! [`schema`] declares each key once: its name, what it is for, its unit, its default, its bounds.
//! Parsing, the overrides from the environment, `print-config`, the sample file and every error
//! message come from that declaration, so none of them can disagree with another.
//!
//! Invariants:
//! - [`Config`] is plain data, and one that this module handed out is within all bounds. A value
//!   that is out of range is never adjusted silently; it is refused.
//! - All errors of a file and of the environment are found in one go, each with its place.
//! - A key that is accepted is used. What this version cannot do is an unknown key, with a word
//!   about it where people are likely to try it.
//!
//! No file is opened here and no environment read: the program hands over text and pairs.

mod error;
mod layers;
mod print;
mod schema;
mod settings;
mod suggest;
mod value;

pub use error::{ConfigError, Origin, Problem};
pub use schema::{
    Anonymous, Auth, CertificateName, ClientCertificate, Config, DeniedPublish, Driver, Durable,
    History, Http, Limits, Listener, ListenerType, Log, LogFormat, LogLevel, Mqtt, Net, TlsVersion,
};
pub(crate) use value::is_word;
pub use value::{Bounds, FileMode, Key, Kind, Unit};

/// The version of the file format that this program writes and the newest that it reads.
pub const FORMAT_VERSION: u64 = 1;

/// What every override from the environment starts with.
pub const ENVIRONMENT_PREFIX: &str = "SHARDMQ__";

/// Reads an address as a listener's `bind` is read, for the command line.
///
/// # Errors
/// If it is not an IP address and a port, with what was probably meant.
pub fn parse_address(text: &str) -> Result<std::net::SocketAddr, Problem> {
    value::Value::read(value::Raw::Bare(text), Kind::Address)
}

/// Reads an address or `off`, as `http.bind` is read, for the command line.
///
/// # Errors
/// If it is neither, with what was probably meant.
pub fn parse_address_or_off(text: &str) -> Result<Option<std::net::SocketAddr>, Problem> {
    value::Value::read(value::Raw::Bare(text), Kind::AddressOrOff)
}

impl Config {
    /// Reads a configuration file on top of the defaults. `source` names it in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(text: &str, source: &str) -> Result<Self, Vec<ConfigError>> {
        Self::load(Some((text, source)), [])
    }

    /// The defaults, with a file's values on top, with the environment's on top of those.
    ///
    /// `environment` may be all there is: only names that start with [`ENVIRONMENT_PREFIX`] are
    /// looked at, and of those every one must name a key.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn load<I>(file: Option<(&str, &str)>, environment: I) -> Result<Self, Vec<ConfigError>>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let mut layers = layers::Layers::new();
        if let Some((text, source)) = file {
            layers.file(text, source);
        }
        layers.environment(environment);
        layers.finish()
    }
}

#[cfg(test)]
mod tests;
