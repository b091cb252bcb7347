//! Debian's `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr`, as a person uses them in a shell.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Version;
use crate::broker::{Broker, Setup};
use crate::foreign::{matrix, skipped};
use crate::install;

matrix!(command_line, crate::mosquitto::run);

fn run(version: Version, setup: Setup) {
    if let Err(reason) = install::mosquitto_clients() {
        skipped("mosquitto", version, setup, &reason);
        return;
    }
    let broker = Broker::start(setup);
    let shell = Shell {
        port: broker.port().to_string(),
        version,
    };
    every_qos(&shell);
    retained(&shell);
    wildcards_and_options(&shell);
    wills(&shell);
    sessions(&shell);
    shared(&shell);
    many_lines(&shell);
    system_topics(&shell);
    if version.is_v5() {
        properties(&shell);
        request_and_response(&shell);
    }
    broker.stop();
}

/// Runs commands against one broker.
struct Shell {
    port: String,
    version: Version,
}

/// A `mosquitto_sub` that prints a line per message.
struct Sub {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Shell {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let version = if self.version.is_v5() { "5" } else { "311" };
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-p", &self.port, "-V", version])
            .args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments)
            .output()
            .expect("the program is installed")
    }

    /// Publishes; QoS 1 and 2 return when they are acknowledged.
    fn publish(&self, arguments: &[&str]) {
        let output = self.run("mosquitto_pub", arguments);
        assert!(
            output.status.success(),
            "mosquitto_pub {arguments:?}: {output:?}"
        );
    }

    /// What is printed until so many messages came or 30 seconds have passed.
    fn collect(&self, count: usize, arguments: &[&str]) -> Vec<String> {
        let count = count.to_string();
        let all = [&["-C", &count, "-W", "30"], arguments].concat();
        let output = self.run("mosquitto_sub", &all);
        assert!(
            output.status.success(),
            "mosquitto_sub {arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// A subscriber that is known to have subscribed: it prints a retained marker, which stays.
    fn subscribe(&self, format: &str, arguments: &[&str]) -> Sub {
        // Its own, because a second publication would reach the subscribers before this one.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let topic = format!("marker/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let marker = ["-t", &topic, "-F", format, "-W", "60"];
        self.publish(&["-t", &topic, "-m", "ready", "-q", "1", "-r"]);
        // Filters are subscribed in the order given, so the marker is the last.
        let arguments = [arguments, &marker].concat();
        let mut child = self
            .command("mosquitto_sub", &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is installed");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut sub = Sub { child, lines };
        loop {
            // The format shows the payload or the topic of the marker.
            let line = sub.line();
            if line.contains("ready") || line.contains("marker") {
                return sub;
            }
        }
    }
}

impl Sub {
    /// The next line; `-W` ends the wait.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .expect("mosquitto_sub prints text");
        assert!(
            !line.is_empty(),
            "mosquitto_sub ended without another message"
        );
        line.trim_end_matches('\n').to_owned()
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn every_qos(shell: &Shell) {
    for granted in ["0", "1", "2"] {
        let mut sub = shell.subscribe("%q %r %t %p", &["-t", "qos/+", "-q", granted]);
        for published in ["0", "1", "2"] {
            shell.publish(&["-t", "qos/ü", "-m", "grüße", "-q", published]);
            let effective = granted.min(published);
            assert_eq!(sub.line(), format!("{effective} 0 qos/ü grüße"));
        }
    }
}

fn retained(shell: &Shell) {
    for (qos, payload) in [("1", "old"), ("2", "new")] {
        shell.publish(&["-t", "kept/a", "-m", payload, "-q", qos, "-r"]);
    }
    assert_eq!(
        shell.collect(1, &["-t", "kept/#", "-F", "%r %p", "-q", "2"]),
        ["1 new"]
    );
    shell.publish(&["-t", "kept/b", "-m", "other", "-q", "1", "-r"]);
    shell.publish(&["-t", "kept/a", "-n", "-q", "1", "-r"]);
    assert_eq!(
        shell.collect(1, &["-t", "kept/+", "-F", "%r %p"]),
        ["1 other"]
    );
    // `--remove-retained` clears what it sees.
    let cleared = shell.run(
        "mosquitto_sub",
        &["-t", "kept/#", "--remove-retained", "-W", "1"],
    );
    assert!(
        cleared.status.success() || cleared.status.code() == Some(27),
        "{cleared:?}"
    );
    shell.publish(&["-t", "fence", "-m", "fence", "-q", "1", "-r"]);
    assert_eq!(
        shell.collect(1, &["-t", "kept/#", "-t", "fence"]),
        ["fence"]
    );
    shell.publish(&["-t", "fence", "-n", "-q", "1", "-r"]);
}

fn wildcards_and_options(shell: &Shell) {
    let mut sub = shell.subscribe("%t", &["-t", "w/+/x", "-t", "w/y/#", "-q", "1"]);
    for topic in ["w/x", "w/a/x", "w//x", "w/a/b/x", "w/y", "w/y/1/2"] {
        shell.publish(&["-t", topic, "-m", topic, "-q", "1"]);
    }
    let got: Vec<_> = (0..4).map(|_| sub.line()).collect();
    assert_eq!(got, ["w/a/x", "w//x", "w/y", "w/y/1/2"]);
}

/// A subscriber that is killed leaves its will; one that ends by itself does not.
fn wills(shell: &Shell) {
    let mut watcher = shell.subscribe("%r %p", &["-t", "will", "-q", "1"]);
    let with_will = |payload: &'static str| {
        [
            "-t",
            "nothing",
            "--will-topic",
            "will",
            "--will-payload",
            payload,
            "--will-qos",
            "1",
        ]
    };
    let peaceful = with_will("never");
    let ended = shell.run("mosquitto_sub", &[&peaceful[..], &["-E"]].concat());
    assert!(ended.status.success(), "{ended:?}");
    // Dropped is killed.
    drop(shell.subscribe("%p", &with_will("gone")));
    assert_eq!(watcher.line(), "0 gone");
}

fn sessions(shell: &Shell) {
    let lasting: &[&str] = if shell.version.is_v5() {
        &[
            "-i", "lasting", "-c", "-x", "600", "-q", "1", "-t", "offline",
        ]
    } else {
        &["-i", "lasting", "-c", "-q", "1", "-t", "offline"]
    };
    let ended = shell.run("mosquitto_sub", &[lasting, &["-E"]].concat());
    assert!(ended.status.success(), "{ended:?}");
    let payloads: Vec<String> = (0..20).map(|n| format!("message {n}")).collect();
    for payload in &payloads {
        shell.publish(&["-t", "offline", "-m", payload, "-q", "1"]);
    }
    assert_eq!(shell.collect(20, lasting), payloads);
}

fn shared(shell: &Shell) {
    let mut one = shell.subscribe("%p", &["-t", "$share/g/work", "-q", "1", "-t", "one"]);
    let mut two = shell.subscribe("%p", &["-t", "$share/g/work", "-q", "1", "-t", "two"]);
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for payload in &expected {
        shell.publish(&["-t", "work", "-m", payload, "-q", "1"]);
    }
    let mut got = Vec::new();
    for (sub, topic) in [(&mut one, "one"), (&mut two, "two")] {
        shell.publish(&["-t", topic, "-m", "fence", "-q", "1"]);
        let part: Vec<String> =
            std::iter::from_fn(|| Some(sub.line()).filter(|line| line != "fence")).collect();
        // The marker of the second subscriber is retained, so the first may print it once more.
        let part: Vec<String> = part.into_iter().filter(|line| line != "ready").collect();
        assert!(!part.is_empty(), "each member gets something");
        got.extend(part);
    }
    got.sort();
    assert_eq!(got, expected);
}

/// A line per message from standard input, and the order at the other end.
fn many_lines(shell: &Shell) {
    let mut sub = shell.subscribe("%p", &["-t", "lines", "-q", "1"]);
    let lines: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let file = std::env::temp_dir().join(format!("shardmq-lines-{}", shell.port));
    std::fs::write(&file, lines.join("\n") + "\n").expect("the folder can be written");
    let input = std::fs::File::open(&file).expect("it was just written");
    let status = shell
        .command("mosquitto_pub", &["-t", "lines", "-l", "-q", "1"])
        .stdin(input)
        .status()
        .expect("the program is installed");
    let _ = std::fs::remove_file(&file);
    assert!(status.success());
    for line in &lines {
        assert_eq!(&sub.line(), line);
    }
}

fn system_topics(shell: &Shell) {
    let version = shell.collect(1, &["-t", "$SYS/broker/version", "-F", "%t %p"]);
    assert!(
        version[0].len() > "$SYS/broker/version ".len(),
        "{version:?}"
    );
    let clients = shell.collect(1, &["-t", "$SYS/broker/clients/connected"]);
    assert!(clients[0].parse::<u32>().is_ok(), "{clients:?}");
}

fn properties(shell: &Shell) {
    let mut sub = shell.subscribe(
        "%P|%C|%R|%D|%F|%S|%p",
        &[
            "-t",
            "props",
            "-q",
            "1",
            "-D",
            "subscribe",
            "subscription-identifier",
            "42",
        ],
    );
    shell.publish(&[
        "-t",
        "props",
        "-m",
        "x",
        "-q",
        "1",
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
        "text/plain",
        "-D",
        "publish",
        "response-topic",
        "answer",
        "-D",
        "publish",
        "correlation-data",
        "id 7",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
    ]);
    assert_eq!(sub.line(), "b:1 a:2|text/plain|answer|id 7|1|42|x");
}

/// `mosquitto_rr` asks, a subscriber and a publisher answer.
fn request_and_response(shell: &Shell) {
    let mut service = shell.subscribe("%R %p", &["-t", "ask", "-q", "1"]);
    let mut asking = shell
        .command(
            "mosquitto_rr",
            &["-t", "ask", "-e", "answer/here", "-m", "2 + 2", "-W", "30"],
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is installed");
    assert_eq!(service.line(), "answer/here 2 + 2");
    shell.publish(&["-t", "answer/here", "-m", "4", "-q", "1"]);
    let status = asking.wait().expect("it ends by -W at the latest");
    let mut answer = String::new();
    let mut stdout = asking.stdout.take().expect("it is piped");
    stdout.read_to_string(&mut answer).expect("it prints text");
    assert!(
        status.success() && answer.trim() == "4",
        "{status}: {answer:?}"
    );
}
