//! Any bytes, as a stream of packets in every version: decode, encode, decode equal.
#![no_main]

#[path = "../../tests/packets/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::exercise(bytes));
