//! SIGTERM and SIGINT: the first one stops the broker in order, the second one at once. SIGHUP: files are
//! read again. SIGPIPE is
//! ignored by the standard library before `main`, and sends say `MSG_NOSIGNAL`.

use std::io::{self, Read};

use crossbeam_channel::Sender;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// What stops a broker.
pub(super) const STOP: &[i32] = &[SIGTERM, SIGINT];

/// What has it read its files again.
pub(super) const RELOAD: &[i32] = &[SIGHUP];

/// Catches signals while it lives. Each becomes a byte in a pipe, which is all that a signal handler
/// may do, and a thread turns the bytes into notes.
pub(super) struct Catcher {
    registered: Vec<SigId>,
}

impl Catcher {
    /// Sends `note()` for each of `signals`.
    pub(super) fn start<T: Send + 'static>(
        signals: &[i32],
        notes: Sender<T>,
        note: impl Fn() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        let mut catcher = Self {
            registered: Vec::new(),
        };
        for &signal in signals {
            catcher
                .registered
                .push(pipe::register(signal, writer.try_clone()?)?);
        }
        std::thread::Builder::new()
            .name(String::from("signals"))
            .spawn(move || {
                let mut byte = [0];
                while matches!(reader.read(&mut byte), Ok(1)) {
                    if notes.send(note()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(catcher)
    }
}

impl Drop for Catcher {
    /// Takes the handlers back, which closes the pipe and so ends the thread.
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
    }
}
