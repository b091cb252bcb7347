//! The files of `/proc/PID` that are read, and how their lines are taken apart.

use std::fs;
use std::io;
use std::path::Path;

/// Length of a tick of `/proc/PID/stat` in nanoseconds: `USER_HZ` is 100 on every architecture that
/// Linux runs on today except alpha and ia64.
const TICK_NS: u64 = 10_000_000;

/// CPU time in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    pub(super) user: u64,
    pub(super) system: u64,
}

impl Ticks {
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }

    /// Splits `run_ns` in the proportion of the ticks. Where the ticks are more than that, it is
    /// because threads have ended, whose time is in the ticks alone, or because there is no schedstat.
    pub(super) fn split(self, run_ns: u64) -> (u64, u64) {
        let all = self.user + self.system;
        let run_ns = run_ns.max(all * TICK_NS);
        let all = u128::from(all);
        let user = (u128::from(run_ns) * u128::from(self.user))
            .checked_div(all)
            .map_or(run_ns, |user| u64::try_from(user).unwrap_or(run_ns));
        (user, run_ns - user)
    }
}

/// What `status` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) rss: u64,
    pub(super) threads: u64,
}

/// A thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) tid: u32,
    pub(super) run_ns: u64,
    pub(super) context_switches: u64,
}

pub(super) fn ticks(process: &Path) -> io::Result<Ticks> {
    parse_stat(&fs::read_to_string(process.join("stat"))?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat has an unknown form"))
}

/// Fields 14 and 15. The name in field 2 may hold spaces and brackets, so counting begins behind the
/// last bracket.
fn parse_stat(text: &str) -> Option<Ticks> {
    let mut fields = text
        .rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .skip(14 - 3);
    Some(Ticks {
        user: fields.next()?.parse().ok()?,
        system: fields.next()?.parse().ok()?,
    })
}

pub(super) fn status(process: &Path) -> io::Result<Status> {
    let text = fs::read_to_string(process.join("status"))?;
    Ok(Status {
        rss: field(&text, "VmRSS:") * 1024,
        threads: field(&text, "Threads:"),
    })
}

/// The number of a line of `status`; 0 where it is missing, as memory is of a zombie.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// All threads. One that ends while we look is left out.
pub(super) fn tasks(process: &Path) -> io::Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for entry in fs::read_dir(process.join("task"))? {
        let entry = entry?;
        let Some(tid) = entry.file_name().to_str().and_then(|tid| tid.parse().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let run_ns = fs::read_to_string(entry.path().join("schedstat"))
            .ok()
            .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        tasks.push(Task {
            tid,
            run_ns,
            context_switches: field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:"),
        });
    }
    Ok(tasks)
}

/// Every process that descends from `pid`.
pub(super) fn descendants(proc: &Path, pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        for child in children(&proc.join(pid.to_string())) {
            found.push(child);
            open.push(child);
        }
    }
    found
}

fn children(process: &Path) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(process.join("task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_last_bracket() {
        let text = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 111 222 13 14";
        let ticks = parse_stat(text).unwrap();
        assert_eq!((ticks.user, ticks.system), (111, 222));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn run_time_is_split_as_the_ticks_are() {
        let ticks = Ticks { user: 1, system: 3 };
        assert_eq!(ticks.split(48_000_000), (12_000_000, 36_000_000));
        assert_eq!(ticks.split(0), (10_000_000, 30_000_000));
        assert_eq!(Ticks::default().split(1_000), (1_000, 0));
    }

    #[test]
    fn a_line_of_status() {
        let text = "Name:\tx\nVmRSS:\t  1234 kB\nThreads:\t7\n";
        assert_eq!(field(text, "VmRSS:"), 1234);
        assert_eq!(field(text, "Threads:"), 7);
        assert_eq!(field(text, "VmSwap:"), 0);
    }
}
