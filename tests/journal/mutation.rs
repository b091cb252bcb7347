//! Bugs planted between the journal and the disk, or between the journal and whoever asks it, to show that
//! the crash test sees them. The journal itself knows nothing of them.

use std::collections::BTreeMap;

use shardmq::journal::{FileId, Header, Identity, Journal, Record, Recovered, records};

use crate::disk::Disk;

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// `fdatasync` does nothing.
    NoSync,
    /// Clients are told when something was appended, not when it is on disk.
    AcknowledgedBeforeCommit,
    /// The file of a freed segment is written to as soon as a frame says so, not when it is on disk.
    RecycledTooEarly,
    /// Frames do not say which segment is the oldest that counts: whatever is there counts.
    NoHead,
    /// A session's messages come in the order in which they were written last.
    LastWriteOrder,
    /// What was read at the start is not synced.
    NoSyncAtStart,
    /// Files are used again while they are copied.
    NotPinned,
    /// At a start nobody knows any more that retained messages are owed to a subscription.
    ForgottenReplay,
}

impl Bug {
    pub const ALL: [Self; 8] = [
        Self::NoSync,
        Self::AcknowledgedBeforeCommit,
        Self::RecycledTooEarly,
        Self::NoHead,
        Self::LastWriteOrder,
        Self::NoSyncAtStart,
        Self::NotPinned,
        Self::ForgottenReplay,
    ];
}

/// Plants a bug, or none.
pub struct Mutator {
    pub bug: Option<Bug>,
    identity: Identity,
    /// Which file holds a segment, as far as its frames are still there.
    segments: BTreeMap<u64, FileId>,
}

impl Mutator {
    pub fn new(bug: Option<Bug>, identity: Identity) -> Self {
        Self {
            bug,
            identity,
            segments: BTreeMap::new(),
        }
    }

    /// A frame on its way to the disk.
    pub fn frame(&mut self, frame: &[u8], disk: &mut Disk) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let opened = Header::open(self.identity, &frame).expect("the journal writes frames");
        let mut header = opened.0;
        self.segments
            .retain(|_, file| *file != header.file || header.offset > 0);
        self.segments.insert(header.segment, header.file);
        match self.bug {
            Some(Bug::RecycledTooEarly) => {
                let freed = self.segments.range(..header.head);
                freed.for_each(|(_, file)| disk.scribble(file.0, &[0; 4096]));
                self.segments.retain(|&segment, _| segment >= header.head);
            }
            Some(Bug::NoHead) => {
                header.head = self.segments.keys().next().copied().unwrap_or(header.head);
                header.seal(&mut frame);
            }
            _ => {}
        }
        frame
    }

    /// What came back at a start.
    pub fn recovered(&self, recovered: &mut Recovered, journal: &Journal, disk: &Disk) {
        if self.bug == Some(Bug::ForgottenReplay) {
            let sessions = recovered.sessions.iter_mut();
            let subscriptions = sessions.flat_map(|session| &mut session.subscriptions);
            subscriptions.for_each(|subscription| subscription.owed = false);
        }
        if self.bug != Some(Bug::LastWriteOrder) {
            return;
        }
        let mut written = BTreeMap::new();
        for file in journal.files() {
            let bytes = disk.read(file.0);
            let mut at = 0;
            while let Some(rest) = bytes.get(at..)
                && let Ok((header, body)) = Header::open(self.identity, rest)
            {
                let understood = records(&header, body, |record| {
                    if let Record::Message { id, .. } = record {
                        let order = written.len();
                        written.insert(id, (header.position, order));
                    }
                });
                assert!(understood.is_ok());
                at += header.size();
            }
        }
        for session in &mut recovered.sessions {
            session.messages.sort_by_key(|id| written.get(id));
        }
    }
}
