//! A request for a WebSocket and frames, cut anywhere.
#![no_main]

#[path = "../../tests/links/exercise.rs"]
#[expect(dead_code, reason = "the PROXY protocol has a target of its own")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::websocket(bytes));
