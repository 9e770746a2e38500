//! The monitor's one loop: the container's end, its two output pipes, the socket and its clients.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clients::{Clients, MAX_CLIENTS};
use crate::exit::{Exit, Room};
use crate::log::{Log, Stream};
use crate::members;

/// Descriptors as `berth-shim` leaves them.
const LISTENER: i32 = 3;
const STDOUT: i32 = 4;
const STDERR: i32 = 5;

/// Fixed entries of the poll set, before the clients'.
const FIXED: usize = 4;

/// Watches until the container has ended and everybody has been told.
pub fn run(pid: i32, at: u64, limit: u64, oom_file: &str, members: &str) -> ExitCode {
    // A client that hangs up while it is answered must not end the monitor.
    // SAFETY: sets a disposition, no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // SAFETY: pidfd_open has no memory arguments; the container is an unreaped child.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
    for fd in [LISTENER, STDOUT, STDERR] {
        set_nonblocking(fd);
    }
    let mut log = Log::open(limit);
    let room = Room::find();
    let mut streams = [Stream::new(STDOUT, "stdout"), Stream::new(STDERR, "stderr")];
    let mut clients = Clients::new(LISTENER, format!("running {pid} {at}\n"));
    let mut watched = Vec::with_capacity(FIXED + MAX_CLIENTS);

    loop {
        watched.clear();
        watched.push(entry(pidfd, true));
        watched.push(entry(streams[0].fd(), streams[0].is_open()));
        watched.push(entry(streams[1].fd(), streams[1].is_open()));
        watched.push(entry(LISTENER, clients.has_room()));
        clients.watch(&mut watched);
        // SAFETY: `watched` is valid for its length.
        if unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) } < 0 {
            continue;
        }
        for (stream, polled) in streams.iter_mut().zip(&watched[1..3]) {
            if polled.revents != 0 {
                stream.copy(&mut log, &now());
            }
        }
        log.flush();
        clients.serve(&watched[FIXED..], pidfd);
        if watched[3].revents != 0 {
            clients.accept();
        }
        if watched[0].revents != 0 {
            break;
        }
    }

    // The first process of a pid namespace is the last to end; others' processes are ended here. So none of them write any more: what is
    // in the pipes is all.
    members::end(members, pid);
    for stream in &mut streams {
        stream.finish(&mut log, &now());
    }
    log.flush();
    let exit = Exit::reap(pid, oom_file, now());
    exit.record(room);
    clients.tell(&exit.line());
    let _ = std::fs::remove_file("monitor.sock");
    ExitCode::SUCCESS
}

fn entry(fd: i32, wanted: bool) -> libc::pollfd {
    // A negative descriptor makes poll skip the entry.
    libc::pollfd { fd: if wanted { fd } else { -1 }, events: libc::POLLIN, revents: 0 }
}

fn set_nonblocking(fd: i32) {
    // SAFETY: plain fcntl on descriptor numbers.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
