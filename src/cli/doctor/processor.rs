//! CPUs, their clocks and the memory beside them.

use super::check::{Check, Level, Plan};
use super::machine::Machine;

pub(super) fn checks(machine: &Machine, plan: &Plan) -> Vec<Check> {
    vec![
        shards(machine, plan),
        cpu_quota(machine, plan),
        governor(machine),
        numa(machine),
        clock_source(machine),
        guest_halt_poll(machine),
        huge_pages(machine),
        swapping(machine),
        overcommit(machine),
    ]
}

fn shards(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "shards";
    const WHY: &str = "a shard has a CPU of its own; two on one only wait for each other";
    let Some(allowed) = &machine.cpus_allowed else {
        return Check::unknown(NAME, WHY);
    };
    let online = machine
        .cpus_online
        .as_ref()
        .map_or(allowed.len(), |cpus| cpus.len());
    let fine = plan.shards <= allowed.len();
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!(
            "{} shards, {} CPUs allowed of {online}",
            plan.shards,
            allowed.len()
        ),
        wanted: format!("at most {} shards", allowed.len()),
        why: WHY,
        fix: (!fine).then(|| format!("shards = {}, or 0", allowed.len())),
        undo: (!fine).then(|| format!("shards = {}", plan.shards)),
    }
}

fn cpu_quota(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "cpu_quota";
    const WHY: &str = "a cgroup that has used up its time stands still for the rest of the period, \
                       usually up to 100 ms";
    let Some(quota) = machine.cpu_quota else {
        return Check::told(NAME, String::from("none"), WHY);
    };
    let fine = quota >= 1_000 * plan.shards as u64;
    let cpus = quota as f64 / 1_000.0;
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!("{cpus} CPUs' worth of time"),
        wanted: format!("none, or {} at least, one for each shard", plan.shards),
        why: WHY,
        fix: (!fine).then(|| {
            let percent = 100 * plan.shards;
            format!("systemctl set-property shardmq.service CPUQuota={percent}%, or fewer shards")
        }),
        undo: (!fine).then(|| {
            format!(
                "systemctl set-property shardmq.service CPUQuota={}%",
                quota / 10
            )
        }),
    }
}

fn governor(machine: &Machine) -> Check {
    const NAME: &str = "cpu_governor";
    const WHY: &str = "a CPU that clocks down between messages is slow when the next one comes";
    if machine.governors.is_empty() {
        return Check::unknown(NAME, WHY);
    }
    let found: Vec<&str> = machine.governors.iter().map(String::as_str).collect();
    let fine = found == ["performance"];
    let set = |governor: &str| {
        format!(
            "for f in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do echo {governor} > $f; done"
        )
    };
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: found.join(", "),
        wanted: String::from("performance"),
        why: WHY,
        fix: (!fine).then(|| set("performance")),
        undo: (!fine).then(|| set(found.first().unwrap_or(&"powersave"))),
    }
}

fn numa(machine: &Machine) -> Check {
    const NAME: &str = "numa";
    const WHY: &str = "packets and buffers that cross between nodes take longer; keep the broker on the \
                       node of the network card";
    let (Some(allowed), false) = (&machine.cpus_allowed, machine.numa_nodes.is_empty()) else {
        return Check::unknown(NAME, WHY);
    };
    let used: Vec<usize> = machine
        .numa_nodes
        .iter()
        .filter(|(_, cpus)| !cpus.is_disjoint(allowed))
        .map(|(node, _)| *node)
        .collect();
    let card = machine.nics.iter().find_map(|nic| nic.numa_node);
    let node = card.and_then(|node| usize::try_from(node).ok());
    let node = node.or_else(|| used.first().copied()).unwrap_or(0);
    let fine = used.len() <= 1 && (card.is_none() || used == [node]);
    let cpus = machine.numa_nodes.get(&node);
    let list: Vec<String> = cpus.into_iter().flatten().map(usize::to_string).collect();
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!(
            "{} nodes, {} of them in use",
            machine.numa_nodes.len(),
            used.len()
        ),
        wanted: format!("node {node} alone"),
        why: WHY,
        fix: (!fine).then(|| format!("in the systemd unit CPUAffinity={}", list.join(" "))),
        undo: (!fine).then(|| String::from("take the line out")),
    }
}

