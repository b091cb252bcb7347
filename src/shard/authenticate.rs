//! Enhanced authentication, section 4.12: AUTH packets between CONNECT and CONNACK, and again whenever a
//! client that came in that way wants to show anew who it is.
//!
//! A CONNECT that has to wait for its client's next word is kept as it came and looked at again once
//! that word has shown who sends it.

use crate::policy::{Exchange, Grant};
use crate::route::SessionKey;
use crate::time::Time;
use crate::wire::{Auth, Connect, Packet, PacketType, ReasonCode};

use super::connect::Admission;
use super::{ConnKey, Fault, Flow, Outbox, Shard};

/// A connection whose CONNECT named an Authentication Method.
pub(super) struct Enhanced {
    method: Box<str>,
    /// What goes on: an exchange, before CONNACK with the CONNECT that began it.
    exchange: Option<Box<dyn Exchange>>,
    connect: Option<Waiting>,
}

/// Who begins an exchange, by his own words.
struct Beginner<'a> {
    client_id: &'a str,
    username: Option<&'a str>,
    password: Option<&'a [u8]>,
    /// The first Authentication Data.
    data: &'a [u8],
}

/// A CONNECT that waits.
struct Waiting {
    body: Vec<u8>,
    /// The client id that was assigned to it.
    assigned: Option<String>,
}

impl Shard {
    /// A CONNECT with an Authentication Method: its exchange begins.
    pub(super) fn begin_exchange(
        &mut self,
        conn: ConnKey,
        assigned: Option<String>,
        connect: &Connect<'_>,
        body: &[u8],
        out: &mut Outbox,
    ) -> Result<(), ReasonCode> {
        let properties = &connect.properties;
        let method = properties.authentication_method.unwrap_or_default();
        let beginner = Beginner {
            client_id: assigned.as_deref().unwrap_or(connect.client_id),
            username: connect.username,
            password: connect.password,
            data: properties.authentication_data.unwrap_or_default(),
        };
        let exchange = self.first_step(conn, method, &beginner, out)?;
        let enhanced = Enhanced {
            method: method.into(),
            exchange: Some(exchange),
            connect: Some(Waiting {
                body: body.to_vec(),
                assigned,
            }),
        };
        self.enhanced.insert(conn, enhanced);
        Ok(())
    }

    /// A packet of a connection whose exchange goes on before CONNACK: AUTH, or DISCONNECT
    /// [MQTT-3.1.2-30]. `None` if there is no such exchange.
    pub(super) fn exchanging(
        &mut self,
        conn: ConnKey,
        first_byte: u8,
        body: &[u8],
        now: Time,
        out: &mut Outbox,
    ) -> Option<Result<Flow, Fault>> {
        self.enhanced.get(&conn)?.connect.as_ref()?;
        Some(self.exchange_step(conn, first_byte, body, now, out))
    }

    fn exchange_step(
        &mut self,
        conn: ConnKey,
        first_byte: u8,
        body: &[u8],
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        let Some(connection) = self.connections.get(conn) else {
            return Ok(Flow::Next);
        };
        let version = connection.version;
        let kind = first_byte >> 4;
        if kind == PacketType::Disconnect as u8 {
            let Packet::Disconnect(disconnect) = Packet::decode(version, first_byte, body)? else {
                return Ok(Flow::Next);
            };
            self.on_disconnect(conn, &disconnect, now, out)?;
            return Ok(Flow::Next);
        }
        if kind != PacketType::Auth as u8 {
            return Err(Fault::PacketWithinAuthentication);
        }
        let Packet::Auth(auth) = Packet::decode(version, first_byte, body)? else {
            return Ok(Flow::Next);
        };
        let Some(enhanced) = self.enhanced.get_mut(&conn) else {
            return Ok(Flow::Next);
        };
        if auth.authentication_method != Some(&enhanced.method) {
            return Err(Fault::AuthenticationMethodChanged); // [MQTT-4.12.0-5]
        }
        // [MQTT-4.12.0-3]
        let (Some(exchange), Some(waiting), ReasonCode::ContinueAuthentication) = (
            enhanced.exchange.take(),
            enhanced.connect.take(),
            auth.reason,
        ) else {
            return Err(Fault::AuthenticationStep);
        };
        let connect = Connect::decode(&waiting.body)?;
        let client_id = waiting.assigned.as_deref().unwrap_or(connect.client_id);
        let data = auth.authentication_data.unwrap_or_default();
        match exchange.finish(data) {
            Ok((grant, answer)) => {
                let admission = Admission::new(Some(Box::new(grant)), answer);
                self.admit(conn, client_id, &connect, admission, now, out);
            }
            // [MQTT-4.12.0-4]
            Err(reason) => self.refuse(conn, client_id, reason, now, out),
        }
        Ok(Flow::Next)
    }

