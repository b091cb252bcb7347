//! CONNACK, section 3.2.

use super::acknowledge::reason_code;
use super::properties::{Property, Section, write_optional};
use super::reader::Reader;
use super::selection::Span;
use super::sink::{Body, Sink, Write};
use super::{PacketType, QoS, ReasonCode, UserProperties, Version, Violation};

/// A CONNACK packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server had state for this client.
    pub session_present: bool,
    /// In words of version 5 for every version; see [`ReasonCode::connect_return_code`].
    pub reason: ReasonCode,
    /// What version 5 adds.
    pub properties: ConnAckProperties<'a>,
}

/// The properties of a CONNACK; what is absent has the standard's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's, section 3.2.2.3")]
pub struct ConnAckProperties<'a> {
    pub session_expiry_interval: Option<u32>,
    pub receive_maximum: Option<u16>,
    /// [`QoS::ExactlyOnce`] is what absence means, and is not sent.
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_identifier: Option<&'a str>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_identifiers_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> ConnAck<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// The rule that the packet breaks.
    pub fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let flags = reader.byte()?;
        // [MQTT-3.2.2-1]
        if flags & !1 != 0 {
            return Err(Violation::ConnackFlagsReserved);
        }
        let session_present = flags & 1 != 0;
        let (reason, properties) = if version.is_v5() {
            // [MQTT-3.2.2-8]
            let reason = reason_code(&mut reader, PacketType::ConnAck)?;
            (reason, ConnAckProperties::read(&mut reader)?)
        } else {
            let reason = ReasonCode::from_connect_return_code(reader.byte()?)
                .ok_or(Violation::ReasonCodeNotAllowed)?;
            (reason, ConnAckProperties::default())
        };
        reader.finish()?;
        // [MQTT-3.2.2-6] [MQTT-3.2.2-4 3.1.1]
        if session_present && reason != ReasonCode::Success {
            return Err(Violation::SessionPresentOnRefusal);
        }
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }

    /// Appends the packet to `out`. Before version 5 some refusals have no return code; then
    /// nothing is written, because the connection is closed without a CONNACK
    /// [MQTT-3.2.2-6 3.1.1].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if !version.is_v5() && self.reason.connect_return_code().is_none() {
            return;
        }
        Body(version, self).write_packet(PacketType::ConnAck.first_byte(), out);
    }

    /// Bytes of the packet, fixed header included.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        if !version.is_v5() && self.reason.connect_return_code().is_none() {
            return 0;
        }
        Body(version, self).packet_size()
    }
}

impl<'a> ConnAckProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Violation> {
        let mut section = Section::read(reader)?;
        let mut properties = Self::default();
        let mut user_properties = Span::default();
        while let Some(property) = section.next()? {
            if let Property::UserProperty(..) = property {
                section.select(&mut user_properties);
            } else {
                properties.set(property)?;
            }
        }
        properties.user_properties = UserProperties::new(section.selection(user_properties));
        Ok(properties)
    }

    fn set(&mut self, property: Property<'a>) -> Result<(), Violation> {
        match property {
            Property::SessionExpiryInterval(value) => self.session_expiry_interval = Some(value),
            Property::ReceiveMaximum(value) => self.receive_maximum = Some(value),
            Property::MaximumQoS(value) => self.maximum_qos = Some(value),
            Property::RetainAvailable(value) => self.retain_available = Some(value),
            Property::MaximumPacketSize(value) => self.maximum_packet_size = Some(value),
            Property::AssignedClientIdentifier(text) => {
                self.assigned_client_identifier = Some(text);
            }
            Property::TopicAliasMaximum(value) => self.topic_alias_maximum = Some(value),
            Property::ReasonString(text) => self.reason_string = Some(text),
            Property::WildcardSubscriptionAvailable(value) => {
                self.wildcard_subscription_available = Some(value);
            }
            Property::SubscriptionIdentifierAvailable(value) => {
                self.subscription_identifiers_available = Some(value);
            }
            Property::SharedSubscriptionAvailable(value) => {
                self.shared_subscription_available = Some(value);
            }
            Property::ServerKeepAlive(value) => self.server_keep_alive = Some(value),
            Property::ResponseInformation(text) => self.response_information = Some(text),
            Property::ServerReference(text) => self.server_reference = Some(text),
            Property::AuthenticationMethod(text) => self.authentication_method = Some(text),
            Property::AuthenticationData(data) => self.authentication_data = Some(data),
            _ => return Err(Violation::PropertyNotAllowed),
        }
        Ok(())
    }
}

impl Write for Body<'_, ConnAck<'_>> {
    fn write<S: Sink>(&self, out: &mut S) {
        let &Self(version, packet) = self;
        let ConnAck {
            session_present,
            reason,
            properties,
        } = packet;
        // [MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT-3.2.2-4 3.1.1]
        out.byte(u8::from(*session_present && *reason == ReasonCode::Success));
        if version.is_v5() {
            out.byte(reason.as_u8());
            properties.write_with_length(out);
        } else {
            out.byte(reason.connect_return_code().unwrap_or_default());
        }
    }
}

