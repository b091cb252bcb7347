//! Mount points: tenants that share a broker, each with topics of its own.

use std::sync::Arc;

use shardmq::policy::{Acl, Decision, Entrance, Grant, Guard, GuardOptions, Method, MountPoint};
use shardmq::shard::{ListenerSettings, Settings};
use shardmq::stats::Denied;
use shardmq::wire::ReasonCode;

use crate::client::{Broker, Options, both, on_shards_with, settings, v3, v5};
use crate::packets::{Received, message, sub};

/// Listeners: in the open, in `a/`, in `b/`, and in one's own client id.
fn mounted() -> Settings {
    let listener = |mount: &str| ListenerSettings {
        mount_point: MountPoint::parse(mount).ok(),
        ..ListenerSettings::default()
    };
    Settings {
        listeners: ["", "a/", "b/", "own/%c/"].map(listener).to_vec(),
        ..settings()
    }
}

const OPEN: u16 = 0;
const A: u16 = 1;
const B: u16 = 2;
const OWN: u16 = 3;

fn tenants(scenario: impl Fn(&Broker)) {
    on_shards_with(&mounted(), scenario);
}

/// What a tenant publishes, whatever its QoS, it gets by the names that it knows; its neighbour gets nothing
/// of it, and who is in the open sees where it is.
#[test]
fn a_tenant_sees_its_own_topics_alone() {
    tenants(|broker| {
        let mut open = broker.connect(v5("open"));
        open.subscribe(sub("#").qos(2));
        let mut neighbour = broker.connect(v5("neighbour").by(B));
        neighbour.subscribe(sub("#").qos(2));
        for (number, options) in both("reader").into_iter().enumerate() {
            let mut reader = broker.connect(options.by(A));
            for filter in ["#", "+/x", "/rooted"] {
                reader.subscribe(sub(filter).qos(2));
                let topic = if filter == "/rooted" {
                    "/rooted"
                } else {
                    "t/x"
                };
                for writer in both("writer") {
                    let mut writer = broker.connect(writer.by(A));
                    for qos in 0..=2 {
                        let sent = message(topic, "hello").qos(qos);
                        writer.publish(&sent);
                        reader.expect(&sent);
                        open.expect(&message(&format!("a/{topic}"), "hello").qos(qos));
                    }
                    writer.disconnect();
                }
                assert_eq!(
                    reader.unsubscribe(&[filter]).len(),
                    usize::from(number == 0)
                );
                open.publish(&message("a/t/x", "unheard"));
                reader.expect_nothing();
                open.expect(&message("a/t/x", "unheard"));
            }
            reader.disconnect();
        }
        neighbour.expect_nothing();
        // From the open into a tenant.
        open.publish(&message("b/t", "hello").qos(1));
        neighbour.expect(&message("t", "hello").qos(1));
    });
}

/// Many packets of one topic in one read are taken one by one, and none is lost.
#[test]
fn a_run_of_messages_stays_in_its_mount() {
    tenants(|broker| {
        let mut open = broker.connect(v5("open"));
        open.subscribe(sub("a/#").qos(1));
        let mut reader = broker.connect(v5("reader").by(A));
        reader.subscribe(sub("t").qos(1));
        let mut other = broker.connect(v3("other").by(A));
        other.subscribe(sub("#"));
        for (qos, from) in [(0, A), (1, A), (0, OPEN), (1, OPEN)] {
            let mut writer = broker.connect(v5("writer").by(from));
            let topic = if from == A { "t" } else { "a/t" };
            let run: Vec<u8> = (1..=40)
                .flat_map(|id| {
                    let one = message(topic, format!("{id:02}")).qos(qos);
                    let one = if qos > 0 { one.id(id) } else { one };
                    one.encode(writer.version())
                })
                .collect();
            writer.send_bytes(&run);
            let expected: Vec<String> = (1..=40).map(|id| format!("{id:02}")).collect();
            for (client, topic) in [(&mut open, "a/t"), (&mut reader, "t"), (&mut other, "t")] {
                let came = client.messages();
                assert!(
                    came.iter().all(|message| message.topic == topic),
                    "{qos} {from}"
                );
                let payloads: Vec<String> = came
                    .iter()
                    .map(|message| String::from_utf8_lossy(&message.payload.0).into_owned())
                    .collect();
                assert_eq!(payloads, expected);
            }
            writer.disconnect();
        }
    });
}

