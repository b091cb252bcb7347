//! QoS 2 messages that were on their way from one shard to another when the broker ended: in a new layout
//! there is no such way, so they are delivered here. Who subscribed is known.

use crate::journal::{
    Errands, OwnedMessage, RestoredForward, RestoredSession, RestoredSubscription, StoredMessage,
};
use crate::topic::{Name, Subscription};
use crate::wire::QoS;

use super::content::{Content, Kept, Receiver};

/// Delivers what did not come, behind all that came before. `journals` are all of a layout, by their
/// shards.
pub(super) fn deliver(journals: &mut [Content]) {
    let mut arrivals = Vec::new();
    for (from, sender) in journals.iter().enumerate() {
        for forward in &sender.forwards {
            let missed = |to: usize, lane: u32| {
                let lane = 2 * from as u32 + lane;
                let content = journals.get(to)?;
                let origins = content.origins.iter().filter(|origin| origin.1 == lane);
                let last = origins.map(|origin| origin.2).max();
                (last < Some(forward.id)).then_some(content)
            };
            for to in (0..journals.len()).filter(|to| forward.shards >> to & 1 == 1) {
                if let Some(content) = missed(to, 0) {
                    let receivers = subscribers(&content.sessions, &forward.message(), |_, _| true);
                    arrivals.push((to, kept(forward, receivers), false));
                }
            }
            for (to, group) in Errands::each(&forward.errands) {
                let is_retained = group.is_empty();
                if let Some(content) = missed(to, u32::from(is_retained)) {
                    let member = member(&content.sessions, group, &forward.message());
                    arrivals.push((to, kept(forward, member), is_retained));
                }
            }
        }
    }
    for (to, kept, retained) in arrivals {
        journals[to].arrive(kept, retained);
    }
    for content in journals {
        content.forwards.clear();
        content.origins.clear();
    }
}

fn kept(forward: &RestoredForward, receivers: Vec<Receiver>) -> Kept {
    Kept::made(
        Some(OwnedMessage::from(&forward.message())),
        false,
        receivers,
    )
}

/// The sessions that a message is for by subscriptions of their own, of those that `counts`.
pub(super) fn subscribers(
    sessions: &[RestoredSession],
    message: &StoredMessage<'_>,
    counts: impl Fn(usize, &RestoredSubscription) -> bool,
) -> Vec<Receiver> {
    let receivers = sessions.iter().enumerate().filter_map(|(index, session)| {
        let matching = session.subscriptions.iter().filter(|subscription| {
            let Subscription { share, filter } = Subscription::trusted(&subscription.filter);
            let matches = share.is_none() && filter.matches(Name::trusted(message.topic));
            matches && counts(index, subscription)
        });
        receiver(index, matching, message, "")
    });
    receivers.collect()
}

/// One session that has a share of `group`; nobody for the retained message.
fn member(sessions: &[RestoredSession], group: &str, message: &StoredMessage<'_>) -> Vec<Receiver> {
    let mut receivers = sessions.iter().enumerate().filter_map(|(index, session)| {
        let shares = session.subscriptions.iter();
        let shares = shares.filter(|subscription| *subscription.filter == *group);
        receiver(index, shares, message, group)
    });
    receivers.next().into_iter().collect()
}

/// How a session gets a message by its subscriptions to it, if it has any.
fn receiver<'a>(
    session: usize,
    subscriptions: impl Iterator<Item = &'a RestoredSubscription>,
    message: &StoredMessage<'_>,
    group: &str,
) -> Option<Receiver> {
    let mut found = None::<Receiver>;
    for subscription in subscriptions {
        let options = subscription.options;
        let receiver = found.get_or_insert_with(|| Receiver {
            session,
            qos: QoS::AtMostOnce,
            retain: false,
            identifiers: Vec::new(),
            group: group.into(),
            exchange: None,
        });
        receiver.qos = receiver.qos.max(options.qos.min(message.qos));
        receiver.retain |= message.retain && options.retain_as_published;
        if subscription.identifier != 0 {
            receiver.identifiers.push(subscription.identifier);
        }
    }
    found.filter(|receiver| receiver.qos > QoS::AtMostOnce)
}
