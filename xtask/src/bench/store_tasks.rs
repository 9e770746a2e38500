//! Task records as an agent's reports leave them, and a data folder full of them, written by the store itself.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use berth_model::ids::{ContainerId, ContainerInstanceId, TaskId};
use berth_model::record::{Key, Record};
use berth_model::task::{Task, TaskStatus};
use berth_store::{CommitError, Revision, Sqlite, Store, Transaction};
use serde_json::json;
use tokio::sync::oneshot;

use super::restartable::Server;
use super::server::text;

/// Container instances that tasks are spread over.
const INSTANCES: usize = 1_000;
/// Tasks in one commit while a folder is filled.
const BATCH: usize = 100;
/// Commits that wait while a folder is filled.
const WAITING: usize = 64;

/// A task with one container that an agent has reported RUNNING.
pub(super) fn running_task() -> Result<Task, Box<dyn Error>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let now = u64::try_from(now)?;
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let container = json!({
        "id": id(1), "name": "app", "image": "hello", "last_status": "RUNNING", "health_status": "UNKNOWN",
        "runtime_id": digest, "image_digest": format!("sha256:{digest}"),
    });
    Ok(serde_json::from_value(json!({
        "id": id(1), "cluster": "default", "definition": {"family": "bench", "revision": 1}, "container_instance": id(1),
        "group": "family:bench", "launch_type": "EC2", "demand": {"cpu": 1, "memory": 6}, "desired_status": "RUNNING",
        "last_status": "RUNNING", "containers": [container], "connected_at": now, "created_at": now, "pull_started_at": now,
        "pull_stopped_at": now, "started_at": now,
    }))?)
}

fn id(bits: u128) -> String {
    format!("{bits:032x}")
}

/// The number's id, spread over the whole range as random ids are.
fn spread(number: usize) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    (number as u128 + 1).wrapping_mul(ODD)
}

/// The id of the bench's task of that number.
pub(super) fn task_id(number: usize) -> TaskId {
    TaskId(spread(number))
}

/// The template as the task of that number, on one of the instances.
pub(super) fn numbered(template: &Task, number: usize, instances: &[ContainerInstanceId]) -> Task {
    let mut task = template.clone();
    task.id = task_id(number);
    for container in &mut task.containers {
        container.id = ContainerId(!spread(number));
    }
    if let Some(instance) = instances.get(number % instances.len().max(1)) {
        task.container_instance = *instance;
    }
    task
}

/// A change of a task's status; the store does not judge which.
pub(super) fn change_status(task: &mut Task) {
    task.last_status = if task.last_status == TaskStatus::Running { TaskStatus::Stopping } else { TaskStatus::Running };
}

/// Opens the store of a data folder, as the server does.
pub(super) fn open(folder: &Path) -> Result<Store, Box<dyn Error>> {
    Ok(Store::open(Sqlite::open(&folder.join("state.db"))?)?)
}

/// Puts that many tasks into a store.
pub(super) fn put_tasks(store: &Store, template: &Task, count: usize, instances: &[ContainerInstanceId]) -> Result<(), Box<dyn Error>> {
    let mut waiting: VecDeque<oneshot::Receiver<Result<Revision, CommitError>>> = VecDeque::new();
    for first in (0..count).step_by(BATCH) {
        let mut transaction = Transaction::new();
        for number in first..count.min(first + BATCH) {
            let task = numbered(template, number, instances);
            transaction.expect_absent(Key::Task(task.id));
            transaction.put(Record::Task(Arc::new(task)));
        }
        waiting.push_back(store.enqueue(transaction)?);
        if waiting.len() >= WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.blocking_recv()??;
        }
        if first > 0 && first % 100_000 == 0 {
            eprintln!("{first} of {count} tasks are written");
        }
    }
    for outcome in waiting {
        outcome.blocking_recv()??;
    }
    Ok(())
}

/// Makes a data folder with [`INSTANCES`] container instances, a task definition and that many RUNNING tasks.
pub(super) fn fill(folder: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let mut server = Server::start(folder)?;
    let mut client = server.client()?;
    client.call("RegisterTaskDefinition", &definition())?;
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        let answer = client.call("RegisterContainerInstance", &instance())?;
        let arn = text(&answer, "/containerInstance/containerInstanceArn")?;
        instances.push(arn.rsplit('/').next().unwrap_or_default().parse()?);
    }
    server.process.terminate();
    put_tasks(&open(folder)?, &running_task()?, count, &instances)
}

/// A task definition whose tasks fit many times on an instance.
pub(super) fn definition() -> serde_json::Value {
    json!({"family": "bench", "containerDefinitions": [{"name": "app", "image": "hello", "cpu": 1, "memory": 6}]})
}

/// What a hollow instance registers.
pub(super) fn instance() -> serde_json::Value {
    let resource = |name: &str, value: u32| json!({"name": name, "type": "INTEGER", "integerValue": value});
    json!({
        "cluster": "default",
        "totalResources": [resource("CPU", 1_000_000_000), resource("MEMORY", 2_000_000_000)],
        "attributes": [{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}, {"name": "ecs.os-type", "value": "linux"}],
        "versionInfo": {"agentVersion": "1.0.0"},
    })
}
