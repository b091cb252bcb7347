//! The options of `shardmq pub` and `shardmq sub`: the letters of mosquitto's clients.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use shardmq::runtime::{ClientTls, Trust};
use shardmq::wire::{QoS, RetainHandling, Version};

use super::connection::Layers;
use super::properties::{Command, Properties};
use super::url::Url;

/// What both clients take.
#[derive(Args, Clone, Debug)]
pub(super) struct CommonArgs {
    /// Host of the broker [default: localhost]
    #[arg(short = 'h', long, value_name = "HOST")]
    pub(super) host: Option<String>,
    /// Port of the broker [default: 1883]
    #[arg(short, long, value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// User, password, host, port and topic in one: mqtt://user:password@host:port/topic, or mqtts://
    /// for TLS
    #[arg(short = 'L', long, value_name = "URL", conflicts_with_all = ["host", "port"])]
    pub(super) url: Option<Url>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        allow_hyphen_values = true
    )]
    pub(super) password: Option<String>,
    /// Client id; the broker gives one if there is none
    #[arg(short = 'i', long, value_name = "ID", allow_hyphen_values = true)]
    pub(super) id: Option<String>,
    /// Client id of this and the process id
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id")]
    pub(super) id_prefix: Option<String>,
    /// Keep the session: do not start clean, and let it never expire unless -x says otherwise
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(super) keep_session: bool,
    /// Keep alive in seconds, 0 for none
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) keepalive: u16,
    /// QoS: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(super) qos: QoS,
    /// Version of the protocol: 31, 311 or 5 [default: 311, or 5 if an option needs it]
    #[arg(short = 'V', long = "protocol-version", value_name = "VERSION", value_parser = version)]
    pub(super) version: Option<Version>,
    /// Seconds that the session outlives the connection, -1 for ever (version 5)
    #[arg(short = 'x', long = "session-expiry-interval", value_name = "SECONDS",
          value_parser = expiry, allow_hyphen_values = true)]
    pub(super) session_expiry: Option<u32>,
    /// A property (version 5): the packet, its name, its value; user-property takes two.
    /// Example: -D publish user-property unit km
    #[arg(short = 'D', long = "property", value_names = ["PACKET", "NAME", "VALUE"],
          num_args = 3..=4, action = ArgAction::Append)]
    pub(super) property: Vec<String>,
    /// QoS 1 and 2 messages on their way at a time
    #[arg(short = 'M', long, value_name = "COUNT", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) max_inflight: u16,
    /// Topic of the will
    #[arg(long, value_name = "TOPIC")]
    pub(super) will_topic: Option<String>,
    /// Payload of the will
    #[arg(
        long,
        value_name = "PAYLOAD",
        requires = "will_topic",
        allow_hyphen_values = true
    )]
    pub(super) will_payload: Option<String>,
    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", value_parser = qos)]
    pub(super) will_qos: Option<QoS>,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    pub(super) will_retain: bool,
    /// Speak TLS and trust the authorities in this file (PEM); mqtts:// without it trusts the system's
    #[arg(long, value_name = "FILE")]
    pub(super) cafile: Option<PathBuf>,
    /// Show this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// The key of --cert (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// Speak TLS and trust the authorities of this system
    #[arg(long, conflicts_with = "cafile")]
    pub(super) tls_use_os_certs: bool,
    /// Do not ask whether the certificate of the broker has the name of its host
    #[arg(long)]
    pub(super) insecure: bool,
    /// Speak MQTT by WebSocket
    #[arg(long)]
    pub(super) ws: bool,
    /// The path to ask for by --ws [default: /mqtt]
    #[arg(long, value_name = "PATH", requires = "ws")]
    pub(super) ws_path: Option<String>,
    /// Tell every packet that is sent and received
    #[arg(short, long)]
    pub(super) debug: bool,
    /// Print no errors
    #[arg(long)]
    pub(super) quiet: bool,
    /// Accepted for compatibility: packets never wait for others
    #[arg(long, hide = true)]
    pub(super) nodelay: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub(super) help: Option<bool>,
}

