//! The scenarios of paho-mqtt and MQTT.js, which `tests/blackbox` runs in the clear, with something below
//! them; and Debian's command line clients with certificates.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::broker::{Broker, poll_within, program};
use crate::{RUNS, install, skipped};

/// How long all scenarios of one client may take; they take a fifth of it.
const SUITE: Duration = Duration::from_secs(240);

/// Runs the scenarios of a client over one transport.
fn scenarios(
    client: &str,
    mut command: Command,
    run: (&str, usize),
    transport: &str,
    level: u8,
    more: &[&str],
) {
    let mount = "[[listener]]\nname = 'mounted'\nbind = '127.0.0.1:0'\nmount_point = 'a/b/'\n";
    let broker = Broker::start(run, mount);
    let log = broker.folder.join("client");
    let file = std::fs::File::create(&log).unwrap();
    let mut child = command
        .arg(broker.address(transport).port().to_string())
        .arg(level.to_string())
        .arg(run.1.to_string())
        .args(std::env::var("BLACKBOX_ONLY").ok())
        .args(more)
        .env("SHARDMQ_TEST_TRANSPORT", transport)
        .env("SHARDMQ_TEST_CA", broker.authority_file())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let status = poll_within(SUITE, || child.try_wait().unwrap()).unwrap_or_else(|| {
        let _ = child.kill();
        child.wait().unwrap()
    });
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    println!("{said}");
    let failed: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("FAILED "))
        .collect();
    assert!(failed.is_empty(), "{client}: {failed:#?}");
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(status.success() && passed > 0, "{client}: {status}: {said}");
    broker.stop();
}

fn paho(run: (&str, usize), transport: &str) {
    match install::paho() {
        Ok(python) => {
            let mut command = Command::new(python);
            command.arg("-u").arg("tests/clients/paho/run.py");
            scenarios("paho", command, run, transport, 5, &[]);
        }
        Err(reason) => skipped(&format!("paho over {transport}"), &reason),
    }
}

fn mqttjs(run: (&str, usize), transport: &str) {
    match install::mqttjs() {
        Ok(modules) => {
            let mut command = Command::new("node");
            command
                .arg("tests/clients/mqttjs/run.cjs")
                .env("NODE_PATH", modules);
            scenarios("mqttjs", command, run, transport, 5, &[]);
        }
        Err(reason) => skipped(&format!("mqttjs over {transport}"), &reason),
    }
}

/// Within a mount everything is as without one, but for `$SYS`.
#[test]
fn paho_in_a_mount() {
    match install::paho() {
        Ok(python) => {
            for (run, level) in RUNS.into_iter().zip([5, 4]) {
                let mut command = Command::new(&python);
                command.arg("-u").arg("tests/clients/paho/run.py");
                // The bounds are those of the whole topic: the longest one is longer with a mount.
                let without = ["-sys_topics", "-the_longest_topic"];
                scenarios("paho", command, run, "mounted", level, &without);
            }
        }
        Err(reason) => skipped("paho in a mount", &reason),
    }
}

#[test]
fn paho_over_tls() {
    paho(RUNS[0], "tls");
}

#[test]
fn paho_over_ws() {
    paho(RUNS[1], "ws");
}

#[test]
fn paho_over_wss() {
    paho(RUNS[0], "wss");
}

#[test]
fn mqttjs_over_tls() {
    mqttjs(RUNS[1], "tls");
}

#[test]
fn mqttjs_over_ws() {
    mqttjs(RUNS[0], "ws");
}

#[test]
fn mqttjs_over_wss() {
    mqttjs(RUNS[1], "wss");
}

