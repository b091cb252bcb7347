//! What a peer broke, one name per rule, and the one table from there to reason codes.
//!
//! A Malformed Packet (0x81) cannot be parsed; a Protocol Error (0x82) parses and says what the
//! protocol forbids. Where the standard names a more precise code for a rule, the table has it.

use super::ReasonCode;

macro_rules! violations {
    ($($name:ident, $code:ident, $rule:literal;)*) => {
        /// A rule of the standard that a packet breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(
                #[doc = $rule]
                $name,
            )*
        }

        impl Violation {
            /// Every violation there is, for counters and tables.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the peer is told, in a DISCONNECT or CONNACK of version 5.
            #[must_use]
            pub const fn reason_code(self) -> ReasonCode {
                match self {
                    $(Self::$name => ReasonCode::$code,)*
                }
            }

            /// The rule in words, with the statement of version 5 (or of 3.1.1 where it says so)
            /// that it comes from: fit for a reason string and for the log.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)*
                }
            }

            /// The name of the rule, for counters.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

violations! {
    // Framing and data types.
    PacketTypeReserved, MalformedPacket, "packet type 0 is reserved, and 15 before version 5 (2.1.2)";
    FixedHeaderFlags, MalformedPacket, "reserved flags of the fixed header have fixed values [MQTT-2.1.3-1]";
    RemainingLengthTooLong, MalformedPacket, "a Remaining Length has at most four bytes (1.5.5)";
    VariableByteIntegerTooLong, MalformedPacket, "a Variable Byte Integer has at most four bytes (1.5.5)";
    VariableByteIntegerNotMinimal, MalformedPacket, "a Variable Byte Integer uses as few bytes as possible [MQTT-1.5.5-1]";
    PacketTooLarge, PacketTooLarge, "the packet exceeds the Maximum Packet Size [MQTT-3.2.2-15]";
    Truncated, MalformedPacket, "a field reaches beyond the end of its packet";
    TrailingBytes, MalformedPacket, "bytes follow the last field of the packet";
    StringNotUtf8, MalformedPacket, "a string is well-formed UTF-8 [MQTT-1.5.4-1]";
    StringWithNul, MalformedPacket, "a string does not contain U+0000 [MQTT-1.5.4-2]";
    PacketIdZero, MalformedPacket, "a Packet Identifier is not zero [MQTT-2.2.1-3]";
    ReasonCodeNotAllowed, ProtocolError, "the Reason Code is none that this packet may carry (2.4)";

    // Properties.
    PropertyUnknown, MalformedPacket, "no such property identifier (2.2.2.2)";
    PropertyNotAllowed, MalformedPacket, "this packet may not carry this property (2.2.2.2)";
    PropertyTwice, ProtocolError, "this property may stand in the packet only once (2.2.2.2)";
    PropertyValue, ProtocolError, "the property does not allow this value (2.2.2.2)";
    TopicAliasZero, TopicAliasInvalid, "a Topic Alias is not zero [MQTT-3.3.2-8]";
    ResponseTopicInvalid, ProtocolError, "a Response Topic is a topic name without wildcards [MQTT-3.3.2-14]";
    AuthenticationDataWithoutMethod, ProtocolError, "Authentication Data needs an Authentication Method (3.1.2.11.10)";
    AuthenticationMethodMissing, ProtocolError, "an AUTH names its Authentication Method (3.15.2.2.2)";

    // CONNECT and CONNACK.
    ProtocolName, UnsupportedProtocolVersion, "the protocol name is MQTT [MQTT-3.1.2-1]";
    UnsupportedProtocolVersion, UnsupportedProtocolVersion, "the protocol version is 3, 4 or 5 [MQTT-3.1.2-2]";
    ConnectFlagsReserved, MalformedPacket, "the reserved CONNECT flag is zero [MQTT-3.1.2-3]";
    WillQosWithoutWill, MalformedPacket, "without a will the Will QoS is zero [MQTT-3.1.2-11]";
    WillQosThree, MalformedPacket, "the Will QoS is 0, 1 or 2 [MQTT-3.1.2-12]";
    WillRetainWithoutWill, MalformedPacket, "without a will the Will Retain flag is zero [MQTT-3.1.2-13]";
    PasswordWithoutUserName, MalformedPacket, "a password needs a user name [MQTT-3.1.2-22 3.1.1]";
    ClientIdentifierEmpty, ClientIdentifierNotValid, "version 3.1 needs a client identifier";
    ConnackFlagsReserved, MalformedPacket, "reserved CONNACK flags are zero [MQTT-3.2.2-1]";
    SessionPresentOnRefusal, ProtocolError, "a refusing CONNACK has Session Present 0 [MQTT-3.2.2-6]";

    // PUBLISH.
    QosThree, MalformedPacket, "a PUBLISH does not have both QoS bits set [MQTT-3.3.1-4]";
    DupOnQosZero, MalformedPacket, "a PUBLISH of QoS 0 is no duplicate [MQTT-3.3.1-2]";
    TopicNameEmpty, TopicNameInvalid, "a topic name has at least one character [MQTT-4.7.3-1]";
    TopicNameMissing, ProtocolError, "an empty topic name needs a Topic Alias (3.3.2.1)";
    TopicNameWildcard, TopicNameInvalid, "a topic name has no wildcards [MQTT-3.3.2-2]";
    TopicNameTooManyLevels, TopicNameInvalid, "the topic name has too many levels";
    SubscriptionIdentifierFromClient, ProtocolError, "a client's PUBLISH has no Subscription Identifier [MQTT-3.3.4-6]";

    // SUBSCRIBE and UNSUBSCRIBE.
    NoTopicFilter, ProtocolError, "at least one topic filter is asked for [MQTT-3.8.3-2]";
    SubscriptionOptionsReserved, MalformedPacket, "reserved subscription options are zero [MQTT-3.8.3-5]";
    SubscriptionQosThree, ProtocolError, "the Maximum QoS is 0, 1 or 2 (3.8.3.1)";
    RetainHandlingThree, ProtocolError, "Retain Handling is 0, 1 or 2 (3.8.3.1)";
    NoLocalOnSharedSubscription, ProtocolError, "a Shared Subscription has no No Local [MQTT-3.8.3-4]";
    NoReasonCode, MalformedPacket, "a SUBACK or UNSUBACK answers at least one filter (3.9.3)";
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.rule())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PacketType;

    #[test]
    fn every_violation_can_be_told_and_named() {
        for violation in Violation::ALL {
            let code = violation.reason_code();
            // It can arise before or after CONNACK, so one of the two packets can say it.
            let sayable = code.is_allowed_in(PacketType::Disconnect)
                || code.is_allowed_in(PacketType::ConnAck);
            assert!(code.is_error() && sayable, "{violation:?}");
            assert!(
                violation.rule().len() > 20 && violation.rule().is_ascii(),
                "{violation:?}"
            );
            assert_eq!(violation.to_string(), violation.rule());
            assert_eq!(format!("{violation:?}"), violation.name());
        }
    }

    #[test]
    fn codes_that_the_standard_names_for_a_rule() {
        for (violation, code) in [
            (Violation::PacketTooLarge, 0x95),
            (Violation::TopicAliasZero, 0x94),
            (Violation::TopicNameWildcard, 0x90),
            (Violation::UnsupportedProtocolVersion, 0x84),
            (Violation::PropertyTwice, 0x82),
            (Violation::PropertyUnknown, 0x81),
            (Violation::FixedHeaderFlags, 0x81),
            (Violation::SubscriptionIdentifierFromClient, 0x82),
        ] {
            assert_eq!(violation.reason_code().as_u8(), code, "{violation:?}");
        }
    }
}
