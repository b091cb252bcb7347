//! Scenarios by name.
//!
//! Those of the Open MQTT Benchmark Suite are in the module `suite`, which reads their parameters
//! from their names; the others are listed and made here.

use std::time::Duration;

use shardmq::wire::QoS;

use super::fleet::Fleet;
use super::suite::{self, Scale};
use super::{Group, Pace, Pattern, Plan, Publishing, Subscribing, Topics};

/// A scenario that is listed.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
}

/// The scenarios, those of the suite first.
pub const NAMED: &[Named] = &[
    named(
        "conn-tcp-10K-100",
        "10,000 connections at 100 per second, held",
    ),
    named(
        "conn-tcp-1M-5K",
        "1,000,000 connections at 5,000 per second, held (--ifaddr)",
    ),
    named(
        "fanout-1-1K-1-1K",
        "1 message per second to 1,000 subscribers",
    ),
    named(
        "fanout-5-1000-5-250K",
        "5 publishers, 50 per second each, to 1,000 subscribers of all 5 topics",
    ),
    named(
        "p2p-1K-1K-1K-1K",
        "1,000 pairs, one message per second each",
    ),
    named(
        "p2p-50K-50K-50K-50K",
        "50,000 pairs, one message per second each (--ifaddr)",
    ),
    named(
        "sharedsub-1K-5-1K-1K",
        "1,000 publishers, one per second each, to a shared group of 5",
    ),
    named(
        "sharedsub-50K-500-50K-50K",
        "50,000 publishers, one per second each, to a shared group of 500",
    ),
    named(
        "saturate",
        "8 pairs, QoS 0, 64 bytes, as fast as the sockets take it",
    ),
    named(
        "paced-2000",
        "1,000 pairs, QoS 0, 20,000 messages per second in all (--rate)",
    ),
    named(
        "paced-8000",
        "4,000 pairs, QoS 0, 20,000 messages per second in all (--rate)",
    ),
    named(
        "qos1-pairs-1000",
        "1,000 pairs, QoS 1, one message in flight each",
    ),
    named("qos1-1-1", "1 pair, QoS 1, 100 in flight"),
    named("qos1-100-100", "100 pairs, QoS 1, 20 in flight each"),
    named(
        "fanout-1000",
        "1 publisher to 1,000 subscribers, QoS 0, 100 messages per second (--rate)",
    ),
    named(
        "fanout-1000-saturated",
        "the same as fast as the socket takes it",
    ),
    named(
        "pingpong",
        "1 connection that publishes to itself, one message in flight",
    ),
    named("qos2-1-1", "1 pair, QoS 2, 50 in flight"),
    named("qos2-100-100", "100 pairs, QoS 2, 10 in flight each"),
    named(
        "idle-15000",
        "15,000 connections with a subscription each, idle (--broker-pid for their memory); any number",
    ),
    named("storm-10000", "10,000 clients connect at once; any number"),
    named(
        "slow-reader",
        "100 pairs at 10,000 per second, and a subscriber to everything that stops reading",
    ),
    named(
        "fleet",
        "1,000 vehicles: waves, telemetry, a tunnel, a storm, commands (-c for their number)",
    ),
    named(
        "slow-reader-none",
        "the same without that subscriber, to compare with",
    ),
];

const fn named(name: &'static str, about: &'static str) -> Named {
    Named { name, about }
}

/// The scenario of a name.
#[must_use]
pub fn find(name: &str) -> Option<Plan> {
    let (base, scale) = suite::split(name)?;
    let mut plan =
        suite::find(base, scale).or_else(|| own(base).filter(|_| scale == Scale::Whole))?;
    name.clone_into(&mut plan.name);
    if scale == Scale::Small {
        plan.duration = Some(Duration::from_secs(30));
    }
    Some(plan)
}

/// What the kinds of scenarios have in common.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Clients that publish.
    pub publishers: u32,
    /// Clients that subscribe.
    pub subscribers: u32,
    /// Topics.
    pub topics: u32,
    /// On both legs.
    pub qos: QoS,
    /// Of all publishers together.
    pub pace: Pace,
    /// Messages in flight for each publisher.
    pub window: u16,
}

