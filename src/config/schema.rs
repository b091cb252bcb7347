//! The keys. Each is declared once, here: its doc comment is its documentation everywhere.
//!
//! A declaration reads `name: type = default, kind, effect;`. `restart` as the effect says that a
//! running broker takes a new value only when it is started anew.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::Problem;
use super::value::{Bounds, FileMode, Key, Kind, Raw, Unit, Value, Words, words};
use crate::limits;
use crate::link::Network;
use crate::policy::Method;
use crate::route::Strategy;
use crate::shard::{Durability, QueueOverflow};
use crate::wire::QoS;

/// A group of keys.
pub(super) trait Section {
    /// What the group is for.
    const ABOUT: &'static [&'static str];
    /// Its keys, in the order they are printed.
    const KEYS: &'static [Key];

    /// Takes a value; `name` is one of [`Self::KEYS`].
    fn set(&mut self, name: &str, raw: Raw<'_>) -> Result<(), Problem>;
    /// The value it has, as TOML.
    fn get(&self, name: &str) -> String;
}

/// The name without the mark that lets a Rust keyword be one.
const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

const fn needs_restart(effect: &str) -> bool {
    matches!(effect.as_bytes(), b"restart")
}

macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $section:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty = $default:expr, $kind:expr, $effect:ident;
            )+
            $(+ $(#[$sub_meta:meta])+ $sub:ident: $sub_type:ty = $sub_default:expr;)*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $section {
            $($(#[doc = $doc])+ pub $key: $type,)+
            $($(#[$sub_meta])+ pub $sub: $sub_type,)*
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default,)+ $($sub: $sub_default,)* }
            }
        }

        impl Section for $section {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const KEYS: &'static [Key] = &[$(Key {
                name: plain(stringify!($key)),
                doc: &[$($doc),+],
                kind: $kind,
                needs_restart: needs_restart(stringify!($effect)),
            }),+];

            fn set(&mut self, name: &str, raw: Raw<'_>) -> Result<(), Problem> {
                $(if name == plain(stringify!($key)) {
                    self.$key = <$type as Value>::read(raw, $kind)?;
                    return Ok(());
                })+
                unreachable!("{name} is not declared in this section");
            }

            fn get(&self, name: &str) -> String {
                $(if name == plain(stringify!($key)) {
                    return Value::write(&self.$key, $kind);
                })+
                unreachable!("{name} is not declared in this section");
            }
        }
    };
}

const fn count(least: u64, greatest: u64) -> Kind {
    Kind::Number(Unit::Count, Bounds { least, greatest })
}

const fn bytes(least: u64, greatest: u64) -> Kind {
    Kind::Number(Unit::Bytes, Bounds { least, greatest })
}

const fn seconds(least: u64, greatest: u64) -> Kind {
    Kind::Number(Unit::Seconds, Bounds { least, greatest })
}

const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
const MIB: u64 = 1024 * 1024;
const TIB: u64 = 1024 * 1024 * MIB;

section! {
    /// Configuration of ShardMQ, an MQTT broker.
    ///
    /// Durations and sizes may carry a unit: "30 s", "5 min", "64 MiB", "200 us".
    pub struct Config {
        /// Version of this file's format. A program refuses a file that is newer than itself.
        version: u32 = 1, count(1, U32), restart;
        /// Shards: cores that serve clients, each on its own. 0 takes every core that the process
        /// may use.
        shards: usize = 0, count(0, limits::MAX_SHARDS as u64), restart;
        /// Directory for durable state: sessions, messages that wait for them, retained messages. It
        /// is made if it is not there; one broker at a time works in it. "" for none: all ends with
        /// the process.
        data_dir: Option<PathBuf> = Some(PathBuf::from("shardmq-data")), Kind::Directory, restart;
        /// Whether the kernel may give memory in pages of 2 MiB. It clears each of them while a shard
        /// waits, and gives a small broker more than it uses.
        huge_pages: bool = false, Kind::Switch, restart;
        + /// The limits and abilities of the protocol, told to each client that can hear them.
        mqtt: Mqtt = Mqtt::default();
        + /// Who may come in, and who may do what.
        auth: Auth = Auth::default();
        + /// What is on disk before it is acknowledged, where there is a data_dir.
        durability: Durable = Durable::default();
        + /// What clients may do at most.
        limits: Limits = Limits::default();
        + /// How the network is driven.
        net: Net = Net::default();
        + /// Metrics and health, by HTTP.
        http: Http = Http::default();
        + /// What is logged and how.
        log: Log = Log::default();
        + /// What is kept of what was published, for a while.
        history: Vec<History> = Vec::new();
        + /// Where clients connect; at least one.
        listeners: Vec<Listener> = vec![Listener::default()];
    }
}

