//! Reason codes: table 2-6 of version 5, which of them which packet may carry, and what becomes of
//! them in a CONNACK of version 3.1.1.

use super::PacketType;

macro_rules! reason_codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        /// The outcome of an operation, in the words of version 5.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode {
            #[doc = "0x00 Success; in a DISCONNECT Normal disconnection, in a SUBACK Granted QoS 0"]
            #[default]
            Success = 0x00,
            $(
                #[doc = concat!(stringify!($value), " ", $text)]
                $name = $value,
            )*
        }

        impl ReasonCode {
            /// Every reason code there is.
            pub const ALL: &'static [Self] = &[Self::Success, $(Self::$name,)*];

            /// The reason code that this byte says.
            #[must_use]
            pub const fn from_u8(byte: u8) -> Option<Self> {
                match byte {
                    0x00 => Some(Self::Success),
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name that the standard gives it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    Self::Success => "Success",
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reason_codes! {
    GrantedQoS1 = 0x01, "Granted QoS 1";
    GrantedQoS2 = 0x02, "Granted QoS 2";
    DisconnectWithWillMessage = 0x04, "Disconnect with Will Message";
    NoMatchingSubscribers = 0x10, "No matching subscribers";
    NoSubscriptionExisted = 0x11, "No subscription existed";
    ContinueAuthentication = 0x18, "Continue authentication";
    ReAuthenticate = 0x19, "Re-authenticate";
    UnspecifiedError = 0x80, "Unspecified error";
    MalformedPacket = 0x81, "Malformed Packet";
    ProtocolError = 0x82, "Protocol Error";
    ImplementationSpecificError = 0x83, "Implementation specific error";
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version";
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid";
    BadUserNameOrPassword = 0x86, "Bad User Name or Password";
    NotAuthorized = 0x87, "Not authorized";
    ServerUnavailable = 0x88, "Server unavailable";
    ServerBusy = 0x89, "Server busy";
    Banned = 0x8A, "Banned";
    ServerShuttingDown = 0x8B, "Server shutting down";
    BadAuthenticationMethod = 0x8C, "Bad authentication method";
    KeepAliveTimeout = 0x8D, "Keep Alive timeout";
    SessionTakenOver = 0x8E, "Session taken over";
    TopicFilterInvalid = 0x8F, "Topic Filter invalid";
    TopicNameInvalid = 0x90, "Topic Name invalid";
    PacketIdentifierInUse = 0x91, "Packet Identifier in use";
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found";
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded";
    TopicAliasInvalid = 0x94, "Topic Alias invalid";
    PacketTooLarge = 0x95, "Packet too large";
    MessageRateTooHigh = 0x96, "Message rate too high";
    QuotaExceeded = 0x97, "Quota exceeded";
    AdministrativeAction = 0x98, "Administrative action";
    PayloadFormatInvalid = 0x99, "Payload format invalid";
    RetainNotSupported = 0x9A, "Retain not supported";
    QoSNotSupported = 0x9B, "QoS not supported";
    UseAnotherServer = 0x9C, "Use another server";
    ServerMoved = 0x9D, "Server moved";
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported";
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded";
    MaximumConnectTime = 0xA0, "Maximum connect time";
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported";
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// What 0x00 is called in a DISCONNECT.
    #[expect(
        non_upper_case_globals,
        reason = "an alias of a variant, named like one"
    )]
    pub const NormalDisconnection: Self = Self::Success;
    /// What 0x00 is called in a SUBACK.
    #[expect(
        non_upper_case_globals,
        reason = "an alias of a variant, named like one"
    )]
    pub const GrantedQoS0: Self = Self::Success;

    /// The byte on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether it tells of a failure.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// Whether a packet of this type may carry it, by the tables of sections 3.2.2.2, 3.4.2.1,
    /// 3.5.2.1, 3.6.2.1, 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1 and 3.15.2.1.
    #[must_use]
    pub const fn is_allowed_in(self, packet: PacketType) -> bool {
        match packet {
            // [MQTT-3.2.2-8]
            PacketType::ConnAck => matches!(
                self.as_u8(),
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
            ),
            // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
            PacketType::PubAck | PacketType::PubRec => matches!(
                self.as_u8(),
                0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
            ),
            // [MQTT-3.6.2-1] [MQTT-3.7.2-1]
            PacketType::PubRel | PacketType::PubComp => matches!(self.as_u8(), 0x00 | 0x92),
            // [MQTT-3.9.3-2]
            PacketType::SubAck => matches!(
                self.as_u8(),
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
            // [MQTT-3.11.3-2]
            PacketType::UnsubAck => {
                matches!(self.as_u8(), 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            // [MQTT-3.14.2-1]
            PacketType::Disconnect => matches!(
                self.as_u8(),
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2
            ),
            // [MQTT-3.15.2-1]
            PacketType::Auth => matches!(self.as_u8(), 0x00 | 0x18 | 0x19),
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq
            | PacketType::PingResp => false,
        }
    }

    /// The Connect Return code of version 3.1.1 that comes nearest, if one does: where none does,
    /// the connection is closed without a CONNACK [MQTT-3.2.2-6 3.1.1].
    #[must_use]
    pub const fn connect_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned => Some(5),
            _ => None,
        }
    }

    /// What a Connect Return code of version 3.1.1 is called in version 5.
    #[must_use]
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} (0x{:02X})", self.text(), self.as_u8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_codes() {
        let mut known = 0;
        for byte in 0..=u8::MAX {
            if let Some(code) = ReasonCode::from_u8(byte) {
                assert_eq!(code.as_u8(), byte);
                assert_eq!(code.is_error(), byte & 0x80 != 0);
                assert!(
                    PacketType::ALL
                        .iter()
                        .any(|packet| code.is_allowed_in(*packet)),
                    "{code}"
                );
                known += 1;
            }
        }
        assert_eq!((known, ReasonCode::ALL.len()), (43, 43), "table 2-6");
        assert_eq!(
            ReasonCode::SessionTakenOver.to_string(),
            "Session taken over (0x8E)"
        );
    }

    #[test]
    fn return_codes_of_3_1_1() {
        for code in 0..=u8::MAX {
            let reason = ReasonCode::from_connect_return_code(code);
            assert_eq!(reason.is_some(), code < 6);
            if let Some(reason) = reason {
                assert_eq!(reason.connect_return_code(), Some(code));
            }
        }
        // [MQTT-3.2.2-6 3.1.1]
        assert_eq!(ReasonCode::MalformedPacket.connect_return_code(), None);
    }
}
