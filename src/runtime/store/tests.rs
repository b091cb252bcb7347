use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use proptest::prelude::*;
use serde_json::Value;

use super::content::{Begun, Kept, Receiver};
use super::*;
use crate::journal::{
    Deadline, Exchange, ItemId, OwnedMessage, RestoredSession, RestoredSubscription, RestoredWill,
    SessionNumber, WillDetails,
};
use crate::wire::{PacketId, Property, QoS, RetainHandling, SubscriptionOptions, Version};

/// The smallest that there can be.
const SEGMENT_BYTES: u32 = 1 << 16;

/// Places in which a bit is flipped.
const FLIPS: usize = 2_000;

/// Removed with all that is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardmq-store-{}-{number}", std::process::id());
        // In memory, if there is such a place: what is tested is not the disk, and each of thousands of
        // readings syncs.
        let memory = Path::new("/dev/shm");
        let path = match memory.is_dir() {
            true => memory.join(name),
            false => std::env::temp_dir().join(name),
        };
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 31)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        ((mixed >> 32) as usize) % bound
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn qos(&mut self) -> QoS {
        *[QoS::AtLeastOnce, QoS::ExactlyOnce]
            .get(self.below(2))
            .unwrap()
    }

    fn deadline(&mut self) -> Deadline {
        match self.below(3) {
            0 => Deadline::NEVER,
            _ => Deadline(1_700_000_000_000 + self.below(1 << 40) as u64),
        }
    }

    fn body(&mut self, topic: String) -> OwnedMessage {
        let mut properties = Vec::new();
        if self.one_in(3) {
            Property::ContentType("text/plain").encode(&mut properties);
            Property::CorrelationData(&[0, 255, 7]).encode(&mut properties);
            for number in 0..self.below(3) {
                Property::UserProperty("k", &number.to_string()).encode(&mut properties);
            }
        }
        let length = [0, 20, 200, 3_000][self.below(4)];
        OwnedMessage {
            topic: topic.into(),
            properties: properties.into(),
            payload: (0..length).map(|_| self.below(256) as u8).collect(),
            qos: self.qos(),
            retain: self.one_in(2),
            expires_at: self.deadline(),
        }
    }

    fn session(&mut self, client_id: String) -> RestoredSession {
        let subscriptions = (0..self.below(4)).map(|number| RestoredSubscription {
            id: ItemId(0),
            filter: ["a/#", "$share/g/b/+", "+/c", "d"][number].into(),
            options: SubscriptionOptions {
                qos: self.qos(),
                no_local: false,
                retain_as_published: self.one_in(2),
                retain_handling: RetainHandling::SendIfNew,
            },
            identifier: self.below(3) as u32 * 1_000,
            owed: self.one_in(2),
        });
        let subscriptions = subscriptions.collect();
        let held = (1..=self.below(4) as u16).map(|number| PacketId::new(number * 7).unwrap());
        let held = held.collect();
        let will = self.one_in(3).then(|| {
            let body = self.body("will".into());
            RestoredWill::from(&WillDetails {
                due: self.deadline(),
                delay_interval: 5,
                message_expiry_interval: [None, Some(9)][self.below(2)],
                message: body.stored(),
            })
        });
        RestoredSession {
            session: SessionNumber(0),
            client_id: client_id.into(),
            user: ["", "somebody"][self.below(2)].into(),
            version: [Version::V3_1_1, Version::V5][self.below(2)],
            expiry_interval: self.below(1 << 30) as u32,
            expires_at: self.deadline(),
            subscriptions,
            messages: Vec::new(),
            held,
            exchanges: Vec::<Exchange>::new(),
            will,
        }
    }

    fn receivers(&mut self, sessions: usize, packet_id: u16) -> Vec<Receiver> {
        let mut receivers = Vec::new();
        for session in 0..sessions {
            if self.one_in(2) {
                continue;
            }
            let qos = self.qos();
            let exchange = (qos == QoS::ExactlyOnce && self.one_in(3)).then(|| Begun {
                packet_id: PacketId::new(packet_id).unwrap(),
                received: self.one_in(2),
            });
            receivers.push(Receiver {
                session,
                qos,
                retain: self.one_in(4),
                identifiers: [vec![], vec![7, 9]][self.below(2)].clone(),
                group: ["", "$share/g/b/+"][self.below(2)].into(),
                exchange,
            });
        }
        receivers
    }

    /// Sessions and messages of which nothing has the name of something in another batch.
    fn content(&mut self, batch: usize, messages: usize) -> Content {
        let mut content = Content::default();
        for number in 0..self.below(5) {
            let client_id = format!("client-{batch}-{number}");
            content.sessions.push(self.session(client_id));
        }
        for number in 0..self.below(messages + 1) {
            let receivers = self.receivers(content.sessions.len(), number as u16 + 1);
            let gone = receivers.len() == 1 && !receivers[0].waits();
            let retained = !gone && (receivers.is_empty() || self.one_in(4));
            let body = self.body(format!("topic/{batch}/{number}"));
            let body = (!gone).then_some(body);
            content.messages.push(Kept::made(body, retained, receivers));
        }
        content
    }
}

