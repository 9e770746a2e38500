//! `bench launch`: RunTask written to RUNNING seen in DescribeTasks, bridge and host network, image local; beside it
//! `docker run -d` of the same image, in turn with ours. Stopping and removing is outside the measured time.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::server::{Berth, signal, text};
use super::{Peer, quantile, row, wait};

/// How long one launch or stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    let archive = crate::workspace().join("target/hello.tar");
    if !archive.exists() {
        crate::pack::pack_hello(&archive)?;
    }
    let berth = Berth::start("up", &[])?;
    berth.load_image(&archive, "hello:latest")?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    // In host mode the program takes any free port, so that launches do not meet.
    for (mode, port) in [("bridge", "80"), ("host", "0")] {
        let mappings = if mode == "bridge" { json!([{"containerPort": 80}]) } else { json!([]) };
        // A stop may reach the program before it has its signal handler; as pid 1 it would then be left to its stopTimeout.
        let container = json!({"name": "app", "image": "hello:latest", "memory": 64, "portMappings": mappings, "stopTimeout": 2,
            "environment": [{"name": "PORT", "value": port}]});
        client.call("RegisterTaskDefinition", &json!({"family": mode, "networkMode": mode, "containerDefinitions": [container]}))?;
    }
    let docker = Docker::start(&archive);
    if let Err(error) = &docker {
        eprintln!("NO PEER: docker cannot be measured beside Berth: {error}");
    }
    let docker = docker.ok();
    for mode in ["bridge", "host"] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // One of each to warm caches; it is not counted.
        for run in 0..=runs {
            let millis = launch(&mut client, mode)?;
            let peer = docker.as_ref().map(|docker| docker.run(mode)).transpose()?;
            if run > 0 {
                ours.push(millis);
                theirs.extend(peer);
            }
        }
        for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
            let peer = docker.as_ref().map(|_| Peer { name: "docker run -d", value: quantile(&theirs, share) });
            row(&format!("launch/{mode}-{label}"), quantile(&ours, share), "ms", peer.as_ref());
        }
    }
    Ok(())
}

/// Milliseconds from the request to RUNNING seen.
fn launch(client: &mut Client, family: &str) -> Result<f64, Box<dyn Error>> {
    let request = client.signed("RunTask", &json!({"taskDefinition": family}));
    let started = Instant::now();
    let (status, answer) = client.send(&request)?;
    if status != 200 {
        return Err(format!("RunTask answered {status}: {}", String::from_utf8_lossy(answer)).into());
    }
    let arn = text(&serde_json::from_slice(answer)?, "/tasks/0/taskArn")?;
    let describe = client.signed("DescribeTasks", &json!({"tasks": [arn]}));
    wait_for(client, &describe, "RUNNING", Duration::from_micros(200))?;
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    client.call("StopTask", &json!({"task": arn}))?;
    wait_for(client, &describe, "STOPPED", Duration::from_millis(5))?;
    Ok(millis)
}

fn wait_for(client: &mut Client, describe: &[u8], status: &str, pause: Duration) -> Result<(), Box<dyn Error>> {
    let wanted = format!("\"lastStatus\":\"{status}\"");
    let mut last = String::new();
    let come = wait::until(PATIENCE, pause, || {
        let (_, answer) = client.send(describe)?;
        let answer = std::str::from_utf8(answer)?;
        // The task's own member comes after its containers', which have one each: all must be there.
        if answer.matches(&wanted).count() >= 2 {
            return Ok(Some(()));
        }
        if status == "RUNNING" && answer.contains("\"STOPPED\"") {
            return Err(format!("the task has stopped: {answer}").into());
        }
        answer.clone_into(&mut last);
        Ok(None)
    });
    come?.ok_or_else(|| format!("the task is not {status}: {last}").into())
}

/// A Docker Engine of the bench's own.
struct Docker {
    engine: Child,
    dir: PathBuf,
}

impl Docker {
    fn start(archive: &std::path::Path) -> Result<Self, Box<dyn Error>> {
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

    /// Milliseconds that `docker run -d` takes.
    fn run(&self, mode: &str) -> Result<f64, Box<dyn Error>> {
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
