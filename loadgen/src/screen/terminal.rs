//! Taking the terminal and giving it back, whatever happens: at the end, on a panic, on Ctrl-C.
//!
//! Keys stay signals (unlike in raw mode), so Ctrl-C reaches the engine, which ends the run and with
//! it the page. Only the echo of keys is off, so that nothing writes into the page.

use std::io::{self, IsTerminal, stderr, stdin};
use std::panic;
use std::sync::{Mutex, Once};

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// What the terminal was like; `None` while it is not ours.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    /// How standard input was set, where it is a terminal.
    modes: Option<Termios>,
}

/// Takes the terminal.
pub(super) fn enter() -> io::Result<()> {
    restore_on_panic();
    let modes = if stdin().is_terminal() {
        tcgetattr(stdin()).ok()
    } else {
        None
    };
    if let Some(modes) = &modes {
        let mut quiet = modes.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        tcsetattr(stdin(), OptionalActions::Now, &quiet)?;
    }
    if let Ok(mut before) = BEFORE.lock() {
        *before = Some(Before { modes });
    }
    execute!(stderr(), EnterAlternateScreen, Hide)
}

/// Gives it back, if it is ours.
pub(super) fn leave() {
    let before = BEFORE.lock().ok().and_then(|mut before| before.take());
    let Some(before) = before else {
        return;
    };
    // There is nobody left to tell that the terminal is gone.
    let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    if let Some(modes) = before.modes {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &modes);
    }
}

/// The message of a panic must not be written onto a page that is about to vanish.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            usual(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::fs::File;
    use std::io::Read;
    use std::process::{Command, Stdio};

    const CHILD: &str = "SHARDMQ_LOADGEN_TEST_PANICS";

    /// Runs itself on a terminal of its own, where it panics with the page on it.
    #[test]
    fn a_panic_gives_the_terminal_back_before_its_message() {
        if std::env::var_os(CHILD).is_some() {
            enter().unwrap();
            panic!("on the page");
        }
        let mut master = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = name.to_str().unwrap();
        let line = File::options().read(true).write(true).open(path).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let test = "screen::terminal::tests::a_panic_gives_the_terminal_back_before_its_message";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .stdin(end())
            .stdout(Stdio::null())
            .stderr(end())
            .status()
            .unwrap();
        assert!(!status.success());
        let modes = tcgetattr(&line).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON));
        drop(line);
        // The terminal ends with its last holder; reading from it is an error then.
        let mut shown = Vec::new();
        let _ = master.read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown);
        let (before, after) = shown.split_once("\x1b[?1049l").expect("the page was left");
        assert!(before.contains("\x1b[?1049h") && !before.contains("on the page"));
        assert!(after.contains("on the page"), "{shown:?}");
    }
}
