//! A plan in words: the parameters that every report carries.

use super::{Driver, Pace, Plan, Topics, Verify};
use shardmq::wire::Version;

impl Plan {
    /// Everything that was asked for, in a stable order.
    #[must_use]
    pub fn parameters(&self) -> Vec<(String, String)> {
        let mut list = List(Vec::new());
        list.add("scenario", &self.name);
        list.add("broker", format!("{}:{}", self.host, self.port));
        list.add("version", version(self.version));
        // What is usual is not said: earlier results have no such line.
        match (&self.transport.tls, &self.transport.ws) {
            (None, None) => {}
            (Some(_), None) => list.add("transport", "TLS"),
            (None, Some(_)) => list.add("transport", "WebSocket"),
            (Some(_), Some(_)) => list.add("transport", "WebSocket within TLS"),
        }
        list.add("keep_alive_s", self.keep_alive);
        list.add("clean_start", self.clean_start);
        if let Some(expiry) = self.session_expiry {
            list.add("session_expiry_s", expiry);
        }
        for group in &self.groups {
            let role = group.role;
            list.add(&format!("{role}.clients"), group.count);
            if let Some(publishing) = &group.publishing {
                list.add(&format!("{role}.topic"), publishing.topic.text());
                list.add(&format!("{role}.topics"), publishing.topics);
                list.add(&format!("{role}.qos"), publishing.qos.bits());
                list.add(&format!("{role}.retain"), publishing.retain);
                list.add(&format!("{role}.pace"), pace(publishing.pace));
                if publishing.qos.bits() > 0 {
                    list.add(&format!("{role}.in_flight"), publishing.window);
                }
                list.add(
                    &format!("{role}.receivers_per_message"),
                    publishing.receivers,
                );
            }
            if let Some(subscribing) = &group.subscribing {
                let (topics, each) = match subscribing.topics {
                    Topics::Own(topics) => (topics, "one each"),
                    Topics::All(topics) => (topics, "all each"),
                };
                list.add(&format!("{role}.filter"), subscribing.filter.text());
                list.add(&format!("{role}.filters"), format!("{topics}, {each}"));
                list.add(&format!("{role}.max_qos"), subscribing.qos.bits());
            }
            if group.stops_reading {
                list.add(&format!("{role}.reading"), "stops with the measured phase");
            }
        }
        if let Some(fleet) = &self.fleet {
            list.add("fleet.telemetry_every_s", fleet.telemetry.as_secs_f64());
            list.add("fleet.in_tunnel", fleet.in_tunnel);
            list.add("fleet.commands_per_s", fleet.commands);
        }
        self.describe_run(&mut list);
        list.0
    }

    fn describe_run(&self, list: &mut List) {
        list.add("payload_bytes", self.payload_size);
        list.add(
            "connect_rate",
            self.connect_rate
                .map_or_else(|| "all at once".to_owned(), |rate| format!("{rate}/s")),
        );
        list.add("warmup_s", self.warmup.as_secs_f64());
        list.add(
            "duration_s",
            self.duration.map_or_else(
                || "until stopped".to_owned(),
                |time| time.as_secs_f64().to_string(),
            ),
        );
        if let Some(limit) = self.message_limit {
            list.add("messages", limit);
        }
        list.add(
            "verify",
            match self.verify {
                Verify::None => "none",
                Verify::Sequence => "seq",
                Verify::Full => "full",
            },
        );
        list.add("seed", self.seed);
        list.add("shards", self.shards);
        if !self.cpus.is_empty() {
            let cpus: Vec<String> = self.cpus.iter().map(ToString::to_string).collect();
            list.add("cpus", cpus.join(","));
        }
        if !self.sources.is_empty() {
            list.add("source_addresses", self.sources.len());
        }
        list.add(
            "driver",
            match self.driver {
                Driver::Auto => "auto",
                Driver::IoUring => "io_uring",
                Driver::Epoll => "epoll",
            },
        );
    }
}

struct List(Vec<(String, String)>);

impl List {
    fn add(&mut self, key: &str, value: impl ToString) {
        self.0.push((key.to_owned(), value.to_string()));
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

fn pace(pace: Pace) -> String {
    match pace {
        Pace::Rate(rate) => format!("{rate}/s"),
        Pace::Saturated => "saturated".to_owned(),
        Pace::PingPong => "ping-pong".to_owned(),
    }
}
