//! Why a data directory cannot be used.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::journal::Damage;

/// Why a data directory cannot be used: each with what to do about it.
#[derive(Debug)]
pub enum StoreError {
    /// The operating system refused something: what, of which file, and how.
    Io(&'static str, PathBuf, io::Error),
    /// Another process works on it.
    Locked(PathBuf),
    /// There is no data directory.
    Missing(PathBuf),
    /// `store.json` cannot be understood, or is missing where journals are.
    Manifest(PathBuf),
    /// A newer ShardMQ wrote it.
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// The version of its format.
        version: i64,
    },
    /// A journal is damaged.
    Damaged {
        /// The directory of the shard.
        directory: PathBuf,
        /// Where, and what is wrong.
        damage: Damage,
    },
    /// A journal does not take what another one held.
    Refused(PathBuf),
    /// Something is to be put into a data directory that holds something.
    NotEmpty(PathBuf),
    /// A backup would be within what it is a backup of.
    Within(PathBuf),
    /// The broker that works on the data directory is not to be talked to.
    Door(PathBuf, io::Error),
    /// It says why there is no backup.
    NoBackup(String),
    /// A backup does not end where it must.
    Short {
        /// The directory of the shard.
        directory: PathBuf,
        /// Its last frame.
        found: u64,
        /// The one that it must have.
        wanted: u64,
    },
    /// A copy is not what it was made from.
    Copy(PathBuf),
    /// What is to be imported cannot be read.
    Input(io::Error),
    /// A line of it is wrong.
    Line {
        /// Which one, from 1.
        number: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A `mosquitto.db` is not understood, from this byte on.
    Mosquitto(usize, &'static str),
    /// What is written for people or machines cannot be written.
    Output(io::Error),
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io(what, path.to_owned(), error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, path, error) => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
            Self::Locked(path) => write!(
                f,
                "the data directory {} is in use by another process\n  \
                 a broker runs on it: stop it, or choose another --data-dir, or --ephemeral for none",
                path.display()
            ),
            Self::Missing(path) => write!(
                f,
                "{} is no data directory: it has no store.json",
                path.display()
            ),
            Self::Manifest(path) => write!(
                f,
                "{} is missing or damaged, and journals are there\n  \
                 `shardmq store repair` finds out from them what it said; or restore a backup",
                path.display()
            ),
            Self::Newer { path, version } => write!(
                f,
                "{} has format version {version}, which is newer than this program\n  \
                 run the version of shardmq that wrote it, or a newer one",
                path.display()
            ),
            Self::Damaged { directory, damage } => write!(
                f,
                "the journal in {} is damaged: {damage}\n  \
                 nothing was changed. `shardmq store verify` lists what is wrong; restore a backup, or let \
                 `shardmq store repair` keep what can be read",
                directory.display()
            ),
            Self::Refused(path) => write!(
                f,
                "the journal in {} does not take what was there before",
                path.display()
            ),
            Self::NotEmpty(path) => write!(
                f,
                "{} holds something: name a directory that is empty, or not there",
                path.display()
            ),
            Self::Within(path) => write!(
                f,
                "{} is within the data directory: choose a place outside of it",
                path.display()
            ),
            Self::Door(path, error) => write!(
                f,
                "the broker that works on this data directory does not answer at {}: {error}\n  \
                 whoever asks must be its user or root, and it must be no older than this program",
                path.display()
            ),
            Self::NoBackup(why) => write!(f, "there is no backup: {why}"),
            Self::Short {
                directory,
                found,
                wanted,
            } => write!(
                f,
                "the copy in {} ends at frame {found} and must end at {wanted}: there is no backup",
                directory.display()
            ),
            Self::Copy(path) => write!(
                f,
                "{} is not what was copied: there is no backup",
                path.display()
            ),
            Self::Input(error) => write!(f, "cannot read what is to be imported: {error}"),
            Self::Line { number, what } => write!(f, "line {number}: {what}"),
            Self::Mosquitto(offset, what) => {
                write!(
                    f,
                    "this mosquitto.db is not understood at byte {offset}: {what}"
                )
            }
            Self::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, error)
            | Self::Door(_, error)
            | Self::Input(error)
            | Self::Output(error) => Some(error),
            _ => None,
        }
    }
}
