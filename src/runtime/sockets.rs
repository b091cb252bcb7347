//! The life of each socket between the ring and the core: when it is read, what of its output is
//! with the kernel, and how it is closed.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::SockRef;

use crate::limits::CLOSE_GRACE_MS;
use crate::link::{self, Link, Scratch};
use crate::shard::{ConnKey, Outbox, Peer};
use crate::time::Time;

use super::connections::{Connection, Connections, Phase, Receive};
use super::entrance::Entrance;
use super::net::{Completion, Net, Operation, Received, Sent, Token};

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendEnd {
    /// Nothing that the core would want to know.
    Nothing,
    /// There is room for more.
    Room(ConnKey),
    /// The socket is broken, with this error number; the core is to be told.
    Broken(ConnKey, i32),
}

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveEnd {
    /// Bytes, or nothing.
    GoesOn,
    /// The end of the stream (`None`) or an error; the core is to be told.
    Over(Option<i32>),
}

/// What the bytes of a connection are given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The core, as they are.
    Known,
    /// A link; the core may know the connection or not yet.
    Linked,
    /// Nobody: it is being closed.
    Unknown,
}

/// What a link made of bytes.
#[derive(Debug)]
pub(super) struct Step {
    /// How it stands now.
    pub(super) received: link::Received,
    /// Who the client is, if it is only now that MQTT may begin; and, with TLS, whether an earlier
    /// session goes on.
    pub(super) opened: Option<(Peer, Option<bool>)>,
    /// Whether the core has known the connection.
    pub(super) known: bool,
    /// Where the client is, for the log.
    pub(super) address: SocketAddr,
}

/// A connection that leaves for another shard.
#[derive(Debug)]
pub(super) enum Given {
    /// With everything that belongs to it.
    Away(OwnedFd, Option<Box<Link>>),
    /// Not before its last bytes have left: in the next turn.
    NotYet,
    /// It was closed.
    Gone,
}

/// The sockets of a shard and the ring that works for them.
#[derive(Debug)]
pub(super) struct Sockets {
    // First, so that it is dropped first: then the kernel lets go of everything below.
    pub(super) ring: Net,
    connections: Connections,
    /// First tries to send, of which silence will say that they are done.
    quiet: Vec<ConnKey>,
    /// Connections that may have more to send since their last send ended.
    ready: Vec<ConnKey>,
    /// Connections without a receive that may want one.
    unread: Vec<ConnKey>,
    /// When connections that are being closed lose our patience, in the order of time, and in which
    /// phase they must not be any more by then.
    closing: VecDeque<(Time, ConnKey, Phase)>,
    /// When links must be open, in the order of time.
    linking: VecDeque<(Time, ConnKey)>,
    /// Links for which bytes wait that may cost a signature.
    handshakes: VecDeque<ConnKey>,
    /// Links with bytes for their sockets that are not the core's.
    answering: Vec<ConnKey>,
    /// The listeners, which count their connections.
    entrances: Arc<[Entrance]>,
    /// Connections of the whole process.
    total: Arc<AtomicUsize>,
}

impl Sockets {
    pub(super) fn new(ring: Net, entrances: Arc<[Entrance]>, total: Arc<AtomicUsize>) -> Self {
        Self {
            ring,
            connections: Connections::default(),
            quiet: Vec::new(),
            ready: Vec::new(),
            unread: Vec::new(),
            closing: VecDeque::new(),
            linking: VecDeque::new(),
            handshakes: VecDeque::new(),
            answering: Vec::new(),
            entrances,
            total,
        }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Takes in a connection that is counted already; its link must be open by `deadline`.
    pub(super) fn adopt(
        &mut self,
        socket: OwnedFd,
        listener: u16,
        link: Option<Box<Link>>,
        deadline: Time,
    ) -> Option<ConnKey> {
        let has_link = link.is_some();
        match self.connections.insert(socket, listener, link) {
            Ok(conn) => {
                self.unread.push(conn);
                if has_link {
                    self.linking.push_back((deadline, conn));
                    self.answering.push(conn);
                }
                Some(conn)
            }
            Err(_) => {
                self.uncount(listener);
                None
            }
        }
    }

    /// A connection of this listener is gone.
    pub(super) fn uncount(&self, listener: u16) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(entrance) = self.entrances.get(usize::from(listener)) {
            entrance.leave();
        }
    }

