//! Installs the foreign clients into `.clients`, once, with pinned versions.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A client that can be run, or why not.
pub(crate) type Installed = Result<PathBuf, String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python interpreter that has paho-mqtt.
pub(crate) fn paho() -> Installed {
    static ONCE: OnceLock<Installed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let pins = root().join("tests/clients/paho/requirements.txt");
        let venv = root().join(".clients/venv");
        install(&pins, &venv, |venv| {
            run(Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(venv))?;
            let pip = venv.join("bin/pip");
            run(Command::new(pip)
                .args(["install", "--quiet", "--requirement"])
                .arg(&pins))
        })?;
        Ok(venv.join("bin/python"))
    })
    .clone()
}

/// The folder `node_modules` that has MQTT.js.
pub(crate) fn mqttjs() -> Installed {
    static ONCE: OnceLock<Installed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let sources = root().join("tests/clients/mqttjs");
        let folder = root().join(".clients/node");
        install(&sources.join("package-lock.json"), &folder, |folder| {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
            for name in ["package.json", "package-lock.json"] {
                fs::copy(sources.join(name), folder.join(name))
                    .map_err(|error| error.to_string())?;
            }
            run(Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund"])
                .current_dir(folder))
        })?;
        Ok(folder.join("node_modules"))
    })
    .clone()
}

/// Debian's command line clients, if they are there: installing them is for the administrator.
pub(crate) fn mosquitto_clients() -> Installed {
    run(Command::new("sh").args(["-c", "command -v mosquitto_pub mosquitto_sub mosquitto_rr"]))
        .map(|()| PathBuf::from("mosquitto_pub"))
        .map_err(|_| "Debian's package mosquitto-clients is not installed".to_owned())
}

/// Installs into `folder` unless it was made from these very `pins`. A lock on a file keeps two
/// test processes apart; a folder without its stamp is an install that was cut off, and is redone.
fn install(
    pins: &Path,
    folder: &Path,
    work: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let clients = root().join(".clients");
    fs::create_dir_all(&clients).map_err(|error| error.to_string())?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(clients.join("lock"))
        .map_err(|error| error.to_string())?;
    File::lock(&lock).map_err(|error| error.to_string())?;
    let wanted = fs::read_to_string(pins).map_err(|error| error.to_string())?;
    let stamp = folder.join("installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|from| from == wanted) {
        return Ok(());
    }
    work(folder)?;
    fs::write(stamp, wanted).map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said
        .trim()
        .lines()
        .last()
        .unwrap_or("nothing on stderr")
        .to_owned();
    Err(format!(
        "{} ended with {}: {last}",
        command.get_program().display(),
        output.status
    ))
}