section! {
    /// A place where clients connect; as many [[listener]] tables as you like. A file without one
    /// gets the listener below. Loopback is open to everybody on this machine only; an address
    /// that others reach needs a way to tell who they are, or an explicit `allow_anonymous = true`.
    pub struct Listener {
        /// Name in logs and in the environment: SHARDMQ__LISTENER__LOCAL__BIND sets `bind` of this.
        name: String = String::from("local"), Kind::Word, restart;
        /// IP address and port, or a list of them. 0.0.0.0:1883 takes IPv4 from everywhere, [::]:1883
        /// IPv6. Not for the type unix.
        bind: Vec<SocketAddr> = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))],
            Kind::Addresses, restart;
        /// What is spoken on it: MQTT by TCP, by TLS, by WebSocket, by WebSocket within TLS, or by a
        /// Unix socket.
        r#type: ListenerType = ListenerType::Tcp, Kind::Choice(ListenerType::WORDS), restart;
        /// Whether clients without user name and password are let in. "auto": on loopback, as long
        /// as nothing in [auth] can tell who a client is; nowhere else.
        allow_anonymous: Anonymous = Anonymous::Auto, Kind::Choice(Anonymous::WORDS), restart;
        /// Connections at a time on this listener, all shards together; 0 for as many as [net] allows.
        max_connections: u32 = 0, count(0, U32), restart;
        /// Messages a second that all clients of this listener together may publish. Beyond it they are
        /// read from more slowly, and nothing is lost. Each shard has an equal share. 0 for no limit.
        message_rate: u32 = 0, count(0, U32), restart;
        /// Bytes of payload a second; the same.
        byte_rate: u64 = 0, bytes(0, TIB), restart;
        /// Where the topics of its clients are: this is put before each topic and filter that they name
        /// and taken off what they get. Levels with a / behind them, %u for the user name and %c for
        /// the client id; who lacks that name is not let in. Rules, limits and other clients see the
        /// whole topic, response topics and user properties stay as they are, and `$`-topics are
        /// denied. What a token or an HTTP answer calls mount_point goes before it. "" for none.
        mount_point: String = String::new(), Kind::Text, restart;
        /// Silence after which the kernel asks whether the other machine is still there; 0 for never.
        tcp_keepalive: u32 = 300, seconds(0, 32_767), restart;
        /// The Unix socket, for the type unix. A socket that nobody listens on any more is replaced.
        socket: Option<PathBuf> = None, Kind::File, restart;
        /// Who may connect to the Unix socket.
        socket_mode: FileMode = FileMode(0o660), Kind::FileMode, restart;
        /// Whose the Unix socket is, "user", "user:group" or ":group"; "" leaves it as it is made.
        socket_owner: String = String::new(), Kind::Text, restart;
        /// For tls and wss: PEM files, each with a certificate and those up to its authority. Of
        /// several the one is shown that has the name that the client asks for, otherwise the first.
        /// These and the next four are read again on SIGHUP and when a file changes; what does not
        /// fit together is told and not taken.
        certificate: Vec<PathBuf> = Vec::new(), Kind::Files, restart;
        /// For tls and wss: PEM files with the private keys of the certificates, in the same order.
        key: Vec<PathBuf> = Vec::new(), Kind::Files, restart;
        /// For tls and wss: whether clients must, may or need not show a certificate.
        client_certificate: ClientCertificate = ClientCertificate::Off,
            Kind::Choice(ClientCertificate::WORDS), restart;
        /// For tls and wss: PEM files with the authorities that client certificates come from.
        client_ca: Vec<PathBuf> = Vec::new(), Kind::Files, restart;
        /// For tls and wss: PEM files with what those authorities have revoked. With one of them,
        /// each authority of a client certificate must have its list.
        client_crl: Vec<PathBuf> = Vec::new(), Kind::Files, restart;
        /// Which name of a client certificate says who the client is: its common name, the first of
        /// its alternative names (mail, DNS, URI or IP address), or the whole subject.
        certificate_name: CertificateName = CertificateName::CommonName,
            Kind::Choice(CertificateName::WORDS), restart;
        /// For tls and wss: the oldest version of TLS that is spoken.
        tls_minimum: TlsVersion = TlsVersion::V1_2, Kind::Choice(TlsVersion::WORDS), restart;
        /// For ws and wss: the paths that may be asked for; without one every path may.
        ws_path: Vec<String> = Vec::new(), Kind::Texts, restart;
        /// For ws and wss: the origins of the pages that a browser may connect from, such as
        /// "https://example.org"; without one all may. Clients that are no browsers name none.
        ws_origin: Vec<String> = Vec::new(), Kind::Texts, restart;
        /// The proxies in front of this listener. Each connection must come from one of them and begin
        /// with a header of the PROXY protocol, version 1 or 2, that says who the client is. A Unix
        /// socket takes any entry as: whoever connects.
        proxy_from: Vec<Network> = Vec::new(), Kind::Networks, restart;
    }
}

