//! What TLS and WebSocket cost the broker, in CPU time; not tests, so they run only when asked:
//!
//! ```sh
//! cargo build --release
//! SHARDMQ_BIN=target/release/shardmq cargo test --test transport measure -- --ignored --nocapture
//! ```
//!
//! The same work is done by mosquitto, if it is installed. The clients run on the same machine, so rates
//! say little on one with few cores; the CPU time is that of the broker alone.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::broker::{Broker, poll};
use crate::client::{Client, config_of, publish_packet, tcp, tls};
use crate::links::{UPGRADE, masked_long};

/// A broker by its process and its addresses.
struct Target {
    name: String,
    pid: u32,
    tcp: SocketAddr,
    tls: SocketAddr,
    ws: Option<SocketAddr>,
}

/// CPU time of all threads of a process, in microseconds.
fn cpu_us(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e3
}

/// Ends mosquitto with the measurement.
struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mosquitto(broker: &Broker) -> Option<(Mosquitto, SocketAddr, SocketAddr)> {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (plain, secure) = (free(), free());
    let dir = broker.folder.path().display();
    let text = format!(
        "allow_anonymous true\nmax_queued_messages 100000\nlistener {} 127.0.0.1\n\
         listener {} 127.0.0.1\ncafile {dir}/ca.pem\ncertfile {dir}/server.pem\nkeyfile {dir}/server.key\n",
        plain.port(),
        secure.port(),
    );
    let file = broker.folder.write("mosquitto.conf", &text);
    let program = ["mosquitto", "/usr/sbin/mosquitto"];
    let child = program.iter().find_map(|program| {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().ok()
    })?;
    let child = Mosquitto(child);
    poll("mosquitto", || std::net::TcpStream::connect(secure).ok());
    Some((child, plain, secure))
}

/// CPU time of the broker for a connection with its CONNECT.
fn each(target: &Target, count: usize, mut connect: impl FnMut(usize)) -> f64 {
    (0..50).for_each(&mut connect);
    let before = cpu_us(target.pid);
    (0..count).for_each(&mut connect);
    (cpu_us(target.pid) - before) / count as f64
}

fn handshakes(target: &Target, full: &Arc<ClientConfig>, resumed: &Arc<ClientConfig>) {
    const COUNT: usize = 1_000;
    let plain = each(target, COUNT, |number| {
        Client::connect(tcp(target.tcp), &format!("plain-{number}"));
    });
    let over = |config: &Arc<ClientConfig>| {
        each(target, COUNT, |number| {
            Client::connect(tls(target.tls, config), &format!("tls-{number}")).ping();
        })
    };
    let (full, resumed) = (over(full), over(resumed));
    println!(
        "{}: CPU for a connection with CONNECT: {plain:.0} us by TCP, {full:.0} by TLS 1.3, \
         {resumed:.0} resumed",
        target.name
    );
}

/// How long a client that is there waits for an answer, while nothing else happens and while so many
/// others shake hands at once.
fn storm(target: &Target, config: &Arc<ClientConfig>) {
    const CLIENTS: usize = 1_000;
    let told = |name: &str, mut waits: Vec<u128>| {
        waits.sort_unstable();
        let at = |share: usize| waits[(waits.len() - 1) * share / 1_000];
        println!(
            "{}: answer to a ping {name}: p50 {} us, p99 {} us, p99.9 {} us ({} of them)",
            target.name,
            at(500),
            at(990),
            at(999),
            waits.len()
        );
    };
    let ping = |client: &mut Client<std::net::TcpStream>| {
        let began = Instant::now();
        client.ping();
        began.elapsed().as_micros()
    };
    let mut client = Client::connect(tcp(target.tcp), "pings");
    told("alone", (0..2_000).map(|_| ping(&mut client)).collect());
    let mut all: Vec<_> = (0..CLIENTS).map(|_| tls(target.tls, config)).collect();
    let hellos: Vec<Vec<u8>> = all
        .iter_mut()
        .map(|stream| {
            let mut hello = Vec::new();
            stream.conn.write_tls(&mut hello).unwrap();
            hello
        })
        .collect();
    let ready = |stream: &std::net::TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let answered = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).unwrap();
        answered
    };
    for (stream, hello) in all.iter_mut().zip(&hellos) {
        stream.sock.write_all(hello).unwrap();
    }
    let began = Instant::now();
    let mut waits = Vec::new();
    while !all.iter().rev().take(1).all(|stream| ready(&stream.sock)) || waits.len() < 100 {
        waits.push(ping(&mut client));
    }
    let took = began.elapsed().as_millis();
    told(
        &format!("while {CLIENTS} shake hands, for {took} ms"),
        waits,
    );
}

