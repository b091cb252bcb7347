//! `check-config`, `print-config`, and what `run` refuses before it starts.

use std::fs;
use std::path::PathBuf;

use crate::{run, shardmq};

/// A file that is removed when the test ends.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("shardmq-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn what_print_config_writes_is_fine() {
    let printed = run(&["print-config"]);
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    assert_eq!(printed.out, include_str!("../../deploy/shardmq.toml"));
    let file = File::new("printed.toml", printed.out.as_bytes());
    let checked = run(&["check-config", file.name()]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert!(
        checked.out.ends_with("printed.toml: fine\n"),
        "{}",
        checked.out
    );
}

#[test]
fn print_config_shows_what_a_file_and_the_environment_make() {
    let file = File::new("some.toml", b"shards = 2\n[mqtt]\nmax_inflight = 3\n");
    let output = shardmq(&["print-config", "-c", file.name()])
        .env("SHARDMQ__MQTT__MAX_INFLIGHT", "4")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\nshards = 2\n") && text.contains("\nmax_inflight = 4\n"),
        "{text}"
    );
}

#[test]
fn check_config_tells_all_errors_with_their_places() {
    let file = File::new("bad.toml", b"[mqtt]\nmaxqueued = 1\nmax_inflight = 0\n");
    let checked = run(&["check-config", file.name()]);
    assert_eq!(checked.code, 1);
    let name = file.name();
    let expected = [
        format!(
            "{name}:2:1: unknown key `maxqueued` in [mqtt]; did you mean `max_queued_messages`?"
        ),
        format!("{name}:3:16: `mqtt.max_inflight`: 0 is out of range; allowed is 1 to 65535"),
        "2 errors in the configuration".to_owned(),
    ];
    assert_eq!(checked.err.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_named() {
    let missing = run(&["run", "-c", "no/such.toml"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing
            .err
            .starts_with("cannot read the configuration no/such.toml: ")
    );
    let file = File::new("binary.toml", b"\xff\xfe");
    let checked = run(&["check-config", file.name()]);
    assert!(checked.err.contains("is not UTF-8 text"), "{}", checked.err);
}

#[test]
fn a_wrong_variable_stops_the_start() {
    let output = shardmq(&["run"])
        .env("SHARDMQ__MQTT__MAX_INFLIHGT", "4")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("did you mean `max_inflight`?"), "{text}");
    let output = shardmq(&["run"])
        .env("SHARDMQ_LOG", "a=b=c")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_command_line_is_explained() {
    let wrong = run(&["--listen", "1883"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("0.0.0.0:1883"), "{}", wrong.err);
    let wrong = run(&["pubb"]);
    assert_eq!(wrong.code, 2);
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(
            script.code == 0 && script.out.contains("check-config"),
            "{shell}"
        );
    }
    let page = run(&["man"]);
    assert!(
        page.code == 0 && page.out.contains(".TH shardmq"),
        "{}",
        page.out
    );
}
