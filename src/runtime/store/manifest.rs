//! `store.json`: what the data directory holds, in a format with a version.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::journal::{BLOCK, Identity, MAX_SEGMENT_BYTES};
use crate::limits::MAX_SHARDS;

use super::files::Files;
use super::{StoreError, layout, sync_directory};

/// The name of the file.
pub(super) const NAME: &str = "store.json";

/// The version that this program writes, and the newest that it reads.
const VERSION: i64 = 1;

/// Bytes of a segment in a new directory: two of them are made for each shard, and one fills in half
/// a second at most.
const SEGMENT_BYTES: u32 = 32 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The directory that counts.
    pub(super) layout: u32,
    pub(super) segment_bytes: u32,
    /// The identity of each shard's journal.
    pub(super) logs: Vec<u64>,
}

impl Manifest {
    pub(super) fn new(layout: u32, shards: usize, random: impl Fn() -> u64) -> Self {
        Self {
            layout,
            segment_bytes: SEGMENT_BYTES,
            logs: (0..shards).map(|_| random()).collect(),
        }
    }

    pub(super) fn identity(&self, shard: usize) -> Identity {
        Identity {
            log: self.logs[shard],
            shard: shard as u16, // there are at most MAX_SHARDS
        }
    }

    /// The files of a shard's journal.
    pub(super) fn shard(&self, directory: &Path, shard: usize) -> Files {
        Files::new(
            layout(directory, self.layout).join(shard.to_string()),
            self.identity(shard),
            self.segment_bytes,
        )
    }

    /// Those of all.
    pub(super) fn files(&self, directory: &Path) -> Vec<Files> {
        let shards = 0..self.logs.len();
        shards.map(|shard| self.shard(directory, shard)).collect()
    }

    /// Reads the file of a directory; `None` if there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Err(StoreError::Manifest(path));
        };
        match value.get("version").and_then(Value::as_i64) {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(StoreError::Newer { path, version }),
            _ => return Err(StoreError::Manifest(path)),
        }
        Self::from_value(&value)
            .map(Some)
            .ok_or(StoreError::Manifest(path))
    }

    fn from_value(value: &Value) -> Option<Self> {
        let number = |key: &str| u32::try_from(value.get(key)?.as_u64()?).ok();
        let logs: Option<Vec<u64>> = value
            .get("logs")?
            .as_array()?
            .iter()
            .map(|log| u64::from_str_radix(log.as_str()?, 16).ok())
            .collect();
        let manifest = Self {
            layout: number("layout")?,
            segment_bytes: number("segment_bytes")?,
            logs: logs?,
        };
        let sound = (1..=MAX_SHARDS).contains(&manifest.logs.len())
            && (manifest.segment_bytes as usize).is_multiple_of(BLOCK)
            && (1 << 16..=MAX_SEGMENT_BYTES).contains(&manifest.segment_bytes);
        // One wrong digit of an identity, and a full journal would be taken for an empty one.
        (sound && number("checksum")? == manifest.checksum()).then_some(manifest)
    }

    fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.layout.to_le_bytes());
        hasher.update(&self.segment_bytes.to_le_bytes());
        for log in &self.logs {
            hasher.update(&log.to_le_bytes());
        }
        hasher.finalize()
    }

    /// Writes the file in the place of what is there, wholly or not at all.
    pub(super) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        let path = directory.join(NAME);
        let new = directory.join("store.json.new");
        let logs: Vec<String> = self.logs.iter().map(|log| format!("{log:016x}")).collect();
        let text = json!({
            "version": VERSION,
            "layout": self.layout,
            "segment_bytes": self.segment_bytes,
            "logs": logs,
            "checksum": self.checksum(),
        });
        let text = format!("{text:#}\n");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| StoreError::io("write", &new, error))?;
        fs::rename(&new, &path).map_err(|error| StoreError::io("replace", &path, error))?;
        sync_directory(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_newer_format_is_refused() {
        let directory =
            std::env::temp_dir().join(format!("shardmq-manifest-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        assert_eq!(Manifest::read(&directory).unwrap(), None);
        let manifest = Manifest::new(7, 3, || u64::MAX - 5);
        manifest.write(&directory).unwrap();
        assert_eq!(Manifest::read(&directory).unwrap(), Some(manifest));
        let path = directory.join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let newer = Manifest::read(&directory).unwrap_err().to_string();
        assert!(
            newer.contains("version 2") && newer.contains("newer"),
            "{newer}"
        );
        for (wrong, right) in [("fffa", "fffb"), (": 7", ": 6"), ("checksum", "chocksum")] {
            assert!(text.contains(wrong));
            fs::write(&path, text.replace(wrong, right)).unwrap();
            let refused = Manifest::read(&directory);
            assert!(matches!(refused, Err(StoreError::Manifest(_))), "{wrong}");
        }
        fs::write(&path, "{\"version\": 1, \"layout\": 1}").unwrap();
        assert!(matches!(
            Manifest::read(&directory),
            Err(StoreError::Manifest(_))
        ));
        fs::remove_dir_all(&directory).unwrap();
    }
}
