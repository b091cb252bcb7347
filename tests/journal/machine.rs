//! A journal, its disk and those who use it, until the power goes; and again.

use std::collections::BTreeMap;

use shardmq::journal::{
    BLOCK, Cut, Failure, FileId, Identity, ItemId, Journal, Position, Read, Recovered, Recovery,
    Refused, Settings, Survey, Sync, Write,
};

use crate::disk::Disk;
use crate::model::{Done, Model};
use crate::mutation::{Bug, Mutator};
use crate::random::Random;

pub const IDENTITY: Identity = Identity {
    log: 0x5EED_0F10_6F10,
    shard: 2,
};

/// What happened, to be added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub crashes: u64,
    pub operations: u64,
    pub frames: u64,
    pub files_used_again: u64,
    pub moves: u64,
    pub errors: u64,
    pub full: u64,
    pub copies: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.operations += other.operations;
        self.frames += other.frames;
        self.files_used_again += other.files_used_again;
        self.moves += other.moves;
        self.errors += other.errors;
        self.full += other.full;
        self.copies += other.copies;
    }
}

/// The power went, or the process ended.
#[derive(Debug)]
pub struct Crashed;

/// How far a write is.
#[derive(Default)]
enum Progress {
    #[default]
    None,
    Asked(Write),
    Written(Write),
    Synced(Write),
}

/// How a write is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Write,
    Sync,
    Short,
    /// It lands somewhere else, and nobody is told.
    Astray,
}

pub struct Machine {
    pub random: Random,
    pub disk: Disk,
    pub journal: Journal,
    pub settings: Settings,
    /// What the journal held when it was opened, and what was done since.
    base: Model,
    done: Vec<(Position, Done)>,
    pub current: Model,
    /// What users were told is on disk.
    reported: Position,
    progress: Progress,
    reading: Option<Read>,
    /// Operations of the disk until the next crash.
    fuse: usize,
    /// Operations of the disk until a fault.
    pub fault: Option<(usize, Fault)>,
    astray: bool,
    mutator: Mutator,
    copying: Copying,
    wrong_copy: Option<String>,
    pub summary: Summary,
}

/// How far a copy of the journal is, which goes on meanwhile.
#[derive(Default)]
enum Copying {
    #[default]
    None,
    /// Until what was appended is written.
    Freezing,
    /// What is to be copied, what was, and what it must hold.
    Files(Cut, BTreeMap<u32, Vec<u8>>, Box<Model>),
}

