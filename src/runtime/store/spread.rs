//! What was on one number of shards, on another one.
//!
//! A session goes to the shard that the hash of its client id names now, a retained message to that of
//! its topic. Everything is appended to new journals as if it happened now, in its order; the old ones
//! are only read.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::journal::{
    Copied, Deadline, Errands, Exchange, FileId, ItemId, Journal, Recipient, Recovered, Recovery,
    Refused, RestoredForward, RestoredSession, RestoredSubscription, Retention, SessionNumber,
    StoredMessage, Sync,
};
use crate::shard::home;
use crate::topic::{Name, Subscription};
use crate::wire::QoS;

use super::StoreError;
use super::files::Files;

/// Bytes that may wait in a journal before they are written.
const BACKLOG_BYTES: usize = 4 << 20;

/// A journal that is written while nobody waits.
struct Target<'a> {
    files: &'a Files,
    journal: Journal,
    open: HashMap<FileId, File>,
}

/// A message, until its place in the order is known.
struct Kept {
    /// What its journal called it; nothing, if it comes from another one.
    item: Option<ItemId>,
    topic: Box<str>,
    properties: Box<[u8]>,
    payload: Box<[u8]>,
    qos: QoS,
    retain: bool,
    expires_at: Deadline,
    retained: bool,
    recipients: Vec<Receiver>,
}

struct Receiver {
    session: SessionNumber,
    qos: QoS,
    retain: bool,
    identifiers: Vec<u32>,
    group: Box<str>,
}

/// Where a session of an old journal is now.
type Places = HashMap<SessionNumber, (usize, SessionNumber)>;

/// Reads `old` and writes `new`, which are empty.
pub(super) fn spread(old: &[Files], new: &[Files]) -> Result<(), StoreError> {
    let mut targets: Vec<Target<'_>> = new.iter().map(Target::new).collect::<Result<_, _>>()?;
    let mut held: Vec<Held> = old.iter().map(read).collect::<Result<_, _>>()?;
    deliver_forwards(&mut held);
    for held in held {
        move_all(held.recovered, held.messages, &mut targets)?;
    }
    targets.iter_mut().try_for_each(Target::finish)
}

/// What one journal held.
struct Held {
    recovered: Recovered,
    messages: Vec<Kept>,
}

/// Everything of one journal, its messages in their order.
fn read(files: &Files) -> Result<Held, StoreError> {
    let mut messages = Vec::new();
    let (_, recovered) = files.load_with(Sync::Always, |item, message, retained, recipients| {
        messages.push(Kept::new(item, &message, retained, recipients));
    })?;
    messages.sort_unstable_by_key(|kept| kept.item);
    Ok(Held {
        recovered,
        messages,
    })
}

/// Messages that were on their way from one shard to another, and did not come, are delivered here: who
/// subscribed is known.
fn deliver_forwards(held: &mut [Held]) {
    let mut arrivals = Vec::new();
    for (from, sender) in held.iter().enumerate() {
        for forward in &sender.recovered.forwards {
            let missed = |to: usize, lane: u32| {
                let lane = 2 * from as u32 + lane;
                let known = held.get(to)?;
                let origins = known.recovered.origins.iter();
                let last = origins
                    .filter(|origin| origin.1 == lane)
                    .map(|origin| origin.2);
                (last.max() < Some(forward.id)).then_some(&known.recovered)
            };
            for to in (0..held.len()).filter(|to| forward.shards >> to & 1 == 1) {
                if let Some(recovered) = missed(to, 0) {
                    let receivers = subscribers(recovered, &forward.message());
                    arrivals.push((to, Kept::forwarded(forward, false, receivers)));
                }
            }
            for (to, group) in Errands::each(&forward.errands) {
                let lane = u32::from(group.is_empty());
                if let Some(recovered) = missed(to, lane) {
                    let member = member(recovered, group, &forward.message());
                    let retained = group.is_empty();
                    arrivals.push((to, Kept::forwarded(forward, retained, member)));
                }
            }
        }
    }
    for (to, kept) in arrivals {
        held[to].messages.push(kept); // behind all that came before
    }
}

