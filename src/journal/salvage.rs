//! What is left of a damaged journal, and what is not.
//!
//! [`super::Recovery`] refuses a journal that lacks something that was on disk. Here nothing is refused:
//! every frame that is whole and stands in its place is taken, what lies between them is named, and
//! what can be read is settled as always. For people who look, and for a repair into a new journal;
//! never to go on from.
//!
//! - A frame is believed as a whole, by its checksum. Of a damaged one only messages are, which
//!   have a checksum of their own, as far as one follows the other.
//! - What a run of the program found to be the end of the log was its end: frames of earlier runs that
//!   stand behind it do not count, although they are whole.
//! - What an ended item ended with may be lost: then it is there again. A message comes twice rather
//!   than never.

use std::collections::{BTreeMap, HashSet};

use super::codec::Reader;
use super::frame::{HEADER_BYTES, Header, NoFrame, padded};
use super::index::{Index, Place};
use super::items::Items;
use super::log::{Found, Log, Segment};
use super::record::Record;
use super::restored::Recovered;
use super::state::Journal;
use super::types::{
    BLOCK, Damage, Defect, FileId, Identity, ItemId, Position, Recipient, SessionNumber, Settings,
    StoredMessage,
};

/// The first look: which frames there are.
///
/// [`Survey::look`] at every file, then [`Survey::finish`].
pub struct Survey {
    identity: Identity,
    settings: Settings,
    files: u32,
    bytes: u64,
    whole: Vec<Header>,
    broken: Vec<Header>,
    losses: Vec<Loss>,
}

/// Something that is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where, and what is wrong.
    pub damage: Damage,
    /// The next place that is fine again, if the same file has one.
    pub until: Option<u32>,
    /// Frames that were there, as far as that is known.
    pub frames: Option<u64>,
    /// Items (sessions, subscriptions, messages, exchanges, wills) that began there and stand nowhere else.
    pub items: Option<u64>,
    /// The numbers that these items can have.
    numbers: (u64, u64),
}

impl Loss {
    /// Of which no more is known.
    #[must_use]
    pub fn new(damage: Damage) -> Self {
        Self {
            damage,
            until: None,
            frames: None,
            items: None,
            numbers: (0, 0),
        }
    }
}

/// A piece of a file that counts: a frame, or what is left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The header of the frame. Of a damaged one it may be wrong.
    pub header: Header,
    /// Where the next one begins, or where there is none.
    pub end: u32,
    /// Whether the checksum of the frame is right.
    pub whole: bool,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Files.
    pub files: u32,
    /// Bytes of the files.
    pub bytes: u64,
    /// Segments that count.
    pub segments: u64,
    /// Frames that count.
    pub frames: u64,
    /// Bytes of these frames, with their padding.
    pub used: u64,
}

/// The second look: what stands in the frames that count.
///
/// [`Salvage::read`] every file of [`Salvage::files`], then [`Salvage::settle`].
pub struct Salvage {
    identity: Identity,
    settings: Settings,
    head: u64,
    last: u64,
    position: Position,
    parts: Vec<Part>,
    losses: Vec<Loss>,
    tail: Option<Damage>,
    extent: Extent,
    items: Items,
}

/// What could be read.
pub struct Salvaged {
    /// What the journal holds, bodies aside; [`Salvaged::each_message`] brings those.
    pub recovered: Recovered,
    /// What is wrong, in the order of the log.
    pub losses: Vec<Loss>,
    /// Where the log ends in a frame that is not whole and that no other vouches for: a write that was
    /// cut off before anybody was told of it, or damage to the last commit of all.
    pub tail: Option<Damage>,
    /// How much there is.
    pub extent: Extent,
    journal: Journal,
    parts: Vec<Part>,
}

impl Survey {
    /// Nothing was looked at yet.
    #[must_use]
    pub fn new(identity: Identity, settings: Settings) -> Self {
        Self {
            identity,
            settings,
            files: 0,
            bytes: 0,
            whole: Vec::new(),
            broken: Vec::new(),
            losses: Vec::new(),
        }
    }

