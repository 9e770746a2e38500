//! The monitor where things go wrong around it: a full disk, and somebody who writes for ever.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bench::{Container, can, parent_of};

/// Runs in a thread with mounts of its own, which are gone with it and its containers.
fn with_own_mounts(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: no memory arguments but literals; the thread's own view of the file system changes, nobody else's.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()), 0);
        }
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mount_small_disk(at: &std::path::Path, size: &std::ffi::CStr) {
    let at = std::ffi::CString::new(at.as_os_str().as_encoded_bytes()).expect("a plain path");
    // SAFETY: all strings are NUL-terminated and outlive the call.
    let result = unsafe { libc::mount(c"tmpfs".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), 0, size.as_ptr().cast()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_full_disk_loses_output_but_not_the_exit_code() {
    if !can("a full disk") {
        return;
    }
    with_own_mounts(|| {
        let script = "dd if=/dev/zero of=/fill bs=4k; yes 0123456789012345678901234567890123456789 | head -n 20000; exit 7";
        let mut container = Container::of(script);
        mount_small_disk(&container.folder, c"size=512k");
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(container.folder.join(name)).expect("the folder can be made");
        }
        container.start();
        assert_eq!(container.exit(), 7);
        let log = std::fs::read_to_string(container.folder.join("output.log")).expect("there is a log");
        for line in log.lines() {
            let fields: Vec<&str> = line.splitn(4, ' ').collect();
            assert!(fields.len() == 4 && fields[0].ends_with('Z') && fields[1] == "stdout", "{line:?}");
        }
        assert!(log.is_empty() || log.ends_with('\n'), "the last record is whole");
    });
}

/// A pipe can be handed out of a container through a volume, to somebody who outlives it.
#[test]
fn a_writer_that_stays_does_not_keep_the_end_from_being_told() {
    if !can("a writer outside") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    let pid = container.start();
    container.until_said("ready");
    let mut pipe = std::fs::File::options().write(true).open(format!("/proc/{pid}/fd/1")).expect("its stdout can be opened");
    // As much as anybody may have in one, so that there is always more.
    // SAFETY: plain fcntl on a descriptor we own.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || while !stopped.load(Ordering::Relaxed) && pipe.write_all(&[b'\n'; 65536]).is_ok() {});
    // SAFETY: the container's first process, whose parent has not reaped it.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let code = container.exit();
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    assert_eq!(code, 137);
}

/// One per container: the promise is 2 MB resident, of which nearly all is the C library's pages that all monitors share.
#[test]
fn it_stays_small() {
    if !can("the monitor's memory") {
        return;
    }
    let mut container = Container::of("yes 0123456789 | head -n 100000; echo ready; sleep 1000");
    let pid = container.start();
    container.until_said("ready");
    let status = std::fs::read_to_string(format!("/proc/{}/status", parent_of(pid))).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel counts it");
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    let (resident, own) = (field("VmRSS:"), field("RssAnon:"));
    println!("monitor: {resident} kB resident, of which {own} kB are its own");
    assert!(own <= 512, "{own} kB");
    // The shared part is the C library's and differs from machine to machine; without optimisation the program itself is 4 MB.
    assert!(cfg!(debug_assertions) || resident <= 2_560, "{resident} kB");
}

#[test]
fn an_agent_that_is_gone_when_it_is_answered_takes_nothing_with_it() {
    if !can("an agent that goes away") {
        return;
    }
    let mut container = Container::of("echo ready; exit 5");
    container.start_and_leave();
    assert_eq!(container.exit(), 5);
    assert_eq!(container.output(), "ready\n");
}
