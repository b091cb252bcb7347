//! JSON Web Tokens as passwords: RFC 7515, 7517, 7518, 7519 and 8037, as far as a broker needs them.
//!
//! Invariants: which algorithm a signature is checked with is said by the key, and the token only has to
//! agree, so that no token can choose `none` or take a public key for a shared secret; a token without an
//! end is refused; whatever a token says that is not understood and must be (`crit`) refuses it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::rules::{Placeholders, Rule, Rules};
use super::{Credentials, Decision, Grant, MountPoint};
use crate::limits::{MAX_GRANT_RULES, MAX_STRING};
use crate::wire::ReasonCode;

/// A set of keys, and what a token has to say.
#[derive(Debug, Default)]
pub struct Tokens {
    keys: Vec<Key>,
    options: TokenOptions,
}

/// What a token has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// Its `iss`; empty for any.
    pub issuer: String,
    /// One of its `aud`; empty for any.
    pub audience: String,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that names the client, where a token has it; empty for none.
    pub client_id_claim: String,
    /// Seconds by which clocks may differ.
    pub leeway: u64,
}

/// One key.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
}

enum Algorithm {
    // Boxed: its state has 1.2 KiB.
    Hs256(Box<hmac::Key>),
    Rs256 { n: Vec<u8>, e: Vec<u8> },
    Es256(Vec<u8>),
    EdDsa(Vec<u8>),
}

/// What is wrong with a set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysError {
    /// It is no JSON, or has no list `keys`.
    NotKeys(String),
    /// A key, counted from one, that cannot be used, and why.
    BadKey(usize, &'static str),
    /// There is none that signs tokens.
    Empty,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKeys(text) => write!(f, "not a JSON Web Key Set: {text}"),
            Self::BadKey(number, why) => write!(f, "key {number}: {why}"),
            Self::Empty => f.write_str("no key in it is for signatures"),
        }
    }
}

impl std::error::Error for KeysError {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {})", self.id, self.algorithm.name())
    }
}

impl Algorithm {
    const fn name(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256 { .. } => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key)
                .verify(message, signature)
                .is_ok()
        };
        match self {
            Self::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Rs256 { n, e } => signature::RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Self::Es256(key) => public(&signature::ECDSA_P256_SHA256_FIXED, key),
            Self::EdDsa(key) => public(&signature::ED25519, key),
        }
    }
}

