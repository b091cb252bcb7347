//! Topic names and filters, section 4.7.

use shardmq::wire::ReasonCode;

use crate::client::{both, on_shards, v3, v5};
use crate::packets::{message, sub};

/// [MQTT-3.3.2-3] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-3.3.2-3 3.1.1] [MQTT-4.7.1-2 3.1.1] [MQTT-4.7.1-3 3.1.1]: the
/// examples of the standard, and more, live and retained.
#[test]
fn filters_match_as_the_standard_says() {
    let matching: &[(&str, &[&str], &[&str])] = &[
        (
            "sport/#",
            &["sport", "sport/", "sport/tennis/player1"],
            &["sports", "Sport", "/sport"],
        ),
        (
            "#",
            &["a", "/a", "a//b", "/", "ünï/код/日本"],
            &["$SYS/a", "$a"],
        ),
        ("+", &["a", "finance"], &["/a", "a/", "a/b", "$a"]),
        (
            "+/+",
            &["/finance", "a/", "a/b", "/"],
            &["a", "a/b/c", "$a/b"],
        ),
        ("/+", &["/finance", "/"], &["finance", "/a/b"]),
        ("a/+/c", &["a//c", "a/b/c"], &["a/c", "a/b/d/c", "a/b/c/"]),
        (
            "sport/tennis/+",
            &["sport/tennis/", "sport/tennis/p"],
            &["sport/tennis"],
        ),
        (
            "+/tennis/#",
            &["a/tennis", "/tennis", "a/tennis/b/c"],
            &["tennis", "$a/tennis"],
        ),
        ("$SYS/#", &["$SYS", "$SYS/a"], &["SYS", "$sys/a"]),
        ("$a/+", &["$a/b"], &["$a", "$b/b"]),
        ("a", &["a"], &["/a", "a/", "A", " a"]),
        ("ünï/+", &["ünï/код"], &["uni/код"]),
    ];
    on_shards(|broker| {
        for options in both("client") {
            // `$SYS` is the broker's; other names with `$` are anybody's.
            let mut publisher = broker.connect(v5("publisher"));
            let mut client = broker.connect(options);
            for (filter, matches, others) in matching {
                client.subscribe(sub(filter));
                for topic in *others {
                    publisher.publish(&message(topic, "x").retain());
                }
                client.expect_nothing();
                for topic in *matches {
                    publisher.publish(&message(topic, "x").retain());
                    if !topic.starts_with("$SYS") {
                        client.expect(&message(topic, "x"));
                    }
                }
                client.unsubscribe(&[filter]);
                client.subscribe(sub(filter));
                let mut topics: Vec<_> = client
                    .messages()
                    .into_iter()
                    .map(|message| message.topic)
                    .collect();
                let mut expected: Vec<_> = matches.to_vec();
                expected.retain(|topic| !topic.starts_with("$SYS"));
                topics.sort();
                expected.sort_unstable();
                assert_eq!(topics, expected, "retained on {filter}");
                client.unsubscribe(&[filter]);
                for topic in matches.iter().chain(*others) {
                    publisher.publish(&message(topic, "").retain());
                }
            }
        }
    });
}

/// [MQTT-4.7.2-1] [MQTT-4.7.2-1 3.1.1]: no leading wildcard matches a name that begins with `$`, also behind
/// `$share`.
#[test]
fn leading_wildcards_leave_dollar_topics_out() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            let subs = [
                "#",
                "+/monitor",
                "$share/g/#",
                "$share/g/+/monitor",
                "$share/g/+/+",
            ];
            assert_eq!(client.subscribe_all(&subs.map(sub)), [0; 5]);
            client.publish(&message("$own/monitor", "x"));
            client.expect_nothing();
            client.subscribe(sub("$share/h/$own/#"));
            client.subscribe(sub("$own/monitor"));
            client.publish(&message("$own/monitor", "y"));
            assert_eq!(client.payloads(), ["y", "y"]);
            client.disconnect();
        }
    });
}

