//! Packets as bytes, made and read by hand.

use crate::Version;

/// A Variable Byte Integer.
pub(crate) fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value % 128).expect("below 128");
        value /= 128;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A packet: first byte, Remaining Length, the rest.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], varint(body.len()).as_slice(), body].concat()
}

/// Bytes behind their length in two bytes: a string or binary data.
pub(crate) fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).expect("a field is at most 65,535 bytes long");
    [&length.to_be_bytes(), bytes].concat()
}

/// The properties with their length in version 5, nothing in 3.1.1.
pub(crate) fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    if version.is_v5() {
        [varint(bytes.len()).as_slice(), bytes].concat()
    } else {
        Vec::new()
    }
}

/// A property with a string or binary data.
pub(crate) fn text_property(id: u8, text: impl AsRef<[u8]>) -> Vec<u8> {
    [&[id], field(text).as_slice()].concat()
}

/// A User Property.
pub(crate) fn user_property(name: &str, value: &str) -> Vec<u8> {
    [&[0x26], field(name).as_slice(), &field(value)].concat()
}

/// A CONNECT that is put together piece by piece.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) login: Option<(String, String)>,
    /// Flags of the will (Will Flag, QoS, Retain), then its properties, topic and payload.
    pub(crate) will: Option<(u8, Vec<u8>, String, Vec<u8>)>,
}

impl Connect {
    pub(crate) fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            login: None,
        }
    }

    /// A user name and a password.
    pub(crate) fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// A session that lasts: CleanSession 0, or an expiry of ten minutes.
    pub(crate) fn lasting(version: Version, client_id: &str) -> Self {
        let mut connect = Self::new(version, client_id).with(&[0x11, 0, 0, 2, 0x58]);
        connect.clean = false;
        connect
    }

    /// Adds properties, which only version 5 sends.
    pub(crate) fn with(mut self, properties: &[u8]) -> Self {
        self.properties.extend_from_slice(properties);
        self
    }

    pub(crate) fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn will(mut self, qos: u8, retain: bool, topic: &str, payload: &[u8]) -> Self {
        let flags = 0x04 | qos << 3 | u8::from(retain) << 5;
        self.will = Some((flags, Vec::new(), topic.to_owned(), payload.to_owned()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = field(&self.client_id);
        if let Some((will_flags, will_properties, topic, message)) = &self.will {
            flags |= will_flags;
            payload.extend(properties(self.version, will_properties));
            payload.extend(field(topic));
            payload.extend(field(message));
        }
        if let Some((user, password)) = &self.login {
            flags |= 0xC0;
            payload.extend(field(user));
            payload.extend(field(password));
        }
        let mut body = field("MQTT");
        body.extend([self.version.level(), flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(self.version, &self.properties));
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// A PUBLISH that is put together or was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) id: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Publish {
    pub(crate) fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self {
            dup: false,
            qos: 0,
            retain: false,
            topic: topic.to_owned(),
            id: 0,
            properties: Vec::new(),
            payload: payload.as_ref().to_owned(),
        }
    }

    pub(crate) fn qos(mut self, qos: u8, id: u16) -> Self {
        self.qos = qos;
        self.id = id;
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn with(mut self, properties: &[u8]) -> Self {
        self.properties.extend_from_slice(properties);
        self
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = field(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(properties(version, &self.properties));
        body.extend_from_slice(&self.payload);
        packet(first, &body)
    }

    /// Reads a PUBLISH of the broker.
    pub(crate) fn read(version: Version, first: u8, body: &[u8]) -> Self {
        let (topic, mut rest) = take_field(body);
        let qos = first >> 1 & 3;
        let mut id = 0;
        if qos > 0 {
            let (bytes, behind) = rest.split_at(2);
            id = u16::from_be_bytes([bytes[0], bytes[1]]);
            assert_ne!(id, 0, "the broker sent packet identifier 0");
            rest = behind;
        }
        let mut properties = Vec::new();
        if version.is_v5() {
            let (length, behind) = take_varint(rest);
            let (bytes, behind) = behind.split_at(length);
            properties = bytes.to_owned();
            rest = behind;
        }
        Self {
            dup: first & 8 != 0,
            qos,
            retain: first & 1 != 0,
            topic: String::from_utf8(topic.to_owned()).expect("a topic is UTF-8"),
            id,
            properties,
            payload: rest.to_owned(),
        }
    }
}

/// SUBSCRIBE of filters with their option bytes.
pub(crate) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_with(version, id, &[], filters)
}

/// SUBSCRIBE with properties.
pub(crate) fn subscribe_with(
    version: Version,
    id: u16,
    with: &[u8],
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, with));
    for (filter, options) in filters {
        body.extend(field(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &[]));
    for filter in filters {
        body.extend(field(filter));
    }
    packet(0xA2, &body)
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP: the first byte tells which.
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// The same with a reason code, which only version 5 has.
pub(crate) fn ack_with(first: u8, id: u16, reason: u8) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    packet(first, &[high, low, reason])
}

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const UNSUBACK: u8 = 0xB0;
pub(crate) const PINGRESP: u8 = 0xD0;
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

pub(crate) fn take_field(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_at(2);
    rest.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

pub(crate) fn take_varint(bytes: &[u8]) -> (usize, &[u8]) {
    let mut value = 0;
    for (n, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return (value, &bytes[n + 1..]);
        }
    }
    panic!("{bytes:?} is cut off");
}

/// The properties one by one: identifier and the bytes of the value (a string without its length).
pub(crate) fn each_property(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((&id, rest)) = bytes.split_first() {
        let (value, behind) = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => rest.split_at(1),
            0x13 | 0x21 | 0x22 | 0x23 => rest.split_at(2),
            0x02 | 0x11 | 0x18 | 0x27 => rest.split_at(4),
            0x0B => rest.split_at(rest.len() - take_varint(rest).1.len()),
            0x26 => {
                let (_, value_and_rest) = take_field(rest);
                let (_, behind) = take_field(value_and_rest);
                rest.split_at(rest.len() - behind.len())
            }
            _ => take_field(rest),
        };
        found.push((id, value.to_owned()));
        bytes = behind;
    }
    found
}

/// The value of one property.
pub(crate) fn property(bytes: &[u8], id: u8) -> Option<Vec<u8>> {
    each_property(bytes)
        .into_iter()
        .find(|(found, _)| *found == id)
        .map(|(_, value)| value)
}
