//! `bench launch`: RunTask written to RUNNING seen in DescribeTasks, bridge and host network, image local; beside it
//! `docker run -d` of the same image, in turn with ours. Stopping and removing is outside the measured time.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::docker::Docker;
use super::server::{Berth, text};
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
    let docker = Docker::beside(&archive);
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