    /// Looks at a whole file.
    pub fn look(&mut self, file: FileId, bytes: &[u8]) {
        self.files += 1;
        self.bytes += bytes.len() as u64;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            let is_here = |header: &Header| header.file == file && header.offset as usize == at;
            let wrong = match Header::open(self.identity, rest) {
                Ok((header, _)) if is_here(&header) => {
                    self.whole.push(header);
                    at += header.size();
                    continue;
                }
                Ok(_) => Some(Defect::FrameMisplaced),
                Err(NoFrame::Newer(version)) => Some(Defect::NewerFormat(version)),
                Err(NoFrame::None) => {
                    let header = Header::peek(self.identity, rest);
                    self.broken.extend(header.filter(is_here));
                    None
                }
            };
            self.losses.extend(wrong.map(|what| {
                Loss::new(Damage {
                    file,
                    offset: at as u32,
                    what,
                })
            }));
            at += BLOCK;
        }
    }

    /// Which of these frames count, and where some are missing.
    #[must_use]
    pub fn finish(mut self) -> Salvage {
        let vouched = self.whole.iter().map(|header| header.durable).max();
        let vouched = vouched.unwrap_or_default();
        self.drop_superseded();
        self.drop_behind_the_end(vouched);
        let head = self.whole.iter().map(|header| header.head).max();
        let head = head.unwrap_or(0);
        let mut segments: BTreeMap<u64, Vec<Header>> = BTreeMap::new();
        for header in self.whole.iter().filter(|header| header.segment >= head) {
            segments.entry(header.segment).or_default().push(*header);
        }
        for frames in segments.values_mut() {
            // A segment is in one file: that of the latest run.
            let file = frames.iter().max_by_key(|header| header.run);
            let file = file.map(|header| header.file);
            frames.retain(|header| Some(header.file) == file);
            frames.sort_unstable_by_key(|header| header.offset);
        }
        let mut walk = Walk::new(head, std::mem::take(&mut self.losses));
        for (&segment, frames) in &segments {
            walk.segment(segment, frames);
        }
        walk.end(vouched);
        let (last, position) = (walk.segment, walk.position);
        let mut parts: Vec<Part> = segments
            .values()
            .flatten()
            .map(|header| Part {
                header: *header,
                end: header.offset + header.size() as u32,
                whole: true,
            })
            .collect();
        let extent = Extent {
            files: self.files,
            bytes: self.bytes,
            segments: segments.len() as u64,
            frames: parts.len() as u64,
            used: parts
                .iter()
                .map(|part| u64::from(part.end - part.header.offset))
                .sum(),
        };
        let reached = position.max(vouched);
        let tail = self.broken.iter().find(|broken| {
            broken.position.0 == reached.0 + 1 && (broken.segment, broken.offset) >= walk.place()
        });
        let tail = tail.map(|broken| Damage {
            file: broken.file,
            offset: broken.offset,
            what: Defect::FrameLost,
        });
        let counted = Counted::new(segments.values().flatten());
        let lost = self.broken.iter().filter(|broken| {
            let file = segments
                .get(&broken.segment)
                .map_or(broken.file, |frames| frames[0].file);
            (head..=last).contains(&broken.segment)
                && broken.position <= reached
                && broken.file == file
                && counted.lack(broken)
        });
        add_broken(lost, &mut parts, self.settings.segment_bytes);
        Salvage {
            identity: self.identity,
            settings: self.settings,
            head,
            last,
            position,
            parts,
            losses: walk.losses,
            tail,
            extent,
            items: Items::default(),
        }
    }

    /// Frames behind the first one that is missing and that nobody says was on disk: a write that was cut
    /// off ended the log there, whatever else of it arrived.
    fn drop_behind_the_end(&mut self, vouched: Position) {
        let there: HashSet<u64> = self.whole.iter().map(|header| header.position.0).collect();
        let mut end = vouched.0;
        while there.contains(&(end + 1)) {
            end += 1;
        }
        self.whole.retain(|header| header.position.0 <= end);
    }

    /// Frames of earlier runs that stand where a later one found the log to have ended.
    fn drop_superseded(&mut self) {
        self.whole
            .sort_unstable_by_key(|header| (std::cmp::Reverse(header.run), header.position));
        let (mut run, mut begun, mut limit) = (None, u64::MAX, u64::MAX);
        self.whole.retain(|header| {
            if run != Some(header.run) {
                run = Some(header.run);
                limit = limit.min(begun);
                begun = header.position.0; // its first
            }
            header.position.0 < limit
        });
    }
}

/// The frames that count.
struct Counted {
    positions: HashSet<u64>,
    /// Of each run, where it began, as far as that is known.
    runs: BTreeMap<u32, u64>,
}

