//! A password as it is kept: the formats of mosquitto's password files, and one for SCRAM.
//!
//! | begins with | what it is |
//! | --- | --- |
//! | `$6$` | SHA-512 of the password and a salt; quick to guess, read and never the default |
//! | `$7$` | PBKDF2 with HMAC-SHA-512 |
//! | `$argon2id$` | Argon2id as the PHC string format has it |
//! | `SCRAM-SHA-256$` | salt, iterations and the two keys of RFC 5803, as PostgreSQL writes them |
//!
//! Invariants: a value that was parsed costs no more memory and time to check than
//! [`MAX_ARGON2_MEMORY_KIB`], [`MAX_ARGON2_PASSES`] and [`MAX_ITERATIONS`] allow; secrets are compared in
//! constant time.

use std::fmt;
use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq;

use crate::limits::{MAX_ARGON2_MEMORY_KIB, MAX_ARGON2_PASSES, MAX_ITERATIONS};

/// Bytes of a salt, and of a hash, that are read.
const MAX_FIELD: usize = 1024;

/// Reads base64 with and without padding: mosquitto writes both.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a password is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `$6$`
    Sha512,
    /// `$7$`, with so many iterations.
    Pbkdf2(NonZeroU32),
    /// `$argon2id$`
    Argon2id,
    /// `SCRAM-SHA-256$`, with so many iterations.
    Scram(NonZeroU32),
}

/// A password as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Hashed {
    /// SHA-512 over password and salt.
    Sha512 {
        /// Goes behind the password.
        salt: Vec<u8>,
        /// What comes out.
        hash: Vec<u8>,
    },
    /// PBKDF2 with HMAC-SHA-512.
    Pbkdf2 {
        /// How often.
        iterations: NonZeroU32,
        /// The salt.
        salt: Vec<u8>,
        /// What comes out.
        hash: Vec<u8>,
    },
    /// Argon2id, version 19.
    Argon2id {
        /// Memory, passes, lanes.
        params: Params,
        /// The salt.
        salt: Vec<u8>,
        /// What comes out.
        hash: Vec<u8>,
    },
    /// What RFC 5802 has the server know.
    Scram(Verifier),
}

/// What a server knows of a password to let a client show by SCRAM that it knows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// How often.
    pub iterations: NonZeroU32,
    /// The salt.
    pub salt: Vec<u8>,
    /// H(ClientKey).
    pub stored_key: [u8; 32],
    /// What the server shows that it knows.
    pub server_key: [u8; 32],
}

/// Why a text is no password as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// It does not begin as any of them.
    UnknownScheme,
    /// A field is missing, empty, too long or no base64.
    Malformed,
    /// It would take more memory or time than is allowed, or no work at all.
    Cost,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownScheme => {
                "neither $6$, $7$, $argon2id$ nor SCRAM-SHA-256$; a password in the clear is hashed \
                 with `shardmq passwd -U FILE`"
            }
            Self::Malformed => "a hash with a field that is missing or no base64",
            Self::Cost => "a hash with a cost of 0 or above what is allowed",
        })
    }
}

impl std::error::Error for PasswordError {}

/// Never shows what it holds.
impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha512 { .. } => "Sha512",
            Self::Pbkdf2 { .. } => "Pbkdf2",
            Self::Argon2id { .. } => "Argon2id",
            Self::Scram(_) => "Scram",
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Scheme {
    /// Bytes of salt to draw for it.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Sha512 | Self::Pbkdf2(_) => 12, // what mosquitto 2.0 takes and no other length
            Self::Argon2id | Self::Scram(_) => 16,
        }
    }

    /// Hashes `password` with `salt`, which the caller drew at random.
    ///
    /// # Errors
    /// If `salt` or `password` has a length that the scheme does not take.
    pub fn hash(self, password: &[u8], salt: &[u8]) -> Result<Hashed, PasswordError> {
        let salt = salt.to_vec();
        Ok(match self {
            Self::Sha512 => Hashed::Sha512 {
                hash: sha512(password, &salt),
                salt,
            },
            Self::Pbkdf2(iterations) => {
                let mut hash = vec![0; digest::SHA512_OUTPUT_LEN];
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
                pbkdf2::derive(algorithm, iterations, &salt, password, &mut hash);
                Hashed::Pbkdf2 {
                    iterations,
                    salt,
                    hash,
                }
            }
            Self::Argon2id => {
                // The second recommendation of RFC 9106 with less memory, as OWASP has it: 19 MiB.
                let params = Params::new(19_456, 2, 1, Some(32));
                let params = params.map_err(|_| PasswordError::Cost)?;
                let mut hash = vec![0; 32];
                argon2id(&params, password, &salt, &mut hash)?;
                Hashed::Argon2id { params, salt, hash }
            }
            Self::Scram(iterations) => Hashed::Scram(Verifier::new(password, salt, iterations)),
        })
    }
}

