//! Looks after the certificates of all listeners: reads them at the start, again when a file changes or
//! SIGHUP comes, and says in time when they end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::ClientCertificate;

use super::load::{Loaded, load};
use super::{Slot, TlsError, TlsOptions};

/// Between two looks at the files. A change counts once two looks have seen the same, so that a
/// certificate and its key need not be written at one moment.
const PERIOD: Duration = Duration::from_secs(1);

/// Seconds before the end of a certificate from which on the log warns.
const WARN: u64 = 30 * 24 * 3600;

/// Looks between two warnings: a day.
const LOOKS_PER_WARNING: u32 = 24 * 3600;

/// What is told of certificates.
#[derive(Clone, Debug, Default)]
pub(in crate::runtime) struct Told(Arc<Mutex<Telling>>);

/// The numbers behind it.
#[derive(Clone, Debug, Default)]
pub(in crate::runtime) struct Telling {
    /// Listener, file, and when what stands in it ends first, in seconds since 1970.
    pub(in crate::runtime) ends: Vec<(String, PathBuf, u64)>,
    /// Reloads that were taken.
    pub(in crate::runtime) reloads: u64,
    /// Reloads that were not.
    pub(in crate::runtime) failures: u64,
}

impl Told {
    /// As it is now.
    pub(in crate::runtime) fn now(&self) -> Telling {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Telling)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One listener.
#[derive(Debug)]
struct Kept {
    name: String,
    options: TlsOptions,
    is_websocket: bool,
    slot: Arc<Slot>,
    current: Loaded,
    /// The files as they were at the last load, and at the last look.
    loaded: Fingerprint,
    seen: Fingerprint,
}

/// What tells a file from what it was: device, inode, size, time of change; nothing if it is gone.
type Fingerprint = Vec<Option<(u64, u64, u64, i64, i64)>>;

fn fingerprint(options: &TlsOptions) -> Fingerprint {
    let look = |path: &PathBuf| {
        let facts = fs::metadata(path).ok()?;
        let changed = (facts.mtime(), facts.mtime_nsec());
        Some((facts.dev(), facts.ino(), facts.size(), changed.0, changed.1))
    };
    options.files().map(look).collect()
}

/// Watches over certificates, on a thread of its own once it is started; the thread ends with it.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Watcher {
    kept: Vec<Kept>,
    told: Told,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Watcher {
    /// Reads the certificates of a listener.
    pub(in crate::runtime) fn add(
        &mut self,
        name: &str,
        options: &TlsOptions,
        is_websocket: bool,
    ) -> Result<Arc<Slot>, TlsError> {
        let loaded = fingerprint(options);
        let current = load(options, is_websocket, None)?;
        let config = Arc::clone(&current.config);
        let slot = Arc::new(Slot::new(config, options.certificate_name));
        let kept = Kept {
            name: name.to_owned(),
            options: options.clone(),
            is_websocket,
            slot: Arc::clone(&slot),
            current,
            seen: loaded.clone(),
            loaded,
        };
        kept.warn(&self.told, true);
        self.kept.push(kept);
        Ok(slot)
    }

    /// What may be told of them.
    pub(in crate::runtime) fn told(&self) -> Told {
        self.told.clone()
    }

    /// Begins to look at the files.
    pub(in crate::runtime) fn start(&mut self) -> std::io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let (sender, orders) = bounded(1);
        let (kept, told) = (std::mem::take(&mut self.kept), self.told.clone());
        let thread = std::thread::Builder::new()
            .name(String::from("certificates"))
            .spawn(move || watch(kept, &told, &orders))?;
        self.thread = Some((sender, thread));
        Ok(())
    }

    /// Has all files read again now.
    pub(in crate::runtime) fn reload(&self) {
        if let Some((orders, _)) = &self.thread {
            // A full channel has an order in it already.
            let _ = orders.try_send(());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((orders, thread)) = self.thread.take() {
            drop(orders);
            let _ = thread.join();
        }
    }
}

fn watch(mut kept: Vec<Kept>, told: &Told, orders: &Receiver<()>) {
    let mut looks = 0;
    loop {
        let ordered = match orders.recv_timeout(PERIOD) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        looks = (looks + 1) % LOOKS_PER_WARNING;
        for listener in &mut kept {
            listener.look(ordered, told);
            if looks == 0 {
                listener.warn(told, false);
            }
        }
    }
}

impl Kept {
    /// Reads the files again if it was ordered, or if they have changed and stay as they are now.
    fn look(&mut self, ordered: bool, told: &Told) {
        let now = fingerprint(&self.options);
        let settled = now == self.seen;
        self.seen = now;
        if !ordered && (!settled || self.seen == self.loaded) {
            return;
        }
        self.loaded = self.seen.clone();
        // A ticket lets a client in without another look at its certificate: where there are any, what was
        // revoked meanwhile must not come back by one.
        let tickets = match self.options.client_certificate {
            ClientCertificate::Off => Some(Arc::clone(&self.current.config.ticketer)),
            ClientCertificate::Optional | ClientCertificate::Required => None,
        };
        match load(&self.options, self.is_websocket, tickets) {
            Ok(loaded) => {
                self.slot.exchange(Arc::clone(&loaded.config));
                self.current = loaded;
                told.change(|telling| telling.reloads += 1);
                tracing::info!(
                    listener = self.name,
                    "certificates are read again and in use"
                );
                self.warn(told, true);
            }
            Err(error) => {
                told.change(|telling| telling.failures += 1);
                tracing::error!(
                    listener = self.name,
                    %error,
                    "new certificates are of no use; those from before stay"
                );
            }
        }
    }

    /// Tells when what is in use ends.
    fn warn(&self, told: &Told, all: bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let mut firsts: Vec<(&Path, u64)> = Vec::new();
        for (file, end) in &self.current.ends {
            match firsts.iter_mut().find(|(known, _)| known == file) {
                Some((_, first)) => *first = (*first).min(*end),
                None => firsts.push((file, *end)),
            }
        }
        for &(file, end) in &firsts {
            let (listener, file) = (&self.name, file.display());
            let days = end.saturating_sub(now) / (24 * 3600);
            if end <= now {
                tracing::error!(listener, %file, "what stands in this file has expired");
            } else if end - now <= WARN {
                tracing::warn!(listener, %file, days, "what stands in this file expires soon");
            } else if all {
                tracing::info!(listener, %file, days, "certificate in use; days that it holds");
            }
        }
        told.change(|telling| {
            telling.ends.retain(|(listener, ..)| *listener != self.name);
            let ends = firsts
                .iter()
                .map(|(file, end)| (self.name.clone(), (*file).to_owned(), *end));
            telling.ends.extend(ends);
        });
    }
}
