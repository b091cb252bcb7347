//! What is written is read back, and the page is a page in a real browser.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shardmq-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_some() {
            return;
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_file_is_written_and_the_result_is_read_back() {
    let scratch = Scratch::new("report-files");
    let outcome = samples::failed();
    write(&outcome, &scratch.0).unwrap();
    let names: BTreeSet<String> = fs::read_dir(&scratch.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = [
        "acknowledgement.hgrm",
        "connect.hgrm",
        "corrected.hgrm",
        "intervals.hlog",
        "lag.hgrm",
        "raw.hgrm",
        "report.html",
        "result.json",
        "series.csv",
    ];
    assert_eq!(names, expected.map(str::to_owned).into());

    let read = load(&scratch.0).unwrap();
    let made = Document::new(&outcome, Host::read());
    assert!(read.to_json().unwrap() == made.to_json().unwrap());
    assert_eq!(read.histograms.corrected, outcome.corrected);
    assert_eq!(read.parameters, outcome.parameters);

    let again = Scratch::new("report-again");
    write_document(&read, &again.0).unwrap();
    for name in ["report.html", "series.csv", "raw.hgrm"] {
        let file = |directory: &Path| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(file(&again.0), file(&scratch.0), "{name}");
    }
}

#[test]
fn the_keys_of_the_result_are_those_of_format_1() {
    let json = Document::new(&samples::outcome(), Host::default())
        .to_json()
        .unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut paths = BTreeSet::new();
    collect(&value, "", &mut paths);
    let paths: Vec<String> = paths.into_iter().collect();
    samples::assert_golden("keys.txt", &(paths.join("\n") + "\n"));
}

/// The path of every value; elements of a list share one.
fn collect(value: &serde_json::Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                collect(value, &format!("{path}/{key}"), paths);
            }
        }
        serde_json::Value::Array(list) => {
            for value in list {
                collect(value, &format!("{path}[]"), paths);
            }
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {
            paths.insert(path.to_owned());
        }
    }
}

#[test]
fn a_newer_format_is_called_newer() {
    let error = Document::parse("{\"format\": 99}").unwrap_err();
    assert!(error.contains("newer"), "{error}");
    assert!(Document::parse("{}").is_err());
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = html::html(&Document::new(&samples::failed(), Host::default()));
    for word in [
        "http:", "https:", "<script", "<link", "@import", "url(", "src=",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("connection reset by &lt;peer&gt; &amp; gone"));
}

#[test]
fn a_browser_draws_the_plots() {
    let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
    else {
        println!("SKIPPED: no Chromium is installed");
        return;
    };
    let scratch = Scratch::new("report-browser");
    write(&samples::failed(), &scratch.0).unwrap();
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            scratch.0.join("profile").display()
        ))
        .arg(format!(
            "file://{}",
            scratch.0.join("report.html").display()
        ))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    for id in [
        "saturated",
        "verification-failed",
        "throughput",
        "latency",
        "acknowledgement",
        "lag",
        "cpu",
        "connections",
        "memory",
        "spectrum",
        "latencies",
        "parameters",
        "errors",
        "host",
    ] {
        assert!(
            dom.contains(&format!("id=\"{id}\"")),
            "no {id} in the page: {dom:.500}"
        );
    }
    let figures = dom.matches("<figure").count();
    assert_eq!(dom.matches("<svg").count(), figures);
    assert!(dom.matches("<path class=\"line").count() >= 2 * (figures - 1));
    assert!(!dom.contains("NaN"));
}
