//! The configuration as a file: every key with its documentation, its bounds and its value.

use super::schema::{
    Auth, Config, Durable, History, Http, Limits, Listener, Log, Mqtt, Net, Section,
};
use super::value::Key;

/// Characters of a line.
const WIDTH: usize = 100;

impl Config {
    /// Writes it as a file that reads back to the same configuration.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::new();
        comment(&mut out, Self::ABOUT);
        out.push_str(
            "#\n# Every key is here, with its documentation and the value that it has. What you \
             leave out\n# keeps its default. SHARDMQ__SECTION__KEY in the environment overrides a \
             key. Values are\n# read once, at start; the files that [auth] names again at SIGHUP.\n\n",
        );
        let default = Self::default();
        keys(&mut out, self, &default);
        section(&mut out, "[mqtt]", &self.mqtt, &Mqtt::default());
        section(&mut out, "[auth]", &self.auth, &Auth::default());
        section(
            &mut out,
            "[durability]",
            &self.durability,
            &Durable::default(),
        );
        section(&mut out, "[limits]", &self.limits, &Limits::default());
        section(&mut out, "[net]", &self.net, &Net::default());
        section(&mut out, "[http]", &self.http, &Http::default());
        section(&mut out, "[log]", &self.log, &Log::default());
        for (index, history) in self.history.iter().enumerate() {
            if index == 0 {
                section(&mut out, "[[history]]", history, &History::default());
            } else {
                more(&mut out, "[[history]]", history);
            }
        }
        if self.history.is_empty() {
            // There is none by default: shown as it would be.
            let mut shown = String::new();
            let (example, default) = (History::default(), History::default());
            section(&mut shown, "[[history]]", &example, &default);
            for line in shown.lines() {
                let mark = if line.is_empty() || line.starts_with('#') {
                    ""
                } else {
                    "# "
                };
                out.push_str(mark);
                out.push_str(line);
                out.push('\n');
            }
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            if index == 0 {
                section(&mut out, "[[listener]]", listener, &Listener::default());
            } else {
                more(&mut out, "[[listener]]", listener);
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// One more table of a kind, without the documentation.
fn more<S: Section>(out: &mut String, header: &str, values: &S) {
    out.push_str(header);
    out.push('\n');
    for key in S::KEYS {
        assign(out, key, values);
    }
    out.push('\n');
}

fn section<S: Section>(out: &mut String, header: &str, values: &S, default: &S) {
    comment(out, S::ABOUT);
    out.push_str(header);
    out.push_str("\n\n");
    keys(out, values, default);
}

fn keys<S: Section>(out: &mut String, values: &S, default: &S) {
    for key in S::KEYS {
        comment(out, key.doc);
        let restart = if key.needs_restart {
            ""
        } else {
            " Taken while running."
        };
        let default = format!("# Default: {}.", default.get(key.name));
        let allowed = format!("Allowed: {}.{restart}", key.kind.allowed());
        let one_line = default.len() + allowed.len() < WIDTH;
        out.push_str(&default);
        out.push_str(if one_line { " " } else { "\n# " });
        out.push_str(&allowed);
        out.push('\n');
        assign(out, key, values);
        out.push('\n');
    }
}

fn assign<S: Section>(out: &mut String, key: &Key, values: &S) {
    out.push_str(&format!("{} = {}\n", key.name, values.get(key.name)));
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        out.push_str("# ");
        out.push_str(line.trim());
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}
