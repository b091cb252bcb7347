//! A shard as it was before the process ended, from what its journal held.
//!
//! Whoever was connected then is not any more: intervals begin now, and so do the delays of wills. What
//! became due while nobody was there is done by the first [`Shard::tick`], when every shard knows the
//! subscriptions of all: the driver makes sure of that.

use std::collections::HashMap;
use std::sync::Arc;

use crate::journal::{
    Deadline, Exchange, Journal, Recipient, Recovered, RestoredSession, RestoredWill, StoredMessage,
};
use crate::message::{ItemId, Message, MessageView};
use crate::policy::{Grant, Mount, Rules};
use crate::route::SessionKey;
use crate::session::{
    Delivery, NEVER_EXPIRES, Owner, Queue, Received, Session, SessionNumber, Slot,
    SubscriptionEntry, Will, Window,
};
use crate::time::Time;
use crate::topic::{Name, Subscription};

use super::durable::{Durable, Store};
use super::{Outbox, Shard};

/// Milliseconds since 1970 at [`Time::ZERO`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// The bodies of messages that a shard needs, as they are read: [`Journal::each_message`] brings them.
///
/// What waits for a session stays on disk, but for messages of groups and those that may have been sent.
#[derive(Debug)]
pub struct Bodies {
    epoch: Epoch,
    retained: Vec<(ItemId, Message)>,
    waiting: HashMap<SessionNumber, Waiting, foldhash::fast::FixedState>,
    scratch: Vec<u8>,
}

/// What waits for one session.
#[derive(Debug, Default)]
struct Waiting {
    /// The last message that an exchange of the session is about: those up to there are needed.
    begun: ItemId,
    here: Vec<(ItemId, Here)>,
    /// How many stay on disk, and their bytes.
    away: (usize, u64),
}

/// A delivery whose group is not known yet.
#[derive(Debug)]
struct Here {
    delivery: Delivery,
    group: Option<Box<str>>,
}

impl Epoch {
    /// A stored message, to be routed or kept.
    pub(super) fn view<'a>(self, stored: &StoredMessage<'a>) -> MessageView<'a> {
        MessageView {
            topic: Name::trusted(stored.topic),
            properties: stored.properties,
            payload: stored.payload,
            qos: stored.qos,
            retain: stored.retain,
            expires_at: self.time(stored.expires_at),
        }
    }

    fn time(self, deadline: Deadline) -> Time {
        match deadline {
            Deadline::NEVER => Time::NEVER,
            Deadline(millis) => Time::from_millis(millis.saturating_sub(self.0)),
        }
    }
}

impl Bodies {
    /// None yet of what was recovered.
    #[must_use]
    pub fn new(epoch: Epoch, recovered: &Recovered) -> Self {
        let begun = recovered.sessions.iter().filter_map(|restored| {
            let exchanges = restored.exchanges.iter();
            let begun = exchanges.map(|exchange| exchange.message).max()?;
            let waiting = Waiting {
                begun,
                ..Waiting::default()
            };
            Some((restored.session, waiting))
        });
        Self {
            epoch,
            retained: Vec::new(),
            waiting: begun.collect(),
            scratch: Vec::new(),
        }
    }

    /// Takes in a message: what the journal calls it, whether it is retained, and who it waits for.
    pub fn take(
        &mut self,
        item: ItemId,
        stored: StoredMessage<'_>,
        retained: bool,
        recipients: &[Recipient<'_>],
    ) {
        let view = self.epoch.view(&stored);
        let mut message = None;
        let scratch = &mut self.scratch;
        let mut body = || {
            let made = || view.to_message_by(Some(item), scratch);
            message.get_or_insert_with(made).clone()
        };
        for Recipient { session, copy } in recipients {
            let waiting = self.waiting.entry(*session).or_default();
            if item > waiting.begun && copy.group.is_empty() {
                let (count, bytes) = &mut waiting.away;
                *count += 1;
                *bytes += view.size() as u64;
                continue;
            }
            let delivery = Delivery {
                message: body(),
                qos: copy.qos,
                retain: copy.retain,
                identifiers: copy.identifiers.into(),
                group: None,
            };
            let group = (!copy.group.is_empty()).then(|| copy.group.into());
            waiting.here.push((item, Here { delivery, group }));
        }
        if retained {
            let message = body();
            self.retained.push((item, message));
        }
    }
}

impl Shard {
    /// Goes on where the journal ended. Comes before everything else.
    pub fn restore(
        &mut self,
        (journal, recovered): (Journal, Recovered),
        mut bodies: Bodies,
        durable: Durable,
        now: Time,
        out: &mut Outbox,
    ) {
        out.set_durable(journal.durable());
        self.store = Store::new(journal, &recovered.origins, durable, bodies.epoch);
        self.tell_arrived(out);
        self.restore_forwards(recovered.forwards);
        bodies.retained.sort_unstable_by_key(|(item, _)| *item);
        for (_, message) in bodies.retained.drain(..) {
            self.retained.set(message);
        }
        for restored in recovered.sessions {
            let waiting = bodies.waiting.remove(&restored.session);
            let waiting = waiting.unwrap_or_default();
            self.restore_session(restored, waiting, bodies.epoch, now, out);
        }
    }

