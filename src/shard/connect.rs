//! CONNECT: on which shard, whether at all, and with which session.

use crate::message::MessageView;
use crate::policy::{Decision, Grant, Mount};
use crate::route::SessionKey;
use crate::session::{Connection, NEVER_EXPIRES, OutgoingAliases, Phase, Session, Will};
use crate::time::Time;
use crate::topic::Name;
use crate::wire::{
    ConnAck, ConnAckProperties, Connect, Packet, PacketType, QoS, ReasonCode, Version,
};

use super::batch::home;
use super::close::Ending;
use super::tables::TimerKey;
use super::{
    Cause, ConnKey, Event, Fault, Flow, Handoff, Outbox, Question, Settings, Shard, Ticket,
};

/// Who waits for a slow authenticator.
pub(super) struct Asked {
    conn: ConnKey,
    /// The client id that was assigned to it, which the answer is about.
    assigned: Option<String>,
}

/// What was found out about a client that may come in.
pub(super) struct Admission {
    pub(super) grant: Option<Box<Grant>>,
    /// The last word of an exchange of AUTH packets.
    pub(super) data: Vec<u8>,
    /// Where its topics are, and its will there: [`Shard::admit`] finds it.
    mount: Option<Mount>,
    will: Option<Box<Will>>,
}

impl Admission {
    /// Of a client of which this is known.
    pub(super) fn new(grant: Option<Box<Grant>>, data: Vec<u8>) -> Self {
        Self {
            grant,
            data,
            mount: None,
            will: None,
        }
    }
}

/// What a slow authenticator said, until the CONNECT is looked at again.
pub(super) struct Answered {
    decision: Decision,
    assigned: Option<String>,
}

impl Shard {
    /// The first packet of a connection, at the start of `unread`.
    pub(super) fn first_packet(
        &mut self,
        conn: ConnKey,
        first_byte: u8,
        body: &[u8],
        unread: &[u8],
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        if let Some(flow) = self.exchanging(conn, first_byte, body, now, out) {
            return flow;
        }
        if first_byte >> 4 != PacketType::Connect as u8 {
            return Err(Fault::FirstPacketNotConnect); // [MQTT-3.1.0-1]
        }
        let Some(connection) = self.connections.get_mut(conn) else {
            return Ok(Flow::Next);
        };
        connection.version = answer_version(body);
        let connect = Connect::decode(body)?;
        connection.version = connect.version;
        connection.maximum_packet_size = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        connection.request_problem_information = connect.properties.request_problem_information;
        let owner = home(connect.client_id, self.identity.shards);
        if !connect.client_id.is_empty() && owner != self.identity.shard {
            self.hand_over(conn, owner, unread, out);
            return Ok(Flow::Next);
        }
        let (answer, assigned) = match self.answers.remove(&conn) {
            Some(answered) => (Some(answered.decision), answered.assigned),
            None if connect.client_id.is_empty() => (None, Some(self.assign_client_id())),
            None => (None, None),
        };
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        // Once, not again when an authenticator has answered.
        if answer.is_none()
            && let Some(reason) = self.turned_away(conn, client_id, now)
        {
            self.refuse(conn, client_id, reason, now, out);
            return Ok(Flow::Next);
        }
        let misshapen = connect.will.as_ref();
        let misshapen = misshapen.and_then(|will| self.misshapen_will(will.topic, will));
        if let Some(reason) = misshapen.or_else(|| refusal(&connect, &self.settings)) {
            self.refuse(conn, client_id, reason, now, out);
            return Ok(Flow::Next);
        }
        if connect.properties.authentication_method.is_some() {
            let begun = self.begin_exchange(conn, assigned.clone(), &connect, body, out);
            if let Err(reason) = begun {
                self.refuse(conn, client_id, reason, now, out); // [MQTT-4.12.0-1]
            }
            return Ok(Flow::Next);
        }
        let grant = match answer.unwrap_or_else(|| self.authenticate(conn, client_id, &connect)) {
            Decision::Allow => None,
            Decision::AllowAs(grant) => Some(grant),
            Decision::Deny(reason) => {
                self.refuse(conn, client_id, reason, now, out);
                return Ok(Flow::Next);
            }
            Decision::Pending => {
                self.ask(conn, assigned, &connect, out);
                return Ok(Flow::Hold);
            }
        };
        let admission = Admission::new(grant, Vec::new());
        self.admit(conn, client_id, &connect, admission, now, out);
        Ok(Flow::Next)
    }

