//! Retained messages: found by topic, and by scan.

use super::*;
use crate::message::{Message, MessageView};
use crate::route::{Retained, Scan, ScanBudget};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

const ALL: ScanBudget = ScanBudget {
    topics: usize::MAX,
    messages: usize::MAX,
    bytes: usize::MAX,
};

fn message(topic: &str, payload: &[u8], expires_at: Time) -> Message {
    MessageView {
        topic: name(topic),
        properties: &[],
        payload,
        qos: QoS::AtMostOnce,
        retain: true,
        expires_at,
    }
    .to_message()
}

fn kept(topic: &str) -> Message {
    message(topic, b"on", Time::NEVER)
}

fn topics(found: &[Message]) -> Vec<String> {
    found
        .iter()
        .map(|message| message.topic().to_owned())
        .collect()
}

/// A whole scan in steps, and what each step found.
fn scan(retained: &Retained, text: &str, budget: ScanBudget) -> Vec<Vec<String>> {
    let mut steps = Vec::new();
    let mut after: Option<Box<str>> = None;
    loop {
        let mut found = Vec::new();
        let end = retained.scan(filter(text), after.as_deref(), budget, &mut found);
        steps.push(topics(&found));
        match end {
            Scan::Complete => return steps,
            Scan::More { after: last } => {
                assert!(
                    after.is_none_or(|before| before < last),
                    "a scan goes forward"
                );
                after = Some(last);
            }
        }
    }
}

/// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] and [MQTT-3.3.1-5 3.1.1] [MQTT-3.3.1-7 3.1.1]
/// [MQTT-3.3.1-10 3.1.1] [MQTT-3.3.1-11 3.1.1]
#[test]
fn a_topic_keeps_its_last_message_and_an_empty_one_removes_it() {
    let mut retained = Retained::new(1);
    assert!(retained.set(message("a/b", b"1", Time::NEVER)));
    assert!(!retained.set(message("a/b", b"22", Time::from_secs(5))));
    assert_eq!(retained.len(), 1);
    assert_eq!(retained.bytes(), 5);
    assert_eq!(retained.get("a/b").unwrap().view().payload, b"22");
    assert!(retained.get("a").is_none());
    assert!(!retained.set(message("a/b", b"", Time::NEVER)));
    assert!(retained.get("a/b").is_none());
    assert!(!retained.set(message("a/c", b"", Time::NEVER)));
    assert!(retained.is_empty());
    assert_eq!(retained.bytes(), 0);
    assert!(retained.remove("a/b").is_none());
    assert!(scan(&retained, "#", ALL).concat().is_empty());
}

fn expire(retained: &mut Retained, seconds: u64, most: usize) -> usize {
    let now = Time::from_secs(seconds);
    std::iter::from_fn(|| retained.expire(now))
        .take(most)
        .count()
}

#[test]
fn expired_messages_go_and_only_those() {
    let mut retained = Retained::new(1);
    for n in 0..100 {
        retained.set(message(&format!("t/{n}"), b"x", Time::from_secs(n % 10)));
        retained.set(message(&format!("never/{n}"), b"x", Time::NEVER));
    }
    // A new value has a new expiry.
    retained.set(message("t/0", b"x", Time::from_secs(50)));
    retained.set(message("t/10", b"x", Time::NEVER));
    retained.remove("t/20");
    assert_eq!(expire(&mut retained, 0, 3), 3);
    assert_eq!(expire(&mut retained, 0, 100), 4);
    assert_eq!(expire(&mut retained, 0, 100), 0);
    assert_eq!(expire(&mut retained, 8, 1000), 80);
    assert_eq!(retained.len(), 100 + 10 + 2);
    assert_eq!(expire(&mut retained, 60, 1000), 11);
    assert!(retained.get("t/10").is_some());
    assert!(retained.get("t/0").is_none());
}

