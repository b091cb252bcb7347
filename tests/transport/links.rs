//! WebSocket, the PROXY protocol and Unix sockets, with bytes; handshakes that do not end; limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::RUNS;
use crate::broker::{Broker, PATIENCE, check, poll};
use crate::client::{Client, config, connect_packet, publish_packet, tcp, tls};
use crate::pki::Folder;

pub(crate) const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A frame as a client makes it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let mut bytes = vec![first, 0x80 | length];
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// One with a payload of any length below 64 KiB.
pub(crate) fn masked_long(payload: &[u8]) -> Vec<u8> {
    if payload.len() < 126 {
        return masked(0x82, payload);
    }
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut bytes = vec![0x82, 0x80 | 126];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// A WebSocket that is open.
fn websocket(broker: &Broker) -> TcpStream {
    let mut stream = tcp(broker.address("ws"));
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

/// Opcode and payload of a frame of the server.
fn frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert!(head[1] < 126 && head[0] & 0x80 != 0);
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).unwrap();
    (head[0] & 0x0f, payload)
}

#[test]
fn packets_are_split_and_joined_over_frames_at_will() {
    for run in RUNS {
        let broker = Broker::start(run, "");
        let mut stream = websocket(&broker);
        let connect = connect_packet("frames");
        // [MQTT-6.0.0-2] [MQTT-6.0.0-2 3.1.1] One packet in three frames of one message, with a ping between them.
        stream.write_all(&masked(0x02, &connect[..3])).unwrap();
        stream.write_all(&masked(0x89, b"?")).unwrap();
        assert_eq!(frame(&mut stream), (10, b"?".to_vec()));
        stream.write_all(&masked(0x00, &connect[3..5])).unwrap();
        stream.write_all(&masked(0x80, &connect[5..])).unwrap();
        // [MQTT-6.0.0-1] [MQTT-6.0.0-1 3.1.1] What comes is binary.
        assert_eq!(frame(&mut stream), (2, vec![0x20, 2, 0, 0]));
        let subscribe = b"\x82\x06\0\x01\0\x01t\0";
        let both = [subscribe.as_slice(), &publish_packet("t", b"x")].concat();
        stream.write_all(&masked(0x82, &both)).unwrap();
        let mut got = Vec::new();
        while got.len() < 5 + 6 {
            got.extend(frame(&mut stream).1);
        }
        // A SUBACK waits for the other shard, the message does not.
        let has = |packet: &[u8]| got.windows(packet.len()).any(|part| part == packet);
        assert!(
            has(b"\x90\x03\0\x01\0") && has(b"\x30\x04\0\x01tx"),
            "{got:?}"
        );
        // [MQTT-6.0.0-1] Text ends it, with the code that says so; the will is nobody's loss.
        stream.write_all(&masked(0x81, b"text")).unwrap();
        assert_eq!(frame(&mut stream), (8, 1003_u16.to_be_bytes().to_vec()));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        // A farewell is answered with its code.
        let mut stream = websocket(&broker);
        stream.write_all(&masked(0x88, b"\x03\xe9bye")).unwrap();
        assert_eq!(frame(&mut stream), (8, vec![3, 0xe9]));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        broker.stop();
    }
}

