//! What one journal holds, as values: read from it strictly or leniently, and put into another one.

use std::collections::{HashMap, HashSet};

use crate::journal::{
    ItemId, OwnedMessage, Recipient, Recovered, RestoredForward, RestoredSession, Salvaged,
    SessionNumber, StoredMessage, Sync,
};
use crate::wire::{PacketId, QoS};

use super::files::Files;
use super::{StoreError, forwards};

/// Sessions, and messages in their order.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Their lists of messages and exchanges are empty: the messages know.
    pub(super) sessions: Vec<RestoredSession>,
    pub(super) messages: Vec<Kept>,
    /// What was on its way to other shards, and what came from them: see `forwards`.
    pub(super) forwards: Vec<RestoredForward>,
    pub(super) origins: Vec<(ItemId, u32, ItemId)>,
}

/// A message, or the place of one in the order.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    item: ItemId,
    /// `None`: everybody who waits here has it, and is owed PUBREL alone.
    pub(super) body: Option<OwnedMessage>,
    pub(super) retained: bool,
    pub(super) receivers: Vec<Receiver>,
}

/// A session that a message waits for, and how it gets it.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    /// Which of the sessions.
    pub(super) session: usize,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Vec<u32>,
    pub(super) group: Box<str>,
    pub(super) exchange: Option<Begun>,
}

/// A QoS 2 exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) packet_id: PacketId,
    /// Whether PUBREC came.
    pub(super) received: bool,
}

/// Older things in a damaged journal that something younger was there for already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Superseded {
    /// Sessions of a client that has a younger one.
    pub sessions: usize,
    /// Retained messages of a topic that has a younger one.
    pub retained: usize,
    /// Subscriptions, held packet identifiers and exchanges.
    pub rest: usize,
}

impl Content {
    /// Everything of all journals of a layout, with what was on its way between them.
    pub(super) fn read_all(journals: &[Files]) -> Result<Vec<Self>, StoreError> {
        let contents = journals.iter().map(Self::read);
        let mut contents: Vec<Self> = contents.collect::<Result<_, _>>()?;
        forwards::deliver(&mut contents);
        Ok(contents)
    }

    /// A message comes. As the retained one of its topic it takes the place of the one before, or, without
    /// a payload, only removes that.
    pub(super) fn arrive(&mut self, mut kept: Kept, retained: bool) {
        if let Some(body) = kept.body.as_ref().filter(|_| retained) {
            let same = |other: &Kept| {
                let other = other.body.as_ref();
                other.is_some_and(|other| other.topic == body.topic)
            };
            for older in self.messages.iter_mut().filter(|kept| kept.retained) {
                older.retained = !same(older);
            }
            kept.retained = !body.payload.is_empty();
            self.messages
                .retain(|kept| kept.retained || !kept.receivers.is_empty());
        }
        if kept.retained || !kept.receivers.is_empty() {
            self.messages.push(kept);
        }
    }

    /// Everything of a journal.
    fn read(files: &Files) -> Result<Self, StoreError> {
        let mut messages = Vec::new();
        let (_, recovered) =
            files.load_with(Sync::Always, |item, message, retained, recipients| {
                messages.push(Kept::new(item, &message, retained, recipients));
            })?;
        Ok(Self::new(recovered, messages))
    }

    /// Whatever can be read of a damaged journal, without contradictions; also the bytes of the records
    /// that live.
    pub(super) fn salvaged(
        files: &Files,
        salvaged: &mut Salvaged,
    ) -> Result<(Self, Superseded, u64), StoreError> {
        let mut messages = Vec::new();
        let mut living = 0;
        for file in salvaged.files() {
            let bytes = files.bytes(file)?;
            living += salvaged.each_message(file, &bytes, |item, message, retained, recipients| {
                messages.push(Kept::new(item, &message, retained, recipients));
            });
        }
        let recovered = std::mem::take(&mut salvaged.recovered);
        let mut content = Self::new(recovered, messages);
        let superseded = content.tidy(|session| salvaged.began(session));
        Ok((content, superseded, living))
    }

