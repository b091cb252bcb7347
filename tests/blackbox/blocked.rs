//! Where io_uring is not to be had: a seccomp filter answers for the kernel, as the profiles of
//! containers do.
#![expect(
    unsafe_code,
    reason = "only a system call between fork and exec installs a seccomp filter"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::Version;
use crate::broker::{Broker, Setup, binary, free_port};
use crate::raw;

/// Makes io_uring_setup fail with `errno` in the process that `command` starts.
fn block_io_uring(command: &mut Command, errno: i32) {
    // SAFETY: between fork and exec the closure makes system calls and nothing else: no allocation, no
    // lock.
    unsafe { command.pre_exec(move || install_filter(errno)) };
}

fn install_filter(errno: i32) -> io::Result<()> {
    // The constants of the kernel are small; `as` is what its headers do with them.
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        // The number of the system call is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_setup as u32,
            )
        },
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` and the array that it points to live until the call returns, which copies them.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if filtered != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the machine itself switches io_uring off: then it names that, whatever a filter adds.
fn is_disabled() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .is_ok_and(|value| value.trim() != "0")
}

/// What the broker says of io_uring behind either answer.
const ANSWERS: [(i32, &str, &str); 2] = [
    (
        libc::EPERM,
        "io_uring is forbidden here by a security policy (seccomp)",
        "a security policy refuses the system call",
    ),
    (libc::ENOSYS, "has no io_uring", "hides it. Fix:"),
];

#[test]
fn auto_falls_back_to_epoll_and_serves() {
    if std::env::var_os("BLACKBOX_BROKER").is_some() || is_disabled() {
        return;
    }
    for (errno, in_short, _) in ANSWERS {
        for shards in [1, 2] {
            let auto = Setup {
                driver: "auto",
                shards,
            };
            let broker = Broker::start_with(auto, |command| block_io_uring(command, errno));
            for version in Version::BOTH {
                raw::serves(&broker, version);
            }
            let log = broker.log();
            let banner = log
                .lines()
                .find_map(|line| line.strip_prefix("  driver     "));
            assert!(
                banner.is_some_and(|line| line.starts_with("epoll: ") && line.contains(in_short)),
                "{log}"
            );
            let line = log
                .lines()
                .find(|line| line.contains("io_uring is not used"));
            assert!(
                line.is_some_and(|line| line.contains("WARN") && line.contains("Fix:")),
                "the log says it, with what to do: {log}"
            );
            broker.stop();
        }
    }
}

#[test]
fn io_uring_that_is_asked_for_is_not_replaced() {
    if std::env::var_os("BLACKBOX_BROKER").is_some() || is_disabled() {
        return;
    }
    for (errno, _, cause) in ANSWERS {
        let mut command = Command::new(binary());
        let address = format!("127.0.0.1:{}", free_port());
        command
            .args(["run", "--ephemeral", "--driver", "io_uring"])
            .args(["--listen", &address]);
        block_io_uring(&mut command, errno);
        let output = command.output().expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(cause), "{text}");
        assert!(text.contains("--driver epoll"), "{text}");
    }
}

#[test]
fn epoll_makes_no_use_of_io_uring() {
    if std::env::var_os("BLACKBOX_BROKER").is_some() {
        return;
    }
    let broker = Broker::start(Setup::EPOLL);
    raw::serves(&broker, Version::V5);
    let folder = format!("/proc/{}/fd", broker.pid());
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("our own child")
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|path| path.display().to_string())
        .collect();
    assert!(
        files.iter().any(|file| file.contains("[eventpoll]")),
        "{files:?}"
    );
    assert!(
        !files.iter().any(|file| file.contains("[io_uring]")),
        "{files:?}"
    );
    broker.stop();
}
