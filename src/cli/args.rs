//! The command line of the program itself; that of the clients is in [`super::client`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use shardmq::config::Driver;
use shardmq::{config, limits};

use super::client::{PubArgs, SubArgs};
use super::doctor::DoctorArgs;
use super::passwd::PasswdArgs;
use super::store::StoreArgs;

/// An MQTT 3.1.1 and 5.0 broker: one shard per core, nothing shared.
///
/// Without a subcommand it runs the broker, on 127.0.0.1:1883 if nothing else is said.
#[derive(Debug, Parser)]
#[command(name = "shardmq", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the broker (what happens without a subcommand, too)
    Run(RunArgs),
    /// Read a configuration file, tell everything that is wrong with it, and stop
    CheckConfig(CheckArgs),
    /// Print every key with its documentation and its value: a file to start from
    PrintConfig(PrintArgs),
    /// Examine this machine: what stands in the way of many clients, and the command that changes it
    Doctor(DoctorArgs),
    /// Print every metric with its type, its labels and its meaning, as a Markdown table
    PrintMetrics,
    /// Write password files; takes the options of mosquitto_passwd
    Passwd(PasswdArgs),
    /// Back up, verify, dump, export, import or repair a data directory
    Store(StoreArgs),
    /// Publish messages; takes the options of mosquitto_pub
    Pub(PubArgs),
    /// Subscribe and print messages; takes the options of mosquitto_sub
    Sub(SubArgs),
    /// Print a script that completes this command line in a shell
    Completions {
        /// The shell to write it for
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man,
}

/// Options of the broker. What stands here goes over the environment, and that over the file.
#[derive(Args, Debug, Default)]
pub(super) struct RunArgs {
    /// Configuration file; `shardmq print-config` writes one to start from
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address to listen on, instead of the configured ones; may be given more than once.
    /// 0.0.0.0:1883 is reached from everywhere: it needs [auth] or --allow-anonymous
    #[arg(short, long, value_name = "ADDR:PORT", value_parser = address)]
    pub(super) listen: Vec<SocketAddr>,
    /// Address to serve metrics and status on by HTTP, or off
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = http)]
    pub(super) http: Option<HttpBind>,
    /// Let in everybody without user name and password, on every address that is listened on
    #[arg(long)]
    pub(super) allow_anonymous: bool,
    /// Shards to run, one per core; 0 for all cores
    #[arg(short, long, value_name = "N", value_parser = shards)]
    pub(super) shards: Option<usize>,
    /// How the network is driven: auto, io_uring or epoll
    #[arg(long, value_name = "DRIVER", value_parser = driver())]
    pub(super) driver: Option<Driver>,
    /// Directory for durable state; one broker at a time works in it
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub(super) data_dir: Option<PathBuf>,
    /// Keep all state in memory and write nothing, whatever is configured
    #[arg(long)]
    pub(super) ephemeral: bool,
    /// Log more; twice for everything
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Log errors only, and print no banner
    #[arg(short, long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The file to check
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct PrintArgs {
    /// Print what this file and the environment make of it, instead of the defaults
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What `--http` says: clap takes an `Option` for one that may be missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpBind(pub(super) Option<SocketAddr>);

fn http(text: &str) -> Result<HttpBind, String> {
    match config::parse_address_or_off(text) {
        Ok(address) => Ok(HttpBind(address)),
        Err(problem) => Err(problem.to_string()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    config::parse_address(text).map_err(|problem| problem.to_string())
}

fn driver() -> impl TypedValueParser<Value = Driver> {
    PossibleValuesParser::new(Driver::WORDS).try_map(|word| {
        word.parse::<Driver>()
            .map_err(|problem| problem.to_string())
    })
}

fn shards(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .map_err(|_| format!("`{text}` is not a number"))?;
    if number <= limits::MAX_SHARDS {
        Ok(number)
    } else {
        Err(format!(
            "{number} is out of range; allowed is 0 to {}",
            limits::MAX_SHARDS
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declarations_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_happens_without_a_subcommand() {
        let bare = Cli::try_parse_from(["shardmq", "--shards", "2", "-v"]).unwrap();
        assert!(bare.command.is_none());
        assert_eq!((bare.run.shards, bare.run.verbose), (Some(2), 1));
        let named = Cli::try_parse_from(["shardmq", "run", "--listen", "127.0.0.1:0"]).unwrap();
        assert!(matches!(named.command, Some(Command::Run(args)) if args.listen.len() == 1));
    }

    #[test]
    fn bad_values_are_refused_with_the_likely_intention() {
        let error = |args: &[&str]| Cli::try_parse_from(args).unwrap_err().to_string();
        assert!(error(&["shardmq", "--listen", "1883"]).contains("0.0.0.0:1883"));
        assert!(error(&["shardmq", "--shards", "65"]).contains("0 to 64"));
        assert!(error(&["shardmq", "--ephemeral", "--data-dir", "x"]).contains("cannot be used"));
        assert!(error(&["shardmq", "--driver", "uring"]).contains("auto, io_uring, epoll"));
        assert!(error(&["shardmq", "-q", "-v"]).contains("cannot be used"));
        assert!(error(&["shardmq", "chek-config"]).contains("check-config"));
    }
}
