//! Enhanced authentication, section 4.12: AUTH packets between CONNECT and CONNACK, and again whenever a
//! client that came in that way wants to show anew who it is.
//!
//! A CONNECT that has to wait for its client's next word is kept as it came and looked at again once
//! that word has shown who sends it.

use crate::policy::{Credentials, Exchange, Grant};
use crate::route::SessionKey;
use crate::time::Time;
use crate::wire::{Auth, Connect, Packet, PacketType, ReasonCode};

use super::connect::Admission;
use super::{ConnKey, Fault, Flow, Outbox, Shard};

/// A connection whose CONNECT named an Authentication Method.
pub(super) struct Enhanced {
    method: Box<str>,
    /// What goes on: an exchange, before CONNACK with the CONNECT that began it.
    exchange: Option<Exchange>,
    connect: Option<Waiting>,
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
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let Some(connection) = self.connections.get(conn) else {
            return Ok(());
        };
        let properties = &connect.properties;
        let method = properties.authentication_method.unwrap_or_default();
        let credentials = Credentials {
            client_id,
            username: connect.username,
            password: connect.password,
            certificate: connection.peer.certificate_name.as_deref(),
            listener: connection.peer.listener,
            address: connection.peer.address,
        };
        let data = properties.authentication_data.unwrap_or_default();
        let (exchange, answer) = self.policy.begin(method, &credentials, data)?;
        self.send_auth(
            conn,
            method,
            ReasonCode::ContinueAuthentication,
            &answer,
            out,
        );
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
        match self.policy.finish(exchange, data) {
            Ok((grant, answer)) => {
                let admission = Admission {
                    grant: Some(Box::new(grant)),
                    data: answer,
                };
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
                let (grant, answer) = self.policy.finish(exchange, data).map_err(failed)?;
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
    ) -> Result<Exchange, Fault> {
        let (Some(session), Some(connection)) =
            (self.sessions.get(session), self.connections.get(conn))
        else {
            return Err(Fault::ReAuthenticationFailed);
        };
        let credentials = Credentials {
            client_id: &session.client_id,
            username: None,
            password: None,
            certificate: connection.peer.certificate_name.as_deref(),
            listener: connection.peer.listener,
            address: connection.peer.address,
        };
        let begun = self.policy.begin(method, &credentials, data);
        let (exchange, answer) = begun.map_err(|_| Fault::ReAuthenticationFailed)?;
        self.send_auth(
            conn,
            method,
            ReasonCode::ContinueAuthentication,
            &answer,
            out,
        );
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
