//! Who comes from where and with what: IPv6, the owner of a Unix socket, certificates whose time is over, an
//! authenticator behind TLS, tenants with a mount.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::broker::{Broker, poll};
use crate::client::{Client, config, login_packet, tcp, tls};
use crate::pki::{Authority, Identity};
use crate::{RUNS, skipped};

#[test]
fn a_listener_has_addresses_of_both_kinds() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return skipped("IPv6", &error.to_string());
    }
    let text = "[[listener]]\nname = 'six'\nbind = '[::1]:0'\n\
        [[listener]]\nname = 'four'\nbind = '127.0.0.1:0'\n\
        [[listener]]\nname = 'any'\nbind = '[::]:0'\nallow_anonymous = 'true'\n\
        [[listener]]\nname = 'tls'\ntype = 'tls'\nbind = '[::1]:0'\n\
        certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, text, |_, _| ());
        let six = broker.address("six");
        assert!(six.is_ipv6());
        let mut four = Client::connect(tcp(broker.address("four")), "four");
        four.subscribe("t");
        // Enough of them for both shards.
        for number in 0..6 {
            let mut client = Client::connect(tcp(six), &format!("six-{number}"));
            client.publish("t", b"hello");
            assert_eq!(four.receive(), b"hello");
        }
        let config = config(&broker.authority, None);
        Client::connect(tls(broker.address("tls"), &config), "tls").ping();
        let any = broker.address("any").port();
        Client::connect(tcp(format!("[::1]:{any}").parse().unwrap()), "any").ping();
        assert!(
            TcpStream::connect(("127.0.0.1", any)).is_err(),
            "an IPv6 address means IPv6 only"
        );
        broker.stop();
    }
}

/// Whether somebody with this number may connect to a Unix socket.
fn may_connect(user: &str, path: &std::path::Path) -> Option<bool> {
    let script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let output = Command::new("setpriv")
        .args(["--reuid", user, "--regid", user, "--clear-groups", "--"])
        .args(["/usr/bin/python3", "-c", script])
        .arg(path)
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), said.contains("PermissionError")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

#[test]
fn a_unix_socket_is_its_owners() {
    let socket = |name: &str, owner: &str, mode: &str| {
        format!(
            "[[listener]]\nname = '{name}'\ntype = 'unix'\nsocket = '{{dir}}/{name}.sock'\n\
             socket_mode = '{mode}'\nsocket_owner = '{owner}'\n"
        )
    };
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let (user, group) = (id(&["-un"]), id(&["-gn"]));
    let own = [
        socket("both", &format!("{user}:{group}"), "0600"),
        socket("group", &format!(":{group}"), "0060"),
    ];
    let as_root = id(&["-u"]) == "0" && !id(&["-u", "nobody"]).is_empty();
    let others = [
        socket("nobody", "nobody", "0600"),
        socket("root", "root", "0600"),
    ];
    let mut text = own.concat();
    if as_root {
        text += &others.concat();
    }
    let broker = Broker::start_with(RUNS[0], &text, |_, _| ());
    let of = |name: &str| std::fs::metadata(broker.folder.join(&format!("{name}.sock"))).unwrap();
    assert_eq!(
        (of("both").uid().to_string(), of("both").mode() & 0o777),
        (id(&["-u"]), 0o600)
    );
    assert_eq!(
        (of("group").gid().to_string(), of("group").mode() & 0o777),
        (id(&["-g"]), 0o060)
    );
    let nobody = id(&["-u", "nobody"]);
    // Only root may give a socket away, and see who may connect then.
    if as_root {
        match may_connect(&nobody, &broker.folder.join("nobody.sock")) {
            Some(open) => {
                assert_eq!(of("nobody").uid().to_string(), nobody);
                let other = may_connect(&nobody, &broker.folder.join("root.sock"));
                assert_eq!((open, other), (true, Some(false)));
            }
            None => skipped(
                "the socket of another user",
                "setpriv or python3 is not installed",
            ),
        }
    }
    broker.stop();
    // An owner that does not exist keeps the broker from starting.
    let bad = socket("bad", "no-such-user-here", "0600");
    let told = std::panic::catch_unwind(|| Broker::start_with(RUNS[1], &bad, |_, _| ()));
    assert!(told.is_err());
}

