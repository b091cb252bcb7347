//! Default, file, environment: one on top of the other, with every error noted and its place.

use std::collections::{BTreeMap, HashSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, Problem};
use super::schema::{
    ClientCertificate, Config, History, Listener, ListenerType, SECTIONS, Section,
};
use super::value::{Key, Raw};
use crate::history::range;
use crate::limits::HISTORY_STREAMS;
use crate::policy::{Method, MountPoint};
use crate::topic::{Filter, SHARE_PREFIX};

use super::{ENVIRONMENT_PREFIX, FORMAT_VERSION, suggest};

/// A configuration while it is put together.
pub(super) struct Layers {
    config: Config,
    /// Where each key that is not at its default was written, by its full name.
    origins: BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
}

/// The text of a file, to turn offsets into lines.
struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl Layers {
    pub(super) fn new() -> Self {
        Self {
            config: Config::default(),
            origins: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    /// Puts a file on top.
    pub(super) fn file(&mut self, text: &str, name: &str) {
        // A byte order mark is what some editors put in front of every file.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file = File { name, text };
        let (table, problems) = DeTable::parse_recoverable(text);
        let mut last_line = 0;
        for problem in problems {
            let offset = problem.span().map_or(0, |span| span.start);
            let (line, _) = file.line_and_column(offset);
            // What follows in the same line is mostly a consequence.
            if line != last_line {
                let syntax = Problem::Syntax(problem.message().trim().replace('\n', ", "));
                self.note(file.at(offset), "", syntax);
            }
            last_line = line;
        }
        for (key, value) in table.get_ref() {
            self.top_level(&file, key, value);
        }
    }

    /// Puts the environment on top.
    pub(super) fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let mut ours: Vec<(String, String)> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect();
        ours.sort();
        for (variable, value) in &ours {
            self.variable(variable, value);
        }
    }

    /// Checks what no key can check alone, and hands the configuration out.
    pub(super) fn finish(mut self) -> Result<Config, Vec<ConfigError>> {
        self.relations();
        let version = u64::from(self.config.version);
        if version > FORMAT_VERSION {
            // Whatever else there is to say comes from not knowing the newer format.
            let origin = self.origin("version");
            let problem = Problem::NewerFormat { found: version };
            return Err(vec![ConfigError {
                origin,
                key: "version".to_owned(),
                problem,
            }]);
        }
        if self.errors.is_empty() {
            return Ok(self.config);
        }
        self.errors.sort_by(|a, b| a.origin.cmp(&b.origin));
        Err(self.errors)
    }

    fn top_level(
        &mut self,
        file: &File<'_>,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let name = key.get_ref().as_ref();
        let origin = file.at(key.span().start);
        if name == "listener" {
            return self.listeners(file, origin, value);
        }
        if name == "history" {
            return self.histories(file, origin, value);
        }
        if let Some((section, keys)) = SECTIONS.iter().find(|(section, _)| *section == name) {
            let DeValue::Table(table) = value.get_ref() else {
                let header = section_header(section);
                return self.note(origin, name, Problem::NotASection { header });
            };
            return self.section(file, section, keys, table);
        }
        if Config::KEYS.iter().any(|key| key.name == name) {
            let at = file.at(value.span().start);
            return self.set(at, "", name, raw(value.get_ref()));
        }
        let found = name.to_owned();
        let problem = if matches!(value.get_ref(), DeValue::Table(_)) {
            Problem::UnknownSection {
                likely: suggest::section(&found),
                found,
            }
        } else {
            unknown_key(&found, "at the top level", Config::KEYS)
        };
        self.note(origin, name, problem);
    }

    fn section(
        &mut self,
        file: &File<'_>,
        section: &'static str,
        keys: &[Key],
        table: &DeTable<'_>,
    ) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if keys.iter().any(|key| key.name == name) {
                self.set(
                    file.at(value.span().start),
                    section,
                    name,
                    raw(value.get_ref()),
                );
            } else {
                let problem = unknown_key(name, &format!("in [{section}]"), keys);
                self.note(file.at(key.span().start), name, problem);
            }
        }
    }

    fn listeners(&mut self, file: &File<'_>, origin: Origin, value: &Spanned<DeValue<'_>>) {
        let not_a_section = Problem::NotASection {
            header: section_header("listener"),
        };
        let DeValue::Array(array) = value.get_ref() else {
            return self.note(origin, "listener", not_a_section);
        };
        let mut listeners = Vec::new();
        for (index, element) in array.iter().enumerate() {
            let DeValue::Table(table) = element.get_ref() else {
                self.note(
                    file.at(element.span().start),
                    "listener",
                    not_a_section.clone(),
                );
                continue;
            };
            listeners.push(self.listener(file, index, element.span().start, table));
        }
        if array.is_empty() {
            let problem = Problem::Missing {
                example: "[[listener]]".to_owned(),
            };
            self.note(origin, "listener", problem);
        }
        self.config.listeners = listeners;
    }

    fn histories(&mut self, file: &File<'_>, origin: Origin, value: &Spanned<DeValue<'_>>) {
        let not_a_section = Problem::NotASection {
            header: section_header("history"),
        };
        let DeValue::Array(array) = value.get_ref() else {
            return self.note(origin, "history", not_a_section);
        };
        self.config.history.clear();
        for (index, element) in array.iter().enumerate() {
            let start = file.at(element.span().start);
            let DeValue::Table(table) = element.get_ref() else {
                self.note(start, "history", not_a_section.clone());
                continue;
            };
            let mut history = History {
                name: format!("history{}", index + 1),
                ..History::default()
            };
            self.origins.insert(format!("history.{index}"), start);
            for (key, value) in table {
                let name = key.get_ref().as_ref();
                if !History::KEYS.iter().any(|key| key.name == name) {
                    let problem = unknown_key(name, "in a [[history]] table", History::KEYS);
                    self.note(file.at(key.span().start), name, problem);
                    continue;
                }
                let at = file.at(value.span().start);
                self.origins
                    .insert(format!("history.{index}.{name}"), at.clone());
                if let Err(problem) = history.set(name, raw(value.get_ref())) {
                    self.note(at, &format!("history.{name}"), problem);
                }
            }
            self.config.history.push(history);
        }
    }

    fn listener(
        &mut self,
        file: &File<'_>,
        index: usize,
        start: usize,
        table: &DeTable<'_>,
    ) -> Listener {
        let mut listener = Listener {
            name: format!("listener{}", index + 1),
            ..Listener::default()
        };
        let mut has_bind = false;
        let mut has_socket = false;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !Listener::KEYS.iter().any(|key| key.name == name) {
                let problem = unknown_key(name, "in a [[listener]] table", Listener::KEYS);
                self.note(file.at(key.span().start), name, problem);
                continue;
            }
            has_bind |= name == "bind";
            has_socket |= name == "socket";
            let at = file.at(value.span().start);
            self.origins
                .insert(format!("listener.{index}.{name}"), at.clone());
            if let Err(problem) = listener.set(name, raw(value.get_ref())) {
                self.note(at, &format!("listener.{name}"), problem);
            }
        }
        if listener.r#type == ListenerType::Unix || has_socket {
            if !has_bind {
                listener.bind.clear();
            }
        } else if !has_bind {
            let example = Listener::default().get("bind");
            let example = format!("bind = {example}");
            self.note(
                file.at(start),
                "listener.bind",
                Problem::Missing { example },
            );
        }
        listener
    }

    fn variable(&mut self, variable: &str, value: &str) {
        let origin = Origin::Environment(variable.to_owned());
        let path = variable
            .strip_prefix(ENVIRONMENT_PREFIX)
            .unwrap_or(variable);
        let path = path.to_ascii_lowercase();
        let parts: Vec<&str> = path.split("__").collect();
        match parts.as_slice() {
            [name] => self.variable_in(origin, "", Config::KEYS, name, value),
            ["listener", listener, name] => self.variable_of(origin, listener, name, value),
            ["history", stream, name] => self.variable_of_history(origin, stream, name, value),
            ["history", ..] => {
                let text = "a history stream is named between: SHARDMQ__HISTORY__FLEET__FILTER sets \
                            `filter` of the stream `fleet`";
                let text = text.to_owned();
                self.note(origin, "", Problem::Conflict { text });
            }
            ["listener", ..] => {
                let text = "a listener is named between: SHARDMQ__LISTENER__LOCAL__BIND sets `bind` \
                            of the listener `local`";
                self.note(
                    origin,
                    "",
                    Problem::Conflict {
                        text: text.to_owned(),
                    },
                );
            }
            [section, name] => match SECTIONS.iter().find(|(known, _)| known == section) {
                Some((section, keys)) => self.variable_in(origin, section, keys, name, value),
                None => {
                    let likely = suggest::section(section);
                    let found = (*section).to_owned();
                    self.note(origin, section, Problem::UnknownSection { found, likely });
                }
            },
            _ => {
                let problem = Problem::UnknownKey {
                    found: path.replace("__", "."),
                    place: String::new(),
                    likely: Some("a name is SHARDMQ__SECTION__KEY".to_owned()),
                };
                self.note(origin, "", problem);
            }
        }
    }

    fn variable_in(
        &mut self,
        origin: Origin,
        section: &'static str,
        keys: &[Key],
        name: &str,
        value: &str,
    ) {
        if keys.iter().any(|key| key.name == name) {
            return self.set(origin, section, name, Raw::Bare(value));
        }
        let place = if section.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{section}]")
        };
        let problem = unknown_key(name, &place, keys);
        self.note(origin, name, problem);
    }

    /// A key of the listener of that name; there is a new one if none has it.
    fn variable_of(&mut self, origin: Origin, listener: &str, name: &str, value: &str) {
        if !Listener::KEYS.iter().any(|key| key.name == name) {
            let problem = unknown_key(name, "in a [[listener]] table", Listener::KEYS);
            return self.note(origin, name, problem);
        }
        let same = |known: &str| known.to_ascii_lowercase().replace('-', "_") == listener;
        let listeners = &mut self.config.listeners;
        let index = match listeners.iter().position(|known| same(&known.name)) {
            Some(index) => index,
            None => {
                listeners.push(Listener {
                    name: listener.to_owned(),
                    ..Listener::default()
                });
                listeners.len() - 1
            }
        };
        self.origins
            .insert(format!("listener.{index}.{name}"), origin.clone());
        if let Err(problem) = listeners[index].set(name, Raw::Bare(value)) {
            self.note(origin, &format!("listener.{name}"), problem);
        }
    }

    /// A key of the history stream of that name; there is a new one if none has it.
    fn variable_of_history(&mut self, origin: Origin, stream: &str, name: &str, value: &str) {
        if !History::KEYS.iter().any(|key| key.name == name) {
            let problem = unknown_key(name, "in a [[history]] table", History::KEYS);
            return self.note(origin, name, problem);
        }
        let same = |known: &str| known.to_ascii_lowercase().replace('-', "_") == stream;
        let streams = &mut self.config.history;
        let index = match streams.iter().position(|known| same(&known.name)) {
            Some(index) => index,
            None => {
                streams.push(History {
                    name: stream.to_owned(),
                    ..History::default()
                });
                streams.len() - 1
            }
        };
        self.origins
            .insert(format!("history.{index}.{name}"), origin.clone());
        self.origins
            .entry(format!("history.{index}"))
            .or_insert_with(|| origin.clone());
        if let Err(problem) = streams[index].set(name, Raw::Bare(value)) {
            self.note(origin, &format!("history.{name}"), problem);
        }
    }

    fn set(&mut self, origin: Origin, section: &str, name: &str, raw: Raw<'_>) {
        let full = if section.is_empty() {
            name.to_owned()
        } else {
            format!("{section}.{name}")
        };
        match self.config.set_in(section, name, raw) {
            Ok(()) => {
                self.origins.insert(full, origin);
            }
            Err(problem) => self.note(origin, &full, problem),
        }
    }

    fn relations(&mut self) {
        let mqtt = &self.config.mqtt;
        if mqtt.max_queued_bytes < u64::from(mqtt.maximum_packet_size) {
            let text = "a packet of `mqtt.maximum_packet_size` would never fit into a queue; raise \
                        this or lower that";
            let problem = Problem::Conflict {
                text: text.to_owned(),
            };
            let origin = self.origin("mqtt.max_queued_bytes");
            self.note(origin, "mqtt.max_queued_bytes", problem);
        }
        if let Err(error) = Method::list(&self.config.auth.order) {
            let problem = Problem::Conflict {
                text: error.to_string(),
            };
            let origin = self.origin("auth.order");
            self.note(origin, "auth.order", problem);
        }
        let mut names = HashSet::new();
        let mut binds = HashSet::new();
        let mut twice = Vec::new();
        for (index, listener) in self.config.listeners.iter().enumerate() {
            if !names.insert(listener.name.as_str()) {
                twice.push((index, "name", format!("`{}`", listener.name)));
            }
            for bind in &listener.bind {
                // Port 0 is a different one each time.
                if bind.port() != 0 && !binds.insert(bind.to_string()) {
                    twice.push((index, "bind", bind.to_string()));
                }
            }
            if let Some(socket) = &listener.socket
                && !binds.insert(socket.display().to_string())
            {
                twice.push((index, "socket", socket.display().to_string()));
            }
        }
        for (index, what, value) in twice {
            let origin = self.origin(&format!("listener.{index}.{what}"));
            self.note(
                origin,
                &format!("listener.{what}"),
                Problem::Duplicate { what, value },
            );
        }
        for index in 0..self.config.listeners.len() {
            self.relations_of(index);
        }
        self.relations_of_history();
    }

    /// What history streams must have to do with each other.
    fn relations_of_history(&mut self) {
        let mut names = HashSet::new();
        let mut wrong = Vec::new();
        for (index, history) in self.config.history.iter().enumerate() {
            if !names.insert(history.name.to_ascii_lowercase()) {
                let value = format!("`{}`", history.name);
                let what = "name";
                wrong.push((index, what, Problem::Duplicate { what, value }));
            }
            let filter = history.filter.as_str();
            if filter.is_empty() {
                let example = "filter = \"vehicle/+/telemetry\"".to_owned();
                wrong.push((index, "filter", Problem::Missing { example }));
            } else if filter.starts_with(SHARE_PREFIX) || filter.starts_with(range::PREFIX) {
                let text = "topics are kept as they are published: neither $share nor $history";
                let text = text.to_owned();
                wrong.push((index, "filter", Problem::Conflict { text }));
            } else if Filter::parse(filter).is_err() {
                let text = format!("`{filter}` is no topic filter");
                wrong.push((index, "filter", Problem::Conflict { text }));
            }
            if index == HISTORY_STREAMS {
                let text = format!("there may be {HISTORY_STREAMS} history streams");
                wrong.push((index, "name", Problem::Conflict { text }));
            }
        }
        for (index, key, problem) in wrong {
            let origin = match self.origin(&format!("history.{index}.{key}")) {
                Origin::Default => self.origin(&format!("history.{index}")),
                written => written,
            };
            self.note(origin, &format!("history.{key}"), problem);
        }
    }

    /// What the keys of one listener must have to do with each other.
    fn relations_of(&mut self, index: usize) {
        let listener = &self.config.listeners[index];
        let kind = listener.r#type;
        let default = Listener::default();
        let mut wrong: Vec<(&str, &str)> = Vec::new();
        if kind == ListenerType::Unix {
            if !listener.bind.is_empty() && listener.bind != default.bind {
                wrong.push((
                    "bind",
                    "a listener of the type unix has a `socket`, no address",
                ));
            }
            if listener.socket.is_none() {
                wrong.push((
                    "socket",
                    "a listener of the type unix must have the path of one",
                ));
            }
        } else {
            if listener.bind.is_empty() {
                wrong.push(("bind", "must have an address at least"));
            }
            if listener.socket.is_some() {
                wrong.push(("socket", "only a listener of the type unix has one"));
            }
        }
        let tls: [(&str, bool); 5] = [
            ("certificate", !listener.certificate.is_empty()),
            ("key", !listener.key.is_empty()),
            ("client_ca", !listener.client_ca.is_empty()),
            ("client_crl", !listener.client_crl.is_empty()),
            (
                "client_certificate",
                listener.client_certificate != ClientCertificate::Off,
            ),
        ];
        if kind.has_tls() {
            if listener.certificate.is_empty() {
                wrong.push(("certificate", "TLS needs the PEM file of a certificate"));
            } else if listener.certificate.len() != listener.key.len() {
                wrong.push(("key", "there must be as many keys as certificates"));
            }
            let asks = listener.client_certificate != ClientCertificate::Off;
            if asks && listener.client_ca.is_empty() {
                let text = "who may sign the certificates of clients must be said";
                wrong.push(("client_ca", text));
            }
            let says_who = !listener.client_ca.is_empty() || !listener.client_crl.is_empty();
            if says_who && !asks {
                let text = "clients are not asked for certificates; set this to \"required\" or \
                            \"optional\"";
                wrong.push(("client_certificate", text));
            }
        } else {
            let given = tls.iter().filter(|(_, given)| *given);
            wrong.extend(given.map(|(key, _)| (*key, "is for the types tls and wss alone")));
        }
        if !kind.has_websocket() {
            let ws = [
                ("ws_path", listener.ws_path.is_empty()),
                ("ws_origin", listener.ws_origin.is_empty()),
            ];
            let given = ws.iter().filter(|(_, empty)| !empty);
            wrong.extend(given.map(|(key, _)| (*key, "is for the types ws and wss alone")));
        }
        let mount = &listener.mount_point;
        let bad_mount = MountPoint::parse(mount).err();
        let bad_mount = bad_mount
            .filter(|_| !mount.is_empty())
            .map(|bad| ("mount_point", bad.to_string()));
        let wrong = wrong.into_iter().map(|(key, text)| (key, text.to_owned()));
        for (key, text) in wrong.chain(bad_mount).collect::<Vec<_>>() {
            let origin = self.origin(&format!("listener.{index}.{key}"));
            // A key that is missing is missing where the listener is told from others.
            let origin = match origin {
                Origin::Default => self.origin(&format!("listener.{index}.type")),
                written => written,
            };
            self.note(
                origin,
                &format!("listener.{key}"),
                Problem::Conflict { text },
            );
        }
    }

    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn note(&mut self, origin: Origin, key: &str, problem: Problem) {
        self.errors.push(ConfigError {
            origin,
            key: key.to_owned(),
            problem,
        });
    }
}

impl File<'_> {
    fn at(&self, offset: usize) -> Origin {
        let (line, column) = self.line_and_column(offset);
        Origin::File {
            name: self.name.to_owned(),
            line,
            column,
        }
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

fn raw<'a>(value: &'a DeValue<'_>) -> Raw<'a> {
    match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(integer) => {
            Raw::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).ok())
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(list) => Raw::List(list),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn section_header(section: &str) -> &'static str {
    match section {
        "mqtt" => "[mqtt]",
        "auth" => "[auth]",
        "limits" => "[limits]",
        "net" => "[net]",
        "log" => "[log]",
        "history" => "[[history]]",
        _ => "[[listener]]",
    }
}

fn unknown_key(found: &str, place: &str, keys: &[Key]) -> Problem {
    let names: Vec<&'static str> = keys.iter().map(|key| key.name).collect();
    Problem::UnknownKey {
        found: found.to_owned(),
        place: place.to_owned(),
        likely: suggest::key(found, place, &names),
    }
}
