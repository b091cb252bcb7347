use super::schema::{History, SECTIONS, Section};
use super::*;

fn errors(text: &str) -> Vec<String> {
    let errors = Config::parse(text, "a.toml").unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn error(text: &str) -> String {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.into_iter().next().unwrap()
}

fn env(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(None, pairs.collect::<Vec<_>>())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Every key with its section, in the order they are declared.
fn all_keys() -> Vec<(String, &'static Key)> {
    let top = Config::KEYS.iter().map(|key| (key.name.to_owned(), key));
    let sections = SECTIONS.iter().flat_map(|(section, keys)| {
        keys.iter()
            .map(move |key| (format!("{section}.{}", key.name), key))
    });
    let listener = Listener::KEYS
        .iter()
        .map(|key| (format!("listener.{}", key.name), key));
    top.chain(sections).chain(listener).collect()
}

#[test]
fn history_streams_are_read_printed_and_overridden() {
    let text = "[[history]]\nname = 'fleet'\nfilter = 'vehicle/+/telemetry'\nkeep = '2 h'\n\
                [[history]]\nfilter = '#'\nkeep_bytes = '5 MiB'\nbucket = 1\ninterval = '1 ms'\n";
    let config = Config::parse(text, "a.toml").unwrap();
    assert_eq!(config.history[0].keep, 7_200);
    assert_eq!(config.history[1].name, "history2");
    assert_eq!(
        (config.history[1].interval, config.history[1].bucket),
        (1_000, 1)
    );
    assert_eq!(Config::parse(&config.print(), "printed").unwrap(), config);
    for key in History::KEYS {
        let printed = Config::default().print();
        assert!(
            printed.contains(&format!("\n# {} = ", key.name)),
            "{}",
            key.name
        );
        for line in key.doc {
            assert!(printed.contains(line.trim()), "{line}");
        }
        let variable = format!("SHARDMQ__HISTORY__FLEET__{}", key.name.to_ascii_uppercase());
        let value = match key.name {
            "filter" => "a/b",
            "name" => "other",
            _ => "1 s",
        };
        let variables = [(variable, value.replace("1 s", "5000000"))];
        let changed = Config::load(Some((text, "a.toml")), variables).unwrap();
        assert_ne!(changed.history[0], config.history[0], "{}", key.name);
        assert_eq!(changed.history[1], config.history[1]);
    }
}

#[test]
fn a_history_stream_that_cannot_be_is_refused() {
    for (text, expected) in [
        ("[[history]]\nname = 'x'\n", "a.toml:1:1: `history.filter`:"),
        (
            "[[history]]\nfilter = 'a#'\n",
            "a.toml:2:10: `history.filter`: `a#` is no topic filter",
        ),
        (
            "[[history]]\nfilter = '$share/g/a'\n",
            "neither $share nor $history",
        ),
        ("[history]\nfilter = 'a'\n", "write [[history]]"),
        (
            "[[history]]\nfilter = 'a'\nkeep_days = 3\n",
            "unknown key `keep_days` in a [[history]] table",
        ),
        (
            "[[history]]\nname = 'a/b'\nfilter = 'a'\n",
            "`history.name`",
        ),
        (
            "[[history]]\nname = 'a'\nfilter = 'a'\n[[history]]\nname = 'A'\nfilter = 'b'\n",
            "a.toml:5:8: `history.name`:",
        ),
    ] {
        let told = error(text);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn nothing_is_a_configuration() {
    assert_eq!(Config::parse("", "a.toml").unwrap(), Config::default());
}

#[test]
fn what_is_printed_reads_back() {
    let printed = Config::default().print();
    assert_eq!(
        Config::parse(&printed, "printed").unwrap(),
        Config::default()
    );
    let text = "shards = 3\ndata_dir = ''\n[mqtt]\nmax_queued_bytes = '3 MiB'\n\
                max_session_expiry_interval = 90\nresponse_information = 'a\"%c\\'\n\
                [[listener]]\nbind = '[::]:1883'\n[[listener]]\nname = 'b'\nbind = '10.0.0.1:1'\n";
    let config = Config::parse(text, "a.toml").unwrap();
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(Config::parse(&config.print(), "printed").unwrap(), config);
}

#[test]
fn every_key_is_printed_with_its_documentation() {
    let printed = Config::default().print();
    for (full, key) in all_keys() {
        assert!(printed.contains(&format!("\n{} = ", key.name)), "{full}");
        for line in key.doc {
            assert!(printed.contains(line.trim()), "{full}: {line}");
        }
    }
    assert!(
        printed.lines().all(|line| line.chars().count() <= 100),
        "{printed}"
    );
}

#[test]
fn the_sample_file_is_what_is_printed() {
    let sample = include_str!("../../deploy/shardmq.toml");
    assert!(
        sample == Config::default().print(),
        "deploy/shardmq.toml is stale; write it again: shardmq print-config > deploy/shardmq.toml"
    );
}

#[test]
fn the_secured_example_is_right() {
    let config = Config::parse(include_str!("../../deploy/shardmq-secure.toml"), "secure");
    let config = config.unwrap();
    assert!(config.auth.is_configured());
    for listener in &config.listeners {
        assert!(!listener.lets_in_anybody(&config.auth) && !listener.is_closed(&config.auth));
    }
    let acl = crate::policy::Acl::parse(include_str!("../../deploy/acl.example")).unwrap();
    assert_eq!(acl.len(), 9);
}

#[test]
fn defaults_lie_within_their_bounds_and_bounds_within_their_type() {
    // A default out of bounds would not read back; here the ends of each number's bounds do too.
    for (full, key) in all_keys() {
        let Kind::Number(_, bounds) = key.kind else {
            continue;
        };
        assert!(bounds.least <= bounds.greatest, "{full}");
        for value in [bounds.least, bounds.greatest] {
            let (header, name) = match full.rsplit_once('.') {
                Some(("listener", name)) => ("[[listener]]\nbind = '127.0.0.1:0'\n".into(), name),
                Some((section, name)) => (format!("[{section}]\n"), name),
                None => (String::new(), full.as_str()),
            };
            let Err(errors) = Config::parse(&format!("{header}{name} = {value}\n"), "a") else {
                continue;
            };
            let conflict = errors.iter().all(|error| {
                matches!(
                    error.problem,
                    Problem::Conflict { .. } | Problem::NewerFormat { .. }
                )
            });
            assert!(conflict, "{full} = {value}: {errors:?}");
        }
    }
}

#[test]
fn an_address_may_be_off() {
    for off in ["''", "'off'"] {
        let config = Config::parse(&format!("[http]\nbind = {off}\n"), "a.toml").unwrap();
        assert_eq!(config.http.bind, None);
        assert_eq!(Config::parse(&config.print(), "printed").unwrap(), config);
    }
    let config = Config::parse("[http]\nbind = '[::]:1'\n", "a.toml").unwrap();
    assert_eq!(config.http.bind.map(|bind| bind.port()), Some(1));
    let wrong = error("[http]\nbind = 'of'\n");
    assert!(
        wrong.contains("`http.bind`: `of` is not an IP address"),
        "{wrong}"
    );
}

#[test]
fn every_key_can_be_overridden_from_the_environment() {
    let printed = Config::default();
    for (full, key) in all_keys() {
        let path = full
            .replace("listener.", "listener__local__")
            .replace('.', "__");
        let variable = format!("SHARDMQ__{}", path.to_ascii_uppercase());
        let value = match full.split_once('.') {
            None => printed.get(key.name),
            Some(("mqtt", name)) => printed.mqtt.get(name),
            Some(("auth", name)) => printed.auth.get(name),
            Some(("durability", name)) => printed.durability.get(name),
            Some(("limits", name)) => printed.limits.get(name),
            Some(("net", name)) => printed.net.get(name),
            Some(("http", name)) => printed.http.get(name),
            Some(("log", name)) => printed.log.get(name),
            Some(("listener", name)) => printed.listeners[0].get(name),
            Some(_) => panic!("{full} has a section that this test does not know"),
        };
        let config = env(&[(&variable, value.trim_matches('"'))]);
        assert_eq!(config.unwrap(), printed, "{variable}");
    }
}

#[test]
fn units_are_understood() {
    let config = Config::parse(
        "[mqtt]\nmaximum_packet_size = '2 MiB'\nconnect_timeout = '1 min'\n[net]\ngather_us = '1 ms'",
        "a.toml",
    );
    let config = config.unwrap();
    assert_eq!(config.mqtt.maximum_packet_size, 2 << 20);
    assert_eq!(config.mqtt.connect_timeout, 60);
    assert_eq!(config.net.gather_us, 1_000);
}

#[test]
fn an_unknown_key_names_its_place_and_what_was_meant() {
    assert_eq!(
        error("[mqtt]\n\n  maxqueued = 3\n"),
        "a.toml:3:3: unknown key `maxqueued` in [mqtt]; did you mean `max_queued_messages`?"
    );
    assert_eq!(
        error("max_inflight = 3"),
        "a.toml:1:1: unknown key `max_inflight` at the top level; it belongs in [mqtt]"
    );
    assert_eq!(
        error("[[listener]]\nbind = '127.0.0.1:1'\nport = 3"),
        "a.toml:3:1: unknown key `port` in a [[listener]] table; an address is one key: \
         `bind = \"127.0.0.1:1883\"` in a [[listener]] table"
    );
    assert_eq!(
        error("[mqqt]\nx = 1"),
        "a.toml:1:2: unknown section `mqqt`; did you mean [mqtt]?"
    );
}

#[test]
fn a_section_written_in_another_way_is_shown_the_right_one() {
    assert_eq!(
        error("mqtt = 3"),
        "a.toml:1:1: `mqtt`: is a section: write [mqtt]"
    );
    let expected = "a.toml:1:2: `listener`: is a section: write [[listener]]";
    assert_eq!(error("[listener]\nbind = '127.0.0.1:1883'"), expected);
    assert!(error("listener = []").contains("must be given, for example [[listener]]"));
    assert!(error("listener = [3]").contains("write [[listener]]"));
}

#[test]
fn a_wrong_type_comes_with_an_example() {
    assert_eq!(
        error("[mqtt]\nretain_available = 'yes'"),
        "a.toml:2:20: `mqtt.retain_available`: must be true or false, not a string, for example true"
    );
    assert_eq!(
        error("shards = 1.5"),
        "a.toml:1:10: `shards`: must be a whole number, not a fraction, for example 64"
    );
    assert!(error("[mqtt]\nmax_inflight = true").contains("not a boolean"));
    assert!(error("[mqtt]\nmaximum_packet_size = [1]").contains("not a list"));
    assert!(error("data_dir = 3").contains("the path of a directory"));
    assert!(error("[[listener]]\nbind = 1883").contains("for example \"127.0.0.1:1883\""));
    assert!(error("[log]\nlevel = 3").contains("for example \"off\""));
    assert!(error("[mqtt]\nresponse_information = 1").contains("must be a text"));
}

#[test]
fn out_of_range_names_the_bounds() {
    assert_eq!(
        error("shards = 65"),
        "a.toml:1:10: `shards`: 65 is out of range; allowed is 0 to 64"
    );
    assert_eq!(
        error("[mqtt]\nmaximum_packet_size = '1 GiB'"),
        "a.toml:2:23: `mqtt.maximum_packet_size`: 1 GiB is out of range; \
         allowed is 256 KiB to 268435460"
    );
    assert!(error("[mqtt]\nmax_inflight = 0").contains("allowed is 1 to 65535"));
    assert!(error("[mqtt]\nmax_inflight = -1").contains("-1 is out of range"));
    assert!(error("[mqtt]\nmaximum_qos = 3").contains("0 to 2"));
}

#[test]
fn words_and_addresses_are_checked() {
    assert_eq!(
        error("[mqtt]\nqueue_overflow = 'drop-oldest'"),
        "a.toml:2:18: `mqtt.queue_overflow`: `drop-oldest` is none of drop_oldest, drop_new, reject; \
         did you mean `drop_oldest`?"
    );
    assert_eq!(
        error("[[listener]]\nbind = 'localhost:1883'"),
        "a.toml:2:8: `listener.bind`: `localhost:1883` is not an IP address and a port; did you \
         mean `127.0.0.1:1883`?"
    );
    assert!(error("[[listener]]\nname = 'a b'\nbind = '127.0.0.1:1'").contains("not a name"));
    assert!(error("[mqtt]\nresponse_information = \"a\\u0000\"").contains("U+0000"));
    assert!(error("[[listener]]\nname = 'a'").contains("must be given, for example bind ="));
}

#[test]
fn listeners_do_not_share_a_name_or_an_address() {
    let text = "[[listener]]\nname = 'a'\nbind = '127.0.0.1:1'\n\
                [[listener]]\nname = 'a'\nbind = '127.0.0.1:1'\n";
    assert_eq!(
        errors(text),
        [
            "a.toml:5:8: `listener.name`: two listeners have the same name, `a`",
            "a.toml:6:8: `listener.bind`: two listeners have the same bind, 127.0.0.1:1",
        ]
    );
    let text = "[[listener]]\nbind = '127.0.0.1:0'\n[[listener]]\nbind = '127.0.0.1:0'\n";
    assert_eq!(
        Config::parse(text, "a.toml").unwrap().listeners[1].name,
        "listener2"
    );
}

#[test]
fn a_mount_point_is_levels_of_a_topic() {
    let with = |mount: &str| {
        format!("[[listener]]\nbind = '127.0.0.1:1'\nmount_point = '{mount}'\nmessage_rate = 7\n")
    };
    for mount in ["", "a/", "tenants/%u/"] {
        let settings = Config::parse(&with(mount), "a.toml").unwrap().settings();
        let listener = &settings.listeners[0];
        let found = listener.mount_point.as_ref();
        let found = found.map_or("", crate::policy::MountPoint::as_str);
        assert_eq!((found, listener.message_rate), (mount, 7));
    }
    for mount in ["a", "/a/", "a/+/", "$a/"] {
        let told = error(&with(mount));
        assert!(
            told.starts_with("a.toml:3:15: `listener.mount_point`: it must"),
            "{told}"
        );
    }
}

#[test]
fn all_errors_are_told_at_once_in_the_order_of_the_file() {
    let text =
        "shards = 99\nfoo = 1\n[net]\ngather_us = 'x'\n[mqtt]\nretain = true\nmax_inflight = 0";
    let lines: Vec<String> = errors(text)
        .iter()
        .map(|e| e.split(':').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["1", "2", "4", "6", "7"]);
}

#[test]
fn text_that_is_not_toml_is_told_where() {
    let error = error("shards = = 3\n");
    assert!(error.starts_with("a.toml:1:10: not TOML: "), "{error}");
    assert!(errors("[mqtt]\nmax_inflight = 1\nmax_inflight = 2\n")[0].starts_with("a.toml:3:1: "));
}

#[test]
fn a_newer_format_is_refused_with_that_alone() {
    assert_eq!(
        error("version = 2\nsomething_new = 1\n"),
        "a.toml:1:11: `version`: the file has format 2 and this program reads up to 1; use the \
         program that it was written for"
    );
    assert!(error("version = 0").contains("out of range"));
    assert_eq!(
        Config::parse("version = 1", "a.toml").unwrap(),
        Config::default()
    );
}

#[test]
fn a_queue_holds_the_largest_packet() {
    let error = error("[mqtt]\nmaximum_packet_size = '2 MiB'\nmax_queued_bytes = '1 MiB'");
    assert!(
        error.starts_with("a.toml:3:20: `mqtt.max_queued_bytes`: a packet of"),
        "{error}"
    );
}

#[test]
fn the_environment_goes_on_top_of_the_file() {
    let file =
        "shards = 2\n[mqtt]\nmax_inflight = 5\n[[listener]]\nname = 'in-car'\nbind = '127.0.0.1:1'";
    let pairs = [
        ("SHARDMQ__MQTT__MAX_INFLIGHT", "7"),
        ("SHARDMQ__MQTT__MAXIMUM_PACKET_SIZE", "1 MiB"),
        ("SHARDMQ__LISTENER__IN_CAR__BIND", "0.0.0.0:2"),
        ("SHARDMQ__LISTENER__OTHER__BIND", "127.0.0.1:3"),
        ("SHARDMQ_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(Some((file, "a.toml")), pairs).unwrap();
    assert_eq!(config.shards, 2);
    assert_eq!(config.mqtt.max_inflight, 7);
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[0].bind, ["0.0.0.0:2".parse().unwrap()]);
    assert_eq!(
        (
            config.listeners[1].name.as_str(),
            config.listeners[1].bind[0].port()
        ),
        ("other", 3)
    );
}

#[test]
fn a_wrong_variable_is_refused_as_a_wrong_key_is() {
    let one = |name, value| {
        let errors = env(&[(name, value)]).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.into_iter().next().unwrap()
    };
    assert_eq!(
        one("SHARDMQ__MQTT__MAX_INFLIHGT", "7"),
        "environment variable SHARDMQ__MQTT__MAX_INFLIHGT: unknown key `max_inflihgt` in [mqtt]; \
         did you mean `max_inflight`?"
    );
    assert_eq!(
        one("SHARDMQ__MQTT__MAX_INFLIGHT", "many"),
        "environment variable SHARDMQ__MQTT__MAX_INFLIGHT: `mqtt.max_inflight`: `many` is not a \
         number"
    );
    assert!(one("SHARDMQ__MQTTT__X", "7").contains("did you mean [mqtt]?"));
    assert!(one("SHARDMQ__GATHER_US", "7").contains("it belongs in [net]"));
    assert!(one("SHARDMQ__LISTENER__BIND", "7").contains("SHARDMQ__LISTENER__LOCAL__BIND"));
    assert!(one("SHARDMQ__LISTENER__LOCAL__PORT", "7").contains("`bind ="));
    assert!(one("SHARDMQ__A__B__C", "7").contains("SHARDMQ__SECTION__KEY"));
    assert!(one("SHARDMQ__MQTT__RETAIN_AVAILABLE", "yes").contains("must be true or false"));
    assert!(one("SHARDMQ__LISTENER__LOCAL__BIND", "1883").contains("0.0.0.0:1883"));
}

#[test]
fn a_byte_order_mark_is_not_a_key() {
    assert_eq!(Config::parse("\u{feff}shards = 1", "a").unwrap().shards, 1);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z_=\\[\\]\"'0-9 \n.é#,{}-]{0,80}") {
        let _ = Config::parse(&text, "a.toml");
        let _ = Config::parse(&format!("[mqtt]\nmax_inflight = {text}"), "a.toml");
        let _ = Config::parse(&format!("[[listener]]\nbind = {text}"), "a.toml");
    }
}
