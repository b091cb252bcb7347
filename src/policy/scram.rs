//! SCRAM-SHA-256, RFC 5802 and RFC 7677: a client shows that it knows its password without sending it, and
//! the broker shows that it knows it too.
//!
//! Two steps on the server's side, each of them microseconds: the hashing is the client's work. A user
//! that does not exist is asked like one that does, with a salt that stays the same.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::password::{Hashed, Verifier, equal, hmac_sha256, sha256};
use super::users::Users;
use super::{Exchange, Grant};
use crate::wire::ReasonCode;

/// Its name as an Authentication Method.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// Bytes of a nonce that a client may send.
const MAX_NONCE: usize = 512;

/// Iterations that a user is asked for who does not exist, where nobody else says how many are usual.
const USUAL_ITERATIONS: NonZeroU32 = NonZeroU32::new(15_000).unwrap();

/// Our side of SCRAM, the same for all who come.
#[derive(Clone)]
pub struct Scram {
    /// The password file; who stands in it with another hash cannot come in this way.
    pub users: Arc<Users>,
    /// Drawn at random at each start: what nonces and salts of users that do not exist are made of.
    pub secret: [u8; 32],
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scram").field(&self.users).finish()
    }
}

/// An exchange that has begun.
#[derive(Debug)]
pub struct ScramExchange {
    username: Box<str>,
    verifier: Verifier,
    /// Whether there is such a user.
    known: bool,
    channel_binding: Box<str>,
    nonce: String,
    /// What both have said so far, as it is signed.
    said: String,
}

impl Scram {
    /// Whether there is anybody who can come in this way.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.users.scram_iterations().is_some()
    }

    /// A nonce that nobody can foresee, another one for each pair of numbers.
    pub(super) fn nonce(&self, (shard, count): (u64, u64)) -> [u8; 18] {
        let numbers = [shard.to_be_bytes(), count.to_be_bytes()].concat();
        let mac = hmac_sha256(&self.secret, &numbers);
        let mut nonce = [0; 18];
        nonce.copy_from_slice(&mac[..18]);
        nonce
    }

    /// Takes the client's first message; `nonce` is ours and new each time.
    ///
    /// # Errors
    /// What to tell a client whose message is none.
    pub fn begin(
        &self,
        data: &[u8],
        nonce: [u8; 18],
    ) -> Result<(ScramExchange, Vec<u8>), ReasonCode> {
        let first = First::parse(data).ok_or(ReasonCode::NotAuthorized)?;
        let username = first.username;
        let (verifier, known) = match self.users.get(&username) {
            Some(Hashed::Scram(verifier)) => (verifier.clone(), true),
            _ => (self.decoy(&username), false),
        };
        let nonce = format!("{}{}", first.nonce, URL_SAFE_NO_PAD.encode(nonce));
        let answer = format!(
            "r={nonce},s={},i={}",
            STANDARD.encode(&verifier.salt),
            verifier.iterations
        );
        let exchange = ScramExchange {
            said: format!("{},{answer}", first.bare),
            channel_binding: STANDARD.encode(first.header).into(),
            username: username.into(),
            verifier,
            known,
            nonce,
        };
        Ok((exchange, answer.into_bytes()))
    }

    /// What is asked of a user who does not exist: always the same for the same name.
    fn decoy(&self, username: &str) -> Verifier {
        let salt = hmac_sha256(&self.secret, username.as_bytes());
        Verifier {
            iterations: self.users.scram_iterations().unwrap_or(USUAL_ITERATIONS),
            salt: salt[..16].to_vec(),
            stored_key: [0; 32],
            server_key: [0; 32],
        }
    }
}

impl Exchange for ScramExchange {
    fn finish(self: Box<Self>, data: &[u8]) -> Result<(Grant, Vec<u8>), ReasonCode> {
        const REFUSED: ReasonCode = ReasonCode::NotAuthorized;
        let text = std::str::from_utf8(data).map_err(|_| REFUSED)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(REFUSED)?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c="));
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        if binding != Some(&self.channel_binding) || nonce != Some(&self.nonce) {
            return Err(REFUSED);
        }
        let proof = STANDARD.decode(proof).map_err(|_| REFUSED)?;
        let proof: [u8; 32] = proof.try_into().map_err(|_| REFUSED)?;
        let signed = format!("{},{without_proof}", self.said);
        let mut client_key = hmac_sha256(&self.verifier.stored_key, signed.as_bytes());
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        let shown = equal(&sha256(&client_key), &self.verifier.stored_key);
        if !shown || !self.known {
            return Err(REFUSED);
        }
        let signature = hmac_sha256(&self.verifier.server_key, signed.as_bytes());
        let answer = format!("v={}", STANDARD.encode(signature));
        let grant = Grant {
            username: Some(self.username),
            ..Grant::default()
        };
        Ok((grant, answer.into_bytes()))
    }
}

/// The client's first message.
struct First<'a> {
    /// What stands before the bare message, and is repeated in the last one.
    header: &'a str,
    bare: &'a str,
    username: String,
    nonce: &'a str,
}

