//! History streams: what was kept comes again in its order, at the client's pace, and goes on live without a
//! gap or a duplicate, whatever happens in between.

use std::collections::BTreeMap;

use shardmq::history::Stream;
use shardmq::history::range::{RECEIVED_AT, format};
use shardmq::policy::{Client as PolicyClient, Credentials, Decision, Policy, Reach};
use shardmq::stats::DropReason;
use shardmq::topic::{Name, Subscription};
use shardmq::wire::{QoS, ReasonCode};

use crate::client::{Broker, Client, Options, both, settings, v3, v5};
use crate::packets::{Message, Received, message, sub};
use crate::support::{EPOCH, HistoryFiles};

const SECOND: u64 = 1_000_000;

fn stream(filter: &str) -> Stream {
    Stream {
        name: "fleet".into(),
        filter: filter.into(),
        keep: 86_400 * SECOND,
        keep_bytes: 1 << 30,
        bucket: 60 * SECOND,
        interval: SECOND,
    }
}

fn keeping(shards: usize, streams: &[Stream]) -> Broker {
    let broker = Broker::new(shards, &settings());
    broker.world().keep_history(streams, HistoryFiles::new(), 1);
    broker
}

/// A scenario on one shard and on three that keep `vehicle/+/telemetry`.
fn on_shards(scenario: impl Fn(&Broker)) {
    for shards in [1, 3] {
        scenario(&keeping(shards, &[stream("vehicle/+/telemetry")]));
    }
}

fn telemetry(vehicle: usize, number: usize) -> Message {
    message(
        &format!("vehicle/{vehicle}/telemetry"),
        format!("{vehicle}:{number}"),
    )
}

/// Vehicles, on one shard each if there are so many.
fn fleet(broker: &Broker) -> Vec<Client> {
    let vehicles = 0..3;
    vehicles
        .map(|vehicle| broker.connect(v5(&broker.on(vehicle, &format!("vehicle{vehicle}-")))))
        .collect()
}

/// What a client got, without the property that says when it was received.
fn got(client: &mut Client) -> Vec<String> {
    let text = |message: &Message| String::from_utf8_lossy(&message.payload.0).into_owned();
    client.messages().iter().map(text).collect()
}

/// PUBLISHes that have come; what else came is skipped.
fn publishes(client: &mut Client) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some(packet) = client.next() {
        if let Received::Publish(message) = packet {
            found.push(message);
        }
    }
    found
}

/// What was published comes again, in order, with QoS, properties and time, and nothing else.
#[test]
fn what_was_kept_comes_again() {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        let mut expected = Vec::new();
        for number in 0..30 {
            let which = number % vehicles.len();
            let sent = telemetry(which, number)
                .qos((number % 3) as u8)
                .content_type("text/plain")
                .user("unit", "km/h")
                .retain();
            vehicles[which].publish(&sent);
            vehicles[which].publish(&message("vehicle/1/other", "not kept"));
            expected.push(Message {
                retain: false,
                qos: sent.qos.min(1),
                ..sent
            });
            broker.advance(1.0);
        }
        let mut v5_client = broker.connect(v5("new"));
        v5_client.subscribe(sub("$history/-1h/vehicle/+/telemetry").qos(1).identifier(7));
        let messages = v5_client.messages();
        assert_eq!(messages.len(), expected.len());
        for (number, (message, mut expected)) in
            messages.into_iter().zip(expected.clone()).enumerate()
        {
            let at = (EPOCH.0 / 1_000 + 1_000 + number as u64) * SECOND;
            expected = expected.user(RECEIVED_AT, &format(at)).identifier(7);
            assert_eq!(
                Message {
                    id: None,
                    ..message
                },
                expected
            );
        }
        let mut v3_client = broker.connect(v3("old"));
        v3_client.subscribe(sub("$history/-1h/vehicle/+/telemetry").qos(0));
        let messages = v3_client.messages();
        assert_eq!(messages.len(), expected.len());
        for (message, expected) in messages.iter().zip(&expected) {
            assert_eq!((&message.payload, message.qos), (&expected.payload, 0));
            assert!(!message.retain && message.user.is_empty());
        }
        // It is over: what comes now does not reach them.
        vehicles[0].publish(&telemetry(0, 99));
        v5_client.expect_nothing();
        assert_eq!(broker.stats().history_replays, 0);
        assert_eq!(broker.stats().history_messages, 31);
        assert_eq!(broker.stats().history_replayed, 60);
        assert_eq!(broker.stats().history_missed, 0);
    });
}

