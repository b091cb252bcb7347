//! Who may come in and who may do what, on the binary: password files written by mosquitto_passwd and by
//! `shardmq passwd`, ACL files, their reload; with mosquitto's clients and paho.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Version;
use crate::broker::{Broker, Setup, binary};
use crate::foreign::{matrix, skipped};
use crate::install;

matrix!(passwords, crate::access::passwords);
matrix!(rules, crate::access::rules);
matrix!(tokens, crate::access::tokens);
matrix!(by_http, crate::access::by_http);

/// How long a change of a file may take to hold.
const RELOAD: Duration = Duration::from_secs(10);

/// A folder for files, gone at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let unique = format!(
            "shardmq-access-{name}-{}-{}",
            std::process::id(),
            crate::broker::free_port()
        );
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the folder can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `shardmq passwd`, the password on standard input if there is one.
fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

pub(crate) fn passwd_succeeds(arguments: &[&str], input: &str) {
    let output = passwd(arguments, input);
    assert!(output.status.success(), "passwd {arguments:?}: {output:?}");
}

/// A broker with this [auth] section.
pub(crate) fn broker(setup: Setup, folder: &Folder, configuration: &str) -> Broker {
    let path = folder.write("shardmq.toml", configuration);
    Broker::start_with(setup, |command| {
        command.arg("--config").arg(path);
    })
}

pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A client of mosquitto's.
struct Shell<'a> {
    broker: &'a Broker,
    version: Version,
}

