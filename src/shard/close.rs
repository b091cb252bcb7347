//! The end of a connection and the end of a session, and the will that stands between them.

use crate::message::MessageView;
use crate::route::SessionKey;
use crate::session::{NEVER_EXPIRES, Phase};
use crate::stats::{Denied, DropReason};
use crate::time::Time;
use crate::topic::Subscription;
use crate::wire::{Disconnect, Packet, ReasonCode, UserProperties};

use super::publish::Publisher;
use super::tables::TimerKey;
use super::{Cause, ConnKey, Event, Fault, Outbox, Shard};

/// How the driver saw a connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed it.
    Eof,
    /// The socket failed with this error number of the operating system.
    Io(i32),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) cause: Cause,
    /// What a version 5 client is told in a DISCONNECT.
    tell: Option<Fault>,
    /// Whether the will is dropped unpublished: only after DISCONNECT 0x00 [MQTT-3.14.4-3].
    without_will: bool,
    /// Whether the driver still has the socket and is to close it.
    close_socket: bool,
}

impl Ending {
    /// The broker ends it because of `fault`.
    pub(super) fn fault(fault: Fault) -> Self {
        Self {
            tell: Some(fault),
            ..Self::silent(Cause::Server(fault.reason_code()))
        }
    }

    /// The broker ends it without another word.
    pub(super) fn silent(cause: Cause) -> Self {
        Self {
            cause,
            tell: None,
            without_will: false,
            close_socket: true,
        }
    }
}

impl Shard {
    /// The socket of `conn` is gone.
    pub fn close(&mut self, conn: ConnKey, cause: CloseCause, now: Time, out: &mut Outbox) {
        let cause = match cause {
            CloseCause::Eof => Cause::Eof,
            CloseCause::Io(errno) => Cause::Io(errno),
        };
        let ending = Ending {
            close_socket: false,
            ..Ending::silent(cause)
        };
        self.disconnect(conn, ending, now, out);
    }

    /// Wills are published [MQTT-3.1.2-8], those with a delay too where the session ends with the
    /// process; then every connection ends with 0x8B.
    pub fn shutdown(&mut self, now: Time, out: &mut Outbox) {
        for key in self.sessions.keys() {
            let session = self.sessions.get(key);
            if session.is_some_and(|session| session.keeps().is_none()) {
                self.publish_will(key, now, out);
            }
        }
        for conn in self.connections.keys() {
            self.disconnect(conn, Ending::fault(Fault::ShuttingDown), now, out);
        }
    }

    /// The peer broke a rule: it is told where its version allows it, and cut off
    /// [MQTT-4.13.1-1] [MQTT-4.8.0-1 3.1.1].
    pub(super) fn fail(
        &mut self,
        conn: ConnKey,
        fault: Fault,
        offset: u64,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let address = connection.peer.address;
        let session = connection.session().and_then(|key| self.sessions.get(key));
        let client_id = session.map_or_else(Box::default, |session| session.client_id.clone());
        self.stats.violated(fault.reason_code());
        out.event(Event::Violation {
            client_id,
            address,
            fault,
            offset,
        });
        self.disconnect(conn, Ending::fault(fault), now, out);
    }

    /// DISCONNECT from the client.
    pub(super) fn on_disconnect(
        &mut self,
        conn: ConnKey,
        disconnect: &Disconnect<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(connection) = self.connections.get(conn) else {
            return Ok(());
        };
        if !client_may_send(disconnect.reason) {
            return Err(Fault::DisconnectReason);
        }
        if let (Some(interval), Some(key)) =
            (disconnect.session_expiry_interval, connection.session())
        {
            if connection.expiry_was_zero && interval > 0 {
                return Err(Fault::SessionExpiryFromZero); // section 3.14.2.2.2
            }
            if let Some(session) = self.sessions.get_mut(key) {
                session.expiry_interval = interval.min(self.settings.max_session_expiry_interval);
            }
            self.sessions.note_kept(key);
        }
        let ending = Ending {
            without_will: disconnect.reason == ReasonCode::Success, // [MQTT-3.1.2-10] [MQTT-3.14.4-3]
            ..Ending::silent(Cause::Client(disconnect.reason))
        };
        self.disconnect(conn, ending, now, out);
        Ok(())
    }

    /// Ends a connection, and its session if that is not to outlive it.
    pub(super) fn disconnect(
        &mut self,
        conn: ConnKey,
        ending: Ending,
        now: Time,
        out: &mut Outbox,
    ) {
        if let Some(fault) = ending.tell {
            self.tell(conn, fault, out);
        }
        let Some(connection) = self.connections.remove(conn) else {
            return;
        };
        let _ = self
            .timers
            .move_to(TimerKey::Connection(conn), connection.timer, Time::NEVER);
        self.stats.connections -= 1;
        self.answers.remove(&conn);
        self.enhanced.remove(&conn);
        let mark = self.store.mark();
        match connection.phase {
            Phase::Handshake => {}
            Phase::Authenticating(ticket) => {
                self.questions.remove(&ticket);
            }
            Phase::Connected(key) => {
                self.stats.clients_connected -= 1;
                self.leave_session(key, ending, now, out);
            }
        }
        if ending.close_socket {
            // Who sees the end knows that it is on disk: that no will is left, above all.
            out.promise(conn, self.store.promised(mark));
            // Nothing follows a DISCONNECT but the end [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1].
            out.close(conn);
        }
    }

