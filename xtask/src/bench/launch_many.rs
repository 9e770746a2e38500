//! `launch/starts-per-s`: RunTask again and again until a thousand tasks are asked for, to all of them counted as running; then all are
//! stopped, and what is left of them is counted.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::server::Berth;
use super::{cgroups, remains, row_noted, wait};

const TASKS: usize = 1_000;
/// RunTask starts ten at most.
const AT_ONCE: usize = 10;
/// How long all of them may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long the kernel may take for what it takes down in the background.
const KERNEL_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(archive: &Path) -> Result<(), Box<dyn Error>> {
    let berth = Berth::start("up", &[])?;
    berth.load_image(archive, "hello:latest")?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    let container =
        json!({"name": "app", "image": "hello:latest", "memory": 8, "stopTimeout": 2, "environment": [{"name": "PORT", "value": "0"}]});
    client.call("RegisterTaskDefinition", &json!({"family": "many", "networkMode": "host", "containerDefinitions": [container]}))?;
    // One to have the image here.
    let request = client.signed("RunTask", &json!({"taskDefinition": "many"}));
    let count = client.signed("DescribeClusters", &json!({"clusters": ["default"]}));
    send(&mut client, &request)?;
    until_counted(&mut client, &count, 1)?;
    stop_all(&mut client)?;
    until_counted(&mut client, &count, 0)?;

    let request = client.signed("RunTask", &json!({"taskDefinition": "many", "count": AT_ONCE}));
    let started = Instant::now();
    for _ in 0..TASKS / AT_ONCE {
        send(&mut client, &request)?;
    }
    until_counted(&mut client, &count, TASKS)?;
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let rate = TASKS as f64 / seconds;
    let note = format!("0 to {TASKS} tasks of one container, host network, in {seconds:.1} s; once");
    row_noted("launch/starts-per-s", rate, "tasks/s", None, &note);

    let begun = Instant::now();
    stop_all(&mut client)?;
    until_counted(&mut client, &count, 0)?;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let rate = TASKS as f64 / begun.elapsed().as_secs_f64();
    row_noted("launch/stops-per-s", rate, "tasks/s", None, "StopTask of each, one after another, to none counted as running");
    let root = format!("berth-{}", super::sandbox::short_name(&berth.data())?);
    let left = wait::until(KERNEL_PATIENCE, Duration::from_millis(50), || {
        Ok((cgroups::count_below(&root) + mounts_below(&berth.data())? == 0).then_some(()))
    })?;
    let left = if left.is_some() { 0 } else { cgroups::count_below(&root) + mounts_below(&berth.data())? };
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    row_noted("launch/left-after-stop", left as f64, "cgroups and mounts", None, "of those thousand tasks");
    Ok(())
}

fn send(client: &mut Client, request: &[u8]) -> Result<(), Box<dyn Error>> {
    let (status, answer) = client.send(request)?;
    let answer: Value = serde_json::from_slice(answer)?;
    let is_placed = answer["failures"].as_array().is_some_and(Vec::is_empty);
    if status == 200 && is_placed { Ok(()) } else { Err(format!("RunTask answered {status}: {}", answer["failures"]).into()) }
}

fn until_counted(client: &mut Client, describe: &[u8], wanted: usize) -> Result<(), Box<dyn Error>> {
    let mut last = Value::Null;
    let come = wait::until(PATIENCE, Duration::from_millis(2), || {
        let (_, answer) = client.send(describe)?;
        let answer: Value = serde_json::from_slice(answer)?;
        last = answer["clusters"][0].clone();
        let counted = last["runningTasksCount"].as_u64() == Some(wanted as u64);
        Ok((counted && last["pendingTasksCount"] == 0).then_some(()))
    });
    come?.ok_or_else(|| format!("there are not {wanted} tasks after {PATIENCE:?}: {last}").into())
}

/// Asks each task to stop.
fn stop_all(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let mut request = json!({"desiredStatus": "RUNNING"});
    let mut arns: Vec<Value> = Vec::new();
    loop {
        let page = client.call("ListTasks", &request)?;
        arns.extend(page["taskArns"].as_array().into_iter().flatten().cloned());
        match page.get("nextToken").filter(|token| token.is_string()) {
            Some(token) => request["nextToken"] = token.clone(),
            None => break,
        }
    }
    for arn in arns {
        client.call("StopTask", &json!({"task": arn}))?;
    }
    Ok(())
}

fn mounts_below(folder: &Path) -> Result<usize, Box<dyn Error>> {
    Ok(remains::mounts_below(&std::fs::read_to_string("/proc/self/mountinfo")?, folder).len())
}
