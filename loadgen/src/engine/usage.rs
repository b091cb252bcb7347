//! What processes use, from `/proc`.

use std::fs;

use crate::measure::Process;

/// Ticks of a second in `/proc/PID/stat`: the same on every Linux that Rust runs on.
const TICKS: u64 = 100;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) user_ns: u64,
    pub(super) system_ns: u64,
    pub(super) rss: u64,
    pub(super) switches: u64,
}

impl Usage {
    /// Of the process `pid`, or of this one.
    pub(super) fn of(pid: Option<u32>) -> Option<Self> {
        let name = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{name}/status")).ok()?;
        // Behind the name, which may hold anything but ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let (user, system) = (ticks()?, ticks()?);
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Self {
            user_ns: user * 1_000_000_000 / TICKS,
            system_ns: system * 1_000_000_000 / TICKS,
            rss: number("VmRSS:").unwrap_or(0) * 1024,
            switches: number("voluntary_ctxt_switches:").unwrap_or(0)
                + number("nonvoluntary_ctxt_switches:").unwrap_or(0),
        })
    }

    /// CPU time.
    pub(super) fn cpu_ns(&self) -> u64 {
        self.user_ns + self.system_ns
    }
}

/// What a broker used between two times.
pub(super) fn process(pid: u32, before: u64, first: Usage, last: Usage) -> Process {
    Process {
        pid,
        user_ns: last.user_ns.saturating_sub(first.user_ns),
        system_ns: last.system_ns.saturating_sub(first.system_ns),
        rss_before: before,
        rss_after: last.rss,
        syscalls: None,
        context_switches: last.switches.saturating_sub(first.switches),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(None).unwrap();
        assert!(usage.rss > 0);
        assert_eq!(
            Usage::of(Some(std::process::id())).map(|usage| usage.rss > 0),
            Some(true)
        );
        assert_eq!(Usage::of(Some(u32::MAX)), None);
    }
}
