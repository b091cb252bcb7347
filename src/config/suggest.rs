//! What somebody probably meant.

use super::schema::{Config, Listener, SECTIONS, Section};

/// Names that other brokers or common sense suggest, and what to say about them.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "port",
        "an address is one key: `bind = \"127.0.0.1:1883\"` in a [[listener]] table",
    ),
    (
        "host",
        "an address is one key: `bind = \"127.0.0.1:1883\"` in a [[listener]] table",
    ),
    (
        "address",
        "an address is one key: `bind = \"127.0.0.1:1883\"` in a [[listener]] table",
    ),
    ("listen", "did you mean `bind` in a [[listener]] table?"),
    (
        "bind_address",
        "did you mean `bind` in a [[listener]] table?",
    ),
    ("threads", "did you mean `shards`?"),
    ("workers", "did you mean `shards`?"),
    ("cores", "did you mean `shards`?"),
    ("persistence", "this version keeps all state in memory"),
    ("persistence_location", "did you mean `data_dir`?"),
    (
        "max_packet_size",
        "did you mean `maximum_packet_size` in [mqtt]?",
    ),
    (
        "message_size_limit",
        "did you mean `maximum_packet_size` in [mqtt]?",
    ),
    (
        "max_inflight_messages",
        "did you mean `max_inflight` in [mqtt]?",
    ),
    (
        "queue_qos0_messages",
        "did you mean `queue_qos0` in [mqtt]?",
    ),
    (
        "persistent_client_expiration",
        "did you mean `max_session_expiry_interval` in [mqtt]?",
    ),
    ("users", "did you mean `password_file` in [auth]?"),
    (
        "per_listener_settings",
        "`allow_anonymous` is a key of each [[listener]]; the rest of [auth] holds for all",
    ),
    ("tls", TLS),
    (
        "cafile",
        "did you mean `client_ca` in a [[listener]] table?",
    ),
    (
        "crlfile",
        "did you mean `client_crl` in a [[listener]] table?",
    ),
    (
        "certfile",
        "did you mean `certificate` in a [[listener]] table?",
    ),
    ("keyfile", "did you mean `key` in a [[listener]] table?"),
    (
        "require_certificate",
        "write `client_certificate = \"required\"` in a [[listener]] table",
    ),
    ("psk_hint", NO_PSK),
    ("psk_file", NO_PSK),
    ("psk", NO_PSK),
    ("protocol", "did you mean `type` in a [[listener]] table?"),
];

const TLS: &str = "TLS is a [[listener]] of `type = \"tls\"` with a `certificate` and a `key`";
const NO_PSK: &str = "pre-shared keys are not supported, the TLS library has none; client certificates \
                      (`client_certificate = \"required\"`) do the same without a shared secret";

/// For a key that does not exist where it stands: `place` is "in [mqtt]", `known` what exists there.
pub(super) fn key(found: &str, place: &str, known: &[&'static str]) -> Option<String> {
    if let Some(name) = nearest(found, known.iter().copied()) {
        return Some(question(name));
    }
    // A `bind` is more likely that of a listener than that of [http].
    let everywhere = [("in a [[listener]] table".to_owned(), Listener::KEYS)]
        .into_iter()
        .chain(
            SECTIONS
                .iter()
                .map(|(name, keys)| (format!("in [{name}]"), *keys)),
        )
        .chain([("at the top level".to_owned(), Config::KEYS)])
        .filter(|(name, _)| name != place);
    for (name, keys) in everywhere {
        if keys.iter().any(|key| key.name == found) {
            return Some(format!("it belongs {name}"));
        }
    }
    elsewhere(found).or_else(|| {
        let (name, key) = SECTIONS.iter().find_map(|(section, keys)| {
            Some((*section, nearest(found, keys.iter().map(|key| key.name))?))
        })?;
        Some(format!("did you mean `{key}` in [{name}]?"))
    })
}

/// For a section that does not exist.
pub(super) fn section(found: &str) -> Option<String> {
    let names = SECTIONS
        .iter()
        .map(|(name, _)| *name)
        .chain(["listener", "history"]);
    match nearest(found, names) {
        Some(name @ ("listener" | "history")) => Some(format!("did you mean [[{name}]]?")),
        Some(name) => Some(format!("did you mean [{name}]?")),
        None => elsewhere(found),
    }
}

/// For a word that is none of `known`.
pub(super) fn closest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(found, known).map(question)
}

/// For text that is not an IP address and a port.
pub(super) fn address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(format!(
            "an IPv6 address stands in brackets: `[{text}]:1883`"
        ));
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(format!("the port is missing: `{text}:1883`"));
    }
    if port.parse::<u16>().is_err() {
        return (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| "a port is at most 65535".to_owned());
    }
    match host {
        "" | "*" => Some(format!(
            "write `127.0.0.1:{port}` to serve this machine alone, `0.0.0.0:{port}` to serve \
             everybody who reaches it"
        )),
        "localhost" => Some(format!("did you mean `127.0.0.1:{port}`?")),
        _ => Some("names are not looked up; write the address that it has".to_owned()),
    }
}

