//! The program around the broker: arguments, configuration, logs, the banner, and the clients.

mod args;
mod banner;
mod client;
mod doctor;
mod load;
mod logging;
mod metrics;
mod passwd;
mod run;
mod store;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use shardmq::config::Config;

use self::args::{CheckArgs, Cli, Command, PrintArgs};

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::CheckConfig(args)) => check_config(&args),
        Some(Command::PrintConfig(args)) => print_config(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::PrintMetrics) => print(metrics::table().as_bytes()),
        Some(Command::Passwd(args)) => passwd::run(&args),
        Some(Command::Store(args)) => store::run(&args),
        Some(Command::Pub(args)) => client::run_pub(&args),
        Some(Command::Sub(args)) => client::run_sub(&args),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shardmq", &mut script);
            print(&script)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(Cli::command()).render(&mut page) {
                Ok(()) => print(&page),
                Err(error) => fail(error),
            }
        }
    }
}

/// A command line that is none. The clients exit with 1, as mosquitto's do, and say why they lack
/// an option that those have.
fn usage(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let is_client = matches!(arguments.first().map(String::as_str), Some("pub" | "sub"));
    if is_client
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let Some(reason) = client::refused(option)
    {
        complain(format_args!("Error: {option} is not supported: {reason}"));
        return ExitCode::FAILURE;
    }
    let _ = error.print();
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_client => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

fn check_config(args: &CheckArgs) -> ExitCode {
    // A file is checked for what it says, whatever this shell's environment is.
    let config = load::file(&args.file)
        .and_then(|text| load::parse(&text, &args.file))
        .and_then(load::open);
    match config {
        Ok(config) => match run::check_certificates(&config) {
            Ok(()) => print(format!("{}: fine\n", args.file.display()).as_bytes()),
            Err(error) => fail(error),
        },
        Err(error) => fail(error),
    }
}

fn print_config(args: &PrintArgs) -> ExitCode {
    let config = match &args.config {
        Some(file) => load::config(Some(file)),
        None => Ok(Config::default()),
    };
    match config {
        Ok(config) => print(config.print().as_bytes()),
        Err(error) => fail(error),
    }
}

/// Writes to standard output. A reader that has seen enough is no failure.
fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(format_args!("cannot write to standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: impl Display) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

/// Writes a line to standard error; if that is gone, there is nobody to tell.
fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