impl Work {
    /// Each subscriber has one topic, as each publisher has.
    #[must_use]
    pub fn pairs(self) -> Plan {
        // With fewer subscribers than topics some topics have none.
        let receivers = if self.topics > self.subscribers {
            0
        } else {
            self.subscribers / self.topics
        };
        self.plan("test/%i", Topics::Own(self.topics), receivers, false)
    }

    /// Each subscriber has all topics.
    #[must_use]
    pub fn fanout(self) -> Plan {
        self.plan("test/%i", Topics::All(self.topics), self.subscribers, false)
    }

    /// The subscribers share everything.
    #[must_use]
    pub fn shared(self) -> Plan {
        self.plan("$share/benchmark/test/#", Topics::Own(1), 1, true)
    }

    fn plan(self, filter: &str, topics: Topics, receivers: u32, shared: bool) -> Plan {
        let subscribers = Group {
            role: "sub",
            count: self.subscribers,
            publishing: None,
            subscribing: Some(Subscribing {
                filter: Pattern::new(filter),
                topics,
                qos: self.qos,
                source: Some(1),
                shared,
            }),
            stops_reading: false,
        };
        let publishers = Group {
            role: "pub",
            count: self.publishers,
            publishing: Some(Publishing {
                topic: Pattern::new("test/%i"),
                topics: self.topics,
                qos: self.qos,
                retain: false,
                pace: self.pace,
                window: self.window,
                receivers,
            }),
            subscribing: None,
            stops_reading: false,
        };
        Plan {
            groups: vec![subscribers, publishers],
            ..Plan::default()
        }
    }
}

/// Pairs whose publishers go as fast as they can.
fn saturated(pairs: u32, qos: QoS, window: u16) -> Plan {
    Work {
        publishers: pairs,
        subscribers: pairs,
        topics: pairs,
        qos,
        pace: Pace::Saturated,
        window,
    }
    .pairs()
}

fn paced(pairs: u32, rate: f64) -> Plan {
    let mut plan = saturated(pairs, QoS::AtMostOnce, 1);
    plan.set_rate(rate);
    plan
}

fn fan_to_1000(pace: Pace) -> Plan {
    Work {
        publishers: 1,
        subscribers: 1_000,
        topics: 1,
        qos: QoS::AtMostOnce,
        pace,
        window: 1,
    }
    .fanout()
}

/// The scenarios that the suite does not have.
fn own(name: &str) -> Option<Plan> {
    Some(match name {
        "saturate" => saturated(8, QoS::AtMostOnce, 1),
        "paced-2000" => paced(1_000, 20_000.0),
        "paced-8000" => paced(4_000, 20_000.0),
        "qos1-pairs-1000" => saturated(1_000, QoS::AtLeastOnce, 1),
        "qos1-1-1" => saturated(1, QoS::AtLeastOnce, 100),
        "qos1-100-100" => saturated(100, QoS::AtLeastOnce, 20),
        "fanout-1000" => fan_to_1000(Pace::Rate(100.0)),
        "fanout-1000-saturated" => fan_to_1000(Pace::Saturated),
        "pingpong" => ping_pong(),
        "qos2-1-1" => saturated(1, QoS::ExactlyOnce, 50),
        "qos2-100-100" => saturated(100, QoS::ExactlyOnce, 10),
        "fleet" => fleet(1_000, Duration::from_secs(30)),
        "slow-reader" => slow_reader(true),
        "slow-reader-none" => slow_reader(false),
        _ => return any_number(name),
    })
}

/// Those of which there is one for every number of clients.
fn any_number(name: &str) -> Option<Plan> {
    let (kind, count) = name.split_once('-')?;
    let count = count.parse().ok().filter(|&count| count > 0)?;
    match kind {
        "idle" => Some(idle(count)),
        "storm" => Some(storm(count)),
        _ => None,
    }
}

fn ping_pong() -> Plan {
    let mut plan = saturated(1, QoS::AtMostOnce, 1);
    let mut both = plan.groups.remove(1);
    both.role = "pingpong";
    both.subscribing = plan
        .groups
        .remove(0)
        .subscribing
        .map(|subscribing| Subscribing {
            source: Some(0),
            ..subscribing
        });
    if let Some(publishing) = &mut both.publishing {
        publishing.pace = Pace::PingPong;
    }
    plan.groups.push(both);
    plan
}