/// [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]: filters that are none are answered 0x8F, the others of the
/// same SUBSCRIBE are granted. [MQTT-4.7.1-2 3.1.1] [MQTT-4.7.1-3 3.1.1] [MQTT-4.7.3-1 3.1.1]
#[test]
fn invalid_filters_are_refused_one_by_one() {
    let invalid = [
        "sport+",
        "sport/tennis#",
        "sport/#/ranking",
        "##",
        "#/",
        "+a/b",
        "a/b+/c",
        "$share/g",
        "$share/g/",
        "$share//x",
        "$share/a+b/x",
        "$share/a#/x",
        "$share/g/a#",
    ];
    on_shards(|broker| {
        for (options, code) in [(v5("client"), 0x8F), (v3("client"), 0x80)] {
            let mut client = broker.connect(options);
            for filter in invalid {
                let codes = client.subscribe_all(&[sub("a"), sub(filter), sub("b").qos(1)]);
                assert_eq!(codes, [0, code, 1], "{filter}");
            }
            client.publish(&message("a", "x"));
            client.expect(&message("a", "x"));
        }
    });
}

/// [MQTT-4.7.0-1] [MQTT-3.3.2-2] [MQTT-4.7.1-1 3.1.1] [MQTT-3.3.2-2 3.1.1]: a topic name has no wildcard.
#[test]
fn a_topic_name_has_no_wildcard() {
    on_shards(|broker| {
        for options in both("client") {
            for topic in ["a/#", "#", "a/+/b", "a+", "b#c"] {
                let mut client = broker.connect(options.clone());
                client.send_publish(&message(topic, "x").qos(1).id(1));
                client.expect_end(ReasonCode::TopicNameInvalid);
            }
        }
    });
}

/// [MQTT-4.7.3-4] [MQTT-4.7.3-4 3.1.1] [MQTT-1.5.4-3] [MQTT-1.5.3-3 3.1.1]: names are compared byte by byte: no
/// case folding, no normalisation, and U+FEFF stays.
#[test]
fn names_are_not_normalised() {
    on_shards(|broker| {
        for options in both("client") {
            let mut client = broker.connect(options);
            client.subscribe(sub("caf\u{e9}"));
            client.subscribe(sub("\u{feff}door"));
            for topic in ["cafe\u{301}", "CAF\u{c9}", "door", "door\u{feff}"] {
                client.publish(&message(topic, "x"));
            }
            client.expect_nothing();
            for topic in ["caf\u{e9}", "\u{feff}door"] {
                client.publish(&message(topic, "x"));
                client.expect(&message(topic, "x"));
            }
        }
    });
}

/// [MQTT-3.3.5-2 3.1.1]: only the broker publishes to `$SYS`. A client that tries is told 0x87 in version
/// 5, and acknowledged in 3.1.1; nobody gets it, and it is not retained.
#[test]
fn clients_do_not_publish_to_sys() {
    on_shards(|broker| {
        let mut watcher = broker.connect(v5("watcher"));
        watcher.subscribe(sub("$SYS/#"));
        let mut client = broker.connect(v5("client"));
        let forged = |qos| message("$SYS/broker/version", "mine").qos(qos).retain();
        client.publish(&forged(0));
        assert_eq!(client.publish(&forged(1)), ReasonCode::NotAuthorized);
        assert_eq!(client.publish(&forged(2)), ReasonCode::NotAuthorized);
        let mut client = broker.connect(v3("client").will(forged(1)));
        assert_eq!(client.publish(&forged(1)), ReasonCode::Success);
        assert_eq!(client.publish(&forged(2)), ReasonCode::Success);
        client.cut();
        watcher.expect_nothing();
        assert_eq!(broker.stats().retained, 0);
    });
}

/// A topic of many levels is served up to the bound and refused above it, without harm.
#[test]
fn very_deep_topics_do_no_harm() {
    on_shards(|broker| {
        let deepest = vec!["a"; shardmq::limits::MAX_TOPIC_LEVELS].join("/");
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub(&deepest));
        client.subscribe(sub("a/#").qos(1));
        client.publish(&message(&deepest, "x").qos(1));
        client.expect(&message(&deepest, "x").qos(1));
        assert_eq!(
            client.subscribe_all(&[sub(&format!("{deepest}/a"))]),
            [0x8F]
        );
        client.send_publish(&message(&"/".repeat(60_000), "x"));
        client.expect_end(ReasonCode::TopicNameInvalid);
    });
}
