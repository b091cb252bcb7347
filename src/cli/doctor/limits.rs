//! What the process may have: descriptors, locked memory, the kernel's interface to the network, ports.

use super::check::{Check, Level, Plan};
use super::machine::{DriverFacts, Limit, Machine};

/// Descriptors that are needed besides connections, and so many again for each shard.
const OTHER_DESCRIPTORS: u64 = 16;

/// Bytes of locked memory for a shard, as the broker asks for when it starts, and some more.
const LOCKED_PER_SHARD: u64 = 640 * 1024;

/// Bytes that a connection with one subscription takes, and its socket in the kernel. With 5,000 of them
/// 3.2 to 3.3 KB of the process and 3.3 to 5.4 KB of the kernel's slabs were measured, three runs.
const BYTES_PER_CONNECTION: u64 = 8 * 1024;

/// The kernel from which on a wait can gather, which saves most.
const GATHERING_SINCE: (u64, u64) = (6, 12);

pub(super) fn checks(machine: &Machine, plan: &Plan) -> Vec<Check> {
    let mut checks = vec![
        open_files(machine, plan),
        open_files_of_machine(machine, plan),
        locked_memory(machine, plan),
        driver(machine),
        kernel(machine),
        memory(machine, plan),
    ];
    checks.push(ports(machine, plan));
    checks
}

fn shown(limit: u64) -> String {
    match limit {
        u64::MAX => String::from("unlimited"),
        number => number.to_string(),
    }
}

fn open_files(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "open_files";
    const WHY: &str =
        "each connection is a descriptor; the broker raises the soft limit up to the hard one";
    let Some(Limit { soft, hard }) = machine.open_files else {
        return Check::unknown(NAME, WHY);
    };
    let needed = plan.connections + OTHER_DESCRIPTORS * (plan.shards as u64 + 1);
    let fine = hard >= needed;
    Check {
        name: NAME,
        level: Level::Problem.unless(fine),
        found: format!("soft {}, hard {}", shown(soft), shown(hard)),
        wanted: format!("hard at least {needed}"),
        why: WHY,
        fix: (!fine).then(|| {
            format!(
                "in the systemd unit LimitNOFILE={needed}; in a root shell: ulimit -Hn {needed}"
            )
        }),
        undo: (!fine).then(|| format!("take the line out; in a shell: ulimit -Hn {}", shown(hard))),
    }
}

fn open_files_of_machine(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "open_files_machine";
    const WHY: &str = "no process may have more descriptors than fs.nr_open, nor all together more \
                       than fs.file-max";
    let numbers = |key| {
        machine
            .numbers(key)
            .and_then(|numbers| numbers.first().copied())
    };
    let (Some(each), Some(all)) = (numbers("fs.nr_open"), numbers("fs.file-max")) else {
        return Check::unknown(NAME, WHY);
    };
    let needed = plan.connections + OTHER_DESCRIPTORS * (plan.shards as u64 + 1);
    // Room for everything else that runs here.
    let needed_by_all = needed + 100_000;
    let short: Vec<(&str, u64, u64)> = [
        ("fs.nr_open", each, needed),
        ("fs.file-max", all, needed_by_all),
    ]
    .into_iter()
    .filter(|(_, found, needed)| found < needed)
    .collect();
    let commands = |value: fn(&(&str, u64, u64)) -> u64| {
        let commands = short
            .iter()
            .map(|entry| format!("sysctl -w {}={}", entry.0, value(entry)));
        commands.collect::<Vec<_>>().join(" && ")
    };
    Check {
        name: NAME,
        level: Level::Problem.unless(short.is_empty()),
        found: format!("fs.nr_open = {each}, fs.file-max = {all}"),
        wanted: format!("at least {needed} and {needed_by_all}"),
        why: WHY,
        fix: (!short.is_empty()).then(|| commands(|entry| entry.2)),
        undo: (!short.is_empty()).then(|| commands(|entry| entry.1)),
    }
}

fn locked_memory(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "locked_memory";
    const WHY: &str = "io_uring charges its rings to it for users without CAP_IPC_LOCK";
    let Some(Limit { soft, hard }) = machine.locked_memory else {
        return Check::unknown(NAME, WHY);
    };
    let needed = LOCKED_PER_SHARD * plan.shards as u64;
    let fine = hard >= needed || machine.may_lock;
    let mib = needed.div_ceil(1024 * 1024);
    Check {
        name: NAME,
        level: Level::Problem.unless(fine),
        found: format!(
            "soft {}, hard {} bytes{}",
            shown(soft),
            shown(hard),
            if machine.may_lock {
                ", not charged (CAP_IPC_LOCK)"
            } else {
                ""
            }
        ),
        wanted: format!("hard at least {needed}"),
        why: WHY,
        fix: (!fine).then(|| {
            format!(
                "in the systemd unit LimitMEMLOCK={mib}M; for a container --ulimit memlock={needed}"
            )
        }),
        undo: (!fine).then(|| String::from("take the line or the option out")),
    }
}

