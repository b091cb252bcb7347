//! The runtime over real sockets: shards on their own threads, clients that speak raw bytes.
//!
//! What needs a process of its own (limits, signals, a blocked io_uring) runs this very test binary
//! again as a child, see [`child`].
#![cfg(feature = "runtime")]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "some of the tests are about time"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shardmq::runtime::{BootError, ListenAddress, RuntimeOptions, Started, StopHandle, run};

const PATIENCE: Duration = Duration::from_secs(20);

// A broker in this process.

struct Broker {
    address: SocketAddr,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), BootError>>>,
}

impl Broker {
    fn start(shards: usize) -> Self {
        Self::start_with(shards, |_| ())
    }

    fn start_with(shards: usize, change: impl FnOnce(&mut RuntimeOptions)) -> Self {
        let (ready, started) = mpsc::channel();
        let mut options = options(shards, move |broker| ready.send(broker).unwrap());
        options.catch_signals = false;
        change(&mut options);
        let thread = std::thread::Builder::new()
            .spawn(move || run(options))
            .unwrap();
        let started: Started = started
            .recv_timeout(PATIENCE)
            .expect("the broker is ready in time");
        Self {
            address: started.listeners[0].1,
            stop: started.stop,
            thread: Some(thread),
        }
    }

    fn client(&self) -> Client {
        Client::open(self.address)
    }

    fn stop(mut self) -> Result<(), BootError> {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

fn options(shards: usize, ready: impl FnOnce(Started) + Send + 'static) -> RuntimeOptions {
    RuntimeOptions {
        listeners: vec![ListenAddress {
            name: String::from("test"),
            address: "127.0.0.1:0".parse().unwrap(),
        }],
        shards,
        ready: Box::new(ready),
        ..RuntimeOptions::default()
    }
}

// A client that knows bytes only.

struct Client {
    stream: TcpStream,
}

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).unwrap();
        self
    }

    /// Reads one packet: its first byte and its body.
    fn packet(&mut self) -> (u8, Vec<u8>) {
        self.try_packet()
            .expect("a packet comes")
            .expect("not the end")
    }

    /// Reads one packet, `None` at the end of the stream.
    fn try_packet(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut byte = [0];
        if self.stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let first = byte[0];
        let mut length = 0;
        for shift in (0..28).step_by(7) {
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7F) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Some((first, body)))
    }

    /// Connects and reads CONNACK.
    fn connect(mut self, client_id: &str) -> Self {
        self.send(&connect(client_id));
        let (first, body) = self.packet();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK with success");
        self
    }

    fn subscribe(mut self, filter: &str) -> Self {
        self.send(&subscribe(filter));
        let (first, body) = self.packet();
        assert_eq!((first, body[3]), (0x90, 0), "SUBACK with QoS 0 granted");
        self
    }

    fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.packet(), (0xD0, Vec::new()), "PINGRESP");
    }

    /// Waits for a PUBLISH of QoS 0 and returns its payload.
    fn payload(&mut self) -> Vec<u8> {
        let (first, body) = self.packet();
        assert_eq!(first & 0xF0, 0x30, "a PUBLISH");
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        // Behind the topic: the length of the properties, which is 0.
        body[2 + topic + 1..].to_vec()
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 0x7F { 0x80 } else { 0 };
        bytes.push(u8::try_from(length & 0x7F).unwrap() | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// CONNECT of version 5, Clean Start, no Keep Alive.
fn connect(client_id: &str) -> Vec<u8> {
    packet(
        0x10,
        &[&text("MQTT")[..], &[5, 2, 0, 0, 0], &text(client_id)].concat(),
    )
}

fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[&[0, 1, 0][..], &text(filter), &[0]].concat())
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text(topic)[..], &[0], payload].concat())
}

// Tests.

#[test]
fn a_connect_may_come_byte_by_byte() {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        // Some of these names live on the other shard than the one that accepts.
        for client in 0..6 {
            let mut client = {
                let mut slow = broker.client();
                for byte in connect(&format!("slow-{client}")) {
                    slow.send(&[byte]);
                    std::thread::sleep(Duration::from_millis(1));
                }
                slow
            };
            assert_eq!(client.packet().0, 0x20);
            client.ping();
        }
    }
}