    /// A client has shown who it is: it comes in, unless its client id is somebody else's.
    pub(super) fn admit(
        &mut self,
        conn: ConnKey,
        client_id: &str,
        connect: &Connect<'_>,
        admission: Admission,
        now: Time,
        out: &mut Outbox,
    ) {
        let grant = admission.grant.as_deref();
        let mount = match self.mount(conn, client_id, grant) {
            Ok(_) if self.is_of_another(client_id, grant) => Err(ReasonCode::NotAuthorized),
            Ok(mount) => self
                .mounted_will(mount.as_ref(), connect)
                .map(|will| (mount, will)),
            Err(reason) => Err(reason),
        };
        match mount {
            Ok((mount, will)) => {
                let admission = Admission {
                    mount,
                    will,
                    ..admission
                };
                self.accept(conn, client_id, connect, admission, now, out);
            }
            Err(reason) => self.refuse(conn, client_id, reason, now, out),
        }
    }

    /// The will of a CONNECT, its topic whole.
    fn mounted_will(
        &mut self,
        mount: Option<&Mount>,
        connect: &Connect<'_>,
    ) -> Result<Option<Box<Will>>, ReasonCode> {
        let Some(will) = &connect.will else {
            return Ok(None);
        };
        let mut whole = String::new();
        let topic = match mount {
            Some(mount) => {
                let whole = mount.name(will.topic, &mut whole);
                let whole = whole.map_err(|_| ReasonCode::TopicNameInvalid)?;
                if let Some(reason) = self.misshapen_will(whole, will) {
                    return Err(reason);
                }
                whole
            }
            None => will.topic,
        };
        Ok(Some(Box::new(keep_will(will, topic))))
    }

    /// A slow authenticator has answered.
    pub fn complete(&mut self, ticket: Ticket, answer: Decision, now: Time, out: &mut Outbox) {
        if answer == Decision::Pending {
            return;
        }
        let Some(Asked { conn, assigned }) = self.questions.remove(&ticket) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        connection.phase = Phase::Handshake;
        let decision = answer;
        self.answers.insert(conn, Answered { decision, assigned });
        out.reading.push((conn, true));
        self.resume(conn, now, out);
    }

    /// The session lives on another shard: the connection goes there, as if it had been accepted
    /// there.
    fn hand_over(
        &mut self,
        conn: ConnKey,
        to: crate::route::ShardId,
        unread: &[u8],
        out: &mut Outbox,
    ) {
        let Some(connection) = self.connections.remove(conn) else {
            return;
        };
        let _ = self
            .timers
            .move_to(TimerKey::Connection(conn), connection.timer, Time::NEVER);
        self.stats.connections -= 1;
        self.stats.handed_over += 1;
        // Counted by the shard that works on it; its bytes have been counted here.
        self.stats.packets_received[PacketType::Connect as usize] -= 1;
        out.handoffs.push(Handoff {
            conn,
            to,
            unread: unread.to_vec(),
            peer: connection.peer.clone(),
        });
    }

    /// A client id that no other client has [MQTT-3.1.3-6] [MQTT-3.2.2-16] and whose session belongs on
    /// this shard.
    fn assign_client_id(&mut self) -> String {
        loop {
            let client_id = format!("shardmq-{:016x}", self.random.next());
            if home(&client_id, self.identity.shards) == self.identity.shard
                && self.sessions.find(&client_id).is_none()
            {
                return client_id;
            }
        }
    }

    fn authenticate(&mut self, conn: ConnKey, client_id: &str, connect: &Connect<'_>) -> Decision {
        let Some(connection) = self.connections.get(conn) else {
            return Decision::Deny(ReasonCode::UnspecifiedError);
        };
        let peer = &connection.peer;
        let credentials = peer.credentials(client_id, connect.username, connect.password);
        self.policy.connect(&credentials)
    }