impl Tokens {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, options: TokenOptions) -> Result<Self, KeysError> {
        let set: Value =
            serde_json::from_str(text).map_err(|error| KeysError::NotKeys(error.to_string()))?;
        let Some(list) = set.get("keys").and_then(Value::as_array) else {
            return Err(KeysError::NotKeys("it has no list `keys`".to_owned()));
        };
        let mut keys = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let key = key(value).map_err(|why| KeysError::BadKey(index + 1, why))?;
            keys.extend(key);
        }
        if keys.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self { keys, options })
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What a password says that is a token; `None` if it is none. `now` is in seconds of Unix.
    #[must_use]
    pub fn ask(&self, credentials: &Credentials<'_>, now: u64) -> Option<Decision> {
        let token = std::str::from_utf8(credentials.password?).ok()?;
        let token = Token::parse(token)?;
        Some(match self.grant(&token, credentials, now) {
            Ok(grant) => Decision::AllowAs(Box::new(grant)),
            Err(reason) => Decision::Deny(reason),
        })
    }

    fn grant(
        &self,
        token: &Token<'_>,
        credentials: &Credentials<'_>,
        now: u64,
    ) -> Result<Grant, ReasonCode> {
        const FORGED: ReasonCode = ReasonCode::BadUserNameOrPassword;
        const UNFIT: ReasonCode = ReasonCode::NotAuthorized;
        let options = &self.options;
        if !self.signed(token) {
            return Err(FORGED);
        }
        let claims = decode(token.claims).ok_or(FORGED)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            // Fractions are allowed, and cut off.
            Some(value) => value
                .as_f64()
                .filter(|seconds| (0.0..1e15).contains(seconds))
                .map(|seconds| Some(seconds as u64))
                .ok_or(FORGED),
        };
        let ends = time("exp")?.ok_or(UNFIT)?.saturating_add(options.leeway);
        let begins = time("nbf")?.unwrap_or(0);
        if ends <= now || begins > now.saturating_add(options.leeway) {
            return Err(UNFIT);
        }
        if !options.issuer.is_empty() && text("iss") != Some(&options.issuer) {
            return Err(UNFIT);
        }
        if !options.audience.is_empty() && !names(claims.get("aud"), &options.audience) {
            return Err(UNFIT);
        }
        let username = text(&options.user_claim);
        if credentials.username.is_some() && username != credentials.username {
            return Err(UNFIT);
        }
        let client = Some(&options.client_id_claim)
            .filter(|name| !name.is_empty())
            .and_then(|name| claims.get(name));
        if client.is_some_and(|client| client.as_str() != Some(credentials.client_id)) {
            return Err(UNFIT);
        }
        let rules = match claims.get("acl") {
            Some(acl) => Some(Arc::new(rules(acl).ok_or(UNFIT)?)),
            None => None,
        };
        let mount_point = match claims.get("mount_point") {
            Some(text) => Some(mount_point(text).ok_or(UNFIT)?),
            None => None,
        };
        Ok(Grant {
            username: username.map(Into::into),
            rules,
            lifetime: Some(ends - now),
            mount_point,
        })
    }

    /// Whether a key of ours has signed it.
    fn signed(&self, token: &Token<'_>) -> bool {
        let header = |name: &str| token.header.get(name).and_then(Value::as_str);
        if token.header.get("crit").is_some() {
            return false;
        }
        let (algorithm, id) = (header("alg"), header("kid"));
        let fits = |key: &&Key| {
            algorithm == Some(key.algorithm.name())
                && (id.is_none() || key.id.is_none() || id == key.id.as_deref())
        };
        let mut candidates = self.keys.iter().filter(fits);
        candidates.any(|key| {
            key.algorithm
                .verifies(token.signed.as_bytes(), &token.signature)
        })
    }
}

/// A token before anything in it is believed.
struct Token<'a> {
    header: Value,
    claims: &'a str,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = decode(header).filter(|header| header.get("alg").is_some())?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self {
            header,
            claims,
            signed,
            signature,
        })
    }
}

/// The object in a part of a token.
fn decode(part: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    value.is_object().then_some(value)
}

/// Whether `value` is the text, or a list that has it.
fn names(value: Option<&Value>, text: &str) -> bool {
    match value {
        Some(Value::String(single)) => single == text,
        Some(Value::Array(list)) => list.iter().any(|value| value.as_str() == Some(text)),
        _ => false,
    }
}

/// A key of a set; `None` if it is not for signatures.
fn key(value: &Value) -> Result<Option<Key>, &'static str> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let text = text(name).filter(|text| text.len() <= MAX_STRING);
        text.and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok())
    };
    if text("use").is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    let algorithm = match (text("kty").ok_or("it has no `kty`")?, text("crv")) {
        ("oct", _) => {
            let secret = bytes("k").ok_or("`k` is no base64url")?;
            if secret.len() < 32 {
                return Err("a shared secret has at least 32 bytes");
            }
            Algorithm::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
        }
        ("RSA", _) => {
            let n = bytes("n").ok_or("`n` is no base64url")?;
            if !(256..=1024).contains(&n.len()) {
                return Err("an RSA key has 2048 to 8192 bits");
            }
            let e = bytes("e").ok_or("`e` is no base64url")?;
            Algorithm::Rs256 { n, e }
        }
        ("EC", Some("P-256")) => {
            let coordinate = |name| bytes(name).filter(|bytes| bytes.len() == 32);
            let (x, y) = (coordinate("x"), coordinate("y"));
            let (x, y) = x.zip(y).ok_or("`x` and `y` have 32 bytes each")?;
            Algorithm::Es256([&[4][..], &x, &y].concat())
        }
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x").filter(|x| x.len() == 32);
            Algorithm::EdDsa(x.ok_or("`x` has 32 bytes")?)
        }
        _ => return Err("it is neither oct, RSA, EC with P-256 nor OKP with Ed25519"),
    };
    if text("alg").is_some_and(|wanted| wanted != algorithm.name()) {
        return Err("its `alg` is none of HS256, RS256, ES256 and EdDSA, or not that of its `kty`");
    }
    Ok(Some(Key {
        id: text("kid").map(str::to_owned),
        algorithm,
    }))
}

