//! `berth-shim start`: one bundle becomes one running container; the shim becomes its monitor.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cgroups::{self, Cgroup};
use crate::config::{Config, Process};
use crate::payload::Payload;
use crate::request::{self, Failure, Reply, StartRequest};
use crate::{fds, inheritance, places, rootfs, steps};

/// Where the monitor finds its descriptors.
const LISTENER: i32 = 3;
const STDOUT: i32 = 4;
const STDERR: i32 = 5;
/// The monitor's exit file before there is something in it, and more than will ever be.
const EXIT_FILE: &str = "exit.json.new";
const EXIT_ROOM: [u8; 256] = [b' '; 256];
/// Above the monitor's numbers, so that placing one never closes another.
const LOWEST_OWN: i32 = 10;

/// Runs; on success it does not return, the process is the monitor then.
pub fn run() -> ExitCode {
    // A session of its own: the terminal or service that the agent runs in must not take containers with it.
    // SAFETY: setsid has no memory arguments.
    unsafe { libc::setsid() };
    let request = match request::read() {
        // The agent that kept this shim ready has ended without needing it.
        Ok(bytes) if bytes.is_empty() => return ExitCode::SUCCESS,
        Ok(bytes) => bytes,
        Err(error) => return fail(Failure::system("read the request", error)),
    };
    // The folder; after a NUL the CPU shares that the task's containers have together, known only now.
    let mut parts = request.splitn(2, |byte| *byte == 0);
    let bundle = PathBuf::from(std::ffi::OsStr::from_bytes(parts.next().unwrap_or_default()));
    let task_cpu_shares = parts.next().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    match launch(&bundle, task_cpu_shares) {
        Ok(running) => running.become_monitor(),
        Err(failure) => fail(failure),
    }
}

fn fail(failure: Failure) -> ExitCode {
    request::reply(&Reply::Failed(failure));
    ExitCode::FAILURE
}

struct Running {
    pid: i32,
    at: u64,
    monitor: PathBuf,
    log_limit: u64,
    oom_file: PathBuf,
    id: String,
    listener: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// The outputs' writing ends.
struct Stdio {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn launch(bundle: &Path, task_cpu_shares: Option<u64>) -> Result<Running, Failure> {
    let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
    let text = std::fs::read(bundle.join("request.json")).map_err(system("read request.json"))?;
    let request: StartRequest = serde_json::from_slice(&text).map_err(|e| Failure::system("parse request.json", e))?;
    // The monitor's files are relative to the bundle, which keeps the socket's path below the kernel's 108 bytes.
    std::env::set_current_dir(bundle).map_err(system("enter the container's folder"))?;
    let StartRequest { id, config, hierarchies, layers, lower, no_devices, confinement, .. } = request;
    let StartRequest { user, working_directory, monitor, log_limit, oom_file, .. } = request;
    let Config { root, hostname, mounts, process, linux } = config;
    let payload = Payload::new(process, user, working_directory, &confinement)?;
    // A container that runs without its monitor is lost at once: better to say so before it runs.
    std::fs::File::open(&monitor).map_err(|e| Failure::system(&format!("open the monitor's program {}", monitor.display()), e))?;
    let config = Config { root, hostname, mounts, linux, process: Process::default() };

    let limits = &config.linux.resources;
    let cgroup = cgroups::make(&config.linux.cgroups_path, &hierarchies, limits, task_cpu_shares).map_err(system("make the cgroup"))?;
    let network = match config.linux.namespaces.iter().find(|namespace| namespace.kind == "network").and_then(|n| n.path.as_ref()) {
        Some(path) => Some(std::fs::File::open(path).map_err(|e| Failure::system(&format!("open network namespace {path}"), e))?.into()),
        None => None,
    };
    let listener = UnixListener::bind("monitor.sock").map_err(system("bind the monitor's socket"))?;
    // Takes its place on the disk before the container can fill that.
    std::fs::write(EXIT_FILE, EXIT_ROOM).map_err(system("make room for the exit file"))?;
    let (stdout, stdout_writer) = fds::pipe().map_err(system("make the stdout pipe"))?;
    let (stderr, stderr_writer) = fds::pipe().map_err(system("make the stderr pipe"))?;
    let stdio = Stdio { stdout: stdout_writer, stderr: stderr_writer };
    let (hears, reporter) = steps::channel().map_err(system("make the status pipe"))?;

