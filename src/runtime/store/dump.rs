//! The frames and records of a data directory as they stand, for people and as JSON.

use std::io::Write;

use serde_json::{Value, json};

use crate::journal::{Damage, Errands, FileId, Loss, Part, Record, for_each_in};

use super::StoreError;
use super::examine::Fault;
use super::files::Files;
use super::json;
use super::remains::Remains;

/// Bytes of a payload that people are shown.
const SHOWN: usize = 40;

/// For whom it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// An object each line.
    Json,
}

impl Remains {
    /// Writes every frame that counts, in the order of the log, with its records, and where something is
    /// wrong. Whether nothing is.
    ///
    /// # Errors
    /// A file cannot be read, or `out` not be written to.
    pub fn dump(&self, format: Format, out: &mut dyn Write) -> Result<bool, StoreError> {
        let mut fine = self.problems.is_empty();
        for files in self
            .shards
            .iter()
            .filter(|files| files.directory().is_dir())
        {
            fine &= Dump { files, format, out }.journal()?;
        }
        out.flush().map_err(StoreError::Output)?;
        Ok(fine)
    }
}

struct Dump<'a> {
    files: &'a Files,
    format: Format,
    out: &'a mut dyn Write,
}

impl Dump<'_> {
    fn journal(&mut self) -> Result<bool, StoreError> {
        let salvage = self.files.salvage()?;
        self.line(
            || {
                let identity = self.files.identity();
                json!({"journal": {"shard": identity.shard, "log": format!("{:016x}", identity.log)}})
            },
            || format!("journal of shard {}", self.files.identity().shard),
        )?;
        let mut open: Option<(FileId, Vec<u8>)> = None;
        for part in salvage.parts() {
            let file = part.header.file;
            let bytes = match open.take().filter(|(known, _)| *known == file) {
                Some((_, bytes)) => bytes,
                None => self.files.bytes(file)?,
            };
            self.part(part, &bytes)?;
            open = Some((file, bytes));
        }
        for loss in salvage.losses() {
            self.fault(*loss, "damage")?;
        }
        if let Some(damage) = salvage.tail() {
            self.fault(Loss::new(damage), "unfinished")?;
        }
        Ok(salvage.losses().is_empty())
    }

    fn part(&mut self, part: &Part, bytes: &[u8]) -> Result<(), StoreError> {
        let header = part.header;
        self.line(
            || {
                json!({"frame": {
                    "file": header.file.0,
                    "offset": header.offset,
                    "whole": part.whole,
                    "length": header.length,
                    "segment": header.segment,
                    "run": header.run,
                    "position": header.position.0,
                    "head": header.head,
                    "durable": header.durable.0,
                    "base": header.base.0,
                }})
            },
            || {
                format!(
                    "frame {} in {:08x}.log at {}: {} bytes, segment {}, run {}, oldest segment {}, on \
                     disk to {}, items from {}{}",
                    header.position.0,
                    header.file.0,
                    header.offset,
                    header.length,
                    header.segment,
                    header.run,
                    header.head,
                    header.durable.0,
                    header.base.0,
                    if part.whole { "" } else { " (DAMAGED)" }
                )
            },
        )?;
        let mut result = Ok(());
        for_each_in(part, bytes, |at, length, record| {
            if result.is_ok() {
                result = self.line(
                    || as_json(header.file, at, length, &record),
                    || format!("  {at:>9} {}", as_text(&record)),
                );
            }
        });
        result
    }

    fn fault(&mut self, loss: Loss, kind: &str) -> Result<(), StoreError> {
        let Damage { file, offset, what } = loss.damage;
        let path = self.files.path(file);
        self.line(
            || json!({kind: {"file": file.0, "offset": offset, "what": format!("{what:?}")}}),
            || {
                format!(
                    "{kind}: {}",
                    Fault {
                        path: path.clone(),
                        loss
                    }
                )
            },
        )
    }

    fn line(
        &mut self,
        value: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), StoreError> {
        match self.format {
            Format::Text => writeln!(self.out, "{}", text()),
            Format::Json => writeln!(self.out, "{}", value()),
        }
        .map_err(StoreError::Output)
    }
}

