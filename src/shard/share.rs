//! Shared subscriptions, section 4.8.2 of version 5: groups whose members may be sessions of any
//! shard.
//!
//! Every shard knows every member of every group, and whether it can take messages now. So the shard
//! of the publisher picks the member, and the message makes one hop, to that member's shard alone.

use std::sync::Arc;

use crate::route::{Choice, GroupKey, Member, Receiver, SessionKey, ShardId, stable_hash};
use crate::session::{Delivery, Identifiers, SubscriptionEntry};
use crate::stats::DropReason;
use crate::time::Time;
use crate::topic::{Name, Subscription};
use crate::wire::QoS;

use super::batch::Control;
use super::fanout::{Encoder, Fanout, Matched};
use super::publish::{Published, Publisher};
use super::{Outbox, Shard};

/// Messages that wait for a member from which on others are picked before it: enough that a short
/// pause of its connection does not matter.
const BUSY_FROM: usize = 128;

/// Messages that wait for a busy member from which on it is picked again.
const FREE_FROM: usize = 32;

impl Shard {
    /// What picks a member for a message of `publisher` on `topic`.
    pub(super) fn choice(&mut self, publisher: Option<SessionKey>, topic: Name<'_>) -> Choice {
        let client = publisher.and_then(|key| self.sessions.get(key));
        Choice {
            strategy: self.settings.shared_subscription_strategy,
            topic_hash: stable_hash(topic.as_str()),
            publisher_hash: stable_hash(client.map_or("", |session| &session.client_id)),
            random: self.random.next(),
        }
    }

    /// Gives the message to one member of `group` [MQTT-4.8.2-4]; never to `exclude`. `false` if
    /// there is nobody.
    pub(super) fn deliver_to_group(
        &mut self,
        group: GroupKey,
        choice: Choice,
        publisher: Publisher,
        fanout: &mut Fanout<'_>,
        published: &mut Published,
        out: &mut Outbox,
    ) -> bool {
        let Some(Member {
            shard, receiver, ..
        }) = self.routes.pick(group, choice, None)
        else {
            return false;
        };
        if shard == self.identity.shard {
            let refused = !self.deliver(receiver.session, &share_of(&receiver, group), fanout, out);
            published.refused |= refused;
            return true;
        }
        let Some((share, filter)) = self.routes.group_name(group) else {
            return false;
        };
        let filter = crate::topic::Filter::trusted(filter);
        let subscription = Subscription {
            share: Some(share),
            filter,
        };
        if let Some(parcel) = &mut published.parcel {
            parcel.add_member(shard, receiver.session, subscription);
            return true;
        }
        out.live(shard, |batch| {
            batch.push_shared(&fanout.message, receiver.session, subscription)
        });
        self.expect_answer(shard, fanout.message.qos, publisher.waiter, published);
        true
    }

    /// Another shard picked a session of this one. If it has left the group since, somebody else is
    /// picked. `false` if a full queue refused the message.
    pub(super) fn deliver_to_member(
        &mut self,
        session: SessionKey,
        subscription: Subscription<'_>,
        fanout: &mut Fanout<'_>,
        out: &mut Outbox,
    ) -> bool {
        let share = subscription.share.unwrap_or_default();
        let Some(group) = self.routes.group(share, subscription.filter) else {
            self.stats.drop_messages(DropReason::NoMember, 1);
            return true;
        };
        let me = (self.identity.shard, session);
        let member = self
            .routes
            .members(group)
            .find(|member| (member.shard, member.receiver.session) == me)
            .map(|member| member.receiver);
        if let Some(receiver) = member {
            return self.deliver(session, &share_of(&receiver, group), fanout, out);
        }
        let choice = self.choice(None, fanout.message.topic);
        let mut published = Published::default();
        if !self.deliver_to_group(
            group,
            choice,
            Publisher::BROKER,
            fanout,
            &mut published,
            out,
        ) {
            self.stats.drop_messages(DropReason::NoMember, 1);
        }
        !published.refused
    }

    /// A session ended with this message not acknowledged (`sent`) or not even sent: another member
    /// of its group gets it, except a QoS 2 message that was sent [MQTT-4.8.2-5]. `false` if nobody
    /// does.
    pub(super) fn redeliver(
        &mut self,
        delivery: &Delivery,
        sent: bool,
        now: Time,
        out: &mut Outbox,
    ) -> bool {
        let Some(group) = delivery.group else {
            return false;
        };
        if sent && delivery.qos == QoS::ExactlyOnce {
            return false;
        }
        let message = delivery.message.view();
        let choice = self.choice(None, message.topic);
        let mut encoder = Encoder::default();
        let mut fanout = Fanout::new(message, &mut encoder, 1, now);
        let mut published = Published::default();
        self.deliver_to_group(
            group,
            choice,
            Publisher::BROKER,
            &mut fanout,
            &mut published,
            out,
        )
    }

    /// A session takes its share of a group, or changes the options of it.
    pub(super) fn join(
        &mut self,
        session: SessionKey,
        entry: &SubscriptionEntry,
        available: bool,
        out: &mut Outbox,
    ) {
        let subscription = Subscription::trusted(&entry.filter);
        let receiver = receiver(session, entry);
        let member = Member {
            shard: self.identity.shard,
            receiver,
            available,
        };
        self.routes.join(
            subscription.share.unwrap_or_default(),
            subscription.filter,
            member,
        );
        let filter = &entry.filter;
        self.mesh.broadcast(
            self.identity.shard,
            || Control::Join {
                subscription: Arc::clone(filter),
                member,
            },
            out,
        );
    }

    /// Tells the groups of a session whether it can take messages now: it is connected, and not many
    /// wait for it. So a slow member does not stop its group.
    pub(super) fn update_availability(&mut self, key: SessionKey, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.shared == 0 {
            return;
        }
        let limit = if session.available {
            BUSY_FROM
        } else {
            FREE_FROM
        };
        let available = session.connection.is_some() && session.queue.len() < limit;
        if available == session.available {
            return;
        }
        session.available = available;
        let shared: Vec<SubscriptionEntry> = session
            .subscriptions
            .iter()
            .filter(|entry| Subscription::trusted(&entry.filter).share.is_some())
            .cloned()
            .collect();
        for entry in &shared {
            self.join(key, entry, available, out);
        }
    }

    /// A member of another shard joined, changed or left.
    pub(super) fn member_changed(
        &mut self,
        subscription: &str,
        member: Result<Member, (ShardId, SessionKey)>,
    ) {
        let Subscription { share, filter } = Subscription::trusted(subscription);
        let share = share.unwrap_or_default();
        match member {
            Ok(member) => {
                self.routes.join(share, filter, member);
            }
            Err((shard, session)) => {
                self.routes.leave(share, filter, shard, session);
            }
        }
    }
}

/// What routing needs to know of a subscription.
pub(super) fn receiver(session: SessionKey, entry: &SubscriptionEntry) -> Receiver {
    Receiver {
        session,
        identifier: entry.identifier,
        qos: entry.options.qos,
        no_local: entry.options.no_local,
        retain_as_published: entry.options.retain_as_published,
    }
}

fn share_of(receiver: &Receiver, group: GroupKey) -> Matched {
    let mut identifiers = Identifiers::new();
    if receiver.identifier != 0 {
        identifiers.push(receiver.identifier);
    }
    Matched {
        qos: receiver.qos,
        retain_as_published: receiver.retain_as_published,
        identifiers,
        group: Some(group),
    }
}
