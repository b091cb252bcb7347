//! Counting a broker's system calls, in a pass of its own because counting costs.
//!
//! `perf stat` counts the tracepoint that every system call passes, twice a second; the median of
//! those counts is the steady state, whatever connecting and disconnecting took. Where perf may not
//! be used nothing is counted: a tracer such as strace makes each call so slow that messages gather
//! and the count is that of another program.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::launch::{self, Owned};
use super::statistics::Spread;

/// Length of a count in milliseconds.
const COUNT_MS: u32 = 500;

const EVENT: &str = "raw_syscalls:sys_enter";

/// What a result says about how they were counted.
pub(crate) const METHOD: &str = "perf stat -e raw_syscalls:sys_enter, in runs of their own";

/// Whether perf can count here; otherwise why not.
pub(crate) fn available() -> Result<(), String> {
    let output = Command::new("perf")
        .args(["stat", "-x,", "-e", EVENT, "true"])
        .output()
        .map_err(|error| format!("perf cannot be run ({error}); Debian's package is linux-perf"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.lines().any(|line| count(line, 0).is_some()) {
        Ok(())
    } else {
        Err(format!(
            "perf may not count {EVENT} here: {}",
            said.lines().next().unwrap_or("it said nothing")
        ))
    }
}

/// A count that runs.
#[derive(Debug)]
pub(crate) struct Counting {
    perf: Owned,
    file: PathBuf,
}

impl Counting {
    /// Begins to count the calls of `pid`.
    pub(crate) fn start(pid: u32, directory: &Path) -> io::Result<Self> {
        let file = directory.join("syscalls");
        let mut command = Command::new("perf");
        command
            .args(["stat", "-x,", "-e", EVENT, "-I", &COUNT_MS.to_string()])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&file)?);
        let perf = launch::spawn(&mut command, &[])?;
        Ok(Self { perf, file })
    }

    /// Ends it; system calls per second.
    pub(crate) fn finish(mut self) -> io::Result<Option<f64>> {
        self.perf.interrupt(Duration::from_secs(5))?;
        let text = std::fs::read_to_string(&self.file)?;
        Ok(steady(&text))
    }
}

/// The median of the counts in which something was called, for a second. The first and the last one
/// are shorter than the others.
fn steady(text: &str) -> Option<f64> {
    let counts: Vec<f64> = text.lines().filter_map(|line| count(line, 1)).collect();
    let inner = counts.get(1..counts.len().checked_sub(1)?)?;
    let busy: Vec<f64> = inner.iter().copied().filter(|count| *count > 0.0).collect();
    Spread::of(&busy).map(|spread| spread.median * 1_000.0 / f64::from(COUNT_MS))
}

/// The count of a line that has `before` fields in front of it.
fn count(line: &str, before: usize) -> Option<f64> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    if !fields.iter().any(|field| field.contains(EVENT)) {
        return None;
    }
    fields.get(before)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_state_is_the_median_of_the_inner_counts() {
        let mut text = String::from("# started on now\n\n");
        for (at, count) in ["9", "900", "100", "110", "<not counted>", "105", "0", "3"]
            .iter()
            .enumerate()
        {
            text += &format!("     {at}.500,{count},,raw_syscalls:sys_enter,500,100.00,,\n");
        }
        // 900, 100, 110 and 105 are left.
        assert_eq!(steady(&text), Some(107.5 * 2.0));
        assert_eq!(steady(""), None);
        assert_eq!(steady("1.0,5,,raw_syscalls:sys_enter,1,1,,"), None);
    }
}
