//! What can happen in a run, and how it is drawn.

use shardmq::wire::{QoS, RetainHandling, SubscriptionOptions, Version};

use crate::client::{Client, Profile, Request};
use crate::random::Random;

/// One thing that happens. Clients are named by their number.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Connects, on top of an older connection if there is one.
    Connect {
        client: usize,
        clean: bool,
        will: Option<Will>,
    },
    Subscribe {
        client: usize,
        request: Request,
    },
    Unsubscribe {
        client: usize,
        filters: Vec<String>,
    },
    Publish {
        client: usize,
        messages: Vec<Draft>,
    },
    /// DISCONNECT; with 0x04 the will is published.
    Disconnect {
        client: usize,
        with_will: bool,
        expiry: Option<u32>,
    },
    /// The connection ends, and so many percent of what is on the way arrive.
    Cut {
        client: usize,
        percent: usize,
    },
    /// The client leaves its socket unread, or reads it again.
    Stick {
        client: usize,
    },
    Unstick {
        client: usize,
    },
    /// The client acknowledges at once, or when it is told to.
    Prompt {
        client: usize,
        prompt: bool,
    },
    Acknowledge {
        client: usize,
        count: usize,
    },
    Ping {
        client: usize,
    },
    Advance {
        milliseconds: u64,
        pings: usize,
    },
    /// Everything comes to rest; everybody who kept a session comes back first, or not.
    Rest {
        everybody: bool,
    },
}

/// A message without its payload.
#[derive(Clone, Debug)]
pub struct Draft {
    pub topic: &'static str,
    pub qos: QoS,
    pub retain: bool,
    /// An empty payload.
    pub clear: bool,
    pub large: bool,
    pub expiry: Option<u32>,
}

/// A will.
#[derive(Clone, Debug)]
pub struct Will {
    pub draft: Draft,
    pub delay: u32,
}

pub const TOPICS: [&str; 15] = [
    "t/0", "t/1", "t/0/x", "t", "/t", "t/", "a//b", "$d/0", "r/0", "r/1", "r/2", "s0/a", "s0/b",
    "s1/a", "s2/a",
];
/// How many of them, from the first, no shared subscription matches.
const NOT_SHARED: usize = 11;
const FILTERS: [&str; 21] = [
    "#", "+/#", "t/#", "t/+", "+", "/+", "t/0", "t/1", "t/0/x", "+/0", "r/#", "r/+", "r/1", "+/+",
    "$d/#", "s0/#", "t/", "a/+/b", "a/#", "+/+/+", "t",
];
/// Every topic is in one of them at most, so that one can tell for which of them a message came.
const SHARED: [&str; 4] = [
    "$share/g/s0/#",
    "$share/h/s1/+",
    "$share/g/s2/a",
    "$share/g/s2/a",
];
const QOS: [QoS; 4] = [
    QoS::AtMostOnce,
    QoS::AtLeastOnce,
    QoS::AtLeastOnce,
    QoS::ExactlyOnce,
];

/// Draws a client.
pub fn profile(number: usize, random: &mut Random, workers: bool) -> Profile {
    let worker = workers && random.chance(40);
    let version = if random.chance(65) {
        Version::V5
    } else {
        Version::V3_1_1
    };
    let v5 = version.is_v5();
    let anonymous = v5 && !worker && random.chance(8);
    Profile {
        name: format!("client-{number}-{}", random.below(10_000)),
        version,
        expiry: match (v5, anonymous) {
            (false, _) => u32::MAX,
            (true, true) => 0,
            (true, false) => *random.pick(&[0, 5, 11, 600, u32::MAX, u32::MAX]),
        },
        receive_maximum: (v5 && random.chance(50)).then(|| *random.pick(&[1, 2, 5, 100])),
        maximum_packet_size: (v5 && !worker && random.chance(15)).then_some(200),
        topic_alias_maximum: if v5 { *random.pick(&[0, 0, 1, 10]) } else { 0 },
        keep_alive: *random.pick(&[0, 0, 0, 3, 7, 21]),
        worker,
        anonymous,
    }
}

