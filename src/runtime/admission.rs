//! What is made of the configuration before the first client comes: the listeners as all shards share them,
//! and the authenticators.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::policy::Guard;

use super::auth::{self, Auth, StartError};
use super::boot::RuntimeOptions;
use super::clock::Clock;
use super::entrance::Entrance;
use super::error::BootError;
use super::listener::ListenOptions;
use super::mesh::Door;
use super::tls::Watcher;

/// The listeners as the shards share them, their certificates read.
pub(super) fn entrances(
    options: &RuntimeOptions,
    watcher: &mut Watcher,
) -> Result<Arc<[Entrance]>, BootError> {
    let entrance = |wanted: &ListenOptions| {
        let is_websocket = wanted.websocket.is_some();
        let tls = wanted.tls.as_ref();
        let tls = tls.map(|tls| watcher.add(&wanted.name, tls, is_websocket));
        Ok(Entrance {
            name: wanted.name.clone(),
            max_connections: wanted.max_connections,
            proxy_from: wanted.proxy_from.clone(),
            tls: tls
                .transpose()
                .map_err(|error| BootError::Tls(wanted.name.clone(), error))?,
            websocket: wanted.websocket.clone().map(Arc::new),
            connections: AtomicUsize::new(0),
        })
    };
    options.listeners.iter().map(entrance).collect()
}

/// Slow authenticators, and each shard's way to them.
pub(super) fn authenticators(
    options: &mut RuntimeOptions,
    doors: &Arc<[Door]>,
    cpus: usize,
    clock: Clock,
) -> Result<(Option<Auth>, Vec<auth::Desk>), BootError> {
    let Some(wanted) = options.auth.take() else {
        return Ok((None, auth::closed_desks(doors.len())));
    };
    let (auth, desks) =
        Auth::start(wanted, Arc::clone(doors), cpus, clock).map_err(|error| match error {
            StartError::File(error) => BootError::Auth(error),
            StartError::Https(text) => BootError::AuthHttps(text),
            StartError::Thread(error) => BootError::System("start a thread", error),
        })?;
    let guard = auth.guard();
    options.policy =
        Arc::new(move |shard| Box::new(Guard::new(Arc::clone(&guard), shard.index() as u64)));
    Ok((Some(auth), desks))
}
