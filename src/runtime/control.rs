//! Where a broker that runs is asked for a backup: a Unix socket in its data directory, for whoever may
//! read that directory anyway. `store/backup.rs` is the other end.
//!
//! Lines of JSON. The one who asks copies the files itself, so that a backup costs the broker no thread, no
//! buffer and no permission at the place where it goes:
//!
//! | asks | is told |
//! | --- | --- |
//! | `{"shardmq":1,"do":"backup"}` | `{"held_us":N,"shards":[{"position":N,"files":[[FILE,BYTES],…]},…],"history":{"missing":N,"streams":{NAME:[[FILE,BYTES],…],…}}}` |
//! | `{"copied":[SHARD,FILE]}` for each | nothing |
//! | `{"copied":[NAME,FILE]}` for each of history | nothing |
//! | `{"do":"finish"}` | `{}`: nothing was changed under the copy |
//! | `{"do":"verified","bytes":N}` | `{}`: it counts as the last backup |
//!
//! or `{"error":TEXT}`. Who ends the connection, or says nothing for [`PATIENCE`], has given up.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use socket2::Socket;

use crate::journal::FileId;

use super::barrier::{Barrier, HistoryCut};
use super::listener::{SocketFile, UnixPlace, listen_unix};
use super::store;

/// How long somebody may say nothing: a file is copied in less.
const PATIENCE: Duration = Duration::from_secs(120);

/// The longest line.
const LINE_BYTES: u64 = 4096;

/// What is told of backups.
#[derive(Debug, Default)]
pub(super) struct Backups {
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    /// When the last one was verified, in seconds since 1970; 0 for none since the start.
    pub(super) last: AtomicU64,
    pub(super) last_bytes: AtomicU64,
    /// How long commits were held for it.
    pub(super) last_held_us: AtomicU64,
}

/// The socket, and the thread that listens.
pub(super) struct Control {
    socket: Arc<Socket>,
    thread: Option<JoinHandle<()>>,
    _file: SocketFile,
}

impl Control {
    /// Listens in this data directory, which has these history streams.
    pub(super) fn start(
        directory: &Path,
        barrier: Barrier,
        streams: Arc<[String]>,
        backups: Arc<Backups>,
    ) -> io::Result<Self> {
        let door = store::Door::of(directory)?;
        let place = UnixPlace {
            path: door.path().to_owned(),
            mode: 0o600,
            owner: String::new(),
        };
        let (mut sockets, mut file) = listen_unix(&place, 1, 4)?;
        file.relocate(&directory.join(store::DOOR));
        let socket = sockets.pop().map(Socket::from);
        let socket = Arc::new(socket.ok_or(io::ErrorKind::NotFound)?);
        let listener = Arc::clone(&socket);
        let barrier = Arc::new(Mutex::new(barrier));
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                while let Ok((client, _)) = listener.accept() {
                    let (barrier, backups) = (Arc::clone(&barrier), Arc::clone(&backups));
                    let streams = Arc::clone(&streams);
                    // Without a thread the connection ends, and who asked says so.
                    let _ = std::thread::Builder::new()
                        .name("backup".into())
                        .spawn(move || serve(client.into(), &barrier, &streams, &backups));
                }
            })?;
        Ok(Self {
            socket,
            thread: Some(thread),
            _file: file,
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Somebody who asks.
struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// The next line; `None` if there is none, or none that can be understood.
    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = (&mut self.reader).take(LINE_BYTES).read_line(&mut line);
        read.ok()
            .filter(|&bytes| bytes > 0)
            .and_then(|_| serde_json::from_str(&line).ok())
    }

    fn tell(&mut self, value: &Value) -> io::Result<()> {
        self.reader
            .get_mut()
            .write_all(format!("{value}\n").as_bytes())
    }

    fn refuse(&mut self, why: &str) {
        // Who asked may have gone.
        let _ = self.tell(&json!({ "error": why }));
    }
}