    /// AUTH of a client that is in: it shows anew who it is, section 4.12.1.
    pub(super) fn on_auth(
        &mut self,
        conn: ConnKey,
        session: SessionKey,
        auth: &Auth<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(enhanced) = self.enhanced.get_mut(&conn) else {
            return Err(Fault::AuthenticationNotStarted); // [MQTT-4.12.0-7]
        };
        if auth.authentication_method != Some(&enhanced.method) {
            return Err(Fault::AuthenticationMethodChanged); // [MQTT-4.12.1-1]
        }
        let method = enhanced.method.clone();
        let data = auth.authentication_data.unwrap_or_default();
        match (auth.reason, enhanced.exchange.take()) {
            (ReasonCode::ReAuthenticate, None) => {
                let exchange = self.begin_again(conn, session, &method, data, out)?;
                if let Some(enhanced) = self.enhanced.get_mut(&conn) {
                    enhanced.exchange = Some(exchange);
                }
                Ok(())
            }
            (ReasonCode::ContinueAuthentication, Some(exchange)) => {
                let failed = |_| Fault::ReAuthenticationFailed; // [MQTT-4.12.1-2]
                let (grant, answer) = exchange.finish(data).map_err(failed)?;
                self.recognise_again(conn, session, grant, now)?;
                self.send_auth(conn, &method, ReasonCode::Success, &answer, out);
                Ok(())
            }
            _ => Err(Fault::AuthenticationStep),
        }
    }

    fn begin_again(
        &mut self,
        conn: ConnKey,
        session: SessionKey,
        method: &str,
        data: &[u8],
        out: &mut Outbox,
    ) -> Result<Box<dyn Exchange>, Fault> {
        let session = self.sessions.get(session);
        let client_id = session.map(|session| session.client_id.clone());
        let beginner = Beginner {
            client_id: &client_id.ok_or(Fault::ReAuthenticationFailed)?,
            username: None,
            password: None,
            data,
        };
        let begun = self.first_step(conn, method, &beginner, out);
        begun.map_err(|_| Fault::ReAuthenticationFailed)
    }

    /// An exchange begins: the client is told what the policy has to say to its first word.
    fn first_step(
        &mut self,
        conn: ConnKey,
        method: &str,
        beginner: &Beginner<'_>,
        out: &mut Outbox,
    ) -> Result<Box<dyn Exchange>, ReasonCode> {
        let connection = self.connections.get(conn);
        let peer = &connection.ok_or(ReasonCode::UnspecifiedError)?.peer;
        let credentials =
            peer.credentials(beginner.client_id, beginner.username, beginner.password);
        let (exchange, answer) = self.policy.begin(method, &credentials, beginner.data)?;
        let reason = ReasonCode::ContinueAuthentication;
        self.send_auth(conn, method, reason, &answer, out);
        Ok(exchange)
    }

    /// Nobody becomes somebody else by it: the session is its owner's.
    fn recognise_again(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        grant: Grant,
        now: Time,
    ) -> Result<(), Fault> {
        let known = self
            .sessions
            .get(key)
            .and_then(|session| session.standing.grant.as_ref())
            .and_then(|grant| grant.username.as_deref());
        if known != grant.username.as_deref() {
            return Err(Fault::ReAuthenticationFailed);
        }
        self.recognise(conn, key, Some(Box::new(grant)), now);
        Ok(())
    }

    /// AUTH to a client [MQTT-4.12.0-2].
    fn send_auth(
        &mut self,
        conn: ConnKey,
        method: &str,
        reason: ReasonCode,
        data: &[u8],
        out: &mut Outbox,
    ) {
        let auth = Packet::Auth(Auth {
            reason,
            authentication_method: Some(method),
            authentication_data: Some(data),
            ..Auth::default()
        });
        self.send(conn, &auth, out);
    }

    /// The method that a connection came in by, to be repeated in its CONNACK [MQTT-4.12.0-5].
    pub(super) fn method(&self, conn: ConnKey) -> Option<Box<str>> {
        self.enhanced
            .get(&conn)
            .map(|enhanced| enhanced.method.clone())
    }
}
