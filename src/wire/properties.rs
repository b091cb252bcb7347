//! Properties of version 5, section 2.2.2: one by one, and the section they come in.
//!
//! A property section is validated once, whole, when its packet is decoded. What a packet's decoder
//! does not need at once it puts into a [`Selection`].

use super::reader::Reader;
use super::selection::{Selection, Span};
use super::sink::{Sink, Write};
use super::{QoS, Violation};
use crate::topic::Name;

/// The Property Identifiers, table 2-4.
pub(super) mod identifier {
    pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// One property and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names are the standard's, table 2-4; there is no more to say"
)]
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// A byte that is 0 or 1.
#[inline]
fn boolean(reader: &mut Reader<'_>) -> Result<bool, Violation> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Violation::PropertyValue),
    }
}

#[inline]
fn nonzero<T: Default + PartialEq>(value: T, otherwise: Violation) -> Result<T, Violation> {
    if value == T::default() {
        Err(otherwise)
    } else {
        Ok(value)
    }
}

impl<'a> Property<'a> {
    /// Reads one property and checks what its own definition says about its value.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Violation> {
        // An identifier is a Variable Byte Integer, but all that exist fit its first byte.
        let identifier = reader.byte()?;
        Self::read_value(identifier, reader)
    }

    /// Reads what follows an identifier.
    #[inline]
    pub(super) fn read_value(identifier: u8, reader: &mut Reader<'a>) -> Result<Self, Violation> {
        Ok(match identifier {
            identifier::PAYLOAD_FORMAT_INDICATOR => {
                Self::PayloadFormatIndicator(u8::from(boolean(reader)?))
            }
            identifier::MESSAGE_EXPIRY_INTERVAL => {
                Self::MessageExpiryInterval(reader.four_byte_integer()?)
            }
            // [MQTT-3.3.2-19]
            identifier::CONTENT_TYPE => Self::ContentType(reader.string()?),
            identifier::RESPONSE_TOPIC => {
                // [MQTT-3.3.2-13] [MQTT-3.3.2-14]
                let topic = reader.string()?;
                Name::parse(topic).map_err(|_| Violation::ResponseTopicInvalid)?;
                Self::ResponseTopic(topic)
            }
            identifier::CORRELATION_DATA => Self::CorrelationData(reader.binary()?),
            identifier::SUBSCRIPTION_IDENTIFIER => {
                let identifier = reader.variable_byte_integer()?;
                Self::SubscriptionIdentifier(nonzero(identifier, Violation::PropertyValue)?)
            }
            identifier::TOPIC_ALIAS => {
                // [MQTT-3.3.2-8]
                let alias = nonzero(reader.two_byte_integer()?, Violation::TopicAliasZero)?;
                Self::TopicAlias(alias)
            }
            // [MQTT-1.5.7-1]
            identifier::USER_PROPERTY => Self::UserProperty(reader.string()?, reader.string()?),
            _ => return Self::read_rare(identifier, reader),
        })
    }

    /// Those that no PUBLISH carries, out of the way of those that one does.
    fn read_rare(identifier: u8, reader: &mut Reader<'a>) -> Result<Self, Violation> {
        Ok(match identifier {
            identifier::SESSION_EXPIRY_INTERVAL => {
                Self::SessionExpiryInterval(reader.four_byte_integer()?)
            }
            identifier::ASSIGNED_CLIENT_IDENTIFIER => {
                Self::AssignedClientIdentifier(reader.string()?)
            }
            identifier::SERVER_KEEP_ALIVE => Self::ServerKeepAlive(reader.two_byte_integer()?),
            identifier::AUTHENTICATION_METHOD => Self::AuthenticationMethod(reader.string()?),
            identifier::AUTHENTICATION_DATA => Self::AuthenticationData(reader.binary()?),
            identifier::REQUEST_PROBLEM_INFORMATION => {
                Self::RequestProblemInformation(boolean(reader)?)
            }
            identifier::WILL_DELAY_INTERVAL => Self::WillDelayInterval(reader.four_byte_integer()?),
            identifier::REQUEST_RESPONSE_INFORMATION => {
                Self::RequestResponseInformation(boolean(reader)?)
            }
            identifier::RESPONSE_INFORMATION => Self::ResponseInformation(reader.string()?),
            identifier::SERVER_REFERENCE => Self::ServerReference(reader.string()?),
            identifier::REASON_STRING => Self::ReasonString(reader.string()?),
            identifier::RECEIVE_MAXIMUM => {
                let maximum = nonzero(reader.two_byte_integer()?, Violation::PropertyValue)?;
                Self::ReceiveMaximum(maximum)
            }
            identifier::TOPIC_ALIAS_MAXIMUM => Self::TopicAliasMaximum(reader.two_byte_integer()?),
            identifier::MAXIMUM_QOS => Self::MaximumQoS(match reader.byte()? {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => return Err(Violation::PropertyValue),
            }),
            identifier::RETAIN_AVAILABLE => Self::RetainAvailable(boolean(reader)?),
            identifier::MAXIMUM_PACKET_SIZE => {
                let maximum = nonzero(reader.four_byte_integer()?, Violation::PropertyValue)?;
                Self::MaximumPacketSize(maximum)
            }
            identifier::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                Self::WildcardSubscriptionAvailable(boolean(reader)?)
            }
            identifier::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                Self::SubscriptionIdentifierAvailable(boolean(reader)?)
            }
            identifier::SHARED_SUBSCRIPTION_AVAILABLE => {
                Self::SharedSubscriptionAvailable(boolean(reader)?)
            }
            _ => return Err(Violation::PropertyUnknown),
        })
    }

    /// Its Property Identifier.
    #[must_use]
    pub const fn identifier(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => identifier::PAYLOAD_FORMAT_INDICATOR,
            Self::MessageExpiryInterval(_) => identifier::MESSAGE_EXPIRY_INTERVAL,
            Self::ContentType(_) => identifier::CONTENT_TYPE,
            Self::ResponseTopic(_) => identifier::RESPONSE_TOPIC,
            Self::CorrelationData(_) => identifier::CORRELATION_DATA,
            Self::SubscriptionIdentifier(_) => identifier::SUBSCRIPTION_IDENTIFIER,
            Self::SessionExpiryInterval(_) => identifier::SESSION_EXPIRY_INTERVAL,
            Self::AssignedClientIdentifier(_) => identifier::ASSIGNED_CLIENT_IDENTIFIER,
            Self::ServerKeepAlive(_) => identifier::SERVER_KEEP_ALIVE,
            Self::AuthenticationMethod(_) => identifier::AUTHENTICATION_METHOD,
            Self::AuthenticationData(_) => identifier::AUTHENTICATION_DATA,
            Self::RequestProblemInformation(_) => identifier::REQUEST_PROBLEM_INFORMATION,
            Self::WillDelayInterval(_) => identifier::WILL_DELAY_INTERVAL,
            Self::RequestResponseInformation(_) => identifier::REQUEST_RESPONSE_INFORMATION,
            Self::ResponseInformation(_) => identifier::RESPONSE_INFORMATION,
            Self::ServerReference(_) => identifier::SERVER_REFERENCE,
            Self::ReasonString(_) => identifier::REASON_STRING,
            Self::ReceiveMaximum(_) => identifier::RECEIVE_MAXIMUM,
            Self::TopicAliasMaximum(_) => identifier::TOPIC_ALIAS_MAXIMUM,
            Self::TopicAlias(_) => identifier::TOPIC_ALIAS,
            Self::MaximumQoS(_) => identifier::MAXIMUM_QOS,
            Self::RetainAvailable(_) => identifier::RETAIN_AVAILABLE,
            Self::UserProperty(..) => identifier::USER_PROPERTY,
            Self::MaximumPacketSize(_) => identifier::MAXIMUM_PACKET_SIZE,
            Self::WildcardSubscriptionAvailable(_) => identifier::WILDCARD_SUBSCRIPTION_AVAILABLE,
            Self::SubscriptionIdentifierAvailable(_) => {
                identifier::SUBSCRIPTION_IDENTIFIER_AVAILABLE
            }
            Self::SharedSubscriptionAvailable(_) => identifier::SHARED_SUBSCRIPTION_AVAILABLE,
        }
    }

    /// Appends it to properties that are being put together, for [`Forwarded::from_bytes`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out);
    }
}

