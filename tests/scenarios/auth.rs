//! Enhanced authentication: SCRAM-SHA-256 by AUTH packets, before CONNACK and again later.

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shardmq::policy::{Acl, Entrance, Guard, GuardOptions, Method, Scheme, Scram as Server, Users};
use shardmq::wire::{Auth, Packet, ReasonCode, Version};

use crate::client::{Broker, Client, Options, on_shards_under, v5};
use crate::packets::{Received, message, sub};

const METHOD: &str = "SCRAM-SHA-256";

/// Everybody has the password `pencil`; what a user may do stands in the rules.
fn guarded(scenario: impl Fn(&Broker)) {
    let iterations = NonZeroU32::new(5).expect("the test wrote it right");
    let hashed = Scheme::Scram(iterations)
        .hash(b"pencil", b"saltsaltsaltsalt")
        .expect("the test wrote it right");
    let users =
        Users::parse(&format!("anna:{hashed}\nbob:{hashed}\n")).expect("the test wrote it right");
    let acl = Acl::parse("user anna\ntopic anna/#\nuser bob\ntopic bob/#\n")
        .expect("the test wrote it right");
    let options = Arc::new(GuardOptions {
        entrances: vec![Entrance {
            anonymous: false,
            ..Entrance::default()
        }],
        methods: vec![Method::Password],
        scram: Some(Server {
            users: Arc::new(users),
            secret: [7; 32],
        }),
        acl: Some(Arc::new(acl)),
        ..GuardOptions::default()
    });
    on_shards_under(|| Guard::new(Arc::clone(&options), 0), scenario);
}

/// What a client of SCRAM remembers.
struct Scram {
    bare: String,
    password: &'static [u8],
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, bytes).as_ref().to_vec()
}

impl Scram {
    fn new(user: &str, password: &'static str) -> Self {
        Self {
            bare: format!("n={user},r=nonce-of-{user}"),
            password: password.as_bytes(),
        }
    }

    fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The answer to the broker's first message, and what the broker must say to it.
    fn last(&self, challenge: &[u8]) -> (String, Vec<u8>) {
        let challenge = std::str::from_utf8(challenge).expect("the test wrote it right");
        let field = |name: &str| {
            let mut fields = challenge.split(',');
            fields
                .find_map(|field| field.strip_prefix(name))
                .expect("the test wrote it right")
        };
        let salt = STANDARD
            .decode(field("s="))
            .expect("the test wrote it right");
        let mut salted = [0; 32];
        let iterations = field("i=").parse().expect("the test wrote it right");
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, self.password, &mut salted);
        let without_proof = format!("c=biws,r={}", field("r="));
        let said = format!("{},{challenge},{without_proof}", self.bare);
        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let signature = mac(stored_key.as_ref(), said.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let server = mac(&mac(&salted, b"Server Key"), said.as_bytes());
        let expected = format!("v={}", STANDARD.encode(server));
        (
            format!("{without_proof},p={}", STANDARD.encode(proof)),
            expected.into_bytes(),
        )
    }
}

fn send_auth(client: &mut Client, reason: ReasonCode, data: &str) {
    client.send(&Packet::Auth(Auth {
        reason,
        authentication_method: Some(METHOD),
        authentication_data: Some(data.as_bytes()),
        ..Auth::default()
    }));
}

/// The broker's first message.
#[track_caller]
fn challenge(client: &mut Client) -> Vec<u8> {
    // [MQTT-4.12.0-2] [MQTT-4.12.0-5]: AUTH 0x18 with the method of CONNECT
    match client.next() {
        Some(Received::Auth(ReasonCode::ContinueAuthentication, method, data)) => {
            assert_eq!(method, METHOD);
            data
        }
        other => panic!("no AUTH came, but {other:?}"),
    }
}

fn options(client_id: &str, scram: &Scram) -> Options {
    v5(client_id)
        .authentication_method(METHOD)
        .authentication_data(scram.first())
}