/// Publish messages.
#[derive(Args, Clone, Debug)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true
)]
pub(crate) struct PubArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Topic to publish to
    #[arg(short, long, value_name = "TOPIC", allow_hyphen_values = true)]
    pub(super) topic: Option<String>,
    /// The message
    #[arg(short, long, value_name = "MESSAGE", allow_hyphen_values = true)]
    pub(super) message: Option<String>,
    /// Send the contents of a file
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Send each line of standard input as a message
    #[arg(short = 'l', long)]
    pub(super) stdin_line: bool,
    /// Send an empty message
    #[arg(short = 'n', long)]
    pub(super) null_message: bool,
    /// Send all of standard input as one message
    #[arg(short = 's', long)]
    pub(super) stdin_file: bool,
    /// Retain the message
    #[arg(short, long)]
    pub(super) retain: bool,
    /// Send the message so many times
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) repeat: u64,
    /// Seconds between two of --repeat
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(super) repeat_delay: Duration,
}

/// Subscribe and print messages.
#[derive(Args, Clone, Debug)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true
)]
pub(crate) struct SubArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Topic filter to subscribe to; may be given more than once
    #[arg(short, long, value_name = "FILTER")]
    pub(super) topic: Vec<String>,
    /// Topic filter to unsubscribe from; may be given more than once
    #[arg(short = 'U', long, value_name = "FILTER")]
    pub(super) unsubscribe: Vec<String>,
    /// Topic filter whose messages are not printed; may be given more than once
    #[arg(short = 'T', long, value_name = "FILTER")]
    pub(super) filter_out: Vec<String>,
    /// End after so many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// End after so many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,
    /// Print the topic in front of the message
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// How a message is printed: %t topic, %p payload, %q QoS, %r retain, %j JSON, ...;
    /// all of them in the README
    #[arg(
        short = 'F',
        value_name = "FORMAT",
        conflicts_with = "verbose",
        allow_hyphen_values = true
    )]
    pub(super) format: Option<String>,
    /// Print JSON (%j, %J) on several lines
    #[arg(long)]
    pub(super) pretty: bool,
    /// Print no end of line after a message
    #[arg(short = 'N')]
    pub(super) no_end_of_line: bool,
    /// Do not print messages that were retained
    #[arg(short = 'R')]
    pub(super) no_retained: bool,
    /// Print retained messages only, and end with the first that is not
    #[arg(long, conflicts_with = "no_retained")]
    pub(super) retained_only: bool,
    /// Remove the retained messages that come
    #[arg(long)]
    pub(super) remove_retained: bool,
    /// Do not send what was published with the same client id (version 5)
    #[arg(long)]
    pub(super) no_local: bool,
    /// Keep the RETAIN flag of what is forwarded (version 5)
    #[arg(long)]
    pub(super) retain_as_published: bool,
    /// Retained messages on subscribing: 0 always, 1 if the subscription is new, 2 never (version 5)
    #[arg(long, value_name = "0|1|2", value_parser = retain_handling)]
    pub(super) retain_handling: Option<RetainHandling>,
    /// End when the broker has acknowledged the subscriptions
    #[arg(short = 'E')]
    pub(super) exit_after_subscribe: bool,
}

impl CommonArgs {
    /// The host and port to connect to.
    pub(super) fn target(&self) -> (String, u16) {
        match &self.url {
            Some(url) => (url.host.clone(), url.port),
            None => (
                self.host.clone().unwrap_or_else(|| "localhost".to_owned()),
                self.port
                    .unwrap_or_else(|| if self.speaks_tls() { 8883 } else { 1883 }),
            ),
        }
    }

    fn speaks_tls(&self) -> bool {
        let by_url = self.url.as_ref().is_some_and(|url| url.is_tls);
        by_url || self.cafile.is_some() || self.tls_use_os_certs
    }