#[test]
fn what_comes_behind_connect_in_the_same_segment_counts() {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        let mut subscriber = broker.client().connect("subscriber").subscribe("t/#");
        for client in 0..20 {
            let payload = format!("from {client}");
            let bytes = [
                connect(&format!("eager-{client}")),
                publish("t/eager", payload.as_bytes()),
            ]
            .concat();
            let mut eager = broker.client();
            eager.send(&bytes);
            assert_eq!(subscriber.payload(), payload.as_bytes());
            assert_eq!(eager.packet().0, 0x20);
        }
    }
}

#[test]
fn a_publish_counts_although_its_client_closes_right_behind_it() {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        let mut subscriber = broker.client().connect("subscriber").subscribe("last/+");
        for client in 0..50 {
            let topic = format!("last/{client}");
            let mut hasty = broker.client().connect(&format!("hasty-{client}"));
            hasty.send(&publish(&topic, topic.as_bytes()));
            drop(hasty);
            assert_eq!(subscriber.payload(), topic.as_bytes());
        }
    }
}

#[test]
fn large_packets_go_through_in_pieces_both_ways() {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        let mut subscriber = broker.client().connect("subscriber").subscribe("big");
        let mut publisher = broker.client().connect("publisher");
        let payload: Vec<u8> = (0..900_000_u32).map(|byte| (byte % 251) as u8).collect();
        for _ in 0..5 {
            publisher.send(&publish("big", &payload));
            assert!(
                subscriber.payload() == payload,
                "the bytes came back in order"
            );
        }
    }
}

#[test]
fn a_reader_that_does_not_read_harms_nobody() {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        let mut lazy = broker.client().connect("lazy").subscribe("flood");
        let mut publisher = broker.client().connect("publisher");
        let mut other = broker.client().connect("other").subscribe("other");
        let payload = vec![b'x'; 100_000];
        // 40 MB, far more than its socket and its share of memory hold.
        for _ in 0..400 {
            publisher.send(&publish("flood", &payload));
        }
        publisher.send(&publish("other", b"through"));
        assert_eq!(other.payload(), b"through");
        publisher.ping();
        // When it reads at last, it gets whole packets: some of the flood, and what comes after.
        let mut flood = 0;
        loop {
            let packet = {
                lazy.stream
                    .set_read_timeout(Some(Duration::from_millis(500)))
                    .unwrap();
                lazy.try_packet()
            };
            match packet {
                Ok(Some((_, body))) => {
                    assert!(body.ends_with(&payload), "whole packets only");
                    flood += 1;
                }
                Ok(None) => panic!("a slow reader is not closed"),
                Err(_) => break,
            }
        }
        assert!(flood > 0 && flood < 400, "{flood} of 400 messages");
        lazy.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        publisher.send(&publish("flood", b"again"));
        assert_eq!(lazy.payload(), b"again");
    }
}

#[test]
fn two_thousand_connections_are_served() {
    const CLIENTS: usize = 2_000;
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        let mut subscriber = broker.client().connect("subscriber").subscribe("fleet/+");
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| broker.client()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&connect(&format!("vehicle-{index}")));
        }
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.packet().0, 0x20, "CONNACK for {index}");
        }
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&publish(&format!("fleet/{index}"), b"here"));
        }
        for _ in 0..CLIENTS {
            assert_eq!(subscriber.payload(), b"here");
        }
        for client in clients.iter_mut().skip(1).step_by(2) {
            client.send(&[0xE0, 0]);
        }
        clients.iter_mut().step_by(2).for_each(Client::ping);
    }
}

