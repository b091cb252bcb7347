//! How `shardmq sub` prints a message: plain, with its topic, or by -F.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::json;
use super::message::Message;

/// How messages are printed.
#[derive(Debug)]
pub(super) struct Format {
    pieces: Vec<Piece>,
    pretty: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Field(char),
}

/// The letters that may stand behind a %.
const FIELDS: &str = "ACDEFIJPRSUXjlmpqrtx";

impl Format {
    /// The payload.
    pub(super) fn payload() -> Self {
        Self {
            pieces: vec![Piece::Field('p')],
            pretty: false,
        }
    }

    /// The topic and the payload.
    pub(super) fn verbose() -> Self {
        let pieces = vec![
            Piece::Field('t'),
            Piece::Bytes(b" ".to_vec()),
            Piece::Field('p'),
        ];
        Self {
            pieces,
            pretty: false,
        }
    }

    /// What -F says.
    pub(super) fn parse(text: &str, pretty: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('%') => bytes.push(b'%'),
                    Some(field) if FIELDS.contains(field) => {
                        pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                        pieces.push(Piece::Field(field));
                    }
                    Some(other) => {
                        return Err(format!(
                            "-F: %{other} is unknown; known are %% and % with {FIELDS}"
                        ));
                    }
                    None => return Err("-F: a % stands at the end; %% prints one".to_owned()),
                },
                '@' => match chars.next() {
                    Some('@') => bytes.push(b'@'),
                    _ => {
                        return Err(
                            "-F: parts of a date (@Y) are not known here; %I prints the \
                                    time, @@ prints an @"
                                .to_owned(),
                        );
                    }
                },
                '\\' => bytes.push(escape(chars.next())?),
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        pieces.push(Piece::Bytes(bytes));
        pieces.retain(|piece| !matches!(piece, Piece::Bytes(bytes) if bytes.is_empty()));
        Ok(Self { pieces, pretty })
    }

    /// Appends a message; `now` is when it came.
    pub(super) fn write(
        &self,
        message: &Message,
        now: SystemTime,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Field(field) => self.field(*field, message, now, out)?,
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: char,
        message: &Message,
        now: SystemTime,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let text = match field {
            'p' => {
                out.extend_from_slice(&message.payload);
                return Ok(());
            }
            'D' => {
                out.extend_from_slice(message.correlation_data.as_deref().unwrap_or_default());
                return Ok(());
            }
            't' => message.topic.clone(),
            'l' => message.payload.len().to_string(),
            'm' => message.packet_id.to_string(),
            'q' => message.qos.bits().to_string(),
            'r' => u8::from(message.retain).to_string(),
            'x' => hex(&message.payload, false),
            'X' => hex(&message.payload, true),
            'A' => shown(message.topic_alias),
            'E' => shown(message.message_expiry_interval),
            'F' => shown(message.payload_format_indicator),
            'C' => message.content_type.clone().unwrap_or_default(),
            'R' => message.response_topic.clone().unwrap_or_default(),
            'S' => joined(message.subscription_identifiers.iter().map(u32::to_string)),
            'P' => joined(
                message
                    .user_properties
                    .iter()
                    .map(|(k, v)| format!("{k}:{v}")),
            ),
            'I' => date(now),
            'U' => {
                let since = since_epoch(now);
                format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
            }
            'j' => self.json(message, now, false)?,
            'J' => self.json(message, now, true)?,
            other => unreachable!("%{other} is not among FIELDS"),
        };
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// The message as a JSON object, its payload as a string or as the JSON that it is.
    fn json(&self, message: &Message, now: SystemTime, as_json: bool) -> Result<String, String> {
        let payload = String::from_utf8_lossy(&message.payload);
        let payload = if as_json {
            if !json::is_valid(&payload) {
                return Err(format!("the message on `{}` is not JSON", message.topic));
            }
            payload.trim().to_owned()
        } else {
            quoted(&payload)
        };
        let mut members = vec![
            ("tst", quoted(&date(now))),
            ("topic", quoted(&message.topic)),
            ("qos", message.qos.bits().to_string()),
            ("retain", u8::from(message.retain).to_string()),
            ("payloadlen", message.payload.len().to_string()),
        ];
        if message.packet_id != 0 {
            members.push(("mid", message.packet_id.to_string()));
        }
        let properties = properties(message);
        if !properties.is_empty() {
            members.push(("properties", object(&properties, self.pretty, 1)));
        }
        members.push(("payload", payload));
        Ok(object(&members, self.pretty, 0))
    }
}

fn properties(message: &Message) -> Vec<(&'static str, String)> {
    let mut members = Vec::new();
    let mut put = |name, value: Option<String>| members.extend(value.map(|value| (name, value)));
    put(
        "topic-alias",
        message.topic_alias.map(|value| value.to_string()),
    );
    put(
        "payload-format-indicator",
        message.payload_format_indicator.map(|v| v.to_string()),
    );
    put(
        "message-expiry-interval",
        message.message_expiry_interval.map(|v| v.to_string()),
    );
    put("content-type", message.content_type.as_deref().map(quoted));
    put(
        "response-topic",
        message.response_topic.as_deref().map(quoted),
    );
    let correlation = message
        .correlation_data
        .as_deref()
        .map(String::from_utf8_lossy);
    put("correlation-data", correlation.as_deref().map(quoted));
    let identifiers: Vec<String> = message
        .subscription_identifiers
        .iter()
        .map(u32::to_string)
        .collect();
    let identifiers = (!identifiers.is_empty()).then(|| format!("[{}]", identifiers.join(",")));
    put("subscription-identifiers", identifiers);
    // A list, because a name may come twice and the order has a meaning.
    let pairs: Vec<String> = message
        .user_properties
        .iter()
        .map(|(name, value)| format!("{{{}:{}}}", quoted(name), quoted(value)))
        .collect();
    put(
        "user-properties",
        (!pairs.is_empty()).then(|| format!("[{}]", pairs.join(","))),
    );
    members
}

