//! `pub` and `sub` against brokers that misbehave, and what they refuse by themselves.

use std::net::TcpListener;

use shardmq::wire::{Ack, ConnAckProperties, Packet, PacketId, QoS, ReasonCode};

use crate::stand_in::{Peer, StandIn, grant, is_disconnect, publish};
use crate::{run, run_with_input};

const ID: PacketId = PacketId::MIN;

#[test]
fn no_broker_is_told_with_what_to_do() {
    // A port that was just free.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let ended = run(&["pub", "-h", "127.0.0.1", "-p", &port, "-t", "a", "-m", "b"]);
    assert_eq!(ended.code, 1);
    assert_eq!(
        ended.err,
        format!(
            "Error: connection refused: is a broker running on 127.0.0.1:{port}? Start one with \
             `shardmq run`\n"
        )
    );
    let quiet = run(&["sub", "-h", "127.0.0.1", "-p", &port, "-t", "a", "--quiet"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (1, ""));
}

#[test]
fn a_refused_connection_ends_in_its_code() {
    let refuse = |reason| {
        StandIn::start(1, move |peer, _| {
            let properties = ConnAckProperties {
                reason_string: Some("not you"),
                ..ConnAckProperties::default()
            };
            peer.answer_connect(reason, properties);
            peer.drain();
        })
    };
    let broker = refuse(ReasonCode::NotAuthorized);
    let ended = run(&["pub", "-p", &broker.port(), "-V", "5", "-t", "a", "-m", "b"]);
    assert_eq!(ended.code, 0x87, "{}", ended.err);
    assert!(
        ended.err.contains("(not you)") && ended.err.contains("-u and -P"),
        "{}",
        ended.err
    );
    broker.finish();
    let broker = refuse(ReasonCode::NotAuthorized);
    let ended = run(&["sub", "-p", &broker.port(), "-V", "mqttv311", "-t", "a"]);
    assert_eq!(ended.code, 5, "{}", ended.err);
    broker.finish();
}

#[test]
fn a_peer_that_is_no_broker_is_recognised() {
    let server = StandIn::start(1, |peer, _| {
        peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    let ended = run(&["pub", "-p", &server.port(), "-t", "a", "-m", "b"]);
    assert_ne!(ended.code, 0);
    assert!(ended.err.contains("broker"), "{}", ended.err);
    let server = StandIn::start(1, |peer, _| {
        peer.next(|_| ());
    });
    let ended = run(&["pub", "-p", &server.port(), "-t", "a", "-m", "b"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("without an answer to CONNECT"),
        "{}",
        ended.err
    );
}

#[test]
fn time_runs_out_in_the_handshake_and_after_it() {
    let silent = StandIn::start(1, |peer, _| peer.drain());
    let ended = run(&["sub", "-p", &silent.port(), "-t", "a", "-W", "0.2"]);
    assert_eq!((ended.code, ended.err.as_str()), (27, "Error: timed out\n"));
    let quiet = StandIn::start(1, |peer, _| {
        peer.accept();
        grant(peer);
        // The will, if there were one, is to be sent: nobody asked the client to end well.
        assert!(is_disconnect(peer, ReasonCode::DisconnectWithWillMessage));
    });
    let ended = run(&[
        "sub",
        "-p",
        &quiet.port(),
        "-V",
        "5",
        "-t",
        "a",
        "-W",
        "0.3",
    ]);
    assert_eq!(ended.code, 27);
    quiet.finish();
}

#[test]
fn all_of_connect_is_sent_as_asked() {
    let broker = StandIn::start(1, |peer, _| {
        peer.next(|packet| {
            let Packet::Connect(connect) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!(
                (connect.client_id, connect.keep_alive, connect.clean_start),
                ("me", 7, false)
            );
            assert_eq!(
                (connect.username, connect.password),
                (Some("user"), Some(&b"secret"[..]))
            );
            let properties = &connect.properties;
            assert_eq!(properties.session_expiry_interval, Some(90));
            assert_eq!(properties.receive_maximum, Some(3));
            assert_eq!(
                properties.user_properties.iter().collect::<Vec<_>>(),
                [("k", "v w")]
            );
            let will = connect.will.unwrap();
            assert_eq!(
                (will.topic.as_str(), will.payload, will.retain),
                ("gone", &b"oh"[..], true)
            );
            assert_eq!((will.qos, will.delay_interval), (QoS::AtLeastOnce, 5));
            assert_eq!(will.forwarded.iter().count(), 1);
        });
    });
    let url = format!("mqtt://user:secret@127.0.0.1:{}/a", broker.port());
    run(&[
        "pub",
        "-L",
        &url,
        "-m",
        "x",
        "-i",
        "me",
        "-k",
        "7",
        "-c",
        "-x",
        "90",
        "-D",
        "connect",
        "receive-maximum",
        "3",
        "-D",
        "connect",
        "user-property",
        "k",
        "v w",
        "--will-topic",
        "gone",
        "--will-payload",
        "oh",
        "--will-qos",
        "1",
        "--will-retain",
        "-D",
        "will",
        "will-delay-interval",
        "5",
        "-D",
        "will",
        "content-type",
        "text",
    ]);
    broker.finish();
}

#[test]
fn a_message_carries_its_properties() {
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        peer.next(|packet| {
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!(
                (publish.topic, publish.payload, publish.retain),
                ("a", &b"-1"[..], true)
            );
            let properties = &publish.properties;
            assert_eq!(properties.message_expiry_interval, Some(60));
            assert_eq!(properties.topic_alias, Some(2));
            assert_eq!(properties.content_type(), Some("text"));
            assert_eq!(
                properties.user_properties().iter().collect::<Vec<_>>(),
                [("k", "v")]
            );
        });
        assert!(is_disconnect(peer, ReasonCode::NormalDisconnection));
    });
    let broker_with_aliases = broker.port();
    let ended = run(&[
        "pub",
        "-p",
        &broker_with_aliases,
        "-t",
        "a",
        "-m",
        "-1",
        "-r",
        "-D",
        "publish",
        "message-expiry-interval",
        "60",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "-D",
        "publish",
        "topic-alias",
        "2",
    ]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    broker.finish();
}

#[test]
fn qos_2_takes_its_four_packets_and_a_refusal_its_code() {
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        let id = peer.next(|packet| match packet {
            Packet::Publish(publish) => publish.packet_id,
            other => panic!("{other:?}"),
        });
        let id = id.flatten().unwrap();
        peer.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success)));
        assert_eq!(
            peer.next(|packet| matches!(packet, Packet::PubRel(a) if a.packet_id == id)),
            Some(true)
        );
        peer.send(&Packet::PubComp(Ack::new(id, ReasonCode::Success)));
        assert!(is_disconnect(peer, ReasonCode::NormalDisconnection));
    });
    let ended = run(&["pub", "-p", &broker.port(), "-t", "a", "-m", "b", "-q", "2"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    broker.finish();
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        peer.next(|_| ());
        peer.send(&Packet::PubAck(Ack {
            reason_string: Some("no room"),
            ..Ack::new(ID, ReasonCode::QuotaExceeded)
        }));
        peer.drain();
    });
    let ended = run(&[
        "pub",
        "-p",
        &broker.port(),
        "-V",
        "5",
        "-t",
        "a",
        "-m",
        "b",
        "-q",
        "1",
    ]);
    assert_eq!(ended.code, 0x97);
    assert!(
        ended.err.contains("Quota exceeded") && ended.err.contains("(no room)"),
        "{}",
        ended.err
    );
    broker.finish();
}