fn serve(stream: UnixStream, barrier: &Mutex<Barrier>, streams: &[String], backups: &Backups) {
    let limits = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    if limits.is_err() {
        return;
    }
    let mut client = Client {
        reader: BufReader::new(stream),
    };
    let wanted = client.line();
    let asked = wanted
        .as_ref()
        .map(|wanted| (&wanted["shardmq"], &wanted["do"]));
    match asked {
        Some((version, what)) if *version == 1 && *what == "backup" => {}
        Some(_) => return client.refuse("this broker does not understand what it is asked"),
        None => return,
    }
    let barrier = match barrier.try_lock() {
        Ok(barrier) => barrier,
        Err(TryLockError::WouldBlock) => return client.refuse("another backup is being taken"),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
    };
    tracing::info!("a backup begins");
    match backup(&mut client, &barrier, streams, backups) {
        Ok(bytes) => {
            backups.succeeded.fetch_add(1, Ordering::Relaxed);
            tracing::info!(bytes, "a backup was taken and verified");
        }
        Err(why) => {
            let _ = barrier.release();
            backups.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(why, "a backup was not taken");
            client.refuse(&why);
        }
    }
}

/// Serves who takes a backup; its bytes, once it was verified.
fn backup(
    client: &mut Client,
    barrier: &Barrier,
    streams: &[String],
    backups: &Backups,
) -> Result<u64, String> {
    let gone = || String::from("whoever asked for it has given up");
    let (cuts, held) = barrier.cut().map_err(|refusal| refusal.to_string())?;
    let history = barrier.history().map_err(|refusal| refusal.to_string())?;
    let held_us = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
    let shards = cuts.iter().map(|cut| {
        let files = cut.files.iter().map(|(file, bytes)| json!([file.0, bytes]));
        json!({ "position": cut.position.0, "files": files.collect::<Vec<_>>() })
    });
    let told = json!({
        "held_us": held_us,
        "shards": shards.collect::<Vec<_>>(),
        "history": as_json(streams, &history),
    });
    client.tell(&told).map_err(|_| gone())?;
    loop {
        let line = client.line().ok_or_else(gone)?;
        if let Some((shard, file)) = copied(&line) {
            barrier.copied(shard, file);
        } else if line["copied"].is_array() {
            // Of history, which stays until all is copied: a sign of life.
        } else if line["do"] == "finish" {
            break;
        } else {
            return Err("this broker does not understand what it is told".into());
        }
    }
    let kept = barrier.release().map_err(|refusal| refusal.to_string())?;
    if !kept {
        return Err(
            "the disk became full meanwhile, and files that were not copied yet were used again"
                .into(),
        );
    }
    client.tell(&json!({})).map_err(|_| gone())?;
    let line = client.line().ok_or_else(gone)?;
    if line["do"] != "verified" {
        return Err(gone());
    }
    let bytes = line["bytes"].as_u64().unwrap_or(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    backups.last.store(now, Ordering::Relaxed);
    backups.last_bytes.store(bytes, Ordering::Relaxed);
    backups.last_held_us.store(held_us, Ordering::Relaxed);
    let _ = client.tell(&json!({}));
    Ok(bytes)
}

/// What there is of history, by its streams.
fn as_json(streams: &[String], history: &HistoryCut) -> Value {
    let mut told: serde_json::Map<String, Value> = streams
        .iter()
        .map(|name| (name.clone(), json!([])))
        .collect();
    for (stream, bucket, bytes) in &history.buckets {
        if let Some(Value::Array(buckets)) = told.get_mut(&**stream) {
            buckets.push(json!([bucket.file_name(), bytes]));
        }
    }
    json!({ "missing": history.missing, "streams": told })
}

fn copied(line: &Value) -> Option<(usize, FileId)> {
    let [shard, file] = line.get("copied")?.as_array()?.as_slice() else {
        return None;
    };
    let shard = usize::try_from(shard.as_u64()?).ok()?;
    Some((shard, FileId(u32::try_from(file.as_u64()?).ok()?)))
}
