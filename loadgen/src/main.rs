//! The program `shardmq-loadgen`.

use std::process::ExitCode;

/// As the broker has it: a heap for each thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shardmq_loadgen::cli::main()
}
