//! `ExecuteCommand`: checks everything that ECS checks. Nobody listens in a container yet for commands to come, which ECS has words for.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html>

use berth_model::arn::parse_task;
use berth_model::task::{Task, TaskStatus};
use berth_shapes::ecs::{ErrorCode, ExecuteCommandRequest, ExecuteCommandResponse};

use crate::context::Api;
use crate::failure::Failure;

const NOT_ENABLED: &str = "The execute command failed because execute command was not enabled when the task was run or the execute command agent \
                           isn't running. Wait and try again or run a new task with execute command enabled and try again.";

pub(crate) async fn run(api: &Api, request: ExecuteCommandRequest) -> Result<ExecuteCommandResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    if request.command.as_deref().unwrap_or_default().is_empty() {
        return Err(Failure::invalid("The command must not be empty: command"));
    }
    if request.interactive != Some(true) {
        return Err(Failure::invalid("Interactive is the only mode supported currently: interactive"));
    }
    let id = parse_task(api.scope(), &cluster, request.task.as_deref().unwrap_or_default())?;
    let state = api.store.state();
    let task = state.task(id).filter(|task| task.cluster == cluster);
    let task = task.ok_or_else(|| Failure::invalid("The referenced task was not found: task"))?;
    check_container(task, request.container.as_deref().filter(|name| !name.is_empty()))?;
    if task.last_status != TaskStatus::Running || !task.enable_execute_command {
        return Err(Failure::invalid(NOT_ENABLED));
    }
    Err(Failure::modelled(ErrorCode::TargetNotConnected, "The execute command failed due to an internal error. Try again later."))
}

/// The container must be named where there are several, and be one of the task's.
fn check_container(task: &Task, name: Option<&str>) -> Result<(), Failure> {
    match name {
        None if task.containers.len() == 1 => Ok(()),
        None => Err(Failure::invalid("The container must be named, since the task has several: container")),
        Some(name) if task.containers.iter().any(|container| &*container.name == name) => Ok(()),
        Some(name) => Err(Failure::invalid(format!("The task has no container {name:?}: container"))),
    }
}
