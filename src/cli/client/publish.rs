//! `shardmq pub`.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use shardmq::topic::Name;
use shardmq::wire::ReasonCode;

use super::args::PubArgs;
use super::failure::Failure;
use super::properties::Command;
use super::session::{Outgoing, Session, Step};
use super::{Plan, bad_topic, now};

/// The packets that this client sends properties with.
const PACKETS: &[Command] = &[
    Command::Connect,
    Command::Publish,
    Command::Disconnect,
    Command::Will,
];

/// Where the payload comes from.
enum Source {
    /// One message, sent once or more often.
    Message(Vec<u8>),
    /// Lines of standard input.
    Lines,
}

/// Publishes.
pub(super) fn run(args: &PubArgs) -> Result<(), Failure> {
    let topic = topic(args)?;
    let source = source(args)?;
    let plan = Plan::new(&args.common, PACKETS, None)?;
    let forwarded = plan.properties.forwarded(Command::Publish);
    let mut message = Outgoing {
        topic: &topic,
        payload: &[],
        qos: args.common.qos,
        retain: args.retain,
        topic_alias: plan.properties.short(Command::Publish, "topic-alias"),
        message_expiry_interval: plan
            .properties
            .number(Command::Publish, "message-expiry-interval"),
        forwarded: &forwarded,
    };
    let session = plan.open()?;
    let mut publisher = Publisher::new(session);
    match &source {
        Source::Message(payload) => {
            message.payload = payload;
            publisher.repeat(message, args.repeat, args.repeat_delay)?;
        }
        Source::Lines => publisher.each_line(message)?,
    }
    publisher.settle()?;
    plan.close(publisher.session, ReasonCode::NormalDisconnection)?;
    publisher.refused.map_or(Ok(()), Err)
}

fn topic(args: &PubArgs) -> Result<String, Failure> {
    let from_url = args.common.url.as_ref().and_then(|url| url.topic.clone());
    let topic = args
        .topic
        .clone()
        .or(from_url)
        .ok_or_else(|| Failure::Usage("no topic; give one with -t".to_owned()))?;
    Name::parse(&topic).map_err(|error| bad_topic("-t", &topic, error))?;
    Ok(topic)
}

fn source(args: &PubArgs) -> Result<Source, Failure> {
    let given = [
        args.message.is_some(),
        args.file.is_some(),
        args.stdin_line,
        args.null_message,
        args.stdin_file,
    ];
    match given.iter().filter(|given| **given).count() {
        0 => {
            return Err(Failure::Usage(
                "no message; give one with -m, -f, -l, -n or -s".to_owned(),
            ));
        }
        1 => {}
        _ => {
            return Err(Failure::Usage(
                "only one of -m, -f, -l, -n and -s makes sense".to_owned(),
            ));
        }
    }
    if let Some(message) = &args.message {
        return Ok(Source::Message(message.clone().into_bytes()));
    }
    if let Some(file) = &args.file {
        let fail = |error| Failure::Io(format!("cannot read {}", file.display()), error);
        return std::fs::read(file).map(Source::Message).map_err(fail);
    }
    if args.stdin_file {
        let mut payload = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut payload);
        read.map_err(|error| Failure::Io("cannot read standard input".to_owned(), error))?;
        return Ok(Source::Message(payload));
    }
    if args.stdin_line {
        return Ok(Source::Lines);
    }
    Ok(Source::Message(Vec::new()))
}

/// A session with what is to be published on it.
struct Publisher {
    session: Session,
    /// Lines that came while there was no room for them.
    lines: VecDeque<Vec<u8>>,
    input_ended: bool,
    interrupted: bool,
    /// The first message that the broker did not take.
    refused: Option<Failure>,
}

impl Publisher {
    fn new(session: Session) -> Self {
        Self {
            session,
            lines: VecDeque::new(),
            input_ended: false,
            interrupted: false,
            refused: None,
        }
    }

    /// Publishes one message so many times.
    fn repeat(
        &mut self,
        message: Outgoing<'_>,
        count: u64,
        delay: Duration,
    ) -> Result<(), Failure> {
        for turn in 0..count {
            if turn > 0 && !delay.is_zero() {
                let until = now() + delay;
                while !self.interrupted && self.step(Some(until))? {}
            }
            self.send(message)?;
        }
        Ok(())
    }

    /// Publishes each line of standard input.
    fn each_line(&mut self, message: Outgoing<'_>) -> Result<(), Failure> {
        self.session.read_lines()?;
        while !self.interrupted {
            if let Some(line) = self.lines.pop_front() {
                self.send(Outgoing {
                    payload: &line,
                    ..message
                })?;
            } else if self.input_ended {
                break;
            } else {
                self.step(None)?;
            }
        }
        Ok(())
    }

    /// Publishes a message as soon as there is room for it.
    fn send(&mut self, message: Outgoing<'_>) -> Result<(), Failure> {
        while !self.session.has_room() && !self.interrupted {
            self.step(None)?;
        }
        if self.interrupted {
            Ok(())
        } else {
            self.session.publish(message)
        }
    }

    /// Waits until everything is acknowledged.
    fn settle(&mut self) -> Result<(), Failure> {
        while !self.session.is_settled() && !self.interrupted {
            self.step(None)?;
        }
        Ok(())
    }

    /// Handles what comes next; false if nothing came in time.
    fn step(&mut self, until: Option<Instant>) -> Result<bool, Failure> {
        match self.session.step(until)? {
            Step::Acknowledged {
                reason,
                reason_string,
            } => {
                if reason.is_error() && self.refused.is_none() {
                    let what = "message";
                    self.refused = Some(Failure::Denied {
                        what,
                        reason,
                        reason_string,
                    });
                }
            }
            Step::Line(line) => self.lines.push_back(line),
            Step::InputEnd => self.input_ended = true,
            Step::Interrupted => self.interrupted = true,
            Step::Timeout => return Ok(false),
            // A kept session may bring what somebody subscribed to with it.
            Step::Message(_) | Step::Subscribed(_) | Step::Unsubscribed => {}
        }
        Ok(true)
    }
}
