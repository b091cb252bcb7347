use std::fmt::Write;

use super::*;

/// Written by mosquitto 2.0.11: three sessions, QoS 1 and 2 in their queues, a retained message.
const FILE: &[u8] = include_bytes!("2.0.11.db");

fn read(bytes: &[u8]) -> (Content, u64) {
    convert(Database::read(bytes).unwrap(), 0)
}

/// What waits for each client, in its order.
fn queues(content: &Content) -> String {
    let mut text = String::new();
    for (index, session) in content.sessions.iter().enumerate() {
        let _ = write!(text, "{}:", session.client_id);
        for kept in &content.messages {
            let mine = kept.receivers.iter().find(|known| known.session == index);
            if let (Some(receiver), Some(body)) = (mine, &kept.body) {
                let payload = String::from_utf8_lossy(&body.payload);
                let _ = write!(text, " {payload}/{}", receiver.qos.bits());
                for identifier in &receiver.identifiers {
                    let _ = write!(text, "#{identifier}");
                }
            }
        }
        text.push('\n');
    }
    text
}

#[test]
fn a_file_of_mosquitto_2_is_understood() {
    let (content, left_out) = read(FILE);
    assert_eq!(left_out, 0);
    assert_eq!(
        queues(&content),
        "five: m1/2#7 m2/2#7 m3/2#7 one/1#7\n\
         three: m1/1 m2/1 m3/1 one/1 bee/1\n\
         shared: sh/1\n"
    );
    let five = &content.sessions[0];
    assert_eq!((five.version, five.expiry_interval), (Version::V5, 3600));
    assert_eq!(five.expires_at.0 % 1_000, 0);
    assert_eq!(&*five.subscriptions[0].filter, "a/#");
    assert!(five.subscriptions[0].options.retain_as_published);
    assert_eq!(content.sessions[1].expiry_interval, FOREVER);
    let filters = &content.sessions[1].subscriptions;
    let filters: Vec<&str> = filters.iter().map(|known| &*known.filter).collect();
    assert_eq!(filters, ["a/+", "b"]);
    let retained = content.messages.iter().filter(|kept| kept.retained);
    let retained: Vec<_> = retained.map(|kept| kept.body.as_ref().unwrap()).collect();
    assert_eq!(retained.len(), 1);
    assert_eq!(
        (&*retained[0].topic, &*retained[0].payload),
        ("r/1", &b"kept"[..])
    );
    let first = content.messages[0].body.as_ref().unwrap();
    assert_eq!(*first.properties, *b"\x26\x00\x01k\x00\x02v1");
    assert!(first.expires_at > five.expires_at);
}

/// A chunk.
fn chunk(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut chunk = kind.to_be_bytes().to_vec();
    chunk.extend((content.len() as u32).to_be_bytes());
    chunk.extend(content);
    chunk
}

/// The same file as mosquitto 1.6 writes it: a client has no port and no user name.
fn as_version_5(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..19].to_vec();
    out[18] = 0;
    out.splice(15..19, 0_u32.to_be_bytes());
    out.extend(5_u32.to_be_bytes());
    let mut at = 23;
    while at < bytes.len() {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(at), word(at + 4) as usize);
        let content = &bytes[at + 8..at + 8 + length];
        let content = match kind {
            6 => [&content[..16], &content[24..]].concat(),
            _ => content.to_vec(),
        };
        out.extend(chunk(kind, &content));
        at += 8 + length;
    }
    out
}

#[test]
fn so_is_one_of_mosquitto_1_6() {
    let (newer, _) = read(FILE);
    let older = as_version_5(FILE);
    let (older, left_out) = read(&older);
    assert_eq!(left_out, 0);
    assert_eq!(queues(&older), queues(&newer));
    assert_eq!(older.sessions, newer.sessions);
    let mut ancient = FILE.to_vec();
    ancient[22] = 4;
    assert!(
        Database::read(&ancient)
            .unwrap_err()
            .to_string()
            .contains("too old")
    );
}

/// A message to or from a client: number, packet identifier, QoS, state, direction.
fn message(
    client: &str,
    number: u64,
    packet_id: u16,
    qos: u8,
    state: u8,
    direction: u8,
) -> Vec<u8> {
    let mut content = number.to_le_bytes().to_vec();
    content.extend(packet_id.to_be_bytes());
    content.extend((client.len() as u16).to_be_bytes());
    content.extend([qos, state, 0, direction]);
    content.extend(client.as_bytes());
    chunk(3, &content)
}

#[test]
fn exchanges_go_on_where_they_were() {
    let mut bytes = FILE.to_vec();
    // PUBREC is awaited, PUBCOMP is awaited; QoS 0 in a queue has no place.
    bytes.extend(message("shared", 0x3C, 5, 2, 5, 1));
    bytes.extend(message("shared", 0x3B, 6, 2, 9, 1));
    bytes.extend(message("shared", 0x36, 0, 0, 11, 1));
    // PUBREL is awaited from this client: nobody has got its message.
    bytes.extend(message("shared", 0x38, 9, 2, 7, 0));
    let (content, left_out) = read(&bytes);
    assert_eq!(left_out, 1);
    let shared = &content.sessions[2];
    assert_eq!(shared.held, [PacketId::new(9).unwrap()]);
    let mine = content.messages.iter().flat_map(|kept| &kept.receivers);
    let begun: Vec<_> = mine
        .filter(|known| known.session == 2)
        .filter_map(|known| known.exchange)
        .map(|begun| (begun.packet_id.get(), begun.received))
        .collect();
    assert_eq!(begun, [(5, false), (6, true)], "in the order of the file");
    // It is m3, which matches a/# and a/+.
    let queues = queues(&content);
    let lines: Vec<&str> = queues.lines().collect();
    assert!(lines[0].ends_with("one/1#7 m3/2#7"), "{queues}");
    assert!(lines[1].ends_with("bee/1 m3/1"), "{queues}");
}

#[test]
fn a_part_of_a_file_is_refused_or_read() {
    let mut refused = 0;
    for length in 0..FILE.len() {
        match Database::read(&FILE[..length]) {
            Ok(database) => _ = convert(database, 0),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > FILE.len() * 9 / 10, "{refused}");
    for at in 0..FILE.len() {
        let mut bytes = FILE.to_vec();
        bytes[at] ^= 0xFF;
        if let Ok(database) = Database::read(&bytes) {
            convert(database, 0);
        }
    }
}