    /// What lies below MQTT.
    pub(super) fn layers(&self) -> Result<Layers, String> {
        let path = || self.ws_path.clone().unwrap_or_else(|| "/mqtt".to_owned());
        Ok(Layers {
            tls: self.tls()?,
            ws: self.ws.then(path),
        })
    }

    /// What TLS is to be like, if it is to be.
    fn tls(&self) -> Result<Option<ClientTls>, String> {
        if !self.speaks_tls() {
            return match self.cert.is_some() || self.insecure {
                true => Err(
                    "TLS is spoken with --cafile FILE, --tls-use-os-certs or -L mqtts://"
                        .to_owned(),
                ),
                false => Ok(None),
            };
        }
        Ok(Some(ClientTls {
            authorities: self.cafile.clone(),
            identity: self.cert.clone().zip(self.key.clone()),
            trust: match self.insecure {
                true => Trust::AnyName,
                false => Trust::Checked,
            },
        }))
    }

    /// The version to speak: the one that was asked for, or the lowest that can do what was.
    /// `needed_by` is an option of the client at hand that only version 5 can fulfil.
    pub(super) fn version(&self, needed_by: Option<&'static str>) -> Result<Version, String> {
        let needed_by = needed_by
            .or_else(|| (!self.property.is_empty()).then_some("-D"))
            .or_else(|| self.session_expiry.map(|_| "-x"));
        match (self.version, needed_by) {
            (Some(Version::V5), _) | (None, Some(_)) => Ok(Version::V5),
            (Some(_), Some(option)) => Err(format!("{option} needs version 5: -V 5")),
            (Some(version), None) => Ok(version),
            (None, None) => Ok(Version::V3_1_1),
        }
    }

    /// The client id to send.
    pub(super) fn client_id(&self, version: Version) -> Result<String, String> {
        let id = match (&self.id, &self.id_prefix) {
            (Some(id), _) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            // Version 3.1 knows no empty client id.
            (None, None) if version == Version::V3_1 => format!("shardmq-{}", std::process::id()),
            (None, None) => String::new(),
        };
        if self.keep_session && id.is_empty() {
            return Err("-c keeps a session, which needs a client id: -i ID".to_owned());
        }
        Ok(id)
    }

    /// The Session Expiry Interval to ask for.
    pub(super) fn session_expiry(&self) -> Option<u32> {
        self.session_expiry
            .or_else(|| self.keep_session.then_some(u32::MAX))
    }

    /// The properties of all -D, for a client that sends these packets.
    pub(super) fn properties(&self, packets: &[Command]) -> Result<Properties, String> {
        Properties::parse(&self.property, packets)
    }
}

fn qos(text: &str) -> Result<QoS, String> {
    let bits: Option<u8> = text.parse().ok();
    bits.and_then(QoS::from_bits)
        .ok_or_else(|| "a QoS is 0, 1 or 2".to_owned())
}

fn version(text: &str) -> Result<Version, String> {
    match text.trim_start_matches("mqttv") {
        "31" | "3.1" => Ok(Version::V3_1),
        "311" | "3.1.1" => Ok(Version::V3_1_1),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err("a version is 31, 311 or 5 (or mqttv31, mqttv311, mqttv5)".to_owned()),
    }
}

fn retain_handling(text: &str) -> Result<RetainHandling, String> {
    match text {
        "0" => Ok(RetainHandling::Send),
        "1" => Ok(RetainHandling::SendIfNew),
        "2" => Ok(RetainHandling::DoNotSend),
        _ => Err("it is 0, 1 or 2".to_owned()),
    }
}

fn expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" | "never" => Ok(u32::MAX),
        _ => text
            .parse()
            .map_err(|_| "seconds up to 4294967295, or -1 for ever".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a number of seconds"))
}

