//! A machine falls silent: its connection stays open and nothing comes from it any more. How long until its service's task
//! runs on another one?

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::hollow_fleet::Fleet;
use super::restartable::Server;
use super::scratch::Folder;
use super::store_tasks::definition;
use super::{quantile, row, unmet, wait};

/// Most losses the row rests on.
const RUNS: usize = 20;
/// Container instances.
const INSTANCES: usize = 3;
/// How long a replacement is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(5);
const NAME: &str = "hollow/host-loss-s";

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("loss")?;
    let server = Server::start(folder.path())?;
    let mut client = server.client()?;
    client.call("RegisterTaskDefinition", &definition())?;
    let mut fleet = Fleet::start(&server, INSTANCES)?;
    let arns = (0..fleet.size).map(|agent| fleet.arn(agent)).collect::<Result<Vec<_>, _>>()?;
    client.call("CreateService", &json!({"serviceName": "web", "taskDefinition": "bench", "desiredCount": 1}))?;
    let mut seconds = Vec::new();
    for run in 0..runs.min(RUNS) {
        let Some((task, instance)) = running_besides(&mut client, None)? else {
            return Err("the service's task does not run".into());
        };
        let lost = arns.iter().position(|arn| *arn == instance).ok_or("the task runs on an unknown instance")?;
        fleet.silence(lost)?;
        let started = Instant::now();
        let replacement = running_besides(&mut client, Some((&task, &instance)))?;
        if replacement.is_none() {
            let note = format!("not met: no replacement ran elsewhere within {} s of a machine's silence", PATIENCE.as_secs());
            eprintln!("run {run}: {note}");
            unmet(NAME, "s", &note);
            return Ok(());
        }
        eprintln!("run {run}: {:.2} s", started.elapsed().as_secs_f64());
        seconds.push(started.elapsed().as_secs_f64());
        fleet.wake(lost)?;
        connected(&mut client, &instance)?;
    }
    row(NAME, quantile(&seconds, 0.5), "s", None);
    Ok(())
}

/// Waits for a task of the service that is RUNNING and neither the given one nor on its instance: the task and its instance.
fn running_besides(client: &mut Client, lost: Option<(&str, &str)>) -> Result<Option<(String, String)>, Box<dyn Error>> {
    wait::until(PATIENCE, GLANCE, || {
        let listed = client.call("ListTasks", &json!({"serviceName": "web"}))?;
        if listed["taskArns"].as_array().is_some_and(|arns| !arns.is_empty()) {
            let described = client.call("DescribeTasks", &json!({"tasks": listed["taskArns"]}))?;
            for task in described["tasks"].as_array().into_iter().flatten() {
                let text = |member: &str| task[member].as_str().unwrap_or_default().to_owned();
                let (arn, instance) = (text("taskArn"), text("containerInstanceArn"));
                let is_other = lost.is_none_or(|(task, machine)| arn != task && instance != machine);
                if text("lastStatus") == "RUNNING" && text("desiredStatus") == "RUNNING" && is_other {
                    return Ok(Some((arn, instance)));
                }
            }
        }
        Ok(None)
    })
}

/// Waits until an instance's agent is connected again, so that the next run finds the same machines.
fn connected(client: &mut Client, instance: &str) -> Result<(), Box<dyn Error>> {
    let connected = wait::until(PATIENCE, GLANCE, || {
        let answer = client.call("DescribeContainerInstances", &json!({"containerInstances": [instance]}))?;
        Ok(answer.pointer("/containerInstances/0/agentConnected").and_then(Value::as_bool).filter(|is| *is))
    });
    connected?.map(drop).ok_or_else(|| format!("{instance} is not connected again after {PATIENCE:?}").into())
}