    /// Puts the question to a slow authenticator.
    fn ask(
        &mut self,
        conn: ConnKey,
        assigned: Option<String>,
        connect: &Connect<'_>,
        out: &mut Outbox,
    ) {
        let ticket = Ticket(self.next_serial());
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        connection.phase = Phase::Authenticating(ticket);
        out.reading.push((conn, false)); // nobody makes us hold more before we know who it is
        out.questions.push(Question {
            ticket,
            client_id: assigned.as_deref().unwrap_or(connect.client_id).into(),
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            peer: connection.peer.clone(),
        });
        self.questions.insert(ticket, Asked { conn, assigned });
    }

    /// CONNACK with an error, and the end of the connection [MQTT-3.1.4-2] [MQTT-3.2.2-7]
    /// [MQTT-4.13.2-1] [MQTT-3.1.3-9 3.1.1]; what came behind the CONNECT is not looked at
    /// [MQTT-3.1.4-6].
    pub(super) fn refuse(
        &mut self,
        conn: ConnKey,
        client_id: &str,
        reason: ReasonCode,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let address = connection.peer.address;
        self.was_refused(conn, reason, now);
        self.stats.refused(reason);
        out.event(Event::Refused {
            client_id: client_id.into(),
            address,
            reason,
        });
        self.send_connack(conn, reason, out);
        self.disconnect(conn, Ending::silent(Cause::Server(reason)), now, out);
    }

    /// A CONNACK that refuses; problem information in it is always allowed [MQTT-3.1.2-29].
    pub(super) fn send_connack(&mut self, conn: ConnKey, reason: ReasonCode, out: &mut Outbox) {
        let connack = |reason_string| {
            Packet::ConnAck(ConnAck {
                session_present: false, // [MQTT-3.2.2-6]
                reason,
                properties: ConnAckProperties {
                    reason_string,
                    ..ConnAckProperties::default()
                },
            })
        };
        self.send_explained(conn, Some(reason.text()), connack, out);
    }

    /// Lets the client in: takes over or makes its session, answers, and sends what waits.
    fn accept(
        &mut self,
        conn: ConnKey,
        client_id: &str,
        connect: &Connect<'_>,
        admission: Admission,
        now: Time,
        out: &mut Outbox,
    ) {
        let Admission {
            grant,
            data,
            mount,
            will,
        } = admission;
        let method = self.method(conn);
        let information = response_information(connect, client_id, &self.settings);
        let mut welcome = connack(connect, client_id, information.as_deref(), &self.settings);
        welcome.properties.authentication_method = method.as_deref(); // [MQTT-4.12.0-5] [MQTT-4.12.0-6]
        welcome.properties.authentication_data = method.as_ref().map(|_| &data[..]);
        // [MQTT-3.1.2-24]: nobody is served who cannot be told so.
        let maximum = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        if welcome.size(connect.version) > maximum as usize {
            return self.refuse(conn, client_id, ReasonCode::PacketTooLarge, now, out);
        }
        let mark = self.store.mark();
        let mounted = mount.as_ref().map_or(0, Mount::size);
        let (key, session_present) = self.begin_session(client_id, connect, mount, now, out);
        self.recognise(conn, key, grant, now);
        let will = will.filter(|will| self.outlives_its_rules(key, will));
        self.came_in(client_id, now);
        let expiry_interval = expiry_interval(connect, &self.settings);
        let (Some(session), Some(connection)) =
            (self.sessions.get_mut(key), self.connections.get_mut(conn))
        else {
            return;
        };
        session.connection = Some(conn); // [MQTT-3.1.4-4]: clean or resumed
        session.version = connect.version;
        session.expiry_interval = expiry_interval;
        session.will = will;
        session.will_at = Time::NEVER; // the old one is not sent [MQTT-3.1.3-9]
        session.expires_at = Time::NEVER;
        session.timer = self
            .timers
            .move_to(TimerKey::Session(key), session.timer, Time::NEVER);
        let keep_alive = keep_alive(connect, &self.settings);
        establish(connection, key, connect, keep_alive, &self.settings);
        connection.mounted = mounted;
        connection.last_packet = now;
        connection.timer = self.timers.move_to(
            TimerKey::Connection(conn),
            connection.timer,
            connection.due_at(),
        );
        self.store.connected(session);
        self.sessions.note_kept(key);
        self.stats.connects_accepted += 1;
        self.stats.clients_connected += 1;
        self.stats.clients_maximum = self.stats.clients_maximum.max(self.stats.clients_connected);
        out.established.push(conn);
        out.event(Event::Connected {
            client_id: client_id.into(),
            address: connection.peer.address,
            version: connect.version,
            session_present,
            keep_alive,
        });
        let welcome = ConnAck {
            session_present,
            ..welcome
        };
        let mut packet = Vec::new();
        welcome.encode(connect.version, &mut packet);
        out.write(conn).extend_from_slice(&packet);
        out.promise(conn, self.store.promised(mark));
        self.stats.sent(&packet);
        self.pump(key, now, out);
    }

