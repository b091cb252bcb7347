//! History on a real disk: over restarts, crashes, other numbers of shards, and as long as it is to be kept.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Version;
use crate::broker::{Broker, Setup, binary, free_port, fresh_folder};
use crate::raw::packets::{Connect, PUBACK, Publish};
use crate::raw::peer::Peer;

/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place where brokers that keep `fleet/#` run one after the other.
struct Place {
    port: u16,
    dir: PathBuf,
    environment: Vec<(&'static str, &'static str)>,
}

impl Place {
    fn new(environment: &[(&'static str, &'static str)]) -> Self {
        let filter = ("SHARDMQ__HISTORY__FLEET__FILTER", "fleet/#");
        Self {
            port: free_port(),
            dir: fresh_folder(5),
            environment: [&[filter], environment].concat(),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn start(&self, setup: Setup) -> Broker {
        self.start_on(setup, &self.data())
    }

    fn start_on(&self, setup: Setup, data: &Path) -> Broker {
        Broker::start_at(setup, self.port, data, &self.environment)
    }

    /// The files of the stream, and their bytes.
    fn buckets(&self) -> (usize, u64) {
        let sizes = self.files().filter_map(|path| path.metadata().ok());
        let sizes: Vec<u64> = sizes.map(|metadata| metadata.len()).collect();
        (sizes.len(), sizes.iter().sum())
    }

    /// Waits until these numbers stand in the files of the stream.
    fn wait_for_numbers(&self, numbers: std::ops::Range<u32>) {
        let deadline = Instant::now() + PATIENCE;
        for number in numbers {
            let wanted = payload(number);
            let stands = |bytes: &[u8]| {
                let mut windows = bytes.windows(wanted.len());
                windows.any(|window| window == wanted.as_bytes())
            };
            while !self
                .files()
                .any(|path| std::fs::read(path).is_ok_and(|bytes| stands(&bytes)))
            {
                assert!(Instant::now() < deadline, "{number} is not written");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(self.data().join("history/fleet"));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    }

    /// Waits until the files of the stream are as they should be.
    fn wait_for_buckets(&self, what: &str, fine: impl Fn(usize, u64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (count, bytes) = self.buckets();
            if fine(count, bytes) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: {count} buckets, {bytes} bytes"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn peer(broker: &Broker, version: Version, name: &str) -> Peer {
    Peer::connect(broker, &Connect::new(version, name))
}

/// A number as it stands in no other one.
fn payload(number: u32) -> String {
    format!("<{number}>")
}

fn number(payload: Vec<u8>) -> u32 {
    let text = String::from_utf8(payload).expect("a number");
    text.trim_matches(['<', '>']).parse().expect("a number")
}

/// Publishes numbers with QoS 1 from four clients, so on all shards; each is acknowledged.
fn publish(broker: &Broker, numbers: std::ops::Range<u32>) {
    let mut vehicles: Vec<Peer> = (0..4)
        .map(|vehicle| peer(broker, Version::V5, &format!("vehicle{vehicle}")))
        .collect();
    for number in numbers {
        let vehicle = number % 4;
        let sent = Publish::new(&format!("fleet/{vehicle}"), payload(number));
        let id = (number % 60_000 + 1) as u16;
        vehicles[vehicle as usize].publish(&sent.qos(1, id));
        vehicles[vehicle as usize].expect_ack(PUBACK, id);
    }
}

/// The numbers that are kept, in the order in which they come: what comes before a message that is
/// published now.
fn kept(broker: &Broker, version: Version) -> Vec<u32> {
    static FENCES: AtomicU32 = AtomicU32::new(0);
    let fence = format!("fence {}", FENCES.fetch_add(1, Ordering::Relaxed));
    let mut reader = peer(broker, version, "reader");
    assert_eq!(reader.subscribe("$history/-1d../fleet/#", 0), 0);
    let mut publisher = peer(broker, Version::V5, "publisher");
    publisher.publish(&Publish::new("fleet/fence", &fence).qos(1, 1));
    publisher.expect_ack(PUBACK, 1);
    let mut numbers = Vec::new();
    loop {
        let came = reader.receive();
        if came.topic != "fleet/fence" {
            numbers.push(number(came.payload));
        } else if came.payload == fence.as_bytes() {
            return numbers;
        }
    }
}

/// The same of a replay that ends by itself.
fn ended(broker: &Broker, version: Version, count: usize) -> Vec<u32> {
    let mut reader = peer(broker, version, "reader");
    assert_eq!(reader.subscribe("$history/-1d/fleet/#", 0), 0);
    let numbers = (0..count).map(|_| number(reader.receive().payload));
    let numbers = numbers.collect();
    assert_eq!(reader.ping(), [], "no more than that");
    numbers
}

fn verify(data: &Path) -> (Option<i32>, String) {
    store(&["verify".as_ref(), data])
}

/// Exit code and words of `shardmq store`.
fn store(arguments: &[&Path]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    let output = command.arg("store").args(arguments).output();
    let output = output.expect("the program starts");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    (output.status.code(), told)
}

fn back_up(data: &Path, copy: &Path) -> String {
    let (code, told) = store(&["backup".as_ref(), data, "--to".as_ref(), copy]);
    assert_eq!(code, Some(0), "{told}");
    told
}

/// What was kept is there after an orderly stop, with any number of shards and either driver, in order.
#[test]
fn it_is_there_after_a_stop() {
    let place = Place::new(&[]);
    let mut expected = 0;
    for setup in Setup::ALL {
        let broker = place.start(setup);
        publish(&broker, expected..expected + 500);
        expected += 500;
        for version in Version::BOTH {
            let numbers = ended(&broker, version, expected as usize);
            assert_eq!(numbers, (0..expected).collect::<Vec<_>>(), "{setup}");
        }
        broker.stop();
    }
    let (code, told) = verify(&place.data());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("history fleet: 2000 messages in "), "{told}");
}

/// `kill -9` costs what came within the interval, and nothing that came before it.
#[test]
fn a_crash_costs_an_interval_at_most() {
    for setup in [Setup::TWO, Setup::EPOLL] {
        let place = Place::new(&[("SHARDMQ__HISTORY__FLEET__INTERVAL", "200 ms")]);
        let mut all: Vec<u32> = Vec::new();
        let mut next = 0;
        for round in 0..3 {
            let mut broker = place.start(setup);
            publish(&broker, next..next + 1_000);
            let surely = next + 1_000;
            // What the interval was over for is written; what comes after that may not be.
            place.wait_for_numbers(surely - 4..surely);
            publish(&broker, surely..surely + 300);
            broker.kill();
            next = surely + 300;

            let broker = place.start(setup);
            let numbers = kept(&broker, Version::V5);
            assert!(
                numbers.starts_with(&all),
                "round {round}: what was there is there"
            );
            let fresh = &numbers[all.len()..];
            // Of each vehicle it is a begin of what it sent, and all that was written.
            for vehicle in 0..4 {
                let of = |number: &u32| number % 4 == vehicle;
                let came: Vec<u32> = fresh.iter().copied().filter(of).collect();
                let sent = (surely - 1_000..next).filter(of);
                assert_eq!(
                    came,
                    sent.take(came.len()).collect::<Vec<_>>(),
                    "vehicle {vehicle}"
                );
                assert!(came.len() >= 250, "vehicle {vehicle}: {}", came.len());
            }
            all = numbers;
            broker.stop();
        }
        let (code, told) = verify(&place.data());
        assert_eq!(code, Some(0), "{told}");
    }
}

/// Buckets go when they are too old, and nobody has to ask for it.
#[test]
fn it_goes_when_it_is_too_old() {
    let place = Place::new(&[
        ("SHARDMQ__HISTORY__FLEET__KEEP", "5 s"),
        ("SHARDMQ__HISTORY__FLEET__BUCKET", "1 s"),
        ("SHARDMQ__HISTORY__FLEET__INTERVAL", "10 ms"),
    ]);
    let broker = place.start(Setup::TWO);
    publish(&broker, 0..100);
    place.wait_for_buckets("nothing is written", |count, _| count > 0);
    place.wait_for_buckets("it stays", |count, _| count == 0);
    assert_eq!(kept(&broker, Version::V5), Vec::<u32>::new());
    publish(&broker, 100..110);
    assert_eq!(
        kept(&broker, Version::V3_1_1),
        (100..110).collect::<Vec<_>>()
    );
    broker.stop();
}

/// It takes no more space than it may; the newest is what is there.
#[test]
fn it_goes_when_it_is_too_much() {
    for setup in [Setup::ONE, Setup::EPOLL] {
        let place = Place::new(&[
            ("SHARDMQ__HISTORY__FLEET__KEEP_BYTES", "1 MiB"),
            ("SHARDMQ__HISTORY__FLEET__INTERVAL", "50 ms"),
        ]);
        let broker = place.start(setup);
        let mut vehicle = peer(&broker, Version::V5, "vehicle");
        let body = "x".repeat(2_000);
        let count = 2_000_u16;
        for number in 0..count {
            let sent = Publish::new("fleet/0", format!("{number} {body}"));
            vehicle.publish(&sent.qos(1, number + 1));
            vehicle.expect_ack(PUBACK, number + 1);
        }
        // Four megabytes came; one and what is still written to stays.
        place.wait_for_buckets("too much", |_, bytes| {
            (700 << 10..1_300 << 10).contains(&bytes)
        });
        let mut reader = peer(&broker, Version::V5, "reader");
        reader.subscribe("$history/-1h/fleet/#", 0);
        let mut numbers: Vec<u16> = Vec::new();
        while numbers.last() != Some(&(count - 1)) {
            let payload = reader.receive().payload;
            let text = String::from_utf8_lossy(&payload).into_owned();
            numbers.push(
                text.split(' ')
                    .next()
                    .expect("a number")
                    .parse()
                    .expect("a number"),
            );
        }
        assert_eq!(numbers, (numbers[0]..count).collect::<Vec<_>>());
        assert!((300..800).contains(&numbers.len()), "{}", numbers.len());
        broker.stop();
    }
}

/// A flipped bit costs its block, is counted, told in the log, and found by `store verify`.
#[test]
fn damage_is_told() {
    let place = Place::new(&[("SHARDMQ__HISTORY__FLEET__INTERVAL", "1 ms")]);
    // A stop ends a block, so that none has more than a quarter however late it is written.
    for quarter in 0..4 {
        let broker = place.start(Setup::ONE);
        publish(&broker, quarter * 50..(quarter + 1) * 50);
        broker.stop();
    }
    let file = place
        .files()
        .max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len()))
        .expect("a bucket");
    let mut bytes = std::fs::read(&file).expect("a bucket");
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(&file, bytes).expect("the bucket can be written");
    let (code, told) = verify(&place.data());
    assert!(code == Some(1) && told.contains("damage: "), "{told}");
    let broker = place.start(Setup::ONE);
    let numbers = kept(&broker, Version::V5);
    assert!((100..200).contains(&numbers.len()), "{}", numbers.len());
    assert!(numbers.is_sorted());
    assert!(broker.log().contains("damaged"), "{}", broker.log());
    broker.stop();
}

/// A backup has everything that was published before it began, although nothing of it had to be written by
/// then; the broker goes on, and so does one that is started on the copy, with other shards too.
#[test]
fn a_backup_has_the_history() {
    for (setup, later) in [(Setup::TWO, Setup::ONE), (Setup::EPOLL, Setup::EPOLL)] {
        let place = Place::new(&[("SHARDMQ__HISTORY__FLEET__INTERVAL", "60 s")]);
        let (copy, second) = (place.dir.join("copy"), place.dir.join("second"));
        let broker = place.start(setup);
        publish(&broker, 0..500);
        let told = back_up(&place.data(), &copy);
        assert!(told.contains("history fleet: 500 messages in "), "{told}");
        publish(&broker, 500..600);
        assert_eq!(
            ended(&broker, Version::V5, 600),
            (0..600).collect::<Vec<_>>()
        );
        broker.stop();
        let (code, told) = verify(&copy);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("history fleet: 500 messages in "), "{told}");
        // Of what nobody works on.
        back_up(&copy, &second);
        for data in [&copy, &second] {
            let broker = place.start_on(later, data);
            for version in Version::BOTH {
                let numbers = ended(&broker, version, 500);
                assert_eq!(numbers, (0..500).collect::<Vec<_>>(), "{setup}");
            }
            publish(&broker, 500..550);
            assert_eq!(
                kept(&broker, Version::V5),
                (0..550).collect::<Vec<_>>(),
                "{setup}"
            );
            broker.stop();
        }
        // What is missing from a backup is told.
        let third = place.dir.join("third");
        back_up(&second, &third);
        let entries = std::fs::read_dir(third.join("history/fleet")).expect("it is there");
        let bucket = entries.flatten().next().expect("a bucket").path();
        std::fs::remove_file(bucket).expect("it can be removed");
        let (code, told) = verify(&third);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("the backup had 551 in "), "{told}");
    }
}

/// Buckets go while backups are taken, one after the other: each of these is whole, and holds what it has in
/// order.
#[test]
fn a_backup_is_whole_while_buckets_go() {
    let place = Place::new(&[
        ("SHARDMQ__HISTORY__FLEET__KEEP_BYTES", "1 MiB"),
        ("SHARDMQ__HISTORY__FLEET__INTERVAL", "10 ms"),
    ]);
    let broker = place.start(Setup::TWO);
    let copies: Vec<PathBuf> = (0..5)
        .map(|copy| place.dir.join(format!("copy{copy}")))
        .collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut vehicle = peer(&broker, Version::V5, "vehicle");
            let body = "x".repeat(4_000);
            for number in 0..u32::MAX {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let id = (number % 60_000 + 1) as u16;
                let sent = Publish::new("fleet/0", format!("{number} {body}"));
                vehicle.publish(&sent.qos(1, id));
                vehicle.expect_ack(PUBACK, id);
            }
        });
        for copy in &copies {
            place.wait_for_buckets("too little", |_, bytes| bytes > 600 << 10);
            back_up(&place.data(), copy);
        }
        done.store(true, Ordering::Relaxed);
    });
    broker.stop();
    for copy in &copies {
        let (code, told) = verify(copy);
        assert_eq!(code, Some(0), "{told}");
        let export = place.dir.join("export");
        let (code, told) = store(&["export".as_ref(), copy, &export]);
        assert_eq!(code, Some(0), "{told}");
        let numbers = exported(&export);
        // Where the disk does not keep up whole blocks are dropped; what is there is in order, and there once.
        assert!(numbers.len() > 100, "{}", numbers.len());
        assert!(numbers.is_sorted_by(|one, next| one < next));
    }
}

