//! The program, started with a configuration file, on ports of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::pki::{Authority, Folder};

/// How long something may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `ready` has something.
pub(crate) fn poll<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    poll_within(PATIENCE, ready).unwrap_or_else(|| panic!("{what} did not come"))
}

/// The same, for so long at most.
pub(crate) fn poll_within<T>(
    patience: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = ready();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A broker that runs. Its log is printed if the test failed.
pub(crate) struct Broker {
    child: Child,
    pub(crate) folder: Folder,
    pub(crate) authority: Authority,
}

impl Broker {
    /// Starts one with listeners on TCP, TLS, WebSocket and both, and the lines of `more`. In these
    /// `{dir}` is a folder, with `server.pem` and `server.key` in it, and `ca.pem`.
    pub(crate) fn start(run: (&str, usize), more: &str) -> Self {
        let all = "[[listener]]\nname = 'tcp'\nbind = '127.0.0.1:0'\n\
            [[listener]]\nname = 'tls'\ntype = 'tls'\nbind = '127.0.0.1:0'\n\
            certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n\
            [[listener]]\nname = 'ws'\ntype = 'ws'\nbind = '127.0.0.1:0'\n\
            [[listener]]\nname = 'wss'\ntype = 'wss'\nbind = '127.0.0.1:0'\n\
            certificate = '{dir}/server.pem'\nkey = '{dir}/server.key'\n";
        Self::start_with(run, &format!("{all}{more}"), |_, _| ())
    }

    /// Starts one with this configuration, which begins within `[net]`, once `prepare` has put its files into the folder.
    pub(crate) fn start_with(
        (driver, shards): (&str, usize),
        text: &str,
        prepare: impl FnOnce(&Folder, &Authority),
    ) -> Self {
        let folder = Folder::new();
        let authority = Authority::new("authority of a test");
        folder.write("ca.pem", &authority.pem);
        let server = authority.server(&["localhost", "127.0.0.1"]);
        server.write(&folder, "server");
        prepare(&folder, &authority);
        let text = text.replace("{dir}", folder.path().to_str().unwrap());
        let text = format!(
            "shards = {shards}\n[http]\nbind = '127.0.0.1:0'\n[net]\ndriver = '{driver}'\n{text}"
        );
        let config = folder.write("shardmq.toml", &text);
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = program();
        command
            .args(["run", "--ephemeral", "-c"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut broker = Self {
            child: command.spawn().unwrap(),
            folder,
            authority,
        };
        poll("the banner", || {
            if let Some(status) = broker.child.try_wait().unwrap() {
                panic!("the broker ended with {status}: {}", broker.log());
            }
            broker.log().contains("durability").then_some(())
        });
        broker
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Where the listener of this name listens.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let log = self.log();
        let line = log
            .lines()
            .find(|line| line.contains("listening") && line.ends_with(&format!("({name})")));
        let text = line.and_then(|line| line.split("://").nth(1));
        text.and_then(|text| text.split(' ').next())
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no listener {name}: {log}"))
    }

    pub(crate) fn authority_file(&self) -> std::path::PathBuf {
        self.folder.join("ca.pem")
    }

    /// The value of a series of `/metrics`, whose labels end with `labels`, summed over the shards.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        use std::io::{Read, Write};
        let log = self.log();
        let address = log
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let mut stream = std::net::TcpStream::connect(address.unwrap()).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: broker\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Stops it and asks for a clean end.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = poll("the end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the broker ---\n{}", self.log());
        }
    }
}

/// The program under test, with an environment that says nothing to it.
pub(crate) fn program() -> Command {
    let ours = env!("CARGO_BIN_EXE_shardmq").to_owned();
    let program = std::env::var("SHARDMQ_BIN").unwrap_or(ours);
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHARDMQ_") {
            command.env_remove(name);
        }
    }
    command
}

/// What the program says to a configuration: whether it is fine, and the text.
pub(crate) fn check(folder: &Folder, text: &str) -> (bool, String) {
    let file = folder.write("checked.toml", text);
    let output = program().arg("check-config").arg(&file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Runs a command that must end well, and returns what it printed.
pub(crate) fn output(command: &mut Command, folder: &Path) -> String {
    let output = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}
