//! What one shard hands to another: batches of publishes, and control messages.
//!
//! Two lanes join each ordered pair of shards. The *live* lane carries [`Batch`]es, the *control*
//! lane [`Control`]s. Control leaves a shard only when none of its live batches is held back, and a
//! shard empties all its control lanes before it empties its live lanes, and works on the live
//! batches first. So a control message never overtakes a publish that was made before it, not even
//! through a third shard: a retained message that is told to a new subscriber is never older than a
//! live one it already has.
//!
//! Live frames with QoS > 0 and counted control messages are answered cumulatively, like TCP: both
//! sides count, and [`Control::Answer`] says how far the other side has come.

use std::sync::Arc;

use crate::history::{BucketId, Closed};
use crate::message::{ItemId, MessageView};
use crate::route::{Member, SessionKey, ShardId, stable_hash};
use crate::session::ReplayKey;
use crate::stats::Stats;
use crate::time::Time;
use crate::topic::{Name, Subscription};
use crate::wire::{QoS, Run, RunShape};

use super::history::{HistoryAnswer, HistoryQuestion};

/// Publishes for one other shard: heads in one vector, bytes in another, both used again.
#[derive(Debug, Default)]
pub struct Batch {
    heads: Vec<Head>,
    bytes: Vec<u8>,
}

/// Where the parts of one frame lie and what is not bytes about it.
#[derive(Clone, Copy, Debug)]
struct Head {
    start: u32,
    topic_length: u16,
    share_length: u16,
    properties_length: u32,
    payload_length: u32,
    expires_at: Time,
    qos: QoS,
    retain: bool,
    target: Option<SessionKey>,
    /// What the journal of the sending shard calls it, if it has to be told that it arrived.
    origin: Option<ItemId>,
    /// There are several: their packets stand in place of the payload.
    run: Option<RunShape>,
}

/// One publish of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The message.
    pub message: MessageView<'a>,
    /// All of the messages that are meant, where `message` is only the first of them.
    pub run: Option<Run<'a>>,
    /// Where it goes: to everybody who subscribed, or to one member of a group.
    pub target: Target<'a>,
    /// What the journal of the sending shard calls it, where that waits until it is on disk here.
    pub origin: Option<ItemId>,
}

/// Who on the receiving shard is meant.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Every matching subscription that is not shared.
    Subscribers,
    /// The member that the publisher's shard picked.
    Member {
        /// Its session on the receiving shard.
        session: SessionKey,
        /// The shared subscription that it was picked for.
        subscription: Subscription<'a>,
    },
}

impl<'a> Frame<'a> {
    /// All messages that are meant.
    pub fn messages(&self) -> impl Iterator<Item = MessageView<'a>> + use<'a> {
        self.message.and_those_of(self.run)
    }
}

impl Batch {
    /// Appends a publish for every matching subscription of the receiving shard.
    pub fn push(&mut self, message: &MessageView<'_>) {
        self.push_head(message, None, None, "");
    }

    /// The same for all of the run that `message` begins.
    pub fn push_run(&mut self, message: &MessageView<'_>, run: Option<&Run<'_>>) {
        let several = run.filter(|run| run.count() > 1);
        self.push_head(message, several, None, "");
    }

    /// Appends a publish for one member of the group `subscription`.
    pub fn push_shared(
        &mut self,
        message: &MessageView<'_>,
        session: SessionKey,
        subscription: Subscription<'_>,
    ) {
        let name = [
            crate::topic::SHARE_PREFIX,
            subscription.share.unwrap_or_default(),
            "/",
            subscription.filter.as_str(),
        ]
        .concat();
        self.push_head(message, None, Some(session), &name);
    }

    /// The one that was appended last is forwarded from the journal of this shard.
    pub(super) fn set_origin(&mut self, origin: ItemId) {
        if let Some(last) = self.heads.last_mut() {
            last.origin = Some(origin);
        }
    }

    fn push_head(
        &mut self,
        message: &MessageView<'_>,
        run: Option<&Run<'_>>,
        target: Option<SessionKey>,
        share: &str,
    ) {
        let start = self.bytes.len();
        let topic = message.topic.as_str();
        self.bytes.extend_from_slice(topic.as_bytes());
        self.bytes.extend_from_slice(share.as_bytes());
        self.bytes.extend_from_slice(message.properties);
        let payload = run.map_or(message.payload, |run| run.bytes());
        self.bytes.extend_from_slice(payload);
        self.heads.push(Head {
            start: length(start),
            topic_length: short(topic.len()),
            share_length: short(share.len()),
            properties_length: length(message.properties.len()),
            payload_length: length(payload.len()),
            expires_at: message.expires_at,
            qos: message.qos,
            retain: message.retain,
            target,
            origin: None,
            run: run.map(Run::shape),
        });
    }

