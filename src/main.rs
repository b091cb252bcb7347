//! `shardmq`: an MQTT broker, and the two clients to try it with.

mod cli;

use std::process::ExitCode;

/// The general allocator's arenas are shared between threads; this one's heaps are not, as the
/// shards are not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
