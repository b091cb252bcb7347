//! What is there after a start: after a crash, and after an orderly stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Version;
use crate::broker::{Broker, Setup, free_port, fresh_folder};
use crate::raw::packets::{
    Connect, DISCONNECT, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, ack, property,
};
use crate::raw::peer::Peer;

/// Longer than the shortest interval there is.
const MORE_THAN_A_SECOND: Duration = Duration::from_millis(1_300);

/// A place where brokers run one after the other.
struct Place {
    port: u16,
    dir: PathBuf,
    environment: Vec<(&'static str, &'static str)>,
}

impl Place {
    fn new() -> Self {
        Self {
            port: free_port(),
            dir: fresh_folder(4),
            environment: Vec::new(),
        }
    }

    fn start(&self, setup: Setup) -> Broker {
        Broker::start_at(setup, self.port, &self.dir.join("data"), &self.environment)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A session that ends `seconds` after its connection.
fn lasting(client_id: &str, seconds: u32) -> Connect {
    let [a, b, c, d] = seconds.to_be_bytes();
    Connect::new(Version::V5, client_id)
        .clean(false)
        .with(&[0x11, a, b, c, d])
}

/// Clients do not know that the broker died; others learn from their wills that they are gone.
#[test]
fn wills_of_those_who_were_connected_are_published() {
    let place = Place::new();
    let mut broker = place.start(Setup::TWO);
    let mut watcher = Peer::connect(&broker, &lasting("watcher", 600));
    watcher.subscribe("presence/#", 1);
    let will = |name: &str| {
        let topic = format!("presence/{name}");
        Connect::new(Version::V5, name).will(1, true, &topic, b"gone")
    };
    let vehicles: Vec<Peer> = ["a", "b", "c"]
        .map(|name| Peer::connect(&broker, &will(name)))
        .into();
    // One of them leaves in order: no will.
    let mut polite = Peer::connect(&broker, &will("polite"));
    polite.send(&DISCONNECT);
    polite.drain();
    broker.kill();
    drop(vehicles);
    drop(watcher);

    let broker = place.start(Setup::TWO);
    let mut watcher = Peer::connect(&broker, &lasting("watcher", 600));
    let mut gone: Vec<String> = (0..3)
        .map(|_| {
            let will = watcher.receive();
            assert_eq!(will.payload, b"gone");
            watcher.send(&ack(PUBACK, will.id));
            will.topic
        })
        .collect();
    gone.sort_unstable();
    assert_eq!(gone, ["presence/a", "presence/b", "presence/c"]);
    assert_eq!(
        watcher.ping(),
        [],
        "each comes once, and none of the polite one"
    );
    broker.stop();
}

/// Intervals go on while nobody is there.
#[test]
fn sessions_and_messages_expire_while_the_broker_is_away() {
    let place = Place::new();
    let mut broker = place.start(Setup::ONE);
    for (name, seconds) in [("short", 1), ("long", 600)] {
        let mut client = Peer::connect(&broker, &lasting(name, seconds));
        client.subscribe("news", 1);
        client.send(&DISCONNECT);
        client.drain();
    }
    let mut writer = Peer::connect(&broker, &Connect::new(Version::V5, "writer"));
    for (payload, expiry) in [("old", 1), ("fresh", 100)] {
        let publish = Publish::new("news", payload).with(&[0x02, 0, 0, 0, expiry]);
        writer.publish(&publish.qos(1, 1));
        writer.expect_ack(PUBACK, 1);
    }
    let told = Instant::now();
    broker.kill();
    while told.elapsed() < MORE_THAN_A_SECOND {
        std::thread::sleep(Duration::from_millis(20));
    }

    let broker = place.start(Setup::ONE);
    let (_, short) = Peer::connect_and_see(&broker, &lasting("short", 600));
    assert!(!short.session_present);
    let (mut long, connack) = Peer::connect_and_see(&broker, &lasting("long", 600));
    assert!(connack.session_present);
    let fresh = long.receive();
    assert_eq!(fresh.payload, b"fresh");
    let left = property(&fresh.properties, 0x02).expect("it expires");
    let left = u32::from_be_bytes(left.try_into().expect("four bytes"));
    assert!((50..100).contains(&left), "{left} s are left"); // [MQTT-3.3.2-6]
    broker.stop();
}

/// Exchanges of QoS 2 go on where they were, in both directions, with their identifiers.
#[test]
fn exchanges_go_on() {
    let place = Place::new();
    let mut broker = place.start(Setup::EPOLL);
    let mut reader = Peer::connect(&broker, &lasting("reader", 600));
    reader.subscribe("commands", 2);
    let mut writer = Peer::connect(&broker, &lasting("writer", 600));
    for id in [7, 8] {
        writer.publish(&Publish::new("commands", id.to_string()).qos(2, id));
        writer.expect_ack(PUBREC, id);
    }
    writer.send(&ack(PUBREL, 7));
    writer.expect_ack(PUBCOMP, 7);
    let (first, second) = (reader.receive(), reader.receive());
    reader.send(&ack(PUBREC, first.id));
    reader.expect_ack(PUBREL, first.id);
    broker.kill();

    let broker = place.start(Setup::EPOLL);
    let mut reader = Peer::connect(&broker, &lasting("reader", 600));
    reader.expect_ack(PUBREL, first.id);
    assert_eq!(reader.receive(), second.clone().dup());
    let mut writer = Peer::connect(&broker, &lasting("writer", 600));
    // It came before: answered, not delivered again.
    writer.publish(&Publish::new("commands", "8").qos(2, 8).dup());
    writer.expect_ack(PUBREC, 8);
    writer.send(&ack(PUBREL, 8));
    writer.expect_ack(PUBCOMP, 8);
    // 7 is free, and a new message.
    writer.publish(&Publish::new("commands", "new").qos(2, 7));
    writer.expect_ack(PUBREC, 7);
    assert_eq!(reader.receive().payload, b"new");
    broker.stop();
}

/// An orderly stop keeps what a crash keeps; groups find their members again; what was retained with QoS 0
/// is there, too.
#[test]
fn an_orderly_stop_keeps_everything() {
    let place = Place::new();
    let broker = place.start(Setup::TWO);
    let mut member = Peer::connect(&broker, &lasting("member", 600));
    member.subscribe("$share/g/work", 1);
    member.subscribe("own", 1);
    let mut writer = Peer::connect(&broker, &Connect::new(Version::V5, "writer"));
    writer.publish(&Publish::new("state", "on").retain());
    assert_eq!(writer.ping(), []);
    broker.stop();

    let broker = place.start(Setup::ONE);
    let mut writer = Peer::connect(&broker, &Connect::new(Version::V5, "writer"));
    for topic in ["work", "own"] {
        writer.publish(&Publish::new(topic, topic).qos(1, 1));
        writer.expect_ack(PUBACK, 1);
    }
    assert_eq!(writer.subscribe("state", 0), 0);
    assert_eq!(writer.receive().payload, b"on");
    let (mut member, connack) = Peer::connect_and_see(&broker, &lasting("member", 600));
    assert!(connack.session_present);
    let mut topics = [member.receive().topic, member.receive().topic];
    topics.sort_unstable();
    assert_eq!(topics, ["own", "work"]);
    broker.stop();
}

/// `off` keeps nothing of what it is said for, and all of the rest.
#[test]
fn durability_can_be_chosen_for_each() {
    let mut place = Place::new();
    place.environment = vec![("SHARDMQ__DURABILITY__SESSIONS", "off")];
    let mut broker = place.start(Setup::ONE);
    let mut client = Peer::connect(&broker, &lasting("client", 600));
    client.subscribe("t", 1);
    client.publish(&Publish::new("state", "on").qos(1, 1).retain());
    client.expect_ack(PUBACK, 1);
    assert!(
        broker
            .log()
            .contains("sessions and their messages: in memory only")
    );
    broker.kill();

    let broker = place.start(Setup::ONE);
    let (mut client, connack) = Peer::connect_and_see(&broker, &lasting("client", 600));
    assert!(!connack.session_present);
    client.subscribe("state", 0);
    assert_eq!(client.receive().payload, b"on");
    broker.stop();
}
