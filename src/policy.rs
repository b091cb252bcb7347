//! Who may come in and who may do what. The questions stand here; the answers come from an
//! implementation of [`Policy`].

use std::net::SocketAddr;

use crate::topic::{Name, Subscription};
use crate::wire::ReasonCode;

/// The answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The client may come in.
    Allow,
    /// It may not, and is told this.
    Deny(ReasonCode),
    /// Somebody slower has to be asked; the shard puts a question into its outbox and goes on.
    Pending,
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
    /// Where it comes from.
    pub address: SocketAddr,
}

/// Decides. Called on the shard, so it must not wait for anything.
pub trait Policy {
    /// May this client come in?
    fn connect(&mut self, credentials: &Credentials<'_>) -> Decision;

    /// May `client_id` publish to `topic`?
    fn publish(&mut self, client_id: &str, topic: Name<'_>) -> bool;

    /// May `client_id` make this subscription?
    fn subscribe(&mut self, client_id: &str, subscription: Subscription<'_>) -> bool;
}

/// Everybody may do everything, except to publish what the broker alone publishes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Policy for Open {
    fn connect(&mut self, _: &Credentials<'_>) -> Decision {
        Decision::Allow
    }

    fn publish(&mut self, _: &str, topic: Name<'_>) -> bool {
        topic.as_str() != "$SYS" && !topic.as_str().starts_with("$SYS/")
    }

    fn subscribe(&mut self, _: &str, _: Subscription<'_>) -> bool {
        true
    }
}
