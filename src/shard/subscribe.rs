//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! SUBACK waits until every shard knows of the new interest: from then on, a message that anybody
//! publishes on any shard reaches the subscriber. Only then are retained messages asked for.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::journal::Position;
use crate::policy::whole_filter;
use crate::route::SessionKey;
use crate::session::{ReplayKey, SubscriptionEntry};
use crate::time::Time;
use crate::topic::Subscription;
use crate::wire::{
    Packet, PacketId, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
    UnsubAck, Unsubscribe, UserProperties,
};

use super::batch::Control;
use super::explain::explanation;
use super::recall::is_recall;
use super::share::receiver;
use super::{ConnKey, Fault, Outbox, Shard};

/// Reason codes, one per filter.
type Codes = SmallVec<[u8; 8]>;

/// A SUBACK that waits for other shards.
pub(super) struct PendingSubscribe {
    /// Who gets it, and its packet identifier; nobody does at a start.
    asker: Option<(ConnKey, PacketId)>,
    session: SessionKey,
    codes: Codes,
    wanted: Wanted,
    /// Why the first filter that history refused was, if there is more to say than its reason code does.
    because: Option<&'static str>,
    /// Shards that have not answered.
    waiting: usize,
    /// How far the journal must have come.
    durable: Position,
}

/// The replays that begin with it.
type Wanted = Vec<ReplayKey>;

impl Shard {
    /// SUBSCRIBE: makes each subscription as if it had come alone [MQTT-3.8.4-5]
    /// [MQTT-3.8.4-4 3.1.1].
    pub(super) fn on_subscribe(
        &mut self,
        conn: ConnKey,
        session: SessionKey,
        subscribe: &Subscribe<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        for (filter, options) in subscribe.filters.iter() {
            let shared = Subscription::parse(filter).is_ok_and(|parsed| parsed.share.is_some());
            if shared && options.no_local {
                return Err(Fault::NoLocalOnShared); // [MQTT-3.8.3-4]
            }
        }
        let identifier = subscribe.subscription_identifier.unwrap_or(0);
        let mut codes = Codes::new();
        let mut wanted = Wanted::new();
        let mut because = None;
        let mark = self.store.mark();
        for (index, (filter, options)) in subscribe.filters.iter().enumerate() {
            let filter = whole_filter(self.mount_of(session), filter);
            if let Some(reason) = self.misshapen_filter(&filter, index) {
                codes.push(reason as u8);
                continue;
            }
            let code = match Subscription::parse(&filter) {
                Ok(parsed) if is_recall(parsed) => {
                    match self.recall(session, parsed, options, identifier, now, out) {
                        Ok((qos, replay)) => {
                            wanted.push(replay);
                            granted(qos)
                        }
                        Err((reason, text)) => {
                            because = because.or(text);
                            reason
                        }
                    }
                }
                _ => self.subscribe(session, &filter, options, identifier, &mut wanted, out),
            };
            codes.push(code as u8); // one for each, in their order [MQTT-3.8.4-6] [MQTT-3.9.3-1]
        }
        let pending = PendingSubscribe {
            asker: Some((conn, subscribe.packet_id)),
            session,
            codes,
            wanted,
            because,
            waiting: 0,
            durable: self.store.promised(mark),
        };
        self.await_interest(pending, out);
        Ok(())
    }

    /// What was owed to subscriptions when the process ended is sent as if they had just been made: when every
    /// shard knows of them, and so has handed over what it had for others.
    pub(super) fn owe_again(&mut self, session: SessionKey, wanted: Wanted, out: &mut Outbox) {
        let pending = PendingSubscribe {
            asker: None,
            session,
            codes: Codes::new(),
            wanted,
            because: None,
            waiting: 0,
            durable: Position::default(),
        };
        self.await_interest(pending, out);
    }

    fn await_interest(&mut self, pending: PendingSubscribe, out: &mut Outbox) {
        let serial = self.next_serial();
        let waiting = self.mesh.await_interest(self.identity.shard, serial);
        if waiting == 0 {
            self.subscribed(pending, out);
        } else {
            self.subscribes
                .insert(serial, PendingSubscribe { waiting, ..pending });
        }
    }