#[test]
fn certificates_whose_time_is_over_are_of_no_use() {
    let strict = "[[listener]]\nname = 'strict'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
        certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
        client_certificate = 'required'\nclient_ca = '{dir}/ca.pem'\n\
        [[listener]]\nname = 'late'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
        certificate = '{dir}/late.pem'\nkey = '{dir}/late.key'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, strict, |folder, authority| {
            let late = authority.expired("localhost", ExtendedKeyUsagePurpose::ServerAuth);
            late.write(folder, "late");
        });
        let authority = &broker.authority;
        let gets_in = |listener: &str, identity: Option<&Identity>| {
            let stream = tls(broker.address(listener), &config(authority, identity));
            Client::try_connect(stream, "tries").is_ok()
        };
        let old = authority.expired("wagon-7", ExtendedKeyUsagePurpose::ClientAuth);
        assert!(
            !gets_in("strict", Some(&old)),
            "a client whose time is over"
        );
        assert!(gets_in("strict", Some(&authority.client("wagon-7", 7))));
        // A server whose time is over is told to the operator, and refused by clients that look.
        assert!(!gets_in("late", None));
        assert!(broker.log().contains("late.pem"), "{}", broker.log());
        authority
            .server(&["localhost"])
            .write(&broker.folder, "late");
        poll("the new certificate", || {
            gets_in("late", None).then_some(())
        });
        broker.stop();
    }
}

/// What the broker says to a CONNECT.
fn answer(broker: &Broker, user: &str, password: &str) -> u8 {
    let mut stream = tcp(broker.address("tcp"));
    stream
        .write_all(&login_packet(&format!("of-{user}"), user, password))
        .unwrap();
    let mut client = Client { stream };
    client.packet().unwrap().1[1]
}

/// An authenticator that speaks TLS with this certificate; `anna` with `pw` may come in.
fn oracle(listener: TcpListener, identity: &Identity) {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, socket);
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // A body of JSON ends with a brace, and nothing before it has one at the end of a read.
            while !request.ends_with(b"}") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&request);
            let known =
                text.contains(r#""username":"anna""#) && text.contains(r#""password":"pw""#);
            let body = format!(
                r#"{{"result":"{}","username":"anna"}}"#,
                if known { "allow" } else { "deny" }
            );
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
}

#[test]
fn an_authenticator_behind_tls_is_who_he_says_or_nobody() {
    // Whose certificate he has, and by which name he is asked.
    for (ours, host, expected) in [
        (true, "localhost", 0),
        (true, "127.0.0.1", 3),
        (false, "localhost", 3),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = format!(
            "[auth]\nhttp_url = 'https://{host}:{port}/login'\nhttp_ca = '{{dir}}/ca.pem'\n\
             http_timeout = '5 s'\n[[listener]]\nname = 'tcp'\nbind = '127.0.0.1:0'\n"
        );
        let broker = Broker::start_with(RUNS[0], &text, |_, authority| {
            let stranger = Authority::new("another");
            let issuer = if ours { authority } else { &stranger };
            oracle(listener, &issuer.server(&["localhost"]));
        });
        assert_eq!(answer(&broker, "anna", "pw"), expected, "{ours} {host}");
        if expected == 0 {
            assert_eq!(answer(&broker, "anna", "wrong"), 5);
            assert_eq!(answer(&broker, "bob", "pw"), 5);
        } else {
            assert!(broker.log().contains("gives no answer"), "{}", broker.log());
        }
        broker.stop();
    }
}

#[test]
fn a_tenant_is_put_where_its_listener_says() {
    let text = "[[listener]]\nname = 'tcp'\nbind = '127.0.0.1:0'\n\
        [[listener]]\nname = 'mounted'\nbind = '127.0.0.1:0'\nmount_point = 'fleet/%c/'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, text, |_, _| ());
        let mut open = Client::connect(tcp(broker.address("tcp")), "open");
        open.subscribe("fleet/#");
        for name in ["a", "b", "c", "d"] {
            let mut tenant = Client::connect(tcp(broker.address("mounted")), name);
            tenant.subscribe("#");
            tenant.publish("speed", name.as_bytes());
            // The topic and the payload, as they are on the wire.
            let (first, body) = open.packet().unwrap();
            let topic = format!("fleet/{name}/speed");
            let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
            let whole = [&length[..], topic.as_bytes(), name.as_bytes()].concat();
            assert_eq!((first, body), (0x30, whole));
            let (_, body) = tenant.packet().unwrap();
            assert_eq!(body, [b"\0\x05speed", name.as_bytes()].concat());
            open.publish(&format!("fleet/{name}/order"), b"stop");
            assert_eq!(open.receive(), b"stop");
            let (_, body) = tenant.packet().unwrap();
            assert_eq!(body, b"\0\x05orderstop");
            tenant.ping();
        }
        broker.stop();
    }
}
