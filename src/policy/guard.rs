//! The policy of a broker that was configured: what can be answered on the shard.

use std::sync::Arc;

use super::acl::{Acl, own};
use super::cache::Cache;
use super::method::{Method, by_certificate};
use super::rules::Access;
#[cfg(feature = "credentials")]
use super::{Begun, SCRAM_SHA_256, Scram};
use super::{Client, Credentials, Decision, Policy, Reach, is_of_the_broker};
use crate::topic::{Name, Subscription};
use crate::wire::ReasonCode;

/// A listener, as far as it matters who comes in by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Whether it lets in who does not say who he is.
    pub anonymous: bool,
    /// Whether its clients may come with the name of a certificate.
    pub certificates: bool,
}

/// What a guard goes by. All shards have the same.
#[derive(Clone, Debug, Default)]
pub struct GuardOptions {
    /// The listeners in their order.
    pub entrances: Vec<Entrance>,
    /// The authenticators in their order.
    pub methods: Vec<Method>,
    /// Who may do what; `None` if everybody who is in may do everything.
    pub acl: Option<Arc<Acl>>,
    /// Whether a 3.1.1 client that may not publish is cut off.
    pub disconnects_denied: bool,
    /// Who may come in by SCRAM-SHA-256.
    #[cfg(feature = "credentials")]
    pub scram: Option<Scram>,
}

/// Answers for one shard.
#[derive(Debug)]
pub struct Guard {
    options: Arc<GuardOptions>,
    cache: Cache,
    /// What sets the nonces of this guard apart from those of others, and of the next one.
    #[cfg(feature = "credentials")]
    nonce: (u64, u64),
}

impl Guard {
    /// A guard that remembers nothing yet; `number` is another one for each shard.
    #[must_use]
    #[cfg_attr(
        not(feature = "credentials"),
        expect(unused_variables, reason = "only exchanges need it")
    )]
    pub fn new(options: Arc<GuardOptions>, number: u64) -> Self {
        Self {
            options,
            cache: Cache::new(),
            #[cfg(feature = "credentials")]
            nonce: (number, 0),
        }
    }

    fn may(&mut self, client: &Client<'_>, topic: Name<'_>, access: Access) -> bool {
        let ask = || match (&self.options.acl, own(client)) {
            (Some(acl), _) => acl.allows(client, topic, access),
            (None, Some(rules)) => rules.allow(client, topic, access),
            (None, None) => true,
        };
        if self.options.acl.is_none() && own(client).is_none() {
            return true;
        }
        self.cache
            .get_or(client.number, topic.as_str(), access, ask)
    }
}

impl Policy for Guard {
    fn connect(&mut self, credentials: &Credentials<'_>) -> Decision {
        let options = &self.options;
        if options.methods.first() == Some(&Method::Certificate)
            && let Some(decision) = by_certificate(credentials)
        {
            return decision;
        }
        let says_nothing = credentials.username.is_none()
            && credentials.password.is_none()
            && credentials.certificate.is_none();
        let others = |method: &Method| *method != Method::Certificate;
        if credentials.certificate.is_some() && !options.methods.is_empty()
            || !says_nothing && options.methods.iter().any(others)
        {
            return Decision::Pending;
        }
        let entrance = options.entrances.get(usize::from(credentials.listener));
        if entrance.is_some_and(|entrance| entrance.anonymous) {
            // A name that nobody can check is none.
            Decision::Allow
        } else {
            Decision::Deny(ReasonCode::NotAuthorized)
        }
    }

    #[cfg(feature = "credentials")]
    fn begin(
        &mut self,
        method: &str,
        _: &Credentials<'_>,
        data: &[u8],
    ) -> Result<Begun, ReasonCode> {
        let known = self.options.scram.as_ref();
        let known = known.filter(|scram| method == SCRAM_SHA_256 && scram.is_offered());
        let scram = known.ok_or(ReasonCode::BadAuthenticationMethod)?;
        self.nonce.1 += 1;
        let (exchange, answer) = scram.begin(data, scram.nonce(self.nonce))?;
        Ok((Box::new(exchange), answer))
    }

