//! A Docker Engine of the bench's own, in a network namespace and a folder of its own, for the numbers beside Berth's.
//!
//! Its programs are those that are installed, or else Debian's packages unpacked into `target/docker`, as the tests do it.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::namespace::Network;
use super::scratch::{Ending, Folder, Process, prepare};
use super::server::signal;
use super::wait;

/// How long the engine's start may take, or one start or restart of a container.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long Docker may take over an image.
const PULL_PATIENCE: Duration = Duration::from_secs(600);

/// Where dockerd and its helpers are found, if not where all programs are.
struct Programs {
    /// Below it lies what was unpacked.
    unpacked: Option<PathBuf>,
}

impl Programs {
    fn find() -> Result<Self, Box<dyn Error>> {
        let unpacked = crate::workspace().join("target/docker");
        if unpacked.join("usr/sbin/dockerd").exists() {
            return Ok(Self { unpacked: Some(unpacked) });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|folder| folder.join("dockerd").exists()) {
            return Ok(Self { unpacked: None });
        }
        Err("there is no dockerd: install docker.io, or have it unpacked below target/docker by `pytest tests/test_docker_runtime.py`"
            .into())
    }

    /// A command of the whole set: what it starts itself is found too.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let Some(unpacked) = &self.unpacked else { return command };
        let own = ["usr/sbin", "usr/bin", "bin"].map(|place| unpacked.join(place));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::env::join_paths(own.iter().cloned().chain(std::env::split_paths(&path))).unwrap_or(path);
        // The path of the child holds for what the child starts; the program itself is looked for in ours.
        if let Some(found) = own.iter().map(|folder| folder.join(program)).find(|file| file.exists()) {
            command = Command::new(found);
        }
        let architecture = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = ["usr/lib", "lib"].map(|place| unpacked.join(place).join(&architecture));
        let mut list = OsString::from(&libraries[0]);
        list.push(":");
        list.push(&libraries[1]);
        command.env("PATH", all).env("LD_LIBRARY_PATH", list).env("XTABLES_LIBDIR", libraries[0].join("xtables"));
        command
    }
}

/// A Docker Engine of the bench's own. Dropping it ends its containers and all of it.
pub(super) struct Docker {
    engine: Process,
    folder: Folder,
    programs: Programs,
}

impl Docker {
    /// An engine with the image; `None`, said loudly, if there can be none.
    pub(super) fn beside(archive: &Path) -> Option<Self> {
        let started = Self::start(archive);
        started
            .inspect_err(|error| {
                eprintln!("NO PEER: docker cannot be measured beside Berth, and the rows that follow have none: {error}");
            })
            .ok()
    }

