//! What a turn of a shard leaves behind: plain data that the runtime, or the simulator, drains.
//!
//! Invariants: a connection with fresh output is in the list of touched ones; a batch is either open in
//! its lane or with the runtime, never both; the outbox knows of each connection how many bytes wait
//! for its socket, those that the driver has already taken included; what promises something that is
//! not on disk yet stays, and so does all that was written to that connection behind it.

use crate::chunks::Chunks;
use crate::journal::Position;
use crate::limits::MAX_EVENTS_PER_TURN;
use crate::route::ShardId;
use crate::session::{ConnKey, Peer, Ticket};
use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::batch::{Batch, Control, LiveLane};
use super::event::Event;

/// A connection to be closed once its last bytes are sent. The core has forgotten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which one.
    pub conn: ConnKey,
}

/// A connection whose session lives on another shard: the socket goes there with what was read.
#[derive(Debug)]
pub struct Handoff {
    /// Which one; the core has forgotten it.
    pub conn: ConnKey,
    /// Where its session lives.
    pub to: ShardId,
    /// The CONNECT and everything that came behind it.
    pub unread: Vec<u8>,
    /// Where it came from.
    pub peer: Peer,
}

/// A question that the policy could not answer at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// The client that wants in.
    pub client_id: Box<str>,
    /// What it calls itself.
    pub username: Option<Box<str>>,
    /// Its secret.
    pub password: Option<Box<[u8]>>,
    /// Where it came from.
    pub peer: Peer,
}

/// The output of one connection.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    unsent: u32,
    touched: bool,
    wants_writable: bool,
    /// Whether there are promises.
    promises: bool,
}

/// Output of a connection, up to a byte, that may leave when the journal has come so far.
#[derive(Clone, Copy, Debug)]
struct Promise {
    position: Position,
    end: usize,
}

/// Everything that a turn leaves behind.
#[derive(Debug)]
pub struct Outbox {
    outputs: Chunks<Output>,
    touched: VecDeque<ConnKey>,
    spare_outputs: Vec<Vec<u8>>,
    /// What the journal has on disk, and whether it gets no further.
    durable: Position,
    stuck: bool,
    /// In the order of their positions, which is that of their bytes.
    promises: HashMap<ConnKey, VecDeque<Promise>, FixedState>,
    /// Connections to look at when the journal has come so far.
    promised: VecDeque<(Position, ConnKey)>,
    late_closes: VecDeque<(Position, Close)>,
    live: Vec<LiveLane>,
    control: Vec<Vec<Control>>,
    #[expect(
        clippy::vec_box,
        reason = "the boxes travel through the channels as they are"
    )]
    spare_batches: Vec<Box<Batch>>,
    /// Connections to close.
    pub closes: Vec<Close>,
    /// Sockets to stop (`false`) or to go on (`true`) reading. Bytes that arrive after a stop are
    /// given to the core all the same.
    pub reading: Vec<(ConnKey, bool)>,
    /// Connections that move to another shard.
    pub handoffs: Vec<Handoff>,
    /// Connections that stay here for good: their CONNECT was taken.
    pub established: Vec<ConnKey>,
    /// Questions for slow authenticators.
    pub questions: Vec<Question>,
    /// What the log may tell.
    pub events: Vec<Event>,
    /// Events that were left out because a turn had too many.
    pub events_dropped: u64,
    /// Whether the shard has more to do without any new input: do not sleep.
    pub again: bool,
}

impl Outbox {
    /// Bytes below which a connection that was congested takes new messages again: enough to keep
    /// a socket busy while the next ones are made.
    pub const LOW_WATERMARK: usize = 32 * 1024;

    /// Output buffers kept for the next connection that needs one.
    const SPARE_OUTPUTS: usize = 256;

    /// Bytes above which an output buffer is given back to the allocator.
    const SPARE_OUTPUT_BYTES: usize = 64 * 1024;

    /// Batches kept for the next use.
    const SPARE_BATCHES: usize = 64;