#[test]
fn no_more_messages_are_on_their_way_than_allowed() {
    let broker = StandIn::start(1, |peer, _| {
        let properties = ConnAckProperties {
            receive_maximum: Some(2),
            ..ConnAckProperties::default()
        };
        peer.answer_connect(ReasonCode::Success, properties);
        for _ in 0..5 {
            // Were the window larger, two more would be here before the first acknowledgement.
            let first = id_of_publish(peer);
            peer.send(&Packet::PubAck(Ack::new(first, ReasonCode::Success)));
        }
        assert!(is_disconnect(peer, ReasonCode::NormalDisconnection));
    });
    let lines = b"1\n2\n3\n4\n5";
    let ended = run_with_input(
        &[
            "pub",
            "-p",
            &broker.port(),
            "-V",
            "5",
            "-t",
            "a",
            "-l",
            "-q",
            "1",
        ],
        lines,
    );
    assert_eq!(ended.code, 0, "{}", ended.err);
    broker.finish();
}

fn id_of_publish(peer: &mut Peer) -> PacketId {
    let id = peer.next(|packet| match packet {
        Packet::Publish(publish) => publish.packet_id,
        other => panic!("{other:?}"),
    });
    id.flatten().unwrap()
}

#[test]
fn what_the_broker_does_not_take_is_not_sent() {
    let limited = || {
        StandIn::start(1, |peer, _| {
            let properties = ConnAckProperties {
                maximum_qos: Some(QoS::AtMostOnce),
                retain_available: Some(false),
                maximum_packet_size: Some(64),
                ..ConnAckProperties::default()
            };
            peer.answer_connect(ReasonCode::Success, properties);
            let published = peer.next(|packet| matches!(packet, Packet::Publish(_)));
            assert_ne!(published, Some(true));
        })
    };
    let long = "x".repeat(100);
    for (option, part) in [
        (&["-m", "b", "-q", "1"][..], "QoS 0"),
        (&["-m", "b", "-r"], "retains"),
        (&["-m", &long], "64"),
    ] {
        let broker = limited();
        let port = broker.port();
        let mut arguments = vec!["pub", "-p", &port, "-V", "5", "-t", "a"];
        arguments.extend_from_slice(option);
        let ended = run(&arguments);
        assert_eq!(ended.code, 1);
        assert!(ended.err.contains(part), "{}", ended.err);
        broker.finish();
    }
}

