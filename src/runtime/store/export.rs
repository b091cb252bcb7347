//! A data directory as lines of JSON, and back: for backups that people can read, for moving to another
//! machine or another broker, for looking into.
//!
//! ```text
//! {"format":"shardmq-export","version":2}
//! {"type":"session","client_id":"vehicle-7",…,"subscriptions":[…],"held":[…],"will":null}
//! {"type":"message","topic":"a","payload":"aGVsbG8=",…,"retained":false,"receivers":[…]}
//! {"type":"released","receivers":[…]}
//! {"type":"stream","name":"fleet","filter":"fleet/#"}
//! {"type":"record","run":1,"received_at_us":1795219200000000,"topic":"fleet/7","payload":"MjE=",…}
//! {"type":"end","sessions":1,"messages":1,"records":1}
//! ```
//!
//! A session stands before the messages that wait for it, and these stand in their order. `released`
//! is the place of a QoS 2 message that its receivers have: PUBREL goes on there. Behind a `stream` of history its
//! records stand, in the order in which they came (`history_lines`). The last line tells a
//! whole file from the beginning of one. Version 1 knew of no history, and not of the retained messages that are
//! `owed` to a subscription.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::config::is_word;
use crate::topic::Filter;

use super::content::{Content, Kept};
use super::history_lines::{self, Writer};
use super::json::{self, Fields, Wrong};
use super::target::Targets;
use super::{Store, StoreError, mosquitto};

/// What the first line says.
const FORMAT: &str = "shardmq-export";

/// The version that this program writes, and the newest that it reads.
const VERSION: u64 = 2;

/// How much was written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Sessions.
    pub sessions: u64,
    /// Messages, those that were released included.
    pub messages: u64,
    /// Messages of history.
    pub records: u64,
    /// Places of history that are damaged: what stood there is left out.
    pub damaged: u64,
    /// What could not be taken over, of a foreign format.
    pub left_out: u64,
}

impl Store {
    /// Writes everything to `out`, with what history streams hold or without.
    ///
    /// # Errors
    /// A journal is damaged, or something cannot be read or written.
    pub fn export(&self, out: &mut dyn Write, with_history: bool) -> Result<Amount, StoreError> {
        let mut amount = Amount::default();
        let mut line = |value: Value| writeln!(out, "{value}").map_err(StoreError::Output);
        line(json!({"format": FORMAT, "version": VERSION}))?;
        for content in Content::read_all(&self.manifest.files(&self.directory))? {
            for session in &content.sessions {
                line(json::session(session))?;
                amount.sessions += 1;
            }
            let client = |index: usize| &*content.sessions[index].client_id;
            for kept in &content.messages {
                line(as_line(kept, client))?;
                amount.messages += 1;
            }
        }
        if with_history {
            history_lines::write(&self.directory, &mut amount, &mut line)?;
        }
        line(json!({
            "type": "end",
            "sessions": amount.sessions,
            "messages": amount.messages,
            "records": amount.records,
        }))?;
        out.flush().map_err(StoreError::Output)?;
        Ok(amount)
    }

    /// Makes `directory` for `shards` shards and fills it with what was exported, or with a
    /// `mosquitto.db`. Until all of it is on disk the directory holds no session and no message.
    ///
    /// # Errors
    /// There is something in the directory, or `input` is not what it should be.
    pub fn import(
        directory: &Path,
        shards: usize,
        input: &mut dyn BufRead,
        now: std::time::SystemTime,
    ) -> Result<Amount, StoreError> {
        let beginning = input.fill_buf().map_err(StoreError::Input)?;
        let is_mosquitto = mosquitto::is_one(beginning);
        let mut store = Self::open(directory, shards)?;
        if !store.is_empty()? {
            return Err(StoreError::NotEmpty(directory.to_owned()));
        }
        let mut amount = Amount::default();
        let mut history = Writer::new(directory);
        let filled = store.replace(shards, |targets| {
            amount = match is_mosquitto {
                true => mosquitto::import(input, now, targets)?,
                false => read(input, targets, &mut history)?,
            };
            history.finish()
        });
        filled.inspect_err(|_| history.remove())?;
        Ok(amount)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        if history_lines::is_any(&self.directory)? {
            return Ok(false);
        }
        let contents = Content::read_all(&self.manifest.files(&self.directory))?;
        let mut contents = contents.iter();
        Ok(contents.all(|content| content.sessions.is_empty() && content.messages.is_empty()))
    }
}

fn as_line<'a>(kept: &'a Kept, client: impl Fn(usize) -> &'a str) -> Value {
    let receivers = json::receivers(&kept.receivers, client);
    match &kept.body {
        None => json!({"type": "released", "receivers": receivers}),
        Some(body) => {
            let mut value = json!({"type": "message"});
            json::append(&mut value, json::message(&body.stored()));
            value["retained"] = kept.retained.into();
            value["receivers"] = receivers;
            value
        }
    }
}