section! {
    /// The limits and abilities of the protocol, told to each client that can hear them.
    pub struct Mqtt {
        /// Bytes of the largest packet that a client may send; DISCONNECT 0x95 for a larger one,
        /// before its payload is read.
        maximum_packet_size: u32 = limits::DEFAULT_MAXIMUM_PACKET_SIZE,
            bytes(limits::MAX_CONNECT_PACKET_SIZE as u64, limits::MAX_PACKET_SIZE as u64), restart;
        /// QoS 1 and 2 messages that a client may have unacknowledged towards the broker; one more
        /// gets DISCONNECT 0x93.
        receive_maximum: u16 = limits::DEFAULT_RECEIVE_MAXIMUM, count(1, U16), restart;
        /// QoS 1 and 2 messages that the broker has unacknowledged towards one client, at most the
        /// client's own Receive Maximum.
        max_inflight: u16 = limits::DEFAULT_MAX_INFLIGHT, count(1, U16), restart;
        /// Topic aliases that a client may set on one connection, each up to 64 KiB of memory;
        /// 0 for none.
        topic_alias_maximum: u16 = limits::DEFAULT_TOPIC_ALIAS_MAXIMUM, count(0, U16), restart;
        /// The highest QoS that a client may publish with; DISCONNECT 0x9B for a higher one.
        maximum_qos: QoS = QoS::ExactlyOnce, count(0, 2), restart;
        /// Whether messages may be retained.
        retain_available: bool = true, Kind::Switch, restart;
        /// Whether topic filters may hold the wildcards + and #.
        wildcard_subscription_available: bool = true, Kind::Switch, restart;
        /// Whether shared subscriptions ($share/group/filter) are offered.
        shared_subscription_available: bool = true, Kind::Switch, restart;
        /// Whether Subscription Identifiers are taken.
        subscription_identifiers_available: bool = true, Kind::Switch, restart;
        /// Which member of a group gets the next message of a shared subscription.
        shared_subscription_strategy: Strategy =
            Strategy::RoundRobin,
            Kind::Choice(Strategy::WORDS), restart;
        /// The highest Keep Alive in seconds; a version 5 client that asks for a higher one, or for
        /// none, is told this instead, an older one is refused. 0 accepts every interval.
        max_keep_alive: u16 = 0, seconds(0, U16), restart;
        /// The longest that a session outlives its connection; sessions of 3.1.1 clients with
        /// CleanSession 0 get exactly this.
        max_session_expiry_interval: u32 = u32::MAX,
            Kind::Number(Unit::SecondsOrNever, Bounds { least: 0, greatest: U32 }), restart;
        /// QoS 1 and 2 messages that may wait for one client.
        max_queued_messages: u32 = limits::DEFAULT_MAX_QUEUED_MESSAGES, count(0, U32), restart;
        /// Bytes of the messages that may wait for one client. At least maximum_packet_size.
        max_queued_bytes: u64 = limits::DEFAULT_MAX_QUEUED_BYTES, bytes(0, TIB), restart;
        /// Bytes of memory for the messages that wait for clients, all of them together. What is more
        /// waits on disk alone, at 16 bytes of memory each, and is read back when its client
        /// takes it; without a data_dir it stays in memory. 0 keeps hardly any in memory.
        max_queue_memory: u64 = limits::DEFAULT_MAX_QUEUE_MEMORY, bytes(0, TIB), restart;
        /// What gives way when a client's queue is full: "drop_oldest" lets the newest value win,
        /// "drop_new" keeps the first ones, "reject" also tells a version 5 publisher with 0x97.
        /// Every message that is dropped is counted.
        queue_overflow: QueueOverflow = QueueOverflow::DropOldest,
            Kind::Choice(QueueOverflow::WORDS), restart;
        /// Whether QoS 0 messages wait for a client that is away.
        queue_qos0: bool = false, Kind::Switch, restart;
        /// Bytes that may wait in memory for one client's socket; above it QoS 0 messages for that
        /// client are dropped and counted, and QoS 1 and 2 wait in its queue.
        max_output_bytes: usize = limits::DEFAULT_MAX_OUTPUT_BYTES,
            bytes(64 * 1024, 4 * 1024 * MIB), restart;
        /// Subscriptions of one session; SUBACK 0x97 for one more.
        max_subscriptions: u32 = limits::DEFAULT_MAX_SUBSCRIPTIONS, count(1, U32), restart;
        /// Time that a new connection has until its CONNECT is complete.
        connect_timeout: u32 = 10, seconds(1, 3_600), restart;
        /// Time between two publications of $SYS/broker; 0 for never.
        sys_interval: u32 = 10, seconds(0, 86_400), restart;
        /// What a client that asks for Response Information gets, with %c for its client id; ""
        /// for nothing.
        response_information: String = String::new(), Kind::Text, restart;
    }
}