#[test]
fn a_budget_of_each_kind_ends_a_step() {
    let mut retained = Retained::new(1);
    for n in 0..10 {
        retained.set(kept(&format!("a/{n}")));
        retained.set(kept(&format!("b/{n}")));
    }
    let three = scan(&retained, "b/+", ScanBudget { messages: 3, ..ALL });
    assert_eq!(three.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
    let bytes = scan(&retained, "b/+", ScanBudget { bytes: 11, ..ALL });
    assert_eq!(bytes.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
    let looked = scan(&retained, "+/7", ScanBudget { topics: 4, ..ALL });
    assert_eq!(looked.concat(), ["a/7", "b/7"]);
    assert!(looked.len() > 2);
    assert_eq!(
        scan(
            &retained,
            "b/+",
            ScanBudget {
                topics: 0,
                messages: 0,
                bytes: 0
            }
        )
        .concat()
        .len(),
        10
    );
    assert_eq!(scan(&retained, "b/3", ALL), [["b/3"]]);
}

/// `+/status` over a million topics of which a few match must not look at each of them.
#[test]
fn a_scan_seeks_over_what_cannot_match() {
    let mut retained = Retained::new(1);
    for vehicle in 0..100 {
        for signal in 0..1000 {
            retained.set(kept(&format!("v{vehicle:03}/a{signal}")));
        }
        retained.set(kept(&format!("v{vehicle:03}/status")));
    }
    let steps = scan(
        &retained,
        "+/status",
        ScanBudget {
            topics: 2000,
            ..ALL
        },
    );
    assert_eq!(steps.concat().len(), 100);
    assert_eq!(
        steps.len(),
        1,
        "a scan of 100,100 topics looks at fewer than 2,000"
    );
    let steps = scan(
        &retained,
        "v050/+",
        ScanBudget {
            topics: 1010,
            ..ALL
        },
    );
    assert_eq!(steps.concat().len(), 1001);
    assert_eq!(steps.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever the budget, a scan finds what the naive filter finds, in order.
    #[test]
    fn a_scan_agrees_with_the_naive_filter(
        seed: u64,
        names in prop::collection::btree_set(topic(), 0..120),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        texts in prop::collection::vec(any_filter(), 8),
        budget in (1..60usize, 1..20usize, 1..100usize),
    ) {
        let mut retained = Retained::new(seed);
        let mut names: BTreeSet<String> = names;
        for topic in &names {
            prop_assert!(retained.set(kept(topic)));
        }
        for index in removed {
            if let Some(topic) = names.iter().nth(index.index(names.len().max(1))).cloned() {
                prop_assert!(retained.remove(&topic).is_some());
                names.remove(&topic);
            }
        }
        prop_assert_eq!(retained.len(), names.len());
        for text in &texts {
            let expected: Vec<_> =
                names.iter().filter(|topic| filter(text).matches(name(topic))).cloned().collect();
            let (topics, messages, bytes) = budget;
            for budget in [
                ALL,
                ScanBudget { topics, ..ALL },
                ScanBudget { messages, ..ALL },
                ScanBudget { bytes, ..ALL },
                ScanBudget { topics, messages, bytes },
            ] {
                let steps = scan(&retained, text, budget);
                prop_assert_eq!(&steps.concat(), &expected, "{} {:?}", text, budget);
                for step in steps {
                    prop_assert!(step.len() <= budget.messages.min(budget.topics));
                }
            }
        }
    }

    /// Topics that are there all along are found once; those that come and go, at most once, and
    /// with the value that they have then.
    #[test]
    fn a_scan_goes_on_whatever_changed_meanwhile(
        names in prop::collection::vec(topic(), 1..80),
        changes in prop::collection::vec((any::<bool>(), topic()), 0..60),
        text in any_filter(),
        looked in 1..12usize,
    ) {
        let mut retained = Retained::new(1);
        let mut now: BTreeMap<String, u32> = BTreeMap::new();
        for topic in names {
            retained.set(message(&topic, &0u32.to_be_bytes(), Time::NEVER));
            now.insert(topic, 0);
        }
        let mut always: BTreeSet<_> = now.keys().cloned().collect();
        let mut found = Vec::new();
        let mut after: Option<Box<str>> = None;
        let mut changes = (1u32..).zip(changes);
        loop {
            let before = found.len();
            let budget = ScanBudget { topics: looked, ..ALL };
            let end = retained.scan(filter(&text), after.as_deref(), budget, &mut found);
            for message in &found[before..] {
                let value = now.get(message.topic()).map(|value| value.to_be_bytes());
                prop_assert_eq!(value.as_ref().map(|value| &value[..]), Some(message.view().payload));
            }
            let Scan::More { after: last } = end else { break };
            after = Some(last);
            for (stamp, (set, topic)) in changes.by_ref().take(3) {
                if set {
                    let is_new = now.insert(topic.clone(), stamp).is_none();
                    prop_assert_eq!(
                        retained.set(message(&topic, &stamp.to_be_bytes(), Time::NEVER)), is_new
                    );
                } else {
                    prop_assert_eq!(retained.remove(&topic).is_some(), now.remove(&topic).is_some());
                    always.remove(&topic);
                }
            }
        }
        let found = topics(&found);
        prop_assert!(found.is_sorted_by(|a, b| a < b), "each once, in order");
        for topic in &always {
            prop_assert_eq!(found.contains(topic), filter(&text).matches(name(topic)));
        }
    }
}
