//! `berth-shim hold`: makes the namespaces that the containers of a task share, and the process that keeps them: the first of the pid
//! namespace, which collects orphans and does nothing else. It outlives this shim and the agent; the agent kills it when the last of
//! those containers is removed.
//!
//! From inside it cannot be killed: the kernel drops signals that a pid namespace's members send to its first process. If it dies all the
//! same, by a hand outside or for want of memory, all processes of the pid namespace are killed with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::idmap::Ids;
use crate::request::{self, Failure, Reply};
use crate::{capabilities, fds, idmap, inheritance, init, rootfs, shared, steps};

/// The file in the task's folder that says which process it is: its number and when it began.
const FILE: &str = "holder";

/// Docker's size of shared memory; containers that ask for more make it grow.
const SHM_OPTIONS: &std::ffi::CStr = c"mode=1777,size=64m";

/// Runs; the request is the task's folder, and after a NUL, where the task has ids of its own, the first and how many.
pub fn run() -> ExitCode {
    // SAFETY: setsid has no memory arguments.
    unsafe { libc::setsid() };
    match request::read().map_err(|e| Failure::system("read the request", e)).and_then(|request| asked(&request)) {
        Ok(pid) => {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
            request::reply(&Reply::Started { pid, at });
            ExitCode::SUCCESS
        }
        Err(failure) => {
            request::reply(&Reply::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn asked(request: &[u8]) -> Result<i32, Failure> {
    let mut parts = request.splitn(2, |byte| *byte == 0);
    let folder = PathBuf::from(std::ffi::OsStr::from_bytes(parts.next().unwrap_or_default()));
    let ids = match parts.next() {
        None => None,
        Some(text) => Some(idmap::parse(text).ok_or_else(|| Failure::system("read the request", "its ids cannot be read"))?),
    };
    launch(&folder, ids)
}

fn launch(folder: &Path, ids: Option<Ids>) -> Result<i32, Failure> {
    let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
    let users = ids.map(Ids::namespace).transpose().map_err(system("make a user namespace"))?;
    let (hears, reporter) = steps::channel().map_err(system("make the status pipe"))?;
    let (waits, releases) = fds::pipe().map_err(system("make the pipe for its release"))?;
    fds::hide_from_others();
    let kinds = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWNS;
    // SAFETY: the shim has one thread.
    let pid = unsafe { fds::clone(kinds, None) }.map_err(system("clone into new namespaces"))?;
    if pid == 0 {
        drop((hears, releases));
        if let Err(failure) = furnish(folder, users) {
            reporter.report(&failure);
            std::process::exit(1);
        }
        // From here on the pipe says whether the shim lives: it may end right after it has released this process.
        inheritance::die_with_parent(false);
        drop(reporter);
        // Nobody would find one whose number was never written down: it ends with the shim that should have.
        if !matches!(File::from(waits).read(&mut [0]), Ok(1)) {
            std::process::exit(1);
        }
        hold();
    }
    drop((reporter, waits));
    let settled = hears.outcome().and_then(|()| record(folder, pid).map_err(system("write down the holder")));
    if let Err(failure) = settled {
        // SAFETY: an unreaped child of this process.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        return Err(failure);
    }
    File::from(releases).write_all(b"1").map_err(system("release the holder"))?;
    Ok(pid)
}

/// A reader sees all of it or none.
fn record(folder: &Path, pid: i32) -> io::Result<()> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let began = shared::began_at(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let fresh = folder.join("holder.new");
    std::fs::write(&fresh, format!("{pid} {began}\n"))?;
    std::fs::rename(fresh, folder.join(FILE))
}

/// Makes the mounts that are copied into containers, and lets go of everything else.
fn furnish(folder: &Path, users: Option<OwnedFd>) -> Result<(), Failure> {
    let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
    inheritance::die_with_parent(true);
    inheritance::shed().map_err(system("make a session keyring"))?;
    // With it a whole task would end; the kernel finds better victims.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    let null: OwnedFd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(system("open /dev/null"))?.into();
    mount(folder).map_err(system("mount what the task shares"))?;
    for place in 0..3 {
        // The agent's socket among them.
        fds::place(null.as_raw_fd(), place).map_err(system("let go of the agent"))?;
    }
    drop(null);
    if let Some(users) = users {
        // Kept for the containers. It stays a user of the machine's, whom none of theirs may touch.
        fds::setns(&users, libc::CLONE_NEWUSER).map_err(system("join the task's user namespace"))?;
    }
    capabilities::drop_bounding(0).and_then(|()| capabilities::keep(0)).map_err(system("drop capabilities"))?;
    // SAFETY: the name is a literal.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"berth-holder".as_ptr(), 0, 0, 0) };
    Ok(())
}

fn mount(folder: &Path) -> io::Result<()> {
    // Slave, not private: when the host unmounts a disk it must not stay busy because of this.
    fds::mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_SLAVE, c"")?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let below = fds::open_place(folder, libc::O_DIRECTORY)?;
    fds::mount_onto(c"tmpfs", &below, c"tmpfs", flags, c"mode=755,size=64k")?;
    let root = fds::open_place(folder, libc::O_DIRECTORY)?;
    for (name, kind, options) in [(shared::SHM, c"tmpfs", SHM_OPTIONS), (shared::PROC, c"proc", c"")] {
        std::fs::create_dir(folder.join(name))?;
        fds::mount_onto(kind, &fds::open_place(&folder.join(name), libc::O_DIRECTORY)?, kind, flags, options)?;
    }
    rootfs::pivot(&root)
}

fn hold() -> ! {
    let all = init::block_signals();
    let _ = fds::close_from(libc::STDERR_FILENO + 1);
    loop {
        init::reap(None);
        // SAFETY: the set outlives the call, and nothing is asked about the signal but its number.
        unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    }
}
