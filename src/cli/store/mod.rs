//! `shardmq store`: a data directory, looked at and worked on while no broker runs on it; backed up while
//! one does.
//!
//! Exit codes: 0 it is done and nothing is wrong, 1 the directory is damaged, 2 it could not be done.

mod report;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use shardmq::limits::MAX_SHARDS;
use shardmq::runtime::store::{
    Amount, Format, Remains, Store, StoreError, examine_history, lacks_history,
};

use super::{complain, print};

#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Read everything, and tell how much there is and what is wrong
    ///
    /// Exits with 0 if nothing is wrong, with 1 if something is, with 2 if it cannot be read.
    Verify {
        /// The data directory
        dir: PathBuf,
    },
    /// Copy it to another directory, consistently, while a broker works on it or not
    ///
    /// The copy is verified, and `shardmq run --data-dir` starts from it as it is: from a copy of it, if it is to
    /// stay a backup. It holds everything that was acknowledged before this command began, and the history of
    /// all streams up to then. The broker goes on serving; it does not commit for about as long as one commit
    /// takes, and removes no history until that was copied.
    Backup {
        /// The data directory
        dir: PathBuf,
        /// Where the copy goes: a directory that is empty, or not there
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Print every frame with its records, and where something is wrong
    Dump {
        /// The data directory
        dir: PathBuf,
        /// For people, or an object each line
        #[arg(long, value_enum, default_value_t)]
        format: DumpFormat,
    },
    /// Write sessions, messages and history as lines of JSON
    ///
    /// Exits with 1 if history is damaged: everything else is written then.
    Export {
        /// The data directory
        dir: PathBuf,
        /// Where to write them; standard output without
        file: Option<PathBuf>,
        /// Leave out what history streams hold: it may be much more than all the rest
        #[arg(long)]
        without_history: bool,
    },
    /// Fill a new data directory with what was exported, or with a mosquitto.db
    Import {
        /// The data directory: one that is not there, or holds nothing
        dir: PathBuf,
        /// What `export` wrote, or mosquitto 1.6 or 2.0; `-` for standard input
        file: PathBuf,
        /// Shards to spread it over. A broker with another number spreads it anew
        #[arg(short, long, value_name = "N", default_value_t = 1,
              value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_SHARDS as u64))]
        shards: usize,
    },
    /// Keep what can be read of a damaged data directory, and tell what is lost
    ///
    /// The damaged files are kept in DIR/damaged-N. Messages that were acknowledged in what is lost may come
    /// again.
    Repair {
        /// The data directory
        dir: PathBuf,
        /// Remove the damaged files
        #[arg(long)]
        discard: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum DumpFormat {
    #[default]
    Text,
    Json,
}

/// Does what was asked for.
pub(super) fn run(args: &StoreArgs) -> ExitCode {
    let done = match &args.command {
        Work::Verify { dir } => verify(dir),
        Work::Backup { dir, to } => backup(dir, to),
        Work::Dump { dir, format } => dump(dir, *format),
        Work::Export {
            dir,
            file,
            without_history,
        } => export(dir, file.as_deref(), !without_history),
        Work::Import { dir, file, shards } => import(dir, file, *shards),
        Work::Repair { dir, discard } => repair(dir, *discard),
    };
    match done {
        Ok(code) => code,
        // Whoever reads it has seen enough.
        Err(StoreError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            match error {
                StoreError::Damaged { .. } => ExitCode::FAILURE,
                _ => ExitCode::from(2),
            }
        }
    }
}

fn verify(dir: &Path) -> Result<ExitCode, StoreError> {
    let remains = Remains::open(dir)?;
    let mut examined = remains.examine()?;
    let history = examine_history(dir)?;
    examined.problems.extend(lacks_history(dir, &history));
    let damaged: usize = history.iter().map(|stream| stream.damage().count()).sum();
    let text = report::history(&history) + &report::examined(&examined, damaged);
    let printed = print(text.as_bytes());
    Ok(match examined.is_fine() && damaged == 0 {
        true => printed,
        false => ExitCode::FAILURE,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program is where clocks are read"
)]
fn backup(dir: &Path, to: &Path) -> Result<ExitCode, StoreError> {
    /// Between two lines that say how far it is.
    const PERIOD: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    let mut told = begun;
    let taken = Store::backup(dir, to, SystemTime::now(), &mut |copied, all| {
        if told.elapsed() >= PERIOD {
            told = Instant::now();
            complain(report::progress(copied, all));
        }
    })?;
    Ok(print(report::taken(&taken, to, begun.elapsed()).as_bytes()))
}

fn dump(dir: &Path, format: DumpFormat) -> Result<ExitCode, StoreError> {
    let format = match format {
        DumpFormat::Text => Format::Text,
        DumpFormat::Json => Format::Json,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let fine = Remains::open(dir)?.dump(format, &mut out)?;
    Ok(match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn export(dir: &Path, file: Option<&Path>, with_history: bool) -> Result<ExitCode, StoreError> {
    let store = Store::open_existing(dir)?;
    let Some(path) = file else {
        let mut out = BufWriter::new(io::stdout().lock());
        let amount = store.export(&mut out, with_history)?;
        return Ok(exit_code(&amount));
    };
    let made = create(path);
    let made = made.map_err(|error| StoreError::Io("make", path.to_owned(), error))?;
    let mut out = BufWriter::new(made);
    let amount = store.export(&mut out, with_history)?;
    let synced = out.flush().and_then(|()| out.get_ref().sync_all());
    synced.map_err(|error| StoreError::Io("sync", path.to_owned(), error))?;
    let printed = print(report::exported(&amount, path).as_bytes());
    Ok(match amount.damaged {
        0 => printed,
        _ => exit_code(&amount),
    })
}

/// Says what could not be exported.
fn exit_code(amount: &Amount) -> ExitCode {
    if amount.damaged == 0 {
        return ExitCode::SUCCESS;
    }
    complain(format!(
        "history is damaged, and left out, in so many places: {}\n  `shardmq store verify` lists them",
        amount.damaged
    ));
    ExitCode::FAILURE
}

/// What clients sent is nobody else's business.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn import(dir: &Path, file: &Path, shards: usize) -> Result<ExitCode, StoreError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the program is where clocks are read"
    )]
    let now = SystemTime::now();
    let amount = if file == Path::new("-") {
        Store::import(dir, shards, &mut io::stdin().lock(), now)?
    } else {
        let opened = File::open(file);
        let opened = opened.map_err(|error| StoreError::Io("open", file.to_owned(), error))?;
        Store::import(dir, shards, &mut BufReader::new(opened), now)?
    };
    Ok(print(report::imported(&amount).as_bytes()))
}

fn repair(dir: &Path, discard: bool) -> Result<ExitCode, StoreError> {
    let repaired = Remains::open(dir)?.repair(discard)?;
    Ok(print(report::repaired(&repaired).as_bytes()))
}
