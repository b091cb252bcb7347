//! From files back to a journal, and to what a shard is made from.
//!
//! What lives is a set: everything that was appended, minus everything that was ended. Every item has a
//! number of its own, never used again, so it does not matter in which order records are read, or
//! whether one is read twice because it was being moved when the power went. A session's messages come
//! in the order of their numbers, wherever they stand.
//!
//! Where the log ends: the newest segment is read to its last whole frame. That frame names the oldest
//! segment that counts, and between the two nothing may be missing. Every frame names the last one that
//! was on disk when it was written; if any frame that is found, wherever it stands, names one behind
//! the end, then something was lost that had been on disk: that is damage. If not, what is missing was
//! never on disk, and nobody was told that it is.

use super::codec::Malformed;
use super::frame::{Header, NoFrame, padded};
use super::index::Index;
use super::items::Items;
use super::log::{Found, Log, Segment};
use super::restored::Recovered;
use super::state::Journal;
use super::types::{BLOCK, Damage, Defect, FileId, Identity, Position, Settings};

/// Reads the files of one journal.
///
/// 1. [`Recovery::look`] at the first block of every file that there is;
/// 2. [`Recovery::read`] each file that [`Recovery::next_file`] names, whole, until it names none;
/// 3. [`Recovery::finish`].
///
/// What was read must be on disk before the journal goes on: the caller syncs every file once. After a
/// crash of the process alone, what it reads may only be in the kernel's memory.
pub struct Recovery {
    identity: Identity,
    settings: Settings,
    files: Vec<Known>,
    head: u64,
    segments: Vec<Walked>,
    evidence: Evidence,
    next_file: u32,
    items: Items,
}

/// A file, by what its first block says.
#[derive(Clone, Copy, Debug)]
struct Known {
    file: FileId,
    segment: Option<u64>,
    read: bool,
}

/// A segment that was read to its end.
#[derive(Clone, Copy, Debug)]
struct Walked {
    segment: u64,
    file: FileId,
    first: Position,
    last: Position,
    used: u32,
    items: u32,
}

/// The most that any frame says was on disk, and where that frame stands.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    durable: Position,
    run: u32,
}

impl Recovery {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(identity: Identity, settings: Settings) -> Self {
        Self {
            identity,
            settings,
            files: Vec::new(),
            head: 0,
            segments: Vec::new(),
            evidence: Evidence::default(),
            next_file: 0,
            items: Items::default(),
        }
    }

    /// A file of the right size is there; `first_block` is how it begins. Of a file whose first frame is
    /// longer than that, only the header is believed for now.
    pub fn look(&mut self, file: FileId, first_block: &[u8]) {
        let segment = Header::peek(self.identity, first_block)
            .filter(|header| header.offset == 0 && header.file == file)
            .map(|header| header.segment);
        self.next_file = self.next_file.max(file.0 + 1);
        self.files.push(Known {
            file,
            segment,
            read: false,
        });
    }

    /// The next file to read: the newest segment first, then those from the oldest that counts on, then
    /// what else there is.
    pub fn next_file(&mut self) -> Option<FileId> {
        let unread = self.files.iter().filter(|known| !known.read);
        let counts = |known: &&Known| known.segment.is_some_and(|segment| segment >= self.head);
        let next = match self.segments.is_empty() {
            true => unread.clone().max_by_key(|known| known.segment),
            false => unread
                .clone()
                .filter(counts)
                .min_by_key(|known| known.segment)
                .or_else(|| unread.clone().next()),
        };
        next.map(|known| known.file)
    }

    /// Reads the file that [`Recovery::next_file`] named.
    ///
    /// # Errors
    /// It holds what it must not hold.
    pub fn read(&mut self, file: FileId, bytes: &[u8]) -> Result<(), Damage> {
        let Some(known) = self.files.iter_mut().find(|known| known.file == file) else {
            return Ok(());
        };
        known.read = true;
        let segment = known.segment.filter(|&segment| segment >= self.head);
        let end = match segment {
            Some(segment) => self.walk(file, segment, bytes)?,
            None => 0,
        };
        self.search(file, end, bytes)
    }

