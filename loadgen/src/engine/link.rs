//! What lies between a client's socket and its MQTT: TLS, WebSocket, both or nothing.
//!
//! A client without either has no [`Link`] and pays one look at an empty option. MQTT that is sent before the
//! layers are agreed on waits in the link.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use shardmq::link::ws;

use crate::plan::Plan;
use crate::plan::schedule::mix;

/// What the links of all clients are made of.
#[derive(Clone)]
pub(super) struct Layers {
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The host and the path that are asked for.
    ws: Option<(String, String)>,
    seed: u64,
}

/// The layers of one client.
pub(super) struct Link {
    tls: Option<ClientConnection>,
    ws: Option<ws::Client>,
    /// MQTT that waits for the WebSocket.
    waiting: Vec<u8>,
    /// What is to be encrypted, or sent as it is.
    outgoing: Vec<u8>,
    /// What was decrypted.
    frames: Vec<u8>,
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut formatter = formatter.debug_struct("Link");
        formatter.field("ws", &self.ws).finish_non_exhaustive()
    }
}

impl Layers {
    /// Those of a plan; `None` for MQTT in the clear.
    pub(super) fn new(plan: &Plan) -> Result<Option<Self>, String> {
        let transport = &plan.transport;
        if transport.tls.is_none() && transport.ws.is_none() {
            return Ok(None);
        }
        let protocol: &[u8] = match transport.ws {
            Some(_) => b"http/1.1",
            None => b"mqtt",
        };
        let tls = match &transport.tls {
            Some(options) => {
                let config = options.config(protocol)?;
                let name = ServerName::try_from(plan.host.clone());
                let name = name.map_err(|_| format!("TLS: {:?} is no name", plan.host))?;
                Some((config, name))
            }
            None => None,
        };
        let host = match plan.host.contains(':') {
            true => format!("[{}]:{}", plan.host, plan.port),
            false => format!("{}:{}", plan.host, plan.port),
        };
        Ok(Some(Self {
            tls,
            ws: transport.ws.clone().map(|path| (host, path)),
            seed: plan.seed,
        }))
    }

    /// The layers of a connection that is begun.
    pub(super) fn link(&mut self) -> Result<Link, String> {
        let tls = match &self.tls {
            Some((config, name)) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone());
                let mut connection = connection.map_err(|error| error.to_string())?;
                connection.set_buffer_limit(None);
                Some(connection)
            }
            None => None,
        };
        let mut outgoing = Vec::new();
        self.seed = mix(self.seed);
        let ws = self.ws.as_ref();
        let ws = ws.map(|(host, path)| ws::Client::new(host, path, self.seed, &mut outgoing));
        Ok(Link {
            tls,
            ws,
            waiting: Vec::new(),
            outgoing,
            frames: Vec::new(),
        })
    }
}

impl Link {
    /// Takes bytes from the socket; puts those of MQTT behind `plain`.
    pub(super) fn receive(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        let Some(tls) = &mut self.tls else {
            return unframe(&mut self.ws, bytes, plain, &mut self.outgoing).map(|()| self.let_go());
        };
        let mut frames = std::mem::take(&mut self.frames);
        let into = match self.ws {
            Some(_) => &mut frames,
            None => &mut *plain,
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)
                .map_err(|error| error.to_string())?;
            let state = tls.process_new_packets();
            let state = state.map_err(|error| format!("TLS: {error}"))?;
            let start = into.len();
            into.resize(start + state.plaintext_bytes_to_read(), 0);
            let read = tls.reader().read_exact(&mut into[start..]);
            read.map_err(|error| error.to_string())?;
        }
        if self.ws.is_some() {
            unframe(&mut self.ws, &frames, plain, &mut self.outgoing)?;
            frames.clear();
            self.let_go();
        }
        self.frames = frames;
        Ok(())
    }

    /// MQTT that has waited goes, once there is a WebSocket for it.
    fn let_go(&mut self) {
        if let Some(ws) = self.ws.as_mut().filter(|ws| ws.is_open())
            && !self.waiting.is_empty()
        {
            let mut waiting = std::mem::take(&mut self.waiting);
            ws.frame(&mut waiting);
            self.outgoing.append(&mut waiting);
        }
    }

    /// Whether there are bytes for the socket besides those of MQTT.
    pub(super) fn has_output(&self) -> bool {
        !self.outgoing.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Makes `mqtt` and what there is besides into bytes for the socket.
    pub(super) fn send(&mut self, mut mqtt: Vec<u8>) -> Result<Vec<u8>, String> {
        match &mut self.ws {
            Some(ws) if !ws.is_open() => self.waiting.append(&mut mqtt),
            Some(ws) if !mqtt.is_empty() => ws.frame(&mut mqtt),
            _ => {}
        }
        let mut bytes = std::mem::take(&mut self.outgoing);
        bytes.append(&mut mqtt);
        let Some(tls) = &mut self.tls else {
            return Ok(bytes);
        };
        let write = tls.writer().write_all(&bytes);
        write.map_err(|error| error.to_string())?;
        bytes.clear();
        while tls.wants_write() {
            tls.write_tls(&mut bytes)
                .map_err(|error| error.to_string())?;
        }
        Ok(bytes)
    }
}

/// Takes frames apart, if there is a WebSocket. After its farewell the broker closes the socket, which is told
/// then.
fn unframe(
    ws: &mut Option<ws::Client>,
    bytes: &[u8],
    plain: &mut Vec<u8>,
    reply: &mut Vec<u8>,
) -> Result<(), String> {
    match ws {
        Some(ws) => {
            let received = ws.receive(bytes, plain, reply);
            received
                .map(drop)
                .map_err(|text| format!("WebSocket: {text}"))
        }
        None => {
            plain.extend_from_slice(bytes);
            Ok(())
        }
    }
}