fn driver(machine: &Machine) -> Check {
    const NAME: &str = "driver";
    const WHY: &str = "io_uring takes the least CPU time for a message; epoll serves everywhere";
    let (level, found, fix) = match &machine.driver {
        None => return Check::unknown(NAME, WHY),
        Some(DriverFacts::Works {
            text,
            fallback: None,
        }) => (Level::Ok, text.clone(), None),
        Some(DriverFacts::Works {
            text,
            fallback: Some(reason),
        }) => (Level::Advice, text.clone(), Some(reason.clone())),
        Some(DriverFacts::Fails(reason)) => {
            let found = String::from("the broker would not start");
            (Level::Problem, found, Some(reason.clone()))
        }
    };
    let disabled = machine.sysctl("kernel.io_uring_disabled").unwrap_or("0");
    let undo = (disabled != "0").then(|| format!("sysctl -w kernel.io_uring_disabled={disabled}"));
    Check {
        name: NAME,
        level,
        found,
        wanted: String::from("io_uring"),
        why: WHY,
        fix,
        undo: undo.filter(|_| level > Level::Ok),
    }
}

fn kernel(machine: &Machine) -> Check {
    const NAME: &str = "kernel";
    const WHY: &str = "from 6.12 on a wait can gather messages in one system call, the largest single \
                       gain that was measured";
    let Some(release) = machine.sysctl("kernel.osrelease") else {
        return Check::unknown(NAME, WHY);
    };
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let fine = version >= GATHERING_SINCE;
    Check {
        name: NAME,
        level: Level::Advice.unless(fine),
        found: release.to_owned(),
        wanted: String::from("6.12 or newer"),
        why: WHY,
        fix: (!fine).then(|| String::from("a newer kernel of the distribution, and a restart")),
        undo: (!fine).then(|| String::from("choose the old kernel in the boot menu")),
    }
}

fn memory(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "memory";
    const WHY: &str = "a connection with one subscription takes about 8 KiB, the kernel's part included; \
                       a cgroup that runs out of memory kills the broker";
    let Some(room) = [machine.memory_limit, machine.memory_total]
        .into_iter()
        .flatten()
        .min()
    else {
        return Check::unknown(NAME, WHY);
    };
    let needed = plan.connections * BYTES_PER_CONNECTION;
    let fine = room >= needed;
    let limited = machine.memory_limit == Some(room);
    Check {
        name: NAME,
        level: Level::Problem.unless(fine),
        found: format!(
            "{} MiB{}",
            room >> 20,
            if limited {
                " allowed by the cgroup"
            } else {
                ""
            }
        ),
        wanted: format!("{} MiB for idle connections alone", needed >> 20),
        why: WHY,
        fix: (!fine).then(|| match limited {
            true => format!(
                "in the systemd unit MemoryMax={}M or more",
                (2 * needed) >> 20
            ),
            false => String::from("more memory, or fewer connections (net.max_connections)"),
        }),
        undo: (!fine && limited).then(|| format!("MemoryMax={}M", room >> 20)),
    }
}

fn ports(machine: &Machine, plan: &Plan) -> Check {
    const NAME: &str = "ports";
    const WHY: &str = "two programs cannot listen on one port";
    let taken: Vec<String> = plan
        .ports
        .iter()
        .filter(|port| machine.ports_in_use.contains(port))
        .map(u16::to_string)
        .collect();
    let wanted: Vec<String> = plan.ports.iter().map(u16::to_string).collect();
    let found = match taken.as_slice() {
        [] => format!("{} free", wanted.join(", ")),
        taken => format!("something listens on {}", taken.join(", ")),
    };
    // Or it is the broker itself, which is none.
    Check {
        name: NAME,
        level: Level::Advice.unless(taken.is_empty()),
        found,
        wanted: format!("{} free, unless the broker runs already", wanted.join(", ")),
        why: WHY,
        fix: taken.first().map(|port| {
            format!("ss -ltnp 'sport = :{port}' names the program; stop it or choose another port")
        }),
        undo: None,
    }
}