    /// The publishes, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.heads.iter().map(|head| self.frame(head))
    }

    fn frame(&self, head: &Head) -> Frame<'_> {
        let rest = &self.bytes[head.start as usize..];
        let (topic, rest) = rest.split_at(usize::from(head.topic_length));
        let (share, rest) = rest.split_at(usize::from(head.share_length));
        let (properties, rest) = rest.split_at(head.properties_length as usize);
        let bytes = &rest[..head.payload_length as usize];
        let run = head.run.map(|shape| Run::from_parts(shape, bytes));
        let first = run.and_then(|run| run.payloads().next());
        let payload = first.unwrap_or(bytes);
        let target = match head.target {
            None => Target::Subscribers,
            Some(session) => Target::Member {
                session,
                subscription: Subscription::trusted(text(share)),
            },
        };
        Frame {
            message: MessageView {
                topic: Name::trusted(text(topic)),
                properties,
                payload,
                qos: head.qos,
                retain: head.retain,
                expires_at: head.expires_at,
            },
            run,
            target,
            origin: head.origin,
        }
    }

    /// How many publishes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes of its publishes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Empties it for another use; the memory stays.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.bytes.clear();
    }
}

fn text(bytes: &[u8]) -> &str {
    debug_assert!(std::str::from_utf8(bytes).is_ok());
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A packet, and with it a part of one, is smaller than 256 MiB, and a batch takes no more frames
/// from 64 KiB up.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A topic or filter is at most 65,535 bytes; a `$share` prefix counts into the same string.
fn short(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// What shards tell each other besides publishes. Those marked *counted* are answered.
#[derive(Debug)]
pub enum Control {
    /// Counted. This shard now has, or no longer has, a subscriber of `filter`.
    Interest {
        /// The topic filter, not shared.
        filter: Arc<str>,
        /// Whether publishes are wanted.
        wanted: bool,
    },
    /// Counted. A member joined a group, or its options or availability changed.
    Join {
        /// `$share/name/filter`.
        subscription: Arc<str>,
        /// The member, on the sending shard.
        member: Member,
    },
    /// Counted. A member left a group.
    Leave {
        /// `$share/name/filter`.
        subscription: Arc<str>,
        /// Its session on the sending shard.
        session: SessionKey,
    },
    /// Counted. A message to retain, or with an empty payload the order to forget one: the
    /// receiving shard keeps the retained messages of these topics. One frame per batch.
    Retain(Box<Batch>),
    /// A new subscription asks for the retained messages that match.
    RetainedQuery {
        /// The replay on the asking shard.
        replay: ReplayKey,
        /// The topic filter.
        filter: Arc<str>,
        /// Where the chunk before ended.
        after: Option<Box<str>>,
    },
    /// A part of the answer.
    RetainedChunk {
        /// The replay that asked.
        replay: ReplayKey,
        /// The messages, in the order of their topics.
        messages: Box<Batch>,
        /// Where to go on, `None` when there are no more.
        after: Option<Box<str>>,
    },
    /// At the start: the last message that the receiving shard forwarded and that is on disk here, by the
    /// live lane and by the control lane.
    Arrived {
        /// By the live lane; none if none ever was.
        live: Option<ItemId>,
        /// By the control lane.
        control: Option<ItemId>,
    },
    /// How far the receiver of live frames and control messages has come.
    Answer {
        /// Live frames with QoS > 0 that are done, since the start.
        live: u64,
        /// Counted control messages that are done, since the start.
        control: u64,
        /// Which of the live frames some session's full queue refused, by their number (from 1).
        refused: Vec<u64>,
    },
    /// The counters of the sending shard, for `$SYS`.
    Report(Box<Stats>),
    /// A question for the next records of a lane of history.
    HistoryQuestion(Box<HistoryQuestion>),
    /// The answer.
    HistoryAnswer {
        /// The subscription that asked.
        replay: ReplayKey,
        /// What it gets.
        answer: Box<HistoryAnswer>,
    },
    /// That subscription is over: it needs no answer.
    HistoryCancel {
        /// Which one, on the sending shard.
        replay: ReplayKey,
    },
    /// What the sending shard has of a history stream.
    HistoryStored {
        /// The stream, by its place in the configuration.
        stream: usize,
        /// Its bytes.
        bytes: u64,
        /// The buckets that can be removed.
        closed: Vec<Closed>,
    },
    /// The stream holds too much: these buckets are to be removed.
    HistoryRemove {
        /// The stream.
        stream: usize,
        /// The buckets.
        buckets: Vec<BucketId>,
    },
}

impl Control {
    /// Whether the other side answers it.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        match self {
            Self::Interest { .. } | Self::Join { .. } | Self::Leave { .. } | Self::Retain(_) => {
                true
            }
            Self::RetainedQuery { .. }
            | Self::RetainedChunk { .. }
            | Self::Arrived { .. }
            | Self::Answer { .. }
            | Self::Report(_)
            | Self::HistoryQuestion(_)
            | Self::HistoryAnswer { .. }
            | Self::HistoryCancel { .. }
            | Self::HistoryStored { .. }
            | Self::HistoryRemove { .. } => false,
        }
    }
}