section! {
    /// Who may come in, and who may do what. The files are read at start and again at SIGHUP, each
    /// time checked as a whole: a mistake in one changes nothing.
    pub struct Auth {
        /// Ways to show who one is, in the order in which they are asked until one knows the
        /// client; those that lack what they need are left out.
        order: String = String::from("certificate, jwt, password, http"), Kind::Text, restart;
        /// User names and hashed passwords, as mosquitto has them: $6$, $7$, $argon2id$. `shardmq
        /// passwd` writes it. "" for none.
        password_file: Option<PathBuf> = None, Kind::File, restart;
        /// Keys that sign JSON Web Tokens (RFC 7517): oct for HS256, RSA for RS256, EC with P-256
        /// for ES256, OKP with Ed25519 for EdDSA. A client sends its token as the password and is
        /// put out when the token ends; one without `exp` is refused. Its claim `acl`, with lists of
        /// filters named pub, sub, all and deny, is taken for its rules, and `mount_point` as that of
        /// a listener. "" for none.
        jwks_file: Option<PathBuf> = None, Kind::File, restart;
        /// What `iss` of a token has to be; "" for anything.
        jwt_issuer: String = String::new(), Kind::Text, restart;
        /// What `aud` of a token has to be or to hold; "" for anything.
        jwt_audience: String = String::new(), Kind::Text, restart;
        /// The claim that is the user name; a client that sends one has to send this.
        jwt_user_claim: String = String::from("sub"), Kind::Text, restart;
        /// The claim that, where a token has it, has to be the client id. "" for none.
        jwt_client_id_claim: String = String::from("client_id"), Kind::Text, restart;
        /// Seconds by which the clocks of whoever makes tokens and of this machine may differ.
        jwt_leeway: u32 = 10, seconds(0, 3_600), restart;
        /// Who is asked by HTTP, as http://host:port/path or https://host:port/path: a POST of JSON
        /// with client_id, username, password, address and listener, answered with {"result":
        /// "allow"}, "deny" or "ignore", with an allow also username, expires_in (seconds), acl and
        /// mount_point (as in a token). Whatever else comes, or nothing in time, refuses the client.
        /// "" for nobody.
        http_url: String = String::new(), Kind::Text, restart;
        /// PEM file with the authorities that his certificate may come from, for https; "" for those
        /// that the system trusts.
        http_ca: Option<PathBuf> = None, Kind::File, restart;
        /// How long an answer may take.
        http_timeout: u32 = 5, seconds(1, 60), restart;
        /// Questions at a time.
        http_concurrency: usize = 64, count(1, 4_096), restart;
        /// How long an answer holds for the same question; 0 asks every time.
        http_cache: u32 = 30, seconds(0, 86_400), restart;
        /// Who may read and write which topics, as mosquitto has it: lines of user, topic and
        /// pattern. With one, what it does not allow is denied. "" for none: whoever is in may do
        /// everything.
        acl_file: Option<PathBuf> = None, Kind::File, restart;
        /// What a client before version 5 gets that publishes where it may not, since it cannot be
        /// told: "silence" acknowledges and drops, "disconnect" cuts it off. Version 5 gets 0x87.
        denied_publish: DeniedPublish = DeniedPublish::Silence,
            Kind::Choice(DeniedPublish::WORDS), restart;
        /// Threads that hash passwords, in the time that nobody else wants a CPU. 0 for half as
        /// many as there are CPUs.
        hashing_threads: usize = 0, count(0, limits::MAX_AUTH_THREADS as u64), restart;
    }
}