/// A range is by the time of reception; a filter may be any that the stream keeps.
#[test]
fn a_range_and_a_filter_choose() {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        for number in 0..100 {
            vehicles[number % 3].publish(&telemetry(number % 3, number));
            broker.advance(10.0);
        }
        // Now it is 1,000 s later, and message n came 1,000 - 10 n seconds ago.
        let start = EPOCH.0 / 1_000 + 1_000;
        for (range, expected) in [
            ("-100s".to_owned(), 90..100),
            ("-5m..".to_owned(), 70..100),
            ("-5m..-100s".to_owned(), 70..90),
            (format!("{}", start + 500), 50..100),
            (format!("{}..{}", start + 500, start + 700), 50..70),
            (format!("{}", start + 2_000), 0..0),
            (
                "2026-11-21T00:16:40Z..2026-11-21T00:17:00Z".to_owned(),
                0..2,
            ),
            ("0".to_owned(), 0..100),
        ] {
            let mut client = broker.connect(v5("client"));
            client.subscribe(sub(&format!("$history/{range}/vehicle/+/telemetry")));
            let numbers: Vec<String> = expected.clone().map(|n| format!("{}:{n}", n % 3)).collect();
            assert_eq!(got(&mut client), numbers, "{range}");
            let mut client = broker.connect(v5("client"));
            client.subscribe(sub(&format!("$history/{range}/vehicle/1/telemetry")));
            let numbers: Vec<String> = expected
                .filter(|n| n % 3 == 1)
                .map(|n| format!("1:{n}"))
                .collect();
            assert_eq!(got(&mut client), numbers, "{range}");
        }
    });
}

/// What cannot be had is refused, with a reason that says why.
#[test]
fn what_cannot_be_had_is_refused() {
    on_shards(|broker| {
        let mut client = broker.connect(v5("client"));
        for filter in [
            "$history/-1h/vehicle/#",
            "$history/-1h/other",
            "$history/-1h",
            "$history/-1h/",
            "$history/yesterday/vehicle/1/telemetry",
            "$history/-1x/vehicle/1/telemetry",
            "$share/g/$history/-1h/vehicle/1/telemetry",
            "$history/#",
        ] {
            let code = client.subscribe_all(&[sub(filter).qos(1)]);
            assert_eq!(code, [ReasonCode::TopicFilterInvalid as u8], "{filter}");
            let mut old = broker.connect(v3("old"));
            assert_eq!(old.subscribe_all(&[sub(filter)]), [0x80], "{filter}");
        }
        let no_local = sub("$history/-1h/vehicle/1/telemetry").no_local();
        assert_eq!(client.subscribe_all(&[no_local]), [0x83]);
        // One that is refused does not hinder its neighbour.
        let both = [
            sub("$history/-1h/x"),
            sub("$history/-1h/vehicle/1/telemetry").qos(1),
        ];
        assert_eq!(client.subscribe_all(&both), [0x8F, 1]);
        for number in 0..20 {
            let filter = format!("$history/-{}h../vehicle/1/telemetry", number + 1);
            let expected = if number < 16 { 0 } else { 0x97 };
            assert_eq!(client.subscribe_all(&[sub(&filter)]), [expected]);
        }
        assert_eq!(broker.stats().history_replays, 16);
        client.disconnect();
        assert_eq!(broker.stats().history_replays, 0);
    });
    // Where nothing is kept nothing can be had.
    let broker = Broker::new(1, &settings());
    let mut client = broker.connect(v5("client"));
    assert_eq!(client.subscribe_all(&[sub("$history/-1h/a")]), [0x8F]);
}