/// Sends `total` messages from one connection to another one, as fast as they are taken.
fn saturate<P, S>(target: &Target, what: &str, publisher: P, subscriber: S)
where
    P: FnOnce(&mut dyn FnMut() -> Option<Vec<u8>>) + Send,
    S: FnOnce(&mut dyn FnMut(usize) -> bool) + Send,
{
    const TOTAL: u64 = 3_000_000;
    const BLOCK: u64 = 256;
    const AHEAD: u64 = 20_000;
    let message = publish_packet("fleet/1/position", &[7; 64]);
    let length = message.len();
    let block = message.repeat(BLOCK as usize);
    let received = AtomicU64::new(0);
    let before = cpu_us(target.pid);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = 0;
            subscriber(&mut |more| {
                bytes += more;
                received.store((bytes / length) as u64, Ordering::Relaxed);
                bytes < TOTAL as usize * length
            });
        });
        let mut sent = 0;
        publisher(&mut || {
            while sent > received.load(Ordering::Relaxed) + AHEAD {
                std::thread::yield_now();
            }
            sent += BLOCK;
            (sent <= TOTAL.next_multiple_of(BLOCK)).then(|| block.clone())
        });
    });
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_us(target.pid) - before;
    println!(
        "{}: QoS 0, 1 to 1, {what}: {:.0} messages/s, {:.0} ns of CPU each",
        target.name,
        TOTAL as f64 / seconds,
        cpu * 1e3 / TOTAL as f64,
    );
}

fn saturated<T: Read + Write + Send>(target: &Target, what: &str, open: impl Fn() -> T) {
    let mut subscriber = Client::connect(open(), "subscriber");
    subscriber.subscribe("fleet/#");
    let mut publisher = Client::connect(open(), "publisher");
    saturate(
        target,
        what,
        move |next| {
            while let Some(block) = next() {
                publisher.send(&block);
            }
        },
        move |more| {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let length = subscriber.stream.read(&mut buffer).unwrap();
                assert!(length > 0, "the connection ended");
                if !more(length) {
                    break;
                }
            }
        },
    );
}

/// The same through frames.
fn saturated_by_websocket(target: &Target, address: SocketAddr) {
    let open = |id: &str| {
        let mut stream = tcp(address);
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
            .write_all(&masked_long(&crate::client::connect_packet(id)))
            .unwrap();
        assert_eq!(payload(&mut stream), 4);
        stream
    };
    let mut subscriber = open("ws-subscriber");
    subscriber
        .write_all(&masked_long(b"\x82\x0c\0\x01\0\x07fleet/#\0"))
        .unwrap();
    assert_eq!(payload(&mut subscriber), 5);
    let mut publisher = open("ws-publisher");
    saturate(
        target,
        "ws",
        move |next| {
            let mut frame = Vec::new();
            while let Some(block) = next() {
                if frame.is_empty() {
                    frame = masked_long(&block);
                }
                publisher.write_all(&frame).unwrap();
            }
        },
        move |more| {
            let mut reader = std::io::BufReader::with_capacity(256 * 1024, subscriber);
            loop {
                let length = payload(&mut reader);
                if !more(length) {
                    break;
                }
            }
        },
    );
}

/// Reads a frame of the server, and returns how long its payload is.
fn payload(stream: &mut impl Read) -> usize {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x82);
    let mut long = [0; 8];
    let length = match head[1] {
        126 => {
            stream.read_exact(&mut long[6..]).unwrap();
            usize::try_from(u64::from_be_bytes(long)).unwrap()
        }
        127 => {
            stream.read_exact(&mut long).unwrap();
            usize::try_from(u64::from_be_bytes(long)).unwrap()
        }
        short => usize::from(short),
    };
    let mut left = length;
    let mut buffer = [0; 16 * 1024];
    while left > 0 {
        let part = left.min(buffer.len());
        stream.read_exact(&mut buffer[..part]).unwrap();
        left -= part;
    }
    length
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let memory = |target: &Target| {
        let text = fs::read_to_string(format!("/proc/{}/statm", target.pid)).unwrap();
        text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
    };
    let run = |target: &Target, broker: &Broker| {
        let version = [&rustls::version::TLS13];
        let resumed = config_of(&broker.authority, None, &version);
        let mut full = (*resumed).clone();
        full.resumption = Resumption::disabled();
        let full = Arc::new(full);
        handshakes(target, &full, &resumed);
        storm(target, &full);
        saturated(target, "tcp", || tcp(target.tcp));
        saturated(target, "tls", || {
            let mut stream = tls(target.tls, &full);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            stream
        });
        if let Some(ws) = target.ws {
            saturated_by_websocket(target, ws);
        }
        let mut kept = Vec::new();
        let mut connect = |count: usize, prefix: &str| {
            for number in 0..count {
                let id = format!("{prefix}-{number}");
                kept.push(Client::connect(tls(target.tls, &full), &id));
            }
            memory(target)
        };
        let before = connect(300, "first");
        let after = connect(3_000, "then");
        println!(
            "{}: {:.0} bytes for each of 3,000 idle TLS connections, session included",
            target.name,
            (after - before) / 3_000.0
        );
    };
    for driver in ["io_uring", "epoll"] {
        let broker = Broker::start((driver, 1), "");
        let target = Target {
            name: format!("shardmq with {driver}"),
            pid: broker.pid(),
            tcp: broker.address("tcp"),
            tls: broker.address("tls"),
            ws: Some(broker.address("ws")),
        };
        run(&target, &broker);
        if driver == "epoll"
            && let Some((child, tcp, tls)) = mosquitto(&broker)
        {
            let target = Target {
                name: String::from("mosquitto"),
                pid: child.0.id(),
                tcp,
                tls,
                ws: None,
            };
            run(&target, &broker);
        }
    }
}
