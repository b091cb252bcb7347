//! Facts about a machine, read from files below a root: the real one, or a tree that a test made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The settings of the kernel that are looked at.
const SYSCTLS: [&str; 17] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.osrelease",
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "vm.overcommit_memory",
    "vm.swappiness",
];

/// A soft and a hard limit; `u64::MAX` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// A network interface with a device behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) name: String,
    pub(super) receive_queues: usize,
    pub(super) send_queues: usize,
    /// Receive queues whose packets the kernel spreads over CPUs.
    pub(super) rps_queues: usize,
    /// Send queues that have CPUs of their own.
    pub(super) xps_queues: usize,
    /// The CPUs that its interrupts may go to, of each interrupt.
    pub(super) irq_cpus: Vec<String>,
    /// The NUMA node it hangs on, if there is more than one.
    pub(super) numa_node: Option<i32>,
}

/// What became of an attempt to use the configured driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DriverFacts {
    Works {
        text: String,
        /// Why io_uring is not used although it might be.
        fallback: Option<String>,
    },
    Fails(String),
}

/// Everything that is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    sysctls: BTreeMap<&'static str, String>,
    pub(super) driver: Option<DriverFacts>,
    pub(super) open_files: Option<Limit>,
    pub(super) locked_memory: Option<Limit>,
    /// Whether this process may lock as much as it likes.
    pub(super) may_lock: bool,
    pub(super) cpus_allowed: Option<BTreeSet<usize>>,
    pub(super) cpus_online: Option<BTreeSet<usize>>,
    /// Governors of frequency, each once.
    pub(super) governors: BTreeSet<String>,
    pub(super) numa_nodes: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) huge_pages: Option<String>,
    pub(super) clock_source: Option<String>,
    /// Nanoseconds that an idle CPU of a virtual machine polls before it halts, where it can.
    pub(super) halt_poll_ns: Option<u64>,
    /// Thousandths of a CPU that the cgroup may use.
    pub(super) cpu_quota: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) memory_total: Option<u64>,
    pub(super) nics: Vec<Nic>,
    pub(super) irqbalance: bool,
    pub(super) ports_in_use: BTreeSet<u16>,
}

/// Reads files below a root.
struct Reader<'a>(&'a Path);

impl Reader<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The file without the space around its text.
    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The names in a folder, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn cpus(&self, path: &str) -> Option<BTreeSet<usize>> {
        self.text(path).map(|text| cpu_list(&text))
    }
}

impl Machine {
    /// Reads what there is below `root`; what is missing stays unknown.
    pub(super) fn read(root: &Path) -> Self {
        let reader = Reader(root);
        let status = reader.text("/proc/self/status").unwrap_or_default();
        let limits = reader.text("/proc/self/limits").unwrap_or_default();
        let (cpu_quota, memory_limit) = cgroup(&reader);
        Self {
            sysctls: SYSCTLS
                .into_iter()
                .filter_map(|key| {
                    let text = reader.text(&format!("/proc/sys/{}", key.replace('.', "/")))?;
                    let words: Vec<&str> = text.split_whitespace().collect();
                    Some((key, words.join(" ")))
                })
                .collect(),
            driver: None,
            open_files: limit(&limits, "Max open files"),
            locked_memory: limit(&limits, "Max locked memory"),
            may_lock: may_lock(&status),
            cpus_allowed: field(&status, "Cpus_allowed_list:").map(cpu_list),
            cpus_online: reader.cpus("/sys/devices/system/cpu/online"),
            governors: governors(&reader),
            numa_nodes: numa_nodes(&reader),
            huge_pages: reader
                .text("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| chosen(&text)),
            clock_source: reader
                .text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            halt_poll_ns: halt_poll(&reader),
            cpu_quota,
            memory_limit,
            memory_total: reader.text("/proc/meminfo").and_then(|text| {
                let kib = field(&text, "MemTotal:")?.trim_end_matches("kB").trim();
                Some(kib.parse::<u64>().ok()? * 1024)
            }),
            nics: nics(&reader),
            irqbalance: is_running(&reader, "irqbalance"),
            ports_in_use: ports_in_use(&reader),
        }
    }

    /// A setting of the kernel, as `net.core.somaxconn`.
    pub(super) fn sysctl(&self, key: &str) -> Option<&str> {
        self.sysctls.get(key).map(String::as_str)
    }

    /// The numbers of a setting.
    pub(super) fn numbers(&self, key: &str) -> Option<Vec<u64>> {
        let words = self.sysctl(key)?.split_whitespace();
        words.map(|word| word.parse().ok()).collect()
    }
}

/// What stands behind a name at the start of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

/// What the governor `haltpoll` is set to, if it is in charge.
fn halt_poll(reader: &Reader<'_>) -> Option<u64> {
    let governor = reader.text("/sys/devices/system/cpu/cpuidle/current_governor")?;
    let nanoseconds = reader.text("/sys/module/haltpoll/parameters/guest_halt_poll_ns")?;
    (governor == "haltpoll").then(|| nanoseconds.parse().ok())?
}

/// A line of `/proc/self/limits`.
fn limit(text: &str, name: &str) -> Option<Limit> {
    let mut words = field(text, name)?.split_whitespace();
    let mut number = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    };
    Some(Limit {
        soft: number()?,
        hard: number()?,
    })
}

