//! Takes from a process what a machine may lack.
#![expect(
    unsafe_code,
    reason = "only system calls install a filter and change a user"
)]

use std::fs::File;

/// Makes io_uring_setup fail with `errno` in this thread and the threads it starts, as the profiles of
/// containers do.
pub(crate) fn block_io_uring(errno: u64) {
    let errno = u32::try_from(errno).unwrap();
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let mut program = [
        // The number of the system call is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes integers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0);
    // SAFETY: `program` and the array that it points to live until the call returns, which copies them.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(filtered, 0);
}

/// Limits what may be locked into memory, for good, and gives up the privileges of root, if this is
/// root, because they would pass over it.
pub(crate) fn become_nobody_with_locked_memory(bytes: u64) {
    const NOBODY: u32 = 65_534;
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the call reads one `rlimit` and keeps no pointer.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    assert_eq!(limited, 0);
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    // SAFETY: an empty list, of which nothing is read.
    let groups = unsafe { libc::setgroups(0, std::ptr::null()) };
    assert_eq!(groups, 0);
    // SAFETY: takes integers only.
    let group = unsafe { libc::setgid(NOBODY) };
    assert_eq!(group, 0);
    // SAFETY: takes an integer only; the C library changes all threads.
    let user = unsafe { libc::setuid(NOBODY) };
    assert_eq!(user, 0);
}

/// Opens files until only `spare` more can be opened, and limits the process to that.
pub(crate) fn leave_descriptors(spare: u64) {
    let highest = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok())
        .max()
        .unwrap();
    let limit = libc::rlimit {
        rlim_cur: highest + 1 + spare,
        rlim_max: highest + 1 + spare,
    };
    // SAFETY: the call reads one `rlimit` and keeps no pointer.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(limited, 0);
    // Numbers below the limit that are free would be more than `spare`.
    let mut fillers: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    let kept = fillers
        .len()
        .saturating_sub(usize::try_from(spare).unwrap());
    fillers.truncate(kept);
    // They stay open as long as the process.
    Box::leak(fillers.into_boxed_slice());
}