    /// Reads the frames of a segment; where they end.
    fn walk(&mut self, file: FileId, segment: u64, bytes: &[u8]) -> Result<usize, Damage> {
        let mut walked: Option<Walked> = None;
        let (mut at, mut run, mut head) = (0, 0, 0);
        while let Some(rest) = bytes.get(at..)
            && let Ok((header, records)) = Header::open(self.identity, rest)
        {
            let follows = walked.is_none_or(|walked| walked.last.0 + 1 == header.position.0);
            let here = header.segment == segment
                && header.file == file
                && header.offset as usize == at
                && header.run >= run;
            if !follows || !here {
                break;
            }
            (run, head) = (header.run, header.head);
            self.evidence.see(&header);
            let walked = walked.get_or_insert(Walked {
                segment,
                file,
                first: header.position,
                last: header.position,
                used: 0,
                items: 0,
            });
            walked.last = header.position;
            walked.items +=
                self.items
                    .read(&header, records, segment, at)
                    .map_err(|Malformed| Damage {
                        file,
                        offset: at as u32,
                        what: Defect::Record,
                    })?;
            at += header.size();
            walked.used = at as u32;
        }
        if let Some(walked) = walked {
            if self.segments.is_empty() {
                self.head = head;
            }
            self.segments.push(walked);
        }
        Ok(at)
    }

    /// Looks at what stands behind the end of a segment, or in a file that holds none.
    fn search(&mut self, file: FileId, end: usize, bytes: &[u8]) -> Result<(), Damage> {
        for at in (padded(end)..bytes.len()).step_by(BLOCK) {
            let offset = at as u32;
            match Header::open(self.identity, &bytes[at..]) {
                Ok((header, _)) if header.file == file && header.offset == offset => {
                    self.evidence.see(&header);
                }
                Ok(_) => {
                    return Err(Damage {
                        file,
                        offset,
                        what: Defect::FrameMisplaced,
                    });
                }
                Err(NoFrame::Newer(version)) => {
                    return Err(Damage {
                        file,
                        offset,
                        what: Defect::NewerFormat(version),
                    });
                }
                Err(NoFrame::None) => {}
            }
        }
        Ok(())
    }

    /// The journal, ready to go on, and what it held.
    ///
    /// # Errors
    /// Something that was on disk is not there any more.
    pub fn finish(mut self) -> Result<(Journal, Recovered), Damage> {
        self.segments.sort_unstable_by_key(|walked| walked.segment);
        self.check()?;
        let newest = self.segments.last();
        let position = newest.map_or(Position(0), |walked| walked.last);
        let free = self.files.iter().map(|known| known.file);
        let free = free.filter(|file| self.segments.iter().all(|walked| walked.file != *file));
        let mut found = Found {
            run: self.evidence.run,
            next_item: self.items.next,
            position,
            first: self.head,
            segments: self.segments.iter().map(Walked::segment).collect(),
            free: free.collect(),
            next_file: self.next_file,
        };
        let mut index = Index::default();
        let (sessions, recovered) = self.items.settle(&mut index, &mut found);
        let log = Log::new(self.identity, self.settings, found);
        let recovered = Recovered {
            position,
            ..recovered
        };
        Ok((Journal::restored(log, index, sessions), recovered))
    }

    /// Whether everything is there that was on disk once.
    fn check(&self) -> Result<(), Damage> {
        let mut before: Option<&Walked> = None;
        for (expected, walked) in (self.head..).zip(&self.segments) {
            let file = before.unwrap_or(walked).file;
            let offset = before.map_or(0, |before| before.used);
            if walked.segment != expected {
                return Err(Damage {
                    file,
                    offset,
                    what: Defect::SegmentMissing(expected),
                });
            }
            if before.is_some_and(|before| before.last.0 + 1 != walked.first.0) {
                return Err(Damage {
                    file,
                    offset,
                    what: Defect::FrameLost,
                });
            }
            before = Some(walked);
        }
        let (end, file, offset) = match before {
            Some(newest) => (newest.last, newest.file, newest.used),
            None => (Position(0), FileId(0), 0),
        };
        if self.evidence.durable > end {
            return Err(Damage {
                file,
                offset,
                what: Defect::FrameLost,
            });
        }
        Ok(())
    }
}

impl Walked {
    fn segment(&self) -> Segment {
        Segment {
            file: Some(self.file),
            live: 0,
            items: self.items,
            used: self.used,
            last: self.last,
            died: Position(0),
        }
    }
}

impl Evidence {
    fn see(&mut self, header: &Header) {
        self.durable = self.durable.max(header.durable);
        self.run = self.run.max(header.run);
    }
}
