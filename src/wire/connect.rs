//! CONNECT, section 3.1.

use super::properties::{Property, Section, write_optional};
use super::publish::topic_name;
use super::reader::{Reader, utf8};
use super::selection::Span;
use super::sink::{Sink, Write};
use super::{Forwarded, PacketType, QoS, UserProperties, Version, Violation};
use crate::topic::Name;

/// The Connect Flags, section 3.1.2.3.
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS_SHIFT: u8 = 3;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// A CONNECT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What the rest of the connection speaks.
    pub version: Version,
    /// Clean Start; before version 5 Clean Session.
    pub clean_start: bool,
    /// Seconds; 0 is never.
    pub keep_alive: u16,
    /// May be empty; what then depends on the version and on `clean_start`.
    pub client_id: &'a str,
    /// What to publish when the connection fails.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// What version 5 adds.
    pub properties: ConnectProperties<'a>,
}

/// A Will Message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it is published.
    pub topic: Name<'a>,
    /// The application message.
    pub payload: &'a [u8],
    /// Quality of Service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Seconds from the end of the connection; 0 unless version 5 says otherwise.
    pub delay_interval: u32,
    /// Seconds.
    pub message_expiry_interval: Option<u32>,
    /// What is passed on unaltered.
    pub forwarded: Forwarded<'a>,
}

/// The properties of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds; absent is 0, `u32::MAX` is never.
    pub session_expiry_interval: Option<u32>,
    /// Absent is 65,535.
    pub receive_maximum: Option<u16>,
    /// Bytes; absent is no limit.
    pub maximum_packet_size: Option<u32>,
    /// 0 is none.
    pub topic_alias_maximum: u16,
    /// Response Information is wanted.
    pub request_response_information: bool,
    /// Reason strings and user properties are wanted; the default.
    pub request_problem_information: bool,
    /// For whoever agreed on them.
    pub user_properties: UserProperties<'a>,
    /// Enhanced authentication is wanted.
    pub authentication_method: Option<&'a str>,
    /// What the method makes of it. Only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_interval: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl<'a> Connect<'a> {
    /// The version that a CONNECT names, whether the rest of it is well-formed or not: what an
    /// answer to a broken one must be written in.
    ///
    /// # Errors
    /// Another protocol, or a version that this broker does not speak.
    pub fn announced_version(body: &[u8]) -> Result<Version, Violation> {
        read_version(&mut Reader::new(body))
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks. [MQTT-3.1.4-1] [MQTT-3.1.4-1 3.1.1]
    pub fn decode(body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        let flags = read_flags(version, &mut reader)?;
        let keep_alive = reader.two_byte_integer()?;
        let properties = if version.is_v5() {
            ConnectProperties::read(&mut reader)?
        } else {
            ConnectProperties::default()
        };
        // The fields stand in this order: [MQTT-3.1.3-1] [MQTT-3.1.3-1 3.1.1]. The client
        // identifier is always there: [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT-3.1.3-3 3.1.1]
        // [MQTT-3.1.3-4 3.1.1]
        let client_id = reader.string()?;
        if version == Version::V3_1 && client_id.is_empty() {
            return Err(Violation::ClientIdentifierEmpty);
        }
        // [MQTT-3.1.2-9] [MQTT-3.1.2-9 3.1.1]
        let will = if flags & flag::WILL == 0 {
            None
        } else {
            Some(Will::read(version, flags, &mut reader)?)
        };
        // [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18 3.1.1] [MQTT-3.1.2-19 3.1.1]
        // [MQTT-3.1.3-12] [MQTT-3.1.3-11 3.1.1]
        let username = if flags & flag::USER_NAME == 0 {
            None
        } else {
            Some(reader.string()?)
        };
        // [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20 3.1.1] [MQTT-3.1.2-21 3.1.1]
        let password = if flags & flag::PASSWORD == 0 {
            None
        } else {
            Some(reader.binary()?)
        };
        reader.finish()?;
        let clean_start = flags & flag::CLEAN_START != 0;
        Ok(Self {
            version,
            clean_start,
            keep_alive,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    /// Appends the packet to `out`, in the version that it names.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write_packet(PacketType::Connect.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.packet_size()
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= flag::CLEAN_START;
        }
        if let Some(will) = self.will {
            flags |= flag::WILL | will.qos.bits() << flag::WILL_QOS_SHIFT;
            if will.retain {
                flags |= flag::WILL_RETAIN;
            }
        }
        if self.sent_password().is_some() {
            flags |= flag::PASSWORD;
        }
        if self.username.is_some() {
            flags |= flag::USER_NAME;
        }
        flags
    }

    /// The password, if this version can say it [MQTT-3.1.2-22 3.1.1].
    fn sent_password(&self) -> Option<&'a [u8]> {
        self.password
            .filter(|_| self.version.is_v5() || self.username.is_some())
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, Violation> {
    // [MQTT-3.1.2-1] [MQTT-3.1.2-1 3.1.1]; the name's bytes, because it need not be UTF-8 yet.
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Violation::ProtocolName);
    }
    // [MQTT-3.1.2-2] [MQTT-3.1.2-2 3.1.1]
    match (name, reader.byte()?) {
        (b"MQIsdp", 3) => Ok(Version::V3_1),
        (b"MQTT", 4) => Ok(Version::V3_1_1),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(Violation::UnsupportedProtocolVersion),
    }
}

