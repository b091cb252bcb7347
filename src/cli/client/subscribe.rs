//! `shardmq sub`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use shardmq::topic::{Filter, Subscription};
use shardmq::wire::{
    QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions, Unsubscribe,
    UnsubscribeFilters, Version,
};

use super::args::SubArgs;
use super::failure::Failure;
use super::format::Format;
use super::message::Message;
use super::properties::Command;
use super::session::{Outgoing, Session, Step};
use super::{Plan, bad_topic, complain, now, wall_clock};

/// The packets that this client sends properties with.
const PACKETS: &[Command] = &[
    Command::Connect,
    Command::Subscribe,
    Command::Unsubscribe,
    Command::Disconnect,
    Command::Will,
];

/// Time between two tries to connect again.
const RETRY: Duration = Duration::from_secs(1);

/// Subscribes and prints.
pub(super) fn run(args: &SubArgs) -> Result<(), Failure> {
    let needs_v5 = needs_v5(args);
    let mut plan = Plan::new(&args.common, PACKETS, needs_v5)?;
    plan.until = args.timeout.map(|timeout| now() + timeout);
    let mut subscriber = Subscriber::new(args, plan.until)?;
    let mut connected_before = false;
    loop {
        let failure = match subscriber.once(&plan, &mut connected_before) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if !connected_before || !failure.may_pass() {
            return Err(failure);
        }
        if !args.common.quiet {
            complain(&format!("{failure}; trying again"));
        }
        subscriber.pause(&plan)?;
    }
}

fn needs_v5(args: &SubArgs) -> Option<&'static str> {
    let options = [
        (args.no_local, "--no-local"),
        (args.retain_as_published, "--retain-as-published"),
        (args.retain_handling.is_some(), "--retain-handling"),
    ];
    options
        .iter()
        .find(|(given, _)| *given)
        .map(|(_, option)| *option)
}

struct Subscriber<'a> {
    args: &'a SubArgs,
    filters: Vec<String>,
    format: Format,
    until: Option<Instant>,
    /// Messages printed.
    count: u64,
    line: Vec<u8>,
}

/// Why a session ended as it should.
enum End {
    /// What was asked for is done.
    Done,
    /// A signal, or the time that was given.
    CutShort(Result<(), Failure>),
}

impl<'a> Subscriber<'a> {
    fn new(args: &'a SubArgs, until: Option<Instant>) -> Result<Self, Failure> {
        let mut filters = args.topic.clone();
        filters.extend(args.common.url.as_ref().and_then(|url| url.topic.clone()));
        if filters.is_empty() && args.unsubscribe.is_empty() {
            return Err(Failure::Usage(
                "no topic filter; give one with -t".to_owned(),
            ));
        }
        for filter in &filters {
            Subscription::parse(filter).map_err(|error| bad_topic("-t", filter, error))?;
        }
        for filter in &args.unsubscribe {
            Subscription::parse(filter).map_err(|error| bad_topic("-U", filter, error))?;
        }
        for filter in &args.filter_out {
            Filter::parse(filter).map_err(|error| bad_topic("-T", filter, error))?;
        }
        let format = match &args.format {
            Some(format) => Format::parse(format, args.pretty).map_err(Failure::Usage)?,
            None if args.verbose => Format::verbose(),
            None => Format::payload(),
        };
        Ok(Self {
            args,
            filters,
            format,
            until,
            count: 0,
            line: Vec::new(),
        })
    }

    /// Connects, subscribes, and prints until there is a reason to stop.
    fn once(&mut self, plan: &Plan<'_>, connected: &mut bool) -> Result<(), Failure> {
        let mut session = plan.open()?;
        *connected = true;
        self.request(plan, &mut session)?;
        match self.receive(&mut session)? {
            End::Done => plan.close(session, ReasonCode::NormalDisconnection),
            End::CutShort(result) => {
                plan.close(session, ReasonCode::DisconnectWithWillMessage)?;
                result
            }
        }
    }

    fn request(&self, plan: &Plan<'_>, session: &mut Session) -> Result<(), Failure> {
        let version = plan.version;
        if !self.filters.is_empty() {
            let mut filters = Vec::new();
            for filter in &self.filters {
                SubscribeFilters::push(version, filter, self.options(), &mut filters);
            }
            let user_properties = plan.properties.user_properties(Command::Subscribe);
            let identifier = plan
                .properties
                .number(Command::Subscribe, "subscription-identifier");
            session.request("SUBSCRIBE", |packet_id| {
                let subscribe = Subscribe {
                    packet_id,
                    subscription_identifier: identifier,
                    user_properties: user_properties.as_user_properties(),
                    filters: SubscribeFilters::from_bytes(version, &filters),
                };
                encoded(|out| subscribe.encode(version, out))
            })?;
        }
        if !self.args.unsubscribe.is_empty() {
            self.unsubscribe(plan, version, session)?;
        }
        Ok(())
    }

