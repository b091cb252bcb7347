//! Clients for scenarios: each method does what a well-behaved client does, or says what came.
//!
//! Every method that sends lets the broker come to rest, except those whose name begins with `push`.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

use shardmq::policy::Policy;
use shardmq::shard::{Settings, home};
use shardmq::stats::{DropReason, Stats};
use shardmq::wire::{
    Ack, AckKind, Disconnect, Packet, ReasonCode, Subscribe, SubscribeFilters, Unsubscribe,
    UnsubscribeFilters, UserProperties, Version,
};

pub use crate::options::{Options, both, v3, v5};
use crate::packets::{Message, Received, Sub, Welcome, packet_id};
use crate::support::{Link, World, decode, encode};

/// A broker and everybody who is connected to it.
#[derive(Clone)]
pub struct Broker(Rc<RefCell<World>>);

/// Settings for scenarios: as they come, but without `$SYS` in between.
pub fn settings() -> Settings {
    Settings {
        sys_interval: 0,
        ..Settings::default()
    }
}

/// Runs a scenario on a broker of one shard and on one of three.
pub fn on_shards(scenario: impl Fn(&Broker)) {
    on_shards_with(&settings(), scenario);
}

/// Runs a scenario on brokers of one and three shards with these settings.
pub fn on_shards_with(settings: &Settings, scenario: impl Fn(&Broker)) {
    for shards in [1, 3] {
        Broker::new(shards, settings).play(&scenario);
    }
}

/// Runs a scenario on brokers of one and three shards that keep on disk what outlives the process.
pub fn on_kept_shards(scenario: impl Fn(&Broker)) {
    for shards in [1, 3] {
        let broker = Broker::new(shards, &settings());
        broker.world().keep();
        broker.play(&scenario);
    }
}

/// Runs a scenario on brokers of one and three shards whose shards ask `policy`.
pub fn on_shards_under<P: Policy + 'static>(policy: impl Fn() -> P, scenario: impl Fn(&Broker)) {
    for shards in [1, 3] {
        let world = World::with_policy(shards, settings(), 7, || Box::new(policy()));
        Broker(Rc::new(RefCell::new(world))).play(&scenario);
    }
}

impl Broker {
    pub fn new(shards: usize, settings: &Settings) -> Self {
        Self(Rc::new(RefCell::new(World::with(shards, settings.clone()))))
    }

