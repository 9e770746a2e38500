//! `POST /fargate`: what whoever runs the machines behind Fargate sees of them, and can do. AWS keeps this to itself, so it is Berth's own: a
//! JSON object with one of `list`, `interrupt`, `drain` or `activate`, signed like any other call.

use std::collections::BTreeMap;

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::fargate::{INTERRUPTED, SPOT};
use berth_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use berth_model::lifecycle;
use berth_model::record::Key;
use berth_model::task::{LaunchType, StopCode, Task};
use berth_shapes::ecs::ErrorCode;
use berth_store::{Entry, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Api;
use crate::failure::Failure;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Question {
    List(Nothing),
    Interrupt(OfTask),
    Drain(OfMachine),
    Activate(OfMachine),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTask {
    task: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfMachine {
    machine: String,
}

/// Answers.
pub(crate) async fn answer(api: &Api, body: &[u8]) -> Result<Bytes, Failure> {
    let question: Question =
        serde_json::from_slice(body).map_err(|error| Failure::common("SerializationException", 400, error.to_string()))?;
    let answer = match question {
        Question::List(Nothing {}) => list(&api.store.state()),
        Question::Interrupt(OfTask { task }) => interrupt(api, &task).await?,
        Question::Drain(OfMachine { machine }) => change_status(api, &machine, ContainerInstanceStatus::Draining).await?,
        Question::Activate(OfMachine { machine }) => change_status(api, &machine, ContainerInstanceStatus::Active).await?,
    };
    serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| Failure::modelled(ErrorCode::Server, error.to_string()))
}

fn list(state: &State) -> Value {
    let machines: BTreeMap<_, _> = machines(state).map(|machine| (machine.id, machine)).collect();
    json!({"machines": machines.into_values().map(|machine| render(state, &machine.value)).collect::<Vec<_>>()})
}

/// The machines that offer Fargate capacity.
fn machines(state: &State) -> impl Iterator<Item = &Entry<ContainerInstance>> {
    state.fargate_machines().filter(|machine| machine.status != ContainerInstanceStatus::Inactive)
}

fn render(state: &State, machine: &ContainerInstance) -> Value {
    let tasks: Vec<&Task> =
        state.tasks_of_machine(&machine.cluster, machine.id).map(|task| &*task.value).filter(|task| !task.is_stopped()).collect();
    let own = tasks.iter().filter(|task| task.launch_type == LaunchType::Fargate).count();
    let used = |of: fn(&Task) -> u32| tasks.iter().fold(0, |sum: u32, task| sum.saturating_add(of(task)));
    let registered = &machine.registered;
    json!({
        "machine": machine.id.to_string(),
        // What else it is.
        "containerInstanceOf": (!machine.is_hidden()).then(|| machine.cluster.to_string()),
        "status": machine.status.as_str(),
        "agentConnected": machine.agent_connected,
        "cpu": registered.cpu,
        "memory": registered.memory,
        "freeCpu": registered.cpu.saturating_sub(used(|task| task.demand.cpu)),
        "freeMemory": registered.memory.saturating_sub(used(|task| task.demand.memory)),
        "fargateTasks": own,
        "otherTasks": tasks.len() - own,
    })
}

/// Gives a FARGATE_SPOT task its warning: its containers get their stop signal, and have up to their stopTimeout, at most two minutes.
async fn interrupt(api: &Api, text: &str) -> Result<Value, Failure> {
    let (cluster, id) = task_reference(api, text)?;
    api.change(|state, transaction| {
        let entry = state.task(id).filter(|task| cluster.as_ref().is_none_or(|cluster| task.cluster == *cluster));
        let entry =
            entry.ok_or_else(|| Failure::modelled(ErrorCode::ResourceNotFound, format!("There is no task '{}': task", clip(text))))?;
        if entry.capacity_provider.as_ref().is_none_or(|provider| provider.as_str() != SPOT) {
            return Err(Failure::invalid(format!("Only tasks of capacity provider {SPOT} can be interrupted: task")));
        }
        let mut task = (*entry.value).clone();
        if !lifecycle::ask_to_stop(&mut task, StopCode::SpotInterruption, INTERRUPTED, api.now()) {
            return Err(Failure::invalid("The task is stopped, or stopping, already: task"));
        }
        transaction.expect(Key::Task(id), entry.modified);
        let shown = json!({"task": api.scope().task(&task.cluster, id), "stoppedReason": INTERRUPTED});
        transaction.put(task);
        Ok(shown)
    })
    .await
}

/// A task's ARN or id.
fn task_reference(api: &Api, text: &str) -> Result<(Option<ClusterName>, TaskId), Failure> {
    if text.starts_with("arn:") {
        return match berth_model::arn::parse_resource(api.scope(), text)? {
            berth_model::arn::Resource::Task(cluster, id) => Ok((Some(cluster), id)),
            _ => Err(Failure::invalid("Only tasks can be interrupted: task")),
        };
    }
    text.parse().map(|id| (None, id)).map_err(|_| Failure::invalid(format!("'{}' is no task's ARN or id: task", clip(text))))
}

async fn change_status(api: &Api, text: &str, status: ContainerInstanceStatus) -> Result<Value, Failure> {
    let id: ContainerInstanceId = text.parse().map_err(|_| Failure::invalid(format!("'{}' is no machine's id: machine", clip(text))))?;
    api.change(|state, transaction| {
        let entry = machines(state).find(|machine| machine.id == id);
        let entry = entry.ok_or_else(|| {
            Failure::modelled(ErrorCode::ResourceNotFound, format!("No machine '{}' offers Fargate capacity: machine", clip(text)))
        })?;
        transaction.expect(Key::ContainerInstance(id), entry.modified);
        let machine = ContainerInstance { status, ..(*entry.value).clone() };
        let shown = render(state, &machine);
        if machine != *entry.value {
            transaction.put(machine);
        }
        Ok(shown)
    })
    .await
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}
