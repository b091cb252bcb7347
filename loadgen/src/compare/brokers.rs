//! The brokers of a comparison: where their programs are, how they are configured, how they are had.
//!
//! Each is given the settings that cost it least on one machine: no persistence to disk, no log, no
//! limit on what it may hold for a client, Nagle's algorithm off. What was given stands in the result.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What kind of program a broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ShardMq(Variant),
    Mosquitto,
    Rumqttd,
    Rmqttd,
    Nats,
}

/// Settings of ShardMQ that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    driver: &'static str,
    gather_us: u32,
    spin_us: u32,
    shards: u32,
}

impl Variant {
    /// As it comes, with this driver.
    const fn plain(driver: &'static str) -> Self {
        Self {
            driver,
            gather_us: 200,
            spin_us: 0,
            shards: 1,
        }
    }

    /// For the lowest latency: it does not gather, and looks for so long before it sleeps.
    const fn prompt(driver: &'static str, spin_us: u32) -> Self {
        Self {
            gather_us: 0,
            spin_us,
            ..Self::plain(driver)
        }
    }
}

/// A broker that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    /// Its name in tables and in `--brokers`.
    pub(crate) name: &'static str,
    kind: Kind,
    /// Letters of the works that its settings are for; empty for all.
    works: &'static str,
    /// Name of the program.
    program: &'static str,
    /// The commands that install it; `{root}` is where programs from the Rust registry go.
    install: &'static [&'static str],
}

const fn shardmq(name: &'static str, works: &'static str, variant: Variant) -> Broker {
    Broker {
        name,
        kind: Kind::ShardMq(variant),
        works,
        program: "shardmq",
        install: &["cargo build --release -p shardmq"],
    }
}

/// All that are known.
pub(crate) const BROKERS: &[Broker] = &[
    shardmq("shardmq", "", Variant::plain("io_uring")),
    shardmq("shardmq-epoll", "", Variant::plain("epoll")),
    shardmq("shardmq-0", "BE", Variant::prompt("io_uring", 0)),
    shardmq("shardmq-epoll-0", "BE", Variant::prompt("epoll", 0)),
    shardmq("shardmq-spin", "E", Variant::prompt("io_uring", 50)),
    shardmq("shardmq-epoll-spin", "E", Variant::prompt("epoll", 50)),
    shardmq(
        "shardmq-2-shards",
        "",
        Variant {
            shards: 2,
            ..Variant::plain("io_uring")
        },
    ),
    Broker {
        name: "mosquitto",
        kind: Kind::Mosquitto,
        works: "",
        program: "mosquitto",
        install: &["apt-get install -y mosquitto"],
    },
    Broker {
        name: "rumqttd",
        kind: Kind::Rumqttd,
        works: "",
        program: "rumqttd",
        install: &["cargo install --root {root} rumqttd"],
    },
    Broker {
        name: "rmqttd",
        kind: Kind::Rmqttd,
        works: "",
        program: "rmqttd",
        install: &[
            // Its build asks for protoc, and that of its Kafka bridge for cmake.
            "apt-get install -y cmake protobuf-compiler",
            "cargo install --root {root} rmqttd",
        ],
    },
    Broker {
        name: "nats",
        kind: Kind::Nats,
        works: "",
        program: "nats-server",
        install: &["apt-get install -y nats-server"],
    },
];

/// The broker of a name.
pub(crate) fn find(name: &str) -> Result<&'static Broker, String> {
    BROKERS
        .iter()
        .find(|broker| broker.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = BROKERS.iter().map(|broker| broker.name).collect();
            format!("no broker {name:?}; there are {}", known.join(", "))
        })
}

/// Whether the settings of a broker are for a work; one that is not known here is for all.
pub(crate) fn is_for(name: &str, work: &str) -> bool {
    find(name).map_or(true, |broker| {
        broker.works.is_empty() || work.starts_with(|letter| broker.works.contains(letter))
    })
}

