//! The broker of this program, and its own clients with it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{Ended, run, run_with_input, shardmq};

/// A broker that runs, on a port of its own.
pub(crate) struct Broker {
    child: Child,
    log: Option<JoinHandle<String>>,
    banner: String,
    port: String,
}

impl Broker {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = shardmq(&["run", "--listen", "127.0.0.1:0"]);
        if !arguments.contains(&"--shards") {
            command.args(["--shards", "1"]);
        }
        if !arguments.contains(&"--data-dir") {
            command.arg("--ephemeral");
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let banner = banner(&mut lines);
        let port = banner
            .split("mqtt://127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("no address in {banner:?}"))
            .to_owned();
        // Somebody must go on reading, or the broker's log fills the pipe.
        let rest = move || {
            let mut rest = String::new();
            let _ = lines.read_to_string(&mut rest);
            rest
        };
        let log = Some(thread::Builder::new().spawn(rest).unwrap());
        Self {
            child,
            log,
            banner,
            port,
        }
    }

    /// Runs a client to its end.
    pub(crate) fn client(&self, arguments: &[&str]) -> Ended {
        run(&self.arguments(arguments))
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let (client, options) = arguments.split_first().unwrap();
        let mut all = vec![*client, "-h", "127.0.0.1", "-p", &self.port];
        all.extend_from_slice(options);
        all
    }

    /// Starts a subscriber and waits until its subscription is acknowledged.
    fn subscriber(&self, options: &[&str]) -> Child {
        let mut arguments = self.arguments(&["sub", "-d", "-W", "20"]);
        arguments.extend_from_slice(options);
        let mut child = shardmq(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "no SUBACK");
            if line.contains("received SUBACK") {
                break;
            }
        }
        thread::Builder::new()
            .spawn(move || {
                let _ = lines.read_to_string(&mut String::new());
            })
            .unwrap();
        child
    }

