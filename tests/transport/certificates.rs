//! Certificates of clients, of servers with several names, and their exchange while the broker runs.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::ClientConfig;

use crate::RUNS;
use crate::broker::{Broker, check, poll};
use crate::client::{Client, config, config_of, tls, tls_to};
use crate::pki::{Authority, Folder};

const STRICT: &str = "[[listener]]\nname = 'strict'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
    certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
    client_certificate = 'required'\nclient_ca = '{dir}/ca.pem'\n";

/// Whether a client of this configuration gets in.
fn gets_in(broker: &Broker, listener: &str, config: &Arc<ClientConfig>) -> bool {
    // With TLS 1.3 a client hears of its refusal when it reads.
    Client::try_connect(tls(broker.address(listener), config), "tries").is_ok()
}

#[test]
fn clients_show_certificates_as_the_listener_asks() {
    let optional = STRICT
        .replace("strict", "lax")
        .replace("required", "optional");
    for run in RUNS {
        let broker = Broker::start_with(run, &format!("{STRICT}{optional}"), |_, _| ());
        let stranger = Authority::new("another").client("wagon-7", 7);
        let known = broker.authority.client("wagon-7", 7);
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let config = |identity| config_of(&broker.authority, identity, &[version]);
            assert!(gets_in(&broker, "strict", &config(Some(&known))));
            assert!(!gets_in(&broker, "strict", &config(None)));
            assert!(!gets_in(&broker, "strict", &config(Some(&stranger))));
            assert!(gets_in(&broker, "lax", &config(Some(&known))));
            assert!(gets_in(&broker, "lax", &config(None)));
            assert!(!gets_in(&broker, "lax", &config(Some(&stranger))));
        }
        broker.stop();
    }
}

#[test]
fn what_is_revoked_stays_out_also_by_a_ticket() {
    let text = format!("{STRICT}client_crl = '{{dir}}/revoked.pem'\n");
    let broker = Broker::start_with(RUNS[0], &text, |folder, authority| {
        folder.write("revoked.pem", &authority.revocations(&[8]));
    });
    let seven = config(
        &broker.authority,
        Some(&broker.authority.client("seven", 7)),
    );
    let eight = config(
        &broker.authority,
        Some(&broker.authority.client("eight", 8)),
    );
    assert!(gets_in(&broker, "strict", &seven), "this leaves a ticket");
    assert!(!gets_in(&broker, "strict", &eight));
    let mut stays = Client::connect(tls(broker.address("strict"), &seven), "stays");
    broker
        .folder
        .write("revoked.pem", &broker.authority.revocations(&[7]));
    poll("the new list", || {
        gets_in(&broker, "strict", &eight).then_some(())
    });
    assert!(
        !gets_in(&broker, "strict", &seven),
        "its ticket is of no use"
    );
    stays.ping(); // Who is in stays in.
    broker.stop();
}

#[test]
fn a_client_is_shown_the_certificate_that_it_asks_for() {
    let text = "[[listener]]\nname = 'names'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
        certificate = ['{dir}/server.pem', '{dir}/one.pem', '{dir}/wild.pem']\n\
        key = ['{dir}/server.key', '{dir}/one.key', '{dir}/wild.key']\n";
    let broker = Broker::start_with(RUNS[1], text, |folder, authority| {
        authority.server(&["one.example.org"]).write(folder, "one");
        authority.server(&["*.example.org"]).write(folder, "wild");
    });
    let config = config(&broker.authority, None);
    // Its own check of the name fails if it is shown another one.
    for name in [
        "localhost",
        "one.example.org",
        "two.example.org",
        "TWO.example.ORG",
    ] {
        Client::connect(tls_to(broker.address("names"), &config, name), name).ping();
    }
    let stranger = tls_to(broker.address("names"), &config, "example.com");
    assert!(
        Client::try_connect(stranger, "stranger").is_err(),
        "it gets the first one"
    );
    broker.stop();
}