/// A mount point in JSON; `None` if it is none.
#[must_use]
pub fn mount_point(value: &Value) -> Option<MountPoint> {
    MountPoint::parse(value.as_str()?).ok()
}

/// Rules in JSON: lists of topic filters named `pub`, `sub`, `all` and `deny`; %c and %u stand for the
/// client id and the user name. `None` if they are none, or too many.
#[must_use]
pub fn rules(acl: &Value) -> Option<Rules> {
    let mut rules = Rules::default();
    for (name, list) in acl.as_object()? {
        let rule = match name.as_str() {
            "pub" => Rule::Write,
            "sub" => Rule::Read,
            "all" => Rule::ReadWrite,
            "deny" => Rule::Deny,
            _ => return None,
        };
        for filter in list.as_array()? {
            if rules.len() == MAX_GRANT_RULES {
                return None;
            }
            rules
                .add(filter.as_str()?, rule, Placeholders::Replaced)
                .ok()?;
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::KeyPair;
    use serde_json::json;

    use super::super::{Access, Client};
    use super::*;
    use crate::topic::Name;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_000_000;

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn options() -> TokenOptions {
        TokenOptions {
            user_claim: "sub".to_owned(),
            client_id_claim: "client_id".to_owned(),
            ..TokenOptions::default()
        }
    }

    fn sign(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    fn hs256(claims: &Value) -> String {
        sign(&json!({"alg": "HS256", "typ": "JWT"}), claims, by_secret)
    }

    fn by_secret(message: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        hmac::sign(&key, message).as_ref().to_vec()
    }

    fn shared() -> Value {
        json!({"kty": "oct", "k": encode(SECRET), "kid": "one"})
    }

    fn tokens(keys: &[Value], options: TokenOptions) -> Tokens {
        Tokens::parse(&json!({"keys": keys}).to_string(), options).unwrap()
    }

    fn ask(
        tokens: &Tokens,
        token: &str,
        username: Option<&str>,
    ) -> Option<Result<Grant, ReasonCode>> {
        let credentials = Credentials {
            client_id: "car7",
            username,
            password: Some(token.as_bytes()),
            certificate: None,
            listener: 0,
            address: ([127, 0, 0, 1], 1).into(),
        };
        tokens
            .ask(&credentials, NOW)
            .map(|decision| match decision {
                Decision::AllowAs(grant) => Ok(*grant),
                Decision::Deny(reason) => Err(reason),
                other => panic!("{other:?}"),
            })
    }

    fn valid() -> Value {
        json!({"sub": "anna", "exp": NOW + 60})
    }

    #[test]
    fn a_token_says_who_one_is_and_how_long() {
        let tokens = tokens(&[shared()], options());
        let grant = ask(&tokens, &hs256(&valid()), Some("anna"))
            .unwrap()
            .unwrap();
        assert_eq!(grant.username.as_deref(), Some("anna"));
        assert_eq!(grant.lifetime, Some(60));
        assert!(ask(&tokens, &hs256(&valid()), None).unwrap().is_ok());
        for password in ["secret", "a.b.c", "", "..", "e30.e30.", "e30.e30.AAAA"] {
            assert!(ask(&tokens, password, None).is_none(), "{password}");
        }
    }

    #[test]
    fn every_algorithm_takes_its_own_signatures_only() {
        let random = SystemRandom::new();
        let pkcs8 = signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed25519 = signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let p256 = signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        let point = p256.public_key().as_ref();
        let keys = [
            shared(),
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(ed25519.public_key())}),
            json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])}),
        ];
        let tokens = tokens(&keys, options());
        let by_ed25519 = |message: &[u8]| ed25519.sign(message).as_ref().to_vec();
        let by_p256 = |message: &[u8]| p256.sign(&random, message).unwrap().as_ref().to_vec();
        let token =
            |alg: &str, by: &dyn Fn(&[u8]) -> Vec<u8>| sign(&json!({"alg": alg}), &valid(), by);
        let is_in = |token: &str| ask(&tokens, token, None).unwrap().is_ok();
        assert!(is_in(&token("EdDSA", &by_ed25519)));
        assert!(is_in(&token("ES256", &by_p256)));
        assert!(is_in(&token("HS256", &by_secret)));
        for (algorithm, by) in [
            ("EdDSA", &by_p256 as &dyn Fn(&[u8]) -> Vec<u8>),
            ("ES256", &by_secret),
            ("HS256", &by_ed25519),
            ("none", &|_| Vec::new()),
            ("HS512", &by_secret),
            ("hs256", &by_secret),
        ] {
            assert!(!is_in(&token(algorithm, by)), "{algorithm}");
        }
        // The public key as a shared secret.
        let by_public = |message: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, point);
            hmac::sign(&key, message).as_ref().to_vec()
        };
        assert!(!is_in(&token("HS256", &by_public)));
    }

    /// Signed by openssl.
    #[test]
    fn a_token_signed_with_rsa_is_verified() {
        const N: &str = "xdkBZ9pIrLybbWBDxnN7GCLtue6dRoSoH0cKzVyjACdkbD_1pfd1qGGj8bFKQhCTn0c4I6QS\
            rX4xkSG4yfWg7p2BXQ_Homkt9L6YxBIFFRs7DDe0u-p2yxg6KKx7oF3et60OOB6GcEM36JE1\
            znQl3BmUe-EVoSgXlVwcYCms-_br9Bjfn5RXCVhBM-05UftvCNbtq8cDUp4-1R1G_AcsdqeU\
            jOCUlYPiV7In_1Wc7_ofsapKeXf179jXL8wd6gOHX3R8EJ8sGHjzhYvCoqPMCTeOThQC2Vf0\
            VBW5bkTWn7M5xsJgrNFTTGVJ6e7C169KJrW8Wyn7TuFuTXOjU1bnQQ";
        const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm5hIiwiZXhwIjoxMDAwMDYwfQ.whqKU_pW2HN0\
            EhGX_DdjHU2xK4xh5FP7ypSAFv6Dv9nZ2QHDBB-ypA3bNOsF08thyojKCemyznYGYdBOH_OK\
            i_p_-jWnozggCxA5F3RcS4eQEPhXjVVVh_CGlOwtITatKft2uVnMDlx7QK_ci6REr1ZaEuIJ\
            LgFZ8G1QVFzxui5SyMK_nWzXhcXNhhhvZu8wJ7QkkWhF4Yt_wiwfpynEFEsizkcBLsXaxJ5I\
            _Qxq-d7MnDuf48EZ2szl7PFB9H8LulqOiseL5EgMYeN3BMB1wBC_MRDf68UAXK4773zU6VKP\
            DFNAV3_s3ms9IVC7xA1MGCj2Kx52E2kcO3yePc349w";
        let key = json!({"kty": "RSA", "n": N, "e": "AQAB"});
        let tokens = tokens(&[key], options());
        let grant = ask(&tokens, TOKEN, Some("anna")).unwrap().unwrap();
        assert_eq!(grant.username.as_deref(), Some("anna"));
        let (signed, signature) = TOKEN.rsplit_once('.').unwrap();
        let other: String = signature.chars().rev().collect();
        let forged = ask(&tokens, &format!("{signed}.A{}", &other[1..]), None);
        assert_eq!(forged, Some(Err(ReasonCode::BadUserNameOrPassword)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let strict = TokenOptions {
            issuer: "us".to_owned(),
            audience: "broker".to_owned(),
            leeway: 10,
            ..options()
        };
        let tokens = tokens(&[shared()], strict);
        let with = |changes: Value| {
            let mut claims = json!({
                "iss": "us", "aud": ["x", "broker"], "sub": "anna", "exp": NOW + 1,
                "client_id": "car7",
            });
            for (name, value) in changes.as_object().unwrap() {
                claims[name] = value.clone();
            }
            ask(&tokens, &hs256(&claims), Some("anna")).unwrap()
        };
        for fine in [
            json!({}),
            json!({"aud": "broker"}),
            json!({"exp": NOW - 9}),
            json!({"nbf": NOW + 10}),
            json!({"exp": NOW as f64 + 0.5}),
        ] {
            assert!(with(fine.clone()).is_ok(), "{fine}");
        }
        for unfit in [
            json!({"iss": "them"}),
            json!({"iss": null}),
            json!({"aud": "other"}),
            json!({"aud": {"broker": 1}}),
            json!({"sub": "bob"}),
            json!({"sub": 7}),
            json!({"client_id": "car8"}),
            json!({"client_id": 7}),
            json!({"exp": NOW - 10}),
            json!({"nbf": NOW + 11}),
            json!({"acl": "all"}),
            json!({"acl": {"publish": []}}),
            json!({"acl": {"pub": ["a/#/b"]}}),
            json!({"mount_point": "no slash"}),
            json!({"mount_point": null}),
        ] {
            assert_eq!(
                with(unfit.clone()),
                Err(ReasonCode::NotAuthorized),
                "{unfit}"
            );
        }
        for forged in [
            json!({"exp": "soon"}),
            json!({"exp": -1}),
            json!({"nbf": {}}),
        ] {
            let reason = ReasonCode::BadUserNameOrPassword;
            assert_eq!(with(forged.clone()), Err(reason), "{forged}");
        }
        let endless = hs256(&json!({"iss": "us", "aud": "broker", "sub": "anna"}));
        assert!(ask(&tokens, &endless, None).unwrap().is_err());
    }

    #[test]
    fn a_header_that_must_be_understood_or_names_another_key_refuses() {
        let tokens = tokens(&[shared()], options());
        let with = |header: Value| {
            let token = sign(&header, &valid(), by_secret);
            ask(&tokens, &token, None).unwrap().is_ok()
        };
        assert!(with(json!({"alg": "HS256", "kid": "one"})));
        assert!(!with(json!({"alg": "HS256", "kid": "two"})));
        assert!(!with(json!({"alg": "HS256", "crit": ["exp"], "exp": 1})));
        assert!(!with(json!({"alg": 7})));
    }

    #[test]
    fn a_token_brings_its_rules() {
        let tokens = tokens(&[shared()], options());
        let mut claims = valid();
        claims["mount_point"] = json!("fleet/%u/");
        claims["acl"] = json!({"pub": ["car/%c/#"], "sub": ["u/%u"], "deny": ["car/+/x"]});
        let grant = ask(&tokens, &hs256(&claims), None).unwrap().unwrap();
        let point = grant.mount_point.as_ref().unwrap();
        assert_eq!(point.as_str(), "fleet/%u/");
        let rules = grant.rules.clone().unwrap();
        let client = Client {
            number: 1,
            client_id: "car7",
            grant: Some(&grant),
        };
        let may = |topic, access| rules.allow(&client, Name::parse(topic).unwrap(), access);
        assert!(may("car/car7/speed", Access::Write) && !may("car/car7/speed", Access::Read));
        assert!(!may("car/car7/x", Access::Write) && !may("car/car8/speed", Access::Write));
        assert!(may("u/anna", Access::Read));
        let many: Vec<String> = (0..=MAX_GRANT_RULES)
            .map(|number| number.to_string())
            .collect();
        assert!(super::rules(&json!({"pub": many})).is_none());
    }

    #[test]
    fn keys_that_cannot_be_used_are_named() {
        let error = |keys: Value| {
            let text = json!({"keys": keys}).to_string();
            Tokens::parse(&text, options()).unwrap_err().to_string()
        };
        assert!(Tokens::parse("[]", options()).is_err() && Tokens::parse("{", options()).is_err());
        assert!(error(json!([{"kty": "oct", "k": "AAAA"}])).contains("key 1: a shared secret"));
        assert!(
            error(json!([shared(), {"kty": "RSA", "n": "AAAA", "e": "AQAB"}])).contains("key 2")
        );
        assert!(error(json!([{"kty": "EC", "crv": "P-384"}])).contains("neither"));
        assert!(
            error(json!([{"kty": "oct", "k": encode(SECRET), "alg": "HS512"}])).contains("`alg`")
        );
        assert!(error(json!([{"kty": "oct", "use": "enc"}])).contains("for signatures"));
        assert!(error(json!([7])).contains("`kty`"));
        let shown = format!("{:?}", tokens(&[shared()], options()));
        assert!(
            shown.contains("HS256") && !shown.contains("012345"),
            "{shown}"
        );
    }
}
