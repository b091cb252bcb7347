//! A data directory that may be damaged, opened to be looked at and to be repaired: nothing in it is
//! changed.
//!
//! Without `store.json` the journals say themselves whose they are: the identity stands in every frame.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::journal::{BLOCK, Header, Identity};
use crate::limits::MAX_SHARDS;

use super::files::Files;
use super::manifest::{self, Manifest};
use super::{StoreError, layouts, lock};

/// A data directory as it was found.
#[derive(Debug)]
pub struct Remains {
    pub(super) directory: PathBuf,
    /// Which layout counts.
    pub(super) layout: u32,
    pub(super) shards: Vec<Files>,
    /// What is wrong besides the journals.
    pub(super) problems: Vec<String>,
    /// Locked until it is dropped.
    _lock: File,
}

impl Remains {
    /// Opens `directory`.
    ///
    /// # Errors
    /// Nothing is there, a broker works on it, a newer program wrote it, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(manifest::NAME);
        if !path.exists() && !has_journals(directory) {
            return Err(StoreError::Missing(directory.to_owned()));
        }
        let lock = lock(directory)?;
        let mut problems = Vec::new();
        let (layout, shards) = match Manifest::read(directory) {
            Ok(Some(manifest)) => (manifest.layout, manifest.files(directory)),
            Ok(None) | Err(StoreError::Manifest(_)) => {
                problems.push(format!(
                    "{} is missing or damaged; what it said was found out from the journals",
                    path.display()
                ));
                guess(directory, &mut problems)?
            }
            Err(error) => return Err(error),
        };
        for files in &shards {
            if !files.directory().is_dir() {
                problems.push(format!("{} is missing", files.directory().display()));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            layout,
            shards,
            problems,
            _lock: lock,
        })
    }
}

/// Whether there are files of journals.
pub(super) fn has_journals(directory: &Path) -> bool {
    let layouts = layouts(directory).unwrap_or_default();
    layouts.iter().any(|(_, layout)| {
        let shards = shards_in(layout);
        shards.iter().any(|(_, path)| !logs_in(path).is_empty())
    })
}

/// What the manifest must have said. Of two layouts the older one is whole: the newer one counts only
/// once it is, and the older one is removed then.
fn guess(directory: &Path, problems: &mut Vec<String>) -> Result<(u32, Vec<Files>), StoreError> {
    for (layout, path) in layouts(directory)? {
        let mut shards = HashMap::new();
        for (shard, path) in shards_in(&path) {
            let mut identity = None;
            let mut bytes = 0;
            for log in logs_in(&path) {
                let content =
                    fs::read(&log).map_err(|error| StoreError::io("read", &log, error))?;
                bytes = bytes.max(content.len());
                identity = identity.or_else(|| whose(shard, &content));
            }
            if let Some(identity) = identity {
                let segment_bytes = bytes.next_multiple_of(BLOCK) as u32;
                shards.insert(shard, Files::new(path, identity, segment_bytes));
            } else if bytes > 0 {
                problems.push(format!("{} holds no frame that is whole", path.display()));
            }
        }
        if !shards.is_empty() {
            let mut shards: Vec<_> = shards.into_iter().collect();
            shards.sort_unstable_by_key(|(shard, _)| *shard);
            return Ok((layout, shards.into_iter().map(|(_, files)| files).collect()));
        }
    }
    Err(StoreError::Manifest(directory.join(manifest::NAME)))
}

/// Whose frames a file holds.
fn whose(shard: u16, bytes: &[u8]) -> Option<Identity> {
    let mut blocks = (0..bytes.len()).step_by(BLOCK);
    blocks.find_map(|at| Header::whose(&bytes[at..]).filter(|identity| identity.shard == shard))
}

fn shards_in(layout: &Path) -> Vec<(u16, PathBuf)> {
    let entries = fs::read_dir(layout).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u16>().ok();
    entries
        .map(|entry| entry.path())
        .filter_map(|path| Some((number(&path)?, path)))
        .filter(|(shard, _)| usize::from(*shard) < MAX_SHARDS)
        .collect()
}

fn logs_in(shard: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(shard).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}
