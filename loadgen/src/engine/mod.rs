//! Generates the load of a [`Plan`] and measures what comes of it.
//!
//! One thread for each shard of the generator, each with a net driver of its own, as the broker has
//! them; this module starts them, tells them when the phases of the run begin, and puts together
//! what they count. Phases: *ramp* (connecting, subscribing), *warm-up* (load, not measured),
//! *measured*, *drain* (no new load; the last messages arrive).
//!
//! Latency is counted from the time at which a message was *due* (corrected), and from the time at
//! which it was put into the buffer that the next system call hands to the kernel (raw). The
//! difference is the lag, recorded only where nothing but the generator was in the way: a message
//! that had to wait for the window or for the socket counts as `delayed` instead.
#![expect(
    clippy::disallowed_methods,
    reason = "the engine is where clocks are read and threads start"
)]

mod client;
mod collect;
mod conduct;
mod connecting;
mod connections;
mod control;
mod core;
mod error;
mod fleet;
mod inbound;
mod link;
mod outcome;
pub mod payload;
mod publishing;
mod runs;
mod socket;
mod sys;
mod tally;
pub mod verify;
mod window;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::measure::{Outcome, Watch};
use crate::plan::Plan;

pub use error::Error;

/// Generates the load of `plan` and measures it. Blocks until it is over, or until the process is
/// interrupted: then what was measured so far is the outcome.
///
/// # Errors
/// There is no broker, or this machine cannot generate the load.
pub fn run(plan: &Plan, watch: &mut dyn Watch) -> Result<Outcome, Error> {
    check(plan)?;
    let _ = stop_flag();
    let broker = resolve(plan)?;
    let files = u64::from(plan.clients()) + 64 + 8 * plan.shards as u64;
    let limit = sys::raise_open_files(files).map_err(Error::Thread)?;
    if limit < files {
        return Err(Error::Plan(format!(
            "{} connections need {files} open files and the hard limit is {limit}: raise it (ulimit -Hn)",
            plan.clients()
        )));
    }
    conduct::Run::start(plan, broker)?.conduct(watch)
}

/// Whether the process was told to stop (SIGINT, SIGTERM). A second signal ends it at once.
#[must_use]
pub fn interrupted() -> bool {
    stop_flag().load(Ordering::Relaxed)
}

/// The flag that the signals set.
fn stop_flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it only. Where a handler
            // cannot be had the signal ends the process, as it does by default.
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag));
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    })
}

fn check(plan: &Plan) -> Result<(), Error> {
    let wrong = |text: &str| Err(Error::Plan(text.to_owned()));
    if plan.clients() == 0 {
        return wrong("a run needs at least one client");
    }
    if plan.shards == 0 {
        return wrong("a run needs at least one thread (--shards)");
    }
    if plan.verify != crate::plan::Verify::None && plan.payload_size < payload::IDENTIFIED {
        return wrong(
            "--verify needs payloads of 16 bytes or more (-s): shorter ones do not say who sent them",
        );
    }
    if plan
        .rate()
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return wrong("a rate must be above 0");
    }
    Ok(())
}

fn resolve(plan: &Plan) -> Result<SocketAddr, Error> {
    let name = || plan.host.clone();
    let mut addresses = (plan.host.as_str(), plan.port)
        .to_socket_addrs()
        .map_err(|error| Error::Name(name(), error))?;
    addresses
        .next()
        .ok_or_else(|| Error::Name(name(), std::io::ErrorKind::NotFound.into()))
}
