//! `berth-shim exec`: runs one process inside a running container and waits for it. Ends the process when the agent hangs up.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::idmap::Mapped;
use crate::payload::{Manner, Payload, Prepared};
use crate::request::{self, ExecRequest, Failure, Reply};
use crate::{cgroups, fds, inheritance, steps};

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
    let (container, own) = find(request.pid, &request.cgroup)?;
    let cgroup = if request.hierarchies.is_empty() { &own } else { &request.cgroup };
    let cgroup = cgroups::open(cgroup, &request.hierarchies).map_err(system("open the container's cgroup"))?;
    let mapped = match request.ids {
        None => None,
        Some(ids) => Some(Rc::new(Mapped { ids, namespace: users_of(request.pid, &container)? })),
    };
    let payload = Payload::new(request.process, request.user, request.working_directory, &request.confinement, mapped)?;
    let (listener, reporter) = steps::channel().map_err(system("make the status pipe"))?;
    let (hears, tells) = fds::pipe().map_err(system("make the pipe for its number"))?;
    fds::hide_from_others();
    // SAFETY: the shim has one thread.
    let way = unsafe { fds::clone(0, cgroup.clone_target()) }.map_err(system("clone"))?;
    if way == 0 {
        drop((listener, hears));
        reporter.report(&enter(&container, &cgroup, payload, &tells));
        std::process::exit(1);
    }
    drop((reporter, tells));
    // SAFETY: an unreaped child of this process.
    unsafe { libc::waitpid(way, std::ptr::null_mut(), 0) };
    let mut number = [0; 4];
    let pid = std::fs::File::from(hears).read_exact(&mut number).map(|()| i32::from_ne_bytes(number));
    match (listener.outcome(), pid) {
        (Ok(()), Ok(pid)) => Ok(pid),
        (Ok(()), Err(_)) => Err(Failure::system("join the container", "the process ended on the way")),
        (Err(failure), pid) => {
            if let Ok(pid) = pid {
                // SAFETY: an unreaped child of this process.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
            Err(failure)
        }
    }
}

/// The container's first process, and the cgroup it is in now (a whole system in a container moves itself further down, and then
/// nobody else may be in the cgroup above). By its cgroup it is certain that the number still stands for that process and not for
/// one that was given it later, perhaps outside of any container.
fn find(pid: i32, cgroup: &str) -> Result<(OwnedFd, String), Failure> {
    let container = fds::pidfd(pid).map_err(|e| Failure::system("open the container's process", e))?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|e| Failure::system("read its cgroup", e))?;
    let own = cgroups::member_of(&text, cgroup);
    // Whoever still lives after that is who was looked at.
    if !fds::is_alive(&container) {
        return Err(Failure::system("open the container's process", "it has ended"));
    }
    let own = own.ok_or_else(|| Failure::system("open the container's process", format!("process {pid} is not the container's")))?;
    Ok((container, own))
}

/// The container's user namespace.
fn users_of(pid: i32, container: &OwnedFd) -> Result<OwnedFd, Failure> {
    let file = std::fs::File::open(format!("/proc/{pid}/ns/user")).map_err(|e| Failure::system("open its user namespace", e))?;
    // Whoever still lives after that is whose namespace this is.
    if !fds::is_alive(container) {
        return Err(Failure::system("open its user namespace", "it has ended"));
    }
    Ok(file.into())
}

/// Runs in a process between the shim and the program; returns only on failure.
///
/// It joins all of the container but its pid namespace, where nobody sees it, and gives up all that the program shall not have.
/// Only what it clones then is born among the container's processes, which may trace it from its first moment if they have
/// CAP_SYS_PTRACE: with more rights than theirs it would be a way out.
fn enter(container: &OwnedFd, cgroup: &cgroups::Cgroup, mut payload: Payload, tells: &OwnedFd) -> Failure {
    let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
    let steps = move || -> Result<Prepared, Failure> {
        inheritance::shed().map_err(system("make a session keyring"))?;
        cgroup.enter().map_err(system("enter the container's cgroup"))?;
        payload.open_profile()?;
        let kinds = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
        let kinds = kinds | libc::CLONE_NEWCGROUP;
        // The pid namespace holds for children only.
        fds::setns(container, kinds).map_err(system("join the container's namespaces"))?;
        // The container's own: through the machine's it could change the rights of a file outside.
        let null = fds::open_null().map_err(system("open the container's /dev/null"))?;
        fds::place(null.as_raw_fd(), 0).map_err(system("give it an empty stdin"))?;
        payload.prepare()
    };
    match steps() {
        Ok(prepared) => prepared.begin_inside(Manner { terminal: false, init: false }, tells),
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
