//! The flags. Letters are those of emqtt-bench, so `-h` is the host and help is `--help` only.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare;
use crate::report::Format;

use super::conditions::Conditions;
use super::units;

/// Generates load for MQTT brokers and measures what comes of it.
///
/// Without a command: 100 pairs of clients, 10,000 messages per second of 64 bytes, QoS 0, for ten
/// seconds.
#[derive(Debug, Parser)]
#[command(
    name = "shardmq-loadgen",
    version,
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 done, 1 the run could not be made, 2 wrong arguments, \
                  3 a condition of --assert does not hold."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) load: Load,

    /// Show this.
    #[arg(long, global = true, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,

    /// Show the version of this program.
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Connect clients and hold them.
    Conn(Load),
    /// Publish.
    Pub(Load),
    /// Subscribe.
    Sub(Load),
    /// Run a scenario (see `scenarios`), a kind (p2p, fanout, sharedsub) with --publishers and so
    /// on, or a file of `flag = value` lines with a line `scenario = NAME`.
    Run {
        /// Name, kind or file.
        scenario: String,
        #[command(flatten)]
        load: Box<Load>,
    },
    /// Print a saved result and make its files again.
    Report {
        /// The folder of --out.
        directory: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Compare brokers: start each of them, run the same works against all, interleaved in rounds.
    Compare(Box<compare::Options>),
    /// List the scenarios; with a name, its parameters.
    Scenarios {
        /// A scenario.
        name: Option<String>,
    },
}