    fn start(archive: &Path) -> Result<Self, Box<dyn Error>> {
        prepare()?;
        let programs = Programs::find()?;
        let folder = Folder::make("docker")?;
        let log = File::create(folder.path().join("log"))?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let cgroup = format!("berth-bench-{}-docker", std::process::id());
        // Its first process raises loopback, which in a new namespace is down, and becomes the engine.
        let raise = "ip link set lo up && exec \"$@\"";
        let mut command = programs.command("unshare");
        command.args(["--net", "--", "sh", "-c", raise, "sh", "dockerd"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--host", &format!("unix://{}", path("socket")), "--cgroup-parent", &format!("/{cgroup}")]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The engine holds the host's network namespace by a mount that it leaves behind; killed, it leaves all of its containers'.
        let mounts = Some(folder.path().to_owned());
        // An engine that had to be killed leaves a shim for each container.
        let helpers = Some(format!("{}/", folder.path().display()));
        let engine =
            Process::spawn_with(&mut command, Ending { signal: Some(Signal::TERM), mounts, cgroup: Some(cgroup), helpers, agent: None })?;
        let mut docker = Self { engine, folder, programs };
        let answers = wait::until(PATIENCE, Duration::from_millis(100), || {
            if let Some(status) = docker.engine.child.try_wait()? {
                return Err(format!("dockerd ended with {status}: {}", docker.last_words()).into());
            }
            let version = docker.command().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            Ok(version.success().then_some(()))
        });
        answers?.ok_or_else(|| format!("dockerd does not answer: {}", docker.last_words()))?;
        docker.run_to_end(docker.command().args(["load", "--input"]).arg(archive))?;
        Ok(docker)
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }

    fn command(&self) -> Command {
        let mut command = self.programs.command("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.folder.path().join("socket").display()));
        command
    }

    /// Runs one of Docker's commands; gives what it prints. It is ended when it takes too long.
    fn run_to_end(&self, command: &mut Command) -> Result<String, Box<dyn Error>> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // What it prints is shorter than a pipe; a wait in the kernel is faster than looking again and again.
        let (pid, patience) = (child.id(), PULL_PATIENCE);
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let guard = std::thread::spawn(move || {
            if ended.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                signal(pid, "KILL");
            }
        });
        let status = child.wait();
        drop(done);
        let _ = guard.join();
        let (mut out, mut errors) = (String::new(), String::new());
        child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut out)).transpose()?;
        child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut errors)).transpose()?;
        if status?.success() { Ok(out) } else { Err(format!("docker failed: {}", errors.trim()).into()) }
    }

    /// The network that it lives in.
    pub(super) fn network(&self) -> Result<Network, Box<dyn Error>> {
        Network::of(self.engine.child.id())
    }

    /// What the command line of each of its processes names, containers' own apart.
    pub(super) fn mark(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Milliseconds from a kill of a container's first process to another in its place, by the restart policy `always`.
    pub(super) fn restart(&self) -> Result<f64, Box<dyn Error>> {
        let run = ["run", "--detach", "--memory", "64m", "--restart", "always", "--publish", "80", "--env", "PORT=80", "hello:latest"];
        let id = self.run_to_end(self.command().args(run))?.trim().to_owned();
        let pid = self.running(&id)?.ok_or("the container does not run")?;
        // Longer than the ten seconds after which docker's delay begins anew would be fair as well, and takes as long.
        let started = Instant::now();
        signal(pid, "KILL");
        let back = wait::until(PATIENCE, Duration::from_micros(200), || Ok(self.running(&id)?.filter(|now| *now != pid)));
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        self.remove(&[id])?;
        back?.ok_or("docker did not restart the container")?;
        Ok(millis)
    }

    /// The first process of a container that runs. Asked over the engine's socket: to start its command line takes longer than the answer.
    fn running(&self, id: &str) -> Result<Option<u32>, Box<dyn Error>> {
        let mut socket = UnixStream::connect(self.folder.path().join("socket"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "GET /containers/{id}/json HTTP/1.0\r\nhost: docker\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").ok_or("docker's answer has no body")?.1;
        let found: serde_json::Value = serde_json::from_str(body)?;
        let pid = found.pointer("/State/Pid").and_then(serde_json::Value::as_u64).filter(|pid| *pid > 0);
        let is_running = found.pointer("/State/Running") == Some(&true.into()) && found.pointer("/State/Restarting") == Some(&false.into());
        Ok(pid.filter(|_| is_running).and_then(|pid| u32::try_from(pid).ok()))
    }

    /// Milliseconds that `docker run -d` takes, one after another for so many containers of the local image.
    pub(super) fn run(&self, mode: &str, count: usize) -> Result<f64, Box<dyn Error>> {
        let started = Instant::now();
        let made = (0..count).map(|_| self.start_one("hello:latest", mode)).collect::<Result<Vec<_>, _>>();
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        self.remove(&made?)?;
        Ok(millis)
    }

    /// Milliseconds that `docker run -d` takes of an image that is to be pulled. Afterwards it is not here, as before.
    pub(super) fn run_cold(&self, image: &str) -> Result<f64, Box<dyn Error>> {
        let started = Instant::now();
        let id = self.start_one(image, "host")?;
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        self.remove(&[id])?;
        self.run_to_end(self.command().args(["rmi", "--force", image]))?;
        Ok(millis)
    }

    /// Starts a container; gives its id.
    pub(super) fn start_one(&self, image: &str, mode: &str) -> Result<String, Box<dyn Error>> {
        let mut command = self.command();
        command.args(["run", "--detach", "--memory", "64m"]);
        match mode {
            "host" => command.args(["--network", "host", "--env", "PORT=0"]),
            _ => command.args(["--publish", "80", "--env", "PORT=80"]),
        };
        Ok(self.run_to_end(command.arg(image))?.trim().to_owned())
    }

    /// Removes containers, whatever they do.
    pub(super) fn remove(&self, ids: &[String]) -> Result<(), Box<dyn Error>> {
        self.run_to_end(self.command().args(["rm", "--force"]).args(ids)).map(drop)
    }
}
