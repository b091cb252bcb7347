//! What must outlive the process: records, the log they are written to, and the way back.
//!
//! One journal per shard. It is a state machine over bytes: it opens no file and reads no clock, hands
//! out what is to be written and is told what became of it. [`Journal`] remembers of everything that it wrote
//! only where it stands and who still wants it; the shard has the rest.
//!
//! # How a shard uses it
//!
//! Whatever happens in a turn is appended first; the packet that promises it leaves once
//! [`Journal::durable`] has come to what [`Journal::position`] was right after the call.
//!
//! | what happens | calls | packet that waits |
//! | --- | --- | --- |
//! | CONNECT of a session that outlives its connection | [`Journal::open_session`] or [`Journal::change_session`] (never expires while connected), [`Journal::set_will`] or [`Journal::clear_will`]; at a clean start [`Journal::remove_session`] before | CONNACK |
//! | the connection ends | [`Journal::change_session`] with its deadline; [`Journal::set_will`] with its, or [`Journal::clear_will`] | none |
//! | SUBSCRIBE, UNSUBSCRIBE | [`Journal::add_subscription`] (`replaces` the old one of the filter), [`Journal::remove_subscription`] | SUBACK, UNSUBACK |
//! | the last retained message was handed to a new subscription | [`Journal::add_subscription`] again, nothing being owed any more | none |
//! | PUBLISH QoS 1 from a client | [`Journal::add_message`] on every shard with receivers that outlive their connection, and where it is retained | PUBACK |
//! | PUBLISH QoS 2 from a client | the same, and [`Journal::hold`] | PUBREC |
//! | PUBREL from a client | [`Journal::release`] | PUBCOMP |
//! | QoS 1 to a client | nothing | none |
//! | QoS 2 to a client | [`Journal::send`] | PUBLISH |
//! | PUBACK, or PUBREC with an error | [`Journal::acknowledge`] | none |
//! | PUBREC from a client | [`Journal::receive`] | PUBREL |
//! | PUBCOMP from a client | [`Journal::complete`] | none |
//! | a message expires or is dropped | [`Journal::acknowledge`] | none |
//! | a retained message is removed or expires | [`Journal::clear_retained`] | PUBACK of the one that removed it |
//! | a will is published | [`Journal::add_message`] for its receivers, then [`Journal::clear_will`] | none |
//! | a session ends | [`Journal::remove_session`] | CONNACK of a clean start |
//! | a QoS 2 message of a stored session has receivers on other shards | [`Journal::forward`] | the message to them |
//! | such a message came from another shard | [`Journal::note_origin`], with what it makes | the answer |
//! | all of them have answered | [`Journal::forwarded`] | none |
//!
//! Another shard's answer for a publish leaves that shard when its own journal is durable so far, so the
//! cumulative answers between shards stay as they are. What a call appends stands in one frame with what
//! the same turn appended before it, or in a later one; nothing later is ever on disk without it.
//!
//! At the end of a turn the driver asks [`Journal::next_allocation`], [`Journal::next_write`],
//! [`Journal::next_move`] and [`Journal::next_removal`] until they give nothing. Each write goes to the disk as
//! a write linked to its `fdatasync`; when it is done, [`Journal::completed`], and the acknowledgements that
//! waited leave. The next commit takes all that came meanwhile: no timer, no batch size to tune.
//!
//! The item numbers that calls return belong into the shard: in a subscription, a retained message and a
//! queued delivery. Where queues go beyond their memory, the shard forgets the bodies: [`Journal::fetch`] says
//! what to read to have them back.
//!
//! At the start [`Recovery`] reads the files, gives [`Recovered`] and a journal that goes on. For another
//! number of shards, every old journal is recovered, [`Journal::each_message`] gives the bodies, and all of it
//! is appended to new journals under identities of their own; the old files are removed when the new ones
//! are durable.
//!
//! For a copy while it goes on, [`Journal::freeze`], then [`Journal::cut`] until it gives one, [`Journal::pin`],
//! [`Journal::thaw`]; the files are read, [`Journal::unpin`] for each.
//!
//! # Invariants
//!
//! - Nothing is acknowledged that is not on disk; after a failed write or sync nothing is, ever again.
//! - What lives is what was appended minus what was ended, whatever the order in which it is read
//!   (`recovery`).
//! - Segments are freed from the oldest on, and a file is used again only when a frame is on disk that
//!   no longer counts its old content (`log`).
//! - Damage inside what was on disk is an error that names file and offset, never a shorter journal.

pub(crate) mod codec;
mod copying;
mod fetch;
mod frame;
mod index;
mod items;
mod log;
mod moving;
mod numbers;
mod reading;
mod receivers;
mod record;
mod recovery;
mod restored;
mod salvage;
mod state;
mod types;

pub use codec::Malformed;
pub use fetch::{Fetch, Unreadable};
pub use frame::{HEADER_BYTES, Header, NoFrame, VERSION};
pub use log::Write;
pub use reading::Read;
pub use receivers::Receivers;
pub use record::Record;
pub use recovery::Recovery;
pub use restored::{
    OwnedMessage, Recovered, RestoredForward, RestoredSession, RestoredSubscription, RestoredWill,
};
pub use salvage::{Extent, Loss, Part, Salvage, Salvaged, Survey, for_each_in};
pub use state::{Journal, Retention};
pub use types::{
    BLOCK, Copied, Cut, Damage, Deadline, Defect, Errands, Exchange, Failure, FileId,
    ForwardDetails, Identity, ItemId, MAX_SEGMENT_BYTES, MAX_SESSIONS, Position, Recipient,
    Refused, SessionDetails, SessionNumber, Settings, StoredMessage, SubscriptionDetails, Sync,
    WillDetails,
};

/// Calls `each` with every record of the frame that `header` and `records` came from.
///
/// # Errors
/// A record cannot be understood.
pub fn records<'a>(
    header: &Header,
    records: &'a [u8],
    mut each: impl FnMut(Record<'a>),
) -> Result<(), Malformed> {
    reading::for_each_record(header, records, |_, record| {
        each(record);
        Ok(())
    })
}