/// Reads lines as [`Store::export`] writes them.
fn read(
    input: &mut dyn BufRead,
    targets: &mut Targets,
    history: &mut Writer,
) -> Result<Amount, StoreError> {
    let mut reader = Reader {
        targets,
        history,
        version: VERSION,
        clients: HashMap::new(),
        topics: HashSet::new(),
        amount: Amount::default(),
        state: State::Begin,
    };
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let length = input.read_until(b'\n', &mut text);
        if length.map_err(StoreError::Input)? == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |what: Wrong| StoreError::Line { number, what };
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("this is no JSON: {error}")))?;
        match reader.line(&value) {
            Ok(()) => {}
            Err(Trouble::Line(what)) => return Err(wrong(what)),
            Err(Trouble::Store(StoreError::Refused(_))) => {
                return Err(wrong(
                    "the journal does not take it: too large, or twice".into(),
                ));
            }
            Err(Trouble::Store(error)) => return Err(error),
        }
    }
    match reader.state {
        State::End => Ok(reader.amount),
        _ => Err(StoreError::Input(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the last line is missing: it is not all of an export",
        ))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    Middle,
    End,
}

struct Reader<'a> {
    targets: &'a mut Targets,
    history: &'a mut Writer,
    /// What the first line says.
    version: u64,
    clients: HashMap<Box<str>, usize>,
    /// Of retained messages.
    topics: HashSet<Box<str>>,
    amount: Amount,
    state: State,
}

/// What a line can lead to.
enum Trouble {
    Line(Wrong),
    Store(StoreError),
}

impl From<Wrong> for Trouble {
    fn from(wrong: Wrong) -> Self {
        Self::Line(wrong)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Reader<'_> {
    fn line(&mut self, value: &Value) -> Result<(), Trouble> {
        let fields = Fields::of(value)?;
        if self.state == State::Begin {
            if fields.text("format").ok() != Some(FORMAT) {
                let what = format!("this does not begin with {{\"format\":\"{FORMAT}\"}}");
                return Err(Trouble::Line(what));
            }
            self.version = fields.number("version")?;
            if !(1..=VERSION).contains(&self.version) {
                let version = self.version;
                let what = format!("version {version} of the format is not known to this program");
                return Err(Trouble::Line(what));
            }
            self.state = State::Middle;
            return Ok(());
        }
        if self.state == State::End {
            return Err(Trouble::Line("there is more behind the end".into()));
        }
        match fields.text("type")? {
            "session" => self.session(fields),
            "message" => self.message(fields, true),
            "released" => self.message(fields, false),
            "stream" => self.stream(fields),
            "record" => self.record(fields),
            "end" => self.end(fields),
            other => Err(Trouble::Line(format!("`{other}` is no type of line"))),
        }
    }

    fn session(&mut self, fields: Fields<'_>) -> Result<(), Trouble> {
        let session = fields.session()?;
        let index = self.clients.len();
        let client_id = session.client_id.clone();
        if self.clients.insert(client_id, index).is_some() {
            let what = format!("a second session of `{}`", session.client_id);
            return Err(Trouble::Line(what));
        }
        self.targets.session(&session)?;
        self.amount.sessions += 1;
        Ok(())
    }

    fn message(&mut self, fields: Fields<'_>, has_body: bool) -> Result<(), Trouble> {
        let receivers = fields.receivers(|client| self.clients.get(client).copied())?;
        let body = has_body.then(|| fields.body()).transpose()?;
        let retained = has_body && fields.flag("retained")?;
        if let Some(body) = body.as_ref().filter(|_| retained)
            && !self.topics.insert(body.topic.clone())
        {
            let what = format!("a second retained message of `{}`", body.topic);
            return Err(Trouble::Line(what));
        }
        self.targets
            .message(&Kept::made(body, retained, receivers), 0)?;
        self.amount.messages += 1;
        Ok(())
    }

    fn stream(&mut self, fields: Fields<'_>) -> Result<(), Trouble> {
        let (name, filter) = (fields.text("name")?, fields.text("filter")?);
        if !is_word(name) {
            let what = format!("`{name}` is no name of a history stream");
            return Err(Trouble::Line(what));
        }
        if Filter::parse(filter).is_err() {
            return Err(Trouble::Line(format!("`{filter}` is no topic filter")));
        }
        match self.history.begin(name, filter)? {
            true => Ok(()),
            false => Err(Trouble::Line(format!("a second stream `{name}`"))),
        }
    }

    fn record(&mut self, fields: Fields<'_>) -> Result<(), Trouble> {
        let record = fields.record()?;
        match self.history.append(&record)? {
            Ok(()) => {
                self.amount.records += 1;
                Ok(())
            }
            Err(what) => Err(Trouble::Line(what.into())),
        }
    }

    fn end(&mut self, fields: Fields<'_>) -> Result<(), Trouble> {
        let said: (u64, u64) = (fields.number("sessions")?, fields.number("messages")?);
        let records: u64 = match self.version {
            1 => 0,
            _ => fields.number("records")?,
        };
        let amount = &self.amount;
        if (said.0, said.1, records) != (amount.sessions, amount.messages, amount.records) {
            return Err(Trouble::Line(
                "there are more or fewer lines than it says here".into(),
            ));
        }
        self.state = State::End;
        Ok(())
    }
}