    /// What the bytes of `conn` are given to.
    pub(super) fn standing(&mut self, conn: ConnKey) -> Standing {
        match self.connections.get_mut(conn) {
            Some(connection) if connection.link.is_none() && connection.is_known() => {
                Standing::Known
            }
            Some(Connection {
                phase: Phase::Linking | Phase::Handshake | Phase::Open,
                ..
            }) => Standing::Linked,
            _ => Standing::Unknown,
        }
    }

    // Links.

    /// Takes what arrived, or what was kept before, to the link of `conn`; what is for MQTT lies in
    /// `scratch.plain` then. Nothing happens now if it may cost a signature: see
    /// [`Sockets::next_handshake`].
    pub(super) fn unwrap(
        &mut self,
        conn: ConnKey,
        received: Option<&Received>,
        scratch: &mut Scratch,
    ) -> Option<Step> {
        let connection = self.connections.get_mut(conn)?;
        let known = connection.is_known();
        if !known && connection.phase != Phase::Linking {
            return None;
        }
        let link = connection.link.as_mut()?;
        let received = match received {
            Some(received) if link.is_costly() => {
                let waits = link.has_kept();
                match link.keep(self.ring.bytes(received)) {
                    Ok(()) => {
                        if !waits {
                            self.handshakes.push_back(conn);
                        }
                        return None;
                    }
                    Err(error) => link::Received::Failed(error),
                }
            }
            Some(received) => link.receive(self.ring.bytes(received), scratch),
            None => {
                // It was not read while its bytes waited.
                self.unread.push(conn);
                link.receive(&[], scratch)
            }
        };
        if link.has_output() {
            self.answering.push(conn);
        }
        let mut step = Step {
            received,
            opened: None,
            known,
            address: link.address(),
        };
        if !known && link.is_open() {
            let peer = Peer {
                listener: connection.listener,
                address: link.address(),
                certificate_name: link.certificate_name(),
            };
            step.opened = Some((peer, link.is_resumed()));
            connection.phase = Phase::Handshake;
            if link.is_bare() {
                connection.link = None;
            }
        }
        Some(step)
    }

    /// The next link for which bytes wait that may cost a signature.
    pub(super) fn next_handshake(&mut self) -> Option<ConnKey> {
        self.handshakes.pop_front()
    }

    /// How many there are.
    pub(super) fn handshakes_waiting(&self) -> usize {
        self.handshakes.len()
    }

    /// Sends what links have to say besides the bytes of the core.
    pub(super) fn flush_links(&mut self, outbox: &mut Outbox) {
        while let Some(conn) = self.answering.pop() {
            self.flush(conn, outbox);
        }
    }

    /// The link of `conn` is over: what it has to say is sent, then it is closed.
    pub(super) fn part(&mut self, conn: ConnKey, now: Time, outbox: &mut Outbox) {
        if let Some(connection) = self.connections.get_mut(conn)
            && connection.phase == Phase::Linking
        {
            connection.phase = Phase::Handshake;
        }
        self.close(conn, now, outbox);
    }

    /// Closes the connections whose links did not open in time. Returns their addresses.
    pub(super) fn expire_links(&mut self, now: Time, outbox: &mut Outbox) -> Vec<SocketAddr> {
        let mut late = Vec::new();
        while let Some(&(deadline, conn)) = self.linking.front()
            && deadline <= now
        {
            self.linking.pop_front();
            if let Some(connection) = self.connections.get_mut(conn)
                && connection.phase == Phase::Linking
            {
                late.extend(connection.link.as_ref().map(|link| link.address()));
                self.kill(conn, outbox);
            }
        }
        late
    }

