//! The small values of the journal.

use std::fmt;

use crate::wire::{PacketId, QoS, SubscriptionOptions, Version};

/// Bytes in which a disk is written: offsets, lengths and memory of every write are multiples of it,
/// as `O_DIRECT` wants them.
pub const BLOCK: usize = 4096;

/// Sessions that one journal keeps at a time. A message counts its receivers in 22 bits.
pub const MAX_SESSIONS: u32 = (1 << 22) - 2;

/// Bytes of the largest segment: a place within it takes 28 bits.
pub const MAX_SEGMENT_BYTES: u32 = 1 << 28;

pub use crate::message::{ItemId, Position};
pub use crate::session::SessionNumber;

/// A file of the journal; the caller makes a name of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A point in time that outlives the process: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub u64);

impl Deadline {
    /// Long ago.
    pub const PAST: Self = Self(0);
    /// Later than anything.
    pub const NEVER: Self = Self(u64::MAX);
}

/// Whose journal it is. Frames that say otherwise are none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A number that no other journal has, drawn when it was made. It is secret, so nobody can send
    /// a payload that looks like a frame.
    pub log: u64,
    /// The shard that wrote it.
    pub shard: u16,
}

/// When a frame is brought to disk for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// With every write.
    #[default]
    Always,
    /// When [`super::Journal::seal`] says so, and at the end of every segment.
    OnDemand,
}

/// What a journal is set to.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of a segment, a multiple of [`BLOCK`] up to [`MAX_SEGMENT_BYTES`]. A message must fit.
    pub segment_bytes: u32,
    /// Bytes from which on a frame is not extended.
    pub frame_bytes: u32,
    /// When frames are brought to disk.
    pub sync: Sync,
    /// Segments that there may be beyond twice what lives, before the oldest is moved.
    pub slack_segments: u32,
    /// Files that wait to be used again; what is more is removed.
    pub spare_files: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            frame_bytes: 1 << 20,
            sync: Sync::Always,
            slack_segments: 4,
            spare_files: 2,
        }
    }
}

/// What is known of a session besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionDetails<'a> {
    /// Its client.
    pub client_id: &'a str,
    /// Whose it is, as [`crate::session::Owner`] writes it; empty for nobody.
    pub user: &'a str,
    /// What the client spoke last.
    pub version: Version,
    /// Seconds that it outlives its connection.
    pub expiry_interval: u32,
    /// When it ends, [`Deadline::NEVER`] while connected.
    pub expires_at: Deadline,
}

/// A subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionDetails<'a> {
    /// The topic filter, with `$share/name/` where it is shared.
    pub filter: &'a str,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier, 0 for none.
    pub identifier: u32,
    /// Whether retained messages are still to be sent because of it.
    pub owed: bool,
}

/// An application message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The properties that are forwarded, as [`crate::message::MessageView`] has them.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// The QoS it was published with.
    pub qos: QoS,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// When it is too old to be sent.
    pub expires_at: Deadline,
}

/// A will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillDetails<'a> {
    /// When it is to be published, [`Deadline::NEVER`] while the client is connected.
    pub due: Deadline,
    /// Seconds between the end of the connection and the publication.
    pub delay_interval: u32,
    /// Seconds from the publication until it is too old.
    pub message_expiry_interval: Option<u32>,
    /// What is published.
    pub message: StoredMessage<'a>,
}

/// A QoS 2 message on its way to other shards.
///
/// Its publisher's shard keeps it from before it is handed over until all of them have it on disk. What
/// was on its way when the power went is handed over again at the start, to those who say that it never
/// came: so it arrives once, whichever disk was behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardDetails<'a> {
    /// Shards whose subscribers get it, one bit each.
    pub shards: u64,
    /// Shards that get it for one member of a group, or to retain it: [`Errands`].
    pub errands: &'a str,
    /// The message.
    pub message: StoredMessage<'a>,
}

/// What a forwarded message is for besides subscribers: a text, because records borrow.
///
/// For each errand the shard's number, NUL, `$share/name/filter` or nothing for the retained message of the
/// topic, NUL. No filter holds NUL [MQTT-4.7.3-2].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errands(pub String);

impl Errands {
    /// Adds an errand.
    pub fn push(&mut self, shard: usize, group: &str) {
        self.0 += &format!("{shard}\0{group}\0");
    }

    /// The errands, as they were added. What cannot be understood is left out.
    pub fn each(text: &str) -> impl Iterator<Item = (usize, &str)> {
        let mut parts = text.split_terminator('\0');
        std::iter::from_fn(move || {
            let shard = parts.next()?.parse().ok()?;
            Some((shard, parts.next()?))
        })
    }
}

/// A session that gets a message, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// Which session; a message names each at most once.
    pub session: SessionNumber,
    /// How it gets it.
    pub copy: Copied<'a>,
}

/// How a session gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copied<'a> {
    /// The QoS it is sent with.
    pub qos: QoS,
    /// The RETAIN flag it is sent with.
    pub retain: bool,
    /// The identifiers of the subscriptions that it matched.
    pub identifiers: &'a [u32],
    /// The shared subscription it was picked from, empty for none.
    pub group: &'a str,
}

impl Copied<'_> {
    /// At least once, and nothing else to say of it.
    pub const PLAIN: Self = Self {
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: &[],
        group: "",
    };
}

/// An outgoing QoS 2 message whose exchange has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// The message; exchanges go on in the order of these.
    pub message: ItemId,
    /// Its packet identifier.
    pub packet_id: PacketId,
    /// Whether PUBREC came: only PUBREL is sent from here on, and the message is gone.
    pub received: bool,
}

/// What a copy of a journal is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The last frame in it.
    pub position: Position,
    /// Files, and how many bytes at the begin of each; oldest first.
    pub files: Vec<(FileId, u32)>,
}

/// Why something was not appended. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not fit a segment.
    TooLarge,
    /// There are [`MAX_SESSIONS`] sessions.
    TooManySessions,
    /// There is no such session, or no such thing in it.
    Unknown,
}

/// Why a journal does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A write or its `fdatasync` failed, with this error number of the operating system, if it has
    /// one. What the disk has is unknown from here on, so it is not tried again.
    Io(Option<i32>),
    /// Less was written than was asked for.
    ShortWrite,
}

/// Something in a file that was on disk and is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: FileId,
    /// From which byte on.
    pub offset: u32,
    /// What is wrong.
    pub what: Defect,
}

/// What is wrong with a place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// No whole frame stands there, although it was on disk once.
    FrameLost,
    /// A frame stands there that belongs somewhere else.
    FrameMisplaced,
    /// The checksum fits, and what it covers cannot be understood.
    Record,
    /// A segment between the oldest and the newest is in no file.
    SegmentMissing(u64),
    /// A newer ShardMQ wrote it in this version of the format.
    NewerFormat(u16),
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, what } = self;
        write!(formatter, "journal file {}, offset {offset}: ", file.0)?;
        match what {
            Defect::FrameLost => formatter.write_str("a frame that was on disk is damaged"),
            Defect::FrameMisplaced => formatter.write_str("a frame stands in the wrong place"),
            Defect::Record => formatter.write_str("a record cannot be understood"),
            Defect::SegmentMissing(segment) => write!(formatter, "segment {segment} is missing"),
            Defect::NewerFormat(version) => {
                write!(formatter, "format {version} is newer than this program")
            }
        }
    }
}

impl std::error::Error for Damage {}
