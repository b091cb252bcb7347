//! What a data directory holds, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;

use crate::journal::{Defect, Extent, Loss, Position, Salvaged, Sync};

use super::StoreError;
use super::content::{Content, Superseded};
use super::files::Files;
use super::remains::Remains;

/// A whole data directory.
#[derive(Debug)]
pub struct Examined {
    /// Its shards, by their numbers.
    pub shards: Vec<ShardExamined>,
    /// What is wrong besides the journals.
    pub problems: Vec<String>,
}

/// One of its journals.
#[derive(Debug)]
pub struct ShardExamined {
    /// Where it lies.
    pub directory: PathBuf,
    /// Files, segments, frames.
    pub extent: Extent,
    /// The last frame.
    pub position: Position,
    /// Sessions.
    pub sessions: usize,
    /// Their subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for sessions.
    pub messages: usize,
    /// For how many sessions in all.
    pub deliveries: usize,
    /// Retained messages.
    pub retained: usize,
    /// Bytes of the records that live.
    pub live_bytes: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Where the log ends in a frame that is not whole, and that nobody vouches for.
    pub tail: Option<Fault>,
    /// What contradicted something younger, and was left out.
    pub superseded: Superseded,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where, what, how much.
    pub loss: Loss,
}

impl Examined {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty() && self.shards.iter().all(|shard| shard.faults.is_empty())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss {
            damage,
            until,
            frames,
            items,
            ..
        } = self.loss;
        write!(f, "{}, offset {}", self.path.display(), damage.offset)?;
        if let Some(until) = until {
            write!(f, " to {until}")?;
        }
        match damage.what {
            Defect::FrameLost => write!(f, ": damaged or gone, and it was on disk")?,
            Defect::FrameMisplaced => write!(f, ": a frame that belongs somewhere else")?,
            Defect::Record => write!(f, ": a record that cannot be understood")?,
            Defect::SegmentMissing(segment) => {
                write!(f, ": here segment {segment} followed, which is in no file")?;
            }
            Defect::NewerFormat(version) => {
                write!(f, ": format {version}, which is newer than this program")?;
            }
        }
        match (frames, items) {
            (Some(frames), Some(items)) => write!(
                f,
                " ({frames} {}, {items} {} lost)",
                plural(frames, "frame", "frames"),
                plural(items, "item", "items")
            ),
            (Some(frames), None) => {
                write!(f, " ({frames} {} lost)", plural(frames, "frame", "frames"))
            }
            _ => Ok(()),
        }
    }
}

fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

impl Remains {
    /// Reads everything.
    ///
    /// # Errors
    /// A file cannot be read at all.
    pub fn examine(&self) -> Result<Examined, StoreError> {
        self.examine_each(drop)
    }

    /// The same; `each` gets what can be read of each shard, in their order.
    pub(super) fn examine_each(
        &self,
        mut each: impl FnMut(Content),
    ) -> Result<Examined, StoreError> {
        let mut shards = Vec::new();
        for files in &self.shards {
            if !files.directory().is_dir() {
                each(Content::default()); // it is among the problems
                continue;
            }
            let (content, examined) = examine(files)?;
            each(content);
            shards.push(examined);
        }
        let mut problems = self.problems.clone();
        problems.extend(super::backup::problems(&self.directory, &shards));
        Ok(Examined { shards, problems })
    }
}

/// Reads a journal leniently, and strictly as well: the broker's own way of reading has the last word.
pub(super) fn examine(files: &Files) -> Result<(Content, ShardExamined), StoreError> {
    let mut salvaged: Salvaged = files.salvage()?.settle();
    let position = salvaged.recovered.position;
    let (content, superseded, live_bytes) = Content::salvaged(files, &mut salvaged)?;
    let fault = |loss: Loss| Fault {
        path: files.path(loss.damage.file),
        loss,
    };
    let mut faults: Vec<Fault> = salvaged.losses.iter().map(|&loss| fault(loss)).collect();
    match files.load_with(Sync::Always, |_, _, _, _| {}) {
        Err(StoreError::Damaged { damage, .. }) if faults.is_empty() => {
            faults.push(fault(Loss::new(damage)));
        }
        Err(error @ StoreError::Io(..)) if faults.is_empty() => return Err(error),
        _ => {}
    }
    let waits = |receiver: &super::content::Receiver| receiver.waits();
    let queues = content.messages.iter().map(|kept| {
        let receivers = kept.receivers.iter();
        receivers.filter(|receiver| waits(receiver)).count()
    });
    let examined = ShardExamined {
        directory: files.directory().to_owned(),
        extent: salvaged.extent,
        position,
        sessions: content.sessions.len(),
        subscriptions: content
            .sessions
            .iter()
            .map(|session| session.subscriptions.len())
            .sum(),
        messages: queues.clone().filter(|&count| count > 0).count(),
        deliveries: queues.sum(),
        retained: content.messages.iter().filter(|kept| kept.retained).count(),
        live_bytes,
        faults,
        tail: salvaged.tail.map(|damage| fault(Loss::new(damage))),
        superseded,
    };
    Ok((content, examined))
}
