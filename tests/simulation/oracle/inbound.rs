//! Packets from clients, at the moment a shard works them off.

use shardmq::session::NEVER_EXPIRES;
use shardmq::time::Time;
use shardmq::wire::{
    AckKind, Connect, Framing, Packet, Publish, QoS, ReasonCode, RetainHandling, Subscribe,
    Unsubscribe, Version, frame,
};

use super::{End, Oracle, Owed, Replay, Session, Subscription, Verdict, Will, ensure};
use crate::world::Link;

impl Oracle {
    pub(super) fn on_packet(&mut self, link: Link, shard: usize, bytes: &[u8]) -> Verdict {
        self.counts.packets_received += 1;
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&link) else {
            return Err(format!(
                "{link:?} is not open, and the broker reads from it"
            ));
        };
        ensure!(conn.shard == shard, "{link:?} is not on shard {shard}");
        conn.last_packet = now;
        let (version, session) = (conn.version, conn.session);
        let Ok(Framing::Packet {
            first_byte, body, ..
        }) = frame(bytes, u32::MAX)
        else {
            return Err("a client sent no packet".into());
        };
        let packet = Packet::decode(version, first_byte, body)
            .map_err(|violation| format!("a client is wrong: {violation:?}"))?;
        if let Packet::Connect(connect) = packet {
            return self.on_connect(link, shard, &connect);
        }
        let Some(session) = session else {
            return Err(format!("{link:?} sent {packet:?} before CONNECT"));
        };
        match packet {
            Packet::Publish(publish) => self.on_publish(link, session, &publish)?,
            Packet::PubAck(ack) => {
                self.sessions[session].sent.retain(|sent| {
                    sent.packet_id != ack.packet_id.get() || sent.expected.qos != QoS::AtLeastOnce
                });
            }
            Packet::PubRec(ack) => self.on_pubrec(link, session, ack.packet_id.get(), ack.reason),
            Packet::PubRel(ack) => {
                let id = ack.packet_id.get();
                let found = self.sessions[session].received.remove(&id);
                if let Some(conn) = self.conns.get_mut(&link) {
                    conn.pubcomps.push_back((id, found));
                }
            }
            Packet::PubComp(ack) => {
                let id = ack.packet_id.get();
                self.sessions[session]
                    .sent
                    .retain(|sent| sent.packet_id != id || !sent.released);
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(link, session, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(link, session, &unsubscribe),
            Packet::PingReq => {
                if let Some(conn) = self.conns.get_mut(&link) {
                    conn.pings += 1;
                }
            }
            Packet::Disconnect(disconnect) => {
                if let Some(interval) = disconnect.session_expiry_interval {
                    self.sessions[session].expiry = interval;
                }
                // [MQTT-3.1.2-10] [MQTT-3.14.4-3]: only 0x00 takes the will back.
                self.close(link, End::Silent, disconnect.reason == ReasonCode::Success);
            }
            _ => return Err(format!("a client sent {packet:?}")),
        }
        Ok(())
    }

    fn on_connect(&mut self, link: Link, shard: usize, connect: &Connect<'_>) -> Verdict {
        let anonymous = connect.client_id.is_empty();
        let client = if anonymous {
            format!("?{}", link.0)
        } else {
            connect.client_id.to_owned()
        };
        ensure!(
            anonymous || self.home(&client) == shard,
            "{client} was taken by shard {shard}, which is not its home"
        );
        // [MQTT-3.1.4-3] [MQTT-3.1.4-2 3.1.1]
        if let Some(&old) = self.by_client.get(&client)
            && let Some(old_link) = self.sessions[old].conn
        {
            self.counts.takeovers += 1;
            self.close(old_link, End::Told(ReasonCode::SessionTakenOver), false);
        }
        let mut present = false;
        if let Some(&old) = self.by_client.get(&client) {
            if connect.clean_start || self.sessions[old].expires_at <= self.now {
                self.end_session(old); // [MQTT-3.1.2-4]
            } else {
                present = true; // [MQTT-3.2.2-3]
            }
        }
        let key = match self.by_client.get(&client) {
            Some(&key) => key,
            None => {
                self.sessions.push(Session {
                    client: client.clone(),
                    shard,
                    ..Session::default()
                });
                self.by_client.insert(client, self.sessions.len() - 1);
                self.sessions.len() - 1
            }
        };
        let will = connect.will.map(|will| Will {
            message: self.intern(will.topic.as_str(), will.payload, will.qos, will.retain),
            delay: will.delay_interval,
        });
        let session = &mut self.sessions[key];
        session.conn = Some(link);
        session.expiry = match (connect.version, connect.clean_start) {
            (Version::V5, _) => connect.properties.session_expiry_interval.unwrap_or(0),
            (_, true) => 0,
            (_, false) => NEVER_EXPIRES,
        };
        session.expires_at = Time::NEVER;
        session.will = will;
        session.will_at = Time::NEVER;
        session.maximum_packet_size = connect
            .properties
            .maximum_packet_size
            .map_or(usize::MAX, |size| size as usize);
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.session = Some(key);
            conn.version = connect.version;
            conn.anonymous = anonymous;
            conn.connack = Some(present);
            conn.keep_alive_us = u64::from(connect.keep_alive) * 1_500_000;
            let maximum = connect.properties.receive_maximum.unwrap_or(u16::MAX);
            conn.receive_maximum = maximum.min(self.settings.max_inflight).into();
            conn.alias_maximum = connect.properties.topic_alias_maximum;
        }
        Ok(())
    }

