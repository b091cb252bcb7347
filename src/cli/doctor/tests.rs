use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::machine::{Limit, cpu_list};
use super::*;

/// A tree that is gone when the test ends.
struct Tree(PathBuf);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardmq-doctor-{}-{number}", std::process::id());
        let tree = Self(std::env::temp_dir().join(name));
        tree.add(files);
        tree
    }

    fn add(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::read(&self.0);
        machine.driver = Some(DriverFacts::Works {
            text: "io_uring".to_owned(),
            fallback: None,
        });
        machine
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PLAN: Plan = Plan {
    connections: 100_000,
    shards: 4,
    backlog: 4_096,
    ports: Vec::new(),
};

/// A machine on which nothing is to be done.
const TUNED: &[(&str, &str)] = &[
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/sys/kernel/osrelease", "6.12.0-55.el10.x86_64\n"),
    ("proc/sys/net/core/busy_poll", "0\n"),
    ("proc/sys/net/core/busy_read", "0\n"),
    ("proc/sys/net/core/netdev_max_backlog", "16384\n"),
    ("proc/sys/net/core/somaxconn", "65535\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535\n"),
    ("proc/sys/net/ipv4/tcp_mem", "190000\t250000\t380000\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t16384\t262144\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t262144\n"),
    ("proc/sys/vm/overcommit_memory", "0\n"),
    ("proc/sys/vm/swappiness", "10\n"),
    (
        "sys/devices/system/cpu/cpuidle/current_governor",
        "haltpoll\n",
    ),
    (
        "sys/module/haltpoll/parameters/guest_halt_poll_ns",
        "200000\n",
    ),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n\
         Max open files            1024                 1048576              files\n\
         Max locked memory         8388608              unlimited            bytes\n",
    ),
    (
        "proc/self/status",
        "Name:\tshardmq\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-3\n",
    ),
    ("proc/self/cgroup", "0::/system.slice/shardmq.service\n"),
    (
        "proc/meminfo",
        "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
    ),
    ("sys/devices/system/cpu/online", "0-3\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "performance\n",
    ),
    (
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        "performance\n",
    ),
    ("sys/devices/system/node/node0/cpulist", "0-3\n"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    (
        "sys/fs/cgroup/system.slice/shardmq.service/cpu.max",
        "max 100000\n",
    ),
    ("sys/class/net/eth0/device/numa_node", "0\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-2/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-3/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "1\n"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
    (
        "proc/interrupts",
        "            CPU0       CPU1\n  24:   1   0  PCI-MSI 1-edge  eth0-rx-0\n\
           25:   0   1  PCI-MSI 2-edge  eth0-rx-1\n  26:   0   1  PCI-MSI 2-edge  nvme0q1\n",
    ),
    ("proc/irq/24/smp_affinity_list", "0\n"),
    ("proc/irq/25/smp_affinity_list", "1\n"),
    ("proc/irq/26/smp_affinity_list", "0-3\n"),
    (
        "proc/net/tcp",
        "  sl  local_address rem_address   st\n   0: 0100007F:075B 00000000:0000 0A\n   \
         1: 0100007F:1F90 0100007F:1F91 01\n",
    ),
];

fn found<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let check = checks.iter().find(|check| check.name == name);
    check.unwrap_or_else(|| panic!("no check {name}"))
}

/// What one changed file makes of the tuned machine.
fn with(files: &[(&str, &str)]) -> Vec<Check> {
    let tree = Tree::new(TUNED);
    tree.add(files);
    examine(&tree.machine(), &PLAN)
}

#[test]
fn a_tuned_machine_has_nothing_to_do_and_everything_is_read() {
    let tree = Tree::new(TUNED);
    let machine = tree.machine();
    let checks = examine(&machine, &PLAN);
    for check in &checks {
        assert_eq!(check.level, Level::Ok, "{check:?}");
        assert!(!check.found.contains("cannot be read"), "{check:?}");
        assert_eq!((&check.fix, &check.undo), (&None, &None), "{check:?}");
    }
    assert_eq!(
        machine.open_files,
        Some(Limit {
            soft: 1024,
            hard: 1_048_576
        })
    );
    assert_eq!(machine.ports_in_use, [1883].into());
    assert_eq!(machine.nics.len(), 1, "loopback has no device");
    assert_eq!(machine.nics[0].irq_cpus, ["0", "1"]);
    assert_eq!(worst(&checks), Level::Ok);
}

#[test]
fn a_machine_of_which_nothing_can_be_read_is_not_judged() {
    let tree = Tree::new(&[]);
    let mut machine = tree.machine();
    machine.driver = None;
    for check in examine(&machine, &PLAN) {
        assert_eq!(check.level, Level::Ok, "{check:?}");
    }
}

const FEW_FILES: &str =
    "Max open files  1024  4096  files\nMax locked memory  8388608  8388608  bytes\n";
const LITTLE_LOCKED: &str =
    "Max open files  1024  1048576  files\nMax locked memory  65536  65536  bytes\n";

/// The check, the file that spoils it, how bad that is, and what the fix and its undoing hold.
type Spoiled = (
    &'static str,
    &'static str,
    &'static str,
    Level,
    &'static str,
    &'static str,
);

const SPOILED: &[Spoiled] = &[
    (
        "open_files",
        "proc/self/limits",
        FEW_FILES,
        Level::Problem,
        "LimitNOFILE=100080",
        "ulimit -Hn 4096",
    ),
    (
        "locked_memory",
        "proc/self/limits",
        LITTLE_LOCKED,
        Level::Problem,
        "LimitMEMLOCK=3M",
        "take the line",
    ),
    (
        "open_files_machine",
        "proc/sys/fs/nr_open",
        "65536",
        Level::Problem,
        "fs.nr_open=100080",
        "fs.nr_open=65536",
    ),
    (
        "kernel",
        "proc/sys/kernel/osrelease",
        "6.1.0-9-amd64",
        Level::Advice,
        "newer kernel",
        "old kernel",
    ),
    (
        "somaxconn",
        "proc/sys/net/core/somaxconn",
        "4096",
        Level::Advice,
        "net.core.somaxconn=65535",
        "='4096'",
    ),
    (
        "syn_backlog",
        "proc/sys/net/ipv4/tcp_max_syn_backlog",
        "512",
        Level::Advice,
        "backlog=65535",
        "='512'",
    ),
    (
        "port_range",
        "proc/sys/net/ipv4/ip_local_port_range",
        "32768\t60999",
        Level::Advice,
        "'1024 65535'",
        "'32768 60999'",
    ),
    (
        "tcp_rmem",
        "proc/sys/net/ipv4/tcp_rmem",
        "4096 131072 6291456",
        Level::Advice,
        "'4096 16384 262144'",
        "'4096 131072 6291456'",
    ),
    (
        "tcp_wmem",
        "proc/sys/net/ipv4/tcp_wmem",
        "4096 16384 4194304",
        Level::Advice,
        "'4096 16384 262144'",
        "4194304'",
    ),
    (
        "tcp_mem",
        "proc/sys/net/ipv4/tcp_mem",
        "100 200 300",
        Level::Advice,
        "'50000 75000 100000'",
        "'100 200 300'",
    ),
    (
        "netdev_backlog",
        "proc/sys/net/core/netdev_max_backlog",
        "1000",
        Level::Advice,
        "=16384",
        "='1000'",
    ),
    (
        "rps_xps",
        "sys/class/net/eth0/queues/rx-2/rps_cpus",
        "f",
        Level::Advice,
        "echo 0 >",
        "",
    ),
    (
        "irq_affinity",
        "proc/irq/25/smp_affinity_list",
        "0",
        Level::Advice,
        "smp_affinity_list",
        "irqbalance",
    ),
    (
        "irq_affinity",
        "proc/77/comm",
        "irqbalance\n",
        Level::Advice,
        "stop irqbalance",
        "start irqbalance",
    ),
    (
        "conntrack",
        "proc/sys/net/netfilter/nf_conntrack_max",
        "65536",
        Level::Problem,
        "=150000",
        "=65536",
    ),
    (
        "busy_polling",
        "proc/sys/net/core/busy_poll",
        "50",
        Level::Advice,
        "busy_poll=0",
        "busy_poll=50",
    ),
    (
        "cpu_quota",
        "sys/fs/cgroup/system.slice/cpu.max",
        "150000 100000",
        Level::Advice,
        "CPUQuota=400%",
        "CPUQuota=150%",
    ),
    (
        "memory",
        "sys/fs/cgroup/system.slice/shardmq.service/memory.max",
        "104857600",
        Level::Problem,
        "MemoryMax=1562M",
        "MemoryMax=100M",
    ),
    (
        "cpu_governor",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        "powersave",
        Level::Advice,
        "echo performance",
        "echo ",
    ),
    (
        "clock_source",
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet",
        Level::Advice,
        "echo tsc",
        "echo hpet",
    ),
    (
        "guest_halt_poll",
        "sys/module/haltpoll/parameters/guest_halt_poll_ns",
        "0",
        Level::Advice,
        "echo 200000",
        "echo 0",
    ),
    (
        "huge_pages",
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
        Level::Advice,
        "echo madvise",
        "echo always",
    ),
    (
        "swappiness",
        "proc/sys/vm/swappiness",
        "60",
        Level::Advice,
        "vm.swappiness=10",
        "vm.swappiness=60",
    ),
    (
        "overcommit",
        "proc/sys/vm/overcommit_memory",
        "2",
        Level::Advice,
        "=0",
        "=2",
    ),
    (
        "shards",
        "proc/self/status",
        "Cpus_allowed_list:\t0-1\n",
        Level::Advice,
        "shards = 2",
        "shards = 4",
    ),
];

#[test]
fn whatever_is_wrong_is_found_with_its_fix_and_how_to_undo_it() {
    for (name, path, text, level, fix, undo) in SPOILED {
        let checks = with(&[(path, text)]);
        let check = found(&checks, name);
        assert_eq!(check.level, *level, "{check:?}");
        assert!(
            check.fix.as_ref().is_some_and(|text| text.contains(fix)),
            "{check:?}"
        );
        assert!(
            check.undo.as_deref().unwrap_or_default().contains(undo),
            "{check:?}"
        );
    }
}

#[test]
fn a_second_node_counts_only_if_it_is_used() {
    let node = ("sys/devices/system/node/node1/cpulist", "4-7\n");
    assert_eq!(found(&with(&[node]), "numa").level, Level::Ok);
    let both = ("proc/self/status", "Cpus_allowed_list:\t0-7\n");
    let checks = with(&[node, both]);
    let check = found(&checks, "numa");
    assert_eq!(check.level, Level::Advice);
    assert_eq!(
        check.fix.as_deref(),
        Some("in the systemd unit CPUAffinity=0 1 2 3")
    );
}

#[test]
fn a_card_with_one_queue_is_found() {
    let tree = Tree::new(TUNED);
    for queue in 1..4 {
        fs::remove_dir_all(tree.0.join(format!("sys/class/net/eth0/queues/rx-{queue}"))).unwrap();
    }
    let checks = examine(&tree.machine(), &PLAN);
    assert_eq!(found(&checks, "nic_queues").level, Level::Advice);
    let steering = found(&checks, "rps_xps");
    assert!(
        steering
            .fix
            .as_ref()
            .is_some_and(|fix| fix.contains("echo f >")),
        "{steering:?}"
    );
}

#[test]
fn a_port_that_is_taken_and_a_driver_that_fails_are_told() {
    let tree = Tree::new(TUNED);
    let mut machine = tree.machine();
    let plan = Plan {
        ports: vec![1883, 9883],
        ..PLAN
    };
    let check = found(&examine(&machine, &plan), "ports").clone();
    assert_eq!(check.found, "something listens on 1883");
    machine.driver = Some(DriverFacts::Fails("do this".to_owned()));
    let checks = examine(&machine, &plan);
    assert_eq!(found(&checks, "driver").fix.as_deref(), Some("do this"));
    assert_eq!(worst(&checks), Level::Problem);
    machine.driver = Some(DriverFacts::Works {
        text: "epoll: blocked".to_owned(),
        fallback: Some("allow it".to_owned()),
    });
    let checks = examine(&machine, &plan);
    assert_eq!(found(&checks, "driver").level, Level::Advice);
}

#[test]
fn both_forms_say_the_same() {
    let checks = with(&[("proc/sys/vm/swappiness", "60")]);
    let json = as_json(&checks, &PLAN);
    assert_eq!(
        (&json["format"], &json["level"]),
        (&json!(1), &json!("advice"))
    );
    let text = as_text(&checks, &PLAN);
    for check in json["checks"].as_array().unwrap() {
        assert!(text.contains(check["name"].as_str().unwrap()));
    }
    assert!(
        text.contains("fix:    sysctl -w vm.swappiness=10"),
        "{text}"
    );
    assert!(
        text.contains("undo:   sysctl -w vm.swappiness=60"),
        "{text}"
    );
}

/// The guide explains every check under its name.
#[test]
fn the_guide_names_every_check() {
    let guide = include_str!("../../../tuning.md");
    for check in with(&[]) {
        assert!(
            guide.contains(&format!("`{}`", check.name)),
            "{}",
            check.name
        );
    }
}

#[test]
fn lists_of_cpus_are_read() {
    assert_eq!(cpu_list("0-2,8"), [0, 1, 2, 8].into());
    assert_eq!(cpu_list(""), [].into());
}
