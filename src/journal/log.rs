//! The log of frames: where the next record goes, which frame is on its way to disk, which segment is
//! in which file, and when a file may be used again.
//!
//! Invariants:
//!
//! - One frame is on its way at a time, in the order of positions; the next one fills meanwhile, and its
//!   place is known from its first record on.
//! - Segments are freed from the oldest on. So a record that ends something is never freed before what
//!   it ends, and needs no one to keep it alive.
//! - A frame names a segment as freed only if what ended in it, or was moved out of it, ended by a record
//!   of that frame or of one before.
//! - The file of a freed segment is written to again only after a frame is on disk that names a younger
//!   segment as the oldest. Otherwise a cut could destroy an acknowledgement in it while the log still
//!   begins before the message that it acknowledged.
//! - A copy is a prefix of the log, as a cut of the power leaves one: up to a frame behind which nothing was
//!   written when it was begun ([`Log::cut`]). What was written is not changed, so the log goes on while it
//!   is copied, and only the use of these files for something else waits.
//! - A file is synced with the last frame that it gets, whatever the policy. So frames that are
//!   missing after a cut are the last ones.

use std::collections::VecDeque;

use super::copying::Copying;
use super::frame::{FrameBuffer, HEADER_BYTES, Header, padded};
use super::index::{Place, SEGMENTS};
use super::types::{
    BLOCK, Cut, Failure, FileId, Identity, ItemId, MAX_SEGMENT_BYTES, Position, Refused, Settings,
    Sync,
};

/// A frame to be written. The caller owns its memory until it gives it back by
/// [`super::Journal::completed`], so the kernel may read it meanwhile.
#[derive(Debug)]
pub struct Write {
    /// Into which file.
    pub file: FileId,
    /// From which byte on, a multiple of [`BLOCK`].
    pub offset: u32,
    /// Whether `fdatasync` of the file follows the write.
    pub sync: bool,
    position: Position,
    segment: u64,
    frame: FrameBuffer,
}

impl Write {
    /// What is written: whole blocks, at an address that is a multiple of [`BLOCK`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.frame.as_bytes()
    }
}

/// One segment.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) file: Option<FileId>,
    /// Items that stand here and live.
    pub(super) live: u32,
    /// Items that were ever written here.
    pub(super) items: u32,
    /// Bytes of its frames.
    pub(super) used: u32,
    /// Its last frame.
    pub(super) last: Position,
    /// The frame in which something of it ended last.
    pub(super) died: Position,
}

/// A frame that is full and waits.
#[derive(Debug)]
struct Sealed {
    frame: FrameBuffer,
    segment: u64,
    offset: u32,
    position: Position,
    base: ItemId,
    sync: bool,
}

pub(super) struct Log {
    identity: Identity,
    pub(super) settings: Settings,
    run: u32,
    open: FrameBuffer,
    base: ItemId,
    /// The next item.
    next_item: ItemId,
    /// Of the open frame.
    position: Position,
    /// Where the open frame will stand: in the last segment, from here on.
    offset: u32,
    /// Bytes up to which the open frame is not closed: what is appended together.
    whole: usize,
    /// Whether the open frame is written although there is no record in it.
    wanted: bool,
    /// Whether there is no record in the frame before the open one.
    last_was_empty: bool,
    /// What the last frame that left said was on disk.
    vouched: Position,
    /// Whether the frame before the open one is synced.
    last_was_synced: bool,
    sealed: VecDeque<Sealed>,
    in_flight: Option<Position>,
    /// Segment and offset of the first byte that is not written.
    written: (u64, u32),
    /// The last frame that is.
    last_written: Position,
    copying: Copying,
    durable: Position,
    /// The number of the oldest segment.
    pub(super) first: u64,
    pub(super) segments: VecDeque<Segment>,
    free: Vec<FileId>,
    /// Files of freed segments, and the frame that has to be on disk before they are used again.
    releasing: VecDeque<(Position, FileId)>,
    removable: Vec<FileId>,
    next_file: FileId,
    allocating: Option<FileId>,
    full: bool,
    failure: Option<Failure>,
    spare: FrameBuffer,
}

/// What recovery found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) run: u32,
    pub(super) next_item: u64,
    pub(super) position: Position,
    pub(super) first: u64,
    pub(super) segments: VecDeque<Segment>,
    pub(super) free: Vec<FileId>,
    pub(super) next_file: u32,
}

