//! A header of the PROXY protocol, cut anywhere.
#![no_main]

#[path = "../../tests/links/exercise.rs"]
#[expect(dead_code, reason = "the WebSocket has a target of its own")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::proxy(bytes));
