//! The program from outside: its subcommands as somebody at a shell meets them.
//!
//! The clients are tested twice: against a stand-in that answers as a test wants it (refusals,
//! silence, nonsense), and against the broker of the same program.

#![cfg(feature = "runtime")]
#![expect(clippy::unwrap_used, reason = "a test that cannot do its work fails")]

mod broker;
mod clients;
mod configuration;
mod stand_in;
mod store;
mod subscriber;

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The program, with an environment that says nothing to it.
fn shardmq(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmq"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHARDMQ_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// What a command printed, and how it ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end.
fn run(arguments: &[&str]) -> Ended {
    shardmq(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into()
}

/// Runs a command to its end, with this on its standard input.
fn run_with_input(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = shardmq(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().into()
}