    /// With settings and a policy of its own.
    pub fn guarded<P: Policy + 'static>(
        shards: usize,
        settings: &Settings,
        policy: impl Fn() -> P,
    ) -> Self {
        let world = World::with_policy(shards, settings.clone(), 7, || Box::new(policy()));
        Self(Rc::new(RefCell::new(world)))
    }

    fn play(&self, scenario: impl Fn(&Self)) {
        let guard = Shards(self.shards());
        scenario(self);
        self.settle();
        let open = self
            .world()
            .wires
            .iter()
            .filter(|wire| wire.at.is_some())
            .count();
        assert_eq!(
            self.stats().connections,
            open as u64,
            "connections are counted"
        );
        drop(guard);
    }

    pub fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    pub fn shards(&self) -> usize {
        self.0.borrow().shards()
    }

    pub fn settle(&self) {
        self.world().settle();
    }

    /// The process ends, and another one goes on with what was on disk.
    pub fn crash(&self) {
        self.world().crash();
    }

    pub fn advance(&self, seconds: f64) {
        self.world().advance(seconds);
    }

    pub fn stats(&self) -> Stats {
        self.0.borrow().stats()
    }

    /// How often something was dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.stats().dropped_for(reason)
    }

    /// How often something was dropped at all.
    pub fn dropped_in_all(&self) -> u64 {
        DropReason::ALL
            .iter()
            .map(|&reason| self.dropped(reason))
            .sum()
    }

    /// A text whose hash belongs to `shard`: a client id for a session there, or a topic whose
    /// retained message is kept there. With fewer shards, the last one has it.
    pub fn on(&self, shard: usize, stem: &str) -> String {
        let shard = shard.min(self.shards() - 1);
        (0..)
            .map(|number| format!("{stem}{number}"))
            .find(|text| home(text, self.shards()).index() == shard)
            .expect("some number fits")
    }

    /// A connection without a CONNECT.
    pub fn open(&self, version: Version) -> Client {
        let link = self.world().open();
        self.client(link, version)
    }

    /// A connection that `shard` accepts, without a CONNECT.
    pub fn open_on(&self, shard: usize, version: Version) -> Client {
        let shard = shard.min(self.shards() - 1);
        let link = self.world().open_on(shard);
        self.client(link, version)
    }

    fn client(&self, link: Link, version: Version) -> Client {
        Client {
            broker: self.clone(),
            link,
            version,
            manual: false,
            received: VecDeque::new(),
            last_id: 0,
            welcome: Welcome::default(),
        }
    }

    /// Connects; the broker accepts.
    #[track_caller]
    pub fn connect(&self, options: Options) -> Client {
        let mut client = self.dial(options);
        let Some(Received::ConnAck(welcome)) = client.next() else {
            panic!("no CONNACK came");
        };
        assert_eq!(welcome.reason, ReasonCode::Success);
        client.welcome = welcome;
        client
    }

    /// Sends CONNECT and looks at no answer.
    pub fn dial(&self, options: Options) -> Client {
        let client = self.push_connect(options);
        self.settle();
        client
    }

    /// Sends CONNECT; the broker does not get to work on with it.
    pub fn push_connect(&self, options: Options) -> Client {
        self.world().listener = options.listener;
        let mut client = match options.shard {
            Some(shard) => self.open_on(shard, options.version),
            None => self.open(options.version),
        };
        client.manual = options.manual;
        client.push(&options.encode());
        client
    }

    /// Sends CONNECT and leaves the socket unread.
    pub fn dial_unread(&self, options: Options) -> Client {
        let mut client = self.open(options.version);
        client.manual = options.manual;
        client.stop_reading();
        client.send_bytes(&options.encode());
        client
    }

    /// CONNECT is refused with `reason` and nothing else is said [MQTT-3.2.2-7].
    #[track_caller]
    pub fn expect_refused(&self, options: Options, reason: ReasonCode) {
        let mut client = self.dial(options);
        let refusal = Welcome {
            reason,
            ..Welcome::default()
        };
        assert_eq!(client.next(), Some(Received::ConnAck(refusal)));
        client.expect_closed();
    }

    pub fn shutdown(&self) {
        self.world().shutdown();
    }
}

/// Says in a failure on how many shards it happened.
struct Shards(usize);

impl Drop for Shards {
    #[expect(clippy::print_stderr, reason = "it is read where a test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {} shards", self.0);
        }
    }
}

/// A client.
pub struct Client {
    pub broker: Broker,
    pub link: Link,
    version: Version,
    manual: bool,
    received: VecDeque<Received>,
    last_id: u16,
    /// What CONNACK said.
    pub welcome: Welcome,
}

impl Client {
    pub fn version(&self) -> Version {
        self.version
    }

    // Sending.

