//! `bench launch`: RunTask written to RUNNING seen in DescribeTasks, of one container and of three, image here or to be pulled; beside it
//! `docker run -d` of the same image, in turn with ours. Stopping and removing is outside the measured time. Further groups: a thousand
//! tasks, the agent's memory, a large image.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::docker::Docker;
use super::server::{Berth, text};
use super::{Peer, Selection, launch_many, launch_memory, launch_pull, quantile, row, wait};

/// How long one launch or stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `--only` can name: rows, or groups that are measured together.
const ROWS: [&str; 8] = ["bridge", "host", "three", "cold", "starts-per-s", "agent-idle-mb", "container-overhead-mb", "pull-512-s"];

pub(super) fn run(only: Option<&str>, runs: usize) -> Result<(), Box<dyn Error>> {
    // A group by a part of its name, so that `--only pull`, `--only idle` and a row's own name all do.
    let plain = only.map(|only| only.strip_prefix("launch/").unwrap_or(only));
    let named = plain.map(|only| ROWS.into_iter().find(|row| row.contains(only) || only.starts_with(row)).unwrap_or(only));
    let selection = Selection::new("launch", &ROWS, named)?;
    let archive = crate::workspace().join("target/hello.tar");
    if !archive.exists() {
        crate::pack::pack_hello(&archive)?;
    }
    // What has no peer goes first: an idle engine beside it would still be there.
    if selection.has("agent-idle-mb") {
        launch_memory::idle()?;
    }
    if selection.has("starts-per-s") {
        launch_many::run(&archive)?;
    }
    let groups = ["bridge", "host", "three", "cold", "container-overhead-mb", "pull-512-s"];
    if !groups.iter().any(|group| selection.has(group)) {
        return Ok(());
    }
    let docker = Docker::beside(&archive);
    warm(&selection, docker.as_ref(), &archive, runs)?;
    if selection.has("container-overhead-mb") {
        launch_memory::overhead(docker.as_ref(), &archive)?;
    }
    if selection.has("pull-512-s") {
        launch_pull::large(docker.as_ref(), &archive, runs)?;
    }
    Ok(())
}

fn warm(selection: &Selection<'_>, docker: Option<&Docker>, archive: &Path, runs: usize) -> Result<(), Box<dyn Error>> {
    if !["bridge", "host", "three", "cold"].iter().any(|group| selection.has(group)) {
        return Ok(());
    }
    let berth = Berth::start("up", &[])?;
    berth.load_image(archive, "hello:latest")?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    for (family, mode, containers) in [("bridge", "bridge", 1), ("host", "host", 1), ("three", "bridge", 3)] {
        if !selection.has(family) {
            continue;
        }
        let containers: Vec<Value> = (0..containers).map(|number| container(number, mode)).collect();
        client.call("RegisterTaskDefinition", &json!({"family": family, "networkMode": mode, "containerDefinitions": containers}))?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // One of each to warm caches; it is not counted.
        for run in 0..=runs {
            let millis = launch(&mut client, family, containers.len(), PATIENCE)?;
            let peer = docker.map(|docker| docker.run(mode, containers.len())).transpose()?;
            if run > 0 {
                ours.push(millis);
                theirs.extend(peer);
            }
        }
        let name = if containers.len() == 1 { "docker run -d" } else { "docker run -d, three times" };
        for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
            let peer = docker.map(|_| Peer { name, value: quantile(&theirs, share) });
            row(&format!("launch/{family}-{label}"), quantile(&ours, share), "ms", peer.as_ref());
        }
    }
    if selection.has("cold") {
        launch_pull::cold(&berth, docker, archive, runs)?;
    }
    Ok(())
}

/// In host mode the program takes any free port, so that launches do not meet.
fn container(number: usize, mode: &str) -> Value {
    let (port, mappings) = if mode == "bridge" { ("80", json!([{"containerPort": 80}])) } else { ("0", json!([])) };
    // A stop may reach the program before it has its signal handler; as pid 1 it would then be left to its stopTimeout.
    json!({"name": format!("app-{number}"), "image": "hello:latest", "memory": 64, "portMappings": mappings, "stopTimeout": 2,
        "environment": [{"name": "PORT", "value": port}]})
}

/// Milliseconds from the request to RUNNING seen, of a task of so many containers.
pub(super) fn launch(client: &mut Client, family: &str, containers: usize, patience: Duration) -> Result<f64, Box<dyn Error>> {
    let request = client.signed("RunTask", &json!({"taskDefinition": family}));
    let started = Instant::now();
    let (status, answer) = client.send(&request)?;
    if status != 200 {
        return Err(format!("RunTask answered {status}: {}", String::from_utf8_lossy(answer)).into());
    }
    let arn = text(&serde_json::from_slice(answer)?, "/tasks/0/taskArn")?;
    let describe = client.signed("DescribeTasks", &json!({"tasks": [arn]}));
    wait_for(client, &describe, "RUNNING", containers, patience, Duration::from_micros(200))?;
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    client.call("StopTask", &json!({"task": arn}))?;
    wait_for(client, &describe, "STOPPED", containers, PATIENCE, Duration::from_millis(5))?;
    Ok(millis)
}

fn wait_for(
    client: &mut Client,
    describe: &[u8],
    status: &str,
    containers: usize,
    patience: Duration,
    pause: Duration,
) -> Result<(), Box<dyn Error>> {
    let wanted = format!("\"lastStatus\":\"{status}\"");
    let mut last = String::new();
    let come = wait::until(patience, pause, || {
        let (_, answer) = client.send(describe)?;
        let answer = std::str::from_utf8(answer)?;
        // The task's own member comes after its containers', which have one each: all must be there.
        if answer.matches(&wanted).count() > containers {
            return Ok(Some(()));
        }
        if status == "RUNNING" && answer.contains("\"STOPPED\"") {
            return Err(format!("the task has stopped: {answer}").into());
        }
        answer.clone_into(&mut last);
        Ok(None)
    });
    come?.ok_or_else(|| format!("the task is not {status} after {patience:?}: {last}").into())
}
