//! `berth-shim start`: one bundle becomes one running container; the shim becomes its monitor.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cgroups::{self, Cgroup};
use crate::config::{Config, Process};
use crate::idmap::Mapped;
use crate::payload::{Manner, Payload};
use crate::request::{self, Failure, Reply, StartRequest};
use crate::shared::Joined;
use crate::{fds, inheritance, places, rootfs, shared, steps, terminal, users};

/// Where the monitor finds its descriptors. The last it only keeps: the writing end of the container's input, or its terminal's inner side.
const LISTENER: i32 = 3;
const STDOUT: i32 = 4;
const STDERR: i32 = 5;
const KEPT: i32 = 6;
/// How an earlier life of the container ended.
const OLD_EXIT_FILE: &str = "exit.json";
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
    kept: Option<OwnedFd>,
    members: PathBuf,
}

/// The container's ends.
struct Stdio {
    /// `None`: nothing to read.
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// By which its terminal's outer side comes out, if it has one.
    terminal: Option<UnixStream>,
}

fn launch(bundle: &Path, task_cpu_shares: Option<u64>) -> Result<Running, Failure> {
    let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
    let text = std::fs::read(bundle.join("request.json")).map_err(system("read request.json"))?;
    let request: StartRequest = serde_json::from_slice(&text).map_err(|e| Failure::system("parse request.json", e))?;
    // The monitor's files are relative to the bundle, which keeps the socket's path below the kernel's 108 bytes.
    std::env::set_current_dir(bundle).map_err(system("enter the container's folder"))?;
    let StartRequest { id, config, hierarchies, layers, lower, no_devices, confinement, .. } = request;
    let StartRequest { user, working_directory, monitor, log_limit, oom_file, terminal, stdin_open, init, shared, ids, .. } = request;
    let manner = Manner { terminal, init };
    let Config { root, hostname, mounts, process, linux } = config;
    let joined = match &shared {
        Some(shared) => Some(shared::join(shared, bundle)?),
        None => None,
    };
    let mapped = match (ids, &joined) {
        (None, _) => None,
        // The same namespace, not only the same ids: the rights of one container's root hold for the others of its task too.
        (Some(ids), Some(joined)) => Some(Mapped { ids, namespace: joined.user.try_clone().map_err(system("copy a descriptor"))? }),
        (Some(ids), None) => Some(Mapped { ids, namespace: ids.namespace().map_err(system("make a user namespace"))? }),
    };
    let mapped = mapped.map(Rc::new);
    let mut payload = Payload::new(process, user, working_directory, &confinement, mapped.clone())?;
    // A container that runs without its monitor is lost at once: better to say so before it runs.
    std::fs::File::open(&monitor).map_err(|e| Failure::system(&format!("open the monitor's program {}", monitor.display()), e))?;
    let config = Config { root, hostname, mounts, linux, process: Process::default() };
    let is_new = |kind: &str| config.linux.namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_none());

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
    let (stdin, stdin_writer) = match stdin_open && !terminal {
        true => fds::pipe().map(|(reader, writer)| (Some(reader), Some(writer))).map_err(system("make the stdin pipe"))?,
        false => (None, None),
    };
    let (comes_out, goes_out) = UnixStream::pair().map_err(system("make the socket for the terminal"))?;
    let stdio = Stdio { stdin, stdout: stdout_writer, stderr: stderr_writer, terminal: terminal.then_some(goes_out) };
    let (hears, reporter) = steps::channel().map_err(system("make the status pipe"))?;
    let (numbers, tells) = fds::pipe().map_err(system("make the pipe for its number"))?;

    let kinds = [("pid", libc::CLONE_NEWPID), ("ipc", libc::CLONE_NEWIPC)];
    let own = kinds.iter().filter(|(kind, _)| is_new(kind)).fold(0, |all, (_, flag)| all | flag);
    fds::hide_from_others();
    // SAFETY: the shim has one thread.
    let first = unsafe { fds::clone(libc::CLONE_NEWNS | libc::CLONE_NEWUTS | own, cgroup.clone_target()) };
    let first = first.map_err(system("clone into new namespaces"))?;
    if first == 0 {
        drop((hears, numbers, comes_out));
        let inside = Inside {
            bundle,
            config: &config,
            cgroup: &cgroup,
            network,
            joined: joined.as_ref(),
            layers: &layers,
            lower: &lower,
            no_devices,
            working_directory: payload.working_directory().to_owned(),
            user: payload.user().to_owned(),
            mapped: mapped.clone(),
        };
        let shares_pid = joined.as_ref().is_some_and(|joined| joined.pid.is_some());
        let failure = match payload.open_profile().and_then(|()| inside.furnish(stdio)).and_then(|()| payload.prepare()) {
            Ok(prepared) if shares_pid => prepared.begin_inside(manner, &tells),
            Ok(prepared) => prepared.begin(manner),
            Err(failure) => failure,
        };
        reporter.report(&failure);
        std::process::exit(1);
    }
    let shares_pid = joined.is_some_and(|joined| joined.pid.is_some());
    drop((reporter, stdio, tells));
    let outcome = hears.outcome();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let pid = if shares_pid { sibling(first, numbers) } else { Ok(first) };
    let settled = outcome.and_then(|()| {
        let pid = pid.as_ref().copied().map_err(|e| Failure::system("begin in the task's pid namespace", e))?;
        let (stdout, kept) = match terminal {
            true => take_terminal(&comes_out).map_err(system("take the terminal out of the container"))?,
            false => (stdout, stdin_writer),
        };
        // Now that it lives again: until here it would have ended as it had before.
        match std::fs::remove_file(OLD_EXIT_FILE) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::system("take away the old exit file", error)),
            _ => Ok((pid, stdout, kept)),
        }
    });
    let (pid, stdout, kept) = match settled {
        Ok(settled) => settled,
        Err(failure) => {
            kill(pid.unwrap_or(first));
            return Err(failure);
        }
    };
    request::reply(&Reply::Started { pid, at });
    // Whoever shares a pid namespace does not end all others in it by his own end.
    let members = if is_new("pid") { PathBuf::new() } else { cgroups::members_folder(&config.linux.cgroups_path, &hierarchies) };
    Ok(Running { pid, at, monitor, log_limit, oom_file, id, listener: listener.into(), stdout, stderr, kept, members })
}