    let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    fds::hide_from_others();
    // SAFETY: the shim has one thread.
    let pid = unsafe { fds::clone(kinds, cgroup.clone_target()) }.map_err(system("clone into new namespaces"))?;
    if pid == 0 {
        drop(hears);
        let inside = Inside {
            bundle,
            config: &config,
            cgroup: &cgroup,
            network,
            layers: &layers,
            lower: &lower,
            no_devices,
            working_directory: payload.working_directory(),
        };
        let failure = match inside.furnish(&stdio) {
            Ok(()) => payload.run(),
            Err(failure) => failure,
        };
        reporter.report(&failure);
        std::process::exit(1);
    }
    drop((reporter, stdio));
    let outcome = hears.outcome();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    if let Err(failure) = outcome {
        kill(pid);
        return Err(failure);
    }
    request::reply(&Reply::Started { pid, at });
    Ok(Running { pid, at, monitor, log_limit, oom_file, id, listener: listener.into(), stdout, stderr })
}

/// What the first process does before it becomes the program.
struct Inside<'a> {
    bundle: &'a Path,
    config: &'a Config,
    cgroup: &'a Cgroup,
    network: Option<OwnedFd>,
    layers: &'a Path,
    lower: &'a [String],
    no_devices: bool,
    working_directory: &'a str,
}

impl Inside<'_> {
    fn furnish(&self, stdio: &Stdio) -> Result<(), Failure> {
        let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
        inheritance::die_with_parent(true);
        inheritance::shed().map_err(system("make a session keyring"))?;
        // SAFETY: no memory arguments.
        unsafe { libc::setsid() };
        self.cgroup.enter().map_err(system("enter the cgroup"))?;
        if let Some(network) = &self.network {
            fds::setns(network, libc::CLONE_NEWNET).map_err(system("join the network namespace"))?;
        }
        if self.cgroup.clone_target().is_some() {
            // Only now is the cgroup that it shall see as its root its own.
            // SAFETY: no memory arguments.
            fds::check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }).map_err(system("make a cgroup namespace"))?;
        }
        let name = self.config.hostname.as_bytes();
        // SAFETY: `name` is valid for its length.
        fds::check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map_err(system("set the host name"))?;
        let target = Path::new(&self.config.root.path);
        let root = rootfs::overlay(self.bundle, target, self.layers, self.lower, self.no_devices)?;
        rootfs::furnish(&root, self.config, self.cgroup)?;
        // Now, while the root is writable; what goes wrong is said when the payload enters it.
        let _ = places::ensure_folder(&root, self.working_directory);
        rootfs::pivot(&root).map_err(system("enter the root file system"))?;
        drop(root);
        rootfs::set_sysctls(self.config)?;
        // The container's own: through the machine's it could change the rights of a file outside.
        let null = fds::open_null().map_err(system("open /dev/null"))?;
        for (fd, place) in [(null.as_raw_fd(), 0), (stdio.stdout.as_raw_fd(), 1), (stdio.stderr.as_raw_fd(), 2)] {
            fds::place(fd, place).map_err(system("set up stdio"))?;
        }
        rootfs::seal(self.config)
    }
}

fn kill(pid: i32) {
    // SAFETY: `pid` is an unreaped child of this process, so the number cannot have been given to another.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

impl Running {
    /// Replaces the shim by the monitor: same process, so the container stays its child and can be reaped.
    fn become_monitor(self) -> ExitCode {
        if self.arrange().is_ok() {
            let arguments = [
                self.monitor.as_os_str().as_bytes().to_vec(),
                self.pid.to_string().into_bytes(),
                self.at.to_string().into_bytes(),
                self.log_limit.to_string().into_bytes(),
                self.oom_file.as_os_str().as_bytes().to_vec(),
                self.id.clone().into_bytes(),
            ];
            let arguments: Vec<CString> = arguments.into_iter().filter_map(|argument| CString::new(argument).ok()).collect();
            let view: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect();
            let nothing = [std::ptr::null()];
            // SAFETY: both are NULL-terminated and their strings outlive the call, which returns only on failure.
            unsafe { libc::execve(view[0], view.as_ptr(), nothing.as_ptr()) };
        }
        // Without a monitor nobody would drain its output or reap it: a container that cannot be looked after must not run.
        kill(self.pid);
        ExitCode::FAILURE
    }

    fn arrange(&self) -> std::io::Result<()> {
        let lifted = [&self.listener, &self.stdout, &self.stderr].map(|fd| fds::lift(fd, LOWEST_OWN));
        let null = fds::lift(&std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into(), LOWEST_OWN)?;
        for (fd, to) in lifted.into_iter().zip([LISTENER, STDOUT, STDERR]) {
            fds::place(fd?.as_raw_fd(), to)?;
        }
        for fd in 0..3 {
            // The agent's socket ends here: the monitor must hold nothing of the agent's.
            fds::place(null.as_raw_fd(), fd)?;
        }
        // Nor anything that the agent itself had inherited.
        fds::close_on_exec_from(STDERR + 1)
    }
}
