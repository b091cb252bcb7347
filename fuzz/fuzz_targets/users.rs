#![no_main]

use libfuzzer_sys::fuzz_target;
use shardmq::policy::{Hashed, Users};

// A password file that is read is written back as it was, hash by hash. Hashes that take long are read, too,
// and not checked.
fuzz_target!(|text: &str| {
    let _ = Users::parse(text);
    for line in text.lines() {
        if let Some((_, hash)) = line.split_once(':')
            && let Ok(hashed) = Hashed::parse(hash)
        {
            assert!(Hashed::parse(&hashed.to_string()) == Ok(hashed));
        }
    }
});
