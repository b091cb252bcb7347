//! What can be read of a damaged data directory, in a new layout.
//!
//! The order is what makes it safe: the new layout is on disk before anything else changes; the damaged
//! one is linked to where it is kept; then the manifest names the new one; then the old name goes. A cut
//! anywhere leaves either the damaged directory as it was, or the repaired one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::journal::Defect;

use super::examine::Examined;
use super::manifest::{self, Manifest};
use super::remains::Remains;
use super::target::Targets;
use super::{StoreError, forwards, layout, layouts, make_layout, random, sync_directory};

/// What a repair did.
#[derive(Debug)]
pub struct Repaired {
    /// What was there, and what was wrong.
    pub examined: Examined,
    /// Whether anything was done: not where nothing is wrong.
    pub done: bool,
    /// Where the damaged files are now.
    pub kept: Option<PathBuf>,
}

impl Remains {
    /// Takes what can be read into a new layout. The damaged files stay in `DIR/damaged-N`, unless
    /// `discard`.
    ///
    /// # Errors
    /// A newer program wrote it, or something cannot be read or written: nothing has changed then.
    pub fn repair(self, discard: bool) -> Result<Repaired, StoreError> {
        let examined = self.examine()?;
        if examined.is_fine() {
            return Ok(Repaired {
                examined,
                done: false,
                kept: None,
            });
        }
        refuse_newer(&examined)?;
        let numbers = layouts(&self.directory)?;
        let last = numbers.last().map_or(0, |(number, _)| *number);
        let next = Manifest::new(last.max(self.layout) + 1, self.shards.len(), random);
        let filled = self.fill(&next);
        let kept = match filled {
            Err(error) => Err(error),
            Ok(()) if discard => Ok(None),
            Ok(()) => self.keep().map(Some),
        };
        let kept = kept.inspect_err(|_| {
            // As if it had never begun. What cannot be removed now is at the next start.
            let _ = fs::remove_dir_all(layout(&self.directory, next.layout));
        })?;
        next.write(&self.directory)?;
        for (number, path) in layouts(&self.directory)? {
            if number != next.layout {
                fs::remove_dir_all(&path)
                    .map_err(|error| StoreError::io("remove", &path, error))?;
            }
        }
        sync_directory(&self.directory)?;
        Ok(Repaired {
            examined,
            done: true,
            kept,
        })
    }

    fn fill(&self, next: &Manifest) -> Result<(), StoreError> {
        make_layout(&self.directory, next)?;
        let mut targets = Targets::new(next.files(&self.directory))?;
        let mut contents = Vec::new();
        self.examine_each(|content| contents.push(content))?;
        forwards::deliver(&mut contents);
        for content in &contents {
            targets.take(content)?;
        }
        targets.finish()
    }

    /// Links the damaged files, and the manifest that names them, to where they stay.
    fn keep(&self) -> Result<PathBuf, StoreError> {
        let number = self.layout;
        let kept = (0..)
            .map(|again| match again {
                0 => format!("damaged-{number}"),
                again => format!("damaged-{number}.{again}"),
            })
            .map(|name| self.directory.join(name))
            .find(|path| !path.exists())
            .unwrap_or_default();
        link(&layout(&self.directory, number), &kept)?;
        let manifest = self.directory.join(manifest::NAME);
        if manifest.exists() {
            let copy = kept.join(manifest::NAME);
            fs::copy(&manifest, &copy).map_err(|error| StoreError::io("make", &copy, error))?;
        }
        sync_directory(&kept)?;
        sync_directory(&self.directory)?;
        Ok(kept)
    }
}

/// What it holds is not damaged but not understood.
fn refuse_newer(examined: &Examined) -> Result<(), StoreError> {
    let faults = examined.shards.iter().flat_map(|shard| &shard.faults);
    for fault in faults {
        if let Defect::NewerFormat(version) = fault.loss.damage.what {
            return Err(StoreError::Newer {
                path: fault.path.clone(),
                version: version.into(),
            });
        }
    }
    Ok(())
}

/// Makes `to` hold what `from` holds: links where the file system has them, copies elsewhere.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(to).map_err(|error| StoreError::io("make", to, error))?;
    let entries = fs::read_dir(from).map_err(|error| StoreError::io("read", from, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io("read", from, error))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            link(&path, &target)?;
        } else if fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target).map_err(|error| StoreError::io("make", &target, error))?;
        }
    }
    sync_directory(to)
}