fn read_flags(version: Version, reader: &mut Reader<'_>) -> Result<u8, Violation> {
    let flags = reader.byte()?;
    // [MQTT-3.1.2-3] [MQTT-3.1.2-3 3.1.1]
    if flags & flag::RESERVED != 0 {
        return Err(Violation::ConnectFlagsReserved);
    }
    let will_qos = (flags >> flag::WILL_QOS_SHIFT) & 3;
    if flags & flag::WILL == 0 {
        // [MQTT-3.1.2-11] [MQTT-3.1.2-11 3.1.1] [MQTT-3.1.2-13 3.1.1]
        if will_qos != 0 {
            return Err(Violation::WillQosWithoutWill);
        }
        // [MQTT-3.1.2-13] [MQTT-3.1.2-15 3.1.1]
        if flags & flag::WILL_RETAIN != 0 {
            return Err(Violation::WillRetainWithoutWill);
        }
    }
    // [MQTT-3.1.2-12] [MQTT-3.1.2-14 3.1.1]
    if will_qos == 3 {
        return Err(Violation::WillQosThree);
    }
    // [MQTT-3.1.2-22 3.1.1]; version 5 allows it.
    if !version.is_v5() && flags & (flag::USER_NAME | flag::PASSWORD) == flag::PASSWORD {
        return Err(Violation::PasswordWithoutUserName);
    }
    Ok(flags)
}

impl<'a> Will<'a> {
    fn read(version: Version, flags: u8, reader: &mut Reader<'a>) -> Result<Self, Violation> {
        let mut delay_interval = 0;
        let mut message_expiry_interval = None;
        let mut forwarded = Forwarded::default();
        if version.is_v5() {
            let mut section = Section::read(reader)?;
            let mut span = Span::default();
            while let Some(property) = section.next()? {
                match property {
                    Property::WillDelayInterval(seconds) => delay_interval = seconds,
                    Property::MessageExpiryInterval(seconds) => {
                        message_expiry_interval = Some(seconds);
                    }
                    Property::PayloadFormatIndicator(_)
                    | Property::ContentType(_)
                    | Property::ResponseTopic(_)
                    | Property::CorrelationData(_)
                    | Property::UserProperty(..) => section.select(&mut span),
                    _ => return Err(Violation::PropertyNotAllowed),
                }
            }
            forwarded = Forwarded::new(section.selection(span));
        }
        // [MQTT-3.1.3-11] [MQTT-3.1.3-10 3.1.1]
        let topic = topic_name(utf8(reader.binary()?)?)?;
        let payload = reader.binary()?;
        let qos = QoS::from_bits((flags >> flag::WILL_QOS_SHIFT) & 3);
        Ok(Self {
            topic,
            payload,
            qos: qos.ok_or(Violation::WillQosThree)?,
            retain: flags & flag::WILL_RETAIN != 0,
            delay_interval,
            message_expiry_interval,
            forwarded,
        })
    }
}

impl<'a> ConnectProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Violation> {
        let mut section = Section::read(reader)?;
        let mut properties = Self::default();
        let mut user_properties = Span::default();
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiryInterval(seconds) => {
                    properties.session_expiry_interval = Some(seconds);
                }
                Property::ReceiveMaximum(maximum) => properties.receive_maximum = Some(maximum),
                Property::MaximumPacketSize(bytes) => properties.maximum_packet_size = Some(bytes),
                Property::TopicAliasMaximum(maximum) => properties.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(wanted) => {
                    properties.request_response_information = wanted;
                }
                Property::RequestProblemInformation(wanted) => {
                    properties.request_problem_information = wanted;
                }
                Property::UserProperty(..) => section.select(&mut user_properties),
                Property::AuthenticationMethod(text) => {
                    properties.authentication_method = Some(text);
                }
                Property::AuthenticationData(data) => properties.authentication_data = Some(data),
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        properties.user_properties = UserProperties::new(section.selection(user_properties));
        // Section 3.1.2.11.10
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(Violation::AuthenticationDataWithoutMethod);
        }
        Ok(properties)
    }
}

