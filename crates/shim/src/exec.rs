//! `berth-shim exec`: runs one process inside a running container and waits for it. Ends the process when the agent hangs up.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::payload::Payload;
use crate::request::{self, ExecRequest, Failure, Reply};
use crate::{cgroups, fds, steps};

/// Runs. stdout and stderr are the process's own; stdin is the agent's socket.
pub fn run() -> ExitCode {
    // SAFETY: setsid has no memory arguments.
    unsafe { libc::setsid() };
    let outcome = request::read()
        .map_err(|e| Failure::system("read the request", e))
        .and_then(|text| serde_json::from_slice(&text).map_err(|e| Failure::system("parse the request", e)))
        .and_then(launch);
    let pid = match outcome {
        Ok(pid) => pid,
        Err(failure) => {
            request::reply(&Reply::Failed(failure));
            return ExitCode::FAILURE;
        }
    };
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    request::reply(&Reply::Started { pid, at });
    let code = wait(pid);
    request::reply(&Reply::Exited { code });
    ExitCode::SUCCESS
}

fn launch(request: ExecRequest) -> Result<i32, Failure> {
    let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
    let container = fds::pidfd(request.pid).map_err(system("open the container's process"))?;
    let cgroup = cgroups::open(&request.cgroup, &request.hierarchies).map_err(system("open the container's cgroup"))?;
    let payload = Payload::new(request.process, request.user, request.working_directory, &request.confinement)?;
    let null = std::fs::File::open("/dev/null").map_err(system("open /dev/null"))?;
    let (listener, reporter) = steps::channel().map_err(system("make the status pipe"))?;
    // Holds for children only: this process stays outside, the next one is born inside.
    fds::setns(&container, libc::CLONE_NEWPID).map_err(system("join the container's pid namespace"))?;
    // SAFETY: the shim has one thread.
    let pid = unsafe { fds::clone(0, cgroup.clone_target()) }.map_err(system("clone"))?;
    if pid == 0 {
        drop(listener);
        reporter.report(&become_payload(&container, &cgroup, &null, payload));
        std::process::exit(1);
    }
    drop(reporter);
    match listener.outcome() {
        Ok(()) => Ok(pid),
        Err(failure) => {
            // SAFETY: an unreaped child of this process.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Err(failure)
        }
    }
}

/// Runs in the new process; returns only on failure.
fn become_payload(container: &OwnedFd, cgroup: &cgroups::Cgroup, null: &std::fs::File, payload: Payload) -> Failure {
    let steps = || -> Result<(), Failure> {
        let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
        // The container's processes must not look into this one, or at its program, before it is theirs (CVE-2016-9962).
        // SAFETY: no memory arguments.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        // SAFETY: no memory arguments.
        unsafe { libc::setsid() };
        cgroup.enter().map_err(system("enter the container's cgroup"))?;
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
        let kinds = if cgroup.clone_target().is_some() { kinds | libc::CLONE_NEWCGROUP } else { kinds };
        fds::setns(container, kinds).map_err(system("join the container's namespaces"))?;
        fds::place(null.as_raw_fd(), 0).map_err(system("give it an empty stdin"))
    };
    match steps() {
        Ok(()) => payload.run(),
        Err(failure) => failure,
    }
}

/// Waits for the child; kills it when the agent's side of the socket closes.
fn wait(pid: i32) -> i32 {
    if let Ok(pidfd) = fds::pidfd(pid) {
        let mut watched = [
            libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            // Only a hang-up counts; the agent has already shut its sending side.
            libc::pollfd { fd: 0, events: 0, revents: 0 },
        ];
        while watched[0].revents == 0 {
            // SAFETY: `watched` is valid for its length.
            let ready = fds::check(unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) });
            if ready.is_ok() && watched[1].revents != 0 {
                // SAFETY: an unreaped child of this process.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                watched[1].fd = -1;
            }
        }
    }
    let mut status = 0;
    // SAFETY: `status` has room for what the kernel writes.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}
