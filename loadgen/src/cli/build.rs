//! From flags to a plan.

use shardmq::runtime::{ClientTls, Trust};
use shardmq::wire::{QoS, Version};

use crate::plan::scenarios::{self, Work};
use crate::plan::{
    Driver, Group, Pace, Pattern, Plan, Publishing, Subscribing, Topics, Transport, Verify,
};

use super::args::{DriverName, Load, Protocol, VerifyName};

/// Clients of `conn`, `pub` and `sub`, as emqtt-bench has it.
const CLIENTS: u32 = 200;

/// Milliseconds between two messages of a client of `pub`, as emqtt-bench has it.
const MESSAGE_INTERVAL: f64 = 1.0;

/// Connections per second of `conn`, `pub` and `sub`.
const CONNECT_RATE: f64 = 1_000.0;

/// Unacknowledged messages of a publisher.
const WINDOW: u16 = 100;

/// What is run when nothing is said.
pub(super) fn canonical() -> Plan {
    let work = Work {
        publishers: 100,
        subscribers: 100,
        topics: 100,
        qos: QoS::AtMostOnce,
        pace: Pace::Rate(10_000.0),
        window: WINDOW,
    };
    Plan {
        name: "canonical".to_owned(),
        ..work.pairs()
    }
}

/// The plan of `conn`.
pub(super) fn conn(load: &Load) -> Plan {
    Plan {
        name: "conn".to_owned(),
        groups: vec![group("conn", load, None, None)],
        measures_connecting: true,
        connect_rate: Some(CONNECT_RATE),
        ..Plan::default()
    }
}

/// The plan of `pub`.
pub(super) fn publish(load: &Load) -> Plan {
    let count = load.count.unwrap_or(CLIENTS);
    let topic = topic(load);
    let publishing = Publishing {
        topics: if topic.is_by_client() { count } else { 1 },
        topic,
        qos: QoS::AtMostOnce,
        retain: false,
        pace: Pace::Rate(f64::from(count) / MESSAGE_INTERVAL),
        window: WINDOW,
        receivers: 0,
    };
    Plan {
        name: "pub".to_owned(),
        groups: vec![group("pub", load, Some(publishing), None)],
        connect_rate: Some(CONNECT_RATE),
        ..Plan::default()
    }
}

/// The plan of `sub`.
pub(super) fn subscribe(load: &Load) -> Plan {
    let count = load.count.unwrap_or(CLIENTS);
    let filter = topic(load);
    let subscribing = Subscribing {
        topics: Topics::Own(if filter.is_by_client() { count } else { 1 }),
        shared: filter.text().starts_with("$share/"),
        filter,
        qos: QoS::AtMostOnce,
        source: None,
    };
    Plan {
        name: "sub".to_owned(),
        groups: vec![group("sub", load, None, Some(subscribing))],
        connect_rate: Some(CONNECT_RATE),
        warmup: std::time::Duration::ZERO,
        duration: None,
        ..Plan::default()
    }
}

fn topic(load: &Load) -> Pattern {
    Pattern::new(load.topic.as_deref().unwrap_or("bench/%i"))
}

fn group(
    role: &'static str,
    load: &Load,
    publishing: Option<Publishing>,
    subscribing: Option<Subscribing>,
) -> Group {
    Group {
        role,
        count: load.count.unwrap_or(CLIENTS),
        publishing,
        subscribing,
        stops_reading: false,
    }
}

/// The plan of a scenario or of a kind.
pub(super) fn scenario(name: &str, load: &Load) -> Result<Plan, String> {
    let publishers = load.publishers.unwrap_or(1);
    let work = Work {
        publishers,
        subscribers: load.subscribers.unwrap_or(1),
        topics: load.topics.unwrap_or(publishers).max(1),
        qos: QoS::AtMostOnce,
        pace: Pace::Rate(1_000.0),
        window: WINDOW,
    };
    let mut plan = match name {
        "p2p" => work.pairs(),
        "fanout" => work.fanout(),
        "sharedsub" => work.shared(),
        "fleet" => {
            let vehicles = load.count.unwrap_or(1_000);
            let duration = load.duration.unwrap_or(std::time::Duration::from_secs(30));
            scenarios::fleet(vehicles, duration)
        }
        _ => {
            let plan = scenarios::find(name).ok_or_else(|| {
                format!("{name:?} is neither a scenario nor a file. `shardmq-loadgen scenarios` lists the scenarios.")
            })?;
            if load
                .publishers
                .or(load.subscribers)
                .or(load.topics)
                .is_some()
            {
                return Err("--publishers, --subscribers and --topics go with `run p2p`, `run fanout` and `run sharedsub`; a scenario has its own".to_owned());
            }
            plan
        }
    };
    name.clone_into(&mut plan.name);
    Ok(plan)
}

