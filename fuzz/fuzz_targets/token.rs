#![no_main]

use libfuzzer_sys::fuzz_target;
use shardmq::policy::{Credentials, Decision, TokenOptions, Tokens};

const KEYS: &str = r#"{"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#;

// Nobody who does not know the key gets in; and a set of keys that is read is one.
fuzz_target!(|data: &[u8]| {
    let options = TokenOptions {
        user_claim: "sub".to_owned(),
        ..TokenOptions::default()
    };
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Tokens::parse(text, options.clone());
    }
    let Ok(tokens) = Tokens::parse(KEYS, options) else {
        return;
    };
    let credentials = Credentials {
        client_id: "c",
        username: None,
        password: Some(data),
        certificate: None,
        listener: 0,
        address: ([127, 0, 0, 1], 1).into(),
    };
    let answer = tokens.ask(&credentials, 1);
    assert!(!matches!(answer, Some(Decision::Allow | Decision::AllowAs(_))));
});