fn question(name: &str) -> String {
    format!("did you mean `{name}`?")
}

fn elsewhere(found: &str) -> Option<String> {
    let found = found.to_ascii_lowercase().replace('-', "_");
    let entry = ELSEWHERE.iter().find(|(name, _)| *name == found);
    entry.map(|(_, text)| (*text).to_owned())
}

/// The known name that is nearest to what was written, if one is near at all.
fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let found = bare(found);
    let score = |name: &str| {
        let name = bare(name);
        let distance = distance(&found, &name);
        if leaves_out(&found, &name) || adds(&found, &name) {
            // Of several names that are alike in this, the one declared first.
            return Some(distance.min(2));
        }
        // A third of the letters may be wrong.
        (distance * 3 <= found.len().max(3)).then_some(distance)
    };
    known
        .filter_map(|name| score(name).map(|score| (score, name)))
        .min_by_key(|(score, _)| *score)
        .map(|(_, name)| name)
}

/// Letters and digits only, in lower case.
fn bare(name: &str) -> Vec<char> {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Whether `short` is the beginning of `long`, or its end, and not just a few letters.
fn leaves_out(short: &[char], long: &[char]) -> bool {
    short.len() >= 5 && (long.starts_with(short) || long.ends_with(short))
}

/// Whether `long` is `short` and something behind it.
fn adds(long: &[char], short: &[char]) -> bool {
    short.len() >= 3 && long.starts_with(short)
}

/// Letters to insert, delete, replace or swap to get from one to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MQTT: fn() -> Vec<&'static str> = || {
        SECTIONS
            .iter()
            .find(|s| s.0 == "mqtt")
            .unwrap()
            .1
            .iter()
            .map(|k| k.name)
            .collect()
    };

    #[test]
    fn distances_are_those_of_typing_errors() {
        let d = |a, b| distance(&bare(a), &bare(b));
        assert_eq!(d("abc", "abc"), 0);
        assert_eq!(d("abc", "acb"), 1);
        assert_eq!(d("abc", "ab"), 1);
        assert_eq!(d("kitten", "sitting"), 3);
    }

    #[test]
    fn a_typing_error_an_abbreviation_and_another_style_are_understood() {
        let likely = |found| key(found, "in [mqtt]", &MQTT());
        assert_eq!(
            likely("max_inflght").unwrap(),
            "did you mean `max_inflight`?"
        );
        assert_eq!(
            likely("maxqueued").unwrap(),
            "did you mean `max_queued_messages`?"
        );
        assert_eq!(
            likely("maxInflight").unwrap(),
            "did you mean `max_inflight`?"
        );
        assert_eq!(
            likely("retain-available").unwrap(),
            "did you mean `retain_available`?"
        );
        assert_eq!(
            likely("keep_alive").unwrap(),
            "did you mean `max_keep_alive`?"
        );
        assert_eq!(likely("frobnicate"), None);
    }

    #[test]
    fn a_key_of_another_section_is_sent_there() {
        assert_eq!(
            key("gather_us", "in [mqtt]", &MQTT()).unwrap(),
            "it belongs in [net]"
        );
        assert_eq!(
            key("bind", "in [mqtt]", &MQTT()).unwrap(),
            "it belongs in a [[listener]] table"
        );
        assert_eq!(
            key("shards", "in [mqtt]", &MQTT()).unwrap(),
            "it belongs at the top level"
        );
        let likely = key("max_queue_bytes", "at the top level", &["shards"]).unwrap();
        assert_eq!(likely, "did you mean `max_queued_bytes` in [mqtt]?");
    }

    #[test]
    fn habits_from_elsewhere_get_an_answer() {
        assert!(
            key("port", "at the top level", &["shards"])
                .unwrap()
                .contains("bind =")
        );
        assert!(
            key("allow_anonymous", "", &["shards"])
                .unwrap()
                .contains("[[listener]]")
        );
        assert!(section("tls").unwrap().contains("type = \"tls\""));
        assert_eq!(section("listeners").unwrap(), "did you mean [[listener]]?");
        assert_eq!(section("logging").unwrap(), "did you mean [log]?");
    }

    #[test]
    fn addresses_are_mended() {
        assert!(address("1883").unwrap().contains("0.0.0.0:1883"));
        assert!(address("*:1883").unwrap().contains("127.0.0.1:1883"));
        assert_eq!(
            address("localhost:1883").unwrap(),
            "did you mean `127.0.0.1:1883`?"
        );
        assert_eq!(
            address("10.0.0.1").unwrap(),
            "the port is missing: `10.0.0.1:1883`"
        );
        assert_eq!(
            address("::1").unwrap(),
            "an IPv6 address stands in brackets: `[::1]:1883`"
        );
        assert_eq!(
            address("10.0.0.1:99999").unwrap(),
            "a port is at most 65535"
        );
        assert!(
            address("broker.example:1883")
                .unwrap()
                .contains("not looked up")
        );
    }
}
