//! The connections of one thread: when they are begun, begun again and ended.

use std::time::Duration;

use shardmq::runtime::net::{Operation, Token};

use crate::plan::CONNECT_TIMEOUT;
use crate::plan::fleet::Action;
use crate::plan::schedule::SECOND;

use super::client::{Phase, Receive};
use super::control::NEVER;
use super::link::Layers;
use super::socket::{connect, explain};
use super::sys::now_ns;
use super::worker::Worker;

/// Connections that are begun in one turn at most, so that answers to earlier ones are not left.
const CONNECTS_PER_TURN: usize = 32;

/// Nanoseconds after which a lost connection is made again.
const RECONNECT_AFTER: u64 = SECOND;

impl Worker {
    // Beginning.

    pub(super) fn connect_due(&mut self, now: u64) {
        for _ in 0..CONNECTS_PER_TURN {
            let Some((due, index)) = self.next_connect() else {
                return;
            };
            if due > now {
                return;
            }
            if self
                .returning
                .front()
                .is_some_and(|&(_, returning)| returning == index)
            {
                self.returning.pop_front();
            } else {
                self.newcomer += 1;
            }
            self.connect(index);
        }
    }

    /// Who is to be connected next, and when.
    pub(super) fn next_connect(&self) -> Option<(u64, u32)> {
        let newcomer = (self.newcomer < self.newcomers).then(|| {
            let plan = &self.core.plan;
            let global = self.newcomer * plan.shards + self.shard;
            let after = plan
                .connect_rate
                .map_or(0.0, |rate| global as f64 * SECOND as f64 / rate);
            let index = u32::try_from(self.newcomer).unwrap_or(u32::MAX);
            (self.core.phases.begin + after as u64, index)
        });
        let returning = self.returning.front().copied();
        match (newcomer, returning) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn connect(&mut self, index: u32) {
        let source = (!self.sources.is_empty()).then(|| {
            let global = index as usize * self.core.plan.shards + self.shard;
            self.sources[global % self.sources.len()]
        });
        let link = match self.layers.as_mut().map(Layers::link).transpose() {
            Ok(link) => link,
            Err(text) => {
                self.core.could_not_connect(index, text);
                return self.come_back(index);
            }
        };
        let now = now_ns();
        match connect(self.broker, source) {
            Ok(socket) => {
                let client = &mut self.core.clients[index as usize];
                client.socket = Some(socket);
                client.link = link.map(Box::new);
                let timeout = u64::try_from(CONNECT_TIMEOUT.as_nanos()).unwrap_or(NEVER);
                self.deadlines
                    .push_back((now.saturating_add(timeout), index, client.generation));
                self.unarmed.push(index);
                self.core.connect(index, now);
            }
            Err(error) => {
                let text = error
                    .raw_os_error()
                    .map_or_else(|| error.to_string(), explain);
                self.core.could_not_connect(index, text);
                self.come_back(index);
            }
        }
    }

    /// Ends connections that got no CONNACK, or no SUBACK, in time.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some(&(deadline, index, generation)) = self.deadlines.front()
            && deadline <= now
        {
            self.deadlines.pop_front();
            let client = &self.core.clients[index as usize];
            let missing = match client.phase {
                Phase::Connecting => "CONNACK",
                Phase::Subscribing => "SUBACK",
                Phase::Away | Phase::Ready | Phase::Leaving | Phase::Dying => continue,
            };
            if client.generation == generation {
                let seconds = CONNECT_TIMEOUT.as_secs();
                self.core
                    .fail(index, format!("no {missing} within {seconds} s"));
            }
        }
    }

    // A fleet.

    /// Does what is due of a fleet's script.
    pub(super) fn act(&mut self, now: u64) {
        let begin = self.core.phases.begin;
        while let Some(fleet) = &mut self.core.fleet
            && let Some(&step) = fleet.steps.front()
            && begin + step.at_ns <= now
        {
            fleet.steps.pop_front();
            let index = fleet.vehicles.get(&step.vehicle).copied();
            let due = begin + step.at_ns;
            match (step.action, index) {
                (Action::Connect, Some(index)) => self.connect(index),
                (Action::Vanish(reset), Some(index)) => self.vanish(index, reset),
                (Action::Return, Some(index)) => {
                    if self.core.clients[index as usize].phase == Phase::Away {
                        self.core.fleet_returns(index, due);
                        self.connect(index);
                    }
                }
                _ => self.core.fleet_publish(step, due, now_ns()),
            }
        }
    }

    /// Ends a connection without a word.
    fn vanish(&mut self, index: u32, reset: bool) {
        let client = &mut self.core.clients[index as usize];
        if client.phase != Phase::Ready {
            return;
        }
        if let Some(socket) = &client.socket
            && reset
        {
            let linger = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            client.resets = linger.is_ok();
        }
        client.phase = Phase::Dying;
        self.core.fleet_vanished();
        self.core.doomed.push(index);
    }

    // Ending.

    /// Shuts the sockets of connections that are over, so that the kernel lets go of them.
    pub(super) fn bury_doomed(&mut self) {
        while let Some(index) = self.core.doomed.pop() {
            let client = &mut self.core.clients[index as usize];
            if std::mem::take(&mut client.resets) {
                // A shut socket would say goodbye: the requests are ended one by one.
                let token = |operation| Token::new(operation, index, client.generation);
                if client.receive == Receive::Armed {
                    self.net.cancel(token(Operation::ReceiveMany));
                }
                if client.output.is_waiting() {
                    self.net.cancel(token(Operation::Send));
                }
            } else if let Some(socket) = &client.socket {
                let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Both);
            }
            self.bury(index);
        }
    }

    /// Closes the socket of a connection that is over, if the kernel has nothing of it any more.
    pub(super) fn bury(&mut self, index: u32) {
        let client = &mut self.core.clients[index as usize];
        if client.phase != Phase::Dying
            || client.receive == Receive::Armed
            || client.output.is_in_flight()
        {
            return;
        }
        client.socket = None;
        client.link = None;
        client.phase = Phase::Away;
        client.receive = Receive::Idle;
        client.generation = client.generation.wrapping_add(1);
        client.input = Vec::new();
        client.pending.clear();
        let buffer = client.output.take_buffer();
        self.core.recycle(buffer);
        self.come_back(index);
    }

    fn come_back(&mut self, index: u32) {
        if self.core.plan.reconnect {
            self.returning
                .push_back((now_ns() + RECONNECT_AFTER, index));
        }
    }
}