    /// The session of this CONNECT, and whether it was there before. Another connection of the
    /// client ends [MQTT-3.1.4-3] [MQTT-3.1.4-2 3.1.1].
    fn begin_session(
        &mut self,
        client_id: &str,
        connect: &Connect<'_>,
        mount: Option<Mount>,
        now: Time,
        out: &mut Outbox,
    ) -> (SessionKey, bool) {
        if let Some(old) = self
            .sessions
            .find(client_id)
            .and_then(|key| self.sessions.get(key))
            && let Some(conn) = old.connection
        {
            self.stats.takeovers += 1;
            self.disconnect(conn, Ending::fault(Fault::SessionTakenOver), now, out);
        }
        // Looked up again: an interval of 0 has ended the session with its connection.
        if let Some(key) = self.sessions.find(client_id) {
            // With another mount its topics would mean something else.
            let is_over = self
                .sessions
                .get(key)
                .is_some_and(|old| old.expires_at <= now || old.standing.mount != mount);
            if !connect.clean_start && !is_over {
                return (key, true); // [MQTT-3.1.2-5] [MQTT-3.2.2-3]
            }
            self.end_session(key, now, out); // [MQTT-3.1.2-4]
        }
        if mount.is_some() {
            self.mounts_begin();
        }
        let mut session = Session::new(client_id);
        session.standing.mount = mount;
        (self.sessions.insert(session), false) // [MQTT-3.1.2-6] [MQTT-3.2.2-2]
    }
}

/// CONNACK: the first packet to the client and the only one of its kind [MQTT-3.2.0-1]
/// [MQTT-3.2.0-2] [MQTT-3.1.4-5], with every limit that differs from what the standard assumes.
fn connack<'a>(
    connect: &Connect<'_>,
    client_id: &'a str,
    response_information: Option<&'a str>,
    settings: &Settings,
) -> ConnAck<'a> {
    let expiry = expiry_interval(connect, settings);
    let asked = connect.properties.session_expiry_interval.unwrap_or(0);
    let keep_alive = keep_alive(connect, settings);
    ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties {
            session_expiry_interval: (expiry != asked).then_some(expiry),
            receive_maximum: (settings.receive_maximum < u16::MAX)
                .then_some(settings.receive_maximum),
            maximum_qos: (settings.maximum_qos < QoS::ExactlyOnce).then_some(settings.maximum_qos), // [MQTT-3.2.2-9]
            retain_available: (!settings.retain_available).then_some(false),
            maximum_packet_size: Some(settings.maximum_packet_size),
            assigned_client_identifier: connect.client_id.is_empty().then_some(client_id), // [MQTT-3.1.3-7]
            topic_alias_maximum: (settings.topic_alias_maximum > 0)
                .then_some(settings.topic_alias_maximum),
            wildcard_subscription_available: (!settings.wildcard_subscription_available)
                .then_some(false),
            subscription_identifiers_available: (!settings.subscription_identifiers_available)
                .then_some(false),
            shared_subscription_available: (!settings.shared_subscription_available)
                .then_some(false),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive), // [MQTT-3.2.2-21]
            response_information,
            ..ConnAckProperties::default()
        },
    }
}

