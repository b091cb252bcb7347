//! Reads the files that say who may come in and what he may do, and checks them as a whole.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::policy::{Acl, Chain, GuardOptions, Scram, Tokens, Users};

use super::AuthOptions;

/// Bits of a file's mode that let somebody else read it.
const READABLE_BY_OTHERS: u32 = 0o004;

/// A file that is not as it should be.
#[derive(Debug)]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Unreadable(io::Error),
    NotText,
    Wrong(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            path,
            problem,
        } = self;
        let path = path.display();
        match problem {
            Problem::Unreadable(error) => {
                write!(f, "cannot read the {what} {path}: {error}")?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; let the user that runs the broker read it")
                    }
                    io::ErrorKind::NotFound if *what == PASSWORD_FILE => {
                        write!(f, "; `shardmq passwd -c {path} NAME` makes one")
                    }
                    _ => Ok(()),
                }
            }
            Problem::NotText => write!(f, "the {what} {path} is not UTF-8 text"),
            Problem::Wrong(text) => write!(f, "{path}: {text}"),
        }
    }
}

impl std::error::Error for FileError {}

const PASSWORD_FILE: &str = "password file";
const JWKS_FILE: &str = "key set";
const ACL_FILE: &str = "ACL file";

/// Where the files are.
#[derive(Debug)]
pub(super) struct Files {
    options: AuthOptions,
}

/// What they say.
pub(super) struct Loaded {
    pub(super) chain: Arc<Chain>,
    pub(super) guard: Arc<GuardOptions>,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.chain.users.len())?;
        write!(f, ", {} keys", self.chain.tokens.len())?;
        match &self.guard.acl {
            Some(acl) => write!(f, ", {} rules", acl.len()),
            None => f.write_str(", no rules"),
        }
    }
}

impl Files {
    pub(super) fn new(options: AuthOptions) -> Self {
        Self { options }
    }

    /// Reads them all.
    pub(super) fn load(&self) -> Result<Loaded, FileError> {
        let options = &self.options;
        let users = match &options.password_file {
            Some(path) => {
                warn_if_others_read(path);
                parse(PASSWORD_FILE, path, Users::parse)?
            }
            None => Users::default(),
        };
        let tokens = match &options.jwks_file {
            Some(path) => parse(JWKS_FILE, path, |text| {
                Tokens::parse(text, options.tokens.clone())
            })?,
            None => Tokens::default(),
        };
        let acl = match &options.acl_file {
            Some(path) => Some(Arc::new(parse(ACL_FILE, path, Acl::parse)?)),
            None => None,
        };
        let users = Arc::new(users);
        let mut secret = [0; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| FileError {
                what: "random numbers",
                path: PathBuf::from("/dev/urandom"),
                problem: Problem::Unreadable(io::ErrorKind::Other.into()),
            })?;
        let chain = Chain {
            methods: options.methods.clone(),
            users: Arc::clone(&users),
            tokens: Arc::new(tokens),
        };
        let guard = GuardOptions {
            entrances: options.entrances.clone(),
            methods: options.methods.clone(),
            acl,
            disconnects_denied: options.disconnects_denied,
            scram: Some(Scram { users, secret }),
        };
        Ok(Loaded {
            chain: Arc::new(chain),
            guard: Arc::new(guard),
        })
    }
}

fn parse<T, E: fmt::Display>(
    what: &'static str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, FileError> {
    let failed = |problem| FileError {
        what,
        path: path.to_owned(),
        problem,
    };
    let bytes = fs::read(path).map_err(|error| failed(Problem::Unreadable(error)))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(Problem::NotText))?;
    parse(&text).map_err(|error| failed(Problem::Wrong(error.to_string())))
}

fn warn_if_others_read(path: &Path) {
    if let Ok(metadata) = fs::metadata(path)
        && metadata.mode() & READABLE_BY_OTHERS != 0
    {
        tracing::warn!(
            path = %path.display(),
            "everybody on this machine may read the password file; chmod 640 keeps the hashes secret"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        let folder = std::env::temp_dir().join(format!("shardmq-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("users");
        let load = |options: AuthOptions| Files::new(options).load();
        let options = AuthOptions {
            password_file: Some(path.clone()),
            ..AuthOptions::default()
        };
        let missing = load(options.clone()).err().unwrap().to_string();
        assert!(missing.contains("shardmq passwd -c"), "{missing}");
        fs::write(&path, "anna:secret\n").unwrap();
        let wrong = load(options.clone()).err().unwrap().to_string();
        assert!(wrong.contains("users: line 1: "), "{wrong}");
        fs::write(&path, [0xFF]).unwrap();
        let binary = load(options.clone()).err().unwrap().to_string();
        assert!(binary.contains("not UTF-8"), "{binary}");
        fs::write(&path, "# nobody yet\n").unwrap();
        assert!(load(options.clone()).unwrap().chain.users.is_empty());
        let both = AuthOptions {
            acl_file: Some(path),
            ..options
        };
        assert!(load(both).unwrap().guard.acl.is_some());
        fs::remove_dir_all(folder).unwrap();
    }
}