/// The place of a shard's batches while a turn runs: one open batch, and those that are full or
/// were held back by a full channel.
#[derive(Debug, Default)]
pub(super) struct LiveLane {
    waiting: std::collections::VecDeque<Box<Batch>>,
    bytes: usize,
}

impl LiveLane {
    /// The batch to append to, a new one if the last is full.
    #[expect(
        clippy::vec_box,
        reason = "the boxes travel through the channels as they are"
    )]
    pub(super) fn open(&mut self, spares: &mut Vec<Box<Batch>>) -> &mut Batch {
        use crate::limits::{BATCH_BYTES, BATCH_FRAMES};
        let full = self
            .waiting
            .back()
            .is_none_or(|batch| batch.len() >= BATCH_FRAMES || batch.size() >= BATCH_BYTES);
        if full {
            self.waiting.push_back(spares.pop().unwrap_or_default());
        }
        let last = self.waiting.len() - 1;
        &mut self.waiting[last]
    }

    pub(super) fn grew(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn pop(&mut self) -> Option<Box<Batch>> {
        let batch = self.waiting.pop_front()?;
        self.bytes -= batch.size();
        Some(batch)
    }

    pub(super) fn unpop(&mut self, batch: Box<Batch>) {
        self.bytes += batch.size();
        self.waiting.push_front(batch);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The shard that keeps the retained messages of `topic`, and the one a client's session lives on.
///
/// Stable over the life of a process; nothing outside of it may rely on it.
#[must_use]
pub fn home(text: &str, shards: usize) -> ShardId {
    // All shards must agree, so the hash has no secret. Nobody gains from aiming clients at one
    // shard: a client id can be chosen, but so can the load that one client makes.
    let shards = shards.max(1) as u64;
    ShardId::new(usize::try_from(stable_hash(text) % shards).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Filter;

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

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut batch = Batch::default();
        batch.push(&view("a/b", b"one"));
        let session = SessionKey {
            index: 3,
            generation: 9,
        };
        let filter = Filter::parse("a/+").unwrap();
        batch.push_shared(
            &view("a/c", b""),
            session,
            Subscription {
                share: Some("g"),
                filter,
            },
        );
        let frames: Vec<_> = batch.frames().collect();
        assert_eq!(frames[0].message.topic.as_str(), "a/b");
        assert_eq!(frames[0].message.payload, b"one");
        assert!(matches!(frames[0].target, Target::Subscribers));
        assert_eq!(frames[1].message.topic.as_str(), "a/c");
        let Target::Member {
            session: member,
            subscription,
        } = frames[1].target
        else {
            panic!("the second frame is for a member");
        };
        assert_eq!((member, subscription.share), (session, Some("g")));
        assert_eq!(subscription.filter.as_str(), "a/+");
    }

    #[test]
    fn clients_spread_over_the_shards() {
        let mut counts = [0_u32; 8];
        for client in 0..8_000 {
            counts[home(&format!("vehicle-{client}"), 8).index()] += 1;
        }
        assert!(
            counts.iter().all(|&count| (800..1_200).contains(&count)),
            "{counts:?}"
        );
    }
}
