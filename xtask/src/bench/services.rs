//! `bench services`: a killed container's replacement beside docker's restart policy, CreateService to the last of 20 tasks RUNNING, and how
//! long the call takes that scales them to 0. Real containers; stopping and deleting is outside the measured time.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::docker::Docker;
use super::server::{Berth, signal, text};
use super::{Peer, quantile, row, wait};

/// How long tasks may take to come or go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tasks of the service that is created and scaled in.
const TASKS: u64 = 20;

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    let archive = crate::workspace().join("target/hello.tar");
    if !archive.exists() {
        crate::pack::pack_hello(&archive)?;
    }
    let berth = Berth::start("up", &[])?;
    berth.load_image(&archive, "hello:latest")?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    let container = json!({"name": "app", "image": "hello:latest", "memory": 32, "portMappings": [{"containerPort": 80}], "stopTimeout": 2,
        "environment": [{"name": "PORT", "value": "80"}]});
    client.call("RegisterTaskDefinition", &json!({"family": "web", "containerDefinitions": [container]}))?;
    let docker = Docker::beside(&archive);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // One of each to warm caches; it is not counted.
    for run in 0..=runs {
        let millis = replace(&mut client, &format!("one-{run}"))?;
        let peer = docker.as_ref().map(Docker::restart).transpose()?;
        if run > 0 {
            ours.push(millis);
            theirs.extend(peer);
        }
    }
    let peer = docker.as_ref().map(|_| Peer { name: "docker restart policy", value: quantile(&theirs, 0.5) });
    row("services/replace-p50-ms", quantile(&ours, 0.5), "ms", peer.as_ref());
    drop(docker);
    let (mut created, mut scaled) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let (up, down) = scale(&mut client, &format!("many-{run}"))?;
        if run > 0 {
            created.push(up);
            scaled.push(down);
        }
    }
    row("services/create-20-p50-ms", quantile(&created, 0.5), "ms", None);
    row("services/scale-to-0-p50-ms", quantile(&scaled, 0.5), "ms", None);
    Ok(())
}

fn create(client: &mut Client, name: &str, count: u64) -> Result<Instant, Box<dyn Error>> {
    let begun = Instant::now();
    client.call("CreateService", &json!({"serviceName": name, "taskDefinition": "web", "desiredCount": count}))?;
    let running = format!("\"runningCount\":{count},");
    let look = client.signed("DescribeServices", &json!({"services": [name]}));
    let come = wait::until(PATIENCE, Duration::from_micros(500), || {
        let (_, answer) = client.send(&look)?;
        // The service's own, and its deployment's.
        Ok((std::str::from_utf8(answer)?.matches(&running).count() >= 2).then_some(()))
    });
    come?.ok_or("its tasks do not run")?;
    Ok(begun)
}

/// Deletes a service and waits until nothing of it runs.
fn delete(client: &mut Client, name: &str) -> Result<(), Box<dyn Error>> {
    client.call("DeleteService", &json!({"service": name, "force": true}))?;
    let look = client.signed("DescribeServices", &json!({"services": [name]}));
    let gone = wait::until(PATIENCE, Duration::from_millis(5), || {
        let (_, answer) = client.send(&look)?;
        Ok(std::str::from_utf8(answer)?.contains("\"INACTIVE\"").then_some(()))
    });
    gone?.ok_or_else(|| format!("service {name} does not end").into())
}

fn tasks(client: &mut Client, name: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let answer = client.call("ListTasks", &json!({"serviceName": name}))?;
    Ok(answer["taskArns"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Milliseconds from the kill of a service's only container to another RUNNING. A service of its own each time: of one whose containers end
/// soon after their start, the second waits.
fn replace(client: &mut Client, name: &str) -> Result<f64, Box<dyn Error>> {
    create(client, name, 1)?;
    let old = tasks(client, name)?.pop().ok_or("no task")?;
    let shown = client.call("DescribeTasks", &json!({"tasks": [old]}))?;
    let pid = process_of(&text(&shown, "/tasks/0/containers/0/runtimeId")?)?;
    let list = client.signed("ListTasks", &json!({"serviceName": name}));
    let begun = Instant::now();
    signal(pid, "KILL");
    let fresh = wait::until(PATIENCE, Duration::from_micros(200), || {
        let (_, answer) = client.send(&list)?;
        let answer: Value = serde_json::from_slice(answer)?;
        let other = answer["taskArns"].as_array().into_iter().flatten().filter_map(Value::as_str).find(|arn| *arn != old);
        Ok(other.map(str::to_owned))
    });
    let fresh = fresh?.ok_or("nothing takes its place")?;
    let look = client.signed("DescribeTasks", &json!({"tasks": [fresh]}));
    let running = wait::until(PATIENCE, Duration::from_micros(200), || {
        let (_, answer) = client.send(&look)?;
        // Its container's and its own.
        Ok((std::str::from_utf8(answer)?.matches("\"lastStatus\":\"RUNNING\"").count() >= 2).then_some(()))
    });
    let millis = begun.elapsed().as_secs_f64() * 1000.0;
    running?.ok_or("what takes its place does not run")?;
    delete(client, name)?;
    Ok(millis)
}

/// Milliseconds until 20 tasks run, and of the call that stops them.
fn scale(client: &mut Client, name: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let up = create(client, name, TASKS)?.elapsed().as_secs_f64() * 1000.0;
    let update = client.signed("UpdateService", &json!({"service": name, "desiredCount": 0}));
    let begun = Instant::now();
    let (status, answer) = client.send(&update)?;
    let down = begun.elapsed().as_secs_f64() * 1000.0;
    if status != 200 {
        return Err(format!("UpdateService answered {status}: {}", String::from_utf8_lossy(answer)).into());
    }
    delete(client, name)?;
    Ok((up, down))
}

/// The first process in a container's cgroup.
fn process_of(container: &str) -> Result<u32, Box<dyn Error>> {
    let numbers = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_inside = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container));
    numbers.filter(is_inside).min().ok_or_else(|| format!("no process is in container {container}").into())
}