    fn unsubscribe(
        &self,
        plan: &Plan<'_>,
        version: Version,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let mut filters = Vec::new();
        for filter in &self.args.unsubscribe {
            UnsubscribeFilters::push(filter, &mut filters);
        }
        let user_properties = plan.properties.user_properties(Command::Unsubscribe);
        session.request("UNSUBSCRIBE", |packet_id| {
            let unsubscribe = Unsubscribe {
                packet_id,
                user_properties: user_properties.as_user_properties(),
                filters: UnsubscribeFilters::from_bytes(&filters),
            };
            encoded(|out| unsubscribe.encode(version, out))
        })
    }

    fn options(&self) -> SubscriptionOptions {
        SubscriptionOptions {
            qos: self.args.common.qos,
            no_local: self.args.no_local,
            retain_as_published: self.args.retain_as_published,
            retain_handling: self.args.retain_handling.unwrap_or(RetainHandling::Send),
        }
    }

    /// Handles what comes until there is a reason to stop.
    fn receive(&mut self, session: &mut Session) -> Result<End, Failure> {
        let mut unanswered =
            usize::from(!self.filters.is_empty()) + usize::from(!self.args.unsubscribe.is_empty());
        let nothing_to_wait_for = self.args.exit_after_subscribe || self.filters.is_empty();
        loop {
            match session.step(self.until)? {
                Step::Message(message) => {
                    if self.message(&message, session)? {
                        return Ok(End::Done);
                    }
                }
                Step::Subscribed(reasons) => {
                    self.subscribed(&reasons)?;
                    unanswered -= 1;
                }
                Step::Unsubscribed => unanswered = unanswered.saturating_sub(1),
                Step::Timeout => return Ok(End::CutShort(Err(Failure::Timeout))),
                Step::Interrupted => return Ok(End::CutShort(Ok(()))),
                Step::Acknowledged { .. } | Step::Line(_) | Step::InputEnd => {}
            }
            if unanswered == 0 && nothing_to_wait_for {
                return Ok(End::Done);
            }
        }
    }

    /// Ends if the broker refused all filters; tells of those it refused.
    fn subscribed(&self, reasons: &[ReasonCode]) -> Result<(), Failure> {
        let refused = self
            .filters
            .iter()
            .zip(reasons)
            .filter(|(_, reason)| reason.is_error());
        for (filter, reason) in refused {
            if !self.args.common.quiet {
                complain(&format!(
                    "Warning: the broker refused the filter `{filter}`: {reason}"
                ));
            }
        }
        let last = reasons.last().copied();
        match last.filter(|_| reasons.iter().all(|reason| reason.is_error())) {
            Some(reason) => Err(Failure::Denied {
                what: "subscription",
                reason,
                reason_string: None,
            }),
            None => Ok(()),
        }
    }

    /// Prints a message, if it is to be printed; true if it was the last one.
    fn message(&mut self, message: &Message, session: &mut Session) -> Result<bool, Failure> {
        if self.args.retained_only && !message.retain {
            return Ok(true);
        }
        if (self.args.no_retained && message.retain) || self.is_filtered_out(&message.topic) {
            return Ok(false);
        }
        if self.args.remove_retained && message.retain {
            session.publish(Outgoing {
                topic: &message.topic,
                payload: &[],
                qos: QoS::AtMostOnce,
                retain: true,
                topic_alias: None,
                message_expiry_interval: None,
                forwarded: &[],
            })?;
        }
        self.print(message)?;
        self.count += 1;
        Ok(self.args.count.is_some_and(|count| self.count >= count))
    }

    fn is_filtered_out(&self, topic: &str) -> bool {
        let Ok(name) = shardmq::topic::Name::parse(topic) else {
            return false;
        };
        let filters = &self.args.filter_out;
        filters
            .iter()
            .any(|text| Filter::parse(text).is_ok_and(|filter| filter.matches(name)))
    }

    fn print(&mut self, message: &Message) -> Result<(), Failure> {
        self.line.clear();
        if let Err(text) = self.format.write(message, wall_clock(), &mut self.line) {
            if !self.args.common.quiet {
                complain(&format!("Error: {text}"));
            }
            return Ok(());
        }
        if !self.args.no_end_of_line {
            self.line.push(b'\n');
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.line).and_then(|()| out.flush());
        written.map_err(|error| Failure::Io("cannot write to standard output".to_owned(), error))
    }

    /// Waits before the next try.
    fn pause(&self, plan: &Plan<'_>) -> Result<(), Failure> {
        let end = now() + RETRY;
        while now() < end {
            if plan.is_interrupted() {
                return Err(Failure::Lost(
                    "interrupted while connecting again".to_owned(),
                ));
            }
            if self.until.is_some_and(|until| now() >= until) {
                return Err(Failure::Timeout);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}
