//! The scenarios of the Open MQTT Benchmark Suite, by what their names say.
//!
//! They have its parameters: QoS 1, payloads of 16 bytes, keep-alive of 300 s, clean sessions, half an
//! hour, MQTT 3.1.1 but for shared subscriptions. Their names say kind, publishers, subscribers,
//! topics and rate, and any name of that form is understood. The rate of `p2p` and `sharedsub` counts
//! messages published, that of `fanout` messages delivered.
//!
//! A suffix makes a scenario smaller: `-x0.1` takes a tenth of every number in the name, `@small` as
//! much as a machine with two cores carries and half a minute. The suffix stays part of the name, so
//! that no result of a part is taken for one of the whole.

use std::time::Duration;

use shardmq::wire::{QoS, Version};

use super::scenarios::Work;
use super::{Group, Pace, Plan};

/// Clients that `@small` leaves at most.
const SMALL_CLIENTS: f64 = 1_000.0;

/// Messages per second, published or delivered, that `@small` leaves at most.
const SMALL_RATE: f64 = 20_000.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// As its name says.
    Whole,
    /// `@small`.
    Small,
    /// `-x0.1` and the like.
    Part(f64),
}

impl Scale {
    /// The factor for a scenario with so many clients and such a rate.
    fn factor(self, clients: f64, rate: f64) -> f64 {
        match self {
            Self::Whole => 1.0,
            Self::Small => (SMALL_CLIENTS / clients).min(SMALL_RATE / rate).min(1.0),
            Self::Part(factor) => factor,
        }
    }
}

/// A name without its suffix, and what that says.
pub(super) fn split(name: &str) -> Option<(&str, Scale)> {
    if let Some(base) = name.strip_suffix("@small") {
        return Some((base, Scale::Small));
    }
    if let Some((base, factor)) = name.rsplit_once("-x")
        && let Ok(factor) = factor.parse::<f64>()
    {
        let fits = factor > 0.0 && factor <= 1.0;
        return fits.then_some((base, Scale::Part(factor)));
    }
    Some((name, Scale::Whole))
}

fn scaled(number: f64, factor: f64) -> u32 {
    (number * factor).round().max(1.0) as u32
}

/// `kind-publishers-subscribers-topics-rate` and `conn-tcp-connections-rate`.
pub(super) fn find(name: &str, scale: Scale) -> Option<Plan> {
    let mut parts = name.split('-');
    let kind = parts.next()?;
    if kind == "conn" {
        if parts.next() != Some("tcp") {
            return None;
        }
        let numbers = numbers(parts, 2)?;
        return Some(connections(numbers[0], numbers[1], scale));
    }
    let numbers = numbers(parts, 4)?;
    let factor = scale.factor(numbers[0].max(numbers[1]), numbers[3]);
    let rate = numbers[3] * factor;
    let [publishers, subscribers, topics] =
        [numbers[0], numbers[1], numbers[2]].map(|number| scaled(number, factor));
    // Few publishers stay as they are: a hundredth of five is none.
    let few = |scaled: u32, whole: f64| if whole <= 10.0 { whole as u32 } else { scaled };
    let work = Work {
        publishers: few(publishers, numbers[0]),
        subscribers: few(subscribers, numbers[1]),
        topics: few(topics, numbers[2]),
        qos: QoS::AtLeastOnce,
        pace: Pace::Rate(rate),
        window: 1_000,
    };
    let mut plan = match kind {
        "p2p" => work.pairs(),
        "fanout" => {
            let pace = Pace::Rate(rate / f64::from(work.subscribers));
            Work { pace, ..work }.fanout()
        }
        "sharedsub" => work.shared(),
        _ => return None,
    };
    suite_defaults(&mut plan);
    if kind == "sharedsub" {
        plan.version = Version::V5;
    }
    Some(plan)
}

fn suite_defaults(plan: &mut Plan) {
    plan.version = Version::V3_1_1;
    plan.payload_size = 16;
    plan.keep_alive = 300;
    plan.clean_start = true;
    plan.connect_rate = Some(5_000.0);
    plan.warmup = Duration::from_secs(5);
    plan.duration = Some(Duration::from_mins(30));
}

