//! What a client may do: asked of the policy, and who it is for that.
//!
//! A subscription that reaches all of what it matches costs its messages nothing: whether every
//! subscription of a session does is found once and kept with it, until the policy is another one.
//! Only the messages of the others are asked about one by one.

use crate::policy::{Client, Grant, Policy, Reach};
use crate::route::SessionKey;
use crate::session::Session;
use crate::stats::Denied;
use crate::time::Time;
use crate::topic::{Name, Subscription};

use super::{ConnKey, Shard};

impl Shard {
    /// Puts another policy in the place of the one that holds. What is asked from now on is asked of it,
    /// also for messages that wait already; nobody who is in is put out.
    pub fn replace_policy(&mut self, policy: Box<dyn Policy>) {
        self.filters = policy.filters_messages();
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
        let may = self.policy.publish(&client(session), topic);
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
        let reach = self.policy.subscribe(&client(session), subscription);
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
        let may = session.standing.unfiltered || self.policy.receive(&client(session), topic);
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

    /// Whether the session of this client id belongs to another user: a client id is no secret, and whoever
    /// guesses one must not get what was meant for its owner.
    pub(super) fn is_of_another(&self, client_id: &str, grant: Option<&Grant>) -> bool {
        let session = self.sessions.find(client_id);
        let owner = session
            .and_then(|key| self.sessions.get(key))
            .and_then(|session| session.standing.grant.as_ref())
            .and_then(|grant| grant.username.as_deref());
        owner.is_some() && owner != grant.and_then(|grant| grant.username.as_deref())
    }
}

fn client(session: &Session) -> Client<'_> {
    Client {
        number: session.standing.number,
        client_id: &session.client_id,
        grant: session.standing.grant.as_deref(),
    }
}