impl Shell<'_> {
    fn command(&self, program: &str, user: Option<(&str, &str)>) -> Command {
        let version = if self.version.is_v5() { "5" } else { "311" };
        let mut command = Command::new(program);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.broker.port().to_string(),
            "-V",
            version,
        ]);
        if let Some((name, password)) = user {
            command.args(["-u", name, "-P", password]);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Whether this user gets in; mosquitto_pub says so by its exit code.
    fn gets_in(&self, user: Option<(&str, &str)>) -> bool {
        let mut command = self.command("mosquitto_pub", user);
        let output = command
            .args(["-t", "door", "-m", "knock", "-q", "1"])
            .output()
            .expect("mosquitto_pub runs");
        output.status.success()
    }

    fn publish(&self, user: (&str, &str), topic: &str, payload: &str) {
        let mut command = self.command("mosquitto_pub", Some(user));
        let output = command
            .args(["-t", topic, "-m", payload, "-q", "1", "-r"])
            .output()
            .expect("mosquitto_pub runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// The retained messages that a user gets by a filter. `end` is the topic of one that he may have,
    /// and that comes last.
    fn retained(&self, user: (&str, &str), filter: &str, end: &str) -> Vec<String> {
        let output = self
            .command("mosquitto_sub", Some(user))
            .args(["-t", filter, "-v", "-q", "1", "-W", "2"])
            .output()
            .expect("mosquitto_sub runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort();
        assert!(lines.iter().any(|line| line.starts_with(end)), "{said}");
        lines
    }
}

fn lacks_mosquitto(what: &str, version: Version, setup: Setup) -> bool {
    let found = install::mosquitto_clients().and_then(|_| {
        let found = Command::new("mosquitto_passwd").arg("--help").output();
        found.map_err(|_| "Debian's package mosquitto is not installed".to_owned())
    });
    match found {
        Ok(_) => false,
        Err(reason) => {
            skipped(what, version, setup, &reason);
            true
        }
    }
}

fn passwords(version: Version, setup: Setup) {
    if lacks_mosquitto("passwords", version, setup) {
        return;
    }
    let folder = Folder::new("passwords");
    let file = folder.path("users");
    let users = shown(&file);
    for (hash, name) in [("sha512", "six"), ("sha512-pbkdf2", "seven")] {
        let mut command = Command::new("mosquitto_passwd");
        if !file.exists() {
            command.arg("-c");
        }
        let output = command
            .args(["-H", hash, "-b", &users, name, "of mosquitto"])
            .output();
        assert!(output.expect("mosquitto_passwd runs").status.success());
    }
    passwd_succeeds(&["-b", &users, "argon", "of shardmq"], "");
    passwd_succeeds(
        &["-H", "scram-sha-256", &users, "scram"],
        "read from standard input\n",
    );
    let broker = broker(
        setup,
        &folder,
        &format!("[auth]\npassword_file = '{users}'\n"),
    );
    let shell = Shell {
        broker: &broker,
        version,
    };
    for (name, password) in [
        ("six", "of mosquitto"),
        ("seven", "of mosquitto"),
        ("argon", "of shardmq"),
        ("scram", "read from standard input"),
    ] {
        assert!(shell.gets_in(Some((name, password))), "{name}");
        assert!(!shell.gets_in(Some((name, "wrong"))), "{name}");
        assert!(!shell.gets_in(Some((name, ""))), "{name}");
    }
    assert!(!shell.gets_in(Some(("nobody", "of mosquitto"))));
    assert!(
        !shell.gets_in(None),
        "loopback is open only where nobody can show who he is"
    );
    by_paho(&broker, version, ("argon", "of shardmq"));
    changes(&shell, &users);
    broker.stop();
}

/// A file that is changed holds from SIGHUP on; a wrong one does not.
fn changes(shell: &Shell<'_>, users: &str) {
    let until = |wanted: bool, user: (&str, &str)| {
        let deadline = Instant::now() + RELOAD;
        while shell.gets_in(Some(user)) != wanted {
            assert!(Instant::now() < deadline, "{user:?}: {wanted}");
        }
    };
    passwd_succeeds(
        &[
            "-b",
            "-H",
            "sha512-pbkdf2",
            "-I",
            "101",
            users,
            "late",
            "comer",
        ],
        "",
    );
    passwd_succeeds(&["-D", users, "six"], "");
    assert!(
        !shell.gets_in(Some(("late", "comer"))),
        "nothing is read before SIGHUP"
    );
    shell.broker.signal("HUP");
    until(true, ("late", "comer"));
    until(false, ("six", "of mosquitto"));
    let right = fs::read_to_string(users).expect("it is there");
    fs::write(users, "late:in the clear\n").expect("it can be written");
    shell.broker.signal("HUP");
    let deadline = Instant::now() + RELOAD;
    while !shell.broker.log().contains("nothing was changed") {
        assert!(Instant::now() < deadline, "{}", shell.broker.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(shell.broker.log().contains("line 1: "), "the line is named");
    assert!(shell.gets_in(Some(("late", "comer"))), "the old file holds");
    fs::write(users, right).expect("it can be written");
}

fn by_paho(broker: &Broker, version: Version, (name, password): (&str, &str)) {
    let python = match install::paho() {
        Ok(python) => python,
        Err(reason) => return skipped("paho", version, Setup::ONE, &reason),
    };
    for (password, expected) in [(password, "Success"), ("wrong", "refused")] {
        let said = login(&python, broker, version, &[name, password]);
        assert!(said.contains(expected), "{said}");
    }
}

/// What paho says of a login.
fn login(python: &Path, broker: &Broker, version: Version, arguments: &[&str]) -> String {
    let output = Command::new(python)
        .args(["-u", "tests/clients/paho/login.py"])
        .args([broker.port().to_string(), version.level().to_string()])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("paho runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {output:?}");
    said
}

/// A token signed with a shared secret, with a life of so many seconds and these rules.
pub(crate) fn token(secret: &[u8], user: &str, life: i64, acl: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock that is set").as_secs().cast_signed();
    let claims = format!(r#"{{"sub":"{user}","exp":{},"acl":{acl}}}"#, now + life);
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token lets its bearer in, says what he may do, and ends his connection with itself.
fn tokens(version: Version, setup: Setup) {
    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
    let token = |secret: &[u8], user: &str, life| token(secret, user, life, r#"{"pub":["door"]}"#);
    let python = match install::paho() {
        Ok(python) => python,
        Err(reason) => return skipped("tokens", version, setup, &reason),
    };
    let folder = Folder::new("tokens");
    let keys = folder.write(
        "keys.json",
        &format!(
            r#"{{"keys":[{{"kty":"oct","k":"{}"}}]}}"#,
            URL_SAFE_NO_PAD.encode(SECRET)
        ),
    );
    let configuration = format!("[auth]\njwks_file = '{}'\njwt_leeway = 0\n", shown(&keys));
    let broker = broker(setup, &folder, &configuration);
    let said = |token: &str, more: &[&str]| {
        login(
            &python,
            &broker,
            version,
            &[&["anna", token], more].concat(),
        )
    };
    assert!(said(&token(SECRET, "anna", 60), &[]).contains("Success"));
    for wrong in [
        token(b"another secret of thirty-two bytes!!!", "anna", 60),
        token(SECRET, "bob", 60),
        token(SECRET, "anna", -1),
        "no token".to_owned(),
    ] {
        assert!(said(&wrong, &[]).contains("refused"), "{wrong}");
    }
    let ended = said(&token(SECRET, "anna", 2), &["stay"]);
    assert!(
        ended.contains("Success") && ended.contains("ended: "),
        "{ended}"
    );
    if version.is_v5() {
        assert!(ended.contains("Maximum connect time"), "{ended}");
    }
    broker.stop();
}

/// Answers questions over HTTP until it is dropped: `anna` with `pw` may come in, nobody else.
struct Oracle {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Oracle {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                if answer(socket).is_none() {
                    return;
                }
            }
        });
        Self { address, asked }
    }

    fn stop(&self) {
        let _ = TcpStream::connect(&self.address);
    }
}

/// Answers one request; `None` if nothing was asked.
fn answer(mut socket: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = socket.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1)?;
            let length: usize = length.lines().next()?.trim().parse().ok()?;
            if body.len() >= length {
                assert!(head.starts_with("POST /login HTTP/1.1"), "{head}");
                let known =
                    body.contains(r#""username":"anna""#) && body.contains(r#""password":"pw""#);
                let result = if known { "allow" } else { "deny" };
                let body = format!(r#"{{"result":"{result}","username":"anna"}}"#);
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                socket.write_all((head + &body).as_bytes()).ok()?;
                return Some(());
            }
        }
    }
}

/// Somebody is asked by HTTP, his answers are remembered, and when he is away nobody comes in.
fn by_http(version: Version, setup: Setup) {
    if lacks_mosquitto("by_http", version, setup) {
        return;
    }
    let oracle = Oracle::start();
    let folder = Folder::new("http");
    let configuration = format!(
        "[auth]\nhttp_url = 'http://{}/login'\nhttp_timeout = '2 s'\nhttp_cache = '1 h'\n",
        oracle.address
    );
    let broker = broker(setup, &folder, &configuration);
    let shell = Shell {
        broker: &broker,
        version,
    };
    assert!(shell.gets_in(Some(("anna", "pw"))));
    assert!(!shell.gets_in(Some(("anna", "wrong"))));
    assert!(!shell.gets_in(Some(("bob", "pw"))));
    assert!(!shell.gets_in(None));
    let asked = oracle.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 3, "who says nothing is not asked about");
    oracle.stop();
    assert!(
        !shell.gets_in(Some(("anna", "pw"))),
        "each client id is asked about by itself"
    );
    assert!(broker.log().contains("gives no answer"), "{}", broker.log());
    broker.stop();
}

/// What `shardmq passwd` writes is read by mosquitto itself.
#[test]
fn mosquitto_reads_what_shardmq_writes() {
    if lacks_mosquitto("mosquitto", Version::V5, Setup::ONE) {
        return;
    }
    let folder = Folder::new("reverse");
    let users = shown(&folder.path("users"));
    passwd_succeeds(
        &["-c", "-b", "-H", "sha512-pbkdf2", &users, "seven", "pw"],
        "",
    );
    passwd_succeeds(&["-b", "-H", "sha512", &users, "six", "pw"], "");
    fs::OpenOptions::new()
        .append(true)
        .open(&users)
        .and_then(|mut file| file.write_all(b"clear:pw\n"))
        .expect("it can be written");
    passwd_succeeds(&["-U", "-H", "sha512-pbkdf2", &users], "");
    let port = crate::broker::free_port();
    let root = if unsafe_root() { "user root\n" } else { "" };
    let text = format!("{root}listener {port} 127.0.0.1\npassword_file {users}\n");
    let configuration = folder.write("mosquitto.conf", &text);
    let mut child = Command::new("/usr/sbin/mosquitto")
        .arg("-c")
        .arg(configuration)
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed");
    let deadline = Instant::now() + RELOAD;
    let try_in = |name: &str, password: &str| {
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-u",
            name,
            "-P",
            password,
        ]);
        let output = command.args(["-t", "a", "-m", "b", "-q", "1"]).output();
        output.expect("mosquitto_pub runs").status.success()
    };
    while !try_in("seven", "pw") && Instant::now() < deadline {}
    let taken = ["seven", "six", "clear"].map(|name| try_in(name, "pw"));
    let refused = !try_in("seven", "wrong");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!((taken, refused), ([true; 3], true));
}

/// Whether this runs as root, whom mosquitto would leave for a user that cannot read the folder.
fn unsafe_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}