impl Machine {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed);
        let segment_blocks = 5 + random.below(8);
        let settings = Settings {
            segment_bytes: (segment_blocks * BLOCK) as u32,
            frame_bytes: (BLOCK / 2 + random.below(4 * BLOCK)) as u32,
            sync: if random.chance(70) {
                Sync::Always
            } else {
                Sync::OnDemand
            },
            slack_segments: 1 + random.below(3) as u32,
            spare_files: 1 + random.below(2) as u32,
        };
        let mut disk = Disk::new(if random.chance(25) {
            5 + random.below(4)
        } else {
            1000
        });
        disk.ignores_sync = bug == Some(Bug::NoSync);
        let (journal, _) = Recovery::new(IDENTITY, settings)
            .finish()
            .expect("it is empty");
        Self {
            random,
            disk,
            journal,
            settings,
            base: Model::default(),
            done: Vec::new(),
            current: Model::default(),
            reported: Position::default(),
            progress: Progress::None,
            reading: None,
            fuse: usize::MAX,
            fault: None,
            astray: false,
            mutator: Mutator::new(bug, IDENTITY),
            copying: Copying::None,
            wrong_copy: None,
            summary: Summary::default(),
        }
    }

    /// Works until the next crash, recovers, and compares.
    pub fn live_and_crash(&mut self) -> Result<(), String> {
        self.fuse = match self.random.below(4) {
            0 => 1 + self.random.below(6),
            1 => 1 + self.random.below(150),
            _ => 1 + self.random.below(40),
        };
        if self.random.chance(12) {
            let fault = *self.random.pick(&[Fault::Write, Fault::Sync, Fault::Short]);
            self.fault = Some((self.random.below(30), fault));
        }
        while self.turn().is_ok() {}
        if let Some(verdict) = self.wrong_copy.take() {
            return Err(format!("a copy: {verdict}"));
        }
        self.recover()
    }

    /// Works without a crash.
    pub fn work(&mut self) -> Result<(), Crashed> {
        self.fuse = usize::MAX;
        self.turn()
    }

    /// Works a little, unless the fuse burns down.
    fn turn(&mut self) -> Result<(), Crashed> {
        for _ in 0..self.random.below(6) {
            self.operate();
        }
        self.tell();
        if self.random.chance(12) {
            self.journal.seal();
        }
        for _ in 0..self.random.below(5) {
            self.step()?;
        }
        if self.journal.failure().is_some() {
            self.burn()?; // nothing else does
        }
        self.copy();
        Ok(())
    }

    /// One step of a copy, sometimes.
    fn copy(&mut self) {
        match std::mem::take(&mut self.copying) {
            Copying::None => {
                if self.random.chance(4) {
                    self.journal.freeze();
                    self.copying = Copying::Freezing;
                }
            }
            Copying::Freezing => match self.journal.cut() {
                Some(cut) if self.random.chance(60) => {
                    assert!(self.journal.next_write().is_none());
                    if self.mutator.bug != Some(Bug::NotPinned) {
                        self.journal.pin(&cut);
                    }
                    assert!(self.journal.thaw());
                    let mut expected = self.base.clone();
                    let before = self.done.iter();
                    let before = before.take_while(|(at, _)| *at <= cut.position);
                    before.for_each(|(_, done)| expected.apply(done));
                    self.copying = Copying::Files(cut, BTreeMap::new(), Box::new(expected));
                }
                _ => self.copying = Copying::Freezing,
            },
            Copying::Files(mut cut, mut copied, expected) => {
                if self.random.chance(40) {
                    self.copying = Copying::Files(cut, copied, expected);
                    return;
                }
                if cut.files.is_empty() {
                    self.check_copy(&cut, &copied, &expected);
                    return;
                }
                let (file, bytes) = cut.files.remove(0);
                let content = self.disk.read(file.0).get(..bytes as usize);
                let mut content = content.unwrap_or_default().to_vec();
                content.resize(self.settings.segment_bytes as usize, 0);
                copied.insert(file.0, content);
                // It gives way to a full disk.
                if self.journal.unpin(file) || self.mutator.bug == Some(Bug::NotPinned) {
                    self.copying = Copying::Files(cut, copied, expected);
                } else {
                    assert!(self.summary.full > 0);
                }
            }
        }
    }

    /// A journal that is opened from a copy holds what it must.
    fn check_copy(&mut self, cut: &Cut, copied: &BTreeMap<u32, Vec<u8>>, expected: &Model) {
        let read = |file: u32| copied.get(&file).map_or(&[][..], Vec::as_slice);
        let files: Vec<u32> = copied.keys().copied().collect();
        let verdict = recover(self.settings, &files, read).and_then(|(journal, recovered)| {
            if recovered.position != cut.position {
                return Err(format!("{:?} is copied", recovered.position));
            }
            let found = Model::from_recovered(&journal, &recovered, |file| read(file.0))?;
            match found == *expected {
                true => Ok(()),
                false => Err(difference(expected, &found)),
            }
        });
        self.summary.copies += 1;
        if let Err(verdict) = verdict
            && !self.astray
        {
            self.wrong_copy.get_or_insert(verdict);
        }
    }

    pub fn note(&mut self, done: Done) {
        self.summary.operations += 1;
        self.current.apply(&done);
        self.done.push((self.journal.position(), done));
    }

    fn tell(&mut self) {
        let durable = match self.mutator.bug {
            Some(Bug::AcknowledgedBeforeCommit) => self.journal.position(),
            _ => self.journal.durable(),
        };
        self.reported = self.reported.max(durable);
    }

    /// An operation of the disk begins.
    fn burn(&mut self) -> Result<(), Crashed> {
        self.fuse -= 1;
        if self.fuse == 0 { Err(Crashed) } else { Ok(()) }
    }

    fn takes_fault(&mut self, wanted: &[Fault]) -> Option<Fault> {
        let (left, fault) = self.fault.as_mut()?;
        *left = left.saturating_sub(1);
        if *left > 0 || !wanted.contains(fault) {
            return None;
        }
        self.summary.errors += 1;
        self.fault.take().map(|(_, fault)| fault)
    }

    /// One step of what the driver does.
    pub fn step(&mut self) -> Result<(), Crashed> {
        match std::mem::take(&mut self.progress) {
            Progress::None => {}
            Progress::Asked(write) => return self.write(write),
            Progress::Written(write) => return self.sync(write),
            Progress::Synced(write) => {
                if let Err(crashed) = self.burn() {
                    drop(write); // nobody heard of it
                    return Err(crashed);
                }
                self.complete(write, Ok(()));
                return Ok(());
            }
        }
        if let Some(read) = self.reading.take_if(|_| self.random.chance(60)) {
            // The file may be gone.
            let bytes = self.disk.read(read.file.0).get(read.offset as usize..);
            let bytes = bytes.and_then(|bytes| bytes.get(..read.length as usize));
            let bytes = bytes.unwrap_or_default();
            self.summary.moves += 1;
            assert!(self.journal.moved(read, bytes).is_ok() || self.astray);
            return Ok(());
        }
        if let Some(file) = self.journal.next_allocation() {
            return self.allocate(file);
        }
        if let Some(file) = self.journal.next_removal() {
            let crashed = self.burn();
            if crashed.is_ok() || self.random.chance(50) {
                self.disk.remove(file.0);
            }
            return crashed;
        }
        if self.reading.is_none() {
            self.reading = self.journal.next_move();
        }
        if let Some(write) = self.journal.next_write() {
            assert!(write.bytes().len().is_multiple_of(BLOCK));
            assert!(
                write.offset as usize + write.bytes().len() <= self.settings.segment_bytes as usize
            );
            self.summary.frames += 1;
            self.summary.files_used_again +=
                u64::from(write.offset == 0 && self.disk.read(write.file.0)[0] != 0);
            self.progress = Progress::Asked(write);
        }
        Ok(())
    }

    fn allocate(&mut self, file: FileId) -> Result<(), Crashed> {
        let size = self.settings.segment_bytes as usize;
        if let Err(crashed) = self.burn() {
            // It may be there, and not have its size yet.
            let size = if self.random.chance(50) {
                size
            } else {
                size / 2
            };
            if self.random.chance(60) {
                let _ = self.disk.create(file.0, size);
            }
            return Err(crashed);
        }
        let made = self.disk.create(file.0, size).is_ok();
        self.summary.full += u64::from(!made);
        self.journal.allocated(file, made);
        Ok(())
    }

    fn write(&mut self, write: Write) -> Result<(), Crashed> {
        let bytes = self.mutator.frame(write.bytes(), &mut self.disk);
        let (file, offset) = (write.file.0, write.offset as usize);
        let sectors = bytes.len() / 512;
        if let Err(crashed) = self.burn() {
            let random = &mut self.random;
            let (manner, end) = (random.below(3), random.below(sectors + 1));
            self.disk
                .write_some(file, offset, &bytes, |sector| match manner {
                    0 => sector < end,
                    1 => true,
                    _ => random.chance(50),
                });
            return Err(crashed);
        }
        match self.takes_fault(&[Fault::Write, Fault::Short, Fault::Astray]) {
            None | Some(Fault::Sync) => {
                self.disk.write(file, offset, &bytes);
                self.progress = Progress::Written(write);
            }
            Some(Fault::Write) => {
                let random = &mut self.random;
                self.disk
                    .write_some(file, offset, &bytes, |_| random.chance(50));
                self.complete(write, Err(Failure::Io(Some(5))));
            }
            Some(Fault::Short) => {
                let end = self.random.below(sectors);
                self.disk
                    .write_some(file, offset, &bytes, |sector| sector < end);
                self.complete(write, Err(Failure::ShortWrite));
            }
            Some(Fault::Astray) => {
                self.astray = true;
                let files = self.disk.files();
                let other = *self.random.pick(&files);
                let blocks = self.settings.segment_bytes as usize / BLOCK;
                let elsewhere = self.random.below(blocks) * BLOCK;
                self.disk.write(other, elsewhere, &bytes);
                self.disk.sync(other);
                self.progress = Progress::Written(write);
            }
        }
        Ok(())
    }

    fn sync(&mut self, write: Write) -> Result<(), Crashed> {
        if !write.sync {
            self.complete(write, Ok(()));
            return Ok(());
        }
        if let Err(crashed) = self.burn() {
            self.disk.sync_some(write.file.0, &mut self.random);
            return Err(crashed);
        }
        if self.takes_fault(&[Fault::Sync]).is_some() {
            self.disk.sync_some(write.file.0, &mut self.random);
            self.complete(write, Err(Failure::Io(Some(5))));
            return Ok(());
        }
        self.disk.sync(write.file.0);
        self.progress = Progress::Synced(write);
        Ok(())
    }

    fn complete(&mut self, write: Write, result: Result<(), Failure>) {
        let before = self.journal.durable();
        self.journal.completed(write, result);
        if result.is_err() {
            assert_eq!(self.journal.durable(), before);
            assert_eq!(self.journal.failure(), result.err());
            assert!(self.journal.next_write().is_none());
        }
        self.tell();
    }

    /// Everything that was done is on disk, and a seal behind it.
    pub fn settle(&mut self) {
        self.fuse = usize::MAX;
        self.copying = Copying::None;
        self.journal.thaw();
        self.journal.unpin_all();
        for _ in 0..3 {
            while self.journal.durable() < self.journal.position() || self.journal.backlog() > 0 {
                if self.journal.is_full() {
                    self.disk.capacity = usize::MAX;
                    self.journal.space_returned();
                }
                self.journal.seal();
                assert!(self.step().is_ok());
            }
            self.journal.seal();
            for _ in 0..40 {
                assert!(self.step().is_ok());
            }
        }
        self.tell();
    }

    /// The power goes or the process ends, perhaps again while the journal is opened; then what is there
    /// is compared with what was done.
    pub fn recover(&mut self) -> Result<(), String> {
        loop {
            self.summary.crashes += 1;
            if self.random.chance(70) {
                self.disk.cut(&mut self.random);
            }
            self.fuse = if self.random.chance(15) {
                1 + self.random.below(4)
            } else {
                usize::MAX
            };
            if self.sync_all().is_ok() {
                break;
            }
        }
        self.fault = None;
        self.copying = Copying::None;
        self.progress = Progress::None;
        self.reading = None;
        let before = std::mem::take(&mut self.base);
        match self.open(before) {
            Ok(()) => Ok(()),
            Err(verdict) => Err(format!("crash {}: {verdict}", self.summary.crashes)),
        }
    }

    /// Files of the wrong size go; what is left is on disk for good.
    fn sync_all(&mut self) -> Result<(), Crashed> {
        for file in self.disk.files() {
            if self.disk.read(file).len() != self.settings.segment_bytes as usize {
                self.disk.remove(file);
            }
        }
        if self.mutator.bug == Some(Bug::NoSyncAtStart) {
            return Ok(());
        }
        for file in self.disk.files() {
            if let Err(crashed) = self.burn() {
                self.disk.sync_some(file, &mut self.random);
                return Err(crashed);
            }
            self.disk.sync(file);
        }
        Ok(())
    }

    /// What there is by the way of reading that forgives; it has nothing to forgive.
    pub fn salvage(&self) -> Result<Recovered, String> {
        let mut survey = Survey::new(IDENTITY, self.settings);
        for file in self.disk.files() {
            survey.look(FileId(file), self.disk.read(file));
        }
        let mut salvage = survey.finish();
        for file in salvage.files() {
            salvage.read(file, self.disk.read(file.0));
        }
        let salvaged = salvage.settle();
        match salvaged.losses.first() {
            Some(loss) => Err(format!("lost without damage: {loss:?}")),
            None => Ok(salvaged.recovered),
        }
    }

    fn open(&mut self, before: Model) -> Result<(), String> {
        let files = self.disk.files();
        let (journal, mut recovered) = recover(self.settings, &files, |file| self.disk.read(file))?;
        let salvaged = self.salvage()?;
        if recovered != salvaged {
            return Err(format!(
                "the reading that forgives found something else: {}",
                differing(&format!("{recovered:#?}"), &format!("{salvaged:#?}"))
            ));
        }
        let position = recovered.position;
        let told = self.done.iter().rev().find(|(at, _)| *at <= self.reported);
        if let Some((told, _)) = told
            && *told > position
        {
            return Err(format!("{told:?} was told, {position:?} is there"));
        }
        self.mutator.recovered(&mut recovered, &journal, &self.disk);
        let found = Model::from_recovered(&journal, &recovered, |file| self.disk.read(file.0))?;
        let mut expected = before;
        let survived = self.done.iter().take_while(|(at, _)| *at <= position);
        survived.for_each(|(_, done)| expected.apply(done));
        if found != expected {
            return Err(difference(&expected, &found));
        }
        for (session, known) in &expected.sessions {
            if !journal
                .messages(*session)
                .eq(known.messages.iter().copied())
            {
                return Err(format!("{session:?} has other messages in the journal"));
            }
        }
        self.journal = journal;
        self.current = expected.clone();
        self.base = expected;
        self.done.clear();
        self.reported = position;
        self.check_bodies()
    }

    /// What waits for a session can be read back.
    fn check_bodies(&mut self) -> Result<(), String> {
        for &session in self.current.sessions.keys() {
            let waiting: Vec<ItemId> = self.journal.messages(session).collect();
            let Some(&first) = waiting.first() else {
                continue;
            };
            let most = 1 + waiting.len() % 7;
            let first = first.before();
            let mut fetch = self.journal.fetch(session, first, most);
            let mut found = Vec::new();
            let mut wrong = None;
            while let Some(asked) = fetch.take() {
                let read = |read: Read| {
                    let bytes = &self.disk.read(read.file.0)[read.offset as usize..];
                    bytes[..read.length as usize].to_vec()
                };
                let buffers: Vec<Vec<u8>> = asked.reads().map(read).collect();
                let bodies = &self.current.bodies;
                fetch = self
                    .journal
                    .fetched(&asked, &buffers, |id, message, _| {
                        let same = bodies[&id].message.borrowed() == message;
                        wrong = wrong.or_else(|| (!same).then_some(id));
                        found.push(id);
                    })
                    .map_err(|unreadable| unreadable.damage.to_string())?;
                if fetch.is_none() && found.len() < most.min(waiting.len()) {
                    let after = found.last().copied().unwrap_or(first);
                    fetch = self.journal.fetch(session, after, most - found.len());
                }
            }
            if wrong.is_some() || found != waiting[..most.min(waiting.len())] {
                return Err(format!("{session:?}: {found:?} is not {waiting:?}"));
            }
        }
        Ok(())
    }

    /// A call that the journal refused must have been one that it may refuse.
    pub fn refused(&self, refused: Refused) {
        panic!("{refused:?}");
    }
}