impl Write for Connect<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        out.string(self.version.protocol_name());
        out.byte(self.version.level());
        out.byte(self.flags());
        out.two_byte_integer(self.keep_alive);
        if self.version.is_v5() {
            self.properties.write_with_length(out);
        }
        out.string(self.client_id);
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                WillProperties(will).write_with_length(out);
            }
            out.string(will.topic.as_str());
            out.binary(will.payload);
        }
        if let Some(username) = self.username {
            out.string(username);
        }
        if let Some(password) = self.sent_password() {
            out.binary(password);
        }
    }
}

struct WillProperties<'a>(&'a Will<'a>);

impl Write for WillProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        let delay = Some(self.0.delay_interval).filter(|&seconds| seconds != 0);
        write_optional(out, delay, Property::WillDelayInterval);
        write_optional(
            out,
            self.0.message_expiry_interval,
            Property::MessageExpiryInterval,
        );
        self.0.forwarded.write(out);
    }
}

impl Write for ConnectProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        write_optional(
            out,
            self.session_expiry_interval,
            Property::SessionExpiryInterval,
        );
        write_optional(out, self.receive_maximum, Property::ReceiveMaximum);
        write_optional(out, self.maximum_packet_size, Property::MaximumPacketSize);
        if self.topic_alias_maximum != 0 {
            Property::TopicAliasMaximum(self.topic_alias_maximum).write(out);
        }
        if self.request_response_information {
            Property::RequestResponseInformation(true).write(out);
        }
        if !self.request_problem_information {
            Property::RequestProblemInformation(false).write(out);
        }
        write_optional(
            out,
            self.authentication_method,
            Property::AuthenticationMethod,
        );
        if self.authentication_method.is_some() {
            write_optional(out, self.authentication_data, Property::AuthenticationData);
        }
        self.user_properties.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CONNECT of 3.1.1 with these flags and this payload.
    fn v3(flags: u8, payload: &[u8]) -> Vec<u8> {
        [b"\0\x04MQTT\x04", &[flags][..], b"\0\x3C", payload].concat()
    }

    /// A CONNECT of 5.0 with these flags, properties and payload.
    fn v5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(properties.len()).unwrap();
        [
            b"\0\x04MQTT\x05",
            &[flags][..],
            b"\0\x3C",
            &[length],
            properties,
            payload,
        ]
        .concat()
    }

    fn refused(body: &[u8]) -> Violation {
        Connect::decode(body).expect_err("it breaks a rule")
    }

    #[test]
    fn name_and_version() {
        // [MQTT-3.1.2-1] [MQTT-3.1.2-1 3.1.1]
        for body in [
            &b"\0\x04MQTX\x04\x02\0\0\0\0"[..],
            b"\0\x04mqtt\x04\x02\0\0\0\0",
            b"\0\0\x04",
        ] {
            assert_eq!(refused(body), Violation::ProtocolName);
            assert_eq!(
                Connect::announced_version(body),
                Err(Violation::ProtocolName)
            );
        }
        // [MQTT-3.1.2-2] [MQTT-3.1.2-2 3.1.1]
        for level in [0, 1, 2, 3, 6, 0x83, 0x84, 255] {
            let body = [b"\0\x04MQTT", &[level][..], b"\x02\0\0\0\0"].concat();
            assert_eq!(refused(&body), Violation::UnsupportedProtocolVersion);
        }
        assert_eq!(
            refused(b"\0\x06MQIsdp\x04\x02\0\0\0\0"),
            Violation::UnsupportedProtocolVersion
        );
        // What comes behind the version may be broken; the version is known all the same.
        assert_eq!(
            Connect::announced_version(b"\0\x04MQTT\x05"),
            Ok(Version::V5)
        );
        assert_eq!(
            Connect::announced_version(b"\0\x06MQIsdp\x03"),
            Ok(Version::V3_1)
        );
    }

    #[test]
    fn connect_flags() {
        let client = b"\0\x01c";
        // [MQTT-3.1.2-3] [MQTT-3.1.2-3 3.1.1]
        assert_eq!(refused(&v3(0x03, client)), Violation::ConnectFlagsReserved);
        assert_eq!(
            refused(&v5(0x03, b"", client)),
            Violation::ConnectFlagsReserved
        );
        // [MQTT-3.1.2-11] [MQTT-3.1.2-11 3.1.1] [MQTT-3.1.2-13 3.1.1]
        for flags in [0x08, 0x10, 0x18] {
            assert_eq!(refused(&v3(flags, client)), Violation::WillQosWithoutWill);
            assert_eq!(
                refused(&v5(flags, b"", client)),
                Violation::WillQosWithoutWill
            );
        }
        // [MQTT-3.1.2-13] [MQTT-3.1.2-15 3.1.1]
        assert_eq!(refused(&v3(0x20, client)), Violation::WillRetainWithoutWill);
        assert_eq!(
            refused(&v5(0x20, b"", client)),
            Violation::WillRetainWithoutWill
        );
        // [MQTT-3.1.2-12] [MQTT-3.1.2-14 3.1.1]
        assert_eq!(
            refused(&v3(0x1C, b"\0\x01c\0\x01w\0\0")),
            Violation::WillQosThree
        );
        assert_eq!(
            refused(&v5(0x1C, b"", b"\0\x01c\0\0\x01w\0\0")),
            Violation::WillQosThree
        );
    }

    #[test]
    fn a_password_alone_is_for_version_5() {
        // [MQTT-3.1.2-22 3.1.1]
        assert_eq!(
            refused(&v3(0x40, b"\0\x01c\0\x01p")),
            Violation::PasswordWithoutUserName
        );
        let body = v5(0x40, b"", b"\0\x01c\0\x01p");
        let connect = Connect::decode(&body).unwrap();
        assert_eq!(
            (connect.username, connect.password),
            (None, Some(&b"p"[..]))
        );
        let mut out = Vec::new();
        Connect {
            version: Version::V3_1_1,
            ..connect
        }
        .encode(&mut out);
        assert_eq!(
            out[2..],
            v3(0, b"\0\x01c"),
            "an invalid packet is never sent"
        );
    }

    #[test]
    fn fields_come_in_the_order_of_the_standard_and_as_the_flags_say() {
        // [MQTT-3.1.3-1] [MQTT-3.1.3-1 3.1.1] [MQTT-3.1.3-3] [MQTT-3.1.3-3 3.1.1] [MQTT-3.1.2-9]
        // [MQTT-3.1.2-9 3.1.1] [MQTT-3.1.2-17] [MQTT-3.1.2-19 3.1.1] [MQTT-3.1.2-19]
        // [MQTT-3.1.2-21 3.1.1]
        let body = v3(0xF6, b"\0\x01c\0\x01w\0\x02\xFF\0\0\x01u\0\x01\xFE");
        let connect = Connect::decode(&body).unwrap();
        assert_eq!(connect.version, Version::V3_1_1);
        assert!(connect.clean_start);
        assert_eq!((connect.keep_alive, connect.client_id), (60, "c"));
        let will = connect.will.unwrap();
        assert_eq!((will.topic.as_str(), will.payload), ("w", &b"\xFF\0"[..]));
        assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
        assert_eq!(
            (connect.username, connect.password),
            (Some("u"), Some(&b"\xFE"[..]))
        );
        // Every field that a flag promises must be there.
        for end in 0..body.len() {
            assert_eq!(
                Connect::decode(&body[..end]),
                Err(Violation::Truncated),
                "{end}"
            );
        }
        // [MQTT-3.1.2-16] [MQTT-3.1.2-18] [MQTT-3.1.2-18 3.1.1] [MQTT-3.1.2-20 3.1.1]
        // [MQTT-3.1.4-1] [MQTT-3.1.4-1 3.1.1]: what no flag promises must not.
        assert_eq!(
            refused(&v3(0x02, b"\0\x01c\0\x01u")),
            Violation::TrailingBytes
        );
        assert_eq!(
            refused(&v3(0x82, b"\0\x01c\0\x01u\0\x01p")),
            Violation::TrailingBytes
        );
    }

    #[test]
    fn strings_of_a_connect_are_utf8() {
        // [MQTT-3.1.3-4] [MQTT-3.1.3-4 3.1.1]
        assert_eq!(refused(&v3(0x02, b"\0\x01\xFF")), Violation::StringNotUtf8);
        // [MQTT-3.1.3-11] [MQTT-3.1.3-10 3.1.1]
        assert_eq!(
            refused(&v3(0x06, b"\0\x01c\0\x01\xFF\0\0")),
            Violation::StringNotUtf8
        );
        // [MQTT-3.1.3-12] [MQTT-3.1.3-11 3.1.1]
        assert_eq!(
            refused(&v3(0x82, b"\0\x01c\0\x01\xFF")),
            Violation::StringNotUtf8
        );
        assert_eq!(
            refused(&v3(0x82, b"\0\x01c\0\x01\0")),
            Violation::StringWithNul
        );
    }

    #[test]
    fn a_will_topic_is_a_topic_name() {
        for (topic, violation) in [
            (&b"\0\x01#"[..], Violation::TopicNameWildcard),
            (b"\0\0", Violation::TopicNameEmpty),
            (b"\0\x01\0", Violation::StringWithNul),
        ] {
            assert_eq!(
                refused(&v3(0x06, &[b"\0\x01c", topic, b"\0\0"].concat())),
                violation
            );
        }
    }

    #[test]
    fn version_3_1_needs_a_client_identifier() {
        let with = b"\0\x06MQIsdp\x03\x02\0\0\0\x01c";
        assert_eq!(Connect::decode(with).unwrap().version, Version::V3_1);
        let without = refused(b"\0\x06MQIsdp\x03\x02\0\0\0\0");
        assert_eq!(without, Violation::ClientIdentifierEmpty);
        assert_eq!(without.reason_code().connect_return_code(), Some(2));
        // Later versions leave it to the session.
        assert_eq!(Connect::decode(&v3(0x02, b"\0\0")).unwrap().client_id, "");
    }

    #[test]
    fn properties_of_a_connect_and_of_its_will() {
        let properties = b"\x11\0\0\0\x05\x21\0\x06\x27\0\0\0\x07\x22\0\x08\x19\x01\x17\0\
            \x26\0\x01a\0\x01b\x15\0\x01m\x16\0\x01d";
        let will = b"\x18\0\0\0\x09\x01\x01\x02\0\0\0\x0A\x03\0\x01t";
        let payload = [b"\0\0", &[16][..], will, b"\0\x01w\0\x01p"].concat();
        let body = v5(0x06, properties, &payload);
        let connect = Connect::decode(&body).unwrap();
        let properties = connect.properties;
        assert_eq!(properties.session_expiry_interval, Some(5));
        assert_eq!(properties.receive_maximum, Some(6));
        assert_eq!(properties.maximum_packet_size, Some(7));
        assert_eq!(properties.topic_alias_maximum, 8);
        assert!(properties.request_response_information);
        assert!(!properties.request_problem_information);
        assert_eq!(
            properties.user_properties.iter().collect::<Vec<_>>(),
            [("a", "b")]
        );
        assert_eq!(properties.authentication_method, Some("m"));
        assert_eq!(properties.authentication_data, Some(&b"d"[..]));
        let will = connect.will.unwrap();
        assert_eq!(
            (will.delay_interval, will.message_expiry_interval),
            (9, Some(10))
        );
        // [MQTT-3.1.3-10]
        let mut forwarded = Vec::new();
        will.forwarded.write_to(&mut forwarded);
        assert_eq!(forwarded, b"\x01\x01\x03\0\x01t");
        assert!(
            ConnectProperties::default().request_problem_information,
            "absent is 1"
        );
    }

    #[test]
    fn values_that_a_property_does_not_allow() {
        for (properties, violation) in [
            (&b"\x21\0\0"[..], Violation::PropertyValue),
            (b"\x27\0\0\0\0", Violation::PropertyValue),
            (b"\x17\x02", Violation::PropertyValue),
            (b"\x19\x02", Violation::PropertyValue),
            (b"\x16\0\x01d", Violation::AuthenticationDataWithoutMethod),
            (b"\x23\0\x01", Violation::PropertyNotAllowed),
            (b"\x18\0\0\0\x01", Violation::PropertyNotAllowed),
            (b"\x17\0\x17\0", Violation::PropertyTwice),
        ] {
            assert_eq!(
                refused(&v5(0x02, properties, b"\0\x01c")),
                violation,
                "{properties:?}"
            );
        }
        let will = v5(0x06, b"", b"\0\x01c\x05\x11\0\0\0\x01\0\x01w\0\0");
        assert_eq!(refused(&will), Violation::PropertyNotAllowed);
    }
}
