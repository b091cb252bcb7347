//! Copies of a journal that goes on.

use super::state::Journal;
use super::types::{Cut, FileId, Position};

/// What a log does not do while it is copied.
#[derive(Debug, Default)]
pub(super) struct Copying {
    /// What is behind this frame is not written for now.
    frozen: Option<Position>,
    /// Files that are being copied: they are not used again.
    pinned: Vec<FileId>,
    /// Those of them that would be by now.
    held: Vec<FileId>,
}

impl Copying {
    pub(super) fn freeze(&mut self, last: Position) {
        self.frozen = Some(last);
    }

    /// Whether nothing is written behind what is.
    pub(super) fn is_frozen(&self, written: Position) -> bool {
        self.frozen.is_some_and(|last| written >= last)
    }

    /// Whether a file that is not needed any longer waits for its copy.
    pub(super) fn holds(&mut self, file: FileId) -> bool {
        let pinned = self.pinned.contains(&file);
        self.held.extend(pinned.then_some(file));
        pinned
    }

    /// Whether it was pinned, and the file itself if it waited for that.
    pub(super) fn unpin(&mut self, file: FileId) -> (bool, Option<FileId>) {
        let Some(at) = self.pinned.iter().position(|pinned| *pinned == file) else {
            return (false, None);
        };
        self.pinned.swap_remove(at);
        let held = self.held.iter().position(|held| *held == file);
        (true, held.map(|at| self.held.swap_remove(at)))
    }

    pub(super) fn unpin_all(&mut self) -> Vec<FileId> {
        self.pinned.clear();
        std::mem::take(&mut self.held)
    }
}

impl Journal {
    /// What was appended so far is written, and nothing behind it until [`Journal::thaw`]; so nothing that
    /// is appended from here on becomes durable until then.
    pub fn freeze(&mut self) {
        self.log.freeze();
    }

    /// Goes on. Whether it was frozen.
    pub fn thaw(&mut self) -> bool {
        self.log.copying().frozen.take().is_some()
    }

    /// What is written, once all of it is that was appended before [`Journal::freeze`]. `None` until then,
    /// and after a failure.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        self.log.cut()
    }

    /// The files of a cut are not used again before [`Journal::unpin`]. If a new file is refused because
    /// the disk is full, they are all the same: acknowledgements come before copies.
    pub fn pin(&mut self, cut: &Cut) {
        let files = cut.files.iter().map(|(file, _)| *file);
        self.log.copying().pinned.extend(files);
    }

    /// A file was copied. `false` if it was not pinned any longer: then the copy may be wrong.
    pub fn unpin(&mut self, file: FileId) -> bool {
        self.log.unpin(file)
    }

    /// Nothing is copied any longer.
    pub fn unpin_all(&mut self) {
        self.log.unpin_all();
    }
}
