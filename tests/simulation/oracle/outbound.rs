//! Packets from the broker: each must be one that the oracle expects.

use shardmq::time::Time;
use shardmq::wire::{
    Ack, AckKind, ConnAck, Framing, Packet, Publish, ReasonCode, SubAck, UnsubAck, frame,
};

use super::{Expected, Oracle, Sent, Verdict, class, ensure};
use crate::world::Link;

impl Oracle {
    pub(super) fn on_output(&mut self, link: Link, bytes: &[u8]) -> Verdict {
        let Some(conn) = self.conns.get_mut(&link) else {
            return Err(format!("a packet for {link:?}, which is closed"));
        };
        let (version, Some(session)) = (conn.version, conn.session) else {
            return Err(format!("a packet for {link:?} before CONNECT"));
        };
        let Ok(Framing::Packet {
            first_byte, body, ..
        }) = frame(bytes, u32::MAX)
        else {
            return Err("the broker sent no packet".into());
        };
        let packet = Packet::decode(version, first_byte, body)
            .map_err(|violation| format!("the broker sent {bytes:?}: {violation:?}"))?;
        let maximum = self.sessions[session].maximum_packet_size;
        ensure!(
            bytes.len() <= maximum,
            "a packet of {} bytes for {link:?}",
            bytes.len()
        );
        if let Packet::ConnAck(connack) = packet {
            return self.on_connack(link, session, &connack);
        }
        // [MQTT-3.2.0-1] nothing comes before CONNACK.
        ensure!(
            conn.connack.is_none(),
            "{packet:?} for {link:?} before CONNACK"
        );
        ensure!(
            conn.told.is_none(),
            "{packet:?} for {link:?} behind DISCONNECT"
        );
        match packet {
            Packet::Publish(publish) => return self.on_publish_out(link, session, &publish),
            Packet::PubAck(ack) => return self.on_owed(link, AckKind::PubAck, &ack),
            Packet::PubRec(ack) => return self.on_owed(link, AckKind::PubRec, &ack),
            Packet::PubRel(ack) => return self.on_pubrel_out(link, session, &ack),
            Packet::PubComp(ack) => {
                let found = ack.reason == ReasonCode::Success;
                let due = conn.pubcomps.pop_front();
                let found = if version.is_v5() {
                    found
                } else {
                    due.is_some_and(|due| due.1)
                };
                ensure!(
                    due == Some((ack.packet_id.get(), found)),
                    "{ack:?} for {link:?} instead of {due:?}"
                );
            }
            Packet::SubAck(suback) => return self.on_suback(link, session, &suback),
            Packet::UnsubAck(unsuback) => {
                let Some(existed) = conn.unsubacks.remove(&unsuback.packet_id.get()) else {
                    return Err(format!("{unsuback:?} for {link:?} out of nothing"));
                };
                ensure!(
                    !version.is_v5() || unsuback_fits(&unsuback, &existed),
                    "{unsuback:?} for {link:?}, where {existed:?}"
                );
            }
            Packet::PingResp => {
                ensure!(conn.pings > 0, "PINGRESP for {link:?} out of nothing");
                conn.pings -= 1;
            }
            Packet::Disconnect(disconnect) => conn.told = Some(disconnect.reason),
            _ => return Err(format!("the broker sent {packet:?}")),
        }
        Ok(())
    }

    fn on_connack(&mut self, link: Link, session: usize, connack: &ConnAck<'_>) -> Verdict {
        let Some(conn) = self.conns.get_mut(&link) else {
            return Ok(());
        };
        let due = conn.connack.take();
        let client = self.sessions[session].client.clone();
        ensure!(
            connack.reason == ReasonCode::Success,
            "{client} was refused: {connack:?}"
        );
        // [MQTT-3.2.2-2] [MQTT-3.2.2-3]: Session Present tells the truth.
        ensure!(
            due == Some(connack.session_present),
            "{client} was told session present {}, it is {due:?}",
            connack.session_present
        );
        if conn.anonymous {
            let Some(assigned) = connack.properties.assigned_client_identifier else {
                return Err(format!("{link:?} got no client id")); // [MQTT-3.1.3-7]
            };
            ensure!(
                !self.by_client.contains_key(assigned),
                "{assigned} is taken"
            ); // [MQTT-3.1.3-6]
            if self.by_client.remove(&client).is_some() {
                self.by_client.insert(assigned.to_owned(), session);
            }
            self.sessions[session].client = assigned.to_owned();
        }
        Ok(())
    }

