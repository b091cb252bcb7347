//! Load over TLS, WebSocket and both: every message arrives, and what is not to be trusted is not.

use std::path::Path;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::brokers::{Broker, Scratch, VERIFIED, free_port, loadgen, result, shardmq_with, start};

/// Where the listeners are.
struct Ports {
    tls: u16,
    strict: u16,
    ws: u16,
    wss: u16,
}

/// An authority, a server and a client of its, as PEM files.
fn certificates(folder: &Path) {
    let key = || KeyPair::generate().expect("random numbers");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let authority = params.self_signed(&authority_key).expect("a certificate");
    let issuer = Issuer::new(params, authority_key);
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("the folder can be written");
    };
    write("ca.pem", authority.pem());
    for (name, host) in [("server", "127.0.0.1"), ("client", "wagon-7")] {
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        let key = key();
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// A broker with a listener of each kind.
fn broker(folder: &Path, test: &str) -> Option<(Broker, Ports)> {
    certificates(folder);
    let ports = Ports {
        tls: free_port(),
        strict: free_port(),
        ws: free_port(),
        wss: free_port(),
    };
    let dir = folder.display();
    let listener = |kind: &str, name: &str, port: u16, more: &str| {
        let tls = match kind {
            "ws" => String::new(),
            _ => format!("certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n"),
        };
        format!(
            "[[listener]]\nname = '{name}'\ntype = '{kind}'\nbind = '127.0.0.1:{port}'\n{tls}{more}"
        )
    };
    let asks = format!(
        "client_certificate = 'required'\nclient_ca = '{dir}/ca.pem'\nallow_anonymous = 'true'\n"
    );
    let text = [
        listener("tls", "tls", ports.tls, ""),
        listener("tls", "strict", ports.strict, &asks),
        listener("ws", "ws", ports.ws, "ws_path = '/mqtt'\n"),
        listener("wss", "wss", ports.wss, ""),
    ];
    let file = folder.join("shardmq.toml");
    let text = format!("shards = 1\n[http]\nbind = ''\n{}", text.concat());
    std::fs::write(&file, text).expect("the folder can be written");
    let mut command: Command = shardmq_with(test)?;
    command.args(["run", "--ephemeral", "-c"]).arg(file);
    Some((start(command, ports.wss), ports))
}

fn run(port: u16, arguments: &[&str]) -> Output {
    let flow = ["--rate", "4k", "-L", "2000", "-q", "1"];
    loadgen(port, &[&VERIFIED[..], &flow, arguments].concat())
}

#[test]
fn load_comes_through_every_transport() {
    let folder = Scratch::new("transports");
    let Some((_broker, ports)) = broker(&folder.0, "load_comes_through_every_transport") else {
        return;
    };
    let path = |name: &str| folder.0.join(name).display().to_string();
    let (authority, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let trusting = ["-S", "--cafile", &authority];
    let known = ["--cert", &certificate, "--key", &key];
    for (port, arguments) in [
        (ports.tls, trusting.to_vec()),
        (ports.tls, vec!["--tls", "--insecure"]),
        (ports.strict, [&trusting[..], &known].concat()),
        (ports.ws, vec!["--ws"]),
        (ports.wss, [&trusting[..], &["--ws"]].concat()),
    ] {
        for driver in ["io_uring", "epoll"] {
            let output = run(port, &[&arguments[..], &["--driver", driver]].concat());
            let result = result(&output);
            assert_eq!(output.status.code(), Some(0), "{arguments:?} {result}");
            let delivered = &result["verification"]["delivered"];
            assert_eq!(delivered.as_u64(), Some(2_000), "{arguments:?} {result}");
        }
    }
    // Saturated, so that records and frames are cut wherever reads end.
    let saturate = [
        "-L",
        "2000",
        "-q",
        "1",
        "-S",
        "--insecure",
        "--ws",
        "--closed-loop",
        "-s",
        "20000",
    ];
    let output = loadgen(ports.wss, &[&VERIFIED[..], &saturate].concat());
    assert_eq!(output.status.code(), Some(0), "{}", result(&output));
}

#[test]
fn what_is_not_to_be_trusted_is_told() {
    let folder = Scratch::new("untrusted");
    let Some((_broker, ports)) = broker(&folder.0, "what_is_not_to_be_trusted_is_told") else {
        return;
    };
    let authority = folder.0.join("ca.pem").display().to_string();
    for (port, arguments, told) in [
        (ports.tls, vec!["-S", "-h", "127.0.0.1"], "certificate"),
        (
            ports.strict,
            vec!["-S", "--cafile", &authority],
            "ertificate",
        ),
        (ports.ws, vec!["--ws", "--ws-path", "/other"], "404"),
    ] {
        let output = run(port, &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{arguments:?} {said}");
        assert!(said.contains(told), "{arguments:?} {said}");
    }
}