section! {
    /// What clients may do at most, besides what [mqtt] tells them. Each time that one of these holds
    /// is counted in shardmq_limited_total.
    pub struct Limits {
        /// Bytes of a topic name or filter; beyond it 0x90, in SUBACK 0x8F.
        max_topic_bytes: usize = limits::MAX_STRING, bytes(1, limits::MAX_STRING as u64), restart;
        /// Levels of one; the same.
        max_topic_levels: usize = limits::MAX_TOPIC_LEVELS,
            count(1, limits::MAX_TOPIC_LEVELS as u64), restart;
        /// User Properties of a PUBLISH or a will; beyond it 0x97.
        max_user_properties: usize = limits::DEFAULT_MAX_USER_PROPERTIES, count(0, U32), restart;
        /// Topic filters of a SUBSCRIBE; 0x97 in SUBACK for each one beyond.
        max_filters_per_subscribe: usize = limits::DEFAULT_MAX_FILTERS, count(1, U32), restart;
        /// Retained messages; a new one beyond it is delivered and not kept.
        max_retained_messages: u64 = limits::DEFAULT_MAX_RETAINED_MESSAGES, count(0, U32), restart;
        /// Bytes of all retained messages; the same.
        max_retained_bytes: u64 = limits::DEFAULT_MAX_RETAINED_BYTES, bytes(0, TIB), restart;
        /// Messages a second that a client may publish; a faster one is read from more slowly, and
        /// nothing of it is lost. 0 for no limit.
        message_rate: u32 = 0, count(0, U32), restart;
        /// Bytes of payload a second; the same.
        byte_rate: u64 = 0, bytes(0, TIB), restart;
        /// CONNECTs of one client id that are accepted in `window`; with one more it is banned,
        /// 0x8A. 0 for no limit.
        client_connects: u32 = 0, count(0, U32), restart;
        /// Logins from one address that may fail in `window`; with one more it is banned. Clients
        /// behind one address share the ban. 0 for no limit.
        failed_logins: u32 = 0, count(0, U32), restart;
        /// The time in which those two are counted.
        window: u32 = 60, seconds(1, 86_400), restart;
        /// How long a ban lasts.
        ban: u32 = 300, seconds(1, 86_400), restart;
        /// Connections a second that each listener accepts; those beyond are closed at once. 0 for
        /// no limit.
        connection_rate: u32 = 0, count(0, U32), restart;
        /// The same for each address that they come from.
        connection_rate_per_address: u32 = 0, count(0, U32), restart;
        /// Memory of the process. From 85 % on new clients are refused with 0x89, from 95 % on QoS 0
        /// messages are dropped, and beyond it clients that publish are read from once a second.
        /// 0 for no limit.
        max_memory: u64 = 0, bytes(0, 64 * TIB), restart;
    }
}