fn idle(count: u32) -> Plan {
    let mut plan = saturated(count, QoS::AtMostOnce, 1);
    plan.groups.truncate(1);
    plan.groups[0].role = "idle";
    if let Some(subscribing) = &mut plan.groups[0].subscribing {
        subscribing.source = None;
    }
    plan.connect_rate = Some(5_000.0);
    plan
}

fn storm(count: u32) -> Plan {
    let mut plan = idle(count);
    plan.groups[0].role = "storm";
    plan.groups[0].subscribing = None;
    plan.connect_rate = None;
    plan.measures_connecting = true;
    plan.duration = Some(Duration::from_secs(1));
    plan
}

/// A fleet of so many vehicles.
#[must_use]
pub fn fleet(vehicles: u32, duration: Duration) -> Plan {
    let group = |role, count, filter, qos| Group {
        role,
        count,
        publishing: None,
        subscribing: Some(Subscribing {
            filter: Pattern::new(filter),
            topics: Topics::Own(count),
            qos,
            source: None,
            shared: false,
        }),
        stops_reading: false,
    };
    Plan {
        groups: vec![
            group("backend", 1, "vehicle/+/+", QoS::AtLeastOnce),
            group("vehicle", vehicles, "vehicle/%i/command", QoS::ExactlyOnce),
        ],
        clean_start: false,
        session_expiry: Some(3_600),
        measures_connecting: true,
        warmup: Duration::ZERO,
        duration: Some(duration),
        fleet: Some(Fleet {
            vehicles,
            duration,
            telemetry: Duration::from_secs(1),
            in_tunnel: 0.5,
            commands: f64::from(vehicles) / 20.0,
        }),
        ..Plan::default()
    }
}

fn slow_reader(stops: bool) -> Plan {
    let mut plan = paced(100, 10_000.0);
    if stops {
        let mut slow = plan.groups[0].clone();
        slow.role = "slow";
        slow.count = 1;
        slow.stops_reading = true;
        if let Some(subscribing) = &mut slow.subscribing {
            subscribing.topics = Topics::All(100);
        }
        plan.groups.push(slow);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publishing(plan: &Plan) -> &Publishing {
        plan.publishings().next().unwrap()
    }

    #[test]
    fn every_listed_name_is_a_scenario_of_that_name() {
        for named in NAMED {
            let plan = find(named.name).unwrap_or_else(|| panic!("{}", named.name));
            assert_eq!(plan.name, named.name);
            assert!(plan.clients() > 0);
        }
        for unknown in [
            "",
            "p2p",
            "p2p-1-1-1",
            "p2p-0-1-1-1",
            "p2p-1-1-1-1-1",
            "conn-tls-1-1",
            "x",
            "saturate-x0.5",
            "idle-0",
            "storm-",
            "p2p-1K-1K-1K-1K-x2",
        ] {
            assert!(find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn our_own_scenarios_are_what_they_say() {
        let plan = find("qos1-100-100").unwrap();
        assert_eq!((plan.publishers(), publishing(&plan).window), (100, 20));
        assert!(plan.is_closed_loop() && plan.rate().is_none());
        let plan = find("pingpong").unwrap();
        assert_eq!(plan.clients(), 1);
        assert_eq!(publishing(&plan).pace, Pace::PingPong);
        let mut plan = find("paced-2000").unwrap();
        assert_eq!((plan.clients(), plan.rate()), (2_000, Some(20_000.0)));
        plan.set_rate(50_000.0);
        assert_eq!(plan.rate(), Some(50_000.0));
        assert_eq!(find("idle-7").unwrap().clients(), 7);
        let plan = find("storm-20000").unwrap();
        assert_eq!((plan.clients(), plan.connect_rate), (20_000, None));
        let plan = find("slow-reader").unwrap();
        assert_eq!(
            plan.groups
                .iter()
                .filter(|group| group.stops_reading)
                .count(),
            1
        );
    }
}
