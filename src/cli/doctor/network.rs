//! How connections get in, how packets get to a shard, and what may drop them on the way.

use super::check::{Check, Level, Plan};
use super::machine::{Machine, Nic};

/// Connections that wait to be accepted while a whole fleet comes back.
const STORM_BACKLOG: u64 = 65_535;

/// Packets that wait between the network card and the stack, for each CPU.
const PACKET_BACKLOG: u64 = 16_384;

/// Bytes of kernel memory that the buffers of a connection take on average, when some read slowly.
const SOCKET_BYTES: u64 = 4_096;

/// The most that a buffer should grow to where there are very many connections.
const BUFFER_MAXIMUM: u64 = 1024 * 1024;

const PAGE: u64 = 4_096;

pub(super) fn checks(machine: &Machine, plan: &Plan) -> Vec<Check> {
    vec![
        Check::sysctl(
            machine,
            "somaxconn",
            "net.core.somaxconn",
            plan.backlog.max(STORM_BACKLOG.min(plan.connections)),
            "the kernel cuts net.backlog to it; what does not fit is lost when a fleet comes back at once",
        ),
        Check::sysctl(
            machine,
            "syn_backlog",
            "net.ipv4.tcp_max_syn_backlog",
            STORM_BACKLOG.min(plan.connections),
            "connections that are half open; above it the kernel answers with cookies, without options",
        ),
        port_range(machine),
        buffers(machine, plan, "tcp_rmem", "net.ipv4.tcp_rmem"),
        buffers(machine, plan, "tcp_wmem", "net.ipv4.tcp_wmem"),
        socket_memory(machine, plan),
        Check::sysctl(
            machine,
            "netdev_backlog",
            "net.core.netdev_max_backlog",
            PACKET_BACKLOG,
            "packets that RPS or a virtual card hands to a CPU wait here; above it they are dropped",
        ),
        queues(machine, plan),
        interrupts(machine),
        packet_steering(machine, plan),
        conntrack(machine, plan),
        busy_polling(machine),
    ]
}

fn port_range(machine: &Machine) -> Check {
    const NAME: &str = "port_range";
    const KEY: &str = "net.ipv4.ip_local_port_range";
    const WHY: &str = "for a machine that generates load: one source address has so many connections to \
                       one port, and no more";
    let Some(found) = machine.sysctl(KEY) else {
        return Check::unknown(NAME, WHY);
    };
    let fine = matches!(machine.numbers(KEY).as_deref(), Some([low, high]) if high - low >= 60_000);
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!("{KEY} = {found}"),
        wanted: String::from("1024 65535 where load is generated"),
        why: WHY,
        fix: (!fine).then(|| format!("sysctl -w {KEY}='1024 65535'")),
        undo: (!fine).then(|| format!("sysctl -w {KEY}='{found}'")),
    }
}

/// The greatest size of the buffers of sockets.
fn buffers(machine: &Machine, plan: &Plan, name: &'static str, key: &str) -> Check {
    const WHY: &str = "what a slow client leaves unread grows up to the last number, for each connection; \
                       together they may reach net.ipv4.tcp_mem, where packets of everybody are dropped";
    let numbers = machine.numbers(key);
    let (Some(found), Some([least, normal, most])) = (machine.sysctl(key), numbers.as_deref())
    else {
        return Check::unknown(name, WHY);
    };
    let fine = *most <= BUFFER_MAXIMUM || plan.connections <= 10_000;
    let normal = (*normal).min(16_384);
    Check {
        name,
        level: Level::Advice.unless(fine),
        found: format!("{key} = {found}"),
        wanted: format!(
            "a last number of at most {BUFFER_MAXIMUM} for more than 10000 connections"
        ),
        why: WHY,
        fix: (!fine).then(|| format!("sysctl -w {key}='{least} {normal} 262144'")),
        undo: (!fine).then(|| format!("sysctl -w {key}='{found}'")),
    }
}

fn socket_memory(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "tcp_mem";
    const KEY: &str = "net.ipv4.tcp_mem";
    const WHY: &str = "the last number is where the kernel refuses memory to all sockets of the machine, \
                       in pages";
    let numbers = machine.numbers(KEY);
    let (Some(found), Some([low, pressure, high])) = (machine.sysctl(KEY), numbers.as_deref())
    else {
        return Check::unknown(NAME, WHY);
    };
    let needed = plan.connections * SOCKET_BYTES / PAGE;
    let fine = *high >= needed;
    let (low, pressure) = ((*low).max(needed / 2), (*pressure).max(needed * 3 / 4));
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!("{KEY} = {found}"),
        wanted: format!("a last number of at least {needed} pages"),
        why: WHY,
        fix: (!fine).then(|| format!("sysctl -w {KEY}='{low} {pressure} {needed}'")),
        undo: (!fine).then(|| format!("sysctl -w {KEY}='{found}'")),
    }
}

fn queues(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "nic_queues";
    const WHY: &str = "a card with one receive queue interrupts one CPU for all packets";
    let Some(nic) = machine.nics.iter().min_by_key(|nic| nic.receive_queues) else {
        return Check::unknown(NAME, WHY);
    };
    let found: Vec<String> = machine
        .nics
        .iter()
        .map(|nic| {
            format!(
                "{} {} rx, {} tx",
                nic.name, nic.receive_queues, nic.send_queues
            )
        })
        .collect();
    // Spread by software is the answer for a card that has no more.
    let fine = nic.receive_queues >= plan.shards.min(2) || nic.rps_queues > 0;
    let name = &nic.name;
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: found.join("; "),
        wanted: format!("as many receive queues as shards ({}), or RPS", plan.shards),
        why: WHY,
        fix: (!fine).then(|| {
            let shards = plan.shards;
            format!("ethtool -l {name} shows what it has; ethtool -L {name} combined {shards}")
        }),
        undo: (!fine).then(|| format!("ethtool -L {name} combined {}", nic.receive_queues)),
    }
}