section! {
    /// How the network is driven.
    pub struct Net {
        /// "io_uring", "epoll", or "auto": io_uring where the kernel and its policies offer it, and
        /// epoll elsewhere, such as in many containers. The start tells which, and why. What
        /// io_uring lacks and a limit could give, "auto" does not pass over.
        driver: Driver = Driver::Auto, Kind::Choice(Driver::WORDS), restart;
        /// The longest that a busy shard waits for more messages before it handles those it has,
        /// in microseconds. It saves CPU time at fleet loads and costs at most itself in latency.
        /// 0 for the lowest latency.
        gather_us: u32 = 200,
            Kind::Number(Unit::Microseconds, Bounds { least: 0, greatest: 10_000 }), restart;
        /// How long a shard that does not gather looks for the next event before it sleeps, in
        /// microseconds. Answers come some microseconds sooner, and the CPU is busy while clients
        /// are: for a CPU of its own only. 0 to sleep at once.
        spin_us: u32 = 0,
            Kind::Number(Unit::Microseconds, Bounds { least: 0, greatest: 1_000 }), restart;
        /// Connections at a time, all listeners and shards together; what is more is closed at once
        /// and counted. The open files limit of the process may allow fewer.
        max_connections: usize = 1_000_000, count(1, U32), restart;
        /// Connections that wait to be accepted, per shard and listener. The kernel cuts it to
        /// net.core.somaxconn.
        backlog: u32 = 4096, count(1, i32::MAX as u64), restart;
        /// Time that a new connection has for what comes before its CONNECT: TLS, WebSocket, PROXY.
        handshake_timeout: u32 = 10, seconds(1, 3_600), restart;
        /// How long clients have to take their last bytes when the broker stops.
        shutdown_grace: u32 = 5, seconds(0, 3_600), restart;
    }
}

section! {
    /// What is on disk before it is acknowledged, where there is a data_dir: "always" for before,
    /// "interval" for soon after (a power cut costs what was acknowledged within the interval, a crash
    /// of the broker next to nothing), "off" for never.
    pub struct Durable {
        /// Sessions that outlive their connections, with their subscriptions, the QoS 1 and 2 messages that
        /// wait for them, exchanges that have begun, and wills.
        sessions: Durability = Durability::Always, Kind::Choice(Durability::WORDS), restart;
        /// Retained messages.
        retained: Durability = Durability::Always, Kind::Choice(Durability::WORDS), restart;
        /// How long "interval" is.
        interval: u32 = 100_000,
            Kind::Number(Unit::Microseconds, Bounds { least: 1_000, greatest: 60_000_000 }), restart;
    }
}