/// Everything about the load. What is not given is the scenario's.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Load {
    /// Host of the broker [127.0.0.1].
    #[arg(short = 'h', long, help_heading = "Broker")]
    pub(super) host: Option<String>,
    /// Port of the broker [1883].
    #[arg(short, long, help_heading = "Broker")]
    pub(super) port: Option<u16>,
    /// Protocol: 3.1, 3.1.1 (or 4), 5. Scenarios of the Open MQTT Benchmark Suite speak 3.1.1, all
    /// others 5 [5].
    #[arg(
        short = 'V',
        long = "mqtt-version",
        value_name = "VERSION",
        help_heading = "Broker"
    )]
    pub(super) protocol: Option<Protocol>,
    /// User name.
    #[arg(short = 'u', long, help_heading = "Broker")]
    pub(super) username: Option<String>,
    /// Password.
    #[arg(short = 'P', long, help_heading = "Broker")]
    pub(super) password: Option<String>,
    /// TLS.
    #[arg(
        short = 'S',
        long = "ssl",
        visible_alias = "tls",
        help_heading = "Broker"
    )]
    pub(super) ssl: bool,
    /// With TLS: PEM file with the authorities that the broker's certificate may come from, in place of
    /// the system's.
    #[arg(
        long = "cafile",
        visible_alias = "cacertfile",
        value_name = "FILE",
        requires = "ssl",
        help_heading = "Broker"
    )]
    pub(super) authorities: Option<PathBuf>,
    /// With TLS: PEM file with the certificate of the clients.
    #[arg(
        long = "cert",
        visible_alias = "certfile",
        value_name = "FILE",
        requires_all = ["ssl", "key"],
        help_heading = "Broker"
    )]
    pub(super) certificate: Option<PathBuf>,
    /// With TLS: PEM file with its private key.
    #[arg(
        long,
        visible_alias = "keyfile",
        value_name = "FILE",
        requires = "certificate",
        help_heading = "Broker"
    )]
    pub(super) key: Option<PathBuf>,
    /// With TLS: take any certificate for the broker's.
    #[arg(
        long,
        requires = "ssl",
        conflicts_with = "authorities",
        help_heading = "Broker"
    )]
    pub(super) insecure: bool,
    /// WebSocket.
    #[arg(long, help_heading = "Broker")]
    pub(super) ws: bool,
    /// With WebSocket: the path to ask for [/mqtt].
    #[arg(long, value_name = "PATH", requires = "ws", help_heading = "Broker")]
    pub(super) ws_path: Option<String>,
    /// Process of the broker, whose CPU time and memory are then reported.
    #[arg(long, value_name = "PID", help_heading = "Broker")]
    pub(super) broker_pid: Option<u32>,

    /// Clients (conn, pub, sub) [200].
    #[arg(short, long, value_parser = units::clients, help_heading = "Clients")]
    pub(super) count: Option<u32>,
    /// Connections per second [conn, pub, sub: 1000; 0 for all at once].
    #[arg(short = 'R', long = "connrate", value_parser = units::number, help_heading = "Clients")]
    pub(super) connect_rate: Option<f64>,
    /// Milliseconds between two connections, in place of -R.
    #[arg(short, long = "interval", value_parser = units::milliseconds, help_heading = "Clients")]
    pub(super) interval: Option<Duration>,
    /// Time in which all clients connect, in place of -R.
    #[arg(long, value_parser = units::duration, help_heading = "Clients")]
    pub(super) ramp: Option<Duration>,
    /// Keep Alive in seconds [300].
    #[arg(short, long, help_heading = "Clients")]
    pub(super) keepalive: Option<u16>,
    /// Clean Start [true].
    #[arg(short = 'C', long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Clients")]
    pub(super) clean: Option<bool>,
    /// Session Expiry Interval in seconds.
    #[arg(short = 'x', long, value_name = "SECONDS", help_heading = "Clients")]
    pub(super) session_expiry: Option<u32>,
    /// Beginning of the client identifiers [lg and the process number].
    #[arg(long, help_heading = "Clients")]
    pub(super) prefix: Option<String>,
    /// Connect again a second after a connection was lost.
    #[arg(long, help_heading = "Clients")]
    pub(super) reconnect: bool,
    /// Source addresses, a list of addresses and networks: each has ports for about 28,000
    /// connections.
    #[arg(long, value_name = "LIST", value_parser = Addresses::parse, help_heading = "Clients")]
    pub(super) ifaddr: Option<Addresses>,

    /// Topic or filter; %i is a number, %c the client identifier, %u the user name [bench/%i].
    #[arg(short, long, help_heading = "Messages")]
    pub(super) topic: Option<String>,
    /// Bytes of a payload [64].
    #[arg(short, long, value_parser = units::bytes, help_heading = "Messages")]
    pub(super) size: Option<usize>,
    /// Quality of Service, on both legs [0].
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(0..=2), help_heading = "Messages")]
    pub(super) qos: Option<u8>,
    /// RETAIN.
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Messages")]
    pub(super) retain: Option<bool>,
    /// Milliseconds between two messages of a publisher [pub: 1000].
    #[arg(short = 'I', long, value_parser = units::milliseconds, help_heading = "Messages")]
    pub(super) interval_of_msg: Option<Duration>,
    /// Messages per second of all publishers together, in place of -I.
    #[arg(long, value_parser = units::rate, help_heading = "Messages")]
    pub(super) rate: Option<f64>,
    /// No schedule: publish as soon as the window or the socket has room.
    #[arg(long, help_heading = "Messages")]
    pub(super) closed_loop: bool,
    /// Unacknowledged messages of one publisher, QoS 1 and 2 [100].
    #[arg(short = 'F', long, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Messages")]
    pub(super) inflight: Option<u16>,
    /// Messages to publish in all; the run ends when they have arrived.
    #[arg(short = 'L', long, value_parser = units::count, help_heading = "Messages")]
    pub(super) limit: Option<u64>,
    /// Publishers of a run.
    #[arg(long, value_parser = units::clients, help_heading = "Messages")]
    pub(super) publishers: Option<u32>,
    /// Subscribers of a run.
    #[arg(long, value_parser = units::clients, help_heading = "Messages")]
    pub(super) subscribers: Option<u32>,
    /// Topics of a run.
    #[arg(long, value_parser = units::clients, help_heading = "Messages")]
    pub(super) topics: Option<u32>,

    /// Length of the measured phase.
    #[arg(short, long, value_parser = units::duration, help_heading = "Run")]
    pub(super) duration: Option<Duration>,
    /// Load before it.
    #[arg(long, value_parser = units::duration, help_heading = "Run")]
    pub(super) warmup: Option<Duration>,
    /// Threads of the generator [1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Run")]
    pub(super) shards: Option<u16>,
    /// CPUs to pin them to, as 1,3 or 2-5.
    #[arg(long, value_name = "LIST", value_parser = Cpus::parse, help_heading = "Run")]
    pub(super) cpus: Option<Cpus>,
    /// How to drive the network.
    #[arg(long, value_enum, help_heading = "Run")]
    pub(super) driver: Option<DriverName>,
    /// What everything random comes from [1].
    #[arg(long, help_heading = "Run")]
    pub(super) seed: Option<u64>,
    /// Run once for each of these rates.
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = units::rate, conflicts_with_all = ["rate", "closed_loop", "find_max"], help_heading = "Run")]
    pub(super) sweep: Vec<f64>,
    /// Find the highest rate at which this holds, as p99<10ms.
    #[arg(
        long,
        value_name = "CONDITIONS",
        conflicts_with = "closed_loop",
        help_heading = "Run"
    )]
    pub(super) find_max: Option<Conditions>,

    /// What receivers check: loss, duplicates and order (seq); topic and content too (full).
    #[arg(long, value_enum, help_heading = "Result")]
    pub(super) verify: Option<VerifyName>,
    /// Conditions that must hold, as p99<5ms,loss=0; otherwise the exit code is 3.
    #[arg(long, value_name = "CONDITIONS", help_heading = "Result")]
    pub(super) assert: Option<Conditions>,
    /// Folder for the result's files.
    #[arg(long, value_name = "DIR", help_heading = "Result")]
    pub(super) out: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text", help_heading = "Result")]
    pub(super) format: Format,
    /// No page on a terminal: a line each second.
    #[arg(long, help_heading = "Result")]
    pub(super) no_tui: bool,
}