impl Write for Property<'_> {
    #[inline]
    fn write<S: Sink>(&self, out: &mut S) {
        out.byte(self.identifier());
        match *self {
            Self::PayloadFormatIndicator(value) => out.byte(value),
            Self::MaximumQoS(value) => out.byte(value.bits()),
            Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => out.byte(u8::from(value)),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => out.two_byte_integer(value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => out.four_byte_integer(value),
            Self::SubscriptionIdentifier(value) => out.variable_byte_integer(value as usize),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => out.string(text),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => out.binary(bytes),
            Self::UserProperty(name, value) => {
                out.string(name);
                out.string(value);
            }
        }
    }
}

/// Writes a property that may be absent.
#[inline]
pub(super) fn write_optional<'a, S: Sink, T>(
    out: &mut S,
    value: Option<T>,
    property: impl FnOnce(T) -> Property<'a>,
) {
    if let Some(value) = value {
        property(value).write(out);
    }
}

/// A property section that is being read.
pub(super) struct Section<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    /// One bit per identifier that was there and may not be there again.
    seen: u64,
    /// Where the property that was read last begins.
    start: usize,
}

impl<'a> Section<'a> {
    /// Reads the Property Length; what it counts must be there.
    #[inline]
    pub(super) fn read(packet: &mut Reader<'a>) -> Result<Self, Violation> {
        let length = packet.variable_byte_integer()?;
        let bytes = packet.take(length as usize)?;
        Ok(Self {
            bytes,
            reader: Reader::new(bytes),
            seen: 0,
            start: 0,
        })
    }

