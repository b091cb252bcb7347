//! Who may come in and who may do what.
//!
//! A shard asks a [`Policy`] and goes on; it never waits. The quick answers (may anybody come in here,
//! what does a certificate say, may this client publish there) are given on the shard by a [`Guard`];
//! what takes longer, hashing above all, is a [`Decision::Pending`] that the runtime puts to a
//! [`Chain`] elsewhere. Both are built from files that were checked as a whole first, so that a
//! mistake in one leaves the old one in force. Whatever needs the hashes and signatures of others, the chain
//! and what it asks, is behind the feature `credentials`.
//!
//! Invariants:
//! - Nobody is let in because something failed: an authenticator that cannot answer refuses.
//! - A user name that nobody checked is none: rules for a user hold for whom a password, a token or a
//!   certificate has shown to be that user.
//! - A deny rule wins over every rule that allows, wherever the two stand.

mod acl;
mod cache;
#[cfg(feature = "credentials")]
mod chain;
mod guard;
#[cfg(feature = "credentials")]
mod jwt;
mod method;
mod mount;
mod name;
#[cfg(feature = "credentials")]
mod password;
mod rules;
#[cfg(feature = "credentials")]
mod scram;
#[cfg(feature = "credentials")]
mod users;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::topic::{Name, Subscription};
use crate::wire::ReasonCode;

pub use acl::{Acl, AclError, AclProblem};
#[cfg(feature = "credentials")]
pub use chain::{Chain, Next};
pub use guard::{Entrance, Guard, GuardOptions};
#[cfg(feature = "credentials")]
pub use jwt::{
    KeysError, TokenOptions, Tokens, mount_point as json_mount_point, rules as json_rules,
};
pub use method::{Method, UnknownMethod};
pub(crate) use mount::whole_filter;
pub use mount::{BadMountPoint, Mount, MountPoint};
pub use name::is_user_name;
#[cfg(feature = "credentials")]
pub use password::{Hashed, PasswordError, Scheme, Verifier};
pub use rules::{Access, Placeholders, Rule, Rules};
#[cfg(feature = "credentials")]
pub use scram::{SCRAM_SHA_256, Scram, ScramExchange};
#[cfg(feature = "credentials")]
pub use users::{Users, UsersError, UsersProblem, entry};

/// The answer to a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The client may come in, as nobody in particular.
    Allow,
    /// It may come in, and this was found out about it.
    AllowAs(Box<Grant>),
    /// It may not, and is told this.
    Deny(ReasonCode),
    /// Somebody slower has to be asked; the shard puts a question into its outbox and goes on.
    Pending,
}

/// What an authenticator found out about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Who it is.
    pub username: Option<Box<str>>,
    /// Rules of its own, in the place of those that the ACL file has for its user.
    pub rules: Option<Arc<Rules>>,
    /// Seconds until its connection must end; `None` for never.
    pub lifetime: Option<u64>,
    /// Where its topics are, in the place of what its listener says.
    pub mount_point: Option<MountPoint>,
}

/// What a CONNECT says of who sends it.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The client.
    pub client_id: &'a str,
    /// What it calls itself.
    pub username: Option<&'a str>,
    /// Its secret.
    pub password: Option<&'a [u8]>,
    /// Whom its certificate names, where the transport has verified one.
    pub certificate: Option<&'a str>,
    /// Which `[[listener]]` it came by, counted from 0.
    pub listener: u16,
    /// Where it comes from.
    pub address: SocketAddr,
}

/// A client that is in, for questions about what it may do.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Tells what was found out about it apart from what was about others: drawn anew at each CONNECT.
    pub number: u64,
    /// Its client id.
    pub client_id: &'a str,
    /// What was found out about it.
    pub grant: Option<&'a Grant>,
}

impl<'a> Client<'a> {
    /// Who it was shown to be.
    #[must_use]
    pub fn username(&self) -> Option<&'a str> {
        self.grant?.username.as_deref()
    }
}

/// How much of what a topic filter matches a client may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything: no message need be looked at.
    All,
    /// Some of it: each message has to be asked about.
    Part,
    /// Nothing.
    Nothing,
}

/// A client is finding out with us who it is, by AUTH packets: an exchange that has begun.
pub trait Exchange: fmt::Debug {
    /// Takes what the client answered. Returns who it is and what it is told at the end.
    ///
    /// # Errors
    /// What to refuse the client with.
    fn finish(self: Box<Self>, data: &[u8]) -> Result<(Grant, Vec<u8>), ReasonCode>;
}

/// An exchange that has begun, and what the client is told, with AUTH.
pub type Begun = (Box<dyn Exchange>, Vec<u8>);

/// Decides. Called on the shard, so it must not wait for anything.
pub trait Policy {
    /// May this client come in?
    fn connect(&mut self, credentials: &Credentials<'_>) -> Decision;

    /// Begins to find out who a client is by AUTH packets.
    ///
    /// # Errors
    /// What to refuse the client with; 0x8C for a method that is not known [MQTT-4.12.0-1].
    fn begin(
        &mut self,
        _method: &str,
        _credentials: &Credentials<'_>,
        _data: &[u8],
    ) -> Result<Begun, ReasonCode> {
        Err(ReasonCode::BadAuthenticationMethod)
    }

    /// May `client` publish to `topic`?
    fn publish(&mut self, client: &Client<'_>, topic: Name<'_>) -> bool;

    /// How much may `client` receive by this subscription?
    fn subscribe(&mut self, client: &Client<'_>, subscription: Subscription<'_>) -> Reach;

    /// May `client` receive a message with this topic? Asked where a subscription reaches in part.
    fn receive(&mut self, _client: &Client<'_>, _topic: Name<'_>) -> bool {
        true
    }

    /// Whether [`Policy::receive`] may deny something.
    fn filters_messages(&self) -> bool {
        false
    }

    /// Whether there are clients that can be told apart by who they are. If not, a session that belongs to
    /// somebody from earlier days is anybody's.
    fn tells_users(&self) -> bool {
        true
    }

    /// Whether a 3.1.1 client that may not publish is cut off, since it cannot be told.
    fn disconnects_denied(&self) -> bool {
        false
    }
}

/// Everybody may do everything, except to publish what the broker alone publishes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Policy for Open {
    fn connect(&mut self, _: &Credentials<'_>) -> Decision {
        Decision::Allow
    }

    fn publish(&mut self, _: &Client<'_>, topic: Name<'_>) -> bool {
        !is_of_the_broker(topic)
    }

    fn tells_users(&self) -> bool {
        false
    }

    fn subscribe(&mut self, _: &Client<'_>, _: Subscription<'_>) -> Reach {
        Reach::All
    }
}

/// Whether only the broker publishes there.
fn is_of_the_broker(topic: Name<'_>) -> bool {
    topic.starts_with_dollar() && (topic.as_str() == "$SYS" || topic.as_str().starts_with("$SYS/"))
}
