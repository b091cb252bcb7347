//! Whose a session is and what may reach it, across a crash and a change of the rules; and tokens that
//! others have signed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Version;
use crate::access::{Folder, broker, passwd_succeeds, shown, token};
use crate::broker::{Broker, Setup, free_port, fresh_folder};
use crate::foreign::skipped;
use crate::raw::packets::{Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, ack};
use crate::raw::peer::Peer;

const NOT_AUTHORIZED: u8 = 0x87;
const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Brokers that run one after the other on one data directory, and their files.
struct Place {
    port: u16,
    data: PathBuf,
    files: Folder,
}

impl Place {
    fn new(name: &str) -> Self {
        let files = Folder::new(name);
        let users = shown(&files.path("users"));
        passwd_succeeds(&["-c", "-b", "-H", "sha512", &users, "anna", "pw"], "");
        for name in ["bob", "chief"] {
            passwd_succeeds(&["-b", "-H", "sha512", &users, name, "pw"], "");
        }
        let secret = URL_SAFE_NO_PAD.encode(SECRET);
        let keys = format!(r#"{{"keys":[{{"kty":"oct","k":"{secret}"}}]}}"#);
        files.write("keys.json", &keys);
        Self {
            port: free_port(),
            data: fresh_folder(7).join("data"),
            files,
        }
    }

    /// Starts a broker under these rules.
    fn start(&self, rules: &str) -> Broker {
        self.files.write("acl", rules);
        let path = |name: &str| shown(&self.files.path(name));
        let (users, keys, acl) = (path("users"), path("keys.json"), path("acl"));
        let environment = [
            ("SHARDMQ__AUTH__PASSWORD_FILE", &*users),
            ("SHARDMQ__AUTH__JWKS_FILE", &keys),
            ("SHARDMQ__AUTH__ACL_FILE", &acl),
        ];
        Broker::start_guarded(Setup::TWO, self.port, &self.data, &environment)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(folder) = self.data.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn lasting(client_id: &str, user: &str) -> Connect {
    Connect::lasting(Version::V5, client_id).login(user, "pw")
}

/// What CONNACK says to somebody.
fn answer(broker: &Broker, connect: &Connect) -> u8 {
    let mut peer = Peer::open(broker, Version::V5);
    peer.send(&connect.bytes());
    peer.connack().code
}

fn publish(broker: &Broker, messages: &[(&str, &str)]) {
    let chief = Connect::new(Version::V5, "chief").login("chief", "pw");
    let mut chief = Peer::connect(broker, &chief);
    for (number, (topic, payload)) in (1..).zip(messages) {
        chief.publish(&Publish::new(topic, payload).qos(1, number));
        chief.expect_ack(PUBACK, number);
    }
}

/// Topics of what waits for a client, which acknowledges it.
fn waiting(peer: &mut Peer, count: usize) -> Vec<String> {
    let mut topics: Vec<String> = (0..count)
        .map(|_| {
            let message = peer.receive();
            let (first, id) = (if message.qos == 2 { PUBREC } else { PUBACK }, message.id);
            peer.send(&ack(first, id));
            if message.qos == 2 {
                // What waits on disk may come in between.
                assert_eq!(peer.answer(PUBREL)[..2], id.to_be_bytes());
                peer.send(&ack(PUBCOMP, id));
            }
            message.topic
        })
        .collect();
    topics.sort_unstable();
    assert_eq!(peer.ping(), [], "nothing else");
    topics
}

const CHIEF: &str = "user chief\ntopic #\n";

/// A session that comes from the disk is its owner's, gets while he is away what his rules allow, and
/// when he is back nothing that the rules of that day deny: not what was queued under others, nor a
/// QoS 2 message that was on its way.
#[test]
fn rules_hold_for_a_session_across_a_crash() {
    let place = Place::new("restart");
    let mut broker = place.start(&format!("{CHIEF}user anna\ntopic read #\n"));
    let mut anna = Peer::connect(&broker, &lasting("anna's", "anna"));
    assert_eq!(anna.subscribe("#", 2), 2);
    let chief = Connect::new(Version::V5, "chief").login("chief", "pw");
    let mut chief = Peer::connect(&broker, &chief);
    for (number, topic) in (1..).zip(["open/exchange", "closed/exchange"]) {
        chief.publish(&Publish::new(topic, "x").qos(2, number));
        chief.expect_ack(PUBREC, number);
        // It is on its way to anna, who says nothing.
        assert_eq!(anna.receive().topic, topic);
    }
    drop((anna, chief));
    publish(&broker, &[("open/1", "x"), ("closed/1", "x")]);
    broker.kill();

    // As if she were nobody, nothing would be kept for her now.
    let mut broker = place.start(&format!("{CHIEF}user anna\ntopic read open/#\n"));
    publish(&broker, &[("open/2", "x"), ("closed/2", "x")]);
    assert_eq!(answer(&broker, &lasting("anna's", "bob")), NOT_AUTHORIZED);
    let wrong = Connect::lasting(Version::V5, "anna's").login("anna", "wrong");
    assert_eq!(answer(&broker, &wrong), BAD_USER_NAME_OR_PASSWORD);
    broker.kill();

    let broker = place.start(&format!("{CHIEF}user anna\ntopic read open/#\n"));
    let (mut anna, connack) = Peer::connect_and_see(&broker, &lasting("anna's", "anna"));
    assert!(connack.session_present);
    let topics = waiting(&mut anna, 3);
    assert_eq!(topics, ["open/1", "open/2", "open/exchange"]);
    broker.stop();
}

/// Rules that came with a token are gone with the process: what they may allow waits until its bearer brings
/// others, and a will that they allowed is published.
#[test]
fn rules_of_a_token_are_asked_for_again_after_a_crash() {
    let place = Place::new("token");
    let acl = format!("{CHIEF}pattern deny closed/#\n");
    let mut broker = place.start(&acl);
    let bearer = |acl: &str| {
        let token = token(SECRET, "vehicle", 60, acl);
        Connect::lasting(Version::V5, "vehicle").login("vehicle", &token)
    };
    let wide = bearer(r#"{"sub":["a/#","b/#","closed/#"],"pub":["gone"]}"#);
    let mut vehicle = Peer::connect(&broker, &wide.will(1, true, "gone", b"x"));
    for filter in ["a/#", "b/#"] {
        assert_eq!(vehicle.subscribe(filter, 1), 1);
    }
    let forbidden = Connect::new(Version::V5, "forger").will(1, true, "forged", b"x");
    let pass = token(SECRET, "forger", 60, r#"{"pub":["gone"]}"#);
    let forger = Peer::connect(&broker, &forbidden.login("forger", &pass));
    broker.kill();
    drop((vehicle, forger));

    let broker = place.start(&acl);
    publish(&broker, &[("a/1", "x"), ("b/1", "x")]);
    let chief = Connect::new(Version::V5, "watcher").login("chief", "pw");
    let mut watcher = Peer::connect(&broker, &chief);
    assert_eq!(watcher.subscribe("+", 0), 0);
    assert_eq!(watcher.receive().topic, "gone", "retained, or just now");
    assert_eq!(watcher.ping(), [], "the other will was denied");
    let narrow = bearer(r#"{"sub":["a/#"]}"#);
    let (mut vehicle, connack) = Peer::connect_and_see(&broker, &narrow);
    assert!(connack.session_present);
    assert_eq!(waiting(&mut vehicle, 1), ["a/1"]);
    broker.stop();
}

/// openssl with these arguments and this input; `None` if there is none.
fn openssl(folder: &Folder, arguments: &str) -> Option<Vec<u8>> {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder.path(""))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert!(output.status.success(), "openssl {arguments}: {output:?}");
    Some(output.stdout)
}

/// r and s of a signature in DER, 32 bytes each, as RFC 7518 wants them.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut number = || {
        let (head, tail) = rest.split_at(2);
        let (number, tail) = tail.split_at(usize::from(head[1]));
        rest = tail;
        let number: Vec<u8> = number
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect();
        [vec![0; 32 - number.len()], number].concat()
    };
    [number(), number()].concat()
}

/// A key that openssl made: how tokens name it, its JWK, and how openssl signs with it.
struct Signer {
    algorithm: &'static str,
    key: String,
    sign: &'static str,
}

fn signers(folder: &Folder) -> Option<[Signer; 3]> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    openssl(
        folder,
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out RS256.pem",
    )?;
    openssl(
        folder,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ES256.pem",
    )?;
    openssl(folder, "genpkey -algorithm ED25519 -out EdDSA.pem")?;
    let modulus = openssl(folder, "rsa -in RS256.pem -noout -modulus")?;
    let modulus = String::from_utf8(modulus).ok()?;
    let digits = modulus.trim().trim_start_matches("Modulus=");
    let modulus: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect();
    let public = |name: &str| openssl(folder, &format!("pkey -in {name}.pem -pubout -outform DER"));
    let (point, edwards) = (public("ES256")?, public("EdDSA")?);
    let (x, y) = point[point.len() - 64..].split_at(32);
    let edwards = &edwards[edwards.len() - 32..];
    Some([
        Signer {
            algorithm: "RS256",
            key: format!(r#""kty":"RSA","e":"AQAB","n":"{}""#, encode(&modulus)),
            sign: "dgst -sha256 -sign RS256.pem signed",
        },
        Signer {
            algorithm: "ES256",
            key: format!(
                r#""kty":"EC","crv":"P-256","x":"{}","y":"{}""#,
                encode(x),
                encode(y)
            ),
            sign: "dgst -sha256 -sign ES256.pem signed",
        },
        Signer {
            algorithm: "EdDSA",
            key: format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, encode(edwards)),
            sign: "pkeyutl -sign -rawin -inkey EdDSA.pem -in signed",
        },
    ])
}

/// Tokens that openssl has signed, with a set of keys of three kinds; each key takes its own alone.
#[test]
fn tokens_of_every_algorithm_let_in() {
    let folder = Folder::new("algorithms");
    let Some(signers) = signers(&folder) else {
        return skipped(
            "tokens",
            Version::V5,
            Setup::TWO,
            "openssl is not installed",
        );
    };
    let keys: Vec<String> = signers
        .iter()
        .map(|signer| format!(r#"{{{},"kid":"{}"}}"#, signer.key, signer.algorithm))
        .collect();
    let keys = folder.write("keys.json", &format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
    let configuration = format!("[auth]\njwks_file = '{}'\n", shown(&keys));
    let broker = broker(Setup::TWO, &folder, &configuration);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let exp = now.expect("a clock that is set").as_secs() + 60;
    let token = |signer: &Signer, algorithm: &str| {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{}"}}"#, signer.algorithm);
        let claims = format!(r#"{{"sub":"anna","exp":{exp}}}"#);
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        folder.write("signed", &signed);
        let signature = openssl(&folder, signer.sign).expect("it was there before");
        let signature = match signer.algorithm {
            "ES256" => fixed(&signature),
            _ => signature,
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let answer = |token: &str| {
        let connect = Connect::new(Version::V5, "tries").login("anna", token);
        answer(&broker, &connect)
    };
    for signer in &signers {
        let good = token(signer, signer.algorithm);
        assert_eq!(answer(&good), 0, "{}", signer.algorithm);
        let forged = good.replacen("eyJzdWIiOi", "eyJzdWIiOj", 1);
        assert_ne!(forged, good);
        assert_eq!(answer(&forged), BAD_USER_NAME_OR_PASSWORD);
        for other in signers
            .iter()
            .filter(|other| other.algorithm != signer.algorithm)
        {
            let lie = token(signer, other.algorithm);
            assert_eq!(answer(&lie), BAD_USER_NAME_OR_PASSWORD, "{lie}");
        }
    }
    broker.stop();
}
