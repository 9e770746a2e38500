//! What a process gets from its parent without anybody asking, and a container's must not get from the agent: signals that are
//! ignored or blocked, the file mode mask, the rank among the kernel's victims, keys.

use std::io;

use crate::fds;

/// runc's, whatever the agent's own is.
const UMASK: libc::mode_t = 0o022;

const HIGHEST_SIGNAL: i32 = 64;

/// For the shim itself: children whose end an agent's parent ignored could not be waited for. SIGPIPE stays ignored, as Rust's
/// runtime has it: an agent that is gone when it is answered must not take the container with it.
pub fn expect_children() {
    // SAFETY: sets the default, no handler is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Signals as a program expects to find them. Rust's runtime ignores SIGPIPE, and a program that inherits that runs on for ever
/// behind a closed pipe (`yes | head`); `nohup` ignores SIGHUP.
fn reset_signals() {
    // By system call: the C library keeps two of them from being set, which may be ignored all the same. All zero is the default.
    let action = [0u64; 8];
    const SET_SIZE: usize = 8;
    // SAFETY: `action` is larger than the kernel's structure on any machine; no handler is involved. The set is made by
    // sigemptyset before it is used.
    unsafe {
        for number in 1..=HIGHEST_SIGNAL {
            // Refused for SIGKILL and SIGSTOP.
            libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), std::ptr::null::<u64>(), SET_SIZE);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// To be called by a new process before anything else, while it still sees the machine's /proc.
pub fn shed() -> io::Result<()> {
    reset_signals();
    // SAFETY: no memory arguments.
    unsafe { libc::umask(UMASK) };
    // Docker's default. An agent that the kernel shall spare must not pass that on; where the agent itself may not lower its
    // rank back to this, the container stays with the agent's.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    new_session_keyring()
}

/// The agent's session keyring may hold what unlocks the machine's disks. A kernel without keys has none to give.
fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: no name is given, which makes a new one.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match fds::check(result as i32) {
        // EPERM: the agent is itself in a container that may not use keys (Docker's profile), and so has none that matter.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        result => result.map(drop),
    }
}

/// Has the kernel kill this process if its parent dies: a half-made container must not go on without the shim.
pub fn die_with_parent(yes: bool) {
    let signal = if yes { libc::SIGKILL } else { 0 };
    // SAFETY: no memory arguments.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) };
}