impl Write for ConnAckProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        let maximum_qos = self.maximum_qos.filter(|&qos| qos != QoS::ExactlyOnce);
        write_optional(
            out,
            self.session_expiry_interval,
            Property::SessionExpiryInterval,
        );
        write_optional(out, self.receive_maximum, Property::ReceiveMaximum);
        write_optional(out, maximum_qos, Property::MaximumQoS);
        write_optional(out, self.retain_available, Property::RetainAvailable);
        write_optional(out, self.maximum_packet_size, Property::MaximumPacketSize);
        write_optional(
            out,
            self.assigned_client_identifier,
            Property::AssignedClientIdentifier,
        );
        write_optional(out, self.topic_alias_maximum, Property::TopicAliasMaximum);
        write_optional(out, self.reason_string, Property::ReasonString);
        write_optional(
            out,
            self.wildcard_subscription_available,
            Property::WildcardSubscriptionAvailable,
        );
        write_optional(
            out,
            self.subscription_identifiers_available,
            Property::SubscriptionIdentifierAvailable,
        );
        write_optional(
            out,
            self.shared_subscription_available,
            Property::SharedSubscriptionAvailable,
        );
        write_optional(out, self.server_keep_alive, Property::ServerKeepAlive);
        write_optional(
            out,
            self.response_information,
            Property::ResponseInformation,
        );
        write_optional(out, self.server_reference, Property::ServerReference);
        write_optional(
            out,
            self.authentication_method,
            Property::AuthenticationMethod,
        );
        write_optional(out, self.authentication_data, Property::AuthenticationData);
        self.user_properties.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_session_present() {
        // [MQTT-3.2.2-1]
        for flags in 2..=u8::MAX {
            let body = [flags, 0, 0];
            let decoded = ConnAck::decode(Version::V5, &body);
            assert_eq!(decoded, Err(Violation::ConnackFlagsReserved));
        }
        // [MQTT-3.2.2-6] [MQTT-3.2.2-4 3.1.1]
        let refusal = ConnAck::decode(Version::V5, &[1, 0x87, 0]);
        assert_eq!(refusal, Err(Violation::SessionPresentOnRefusal));
        let refusal = ConnAck::decode(Version::V3_1_1, &[1, 5]);
        assert_eq!(refusal, Err(Violation::SessionPresentOnRefusal));
        let mut out = Vec::new();
        let contradiction = ConnAck {
            session_present: true,
            reason: ReasonCode::NotAuthorized,
            ..ConnAck::default()
        };
        contradiction.encode(Version::V5, &mut out);
        contradiction.encode(Version::V3_1_1, &mut out);
        assert_eq!(out, [0x20, 3, 0, 0x87, 0, 0x20, 2, 0, 5]);
    }

    #[test]
    fn reasons() {
        // [MQTT-3.2.2-8]
        let allowed = [
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ];
        for code in 0..=u8::MAX {
            let body = [0, code, 0];
            let decoded = ConnAck::decode(Version::V5, &body);
            assert_eq!(decoded.is_ok(), allowed.contains(&code), "{code:02X}");
            assert_eq!(
                ConnAck::decode(Version::V3_1_1, &[0, code]).is_ok(),
                code < 6
            );
        }
    }

    #[test]
    fn a_refusal_that_3_1_1_has_no_code_for_is_not_sent() {
        // [MQTT-3.2.2-6 3.1.1]
        let mut out = Vec::new();
        let refusal = ConnAck {
            reason: ReasonCode::MalformedPacket,
            ..ConnAck::default()
        };
        refusal.encode(Version::V3_1_1, &mut out);
        assert_eq!((out.len(), refusal.size(Version::V3_1_1)), (0, 0));
        refusal.encode(Version::V5, &mut out);
        assert_eq!(out, [0x20, 3, 0, 0x81, 0]);
    }

    #[test]
    fn properties() {
        let everything = ConnAckProperties {
            session_expiry_interval: Some(1),
            receive_maximum: Some(2),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            maximum_packet_size: Some(3),
            assigned_client_identifier: Some("id"),
            topic_alias_maximum: Some(4),
            reason_string: Some("why"),
            wildcard_subscription_available: Some(false),
            subscription_identifiers_available: Some(true),
            shared_subscription_available: Some(false),
            server_keep_alive: Some(5),
            response_information: Some("info"),
            server_reference: Some("other"),
            authentication_method: Some("m"),
            authentication_data: Some(b"d"),
            ..ConnAckProperties::default()
        };
        let packet = ConnAck {
            properties: everything,
            ..ConnAck::default()
        };
        let mut out = Vec::new();
        packet.encode(Version::V5, &mut out);
        assert_eq!(ConnAck::decode(Version::V5, &out[2..]), Ok(packet));
        // QoS 2 is what absence means; a value of 2 is no value.
        let mut out = Vec::new();
        let properties = ConnAckProperties {
            maximum_qos: Some(QoS::ExactlyOnce),
            ..ConnAckProperties::default()
        };
        ConnAck {
            properties,
            ..packet
        }
        .encode(Version::V5, &mut out);
        assert_eq!(out, [0x20, 3, 0, 0, 0]);
        let two = ConnAck::decode(Version::V5, &[0, 0, 2, 0x24, 2]);
        assert_eq!(two, Err(Violation::PropertyValue));
        let foreign = ConnAck::decode(Version::V5, &[0, 0, 2, 0x17, 1]);
        assert_eq!(foreign, Err(Violation::PropertyNotAllowed));
    }
}
