#![no_main]

use libfuzzer_sys::fuzz_target;
use shardmq::policy::{Exchange, Users};

const USERS: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";

// Two messages, a line feed between them. Nobody who does not know the password gets in.
fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (first, last) = data.split_at(at);
    let users = Users::parse(USERS).unwrap_or_default();
    if let Ok((exchange, _)) = Exchange::begin(first, &users, [7; 18], b"secret") {
        assert!(exchange.finish(last.get(1..).unwrap_or_default()).is_err());
    }
});
