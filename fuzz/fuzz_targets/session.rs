//! Typed operations of many clients against the whole simulated broker, made from arbitrary bytes: the
//! simulation of `tests/simulation` with a fuzzer in place of the seed.

#![no_main]

#[path = "../../tests/simulation/client/mod.rs"]
mod client;
#[path = "../../tests/simulation/mutation.rs"]
#[expect(dead_code, reason = "no bugs are planted here")]
mod mutation;
#[path = "../../tests/simulation/operation.rs"]
mod operation;
#[path = "../../tests/simulation/oracle/mod.rs"]
mod oracle;
#[path = "../../tests/simulation/random.rs"]
mod random;
#[path = "../../tests/simulation/simulation.rs"]
#[expect(dead_code, reason = "no seeds are run here, and nothing is counted")]
mod simulation;
#[path = "../../tests/simulation/world/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(failure) = simulation::run_bytes(bytes) {
        panic!("{}\n{}", failure.verdict, failure.trace);
    }
});