/// The name of a record, its numbers, and what it says.
fn parts(record: &Record<'_>) -> (&'static str, Value, Value) {
    match *record {
        Record::Session {
            id,
            session,
            begun,
            replaces,
            details,
        } => (
            "session",
            json!({"item": id.0, "session": session.0, "begun": begun.0,
                "replaces": replaces.map(|old| old.0)}),
            json::details(&details),
        ),
        Record::SessionRemoved { session, begun } => (
            "session-removed",
            json!({"session": session.0, "begun": begun.0}),
            Value::Null,
        ),
        Record::Subscription {
            id,
            session,
            replaces,
            details,
        } => (
            "subscription",
            json!({"item": id.0, "session": session.0, "replaces": replaces.map(|old| old.0)}),
            json::subscription(&details),
        ),
        Record::Message {
            id,
            retained,
            replaces,
            message,
            receivers,
        } => {
            let mut sessions = Vec::new();
            receivers.for_each(|recipient| sessions.push(recipient.session.0));
            (
                "message",
                json!({"item": id.0, "retained": retained, "replaces": replaces.map(|old| old.0),
                    "sessions": sessions}),
                json::message(&message),
            )
        }
        Record::Will {
            id,
            session,
            replaces,
            details,
        } => (
            "will",
            json!({"item": id.0, "session": session.0, "replaces": replaces.map(|old| old.0)}),
            json::will(&details),
        ),
        Record::Removed { id } => ("removed", json!({"item": id.0}), Value::Null),
        _ => exchange(record),
    }
}

/// The rest: what exchanges are made of, and the ways between shards.
fn exchange(record: &Record<'_>) -> (&'static str, Value, Value) {
    match *record {
        Record::Acknowledged { session, message } => (
            "acknowledged",
            json!({"session": session.0, "message": message.0}),
            Value::Null,
        ),
        Record::Held {
            id,
            session,
            packet_id,
        } => (
            "held",
            json!({"item": id.0, "session": session.0, "packet_id": packet_id.get()}),
            Value::Null,
        ),
        Record::Sent {
            id,
            session,
            message,
            packet_id,
        } => (
            "sent",
            json!({"item": id.0, "session": session.0, "message": message.0,
                "packet_id": packet_id.get()}),
            Value::Null,
        ),
        Record::Received {
            id,
            session,
            message,
            packet_id,
            replaces,
        } => (
            "received",
            json!({"item": id.0, "session": session.0, "message": message.0,
                "packet_id": packet_id.get(), "replaces": replaces.map(|old| old.0)}),
            Value::Null,
        ),
        Record::Forward { id, details } => {
            let mut errands = Vec::new();
            errands.extend(Errands::each(details.errands));
            (
                "forward",
                json!({"item": id.0, "shards": details.shards, "errands": errands}),
                json::message(&details.message),
            )
        }
        Record::Origin {
            id,
            replaces,
            lane,
            forward,
        } => (
            "origin",
            json!({"item": id.0, "lane": lane, "forward": forward.0,
                "replaces": replaces.map(|old| old.0)}),
            Value::Null,
        ),
        _ => ("record", Value::Null, Value::Null),
    }
}

fn as_json(file: FileId, at: u32, length: usize, record: &Record<'_>) -> Value {
    let (name, numbers, details) = parts(record);
    let mut value = json!({"record": name, "file": file.0, "offset": at, "length": length});
    json::append(&mut value, numbers);
    json::append(&mut value, details);
    value
}

/// The same without braces, and with a payload that can be read.
fn as_text(record: &Record<'_>) -> String {
    let (name, mut numbers, details) = parts(record);
    json::append(&mut numbers, details);
    let mut text = name.to_owned();
    let members = numbers.as_object().into_iter().flatten();
    for (key, value) in members {
        let is_empty = value.as_array().is_some_and(Vec::is_empty);
        match (key.as_str(), record) {
            ("payload", Record::Message { message, .. }) => {
                text.push_str(&payload(message.payload));
            }
            ("payload", Record::Forward { details, .. }) => {
                text.push_str(&payload(details.message.payload));
            }
            ("payload", Record::Will { details, .. }) => {
                text.push_str(&payload(details.message.payload));
            }
            _ if value.is_null() || is_empty => {}
            _ => text.push_str(&format!(" {key}={value}")),
        }
    }
    text
}

fn payload(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let more = if shown.len() < bytes.len() { "…" } else { "" };
    format!(
        " payload={} bytes \"{}\"{more}",
        bytes.len(),
        shown.escape_ascii()
    )
}
