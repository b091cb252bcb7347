//! The machine that a result was measured on, as far as it explains the result.

use std::fs;

use serde::{Deserialize, Serialize};

/// Facts of the machine. What could not be read is empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Model of the CPU, from `/proc/cpuinfo`.
    pub cpu: String,
    /// CPUs that are online.
    pub cores: u64,
    /// CPUs that this process may run on, as the kernel lists them.
    pub allowed_cores: String,
    /// Governor of the frequency of CPU 0; empty where there is none, as in most virtual machines.
    pub governor: String,
    /// Whether the CPU says that it is a guest.
    pub virtual_machine: bool,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the distribution.
    pub system: String,
}

impl Host {
    /// Reads the facts of this machine.
    #[must_use]
    pub fn read() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let cores = cpuinfo
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        Self {
            cpu: value(&cpuinfo, "model name", ':'),
            cores: u64::try_from(cores).unwrap_or(0),
            allowed_cores: value(&text("/proc/self/status"), "Cpus_allowed_list", ':'),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtual_machine: value(&cpuinfo, "flags", ':')
                .split(' ')
                .any(|flag| flag == "hypervisor"),
            memory_bytes: value(&text("/proc/meminfo"), "MemTotal", ':')
                .split(' ')
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .map_or(0, |kib| kib * 1_024),
            kernel: text("/proc/sys/kernel/osrelease"),
            system: value(&text("/etc/os-release"), "PRETTY_NAME", '=')
                .trim_matches('"')
                .to_owned(),
        }
    }

    /// Name and value of each fact, for tables.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let known = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        let guest = if self.virtual_machine {
            " (a virtual machine)"
        } else {
            ""
        };
        vec![
            ("CPU", format!("{}{guest}", known(&self.cpu))),
            (
                "Cores",
                format!(
                    "{} online, {} allowed to the generator",
                    self.cores,
                    known(&self.allowed_cores)
                ),
            ),
            (
                "Frequency governor",
                match self.governor.as_str() {
                    "" => "none visible".to_owned(),
                    governor => governor.to_owned(),
                },
            ),
            ("Memory", super::units::bytes(as_f64(self.memory_bytes))),
            ("Kernel", known(&self.kernel)),
            ("System", known(&self.system)),
        ]
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for people, three digits of it are shown"
)]
pub(crate) fn as_f64(value: u64) -> f64 {
    value as f64
}

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The value of the first line that begins with `name`.
fn value(text: &str, name: &str, separator: char) -> String {
    text.lines()
        .find(|line| line.starts_with(name))
        .and_then(|line| line.split_once(separator))
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_something() {
        let host = Host::read();
        assert!(host.cores >= 1, "{host:?}");
        assert!(host.memory_bytes > 1 << 20, "{host:?}");
        assert!(!host.kernel.is_empty(), "{host:?}");
    }

    #[test]
    fn values_of_lines() {
        let text = "model name\t: A  CPU\nflags : a b\nPRETTY_NAME=\"X y\"";
        assert_eq!(value(text, "model name", ':'), "A  CPU");
        assert_eq!(value(text, "PRETTY_NAME", '='), "\"X y\"");
        assert_eq!(value(text, "missing", ':'), "");
    }
}
