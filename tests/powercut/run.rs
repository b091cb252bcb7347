//! One seed: clients and a broker, crash after crash, and the reckoning.

use std::collections::BTreeMap;

use shardmq::wire::{Framing, Packet, frame};

use crate::asker::{Asker, STILL, still};
use crate::broker::{Broker, Cut};
use crate::clients::{Publisher, Subscriber, VERSION, ack, connect, numbers, subscribe};
use crate::mutation::Bug;

const PUBLISHERS: usize = 3;
const SUBSCRIBERS: usize = 3;
const ASKERS: usize = 2;
/// Clients that come and go.
const CLIENTS: usize = PUBLISHERS + SUBSCRIBERS + ASKERS;
/// The client that makes what is retained from the beginning, and looks at what is in the end.
const LOOKER: usize = CLIENTS;

/// Crashes of one seed.
const CRASHES: u64 = 20;

/// Steps after which a run that does not come to its end is stuck.
const STEPS: usize = 200_000;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// Shards are backed up one after the other, and not at one moment.
    pub scattered: bool,
}

/// What happened, to be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub crashes: u64,
    pub acknowledged: u64,
    pub forwarded: u64,
    pub moves: u64,
    pub backups: u64,
    pub fetched: u64,
    /// Subscriptions that brought all that was retained.
    pub replays: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.acknowledged += other.acknowledged;
        self.forwarded += other.forwarded;
        self.moves += other.moves;
        self.backups += other.backups;
        self.fetched += other.fetched;
        self.replays += other.replays;
    }
}

struct World {
    broker: Broker,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    askers: Vec<Asker>,
    /// Messages of the looker that were acknowledged.
    kept: usize,
    /// Clients that had a CONNACK once: their sessions must be there.
    known: Vec<bool>,
    /// Clients whose CONNACK has come on the present connection.
    welcome: Vec<bool>,
    subscribed: Vec<bool>,
    retained: BTreeMap<String, Vec<u8>>,
    wrong: Option<String>,
}

pub fn run(plan: Plan) -> Result<Summary, String> {
    let mut world = World {
        broker: Broker::new(plan.seed, LOOKER + 1, plan.bug),
        publishers: (0..PUBLISHERS as u32).map(Publisher::new).collect(),
        subscribers: (0..SUBSCRIBERS as u32).map(Subscriber::new).collect(),
        askers: (0..ASKERS).map(Asker::new).collect(),
        kept: 0,
        known: vec![false; LOOKER + 1],
        welcome: vec![false; LOOKER + 1],
        subscribed: vec![false; SUBSCRIBERS],
        retained: BTreeMap::new(),
        wrong: None,
    };
    world.broker.start()?;
    world.until(|world| {
        world.meet(LOOKER);
        world.kept == STILL
    })?;
    // Nobody else publishes before all have subscribed.
    world.until(|world| {
        for subscriber in 0..SUBSCRIBERS {
            world.meet(PUBLISHERS + subscriber);
        }
        world.subscribed.iter().all(|&subscribed| subscribed)
    })?;
    let mut backups = 0;
    for _ in 0..CRASHES {
        if world.broker.random.chance(15) {
            world.live_and_back_up(plan.scattered)?;
            backups += 1;
        } else {
            world.live();
            world.crash()?;
        }
    }
    world.broker.fuse = usize::MAX;
    world.finish()?;
    world.compare()?;
    let acknowledged = world
        .publishers
        .iter()
        .map(|one| one.acknowledged.len() as u64);
    Ok(Summary {
        crashes: CRASHES,
        acknowledged: acknowledged.sum(),
        forwarded: world.broker.forwarded,
        moves: world.broker.moves,
        backups,
        fetched: world.broker.fetched,
        replays: world.askers.iter().map(|asker| asker.replays).sum(),
    })
}

impl World {
    /// Works until the power goes.
    fn live(&mut self) {
        let random = &mut self.broker.random;
        self.broker.fuse = 1 + match random.below(3) {
            0 => random.below(8),
            1 => random.below(40),
            _ => random.below(160),
        };
        self.live_for(STEPS);
    }