/// One vehicle publishes while another client's replay goes on, a message between any two steps of any
/// shard and of the disk: each message comes once and in order.
fn live_goes_on(options: &Options, granted: u8, published: u8) {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        let mut numbers = [0; 3];
        let mut publish = |vehicle: usize| {
            let id = numbers[vehicle] as u16 + 1;
            let sent = telemetry(vehicle, numbers[vehicle]).qos(published).id(id);
            vehicles[vehicle].push_publish(&sent);
            numbers[vehicle] += 1;
        };
        for round in 0..300 {
            publish(round % 3);
            if round % 10 == 0 {
                broker.advance(0.5);
            }
        }
        let mut client = broker.connect(options.clone());
        client.push_subscribe(sub("$history/-1h../vehicle/+/telemetry").qos(granted));
        let mut received = Vec::new();
        for step in 0..900 {
            publish(step % 3);
            let shard = step % broker.shards();
            broker.world().turn(shard);
            if step % 7 == 0 {
                let mut world = broker.world();
                world.now = world.now.plus_millis(200);
            }
            received.extend(publishes(&mut client));
        }
        broker.settle();
        received.extend(publishes(&mut client));
        assert_eq!(received.len(), 1_200);
        let mut next = [0_usize; 3];
        for message in received {
            assert_eq!(message.qos, granted.min(published));
            let text = String::from_utf8(message.payload.0).expect("text");
            let (vehicle, number) = text.split_once(':').expect("a vehicle and a number");
            let next = &mut next[vehicle.parse::<usize>().expect("a number")];
            assert_eq!(number.parse(), Ok(*next), "{vehicle}");
            *next += 1;
        }
        assert_eq!(next, [400; 3]);
        assert_eq!(broker.stats().history_replays, 1);
        assert_eq!(broker.stats().history_missed, 0);
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

#[test]
fn live_goes_on_with_qos_0() {
    for options in both("client") {
        live_goes_on(&options, 0, 0);
    }
}

#[test]
fn live_goes_on_with_qos_1() {
    for options in both("client") {
        live_goes_on(&options, 1, 1);
        live_goes_on(&options.clone().receive_maximum(3), 2, 1);
    }
}

#[test]
fn live_goes_on_with_qos_2() {
    live_goes_on(&v5("client"), 2, 2);
}

/// A small generator, so that a failure names its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Everything by chance: who publishes, what takes a turn, whether the disk works, fails or is slow, when clients
/// come, read and go. Who follows gets what each vehicle published from where he began, once and in order;
/// who asks for what was there gets at least all that was published before, and no more than until then.
#[test]
fn chance_finds_neither_gap_nor_duplicate() {
    let from = std::env::var("SHARDMQ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = std::env::var("SHARDMQ_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok());
    let first = from.unwrap_or(1);
    for seed in first..first + seeds.unwrap_or(40) {
        by_chance(seed);
    }
}

/// A client, what was published when it came, whether it follows, and what it got.
type Watcher = (Client, [usize; 3], bool, Vec<Message>);

fn by_chance(seed: u64) {
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let shards = 1 + chance.below(3);
    let broker = keeping(shards, &[stream("vehicle/+/telemetry")]);
    let mut vehicles = fleet(&broker);
    let mut published = [0_usize; 3];
    let mut clients: Vec<Watcher> = Vec::new();
    let mut names = 0;
    for _ in 0..600 {
        match chance.below(12) {
            0..=3 => {
                let vehicle = chance.below(3);
                for _ in 0..=chance.below(20) {
                    let qos = chance.below(2) as u8;
                    let sent = telemetry(vehicle, published[vehicle]).qos(qos).id(1);
                    vehicles[vehicle].push_publish(&sent);
                    published[vehicle] += 1;
                }
            }
            4..=6 => {
                let shard = chance.below(shards);
                broker.world().turn(shard);
            }
            7 => {
                let shard = chance.below(shards);
                broker.world().work_on_history(shard);
            }
            8 => {
                let works = chance.below(2) == 0;
                let full = chance.below(4) == 0;
                let mut world = broker.world();
                world.disk_works = works;
                world.disk_is_full = full;
                world.now = world.now.plus_millis(chance.below(3_000) as u64);
            }
            9 => broker.settle(),
            10 if clients.len() < 6 => {
                names += 1;
                broker.settle(); // what is published has come in
                let mut client = broker.connect(
                    v5(&broker.on(chance.below(3), &format!("c{names}"))).receive_maximum(5),
                );
                let follows = chance.below(3) > 0;
                let dots = if follows { ".." } else { "" };
                let qos = chance.below(2) as u8;
                if chance.below(3) == 0 {
                    client.stop_reading();
                }
                client.push_subscribe(
                    sub(&format!("$history/-1d{dots}/vehicle/+/telemetry")).qos(qos),
                );
                clients.push((client, published, follows, Vec::new()));
            }
            11 if !clients.is_empty() => {
                let which = chance.below(clients.len());
                let (client, .., messages) = &mut clients[which];
                match chance.below(4) {
                    0 => client.stop_reading(),
                    1 => client.go_on_reading(),
                    2 => client.read_once(),
                    _ => {}
                }
                messages.extend(publishes(client));
            }
            _ => {}
        }
    }
    broker.world().disk_works = true;
    broker.world().disk_is_full = false;
    broker.advance(5.0);
    for watcher in clients {
        everything_came(watcher, published, seed);
    }
    assert_eq!(broker.stats().history_missed, 0, "seed {seed}");
    assert_eq!(broker.stats().history_dropped, 0, "seed {seed}");
}

/// A client reads to the end, and has what it should.
fn everything_came(watcher: Watcher, published: [usize; 3], seed: u64) {
    let (mut client, before, follows, mut messages) = watcher;
    for _ in 0..1_000 {
        client.go_on_reading();
        let more = publishes(&mut client);
        if more.is_empty() {
            break;
        }
        messages.extend(more);
    }
    let mut next = [0_usize; 3];
    for message in &messages {
        let text = String::from_utf8_lossy(&message.payload.0).into_owned();
        let (vehicle, number) = text.split_once(':').expect("a vehicle and a number");
        let vehicle = vehicle.parse::<usize>().expect("a number");
        assert_eq!(
            number,
            next[vehicle].to_string(),
            "seed {seed}: vehicle {vehicle}"
        );
        next[vehicle] += 1;
    }
    if follows {
        assert_eq!(next, published, "seed {seed}");
    }
    for (got, before) in next.iter().zip(before) {
        assert!(*got >= before, "seed {seed}: {next:?} {before:?}");
    }
}

/// What was kept is there after a start, also with another number of shards, and times order it.
#[test]
fn a_start_with_other_shards_finds_everything() {
    let streams = [stream("vehicle/+/telemetry")];
    let mut files = HistoryFiles::new();
    let mut expected = Vec::new();
    for (run, shards) in [(1, 3), (2, 1), (3, 4), (4, 2)] {
        let broker = Broker::new(shards, &settings());
        broker.world().keep_history(&streams, files, run);
        broker.advance(100.0 * f64::from(run));
        let mut vehicles = fleet(&broker);
        for number in 0..30 {
            let sent = telemetry(number % 3, number + run as usize * 100);
            expected.push(String::from_utf8(sent.payload.0.clone()).unwrap());
            vehicles[number % 3].publish(&sent);
            broker.advance(0.7);
        }
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("$history/-1h../vehicle/+/telemetry").qos(1));
        assert_eq!(got(&mut client), expected, "run {run}");
        vehicles[0].publish(&telemetry(0, 777));
        expected.push("0:777".into());
        assert_eq!(got(&mut client), ["0:777"]);
        broker.advance(2.0); // an interval: all is on disk
        files = std::mem::take(&mut broker.world().files);
    }
}