fn interrupts(machine: &Machine) -> Check {
    const NAME: &str = "irq_affinity";
    const WHY: &str = "interrupts of all queues on one CPU take it away from its shard, and irqbalance \
                       moves them when one least wants it";
    let bound = |nic: &&Nic| nic.irq_cpus.len() > 1;
    let Some(nic) = machine.nics.iter().find(bound) else {
        return Check::unknown(NAME, WHY);
    };
    let mut cpus = nic.irq_cpus.clone();
    cpus.sort();
    cpus.dedup();
    let balanced = if machine.irqbalance {
        ", irqbalance runs"
    } else {
        ""
    };
    let fine = cpus.len() > 1 && !machine.irqbalance;
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!(
            "{}: {} interrupts on CPUs {}{balanced}",
            nic.name,
            nic.irq_cpus.len(),
            cpus.join(" ")
        ),
        wanted: String::from("each queue's interrupt on a CPU of its own, left where it is"),
        why: WHY,
        fix: (!fine).then(|| {
            format!(
                "systemctl stop irqbalance; grep {} /proc/interrupts; for each number: echo CPU > \
                 /proc/irq/NUMBER/smp_affinity_list",
                nic.name
            )
        }),
        undo: (!fine).then(|| String::from("systemctl start irqbalance")),
    }
}

fn packet_steering(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "rps_xps";
    const WHY: &str = "with fewer receive queues than CPUs, RPS lets others do the work of the network \
                       stack; with enough of them it only costs";
    let nic = machine.nics.iter().find(|nic| {
        let few = nic.receive_queues < plan.shards;
        nic.receive_queues > 0 && few != (nic.rps_queues > 0)
    });
    let Some(nic) = nic else {
        let all = machine.nics.iter().map(|nic| {
            format!(
                "{}: RPS on {} queues, XPS on {}",
                nic.name, nic.rps_queues, nic.xps_queues
            )
        });
        let all: Vec<String> = all.collect();
        return match all.is_empty() {
            true => Check::unknown(NAME, WHY),
            false => Check::told(NAME, all.join("; "), WHY),
        };
    };
    let few = nic.receive_queues < plan.shards;
    // Masks are written in groups of 32 CPUs.
    let cpus = machine.cpus_online.as_ref().map_or(1, |cpus| cpus.len());
    let mask = match few {
        true if cpus >= 32 => String::from("ffffffff"),
        true => format!("{:x}", (1_u64 << cpus) - 1),
        false => String::from("0"),
    };
    let set = |mask: &str| {
        format!(
            "for q in /sys/class/net/{}/queues/rx-*; do echo {mask} > $q/rps_cpus; done",
            nic.name
        )
    };
    Check {
        name: NAME,
        level: Level::Advice,
        found: format!(
            "{}: {} receive queues for {} shards, RPS on {}",
            nic.name, nic.receive_queues, plan.shards, nic.rps_queues
        ),
        wanted: String::from(if few { "RPS on all of them" } else { "no RPS" }),
        why: WHY,
        fix: Some(set(&mask)),
        undo: few.then(|| set("0")),
    }
}

fn conntrack(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "conntrack";
    const KEY: &str = "net.netfilter.nf_conntrack_max";
    const WHY: &str = "a firewall that tracks connections takes CPU time for each packet, and drops new \
                       connections when its table is full";
    let Some(most) = machine
        .numbers(KEY)
        .and_then(|numbers| numbers.first().copied())
    else {
        return Check::told(NAME, String::from("not loaded"), WHY);
    };
    let used = machine
        .sysctl("net.netfilter.nf_conntrack_count")
        .unwrap_or("?");
    let needed = plan.connections + plan.connections / 2;
    let level = match most {
        most if most < plan.connections => Level::Problem,
        most if most < needed => Level::Advice,
        _ => Level::Ok,
    };
    let fine = level == Level::Ok;
    Check {
        name: NAME,
        level,
        found: format!("loaded, {used} of {most} entries"),
        wanted: format!("not tracking the broker's port, or {KEY} of at least {needed}"),
        why: WHY,
        fix: (!fine).then(|| format!("sysctl -w {KEY}={needed}")),
        undo: (!fine).then(|| format!("sysctl -w {KEY}={most}")),
    }
}

fn busy_polling(machine: &Machine) -> Check {
    const NAME: &str = "busy_polling";
    const WHY: &str = "a CPU that polls the card answers some microseconds sooner and is never idle; \
                       the broker gathers instead, so leave it off unless the lowest latency is all";
    let keys = ["net.core.busy_poll", "net.core.busy_read"];
    let found: Vec<String> = keys
        .into_iter()
        .filter_map(|key| Some(format!("{key} = {}", machine.sysctl(key)?)))
        .collect();
    if found.is_empty() {
        return Check::unknown(NAME, WHY);
    }
    let fine = keys
        .iter()
        .all(|key| machine.sysctl(key).is_none_or(|value| value == "0"));
    let undo: Vec<String> = found
        .iter()
        .map(|entry| entry.replace(" = ", "="))
        .collect();
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: found.join(", "),
        wanted: String::from("0"),
        why: WHY,
        fix: (!fine).then(|| String::from("sysctl -w net.core.busy_poll=0 net.core.busy_read=0")),
        undo: (!fine).then(|| format!("sysctl -w {}", undo.join(" "))),
    }
}