/// A flag that is raised when this goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn new_certificates_come_into_use_without_losing_a_client_or_a_message() {
    for run in RUNS {
        let broker = Broker::start(run, "");
        let address = broker.address("tls");
        let old = config(&broker.authority, None);
        let stop = AtomicBool::new(false);
        let received = AtomicU64::new(0);
        let later = Authority::new("a later authority");
        std::thread::scope(|scope| {
            let mut subscriber = Client::connect(tls(address, &old), "subscriber");
            subscriber.subscribe("load");
            let mut publisher = Client::connect(tls(address, &old), "publisher");
            // Both stay connected, and nothing is lost between them, whatever is exchanged.
            let (stop, received) = (&stop, &received);
            let _end = Raised(stop); // also where a check fails
            scope.spawn(move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    publisher.publish("load", &number.to_be_bytes());
                    assert_eq!(subscriber.receive(), number.to_be_bytes());
                    number += 1;
                    received.store(number, Ordering::Relaxed);
                }
                publisher.ping();
            });
            let progress = || {
                let before = received.load(Ordering::Relaxed);
                poll("messages", || {
                    (received.load(Ordering::Relaxed) > before + 50).then_some(())
                });
            };
            progress();
            // A key that does not belong to the certificate is not taken, and said to be wrong.
            let wrong = later.server(&["localhost"]);
            broker.folder.write("server.key", &wrong.key);
            poll("the complaint", || {
                broker.log().contains("does not belong").then_some(())
            });
            assert!(gets_in(&broker, "tls", &old));
            broker.folder.write("server.pem", &wrong.certificate);
            let new = config(&later, None);
            poll("the new certificate", || {
                gets_in(&broker, "tls", &new).then_some(())
            });
            progress();
            // And back at once, by a signal.
            let third = later.server(&["localhost"]);
            third.write(&broker.folder, "server");
            broker.signal("HUP");
            poll("the reload", || {
                broker.log().contains("SIGHUP").then_some(())
            });
            progress();
            assert!(gets_in(&broker, "tls", &new));
        });
        assert!(broker.metric("shardmq_tls_reloads_total", "result=\"ok\"") >= 2.0);
        assert!(broker.metric("shardmq_tls_reloads_total", "result=\"failed\"") >= 1.0);
        broker.stop();
    }
}

#[test]
fn when_certificates_end_is_told() {
    let broker = Broker::start(RUNS[0], "");
    // 2120-01-01, as the certificates here are made.
    let labels = format!(
        "{{listener=\"tls\",file=\"{}\"}}",
        broker.folder.join("server.pem").display()
    );
    let name = "shardmq_tls_expiry_timestamp_seconds";
    assert_eq!(broker.metric(name, &labels), 4_733_510_400.0);
    assert!(broker.log().contains("certificate in use"));
    broker.stop();
}

#[test]
fn certificates_of_no_use_are_told_before_the_start() {
    let folder = Folder::new();
    let authority = Authority::new("authority");
    let one = authority.server(&["localhost"]);
    let two = authority.server(&["localhost"]);
    one.write(&folder, "one");
    two.write(&folder, "two");
    folder.write("empty.pem", "nothing\n");
    let dir = folder.path().display();
    for (certificate, key, said) in [
        ("none.pem", "one.key", "none.pem: there is no such file"),
        (
            "empty.pem",
            "one.key",
            "empty.pem: there is no certificate in it",
        ),
        (
            "one.pem",
            "one.pem",
            "one.pem: there is no private key in it",
        ),
        (
            "one.pem",
            "two.key",
            "two.key: this key does not belong to the certificate in",
        ),
    ] {
        let text = format!(
            "[[listener]]\nname = 'tls'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
             certificate = '{dir}/{certificate}'\nkey = '{dir}/{key}'\n"
        );
        let (fine, output) = check(&folder, &text);
        assert!(!fine && output.contains(said), "{output}");
    }
    std::io::stdout().flush().unwrap();
}
