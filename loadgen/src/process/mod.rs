//! What another process costs, read from `/proc`: CPU time, memory, threads, context switches.
//!
//! CPU time is the sum of what the scheduler counted for each thread (`task/*/schedstat`, in
//! nanoseconds), because the ticks of `stat` are 10 ms long, which is a percent of a second's run.
//! User and system time are split in the proportion of the ticks. Where the kernel has no schedstat,
//! the ticks stand for themselves.
//!
//! A [`Meter`] only grows: threads that end between two readings keep what they had at the last one,
//! so a sample less an earlier sample is never negative.

mod proc_files;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use crate::measure::Process;
use proc_files::{Status, Ticks};

/// What a process and, where asked for, its children have used since the meter first saw them, and
/// what they hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// User CPU time in nanoseconds.
    pub user_ns: u64,
    /// System CPU time in nanoseconds.
    pub system_ns: u64,
    /// Resident bytes now.
    pub rss: u64,
    /// Threads now.
    pub threads: u64,
    /// Context switches, voluntary and not.
    pub context_switches: u64,
    /// Processes now.
    pub processes: u64,
}

impl Sample {
    /// CPU time in nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.user_ns + self.system_ns
    }

    /// CPU use in cores between `earlier` and this sample, `seconds` apart.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a quotient for people, 52 bits of nanoseconds are 52 days"
    )]
    pub fn cores_since(&self, earlier: &Self, seconds: f64) -> f64 {
        let used = self.cpu_ns().saturating_sub(earlier.cpu_ns());
        used as f64 / 1e9 / seconds.max(1e-9)
    }

    /// The difference of the counters of two samples, and the memory at both, as a result shows it.
    #[must_use]
    pub fn difference(&self, earlier: &Self, pid: u32, rss_before: u64) -> Process {
        Process {
            pid,
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
            rss_before,
            rss_after: self.rss,
            syscalls: None,
            context_switches: self
                .context_switches
                .saturating_sub(earlier.context_switches),
        }
    }
}

/// Which processes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process alone, with all of its threads.
    Alone,
    /// The process and all that descend from it.
    WithChildren,
}

/// Reads what a process uses, again and again.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    scope: Scope,
    proc: PathBuf,
    /// Nanoseconds of CPU time of each thread at the last reading.
    threads: HashMap<u32, u64>,
    /// Ticks and switches of each process at the last reading.
    processes: HashMap<u32, (Ticks, u64)>,
    run_ns: u64,
    ticks: Ticks,
    context_switches: u64,
}

impl Meter {
    /// A meter for `pid`.
    #[must_use]
    pub fn new(pid: u32, scope: Scope) -> Self {
        Self {
            pid,
            scope,
            proc: PathBuf::from("/proc"),
            threads: HashMap::new(),
            processes: HashMap::new(),
            run_ns: 0,
            ticks: Ticks::default(),
            context_switches: 0,
        }
    }

    /// The pid that it was made for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// The process is gone, or may not be looked at.
    pub fn sample(&mut self) -> io::Result<Sample> {
        let mut pids = vec![self.pid];
        if self.scope == Scope::WithChildren {
            pids.extend(proc_files::descendants(&self.proc, self.pid));
        }
        let mut sample = Sample::default();
        for pid in pids {
            match self.process(pid) {
                Ok(status) => {
                    sample.rss += status.rss;
                    sample.threads += status.threads;
                    sample.processes += 1;
                }
                Err(error) if pid == self.pid => return Err(error),
                // A child that ended while we looked.
                Err(_) => {}
            }
        }
        (sample.user_ns, sample.system_ns) = self.ticks.split(self.run_ns);
        sample.context_switches = self.context_switches;
        Ok(sample)
    }

    fn process(&mut self, pid: u32) -> io::Result<Status> {
        let directory = self.proc.join(pid.to_string());
        let ticks = proc_files::ticks(&directory)?;
        let status = proc_files::status(&directory)?;
        let tasks = proc_files::tasks(&directory)?;
        let switches = tasks.iter().map(|task| task.context_switches).sum();
        for task in tasks {
            let last = self.threads.insert(task.tid, task.run_ns).unwrap_or(0);
            self.run_ns += task.run_ns.saturating_sub(last);
        }
        let (last_ticks, last_switches) = self
            .processes
            .insert(pid, (ticks, switches))
            .unwrap_or_default();
        self.ticks.add(ticks.since(last_ticks));
        self.context_switches += switches.saturating_sub(last_switches);
        Ok(status)
    }
}

/// CPU time of this process in nanoseconds.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn own_cpu_ns() -> io::Result<u64> {
    Ok(Meter::new(std::process::id(), Scope::Alone)
        .sample()?
        .cpu_ns())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_shows_in_the_meter() {
        let mut meter = Meter::new(std::process::id(), Scope::Alone);
        let before = meter.sample().unwrap();
        assert!(before.rss > 1 << 20, "{before:?}");
        assert!(before.threads >= 1 && before.processes == 1, "{before:?}");

        // Until the kernel has counted 20 ms: however slow or busy the machine is.
        let mut after = before;
        let mut value = 1_u64;
        while after.cpu_ns() < before.cpu_ns() + 20_000_000 {
            for round in 0..100_000_u64 {
                value = std::hint::black_box(value.wrapping_mul(31).wrapping_add(round));
            }
            after = meter.sample().unwrap();
        }
        assert!(after.cores_since(&before, 0.001) > 0.0);
        let used = after.difference(&before, 7, before.rss);
        assert_eq!((used.pid, used.rss_before), (7, before.rss));
        assert!(used.user_ns + used.system_ns >= 20_000_000);
        assert!(own_cpu_ns().unwrap() >= 20_000_000);
    }

    #[test]
    fn children_are_counted_only_where_asked_for() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let alone = Meter::new(std::process::id(), Scope::Alone)
            .sample()
            .unwrap();
        let with = Meter::new(std::process::id(), Scope::WithChildren)
            .sample()
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(alone.processes, 1);
        assert!(with.processes >= 2, "{with:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Meter::new(pid, Scope::Alone).sample().is_err());
    }
}