/// What files hold.
fn recover<'a>(
    settings: Settings,
    files: &[u32],
    read: impl Fn(u32) -> &'a [u8],
) -> Result<(Journal, Recovered), String> {
    let mut recovery = Recovery::new(IDENTITY, settings);
    for &file in files {
        recovery.look(FileId(file), &read(file)[..BLOCK]);
    }
    while let Some(file) = recovery.next_file() {
        let taken = recovery.read(file, read(file.0));
        taken.map_err(|damage| damage.to_string())?;
    }
    recovery.finish().map_err(|damage| damage.to_string())
}

/// The lines in which two long texts differ first.
fn differing(expected: &str, found: &str) -> String {
    let lines = expected.lines().zip(found.lines());
    let mut differing = lines.filter(|(expected, found)| expected != found);
    match differing.next() {
        Some((expected, found)) => format!("`{}` is `{}`", expected.trim(), found.trim()),
        None => "one holds more".to_owned(),
    }
}

/// The first thing in which two models differ.
fn difference(expected: &Model, found: &Model) -> String {
    for (session, known) in &expected.sessions {
        match found.sessions.get(session) {
            None => return format!("{session:?} is lost"),
            Some(other) if other != known => {
                return format!("{session:?} differs:\nexpected {known:?}\nfound    {other:?}");
            }
            Some(_) => {}
        }
    }
    for session in found.sessions.keys() {
        if !expected.sessions.contains_key(session) {
            return format!("{session:?} came back");
        }
    }
    for (id, body) in &expected.bodies {
        match found.bodies.get(id) {
            None => return format!("{id:?} is lost"),
            Some(other) if other != body => {
                return format!("{id:?} differs:\nexpected {body:?}\nfound    {other:?}");
            }
            Some(_) => {}
        }
    }
    let more = found
        .bodies
        .keys()
        .find(|id| !expected.bodies.contains_key(id));
    format!("{more:?} came back")
}