fn object(members: &[(&str, String)], pretty: bool, depth: usize) -> String {
    let (start, between, colon, end) = if pretty {
        let indent = "\t".repeat(depth + 1);
        (
            format!("{{\n{indent}"),
            format!(",\n{indent}"),
            ":\t",
            format!("\n{}}}", "\t".repeat(depth)),
        )
    } else {
        ("{".to_owned(), ",".to_owned(), ":", "}".to_owned())
    };
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}{colon}{value}", quoted(name)))
        .collect();
    format!("{start}{}{end}", members.join(&between))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json::put_string(&mut out, text);
    out
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

fn hex(bytes: &[u8], upper: bool) -> String {
    let lower: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if upper {
        lower.to_ascii_uppercase()
    } else {
        lower
    }
}

fn escape(c: Option<char>) -> Result<u8, String> {
    Ok(match c {
        Some('\\') => b'\\',
        Some('0') => 0,
        Some('a') => 7,
        Some('e') => 27,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 11,
        Some(other) => {
            return Err(format!(
                "-F: \\{other} is unknown; known are \\\\ 0 a e n r t v"
            ));
        }
        None => return Err("-F: a \\ stands at the end; \\\\ prints one".to_owned()),
    })
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Date and time in UTC, as ISO 8601 writes them.
fn date(now: SystemTime) -> String {
    let since = since_epoch(now);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Year, month and day, so many days after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is the last one: eras of 400 years have
    // 146,097 days, and 153 days make five months from March on.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use shardmq::wire::QoS;

    use super::*;

    fn message() -> Message {
        Message {
            topic: "a/b".to_owned(),
            payload: b"{\"x\": 1}".to_vec(),
            qos: QoS::AtLeastOnce,
            packet_id: 7,
            content_type: Some("json".to_owned()),
            user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
            subscription_identifiers: vec![3, 4],
            ..Message::default()
        }
    }

    fn shown_as(format: &str) -> String {
        let now = UNIX_EPOCH + Duration::new(1_795_298_746, 926_468_222);
        let mut out = Vec::new();
        Format::parse(format, false)
            .unwrap()
            .write(&message(), now, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_field_is_shown() {
        assert_eq!(shown_as("%t %l %m %q %r [%p]"), "a/b 8 7 1 0 [{\"x\": 1}]");
        assert_eq!(shown_as("%x"), "7b2278223a20317d");
        assert_eq!(shown_as("%X"), "7B2278223A20317D");
        assert_eq!(shown_as("%C|%P|%S|%A|%E|%F|%R|%D"), "json|k:v k:w|3 4|||||");
        assert_eq!(
            shown_as("%I %U"),
            "2026-11-21T22:05:46.926468Z 1795298746.926468222"
        );
        assert_eq!(shown_as("100%% @@ \\t\\\\ é"), "100% @ \t\\ é");
        for field in FIELDS.chars() {
            shown_as(&format!("%{field}"));
        }
    }

    #[test]
    fn json_is_json() {
        let expected = "{\"tst\":\"2026-11-21T22:05:46.926468Z\",\"topic\":\"a/b\",\"qos\":1,\
                        \"retain\":0,\"payloadlen\":8,\"mid\":7,\"properties\":{\"content-type\":\
                        \"json\",\"subscription-identifiers\":[3,4],\"user-properties\":[{\"k\":\
                        \"v\"},{\"k\":\"w\"}]},\"payload\":{\"x\": 1}}";
        assert_eq!(shown_as("%J"), expected);
        assert!(json::is_valid(&shown_as("%j")));
        let mut out = Vec::new();
        let pretty = Format::parse("%j", true).unwrap();
        pretty.write(&message(), UNIX_EPOCH, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(json::is_valid(&out) && out.lines().count() > 5, "{out}");
    }

    #[test]
    fn a_payload_that_is_not_json_is_told() {
        let text = Message {
            payload: b"hello".to_vec(),
            ..message()
        };
        let format = Format::parse("%J", false).unwrap();
        let error = format
            .write(&text, UNIX_EPOCH, &mut Vec::new())
            .unwrap_err();
        assert_eq!(error, "the message on `a/b` is not JSON");
    }

    #[test]
    fn unknown_fields_are_refused_before_anything_is_received() {
        for (format, part) in [
            ("%z", "%z is unknown"),
            ("%", "at the end"),
            ("@Y", "%I"),
            ("\\q", "\\q is"),
            ("\\", "end"),
        ] {
            let error = Format::parse(format, false).unwrap_err();
            assert!(error.contains(part), "{format}: {error}");
        }
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }
}