impl Hashed {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let hashed = if let Some(rest) = text.strip_prefix("$6$") {
            let (salt, hash) = rest.split_once('$').ok_or(PasswordError::Malformed)?;
            Self::Sha512 {
                salt: field(salt)?,
                hash: exactly(hash, digest::SHA512_OUTPUT_LEN)?,
            }
        } else if let Some(rest) = text.strip_prefix("$7$") {
            let (iterations, rest) = rest.split_once('$').ok_or(PasswordError::Malformed)?;
            let (salt, hash) = rest.split_once('$').ok_or(PasswordError::Malformed)?;
            Self::Pbkdf2 {
                iterations: count(iterations)?,
                salt: field(salt)?,
                hash: exactly(hash, digest::SHA512_OUTPUT_LEN)?,
            }
        } else if let Some(rest) = text.strip_prefix("$argon2id$") {
            parse_argon2id(rest)?
        } else if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            Self::Scram(Verifier::parse(rest)?)
        } else {
            return Err(PasswordError::UnknownScheme);
        };
        Ok(hashed)
    }

    /// Whether `password` is the one. Takes its time.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Sha512 { salt, hash } => equal(&sha512(password, salt), hash),
            Self::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => {
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
                pbkdf2::verify(algorithm, *iterations, salt, password, hash).is_ok()
            }
            Self::Argon2id { params, salt, hash } => {
                let mut found = vec![0; hash.len()];
                argon2id(params, password, salt, &mut found).is_ok() && equal(&found, hash)
            }
            Self::Scram(verifier) => verifier.verify(password),
        }
    }
}

/// As it stands in the file.
impl fmt::Display for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        match self {
            Self::Sha512 { salt, hash } => write!(f, "$6${}${}", encode(salt), encode(hash)),
            Self::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => write!(f, "$7${iterations}${}${}", encode(salt), encode(hash)),
            Self::Argon2id { params, salt, hash } => write!(
                f,
                "$argon2id$v=19$m={},t={},p={}${}${}",
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                STANDARD_NO_PAD.encode(salt),
                STANDARD_NO_PAD.encode(hash)
            ),
            Self::Scram(verifier) => write!(
                f,
                "SCRAM-SHA-256${}:{}${}:{}",
                verifier.iterations,
                encode(&verifier.salt),
                encode(&verifier.stored_key),
                encode(&verifier.server_key)
            ),
        }
    }
}