#[test]
fn a_browser_of_another_page_and_another_path_are_refused() {
    let rules = "[[listener]]\nname = 'strict'\ntype = 'ws'\nbind = '127.0.0.1:0'\n\
        ws_path = '/mqtt'\nws_origin = ['https://example.org']\n";
    let broker = Broker::start(RUNS[1], rules);
    for (from, to, status) in [
        ("/mqtt", "/other", "404"),
        ("Host:", "Origin: https://evil.example\r\nHost:", "403"),
        ("Protocol: mqtt", "Protocol: chat", "400"),
    ] {
        let mut stream = tcp(broker.address("strict"));
        stream
            .write_all(UPGRADE.replace(from, to).as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    for request in [
        UPGRADE.to_owned(),
        UPGRADE.replace("Host:", "Origin: https://example.org\r\nHost:"),
    ] {
        let mut stream = tcp(broker.address("strict"));
        stream.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 13];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 101 ");
    }
    broker.stop();
}

#[test]
fn handshakes_that_do_not_end_are_ended_and_nobody_waits_for_them() {
    let text = "handshake_timeout = 1\n[[listener]]\nname = 'tls'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
        certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
        [[listener]]\nname = 'ws'\ntype = 'ws'\nbind = '127.0.0.1:0'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, text, |_, _| ());
        let config = config(&broker.authority, None);
        let mut other = Client::connect(tls(broker.address("tls"), &config), "other");
        let mut slow: Vec<TcpStream> = Vec::new();
        for number in 0..100 {
            let name = if number % 2 == 0 { "tls" } else { "ws" };
            let mut stream = tcp(broker.address(name));
            let start: &[u8] = if name == "tls" {
                &[0x16, 3, 1, 0, 200, 1]
            } else {
                b"GET /mqtt HT"
            };
            stream.write_all(start).unwrap();
            slow.push(stream);
        }
        other.ping();
        for mut stream in slow {
            // A reset or an end: whichever, it is over, and long before our own patience is.
            let _ = stream.read(&mut [0; 64]);
        }
        let late = || broker.metric("shardmq_link_failures_total", "reason=\"late\"");
        assert_eq!(late(), 100.0);
        other.ping();
        broker.stop();
    }
}

#[test]
fn who_is_behind_a_proxy_is_told_by_its_header() {
    let text = "[[listener]]\nname = 'behind'\nbind = '127.0.0.1:0'\nproxy_from = '127.0.0.0/8'\n\
        [[listener]]\nname = 'wss-behind'\ntype = 'wss'\nbind = '127.0.0.1:0'\nproxy_from = '127.0.0.1'\n\
        certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
        [[listener]]\nname = 'elsewhere'\nbind = '127.0.0.1:0'\nproxy_from = ['192.0.2.0/24', '::1']\n";
    let mut version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    version2.extend([203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 7, 0x5b]);
    for run in RUNS {
        let broker = Broker::start(run, text);
        let behind = broker.address("behind");
        for (header, address) in [
            (
                b"PROXY TCP4 198.51.100.7 10.0.0.1 4242 1883\r\n".as_slice(),
                "198.51.100.7:4242",
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 4243 1883\r\n",
                "[2001:db8::7]:4243",
            ),
            (&version2, "203.0.113.9:12345"),
        ] {
            // With the header in front of the CONNECT, in one piece and byte by byte.
            for pieces in [1_usize, 1000] {
                let mut stream = tcp(behind);
                let name = format!("{}-{pieces}", address.len());
                let bytes = [header, &connect_packet(&name)].concat();
                for part in bytes.chunks(bytes.len().div_ceil(pieces)) {
                    stream.write_all(part).unwrap();
                }
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [0x20, 2, 0, 0]);
                poll("the address in the log", || {
                    let log = broker.log();
                    log.lines()
                        .any(|line| line.contains(&name) && line.contains(address))
                        .then_some(())
                });
            }
        }
        // Below TLS and WebSocket, too.
        let mut stream = tcp(broker.address("wss-behind"));
        stream
            .write_all(b"PROXY TCP4 198.51.100.8 10.0.0.1 1 2\r\n")
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let client = rustls::ClientConnection::new(config(&broker.authority, None), name).unwrap();
        let mut stream = rustls::StreamOwned::new(client, stream);
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let mut start = [0; 13];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 101 ");
        // Without a header, with a wrong one, or from elsewhere: nothing but the end.
        for (name, bytes) in [
            ("behind", connect_packet("bare")),
            ("behind", b"PROXY TCP4 1.2.3.4\r\n".to_vec()),
            ("elsewhere", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec()),
        ] {
            let mut stream = tcp(broker.address(name));
            let _ = stream.write_all(&bytes);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert_eq!(answer, b"", "{name}");
        }
        assert_eq!(
            broker.metric("shardmq_link_failures_total", "reason=\"proxy\""),
            2.0
        );
        assert_eq!(
            broker.metric("shardmq_sockets_refused_total", "not_from_proxy"),
            1.0
        );
        broker.stop();
    }
}