/// Where a broker listens and where it may write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The port for MQTT on 127.0.0.1.
    pub(crate) port: u16,
    /// Another free one, for brokers that must listen for something else too.
    pub(crate) other_port: u16,
    /// An empty directory.
    pub(crate) directory: &'a Path,
}

impl Broker {
    /// The program: of ShardMQ the one that `SHARDMQ_BIN` names or that is beside this one; otherwise
    /// where `--install` puts it, or on the path.
    pub(crate) fn program(&self, root: &Path) -> Option<PathBuf> {
        let ours = matches!(self.kind, Kind::ShardMq(_));
        let named = env::var_os("SHARDMQ_BIN").map(PathBuf::from);
        let beside = env::current_exe()
            .ok()
            .and_then(|own| Some(own.parent()?.join(self.program)));
        let path = env::var_os("PATH").unwrap_or_default();
        named
            .into_iter()
            .chain(beside)
            .filter(|_| ours)
            .chain([root.join("bin").join(self.program)])
            .chain(env::split_paths(&path).map(|directory| directory.join(self.program)))
            // Where Debian puts daemons, which is not on everybody's path.
            .chain([Path::new("/usr/sbin").join(self.program)])
            .find(|path| path.is_file())
    }

    /// The commands that install it, each as its words.
    pub(crate) fn install(&self, root: &Path) -> Vec<Vec<String>> {
        let root = root.display().to_string();
        self.install
            .iter()
            .map(|command| {
                command
                    .split(' ')
                    .map(|word| word.replace("{root}", &root))
                    .collect()
            })
            .collect()
    }

    /// The same as a line for a shell.
    pub(crate) fn install_line(&self, root: &Path) -> String {
        let commands: Vec<String> = self
            .install(root)
            .iter()
            .map(|words| words.join(" "))
            .collect();
        commands.join(" && ")
    }

    /// What it says about its version.
    pub(crate) fn version(&self, program: &Path) -> String {
        let argument = match self.kind {
            Kind::Mosquitto => "-h",
            Kind::ShardMq(_) | Kind::Rumqttd | Kind::Rmqttd | Kind::Nats => "--version",
        };
        let Ok(output) = Command::new(program).arg(argument).output() else {
            return String::new();
        };
        let said = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        String::from_utf8_lossy(&said)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// How many CPUs it is for.
    pub(crate) fn cpus(&self) -> u32 {
        match self.kind {
            Kind::ShardMq(variant) => variant.shards,
            Kind::Mosquitto | Kind::Rumqttd | Kind::Rmqttd | Kind::Nats => 1,
        }
    }

    /// Name and content of its configuration file.
    pub(crate) fn configuration(&self, place: Place<'_>) -> (&'static str, String) {
        let Place {
            port,
            other_port,
            directory,
        } = place;
        let directory = directory.display();
        match self.kind {
            Kind::ShardMq(Variant {
                driver,
                gather_us,
                spin_us,
                ..
            }) => (
                "shardmq.toml",
                format!(
                    "[net]\ndriver = \"{driver}\"\ngather_us = {gather_us}\n\
                     spin_us = {spin_us}\n[[listener]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{port}\"\n"
                ),
            ),
            Kind::Mosquitto => (
                "mosquitto.conf",
                format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                     max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n\
                     log_type none\n"
                ),
            ),
            Kind::Rumqttd => (
                "rumqttd.toml",
                format!(
                    "id = 0\n[router]\nid = 0\nmax_connections = 60000\n\
                     max_outgoing_packet_count = 200\nmax_segment_size = 104857600\n\
                     max_segment_count = 10\n[v4.1]\nname = \"v4\"\n\
                     listen = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 0\n\
                     [v4.1.connections]\nconnection_timeout_ms = 60000\n\
                     max_payload_size = 1048576\nmax_inflight_count = 500\n\
                     dynamic_filters = true\n"
                ),
            ),
            Kind::Rmqttd => (
                "rmqtt.toml",
                format!(
                    "[node]\nid = 1\n[node.busy]\ncheck_enable = false\n[rpc]\n\
                     server_addr = \"127.0.0.1:{other_port}\"\n[log]\nto = \"off\"\n\
                     level = \"error\"\n[plugins]\ndir = \"{directory}\"\n\
                     [listener.tcp.external]\naddr = \"127.0.0.1:{port}\"\n\
                     max_connections = 1024000\nmax_handshaking_limit = 60000\n\
                     handshake_timeout = \"60s\"\nmax_packet_size = \"1m\"\nbacklog = 4096\n\
                     nodelay = true\nallow_anonymous = true\nmax_inflight = 1000\n\
                     max_mqueue_len = 1000000\nmqueue_rate_limit = \"10000000,1s\"\n"
                ),
            ),
            Kind::Nats => (
                "nats.conf",
                format!(
                    "server_name: compare\nhost: 127.0.0.1\nport: {other_port}\n\
                     max_connections: 65536\n\
                     jetstream {{ store_dir: \"{directory}\", max_memory_store: 4G }}\n\
                     mqtt {{ host: 127.0.0.1, port: {port}, max_ack_pending: 65535, \
                     consumer_memory_storage: true }}\n"
                ),
            ),
        }
    }