impl Counted {
    fn new<'a>(frames: impl Iterator<Item = &'a Header>) -> Self {
        let (mut positions, mut runs) = (HashSet::new(), BTreeMap::new());
        for Header { position, run, .. } in frames {
            positions.insert(position.0);
            let begun = runs.entry(*run).or_insert(position.0);
            *begun = (*begun).min(position.0);
        }
        Self { positions, runs }
    }

    /// Whether a damaged frame is one that they lack. If another one stands in its position, or if a later
    /// run began before it, then it was never finished, and what it says never happened: its items have
    /// numbers that others were given.
    fn lack(&self, broken: &Header) -> bool {
        let mut later = self.runs.range(broken.run.saturating_add(1)..);
        !self.positions.contains(&broken.position.0)
            && !later.any(|(_, begun)| *begun <= broken.position.0)
    }
}

/// Takes damaged frames in where no whole one stands.
fn add_broken<'a>(
    broken: impl Iterator<Item = &'a Header>,
    parts: &mut Vec<Part>,
    segment_bytes: u32,
) {
    let key = |header: &Header| (header.segment, header.offset);
    let mut added: Vec<Part> = Vec::new();
    for header in broken {
        let at = parts.partition_point(|part| key(&part.header) <= key(header));
        let before = at.checked_sub(1).map(|before| parts[before]);
        if before
            .is_some_and(|part| part.header.segment == header.segment && part.end > header.offset)
        {
            continue;
        }
        let after = parts.get(at).map(|part| part.header);
        // Of a torn header the half of an older frame may be left: it is believed where it fits.
        let fits = before.is_none_or(|before| before.header.position < header.position)
            && after.is_none_or(|after| header.position < after.position);
        if !fits {
            continue;
        }
        let after = after.filter(|after| after.segment == header.segment);
        added.push(Part {
            header: *header,
            end: after.map_or(segment_bytes, |after| after.offset),
            whole: false,
        });
    }
    parts.append(&mut added);
    parts.sort_unstable_by_key(|part| key(&part.header));
}

/// Goes along the frames that count, and notes what is missing between them.
struct Walk {
    segment: u64,
    file: FileId,
    end: u32,
    position: Position,
    /// The first item that the frame before could give away.
    base: u64,
    begun: bool,
    losses: Vec<Loss>,
}

impl Walk {
    fn new(head: u64, losses: Vec<Loss>) -> Self {
        Self {
            segment: head,
            file: FileId(0),
            end: 0,
            position: Position(0),
            base: 0,
            begun: false,
            losses,
        }
    }

    fn place(&self) -> (u64, u32) {
        (self.segment, self.end)
    }

    /// Frames of a segment, at least one.
    fn segment(&mut self, segment: u64, frames: &[Header]) {
        let first = &frames[0];
        if !self.begun {
            self.file = first.file;
        }
        let missing = self.segment + u64::from(self.begun)..segment;
        for segment in missing.clone() {
            self.lose(Defect::SegmentMissing(segment), None, None);
        }
        // The end of the segment before; a missing one says it all.
        if self.begun && missing.is_empty() && first.offset == 0 {
            self.expect(first, None);
        }
        (self.segment, self.file) = (segment, first.file);
        if first.offset != 0 {
            self.end = 0;
            self.expect(first, Some(first.offset));
        }
        for (index, frame) in frames.iter().enumerate() {
            if index > 0 {
                self.expect(frame, Some(frame.offset));
            }
            self.end = frame.offset + frame.size() as u32;
            self.position = frame.position;
            self.base = frame.base.0;
            self.begun = true;
        }
    }

    /// `frame` is the next one that there is.
    fn expect(&mut self, frame: &Header, until: Option<u32>) {
        let follows = frame.position.0 == self.position.0 + 1;
        if until.is_some_and(|until| until != self.end) || (self.begun && !follows) {
            self.lose(Defect::FrameLost, until, Some(frame));
        }
    }

    fn lose(&mut self, what: Defect, until: Option<u32>, next: Option<&Header>) {
        let known = next.filter(|_| self.begun);
        let between = |after: u64, before: u64| after.saturating_sub(before);
        self.losses.push(Loss {
            damage: Damage {
                file: self.file,
                offset: self.end,
                what,
            },
            until,
            frames: known.map(|next| between(next.position.0, self.position.0 + 1)),
            items: None,
            numbers: known.map_or((0, 0), |next| (self.base, next.base.0)),
        });
    }

    /// `vouched` was on disk once.
    fn end(&mut self, vouched: Position) {
        if vouched > self.position {
            self.lose(Defect::FrameLost, None, None);
            if let Some(loss) = self.losses.last_mut() {
                loss.frames = Some(vouched.0 - self.position.0);
            }
        }
    }
}