/// A client that came in.
fn enter(broker: &Broker, client_id: &str, user: &str) -> Client {
    let scram = Scram::new(user, "pencil");
    let mut client = broker.dial(options(client_id, &scram));
    let (last, expected) = scram.last(&challenge(&mut client));
    send_auth(&mut client, ReasonCode::ContinueAuthentication, &last);
    let Some(Received::ConnAck(welcome)) = client.next() else {
        panic!("no CONNACK")
    };
    assert_eq!(welcome.reason, ReasonCode::Success);
    // [MQTT-4.12.0-5]: the method again, and the proof that the broker knows the password too.
    assert_eq!(welcome.authentication_method.as_deref(), Some(METHOD));
    assert_eq!(welcome.authentication_data, Some(expected));
    client
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5]: a client that knows the password comes in and may do
/// what its user may.
#[test]
fn a_client_shows_that_it_knows_its_password() {
    guarded(|broker| {
        let mut anna = enter(broker, "client", "anna");
        anna.subscribe(sub("anna/#").qos(1));
        assert_eq!(anna.subscribe_all(&[sub("bob/#")]), [0x87]);
        anna.publish(&message("anna/door", "open").qos(1));
        anna.expect(&message("anna/door", "open").qos(1));
        assert_eq!(
            anna.publish(&message("bob/door", "open").qos(1)),
            ReasonCode::NotAuthorized
        );
        // An assigned client id is told at the end.
        let mut nameless = broker.dial(options("", &Scram::new("bob", "pencil")));
        let (last, _) = Scram::new("bob", "pencil").last(&challenge(&mut nameless));
        send_auth(&mut nameless, ReasonCode::ContinueAuthentication, &last);
        assert!(matches!(
            nameless.next(),
            Some(Received::ConnAck(welcome)) if welcome.assigned.is_some()
        ));
    });
}

/// [MQTT-4.12.0-4]: who does not know it gets CONNACK with an error; nobody can tell whether the user
/// exists.
#[test]
fn who_does_not_know_it_is_refused() {
    guarded(|broker| {
        for (user, password) in [("anna", "pen"), ("nobody", "pencil")] {
            let scram = Scram::new(user, password);
            let mut client = broker.dial(options("client", &scram));
            let (last, _) = scram.last(&challenge(&mut client));
            send_auth(&mut client, ReasonCode::ContinueAuthentication, &last);
            let Some(Received::ConnAck(welcome)) = client.next() else {
                panic!("no CONNACK")
            };
            assert_eq!(welcome.reason, ReasonCode::NotAuthorized);
            client.expect_closed();
        }
        let nonsense = v5("client")
            .authentication_method(METHOD)
            .authentication_data("x");
        broker.expect_refused(nonsense, ReasonCode::NotAuthorized);
        let silent = v5("client").authentication_method(METHOD);
        broker.expect_refused(silent, ReasonCode::NotAuthorized);
        let other = v5("client").authentication_method("SCRAM-SHA-1");
        broker.expect_refused(other, ReasonCode::BadAuthenticationMethod);
        assert_eq!(
            (broker.stats().sessions, broker.stats().connections),
            (0, 0)
        );
    });
}

/// [MQTT-3.1.2-30] [MQTT-4.12.0-5]: in between only AUTH of the same method, of the right step, and
/// DISCONNECT.
#[test]
fn nothing_else_comes_in_between() {
    guarded(|broker| {
        let scram = Scram::new("anna", "pencil");
        let begun = || {
            let mut client = broker.dial(options("client", &scram));
            let _ = challenge(&mut client);
            client
        };
        let mut eager = begun();
        eager.send(&Packet::PingReq);
        eager.expect_closed();
        let mut twice = begun();
        twice.send_bytes(&options("client", &scram).encode());
        twice.expect_closed();
        let mut wrong_step = begun();
        send_auth(&mut wrong_step, ReasonCode::ReAuthenticate, "x");
        wrong_step.expect_closed();
        let mut other_method = begun();
        other_method.send(&Packet::Auth(Auth {
            reason: ReasonCode::ContinueAuthentication,
            authentication_method: Some("PLAIN"),
            ..Auth::default()
        }));
        other_method.expect_closed();
        let mut polite = begun();
        polite.disconnect();
        polite.expect_closed();
        let mut gone = begun();
        gone.cut();
        let mut slow = begun();
        broker.advance(10.1);
        slow.expect_closed();
        assert_eq!(
            (broker.stats().sessions, broker.stats().connections),
            (0, 0)
        );
    });
}

