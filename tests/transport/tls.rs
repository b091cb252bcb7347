//! TLS as others see it: `openssl s_client`, Python's `ssl`, rustls.

use std::io::{Read, Write};
use std::process::Command;

use crate::broker::{Broker, output, poll};
use crate::client::{Client, config, config_of, tcp, tls};
use crate::{RUNS, skipped};

#[test]
fn messages_come_through_tls_of_both_versions_and_from_listener_to_listener() {
    for run in RUNS {
        let broker = Broker::start(run, "");
        let address = broker.address("tls");
        let mut plain = Client::connect(tcp(broker.address("tcp")), "plain");
        plain.subscribe("a/#");
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let config = config_of(&broker.authority, None, &[version]);
            let name = format!("{:?}", version.version);
            let mut client = Client::connect(tls(address, &config), &name);
            client.subscribe("b/#");
            // From one record of many packets to packets of many records.
            let mut many = Vec::new();
            for number in 0..300_u32 {
                many.extend(crate::client::publish_packet("a/1", &number.to_be_bytes()));
            }
            client.send(&many);
            for number in 0..300_u32 {
                assert_eq!(plain.receive(), number.to_be_bytes());
            }
            for length in [0, 1, 16_000, 16_384, 70_000, 500_000] {
                let payload = vec![7; length];
                client.publish("a/2", &payload);
                assert!(plain.receive() == payload, "{length} bytes to TCP");
                plain.publish("b/2", &payload);
                assert!(client.receive() == payload, "{length} bytes to TLS");
            }
            for byte in crate::client::publish_packet("a/3", b"slowly") {
                client.send(&[byte]);
            }
            assert_eq!(plain.receive(), b"slowly");
            client.ping();
        }
        broker.stop();
    }
}

#[test]
fn a_session_goes_on_by_its_ticket_on_any_shard() {
    for run in RUNS {
        let broker = Broker::start(run, "");
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let config = config_of(&broker.authority, None, &[version]);
            let mut resumed = 0;
            for number in 0..8 {
                // The name decides the shard where it ends up, the kernel the one where it begins.
                let stream = tls(broker.address("tls"), &config);
                let mut client = Client::connect(stream, &format!("resumes-{number}"));
                client.ping();
                let kind = client.stream.conn.handshake_kind();
                resumed += u32::from(kind == Some(rustls::HandshakeKind::Resumed));
            }
            assert_eq!(resumed, 7, "{version:?}: all but the first");
        }
        assert_eq!(
            broker.metric("shardmq_tls_handshakes_total", "kind=\"resumed\""),
            14.0
        );
        assert_eq!(
            broker.metric("shardmq_tls_handshakes_total", "kind=\"full\""),
            2.0
        );
        broker.stop();
    }
}

#[test]
fn openssl_agrees_on_what_is_spoken() {
    let broker = Broker::start(RUNS[0], "");
    let port = broker.address("tls").port();
    let client = |arguments: &str| {
        let line = format!(
            "openssl s_client -connect localhost:{port} -CAfile ca.pem -servername localhost \
             -verify_return_error {arguments} </dev/null 2>&1"
        );
        output(Command::new("sh").args(["-c", &line]), broker.folder.path())
    };
    if !client("").contains("CONNECTED") {
        return skipped("openssl s_client", "openssl is not installed");
    }
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = client(&format!("{version} -alpn mqtt"));
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains(name), "{said}");
        assert!(said.contains("ALPN protocol: mqtt"), "{said}");
    }
    for refused in [
        "-tls1_1",
        "-tls1_2 -cipher PSK",
        "-alpn h2",
        "-no_ticket -tls1",
    ] {
        let said = client(refused);
        assert!(said.contains("no peer certificate"), "{refused}: {said}");
    }
    // What was refused stands in the log, and it was nobody else's concern.
    poll("the refusals", || {
        broker
            .log()
            .contains("connection failed below MQTT")
            .then_some(())
    });
    assert!(broker.metric("shardmq_link_failures_total", "reason=\"tls\"") >= 3.0);
    Client::connect(
        tls(broker.address("tls"), &config(&broker.authority, None)),
        "after",
    )
    .ping();
    broker.stop();
}

#[test]
fn python_speaks_mqtt_over_its_ssl() {
    const SCRIPT: &str = "
import socket, ssl, sys
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile='ca.pem')
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(['mqtt'])
    session = None
    for number in range(3):
        raw = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30)
        with context.wrap_socket(raw, server_hostname='localhost', session=session) as client:
            client.sendall(b'\\x10\\x10\\0\\4MQTT\\4\\2\\0\\0\\0\\4py%02d' % number)
            answer = b''
            while len(answer) < 4: answer += client.recv(4 - len(answer))
            client.sendall(b'\\xc0\\0')
            pong = b''
            while len(pong) < 2: pong += client.recv(2 - len(pong))
            print(client.version(), client.selected_alpn_protocol(), answer.hex(), pong.hex(),
                  client.session_reused)
            session = client.session
            client.sendall(b'\\xe0\\0')
            client.unwrap()
";
    for run in RUNS {
        let broker = Broker::start(run, "");
        let port = broker.address("tls").port().to_string();
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT, &port]);
        let said = output(&mut command, broker.folder.path());
        let mut expected = String::new();
        for version in ["TLSv1.2", "TLSv1.3"] {
            for reused in ["False", "True", "True"] {
                expected += &format!("{version} mqtt 20020000 d000 {reused}\n");
            }
        }
        assert_eq!(said, expected);
        broker.stop();
    }
}

#[test]
fn what_is_no_tls_is_told_so_and_nobody_else_notices() {
    for run in RUNS {
        let broker = Broker::start(run, "");
        let config = config(&broker.authority, None);
        let mut other = Client::connect(tls(broker.address("tls"), &config), "other");
        for bytes in [
            b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0".as_slice(),
            b"GET / HTTP/1.1\r\n\r\n",
            &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
            &[0x16, 3, 1, 0xff, 0xff],
            &[0; 2_000],
        ] {
            let mut stream = tcp(broker.address("tls"));
            stream.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
            other.ping();
        }
        broker.stop();
    }
}
