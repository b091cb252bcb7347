//! Shared subscriptions: each message to one member, whoever it is.

use std::collections::BTreeMap;

use shardmq::wire::QoS;

use super::{Expected, Oracle, Sent, Verdict, ensure, matches, shared_filter};

/// A shared subscription.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The last moment at which nobody was sure to be a member.
    empty_at: u64,
    messages: BTreeMap<usize, Shared>,
}

/// A message to a group.
#[derive(Debug, Default)]
struct Shared {
    /// When each of its ways began.
    ways: Vec<u64>,
    /// To how many members it was sent, repetitions on a new connection aside.
    outputs: usize,
    /// How many of those ended without an acknowledgement of QoS 1: it passes to another.
    left: usize,
    /// How many of those ended and keep it.
    kept: usize,
}

impl Oracle {
    /// A message is for one member of every matching group. Whether one is sure to be there.
    pub(super) fn publish_shared(&mut self, message: usize) -> bool {
        let stamp = self.stamp;
        let topic = self.messages[message].topic.clone();
        let mut matched = false;
        for (name, group) in &mut self.groups {
            if shared_filter(name).is_some_and(|filter| matches(filter, &topic)) {
                group.messages.entry(message).or_default().ways.push(stamp);
                self.counts.shared += 1;
                matched |= group.empty_at < stamp;
            }
        }
        matched
    }

    /// SUBACK has left: everybody knows of the member.
    pub(super) fn settle_group(&mut self, name: &str) {
        if shared_filter(name).is_some() {
            let stamp = self.stamp;
            let group = self.groups.entry(name.to_owned()).or_default();
            if group.empty_at == u64::MAX || group.empty_at == 0 {
                group.empty_at = stamp;
            }
        }
    }

    /// Somebody has asked to become a member: messages may come to it from now on.
    pub(super) fn found_group(&mut self, name: &str) {
        if shared_filter(name).is_some() {
            self.groups.entry(name.to_owned()).or_insert_with(|| Group {
                empty_at: u64::MAX,
                ..Group::default()
            });
        }
    }

    /// Somebody gave up its share.
    pub(super) fn leave_group(&mut self, name: &str) {
        let stays = self.by_client.values().any(|&session| {
            let subscription = self.sessions[session].subscriptions.get(name);
            subscription.is_some_and(|subscription| subscription.settled)
        });
        if let Some(group) = self.groups.get_mut(name)
            && !stays
        {
            group.empty_at = u64::MAX;
        }
    }

    /// A PUBLISH to a session that has or had a share: is it one of a group's?
    pub(super) fn take_shared(
        &mut self,
        session: usize,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Option<Expected> {
        let state = &self.sessions[session];
        if retain {
            return None;
        }
        let message = *self.known.get(payload)?;
        if self.messages[message].topic != topic {
            return None;
        }
        let name = state.shares.iter().find_map(|(name, granted)| {
            (matches(shared_filter(name)?, topic)
                && qos == self.messages[message].qos.min(*granted)
                && self.groups.get(name)?.messages.contains_key(&message))
            .then(|| name.clone())
        })?;
        let shared = self.groups.get_mut(&name)?.messages.get_mut(&message)?;
        shared.outputs += 1;
        Some(Expected {
            message,
            serial: 0,
            stamp: 0,
            qos,
            retain,
            identifiers: Vec::new(),
            expires_at: shardmq::time::Time::NEVER,
            optional: false,
            group: Some(name),
        })
    }

    /// A member's session ended with this message not acknowledged.
    pub(super) fn left_by_member(&mut self, sent: &Sent) {
        let Some(name) = &sent.expected.group else {
            return;
        };
        let shared = self
            .groups
            .get_mut(name)
            .and_then(|group| group.messages.get_mut(&sent.expected.message));
        if let Some(shared) = shared {
            if sent.expected.qos == QoS::AtLeastOnce {
                shared.left += 1;
            } else {
                shared.kept += 1; // [MQTT-4.8.2-5]
            }
            self.counts.shared_left += 1;
        }
    }

    /// At rest: no message went to more members than it may, nor, where it was sure to find one and
    /// everybody has read what waits, to fewer.
    pub(super) fn check_groups(&mut self, everybody_read: bool) -> Verdict {
        let overflow = self.queues_overflow();
        for (name, group) in &mut self.groups {
            for (message, shared) in &group.messages {
                let message = &self.messages[*message];
                let text = format!(
                    "{} {}",
                    message.topic,
                    String::from_utf8_lossy(&message.payload)
                );
                let most = shared.ways.len() + shared.left;
                ensure!(
                    shared.outputs <= most,
                    "{name} got {text} {} times, {most} at most",
                    shared.outputs
                );
                let sure = shared
                    .ways
                    .iter()
                    .filter(|&&way| way > group.empty_at)
                    .count();
                let left = if sure == shared.ways.len() {
                    shared.left
                } else {
                    0
                };
                if !everybody_read || overflow || message.qos == QoS::AtMostOnce || sure == 0 {
                    continue;
                }
                ensure!(
                    shared.outputs >= sure + left,
                    "{name} got {text} {} times, {sure} + {left} at least",
                    shared.outputs
                );
            }
            if everybody_read {
                group.messages.clear();
            }
        }
        Ok(())
    }
}
