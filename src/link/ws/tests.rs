use proptest::prelude::*;

use super::*;
use crate::link::{Link, Scratch};

const REQUEST: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: broker\r\nupgrade: WebSocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: https://example.org\r\nSec-WebSocket-Protocol: chat\r\n\
    Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A frame as a client makes it.
fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

fn open() -> Session {
    let mut session = Session::new(Arc::default());
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    assert_eq!(
        session.receive(REQUEST.as_bytes(), &mut plain, &mut reply),
        Received::GoesOn
    );
    assert!(session.is_open() && plain.is_empty());
    session
}

/// What an open session makes of bytes: how it stands, what is for MQTT, what is answered.
fn take(bytes: &[u8]) -> (Received, Vec<u8>, Vec<u8>) {
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    let received = open().receive(bytes, &mut plain, &mut reply);
    (received, plain, reply)
}

fn refused(request: &str, rules: Rules) -> (Refusal, String) {
    let mut session = Session::new(Arc::new(rules));
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    match session.receive(request.as_bytes(), &mut plain, &mut reply) {
        Received::Failed(LinkError::Upgrade(refusal)) => {
            (refusal, String::from_utf8(reply).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_becomes_a_websocket_wherever_it_is_cut() {
    for cut in 0..REQUEST.len() {
        let mut session = Session::new(Arc::default());
        let (mut plain, mut reply) = (Vec::new(), Vec::new());
        for part in [&REQUEST[..cut], &REQUEST[cut..]] {
            assert_eq!(
                session.receive(part.as_bytes(), &mut plain, &mut reply),
                Received::GoesOn
            );
        }
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 101 "), "{reply}");
        // The example of RFC 6455, section 1.3.
        assert!(
            reply.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{reply}"
        );
        // [MQTT-6.0.0-4] [MQTT-6.0.0-4 3.1.1]
        assert!(
            reply.contains("Sec-WebSocket-Protocol: mqtt\r\n"),
            "{reply}"
        );
        assert!(reply.ends_with("\r\n\r\n"));
    }
}

#[test]
fn an_old_client_gets_the_protocol_that_it_asks_for() {
    let request = REQUEST.replace("mqttv3.1, mqtt", "mqttv3.1");
    let mut session = Session::new(Arc::default());
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    session.receive(request.as_bytes(), &mut plain, &mut reply);
    let reply = String::from_utf8(reply).unwrap();
    assert!(
        reply.contains("Sec-WebSocket-Protocol: mqttv3.1\r\n"),
        "{reply}"
    );
}

#[test]
fn frames_may_follow_the_request_at_once() {
    let mut session = Session::new(Arc::default());
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    let bytes = [REQUEST.as_bytes(), &masked(0x82, b"\x10\x00", [1, 2, 3, 4])].concat();
    assert_eq!(
        session.receive(&bytes, &mut plain, &mut reply),
        Received::GoesOn
    );
    assert_eq!(plain, b"\x10\x00");
}

#[test]
fn what_is_no_proper_request_is_told_why_not() {
    let rules = Rules {
        paths: vec!["/mqtt".to_owned()],
        origins: vec!["https://example.org".to_owned()],
    };
    let long = format!("\r\nCookie: {}\r\n\r\n", "x".repeat(9_000));
    let many = format!("\r\n{}\r\n", "a: b\r\n".repeat(100));
    let cases = [
        ("GET /", "POST /", Refusal::Method, "405"),
        ("HTTP/1.1", "HTTP/1.0", Refusal::Method, "405"),
        ("/mqtt", "/other", Refusal::Path, "404"),
        ("WebSocket", "h2c", Refusal::NoUpgrade, "426"),
        ("keep-alive, Upgrade", "close", Refusal::NoUpgrade, "426"),
        ("Version: 13", "Version: 8", Refusal::Version, "426"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl", Refusal::Key, "400"),
        ("Sec-WebSocket-Key", "X", Refusal::Key, "400"),
        (
            "https://example.org",
            "https://evil.org",
            Refusal::Origin,
            "403",
        ),
        ("chat", "x", Refusal::Protocol, "400"),
        ("GET", "G(T", Refusal::NotHttp, "400"),
        ("\r\n\r\n", long.as_str(), Refusal::TooLong, "431"),
        ("\r\n\r\n", many.as_str(), Refusal::TooLong, "431"),
    ];
    for (from, to, refusal, status) in cases {
        let mut request = REQUEST.replace(from, to);
        if refusal == Refusal::Protocol {
            request = request.replace("mqttv3.1, mqtt", "amqp"); // [MQTT-6.0.0-3] [MQTT-6.0.0-3 3.1.1]
        }
        let (found, reply) = refused(&request, rules.clone());
        assert_eq!(found, refusal, "{to}");
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        assert!(reply.contains("Connection: close\r\n"));
    }
    // And the request itself is none of these.
    let mut session = Session::new(Arc::new(rules));
    let mut reply = Vec::new();
    let received = session.receive(REQUEST.as_bytes(), &mut Vec::new(), &mut reply);
    assert_eq!(received, Received::GoesOn);
    assert!(session.is_open());
}

#[test]
fn a_head_without_an_end_is_not_gathered_for_ever() {
    let mut session = Session::new(Arc::default());
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    session.receive(b"GET / HTTP/1.1\r\nCookie: ", &mut plain, &mut reply);
    let mut received = Received::GoesOn;
    let mut taken = 0;
    while received == Received::GoesOn {
        received = session.receive(&[b'x'; 1_000], &mut plain, &mut reply);
        taken += 1;
    }
    assert_eq!(
        received,
        Received::Failed(LinkError::Upgrade(Refusal::TooLong))
    );
    assert!(taken <= 9);
}

#[test]
fn what_breaks_a_rule_is_answered_with_its_code() {
    let mask = [9, 8, 7, 6];
    let cases = [
        (masked(0x81, b"text", mask), Violation::Text, 1003), // [MQTT-6.0.0-1]
        (vec![0x82, 1, 0], Violation::Unmasked, 1002),
        (masked(0xc2, b"x", mask), Violation::ReservedBit, 1002),
        (masked(0x83, b"x", mask), Violation::Opcode, 1002),
        (masked(0x8b, b"x", mask), Violation::Opcode, 1002),
        (vec![0x82, 0xfe, 0, 125], Violation::Length, 1002),
        (
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            Violation::Length,
            1002,
        ),
        (
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0],
            Violation::Length,
            1002,
        ),
        (
            vec![0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0],
            Violation::TooLong,
            1009,
        ),
        (masked(0x09, b"x", mask), Violation::Control, 1002),
        (masked(0x89, &[0; 126], mask), Violation::Control, 1002),
        (masked(0x80, b"x", mask), Violation::Fragment, 1002),
        (
            [masked(2, b"a", mask), masked(2, b"b", mask)].concat(),
            Violation::Fragment,
            1002,
        ),
        (masked(0x88, b"\x03", mask), Violation::CloseCode, 1002),
        (
            masked(0x88, &1005_u16.to_be_bytes(), mask),
            Violation::CloseCode,
            1002,
        ),
        (
            masked(0x88, &999_u16.to_be_bytes(), mask),
            Violation::CloseCode,
            1002,
        ),
        (
            masked(0x88, b"\x03\xe8\xff", mask),
            Violation::CloseReason,
            1007,
        ),
    ];
    for (bytes, violation, code) in cases {
        let before = masked(0x82, b"\xc0\0", mask);
        let (received, plain, reply) = take(&[before, bytes].concat());
        assert_eq!(received, Received::Failed(LinkError::Frame(violation)));
        let [high, low] = u16::to_be_bytes(code);
        assert_eq!(reply, [0x88, 2, high, low], "{violation:?}");
        assert!(plain.starts_with(b"\xc0\0"), "what came before counts");
    }
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let mask = [1, 2, 3, 4];
    let bytes = [
        masked(0x02, b"ab", mask),
        masked(0x89, b"hello", mask),
        masked(0x8a, b"unasked", mask),
        masked(0x89, b"", mask),
        masked(0x80, b"cd", [0; 4]),
    ]
    .concat();
    let (received, plain, reply) = take(&bytes);
    assert_eq!(received, Received::GoesOn);
    assert_eq!(plain, b"abcd", "control frames may stand within a message");
    assert_eq!(reply, b"\x8a\x05hello\x8a\x00");
}

#[test]
fn a_farewell_is_answered_in_kind_and_ends_it() {
    for payload in [b"".as_slice(), b"\x03\xe8", b"\x0b\xb8bye"] {
        let after = masked(0x82, b"late", [0; 4]);
        let (received, plain, reply) = take(&[masked(0x88, payload, [5; 4]), after].concat());
        assert_eq!((received, plain), (Received::Farewell, Vec::new()));
        let code = payload.get(..2).unwrap_or_default();
        assert_eq!(
            reply,
            [&[0x88, u8::try_from(code.len()).unwrap()], code].concat()
        );
    }
    let mut session = open();
    let mut out = Vec::new();
    session.close(&mut out);
    session.close(&mut out);
    assert_eq!(out, [0x88, 2, 3, 0xe8], "ours is sent once");
}

#[test]
fn a_client_that_pings_and_does_not_read_fills_nothing() {
    let address = ([127, 0, 0, 1], 1).into();
    let mut link = Link::new(address).with_websocket(Arc::default());
    let mut scratch = Scratch::default();
    link.receive(REQUEST.as_bytes(), &mut scratch);
    assert!(link.is_open() && link.has_output());
    for _ in 0..1_000 {
        link.receive(&masked(0x89, &[7; 125], [1; 4]), &mut scratch);
    }
    let answers = link.send(Vec::new(), false).len();
    assert!((3_000..6_000).contains(&answers), "{answers}");
}

#[test]
fn bytes_of_the_server_are_one_frame_without_a_mask() {
    for (length, header) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65_535, vec![0x82, 126, 0xff, 0xff]),
        (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let payload = vec![0x5a; length];
        let mut bytes = payload.clone();
        frame(&mut bytes);
        assert_eq!(bytes, [header, payload].concat());
    }
}

/// A client's stream: fragments of messages with pings between them.
fn stream() -> impl Strategy<Value = Vec<(bool, Vec<u8>, [u8; 4], bool)>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 120..130),
        prop::collection::vec(any::<u8>(), 300..400),
    ];
    prop::collection::vec(
        (any::<bool>(), payload, any::<[u8; 4]>(), any::<bool>()),
        1..8,
    )
}

