#![no_main]

use libfuzzer_sys::fuzz_target;
use shardmq::config::Config;

// A configuration that is read is printed as one that reads back to the same.
fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text, "fuzz.toml") {
        let again = Config::parse(&config.print(), "printed.toml");
        assert!(again.is_ok_and(|again| again == config));
    }
});
