//! CONNECT, section 3.1.

use super::framing::write_fixed_header;
use super::properties::{Property, Section, Span, write_optional};
use super::publish::topic_name;
use super::reader::Reader;
use super::sink::{Sink, Write, variable_byte_integer_size};
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
        write_fixed_header(out, PacketType::Connect.first_byte(), self.written_size());
        self.write(out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self) -> usize {
        let body = self.written_size();
        1 + variable_byte_integer_size(body) + body
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
        let topic = topic_name(reader.unchecked_topic()?)?;
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
