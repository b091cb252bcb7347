//! Rules of access where they meet messages: on their way in, on their way out, kept for later, and when
//! the rules change in between.

use std::sync::Arc;

use shardmq::policy::{Acl, Decision, Entrance, Grant, Guard, GuardOptions, Method};
use shardmq::stats::DropReason;
use shardmq::wire::ReasonCode;

use crate::client::{Broker, Options, on_shards_under, v3, v5};
use crate::packets::{Received, message, sub};

fn options(acl: &str, methods: &str) -> Arc<GuardOptions> {
    Arc::new(GuardOptions {
        entrances: vec![Entrance {
            anonymous: true,
            ..Entrance::default()
        }],
        methods: Method::list(methods).expect("the test wrote it right"),
        acl: Some(Arc::new(Acl::parse(acl).expect("the test wrote it right"))),
        ..GuardOptions::default()
    })
}

/// Everybody is nobody in particular, and these rules hold.
fn under(acl: &str, scenario: impl Fn(&Broker)) {
    let options = options(acl, "");
    on_shards_under(|| Guard::new(Arc::clone(&options), 0), scenario);
}

/// All shards get other rules.
fn change(broker: &Broker, acl: &str) {
    let options = options(acl, "");
    broker
        .world()
        .replace_policy(|| Box::new(Guard::new(Arc::clone(&options), 0)));
}

/// Puts the answer to the question that a CONNECT raised.
fn answer(broker: &Broker, decision: Decision) {
    let (at, question) = broker.world().questions.remove(0);
    broker.world().answer(at, question.ticket, decision);
    broker.settle();
}

fn denied(broker: &Broker) -> [u64; 4] {
    broker.stats().denied
}

/// A filter that reaches further than the rules brings what they allow: live, retained, through a shared
/// group and from the queue.
#[test]
fn a_wide_subscription_brings_what_the_rules_allow() {
    under("topic read a/1\ntopic write #\n", |broker| {
        let mut publisher = broker.connect(v5("publisher"));
        for topic in ["a/1", "a/secret", "b"] {
            publisher.publish(&message(topic, "kept").qos(1).retain());
        }
        for options in [v5("reader").kept(), v3("old").kept()] {
            let mut reader = broker.connect(options.clone());
            reader.subscribe(sub("#").qos(1));
            assert_eq!(reader.payloads(), ["kept"]);
            for topic in ["a/1", "a/secret", "b"] {
                publisher.publish(&message(topic, topic).qos(1));
                publisher.publish(&message(topic, topic));
            }
            assert_eq!(reader.payloads(), ["a/1", "a/1"]);
            reader.cut();
            for topic in ["a/1", "a/secret", "b"] {
                publisher.publish(&message(topic, "later").qos(1));
            }
            let mut reader = broker.connect(options.resume());
            assert_eq!(reader.payloads(), ["later"]);
            reader.unsubscribe(&["#"]);
            assert_eq!(reader.subscribe_all(&[sub("$share/g/#").qos(1)]), [1]);
            publisher.publish(&message("a/1", "shared").qos(1));
            publisher.publish(&message("a/secret", "shared").qos(1));
            assert_eq!(reader.payloads(), ["shared"]);
            reader.disconnect();
        }
        let [publish, subscribe, will, deliver] = denied(broker);
        assert_eq!((publish, subscribe, will), (0, 0, 0));
        assert!(deliver > 0);
    });
}

/// What a filter could never bring is denied, `$share` or not [MQTT-3.9.3-2 3.1.1].
#[test]
fn a_subscription_that_could_bring_nothing_is_denied() {
    under("topic read a/#\n", |broker| {
        let subs = [
            sub("a/+/x"),
            sub("b/#"),
            sub("$share/g/b"),
            sub("#"),
            sub("$SYS/#"),
        ];
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.subscribe_all(&subs), [0, 0x87, 0x87, 0, 0x87]);
        let mut old = broker.connect(v3("old"));
        assert_eq!(old.subscribe_all(&subs), [0, 0x80, 0x80, 0, 0x80]);
        assert_eq!(denied(broker), [0, 6, 0, 0]);
    });
}

/// Denied messages of QoS 0 are counted too, a run of them as many as it is; a will as well.
#[test]
fn what_is_denied_is_counted() {
    under("topic read #\n", |broker| {
        let mut reader = broker.connect(v5("reader"));
        reader.subscribe(sub("#"));
        let mut client = broker.connect(v5("client").will(message("will", "x")));
        let run: Vec<u8> = (0..50)
            .flat_map(|number| message("t", format!("{number:02}")).encode(client.version()))
            .collect();
        client.send_bytes(&run);
        client.publish(&message("t", "x").qos(1));
        client.cut();
        reader.expect_nothing();
        assert_eq!(denied(broker), [51, 0, 1, 0]);
    });
}