section! {
    /// A history stream: what was published on topics that match a filter is kept in the data_dir for a
    /// while, and a subscription to $history/RANGE/FILTER gets it again, in order: $history/-24h/# what
    /// came in the last day, $history/-24h../# that and what comes from now on. RANGE is FROM,
    /// FROM.. or FROM..TO; each is so long ago (-90s, -15m, -24h, -7d), a time such as
    /// 2026-11-21T08:30:00Z, or seconds since 1970. As many [[history]] tables as you like, up to 64.
    pub struct History {
        /// Name in logs and in the environment, and of its directory: history/NAME in the data_dir.
        name: String = String::from("history"), Kind::Word, restart;
        /// The topics that are kept, as a topic filter such as "vehicle/+/telemetry". A subscription
        /// to history must match nothing else.
        filter: String = String::new(), Kind::Text, restart;
        /// How long it is kept. It goes by whole buckets, so a bucket longer at most.
        keep: u32 = 86_400, seconds(1, 3_660 * 86_400), restart;
        /// Bytes that it may take on disk, all shards together; then the oldest buckets go. Buckets that
        /// are still written to may take some 10 % more.
        keep_bytes: u64 = 1024 * MIB, bytes(MIB, 64 * TIB), restart;
        /// The span of time of a bucket: the file that is removed as a whole.
        bucket: u32 = 3_600, seconds(1, 366 * 86_400), restart;
        /// After how long it is written and synced. A power cut costs what came since, and so does a
        /// crash of the broker; an acknowledgement says nothing about history.
        interval: u32 = 1_000_000,
            Kind::Number(Unit::Microseconds, Bounds { least: 1_000, greatest: 60_000_000 }), restart;
    }
}

section! {
    /// What the broker tells about itself by HTTP: /metrics for Prometheus, /status for health checks.
    /// Whoever reaches it may read it, and nothing can be changed by it.
    pub struct Http {
        /// IP address and port, "off" or "" for none. If something else has the port of the
        /// default, the broker goes on without; any other address it must get to start.
        bind: Option<SocketAddr> = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9883))),
            Kind::AddressOrOff, restart;
    }
}

section! {
    /// What is logged, to standard error. The variable SHARDMQ_LOG overrides the level with a
    /// filter by module, such as "info,shardmq::shard=debug".
    pub struct Log {
        /// The least important lines that are still written.
        level: LogLevel = LogLevel::Info, Kind::Choice(LogLevel::WORDS), restart;
        /// "full" for one line with all fields, "compact" for a shorter one.
        format: LogFormat = LogFormat::Full, Kind::Choice(LogFormat::WORDS), restart;
    }
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerType {
    /// MQTT in the clear.
    Tcp,
    /// MQTT in TLS.
    Tls,
    /// MQTT in WebSocket.
    Ws,
    /// MQTT in WebSocket in TLS.
    Wss,
    /// MQTT on a Unix socket.
    Unix,
}

impl ListenerType {
    /// Whether it has certificates.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether it has frames of WebSocket.
    #[must_use]
    pub fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// What stands before the `://` of its address.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        }
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// Which name of a certificate says who the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of its subject.
    #[default]
    CommonName,
    /// The first of its alternative names.
    AlternativeName,
    /// The whole subject.
    Subject,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    V1_2,
    /// 1.3.
    V1_3,
}

/// Whether a listener lets in who does not say who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// On loopback, if there is no way to say it.
    Auto,
    /// Yes.
    True,
    /// No.
    False,
}

/// What happens to a client before version 5 that publishes where it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedPublish {
    /// Its message is acknowledged and dropped.
    Silence,
    /// It is cut off.
    Disconnect,
}

/// By which interface of the kernel the network is driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring if it is to be had, epoll otherwise.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// The words that a configuration has for them.
    pub const WORDS: &'static [&'static str] = <Self as Words>::WORDS;
}

impl FromStr for Driver {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Value::read(Raw::Bare(text), Kind::Choice(Self::WORDS))
    }
}

/// The least important lines that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody's attention.
    Error,
    /// What may need it.
    Warn,
    /// What a broker did.
    Info,
    /// What clients did.
    Debug,
    /// Everything.
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// All fields.
    Full,
    /// A shorter one.
    Compact,
}

