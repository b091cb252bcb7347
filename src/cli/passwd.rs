//! `shardmq passwd`: writes password files, with the letters of mosquitto_passwd.
//!
//! The new file is made beside the old one, with its mode and owner, and put into its place in one step:
//! a broker that reads it meanwhile sees the one or the other.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use clap::{Args, ValueEnum};
use shardmq::policy::{self, Hashed, PasswordError, Scheme, UsersProblem};

use super::fail;

/// Iterations of PBKDF2, also for SCRAM, unless told otherwise: what OWASP recommends for SHA-512.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(210_000).unwrap();

/// Iterations for SCRAM, where a client on a small processor does the work at every login.
const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(15_000).unwrap();

#[derive(Args, Debug)]
pub(super) struct PasswdArgs {
    /// Take the password from the command line, where other users of this machine may see it
    #[arg(short = 'b', conflicts_with_all = ["delete", "update"])]
    batch: bool,
    /// Make a new file, in the place of one that is there
    #[arg(short = 'c', conflicts_with_all = ["delete", "update"])]
    create: bool,
    /// Delete the user
    #[arg(short = 'D', conflicts_with = "update")]
    delete: bool,
    /// How the password is kept
    #[arg(short = 'H', value_name = "HASH", default_value = "argon2id")]
    hash: Hash,
    /// Iterations for sha512-pbkdf2 and scram-sha-256
    #[arg(short = 'I', value_name = "N")]
    iterations: Option<NonZeroU32>,
    /// Hash every password of the file that stands there in the clear
    #[arg(short = 'U')]
    update: bool,
    /// The password file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user
    #[arg(value_name = "NAME", required_unless_present = "update")]
    name: Option<String>,
    /// The password, with -b; otherwise it is asked for, or read from standard input
    #[arg(value_name = "PASSWORD", requires = "batch")]
    password: Option<String>,
}

/// How a password is kept.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hash {
    /// Argon2id with 19 MiB; read by mosquitto from 2.1 on
    Argon2id,
    /// PBKDF2 with HMAC-SHA-512; read by every mosquitto from 2.0 on
    Sha512Pbkdf2,
    /// SHA-512 with a salt, which is quick to guess; for mosquitto before 2.0
    Sha512,
    #[value(name = "scram-sha-256")]
    /// Keys for SCRAM-SHA-256, which also take a plain password; read by ShardMQ alone
    ScramSha256,
}

/// Why the file is as it was.
#[derive(Debug)]
enum Failure {
    File(PathBuf, io::Error),
    NotText(PathBuf),
    Line(usize, UsersProblem),
    BadName(String),
    NoSuchUser(String),
    Input(io::Error),
    NoPassword,
    Different,
    Hashing(PasswordError),
    NoEntropy,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => {
                write!(f, "{}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => f.write_str("; -c makes a new file"),
                    _ => Ok(()),
                }
            }
            Self::NotText(path) => write!(f, "{} is not UTF-8 text", path.display()),
            Self::Line(line, UsersProblem::BadName) => {
                write!(f, "line {line}: a user name that no client can send")
            }
            Self::Line(line, _) => write!(f, "line {line}: not of the form name:password"),
            Self::BadName(name) => write!(
                f,
                "`{}` cannot be a user name: it must not be empty, begin with # or hold a colon or a \
                 control character",
                name.escape_debug()
            ),
            Self::NoSuchUser(name) => write!(f, "there is no user `{name}`"),
            Self::Input(error) => write!(f, "cannot read a password: {error}"),
            Self::NoPassword => f.write_str("an empty password lets nobody in"),
            Self::Different => f.write_str("the two passwords differ"),
            Self::Hashing(error) => write!(f, "cannot hash the password: {error}"),
            Self::NoEntropy => f.write_str("the operating system gives no random numbers"),
        }
    }
}

/// Does what the letters say.
pub(super) fn run(args: &PasswdArgs) -> ExitCode {
    match edit(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(format_args!("Error: {failure}")),
    }
}

fn edit(args: &PasswdArgs) -> Result<(), Failure> {
    let before = match args.create {
        true => String::new(),
        false => read(&args.file)?,
    };
    let after = if args.update {
        updated(&before, |password| args.hashed(password))?
    } else {
        let name = args.name.as_deref().unwrap_or_default();
        if !policy::is_user_name(name) {
            return Err(Failure::BadName(name.to_owned()));
        }
        if args.delete {
            without(&before, name)?
        } else {
            let hashed = args.hashed(&args.password()?)?;
            with(&before, name, &hashed)?
        }
    };
    write(&args.file, &after).map_err(|error| Failure::File(args.file.clone(), error))
}

impl PasswdArgs {
    fn password(&self) -> Result<String, Failure> {
        let password = match &self.password {
            Some(password) => password.clone(),
            None if self.batch || !io::stdin().is_terminal() => {
                let mut line = String::new();
                io::stdin().read_line(&mut line).map_err(Failure::Input)?;
                line.trim_end_matches(['\n', '\r']).to_owned()
            }
            None => {
                let ask = |prompt| rpassword::prompt_password(prompt).map_err(Failure::Input);
                let password = ask("Password: ")?;
                if ask("Reenter password: ")? != password {
                    return Err(Failure::Different);
                }
                password
            }
        };
        if password.is_empty() {
            return Err(Failure::NoPassword);
        }
        Ok(password)
    }