impl Verifier {
    /// Derives the two keys from a password.
    #[must_use]
    pub fn new(password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let mut salted = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, password, &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        Self {
            iterations,
            salt,
            stored_key: sha256(&client_key),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }

    fn parse(text: &str) -> Result<Self, PasswordError> {
        let (cost, keys) = text.split_once('$').ok_or(PasswordError::Malformed)?;
        let (iterations, salt) = cost.split_once(':').ok_or(PasswordError::Malformed)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(PasswordError::Malformed)?;
        let key = |text| {
            exactly(text, 32)?
                .try_into()
                .map_err(|_| PasswordError::Malformed)
        };
        Ok(Self {
            iterations: count(iterations)?,
            salt: field(salt)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    fn verify(&self, password: &[u8]) -> bool {
        let found = Self::new(password, self.salt.clone(), self.iterations);
        equal(&found.stored_key, &self.stored_key)
    }
}

fn parse_argon2id(text: &str) -> Result<Hashed, PasswordError> {
    let mut fields = text.split('$');
    let mut next = || fields.next().ok_or(PasswordError::Malformed);
    if next()? != "v=19" {
        return Err(PasswordError::Malformed);
    }
    let mut cost = next()?.split(',');
    let mut number = |name: &str| {
        let text = cost.next().and_then(|field| field.strip_prefix(name));
        let text = text.ok_or(PasswordError::Malformed)?;
        text.parse::<u32>().map_err(|_| PasswordError::Malformed)
    };
    let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    let (salt, hash) = (field(next()?)?, field(next()?)?);
    if cost.next().is_some() || fields.next().is_some() {
        return Err(PasswordError::Malformed);
    }
    if memory > MAX_ARGON2_MEMORY_KIB || passes > MAX_ARGON2_PASSES || lanes > 64 {
        return Err(PasswordError::Cost);
    }
    let params = Params::new(memory, passes, lanes, Some(hash.len()));
    let params = params.map_err(|_| PasswordError::Cost)?;
    if salt.len() < 8 || hash.len() < 16 {
        return Err(PasswordError::Malformed);
    }
    Ok(Hashed::Argon2id { params, salt, hash })
}

fn argon2id(
    params: &Params,
    password: &[u8],
    salt: &[u8],
    hash: &mut [u8],
) -> Result<(), PasswordError> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into(password, salt, hash)
        .map_err(|_| PasswordError::Cost)
}

fn sha512(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA512);
    context.update(password);
    context.update(salt);
    context.finish().as_ref().to_vec()
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// HMAC with SHA-256.
pub(super) fn hmac_sha256(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    out.copy_from_slice(hmac::sign(&key, bytes).as_ref());
    out
}

/// Compares in a time that tells nothing but the lengths.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn count(text: &str) -> Result<NonZeroU32, PasswordError> {
    let number: u32 = text.parse().map_err(|_| PasswordError::Malformed)?;
    NonZeroU32::new(number)
        .filter(|number| number.get() <= MAX_ITERATIONS)
        .ok_or(PasswordError::Cost)
}

fn field(text: &str) -> Result<Vec<u8>, PasswordError> {
    if text.is_empty() || text.len() > MAX_FIELD {
        return Err(PasswordError::Malformed);
    }
    LENIENT.decode(text).map_err(|_| PasswordError::Malformed)
}

fn exactly(text: &str, length: usize) -> Result<Vec<u8>, PasswordError> {
    field(text).and_then(|bytes| {
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(PasswordError::Malformed)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn few() -> NonZeroU32 {
        NonZeroU32::new(3).unwrap()
    }

    const SCHEMES: [fn() -> Scheme; 4] = [
        || Scheme::Sha512,
        || Scheme::Pbkdf2(few()),
        || Scheme::Argon2id,
        || Scheme::Scram(few()),
    ];

    #[test]
    fn what_is_written_reads_back_and_takes_one_password() {
        for scheme in SCHEMES {
            let hashed = scheme().hash(b"secret", b"0123456789abcdef").unwrap();
            let read = Hashed::parse(&hashed.to_string()).unwrap();
            assert!(read == hashed, "{hashed:?}");
            assert!(read.verify(b"secret"));
            assert!(!read.verify(b"Secret") && !read.verify(b""), "{read:?}");
        }
    }

    /// Written by mosquitto_passwd 2.0.11.
    #[test]
    fn what_mosquitto_wrote_is_read() {
        const SEVEN: &str = "$7$101$v4bIC1asiKApJYu8$MXMOTZwELyy47unTr+N6AV4X7TCIvg1SklGG7lPBG/\
            jpaHIEgU+jbSCLPa/YOd9D0Z4CBBpwRDpjphCf8suLGg==";
        const SIX: &str = "$6$XLshl78L/MMPDjTU$ZjKOL5ReGx/HcJbrNBDUzhGN7RWSudnk07wSJHSX/\
            P27L7cnHynGbY7GQN0Uq70Az3SIyZJTE7VuuipQsfJldw==";
        for (text, password) in [(SEVEN, "secret"), (SIX, "pw")] {
            let hashed = Hashed::parse(text).unwrap();
            assert!(hashed.verify(password.as_bytes()) && !hashed.verify(b"secre"));
            assert_eq!(hashed.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        use PasswordError::{Cost, Malformed, UnknownScheme};
        let hash = STANDARD.encode([0; 64]);
        for (text, error) in [
            ("secret".to_owned(), UnknownScheme),
            (String::new(), UnknownScheme),
            ("$5$a$b".to_owned(), UnknownScheme),
            ("$6$".to_owned(), Malformed),
            (format!("$6$${hash}"), Malformed),
            ("$6$AAAA$AAAA".to_owned(), Malformed),
            (format!("$7$0$AAAA${hash}"), Cost),
            (format!("$7$99999999$AAAA${hash}"), Cost),
            (format!("$7$-1$AAAA${hash}"), Malformed),
            (format!("$7$1$*${hash}"), Malformed),
            (
                "$argon2id$v=16$m=64,t=1,p=1$AAAA$AAAA".to_owned(),
                Malformed,
            ),
            (
                "$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA"
                    .to_owned(),
                Cost,
            ),
            (
                "$argon2id$v=19$m=64,t=0,p=1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
                Cost,
            ),
            ("SCRAM-SHA-256$1:AAAA$AAAA:AAAA".to_owned(), Malformed),
        ] {
            assert_eq!(Hashed::parse(&text), Err(error), "{text}");
        }
    }

    /// The example of RFC 7677: user `user`, password `pencil`.
    #[test]
    fn the_keys_of_scram_are_those_of_the_standard() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::new(b"pencil", salt, NonZeroU32::new(4096).unwrap());
        let hashed = Hashed::Scram(verifier).to_string();
        assert_eq!(
            hashed,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn nothing_secret_is_shown() {
        let hashed = Scheme::Sha512.hash(b"secret", b"salt").unwrap();
        assert_eq!(format!("{hashed:?}"), "Sha512");
    }
}
