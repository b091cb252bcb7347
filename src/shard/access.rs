//! What a client may do: asked of the policy, and who it is for that.
//!
//! A subscription that reaches all of what it matches costs its messages nothing: whether every
//! subscription of a session does is found once and kept with it, until the policy is another one.
//! Only the messages of the others are asked about one by one.

use crate::policy::{Client, Grant, Mount, Policy, Reach};
use crate::route::SessionKey;
use crate::session::{Session, Will};
use crate::stats::Denied;
use crate::time::Time;
use crate::topic::{Name, Subscription};
use crate::wire::ReasonCode;

use super::{ConnKey, Shard};

impl Shard {
    /// Puts another policy in the place of the one that holds. What is asked from now on is asked of it,
    /// also for messages that wait already; nobody who is in is put out.
    pub fn replace_policy(&mut self, policy: Box<dyn Policy>) {
        self.filters = policy.filters_messages() || self.mounts;
        self.policy = policy;
        self.policy_epoch = self.policy_epoch.wrapping_add(1);
    }

    /// Whether `count` messages of a client may go to `topic`.
    pub(super) fn may_publish(
        &mut self,
        key: SessionKey,
        topic: Name<'_>,
        (denied, count): (Denied, u32),
    ) -> bool {
        self.number(key);
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let may = shows(session, topic.as_str()) && self.policy.publish(&client(session), topic);
        if !may {
            self.stats.denied[denied as usize] += u64::from(count);
        }
        may
    }

    /// How much a client may receive by a subscription that it is about to make.
    pub(super) fn may_subscribe(
        &mut self,
        key: SessionKey,
        subscription: Subscription<'_>,
    ) -> bool {
        self.number(key);
        self.judge(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let reach = match shows(session, subscription.filter.as_str()) {
            true => self.policy.subscribe(&client(session), subscription),
            false => Reach::Nothing,
        };
        match reach {
            Reach::All => {}
            Reach::Part => session.standing.unfiltered = false,
            Reach::Nothing => self.stats.denied[Denied::Subscribe as usize] += 1,
        }
        reach != Reach::Nothing
    }

    /// Whether a client may receive `count` messages of `topic`; those that it may not are counted.
    #[inline]
    pub(super) fn may_receive(&mut self, key: SessionKey, topic: Name<'_>, count: u32) -> bool {
        !self.filters || self.may_receive_filtered(key, topic, count)
    }

    fn may_receive_filtered(&mut self, key: SessionKey, topic: Name<'_>, count: u32) -> bool {
        self.judge(key);
        let Some(session) = self.sessions.get(key) else {
            return true; // nobody is there to be denied something
        };
        let may = shows(session, topic.as_str())
            && (session.standing.unfiltered || self.policy.receive(&client(session), topic));
        if !may {
            self.stats.denied[Denied::Deliver as usize] += u64::from(count);
        }
        may
    }

    /// Finds anew whether messages for this session have to be looked at, if the policy is another one
    /// than the last time.
    fn judge(&mut self, key: SessionKey) {
        let epoch = self.policy_epoch;
        match self.sessions.get(key) {
            Some(session) if session.standing.epoch != epoch => {}
            _ => return,
        }
        self.number(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let filters = session.subscriptions.iter().map(|entry| &*entry.filter);
        let unfiltered = filters.chain(self.recalls.filters(key)).all(|filter| {
            let subscription = Subscription::trusted(filter);
            self.policy.subscribe(&client(session), subscription) == Reach::All
        });
        session.standing.epoch = epoch;
        session.standing.unfiltered = unfiltered;
    }

    /// Gives a session the number under which the policy remembers what it found out about it: a restored
    /// one has none.
    fn number(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get(key)
            && session.standing.number == 0
        {
            let number = self.next_serial();
            if let Some(session) = self.sessions.get_mut(key) {
                session.standing.number = number;
            }
        }
    }

    /// Where the topics of a client are that is about to come in.
    ///
    /// # Errors
    /// If its mount takes a name that it does not have.
    pub(super) fn mount(
        &self,
        conn: ConnKey,
        client_id: &str,
        grant: Option<&Grant>,
    ) -> Result<Option<Mount>, ReasonCode> {
        let own = grant.and_then(|grant| grant.mount_point.as_ref());
        let of_listener = || {
            let listener = self.connections.get(conn)?.peer.listener;
            let settings = self.settings.listeners.get(usize::from(listener))?;
            settings.mount_point.as_ref()
        };
        let username = grant.and_then(|grant| grant.username.as_deref());
        own.or_else(of_listener)
            .map(|point| point.of(client_id, username))
            .map(|mount| mount.ok_or(ReasonCode::NotAuthorized))
            .transpose()
    }

    /// There is a client with a mount: messages are looked at from here on.
    pub(super) fn mounts_begin(&mut self) {
        self.mounts = true;
        self.filters = true;
    }

    /// The mount of a client that has one.
    #[inline]
    pub(super) fn mount_of(&self, key: SessionKey) -> Option<&Mount> {
        if !self.mounts {
            return None; // one branch is all that others pay
        }
        self.sessions.get(key)?.standing.mount.as_ref()
    }

    /// A CONNECT has shown who the client is: what was found out about it before does not count any
    /// longer.
    pub(super) fn recognise(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        grant: Option<Box<Grant>>,
        now: Time,
    ) {
        let number = self.next_serial();
        let lifetime = grant.as_ref().and_then(|grant| grant.lifetime);
        if let Some(session) = self.sessions.get_mut(key) {
            session.standing.grant = grant;
            session.standing.number = number;
            session.standing.epoch = self.policy_epoch.wrapping_sub(1);
        }
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.ends_at = lifetime.map_or(Time::NEVER, |seconds| now.plus_secs(seconds));
        }
    }

    /// Whether a will need not be judged now: one whose client has rules of its own must, since they do not
    /// outlive the process, and it may.
    pub(super) fn outlives_its_rules(&mut self, key: SessionKey, will: &Will) -> bool {
        let grant = self.sessions.get(key);
        let grant = grant.and_then(|session| session.standing.grant.as_ref());
        let has_own = grant.is_some_and(|grant| grant.rules.is_some());
        !has_own || self.may_publish(key, will.message.view().topic, (Denied::Will, 1))
    }

    /// Whether the session of this client id belongs to another user: a client id is no secret, and whoever
    /// guesses one must not get what was meant for its owner.
    pub(super) fn is_of_another(&self, client_id: &str, grant: Option<&Grant>) -> bool {
        let session = self.sessions.find(client_id);
        let owner = session
            .and_then(|key| self.sessions.get(key))
            .and_then(|session| session.standing.grant.as_ref())
            .and_then(|grant| grant.username.as_deref());
        owner.is_some()
            && self.policy.tells_users()
            && owner != grant.and_then(|grant| grant.username.as_deref())
    }
}

/// Whether this whole topic or filter is one that the client can name.
#[inline]
fn shows(session: &Session, whole: &str) -> bool {
    let mount = session.standing.mount.as_ref();
    mount.is_none_or(|mount| mount.shows(whole))
}

fn client(session: &Session) -> Client<'_> {
    Client {
        number: session.standing.number,
        client_id: &session.client_id,
        grant: session.standing.grant.as_deref(),
    }
}