    /// The outbox of one of `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            outputs: Chunks::default(),
            touched: VecDeque::new(),
            spare_outputs: Vec::new(),
            durable: Position::default(),
            stuck: false,
            promises: HashMap::default(),
            promised: VecDeque::new(),
            late_closes: VecDeque::new(),
            live: (0..shards).map(|_| LiveLane::default()).collect(),
            control: (0..shards).map(|_| Vec::new()).collect(),
            spare_batches: Vec::new(),
            closes: Vec::new(),
            reading: Vec::new(),
            handoffs: Vec::new(),
            established: Vec::new(),
            questions: Vec::new(),
            events: Vec::new(),
            events_dropped: 0,
            again: false,
        }
    }

    // For the driver: sockets.

    /// The next connection with fresh output.
    pub fn touched(&mut self) -> Option<ConnKey> {
        let conn = self.touched.pop_front()?;
        if let Some(output) = self.outputs.get_mut(conn.index as usize) {
            output.touched = false;
        }
        Some(conn)
    }

    /// Hands over what is to be sent and leaves `spare`, which is empty, in its place. What promises
    /// something that is not on disk stays.
    pub fn swap_output(&mut self, conn: ConnKey, spare: &mut Vec<u8>) {
        debug_assert!(spare.is_empty());
        let Some(output) = self.outputs.get_mut(conn.index as usize) else {
            return;
        };
        if output.promises
            && let Some(promises) = self.promises.get_mut(&conn)
        {
            let mut free = 0;
            while let Some(kept) = promises.pop_front_if(|next| next.position <= self.durable) {
                free = kept.end;
            }
            if !promises.is_empty() {
                spare.extend(output.bytes.drain(..free));
                promises.iter_mut().for_each(|next| next.end -= free);
                return;
            }
            self.promises.remove(&conn);
            output.promises = false;
        }
        std::mem::swap(&mut output.bytes, spare);
    }

    /// Takes back a buffer that was sent, to be used again.
    pub fn return_output(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() > 0
            && bytes.capacity() <= Self::SPARE_OUTPUT_BYTES
            && self.spare_outputs.len() < Self::SPARE_OUTPUTS
        {
            bytes.clear();
            self.spare_outputs.push(bytes);
        }
    }

    /// Bytes that wait here for the driver.
    #[must_use]
    pub fn output_len(&self, conn: ConnKey) -> usize {
        self.outputs
            .get(conn.index as usize)
            .map_or(0, |output| output.bytes.len())
    }

    /// Says how many bytes of `conn` the driver itself still has to send.
    pub fn set_unsent(&mut self, conn: ConnKey, bytes: usize) {
        self.output(conn).unsent = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Whether the core waits to be told, by `Shard::writable`, that the driver's unsent bytes of
    /// `conn` are no more than [`Outbox::LOW_WATERMARK`]. Asking takes the wish away.
    pub fn take_wants_writable(&mut self, conn: ConnKey) -> bool {
        match self.outputs.get_mut(conn.index as usize) {
            Some(output)
                if output.wants_writable
                    && output.unsent as usize + output.bytes.len() <= Self::LOW_WATERMARK =>
            {
                output.wants_writable = false;
                true
            }
            _ => false,
        }
    }

    /// Forgets a connection that is gone.
    pub fn release(&mut self, conn: ConnKey) {
        if let Some(output) = self.outputs.get_mut(conn.index as usize) {
            *output = Output::default();
            self.promises.remove(&conn);
        }
    }

    // For the driver: the mesh.

    /// The next live batch for `to`.
    pub fn next_live(&mut self, to: ShardId) -> Option<Box<Batch>> {
        self.live.get_mut(to.index())?.pop()
    }

    /// The channel was full: `batch` goes first next time.
    pub fn give_back_live(&mut self, to: ShardId, batch: Box<Batch>) {
        if let Some(lane) = self.live.get_mut(to.index()) {
            lane.unpop(batch);
        }
    }

    /// Bytes of live batches that have not left yet.
    #[must_use]
    pub fn live_held(&self) -> usize {
        self.live.iter().map(LiveLane::bytes).sum()
    }

    /// Whether every live batch has left, so that control may follow.
    #[must_use]
    pub fn live_is_empty(&self) -> bool {
        self.live.iter().all(LiveLane::is_empty)
    }

    /// All control messages for `to`.
    pub fn take_control(&mut self, to: ShardId) -> Vec<Control> {
        self.control
            .get_mut(to.index())
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Whether control messages wait for `to`.
    #[must_use]
    pub fn has_control(&self, to: ShardId) -> bool {
        self.control
            .get(to.index())
            .is_some_and(|messages| !messages.is_empty())
    }

    /// The channel was full: these go first next time.
    pub fn give_back_control(&mut self, to: ShardId, mut messages: Vec<Control>) {
        if let Some(lane) = self.control.get_mut(to.index()) {
            messages.append(lane);
            *lane = messages;
        }
    }

    /// Takes a batch that was worked off, to be used again.
    pub fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.spare_batches.len() < Self::SPARE_BATCHES {
            batch.clear();
            self.spare_batches.push(batch);
        }
    }

    // For the core.

    /// Where to append bytes for `conn`; marks it as touched.
    pub(super) fn write(&mut self, conn: ConnKey) -> &mut Vec<u8> {
        let output = self.outputs.get_or_grow(conn.index as usize);
        if !output.touched {
            output.touched = true;
            self.touched.push_back(conn);
        }
        if output.bytes.capacity() == 0
            && let Some(spare) = self.spare_outputs.pop()
        {
            output.bytes = spare;
        }
        &mut output.bytes
    }

    /// What was written to `conn` so far promises what the journal has on disk at `position`.
    pub(super) fn promise(&mut self, conn: ConnKey, position: Position) {
        if position <= self.durable {
            return;
        }
        let output = self.outputs.get_or_grow(conn.index as usize);
        output.promises = true;
        let end = output.bytes.len();
        let promises = self.promises.entry(conn).or_default();
        match promises.back_mut() {
            Some(last) if last.position == position => last.end = end,
            _ => {
                promises.push_back(Promise { position, end });
                self.promised.push_back((position, conn));
            }
        }
    }

    /// The journal has come so far: what promises no more than that may leave.
    pub(super) fn set_durable(&mut self, position: Position) {
        self.durable = position;
        while let Some((_, conn)) = self
            .promised
            .pop_front_if(|(wanted, _)| *wanted <= position)
        {
            if self.promises.contains_key(&conn) {
                self.write(conn); // touched
            }
        }
        while let Some((_, close)) = self.late_closes.pop_front_if(|(at, _)| *at <= position) {
            self.closes.push(close);
        }
    }

    /// The journal gets no further: what promises more never leaves, and who was to be closed behind it
    /// is closed without.
    pub(super) fn set_stuck(&mut self) {
        self.stuck = true;
        let late = self.late_closes.drain(..);
        self.closes.extend(late.map(|(_, close)| close));
    }

    /// What the journal has on disk.
    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    /// The connection is to be closed once its output is sent.
    pub(super) fn close(&mut self, conn: ConnKey) {
        let last = self.promises.get(&conn);
        match last.and_then(|promises| promises.back()) {
            Some(last) if last.position > self.durable && !self.stuck => {
                self.late_closes.push_back((last.position, Close { conn }));
            }
            _ => self.closes.push(Close { conn }),
        }
    }

    /// Bytes that wait for the socket of `conn`, here and at the driver.
    pub(super) fn backlog(&self, conn: ConnKey) -> usize {
        self.outputs
            .get(conn.index as usize)
            .map_or(0, |output| output.bytes.len() + output.unsent as usize)
    }

    /// Asks for a call of `Shard::writable` once the backlog of `conn` is small.
    pub(super) fn want_writable(&mut self, conn: ConnKey) {
        self.output(conn).wants_writable = true;
    }

    /// Appends to the open batch for `to`.
    pub(super) fn live(&mut self, to: ShardId, append: impl FnOnce(&mut Batch)) {
        let Some(lane) = self.live.get_mut(to.index()) else {
            return;
        };
        let batch = lane.open(&mut self.spare_batches);
        let before = batch.size();
        append(batch);
        let grown = batch.size() - before;
        lane.grew(grown);
    }

    /// Appends to the control lane for `to`.
    pub(super) fn control(&mut self, to: ShardId, message: Control) {
        if let Some(lane) = self.control.get_mut(to.index()) {
            lane.push(message);
        }
    }

    /// An empty batch, a used one if there is one.
    pub(super) fn spare_batch(&mut self) -> Box<Batch> {
        self.spare_batches.pop().unwrap_or_default()
    }

    /// Notes something for the log.
    pub(super) fn event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS_PER_TURN {
            self.events.push(event);
        } else {
            self.events_dropped += 1;
        }
    }

    fn output(&mut self, conn: ConnKey) -> &mut Output {
        self.outputs.get_or_grow(conn.index as usize)
    }
}