    /// Works so many steps, or until the power goes.
    fn live_for(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.broker.random.chance(30) {
                let client = self.broker.random.below(CLIENTS);
                self.meet(client);
            }
            if self.step(u32::MAX).is_err() || self.wrong.is_some() {
                return;
            }
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        self.part()?;
        self.broker.cut();
        self.welcome.fill(false);
        self.broker.start()
    }

    /// In the place of a crash: a backup is taken under load, and whatever was there but for it is lost the
    /// moment it is complete. So clients know of nothing that it must not have.
    fn live_and_back_up(&mut self, scattered: bool) -> Result<(), String> {
        self.broker.fuse = usize::MAX;
        let steps = self.broker.random.below(1_500);
        self.live_for(steps);
        self.broker.begin_backup();
        self.until_with(u32::MAX, &mut |world| world.broker.has_backup(scattered))?;
        self.part()?;
        self.broker.become_backup();
        self.welcome.fill(false);
        self.broker.start()
    }

    /// Whatever has left the broker comes to the clients, or does not.
    fn part(&mut self) -> Result<(), String> {
        // What has come to a client is there, whether the broker is or not.
        for client in 0..=LOOKER {
            if self.broker.random.chance(70) {
                self.hear(client);
            }
            self.broker.sockets[client].to_client.clear();
        }
        self.wrong.take().map_or(Ok(()), Err)
    }

    /// A step of somebody: a shard, a disk, or a client.
    fn step(&mut self, last: u32) -> Result<(), Cut> {
        let broker = &mut self.broker;
        broker.now = broker.now.plus_micros(50);
        let shard = broker.random.below(broker.shards());
        match broker.random.below(4) {
            0 => broker.turn(shard),
            1 => broker.work_on_disk(shard)?,
            _ => {
                let client = broker.random.below(LOOKER + 1);
                self.hear(client);
                if client < PUBLISHERS && self.welcome[client] {
                    let out = &mut self.broker.sockets[client].to_broker;
                    self.publishers[client].work(last, out);
                }
            }
        }
        Ok(())
    }

    /// A client connects, if it is not connected.
    fn meet(&mut self, client: usize) {
        if !self.broker.is_connected(client) {
            self.broker
                .connect(client, connect(&format!("client-{client}")));
        }
    }

    /// A client reads what has come, and answers.
    fn hear(&mut self, client: usize) {
        let bytes = std::mem::take(&mut self.broker.sockets[client].to_client);
        let mut at = 0;
        while let Ok(Framing::Packet {
            first_byte,
            body,
            size,
        }) = frame(&bytes[at..], u32::MAX)
        {
            at += size;
            let packet = Packet::decode(VERSION, first_byte, body).expect("the broker's packets");
            self.take(client, &packet);
        }
        assert_eq!(at, bytes.len(), "whole packets");
    }