fn clock_source(machine: &Machine) -> Check {
    const NAME: &str = "clock_source";
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    const WHY: &str = "the clock is read in each turn; other sources than these need a system call";
    let Some(found) = &machine.clock_source else {
        return Check::unknown(NAME, WHY);
    };
    let known = [
        "tsc",
        "kvm-clock",
        "arch_sys_counter",
        "hyperv_clocksource_tsc_page",
    ];
    let fine = known.contains(&found.as_str());
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: found.clone(),
        wanted: known.join(", "),
        why: WHY,
        fix: (!fine).then(|| format!("echo tsc > {FOLDER}")),
        undo: (!fine).then(|| format!("echo {found} > {FOLDER}")),
    }
}

fn guest_halt_poll(machine: &Machine) -> Check {
    const NAME: &str = "guest_halt_poll";
    const FILE: &str = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";
    const WHY: &str = "a CPU of a virtual machine that halts leaves it, and is back tens of microseconds after \
                       the next message; one that polls first answers at once";
    let Some(found) = machine.halt_poll_ns else {
        let found = String::from("the governor haltpoll is not in use");
        return Check::told(NAME, found, WHY);
    };
    let fine = found > 0;
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!("{found} ns"),
        wanted: String::from("200000 ns"),
        why: WHY,
        fix: (!fine).then(|| format!("echo 200000 > {FILE}")),
        undo: (!fine).then(|| format!("echo {found} > {FILE}")),
    }
}

fn huge_pages(machine: &Machine) -> Check {
    const NAME: &str = "huge_pages";
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    const WHY: &str = "with `always` small allocations grow to 2 MiB and the kernel stalls to compact \
                       memory. ShardMQ refuses them unless its configuration has `huge_pages = true`; this is \
                       for what runs beside it";
    let Some(found) = &machine.huge_pages else {
        return Check::unknown(NAME, WHY);
    };
    let fine = found != "always";
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: found.clone(),
        wanted: String::from("madvise"),
        why: WHY,
        fix: (!fine).then(|| format!("echo madvise > {FILE}")),
        undo: (!fine).then(|| format!("echo {found} > {FILE}")),
    }
}

fn swapping(machine: &Machine) -> Check {
    const NAME: &str = "swappiness";
    const KEY: &str = "vm.swappiness";
    const WHY: &str = "a session that was swapped out makes its shard wait for the disk, and with it all \
                       clients of that shard";
    let Some(found) = machine.sysctl(KEY) else {
        return Check::unknown(NAME, WHY);
    };
    let fine = found.parse().is_ok_and(|number: u64| number <= 10);
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!("{KEY} = {found}"),
        wanted: String::from("at most 10"),
        why: WHY,
        fix: (!fine).then(|| format!("sysctl -w {KEY}=10")),
        undo: (!fine).then(|| format!("sysctl -w {KEY}={found}")),
    }
}

fn overcommit(machine: &Machine) -> Check {
    const NAME: &str = "overcommit";
    const KEY: &str = "vm.overcommit_memory";
    const WHY: &str = "with 2 an allocation fails although there is memory, because the allocator reserves \
                       more than it uses";
    let Some(found) = machine.sysctl(KEY) else {
        return Check::unknown(NAME, WHY);
    };
    let fine = found != "2";
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: format!("{KEY} = {found}"),
        wanted: String::from("0 or 1"),
        why: WHY,
        fix: (!fine).then(|| format!("sysctl -w {KEY}=0")),
        undo: (!fine).then(|| format!("sysctl -w {KEY}=2")),
    }
}
