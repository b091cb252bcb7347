//! Who may come in, and who may do what: the answers of a policy, quick and slow.

use shardmq::policy::{Client as Asking, Credentials, Decision, Policy, Reach};
use shardmq::shard::Question;
use shardmq::topic::{Name, Subscription};
use shardmq::wire::ReasonCode;

use crate::client::{Broker, Client, Options, on_shards_under, v3, v5};
use crate::packets::{Received, Welcome, message, sub};

/// `slow` clients are asked about elsewhere, `bad` ones are not let in; `secret/` is closed.
struct Guard;

impl Policy for Guard {
    fn connect(&mut self, credentials: &Credentials<'_>) -> Decision {
        match credentials.username {
            Some("slow") => Decision::Pending,
            Some("bad") => Decision::Deny(ReasonCode::BadUserNameOrPassword),
            Some("banned") => Decision::Deny(ReasonCode::Banned),
            Some("me") if credentials.password != Some(b"secret") => {
                Decision::Deny(ReasonCode::NotAuthorized)
            }
            _ => Decision::Allow,
        }
    }

    fn publish(&mut self, client: &Asking<'_>, topic: Name<'_>) -> bool {
        client.client_id == "chief" || !topic.as_str().starts_with("secret/")
    }

    fn subscribe(&mut self, client: &Asking<'_>, subscription: Subscription<'_>) -> Reach {
        let closed = subscription.filter.as_str().starts_with("secret/");
        if closed && client.client_id != "chief" {
            Reach::Nothing
        } else {
            Reach::All
        }
    }
}

fn guarded(scenario: impl Fn(&Broker)) {
    on_shards_under(|| Guard, scenario);
}

/// [MQTT-3.1.4-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-4 3.1.1] [MQTT-3.2.2-5 3.1.1]: who may not come in is
/// told why, in the words of its version.
#[test]
fn who_may_not_come_in_is_told_so() {
    guarded(|broker| {
        for (user, reason, old) in [
            (
                "bad",
                ReasonCode::BadUserNameOrPassword,
                ReasonCode::BadUserNameOrPassword,
            ),
            ("banned", ReasonCode::Banned, ReasonCode::NotAuthorized),
            ("me", ReasonCode::NotAuthorized, ReasonCode::NotAuthorized),
        ] {
            let wrong = |options: Options| options.credentials(user, "wrong");
            broker.expect_refused(wrong(v5("client")), reason);
            broker.expect_refused(wrong(v3("client")), old);
        }
        broker
            .connect(v5("client").credentials("me", "secret"))
            .disconnect();
        assert_eq!(
            (
                broker.stats().connects_refused.iter().sum::<u64>(),
                broker.stats().sessions
            ),
            (6, 0)
        );
    });
}

/// A client that is refused takes no session over.
#[test]
fn a_refused_client_takes_nothing_over() {
    guarded(|broker| {
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("door"));
        let thief = v5("client").credentials("bad", "");
        broker.expect_refused(thief, ReasonCode::BadUserNameOrPassword);
        client.publish(&message("door", "open"));
        client.expect(&message("door", "open"));
    });
}

/// [MQTT-3.3.5-2 3.1.1]: a PUBLISH that is denied: 0x87, or in 3.1.1 acknowledged; nobody gets it, nor is
/// it retained, nor as a will. The identifier of a denied QoS 2 message is free [MQTT-4.3.3-9].
#[test]
fn a_publish_can_be_denied() {
    guarded(|broker| {
        let mut chief = broker.connect(v5("chief"));
        chief.subscribe(sub("#").qos(2));
        let secret = |qos| message("secret/plan", "x").qos(qos).retain();
        let mut client = broker.connect(v5("client").will(secret(1)));
        client.publish(&secret(0));
        assert_eq!(client.publish(&secret(1)), ReasonCode::NotAuthorized);
        assert_eq!(client.publish(&secret(2).id(9)), ReasonCode::NotAuthorized);
        assert_eq!(
            client.publish(&message("open", "y").qos(2).id(9)),
            ReasonCode::Success
        );
        chief.expect(&message("open", "y").qos(2));
        client.cut();
        let mut old = broker.connect(v3("old"));
        for qos in 0..=2 {
            assert_eq!(old.publish(&secret(qos)), ReasonCode::Success);
        }
        old.ping();
        chief.expect_nothing();
        assert_eq!(broker.stats().retained, 0);
        chief.publish(&secret(1));
        assert_eq!(broker.stats().retained, 1);
    });
}

/// An alias is no way around it.
#[test]
fn an_alias_is_no_way_around() {
    guarded(|broker| {
        let mut client = broker.connect(v5("client"));
        let hidden = message("secret/plan", "x").qos(1).alias(1);
        assert_eq!(client.publish(&hidden), ReasonCode::NotAuthorized);
        let again = message("", "x").qos(1).alias(1);
        assert_eq!(client.publish(&again), ReasonCode::NotAuthorized);
    });
}