#[test]
fn a_broker_is_pinged_and_missed() {
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        grant(peer);
        assert_eq!(
            peer.next(|packet| matches!(packet, Packet::PingReq)),
            Some(true)
        );
        peer.send(&Packet::PingResp);
        assert_eq!(
            peer.next(|packet| matches!(packet, Packet::PingReq)),
            Some(true)
        );
        peer.send(&publish("a", QoS::AtMostOnce, None));
        peer.drain();
    });
    let ended = run(&["sub", "-p", &broker.port(), "-t", "a", "-k", "1", "-C", "1"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    broker.finish();
    let dead = StandIn::start(1, |peer, _| {
        peer.accept();
        peer.drain();
    });
    let ended = run(&[
        "pub",
        "-p",
        &dead.port(),
        "-t",
        "a",
        "-m",
        "b",
        "-q",
        "1",
        "-k",
        "1",
    ]);
    assert_eq!(ended.code, 7);
    assert!(
        ended.err.contains("does not answer any more"),
        "{}",
        ended.err
    );
}

#[test]
fn a_command_line_that_makes_no_sense_is_explained_before_connecting() {
    let cases: &[(&[&str], &str)] = &[
        (&["pub", "-m", "b"], "no topic; give one with -t"),
        (&["pub", "-t", "a"], "no message; give one with -m"),
        (&["pub", "-t", "a", "-m", "b", "-n"], "only one of"),
        (
            &["pub", "-t", "a/#", "-m", "b"],
            "+ and # are for subscriptions",
        ),
        (
            &["pub", "-t", "a", "-m", "b", "-q", "3"],
            "a QoS is 0, 1 or 2",
        ),
        (&["pub", "-t", "a", "-f", "no/such"], "cannot read no/such"),
        (&["pub", "-t", "a", "-m", "b", "-V", "4"], "31, 311 or 5"),
        (
            &["pub", "-t", "a", "-m", "b", "-V", "311", "-x", "5"],
            "-x needs version 5",
        ),
        (&["pub", "-t", "a", "-m", "b", "-c"], "needs a client id"),
        (
            &["pub", "-t", "a", "-m", "b", "--psk", "x"],
            "--psk is not supported: pre-shared keys",
        ),
        (
            &["sub", "-t", "a", "-A", "127.0.0.1"],
            "-A is not supported",
        ),
        (&["sub"], "no topic filter"),
        (&["sub", "-t", "a#"], "# stands alone"),
        (&["sub", "-t", "$share/a"], "a topic filter"),
        (&["sub", "-t", "a", "-F", "%z"], "%z is unknown"),
        (&["sub", "-L", "wss://h/t"], "or mqtts://"),
        (
            &["pub", "-t", "a", "-m", "b", "--insecure"],
            "TLS is spoken with --cafile",
        ),
        (
            &["sub", "-t", "a", "-D", "publish", "topic-alias", "1"],
            "sends no such packet",
        ),
        (
            &["sub", "-t", "a", "--no-local", "-V", "311"],
            "--no-local needs version 5",
        ),
    ];
    for (arguments, part) in cases {
        let ended = run(arguments);
        assert_eq!(ended.code, 1, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(part), "{arguments:?}: {}", ended.err);
    }
    for client in ["pub", "sub"] {
        let help = run(&[client, "--help"]);
        assert!(
            help.code == 0 && help.out.contains("--will-topic"),
            "{}",
            help.out
        );
    }
}
