//! rumqttc, the client that Rust programs use. Its version 3.1.1 and version 5 halves are two sets
//! of types, so a scenario is written once over a small trait.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::Version;
use crate::broker::{Broker, Setup};
use crate::foreign::matrix;

matrix!(rust_client, crate::rumqttc::run);

/// How long the broker may take for anything.
const WAIT: Duration = Duration::from_secs(30);

/// What both halves of the client tell, reduced to what the scenarios ask.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Connected { session_present: bool },
    Message(Message),
    Subscribed,
    Acknowledged,
    Ended(String),
}

#[derive(Debug, PartialEq, Eq, Clone)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
}

/// How a client connects.
#[derive(Clone)]
struct Settings {
    id: String,
    clean: bool,
    will: Option<(String, &'static str)>,
}

impl Settings {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            clean: true,
            will: None,
        }
    }
}

/// The client's other half: what it can be asked.
trait Ask {
    fn subscribe(&self, filter: &str, qos: u8);
    fn publish(&self, topic: &str, qos: u8, retain: bool, payload: &[u8]);
    fn disconnect(&self);
}

struct Client {
    ask: Box<dyn Ask>,
    events: Receiver<Event>,
    messages: std::collections::VecDeque<Message>,
}

impl Client {
    fn connect(broker: &Broker, version: Version, settings: &Settings) -> (Self, bool) {
        let (sender, events) = channel();
        let ask: Box<dyn Ask> = match version {
            Version::V3_1_1 => v3::connect(broker, settings, sender),
            Version::V5 => v5::connect(broker, settings, sender),
        };
        let mut client = Self {
            ask,
            events,
            messages: std::collections::VecDeque::new(),
        };
        match client.next_but_messages() {
            Event::Connected { session_present } => (client, session_present),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    fn next_but_messages(&mut self) -> Event {
        loop {
            match self
                .events
                .recv_timeout(WAIT)
                .expect("an event within the time")
            {
                Event::Message(message) => self.messages.push_back(message),
                other => return other,
            }
        }
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.ask.subscribe(filter, qos);
        assert_eq!(self.next_but_messages(), Event::Subscribed);
    }

    /// Publishes and, with QoS 1 and 2, waits for the end of the exchange.
    fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: impl AsRef<[u8]>) {
        self.ask.publish(topic, qos, retain, payload.as_ref());
        if qos > 0 {
            assert_eq!(self.next_but_messages(), Event::Acknowledged);
        }
    }

    fn receive(&mut self) -> Message {
        if let Some(message) = self.messages.pop_front() {
            return message;
        }
        match self
            .events
            .recv_timeout(WAIT)
            .expect("a message within the time")
        {
            Event::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    fn close(mut self) {
        self.ask.disconnect();
        while !matches!(self.next_but_messages(), Event::Ended(_)) {}
    }
}

fn run(version: Version, setup: Setup) {
    let broker = Broker::start(setup);
    every_qos(&broker, version);
    retained(&broker, version);
    sessions(&broker, version);
    will_and_takeover(&broker, version);
    shared(&broker, version);
    thousands_in_order(&broker, version);
    broker.stop();
}

fn every_qos(broker: &Broker, version: Version) {
    let (mut publisher, _) = Client::connect(broker, version, &Settings::new("publisher"));
    for granted in 0..=2 {
        let id = format!("subscriber {granted}");
        let (mut subscriber, _) = Client::connect(broker, version, &Settings::new(&id));
        subscriber.subscribe("температура/+", granted);
        for qos in 0..=2 {
            let payload = vec![qos; 100_000];
            publisher.publish("температура/дом", qos, false, &payload);
            let expected = Message {
                topic: "температура/дом".to_owned(),
                payload,
                qos: qos.min(granted),
                retain: false,
            };
            assert_eq!(
                subscriber.receive(),
                expected,
                "published {qos}, granted {granted}"
            );
        }
        subscriber.close();
    }
    publisher.close();
}

fn retained(broker: &Broker, version: Version) {
    let (mut client, _) = Client::connect(broker, version, &Settings::new("keeper"));
    client.publish("kept", 1, true, "old");
    client.publish("kept", 1, true, "new");
    client.subscribe("kept", 1);
    let message = client.receive();
    assert_eq!(
        (message.payload.as_slice(), message.retain),
        (b"new".as_slice(), true)
    );
    client.publish("kept", 1, true, "");
    assert_eq!(client.receive().payload, b"");
    client.subscribe("kept", 1);
    client.publish("kept", 1, false, "fence");
    assert_eq!(client.receive().payload, b"fence");
    client.close();
}

fn sessions(broker: &Broker, version: Version) {
    let lasting = Settings {
        clean: false,
        ..Settings::new("lasting")
    };
    let (mut first, present) = Client::connect(broker, version, &lasting);
    assert!(!present);
    first.subscribe("offline", 2);
    first.close();
    let (mut publisher, _) = Client::connect(broker, version, &Settings::new("sender"));
    for n in 0..100 {
        publisher.publish("offline", 1, false, n.to_string());
    }
    publisher.close();
    let (mut again, present) = Client::connect(broker, version, &lasting);
    assert!(present);
    for n in 0..100 {
        assert_eq!(again.receive().payload, n.to_string().into_bytes());
    }
    again.close();
}

/// A client that is taken over ends, and its will is published.
fn will_and_takeover(broker: &Broker, version: Version) {
    let (mut watcher, _) = Client::connect(broker, version, &Settings::new("watcher"));
    watcher.subscribe("will", 1);
    let mortal = Settings {
        will: Some(("will".to_owned(), "gone")),
        ..Settings::new("twin")
    };
    let (mut old, _) = Client::connect(broker, version, &mortal);
    let (young, _) = Client::connect(broker, version, &mortal);
    let Event::Ended(why) = old.next_but_messages() else {
        panic!("the older connection goes on");
    };
    assert!(!why.is_empty());
    assert_eq!(watcher.receive().payload, b"gone");
    young.close();
    watcher.publish("will", 1, false, "fence");
    assert_eq!(
        watcher.receive().payload,
        b"fence",
        "DISCONNECT leaves no will"
    );
    watcher.close();
}

fn shared(broker: &Broker, version: Version) {
    let mut members: Vec<Client> = (0..3)
        .map(|n| Client::connect(broker, version, &Settings::new(&format!("member {n}"))).0)
        .collect();
    for (n, member) in members.iter_mut().enumerate() {
        member.subscribe("$share/g/work", 1);
        member.subscribe(&format!("fence/{n}"), 1);
    }
    let (mut publisher, _) = Client::connect(broker, version, &Settings::new("giver"));
    for n in 0..90 {
        publisher.publish("work", 1, false, format!("{n:02}"));
    }
    let mut got = Vec::new();
    for (n, member) in members.iter_mut().enumerate() {
        publisher.publish(&format!("fence/{n}"), 1, false, "fence");
        loop {
            let message = member.receive();
            if message.payload == b"fence" {
                break;
            }
            got.push(String::from_utf8_lossy(&message.payload).into_owned());
        }
    }
    got.sort();
    let expected: Vec<String> = (0..90).map(|n| format!("{n:02}")).collect();
    assert_eq!(got, expected);
    publisher.close();
    for member in members {
        member.close();
    }
}

fn thousands_in_order(broker: &Broker, version: Version) {
    let (mut reader, _) = Client::connect(broker, version, &Settings::new("reader"));
    reader.subscribe("order", 1);
    let (mut publisher, _) = Client::connect(broker, version, &Settings::new("writer"));
    for n in 0..5_000 {
        publisher
            .ask
            .publish("order", 1, false, n.to_string().as_bytes());
    }
    for n in 0..5_000 {
        assert_eq!(reader.receive().payload, n.to_string().into_bytes());
    }
    for _ in 0..5_000 {
        assert_eq!(publisher.next_but_messages(), Event::Acknowledged);
    }
    publisher.close();
    reader.close();
}

/// The two halves differ in their types only.
macro_rules! half {
    ($name:ident, $root:path, $qos:path, $will:expr, $tune:expr, $publish:pat => $message:expr) => {
        mod $name {
            use std::sync::mpsc::Sender;

            use $root as client;

            use super::{Ask, Event, Message, Settings, WAIT};
            use crate::broker::Broker;

            struct Half(client::Client);

            fn qos(level: u8) -> $qos {
                use $qos as QoS;
                [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(level)]
            }

            impl Ask for Half {
                fn subscribe(&self, filter: &str, level: u8) {
                    self.0
                        .subscribe(filter, qos(level))
                        .expect("the client's queue takes it");
                }

                fn publish(&self, topic: &str, level: u8, retain: bool, payload: &[u8]) {
                    self.0
                        .publish(topic, qos(level), retain, payload.to_vec())
                        .expect("the client's queue takes it");
                }

                fn disconnect(&self) {
                    self.0.disconnect().expect("the client's queue takes it");
                }
            }

            pub(super) fn connect(
                broker: &Broker,
                settings: &Settings,
                events: Sender<Event>,
            ) -> Box<dyn Ask> {
                let mut options =
                    client::MqttOptions::new(settings.id.as_str(), "127.0.0.1", broker.port());
                options.set_keep_alive(WAIT);
                $tune(&mut options, settings);
                if let Some((topic, payload)) = &settings.will {
                    options.set_last_will($will(topic, *payload, qos(1)));
                }
                let (client, mut connection) = client::Client::new(options, 6_000);
                std::thread::spawn(move || {
                    for event in connection.iter() {
                        let event = match event {
                            Ok(client::Event::Incoming(packet)) => packet,
                            Ok(client::Event::Outgoing(_)) => continue,
                            Err(error) => {
                                let _ = events.send(Event::Ended(format!("{error:?}")));
                                return;
                            }
                        };
                        use client::Incoming as In;
                        let event = match event {
                            In::ConnAck(answer) => Event::Connected {
                                session_present: answer.session_present,
                            },
                            In::SubAck(_) => Event::Subscribed,
                            In::PubAck(_) | In::PubComp(_) => Event::Acknowledged,
                            In::Publish($publish) => Event::Message($message),
                            _ => continue,
                        };
                        if events.send(event).is_err() {
                            return;
                        }
                    }
                });
                Box::new(Half(client))
            }

            fn message(topic: String, payload: &[u8], level: $qos, retain: bool) -> Message {
                use $qos as QoS;
                let qos = match level {
                    QoS::AtMostOnce => 0,
                    QoS::AtLeastOnce => 1,
                    QoS::ExactlyOnce => 2,
                };
                Message {
                    topic,
                    payload: payload.to_vec(),
                    qos,
                    retain,
                }
            }
        }
    };
}

half!(
    v3,
    rumqttc,
    rumqttc::QoS,
    |topic: &String, payload: &str, qos| rumqttc::LastWill::new(topic, payload, qos, false),
    |options: &mut rumqttc::MqttOptions, settings: &Settings| {
        options.set_clean_session(settings.clean);
        options.set_max_packet_size(1 << 20, 1 << 20);
        options.set_inflight(100);
    },
    packet => message(packet.topic, &packet.payload, packet.qos, packet.retain)
);

half!(
    v5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::QoS,
    |topic: &String, payload: &str, qos| {
        client::mqttbytes::v5::LastWill::new(topic.as_str(), payload.to_owned(), qos, false, None)
    },
    |options: &mut rumqttc::v5::MqttOptions, settings: &Settings| {
        options.set_clean_start(settings.clean);
        let lasting = client::mqttbytes::v5::ConnectProperties {
            session_expiry_interval: (!settings.clean).then_some(600),
            max_packet_size: Some(1 << 20),
            ..client::mqttbytes::v5::ConnectProperties::new()
        };
        options.set_connect_properties(lasting);
    },
    packet => message(
        String::from_utf8_lossy(&packet.topic).into_owned(),
        &packet.payload,
        packet.qos,
        packet.retain
    )
);