    /// The next property's identifier; its value must be read next. Only User Property and
    /// Subscription Identifier may come again; the latter only in a PUBLISH, which is for SUBSCRIBE
    /// to check.
    #[inline]
    pub(super) fn next_identifier(&mut self) -> Result<Option<u8>, Violation> {
        const REPEATABLE: u64 =
            1 << identifier::USER_PROPERTY | 1 << identifier::SUBSCRIPTION_IDENTIFIER;
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.start = self.position();
        let identifier = self.reader.byte()?;
        let bit = 1_u64
            .checked_shl(identifier.into())
            .ok_or(Violation::PropertyUnknown)?;
        if self.seen & bit & !REPEATABLE != 0 {
            return Err(Violation::PropertyTwice);
        }
        self.seen |= bit;
        Ok(Some(identifier))
    }

    /// The next property.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, Violation> {
        match self.next_identifier()? {
            None => Ok(None),
            Some(identifier) => Property::read_value(identifier, &mut self.reader).map(Some),
        }
    }

    /// For reading a value behind [`Section::next_identifier`].
    #[inline]
    pub(super) fn value(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }

    #[inline]
    fn position(&self) -> usize {
        self.bytes.len() - self.reader.rest().len()
    }

    /// Puts the property that was read last into `selection`.
    #[inline]
    pub(super) fn select(&self, selection: &mut Span) {
        if selection.length == 0 {
            selection.start = self.start;
        }
        selection.end = self.position();
        selection.length += selection.end - self.start;
    }

    /// The bytes of a selection.
    #[inline]
    pub(super) fn selection(&self, span: Span) -> Selection<'a> {
        Selection {
            bytes: &self.bytes[span.start..span.end],
            length: span.length,
        }
    }
}
