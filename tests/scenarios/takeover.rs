//! A client id belongs to one connection at a time, section 3.1.4.

use shardmq::wire::ReasonCode;

use crate::client::{Broker, both, on_shards, settings, v3, v5};
use crate::packets::{Received, message, sub};

/// [MQTT-3.1.4-3] [MQTT-3.1.4-2 3.1.1]: the older connection ends, and the session passes on whole,
/// whichever shards accept the two.
#[test]
fn a_second_connection_takes_the_session_over() {
    on_shards(|broker| {
        for options in both("vehicle") {
            for (first, second) in [(0, 0), (0, 1), (1, 2), (2, 0)] {
                let mut publisher = broker.connect(v5("publisher"));
                let mut old = broker.connect(options.clone().kept().at(first).manual());
                old.subscribe(sub("door").qos(2));
                publisher.publish(&message("door", "1").qos(1));
                publisher.publish(&message("door", "2").qos(2));
                let id = old.expect(&message("door", "1").qos(1));
                old.expect(&message("door", "2").qos(2));

                let mut new = broker.connect(options.clone().kept().at(second));
                old.expect_end(ReasonCode::SessionTakenOver);
                assert!(new.welcome.session_present);
                new.expect(&message("door", "1").qos(1).dup().id(id));
                new.expect(&message("door", "2").qos(2).dup().id(id + 1));
                publisher.publish(&message("door", "3").qos(1));
                new.expect(&message("door", "3").qos(1).id(id + 2));
                new.disconnect();
                publisher.disconnect();
                broker.connect(options.clone()).disconnect();
            }
            assert_eq!(broker.stats().sessions, 0);
        }
    });
}

/// One session, one owner: of connections that race from all shards exactly one is left.
#[test]
fn racing_connections_leave_one_owner() {
    for shards in [1, 3, 4] {
        let broker = Broker::new(shards, &settings());
        let mut clients: Vec<_> = (0..12)
            .map(|number| broker.push_connect(v5("vehicle").kept().at(number % shards)))
            .collect();
        broker.settle();
        let mut open = 0;
        let mut fresh = 0;
        for client in &mut clients {
            let Some(Received::ConnAck(welcome)) = client.next() else {
                panic!("no CONNACK")
            };
            fresh += u32::from(!welcome.session_present);
            if client.is_open() {
                open += 1;
                client.subscribe(sub("door"));
                client.publish(&message("door", "open"));
                client.expect(&message("door", "open"));
            } else {
                client.expect_end(ReasonCode::SessionTakenOver);
            }
        }
        let stats = broker.stats();
        assert_eq!(
            (open, fresh, stats.sessions, stats.takeovers),
            (1, 1, 1, 11)
        );
    }
}

/// A connection may end while it is handed to the shard of its session: nothing of it stays.
#[test]
fn a_connection_that_ends_on_its_way_leaves_nothing() {
    let broker = Broker::new(3, &settings());
    let id = broker.on(2, "vehicle");
    let mut client = broker.push_connect(v5(&id).at(0));
    client.push_publish(&message("last words", "w").qos(1).id(1));
    broker.world().cut(client.link);
    broker.settle();
    let stats = broker.stats();
    assert_eq!(
        (stats.connections, stats.sessions, stats.clients_connected),
        (0, 0, 0)
    );
    // It was connected for a moment, so its PUBLISH counts.
    assert_eq!(stats.publishes_received, [0, 1, 0]);
}

/// A takeover with Clean Start ends the old session with everything in it.
#[test]
fn a_takeover_with_a_clean_start_begins_anew() {
    on_shards(|broker| {
        let mut old = broker.connect(v5("vehicle").kept().at(0));
        old.subscribe(sub("door"));
        let mut new = broker.connect(v5("vehicle").at(1));
        old.expect_end(ReasonCode::SessionTakenOver);
        assert!(!new.welcome.session_present);
        new.publish(&message("door", "open"));
        new.expect_nothing();
    });
}

/// The session of a version 5 client may be taken over by one of 3.1.1, and back.
#[test]
fn a_session_passes_between_versions() {
    on_shards(|broker| {
        let mut publisher = broker.connect(v5("publisher"));
        let mut new = broker.connect(v5("vehicle").kept());
        new.subscribe(sub("door").qos(1).identifier(3));
        let mut old = broker.connect(v3("vehicle").kept());
        new.expect_end(ReasonCode::SessionTakenOver);
        assert!(old.welcome.session_present);
        publisher.publish(&message("door", "open").qos(1).user("k", "v"));
        old.expect(&message("door", "open").qos(1));
        let mut new = broker.connect(v5("vehicle").kept());
        old.expect_end(ReasonCode::SessionTakenOver);
        publisher.publish(&message("door", "closed").qos(1).user("k", "v"));
        new.expect(
            &message("door", "closed")
                .qos(1)
                .user("k", "v")
                .identifier(3),
        );
    });
}

/// A session with interval 0 that is taken over ends with the old connection: nothing is resumed.
#[test]
fn a_session_that_does_not_stay_is_not_taken_over() {
    on_shards(|broker| {
        let mut old = broker.connect(v5("vehicle"));
        old.subscribe(sub("door"));
        let mut new = broker.connect(v5("vehicle").resume());
        old.expect_end(ReasonCode::SessionTakenOver);
        assert!(!new.welcome.session_present);
        new.publish(&message("door", "open"));
        new.expect_nothing();
    });
}