/// Retained messages, wills, shared groups, aliases and what waits for who is away.
#[test]
fn everything_else_stays_in_its_mount_too() {
    tenants(|broker| {
        let mut open = broker.connect(v5("open"));
        open.subscribe(sub("+/#").qos(1).retain_as_published());
        let kept = message("state", "kept").qos(1).retain();
        let will = message("gone", "will").qos(1).retain();
        for tenant in [A, B] {
            let name = if tenant == A { "a" } else { "b" };
            let payload = format!("of {name}");
            let mut writer = broker.connect(
                v5(&format!("writer-{name}"))
                    .by(tenant)
                    .will(message("gone", &payload).qos(1).retain()),
            );
            writer.publish(&message("state", &payload).qos(1).retain().alias(1));
            writer.publish(&message("", &payload).qos(1).retain().alias(1));
            writer.cut();
            let topics: Vec<String> = open
                .messages()
                .into_iter()
                .map(|message| message.topic)
                .collect();
            let of = |topic: &str| format!("{name}/{topic}");
            assert_eq!(topics, [of("state"), of("state"), of("gone")]);
        }
        for (tenant, payload) in [(A, "of a"), (B, "of b")] {
            let mut late = broker.connect(v5("late").by(tenant).aliases(5));
            late.subscribe(sub("#").qos(1));
            let mut came = late.messages();
            came.sort_by(|one, other| one.topic.cmp(&other.topic));
            let topics: Vec<&str> = came.iter().map(|message| &*message.topic).collect();
            assert_eq!(topics, [&*will.topic, &*kept.topic]);
            assert!(
                came.iter()
                    .all(|message| message.payload.0 == payload.as_bytes())
            );
            late.disconnect();
        }
        let mut members = [A, B, B].map(|tenant| broker.connect(v5("").by(tenant)));
        for member in &mut members {
            member.subscribe(sub("$share/g/work").qos(1));
        }
        let mut writer = broker.connect(v5("writer").by(A));
        for _ in 0..6 {
            writer.publish(&message("work", "x").qos(1));
        }
        let counts = members.each_mut().map(|member| member.payloads().len());
        assert_eq!(counts, [6, 0, 0]);
        assert_eq!(members[0].unsubscribe(&["$share/g/work"]), [0]);
        writer.publish(&message("work", "nobody").qos(1));
        members[0].expect_nothing();
        for options in both("away") {
            let mut away = broker.connect(options.clone().kept().by(A));
            away.subscribe(sub("queue/+").qos(2));
            away.cut();
            writer.publish(&message("queue/1", "waits").qos(2));
            let mut away = broker.connect(options.clone().resume().by(A));
            assert!(away.welcome.session_present);
            away.expect(&message("queue/1", "waits").qos(2));
            away.disconnect();
            broker.connect(options.by(A)).disconnect();
        }
    });
}

/// No `$`-topic is within reach, and nothing that would have no name.
#[test]
fn a_tenant_has_no_topics_of_the_broker() {
    tenants(|broker| {
        let mut tenant = broker.connect(v5("tenant").by(A));
        tenant.subscribe(sub("#").qos(1));
        let denied = ReasonCode::NotAuthorized;
        assert_eq!(tenant.publish(&message("$SYS/x", "x").qos(1)), denied);
        assert_eq!(tenant.publish(&message("$x", "x").qos(1)), denied);
        let filters = ["$SYS/#", "$x", "$share/g/$SYS/#", "$share/g/", "$share/g"].map(sub);
        assert_eq!(
            tenant.subscribe_all(&filters),
            [0x87, 0x87, 0x87, 0x8F, 0x8F]
        );
        let mut open = broker.connect(v5("open"));
        for topic in ["a", "a/", "a/$SYS/x", "ab", "$SYS"] {
            open.publish(&message(topic, "x").qos(1));
        }
        tenant.expect_nothing();
        assert_eq!(broker.stats().denied[Denied::Publish as usize], 3);
        let mut doomed = broker.connect(v5("doomed").by(A).will(message("$SYS/x", "x")));
        doomed.cut();
        assert_eq!(broker.stats().wills_published, 0);
    });
}

/// A client with a mount of its own client id, which has to be a level.
#[test]
fn a_name_in_a_mount_is_the_clients() {
    tenants(|broker| {
        let mut open = broker.connect(v5("open"));
        open.subscribe(sub("own/#"));
        let mut one = broker.connect(v5("one").by(OWN));
        one.publish(&message("t", "x"));
        open.expect(&message("own/one/t", "x"));
        for bad in ["a/b", "+", "#"] {
            broker.expect_refused(v5(bad).by(OWN), ReasonCode::NotAuthorized);
            broker.expect_refused(v3(bad).by(OWN), ReasonCode::NotAuthorized);
        }
        let assigned = broker.connect(v5("").by(OWN));
        assert!(assigned.welcome.assigned.is_some());
    });
}