/// A SUBSCRIBE is denied filter by filter: 0x87, in 3.1.1 0x80 [MQTT-3.9.3-2 3.1.1]; `$share` is no way
/// around it.
#[test]
fn a_subscribe_can_be_denied() {
    guarded(|broker| {
        let subs = [
            sub("a").qos(1),
            sub("secret/plan"),
            sub("$share/g/secret/plan"),
            sub("b").qos(2),
        ];
        let mut client = broker.connect(v5("client"));
        assert_eq!(client.subscribe_all(&subs), [1, 0x87, 0x87, 2]);
        let mut old = broker.connect(v3("old"));
        assert_eq!(old.subscribe_all(&subs), [1, 0x80, 0x80, 2]);
        let mut chief = broker.connect(v5("chief"));
        chief.publish(&message("secret/plan", "x").retain());
        client.expect_nothing();
        old.expect_nothing();
    });
}

fn question(broker: &Broker) -> (usize, Question) {
    let mut world = broker.world();
    assert_eq!(world.questions.len(), 1);
    world.questions.remove(0)
}

fn slow(client_id: &str) -> Options {
    v5(client_id).credentials("slow", "pw")
}

/// While somebody slower is asked, nothing is answered; what is pipelined behind CONNECT waits and
/// comes in its order.
#[test]
fn packets_wait_behind_a_connect_that_is_asked_about() {
    guarded(|broker| {
        for shard in 0..broker.shards() {
            let mut listener = broker.connect(v5("listener"));
            listener.subscribe(sub("door").qos(1));
            let mut client = broker.push_connect(slow("client").at(shard));
            client.push_publish(&message("door", "1").qos(1).id(1));
            broker.settle();
            client.push_publish(&message("door", "2").qos(1).id(2));
            broker.settle();
            client.expect_nothing();
            listener.expect_nothing();
            let (at, question) = question(broker);
            assert_eq!(&*question.client_id, "client");
            assert_eq!(question.username.as_deref(), Some("slow"));
            assert_eq!(question.password.as_deref(), Some(&b"pw"[..]));
            broker.world().answer(at, question.ticket, Decision::Allow);
            broker.settle();
            assert!(matches!(client.next(), Some(Received::ConnAck(_))));
            client.expect_packet(Received::PubAck(1, ReasonCode::Success));
            client.expect_packet(Received::PubAck(2, ReasonCode::Success));
            assert_eq!(listener.payloads(), ["1", "2"]);
            client.disconnect();
        }
    });
}

/// [MQTT-3.1.4-6]: if the answer is no, nothing of it is processed.
#[test]
fn packets_behind_a_connect_that_is_denied_later_are_lost() {
    guarded(|broker| {
        let mut listener = broker.connect(v5("listener"));
        listener.subscribe(sub("#"));
        let options = slow("client").will(message("will", "w"));
        let mut client = broker.push_connect(options);
        client.push_publish(&message("door", "1").qos(1).id(1));
        broker.settle();
        let (at, question) = question(broker);
        let reason = ReasonCode::NotAuthorized;
        broker
            .world()
            .answer(at, question.ticket, Decision::Deny(reason));
        broker.settle();
        client.expect_packet(Received::ConnAck(Welcome {
            reason,
            ..Welcome::default()
        }));
        client.expect_closed();
        listener.expect_nothing();
    });
}

/// An answer for a client that is gone, or that waited too long, does nothing; nor does a second one.
#[test]
fn a_late_answer_does_nothing() {
    guarded(|broker| {
        let mut gone = broker.dial(slow("client"));
        let (at, first) = question(broker);
        gone.cut();
        broker.world().answer(at, first.ticket, Decision::Allow);
        let mut late = broker.dial(slow("client"));
        let (at, second) = question(broker);
        broker.world().answer(at, first.ticket, Decision::Allow);
        late.expect_nothing();
        broker.advance(10.1);
        late.expect_closed();
        broker.world().answer(at, second.ticket, Decision::Allow);
        broker.settle();
        assert_eq!(
            (broker.stats().sessions, broker.stats().connections),
            (0, 0)
        );
    });
}

/// Two connections of one client may be asked about at once; the later answer takes over.
#[test]
fn two_answers_for_one_client_leave_one_connection() {
    guarded(|broker| {
        let mut first = broker.dial(slow("client").at(0));
        let (at, first_question) = question(broker);
        let mut second = broker.dial(slow("client").at(1));
        let (_, second_question) = question(broker);
        broker
            .world()
            .answer(at, second_question.ticket, Decision::Allow);
        broker
            .world()
            .answer(at, first_question.ticket, Decision::Allow);
        broker.settle();
        let accepted = |client: &mut Client| matches!(client.next(), Some(Received::ConnAck(_)));
        assert!(accepted(&mut first) && accepted(&mut second));
        second.expect_end(ReasonCode::SessionTakenOver);
        first.ping();
        assert_eq!(broker.stats().sessions, 1);
    });
}

/// Who is asked about gets the client id that he was asked about under.
#[test]
fn an_assigned_client_id_is_asked_about_once() {
    guarded(|broker| {
        let mut client = broker.dial(slow(""));
        let (at, question) = question(broker);
        broker.world().answer(at, question.ticket, Decision::Allow);
        broker.settle();
        let Some(Received::ConnAck(welcome)) = client.next() else {
            panic!("no CONNACK")
        };
        assert_eq!(welcome.assigned.as_deref(), Some(&*question.client_id));
    });
}
