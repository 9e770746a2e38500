//! A Docker Engine of the bench's own, in a network namespace and a folder of its own, for the numbers beside Berth's.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::signal;
use super::wait;

/// How long one start or restart may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Docker Engine of the bench's own.
pub(super) struct Docker {
    engine: Child,
    dir: PathBuf,
}

impl Docker {
    /// An engine with the image; `None`, said loudly, if there can be none.
    pub(super) fn beside(archive: &Path) -> Option<Self> {
        Self::start(archive).inspect_err(|error| eprintln!("NO PEER: docker cannot be measured beside Berth: {error}")).ok()
    }

    fn start(archive: &Path) -> Result<Self, Box<dyn Error>> {
        let dir = std::env::temp_dir().join(format!("berth-bench-{}-docker", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let path = |name: &str| dir.join(name).display().to_string();
        // A network namespace of its own: what Docker leaves behind of bridges and rules goes with it.
        let engine = Command::new("unshare")
            .args(["--net", "--", "dockerd"])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--host", &format!("unix://{}", path("socket"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("dockerd (Debian package docker.io): {error}"))?;
        let docker = Self { engine, dir };
        let answers = wait::until(PATIENCE, Duration::from_millis(100), || {
            let version = docker.command().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            Ok(version.success().then_some(()))
        });
        if answers?.is_none() {
            return Err(format!("dockerd does not answer; see its log: {}", std::fs::read_to_string(docker.dir.join("log"))?).into());
        }
        let loaded = docker.command().args(["load", "--input"]).arg(archive).stdout(Stdio::null()).status()?;
        if loaded.success() { Ok(docker) } else { Err("docker load failed".into()) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.dir.join("socket").display()));
        command
    }

    /// Milliseconds from a kill of a container's first process to another in its place, by the restart policy `always`.
    pub(super) fn restart(&self) -> Result<f64, Box<dyn Error>> {
        let run = ["run", "--detach", "--memory", "64m", "--restart", "always", "--publish", "80", "--env", "PORT=80", "hello:latest"];
        let output = self.command().args(run).output()?;
        if !output.status.success() {
            return Err(format!("docker run failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let id = String::from_utf8(output.stdout)?.trim().to_owned();
        let pid = self.running(&id)?.ok_or("the container does not run")?;
        // Longer than the ten seconds after which docker's delay begins anew would be fair as well, and takes as long.
        let started = Instant::now();
        signal(pid, "KILL");
        let back = wait::until(PATIENCE, Duration::from_micros(200), || Ok(self.running(&id)?.filter(|now| *now != pid)));
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        self.command().args(["rm", "--force", &id]).stdout(Stdio::null()).status()?;
        back?.ok_or("docker did not restart the container")?;
        Ok(millis)
    }

    /// The first process of a container that runs. Asked over the engine's socket: to start its command line takes longer than the answer.
    fn running(&self, id: &str) -> Result<Option<u32>, Box<dyn Error>> {
        let mut socket = UnixStream::connect(self.dir.join("socket"))?;
        write!(socket, "GET /containers/{id}/json HTTP/1.0\r\nhost: docker\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").ok_or("docker's answer has no body")?.1;
        let found: serde_json::Value = serde_json::from_str(body)?;
        let pid = found.pointer("/State/Pid").and_then(serde_json::Value::as_u64).filter(|pid| *pid > 0);
        let is_running = found.pointer("/State/Running") == Some(&true.into()) && found.pointer("/State/Restarting") == Some(&false.into());
        Ok(pid.filter(|_| is_running).and_then(|pid| u32::try_from(pid).ok()))
    }

    /// Milliseconds that `docker run -d` takes.
    pub(super) fn run(&self, mode: &str) -> Result<f64, Box<dyn Error>> {
        let mut command = self.command();
        command.args(["run", "--detach", "--memory", "64m"]);
        match mode {
            "host" => command.args(["--network", "host", "--env", "PORT=0"]),
            _ => command.args(["--publish", "80", "--env", "PORT=80"]),
        };
        let started = Instant::now();
        let output = command.arg("hello:latest").output()?;
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        if !output.status.success() {
            return Err(format!("docker run failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let id = String::from_utf8(output.stdout)?;
        self.command().args(["rm", "--force", id.trim()]).stdout(Stdio::null()).status()?;
        Ok(millis)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        signal(self.engine.id(), "TERM");
        let _ = self.engine.wait();
        // The engine holds the host's network namespace by a mount that it leaves behind.
        let _ = Command::new("umount").arg(self.dir.join("exec/netns/default")).stderr(Stdio::null()).status();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