#[test]
fn messages_cross_shards_in_order() {
    const MESSAGES: u32 = 30_000;
    let broker = Broker::start(2);
    // Four of each, so that both shards have both.
    let subscribers: Vec<_> = (0..4)
        .map(|client| {
            broker
                .client()
                .connect(&format!("sub-{client}"))
                .subscribe("order/+")
        })
        .collect();
    let publishers: Vec<_> = (0..4_u8)
        .map(|client| {
            let mut publisher = broker.client().connect(&format!("pub-{client}"));
            std::thread::Builder::new()
                .spawn(move || {
                    for chunk in 0..MESSAGES / 100 {
                        let bytes: Vec<u8> = (chunk * 100..(chunk + 1) * 100)
                            .flat_map(|number| {
                                let payload = [&[client][..], &number.to_be_bytes()].concat();
                                publish(&format!("order/{client}"), &payload)
                            })
                            .collect();
                        publisher.send(&bytes);
                    }
                    publisher
                })
                .unwrap()
        })
        .collect();
    let readers: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            std::thread::Builder::new()
                .spawn(move || {
                    let mut last = [None; 4];
                    while last != [Some(MESSAGES - 1); 4] {
                        let payload = subscriber.payload();
                        let number = u32::from_be_bytes(payload[1..].try_into().unwrap());
                        let last = &mut last[usize::from(payload[0])];
                        assert!(last.is_none_or(|last| last < number), "in order");
                        *last = Some(number);
                    }
                })
                .unwrap()
        })
        .collect();
    for publisher in publishers {
        drop(publisher.join().unwrap());
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn more_connections_than_allowed_are_closed_at_once() {
    let broker = Broker::start_with(1, |options| options.max_connections = 3);
    let mut clients: Vec<_> = (0..3)
        .map(|index| broker.client().connect(&index.to_string()))
        .collect();
    let mut fourth = broker.client();
    assert!(matches!(fourth.try_packet(), Ok(None) | Err(_)), "closed");
    clients.iter_mut().for_each(Client::ping);
    clients.pop().unwrap().send(&[0xE0, 0]);
    let accepted = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let mut client = broker.client();
        client.stream.write_all(&connect("late")).is_ok()
            && matches!(client.try_packet(), Ok(Some((0x20, _))))
    });
    assert!(
        accepted,
        "a place that is free again is given to the next one"
    );
}

#[test]
fn a_client_that_is_closed_can_read_why() {
    let broker = Broker::start(2);
    for client in 0..8 {
        let mut client = broker.client().connect(&format!("wrong-{client}"));
        // A second CONNECT [MQTT-3.1.0-2], and bytes behind it that nobody will read.
        client.send(&[connect("again"), publish("t", &[0; 30_000])].concat());
        let (first, body) = client.packet();
        assert_eq!((first, body[0]), (0xE0, 0x82), "DISCONNECT, Protocol Error");
        assert!(
            matches!(client.try_packet(), Ok(None)),
            "closed in order, not reset"
        );
    }
}

#[test]
fn a_stop_tells_the_clients() {
    for shards in [1, 2] {
        let broker = Broker::start(shards);
        let mut clients: Vec<_> = (0..20)
            .map(|client| broker.client().connect(&format!("client-{client}")))
            .collect();
        let address = broker.address;
        let began = Instant::now();
        let readers = std::thread::Builder::new()
            .spawn(move || {
                for client in &mut clients {
                    let (first, body) = client.packet();
                    assert_eq!(
                        (first, body[0]),
                        (0xE0, 0x8B),
                        "DISCONNECT, Server shutting down"
                    );
                    assert!(matches!(client.try_packet(), Ok(None)));
                }
            })
            .unwrap();
        broker.stop().unwrap();
        readers.join().unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "nobody had to be waited for"
        );
        assert!(
            TcpStream::connect(address).is_err(),
            "nobody listens any more"
        );
    }
}

#[test]
fn a_port_in_use_is_refused_with_its_cause() {
    let broker = Broker::start(2);
    let mut again = options(2, |_| panic!("two brokers share a port"));
    again.catch_signals = false;
    again.listeners[0].address = broker.address;
    let error = run(again).unwrap_err().to_string();
    assert!(
        error.contains("another socket listens there already"),
        "{error}"
    );
}

// A broker in a process of its own.

/// Not a test of its own: what the child processes of the tests below do.
#[test]
fn child() {
    let Ok(role) = std::env::var("SHARDMQ_TEST_CHILD") else {
        return;
    };
    if role == "blocked" {
        block_io_uring();
    }
    let options = options(1, |broker| {
        println!("address={}", broker.listeners[0].1);
    });
    match run(options) {
        Ok(()) => println!("stopped"),
        Err(error) => println!("error={error}"),
    }
}

