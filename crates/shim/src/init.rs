//! The small init of a container: passes signals on to the program, collects orphans, and ends as the program ends. It is the shim's own
//! process, confined like the program, so the image needs nothing for it.

use std::io;

use crate::fds;
use crate::payload::Prepared;
use crate::request::{Blame, Failure};

/// Begins the program as a child and is its init from then on. Returns only in the child, and only on failure.
pub fn run(prepared: Prepared, terminal: bool) -> Failure {
    // Before there is a child: no signal may get lost. A pid namespace's first process would not even be sent one that it neither handles
    // nor blocks.
    let all = block_signals();
    // SAFETY: no memory arguments; the name is a literal. Where pid namespaces are shared, orphans come here by this alone.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"berth-init".as_ptr(), 0, 0, 0);
    }
    // SAFETY: one thread: the child continues with a copy of its memory.
    match unsafe { libc::fork() } {
        -1 => Failure { blame: Blame::System, text: format!("fork for the program: {}", io::Error::last_os_error()) },
        0 => {
            lead_group(terminal);
            unblock_signals();
            prepared.execute()
        }
        program => {
            drop(prepared);
            // With them the pipe by which the program's failure would be told: it alone has that now.
            let _ = fds::close_from(libc::STDERR_FILENO + 1);
            watch(program, &all)
        }
    }
}

/// A group of its own, and the terminal's foremost: what is typed there, such as ^C, concerns the program.
fn lead_group(terminal: bool) {
    // SAFETY: no memory arguments. SIGTTOU, which a group in the background gets for this, is blocked.
    unsafe {
        libc::setpgid(0, 0);
        if terminal {
            libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp());
        }
    }
}

fn watch(program: i32, all: &libc::sigset_t) -> ! {
    loop {
        // SAFETY: the set outlives the call, and nothing is asked about the signal but its number.
        match unsafe { libc::sigwaitinfo(all, std::ptr::null_mut()) } {
            libc::SIGCHLD => {
                if let Some(code) = reap(Some(program)) {
                    // SAFETY: ends the process without anything that would look at memory again.
                    unsafe { libc::_exit(code) }
                }
            }
            // SAFETY: an unreaped child of this process.
            number if number > 0 => drop(unsafe { libc::kill(program, number) }),
            _ => {}
        }
    }
}

/// Collects all children that have ended; gives the exit code of `program` if it is among them, 128 + signal number if a signal ended it.
pub fn reap(program: Option<i32>) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` has room for what the kernel writes.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            0 | -1 => return code,
            pid if Some(pid) == program => {
                code = Some(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) });
            }
            _ => {}
        }
    }
}

/// Blocks all signals; gives their set.
pub fn block_signals() -> libc::sigset_t {
    // SAFETY: the set is made by sigfillset before it is used.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        all
    }
}

fn unblock_signals() {
    // SAFETY: the set is made by sigemptyset before it is used.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