/// Whether locked memory is not charged: CAP_IPC_LOCK.
fn may_lock(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    field(status, "CapEff:")
        .and_then(|bits| u64::from_str_radix(bits, 16).ok())
        .is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// `0-3,8` as a set.
pub(super) fn cpu_list(text: &str) -> BTreeSet<usize> {
    let ranges = text.split(',').filter_map(|range| {
        let (first, last) = range
            .trim()
            .split_once('-')
            .unwrap_or_else(|| (range.trim(), range.trim()));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    });
    ranges.flatten().collect()
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn governors(reader: &Reader<'_>) -> BTreeSet<String> {
    let folder = "/sys/devices/system/cpu";
    let names = reader.names(folder).into_iter();
    names
        .filter_map(|cpu| reader.text(&format!("{folder}/{cpu}/cpufreq/scaling_governor")))
        .collect()
}

fn numa_nodes(reader: &Reader<'_>) -> BTreeMap<usize, BTreeSet<usize>> {
    let folder = "/sys/devices/system/node";
    let nodes = reader.names(folder).into_iter().filter_map(|name| {
        let node = name.strip_prefix("node")?.parse().ok()?;
        let cpus = reader.cpus(&format!("{folder}/{name}/cpulist"))?;
        Some((node, cpus))
    });
    // A node of memory alone serves nobody.
    nodes.filter(|(_, cpus)| !cpus.is_empty()).collect()
}

/// Thousandths of a CPU and bytes that the cgroup of this process, or one above it, allows.
fn cgroup(reader: &Reader<'_>) -> (Option<u64>, Option<u64>) {
    let own = reader.text("/proc/self/cgroup").unwrap_or_default();
    let mut path = field(&own, "0::")
        .unwrap_or("/")
        .trim_end_matches('/')
        .to_owned();
    let (mut quota, mut memory): (Option<u64>, Option<u64>) = (None, None);
    loop {
        let file = |name: &str| reader.text(&format!("/sys/fs/cgroup{path}/{name}"));
        if let Some(text) = file("cpu.max")
            && let Some((time, period)) = text.split_once(' ')
            && let (Ok(time), Ok(period)) = (time.parse::<u64>(), period.parse::<u64>())
        {
            let found = time * 1_000 / period.max(1);
            quota = Some(quota.map_or(found, |least| least.min(found)));
        }
        if let Some(found) = file("memory.max").and_then(|text| text.parse::<u64>().ok()) {
            memory = Some(memory.map_or(found, |least| least.min(found)));
        }
        match path.rfind('/') {
            Some(at) => path.truncate(at),
            None => return (quota, memory),
        }
    }
}

fn nics(reader: &Reader<'_>) -> Vec<Nic> {
    let interrupts = reader.text("/proc/interrupts").unwrap_or_default();
    let names = reader.names("/sys/class/net").into_iter();
    let has_device = |name: &String| {
        reader
            .path(&format!("/sys/class/net/{name}/device"))
            .exists()
    };
    names
        .filter(has_device)
        .map(|name| nic(reader, name, &interrupts))
        .collect()
}

fn nic(reader: &Reader<'_>, name: String, interrupts: &str) -> Nic {
    let queues = format!("/sys/class/net/{name}/queues");
    let all = reader.names(&queues);
    // A mask without a bit means that the kernel leaves it alone.
    let is_set = |queue: &String, file: &str| {
        let mask = reader.text(&format!("{queues}/{queue}/{file}"));
        mask.is_some_and(|mask| mask.chars().any(|c| c != '0' && c != ','))
    };
    let of = |kind: &'static str| all.iter().filter(move |queue| queue.starts_with(kind));
    // Named after the interface, or after the device below it.
    let device = fs::read_link(reader.path(&format!("/sys/class/net/{name}/device")));
    let device = device
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let is_ours = |line: &str| {
        let last = line.split_whitespace().last().unwrap_or_default();
        last.split(['-', '@', ':']).next() == Some(name.as_str())
            || last.starts_with(&format!("{name}-"))
            || device
                .as_ref()
                .is_some_and(|device| last.contains(device.as_str()))
    };
    let irq_cpus = interrupts
        .lines()
        .filter(|line| is_ours(line))
        .filter_map(|line| {
            let irq = line.split_once(':')?.0.trim();
            reader.text(&format!("/proc/irq/{irq}/smp_affinity_list"))
        });
    Nic {
        receive_queues: of("rx-").count(),
        send_queues: of("tx-").count(),
        rps_queues: of("rx-").filter(|queue| is_set(queue, "rps_cpus")).count(),
        xps_queues: of("tx-").filter(|queue| is_set(queue, "xps_cpus")).count(),
        irq_cpus: irq_cpus.collect(),
        numa_node: reader
            .text(&format!("/sys/class/net/{name}/device/numa_node"))
            .and_then(|node| node.parse().ok())
            .filter(|&node| node >= 0),
        name,
    }
}

fn is_running(reader: &Reader<'_>, program: &str) -> bool {
    let processes = reader.names("/proc").into_iter();
    processes
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .any(|process| reader.text(&format!("/proc/{process}/comm")).as_deref() == Some(program))
}

/// Ports on which something listens.
fn ports_in_use(reader: &Reader<'_>) -> BTreeSet<u16> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter();
    let tables: Vec<String> = tables.filter_map(|path| reader.text(path)).collect();
    let lines = tables.iter().flat_map(|table| table.lines());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let local = words.nth(1)?;
            let state = words.nth(1)?;
            let (_, port) = local.rsplit_once(':')?;
            (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}