    fn take(&mut self, client: usize, packet: &Packet<'_>) {
        let out = &mut self.broker.sockets[client].to_broker;
        match packet {
            Packet::ConnAck(connack) => {
                if self.known[client] && !connack.session_present {
                    self.wrong = Some(format!("the session of client {client} is lost"));
                }
                self.known[client] = true;
                self.welcome[client] = true;
                if client < PUBLISHERS {
                    self.publishers[client].resume(out);
                } else if client == LOOKER && self.kept < STILL {
                    (0..STILL).for_each(|number| still(number, out));
                } else if client == LOOKER {
                    out.extend(subscribe("load/#", 0));
                } else if client >= PUBLISHERS + SUBSCRIBERS {
                    self.askers[client - PUBLISHERS - SUBSCRIBERS].resume(out);
                } else if !self.subscribed[client - PUBLISHERS] {
                    out.extend(subscribe("load/#", 2));
                }
            }
            Packet::SubAck(_) if client < PUBLISHERS + SUBSCRIBERS => {
                self.subscribed[client - PUBLISHERS] = true;
            }
            Packet::SubAck(_) if client == LOOKER => {}
            Packet::Publish(publish) if client == LOOKER => {
                let topic = publish.topic.to_owned();
                self.retained.insert(topic, publish.payload.to_vec());
            }
            Packet::PubAck(_) | Packet::PubComp(_) if client == LOOKER => self.kept += 1,
            Packet::PubRec(received) if client == LOOKER => {
                out.extend(ack(0x62, received.packet_id.get()));
            }
            packet if client < PUBLISHERS => self.publishers[client].take(packet, out),
            packet if client < PUBLISHERS + SUBSCRIBERS => {
                self.subscribers[client - PUBLISHERS].take(packet, out);
            }
            packet => self.askers[client - PUBLISHERS - SUBSCRIBERS].take(packet, out),
        }
    }

    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), String> {
        self.until_with(u32::MIN, &mut done)
    }

    fn until_with(
        &mut self,
        last: u32,
        done: &mut impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        for _ in 0..STEPS {
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
            if done(self) {
                return Ok(());
            }
            if self.step(last).is_err() {
                return Err("the fuse was taken out".into());
            }
        }
        Err("it does not come to its end".into())
    }

    /// Everything is published and has arrived.
    fn finish(&mut self) -> Result<(), String> {
        let last = self
            .publishers
            .iter()
            .map(|one| one.next)
            .max()
            .unwrap_or(0);
        self.askers
            .iter_mut()
            .for_each(|asker| asker.goes_on = false);
        self.until_with(last, &mut |world| {
            (0..CLIENTS).for_each(|client| world.meet(client));
            let publishers = &world.publishers;
            publishers.iter().all(|publisher| publisher.is_done(last))
        })?;
        self.until_with(last, &mut |world| world.is_quiet())?;
        self.meet(LOOKER);
        self.until_with(last, &mut |world| world.welcome[LOOKER] && world.is_quiet())?;
        // A retained message may be asked for in the turn after.
        for _ in 0..20 {
            for shard in 0..self.broker.shards() {
                self.broker.turn(shard);
            }
            self.hear(LOOKER);
        }
        Ok(())
    }

    fn is_quiet(&mut self) -> bool {
        let sockets = &self.broker.sockets;
        let heard = sockets.iter().all(|socket| socket.to_client.is_empty());
        heard && self.broker.is_quiet() && {
            // Whatever one of them still has to say.
            (0..self.broker.shards()).for_each(|shard| self.broker.turn(shard));
            let sockets = &self.broker.sockets;
            sockets.iter().all(|socket| socket.to_client.is_empty()) && self.broker.is_quiet()
        }
    }

    fn compare(&self) -> Result<(), String> {
        self.askers.iter().try_for_each(Asker::compare)?;
        for publisher in &self.publishers {
            for subscriber in &self.subscribers {
                compare(publisher, subscriber)?;
            }
            let name = publisher.name;
            let kept = self.retained.get(&format!("load/kept/{name}"));
            let kept = kept.and_then(|payload| numbers(payload));
            let kept = kept.map_or(0, |(_, number)| number);
            if kept < publisher.last_retained {
                let last = publisher.last_retained;
                return Err(format!(
                    "{kept} of {name} is retained, {last} was acknowledged"
                ));
            }
            for number in (3..publisher.next).step_by(10) {
                let topic = publisher.message(number).topic;
                if self.retained.contains_key(&topic) {
                    return Err(format!("{topic} was deleted and came back"));
                }
            }
        }
        Ok(())
    }
}

fn compare(publisher: &Publisher, subscriber: &Subscriber) -> Result<(), String> {
    for number in 1..publisher.next {
        let message = publisher.message(number);
        if message.payload.is_empty() {
            continue;
        }
        let key = (publisher.name, number);
        let times = subscriber.received.get(&key).copied().unwrap_or(0);
        let who = format!("message {key:?} for {}", subscriber.name);
        if times == 0 {
            return Err(format!("{who}: acknowledged and lost"));
        }
        if times > 1 && message.qos == 2 {
            return Err(format!("{who}: QoS 2, {times} times"));
        }
    }
    Ok(())
}