    fn publish(&mut self, client: &Client<'_>, topic: Name<'_>) -> bool {
        !is_of_the_broker(topic) && self.may(client, topic, Access::Write)
    }

    fn subscribe(&mut self, client: &Client<'_>, subscription: Subscription<'_>) -> Reach {
        match (&self.options.acl, own(client)) {
            (Some(acl), _) => acl.reach(client, subscription.filter),
            (None, Some(rules)) => rules.reach(client, subscription.filter),
            (None, None) => Reach::All,
        }
    }

    fn receive(&mut self, client: &Client<'_>, topic: Name<'_>) -> bool {
        self.may(client, topic, Access::Read)
    }

    fn filters_messages(&self) -> bool {
        let brings_rules = |method: &Method| matches!(method, Method::Jwt | Method::Http);
        self.options.acl.is_some() || self.options.methods.iter().any(brings_rules)
    }

    fn tells_users(&self) -> bool {
        let options = &self.options;
        let by_words = |method: &Method| *method != Method::Certificate;
        let tells = |entrance: &Entrance| entrance.certificates || !entrance.anonymous;
        options.methods.iter().any(by_words) || options.entrances.iter().any(tells)
    }

    fn disconnects_denied(&self) -> bool {
        self.options.disconnects_denied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(methods: &str, anonymous: [bool; 2]) -> Guard {
        Guard::new(
            Arc::new(GuardOptions {
                entrances: anonymous
                    .map(|anonymous| Entrance {
                        anonymous,
                        ..Entrance::default()
                    })
                    .to_vec(),
                methods: Method::list(methods).unwrap(),
                ..GuardOptions::default()
            }),
            0,
        )
    }

    fn credentials(listener: u16, username: Option<&str>) -> Credentials<'_> {
        Credentials {
            client_id: "c",
            username,
            password: None,
            certificate: None,
            listener,
            address: ([127, 0, 0, 1], 1).into(),
        }
    }

    #[test]
    fn who_says_nothing_comes_in_where_the_listener_lets_him() {
        for methods in ["", "password"] {
            let mut guard = guard(methods, [true, false]);
            let closed = Decision::Deny(ReasonCode::NotAuthorized);
            assert_eq!(guard.connect(&credentials(0, None)), Decision::Allow);
            assert_eq!(guard.connect(&credentials(1, None)), closed);
            assert_eq!(guard.connect(&credentials(2, None)), closed);
        }
    }

    #[test]
    fn who_says_who_he_is_has_to_show_it_if_there_is_a_way() {
        let anna = |listener| credentials(listener, Some("anna"));
        let mut with = guard("password", [true, false]);
        assert_eq!(with.connect(&anna(0)), Decision::Pending);
        assert_eq!(with.connect(&anna(1)), Decision::Pending);
        let mut without = guard("", [true, false]);
        assert_eq!(without.connect(&anna(0)), Decision::Allow);
        assert!(matches!(without.connect(&anna(1)), Decision::Deny(_)));
    }

    #[test]
    fn users_are_told_where_somebody_can_be_one() {
        let tells = |methods, entrance: Entrance| {
            let options = GuardOptions {
                entrances: vec![entrance],
                methods: Method::list(methods).unwrap(),
                ..GuardOptions::default()
            };
            Guard::new(Arc::new(options), 0).tells_users()
        };
        let open = Entrance {
            anonymous: true,
            certificates: false,
        };
        assert!(!tells("certificate", open) && tells("password", open));
        assert!(tells(
            "certificate",
            Entrance {
                certificates: true,
                ..open
            }
        ));
        assert!(tells(
            "",
            Entrance {
                anonymous: false,
                ..open
            }
        ));
    }

    #[test]
    fn a_certificate_that_comes_first_is_enough() {
        let certified = Credentials {
            certificate: Some("car7"),
            ..credentials(1, None)
        };
        let first = guard("certificate password", [false; 2]).connect(&certified);
        let Decision::AllowAs(grant) = first else {
            panic!("{first:?}");
        };
        assert_eq!(grant.username.as_deref(), Some("car7"));
        let later = guard("password certificate", [false; 2]).connect(&certified);
        assert_eq!(later, Decision::Pending);
    }
}