    /// The session of a connection that ended: over at once, or kept for its interval.
    fn leave_session(&mut self, key: SessionKey, ending: Ending, now: Time, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let client_id = session.client_id.clone();
        self.stats.ended[ending.cause.end() as usize] += 1;
        out.event(Event::Disconnected {
            client_id,
            cause: ending.cause,
        });
        session.connection = None;
        session.window.rewind();
        self.cancel_recalls(key, None, out);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if ending.without_will {
            session.will = None;
        }
        session.expires_at = match session.expiry_interval {
            NEVER_EXPIRES => Time::NEVER,
            seconds => now.plus_secs(seconds.into()), // [MQTT-3.1.2-23]
        };
        let delay = session.will.as_ref().map(|will| will.delay_interval);
        session.will_at = delay.map_or(Time::NEVER, |seconds| now.plus_secs(seconds.into()));
        if session.expiry_interval == 0 {
            return self.end_session(key, now, out);
        }
        self.store.disconnected(session);
        if delay == Some(0) {
            self.publish_will(key, now, out); // [MQTT-3.1.2-8]
        }
        self.update_availability(key, out);
        self.arm_session(key);
    }

    /// Puts the next deadline of a session without connection into the timers.
    pub(super) fn arm_session(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.timer =
                self.timers
                    .move_to(TimerKey::Session(key), session.timer, session.deadline());
        }
    }

    /// Tells a client why its connection ends: CONNACK before the session, DISCONNECT with it
    /// [MQTT-3.14.0-1].
    fn tell(&mut self, conn: ConnKey, fault: Fault, out: &mut Outbox) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let reason = fault.reason_code();
        if connection.session().is_none() {
            // Nobody who sent something else than a CONNECT gets a CONNACK.
            if matches!(fault, Fault::Wire(_)) && refusable(connection.version.is_v5(), reason) {
                self.send_connack(conn, reason, out);
            }
            return;
        }
        if !connection.version.is_v5() {
            return; // in 3.1.1 only a client sends DISCONNECT
        }
        let disconnect = |reason_string| {
            Packet::Disconnect(Disconnect {
                reason,
                session_expiry_interval: None, // [MQTT-3.14.2-2]
                reason_string,
                user_properties: UserProperties::default(),
                server_reference: None,
            })
        };
        self.send_explained(conn, Some(fault.rule()), disconnect, out);
    }

    /// Ends a session: its subscriptions, its messages, its will. Retained messages are no part of it
    /// [MQTT-3.1.2-7 3.1.1].
    pub(super) fn end_session(&mut self, key: SessionKey, now: Time, out: &mut Outbox) {
        self.publish_will(key, now, out); // [MQTT-3.1.2-8], at the latest when the session ends
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let subscriptions = std::mem::take(&mut session.subscriptions);
        for entry in &subscriptions {
            self.withdraw(key, Subscription::trusted(&entry.filter), out);
        }
        self.cancel_replays(key, None);
        self.forsake_commons(key);
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        let _ = self
            .timers
            .move_to(TimerKey::Session(key), session.timer, Time::NEVER);
        self.stats.forget_queue(&session.queue);
        let named = session.queue.count_away() + session.queue.count_common();
        let mut discarded = named as u64;
        let unacknowledged = session.window.drain().map(|delivery| (true, delivery));
        let queued = session.queue.take().map(|delivery| (false, delivery));
        for (sent, delivery) in unacknowledged.chain(queued) {
            if !self.redeliver(&delivery, sent, now, out) {
                discarded += 1;
            }
        }
        self.store.remove_session(session.stored);
        self.stats
            .drop_messages(DropReason::SessionEnded, discarded);
        out.event(Event::SessionEnded {
            client_id: session.client_id,
            discarded,
        });
    }

    /// Publishes the will of a session, if it has one left.
    pub(super) fn publish_will(&mut self, key: SessionKey, now: Time, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.will_at = Time::NEVER;
        let Some(will) = session.will.take() else {
            return;
        };
        let message = will.message.view();
        if !self.may_publish(key, message.topic, (Denied::Will, 1)) {
            let stored = self.sessions.get(key).and_then(|session| session.stored);
            self.store.will_published(stored);
            return; // a will may do no more than a PUBLISH of the same client
        }
        let expires_at = will
            .message_expiry_interval
            .map_or(Time::NEVER, |seconds| now.plus_secs(seconds.into()));
        self.stats.wills_published += 1;
        // [MQTT-3.1.2-14] [MQTT-3.1.2-15]: retained or not, as CONNECT said.
        let message = MessageView {
            expires_at,
            ..message
        };
        self.publish(&message, None, Publisher::BROKER, now, out);
        let stored = self.sessions.get(key).and_then(|session| session.stored);
        self.store.will_published(stored);
    }
}

/// Whether a CONNACK of this version can say it.
fn refusable(v5: bool, reason: ReasonCode) -> bool {
    v5 || reason == ReasonCode::UnsupportedProtocolVersion // [MQTT-3.1.2-2 3.1.1]
}

/// The reasons of DISCONNECT that table 3-10 of version 5 gives to clients.
fn client_may_send(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::DisconnectWithWillMessage
            | ReasonCode::UnspecifiedError
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::TopicNameInvalid
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::MessageRateTooHigh
            | ReasonCode::QuotaExceeded
            | ReasonCode::AdministrativeAction
            | ReasonCode::PayloadFormatInvalid
    )
}