/// [MQTT-4.12.1-1] [MQTT-4.12.1-2]: a client that is in shows anew who it is; its messages go on meanwhile,
/// and it stays who it was.
#[test]
fn a_client_authenticates_again() {
    guarded(|broker| {
        let mut anna = enter(broker, "client", "anna");
        anna.subscribe(sub("anna/#"));
        for _ in 0..2 {
            let scram = Scram::new("anna", "pencil");
            send_auth(&mut anna, ReasonCode::ReAuthenticate, &scram.first());
            let (last, expected) = scram.last(&challenge(&mut anna));
            anna.publish(&message("anna/door", "open").qos(1));
            anna.expect(&message("anna/door", "open"));
            send_auth(&mut anna, ReasonCode::ContinueAuthentication, &last);
            let success = Received::Auth(ReasonCode::Success, METHOD.to_owned(), expected);
            anna.expect_packet(success);
        }
        // Somebody else's password makes nobody somebody else.
        let scram = Scram::new("bob", "pencil");
        send_auth(&mut anna, ReasonCode::ReAuthenticate, &scram.first());
        let (last, _) = scram.last(&challenge(&mut anna));
        send_auth(&mut anna, ReasonCode::ContinueAuthentication, &last);
        anna.expect_end(ReasonCode::NotAuthorized);
        let mut forgetful = enter(broker, "other", "anna");
        let scram = Scram::new("anna", "pen");
        send_auth(&mut forgetful, ReasonCode::ReAuthenticate, &scram.first());
        let (last, _) = scram.last(&challenge(&mut forgetful));
        send_auth(&mut forgetful, ReasonCode::ContinueAuthentication, &last);
        forgetful.expect_end(ReasonCode::NotAuthorized);
        let mut confused = enter(broker, "third", "anna");
        send_auth(&mut confused, ReasonCode::ContinueAuthentication, "x");
        confused.expect_end(ReasonCode::ProtocolError);
    });
}

/// A session is its user's: nobody else comes to it by its client id.
#[test]
fn a_session_is_not_taken_over_by_another_user() {
    guarded(|broker| {
        let mut anna = enter(broker, "client", "anna");
        let scram = Scram::new("bob", "pencil");
        let mut bob = broker.dial(options("client", &scram));
        let (last, _) = scram.last(&challenge(&mut bob));
        send_auth(&mut bob, ReasonCode::ContinueAuthentication, &last);
        let Some(Received::ConnAck(welcome)) = bob.next() else {
            panic!("no CONNACK")
        };
        assert_eq!(welcome.reason, ReasonCode::NotAuthorized);
        bob.expect_closed();
        anna.ping();
        let _again = enter(broker, "client", "anna");
        anna.expect_end(ReasonCode::SessionTakenOver);
    });
}

/// Without a user of SCRAM the method is not offered, and version 3.1.1 has no way to ask.
#[test]
fn it_is_offered_only_where_somebody_can_use_it() {
    let options = Arc::new(GuardOptions {
        entrances: vec![Entrance {
            anonymous: true,
            ..Entrance::default()
        }],
        ..GuardOptions::default()
    });
    on_shards_under(
        || Guard::new(Arc::clone(&options), 0),
        |broker| {
            let scram = v5("client").authentication_method(METHOD);
            broker.expect_refused(scram, ReasonCode::BadAuthenticationMethod);
            let client = broker.connect(v5("client"));
            assert_eq!(client.version(), Version::V5);
        },
    );
}