/// With another mount a session would mean something else: it begins anew.
#[test]
fn a_session_stays_in_its_mount() {
    tenants(|broker| {
        let mut client = broker.connect(v5("client").kept().by(A));
        client.subscribe(sub("t").qos(1));
        client.cut();
        let mut open = broker.connect(v5("open"));
        open.publish(&message("a/t", "secret").qos(1));
        for other in [B, OPEN, OWN] {
            let mut client = broker.connect(v5("client").kept().by(other));
            assert!(!client.welcome.session_present);
            client.expect_nothing();
            client.cut();
        }
    });
}

/// The bounds are those of the whole topic.
#[test]
fn the_whole_topic_is_measured() {
    let mut settings = mounted();
    settings.limits.max_topic_bytes = 10;
    settings.limits.max_topic_levels = 3;
    on_shards_with(&settings, |broker| {
        let mut client = broker.connect(v5("client").by(A));
        let fits = |client: &mut crate::client::Client, topic: &str| {
            client.publish(&message(topic, "x").qos(1)) != ReasonCode::TopicNameInvalid
        };
        assert!(fits(&mut client, "12345678") && !fits(&mut client, "123456789"));
        assert!(fits(&mut client, "1/2") && !fits(&mut client, "1/2/3"));
        let filters = ["12345678", "123456789", "1/#", "1/2/#"].map(sub);
        assert_eq!(client.subscribe_all(&filters), [0, 0x8F, 0, 0x8F]);
        let will = |topic: &str| v5("other").by(A).will(message(topic, "x"));
        broker.connect(will("12345678")).disconnect();
        broker.expect_refused(will("123456789"), ReasonCode::TopicNameInvalid);
    });
    tenants(|broker| {
        let deep = |levels: usize| vec!["x"; levels].join("/");
        let mut client = broker.connect(v5("client").by(A));
        client.publish(&message(&deep(127), "x").qos(1));
        assert_eq!(client.subscribe_all(&[sub(&deep(128))]), [0x8F]);
        client.send_publish(&message(&deep(128), "x").qos(1).id(9));
        client.expect_end(ReasonCode::TopicNameInvalid);
    });
}

/// Rules see the whole topic; a grant may bring a mount, which goes before that of the listener, and a user
/// name has to have been shown to be in one.
#[test]
fn rules_and_grants_speak_of_whole_topics() {
    let options = Arc::new(GuardOptions {
        entrances: vec![
            Entrance {
                anonymous: true,
                ..Entrance::default()
            };
            2
        ],
        methods: vec![Method::Password],
        acl: Some(Arc::new(
            Acl::parse("topic read a/open\nuser anna\ntopic a/#\ntopic deny a/closed\n")
                .expect("the test wrote it right"),
        )),
        ..GuardOptions::default()
    });
    let listener = |mount: &str| ListenerSettings {
        mount_point: MountPoint::parse(mount).ok(),
        ..ListenerSettings::default()
    };
    let settings = Settings {
        listeners: vec![listener("a/"), listener("users/%u/")],
        ..settings()
    };
    for shards in [1, 3] {
        let broker = Broker::guarded(shards, &settings, || Guard::new(Arc::clone(&options), 0));
        let dial = |options: Options, mount: Option<&str>| {
            let client = broker.dial(options.credentials("anna", "pw"));
            let grant = Grant {
                username: Some("anna".into()),
                mount_point: mount.and_then(|mount| MountPoint::parse(mount).ok()),
                ..Grant::default()
            };
            let (at, question) = broker.world().questions.remove(0);
            let decision = Decision::AllowAs(Box::new(grant));
            broker.world().answer(at, question.ticket, decision);
            broker.settle();
            client
        };
        let entered = |client: &mut crate::client::Client| {
            assert!(matches!(client.next(), Some(Received::ConnAck(_))));
        };
        let mut nobody = broker.connect(v5("nobody"));
        assert_eq!(
            nobody.subscribe_all(&[sub("open"), sub("closed"), sub("a/open")]),
            [0, 0x87, 0x87]
        );
        let mut anna = dial(v5("anna"), None);
        entered(&mut anna);
        assert_eq!(
            anna.publish(&message("closed", "x").qos(1)),
            ReasonCode::NotAuthorized
        );
        anna.publish(&message("open", "x").qos(1));
        nobody.expect(&message("open", "x"));
        let mut mounted = dial(v5("mounted").by(1), Some("a/"));
        entered(&mut mounted);
        mounted.publish(&message("open", "y").qos(1));
        nobody.expect(&message("open", "y"));
        let mut by_name = dial(v5("by-name").by(1), None);
        entered(&mut by_name);
        assert_eq!(
            by_name.publish(&message("open", "x").qos(1)),
            ReasonCode::NotAuthorized,
            "her rules say nothing of users/anna/"
        );
        broker.expect_refused(v5("nobody-2").by(1), ReasonCode::NotAuthorized);
    }
}
