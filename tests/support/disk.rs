//! A disk that does what disks do: what was not synced may be lost, kept, torn or garbage after a power
//! cut; operations fail, stop half-way and go astray.

use std::collections::BTreeMap;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A source of chance.
pub trait Chance {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize;
}

/// Files of one size, by number.
#[derive(Default)]
pub struct Disk {
    files: BTreeMap<u32, File>,
    /// Files that fit.
    pub capacity: usize,
    /// A mutant: `sync` does nothing.
    pub ignores_sync: bool,
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// What stood in sectors before they were written and not synced.
    unsynced: BTreeMap<usize, Box<[u8]>>,
}

/// Why a file was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSpace;

impl Disk {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// The files that there are.
    pub fn files(&self) -> Vec<u32> {
        self.files.keys().copied().collect()
    }

    /// Makes a file of zeros; it is there for good.
    pub fn create(&mut self, file: u32, bytes: usize) -> Result<(), NoSpace> {
        if self.files.len() >= self.capacity {
            return Err(NoSpace);
        }
        let fresh = File {
            bytes: vec![0; bytes],
            unsynced: BTreeMap::new(),
        };
        self.files.insert(file, fresh);
        Ok(())
    }

    pub fn remove(&mut self, file: u32) {
        self.files.remove(&file);
    }

    /// What a reader sees, synced or not.
    pub fn read(&self, file: u32) -> &[u8] {
        self.files.get(&file).map_or(&[], |file| &file.bytes)
    }

    /// Writes without a sync.
    pub fn write(&mut self, file: u32, offset: usize, bytes: &[u8]) {
        self.write_some(file, offset, bytes, |_| true);
    }

    /// Writes those sectors that `choose` says.
    pub fn write_some(
        &mut self,
        file: u32,
        offset: usize,
        bytes: &[u8],
        mut choose: impl FnMut(usize) -> bool,
    ) {
        assert!(offset.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR));
        let Some(file) = self.files.get_mut(&file) else {
            return;
        };
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = offset + index * SECTOR;
            if at + SECTOR <= file.bytes.len() && choose(index) {
                let old = &mut file.bytes[at..at + SECTOR];
                file.unsynced.entry(at).or_insert_with(|| (&*old).into());
                old.copy_from_slice(sector);
            }
        }
    }

    /// What was written to a file is there for good.
    pub fn sync(&mut self, file: u32) {
        if let Some(file) = self.files.get_mut(&file)
            && !self.ignores_sync
        {
            file.unsynced.clear();
        }
    }

    /// A sync that did not come to its end.
    pub fn sync_some(&mut self, file: u32, chance: &mut impl Chance) {
        if let Some(file) = self.files.get_mut(&file)
            && !self.ignores_sync
        {
            file.unsynced.retain(|_, _| chance.below(2) == 0);
        }
    }

    /// The power goes: each sector that was not synced is as before, as written, half of each, or
    /// garbage. Some cuts keep nothing, some everything, some a beginning.
    pub fn cut(&mut self, chance: &mut impl Chance) {
        let manner = chance.below(6);
        for file in self.files.values_mut() {
            let keep = chance.below(file.unsynced.len() + 1);
            for (index, (at, before)) in std::mem::take(&mut file.unsynced).into_iter().enumerate()
            {
                let sector = &mut file.bytes[at..at + SECTOR];
                let fate = match manner {
                    0 => 0,
                    1 => 1,
                    2 => usize::from(index < keep),
                    _ => chance.below(8),
                };
                match fate {
                    0 | 4 | 6 => sector.copy_from_slice(&before),
                    2 => {
                        let half = chance.below(SECTOR);
                        sector[half..].copy_from_slice(&before[half..]);
                    }
                    3 => sector.fill_with(|| chance.below(256) as u8),
                    _ => {}
                }
            }
        }
    }

    /// Changes one bit for good.
    pub fn flip(&mut self, file: u32, offset: usize, bit: usize) {
        if let Some(file) = self.files.get_mut(&file) {
            file.bytes[offset] ^= 1 << bit;
        }
    }

    /// Overwrites for good, as somebody else would who was given the file.
    pub fn scribble(&mut self, file: u32, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(&file) {
            file.bytes[..bytes.len()].copy_from_slice(bytes);
            file.unsynced.clear();
        }
    }
}
