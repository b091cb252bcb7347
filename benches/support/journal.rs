//! A journal whose disk takes everything at once.

use std::collections::BTreeMap;

use shardmq::journal::{
    BLOCK, Copied, Deadline, FileId, Identity, ItemId, Journal, Recipient, Recovered, Recovery,
    Retention, SessionDetails, SessionNumber, Settings, StoredMessage,
};
use shardmq::wire::{QoS, Version};

/// Messages of one commit.
pub(crate) const BATCH: usize = 256;

const IDENTITY: Identity = Identity { log: 7, shard: 0 };

/// A journal with sessions.
pub(crate) struct Keeper {
    pub(crate) journal: Journal,
    pub(crate) sessions: Vec<SessionNumber>,
    /// Bytes that the disk got.
    pub(crate) written: u64,
    /// What the disk has, if it is to keep it.
    pub(crate) files: Option<BTreeMap<FileId, Vec<u8>>>,
    payload: Vec<u8>,
    queue: Vec<(SessionNumber, ItemId)>,
    next: usize,
}

impl Keeper {
    pub(crate) fn new(sessions: usize, payload: usize, keeps: bool) -> Self {
        let recovery = Recovery::new(IDENTITY, Settings::default());
        let (mut journal, _) = recovery.finish().expect("there is nothing yet");
        let sessions = (0..sessions)
            .map(|number| {
                let details = SessionDetails {
                    client_id: &format!("vehicle-{number:08}"),
                    user: "",
                    version: Version::V5,
                    expiry_interval: u32::MAX,
                    expires_at: Deadline::NEVER,
                };
                journal.open_session(details).expect("there is room")
            })
            .collect();
        let mut keeper = Self {
            journal,
            sessions,
            written: 0,
            files: keeps.then(BTreeMap::new),
            payload: vec![0xA5; payload],
            queue: Vec::new(),
            next: 0,
        };
        keeper.commit();
        keeper.written = 0;
        keeper
    }

    /// A message for each of the next `count` sessions in turn.
    pub(crate) fn append(&mut self, count: usize) {
        for _ in 0..count {
            let session = self.sessions[self.next % self.sessions.len()];
            self.next += 1;
            let mut recipients = [recipient(session)];
            let message = message(&self.payload);
            let added = self
                .journal
                .add_message(message, &mut recipients, Retention::None);
            self.queue.push((session, added.expect("there is room")));
        }
    }

    /// One message for all sessions.
    pub(crate) fn append_to_all(&mut self) {
        let mut recipients: Vec<_> = self.sessions.iter().copied().map(recipient).collect();
        let message = message(&self.payload);
        let added = self
            .journal
            .add_message(message, &mut recipients, Retention::None);
        added.expect("there is room");
    }

    /// All messages are acknowledged.
    pub(crate) fn acknowledge(&mut self) {
        for (session, message) in self.queue.drain(..) {
            let acknowledged = self.journal.acknowledge(session, message);
            acknowledged.expect("it waits");
        }
    }

    /// What was appended is on disk.
    pub(crate) fn commit(&mut self) {
        loop {
            while let Some(file) = self.journal.next_allocation() {
                if let Some(files) = &mut self.files {
                    files.insert(file, vec![0; Settings::default().segment_bytes as usize]);
                }
                self.journal.allocated(file, true);
            }
            let Some(write) = self.journal.next_write() else {
                break;
            };
            let bytes = write.bytes();
            self.written += bytes.len() as u64;
            if let Some(files) = &mut self.files {
                let file = files.get_mut(&write.file).expect("it was made");
                file[write.offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            self.journal.completed(write, Ok(()));
        }
    }

    /// 256 messages to as many sessions: appended, committed, acknowledged.
    pub(crate) fn round(&mut self) {
        self.append(BATCH);
        self.commit();
        self.acknowledge();
    }
}

/// Reads everything back.
pub(crate) fn recover(files: &BTreeMap<FileId, Vec<u8>>) -> (Journal, Recovered) {
    let mut recovery = Recovery::new(IDENTITY, Settings::default());
    for (file, bytes) in files {
        recovery.look(*file, &bytes[..BLOCK]);
    }
    while let Some(file) = recovery.next_file() {
        recovery
            .read(file, &files[&file])
            .expect("it is as it was written");
    }
    recovery.finish().expect("nothing is missing")
}

fn recipient(session: SessionNumber) -> Recipient<'static> {
    Recipient {
        session,
        copy: Copied {
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: &[],
            group: "",
        },
    }
}

fn message(payload: &[u8]) -> StoredMessage<'_> {
    StoredMessage {
        topic: "vehicle/4711/telemetry",
        properties: &[],
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: Deadline::NEVER,
    }
}
