//! What a client says in CONNECT, option by option.

use shardmq::wire::{Connect, ConnectProperties, Forwarded, Packet, Version, Will};

use crate::packets::{Message, qos};
use crate::support::encode;

/// What a client says in CONNECT.
#[derive(Clone)]
pub struct Options {
    pub version: Version,
    pub client_id: String,
    pub clean_start: bool,
    pub keep_alive: u16,
    pub expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_packet_size: Option<u32>,
    pub aliases: u16,
    pub will: Option<(Message, u32)>,
    pub credentials: Option<(String, String)>,
    pub problem_information: bool,
    pub response_information: bool,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Vec<u8>>,
    pub shard: Option<usize>,
    pub listener: u16,
    pub manual: bool,
}

/// A version 5 client that starts clean.
pub fn v5(client_id: &str) -> Options {
    Options {
        version: Version::V5,
        client_id: client_id.into(),
        clean_start: true,
        keep_alive: 0,
        expiry: None,
        receive_maximum: None,
        maximum_packet_size: None,
        aliases: 0,
        will: None,
        credentials: None,
        problem_information: true,
        response_information: false,
        authentication_method: None,
        authentication_data: None,
        shard: None,
        listener: 0,
        manual: false,
    }
}

/// A version 3.1.1 client with CleanSession 1.
pub fn v3(client_id: &str) -> Options {
    Options {
        version: Version::V3_1_1,
        ..v5(client_id)
    }
}

/// Clients of both versions.
pub fn both(client_id: &str) -> [Options; 2] {
    [v5(client_id), v3(client_id)]
}

impl Options {
    /// Clean Start 0, and before version 5 a session that stays.
    pub fn resume(mut self) -> Self {
        self.clean_start = false;
        self
    }

    /// Clean Start 0 and a Session Expiry Interval, which is what 3.1.1 calls CleanSession 0.
    pub fn kept(mut self) -> Self {
        self.clean_start = false;
        self.expiry.get_or_insert(3600);
        self
    }

    pub fn expiry(mut self, seconds: u32) -> Self {
        self.expiry = Some(seconds);
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn receive_maximum(mut self, maximum: u16) -> Self {
        self.receive_maximum = Some(maximum);
        self
    }

    pub fn maximum_packet_size(mut self, bytes: u32) -> Self {
        self.maximum_packet_size = Some(bytes);
        self
    }

    pub fn aliases(mut self, maximum: u16) -> Self {
        self.aliases = maximum;
        self
    }

    pub fn will(self, message: Message) -> Self {
        self.delayed_will(message, 0)
    }

    pub fn delayed_will(mut self, message: Message, seconds: u32) -> Self {
        self.will = Some((message, seconds));
        self
    }

    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.into(), password.into()));
        self
    }

    /// Comes by the listener of this number.
    pub fn by(mut self, listener: u16) -> Self {
        self.listener = listener;
        self
    }

    pub fn without_problem_information(mut self) -> Self {
        self.problem_information = false;
        self
    }

    pub fn response_information(mut self) -> Self {
        self.response_information = true;
        self
    }

    pub fn authentication_method(mut self, method: &str) -> Self {
        self.authentication_method = Some(method.into());
        self
    }

    pub fn authentication_data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.authentication_data = Some(data.as_ref().to_vec());
        self
    }

    /// Which shard accepts the connection.
    pub fn at(mut self, shard: usize) -> Self {
        self.shard = Some(shard);
        self
    }

    /// The client acknowledges nothing by itself.
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let (will, delay) = self.will.clone().unwrap_or_default();
        let forwarded = will.forwarded();
        let connect = Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            client_id: &self.client_id,
            will: self.will.as_ref().map(|_| Will {
                topic: shardmq::topic::Name::parse(&will.topic).expect("a will has a topic name"),
                payload: &will.payload.0,
                qos: qos(will.qos),
                retain: will.retain,
                delay_interval: delay,
                message_expiry_interval: will.expiry,
                forwarded: Forwarded::from_bytes(&forwarded),
            }),
            username: self.credentials.as_ref().map(|(username, _)| &**username),
            password: self
                .credentials
                .as_ref()
                .map(|(_, password)| password.as_bytes()),
            properties: ConnectProperties {
                session_expiry_interval: self.expiry,
                receive_maximum: self.receive_maximum,
                maximum_packet_size: self.maximum_packet_size,
                topic_alias_maximum: self.aliases,
                request_response_information: self.response_information,
                request_problem_information: self.problem_information,
                authentication_method: self.authentication_method.as_deref(),
                authentication_data: self.authentication_data.as_deref(),
                ..ConnectProperties::default()
            },
        };
        encode(self.version, &Packet::Connect(connect))
    }
}
