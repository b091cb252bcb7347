//! New journals that get what others held, or what was imported.
//!
//! A session goes to the shard that the hash of its client id names, a retained message to that of its
//! topic. Everything is appended as if it happened now, in its order; nobody waits meanwhile, so one
//! sync at the end is enough.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::journal::{
    Copied, Deadline, FileId, Journal, Recipient, Recovery, Refused, RestoredSession, Retention,
    SessionNumber, StoredMessage, Sync,
};
use crate::shard::home;
use crate::wire::QoS;

use super::StoreError;
use super::content::{Content, Kept};
use super::files::Files;

/// Bytes that may wait in a journal before they are written.
const BACKLOG_BYTES: usize = 4 << 20;

/// The journals of a new layout.
pub(super) struct Targets {
    targets: Vec<Target>,
    /// Where each session is, in the order they came.
    places: Vec<(usize, SessionNumber)>,
}

/// One of them.
struct Target {
    files: Files,
    journal: Journal,
    open: HashMap<FileId, File>,
}

/// What takes the place of a message that all have got.
const GONE: StoredMessage<'_> = StoredMessage {
    topic: "",
    properties: &[],
    payload: &[],
    qos: QoS::ExactlyOnce,
    retain: false,
    expires_at: Deadline::NEVER,
};

impl Targets {
    /// Journals in `files`, which are empty.
    pub(super) fn new(files: Vec<Files>) -> Result<Self, StoreError> {
        Ok(Self {
            targets: files
                .into_iter()
                .map(Target::new)
                .collect::<Result<_, _>>()?,
            places: Vec::new(),
        })
    }

    /// Everything of a journal.
    pub(super) fn take(&mut self, content: &Content) -> Result<(), StoreError> {
        let base = self.places.len();
        for session in &content.sessions {
            self.session(session)?;
        }
        for kept in &content.messages {
            self.message(kept, base)?;
        }
        Ok(())
    }

    /// A session with all that is its own but messages and exchanges. They are numbered as they come.
    pub(super) fn session(&mut self, session: &RestoredSession) -> Result<(), StoreError> {
        let shard = home(&session.client_id, self.targets.len()).index();
        let number = self.targets[shard].session(session)?;
        self.places.push((shard, number));
        Ok(())
    }

    /// A message whose receivers count the sessions from `base` on.
    pub(super) fn message(&mut self, kept: &Kept, base: usize) -> Result<(), StoreError> {
        let keeper = kept.body.as_ref().filter(|_| kept.retained);
        let keeper = keeper.map(|body| home(&body.topic, self.targets.len()).index());
        for (shard, target) in self.targets.iter_mut().enumerate() {
            target.message(kept, keeper == Some(shard), |index| {
                let &(place, number) = self.places.get(base + index)?;
                (place == shard).then_some(number)
            })?;
        }
        Ok(())
    }

    /// Everything is on disk.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        self.targets.iter_mut().try_for_each(Target::finish)
    }
}

impl Target {
    fn new(files: Files) -> Result<Self, StoreError> {
        let empty = Recovery::new(files.identity(), files.settings(Sync::OnDemand));
        let (journal, _) = empty.finish().map_err(|damage| files.damaged(damage))?;
        Ok(Self {
            files,
            journal,
            open: HashMap::new(),
        })
    }

    fn refused(&self) -> impl Fn(Refused) -> StoreError + use<> {
        let directory = self.files.directory().to_owned();
        move |_| StoreError::Refused(directory.clone())
    }

    fn session(&mut self, session: &RestoredSession) -> Result<SessionNumber, StoreError> {
        let refused = self.refused();
        let journal = &mut self.journal;
        let number = journal.open_session(session.details()).map_err(&refused)?;
        for subscription in &session.subscriptions {
            journal
                .add_subscription(number, subscription.details(), None)
                .map_err(&refused)?;
        }
        for &packet_id in &session.held {
            journal.hold(number, packet_id).map_err(&refused)?;
        }
        if let Some(will) = &session.will {
            journal.set_will(number, will.details()).map_err(&refused)?;
        }
        self.write_some()?;
        Ok(number)
    }

    fn message(
        &mut self,
        kept: &Kept,
        retained: bool,
        session: impl Fn(usize) -> Option<SessionNumber>,
    ) -> Result<(), StoreError> {
        let mut exchanges = Vec::new();
        let mut recipients = Vec::new();
        for receiver in &kept.receivers {
            let Some(session) = session(receiver.session) else {
                continue;
            };
            recipients.push(Recipient {
                session,
                copy: Copied {
                    qos: receiver.qos,
                    retain: receiver.retain,
                    identifiers: &receiver.identifiers,
                    group: &receiver.group,
                },
            });
            exchanges.extend(receiver.exchange.map(|begun| (session, begun)));
        }
        if recipients.is_empty() && !retained {
            return Ok(());
        }
        let retention = match retained {
            true => Retention::Retained(None),
            false => Retention::None,
        };
        let refused = self.refused();
        let journal = &mut self.journal;
        let message = kept.body.as_ref().map_or(GONE, |body| body.stored());
        let item = journal
            .add_message(message, &mut recipients, retention)
            .map_err(&refused)?;
        for (session, begun) in exchanges {
            journal
                .send(session, item, begun.packet_id)
                .map_err(&refused)?;
            if begun.received {
                journal
                    .receive(session, begun.packet_id)
                    .map_err(&refused)?;
            }
        }
        self.write_some()
    }

    fn write_some(&mut self) -> Result<(), StoreError> {
        match self.journal.backlog() {
            0..BACKLOG_BYTES => Ok(()),
            _ => self.write(),
        }
    }

    /// Writes what waits.
    fn write(&mut self) -> Result<(), StoreError> {
        loop {
            if let Some(file) = self.journal.next_allocation() {
                let made = self.files.allocate(file).map_err(|error| {
                    StoreError::io("make a file in", self.files.directory(), error)
                })?;
                self.open.insert(file, made);
                self.journal.allocated(file, true);
            } else if let Some(write) = self.journal.next_write() {
                let directory = self.files.directory();
                let failed = |error| StoreError::io("write to", directory, error);
                if let Some(file) = self.open.get(&write.file) {
                    file.write_all_at(write.bytes(), u64::from(write.offset))
                        .map_err(failed)?;
                    if write.sync {
                        file.sync_data().map_err(failed)?;
                    }
                }
                self.journal.completed(write, Ok(()));
            } else {
                return Ok(());
            }
        }
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.write()?;
        // The first one is synced with all that is before it, the second says so: from then on what is
        // missing is known to be lost.
        for _ in 0..2 {
            self.journal.seal();
            self.write()?;
        }
        for file in self.open.values() {
            file.sync_all()
                .map_err(|error| StoreError::io("sync", self.files.directory(), error))?;
        }
        self.files.sync()
    }
}
