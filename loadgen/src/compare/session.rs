//! A comparison while it is made: rounds of works, each run with a broker of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::engine::interrupted;
use crate::report::document::{Document, Generator};
use crate::report::host::Host;
use crate::report::{named, save};

use super::brokers::Broker;
use super::launch::{self, Scratch};
use super::result::{COMPARE_FORMAT, Comparison, Contender, Method, Run, WorkFacts};
use super::works::{self, Metric, Work};
use super::{Extra, Options, find, root, syscalls, unix_seconds};

/// How far the rounds came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    All,
    /// Until somewhere in this round.
    Part(u32),
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
pub(super) struct Session<'a> {
    options: &'a Options,
    works: Vec<&'static Work>,
    targets: Vec<Target>,
    contenders: Vec<Contender>,
    generator: PathBuf,
}

impl<'a> Session<'a> {
    pub(super) fn new(options: &'a Options) -> io::Result<Self> {
        let works = works::select(&options.works)
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        let root = root(options);
        let (mut targets, mut contenders) = (Vec::new(), Vec::new());
        // An empty list is a list of one empty name.
        for name in options.brokers.iter().filter(|name| !name.is_empty()) {
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
            let mut text = if contenders.is_empty() {
                "there is nothing to compare: --brokers is empty, and there is no --extra"
                    .to_owned()
            } else {
                "none of the brokers is installed".to_owned()
            };
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

    /// Makes all runs, or those before an interruption.
    pub(super) fn measure(mut self, progress: &mut dyn Write) -> io::Result<Comparison> {
        let started_unix_s = unix_seconds();
        for contender in &self.contenders {
            if let Some(missing) = &contender.missing {
                writeln!(progress, "{} is left out: {missing}", contender.name)?;
            }
        }
        let base = self.base(progress)?;
        let mut runs = Vec::new();
        let done = self.rounds(progress, &mut runs)?;
        let syscalls = match done {
            Done::All => self.count_syscalls(progress, &mut runs)?,
            Done::Part(_) => String::new(),
        };
        let partial = match done {
            Done::All => None,
            Done::Part(_) if runs.is_empty() => {
                return Err(io::Error::other(
                    "interrupted before all brokers had done one work: there is nothing to compare",
                ));
            }
            Done::Part(round) => {
                let rounds = self.options.rounds;
                Some(format!("interrupted in round {round} of {rounds}"))
            }
        };
        let mut works: Vec<WorkFacts> = self.works.iter().map(|work| facts(work)).collect();
        if partial.is_some() {
            works.retain(|work| runs.iter().any(|run| run.work == work.key));
        }
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
                base,
                syscalls,
                partial,
            },
            brokers: self.contenders,
            works,
            runs,
        })
    }

    /// All rounds. Of a work that an interruption left unfinished in its round nothing is kept: brokers
    /// are compared with each other in the same round only.
    fn rounds(&mut self, progress: &mut dyn Write, runs: &mut Vec<Run>) -> io::Result<Done> {
        for round in 1..=self.options.rounds {
            for work in self.works.clone() {
                let complete = runs.len();
                for target in self.order(round) {
                    if !work.is_for(target.name()) {
                        continue;
                    }
                    let Some(run) = self.run(round, work, &target, false)? else {
                        runs.truncate(complete);
                        writeln!(progress, "interrupted in round {round}, work {}", work.key)?;
                        return Ok(Done::Part(round));
                    };
                    line(progress, self.options.rounds, &run, work)?;
                    runs.push(run);
                }
            }
        }
        Ok(Done::All)
    }

    /// The one that was asked for, or the first one if that is not there.
    fn base(&self, progress: &mut dyn Write) -> io::Result<String> {
        let wanted = &self.options.base;
        let there = self.targets.iter().any(|target| target.name() == wanted);
        let first = self.targets.first().map_or("", Target::name);
        if !there {
            writeln!(
                progress,
                "{wanted} (--base) is not among those measured: ratios are to {first}"
            )?;
        }
        Ok(if there { wanted } else { first }.to_owned())
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
                let Some(mut run) = self.run(0, work, &target, true)? else {
                    writeln!(progress, "interrupted while system calls were counted")?;
                    return Ok(format!("{} (interrupted)", syscalls::METHOD));
                };
                line(progress, self.options.rounds, &run, work)?;
                // Everything else was measured without being counted.
                run.values.retain(|key, _| key == Metric::Syscalls.key());
                run.spectrum.clear();
                runs.push(run);
            }
        }
        Ok(syscalls::METHOD.to_owned())
    }

    /// One run, or nothing if the process was interrupted. What goes wrong with it stands in it; an
    /// error is ours.
    fn run(
        &mut self,
        round: u32,
        work: &Work,
        target: &Target,
        count: bool,
    ) -> io::Result<Option<Run>> {
        if interrupted() {
            return Ok(None);
        }
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
                        return Ok((!interrupted()).then_some(run));
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
        let result = self.generate(work, address, pid, &scratch);
        if interrupted() {
            // Ctrl-C reaches the children too: what they say now is of a run that was cut short.
            return Ok(None);
        }
        match result {
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
        Ok(Some(run))
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
        let Some(status) = child.wait_unless(patience, interrupted)? else {
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

pub(super) fn facts(work: &Work) -> WorkFacts {
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