impl Operation {
    /// Draws what happens next.
    pub fn draw(random: &mut Random, clients: &[Client]) -> Self {
        let client = random.below(clients.len());
        let profile = &clients[client].profile;
        if clients[client].link.is_none() && random.chance(60) {
            return Self::connect(random, client);
        }
        match random.below(100) {
            0..5 => Self::connect(random, client),
            5..19 => Self::subscribe(random, client, profile),
            19..23 => {
                let filters: Vec<String> = clients[client].filters.iter().cloned().collect();
                let filters = if filters.is_empty() {
                    vec!["never/asked/for".to_owned()]
                } else {
                    (0..=random.below(2))
                        .map(|_| random.pick(&filters).clone())
                        .collect()
                };
                Self::Unsubscribe { client, filters }
            }
            23..69 => {
                let count = if random.chance(15) {
                    2 + random.below(12)
                } else {
                    1
                };
                let topic = TOPICS[random.below(TOPICS.len())];
                let messages = (0..count).map(|_| draft(random, topic, profile)).collect();
                Self::Publish { client, messages }
            }
            69..72 => Self::Disconnect {
                client,
                with_will: random.chance(30),
                expiry: random.chance(20).then(|| *random.pick(&[0, 5, 11])),
            },
            72..78 => Self::Cut {
                client,
                percent: random.below(101),
            },
            78..82 => Self::Stick { client },
            82..86 => Self::Unstick { client },
            86..89 => Self::Prompt {
                client,
                prompt: random.chance(60),
            },
            89..93 => Self::Acknowledge {
                client,
                count: 1 + random.below(5),
            },
            93 => Self::Ping { client },
            94..98 => Self::Advance {
                milliseconds: 10 * (1 + random.below(200) as u64 * (1 + random.below(6) as u64)),
                pings: *random.pick(&[100, 100, 80, 0]),
            },
            _ => Self::Rest {
                everybody: random.chance(40),
            },
        }
    }

    fn connect(random: &mut Random, client: usize) -> Self {
        // Two retained wills that are due at once come in any order: each has a topic of its own.
        let retain = random.chance(30);
        let topic = match retain {
            true => TOPICS[client % NOT_SHARED],
            false => TOPICS[random.below(TOPICS.len())],
        };
        let will = random.chance(35).then(|| Will {
            draft: Draft {
                topic,
                qos: *random.pick(&QOS),
                retain,
                clear: false,
                large: false,
                expiry: None,
            },
            delay: *random.pick(&[0, 0, 1, 4, 7, 30]),
        });
        Self::Connect {
            client,
            clean: random.chance(25),
            will,
        }
    }

    fn subscribe(random: &mut Random, client: usize, profile: &Profile) -> Self {
        let handling = [
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ];
        let v5 = profile.version.is_v5();
        let mut filters: Vec<(String, SubscriptionOptions)> = Vec::new();
        for _ in 0..=random.below(3) {
            let filter = if profile.worker {
                random.pick(&SHARED)
            } else {
                random.pick(&FILTERS)
            };
            let qos = *random.pick(&QOS);
            let options = SubscriptionOptions {
                qos: if profile.worker {
                    qos.max(QoS::AtLeastOnce)
                } else {
                    qos
                },
                no_local: v5 && !profile.worker && random.chance(20),
                retain_as_published: v5 && !profile.worker && random.chance(30),
                retain_handling: if v5 {
                    *random.pick(&handling)
                } else {
                    RetainHandling::Send
                },
            };
            if filters.iter().all(|(other, _)| other != filter) {
                filters.push(((*filter).to_owned(), options));
            }
        }
        let identifier =
            (!profile.worker && random.chance(30)).then(|| 1 + random.below(3) as u32 * 100);
        Self::Subscribe {
            client,
            request: Request {
                filters,
                identifier,
            },
        }
    }
}

fn draft(random: &mut Random, topic: &'static str, profile: &Profile) -> Draft {
    let shared = topic.starts_with('s');
    let retain = !shared && random.chance(30);
    Draft {
        topic,
        qos: *random.pick(&QOS),
        retain,
        clear: retain && random.chance(20),
        large: !retain && !shared && random.chance(8),
        expiry: (profile.version.is_v5() && !retain && !shared && random.chance(15))
            .then(|| 1 + random.below(20) as u32),
    }
}
