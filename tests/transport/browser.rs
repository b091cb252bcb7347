//! A page in a real browser: MQTT.js from npm in Chromium, over ws and wss. The test serves the page and is
//! told by it how it went.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::broker::{Broker, poll_within};
use crate::{RUNS, install, skipped};

/// How long a browser may take for all of it; it takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(150);

/// Ends the browser with the test.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_page_in_chromium_talks_over_ws_and_wss() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let there = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(chromium) = names.iter().find(there) else {
        return skipped("Chromium", "it is not installed");
    };
    let script = match install::mqttjs() {
        Ok(modules) => std::fs::read(modules.join("mqtt/dist/mqtt.min.js")).unwrap(),
        Err(reason) => return skipped("MQTT.js in Chromium", &reason),
    };
    let page = include_bytes!("../clients/browser/page.html");
    for run in RUNS {
        let broker = Broker::start(run, "");
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let mut address = format!("http://{}/?", server.local_addr().unwrap());
        for scheme in ["ws", "wss"] {
            let port = broker.address(scheme).port();
            address += &format!("url={scheme}://localhost:{port}/mqtt&");
        }
        let profile = broker.folder.join("profile");
        let mut browser = Browser(
            Command::new(chromium)
                .args([
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--no-first-run",
                ])
                // Its own trust store does not know the authority of this test.
                .arg("--ignore-certificate-errors")
                .arg(format!("--user-data-dir={}", profile.display()))
                .arg("--remote-debugging-port=0")
                .arg(&address)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let report = poll_within(PATIENCE, || {
            assert_eq!(browser.0.try_wait().unwrap(), None, "the browser ended");
            let (stream, _) = server.accept().ok()?;
            serve(stream, page, &script)
        });
        let report = report.expect("the page reports in time");
        println!("{report}");
        let passed = report
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count();
        assert_eq!((passed, report.lines().count()), (6, 6), "{report}");
        drop(browser);
        broker.stop();
    }
}

/// Answers one request; returns the report if it is one.
fn serve(stream: TcpStream, page: &[u8], script: &[u8]) -> Option<String> {
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None; // A connection that the browser opens in advance.
        }
    }
    let mut report = None;
    let (kind, body): (&str, &[u8]) = match head.split(' ').nth(1)? {
        path if path.starts_with("/?") => ("text/html", page),
        "/mqtt.js" => ("text/javascript", script),
        "/report" => {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length:").nth(1)?.lines().next()?;
            let mut text = vec![0; length.trim().parse().ok()?];
            reader.read_exact(&mut text).ok()?;
            report = Some(String::from_utf8_lossy(&text).into_owned());
            ("text/plain", b"")
        }
        _ => ("text/plain", b""),
    };
    let mut stream = reader.into_inner();
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(body);
    report
}
