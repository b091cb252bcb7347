//! The authenticators in their order, for whoever has time: nothing here is called on a shard.
//!
//! Each is asked until one answers: it lets the client in, refuses it, or says that this client is not
//! its business (an unknown user name, a password that is no token). Who is nobody's business is refused.

use std::sync::Arc;

use super::jwt::Tokens;
use super::method::{Method, allow_as, by_certificate};
use super::users::Users;
use super::{Credentials, Decision};
use crate::wire::ReasonCode;

/// What comes of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The answer.
    Decided(Decision),
    /// Somebody has to be asked by HTTP; if it is not his business, the chain goes on from this place.
    Http {
        /// The place behind him.
        then: usize,
    },
}

/// The authenticators that there are.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Which, in their order; those that lack what they need are left out.
    pub methods: Vec<Method>,
    /// What [`Method::Password`] knows.
    pub users: Arc<Users>,
    /// What [`Method::Jwt`] knows.
    pub tokens: Arc<Tokens>,
}

impl Chain {
    /// Whether nobody can show who he is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    /// Asks from place `from` on. It is `now`, in seconds of Unix. Takes its time.
    #[must_use]
    pub fn ask(&self, credentials: &Credentials<'_>, from: usize, now: u64) -> Next {
        for (place, method) in self.methods.iter().enumerate().skip(from) {
            let decision = match method {
                Method::Certificate => by_certificate(credentials),
                Method::Jwt => self.tokens.ask(credentials, now),
                Method::Password => self.by_password(credentials),
                Method::Http => return Next::Http { then: place + 1 },
            };
            if let Some(decision) = decision {
                return Next::Decided(decision);
            }
        }
        Next::Decided(Decision::Deny(ReasonCode::BadUserNameOrPassword))
    }

    fn by_password(&self, credentials: &Credentials<'_>) -> Option<Decision> {
        let (username, password) = (credentials.username?, credentials.password?);
        Some(if self.users.verify(username, password)? {
            allow_as(username)
        } else {
            Decision::Deny(ReasonCode::BadUserNameOrPassword)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::password::Scheme;
    use super::*;

    fn credentials<'a>(user: Option<&'a str>, password: Option<&'a str>) -> Credentials<'a> {
        Credentials {
            client_id: "c",
            username: user,
            password: password.map(str::as_bytes),
            certificate: None,
            listener: 0,
            address: ([127, 0, 0, 1], 1).into(),
        }
    }

    fn chain(methods: &str) -> Chain {
        let hash = Scheme::Sha512.hash(b"secret", b"saltsaltsalt").unwrap();
        Chain {
            methods: Method::list(methods).unwrap(),
            users: Users::parse(&format!("anna:{hash}")).unwrap().into(),
            tokens: Arc::default(),
        }
    }

    #[test]
    fn each_is_asked_in_its_order_until_one_answers() {
        let refused = Next::Decided(Decision::Deny(ReasonCode::BadUserNameOrPassword));
        let anna = Next::Decided(allow_as("anna"));
        let chain = chain("password, http");
        let ask = |user, password| chain.ask(&credentials(user, password), 0, 0);
        assert_eq!(ask(Some("anna"), Some("secret")), anna);
        assert_eq!(ask(Some("anna"), Some("wrong")), refused);
        assert_eq!(ask(Some("bob"), Some("secret")), Next::Http { then: 2 });
        assert_eq!(ask(Some("anna"), None), Next::Http { then: 2 });
        assert_eq!(chain.ask(&credentials(None, None), 2, 0), refused);
    }

    #[test]
    fn a_certificate_needs_no_password() {
        let credentials = Credentials {
            certificate: Some("car7"),
            ..credentials(Some("anna"), Some("wrong"))
        };
        let next = chain("certificate password").ask(&credentials, 0, 0);
        assert_eq!(next, Next::Decided(allow_as("car7")));
    }
}