/// The sessions that a message is for by subscriptions of their own.
fn subscribers(recovered: &Recovered, message: &StoredMessage<'_>) -> Vec<Receiver> {
    let receivers = recovered.sessions.iter().filter_map(|session| {
        let matching = session.subscriptions.iter().filter(|subscription| {
            let Subscription { share, filter } = Subscription::trusted(&subscription.filter);
            share.is_none() && filter.matches(Name::trusted(message.topic))
        });
        receiver(session, matching, message, "")
    });
    receivers.collect()
}

/// One session that has a share of `group`; nobody for the retained message.
fn member(recovered: &Recovered, group: &str, message: &StoredMessage<'_>) -> Vec<Receiver> {
    let mut receivers = recovered.sessions.iter().filter_map(|session| {
        let shares = session.subscriptions.iter();
        let shares = shares.filter(|subscription| *subscription.filter == *group);
        receiver(session, shares, message, group)
    });
    receivers.next().into_iter().collect()
}

/// How a session gets a message by its subscriptions to it, if it has any.
fn receiver<'a>(
    session: &RestoredSession,
    subscriptions: impl Iterator<Item = &'a RestoredSubscription>,
    message: &StoredMessage<'_>,
    group: &str,
) -> Option<Receiver> {
    let mut found = None::<Receiver>;
    for subscription in subscriptions {
        let options = subscription.options;
        let receiver = found.get_or_insert_with(|| Receiver {
            session: session.session,
            qos: QoS::AtMostOnce,
            retain: false,
            identifiers: Vec::new(),
            group: group.into(),
        });
        receiver.qos = receiver.qos.max(options.qos.min(message.qos));
        receiver.retain |= message.retain && options.retain_as_published;
        if subscription.identifier != 0 {
            receiver.identifiers.push(subscription.identifier);
        }
    }
    found.filter(|receiver| receiver.qos > QoS::AtMostOnce)
}