    /// The arguments that make it run with the configuration in `file`.
    pub(crate) fn arguments(&self, file: &Path) -> Vec<String> {
        let file = file.display().to_string();
        let words: &[&str] = match self.kind {
            Kind::ShardMq(variant) => {
                let shards = variant.shards.to_string();
                return ["--config", &file, "--shards", &shards, "--ephemeral", "-q"]
                    .map(str::to_owned)
                    .to_vec();
            }
            Kind::Mosquitto => &["-c"],
            Kind::Rumqttd => &["-q", "-c"],
            Kind::Rmqttd => &["-f"],
            Kind::Nats => &["-c"],
        };
        words
            .iter()
            .map(|&word| word.to_owned())
            .chain([file])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broker_listens_where_it_is_told_to() {
        let directory = Path::new("/scratch");
        let place = Place {
            port: 12_345,
            other_port: 23_456,
            directory,
        };
        for broker in BROKERS {
            let (name, text) = broker.configuration(place);
            assert!(text.contains("12345"), "{}: {text}", broker.name);
            assert!(text.contains("127.0.0.1"), "{}: {text}", broker.name);
            assert!(!text.contains("0.0.0.0:"), "{}: {text}", broker.name);
            let arguments = broker.arguments(&directory.join(name));
            assert!(
                arguments.iter().any(|word| word.ends_with(name)),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn toml_is_toml_and_shardmq_takes_its_own() {
        let place = Place {
            port: 1,
            other_port: 2,
            directory: Path::new("/scratch"),
        };
        for name in ["shardmq-epoll-0", "rumqttd", "rmqttd"] {
            let (_, text) = find(name).unwrap().configuration(place);
            assert!(text.parse::<toml::Table>().is_ok(), "{name}: {text}");
        }
        let (_, text) = find("shardmq-epoll-0").unwrap().configuration(place);
        let config = shardmq::config::Config::parse(&text, "a.toml").unwrap();
        assert_eq!(config.net.gather_us, 0);
        assert_eq!(config.listeners[0].bind[0].port(), 1);
    }

    #[test]
    fn settings_for_the_lowest_latency_are_for_where_it_counts() {
        assert!(is_for("shardmq-0", "B50k") && !is_for("shardmq-0", "A"));
        assert!(is_for("shardmq-epoll-spin", "E") && !is_for("shardmq-epoll-spin", "B50k"));
        assert!(is_for("shardmq", "A") && is_for("somebody-else", "A"));
    }

    #[test]
    fn names_are_known_or_listed() {
        assert_eq!(find("nats").unwrap().name, "nats");
        assert!(find("other").unwrap_err().contains("mosquitto"));
        assert_eq!(
            find("rumqttd").unwrap().install_line(Path::new("/r")),
            "cargo install --root /r rumqttd"
        );
    }
}