    fn on_publish(&mut self, link: Link, session: usize, publish: &Publish<'_>) -> Verdict {
        self.counts.publishes_received += 1;
        let Some(conn) = self.conns.get_mut(&link) else {
            return Ok(());
        };
        let topic = match publish.properties.topic_alias {
            Some(alias) if publish.topic.is_empty() => {
                conn.aliases_in.get(&alias).cloned().unwrap_or_default()
            }
            Some(alias) => {
                conn.aliases_in.insert(alias, publish.topic.to_owned());
                publish.topic.to_owned()
            }
            None => publish.topic.to_owned(),
        };
        let mut owed = None;
        if let Some(id) = publish.packet_id.map(|id| id.get()) {
            let kind = if publish.qos == QoS::AtLeastOnce {
                AckKind::PubAck
            } else {
                AckKind::PubRec
            };
            owed = Some((kind, id));
            // [MQTT-4.3.3-10]: answered, not delivered again.
            if kind == AckKind::PubRec && !self.sessions[session].received.insert(id) {
                conn.owed.push_back(Owed {
                    kind,
                    packet_id: id,
                    route: None,
                    matched: true,
                });
                return Ok(());
            }
        }
        let expires_at = publish
            .properties
            .message_expiry_interval
            .map_or(Time::NEVER, |seconds| self.now.plus_secs(seconds.into()));
        let message = self.intern(&topic, publish.payload, publish.qos, publish.retain);
        let shard = self.sessions[session].shard;
        let (route, matched) = self.publish(shard, Some(session), message, expires_at, false);
        if let (Some((kind, packet_id)), Some(conn)) = (owed, self.conns.get_mut(&link)) {
            conn.owed.push_back(Owed {
                kind,
                packet_id,
                route: Some(route),
                matched,
            });
        }
        Ok(())
    }

    fn on_pubrec(&mut self, link: Link, session: usize, id: u16, reason: ReasonCode) {
        let sent = &mut self.sessions[session].sent;
        if reason.is_error() {
            sent.retain(|sent| {
                sent.packet_id != id || sent.released || sent.expected.qos != QoS::ExactlyOnce
            });
            return;
        }
        let known = sent
            .iter_mut()
            .find(|sent| sent.packet_id == id && sent.expected.qos == QoS::ExactlyOnce);
        let found = known.is_some();
        if let Some(sent) = known {
            sent.released = true;
        }
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.pubrels.push_back((id, found));
        }
    }

    fn on_subscribe(&mut self, link: Link, key: usize, subscribe: &Subscribe<'_>) {
        let identifier = subscribe.subscription_identifier.unwrap_or(0);
        let mut answers = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            self.stamp += 1;
            let stamp = self.stamp;
            let session = &mut self.sessions[key];
            let subscription = Subscription {
                options,
                identifier,
                settled: false,
                stamp,
            };
            let old = session
                .subscriptions
                .insert(filter.to_owned(), subscription);
            answers.push((filter.to_owned(), stamp, options.qos));
            // What other shards know does not end with a change of options.
            let settled = old.as_ref().is_some_and(|old| old.settled);
            if let Some(subscription) = session.subscriptions.get_mut(filter) {
                subscription.settled = settled;
            }
            if super::shared_filter(filter).is_some() {
                session.shares.insert((filter.to_owned(), options.qos));
                self.found_group(filter);
                continue;
            }
            let sends = match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => old.is_none(),
                RetainHandling::DoNotSend => false,
            };
            if sends {
                session.cancel_replays(Some(filter), stamp);
                session.replays.push(Replay {
                    filter: filter.to_owned(),
                    qos: options.qos,
                    identifier,
                    start: stamp,
                    cancelled: None,
                    seen: Default::default(),
                });
            }
        }
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.subacks.insert(subscribe.packet_id.get(), answers);
        }
    }

    fn on_unsubscribe(&mut self, link: Link, key: usize, unsubscribe: &Unsubscribe<'_>) {
        let mut existed = Vec::new();
        let stamp = self.stamp;
        for filter in unsubscribe.filters.iter() {
            let session = &mut self.sessions[key];
            existed.push(session.subscriptions.remove(filter).is_some());
            session.cancel_replays(Some(filter), stamp);
            self.leave_group(filter);
        }
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.unsubacks.insert(unsubscribe.packet_id.get(), existed);
        }
    }
}

impl Session {
    /// What a replay has queued already may still come; no more is added to it.
    pub(super) fn cancel_replays(&mut self, filter: Option<&str>, stamp: u64) {
        for replay in &mut self.replays {
            if filter.is_none_or(|filter| replay.filter == filter) {
                replay.cancelled.get_or_insert(stamp);
            }
        }
    }
}
