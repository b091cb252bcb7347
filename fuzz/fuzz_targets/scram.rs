#![no_main]

use libfuzzer_sys::fuzz_target;
use shardmq::policy::{Exchange, Scram, Users};

const USERS: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";

// Two messages, a line feed between them. Nobody who does not know the password gets in.
fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (first, last) = data.split_at(at);
    let scram = Scram {
        users: Users::parse(USERS).unwrap_or_default().into(),
        secret: [7; 32],
    };
    if let Ok((exchange, _)) = scram.begin(first, [7; 18]) {
        assert!(Box::new(exchange).finish(last.get(1..).unwrap_or_default()).is_err());
    }
});
