//! `shardmq run`: from a configuration to a running broker.

use std::process::ExitCode;
use std::time::Duration;

use shardmq::config::{
    ClientCertificate, Config, DeniedPublish, History, Http, Listener, ListenerType, Net,
};
use shardmq::history::Stream;
use shardmq::link::ws;
use shardmq::policy::{Entrance, TokenOptions};
use shardmq::runtime::{
    self, AuthOptions, HttpAddress, HttpAsker, HttpUrl, ListenOptions, Place, RuntimeOptions,
    StoreOptions, TlsOptions, UnixPlace,
};
use shardmq::shard::Durable;

use super::args::RunArgs;
use super::banner::Banner;
use super::{complain, fail, load, logging};

/// Runs the broker until it is stopped.
pub(super) fn run(args: &RunArgs) -> ExitCode {
    let config = match load::all(args) {
        Ok(config) => config,
        Err(error) => return fail(error),
    };
    if let Err(error) = logging::start(&config.log, args) {
        return fail(error);
    }
    if !config.huge_pages {
        runtime::refuse_huge_pages();
    }
    let mut options = options(&config);
    if let (Some(http), Some(_)) = (&mut options.http, args.http) {
        http.required = true; // somebody who types it wants it
    }
    if !args.quiet {
        let store = options.store.clone();
        options.ready = Box::new(move |started| {
            complain(Banner {
                started: &started,
                config: &config,
                store: store.as_ref(),
            });
        });
    }
    match runtime::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format_args!("Error: {error}")),
    }
}

/// Everything that the runtime takes from the configuration.
fn options(config: &Config) -> RuntimeOptions {
    let net = &config.net;
    RuntimeOptions {
        listeners: config.listeners.iter().map(listener).collect(),
        driver: net.driver,
        shards: config.shards,
        settings: config.settings(),
        gather_us: net.gather_us,
        spin_us: net.spin_us,
        max_connections: net.max_connections,
        connection_rates: (
            config.limits.connection_rate,
            config.limits.connection_rate_per_address,
        ),
        max_memory: config.limits.max_memory,
        // A file that `print-config` wrote has the default in it, which nobody counts on.
        counts_on_max_connections: net.max_connections != Net::default().max_connections,
        backlog: net.backlog,
        // A file that `print-config` wrote has the default in it, which nobody counts on.
        http: config.http.bind.map(|address| HttpAddress {
            address,
            required: config.http != Http::default(),
        }),
        store: store(config),
        handshake_timeout: Duration::from_secs(u64::from(net.handshake_timeout)),
        shutdown_grace: Duration::from_secs(u64::from(net.shutdown_grace)),
        auth: Some(auth(config)),
        ..RuntimeOptions::default()
    }
}

fn auth(config: &Config) -> AuthOptions {
    let auth = &config.auth;
    let entrance = |listener: &Listener| Entrance {
        anonymous: listener.lets_in_anybody(auth),
        certificates: listener.client_certificate != ClientCertificate::Off
            || !listener.proxy_from.is_empty(),
    };
    AuthOptions {
        methods: auth.methods(),
        entrances: config.listeners.iter().map(entrance).collect(),
        password_file: auth.password_file.clone(),
        jwks_file: auth.jwks_file.clone(),
        tokens: TokenOptions {
            issuer: auth.jwt_issuer.clone(),
            audience: auth.jwt_audience.clone(),
            user_claim: auth.jwt_user_claim.clone(),
            client_id_claim: auth.jwt_client_id_claim.clone(),
            leeway: auth.jwt_leeway.into(),
        },
        http: HttpUrl::parse(&auth.http_url).ok().map(|url| HttpAsker {
            url,
            timeout: Duration::from_secs(auth.http_timeout.into()),
            concurrency: auth.http_concurrency,
            cache: Duration::from_secs(auth.http_cache.into()),
            authorities: auth.http_ca.clone(),
        }),
        acl_file: auth.acl_file.clone(),
        disconnects_denied: auth.denied_publish == DeniedPublish::Disconnect,
        threads: auth.hashing_threads,
        patience: Duration::from_secs(u64::from(config.mqtt.connect_timeout)),
    }
}

