//! What lies between the bytes of a socket and those of MQTT: TLS, WebSocket, the PROXY protocol, in
//! any combination. Transformers of bytes, without sockets, clocks or files.
//!
//! A connection in the clear has no [`Link`] at all, so it pays for none of this. One with a link costs a
//! pass over its bytes for each layer and no buffer between two reads, but for the start of a TLS
//! record or of a header that is not complete. MQTT asks that packets may be split and joined over
//! frames at will [MQTT-6.0.0-2], so a frame of WebSocket is passed on as it comes and never gathered.
//!
//! Invariants:
//! - What [`Link::receive`] leaves for MQTT before an error or a farewell is valid and came first.
//! - Before [`Link::is_open`] nothing is left for MQTT, and the core does not know the connection.
//! - What is for the socket lies in the link until it is taken: it moves with the connection to another
//!   shard.

pub mod proxy;
#[cfg(feature = "runtime")]
pub mod tls;
pub mod ws;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

pub use proxy::Network;

/// Why a link is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The header of the PROXY protocol.
    Proxy(proxy::Refusal),
    /// TLS, in the words of its library.
    Tls(String),
    /// The request that is to become a WebSocket.
    Upgrade(ws::Refusal),
    /// A frame.
    Frame(ws::Violation),
    /// The handshake is longer than any sensible one.
    TooLong,
}

/// The layers, as an index of what is counted by layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The PROXY protocol.
    Proxy,
    /// TLS.
    Tls,
    /// WebSocket.
    WebSocket,
}

impl LinkError {
    /// Which layer failed.
    #[must_use]
    pub fn layer(&self) -> Layer {
        match self {
            Self::Proxy(_) => Layer::Proxy,
            Self::Tls(_) | Self::TooLong => Layer::Tls,
            Self::Upgrade(_) | Self::Frame(_) => Layer::WebSocket,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(refusal) => write!(f, "PROXY header: {refusal}"),
            Self::Tls(text) => write!(f, "TLS: {text}"),
            Self::Upgrade(refusal) => write!(f, "WebSocket: {refusal}"),
            Self::Frame(violation) => write!(f, "WebSocket: {violation}"),
            Self::TooLong => f.write_str("TLS: more bytes than a handshake has"),
        }
    }
}

/// How a link stands after bytes were received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// On with it.
    GoesOn,
    /// The other side has said farewell; what it sent before counts.
    Farewell,
    /// It is of no use any more; what the other side is to be told lies in the link.
    Failed(LinkError),
}

/// What a shard needs once, for all its links: where bytes lie while they are transformed.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Bytes for MQTT.
    pub plain: Vec<u8>,
    records: Vec<u8>,
    frames: Vec<u8>,
}

impl Scratch {
    /// Bytes from which on a buffer is given back after use: twice what one read brings.
    const KEEP: usize = 128 * 1024;

    /// Lets go of what one large read has made large.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.plain, &mut self.records, &mut self.frames] {
            buffer.clear();
            buffer.shrink_to(Self::KEEP);
        }
    }
}

/// The layers of one connection.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    certificate_name: Option<Arc<str>>,
    proxy: Option<proxy::Reader>,
    #[cfg(feature = "runtime")]
    tls: Option<tls::Session>,
    ws: Option<ws::Session>,
    /// Bytes for the socket.
    outgoing: Vec<u8>,
    /// Bytes from the socket that wait for their turn, while TLS is being agreed on.
    waiting: Vec<u8>,
    failed: bool,
    finished: bool,
}

impl Link {
    /// Bytes of answers to pings that may wait; a ping beyond them is not answered, which RFC 6455
    /// 5.5.3 allows. A client that pings and does not read must not fill the memory.
    const MOST_PONGS: usize = 4 * 1024;

    /// Bytes that may wait while TLS is being agreed on; the library takes 64 KiB of handshake.
    const MOST_WAITING: usize = 64 * 1024;

