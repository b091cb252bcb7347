//! The program and raw clients of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// The program, with an environment that says nothing to it.
pub(crate) fn shardmq(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmq"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHARDMQ_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A broker that runs, on ports of its own.
pub(crate) struct Broker {
    child: Child,
    pub(crate) log: String,
    pub(crate) mqtt: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
}

/// An answer by HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Broker {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let all = [&["--http", "127.0.0.1:0"], arguments].concat();
        Self::start_as_is(&all)
    }

    pub(crate) fn start_as_is(arguments: &[&str]) -> Self {
        let mut child = shardmq(&["run", "--listen", "127.0.0.1:0", "--ephemeral"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("end with this process.\n") {
            assert_ne!(
                lines.read_line(&mut log).unwrap(),
                0,
                "the broker ended: {log}"
            );
        }
        // Somebody must go on reading, or its log fills the pipe.
        std::thread::Builder::new()
            .spawn(move || lines.read_to_string(&mut String::new()))
            .unwrap();
        let after = |start: &str| {
            let rest = log.split(start).nth(1)?;
            rest.split([' ', '/']).next()?.parse().ok()
        };
        let (mqtt, http) = (after("mqtt://").unwrap(), after("http://"));
        Self {
            child,
            log,
            mqtt,
            http,
        }
    }

    pub(crate) fn connect_http(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http.expect("it has HTTP")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request with any method and path.
    pub(crate) fn request(&self, method: &str, path: &str) -> Answer {
        let mut stream = self.connect_http();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: broker\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            code: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let answer = self.request("GET", path);
        assert_eq!(answer.code, 200, "{answer:?}");
        answer
    }

    pub(crate) fn client(&self, client_id: &str) -> Client {
        Client::connect(self.mqtt, client_id)
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) {
        let kill = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(kill.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of version 3.1.1 that speaks bytes.
pub(crate) struct Client {
    stream: TcpStream,
    /// PUBLISH packets that came while something else was expected.
    publishes: Vec<(String, Vec<u8>)>,
    pub(crate) bytes_sent: u64,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, client_id: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self {
            stream,
            publishes: Vec::new(),
            bytes_sent: 0,
        };
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        text(&mut body, client_id);
        client.send(0x10, &body);
        assert_eq!(client.expect(0x20), [0, 0]);
        client
    }

    fn send(&mut self, first_byte: u8, body: &[u8]) {
        let mut packet = vec![first_byte, u8::try_from(body.len()).unwrap()];
        packet.extend_from_slice(body);
        assert!(body.len() < 128);
        self.stream.write_all(&packet).unwrap();
        self.bytes_sent += packet.len() as u64;
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        body.push(qos);
        self.send(0x82, &body);
        assert_eq!(self.expect(0x90), [0, 1, qos]);
    }

    /// With a packet identifier at QoS 1.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], packet_id: Option<u16>) {
        let mut body = Vec::new();
        text(&mut body, topic);
        if let Some(packet_id) = packet_id {
            body.extend_from_slice(&packet_id.to_be_bytes());
        }
        body.extend_from_slice(payload);
        self.send(if packet_id.is_some() { 0x32 } else { 0x30 }, &body);
    }

    pub(crate) fn expect_puback(&mut self) {
        self.expect(0x40);
    }

    pub(crate) fn ping(&mut self) {
        self.send(0xC0, &[]);
        self.expect(0xD0);
    }

    /// Reads until so many PUBLISH packets have come, and acknowledges none.
    pub(crate) fn receive_publishes(&mut self, count: usize) -> Vec<(String, Vec<u8>)> {
        while self.publishes.len() < count {
            let (first_byte, body) = self.read();
            assert!(self.keep(first_byte, &body), "packet {first_byte:#x}");
        }
        self.publishes.drain(..count).collect()
    }

    /// The next packet that is no PUBLISH.
    fn expect(&mut self, expected: u8) -> Vec<u8> {
        loop {
            let (first_byte, body) = self.read();
            if !self.keep(first_byte, &body) {
                assert_eq!(first_byte, expected);
                return body;
            }
        }
    }

    fn keep(&mut self, first_byte: u8, body: &[u8]) -> bool {
        if first_byte >> 4 != 3 {
            return false;
        }
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        let start = 2 + length + if first_byte & 6 == 0 { 0 } else { 2 };
        self.publishes.push((topic, body[start..].to_vec()));
        true
    }

    fn read(&mut self) -> (u8, Vec<u8>) {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        let first_byte = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            self.stream.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (first_byte, body)
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}