/// A store with these contents, one commit each.
fn make(directory: &Path, shards: usize, contents: &[Content]) {
    let manifest = Manifest {
        layout: 1,
        segment_bytes: SEGMENT_BYTES,
        logs: (0..shards).map(|_| random()).collect(),
    };
    make_directory(directory).unwrap();
    make_and_fill(directory, &manifest, |targets| {
        for content in contents {
            targets.take(content)?;
            targets.finish()?;
        }
        Ok(())
    })
    .unwrap();
    manifest.write(directory).unwrap();
}

fn export(directory: &Path) -> Result<String, StoreError> {
    let mut out = Vec::new();
    Store::open_existing(directory)?.export(&mut out, true)?;
    Ok(String::from_utf8(out).unwrap())
}

fn import(directory: &Path, shards: usize, text: &str) -> Result<Amount, StoreError> {
    Store::import(
        directory,
        shards,
        &mut text.as_bytes(),
        SystemTime::UNIX_EPOCH,
    )
}

/// What an export says without how it is spread: sessions, retained messages, and what waits for each
/// client in its order.
fn spread_apart(export: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, line) in export.lines().enumerate() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let Some(receivers) = value.get_mut("receivers").map(Value::take) else {
            lines.extend((value["type"] == "session").then(|| line.to_owned()));
            continue;
        };
        if value["retained"] == true {
            lines.push(value.to_string());
        }
        value["retained"] = Value::Null;
        if value["type"] == "released" || receivers.as_array().unwrap().is_empty() {
            value = Value::Null; // whether somebody else keeps the body depends on the shards
        }
        for group in receivers.as_array().unwrap() {
            let mut copy = group.clone();
            copy["clients"] = Value::Null;
            let body = if copy["received"] == true {
                &Value::Null
            } else {
                &value
            };
            for client in group["clients"].as_array().unwrap() {
                lines.push(format!("{client} {number:09} {copy} {body}"));
            }
        }
    }
    lines.sort();
    // The order is in the sequence now, the number of the line says no more.
    let cut = |line: String| match line.starts_with('"') {
        true => {
            let (client, rest) = line.split_once(' ').unwrap();
            format!("{client} {}", &rest[10..])
        }
        false => line,
    };
    lines.into_iter().map(cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_was_exported_is_imported(seed: u64, shards in 1..4_usize, others in 1..4_usize) {
        let mut dice = Dice(seed);
        let contents: Vec<Content> = (0..3).map(|batch| dice.content(batch, 12)).collect();
        let [first, second, third] = [(); 3].map(|()| Directory::new());
        make(&first.0, shards, &contents);
        let exported = export(&first.0).unwrap();
        import(&second.0, shards, &exported).unwrap();
        prop_assert_eq!(&export(&second.0).unwrap(), &exported);
        import(&third.0, others, &exported).unwrap();
        let spread = export(&third.0).unwrap();
        prop_assert_eq!(spread_apart(&spread), spread_apart(&exported));
        let examined = Remains::open(&third.0).unwrap().examine().unwrap();
        prop_assert!(examined.is_fine());
    }
}

