//! The log against a list: readers that come and go while blocks are written, fail, are read back and
//! removed, and the broker is started again with other numbers of shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::block::Records;
use super::bucket::{BucketHeader, BucketId, FaultKind, Query, Scan};
use super::log::*;
use super::range::Micros;
use super::reader::{Cursor, START, Step};
use crate::message::MessageView;
use crate::time::Time;
use crate::topic::{Filter, Name};
use crate::wire::QoS;

const SECOND: Micros = 1_000_000;

fn stream() -> Stream {
    Stream {
        name: "fleet".into(),
        filter: "t/#".into(),
        keep: 3_600 * SECOND,
        keep_bytes: 1 << 20,
        bucket: 60 * SECOND,
        interval: SECOND,
    }
}

fn everything() -> Query {
    Query {
        filter: "t/#".into(),
        from: 0,
        to: Micros::MAX,
    }
}

fn view<'a>(topic: &'a str, payload: &'a [u8]) -> MessageView<'a> {
    MessageView {
        topic: Name::parse(topic).unwrap(),
        properties: &[],
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: Time::NEVER,
    }
}

/// A disk that does what it is told, in the order in which it was told, or fails.
#[derive(Default)]
struct Disk {
    files: BTreeMap<BucketId, Vec<u8>>,
    todo: Vec<Write>,
    broken: Option<BucketId>,
}

impl Disk {
    /// Does the oldest write.
    fn write(&mut self, log: &mut Log, fails: bool, now: Micros) -> bool {
        if self.todo.is_empty() {
            return false;
        }
        let write = self.todo.remove(0);
        if write.header.is_some() {
            self.broken = None;
        }
        let fails = fails || self.broken == Some(write.bucket);
        let file = self.files.entry(write.bucket).or_default();
        if let Some(header) = &write.header {
            assert!(file.is_empty(), "a bucket is made once");
            file.extend_from_slice(header);
        }
        if fails {
            // Half of it, and then cut off.
            file.truncate(write.offset as usize);
            self.broken = Some(write.bucket);
            log.written(write.stream, Err(Failure), now);
            return true;
        }
        assert_eq!(file.len() as u64, write.offset, "written at the end");
        file.extend_from_slice(&write.bytes);
        log.written(write.stream, Ok(()), now);
        true
    }

    fn found(&self) -> Vec<Found> {
        let headers = self.files.values().filter_map(|bytes| {
            let header = BucketHeader::read(bytes).ok()?;
            let bytes = bytes.len() as u64;
            Some(Found { header, bytes })
        });
        headers.collect()
    }

    fn scan(&self, scan: &Scan) -> super::Scanned {
        let mut bytes: &[u8] = self.files.get(&scan.bucket).map_or(&[], Vec::as_slice);
        scan.run(&mut bytes)
    }
}

/// Reads a lane to its end.
fn read(
    log: &Log,
    disk: &Disk,
    lane: u16,
    cursor: &mut Cursor,
    query: &Query,
) -> (Vec<String>, u64) {
    let (mut all, mut missed) = (Vec::new(), 0);
    for _ in 0..100_000 {
        let limits = ((u32::MAX, u64::MAX), 300);
        let page = match log.step((0, lane), cursor, query, limits, &mut missed) {
            Step::End => return (all, missed),
            Step::Page(page) => page,
            Step::Scan(scan) => {
                let found = disk.scan(&scan);
                log.scanned(cursor, &scan, &found, &mut missed);
                found.page
            }
        };
        let before = all.len();
        for record in Records::new(0, &page.records) {
            let record = record.unwrap();
            all.push(format!(
                "{} {}",
                record.topic,
                String::from_utf8_lossy(record.payload)
            ));
        }
        assert_eq!(all.len() - before, page.count as usize);
    }
    panic!("it has no end");
}

#[derive(Clone, Debug)]
enum Act {
    Append(u8, u16),
    Pass(u16),
    Give,
    Write(u8, bool),
    Read(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..30_u8, 0..2_000_u16).prop_map(|(count, size)| Act::Append(count, size)),
        4 => (0..2_000_u16).prop_map(Act::Pass),
        3 => Just(Act::Give),
        4 => (1..9_u8, prop::bool::weighted(0.2)).prop_map(|(count, fails)| Act::Write(count, fails)),
        4 => (0..3_u8).prop_map(Act::Read),
        1 => Just(Act::Restart),
    ]
}

