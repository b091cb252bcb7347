//! What the kernel knows of this process, under the names that Prometheus' client libraries use.

use std::fs;

use crate::runtime::sys;
use crate::stats::{Exposition, Family, Kind};

const fn family(name: &'static str, kind: Kind, help: &'static [&'static str]) -> Family {
    Family {
        name,
        kind,
        label: None,
        help,
    }
}

const RESIDENT: Family = family(
    "process_resident_memory_bytes",
    Kind::Gauge,
    &["Resident memory of the process."],
);
const CPU: Family = family(
    "process_cpu_seconds_total",
    Kind::Counter,
    &["CPU time of the process, user and system."],
);
const OPEN_FILES: Family = family(
    "process_open_fds",
    Kind::Gauge,
    &["Open file descriptors; since Linux 6.2, which counts them at no cost."],
);
const MAX_FILES: Family = family(
    "process_max_fds",
    Kind::Gauge,
    &["File descriptors that the process may have open."],
);

/// All of them.
pub(super) const FAMILIES: [Family; 4] = [RESIDENT, CPU, OPEN_FILES, MAX_FILES];

/// Writes those that can be read.
pub(super) fn render(exposition: &mut Exposition) {
    let mut write = |family: &Family, value: Option<f64>| {
        if let Some(value) = value {
            exposition.header(family.name, family.kind.type_name(), &family.help_line());
            exposition.sample(family.name, &[], value);
        }
    };
    let resident = sys::memory().map(|memory| memory.current as f64);
    write(&RESIDENT, resident);
    write(&CPU, sys::process_cpu_us().map(|us| us as f64 / 1e6));
    // An older kernel says 0 for the size of this directory; to read it would take long with a
    // million connections.
    let open = fs::metadata("/proc/self/fd").map(|fds| fds.len()).ok();
    write(
        &OPEN_FILES,
        open.filter(|&fds| fds > 0).map(|fds| fds as f64),
    );
    let limit = sys::Resource::OpenFiles.limit().ok();
    write(&MAX_FILES, limit.map(|limit| limit.soft as f64));
}
