//! How a container ended, and the file that outlives the monitor.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// The exit file, and what it is called until there is something in it.
const FILE: &str = "exit.json";
const UNFINISHED: &str = "exit.json.new";

/// Room on the disk for the exit file. The shim has filled it with spaces, which mean nothing around JSON, while there was some:
/// containers end of full disks, and just then it must not be lost how.
pub struct Room(Option<File>);

impl Room {
    /// Finds it.
    pub fn find() -> Room {
        Room(File::options().write(true).open(UNFINISHED).ok())
    }
}

/// The end.
pub struct Exit {
    code: i32,
    signal: i32,
    oom: bool,
    at: Duration,
}

impl Exit {
    /// Reaps the container, which must have ended.
    pub fn reap(pid: i32, oom_file: &str, at: Duration) -> Exit {
        let mut status = 0;
        // SAFETY: `status` has room for what the kernel writes.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        let signal = if reaped == pid && libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
        let code = match (reaped == pid, signal) {
            (false, _) => 255,
            (true, 0) => libc::WEXITSTATUS(status),
            (true, signal) => 128 + signal,
        };
        Exit { code, signal, oom: killed_for_memory(oom_file), at }
    }

    /// One line of JSON, as it stands in the exit file and goes to waiting clients.
    pub fn line(&self) -> String {
        format!("{{\"code\":{},\"signal\":{},\"oom\":{},\"at\":{}}}\n", self.code, self.signal, self.oom, self.at.as_nanos())
    }

    /// Writes the exit file; a reader sees all of it or none.
    pub fn record(&self, room: Room) {
        let line = self.line();
        let written = match room.0 {
            Some(file) => file.write_all_at(line.as_bytes(), 0),
            None => std::fs::write(UNFINISHED, line),
        };
        if written.is_ok() {
            let _ = std::fs::rename(UNFINISHED, FILE);
        }
    }
}

/// Both cgroup v1's memory.oom_control and v2's memory.events have the line `oom_kill N`.
fn killed_for_memory(file: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
}