    fn new(recovered: Recovered, mut messages: Vec<Kept>) -> Self {
        let mut sessions = recovered.sessions;
        let mut exchanges = HashMap::new();
        let mut places = HashMap::new();
        for (index, session) in sessions.iter_mut().enumerate() {
            places.insert(session.session, index);
            session.messages = Vec::new();
            for exchange in std::mem::take(&mut session.exchanges) {
                let begun = Begun {
                    packet_id: exchange.packet_id,
                    received: exchange.received,
                };
                exchanges.insert((index, exchange.message), begun);
            }
        }
        for kept in &mut messages {
            for receiver in &mut kept.receivers {
                // Recipients live, so their sessions do.
                let number = SessionNumber(receiver.session as u32);
                receiver.session = places.get(&number).copied().unwrap_or(usize::MAX);
                receiver.exchange = exchanges.remove(&(receiver.session, kept.item));
            }
        }
        messages.sort_unstable_by_key(|kept| kept.item);
        // What is left: PUBREC came, so the session does not wait for the message.
        let mut rest: Vec<_> = exchanges.into_iter().collect();
        rest.sort_unstable_by_key(|((session, item), _)| (*item, *session));
        let mut places: Vec<Kept> = Vec::new();
        for ((session, item), begun) in rest {
            let receiver = Receiver {
                session,
                qos: QoS::ExactlyOnce,
                retain: false,
                identifiers: Vec::new(),
                group: "".into(),
                exchange: Some(begun),
            };
            if let Ok(at) = messages.binary_search_by_key(&item, |kept| kept.item) {
                messages[at].receivers.push(receiver);
            } else if let Some(place) = places.last_mut().filter(|place| place.item == item) {
                place.receivers.push(receiver);
            } else {
                places.push(Kept {
                    item,
                    body: None,
                    retained: false,
                    receivers: vec![receiver],
                });
            }
        }
        messages.append(&mut places);
        messages.sort_by_key(|kept| kept.item);
        Self {
            sessions,
            messages,
            forwards: recovered.forwards,
            origins: recovered.origins,
        }
    }

    /// Takes out what a journal that lacks nothing cannot hold: two sessions of a client, two retained
    /// messages of a topic and the like. The younger one stays.
    fn tidy(&mut self, began: impl Fn(SessionNumber) -> Option<ItemId>) -> Superseded {
        let mut superseded = Superseded::default();
        let mut order: Vec<usize> = (0..self.sessions.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(began(self.sessions[index].session)));
        let mut clients = HashSet::new();
        let mut gone = HashSet::new();
        for index in order {
            let session = &mut self.sessions[index];
            superseded.rest += session.tidy();
            if !clients.insert(session.client_id.clone()) {
                gone.insert(index);
            }
        }
        superseded.sessions = gone.len();
        let mut topics: HashSet<Box<str>> = HashSet::new();
        let mut identifiers = HashSet::new();
        for kept in self.messages.iter_mut().rev() {
            kept.receivers
                .retain(|receiver| !gone.contains(&receiver.session));
            for receiver in &mut kept.receivers {
                if let Some(begun) = receiver.exchange
                    && !identifiers.insert((receiver.session, begun.packet_id))
                {
                    receiver.exchange = None;
                    superseded.rest += 1;
                }
            }
            if let Some(body) = &kept.body
                && kept.retained
                && !topics.insert(body.topic.clone())
            {
                kept.retained = false;
                superseded.retained += 1;
            }
            if kept.body.is_none() {
                kept.receivers
                    .retain(|receiver| receiver.exchange.is_some());
            }
        }
        self.messages
            .retain(|kept| kept.retained || !kept.receivers.is_empty());
        if !gone.is_empty() {
            self.renumber(&gone);
        }
        superseded
    }

    /// The sessions of these indices are gone.
    fn renumber(&mut self, gone: &HashSet<usize>) {
        let mut next = 0;
        let places: Vec<usize> = (0..self.sessions.len())
            .map(|index| {
                let place = next;
                next += usize::from(!gone.contains(&index));
                place
            })
            .collect();
        let mut index = 0;
        self.sessions.retain(|_| {
            index += 1;
            !gone.contains(&(index - 1))
        });
        for receiver in self
            .messages
            .iter_mut()
            .flat_map(|kept| &mut kept.receivers)
        {
            receiver.session = places[receiver.session];
        }
    }
}

/// What of one session contradicts itself.
trait Tidy {
    fn tidy(&mut self) -> usize;
}

impl Tidy for RestoredSession {
    fn tidy(&mut self) -> usize {
        let before = self.subscriptions.len() + self.held.len();
        let mut filters = HashSet::new();
        self.subscriptions.reverse(); // the youngest first
        self.subscriptions
            .retain(|subscription| filters.insert(subscription.filter.clone()));
        self.subscriptions.reverse();
        self.held.dedup();
        before - self.subscriptions.len() - self.held.len()
    }
}

impl Kept {
    /// A message that does not come from a journal.
    pub(super) fn made(
        body: Option<OwnedMessage>,
        retained: bool,
        receivers: Vec<Receiver>,
    ) -> Self {
        Self {
            item: ItemId(0),
            body,
            retained,
            receivers,
        }
    }

    fn new(
        item: ItemId,
        message: &StoredMessage<'_>,
        retained: bool,
        recipients: &[Recipient<'_>],
    ) -> Self {
        let receiver = |recipient: &Recipient<'_>| Receiver {
            session: recipient.session.0 as usize, // its number, until its place is known
            qos: recipient.copy.qos,
            retain: recipient.copy.retain,
            identifiers: recipient.copy.identifiers.to_vec(),
            group: recipient.copy.group.into(),
            exchange: None,
        };
        Self {
            item,
            body: Some(OwnedMessage::from(message)),
            retained,
            receivers: recipients.iter().map(receiver).collect(),
        }
    }
}

impl Receiver {
    /// Whether it has not got the message.
    pub(super) fn waits(&self) -> bool {
        self.exchange.is_none_or(|begun| !begun.received)
    }
}