impl Salvage {
    /// What counts, in the order of the log.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What is wrong.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Where the log ends in a frame that is not whole and that no other vouches for.
    #[must_use]
    pub fn tail(&self) -> Option<Damage> {
        self.tail
    }

    /// The files that hold something that counts, each once.
    #[must_use]
    pub fn files(&self) -> Vec<FileId> {
        files(&self.parts)
    }

    /// Takes in what stands in a file.
    pub fn read(&mut self, file: FileId, bytes: &[u8]) {
        for part in of_file(&self.parts, file) {
            let Part { header, whole, .. } = part;
            self.items.next = self.items.next.max(header.base.0);
            let readable = for_each_in(part, bytes, |at, _, record| {
                if *whole || matches!(record, Record::Message { .. }) {
                    self.items.record(record, header.segment, at);
                }
            });
            if *whole && !readable {
                let damage = Damage {
                    file,
                    offset: header.offset,
                    what: Defect::Record,
                };
                self.losses.push(Loss {
                    until: Some(part.end),
                    ..Loss::new(damage)
                });
            }
        }
    }

    /// Appended minus ended.
    #[must_use]
    pub fn settle(mut self) -> Salvaged {
        let mut found = Found {
            run: 0,
            next_item: self.items.next,
            position: self.position,
            first: self.head,
            segments: (self.head..=self.last)
                .map(|_| Segment::default())
                .collect(),
            ..Found::default()
        };
        for loss in &mut self.losses {
            let (from, to) = loss.numbers;
            let there = self.items.begun_between(from, to);
            loss.items = (from < to).then(|| (to - from).saturating_sub(there));
        }
        self.items.order();
        let mut index = Index::default();
        let (sessions, recovered) = self.items.settle(&mut index, &mut found);
        let log = Log::new(self.identity, self.settings, found);
        Salvaged {
            recovered: Recovered {
                position: self.position,
                ..recovered
            },
            losses: self.losses,
            tail: self.tail,
            extent: self.extent,
            journal: Journal::restored(log, index, sessions),
            parts: self.parts,
        }
    }
}

impl Salvaged {
    /// The files that hold something that counts, each once.
    #[must_use]
    pub fn files(&self) -> Vec<FileId> {
        files(&self.parts)
    }

    /// The first record of a session: of two sessions of a client the one that began later is right.
    #[must_use]
    pub fn began(&self, session: SessionNumber) -> Option<ItemId> {
        self.journal.session(session).map(|known| known.begun)
    }

    /// As [`Journal::each_message`]; the bytes of the records in `bytes`, all of `file`, that live.
    pub fn each_message(
        &self,
        file: FileId,
        bytes: &[u8],
        mut each: impl FnMut(ItemId, StoredMessage<'_>, bool, &[Recipient<'_>]),
    ) -> u64 {
        let mut living = 0;
        for part in of_file(&self.parts, file) {
            for_each_in(part, bytes, |at, length, record| {
                let place = Place::new(part.header.segment, at as usize);
                let begins = record.begins();
                let item = begins.and_then(|(item, _)| self.journal.index.get(item));
                if item.is_some_and(|(stands, _)| stands == place) {
                    living += length as u64;
                }
                self.journal.give(place, &record, &mut each);
            });
        }
        living
    }
}

/// Calls `each` for the records of a part, as far as they can be read: where it begins in the file, its
/// bytes, the record. `false` if there is more that cannot be read.
pub fn for_each_in<'a>(
    part: &Part,
    bytes: &'a [u8],
    mut each: impl FnMut(u32, usize, Record<'a>),
) -> bool {
    let start = part.header.offset as usize + HEADER_BYTES;
    let end = match part.whole {
        true => start + part.header.length as usize,
        false => (part.end as usize).min(padded(bytes.len())),
    };
    let end = end.min(bytes.len());
    let mut reader = Reader::new(bytes.get(start..end).unwrap_or_default());
    while !reader.is_empty() {
        let at = end - reader.rest().len();
        let Ok(record) = Record::decode(part.header.base, &mut reader) else {
            return false;
        };
        let length = end - reader.rest().len() - at;
        each(at as u32, length, record);
    }
    true
}

fn of_file(parts: &[Part], file: FileId) -> impl Iterator<Item = &Part> {
    parts.iter().filter(move |part| part.header.file == file)
}

fn files(parts: &[Part]) -> Vec<FileId> {
    let mut files: Vec<FileId> = parts.iter().map(|part| part.header.file).collect();
    files.dedup();
    files
}
