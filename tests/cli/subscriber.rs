//! What `sub` does with what a broker sends it.

use shardmq::wire::{
    Ack, Disconnect, Forwarded, Packet, PacketId, Property, QoS, ReasonCode, UserProperties,
};

use crate::run;
use crate::stand_in::{StandIn, grant, publish, suback};

const ID: PacketId = PacketId::MIN;

#[test]
fn a_repeated_qos_2_message_is_printed_once() {
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        grant(peer);
        for _ in 0..2 {
            peer.send(&publish("a", QoS::ExactlyOnce, Some(ID)));
            assert_eq!(
                peer.next(|packet| matches!(packet, Packet::PubRec(_))),
                Some(true)
            );
        }
        peer.send(&Packet::PubRel(Ack::new(ID, ReasonCode::Success)));
        assert_eq!(
            peer.next(|packet| matches!(packet, Packet::PubComp(_))),
            Some(true)
        );
        peer.send(&publish("b", QoS::AtMostOnce, None));
        peer.drain();
    });
    let ended = run(&[
        "sub",
        "-p",
        &broker.port(),
        "-t",
        "#",
        "-q",
        "2",
        "-v",
        "-C",
        "2",
    ]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "a payload\nb payload\n"),
        "{}",
        ended.err
    );
    broker.finish();
}

#[test]
fn an_alias_stands_for_its_topic_and_properties_are_printed() {
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        grant(peer);
        let mut properties = Vec::new();
        Property::UserProperty("k", "v").encode(&mut properties);
        for topic in ["long/topic", ""] {
            let Packet::Publish(mut message) = publish(topic, QoS::AtMostOnce, None) else {
                unreachable!()
            };
            message.properties.topic_alias = Some(4);
            message.properties.forwarded = Forwarded::from_bytes(&properties);
            peer.send(&Packet::Publish(message));
        }
        peer.drain();
    });
    let ended = run(&[
        "sub",
        "-p",
        &broker.port(),
        "-t",
        "#",
        "-D",
        "connect",
        "topic-alias-maximum",
        "9",
        "-F",
        "%t %A %P",
        "-C",
        "2",
    ]);
    assert_eq!(
        ended.out, "long/topic 4 k:v\nlong/topic 4 k:v\n",
        "{}",
        ended.err
    );
    broker.finish();
}

#[test]
fn a_refused_subscription_ends_unless_another_was_granted() {
    let answer = |codes: &'static [u8]| {
        StandIn::start(1, move |peer, _| {
            peer.accept();
            let id = peer.next(|packet| match packet {
                Packet::Subscribe(subscribe) => subscribe.packet_id,
                other => panic!("{other:?}"),
            });
            suback(peer, id.unwrap(), codes);
            peer.drain();
        })
    };
    let broker = answer(&[0x87]);
    let ended = run(&["sub", "-p", &broker.port(), "-V", "5", "-t", "a"]);
    assert_eq!(ended.code, 0x87);
    assert!(
        ended.err.contains("refused the filter `a`: Not authorized"),
        "{}",
        ended.err
    );
    let broker = answer(&[0x87, 0]);
    let ended = run(&[
        "sub",
        "-p",
        &broker.port(),
        "-V",
        "5",
        "-t",
        "a",
        "-t",
        "b",
        "-E",
    ]);
    assert_eq!(ended.code, 0);
    assert!(ended.err.contains("Warning"), "{}", ended.err);
}

#[test]
fn a_subscriber_comes_back_after_a_lost_connection_and_not_after_a_takeover() {
    let broker = StandIn::start(2, |peer, turn| {
        peer.accept();
        grant(peer);
        if turn == 1 {
            peer.send(&publish("a", QoS::AtMostOnce, None));
            peer.drain();
        }
    });
    let ended = run(&["sub", "-p", &broker.port(), "-t", "a", "-C", "1"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "payload\n"));
    assert!(ended.err.contains("trying again"), "{}", ended.err);
    broker.finish();
    let broker = StandIn::start(1, |peer, _| {
        peer.accept();
        grant(peer);
        peer.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::SessionTakenOver,
            session_expiry_interval: None,
            reason_string: None,
            user_properties: UserProperties::default(),
            server_reference: None,
        }));
    });
    let ended = run(&["sub", "-p", &broker.port(), "-V", "5", "-t", "a"]);
    assert_eq!(ended.code, 0x8E, "{}", ended.err);
    broker.finish();
}
