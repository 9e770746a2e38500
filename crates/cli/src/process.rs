//! Another process of this machine, held so that its number cannot come to mean a different one. It must never signal a
//! process that was not shown to be Berth.

use std::io;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::{os::fd::OwnedFd, time::SystemTime};

/// A running process.
#[cfg(target_os = "linux")]
pub(crate) struct Process {
    pid: i32,
    handle: OwnedFd,
}

#[cfg(target_os = "linux")]
impl Process {
    /// Holds a process; `None` if there is none of that number.
    pub fn hold(pid: i32) -> io::Result<Option<Self>> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        // 1 is init; 0 and below mean groups of processes.
        let Some(number) = (pid > 1).then(|| Pid::from_raw(pid)).flatten() else { return Ok(None) };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(Self { pid, handle }).filter(|process| !process.has_ended())),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether this is the Berth that wrote a data directory's `endpoint.json`: its command line is `berth up` or `berth server`,
    /// and either it was there before the file was written, or it has a file of that directory open. The first fails
    /// where the clock was set since, the second where the state is kept elsewhere; for a foreign process both fail.
    pub fn is_berth_of(&self, data_dir: &Path, endpoint_written: SystemTime) -> bool {
        self.runs_a_server() && (self.is_older_than(endpoint_written) || self.has_open_files_in(data_dir))
    }

    /// Asks for the end of all tasks and of the process itself.
    pub fn ask_to_stop_all(&self) -> io::Result<()> {
        use rustix::process::{Signal, pidfd_send_signal};
        match pidfd_send_signal(&self.handle, Signal::USR1) {
            // It has just ended by itself.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is gone.
    pub fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
        matches!(poll(&mut handle, Some(&Timespec::default())), Ok(ready) if ready > 0)
    }

    fn runs_a_server(&self) -> bool {
        let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", self.pid)) else { return false };
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        let program = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        program.starts_with(b"berth") && words.any(|word| word == b"up" || word == b"server")
    }

    fn is_older_than(&self, moment: SystemTime) -> bool {
        let Some(started) = self.started() else { return false };
        let moment = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // The kernel's boot time is cut to whole seconds and may be one off.
        started <= moment + 2
    }

    /// When it was started, in Unix seconds.
    fn started(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name in parentheses may hold anything, so count from behind it: field 22 of proc_pid_stat(5) is the 20th there.
        let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let kernel = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: u64 = kernel.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + ticks / rustix::param::clock_ticks_per_second())
    }

    fn has_open_files_in(&self, data_dir: &Path) -> bool {
        let Ok(data_dir) = data_dir.canonicalize() else { return false };
        let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return false };
        open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target.starts_with(&data_dir))
    }
}

/// A running process; elsewhere than on Linux there is no way to hold one.
#[cfg(not(target_os = "linux"))]
pub(crate) enum Process {}

#[cfg(not(target_os = "linux"))]
impl Process {
    pub fn hold(_: i32) -> io::Result<Option<Self>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no process handles"))
    }

    pub fn is_berth_of(&self, _: &Path, _: std::time::SystemTime) -> bool {
        match *self {}
    }

    pub fn ask_to_stop_all(&self) -> io::Result<()> {
        match *self {}
    }

    pub fn has_ended(&self) -> bool {
        match *self {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process that does nothing under a name of our choice, until it is killed. With its own name as an argument of
    /// the shell it says on stdout when it has become what it should be.
    fn process(name: &str, role: &str) -> (Killed, Process) {
        process_with_errors_in(Stdio::null(), name, role)
    }

    fn process_with_errors_in(errors: Stdio, name: &str, role: &str) -> (Killed, Process) {
        use std::io::Read;
        let mut child = Command::new("sh");
        child.arg0(name).args(["-c", "echo; read line", role]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = child.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let process = Process::hold(child.id() as i32).unwrap().unwrap();
        (Killed(child), process)
    }

    #[test]
    fn only_berths_own_server_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        for (name, role, expected) in
            [("berth", "up", true), ("/usr/bin/berth", "server", true), ("berth", "agent", false), ("postgres", "up", false)]
        {
            let (_child, process) = process(name, role);
            assert_eq!(process.is_berth_of(folder.path(), later), expected, "{name} {role}");
        }
    }

    #[test]
    fn a_berth_younger_than_the_file_is_another_one() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = std::fs::File::create(state.path().join("log")).unwrap();
        let (_child, process) = process_with_errors_in(log.into(), "berth", "up");
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert!(!process.is_berth_of(folder.path(), before));
        assert!(process.is_berth_of(state.path(), before), "a file below the directory is open");
    }

    #[test]
    fn the_end_is_seen() {
        let (mut child, process) = process("berth", "up");
        assert!(!process.has_ended());
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        assert!(process.has_ended());
        process.ask_to_stop_all().unwrap();
        for nobody in [0, -1, 1, i32::MAX] {
            assert!(Process::hold(nobody).unwrap().is_none());
        }
    }
}