/// Where something counts: each file, and how far.
fn used(directory: &Path) -> Vec<(PathBuf, usize)> {
    let store = Store::open_existing(directory).unwrap();
    let mut used = vec![(directory.join(manifest::NAME), 200)];
    for shard in 0..store.shards() {
        let files = store.files(shard);
        for part in files.salvage().unwrap().parts() {
            let path = files.path(part.header.file);
            match used.last_mut().filter(|(last, _)| *last == path) {
                Some((_, end)) => *end = part.end as usize,
                None => used.push((path, part.end as usize)),
            }
        }
    }
    used
}

/// Sessions, subscriptions, messages, and what belongs to them, by what is said of them.
fn things(export: &str) -> HashSet<String> {
    let mut things = HashSet::new();
    for line in export.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        match value["type"].as_str() {
            Some("session") => {
                things.insert(value["client_id"].to_string());
                for subscription in value["subscriptions"].as_array().unwrap() {
                    things.insert(format!("{} {subscription}", value["client_id"]));
                }
            }
            Some("message") => {
                things.insert(format!("{} {}", value["topic"], value["payload"]));
            }
            _ => {}
        }
    }
    things
}

/// Every flipped bit is told, or changes nothing; and what a repair keeps was there, and what it does
/// not keep it has counted.
#[test]
fn damage_is_never_silent_and_a_repair_says_what_is_lost() {
    let mut dice = Dice(5);
    let directory = Directory::new();
    let contents: Vec<Content> = (0..14).map(|batch| dice.content(batch, 16)).collect();
    make(&directory.0, 2, &contents);
    let original = export(&directory.0).unwrap();
    let there = things(&original);
    assert!(there.len() > 80, "{}", there.len());
    let used = used(&directory.0);
    assert!(used.len() > 4, "more than one segment: {used:?}");
    let total: usize = used.iter().map(|(_, end)| end).sum();
    let (mut told, mut repairs) = (0, 0);
    for _ in 0..FLIPS {
        let mut at = dice.below(total);
        let file = used.iter().find(|(_, end)| {
            let here = at < *end;
            at -= if here { 0 } else { *end };
            here
        });
        let path = &file.unwrap().0;
        let mut bytes = fs::read(path).unwrap();
        let bit = 1 << dice.below(8);
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= bit;
        fs::write(path, &bytes).unwrap();
        let place = format!("{} at {at}", path.display());
        let examined = Remains::open(&directory.0).and_then(|remains| remains.examine());
        let examined = examined.unwrap_or_else(|error| panic!("{place}: {error}"));
        match export(&directory.0) {
            Ok(found) => {
                assert!(found == original, "{place} is silent");
                assert!(examined.is_fine(), "{place}: {examined:?}");
            }
            Err(StoreError::Damaged { .. } | StoreError::Manifest(_)) => {
                told += 1;
                assert!(!examined.is_fine(), "{place} is not found");
                if told % 20 == 0 {
                    repair(&directory.0, &there, &place);
                    repairs += 1;
                }
            }
            Err(error) => panic!("{place}: {error}"),
        }
        bytes[at] ^= bit;
        fs::write(path, &bytes).unwrap();
    }
    println!("{told} of {FLIPS} told, {repairs} repaired");
    assert!(told > FLIPS / 4, "{told}");
    assert!(repairs > 20, "{repairs}");
}

/// Repairs a copy.
fn repair(damaged: &Path, there: &HashSet<String>, place: &str) {
    let copy = Directory::new();
    repair::link(damaged, &copy.0).unwrap();
    let before = fs::read(copy.0.join(manifest::NAME)).unwrap();
    let repaired = Remains::open(&copy.0).unwrap().repair(false).unwrap();
    assert!(repaired.done, "{place}");
    let kept = repaired.kept.unwrap();
    assert_eq!(fs::read(kept.join(manifest::NAME)).unwrap(), before);
    assert!(kept.join("0/00000000.log").exists() || kept.join("0/00000001.log").exists());
    let examined = Remains::open(&copy.0).unwrap().examine().unwrap();
    assert!(examined.is_fine(), "{place}: {examined:?}");
    let found = things(&export(&copy.0).unwrap());
    assert!(found.is_subset(there), "{place}: something came up");
    let faults = repaired
        .examined
        .shards
        .iter()
        .flat_map(|shard| &shard.faults);
    let counted: u64 = faults.map(|fault| fault.loss.items.unwrap_or(0)).sum();
    let lost = there.difference(&found).count() as u64;
    // A session that is lost takes its subscriptions and messages along, wherever they stand.
    let sessions = there.difference(&found).any(|thing| !thing.contains(' '));
    assert!(
        lost <= counted || sessions,
        "{place}: {lost} lost, {counted} counted"
    );
    Store::open(&copy.0, 3).unwrap();
}