/// 3.1.1 cannot be told; where so configured it is cut off.
#[test]
fn an_old_client_may_be_cut_off() {
    let mut strict = Arc::unwrap_or_clone(options("topic read #\n", ""));
    strict.disconnects_denied = true;
    let strict = Arc::new(strict);
    on_shards_under(
        || Guard::new(Arc::clone(&strict), 0),
        |broker| {
            for qos in 0..=2 {
                let mut old = broker.connect(v3("old"));
                old.send_publish(&message("t", "x").qos(qos).id(1));
                old.expect_closed();
                let mut new = broker.connect(v5("new"));
                new.send_publish(&message("t", "x").qos(qos).id(1));
                new.ping();
            }
        },
    );
}

/// Rules that change hold at once: for subscriptions that were made, for messages that wait, for what is
/// published; and back again.
#[test]
fn rules_change_under_clients_that_are_in() {
    const OPEN: &str = "topic #\n";
    const CLOSED: &str = "topic a\n";
    under(OPEN, |broker| {
        let mut away = broker.connect(v5("away").kept());
        away.subscribe(sub("#").qos(1));
        away.cut();
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("+").qos(1));
        for topic in ["a", "b"] {
            client.publish(&message(topic, topic).qos(1));
        }
        assert_eq!(client.payloads(), ["a", "b"]);
        change(broker, CLOSED);
        assert_eq!(
            client.publish(&message("b", "x").qos(1)),
            ReasonCode::NotAuthorized
        );
        client.publish(&message("a", "again").qos(1));
        assert_eq!(client.payloads(), ["again"]);
        let mut away = broker.connect(v5("away").resume());
        assert_eq!(away.payloads(), ["a", "again"]);
        assert_eq!(broker.dropped(DropReason::NotAuthorized), 1);
        change(broker, OPEN);
        client.publish(&message("b", "back").qos(1));
        assert_eq!(client.payloads(), ["back"]);
        assert_eq!(away.payloads(), ["back"]);
    });
}

/// What a client was shown to be ends with its connection; a will stays who made it.
#[test]
fn a_grant_holds_from_one_connect_to_the_next() {
    let acl = "user anna\ntopic anna/#\nuser bob\ntopic bob/#\n";
    let options = options(acl, "password");
    on_shards_under(
        || Guard::new(Arc::clone(&options), 0),
        |broker| {
            let dial = |options: Options, user: &str| {
                let client = broker.dial(options.credentials(user, "pw"));
                answer(
                    broker,
                    Decision::AllowAs(Box::new(Grant {
                        username: Some(user.into()),
                        ..Grant::default()
                    })),
                );
                client
            };
            let mut bob = dial(v5("bob"), "bob");
            assert!(matches!(bob.next(), Some(Received::ConnAck(_))));
            bob.subscribe(sub("bob/#"));
            let with_will = v5("client").kept().will(message("anna/will", "x"));
            let mut anna = dial(with_will, "anna");
            assert!(matches!(anna.next(), Some(Received::ConnAck(_))));
            assert_eq!(
                anna.subscribe_all(&[sub("anna/#"), sub("bob/#")]),
                [0, 0x87]
            );
            anna.cut();
            assert_eq!(broker.stats().wills_published, 1);
            // Somebody else cannot have the session while it lasts.
            let mut thief = dial(v5("client"), "bob");
            thief.expect_packet(Received::ConnAck(crate::packets::Welcome {
                reason: ReasonCode::NotAuthorized,
                ..crate::packets::Welcome::default()
            }));
            let mut again = dial(v5("client").resume(), "anna");
            assert!(matches!(
                again.next(),
                Some(Received::ConnAck(welcome)) if welcome.session_present
            ));
        },
    );
}

/// The connection ends when what let the client in does, whatever its Keep Alive.
#[test]
fn a_connection_ends_with_its_token() {
    let options = options("topic #\n", "password");
    on_shards_under(
        || Guard::new(Arc::clone(&options), 0),
        |broker| {
            for keep_alive in [0, 20] {
                for options in [v5("new"), v3("old")] {
                    let v5 = options.version.is_v5();
                    let options = options.keep_alive(keep_alive).credentials("anna", "token");
                    let mut client = broker.dial(options);
                    let grant = Grant {
                        lifetime: Some(60),
                        ..Grant::default()
                    };
                    answer(broker, Decision::AllowAs(Box::new(grant)));
                    assert!(matches!(client.next(), Some(Received::ConnAck(_))));
                    for _ in 0..5 {
                        broker.advance(11.9);
                        client.ping();
                    }
                    broker.advance(0.6);
                    if v5 {
                        client.expect_end(ReasonCode::MaximumConnectTime);
                    } else {
                        client.expect_closed();
                    }
                }
            }
        },
    );
}