/// Changes a plan to what the flags say.
pub(super) fn apply(load: &Load, plan: &mut Plan) -> Result<(), String> {
    plan.transport = transport(load);
    set(&mut plan.host, load.host.clone());
    set(&mut plan.port, load.port);
    set(
        &mut plan.version,
        load.protocol.map(|protocol| match protocol {
            Protocol::V3_1 => Version::V3_1,
            Protocol::V3_1_1 => Version::V3_1_1,
            Protocol::V5 => Version::V5,
        }),
    );
    if load.username.is_some() {
        plan.username.clone_from(&load.username);
    }
    if load.password.is_some() {
        plan.password.clone_from(&load.password);
    }
    plan.broker_pid = load.broker_pid;
    set(&mut plan.keep_alive, load.keepalive);
    set(&mut plan.clean_start, load.clean);
    plan.session_expiry = load.session_expiry.or(plan.session_expiry);
    plan.prefix = load
        .prefix
        .clone()
        .unwrap_or_else(|| format!("lg{}", std::process::id()));
    plan.reconnect |= load.reconnect;
    if let Some(addresses) = &load.ifaddr {
        plan.sources.clone_from(&addresses.0);
    }
    set(&mut plan.payload_size, load.size);
    apply_connecting(load, plan);
    apply_messages(load, plan);
    apply_run(load, plan);
    Ok(())
}

fn transport(load: &Load) -> Transport {
    let path = || load.ws_path.clone().unwrap_or_else(|| "/mqtt".to_owned());
    Transport {
        tls: load.ssl.then(|| ClientTls {
            authorities: load.authorities.clone(),
            identity: load.certificate.clone().zip(load.key.clone()),
            trust: match load.insecure {
                true => Trust::Anything,
                false => Trust::Checked,
            },
        }),
        ws: load.ws.then(path),
    }
}

fn apply_connecting(load: &Load, plan: &mut Plan) {
    if let Some(rate) = load.connect_rate {
        plan.connect_rate = (rate > 0.0).then_some(rate);
    }
    if let Some(interval) = load.interval {
        plan.connect_rate = (!interval.is_zero()).then(|| 1.0 / interval.as_secs_f64());
    }
    if let Some(ramp) = load.ramp {
        let clients = f64::from(plan.clients());
        plan.connect_rate = (!ramp.is_zero()).then(|| clients / ramp.as_secs_f64());
    }
}

fn apply_messages(load: &Load, plan: &mut Plan) {
    for group in &mut plan.groups {
        let qos = load.qos.and_then(QoS::from_bits);
        if let Some(publishing) = &mut group.publishing {
            set(&mut publishing.qos, qos);
            set(&mut publishing.retain, load.retain);
            set(&mut publishing.window, load.inflight);
            if load.closed_loop {
                publishing.pace = Pace::Saturated;
            }
            if let Some(interval) = load.interval_of_msg {
                publishing.pace = Pace::Rate(f64::from(group.count) / interval.as_secs_f64());
            }
        }
        if let Some(subscribing) = &mut group.subscribing {
            set(&mut subscribing.qos, qos);
        }
    }
    if let Some(rate) = load.rate {
        plan.set_rate(rate);
    }
    plan.message_limit = load.limit;
    if load.limit.is_some() {
        plan.duration = None;
        plan.warmup = std::time::Duration::ZERO;
    }
}

fn apply_run(load: &Load, plan: &mut Plan) {
    plan.duration = load.duration.or(plan.duration);
    set(&mut plan.warmup, load.warmup);
    set(&mut plan.shards, load.shards.map(usize::from));
    if let Some(cpus) = &load.cpus {
        plan.cpus.clone_from(&cpus.0);
    }
    set(
        &mut plan.driver,
        load.driver.map(|driver| match driver {
            DriverName::Auto => Driver::Auto,
            DriverName::IoUring => Driver::IoUring,
            DriverName::Epoll => Driver::Epoll,
        }),
    );
    set(&mut plan.seed, load.seed);
    set(
        &mut plan.verify,
        load.verify.map(|verify| match verify {
            VerifyName::None => Verify::None,
            VerifyName::Seq => Verify::Sequence,
            VerifyName::Full => Verify::Full,
        }),
    );
    let needed = load
        .assert
        .iter()
        .chain(&load.find_max)
        .any(super::conditions::Conditions::need_verification);
    if needed && plan.verify == Verify::None {
        plan.verify = Verify::Sequence;
    }
}

fn set<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}