impl Log {
    pub(super) fn new(identity: Identity, settings: Settings, found: Found) -> Self {
        let mut segments = found.segments;
        if segments.is_empty() {
            segments.push_back(Segment::default());
        }
        let offset = segments.back().map_or(0, |segment| segment.used);
        let item = ItemId(found.next_item.max(1));
        let first = found.first.max(1);
        let written = (first + segments.len() as u64 - 1, offset);
        let frame_bytes = settings.frame_bytes as usize;
        Self {
            identity,
            settings,
            run: found.run + 1,
            open: FrameBuffer::default().begin(frame_bytes.min(BLOCK)),
            base: item,
            next_item: item,
            position: Position(found.position.0 + 1),
            offset,
            whole: 0,
            wanted: false,
            last_was_empty: found.position.0 == 0,
            vouched: Position(0),
            last_was_synced: true,
            sealed: VecDeque::new(),
            in_flight: None,
            written,
            last_written: found.position,
            copying: Copying::default(),
            durable: found.position,
            first,
            segments,
            free: found.free,
            releasing: VecDeque::new(),
            removable: Vec::new(),
            next_file: FileId(found.next_file),
            allocating: None,
            full: false,
            failure: None,
            spare: FrameBuffer::default(),
        }
    }

    // Appending.

    pub(super) fn take_item(&mut self) -> ItemId {
        let item = self.next_item;
        self.next_item = ItemId(item.0 + 1);
        item
    }

    /// Bytes of the largest record. The last block of a segment is left for an empty frame that
    /// carries a sync.
    pub(super) fn largest_record(&self) -> usize {
        self.settings.segment_bytes as usize - HEADER_BYTES - BLOCK
    }

