//! Starts the shim from a thread whose table of file descriptors is its own and nearly empty. It decides nothing, and knows no containers.
//!
//! A process begins with a copy of the table of the thread that starts it, and closes nearly all of it when it executes. The agent's has some
//! descriptors for each container that runs, so that each start would cost the more the more containers there are: with a thousand of them
//! a seventh of what the agent does for a start.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is to be started.
struct Request {
    mode: String,
    /// In the table that all other threads have.
    stdin: RawFd,
    reply: mpsc::SyncSender<io::Result<u32>>,
}

/// The thread's other end; it ends when this is dropped.
#[derive(Debug)]
pub struct Spawner {
    requests: Mutex<mpsc::Sender<Request>>,
}

impl Spawner {
    /// Starts the thread. It keeps the program open, however long the caller does.
    ///
    /// # Errors
    /// Of the system, such as a kernel before 5.6, which does not hand descriptors from table to table. Processes can be started all the
    /// same, from any thread.
    pub fn of(program: &File) -> io::Result<Spawner> {
        let (requests, wanted) = mpsc::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        // Of the process: its first thread's table is the one that all have but this.
        let process = Process::open(std::process::id())?;
        let (program, own) = (program.as_raw_fd(), process.0.as_raw_fd());
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            let alone = step_aside(&[program, own]).and_then(|()| fetch(own, own));
            let _ = ready.send(alone.map(drop));
            while let Ok(Request { mode, stdin, reply }) = wanted.recv() {
                // Who asked waits for it.
                let _ = reply.send(fetch(own, stdin).and_then(|stdin| start(program, &mode, stdin)));
            }
        })?;
        // In this table nobody needs it any more: the thread has a copy, once it is ready.
        is_ready.recv().map_err(io::Error::other)??;
        drop(process);
        Ok(Spawner { requests: Mutex::new(requests) })
    }

    /// Starts the program with an argument and a descriptor as its stdin; returns when it executes.
    ///
    /// # Errors
    /// Of the system.
    pub fn spawn(&self, mode: &str, stdin: &OwnedFd) -> io::Result<Process> {
        let (reply, outcome) = mpsc::sync_channel(1);
        let request = Request { mode: mode.to_owned(), stdin: stdin.as_raw_fd(), reply };
        self.requests.lock().send(request).map_err(io::Error::other)?;
        Process::open(outcome.recv().map_err(io::Error::other)??)
    }
}

/// Gives the calling thread a table of its own with the standard descriptors and `kept`, under their numbers.
fn step_aside(kept: &[RawFd]) -> io::Result<()> {
    // SAFETY: no memory arguments. What this thread has open from here on no other has.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })?;
    let names = std::fs::read_dir("/proc/thread-self/fd")?.map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())));
    let open: BTreeSet<RawFd> = names.filter_map(io::Result::transpose).collect::<io::Result<_>>()?;
    for fd in open.into_iter().filter(|fd| *fd > libc::STDERR_FILENO && !kept.contains(fd)) {
        // SAFETY: nothing in this thread uses it; the other threads' table has it still. One that was of the list itself is gone already.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// A descriptor of the table that all other threads have, `process` being this one.
fn fetch(process: RawFd, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory arguments; the new descriptor belongs to nobody else.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0) })
}

fn start(program: RawFd, mode: &str, stdin: OwnedFd) -> io::Result<u32> {
    // Nothing but program and arguments: so the standard library takes posix_spawn, which does not copy the agent's memory map.
    let mut command = Command::new(format!("/proc/self/fd/{program}"));
    command.arg0("berth-shim").arg(mode).env_clear().stdin(Stdio::from(stdin)).stdout(Stdio::null()).stderr(Stdio::null());
    // Who asked waits for its end.
    Ok(command.spawn()?.id())
}

/// A child that nobody has reaped yet, or this process.
#[derive(Debug)]
pub struct Process(OwnedFd, u32);

impl Process {
    fn open(pid: u32) -> io::Result<Process> {
        // SAFETY: no memory arguments; the new descriptor belongs to nobody else.
        let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        Ok(Process(fd, pid))
    }

    /// Its number.
    pub const fn id(&self) -> u32 {
        self.1
    }

    /// Reaps it when it ends; `end` kills it before.
    pub async fn reap(self, end: impl Future<Output = bool>) {
        let Process(fd, pid) = self;
        // SAFETY: it owns the descriptor, which stays the same for as long as it lives.
        let ended = match unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) } {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, pid, "a process will not be reaped");
                return;
            }
        };
        let pid = pid.cast_signed();
        let killed = async {
            if end.await {
                // SAFETY: no memory arguments; the number is this child's until it is reaped.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        };
        tokio::select! {
            biased;
            _ = ended.readable() => {}
            () = killed => drop(ended.readable().await),
        }
        // SAFETY: an unreaped child of this process, which has ended.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check_long(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    check(fd)?;
    // SAFETY: the kernel has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// A shell with a way to it, which reads there what it is to do.
    fn shell(spawner: &Spawner) -> (UnixStream, Process) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        (ours, spawner.spawn("-s", &OwnedFd::from(theirs)).expect("it starts"))
    }

    fn spawner() -> Spawner {
        Spawner::of(&File::open("/bin/sh").expect("a shell")).expect("a thread with a table of its own")
    }

    /// How many descriptors the thread of this process has that is called so.
    fn open_in_thread(name: &str) -> usize {
        let threads = std::fs::read_dir("/proc/self/task").expect("threads").map(|thread| thread.expect("a thread").path());
        let is_it = |thread: &std::path::PathBuf| std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name);
        threads.filter(is_it).map(|thread| std::fs::read_dir(thread.join("fd")).expect("its table").count()).max().expect("the thread")
    }

    #[tokio::test]
    async fn what_the_agent_has_open_does_not_matter() {
        let before: Vec<_> = (0..100).map(|_| File::open("/dev/null").expect("a file")).collect();
        let spawner = spawner();
        let after: Vec<_> = (0..100).map(|_| File::open("/dev/null").expect("a file")).collect();
        assert!(open_in_thread("spawner") < 10, "{} descriptors", open_in_thread("spawner"));
        let (mut way, child) = shell(&spawner);
        way.write_all(b"ls /proc/$$/fd | wc -l >&0; exit\n").expect("it reads");
        let mut said = String::new();
        way.read_to_string(&mut said).expect("it answers, and nobody else holds its socket");
        let count: usize = said.trim().parse().expect("a number");
        assert!(count < 10, "{count} descriptors, and there are {}", before.len() + after.len());
        let pid = child.id();
        child.reap(std::future::pending()).await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it has ended and was not reaped");
    }

    #[tokio::test]
    async fn one_that_is_not_wanted_any_more_is_killed_and_reaped() {
        let (way, child) = shell(&spawner());
        let pid = child.id();
        tokio::time::timeout(Duration::from_secs(60), child.reap(std::future::ready(true))).await.expect("it is killed");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it was not reaped");
        drop(way);
    }

    #[tokio::test]
    async fn what_is_no_program_is_told() {
        let spawner = Spawner::of(&File::open("/dev/null").expect("a file")).expect("a thread");
        let (_ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        assert!(spawner.spawn("start", &OwnedFd::from(theirs)).is_err());
    }
}
