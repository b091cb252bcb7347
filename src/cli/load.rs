//! The configuration from where it lies: a file, the environment, the command line.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shardmq::config::{Anonymous, Config, ConfigError, Listener};

use shardmq::runtime::{BadUrl, HttpUrl};

use super::args::RunArgs;

/// Why there is no configuration.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The file cannot be read.
    File(PathBuf, io::Error),
    /// The file is not text.
    NotText(PathBuf),
    /// What it says is wrong.
    Wrong(Vec<ConfigError>),
    /// The address of the HTTP authenticator is none.
    BadUrl(String, BadUrl),
    /// History is to be kept, and nothing else.
    NoDirectory(String),
    /// Nobody could come in by this listener.
    Closed(Box<Listener>),
}

/// Reads a file.
pub(super) fn file(path: &Path) -> Result<String, LoadError> {
    let bytes = fs::read(path).map_err(|error| LoadError::File(path.to_owned(), error))?;
    String::from_utf8(bytes).map_err(|_| LoadError::NotText(path.to_owned()))
}

/// Reads what a file says, and nothing else.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, LoadError> {
    Config::parse(text, &path.display().to_string()).map_err(LoadError::Wrong)
}

/// Reads a file, if there is one, and the environment.
pub(super) fn config(path: Option<&Path>) -> Result<Config, LoadError> {
    let text = path.map(file).transpose()?;
    let name = path.map(|path| path.display().to_string());
    let variables = std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into(),
            value.to_string_lossy().into(),
        )
    });
    Config::load(text.as_deref().zip(name.as_deref()), variables).map_err(LoadError::Wrong)
}

/// Everything together: what the broker runs with.
pub(super) fn all(args: &RunArgs) -> Result<Config, LoadError> {
    let mut config = config(args.config.as_deref())?;
    if !args.listen.is_empty() {
        config.listeners = listeners(args);
    }
    if let Some(shards) = args.shards {
        config.shards = shards;
    }
    if let Some(driver) = args.driver {
        config.net.driver = driver;
    }
    if let Some(directory) = &args.data_dir {
        config.data_dir = Some(directory.clone());
    }
    if let Some(http) = args.http {
        config.http.bind = http.0;
    }
    if args.ephemeral {
        config.data_dir = None;
    }
    if args.allow_anonymous {
        for listener in &mut config.listeners {
            listener.allow_anonymous = Anonymous::True;
        }
    }
    open(config)
}

/// Refuses a configuration with a listener that lets nobody in: mosquitto starts with one and refuses
/// every client, and people look for the reason where it is not.
pub(super) fn open(config: Config) -> Result<Config, LoadError> {
    let url = &config.auth.http_url;
    if let (false, Err(error)) = (url.is_empty(), HttpUrl::parse(url)) {
        return Err(LoadError::BadUrl(url.clone(), error));
    }
    if let (None, Some(history)) = (&config.data_dir, config.history.first()) {
        return Err(LoadError::NoDirectory(history.name.clone()));
    }
    let closed = |listener: &&Listener| listener.is_closed(&config.auth);
    match config.listeners.iter().find(closed) {
        Some(listener) => Err(LoadError::Closed(Box::new(listener.clone()))),
        None => Ok(config),
    }
}

/// The addresses of the command line, instead of the configured ones: otherwise
/// `--listen 0.0.0.0:1883` would collide with the default.
fn listeners(args: &RunArgs) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for bind in &args.listen {
        // The same address twice is one listener; port 0 is a different one each time.
        if bind.port() != 0 && listeners.iter().any(|listener| listener.bind == [*bind]) {
            continue;
        }
        let name = match listeners.len() {
            0 => "command-line".to_owned(),
            others => format!("command-line-{}", others + 1),
        };
        listeners.push(Listener {
            name,
            bind: vec![*bind],
            ..Listener::default()
        });
    }
    listeners
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => {
                write!(
                    f,
                    "cannot read the configuration {}: {error}",
                    path.display()
                )?;
                match error.kind() {
                    io::ErrorKind::NotFound => {
                        f.write_str("; `shardmq print-config` writes one to start from")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; let the user that runs the broker read it")
                    }
                    _ => Ok(()),
                }
            }
            Self::NotText(path) => {
                write!(f, "the configuration {} is not UTF-8 text", path.display())
            }
            Self::BadUrl(url, error) => write!(f, "`auth.http_url`: `{url}` is {error}"),
            Self::NoDirectory(name) => write!(
                f,
                "the history stream `{name}` needs a data directory: set data_dir or --data-dir, and leave \
                 out --ephemeral; or leave out [[history]]"
            ),
            Self::Closed(listener) => write!(
                f,
                "nobody could come in by the listener `{}` on {}: others reach it, and there is no \
                 way to tell who they are. Set [auth] password_file (`shardmq passwd -c FILE NAME` \
                 makes one), or let everybody in with allow_anonymous = true in [[listener]] or \
                 --allow-anonymous, or listen on 127.0.0.1:{}",
                listener.name,
                listener
                    .bind
                    .first()
                    .map_or_else(String::new, ToString::to_string),
                listener.bind.first().map_or(1883, SocketAddr::port)
            ),
            Self::Wrong(errors) => {
                for error in errors {
                    writeln!(f, "{error}")?;
                }
                match errors.len() {
                    1 => f.write_str("1 error in the configuration"),
                    count => write!(f, "{count} errors in the configuration"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_goes_on_top() {
        let args = RunArgs {
            listen: vec![
                "127.0.0.1:1".parse().unwrap(),
                "127.0.0.1:1".parse().unwrap(),
            ],
            shards: Some(3),
            ephemeral: true,
            ..RunArgs::default()
        };
        let config = all(&args).unwrap();
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].bind[0].port(), 1);
        assert_eq!((config.shards, config.data_dir), (3, None));
        let args = RunArgs {
            data_dir: Some("x".into()),
            ..RunArgs::default()
        };
        assert_eq!(all(&args).unwrap().data_dir, Some("x".into()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
        let error = file(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read the configuration no/such.toml: "),
            "{error}"
        );
        assert!(error.contains("print-config"), "{error}");
        let denied = LoadError::File("a".into(), io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().contains("let the user"));
        assert!(LoadError::NotText("a".into()).to_string().contains("UTF-8"));
    }
}