    fn on_suback(&mut self, link: Link, session: usize, suback: &SubAck<'_>) -> Verdict {
        let Some(conn) = self.conns.get_mut(&link) else {
            return Ok(());
        };
        let Some(answers) = conn.subacks.remove(&suback.packet_id.get()) else {
            return Err(format!("{suback:?} for {link:?} out of nothing"));
        };
        let due: Vec<u8> = answers.iter().map(|(_, _, qos)| *qos as u8).collect();
        ensure!(
            suback.codes == due,
            "{suback:?} for {link:?} instead of {due:?}"
        );
        for (filter, stamp, _) in answers {
            let subscription = self.sessions[session].subscriptions.get_mut(&filter);
            if let Some(subscription) = subscription
                && subscription.stamp == stamp
            {
                subscription.settled = true;
                self.settle_group(&filter);
            }
        }
        Ok(())
    }

    /// PUBACK and PUBREC: each kind in the order of the PUBLISHes [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    fn on_owed(&mut self, link: Link, kind: AckKind, ack: &Ack<'_>) -> Verdict {
        let overflow = self.queues_overflow();
        let Some(conn) = self.conns.get_mut(&link) else {
            return Ok(());
        };
        let id = ack.packet_id.get();
        let position = conn.owed.iter().position(|owed| owed.kind == kind);
        let Some(owed) = position.and_then(|position| conn.owed.remove(position)) else {
            return Err(format!("{kind:?} {id} for {link:?} out of nothing"));
        };
        ensure!(
            owed.packet_id == id,
            "{kind:?} {id} for {link:?} instead of {}",
            owed.packet_id
        );
        match ack.reason {
            ReasonCode::Success => {}
            ReasonCode::NoMatchingSubscribers => {
                ensure!(!owed.matched, "{link:?} was told that nobody gets {id}");
            }
            ReasonCode::QuotaExceeded => {
                ensure!(overflow, "{link:?} was told of a full queue");
                if kind == AckKind::PubRec
                    && let Some(session) = conn.session
                {
                    self.sessions[session].received.remove(&id);
                }
            }
            reason => return Err(format!("{link:?} was told {reason:?} for {id}")),
        }
        owed.route.map_or(Ok(()), |route| self.check_route(route))
    }

    fn on_pubrel_out(&mut self, link: Link, session: usize, ack: &Ack<'_>) -> Verdict {
        let Some(conn) = self.conns.get_mut(&link) else {
            return Ok(());
        };
        let id = ack.packet_id.get();
        if conn.pubrels.iter().any(|due| due.0 == id) {
            let due = conn.pubrels.pop_front();
            let found = ack.reason == ReasonCode::Success;
            let found = if conn.version.is_v5() {
                found
            } else {
                due.is_some_and(|due| due.1)
            };
            ensure!(
                due == Some((id, found)),
                "{ack:?} for {link:?} instead of {due:?}"
            );
            return Ok(());
        }
        // [MQTT-4.4.0-1]: sent again on a new connection, in its turn.
        self.resent(link, session, id, true).map(|_| ())
    }

    /// A message that was sent on an older connection is sent again.
    fn resent(
        &mut self,
        link: Link,
        session: usize,
        id: u16,
        released: bool,
    ) -> Result<Expected, String> {
        let Self {
            sessions,
            messages,
            now,
            ..
        } = self;
        let client = &sessions[session].client;
        let sent = &sessions[session].sent;
        let Some(at) = sent.iter().position(|sent| sent.packet_id == id) else {
            return Err(format!("{client} gets PUBREL {id} out of nothing"));
        };
        // [MQTT-4.6.0-1] the old order; [MQTT-4.4.0-1] not while the connection lives.
        ensure!(
            sent[at].on != link,
            "{client} gets {id} twice on one connection"
        );
        ensure!(
            sent[at].released == released,
            "{client}: {id} is released: {}",
            !released
        );
        let skipped = sent[..at].iter().find(|sent| sent.on != link);
        let fair = skipped.is_none_or(|skipped| {
            let size = messages[skipped.expected.message].payload.len() + 40;
            size > sessions[session].maximum_packet_size || skipped.expected.expires_at < *now
        });
        ensure!(
            fair,
            "{client} gets {id} again before {:?}",
            skipped.map(|sent| sent.packet_id)
        );
        let sent = &mut sessions[session].sent[at];
        sent.on = link;
        Ok(sent.expected.clone())
    }

    fn on_publish_out(&mut self, link: Link, session: usize, publish: &Publish<'_>) -> Verdict {
        self.counts.publishes_sent += 1;
        let Some(conn) = self.conns.get_mut(&link) else {
            return Ok(());
        };
        let v5 = conn.version.is_v5();
        let topic = match publish.properties.topic_alias {
            None => publish.topic.to_owned(),
            Some(alias) => {
                ensure!(alias <= conn.alias_maximum, "{link:?} gets alias {alias}"); // [MQTT-3.1.2-26]
                if !publish.topic.is_empty() {
                    conn.aliases_out.insert(alias, publish.topic.to_owned());
                }
                let Some(topic) = conn.aliases_out.get(&alias) else {
                    return Err(format!("{link:?} was not told what alias {alias} is"));
                };
                topic.clone()
            }
        };
        let id = publish.packet_id.map(|id| id.get());
        let again = id.filter(|id| {
            self.sessions[session]
                .sent
                .iter()
                .any(|sent| sent.packet_id == *id)
        });
        let expected = match again {
            Some(id) => {
                let expected = self.resent(link, session, id, false)?;
                ensure!(publish.dup, "{link:?} gets {id} again with DUP 0"); // [MQTT-3.3.1-1]
                let same = self.is(expected.message, &topic, publish.payload)
                    && expected.qos == publish.qos
                    && expected.retain == publish.retain;
                ensure!(
                    same,
                    "{link:?}: {id} is another message than before: {publish:?}"
                );
                expected
            }
            None => {
                ensure!(
                    !publish.dup,
                    "{link:?} gets {publish:?} for the first time with DUP 1"
                );
                self.take_new(session, &topic, publish, v5)?
            }
        };
        self.check_expiry(&expected, publish, v5)?;
        if let (Some(packet_id), None) = (id, again) {
            // Everything old is sent again before anything new.
            let old = self.sessions[session]
                .sent
                .iter()
                .find(|sent| sent.on != link)
                .cloned();
            if let Some(old) = old {
                ensure!(
                    self.is_too_large(session, &old.expected),
                    "{link:?} gets {packet_id} before {} is sent again",
                    old.packet_id
                );
            }
            let state = &mut self.sessions[session];
            state.sent.push(Sent {
                packet_id,
                expected,
                released: false,
                on: link,
            });
        }
        let in_flight = self.sessions[session]
            .sent
            .iter()
            .filter(|sent| sent.on == link)
            .count();
        let quota = self.conns.get(&link).map_or(0, |conn| conn.receive_maximum);
        // [MQTT-3.3.4-9]
        ensure!(
            id.is_none() || in_flight <= quota,
            "{link:?} has {in_flight} of {quota} in flight"
        );
        Ok(())
    }

    fn check_expiry(&self, expected: &Expected, publish: &Publish<'_>, v5: bool) -> Verdict {
        let left = (expected.expires_at != Time::NEVER && v5).then(|| {
            expected
                .expires_at
                .micros_since(self.now)
                .div_ceil(1_000_000) as u32
        });
        let said = publish.properties.message_expiry_interval;
        ensure!(said == left, "{publish:?} lives for {left:?}"); // [MQTT-3.3.2-6]
        Ok(())
    }

    /// A PUBLISH that was not sent before must be the next one that is due, or a retained one, or
    /// one from a group.
    fn take_new(
        &mut self,
        session: usize,
        topic: &str,
        publish: &Publish<'_>,
        v5: bool,
    ) -> Result<Expected, String> {
        let mut identifiers: Vec<u32> =
            publish.properties.subscription_identifiers.iter().collect();
        identifiers.sort_unstable();
        let class = class(publish.qos);
        let position = self.sessions[session].waiting[class]
            .iter()
            .position(|expected| {
                self.is(expected.message, topic, publish.payload)
                    && expected.qos == publish.qos
                    && expected.retain == publish.retain
                    && (!v5 || expected.identifiers == identifiers)
                    && self.check_expiry(expected, publish, v5).is_ok()
                    && expected.expires_at >= self.now // [MQTT-3.3.2-5]
            });
        // A message can be due live and retained, and look the same both ways: then it is the live
        // one only if what stands before that has a reason of its own not to come.
        let unsure = self.drops_at_will(class);
        let next = position.is_some_and(|position| {
            let mut before = self.sessions[session].waiting[class].iter().take(position);
            position == 0 || (!unsure && before.all(|expected| self.may_drop(session, expected)))
        });
        if publish.retain && !next {
            let said = v5.then_some(&identifiers[..]);
            let replayed =
                self.take_replayed(session, topic, publish.payload, publish.qos, said)?;
            if let Some(expected) = replayed {
                if let Some(position) = position {
                    self.counts.inexact |= unsure;
                    let live = self.sessions[session].waiting[class][position].clone();
                    self.sessions[session].either.push(live);
                }
                return Ok(expected);
            }
            // It was the live one before, and this is the retained one.
            let state = &mut self.sessions[session];
            let either = state.either.iter().position(|live| {
                let message = &self.messages[live.message];
                message.topic == topic && message.payload == publish.payload
            });
            if let (Some(either), None) = (either, position) {
                return Ok(state.either.swap_remove(either));
            }
        }
        if let Some(position) = position {
            return self.take_expected(session, class, position);
        }
        let (qos, retain) = (publish.qos, publish.retain);
        if let Some(expected) = self.take_shared(session, topic, publish.payload, qos, retain) {
            return Ok(expected);
        }
        let near: Vec<&Expected> = self.sessions[session]
            .waiting
            .iter()
            .flatten()
            .filter(|expected| self.is(expected.message, topic, publish.payload))
            .collect();
        Err(format!(
            "{} gets {publish:?} on {topic}, which it did not ask for; expected is {near:?}",
            self.sessions[session].client
        ))
    }

    fn take_expected(
        &mut self,
        session: usize,
        class: usize,
        position: usize,
    ) -> Result<Expected, String> {
        let waiting = &mut self.sessions[session].waiting[class];
        let Some(expected) = waiting.remove(position) else {
            return Err("a message is gone".into());
        };
        let skipped: Vec<Expected> = waiting.drain(..position).collect();
        let mut later = Vec::new();
        for skipped in skipped {
            if skipped.optional && expected.optional {
                later.push(skipped);
            } else {
                self.drop_expected(session, &skipped)?;
            }
        }
        for entry in later.into_iter().rev() {
            self.sessions[session].waiting[class].push_front(entry);
        }
        let message = &self.messages[expected.message];
        if message.retain {
            let key = (message.topic.clone(), class);
            self.sessions[session]
                .latest
                .insert(key, (expected.serial, expected.stamp));
        }
        Ok(expected)
    }
}

fn unsuback_fits(unsuback: &UnsubAck<'_>, existed: &[bool]) -> bool {
    unsuback
        .reasons()
        .map(|reason| reason == ReasonCode::Success)
        .eq(existed.iter().copied())
}