/// Runs `prelude` in a shell, then [`child`] in its place.
fn spawn(role: &str, prelude: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{prelude} exec \"$0\" --exact child --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env("SHARDMQ_TEST_CHILD", role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The rest of the first line of `output` that has `key`.
fn find(output: &mut impl BufRead, key: &str) -> String {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        assert!(
            output.read_line(&mut seen).unwrap() > 0,
            "no `{key}` in: {seen}"
        );
        if let Some(at) = seen[start..].find(key) {
            return seen[start + at + key.len()..].trim().to_owned();
        }
    }
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Clock ticks of CPU time that a process has used.
fn cpu_ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn sigterm_tells_the_clients_and_ends_with_success() {
    let (mut child, mut output) = spawn("serve", "");
    let address = find(&mut output, "address=").parse().unwrap();
    let mut client = Client::open(address).connect("client");
    signal(&child, "-TERM");
    let (first, body) = client.packet();
    assert_eq!(
        (first, body[0]),
        (0xE0, 0x8B),
        "DISCONNECT, Server shutting down"
    );
    drop(client);
    find(&mut output, "stopped");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_second_signal_does_not_wait_for_a_client_that_does_not_close() {
    let (mut child, mut output) = spawn("serve", "");
    let address = find(&mut output, "address=").parse().unwrap();
    let _stubborn = Client::open(address).connect("stubborn");
    let began = Instant::now();
    signal(&child, "-INT");
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, "-INT");
    let error = find(&mut output, "error=");
    assert!(error.contains("second signal"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
    child.wait().unwrap();
}

#[test]
fn out_of_descriptors_clients_are_told_and_nothing_spins() {
    let (mut child, mut output) = spawn("serve", "ulimit -n 60 &&");
    let address = find(&mut output, "address=").parse().unwrap();
    let mut served = Vec::new();
    let mut refused = 0;
    for index in 0..80 {
        let mut client = Client::open(address);
        client
            .stream
            .write_all(&connect(&format!("client-{index}")))
            .ok();
        match client.try_packet() {
            Ok(Some((0x20, _))) => served.push(client),
            _ => refused += 1,
        }
    }
    assert!(served.len() >= 10, "{} served", served.len());
    assert!(refused >= 20, "{refused} refused, and each of them knows");
    served.iter_mut().for_each(Client::ping);
    let before = cpu_ticks(&child);
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_ticks(&child) - before;
    assert!(
        used < 20,
        "{used} of 100 ticks while there is nothing to do"
    );
    served.truncate(5);
    let accepted = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let mut client = Client::open(address);
        client.stream.write_all(&connect("late")).is_ok()
            && matches!(client.try_packet(), Ok(Some((0x20, _))))
    });
    assert!(accepted, "accepting goes on");
    served.iter_mut().for_each(Client::ping);
    signal(&child, "-TERM");
    drop(served);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_idle_broker_uses_no_cpu() {
    let (mut child, mut output) = spawn("serve", "");
    let address = find(&mut output, "address=").parse().unwrap();
    let mut clients: Vec<_> = (0..100)
        .map(|index| Client::open(address).connect(&index.to_string()))
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu_ticks(&child);
    std::thread::sleep(Duration::from_secs(3));
    let used = cpu_ticks(&child) - before;
    assert!(used <= 6, "{used} of 300 ticks");
    clients.iter_mut().for_each(Client::ping);
    signal(&child, "-TERM");
    drop(clients);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_blocked_io_uring_is_named_with_its_cause() {
    if std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .is_ok_and(|value| value.trim() != "0")
    {
        // Then that is the cause the broker names, whatever a filter adds.
        return;
    }
    let (mut child, mut output) = spawn("blocked", "");
    let error = find(&mut output, "error=");
    assert!(
        error.contains("io_uring is blocked") && error.contains("seccomp"),
        "{error}"
    );
    child.wait().unwrap();
}

#[test]
fn too_little_locked_memory_is_named_with_what_is_needed() {
    let (mut child, mut output) = spawn("serve", "ulimit -l 256 &&");
    let error = find(&mut output, "error=");
    assert!(error.contains("RLIMIT_MEMLOCK is 262144 bytes"), "{error}");
    assert!(error.contains("ulimit -l "), "{error}");
    child.wait().unwrap();
}

/// Refuses io_uring_setup to this thread and the threads it starts, as the profiles of containers do.
#[expect(unsafe_code, reason = "only a system call installs a seccomp filter")]
fn block_io_uring() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let eperm = u32::try_from(libc::EPERM).unwrap();
    let mut program = [
        // The number of the system call is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | eperm),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes integers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0);
    // SAFETY: `program` and the array that it points to live until the call returns, which copies them.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(filtered, 0);
}