/// Where state is kept, if it is.
fn store(config: &Config) -> Option<StoreOptions> {
    let durability = &config.durability;
    Some(StoreOptions {
        directory: config.data_dir.clone()?,
        durable: Durable {
            sessions: durability.sessions,
            retained: durability.retained,
        },
        interval: Duration::from_micros(durability.interval.into()),
        history: config.history.iter().map(stream).collect(),
    })
}

fn stream(history: &History) -> Stream {
    let micros = |seconds: u32| u64::from(seconds) * 1_000_000;
    Stream {
        name: history.name.clone(),
        filter: history.filter.clone(),
        keep: micros(history.keep),
        keep_bytes: history.keep_bytes,
        bucket: micros(history.bucket),
        interval: history.interval.into(),
    }
}

/// Whether the certificates of all listeners are of use, without using them.
pub(super) fn check_certificates(config: &Config) -> Result<(), String> {
    for listener in config.listeners.iter().map(listener) {
        if let Some(tls) = &listener.tls {
            runtime::check_tls(tls)
                .map_err(|error| format!("listener `{}`: {error}", listener.name))?;
        }
    }
    Ok(())
}

/// Everything that a listener takes from the configuration, which has seen to it that what it needs is
/// there.
fn listener(listener: &Listener) -> ListenOptions {
    let kind = listener.r#type;
    let places = match (kind, &listener.socket) {
        (ListenerType::Unix, Some(socket)) => vec![Place::Unix(UnixPlace {
            path: socket.clone(),
            mode: listener.socket_mode.0,
            owner: listener.socket_owner.clone(),
        })],
        _ => listener.bind.iter().copied().map(Place::Tcp).collect(),
    };
    let silence = listener.tcp_keepalive;
    ListenOptions {
        name: listener.name.clone(),
        places,
        max_connections: match listener.max_connections {
            0 => usize::MAX,
            most => most as usize,
        },
        keep_alive: (silence > 0).then(|| Duration::from_secs(silence.into())),
        tls: kind.has_tls().then(|| TlsOptions {
            certificates: listener.certificate.clone(),
            keys: listener.key.clone(),
            client_certificate: listener.client_certificate,
            client_authorities: listener.client_ca.clone(),
            client_revocations: listener.client_crl.clone(),
            certificate_name: listener.certificate_name,
            minimum: listener.tls_minimum,
        }),
        websocket: kind.has_websocket().then(|| ws::Rules {
            paths: listener.ws_path.clone(),
            origins: listener.ws_origin.clone(),
        }),
        proxy_from: listener.proxy_from.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardmq::config::Driver;

    #[test]
    fn nobody_counts_on_a_default() {
        let options = options(&Config::default());
        assert!(!options.counts_on_max_connections);
        assert!(options.http.is_some_and(|http| !http.required));
        assert_eq!(
            options.max_connections,
            RuntimeOptions::default().max_connections
        );
    }

    #[test]
    fn every_key_reaches_the_runtime() {
        let text = "shards = 3\n[mqtt]\nmax_inflight = 5\n[net]\ndriver = 'epoll'\ngather_us = 7\nspin_us = 3\n\
                    max_connections = 11\nbacklog = 13\nshutdown_grace = 17\nhandshake_timeout = 29\n\
                    [http]\nbind = '127.0.0.1:23'\n\
                    [[listener]]\nname = 'a'\nbind = '127.0.0.1:19'\n";
        let options = options(&Config::parse(text, "a.toml").unwrap());
        assert_eq!(options.shards, 3);
        assert_eq!(options.driver, Driver::Epoll);
        assert_eq!(options.settings.max_inflight, 5);
        assert!(options.counts_on_max_connections);
        assert_eq!(
            (options.gather_us, options.max_connections, options.backlog),
            (7, 11, 13)
        );
        assert_eq!(options.spin_us, 3);
        assert_eq!(options.shutdown_grace, Duration::from_secs(17));
        let http = options.http.unwrap();
        assert_eq!((http.address.port(), http.required), (23, true));
        let address = "127.0.0.1:19".parse().unwrap();
        assert_eq!(options.handshake_timeout, Duration::from_secs(29));
        assert_eq!(options.listeners, [ListenOptions::tcp("a", address)]);
    }
}