proptest! {
    /// [MQTT-6.0.0-2] Whatever the frames, and wherever the stream is cut.
    #[test]
    fn payload_comes_through_wherever_it_is_cut(
        frames in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (mut bytes, mut expected, mut pongs) = (vec![], Vec::<u8>::new(), Vec::<u8>::new());
        let mut fresh = true;
        for (last, payload, mask, ping) in &frames {
            let opcode = if fresh { 2 } else { 0 };
            bytes.extend(masked(u8::from(*last) << 7 | opcode, payload, *mask));
            expected.extend(payload);
            fresh = *last;
            if *ping {
                bytes.extend(masked(0x89, b"?", *mask));
                pongs.extend(b"\x8a\x01?");
            }
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut session = open();
        let (mut plain, mut reply) = (Vec::new(), Vec::new());
        for pair in cuts.windows(2) {
            let part = &bytes[pair[0]..pair[1]];
            prop_assert_eq!(session.receive(part, &mut plain, &mut reply), Received::GoesOn);
        }
        prop_assert_eq!(plain, expected);
        prop_assert_eq!(reply, pongs);
    }

    #[test]
    fn no_bytes_surprise_the_decoder(bytes: Vec<u8>, cut: prop::sample::Index) {
        let whole = take(&bytes);
        let cut = cut.index(bytes.len() + 1);
        let mut session = open();
        let (mut plain, mut reply) = (Vec::new(), Vec::new());
        let mut received = session.receive(&bytes[..cut], &mut plain, &mut reply);
        if received == Received::GoesOn {
            received = session.receive(&bytes[cut..], &mut plain, &mut reply);
        }
        prop_assert_eq!((received, plain, reply), whole);
    }
}
