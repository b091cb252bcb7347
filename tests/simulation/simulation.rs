//! One run: draws operations, carries them out, shuffles what happens in between, and has the oracle
//! look at all of it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shardmq::route::Strategy;
use shardmq::shard::{QueueOverflow, Settings};
use shardmq::wire::{QoS, Version};

use crate::client::{Client, Message, Profile, Request};
use crate::mutation::Bug;
use crate::operation::{Draft, Operation, TOPICS, profile};
use crate::oracle::{Oracle, Verdict, ensure};
use crate::random::Random;
use crate::world::{Observation, Pace, World};

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub operations: usize,
    pub packets_received: u64,
    pub packets_sent: u64,
}

/// How a run failed.
pub struct Failure {
    pub verdict: String,
    /// The operations, one a line.
    pub trace: String,
}

/// A run.
pub struct Simulation {
    world: World,
    clients: Vec<Client>,
    oracle: Oracle,
    /// Everything but what the operations are.
    schedule: Random,
    next_message: u32,
    planted: bool,
    trace: Vec<String>,
    /// What happened last, for the trace of a failure.
    recent: VecDeque<(usize, Observation)>,
}

/// Observations that a trace ends with.
const RECENT: usize = 5_000;

/// Runs `operations` operations of a seed. With `bug`, the broker has that bug.
pub fn run(seed: u64, operations: usize, bug: Option<Bug>) -> Result<Summary, Failure> {
    let mut drawn = Random::new(seed ^ 0x5eed);
    run_drawn(seed, &mut drawn, operations, bug)
}

/// Runs the operations that these bytes spell.
pub fn run_bytes(bytes: &[u8]) -> Result<Summary, Failure> {
    let (seed, bytes) = bytes.split_at(bytes.len().min(2));
    let seed = seed
        .iter()
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte));
    run_drawn(seed, &mut Random::from_bytes(bytes), 2_000, None)
}

fn run_drawn(
    seed: u64,
    drawn: &mut Random,
    operations: usize,
    bug: Option<Bug>,
) -> Result<Summary, Failure> {
    let mut simulation = Simulation::new(seed, bug);
    let outcome = catch_unwind(AssertUnwindSafe(|| simulation.run(drawn, operations)));
    let verdict = match outcome {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(verdict)) => verdict,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    Err(Failure {
        verdict,
        trace: simulation.full_trace(),
    })
}

fn settings(random: &mut Random) -> Settings {
    let overflow = [
        QueueOverflow::DropOldest,
        QueueOverflow::DropNew,
        QueueOverflow::Reject,
    ];
    let strategies = [
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Sticky,
        Strategy::HashClientId,
        Strategy::HashTopic,
    ];
    Settings {
        max_inflight: *random.pick(&[1_024, 1_024, 4, 1]),
        receive_maximum: *random.pick(&[1_024, 10, 4]),
        queue_overflow: *random.pick(&overflow),
        max_queued_messages: *random.pick(&[10_000, 10_000, 10_000, 10_000, 10, 3]),
        queue_qos0: random.chance(25),
        max_output_bytes: *random.pick(&[1 << 20, 1 << 20, 1 << 20, 2_000]),
        shared_subscription_strategy: *random.pick(&strategies),
        topic_alias_maximum: *random.pick(&[0, 2, 32]),
        sys_interval: 0,
        ..Settings::default()
    }
}