#[test]
fn mosquitto_with_certificates() {
    if let Err(reason) = install::mosquitto_clients() {
        return skipped("mosquitto with certificates", &reason);
    }
    let strict = "[[listener]]\nname = 'strict'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
        certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
        client_certificate = 'required'\nclient_ca = '{dir}/ca.pem'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, strict, |folder, authority| {
            authority.client("wagon-7", 7).write(folder, "client");
        });
        let port = broker.address("strict").port().to_string();
        let common = [
            "-h",
            "localhost",
            "-p",
            &port,
            "--cafile",
            "ca.pem",
            "-t",
            "a/b",
        ];
        let pair = ["--cert", "client.pem", "--key", "client.key"];
        let folder = broker.folder.path();
        let publish = |arguments: &[&str]| {
            let mut command = Command::new("mosquitto_pub");
            command
                .args(common)
                .args(arguments)
                .current_dir(folder)
                .output()
                .unwrap()
        };
        let published = publish(&[&pair[..], &["-r", "-q", "1", "-m", "kept"]].concat());
        assert!(published.status.success(), "{published:?}");
        let mut command = Command::new("mosquitto_sub");
        let command = command
            .args(common)
            .args(pair)
            .args(["-C", "1", "-W", "30", "-V", "5"]);
        let received = command.current_dir(folder).output().unwrap();
        assert_eq!(received.stdout, b"kept\n", "{received:?}");
        let refused = publish(&["-m", "nobody"]);
        assert!(
            !refused.status.success(),
            "a client without a certificate: {refused:?}"
        );
        broker.stop();
    }
}

#[test]
fn the_clients_of_the_program_speak_tls() {
    let strict = "[[listener]]\nname = 'strict'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
        certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
        client_certificate = 'required'\nclient_ca = '{dir}/ca.pem'\n";
    let broker = Broker::start_with(RUNS[1], strict, |folder, authority| {
        authority.client("wagon-7", 7).write(folder, "client");
    });
    let port = broker.address("strict").port().to_string();
    let run = |command: &str, arguments: &[&str]| {
        let mut program = program();
        program
            .args([command, "-p", &port, "-t", "a/b"])
            .args(arguments);
        program.current_dir(broker.folder.path()).output().unwrap()
    };
    let tls = [
        "--cafile",
        "ca.pem",
        "--cert",
        "client.pem",
        "--key",
        "client.key",
    ];
    let long = "x".repeat(100_000);
    let published = run("pub", &[&tls[..], &["-q", "2", "-r", "-m", &long]].concat());
    assert!(published.status.success(), "{published:?}");
    let received = run("sub", &[&tls[..], &["-C", "1", "-W", "30"]].concat());
    assert_eq!(
        received.stdout,
        format!("{long}\n").as_bytes(),
        "{:?}",
        received.stderr
    );
    // By address, which is in the certificate, and by another name, which is not.
    let by_address = run("pub", &[&tls[..], &["-h", "127.0.0.1", "-m", "x"]].concat());
    assert!(by_address.status.success(), "{by_address:?}");
    let refused = run("pub", &["-m", "x", "--cafile", "client.pem", "-W", "1"]);
    assert!(!refused.status.success());
    let unknown = run("pub", &["-m", "x", "--tls-use-os-certs"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("TLS"), "{said}");
    broker.stop();
}

#[test]
fn our_own_clients_by_websocket() {
    let broker = Broker::start(RUNS[1], "");
    let folder = broker.folder.path();
    let run = |what: &str, listener: &str, more: &[&str]| {
        let port = broker.address(listener).port().to_string();
        let mut command = program();
        command
            .args([what, "-h", "localhost", "-p", &port, "-t", "a/b", "--ws"])
            .args(more)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let long = "x".repeat(100_000);
    for (listener, tls) in [("ws", &[][..]), ("wss", &["--cafile", "ca.pem"])] {
        let published = run(
            "pub",
            listener,
            &[tls, &["-q", "2", "-r", "-m", &long]].concat(),
        );
        assert!(published.status.success(), "{published:?}");
        let received = run("sub", listener, &[tls, &["-C", "1", "-W", "30"]].concat());
        assert!(
            received.stdout == format!("{long}\n").as_bytes(),
            "{:?}",
            received.stderr
        );
    }
    let refused = run("pub", "tcp", &["-m", "x"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("WebSocket"),
        "{said}"
    );
    broker.stop();
}
