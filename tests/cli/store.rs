//! `shardmq store` on what a broker kept, and on what mosquitto kept.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shardmq::runtime::store::{Remains, Store, StoreError};

use crate::broker::Broker;
use crate::{Ended, run, run_with_input};

/// Bits that are flipped in what a broker wrote.
const FLIPS: usize = 150;

/// Removed with all that is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardmq-cli-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn store(arguments: &[&str]) -> Ended {
    let mut all = vec!["store"];
    all.extend_from_slice(arguments);
    run(&all)
}

/// Lets a client subscribe, go, and miss two messages; a third one is retained.
fn fill(broker: &Broker) {
    let session = ["-c", "-i", "away", "-q", "2", "-t", "way/#"];
    let mut subscribe = vec!["sub", "-E"];
    subscribe.extend_from_slice(&session);
    assert_eq!(broker.client(&subscribe).code, 0);
    for (topic, text, qos) in [("way/1", "first", "1"), ("way/2", "second", "2")] {
        let ended = broker.client(&["pub", "-t", topic, "-m", text, "-q", qos]);
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
    let ended = broker.client(&["pub", "-t", "kept", "-m", "third", "-q", "1", "-r"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

/// The client comes back, and gets what it missed; so does one who asks for what is retained.
fn check(broker: &Broker) {
    let session = ["-c", "-i", "away", "-q", "2", "-t", "way/#"];
    let mut subscribe = vec!["sub", "-C", "2", "-W", "20", "-v"];
    subscribe.extend_from_slice(&session);
    let ended = broker.client(&subscribe);
    assert_eq!(ended.out, "way/1 first\nway/2 second\n", "{}", ended.err);
    let ended = broker.client(&["sub", "-t", "kept", "-C", "1", "-W", "20"]);
    assert_eq!(ended.out, "third\n", "{}", ended.err);
}

#[test]
fn what_a_broker_kept_moves_to_another_directory() {
    let directory = Directory::new();
    let [data, other] = ["data", "other"].map(|name| directory.path(name));
    let broker = Broker::start(&["--data-dir", &data, "--shards", "2"]);
    fill(&broker);
    for command in ["verify", "dump", "export", "repair"] {
        let ended = store(&[command, &data]);
        assert_eq!(ended.code, 2, "{}", ended.out);
        assert!(ended.err.contains("a broker runs on it"), "{}", ended.err);
    }
    broker.stop();
    let verified = store(&["verify", &data]);
    assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
    assert!(
        verified
            .out
            .contains("1 sessions, 1 subscriptions, 2 messages"),
        "{}",
        verified.out
    );
    assert!(
        verified.out.ends_with("nothing is wrong\n"),
        "{}",
        verified.out
    );
    let dumped = store(&["dump", &data]);
    assert_eq!(dumped.code, 0, "{}", dumped.err);
    assert!(dumped.out.contains("client_id=\"away\""), "{}", dumped.out);
    let dumped = store(&["dump", &data, "--format", "json"]);
    assert!(dumped.out.contains("\"topic\":\"way/1\""), "{}", dumped.out);
    let file = directory.path("export");
    let exported = store(&["export", &data, &file]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    let text = fs::read(&file).unwrap();
    assert_eq!(store(&["export", &data]).out.as_bytes(), text);
    let imported = store(&["import", &other, &file, "--shards", "3"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let again = store(&["import", &other, &file]);
    assert_eq!(again.code, 2);
    assert!(again.err.contains("holds something"), "{}", again.err);
    let broker = Broker::start(&["--data-dir", &other, "--shards", "1"]);
    check(&broker);
    broker.stop();
    let third = directory.path("third");
    assert_eq!(
        run_with_input(&["store", "import", &third, "-"], &text).code,
        0
    );
    assert_eq!(store(&["verify", &third]).code, 0);
}

/// The file that a broker of one shard wrote to, and how far.
fn written(data: &str) -> (PathBuf, usize) {
    let mut best = (PathBuf::new(), 0);
    for layout in fs::read_dir(data).unwrap() {
        let shard = layout.unwrap().path().join("0");
        for file in fs::read_dir(shard).into_iter().flatten() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            if end > best.1 {
                best = (path, end);
            }
        }
    }
    assert!(best.1 > 0);
    best
}

fn flip(path: &Path, at: usize, bit: u32) {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte[0] ^ (1 << bit)]).unwrap();
}

/// A process that another test starts has this one's descriptors until it is somebody else, and so the
/// lock: for a moment.
fn patiently<T>(
    open: impl Fn(&Path) -> Result<T, StoreError>,
    data: &str,
) -> Result<T, StoreError> {
    let mut tries = 0;
    loop {
        match open(Path::new(data)) {
            Err(StoreError::Locked(_)) if tries < 2_000 => tries += 1,
            opened => return opened,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn export(data: &str) -> Result<String, StoreError> {
    let mut out = Vec::new();
    patiently(Store::open_existing, data)?.export(&mut out, true)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_flipped_bit_in_what_a_broker_wrote_is_told_or_changes_nothing() {
    let directory = Directory::new();
    let data = directory.path("data");
    let broker = Broker::start(&["--data-dir", &data]);
    fill(&broker);
    broker.stop();
    let original = export(&data).unwrap();
    let (path, end) = written(&data);
    let (mut seed, mut told) = (1_u32, 0);
    for _ in 0..FLIPS {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Half of them in headers and records, which blocks begin with.
        let at = (seed >> 8) as usize % (end + 1);
        let at = if seed >> 31 == 0 {
            at
        } else {
            at / 4096 * 4096 + at % 200
        };
        flip(&path, at, seed >> 5 & 7);
        let examined = patiently(Remains::open, &data).unwrap().examine().unwrap();
        match export(&data) {
            Ok(found) => {
                assert!(
                    found == original || examined.shards[0].tail.is_some(),
                    "offset {at}"
                );
                assert!(examined.is_fine(), "offset {at}");
            }
            Err(StoreError::Damaged { .. }) => {
                told += 1;
                assert!(!examined.is_fine(), "offset {at}");
            }
            Err(error) => panic!("offset {at}: {error}"),
        }
        flip(&path, at, seed >> 5 & 7);
    }
    println!("{told} of {FLIPS} told");
    assert!(told > 10, "{told} of {FLIPS} in {end} bytes");
}

#[test]
fn a_damaged_directory_is_repaired() {
    let directory = Directory::new();
    let data = directory.path("data");
    let broker = Broker::start(&["--data-dir", &data]);
    fill(&broker);
    broker.stop();
    let (path, _) = written(&data);
    // The first frame that holds something: the session's.
    let dumped = store(&["dump", &data, "--format", "json"]).out;
    let line = dumped
        .lines()
        .find(|line| line.contains("\"record\":\"message\""));
    let message: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    let at = message["offset"].as_u64().unwrap() + message["length"].as_u64().unwrap() - 1;
    flip(&path, usize::try_from(at).unwrap(), 3);
    let verified = store(&["verify", &data]);
    assert_eq!(verified.code, 1, "{}", verified.out);
    assert!(
        verified.out.contains("damage: ") && verified.out.contains("offset"),
        "{}",
        verified.out
    );
    let refused = run(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--shards",
        "1",
        "--data-dir",
        &data,
    ]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("store repair"), "{}", refused.err);
    assert_eq!(store(&["export", &data]).code, 1);
    let repaired = store(&["repair", &data]);
    assert_eq!(repaired.code, 0, "{}", repaired.err);
    assert!(
        repaired.out.contains("kept: 1 sessions"),
        "{}",
        repaired.out
    );
    assert!(repaired.out.contains("damaged-1"), "{}", repaired.out);
    assert!(Path::new(&data).join("damaged-1/0").exists());
    assert_eq!(store(&["verify", &data]).code, 0);
    let broker = Broker::start(&["--data-dir", &data]);
    let session = [
        "sub", "-c", "-i", "away", "-q", "2", "-t", "way/#", "-C", "1", "-W", "20",
    ];
    assert_eq!(broker.client(&session).out, "second\n");
    broker.stop();
    assert!(
        Path::new(&data).join("damaged-1/0").exists(),
        "a broker removed it"
    );
}

#[test]
fn what_is_not_there_is_told() {
    let directory = Directory::new();
    for command in ["verify", "dump", "export", "repair"] {
        let ended = store(&[command, &directory.path("nothing")]);
        assert_eq!(ended.code, 2);
        assert!(ended.err.contains("no data directory"), "{}", ended.err);
    }
    let ended = store(&["verify"]);
    assert_eq!(ended.code, 2);
    let nonsense = directory.path("nonsense");
    fs::write(&nonsense, "hello\n").unwrap();
    let ended = store(&["import", &directory.path("new"), &nonsense]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("line 1"), "{}", ended.err);
}

/// mosquitto, with persistence, on a port of its own.
struct Mosquitto {
    child: Child,
    port: String,
}

impl Mosquitto {
    /// `None` where it is not installed.
    fn start(directory: &Directory) -> Option<Self> {
        let programs = [
            "/usr/sbin/mosquitto",
            "/usr/local/sbin/mosquitto",
            "mosquitto",
        ];
        let is_there = |program: &&&str| {
            let mut command = Command::new(program);
            let command = command
                .arg("-h")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().is_ok()
        };
        let program = programs.iter().find(is_there)?;
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port().to_string();
        drop(socket);
        let configuration = directory.path("mosquitto.conf");
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
             persistence_location {}/\nuser {user}\n",
            directory.0.display()
        );
        fs::write(&configuration, text).unwrap();
        let mut command = Command::new(program);
        command.args(["-c", &configuration]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = Self {
            child: command.spawn().unwrap(),
            port,
        };
        let listens = || started.client(&["pub", "-t", "x", "-n"]).code == 0;
        let patience = || std::thread::sleep(Duration::from_millis(50));
        assert!(
            (0..1_200).any(|_| listens() || {
                patience();
                false
            }),
            "it does not listen"
        );
        Some(started)
    }

    fn client(&self, arguments: &[&str]) -> Ended {
        let mut all = vec![arguments[0], "-h", "127.0.0.1", "-p", &self.port];
        all.extend_from_slice(&arguments[1..]);
        run(&all)
    }

    /// Ends it so that it writes its file.
    fn stop(mut self) {
        let kill = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(kill.unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_mosquitto_kept_is_delivered() {
    let directory = Directory::new();
    let Some(mosquitto) = Mosquitto::start(&directory) else {
        println!("skipped: there is no mosquitto");
        return;
    };
    let away = ["-c", "-i", "away", "-q", "2", "-t", "way/#"];
    let mut subscribe = vec!["sub", "-E"];
    subscribe.extend_from_slice(&away);
    assert_eq!(mosquitto.client(&subscribe).code, 0);
    let five = [
        "-V", "5", "-x", "3600", "-c", "-i", "five", "-q", "1", "-t", "way/2",
    ];
    let mut subscribe = vec![
        "sub",
        "-E",
        "-D",
        "subscribe",
        "subscription-identifier",
        "300",
    ];
    subscribe.extend_from_slice(&five);
    assert_eq!(mosquitto.client(&subscribe).code, 0);
    let publish = |arguments: &[&str]| {
        let mut all = vec!["pub"];
        all.extend_from_slice(arguments);
        let ended = mosquitto.client(&all);
        assert_eq!(ended.code, 0, "{}", ended.err);
    };
    publish(&["-t", "way/1", "-m", "first", "-q", "1"]);
    publish(&[
        "-V",
        "5",
        "-t",
        "way/2",
        "-m",
        "second",
        "-q",
        "2",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
    ]);
    publish(&["-t", "kept", "-m", "third", "-q", "1", "-r"]);
    mosquitto.stop();
    let data = directory.path("data");
    let imported = store(&[
        "import",
        &data,
        &directory.path("mosquitto.db"),
        "--shards",
        "2",
    ]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert!(
        imported.out.contains("2 sessions and 3 messages"),
        "{}",
        imported.out
    );
    let broker = Broker::start(&["--data-dir", &data, "--shards", "2"]);
    check(&broker);
    let mut subscribe = vec!["sub", "-C", "1", "-W", "20", "-F", "%p %q %P %S"];
    subscribe.extend_from_slice(&five);
    let ended = broker.client(&subscribe);
    assert_eq!(ended.out, "second 1 k:v 300\n", "{}", ended.err);
    broker.stop();
}
