//! Any bytes, as the records of a frame: read or refused.
#![no_main]

#[path = "../../tests/records/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::exercise(bytes));
