//! Bugs planted between the broker and everybody who looks at it, to show that the oracle sees them.
//!
//! They sit where the broker's packets leave for a client, or where a batch arrives at a shard, so
//! no production code knows of them.

use shardmq::message::MessageView;
use shardmq::shard::{Batch, Target};
use shardmq::topic::Name;

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A resent PUBLISH has DUP 0.
    NoDup,
    /// Some PUBACKs and PUBRECs never leave.
    SwallowedAcknowledgement,
    /// Between shards a message turns into one that nobody wants: acknowledged, not delivered.
    LostBetweenShards,
    /// Some QoS 2 PUBLISHes leave twice.
    DuplicatedQoS2,
    /// Two PUBLISHes that leave together change places.
    SwappedPublishes,
    /// CONNACK says the opposite of Session Present.
    WrongSessionPresent,
    /// Some PUBRELs never leave.
    SwallowedRelease,
    /// RETAIN is lost on the way.
    LostRetain,
    /// Two acknowledgements that leave together change places.
    SwappedAcknowledgements,
}

impl Bug {
    pub const ALL: [Self; 9] = [
        Self::NoDup,
        Self::SwallowedAcknowledgement,
        Self::LostBetweenShards,
        Self::DuplicatedQoS2,
        Self::SwappedPublishes,
        Self::WrongSessionPresent,
        Self::SwallowedRelease,
        Self::LostRetain,
        Self::SwappedAcknowledgements,
    ];
}

/// Plants a bug, or none.
pub struct Mutator {
    bug: Option<Bug>,
    count: u64,
}

impl Mutator {
    pub fn new(bug: Option<Bug>) -> Self {
        Self { bug, count: 0 }
    }

    /// Every fifth time that it is asked.
    fn now(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(5)
    }

    /// The packets that leave for one client in one turn.
    pub fn output(&mut self, frames: &mut Vec<Vec<u8>>) {
        let Some(bug) = self.bug else { return };
        let kind = |frame: &Vec<u8>| frame[0] >> 4;
        match bug {
            Bug::NoDup => frames
                .iter_mut()
                .filter(|frame| kind(frame) == 3)
                .for_each(|frame| frame[0] &= !0b1000),
            Bug::LostRetain => frames
                .iter_mut()
                .filter(|frame| kind(frame) == 3)
                .for_each(|frame| frame[0] &= !1),
            Bug::SwallowedAcknowledgement => {
                frames.retain(|frame| !matches!(kind(frame), 4 | 5) || !self.now());
            }
            Bug::SwallowedRelease => frames.retain(|frame| kind(frame) != 6 || !self.now()),
            Bug::WrongSessionPresent => frames
                .iter_mut()
                .filter(|frame| kind(frame) == 2 && self.now())
                .for_each(|frame| frame[2] ^= 1),
            Bug::DuplicatedQoS2 => {
                let copies: Vec<_> = frames
                    .iter()
                    .filter(|frame| kind(frame) == 3 && frame[0] & 0b110 == 0b100)
                    .filter(|_| self.now())
                    .cloned()
                    .collect();
                frames.extend(copies);
            }
            Bug::SwappedPublishes => self.swap(frames, |frame| frame[0] & 0b1111_0110 == 0b11_0010),
            Bug::SwappedAcknowledgements => self.swap(frames, |frame| frame[0] >> 4 == 4),
            Bug::LostBetweenShards => {}
        }
    }

    fn swap(&mut self, frames: &mut [Vec<u8>], which: fn(&Vec<u8>) -> bool) {
        for at in 1..frames.len() {
            if which(&frames[at - 1]) && which(&frames[at]) {
                frames.swap(at - 1, at);
                return;
            }
        }
    }

    /// A batch that arrives at a shard.
    pub fn batch(&mut self, batch: Box<Batch>) -> Box<Batch> {
        if self.bug != Some(Bug::LostBetweenShards) || !self.now() {
            return batch;
        }
        let mut changed = Box::<Batch>::default();
        for frame in batch.frames() {
            let message = match Name::parse("nobody/wants/this") {
                Ok(topic) => MessageView {
                    topic,
                    ..frame.message
                },
                Err(_) => frame.message,
            };
            match frame.target {
                Target::Subscribers => changed.push(&message),
                Target::Member {
                    session,
                    subscription,
                } => {
                    changed.push_shared(&frame.message, session, subscription);
                }
            }
        }
        changed
    }
}