    /// Closes the connections that the core does not know yet: the broker stops.
    pub(super) fn kill_linking(&mut self, outbox: &mut Outbox) {
        for (_, conn) in std::mem::take(&mut self.linking) {
            let linking = self
                .connections
                .get_mut(conn)
                .is_some_and(|connection| connection.phase == Phase::Linking);
            if linking {
                self.kill(conn, outbox);
            }
        }
    }

    // Receiving.

    /// Takes in the end of a receive, apart from the bytes.
    pub(super) fn received(&mut self, conn: ConnKey, completion: &Completion) -> ReceiveEnd {
        let Some(connection) = self.connections.get_mut(conn) else {
            return ReceiveEnd::GoesOn;
        };
        if !completion.more {
            connection.receive = Receive::Idle;
            self.unread.push(conn);
        }
        if completion.result > 0 {
            return ReceiveEnd::GoesOn;
        }
        match -completion.result {
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => ReceiveEnd::GoesOn,
            errno => {
                connection.reading = false;
                connection.ended = true;
                ReceiveEnd::Over((errno != 0).then_some(errno))
            }
        }
    }

    /// The core took the CONNECT of `conn`: it stays here.
    pub(super) fn establish(&mut self, conn: ConnKey) {
        if let Some(connection) = self.connections.get_mut(conn)
            && connection.phase == Phase::Handshake
        {
            connection.phase = Phase::Open;
        }
    }