#[test]
fn a_missing_manifest_is_refused_and_found_out() {
    let mut dice = Dice(9);
    let directory = Directory::new();
    let contents: Vec<Content> = (0..4).map(|batch| dice.content(batch, 9)).collect();
    make(&directory.0, 2, &contents);
    let original = export(&directory.0).unwrap();
    fs::remove_file(directory.0.join(manifest::NAME)).unwrap();
    let opened = Store::open(&directory.0, 2);
    assert!(matches!(opened, Err(StoreError::Manifest(_))), "{opened:?}");
    let repaired = Remains::open(&directory.0).unwrap().repair(true).unwrap();
    assert!(repaired.done && repaired.kept.is_none());
    assert_eq!(export(&directory.0).unwrap(), original);
    let again = Remains::open(&directory.0).unwrap().repair(true).unwrap();
    assert!(!again.done);
}

#[test]
fn what_is_no_export_is_refused_with_its_line() {
    let mut dice = Dice(1);
    let [directory, other] = [(); 2].map(|()| Directory::new());
    let contents: Vec<Content> = (0..4).map(|batch| dice.content(batch, 9)).collect();
    make(&directory.0, 1, &contents);
    let text = export(&directory.0).unwrap();
    let refused = |text: &str| import(&other.0, 1, text).unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(refused(&lines[..lines.len() - 1].join("\n")).contains("last line is missing"));
    assert!(refused(&lines[1..].join("\n")).starts_with("line 1: "));
    assert!(refused(&text.replacen("\"version\":2", "\"version\":3", 1)).contains("version 3"));
    let twice = [&lines[..2], &lines[1..2]].concat().join("\n");
    assert!(refused(&twice).contains("line 3: a second session"));
    let receiver =
        "{\"qos\":1,\"retain\":false,\"identifiers\":[],\"group\":\"\",\"clients\":[\"nobody\"]}";
    let message = format!("{{\"type\":\"released\",\"receivers\":[{receiver}]}}");
    let unknown = [lines[0], &message].join("\n");
    assert!(refused(&unknown).contains("no session of \"nobody\""));
    let record = "{\"type\":\"record\",\"run\":RUN,\"received_at_us\":AT,\"topic\":\"t\",\"payload\":\"\",\
        \"properties\":[],\"qos\":0,\"expires_at_us\":null}";
    let record = |run: &str, at: &str| record.replace("RUN", run).replace("AT", at);
    let stream =
        |name: &str| format!("{{\"type\":\"stream\",\"name\":\"{name}\",\"filter\":\"#\"}}");
    for (wrong, lines) in [
        ("no stream before it", vec![record("1", "5")]),
        ("no name of a history stream", vec![stream("../up")]),
        (
            "a second stream `A`",
            vec![stream("a"), record("1", "5"), stream("A")],
        ),
        (
            "before the record",
            vec![stream("a"), record("1", "5"), record("1", "4")],
        ),
        (
            "its run is over",
            vec![stream("a"), record("2", "5"), record("1", "6")],
        ),
    ] {
        let refusal = refused(
            &[vec![text.lines().next().unwrap().to_owned()], lines]
                .concat()
                .join("\n"),
        );
        assert!(refusal.contains(wrong), "{refusal}");
        assert!(!other.0.join("history/a").exists());
    }
    // Nothing of all that is there, and so there is room.
    import(&other.0, 1, &text).unwrap();
    assert!(refused(&text).contains("holds something"));
    assert_eq!(export(&other.0).unwrap(), text);
    // As version 1 wrote it.
    let third = Directory::new();
    let old = text.replacen("\"version\":2", "\"version\":1", 1);
    let old = old
        .replace(",\"owed\":false", "")
        .replace(",\"owed\":true", "");
    let old = old.replacen(",\"records\":0", "", 1);
    import(&third.0, 1, &old).unwrap();
    let text = text.replace("\"owed\":true", "\"owed\":false");
    assert_eq!(export(&third.0).unwrap(), text);
}