    /// Bytes, as they are; the broker does not get to work on with them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.broker.world().push(self.link, bytes);
    }

    /// A PUBLISH; the broker does not get to work on with it.
    pub fn push_publish(&mut self, message: &Message) {
        let bytes = message.encode(self.version);
        self.push(&bytes);
    }

    /// Bytes, as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.push(bytes);
        self.broker.settle();
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let bytes = encode(self.version, packet);
        self.send_bytes(&bytes);
    }

    /// A PUBLISH, whatever answer it gets.
    pub fn send_publish(&mut self, message: &Message) {
        self.push_publish(message);
        self.broker.settle();
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % u16::MAX + 1;
        self.last_id
    }

    /// Publishes and goes through the whole exchange; returns what the broker said of it.
    #[track_caller]
    pub fn publish(&mut self, message: &Message) -> ReasonCode {
        if message.qos == 0 {
            self.send_publish(message);
            return ReasonCode::Success;
        }
        let id = message.id.unwrap_or_else(|| self.next_id());
        self.send_publish(&Message {
            id: Some(id),
            ..message.clone()
        });
        if message.qos == 1 {
            return self.take("PUBACK", |packet| match packet {
                Received::PubAck(of, reason) if *of == id => Some(*reason),
                _ => None,
            });
        }
        let reason = self.take("PUBREC", |packet| match packet {
            Received::PubRec(of, reason) if *of == id => Some(*reason),
            _ => None,
        });
        if !reason.is_error() {
            self.pubrel(id);
            let complete = Received::PubComp(id, ReasonCode::Success);
            self.take("PUBCOMP", |packet| (*packet == complete).then_some(()));
        }
        reason
    }

    fn subscribe_bytes(&mut self, subs: &[Sub]) -> (u16, Vec<u8>) {
        let mut filters = Vec::new();
        for sub in subs {
            SubscribeFilters::push(self.version, &sub.filter, sub.options, &mut filters);
        }
        let id = self.next_id();
        let subscribe = Subscribe {
            packet_id: packet_id(id),
            subscription_identifier: subs.iter().find_map(|sub| sub.identifier),
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_bytes(self.version, &filters),
        };
        (id, encode(self.version, &Packet::Subscribe(subscribe)))
    }

    /// A SUBSCRIBE, which the broker does not get to work on with; returns its identifier.
    pub fn push_subscribe(&mut self, sub: Sub) -> u16 {
        let (id, bytes) = self.subscribe_bytes(&[sub]);
        self.push(&bytes);
        id
    }

    /// Subscribes; returns what SUBACK says, filter by filter.
    #[track_caller]
    pub fn subscribe_all(&mut self, subs: &[Sub]) -> Vec<u8> {
        let (id, bytes) = self.subscribe_bytes(subs);
        self.send_bytes(&bytes);
        // [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.2.1-6]
        self.take("SUBACK", |packet| match packet {
            Received::SubAck(of, codes) if *of == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Subscribes; the broker grants it.
    #[track_caller]
    pub fn subscribe(&mut self, sub: Sub) {
        let granted = sub.options.qos.bits();
        assert_eq!(self.subscribe_all(&[sub]), [granted]);
    }

    /// Unsubscribes; returns what UNSUBACK says, filter by filter (nothing before version 5).
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for filter in filters {
            UnsubscribeFilters::push(filter, &mut bytes);
        }
        let id = self.next_id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(id),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::from_bytes(&bytes),
        }));
        self.take("UNSUBACK", |packet| match packet {
            Received::UnsubAck(of, codes) if *of == id => Some(codes.clone()),
            _ => None,
        })
    }

    pub fn acknowledge(&mut self, kind: AckKind, id: u16, reason: ReasonCode) {
        let bytes = self.acknowledgement(kind, id, reason);
        self.send_bytes(&bytes);
    }

    fn acknowledgement(&self, kind: AckKind, id: u16, reason: ReasonCode) -> Vec<u8> {
        let mut bytes = Vec::new();
        Ack::new(packet_id(id), reason).encode(kind, self.version, &mut bytes);
        bytes
    }

    pub fn puback(&mut self, id: u16) {
        self.acknowledge(AckKind::PubAck, id, ReasonCode::Success);
    }

    pub fn pubrec(&mut self, id: u16) {
        self.acknowledge(AckKind::PubRec, id, ReasonCode::Success);
    }

    pub fn pubrel(&mut self, id: u16) {
        self.acknowledge(AckKind::PubRel, id, ReasonCode::Success);
    }

    pub fn pubcomp(&mut self, id: u16) {
        self.acknowledge(AckKind::PubComp, id, ReasonCode::Success);
    }

    /// PINGREQ, answered with PINGRESP.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.take("PINGRESP", |packet| {
            (*packet == Received::PingResp).then_some(())
        });
    }

    /// DISCONNECT 0x00.
    pub fn disconnect(&mut self) {
        self.disconnect_with(ReasonCode::NormalDisconnection, None);
    }

    pub fn disconnect_with(&mut self, reason: ReasonCode, session_expiry_interval: Option<u32>) {
        self.send(&Packet::Disconnect(Disconnect {
            reason,
            session_expiry_interval,
            reason_string: None,
            user_properties: UserProperties::default(),
            server_reference: None,
        }));
    }

    /// The socket ends without a DISCONNECT.
    pub fn cut(&mut self) {
        self.broker.world().cut(self.link);
        self.broker.settle();
    }

    /// Leaves the socket unread.
    pub fn stop_reading(&mut self) {
        self.broker.world().wires[self.link.0].stuck = true;
    }

    /// Reads what lies in the socket, once; what comes after that stays unread again.
    pub fn read_once(&mut self) {
        self.broker.world().read(self.link);
        self.broker.settle();
    }

    /// Reads the socket from now on.
    pub fn go_on_reading(&mut self) {
        self.broker.world().unstick(self.link);
        self.broker.settle();
    }

    // Receiving.

    /// Reads what has come, and acknowledges it if that is left to the client.
    fn pull(&mut self) {
        loop {
            let Some(frame) = self.next_frame() else {
                return;
            };
            let packet = Received::read(&decode(self.version, &frame));
            let answer = match &packet {
                _ if self.manual => None,
                Received::Publish(Message {
                    qos: 1,
                    id: Some(id),
                    ..
                }) => Some((AckKind::PubAck, *id)),
                Received::Publish(Message {
                    qos: 2,
                    id: Some(id),
                    ..
                }) => Some((AckKind::PubRec, *id)),
                Received::PubRel(id, _) => Some((AckKind::PubComp, *id)),
                _ => None,
            };
            if let Some((kind, id)) = answer {
                self.acknowledge(kind, id, ReasonCode::Success);
            }
            if !matches!(answer, Some((AckKind::PubComp, _))) {
                self.received.push_back(packet);
            }
        }
    }

    /// The bytes of the next packet; past them nothing is acknowledged.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.broker.world().next_frame(self.link)
    }

    /// The next packet.
    pub fn next(&mut self) -> Option<Received> {
        self.pull();
        self.received.pop_front()
    }

    /// Takes the first packet that `matches` knows out of what has come.
    #[track_caller]
    fn take<T>(&mut self, name: &str, matches: impl Fn(&Received) -> Option<T>) -> T {
        self.pull();
        let found = self
            .received
            .iter()
            .position(|packet| matches(packet).is_some());
        let Some(position) = found else {
            panic!("no {name} came, but {:?}", self.received);
        };
        let packet = self.received.remove(position).expect("it was found there");
        matches(&packet).expect("it matched before")
    }

    /// The next packet is this one.
    #[track_caller]
    pub fn expect_packet(&mut self, expected: Received) {
        assert_eq!(self.next(), Some(expected));
    }

    /// The next packet is this PUBLISH; returns its packet identifier, 0 for none.
    #[track_caller]
    pub fn expect(&mut self, expected: &Message) -> u16 {
        let Some(Received::Publish(mut message)) = self.next() else {
            panic!("no PUBLISH came, but {:?} {expected:?}", self.received);
        };
        let id = message.id;
        if expected.id.is_none() {
            message.id = None;
        }
        assert_eq!(message, *expected);
        id.unwrap_or(0)
    }

    /// Nothing has come.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.broker.settle();
        self.pull();
        assert_eq!(self.received, []);
        assert!(self.is_open(), "the broker has closed the connection");
    }

    /// Everything that has come, which must be PUBLISHes.
    #[track_caller]
    pub fn messages(&mut self) -> Vec<Message> {
        self.broker.settle();
        self.pull();
        let publish = |packet| match packet {
            Received::Publish(message) => message,
            other => panic!("not a PUBLISH: {other:?}"),
        };
        self.received.drain(..).map(publish).collect()
    }

    /// The payloads of everything that has come, as text.
    #[track_caller]
    pub fn payloads(&mut self) -> Vec<String> {
        let text = |message: Message| String::from_utf8_lossy(&message.payload.0).into_owned();
        self.messages().into_iter().map(text).collect()
    }

    /// Whether the broker has not closed the connection.
    pub fn is_open(&self) -> bool {
        !self.broker.world().wires[self.link.0].closed
    }

    /// The broker closes without another word.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        self.broker.settle();
        self.pull();
        assert_eq!(self.received, []);
        assert!(!self.is_open(), "the broker has not closed the connection");
    }

    /// The broker ends the connection because of `reason`: it says so in version 5, and closes.
    #[track_caller]
    pub fn expect_end(&mut self, reason: ReasonCode) {
        self.broker.settle();
        if self.version.is_v5() {
            assert_eq!(self.next(), Some(Received::Disconnect(reason)));
        }
        self.expect_closed();
    }
}