    /// One filter of a SUBSCRIBE; returns what SUBACK says of it.
    fn subscribe(
        &mut self,
        key: SessionKey,
        text: &str,
        options: SubscriptionOptions,
        identifier: u32,
        wanted: &mut Wanted,
        out: &mut Outbox,
    ) -> ReasonCode {
        let Ok(subscription) = Subscription::parse(text) else {
            return ReasonCode::TopicFilterInvalid; // [MQTT-4.7.1-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        };
        if let Some(reason) = self.unavailable(subscription, identifier) {
            return reason;
        }
        if !self.may_subscribe(key, subscription) {
            return ReasonCode::NotAuthorized;
        }
        let Some(session) = self.sessions.get(key) else {
            return ReasonCode::UnspecifiedError;
        };
        let position = session.subscription(text);
        let full = session.subscriptions.len() >= self.settings.max_subscriptions as usize;
        if position.is_err() && full {
            return ReasonCode::QuotaExceeded;
        }
        // A QoS that is not supported is granted as the highest that is [MQTT-3.2.2-10].
        let qos = options.qos.min(self.settings.maximum_qos);
        let entry = SubscriptionEntry {
            filter: match position {
                Ok(position) => Arc::clone(&session.subscriptions[position].filter),
                Err(_) => text.into(),
            },
            options: SubscriptionOptions { qos, ..options },
            identifier,
            stored: position.map_or(None, |at| session.subscriptions[at].stored),
        };
        let is_new = position.is_err();
        let sends = subscription.share.is_none()
            && match options.retain_handling {
                RetainHandling::Send => true,        // [MQTT-3.3.1-9]
                RetainHandling::SendIfNew => is_new, // [MQTT-3.3.1-10]
                RetainHandling::DoNotSend => false,  // [MQTT-3.3.1-11]
            };
        // What an earlier SUBSCRIBE brings is owed until it was sent, whatever this one asks for.
        let owed = sends || self.is_replaying(key, text);
        let Some(session) = self.sessions.get_mut(key) else {
            return ReasonCode::UnspecifiedError;
        };
        let entry = SubscriptionEntry {
            stored: self.store.subscribed(session.keeps(), &entry, owed),
            ..entry
        };
        match position {
            Ok(position) => session.subscriptions[position] = entry.clone(), // [MQTT-3.8.4-3]
            Err(position) => {
                if session.subscriptions.is_empty() {
                    session.subscriptions.reserve_exact(1); // a vehicle has one or two
                }
                session.subscriptions.insert(position, entry.clone());
            }
        }
        if subscription.share.is_some() {
            session.shared += u32::from(is_new);
            let connected = session.connection.is_some();
            session.available |= connected;
            let available = session.available;
            self.join(key, &entry, available, out);
        } else {
            self.listen(key, subscription, &entry, out);
            if sends {
                if !is_new {
                    self.cancel_replays(key, Some(text));
                }
                wanted.push(self.prepare_replay(key, entry));
            }
        }
        granted(qos)
    }

    /// Why such a subscription is not offered at all [MQTT-3.8.3-2 3.1.1].
    pub(super) fn unavailable(
        &self,
        subscription: Subscription<'_>,
        identifier: u32,
    ) -> Option<ReasonCode> {
        let settings = &self.settings;
        if !settings.wildcard_subscription_available && subscription.filter.has_wildcard() {
            return Some(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if !settings.shared_subscription_available && subscription.share.is_some() {
            return Some(ReasonCode::SharedSubscriptionsNotSupported);
        }
        (!settings.subscription_identifiers_available && identifier != 0)
            .then_some(ReasonCode::SubscriptionIdentifiersNotSupported)
    }

    /// Puts a subscription that is not shared into the routes, here and on every shard.
    pub(super) fn listen(
        &mut self,
        key: SessionKey,
        subscription: Subscription<'_>,
        entry: &SubscriptionEntry,
        out: &mut Outbox,
    ) {
        let subscribed = self
            .routes
            .subscribe(subscription.filter, receiver(key, entry));
        if subscribed.first {
            let filter = &entry.filter;
            self.mesh.broadcast(
                self.identity.shard,
                || Control::Interest {
                    filter: Arc::clone(filter),
                    wanted: true,
                },
                out,
            );
        }
    }

    /// A shard has answered for the SUBSCRIBE `serial`.
    pub(super) fn interest_known(&mut self, serial: u64, out: &mut Outbox) {
        let Some(pending) = self.subscribes.get_mut(&serial) else {
            return;
        };
        pending.waiting -= 1;
        if pending.waiting == 0
            && let Some(pending) = self.subscribes.remove(&serial)
        {
            self.subscribed(pending, out);
        }
    }

    /// Every shard knows: SUBACK [MQTT-3.8.4-1], then retained messages.
    fn subscribed(&mut self, pending: PendingSubscribe, out: &mut Outbox) {
        let PendingSubscribe {
            asker,
            session,
            mut codes,
            wanted,
            because,
            durable,
            ..
        } = pending;
        if let Some((conn, packet_id)) = asker
            && let Some(connection) = self.connections.get(conn)
        {
            if !connection.version.is_v5() {
                for code in codes.iter_mut().filter(|code| **code >= 0x80) {
                    *code = 0x80; // the only failure that 3.1.1 knows [MQTT-3.9.3-2 3.1.1]
                }
            }
            let explanation = worst(&codes).and_then(|code| explanation(connection, code));
            let explanation = explanation.map(|text| because.unwrap_or(text));
            let suback = |reason_string| {
                Packet::SubAck(SubAck {
                    packet_id, // [MQTT-3.8.4-2] [MQTT-2.2.1-6]
                    reason_string,
                    user_properties: UserProperties::default(),
                    codes: &codes,
                })
            };
            self.send_explained(conn, explanation, suback, out);
            out.promise(conn, durable);
        }
        self.start_replays(session, &wanted, out);
        self.start_recalls(session, &wanted, out);
    }

    /// UNSUBSCRIBE: answered filter by filter [MQTT-3.10.4-6] [MQTT-3.11.3-1]. What is in the window or
    /// in the queue is delivered all the same [MQTT-3.10.4-3].
    pub(super) fn on_unsubscribe(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        unsubscribe: &Unsubscribe<'_>,
        out: &mut Outbox,
    ) {
        let mut codes = Codes::new();
        let mark = self.store.mark();
        for filter in unsubscribe.filters.iter() {
            let filter = whole_filter(self.mount_of(key), filter);
            codes.push(self.unsubscribe(key, &filter, out) as u8);
        }
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let explanation = worst(&codes).and_then(|code| explanation(connection, code));
        let unsuback = |reason_string| {
            Packet::UnsubAck(UnsubAck {
                packet_id: unsubscribe.packet_id, // [MQTT-3.10.4-4] [MQTT-3.10.4-5]
                reason_string,
                user_properties: UserProperties::default(),
                codes: &codes,
            })
        };
        self.send_explained(conn, explanation, unsuback, out);
        out.promise(conn, self.store.promised(mark));
    }

    fn unsubscribe(&mut self, key: SessionKey, text: &str, out: &mut Outbox) -> ReasonCode {
        let Ok(subscription) = Subscription::parse(text) else {
            return ReasonCode::TopicFilterInvalid;
        };
        if is_recall(subscription) {
            return match self.cancel_recalls(key, Some(text), out) {
                true => ReasonCode::Success,
                false => ReasonCode::NoSubscriptionExisted,
            };
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return ReasonCode::UnspecifiedError;
        };
        // Compared character by character [MQTT-3.10.4-1].
        let Ok(position) = session.subscription(text) else {
            return ReasonCode::NoSubscriptionExisted;
        };
        let removed = session.subscriptions.remove(position);
        self.store.unsubscribed(session.stored, removed.stored);
        self.withdraw(key, subscription, out);
        self.cancel_replays(key, Some(text));
        ReasonCode::Success
    }

    /// Takes a subscription out of the routes, here and on every shard.
    pub(super) fn withdraw(
        &mut self,
        key: SessionKey,
        subscription: Subscription<'_>,
        out: &mut Outbox,
    ) {
        let me = self.identity.shard;
        let Subscription { share, filter } = subscription;
        if let Some(share) = share {
            if let Some(session) = self.sessions.get_mut(key) {
                session.shared -= 1;
            }
            self.routes.leave(share, filter, me, key);
            let subscription: Arc<str> = subscription.to_text().into();
            let leave = || Control::Leave {
                subscription: Arc::clone(&subscription),
                session: key,
            };
            self.mesh.broadcast(me, leave, out);
            return;
        }
        if self.routes.unsubscribe(filter, key).last {
            let filter: Arc<str> = filter.as_str().into();
            let interest = || Control::Interest {
                filter: Arc::clone(&filter),
                wanted: false,
            };
            self.mesh.broadcast(me, interest, out);
        }
    }
}

/// The granted QoS [MQTT-3.8.4-7].
const fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

/// The first failure among the codes of a SUBACK or UNSUBACK.
fn worst(codes: &[u8]) -> Option<ReasonCode> {
    codes
        .iter()
        .filter_map(|&code| ReasonCode::from_u8(code))
        .find(|reason| reason.is_error())
}