fn place(run: u32) -> Place {
    Place {
        shard: 0,
        shards: 1,
        run,
        lanes: 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Three readers, of which each gets everything that was appended since the last start, once and in
    /// order, whatever is written when; a reader that begins anew gets that and all that was on disk before.
    #[test]
    fn readers_get_everything_once(steps in prop::collection::vec(step(), 1..150)) {
        let mut now = 1_000 * SECOND;
        let (mut run, mut number) = (1, 0_u64);
        let mut disk = Disk::default();
        let mut log = Log::new(place(run), vec![stream()], &[]);
        let mut appended: Vec<String> = Vec::new();
        let mut kept: Vec<String> = Vec::new();
        let mut readers = [(START, 0_usize); 3];
        for step in steps {
            match step {
                Act::Append(count, size) => {
                    let texts: Vec<String> = (0..count).map(|_| {
                        number += 1;
                        format!("{number}-{}", "x".repeat(size.into()))
                    }).collect();
                    let messages = texts.iter().map(|text| (view("t/a", text.as_bytes()), None));
                    log.append(0, now, messages);
                    appended.extend(texts.iter().map(|text| format!("t/a {text}")));
                }
                Act::Pass(millis) => {
                    now += u64::from(millis) * 1_000;
                    log.tick(now);
                }
                Act::Give => while let Some(write) = log.next_write(now) {
                    disk.todo.push(write);
                },
                Act::Write(count, fails) => for _ in 0..count {
                    disk.write(&mut log, fails, now);
                },
                Act::Read(which) => {
                    let (cursor, got) = &mut readers[usize::from(which)];
                    let (texts, missed) = read(&log, &disk, 0, cursor, &everything());
                    prop_assert_eq!(missed, 0);
                    let all = [&kept[..], &appended[..]].concat();
                    prop_assert_eq!(&texts[..], &all[*got..]);
                    *got = all.len();
                }
                Act::Restart => {
                    disk.todo.clear(); // a crash
                    disk.broken = None;
                    run += 1;
                    log = Log::new(place(run), vec![stream()], &[disk.found()]);
                    let (texts, missed) = read(&log, &disk, 0, &mut START.clone(), &everything());
                    prop_assert_eq!(missed, 0);
                    let all = [&kept[..], &appended[..]].concat();
                    prop_assert_eq!(&texts[..], &all[..texts.len()], "what is there is a begin of it");
                    prop_assert!(texts.len() >= kept.len(), "nothing is lost that was there before");
                    kept = texts;
                    appended.clear();
                    readers = [(START, 0); 3];
                }
            }
        }
        // In the end everything is on disk.
        log.seal();
        for _ in 0..1_000 {
            while let Some(write) = log.next_write(now) {
                disk.todo.push(write);
            }
            disk.write(&mut log, false, now);
            now += SECOND;
        }
        prop_assert!(log.is_idle());
        prop_assert_eq!(log.counts().waiting_bytes, 0);
        let log = Log::new(place(run + 1), vec![stream()], &[disk.found()]);
        let (texts, _) = read(&log, &disk, 0, &mut START.clone(), &everything());
        prop_assert_eq!(texts, [kept, appended].concat());
    }

    /// A bit that flips costs the block that it is in, which is told, and no other.
    #[test]
    fn damage_is_told_and_costs_a_block(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let (mut log, mut disk) = (Log::new(place(1), vec![stream()], &[]), Disk::default());
        let mut all = Vec::new();
        for number in 0..20_u64 {
            let text = format!("{number}");
            log.append(0, 1_000 * SECOND + number, [(view("t/a", text.as_bytes()), None)].into_iter());
            log.seal();
            all.push(format!("t/a {number}"));
            while let Some(write) = log.next_write(0) { disk.todo.push(write); }
            while disk.write(&mut log, false, 0) {}
        }
        let file = disk.files.values_mut().next().unwrap();
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let bytes = file.clone();
        let scan = Scan {
            stream: 0,
            bucket: BucketId { run: 1, lane: 0, number: 1 },
            offset: 0,
            limit: u64::MAX,
            seq: 1,
            before: u64::MAX,
            query: everything(),
            page_bytes: usize::MAX,
        };
        let found = scan.run(&mut &bytes[..]);
        prop_assert_eq!(found.faults.len(), 1, "{:?}", found.faults);
        let left = found.page.count;
        match found.faults[0].what {
            FaultKind::Bucket | FaultKind::Version(_) => prop_assert_eq!(left, 0),
            _ => prop_assert_eq!(left, 19),
        }
    }
}

/// Buckets end with their span, and go when it is old enough; or when there are too many bytes.
#[test]
fn buckets_go_as_a_whole() {
    let (mut log, mut disk) = (Log::new(place(1), vec![stream()], &[]), Disk::default());
    let mut now = 600 * SECOND;
    let mut work = |log: &mut Log, now: Micros| {
        while let Some(write) = log.next_write(now) {
            disk.todo.push(write);
        }
        while disk.write(log, false, now) {}
    };
    for minute in 0..30 {
        for second in 0..60 {
            let text = format!("{minute}:{second}");
            log.append(0, now, [(view("t/a", text.as_bytes()), None)].into_iter());
            now += SECOND;
            log.tick(now);
            work(&mut log, now);
        }
    }
    assert_eq!(log.counts().buckets, 30);
    let (bytes, closed) = log.stored(0);
    assert_eq!((closed.len(), log.counts().stored_bytes), (29, bytes));
    log.remove(0, &[closed[0].bucket]);
    assert_eq!(log.next_removal().unwrap().bucket, closed[0].bucket);
    // What is 3,600 s older than the end of its bucket goes.
    log.expire(600 * SECOND + 3_600 * SECOND + 5 * 60 * SECOND);
    let removed: Vec<_> = std::iter::from_fn(|| log.next_removal()).collect();
    assert_eq!(removed.len(), 4);
    let mut cursor = Cursor::at(1, 1);
    let (texts, missed) = read(&log, &disk, 0, &mut cursor, &everything());
    assert_eq!((texts.len(), missed), (25 * 60, 5 * 60));
    assert_eq!(texts[0], "t/a 5:0");
    // Nothing more comes, and in the end nothing is left.
    log.expire(now + 3_700 * SECOND);
    log.expire(now + 3_701 * SECOND);
    assert_eq!(log.counts().buckets, 0);
    assert_eq!(
        read(&log, &disk, 0, &mut START.clone(), &everything())
            .0
            .len(),
        0
    );
    log.append(0, now, [(view("t/a", b"again"), None)].into_iter());
    assert_eq!(
        read(&log, &disk, 0, &mut cursor, &everything()),
        (vec!["t/a again".to_owned()], 0)
    );
}

/// A reader for a time begins with it and skips what is before, whether in buckets or in memory.
#[test]
fn readers_seek_by_time_and_by_topic() {
    let (mut log, mut disk) = (Log::new(place(1), vec![stream()], &[]), Disk::default());
    for second in 0..600_u64 {
        let now = (1_000 + second) * SECOND;
        let text = second.to_string();
        let topic = format!("t/{}", second % 2);
        log.append(0, now, [(view(&topic, text.as_bytes()), None)].into_iter());
        log.tick(now);
        if second < 500 {
            while let Some(write) = log.next_write(now) {
                disk.todo.push(write);
            }
            while disk.write(&mut log, false, now) {}
        }
    }
    for (from, to) in [
        (0, 600),
        (0, 1),
        (17, 60),
        (100, 480),
        (480, 520),
        (510, 600),
        (599, 600),
    ] {
        let query = Query {
            filter: Arc::from("t/+"),
            from: (1_000 + from) * SECOND,
            to: (1_000 + to) * SECOND,
        };
        let (texts, missed) = read(&log, &disk, 0, &mut START.clone(), &query);
        assert_eq!(
            (texts.len() as u64, missed),
            (to - from, 0),
            "{from} to {to}"
        );
        assert_eq!(texts[0], format!("t/{} {from}", from % 2));
    }
    let query = Query {
        filter: Arc::from("t/1"),
        ..everything()
    };
    assert_eq!(
        read(&log, &disk, 0, &mut START.clone(), &query).0.len(),
        300
    );
}

/// What waits too long for the disk is dropped, the oldest first, and counted; a reader who has it already
/// misses nothing, one who has not is told how much.
#[test]
fn a_disk_that_does_not_keep_up_costs_the_oldest() {
    let (mut log, disk) = (Log::new(place(1), vec![stream()], &[]), Disk::default());
    let body = vec![b'x'; 10_000];
    let mut quick = START;
    let mut seen = 0;
    for _ in 0..4_000 {
        log.append(0, SECOND, [(view("t/a", &body), None)].into_iter());
        let (texts, missed) = read(&log, &disk, 0, &mut quick, &everything());
        seen += texts.len();
        assert_eq!(missed, 0);
    }
    assert_eq!(seen, 4_000);
    let dropped = log.counts().dropped;
    assert!(dropped > 2_000, "{dropped}");
    assert!(log.counts().waiting_bytes < 17 << 20);
    let (texts, missed) = read(&log, &disk, 0, &mut Cursor::at(1, 1), &everything());
    assert_eq!((texts.len() as u64, missed), (4_000 - dropped, dropped));
}

/// Lanes that no shard writes any more are shared out and read.
#[test]
fn lanes_of_more_shards_are_read() {
    let mut disk = Disk::default();
    for shard in 0..4 {
        let place = Place {
            shard,
            shards: 4,
            run: 1,
            lanes: 4,
        };
        let mut log = Log::new(place, vec![stream()], &[]);
        log.append(
            0,
            SECOND,
            [(view("t/a", shard.to_string().as_bytes()), None)].into_iter(),
        );
        log.seal();
        while let Some(write) = log.next_write(0) {
            disk.todo.push(write);
        }
        while disk.write(&mut log, false, 0) {}
    }
    let mut found = Vec::new();
    for shard in 0..3 {
        let place = Place {
            shard,
            shards: 3,
            run: 2,
            lanes: 4,
        };
        let log = Log::new(place, vec![stream()], &[disk.found()]);
        for lane in (0..4).filter(|&lane| place.owner(lane) == shard) {
            found.extend(read(&log, &disk, lane, &mut START.clone(), &everything()).0);
        }
    }
    found.sort_unstable();
    assert_eq!(found, ["t/a 0", "t/a 1", "t/a 2", "t/a 3"]);
}

#[test]
fn a_stream_is_found_by_what_it_covers() {
    let log = Log::new(place(1), vec![stream()], &[]);
    assert_eq!(log.stream_for(Filter::parse("t/+").unwrap()), Some(0));
    assert_eq!(log.stream_for(Filter::parse("#").unwrap()), None);
}

#[test]
fn names_of_files_are_read() {
    let id = BucketId {
        run: 7,
        lane: 63,
        number: 0xFFFF,
    };
    assert_eq!(BucketId::of_file(&id.file_name()), Some(id));
    for name in [
        "x",
        "1-2-3.bucket",
        "00000007-003f-0000ffff",
        "00000007-003f-0000ffff-1.bucket",
    ] {
        assert_eq!(BucketId::of_file(name), None, "{name}");
    }
}

/// What is copied is all that came before it was pinned: it is written first, and nothing of it is removed or
/// changed until it was copied.
#[test]
fn what_is_pinned_stays() {
    let mut log = Log::new(place(1), vec![stream()], &[]);
    let mut disk = Disk::default();
    let append = |log: &mut Log, number: u64, now| {
        let payload = number.to_string();
        let message = view("t/1", payload.as_bytes());
        log.append(0, now, std::iter::once((message, None)));
    };
    let work = |log: &mut Log, disk: &mut Disk, now| {
        // The first block of a bucket is handed out when the one before is written to its end.
        loop {
            disk.todo.extend(std::iter::from_fn(|| log.next_write(now)));
            if !disk.write(log, false, now) {
                return;
            }
        }
    };
    (0..10).for_each(|number| append(&mut log, number, SECOND));
    let pinned = log.pin();
    (10..15).for_each(|number| append(&mut log, number, SECOND));
    assert_eq!(log.unwritten(&pinned), 10);
    work(&mut log, &mut disk, SECOND);
    assert_eq!(log.unwritten(&pinned), 0);
    let extents: Vec<_> = log.buckets(0).collect();
    assert_eq!(extents.len(), 1);
    // It becomes too old and goes on being written to.
    let later = 4_000 * SECOND;
    append(&mut log, 15, later);
    log.seal();
    work(&mut log, &mut disk, later);
    log.expire(later + 60 * SECOND);
    assert_eq!(log.buckets(0).count(), 1, "nobody reads it any more");
    assert_eq!(log.next_removal(), None, "and it is there");
    let mut copy = Disk::default();
    for (id, bytes) in extents {
        let bytes = disk.files[&id][..bytes as usize].to_vec();
        copy.files.insert(id, bytes);
    }
    let copied = Log::new(place(2), vec![stream()], &[copy.found()]);
    let (read, missed) = read(&copied, &copy, 0, &mut START.clone(), &everything());
    let all: Vec<String> = (0..10).map(|number| format!("t/1 {number}")).collect();
    assert_eq!((read, missed), (all, 0));
    log.unpin();
    assert!(log.next_removal().is_some());
}
