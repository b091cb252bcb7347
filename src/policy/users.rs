//! A password file: one user in a line, `name:hash`, as mosquitto writes them.
//!
//! Empty lines and lines that begin with `#` are kept as they are. The whole file is checked before any
//! of it counts.

use std::fmt;
use std::num::NonZeroU32;

use hashbrown::HashMap;

use super::is_user_name;
use super::password::{Hashed, PasswordError};

/// The users of a password file.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, Hashed, foldhash::fast::RandomState>,
    /// What an unknown user's password is checked against, so that it takes as long.
    decoy: Option<Hashed>,
    /// Iterations that the first user of SCRAM has.
    scram_iterations: Option<NonZeroU32>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersError {
    /// The line, counted from one.
    pub line: usize,
    /// What is wrong.
    pub problem: UsersProblem,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsersProblem {
    /// There is no `:` in it.
    NoColon,
    /// The name is empty, too long, or has a control character.
    BadName,
    /// The name was there before.
    Twice,
    /// The hash is none.
    Password(PasswordError),
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.problem {
            UsersProblem::NoColon => f.write_str("not of the form name:hash"),
            UsersProblem::BadName => f.write_str("a user name that no client can send"),
            UsersProblem::Twice => f.write_str("this user was there before"),
            UsersProblem::Password(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UsersError {}

impl Users {
    /// Reads a password file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate() {
            let Some(entry) = entry(line) else { continue };
            let wrong = |problem| UsersError {
                line: index + 1,
                problem,
            };
            let (name, hash) = entry.map_err(wrong)?;
            let hashed =
                Hashed::parse(hash).map_err(|error| wrong(UsersProblem::Password(error)))?;
            users.decoy.get_or_insert_with(|| hashed.clone());
            if let Hashed::Scram(verifier) = &hashed {
                users.scram_iterations.get_or_insert(verifier.iterations);
            }
            if users.by_name.insert(name.into(), hashed).is_some() {
                return Err(wrong(UsersProblem::Twice));
            }
        }
        Ok(users)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What is known of the password of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Hashed> {
        self.by_name.get(name)
    }

    /// Iterations that users of SCRAM have; `None` if there is none.
    #[must_use]
    pub fn scram_iterations(&self) -> Option<NonZeroU32> {
        self.scram_iterations
    }

    /// Whether `password` is that of `name`; `None` if nobody has that name, which takes as long.
    /// An empty password is nobody's.
    #[must_use]
    pub fn verify(&self, name: &str, password: &[u8]) -> Option<bool> {
        let Some(hashed) = self.by_name.get(name) else {
            if let Some(decoy) = &self.decoy {
                let _ = std::hint::black_box(decoy.verify(password));
            }
            return None;
        };
        Some(hashed.verify(password) && !password.is_empty())
    }
}

/// The name and the rest of a line; `None` for one that says nothing.
///
/// # Errors
/// What is wrong with it.
pub fn entry(line: &str) -> Option<Result<(&str, &str), UsersProblem>> {
    let line = line.trim_end_matches('\r');
    if line.trim().is_empty() || line.starts_with('#') {
        return None;
    }
    // The first colon ends the name, as mosquitto has it: no name can hold one.
    let Some((name, rest)) = line.split_once(':') else {
        return Some(Err(UsersProblem::NoColon));
    };
    if !is_user_name(name) {
        return Some(Err(UsersProblem::BadName));
    }
    Some(Ok((name, rest.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::super::password::Scheme;
    use super::*;

    fn line(name: &str) -> String {
        let hash = Scheme::Sha512
            .hash(name.as_bytes(), b"saltsaltsalt")
            .unwrap();
        format!("{name}:{hash}\n")
    }

    #[test]
    fn users_are_found_by_their_passwords() {
        let text = format!("# people\n\n{}{}\r\n", line("anna"), line("béla"));
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users.verify("anna", b"anna"), Some(true));
        assert_eq!(users.verify("béla", "béla".as_bytes()), Some(true));
        assert_eq!(users.verify("anna", "béla".as_bytes()), Some(false));
        assert_eq!(users.verify("Anna", b"anna"), None);
    }

    #[test]
    fn an_empty_password_is_nobodys() {
        let hash = Scheme::Sha512.hash(b"", b"saltsaltsalt").unwrap();
        let users = Users::parse(&format!("anna:{hash}")).unwrap();
        assert_eq!(users.verify("anna", b""), Some(false));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let wrong = |text: &str| {
            let error = Users::parse(text).unwrap_err();
            (error.line, error.problem)
        };
        assert_eq!(wrong("anna"), (1, UsersProblem::NoColon));
        assert_eq!(wrong("#\n:$6$"), (2, UsersProblem::BadName));
        assert_eq!(wrong("an\u{7}na:x"), (1, UsersProblem::BadName));
        let clear = UsersProblem::Password(PasswordError::UnknownScheme);
        assert_eq!(wrong("anna:secret"), (1, clear));
        assert_eq!(wrong(&line("a").repeat(2)), (2, UsersProblem::Twice));
    }
}