words! { Driver { Auto = "auto", IoUring = "io_uring", Epoll = "epoll", } }
words! { Anonymous { Auto = "auto", True = "true", False = "false", } }
words! { DeniedPublish { Silence = "silence", Disconnect = "disconnect", } }
words! {
    ListenerType { Tcp = "tcp", Tls = "tls", Ws = "ws", Wss = "wss", Unix = "unix", }
}
words! {
    ClientCertificate { Off = "off", Optional = "optional", Required = "required", }
}
words! {
    CertificateName { CommonName = "cn", AlternativeName = "san", Subject = "subject", }
}
words! { TlsVersion { V1_2 = "1.2", V1_3 = "1.3", } }
words! {
    LogLevel {
        Off = "off",
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}
words! { Durability { Always = "always", Interval = "interval", Off = "off", } }
words! { LogFormat { Full = "full", Compact = "compact", } }
words! {
    QueueOverflow { DropOldest = "drop_oldest", DropNew = "drop_new", Reject = "reject", }
}
words! {
    Strategy {
        RoundRobin = "round_robin",
        Random = "random",
        Sticky = "sticky",
        HashClientId = "hash_client_id",
        HashTopic = "hash_topic",
    }
}

/// The sections besides the top level and the listeners, by name: the one list of them.
pub(super) const SECTIONS: &[(&str, &[Key])] = &[
    ("mqtt", Mqtt::KEYS),
    ("auth", Auth::KEYS),
    ("durability", Durable::KEYS),
    ("limits", Limits::KEYS),
    ("net", Net::KEYS),
    ("http", Http::KEYS),
    ("log", Log::KEYS),
];

impl Config {
    /// Sets a key of one of [`SECTIONS`], or of the top level if `section` is empty.
    pub(super) fn set_in(
        &mut self,
        section: &str,
        name: &str,
        raw: Raw<'_>,
    ) -> Result<(), Problem> {
        match section {
            "" => self.set(name, raw),
            "mqtt" => self.mqtt.set(name, raw),
            "auth" => self.auth.set(name, raw),
            "durability" => self.durability.set(name, raw),
            "limits" => self.limits.set(name, raw),
            "net" => self.net.set(name, raw),
            "http" => self.http.set(name, raw),
            "log" => self.log.set(name, raw),
            other => unreachable!("{other} is not in SECTIONS"),
        }
    }
}

impl Auth {
    /// The ways to show who one is, in their order, that have what they need.
    #[must_use]
    pub fn methods(&self) -> Vec<Method> {
        let methods = Method::list(&self.order).unwrap_or_default();
        methods
            .into_iter()
            .filter(|method| match method {
                Method::Certificate => true,
                Method::Password => self.password_file.is_some(),
                Method::Jwt => self.jwks_file.is_some(),
                Method::Http => !self.http_url.is_empty(),
            })
            .collect()
    }

    /// Whether a client can show who it is by what it sends.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.methods()
            .iter()
            .any(|method| *method != Method::Certificate)
    }
}

impl Listener {
    /// Whether it lets in who does not say who he is.
    #[must_use]
    pub fn lets_in_anybody(&self, auth: &Auth) -> bool {
        match self.allow_anonymous {
            Anonymous::Auto => {
                self.is_local()
                    && !auth.is_configured()
                    && self.client_certificate != ClientCertificate::Required
            }
            Anonymous::True => true,
            Anonymous::False => false,
        }
    }

    /// Whether nobody could come in by it.
    #[must_use]
    pub fn is_closed(&self, auth: &Auth) -> bool {
        !self.lets_in_anybody(auth)
            && !auth.is_configured()
            && self.client_certificate == ClientCertificate::Off
    }

    /// Whether only this machine reaches it.
    fn is_local(&self) -> bool {
        self.r#type == ListenerType::Unix || self.bind.iter().all(|bind| bind.ip().is_loopback())
    }
}