#[test]
fn a_unix_socket_is_a_listener_like_the_others() {
    let text = "[[listener]]\nname = 'local'\ntype = 'unix'\nsocket = '{dir}/mqtt.sock'\n\
        socket_mode = '0600'\n[[listener]]\nname = 'tcp'\nbind = '127.0.0.1:0'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, text, |_, _| ());
        let path = broker.folder.join("mqtt.sock");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Enough of them that their sessions lie on both shards.
        let mut clients: Vec<_> = (0..8)
            .map(|number| {
                let stream = UnixStream::connect(&path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut client = Client::connect(stream, &format!("unix-{number}"));
                client.subscribe("from/tcp");
                client
            })
            .collect();
        let mut plain = Client::connect(tcp(broker.address("tcp")), "tcp");
        plain.publish("from/tcp", b"hello");
        for client in &mut clients {
            assert_eq!(client.receive(), b"hello");
            client.ping();
        }
        assert!(broker.log().contains("unix://"));
        broker.signal("TERM");
        poll("the end of the file", || (!path.exists()).then_some(()));
    }
}

#[test]
fn a_listener_takes_as_many_connections_as_it_says_on_all_its_addresses() {
    let text = "[[listener]]\nname = 'few'\nbind = ['127.0.0.1:0', '127.0.0.2:0']\nmax_connections = 3\n\
        [[listener]]\nname = 'more'\nbind = '127.0.0.1:0'\n";
    for run in RUNS {
        let broker = Broker::start_with(run, text, |_, _| ());
        let log = broker.log();
        let addresses: Vec<std::net::SocketAddr> = log
            .lines()
            .filter(|line| line.ends_with("(few)"))
            .filter_map(|line| line.split("://").nth(1)?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(addresses.len(), 2, "{log}");
        let connect = |number: usize| {
            let stream = tcp(addresses[number % 2]);
            Client::try_connect(stream, &format!("few-{number}"))
        };
        let mut clients: Vec<_> = (0..3).map(|number| connect(number).unwrap()).collect();
        assert!(connect(3).is_err());
        Client::connect(tcp(broker.address("more")), "more").ping();
        clients.pop();
        let again = poll("a place", || connect(4).ok());
        drop((clients, again));
        assert!(broker.metric("shardmq_sockets_refused_total", "listener_max") >= 1.0);
        broker.stop();
    }
}

#[test]
fn what_does_not_go_together_is_told_with_its_key() {
    let folder = Folder::new();
    for (text, said) in [
        (
            "type = 'tls'\nbind = '127.0.0.1:0'\n",
            "`listener.certificate`: TLS needs the PEM file",
        ),
        (
            "bind = '127.0.0.1:0'\ncertificate = 'x'\n",
            "`listener.certificate`: is for the types tls and wss",
        ),
        (
            "bind = '127.0.0.1:0'\nws_path = '/x'\n",
            "`listener.ws_path`: is for the types ws and wss",
        ),
        (
            "bind = []\n",
            "`listener.bind`: must have an address at least",
        ),
        (
            "type = 'unix'\n",
            "`listener.socket`: a listener of the type unix must have",
        ),
        (
            "type = 'unix'\nsocket = 'x'\nbind = '127.0.0.1:1'\n",
            "`listener.bind`: a listener of the type unix",
        ),
        (
            "bind = '127.0.0.1:0'\nsocket = 'x'\n",
            "`listener.socket`: only a listener of the type unix",
        ),
        (
            "bind = '127.0.0.1:0'\npsk_file = 'x'\n",
            "pre-shared keys are not supported",
        ),
        (
            "bind = '127.0.0.1:0'\nproxy_from = 'proxy.example.org'\n",
            "is not an IP address or network",
        ),
        (
            "type = 'unix'\nsocket = 'x'\nsocket_mode = '9'\n",
            "is no file mode",
        ),
        (
            "type = 'tls'\nbind = '127.0.0.1:0'\ncertificate = ['a', 'b']\nkey = 'a'\n",
            "`listener.key`: there must be as many keys as certificates",
        ),
        (
            "type = 'tls'\nbind = '127.0.0.1:0'\ncertificate = 'a'\nkey = 'a'\nclient_certificate = 'required'\n",
            "`listener.client_ca`: who may sign",
        ),
    ] {
        let (fine, output) = check(&folder, &format!("[[listener]]\n{text}"));
        assert!(!fine && output.contains(said), "{text}: {output}");
    }
}