    /// Ends it as a service manager does; its exit code and the rest of its log.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        signal(&self.child);
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads up to the last line of the banner.
fn banner(lines: &mut BufReader<ChildStderr>) -> String {
    let mut text = String::new();
    let is_whole = |text: &str| {
        let kept = text.contains("  durability ") && !text.contains("in memory only");
        kept || text.contains("nothing is written to") || text.contains("with this process.\n")
    };
    while !is_whole(&text) {
        assert_ne!(
            lines.read_line(&mut text).unwrap(),
            0,
            "the broker ended: {text}"
        );
    }
    text
}

fn signal(child: &Child) {
    let kill = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    assert!(kill.unwrap().success());
}

fn output(child: Child) -> Ended {
    child.wait_with_output().unwrap().into()
}

#[test]
fn the_banner_says_who_gets_in_and_what_is_kept() {
    let broker = Broker::start(&[]);
    let banner = &broker.banner;
    assert!(
        banner.contains(concat!("ShardMQ ", env!("CARGO_PKG_VERSION"))),
        "{banner}"
    );
    assert!(banner.contains("1, on core "), "{banner}");
    assert!(banner.contains("--listen 0.0.0.0:"), "{banner}");
    assert!(banner.contains("in memory only"), "{banner}");
    let (code, log) = broker.stop();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_message_goes_from_one_client_to_the_other() {
    let broker = Broker::start(&[]);
    for version in ["31", "311", "5"] {
        for qos in ["0", "1", "2"] {
            let subscriber =
                broker.subscriber(&["-V", version, "-q", qos, "-t", "a/+", "-v", "-C", "1"]);
            let ended =
                broker.client(&["pub", "-V", version, "-q", qos, "-t", "a/b", "-m", "hello"]);
            assert_eq!(ended.code, 0, "{}", ended.err);
            assert_eq!(
                output(subscriber).out,
                "a/b hello\n",
                "version {version}, QoS {qos}"
            );
        }
    }
}

#[test]
fn lines_arrive_in_their_order() {
    let broker = Broker::start(&["--shards", "2"]);
    let lines: String = (0..2_000).map(|number| format!("{number}\n")).collect();
    for qos in ["0", "1", "2"] {
        let subscriber = broker.subscriber(&["-q", qos, "-t", "lines", "-C", "2000"]);
        let publisher = broker.arguments(&["pub", "-q", qos, "-t", "lines", "-l"]);
        let ended = run_with_input(&publisher, lines.as_bytes());
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert!(output(subscriber).out == lines, "QoS {qos}");
    }
}

#[test]
fn retained_messages_are_set_seen_and_removed() {
    let broker = Broker::start(&[]);
    assert_eq!(
        broker
            .client(&["pub", "-t", "r/1", "-m", "kept", "-r", "-q", "1"])
            .code,
        0
    );
    let ended = broker.client(&["sub", "-t", "r/#", "-C", "1", "-F", "%t %p %r", "-W", "5"]);
    assert_eq!(ended.out, "r/1 kept 1\n", "{}", ended.err);
    let ended = broker.client(&[
        "sub",
        "-t",
        "r/#",
        "--remove-retained",
        "-C",
        "1",
        "-W",
        "5",
    ]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let ended = broker.client(&["sub", "-t", "r/#", "-W", "0.5"]);
    assert_eq!((ended.code, ended.out.as_str()), (27, ""));
}

#[test]
fn a_kept_session_gets_what_came_in_the_meantime() {
    let broker = Broker::start(&[]);
    let session = ["-c", "-i", "kept", "-q", "1", "-t", "s"];
    let mut arguments = vec!["sub", "-E"];
    arguments.extend_from_slice(&session);
    assert_eq!(broker.client(&arguments).code, 0);
    assert_eq!(
        broker
            .client(&["pub", "-t", "s", "-m", "later", "-q", "1"])
            .code,
        0
    );
    arguments = vec!["sub", "-C", "1", "-W", "5"];
    arguments.extend_from_slice(&session);
    let ended = broker.client(&arguments);
    assert_eq!(ended.out, "later\n", "{}", ended.err);
}

#[test]
fn properties_pass_through() {
    let broker = Broker::start(&[]);
    let subscriber = broker.subscriber(&[
        "-V",
        "5",
        "-t",
        "p",
        "-C",
        "1",
        "-F",
        "%P|%C|%R|%D|%F|%S",
        "-D",
        "subscribe",
        "subscription-identifier",
        "9",
    ]);
    let ended = broker.client(&[
        "pub",
        "-t",
        "p",
        "-m",
        "x",
        "-D",
        "publish",
        "user-property",
        "b",
        "1",
        "-D",
        "publish",
        "user-property",
        "a",
        "2",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "publish",
        "response-topic",
        "answer",
        "-D",
        "publish",
        "correlation-data",
        "id",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
    ]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(output(subscriber).out, "b:1 a:2|text|answer|id|1|9\n");
}

#[test]
fn a_configured_limit_is_told_and_kept() {
    let file = std::env::temp_dir().join(format!("shardmq-limit-{}.toml", std::process::id()));
    std::fs::write(&file, "[mqtt]\nmaximum_qos = 1\nretain_available = false\n").unwrap();
    let broker = Broker::start(&["-c", file.to_str().unwrap()]);
    let ended = broker.client(&["pub", "-V", "5", "-t", "a", "-m", "b", "-q", "2"]);
    assert!(ended.err.contains("QoS 1 at most"), "{}", ended.err);
    let ended = broker.client(&["pub", "-V", "5", "-t", "a", "-m", "b", "-r"]);
    assert!(ended.err.contains("retains no messages"), "{}", ended.err);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn clients_are_told_when_the_broker_stops() {
    let broker = Broker::start(&[]);
    let subscriber = broker.subscriber(&["-V", "5", "-t", "a", "-W", "3"]);
    let (code, log) = broker.stop();
    assert_eq!(code, Some(0), "{log}");
    // It tries again, as the reason is one that passes, until its time is over.
    assert_eq!(output(subscriber).code, 27);
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let broker = Broker::start(&[]);
    let address = format!("127.0.0.1:{}", broker.port);
    let mut second = shardmq(&["run", "--listen", &address, "--shards", "1"]);
    let mut child = second
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It must end by itself.
    for _ in 0..100 {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    let ended = output(child);
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains(&address) && ended.err.contains("Fix: "),
        "{}",
        ended.err
    );
}
