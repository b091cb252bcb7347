//! `compare`: several brokers under the same works, interleaved in rounds.
//!
//! Every run has a broker of its own, started for it and ended after it, so that no run finds what
//! another one left behind. In each round the order of the brokers moves on by one. The generator is
//! this program as a child, so that what is compared is what anybody can run by hand.

mod brokers;
mod launch;
mod page;
pub mod result;
pub mod statistics;
mod syscalls;
mod table;
mod works;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::report::document::{Document, Generator};
use crate::report::host::Host;
use crate::report::{named, save};
use brokers::Broker;
use launch::Scratch;
use result::{COMPARE_FORMAT, Comparison, Contender, Method, Run, WorkFacts};
use works::{Metric, Work};

/// What is compared, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Brokers to start, from shardmq, shardmq-epoll, shardmq-0 and shardmq-epoll-0 (without
    /// gathering), shardmq-2-shards, mosquitto, rumqttd, rmqttd, nats.
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
pub fn run(options: &Options, progress: &mut dyn Write, out: &mut dyn Write) -> io::Result<()> {
    if options.install {
        return install(options, progress);
    }
    let comparison = if options.results.is_empty() {
        Session::new(options)?.measure(progress)?
    } else {
        saved(&options.results)?
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
            if !Command::new(program).args(arguments).status()?.success() {
                failed.push(name.as_str());
                break;
            }
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

/// Who is measured.
#[derive(Clone, Debug)]
enum Target {
    Started(&'static Broker, PathBuf),
    Extra(Extra),
}

impl Target {
    fn name(&self) -> &str {
        match self {
            Self::Started(broker, _) => broker.name,
            Self::Extra(extra) => &extra.name,
        }
    }
}

/// A comparison while it is made.
struct Session<'a> {
    options: &'a Options,
    works: Vec<&'static Work>,
    targets: Vec<Target>,
    contenders: Vec<Contender>,
    generator: PathBuf,
}

impl<'a> Session<'a> {
    fn new(options: &'a Options) -> io::Result<Self> {
        let works = works::select(&options.works)
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        let root = root(options);
        let (mut targets, mut contenders) = (Vec::new(), Vec::new());
        for name in &options.brokers {
            let broker = find(name)?;
            let mut contender = Contender {
                name: name.clone(),
                ..Contender::default()
            };
            match broker.program(&root) {
                Some(program) => {
                    contender.version = broker.version(&program);
                    targets.push(Target::Started(broker, program));
                }
                None => {
                    contender.missing =
                        Some(format!("not installed: {}", broker.install_line(&root)));
                }
            }
            contenders.push(contender);
        }
        for extra in &options.extra {
            contenders.push(Contender {
                name: extra.name.clone(),
                version: format!("at {}", extra.address),
                ..Contender::default()
            });
            targets.push(Target::Extra(extra.clone()));
        }
        if targets.is_empty() {
            let mut text = "none of the brokers is installed".to_owned();
            for contender in &contenders {
                let missing = contender.missing.as_deref().unwrap_or_default();
                text += &format!("\n  {}: {missing}", contender.name);
            }
            return Err(io::Error::other(text));
        }
        launch::raise_open_files();
        Ok(Self {
            options,
            works,
            targets,
            contenders,
            generator: std::env::current_exe()?,
        })
    }

    fn measure(mut self, progress: &mut dyn Write) -> io::Result<Comparison> {
        let started_unix_s = unix_seconds();
        for contender in &self.contenders {
            if let Some(missing) = &contender.missing {
                writeln!(progress, "{} is left out: {missing}", contender.name)?;
            }
        }
        let mut runs = Vec::new();
        for round in 1..=self.options.rounds {
            for work in self.works.clone() {
                for target in self.order(round) {
                    if !work.is_for(target.name()) {
                        continue;
                    }
                    let run = self.run(round, work, &target, false)?;
                    line(progress, self.options.rounds, &run, work)?;
                    runs.push(run);
                }
            }
        }
        let syscalls = self.count_syscalls(progress, &mut runs)?;
        Ok(Comparison {
            format: COMPARE_FORMAT,
            started_unix_s,
            generator: Generator {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                driver: "auto".to_owned(),
            },
            host: Host::read(),
            method: Method {
                rounds: self.options.rounds,
                duration_s: self.options.duration.as_secs(),
                broker_cpus: list(&self.options.broker_cpu),
                generator_cpus: list(&self.options.generator_cpu),
                base: self.base(),
                syscalls,
            },
            brokers: self.contenders,
            works: self.works.iter().map(|work| facts(work)).collect(),
            runs,
        })
    }

    /// The one that was asked for, or the first one if that is not there.
    fn base(&self) -> String {
        self.targets
            .iter()
            .find(|target| target.name() == self.options.base)
            .or_else(|| self.targets.first())
            .map_or_else(String::new, |target| target.name().to_owned())
    }

    /// Each round begins with another broker.
    fn order(&self, round: u32) -> Vec<Target> {
        let mut targets = self.targets.clone();
        let by = usize::try_from(round - 1).unwrap_or(0) % targets.len();
        targets.rotate_left(by);
        targets
    }

    /// The pass that counts system calls; what they were counted with.
    fn count_syscalls(
        &mut self,
        progress: &mut dyn Write,
        runs: &mut Vec<Run>,
    ) -> io::Result<String> {
        if !self.options.syscalls {
            return Ok(String::new());
        }
        if let Err(why) = syscalls::available() {
            writeln!(progress, "system calls are not counted: {why}")?;
            return Ok(String::new());
        }
        for work in self.works.clone() {
            for target in self.targets.clone() {
                if !work.is_for(target.name()) || !work.metrics.contains(&Metric::Cpu) {
                    continue;
                }
                let mut run = self.run(0, work, &target, true)?;
                line(progress, self.options.rounds, &run, work)?;
                // Everything else was measured without being counted.
                run.values.retain(|key, _| key == Metric::Syscalls.key());
                run.spectrum.clear();
                runs.push(run);
            }
        }
        Ok("perf stat -e raw_syscalls:sys_enter, in runs of their own".to_owned())
    }

    /// One run. What goes wrong with it stands in it; an error is ours.
    fn run(&mut self, round: u32, work: &Work, target: &Target, count: bool) -> io::Result<Run> {
        let mut run = Run {
            round,
            work: work.key.to_owned(),
            broker: target.name().to_owned(),
            ..Run::default()
        };
        let started;
        let (address, pid) = match target {
            Target::Extra(extra) => (extra.address, extra.pid),
            Target::Started(broker, program) => {
                let cpus = self.broker_cpus(broker);
                match launch::start(broker, program, cpus) {
                    Ok(broker) => started = broker,
                    Err(error) => {
                        run.failed = Some(format!("broker {error}"));
                        return Ok(run);
                    }
                }
                self.describe(&started);
                (started.address, Some(started.process.pid()))
            }
        };
        let scratch = Scratch::new()?;
        let counting = match pid.filter(|_| count) {
            Some(pid) => Some(syscalls::Counting::start(pid, scratch.path())?),
            None => None,
        };
        match self.generate(work, address, pid, &scratch) {
            Ok(document) => {
                run.measured(&document);
                let calls = match counting {
                    Some(counting) => counting.finish()?,
                    None => None,
                };
                if let Some(calls) = calls.filter(|_| document.per_second.received > 0.0) {
                    let each = calls / document.per_second.received;
                    run.values.insert(Metric::Syscalls.key().to_owned(), each);
                }
                self.keep(&run, &document)?;
            }
            Err(error) => run.failed = Some(error.to_string()),
        }
        Ok(run)
    }

    fn broker_cpus(&self, broker: &Broker) -> &[usize] {
        let all = &self.options.broker_cpu;
        match (broker.cpus(), all.get(..1)) {
            (1, Some(first)) => first,
            // Two shards on a machine with two cores need the generator's too.
            (2, _) if all.len() < 2 => &[],
            _ => all,
        }
    }

    fn describe(&mut self, started: &launch::Started) {
        let name = started.name;
        let unknown = self
            .contenders
            .iter_mut()
            .find(|contender| contender.name == name && contender.configuration.is_empty());
        if let Some(contender) = unknown {
            contender.arguments = started.arguments.join(" ");
            contender.configuration.clone_from(&started.configuration);
        }
    }

    /// Runs the generator and reads what it says.
    fn generate(
        &self,
        work: &Work,
        address: SocketAddr,
        pid: Option<u32>,
        scratch: &Scratch,
    ) -> io::Result<Document> {
        let (output, errors) = (scratch.path().join("out"), scratch.path().join("err"));
        let cpus = &self.options.generator_cpu;
        let mut command = Command::new(&self.generator);
        command
            .args(work.arguments())
            .args(["--host", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            // What every broker of the comparison speaks.
            .args(["--mqtt-version", "3.1.1"])
            .args([
                "--duration",
                &format!("{}s", self.options.duration.as_secs()),
            ])
            .args(["--warmup", "1s", "--format", "json"])
            .args(["--shards", &cpus.len().max(1).to_string()])
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?);
        if let Some(pid) = pid {
            command.args(["--broker-pid", &pid.to_string()]);
        }
        let mut child = launch::spawn(&mut command, cpus)?;
        let patience = self.options.duration + work.patience;
        let Some(status) = child.wait(patience)? else {
            return Err(io::Error::other(format!(
                "not done after {} s: {}",
                patience.as_secs(),
                launch::last_words(&errors)
            )));
        };
        if !status.success() {
            return Err(io::Error::other(launch::last_words(&errors)));
        }
        let json = fs::read_to_string(&output)?;
        Document::parse(&json).map_err(io::Error::other)
    }

    /// Writes the whole result of a run where `--out` says.
    fn keep(&self, run: &Run, document: &Document) -> io::Result<()> {
        let Some(out) = &self.options.out else {
            return Ok(());
        };
        let directory = out.join("runs");
        fs::create_dir_all(&directory).map_err(|error| named(&directory, &error))?;
        let json = document.to_json().map_err(io::Error::other)?;
        let name = match run.round {
            0 => format!("{}-{}-syscalls.json", run.work, run.broker),
            round => format!("{}-{}-{round}.json", run.work, run.broker),
        };
        save(&directory, &name, json.as_bytes())
    }
}

fn facts(work: &Work) -> WorkFacts {
    WorkFacts {
        key: work.key.to_owned(),
        title: work.title.to_owned(),
        arguments: work.arguments().join(" "),
        metrics: work
            .metrics
            .iter()
            .map(|metric| metric.key().to_owned())
            .collect(),
    }
}

fn list(cpus: &[usize]) -> String {
    cpus.iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(",")
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

/// What came of a run, in a line.
fn line(progress: &mut dyn Write, rounds: u32, run: &Run, work: &Work) -> io::Result<()> {
    let round = match run.round {
        0 => "syscalls".to_owned(),
        round => format!("{round}/{rounds}"),
    };
    write!(progress, "{round:<8} {:<11} {:<17}", run.work, run.broker)?;
    let metrics = work.metrics.iter().chain([&Metric::Syscalls]);
    for metric in metrics {
        if let Some(value) = run.values.get(metric.key()) {
            write!(progress, "  {} {}", metric.title(), metric.show(*value))?;
        }
    }
    if let Some(why) = &run.failed {
        write!(progress, "  FAILED: {why}")?;
    }
    if run.saturated.is_some() {
        write!(progress, "  GENERATOR SATURATED")?;
    }
    writeln!(progress)
}

/// A comparison of results that were saved: a `compare.json` as it is, or a run in each directory.
fn saved(directories: &[PathBuf]) -> io::Result<Comparison> {
    if let [directory] = directories {
        let path = directory.join("compare.json");
        let json = fs::read_to_string(&path).map_err(|error| named(&path, &error))?;
        return Comparison::parse(&json).map_err(|text| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {text}", path.display()),
            )
        });
    }
    let mut documents = Vec::new();
    for directory in directories {
        documents.push((name_of(directory), crate::report::load(directory)?));
    }
    Ok(beside_each_other(&documents))
}

fn name_of(directory: &Path) -> String {
    directory.file_name().map_or_else(
        || directory.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Each document is a broker; the first one is the base. Runs of the same name are the same work.
fn beside_each_other(documents: &[(String, Document)]) -> Comparison {
    let mut works: Vec<WorkFacts> = Vec::new();
    let mut runs = Vec::new();
    let mut rounds: HashMap<(String, String), u32> = HashMap::new();
    for (name, document) in documents {
        if !works.iter().any(|work| work.key == document.name) {
            works.push(WorkFacts {
                key: document.name.clone(),
                title: document.started.clone(),
                arguments: document
                    .parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join(" "),
                metrics: [Metric::Rate, Metric::Cpu, Metric::P50, Metric::P99]
                    .map(|metric| metric.key().to_owned())
                    .to_vec(),
            });
        }
        let round = rounds
            .entry((document.name.clone(), name.clone()))
            .and_modify(|round| *round += 1)
            .or_insert(1);
        let mut run = Run {
            round: *round,
            work: document.name.clone(),
            broker: name.clone(),
            ..Run::default()
        };
        run.measured(document);
        runs.push(run);
    }
    let first = documents.first();
    let mut contenders: Vec<Contender> = Vec::new();
    for (name, document) in documents {
        if !contenders.iter().any(|contender| contender.name == *name) {
            contenders.push(Contender {
                name: name.clone(),
                version: format!("measured {}", document.started),
                ..Contender::default()
            });
        }
    }
    Comparison {
        format: COMPARE_FORMAT,
        started_unix_s: unix_seconds(),
        generator: first.map_or_else(
            || Generator {
                version: String::new(),
                driver: String::new(),
            },
            |(_, document)| document.generator.clone(),
        ),
        host: first.map_or_else(Host::default, |(_, document)| document.host.clone()),
        method: Method {
            rounds: rounds.values().copied().max().unwrap_or(0),
            duration_s: 0,
            base: first.map_or_else(String::new, |(name, _)| name.clone()),
            ..Method::default()
        },
        brokers: contenders,
        works,
        runs,
    }
}

#[cfg(test)]
mod tests;