fn connections(count: f64, rate: f64, scale: Scale) -> Plan {
    let factor = scale.factor(count / 10.0, 1.0);
    let mut plan = Plan {
        groups: vec![Group {
            role: "conn",
            count: scaled(count, factor),
            publishing: None,
            subscribing: None,
            stops_reading: false,
        }],
        ..Plan::default()
    };
    suite_defaults(&mut plan);
    plan.connect_rate = Some(if scale == Scale::Small {
        rate
    } else {
        rate * factor
    });
    plan.measures_connecting = true;
    plan
}

fn numbers<'a>(parts: impl Iterator<Item = &'a str>, count: usize) -> Option<Vec<f64>> {
    let numbers: Option<Vec<f64>> = parts.map(number).collect();
    numbers.filter(|numbers| numbers.len() == count && numbers.iter().all(|&number| number >= 1.0))
}

fn number(text: &str) -> Option<f64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1e3),
        b'M' => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    digits
        .parse::<u32>()
        .ok()
        .map(|number| f64::from(number) * factor)
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::find;
    use super::super::{Publishing, Topics};
    use super::*;

    fn publishing(plan: &Plan) -> &Publishing {
        plan.publishings().next().unwrap()
    }

    fn check_suite(plan: &Plan) {
        assert_eq!(plan.payload_size, 16);
        assert_eq!(plan.keep_alive, 300);
        assert!(plan.clean_start);
        assert_eq!(plan.duration, Some(Duration::from_mins(30)));
        for publishing in plan.publishings() {
            assert_eq!(publishing.qos, QoS::AtLeastOnce);
            assert!(!publishing.retain);
        }
    }

    fn counts(plan: &Plan) -> (u32, u32, u32, f64) {
        let publishing = publishing(plan);
        let subscribers = plan.groups[0].count;
        (
            plan.publishers(),
            subscribers,
            publishing.topics,
            plan.rate().unwrap(),
        )
    }

    #[test]
    fn the_suite_has_its_published_parameters() {
        let plan = find("p2p-50K-50K-50K-50K").unwrap();
        check_suite(&plan);
        assert_eq!(counts(&plan), (50_000, 50_000, 50_000, 50_000.0));
        assert_eq!(
            (publishing(&plan).receivers, plan.version),
            (1, Version::V3_1_1)
        );

        // 250 messages per second published, 250,000 delivered.
        let plan = find("fanout-5-1000-5-250K").unwrap();
        check_suite(&plan);
        assert_eq!(counts(&plan), (5, 1_000, 5, 250.0));
        assert_eq!(publishing(&plan).receivers, 1_000);
        assert_eq!(
            plan.groups[0].subscribing.as_ref().unwrap().topics,
            Topics::All(5)
        );

        let plan = find("fanout-1-1K-1-1K").unwrap();
        check_suite(&plan);
        assert_eq!(counts(&plan), (1, 1_000, 1, 1.0));

        let plan = find("sharedsub-50K-500-50K-50K").unwrap();
        check_suite(&plan);
        assert_eq!(counts(&plan), (50_000, 500, 50_000, 50_000.0));
        assert_eq!(
            plan.version,
            Version::V5,
            "shared subscriptions came with it"
        );
        let filter = &plan.groups[0].subscribing.as_ref().unwrap().filter;
        assert_eq!(filter.text(), "$share/benchmark/test/#");

        let plan = find("conn-tcp-1M-5K").unwrap();
        check_suite(&plan);
        assert_eq!(
            (plan.clients(), plan.connect_rate),
            (1_000_000, Some(5_000.0))
        );
        assert_eq!(find("conn-tcp-10K-100").unwrap().connect_rate, Some(100.0));
    }

    #[test]
    fn suffixes_scale_and_stay_in_the_name() {
        let plan = find("p2p-50K-50K-50K-50K-x0.1").unwrap();
        assert_eq!(counts(&plan), (5_000, 5_000, 5_000, 5_000.0));
        assert_eq!(plan.name, "p2p-50K-50K-50K-50K-x0.1");
        let plan = find("p2p-50K-50K-50K-50K@small").unwrap();
        assert_eq!(counts(&plan), (1_000, 1_000, 1_000, 1_000.0));
        assert_eq!(plan.duration, Some(Duration::from_secs(30)));
        let plan = find("fanout-5-1000-5-250K@small").unwrap();
        assert_eq!(counts(&plan), (5, 80, 5, 250.0));
        assert_eq!(publishing(&plan).receivers, 80);
    }
}