impl<'a> First<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        // Without channel binding: `n` does not know it, `y` thinks that we do not, which is right.
        let rest = text
            .strip_prefix("n,")
            .or_else(|| text.strip_prefix("y,"))?;
        let (authorization, bare) = rest.split_once(',')?;
        let header = &text[..text.len() - bare.len()];
        let mut fields = bare.split(',');
        // An extension that must be understood would stand here, as `m=`.
        let username = unescaped(fields.next()?.strip_prefix("n=")?)?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        let printable = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        if nonce.is_empty() || nonce.len() > MAX_NONCE || !nonce.bytes().all(printable) {
            return None;
        }
        // Acting for somebody else is not offered.
        let for_itself = match authorization.strip_prefix("a=") {
            Some(name) => unescaped(name)? == username,
            None => authorization.is_empty(),
        };
        for_itself.then_some(Self {
            header,
            bare,
            username,
            nonce,
        })
    }
}

/// A name in which commas and equals signs are written `=2C` and `=3D`.
fn unescaped(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        out.push(match after.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = &after[2..];
    }
    out.push_str(rest);
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user of RFC 7677, section 3.
    fn users() -> Users {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::new(b"pencil", salt, NonZeroU32::new(4096).unwrap());
        let hashed = Hashed::Scram(verifier);
        Users::parse(&format!("user:{hashed}\na,b=c:{hashed}\n")).unwrap()
    }

    fn begin(data: &str) -> Result<(Box<ScramExchange>, String), ReasonCode> {
        let scram = Scram {
            users: users().into(),
            secret: [7; 32],
        };
        let (exchange, answer) = scram.begin(data.as_bytes(), [7; 18])?;
        let exchange = Box::new(exchange);
        Ok((exchange, String::from_utf8(answer).unwrap()))
    }

    /// The example of RFC 7677, with its own nonce in the place of ours.
    #[test]
    fn the_example_of_the_standard() {
        let (mut exchange, answer) = begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert!(answer.starts_with("r=rOprNGfwEbeRWgbNEkqO"), "{answer}");
        assert!(
            answer.ends_with(",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
            "{answer}"
        );
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        exchange.said = exchange.said.replace(&exchange.nonce, nonce);
        exchange.nonce = nonce.to_owned();
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let (grant, answer) = exchange.finish(last.as_bytes()).unwrap();
        assert_eq!(grant.username.as_deref(), Some("user"));
        assert_eq!(answer, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    fn last_message(exchange: &ScramExchange, password: &[u8], binding: &str) -> String {
        let Verifier {
            salt, iterations, ..
        } = &exchange.verifier;
        let mut salted = [0; 32];
        let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256;
        aws_lc_rs::pbkdf2::derive(algorithm, *iterations, salt, password, &mut salted);
        let without_proof = format!("c={},r={}", STANDARD.encode(binding), exchange.nonce);
        let signed = format!("{},{without_proof}", exchange.said);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let signature = hmac_sha256(&sha256(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn only_the_password_gets_in() {
        for (first, binding) in [
            ("n,,n=user,r=x", "n,,"),
            ("y,,n=user,r=x", "y,,"),
            ("n,a=user,n=user,r=x,ext=1", "n,a=user,"),
            ("n,,n=a=2Cb=3Dc,r=x", "n,,"),
        ] {
            let (exchange, _) = begin(first).unwrap();
            let last = last_message(&exchange, b"pencil", binding);
            assert!(exchange.finish(last.as_bytes()).is_ok(), "{first}");
            let (exchange, _) = begin(first).unwrap();
            let last = last_message(&exchange, b"Pencil", binding);
            assert!(exchange.finish(last.as_bytes()).is_err(), "{first}");
            let (exchange, _) = begin(first).unwrap();
            let last = last_message(&exchange, b"pencil", "p=tls,,");
            assert!(exchange.finish(last.as_bytes()).is_err(), "{first}");
        }
    }

    #[test]
    fn who_does_not_exist_is_asked_the_same_every_time_and_never_gets_in() {
        let (nobody, first) = begin("n,,n=nobody,r=x").unwrap();
        let (_, again) = begin("n,,n=nobody,r=x").unwrap();
        let (_, other) = begin("n,,n=somebody,r=x").unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert!(first.ends_with(",i=4096"), "{first}");
        let last = last_message(&nobody, b"", "n,,");
        assert!(nobody.finish(last.as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=,r=x",
            "n,,n=user",
            "n,,n=user,r=",
            "p=tls-unique,,n=user,r=x",
            "n,,m=1,n=user,r=x",
            "n,a=other,n=user,r=x",
            "n,,n=us=2,r=x",
            "n,,n=us=41er,r=x",
            "n,,n=us=\u{e9}r,r=x",
            "n,,n=user,r=\u{e9}",
        ] {
            assert!(begin(first).is_err(), "{first}");
        }
        for last in [
            "",
            ",p=",
            "c=biws",
            "c=biws,r=x,p=AAAA",
            "p=AAAA",
            "c=biws,p=AAAA",
        ] {
            let (exchange, _) = begin("n,,n=user,r=x").unwrap();
            assert!(exchange.finish(last.as_bytes()).is_err(), "{last}");
        }
    }
}