    /// A connection from `address` without a layer.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            certificate_name: None,
            proxy: None,
            #[cfg(feature = "runtime")]
            tls: None,
            ws: None,
            outgoing: Vec::new(),
            waiting: Vec::new(),
            failed: false,
            finished: false,
        }
    }

    /// With a header of the PROXY protocol in front of everything.
    #[must_use]
    pub fn with_proxy(mut self) -> Self {
        self.proxy = Some(proxy::Reader::default());
        self
    }

    /// With TLS.
    #[cfg(feature = "runtime")]
    #[must_use]
    pub fn with_tls(mut self, session: tls::Session) -> Self {
        self.tls = Some(session);
        self
    }

    /// With WebSocket as the topmost layer.
    #[must_use]
    pub fn with_websocket(mut self, rules: Arc<ws::Rules>) -> Self {
        self.ws = Some(ws::Session::new(rules));
        self
    }

    /// The client's address, as a proxy has told it, once there is a header.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name in the client's certificate, once it is open.
    #[must_use]
    pub fn certificate_name(&self) -> Option<Arc<str>> {
        self.certificate_name.clone()
    }

    /// Whether MQTT may begin.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.proxy.is_none()
            && self.tls_is_open()
            && self.ws.as_ref().is_none_or(ws::Session::is_open)
    }

    /// Whether there is no layer any more: the PROXY header was the only one.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        #[cfg(feature = "runtime")]
        if self.tls.is_some() {
            return false;
        }
        self.proxy.is_none() && self.ws.is_none()
    }

    /// Whether the next bytes may cost as much as a signature.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        !self.tls_is_open()
    }

    #[cfg(feature = "runtime")]
    fn tls_is_open(&self) -> bool {
        self.tls.as_ref().is_none_or(tls::Session::is_open)
    }

    #[cfg(not(feature = "runtime"))]
    fn tls_is_open(&self) -> bool {
        true
    }

    /// How TLS was agreed on, if it was: whether an earlier session went on.
    #[cfg(feature = "runtime")]
    #[must_use]
    pub fn is_resumed(&self) -> Option<bool> {
        self.tls
            .as_ref()
            .filter(|tls| tls.is_open())
            .map(tls::Session::is_resumed)
    }

    /// Keeps bytes from the socket for a later [`Link::receive`].
    ///
    /// # Errors
    /// If they are more than a handshake has.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        if self.waiting.len() + bytes.len() > Self::MOST_WAITING {
            return Err(LinkError::TooLong);
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether bytes were kept.
    #[must_use]
    pub fn has_kept(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the bytes that were kept, and `bytes`, from the socket; leaves those for MQTT in
    /// `scratch.plain`.
    pub fn receive(&mut self, bytes: &[u8], scratch: &mut Scratch) -> Received {
        scratch.plain.clear();
        if self.failed {
            return Received::GoesOn;
        }
        let kept = std::mem::take(&mut self.waiting);
        let received = if kept.is_empty() {
            self.pass(bytes, scratch)
        } else {
            let mut all = kept;
            all.extend_from_slice(bytes);
            self.pass(&all, scratch)
        };
        self.failed = received != Received::GoesOn;
        received
    }

    fn pass(&mut self, mut bytes: &[u8], scratch: &mut Scratch) -> Received {
        if let Some(reader) = &mut self.proxy {
            match reader.read(bytes) {
                Ok(None) => return Received::GoesOn,
                Ok(Some((header, used))) => {
                    self.address = header.address.unwrap_or(self.address);
                    self.certificate_name = header.certificate_name.map(Into::into);
                    self.proxy = None;
                    bytes = &bytes[used..];
                }
                Err(refusal) => return Received::Failed(LinkError::Proxy(refusal)),
            }
        }
        #[cfg(feature = "runtime")]
        if let Some(tls) = &mut self.tls {
            let was_open = tls.is_open();
            let into = match &self.ws {
                Some(_) => &mut scratch.frames,
                None => &mut scratch.plain,
            };
            into.clear();
            let received = tls.receive(bytes, &mut scratch.records, into, &mut self.outgoing);
            if !was_open && tls.is_open() {
                self.certificate_name = tls
                    .certificate_name()
                    .or_else(|| self.certificate_name.take());
            }
            let frames = std::mem::take(&mut scratch.frames);
            let above = match &self.ws {
                Some(_) => self.unframe(&frames, scratch),
                None => Received::GoesOn,
            };
            scratch.frames = frames;
            return if above == Received::GoesOn {
                received
            } else {
                above
            };
        }
        if self.ws.is_some() {
            return self.unframe(bytes, scratch);
        }
        scratch.plain.extend_from_slice(bytes);
        Received::GoesOn
    }

    /// Takes frames of WebSocket apart.
    fn unframe(&mut self, bytes: &[u8], scratch: &mut Scratch) -> Received {
        let Some(ws) = &mut self.ws else {
            return Received::GoesOn;
        };
        let mut reply = Vec::new();
        let was_open = ws.is_open();
        let received = ws.receive(bytes, &mut scratch.plain, &mut reply);
        let only_pongs = was_open && received == Received::GoesOn;
        let too_many = only_pongs && self.outgoing.len() > Self::MOST_PONGS;
        if !reply.is_empty() && !too_many {
            self.encrypt(&mut reply);
            append(&mut self.outgoing, reply);
        }
        received
    }

    /// Whether there are bytes for the socket besides those of MQTT.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Turns `mqtt` into bytes for the socket and takes what there is besides; with `last` the farewell
    /// follows, once.
    pub fn send(&mut self, mut mqtt: Vec<u8>, last: bool) -> Vec<u8> {
        if !mqtt.is_empty() && self.is_open() && !self.finished {
            if self.ws.is_some() {
                ws::frame(&mut mqtt);
            }
            self.encrypt(&mut mqtt);
        } else {
            mqtt.clear();
        }
        let mut bytes = std::mem::take(&mut self.outgoing);
        append(&mut bytes, mqtt);
        if last && !self.finished {
            self.finished = true;
            self.farewell(&mut bytes);
        }
        bytes
    }

    fn farewell(&mut self, bytes: &mut Vec<u8>) {
        let mut close = Vec::new();
        if let Some(ws) = &mut self.ws {
            ws.close(&mut close);
        }
        if !close.is_empty() {
            self.encrypt(&mut close);
            append(bytes, close);
        }
        #[cfg(feature = "runtime")]
        if let Some(tls) = &mut self.tls {
            tls.close(bytes);
        }
    }

    #[cfg(feature = "runtime")]
    fn encrypt(&mut self, bytes: &mut Vec<u8>) {
        if let Some(tls) = &mut self.tls {
            let mut records = Vec::new();
            tls.send(bytes, &mut records);
            *bytes = records;
        }
    }

    #[cfg(not(feature = "runtime"))]
    fn encrypt(&mut self, _: &mut Vec<u8>) {}
}

/// Puts `more` behind `bytes`, by exchange where that does it.
fn append(bytes: &mut Vec<u8>, more: Vec<u8>) {
    if bytes.is_empty() {
        *bytes = more;
    } else {
        bytes.extend_from_slice(&more);
    }
}
