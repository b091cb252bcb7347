//! Journals of a [`World`], on files in memory that never fail, and the end of its process.

use std::collections::BTreeMap;

use shardmq::journal::{BLOCK, FileId, Identity as LogIdentity, Read, Recovery, Settings as Log};
use shardmq::policy::Open;
use shardmq::route::ShardId;
use shardmq::shard::{Bodies, Durable, Identity, Shard};

use super::{EPOCH, Node, World};

/// Files by their numbers.
pub type Files = BTreeMap<FileId, Vec<u8>>;

/// Small ones, so that segments are freed and moved.
const LOG: Log = Log {
    segment_bytes: 1 << 20,
    frame_bytes: 64 << 10,
    sync: shardmq::journal::Sync::Always,
    slack_segments: 2,
    spare_files: 1,
};

impl World {
    /// Keeps on disk what outlives the process. Comes first.
    pub fn keep(&mut self) {
        self.keeps = true;
        (0..self.shards()).for_each(|shard| self.recover(shard));
    }

    /// The process ends from one moment to the next, and another one goes on with what was on disk.
    pub fn crash(&mut self) {
        assert!(self.keeps, "nothing is kept");
        self.lanes.clear();
        for wire in &mut self.wires {
            wire.closed |= wire.at.take().is_some();
        }
        let shards = self.shards();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let identity = Identity {
                shard: ShardId::new(index),
                shards,
                seed: 77 + index as u64,
            };
            let settings = self.settings.clone();
            let shard = Shard::new(identity, settings, Box::new(Open), self.now);
            *node = Node {
                kept: std::mem::take(&mut node.kept),
                ..Node::new(shard, shards)
            };
        }
        (0..shards).for_each(|shard| self.recover(shard));
        // Before anybody connects every shard knows what the others have.
        self.settle();
    }

    fn recover(&mut self, shard: usize) {
        let node = &mut self.nodes[shard];
        let identity = LogIdentity {
            log: 0xC0FFEE + shard as u64,
            shard: shard as u16,
        };
        let mut recovery = Recovery::new(identity, LOG);
        for (&file, bytes) in &node.kept {
            recovery.look(file, &bytes[..BLOCK]);
        }
        while let Some(file) = recovery.next_file() {
            recovery.read(file, &node.kept[&file]).expect("no damage");
        }
        let (journal, recovered) = recovery.finish().expect("no damage");
        let mut bodies = Bodies::new(EPOCH, &recovered);
        for file in journal.files() {
            journal
                .each_message(file, &node.kept[&file], |item, message, retained, to| {
                    bodies.take(item, message, retained, to);
                })
                .expect("no damage");
        }
        let durable = Durable::default();
        node.shard.restore(
            (journal, recovered),
            bodies,
            durable,
            self.now,
            &mut node.out,
        );
        node.shard.end_turn(self.now, &mut node.out);
        self.flush_lanes(shard);
    }

    /// Does what the journal of `shard` asks for; whether it asked for anything.
    pub(super) fn work_on_journal(&mut self, shard: usize) -> bool {
        let node = &mut self.nodes[shard];
        let read = |files: &Files, read: Read| {
            let (from, length) = (read.offset as usize, read.length as usize);
            let bytes = files.get(&read.file);
            let bytes = bytes.and_then(|bytes| bytes.get(from..from + length));
            bytes.unwrap_or_default().to_vec()
        };
        let mut busy = false;
        while let Some(fetching) = node.shard.next_fetch() {
            busy = true;
            let reads = fetching.fetch.reads();
            let buffers: Vec<_> = reads.map(|part| read(&node.kept, part)).collect();
            let (shard, out) = (&mut node.shard, &mut node.out);
            let fetched = shard.fetched(fetching, &buffers, self.now, out);
            fetched.expect("no damage");
        }
        while let Some(journal) = node.shard.journal() {
            if let Some(file) = journal.next_allocation() {
                let empty = vec![0; LOG.segment_bytes as usize];
                node.kept.insert(file, empty);
                journal.allocated(file, true);
            } else if let Some(file) = journal.next_removal() {
                node.kept.remove(&file);
            } else if let Some(part) = journal.next_move() {
                let bytes = read(&node.kept, part);
                journal.moved(part, &bytes).expect("no damage");
            } else if let Some(write) = journal.next_write() {
                busy = true;
                let bytes = node.kept.get_mut(&write.file).expect("it was made");
                let from = write.offset as usize;
                bytes[from..from + write.bytes().len()].copy_from_slice(write.bytes());
                node.shard.committed(write, Ok(()), &mut node.out);
            } else {
                break;
            }
        }
        busy
    }
}