/// A reader that takes a little at a time makes the broker hold a little at a time.
#[test]
fn a_replay_waits_for_a_slow_reader() {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        let body = "x".repeat(500);
        for number in 0..6_000 {
            let which = number % 3;
            let sent = message(
                &format!("vehicle/{which}/telemetry"),
                format!("{number} {body}"),
            );
            vehicles[which].push_publish(&sent.qos(1).id(1));
            if number % 100 == 0 {
                broker.advance(0.1);
            }
        }
        broker.settle();
        for granted in [0, 1] {
            let mut client = broker.connect(v5("client").receive_maximum(20));
            client.stop_reading();
            client.push_subscribe(sub("$history/-1h/vehicle/+/telemetry").qos(granted));
            broker.settle();
            let (mut received, mut rounds) = (0, 0);
            while received < 6_000 {
                assert!(broker.stats().queued <= 200, "{}", broker.stats().queued);
                client.read_once();
                let arrived = publishes(&mut client).len();
                assert!(arrived > 0, "it stands still after {received}");
                received += arrived;
                rounds += 1;
            }
            assert!(rounds > 5, "{rounds} rounds: nothing was held back");
            client.go_on_reading();
            client.disconnect();
        }
        assert_eq!(broker.dropped_in_all(), 0);
    });
}

