//! What is said when something cannot be done.

use crate::brokers::{Then, free_port, lenient, loadgen};

#[test]
fn without_a_broker_the_error_says_where_and_how_to_start_one() {
    let port = free_port();
    let output = loadgen(port, &["-h", "127.0.0.1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!(
            "no connection to 127.0.0.1:{port}: connection refused"
        )),
        "{text}"
    );
    assert!(text.contains("shardmq run --listen"), "{text}");
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    for arguments in [
        &["run", "no-such-scenario"][..],
        &["--insecure"],
        &["--ws-path", "/mqtt"],
        &["pub", "--rate", "0"],
        &["run", "saturate", "--publishers", "3"],
    ] {
        let output = loadgen(1, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn errors_name_the_option() {
    let (port, _peers) = lenient(Then::Reads);
    for (arguments, code, part) in [
        (
            &["conn", "-c", "2", "--ifaddr", "192.0.2.7"][..],
            1,
            "192.0.2.7 cannot be connected from (--ifaddr)",
        ),
        (&["conn", "--ifaddr", "127.0.0.0/40"], 2, "--ifaddr"),
        (
            &["conn", "--sweep", "1k,2k"],
            2,
            "--sweep changes the rate of publishers, and conn has none",
        ),
        (
            &["run", "idle-5", "--find-max", "p99<1s"],
            2,
            "--find-max changes the rate",
        ),
        (
            &["pub", "--sweep", "1k", "-L", "5"],
            2,
            "--sweep needs runs of a certain length",
        ),
        (&["pub", "--sweep", "1k,no"], 2, "--sweep"),
        (&["pub", "--find-max", "p99"], 2, "--find-max"),
        (&["pub", "--assert", "p99<"], 2, "--assert"),
        (&["conn", "--cpus", "99999"], 1, "CPU 99999 cannot be used"),
        (&["conn", "--broker-pid", "4194304"], 1, "(--broker-pid)"),
        (&["conn", "-c", "900M"], 1, "ulimit -Hn"),
        (
            &["pub", "-s", "4", "--verify", "seq"],
            1,
            "--verify needs payloads of 16 bytes",
        ),
    ] {
        let output = loadgen(port, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