/// The process that was born in the task's pid namespace, once the one that prepared it has ended.
fn sibling(first: i32, numbers: OwnedFd) -> std::io::Result<i32> {
    // SAFETY: an unreaped child of this process.
    unsafe { libc::waitpid(first, std::ptr::null_mut(), 0) };
    let mut number = [0; 4];
    std::fs::File::from(numbers).read_exact(&mut number).map(|()| i32::from_ne_bytes(number))
}

/// The terminal's outer side, and its inner one for keeping: while somebody has that, a program that closes its own does not end the output.
fn take_terminal(comes_out: &UnixStream) -> std::io::Result<(OwnedFd, Option<OwnedFd>)> {
    let outside = terminal::receive(comes_out)?;
    let inside = terminal::other_side(&outside)?;
    Ok((outside, Some(inside)))
}

/// What the first process does before it becomes the program.
struct Inside<'a> {
    bundle: &'a Path,
    config: &'a Config,
    cgroup: &'a Cgroup,
    network: Option<OwnedFd>,
    joined: Option<&'a Joined>,
    layers: &'a Path,
    lower: &'a [String],
    no_devices: bool,
    working_directory: String,
    user: String,
    mapped: Option<Rc<Mapped>>,
}

impl Inside<'_> {
    fn furnish(&self, stdio: Stdio) -> Result<(), Failure> {
        let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
        inheritance::die_with_parent(true);
        inheritance::shed().map_err(system("make a session keyring"))?;
        // SAFETY: no memory arguments.
        unsafe { libc::setsid() };
        self.cgroup.enter().map_err(system("enter the cgroup"))?;
        if let Some(network) = &self.network {
            fds::setns(network, libc::CLONE_NEWNET).map_err(system("join the network namespace"))?;
        }
        if let Some(ipc) = self.joined.and_then(|joined| joined.ipc.as_ref()) {
            fds::setns(ipc, libc::CLONE_NEWIPC).map_err(system("join the task's ipc namespace"))?;
        }
        if self.config.linux.namespaces.iter().any(|namespace| namespace.kind == "cgroup") {
            // Only now is the cgroup that it shall see as its root its own.
            // SAFETY: no memory arguments.
            fds::check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }).map_err(system("make a cgroup namespace"))?;
        }
        let name = self.config.hostname.as_bytes();
        // SAFETY: `name` is valid for its length.
        fds::check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map_err(system("set the host name"))?;
        let target = Path::new(&self.config.root.path);
        let mapped = self.mapped.as_deref();
        let root = rootfs::overlay(self.bundle, target, self.layers, self.lower, self.no_devices, mapped)?;
        // Found out before anything covers the image's files, and only where it matters to a mount.
        let user = match self.config.mounts.iter().any(|mount| mount.owner.is_some()) {
            true => {
                let user = users::resolve(&root, &self.user)?;
                Some(mapped.map(|mapped| mapped.ids.on_machine(&user)).transpose()?.unwrap_or(user))
            }
            false => None,
        };
        if let Some(mapped) = mapped {
            mapped.ids.make_files_as_root().map_err(system("make files as the container's root"))?;
        }
        rootfs::furnish(&root, self.config, self.cgroup, self.joined, user.as_ref(), mapped)?;
        // Now, while the root is writable; what goes wrong is said when the payload enters it.
        let _ = places::ensure_folder(&root, &self.working_directory);
        rootfs::pivot(&root).map_err(system("enter the root file system"))?;
        drop(root);
        rootfs::set_sysctls(self.config)?;
        self.connect(stdio)?;
        if let Some(pid) = self.joined.and_then(|joined| joined.pid.as_ref()) {
            // Holds for children only.
            fds::setns(pid, libc::CLONE_NEWPID).map_err(system("join the task's pid namespace"))?;
        }
        rootfs::seal(self.config)
    }

    /// Gives the process its standard input and outputs.
    fn connect(&self, stdio: Stdio) -> Result<(), Failure> {
        let system = |step: &'static str| move |e: std::io::Error| Failure::system(step, e);
        let [stdin, stdout, stderr] = match &stdio.terminal {
            Some(goes_out) => {
                let made = terminal::open().map_err(system("make the terminal"))?;
                if !rootfs::has_foreign_dev(self.config) {
                    made.be_console().map_err(system("make the terminal the console"))?;
                }
                let inside = made.hand_out(goes_out).map_err(system("give the terminal out of the container"))?;
                let copy = || inside.try_clone().map_err(system("copy the terminal"));
                [copy()?, copy()?, copy()?]
            }
            None => {
                // The container's own: through the machine's it could change the rights of a file outside.
                let null = fds::open_null().map_err(system("open /dev/null"))?;
                [stdio.stdin.unwrap_or(null.into()), stdio.stdout, stdio.stderr]
            }
        };
        for (fd, place) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
            fds::place(fd.as_raw_fd(), place).map_err(system("set up stdio"))?;
        }
        Ok(())
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
                self.members.as_os_str().as_bytes().to_vec(),
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
        match &self.kept {
            Some(kept) => fds::place(fds::lift(kept, LOWEST_OWN)?.as_raw_fd(), KEPT)?,
            None => fds::place(null.as_raw_fd(), KEPT)?,
        }
        for fd in 0..3 {
            // The agent's socket ends here: the monitor must hold nothing of the agent's.
            fds::place(null.as_raw_fd(), fd)?;
        }
        // Nor anything that the agent itself had inherited.
        fds::close_on_exec_from(KEPT + 1)
    }
}