/// Options of mosquitto's clients that these do not have, and why.
const REFUSED: &[(&str, &str)] = &[
    ("--capath", "authorities come from one file: --cafile"),
    ("--keyform", NO_ENGINE),
    ("--ciphers", NO_CHOICE),
    ("--tls-version", NO_CHOICE),
    ("--tls-alpn", "it is mqtt"),
    ("--tls-engine", NO_ENGINE),
    ("--tls-engine-kpass-sha1", NO_ENGINE),
    ("--psk", NO_PSK),
    ("--psk-identity", NO_PSK),
    ("--proxy", "these clients connect directly"),
    ("--unix", "these clients connect over TCP"),
    ("-A", "the system chooses the address to connect from"),
    ("-S", "names are not looked up as SRV records"),
    ("--random-filter", "every message is printed"),
];

const NO_ENGINE: &str = "keys come from PEM files";
const NO_CHOICE: &str = "the best that both sides speak is taken, TLS 1.2 at least";
const NO_PSK: &str = "pre-shared keys are not supported; use --cert and --key";

/// What to say of an option that does not exist here but does in mosquitto's clients.
pub(crate) fn refused(option: &str) -> Option<&'static str> {
    let option = option.split('=').next().unwrap_or(option);
    REFUSED
        .iter()
        .find(|(name, _)| *name == option)
        .map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Sub {
        #[command(flatten)]
        args: SubArgs,
    }

    fn sub(options: &[&str]) -> SubArgs {
        Sub::try_parse_from(std::iter::once(&"sub").chain(options))
            .unwrap()
            .args
    }

    #[test]
    fn of_an_option_that_is_given_twice_the_last_one_counts_and_filters_add_up() {
        let args = sub(&[
            "-q", "1", "-q", "2", "-W", "1", "-W", "0.5", "-t", "a", "-t", "b",
        ]);
        assert_eq!(args.common.qos, QoS::ExactlyOnce);
        assert_eq!(args.timeout, Some(Duration::from_millis(500)));
        assert_eq!(args.topic, ["a", "b"]);
    }

    #[test]
    fn the_version_is_the_lowest_that_can_do_what_is_asked() {
        let version = |options: &[&str]| sub(options).common.version(None);
        assert_eq!(version(&[]), Ok(Version::V3_1_1));
        assert_eq!(version(&["-V", "mqttv31"]), Ok(Version::V3_1));
        assert_eq!(version(&["-x", "5"]), Ok(Version::V5));
        assert_eq!(
            version(&["-D", "connect", "receive-maximum", "5"]),
            Ok(Version::V5)
        );
        assert_eq!(version(&["-V", "5.0", "-x", "5"]), Ok(Version::V5));
        assert!(version(&["-V", "311", "-x", "5"]).is_err());
        assert!(
            sub(&["-V", "311"])
                .common
                .version(Some("--no-local"))
                .is_err()
        );
    }

    #[test]
    fn a_kept_session_never_expires_unless_it_is_told_to() {
        assert_eq!(sub(&["-c"]).common.session_expiry(), Some(u32::MAX));
        assert_eq!(sub(&["-c", "-x", "9"]).common.session_expiry(), Some(9));
        assert_eq!(sub(&["-x", "-1"]).common.session_expiry(), Some(u32::MAX));
        assert_eq!(sub(&[]).common.session_expiry(), None);
    }

    #[test]
    fn a_client_id_is_made_where_the_version_wants_one() {
        let id = |options: &[&str], version| sub(options).common.client_id(version).unwrap();
        assert_eq!(id(&[], Version::V3_1_1), "");
        assert_ne!(id(&[], Version::V3_1), "");
        assert_eq!(id(&["-i", "x"], Version::V5), "x");
        assert_eq!(
            id(&["-I", "x"], Version::V5),
            format!("x{}", std::process::id())
        );
        assert!(sub(&["-c"]).common.client_id(Version::V5).is_err());
    }
}