/// A protocol version.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Protocol {
    /// MQTT 3.1.
    #[value(name = "3.1", alias = "3")]
    V3_1,
    /// MQTT 3.1.1.
    #[value(name = "3.1.1", alias = "4")]
    V3_1_1,
    /// MQTT 5.0.
    #[value(name = "5", alias = "5.0")]
    V5,
}

/// A driver.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DriverName {
    /// io_uring where it works, otherwise epoll.
    Auto,
    /// io_uring.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

/// What to verify.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum VerifyName {
    /// Nothing.
    None,
    /// Loss, duplicates, order.
    Seq,
    /// Topic and content too.
    Full,
}

/// Source addresses.
#[derive(Clone, Debug)]
pub(super) struct Addresses(pub(super) Vec<std::net::IpAddr>);

impl Addresses {
    fn parse(text: &str) -> Result<Self, String> {
        units::addresses(text).map(Self)
    }
}

/// CPUs.
#[derive(Clone, Debug)]
pub(super) struct Cpus(pub(super) Vec<usize>);

impl Cpus {
    fn parse(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                text.trim()
                    .parse::<usize>()
                    .map_err(|_| format!("{text:?} is no CPU"))
            };
            cpus.extend(number(first)?..=number(last)?);
        }
        Ok(Self(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_letters_are_those_of_emqtt_bench() {
        let line = "loadgen pub -h ::1 -p 1 -V 4 -c 2 -R 3 -I 4 -t a/%i/%c/%u -s 5 -q 2 -r -L 6 -F 7 -k 8 -C false -x 9 -u u -P p";
        let Some(Command::Pub(load)) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(
            (load.host.as_deref(), load.port, load.count),
            (Some("::1"), Some(1), Some(2))
        );
        assert_eq!(
            (load.size, load.qos, load.retain),
            (Some(5), Some(2), Some(true))
        );
        assert_eq!(
            (load.limit, load.inflight, load.keepalive),
            (Some(6), Some(7), Some(8))
        );
        assert_eq!((load.clean, load.session_expiry), (Some(false), Some(9)));
        assert_eq!(load.interval_of_msg, Some(Duration::from_millis(4)));
        assert!(matches!(load.protocol, Some(Protocol::V3_1_1)));
    }
}
