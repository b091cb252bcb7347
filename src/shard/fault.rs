//! The rules that a peer can break once its packets are well formed, and what each one earns.
//! Malformed packets are [`Violation`]s of [`crate::wire`].

use crate::wire::{ReasonCode, Violation};

/// A broken rule. Ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The packet itself is wrong.
    Wire(Violation),
    /// The first packet is not CONNECT [MQTT-3.1.0-1].
    FirstPacketNotConnect,
    /// A second CONNECT [MQTT-3.1.0-2].
    SecondConnect,
    /// A packet that only a server sends.
    ServerPacket,
    /// More unacknowledged QoS 1 and 2 messages than our Receive Maximum [MQTT-3.3.4-7].
    ReceiveMaximumExceeded,
    /// A Topic Alias above our maximum [MQTT-3.3.2-9].
    TopicAliasTooLarge,
    /// A Topic Alias that was not set before, with an empty topic name, section 3.3.2.3.4.
    TopicAliasUnknown,
    /// A QoS above the announced Maximum QoS [MQTT-3.2.2-11].
    QoSNotSupported,
    /// RETAIN 1 although retained messages are not available [MQTT-3.2.2-14].
    RetainNotSupported,
    /// A client publishes with a Subscription Identifier [MQTT-3.3.4-6].
    SubscriptionIdentifierFromClient,
    /// No Local on a shared subscription [MQTT-3.8.3-4].
    NoLocalOnShared,
    /// DISCONNECT sets a Session Expiry Interval after CONNECT said 0, section 3.14.2.2.2.
    SessionExpiryFromZero,
    /// DISCONNECT from a client with a reason that only a server uses.
    DisconnectReason,
    /// AUTH without an Authentication Method in CONNECT [MQTT-4.12.0-6].
    AuthenticationNotStarted,
    /// Nothing came for 1.5 times the Keep Alive [MQTT-3.1.2-22].
    KeepAliveTimeout,
    /// CONNECT did not come in time.
    ConnectTimeout,
    /// Another connection took the client id [MQTT-3.1.4-3].
    SessionTakenOver,
    /// A client may not publish there.
    NotAuthorized,
    /// There is no space to keep what it publishes.
    NoSpace,
    /// The broker stops.
    ShuttingDown,
}

impl Fault {
    /// What DISCONNECT tells a version 5 client.
    #[must_use]
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::Wire(violation) => violation.reason_code(),
            Self::FirstPacketNotConnect
            | Self::SecondConnect
            | Self::ServerPacket
            | Self::TopicAliasUnknown
            | Self::SubscriptionIdentifierFromClient
            | Self::NoLocalOnShared
            | Self::SessionExpiryFromZero
            | Self::DisconnectReason
            | Self::AuthenticationNotStarted => ReasonCode::ProtocolError,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasTooLarge => ReasonCode::TopicAliasInvalid,
            Self::QoSNotSupported => ReasonCode::QoSNotSupported,
            Self::RetainNotSupported => ReasonCode::RetainNotSupported,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::ConnectTimeout => ReasonCode::MaximumConnectTime,
            Self::SessionTakenOver => ReasonCode::SessionTakenOver,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::NoSpace => ReasonCode::QuotaExceeded,
            Self::ShuttingDown => ReasonCode::ServerShuttingDown,
        }
    }

    /// The rule, for the log and for the Reason String.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Wire(violation) => violation.rule(),
            Self::FirstPacketNotConnect => "the first packet must be CONNECT [MQTT-3.1.0-1]",
            Self::SecondConnect => "CONNECT may come only once [MQTT-3.1.0-2]",
            Self::ServerPacket => "only a server sends this packet",
            Self::ReceiveMaximumExceeded => "more in flight than Receive Maximum [MQTT-3.3.4-7]",
            Self::TopicAliasTooLarge => "Topic Alias above its maximum [MQTT-3.3.2-9]",
            Self::TopicAliasUnknown => "Topic Alias used before it was set (3.3.2.3.4)",
            Self::QoSNotSupported => "QoS above Maximum QoS [MQTT-3.2.2-11]",
            Self::RetainNotSupported => "retained messages are not available [MQTT-3.2.2-14]",
            Self::SubscriptionIdentifierFromClient => {
                "a client may not send a Subscription Identifier [MQTT-3.3.4-6]"
            }
            Self::NoLocalOnShared => "No Local on a shared subscription [MQTT-3.8.3-4]",
            Self::SessionExpiryFromZero => {
                "Session Expiry Interval set from 0 in DISCONNECT (3.14.2.2.2)"
            }
            Self::DisconnectReason => "a client may not send this reason",
            Self::AuthenticationNotStarted => {
                "AUTH without an Authentication Method [MQTT-4.12.0-6]"
            }
            Self::KeepAliveTimeout => "nothing came for 1.5 times Keep Alive [MQTT-3.1.2-22]",
            Self::ConnectTimeout => "CONNECT did not come in time",
            Self::SessionTakenOver => "another connection took this client id [MQTT-3.1.4-3]",
            Self::NotAuthorized => "not authorized",
            Self::NoSpace => "there is no space on disk to keep it",
            Self::ShuttingDown => "the broker shuts down",
        }
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Wire(violation)
    }
}
