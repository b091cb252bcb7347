//! The full-screen view on a terminal of its own: it is given back whatever happens.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::brokers::{START, Scratch, Then, ended, free_port, lenient};

const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";
const SHOWN: &str = "\x1b[?25h";

/// A terminal with the generator in its foreground.
struct Terminal {
    keyboard: File,
    /// Kept open, so that what was written can be read after the generator has ended.
    line: OwnedFd,
    shown: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    child: Child,
}

impl Terminal {
    fn with(arguments: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal can be had");
        grantpt(&master).expect("a pseudo-terminal can be had");
        unlockpt(&master).expect("a pseudo-terminal can be had");
        let name = ptsname(&master, Vec::new()).expect("a pseudo-terminal can be had");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = open(&*name, flags, Mode::empty()).expect("a pseudo-terminal can be had");
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&line, size).expect("a pseudo-terminal can be had");
        let end = || Stdio::from(line.try_clone().expect("a pseudo-terminal can be had"));
        // In a session of its own, of which this is the terminal: then keys are signals.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(env!("CARGO_BIN_EXE_shardmq-loadgen"))
            .args(arguments)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid is part of util-linux");
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().expect("a pseudo-terminal can be had");
        let shown = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&shown);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                into.lock().expect("nobody panics with it").push_str(&text);
            }
        });
        Self {
            keyboard,
            line,
            shown,
            reader: Some(reader),
            child,
        }
    }

    fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + START;
        while !self
            .shown
            .lock()
            .expect("nobody panics with it")
            .contains(text)
        {
            assert!(Instant::now() < deadline, "{text:?} was not shown");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the generator has ended; its exit code and everything that it has shown.
    fn end(mut self) -> (Option<i32>, String) {
        let status = ended(&mut self.child);
        let modes = tcgetattr(&self.line)
            .expect("a pseudo-terminal can be had")
            .local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON));
        // With its last holder the terminal ends, and with it what its reader gets.
        drop(self.line);
        self.reader
            .take()
            .expect("a pseudo-terminal can be had")
            .join()
            .expect("a pseudo-terminal can be had");
        let shown = self.shown.lock().expect("nobody panics with it").clone();
        (status.code(), shown)
    }
}

/// What was shown after the page was left for the last time.
fn after_the_page(shown: &str) -> &str {
    let (page, after) = shown
        .rsplit_once(LEFT)
        .unwrap_or_else(|| panic!("{shown:?}"));
    assert!(page.contains(ENTERED), "{shown:?}");
    assert!(after.starts_with(SHOWN), "{after:?}");
    assert!(!after.contains(ENTERED), "{after:?}");
    after
}

#[test]
fn ctrl_c_gives_the_terminal_back_and_the_result() {
    let (port, _peers) = lenient(Then::Reads);
    let scratch = Scratch::new("terminal");
    let port = port.to_string();
    let mut terminal = Terminal::with(&[
        "pub",
        "-c",
        "10",
        "-R",
        "0",
        "-q",
        "1",
        "--rate",
        "1k",
        "--duration",
        "10m",
        "--warmup",
        "0s",
        "-p",
        &port,
        "--out",
        scratch.0.to_str().unwrap(),
    ]);
    terminal.wait_for("measuring");
    terminal.keyboard.write_all(b"\x03").unwrap();
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0));
    let after = after_the_page(&shown);
    assert!(after.contains("10 open, 10 made"), "{after}");
    assert!(scratch.0.join("result.json").is_file());
    assert!(scratch.0.join("report.html").is_file());
}

#[test]
fn ctrl_c_while_clients_connect_gives_the_terminal_back() {
    let (port, _peers) = lenient(Then::Reads);
    let port = port.to_string();
    let mut terminal = Terminal::with(&["conn", "-c", "100", "-R", "1", "-p", &port]);
    terminal.wait_for("measuring");
    terminal.keyboard.write_all(b"\x03").unwrap();
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0));
    assert!(after_the_page(&shown).contains("Connections"), "{shown}");
}

#[test]
fn an_error_is_shown_on_the_terminal_as_it_was() {
    let port = free_port().to_string();
    let terminal = Terminal::with(&["conn", "-c", "3", "-p", &port]);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(1));
    assert!(
        after_the_page(&shown).contains("error: no connection to"),
        "{shown}"
    );
}