/// The numbers that the records of an export begin with.
fn exported(file: &Path) -> Vec<u32> {
    use base64::Engine as _;
    let text = std::fs::read_to_string(file).expect("an export");
    let values = text.lines().map(serde_json::from_str::<serde_json::Value>);
    let values = values.map(|value| value.expect("JSON"));
    let records = values.filter(|value| value["type"] == "record");
    let number = |record: serde_json::Value| {
        let payload = record["payload"].as_str().expect("text");
        let bytes = base64::engine::general_purpose::STANDARD.decode(payload);
        let text = String::from_utf8(bytes.expect("base64")).expect("text");
        let number = text.split(' ').next().expect("a number");
        number.parse().expect("a number")
    };
    records.map(number).collect()
}

/// Export and import keep what was kept, in its order, with the times at which it came; a second export says
/// the same as the first.
#[test]
fn it_survives_an_export() {
    let place = Place::new(&[]);
    for run in 0..3 {
        let broker = place.start([Setup::TWO, Setup::EPOLL, Setup::ONE][run as usize]);
        publish(&broker, run * 200..(run + 1) * 200);
        broker.stop();
    }
    let path = |name: &str| place.dir.join(name);
    let (file, again, lean, other) = (path("file"), path("again"), path("lean"), path("other"));
    let export = Path::new("export");
    let import = Path::new("import");
    let (code, told) = store(&[export, &place.data(), &file]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("600 of history"), "{told}");
    let (code, told) = store(&[import, &other, &file, "--shards".as_ref(), "2".as_ref()]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("600 of history"), "{told}");
    let (code, told) = verify(&other);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("history fleet: 600 messages in "), "{told}");
    store(&[export, &other, &again]);
    let read = |path: &Path| std::fs::read_to_string(path).expect("an export");
    let history = |path: &Path| {
        let text = read(path);
        let lines = text.lines().filter(|line| line.contains(r#""record""#));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(history(&file).len(), 600);
    assert_eq!(history(&again), history(&file));
    store(&[export, &place.data(), &lean, "--without-history".as_ref()]);
    assert!(!read(&lean).contains("fleet"));
    let refused = store(&[import, &other, &file]);
    assert_eq!(refused.0, Some(2), "{}", refused.1);
    for setup in [Setup::TWO, Setup::ONE] {
        let broker = place.start_on(setup, &other);
        for version in Version::BOTH {
            let numbers = ended(&broker, version, 600);
            assert_eq!(numbers, (0..600).collect::<Vec<_>>(), "{setup}");
        }
        broker.stop();
    }
    // A part of an export is none, and leaves nothing.
    let cut = read(&file);
    let cut = &cut[..cut.len() - 2];
    std::fs::write(&lean, cut).expect("it can be written");
    let fresh = path("fresh");
    let (code, told) = store(&[import, &fresh, &lean]);
    assert_eq!(code, Some(2), "{told}");
    assert!(!fresh.join("history/fleet").exists());
}

/// Without a data directory there is no history, and the broker says what to do.
#[test]
fn it_needs_a_data_directory() {
    let output = Command::new(binary())
        .args([
            "run",
            "--ephemeral",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "off",
        ])
        .env("SHARDMQ__HISTORY__FLEET__FILTER", "fleet/#")
        .output()
        .expect("the program starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        told.contains("`fleet` needs a data directory") && told.contains("--ephemeral"),
        "{told}"
    );
}
