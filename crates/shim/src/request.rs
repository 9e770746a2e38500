//! What the agent asks of the shim and what it is told: one JSON document each way over the socket that is the shim's stdin.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::path::PathBuf;

use crate::config::{Config, Process};
use crate::idmap::Ids;

/// The largest request that is read: a task definition is at most 64 KiB, and a bundle repeats it at most a few times.
const MAX_REQUEST: u64 = 4 << 20;

/// How to make a container. `berth-runtime` writes it to `request.json` in the container's folder at `create`.
#[derive(serde::Deserialize)]
pub struct StartRequest {
    /// The container's name, for people who look at the process list.
    pub id: String,
    /// The OCI configuration, complete but for what only the root file system can tell (user, groups, HOME).
    pub config: Config,
    /// Mount points of cgroup v1's hierarchies; none on version 2.
    pub hierarchies: Vec<PathBuf>,
    /// The folder that holds the layers' short links.
    pub layers: PathBuf,
    /// Short links of the layers, topmost first.
    pub lower: Vec<String>,
    /// How the payload is confined.
    pub confinement: Confinement,
    /// Device files in the image and in what the container writes do not work: nothing else would keep them in check.
    pub no_devices: bool,
    /// `user[:group]` as written in the task definition or image; empty for root.
    pub user: String,
    /// Where the program starts; made if missing. The configuration itself says `/`.
    pub working_directory: String,
    /// The monitor's program.
    pub monitor: PathBuf,
    /// Most bytes of output on disk.
    pub log_limit: u64,
    /// The cgroup file that counts OOM kills; empty if the host has none.
    pub oom_file: PathBuf,
    /// A terminal is its standard input, output and error.
    #[serde(default)]
    pub terminal: bool,
    /// Its standard input stays open.
    #[serde(default)]
    pub stdin_open: bool,
    /// A small init is its first process.
    #[serde(default)]
    pub init: bool,
    /// What it has in common with the task's other containers.
    pub shared: Option<Shared>,
    /// What its users are on the machine; the same ones if none.
    #[serde(default)]
    pub ids: Option<Ids>,
}

/// What a container has in common with the others of its task: the namespaces of the task's holder (`hold.rs`).
#[derive(serde::Deserialize)]
pub struct Shared {
    /// The file that says which process the holder is.
    pub holder: PathBuf,
    /// The pid namespace, and with it the mount `proc`.
    pub pid: bool,
    /// The ipc namespace, and with it the mount `shm`.
    pub ipc: bool,
    /// The least size of the shared memory in MiB.
    pub shared_memory_mib: u32,
}

/// How to run a process in a running container.
#[derive(serde::Deserialize)]
pub struct ExecRequest {
    /// The container's first process.
    pub pid: i32,
    /// Path of the container's cgroup.
    pub cgroup: String,
    /// Mount points of cgroup v1's hierarchies; none on version 2.
    pub hierarchies: Vec<PathBuf>,
    /// The OCI process, complete but for user, groups and HOME.
    pub process: Process,
    /// How the process is confined.
    pub confinement: Confinement,
    /// What the container's users are on the machine.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// `user[:group]`; empty for root.
    pub user: String,
    /// Where the program starts.
    pub working_directory: String,
}

/// What is taken from a process right before its program runs.
#[derive(serde::Deserialize)]
pub struct Confinement {
    /// Capabilities that stay: bit n is capability n of linux/capability.h.
    pub capabilities: u64,
    /// A compiled seccomp filter; `None` for privileged containers.
    pub seccomp: Option<PathBuf>,
    /// Programs that belong to another user give nobody that user's rights.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// The AppArmor profile that holds for the program.
    #[serde(default)]
    pub apparmor: Option<String>,
}

/// Why a request failed, by who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The specification asks for what cannot be.
    Spec,
    /// The program cannot be executed.
    Exec,
    /// The system.
    System,
}

/// A failure with its text.
#[derive(Debug, serde::Serialize)]
pub struct Failure {
    /// Who is to blame.
    pub blame: Blame,
    /// Says which step failed and how.
    pub text: String,
}

impl Failure {
    /// A failure of the system in the named step.
    pub fn system(step: &str, error: impl std::fmt::Display) -> Failure {
        Failure { blame: Blame::System, text: format!("{step}: {error}") }
    }

    /// A failure that the specification is to blame for.
    pub fn spec(text: String) -> Failure {
        Failure { blame: Blame::Spec, text }
    }
}

/// What the shim tells.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The program executes: its process id and when, in nanoseconds since 1970.
    Started {
        /// Process id in the machine's pid namespace.
        pid: i32,
        /// Nanoseconds since 1970.
        at: u64,
    },
    /// An exec'd process ended.
    Exited {
        /// Exit code, 128 + signal number if a signal ended it.
        code: i32,
    },
    /// It did not come to that.
    Failed(Failure),
}

/// Reads everything that the agent writes until it shuts its side.
pub fn read() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    stdin().take(MAX_REQUEST).read_to_end(&mut text)?;
    Ok(text)
}

/// Tells the agent. That it may be gone meanwhile is no error: the container lives on.
pub fn reply(reply: &Reply) {
    if let Ok(mut text) = serde_json::to_vec(reply) {
        text.push(b'\n');
        let _ = stdin().write_all(&text);
    }
}

/// Stdin as an unbuffered file that is not closed on drop.
fn stdin() -> StdinFile {
    // SAFETY: descriptor 0 is open for the whole life of the shim, and ManuallyDrop never closes it.
    StdinFile(ManuallyDrop::new(unsafe { File::from_raw_fd(0) }))
}

struct StdinFile(ManuallyDrop<File>);

impl Read for StdinFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for StdinFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