    /// Stops or goes on reading.
    pub(super) fn set_reading(&mut self, conn: ConnKey, reading: bool) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if !connection.is_known() {
            return;
        }
        connection.reading = reading;
        match (reading, connection.receive) {
            (true, Receive::Idle) => self.unread.push(conn),
            (false, Receive::Armed) => {
                connection.receive = Receive::Cancelled;
                self.ring.cancel(receive_token(conn, connection));
            }
            _ => {}
        }
    }

    /// Reads every connection that wants to be read and is not.
    pub(super) fn arm_receives(&mut self) {
        while let Some(conn) = self.unread.pop() {
            let Some(connection) = self.connections.get_mut(conn) else {
                continue;
            };
            if connection.receive != Receive::Idle || connection.ended {
                continue;
            }
            let many = match connection.phase {
                // It is read again when what it sent has had its turn.
                Phase::Linking if connection.link.as_ref().is_some_and(|link| link.has_kept()) => {
                    continue;
                }
                Phase::Linking => false,
                Phase::Handshake if connection.reading => false,
                Phase::Open if connection.reading => true,
                // To see the client close its side.
                Phase::Flushing | Phase::Lingering => true,
                Phase::Handshake | Phase::Open | Phase::Dead => continue,
            };
            connection.receives_many = many;
            connection.receive = Receive::Armed;
            let token = receive_token(conn, connection);
            if many {
                self.ring.receive_many(connection.socket.as_fd(), token);
            } else {
                self.ring.receive_once(connection.socket.as_fd(), token);
            }
        }
    }

    // Sending.

    /// Sends what the outbox has for `conn`, unless a send is on its way: then its end does.
    pub(super) fn flush(&mut self, conn: ConnKey, outbox: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if !connection.output.is_idle() || connection.phase == Phase::Dead {
            return;
        }
        let mut bytes = Vec::new();
        outbox.swap_output(conn, &mut bytes);
        if let Some(link) = &mut connection.link {
            bytes = link.send(bytes, connection.phase == Phase::Flushing);
        }
        if bytes.is_empty() {
            outbox.return_output(bytes);
            return;
        }
        outbox.set_unsent(conn, bytes.len());
        let token = send_token(conn);
        connection
            .output
            .send(bytes, &mut self.ring, connection.socket.as_fd(), token);
        self.quiet.push(conn);
    }

    /// Sends what is left of all connections whose last send has ended.
    pub(super) fn flush_ready(&mut self, now: Time, outbox: &mut Outbox) {
        while let Some(conn) = self.ready.pop() {
            self.flush(conn, outbox);
            self.linger_if_flushed(conn, now, outbox);
        }
    }

    /// Takes in the completion of a send.
    pub(super) fn sent(&mut self, completion: &Completion, outbox: &mut Outbox) -> SendEnd {
        let conn = key(completion.token);
        let Some(connection) = self.connections.get_mut(conn) else {
            return SendEnd::Nothing;
        };
        let end = connection.output.complete(completion);
        if connection.phase == Phase::Dead {
            self.bury(conn, outbox);
            return SendEnd::Nothing;
        }
        match end {
            Sent::All => self.send_done(conn, outbox),
            Sent::Part => {
                outbox.set_unsent(conn, connection.output.unsent());
                let socket = connection.socket.as_fd();
                connection
                    .output
                    .send_rest(&mut self.ring, socket, send_token(conn));
                SendEnd::Nothing
            }
            Sent::Failed(errno) if connection.is_known() => SendEnd::Broken(conn, errno),
            Sent::Failed(_) => {
                self.kill(conn, outbox);
                SendEnd::Nothing
            }
        }
    }

    /// Looks which of the first tries are done, and calls `room` for each. Must be called after the
    /// completions of sends were taken in.
    pub(super) fn settle(
        &mut self,
        outbox: &mut Outbox,
        mut room: impl FnMut(ConnKey, &mut Outbox),
    ) {
        let mut quiet = std::mem::take(&mut self.quiet);
        quiet.retain(|&conn| {
            let Some(connection) = self.connections.get_mut(conn) else {
                return false;
            };
            if !connection.output.settle(&self.ring) {
                // Failed or waiting in the kernel, unless the ring was too busy to take it.
                return connection.output.is_in_flight() && !connection.output.is_waiting();
            }
            if connection.phase == Phase::Dead {
                self.bury(conn, outbox);
            } else if let SendEnd::Room(conn) = self.send_done(conn, outbox) {
                room(conn, outbox);
            }
            false
        });
        self.quiet = quiet;
    }

    fn send_done(&mut self, conn: ConnKey, outbox: &mut Outbox) -> SendEnd {
        let Some(connection) = self.connections.get_mut(conn) else {
            return SendEnd::Nothing;
        };
        outbox.return_output(connection.output.take_buffer());
        outbox.set_unsent(conn, 0);
        let known = connection.is_known();
        let answers = connection
            .link
            .as_ref()
            .is_some_and(|link| link.has_output());
        if !known || answers || outbox.output_len(conn) > 0 {
            self.ready.push(conn);
        }
        if known && outbox.take_wants_writable(conn) {
            SendEnd::Room(conn)
        } else {
            SendEnd::Nothing
        }
    }

    // Closing.

    /// The core has closed `conn`: its last bytes are sent, then the client is given time to read them.
    pub(super) fn close(&mut self, conn: ConnKey, now: Time, outbox: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if !connection.is_known() {
            return;
        }
        connection.phase = Phase::Flushing;
        self.closing
            .push_back((now.plus_millis(CLOSE_GRACE_MS), conn, Phase::Flushing));
        if connection.receive == Receive::Idle {
            self.unread.push(conn);
        }
        self.flush(conn, outbox);
        self.linger_if_flushed(conn, now, outbox);
    }

    fn linger_if_flushed(&mut self, conn: ConnKey, now: Time, outbox: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if connection.phase != Phase::Flushing || !connection.output.is_idle() {
            return;
        }
        let shut = SockRef::from(&connection.socket).shutdown(Shutdown::Write);
        if shut.is_err() || connection.ended {
            self.kill(conn, outbox);
        } else {
            connection.phase = Phase::Lingering;
            self.closing
                .push_back((now.plus_millis(CLOSE_GRACE_MS), conn, Phase::Lingering));
        }
    }

    /// Closes `conn` without a further word, as soon as the kernel lets go of it. The core has forgotten
    /// it or never knew it.
    pub(super) fn kill(&mut self, conn: ConnKey, outbox: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        if connection.phase != Phase::Dead {
            connection.phase = Phase::Dead;
            if connection.receive == Receive::Armed {
                connection.receive = Receive::Cancelled;
                self.ring.cancel(receive_token(conn, connection));
            }
            if connection.output.is_waiting() {
                self.ring.cancel(send_token(conn));
            }
        }
        self.bury(conn, outbox);
    }

    /// The stream of a connection that the core has forgotten ended.
    pub(super) fn ended_while_closing(&mut self, conn: ConnKey, failed: bool, outbox: &mut Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        // A client that has only shut its own side may still read what we have for it.
        if failed || connection.phase != Phase::Flushing {
            self.kill(conn, outbox);
        }
    }

    /// Closes the socket of a dead connection that is at rest.
    pub(super) fn bury(&mut self, conn: ConnKey, outbox: &mut Outbox) {
        let dead = self
            .connections
            .get_mut(conn)
            .is_some_and(|connection| connection.phase == Phase::Dead && connection.is_at_rest());
        if dead && let Some(connection) = self.connections.remove(conn) {
            outbox.release(conn);
            self.uncount(connection.listener);
        }
    }

    /// Takes a connection out that moves to another shard.
    pub(super) fn give_away(&mut self, conn: ConnKey, outbox: &mut Outbox) -> Given {
        match self.connections.remove(conn) {
            Some(Connection { socket, link, .. }) => {
                let receive = Token::new(Operation::ReceiveOnce, conn.index, conn.generation);
                self.ring.release(socket.as_fd(), receive);
                outbox.release(conn);
                Given::Away(socket, link)
            }
            None => {
                let Some(connection) = self.connections.get_mut(conn) else {
                    return Given::Gone;
                };
                // The last bytes of a TLS handshake; they fit into the socket unless the client plays
                // games with its window.
                connection.reading = false;
                if connection.receive == Receive::Idle && !connection.output.is_waiting() {
                    return Given::NotYet;
                }
                self.kill(conn, outbox);
                Given::Gone
            }
        }
    }

    /// Closes connections that had their time to close.
    pub(super) fn expire(&mut self, now: Time, outbox: &mut Outbox) {
        while let Some(&(deadline, conn, phase)) = self.closing.front()
            && deadline <= now
        {
            self.closing.pop_front();
            if self
                .connections
                .get_mut(conn)
                .is_some_and(|connection| connection.phase == phase)
            {
                self.kill(conn, outbox);
            }
        }
    }

    /// When the next of them has had it.
    pub(super) fn deadline(&self) -> Time {
        let closing = self.closing.front();
        let closing = closing.map_or(Time::NEVER, |&(deadline, ..)| deadline);
        let linking = self.linking.front();
        closing.min(linking.map_or(Time::NEVER, |&(deadline, _)| deadline))
    }

    /// Closes every connection at once.
    pub(super) fn kill_all(&mut self, outbox: &mut Outbox) {
        for conn in self.connections.keys() {
            self.kill(conn, outbox);
        }
    }
}

/// The connection that a request was made for.
pub(super) fn key(token: Token) -> ConnKey {
    ConnKey {
        index: token.index(),
        generation: token.generation(),
    }
}

fn send_token(conn: ConnKey) -> Token {
    Token::new(Operation::Send, conn.index, conn.generation)
}

fn receive_token(conn: ConnKey, connection: &Connection) -> Token {
    let operation = if connection.receives_many {
        Operation::ReceiveMany
    } else {
        Operation::ReceiveOnce
    };
    Token::new(operation, conn.index, conn.generation)
}