    fn hashed(&self, password: &str) -> Result<Hashed, Failure> {
        let scheme = match self.hash {
            Hash::Argon2id => Scheme::Argon2id,
            Hash::Sha512Pbkdf2 => Scheme::Pbkdf2(self.iterations.unwrap_or(ITERATIONS)),
            Hash::Sha512 => Scheme::Sha512,
            Hash::ScramSha256 => Scheme::Scram(self.iterations.unwrap_or(SCRAM_ITERATIONS)),
        };
        let mut salt = vec![0; scheme.salt_len()];
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_| Failure::NoEntropy)?;
        scheme
            .hash(password.as_bytes(), &salt)
            .map_err(Failure::Hashing)
    }
}

/// The name of a line and what stands behind it, if it has one.
type Entry<'a> = Option<(&'a str, &'a str)>;

/// The names of the lines, those that have one; what is wrong with a line is told.
fn names(text: &str) -> impl Iterator<Item = Result<(&str, Entry<'_>), Failure>> {
    text.lines().enumerate().map(|(index, line)| {
        let entry = policy::entry(line).transpose();
        let entry = entry.map_err(|problem| Failure::Line(index + 1, problem))?;
        Ok((line, entry))
    })
}

/// The file with this user, in his old place if he had one.
fn with(text: &str, name: &str, hashed: &Hashed) -> Result<String, Failure> {
    let mut out = String::new();
    let mut found = false;
    for line in names(text) {
        let (line, entry) = line?;
        if entry.is_some_and(|(known, _)| known == name) {
            if !found {
                out.push_str(&format!("{name}:{hashed}\n"));
            }
            found = true;
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    if !found {
        out.push_str(&format!("{name}:{hashed}\n"));
    }
    Ok(out)
}

/// The file without this user.
fn without(text: &str, name: &str) -> Result<String, Failure> {
    let mut out = String::new();
    let mut found = false;
    for line in names(text) {
        let (line, entry) = line?;
        if entry.is_some_and(|(known, _)| known == name) {
            found = true;
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    if found {
        Ok(out)
    } else {
        Err(Failure::NoSuchUser(name.to_owned()))
    }
}

/// The file with every password hashed that is not.
fn updated(text: &str, hash: impl Fn(&str) -> Result<Hashed, Failure>) -> Result<String, Failure> {
    let mut out = String::new();
    for line in names(text) {
        match line? {
            (_, Some((name, password))) if Hashed::parse(password).is_err() => {
                out.push_str(&format!("{name}:{}\n", hash(password)?));
            }
            (line, _) => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::File(path.to_owned(), error))?;
    String::from_utf8(bytes).map_err(|_| Failure::NotText(path.to_owned()))
}

/// Puts a new file into the place of the old one; nobody else may read a file that was not there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let result = write_beside(&path, &beside, text).and_then(|()| fs::rename(&beside, &path));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

fn write_beside(path: &Path, beside: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            chown(beside, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(password: &str) -> Hashed {
        let scheme = Scheme::Sha512;
        scheme.hash(password.as_bytes(), b"saltsaltsalt").unwrap()
    }

    #[test]
    fn a_user_is_added_changed_and_deleted_and_the_rest_stays() {
        let text = "# people\n\nanna:$6$old\nbob:$6$his";
        let changed = with(text, "anna", &hashed("new")).unwrap();
        let expected = format!("# people\n\nanna:{}\nbob:$6$his\n", hashed("new"));
        assert_eq!(changed, expected);
        let added = with(&changed, "carl", &hashed("x")).unwrap();
        assert!(added.starts_with(&changed) && added.contains("\ncarl:$6$"));
        let gone = without(&changed, "anna").unwrap();
        assert_eq!(gone, "# people\n\nbob:$6$his\n");
        assert!(matches!(
            without(&gone, "anna"),
            Err(Failure::NoSuchUser(_))
        ));
    }

    #[test]
    fn passwords_in_the_clear_are_hashed_and_others_left() {
        let kept = format!("anna:{}\n", hashed("a"));
        let text = format!("{kept}bob:his pass:word\n#c\n");
        let after = updated(&text, |password| Ok(hashed(password))).unwrap();
        assert_eq!(
            after,
            format!("{kept}bob:{}\n#c\n", hashed("his pass:word"))
        );
        assert!(matches!(
            updated("anna\n", |password| Ok(hashed(password))),
            Err(Failure::Line(1, UsersProblem::NoColon))
        ));
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_new_one_is_private() {
        let folder = std::env::temp_dir().join(format!("shardmq-passwd-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("users");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        write(&path, "a").unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "b").unwrap();
        assert_eq!((mode(), read(&path).unwrap().as_str()), (0o640, "b"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
