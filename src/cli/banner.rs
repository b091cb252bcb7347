//! What a broker says of itself once it serves: enough to know who can reach it, what is lost when
//! it stops, and which option changes that.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use shardmq::config::Config;
use shardmq::runtime::{Listening, Started, StoreOptions};
use shardmq::shard::{Durability, Durable};

/// The banner of a broker that runs.
pub(super) struct Banner<'a> {
    pub(super) started: &'a Started,
    pub(super) config: &'a Config,
    pub(super) store: Option<&'a StoreOptions>,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Started {
            listeners,
            http,
            cpus,
            driver,
            max_connections,
            ..
        } = self.started;
        writeln!(f, "ShardMQ {}", env!("CARGO_PKG_VERSION"))?;
        line(f, "driver", driver)?;
        line(f, "shards", &shards(cpus))?;
        for listening in listeners {
            line(f, "listening", &format!("{listening} ({})", listening.name))?;
        }
        let http = http.map_or_else(
            || "off".to_owned(),
            |http| format!("http://{http}/metrics, /status"),
        );
        line(f, "telling", &http)?;
        line(f, "room", &format!("{max_connections} connections"))?;
        line(f, "access", &access(listeners, self.config))?;
        write!(f, "  {:<11}{}", "durability", durability(self.store))?;
        for history in &self.config.history {
            let (name, filter) = (&history.name, &history.filter);
            let kept = Duration::from_secs(history.keep.into());
            let size = history.keep_bytes >> 20;
            write!(
                f,
                "\n  {:<11}{name}: {filter} for {kept:?}, {size} MiB",
                "history"
            )?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:<11}{text}")
}

fn shards(cpus: &[usize]) -> String {
    let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
    match cpus {
        [cpu] => format!("1, on core {cpu}"),
        _ => format!("{}, on cores {}", cpus.len(), list.join(" ")),
    }
}

/// Who gets in, and the one option that changes it.
fn access(listening: &[Listening], config: &Config) -> String {
    let lets_in = |place: &&Listening| {
        config
            .listeners
            .iter()
            .any(|listener| listener.name == place.name && listener.lets_in_anybody(&config.auth))
    };
    let open: Vec<&Listening> = listening.iter().filter(lets_in).collect();
    let addresses: Vec<SocketAddr> = open.iter().filter_map(|place| place.address()).collect();
    let exposed = |address: &&SocketAddr| !address.ip().is_loopback();
    let rules = match config.auth.acl_file {
        Some(_) => "what the ACL file allows",
        None => "everything",
    };
    if let Some(first) = addresses.iter().find(exposed) {
        let exposed = addresses.iter().filter(exposed).map(ToString::to_string);
        return format!(
            "OPEN to everybody who reaches {}, without a password, for {rules}.\
             \n             For this machine alone: --listen 127.0.0.1:{}",
            exposed.collect::<Vec<_>>().join(", "),
            first.port()
        );
    }
    if open.is_empty() {
        return format!("with user name and password, or a certificate, only; for {rules}");
    }
    let others = if open.len() < listening.len() {
        "others who show who they are."
    } else {
        "nobody else."
    };
    format!(
        "everybody on this machine, without a password, for {rules}; {others} To open it\
         \n             to everybody who reaches this machine: --listen 0.0.0.0:{} --allow-anonymous",
        addresses.first().map_or(1883, SocketAddr::port)
    )
}

/// What is left after the process ends, and what an acknowledgement means.
fn durability(store: Option<&StoreOptions>) -> String {
    let nothing = "in memory only: sessions, queued and retained messages end with this process.";
    let Some(store) = store else {
        return nothing.to_owned();
    };
    let interval = store.interval.as_millis();
    let kept = |what: &str, durability| match durability {
        Durability::Always => format!("{what}: on disk before they are acknowledged"),
        Durability::Interval => {
            format!("{what}: on disk within {interval} ms; a power cut costs what came since")
        }
        Durability::Off => format!("{what}: in memory only"),
    };
    let directory = store.directory.display();
    let Durable { sessions, retained } = store.durable;
    match (sessions, retained) {
        (Durability::Off, Durability::Off) => {
            format!("{nothing} Nothing is written to {directory}")
        }
        (same, other) if same == other => {
            format!(
                "{}, in {directory}",
                kept("sessions, messages, retained", same)
            )
        }
        _ => format!(
            "{};\n             {}; in {directory}",
            kept("sessions and their messages", sessions),
            kept("retained", retained)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(auth: &str, listeners: &[(&str, &str)]) -> String {
        let listeners: String = listeners
            .iter()
            .enumerate()
            .map(|(number, (bind, keys))| {
                format!("[[listener]]\nname = 'l{number}'\nbind = '{bind}'\n{keys}\n")
            })
            .collect();
        let config = Config::parse(&format!("{auth}\n{listeners}"), "a.toml").unwrap();
        let place = |listener: &shardmq::config::Listener| Listening {
            name: listener.name.clone(),
            scheme: "mqtt",
            place: shardmq::runtime::Place::Tcp(listener.bind[0]),
        };
        let listening: Vec<_> = config.listeners.iter().map(place).collect();
        access(&listening, &config)
    }

    #[test]
    fn who_gets_in_is_told() {
        let closed = told("", &[("127.0.0.1:1884", ""), ("[::1]:1884", "")]);
        assert!(closed.contains("nobody else") && closed.contains("--listen 0.0.0.0:1884"));
        let anybody = "allow_anonymous = true";
        let open = told("", &[("127.0.0.1:1883", ""), ("0.0.0.0:1885", anybody)]);
        assert!(
            open.starts_with("OPEN to everybody who reaches 0.0.0.0:1885, "),
            "{open}"
        );
        assert!(open.contains("--listen 127.0.0.1:1885"));
        let auth = "[auth]\npassword_file = 'users'\nacl_file = 'acl'";
        let asked = told(auth, &[("127.0.0.1:1883", ""), ("0.0.0.0:1885", "")]);
        assert!(asked.starts_with("with user name and password, or"));
        let both = told(auth, &[("127.0.0.1:1883", anybody), ("0.0.0.0:1885", "")]);
        assert!(both.contains("others who show who they are"), "{both}");
    }

    #[test]
    fn nobody_is_promised_what_is_not_kept() {
        let text = |sessions, retained| {
            durability(Some(&StoreOptions {
                directory: "d".into(),
                durable: Durable { sessions, retained },
                interval: Duration::from_millis(250),
                history: Vec::new(),
            }))
        };
        use Durability::{Always, Interval, Off};
        assert!(durability(None).starts_with("in memory only"));
        assert!(text(Off, Off).starts_with("in memory only") && text(Off, Off).contains("to d"));
        assert!(text(Always, Always).contains("on disk before they are acknowledged, in d"));
        let mixed = text(Always, Off);
        assert!(
            mixed.contains("messages: on disk before") && mixed.contains("retained: in memory")
        );
        assert!(text(Interval, Interval).contains("within 250 ms"));
    }

    #[test]
    fn shards_are_named_with_their_cores() {
        assert_eq!(shards(&[3]), "1, on core 3");
        assert_eq!(shards(&[0, 2]), "2, on cores 0 2");
    }
}
