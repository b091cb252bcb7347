//! A connection to a broker, and everything that can wake a client: one queue of events.
//!
//! One thread reads the socket, another one standard input where that is wanted, and both put what
//! they have into the queue of the one thread that does everything else. So that thread can wait
//! for all of it at once, with a time limit, with blocking sockets alone.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use shardmq::runtime::ClientTls;

use super::failure::{Failure, connect_failure};
use super::now;
use super::tls::Tls;
use super::ws::Ws;

/// Time to establish a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a write may take, after which the broker counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a signal is looked for.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// Events that wait. A broker that sends faster than we print is slowed down by TCP.
const EVENTS: usize = 128;
/// Lines read ahead of those that were sent. Fewer than [`EVENTS`], so that lines alone never fill
/// the queue.
const LINES_AHEAD: usize = 64;

/// What woke a client.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes of the broker.
    Bytes(Vec<u8>),
    /// The broker closed the connection, or it broke.
    Closed(io::Result<()>),
    /// A line of standard input, without its end.
    Line(Vec<u8>),
    /// Standard input ended.
    InputEnd(io::Result<()>),
    /// The time is over.
    Timeout,
    /// A signal asks us to end.
    Interrupted,
}

/// What carries bytes to and from the broker.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Tls),
}

/// The bytes of MQTT to and from the broker.
#[derive(Debug)]
struct Way {
    stream: Stream,
    ws: Option<Ws>,
}

/// What lies between the socket and MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layers {
    /// TLS.
    pub(super) tls: Option<ClientTls>,
    /// WebSocket, and the path to ask for.
    pub(super) ws: Option<String>,
}

impl Way {
    /// The same once more, for another thread.
    fn twin(&self) -> io::Result<Self> {
        let stream = match &self.stream {
            Stream::Plain(stream) => Stream::Plain(stream.try_clone()?),
            Stream::Tls(tls) => Stream::Tls(tls.clone()),
        };
        let ws = self.ws.clone();
        Ok(Self { stream, ws })
    }

    /// Says farewell below MQTT.
    fn close(&mut self) {
        if let Some(ws) = &self.ws {
            ws.close(&mut self.stream);
        }
        if let Stream::Tls(tls) = &self.stream {
            tls.close();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Read for Way {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.ws {
            Some(ws) => ws.read(&mut self.stream, buffer),
            None => self.stream.read(buffer),
        }
    }
}

impl Write for Way {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.ws {
            Some(ws) => ws.write(&mut self.stream, bytes),
            None => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    way: Way,
    /// The same socket, to shut it.
    stream: TcpStream,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    permits: Option<SyncSender<()>>,
    interrupted: Arc<AtomicBool>,
}

impl Connection {
    /// Connects to the first of the host's addresses that answers.
    pub(super) fn open(
        host: &str,
        port: u16,
        layers: &Layers,
        until: Option<Instant>,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let stream = connect(host, port, until)?;
        let fail = |error| Failure::Io("cannot set up the socket".to_owned(), error);
        stream.set_nodelay(true).map_err(fail)?;
        stream
            .set_write_timeout(Some(WRITE_TIMEOUT))
            .map_err(fail)?;
        let way = stream.try_clone().map_err(fail)?;
        // Whoever speaks something else there may be silent.
        let patience = (layers != &Layers::default()).then_some(CONNECT_TIMEOUT);
        stream.set_read_timeout(patience).map_err(fail)?;
        let mut way = match &layers.tls {
            None => Stream::Plain(way),
            Some(options) => {
                let protocol: &[u8] = match layers.ws {
                    Some(_) => b"http/1.1",
                    None => b"mqtt",
                };
                Stream::Tls(Tls::open(way, host, options, protocol)?)
            }
        };
        let ws = match &layers.ws {
            None => None,
            Some(path) => Some(Ws::open(&mut way, &place(host, port), path)?),
        };
        stream.set_read_timeout(None).map_err(fail)?;
        let way = Way { stream: way, ws };
        let reader = way.twin().map_err(fail)?;
        let (sender, events) = mpsc::sync_channel(EVENTS);
        let out = sender.clone();
        start("shardmq-read", move || read(reader, &out))?;
        Ok(Self {
            way,
            stream,
            events,
            sender,
            permits: None,
            interrupted: Arc::clone(interrupted),
        })
    }

    /// Starts to read standard input by lines.
    pub(super) fn read_lines(&mut self) -> Result<(), Failure> {
        let (permits, allowed) = mpsc::sync_channel(LINES_AHEAD);
        for _ in 0..LINES_AHEAD {
            let _ = permits.try_send(());
        }
        let out = self.sender.clone();
        start("shardmq-stdin", move || read_lines(&out, &allowed))?;
        self.permits = Some(permits);
        Ok(())
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.way.write_all(bytes).map_err(|error| {
            Failure::Lost(format!(
                "the connection to the broker broke while sending: {error}"
            ))
        })
    }

    /// Waits for something to happen, until a point in time at most.
    pub(super) fn wait(&mut self, until: Instant) -> Event {
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Event::Interrupted;
            }
            let left = until.saturating_duration_since(now());
            match self.events.recv_timeout(left.min(SIGNAL_INTERVAL)) {
                Ok(Event::Line(line)) => {
                    if let Some(permits) = &self.permits {
                        let _ = permits.try_send(());
                    }
                    return Event::Line(line);
                }
                Ok(event) => return event,
                Err(RecvTimeoutError::Timeout) if left > SIGNAL_INTERVAL => {}
                Err(RecvTimeoutError::Timeout) => return Event::Timeout,
                // We hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return Event::Closed(Ok(())),
            }
        }
    }

    /// Ends the connection once all that was sent is on its way.
    pub(super) fn close(mut self) {
        self.way.close();
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Host and port as HTTP has them.
fn place(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn connect(host: &str, port: u16, until: Option<Instant>) -> Result<TcpStream, Failure> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| {
        Failure::Connect(format!(
            "cannot find the host `{host}`: {error}; is its name right?"
        ))
    })?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let left = until.map_or(CONNECT_TIMEOUT, |until| {
            until.saturating_duration_since(now())
        });
        if left.is_zero() {
            return Err(Failure::Timeout);
        }
        match TcpStream::connect_timeout(&address, left.min(CONNECT_TIMEOUT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(connect_failure(host, port, &last))
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| Failure::Io("cannot start a thread".to_owned(), error))
}

/// Reads the socket until it ends or nobody listens any more.
fn read(mut stream: Way, out: &SyncSender<Event>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let event = match stream.read(&mut buffer) {
            Ok(0) => Event::Closed(Ok(())),
            Ok(length) => Event::Bytes(buffer[..length].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Event::Closed(Err(error)),
        };
        let last = matches!(event, Event::Closed(_));
        if out.send(event).is_err() || last {
            return;
        }
    }
}

/// Reads standard input by lines, no further ahead than there are permits.
fn read_lines(out: &SyncSender<Event>, permits: &Receiver<()>) {
    let mut input = io::stdin().lock();
    loop {
        if permits.recv().is_err() {
            return;
        }
        let mut line = Vec::new();
        let event = match input.read_until(b'\n', &mut line) {
            Ok(0) => Event::InputEnd(Ok(())),
            Ok(_) => {
                if line.ends_with(b"\n") {
                    line.pop();
                }
                if line.ends_with(b"\r") {
                    line.pop();
                }
                Event::Line(line)
            }
            Err(error) => Event::InputEnd(Err(error)),
        };
        let last = matches!(event, Event::InputEnd(_));
        if out.send(event).is_err() || last {
            return;
        }
    }
}