impl Simulation {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut schedule = Random::new(seed);
        let settings = settings(&mut schedule);
        // A refused QoS 2 message frees its identifier the moment PUBREC is written, which only an
        // outbox that is emptied at once shows.
        let refuses = settings.queue_overflow == QueueOverflow::Reject
            && settings.max_queued_messages < 1_000;
        let shards = if refuses { 1 } else { 1 + schedule.below(4) };
        let mut world = World::new(shards, &settings, &mut schedule, bug);
        world.one_read_a_turn = refuses;
        let workers = schedule.chance(50);
        let count = 3 + schedule.below(9);
        let clients: Vec<Client> = (0..count)
            .map(|number| Client::new(profile(number, &mut schedule, workers)))
            .collect();
        let oracle = Oracle::new(&settings, shards, world.now);
        let mut trace = vec![format!("{shards} shards, {settings:?}")];
        trace.extend(clients.iter().map(|client| format!("{:?}", client.profile)));
        let planted = bug.is_some();
        Self {
            world,
            clients,
            oracle,
            schedule,
            next_message: 0,
            planted,
            trace,
            recent: VecDeque::new(),
        }
    }

    fn run(&mut self, drawn: &mut Random, operations: usize) -> Result<Summary, String> {
        let mut done = 0;
        while done < operations && !drawn.is_spent() {
            let operation = Operation::draw(drawn, &self.clients);
            self.trace.push(format!("{done}: {operation:?}"));
            self.apply(operation)?;
            // So that deadlines are seldom the same.
            let pause = 10 * self.schedule.below(4) as u64;
            self.world.now = self.world.now.plus_millis(pause);
            for _ in 0..self.schedule.below(4) {
                self.step()?;
            }
            done += 1;
        }
        self.finish()?;
        Ok(Summary {
            operations: done,
            packets_received: self.oracle.counts.packets_received,
            packets_sent: self.world.packets_sent,
        })
    }

    /// The operations, and between the last of them what happened.
    fn full_trace(&self) -> String {
        let mut lines = Vec::new();
        let mut recent = self.recent.iter().peekable();
        for (number, line) in self.trace.iter().enumerate() {
            lines.push(line.clone());
            while let Some((_, observation)) = recent.next_if(|(after, _)| *after <= number + 1) {
                if !matches!(observation, Observation::TurnEnded { .. }) {
                    lines.push(format!("        {observation:?}"));
                }
            }
        }
        lines.join("\n")
    }

    fn apply(&mut self, operation: Operation) -> Verdict {
        let Self {
            world,
            clients,
            schedule,
            ..
        } = self;
        match operation {
            Operation::Connect {
                client,
                clean,
                will,
            } => {
                let shard = schedule.below(world.shards());
                let will = will.map(|will| (self.message(&will.draft), will.delay));
                let will = will.as_ref().map(|(message, delay)| (message, *delay));
                self.clients[client].connect(&mut self.world, shard, clean, will);
            }
            Operation::Subscribe { client, request } => clients[client].subscribe(world, &request),
            Operation::Unsubscribe { client, filters } => {
                clients[client].unsubscribe(world, &filters);
            }
            Operation::Publish { client, messages } => {
                for draft in messages {
                    let message = self.message(&draft);
                    self.clients[client].publish(&mut self.world, message);
                }
            }
            Operation::Disconnect {
                client,
                with_will,
                expiry,
            } => {
                if clients[client].is_up() {
                    clients[client].disconnect(world, with_will, expiry);
                }
            }
            Operation::Cut { client, percent } => {
                if let Some(link) = clients[client].link {
                    let keep = world.unread(link) * percent / 100;
                    world.cut(link, keep);
                    clients[client].lose();
                }
            }
            Operation::Stick { client } | Operation::Unstick { client } => {
                let stuck = matches!(operation, Operation::Stick { .. });
                if let Some(link) = clients[client].link {
                    world.sockets[link.0].stuck = stuck;
                }
            }
            Operation::Prompt { client, prompt } => clients[client].prompt = prompt,
            Operation::Acknowledge { client, count } => {
                clients[client].acknowledge(world, schedule, count);
            }
            Operation::Ping { client } => clients[client].ping(world),
            Operation::Advance {
                milliseconds,
                pings,
            } => self.advance(milliseconds, pings)?,
            Operation::Rest { everybody } => {
                if everybody {
                    self.everybody_back();
                }
                self.rest()?;
            }
        }
        Ok(())
    }

    /// A message with a payload that no other has.
    fn message(&mut self, draft: &Draft) -> Message {
        self.next_message += 1;
        let padding = if draft.large {
            300
        } else {
            self.next_message as usize % 7
        };
        let payload = format!("m{}{}", self.next_message, "-".repeat(padding));
        Message {
            topic: draft.topic.to_owned(),
            payload: if draft.clear {
                Vec::new()
            } else {
                payload.into_bytes()
            },
            qos: draft.qos,
            retain: draft.retain,
            expiry: draft.expiry,
        }
    }

    /// Somebody does something: a shard takes a turn, or a client reads.
    fn step(&mut self) -> Verdict {
        let shards = self.world.shards();
        let who = self.schedule.below(shards + self.clients.len());
        if who < shards {
            self.world.turn(who, &mut self.schedule, Pace::Random);
            return self.observe();
        }
        self.clients[who - shards].act(&mut self.world, &mut self.schedule, Pace::Random);
        Ok(())
    }

    fn observe(&mut self) -> Verdict {
        for observation in std::mem::take(&mut self.world.observations) {
            let outcome = self.oracle.observe(self.world.now, &observation);
            if self.recent.len() >= RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((self.trace.len(), observation));
            outcome?;
        }
        Ok(())
    }

    /// Lets time pass, deadline by deadline.
    fn advance(&mut self, milliseconds: u64, pings: usize) -> Verdict {
        let parts = 1 + self.schedule.below(3) as u64;
        for _ in 0..parts {
            for client in &self.clients {
                if client.profile.keep_alive > 0 && self.schedule.chance(pings) {
                    client.ping(&mut self.world);
                }
            }
            let piece = (milliseconds / parts).div_ceil(10) * 10;
            let end = self.world.now.plus_millis(piece);
            loop {
                let (next, shard) = self.world.next_deadline();
                if next > end {
                    break;
                }
                self.world.now = self.world.now.max(next);
                self.world.turn(shard, &mut self.schedule, Pace::Random);
                self.observe()?;
            }
            self.world.now = end;
            for _ in 0..self.schedule.below(2 * self.world.shards() + 2) {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Everybody who keeps a session and is away comes back.
    fn everybody_back(&mut self) {
        for client in &mut self.clients {
            let returns = !client.profile.anonymous && client.profile.expiry > 0;
            if client.link.is_none() && returns {
                let shard = self.schedule.below(self.world.shards());
                client.connect(&mut self.world, shard, false, None);
            }
        }
    }

    /// Everything on its way arrives, everybody reads and answers, and all that must hold then is
    /// checked.
    fn rest(&mut self) -> Verdict {
        for socket in &mut self.world.sockets {
            socket.stuck = false;
        }
        self.settle()?;
        // An older connection of a client may have won, or outlived the newer one: it comes back.
        let mut again = false;
        for client in &mut self.clients {
            let owner = self.oracle.connection_of(&client.profile.name);
            if owner.is_some() && owner != client.link {
                let shard = self.schedule.below(self.world.shards());
                client.connect(&mut self.world, shard, false, None);
                client.received.clear();
                again = true;
            }
        }
        if again {
            self.settle()?;
        }
        for client in &self.clients {
            ensure!(
                client.is_idle(),
                "a client waits for ever: {}",
                client.describe()
            );
        }
        let stats = self.world.stats();
        let everybody = self.oracle.is_everybody_connected();
        self.oracle.check_rest(&stats, everybody)?;
        ensure!(
            (stats.packets_sent.iter().sum(), stats.bytes_sent)
                == (self.world.packets_sent, self.world.bytes_sent),
            "{} packets of {} bytes left, {stats:?}",
            self.world.packets_sent,
            self.world.bytes_sent
        );
        let sent = self.oracle.counts.publishes_sent;
        ensure!(
            self.planted || stats.publishes_sent.iter().sum::<u64>() == sent,
            "{sent} PUBLISHes left, {stats:?}"
        );
        self.check_exactly_once()
    }

    fn settle(&mut self) -> Verdict {
        for _ in 0..10_000 {
            let mut busy = false;
            for client in &mut self.clients {
                busy |= client.act(&mut self.world, &mut self.schedule, Pace::Everything);
            }
            for shard in 0..self.world.shards() {
                busy |= self.world.turn(shard, &mut self.schedule, Pace::Everything);
                self.observe()?;
            }
            if !busy {
                return Ok(());
            }
        }
        Err("the broker does not come to rest".into())
    }

    /// No application got a QoS 2 message more often than it was published.
    fn check_exactly_once(&self) -> Verdict {
        for client in self.clients.iter().filter(|client| !client.profile.worker) {
            for (payload, &count) in &client.received {
                let ways = self.oracle.ways_of(payload);
                ensure!(
                    count <= ways || payload.is_empty(),
                    "{} got {} {count} times with QoS 2, it was published {ways} times",
                    client.profile.name,
                    String::from_utf8_lossy(payload)
                );
            }
        }
        Ok(())
    }

    /// The end: everybody is back and gets everything; then all of it is taken down, and nothing is
    /// left.
    fn finish(&mut self) -> Verdict {
        self.trace.push("the end: everybody comes back".into());
        self.rest()?;
        self.everybody_back();
        self.rest()?;
        self.trace
            .push("the end: a newcomer asks for everything retained".into());
        let newcomer = self.clients.len();
        self.clients.push(Client::new(newcomer_profile()));
        self.clients[newcomer].connect(&mut self.world, 0, true, None);
        let request = Operation::everything();
        self.clients[newcomer].subscribe(&mut self.world, &request);
        self.rest()?;
        self.trace.push("the end: a message to every topic".into());
        for topic in TOPICS {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let draft = Draft {
                    topic,
                    qos,
                    retain: false,
                    clear: false,
                    large: false,
                    expiry: None,
                };
                let message = self.message(&draft);
                self.clients[newcomer].publish(&mut self.world, message);
            }
        }
        self.rest()?;
        self.trace.push("the end: nothing is to be left".into());
        for client in &mut self.clients[..newcomer] {
            if !client.profile.anonymous {
                let shard = self.schedule.below(self.world.shards());
                client.connect(&mut self.world, shard, true, None);
            }
        }
        self.rest()?;
        for client in &mut self.clients[..newcomer] {
            client.disconnect(&mut self.world, false, Some(0));
        }
        self.rest()?;
        for (topic, ..) in self.oracle.retained_topics() {
            let message = Message {
                topic,
                payload: Vec::new(),
                qos: QoS::AtLeastOnce,
                retain: true,
                expiry: None,
            };
            self.clients[newcomer].publish(&mut self.world, message);
        }
        self.rest()?;
        self.clients[newcomer].disconnect(&mut self.world, false, None);
        self.rest()?;
        let stats = self.world.stats();
        let left = [
            stats.connections,
            stats.clients_connected,
            stats.sessions,
            stats.subscriptions,
            stats.shared_subscriptions,
            stats.retained,
            stats.retained_bytes,
            stats.queued,
            stats.queued_bytes,
        ];
        ensure!(
            left.iter().all(|&gauge| gauge == 0),
            "something is left: {stats:?}"
        );
        Ok(())
    }
}

fn newcomer_profile() -> Profile {
    Profile {
        name: "newcomer".to_owned(),
        version: Version::V5,
        expiry: 0,
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        keep_alive: 0,
        worker: false,
        anonymous: false,
    }
}

impl Operation {
    fn everything() -> Request {
        let options = shardmq::wire::SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            ..shardmq::wire::SubscriptionOptions::default()
        };
        let filters = ["#", "$d/#"].map(|filter| (filter.to_owned(), options));
        Request {
            filters: filters.to_vec(),
            identifier: None,
        }
    }
}