fn rules(version: Version, setup: Setup) {
    if lacks_mosquitto("rules", version, setup) {
        return;
    }
    let folder = Folder::new("rules");
    let users = shown(&folder.path("users"));
    for name in ["anna", "bob", "chief"] {
        let create = if name == "anna" { "-c" } else { "-b" };
        passwd_succeeds(
            &[create, "-b", "-H", "sha512", &users, name, "pw"][usize::from(name != "anna")..],
            "",
        );
    }
    let acl = folder.write(
        "acl",
        "user chief\ntopic #\nuser anna\ntopic read car/1/#\ntopic deny car/1/secret\n\
         topic write car/1/speed\npattern read inbox/%u\n",
    );
    let denied = if version.is_v5() {
        "silence"
    } else {
        "disconnect"
    };
    let broker = broker(
        setup,
        &folder,
        &format!(
            "[auth]\npassword_file = '{users}'\nacl_file = '{}'\ndenied_publish = '{denied}'\n",
            acl.display()
        ),
    );
    let shell = Shell {
        broker: &broker,
        version,
    };
    let (anna, bob, chief) = (("anna", "pw"), ("bob", "pw"), ("chief", "pw"));
    for topic in [
        "car/1/speed",
        "car/1/secret",
        "car/2/speed",
        "inbox/anna",
        "inbox/bob",
    ] {
        shell.publish(chief, topic, "x");
    }
    // A filter that reaches further than the rules brings what they allow and nothing else.
    let seen = shell.retained(anna, "#", "car/1/speed");
    assert_eq!(seen, ["car/1/speed x", "inbox/anna x"]);
    assert_eq!(shell.retained(bob, "inbox/+", "inbox/bob"), ["inbox/bob x"]);
    shell.publish(anna, "car/1/speed", "y");
    assert_eq!(
        shell.retained(chief, "car/1/speed", "car/1/speed"),
        ["car/1/speed y"]
    );
    // What may not be published reaches nobody; who cannot be told is cut off here.
    let mut command = shell.command("mosquitto_pub", Some(anna));
    let output = command
        .args(["-t", "car/2/speed", "-m", "forged", "-q", "1", "-r", "-d"])
        .output()
        .expect("mosquitto_pub runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if version.is_v5() {
        assert!(
            said.contains("Not authorized") || said.contains("RC:135"),
            "{said}"
        );
    }
    assert_eq!(
        shell.retained(chief, "car/2/speed", "car/2/speed"),
        ["car/2/speed x"]
    );
    // A subscription that could bring nothing is refused.
    let refused = shell
        .command("mosquitto_sub", Some(bob))
        .args(["-t", "car/#", "-W", "5"])
        .output()
        .expect("mosquitto_sub runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("denied") || !refused.status.success(),
        "{refused:?}"
    );
    // Rules that are changed hold from SIGHUP on.
    fs::write(&acl, "user chief\ntopic #\nuser anna\ntopic read car/#\n")
        .expect("it can be written");
    broker.signal("HUP");
    let deadline = Instant::now() + RELOAD;
    while !broker.log().contains("in force") {
        assert!(Instant::now() < deadline, "{}", broker.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = shell.retained(anna, "#", "car/1/speed");
    assert_eq!(seen, ["car/1/secret x", "car/1/speed y", "car/2/speed x"]);
    broker.stop();
}

/// An address that others reach, without a way to tell who they are.
#[test]
fn a_listener_that_would_let_nobody_in_is_refused_with_what_to_do() {
    let output = Command::new(binary())
        .args(["run", "--ephemeral", "--listen", "0.0.0.0:0"])
        .output()
        .expect("the binary runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nobody could come in"), "{said}");
    assert!(
        said.contains("--allow-anonymous") && said.contains("passwd -c"),
        "{said}"
    );
}
