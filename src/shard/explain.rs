//! Reason Strings: sent where the client wants them and where they fit.

use crate::session::Connection;
use crate::wire::{Packet, ReasonCode};

use super::{ConnKey, Outbox, Shard};

impl Shard {
    /// Sends a packet of version 5 with a Reason String, or without it where it would make the
    /// packet larger than the client takes.
    pub(super) fn send_explained<'a>(
        &mut self,
        conn: ConnKey,
        reason_string: Option<&'a str>,
        packet: impl Fn(Option<&'a str>) -> Packet<'a>,
        out: &mut Outbox,
    ) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let output = out.write(conn);
        let before = output.len();
        let version = connection.version;
        let encode =
            |reason_string, output: &mut Vec<u8>| packet(reason_string).encode(version, output);
        encode_explained(connection, reason_string, encode, output);
        self.stats.sent(&output[before..]);
    }
}

/// Appends a packet with `reason_string`, or without it where it would not fit [MQTT-3.2.2-19]
/// [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2] [MQTT-3.9.2-1] [MQTT-3.11.2-1]
/// [MQTT-3.14.2-3]. What does not fit even then is not sent [MQTT-3.1.2-24].
pub(super) fn encode_explained<'a>(
    connection: &Connection,
    reason_string: Option<&'a str>,
    encode: impl Fn(Option<&'a str>, &mut Vec<u8>),
    output: &mut Vec<u8>,
) {
    let start = output.len();
    let maximum = connection.maximum_packet_size as usize;
    encode(reason_string, output);
    if output.len() - start > maximum && reason_string.is_some() {
        output.truncate(start);
        encode(None, output);
    }
    if output.len() - start > maximum {
        output.truncate(start);
    }
}

/// Why an acknowledgement says what it says, if the client asked for such problem information
/// [MQTT-3.1.2-29] and something is to be said.
pub(super) fn explanation(connection: &Connection, reason: ReasonCode) -> Option<&'static str> {
    if !connection.version.is_v5() || !connection.request_problem_information {
        return None;
    }
    match reason {
        ReasonCode::QuotaExceeded => Some("a queue or a limit on the way is full"),
        ReasonCode::NotAuthorized => Some("this client may not do that here"),
        ReasonCode::PacketIdentifierNotFound => Some("no exchange has this packet identifier"),
        ReasonCode::TopicFilterInvalid => Some("not a topic filter [MQTT-4.7.1-1] [MQTT-4.8.2-1]"),
        reason if reason.is_error() => Some(reason.text()),
        _ => None,
    }
}
