//! `GetTaskProtection`: which of a service's tasks are protected, and until when.

use berth_model::arn::parse_task;
use berth_shapes::ecs::{GetTaskProtectionRequest, GetTaskProtectionResponse};

use super::render;
use super::update_task_protection::shown;
use crate::context::Api;
use crate::failure::Failure;

/// Most tasks in one request that asks.
const MOST: usize = 100;

pub(crate) async fn run(api: &Api, request: GetTaskProtectionRequest) -> Result<GetTaskProtectionResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let named = request.tasks.unwrap_or_default();
    if !(1..=MOST).contains(&named.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} tasks: tasks")));
    }
    let state = api.store.state();
    let (mut protected, mut failures) = (Vec::new(), Vec::new());
    for text in &named {
        let id = parse_task(api.scope(), &cluster, text)?;
        let arn = api.scope().task(&cluster, id);
        match state.task(id).filter(|task| task.cluster == cluster) {
            None => failures.push(render::missing(arn)),
            Some(task) if task.service.is_none() => failures.push(render::failure(arn, "TASK_NOT_VALID")),
            Some(task) => protected.push(shown(api, &cluster, task)),
        }
    }
    Ok(GetTaskProtectionResponse { protected_tasks: Some(protected), failures: Some(failures) })
}