fn move_all(
    recovered: Recovered,
    messages: Vec<Kept>,
    targets: &mut [Target<'_>],
) -> Result<(), StoreError> {
    let mut places = Places::new();
    let mut exchanges = HashMap::new();
    for session in recovered.sessions {
        let shard = home(&session.client_id, targets.len()).index();
        let number = targets[shard].session(&session)?;
        places.insert(session.session, (shard, number));
        for exchange in session.exchanges {
            exchanges.insert((session.session, exchange.message), exchange);
        }
    }
    for kept in messages {
        let keeper = home(&kept.topic, targets.len()).index();
        for (shard, target) in targets.iter_mut().enumerate() {
            let mine: Vec<(&Receiver, SessionNumber)> = kept
                .recipients
                .iter()
                .filter_map(|receiver| {
                    let &(place, number) = places.get(&receiver.session)?;
                    (place == shard).then_some((receiver, number))
                })
                .collect();
            let item = target.message(&kept, &mine, kept.retained && keeper == shard)?;
            for (receiver, number) in mine {
                let begun = kept
                    .item
                    .and_then(|old| exchanges.get(&(receiver.session, old)));
                if let (Some(exchange), Some(item)) = (begun, item) {
                    target.send(number, item, exchange)?;
                }
            }
        }
    }
    Ok(())
}

impl<'a> Target<'a> {
    fn new(files: &'a Files) -> Result<Self, StoreError> {
        let empty = Recovery::new(files.identity(), files.settings(Sync::OnDemand));
        let (journal, _) = empty.finish().map_err(|damage| files.damaged(damage))?;
        Ok(Self {
            files,
            journal,
            open: HashMap::new(),
        })
    }

    fn refused(&self) -> impl Fn(Refused) -> StoreError + use<> {
        let directory = self.files.directory().to_owned();
        move |_| StoreError::Refused(directory.clone())
    }

    /// A session with all that is its own but messages.
    fn session(&mut self, session: &RestoredSession) -> Result<SessionNumber, StoreError> {
        let refused = self.refused();
        let number = self
            .journal
            .open_session(session.details())
            .map_err(&refused)?;
        for subscription in &session.subscriptions {
            self.journal
                .add_subscription(number, subscription.details(), None)
                .map_err(&refused)?;
        }
        for &packet_id in &session.held {
            self.journal.hold(number, packet_id).map_err(&refused)?;
        }
        if let Some(will) = &session.will {
            self.journal
                .set_will(number, will.details())
                .map_err(&refused)?;
        }
        // Their messages are gone; PUBREL is all that is left to be sent.
        for exchange in session
            .exchanges
            .iter()
            .filter(|exchange| exchange.received)
        {
            let gone = StoredMessage {
                topic: "",
                properties: &[],
                payload: &[],
                qos: QoS::ExactlyOnce,
                retain: false,
                expires_at: Deadline::NEVER,
            };
            let copy = Copied {
                qos: QoS::ExactlyOnce,
                retain: false,
                identifiers: &[],
                group: "",
            };
            let mut recipient = [Recipient {
                session: number,
                copy,
            }];
            let item = self
                .journal
                .add_message(gone, &mut recipient, Retention::None)
                .map_err(&refused)?;
            self.send(number, item, exchange)?;
        }
        self.write_some()?;
        Ok(number)
    }

    fn message(
        &mut self,
        kept: &Kept,
        receivers: &[(&Receiver, SessionNumber)],
        retained: bool,
    ) -> Result<Option<ItemId>, StoreError> {
        if receivers.is_empty() && !retained {
            return Ok(None);
        }
        let mut recipients: Vec<Recipient<'_>> = receivers
            .iter()
            .map(|(receiver, session)| Recipient {
                session: *session,
                copy: Copied {
                    qos: receiver.qos,
                    retain: receiver.retain,
                    identifiers: &receiver.identifiers,
                    group: &receiver.group,
                },
            })
            .collect();
        let retention = match retained {
            true => Retention::Retained(None),
            false => Retention::None,
        };
        let refused = self.refused();
        let item = self
            .journal
            .add_message(kept.message(), &mut recipients, retention)
            .map_err(refused)?;
        self.write_some()?;
        Ok(Some(item))
    }

    /// An exchange that has begun.
    fn send(
        &mut self,
        session: SessionNumber,
        item: ItemId,
        exchange: &Exchange,
    ) -> Result<(), StoreError> {
        let refused = self.refused();
        let packet_id = exchange.packet_id;
        self.journal
            .send(session, item, packet_id)
            .map_err(&refused)?;
        if exchange.received {
            self.journal.receive(session, packet_id).map_err(&refused)?;
        }
        Ok(())
    }

    fn write_some(&mut self) -> Result<(), StoreError> {
        match self.journal.backlog() {
            0..BACKLOG_BYTES => Ok(()),
            _ => self.write(),
        }
    }

    /// Writes what waits.
    fn write(&mut self) -> Result<(), StoreError> {
        loop {
            if let Some(file) = self.journal.next_allocation() {
                let made = self.files.allocate(file).map_err(|error| {
                    StoreError::io("make a file in", self.files.directory(), error)
                })?;
                self.open.insert(file, made);
                self.journal.allocated(file, true);
            } else if let Some(write) = self.journal.next_write() {
                let directory = self.files.directory();
                let failed = |error| StoreError::io("write to", directory, error);
                if let Some(file) = self.open.get(&write.file) {
                    file.write_all_at(write.bytes(), u64::from(write.offset))
                        .map_err(failed)?;
                    if write.sync {
                        file.sync_data().map_err(failed)?;
                    }
                }
                self.journal.completed(write, Ok(()));
            } else {
                return Ok(());
            }
        }
    }

    /// Everything is on disk.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.write()?;
        self.journal.seal();
        self.write()?;
        for file in self.open.values() {
            file.sync_all()
                .map_err(|error| StoreError::io("sync", self.files.directory(), error))?;
        }
        self.files.sync()
    }
}

impl Kept {
    /// A message that comes late, for a shard that has not seen it.
    fn forwarded(forward: &RestoredForward, retained: bool, recipients: Vec<Receiver>) -> Self {
        Self {
            item: None,
            recipients,
            ..Self::new(forward.id, &forward.message(), retained, &[])
        }
    }

    fn new(
        item: ItemId,
        message: &StoredMessage<'_>,
        retained: bool,
        recipients: &[Recipient<'_>],
    ) -> Self {
        Self {
            item: Some(item),
            topic: message.topic.into(),
            properties: message.properties.into(),
            payload: message.payload.into(),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            retained,
            recipients: recipients
                .iter()
                .map(|recipient| Receiver {
                    session: recipient.session,
                    qos: recipient.copy.qos,
                    retain: recipient.copy.retain,
                    identifiers: recipient.copy.identifiers.to_vec(),
                    group: recipient.copy.group.into(),
                })
                .collect(),
        }
    }

    fn message(&self) -> StoredMessage<'_> {
        StoredMessage {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
        }
    }
}