    fn restore_session(
        &mut self,
        restored: RestoredSession,
        waiting: Waiting,
        epoch: Epoch,
        now: Time,
        out: &mut Outbox,
    ) {
        let mut session = Session::new(&restored.client_id);
        session.stored = Some(restored.session);
        self.restore_owner(&mut session, &restored.user);
        session.version = restored.version;
        session.expiry_interval = restored.expiry_interval;
        session.received = Received::restored(restored.held);
        let mut subscriptions = restored.subscriptions;
        subscriptions.sort_unstable_by(|one, other| one.filter.cmp(&other.filter));
        let subscriptions: Vec<(SubscriptionEntry, bool)> = subscriptions
            .into_iter()
            .map(|subscription| {
                let entry = SubscriptionEntry {
                    filter: subscription.filter.into(),
                    options: subscription.options,
                    identifier: subscription.identifier,
                    stored: Some(subscription.id),
                };
                (entry, subscription.owed)
            })
            .collect();
        let entries = subscriptions.iter().map(|(entry, _)| entry.clone());
        session.subscriptions = entries.collect();
        session.expires_at = match (restored.expires_at, restored.expiry_interval) {
            (_, NEVER_EXPIRES) => Time::NEVER,
            // It was connected.
            (Deadline::NEVER, seconds) => now.plus_secs(seconds.into()),
            (deadline, _) => epoch.time(deadline),
        };
        if let Some(will) = &restored.will {
            session.will = Some(Box::new(restored_will(epoch, will)));
            session.will_at = match will.due {
                Deadline::NEVER => now.plus_secs(will.delay_interval.into()),
                deadline => epoch.time(deadline),
            };
        }
        self.store.disconnected(&session);
        let key = self.sessions.insert(session);
        let mut owed = Vec::new();
        for (entry, is_owed) in subscriptions {
            self.enlist(key, &entry, out);
            // A group is owed nothing, whatever was imported.
            if is_owed && Subscription::trusted(&entry.filter).share.is_none() {
                owed.push(self.prepare_replay(key, entry));
            }
        }
        let (window, queue) = self.restore_messages(restored.exchanges, waiting);
        self.stats.count_queue(&queue);
        if let Some(session) = self.sessions.get_mut(key) {
            session.window = window;
            session.queue = queue;
        }
        self.arm_session(key);
        if !owed.is_empty() {
            self.owe_again(key, owed, out);
        }
    }

    /// Whose it was, it is. Rules that came with a token are gone: until the client comes back with others, what
    /// the files do not deny waits for it, and is judged when it is sent; its will was judged when it was
    /// made.
    fn restore_owner(&mut self, session: &mut Session, text: &str) {
        let owner = Owner::parse(text);
        let rules = owner.own_rules.then(|| Arc::new(Rules::everything()));
        if !owner.user.is_empty() || rules.is_some() {
            session.standing.grant = Some(Box::new(Grant {
                username: (!owner.user.is_empty()).then(|| owner.user.into()),
                rules,
                ..Grant::default()
            }));
        }
        session.standing.mount = Mount::restored(owner.mount);
        if session.standing.mount.is_some() {
            self.mounts_begin();
        }
    }

    /// Puts a subscription of a session without connection into the routes.
    fn enlist(&mut self, key: SessionKey, entry: &SubscriptionEntry, out: &mut Outbox) {
        let subscription = Subscription::trusted(&entry.filter);
        if subscription.share.is_some() {
            if let Some(session) = self.sessions.get_mut(key) {
                session.shared += 1;
            }
            self.join(key, entry, false, out);
        } else {
            self.listen(key, subscription, entry, out);
        }
    }

    /// The exchanges that have begun, and what waits behind them.
    fn restore_messages(&self, exchanges: Vec<Exchange>, waiting: Waiting) -> (Window, Queue) {
        let Waiting {
            begun: last_begun,
            mut here,
            away: (count, bytes),
        } = waiting;
        here.sort_unstable_by_key(|(item, _)| *item);
        let behind = here.partition_point(|(item, _)| *item <= last_begun);
        let behind = here.split_off(behind);
        let mut slots = Vec::with_capacity(exchanges.len());
        let mut begun = exchanges.into_iter().peekable();
        let mut queue = Queue::default();
        for (item, here) in here {
            while let Some(earlier) = begun.next_if(|exchange| exchange.message < item) {
                slots.push((earlier.packet_id, Slot::Released));
            }
            let delivery = self.restore_delivery(here);
            match begun.next_if(|exchange| exchange.message == item) {
                Some(exchange) => slots.push((exchange.packet_id, Slot::Published(delivery))),
                None => queue.push(delivery),
            }
        }
        slots.extend(begun.map(|exchange| (exchange.packet_id, Slot::Released)));
        queue.leave_away(last_begun, count, bytes);
        for (_, here) in behind {
            queue.push(self.restore_delivery(here));
        }
        (Window::restored(slots), queue)
    }

    fn restore_delivery(&self, Here { delivery, group }: Here) -> Delivery {
        let group = group.and_then(|group| {
            let Subscription { share, filter } = Subscription::trusted(&group);
            self.routes.group(share.unwrap_or_default(), filter)
        });
        Delivery { group, ..delivery }
    }
}

fn restored_will(epoch: Epoch, will: &RestoredWill) -> Will {
    let details = will.details();
    Will {
        message: epoch.view(&details.message).to_message(),
        delay_interval: details.delay_interval,
        message_expiry_interval: details.message_expiry_interval,
    }
}