/// What a client is told that asks for Response Information [MQTT-3.1.2-28].
fn response_information(
    connect: &Connect<'_>,
    client_id: &str,
    settings: &Settings,
) -> Option<String> {
    let text = &settings.response_information;
    (connect.properties.request_response_information && !text.is_empty())
        .then(|| text.replace("%c", client_id))
}

/// The version to refuse a CONNECT in that may not even be one: 5 for 5 and what is to come, 3.1.1
/// for everything else [MQTT-3.1.2-2].
fn answer_version(body: &[u8]) -> Version {
    let level = match body {
        [high, low, rest @ ..] => rest.get(usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    };
    match level {
        Some(5..) => Version::V5,
        _ => Version::V3_1_1,
    }
}

/// Why a well-formed CONNECT cannot be accepted, whoever sends it. No client id is refused for its
/// characters or its length [MQTT-3.1.3-5].
fn refusal(connect: &Connect<'_>, settings: &Settings) -> Option<ReasonCode> {
    let v5 = connect.version.is_v5();
    // An empty client id: version 5 gets one, 3.1.1 only with CleanSession 1 [MQTT-3.1.3-7 3.1.1]
    // [MQTT-3.1.3-8 3.1.1], 3.1 never.
    let anonymous = v5 || (connect.version == Version::V3_1_1 && connect.clean_start);
    if connect.client_id.is_empty() && !anonymous {
        return Some(ReasonCode::ClientIdentifierNotValid);
    }
    if let Some(will) = &connect.will {
        if will.qos > settings.maximum_qos {
            return Some(ReasonCode::QoSNotSupported); // [MQTT-3.2.2-12]
        }
        if will.retain && !settings.retain_available {
            return Some(ReasonCode::RetainNotSupported); // [MQTT-3.2.2-13]
        }
    }
    // Only version 5 can be told another interval.
    (!v5 && keep_alive(connect, settings) != connect.keep_alive)
        .then_some(ReasonCode::ClientIdentifierNotValid)
}

/// The Keep Alive that holds, in seconds: the client's, if no other is announced [MQTT-3.2.2-22].
fn keep_alive(connect: &Connect<'_>, settings: &Settings) -> u16 {
    match (connect.keep_alive, settings.max_keep_alive) {
        (asked, 0) => asked,
        (0, maximum) => maximum,
        (asked, maximum) => asked.min(maximum),
    }
}

/// The Session Expiry Interval that holds, in seconds.
fn expiry_interval(connect: &Connect<'_>, settings: &Settings) -> u32 {
    let asked = match (connect.version, connect.clean_start) {
        (Version::V5, _) => connect.properties.session_expiry_interval.unwrap_or(0),
        (_, true) => 0,
        (_, false) => NEVER_EXPIRES,
    };
    asked.min(settings.max_session_expiry_interval)
}

fn establish(
    connection: &mut Connection,
    session: SessionKey,
    connect: &Connect<'_>,
    keep_alive: u16,
    settings: &Settings,
) {
    let properties = &connect.properties;
    connection.phase = Phase::Connected(session);
    connection.receive_maximum = properties
        .receive_maximum
        .unwrap_or(u16::MAX)
        .min(settings.max_inflight);
    connection.keep_alive_us = u64::from(keep_alive) * 1_500_000; // [MQTT-3.1.2-22]
    connection.expiry_was_zero = expiry_interval(connect, settings) == 0;
    let aliases = OutgoingAliases::new(properties.topic_alias_maximum);
    connection.outgoing_aliases = aliases.map(Box::new);
}

fn keep_will(will: &crate::wire::Will<'_>, topic: Name<'_>) -> Will {
    let mut properties = Vec::new();
    will.forwarded.write_to(&mut properties);
    let message = MessageView {
        topic,
        properties: &properties,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        expires_at: Time::NEVER,
    };
    Will {
        message: message.to_message(),
        delay_interval: will.delay_interval,
        message_expiry_interval: will.message_expiry_interval,
    }
}
