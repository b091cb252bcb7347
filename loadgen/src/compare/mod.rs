//! `compare`: several brokers under the same works, interleaved in rounds.
//!
//! Every run has a broker of its own, started for it and ended after it, so that no run finds what
//! another one left behind. In each round the order of the brokers moves on by one. The generator is
//! this program as a child, so that what is compared is what anybody can run by hand.

mod brokers;
mod launch;
mod page;
pub mod result;
mod saved;
mod session;
pub mod statistics;
mod syscalls;
mod table;
mod works;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::report::{named, save};
use brokers::Broker;
use session::Session;

/// What is compared, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Brokers to start, from shardmq, shardmq-epoll, shardmq-2-shards, mosquitto, rumqttd, rmqttd,
    /// nats, and for works B and E shardmq-0 and shardmq-epoll-0 (without gathering), for E
    /// shardmq-spin and shardmq-epoll-spin (which look for 50 us before they sleep); '' for none (see
    /// --extra)
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "shardmq,shardmq-epoll,mosquitto,rumqttd,rmqttd,nats"
    )]
    pub brokers: Vec<String>,

    /// Works, by letter or key: A, B20k, B50k, C, …; all of them if not given.
    #[arg(long, value_delimiter = ',', value_name = "KEYS")]
    pub works: Vec<String>,

    /// Rounds.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Length of each measured phase.
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = seconds)]
    pub duration: Duration,

    /// CPUs of the brokers; a broker with one shard gets the first one.
    #[arg(long, default_value = "0", value_delimiter = ',', value_name = "LIST")]
    pub broker_cpu: Vec<usize>,

    /// CPUs of the generator.
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "LIST")]
    pub generator_cpu: Vec<usize>,

    /// A broker that runs already: name=host:port or name=host:port,pid=N.
    #[arg(long, value_name = "BROKER", value_parser = Extra::parse)]
    pub extra: Vec<Extra>,

    /// The broker that the others are put in relation to.
    #[arg(long, default_value = "mosquitto", value_name = "NAME")]
    pub base: String,

    /// Count system calls too, in a pass of its own with `perf stat`.
    #[arg(long)]
    pub syscalls: bool,

    /// Install the brokers that are missing, and stop.
    #[arg(long)]
    pub install: bool,

    /// Where brokers from the Rust registry are installed [the user's cache directory].
    #[arg(long, value_name = "DIR")]
    pub brokers_dir: Option<PathBuf>,

    /// Print the table as Markdown.
    #[arg(long)]
    pub markdown: bool,

    /// Folder for compare.json, compare.html and the result of every run.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Measure nothing: compare results that were saved, of runs or of a comparison.
    #[arg(long, num_args = 1.., value_name = "DIR", conflicts_with_all = ["install", "extra"])]
    pub results: Vec<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse::<u64>()
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is no number of seconds, as 5s"))
}

/// A broker that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    name: String,
    address: SocketAddr,
    pid: Option<u32>,
}

impl Extra {
    fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not of the form name=host:port,pid=N");
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let (address, pid) = match rest.split_once(",pid=") {
            None => (rest, None),
            Some((address, pid)) => (address, Some(pid.parse().map_err(|_| form())?)),
        };
        Ok(Self {
            name: name.to_owned(),
            address: address.parse().map_err(|_| form())?,
            pid,
        })
    }
}

/// Compares. Progress goes to `progress`, the table to `out`.
///
/// # Errors
///
/// The options name something that there is not, nothing can be compared, or a file cannot be written.
/// An interruption is none, unless it left nothing to compare.
pub fn run(options: &Options, progress: &mut dyn Write, out: &mut dyn Write) -> io::Result<()> {
    if options.install {
        return install(options, progress);
    }
    let comparison = if options.results.is_empty() {
        Session::new(options)?.measure(progress)?
    } else {
        saved::load(&options.results)?
    };
    if let Some(directory) = &options.out {
        fs::create_dir_all(directory).map_err(|error| named(directory, &error))?;
        let json = serde_json::to_string_pretty(&comparison).map_err(io::Error::other)?;
        save(directory, "compare.json", json.as_bytes())?;
        save(
            directory,
            "compare.html",
            page::html(&comparison).as_bytes(),
        )?;
        save(
            directory,
            "compare.md",
            table::markdown(&comparison).as_bytes(),
        )?;
    }
    let text = if options.markdown {
        table::markdown(&comparison)
    } else {
        table::text(&comparison)
    };
    out.write_all(text.as_bytes())
}

/// Where brokers from the Rust registry are.
fn root(options: &Options) -> PathBuf {
    options.brokers_dir.clone().unwrap_or_else(|| {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
            .join("shardmq-brokers")
    })
}

fn install(options: &Options, progress: &mut dyn Write) -> io::Result<()> {
    let root = root(options);
    let mut failed = Vec::new();
    for name in &options.brokers {
        let broker = find(name)?;
        if let Some(program) = broker.program(&root) {
            writeln!(progress, "{name}: {}", program.display())?;
            continue;
        }
        writeln!(progress, "{name}: {}", broker.install_line(&root))?;
        for words in broker.install(&root) {
            let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
            let why = match Command::new(program).args(arguments).status() {
                Ok(status) if status.success() => continue,
                Ok(status) => format!("{program} ended with {status}"),
                Err(error) => format!("{program} cannot be run: {error}"),
            };
            failed.push(format!("{name} ({why})"));
            break;
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        let names = failed.join(", ");
        Err(io::Error::other(format!("could not install {names}")))
    }
}

fn find(name: &str) -> io::Result<&'static Broker> {
    brokers::find(name).map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a comparison says when it was made"
)]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
