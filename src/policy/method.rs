//! The ways to show who one is, by name.

use std::fmt;

use super::{Credentials, Decision, Grant};

/// A way to show who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A certificate that the transport verified.
    Certificate,
    /// A JSON Web Token for a password.
    Jwt,
    /// A user name and a password of the password file.
    Password,
    /// Somebody is asked by HTTP.
    Http,
}

/// A word that names no method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMethod(pub String);

impl Method {
    /// Their names, in the order in which they are asked unless told otherwise.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Certificate, "certificate"),
        (Self::Jwt, "jwt"),
        (Self::Password, "password"),
        (Self::Http, "http"),
    ];

    /// Reads names with commas or spaces between them.
    ///
    /// # Errors
    /// The first one that is unknown.
    pub fn list(text: &str) -> Result<Vec<Self>, UnknownMethod> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        words
            .map(|word| {
                let known = Self::ALL.iter().find(|(_, name)| *name == word);
                known
                    .map(|(method, _)| *method)
                    .ok_or_else(|| UnknownMethod(word.to_owned()))
            })
            .collect()
    }
}

impl fmt::Display for UnknownMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Method::ALL.iter().map(|(_, name)| *name).collect();
        write!(f, "`{}` is none of {}", self.0, names.join(", "))
    }
}

/// What a certificate says; it was verified before.
pub(super) fn by_certificate(credentials: &Credentials<'_>) -> Option<Decision> {
    credentials.certificate.map(allow_as)
}

/// It is this user.
pub(super) fn allow_as(username: &str) -> Decision {
    Decision::AllowAs(Box::new(Grant {
        username: Some(username.into()),
        ..Grant::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_named() {
        let error = Method::list("password, ldap").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ldap` is none of certificate, jwt, password, http"
        );
    }
}
