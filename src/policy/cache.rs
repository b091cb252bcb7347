//! What was found out about a client and a topic, remembered: a publish asks for what the one before it
//! asked.
//!
//! Two tables: entries go into the young one, and when that is full it becomes the old one and the old
//! one is forgotten. Whoever is asked for in the old one moves to the young one. So what is in use stays,
//! and a client that makes up topics costs the others a look-up each, not their entries.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::rules::Access;
use crate::limits::{ACL_CACHE_ENTRIES, ACL_CACHE_TOPIC_BYTES};

/// Answers, by client and topic.
#[derive(Debug)]
pub(super) struct Cache {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    client: u64,
    topic: Box<str>,
    answers: Answers,
}

/// Whether reading and writing are allowed, where that was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    read: Option<bool>,
    write: Option<bool>,
}

impl Answers {
    fn of(&mut self, access: Access) -> &mut Option<bool> {
        match access {
            Access::Read => &mut self.read,
            Access::Write => &mut self.write,
        }
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            young: HashTable::new(),
            old: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// The answer that is remembered, or the one that `find` gives.
    #[inline]
    pub(super) fn get_or(
        &mut self,
        client: u64,
        topic: &str,
        access: Access,
        find: impl FnOnce() -> bool,
    ) -> bool {
        if topic.len() > ACL_CACHE_TOPIC_BYTES {
            return find();
        }
        let hash = self.hasher.hash_one(topic) ^ client.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let is = |entry: &Entry| entry.client == client && *entry.topic == *topic;
        if let Some(entry) = self.young.find_mut(hash, is) {
            return *entry.answers.of(access).get_or_insert_with(find);
        }
        let mut entry = match self.old.find_entry(hash, is) {
            Ok(entry) => entry.remove().0,
            Err(_) => Entry {
                hash,
                client,
                topic: topic.into(),
                answers: Answers::default(),
            },
        };
        let answer = *entry.answers.of(access).get_or_insert_with(find);
        if self.young.len() >= ACL_CACHE_ENTRIES {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert_unique(hash, entry, |entry| entry.hash);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_once_for_each_client_topic_and_access() {
        let mut cache = Cache::new();
        let mut asked = 0;
        for _ in 0..3 {
            for (client, topic, access, answer) in [
                (1, "a", Access::Read, true),
                (1, "a", Access::Write, false),
                (2, "a", Access::Read, false),
                (1, "b", Access::Read, false),
            ] {
                let found = cache.get_or(client, topic, access, || {
                    asked += 1;
                    answer
                });
                assert_eq!(found, answer);
            }
        }
        assert_eq!(asked, 4);
    }

    #[test]
    fn made_up_topics_do_not_drive_out_what_is_in_use() {
        let mut cache = Cache::new();
        let mut asked = 0;
        for number in 0..3 * ACL_CACHE_ENTRIES {
            cache.get_or(1, &number.to_string(), Access::Write, || false);
            if number % 1_000 == 0 {
                cache.get_or(2, "mine", Access::Write, || {
                    asked += 1;
                    true
                });
            }
        }
        assert_eq!(asked, 1);
        assert!(cache.young.len() + cache.old.len() <= 2 * ACL_CACHE_ENTRIES);
    }
}