    /// `bytes` more go into the open frame.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), Refused> {
        if bytes > self.largest_record() {
            return Err(Refused::TooLarge);
        }
        let len = self.open.len();
        if self.failure.is_some() {
            return Ok(());
        }
        let fits = self.fits(len + bytes);
        if len > HEADER_BYTES && (!fits || len + bytes > self.settings.frame_bytes as usize) {
            self.seal(false);
        }
        if !self.fits(self.open.len() + bytes) {
            self.roll();
        }
        self.whole = self.open.len() + bytes;
        Ok(())
    }

    /// Whether an open frame of `len` bytes leaves the last block of its segment free.
    fn fits(&self, len: usize) -> bool {
        self.offset as usize + padded(len) <= self.settings.segment_bytes as usize - BLOCK
    }

    /// Appends what `encode` writes, relative to the item it is given. `encode` may be called twice.
    pub(super) fn append(
        &mut self,
        encode: impl Fn(ItemId, &mut Vec<u8>),
    ) -> Result<Place, Refused> {
        if self.failure.is_some() {
            self.open.truncate(HEADER_BYTES); // nothing of it will ever be written
        }
        let mut at = self.open.len();
        encode(self.base, self.open.records());
        let most = self.whole.max(self.settings.frame_bytes as usize);
        let full = at > HEADER_BYTES && self.open.len() > most;
        if full || !self.fits(self.open.len()) {
            if self.open.len() - at > self.largest_record() {
                self.open.truncate(at);
                return Err(Refused::TooLarge);
            }
            self.open.truncate(at);
            if at > HEADER_BYTES {
                self.seal(false);
            }
            self.base = self.next_item;
            at = HEADER_BYTES;
            encode(self.base, self.open.records());
            if !self.fits(self.open.len()) {
                self.open.truncate(at);
                self.roll();
                encode(self.base, self.open.records());
            }
        }
        Ok(Place::new(self.last_segment(), self.offset as usize + at))
    }

    /// The position of what was appended last.
    pub(super) fn position(&self) -> Position {
        if self.open.len() > HEADER_BYTES || self.failure.is_some() {
            self.position
        } else {
            Position(self.position.0 - 1)
        }
    }

    /// The next frame is synced, and is written even if it is empty, unless the last one was and said
    /// that all before it is on disk.
    pub(super) fn want_seal(&mut self) {
        let idle = self.open.len() == HEADER_BYTES && self.sealed.is_empty();
        let vouched = self.vouched.0 + 2 >= self.position.0;
        self.wanted = self.failure.is_none() && !(idle && self.last_was_empty && vouched);
    }

    fn last_segment(&self) -> u64 {
        self.first + self.segments.len() as u64 - 1
    }

    /// The open frame is complete; another one begins behind it.
    fn seal(&mut self, sync: bool) {
        let size = padded(self.open.len()) as u32;
        let segment = self.last_segment();
        self.last_was_empty = self.open.len() == HEADER_BYTES;
        let fresh = std::mem::take(&mut self.spare);
        let capacity = self.settings.frame_bytes as usize / 16;
        let frame = std::mem::replace(&mut self.open, fresh.begin(capacity));
        self.sealed.push_back(Sealed {
            frame,
            segment,
            offset: self.offset,
            position: self.position,
            base: self.base,
            sync: sync || self.wanted,
        });
        self.last_was_synced = sync || self.wanted;
        self.wanted = false;
        self.whole = 0;
        if let Some(last) = self.segments.back_mut() {
            last.used = self.offset + size;
            last.last = self.position;
        }
        self.offset += size;
        self.position.0 += 1;
        self.base = self.next_item;
    }

    /// The last segment is full. Its last frame is synced: where that was given away without, an
    /// empty one takes the block that is left for it.
    fn roll(&mut self) {
        if self.settings.sync == Sync::OnDemand && !self.last_was_synced {
            match self.sealed.back_mut() {
                Some(last) => last.sync = true,
                None => self.seal(true),
            }
        }
        self.segments.push_back(Segment::default());
        self.offset = 0;
    }

    // The disk.

    pub(super) fn next_write(&mut self) -> Option<Write> {
        let frozen = self.copying.is_frozen(self.last_written);
        if self.failure.is_some() || self.in_flight.is_some() || frozen {
            return None;
        }
        if self.sealed.is_empty() && (self.open.len() > HEADER_BYTES || self.wanted) {
            if self.offset == self.settings.segment_bytes {
                self.roll(); // there is an empty frame in the last block
            }
            self.seal(false);
        }
        let next = self.sealed.front()?;
        let (segment, position) = (next.segment, next.position);
        self.reclaim(position);
        let segment = (segment - self.first) as usize;
        let file = match self.segments[segment].file {
            Some(file) => file,
            None => *self.segments[segment].file.insert(self.free.pop()?),
        };
        let mut sealed = self.sealed.pop_front()?;
        let sync = sealed.sync || self.settings.sync == Sync::Always;
        let length = sealed.frame.len() - HEADER_BYTES;
        sealed.frame.seal(&Header {
            identity: self.identity,
            length: length as u32,
            segment: sealed.segment,
            file,
            offset: sealed.offset,
            run: self.run,
            position: sealed.position,
            head: self.first,
            durable: self.durable,
            base: sealed.base,
        });
        self.vouched = self.durable;
        self.in_flight = Some(sealed.position);
        Some(Write {
            file,
            offset: sealed.offset,
            sync,
            position: sealed.position,
            segment: sealed.segment,
            frame: sealed.frame,
        })
    }

    pub(super) fn completed(&mut self, write: Write, result: Result<(), Failure>) {
        let in_flight = self.in_flight.take();
        assert_eq!(
            in_flight,
            Some(write.position),
            "the write that is given back is the one that was given"
        );
        match result {
            Ok(()) => {
                let size = write.bytes().len() as u32;
                self.written = (write.segment, write.offset + size);
                self.last_written = write.position;
                if write.sync {
                    self.durable = write.position;
                    self.release();
                }
            }
            Err(failure) => {
                self.failure = Some(failure);
                self.sealed.clear();
                self.open.truncate(HEADER_BYTES);
            }
        }
        let kept = 2 * self.settings.frame_bytes as usize;
        if write.frame.capacity() <= kept {
            self.spare = write.frame;
        }
    }

    /// Frees the oldest segments that nothing lives in, as far as the frame at `position` may say so: what
    /// ended there, or was moved away, did so in this frame at the latest.
    fn reclaim(&mut self, position: Position) {
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && oldest.live == 0
            && oldest.died <= position
            && oldest.last <= self.durable
        {
            self.releasing
                .extend(oldest.file.map(|file| (position, file)));
            self.segments.pop_front();
            self.first += 1;
        }
    }

    fn release(&mut self) {
        while let Some(&(position, file)) = self.releasing.front()
            && position <= self.durable
        {
            self.releasing.pop_front();
            self.retire(file);
        }
    }

    /// Nothing in the file counts any longer.
    fn retire(&mut self, file: FileId) {
        if self.copying.holds(file) {
            return;
        }
        if self.free.len() < self.settings.spare_files as usize {
            self.free.push(file);
        } else {
            self.removable.push(file);
        }
    }

    pub(super) fn next_allocation(&mut self) -> Option<FileId> {
        let waits = self.sealed.front().is_some_and(|sealed| {
            self.segments[(sealed.segment - self.first) as usize]
                .file
                .is_none()
        });
        let unassigned = self
            .segments
            .iter()
            .rev()
            .take_while(|segment| segment.file.is_none());
        let needed = unassigned.count() >= self.free.len();
        let coming = !waits && !self.releasing.is_empty();
        if self.failure.is_some() || self.full || self.allocating.is_some() || !needed || coming {
            return None;
        }
        let file = self.next_file;
        self.next_file.0 += 1;
        self.allocating = Some(file);
        Some(file)
    }

    pub(super) fn allocated(&mut self, file: FileId, succeeded: bool) {
        if self.allocating.take() != Some(file) {
            return;
        }
        self.full = !succeeded;
        if succeeded {
            self.free.push(file);
        } else {
            self.removable.push(file); // whatever there is of it
            self.unpin_all(); // a copy gives way
        }
    }

    pub(super) fn next_removal(&mut self) -> Option<FileId> {
        self.removable.pop()
    }

    pub(super) fn retry_allocation(&mut self) {
        self.full = false;
    }

    /// Counts an item that begins to live at `place`.
    pub(super) fn born(&mut self, place: Place) {
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.live += 1;
            segment.items += 1;
        }
    }

    /// Counts an item that has ended or moved away.
    pub(super) fn died(&mut self, place: Place) {
        let position = self.position;
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.live -= 1;
            segment.died = position;
        }
    }

    /// The segment with the number `short`, modulo [`SEGMENTS`].
    pub(super) fn segment_index(&self, short: u64) -> usize {
        (short.wrapping_sub(self.first) % SEGMENTS) as usize
    }

    fn segment_mut(&mut self, short: u64) -> Option<&mut Segment> {
        let index = self.segment_index(short);
        self.segments.get_mut(index)
    }

    // Copies.

    pub(super) fn freeze(&mut self) {
        self.copying.freeze(self.position());
    }

    pub(super) fn copying(&mut self) -> &mut Copying {
        &mut self.copying
    }

    /// What is written, if nothing more is for now.
    pub(super) fn cut(&self) -> Option<Cut> {
        let at_rest = self.failure.is_none() && self.in_flight.is_none();
        if !at_rest || !self.copying.is_frozen(self.last_written) {
            return None;
        }
        // The last frame that is written does not know yet that these were freed.
        let freed = self.releasing.iter();
        let freed = freed.filter(|(position, _)| *position > self.last_written);
        let freed = freed.map(|&(_, file)| (file, self.settings.segment_bytes));
        let (newest, end) = self.written;
        let segments = (self.first..=newest).zip(&self.segments);
        let segments = segments.filter_map(|(number, segment)| {
            let bytes = if number == newest { end } else { segment.used };
            Some((segment.file?, bytes))
        });
        Some(Cut {
            position: self.last_written,
            files: freed.chain(segments).collect(),
        })
    }

    pub(super) fn unpin(&mut self, file: FileId) -> bool {
        let (pinned, held) = self.copying.unpin(file);
        held.into_iter().for_each(|file| self.retire(file));
        pinned
    }

    pub(super) fn unpin_all(&mut self) {
        let held = self.copying.unpin_all();
        held.into_iter().for_each(|file| self.retire(file));
    }

    // Getters.

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    /// Whether what stands at `place` was written, synced or not.
    pub(super) fn is_written(&self, place: Place) -> bool {
        let segment = self.first + self.segment_index(place.segment) as u64;
        (segment, place.offset) < self.written
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn backlog(&self) -> usize {
        let sealed: usize = self.sealed.iter().map(|sealed| sealed.frame.len()).sum();
        sealed + self.open.len() - HEADER_BYTES
    }

    /// Bytes that can still be written into files that there are.
    pub(super) fn room(&self) -> u64 {
        let segment = u64::from(self.settings.segment_bytes);
        let unassigned = self
            .segments
            .iter()
            .filter(|segment| segment.file.is_none())
            .count();
        let last = segment.saturating_sub(u64::from(self.offset) + self.open.len() as u64);
        let files = (self.free.len() + self.releasing.len()) as u64;
        (last + files * segment).saturating_sub(unassigned as u64 * segment)
    }
}

const _: () = assert!(MAX_SEGMENT_BYTES as usize <= u32::MAX as usize);