/// UNSUBSCRIBE, the same SUBSCRIBE again, and the end of the connection end a replay.
#[test]
fn a_replay_ends_with_its_subscription() {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        vehicles[1].publish(&telemetry(1, 0));
        let filter = "$history/-1h../vehicle/+/telemetry";
        let mut client = broker.connect(v5("client").expiry(600));
        client.subscribe(sub(filter).qos(1));
        assert_eq!(got(&mut client), ["1:0"]);
        vehicles[1].publish(&telemetry(1, 1));
        assert_eq!(got(&mut client), ["1:1"]);
        client.subscribe(sub(filter).qos(1));
        assert_eq!(got(&mut client), ["1:0", "1:1"], "it begins anew");
        assert_eq!(broker.stats().history_replays, 1);
        assert_eq!(client.unsubscribe(&[filter]), [0]);
        assert_eq!(client.unsubscribe(&[filter]), [0x11]);
        vehicles[1].publish(&telemetry(1, 2));
        client.expect_nothing();
        client.subscribe(sub(filter).qos(1));
        assert_eq!(got(&mut client).len(), 3);
        client.cut();
        assert_eq!(broker.stats().history_replays, 0);
        vehicles[1].publish(&telemetry(1, 3));
        // The session stayed, the subscription did not.
        let mut client = broker.connect(v5("client").expiry(600).resume());
        client.expect_nothing();
        assert_eq!(broker.stats().subscriptions, 0);
    });
}

/// A message that is too old is not replayed; what is left of its interval is told.
#[test]
fn expiry_counts_on_while_a_message_is_kept() {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        vehicles[0].publish(&telemetry(0, 0).expiry(10));
        vehicles[0].publish(&telemetry(0, 1).expiry(100));
        broker.advance(50.0);
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("$history/-1h/vehicle/+/telemetry"));
        let messages = client.messages();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].expiry, Some(50));
        assert_eq!(broker.dropped(DropReason::Expired), 1);
    });
}

/// Lets clients receive the topics of vehicle 1 alone.
struct OnlyOne;

impl Policy for OnlyOne {
    fn connect(&mut self, _: &Credentials<'_>) -> Decision {
        Decision::Allow
    }
    fn publish(&mut self, _: &PolicyClient<'_>, _: Name<'_>) -> bool {
        true
    }
    fn subscribe(&mut self, _: &PolicyClient<'_>, subscription: Subscription<'_>) -> Reach {
        match subscription.filter.as_str() {
            "vehicle/1/telemetry" => Reach::All,
            "vehicle/+/telemetry" => Reach::Part,
            _ => Reach::Nothing,
        }
    }
    fn receive(&mut self, _: &PolicyClient<'_>, topic: Name<'_>) -> bool {
        topic.as_str() == "vehicle/1/telemetry"
    }
    fn filters_messages(&self) -> bool {
        true
    }
}

/// The rules are those of the filter that is asked for, and of each message where it is allowed in part.
#[test]
fn the_rules_hold_for_history() {
    for shards in [1, 3] {
        let broker = Broker::guarded(shards, &settings(), || OnlyOne);
        let streams = [stream("vehicle/+/telemetry")];
        broker
            .world()
            .keep_history(&streams, HistoryFiles::new(), 1);
        let mut vehicles = fleet(&broker);
        for number in 0..9 {
            vehicles[number % 3].publish(&telemetry(number % 3, number));
        }
        let mut client = broker.connect(v5("client"));
        let denied = client.subscribe_all(&[sub("$history/-1h/vehicle/2/telemetry")]);
        assert_eq!(denied, [ReasonCode::NotAuthorized as u8]);
        client.subscribe(sub("$history/-1h../vehicle/+/telemetry"));
        assert_eq!(got(&mut client), ["1:1", "1:4", "1:7"]);
        broker.world().replace_policy(|| Box::new(OnlyOne));
        vehicles[0].publish(&telemetry(0, 10));
        vehicles[1].publish(&telemetry(1, 11));
        assert_eq!(
            got(&mut client),
            ["1:11"],
            "also after the rules were read again"
        );
    }
}

/// A disk that takes nothing: who is up to date misses nothing, what is dropped is counted, and when there is space
/// again it goes on.
#[test]
fn a_full_disk_is_told_and_survived() {
    on_shards(|broker| {
        broker.world().disk_is_full = true;
        let mut vehicles = fleet(broker);
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("$history/-1h../vehicle/+/telemetry"));
        let body = "x".repeat(10_000);
        let mut seen = 0;
        for number in 0..4_000 {
            let sent = message("vehicle/1/telemetry", format!("{number} {body}"));
            vehicles[1].push_publish(&sent);
            if number % 5 == 0 {
                broker.settle();
                seen += client.messages().len();
            }
        }
        broker.settle();
        seen += client.messages().len();
        assert_eq!(seen, 4_000);
        let dropped = broker.stats().history_dropped;
        assert!(dropped > 1_000, "{dropped}");
        assert!(broker.stats().history_waiting_bytes < 20 << 20);
        broker.world().disk_is_full = false;
        broker.advance(5.0);
        assert_eq!(broker.stats().history_waiting_bytes, 0);
        let mut late = broker.connect(v5("late"));
        late.subscribe(sub("$history/-1h/vehicle/+/telemetry"));
        assert_eq!(late.messages().len() as u64, 4_000 - dropped);
    });
}

