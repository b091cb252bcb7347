//! The command line.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, everything else to standard error"
)]

mod args;
mod build;
pub mod conditions;
mod file;
mod search;
pub mod units;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::measure::Outcome;
use crate::plan::Plan;
use crate::plan::scenarios::NAMED;
use crate::report::{self, Format};
use crate::screen::{self, Choice};
use crate::{compare, engine};

use args::{Cli, Command, Load};

/// The run could not be made.
const FAILED: u8 = 1;

/// The arguments contradict each other or the scenario.
const USAGE: u8 = 2;

/// A condition does not hold.
const BROKEN: u8 = 3;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (plan, load) = match cli.command {
        None => (Ok(build::canonical()), cli.load),
        Some(Command::Conn(load)) => (Ok(build::conn(&load)), load),
        Some(Command::Pub(load)) => (Ok(build::publish(&load)), load),
        Some(Command::Sub(load)) => (Ok(build::subscribe(&load)), load),
        Some(Command::Run { scenario, load }) => match file::read(&scenario, &load) {
            Ok((scenario, load)) => (build::scenario(&scenario, &load), load),
            Err(text) => (Err(text), Load::default()),
        },
        Some(Command::Scenarios { name }) => return list(name.as_deref()),
        Some(Command::Report { directory, format }) => return show(&directory, format),
        Some(Command::Compare(options)) => return contest(&options),
    };
    let plan = plan.and_then(|mut plan| {
        build::apply(&load, &mut plan)?;
        search::check(&plan, &load)?;
        Ok(plan)
    });
    match plan {
        Ok(plan) => generate(&plan, &load),
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::from(USAGE)
        }
    }
}

fn generate(plan: &Plan, load: &Load) -> ExitCode {
    let result = if let Some(conditions) = &load.find_max {
        search::find_max(plan, conditions, load)
    } else if load.sweep.is_empty() {
        once(plan, load, None).map(|outcome| vec![outcome])
    } else {
        search::sweep(plan, load)
    };
    match result {
        Ok(outcomes) => check(load, &outcomes),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Why something could not be done.
type Failure = Box<dyn std::error::Error>;

/// One run, with its result written where the flags say. Of several runs each has a folder of its
/// own in that of --out.
fn once(plan: &Plan, load: &Load, folder: Option<&str>) -> Result<Outcome, Failure> {
    let choice = match (load.format, load.no_tui) {
        (Format::Text, false) => Choice::Page,
        (Format::Text, true) => Choice::Lines,
        (Format::Json | Format::Csv, _) => Choice::Silent,
    };
    let outcome = engine::run(plan, screen::watch(choice).as_mut())?;
    report::print(&outcome, load.format, &mut std::io::stdout().lock())?;
    if let Some(directory) = &load.out {
        let directory = folder.map_or_else(|| directory.clone(), |folder| directory.join(folder));
        report::write(&outcome, &directory)?;
    }
    Ok(outcome)
}

fn show(directory: &Path, format: Format) -> ExitCode {
    let result = report::load(directory).and_then(|document| {
        report::write_document(&document, directory)?;
        report::print_document(&document, format, &mut std::io::stdout().lock())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn contest(options: &compare::Options) -> ExitCode {
    match compare::run(options, &mut std::io::stderr(), &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn check(load: &Load, outcomes: &[Outcome]) -> ExitCode {
    let Some(conditions) = &load.assert else {
        return ExitCode::SUCCESS;
    };
    let broken: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| conditions.broken(outcome))
        .collect();
    for text in &broken {
        eprintln!("does not hold: {text}");
    }
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BROKEN)
    }
}

fn list(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        for named in NAMED {
            println!("{:<28} {}", named.name, named.about);
        }
        println!(
            "\nAny name of the form KIND-PUBLISHERS-SUBSCRIBERS-TOPICS-RATE is a scenario too."
        );
        println!("Suffixes: -x0.1 takes a tenth of every number, @small what two cores carry.");
        return ExitCode::SUCCESS;
    };
    match build::scenario(name, &Load::default()) {
        Ok(plan) => {
            for (key, value) in plan.parameters() {
                println!("{key:<28} {value}");
            }
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::from(USAGE)
        }
    }
}