/// A stream holds as much as it may on all shards together: the oldest buckets go.
#[test]
fn a_stream_holds_no_more_than_it_may() {
    for shards in [1, 3] {
        let stream = Stream {
            keep_bytes: 1 << 20,
            bucket: 10 * SECOND,
            ..stream("vehicle/+/telemetry")
        };
        let broker = keeping(shards, &[stream]);
        let mut vehicles = fleet(&broker);
        let body = "x".repeat(5_000);
        for number in 0..1_000 {
            let which = [0, 0, 0, 1][number % 4]; // not evenly
            let sent = message(
                &format!("vehicle/{which}/telemetry"),
                format!("{number} {body}"),
            );
            vehicles[which].publish(&sent);
            broker.advance(1.0);
            if number > 300 {
                let stored = broker.stats().history_stored_bytes;
                assert!(
                    (900 << 10..1_200 << 10).contains(&stored),
                    "{number}: {stored}"
                );
            }
        }
        broker.advance(2.0);
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("$history/-1d/vehicle/+/telemetry"));
        let messages = client.messages();
        let numbers: Vec<usize> = messages
            .iter()
            .map(|message| {
                let text = String::from_utf8_lossy(&message.payload.0);
                text.split(' ').next().unwrap().parse().unwrap()
            })
            .collect();
        assert!((150..=230).contains(&numbers.len()), "{}", numbers.len());
        // Lanes end where their oldest bucket begins: from the later of the two on all are there.
        let of = |vehicle: usize| move |number: &&usize| usize::from(*number % 4 == 3) == vehicle;
        let begins = (0..2).map(|vehicle| numbers.iter().find(of(vehicle)).copied().unwrap_or(0));
        let first = begins.max().unwrap_or(0);
        assert!(first < 870, "{first}");
        let newest: Vec<usize> = numbers
            .into_iter()
            .filter(|number| *number >= first)
            .collect();
        assert_eq!(
            newest,
            (first..1_000).collect::<Vec<_>>(),
            "the newest are there"
        );
        assert_eq!(broker.stats().history_missed, 0);
    }
}

/// A replay that is slower than buckets go misses what was in them; how much is counted.
#[test]
fn what_goes_before_it_is_read_is_counted() {
    on_shards(|broker| {
        let mut vehicles = fleet(broker);
        let body = "x".repeat(2_000);
        for number in 0..2_000 {
            let sent = message("vehicle/1/telemetry", format!("{number} {body}"));
            vehicles[1].push_publish(&sent);
            if number % 10 == 0 {
                broker.advance(1.0);
            }
        }
        broker.advance(2.0);
        let mut client = broker.connect(v5("client"));
        client.stop_reading();
        client.push_subscribe(sub("$history/-2d/vehicle/+/telemetry"));
        broker.settle();
        broker.world().files.clear(); // as if each bucket had gone
        client.go_on_reading();
        let got = publishes(&mut client).len() as u64;
        assert!(got > 0 && got < 2_000, "{got}");
        assert_eq!(got + broker.stats().history_missed, 2_000);
    });
}

/// Messages by chance of sizes and topics: per topic what comes is what was published.
#[test]
fn large_and_small_messages_of_many_topics() {
    on_shards(|broker| {
        let mut chance = Chance(7);
        let mut vehicles = fleet(broker);
        let mut sent: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for _ in 0..400 {
            let which = chance.below(3);
            let topic = format!("vehicle/{which}{}/telemetry", chance.below(5));
            let size = [0, 10, 1_000, 100_000][chance.below(4)];
            vehicles[which].push_publish(&message(&topic, vec![b'x'; size]));
            sent.entry(topic).or_default().push(size);
            if chance.below(10) == 0 {
                broker.advance(1.0);
            }
        }
        broker.settle();
        let mut client = broker.connect(v5("client"));
        client.subscribe(sub("$history/-1h/vehicle/+/telemetry"));
        let mut received: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for message in client.messages() {
            assert_eq!(message.qos, QoS::AtMostOnce.bits());
            received
                .entry(message.topic)
                .or_default()
                .push(message.payload.0.len());
        }
        assert_eq!(received, sent);
    });
}
